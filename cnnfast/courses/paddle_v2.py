"""PaddlePaddle v2's `img_conv_layer` and `simple_img_conv_pool` on NumPy arrays, run by cnnfast.

Swap it in: replace `from paddle.trainer_config_helpers import *` or `import paddle.v2` by the line
    from cnnfast.courses.paddle_v2 import *
and give an array (N, C, H, W), or a layer of this module, as `input`. The layer that comes back
has computed its `output`; `layer.backward(d)` gives the gradient of its input and fills
`layer.gradients`; change `layer.parameters`, and `layer.forward(x)` computes anew with them.

It has what the hand-written layer of the same article lacks: rectangles, separate steps in both
directions, dilation, groups, transposed convolution, biases shared or not. As in Paddle, x is the
horizontal and y the vertical direction: a pair is (x, y), the reverse of an array's shape, and a
missing `_y` is that of x; ReLU is the default; weights are drawn with the standard deviation
sqrt(2 / (filter_size**2 * num_channels)), filter_size being the horizontal one and num_channels
those of all groups; convolution floors and pooling rounds up; every one of equal maxima takes the
whole gradient, and an average leaves out the padding. Weights come from `np.random.normal`, so
that `np.random.seed` decides on them; they are (num_filters, C / groups, filter_size_y,
filter_size), for trans (C, num_filters / groups, filter_size_y, filter_size).

Different from Paddle (https://github.com/PaddlePaddle/Paddle, trainer_config_helpers/layers.py):
- images are arrays of four dimensions and not rows, and a layer runs at once and not in a graph;
- pool_size, pool_stride and pool_padding may be pairs (x, y), too;
- a last pooling window that would start beyond the image and its first padding, and so hold no
  cell of the image, is left out;
- a `bias_attr` that is neither None, True, False nor a ParameterAttribute is a TypeError (there it
  means no bias); one of its two settings that is not given is the layer's own;
- activations and pooling types are those below, and `layer_attr` must be None;
- integers become float64, and parameters have the dtype of the first input (there float32).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np

import cnnfast

from ._promote import FloatArray, RealArray, promote, promote_like
from ._shapes import expect_shape, integer
from .handwritten_cnn import (
    Activator,
    IdentityActivator,
    ReluActivator,
    SigmoidActivator,
    TanhActivator,
)

__all__ = [
    "AvgPooling",
    "LayerOutput",
    "LinearActivation",
    "MaxPooling",
    "ParameterAttribute",
    "ReluActivation",
    "SigmoidActivation",
    "TanhActivation",
    "img_conv_layer",
    "simple_img_conv_pool",
]

XY: TypeAlias = int | Sequence[int]
LAYER_TYPES = {False: ("exconv", "cudnn_conv"), True: ("exconvt", "cudnn_convt")}  # by trans


class ReluActivation(ReluActivator):
    """max(0, x)."""


class LinearActivation(IdentityActivator):
    """x."""


class SigmoidActivation(SigmoidActivator):
    """1 / (1 + exp(-x))."""


class TanhActivation(TanhActivator):
    """tanh(x)."""


ACTIVATIONS = ReluActivation, LinearActivation, SigmoidActivation, TanhActivation


class MaxPooling:
    """The largest cell of a window."""


class AvgPooling:
    """The mean of a window's cells, those of the padding left out."""


@dataclass(frozen=True)
class ParameterAttribute:
    """How a parameter is drawn.

    Parameters
    ----------
    initial_std, initial_mean : float, optional
        Of a normal distribution; the layer's own where not given.

    Examples
    --------
    >>> twos = ParameterAttribute(initial_std=0, initial_mean=2)
    >>> img_conv_layer(np.ones((1, 1, 3, 3)), 3, 2, param_attr=twos).output.ravel()
    array([18., 18.])
    """

    initial_std: float | None = None
    initial_mean: float | None = None

    def draw(self, shape: tuple[int, ...], own_std: float, dtype: Any) -> FloatArray:
        """Give a parameter; own_std is what the layer has where no other is given."""
        std = own_std if self.initial_std is None else self.initial_std
        mean = 0.0 if self.initial_mean is None else self.initial_mean
        drawn: FloatArray = np.random.normal(mean, std, shape).astype(dtype)
        return drawn


