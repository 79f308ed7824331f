"""Max, average and global pooling: the shared contract, numbers by hand, NaN, ties, infinities."""

from __future__ import annotations

import math

import numpy as np
import pytest
from cases import DTYPES, LAYOUTS, Arrays, Case
from contract import Contract, WithOut, assert_same_bits, largest, named

import cnnfast
from cnnfast import reference

TYPES = pytest.mark.parametrize("dtype", DTYPES)
ORDERS = pytest.mark.parametrize("layout", LAYOUTS)


class Pools(Contract):
    def bound(self, case: Case, inputs: Arrays, name: str, want: np.ndarray) -> float:
        """Return 4 eps K max abs for sums of K cells, or the least number; max is exact."""
        if "max" in case.function and name != "dx":
            return 0.0
        kernel = case.options.get("kernel_size", case.shapes["x"][2:])
        cells = kernel**2 if isinstance(kernel, int) else math.prod(kernel)
        limits = np.finfo(want.dtype)
        bound = 4 * float(limits.eps) * cells * largest(inputs["dy" if name == "dx" else "x"])
        return max(bound, float(limits.smallest_subnormal))


class TestPool(WithOut, Pools):
    functions = ("max_pool2d", "avg_pool2d")


class TestGlobalPool(Pools):
    functions = ("global_max_pool2d", "global_avg_pool2d")


def max_pool(x: np.ndarray, kernel: int, layout: str = "NCHW", **options: object) -> Arrays:
    """Return y and the indices as NCHW, equal to those of the reference."""
    x = np.moveaxis(x, 1, -1) if layout == "NHWC" else x
    got, want = (
        library.max_pool2d(x, kernel, layout=layout, return_indices=True, **options)
        for library in (cnnfast, reference)
    )
    assert_same_bits(named(("y", "indices"), got), named(("y", "indices"), want))
    y, indices = (np.moveaxis(each, -1, 1) if layout == "NHWC" else each for each in got)
    return {"y": y, "indices": indices}


def test_numbers_by_hand() -> None:
    x = np.array([[[[1.0, 2, 3], [4, 9, 9], [7, 8, 5]]]])
    y, indices = cnnfast.max_pool2d(x, 2, stride=1, return_indices=True)
    np.testing.assert_array_equal(y, [[[[9, 9], [9, 9]]]])
    np.testing.assert_array_equal(indices, [[[[4, 4], [4, 4]]]])
    np.testing.assert_array_equal(cnnfast.avg_pool2d(x, 2, stride=1), [[[[4, 5.75], [7, 7.75]]]])
    np.testing.assert_array_equal(cnnfast.global_max_pool2d(x), [[9]])
    np.testing.assert_array_equal(cnnfast.global_avg_pool2d(x), [[48 / 9]])


@pytest.mark.parametrize(
    ("ties", "want"),
    [("first", [0, 1, 0, 2, 0]), ("all", [0, 1, 1, 2, 2]), ("split", [0, 0.5, 0.5, 1, 1])],
)
def test_ties_by_hand(ties: str, want: list[float]) -> None:
    x = np.array([0.0, 5, 5, 7, 7]).reshape(1, 1, 1, 5)
    _, cache = cnnfast.max_pool2d_forward(x, (1, 2), stride=(1, 2), padding=((0, 0), (1, 0)))
    dx = cnnfast.max_pool2d_backward(np.array([0.0, 1, 2]).reshape(1, 1, 1, 3), cache, ties=ties)
    np.testing.assert_array_equal(dx.ravel(), want)


@pytest.mark.parametrize(
    ("ties", "want"), [("first", [0, 6, 0]), ("all", [0, 6, 6]), ("split", [0, 3, 3])]
)
def test_global_ties_by_hand(ties: str, want: list[float]) -> None:
    x = np.array([1.0, np.nan, np.nan]).reshape(1, 1, 1, 3)
    _, cache = cnnfast.global_max_pool2d_forward(x)
    dx = cnnfast.global_max_pool2d_backward(np.array([[6.0]]), cache, ties=ties)
    np.testing.assert_array_equal(dx.ravel(), want)


@pytest.mark.parametrize(
    ("width", "options", "want"),
    [
        (3, {"padding": 1}, [4 / 9, 4 / 9]),
        (3, {"padding": 1, "count_include_pad": False}, [1, 1]),
        (4, {"padding": ((1, 1), (0, 0)), "ceil_mode": True}, [6 / 9, 4 / 6, 3 / 6, 2 / 4]),
    ],
)
def test_average_divisors_by_hand(width: int, options: dict, want: list[float]) -> None:
    """Padding counts unless told otherwise; what ceil_mode adds beyond the padding never does."""
    y = cnnfast.avg_pool2d(np.ones((1, 1, 2, width)), 3, stride=2, **options)
    np.testing.assert_allclose(y.ravel(), want, rtol=1e-15)


