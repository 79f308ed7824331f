"""Max, average and global pooling: check, plan, allocate, call."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, overload

import numpy as np
import numpy.typing as npt

from .algorithms import POOL_ALGORITHMS, Places, PoolAlgorithm, planned_pool
from .arrays import (
    LAYOUTS,
    FloatArray,
    check_cache,
    check_cached,
    check_choice,
    float_array,
    gradient,
    nchw,
    new_array,
    result,
)
from .geometry import Axis, IntPair, Padding, Window, boolean, in_nchw, shape_in

TIES = ("first", "all", "split")


@dataclass(frozen=True, eq=False)
class PoolCache:
    """What a forward pass leaves for its backward pass; x is a view, not a copy."""

    x: FloatArray
    window: Window
    layout: str
    algorithm: PoolAlgorithm

    @property
    def y_shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        n, c, _, _ = in_nchw(self.layout, self.x.shape)
        return shape_in(self.layout, n, c, *self.window.output)


@dataclass(frozen=True, eq=False)
class MaxPool2dCache(PoolCache):
    """Cache of `max_pool2d_forward` and `global_max_pool2d_forward`."""

    places: Places | None  # of the maxima, if the algorithm leaves them

    @property
    def places_dtype(self) -> npt.DTypeLike:
        """Their dtype, or None."""
        _, c, _, _ = in_nchw(self.layout, self.x.shape)
        return self.algorithm.places(self.window, self.layout, c)


@dataclass(frozen=True, eq=False)
class AvgPool2dCache(PoolCache):
    """Cache of `avg_pool2d_forward` and `global_avg_pool2d_forward`."""

    count_include_pad: bool


@overload
def max_pool2d(
    x: npt.ArrayLike,
    kernel_size: IntPair,
    *,
    stride: IntPair | None = None,
    padding: Padding = 0,
    dilation: IntPair = 1,
    ceil_mode: bool = False,
    layout: str = "NCHW",
    return_indices: Literal[False] = False,
    algorithm: str = "auto",
    out: FloatArray | None = None,
) -> FloatArray: ...


@overload
def max_pool2d(
    x: npt.ArrayLike,
    kernel_size: IntPair,
    *,
    stride: IntPair | None = None,
    padding: Padding = 0,
    dilation: IntPair = 1,
    ceil_mode: bool = False,
    layout: str = "NCHW",
    return_indices: Literal[True],
    algorithm: str = "auto",
    out: FloatArray | None = None,
) -> tuple[FloatArray, npt.NDArray[np.int64]]: ...


def max_pool2d(
    x: npt.ArrayLike,
    kernel_size: IntPair,
    *,
    stride: IntPair | None = None,
    padding: Padding = 0,
    dilation: IntPair = 1,
    ceil_mode: bool = False,
    layout: str = "NCHW",
    return_indices: bool = False,
    algorithm: str = "auto",
    out: FloatArray | None = None,
) -> FloatArray | tuple[FloatArray, npt.NDArray[np.int64]]:
    """Take the largest cell of each window.

    ``y[n, c, oh, ow] = max over kh, kw of x[n, c, ih, iw]`` with ``ih = oh * stride + kh * dilation
    - top`` and ``iw`` likewise; cells of the padding do not count. A NaN is larger than any number.

    Parameters
    ----------
    x : array_like
        Images ``(N, C, H, W)`` or, with ``layout="NHWC"``, ``(N, H, W, C)``; float32 or float64.
    kernel_size : int or (int, int)
        ``(KH, KW)``.
    stride : int or (int, int), optional
        Cells between windows; ``kernel_size`` unless given.
    padding : int, (int, int), ((int, int), (int, int)), "valid" or "same"
        As for `conv2d`; smaller than the effective kernel, ``dilation * (KH - 1) + 1``.
    dilation : int or (int, int)
        Cells between taps.
    ceil_mode : bool
        Round the output size up: one more window, beyond the last whole one, unless it would start
        beyond the image and its top or left padding.
    layout : {"NCHW", "NHWC"}
        Order of the dimensions of x and y.
    return_indices : bool
        Also return where each maximum is.
    algorithm : str
        "auto", or a name of the library's list.
    out : ndarray, optional
        Where to put y: its shape and dtype, any strides, no overlap with x.

    Returns
    -------
    y : ndarray
        ``(N, C, OH, OW)`` or ``(N, OH, OW, C)``.
    indices : ndarray of int64
        Only with ``return_indices``, in the shape of y: ``ih * W + iw`` of the maximum, the lowest
        of several.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv2d`; ValueError for a window that holds no cell of the image.

    Examples
    --------
    >>> import numpy as np
    >>> import cnnfast
    >>> x = np.array([1.0, 5.0, 2.0, 5.0]).reshape(1, 1, 2, 2)
    >>> cnnfast.max_pool2d(x, 2, return_indices=True)
    (array([[[[5.]]]]), array([[[[1]]]]))
    """
    boolean("return_indices", return_indices)
    x = float_array("x", x, 4)
    options = kernel_size, stride, padding, dilation
    window, chosen, y_shape = planned_pool(x.shape, x.dtype, options, ceil_mode, layout, algorithm)
    y = np.empty(y_shape, x.dtype) if out is None else result(out, y_shape, x.dtype, x=x)
    indices = np.empty(y_shape, np.int64) if return_indices else None
    if len(x):
        chosen.max_pool(window, nchw(x, layout), nchw(y, layout), nchw(indices, layout))
    y = y if out is None else out
    return y if indices is None else (y, indices)


def max_pool2d_forward(
    x: npt.ArrayLike,
    kernel_size: IntPair,
    *,
    stride: IntPair | None = None,
    padding: Padding = 0,
    dilation: IntPair = 1,
    ceil_mode: bool = False,
    layout: str = "NCHW",
    algorithm: str = "auto",
) -> tuple[FloatArray, MaxPool2dCache]:
    """Compute `max_pool2d`, and keep what `max_pool2d_backward` needs.

    Parameters
    ----------
    x, kernel_size, stride, padding, dilation, ceil_mode, layout, algorithm
        As for `max_pool2d`.

    Returns
    -------
    y : ndarray
        The result of `max_pool2d`.
    cache : MaxPool2dCache
        A reference to x, which must not change before the backward pass.
    """
    x = float_array("x", x, 4)
    options = kernel_size, stride, padding, dilation
    window, chosen, _ = planned_pool(x.shape, x.dtype, options, ceil_mode, layout, algorithm)
    return _max_pool_forward(x, window, layout, chosen)


def max_pool2d_backward(
    dy: npt.ArrayLike, cache: MaxPool2dCache, *, ties: str = "first"
) -> FloatArray:
    """Gradient of max pooling: each window's dy goes to its maximum.

    Parameters
    ----------
    dy : array_like
        Gradient of y: its shape, layout and dtype.
    cache : MaxPool2dCache
        From `max_pool2d_forward`.
    ties : {"first", "all", "split"}
        Where several cells of a window are equally large: the first in row-major order gets dy,
        each of them gets dy, or each of them gets an equal share. NaN equals NaN here.

    Returns
    -------
    ndarray
        dx, in the shape of x; windows that overlap add up.

    Raises
    ------
    TypeError, ValueError
        For a dy, cache or ties that does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import cnnfast
    >>> x = np.array([5.0, 5.0, 2.0, 1.0]).reshape(1, 1, 2, 2)
    >>> y, cache = cnnfast.max_pool2d_forward(x, 2)
    >>> cnnfast.max_pool2d_backward(np.full((1, 1, 1, 1), 6.0), cache, ties="split").ravel()
    array([3., 3., 0., 0.])
    """
    _check_cache(cache, MaxPool2dCache, "max_pool2d_forward")
    check_choice("ties", ties, TIES)
    x, layout = cache.x, cache.layout
    dy = gradient(dy, cache.y_shape, x.dtype)
    dx = new_array(x.shape, x.dtype)
    if len(x):
        cache.algorithm.max_pool_gradient(
            cache.window,
            nchw(x, layout),
            nchw(dy, layout),
            nchw(cache.places, layout),
            ties,
            nchw(dx, layout),
        )
    return dx


def avg_pool2d(
    x: npt.ArrayLike,
    kernel_size: IntPair,
    *,
    stride: IntPair | None = None,
    padding: Padding = 0,
    dilation: IntPair = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    layout: str = "NCHW",
    algorithm: str = "auto",
    out: FloatArray | None = None,
) -> FloatArray:
    """Take the mean of each window.

    ``y[n, c, oh, ow] = sum over kh, kw of x[n, c, ih, iw] / count`` with ``ih``, ``iw`` as for
    `max_pool2d`. The count is that of the taps in the image or its padding (not of those that
    ``ceil_mode`` lets hang over), or with ``count_include_pad=False`` of those in the image.

    Parameters
    ----------
    x, kernel_size, stride, padding, dilation, ceil_mode, layout, algorithm, out
        As for `max_pool2d`.
    count_include_pad : bool
        Whether cells of the padding count, as zeros.

    Returns
    -------
    ndarray
        y, ``(N, C, OH, OW)`` or ``(N, OH, OW, C)``.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `max_pool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> import cnnfast
    >>> x = np.array([1.0, 2.0, 3.0, 6.0]).reshape(1, 1, 2, 2)
    >>> cnnfast.avg_pool2d(x, 2)
    array([[[[3.]]]])
    """
    boolean("count_include_pad", count_include_pad)
    x = float_array("x", x, 4)
    options = kernel_size, stride, padding, dilation
    window, chosen, y_shape = planned_pool(x.shape, x.dtype, options, ceil_mode, layout, algorithm)
    y = np.empty(y_shape, x.dtype) if out is None else result(out, y_shape, x.dtype, x=x)
    if len(x):
        chosen.avg_pool(window, count_include_pad, layout, nchw(x, layout), nchw(y, layout))
    return y if out is None else out


def avg_pool2d_forward(
    x: npt.ArrayLike,
    kernel_size: IntPair,
    *,
    stride: IntPair | None = None,
    padding: Padding = 0,
    dilation: IntPair = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    layout: str = "NCHW",
    algorithm: str = "auto",
) -> tuple[FloatArray, AvgPool2dCache]:
    """Compute `avg_pool2d`, and keep what `avg_pool2d_backward` needs.

    Parameters
    ----------
    x, kernel_size, stride, padding, dilation, ceil_mode, count_include_pad, layout, algorithm
        As for `avg_pool2d`.

    Returns
    -------
    y : ndarray
        The result of `avg_pool2d`.
    cache : AvgPool2dCache
        For `avg_pool2d_backward`.
    """
    boolean("count_include_pad", count_include_pad)
    x = float_array("x", x, 4)
    options = kernel_size, stride, padding, dilation
    window, chosen, _ = planned_pool(x.shape, x.dtype, options, ceil_mode, layout, algorithm)
    return _avg_pool_forward(x, window, layout, chosen, count_include_pad)


def avg_pool2d_backward(dy: npt.ArrayLike, cache: AvgPool2dCache) -> FloatArray:
    """Gradient of average pooling: each cell of a window gets ``dy / count``.

    Parameters
    ----------
    dy : array_like
        Gradient of y: its shape, layout and dtype.
    cache : AvgPool2dCache
        From `avg_pool2d_forward`.

    Returns
    -------
    ndarray
        dx, in the shape of x; windows that overlap add up.

    Raises
    ------
    TypeError, ValueError
        For a dy or cache that does not fit.
    """
    _check_cache(cache, AvgPool2dCache, "avg_pool2d_forward")
    x, window, layout = cache.x, cache.window, cache.layout
    dy = gradient(dy, cache.y_shape, x.dtype)
    dx = new_array(x.shape, x.dtype)
    if len(x):
        cache.algorithm.avg_pool_gradient(
            window, cache.count_include_pad, nchw(dy, layout), nchw(dx, layout)
        )
    return dx


def global_max_pool2d(x: npt.ArrayLike, *, layout: str = "NCHW") -> FloatArray:
    """Take the largest cell of each channel of each image.

    Parameters
    ----------
    x : array_like
        Images ``(N, C, H, W)`` or, with ``layout="NHWC"``, ``(N, H, W, C)``; float32 or float64.
    layout : {"NCHW", "NHWC"}
        Order of the dimensions of x.

    Returns
    -------
    ndarray
        ``(N, C)``.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `max_pool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> import cnnfast
    >>> cnnfast.global_max_pool2d(np.arange(8.0).reshape(1, 2, 2, 2))
    array([[3., 7.]])
    """
    y, _ = global_max_pool2d_forward(x, layout=layout)
    return y


def global_max_pool2d_forward(
    x: npt.ArrayLike, *, layout: str = "NCHW"
) -> tuple[FloatArray, MaxPool2dCache]:
    """Compute `global_max_pool2d`, and keep what `global_max_pool2d_backward` needs.

    Parameters
    ----------
    x, layout
        As for `global_max_pool2d`.

    Returns
    -------
    y : ndarray
        ``(N, C)``.
    cache : MaxPool2dCache
        For `global_max_pool2d_backward`.
    """
    y, cache = _max_pool_forward(*_whole_image(x, layout))
    return y.reshape(_planes(cache)), cache


def global_max_pool2d_backward(
    dy: npt.ArrayLike, cache: MaxPool2dCache, *, ties: str = "first"
) -> FloatArray:
    """Gradient of `global_max_pool2d`.

    Parameters
    ----------
    dy : array_like
        ``(N, C)``; dtype of x.
    cache : MaxPool2dCache
        From `global_max_pool2d_forward`.
    ties : {"first", "all", "split"}
        As for `max_pool2d_backward`.

    Returns
    -------
    ndarray
        dx, in the shape of x.
    """
    _check_cache(cache, MaxPool2dCache, "global_max_pool2d_forward")
    dy = gradient(dy, _planes(cache), cache.x.dtype)
    return max_pool2d_backward(dy.reshape(cache.y_shape), cache, ties=ties)


def global_avg_pool2d(x: npt.ArrayLike, *, layout: str = "NCHW") -> FloatArray:
    """Take the mean of each channel of each image.

    Parameters
    ----------
    x : array_like
        Images ``(N, C, H, W)`` or, with ``layout="NHWC"``, ``(N, H, W, C)``; float32 or float64.
    layout : {"NCHW", "NHWC"}
        Order of the dimensions of x.

    Returns
    -------
    ndarray
        ``(N, C)``.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `avg_pool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> import cnnfast
    >>> cnnfast.global_avg_pool2d(np.arange(8.0).reshape(1, 2, 2, 2))
    array([[1.5, 5.5]])
    """
    y, _ = global_avg_pool2d_forward(x, layout=layout)
    return y


def global_avg_pool2d_forward(
    x: npt.ArrayLike, *, layout: str = "NCHW"
) -> tuple[FloatArray, AvgPool2dCache]:
    """Compute `global_avg_pool2d`, and keep what `global_avg_pool2d_backward` needs.

    Parameters
    ----------
    x, layout
        As for `global_avg_pool2d`.

    Returns
    -------
    y : ndarray
        ``(N, C)``.
    cache : AvgPool2dCache
        For `global_avg_pool2d_backward`.
    """
    y, cache = _avg_pool_forward(*_whole_image(x, layout), count_include_pad=True)
    return y.reshape(_planes(cache)), cache


def global_avg_pool2d_backward(dy: npt.ArrayLike, cache: AvgPool2dCache) -> FloatArray:
    """Gradient of `global_avg_pool2d`.

    Parameters
    ----------
    dy : array_like
        ``(N, C)``; dtype of x.
    cache : AvgPool2dCache
        From `global_avg_pool2d_forward`.

    Returns
    -------
    ndarray
        dx, in the shape of x.
    """
    _check_cache(cache, AvgPool2dCache, "global_avg_pool2d_forward")
    dy = gradient(dy, _planes(cache), cache.x.dtype)
    return avg_pool2d_backward(dy.reshape(cache.y_shape), cache)


def _whole_image(x: npt.ArrayLike, layout: str) -> tuple[FloatArray, Window, str, PoolAlgorithm]:
    """Return x as a float array, one window as large as its images, and how it is pooled."""
    check_choice("layout", layout, LAYOUTS)
    x = float_array("x", x, 4)
    _, _, *image = in_nchw(layout, x.shape)
    window = Window(*(Axis(size, size, 1, 1, 0, 0, 1) for size in image))
    return x, window, layout, POOL_ALGORITHMS[0]


def _max_pool_forward(
    x: FloatArray, window: Window, layout: str, algorithm: PoolAlgorithm
) -> tuple[FloatArray, MaxPool2dCache]:
    cache = MaxPool2dCache(x, window, layout, algorithm, None)
    dtype, shape = cache.places_dtype, cache.y_shape
    y, places = np.empty(shape, x.dtype), None if dtype is None else np.empty(shape, dtype)
    if len(x):
        algorithm.max_pool(window, nchw(x, layout), nchw(y, layout), nchw(places, layout))
    return y, replace(cache, places=places)


def _avg_pool_forward(
    x: FloatArray,
    window: Window,
    layout: str,
    algorithm: PoolAlgorithm,
    count_include_pad: bool,
) -> tuple[FloatArray, AvgPool2dCache]:
    cache = AvgPool2dCache(x, window, layout, algorithm, count_include_pad)
    y = np.empty(cache.y_shape, x.dtype)
    if len(x):
        algorithm.avg_pool(window, count_include_pad, layout, nchw(x, layout), nchw(y, layout))
    return y, cache


def _planes(cache: PoolCache) -> tuple[int, int]:
    """Return the ``(N, C)`` of a pool of whole images."""
    if cache.window.output != (1, 1):
        raise ValueError(f"cache must come from a global pool, got windows {cache.window.output}")
    n, c, _, _ = in_nchw(cache.layout, cache.y_shape)
    return n, c


def _check_cache(cache: PoolCache, kind: type[PoolCache], source: str) -> None:
    """TypeError or ValueError unless the cache comes from there and x fits its window."""
    check_cache(cache, kind, source)
    x, layout = cache.x, cache.layout
    n, c, _, _ = in_nchw(layout, x.shape)
    check_cached(x.dtype, x=(x, shape_in(layout, n, c, *cache.window.image)))
    if isinstance(cache, MaxPool2dCache):
        _check_places(cache)


def _check_places(cache: MaxPool2dCache) -> None:
    """ValueError unless the places of a cache are what its algorithm leaves."""
    dtype, places = cache.places_dtype, cache.places
    if dtype is not None or places is not None:
        check_cached(np.dtype(dtype), places=(places, cache.y_shape))
