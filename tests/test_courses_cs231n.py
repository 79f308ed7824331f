"""The CS231n drop-ins against loops, index formulas, and what the course's notebook publishes."""

from __future__ import annotations
import __future__

import builtins
import importlib
import itertools
import sys

import numpy as np
import pytest

from cnnfast.courses.cs231n import fast_layers as fast
from cnnfast.courses.cs231n import im2col as indexed
from cnnfast.courses.cs231n import im2col_cython as extension

COLUMN_NAMES = {"im2col_cython", "col2im_cython", "col2im_6d_cython"}
INDEX_NAMES = {"get_im2col_indices", "im2col_indices", "col2im_indices"}
LAYER_NAMES = {
    "conv_forward_im2col",
    "conv_backward_im2col",
    "conv_forward_strides",
    "conv_backward_strides",
    "conv_forward_fast",
    "conv_backward_fast",
    "max_pool_forward_fast",
    "max_pool_backward_fast",
    "max_pool_forward_reshape",
    "max_pool_backward_reshape",
    "max_pool_forward_im2col",
    "max_pool_backward_im2col",
}
SLOW_LAYER_NAMES = {
    f"{name}_{direction}{suffix}"
    for direction in ("forward", "backward")
    for name, suffix in (
        *(("affine", ""), ("relu", ""), ("dropout", ""), ("batchnorm", ""), ("layernorm", "")),
        *(("spatial_batchnorm", ""), ("spatial_groupnorm", "")),
        *(("conv", "_naive"), ("max_pool", "_naive")),
    )
} | {"batchnorm_backward_alt", "softmax_loss", "svm_loss"}
SANDWICH_NAMES = {
    f"{name}_{direction}"
    for direction in ("forward", "backward")
    for name in ("affine_relu", "conv_relu", "conv_bn_relu", "conv_relu_pool")
}
CHECK_NAMES = {f"eval_numerical_gradient{kind}" for kind in ("", "_array", "_blobs", "_net")}
STAR = {
    "im2col_cython": COLUMN_NAMES,
    "im2col": INDEX_NAMES | {"np", "range"},
    "fast_layers": COLUMN_NAMES | INDEX_NAMES | LAYER_NAMES | {"np", "range", "print_function"},
    "layers": SLOW_LAYER_NAMES | {"np", "range"},
    "layer_utils": SANDWICH_NAMES,
    "classifiers.cnn": {"ThreeLayerConvNet", "np"},
    "gradient_check": CHECK_NAMES
    | {"grad_check_sparse", "np", "range", "print_function", "randrange"},
    "optim": {"sgd", "sgd_momentum", "rmsprop", "adam", "np"},
    "solver": {"Solver", "optim", "np", "range", "print_function", "division"},
}
STUDENT_NAMES = [
    "affine_forward",
    "affine_backward",
    "relu_forward",
    "relu_backward",
    "softmax_loss",
    "batchnorm_forward",
    "conv_forward_naive",
    "conv_backward_naive",
    "max_pool_forward_naive",
    "max_pool_backward_naive",
    "spatial_batchnorm_forward",
    "conv_relu_forward",
    "conv_relu_pool_forward",
    "rel_error",
    "promote",
    "cnnfast",
]
S2P0 = {"stride": 2, "pad": 0}
CONV_FORWARDS = [fast.conv_forward_fast, fast.conv_forward_strides, fast.conv_forward_im2col]
CONV_BACKWARDS = [fast.conv_backward_fast, fast.conv_backward_strides, fast.conv_backward_im2col]

# Name: x.shape, w.shape, stride, pad. Strides fit, so that conv_forward_im2col takes them too.
CONVS = {
    "same": ((2, 3, 5, 5), (4, 3, 3, 3), 1, 1),
    "wide-filter": ((2, 3, 6, 7), (4, 3, 2, 5), 1, 0),
    "tall-filter": ((3, 2, 9, 6), (5, 2, 5, 2), 2, 1),
    "pointwise": ((2, 5, 3, 4), (3, 5, 1, 1), 1, 0),
    "gaps": ((2, 1, 7, 10), (2, 1, 1, 1), 3, 0),
    "all-of-it": ((1, 2, 3, 4), (3, 2, 3, 4), 1, 0),
    "mostly-padding": ((2, 1, 3, 1), (2, 1, 3, 3), 2, 3),
}
FLOORED = {
    "one-over": ((2, 3, 6, 8), (4, 3, 3, 3), 2, 0),
    "two-over-and-one": ((2, 2, 8, 7), (3, 2, 3, 3), 3, 0),
    "wide-filter": ((2, 3, 7, 8), (4, 3, 2, 5), 2, 1),
}
POOLS = {  # x.shape, pool_height, pool_width, stride
    "overlapping": ((2, 3, 7, 9), 3, 3, 2),
    "floored": ((2, 3, 8, 7), 3, 2, 2),
    "gaps": ((3, 2, 8, 11), 2, 2, 3),
    "height-not-tiled": ((2, 2, 5, 6), 2, 2, 2),
    "width-not-tiled": ((2, 2, 4, 7), 2, 2, 2),
    "wide": ((1, 2, 4, 6), 2, 3, 2),
    "tiling": ((2, 3, 6, 9), 3, 3, 3),
}


# What a student writes: loops over images and places.


def conv_forward_naive(x, w, b, conv_param):
    stride, pad = conv_param["stride"], conv_param["pad"]
    (N, C, H, W), (F, _, HH, WW) = x.shape, w.shape
    framed = np.zeros((N, C, H + 2 * pad, W + 2 * pad))
    framed[:, :, pad : pad + H, pad : pad + W] = x
    OH, OW = (H + 2 * pad - HH) // stride + 1, (W + 2 * pad - WW) // stride + 1
    out = np.zeros((N, F, OH, OW))
    for n, oy, ox in np.ndindex(N, OH, OW):
        field = framed[n, :, oy * stride : oy * stride + HH, ox * stride : ox * stride + WW]
        out[n, :, oy, ox] = (field * w).sum(axis=(1, 2, 3)) + b
    return out, (x, w, b, conv_param)


