"""CS231n's layers, network and training against formulas, numerical gradients and notebooks."""

from __future__ import annotations

import numpy as np
import pytest

import cnnfast
from cnnfast.courses.cs231n import gradient_check as check
from cnnfast.courses.cs231n import layer_utils as utils
from cnnfast.courses.cs231n import layers, optim
from cnnfast.courses.cs231n.classifiers.cnn import ThreeLayerConvNet
from cnnfast.courses.cs231n.fast_layers import (
    conv_backward_fast,
    conv_forward_fast,
    max_pool_backward_fast,
    max_pool_forward_fast,
)
from cnnfast.courses.cs231n.solver import Solver

S1P1 = {"stride": 1, "pad": 1}
POOL_2 = {"pool_height": 2, "pool_width": 2, "stride": 2}


def rel_error(a, b):
    return np.max(np.abs(a - b) / np.maximum(1e-8, np.abs(a) + np.abs(b)))


def decimals_error(values):
    """What a notebook prints for the distance from its own eight decimals."""
    return rel_error(values, np.round(values, 8))


def course_randn(*shapes):
    """Draw the arrays of a notebook's cell, which begins by np.random.seed(231)."""
    rng = np.random.RandomState(231)
    return [rng.randn(*shape) for shape in shapes]


def check_gradients(gradients, variables, forward, dout, bound):
    """Each gradient, against central differences of sum(forward() * dout)."""
    for gradient, variable in zip(gradients, variables, strict=True):
        numerical = check.eval_numerical_gradient_array(lambda _: forward(), variable, dout)
        assert gradient.shape == variable.shape
        assert rel_error(gradient, numerical) < bound


# Layers.


def test_notebook_affine_forward():
    x = np.linspace(-0.1, 0.5, 240).reshape(2, 4, 5, 6)
    w, b = np.linspace(-0.2, 0.3, 360).reshape(120, 3), np.linspace(-0.3, 0.1, 3)
    out, _ = layers.affine_forward(x, w, b)
    np.testing.assert_allclose(out, x.reshape(2, 120) @ w + b, rtol=1e-13)
    assert decimals_error(out) == pytest.approx(9.7698e-10, rel=1e-4)


def test_affine():
    x, w, b, dout = course_randn((10, 2, 3), (6, 5), (5,), (10, 5))
    out, cache = layers.affine_forward(x, w, b)
    assert [a is b for a, b in zip(cache, (x, w, b), strict=True)] == [True] * 3
    dx, dw, db = layers.affine_backward(dout, cache)
    np.testing.assert_allclose(dx, (dout @ w.T).reshape(x.shape), rtol=1e-13)
    np.testing.assert_allclose(dw, x.reshape(10, 6).T @ dout, rtol=1e-12)
    np.testing.assert_allclose(db, dout.sum(axis=0), rtol=1e-13)
    assert out.flags.c_contiguous and dx.flags.c_contiguous and dw.flags.c_contiguous


@pytest.mark.parametrize(
    ("x", "w", "expected"), [("f4", "f4", "f4"), ("f8", "f4", "f8"), ("i4", "i4", "f8")]
)
def test_affine_dtypes(x, w, expected):
    x, w = np.arange(6).reshape(2, 3).astype(x), np.arange(12).reshape(3, 4).astype(w)
    out, cache = layers.affine_forward(x, w, np.zeros(4, w.dtype))
    np.testing.assert_array_equal(out, x @ w)
    gradients = layers.affine_backward(out, cache)
    assert {a.dtype for a in (out, *gradients)} == {np.dtype(expected)}


def test_notebook_relu():
    x = np.linspace(-0.5, 0.5, 12).reshape(3, 4)
    out, cache = layers.relu_forward(x)
    assert decimals_error(out) == pytest.approx(4.999999798022158e-08, rel=1e-7)
    (dout,) = course_randn((3, 4))
    np.testing.assert_array_equal(layers.relu_backward(dout, cache), np.where(x > 0, dout, 0))
    assert layers.relu_forward(np.array([-1, 2]))[0].dtype == np.float64


@pytest.mark.parametrize("loss", [layers.softmax_loss, layers.svm_loss])
def test_loss_gradients(loss):
    (x,) = course_randn((50, 10))
    x, y = 0.001 * x, np.arange(50) % 10
    value, dx = loss(x, y)
    numerical = check.eval_numerical_gradient(lambda x: loss(x, y)[0], x, verbose=False)
    assert rel_error(dx, numerical) < 2e-8
    assert value == pytest.approx({"softmax_loss": 2.3, "svm_loss": 9.0}[loss.__name__], rel=2e-3)


