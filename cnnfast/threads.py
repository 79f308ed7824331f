"""How many threads a call may use.

At first as many as this process has processors: those of its affinity mask, within the limit of its
control group; or what the environment variable CNNFAST_NUM_THREADS says. The algorithm "tiled" uses
them. (The matrix products of "im2col" are NumPy's, on the threads of its BLAS, whose number may
change their last bits.) On Windows, where the pool of threads is not there yet, the kernels run on
the calling thread whatever the number.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import SupportsIndex

from . import _engine
from .geometry import integer

VARIABLE = "CNNFAST_NUM_THREADS"
CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")  # of Linux: microseconds a period, or "max"


def get_num_threads() -> int:
    """Return how many threads a call may use.

    Returns
    -------
    int
        At least 1.

    Examples
    --------
    >>> import cnnfast
    >>> cnnfast.get_num_threads() >= 1
    True
    """
    return _threads


def set_num_threads(n: SupportsIndex) -> None:
    """Set how many threads a call may use; the result of a call does not depend on it.

    Parameters
    ----------
    n : int
        At least 1; more than the kernels can use is taken as what they can.

    Raises
    ------
    TypeError, ValueError
        For anything but a positive int.

    Examples
    --------
    >>> import cnnfast
    >>> cnnfast.set_num_threads(1)
    """
    global _threads
    _threads = min(integer("num_threads", n, 1), _engine.MOST)
    _engine.use_threads(_threads)


@contextmanager
def num_threads(n: SupportsIndex) -> Iterator[None]:
    """Set the number of threads for the body of a with statement.

    Parameters
    ----------
    n : int
        As for `set_num_threads`.

    Examples
    --------
    >>> import cnnfast
    >>> with cnnfast.num_threads(1):
    ...     cnnfast.get_num_threads()
    1
    """
    before = get_num_threads()
    set_num_threads(n)
    try:
        yield
    finally:
        set_num_threads(before)


def _from_environment() -> int:
    text = os.environ.get(VARIABLE)
    if not text:
        return _processors()
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise ValueError(f"{VARIABLE} must be a positive int, got {text!r}")
    return number


def _processors() -> int:
    """Count the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        available = len(os.sched_getaffinity(0))
    else:
        available = os.cpu_count() or 1
    try:
        quota, period = CGROUP_LIMIT.read_text().split()
    except (OSError, ValueError):
        return available
    if quota == "max":
        return available
    return max(1, min(available, math.ceil(int(quota) / int(period))))


_threads = 1
set_num_threads(_from_environment())
