"""Mistakes in a convolution, forward and backward."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from ..answers import crop, pad
from ..problems import Array, Problem
from .table import (
    DIRECTIONS,
    RAISES,
    Prediction,
    convolved,
    correlated,
    fit,
    mistake,
    over_channels,
    right,
    scattered,
    without_last,
    without_stride,
)

# Forward.

COUNTS = {
    "once for every number of the window": lambda p: p.w[0].size,
    "once for every cell of the window": lambda p: p.w[0, 0].size,
    "once for every channel": lambda p: p.w.shape[1],
}


@mistake(
    *("bias-per-element", "conv", "y"),
    "The bias is added {0}. Add it once per output, after the sum over the window.",
    variants=[(how,) for how in COUNTS],
)
def _(p: Problem, how: str) -> Prediction:
    return right(p, "y") + (COUNTS[how](p) - 1) * over_channels(p.b)


@mistake("bias-missing", "conv", "y", "The bias is not added.")
def _(p: Problem) -> Prediction:
    return convolved(p, b=None)


@mistake(
    *("kernel-flipped", "conv", "y"),
    "The kernel is turned upside down and left to right: this is a convolution as mathematics has"
    " it. A convolutional layer multiplies without flipping.",
)
def _(p: Problem) -> Prediction:
    return convolved(p, w=p.w[:, :, ::-1, ::-1])


@mistake(
    *("height-width-swapped", "conv", "y"),
    "Rows and columns of the kernel are mixed up: the first index of the window is the height.",
    may_raise=True,
)
def _(p: Problem) -> Prediction:
    return convolved(p, w=p.w.swapaxes(2, 3)) if p.square else RAISES


@mistake(
    *("channels-wrong", "conv", "y"),
    "Only the {0} channel counts. Sum over all channels of the window.",
    variants=[("first", 0), ("last", -1)],
)
def _(p: Problem, name: str, channel: int) -> Prediction:
    return convolved(p, x=p.x[:, [channel]] * 1.0, w=p.w[:, [channel]])


@mistake(
    *("channels-wrong", "conv", "y"),
    "Filters and channels are mixed up: the sum goes over the filters, w's first axis. Sum over"
    " the channels, its second.",
)
def _(p: Problem) -> Prediction:
    return convolved(p, w=p.w.swapaxes(0, 1)) if p.w.shape[0] == p.w.shape[1] else RAISES


@mistake(
    *("channels-wrong", "conv", "y"),
    "Every channel is multiplied by the weights of the first. Each channel has its own.",
)
def _(p: Problem) -> Prediction:
    return convolved(p, w=np.repeat(p.w[:, :1], p.w.shape[1], 1))


@mistake("channels-wrong", "conv", "y", "The channels are averaged. Sum over them.")
def _(p: Problem) -> Prediction:
    return convolved(p, w=p.w / p.w.shape[1])


@mistake(
    *("window-averaged", "conv", "y"), "The window is averaged. Sum over it: there is no division."
)
def _(p: Problem) -> Prediction:
    return convolved(p, w=p.w / p.w[0].size)


@mistake(
    *("filters-wrong", "conv", "y"),
    "Every filter gives what the {0} one does. Use filter f for output channel f.",
    variants=[("first", 0), ("last", -1)],
)
def _(p: Problem, name: str, which: int) -> Prediction:
    return np.repeat(right(p, "y")[:, [which]], len(p.w), 1)


@mistake(
    *("stride-ignored", "conv", "y"),
    "The stride is ignored {0}: the window starts at i, not at i * stride.",
    variants=[(*direction, cut) for direction in DIRECTIONS for cut in (True, False)],
)
def _(p: Problem, name: str, axis: int, cut: bool) -> Prediction:
    y = convolved(p, stride=without_stride(p, axis))
    return fit(y, p.out) if cut else y


@mistake(
    *("height-width-swapped", "conv", "y"),
    "Height and width of the {0} are swapped: it is (down, across).",
    variants=[("stride",), ("padding",)],
)
def _(p: Problem, what: str) -> Prediction:
    return convolved(p, **{what: getattr(p, what)[::-1]})


@mistake(
    *("padding-one-axis", "conv", "y"),
    "The image is padded {0} only. Pad height and width.",
    variants=[
        (name, axis, cut)
        for cut in (False, True)
        for name, axis in (("at top and bottom", 0), ("at left and right", 1))
    ],
    may_raise=True,
)
def _(p: Problem, name: str, axis: int, cut: bool) -> Prediction:
    y = convolved(p, padding=tuple(size * (axis == i) for i, size in enumerate(p.padding)))
    return fit(y, p.out) if cut else y


@mistake(
    *("padding-one-side", "conv", "y"),
    "The image is padded {0} only. Put `pad` cells on each of its four sides.",
    variants=[
        ("at the bottom and the right", 0, 1),
        ("at the top and the left", 1, 0),
        ("(twice as much) at the bottom and the right", 0, 2),
        ("(twice as much) at the top and the left", 2, 0),
    ],
)
def _(p: Problem, name: str, before: int, after: int) -> Prediction:
    y = convolved(p, padding=tuple((before * size, after * size) for size in p.padding))
    return y


@mistake(
    *("padding-one-side", "conv", "y"),
    "The image is padded at the top and the left only. Put `pad` cells on each of its four sides.",
    may_raise=True,
)
def _(p: Problem) -> Prediction:
    return fit(convolved(p, padding=[(size, 0) for size in p.padding]), p.out)


@mistake("padding-ignored", "conv", "y", "The image is not padded.", may_raise=True)
def _(p: Problem) -> Prediction:
    return convolved(p, padding=0) if _at_least_kernel(p) else RAISES


@mistake(
    *("padding-too-small", "conv", "y"),
    "The padded image is smaller than the size of the result takes it to be, and the last windows"
    " hang over its end. Put `pad` cells on each of its four sides.",
    variants=[(1,), (0,)],
    may_raise=True,
)
def _(p: Problem, after: int) -> Prediction:
    if not _at_least_kernel(p):
        return RAISES
    return fit(convolved(p, padding=[(0, after * size) for size in p.padding]), p.out)


@mistake(
    *("padding-too-small", "conv", "y dx dw db"),
    "It fails as soon as there is padding: windows hang over the end of an image. They lie in the"
    " padded image, forward and backward, x as well as dx, with `pad` cells on each of four sides.",
)
def _(p: Problem, answer: str) -> Prediction:
    return RAISES if any(p.padding) else None


def _at_least_kernel(p: Problem) -> bool:
    return p.x.shape[2] >= p.kernel[0] and p.x.shape[3] >= p.kernel[1]


@mistake(
    *("padding-values", "conv", "y"),
    "The padding is not zeros but {0}.",
    variants=[
        ("ones", {"constant_values": 1}),
        ("copies of the border", {"mode": "edge"}),
        ("the image reflected", {"mode": "reflect"}),
        ("the image from its other end", {"mode": "wrap"}),
    ],
)
def _(p: Problem, name: str, how: dict[str, Any]) -> Prediction:
    return convolved(p, x=pad(p, **how) * 1.0, padding=0)


@mistake(
    *("size-pads-once", "conv", "y"),
    "The result's size counts the padding on one side only. It is on both: size + 2 * pad.",
    variants=[(2, 3), (2,), (3,)],
)
def _(p: Problem, *axes: int) -> Prediction:
    size = convolved(p, padding=[(size, 0) for size in p.padding]).shape
    rows, columns = (size[axis] if axis in axes else p.out[axis - 2] for axis in (2, 3))
    return right(p, "y")[:, :, :rows, :columns]


# Backward.

AXES = ("images", "filters", "rows", "columns")
LEFT_OVER = [  # of a sum over images and cells, where = stands for +=
    ("the last window of the last image", -1, -1),
    ("the last image", -1, None),
    ("the first image", 0, None),
    ("the last window", None, -1),
]


def only(dy: Array, image: int | None, cell: int | None) -> Array:
    """Keep one image, or one cell, of dy, and have 0 elsewhere."""
    images = slice(None) if image is None else image
    cells = slice(None) if cell is None else cell
    kept = np.zeros_like(dy)
    kept[images, :, cells, cells] = dy[images, :, cells, cells]
    return kept


@mistake(
    *("kernel-flipped", "conv", "dx"),
    "The kernel is turned round where it must not be. Scattering dout window by window takes w as"
    " it is; only as a convolution of the padded dout is it turned.",
)
def _(p: Problem) -> Prediction:
    return crop(p, scattered(p, w=p.w[:, :, ::-1, ::-1]))


@mistake(
    *("assigned-not-added", "conv", "dx"),
    "Windows overlap, and a cell gets a part of its gradient from each: add to dx with +=. Here"
    " the last window overwrites what was there.",
    variants=[(slice(None),), (slice(-1, None),), (slice(0, 1),)],
)
def _(p: Problem, filters: slice) -> Prediction:
    return crop(p, scattered(p, w=p.w[filters], dy=p.dy[:, filters], assign=True))


@mistake(
    *("assigned-not-added", "conv", "dx"),
    "Only the {0} filter's part is in dx. Every filter sees the window: add their parts with +=.",
    variants=[("last", slice(-1, None)), ("first", slice(0, 1))],
)
def _(p: Problem, name: str, filters: slice) -> Prediction:
    return crop(p, scattered(p, w=p.w[filters], dy=p.dy[:, filters]))


@mistake(
    *("crop-pad-zero", "conv", "dx"),
    "The padding is cut off with [pad:-pad], and for pad = 0 that is [0:-0]: empty. Write"
    " [pad : pad + H], which is right for 0 too.",
)
def _(p: Problem) -> Prediction:
    return RAISES if 0 in p.padding else None


@mistake(
    *("crop-missing", "conv", "dx"),
    "dx has still its padding. Cut it off: dx_padded[..., pad : pad + H, pad : pad + W].",
)
def _(p: Problem) -> Prediction:
    return scattered(p)


@mistake(
    *("crop-one-axis", "conv", "dx"),
    "The padding of dx is cut off {0} only.",
    variants=[("at top and bottom", 0), ("at left and right", 1)],
)
def _(p: Problem, name: str, axis: int) -> Prediction:
    dx, (top, left), (height, width) = scattered(p), p.padding, p.x.shape[2:]
    return dx[:, :, top : top + height] if axis == 0 else dx[:, :, :, left : left + width]


@mistake(
    *("crop-shifted", "conv", "dx"),
    "dx is cut out of its padded form at {0}. The image begins at [pad, pad].",
    variants=[("[0, 0], the corner of the padding", 0), ("[2 * pad, 2 * pad]", 2)],
)
def _(p: Problem, name: str, times: int) -> Prediction:
    (top, left), (height, width) = p.padding, p.x.shape[2:]
    return scattered(p)[:, :, times * top :, times * left :][:, :, :height, :width]


@mistake(
    *("dw-of-unpadded-x", "conv", "dw"),
    "dw is computed from x without its padding. The windows lie in the padded x, as in forward.",
    variants=[("where it fits",), ("with zeros at the end",), ("window by window",)],
    may_raise=True,
)
def _(p: Problem, how: str) -> Prediction:
    (top, left), (height, width) = p.padding, p.kernel
    if how == "where it fits":
        return right(p, "dw")[:, :, top : height - top, left : width - left]
    if how == "with zeros at the end":
        return correlated(p, np.pad(p.x, ((0, 0), (0, 0), (0, 2 * top), (0, 2 * left))))
    try:
        return correlated(p, p.x)
    except ValueError:  # a window hangs over the end
        return RAISES


@mistake(*("kernel-flipped", "conv", "dw"), "dw is turned upside down and left to right.")
def _(p: Problem) -> Prediction:
    return right(p, "dw")[:, :, ::-1, ::-1]


@mistake(
    *("assigned-not-added", "conv", "dw"),
    "dw holds only the part of {0}. Every window of every image adds to it, with +=.",
    variants=LEFT_OVER,
)
def _(p: Problem, name: str, image: int | None, cell: int | None) -> Prediction:
    return correlated(p, pad(p), dy=only(p.dy, image, cell))


@mistake(
    *("stride-ignored", "conv", "dx"),
    "The stride is ignored {0}: the window of output i starts at i * stride, as in forward.",
    variants=DIRECTIONS,
)
def _(p: Problem, name: str, axis: int) -> Prediction:
    return crop(p, scattered(p, stride=without_stride(p, axis)))


@mistake(
    *("stride-ignored", "conv", "dw"),
    "The stride is ignored {0}: the window of output i starts at i * stride, as in forward.",
    variants=DIRECTIONS,
)
def _(p: Problem, name: str, axis: int) -> Prediction:
    return correlated(p, pad(p), stride=without_stride(p, axis))


@mistake(
    *("height-width-swapped", "conv", "dx dw"),
    "Height and width of {0} are swapped: its rows go down the image, its columns across.",
    variants=[("the result's gradient", "dy"), ("the kernel", "w")],
    may_raise=True,
)
def _(p: Problem, answer: str, name: str, what: str) -> Prediction:
    if not (p.square if what == "w" else p.out[0] == p.out[1]):
        return RAISES
    turned = p.but(**{what: getattr(p, what).swapaxes(2, 3)})
    if what == "w" and answer == "dw":
        return right(p, "dw").swapaxes(2, 3)
    return crop(p, scattered(turned)) if answer == "dx" else correlated(turned, pad(p))


@mistake(
    *("height-width-swapped", "conv", "dx dw"),
    "Height and width are swapped: only square images come out right.",
)
def _(p: Problem, answer: str) -> Prediction:
    return RAISES if p.out[0] != p.out[1] else None


@mistake(
    *("images-wrong", "conv", "dx"),
    "The {0} image gets the gradients of all. Each image has its own.",
    variants=[("first", 0), ("last", -1)],
)
def _(p: Problem, name: str, which: int) -> Prediction:
    dx = np.zeros(p.x.shape)
    dx[which] = right(p, "dx").sum(0)
    return dx


@mistake(
    *("images-wrong", "conv", "dx"),
    "Only the {0} image has a gradient. Each image has its own.",
    variants=[("last", -1), ("first", 0)],
)
def _(p: Problem, name: str, which: int) -> Prediction:
    dx = np.zeros(p.x.shape)
    dx[which] = right(p, "dx")[which]
    return dx


@mistake(
    *("db-wrong-axes", "conv", "db"),
    "db is summed over {0}. Each filter's bias is in every image and every cell: sum over images,"
    " rows and columns.",
    variants=[
        (" and ".join(AXES[axis] for axis in axes), axes)
        for count in (1, 2, 3, 4)
        for axes in combinations(range(4), count)
        if axes != (0, 2, 3)
    ],
)
def _(p: Problem, name: str, axes: tuple[int, ...]) -> Prediction:
    return p.dy.sum(axes)


@mistake(
    *("size-off-by-one", "conv", "dx dw db"),
    "The last {0} of the result's gradient is left out: a loop ends one too early.",
    variants=[("row and column", 1, 1), ("row", 1, 0), ("column", 0, 1)],
)
def _(p: Problem, answer: str, name: str, rows: int, columns: int) -> Prediction:
    return right(p.but(dy=without_last(p.dy, rows, columns)), answer)


@mistake(
    *("db-wrong-axes", "conv", "db"),
    "Every filter has the sum over all filters in db. Sum for each filter by itself.",
)
def _(p: Problem) -> Prediction:
    return np.full(p.b.shape, p.dy.sum())


@mistake(
    *("assigned-not-added", "conv", "db"),
    "db holds only the part of {0}. Every cell of every image adds to it, with +=.",
    variants=LEFT_OVER,
)
def _(p: Problem, name: str, image: int | None, cell: int | None) -> Prediction:
    return only(p.dy, image, cell).sum((0, 2, 3))
