"""deeplearning.ai, course 4 week 1, "Convolutional model: step by step", run by cnnfast (NHWC).

Swap it in: below the cells that define the functions, in a cell of its own, run the one line
    from cnnfast.courses.deeplearning_ai import *
and the cells after it, the course's own tests and your network use these eight functions; for one
of them alone: `from cnnfast.courses.deeplearning_ai import conv_backward`. The names, arguments,
shapes and caches are those of the notebook; run your own cell again to have yours back.

Images are (m, n_H, n_W, n_C), weights (f, f, n_C_prev, n_C), biases (1, 1, 1, n_C); hparameters is
{"stride", "pad"} for convolution and {"stride", "f"} for pooling. As in the course, sizes floor,
every one of equal maxima takes the whole gradient of its window, and no gradient is divided by m.

The notebook of 2017 printed other numbers than those since 2018: it added the bias once for each
of the f * f * n_C_prev cells of a window. `b * f * f * n_C_prev` gives its numbers here, too.

Different from the notebook's solution:
- `conv_backward` works for pad = 0 (there its `[pad:-pad]` is empty, and it fails);
- `conv_single_step` takes b as a number or as an array of one (there `float(b)` is a TypeError for
  a (1, 1, 1) array in NumPy of today), and the sum has the common dtype of all three;
- a mode other than "max" and "average" is a ValueError (there the result stays zero);
- filters need not be square;
- float32 arrays give float32 results (there always float64), integers give float64;
- a NaN in a window takes the gradient of its maximum (there nothing does);
- an array of the wrong shape is a ValueError that names it, dZ and dA included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

import cnnfast

from ._gradients import avg_pool_gradient, conv_gradients, max_pool_gradient
from ._promote import FloatArray, RealArray, promote
from ._shapes import expect_shape, integer, zero_frame

__all__ = [
    "conv_backward",
    "conv_forward",
    "conv_single_step",
    "create_mask_from_window",
    "distribute_value",
    "pool_backward",
    "pool_forward",
    "zero_pad",
]

Hyperparameters: TypeAlias = Mapping[str, int]
ConvCache: TypeAlias = tuple[RealArray, RealArray, RealArray, Hyperparameters]
PoolCache: TypeAlias = tuple[RealArray, Hyperparameters]


def zero_pad(X: RealArray, pad: int) -> RealArray:
    """Put zeros around the height and width of images.

    Parameters
    ----------
    X : ndarray
        ``(m, n_H, n_W, n_C)``.
    pad : int
        Rows and columns on each side.

    Returns
    -------
    ndarray
        ``(m, n_H + 2 * pad, n_W + 2 * pad, n_C)``, dtype of X.

    Examples
    --------
    >>> zero_pad(np.ones((4, 3, 3, 2)), 3).shape
    (4, 9, 9, 2)
    """
    expect_shape("X", X, ("m", "n_H", "n_W", "n_C"))
    pad = integer("pad", pad)
    return zero_frame(np.asarray(X), (pad, pad), first=1)


def conv_single_step(a_slice_prev: RealArray, W: RealArray, b: RealArray | float) -> Any:
    """Apply one filter at one place.

    Parameters
    ----------
    a_slice_prev, W : ndarray
        The window and the filter, both ``(f, f, n_C_prev)``.
    b : ndarray or float
        The bias, ``(1, 1, 1)``, or a number.

    Returns
    -------
    np.float64 or np.float32
        ``sum(a_slice_prev * W) + b``.

    Examples
    --------
    >>> float(conv_single_step(np.full((2, 2, 3), 2.0), np.ones((2, 2, 3)), np.ones((1, 1, 1))))
    25.0
    """
    window, weights, bias = promote(a_slice_prev, W, b)
    expect_shape("W", weights, window.shape)
    if bias.size != 1:
        raise ValueError(f"b must be one number, got shape {bias.shape}")
    return np.sum(window * weights) + bias.reshape(())


def conv_forward(
    A_prev: RealArray, W: RealArray, b: RealArray, hparameters: Hyperparameters
) -> tuple[FloatArray, ConvCache]:
    """Convolve images.

    Parameters
    ----------
    A_prev : ndarray
        Images, ``(m, n_H_prev, n_W_prev, n_C_prev)``.
    W : ndarray
        Weights, ``(f, f, n_C_prev, n_C)``.
    b : ndarray
        Biases, ``(1, 1, 1, n_C)``.
    hparameters : dict
        ``{"stride", "pad"}``.

    Returns
    -------
    Z : ndarray
        ``(m, n_H, n_W, n_C)`` with ``n_H = floor((n_H_prev - f + 2 * pad) / stride) + 1``.
    cache : tuple
        ``(A_prev, W, b, hparameters)``, for `conv_backward`.

    Examples
    --------
    >>> Z, cache = conv_forward(
    ...     np.ones((2, 5, 7, 4)), np.ones((3, 3, 4, 8)), np.zeros((1, 1, 1, 8)),
    ...     {"stride": 2, "pad": 1},
    ... )
    >>> Z.shape, float(Z[0, 0, 0, 0]), float(Z[0, 1, 1, 0])
    ((2, 3, 4, 8), 16.0, 36.0)
    """
    images, weights, bias = promote(A_prev, W, b)
    _expect_operands(images, weights)
    expect_shape("b", bias, (1, 1, 1, weights.shape[3]))
    Z = cnnfast.conv2d(
        images,
        weights.transpose(3, 2, 0, 1),
        bias.reshape(-1),
        stride=hparameters["stride"],
        padding=hparameters["pad"],
        layout="NHWC",
    )
    return Z, (A_prev, W, b, hparameters)


def conv_backward(dZ: RealArray, cache: ConvCache) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Give the gradients of `conv_forward`.

    Parameters
    ----------
    dZ : ndarray
        Gradient of Z, in its shape.
    cache : tuple
        From `conv_forward`.

    Returns
    -------
    dA_prev, dW, db : ndarray
        In the shapes of A_prev, W and b; sums over the images, not means.

    Examples
    --------
    >>> Z, cache = conv_forward(
    ...     np.ones((1, 3, 3, 1)), np.full((2, 2, 1, 1), 2.0), np.zeros((1, 1, 1, 1)),
    ...     {"stride": 1, "pad": 0},
    ... )
    >>> dA_prev, dW, db = conv_backward(np.ones_like(Z), cache)
    >>> dA_prev[0, :, :, 0]
    array([[2., 4., 2.],
           [4., 8., 4.],
           [2., 4., 2.]])
    >>> float(db[0, 0, 0, 0])
    4.0
    """
    A_prev, W, _, hparameters = cache
    images, weights, slopes = promote(A_prev, W, dZ)
    _expect_operands(images, weights)
    stride, pad = hparameters["stride"], hparameters["pad"]
    dA_prev, dW, db = conv_gradients(
        "dZ",
        slopes,
        images,
        weights.transpose(3, 2, 0, 1),
        (stride, stride),
        (pad, pad),
        layout="NHWC",
    )
    dW = np.ascontiguousarray(dW.transpose(2, 3, 1, 0))
    return dA_prev, dW, db.reshape(1, 1, 1, -1)


