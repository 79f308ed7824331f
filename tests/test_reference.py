"""The reference against numbers worked out by hand, and its gradients against differences.

Many convolutions here have the weights 1, 10, 100, 1000: the digits of an output, read from the
last to the first, are then the cells of its window, and a 0 is padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest

from cnnfast import reference

Array = npt.NDArray[np.floating]

NINE = np.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])
DIGITS = np.array([[1.0, 10], [100, 1000]])
INF, NAN = np.inf, np.nan


def image(*channels: npt.ArrayLike) -> Array:
    """One image of these channels, (1, C, H, W)."""
    return np.array([channels], dtype=np.float64)


def row(*cells: float) -> Array:
    """One image of one channel of one row."""
    return image([cells])


def nhwc(a: Array) -> Array:
    return a.transpose(0, 2, 3, 1)


def random(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def distinct(*shape: int) -> Array:
    """Random whole numbers without ties, too far apart for a difference quotient to mix up."""
    return np.random.default_rng(0).permutation(np.prod(shape)).reshape(shape).astype(np.float64)


# Convolution by hand.


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({}, [[5421, 6532], [8754, 9865]], id="plain"),
        pytest.param({"padding": "valid"}, [[5421, 6532], [8754, 9865]], id="valid"),
        pytest.param({"stride": 2}, [[5421]], id="stride"),
        pytest.param({"stride": (1, 2)}, [[5421], [8754]], id="stride-per-axis"),
        pytest.param({"dilation": 2}, [[9731]], id="dilation"),
        pytest.param({"dilation": (1, 2)}, [[6431], [9764]], id="dilation-per-axis"),
        pytest.param(
            {"padding": 1},
            [
                [1000, 2100, 3200, 300],
                [4010, 5421, 6532, 603],
                [7040, 8754, 9865, 906],
                [70, 87, 98, 9],
            ],
            id="padding",
        ),
        pytest.param(
            {"padding": (0, 1)},
            [[4010, 5421, 6532, 603], [7040, 8754, 9865, 906]],
            id="padding-per-axis",
        ),
        pytest.param(
            {"padding": ((1, 0), (0, 1))},
            [[2100, 3200, 300], [5421, 6532, 603], [8754, 9865, 906]],
            id="padding-per-side",
        ),
        pytest.param(
            {"padding": "same"},
            [[5421, 6532, 603], [8754, 9865, 906], [87, 98, 9]],
            id="same",
        ),
        pytest.param({"padding": "same", "stride": 2}, [[5421, 603], [87, 9]], id="same-stride"),
        pytest.param(
            {"padding": ((1, 0), (1, 0)), "stride": 2},
            [[1000, 3200], [7040, 9865]],
            id="padding-and-stride",
        ),
        pytest.param({"padding": 1, "dilation": 2, "stride": 2}, [[5000, 500], [50, 5]], id="all"),
    ],
)
def test_conv2d_by_hand(options: dict, expected: list) -> None:
    y = reference.conv2d(image(NINE), DIGITS[None, None], **options)
    np.testing.assert_array_equal(y, image(expected))


def test_conv2d_adds_channels_and_bias() -> None:
    w = np.array([[DIGITS, np.ones((2, 2))], [np.zeros((2, 2)), -np.ones((2, 2))]])
    y = reference.conv2d(image(NINE, NINE), w, np.array([7.0, 0]))
    np.testing.assert_array_equal(y, image([[5440, 6555], [8785, 9900]], [[-12, -16], [-24, -28]]))


def test_conv2d_groups_keep_to_themselves() -> None:
    w = np.array([[DIGITS], [np.ones((2, 2))], [DIGITS], [np.ones((2, 2))]])
    y = reference.conv2d(image(NINE, 10 * NINE), w, groups=2)
    digits, sums = np.array([[5421, 6532], [8754, 9865]]), np.array([[12, 16], [24, 28]])
    np.testing.assert_array_equal(y, image(digits, sums, 10 * digits, 10 * sums))


def test_conv2d_relu() -> None:
    y = reference.conv2d(image(NINE), np.ones((1, 1, 1, 1)), np.array([-5.0]), activation="relu")
    np.testing.assert_array_equal(y, image([[0, 0, 0], [0, 0, 1], [2, 3, 4]]))


def test_relu_lets_nan_pass() -> None:
    y, cache = reference.conv2d_forward(
        row(NAN, 0, -1, 2), np.ones((1, 1, 1, 1)), activation="relu"
    )
    np.testing.assert_array_equal(y, row(NAN, 0, 0, 2))
    dx, _, _ = reference.conv2d_backward(row(3, 4, 5, 6), cache)
    np.testing.assert_array_equal(dx, row(3, 0, 0, 6))


def test_conv2d_backward_by_hand() -> None:
    _, cache = reference.conv2d_forward(image(NINE), DIGITS[None, None], np.zeros(1))
    dx, dw, db = reference.conv2d_backward(image([[1, 0], [0, 2]]), cache)
    np.testing.assert_array_equal(dx, image([[1, 10, 0], [100, 1002, 20], [0, 200, 2000]]))
    np.testing.assert_array_equal(dw, image([[11, 14], [20, 23]]))  # 1+2*5, 2+2*6, 4+2*8, 5+2*9
    np.testing.assert_array_equal(db, [3])


# Transposed convolution by hand.


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({}, [[1, 12, 20], [103, 1234, 2040], [300, 3400, 4000]], id="plain"),
        pytest.param({"padding": 1}, [[1234]], id="padding"),
        pytest.param({"padding": ((1, 0), (0, 1))}, [[103, 1234], [300, 3400]], id="per-side"),
        pytest.param({"padding": "same"}, [[1, 12], [103, 1234]], id="same"),
        pytest.param(
            {"stride": 2},
            [[1, 10, 2, 20], [100, 1000, 200, 2000], [3, 30, 4, 40], [300, 3000, 400, 4000]],
            id="stride",
        ),
        pytest.param(
            {"dilation": 2},
            [[1, 2, 10, 20], [3, 4, 30, 40], [100, 200, 1000, 2000], [300, 400, 3000, 4000]],
            id="dilation",
        ),
        pytest.param(
            {"stride": (1, 3), "output_padding": (0, 1)},
            [
                [1, 10, 0, 2, 20, 0],
                [103, 1030, 0, 204, 2040, 0],
                [300, 3000, 0, 400, 4000, 0],
            ],
            id="output-padding",
        ),
        pytest.param(
            {"stride": 3, "padding": "same"},
            [
                [1, 10, 0, 2, 20, 0],
                [100, 1000, 0, 200, 2000, 0],
                [0, 0, 0, 0, 0, 0],
                [3, 30, 0, 4, 40, 0],
                [300, 3000, 0, 400, 4000, 0],
                [0, 0, 0, 0, 0, 0],
            ],
            id="same-stride",
        ),
    ],
)
def test_conv_transpose2d_by_hand(options: dict, expected: list) -> None:
    y = reference.conv_transpose2d(image([[1, 2], [3, 4]]), DIGITS[None, None], **options)
    np.testing.assert_array_equal(y, image(expected))


def test_conv_transpose2d_output_padding_uncovers_what_padding_cut_off() -> None:
    options = {"stride": 2, "padding": 1}
    x, w = image([[1, 2], [3, 4]]), DIGITS[None, None]
    np.testing.assert_array_equal(
        reference.conv_transpose2d(x, w, **options), image([[1000, 200], [30, 4]])
    )
    np.testing.assert_array_equal(
        reference.conv_transpose2d(x, w, output_padding=1, **options),
        image([[1000, 200, 2000], [30, 4, 40], [3000, 400, 4000]]),
    )


def test_conv_transpose2d_channels_groups_and_bias() -> None:
    x = image([[1]], [[2]], [[3]], [[4]])
    w = np.array([1.0, 10, 100, 1000]).reshape(4, 1, 1, 1)
    y = reference.conv_transpose2d(x, w, np.array([0.5, 0.25]), groups=2)
    np.testing.assert_array_equal(y, image([[21.5]], [[4300.25]]))


# Max pooling by hand.

TIES = image([[1, 3, 3, 0], [3, 2, 3, 3], [5, 5, 5, 5], [5, 5, 5, 5]])


def test_max_pool2d_takes_the_first_of_equals() -> None:
    y, indices = reference.max_pool2d(TIES, 2, return_indices=True)
    np.testing.assert_array_equal(y, image([[3, 3], [5, 5]]))
    np.testing.assert_array_equal(indices, image([[1, 2], [8, 10]]))
    assert indices.dtype == np.int64


@pytest.mark.parametrize(
    ("ties", "expected"),
    [
        ("first", [[0, 12, 24, 0], [0, 0, 0, 0], [36, 0, 48, 0], [0, 0, 0, 0]]),
        ("all", [[0, 12, 24, 0], [12, 0, 24, 24], [36, 36, 48, 48], [36, 36, 48, 48]]),
        ("split", [[0, 6, 8, 0], [6, 0, 8, 8], [9, 9, 12, 12], [9, 9, 12, 12]]),
    ],
)
def test_max_pool2d_backward_by_hand(ties: str, expected: list) -> None:
    _, cache = reference.max_pool2d_forward(TIES, 2)
    dx = reference.max_pool2d_backward(image([[12, 24], [36, 48]]), cache, ties=ties)
    np.testing.assert_array_equal(dx, image(expected))


def test_max_pool2d_the_first_nan_wins_and_minus_inf_has_a_place() -> None:
    x = image([[1, NAN, -INF, -INF], [NAN, 2, -INF, -INF]])
    y, indices = reference.max_pool2d(x, 2, return_indices=True)
    np.testing.assert_array_equal(y, row(NAN, -INF))
    np.testing.assert_array_equal(indices, row(1, 2))
    _, cache = reference.max_pool2d_forward(x, 2)
    dx = reference.max_pool2d_backward(row(2, 4), cache, ties="split")
    np.testing.assert_array_equal(dx, image([[0, 1, 1, 1], [1, 0, 1, 1]]))


@pytest.mark.parametrize("value", [-INF, NAN, -1.0])
def test_max_pool2d_indices_never_lie_in_the_padding(value: float) -> None:
    x = np.full((1, 1, 2, 2), value)
    y, indices = reference.max_pool2d(x, 2, stride=1, padding=1, return_indices=True)
    np.testing.assert_array_equal(y, np.full((1, 1, 3, 3), value))
    np.testing.assert_array_equal(indices, image([[0, 0, 1], [0, 0, 1], [2, 2, 3]]))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({}, [9, 5], id="floor"),
        pytest.param({"ceil_mode": True}, [9, 5, 7], id="ceil"),
        pytest.param({"stride": 1}, [9, 5, 5, 7], id="stride"),
        pytest.param({"stride": 1, "dilation": 2}, [9, 2, 7], id="dilation"),
        pytest.param({"padding": (0, 1)}, [9, 5, 7], id="padding"),
        pytest.param({"padding": ((0, 0), (0, 1))}, [9, 5, 7], id="padding-right"),
        pytest.param({"padding": "same"}, [9, 5, 7], id="same"),
        pytest.param({"stride": 4, "padding": (0, 1)}, [9, 7], id="stride-and-padding"),
        pytest.param(
            {"stride": (1, 6), "padding": (0, 1), "ceil_mode": True}, [9], id="ceil-drops-a-window"
        ),
    ],
)
def test_max_pool2d_geometry(options: dict, expected: list) -> None:
    y = reference.max_pool2d(row(9, 1, 5, 2, 7), (1, 2), **options)
    np.testing.assert_array_equal(y, row(*expected))


# Average pooling by hand.


@pytest.mark.parametrize(
    ("cells", "kernel", "options", "with_pad", "without_pad"),
    [
        pytest.param((2, 4, 6), 2, {}, [3], [3], id="floor"),
        pytest.param((2, 4, 6), 2, {"ceil_mode": True}, [3, 6], [3, 6], id="ceil"),
        pytest.param((2, 4, 6), 2, {"padding": (0, 1)}, [1, 5], [2, 5], id="padding"),
        pytest.param((2, 4, 6), 2, {"padding": "same"}, [3, 3], [3, 6], id="same"),
        pytest.param((2, 4, 6), 2, {"stride": 1, "dilation": 2}, [4], [4], id="dilation"),
        pytest.param(
            (2, 4, 6, 8),
            3,
            {"stride": 2, "padding": (0, 1), "ceil_mode": True},
            [2, 6, 4],
            [3, 6, 8],
            id="ceil-and-padding",
        ),
    ],
)
def test_avg_pool2d_by_hand(
    cells: tuple, kernel: int, options: dict, with_pad: list, without_pad: list
) -> None:
    x = row(*cells)
    np.testing.assert_array_equal(reference.avg_pool2d(x, (1, kernel), **options), row(*with_pad))
    np.testing.assert_array_equal(
        reference.avg_pool2d(x, (1, kernel), count_include_pad=False, **options),
        row(*without_pad),
    )


@pytest.mark.parametrize(
    ("count_include_pad", "expected"),
    [(True, [2, 6, 4, 5]), (False, [3, 7, 4, 6])],
    ids=["with-pad", "without-pad"],
)
def test_avg_pool2d_backward_by_hand(count_include_pad: bool, expected: list) -> None:
    _, cache = reference.avg_pool2d_forward(
        row(2, 4, 6, 8),
        (1, 3),
        stride=2,
        padding=(0, 1),
        ceil_mode=True,
        count_include_pad=count_include_pad,
    )
    dx = reference.avg_pool2d_backward(row(6, 12, 2), cache)
    np.testing.assert_array_equal(dx, row(*expected))


# Global pooling by hand.


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_global_pools_by_hand(layout: str) -> None:
    def laid_out(a: Array) -> Array:
        return a if layout == "NCHW" else nhwc(a)

    x, dy = laid_out(image([[1, 2], [6, 3]], [[8, 0], [0, 8]])), np.array([[4.0, 12]])

    y, max_cache = reference.global_max_pool2d_forward(x, layout=layout)
    np.testing.assert_array_equal(y, [[6, 8]])
    np.testing.assert_array_equal(reference.global_max_pool2d(x, layout=layout), y)
    for ties, second in [("first", [[12, 0], [0, 0]]), ("split", [[6, 0], [0, 6]])]:
        dx = reference.global_max_pool2d_backward(dy, max_cache, ties=ties)
        np.testing.assert_array_equal(dx, laid_out(image([[0, 0], [4, 0]], second)))

    y, avg_cache = reference.global_avg_pool2d_forward(x, layout=layout)
    np.testing.assert_array_equal(y, [[3, 4]])
    np.testing.assert_array_equal(reference.global_avg_pool2d(x, layout=layout), y)
    dx = reference.global_avg_pool2d_backward(dy, avg_cache)
    np.testing.assert_array_equal(dx, laid_out(image([[1, 1], [1, 1]], [[3, 3], [3, 3]])))


# Columns by hand.


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({}, [[1, 2, 4, 5], [2, 3, 5, 6], [4, 5, 7, 8], [5, 6, 8, 9]], id="plain"),
        pytest.param({"dilation": 2}, [[1], [3], [7], [9]], id="dilation"),
        pytest.param(
            {"stride": 2, "padding": ((1, 0), (1, 0))},
            [[0, 0, 0, 5], [0, 0, 4, 6], [0, 2, 0, 8], [1, 3, 7, 9]],
            id="stride-and-padding",
        ),
    ],
)
def test_im2col_by_hand(options: dict, expected: list) -> None:
    cols = reference.im2col(image(NINE, 10 * NINE), 2, **options)
    np.testing.assert_array_equal(cols[0, :4], expected)
    np.testing.assert_array_equal(cols[0, 4:], 10 * np.array(expected))


@pytest.mark.parametrize(
    ("options", "windows", "expected"),
    [
        pytest.param({}, 4, [[1, 2, 1], [2, 4, 2], [1, 2, 1]], id="plain"),
        pytest.param({"dilation": 2}, 1, [[1, 0, 1], [0, 0, 0], [1, 0, 1]], id="dilation"),
        pytest.param(
            {"stride": (2, 1), "padding": ((1, 0), (1, 0))},
            6,
            [[2, 2, 1], [2, 2, 1], [2, 2, 1]],
            id="stride-and-padding",
        ),
    ],
)
def test_col2im_counts_the_windows_over_each_cell(
    options: dict, windows: int, expected: list
) -> None:
    x = reference.col2im(np.ones((1, 8, windows)), 3, 2, **options)
    np.testing.assert_array_equal(x, image(expected, expected))


# Norms and the linear layer by hand.


def test_batch_norm2d_forward_by_hand() -> None:
    running_mean, running_var = np.array([1.0, 0]), np.array([2.0, 0])
    y, _ = reference.batch_norm2d_forward(
        np.array([[1.0, 10], [5, 24]]).reshape(2, 2, 1, 1),
        np.array([3.0, 8]),
        np.array([10.0, 0]),
        running_mean,
        running_var,
        momentum=0.25,
        eps=5.0,
    )  # means 3 and 17, variances 4 and 49
    np.testing.assert_allclose(y.ravel(), [8, -56 / 54**0.5, 12, 56 / 54**0.5], rtol=1e-14)
    np.testing.assert_array_equal(running_mean, [1.5, 4.25])
    np.testing.assert_array_equal(running_var, [3.5, 24.5])  # from the unbiased 8 and 98


def test_batch_norm2d_by_hand() -> None:
    y = reference.batch_norm2d(
        image([[7, 1]], [[0, 10]]),
        np.array([3.0, 1]),
        np.array([10.0, 0]),
        np.array([1.0, 0]),
        np.array([4.0, 20]),
        eps=5.0,
    )
    np.testing.assert_array_equal(y, image([[16, 10]], [[0, 2]]))


def test_group_norm_by_hand() -> None:
    x = image([[1]], [[3]], [[10]], [[24]])  # means 2 and 17, variances 1 and 49
    gamma, beta = np.array([4.0, 8, 8, 16]), np.array([0.0, 1, 2, 3])
    y = reference.group_norm(x, gamma, beta, 2, eps=15.0)
    np.testing.assert_array_equal(y, image([[-1]], [[3]], [[-5]], [[17]]))


def test_linear_by_hand() -> None:
    x, w = np.array([[1.0, 2], [3, 4]]), np.array([[1.0, 10], [-1, 0], [0, 1]])
    b = np.array([5.0, 0, -3])
    np.testing.assert_array_equal(reference.linear(x, w, b), [[26, -1, -1], [48, -3, 1]])
    y, cache = reference.linear_forward(x, w, b, activation="relu")
    np.testing.assert_array_equal(y, [[26, 0, 0], [48, 0, 1]])
    dx, dw, db = reference.linear_backward(np.ones((2, 3)), cache)
    np.testing.assert_array_equal(dx, [[1, 10], [1, 11]])
    np.testing.assert_array_equal(dw, [[4, 6], [0, 0], [3, 4]])
    np.testing.assert_array_equal(db, [2, 0, 1])


# Gradients against central differences.


def assert_gradients(
    forward: Callable[..., tuple], backward: Callable[..., object], inputs: Sequence[Array]
) -> None:
    """Compare backward with the slope of sum(dy * y) along every element of every input."""
    inputs = [a.copy() for a in inputs]
    y, cache = forward(*inputs)
    dy = random(*y.shape)
    gradients = backward(dy, cache)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    eps = 1e-6
    for a, gradient in zip(inputs, gradients, strict=True):
        slope = np.empty_like(a)
        for place, value in np.ndenumerate(a):
            a[place] = value + eps
            above = np.sum(dy * forward(*inputs)[0])
            a[place] = value - eps
            below = np.sum(dy * forward(*inputs)[0])
            a[place] = value
            slope[place] = (above - below) / (2 * eps)
        np.testing.assert_allclose(gradient, slope, rtol=1e-3, atol=1e-5)


CONVOLUTIONS = [
    pytest.param({}, id="plain"),
    pytest.param({"stride": (2, 1)}, id="stride"),
    pytest.param({"stride": 3, "padding": 1}, id="stride-beyond-kernel"),
    pytest.param({"padding": ((2, 0), (1, 3))}, id="padding-per-side"),
    pytest.param({"padding": "same", "stride": 2}, id="same-stride"),
    pytest.param({"dilation": (1, 2), "padding": 1}, id="dilation"),
    pytest.param({"groups": 2}, id="groups"),
    pytest.param({"activation": "relu"}, id="relu"),
    pytest.param({"layout": "NHWC", "groups": 2, "activation": "relu"}, id="nhwc"),
]


@pytest.mark.parametrize("options", CONVOLUTIONS)
@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
def test_convolution_gradients(name: str, options: dict) -> None:
    groups = options.get("groups", 1)
    x, b = random(2, 2, 5, 4), random(4)
    x = nhwc(x) if options.get("layout") == "NHWC" else x
    w = random(4, 2 // groups, 3, 2) if name == "conv2d" else random(2, 4 // groups, 3, 2)
    assert_gradients(
        lambda *inputs: getattr(reference, f"{name}_forward")(*inputs, **options),
        getattr(reference, f"{name}_backward"),
        (x, w, b),
    )


def test_conv_transpose2d_gradients_with_output_padding() -> None:
    assert_gradients(
        lambda x, w, b: reference.conv_transpose2d_forward(
            x, w, b, stride=2, dilation=(3, 1), padding=1, output_padding=(2, 1)
        ),
        reference.conv_transpose2d_backward,
        (random(2, 2, 3, 4), random(2, 3, 3, 2), random(3)),
    )


POOLS = [
    pytest.param({}, id="plain"),
    pytest.param({"stride": 1}, id="overlap"),
    pytest.param({"stride": (3, 2), "padding": ((1, 0), (0, 1))}, id="padding-per-side"),
    pytest.param({"stride": 1, "dilation": (2, 1)}, id="dilation"),
    pytest.param({"ceil_mode": True, "padding": 1}, id="ceil"),
    pytest.param({"padding": "same"}, id="same"),
    pytest.param({"layout": "NHWC", "padding": 1}, id="nhwc"),
]


@pytest.mark.parametrize("options", POOLS)
@pytest.mark.parametrize("ties", ["first", "all", "split"])
def test_max_pool2d_gradients(ties: str, options: dict) -> None:
    x = distinct(2, 2, 5, 6)
    assert_gradients(
        lambda x: reference.max_pool2d_forward(x, (2, 3), **options),
        lambda dy, cache: reference.max_pool2d_backward(dy, cache, ties=ties),
        [nhwc(x) if options.get("layout") == "NHWC" else x],
    )


@pytest.mark.parametrize("options", POOLS)
@pytest.mark.parametrize("count_include_pad", [True, False], ids=["with-pad", "without-pad"])
def test_avg_pool2d_gradients(count_include_pad: bool, options: dict) -> None:
    x = random(2, 2, 5, 6)
    assert_gradients(
        lambda x: reference.avg_pool2d_forward(
            x, (2, 3), count_include_pad=count_include_pad, **options
        ),
        reference.avg_pool2d_backward,
        [nhwc(x) if options.get("layout") == "NHWC" else x],
    )


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("name", ["global_max_pool2d", "global_avg_pool2d"])
def test_global_pool_gradients(name: str, layout: str) -> None:
    assert_gradients(
        lambda x: getattr(reference, f"{name}_forward")(x, layout=layout),
        getattr(reference, f"{name}_backward"),
        [distinct(2, 3, 4, 2)],
    )


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_batch_norm2d_gradients(layout: str) -> None:
    assert_gradients(
        lambda x, gamma, beta: reference.batch_norm2d_forward(x, gamma, beta, layout=layout),
        reference.batch_norm2d_backward,
        (random(3, 4, 2, 4), random(4), random(4)),
    )


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("num_groups", [1, 2, 4])
def test_group_norm_gradients(num_groups: int, layout: str) -> None:
    assert_gradients(
        lambda x, gamma, beta: reference.group_norm_forward(
            x, gamma, beta, num_groups, layout=layout
        ),
        reference.group_norm_backward,
        (random(2, 4, 3, 4), random(4), random(4)),
    )


@pytest.mark.parametrize("activation", [None, "relu"])
def test_linear_gradients(activation: str | None) -> None:
    assert_gradients(
        lambda x, w, b: reference.linear_forward(x, w, b, activation=activation),
        reference.linear_backward,
        (random(3, 4), random(2, 4), random(2)),
    )


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d", "linear"])
@pytest.mark.parametrize("needs", ["", "x", "w", "b", "bx"])
def test_needs(name: str, needs: str) -> None:
    shape = (2, 2) if name == "linear" else (2, 2, 3, 3)
    y, cache = getattr(reference, f"{name}_forward")(random(*shape), random(*shape), random(2))
    backward = getattr(reference, f"{name}_backward")
    for letter, some, every in zip(
        "xwb", backward(y, cache, needs=needs), backward(y, cache), strict=True
    ):
        if letter in needs:
            np.testing.assert_array_equal(some, every)
        else:
            assert some is None


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d", "linear"])
def test_no_bias_no_bias_gradient(name: str) -> None:
    shape = (2, 2) if name == "linear" else (2, 2, 3, 3)
    y, cache = getattr(reference, f"{name}_forward")(random(*shape), random(*shape))
    dx, dw, db = getattr(reference, f"{name}_backward")(y, cache)
    assert (dx.shape, dw.shape, db) == (shape, shape, None)


# Adjoints: <dy, A x> == <A' dy, x>.


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="plain"),
        pytest.param({"stride": (2, 3), "padding": ((1, 0), (2, 1))}, id="stride-and-padding"),
        pytest.param({"padding": "same", "stride": 2}, id="same-stride"),
        pytest.param({"dilation": 2, "padding": 1}, id="dilation"),
    ],
)
def test_adjoints(options: dict) -> None:
    x, w = random(2, 4, 7, 8), random(6, 2, 3, 2)
    y, cache = reference.conv2d_forward(x, w, groups=2, **options)
    dy = random(*y.shape)
    dx, dw, _ = reference.conv2d_backward(dy, cache)
    np.testing.assert_allclose(np.vdot(dx, x), np.vdot(dy, y), rtol=1e-12)
    np.testing.assert_allclose(np.vdot(dw, w), np.vdot(dy, y), rtol=1e-12)

    cols = reference.im2col(x, (3, 2), **options)
    back = reference.col2im(dcols := random(*cols.shape), (7, 8), (3, 2), **options)
    np.testing.assert_allclose(np.vdot(back, x), np.vdot(dcols, cols), rtol=1e-12)
    np.testing.assert_allclose(
        np.einsum("fk,nkp->nfp", w[:3].reshape(3, -1), cols[:, :12]),
        y[:, :3].reshape(2, 3, -1),
        rtol=1e-12,
        atol=1e-12,
    )


@pytest.mark.parametrize("options", CONVOLUTIONS[:6])
def test_transposed_convolution_is_the_input_gradient(options: dict) -> None:
    w, small = random(3, 2, 3, 2), random(2, 3, 4, 5)
    large = reference.conv_transpose2d(small, w, **options)
    y, cache = reference.conv2d_forward(large, w, **options)
    assert y.shape == small.shape
    dx, _, _ = reference.conv2d_backward(small, cache)
    np.testing.assert_allclose(dx, large, rtol=1e-12, atol=1e-12)


# Inf and NaN go where the formula sends them, and nowhere else.


@pytest.mark.parametrize("bad", [INF, NAN])
def test_bad_cells_touch_only_their_windows(bad: float) -> None:
    x = NINE.copy()
    x[0, 0] = bad
    y = reference.conv2d(image(x), DIGITS[None, None], padding=((0, 1), (0, 1)))
    np.testing.assert_array_equal(y, image([[bad, 6532, 603], [8754, 9865, 906], [87, 98, 9]]))
    y = reference.conv_transpose2d(image([[bad, 2], [3, 4]]), DIGITS[None, None], stride=2)
    np.testing.assert_array_equal(np.isfinite(y[0, 0, :2, :2]), np.zeros((2, 2)))
    np.testing.assert_array_equal(np.isfinite(y).sum(), 12)
    y = reference.avg_pool2d(row(bad, 1, 3, 5), (1, 2), padding=(0, 1), stride=1)
    np.testing.assert_array_equal(y, row(bad, bad, 2, 4, 2.5))


@pytest.mark.parametrize("bad", [INF, NAN])
def test_bad_weights_do_not_meet_the_padding(bad: float) -> None:
    w = np.full((1, 1, 3, 3), bad)
    w[0, 0, 1, 1] = 3
    y, cache = reference.conv2d_forward(image([[2]]), w, padding=1)
    np.testing.assert_array_equal(y, image([[6]]))
    dx, dw, _ = reference.conv2d_backward(image([[5]]), cache)
    np.testing.assert_array_equal(dx, image([[15]]))
    np.testing.assert_array_equal(dw, image([[0, 0, 0], [0, 10, 0], [0, 0, 0]]))


def test_zero_weights_do_not_hide_inf() -> None:
    with np.errstate(invalid="ignore"):
        y = reference.conv2d(row(1, INF, 2, 3), image([[0, 1]]))
    np.testing.assert_array_equal(y, row(INF, NAN, 3))


def test_bad_gradients_touch_only_their_windows() -> None:
    _, cache = reference.conv2d_forward(image(NINE), DIGITS[None, None])
    dx, dw, _ = reference.conv2d_backward(image([[INF, 0], [0, 0]]), cache)
    np.testing.assert_array_equal(dx, image([[INF, INF, 0], [INF, INF, 0], [0, 0, 0]]))
    np.testing.assert_array_equal(dw, image([[INF, INF], [INF, INF]]))
    _, cache = reference.max_pool2d_forward(row(1, 2, 3, 4), (1, 2))
    dx = reference.max_pool2d_backward(row(NAN, 1), cache)
    np.testing.assert_array_equal(dx, row(0, NAN, 0, 1))


# What every function shares: layout, dtype, out, empty batches.

VECTOR = np.array([1.0, -2, 3, 4])
OPERATIONS = [
    pytest.param("conv2d", (random(4, 2, 3, 3), VECTOR), {"groups": 2, "padding": 1}, id="conv2d"),
    pytest.param(
        "conv_transpose2d",
        (random(4, 2, 3, 3), VECTOR),
        {"groups": 2, "stride": 2},
        id="conv_transpose2d",
    ),
    pytest.param("max_pool2d", ((2, 3),), {"padding": 1}, id="max_pool2d"),
    pytest.param("avg_pool2d", ((2, 3),), {"padding": 1}, id="avg_pool2d"),
    pytest.param("global_max_pool2d", (), {}, id="global_max_pool2d"),
    pytest.param("global_avg_pool2d", (), {}, id="global_avg_pool2d"),
    pytest.param("batch_norm2d", (VECTOR, VECTOR), {}, id="batch_norm2d"),
    pytest.param("group_norm", (VECTOR, VECTOR, 2), {}, id="group_norm"),
]


@pytest.mark.parametrize(("name", "arguments", "options"), OPERATIONS)
def test_layouts_agree(name: str, arguments: tuple, options: dict) -> None:
    forward = getattr(reference, f"{name}_forward")
    backward = getattr(reference, f"{name}_backward")
    x = random(2, 4, 5, 6)
    y, cache = forward(x, *arguments, **options)
    y_last, cache_last = forward(nhwc(x), *arguments, layout="NHWC", **options)
    dy = random(*y.shape)
    flat = y.ndim == 2
    np.testing.assert_array_equal(y_last, y if flat else nhwc(y))
    gradients = backward(dy, cache)
    gradients_last = backward(dy if flat else nhwc(dy), cache_last)
    if not isinstance(gradients, tuple):
        gradients, gradients_last = (gradients,), (gradients_last,)
    np.testing.assert_array_equal(gradients_last[0], nhwc(gradients[0]))
    for last, first in zip(gradients_last[1:], gradients[1:], strict=True):
        np.testing.assert_array_equal(last, first)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "arguments", "options"), OPERATIONS)
def test_results_have_the_dtype_of_x(
    name: str, arguments: tuple, options: dict, dtype: type
) -> None:
    arguments = tuple(a.astype(dtype) if isinstance(a, np.ndarray) else a for a in arguments)
    x = random(2, 4, 5, 6).astype(dtype)
    y, cache = getattr(reference, f"{name}_forward")(x, *arguments, **options)
    gradients = getattr(reference, f"{name}_backward")(y, cache)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    assert {a.dtype for a in (y, *gradients)} == {np.dtype(dtype)}


def test_sums_are_float64_inside() -> None:
    x = row(1e8, 1, -1e8).astype(np.float32)
    channels, ones = x.reshape(1, 3, 1, 1), np.ones((1, 3, 1, 1), dtype=np.float32)
    np.testing.assert_array_equal(reference.conv2d(x, ones.reshape(1, 1, 1, 3)), row(1))
    np.testing.assert_array_equal(reference.conv2d(channels, ones), row(1))
    np.testing.assert_array_equal(
        reference.conv_transpose2d(channels, ones.reshape(3, 1, 1, 1)), row(1)
    )
    np.testing.assert_array_equal(reference.linear(x[0, 0], ones.reshape(1, 3)), [[1]])
    cols = np.tile(x[0], (1, 3, 1))  # tap k of output 2 - k falls on the one cell
    np.testing.assert_array_equal(reference.col2im(cols, 1, (1, 3), padding=(0, 2)), row(1))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [case.values[:2] for case in OPERATIONS[:4]],
    ids=[case.id for case in OPERATIONS[:4]],
)
def test_out_is_filled_and_returned(name: str, arguments: tuple) -> None:
    operation = getattr(reference, name)
    x = random(2, 4, 5, 6)
    options = {"groups": 2} if "conv" in name else {}
    y = operation(x, *arguments, **options)
    out = np.full((*y.shape[:3], 2 * y.shape[3]), NAN)[..., ::2]
    assert operation(x, *arguments, out=out, algorithm="naive", **options) is out
    np.testing.assert_array_equal(out, y)


def test_linear_out_is_filled_and_returned() -> None:
    out = np.full((3, 2), NAN)
    assert reference.linear(random(3, 4), random(2, 4), out=out) is out
    np.testing.assert_array_equal(out, reference.linear(random(3, 4), random(2, 4)))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    ("name", "arguments", "options"), [case for case in OPERATIONS if case.id != "batch_norm2d"]
)
def test_empty_batches(name: str, arguments: tuple, options: dict, layout: str) -> None:
    shape = (4, 5, 6) if layout == "NCHW" else (5, 6, 4)
    forward = getattr(reference, f"{name}_forward")
    one, _ = forward(np.zeros((1, *shape)), *arguments, layout=layout, **options)
    y, cache = forward(np.zeros((0, *shape)), *arguments, layout=layout, **options)
    assert y.shape == (0, *one.shape[1:])
    gradients = getattr(reference, f"{name}_backward")(y, cache)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    assert gradients[0].shape == (0, *shape)
    for gradient, argument in zip(gradients[1:], arguments, strict=False):
        np.testing.assert_array_equal(gradient, np.zeros_like(argument))


def test_empty_batches_of_the_rest() -> None:
    assert reference.batch_norm2d(np.zeros((0, 4, 5, 6)), *[VECTOR**2] * 4).shape == (0, 4, 5, 6)
    cols = reference.im2col(np.zeros((0, 2, 4, 4)), 2)
    assert cols.shape == (0, 8, 9)
    assert reference.col2im(cols, 4, 2).shape == (0, 2, 4, 4)
    y, cache = reference.linear_forward(np.zeros((0, 4)), np.ones((2, 4)), np.ones(2))
    dx, dw, db = reference.linear_backward(y, cache)
    assert (y.shape, dx.shape) == ((0, 2), (0, 4))
    np.testing.assert_array_equal(dw, np.zeros((2, 4)))
    np.testing.assert_array_equal(db, np.zeros(2))
