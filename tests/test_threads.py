"""Threads: their number changes no bit, and nothing that processes do to them makes a call fail.

What may crash or hang, or must be seen before the import, runs in a process of its own, with a
time-out: `in_process`.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from cases import DTYPES, LAYOUTS, Case, Variant, conv, linear, transposed
from contract import assert_same_bits, run

import cnnfast
from cnnfast import geometry
from cnnfast.conv import Conv2dCache

COUNTS = (1, 2, 3, 8)
MOST = 64  # threads that the kernels can use
TIMEOUT = 60  # seconds, of a process that hangs
ROUNDS = 50  # of forking

MANY_CHUNKS = [
    conv("images", (6, 16, 20, 20), (24, 16, 3, 3), padding=1),
    conv("small-images", (5, 32, 7, 7), (136, 32, 3, 3), padding=1, activation="relu"),
    conv("three-channels", (9, 3, 19, 19), (32, 3, 7, 7), stride=2, padding=3),
    conv("three-channels-small", (40, 3, 7, 7), (64, 3, 3, 3), stride=2, padding=1),
    conv("1x1", (4, 70, 14, 14), (96, 70, 1, 1)),
    conv("groups", (3, 24, 14, 13), (36, 8, 3, 3), padding=1, groups=3),
    conv("depthwise", (3, 33, 14, 13), (33, 1, 3, 3), padding=1, groups=33),
    conv("few-outputs", (1, 64, 4, 4), (400, 64, 3, 3)),
    transposed("images", (4, 24, 12, 13), (24, 20, 3, 3), padding=1),
    transposed("phases", (4, 32, 9, 8), (32, 24, 4, 4), stride=2, padding=1, activation="relu"),
    transposed("groups", (4, 24, 9, 8), (24, 10, 3, 3), groups=2),
    transposed("few-outputs", (1, 160, 2, 2), (160, 300, 3, 3)),
    linear("rows", (200, 300), 130, activation="relu"),
    linear("few-outputs", (3, 700), 900),
]
VARIANTS = [
    Variant(case, dtype, layout, None)
    for case in MANY_CHUNKS
    for dtype in DTYPES
    for layout in (LAYOUTS if case.function != "linear" else (None,))
]
QUICK = [variant for variant in VARIANTS if variant.case.name == "groups"] + VARIANTS[-4:-2]


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = cnnfast.get_num_threads()
    yield
    cnnfast.set_num_threads(before)


def python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        cwd=Path(__file__).parent,
        env=os.environ | environment,
    )


def in_process(function: Callable[..., None], *arguments: object) -> None:
    """Call a function of this module in a process of its own, which must end well."""
    name = f"{Path(__file__).stem}.{function.__name__}"
    result = python(f"import {Path(__file__).stem}\n{name}{arguments!r}")
    assert result.returncode == 0, f"{result.returncode}: {result.stderr[-2000:]}"


# The same bits.


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_thread_count_changes_no_bit(variant: Variant) -> None:
    inputs = variant.inputs("uniform")
    results = []
    for count in COUNTS:
        with cnnfast.num_threads(count):
            results.append(run(cnnfast, variant, inputs))
    for other in results[1:]:
        assert_same_bits(other, results[0])


@pytest.mark.parametrize("count", COUNTS)
def test_many_python_threads_share_the_pool(count: int) -> None:
    work = [(variant, variant.inputs("uniform")) for variant in QUICK]
    with cnnfast.num_threads(1):
        serial = [run(cnnfast, *each) for each in work]
    with cnnfast.num_threads(count), ThreadPoolExecutor(8) as callers:
        results = list(callers.map(lambda each: run(cnnfast, *each), work * 8))
    for i, each in enumerate(results):
        assert_same_bits(each, serial[i % len(work)])


# How many.


def test_the_number_is_the_one_set() -> None:
    for count in (1, 3, np.int64(2)):
        cnnfast.set_num_threads(count)
        assert cnnfast.get_num_threads() == count
        assert type(cnnfast.get_num_threads()) is int


def test_more_than_the_kernels_can_use_is_what_they_can() -> None:
    variant = QUICK[0]
    inputs = variant.inputs()
    want = run(cnnfast, variant, inputs)
    cnnfast.set_num_threads(2**31 - 1)
    assert cnnfast.get_num_threads() == MOST
    assert_same_bits(run(cnnfast, variant, inputs), want)


@pytest.mark.parametrize("bad", [0, -1, 2**31, 10**30, 1.0, "2", None, True, [2]], ids=repr)
def test_what_is_not_a_positive_int_is_refused(bad: object) -> None:
    error = ValueError if type(bad) is int else TypeError
    cnnfast.set_num_threads(3)
    with pytest.raises(error, match="num_threads"):
        cnnfast.set_num_threads(bad)
    with pytest.raises(error, match="num_threads"), cnnfast.num_threads(bad):
        pass
    assert cnnfast.get_num_threads() == 3


def test_the_number_is_restored() -> None:
    cnnfast.set_num_threads(3)
    with cnnfast.num_threads(5):
        with cnnfast.num_threads(2):
            assert cnnfast.get_num_threads() == 2
        assert cnnfast.get_num_threads() == 5
        cnnfast.set_num_threads(7)
    assert cnnfast.get_num_threads() == 3
    with pytest.raises(KeyError), cnnfast.num_threads(5):
        raise KeyError
    assert cnnfast.get_num_threads() == 3


ASK = "import cnnfast; print(cnnfast.get_num_threads())"


@pytest.mark.parametrize("count", [1, 5])
def test_the_environment_sets_the_number(count: int) -> None:
    assert python(ASK, CNNFAST_NUM_THREADS=str(count)).stdout == f"{count}\n"


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CNNFAST_NUM_THREADS", raising=False)
    assert python(ASK, CNNFAST_NUM_THREADS="").stdout == python(ASK).stdout != ""


@pytest.mark.parametrize("bad", ["0", "-1", "two", "1.5"])
def test_what_the_environment_may_not_say(bad: str) -> None:
    last = python(ASK, CNNFAST_NUM_THREADS=bad).stderr.splitlines()[-1]
    assert last == f"ValueError: CNNFAST_NUM_THREADS must be a positive int, got {bad!r}"


if hasattr(os, "sched_setaffinity"):

    def test_the_number_is_at_first_that_of_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("CNNFAST_NUM_THREADS", raising=False)
        limit = "; import pathlib; pathlib.Path.read_text = lambda path: 'max 100000'"
        mask = sorted(os.sched_getaffinity(0))
        for count in {1, len(mask)}:
            program = f"import os; os.sched_setaffinity(0, {mask[:count]}){limit}; {ASK}"
            assert python(program).stdout == f"{count}\n"

    @pytest.mark.parametrize(
        ("limit", "most"), [("100000 100000", 1), ("30000 100000", 1), ("150000 100000", 2)]
    )
    def test_the_control_group_limits_the_number(
        limit: str, most: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("CNNFAST_NUM_THREADS", raising=False)
        fake = f"import pathlib; pathlib.Path.read_text = lambda path: {limit!r}; "
        expected = min(most, len(os.sched_getaffinity(0)))
        assert python(fake + ASK).stdout == f"{expected}\n"


# What may crash or hang.


def compute_while_the_number_changes() -> None:
    x, w = np.ones((4, 3, 40, 40), np.float32), np.ones((64, 3, 3, 3), np.float32)
    want, cache = cnnfast.conv2d_forward(x, w)
    _, dw, _ = cnnfast.conv2d_backward(want, cache, needs="w")
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            cnnfast.set_num_threads(1)
            cnnfast.set_num_threads(8)

    changer = threading.Thread(target=change)
    changer.start()
    try:
        for _ in range(100):
            assert np.array_equal(cnnfast.conv2d(x, w), want)
            assert np.array_equal(cnnfast.conv2d_backward(want, cache, needs="w")[1], dw)
    finally:
        done.set()
        changer.join()


def test_the_number_may_change_during_a_call() -> None:
    in_process(compute_while_the_number_changes)


def fork_and_compute(busy: bool) -> None:
    """Fork again and again after, or while another thread is, computing on several threads."""
    work = [(variant, variant.inputs("uniform")) for variant in QUICK[:2]]
    cnnfast.set_num_threads(3)
    want = [run(cnnfast, *each) for each in work]
    done = threading.Event()

    def keep_computing() -> None:
        while not done.is_set():
            run(cnnfast, *work[0])

    other = threading.Thread(target=keep_computing)
    if busy:
        other.start()
    try:
        for _ in range(ROUNDS):
            child = os.fork()
            if not child:
                signal.alarm(TIMEOUT // 4)  # ends a child that hangs
                for each, results in zip(work, want, strict=True):
                    assert_same_bits(run(cnnfast, *each), results)
                os._exit(0)
            _, status = os.waitpid(child, 0)
            assert status == 0
            assert_same_bits(run(cnnfast, *work[0]), want[0])
    finally:
        done.set()
        if busy:
            other.join()


if hasattr(os, "fork"):

    @pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
    def test_a_forked_child_computes(busy: bool) -> None:
        in_process(fork_and_compute, busy)


def compute(variant: Variant) -> dict[str, np.ndarray]:
    return run(cnnfast, variant, variant.inputs("uniform"))


def compute_in_processes(method: str) -> None:
    variant = QUICK[0]
    cnnfast.set_num_threads(2)
    want = compute(variant)
    same = Case(variant.case.function, "sent", variant.case.shapes, variant.case.options)
    sent = Variant(same, variant.dtype, variant.layout, None)
    with multiprocessing.get_context(method).Pool(2) as processes:
        for results in processes.map(compute, [sent] * 6):
            assert_same_bits(results, want)


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_multiprocessing(method: str) -> None:
    in_process(compute_in_processes, method)


def interrupt(call: Callable[[], object]) -> None:
    """Send Ctrl-C to this process while the call runs: it must end with it, and soon."""
    sent = []

    def send() -> None:
        sent.append(time.monotonic())
        signal.raise_signal(signal.SIGINT)

    timer = threading.Timer(0.3, send)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        call()
    assert time.monotonic() - sent[0] < 1
    timer.join()


def repeated(image: np.ndarray, times: int) -> np.ndarray:
    """Return an array of so many images, all of them the same memory."""
    return np.broadcast_to(image, (times, *image.shape))


def long_cache(
    images: int, image: np.ndarray, w: np.ndarray, layout: str
) -> tuple[np.ndarray, Conv2dCache]:
    """Return dy, and the cache of a forward pass that would take as long as the backward pass."""
    y, cache = cnnfast.conv2d_forward(image[None], w, layout=layout)
    x = repeated(image, images)
    problem = geometry.convolution(x.shape, w.shape, "float32", 1, 0, 1, 1, layout)
    return repeated(y[0], images), dataclasses.replace(cache, x=x, conv=problem)


def interrupt_long_calls(layout: str) -> None:
    """Interrupt calls that would take seconds to minutes; the next call is none the worse."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a background job
    cnnfast.set_num_threads(2)
    image = np.ones((256, 64, 64) if layout == "NCHW" else (64, 64, 256), np.float32)
    x, w = repeated(image, 200), np.ones((256, 256, 5, 5), np.float32)
    dy, cache = long_cache(400, image, w, layout)
    many_dy, many = long_cache(3000, image, w, layout)
    w_3x3 = np.ascontiguousarray(w[:, :, :3, :3])
    more_dy, more = long_cache(6000, image, w_3x3, layout)
    assert more.chosen.backward.name == "winograd"
    calls = [
        lambda: cnnfast.conv2d(x, w, layout=layout, algorithm="tiled"),
        lambda: cnnfast.conv_transpose2d(x, w, layout=layout, algorithm="tiled"),
        lambda: cnnfast.conv2d_backward(dy, cache, needs="x"),
        lambda: cnnfast.conv2d_backward(many_dy, many, needs="w"),
        lambda: cnnfast.conv2d(x, w_3x3, layout=layout, algorithm="winograd"),
        lambda: cnnfast.conv2d_backward(more_dy, more, needs="w"),
    ]
    for call in calls:
        interrupt(call)
        y = cnnfast.conv2d(np.ones((4, 3, 40, 40)), np.ones((64, 3, 3, 3)))
        assert y.shape == (4, 64, 38, 38)
        assert (y == 27).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ctrl_c_ends_a_long_call(layout: str) -> None:
    in_process(interrupt_long_calls, layout)
