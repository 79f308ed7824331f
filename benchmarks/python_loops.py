"""Convolution and max pooling as a student writes them first: loops with a little NumPy inside.

This is the naive side of the comparison. It follows the definition: every output cell is the sum
over its window of input times weights, plus the bias; the gradients send every ``dy`` back along
the same products. Valid for NCHW, one stride and one zero padding for both directions, without
groups or dilation; any dtype.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


class ConvCache(NamedTuple):
    """What the backward pass of a convolution needs to remember."""

    x: Array
    w: Array
    stride: int
    padding: int


class PoolCache(NamedTuple):
    """What the backward pass of a pooling needs to remember."""

    x: Array
    kernel: int
    stride: int


def zero_pad(x: Array, padding: int) -> Array:
    """The images with a border of zeros."""
    return np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))


def conv_forward(
    x: Array, w: Array, b: Array, stride: int = 1, padding: int = 0
) -> tuple[Array, ConvCache]:
    """Convolution: one window, one filter, one number at a time."""
    N, _, H, W = x.shape
    F, _, KH, KW = w.shape
    OH = (H + 2 * padding - KH) // stride + 1
    OW = (W + 2 * padding - KW) // stride + 1
    x_pad = zero_pad(x, padding)
    y = np.empty((N, F, OH, OW), dtype=x.dtype)
    for n in range(N):
        for f in range(F):
            for oh in range(OH):
                for ow in range(OW):
                    top, left = oh * stride, ow * stride
                    window = x_pad[n, :, top : top + KH, left : left + KW]
                    y[n, f, oh, ow] = np.sum(window * w[f]) + b[f]
    return y, ConvCache(x, w, stride, padding)


def conv_backward(dy: Array, cache: ConvCache) -> tuple[Array, Array, Array]:
    """Gradients of the convolution: every dy goes back to its window and to its filter."""
    x, w, stride, padding = cache
    N, F, OH, OW = dy.shape
    H, W = x.shape[2:]
    KH, KW = w.shape[2:]
    x_pad = zero_pad(x, padding)
    dx_pad = np.zeros_like(x_pad)
    dw = np.zeros_like(w)
    db = np.zeros(F, dtype=dy.dtype)
    for n in range(N):
        for f in range(F):
            for oh in range(OH):
                for ow in range(OW):
                    top, left = oh * stride, ow * stride
                    window = np.s_[n, :, top : top + KH, left : left + KW]
                    dx_pad[window] += w[f] * dy[n, f, oh, ow]
                    dw[f] += x_pad[window] * dy[n, f, oh, ow]
                    db[f] += dy[n, f, oh, ow]
    return dx_pad[:, :, padding : padding + H, padding : padding + W], dw, db


def max_pool_forward(x: Array, kernel: int, stride: int) -> tuple[Array, PoolCache]:
    """Max pooling: the largest value of every window."""
    N, C, H, W = x.shape
    OH = (H - kernel) // stride + 1
    OW = (W - kernel) // stride + 1
    y = np.empty((N, C, OH, OW), dtype=x.dtype)
    for n in range(N):
        for c in range(C):
            for oh in range(OH):
                for ow in range(OW):
                    top, left = oh * stride, ow * stride
                    y[n, c, oh, ow] = np.max(x[n, c, top : top + kernel, left : left + kernel])
    return y, PoolCache(x, kernel, stride)


def max_pool_backward(dy: Array, cache: PoolCache) -> Array:
    """Gradient of the max pooling: every dy goes to the first maximum of its window."""
    x, kernel, stride = cache
    N, C, OH, OW = dy.shape
    dx = np.zeros_like(x)
    for n in range(N):
        for c in range(C):
            for oh in range(OH):
                for ow in range(OW):
                    top, left = oh * stride, ow * stride
                    window = x[n, c, top : top + kernel, left : left + kernel]
                    kh, kw = divmod(int(np.argmax(window)), kernel)
                    dx[n, c, top + kh, left + kw] += dy[n, c, oh, ow]
    return dx
