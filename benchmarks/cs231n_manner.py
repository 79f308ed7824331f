"""Layers in the manner of CS231n's fast ones: NumPy strides, reshapes and one matrix product.

The windows of all images are seen through one strided view, copied once into a matrix whose
columns are the windows, and multiplied by the filters in a single product. The columns are kept
for the backward pass: they give dw at once, and the same product turned round, folded back over
the image one kernel tap at a time, gives dx. There is no compiled code here but NumPy's own.

    w (F, K)  @  columns (K, N*OH*OW)  ->  y (F, N*OH*OW)        K = C*KH*KW

Valid for NCHW, one stride and one zero padding for both directions, without groups or dilation;
any dtype. The columns hold KH*KW/stride**2 times the memory of x, as long as the cache lives.

Max pooling by windows that tile the image is a reshape to (N, C, OH, size, OW, size) and a maximum
over two of its axes; backward compares the windows with their maxima, and lets equal ones share.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

Array = NDArray[np.floating]


class Cache(NamedTuple):
    """What the backward pass needs: shapes and columns, not x itself."""

    x_shape: tuple[int, ...]
    w: Array
    stride: int
    padding: int
    columns: Array


def conv_forward(
    x: Array, w: Array, b: Array, stride: int = 1, padding: int = 0
) -> tuple[Array, Cache]:
    """Convolution by columns; returns y (N, F, OH, OW) and the cache."""
    N, C, H, W = x.shape
    F, _, KH, KW = w.shape
    OH = (H + 2 * padding - KH) // stride + 1
    OW = (W + 2 * padding - KW) // stride + 1
    x_pad = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    sn, sc, sh, sw = x_pad.strides
    windows = as_strided(
        x_pad,
        shape=(C, KH, KW, N, OH, OW),
        strides=(sc, sh, sw, sn, stride * sh, stride * sw),
        writeable=False,
    )
    columns = windows.reshape(C * KH * KW, N * OH * OW)  # the copy
    rows = w.reshape(F, -1) @ columns
    rows += b[:, None]
    y = np.ascontiguousarray(rows.reshape(F, N, OH, OW).transpose(1, 0, 2, 3))
    return y, Cache(x.shape, w, stride, padding, columns)


def conv_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Gradients dx, dw, db of the convolution."""
    x_shape, w, stride, padding, columns = cache
    F, _, KH, KW = w.shape
    dy_rows = dy.transpose(1, 0, 2, 3).reshape(F, -1)
    dw = (dy_rows @ columns.T).reshape(w.shape)
    dcolumns = w.reshape(F, -1).T @ dy_rows
    dx = fold(dcolumns, x_shape, (KH, KW), dy.shape[2:], stride, padding)
    return dx, dw, dy.sum(axis=(0, 2, 3))


def fold(
    columns: Array,
    x_shape: tuple[int, ...],
    kernel: tuple[int, int],
    output: tuple[int, ...],
    stride: int,
    padding: int,
) -> Array:
    """Add every column back onto the window it was cut from, one slice of the image a tap."""
    N, C, H, W = x_shape
    (KH, KW), (OH, OW) = kernel, output
    taps = columns.reshape(C, KH, KW, N, OH, OW)
    x_pad = np.zeros((C, N, H + 2 * padding, W + 2 * padding), dtype=columns.dtype)
    for kh in range(KH):
        for kw in range(KW):
            rows, cells = np.s_[kh : kh + stride * OH : stride, kw : kw + stride * OW : stride]
            x_pad[:, :, rows, cells] += taps[:, kh, kw]
    return x_pad[:, :, padding : padding + H, padding : padding + W].transpose(1, 0, 2, 3)


class PoolCache(NamedTuple):
    """What the backward pass of pooling needs: the windows and their maxima."""

    windows: Array
    y: Array


def max_pool_forward(x: Array, size: int) -> tuple[Array, PoolCache]:
    """Max pooling by square windows that tile x; returns y and the cache."""
    N, C, H, W = x.shape
    windows = x.reshape(N, C, H // size, size, W // size, size)
    y = windows.max(axis=3).max(axis=4)
    return y, PoolCache(windows, y)


def max_pool_backward(dy: Array, cache: PoolCache) -> Array:
    """Gradient dx of max pooling; equal maxima of a window share it."""
    windows, y = cache
    is_largest = windows == y[:, :, :, None, :, None]
    spread = np.broadcast_to(dy[:, :, :, None, :, None], windows.shape)
    dx = np.zeros_like(windows)
    dx[is_largest] = spread[is_largest]
    dx /= is_largest.sum(axis=(3, 5), keepdims=True)
    N, C, OH, size, OW, _ = windows.shape
    return dx.reshape(N, C, OH * size, OW * size)
