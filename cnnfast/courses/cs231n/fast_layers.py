"""CS231n's `fast_layers`: convolution and max pooling under the course's names, run by cnnfast.

Swap it in: replace the contents of `cs231n/fast_layers.py` in the assignment by the one line
    from cnnfast.courses.cs231n.fast_layers import *
which reaches the notebook, `layer_utils.py` and `classifiers/cnn.py`; skip the cell that compiles.
That line in the notebook alone, in place of its star import, leaves `conv_relu_forward` and the
other sandwich layers with the course's functions: `layer_utils.py` has imported those by then.

conv_param is {"stride", "pad"}, pool_param {"pool_height", "pool_width", "stride"}; arrays are
(N, C, H, W). As in the course, `conv_forward_im2col` and `max_pool_forward_im2col` assert that the
stride fits, and the other convolutions floor; columns have the course's two orders; equal maxima
share the gradient in the reshape branch, and the first one takes it in the im2col branch.

Different from the course's file:
- `conv_forward_fast` is not `conv_forward_strides`: it makes no columns, so that its cache is
  (x, w, b, conv_param, None);
- the three conv backwards are one function, which takes the cache of any conv forward; it works
  from the x in the cache, as x is when it is called, and never looks at the columns;
- filters that are not square come out right (there wrong in the im2col pair);
- x in Fortran order comes out right (there wrong in `conv_forward_strides`);
- `max_pool_forward_fast` takes any window and floors where the stride does not fit (there a
  NameError unless windows tile); then its cache is ("im2col", (x, None, None, pool_param));
- the max_pool im2col pair works (there a NameError); its columns are (oy, ox, n, c), c fastest;
- a NaN in a window takes its gradient (there the gradient of the whole window is NaN);
- integers become float64 and float16 becomes float32; a gradient has the common dtype of all
  arrays of its call (there some follow only part of them, and pooling of integers fails);
- outputs are C-contiguous (there `conv_forward_im2col` gives a transposed view);
- the reshape pair says "Invalid pool params" also where windows do not tile (there no message);
- `range` is exported in every year; the PyTorch pair of 2019 is not here.
"""

from __future__ import annotations, print_function

from builtins import range  # noqa: UP029 - exported, as print_function is: the course's file does
from collections.abc import Mapping
from typing import Literal, TypeAlias

import numpy as np

import cnnfast

from .. import _gradients
from .._promote import FloatArray, RealArray, promote
from .im2col import col2im_indices, get_im2col_indices, im2col_indices
from .im2col_cython import (
    col2im_6d_cython,
    col2im_cython,
    im2col_cython,
)

__all__ = [
    "col2im_6d_cython",
    "col2im_cython",
    "col2im_indices",
    "conv_backward_fast",
    "conv_backward_im2col",
    "conv_backward_strides",
    "conv_forward_fast",
    "conv_forward_im2col",
    "conv_forward_strides",
    "get_im2col_indices",
    "im2col_cython",
    "im2col_indices",
    "max_pool_backward_fast",
    "max_pool_backward_im2col",
    "max_pool_backward_reshape",
    "max_pool_forward_fast",
    "max_pool_forward_im2col",
    "max_pool_forward_reshape",
    "np",
    "print_function",
    "range",
]

Param: TypeAlias = Mapping[str, int]
ConvCache: TypeAlias = tuple[RealArray, RealArray, RealArray, Param, FloatArray | None]
ReshapeCache: TypeAlias = tuple[RealArray, RealArray, FloatArray]
Im2colCache: TypeAlias = tuple[RealArray, FloatArray | None, "np.ndarray | None", Param]
PoolCache: TypeAlias = (
    tuple[Literal["reshape"], ReshapeCache] | tuple[Literal["im2col"], Im2colCache]
)


def conv_forward_fast(
    x: RealArray, w: RealArray, b: RealArray, conv_param: Param
) -> tuple[FloatArray, ConvCache]:
    """Convolve x (N, C, H, W) with w (F, C, HH, WW) and add b (F,); sizes floor."""
    return convolve(x, w, b, conv_param), (x, w, b, conv_param, None)


