"""The ordered list of algorithms, fastest first, and the choice among them.

A choice is a pure function of the problem: the first algorithm of the list that can do it and is
not known to be slower than a later one, or the one asked for, which never falls back silently. It
may be another forward than backward. With the geometry that it is made for, it is kept for the next
call with equal arguments. Each algorithm is one compiled module with three functions around one
convolution ``y = x * w``, on views in the order N, C, H, W:

- ``forward(conv, x, w, b, relu, y)`` computes ``y = relu(x * w + b)``;
- ``input_gradient(conv, dy, w, b, relu, dx)`` computes ``dx = relu(what dy scatters through w +
  b)``, the transposed convolution;
- ``gradients(conv, x, w, dy, dx, dw, db)`` sets dx, and adds to dw and db, what dy contributes;
  those of them that are None are left out.

Those for pools have four around one window, on such views too:

- ``max_pool(window, x, y, places)`` also tells where the maxima are, unless places is None: as
  ``ih * W + iw`` in an array of int64, or as ``kh * KW + kw`` in one of bytes;
- ``max_pool_gradient(window, x, dy, places, ties, dx)`` sets dx, from the places that forward left
  in an array of dtype ``places(window, layout, C)``, or from x again where that is None;
- ``avg_pool(window, with_padding, layout, x, y)``, where the order of a sum may depend on the
  layout but not on the strides; and ``avg_pool_gradient(window, with_padding, dy, dx)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Generic, NamedTuple, SupportsIndex, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from . import _depthwise, _im2col, _naive, _pool, _tiled, _winograd, geometry
from .arrays import DTYPES, LAYOUTS, FloatArray, FloatDtype, check_choice
from .geometry import (
    Convolution,
    ConvolutionOptions,
    IntPair,
    Padding,
    PoolOptions,
    TransposedOptions,
    Window,
    shown,
)

Problem = TypeVar("Problem", Convolution, Window)

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

Places: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.int64]


def _no_reason(problem: Convolution | Window) -> None:
    """Return no reason against: the algorithm does every problem, or is not known to be slow."""


@dataclass(frozen=True)
class Candidate(Generic[Problem]):
    """One way to solve a kind of problem."""

    name: str
    why_not: Callable[[Problem], str | None]  # None: it can do this problem
    why_slower: Callable[[Problem], str | None] = field(default=_no_reason, kw_only=True)

    def refusal(self, problem: Problem) -> str | None:
        """Return why it is not the choice for a problem: it cannot, or one after it is faster."""
        return self.why_not(problem) or self.why_slower(problem)


Able = TypeVar("Able", bound=Candidate)


@dataclass(frozen=True)
class Algorithm(Candidate[Convolution]):
    """One way to compute a convolution and its gradients."""

    workspace_bytes: Callable[[Convolution], int]
    forward: Product
    input_gradient: Product
    gradients: Gradients
    why_slower_forward: Callable[[Convolution], str | None] = field(
        default=_no_reason, kw_only=True
    )

    def refusal_forward(self, conv: Convolution) -> str | None:
        """Return why it is not the choice forward: as `refusal`, or only there one is faster."""
        return self.refusal(conv) or self.why_slower_forward(conv)


class Choice(NamedTuple):
    """What computes a convolution, and what its gradients: mostly one algorithm."""

    forward: Algorithm
    backward: Algorithm


@dataclass(frozen=True)
class PoolAlgorithm(Candidate[Window]):
    """One way to pool."""

    places: Callable[[Window, str, int], npt.DTypeLike]  # dtype of what forward leaves, or None
    max_pool: Callable[[Window, FloatArray, FloatArray, Places | None], None]
    max_pool_gradient: Callable[
        [Window, FloatArray, FloatArray, Places | None, str, FloatArray], None
    ]
    avg_pool: Callable[[Window, bool, str, FloatArray, FloatArray], None]
    avg_pool_gradient: Callable[[Window, bool, FloatArray, FloatArray], None]


ALGORITHMS = (
    Algorithm(
        "winograd",
        _winograd.why_not,
        _winograd.workspace_bytes,
        _winograd.forward,
        _winograd.input_gradient,
        _winograd.gradients,
        why_slower=_winograd.why_slower,
    ),
    Algorithm(
        "depthwise",
        _depthwise.why_not,
        _depthwise.workspace_bytes,
        _depthwise.forward,
        _depthwise.input_gradient,
        _depthwise.gradients,
        why_slower=_depthwise.why_slower,
        why_slower_forward=_depthwise.why_slower_forward,
    ),
    Algorithm(
        "tiled",
        _no_reason,
        _tiled.workspace_bytes,
        _tiled.forward,
        _tiled.input_gradient,
        _tiled.gradients,
    ),
    Algorithm(
        "im2col",
        _no_reason,
        _im2col.workspace_bytes,
        _im2col.forward,
        _im2col.input_gradient,
        _im2col.gradients,
    ),
    Algorithm(
        "naive",
        _no_reason,
        _naive.workspace_bytes,
        _naive.forward,
        _naive.input_gradient,
        _naive.gradients,
    ),
)

POOL_ALGORITHMS = (
    PoolAlgorithm(
        "rows",
        _pool.why_not,
        _pool.places,
        _pool.max_pool,
        _pool.max_pool_gradient,
        _pool.avg_pool,
        _pool.avg_pool_gradient,
    ),
    PoolAlgorithm(
        "naive",
        _no_reason,
        _naive.places,
        _naive.max_pool,
        _naive.max_pool_gradient,
        _naive.avg_pool,
        _naive.avg_pool_gradient,
    ),
)


@dataclass(frozen=True)
class Plan:
    """How a convolution will be computed, and what it costs.

    Attributes
    ----------
    algorithm : str
        Name of the algorithm chosen.
    backward : str
        Name of the one for the gradients: mostly the same.
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
    backward: str
    refusals: dict[str, str] = field(hash=False)
    flops: int
    bytes: int
    workspace_bytes: int


