"""Fully connected layers: a 1x1 convolution over an image of 1 x N pixels and D channels, NHWC."""

from __future__ import annotations

from dataclasses import dataclass

import numpy.typing as npt

from . import geometry
from .algorithms import Choice, planned
from .arrays import FloatArray, check_cache, check_shape, floats, new_array, parameter, result
from .conv import MASKED_BYTES, Conv2dCache, compute, conv2d_backward, operands
from .geometry import Convolution


@dataclass(frozen=True, eq=False)
class LinearCache:
    """What `linear_forward` leaves for `linear_backward`."""

    x: FloatArray
    w: FloatArray
    conv: Conv2dCache


def linear(
    x: npt.ArrayLike,
    w: npt.ArrayLike,
    b: npt.ArrayLike | None = None,
    *,
    activation: str | None = None,
    out: FloatArray | None = None,
) -> FloatArray:
    """Multiply rows by weights: ``y = x @ w.T + b``.

    Parameters
    ----------
    x : array_like
        ``(N, D)``; float32 or float64.
    w : array_like
        ``(F, D)``; dtype of x.
    b : array_like, optional
        ``(F,)``; dtype of x.
    activation : {None, "relu"}
        Applied to y.
    out : ndarray, optional
        Where to put y.

    Returns
    -------
    ndarray
        y, ``(N, F)``.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv2d`.

    Examples
    --------
    >>> import numpy as np
    >>> import cnnfast
    >>> w = np.array([[3.0, 4.0], [0.0, -1.0]])
    >>> cnnfast.linear(np.array([[1.0, 2.0]]), w, activation="relu")
    array([[11.,  0.]])
    """
    x, w, relu = operands(x, w, 2, activation)
    images = _pixels(x)
    conv, chosen = _planned(images, w)
    b = None if b is None else parameter("b", b, (conv.F,), x)
    shape = len(x), len(w)
    y = new_array(shape, x.dtype) if out is None else result(out, shape, x.dtype, x=x, w=w, b=b)
    compute(chosen.forward.forward, conv, conv.F, images, _taps(w), b, relu, _pixels(y))
    return y if out is None else out


def linear_forward(
    x: npt.ArrayLike,
    w: npt.ArrayLike,
    b: npt.ArrayLike | None = None,
    *,
    activation: str | None = None,
) -> tuple[FloatArray, LinearCache]:
    """Compute `linear`, and keep what `linear_backward` needs.

    Parameters
    ----------
    x, w, b, activation
        As for `linear`.

    Returns
    -------
    y : ndarray
        The result of `linear`.
    cache : LinearCache
        References to x, w, b (and y, with an activation).
    """
    x, w, relu = operands(x, w, 2, activation)
    y_bytes = len(x) * len(w) * x.itemsize
    rows_as = _images if relu and y_bytes > MASKED_BYTES else _pixels
    images, taps = rows_as(x), _taps(w)
    conv, chosen = _planned(images, w)
    b = None if b is None else parameter("b", b, (conv.F,), x)
    y = new_array((len(x), len(w)), x.dtype)
    results = rows_as(y)
    compute(chosen.forward.forward, conv, conv.F, images, taps, b, relu, results)
    cache = Conv2dCache(images, taps, b, results if relu else None, conv, chosen)
    return y, LinearCache(x, w, cache)


def linear_backward(
    dy: npt.ArrayLike, cache: LinearCache, *, needs: str = "xwb"
) -> tuple[FloatArray | None, FloatArray | None, FloatArray | None]:
    """Gradients of `linear`: ``dx = dy @ w``, ``dw = dy.T @ x``, ``db = dy.sum(0)``.

    Parameters
    ----------
    dy : array_like
        ``(N, F)``; dtype of y.
    cache : LinearCache
        From `linear_forward`.
    needs : str
        Which gradients to compute: letters of "xwb".

    Returns
    -------
    dx, dw, db : ndarray or None
        In the shapes of x, w and b; None for what is not needed, and for db where there was no b.
    """
    check_cache(cache, LinearCache, "linear_forward")
    dy = floats("dy", dy)
    check_shape("dy", dy, (len(cache.x), len(cache.w)))
    images = dy.reshape(cache.conv.conv.output_shape)
    dx, dw, db = conv2d_backward(images, cache.conv, needs=needs)
    return (
        None if dx is None else dx.reshape(cache.x.shape),
        None if dw is None else dw.reshape(cache.w.shape),
        db,
    )


def _planned(images: FloatArray, w: FloatArray) -> tuple[Convolution, Choice]:
    """Return the 1x1 convolution of such images, and the algorithms for it."""
    features = images.shape[3]
    if w.shape[1] != features:
        raise ValueError(f"w expects {w.shape[1]} features (w.shape[1]), x has {features}")
    w_shape, options = (*w.shape, 1, 1), (1, 0, 1, 1, "NHWC")
    conv, chosen, _ = planned(geometry.convolution, images.shape, w_shape, w.dtype, options, "auto")
    return conv, chosen


def _pixels(rows: FloatArray) -> FloatArray:
    """Rows as the pixels of one image, in NHWC; without rows, no image."""
    return rows[None, None] if len(rows) else _images(rows)


def _images(rows: FloatArray) -> FloatArray:
    """Rows as images of one pixel, of which ReLU's gradient takes some at a time."""
    return rows[:, None, None]


def _taps(w: FloatArray) -> FloatArray:
    """Weights as those of a 1x1 convolution."""
    return w[:, :, None, None]
