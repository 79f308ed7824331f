"""The PaddlePaddle v2 layers against cnnfast.reference and numerical gradients."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from course_checks import SAME_NUMBERS, numbers, numerical_gradient, refused, star_names

from cnnfast import reference
from cnnfast.courses import paddle_v2 as course

LINEAR = course.LinearActivation()
LAYERS = {  # x.shape, num_filters, options, the same for cnnfast: height first
    "square": ((2, 3, 5, 6), 4, {"filter_size": 3}, (3, 3), {}),
    "pairs": (
        *((2, 3, 6, 9), 4),
        {"filter_size": (5, 3), "stride": (2, 1), "padding": [2, 1], "dilation": (1, 2)},
        *((3, 5), {"stride": (1, 2), "padding": (1, 2), "dilation": (2, 1)}),
    ),
    "y": (
        *((1, 2, 7, 8), 3),
        {"filter_size": 2, "filter_size_y": 3, "stride": 1, "stride_y": 2, "padding_y": 1}
        | {"dilation": 2, "dilation_y": 1},
        *((3, 2), {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)}),
    ),
    "groups": (
        *((2, 4, 5, 5), 6),
        {"filter_size": 3, "groups": 2, "padding": 1},
        *((3, 3), {"groups": 2, "padding": (1, 1)}),
    ),
    "trans": (
        *((2, 3, 4, 5), 2),
        {"filter_size": (3, 2), "stride": (2, 1), "padding": (1, 0), "trans": True},
        *((2, 3), {"stride": (1, 2), "padding": (0, 1)}),
    ),
    "trans-groups": (
        *((1, 4, 3, 3), 6),
        {"filter_size": 3, "stride": 2, "groups": 2, "trans": True},
        *((3, 3), {"stride": (2, 2), "groups": 2}),
    ),
}
ACTS = {
    course.ReluActivation: lambda x: np.maximum(x, 0),
    course.LinearActivation: lambda x: x,
    course.SigmoidActivation: lambda x: 1 / (1 + np.exp(-x)),
    course.TanhActivation: np.tanh,
}


def cases(table):
    return pytest.mark.parametrize("case", table.values(), ids=table)


def check_gradients(layer, x, formula):
    """Hold output, gradient of the input and gradients of the parameters to a formula."""
    np.testing.assert_allclose(layer.output, formula(), rtol=1e-12, atol=1e-12)
    (d,) = numbers(20, layer.output.shape)
    dx = layer.backward(d)
    expected = numerical_gradient(formula, x, d)
    np.testing.assert_allclose(dx, expected, rtol=1e-7, atol=1e-7)
    assert layer.gradients.keys() == layer.parameters.keys()
    for name, parameter in layer.parameters.items():
        expected = numerical_gradient(formula, parameter, d)
        np.testing.assert_allclose(layer.gradients[name], expected, rtol=1e-7, atol=1e-7)


def spread(layer, seed=21):
    """Give the bias other numbers than zero, too, and compute again."""
    for name, parameter in layer.parameters.items():
        parameter[...] = numbers(seed + (name == "b"), parameter.shape)[0]
    return layer


# Names and signatures.


def test_star_import_brings_the_layers_and_what_they_take():
    own = ["np", "paddle", "promote", "cnnfast", "ReluActivator", "img"]
    assert star_names("cnnfast.courses.paddle_v2", own) == {
        *("img_conv_layer", "simple_img_conv_pool", "LayerOutput", "ParameterAttribute"),
        *("ReluActivation", "LinearActivation", "SigmoidActivation", "TanhActivation"),
        *("MaxPooling", "AvgPooling"),
    }


def test_signatures_are_those_of_paddle():
    parameters = inspect.signature(course.img_conv_layer).parameters
    assert [(each.name, each.default) for each in parameters.values()][3:] == [
        *(("name", None), ("num_channels", None), ("act", None), ("groups", 1), ("stride", 1)),
        *(("padding", 0), ("dilation", 1), ("bias_attr", None), ("param_attr", None)),
        *(("shared_biases", True), ("layer_attr", None), ("filter_size_y", None)),
        *(("stride_y", None), ("padding_y", None), ("dilation_y", None)),
        *(("trans", False), ("layer_type", None)),
    ]
    assert list(parameters)[:3] == ["input", "filter_size", "num_filters"]
    parameters = inspect.signature(course.simple_img_conv_pool).parameters
    assert [(each.name, each.default) for each in parameters.values()][4:] == [
        *(("name", None), ("pool_type", None), ("act", None), ("groups", 1), ("conv_stride", 1)),
        *(("conv_padding", 0), ("bias_attr", None), ("num_channel", None), ("param_attr", None)),
        *(("shared_bias", True), ("conv_layer_attr", None), ("pool_stride", 1)),
        *(("pool_padding", 0), ("pool_layer_attr", None)),
    ]
    assert list(parameters)[:4] == ["input", "filter_size", "num_filters", "pool_size"]


def test_the_layers_of_the_article():
    images = np.ones((2, 1, 28, 28))
    first = course.simple_img_conv_pool(
        input=images,
        filter_size=5,
        num_filters=20,
        num_channel=1,
        pool_size=2,
        pool_stride=2,
        act=course.ReluActivation(),
    )
    assert first.output.shape == (2, 20, 12, 12) and first.num_filters == 20
    layer = course.img_conv_layer(
        input=np.ones((1, 8, 4, 4)),
        filter_size=1,
        filter_size_y=1,
        num_channels=8,
        num_filters=16,
        stride=1,
        bias_attr=False,
        act=course.ReluActivation(),
    )
    assert layer.output.shape == (1, 16, 4, 4)
    assert layer.parameters.keys() == {"w"}


# Convolution.


@cases(LAYERS)
def test_conv_layer(case):
    shape, num_filters, options, kernel_size, twins = case
    (x,) = numbers(0, shape)
    trans = options.get("trans", False)
    twin = reference.conv_transpose2d if trans else reference.conv2d
    layer = spread(course.img_conv_layer(x, num_filters=num_filters, act=LINEAR, **options))
    first, second = (shape[1], num_filters) if trans else (num_filters, shape[1])
    groups = options.get("groups", 1)
    assert layer.parameters["w"].shape == (first, second // groups, *kernel_size)
    layer.forward(x)
    check_gradients(
        layer, x, lambda: twin(x, layer.parameters["w"], layer.parameters["b"], **twins)
    )


@pytest.mark.parametrize("trans", [False, True])
def test_biases_that_are_not_shared(trans):
    (x,) = numbers(1, (2, 3, 4, 5))
    layer = spread(course.img_conv_layer(x, 3, 2, act=LINEAR, shared_biases=False, trans=trans))
    assert layer.parameters["b"].shape == layer.output.shape[1:]
    layer.forward(x)
    twin = reference.conv_transpose2d if trans else reference.conv2d
    check_gradients(layer, x, lambda: twin(x, layer.parameters["w"]) + layer.parameters["b"])


@pytest.mark.parametrize("act", ACTS, ids=lambda each: each.__name__)
def test_activations(act):
    (x,) = numbers(2, (2, 2, 4, 4))
    layer = spread(course.img_conv_layer(x, 3, 3, act=act()))
    layer.forward(x)
    check_gradients(
        layer,
        x,
        lambda: ACTS[act](reference.conv2d(x, layer.parameters["w"], layer.parameters["b"])),
    )


def test_relu_is_the_default():
    (x,) = numbers(3, (2, 2, 4, 4))
    assert course.img_conv_layer(x, 3, 3).output.min() == 0


@pytest.mark.parametrize("bias_attr", [None, True])
def test_a_bias_starts_at_zero(bias_attr):
    layer = course.img_conv_layer(np.ones((1, 2, 4, 4)), 3, 5, bias_attr=bias_attr)
    np.testing.assert_array_equal(layer.parameters["b"], np.zeros(5))


def test_no_bias():
    layer = course.img_conv_layer(np.ones((1, 2, 4, 4)), 3, 5, bias_attr=False)
    layer.backward(layer.output)
    assert layer.parameters.keys() == layer.gradients.keys() == {"w"}


def test_parameters_are_drawn_as_their_attributes_say():
    x = np.ones((1, 2, 4, 4))
    mean_2 = course.ParameterAttribute(initial_std=0.5, initial_mean=2)
    np.random.seed(1)
    layer = course.img_conv_layer(x, 3, 500, param_attr=mean_2, bias_attr=mean_2)
    for parameter in layer.parameters.values():
        assert parameter.mean() == pytest.approx(2, abs=0.1)
        assert parameter.std() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("options", "std"),
    [
        ({"filter_size": 3}, (2 / (9 * 4)) ** 0.5),
        ({"filter_size": (5, 2)}, (2 / (25 * 4)) ** 0.5),
        ({"filter_size": 2, "filter_size_y": 5}, (2 / (4 * 4)) ** 0.5),
        ({"filter_size": 3, "groups": 2}, (2 / (9 * 4)) ** 0.5),
        ({"filter_size": 3, "trans": True}, (2 / (9 * 4)) ** 0.5),
    ],
)
def test_initial_standard_deviation(options, std):
    """Of the horizontal filter size squared, and of the channels of all groups."""
    np.random.seed(0)
    layer = course.img_conv_layer(np.ones((1, 4, 6, 6)), num_filters=1000, **options)
    drawn = layer.parameters["w"]
    assert drawn.std() == pytest.approx(std, rel=0.03)
    assert drawn.mean() == pytest.approx(0, abs=0.03 * std)
    np.random.seed(0)
    again = course.img_conv_layer(np.ones((1, 4, 6, 6)), num_filters=1000, **options)
    np.testing.assert_array_equal(drawn, again.parameters["w"])


def test_groups_split_the_channels():
    """256 channels in 4 groups: each filter sees 64 of them."""
    layer = course.img_conv_layer(np.ones((1, 256, 2, 2)), 1, 32, groups=4, act=LINEAR)
    assert layer.parameters["w"].shape == (32, 64, 1, 1)


def test_num_channels_is_that_of_the_layer_before():
    first = course.img_conv_layer(np.ones((1, 3, 6, 6)), 3, 5)
    second = course.img_conv_layer(first, 3, 7)
    assert second.parameters["w"].shape == (7, 5, 3, 3)
    np.testing.assert_array_equal(second.output, course.LayerOutput.forward(second, first.output))


@pytest.mark.parametrize(
    ("trans", "layer_type"),
    [(False, "exconv"), (False, "cudnn_conv"), (True, "exconvt"), (True, "cudnn_convt")],
)
def test_layer_type_makes_no_difference(trans, layer_type):
    (x,) = numbers(4, (1, 2, 4, 4))
    outputs = []
    for kind in (None, layer_type):
        np.random.seed(3)
        outputs.append(course.img_conv_layer(x, 3, 2, trans=trans, layer_type=kind).output)
    np.testing.assert_array_equal(*outputs)


def test_forward_takes_other_images_and_changed_parameters():
    x, other = numbers(5, (2, 2, 4, 4), (3, 2, 6, 5))
    layer = course.img_conv_layer(x, 3, 3, name="first", act=LINEAR)
    assert layer.name == "first"
    layer.parameters["w"] -= 1
    output = layer.forward(other)
    assert output is layer.output
    expected = reference.conv2d(other, layer.parameters["w"], layer.parameters["b"])
    np.testing.assert_allclose(output, expected, rtol=1e-12, atol=1e-12)


# Convolution and pooling.

POOLS = {  # options, the same for cnnfast
    "default-stride": ({"pool_size": 2}, {"kernel_size": 2, "stride": 1}),
    "ceil": ({"pool_size": 2, "pool_stride": 2}, {"kernel_size": 2, "stride": 2}),
    "padding": (
        {"pool_size": 3, "pool_stride": 2, "pool_padding": 1},
        {"kernel_size": 3, "stride": 2, "padding": 1},
    ),
    "pairs": (
        {"pool_size": (3, 2), "pool_stride": (1, 2), "pool_padding": (1, 0)},
        {"kernel_size": (2, 3), "stride": (2, 1), "padding": (0, 1)},
    ),
}


@pytest.mark.parametrize("pool_type", [None, course.MaxPooling, course.AvgPooling])
@cases(POOLS)
def test_conv_pool(case, pool_type):
    options, twins = case
    (x,) = numbers(6, (2, 2, 7, 7))
    layer = spread(
        course.simple_img_conv_pool(
            *(x, 3, 3),
            pool_type=pool_type and pool_type(),
            act=course.TanhActivation(),
            conv_padding=(0, 1),
            **options,
        )
    )
    layer.forward(x)

    def formula():
        w, b = layer.parameters["w"], layer.parameters["b"]
        y = np.tanh(reference.conv2d(x, w, b, padding=(1, 0)))
        if pool_type is course.AvgPooling:
            return reference.avg_pool2d(y, ceil_mode=True, count_include_pad=False, **twins)
        return reference.max_pool2d(y, ceil_mode=True, **twins)

    check_gradients(layer, x, formula)


def test_pooling_rounds_up_and_every_tied_maximum_takes_the_whole_gradient():
    one = course.ParameterAttribute(initial_std=0, initial_mean=1)
    layer = course.simple_img_conv_pool(
        np.ones((1, 1, 3, 3)), 1, 1, 2, pool_stride=2, param_attr=one, act=LINEAR
    )
    assert layer.output.shape == (1, 1, 2, 2)
    dx = layer.backward(np.array([[[[1.0, 2.0], [3.0, 4.0]]]]))
    np.testing.assert_array_equal(dx[0, 0], [[1, 1, 2], [1, 1, 2], [3, 3, 4]])


def test_a_small_network_learns():
    """Two layers as in the article's network, trained by hand to tell rows from columns."""
    rng = np.random.RandomState(0)
    np.random.seed(0)

    def batch():
        kinds, x = rng.randint(0, 2, 16), np.zeros((16, 1, 8, 8))
        for n, kind in enumerate(kinds):
            x[(n, 0, slice(None), rng.randint(8)) if kind else (n, 0, rng.randint(8))] = 1
        return x, np.eye(2)[kinds][:, :, None, None]

    x, wanted = batch()
    first = course.simple_img_conv_pool(x, 3, 4, 2, pool_stride=2, conv_padding=1)
    second = course.img_conv_layer(first, 4, 2, act=course.SigmoidActivation())
    for _ in range(120):
        x, wanted = batch()
        error = second.forward(first.forward(x)) - wanted
        first.backward(second.backward(error))
        for layer in (first, second):
            for name, parameter in layer.parameters.items():
                parameter -= 0.1 * layer.gradients[name]
    x, wanted = batch()
    assert (second.forward(first.forward(x)).argmax(axis=1) == wanted.argmax(axis=1)).all()


