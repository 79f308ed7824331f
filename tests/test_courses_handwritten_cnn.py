"""The hand-written layers against the course's worked examples, loops and numerical gradients."""

from __future__ import annotations

import numpy as np
import pytest
from course_checks import SAME_NUMBERS, numbers, numerical_gradient, refused, star_names

from cnnfast.courses import handwritten_cnn as course

IDENTITY = course.IdentityActivator()
LAYERS = {  # channels, height, width, filters, filter height, filter width, padding, stride
    "square": (2, 5, 5, 3, 3, 3, 1, 2),
    "wide-image": (3, 4, 7, 2, 3, 3, 0, 1),
    "wide-filter": (2, 5, 6, 2, 2, 4, 1, 1),
    "tall-filter": (1, 7, 5, 3, 4, 1, 2, 3),
    "more-padding-than-filter": (2, 3, 4, 2, 2, 2, 3, 2),
    "floored": (2, 6, 5, 2, 3, 2, 0, 2),
}
POOLS = {  # channels, height, width, window height, window width, stride
    "tiling": (2, 4, 6, 2, 2, 2),
    "overlapping": (2, 5, 5, 3, 3, 1),
    "rectangular": (1, 5, 7, 2, 3, 2),
}


def cases(table):
    return pytest.mark.parametrize("case", table.values(), ids=table)


def layer_of(case, activator=IDENTITY, seed=0):
    C, H, W, F, KH, KW, zero_padding, stride = case
    layer = course.ConvLayer(W, H, C, KW, KH, F, zero_padding, stride, activator, 0.01)
    image, weights, biases = numbers(seed, (C, H, W), (F, C, KH, KW), (F,))
    for each, w, b in zip(layer.filters, weights, biases.tolist(), strict=True):
        each.weights, each.bias = w, b
    return layer, image


def conv_naive(image, filters, zero_padding, stride):
    framed = np.pad(image, ((0, 0), (zero_padding,) * 2, (zero_padding,) * 2))
    KH, KW = filters[0].weights.shape[1:]
    OH, OW = ((n - k) // stride + 1 for n, k in zip(framed.shape[1:], (KH, KW), strict=True))
    out = np.empty((len(filters), OH, OW))
    for f, i, j in np.ndindex(out.shape):
        window = framed[:, i * stride : i * stride + KH, j * stride : j * stride + KW]
        out[f, i, j] = (window * filters[f].weights).sum() + filters[f].bias
    return out


def test_star_import_brings_the_names_of_the_course_and_no_other():
    own = ["np", "promote", "cnnfast", "Activator", "test", "FullConnectedLayer"]
    assert star_names("cnnfast.courses.handwritten_cnn", own) == {
        *("get_patch", "get_max_index", "conv", "padding", "element_wise_op"),
        *("Filter", "ConvLayer", "MaxPoolingLayer", "init_test", "gradient_check"),
        *("ReluActivator", "IdentityActivator", "SigmoidActivator", "TanhActivator"),
    }


# The course's worked examples.


def test_worked_forward():
    image, _, layer = course.init_test()
    assert layer.forward(image) is None
    printed = [
        [[6, 7, 5], [3, -1, -1], [2, -1, 4]],
        [[2, -5, -8], [1, -4, -4], [0, -5, -5]],
    ]
    np.testing.assert_array_equal(layer.output_array, printed)


def test_worked_backward_and_update():
    """All 54 weights and both biases that the article prints."""
    image, sensitivity, layer = course.init_test()
    assert layer.backward(image, sensitivity, IDENTITY) is None
    layer.update()
    printed = [
        [
            [[-1.008, 0.99, -0.009], [-0.005, 0.994, -0.006], [-0.006, 0.995, 0.996]],
            [[-1.004, -1.001, -0.004], [-0.01, -0.009, -0.012], [-0.002, -1.002, -0.002]],
            [[-0.002, -0.002, -1.003], [-0.005, 0.992, -0.005], [0.993, -1.008, -1.007]],
        ],
        [
            [[0.998, 0.998, -1.001], [-1.004, -1.007, 0.997], [-0.004, -1.004, 0.998]],
            [[0.0, 0.999, 0.0], [-1.009, -0.005, -1.004], [-1.004, 1.0, 0.0]],
            [[-1.004, -0.006, -0.005], [-1.002, -0.005, 0.998], [-1.002, -0.001, 0.0]],
        ],
    ]
    for each, weights in zip(layer.filters, printed, strict=True):
        np.testing.assert_allclose(each.get_weights(), weights, rtol=0, atol=1e-12)
    assert layer.filters[0].get_bias() == pytest.approx(0.991, rel=1e-12)
    assert layer.filters[1].get_bias() == pytest.approx(-0.007, rel=1e-12)
    assert repr(layer.filters[0]).startswith("filter weights:\narray([[[-1.008,  0.99 , -0.009],")
    assert repr(layer.filters[0]).endswith("\nbias:\n0.991")


def test_worked_pooling():
    image = np.array(
        [
            [[1, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]],
            [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1], [3, 4, 5, 6]],
        ],
        np.float64,
    )
    layer = course.MaxPoolingLayer(4, 4, 2, 2, 2, 2)
    assert layer.forward(image) is None
    np.testing.assert_array_equal(layer.output_array, [[[6, 8], [3, 4]], [[5, 7], [9, 6]]])
    sensitivity = np.array([[[1, 2], [2, 4]], [[3, 5], [8, 2]]], np.float64)
    assert layer.backward(image, sensitivity) is None
    expected = np.zeros((2, 4, 4))
    expected[0, (1, 1, 2, 3), (1, 3, 0, 3)] = 1, 2, 2, 4
    expected[1, (1, 1, 2, 3), (1, 3, 1, 3)] = 3, 5, 8, 2
    np.testing.assert_array_equal(layer.delta_array, expected)