def conv_backward_fast(
    dout: RealArray, cache: ConvCache
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Give (dx, dw, db) for the cache of any conv forward of this module."""
    # Not from the columns: their two orders have one shape and cannot be told apart.
    x, w, _, conv_param, _ = cache
    return convolution_gradients(dout, x, w, conv_param)


conv_backward_strides = conv_backward_fast
conv_backward_im2col = conv_backward_fast


def conv_forward_strides(
    x: RealArray, w: RealArray, b: RealArray, conv_param: Param
) -> tuple[FloatArray, ConvCache]:
    """Convolve as `conv_forward_fast`; the cache keeps columns (C*HH*WW, N*oh*ow), ox fastest."""
    out, _ = conv_forward_fast(x, w, b, conv_param)
    (x_nchw,) = promote(x)
    stride, pad = conv_param["stride"], conv_param["pad"]
    cols = cnnfast.im2col(x_nchw, np.shape(w)[2:], stride=stride, padding=pad)
    N, rows, places = cols.shape
    x_cols = cols.transpose(1, 0, 2).reshape(rows, N * places)
    return out, (x, w, b, conv_param, x_cols)


def conv_forward_im2col(
    x: RealArray, w: RealArray, b: RealArray, conv_param: Param
) -> tuple[FloatArray, ConvCache]:
    """Convolve where the stride fits; the cache keeps columns (C*HH*WW, oh*ow*N), n fastest."""
    (_, _, H, W), (_, _, HH, WW) = np.shape(x), np.shape(w)
    stride, pad = conv_param["stride"], conv_param["pad"]
    out, _ = conv_forward_fast(x, w, b, conv_param)  # first: it refuses a stride of 0
    assert (W + 2 * pad - WW) % stride == 0, "width does not work"
    assert (H + 2 * pad - HH) % stride == 0, "height does not work"
    return out, (x, w, b, conv_param, im2col_cython(x, HH, WW, pad, stride))


def max_pool_forward_fast(x: RealArray, pool_param: Param) -> tuple[FloatArray, PoolCache]:
    """Pool x; the cache is tagged "reshape" where square windows tile x, else "im2col"."""
    _, _, H, W = np.shape(x)
    (pool_height, pool_width), stride = window_of(pool_param)
    same_size = pool_height == pool_width == stride > 0
    if same_size and H % stride == 0 and W % stride == 0:
        out, reshape_cache = max_pool_forward_reshape(x, pool_param)
        return out, ("reshape", reshape_cache)
    return max_pool(x, pool_param), ("im2col", (x, None, None, pool_param))


def max_pool_backward_fast(dout: RealArray, cache: PoolCache) -> FloatArray:
    """Give dx, by the tie rule of the cache's tag."""
    if cache[0] == "reshape":
        return max_pool_backward_reshape(dout, cache[1])
    if cache[0] == "im2col":
        return max_pool_backward_im2col(dout, cache[1])
    raise ValueError(f'Unrecognized method "{cache[0]}"')


def max_pool_forward_reshape(x: RealArray, pool_param: Param) -> tuple[FloatArray, ReshapeCache]:
    """Pool x by square windows that tile it; the cache is (x, x_reshaped, out)."""
    N, C, H, W = np.shape(x)
    (pool_height, pool_width), stride = window_of(pool_param)
    out = max_pool(x, pool_param)  # first: it refuses a stride of 0
    assert pool_height == pool_width == stride, "Invalid pool params"
    assert H % stride == 0 and W % stride == 0, "Invalid pool params"
    x_reshaped = np.reshape(x, (N, C, H // stride, stride, W // stride, stride))
    return out, (x, x_reshaped, out)


def max_pool_backward_reshape(dout: RealArray, cache: ReshapeCache) -> FloatArray:
    """Give dx; equal maxima of a window share its gradient equally."""
    x, x_reshaped, _ = cache
    size = x_reshaped.shape[3]
    return max_pool_gradient(dout, x, (size, size), size, "split")


def max_pool_forward_im2col(x: RealArray, pool_param: Param) -> tuple[FloatArray, Im2colCache]:
    """Pool x where the stride fits; the cache is (x, x_cols, x_cols_argmax, pool_param)."""
    N, C, H, W = np.shape(x)
    (pool_height, pool_width), stride = window_of(pool_param)
    out = max_pool(x, pool_param)  # first: it refuses a stride of 0
    assert (H - pool_height) % stride == 0, "Invalid height"
    assert (W - pool_width) % stride == 0, "Invalid width"
    planes = np.reshape(x, (N * C, 1, H, W))
    x_cols = im2col_cython(planes, pool_height, pool_width, 0, stride)
    return out, (x, x_cols, np.argmax(x_cols, axis=0), pool_param)


def max_pool_backward_im2col(dout: RealArray, cache: Im2colCache) -> FloatArray:
    """Give dx; the first of equal maxima takes the window's gradient, overlaps add up."""
    x, _, _, pool_param = cache
    return max_pool_gradient(dout, x, *window_of(pool_param), "first")


def convolve(
    x: RealArray,
    w: RealArray,
    b: RealArray,
    conv_param: Param,
    algorithm: str = "auto",
    activation: str | None = None,
) -> FloatArray:
    """Convolve in the common dtype of x, w and b, by one of cnnfast's algorithms."""
    x_nchw, w_fckk, bias = promote(x, w, b)
    return cnnfast.conv2d(
        x_nchw,
        w_fckk,
        bias.reshape(-1),
        stride=conv_param["stride"],
        padding=conv_param["pad"],
        algorithm=algorithm,
        activation=activation,
    )


def convolution_gradients(
    dout: RealArray, x: RealArray, w: RealArray, conv_param: Param, algorithm: str = "auto"
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Give (dx, dw, db) in the common dtype of x, w and dout, by one of cnnfast's algorithms."""
    x_nchw, w_fckk, dy = promote(x, w, dout)
    stride, pad = conv_param["stride"], conv_param["pad"]
    return _gradients.conv_gradients(
        "dout", dy, x_nchw, w_fckk, (stride, stride), (pad, pad), algorithm=algorithm
    )


def window_of(pool_param: Param) -> tuple[tuple[int, int], int]:
    """Unpack pool_param into the window's size and the stride."""
    return (pool_param["pool_height"], pool_param["pool_width"]), pool_param["stride"]


def max_pool(x: RealArray, pool_param: Param, algorithm: str = "auto") -> FloatArray:
    """Pool x, integers as float64, by one of cnnfast's algorithms."""
    (x_nchw,) = promote(x)
    window, stride = window_of(pool_param)
    out: FloatArray = cnnfast.max_pool2d(x_nchw, window, stride=stride, algorithm=algorithm)
    return out


def max_pool_gradient(
    dout: RealArray,
    x: RealArray,
    window: tuple[int, int],
    stride: int,
    ties: Literal["first", "split"],
    algorithm: str = "auto",
) -> FloatArray:
    """Give dx in the common dtype of x and dout, by one of cnnfast's algorithms."""
    x_nchw, dy = promote(x, dout)
    steps = stride, stride
    return _gradients.max_pool_gradient(
        "dout", dy, x_nchw, window, steps, ties=ties, algorithm=algorithm
    )
