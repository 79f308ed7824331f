"""Batch and group normalisation: check, allocate, call; the passes over the data are in norm.pyx.

Sources: Ioffe and Szegedy, "Batch normalization", arXiv:1502.03167; Wu and He, "Group
normalization", arXiv:1803.08494.
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
    check_apart,
    check_cache,
    check_cached,
    check_choice,
    float_array,
    gradient,
    nchw,
    new_array,
    parameter,
    result,
    writable,
)
from .geometry import in_nchw, integer, shown

Numbers: TypeAlias = npt.NDArray[np.float64]  # (1, C) of a batch; (N, groups) of groups


@dataclass(frozen=True, eq=False)
class NormCache:
    """What a forward pass leaves for its backward; x and gamma are views, not copies."""

    x: FloatArray
    gamma: FloatArray
    mean: Numbers
    inverse_std: Numbers
    groups: int | None  # None: statistics over the batch
    layout: str


@dataclass(frozen=True, eq=False)
class BatchNorm2dCache(NormCache):
    """Cache of `batch_norm2d_forward`."""


@dataclass(frozen=True, eq=False)
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
    out: FloatArray | None = None,
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
    out : ndarray, optional
        Where to put y.

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
    x, gamma, beta, eps = _operands(x, gamma, beta, eps, layout)
    mean = parameter("running_mean", running_mean, gamma.shape, x)
    var = parameter("running_var", running_var, gamma.shape, x)
    inputs = {"gamma": gamma, "beta": beta, "running_mean": mean, "running_var": var}
    y = _result(out, x, **inputs)
    if len(x):
        by_pixels = layout == "NHWC"
        _norm.inference(nchw(x, layout), by_pixels, gamma, beta, mean, var, eps, nchw(y, layout))
    return y if out is None else out


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
    x, gamma, beta, eps = _operands(x, gamma, beta, eps, layout)
    momentum = _real("momentum", momentum)
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum must be between 0 and 1, got {momentum!r}")
    count = x.size // gamma.size
    if count == 0:
        raise ValueError(f"x must have at least one value per channel, got shape {x.shape}")
    running = _running(x, gamma, beta, running_mean, running_var)
    if count == 1 and running:
        raise ValueError(
            f"running_var needs at least two values per channel, got x of shape {x.shape}"
        )
    y = new_array(x.shape, x.dtype)
    mean, var, inverse_std = _normalize(x, gamma, beta, 0, eps, layout, y)
    if running:  # last, when nothing can fail any more
        _norm.update(running[0], mean[0], momentum, 1.0)
        _norm.update(running[1], var[0], momentum, count / (count - 1))
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
    check_cache(cache, BatchNorm2dCache, "batch_norm2d_forward")
    return _gradients(dy, cache)


def group_norm(
    x: npt.ArrayLike,
    gamma: npt.ArrayLike,
    beta: npt.ArrayLike,
    num_groups: SupportsIndex,
    *,
    eps: float = 1e-5,
    layout: str = "NCHW",
    out: FloatArray | None = None,
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
    out : ndarray, optional
        Where to put y.

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
    x, gamma, beta, eps = _operands(x, gamma, beta, eps, layout)
    groups = _groups(num_groups, gamma)
    y = _result(out, x, gamma=gamma, beta=beta)
    _normalize(x, gamma, beta, groups, eps, layout, y)
    return y if out is None else out


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
    x, gamma, beta, eps = _operands(x, gamma, beta, eps, layout)
    groups = _groups(num_groups, gamma)
    y = new_array(x.shape, x.dtype)
    mean, _, inverse_std = _normalize(x, gamma, beta, groups, eps, layout, y)
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
    check_cache(cache, GroupNormCache, "group_norm_forward")
    return _gradients(dy, cache)


def _operands(
    x: npt.ArrayLike, gamma: npt.ArrayLike, beta: npt.ArrayLike, eps: float, layout: str
) -> tuple[FloatArray, FloatArray, FloatArray, float]:
    check_choice("layout", layout, LAYOUTS)
    eps = _real("eps", eps)
    if not (eps > 0 and math.isfinite(eps)):
        raise ValueError(f"eps must be positive and finite, got {eps!r}")
    x = float_array("x", x, 4)
    channels = in_nchw(layout, x.shape)[1]
    gamma = parameter("gamma", gamma, (channels,), x)
    return x, gamma, parameter("beta", beta, (channels,), x), eps


def _groups(num_groups: SupportsIndex, gamma: FloatArray) -> int:
    groups = integer("num_groups", num_groups, 1)
    if gamma.size % groups:
        raise ValueError(f"x has {gamma.size} channels, not divisible by num_groups {groups}")
    return groups


def _result(out: FloatArray | None, x: FloatArray, **others: FloatArray) -> FloatArray:
    """Return the array for y: a new one, or the caller's once it is known to be fit."""
    if out is None:
        return new_array(x.shape, x.dtype)
    return result(out, x.shape, x.dtype, x=x, **others)


