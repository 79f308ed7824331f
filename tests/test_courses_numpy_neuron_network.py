"""The numpy_neuron_network drop-ins against loops and the numbers of repository and articles."""

from __future__ import annotations

from types import SimpleNamespace

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

from cnnfast.courses import numpy_neuron_network as course

CONVS = {  # z.shape, K.shape, padding, strides
    "article": ((3, 3, 8, 8), (3, 4, 3, 3), (0, 0), (1, 1)),
    "same": ((2, 3, 5, 5), (3, 2, 3, 3), (1, 1), (1, 1)),
    "two-strides": ((2, 2, 6, 7), (2, 3, 2, 3), (0, 1), (2, 3)),
    "wide-kernel": ((1, 2, 4, 6), (2, 3, 1, 4), (0, 2), (1, 2)),
    "much-padding": ((2, 1, 2, 3), (1, 2, 2, 2), (3, 2), (2, 1)),
}
POOLS = {  # z.shape, pooling, strides, padding
    "default": ((2, 3, 4, 6), (2, 2), (2, 2), (0, 0)),
    "overlapping": ((2, 2, 5, 5), (3, 2), (1, 2), (0, 0)),
    "floored": ((1, 3, 6, 7), (2, 3), (3, 2), (0, 0)),
    "padded": ((2, 2, 4, 5), (3, 3), (2, 2), (1, 2)),
    "windows-in-padding": ((1, 2, 2, 2), (2, 2), (2, 2), (2, 2)),
}


def cases(table):
    return pytest.mark.parametrize("case", table.values(), ids=table)


def windows(shape, window, strides):
    """Each output place with its rows and columns of the padded image."""
    KH, KW = window
    for h, w in np.ndindex(*((shape[2 + i] - window[i]) // strides[i] + 1 for i in (0, 1))):
        top, left = h * strides[0], w * strides[1]
        yield h, w, slice(top, top + KH), slice(left, left + KW)


def framed(z, padding):
    return np.pad(z, ((0, 0), (0, 0), padding[:1] * 2, padding[1:] * 2))


def conv_naive(z, K, b, padding, strides):
    image = framed(z, padding)
    places = list(windows(image.shape, K.shape[2:], strides))
    y = np.empty((len(z), K.shape[1], places[-1][0] + 1, places[-1][1] + 1))
    for h, w, rows, columns in places:
        y[:, :, h, w] = np.tensordot(image[:, :, rows, columns], K, ((1, 2, 3), (0, 2, 3))) + b
    return y


def pool_naive(z, pooling, strides, padding, of_window):
    image = framed(z, padding)
    places = list(windows(image.shape, pooling, strides))
    y = np.empty((*z.shape[:2], places[-1][0] + 1, places[-1][1] + 1))
    for h, w, rows, columns in places:
        y[:, :, h, w] = of_window(image[:, :, rows, columns], axis=(2, 3))
    return y


# Names.


def test_star_import_brings_the_functions_of_the_course_and_no_other():
    own = ["np", "Conv2D", "Model", "promote", "cnnfast", "_insert_zeros", "VGG"]
    pairs = ("conv", "max_pooling", "avg_pooling", "global_max_pooling", "global_avg_pooling")
    pairs += ("flatten", "fc", "sigmoid", "tanh", "relu", "lrelu", "prelu", "elu", "selu")
    assert star_names("cnnfast.courses.numpy_neuron_network", own) == {
        *(f"{name}_{way}" for name in pairs for way in ("forward", "backward")),
        *("prelu_backwark", "mean_squared_loss", "cross_entropy_loss"),
        *("SGD", "AdaGrad", "RmsProp", "Adadelta", "Adam"),
    }


# The repository's assertions and the article's training.


def test_ones():
    y = course.conv_forward(np.ones((8, 16, 5, 5)), np.ones((16, 32, 3, 3)), np.ones(32))
    np.testing.assert_array_equal(y, np.full((8, 32, 3, 3), 145.0))


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (3, 3)),
        ({"padding": (1, 1)}, (5, 5)),
        ({"strides": (2, 2)}, (2, 2)),
        ({"strides": (2, 2), "padding": (1, 1)}, (3, 3)),
        ({"strides": (2, 2), "padding": (1, 0)}, (3, 2)),
        ({"strides": (2, 1), "padding": (1, 1)}, (3, 5)),
    ],
)
def test_single_channel_sizes(options, shape):
    y = course._single_channel_conv(np.ones((5, 5)), np.ones((3, 3)), 3, **options)
    assert y.shape == shape
    assert y.max() == 12