def test_losses_by_hand():
    scores, y = np.log([[1.0, 2.0, 5.0]]), np.array([1])
    loss, dx = layers.softmax_loss(scores, y)
    assert loss == pytest.approx(np.log(4))
    np.testing.assert_allclose(dx, [[0.125, -0.75, 0.625]])
    loss, dx = layers.svm_loss(np.array([[1.0, 2.0, 5.0], [9, 0, 0]]), np.array([1, 0]))
    assert loss == (4 + 0) / 2
    np.testing.assert_array_equal(dx, [[0, -0.5, 0.5], [0, 0, 0]])


def test_losses_of_huge_scores_are_finite():
    loss, dx = layers.softmax_loss(np.array([[1e4, -1e4]]), np.array([1]))
    assert loss == 2e4
    np.testing.assert_array_equal(dx, [[1, -1]])


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_dropout(dtype):
    x = np.full((200, 300), 10, dtype)
    param = {"mode": "train", "p": 0.3, "seed": 1}
    out, cache = layers.dropout_forward(x, param)
    assert out.dtype == dtype
    one = np.ones((), dtype)
    assert set(np.unique(out)) == {0, 10 * (one / 0.3)}
    assert np.mean(out > 0) == pytest.approx(0.3, abs=0.01)  # kept, not dropped
    np.testing.assert_array_equal(layers.dropout_forward(x, param)[0], out)  # the seed
    np.testing.assert_array_equal(layers.dropout_backward(x, cache), out)
    out, cache = layers.dropout_forward(x, {"mode": "test", "p": 0.3})
    np.testing.assert_array_equal(out, x)
    np.testing.assert_array_equal(layers.dropout_backward(x, cache), x)


def test_dropout_mask_is_the_course_s():
    """Drawn by np.random.rand after the seed, so that notebooks print the same."""
    x = np.ones((4, 5))
    _, (_, mask) = layers.dropout_forward(x, {"mode": "train", "p": 0.6, "seed": 123})
    drawn = np.random.RandomState(123).rand(4, 5) < 0.6
    np.testing.assert_allclose(mask, drawn / 0.6, rtol=1e-15)


@pytest.mark.parametrize("backward", [layers.batchnorm_backward, layers.batchnorm_backward_alt])
def test_batchnorm(backward):
    x, gamma, beta, dout = course_randn((4, 5), (5,), (5,), (4, 5))
    x = 5 * x + 12
    param = {"mode": "train"}
    out, cache = layers.batchnorm_forward(x, gamma, beta, param)
    x_hat = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5)
    np.testing.assert_allclose(out, gamma * x_hat + beta, rtol=1e-11, atol=1e-12)
    check_gradients(
        backward(dout, cache),
        (x, gamma, beta),
        lambda: layers.batchnorm_forward(x, gamma, beta, {"mode": "train"})[0],
        dout,
        1e-7,
    )


def test_batchnorm_running_statistics():
    x, more = course_randn((6, 3), (6, 3))
    ones, zeros = np.ones(3), np.zeros(3)
    param = {"mode": "train", "momentum": 0.75, "eps": 0.1}
    layers.batchnorm_forward(x, ones, zeros, param)
    first = param["running_mean"]
    np.testing.assert_allclose(first, x.mean(axis=0) / 4, rtol=1e-13)
    np.testing.assert_allclose(param["running_var"], x.var(axis=0) / 4, rtol=1e-13)  # biased
    layers.batchnorm_forward(more, ones, zeros, param)
    mean = 0.75 * first + 0.25 * more.mean(axis=0)
    var = (0.75 * x.var(axis=0) + more.var(axis=0)) / 4
    np.testing.assert_allclose(param["running_mean"], mean, rtol=1e-13)
    np.testing.assert_allclose(param["running_var"], var, rtol=1e-13)
    param["mode"] = "test"
    out, _ = layers.batchnorm_forward(x, 2 * ones, ones, param)
    np.testing.assert_allclose(out, 2 * (x - mean) / np.sqrt(var + 0.1) + 1, rtol=1e-12)
    np.testing.assert_allclose(param["running_mean"], mean, rtol=1e-13)  # as it was
    with pytest.raises(ValueError, match=r'^Invalid forward batchnorm mode "rest"$'):
        layers.batchnorm_forward(x, ones, zeros, {"mode": "rest"})


def test_layernorm():
    x, gamma, beta, dout = course_randn((4, 5), (5,), (5,), (4, 5))
    x = 5 * x + 12
    out, cache = layers.layernorm_forward(x, gamma, beta, {"eps": 1e-3})
    centered = x - x.mean(axis=1, keepdims=True)
    x_hat = centered / np.sqrt(x.var(axis=1, keepdims=True) + 1e-3)
    np.testing.assert_allclose(out, gamma * x_hat + beta, rtol=1e-11, atol=1e-12)
    check_gradients(
        layers.layernorm_backward(dout, cache),
        (x, gamma, beta),
        lambda: layers.layernorm_forward(x, gamma, beta, {"eps": 1e-3})[0],
        dout,
        1e-7,
    )


