"""Convolution and transposed convolution: check, plan, allocate, call.

A transposed convolution is the input gradient of a convolution and nothing else, so both kinds
share one :class:`~cnnfast.geometry.Convolution`, one list of algorithms and one cache; they differ
in which side is the input.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from . import _naive, geometry
from .algorithms import Choice, Product, planned
from .arrays import (
    FloatArray,
    check_cache,
    check_cached,
    check_choice,
    check_dtype,
    check_needs,
    float_array,
    gradient,
    nchw,
    new_array,
    parameter,
    result,
)
from .geometry import Convolution, IntPair, Padding

MASKED_BYTES = 16 * 2**20  # of dy that are copied at a time to clear what ReLU cut off


@dataclass(frozen=True, eq=False)
class _Cache:
    """What a forward pass leaves for its backward pass; the arrays are views, not copies."""

    x: FloatArray
    w: FloatArray
    b: FloatArray | None
    y: FloatArray | None  # only with an activation, whose gradient needs it
    conv: Convolution
    chosen: Choice


@dataclass(frozen=True, eq=False)
class Conv2dCache(_Cache):
    """Cache of `conv2d_forward`: x is the image side of ``conv``, y its output side."""


@dataclass(frozen=True, eq=False)
class ConvTranspose2dCache(_Cache):
    """Cache of `conv_transpose2d_forward`: x is the output side of ``conv``, y its image side."""


def conv2d(
    x: npt.ArrayLike,
    w: npt.ArrayLike,
    b: npt.ArrayLike | None = None,
    *,
    stride: IntPair = 1,
    padding: Padding = 0,
    dilation: IntPair = 1,
    groups: SupportsIndex = 1,
    layout: str = "NCHW",
    activation: str | None = None,
    algorithm: str = "auto",
    out: FloatArray | None = None,
) -> FloatArray:
    """Slide filters over images.

    ``y[n, f, oh, ow] = b[f] + sum over c, kh, kw of w[f, c, kh, kw] * x[n, c, ih, iw]`` with
    ``ih = oh * stride + kh * dilation - top`` and ``iw`` likewise; taps in the padding add nothing.
    (As in every neural network library, the filter is not flipped: strictly, a cross-correlation.)

    Parameters
    ----------
    x : array_like
        Images, ``(N, C, H, W)`` or, with ``layout="NHWC"``, ``(N, H, W, C)``; float32 or float64.
    w : array_like
        Weights ``(F, C/groups, KH, KW)`` in either layout; dtype of x.
    b : array_like, optional
        Bias ``(F,)``; dtype of x.
    stride, dilation : int or (int, int)
        Cells between windows, and between taps; one number or ``(height, width)``.
    padding : int, (int, int), ((int, int), (int, int)), "valid" or "same"
        Cells around the image: one number, ``(height, width)``, or ``((top, bottom), (left,
        right))``. "same" gives an output of ``ceil(H / stride)``, the odd cell at the bottom and
        right.
    groups : int
        Filters of group g see the channels of group g only; divides C and F.
    layout : {"NCHW", "NHWC"}
        Order of the dimensions of x and y.
    activation : {None, "relu"}
        Applied to y.
    algorithm : str
        "auto", or a name of the list that `plan_conv2d` shows; one that cannot do the problem
        raises ValueError.
    out : ndarray, optional
        Where to put y: its shape and dtype, any strides, no overlap with an input.

    Returns
    -------
    ndarray
        y, ``(N, F, OH, OW)`` or ``(N, OH, OW, F)``, with
        ``OH = floor((H + top + bottom - dilation * (KH - 1) - 1) / stride) + 1``.

    Raises
    ------
    TypeError
        For an argument of the wrong type, a dtype other than float32 and float64, or a mixture of
        the two.
    ValueError
        For a wrong shape or value.
    MemoryError
        If there is no memory for y or the workspace.

    References
    ----------
    Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285.

    Examples
    --------
    >>> import numpy as np
    >>> import cnnfast
    >>> x = np.arange(16.0).reshape(1, 1, 4, 4)
    >>> w = np.ones((1, 1, 3, 3))
    >>> cnnfast.conv2d(x, w)
    array([[[[45., 54.],
             [81., 90.]]]])
    >>> cnnfast.conv2d(x, w, padding="same", stride=2).shape
    (1, 1, 2, 2)
    """
    x, w, relu = operands(x, w, 4, activation)
    options = stride, padding, dilation, groups, layout
    conv, chosen, y_shape = planned(
        geometry.convolution, x.shape, w.shape, x.dtype, options, algorithm
    )
    b = None if b is None else parameter("b", b, (conv.F,), x)
    y = new_array(y_shape, x.dtype) if out is None else result(out, y_shape, x.dtype, x=x, w=w, b=b)
    compute(chosen.forward.forward, conv, conv.F, x, w, b, relu, y)
    return y if out is None else out


def conv2d_forward(
    x: npt.ArrayLike,
    w: npt.ArrayLike,
    b: npt.ArrayLike | None = None,
    *,
    stride: IntPair = 1,
    padding: Padding = 0,
    dilation: IntPair = 1,
    groups: SupportsIndex = 1,
    layout: str = "NCHW",
    activation: str | None = None,
    algorithm: str = "auto",
) -> tuple[FloatArray, Conv2dCache]:
    """Compute `conv2d`, and keep what `conv2d_backward` needs.

    Parameters
    ----------
    x, w, b, stride, padding, dilation, groups, layout, activation, algorithm
        As for `conv2d`.

    Returns
    -------
    y : ndarray
        The result of `conv2d`.
    cache : Conv2dCache
        References to x, w, b (and y, with an activation); they must not change before the backward
        pass.
    """
    x, w, relu = operands(x, w, 4, activation)
    options = stride, padding, dilation, groups, layout
    conv, chosen, y_shape = planned(
        geometry.convolution, x.shape, w.shape, x.dtype, options, algorithm
    )
    b = None if b is None else parameter("b", b, (conv.F,), x)
    y = new_array(y_shape, x.dtype)
    compute(chosen.forward.forward, conv, conv.F, x, w, b, relu, y)
    return y, Conv2dCache(x, w, b, y.view() if relu else None, conv, chosen)


@np.errstate(all="ignore")  # what is not finite goes where the formula sends it, in silence
def conv2d_backward(
    dy: npt.ArrayLike, cache: Conv2dCache, *, needs: str = "xwb"
) -> tuple[FloatArray | None, FloatArray | None, FloatArray | None]:
    """Gradients of a convolution's inputs, given the gradient of its result.

    ``db[f] = sum of dy[n, f, oh, ow]``; ``dw[f, c, kh, kw] = sum of dy[n, f, oh, ow] * x[n, c, ih,
    iw]``; ``dx[n, c, ih, iw]`` sums ``dy[n, f, oh, ow] * w[f, c, kh, kw]`` over all windows and
    taps at that cell. With an activation, dy counts as 0 wherever y was cut to 0.

    Parameters
    ----------
    dy : array_like
        Gradient of y: its shape, layout and dtype.
    cache : Conv2dCache
        From `conv2d_forward`.
    needs : str
        Which gradients to compute: letters of "xwb".

    Returns
    -------
    dx, dw, db : ndarray or None
        In the shapes of x, w and b; None for what is not needed, and for db where there was no b.

    Raises
    ------
    TypeError, ValueError
        For a dy or cache that does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import cnnfast
    >>> y, cache = cnnfast.conv2d_forward(np.ones((1, 1, 3, 3)), np.full((1, 1, 2, 2), 2.0))
    >>> dx, dw, db = cnnfast.conv2d_backward(np.ones_like(y), cache)
    >>> dx
    array([[[[2., 4., 2.],
             [4., 8., 4.],
             [2., 4., 2.]]]])
    >>> db is None
    True
    """
    check_cache(cache, Conv2dCache, "conv2d_forward")
    x, w, conv = cache.x, cache.w, cache.conv
    dy, dx, dw, db = _gradient_arrays(dy, cache, conv.image_shape, conv.output_shape, conv.F, needs)
    x_nchw, dx_nchw = nchw(x, conv.layout), nchw(dx, conv.layout)
    for images, part in _through_activation(dy, cache):
        dx_part = None if dx_nchw is None else dx_nchw[images]
        cache.chosen.backward.gradients(conv, x_nchw[images], w, part, dx_part, dw, db)
    return dx, dw, None if db is None else db.astype(x.dtype)


def conv_transpose2d(
    x: npt.ArrayLike,
    w: npt.ArrayLike,
    b: npt.ArrayLike | None = None,
    *,
    stride: IntPair = 1,
    padding: Padding = 0,
    output_padding: IntPair = 0,
    dilation: IntPair = 1,
    groups: SupportsIndex = 1,
    layout: str = "NCHW",
    activation: str | None = None,
    algorithm: str = "auto",
    out: FloatArray | None = None,
) -> FloatArray:
    """Scatter images through filters: the input gradient of `conv2d`, as a layer of its own.

    ``y[n, f, oh, ow] = b[f] + sum over c, kh, kw, ih, iw of w[c, f, kh, kw] * x[n, c, ih, iw]``
    where ``oh = ih * stride + kh * dilation - top`` and ``ow`` likewise.

    Parameters
    ----------
    x : array_like
        Images, ``(N, C, H, W)`` or, with ``layout="NHWC"``, ``(N, H, W, C)``; float32 or float64.
    w : array_like
        Weights ``(C, F/groups, KH, KW)``; dtype of x.
    b : array_like, optional
        Bias ``(F,)``; dtype of x.
    stride, padding, dilation, groups, layout, activation, algorithm, out
        As for `conv2d`. The padding is cut off the result; "same" gives an output of ``H *
        stride``.
    output_padding : int or (int, int)
        Rows and columns added at the bottom and right; smaller than the stride or the dilation.

    Returns
    -------
    ndarray
        y, ``(N, F, OH, OW)`` or ``(N, OH, OW, F)``, with
        ``OH = (H - 1) * stride - top - bottom + dilation * (KH - 1) + output_padding + 1``.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv2d`.

    References
    ----------
    Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285,
    section 4.

    Examples
    --------
    >>> import numpy as np
    >>> import cnnfast
    >>> x = np.array([[[[1.0, 2.0]]]])
    >>> cnnfast.conv_transpose2d(x, np.ones((1, 1, 1, 2)), stride=2)
    array([[[[1., 1., 2., 2.]]]])
    """
    x, w, relu = operands(x, w, 4, activation)
    options = stride, padding, output_padding, dilation, groups, layout
    conv, chosen, y_shape = planned(
        geometry.transposed_convolution, x.shape, w.shape, x.dtype, options, algorithm
    )
    b = None if b is None else parameter("b", b, (conv.C,), x)
    y = new_array(y_shape, x.dtype) if out is None else result(out, y_shape, x.dtype, x=x, w=w, b=b)
    compute(chosen.backward.input_gradient, conv, conv.C, x, w, b, relu, y)
    return y if out is None else out


def conv_transpose2d_forward(
    x: npt.ArrayLike,
    w: npt.ArrayLike,
    b: npt.ArrayLike | None = None,
    *,
    stride: IntPair = 1,
    padding: Padding = 0,
    output_padding: IntPair = 0,
    dilation: IntPair = 1,
    groups: SupportsIndex = 1,
    layout: str = "NCHW",
    activation: str | None = None,
    algorithm: str = "auto",
) -> tuple[FloatArray, ConvTranspose2dCache]:
    """Compute `conv_transpose2d`, and keep what `conv_transpose2d_backward` needs.

    Parameters
    ----------
    x, w, b, stride, padding, output_padding, dilation, groups, layout, activation, algorithm
        As for `conv_transpose2d`.

    Returns
    -------
    y : ndarray
        The result of `conv_transpose2d`.
    cache : ConvTranspose2dCache
        References to x, w, b (and y, with an activation); they must not change before the backward
        pass.
    """
    x, w, relu = operands(x, w, 4, activation)
    options = stride, padding, output_padding, dilation, groups, layout
    conv, chosen, y_shape = planned(
        geometry.transposed_convolution, x.shape, w.shape, x.dtype, options, algorithm
    )
    b = None if b is None else parameter("b", b, (conv.C,), x)
    y = new_array(y_shape, x.dtype)
    compute(chosen.backward.input_gradient, conv, conv.C, x, w, b, relu, y)
    return y, ConvTranspose2dCache(x, w, b, y.view() if relu else None, conv, chosen)


@np.errstate(all="ignore")
def conv_transpose2d_backward(
    dy: npt.ArrayLike, cache: ConvTranspose2dCache, *, needs: str = "xwb"
) -> tuple[FloatArray | None, FloatArray | None, FloatArray | None]:
    """Gradients of a transposed convolution's inputs, given the gradient of its result.

    dx is the convolution of dy with w; dw the weight gradient of that convolution, with x in the
    place of its dy.

    Parameters
    ----------
    dy : array_like
        Gradient of y: its shape, layout and dtype.
    cache : ConvTranspose2dCache
        From `conv_transpose2d_forward`.
    needs : str
        Which gradients to compute: letters of "xwb".

    Returns
    -------
    dx, dw, db : ndarray or None
        In the shapes of x, w and b; None for what is not needed, and for db where there was no b.

    Raises
    ------
    TypeError, ValueError
        For a dy or cache that does not fit.
    """
    check_cache(cache, ConvTranspose2dCache, "conv_transpose2d_forward")
    x, w, conv = cache.x, cache.w, cache.conv
    dy, dx, dw, db = _gradient_arrays(dy, cache, conv.output_shape, conv.image_shape, conv.C, needs)
    x_nchw, dx_nchw = nchw(x, conv.layout), nchw(dx, conv.layout)
    no_bias = np.zeros(conv.F, x.dtype)
    for images, part in _through_activation(dy, cache):
        if dx_nchw is not None:
            cache.chosen.forward.forward(conv, part, w, no_bias, False, dx_nchw[images])
        if dw is not None:
            cache.chosen.backward.gradients(conv, part, None, x_nchw[images], None, dw, None)
        if db is not None:
            _naive.add_bias_gradient(part, db)
    return dx, dw, None if db is None else db.astype(x.dtype)


def operands(
    x: npt.ArrayLike, w: npt.ArrayLike, ndim: int, activation: str | None
) -> tuple[FloatArray, FloatArray, bool]:
    """Return x and w as float arrays of one dtype, and whether there is a ReLU."""
    if activation is not None:
        check_choice("activation", activation, ("relu",))
    x = float_array("x", x, ndim)
    w = float_array("w", w, ndim)
    if len(w) == 0:
        raise ValueError(f"w must not be empty, got shape {w.shape}")
    check_dtype("x", x.dtype, "w", w)
    return x, w, activation is not None


def compute(
    product: Product,
    conv: Convolution,
    filters: int,
    x: FloatArray,
    w: FloatArray,
    b: FloatArray | None,
    relu: bool,
    y: FloatArray,
) -> None:
    """Let one product of an algorithm fill y."""
    if conv.N:
        bias = np.zeros(filters, x.dtype) if b is None else b
        product(conv, nchw(x, conv.layout), w, bias, relu, nchw(y, conv.layout))


def _gradient_arrays(
    dy: npt.ArrayLike,
    cache: _Cache,
    x_shape: tuple[int, ...],
    dy_shape: tuple[int, ...],
    filters: int,
    needs: str,
) -> tuple[FloatArray, FloatArray | None, FloatArray | None, npt.NDArray[np.float64] | None]:
    """Return dy as a float array, and what ``needs`` names of dx, dw and db; the last two zero."""
    check_needs(needs)
    x, w, b, y = cache.x, cache.w, cache.b, cache.y
    known = {"x": (x, x_shape), "w": (w, cache.conv.weight_shape)}
    if b is not None:
        known["b"] = b, (filters,)
    if y is not None:
        known["y"] = y, dy_shape
    check_cached(np.dtype(cache.conv.dtype), **known)
    return (
        gradient(dy, dy_shape, x.dtype),
        new_array(x.shape, x.dtype) if "x" in needs else None,
        np.zeros(w.shape, w.dtype) if "w" in needs else None,
        np.zeros(b.shape) if "b" in needs and b is not None else None,
    )


def _through_activation(dy: FloatArray, cache: _Cache) -> Iterator[tuple[slice, FloatArray]]:
    """Yield dy, or a few images at a time of dy with 0 where ReLU cut y off; as N, C, H, W."""
    dy, y = nchw(dy, cache.conv.layout), nchw(cache.y, cache.conv.layout)
    if not len(dy):
        return
    if y is None:
        yield slice(None), dy
        return
    step = max(1, MASKED_BYTES // dy[0].nbytes)
    for n in range(0, len(dy), step):
        images = slice(n, n + step)
        yield images, np.where(y[images] <= 0, dy.dtype.type(0), dy[images])
