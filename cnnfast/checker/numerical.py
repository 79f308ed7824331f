"""The gradient by its definition: how much a result moves when a number of its input does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from .problems import Array


def numerical_gradient(
    f: Callable[[Array], npt.ArrayLike],
    x: npt.ArrayLike,
    dy: npt.ArrayLike = 1.0,
    *,
    h: float = 1e-5,
) -> Array:
    """Return the gradient of ``sum(f(x) * dy)`` by central differences.

    Parameters
    ----------
    f : callable
        Takes an array shaped like `x`, a fresh copy at each call, and returns an array or a number.
    x : array
        Where to take the gradient. float64 is needed to resolve `h`; x becomes that.
    dy : array, optional
        The gradient of the result of `f`, of its shape; without it, that of its sum.
    h : float, optional
        How far to move each number of x, up and down.

    Returns
    -------
    array
        The gradient, in float64, shaped like x. It takes two calls of `f` for each number of x.

    Examples
    --------
    >>> import numpy as np
    >>> from cnnfast.gradcheck import numerical_gradient
    >>> numerical_gradient(np.square, [1.0, 2.0, 3.0]).round(6)
    array([2., 4., 6.])
    """
    x = np.array(x, dtype=np.float64)
    gradient = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[place] += h
        down[place] -= h
        moved = (np.asarray(f(up)) - np.asarray(f(down))) * np.asarray(dy)
        gradient[place] = moved.sum() / (2 * h)
    return gradient


def relative_error(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Return the largest difference of two arrays over their largest sum of sizes.

    For gradients in float64, a few 1e-8 or less is agreement, and 1e-3 is not.

    Examples
    --------
    >>> from cnnfast.gradcheck import relative_error
    >>> relative_error([1.0, 2.0], [1.0, 2.0])
    0.0
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    scale = np.max(np.abs(a) + np.abs(b), initial=0)
    return float(np.max(np.abs(a - b), initial=0) / max(scale, np.finfo(float).tiny))