def test_notebook_spatial_batchnorm():
    (x,) = course_randn((2, 3, 4, 5))
    x = 4 * x + 10
    axes = (0, 2, 3)
    np.testing.assert_allclose(x.mean(axes), [9.33463814, 8.90909116, 9.11056338], rtol=1e-9)
    out, _ = layers.spatial_batchnorm_forward(x, np.ones(3), np.zeros(3), {"mode": "train"})
    np.testing.assert_allclose(out.mean(axes), 0, atol=1e-14)
    np.testing.assert_allclose(out.std(axes), [0.99999962, 0.99999951, 0.9999996], rtol=1e-8)
    gamma, beta = np.array([3, 4, 5]), np.array([6, 7, 8])
    out, _ = layers.spatial_batchnorm_forward(x, gamma, beta, {"mode": "train"})
    np.testing.assert_allclose(out.mean(axes), beta, rtol=1e-14)
    np.testing.assert_allclose(out.std(axes), [2.99999885, 3.99999804, 4.99999798], rtol=3e-9)


def test_notebook_spatial_batchnorm_in_test_mode():
    rng = np.random.RandomState(231)
    param = {"mode": "train"}
    for _ in range(50):
        x = 2.3 * rng.randn(10, 4, 11, 12) + 13
        layers.spatial_batchnorm_forward(x, np.ones(4), np.zeros(4), param)
    param["mode"] = "test"
    x = 2.3 * rng.randn(10, 4, 11, 12) + 13
    out, _ = layers.spatial_batchnorm_forward(x, np.ones(4), np.zeros(4), param)
    means, stds = out.mean((0, 2, 3)), out.std((0, 2, 3))
    known = [-0.08034406, 0.07562881, 0.05716371, 0.04378383]
    np.testing.assert_allclose(means, known, rtol=0, atol=5.1e-9)
    known = [0.96718744, 1.0299714, 1.02887624, 1.00585577]
    np.testing.assert_allclose(stds, known, rtol=0, atol=5.1e-9)


def test_spatial_batchnorm_gradients():
    x, gamma, beta, dout = course_randn((2, 3, 4, 5), (3,), (3,), (2, 3, 4, 5))
    _, cache = layers.spatial_batchnorm_forward(x, gamma, beta, {"mode": "train"})
    check_gradients(
        layers.spatial_batchnorm_backward(dout, cache),
        (x, gamma, beta),
        lambda: layers.spatial_batchnorm_forward(x, gamma, beta, {"mode": "train"})[0],
        dout,
        1e-6,
    )


def test_notebook_spatial_groupnorm():
    (x,) = course_randn((2, 6, 4, 5))
    x = 4 * x + 10
    known = [9.72505327, 8.51114185, 8.9147544, 9.43448077]
    np.testing.assert_allclose(x.reshape(4, -1).mean(axis=1), known, rtol=1e-9)
    gamma, beta = np.ones((1, 6, 1, 1)), np.zeros((1, 6, 1, 1))
    out, _ = layers.spatial_groupnorm_forward(x, gamma, beta, 2, {})
    groups = out.reshape(4, -1)
    np.testing.assert_allclose(groups.mean(axis=1), 0, atol=1e-14)
    known = [0.99999963, 0.99999948, 0.99999973, 0.99999968]
    np.testing.assert_allclose(groups.std(axis=1), known, rtol=0, atol=5.1e-9)


@pytest.mark.parametrize("shape", [(6,), (1, 6, 1, 1)], ids=str)
def test_spatial_groupnorm_gradients(shape):
    x, gamma, beta, dout = course_randn((2, 6, 4, 5), shape, shape, (2, 6, 4, 5))
    _, cache = layers.spatial_groupnorm_forward(x, gamma, beta, 2, {"eps": 1e-4})
    check_gradients(
        layers.spatial_groupnorm_backward(dout, cache),
        (x, gamma, beta),
        lambda: layers.spatial_groupnorm_forward(x, gamma, beta, 2, {"eps": 1e-4})[0],
        dout,
        1e-6,
    )


def test_what_is_no_plain_real_array_is_refused():
    masked, x = np.ma.masked_less(np.ones((2, 3)), 0), np.ones((2, 3))
    _, cache = layers.batchnorm_forward(x, np.ones(3), np.ones(3), {"mode": "train"})
    for call in (
        lambda: layers.affine_forward(masked, np.ones((3, 4)), np.ones(4)),
        lambda: layers.relu_backward(masked, x),
        lambda: layers.batchnorm_backward(masked, cache),
        lambda: layers.softmax_loss(masked, np.zeros(2, int)),
    ):
        with pytest.raises(TypeError, match="masked"):
            call()
    with pytest.raises(TypeError, match="complex128"):
        layers.affine_forward(1j * x, np.ones((3, 4)), np.ones(4))