@pytest.mark.parametrize(
    ("strides", "shape"), [((1, 1), (3, 3)), ((1, 2), (3, 5)), ((2, 2), (5, 5)), ((2, 4), (5, 9))]
)
def test_insert_zeros(strides, shape):
    (dz,) = numbers(0, (1, 1, 3, 3))
    spread = course._insert_zeros(dz, strides)
    assert spread.shape == (1, 1, *shape)
    np.testing.assert_array_equal(spread[:, :, :: strides[0], :: strides[1]], dz)
    assert np.count_nonzero(spread) == 9


@pytest.mark.parametrize("padding", [(0, 0), (2, 0), (0, 1), (1, 2)])
def test_remove_padding(padding):
    (z,) = numbers(1, (2, 3, 4, 5))
    np.testing.assert_array_equal(course._remove_padding(framed(z, padding), padding), z)


PRINTED_LOSSES = [  # of the article's run, whose random numbers have no seed
    *(564.3438940391925, 66.17172343756643, 9.198997813124956, 1.4069519751440192),
    *(0.2291942712009542, 0.03908173551298978, 0.0069035446737729855, 0.0012548420117566993),
    *(0.0002336212264014327, 4.439647286022715e-05, 8.588536282082359e-06, 1.6875253762932353e-06),
    *(3.3613308537260323e-07, 6.776104204755497e-08, 1.380456978130391e-08, 2.838444613389672e-09),
    *(5.883808721904564e-10, 1.228345750173361e-10),
]


@pytest.mark.parametrize("seed", range(6))
def test_article_training(seed):
    """18 steps in the article; 18 to 20 here, whose first losses lie around the article's."""
    rng = np.random.RandomState(seed)
    z, K, b = rng.randn(3, 3, 28, 28), rng.randn(3, 4, 3, 3), np.zeros(4)
    y_true, losses = np.ones((3, 4, 26, 26)), []
    for _ in range(1000):
        next_z = course.conv_forward(z, K, b)
        loss, dy = course.mean_squared_loss(next_z, y_true)
        dK, db, _ = course.conv_backward(dy, K, z)
        K -= 0.001 * dK
        b -= 0.001 * db
        losses.append(loss)
        if np.allclose(y_true, next_z):
            break
    assert 18 <= len(losses) <= 20
    assert 578 <= losses[0] <= 845.5
    assert losses[-1] < 1e-9
    assert abs(next_z - 1).max() < 1.001e-5
    # The printed losses fall as these do: each is a sixth to a tenth of the one before.
    falls = np.array(losses[1:18]) / losses[:17]
    printed = np.array(PRINTED_LOSSES[1:]) / PRINTED_LOSSES[:-1]
    np.testing.assert_allclose(falls, printed, rtol=0.35)


# Convolution against loops and numerical gradients.


@cases(CONVS)
def test_conv_forward(case):
    z_shape, K_shape, padding, strides = case
    z, K, b = numbers(2, z_shape, K_shape, K_shape[1:2])
    y = course.conv_forward(z, K, b, padding, strides)
    np.testing.assert_allclose(y, conv_naive(z, K, b, padding, strides), rtol=1e-12, atol=1e-12)


