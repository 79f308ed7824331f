"""Batch and group normalisation: check, allocate, call, and put the statistics of planes together.

The kernels of norm.pyx sum over planes ``x[n, c]``; here the sums of the planes that share a mean
become one mean and one variance (in float64, arrays of N x C numbers), and the three or four
numbers per plane that the scaling needs. Sources: Ioffe and Szegedy, "Batch normalization",
arXiv:1502.03167; Wu and He, "Group normalization", arXiv:1803.08494.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import SupportsIndex, TypeAlias

import numpy as np
import numpy.typing as npt

from . import _norm
from .arrays import (
    LAYOUTS,
    FloatArray,
    check_choice,
    check_writable,
    float_array,
    gradient,
    nchw,
    overlap,
    parameter,
)
from .geometry import in_nchw, integer

PlaneArray: TypeAlias = npt.NDArray[np.float64]  # (N, C), a number for each plane


@dataclass(frozen=True, eq=False)
class NormCache:
    """What a forward pass leaves for its backward; x and gamma are the caller's, not copies."""

    x: FloatArray
    gamma: FloatArray
    mean: PlaneArray
    inverse_std: PlaneArray
    groups: int | None  # None: statistics over the batch
    layout: str


class BatchNorm2dCache(NormCache):
    """Cache of `batch_norm2d_forward`."""


class GroupNormCache(NormCache):
    """Cache of `group_norm_forward`."""


def batch_norm2d(
    x: npt.ArrayLike,
    gamma: npt.ArrayLike,
    beta: npt.ArrayLike,
    running_mean: npt.ArrayLike,
    running_var: npt.ArrayLike,
    *,
    eps: float = 1e-5,
    layout: str = "NCHW",
) -> FloatArray:
    """Normalise channels by running statistics: batch normalisation at inference.

    ``y = gamma * (x - running_mean) / sqrt(running_var + eps) + beta``, channel by channel.

    Parameters
    ----------
    x : array_like
        Images ``(N, C, H, W)`` or, with ``layout="NHWC"``, ``(N, H, W, C)``; float32 or float64.
    gamma, beta, running_mean, running_var : array_like
        ``(C,)``; dtype of x.
    eps : float
        Added to the variance; positive.
    layout : {"NCHW", "NHWC"}
        Order of the dimensions of x and y.

    Returns
    -------
    ndarray
        y, in the shape of x.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv2d`.

    References
    ----------
    Ioffe and Szegedy, arXiv:1502.03167, algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> import cnnfast
    >>> one = np.ones(1)
    >>> cnnfast.batch_norm2d(np.full((1, 1, 1, 2), 5.0), 2 * one, one, 3 * one, 4 * one - 1e-5)
    array([[[[3., 3.]]]])
    """
    x, gamma, beta = _operands(x, gamma, beta, eps, layout)
    mean = parameter("running_mean", running_mean, gamma.shape, x)
    var = parameter("running_var", running_var, gamma.shape, x)
    factor = gamma / np.sqrt(var.astype(np.float64) + eps)
    planes = _planes(x, layout)
    return _scaled(x, layout, *(_spread(each, planes) for each in (mean, factor, beta)))


def batch_norm2d_forward(
    x: npt.ArrayLike,
    gamma: npt.ArrayLike,
    beta: npt.ArrayLike,
    running_mean: FloatArray | None = None,
    running_var: FloatArray | None = None,
    *,
    momentum: float = 0.1,
    eps: float = 1e-5,
    layout: str = "NCHW",
) -> tuple[FloatArray, BatchNorm2dCache]:
    """Normalise channels by the statistics of the batch: batch normalisation in training.

    ``y = gamma * (x - mean) / sqrt(var + eps) + beta`` with the mean and (biased) variance of each
    channel over N, H and W. The running statistics, where given, are updated in place: ``running =
    (1 - momentum) * running + momentum * new``, with the unbiased variance (over ``n - 1``).

    Parameters
    ----------
    x, gamma, beta, eps, layout
        As for `batch_norm2d`.
    running_mean, running_var : ndarray, optional
        ``(C,)``, writeable; both or neither.
    momentum : float
        Weight of the new value, 0 to 1.

    Returns
    -------
    y : ndarray
        In the shape of x.
    cache : BatchNorm2dCache
        For `batch_norm2d_backward`.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv2d`; ValueError for an empty batch, which has no mean.
    """
    x, gamma, beta = _operands(x, gamma, beta, eps, layout)
    _check_real("momentum", momentum)
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum must be between 0 and 1, got {momentum!r}")
    count = x.size // gamma.size
    if count == 0:
        raise ValueError(f"x must have at least one value per channel, got shape {x.shape}")
    _check_running(x, gamma.shape, running_mean, running_var)
    if count == 1 and running_var is not None:
        raise ValueError(
            f"running_var needs at least two values per channel, got x of shape {x.shape}"
        )
    mean, var = _statistics(x, layout, None)
    if running_mean is not None and running_var is not None:
        running_mean += momentum * (mean[0] - running_mean)
        running_var += momentum * (var[0] * (count / (count - 1)) - running_var)
    y, inverse_std = _normalized(x, gamma, beta, mean, var, eps, layout)
    return y, BatchNorm2dCache(x, gamma, mean, inverse_std, None, layout)