def test_norms_are_lenient_with_dtypes():
    x = np.arange(24).reshape(4, 6)  # integers
    for dtype in ("f4", "f8"):
        gamma = np.ones(6, dtype)
        for out, cache, backward in (
            (*layers.batchnorm_forward(x, gamma, gamma, {"mode": "train"}), "batchnorm_backward"),
            (*layers.layernorm_forward(x, gamma, gamma, {}), "layernorm_backward"),
        ):
            gradients = getattr(layers, backward)(np.ones((4, 6), dtype), cache)
            assert {a.dtype for a in (out, *gradients)} == {np.dtype("f8")}


@pytest.mark.parametrize("stride", [1, 2])
def test_naive_layers_are_the_fast_ones_by_other_means(stride, monkeypatch):
    asked = []
    for name in ("conv2d", "conv_transpose2d_forward", "max_pool2d", "max_pool2d_forward"):
        function = getattr(cnnfast, name)

        def noted(*arguments, function=function, algorithm, **options):
            asked.append(algorithm)
            return function(*arguments, algorithm=algorithm, **options)

        monkeypatch.setattr(cnnfast, name, noted)
    rng = np.random.RandomState(0)
    x, w, b = rng.randn(2, 3, 7, 8), rng.randn(4, 3, 3, 2), rng.randn(4)
    param = {"stride": stride, "pad": 1}
    out, cache = layers.conv_forward_naive(x, w, b, param)
    assert [a is b for a, b in zip(cache, (x, w, b, param), strict=True)] == [True] * 4
    gradients = layers.conv_backward_naive(out, cache)
    pool = {"pool_height": 3, "pool_width": 2, "stride": stride}
    pooled, pool_cache = layers.max_pool_forward_naive(x, pool)
    assert pool_cache[0] is x and pool_cache[1] is pool
    dx = layers.max_pool_backward_naive(pooled, pool_cache)
    assert asked == ["naive"] * 4
    expected, fast_cache = conv_forward_fast(x, w, b, param)
    np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-13)
    for gradient, wanted in zip(gradients, conv_backward_fast(out, fast_cache), strict=True):
        np.testing.assert_allclose(gradient, wanted, rtol=1e-12, atol=1e-12)
    expected, fast_cache = max_pool_forward_fast(x, pool)
    np.testing.assert_array_equal(pooled, expected)
    wanted = max_pool_backward_fast(pooled, fast_cache)
    np.testing.assert_allclose(dx, wanted, rtol=1e-14)


def test_naive_pooling_gives_the_first_of_equal_maxima_all():
    _, cache = layers.max_pool_forward_naive(np.ones((1, 1, 2, 2)), POOL_2)
    dx = layers.max_pool_backward_naive(np.full((1, 1, 1, 1), 4), cache)
    np.testing.assert_array_equal(dx, [[[[4, 0], [0, 0]]]])


# Sandwich layers, against the layers they are made of.


def test_notebook_conv_relu():
    x, w, b, dout = course_randn((2, 3, 8, 8), (3, 3, 3, 3), (3,), (2, 3, 8, 8))
    _, cache = utils.conv_relu_forward(x, w, b, S1P1)
    check_gradients(
        utils.conv_relu_backward(dout, cache),
        (x, w, b),
        lambda: utils.conv_relu_forward(x, w, b, S1P1)[0],
        dout,
        3e-9,  # 1.5e-09, 2.7e-10, 1.5e-10
    )


def test_notebook_conv_relu_pool():
    x, w, b, dout = course_randn((2, 3, 16, 16), (3, 3, 3, 3), (3,), (2, 3, 8, 8))
    _, cache = utils.conv_relu_pool_forward(x, w, b, S1P1, POOL_2)
    check_gradients(
        utils.conv_relu_pool_backward(dout, cache),
        (x, w, b),
        lambda: utils.conv_relu_pool_forward(x, w, b, S1P1, POOL_2)[0],
        dout,
        2e-8,  # 9.59e-09, 5.80e-09, 1.01e-09
    )


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(
    "pool_param", [None, POOL_2, {"pool_height": 3, "pool_width": 2, "stride": 1}], ids=str
)
def test_conv_sandwiches_equal_their_layers(pool_param, dtype):
    """Small integers: many ties and zeros, and every sum exact."""
    rng = np.random.RandomState(0)
    x, w, b = (rng.randint(-2, 3, s).astype(dtype) for s in ((2, 3, 6, 8), (4, 3, 3, 3), (4,)))
    convolved, conv_cache = conv_forward_fast(x, w, b, S1P1)
    expected, relu_cache = layers.relu_forward(convolved)
    if pool_param is None:
        out, cache = utils.conv_relu_forward(x, w, b, S1P1)
    else:
        expected, pool_cache = max_pool_forward_fast(expected, pool_param)
        out, cache = utils.conv_relu_pool_forward(x, w, b, S1P1, pool_param)
    np.testing.assert_array_equal(out, expected)
    assert out.dtype == dtype
    dout = 12.0 * rng.randint(-4, 5, out.shape)  # shared by up to four without a rest
    slope = dout
    if pool_param is None:
        gradients = utils.conv_relu_backward(dout, cache)
    else:
        gradients = utils.conv_relu_pool_backward(dout, cache)
        slope = max_pool_backward_fast(slope, pool_cache)
    slope = layers.relu_backward(slope, relu_cache)
    for gradient, wanted in zip(gradients, conv_backward_fast(slope, conv_cache), strict=True):
        np.testing.assert_array_equal(gradient, wanted)