def test_worked_gradient_check(capsys):
    assert course.gradient_check() < 1e-9
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 27
    assert lines[0].startswith("weights(0,0,0): expected - actural ")
    for line in lines:
        expected, actual = line.rsplit("actural ", 1)[1].split(" - ")
        assert expected == actual and len(expected.split(".")[1]) == 6


def test_gradient_check_finds_a_wrong_gradient(capsys):
    class Wrong(course.ConvLayer):
        def bp_gradient(self, sensitivity_array):
            super().bp_gradient(sensitivity_array)
            self.filters[0].weights_grad = self.filters[0].weights_grad * 1.01

    layer = Wrong(4, 4, 1, 2, 2, 1, 0, 1, IDENTITY, 0.1)
    weights = layer.filters[0].weights.copy()
    assert course.gradient_check(layer, np.ones((1, 4, 4))) == pytest.approx(0.09)
    assert len(capsys.readouterr().out.splitlines()) == 4
    np.testing.assert_array_equal(layer.filters[0].weights, weights)


# Layers against loops and numerical gradients.


@cases(LAYERS)
def test_conv_layer(case):
    layer, image = layer_of(case)
    zero_padding, stride = case[-2:]

    def naive():
        return conv_naive(image, layer.filters, zero_padding, stride)

    (sensitivity,) = numbers(1, layer.output_array.shape)
    layer.backward(image, sensitivity, IDENTITY)
    np.testing.assert_allclose(layer.output_array, naive(), rtol=1e-12, atol=1e-12)
    expected = numerical_gradient(naive, image, sensitivity, h=1e-4)
    np.testing.assert_allclose(layer.delta_array, expected, rtol=1e-8, atol=1e-8)
    assert layer.delta_array.shape == layer.create_delta_array().shape
    for each, slopes in zip(layer.filters, sensitivity, strict=True):
        expected = numerical_gradient(naive, each.weights, sensitivity, h=1e-4)
        np.testing.assert_allclose(each.weights_grad, expected, rtol=1e-8, atol=1e-8)
        assert each.bias_grad == pytest.approx(slopes.sum(), rel=1e-12)