@TYPES
@ORDERS
def test_gradients_of_overlapping_windows(dtype: str, layout: str) -> None:
    """Rows of every length, windows one cell apart and of all sizes: whole numbers, so exact."""
    rng = np.random.default_rng(0)
    for width in range(1, 41):
        height = int(rng.integers(1, 12))
        kernel = int(rng.integers(1, min(height, 7) + 1)), int(rng.integers(1, min(width, 7) + 1))
        padding = kernel[0] // 2, int(rng.integers(0, kernel[1] // 2 + 1))
        options = {"stride": 1, "padding": padding, "layout": layout}
        x = rng.integers(0, 4, (2, height, width, 3)).astype(dtype)
        x = x if layout == "NHWC" else np.ascontiguousarray(np.moveaxis(x, -1, 1))
        y, cache = cnnfast.max_pool2d_forward(x, kernel, **options)
        _, known = reference.max_pool2d_forward(x, kernel, **options)
        dy = rng.integers(-9, 10, y.shape).astype(dtype)
        for ties in ("first", "all"):
            dx = cnnfast.max_pool2d_backward(dy, cache, ties=ties)
            want = reference.max_pool2d_backward(dy, known, ties=ties)
            np.testing.assert_array_equal(dx, want, err_msg=f"x {x.shape}, {kernel}, {padding}")


@ORDERS
@pytest.mark.parametrize("shape", [(1, 1, 1, 5), (2, 9, 8, 8), (1, 33, 40, 50)])
def test_global_averages_of_finite_numbers_are_finite(layout: str, shape: tuple) -> None:
    """Their sum is beyond the range of float32."""
    x = np.full(shape, 2e38, np.float32)
    x = np.ascontiguousarray(np.moveaxis(x, 1, -1)) if layout == "NHWC" else x
    y = cnnfast.global_avg_pool2d(x, layout=layout)
    np.testing.assert_array_equal(y, np.full(shape[:2], 2e38, np.float32))


@pytest.mark.parametrize("kind", ["max", "avg"])
def test_an_empty_batch_of_giant_images_takes_no_time(kind: str) -> None:
    x = np.broadcast_to(np.ones((1, 1, 1, 1)), (0, 1, 2**40, 2**19))
    y, cache = getattr(cnnfast, f"{kind}_pool2d_forward")(x, 1)
    assert y.shape == getattr(cnnfast, f"{kind}_pool2d_backward")(y, cache).shape == x.shape


@TYPES
@ORDERS
def test_nan_wins_in_every_place_and_channel(dtype: str, layout: str) -> None:
    """Image n has its NaN at place n; all channels are alike."""
    size = (4, 5)
    for channels in range(1, 34):
        x = np.zeros((20, channels, 20), dtype)
        x[...] = np.arange(20)
        x[np.arange(20), :, np.arange(20)] = np.nan
        pooled = max_pool(x.reshape(20, channels, *size), 3, layout, stride=1)
        for array in pooled.values():
            np.testing.assert_array_equal(array, np.broadcast_to(array[:, :1], array.shape))
        spoilt = np.isnan(pooled["y"][:, 0])
        places = np.broadcast_to(np.arange(20)[:, None, None], spoilt.shape)
        np.testing.assert_array_equal(pooled["indices"][:, 0][spoilt], places[spoilt])


@TYPES
@ORDERS
@pytest.mark.parametrize("value", ["nan", "-inf", "lowest"])
def test_windows_of_one_value_keep_it_and_its_place(dtype: str, layout: str, value: str) -> None:
    number = np.finfo(dtype).min if value == "lowest" else float(value)
    x = np.full((2, 3, 4, 6), number, dtype)
    pooled = max_pool(x, 3, layout, padding=1, stride=2)
    np.testing.assert_array_equal(pooled["y"], np.full((2, 3, 2, 3), number))
    first = [[0, 1, 3], [6, 7, 9]]
    np.testing.assert_array_equal(pooled["indices"], np.broadcast_to(first, (2, 3, 2, 3)))