def test_affine_relu():
    x, w, b, dout = course_randn((2, 3, 4), (12, 10), (10,), (2, 10))
    out, cache = utils.affine_relu_forward(x, w, b)
    np.testing.assert_array_equal(out, np.maximum(layers.affine_forward(x, w, b)[0], 0))
    (fc_cache, _) = cache
    assert fc_cache[0] is x
    check_gradients(
        utils.affine_relu_backward(dout, cache),
        (x, w, b),
        lambda: utils.affine_relu_forward(x, w, b)[0],
        dout,
        1e-8,
    )


def test_conv_bn_relu():
    shapes = (2, 3, 4, 5), (4, 3, 3, 3), (4,), (4,), (4,), (2, 4, 4, 5)
    x, w, b, gamma, beta, dout = course_randn(*shapes)
    param = {"mode": "train"}
    out, cache = utils.conv_bn_relu_forward(x, w, b, gamma, beta, S1P1, param)
    assert (out == 0).any() and (out >= 0).all()
    assert param["running_mean"].shape == (4,)
    variables = x, w, b, gamma, beta
    gradients = utils.conv_bn_relu_backward(dout, cache)
    for place, (gradient, variable) in enumerate(zip(gradients, variables, strict=True)):
        numerical = check.eval_numerical_gradient_array(
            lambda _: utils.conv_bn_relu_forward(*variables, S1P1, {"mode": "train"})[0],
            variable,
            dout,
        )
        if place == 2:  # the norm takes every bias off again: both are 0 but for rounding
            np.testing.assert_allclose(gradient, 0, atol=1e-12)
            np.testing.assert_allclose(numerical, 0, atol=1e-8)
        else:
            np.testing.assert_allclose(gradient, numerical, rtol=1e-5, atol=1e-7)


# The network.


def test_notebook_three_layer_loss():
    np.random.seed(231)
    for shape in ((2, 3, 8, 8), (3, 3, 3, 3), (3,), (2, 3, 8, 8)):  # the cell before draws these
        np.random.randn(*shape)
    model = ThreeLayerConvNet()
    X, y = np.random.randn(50, 3, 32, 32), np.random.randint(10, size=50)
    loss, _ = model.loss(X, y)
    assert loss == pytest.approx(2.302586071243987, rel=1e-13)
    model.reg = 0.5
    loss, _ = model.loss(X, y)
    # The weights are float32, and so is the sum of their squares.
    assert loss == pytest.approx(2.508255638232932, rel=3e-8)


def test_notebook_three_layer_gradients():
    np.random.seed(231)
    X, y = np.random.randn(2, 3, 16, 16), np.random.randint(10, size=2)
    model = ThreeLayerConvNet((3, 16, 16), 3, 3, 7, dtype=np.float64)
    _, grads = model.loss(X, y)
    # The distances are rounding; b1's is 3.4e-6 or 3.5e-5, by the order in which a loss is summed.
    published = {"W1": 3.1e-4, "W2": 1.9e-2, "W3": 3.5e-4, "b1": 3.5e-5, "b2": 2.6e-3, "b3": 1e-9}
    for name, bound in published.items():
        numerical = check.eval_numerical_gradient(
            lambda _: model.loss(X, y)[0], model.params[name], verbose=False, h=1e-6
        )
        assert rel_error(numerical, grads[name]) < 1.5 * bound, name


def small_net(dtype=np.float64, **options):
    np.random.seed(0)
    options = {"weight_scale": 0.1, "dtype": dtype} | options
    model = ThreeLayerConvNet((3, 8, 6), 4, 3, 5, 3, **options)
    return model, np.random.randn(7, 3, 8, 6), np.random.randint(3, size=7)


def test_three_layer_shapes_and_draws():
    model, X, _ = small_net(weight_scale=2.0)
    shapes = {name: w.shape for name, w in model.params.items()}
    assert shapes == {
        **{"W1": (4, 3, 3, 3), "b1": (4,), "W2": (4 * 4 * 3, 5), "b2": (5,)},
        **{"W3": (5, 3), "b3": (3,)},
    }
    np.testing.assert_array_equal(
        model.params["W1"], 2 * np.random.RandomState(0).randn(4, 3, 3, 3)
    )
    assert model.loss(X).shape == (7, 3)