def _real(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {shown(value)}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} is too large: {shown(value)}") from None


def _running(
    x: FloatArray,
    gamma: FloatArray,
    beta: FloatArray,
    mean: FloatArray | None,
    var: FloatArray | None,
) -> tuple[FloatArray, FloatArray] | None:
    """Return the running statistics as arrays that can be updated, or None where there are none."""
    if (mean is None) != (var is None):
        missing = "running_mean" if mean is None else "running_var"
        raise ValueError(f"running_mean and running_var come together, but {missing} is None")
    if mean is None or var is None:
        return None
    for name, array in (("running_mean", mean), ("running_var", var)):
        parameter(name, array, gamma.shape, x)
    mean = writable("running_mean", mean, gamma.shape, x.dtype)
    var = writable("running_var", var, gamma.shape, x.dtype)
    check_apart("running_mean", mean, x=x, gamma=gamma, beta=beta, running_var=var)
    check_apart("running_var", var, x=x, gamma=gamma, beta=beta)
    return mean, var


def _normalize(
    x: FloatArray,
    gamma: FloatArray,
    beta: FloatArray,
    groups: int,
    eps: float,
    layout: str,
    y: FloatArray,
) -> tuple[Numbers, Numbers, Numbers]:
    """Fill y; return mean, variance and inverse standard deviation, of the batch with 0 groups."""
    if not len(x):
        nothing = np.empty((0, groups))
        return nothing, nothing, nothing
    by_pixels = layout == "NHWC"
    return _norm.forward(nchw(x, layout), by_pixels, groups, gamma, beta, eps, nchw(y, layout))


def _check_arrays(cache: NormCache) -> None:
    """ValueError if the arrays of a cache do not fit each other."""
    n, c, _, _ = in_nchw(cache.layout, cache.x.shape)
    check_cached(cache.x.dtype, x=(cache.x, cache.x.shape), gamma=(cache.gamma, (c,)))
    shape = (1, c) if cache.groups is None else (n, cache.groups)
    double = np.dtype(np.float64)
    check_cached(double, mean=(cache.mean, shape), inverse_std=(cache.inverse_std, shape))


def _gradients(dy: npt.ArrayLike, cache: NormCache) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return dx, dgamma and dbeta, the same for both kinds of statistics."""
    _check_arrays(cache)
    x, gamma, layout = cache.x, cache.gamma, cache.layout
    dy = gradient(dy, x.shape, x.dtype)
    dx = new_array(x.shape, x.dtype)
    if not len(x):
        return dx, np.zeros_like(gamma), np.zeros_like(gamma)
    dgamma, dbeta = np.empty_like(gamma), np.empty_like(gamma)
    _norm.gradients(
        nchw(dy, layout),
        nchw(x, layout),
        layout == "NHWC",
        cache.mean,
        cache.inverse_std,
        gamma,
        nchw(dx, layout),
        dgamma,
        dbeta,
    )
    return dx, dgamma, dbeta