def conv_backward_naive(dout, cache):
    x, w, b, conv_param = cache
    stride, pad = conv_param["stride"], conv_param["pad"]
    (N, C, H, W), (_, _, HH, WW) = x.shape, w.shape
    framed = np.zeros((N, C, H + 2 * pad, W + 2 * pad))
    framed[:, :, pad : pad + H, pad : pad + W] = x
    dframed, dw, db = np.zeros_like(framed), np.zeros(w.shape), np.zeros(b.shape)
    for n, oy, ox in np.ndindex(N, *dout.shape[2:]):
        here = (n, slice(None), slice(oy * stride, oy * stride + HH))
        here += (slice(ox * stride, ox * stride + WW),)
        slope = dout[n, :, oy, ox]
        db += slope
        dw += framed[here] * slope[:, None, None, None]
        dframed[here] += np.tensordot(slope, w, axes=1)
    return dframed[:, :, pad : pad + H, pad : pad + W], dw, db


def pool_windows(x, pool_param):
    """Each output index with the slice of x that it sees."""
    PH, PW, stride = (pool_param[k] for k in ("pool_height", "pool_width", "stride"))
    N, C, H, W = x.shape
    for n, c, oy, ox in np.ndindex(N, C, (H - PH) // stride + 1, (W - PW) // stride + 1):
        rows, columns = slice(oy * stride, oy * stride + PH), slice(ox * stride, ox * stride + PW)
        yield (n, c, oy, ox), (n, c, rows, columns)


def max_pool_forward_naive(x, pool_param):
    maxima = {o: x[window].max() for o, window in pool_windows(x, pool_param)}
    out = np.zeros([last + 1 for last in max(maxima)])
    for o, value in maxima.items():
        out[o] = value
    return out, (x, pool_param)


def max_pool_backward_naive(dout, cache):
    x, pool_param = cache
    dx = np.zeros(x.shape)
    for o, window in pool_windows(x, pool_param):
        first = np.unravel_index(x[window].argmax(), x[window].shape)
        dx[window][first] += dout[o]
    return dx


def conv_scalar(x, w, b, stride, pad):
    """Convolve with nothing but numbers: the formula itself."""
    (N, C, H, W), (F, _, HH, WW) = x.shape, w.shape
    OH, OW = (H + 2 * pad - HH) // stride + 1, (W + 2 * pad - WW) // stride + 1
    out = np.zeros((N, F, OH, OW))
    for n, f, oy, ox in np.ndindex(out.shape):
        total = float(b[f])
        for c, ii, jj in np.ndindex(C, HH, WW):
            y, z = oy * stride + ii - pad, ox * stride + jj - pad
            if 0 <= y < H and 0 <= z < W:
                total += float(x[n, c, y, z]) * float(w[f, c, ii, jj])
        out[n, f, oy, ox] = total
    return out


def rel_error(a, b):
    return np.max(np.abs(a - b) / np.maximum(1e-8, np.abs(a) + np.abs(b)))


def numerical_gradient(f, x, df, h=1e-5):
    """Central differences of sum(f(x) * df), perturbing x in place as the course's checker does."""
    gradient = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        kept = x[index]
        x[index] = kept + h
        above = np.copy(f(x))
        x[index] = kept - h
        below = np.copy(f(x))
        x[index] = kept
        gradient[index] = np.sum((above - below) * df) / (2 * h)
    return gradient


def conv_problem(x_shape, w_shape, stride, pad, seed=0):
    rng = np.random.default_rng(seed)
    x, w, b = (rng.standard_normal(shape) for shape in (x_shape, w_shape, w_shape[:1]))
    param = {"stride": stride, "pad": pad}
    dout = rng.standard_normal(conv_forward_naive(x, w, b, param)[0].shape)
    return x, w, b, param, dout


def pool_problem(x_shape, pool_height, pool_width, stride):
    rng = np.random.default_rng(1)
    param = {"pool_height": pool_height, "pool_width": pool_width, "stride": stride}
    x = rng.integers(-3, 3, x_shape).astype(float)  # few values: many ties
    dout = rng.standard_normal(max_pool_forward_naive(x, param)[0].shape)
    return x, param, dout


def cases(table):
    return pytest.mark.parametrize("case", table.values(), ids=table)


# Names.


@pytest.mark.parametrize("module", STAR)
def test_star_import_brings_the_names_of_the_course_and_no_other(module):
    own = dict.fromkeys(set(STUDENT_NAMES) - STAR[module], "the student's")
    namespace = dict(own)
    exec(f"from cnnfast.courses.cs231n.{module} import *", namespace)
    assert {name: namespace[name] for name in own} == own
    assert set(namespace) - set(own) - {"__builtins__"} == STAR[module]


def test_no_star_import_but_that_of_layers_brings_what_students_write():
    given = [names for module, names in STAR.items() if module != "layers"]
    assert not SLOW_LAYER_NAMES & set().union(*given)


def test_star_imports_agree():
    """Later star imports change nothing, and range, np and print_function are the real ones."""
    for name in COLUMN_NAMES:
        assert getattr(fast, name) is getattr(extension, name)
    for name in INDEX_NAMES:
        assert getattr(fast, name) is getattr(indexed, name)
    assert fast.range is builtins.range is indexed.range
    assert fast.np is np is indexed.np
    assert fast.print_function is __future__.print_function


# The notebook's cells, with its seed and its printed numbers.


@pytest.mark.parametrize("forward", CONV_FORWARDS)
def test_notebook_conv_forward(forward):
    x = np.linspace(-0.1, 0.5, num=96).reshape(2, 3, 4, 4)
    w = np.linspace(-0.2, 0.3, num=144).reshape(3, 3, 4, 4)
    b = np.linspace(-0.1, 0.2, num=3)
    out, _ = forward(x, w, b, {"stride": 2, "pad": 1})
    assert out.shape == (2, 3, 2, 2)
    assert rel_error(out, conv_scalar(x, w, b, 2, 1)) < 1e-13
    # The notebook's 24 numbers have eight decimals; it prints this distance from them.
    assert rel_error(out, np.round(out, 8)) == pytest.approx(2.2121476e-08, rel=1e-6)


def test_notebook_max_pool_forward():
    x = np.linspace(-0.3, 0.4, num=96).reshape(2, 3, 4, 4)
    out, _ = fast.max_pool_forward_fast(x, {"pool_height": 2, "pool_width": 2, "stride": 2})
    np.testing.assert_array_equal(out, x[:, :, 1::2, 1::2])  # x increases
    assert rel_error(out, np.round(out, 8)) == pytest.approx(4.16666651573e-08, rel=1e-6)


@pytest.mark.parametrize("backward", CONV_BACKWARDS)
def test_notebook_conv_backward(backward):
    rng = np.random.RandomState(231)
    x, w, b = rng.randn(4, 3, 5, 5), rng.randn(2, 3, 3, 3), rng.randn(2)
    dout, param = rng.randn(4, 2, 5, 5), {"stride": 1, "pad": 1}
    dx, dw, db = backward(dout, fast.conv_forward_fast(x, w, b, param)[1])

    def forward(_):
        return fast.conv_forward_fast(x, w, b, param)[0]

    for gradient, variable in ((dx, x), (dw, w), (db, b)):
        assert rel_error(gradient, numerical_gradient(forward, variable, dout)) < 2e-8


def test_notebook_max_pool_backward():
    rng = np.random.RandomState(231)
    x, dout = rng.randn(3, 2, 8, 8), rng.randn(3, 2, 4, 4)
    param = {"pool_height": 2, "pool_width": 2, "stride": 2}
    dx = fast.max_pool_backward_fast(dout, fast.max_pool_forward_fast(x, param)[1])
    numerical = numerical_gradient(lambda x: fast.max_pool_forward_fast(x, param)[0], x, dout)
    assert rel_error(dx, numerical) == pytest.approx(3.27562514223145e-12, rel=1e-3)


def test_notebook_conv_fast_against_naive():
    rng = np.random.RandomState(231)
    x, w, b = rng.randn(100, 3, 31, 31), rng.randn(25, 3, 3, 3), rng.randn(25)
    dout, param = rng.randn(100, 25, 16, 16), {"stride": 2, "pad": 1}
    expected, cache = conv_forward_naive(x, w, b, param)
    out, fast_cache = fast.conv_forward_fast(x, w, b, param)
    assert rel_error(out, expected) < 1e-9
    gradients = fast.conv_backward_fast(dout, fast_cache)
    for gradient, expected in zip(gradients, conv_backward_naive(dout, cache), strict=True):
        assert rel_error(gradient, expected) < 1e-9


def test_notebook_pool_fast_against_naive():
    rng = np.random.RandomState(231)
    x, dout = rng.randn(100, 3, 32, 32), rng.randn(100, 3, 16, 16)
    param = {"pool_height": 2, "pool_width": 2, "stride": 2}
    expected, cache = max_pool_forward_naive(x, param)
    out, fast_cache = fast.max_pool_forward_fast(x, param)
    assert rel_error(out, expected) == 0.0
    dx = fast.max_pool_backward_fast(dout, fast_cache)
    assert rel_error(dx, max_pool_backward_naive(dout, cache)) == 0.0


# The sandwich layers and the network, as a student composes them.


def conv_relu_pool_forward(x, w, b, conv_param, pool_param):
    before, conv_cache = fast.conv_forward_fast(x, w, b, conv_param)
    out, pool_cache = fast.max_pool_forward_fast(np.maximum(before, 0), pool_param)
    return out, (conv_cache, before, pool_cache)


def conv_relu_pool_backward(dout, cache):
    conv_cache, before, pool_cache = cache
    dbefore = fast.max_pool_backward_fast(dout, pool_cache) * (before > 0)
    return fast.conv_backward_fast(dbefore, conv_cache)


def three_layer_loss(params, x, y, reg):
    """Loss and gradients of conv - relu - 2x2 max pool - affine - relu - affine - softmax."""
    W1, b1, W2, b2, W3, b3 = (params[k] for k in ("W1", "b1", "W2", "b2", "W3", "b3"))
    conv_param = {"stride": 1, "pad": (W1.shape[2] - 1) // 2}
    pool_param = {"pool_height": 2, "pool_width": 2, "stride": 2}
    pooled, cache = conv_relu_pool_forward(x, W1, b1, conv_param, pool_param)
    flat = pooled.reshape(len(x), -1)
    hidden = np.maximum(flat @ W2 + b2, 0)
    scores = hidden @ W3 + b3
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    p = odds / odds.sum(axis=1, keepdims=True)
    rows = np.arange(len(x))
    loss = -np.log(p[rows, y]).mean() + 0.5 * reg * sum((W * W).sum() for W in (W1, W2, W3))
    p[rows, y] -= 1
    dscores = p / len(x)
    dhidden = dscores @ W3.T * (hidden > 0)
    dpooled = (dhidden @ W2.T).reshape(pooled.shape)
    _, dW1, db1 = conv_relu_pool_backward(dpooled, cache)
    dW2, dW3 = flat.T @ dhidden + reg * W2, hidden.T @ dscores + reg * W3
    gradients = {"W1": dW1 + reg * W1, "W2": dW2, "W3": dW3}
    return loss, gradients | {"b1": db1, "b2": dhidden.sum(axis=0), "b3": dscores.sum(axis=0)}


def three_layer_params(rng, channels, filters, size, flat, hidden, classes):
    shapes = {"W1": (filters, channels, size, size), "W2": (flat, hidden), "W3": (hidden, classes)}
    params = {name: 1e-3 * rng.randn(*shape) for name, shape in shapes.items()}
    return params | {"b1": np.zeros(filters), "b2": np.zeros(hidden), "b3": np.zeros(classes)}


def test_notebook_conv_relu_pool():
    rng = np.random.RandomState(231)
    x, w, b = rng.randn(2, 3, 16, 16), rng.randn(3, 3, 3, 3), rng.randn(3)
    dout = rng.randn(2, 3, 8, 8)
    params = {"stride": 1, "pad": 1}, {"pool_height": 2, "pool_width": 2, "stride": 2}
    gradients = conv_relu_pool_backward(dout, conv_relu_pool_forward(x, w, b, *params)[1])

    def forward(_):
        return conv_relu_pool_forward(x, w, b, *params)[0]

    for gradient, variable in zip(gradients, (x, w, b), strict=True):
        assert rel_error(gradient, numerical_gradient(forward, variable, dout)) < 2e-8


def test_notebook_three_layer_loss():
    rng = np.random.RandomState(231)
    for shape in ((2, 3, 8, 8), (3, 3, 3, 3), (3,), (2, 3, 8, 8)):  # the cell before draws these
        rng.randn(*shape)
    params = three_layer_params(rng, 3, 32, 7, 8192, 100, 10)
    params = {name: value.astype(np.float32) for name, value in params.items()}
    x, y = rng.randn(50, 3, 32, 32), rng.randint(10, size=50)
    assert three_layer_loss(params, x, y, 0.0)[0] == pytest.approx(2.302586071243987, rel=1e-13)
    # The weights are float32, and so is the sum of their squares.
    assert three_layer_loss(params, x, y, 0.5)[0] == pytest.approx(2.508255638232932, rel=3e-8)


def test_notebook_three_layer_gradient():
    rng = np.random.RandomState(231)
    x, y = rng.randn(2, 3, 16, 16), rng.randint(10, size=2)
    params = three_layer_params(rng, 3, 3, 3, 192, 7, 10)
    _, gradients = three_layer_loss(params, x, y, 0.0)
    published = {"W1": 3.1e-4, "W2": 1.9e-2, "W3": 3.5e-4, "b1": 3.4e-6, "b2": 2.6e-3, "b3": 1e-9}
    for name, bound in published.items():
        numerical = numerical_gradient(
            lambda _: three_layer_loss(params, x, y, 0.0)[0], params[name], 1.0, h=1e-6
        )
        assert rel_error(numerical, gradients[name]) < 2 * bound, name


def test_three_layer_mixed_precision():
    """The course's network has float32 weights by default, and float64 images."""
    rng = np.random.RandomState(0)
    x, y = rng.randn(2, 3, 8, 8), rng.randint(10, size=2)
    params = three_layer_params(rng, 3, 3, 3, 48, 7, 10)
    single = {name: value.astype(np.float32) for name, value in params.items()}
    double = {name: value.astype(np.float64) for name, value in single.items()}
    loss, gradients = three_layer_loss(single, x, y, 0.0)
    expected_loss, expected = three_layer_loss(double, x, y, 0.0)
    assert loss == pytest.approx(expected_loss, rel=1e-12)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-9, atol=1e-14)


# Convolution.


@pytest.mark.parametrize("forward", CONV_FORWARDS)
@cases(CONVS)
def test_conv_forward(forward, case):
    x, w, b, param, _ = conv_problem(*case)
    out, _ = forward(x, w, b, param)
    np.testing.assert_allclose(out, conv_scalar(x, w, b, *param.values()), rtol=1e-12, atol=1e-12)
    assert out.flags.c_contiguous


@pytest.mark.parametrize("forward", CONV_FORWARDS[:2])
@cases(FLOORED)
def test_conv_floors(forward, case):
    x, w, b, param, dout = conv_problem(*case)
    out, cache = forward(x, w, b, param)
    expected, naive_cache = conv_forward_naive(x, w, b, param)
    np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-12)
    gradients = fast.conv_backward_fast(dout, cache)
    for gradient, expected in zip(gradients, conv_backward_naive(dout, naive_cache), strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backward", CONV_BACKWARDS)
@pytest.mark.parametrize("forward", CONV_FORWARDS)
@cases(CONVS)
def test_every_conv_backward_takes_every_cache(forward, backward, case):
    x, w, b, param, dout = conv_problem(*case)
    gradients = backward(dout, forward(x, w, b, param)[1])
    expected = conv_backward_naive(dout, (x, w, b, param))
    for gradient, wanted, variable in zip(gradients, expected, (x, w, b), strict=True):
        assert gradient.shape == variable.shape
        np.testing.assert_allclose(gradient, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("forward", CONV_FORWARDS)
@pytest.mark.parametrize(
    "rearrange",
    [np.asfortranarray, lambda a: np.flip(np.flip(a).copy()), lambda a: a.astype(">f8")],
    ids=["fortran", "negative-strides", "byte-swapped"],
)
def test_conv_in_any_memory_order(forward, rearrange):
    x, w, b, param, dout = conv_problem((2, 3, 7, 9), (4, 3, 3, 5), 2, 1)
    plain, plain_cache = forward(x, w, b, param)
    out, cache = forward(rearrange(x), rearrange(w), rearrange(b), param)
    np.testing.assert_allclose(out, plain, rtol=1e-12, atol=1e-12)
    assert out.dtype == np.float64
    gradients = fast.conv_backward_fast(rearrange(dout), cache)
    expected = fast.conv_backward_fast(dout, plain_cache)
    for gradient, wanted in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, wanted, rtol=1e-12, atol=1e-12)


def test_conv_caches():
    x, w, b, param, _ = conv_problem((2, 3, 7, 9), (4, 3, 3, 5), 2, 1)
    for forward in CONV_FORWARDS:
        _, cache = forward(x, w, b, param)
        assert type(cache) is tuple and len(cache) == 5
        for kept, given in zip(cache, (x, w, b, param), strict=False):
            assert kept is given
    assert fast.conv_forward_fast(x, w, b, param)[1][4] is None


def test_conv_columns_in_the_cache():
    """Rows (c, ii, jj); columns (n, oy, ox) in the strides path, (oy, ox, n) in the im2col path."""
    stride, pad = 2, 1
    x, w, b, param, _ = conv_problem((2, 3, 7, 9), (4, 3, 3, 5), stride, pad)
    framed = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    rows = list(itertools.product(range(3), range(3), range(5)))
    by_image = list(itertools.product(range(2), range(4), range(4)))
    by_place = [(n, oy, ox) for oy in range(4) for ox in range(4) for n in range(2)]
    for forward, order in (
        (fast.conv_forward_strides, by_image),
        (fast.conv_forward_im2col, by_place),
    ):
        x_cols = forward(x, w, b, param)[1][4]
        expected = [
            [framed[n, c, oy * stride + ii, ox * stride + jj] for n, oy, ox in order]
            for c, ii, jj in rows
        ]
        np.testing.assert_array_equal(x_cols, expected)


@pytest.mark.parametrize("shape", [(1, 1, 6, 5), (1, 1, 5, 6)], ids=["height", "width"])
def test_conv_forward_im2col_asserts_that_the_stride_fits(shape, request):
    axis = request.node.callspec.id
    with pytest.raises(AssertionError, match=f"^{axis} does not work"):
        fast.conv_forward_im2col(np.ones(shape), np.ones((1, 1, 3, 3)), np.ones(1), S2P0)


def test_conv_uses_x_as_it_is_now():
    """A gradient checker changes x in place: nothing may be kept by the identity of an array."""
    x, w, b, param, dout = conv_problem(*CONVS["same"])
    for forward in CONV_FORWARDS:
        before, _ = forward(x, w, b, param)
        for variable in (x, w, b):
            variable[...] += 1
            out, cache = forward(x, w, b, param)
            np.testing.assert_allclose(out, conv_scalar(x, w, b, *param.values()), rtol=1e-11)
            assert not np.allclose(out, before)
            expected = conv_backward_naive(dout, (x, w, b, param))
            for gradient, wanted in zip(
                fast.conv_backward_fast(dout, cache), expected, strict=True
            ):
                np.testing.assert_allclose(gradient, wanted, rtol=1e-11, atol=1e-11)


def test_inputs_are_left_alone():
    x, w, b, param, dout = conv_problem(*CONVS["tall-filter"])
    originals = [a.copy() for a in (x, w, b, dout)]
    for a in (x, w, b, dout):
        a.setflags(write=False)
    for forward in CONV_FORWARDS:
        fast.conv_backward_fast(dout, forward(x, w, b, param)[1])
    for a, original in zip((x, w, b, dout), originals, strict=True):
        np.testing.assert_array_equal(a, original)


@pytest.mark.parametrize("forward", CONV_FORWARDS)
@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        (("f4", "f4", "f4"), "f4"),
        (("f8", "f4", "f4"), "f8"),
        (("f4", "f8", "f4"), "f8"),
        (("f4", "f4", "f8"), "f8"),
        (("i8", "i4", "u1"), "f8"),
        (("i8", "f4", "f4"), "f8"),
        (("u1", "f4", "f4"), "f4"),
        (("f2", "f2", "f2"), "f4"),
        (("?", "i2", "i2"), "f8"),
    ],
)
def test_conv_dtypes(forward, dtypes, expected):
    rng = np.random.default_rng(3)
    shapes = (2, 2, 5, 5), (3, 2, 3, 3), (3,)
    x, w, b = (rng.integers(0, 5, s).astype(d) for s, d in zip(shapes, dtypes, strict=True))
    param = {"stride": 1, "pad": 1}
    out, cache = forward(x, w, b, param)
    wide = [a.astype(float) for a in (x, w, b)]
    np.testing.assert_array_equal(out, conv_forward_naive(*wide, param)[0])
    assert out.dtype == expected
    for kept, given in zip(cache, (x, w, b), strict=False):
        assert kept is given
    if cache[4] is not None:
        assert cache[4].dtype == (np.float64 if x.dtype.kind in "iub?" else np.result_type(x, "f4"))
    dout = rng.integers(-3, 3, out.shape).astype(expected)
    for gradient, wanted in zip(
        fast.conv_backward_fast(dout, cache), conv_backward_naive(dout, (*wide, param)), strict=True
    ):
        assert gradient.dtype == expected
        np.testing.assert_array_equal(gradient, wanted)


