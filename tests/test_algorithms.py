"""The choice of an algorithm: plans, refusals, the memory that a plan promises; plans kept."""

from __future__ import annotations

import _thread
import dataclasses
import signal
import threading
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from cases import DTYPES, LAYOUTS, Case, Variant, variants
from contract import forward

import cnnfast
from cnnfast import algorithms, reference
from cnnfast.algorithms import ALGORITHMS, POOL_ALGORITHMS

NAMES = [each.name for each in ALGORITHMS]
SHAPES = (8, 4, 12, 10), (8, 1, 3, 3)  # what every algorithm can do, with groups=4
GROUPS = {"depthwise": 64}  # of 64 channels, for the algorithms that need groups
OVERHEAD = 64 * 2**10  # bytes of Python objects around a call


def test_the_list_is_ordered_fastest_first() -> None:
    known = ["winograd", "depthwise", "tiled", "im2col", "naive"]
    assert [name for name in known if name in NAMES] == NAMES
    assert POOL_ALGORITHMS[-1].name == "naive"


@pytest.mark.parametrize(
    ("shapes", "options", "first", "reason"),
    [
        (
            ((8, 4, 12, 10), (6, 2, 3, 3)),
            {"groups": 2},
            "tiled",
            "few channels, filters or outputs",
        ),
        (SHAPES, {"groups": 4}, "depthwise", ""),
        (((100, 1, 28, 28), (2, 1, 3, 3)), {}, "depthwise", ""),
        (((100, 1, 28, 28), (8, 1, 3, 3)), {}, "tiled", ""),  # forward, many filters of one channel
        (((100, 1, 8, 8), (8, 1, 3, 3)), {}, "tiled", ""),  # narrow images of one channel
        (((1, 64, 4, 4), (64, 64, 3, 3)), {"padding": 1}, "tiled", "few outputs"),
        (((8, 64, 12, 10), (64, 64, 3, 3)), {"stride": 2}, "tiled", "its stride is not 1"),
        (((8, 64, 24, 24), (64, 64, 3, 3)), {"dilation": 2}, "winograd", ""),
        (((8, 64, 9, 9), (64, 64, 3, 3)), {"dilation": 4}, "tiled", "its dilation steps over"),
        (
            ((1, 64, 256, 256), (64, 64, 3, 3)),
            {"dilation": (65, 64)},
            "tiled",
            "its dilation parts the image",
        ),
        (((8, 64, 12, 10), (64, 64, 1, 3)), {}, "tiled", "its kernel is neither 3x3 nor 5x5"),
        (((8, 2049, 12, 10), (64, 2049, 3, 3)), {}, "tiled", "more than 2048 channels"),
        (((8, 64, 12, 10), (64, 64, 3, 3)), {"padding": 1}, "winograd", ""),
        (((8, 64, 12, 10), (64, 64, 5, 5)), {"padding": 2}, "winograd", ""),
    ],
)
def test_auto_takes_the_first_and_says_why_not_the_others(
    shapes: tuple[tuple[int, ...], ...], options: dict[str, object], first: str, reason: str
) -> None:
    plan = cnnfast.plan_conv2d(*shapes, **options)
    assert plan.algorithm == first
    assert list(plan.refusals) == [name for name in NAMES if name != first]
    assert all(isinstance(reason, str) and reason for reason in plan.refusals.values())
    assert reason in plan.refusals.get("winograd", "")


@pytest.mark.parametrize("name", NAMES)
def test_a_forced_algorithm_is_planned(name: str) -> None:
    plan = cnnfast.plan_conv2d(*SHAPES, groups=4, algorithm=name)
    assert plan.algorithm == name
    assert set(plan.refusals) == set(NAMES) - {name}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_costs_by_hand(dtype: str, layout: str) -> None:
    (n, c, h, w), weights = SHAPES
    x_shape = (n, h, w, c) if layout == "NHWC" else (n, c, h, w)
    plan = cnnfast.plan_conv2d(x_shape, weights, dtype=dtype, groups=4, layout=layout)
    assert plan.flops == 2 * 8 * (8 * 10 * 8) * (1 * 3 * 3)
    numbers = 8 * 4 * 12 * 10 + 8 * 1 * 3 * 3 + 8 * 8 * 10 * 8
    assert plan.bytes == numbers * np.dtype(dtype).itemsize


