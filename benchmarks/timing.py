"""Fair timing of rivals: interleaved repetitions in one process, medians, equal thread counts.

In every repetition each rival runs once, in an order shuffled anew, so that a slow spell of the
machine, or the caches that one rival leaves to the next, fall on all of them alike. With several
threads each begins when the workers of the rival before are asleep. A rival much faster than a
sample should last runs several times in a row instead of once.
Needs threadpoolctl, to hold the BLAS behind NumPy to the same number of threads.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import DTypeLike
from threadpoolctl import threadpool_limits

import cnnfast
from cnnfast import _engine
from cnnfast.config import config

Call = Callable[[], object]
Name = TypeVar("Name", bound=Hashable)

TILES = 1000  # of the product kernel between two looks at the clock: some milliseconds
SAMPLE_SECONDS = (
    10e-3  # a sample lasts about so long, or one call: a cold first call is little of it
)
REST_SECONDS = 5e-3  # between two looks whether all workers sleep
LONGEST_REST_SECONDS = 0.5  # whoever does not sleep by then, never will


@dataclass(frozen=True)
class Rounds:
    """How long to measure: at least ``least`` repetitions, then more until ``seconds`` are over."""

    least: int
    seconds: float
    most: int = 100
    sample: float = SAMPLE_SECONDS


def settle_allocator() -> None:
    """Take and free one large block, after which glibc keeps freed memory instead of returning it.

    A process that has handled real data is in that state anyway; a fresh one pays page faults for
    every temporary, or not, depending on which rival ran before.
    """
    np.empty(31 * 2**20, dtype=np.uint8)  # just below the 32 MiB at which glibc stops learning


def once(call: Call) -> float:
    """Seconds that one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def interleaved(calls: Mapping[Name, Call], rounds: Rounds) -> dict[Name, float]:
    """Median seconds per call of each rival."""
    names = list(calls)
    shuffle = random.Random(0).shuffle
    repeats = {name: math.ceil(rounds.sample / _estimate(calls[name])) for name in names}
    samples: dict[Name, list[float]] = {name: [] for name in names}
    start = time.perf_counter()
    for turn in range(rounds.most):
        if turn >= rounds.least and time.perf_counter() - start > rounds.seconds:
            break
        shuffle(names)
        for name in names:
            if cnnfast.get_num_threads() > 1:
                rest()
            samples[name].append(_sample(calls[name], repeats[name]))
    return {name: statistics.median(samples[name]) for name in calls}


def rest() -> None:
    """Sleep until the workers of the rival before do, until this process takes no processor time.

    OpenBLAS's workers spin for 2**28 cycles after a product, a tenth of a second on the cores of
    whoever comes next; others' for some milliseconds.
    """
    start = time.perf_counter()
    busy = REST_SECONDS
    while busy > REST_SECONDS / 10 and time.perf_counter() - start < LONGEST_REST_SECONDS:
        before = time.process_time()
        time.sleep(REST_SECONDS)
        busy = time.process_time() - before


def _estimate(call: Call) -> float:
    """Seconds of a second call, after a first one that pays for page faults and cold caches."""
    first = once(call)
    return first if first > SAMPLE_SECONDS else max(once(call), 1e-7)


def _sample(call: Call, repeats: int) -> float:
    start = time.perf_counter()
    for _ in itertools.repeat(None, repeats):
        call()
    return (time.perf_counter() - start) / repeats


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Give cnnfast and every BLAS and OpenMP in the process the same number of threads."""
    with cnnfast.num_threads(count), threadpool_limits(limits=count):
        yield


def peak_rate(dtype: DTypeLike, seconds: float = 1.0) -> float:
    """FLOP/s of one thread in cnnfast's product kernel alone, its data in the first cache.

    It keeps the multiply-add units busy 95 to 98 % of the time, so it stands for their peak.
    """
    calls = {"tile": lambda: _engine.repeat_tile(np.dtype(dtype).name, TILES)}
    flops = calls["tile"]()
    return flops / interleaved(calls, Rounds(least=5, seconds=seconds))["tile"]


def machine() -> dict[str, str]:
    """What the numbers are measured on, and with."""
    return {"processor": processor(), "cores": str(os.cpu_count()), **config()}


def processor() -> str:
    """The processor's name; Linux keeps it in a file, others tell Python."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as info:
        for line in info:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