@cases(CONVS)
def test_conv_backward_divides_what_is_of_weights_by_n(case):
    z_shape, K_shape, padding, strides = case
    z, K, b = numbers(3, z_shape, K_shape, K_shape[1:2])
    (next_dz,) = numbers(4, conv_naive(z, K, b, padding, strides).shape)
    gradients = course.conv_backward(next_dz, K, z, padding, strides)
    for gradient, variable, count in zip(gradients, (K, b, z), (len(z), len(z), 1), strict=True):
        expected = numerical_gradient(
            lambda: conv_naive(z, K, b, padding, strides), variable, next_dz, h=1e-4
        )
        assert gradient.flags.c_contiguous
        np.testing.assert_allclose(gradient * count, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("padding", [1, 2])
def test_the_dk_of_the_course_is_the_centre_of_ours(padding):
    """The course leaves the padding of z out, so that only taps that never meet it remain."""
    z, K = numbers(5, (2, 3, 7, 7), (3, 2, 5, 5))
    (next_dz,) = numbers(6, (2, 2, 3 + 2 * padding, 3 + 2 * padding))
    dK, _, _ = course.conv_backward(next_dz, K, z, (padding, padding))
    swapped, size = z.swapaxes(0, 1), 5 - 2 * padding
    centre = conv_naive(swapped, next_dz, np.zeros(2), (0, 0), (1, 1)) / len(z)
    assert dK.shape == K.shape and centre.shape == (3, 2, size, size)
    inner = slice(padding, 5 - padding)
    np.testing.assert_allclose(dK[:, :, inner, inner], centre, rtol=1e-12)


# Pooling.

OF_WINDOW = {"max": np.max, "avg": np.mean}


@pytest.mark.parametrize("kind", OF_WINDOW)
@cases(POOLS)
def test_pools(case, kind):
    shape, pooling, strides, padding = case
    forward = getattr(course, f"{kind}_pooling_forward")
    backward = getattr(course, f"{kind}_pooling_backward")
    (z,) = numbers(7, shape)

    def naive():
        return pool_naive(z, pooling, strides, padding, OF_WINDOW[kind])

    y = forward(z, pooling, strides, padding)
    np.testing.assert_allclose(y, naive(), rtol=1e-13, atol=1e-13)
    (next_dz,) = numbers(8, y.shape)
    dz = backward(next_dz, z, pooling, strides, padding)
    np.testing.assert_allclose(dz, numerical_gradient(naive, z, next_dz), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", OF_WINDOW)
def test_global_pools(kind):
    forward = getattr(course, f"global_{kind}_pooling_forward")
    backward = getattr(course, f"global_{kind}_pooling_backward")
    z, next_dz = numbers(9, (2, 3, 4, 5), (2, 3))
    np.testing.assert_allclose(forward(z), OF_WINDOW[kind](z, axis=(2, 3)), rtol=1e-13)
    expected = numerical_gradient(lambda: OF_WINDOW[kind](z, axis=(2, 3)), z, next_dz)
    np.testing.assert_allclose(backward(next_dz, z), expected, rtol=1e-8, atol=1e-8)


def test_pools_are_padded_with_zeros():
    z = np.full((1, 1, 2, 2), -4.0)
    np.testing.assert_array_equal(course.max_pooling_forward(z, (2, 2), padding=(1, 1)), 0)
    np.testing.assert_array_equal(course.avg_pooling_forward(z, (2, 2), padding=(1, 1)), -1)
    ones = np.ones((1, 1, 2, 2))
    assert not course.max_pooling_backward(ones, z, (2, 2), padding=(1, 1)).any()


def test_the_first_of_equal_maxima_wins():
    z, next_dz = np.ones((1, 1, 2, 2)), np.full((1, 1, 1, 1), 3.0)
    for dz in (
        course.max_pooling_backward(next_dz, z, (2, 2)),
        course.global_max_pooling_backward(next_dz[:, :, 0, 0], z),
    ):
        np.testing.assert_array_equal(dz.ravel(), [3, 0, 0, 0])


# Fully connected layers and losses.


def test_flatten():
    (z,) = numbers(10, (2, 3, 4, 5))
    rows = course.flatten_forward(z)
    np.testing.assert_array_equal(rows, z.reshape(2, 60))
    np.testing.assert_array_equal(course.flatten_backward(rows, z), z)
    assert course.flatten_forward(np.ones((0, 3, 4))).shape == (0, 12)


def test_fc():
    z, W, b, next_dz = numbers(11, (4, 5), (5, 3), (3,), (4, 3))
    np.testing.assert_allclose(course.fc_forward(z, W, b), z @ W + b, rtol=1e-13, atol=1e-13)
    gradients = course.fc_backward(next_dz, W, z)
    for gradient, variable, count in zip(gradients, (W, b, z), (4, 4, 1), strict=True):
        expected = numerical_gradient(lambda: z @ W + b, variable, next_dz)
        np.testing.assert_allclose(gradient * count, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("shape", [(4, 3), (3, 4, 6, 6)], ids=["rows", "images"])
def test_mean_squared_loss(shape):
    y_predict, y_true = numbers(12, shape, shape)
    loss, dy = course.mean_squared_loss(y_predict, y_true)
    assert loss == pytest.approx(((y_predict - y_true) ** 2).sum(axis=-1).mean())
    np.testing.assert_array_equal(dy, y_predict - y_true)


def test_cross_entropy_loss():
    (y_predict,) = numbers(13, (4, 3))
    y_true = np.eye(3)[[0, 2, 1, 2]]
    loss, dy = course.cross_entropy_loss(y_predict, y_true)
    p = np.exp(y_predict) / np.exp(y_predict).sum(axis=1, keepdims=True)
    assert loss == pytest.approx(-np.log(p[range(4), [0, 2, 1, 2]]).mean())
    np.testing.assert_allclose(dy, p - y_true, rtol=1e-12)
    numerical = numerical_gradient(
        lambda: course.cross_entropy_loss(y_predict, y_true)[0], y_predict, 1
    )
    np.testing.assert_allclose(dy / 4, numerical, rtol=1e-7, atol=1e-9)


def test_cross_entropy_of_an_impossible_class_is_finite():
    loss, dy = course.cross_entropy_loss(np.array([[0.0, 2000.0]]), np.array([[1.0, 0.0]]))
    assert loss == 2000
    np.testing.assert_array_equal(dy, [[-1, 1]])


# Activations.

ALPHA = numbers(14, (3, 4))[0]
ACTIVATIONS = {  # name: more arguments, the formula where z > 0 and where z <= 0
    "sigmoid": ((), lambda z: 1 / (1 + np.exp(-z)), lambda z: 1 / (1 + np.exp(-z))),
    "tanh": ((), np.tanh, np.tanh),
    "relu": ((), lambda z: z, lambda z: 0 * z),
    "lrelu": ((), lambda z: z, lambda z: 0.1 * z),
    "prelu": ((ALPHA,), lambda z: z, lambda z: ALPHA * z),
    "elu": ((), lambda z: z, lambda z: 0.1 * (np.exp(z) - 1)),
    "selu": (
        (),
        lambda z: 1.0507009873554805 * z,
        lambda z: 1.0507009873554805 * 1.6732632423543772 * (np.exp(z) - 1),
    ),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    more, above, below = ACTIVATIONS[name]
    z, next_dz = numbers(15, (3, 4), (3, 4))

    def formula():
        return np.where(z > 0, above(z), below(z))

    y = getattr(course, f"{name}_forward")(z, *more)
    np.testing.assert_allclose(y, formula(), rtol=1e-12, atol=1e-15)
    dz = getattr(course, f"{name}_backward")(next_dz, z, *more)
    dz = dz[1] if name == "prelu" else dz
    np.testing.assert_allclose(dz, numerical_gradient(formula, z, next_dz), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_at_the_ends(name):
    """Nothing overflows, and 0 is on the side of z <= 0."""
    more, _, below = ACTIVATIONS[name]
    z = np.array([-1e300, -1000.0, 0.0, 1000.0])
    if name == "prelu":
        more, below = (0.5,), lambda z: 0.5 * z
    assert np.isfinite(getattr(course, f"{name}_forward")(z, *more)).all()
    slopes = getattr(course, f"{name}_backward")(np.ones(4), z, *more)
    slopes = slopes[1] if name == "prelu" else slopes
    assert np.isfinite(slopes).all()
    assert slopes[2] == pytest.approx((below(1e-9) - below(-1e-9)) / 2e-9, abs=1e-6)


def test_prelu_alpha_is_learnt():
    z, next_dz = numbers(16, (3, 4), (3, 4))
    alpha = ALPHA.copy()
    dalpha, _ = course.prelu_backward(next_dz, z, alpha)
    expected = numerical_gradient(lambda: np.where(z > 0, z, alpha * z), alpha, next_dz)
    np.testing.assert_allclose(dalpha, expected, rtol=1e-8, atol=1e-9)
    assert course.prelu_backwark is course.prelu_backward


# Optimisers, against their papers' formulas on numbers.


def sgd(w, g, memory, t, lr=0.01, momentum=0.9):
    memory["v"] = momentum * memory.get("v", 0) + lr / (1 + t * 1e-5) * g
    return w - memory["v"]


def adagrad(w, g, memory, t):
    memory["s"] = memory.get("s", 0) + g**2
    return w - 0.01 / (memory["s"] + 1e-6) ** 0.5 * g


def rmsprop(w, g, memory, t):
    memory["s"] = 0.9 * memory.get("s", 0) + 0.1 * g**2
    return w - 0.01 / (memory["s"] + 1e-6) ** 0.5 * g


def adadelta(w, g, memory, t):
    memory["s"] = 0.95 * memory.get("s", 0) + 0.05 * g**2
    step = ((memory.get("d", 0) + 1e-6) / (memory["s"] + 1e-6)) ** 0.5 * g
    memory["d"] = 0.95 * memory.get("d", 0) + 0.05 * step**2
    return w - step


def adam(w, g, memory, t):
    memory["m"] = 0.9 * memory.get("m", 0) + 0.1 * g
    memory["v"] = 0.999 * memory.get("v", 0) + 0.001 * g**2
    m, v = memory["m"] / (1 - 0.9 ** (t + 1)), memory["v"] / (1 - 0.999 ** (t + 1))
    return w - 0.001 * m / (v**0.5 + 1e-8)


FORMULAS = {
    course.SGD: sgd,
    course.AdaGrad: adagrad,
    course.RmsProp: rmsprop,
    course.Adadelta: adadelta,
    course.Adam: adam,
}


@pytest.mark.parametrize("optimizer", FORMULAS, ids=lambda each: each.__name__)
def test_optimizers(optimizer):
    w = 1.5
    weights, memory = {"W": np.array([w, 7.0]), "b": np.zeros(2)}, {}
    steps = optimizer(weights)
    for t, g in enumerate([0.3, -2.0, 0.1, 0.5]):
        w = FORMULAS[optimizer](w, g, memory, t)
        given = steps.iterate(weights, {"W": np.array([g, 0.0]), "b": np.array([0.0, g])})
        assert given is weights
        assert weights["W"][0] == pytest.approx(w, rel=1e-12)
        assert weights["W"][1] == 7 and weights["b"][0] == 0
        assert weights["b"][1] == pytest.approx(w - 1.5, rel=1e-9)
    assert steps.iterations == 4


@pytest.mark.parametrize("optimizer", FORMULAS, ids=lambda each: each.__name__)
def test_optimizers_take_a_model_and_change_its_arrays_in_place(optimizer):
    layers = [
        SimpleNamespace(weights={name: np.ones(3)}, gradients={name: np.full(3, slope)})
        for name, slope in (("a", 1.0), ("b", -1.0))
    ]
    arrays = {"a": layers[0].weights["a"], "b": layers[1].weights["b"]}
    model = SimpleNamespace(weights=dict(arrays), layers=layers)
    optimizer(model.weights).iterate(model)
    assert all(model.weights[name] is arrays[name] for name in arrays)
    assert (arrays["a"] < 1).all() and (arrays["b"] > 1).all()


@pytest.mark.parametrize("optimizer", FORMULAS, ids=lambda each: each.__name__)
def test_optimizers_decay(optimizer):
    weights = {"W": np.ones(1)}
    steps = optimizer(weights, lr=1.0, decay=0.5)
    for rate in (1, 1 / 1.5, 1 / 2):
        steps.iterate(weights, {"W": np.ones(1)})
        assert steps.lr == pytest.approx(rate)
    assert steps.init_lr == 1


def test_optimizers_change_numbers_too():
    weights = {"b": 1.0}
    course.SGD(weights, lr=0.5).iterate(weights, {"b": 1.0})
    assert weights["b"] == 0.5


def test_a_network_learns():
    """Convolution, pooling, two layers and softmax, all of the course: tell rows from columns."""
    rng = np.random.RandomState(0)
    weights = {"K": rng.randn(1, 4, 3, 3) * 0.3, "bK": np.zeros(4)}
    weights |= {"W": rng.randn(36, 2) * 0.2, "b": np.zeros(2)}
    optimizer = course.Adam(weights, lr=0.02)
    for _ in range(60):
        kinds = rng.randint(0, 2, 16)
        z = np.zeros((16, 1, 6, 6))
        for n, kind in enumerate(kinds):
            z[(n, 0, slice(None), rng.randint(6)) if kind else (n, 0, rng.randint(6))] = 1
        conv = course.conv_forward(z, weights["K"], weights["bK"], padding=(1, 1))
        active = course.relu_forward(conv)
        pooled = course.max_pooling_forward(active, (2, 2))
        flat = course.flatten_forward(pooled)
        scores = course.fc_forward(flat, weights["W"], weights["b"])
        loss, dscores = course.cross_entropy_loss(scores, np.eye(2)[kinds])
        dW, db, dflat = course.fc_backward(dscores, weights["W"], flat)
        dpooled = course.flatten_backward(dflat, pooled)
        dactive = course.max_pooling_backward(dpooled, active, (2, 2))
        dconv = course.relu_backward(dactive, conv)
        dK, dbK, _ = course.conv_backward(dconv, weights["K"], z, padding=(1, 1))
        optimizer.iterate(weights, {"K": dK, "bK": dbK, "W": dW, "b": db})
    assert loss < 0.05
    assert (scores.argmax(axis=1) == kinds).all()


# Any real array.

P11 = {"padding": (1, 1)}
LENIENT = {  # name: function of arrays alone, their shapes
    "conv_forward": (course.conv_forward, [(2, 3, 5, 5), (3, 2, 3, 3), (2,)]),
    "conv_backward": (
        lambda d, K, z: course.conv_backward(d, K, z, **P11),
        [(2, 2, 5, 5), (3, 2, 3, 3), (2, 3, 5, 5)],
    ),
    "max_forward": (lambda z: course.max_pooling_forward(z, (3, 3), **P11), [(2, 3, 4, 5)]),
    "max_backward": (
        lambda d, z: course.max_pooling_backward(d, z, (3, 3), **P11),
        [(2, 3, 2, 3), (2, 3, 4, 5)],
    ),
    "avg_forward": (lambda z: course.avg_pooling_forward(z, (3, 3), **P11), [(2, 3, 4, 5)]),
    "avg_backward": (
        lambda d, z: course.avg_pooling_backward(d, z, (3, 3), **P11),
        [(2, 3, 2, 3), (2, 3, 4, 5)],
    ),
    "global_max_forward": (course.global_max_pooling_forward, [(2, 3, 4, 5)]),
    "global_max_backward": (course.global_max_pooling_backward, [(2, 3), (2, 3, 4, 5)]),
    "global_avg_forward": (course.global_avg_pooling_forward, [(2, 3, 4, 5)]),
    "global_avg_backward": (course.global_avg_pooling_backward, [(2, 3), (2, 3, 4, 5)]),
    "single_channel": (course._single_channel_conv, [(5, 5), (3, 3)]),
    "fc_forward": (course.fc_forward, [(4, 5), (5, 3), (3,)]),
    "fc_backward": (course.fc_backward, [(4, 3), (5, 3), (4, 5)]),
    "mean_squared": (course.mean_squared_loss, [(4, 3), (4, 3)]),
    "cross_entropy": (course.cross_entropy_loss, [(4, 3), (4, 3)]),
    **{
        f"{name}_forward": (getattr(course, f"{name}_forward"), [(3, 4)] * (1 + (name == "prelu")))
        for name in ACTIVATIONS
    },
    **{
        f"{name}_backward": (
            getattr(course, f"{name}_backward"),
            [(3, 4)] * (2 + (name == "prelu")),
        )
        for name in ACTIVATIONS
    },
}


@cases(LENIENT)
def test_any_memory(case):
    function, shapes = case
    check_memory(function, numbers(17, *shapes))


@cases(LENIENT)
def test_dtypes(case):
    function, shapes = case
    check_dtypes(function, [2 * array for array in numbers(18, *shapes)])


def test_an_empty_batch_has_zero_gradients():
    dK, db, dz = course.conv_backward(np.ones((0, 2, 3, 3)), K, np.ones((0, 3, 5, 5)))
    assert dz.shape == (0, 3, 5, 5) and not dK.any() and not db.any()
    dw, db, dz = course.fc_backward(np.ones((0, 3)), np.ones((5, 3)), np.ones((0, 5)))
    assert dz.shape == (0, 5) and not dw.any() and not db.any()
    assert dw.shape == (5, 3) and db.shape == (3,)


# Bad input.

Z, K, B = np.ones((2, 3, 5, 5)), np.ones((3, 2, 3, 3)), np.ones(2)
D = np.ones((2, 2, 3, 3))


@refused(
    (lambda: course.conv_forward(Z[0], K, B), ValueError, r"z must have shape \(N, C, H, W\)"),
    (
        lambda: course.conv_forward(Z, K[:2], B),
        ValueError,
        r"K must have shape \(3, D, k1, k2\), got \(2, 2, 3, 3\)",
    ),
    (lambda: course.conv_forward(Z, K, np.ones(3)), ValueError, r"b must have shape \(2,\)"),
    (lambda: course.conv_forward(Z, K, B, padding=1), TypeError, "padding must be a pair"),
    (lambda: course.conv_forward(Z, K, B, strides=(1,)), ValueError, "strides must be a pair"),
    (lambda: course.conv_forward(Z, K, B, strides=(0, 1)), ValueError, "stride must be positive"),
    (lambda: course.conv_forward(Z, K, B, padding=(-1, 0)), ValueError, "padding must be non-neg"),
    (lambda: course.conv_forward(Z, K, B, padding=(1.5, 0)), TypeError, "padding must be an int"),
    (lambda: course.conv_forward(Z, K, B, strides=(3, 1)), AssertionError, "height does not"),
    (lambda: course.conv_forward(Z, K, B, strides=(1, 3)), AssertionError, "width does not"),
    (lambda: course.conv_forward(Z * 1j, K, B), TypeError, "complex128"),
    (lambda: course.conv_forward(np.ma.masked_less(Z, 0), K, B), TypeError, "masked"),
    (
        lambda: course.conv_backward(D[:1], K, Z),
        ValueError,
        r"next_dz must have shape \(2, 2, 3, 3\), got \(1, 2, 3, 3\)",
    ),
    (lambda: course.conv_backward(D, K, Z, strides=(3, 3)), AssertionError, "height does not"),
    (lambda: course._single_channel_conv(Z, K), ValueError, r"z must have shape \(H, W\)"),
    (lambda: course._single_channel_conv(Z[0, 0], K), ValueError, r"K must have shape \(k1, k2\)"),
    (lambda: course._insert_zeros(D, 2), TypeError, "strides must be a pair"),
    (lambda: course._remove_padding(D, 2), TypeError, "padding must be a pair"),
    (lambda: course.max_pooling_forward(Z, 2), TypeError, "pooling must be a pair"),
    (lambda: course.max_pooling_forward(Z, (6, 2)), ValueError, "kernel height 6 exceeds"),
    (lambda: course.max_pooling_forward(Z, (2, 2), padding=(-1, 0)), ValueError, "padding must"),
    (lambda: course.max_pooling_forward(Z, (2, 2), strides=(0, 1)), ValueError, "stride must be"),
    (lambda: course.avg_pooling_forward(Z[0], (2, 2)), ValueError, r"z must have shape"),
    (
        lambda: course.max_pooling_backward(D, Z, (2, 2)),
        ValueError,
        r"next_dz must have shape \(2, 3, 2, 2\), got",
    ),
    (lambda: course.avg_pooling_backward(D, Z, (2, 2)), ValueError, "next_dz must have shape"),
    (lambda: course.global_max_pooling_backward(B, Z), ValueError, r"next_dz must .*\(2, 3\)"),
    (lambda: course.global_avg_pooling_backward(B, Z), ValueError, r"next_dz must .*\(2, 3\)"),
    (lambda: course.flatten_backward(np.ones((2, 74)), Z), ValueError, r"next_dz must .*\(2, 75\)"),
    (lambda: course.fc_forward(Z, K, B), ValueError, r"z must have shape \(N, n\)"),
    (lambda: course.fc_forward(np.ones((2, 3)), np.ones((4, 5)), B), ValueError, "W must have"),
    (lambda: course.fc_forward(np.ones((2, 3)), np.ones((3, 5)), B), ValueError, "b must have"),
    (
        lambda: course.fc_backward(np.ones((2, 4)), np.ones((3, 5)), np.ones((2, 3))),
        ValueError,
        r"next_dz must have shape \(2, 5\), got \(2, 4\)",
    ),
    (lambda: course.mean_squared_loss(B, Z), ValueError, "y_true must have shape"),
    (lambda: course.cross_entropy_loss(D, Z), ValueError, "y_true must have shape"),
    (lambda: course.SGD({"W": B}).iterate({"W": B}), TypeError, "gradients must be"),
    (lambda: course.Adam({"W": B}).iterate({"W": B}, {}), KeyError, "W"),
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