@pytest.mark.parametrize("variant", variants(("conv2d",), "plain", "typical"), ids=str)
def test_auto_computes_as_planned(variant: Variant) -> None:
    *arrays, _ = variant.inputs("uniform").values()
    options = {k: v for k, v in variant.options.items() if k != "activation"}
    chosen = cnnfast.plan_conv2d(
        arrays[0].shape, arrays[1].shape, **options | {"algorithm": "auto"}
    )
    auto, planned = (
        cnnfast.conv2d(*arrays, **options | {"algorithm": name})
        for name in ("auto", chosen.algorithm)
    )
    np.testing.assert_array_equal(auto, planned)


@pytest.mark.parametrize(("filters", "forward"), [(7, "depthwise"), (8, "tiled")])
def test_one_channel_of_pixels_may_take_another_forward_than_backward(
    filters: int, forward: str
) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 9, 8, 1))
    w = rng.standard_normal((filters, 1, 3, 3))
    plan = cnnfast.plan_conv2d(x.shape, w.shape, layout="NHWC", dtype="float64")
    assert (plan.algorithm, plan.backward) == (forward, "depthwise")
    results = {}
    for name in ("auto", "depthwise", "tiled"):
        y, cache = cnnfast.conv2d_forward(x, w, layout="NHWC", algorithm=name)
        dx, dw, _ = cnnfast.conv2d_backward(np.ones_like(y), cache)
        assert dx is not None and dw is not None
        results[name] = y.tobytes(), dx.tobytes(), dw.tobytes()
    assert results["auto"][0] == results[forward][0]
    assert results["auto"][1:] == results["depthwise"][1:]
    assert results["depthwise"] != results["tiled"]


@pytest.mark.parametrize("dtype", [np.float64, np.dtype("float64"), "f8"])
def test_a_plan_takes_any_name_of_a_dtype(dtype: object) -> None:
    want = cnnfast.plan_conv2d(*SHAPES, groups=4, dtype="float64")
    assert cnnfast.plan_conv2d(*SHAPES, groups=4, dtype=dtype) == want


ONE = np.ones((1, 1, 1, 1), np.float32)
GIANT = np.broadcast_to(ONE, (1, 1, 50_000, 50_000))


@pytest.mark.parametrize(
    "call",
    [
        lambda: cnnfast.global_avg_pool2d(GIANT),
        lambda: cnnfast.global_max_pool2d(GIANT),
        lambda: cnnfast.group_norm(  # out: not poisoned before, which takes long
            GIANT[..., :20_000],
            ONE.ravel(),
            ONE.ravel(),
            1,
            out=np.zeros((1, 1, 50_000, 20_000), np.float32),
        ),
        lambda: cnnfast.max_pool2d(GIANT[..., :2000, :2000], 31, stride=1, algorithm="naive"),
        lambda: cnnfast.avg_pool2d(GIANT[..., :30_000, :30_000], 31, stride=15),
        lambda: cnnfast.conv2d(
            GIANT[..., :2000, :2000], np.ones((1, 1, 31, 31), np.float32), algorithm="naive"
        ),
    ],
)
def test_one_large_plane_can_be_interrupted(call: Callable[[], object]) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a background job
    try:
        start = time.perf_counter()
        threading.Timer(0.05, _thread.interrupt_main).start()
        with pytest.raises(KeyboardInterrupt):
            call()
        assert time.perf_counter() - start < 1
    finally:
        signal.signal(signal.SIGINT, before)


def test_plans_are_immutable() -> None:
    plan = cnnfast.plan_conv2d(*SHAPES, groups=4)
    assert hash(plan) == hash(dataclasses.replace(plan))
    with pytest.raises(AttributeError):
        plan.algorithm = "naive"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("images", [1, 64, 10**6])
