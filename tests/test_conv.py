"""conv2d: the shared contract, and numbers written out by hand."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
from cases import DTYPES, LAYOUTS, Variant, algorithms_of, conv
from contract import Products, assert_near, run

import cnnfast
from cnnfast import reference

MANY_IMAGES = [  # columns, and a dy to be masked, of more bytes than a call may hold
    Variant(case, *choices)
    for case in (
        conv("many-columns", (30, 16, 48, 48), (2, 16, 3, 3), padding=1),
        conv("many-depthwise", (30, 16, 48, 48), (16, 1, 3, 3), padding=1, groups=16),
        conv("many-masked", (32, 1, 48, 48), (64, 1, 1, 1), activation="relu"),
    )
    for choices in itertools.product(DTYPES, LAYOUTS, algorithms_of("conv2d"))
    if not Variant(case, *choices).refusal()
]


class TestConv(Products):
    functions = ("conv2d",)


def test_numbers_by_hand() -> None:
    x = np.arange(1.0, 10).reshape(1, 1, 3, 3)
    w = np.array([[[[1.0, 2], [3, 4]]]])
    y, cache = cnnfast.conv2d_forward(x, w, np.array([10.0]))
    np.testing.assert_array_equal(y, [[[[47, 57], [77, 87]]]])
    dx, dw, db = cnnfast.conv2d_backward(np.array([[[[1.0, 0], [0, -1]]]]), cache)
    np.testing.assert_array_equal(dx, [[[[1, 2, 0], [3, 3, -2], [0, -3, -4]]]])
    np.testing.assert_array_equal(dw, [[[[-4, -4], [-4, -4]]]])
    np.testing.assert_array_equal(db, [0])


def assert_equals_reference(
    x: np.ndarray, weights: np.ndarray, algorithm: str, rng: np.random.Generator, **options: object
) -> None:
    """All results, of whole numbers and so exactly."""
    bias = rng.integers(-8, 9, len(weights)).astype(x.dtype)
    y, cache = cnnfast.conv2d_forward(x, weights, bias, algorithm=algorithm, **options)
    expected, known = reference.conv2d_forward(x, weights, bias, **options)
    dy = rng.integers(-8, 9, y.shape).astype(x.dtype)
    found = (y, *cnnfast.conv2d_backward(dy, cache))
    wanted = (expected, *reference.conv2d_backward(dy, known))
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=f"x {x.shape}, w {weights.shape}")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (3, 2), (5, 1), (7, 1)])
def test_depthwise_with_every_rest_of_channels(
    kernel: int, dilation: int, stride: int, dtype: str, layout: str
) -> None:
    """Vectors of channels, their rests, and blocks that are turned."""
    rng = np.random.default_rng(0)
    for channels in range(1, 34):
        h, w = rng.integers(2 * dilation, 10, 2)
        shape = (2, channels, h, w) if layout == "NCHW" else (2, h, w, channels)
        x = rng.integers(-8, 9, shape).astype(dtype)
        weights = rng.integers(-8, 9, (channels, 1, kernel, kernel)).astype(dtype)
        options = {"stride": stride, "padding": kernel // 2 * dilation, "dilation": dilation}
        assert_equals_reference(
            x, weights, "depthwise", rng, groups=channels, layout=layout, **options
        )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "filters", "options"),
    [
        ((3, 40, 7, 7), 260, {}),
        ((2, 70, 14, 14), 300, {}),
        ((2, 512, 4, 4), 1024, {}),  # pixels that lie whole pages apart
        ((2, 20, 32, 32), 40, {}),  # and planes
        ((2, 140, 16, 16), 30, {}),  # or fractions of pages
        ((2, 130, 9, 9), 260, {"stride": 2}),
        ((2, 40, 11, 11), 150, {"kernel": 3, "stride": 2, "padding": 1}),
    ],
)
def test_many_filters_of_tiles(
    shape: tuple[int, ...], filters: int, options: dict[str, int], dtype: str, layout: str
) -> None:
    """Panels that are copied, or not, wherever x begins in a cache line."""
    rng = np.random.default_rng(0)
    numbers = rng.integers(-8, 9, (2 + np.prod(shape))).astype(dtype)
    kernel = options.get("kernel", 1)
    weights = rng.integers(-8, 9, (filters, shape[1], kernel, kernel)).astype(dtype)
    options = {name: value for name, value in options.items() if name != "kernel"}
    for first in range(3):
        x = numbers[first : first + np.prod(shape)]
        x = x.reshape(shape if layout == "NCHW" else (shape[0], *shape[2:], shape[1]))
        assert_equals_reference(x, weights, "tiled", rng, layout=layout, **options)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("filters", [1, 2, 3])
def test_few_filters_of_many_channels(filters: int, dtype: str, layout: str) -> None:
    """Rows of every length, of one block of channels and taps or of several; few channels, too."""
    rng = np.random.default_rng(filters)
    for kernel, many in ((3, 95), (5, 30), (7, 20)):
        for width in range(kernel, 40, 3):
            options = {"padding": kernel // 2, "stride": int(rng.integers(1, 3)), "layout": layout}
            for outer, inner in ((filters, many), (many, filters), (5, filters + 4)):
                shape = (2, inner, 9, width) if layout == "NCHW" else (2, 9, width, inner)
                x = rng.integers(-8, 9, shape).astype(dtype)
                weights = rng.integers(-8, 9, (outer, inner, kernel, kernel)).astype(dtype)
                assert_equals_reference(x, weights, "tiled", rng, **options)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_where_arrays_begin(dtype: str, layout: str) -> None:
    """Panels are copied or not by that, and their sums have one order."""
    rng = np.random.default_rng(0)
    shape = (2, 70, 16, 16) if layout == "NCHW" else (2, 16, 16, 70)
    numbers = rng.standard_normal(np.prod(shape)).astype(dtype)
    weights = rng.standard_normal((300, 70, 1, 1)).astype(dtype)
    bias = rng.standard_normal(300).astype(dtype)
    dy = rng.standard_normal((2, 300, 16, 16)).astype(dtype)
    dy = dy if layout == "NCHW" else np.ascontiguousarray(dy.transpose(0, 2, 3, 1))
    results = set()
    for first in range(8):  # at least one of them at the beginning of a vector
        x = np.concatenate((numbers[:first], numbers))[first:].reshape(shape)
        y, cache = cnnfast.conv2d_forward(x, weights, bias, layout=layout, algorithm="tiled")
        gradients = cnnfast.conv2d_backward(dy, cache)
        results.add(b"".join(array.tobytes() for array in (y, *gradients)))
    assert len(results) == 1


def test_depthwise_gradient_of_strided_pixels_takes_little_memory() -> None:
    """The sums have one order whatever the strides, and what is copied for that is not all of x."""
    rng = np.random.default_rng(0)
    planes = [rng.standard_normal((40, 32, 96, 96), np.float32) for _ in range(2)]
    strided = [array.transpose(0, 2, 3, 1) for array in planes]
    w = np.ones((32, 1, 3, 3), np.float32)
    results = []
    for x, dy in (strided, [np.ascontiguousarray(array) for array in strided]):
        _, cache = cnnfast.conv2d_forward(x, w, padding=1, groups=32, layout="NHWC")
        tracemalloc.start()
        _, dw, _ = cnnfast.conv2d_backward(dy, cache, needs="w")
        results.append(dw)
        assert tracemalloc.get_traced_memory()[1] < 2**26
        tracemalloc.stop()
    assert results[0].tobytes() == results[1].tobytes()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_gradients_of_few_channels(stride: int, dtype: str, layout: str) -> None:
    """Rows of windows of every length, taps added back at every step: whole numbers, so exact."""
    rng = np.random.default_rng(stride)
    for channels, width in itertools.product(range(2, 5), range(1, 8)):
        h, w = int(rng.integers(3, 12)), int(rng.integers(width + 2, 80))
        shape = (3, channels, h, w) if layout == "NCHW" else (3, h, w, channels)
        x = rng.integers(-8, 9, shape).astype(dtype)
        filters = int(rng.integers(channels * width, channels * width + 20))
        weights = rng.integers(-8, 9, (filters, channels, 2, width)).astype(dtype)
        bias = rng.integers(-8, 9, channels).astype(dtype)
        options = {"stride": stride, "padding": ((1, 2), (2, 0)), "layout": layout}
        y, cache = cnnfast.conv2d_forward(x, weights, algorithm="tiled", **options)
        _, known = reference.conv2d_forward(x, weights, **options)
        dy = rng.integers(-8, 9, y.shape).astype(dtype)
        found, wanted = cnnfast.conv2d_backward(dy, cache), reference.conv2d_backward(dy, known)
        back = options | {"activation": "relu"}
        found = *found[:2], cnnfast.conv_transpose2d(dy, weights, bias, algorithm="tiled", **back)
        wanted = *wanted[:2], reference.conv_transpose2d(dy, weights, bias, **back)
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=f"{channels} channels, {h}x{w}, {width}")


def test_same_padding_puts_the_odd_cell_last() -> None:
    x = np.ones((1, 1, 1, 3))
    y = cnnfast.conv2d(x, np.ones((1, 1, 1, 2)), padding="same")
    np.testing.assert_array_equal(y, [[[[2, 2, 1]]]])


def test_relu_lets_nan_pass_and_has_no_negative_zero() -> None:
    x = np.array([np.nan, -1.0, -0.0, 2.0]).reshape(1, 1, 1, 4)
    y, cache = cnnfast.conv2d_forward(x, np.ones((1, 1, 1, 1)), activation="relu")
    np.testing.assert_array_equal(y.ravel(), [np.nan, 0, 0, 2])
    assert not np.signbit(y[..., 1:]).any()
    dx, _, _ = cnnfast.conv2d_backward(np.ones_like(y), cache)
    np.testing.assert_array_equal(dx.ravel(), [1, 0, 0, 1])


@pytest.mark.parametrize("algorithm", algorithms_of("conv2d"))
def test_infinity_times_a_zero_weight_is_nan(algorithm: str) -> None:
    x = np.array([np.inf, 1.0, 1.0]).reshape(1, 1, 1, 3)
    with np.errstate(invalid="ignore"):
        y = cnnfast.conv2d(x, np.zeros((1, 1, 3, 3)), padding=1, algorithm=algorithm)
    np.testing.assert_array_equal(y.ravel(), [np.nan, np.nan, 0])


@pytest.mark.parametrize("algorithm", ["tiled", "im2col", "naive"])
def test_weights_whose_filters_lie_side_by_side(algorithm: str) -> None:
    x, w = np.zeros((1, 4, 5, 5)), np.arange(108.0).reshape(4, 3, 3, 3).swapaxes(0, 1)
    dy = np.arange(27.0).reshape(1, 3, 3, 3)
    dx, truth = (
        library.conv2d_backward(
            dy, library.conv2d_forward(x, w, stride=2, padding=1, algorithm=algorithm)[1]
        )[0]
        for library in (cnnfast, reference)
    )
    # taps of one phase of dx are 6 apart, and two filters 9: that is no run of four neighbours
    np.testing.assert_array_equal(dx, truth)


@pytest.mark.parametrize("variant", MANY_IMAGES, ids=str)
def test_a_batch_is_its_images_one_after_another(variant: Variant) -> None:
    """The batch is so large that bounded memory forces it into parts."""
    inputs = variant.inputs()
    whole = run(cnnfast, variant, inputs)
    halves = [
        run(cnnfast, variant, inputs | {"x": inputs["x"][part], "dy": inputs["dy"][part]})
        for part in (slice(0, 11), slice(11, None))
    ]
    for name, array in whole.items():
        parts = [half[name] for half in halves]
        joined = sum(parts) if name in ("dw", "db") else np.concatenate(parts)
        if variant.error and name == "dw":
            assert_near({name: array}, {name: joined}, variant.error)
        else:
            np.testing.assert_array_equal(array, joined, name)


def test_lists_and_whatever_numpy_reads_as_floats() -> None:
    y = cnnfast.conv2d([[[[1.0, 2.0]]]], [[[[3.0]]]], [1.0])
    np.testing.assert_array_equal(y, [[[[4, 7]]]])
    assert y.dtype == np.float64


@pytest.mark.parametrize("algorithm", algorithms_of("conv2d"))
def test_an_empty_batch_of_giant_images_takes_no_time(algorithm: str) -> None:
    w = np.ones((1, 1, 3, 3))
    x = np.broadcast_to(w[:, :, :1, :1], (0, 1, 2**25, 1))
    for function in (cnnfast.conv2d_forward, cnnfast.conv_transpose2d_forward):
        assert function(x, w, padding=1, algorithm=algorithm)[0].shape == x.shape


@pytest.mark.parametrize("algorithm", algorithms_of("conv2d")[-3:])
def test_cells_that_no_window_sees_take_no_time(algorithm: str) -> None:
    """With such a stride there are millions of phases of cells, of which one is seen."""
    x = np.ones((1, 1, 3000, 3000), np.float32)
    one = np.ones((1, 1, 1, 1), np.float32)
    y, cache = cnnfast.conv2d_forward(x, one, stride=3000, algorithm=algorithm)
    dx, _, _ = cnnfast.conv2d_backward(y, cache)
    assert dx[0, 0, 0, 0] == dx.sum() == 1


def test_options_are_any_index() -> None:
    class Two:
        def __index__(self) -> int:
            return 2

    x, w = np.ones((1, 2, 5, 5)), np.ones((2, 1, 1, 1))
    want = cnnfast.conv2d(x, w, stride=2, padding=2, dilation=2, groups=2)
    for two in (np.int64(2), np.uint8(2), Two()):
        got = cnnfast.conv2d(x, w, stride=two, padding=two, dilation=[two, two], groups=two)
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bias_gradients_of_finite_sums_are_finite(layout: str) -> None:
    """Parts of the sum are beyond the range of float32, in both directions."""
    dy = np.resize(np.float32([3e38] * 48 + [-3e38] * 48), (1, 1, 8, 12))
    dy[0, 0, 0, 0] = 1e38
    x, w = np.zeros((1, 1, 8, 12), np.float32), np.zeros((1, 1, 1, 1), np.float32)
    if layout == "NHWC":
        x, dy = (a.reshape(1, 8, 12, 1) for a in (x, dy))
    _, cache = cnnfast.conv2d_forward(x, w, w[0, 0, 0], layout=layout, algorithm="tiled")
    db = cnnfast.conv2d_backward(dy, cache, needs="b")[2]
    np.testing.assert_allclose(db, [-2e38], rtol=1e-6)
