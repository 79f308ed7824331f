"""How many threads a call may use.

The kernels of this version run on the calling thread: a number above ``MOST`` is taken as ``MOST``.
(The matrix products of the algorithm "im2col" are NumPy's, on the threads of its BLAS.)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import SupportsIndex

from .geometry import integer

MOST = 1  # threads that the kernels can use

VARIABLE = "CNNFAST_NUM_THREADS"


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
    _threads = min(integer("num_threads", n, 1), MOST)


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
    text = os.environ.get(VARIABLE, str(MOST))
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise ValueError(f"{VARIABLE} must be a positive int, got {text!r}")
    return min(number, MOST)


_threads = _from_environment()
