"""The deeplearning.ai drop-ins against loops and the numbers that the notebooks print."""

from __future__ import annotations

import numpy as np
import pytest
from course_checks import (
    check_dtypes,
    check_memory,
    numbers,
    numerical_gradient,
    refused,
    star_names,
)

from cnnfast.courses import deeplearning_ai as course

CONVS = {  # A_prev.shape, W.shape, stride, pad
    "same": ((2, 5, 5, 3), (3, 3, 3, 4), 1, 1),
    "pad-0": ((2, 5, 6, 3), (3, 3, 3, 2), 1, 0),
    "floored": ((2, 6, 7, 2), (3, 3, 2, 3), 2, 0),
    "wide-filter": ((1, 4, 6, 2), (2, 4, 2, 3), 1, 2),
    "mostly-padding": ((2, 2, 1, 1), (2, 2, 1, 3), 3, 3),
}
POOLS = {  # A_prev.shape, f, stride
    "tiling": ((2, 4, 6, 3), 2, 2),
    "overlapping": ((2, 5, 5, 2), 3, 1),
    "floored": ((1, 6, 7, 3), 2, 3),
}


def cases(table):
    return pytest.mark.parametrize("case", table.values(), ids=table)


def windows(shape, f, stride):
    """Each output place with its rows and columns."""
    KH, KW = f
    for h, w in np.ndindex((shape[1] - KH) // stride + 1, (shape[2] - KW) // stride + 1):
        top, left = h * stride, w * stride
        yield h, w, slice(top, top + KH), slice(left, left + KW)


def conv_naive(A_prev, W, b, stride, pad):
    framed = np.pad(A_prev, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    sums = {
        (h, w): np.tensordot(framed[:, rows, columns], W, 3) + b[0, 0, 0]
        for h, w, rows, columns in windows(framed.shape, W.shape[:2], stride)
    }
    n_H, n_W = (last + 1 for last in max(sums))
    return np.stack(list(sums.values()), 1).reshape(len(A_prev), n_H, n_W, W.shape[3])


def pool_naive(A_prev, f, stride, of_window):
    places = list(windows(A_prev.shape, (f, f), stride))
    n_H, n_W = (place + 1 for place in places[-1][:2])
    A = np.empty((len(A_prev), n_H, n_W, A_prev.shape[3]))
    for h, w, rows, columns in places:
        A[:, h, w] = of_window(A_prev[:, rows, columns], axis=(1, 2))
    return A


def conv_problem(case):
    A_shape, W_shape, stride, pad = case
    A_prev, W, b = numbers(0, A_shape, W_shape, (1, 1, 1, W_shape[3]))
    return A_prev, W, b, {"stride": stride, "pad": pad}


def seeded(seed, *shapes):
    """The notebook's own stream of numbers."""
    rng = np.random.RandomState(seed)
    return [rng.randn(*shape) for shape in shapes]


def test_star_import_brings_the_eight_functions_and_no_other():
    own = ["np", "plt", "promote", "cnnfast", "update_parameters", "expect_shape"]
    assert star_names("cnnfast.courses.deeplearning_ai", own) == {
        *("zero_pad", "conv_single_step", "conv_forward", "pool_forward"),
        *("conv_backward", "create_mask_from_window", "distribute_value", "pool_backward"),
    }


# The notebooks' cells, with their seeds and printed numbers. v1 is the notebook of 2017, which adds
# the bias once for each cell of a window.


@pytest.mark.parametrize(
    ("shape", "pad", "padded"),
    [
        ((4, 3, 3, 2), 3, (4, 9, 9, 2)),
        ((4, 3, 3, 2), 2, (4, 7, 7, 2)),
        ((5, 4, 4, 3), 2, (5, 8, 8, 3)),
    ],
)
def test_notebook_zero_pad(shape, pad, padded):
    (x,) = seeded(1, shape)
    out = course.zero_pad(x, pad)
    assert type(out) is np.ndarray
    assert out.shape == padded
    np.testing.assert_array_equal(out[:, pad:-pad, pad:-pad], x)
    assert np.count_nonzero(out) == x.size


@pytest.mark.parametrize(
    ("seed", "shape", "bias_count", "expected"),
    [
        (1, (4, 4, 3), 1, -6.999089450680221),
        (1, (4, 4, 3), 48, -23.1602122025),
        (3, (5, 5, 3), 1, -3.5443670581382474),
    ],
    ids=["v2", "v1", "public-test"],
)
def test_notebook_conv_single_step(seed, shape, bias_count, expected):
    a_slice_prev, W, b = seeded(seed, shape, shape, (1, 1, 1))
    Z = course.conv_single_step(a_slice_prev, W, b * bias_count)
    assert type(Z) is np.float64
    assert abs(Z - expected) < 1e-10


def test_notebook_conv_forward():
    A_prev, W, b = seeded(1, (2, 5, 7, 4), (3, 3, 4, 8), (1, 1, 1, 8))
    Z, cache = course.conv_forward(A_prev, W, b, {"pad": 1, "stride": 2})
    assert Z.mean() == pytest.approx(0.5511276474566768, rel=1e-12)
    printed = [-2.17796037, 8.07171329, -0.5772704, 3.36286738]
    printed += [4.48113645, -2.89198428, 10.99288867, 3.03171932]
    np.testing.assert_allclose(Z[0, 2, 1], printed, rtol=0, atol=5e-9)
    printed = [-1.1191154, 1.9560789, -0.3264995, -1.34267579]
    np.testing.assert_allclose(cache[0][1][2][3], printed, rtol=0, atol=5e-9)
    assert type(cache) is tuple and len(cache) == 4


def test_notebook_conv_forward_of_ten_images():
    A_prev, W, b = seeded(1, (10, 5, 7, 4), (3, 3, 4, 8), (1, 1, 1, 8))
    Z, _ = course.conv_forward(A_prev, W, b, {"pad": 1, "stride": 2})
    assert Z.mean() == pytest.approx(0.692360880758, rel=1e-11)
    printed = [-1.28912231, 2.27650251, 6.61941931, 0.95527176]
    printed += [8.25132576, 2.31329639, 13.00689405, 2.34576051]
    np.testing.assert_allclose(Z[3, 2, 1], printed, rtol=0, atol=5e-9)


def test_notebook_conv_forward_v1():
    A_prev, W, b = seeded(1, (10, 4, 4, 3), (2, 2, 3, 8), (1, 1, 1, 8))
    Z, cache = course.conv_forward(A_prev, W, b * 12, {"pad": 2, "stride": 1})
    assert Z.mean() == pytest.approx(0.155859324889, rel=1e-11)
    printed = [-0.20075807, 0.18656139, 0.41005165]
    np.testing.assert_allclose(cache[0][1][2][3], printed, rtol=0, atol=5e-9)


def test_public_tests_of_conv_forward():
    rng = np.random.RandomState(3)
    A_prev, W, b = rng.randn(2, 5, 7, 4), rng.randn(3, 3, 4, 8), rng.randn(1, 1, 1, 8)
    Z, _ = course.conv_forward(A_prev, W, b, {"pad": 3, "stride": 1})
    assert Z.shape == (2, 9, 11, 8)
    Z, _ = course.conv_forward(A_prev, W, b, {"pad": 0, "stride": 2})
    assert Z.shape == (2, 2, 3, 8)
    W, b = rng.randn(5, 5, 4, 8), rng.randn(1, 1, 1, 8)
    Z, cache = course.conv_forward(A_prev, W, b, {"pad": 6, "stride": 1})
    assert Z.shape == (2, 13, 15, 8)
    assert Z.mean() == pytest.approx(-0.5384027772160062, rel=1e-11)
    printed = [1.98848968, 1.19505834, -0.0952376, -0.52718778]
    np.testing.assert_allclose(cache[0][1, 2, 0], printed, rtol=0, atol=5e-9)


@pytest.mark.parametrize(
    ("stride", "bias_count", "means"),
    [
        (2, 1, (1.4524377775388075, 1.7269914583139097, 7.839232564616838)),
        (1, 12, (9.608990675868995, 10.581741275547566, 76.37106919563735)),
    ],
    ids=["v2", "v1"],
)
def test_notebook_conv_backward(stride, bias_count, means):
    A_prev, W, b = seeded(1, (10, 4, 4, 3), (2, 2, 3, 8), (1, 1, 1, 8))
    Z, cache = course.conv_forward(A_prev, W, b * bias_count, {"pad": 2, "stride": stride})
    gradients = course.conv_backward(Z, cache)
    for gradient, variable, mean in zip(gradients, (A_prev, W, b), means, strict=True):
        assert gradient.shape == variable.shape
        assert gradient.mean() == pytest.approx(mean, rel=1e-12)


PRINTED_POOLS = {  # A_prev.shape, f, stride, mode, place, printed
    "v1-max": (
        *((2, 4, 4, 3), 4, 1, "max", slice(None)),
        [[[[1.74481176, 1.6924546, 2.10025514]]], [[[1.19891788, 1.51981682, 2.18557541]]]],
    ),
    "v1-average": (
        *((2, 4, 4, 3), 4, 1, "average", slice(None)),
        [[[[-0.09498456, 0.11180064, -0.14263511]]], [[[-0.09525108, 0.28325018, 0.33035185]]]],
    ),
    "stride-1-max": (
        *((2, 5, 5, 3), 3, 1, "max", (1, 1)),
        [
            [1.96710175, 0.84616065, 1.27375593],
            [1.96710175, 0.84616065, 1.23616403],
            [1.62765075, 1.12141771, 1.2245077],
        ],
    ),
    "stride-1-average": (
        *((2, 5, 5, 3), 3, 1, "average", (1, 1)),
        [
            [0.44497696, -0.00261695, -0.31040307],
            [0.50811474, -0.23493734, -0.23961183],
            [0.11872677, 0.17255229, -0.22112197],
        ],
    ),
    "stride-2-max": (
        *((2, 5, 5, 3), 3, 2, "max", 0),
        [
            [[1.74481176, 0.90159072, 1.65980218], [1.74481176, 1.6924546, 1.65980218]],
            [[1.13162939, 1.51981682, 2.18557541], [1.13162939, 1.6924546, 2.18557541]],
        ],
    ),
    "stride-2-average": (
        *((2, 5, 5, 3), 3, 2, "average", 1),
        [
            [[-0.17313416, 0.32377198, -0.34317572], [0.02030094, 0.14141479, -0.01231585]],
            [[0.42944926, 0.08446996, -0.27290905], [0.15077452, 0.28911175, 0.00123239]],
        ],
    ),
    "public-test-max": (
        *((2, 5, 5, 3), 2, 1, "max", (1, 1)),
        [
            [1.19891788, 0.74055645, 0.07734007],
            [0.31515939, 0.84616065, 0.07734007],
            [0.69803203, 0.84616065, 1.2245077],
            [0.69803203, 1.12141771, 1.2245077],
        ],
    ),
    "public-test-average": (
        *((2, 5, 5, 3), 2, 1, "average", (1, 1)),
        [
            [0.11583785, 0.34545544, -0.6561907],
            [-0.2334108, 0.3364666, -0.69382351],
            [0.25497093, -0.21741362, -0.07342615],
            [-0.04092568, -0.01110394, 0.12495022],
        ],
    ),
}


@cases(PRINTED_POOLS)
def test_notebook_pool_forward(case):
    shape, f, stride, mode, place, printed = case
    (A_prev,) = seeded(1, shape)
    A, cache = course.pool_forward(A_prev, {"stride": stride, "f": f}, mode=mode)
    np.testing.assert_allclose(A[place], printed, rtol=0, atol=5e-9)
    assert cache[0] is A_prev and cache[1] == {"stride": stride, "f": f}


@pytest.mark.parametrize(
    ("shape", "f", "stride", "mode", "expected"),
    [((2, 5, 7, 3), 2, 2, "average", (2, 2, 3, 3)), ((4, 5, 7, 4), 5, 1, "max", (4, 1, 3, 4))],
)
def test_public_shapes_of_pool_forward(shape, f, stride, mode, expected):
    A, _ = course.pool_forward(np.ones(shape), {"stride": stride, "f": f}, mode=mode)
    assert A.shape == expected


@pytest.mark.parametrize(
    ("mode", "printed"),
    [
        ("max", [[0, 0], [5.05844394, -1.68282702], [0, 0]]),
        (
            "average",
            [[0.08485462, 0.2787552], [1.26461098, -0.25749373], [1.17975636, -0.53624893]],
        ),
    ],
)
def test_notebook_pool_backward(mode, printed):
    A_prev, dA = seeded(1, (5, 5, 3, 2), (5, 4, 2, 2))
    assert dA.mean() == pytest.approx(0.14571390272918056, rel=1e-12)
    _, cache = course.pool_forward(A_prev, {"stride": 1, "f": 2})
    dA_prev = course.pool_backward(dA, cache, mode=mode)
    assert dA_prev.shape == A_prev.shape
    np.testing.assert_allclose(dA_prev[1, 1], printed, rtol=0, atol=5e-9)


def test_notebook_masks():
    (x,) = seeded(1, (2, 3))
    mask = course.create_mask_from_window(x)
    assert type(mask) is np.ndarray and mask.dtype == bool
    np.testing.assert_array_equal(mask, [[True, False, False], [False, False, False]])
    mask = course.create_mask_from_window(np.array([[-1, 2, 3], [2, -3, 2], [1, 5, -2]]))
    assert np.argwhere(mask).tolist() == [[2, 1]]


@pytest.mark.parametrize(("dz", "shape", "each"), [(2, (2, 2), 0.5), (100, (10, 10), 1.0)])
def test_notebook_distribute_value(dz, shape, each):
    a = course.distribute_value(dz, shape)
    np.testing.assert_array_equal(a, np.full(shape, each))


def test_every_tied_maximum_takes_the_whole_gradient():
    _, cache = course.pool_forward(np.ones((1, 2, 2, 1)), {"stride": 1, "f": 2})
    dA_prev = course.pool_backward(np.full((1, 1, 1, 1), 3.0), cache)
    assert dA_prev.sum() == 12
    assert course.create_mask_from_window(np.ones((2, 2))).all()


# Against loops, and numerical gradients.


@cases(CONVS)
def test_conv_forward(case):
    A_prev, W, b, hparameters = conv_problem(case)
    Z, cache = course.conv_forward(A_prev, W, b, hparameters)
    np.testing.assert_allclose(Z, conv_naive(A_prev, W, b, *case[2:]), rtol=1e-12, atol=1e-12)
    assert Z.flags.c_contiguous
    assert all(
        kept is given for kept, given in zip(cache, (A_prev, W, b, hparameters), strict=True)
    )


@cases(CONVS)
def test_conv_backward(case):
    A_prev, W, b, hparameters = conv_problem(case)
    Z, cache = course.conv_forward(A_prev, W, b, hparameters)
    (dZ,) = numbers(1, Z.shape)
    gradients = course.conv_backward(dZ, cache)
    for gradient, variable in zip(gradients, (A_prev, W, b), strict=True):
        expected = numerical_gradient(
            lambda: conv_naive(A_prev, W, b, *case[2:]), variable, dZ, h=1e-4
        )
        assert gradient.flags.c_contiguous
        np.testing.assert_allclose(gradient, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("mode", "of_window"), [("max", np.max), ("average", np.mean)])
@cases(POOLS)
def test_pools(case, mode, of_window):
    shape, f, stride = case
    (A_prev,) = numbers(2, shape)
    A, cache = course.pool_forward(A_prev, {"stride": stride, "f": f}, mode)
    np.testing.assert_allclose(A, pool_naive(A_prev, f, stride, of_window), rtol=1e-13, atol=1e-13)
    (dA,) = numbers(3, A.shape)
    expected = numerical_gradient(lambda: pool_naive(A_prev, f, stride, of_window), A_prev, dA)
    gradient = course.pool_backward(dA, cache, mode)
    np.testing.assert_allclose(gradient, expected, rtol=1e-8, atol=1e-8)


def test_nan_in_a_window_takes_its_gradient():
    A_prev = np.array([1.0, np.nan, 3.0, 2.0]).reshape(1, 2, 2, 1)
    A, cache = course.pool_forward(A_prev, {"stride": 1, "f": 2})
    assert np.isnan(A).all()
    dA_prev = course.pool_backward(np.ones_like(A), cache)
    np.testing.assert_array_equal(dA_prev.ravel(), [0, 1, 0, 0])


# Any real array.

S2P1, S1F2 = {"stride": 2, "pad": 1}, {"stride": 1, "f": 2}
LENIENT = {  # name: function of arrays alone, their shapes
    "zero_pad": (lambda X: course.zero_pad(X, 2), [(2, 3, 3, 2)]),
    "conv_single_step": (course.conv_single_step, [(3, 3, 2), (3, 3, 2), (1, 1, 1)]),
    "conv_forward": (
        lambda A, W, b: course.conv_forward(A, W, b, S2P1)[0],
        [(2, 5, 5, 3), (3, 3, 3, 2), (1, 1, 1, 2)],
    ),
    "conv_backward": (
        lambda dZ, A, W: course.conv_backward(dZ, (A, W, None, S2P1)),
        [(2, 3, 3, 2), (2, 5, 5, 3), (3, 3, 3, 2)],
    ),
    "max_forward": (lambda A: course.pool_forward(A, S1F2)[0], [(2, 4, 5, 3)]),
    "max_backward": (
        lambda dA, A: course.pool_backward(dA, (A, S1F2)),
        [(2, 3, 4, 3), (2, 4, 5, 3)],
    ),
    "average_forward": (lambda A: course.pool_forward(A, S1F2, "average")[0], [(2, 4, 5, 3)]),
    "average_backward": (
        lambda dA, A: course.pool_backward(dA, (A, S1F2), "average"),
        [(2, 3, 4, 3), (2, 4, 5, 3)],
    ),
}


@cases(LENIENT)
def test_any_memory(case):
    function, shapes = case
    check_memory(function, numbers(4, *shapes))


@pytest.mark.parametrize("name", [name for name in LENIENT if name != "zero_pad"])
def test_dtypes(name):
    function, shapes = LENIENT[name]
    check_dtypes(function, [2 * array for array in numbers(5, *shapes)])


def test_zero_pad_keeps_the_dtype():
    assert course.zero_pad(np.ones((1, 2, 2, 1), np.uint8), 1).dtype == np.uint8


@pytest.mark.parametrize("b", [2.0, np.float64(2), np.array(2.0), np.full((1, 1, 1), 2.0)])
def test_one_step_takes_any_single_bias(b):
    assert course.conv_single_step(np.ones((2, 2, 1)), np.ones((2, 2, 1)), b) == 6


# Bad input.

A, W, B = np.ones((2, 5, 5, 3)), np.ones((3, 3, 3, 4)), np.ones((1, 1, 1, 4))
S1P0 = {"stride": 1, "pad": 0}


@refused(
    (lambda: course.zero_pad(np.ones((3, 3)), 1), ValueError, r"X must have shape \(m, n_H"),
    (lambda: course.zero_pad(A, -1), ValueError, "padding must not be negative"),
    (lambda: course.zero_pad(A, 0.5), TypeError, "pad must be an integer, got 0.5"),
    (lambda: course.conv_single_step(A[0], W, B), ValueError, r"W must have shape \(5, 5, 3\)"),
    (lambda: course.conv_single_step(W, W, B), ValueError, r"b must be one number, got shape"),
    (lambda: course.conv_forward(A[0], W, B, S1P0), ValueError, r"A_prev must have shape"),
    (
        lambda: course.conv_forward(A, W[:, :, :2], B, S1P0),
        ValueError,
        r"W must have shape \(f, f, 3, n_C\), got \(3, 3, 2, 4\)",
    ),
    (
        lambda: course.conv_forward(A, W, B[0, 0, 0], S1P0),
        ValueError,
        r"b must have shape \(1, 1, 1, 4\), got \(4,\)",
    ),
    (lambda: course.conv_forward(A, W, B, {"stride": 0, "pad": 0}), ValueError, "stride must be"),
    (lambda: course.conv_forward(A, W, B, {"stride": 1, "pad": -1}), ValueError, "padding must"),
    (lambda: course.conv_forward(A, W, B, {"stride": 1, "pad": 1.0}), TypeError, "padding must"),
    (lambda: course.conv_forward(A, W, B, {"stride": 1}), KeyError, "pad"),
    (lambda: course.conv_forward(A * 1j, W, B, S1P0), TypeError, "complex128"),
    (lambda: course.conv_forward(np.ma.masked_less(A, 0), W, B, S1P0), TypeError, "masked"),
    (
        lambda: course.conv_backward(np.ones((2, 3, 2, 4)), (A, W, B, S1P0)),
        ValueError,
        r"dZ must have shape \(2, 3, 3, 4\), got \(2, 3, 2, 4\)",
    ),
    (
        lambda: course.conv_backward(np.ones((2, 3, 3, 4)), (A, W, B, {"stride": 0, "pad": 0})),
        ValueError,
        "stride must be positive, got 0",
    ),
    (lambda: course.pool_forward(A, S1F2, "median"), ValueError, "mode must be .*'median'"),
    (lambda: course.pool_forward(A, S1F2, None), ValueError, "mode must be .*None"),
    (lambda: course.pool_forward(A[0], S1F2), ValueError, "A_prev must have shape"),
    (lambda: course.pool_forward(A, {"stride": 1, "f": 6}), ValueError, "kernel height 6 exceeds"),
    (
        lambda: course.pool_backward(np.ones((2, 4, 4, 2)), (A, S1F2)),
        ValueError,
        r"dA must have shape \(2, 4, 4, 3\), got \(2, 4, 4, 2\)",
    ),
    (lambda: course.pool_backward(A, (A, S1F2), "sum"), ValueError, "mode must be .*'sum'"),
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_an_empty_batch_has_zero_gradients():
    Z, cache = course.conv_forward(np.ones((0, 5, 5, 3)), W, B, S1P0)
    assert Z.shape == (0, 3, 3, 4)
    dA_prev, dW, db = course.conv_backward(Z, cache)
    assert dA_prev.shape == (0, 5, 5, 3)
    assert not dW.any() and not db.any()