def test_attributes():
    layer, image = layer_of(LAYERS["wide-filter"])
    assert (layer.input_width, layer.input_height, layer.channel_number) == (6, 5, 2)
    assert (layer.filter_width, layer.filter_height, layer.filter_number) == (4, 2, 2)
    assert (layer.output_width, layer.output_height) == (5, 6)
    assert layer.output_array.shape == (2, 6, 5)
    fresh = course.ConvLayer(6, 5, 2, 4, 3, 1, 0, 1, IDENTITY, 0.1)
    assert [each.weights.shape for each in fresh.filters] == [(2, 3, 4)]
    output = layer.output_array
    layer.forward(image)
    assert layer.output_array is output and layer.input_array is image
    np.testing.assert_array_equal(layer.padded_input_array, course.padding(image, 1))
    assert layer.calculate_output_size(5, 3, 1, 2) == 3


def test_backward_multiplies_by_the_derivative_of_the_layer_before():
    layer, image = layer_of(LAYERS["square"])
    (sensitivity,) = numbers(2, layer.output_array.shape)
    layer.backward(image, sensitivity, IDENTITY)
    plain = layer.delta_array
    for activator in (course.SigmoidActivator(), course.TanhActivator(), course.ReluActivator()):
        layer.backward(image, sensitivity, activator)
        np.testing.assert_allclose(layer.delta_array, plain * activator.backward(image))


def test_the_parts_of_backward():
    layer, image = layer_of(LAYERS["square"])
    (sensitivity,) = numbers(3, layer.output_array.shape)
    layer.backward(image, sensitivity, IDENTITY)
    delta, slopes = layer.delta_array, [each.weights_grad for each in layer.filters]
    layer.bp_sensitivity_map(2 * sensitivity, IDENTITY)
    layer.bp_gradient(2 * sensitivity)
    np.testing.assert_allclose(layer.delta_array, 2 * delta)
    for each, slope in zip(layer.filters, slopes, strict=True):
        np.testing.assert_allclose(each.weights_grad, 2 * slope)


@cases(LAYERS)
def test_the_expanded_sensitivity_map_is_that_of_stride_1(case):
    """A correlation of the padded image with it is the gradient of the weights."""
    layer, image = layer_of(case)
    (sensitivity,) = numbers(4, layer.output_array.shape)
    expanded = layer.expand_sensitivity_map(sensitivity)
    assert np.count_nonzero(expanded) == sensitivity.size
    layer.backward(image, sensitivity, IDENTITY)
    C, _, _, F, KH, KW, _, _ = case
    slope = np.zeros((KH, KW))
    course.conv(layer.padded_input_array[C - 1], expanded[F - 1], slope, 1, 0)
    np.testing.assert_allclose(slope, layer.filters[-1].weights_grad[-1], rtol=1e-12, atol=1e-12)