def test_three_layer_regularisation_is_in_loss_and_gradients():
    model, X, y = small_net(reg=0.7)
    _, grads = model.loss(X, y)
    for name, grad in grads.items():
        numerical = check.eval_numerical_gradient(
            lambda _: model.loss(X, y)[0], model.params[name], verbose=False
        )
        np.testing.assert_allclose(grad, numerical, rtol=1e-6, atol=1e-9)


def test_three_layer_equals_the_course_s_composition():
    """Convolve, ReLU, pool, one after the other, and the whole backward pass."""
    model, X, y = small_net()
    W1, b1, W2, b2, W3, b3 = (model.params[n + k] for k in "123" for n in "Wb")
    convolved, conv_cache = conv_forward_fast(X, W1, b1, S1P1)
    rectified, relu_cache = layers.relu_forward(convolved)
    pooled, pool_cache = max_pool_forward_fast(rectified, POOL_2)
    hidden, fc_cache = layers.affine_forward(pooled, W2, b2)
    active, active_cache = layers.relu_forward(hidden)
    scores, scores_cache = layers.affine_forward(active, W3, b3)
    expected, dscores = layers.softmax_loss(scores, y)
    dactive, dW3, db3 = layers.affine_backward(dscores, scores_cache)
    dpooled, dW2, db2 = layers.affine_backward(
        layers.relu_backward(dactive, active_cache), fc_cache
    )
    drectified = max_pool_backward_fast(dpooled, pool_cache)
    _, dW1, db1 = conv_backward_fast(layers.relu_backward(drectified, relu_cache), conv_cache)
    loss, grads = model.loss(X, y)
    assert loss == pytest.approx(expected, rel=1e-14)
    wanted = {"W1": dW1, "b1": db1, "W2": dW2, "b2": db2, "W3": dW3, "b3": db3}
    assert grads.keys() == wanted.keys()
    for name, grad in grads.items():
        np.testing.assert_allclose(grad, wanted[name], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    ("weights", "images", "expected"),
    [("f4", "f4", "f4"), ("f4", "f8", "f8"), ("f8", "f8", "f8"), ("f4", "u1", "f4")],
)
def test_three_layer_dtypes(weights, images, expected):
    model, X, y = small_net(weights)
    X = (20 * abs(X)).astype(images)
    loss, grads = model.loss(X, y)
    assert {grad.dtype for grad in grads.values()} == {np.dtype(expected)}
    assert model.loss(X).dtype == expected
    model.params = {name: w.astype("f8") for name, w in model.params.items()}
    true_loss, true_grads = model.loss(X.astype("f8"), y)
    tolerance = {"f4": 1e-4, "f8": 1e-11}[expected]
    assert loss == pytest.approx(true_loss, rel=tolerance)
    for name, grad in grads.items():
        np.testing.assert_allclose(grad, true_grads[name], rtol=tolerance, atol=tolerance)


# Numerical gradients.


def test_eval_numerical_gradient(capsys):
    x = np.array([[1.0, -2.0], [0.5, 3.0]])
    grad = check.eval_numerical_gradient(lambda x: (x**3).sum(), x)
    np.testing.assert_allclose(grad, 3 * x**2, rtol=1e-8)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(")")[0] for line in lines] == ["(0, 0", "(0, 1", "(1, 0", "(1, 1"]
    check.eval_numerical_gradient(lambda x: x.sum(), x, verbose=False)
    assert not capsys.readouterr().out


def test_numerical_gradients_see_x_changed_in_place():
    x, df = np.array([1.0, 2.0]), np.array([3.0, 5.0])
    grad = check.eval_numerical_gradient_array(lambda _: x**2, x, df, h=1e-4)
    np.testing.assert_allclose(grad, 2 * x * df, rtol=1e-9)
    held = np.zeros(2)

    def writes_into_the_same_array(x):
        held[:] = x**2
        return held

    grad = check.eval_numerical_gradient_array(writes_into_the_same_array, x, df)
    np.testing.assert_allclose(grad, 2 * x * df, rtol=1e-9)


def test_numerical_gradient_leaves_x_as_it_was():
    x = np.array([0.1, 0.2])

    def fails_at_the_second(x):
        if x[1] != 0.2:
            raise RuntimeError("the student's")
        return x.sum()

    with pytest.raises(RuntimeError, match="the student's"):
        check.eval_numerical_gradient(fails_at_the_second, x, verbose=False)
    np.testing.assert_array_equal(x, [0.1, 0.2])


class Blob:
    def __init__(self, vals, diffs):
        self.vals, self.diffs = vals, diffs


