"""Mistakes in where windows lie and how many there are, in convolution and pooling alike."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..problems import Pair, Problem
from .table import RAISES, Prediction, fit, mistake, right, without_last

WINDOWS = "conv max_pool avg_pool"


@mistake(
    *("height-width-swapped", WINDOWS, "y"),
    "Height and width of the result are swapped: its rows go down the image, its columns across.",
)
def _(p: Problem) -> Prediction:
    return right(p, "y").swapaxes(2, 3)


@mistake(
    *("size-off-by-one", WINDOWS, "y"),
    "The result has one {0} too few. A size is (size + 2 * pad - window) // stride + 1: the + 1 is"
    " for the first window.",
    variants=[("row and one column", 1, 1), ("row", 1, 0), ("column", 0, 1)],
)
def _(p: Problem, name: str, rows: int, columns: int) -> Prediction:
    return right(p, "y")[:, :, : p.out[0] - rows, : p.out[1] - columns]


@mistake(
    *("size-off-by-one", WINDOWS, "y"),
    "The last {0} of the result is never computed: a loop ends one too early.",
    variants=[("row and column", 1, 1), ("row", 1, 0), ("column", 0, 1)],
)
def _(p: Problem, name: str, rows: int, columns: int) -> Prediction:
    return without_last(right(p, "y"), rows, columns)


@mistake(
    *("size-off-by-one", WINDOWS, "y"),
    "The result has one {0} too many. A size is (size + 2 * pad - window) // stride + 1.",
    variants=[("row and one column", 1, 1), ("row", 1, 0), ("column", 0, 1)],
    may_raise=True,
)
def _(p: Problem, name: str, rows: int, columns: int) -> Prediction:
    return fit(right(p, "y"), (p.out[0] + rows, p.out[1] + columns))


@mistake(
    *("height-width-swapped", WINDOWS, "y"),
    "Height and width are swapped: only square images come out right.",
    variants=[(False,), (True,)],
    may_raise=True,
)
def _(p: Problem, any_shape: bool) -> Prediction:
    turned = p.but(x=p.x.swapaxes(2, 3)).out
    if turned == p.out:
        return None
    return RAISES if any_shape else np.full((*right(p, "y").shape[:2], *turned), np.nan)


def sizes(p: Problem, rounded: Callable[[float], int]) -> Pair:
    """Return the number of windows where the division is rounded like this."""
    rows, columns = (
        rounded((size + 2 * padding - kernel) / stride) + 1
        for size, kernel, stride, padding in zip(
            p.x.shape[2:], p.kernel, p.stride, p.padding, strict=True
        )
    )
    return rows, columns


ROUNDINGS = (("up", math.ceil), ("to the nearest number", round))


@mistake(
    *("ceil-for-floor", WINDOWS, "y"),
    "Where the stride does not fit, the size is rounded {0}. What is left over is dropped: round"
    " down, with //.",
    variants=ROUNDINGS,
    topic="misfit",
    may_raise=True,
)
def _(p: Problem, name: str, rounded: Callable[[float], int]) -> Prediction:
    return fit(right(p, "y"), sizes(p, rounded))


@mistake(
    *("ceil-for-floor", WINDOWS, "y dx dw db"),
    "Where the stride does not fit, there is an error: the size is rounded {0}, and the last"
    " window hangs over the end. What is left over is dropped: round down, with //.",
    variants=ROUNDINGS,
    topic="misfit",
)
def _(p: Problem, answer: str, name: str, rounded: Callable[[float], int]) -> Prediction:
    return RAISES if sizes(p, rounded) != p.out else None


@mistake(
    *("images-wrong", WINDOWS, "y"),
    "Every image gives what the {0} one does. Use image n for result n.",
    variants=[("first", 0), ("last", -1)],
)
def _(p: Problem, name: str, which: int) -> Prediction:
    return np.repeat(right(p, "y")[[which]], len(p.x), 0)
