"""im2col and col2im for their own sake: check, allocate, call (the kernels are in im2col.pyx)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, SupportsIndex

import numpy.typing as npt

from . import _im2col, geometry
from .arrays import FloatArray, check_shape, float_array, new_array, result
from .geometry import IntPair, Padding
from .threads import get_num_threads


def im2col(
    x: npt.ArrayLike,
    kernel_size: IntPair,
    *,
    stride: IntPair = 1,
    padding: Padding = 0,
    dilation: IntPair = 1,
    out: FloatArray | None = None,
) -> FloatArray:
    """Copy every window of an image into a column.

    ``cols[n, (c * KH + kh) * KW + kw, oh * OW + ow] = x[n, c, ih, iw]`` with
    ``ih = oh * stride + kh * dilation - top``, ``iw`` likewise, and 0 in the padding. With weights
    ``w_fk = w.reshape(F, C * KH * KW)``, a convolution is ``w_fk @ cols``.

    Parameters
    ----------
    x : array_like
        Images ``(N, C, H, W)``; float32 or float64.
    kernel_size : int or (int, int)
        ``(KH, KW)``.
    stride, padding, dilation
        As for `conv2d`.
    out : ndarray, optional
        Where to put the columns.

    Returns
    -------
    ndarray
        ``(N, C * KH * KW, OH * OW)``.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv2d`.

    References
    ----------
    Chellapilla, Puri and Simard, "High performance convolutional neural networks for document
    processing", 2006.

    Examples
    --------
    >>> import numpy as np
    >>> import cnnfast
    >>> cnnfast.im2col(np.arange(6.0).reshape(1, 1, 2, 3), (2, 2))
    array([[[0., 1.],
            [1., 2.],
            [3., 4.],
            [4., 5.]]])
    """
    x = float_array("x", x, 4)
    N, C, *_ = x.shape
    window = _window(x.shape[2:], kernel_size, stride, padding, dilation)
    shape = _column_shape(N, C, window)
    geometry.check_bytes("the columns", shape, x.itemsize)
    cols = new_array(shape, x.dtype) if out is None else result(out, shape, x.dtype, x=x)
    if N:
        _im2col.columns_of(window, x, _by_channel(cols, C, window), get_num_threads())
    return cols if out is None else out


def col2im(
    cols: npt.ArrayLike,
    output_size: tuple[SupportsIndex, SupportsIndex],
    kernel_size: IntPair,
    *,
    stride: IntPair = 1,
    padding: Padding = 0,
    dilation: IntPair = 1,
    out: FloatArray | None = None,
) -> FloatArray:
    """Add columns back into images: the transpose of `im2col`.

    Each ``cols[n, (c * KH + kh) * KW + kw, oh * OW + ow]`` is added to ``x[n, c, ih, iw]``, the
    cell that `im2col` would have copied it from; overlapping windows add up, and what lies in the
    padding is dropped.

    Parameters
    ----------
    cols : array_like
        ``(N, C * KH * KW, OH * OW)``; float32 or float64.
    output_size : (int, int)
        ``(H, W)`` of the images.
    kernel_size, stride, padding, dilation
        As for `im2col`.
    out : ndarray, optional
        Where to put the images; what is there does not count.

    Returns
    -------
    ndarray
        ``(N, C, H, W)``.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv2d`.

    Examples
    --------
    >>> import numpy as np
    >>> import cnnfast
    >>> cnnfast.col2im(np.ones((1, 2, 2)), (1, 3), (1, 2))
    array([[[[1., 2., 1.]]]])
    """
    cols = float_array("cols", cols, 3)
    window = _window(output_size, kernel_size, stride, padding, dilation)
    taps = window.h.kernel * window.w.kernel
    N, rows, _ = cols.shape
    if rows % taps:
        raise ValueError(f"cols must have C * {taps} rows (C * KH * KW), got shape {cols.shape}")
    C = rows // taps
    check_shape("cols", cols, _column_shape(N, C, window))
    shape = (N, C, window.h.size, window.w.size)
    geometry.check_bytes("the output", shape, cols.itemsize)
    x = new_array(shape, cols.dtype) if out is None else result(out, shape, cols.dtype, cols=cols)
    if N:
        _im2col.add_columns(window, _by_channel(cols, C, window), x, True, get_num_threads())
    return x if out is None else out


def _window(*options: Any) -> geometry.Window:
    """Return `geometry.columns`, kept for the next call with equal arguments."""
    return (_kept_window if geometry.are_plain(options) else geometry.columns)(*options)


_kept_window = lru_cache(geometry.MOST_KEPT)(geometry.columns)


def _column_shape(N: int, C: int, window: geometry.Window) -> tuple[int, int, int]:
    return N, C * window.h.kernel * window.w.kernel, window.h.output * window.w.output


def _by_channel(cols: FloatArray, C: int, window: geometry.Window) -> FloatArray:
    """Return the columns seen as (C, KH, KW, N, OH, OW)."""
    by_image = cols.reshape(len(cols), C, *window.kernel, *window.output)
    return by_image.transpose(1, 2, 3, 0, 4, 5)