@TYPES
@ORDERS
@pytest.mark.parametrize("zeros", [(0.0, -0.0), (-0.0, 0.0)], ids=["plus-first", "minus-first"])
def test_of_two_zeros_the_first_wins(dtype: str, layout: str, zeros: tuple[float, float]) -> None:
    x = np.array(zeros, dtype).reshape(1, 1, 1, 2) * np.ones((1, 7, 1, 1), dtype)
    pooled = max_pool(x, (1, 2), layout)
    assert (np.signbit(pooled["y"]) == np.signbit(zeros[0])).all()
    assert not pooled["indices"].any()


def backward(
    x: np.ndarray, kernel: int, ties: str, layout: str = "NCHW", **options: object
) -> None:
    """Check dx with the reference; unless shares are fractions, sums are of integers and exact."""
    x = np.moveaxis(x, 1, -1) if layout == "NHWC" else x
    dx = []
    for library in (cnnfast, reference):
        y, cache = library.max_pool2d_forward(x, kernel, layout=layout, **options)
        dy = np.random.default_rng(1).integers(-9, 9, y.shape).astype(x.dtype) * 5040
        dx.append(library.max_pool2d_backward(dy, cache, ties=ties))
    bound = 4 * np.finfo(x.dtype).eps * kernel**2 * 9 * 5040 if ties == "split" else 0
    np.testing.assert_allclose(dx[0], dx[1], rtol=0, atol=bound)


@TYPES
@ORDERS
@pytest.mark.parametrize("ties", ["first", "all", "split"])
@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        (2, {}),
        (3, {"stride": 2, "padding": 1}),
        (2, {"stride": 1, "dilation": 3, "padding": 2}),
        (13, {"stride": 1, "padding": 6}),
        (17, {"stride": 4, "padding": 8}),
    ],
)
def test_ties_of_many_zeros_and_nans(
    dtype: str, layout: str, ties: str, kernel: int, options: dict
) -> None:
    rng = np.random.default_rng(0)
    x = np.maximum(rng.integers(-9, 9, (2, 5, 19, 22)), 0).astype(dtype)
    backward(x, kernel, ties, layout, **options)
    x[rng.random(x.shape) < 0.1] = np.nan
    backward(x, kernel, ties, layout, **options)


@ORDERS
@pytest.mark.parametrize("ties", ["first", "split"])
def test_images_of_several_bands(layout: str, ties: str) -> None:
    """Rows of 128 KiB or more make bands as high as two windows."""
    x = np.random.default_rng(0).integers(0, 99, (1, 2, 29, 16384)).astype(np.float64)
    backward(x, 3, ties, layout, stride=(2, 7), padding=1)


@ORDERS
@pytest.mark.parametrize("size", [(13, 19, 19), (2, 41, 8192)], ids=str)
def test_same_bits_for_every_number_of_threads(layout: str, size: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, *size)).astype(np.float32)
    x = np.ascontiguousarray(np.moveaxis(x, 1, -1)) if layout == "NHWC" else x
    before, found = cnnfast.get_num_threads(), set()
    try:
        for threads in (1, 2, 3):
            cnnfast.set_num_threads(threads)
            y, cache = cnnfast.max_pool2d_forward(x, 5, stride=1, padding=2, layout=layout)
            dx = cnnfast.max_pool2d_backward(y * y, cache)
            found.add(y.tobytes() + dx.tobytes())
    finally:
        cnnfast.set_num_threads(before)
    assert len(found) == 1


@pytest.mark.parametrize("function", ["max_pool2d", "avg_pool2d"])
@pytest.mark.parametrize("axis", [0, 1, 2, 3])
@pytest.mark.parametrize("step", [0, 8, 2**40, -(2**40)])
def test_strides_of_extents_of_one_mean_nothing(function: str, axis: int, step: int) -> None:
    shape = [2, 3, 6, 36]
    shape[axis] = 1
    x = np.random.default_rng(0).integers(-9, 9, shape).astype(np.float64)
    strides = [step if i == axis else each for i, each in enumerate(x.strides)]
    strange = np.lib.stride_tricks.as_strided(x, shape, strides)
    kernel = [min(each, 3) for each in shape[2:]]
    want, want_cache = getattr(cnnfast, f"{function}_forward")(x, kernel, stride=1)
    got, cache = getattr(cnnfast, f"{function}_forward")(strange, kernel, stride=1)
    np.testing.assert_array_equal(got, want)
    backward_pass = getattr(cnnfast, f"{function}_backward")
    np.testing.assert_array_equal(backward_pass(got, cache), backward_pass(want, want_cache))
