"""The hand-written layers of hanbt's `learn_dl` (cnn.py, activators.py), run by cnnfast.

Swap it in: replace `from cnn import *` and `from activators import *` by the one line
    from cnnfast.courses.handwritten_cnn import *
or, where your own file defines the classes, put the line below them. Nothing else changes: the
methods return nothing, and their results are where they were, in `output_array`, `delta_array`
and the filters' `weights_grad` and `bias_grad`.

One image at a time, (C, H, W); width comes before height in every argument list. As in the course,
`backward` runs `forward` itself and takes the activator of the layer before: the derivative of the
layer's own activator is not applied. Weights are drawn by `np.random.uniform`, so that
`np.random.seed` decides on them.

Different from the course's files (https://github.com/hanbt/learn_dl, copied in
https://github.com/huxiaoman7/PaddlePaddle_code):
- they run on Python 3;
- filters that are not square, and a padding larger than the filter, have the right `delta_array`
  (there it is silently wrong, or fails);
- a stride that does not fit floors in both directions, and its gradients are right;
- pooling windows that overlap add up in `delta_array` (there the last one wins);
- integers are computed as float64 (there a derivative at an integer is cut to an integer), so that
  `update` gives a filter new weights instead of changing the old ones in place;
- a NaN in a pooling window is its maximum;
- the four activators take arrays, too, and nothing in them overflows; one of your own is applied
  number by number, as there;
- `gradient_check` also takes a layer of yours with its input, and gives the largest difference;
- an array of the wrong shape is a ValueError that names it;
- the functions `test`, `test_bp`, `test_pool` and `test_pool_bp` are not here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

import cnnfast

from ._promote import FloatArray, RealArray, promote, promote_like
from ._shapes import expect_shape, integer, output_size, zero_frame

__all__ = [
    "ConvLayer",
    "Filter",
    "IdentityActivator",
    "MaxPoolingLayer",
    "ReluActivator",
    "SigmoidActivator",
    "TanhActivator",
    "conv",
    "element_wise_op",
    "get_max_index",
    "get_patch",
    "gradient_check",
    "init_test",
    "padding",
]


class Activator(Protocol):
    """An activation: its value, and its derivative at what it gave."""

    def forward(self, weighted_input: Any) -> Any:
        """Give the activation."""

    def backward(self, output: Any) -> Any:
        """Give the derivative where the activation is `output`."""


class _ArrayActivator:
    """An activator whose methods take numbers and arrays alike."""


class ReluActivator(_ArrayActivator):
    """max(0, x).

    Examples
    --------
    >>> relu = ReluActivator()
    >>> float(relu.forward(-2.0)), float(relu.forward(3.0))
    (0.0, 3.0)
    >>> float(relu.backward(0.0)), float(relu.backward(3.0))
    (0.0, 1.0)
    """

    def forward(self, weighted_input: Any) -> Any:
        """Give the activation."""
        return np.maximum(0, weighted_input)

    def backward(self, output: Any) -> Any:
        """Give the derivative where the activation is `output`."""
        return np.heaviside(output, 0)


class IdentityActivator(_ArrayActivator):
    """x.

    Examples
    --------
    >>> IdentityActivator().forward(3.0), IdentityActivator().backward(3.0)
    (3.0, 1)
    """

    def forward(self, weighted_input: Any) -> Any:
        """Give the activation."""
        return weighted_input

    def backward(self, output: Any) -> Any:
        """Give the derivative where the activation is `output`."""
        return 1


class SigmoidActivator(_ArrayActivator):
    """1 / (1 + exp(-x)).

    Examples
    --------
    >>> float(SigmoidActivator().forward(0.0)), SigmoidActivator().backward(0.5)
    (0.5, 0.25)
    """

    def forward(self, weighted_input: Any) -> Any:
        """Give the activation."""
        return np.exp(-np.logaddexp(0, np.negative(weighted_input)))

    def backward(self, output: Any) -> Any:
        """Give the derivative where the activation is `output`."""
        return output * (1 - output)


class TanhActivator(_ArrayActivator):
    """tanh(x).

    Examples
    --------
    >>> float(TanhActivator().forward(0.0)), TanhActivator().backward(0.5)
    (0.0, 0.75)
    """

    def forward(self, weighted_input: Any) -> Any:
        """Give the activation."""
        return np.tanh(weighted_input)

    def backward(self, output: Any) -> Any:
        """Give the derivative where the activation is `output`."""
        return 1 - output * output


def get_patch(
    input_array: npt.NDArray[Any],
    i: int,
    j: int,
    filter_width: int,
    filter_height: int,
    stride: int,
) -> npt.NDArray[Any]:
    """Give the window of an image that output (i, j) sees, a view.

    Parameters
    ----------
    input_array : ndarray
        ``(H, W)`` or ``(C, H, W)``.
    i, j : int
        Row and column of the output.
    filter_width, filter_height, stride : int
        Size of the window, and cells between windows.

    Returns
    -------
    ndarray
        ``(filter_height, filter_width)``, or that for each channel.

    Examples
    --------
    >>> get_patch(np.arange(16).reshape(4, 4), 1, 0, 3, 2, 2)
    array([[ 8,  9, 10],
           [12, 13, 14]])
    """
    rows = slice(i * stride, i * stride + filter_height)
    columns = slice(j * stride, j * stride + filter_width)
    return input_array[..., rows, columns]


def get_max_index(array: npt.NDArray[Any]) -> tuple[int, int]:
    """Give row and column of the maximum of a matrix, the first one row by row.

    Examples
    --------
    >>> get_max_index(np.array([[1, 3], [3, 2]]))
    (0, 1)
    """
    expect_shape("array", array, ("H", "W"))
    row, column = divmod(int(np.argmax(array)), np.shape(array)[1])
    return row, column


def conv(
    input_array: RealArray,
    kernel_array: RealArray,
    output_array: npt.NDArray[np.floating],
    stride: int,
    bias: float,
) -> None:
    """Convolve an image with one filter, into output_array.

    Parameters
    ----------
    input_array, kernel_array : ndarray
        ``(H, W)`` and ``(KH, KW)``, or both with channels before.
    output_array : ndarray
        ``(OH, OW)``: where the result goes.
    stride : int
        Cells between windows.
    bias : float
        Added to each sum.

    Examples
    --------
    >>> output = np.zeros((2, 2))
    >>> conv(np.ones((3, 3)), np.ones((2, 2)), output, 1, 0.5)
    >>> output
    array([[4.5, 4.5],
           [4.5, 4.5]])
    """
    image, kernel = promote(input_array, kernel_array)
    if image.ndim not in (2, 3):
        raise ValueError(f"input_array must have 2 or 3 dimensions, got shape {image.shape}")
    expect_shape("kernel_array", kernel, (*image.shape[:-2], "KH", "KW"))
    images = image.reshape(1, -1, *image.shape[-2:])
    kernels = kernel.reshape(1, -1, *kernel.shape[-2:])
    y = cnnfast.conv2d(images, kernels, np.full(1, bias, image.dtype), stride=stride)
    expect_shape("output_array", output_array, y.shape[2:])
    output_array[...] = y[0, 0]


def padding(input_array: RealArray, zp: int) -> RealArray:
    """Put zeros around the height and width of an image.

    Parameters
    ----------
    input_array : ndarray
        ``(H, W)`` or ``(C, H, W)``.
    zp : int
        Rows and columns on each side.

    Returns
    -------
    ndarray
        A new array; for zp = 0 the same one.

    Examples
    --------
    >>> padding(np.ones((1, 1)), 1)
    array([[0., 0., 0.],
           [0., 1., 0.],
           [0., 0., 0.]])
    """
    zp = integer("zp", zp)
    if zp == 0:
        return input_array
    (image,) = promote(input_array)
    if image.ndim not in (2, 3):
        raise ValueError(f"input_array must have 2 or 3 dimensions, got shape {image.shape}")
    return zero_frame(image, (zp, zp), first=image.ndim - 2)


def element_wise_op(array: npt.NDArray[Any], op: Callable[[Any], Any]) -> None:
    """Put op(x) in the place of each x of an array.

    Parameters
    ----------
    array : ndarray
        Changed in place.
    op : callable
        Of one number; a method of the four activators takes the array at once.

    Examples
    --------
    >>> numbers = np.array([-1.0, 4.0])
    >>> element_wise_op(numbers, lambda x: x + 1)
    >>> numbers
    array([0., 5.])
    """
    if isinstance(getattr(op, "__self__", None), _ArrayActivator):
        array[...] = op(array)
        return
    for index in np.ndindex(array.shape):
        array[index] = op(array[index])


class Filter:
    """The weights and the bias of one filter, with their gradients.

    Parameters
    ----------
    width, height, depth : int
        Size of the filter, and channels it sees.

    Attributes
    ----------
    weights, weights_grad : ndarray
        ``(depth, height, width)``; weights start uniform in [-1e-4, 1e-4].
    bias, bias_grad : float
        Start at 0.

    Examples
    --------
    >>> Filter(5, 3, 2).get_weights().shape
    (2, 3, 5)
    """

    def __init__(self, width: int, height: int, depth: int) -> None:
        self.weights: npt.NDArray[Any] = np.random.uniform(-1e-4, 1e-4, (depth, height, width))
        self.bias: float = 0
        self.weights_grad: npt.NDArray[Any] = np.zeros(self.weights.shape)
        self.bias_grad: float = 0

    def __repr__(self) -> str:
        """Show weights and bias."""
        return f"filter weights:\n{self.weights!r}\nbias:\n{self.bias!r}"

    def get_weights(self) -> npt.NDArray[Any]:
        """Give the weights."""
        return self.weights

    def get_bias(self) -> float:
        """Give the bias."""
        return self.bias

    def update(self, learning_rate: float) -> None:
        """Take one step down the gradients."""
        self.weights = self.weights - learning_rate * self.weights_grad
        self.bias -= learning_rate * self.bias_grad


class ConvLayer:
    """A convolution of one image.

    Parameters
    ----------
    input_width, input_height, channel_number : int
        Size of the image, and its channels.
    filter_width, filter_height, filter_number : int
        Size of the filters, and how many there are.
    zero_padding, stride : int
        Cells around the image, and between windows.
    activator : object
        With ``forward(x)``; applied to the output.
    learning_rate : float
        For `update`.

    Attributes
    ----------
    filters : list of Filter
        Set their weights and bias as you like.
    output_array : ndarray
        ``(filter_number, output_height, output_width)``, from `forward`.
    delta_array : ndarray
        ``(channel_number, input_height, input_width)``, from `backward`.
    input_array, padded_input_array : ndarray
        Those of the last `forward`.

    Examples
    --------
    >>> image, sensitivity, layer = init_test()
    >>> layer.forward(image)
    >>> layer.output_array[0]
    array([[ 6.,  7.,  5.],
           [ 3., -1., -1.],
           [ 2., -1.,  4.]])
    >>> layer.backward(image, sensitivity, IdentityActivator())
    >>> layer.update()
    >>> layer.filters[0]
    filter weights:
    array([[[-1.008,  0.99 , -0.009],
            [-0.005,  0.994, -0.006],
            [-0.006,  0.995,  0.996]],
    <BLANKLINE>
           [[-1.004, -1.001, -0.004],
            [-0.01 , -0.009, -0.012],
            [-0.002, -1.002, -0.002]],
    <BLANKLINE>
           [[-0.002, -0.002, -1.003],
            [-0.005,  0.992, -0.005],
            [ 0.993, -1.008, -1.007]]])
    bias:
    0.991
    """

    def __init__(
        self,
        input_width: int,
        input_height: int,
        channel_number: int,
        filter_width: int,
        filter_height: int,
        filter_number: int,
        zero_padding: int,
        stride: int,
        activator: Activator,
        learning_rate: float,
    ) -> None:
        self.input_width = input_width
        self.input_height = input_height
        self.channel_number = channel_number
        self.filter_width = filter_width
        self.filter_height = filter_height
        self.filter_number = filter_number
        self.zero_padding = zero_padding
        self.stride = stride
        self.activator = activator
        self.learning_rate = learning_rate
        size = self.calculate_output_size
        self.output_width = size(input_width, filter_width, zero_padding, stride)
        self.output_height = size(input_height, filter_height, zero_padding, stride)
        self.output_array = np.zeros((filter_number, self.output_height, self.output_width))
        self.filters = [
            Filter(filter_width, filter_height, channel_number) for _ in range(filter_number)
        ]

    def forward(self, input_array: RealArray) -> None:
        """Compute output_array for an image (C, H, W)."""
        expect_shape("input_array", input_array, self._input_shape())
        self.input_array = input_array
        self.padded_input_array = padding(input_array, self.zero_padding)
        weights = np.stack([each.get_weights() for each in self.filters])
        biases = np.array([each.get_bias() for each in self.filters])
        image, w, b = promote(input_array, weights, biases)
        y, self._cache = cnnfast.conv2d_forward(
            image[None], w, b, stride=self.stride, padding=self.zero_padding
        )
        self.output_array[...] = y[0]
        element_wise_op(self.output_array, self.activator.forward)

    def backward(
        self, input_array: RealArray, sensitivity_array: RealArray, activator: Activator
    ) -> None:
        """Compute delta_array and the gradients of the filters.

        Parameters
        ----------
        input_array : ndarray
            The image, for `forward`.
        sensitivity_array : ndarray
            Gradient of the output before this layer's activator, in the shape of output_array.
        activator : object
            That of the layer before, with ``backward(output)``.
        """
        self.forward(input_array)
        self.bp_sensitivity_map(sensitivity_array, activator)
        self.bp_gradient(sensitivity_array)

    def update(self) -> None:
        """Take one step down the gradients of all filters."""
        for each in self.filters:
            each.update(self.learning_rate)

    def bp_sensitivity_map(self, sensitivity_array: RealArray, activator: Activator) -> None:
        """Compute delta_array, after `forward`."""
        dx, _, _ = cnnfast.conv2d_backward(
            self._output_gradient(sensitivity_array), self._cache, needs="x"
        )
        assert dx is not None
        derivative_array = np.array(promote(self.input_array)[0])
        element_wise_op(derivative_array, activator.backward)
        self.delta_array = dx[0] * derivative_array

    def bp_gradient(self, sensitivity_array: RealArray) -> None:
        """Compute the gradients of the filters, after `forward`."""
        _, dw, db = cnnfast.conv2d_backward(
            self._output_gradient(sensitivity_array), self._cache, needs="wb"
        )
        assert dw is not None and db is not None
        for each, weights_grad, bias_grad in zip(self.filters, dw, db.tolist(), strict=True):
            each.weights_grad, each.bias_grad = weights_grad, bias_grad

    def expand_sensitivity_map(self, sensitivity_array: RealArray) -> npt.NDArray[np.float64]:
        """Spread a sensitivity map as if the stride were 1, zeros between."""
        expect_shape("sensitivity_array", sensitivity_array, self.output_array.shape)
        height = self.input_height - self.filter_height + 2 * self.zero_padding + 1
        width = self.input_width - self.filter_width + 2 * self.zero_padding + 1
        expanded = np.zeros((self.filter_number, height, width))
        expanded[:, :: self.stride, :: self.stride] = sensitivity_array
        return expanded

    def create_delta_array(self) -> npt.NDArray[np.float64]:
        """Give zeros in the shape of delta_array."""
        return np.zeros(self._input_shape())

    @staticmethod
    def calculate_output_size(
        input_size: int, filter_size: int, zero_padding: int, stride: int
    ) -> int:
        """Count the places of a filter along one axis; floors."""
        return output_size(input_size, filter_size, zero_padding, stride)

    def _input_shape(self) -> tuple[int, int, int]:
        return self.channel_number, self.input_height, self.input_width

    def _output_gradient(self, sensitivity_array: RealArray) -> FloatArray:
        """Give the sensitivity map as the gradient of the one image of the last `forward`."""
        expect_shape("sensitivity_array", sensitivity_array, self.output_array.shape)
        return promote_like(self._cache.x, sensitivity_array)[None]


class MaxPoolingLayer:
    """Max pooling of one image.

    Parameters
    ----------
    input_width, input_height, channel_number : int
        Size of the image, and its channels.
    filter_width, filter_height, stride : int
        Size of the windows, and cells between them.

    Attributes
    ----------
    output_array : ndarray
        ``(channel_number, output_height, output_width)``, from `forward`.
    delta_array : ndarray
        In the shape of the image, from `backward`.

    Examples
    --------
    >>> layer = MaxPoolingLayer(4, 4, 1, 2, 2, 2)
    >>> image = np.array([[[1, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]]])
    >>> layer.forward(image)
    >>> layer.output_array
    array([[[6., 8.],
            [3., 4.]]])
    >>> layer.backward(image, np.array([[[1, 2], [2, 4]]]))
    >>> layer.delta_array
    array([[[0., 0., 0., 0.],
            [0., 1., 0., 2.],
            [2., 0., 0., 0.],
            [0., 0., 0., 4.]]])
    """

    def __init__(
        self,
        input_width: int,
        input_height: int,
        channel_number: int,
        filter_width: int,
        filter_height: int,
        stride: int,
    ) -> None:
        self.input_width = input_width
        self.input_height = input_height
        self.channel_number = channel_number
        self.filter_width = filter_width
        self.filter_height = filter_height
        self.stride = stride
        self.output_width = output_size(input_width, filter_width, 0, stride)
        self.output_height = output_size(input_height, filter_height, 0, stride)
        self.output_array = np.zeros((channel_number, self.output_height, self.output_width))

    def forward(self, input_array: RealArray) -> None:
        """Compute output_array for an image (C, H, W)."""
        (image,) = promote(input_array)
        self.output_array[...] = self._pool(image)[0][0]

    def backward(self, input_array: RealArray, sensitivity_array: RealArray) -> None:
        """Compute delta_array: the first maximum of each window takes its sensitivity."""
        image, sensitivity = promote(input_array, sensitivity_array)
        expect_shape("sensitivity_array", sensitivity, self.output_array.shape)
        _, cache = self._pool(image)
        self.delta_array = cnnfast.max_pool2d_backward(sensitivity[None], cache)[0]

    def _pool(self, image: FloatArray) -> tuple[FloatArray, Any]:
        shape = self.channel_number, self.input_height, self.input_width
        expect_shape("input_array", image, shape)
        window = self.filter_height, self.filter_width
        return cnnfast.max_pool2d_forward(image[None], window, stride=self.stride)


def init_test() -> tuple[npt.NDArray[np.int_], npt.NDArray[np.int_], ConvLayer]:
    """Give the worked example of the course.

    Returns
    -------
    input_array, sensitivity_array : ndarray
        ``(3, 5, 5)`` and ``(2, 3, 3)``.
    layer : ConvLayer
        Two filters of 3x3, padding 1, stride 2, learning rate 0.001.

    Examples
    --------
    >>> image, sensitivity, layer = init_test()
    >>> image.shape, sensitivity.shape, layer.output_array.shape
    ((3, 5, 5), (2, 3, 3), (2, 3, 3))
    """
    image = _digits(
        (3, 5, 5),
        "01102 22221 10020 01100 12002",
        "10220 00020 12121 10000 12111",
        "21200 10010 02101 01222 21001",
    )
    sensitivity = _digits((2, 3, 3), "011 222 100", "102 000 121")
    layer = ConvLayer(5, 5, 3, 3, 3, 2, 1, 2, IdentityActivator(), 0.001)
    # Weights are -1, 0 and 1: the digits less one.
    layer.filters[0].weights = _digits((3, 3, 3), "021 121 122", "001 111 101", "110 121 200") - 1.0
    layer.filters[1].weights = _digits((3, 3, 3), "220 002 102", "121 010 021", "011 012 011") - 1.0
    layer.filters[0].bias = 1
    return image, sensitivity, layer


def _digits(shape: tuple[int, ...], *planes: str) -> npt.NDArray[np.int_]:
    """Read planes of rows of digits."""
    return np.array([int(digit) for digit in "".join(planes) if digit != " "]).reshape(shape)


def gradient_check(layer: Any = None, input_array: RealArray | None = None) -> float:
    """Print the gradients of a layer's first filter beside numerical ones.

    The error is the sum of the outputs, so that the activator must be the identity.

    Parameters
    ----------
    layer : ConvLayer, optional
        Any object that works like one; with input_array. Else the worked example.
    input_array : ndarray, optional
        Its image.

    Returns
    -------
    float
        The largest difference.

    Examples
    --------
    >>> layer = ConvLayer(2, 1, 1, 2, 1, 1, 0, 1, IdentityActivator(), 0.001)
    >>> difference = gradient_check(layer, np.array([[[3, 5]]]))
    weights(0,0,0): expected - actural 3.000000 - 3.000000
    weights(0,0,1): expected - actural 5.000000 - 5.000000
    >>> difference < 1e-9
    True
    """
    if layer is None:
        input_array, _, layer = init_test()
    layer.backward(input_array, np.ones(layer.output_array.shape), IdentityActivator())
    first, epsilon, largest = layer.filters[0], 1e-3, 0.0
    first.weights = np.array(first.weights, np.float64)
    for index in np.ndindex(first.weights.shape):
        kept, errors = first.weights[index], []
        for weight in (kept + epsilon, kept - epsilon):
            first.weights[index] = weight
            layer.forward(input_array)
            errors.append(layer.output_array.sum())
        first.weights[index] = kept
        expected = (errors[0] - errors[1]) / (2 * epsilon)
        actual = first.weights_grad[index]
        place = "weights({},{},{})".format(*index)
        print(f"{place}: expected - actural {expected:f} - {actual:f}")
        largest = max(largest, abs(expected - actual))
    return float(largest)