def pool_forward(
    A_prev: RealArray, hparameters: Hyperparameters, mode: str = "max"
) -> tuple[FloatArray, PoolCache]:
    """Pool images.

    Parameters
    ----------
    A_prev : ndarray
        Images, ``(m, n_H_prev, n_W_prev, n_C)``.
    hparameters : dict
        ``{"stride", "f"}``.
    mode : {"max", "average"}
        What becomes of a window.

    Returns
    -------
    A : ndarray
        ``(m, n_H, n_W, n_C)`` with ``n_H = floor((n_H_prev - f) / stride) + 1``.
    cache : tuple
        ``(A_prev, hparameters)``, for `pool_backward`.

    Examples
    --------
    >>> A, cache = pool_forward(np.arange(16.0).reshape(1, 4, 4, 1), {"stride": 2, "f": 2})
    >>> A.ravel()
    array([ 5.,  7., 13., 15.])
    """
    pool: Callable[..., FloatArray] = _of_mode(mode, cnnfast.max_pool2d, cnnfast.avg_pool2d)
    (images,) = promote(A_prev)
    expect_shape("A_prev", images, ("m", "n_H_prev", "n_W_prev", "n_C"))
    A = pool(images, hparameters["f"], stride=hparameters["stride"], layout="NHWC")
    return A, (A_prev, hparameters)


def pool_backward(dA: RealArray, cache: PoolCache, mode: str = "max") -> FloatArray:
    """Give the gradient of `pool_forward`.

    Parameters
    ----------
    dA : ndarray
        Gradient of A, in its shape.
    cache : tuple
        From `pool_forward`.
    mode : {"max", "average"}
        That of `pool_forward`.

    Returns
    -------
    ndarray
        dA_prev, in the shape of A_prev; windows that overlap add up.

    Examples
    --------
    >>> A, cache = pool_forward(np.array([3.0, 1.0, 3.0, 2.0]).reshape(1, 2, 2, 1),
    ...                         {"stride": 1, "f": 2})
    >>> pool_backward(np.full((1, 1, 1, 1), 5.0), cache).ravel()
    array([5., 0., 5., 0.])
    """
    gradient = _of_mode(mode, partial(max_pool_gradient, ties="all"), avg_pool_gradient)
    A_prev, hparameters = cache
    images, slopes = promote(A_prev, dA)
    expect_shape("A_prev", images, ("m", "n_H_prev", "n_W_prev", "n_C"))
    f, stride = hparameters["f"], hparameters["stride"]
    return gradient("dA", slopes, images, (f, f), (stride, stride), layout="NHWC")


def create_mask_from_window(x: RealArray) -> npt.NDArray[np.bool_]:
    """Mark where a window has its maximum.

    Parameters
    ----------
    x : ndarray
        The window, ``(f, f)``.

    Returns
    -------
    ndarray of bool
        True at each of equal maxima.

    Examples
    --------
    >>> create_mask_from_window(np.array([[-1, 2, 3], [2, -3, 2], [1, 5, -2]]))
    array([[False, False, False],
           [False, False, False],
           [False,  True, False]])
    """
    window = np.asarray(x)
    return np.asarray(window == window.max())


def distribute_value(dz: float, shape: tuple[int, int]) -> npt.NDArray[np.floating]:
    """Spread a gradient over a window in equal parts.

    Parameters
    ----------
    dz : float
        What to spread.
    shape : (int, int)
        ``(n_H, n_W)`` of the window.

    Returns
    -------
    ndarray
        Of that shape, ``dz / (n_H * n_W)`` everywhere.

    Examples
    --------
    >>> distribute_value(2, (2, 2))
    array([[0.5, 0.5],
           [0.5, 0.5]])
    """
    n_H, n_W = shape
    return np.full(shape, dz / (n_H * n_W))


def _expect_operands(images: FloatArray, weights: FloatArray) -> None:
    expect_shape("A_prev", images, ("m", "n_H_prev", "n_W_prev", "n_C_prev"))
    expect_shape("W", weights, ("f", "f", images.shape[3], "n_C"))


def _of_mode(mode: str, max_pool: Callable[..., Any], average_pool: Callable[..., Any]) -> Any:
    """Give the function of a mode."""
    if mode not in ("max", "average"):
        raise ValueError(f'mode must be "max" or "average", got {mode!r}')
    return max_pool if mode == "max" else average_pool