def batch_norm2d_backward(
    dy: npt.ArrayLike, cache: BatchNorm2dCache
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Gradients of batch normalisation in training.

    With ``x_hat = (x - mean) / sqrt(var + eps)`` and means over N, H and W:
    ``dx = gamma / sqrt(var + eps) * (dy - mean(dy) - x_hat * mean(dy * x_hat))``, ``dgamma = sum(dy
    * x_hat)``, ``dbeta = sum(dy)``.

    Parameters
    ----------
    dy : array_like
        Gradient of y: its shape, layout and dtype.
    cache : BatchNorm2dCache
        From `batch_norm2d_forward`.

    Returns
    -------
    dx, dgamma, dbeta : ndarray
        In the shapes of x, gamma and beta.
    """
    if not isinstance(cache, BatchNorm2dCache):
        raise TypeError(f"cache must come from batch_norm2d_forward, got {type(cache).__name__}")
    return _gradients(dy, cache)


def group_norm(
    x: npt.ArrayLike,
    gamma: npt.ArrayLike,
    beta: npt.ArrayLike,
    num_groups: SupportsIndex,
    *,
    eps: float = 1e-5,
    layout: str = "NCHW",
) -> FloatArray:
    """Normalise groups of channels, image by image.

    ``y = gamma * (x - mean) / sqrt(var + eps) + beta`` with the mean and (biased) variance of each
    image over the channels of a group, H and W; gamma and beta belong to the channels.

    Parameters
    ----------
    x : array_like
        Images ``(N, C, H, W)`` or, with ``layout="NHWC"``, ``(N, H, W, C)``; float32 or float64.
    gamma, beta : array_like
        ``(C,)``; dtype of x.
    num_groups : int
        Divides C.
    eps : float
        Added to the variance; positive.
    layout : {"NCHW", "NHWC"}
        Order of the dimensions of x and y.

    Returns
    -------
    ndarray
        y, in the shape of x.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv2d`.

    References
    ----------
    Wu and He, arXiv:1803.08494.

    Examples
    --------
    >>> import numpy as np
    >>> import cnnfast
    >>> x = np.array([1.0, 3.0, 5.0, 5.0]).reshape(1, 4, 1, 1)
    >>> cnnfast.group_norm(x, np.ones(4), np.zeros(4), 2, eps=1e-12).ravel()
    array([-1.,  1.,  0.,  0.])
    """
    y, _ = group_norm_forward(x, gamma, beta, num_groups, eps=eps, layout=layout)
    return y


def group_norm_forward(
    x: npt.ArrayLike,
    gamma: npt.ArrayLike,
    beta: npt.ArrayLike,
    num_groups: SupportsIndex,
    *,
    eps: float = 1e-5,
    layout: str = "NCHW",
) -> tuple[FloatArray, GroupNormCache]:
    """Compute `group_norm`, and keep what `group_norm_backward` needs.

    Parameters
    ----------
    x, gamma, beta, num_groups, eps, layout
        As for `group_norm`.

    Returns
    -------
    y : ndarray
        The result of `group_norm`.
    cache : GroupNormCache
        For `group_norm_backward`.
    """
    x, gamma, beta = _operands(x, gamma, beta, eps, layout)
    groups = integer("num_groups", num_groups, 1)
    if gamma.size % groups:
        raise ValueError(f"x has {gamma.size} channels, not divisible by num_groups {groups}")
    mean, var = _statistics(x, layout, groups)
    y, inverse_std = _normalized(x, gamma, beta, mean, var, eps, layout)
    return y, GroupNormCache(x, gamma, mean, inverse_std, groups, layout)


def group_norm_backward(
    dy: npt.ArrayLike, cache: GroupNormCache
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Gradients of group normalisation.

    As `batch_norm2d_backward`, with means over the channels of a group, H and W of each image.

    Parameters
    ----------
    dy : array_like
        Gradient of y: its shape, layout and dtype.
    cache : GroupNormCache
        From `group_norm_forward`.

    Returns
    -------
    dx, dgamma, dbeta : ndarray
        In the shapes of x, gamma and beta.
    """
    if not isinstance(cache, GroupNormCache):
        raise TypeError(f"cache must come from group_norm_forward, got {type(cache).__name__}")
    return _gradients(dy, cache)


def _operands(
    x: npt.ArrayLike, gamma: npt.ArrayLike, beta: npt.ArrayLike, eps: float, layout: str
) -> tuple[FloatArray, FloatArray, FloatArray]:
    check_choice("layout", layout, LAYOUTS)
    _check_real("eps", eps)
    if not (eps > 0 and math.isfinite(eps)):
        raise ValueError(f"eps must be positive and finite, got {eps!r}")
    x = float_array("x", x, 4)
    channels = in_nchw(layout, x.shape)[1]
    return x, parameter("gamma", gamma, (channels,), x), parameter("beta", beta, (channels,), x)


def _check_real(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")


def _check_running(
    x: FloatArray,
    channels: tuple[int, ...],
    mean: FloatArray | None,
    var: FloatArray | None,
) -> None:
    """ValueError or TypeError unless the running statistics can be updated, or there are none."""
    if (mean is None) != (var is None):
        missing = "running_mean" if mean is None else "running_var"
        raise ValueError(f"running_mean and running_var come together, but {missing} is None")
    if mean is None or var is None:
        return
    for name, array in (("running_mean", mean), ("running_var", var)):
        parameter(name, array, channels, x)
        check_writable(name, array, channels, x.dtype)
        if overlap(array, x):
            raise ValueError(f"{name} must not overlap x: pass another array")
    if overlap(mean, var):
        raise ValueError("running_mean must not overlap running_var: pass another array")


def _planes(x: FloatArray, layout: str) -> tuple[int, int]:
    """``(N, C)``."""
    n, c, _, _ = in_nchw(layout, x.shape)
    return n, c


def _spread(values: np.ndarray, planes: tuple[int, int]) -> PlaneArray:
    """Give every plane its own of the numbers of its channel, group or image."""
    return np.broadcast_to(values.astype(np.float64), planes)


def _over_statistic(planes: PlaneArray, groups: int | None) -> tuple[PlaneArray, tuple[int, ...]]:
    """Planes as (images, groups, channels of a group), and the axes that share a statistic."""
    n, c = planes.shape
    return (
        (planes[:, None], (0,))
        if groups is None
        else (planes.reshape(n, groups, c // groups), (2,))
    )


def _shared_mean(planes: PlaneArray, groups: int | None) -> PlaneArray:
    """Replace the number of each plane by its mean over the planes that share a statistic."""
    by_group, axes = _over_statistic(planes, groups)
    mean = by_group.mean(axis=axes, keepdims=True)
    return np.broadcast_to(mean, by_group.shape).reshape(planes.shape)


def _statistics(x: FloatArray, layout: str, groups: int | None) -> tuple[PlaneArray, PlaneArray]:
    """Mean and biased variance that each plane is normalised by."""
    planes = _planes(x, layout)
    plane_mean, squares = np.empty(planes), np.empty(planes)
    _norm.moments(nchw(x, layout), plane_mean, squares)
    mean = _shared_mean(plane_mean, groups)
    cells = x.size // max(1, plane_mean.size)
    return mean, _shared_mean(squares / max(1, cells) + (plane_mean - mean) ** 2, groups)


def _normalized(
    x: FloatArray,
    gamma: FloatArray,
    beta: FloatArray,
    mean: PlaneArray,
    var: PlaneArray,
    eps: float,
    layout: str,
) -> tuple[FloatArray, PlaneArray]:
    inverse_std = 1 / np.sqrt(var + eps)
    return _scaled(x, layout, mean, gamma * inverse_std, _spread(beta, mean.shape)), inverse_std


def _scaled(
    x: FloatArray, layout: str, center: PlaneArray, factor: PlaneArray, shift: PlaneArray
) -> FloatArray:
    y = np.empty(x.shape, x.dtype)
    _norm.scale(nchw(x, layout), center, factor, shift, nchw(y, layout))
    return y


def _gradients(dy: npt.ArrayLike, cache: NormCache) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return dx, dgamma and dbeta, the same for both kinds of statistics."""
    x, layout, groups = cache.x, cache.layout, cache.groups
    dy = nchw(gradient(dy, x.shape, x.dtype), layout)
    sums, products = np.empty(cache.mean.shape), np.empty(cache.mean.shape)
    _norm.gradient_sums(dy, nchw(x, layout), cache.mean, sums, products)
    products *= cache.inverse_std  # of dy with x_hat
    cells = max(1, x.size // max(1, sums.size))
    # dx = inverse_std * (gamma * dy - mean(gamma * dy) - x_hat * mean(gamma * dy * x_hat))
    dy_factor = cache.gamma * cache.inverse_std
    shift = -cache.inverse_std * _shared_mean(cache.gamma * sums / cells, groups)
    x_factor = -(cache.inverse_std**2) * _shared_mean(cache.gamma * products / cells, groups)
    dx = np.empty(x.shape, x.dtype)
    _norm.scale_gradient(
        dy, nchw(x, layout), cache.mean, dy_factor, x_factor, shift, nchw(dx, layout)
    )
    return dx, products.sum(axis=0).astype(x.dtype), sums.sum(axis=0).astype(x.dtype)