def test_workspace_is_bounded_whatever_the_batch(name: str, images: int) -> None:
    groups = GROUPS.get(name, 1)
    shapes = (images, 64, 56, 56), (64, 64 // groups, 3, 3)
    plan = cnnfast.plan_conv2d(*shapes, padding=1, groups=groups, algorithm=name)
    assert 0 <= plan.workspace_bytes <= 64 * 2**20


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_calls_take_no_more_memory_than_planned(name: str, layout: str) -> None:
    groups = GROUPS.get(name, 1)
    shapes = {"x": (40, 64, 14, 14), "w": (64, 64 // groups, 3, 3)}
    case = Case("conv2d", "memory", shapes, {"padding": 1, "groups": groups})
    variant = Variant(case, "float32", layout, name)
    inputs = variant.inputs()
    x, w, dy = inputs.values()
    plan = cnnfast.plan_conv2d(x.shape, w.shape, **variant.options)
    _, cache = forward(cnnfast, variant, inputs)
    out = np.empty_like(dy)
    peaks = []
    tracemalloc.start()
    for call in (
        lambda: cnnfast.conv2d(x, w, **variant.options, out=out),
        lambda: cnnfast.conv2d_backward(dy, cache),
    ):
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        call()
        peaks.append(tracemalloc.get_traced_memory()[1] - before)
    tracemalloc.stop()
    results = 0, x.nbytes + w.nbytes
    for peak, result in zip(peaks, results, strict=True):
        assert peak <= plan.workspace_bytes + result + OVERHEAD


@pytest.mark.parametrize("function", ["conv2d", "conv_transpose2d", "max_pool2d", "avg_pool2d"])
def test_a_refusal_is_an_error_when_forced_and_passed_over_by_auto(
    function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An algorithm that refuses everything, put first in the list under another name."""
    shelf = "ALGORITHMS" if function.startswith("conv") else "POOL_ALGORITHMS"
    able = getattr(algorithms, shelf)
    unable = dataclasses.replace(able[0], name="unable", why_not=lambda problem: "no day for it")
    monkeypatch.setattr(algorithms, shelf, (unable, *able))
    algorithms._plan.cache_clear()  # no problem has two lists but here
    algorithms._pool_plan.cache_clear()
    variant, *_ = variants((function,), "typical")
    *arrays, _ = variant.inputs().values()
    call = getattr(cnnfast, function)
    want = call(*arrays, **variant.options)
    options = {k: v for k, v in variant.options.items() if k != "algorithm"}
    np.testing.assert_array_equal(call(*arrays, **options, out=np.empty_like(want)), want)
    with pytest.raises(ValueError, match=r"'unable'.*no day for it"):
        call(*arrays, **options, algorithm="unable")


X, W = np.ones((1, 2, 6, 6), np.float32), np.ones((2, 2, 1, 1), np.float32)
KEPT_CALLS: dict[str, Callable[..., object]] = {
    "conv2d": lambda **options: cnnfast.conv2d(X, W, **options),
    "conv2d_forward": lambda **options: cnnfast.conv2d_forward(X, W, **options),
    "conv_transpose2d": lambda **options: cnnfast.conv_transpose2d(X, W, **options),
    "plan_conv2d": lambda **options: cnnfast.plan_conv2d(X.shape, W.shape, **options),
    "max_pool2d": lambda kernel_size=1, **options: cnnfast.max_pool2d(X, kernel_size, **options),
    "avg_pool2d": lambda kernel_size=1, **options: cnnfast.avg_pool2d(X, kernel_size, **options),
}
CONVS = ("conv2d", "conv2d_forward", "conv_transpose2d", "plan_conv2d")
POOLS = ("max_pool2d", "avg_pool2d")
ONES = (
    True,
    1.0,
    np.True_,
    np.float64(1),
    (1, True),
    (True, 1),
    [1, True],
    (1.0, 1),
    (1, np.True_),
)
ZEROS = (False, 0.0, np.False_, (0, False), [0, 0.0], ((0, 0), (0, False)), ((0, False), (0, 0)))
EQUAL = [  # an option, values that are right, and wrong ones that equal one of them
    *((call, name, (1, (1, 1)), ONES) for call in KEPT_CALLS for name in ("stride", "dilation")),
    *((call, "padding", (0, (0, 0), ((0, 0), (0, 0))), ZEROS) for call in KEPT_CALLS),
    *((call, "groups", (1,), (True, 1.0, np.True_)) for call in CONVS),
    *((call, "kernel_size", (1, (1, 1)), ONES) for call in POOLS),
    *((call, "ceil_mode", (False, True), (0, 1, 0.0, np.True_)) for call in POOLS),
    ("conv_transpose2d", "output_padding", (0, (0, 0)), (False, 0.0, np.False_, (0, False))),
]


@pytest.mark.parametrize(("call", "name", "right", "wrong"), EQUAL)
def test_no_kept_plan_lets_an_equal_value_of_a_wrong_type_pass(
    call: str, name: str, right: tuple[object, ...], wrong: tuple[object, ...]
) -> None:
    for value in right:
        KEPT_CALLS[call](**{name: value})
    for value in wrong:
        with pytest.raises(TypeError, match=f"{name} must be"):
            KEPT_CALLS[call](**{name: value})


@pytest.mark.parametrize("call", KEPT_CALLS)
def test_tuples_of_any_depth_are_refused(call: str) -> None:
    deep: tuple[object, ...] = (1, 1)
    for _ in range(100_000):
        deep = (deep, 1)
    with pytest.raises(TypeError, match="stride must be"):
        KEPT_CALLS[call](stride=deep)


def test_options_that_change_are_read_at_every_call() -> None:
    class Changing:
        def __index__(self) -> int:
            return self.number

    one, pair = Changing(), [1, 1]
    for number, shape in ((1, (1, 2, 6, 6)), (2, (1, 2, 3, 3)), (1, (1, 2, 6, 6))):
        one.number = pair[0] = pair[1] = number
        for option in (one, pair, (one, one)):
            assert cnnfast.conv2d(X, W, stride=option).shape == shape
            assert cnnfast.max_pool2d(X, 1, stride=option).shape == shape


def test_alternating_problems_get_their_own_plans() -> None:
    random = np.random.default_rng(0)
    x, w = (random.integers(-9, 9, shape) for shape in ((2, 4, 4, 4), (4, 4, 2, 2)))
    options = [
        {"stride": stride, "padding": padding, "layout": layout, "algorithm": algorithm}
        for stride in (1, 2)
        for padding in (0, 1, "same", (0, 1))
        for layout in LAYOUTS
        for algorithm in ("auto", "naive")
    ]
    for _ in range(2):
        for dtype in DTYPES:
            arrays = x.astype(dtype), w.astype(dtype)
            for each in options:
                for function in ("conv2d", "conv_transpose2d"):
                    want = getattr(reference, function)(*arrays, **each)
                    got = getattr(cnnfast, function)(*arrays, **each)
                    np.testing.assert_array_equal(got, want)
                    assert got.dtype == dtype
                for function in POOLS:
                    if each["padding"] != (0, 1):
                        want = getattr(reference, function)(arrays[0], 2, **each)
                        got = getattr(cnnfast, function)(arrays[0], 2, **each)
                        np.testing.assert_array_equal(got, want)


def test_memory_does_not_grow_with_the_number_of_shapes() -> None:
    """Ten thousand shapes; those that fill what is kept come before the first look."""
    image, one = np.ones((1, 2, 100, 100), np.float32), np.ones((1, 2, 1, 1), np.float32)
    tracemalloc.start()
    for height in range(100):
        for width in range(100):
            x = image[:, :, height:, width:]
            cnnfast.conv2d(x, one)
            cnnfast.max_pool2d(x, 1)
        if height == 20:
            before, _ = tracemalloc.get_traced_memory()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 2**18
