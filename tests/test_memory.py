"""Memory: nothing outside the arrays is touched, and little is used beside them.

The first holds arrays against pages that may not be touched, in a program of its own, which a
fault ends: this file, run as one. Linux only, for its system calls and its peak of memory.
"""

from __future__ import annotations

import ctypes
import faulthandler
import math
import mmap
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from cases import CHANNELS, LAYOUTS, WIDTHS, Arrays, Case, Shape, Variant, accepts, variants
from contract import backward, forward, infer, named
from test_columns import data, unfold_and_fold

import cnnfast

PLACES = ("begin", "end")
STRIDES = (1, 2)
NORMS = ("batch_norm2d", "group_norm")
VECTORISED = ("conv2d", "conv_transpose2d", "linear", "max_pool2d", "avg_pool2d", *NORMS)
NAMES = (
    *("typical", "typical-3x3", "pixel", "stem", "few-channels"),
    *("depthwise", "depthwise-of-vectors", "depthwise-times-3", "depthwise-3x3-stride-2"),
    *(f"channels-{c}" for c in CHANNELS),
)
LIMIT = 64 * 2**20  # bytes beyond inputs and outputs
SLACK = 4 * 2**20  # bytes that the system's own count may be off
TIMEOUT = 120  # seconds, of a process that hangs


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this file as a program."""
    return subprocess.run(
        [sys.executable, str(Path(__file__)), *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


if sys.platform == "linux":

    def test_nothing_outside_the_arrays_is_touched() -> None:
        result = program("guard")
        where = result.stdout.splitlines()[-1:]
        assert result.returncode == 0, f"{result.returncode} in {where}: {result.stderr[-2000:]}"
        assert where == ["done"]

    @pytest.mark.parametrize("place", PLACES)
    def test_touching_what_is_outside_is_a_fault(place: str) -> None:
        result = program("touch", place)
        assert result.stdout == "inside\n"
        assert result.returncode in (-signal.SIGSEGV, -signal.SIGBUS)

    @pytest.mark.parametrize("algorithm", ["auto", "im2col"])
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_a_convolution_uses_little_memory_of_its_own(layout: str, algorithm: str) -> None:
        result = program("peak", layout, algorithm)
        assert result.returncode == 0, result.stderr[-2000:]
        own = [int(line) for line in result.stdout.split()]
        assert len(own) == 2, "forward, and with backward"
        assert min(own) >= -SLACK, "the outputs do not show: the measure is wrong"
        assert max(own) <= LIMIT


# Arrays between pages that may not be touched.


def guarded(shape: Shape | int, dtype: str | np.dtype = "float64", *, place: str) -> np.ndarray:
    """Return an array, of NaN if of floats, that touches the forbidden page before or after it.

    Its memory is given back with it: only it and its views refer to the mapping.
    """
    shape, dtype = (shape,) if isinstance(shape, int) else tuple(shape), np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    inside = max(-(-nbytes // mmap.PAGESIZE), 1) * mmap.PAGESIZE
    memory = mmap.mmap(-1, inside + 2 * mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (start, start + mmap.PAGESIZE + inside):
        if MPROTECT(page, mmap.PAGESIZE, PROT_NONE):
            raise OSError(ctypes.get_errno(), "mprotect")
    offset = mmap.PAGESIZE + (inside - nbytes if place == "end" else 0)
    array = np.frombuffer(memory, dtype, math.prod(shape), offset).reshape(shape)
    if dtype.kind == "f":
        array.fill(np.nan)
    return array


PROT_NONE = 0
if sys.platform == "linux":
    MPROTECT = ctypes.CDLL(None, use_errno=True).mprotect
    MPROTECT.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def copied(array: np.ndarray, place: str) -> np.ndarray:
    copy = guarded(array.shape, array.dtype, place=place)
    copy[...] = array
    return copy


@contextmanager
def results_guarded(place: str) -> Iterator[None]:
    """Let the arrays that the library makes for its results be guarded too."""

    def empty(shape: Shape, dtype: str | np.dtype = "float64", order: str = "C") -> np.ndarray:
        return guarded(shape, dtype, place=place)

    def zeros(shape: Shape, dtype: str | np.dtype = "float64", order: str = "C") -> np.ndarray:
        array = empty(shape, dtype)
        array.fill(0)
        return array

    with mock.patch.multiple(np, empty=empty, zeros=zeros):
        yield


def bits(arrays: Arrays) -> dict[str, tuple[Shape, bytes]]:
    return {name: (array.shape, array.tobytes()) for name, array in arrays.items()}


def compare(work: Callable[[Arrays, str | None], Arrays], inputs: Arrays) -> None:
    """Check that work on guarded arrays, at either place, gives the bits of that on plain ones."""
    want = bits(work(inputs, None))
    for place in PLACES:
        with results_guarded(place):
            close = {name: copied(array, place) for name, array in inputs.items()}
            got = bits(work(close, place))
        assert got == want, f"other bits at the {place} of the pages"


# The work.


def guard() -> None:
    """Do everything on guarded arrays; the last line printed tells where a fault was."""
    vectorised = list(problems(VECTORISED))
    for name in cnnfast.cpu.available():
        cnnfast.cpu.use(name)
        for variant in vectorised:
            if variant.algorithm == "naive" and name != "baseline":
                continue  # it uses no vectors
            print(name, variant, variant.case.shapes, variant.case.options, flush=True)
            layer(variant)
    for variant in problems(("conv2d",)):
        if variant.algorithm == "naive" and variant.layout == "NCHW":
            print("columns", variant, variant.case.shapes, variant.case.options, flush=True)
            columns(variant.case, variant.dtype)
    print("done")


def problems(functions: tuple[str, ...]) -> Iterator[Variant]:
    """Yield the cases of these names, and those of many widths, with every stride."""
    for variant in variants(functions, *NAMES):
        for case in with_strides(variant.case):
            if not replace(variant, case=case).refusal():
                yield replace(variant, case=case)
    for variant in variants(functions, "widths", "depthwise-widths"):
        every = variant.case.function == "conv2d" and variant.algorithm in ("depthwise", "tiled")
        widths = WIDTHS if every else WIDTHS[::5]  # that still leaves many remainders of a vector
        for case in with_strides(variant.case):
            for width in widths:
                wide = replace(variant, case=case.with_width(width))
                if not wide.refusal():
                    yield wide


def with_strides(case: Case) -> list[Case]:
    if case.name.startswith("typical") or not accepts(case.function, "stride"):
        return [case]
    return [replace(case, options=case.options | {"stride": stride}) for stride in STRIDES]


def layer(variant: Variant) -> None:
    """Compare inference, into out= where it can, forward and backward."""

    def work(inputs: Arrays, place: str | None) -> Arrays:
        out = {}
        if has_out:
            shape, dtype = inputs["dy"].shape, inputs["dy"].dtype
            out["out"] = guarded(shape, dtype, place=place) if place else np.empty(shape, dtype)
        results = named(("y", "indices"), infer(cnnfast, variant, inputs, **out))
        results["forward"], cache = forward(cnnfast, variant, inputs)
        return results | backward(cnnfast, variant, inputs["dy"], cache)

    has_out = accepts(variant.case.function, "out")
    compare(work, variant.inputs("uniform"))


def columns(case: Case, dtype: str) -> None:
    def work(inputs: Arrays, place: str | None) -> Arrays:
        return unfold_and_fold(cnnfast, case, inputs["x"], inputs["columns"])

    compare(work, dict(zip(("x", "columns"), data(case, dtype), strict=True)))


def touch(place: str) -> None:
    """Read the ends of a guarded array, then the byte beyond the guarded one."""
    array = guarded((3, 5), "float32", place=place)
    first = array.ctypes.data
    ctypes.string_at(first, array.nbytes)
    print("inside", flush=True)
    ctypes.string_at(first - 1 if place == "begin" else first + array.nbytes, 1)


def peak(layout: str, algorithm: str) -> None:
    """Print by how much the peak of memory exceeds inputs and outputs: forward, and backward."""

    def layer(shape: Shape) -> None:
        x, dy = (np.ones(shape, np.float32) for _ in range(2))
        before = most_resident()
        y, cache = cnnfast.conv2d_forward(x, w, b, padding=1, layout=layout, algorithm=algorithm)
        own.append(most_resident() - before - y.nbytes)
        gradients = cnnfast.conv2d_backward(dy, cache)
        outputs = (y, *gradients)
        own.append(most_resident() - before - sum(each.nbytes for each in outputs))

    own: list[int] = []
    w, b = np.ones((64, 64, 3, 3), np.float32), np.ones(64, np.float32)
    layer((1, 64, 1, 1) if layout == "NCHW" else (1, 1, 1, 64))  # what is only needed once
    layer((64, 64, 56, 56) if layout == "NCHW" else (64, 56, 56, 64))
    print(*own[2:])


def most_resident() -> int:
    """Return the most bytes ever resident; unlike getrusage, without those of the parent."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    if command == "guard":
        faulthandler.enable()
    {"guard": guard, "touch": touch, "peak": peak}[command](*rest)