def plan_conv2d(
    x_shape: Sequence[SupportsIndex],
    w_shape: Sequence[SupportsIndex],
    *,
    dtype: npt.DTypeLike = "float32",
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
    dtype : dtype
        Of x and w, float32 or float64.
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
    conv, chosen, _ = planned(
        geometry.convolution,
        geometry.array_shape("x_shape", x_shape, 4, 0),
        geometry.array_shape("w_shape", w_shape, 4, 1),
        _float_dtype(dtype),
        (stride, padding, dilation, groups, layout),
        algorithm,
    )
    return Plan(
        chosen.forward.name,
        chosen.backward.name,
        _refusals(conv, chosen.forward, algorithm),
        conv.flops,
        conv.bytes,
        max(each.workspace_bytes(conv) for each in chosen),
    )


def planned(
    kind: Callable[..., Convolution],
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    dtype: FloatDtype,
    options: ConvolutionOptions | TransposedOptions,
    algorithm: str,
) -> tuple[Convolution, Choice, tuple[int, ...]]:
    """Return the convolution that a call asks for, the algorithms for it, and the shape of y.

    ``kind`` is `geometry.convolution` or `geometry.transposed_convolution`, and ``options`` what it
    takes after shapes and dtype: the layout last. The algorithm is the one asked for, or with
    "auto" the first that can do the problem.
    """
    plain = type(algorithm) is str and geometry.are_plain(options)
    plan = _plan if plain else _plan.__wrapped__  # without looking for a kept one
    return plan(kind, x_shape, w_shape, dtype, options, algorithm)


def planned_pool(
    x_shape: tuple[int, ...],
    dtype: FloatDtype,
    options: PoolOptions,
    ceil_mode: bool,
    layout: str,
    algorithm: str,
) -> tuple[Window, PoolAlgorithm, tuple[int, ...]]:
    """Return the window that a pooling call asks for, the algorithm for it, and the shape of y.

    ``options`` are the kernel_size, stride, padding and dilation of `geometry.pool`.
    """
    plain = type(ceil_mode) is bool and type(layout) is str and type(algorithm) is str
    plan = _pool_plan if plain and geometry.are_plain(options) else _pool_plan.__wrapped__
    return plan(x_shape, dtype, options, ceil_mode, layout, algorithm)


@lru_cache(geometry.MOST_KEPT)
def _plan(
    kind: Callable[..., Convolution],
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    dtype: FloatDtype,
    options: ConvolutionOptions | TransposedOptions,
    algorithm: str,
) -> tuple[Convolution, Choice, tuple[int, ...]]:
    check_choice("layout", options[-1], LAYOUTS)
    conv = kind(x_shape, w_shape, dtype.name, *options)
    places = (
        _first_able(ALGORITHMS, conv, algorithm, refusal)
        for refusal in (Algorithm.refusal_forward, Algorithm.refusal)
    )
    chosen = Choice._make(ALGORITHMS[place] for place in places)
    return conv, chosen, conv.output_shape if kind is geometry.convolution else conv.image_shape


@lru_cache(geometry.MOST_KEPT)
def _pool_plan(
    x_shape: tuple[int, ...],
    dtype: FloatDtype,
    options: PoolOptions,
    ceil_mode: bool,
    layout: str,
    algorithm: str,
) -> tuple[Window, PoolAlgorithm, tuple[int, ...]]:
    check_choice("layout", layout, LAYOUTS)
    N, C, height, width = geometry.in_nchw(layout, x_shape)
    window = geometry.pool((height, width), *options, ceil_mode=ceil_mode)
    chosen = POOL_ALGORITHMS[_first_able(POOL_ALGORITHMS, window, algorithm, PoolAlgorithm.refusal)]
    y_shape = geometry.shape_in(layout, N, C, *window.output)
    geometry.check_bytes("the output", y_shape, dtype.itemsize)
    return window, chosen, y_shape


def _float_dtype(value: npt.DTypeLike) -> FloatDtype:
    """Return float32 or float64, however it is written."""
    try:
        dtype = np.dtype("V" if value is None else value)  # None would be float64
    except Exception:  # several, depending on what is wrong
        dtype = np.dtype("V")
    if dtype not in DTYPES:
        raise TypeError(f"dtype must be float32 or float64, got {shown(value)}")
    return DTYPES[DTYPES.index(dtype)]


def _first_able(
    algorithms: Sequence[Able],
    problem: Problem,
    asked: str,
    refusal: Callable[[Able, Problem], str | None],
) -> int:
    """Place in the list of the algorithm asked for, or of the first with nothing against it."""
    check_choice("algorithm", asked, ("auto", *(candidate.name for candidate in algorithms)))
    for place, candidate in enumerate(algorithms):
        if asked == candidate.name:
            if reason := candidate.why_not(problem):
                raise ValueError(f"algorithm {asked!r} cannot do this problem: {reason}")
            return place
        if asked == "auto" and not refusal(candidate, problem):
            return place
    raise ValueError(f"no algorithm can do this problem: {problem}")


def _refusals(conv: Convolution, chosen: Algorithm, asked: str) -> dict[str, str]:
    """Return the reason against every algorithm but the chosen one."""
    otherwise = f"{chosen.name} is faster" if asked == "auto" else f"{asked} was asked for"
    return {
        candidate.name: candidate.refusal_forward(conv) or otherwise
        for candidate in ALGORITHMS
        if candidate is not chosen
    }