class LayerOutput:
    """A layer and what it has computed; `img_conv_layer` and `simple_img_conv_pool` make it.

    Attributes
    ----------
    output : ndarray
        ``(N, num_filters, OH, OW)``, of the last `forward`.
    parameters, gradients : dict
        ``"w"``, and ``"b"`` if there is a bias; gradients are those of the last `backward`.
    name : str or None
        As given.
    num_filters : int
        Channels of the output.
    """

    def __init__(
        self,
        name: str | None,
        convolution: _Convolution,
        activation: _Activation,
        images: FloatArray,
    ) -> None:
        self.name = name
        self.num_filters = convolution.num_filters
        self._convolution = convolution
        self._steps: list[Any] = [convolution, activation]
        self.forward(images)

    @property
    def parameters(self) -> dict[str, FloatArray]:
        """Weights and bias, to be changed at will."""
        return self._convolution.parameters

    @property
    def gradients(self) -> dict[str, FloatArray]:
        """Gradients by the names of the parameters."""
        return self._convolution.gradients

    def forward(self, input: RealArray | LayerOutput) -> FloatArray:
        """Compute the output for other images, or with other parameters.

        Parameters
        ----------
        input : ndarray or LayerOutput
            ``(N, C, H, W)``.

        Returns
        -------
        ndarray
            The output.
        """
        result = _images(input)
        for step in self._steps:
            result = step.forward(result)
        self.output: FloatArray = result
        return result

    def backward(self, d: RealArray) -> FloatArray:
        """Give the gradient of the input, and fill `gradients`.

        Parameters
        ----------
        d : ndarray
            Gradient of the output, in its shape.

        Returns
        -------
        ndarray
            In the shape of the input.
        """
        expect_shape("d", d, self.output.shape)
        slopes = promote_like(self.output, d)
        for step in reversed(self._steps):
            slopes = step.backward(slopes)
        return slopes

    def _then(self, step: _Pooling) -> LayerOutput:
        """Add a last step."""
        self._steps.append(step)
        self.output = step.forward(self.output)
        return self


class _Convolution:
    """The convolution of a layer, with its parameters."""

    def __init__(
        self,
        images: FloatArray,
        num_filters: int,
        kernel_size: tuple[int, int],
        options: dict[str, Any],
        trans: bool,
        weights: ParameterAttribute,
        bias: ParameterAttribute | None,
        shared_biases: bool,
    ) -> None:
        self.num_filters, self._options, self._shared = num_filters, options, shared_biases
        self._run: Any = cnnfast.conv2d_forward
        self._back: Any = cnnfast.conv2d_backward
        channels, groups, dtype = images.shape[1], options["groups"], images.dtype
        shape = num_filters, channels // groups, *kernel_size
        if trans:
            self._run, self._back = (
                cnnfast.conv_transpose2d_forward,
                cnnfast.conv_transpose2d_backward,
            )
            shape = channels, num_filters // groups, *kernel_size
        own_std = (2 / (kernel_size[1] ** 2 * channels)) ** 0.5
        self.gradients: dict[str, FloatArray] = {}
        self.parameters = {"w": weights.draw(shape, own_std, dtype)}
        if bias is not None:
            places = () if shared_biases else self.forward(images).shape[2:]
            self.parameters["b"] = bias.draw((num_filters, *places), 0, dtype)

    def forward(self, images: FloatArray) -> FloatArray:
        x, w, *biases = promote(images, *self.parameters.values())
        shared = biases if self._shared else []
        y: FloatArray
        y, self._cache = self._run(x, w, *shared, **self._options)
        return y + biases[0] if biases and not shared else y

    def backward(self, d: FloatArray) -> FloatArray:
        dx: FloatArray
        dx, self.gradients["w"], db = self._back(d, self._cache)
        if "b" in self.parameters:
            self.gradients["b"] = db if self._shared else d.sum(axis=0)
        return dx


class _Activation:
    """The activation of a layer."""

    def __init__(self, activator: Activator) -> None:
        self._activator = activator

    def forward(self, x: FloatArray) -> FloatArray:
        self._y = self._activator.forward(x)
        return self._y

    def backward(self, d: FloatArray) -> FloatArray:
        return d * self._activator.backward(self._y)