# Any real array.


def of_layer(x, d, trans=False):
    np.random.seed(2)
    layer = course.img_conv_layer(x, 3, 2, act=course.TanhActivation(), padding=1, trans=trans)
    return [layer.output, layer.backward(d), *layer.gradients.values()]


def test_any_memory():
    x, d = numbers(7, (2, 3, 4, 5), (2, 2, 4, 5))
    expected = of_layer(x, d)
    for make in SAME_NUMBERS.values():
        given = make(x.copy()), make(d.copy())
        for one, other in zip(of_layer(*given), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-13, atol=1e-13)
        np.testing.assert_array_equal(given[0], x)
        np.testing.assert_array_equal(given[1], d)


@pytest.mark.parametrize("trans", [False, True])
def test_dtypes(trans):
    x, d = (np.round(2 * each) for each in numbers(8, (2, 3, 4, 5), (2, 2, 4, 5)))
    expected = of_layer(x, d, trans)
    whole = of_layer(x.astype(np.int32), d.astype(np.int32), trans)
    for one, other in zip(whole, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    for slopes in (d, d.astype(np.float32), d.astype(np.int32)):
        for one, other in zip(of_layer(x.astype(np.float32), slopes, trans), expected, strict=True):
            assert one.dtype == np.float32
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


# Bad input.

X = np.ones((1, 4, 5, 5))


def conv(**options):
    return lambda: course.img_conv_layer(
        **{"input": X, "filter_size": 3, "num_filters": 2} | options
    )


def pool(**options):
    given = {"input": X, "filter_size": 3, "num_filters": 2, "pool_size": 2}
    return lambda: course.simple_img_conv_pool(**given | options)


@refused(
    (conv(input=X[0]), ValueError, r"input must have shape \(N, C, H, W\), got \(4, 5, 5\)"),
    (conv(input=X * 1j), TypeError, "complex128"),
    (conv(input=np.ma.masked_less(X, 0)), TypeError, "masked"),
    (conv(filter_size=(3, 3, 3)), ValueError, "filter_size must be .* pair"),
    (conv(filter_size=0), ValueError, "filter_size must be positive, got 0"),
    (conv(filter_size_y=-1), ValueError, "filter_size must be positive, got -1"),
    (conv(filter_size=7), ValueError, "kernel height 7 exceeds"),
    (conv(num_filters=0), ValueError, "num_filters must be positive, got 0"),
    (conv(num_channels=3), ValueError, "num_channels must be that of the input, 4, got 3"),
    (conv(groups=3), ValueError, "groups must divide num_channels, got 3 for 4"),
    (conv(groups=4), ValueError, "groups must divide num_filters, got 4 for 2"),
    (conv(groups=0), ValueError, "groups must divide"),
    (conv(stride=[1]), ValueError, "stride must be .* pair"),
    (conv(stride=0), ValueError, "stride must be positive"),
    (conv(padding=-1), ValueError, "padding must be non-negative, got -1"),
    (conv(padding="same"), TypeError, "padding must be an integer, got 'same'"),
    (conv(filter_size=3.5), TypeError, "filter_size must be an integer, got 3.5"),
    (conv(num_filters=2.0), TypeError, "num_filters must be an integer, got 2.0"),
    (conv(groups=None), TypeError, "groups must be an integer, got None"),
    (conv(dilation=0), ValueError, "dilation must be positive"),
    (conv(act="relu"), TypeError, "act must be ReluActivation or .*, got 'relu'"),
    (conv(act=course.ReluActivation), TypeError, "act must be"),
    (conv(bias_attr=0), TypeError, "bias_attr must be ParameterAttribute"),
    (conv(param_attr=0.1), TypeError, "param_attr must be ParameterAttribute"),
    (conv(layer_attr={}), ValueError, "layer_attr must be None"),
    (conv(layer_type="exconvt"), ValueError, "layer_type must be exconv or cudnn_conv"),
    (conv(layer_type="exconv", trans=True), ValueError, "layer_type must be exconvt"),
    (pool(pool_type="max"), TypeError, "pool_type must be MaxPooling or AvgPooling"),
    (pool(pool_size=(2, 2, 2)), ValueError, "pool_size must be"),
    (pool(pool_size=9), ValueError, "kernel height 9 exceeds"),
    (pool(pool_stride=0), ValueError, "stride must be positive"),
    (pool(pool_padding=2), ValueError, "padding must be smaller"),
    (pool(conv_layer_attr=1), ValueError, "layer_attr must be None"),
    (pool(pool_layer_attr=1), ValueError, "pool_layer_attr must be None"),
    (
        lambda: conv()().backward(np.ones((1, 2, 3, 2))),
        ValueError,
        r"d must have shape \(1, 2, 3, 3\), got \(1, 2, 3, 2\)",
    ),
    (lambda: conv()().backward(np.ones((1, 2, 3, 3)) * 1j), TypeError, "complex128"),
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