def test_bias_may_be_a_column():
    """The course's code flattens b; some notebooks keep it as (F, 1)."""
    x, w, b, param, _ = conv_problem(*CONVS["same"])
    for forward in CONV_FORWARDS:
        out, _ = forward(x, w, b, param)
        np.testing.assert_array_equal(forward(x, w, b[:, None], param)[0], out)


@pytest.mark.parametrize("forward", CONV_FORWARDS)
def test_conv_of_no_images(forward):
    x, w, b = np.ones((0, 2, 5, 5)), np.ones((3, 2, 3, 3)), np.ones(3)
    out, cache = forward(x, w, b, S2P0)
    assert out.shape == (0, 3, 2, 2)
    assert cache[4] is None or cache[4].shape == (18, 0)
    dx, dw, db = fast.conv_backward_fast(out, cache)
    assert dx.shape == x.shape
    np.testing.assert_array_equal(dw, np.zeros(w.shape))
    np.testing.assert_array_equal(db, np.zeros(3))


# Max pooling.


@cases(POOLS)
def test_max_pool_fast_takes_any_window(case):
    x, param, dout = pool_problem(*case)
    x += np.random.default_rng(4).random(x.shape) / 8  # no ties: the tie rule is another test's
    expected, naive_cache = max_pool_forward_naive(x, param)
    out, cache = fast.max_pool_forward_fast(x, param)
    np.testing.assert_array_equal(out, expected)
    dx = fast.max_pool_backward_fast(dout, cache)
    np.testing.assert_allclose(dx, max_pool_backward_naive(dout, naive_cache), rtol=1e-14)


