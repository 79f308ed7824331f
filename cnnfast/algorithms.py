"""The ordered list of algorithms, fastest first, and the choice among them.

A choice is a pure function of the problem: the first algorithm of the list that can do it, or the
one asked for, which never falls back silently. Each algorithm is one compiled module with three
functions around one convolution ``y = x * w``, on views in the order N, C, H, W:

- ``forward(conv, x, w, b, relu, y)`` computes ``y = relu(x * w + b)``;
- ``input_gradient(conv, dy, w, b, relu, dx)`` computes ``dx = relu(what dy scatters through w + b)``,
  the transposed convolution;
- ``gradients(conv, x, w, dy, dx, dw, db)`` sets dx, and adds to dw and db, what dy contributes;
  those of them that are None are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import SupportsIndex, TypeAlias

import numpy as np
import numpy.typing as npt

from . import _im2col, _naive, _tiled, geometry
from .arrays import DTYPES, LAYOUTS, FloatArray, check_choice
from .geometry import Convolution, IntPair, Padding

Product: TypeAlias = Callable[
    [Convolution, FloatArray, FloatArray, FloatArray, bool, FloatArray], None
]
Gradients: TypeAlias = Callable[
    [
        Convolution,
        FloatArray | None,  # x, which dw needs
        FloatArray | None,  # w, which dx needs
        FloatArray,
        FloatArray | None,
        FloatArray | None,
        npt.NDArray[np.float64] | None,
    ],
    None,
]


@dataclass(frozen=True)
class Algorithm:
    """One way to compute a convolution and its gradients."""

    name: str
    why_not: Callable[[Convolution], str | None]  # None: it can do this problem
    workspace_bytes: Callable[[Convolution], int]
    forward: Product
    input_gradient: Product
    gradients: Gradients


@dataclass(frozen=True)
class PoolAlgorithm:
    """One way to pool."""

    name: str
    why_not: Callable[[geometry.Window], str | None]


def _always(problem: Convolution | geometry.Window) -> None:
    """Return no reason against: the algorithm does every problem."""


ALGORITHMS = (
    Algorithm(
        "tiled",
        _always,
        _tiled.workspace_bytes,
        _tiled.forward,
        _tiled.input_gradient,
        _tiled.gradients,
    ),
    Algorithm(
        "im2col",
        _always,
        _im2col.workspace_bytes,
        _im2col.forward,
        _im2col.input_gradient,
        _im2col.gradients,
    ),
    Algorithm(
        "naive",
        _always,
        _naive.workspace_bytes,
        _naive.forward,
        _naive.input_gradient,
        _naive.gradients,
    ),
)

POOL_ALGORITHMS = (PoolAlgorithm("naive", _always),)


@dataclass(frozen=True)
class Plan:
    """How a convolution will be computed, and what it costs.

    Attributes
    ----------
    algorithm : str
        Name of the algorithm chosen.
    refusals : dict of str to str
        Every other algorithm of the list, with the reason why it was not chosen.
    flops : int
        Multiplications and additions of the direct formula, 2 per tap.
    bytes : int
        Size of x, w and y together: the least that must be moved.
    workspace_bytes : int
        Memory used while computing, beyond inputs and outputs; the largest over forward and
        backward.
    """

    algorithm: str
    refusals: dict[str, str]
    flops: int
    bytes: int
    workspace_bytes: int


def plan_conv2d(
    x_shape: Sequence[SupportsIndex],
    w_shape: Sequence[SupportsIndex],
    *,
    dtype: str = "float32",
    stride: IntPair = 1,
    padding: Padding = 0,
    dilation: IntPair = 1,
    groups: SupportsIndex = 1,
    layout: str = "NCHW",
    algorithm: str = "auto",
) -> Plan:
    """Tell how ``conv2d`` would compute a convolution, without computing it.

    Parameters
    ----------
    x_shape : tuple of 4 ints
        Shape of x, in ``layout``.
    w_shape : tuple of 4 ints
        ``(F, C/groups, KH, KW)``.
    dtype : {"float32", "float64"}
        Dtype of x and w.
    stride, padding, dilation, groups, layout, algorithm
        As for `conv2d`.

    Returns
    -------
    Plan
        The algorithm, why the others were not chosen, flops, bytes and workspace_bytes.

    Raises
    ------
    TypeError, ValueError
        As `conv2d` would for arrays of these shapes.

    Examples
    --------
    >>> import cnnfast
    >>> plan = cnnfast.plan_conv2d((8, 3, 32, 32), (16, 3, 5, 5), padding=2)
    >>> plan.flops
    19660800
    >>> plan.workspace_bytes <= 64 * 2**20
    True
    """
    check_choice("layout", layout, LAYOUTS)
    check_choice("dtype", dtype, tuple(known.name for known in DTYPES))
    conv = geometry.convolution(
        geometry.array_shape("x_shape", x_shape, 4),
        geometry.array_shape("w_shape", w_shape, 4),
        dtype,
        stride,
        padding,
        dilation,
        groups,
        layout,
    )
    chosen = select(conv, algorithm)
    return Plan(
        chosen.name,
        _refusals(conv, chosen, algorithm),
        conv.flops,
        conv.bytes,
        chosen.workspace_bytes(conv),
    )


@lru_cache(maxsize=1024)  # a choice is some hundred bytes
def select(conv: Convolution, algorithm: str) -> Algorithm:
    """Return the algorithm asked for, or with "auto" the first that can do the problem."""
    return _first_able(ALGORITHMS, conv, algorithm)


def check_pool_algorithm(window: geometry.Window, algorithm: str) -> None:
    """ValueError or TypeError unless the algorithm is "auto" or can do this pool."""
    _first_able(POOL_ALGORITHMS, window, algorithm)


def _first_able(algorithms, problem, asked: str):
    check_choice("algorithm", asked, ("auto", *(candidate.name for candidate in algorithms)))
    for candidate in algorithms:
        reason = candidate.why_not(problem)
        if asked == candidate.name and reason:
            raise ValueError(f"algorithm {asked!r} cannot do this problem: {reason}")
        if asked in ("auto", candidate.name) and not reason:
            return candidate
    raise ValueError(f"no algorithm can do this problem: {problem}")


def _refusals(conv: Convolution, chosen: Algorithm, asked: str) -> dict[str, str]:
    """Return the reason against every algorithm but the chosen one."""
    otherwise = f"{chosen.name} is faster" if asked == "auto" else f"{asked} was asked for"
    return {
        candidate.name: candidate.why_not(conv) or otherwise
        for candidate in ALGORITHMS
        if candidate is not chosen
    }
