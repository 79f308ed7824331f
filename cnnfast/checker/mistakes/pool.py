"""Mistakes in max and average pooling, forward and backward."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..answers import answers, crop, pad
from ..problems import Array, Problem
from .table import (
    DIRECTIONS,
    RAISES,
    Prediction,
    average,
    fit,
    largest,
    mistake,
    places,
    pooled,
    right,
    spread,
    to_all_equally,
    to_the_first,
    without_last,
    without_stride,
)

POOLS = "max_pool avg_pool"

# Forward.


@mistake(
    *("maximum-over-channels", "max_pool", "y"),
    "The maximum is taken over {0}. Each channel of each image has its own.",
    variants=[
        ("all channels of the window", 1),
        ("all images", 0),
        ("images and channels", (0, 1)),
    ],
)
def _(p: Problem, name: str, axes: int | tuple[int, int]) -> Prediction:
    y = right(p, "y")
    return np.broadcast_to(y.max(axes, keepdims=True), y.shape)


@mistake(
    *("maximum-from-zero", "max_pool", "y"),
    "The maximum starts at 0, so that a window of numbers below 0 gives 0. Start at -infinity, or"
    " at the window's first number.",
)
def _(p: Problem) -> Prediction:
    return np.maximum(right(p, "y"), 0)


@mistake(
    *("pool-wrong-mode", "max_pool", "y"),
    "The window's {0} is taken. Max pooling takes the largest number.",
    variants=[("mean", average), ("minimum", lambda window: window.min((2, 3)))],
)
def _(p: Problem, name: str, reduce: Callable[[Array], Array]) -> Prediction:
    return pooled(p, reduce=reduce)


@mistake(
    *("maximum-of-sizes", "max_pool", "y"),
    "The largest absolute value is taken. Max pooling takes the largest number, sign and all.",
)
def _(p: Problem) -> Prediction:
    return pooled(p, reduce=lambda window: np.abs(window).max((2, 3)))


@mistake(
    *("pool-wrong-mode", "avg_pool", "y"),
    "The window's {0} is taken. Average pooling takes the mean.",
    variants=[("maximum", largest), ("minimum", lambda window: window.min((2, 3)))],
)
def _(p: Problem, name: str, reduce: Callable[[Array], Array]) -> Prediction:
    return pooled(p, reduce=reduce)


DIVISORS: dict[str, Callable[[Problem], float]] = {  # where KH * KW should stand
    "by nothing": lambda p: 1,
    "by its height": lambda p: p.kernel[0],
    "by its width": lambda p: p.kernel[1],
    "by its height + width": lambda p: sum(p.kernel),
    "by the stride": lambda p: p.stride[0],
    "by the square of the stride": lambda p: p.stride[0] ** 2,
    "by its cells and the channels": lambda p: int(np.prod(p.kernel)) * p.x.shape[1],
    "by its cells and the images": lambda p: int(np.prod(p.kernel)) * len(p.x),
    "by the cells of the whole image": lambda p: p.x[0, 0].size,
    "by the number of windows": lambda p: int(np.prod(p.out)),
    "twice by its cells": lambda p: int(np.prod(p.kernel)) ** 2,
}


@mistake(
    *("average-wrong-count", "avg_pool", "y dx"),
    "The window is divided {0}. Divide by the number of its cells, height * width.",
    variants=[(name,) for name in DIVISORS],
)
def _(p: Problem, answer: str, name: str) -> Prediction:
    return right(p, answer) * np.prod(p.kernel) / DIVISORS[name](p)


@mistake(
    *("average-without-padding", "avg_pool", "y"),
    "Cells of padding do not count. In this course they do: each window is divided by its size.",
)
def _(p: Problem) -> Prediction:
    inside = pooled(p.but(x=np.ones(p.x.shape)), reduce=average)
    return right(p, "y") / inside


@mistake(
    *("average-over-channels", "avg_pool", "y"),
    "The mean is taken over all channels. Each channel has its own.",
)
def _(p: Problem) -> Prediction:
    y = right(p, "y")
    return np.broadcast_to(y.mean(1, keepdims=True), y.shape)


@mistake(
    *("integer-division", "avg_pool", "y"),
    "The division drops the fraction: // divides integers. Divide with /.",
)
def _(p: Problem) -> Prediction:
    return np.floor(right(p, "y"))


@mistake(
    *("stride-ignored", POOLS, "y"),
    "The stride is ignored {0}: the window starts at i, not at i * stride.",
    variants=[(*direction, cut) for direction in DIRECTIONS for cut in (True, False)],
)
def _(p: Problem, name: str, axis: int, cut: bool) -> Prediction:
    y = pooled(p, stride=without_stride(p, axis))
    return fit(y, p.out) if cut else y


@mistake(
    *("stride-is-window", POOLS, "y"),
    "The window moves by its own size. It moves by the stride.",
    variants=[(False,), (True,)],
    may_raise=True,
)
def _(p: Problem, cut: bool) -> Prediction:
    y = pooled(p, stride=p.kernel)
    return fit(y, p.out) if cut else y


@mistake(
    *("window-is-stride", POOLS, "y"),
    "The window is as large as the stride. Its size is a parameter of its own.",
    variants=[(False,), (True,)],
    may_raise=True,
)
def _(p: Problem, cut: bool) -> Prediction:
    y = pooled(p, kernel=p.stride)
    return fit(y, p.out) if cut else y


@mistake(
    *("height-width-swapped", POOLS, "y"),
    "Height and width of the window are swapped.",
    variants=[(False,), (True,)],
    may_raise=True,
)
def _(p: Problem, cut: bool) -> Prediction:
    y = pooled(p, kernel=p.kernel[::-1])
    return fit(y, p.out) if cut else y


@mistake(
    *("height-width-swapped", POOLS, "y"),
    "Height and width of the stride are swapped: it is (down, across).",
    variants=[(False,), (True,)],
    may_raise=True,
)
def _(p: Problem, cut: bool) -> Prediction:
    y = pooled(p, stride=p.stride[::-1])
    return fit(y, p.out) if cut else y


@mistake(
    *("padding-ignored", POOLS, "y"),
    "The image is not padded.",
    variants=[(False,), (True,)],
    may_raise=True,
)
def _(p: Problem, cut: bool) -> Prediction:
    y = pooled(p.but(padding=(0, 0)))
    return fit(y, p.out) if cut else y


# Backward.


def to_the_first_of_channels(window: Array, dy: Array) -> Array:
    """Give dy to the cells that hold the maximum over all channels."""
    return (window == window.max((1, 2, 3), keepdims=True)) * dy


def to_the_first_of_all(window: Array, dy: Array) -> Array:
    """Give dy to the cells that hold the maximum over all images and channels."""
    return (window == window.max()) * dy


def to_all(window: Array, dy: Array) -> Array:
    """Give dy to every cell."""
    return np.ones(window.shape) * dy


def to_the_maximum_one(window: Array, dy: Array) -> Array:
    """Give 1 to the maximum, whatever dy is."""
    return to_the_first(window, np.ones(dy.shape))


def to_the_maximum_itself(window: Array, dy: Array) -> Array:
    """Give dy times the maximum."""
    return to_the_first(window, dy) * window


def floor_to_all(window: Array, dy: Array) -> Array:
    """Give each cell its part of dy, without the fraction."""
    return np.floor(to_all_equally(window, dy))


@mistake(
    *("assigned-not-added", POOLS, "dx"),
    "Windows overlap, and a cell gets a part of its gradient from each: add to dx with +=. Here"
    " the last window overwrites what was there.",
)
def _(p: Problem) -> Prediction:
    return spread(p, assign=True)


@mistake(
    *("assigned-not-added", "max_pool", "dx"),
    "Windows overlap, and a cell can be the maximum of several: add to dx with +=. Here the last"
    " window overwrites what was there.",
)
def _(p: Problem) -> Prediction:
    dx = np.zeros(pad(p).shape)
    for i, j, rows, columns in places(p):
        part = to_the_first(pad(p)[:, :, rows, columns], p.dy[:, :, i, j, None, None])
        dx[:, :, rows, columns] = np.where(part == 0, dx[:, :, rows, columns], part)
    return crop(p, dx)


@mistake(
    *("maximum-over-channels", "max_pool", "dx"),
    "The maximum is looked for over {0}. Each channel of each image has its own.",
    variants=[
        ("all channels", to_the_first_of_channels),
        ("all images and channels", to_the_first_of_all),
    ],
)
def _(p: Problem, name: str, share: Callable[[Array, Array], Array]) -> Prediction:
    return spread(p, share)


@mistake(
    *("maximum-not-masked", "max_pool", "dx"),
    "{0} Only the cell that was the maximum gets the gradient, and gets all of it.",
    variants=[
        ("Every cell of the window gets the gradient.", to_all),
        ("The gradient is shared out over the window.", to_all_equally),
        ("The maximum gets 1, not the gradient of the result.", to_the_maximum_one),
        ("The gradient is multiplied by the maximum.", to_the_maximum_itself),
    ],
)
def _(p: Problem, name: str, share: Callable[[Array, Array], Array]) -> Prediction:
    return spread(p, share)


@mistake(
    *("ties-all", "max_pool", "dx"),
    "Where several cells of a window are the maximum, as zeros after a ReLU are, each gets the"
    " whole gradient, so that there is more of it than came. Give it to the first (np.argmax), or"
    " divide it among them.",
    topic="ties",
)
def _(p: Problem) -> Prediction:
    return answers(p, "all")["dx"]


@mistake(
    *("ties-none", "max_pool", "dx"),
    "Where several cells of a window are the maximum, none gets the gradient.",
    topic="ties",
)
def _(p: Problem) -> Prediction:
    def share(window: Array, dy: Array) -> Array:
        hits = window == window.max((2, 3), keepdims=True)
        return hits * (hits.sum((2, 3), keepdims=True) == 1) * dy

    return spread(p, share)


@mistake(
    *("integer-division", "avg_pool", "dx"),
    "The division drops the fraction: // divides integers. Divide with /.",
)
def _(p: Problem) -> Prediction:
    return spread(p, floor_to_all)


@mistake(
    *("pool-wrong-mode", "avg_pool", "dx"),
    "The window's maximum gets the gradient. Average pooling shares it out over all cells.",
)
def _(p: Problem) -> Prediction:
    return spread(p, to_the_first)


@mistake(
    *("stride-ignored", POOLS, "dx"),
    "The stride is ignored {0}: the window of result i starts at i * stride, as in forward.",
    variants=DIRECTIONS,
    may_raise=True,
)
def _(p: Problem, name: str, axis: int) -> Prediction:
    return spread(p, stride=without_stride(p, axis))


@mistake(
    *("height-width-swapped", POOLS, "dx"),
    "Height and width of the result's gradient are swapped.",
)
def _(p: Problem) -> Prediction:
    return spread(p, dy=p.dy.swapaxes(2, 3)) if p.out[0] == p.out[1] else RAISES


@mistake(
    *("height-width-swapped", POOLS, "dx"),
    "Height and width of the stride are swapped: it is (down, across).",
)
def _(p: Problem) -> Prediction:
    try:
        return spread(p, stride=p.stride[::-1])
    except ValueError:  # a window hangs over the end
        return RAISES


@mistake(
    *("size-off-by-one", POOLS, "dx"),
    "The last {0} of the result's gradient is left out: a loop ends one too early.",
    variants=[("row and column", 1, 1), ("row", 1, 0), ("column", 0, 1)],
)
def _(p: Problem, name: str, rows: int, columns: int) -> Prediction:
    return spread(p, dy=without_last(p.dy, rows, columns))


@mistake(
    *("height-width-swapped", POOLS, "dx"),
    "Height and width are swapped: only square images come out right.",
)
def _(p: Problem) -> Prediction:
    return RAISES if p.out[0] != p.out[1] else None


@mistake(
    *("crop-pad-zero", POOLS, "dx"),
    "The padding is cut off with [pad:-pad], and for pad = 0 that is [0:-0]: empty. Write"
    " [pad : pad + H], which is right for 0 too.",
)
def _(p: Problem) -> Prediction:
    return RAISES if 0 in p.padding else None
