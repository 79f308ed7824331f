"""What a row of the table of mistakes is, and what its hypotheses are made of.

A mistake is a hypothesis. It is a small function that computes what a layer with this mistake
gives: mostly the right layer on a problem that was altered. A student has made it, as far as tests
can tell, who gives just that on every problem. So nothing here looks at anybody's source, and
whoever matches no row is told so. Everything is in the language of `problems`.

A hypothesis returns an array, in which NaN stands for a number that may be anything; or RAISES,
where the mistake ends in an error or an empty result; or None, where it does not show.
With `may_raise`, an error is as good as the numbers wherever the mistake shows.

Rows are tried in their order: those that foretell every number stand before those that foretell a
shape, or that there will be an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from ... import reference
from ..answers import answers, crop, pad
from ..problems import Array, Pair, Problem

RAISES: Literal["raises"] = "raises"
Prediction: TypeAlias = Array | Literal["raises"] | None


class Mistake(NamedTuple):
    """One row: in which answer of which layers it shows, what it would give, how to say it."""

    key: str
    kinds: Sequence[str]
    answers: Sequence[str]
    sentence: str
    predict: Callable[..., Prediction]
    variants: Sequence[tuple[Any, ...]]
    topic: str
    may_raise: bool

    def predictions(self, p: Problem, answer: str) -> list[Prediction]:
        """Return what each variant of it gives for a problem."""
        given = (p, answer) if len(self.answers) > 1 else (p,)
        return [self.predict(*given, *variant) for variant in self.variants]

    def say(self, variant: int) -> str:
        """Return the sentence for one of the variants."""
        return self.sentence.format(*self.variants[variant])


MISTAKES: list[Mistake] = []
Predict: TypeAlias = Callable[..., Prediction]


def mistake(
    key: str,
    of: str,
    answers: str,
    sentence: str,
    variants: Sequence[tuple[Any, ...]] = ((),),
    topic: str = "general",
    may_raise: bool = False,
) -> Callable[[Predict], Predict]:
    """Put a hypothesis into the table; a variant is what it takes after the problem.

    The sentence is formatted with the variant, so that {0} is its first value. A hypothesis about
    several answers is told which one, right after the problem.
    """

    def into_the_table(predict: Predict) -> Predict:
        MISTAKES.append(
            Mistake(
                *(key, of.split(), answers.split(), sentence, predict, variants, topic, may_raise)
            )
        )
        return predict

    return into_the_table


# What the hypotheses are made of.


def right(p: Problem, answer: str) -> Array:
    """Return what a right layer gives."""
    return answers(p)[answer]


def over_channels(b: Array) -> Array:
    """Shape a bias so that it broadcasts against NCHW."""
    return b[:, None, None]


def convolved(p: Problem, **changes: Any) -> Array:
    """Convolve with another x, w, b, stride or padding."""
    given = {"x": p.x * 1.0, "w": p.w, "b": p.b, "stride": p.stride, "padding": p.padding}
    return reference.conv2d(**(given | changes))


def fit(y: Array, size: Pair) -> Array:
    """Cut y down to so many rows and columns, and fill up what is missing with anything."""
    y = y[..., : size[0], : size[1]]
    missing = [(0, 0)] * (y.ndim - 2) + [(0, size[axis] - y.shape[axis - 2]) for axis in (0, 1)]
    return np.pad(y, missing, constant_values=np.nan)


def without_last(y: Array, rows: int, columns: int) -> Array:
    """Have 0 in the last rows and columns."""
    y = y.copy()
    y[:, :, y.shape[2] - rows :] = 0
    y[:, :, :, y.shape[3] - columns :] = 0
    return y


def places(p: Problem, stride: Pair | None = None) -> Iterator[tuple[int, int, slice, slice]]:
    """Yield every place of the window: its output (i, j), and its rows and columns."""
    (down, across), (height, width) = stride or p.stride, p.kernel
    for i in range(p.out[0]):
        for j in range(p.out[1]):
            top, left = i * down, j * across
            yield i, j, slice(top, top + height), slice(left, left + width)


def scattered(
    p: Problem,
    *,
    w: Array | None = None,
    dy: Array | None = None,
    stride: Pair | None = None,
    assign: bool = False,
) -> Array:
    """Give the gradient of the padded image, window after window, by adding or by assigning."""
    w, dy = p.w if w is None else w, p.dy if dy is None else dy
    dx = np.zeros_like(pad(p), dtype=float)
    for i, j, rows, columns in places(p, stride):
        part = np.einsum("nf,fckl->nckl", dy[:, :, i, j], w)
        dx[:, :, rows, columns] = part if assign else dx[:, :, rows, columns] + part
    return dx


def correlated(
    p: Problem, padded: Array, *, dy: Array | None = None, stride: Pair | None = None
) -> Array:
    """Give dw from an image that is padded already."""
    dy = p.dy if dy is None else dy
    dw = np.zeros_like(p.w, dtype=float)
    for i, j, rows, columns in places(p, stride):
        dw += np.einsum("nf,nckl->fckl", dy[:, :, i, j], padded[:, :, rows, columns])
    return dw


def pooled(
    p: Problem,
    *,
    reduce: Callable[[Array], Array] | None = None,
    kernel: Pair | None = None,
    stride: Pair | None = None,
) -> Array:
    """Reduce each window to a number, windows at the border to what is there of them."""
    if reduce is None:
        reduce = largest if p.kind == "max_pool" else average
    q = p.but(kernel=kernel or p.kernel, stride=stride or p.stride)
    image, (rows, columns) = pad(q), (max(size, 0) for size in q.out)
    y = np.full((*p.x.shape[:2], rows, columns), np.nan)
    for i in range(rows):
        for j in range(columns):
            top, left = i * q.stride[0], j * q.stride[1]
            window = image[:, :, top : top + q.kernel[0], left : left + q.kernel[1]]
            if window.size:
                y[:, :, i, j] = reduce(window)
    return y


def largest(window: Array) -> Array:
    """The maximum of each channel's window."""
    return window.max((2, 3))


def average(window: Array) -> Array:
    """The mean of each channel's window."""
    return window.mean((2, 3))


def spread(
    p: Problem,
    share: Callable[[Array, Array], Array] | None = None,
    *,
    assign: bool = False,
    stride: Pair | None = None,
    dy: Array | None = None,
) -> Array:
    """Give dx of a pooling: each dy, shared out over its window by `share(window, dy)`."""
    if share is None:
        share = to_the_first if p.kind == "max_pool" else to_all_equally
    dy, image = p.dy if dy is None else dy, pad(p)
    dx = np.zeros_like(image, dtype=float)
    for i, j, rows, columns in places(p, stride):
        part = share(image[:, :, rows, columns], dy[:, :, i, j, None, None])
        dx[:, :, rows, columns] = part if assign else dx[:, :, rows, columns] + part
    return crop(p, dx)


def to_the_first(window: Array, dy: Array) -> Array:
    """Give dy to the first maximum."""
    flat = window.reshape(*window.shape[:2], -1)
    hit = np.arange(flat.shape[2]) == flat.argmax(2)[:, :, None]
    return hit.reshape(window.shape) * dy


def to_all_equally(window: Array, dy: Array) -> Array:
    """Give each cell the same part of dy."""
    return np.ones(window.shape) * dy / np.prod(window.shape[2:])


DIRECTIONS = (("down the height", 0), ("across the width", 1), ("in both directions", 2))


def without_stride(p: Problem, axis: int) -> Pair:
    """Return the stride with 1 in one direction, or in both."""
    down, across = p.stride
    return (1 if axis in (0, 2) else down, 1 if axis in (1, 2) else across)
