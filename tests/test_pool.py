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