def test_max_pool_tags():
    for case in POOLS.values():
        x, param, _ = pool_problem(*case)
        (_, _, H, W), PH, PW, stride = case
        tiles = PH == PW == stride and H % PH == 0 and W % PW == 0
        tag, inner = fast.max_pool_forward_fast(x, param)[1]
        assert tag == ("reshape" if tiles else "im2col")
        assert len(inner) == (3 if tiles else 4)
        assert inner[0] is x


def test_max_pool_reshape_cache():
    x, param, _ = pool_problem(*POOLS["tiling"])
    out, (kept, x_reshaped, kept_out) = fast.max_pool_forward_reshape(x, param)
    assert kept is x and kept_out is out
    assert x_reshaped.shape == (2, 3, 2, 3, 3, 3)
    np.testing.assert_array_equal(x_reshaped.max(axis=(3, 5)), out)


@cases({name: POOLS[name] for name in ("overlapping", "tiling")})
def test_max_pool_im2col(case):
    """Columns are (oy, ox, n, c), c fastest; ties go to the first."""
    x, param, dout = pool_problem(*case)
    expected, naive_cache = max_pool_forward_naive(x, param)
    out, cache = fast.max_pool_forward_im2col(x, param)
    kept, x_cols, argmax, kept_param = cache
    assert kept is x and kept_param is param
    np.testing.assert_array_equal(out, expected)
    _, PH, PW, stride = case
    N, C, OH, OW = out.shape
    for column, (oy, ox, n, c) in enumerate(np.ndindex(OH, OW, N, C)):
        window = x[n, c, oy * stride : oy * stride + PH, ox * stride : ox * stride + PW].ravel()
        np.testing.assert_array_equal(x_cols[:, column], window)
        assert argmax[column] == window.argmax()
    assert x_cols.shape == (PH * PW, OH * OW * N * C)
    dx = fast.max_pool_backward_im2col(dout, cache)
    np.testing.assert_allclose(dx, max_pool_backward_naive(dout, naive_cache), atol=1e-14)


