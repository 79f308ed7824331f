"""yizt's `numpy_neuron_network`: its layers, losses, activations and optimisers, run by cnnfast.

Swap it in: replace the lines that import from `nn.layers`, `nn.layers_v2`, `nn.clayers`,
`nn.activations`, `nn.losses` and `nn.optimizers` by the one line
    from cnnfast.courses.numpy_neuron_network import *
and skip `setup.py build_ext -i` and pyximport; or name what you take, as the articles do:
`from cnnfast.courses.numpy_neuron_network import conv_forward, conv_backward`.

Images are z (N, C, H, W), kernels K (C, D, k1, k2) with C input and D output channels; padding,
strides and pooling are pairs (height, width). Nothing keeps a cache: a backward function takes the
arguments of its forward one. As in the course: gradients of weights (dK, dw, db) are divided by N
and those of images (dz) are not; a stride that does not fit fails an assertion in convolution and
floors in pooling; pools are padded with zeros, which count, and the first of equal maxima wins.

Article 2_1 gained 20 % from Cython and asks how to do better: inside its typed loops each output
still costs NumPy calls (a slice, a product, np.sum), microseconds for 27 products. On its problem
(z 3x3x28x28, K 3x4x3x3, float64, one Zen 4 core) loops of our own in that manner took 35.9 ms as
Python and 32.4 as typed Cython; with three loops over numbers in the place of np.sum 0.21; and this
`conv_forward`, which multiplies small matrices in vector registers, 0.038.

Different from the course's files (https://github.com/yizt/numpy_neural_network, 2020-11):
- they run on the NumPy of today (there `np.lib.pad` and `np.float`, which are gone);
- `conv_backward` gives the whole dK (there, with padding, only its centre, as it leaves out the
  padding of z: for 3x3 and padding 1 one number for each pair of channels);
- `conv_forward` of layers_v2 has one row and column less for most strides above 1; here all agree;
- `max_pooling_backward` is that of layers.py and clayers (in layers_v2 every tied maximum takes all
  of the gradient, and windows must tile);
- float32 gives float32 results, mixtures and integers float64 (there mostly float64, and float32
  from pooling float64; in clayers nothing but float64, and tuples, are accepted);
- a NaN in a window is its maximum and takes its gradient; an empty batch has zero gradients;
- `cross_entropy_loss` stays finite where a probability underflows (there nan);
- `tanh_backward` works (there it calls an array), and no exponential overflows;
- `prelu_backward` is the name of the course's `prelu_backwark`, which is kept;
- `selu_forward`, `selu_backward`, `Adadelta` and `Adam`, of which the articles tell, are here;
- `AdaGrad` and `RmsProp` accumulate the squares of gradients, as article 0_4 says (at first the
  code had those of weights); `decay` counts in the learning rate, as there in formula 1;
- `iterate` takes (weights, gradients), as in 2018, or a model with layers, as in 2020, and changes
  the weight arrays in place, so that all who hold them see it;
- the slow copies with `_bak` or `_v1` behind their names are not here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

import cnnfast

from ._gradients import avg_pool_gradient, conv_gradients, max_pool_gradient
from ._promote import FloatArray, RealArray, promote
from ._shapes import expect_shape, output_size, pair, zero_frame

__all__ = [
    "SGD",
    "AdaGrad",
    "Adadelta",
    "Adam",
    "RmsProp",
    "avg_pooling_backward",
    "avg_pooling_forward",
    "conv_backward",
    "conv_forward",
    "cross_entropy_loss",
    "elu_backward",
    "elu_forward",
    "fc_backward",
    "fc_forward",
    "flatten_backward",
    "flatten_forward",
    "global_avg_pooling_backward",
    "global_avg_pooling_forward",
    "global_max_pooling_backward",
    "global_max_pooling_forward",
    "lrelu_backward",
    "lrelu_forward",
    "max_pooling_backward",
    "max_pooling_forward",
    "mean_squared_loss",
    "prelu_backward",
    "prelu_backwark",
    "prelu_forward",
    "relu_backward",
    "relu_forward",
    "selu_backward",
    "selu_forward",
    "sigmoid_backward",
    "sigmoid_forward",
    "tanh_backward",
    "tanh_forward",
]

Pair: TypeAlias = Sequence[int]
Weights: TypeAlias = MutableMapping[str, FloatArray]
Gradients: TypeAlias = Mapping[str, FloatArray]
IMAGES = ("N", "C", "H", "W")

# Of the self-normalising networks, arXiv:1706.02515.
SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


# Convolution.


def conv_forward(
    z: RealArray, K: RealArray, b: RealArray, padding: Pair = (0, 0), strides: Pair = (1, 1)
) -> FloatArray:
    """Convolve images.

    Parameters
    ----------
    z : ndarray
        ``(N, C, H, W)``.
    K : ndarray
        Kernels, ``(C, D, k1, k2)``.
    b : ndarray
        Biases, ``(D,)``.
    padding, strides : (int, int)
        Height and width; the strides must fit.

    Returns
    -------
    ndarray
        ``(N, D, 1 + (H + 2 * padding[0] - k1) // strides[0], ...)``.

    Examples
    --------
    >>> z, K, b = np.ones((8, 16, 5, 5)), np.ones((16, 32, 3, 3)), np.ones(32)
    >>> y = conv_forward(z, K, b)
    >>> y.shape, float(y.min()), float(y.max())
    ((8, 32, 3, 3), 145.0, 145.0)
    """
    images, kernels, bias = promote(z, K, b)
    padding, strides = _expect_convolution(images, kernels, padding, strides)
    expect_shape("b", bias, (kernels.shape[1],))
    return cnnfast.conv2d(
        images, kernels.transpose(1, 0, 2, 3), bias, stride=strides, padding=padding
    )


def conv_backward(
    next_dz: RealArray, K: RealArray, z: RealArray, padding: Pair = (0, 0), strides: Pair = (1, 1)
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Give the gradients of `conv_forward`.

    Parameters
    ----------
    next_dz : ndarray
        Gradient of the result, in its shape.
    K, z, padding, strides
        As for `conv_forward`.

    Returns
    -------
    dK, db, dz : ndarray
        In the shapes of K, b and z; dK and db are divided by N, dz is not.

    Examples
    --------
    >>> z, K = np.ones((2, 1, 3, 3)), np.ones((1, 1, 2, 2))
    >>> dK, db, dz = conv_backward(np.ones((2, 1, 2, 2)), K, z)
    >>> dK[0, 0], db, dz[0, 0]
    (array([[4., 4.],
           [4., 4.]]), array([4.]), array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]]))
    """
    images, kernels, slopes = promote(z, K, next_dz)
    padding, strides = _expect_convolution(images, kernels, padding, strides)
    dz, dw, db = conv_gradients(
        "next_dz", slopes, images, kernels.transpose(1, 0, 2, 3), strides, padding
    )
    N = _count(images)
    return np.ascontiguousarray(dw.transpose(1, 0, 2, 3)) / N, db / N, dz


def _single_channel_conv(
    z: RealArray,
    K: RealArray,
    b: float = 0,
    padding: Pair = (0, 0),
    strides: Pair = (1, 1),
) -> FloatArray:
    """Convolve one channel (H, W) with one kernel (k1, k2).

    Examples
    --------
    >>> _single_channel_conv(np.ones((5, 5)), np.ones((3, 3)), padding=(1, 1), strides=(2, 2))
    array([[4., 6., 4.],
           [6., 9., 6.],
           [4., 6., 4.]])
    """
    image, kernel = promote(z, K)
    expect_shape("z", image, ("H", "W"))
    expect_shape("K", kernel, ("k1", "k2"))
    bias = np.full(1, b, image.dtype)
    return conv_forward(image[None, None], kernel[None, None], bias, padding, strides)[0, 0]


def _insert_zeros(dz: RealArray, strides: Pair) -> RealArray:
    """Put strides - 1 zeros between the rows and the columns of dz (N, D, H, W).

    Examples
    --------
    >>> _insert_zeros(np.ones((1, 1, 2, 2)), (1, 3))
    array([[[[1., 0., 0., 1.],
             [1., 0., 0., 1.]]]])
    """
    expect_shape("dz", dz, ("N", "D", "H", "W"))
    rows, columns = pair("strides", strides)
    N, D, H, W = np.shape(dz)
    spread = np.zeros((N, D, (H - 1) * rows + 1, (W - 1) * columns + 1), np.asarray(dz).dtype)
    spread[:, :, ::rows, ::columns] = dz
    return spread


def _remove_padding(z: FloatArray, padding: Pair) -> FloatArray:
    """Cut padding off the height and width of z (N, C, H, W).

    Examples
    --------
    >>> _remove_padding(np.ones((1, 2, 5, 5)), (1, 0)).shape
    (1, 2, 3, 5)
    """
    expect_shape("z", z, IMAGES)
    rows, columns = pair("padding", padding)
    _, _, H, W = z.shape
    return z[:, :, rows : H - rows, columns : W - columns]


def _expect_convolution(
    images: FloatArray, kernels: FloatArray, padding: Pair, strides: Pair
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Check the shapes and that the strides fit; give padding and strides as pairs."""
    expect_shape("z", images, IMAGES)
    expect_shape("K", kernels, (images.shape[1], "D", "k1", "k2"))
    padding, strides = pair("padding", padding), pair("strides", strides)
    for axis, name in enumerate(("height", "width")):
        size, field = images.shape[2 + axis], kernels.shape[2 + axis]
        output_size(size, field, padding[axis], strides[axis])  # refuses a stride of 0
        fits = (size + 2 * padding[axis] - field) % strides[axis] == 0
        assert fits, f"strides must fit: {name} does not"
    return padding, strides


def _count(rows: FloatArray) -> int:
    """Count what the gradients of weights are divided by; those of an empty batch stay zero."""
    return max(len(rows), 1)


# Pooling.


def max_pooling_forward(
    z: RealArray, pooling: Pair, strides: Pair = (2, 2), padding: Pair = (0, 0)
) -> FloatArray:
    """Take the maximum of each window.

    Parameters
    ----------
    z : ndarray
        Images, ``(N, C, H, W)``.
    pooling, strides, padding : (int, int)
        Height and width; cells of the padding are zeros, and count as such.

    Returns
    -------
    ndarray
        ``(N, C, (H + 2 * padding[0] - pooling[0]) // strides[0] + 1, ...)``.

    Examples
    --------
    >>> max_pooling_forward(np.arange(16.0).reshape(1, 1, 4, 4), (2, 2))
    array([[[[ 5.,  7.],
             [13., 15.]]]])
    """
    images, window, steps, _ = _pool_operands(z, pooling, strides, padding)
    y: FloatArray = cnnfast.max_pool2d(images, window, stride=steps)
    return y


def max_pooling_backward(
    next_dz: RealArray,
    z: RealArray,
    pooling: Pair,
    strides: Pair = (2, 2),
    padding: Pair = (0, 0),
) -> FloatArray:
    """Give the gradient of `max_pooling_forward`.

    Parameters
    ----------
    next_dz : ndarray
        Gradient of the result, in its shape.
    z, pooling, strides, padding
        As for `max_pooling_forward`.

    Returns
    -------
    ndarray
        dz, in the shape of z; what falls to a maximum in the padding is lost.

    Examples
    --------
    >>> z = np.array([3.0, 1.0, 3.0, 2.0]).reshape(1, 1, 2, 2)
    >>> max_pooling_backward(np.full((1, 1, 1, 1), 5.0), z, (2, 2)).ravel()
    array([5., 0., 0., 0.])
    """
    z, slopes = promote(z, next_dz)
    images, window, steps, frame = _pool_operands(z, pooling, strides, padding)
    dz = max_pool_gradient("next_dz", slopes, images, window, steps, ties="first")
    return _remove_padding(dz, frame)


def avg_pooling_forward(
    z: RealArray, pooling: Pair, strides: Pair = (2, 2), padding: Pair = (0, 0)
) -> FloatArray:
    """Take the mean of each window.

    Parameters
    ----------
    z, pooling, strides, padding
        As for `max_pooling_forward`.

    Returns
    -------
    ndarray
        As from `max_pooling_forward`.

    Examples
    --------
    >>> avg_pooling_forward(np.ones((1, 1, 2, 2)), (2, 2), padding=(1, 1))
    array([[[[0.25, 0.25],
             [0.25, 0.25]]]])
    """
    images, window, steps, _ = _pool_operands(z, pooling, strides, padding)
    return cnnfast.avg_pool2d(images, window, stride=steps)


def avg_pooling_backward(
    next_dz: RealArray,
    z: RealArray,
    pooling: Pair,
    strides: Pair = (2, 2),
    padding: Pair = (0, 0),
) -> FloatArray:
    """Give the gradient of `avg_pooling_forward`.

    Parameters
    ----------
    next_dz : ndarray
        Gradient of the result, in its shape.
    z, pooling, strides, padding
        As for `max_pooling_forward`.

    Returns
    -------
    ndarray
        dz, in the shape of z.

    Examples
    --------
    >>> avg_pooling_backward(np.full((1, 1, 1, 1), 8.0), np.zeros((1, 1, 2, 2)), (2, 2)).ravel()
    array([2., 2., 2., 2.])
    """
    z, slopes = promote(z, next_dz)
    images, window, steps, frame = _pool_operands(z, pooling, strides, padding)
    dz = avg_pool_gradient("next_dz", slopes, images, window, steps)
    return _remove_padding(dz, frame)


def global_max_pooling_forward(z: RealArray) -> FloatArray:
    """Take the maximum of each channel: z (N, C, H, W) to (N, C).

    Examples
    --------
    >>> global_max_pooling_forward(np.arange(8.0).reshape(1, 2, 2, 2))
    array([[3., 7.]])
    """
    return cnnfast.global_max_pool2d(_images(z))


def global_max_pooling_backward(next_dz: RealArray, z: RealArray) -> FloatArray:
    """Give dz of `global_max_pooling_forward`: next_dz (N, C) at each first maximum.

    Examples
    --------
    >>> z = np.array([3.0, 1.0, 3.0, 2.0]).reshape(1, 1, 2, 2)
    >>> global_max_pooling_backward(np.array([[5.0]]), z).ravel()
    array([5., 0., 0., 0.])
    """
    z, slopes = promote(z, next_dz)
    y, cache = cnnfast.global_max_pool2d_forward(_images(z))
    expect_shape("next_dz", slopes, y.shape)
    return cnnfast.global_max_pool2d_backward(slopes, cache)


def global_avg_pooling_forward(z: RealArray) -> FloatArray:
    """Take the mean of each channel: z (N, C, H, W) to (N, C).

    Examples
    --------
    >>> global_avg_pooling_forward(np.arange(8.0).reshape(1, 2, 2, 2))
    array([[1.5, 5.5]])
    """
    return cnnfast.global_avg_pool2d(_images(z))


def global_avg_pooling_backward(next_dz: RealArray, z: RealArray) -> FloatArray:
    """Give dz of `global_avg_pooling_forward`: equal parts of next_dz (N, C).

    Examples
    --------
    >>> global_avg_pooling_backward(np.array([[8.0]]), np.zeros((1, 1, 2, 2))).ravel()
    array([2., 2., 2., 2.])
    """
    z, slopes = promote(z, next_dz)
    y, cache = cnnfast.global_avg_pool2d_forward(_images(z))
    expect_shape("next_dz", slopes, y.shape)
    return cnnfast.global_avg_pool2d_backward(slopes, cache)


def _images(z: RealArray) -> FloatArray:
    (images,) = promote(z)
    expect_shape("z", images, IMAGES)
    return images


def _pool_operands(
    z: RealArray, pooling: Pair, strides: Pair, padding: Pair
) -> tuple[FloatArray, tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Give z in its frame of zeros, and the window, the strides and the frame as pairs."""
    window, steps = pair("pooling", pooling), pair("strides", strides)
    frame = pair("padding", padding)
    return zero_frame(_images(z), frame, first=2), window, steps, frame


# Fully connected layers.


def flatten_forward(z: RealArray) -> RealArray:
    """Lay each image out as a row: z (N, d1, d2, ...) to (N, d1 * d2 * ...).

    Examples
    --------
    >>> flatten_forward(np.ones((2, 3, 4, 5))).shape
    (2, 60)
    """
    return np.reshape(z, (len(z), int(np.prod(np.shape(z)[1:]))))


def flatten_backward(next_dz: RealArray, z: RealArray) -> RealArray:
    """Give the rows next_dz the shape of z again.

    Examples
    --------
    >>> flatten_backward(np.ones((2, 60)), np.ones((2, 3, 4, 5))).shape
    (2, 3, 4, 5)
    """
    expect_shape("next_dz", next_dz, np.shape(flatten_forward(z)))
    return np.reshape(next_dz, np.shape(z))


def fc_forward(z: RealArray, W: RealArray, b: RealArray) -> FloatArray:
    """Multiply rows by weights: ``z @ W + b``.

    Parameters
    ----------
    z : ndarray
        ``(N, n)``.
    W : ndarray
        ``(n, m)``.
    b : ndarray
        ``(m,)``.

    Returns
    -------
    ndarray
        ``(N, m)``.

    Examples
    --------
    >>> fc_forward(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]), np.array([0.5]))
    array([[11.5]])
    """
    rows, weights, bias = promote(z, W, b)
    _expect_rows(rows, weights)
    expect_shape("b", bias, (weights.shape[1],))
    return cnnfast.linear(rows, weights.T, bias)


def fc_backward(
    next_dz: RealArray, W: RealArray, z: RealArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Give the gradients of `fc_forward`.

    Parameters
    ----------
    next_dz : ndarray
        Gradient of the result, ``(N, m)``.
    W, z : ndarray
        As for `fc_forward`.

    Returns
    -------
    dw, db, dz : ndarray
        In the shapes of W, b and z; dw and db are divided by N, dz is not.

    Examples
    --------
    >>> fc_backward(np.array([[2.0], [4.0]]), np.array([[3.0]]), np.array([[1.0], [5.0]]))
    (array([[11.]]), array([3.]), array([[ 6.],
           [12.]]))
    """
    rows, weights, slopes = promote(z, W, next_dz)
    _expect_rows(rows, weights)
    expect_shape("next_dz", slopes, (len(rows), weights.shape[1]))
    N = _count(rows)
    dz = cnnfast.linear(slopes, weights)
    if not len(rows):
        return np.zeros_like(weights), np.zeros_like(weights[0]), dz
    dw = cnnfast.linear(np.ascontiguousarray(rows.T), slopes.T)
    return dw / N, slopes.sum(axis=0) / N, dz


def _expect_rows(rows: FloatArray, weights: FloatArray) -> None:
    expect_shape("z", rows, ("N", "n"))
    expect_shape("W", weights, (rows.shape[1], "m"))


# Losses.


def mean_squared_loss(y_predict: RealArray, y_true: RealArray) -> tuple[Any, FloatArray]:
    """Compare numbers: the mean, over all rows, of the sum of a row's squared errors.

    Parameters
    ----------
    y_predict, y_true : ndarray
        Of one shape, rows along the last axis.

    Returns
    -------
    loss : float
        The mean.
    dy : ndarray
        ``y_predict - y_true``, for the layers, which divide by N; half the gradient of the sum.

    Examples
    --------
    >>> loss, dy = mean_squared_loss(np.array([[1.0, 3.0]]), np.array([[0.0, 1.0]]))
    >>> float(loss), dy
    (5.0, array([[1., 2.]]))
    """
    predicted, wanted = _expect_alike(y_predict, y_true)
    dy = predicted - wanted
    return np.mean(np.sum(np.square(dy), axis=-1)), dy


def cross_entropy_loss(y_predict: RealArray, y_true: RealArray) -> tuple[Any, FloatArray]:
    """Compare scores, by their softmax, with probabilities: the mean cross entropy of a row.

    Parameters
    ----------
    y_predict : ndarray
        Scores ``(N, d)``, before the softmax.
    y_true : ndarray
        Probabilities ``(N, d)``, most often one 1 in a row.

    Returns
    -------
    loss : float
        The mean.
    dy : ndarray
        ``softmax(y_predict) - y_true``, for the layers, which divide by N.

    Examples
    --------
    >>> loss, dy = cross_entropy_loss(np.array([[0.0, 0.0]]), np.array([[1.0, 0.0]]))
    >>> round(float(loss), 4), dy
    (0.6931, array([[-0.5,  0.5]]))
    """
    scores, wanted = _expect_alike(y_predict, y_true)
    shifted = scores - scores.max(axis=-1, keepdims=True)
    log_probability = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    loss = np.mean(np.sum(-wanted * log_probability, axis=-1))
    return loss, np.exp(log_probability) - wanted


def _expect_alike(y_predict: RealArray, y_true: RealArray) -> Sequence[FloatArray]:
    predicted, wanted = promote(y_predict, y_true)
    expect_shape("y_true", wanted, predicted.shape)
    return predicted, wanted


# Activations: z is what comes in, next_dz the gradient of what goes out.


def sigmoid_forward(z: RealArray) -> FloatArray:
    """Give 1 / (1 + exp(-z)).

    Examples
    --------
    >>> sigmoid_forward(np.array([-1000, 0, 1000]))
    array([0. , 0.5, 1. ])
    """
    (z,) = promote(z)
    return np.exp(-np.logaddexp(0, -z))


def sigmoid_backward(next_dz: RealArray, z: RealArray) -> FloatArray:
    """Give dz of `sigmoid_forward`.

    Examples
    --------
    >>> sigmoid_backward(np.array([4.0]), np.array([0.0]))
    array([1.])
    """
    next_dz, z = promote(next_dz, z)
    y = sigmoid_forward(z)
    return next_dz * y * (1 - y)


def tanh_forward(z: RealArray) -> FloatArray:
    """Give tanh(z).

    Examples
    --------
    >>> tanh_forward(np.array([0, 1000]))
    array([0., 1.])
    """
    (z,) = promote(z)
    return np.tanh(z)


def tanh_backward(next_dz: RealArray, z: RealArray) -> FloatArray:
    """Give dz of `tanh_forward`.

    Examples
    --------
    >>> tanh_backward(np.array([4.0]), np.array([0.0]))
    array([4.])
    """
    next_dz, z = promote(next_dz, z)
    y = tanh_forward(z)
    return next_dz * (1 - np.square(y))


def relu_forward(z: RealArray) -> FloatArray:
    """Give z where it is positive, else 0.

    Examples
    --------
    >>> relu_forward(np.array([-2.0, 3.0]))
    array([0., 3.])
    """
    (z,) = promote(z)
    return np.maximum(0, z)


def relu_backward(next_dz: RealArray, z: RealArray) -> FloatArray:
    """Give dz of `relu_forward`.

    Examples
    --------
    >>> relu_backward(np.array([4.0, 4.0]), np.array([-2.0, 3.0]))
    array([0., 4.])
    """
    next_dz, z = promote(next_dz, z)
    return np.where(z > 0, next_dz, 0)


def lrelu_forward(z: RealArray, alpha: float = 0.1) -> FloatArray:
    """Give z where it is positive, else alpha * z.

    Examples
    --------
    >>> lrelu_forward(np.array([-2.0, 3.0]))
    array([-0.2,  3. ])
    """
    (z,) = promote(z)
    return np.where(z > 0, z, alpha * z)


def lrelu_backward(next_dz: RealArray, z: RealArray, alpha: float = 0.1) -> FloatArray:
    """Give dz of `lrelu_forward`.

    Examples
    --------
    >>> lrelu_backward(np.array([4.0, 4.0]), np.array([-2.0, 3.0]))
    array([0.4, 4. ])
    """
    next_dz, z = promote(next_dz, z)
    return np.where(z > 0, next_dz, alpha * next_dz)


def prelu_forward(z: RealArray, alpha: RealArray) -> FloatArray:
    """Give z where it is positive, else alpha * z; alpha, an array like z, is learnt.

    Examples
    --------
    >>> prelu_forward(np.array([-2.0, 3.0]), np.array([0.5, 0.5]))
    array([-1.,  3.])
    """
    z, alpha = promote(z, alpha)
    return np.where(z > 0, z, alpha * z)


def prelu_backward(
    next_dz: RealArray, z: RealArray, alpha: RealArray
) -> tuple[FloatArray, FloatArray]:
    """Give (dalpha, dz) of `prelu_forward`, both in the shape of z.

    Examples
    --------
    >>> prelu_backward(np.array([4.0, 4.0]), np.array([-2.0, 3.0]), np.array([0.5, 0.5]))
    (array([-8.,  0.]), array([2., 4.]))
    """
    next_dz, z, alpha = promote(next_dz, z, alpha)
    return np.where(z > 0, 0, z * next_dz), np.where(z > 0, next_dz, alpha * next_dz)


prelu_backwark = prelu_backward


def elu_forward(z: RealArray, alpha: float = 0.1) -> FloatArray:
    """Give z where it is positive, else alpha * (exp(z) - 1).

    Examples
    --------
    >>> elu_forward(np.array([-1000.0, 3.0]))
    array([-0.1,  3. ])
    """
    (z,) = promote(z)
    return np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0)))


def elu_backward(next_dz: RealArray, z: RealArray, alpha: float = 0.1) -> FloatArray:
    """Give dz of `elu_forward`.

    Examples
    --------
    >>> elu_backward(np.array([4.0, 4.0]), np.array([0.0, 3.0]))
    array([0.4, 4. ])
    """
    next_dz, z = promote(next_dz, z)
    return np.where(z > 0, next_dz, alpha * next_dz * np.exp(np.minimum(z, 0)))


def selu_forward(z: RealArray) -> FloatArray:
    """`elu_forward` with alpha = 1.6733, times 1.0507: mean 0 and variance 1 stay (1706.02515).

    Examples
    --------
    >>> selu_forward(np.array([-1000.0, 1.0])).round(4)
    array([-1.7581,  1.0507])
    """
    return SELU_SCALE * elu_forward(z, SELU_ALPHA)


def selu_backward(next_dz: RealArray, z: RealArray) -> FloatArray:
    """Give dz of `selu_forward`.

    Examples
    --------
    >>> selu_backward(np.array([1.0, 1.0]), np.array([0.0, 3.0])).round(4)
    array([1.7581, 1.0507])
    """
    return SELU_SCALE * elu_backward(next_dz, z, SELU_ALPHA)


# Optimisers.


class Layer(Protocol):
    """What a model of the course is made of: dictionaries of weights and of their gradients."""

    weights: Weights
    gradients: Gradients


class Model(Protocol):
    """A network of the course."""

    layers: Sequence[Layer]


class _Optimizer:
    """Takes a step down the gradients; a subclass says how far, by name of the weight.

    Parameters
    ----------
    weights : dict
        Arrays by name.
    lr : float
        Learning rate of the first step.
    decay : float
        Step t has ``lr / (1 + t * decay)``.
    """

    def __init__(self, weights: Weights, lr: float, decay: float) -> None:
        self.lr = self.init_lr = lr
        self.decay = decay
        self.iterations = 0

    def iterate(
        self, weights: Weights | Model, gradients: Gradients | None = None
    ) -> Weights | Model:
        """Take one step.

        Parameters
        ----------
        weights : dict or model
            Arrays by name; or, without gradients, a model whose layers have the dictionaries
            ``weights`` and ``gradients``. The arrays are changed in place.
        gradients : dict, optional
            Gradients by name.

        Returns
        -------
        dict or model
            What was given.
        """
        self.lr = self.init_lr / (1 + self.iterations * self.decay)
        for arrays, slopes in _dictionaries(weights, gradients):
            for name in arrays:
                arrays[name] -= self._step(name, slopes[name])
        self.iterations += 1
        return weights

    def _step(self, name: str, gradient: FloatArray) -> FloatArray:
        raise NotImplementedError


def _dictionaries(
    weights: Weights | Model, gradients: Gradients | None
) -> Iterator[tuple[Weights, Gradients]]:
    """Give weights with their gradients, a layer at a time."""
    if isinstance(weights, Mapping):
        if gradients is None:
            raise TypeError("gradients must be a dictionary where weights is one, got None")
        yield weights, gradients
    else:
        for layer in weights.layers:
            yield layer.weights, layer.gradients


def _zeros_like(weights: Weights) -> dict[str, FloatArray]:
    """Give an array of zeros for each weight."""
    return {name: np.zeros_like(array) for name, array in weights.items()}


class SGD(_Optimizer):
    """Gradient descent with momentum: ``v = momentum * v + lr * g; w -= v``.

    Parameters
    ----------
    weights, lr, decay
        Arrays by name; learning rate and its decay.
    momentum : float
        How much of the last step is in the next.

    Examples
    --------
    >>> weights = {"W": np.array([1.0])}
    >>> sgd = SGD(weights, lr=0.5, momentum=0.5, decay=0)
    >>> for _ in range(2):
    ...     _ = sgd.iterate(weights, {"W": np.array([1.0])})
    >>> weights["W"]
    array([-0.25])
    """

    def __init__(
        self, weights: Weights, lr: float = 0.01, momentum: float = 0.9, decay: float = 1e-5
    ) -> None:
        super().__init__(weights, lr, decay)
        self.momentum = momentum
        self.v = _zeros_like(weights)

    def _step(self, name: str, gradient: FloatArray) -> FloatArray:
        self.v[name] = self.momentum * self.v[name] + self.lr * gradient
        return self.v[name]


class AdaGrad(_Optimizer):
    """A rate for each weight: ``s += g**2; w -= lr * g / sqrt(s + epsilon)``.

    Parameters
    ----------
    weights, lr, decay
        Arrays by name; learning rate and its decay.
    epsilon : float
        Keeps the root from zero.

    Examples
    --------
    >>> weights = {"W": np.array([1.0, 1.0])}
    >>> _ = AdaGrad(weights, lr=0.5).iterate(weights, {"W": np.array([10.0, -3.0])})
    >>> weights["W"].round(6)
    array([0.5, 1.5])
    """

    def __init__(
        self, weights: Weights, lr: float = 0.01, epsilon: float = 1e-6, decay: float = 0
    ) -> None:
        super().__init__(weights, lr, decay)
        self.epsilon = epsilon
        self.s = _zeros_like(weights)

    def _step(self, name: str, gradient: FloatArray) -> FloatArray:
        self.s[name] = self._accumulated(self.s[name], np.square(gradient))
        return self.lr * gradient / np.sqrt(self.s[name] + self.epsilon)

    def _accumulated(self, s: FloatArray, squares: FloatArray) -> FloatArray:
        return s + squares


class RmsProp(AdaGrad):
    """AdaGrad that forgets: ``s = gamma * s + (1 - gamma) * g**2``.

    Parameters
    ----------
    weights, lr, epsilon, decay
        As for `AdaGrad`.
    gamma : float
        How much of the past is kept.

    Examples
    --------
    >>> weights = {"W": np.array([1.0])}
    >>> _ = RmsProp(weights, gamma=0.75, lr=0.5).iterate(weights, {"W": np.array([10.0])})
    >>> weights["W"].round(6)
    array([0.])
    """

    def __init__(
        self,
        weights: Weights,
        gamma: float = 0.9,
        lr: float = 0.01,
        epsilon: float = 1e-6,
        decay: float = 0,
    ) -> None:
        super().__init__(weights, lr, epsilon, decay)
        self.gamma = gamma

    def _accumulated(self, s: FloatArray, squares: FloatArray) -> FloatArray:
        return _blend(self.gamma, s, squares)


class Adadelta(RmsProp):
    """RmsProp in the units of the weights (arXiv:1212.5701).

    ``step = g * sqrt(d + epsilon) / sqrt(s + epsilon); d = gamma * d + (1 - gamma) * step**2;
    w -= lr * step``.

    Parameters
    ----------
    weights, gamma, lr, epsilon, decay
        As for `RmsProp`; the paper has no lr, which is 1.

    Examples
    --------
    >>> weights = {"W": np.array([1.0])}
    >>> _ = Adadelta(weights, epsilon=1.0, gamma=0.75).iterate(weights, {"W": np.array([-2.0])})
    >>> weights["W"].round(4)
    array([2.4142])
    """

    def __init__(
        self,
        weights: Weights,
        gamma: float = 0.95,
        lr: float = 1.0,
        epsilon: float = 1e-6,
        decay: float = 0,
    ) -> None:
        super().__init__(weights, gamma, lr, epsilon, decay)
        self.d = _zeros_like(weights)

    def _step(self, name: str, gradient: FloatArray) -> FloatArray:
        self.s[name] = self._accumulated(self.s[name], np.square(gradient))
        units = np.sqrt((self.d[name] + self.epsilon) / (self.s[name] + self.epsilon))
        step = units * gradient
        self.d[name] = self._accumulated(self.d[name], np.square(step))
        return self.lr * step


class Adam(_Optimizer):
    """Momentum and RmsProp, both freed of their start at zero (arXiv:1412.6980).

    ``m = beta1 * m + (1 - beta1) * g; v = beta2 * v + (1 - beta2) * g**2; w -= lr * (m / (1 -
    beta1**t)) / (sqrt(v / (1 - beta2**t)) + epsilon)``, t counted from 1.

    Parameters
    ----------
    weights, lr, decay
        Arrays by name; learning rate and its decay.
    beta1, beta2 : float
        How much of the past the means keep.
    epsilon : float
        Keeps the root from zero.

    Examples
    --------
    >>> weights = {"W": np.array([1.0, 1.0])}
    >>> _ = Adam(weights, lr=0.25).iterate(weights, {"W": np.array([10.0, -3.0])})
    >>> weights["W"].round(6)
    array([0.75, 1.25])
    """

    def __init__(
        self,
        weights: Weights,
        lr: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        decay: float = 0,
    ) -> None:
        super().__init__(weights, lr, decay)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self.m, self.v = _zeros_like(weights), _zeros_like(weights)

    def _step(self, name: str, gradient: FloatArray) -> FloatArray:
        t = self.iterations + 1
        m = self.m[name] = _blend(self.beta1, self.m[name], gradient)
        v = self.v[name] = _blend(self.beta2, self.v[name], np.square(gradient))
        spread = np.sqrt(v / (1 - self.beta2**t)) + self.epsilon
        return self.lr * (m / (1 - self.beta1**t)) / spread


def _blend(kept: float, old: FloatArray, new: FloatArray) -> FloatArray:
    """Keep a part of the old and fill up with the new."""
    return kept * old + (1 - kept) * new