@cases(POOLS)
def test_max_pooling_layer(case):
    C, H, W, KH, KW, stride = case
    layer = course.MaxPoolingLayer(W, H, C, KW, KH, stride)
    (image,) = numbers(5, (C, H, W))

    def naive():
        out = np.empty((C, (H - KH) // stride + 1, (W - KW) // stride + 1))
        for c, i, j in np.ndindex(out.shape):
            out[c, i, j] = course.get_patch(image[c], i, j, KW, KH, stride).max()
        return out

    layer.forward(image)
    np.testing.assert_array_equal(layer.output_array, naive())
    (sensitivity,) = numbers(6, layer.output_array.shape)
    layer.backward(image, sensitivity)
    expected = numerical_gradient(naive, image, sensitivity)
    np.testing.assert_allclose(layer.delta_array, expected, rtol=1e-8, atol=1e-8)


def test_the_first_maximum_takes_it_and_overlaps_add_up():
    layer = course.MaxPoolingLayer(3, 1, 1, 2, 1, 1)
    layer.backward(np.array([[[1.0, 2.0, 2.0]]]), np.array([[[3.0, 5.0]]]))
    np.testing.assert_array_equal(layer.delta_array, [[[0, 8, 0]]])


# Activators and helpers.

FORMULAS = {
    course.ReluActivator: (lambda x: max(0.0, x), lambda y: 1.0 if y > 0 else 0.0),
    course.IdentityActivator: (lambda x: x, lambda y: 1),
    course.SigmoidActivator: (lambda x: 1 / (1 + np.exp(-x)), lambda y: y * (1 - y)),
    course.TanhActivator: (lambda x: 2 / (1 + np.exp(-2 * x)) - 1, lambda y: 1 - y * y),
}


@pytest.mark.parametrize("activator", FORMULAS, ids=lambda each: each.__name__)
def test_activators(activator):
    """On numbers, on arrays, and in a layer; a student's own is applied number by number."""
    forward, backward = FORMULAS[activator]
    mine, given = type("Mine", (), {"forward": staticmethod(forward)})(), activator()
    xs = np.array([-1.5, -0.2, 0.0, 0.3, 2.0])
    for f, formula in ((given.forward, forward), (given.backward, backward)):
        expected = [formula(x) for x in xs]
        np.testing.assert_allclose([f(x) for x in xs], expected, rtol=1e-12)
        filled = xs.copy()
        course.element_wise_op(filled, f)
        np.testing.assert_allclose(filled, expected, rtol=1e-12)
    for each in (given, mine):
        layer, image = layer_of(LAYERS["square"], each)
        layer.forward(image)
        expected = np.vectorize(forward)(conv_naive(image, layer.filters, 1, 2))
        np.testing.assert_allclose(layer.output_array, expected, rtol=1e-12)


def test_nothing_overflows():
    far = np.array([-1e4, 1e4])
    np.testing.assert_array_equal(course.SigmoidActivator().forward(far), [0, 1])
    np.testing.assert_array_equal(course.TanhActivator().forward(far), [-1, 1])


def test_get_patch():
    (image,) = numbers(7, (2, 6, 7))
    np.testing.assert_array_equal(course.get_patch(image, 1, 2, 3, 2, 2), image[:, 2:4, 4:7])
    np.testing.assert_array_equal(course.get_patch(image[0], 1, 2, 3, 2, 2), image[0, 2:4, 4:7])


def test_get_max_index():
    assert course.get_max_index(np.array([[1, 2, 7], [7, 0, 7]])) == (0, 2)


@pytest.mark.parametrize("channels", [(), (3,)], ids=["2-d", "3-d"])
def test_conv(channels):
    image, kernel = numbers(8, (*channels, 6, 7), (*channels, 2, 3))
    output = np.empty((3, 3))
    assert course.conv(image, kernel, output, 2, 0.5) is None
    for i, j in np.ndindex(output.shape):
        expected = (course.get_patch(image, i, j, 3, 2, 2) * kernel).sum() + 0.5
        assert output[i, j] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4)])
def test_padding(shape):
    (image,) = numbers(9, shape)
    assert course.padding(image, 0) is image
    padded = course.padding(image, 2)
    assert padded.shape == (*shape[:-2], 7, 8)
    np.testing.assert_array_equal(padded[..., 2:-2, 2:-2], image)
    assert np.count_nonzero(padded) == image.size


def test_filter_starts_small_and_follows_the_seed_of_numpy():
    np.random.seed(5)
    first = course.Filter(3, 2, 4)
    np.random.seed(5)
    second = course.Filter(3, 2, 4)
    np.testing.assert_array_equal(first.weights, second.weights)
    assert first.weights.shape == first.weights_grad.shape == (4, 2, 3)
    assert 0 < abs(first.weights).max() <= 1e-4
    assert first.bias == first.bias_grad == 0


# Any real array.


def of_layer(image, sensitivity):
    layer, _ = layer_of(LAYERS["wide-filter"])
    layer.backward(image, sensitivity, course.SigmoidActivator())
    return [layer.output_array, layer.delta_array, layer.filters[0].weights_grad]


def of_pool(image, sensitivity):
    layer = course.MaxPoolingLayer(6, 5, 2, 2, 2, 1)
    layer.forward(image)
    layer.backward(image, sensitivity)
    return [layer.output_array, layer.delta_array]