def test_numerical_gradients_of_blobs_and_net():
    rng = np.random.RandomState(0)
    a, b, out = (Blob(rng.randn(2, 3), rng.randn(2, 3)) for _ in range(3))

    def product(a, b, out):
        out.vals = a.vals * b.vals**2

    class Net:
        def forward(self):
            product(a, b, out)

    for grads in (
        check.eval_numerical_gradient_blobs(product, (a, b), out),
        check.eval_numerical_gradient_net(Net(), (a, b), out),
    ):
        np.testing.assert_allclose(grads[0], out.diffs * b.vals**2, rtol=1e-8)
        np.testing.assert_allclose(grads[1], out.diffs * 2 * a.vals * b.vals, rtol=1e-8)


def test_grad_check_sparse(capsys):
    x = np.array([[1.0, 2.0], [0.0, 0.0]])
    check.grad_check_sparse(lambda x: (x**2).sum(), x, 2 * x, num_checks=30)
    check.grad_check_sparse(lambda x: (x**2).sum(), x, 3 * x + 1, num_checks=5)
    lines = capsys.readouterr().out.splitlines()
    errors = [float(line.rsplit(" ", 1)[1]) for line in lines]
    assert max(errors[:30]) < 1e-9 < 0.1 < min(errors[30:])
    assert lines[0].startswith("numerical: ") and " analytic: " in lines[0]


# Update rules.

SIZE = 4, 5


def course_arrays(*ends):
    return [np.linspace(*pair, 20).reshape(SIZE) for pair in ends]


def test_notebook_update_rules():
    w, dw, cache, v = course_arrays((-0.4, 0.6), (-0.6, 0.4), (0.6, 0.9), (0.7, 0.5))
    settings = {"learning_rate": 1e-3, "velocity": cache.copy()}
    moved, config = optim.sgd_momentum(w, dw, settings)
    assert decimals_error(moved) == pytest.approx(8.882347033505819e-09, rel=1e-6)
    assert decimals_error(config["velocity"]) == pytest.approx(4.269287743278663e-09, rel=1e-6)
    moved, config = optim.rmsprop(w, dw, {"learning_rate": 1e-2, "cache": cache.copy()})
    assert decimals_error(moved) == pytest.approx(9.524687511038133e-08, rel=1e-6)
    assert decimals_error(config["cache"]) == pytest.approx(2.6477955807156126e-09, rel=1e-6)
    settings = {"learning_rate": 1e-2, "m": cache.copy(), "v": v, "t": 5}
    moved, config = optim.adam(w, dw, settings)
    assert decimals_error(moved) == pytest.approx(1.1395691798535431e-07, rel=1e-6)
    assert decimals_error(config["v"]) == pytest.approx(4.208314038113071e-09, rel=1e-6)
    assert decimals_error(config["m"]) == pytest.approx(4.214963193114416e-09, rel=1e-6)


def steps_by_formula(rule, w, gradients):
    """The rules as they are written, with their default settings."""
    velocity = cache = m = v = 0
    for t, dw in enumerate(gradients, 1):
        if rule == "sgd":
            w = w - 1e-2 * dw
        elif rule == "sgd_momentum":
            velocity = 0.9 * velocity - 1e-2 * dw
            w = w + velocity
        elif rule == "rmsprop":
            cache = 0.99 * cache + 0.01 * dw**2
            w = w - 1e-2 * dw / (np.sqrt(cache) + 1e-8)
        else:
            m, v = 0.9 * m + 0.1 * dw, 0.999 * v + 0.001 * dw**2
            w = w - 1e-3 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w


