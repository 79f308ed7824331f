"""The whole library once more in plain NumPy: slow, short, and the definition of what is right.

Every public function of cnnfast has its twin here, with the same name, parameters and results.
The twins trust their arguments, add up in float64, and return the dtype of x; `algorithm` is
accepted and ignored.

Two ideas carry the file.

1. A *tap* is one position (kh, kw) of the kernel. Through it, output (oh, ow) sees one cell of the
   image:

       ih = oh * stride + kh * dilation - top        iw = ow * stride + kw * dilation - left

   For one tap, all outputs whose cell lies inside the image are a rectangle, and their cells are a
   rectangle with steps: two slices. Whatever falls into the padding is never touched, so padding
   needs no zeros, and an Inf in w never meets a padded cell.

2. A convolution is one sum of triple products,

       S = sum of  y[n,f,oh,ow] * w[f,c,kh,kw] * x[n,c,ih,iw]   over every n, f, c, tap and output,

   and its derivatives for y, x and w are the convolution (`_gather`), the gradient of its input,
   which is also the transposed convolution (`_scatter`), and the gradient of its weights
   (`_correlate`).

Dimensions: N batch, C input channels, H W input size, F filters, KH KW kernel, OH OW output size,
G groups. Valid for float32 and float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import EllipsisType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "avg_pool2d",
    "avg_pool2d_backward",
    "avg_pool2d_forward",
    "batch_norm2d",
    "batch_norm2d_backward",
    "batch_norm2d_forward",
    "col2im",
    "conv2d",
    "conv2d_backward",
    "conv2d_forward",
    "conv_transpose2d",
    "conv_transpose2d_backward",
    "conv_transpose2d_forward",
    "global_avg_pool2d",
    "global_avg_pool2d_backward",
    "global_avg_pool2d_forward",
    "global_max_pool2d",
    "global_max_pool2d_backward",
    "global_max_pool2d_forward",
    "group_norm",
    "group_norm_backward",
    "group_norm_forward",
    "im2col",
    "linear",
    "linear_backward",
    "linear_forward",
    "max_pool2d",
    "max_pool2d_backward",
    "max_pool2d_forward",
]

Array: TypeAlias = npt.NDArray[np.floating]
Indices: TypeAlias = npt.NDArray[np.int64]
Gradients: TypeAlias = tuple[Array | None, Array | None, Array | None]
Pair: TypeAlias = int | Sequence[int]
Padding: TypeAlias = int | str | Sequence[int | Sequence[int]]


# Geometry: where the windows lie.


class _Axis(NamedTuple):
    """One axis, rows or columns, of a convolution or pooling."""

    size: int  # cells of the image
    kernel: int
    stride: int
    dilation: int
    before: int  # padded cells at the top or left
    after: int  # and at the bottom or right
    out: int  # number of windows

    def tap(self, k: int) -> tuple[slice, slice]:
        """Return the outputs that see a cell of the image through tap k, and those cells."""
        shift = k * self.dilation - self.before
        first = max(0, -(shift // self.stride))  # the first output with a cell >= 0
        last = min(self.out - 1, (self.size - 1 - shift) // self.stride)
        count = max(0, last - first + 1)
        cell = first * self.stride + shift
        return slice(first, first + count), slice(cell, cell + count * self.stride, self.stride)

    def padded(self) -> _Axis:
        """Return the same windows over an image that its padding is a part of."""
        return self._replace(size=self.before + self.size + self.after, before=0, after=0)


_Axes: TypeAlias = tuple[_Axis, _Axis]
_Index: TypeAlias = tuple[EllipsisType, int | slice, int | slice]


def _taps(axes: _Axes) -> Iterator[tuple[_Index, _Index, _Index]]:
    """Yield (k, o, i) for each tap: index its weight by k, its outputs by o, their cells by i."""
    rows, columns = axes
    for kh in range(rows.kernel):
        for kw in range(columns.kernel):
            oh, ih = rows.tap(kh)
            ow, iw = columns.tap(kw)
            yield (..., kh, kw), (..., oh, ow), (..., ih, iw)


def _pair(value: object) -> tuple[Any, Any]:
    """Return two values as they are, and one value twice."""
    value = np.asarray(value).tolist()
    return tuple(value) if isinstance(value, list) else (value, value)


def _axis(
    size: int, kernel: int, stride: int, dilation: int, padding: Padding, ceil_mode: bool = False
) -> _Axis:
    """Lay windows over `size` cells."""
    effective = dilation * (kernel - 1) + 1
    if padding == "same":
        total = max((-(-size // stride) - 1) * stride + effective - size, 0)
        padding = (total // 2, total - total // 2)
    before, after = _pair(0 if padding == "valid" else padding)
    room = size + before + after - effective
    out = room // stride + 1
    if ceil_mode:
        out = -(-room // stride) + 1
        if (out - 1) * stride >= size + before:  # this window would start beyond the image
            out -= 1
    return _Axis(size, kernel, stride, dilation, before, after, out)


def _transposed_axis(
    out: int, kernel: int, stride: int, dilation: int, padding: Padding, output_padding: int
) -> _Axis:
    """Find the image over which `out` windows lie: the geometry of the transposed convolution."""
    if padding == "same":
        return _axis(out * stride, kernel, stride, dilation, "same")
    before, after = _pair(0 if padding == "valid" else padding)
    size = (out - 1) * stride - before - after + dilation * (kernel - 1) + output_padding + 1
    return _Axis(size, kernel, stride, dilation, before, after, out)


def _axes(lay: Callable[..., _Axis], *arguments: object) -> _Axes:
    """Call `lay` for the rows and for the columns, each with its own of every argument."""
    rows, columns = zip(*map(_pair, arguments), strict=True)
    return lay(*rows), lay(*columns)


def _image(axes: _Axes, *outer: int) -> Array:
    return np.zeros((*outer, axes[0].size, axes[1].size))


def _output(axes: _Axes, *outer: int) -> Array:
    return np.zeros((*outer, axes[0].out, axes[1].out))


# Layout: inside this file everything is float64 and NCHW.


def _to_nchw(a: npt.ArrayLike, layout: str) -> Array:
    a = np.asarray(a, dtype=np.float64)
    return a if layout == "NCHW" else a.transpose(0, 3, 1, 2)


def _from_nchw(a: np.ndarray, layout: str, dtype: npt.DTypeLike) -> np.ndarray:
    a = a if layout == "NCHW" else a.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(a, dtype=dtype)


def _split(a: Array, axis: int, groups: int) -> Array:
    """Cut an axis into (groups, members of a group)."""
    return a.reshape(*a.shape[:axis], groups, a.shape[axis] // groups, *a.shape[axis + 1 :])


def _join(a: Array, axis: int) -> Array:
    """Undo `_split`."""
    return a.reshape(*a.shape[:axis], a.shape[axis] * a.shape[axis + 1], *a.shape[axis + 2 :])


def _per_channel(v: npt.ArrayLike) -> Array:
    """Shape a vector over the channels so that it broadcasts against NCHW."""
    return np.asarray(v, dtype=np.float64)[:, None, None]


def _fill(out: np.ndarray | None, y: np.ndarray) -> np.ndarray:
    if out is None:
        return y
    out[...] = y
    return out


def _activate(y: Array, activation: str | None) -> Array:
    return np.where(y <= 0, 0.0, y) if activation == "relu" else y


def _activate_backward(dy: Array, y: Array, activation: str | None) -> Array:
    return np.where(y <= 0, 0.0, dy) if activation == "relu" else dy


# The three derivatives of S. Letters: n, g group, f filter of the group, c channel of the group.


def _gather(x: Array, w: Array, axes: _Axes, groups: int) -> Array:
    """Convolve: each output gathers the cells of its window."""
    x, w = _split(x, 1, groups), _split(w, 0, groups)
    y = _output(axes, *x.shape[:2], w.shape[1])
    for k, o, i in _taps(axes):
        y[o] += np.einsum("ngchw,gfc->ngfhw", x[i], w[k])
    return _join(y, 1)


def _scatter(y: Array, w: Array, axes: _Axes, groups: int) -> Array:
    """Convolve transposed: each output adds itself to the cells of its window."""
    y, w = _split(y, 1, groups), _split(w, 0, groups)
    x = _image(axes, *y.shape[:2], w.shape[2])
    for k, o, i in _taps(axes):
        x[i] += np.einsum("ngfhw,gfc->ngchw", y[o], w[k])
    return _join(x, 1)


def _correlate(y: Array, x: Array, axes: _Axes, groups: int) -> Array:
    """Correlate outputs with the cells they saw through each tap: the gradient of the weights."""
    y, x = _split(y, 1, groups), _split(x, 1, groups)
    w = np.zeros((groups, y.shape[2], x.shape[2], axes[0].kernel, axes[1].kernel))
    for k, o, i in _taps(axes):
        w[k] = np.einsum("ngfhw,ngchw->gfc", y[o], x[i])
    return _join(w, 0)


# Convolution.


class _ConvCache(NamedTuple):
    x: Array
    w: Array
    b: Array | None
    y: Array
    axes: _Axes
    groups: int
    layout: str
    activation: str | None


def conv2d(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    layout: str = "NCHW",
    activation: str | None = None,
    algorithm: str = "auto",
    out: Array | None = None,
) -> Array:
    """Convolve x (N, C, H, W) with w (F, C/groups, KH, KW) to y (N, F, OH, OW).

    ``y[n,f,oh,ow] = b[f] + sum over c, kh, kw of w[f,c,kh,kw] * x[n,c,ih,iw]``, where ih and iw are
    those of the module's head, and cells outside the image do not count. Then, with
    ``activation="relu"``, whatever is not above 0 becomes 0; NaN stays.
    """
    y, _ = conv2d_forward(
        x,
        w,
        b,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        layout=layout,
        activation=activation,
    )
    return _fill(out, y)


def conv2d_forward(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    layout: str = "NCHW",
    activation: str | None = None,
    algorithm: str = "auto",
) -> tuple[Array, _ConvCache]:
    """Convolve like `conv2d` and return (y, cache)."""
    x, w = np.asarray(x), np.asarray(w)
    image = _to_nchw(x, layout)
    axes = _axes(_axis, image.shape[2:], w.shape[2:], stride, dilation, padding)
    y = _gather(image, w, axes, groups)
    y = _finish(y, b, activation, layout, x.dtype)
    return y, _ConvCache(x, w, b, y, axes, groups, layout, activation)


def conv2d_backward(dy: Array, cache: _ConvCache, *, needs: str = "xwb") -> Gradients:
    """Return (dx, dw, db), shaped like x, w, b; None for what is not needed."""
    x, dy = _before_activation(dy, cache)
    dx = _scatter(dy, cache.w, cache.axes, cache.groups) if "x" in needs else None
    dw = _correlate(dy, x, cache.axes, cache.groups) if "w" in needs else None
    return _gradients(dx, dw, dy, cache, needs)


def conv_transpose2d(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: Pair = 1,
    padding: Padding = 0,
    output_padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    layout: str = "NCHW",
    activation: str | None = None,
    algorithm: str = "auto",
    out: Array | None = None,
) -> Array:
    """Convolve x (N, C, H, W) transposed with w (C, F/groups, KH, KW) to y (N, F, OH, OW).

    ``y[n,f,oh,ow] = b[f] + sum of w[c,f,kh,kw] * x[n,c,ih,iw]`` over all c, kh, kw, ih, iw with
    ``oh = ih * stride + kh * dilation - top``, ``ow = iw * stride + kw * dilation - left``: the
    input gradient of the convolution from F to C channels that has the same weights.
    """
    y, _ = conv_transpose2d_forward(
        x,
        w,
        b,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
        layout=layout,
        activation=activation,
    )
    return _fill(out, y)


def conv_transpose2d_forward(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: Pair = 1,
    padding: Padding = 0,
    output_padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    layout: str = "NCHW",
    activation: str | None = None,
    algorithm: str = "auto",
) -> tuple[Array, _ConvCache]:
    """Convolve transposed like `conv_transpose2d` and return (y, cache)."""
    x, w = np.asarray(x), np.asarray(w)
    image = _to_nchw(x, layout)
    sizes = image.shape[2:], w.shape[2:]
    axes = _axes(_transposed_axis, *sizes, stride, dilation, padding, output_padding)
    y = _scatter(image, w, axes, groups)
    y = _finish(y, b, activation, layout, x.dtype)
    return y, _ConvCache(x, w, b, y, axes, groups, layout, activation)


def conv_transpose2d_backward(dy: Array, cache: _ConvCache, *, needs: str = "xwb") -> Gradients:
    """Return (dx, dw, db), shaped like x, w, b; None for what is not needed."""
    x, dy = _before_activation(dy, cache)
    dx = _gather(dy, cache.w, cache.axes, cache.groups) if "x" in needs else None
    dw = _correlate(x, dy, cache.axes, cache.groups) if "w" in needs else None
    return _gradients(dx, dw, dy, cache, needs)


def _finish(
    y: Array, b: Array | None, activation: str | None, layout: str, dtype: npt.DTypeLike
) -> Array:
    """Add the bias, activate, and leave NCHW."""
    if b is not None:
        y = y + _per_channel(b)
    return _from_nchw(_activate(y, activation), layout, dtype)


def _before_activation(dy: Array, cache: _ConvCache) -> tuple[Array, Array]:
    """Return x, and the gradient before the activation, as NCHW."""
    dy = _activate_backward(dy, cache.y, cache.activation)
    return _to_nchw(cache.x, cache.layout), _to_nchw(dy, cache.layout)


def _gradients(
    dx: Array | None, dw: Array | None, dy: Array, cache: _ConvCache, needs: str
) -> Gradients:
    """Sum db, and give each gradient the dtype, and dx the layout, of x."""
    dtype = cache.x.dtype
    db = dy.sum(axis=(0, 2, 3)) if "b" in needs and cache.b is not None else None
    return (
        None if dx is None else _from_nchw(dx, cache.layout, dtype),
        None if dw is None else dw.astype(dtype),
        None if db is None else db.astype(dtype),
    )


# Linear layer.


class _LinearCache(NamedTuple):
    x: Array
    w: Array
    b: Array | None
    y: Array
    activation: str | None


def linear(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    activation: str | None = None,
    out: Array | None = None,
) -> Array:
    """Multiply x (N, D) by w (F, D): ``y[n,f] = b[f] + sum over d of w[f,d] * x[n,d]``."""
    y, _ = linear_forward(x, w, b, activation=activation)
    return _fill(out, y)


def linear_forward(
    x: Array, w: Array, b: Array | None = None, *, activation: str | None = None
) -> tuple[Array, _LinearCache]:
    """Multiply like `linear` and return (y, cache)."""
    x, w = np.asarray(x), np.asarray(w)
    y = np.einsum("nd,fd->nf", x, w, dtype=np.float64)
    if b is not None:
        y = y + b
    y = _activate(y, activation).astype(x.dtype)
    return y, _LinearCache(x, w, b, y, activation)


def linear_backward(dy: Array, cache: _LinearCache, *, needs: str = "xwb") -> Gradients:
    """Return (dx, dw, db), shaped like x, w, b; None for what is not needed."""
    x, w, b, y, activation = cache
    dy = _activate_backward(np.asarray(dy, dtype=np.float64), y, activation)
    return (
        np.einsum("nf,fd->nd", dy, w).astype(x.dtype) if "x" in needs else None,
        np.einsum("nf,nd->fd", dy, x).astype(x.dtype) if "w" in needs else None,
        dy.sum(axis=0).astype(x.dtype) if "b" in needs and b is not None else None,
    )


# Columns.


def im2col(
    x: Array,
    kernel_size: Pair,
    *,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    out: Array | None = None,
) -> Array:
    """Write the windows of x (N, C, H, W) as columns (N, C*KH*KW, OH*OW); padding is 0.

    With these columns, ``w.reshape(F, C*KH*KW) @ cols`` is the convolution.
    """
    x = np.asarray(x)
    n, c, h, w = x.shape
    rows, columns = axes = _axes(_axis, (h, w), kernel_size, stride, dilation, padding)
    windows = np.zeros((n, c, rows.out, columns.out, rows.kernel, columns.kernel), x.dtype)
    for k, o, i in _taps(axes):
        windows[k][o] = x[i]
    taps, outputs = rows.kernel * columns.kernel, rows.out * columns.out
    return _fill(out, windows.transpose(0, 1, 4, 5, 2, 3).reshape(n, c * taps, outputs))


def col2im(
    cols: Array,
    output_size: Pair,
    kernel_size: Pair,
    *,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    out: Array | None = None,
) -> Array:
    """Add columns (N, C*KH*KW, OH*OW) into an image (N, C, *output_size): `im2col` transposed."""
    cols = np.asarray(cols)
    rows, columns = axes = _axes(_axis, output_size, kernel_size, stride, dilation, padding)
    n, c = cols.shape[0], cols.shape[1] // (rows.kernel * columns.kernel)
    windows = cols.reshape(n, c, rows.kernel, columns.kernel, rows.out, columns.out)
    windows = windows.transpose(0, 1, 4, 5, 2, 3)
    x = _image(axes, n, c)
    for k, o, i in _taps(axes):
        x[i] += windows[k][o]
    return _fill(out, x.astype(cols.dtype))


# Max pooling.


class _MaxPoolCache(NamedTuple):
    x: Array
    y: Array
    indices: Indices
    axes: _Axes
    layout: str


def max_pool2d(
    x: Array,
    kernel_size: Pair,
    *,
    stride: Pair | None = None,
    padding: Padding = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    layout: str = "NCHW",
    return_indices: bool = False,
    algorithm: str = "auto",
    out: Array | None = None,
) -> Array | tuple[Array, Indices]:
    """Take the largest cell of each window of x (N, C, H, W): y (N, C, OH, OW).

    The first NaN of a window wins, else the first of the largest cells. With `return_indices`
    also return where it lies, as ih * W + iw in an int64 array shaped like y.
    """
    y, cache = max_pool2d_forward(
        x,
        kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        ceil_mode=ceil_mode,
        layout=layout,
    )
    y = _fill(out, y)
    return (y, cache.indices) if return_indices else y


def max_pool2d_forward(
    x: Array,
    kernel_size: Pair,
    *,
    stride: Pair | None = None,
    padding: Padding = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    layout: str = "NCHW",
    algorithm: str = "auto",
) -> tuple[Array, _MaxPoolCache]:
    """Pool like `max_pool2d` and return (y, cache)."""
    x = np.asarray(x)
    image = _to_nchw(x, layout)
    stride = kernel_size if stride is None else stride
    axes = _axes(_axis, image.shape[2:], kernel_size, stride, dilation, padding, ceil_mode)
    cells = _cells(axes)
    best = _output(axes, *image.shape[:2])
    index = np.full(best.shape, -1)
    for _, o, i in _taps(axes):
        stays = (image[i] <= best[o]) | np.isnan(best[o])
        wins = (index[o] < 0) | ~stays
        best[o] = np.where(wins, image[i], best[o])
        index[o] = np.where(wins, cells[i], index[o])
    y = _from_nchw(best, layout, x.dtype)
    return y, _MaxPoolCache(x, y, _from_nchw(index, layout, np.int64), axes, layout)


def max_pool2d_backward(dy: Array, cache: _MaxPoolCache, *, ties: str = "first") -> Array:
    """Return dx: each dy goes to the largest cell of its window.

    Of several, it goes to the first, to each in full ("all"), or to each in equal parts ("split").
    """
    x, y, index, dy = (_to_nchw(a, cache.layout) for a in (cache.x, cache.y, cache.indices, dy))
    cells = _cells(cache.axes)

    def wins(o: _Index, i: _Index) -> npt.NDArray[np.bool_]:
        first: npt.NDArray[np.bool_] = index[o] == cells[i]
        tied: npt.NDArray[np.bool_] = (x[i] == y[o]) | (np.isnan(x[i]) & np.isnan(y[o]))
        return first if ties == "first" else tied

    if ties == "split":
        winners = np.zeros(dy.shape)
        for _, o, i in _taps(cache.axes):
            winners[o] += wins(o, i)
        dy = dy / winners
    dx = np.zeros(x.shape)
    for _, o, i in _taps(cache.axes):
        dx[i] += np.where(wins(o, i), dy[o], 0.0)
    return _from_nchw(dx, cache.layout, cache.x.dtype)


def _cells(axes: _Axes) -> Indices:
    """Return the flat index of every cell of the image."""
    h, w = axes[0].size, axes[1].size
    return np.arange(h * w).reshape(h, w)


# Average pooling.


class _AvgPoolCache(NamedTuple):
    x: Array
    divisor: Array
    axes: _Axes
    layout: str


def avg_pool2d(
    x: Array,
    kernel_size: Pair,
    *,
    stride: Pair | None = None,
    padding: Padding = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    layout: str = "NCHW",
    algorithm: str = "auto",
    out: Array | None = None,
) -> Array:
    """Average each window of x (N, C, H, W): y (N, C, OH, OW).

    The sum over the cells of the window inside the image is divided by their number; with
    `count_include_pad` padded cells count too, but never what `ceil_mode` adds beyond them.
    """
    y, _ = avg_pool2d_forward(
        x,
        kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
        layout=layout,
    )
    return _fill(out, y)


def avg_pool2d_forward(
    x: Array,
    kernel_size: Pair,
    *,
    stride: Pair | None = None,
    padding: Padding = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    layout: str = "NCHW",
    algorithm: str = "auto",
) -> tuple[Array, _AvgPoolCache]:
    """Pool like `avg_pool2d` and return (y, cache)."""
    x = np.asarray(x)
    image = _to_nchw(x, layout)
    stride = kernel_size if stride is None else stride
    rows, columns = axes = _axes(
        _axis, image.shape[2:], kernel_size, stride, dilation, padding, ceil_mode
    )
    y = _output(axes, *image.shape[:2])
    for _, o, i in _taps(axes):
        y[o] += image[i]
    divisor = _output(axes)
    for _, o, _ in _taps((rows.padded(), columns.padded()) if count_include_pad else axes):
        divisor[o] += 1
    return _from_nchw(y / divisor, layout, x.dtype), _AvgPoolCache(x, divisor, axes, layout)


def avg_pool2d_backward(dy: Array, cache: _AvgPoolCache) -> Array:
    """Return dx: each dy is shared out equally over the cells of its window."""
    share = _to_nchw(dy, cache.layout) / cache.divisor
    dx = _image(cache.axes, *share.shape[:2])
    for _, o, i in _taps(cache.axes):
        dx[i] += share[o]
    return _from_nchw(dx, cache.layout, cache.x.dtype)


# Global pooling: one window, as large as the image.


def _spatial(layout: str) -> tuple[int, int]:
    """Return the two axes that are H and W."""
    return (2, 3) if layout == "NCHW" else (1, 2)


def global_max_pool2d(x: Array, *, layout: str = "NCHW") -> Array:
    """Take the largest cell of each channel of x (N, C, H, W): y (N, C)."""
    return global_max_pool2d_forward(x, layout=layout)[0]


def global_max_pool2d_forward(x: Array, *, layout: str = "NCHW") -> tuple[Array, _MaxPoolCache]:
    """Pool like `global_max_pool2d` and return (y, cache)."""
    size = [np.shape(x)[axis] for axis in _spatial(layout)]
    y, cache = max_pool2d_forward(x, size, layout=layout)
    return y.squeeze(_spatial(layout)), cache


def global_max_pool2d_backward(dy: Array, cache: _MaxPoolCache, *, ties: str = "first") -> Array:
    """Return dx; for `ties` see `max_pool2d_backward`."""
    return max_pool2d_backward(np.expand_dims(dy, _spatial(cache.layout)), cache, ties=ties)


def global_avg_pool2d(x: Array, *, layout: str = "NCHW") -> Array:
    """Average each channel of x (N, C, H, W): y (N, C)."""
    return global_avg_pool2d_forward(x, layout=layout)[0]


def global_avg_pool2d_forward(x: Array, *, layout: str = "NCHW") -> tuple[Array, _AvgPoolCache]:
    """Pool like `global_avg_pool2d` and return (y, cache)."""
    size = [np.shape(x)[axis] for axis in _spatial(layout)]
    y, cache = avg_pool2d_forward(x, size, layout=layout)
    return y.squeeze(_spatial(layout)), cache


def global_avg_pool2d_backward(dy: Array, cache: _AvgPoolCache) -> Array:
    """Return dx: each dy is shared out equally over its channel."""
    return avg_pool2d_backward(np.expand_dims(dy, _spatial(cache.layout)), cache)


# Normalisation. x is cut into groups of channels, (N, G, C/G, H, W), and `over` names the axes that
# share one mean and one variance.


class _NormCache(NamedTuple):
    x: Array
    gamma: Array
    mean: Array
    var: Array
    over: tuple[int, ...]
    groups: int
    eps: float
    layout: str


def _normalize(
    x: Array, gamma: Array, beta: Array, over: tuple[int, ...], groups: int, eps: float, layout: str
) -> tuple[Array, _NormCache]:
    x = np.asarray(x)
    split = _split(_to_nchw(x, layout), 1, groups)
    mean, var = split.mean(over, keepdims=True), split.var(over, keepdims=True)
    x_hat = _join((split - mean) / np.sqrt(var + eps), 1)
    y = _from_nchw(_per_channel(gamma) * x_hat + _per_channel(beta), layout, x.dtype)
    return y, _NormCache(x, gamma, mean, var, over, groups, eps, layout)


def _normalize_backward(dy: Array, cache: _NormCache) -> tuple[Array, Array, Array]:
    x, gamma, mean, var, over, groups, eps, layout = cache
    std = np.sqrt(var + eps)
    x_hat = (_split(_to_nchw(x, layout), 1, groups) - mean) / std
    dy = _to_nchw(dy, layout)
    dgamma, dbeta = (dy * _join(x_hat, 1)).sum((0, 2, 3)), dy.sum((0, 2, 3))
    dx_hat = _split(dy * _per_channel(gamma), 1, groups)
    # mean and var move with x: take out what of dx_hat lies along 1 and along x_hat
    along_1 = dx_hat.mean(over, keepdims=True)
    along_x_hat = (dx_hat * x_hat).mean(over, keepdims=True)
    dx = _join((dx_hat - along_1 - along_x_hat * x_hat) / std, 1)
    return _from_nchw(dx, layout, x.dtype), dgamma.astype(x.dtype), dbeta.astype(x.dtype)


def batch_norm2d(
    x: Array,
    gamma: Array,
    beta: Array,
    running_mean: Array,
    running_var: Array,
    *,
    eps: float = 1e-5,
    layout: str = "NCHW",
    out: Array | None = None,
) -> Array:
    """Normalise each channel of x (N, C, H, W) by its running mean and variance, (C,) each.

    ``y = gamma * (x - running_mean) / sqrt(running_var + eps) + beta``
    """
    image, std = _to_nchw(x, layout), np.sqrt(_per_channel(running_var) + eps)
    x_hat = (image - _per_channel(running_mean)) / std
    y = _per_channel(gamma) * x_hat + _per_channel(beta)
    return _fill(out, _from_nchw(y, layout, np.asarray(x).dtype))


def batch_norm2d_forward(
    x: Array,
    gamma: Array,
    beta: Array,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    *,
    momentum: float = 0.1,
    eps: float = 1e-5,
    layout: str = "NCHW",
) -> tuple[Array, _NormCache]:
    """Normalise each channel by the mean and variance of the batch; return (y, cache).

    The running statistics move in place by `momentum` to the mean and the unbiased variance.
    """
    y, cache = _normalize(x, gamma, beta, (0, 3, 4), 1, eps, layout)
    if running_mean is not None and running_var is not None:
        n = cache.x.size // cache.mean.size
        unbiased = cache.var * n / (n - 1)
        running_mean[...] = (1 - momentum) * running_mean + momentum * cache.mean.ravel()
        running_var[...] = (1 - momentum) * running_var + momentum * unbiased.ravel()
    return y, cache


def batch_norm2d_backward(dy: Array, cache: _NormCache) -> tuple[Array, Array, Array]:
    """Return (dx, dgamma, dbeta)."""
    return _normalize_backward(dy, cache)


def group_norm(
    x: Array,
    gamma: Array,
    beta: Array,
    num_groups: int,
    *,
    eps: float = 1e-5,
    layout: str = "NCHW",
    out: Array | None = None,
) -> Array:
    """Normalise each image's groups of channels by their own mean and variance.

    ``y = gamma * (x - mean) / sqrt(var + eps) + beta``, with gamma and beta of shape (C,).
    """
    return _fill(out, group_norm_forward(x, gamma, beta, num_groups, eps=eps, layout=layout)[0])


def group_norm_forward(
    x: Array, gamma: Array, beta: Array, num_groups: int, *, eps: float = 1e-5, layout: str = "NCHW"
) -> tuple[Array, _NormCache]:
    """Normalise like `group_norm` and return (y, cache)."""
    return _normalize(x, gamma, beta, (2, 3, 4), num_groups, eps, layout)


def group_norm_backward(dy: Array, cache: _NormCache) -> tuple[Array, Array, Array]:
    """Return (dx, dgamma, dbeta)."""
    return _normalize_backward(dy, cache)