@pytest.mark.parametrize(
    ("function", "shape"), [(of_layer, (2, 6, 5)), (of_pool, (2, 4, 5))], ids=["conv", "pool"]
)
def test_any_memory_and_dtype(function, shape):
    image, sensitivity = (np.round(3 * each) for each in numbers(10, (2, 5, 6), shape))
    expected = function(image, sensitivity)
    for make in SAME_NUMBERS.values():
        given = make(image.copy()), make(sensitivity.copy())
        for one, other in zip(function(*given), expected, strict=True):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(given[0], image)
        np.testing.assert_array_equal(given[1], sensitivity)
    for dtype in (np.int8, np.int64, np.float32):
        given = image.astype(dtype), sensitivity.astype(dtype)
        for one, other in zip(function(*given), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


def test_derivatives_of_integers_are_not_cut_off():
    class Half(course.IdentityActivator):
        def backward(self, output):
            return output / 2

    layer = course.ConvLayer(1, 1, 1, 1, 1, 1, 0, 1, IDENTITY, 1)
    layer.filters[0].weights = np.array([[[1]]])
    layer.backward(np.array([[[3]]]), np.array([[[1]]]), Half())
    assert layer.delta_array.item() == 1.5
    layer.update()
    assert layer.filters[0].weights.item() == -2


# Bad input.

IMAGE, _, LAYER = course.init_test()
POOL = course.MaxPoolingLayer(5, 5, 3, 2, 2, 1)
ONES = np.ones((3, 3))


@refused(
    (
        lambda: LAYER.forward(IMAGE[:2]),
        ValueError,
        r"input_array must have shape \(3, 5, 5\), got \(2, 5, 5\)",
    ),
    (
        lambda: LAYER.backward(IMAGE, ONES, IDENTITY),
        ValueError,
        r"sensitivity_array must have shape \(2, 3, 3\), got \(3, 3\)",
    ),
    (lambda: LAYER.expand_sensitivity_map(ONES), ValueError, "sensitivity_array must have shape"),
    (lambda: LAYER.forward(IMAGE * 1j), TypeError, "complex128"),
    (
        lambda: LAYER.backward(IMAGE, np.ones((2, 3, 3)) * 1j, IDENTITY),
        TypeError,
        "complex128",
    ),
    (lambda: LAYER.forward(np.ma.masked_less(IMAGE, 0)), TypeError, "masked"),
    (
        lambda: course.ConvLayer(2, 5, 1, 3, 3, 1, 0, 1, IDENTITY, 1),
        ValueError,
        "a field of 3 does not fit into 2 cells",
    ),
    (
        lambda: course.ConvLayer(5, 5, 1, 3, 3, 1, 0, 0, IDENTITY, 1),
        ValueError,
        "stride must be positive",
    ),
    (lambda: POOL.forward(IMAGE[0]), ValueError, "input_array must have shape"),
    (
        lambda: POOL.backward(IMAGE, ONES),
        ValueError,
        r"sensitivity_array must have shape \(3, 4, 4\), got \(3, 3\)",
    ),
    (lambda: course.MaxPoolingLayer(2, 2, 1, 3, 1, 1), ValueError, "field of 3"),
    (lambda: course.get_max_index(np.ones(3)), ValueError, r"array must have shape \(H, W\)"),
    (lambda: course.conv(np.ones(3), ONES, ONES, 1, 0), ValueError, "input_array must have 2 or 3"),
    (lambda: course.conv(ONES, IMAGE, ONES, 1, 0), ValueError, r"kernel_array .* \(KH, KW\)"),
    (
        lambda: course.conv(IMAGE, np.ones((3, 2, 2)), ONES, 1, 0),
        ValueError,
        r"output_array must have shape \(4, 4\), got \(3, 3\)",
    ),
    (lambda: course.padding(np.ones(3), 1), ValueError, "input_array must have 2 or 3 dimensions"),
    (lambda: course.padding(ONES, 1.5), TypeError, "zp must be an integer, got 1.5"),
    (lambda: course.padding(ONES, -1), ValueError, "padding must not be negative"),
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