@pytest.mark.parametrize("rule", ["sgd", "sgd_momentum", "rmsprop", "adam"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_update_rules(rule, dtype):
    rng = np.random.RandomState(0)
    w, gradients = rng.randn(3, 4).astype(dtype), rng.randn(6, 3, 4)
    expected = steps_by_formula(rule, w.astype("f8"), gradients)
    config = None
    for dw in gradients:  # float64, as from float64 images
        w, config = getattr(optim, rule)(w, dw, config)
    assert w.dtype == dtype
    np.testing.assert_allclose(w, expected, rtol={"f4": 1e-5, "f8": 1e-12}[dtype])


def test_sgd_moves_w_in_place_and_the_others_do_not():
    for rule, changed in ((optim.sgd, True), (optim.sgd_momentum, False), (optim.adam, False)):
        w = np.ones(2)
        moved, _ = rule(w, np.ones(2))
        assert (moved is w) == changed
        assert (w == 1).all() != changed


# Solver.


class Linear:
    """The smallest model: scores = X @ W."""

    def __init__(self, dtype=np.float64):
        self.params = {"W": np.zeros((4, 3), dtype)}

    def loss(self, X, y=None):
        scores = X @ self.params["W"]
        if y is None:
            return scores
        loss, dscores = layers.softmax_loss(scores, y)
        return loss, {"W": X.T @ dscores}


def clusters(count):
    rng = np.random.RandomState(1)
    y = rng.randint(3, size=count)
    return np.eye(4)[y] + 0.5 * rng.randn(count, 4), y


def data():
    (X, y), (X_val, y_val) = clusters(90), clusters(35)
    return {"X_train": X, "y_train": y, "X_val": X_val, "y_val": y_val}


def test_solver_asks_the_generator_as_the_course_does():
    """One choice a step and one a training accuracy, so that a seed gives the same batches."""
    solver = Solver(
        Linear(), data(), batch_size=20, num_epochs=3, num_train_samples=50, verbose=False
    )
    np.random.seed(3)
    solver.train()
    known, model, losses, accuracies = data(), Linear(), [], []
    rng = np.random.RandomState(3)
    for t in range(12):
        batch = rng.choice(90, 20)
        loss, grads = model.loss(known["X_train"][batch], known["y_train"][batch])
        losses.append(loss)
        model.params["W"] = model.params["W"] - 1e-2 * grads["W"]
        if t in (0, 3, 7, 11):
            some = rng.choice(90, 50)
            guess = model.loss(known["X_train"][some]).argmax(axis=1)
            accuracies.append(np.mean(guess == known["y_train"][some]))
    assert solver.loss_history == pytest.approx(losses, rel=1e-12)
    assert solver.train_acc_history == accuracies
    assert len(solver.val_acc_history) == 4
    assert solver.epoch == 3
    assert solver.best_val_acc == max(solver.val_acc_history)


def test_solver_leaves_the_best_parameters_in_the_model():
    solver = Solver(
        Linear(), data(), update_rule="adam", optim_config={"learning_rate": 0.1}, verbose=False
    )
    np.random.seed(0)
    solver.train()
    known = data()
    accuracy = solver.check_accuracy(known["X_val"], known["y_val"], batch_size=8)
    assert accuracy == solver.best_val_acc > 0.8
    assert solver.model.params is solver.best_params


def test_solver_decays_the_rate_of_every_parameter_by_its_own():
    settings = {"learning_rate": 1.0}
    solver = Solver(
        Linear(), data(), optim_config=settings, lr_decay=0.5, num_epochs=3, verbose=False
    )
    solver.train()
    assert solver.optim_configs["W"]["learning_rate"] == 0.125
    assert settings == {"learning_rate": 1.0}


def test_solver_prints_as_the_course_does(capsys):
    np.random.seed(0)
    options = {"batch_size": 45, "num_epochs": 2, "print_every": 3}
    Solver(Linear(), data(), **options).train()
    lines = capsys.readouterr().out.splitlines()
    starts = ["(Iteration 1 / 4) loss: 1.0986", "(Epoch 0 / 2) train acc: ", "(Epoch 1 / 2) train"]
    starts += ["(Iteration 4 / 4) loss: ", "(Epoch 2 / 2) train acc: "]
    assert len(lines) == len(starts)
    assert all(line.startswith(start) for line, start in zip(lines, starts, strict=True))
    assert "; val_acc: 0." in lines[1]


def test_solver_checkpoints_can_be_read_without_classes(tmp_path, capsys):
    name = tmp_path / "run"
    solver = Solver(Linear("f4"), data(), checkpoint_name=str(name), num_epochs=2)
    solver.train()
    assert f'Saving checkpoint to "{name}_epoch_2.npz"' in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"run_epoch_{n}.npz" for n in (1, 2)]
    with np.load(f"{name}_epoch_2.npz") as saved:  # allow_pickle is False
        assert saved["epoch"] == 2
        assert saved["params.W"].shape == (4, 3) and saved["params.W"].dtype == np.float32
        np.testing.assert_array_equal(saved["loss_history"], solver.loss_history)
        np.testing.assert_array_equal(saved["val_acc_history"], solver.val_acc_history)


def test_solver_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match=r'^Unrecognized arguments "learning_rate", "epochs"$'):
        Solver(Linear(), data(), learning_rate=1, epochs=3)
    for rule in ("nesterov", "np"):
        with pytest.raises(ValueError, match=f'^Invalid update_rule "{rule}"$'):
            Solver(Linear(), data(), update_rule=rule)


def test_solver_trains_the_network_on_few_images():
    """The notebook's check: a good network learns 50 images by heart."""
    np.random.seed(231)
    X, y = np.random.randn(50, 3, 16, 16).astype("f4"), np.random.randint(10, size=50)
    model = ThreeLayerConvNet((3, 16, 16), 8, 3, 50, weight_scale=0.1)
    known = {"X_train": X, "y_train": y, "X_val": X, "y_val": y}
    solver = Solver(
        model,
        known,
        num_epochs=15,
        batch_size=10,
        update_rule="adam",
        optim_config={"learning_rate": 3e-3},
        verbose=False,
    )
    solver.train()
    assert solver.best_val_acc == 1
    assert {w.dtype for w in model.params.values()} == {np.dtype("f4")}