class _Pooling:
    """The pooling of a layer."""

    def __init__(self, pool_type: MaxPooling | AvgPooling, options: dict[str, Any]) -> None:
        self._run: Any = partial(cnnfast.avg_pool2d_forward, count_include_pad=False)
        self._back: Any = cnnfast.avg_pool2d_backward
        if isinstance(pool_type, MaxPooling):
            self._run = cnnfast.max_pool2d_forward
            self._back = partial(cnnfast.max_pool2d_backward, ties="all")
        self._options = options

    def forward(self, x: FloatArray) -> FloatArray:
        y: FloatArray
        y, self._cache = self._run(x, ceil_mode=True, **self._options)
        return y

    def backward(self, d: FloatArray) -> FloatArray:
        dx: FloatArray = self._back(d, self._cache)
        return dx


def img_conv_layer(
    input: RealArray | LayerOutput,
    filter_size: XY,
    num_filters: int,
    name: str | None = None,
    num_channels: int | None = None,
    act: Activator | None = None,
    groups: int = 1,
    stride: XY = 1,
    padding: XY = 0,
    dilation: XY = 1,
    bias_attr: ParameterAttribute | bool | None = None,
    param_attr: ParameterAttribute | None = None,
    shared_biases: bool = True,
    layer_attr: None = None,
    filter_size_y: int | None = None,
    stride_y: int | None = None,
    padding_y: int | None = None,
    dilation_y: int | None = None,
    trans: bool = False,
    layer_type: str | None = None,
) -> LayerOutput:
    """Make a convolution layer and run it.

    Parameters
    ----------
    input : ndarray or LayerOutput
        Images ``(N, C, H, W)``, or the layer before.
    filter_size, stride, padding, dilation : int or (int, int)
        Horizontal, or (horizontal, vertical).
    num_filters : int
        Channels of the output.
    name : str, optional
        Kept as ``layer.name``.
    num_channels : int, optional
        Those of the input; checked where given.
    act : object, optional
        `ReluActivation()`, the default, `LinearActivation()`, `SigmoidActivation()` or
        `TanhActivation()`.
    groups : int
        Filters of a group see the channels of that group only.
    bias_attr : ParameterAttribute or bool, optional
        False: no bias. True or None: it starts at zero.
    param_attr : ParameterAttribute, optional
        How the weights are drawn.
    shared_biases : bool
        One bias for each filter; else one for each number of an output image.
    layer_attr : None
        Not supported.
    filter_size_y, stride_y, padding_y, dilation_y : int, optional
        Vertical.
    trans : bool
        Transposed convolution.
    layer_type : str, optional
        "exconv" or "cudnn_conv", with trans "exconvt" or "cudnn_convt"; makes no difference.

    Returns
    -------
    LayerOutput
        With ``output`` ``(N, num_filters, OH, OW)``.

    Examples
    --------
    >>> x = np.ones((2, 8, 6, 9))
    >>> layer = img_conv_layer(x, filter_size=(5, 3), num_filters=16, stride=(2, 1), padding=(2, 1))
    >>> layer.output.shape, layer.parameters["w"].shape
    ((2, 16, 6, 5), (16, 8, 3, 5))
    >>> layer.backward(np.ones_like(layer.output)).shape, layer.gradients["b"].shape
    ((2, 8, 6, 9), (16,))
    """
    images = _images(input)
    channels = images.shape[1]
    if num_channels not in (None, channels):
        raise ValueError(f"num_channels must be that of the input, {channels}, got {num_channels}")
    if layer_attr is not None:
        raise ValueError(f"layer_attr must be None, got {layer_attr!r}")
    if layer_type is not None and layer_type not in LAYER_TYPES[bool(trans)]:
        allowed = " or ".join(LAYER_TYPES[bool(trans)])
        raise ValueError(f"layer_type must be {allowed} for trans={trans}, got {layer_type!r}")
    num_filters, groups = integer("num_filters", num_filters), integer("groups", groups)
    kernel_size = _vertical_first("filter_size", filter_size, filter_size_y)
    _expect_counts(channels, num_filters, groups, kernel_size)
    options = {
        "stride": _vertical_first("stride", stride, stride_y),
        "padding": _vertical_first("padding", padding, padding_y),
        "dilation": _vertical_first("dilation", dilation, dilation_y),
        "groups": groups,
    }
    weights = _one_of("param_attr", param_attr, ParameterAttribute)
    given = None if bias_attr is True else bias_attr
    bias = None if given is False else _one_of("bias_attr", given, ParameterAttribute)
    convolution = _Convolution(
        images, num_filters, kernel_size, options, trans, weights, bias, shared_biases
    )
    activation = _Activation(_one_of("act", act, *ACTIVATIONS))
    return LayerOutput(name, convolution, activation, images)


