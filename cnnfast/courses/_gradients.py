"""Gradients of layers of which the course has kept the inputs alone.

cnnfast's backward functions take what its forward functions left; the courses pass images, weights
and settings instead. Arrays are of one dtype (see `_promote`), pairs are (height, width), and dy
must have the shape of the layer's result: the error names it as the course does.
"""

from __future__ import annotations

import numpy as np

import cnnfast

from ._promote import FloatArray
from ._shapes import expect_shape, output_size

IntPair = tuple[int, int]


def conv_gradients(
    name: str,
    dy: FloatArray,
    x: FloatArray,
    w: FloatArray,
    stride: IntPair,
    padding: IntPair,
    *,
    layout: str = "NCHW",
    algorithm: str = "auto",
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Give (dx, dw, db) of a convolution of x with w (F, C, KH, KW); dy goes by `name`."""
    places = (2, 3) if layout == "NCHW" else (1, 2)
    sizes, fields = [x.shape[axis] for axis in places], w.shape[2:]
    axes = list(zip(sizes, fields, padding, stride, strict=True))
    wanted = [len(x), len(w), len(w), len(w)]
    for axis, measures in zip(places, axes, strict=True):
        wanted[axis] = output_size(*measures)
    expect_shape(name, dy, tuple(wanted))
    # dx is the transposed convolution of dy, and the weight gradient of that one is dw: both for
    # no more than their own price, where a cache of cnnfast's would cost the convolution again.
    unseen = [(size + 2 * pad - field) % step for size, field, pad, step in axes]  # beyond the last
    dx, back = cnnfast.conv_transpose2d_forward(
        dy,
        w,
        stride=stride,
        padding=padding,
        output_padding=(unseen[0], unseen[1]),
        layout=layout,
        algorithm=algorithm,
    )
    _, dw, _ = cnnfast.conv_transpose2d_backward(x, back, needs="w")
    over = "nfhw->f" if layout == "NCHW" else "nhwf->f"
    db = np.einsum(over, dy, dtype=np.float64).astype(dy.dtype, copy=False)  # faster than dy.sum
    assert dw is not None
    return dx, dw, db


def max_pool_gradient(
    name: str,
    dy: FloatArray,
    x: FloatArray,
    window: IntPair,
    stride: IntPair,
    *,
    ties: str,
    layout: str = "NCHW",
    algorithm: str = "auto",
) -> FloatArray:
    """Give dx of max pooling without padding; dy goes by `name`."""
    y, cache = cnnfast.max_pool2d_forward(
        x, window, stride=stride, layout=layout, algorithm=algorithm
    )
    expect_shape(name, dy, y.shape)
    return cnnfast.max_pool2d_backward(dy, cache, ties=ties)


def avg_pool_gradient(
    name: str,
    dy: FloatArray,
    x: FloatArray,
    window: IntPair,
    stride: IntPair,
    *,
    layout: str = "NCHW",
) -> FloatArray:
    """Give dx of average pooling without padding; dy goes by `name`."""
    y, cache = cnnfast.avg_pool2d_forward(x, window, stride=stride, layout=layout)
    expect_shape(name, dy, y.shape)
    return cnnfast.avg_pool2d_backward(dy, cache)