def test_max_pool_ties():
    x = np.array([[[[2.0, 2.0, 0.0], [2.0, 1.0, 0.0]]]])
    dout = np.array([[[[3.0]]]])
    square, wide = ({"pool_height": 2, "pool_width": k, "stride": 2} for k in (2, 3))
    tag, _ = cache = fast.max_pool_forward_fast(x[..., :2], square)[1]
    assert tag == "reshape"
    np.testing.assert_array_equal(
        fast.max_pool_backward_fast(dout, cache), [[[[1.0, 1.0], [1.0, 0.0]]]]
    )
    tag, _ = cache = fast.max_pool_forward_fast(x, wide)[1]
    assert tag == "im2col"
    np.testing.assert_array_equal(
        fast.max_pool_backward_fast(dout, cache), [[[[3.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]]
    )


def test_max_pool_asserts():
    x = np.ones((1, 1, 5, 6))
    for height, width, stride in ((2, 3, 2), (2, 2, 1), (2, 2, 2), (3, 3, 3)):
        param = {"pool_height": height, "pool_width": width, "stride": stride}
        with pytest.raises(AssertionError, match=r"^Invalid pool params"):
            fast.max_pool_forward_reshape(x, param)
    for height, width, message in ((2, 2, "Invalid height"), (3, 3, "Invalid width")):
        with pytest.raises(AssertionError, match=f"^{message}"):
            fast.max_pool_forward_im2col(
                x, {"pool_height": height, "pool_width": width, "stride": 2}
            )


def test_max_pool_unknown_method():
    with pytest.raises(ValueError, match=r"^Unrecognized method \"winograd\"$"):
        fast.max_pool_backward_fast(np.ones((1, 1, 1, 1)), ("winograd", None))


@pytest.mark.parametrize(
    ("x_dtype", "dout_dtype", "expected"),
    [("f4", "f4", "f4"), ("f4", "f8", "f8"), ("i8", "f8", "f8"), ("u1", "f4", "f4")],
)
@cases(POOLS)
def test_max_pool_dtypes(case, x_dtype, dout_dtype, expected):
    x, param, dout = pool_problem(*case)
    x, dout = (x + 3).astype(x_dtype), dout.astype(dout_dtype)
    out, cache = fast.max_pool_forward_fast(x, param)
    assert out.dtype == ("f4" if x_dtype == "f4" else "f8")
    np.testing.assert_array_equal(out, max_pool_forward_naive(x, param)[0])
    dx = fast.max_pool_backward_fast(dout, cache)
    assert dx.dtype == expected and dx.shape == x.shape
    np.testing.assert_allclose(dx.sum(), dout.sum(), rtol=1e-4)


def test_max_pool_fortran_order():
    for case in POOLS.values():
        x, param, dout = pool_problem(*case)
        out, cache = fast.max_pool_forward_fast(x, param)
        turned_out, turned_cache = fast.max_pool_forward_fast(np.asfortranarray(x), param)
        np.testing.assert_array_equal(turned_out, out)
        dx = fast.max_pool_backward_fast(np.asfortranarray(dout), turned_cache)
        np.testing.assert_array_equal(dx, fast.max_pool_backward_fast(dout, cache))


# Columns.


def column_entries(shape, HH, WW, pad, stride):
    """Each (c, ii, jj, oy, ox, n) whose cell lies in the image, with the cell."""
    N, C, H, W = shape
    OH, OW = (H + 2 * pad - HH) // stride + 1, (W + 2 * pad - WW) // stride + 1
    for c, ii, jj, oy, ox, n in np.ndindex(C, HH, WW, OH, OW, N):
        cell = (n, c, oy * stride + ii - pad, ox * stride + jj - pad)
        if 0 <= cell[2] < H and 0 <= cell[3] < W:
            yield (c, ii, jj, oy, ox, n), cell


# x.shape, field height, field width, padding, stride
COLUMNS = {
    "fitting": ((2, 3, 5, 7), 3, 3, 1, 2),
    "wide": ((3, 2, 4, 6), 2, 4, 0, 1),
    "tall": ((2, 2, 7, 4), 5, 2, 1, 2),
    "floored": ((2, 3, 6, 9), 3, 2, 1, 3),
    "one-image": ((1, 2, 4, 4), 2, 2, 0, 2),
    "no-image": ((0, 2, 4, 4), 2, 2, 0, 2),
}
FITTING = {name: case for name, case in COLUMNS.items() if name != "floored"}


def columns_problem(shape, HH, WW, pad, stride):
    """Random x with its 6-d columns (c, ii, jj, oy, ox, n), random columns with their sum."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal(shape)
    N, C, H, W = shape
    sizes = (C, HH, WW, (H + 2 * pad - HH) // stride + 1, (W + 2 * pad - WW) // stride + 1, N)
    cols, back = np.zeros(sizes), np.zeros(shape)
    random = rng.standard_normal(sizes)
    for entry, cell in column_entries(shape, HH, WW, pad, stride):
        cols[entry] = x[cell]
        back[cell] += random[entry]
    return x, cols, random, back


@cases(COLUMNS)
def test_im2col_cython(case):
    shape, *window = case
    x, cols, random, back = columns_problem(*case)
    flat = (np.prod(cols.shape[:3]), np.prod(cols.shape[3:]))
    np.testing.assert_array_equal(fast.im2col_cython(x, *window), cols.reshape(flat))
    np.testing.assert_array_equal(
        fast.im2col_cython(np.asfortranarray(x), *window), cols.reshape(flat)
    )
    image = fast.col2im_cython(random.reshape(flat), *shape, *window)
    np.testing.assert_allclose(image, back, rtol=1e-13, atol=1e-13)
    assert image.flags.c_contiguous


@cases(COLUMNS)
def test_col2im_6d_cython(case):
    shape, *window = case
    _, _, random, back = columns_problem(*case)
    six = np.moveaxis(random, 5, 3)  # (C, HH, WW, N, oh, ow)
    image = fast.col2im_6d_cython(six, *shape, *window)
    np.testing.assert_allclose(image, back, rtol=1e-13, atol=1e-13)
    assert image.flags.c_contiguous


@cases(FITTING)
def test_im2col_indices(case):
    shape, HH, WW, pad, stride = case
    x, cols, random, back = columns_problem(*case)
    flat = (np.prod(cols.shape[:3]), np.prod(cols.shape[3:]))
    np.testing.assert_array_equal(
        fast.im2col_indices(x, HH, WW, padding=pad, stride=stride), cols.reshape(flat)
    )
    image = fast.col2im_indices(
        random.reshape(flat), shape, field_height=HH, field_width=WW, padding=pad, stride=stride
    )
    np.testing.assert_allclose(image, back, rtol=1e-13, atol=1e-13)


@cases(FITTING)
def test_get_im2col_indices(case):
    shape, HH, WW, pad, stride = case
    k, i, j = fast.get_im2col_indices(shape, HH, WW, pad, stride)
    _, C, H, W = shape
    OH, OW = (H + 2 * pad - HH) // stride + 1, (W + 2 * pad - WW) // stride + 1
    assert k.shape == (C * HH * WW, 1)
    assert i.shape == j.shape == (C * HH * WW, OH * OW)
    for row, (c, ii, jj) in enumerate(np.ndindex(C, HH, WW)):
        assert k[row, 0] == c
        for column, (oy, ox) in enumerate(np.ndindex(OH, OW)):
            assert i[row, column] == oy * stride + ii
            assert j[row, column] == ox * stride + jj


def test_column_defaults():
    x = np.arange(2 * 2 * 4 * 5.0).reshape(2, 2, 4, 5)
    cols = fast.im2col_indices(x, 3, 3)
    np.testing.assert_array_equal(cols, fast.im2col_cython(x, 3, 3, padding=1, stride=1))
    np.testing.assert_array_equal(
        fast.col2im_indices(cols, x.shape), fast.col2im_cython(cols, *x.shape, 3, 3, 1, 1)
    )
    for default, given in zip(
        fast.get_im2col_indices(x.shape, 3, 3),
        fast.get_im2col_indices(x.shape, 3, 3, 1, 1),
        strict=True,
    ):
        np.testing.assert_array_equal(default, given)


def test_columns_take_the_names_of_the_course():
    x = np.ones((2, 1, 4, 5))
    cols = fast.im2col_cython(x=x, field_height=2, field_width=3, padding=0, stride=1)
    size = {"N": 2, "C": 1, "H": 4, "W": 5}
    fast.col2im_cython(cols=cols, **size, field_height=2, field_width=3, padding=0, stride=1)
    six = cols.reshape(1, 2, 3, 2, 3, 3)
    fast.col2im_6d_cython(cols=six, **size, HH=2, WW=3, pad=0, stride=1)
    fast.get_im2col_indices(x_shape=x.shape, field_height=2, field_width=3, padding=0, stride=1)
    fast.im2col_indices(x=x, field_height=2, field_width=3, padding=0, stride=1)
    fast.col2im_indices(
        cols=cols, x_shape=x.shape, field_height=2, field_width=3, padding=0, stride=1
    )


@pytest.mark.parametrize(("given", "expected"), [("f4", "f4"), ("f8", "f8"), ("i4", "f8")])
def test_column_dtypes(given, expected):
    x = np.arange(32).reshape(1, 2, 4, 4).astype(given)
    cols = fast.im2col_cython(x, 2, 2, 0, 2)
    assert cols.dtype == expected
    np.testing.assert_array_equal(cols[0], [0, 2, 8, 10])
    cols = cols.astype(given)
    assert fast.col2im_cython(cols, 1, 2, 4, 4, 2, 2, 0, 2).dtype == expected
    np.testing.assert_array_equal(fast.col2im_indices(cols, x.shape, 2, 2, 0, 2), x)
    np.testing.assert_array_equal(
        fast.col2im_6d_cython(cols.reshape(2, 2, 2, 1, 2, 2), 1, 2, 4, 4, 2, 2, 0, 2), x
    )


@pytest.mark.parametrize("shape", [(1, 1, 6, 5), (1, 1, 5, 6)], ids=["height", "width"])
def test_index_functions_assert_that_the_stride_fits(shape, request):
    axis = request.node.callspec.id
    calls = [
        lambda: fast.get_im2col_indices(shape, 3, 3, 0, 2),
        lambda: fast.im2col_indices(np.ones(shape), 3, 3, 0, 2),
        lambda: fast.col2im_indices(np.ones((9, 4)), shape, 3, 3, 0, 2),
    ]
    for call in calls:
        with pytest.raises(AssertionError, match=f"^{axis} does not work"):
            call()


# Bad input: always an error with the reason, never a silent result.

ONES = np.ones((1, 2, 4, 4))
CONV_ARGUMENTS = (ONES, np.ones((3, 2, 3, 3)), np.ones(3))
POOL_2 = {"pool_height": 2, "pool_width": 2}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: fast.conv_backward_fast(
                np.ones((1, 3, 3, 2)), (*CONV_ARGUMENTS, {"stride": 1, "pad": 0}, None)
            ),
            ValueError,
            r"dout must have shape \(1, 3, 2, 2\), got \(1, 3, 3, 2\)",
        ),
        (
            lambda: fast.conv_forward_strides(ONES, np.ones((3, 4, 3, 3)), np.ones(3), S2P0),
            ValueError,
            "w expects 4 input channels",
        ),
        (
            lambda: fast.conv_forward_im2col(*CONV_ARGUMENTS, {"stride": 0, "pad": 0}),
            ValueError,
            "stride must be positive",
        ),
        (
            lambda: fast.conv_forward_fast(np.ma.masked_less(ONES, 0), *CONV_ARGUMENTS[1:], S2P0),
            TypeError,
            "masked",
        ),
        (
            lambda: fast.conv_forward_fast(ONES * 1j, *CONV_ARGUMENTS[1:], S2P0),
            TypeError,
            "complex128",
        ),
        (lambda: fast.conv_forward_fast(*CONV_ARGUMENTS, {"stride": 1}), KeyError, "pad"),
        (
            lambda: fast.max_pool_forward_fast(ONES, POOL_2 | {"stride": 0}),
            ValueError,
            "stride must be positive",
        ),
        (
            lambda: fast.max_pool_forward_fast(ONES, dict.fromkeys((*POOL_2, "stride"), 0)),
            ValueError,
            "must be positive",
        ),
        (
            lambda: fast.max_pool_forward_reshape(ONES, POOL_2 | {"stride": 0}),
            ValueError,
            "stride must be positive",
        ),
        (
            lambda: fast.max_pool_forward_im2col(ONES, POOL_2 | {"stride": 0}),
            ValueError,
            "stride must be positive",
        ),
        (
            lambda: fast.col2im_cython(np.ones((4, 8)), 1, 2, 4, 4, 2, 2, 0, 2),
            ValueError,
            r"cols must have shape \(8, 4\), got \(4, 8\)",
        ),
        (
            lambda: fast.col2im_6d_cython(np.ones((2, 2, 2, 1, 1, 4)), 1, 2, 4, 4, 2, 2, 0, 2),
            ValueError,
            r"cols must have shape \(2, 2, 2, 1, 2, 2\)",
        ),
        (
            lambda: fast.col2im_cython(np.ones((8, 4)), 1, 2, 4, 4, 2, 2, 0, 0),
            ValueError,
            "stride must be positive, got 0",
        ),
        (
            lambda: fast.get_im2col_indices((1, 1, 2, 5), 3, 3, 0, 1),
            ValueError,
            "a field of 3 does not fit into 2 cells, padding 0",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


# A student's folder.

COURSE_FAST_LAYERS = '''
"""A student's fast layers in the manner of the handout: they need the three column functions."""
import numpy as np

try:
    from .im2col_cython import col2im_6d_cython, col2im_cython, im2col_cython
except ImportError:
    pass


def by_place(x, w, b, stride, pad, dout):
    F, C, HH, WW = w.shape
    N, _, H, W = x.shape
    cols = im2col_cython(x, HH, WW, pad, stride)
    out = (w.reshape(F, -1) @ cols + b[:, None]).reshape(F, *dout.shape[2:], N)
    flat = dout.transpose(1, 2, 3, 0).reshape(F, -1)
    dcols = w.reshape(F, -1).T @ flat
    dx = col2im_cython(dcols, N, C, H, W, HH, WW, pad, stride)
    return out.transpose(3, 0, 1, 2), dx, (flat @ cols.T).reshape(w.shape)


def by_image(x, w, stride, pad, dout):
    F, C, HH, WW = w.shape
    N, _, OH, OW = dout.shape
    dcols = w.reshape(F, -1).T @ dout.transpose(1, 0, 2, 3).reshape(F, -1)
    dcols = dcols.reshape(C, HH, WW, N, OH, OW)
    return col2im_6d_cython(dcols, N, C, x.shape[2], x.shape[3], HH, WW, pad, stride)
'''


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A folder `cs231n` that can be imported, and is forgotten afterwards."""
    folder = tmp_path / "cs231n"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "fast_layers.py").write_text(COURSE_FAST_LAYERS)
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "cs231n"]:
        del sys.modules[name]


def check_course_layers():
    x, w, b, param, dout = conv_problem((2, 3, 7, 9), (4, 3, 3, 5), 2, 1)
    layers = importlib.import_module("cs231n.fast_layers")
    window = param["stride"], param["pad"]
    out, dx, dw = layers.by_place(x, w, b, *window, dout)
    expected_dx, expected_dw, _ = conv_backward_naive(dout, (x, w, b, param))
    np.testing.assert_allclose(out, conv_forward_naive(x, w, b, param)[0], rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(dx, expected_dx, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(dw, expected_dw, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(
        layers.by_image(x, w, *window, dout), expected_dx, rtol=1e-11, atol=1e-12
    )


def test_swap_by_one_line_in_im2col_cython(course):
    (course / "im2col_cython.py").write_text("from cnnfast.courses.cs231n.im2col_cython import *\n")
    check_course_layers()


def test_swap_by_sys_modules(course, monkeypatch):
    monkeypatch.setitem(sys.modules, "cs231n.im2col_cython", extension)
    check_course_layers()


def test_without_a_swap_the_course_layers_fail(course):
    """So that the two tests above show what the swap does."""
    with pytest.raises(NameError, match="im2col_cython"):
        check_course_layers()


def test_swap_by_one_line_in_fast_layers(course):
    (course / "fast_layers.py").write_text("from cnnfast.courses.cs231n.fast_layers import *\n")
    (course / "layer_utils.py").write_text(
        "from .fast_layers import *\n\n\n"
        "def conv_forward_twice(x, w, b, conv_param):\n"
        "    once, _ = conv_forward_fast(x, w, b, conv_param)\n"
        "    return conv_forward_fast(once, w, b, conv_param)\n"
    )
    utils = importlib.import_module("cs231n.layer_utils")
    x, w, b, param, _ = conv_problem((2, 3, 5, 5), (3, 3, 3, 3), 1, 1)
    once, _ = conv_forward_naive(x, w, b, param)
    out, _ = utils.conv_forward_twice(x, w, b, param)
    np.testing.assert_allclose(
        out, conv_forward_naive(once, w, b, param)[0], rtol=1e-11, atol=1e-11
    )
    assert utils.conv_forward_fast is fast.conv_forward_fast


def test_swap_by_one_line_in_im2col(course):
    (course / "im2col.py").write_text("from cnnfast.courses.cs231n.im2col import *\n")
    module = importlib.import_module("cs231n.im2col")
    assert module.im2col_indices is fast.im2col_indices
    assert module.range is range