def simple_img_conv_pool(
    input: RealArray | LayerOutput,
    filter_size: XY,
    num_filters: int,
    pool_size: XY,
    name: str | None = None,
    pool_type: MaxPooling | AvgPooling | None = None,
    act: Activator | None = None,
    groups: int = 1,
    conv_stride: XY = 1,
    conv_padding: XY = 0,
    bias_attr: ParameterAttribute | bool | None = None,
    num_channel: int | None = None,
    param_attr: ParameterAttribute | None = None,
    shared_bias: bool = True,
    conv_layer_attr: None = None,
    pool_stride: XY = 1,
    pool_padding: XY = 0,
    pool_layer_attr: None = None,
) -> LayerOutput:
    """Make a layer of convolution, activation and pooling, and run it.

    Parameters
    ----------
    input, filter_size, num_filters, name, act, groups, bias_attr, param_attr
        As for `img_conv_layer`.
    conv_stride, conv_padding, num_channel, shared_bias
        Its stride, padding, num_channels and shared_biases.
    pool_size, pool_stride, pool_padding : int or (int, int)
        Horizontal, or (horizontal, vertical).
    pool_type : object, optional
        `MaxPooling()`, the default, or `AvgPooling()`.
    conv_layer_attr, pool_layer_attr : None
        Not supported.

    Returns
    -------
    LayerOutput
        Its output is the pooled one.

    Examples
    --------
    >>> images = np.ones((2, 1, 28, 28))
    >>> first = simple_img_conv_pool(images, 5, 20, 2, num_channel=1, pool_stride=2)
    >>> second = simple_img_conv_pool(first, 5, 50, 2, pool_stride=2, act=ReluActivation())
    >>> second.output.shape
    (2, 50, 4, 4)
    >>> d = first.backward(second.backward(np.ones_like(second.output)))
    >>> d.shape, first.gradients["w"].shape
    ((2, 1, 28, 28), (20, 1, 5, 5))
    """
    if pool_layer_attr is not None:
        raise ValueError(f"pool_layer_attr must be None, got {pool_layer_attr!r}")
    pooling = _Pooling(
        _one_of("pool_type", pool_type, MaxPooling, AvgPooling),
        {
            "kernel_size": _vertical_first("pool_size", pool_size, None),
            "stride": _vertical_first("pool_stride", pool_stride, None),
            "padding": _vertical_first("pool_padding", pool_padding, None),
        },
    )
    layer = img_conv_layer(
        input,
        filter_size,
        num_filters,
        name=name,
        num_channels=num_channel,
        act=act,
        groups=groups,
        stride=conv_stride,
        padding=conv_padding,
        bias_attr=bias_attr,
        param_attr=param_attr,
        shared_biases=shared_bias,
        layer_attr=conv_layer_attr,
    )
    return layer._then(pooling)


def _images(input: RealArray | LayerOutput) -> FloatArray:
    (images,) = promote(input.output if isinstance(input, LayerOutput) else input)
    expect_shape("input", images, ("N", "C", "H", "W"))
    return images


def _expect_counts(
    channels: int, num_filters: int, groups: int, kernel_size: tuple[int, int]
) -> None:
    """ValueError unless the sizes are positive and the groups fit."""
    for name, count in ("filter_size", min(kernel_size)), ("num_filters", num_filters):
        if count < 1:
            raise ValueError(f"{name} must be positive, got {count}")
    for name, count in ("num_channels", channels), ("num_filters", num_filters):
        if groups < 1 or count % groups:
            raise ValueError(f"groups must divide {name}, got {groups} for {count}")


def _vertical_first(name: str, horizontal: Any, vertical: int | None) -> tuple[int, int]:
    """Give (height, width) of a number or a pair (horizontal, vertical); `vertical` goes first."""
    try:
        x, y = (horizontal, horizontal) if np.ndim(horizontal) == 0 else horizontal
    except (TypeError, ValueError):
        wanted = "a number or a pair (horizontal, vertical)"
        raise ValueError(f"{name} must be {wanted}, got {horizontal!r}") from None
    return integer(name, y if vertical is None else vertical), integer(name, x)


def _one_of(name: str, value: Any, *classes: type) -> Any:
    """Give an object of one of these classes, of the first where there is none."""
    if value is None:
        return classes[0]()
    if not isinstance(value, classes):
        wanted = " or ".join(each.__name__ for each in classes)
        raise TypeError(f"{name} must be {wanted}, got {value!r}")
    return value
