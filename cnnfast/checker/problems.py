"""Small seeded problems in NCHW.

A `Problem` is written in one language, whatever the course: images x (N, C, H, W), weights
w (F, C, KH, KW), bias b (F,), the gradient dy of the result, and two numbers, for height and
width, for each of kernel, stride and padding. Fully connected and normalising layers are told in
the same words: their w is the matrix, or gamma, and their b the bias, or beta.

The problems of a set grow harder one by one: the first has no padding and stride 1, the last are
wide, tall and strided; and sizes differ where a mistake could hide behind equal ones. Problems of
a topic of their own (a stride that does not fit, equal maxima, float32, integers) are judged by
themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Pair: TypeAlias = tuple[int, int]


def _nothing() -> Array:
    return np.zeros(0)


@dataclass(frozen=True, eq=False)
class Problem:
    """One small problem for one kind of layer."""

    kind: str
    name: str
    x: Array
    w: Array = field(default_factory=_nothing)
    b: Array = field(default_factory=_nothing)
    dy: Array = field(default_factory=_nothing)
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    topic: str = "general"
    groups: int = 1
    running: tuple[Array, Array] | None = (
        None  # mean and variance, moved in training, used in the test
    )
    labels: Array = field(default_factory=_nothing)

    def but(self, **changes: Any) -> Problem:
        """Return the problem with some of it changed."""
        return replace(self, **changes)

    @property
    def square(self) -> bool:
        """Whether the kernel is a square."""
        return self.kernel[0] == self.kernel[1]

    @property
    def uniform(self) -> bool:
        """Whether height and width have the same stride and the same padding."""
        return self.stride[0] == self.stride[1] and self.padding[0] == self.padding[1]

    @property
    def out(self) -> Pair:
        """The number of windows, down and across."""
        rows, columns = (
            (size + 2 * padding - kernel) // stride + 1
            for size, kernel, stride, padding in zip(
                self.x.shape[2:], self.kernel, self.stride, self.padding, strict=True
            )
        )
        return rows, columns


_numbers = np.random.default_rng(0).normal


def _pair(value: int | Pair) -> Pair:
    return value if isinstance(value, tuple) else (value, value)


def _conv(
    name: str,
    x: tuple[int, int, int, int],
    filters: int,
    *,
    kernel: Pair = (3, 3),
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    topic: str = "general",
) -> Problem:
    w, b = _numbers(size=(filters, x[1], *kernel)), _numbers(size=filters)
    p = Problem("conv", name, _numbers(size=x), w, b, kernel=kernel, topic=topic)
    p = p.but(stride=_pair(stride), padding=_pair(padding))
    return p.but(dy=_numbers(size=(x[0], filters, *p.out)))


def _pool(
    kind: str,
    name: str,
    x: tuple[int, int, int, int],
    kernel: Pair,
    stride: int | Pair,
    *,
    padding: int = 0,
    topic: str = "general",
) -> Problem:
    p = Problem(kind, name, _numbers(size=x), kernel=kernel, topic=topic)
    p = p.but(stride=_pair(stride), padding=_pair(padding))
    return p.but(dy=_numbers(size=(*x[:2], *p.out)))


def _affine(name: str, x: tuple[int, ...], outputs: int, topic: str = "general") -> Problem:
    w, b = _numbers(size=(int(np.prod(x[1:])), outputs)), _numbers(size=outputs)
    dy = _numbers(size=(x[0], outputs))
    return Problem("affine", name, _numbers(size=x), w, b, dy, topic=topic)


def _norm(kind: str, name: str, x: tuple[int, ...], topic: str = "general", **more: Any) -> Problem:
    w, b = _numbers(size=x[1]), _numbers(size=x[1])
    numbers, dy = 2 * _numbers(size=x) + 3, _numbers(size=x)
    return Problem(kind, name, numbers, w, b, dy, topic=topic, **more)


def _scores(kind: str, name: str, images: int, classes: int, scale: float = 1) -> Problem:
    labels = np.arange(images) * 2 % classes
    return Problem(kind, name, scale * _numbers(size=(images, classes)), labels=labels)


def _in_float32(p: Problem) -> Problem:
    arrays = {key: getattr(p, key).astype(np.float32) for key in ("x", "w", "b", "dy")}
    return p.but(name="numbers in float32", topic="float32", **arrays)


def _of_integers(p: Problem) -> Problem:
    x = p.x.ravel().argsort().argsort().reshape(p.x.shape)  # no two alike
    return p.but(name="images of integers", topic="integers", x=x - x.size // 2)


def _conv_problems() -> list[Problem]:
    padded = _conv("padding 1", (3, 2, 5, 5), 4, padding=1)
    return [
        _conv("one image, one channel", (1, 1, 4, 4), 1),
        _conv("stride 1, no padding", (2, 3, 5, 5), 4),
        padded,
        _conv("padding 2", (2, 3, 4, 4), 5, padding=2),
        _conv("stride 2", (2, 3, 7, 7), 4, stride=2),
        _conv("stride 2, padding 1", (2, 4, 5, 5), 3, stride=2, padding=1),
        _conv("wide image", (2, 2, 4, 7), 3, padding=1),
        _conv("tall image, stride 2", (3, 2, 9, 5), 4, stride=2, padding=1),
        _conv("as many filters as channels", (2, 3, 6, 6), 3),
        _conv("kernel of one cell", (2, 3, 3, 4), 5, kernel=(1, 1)),
        _conv("kernel that is not square", (2, 2, 5, 6), 3, kernel=(2, 3), padding=1),
        _conv("two strides, two paddings", (2, 2, 5, 4), 3, stride=(2, 1), padding=(1, 2)),
        _conv("stride 2 that does not fit", (2, 3, 6, 8), 4, stride=2, topic="misfit"),
        _conv("stride 3 that does not fit", (2, 3, 8, 7), 4, stride=3, topic="misfit"),
        _in_float32(padded),
        _of_integers(padded),
        _conv("gradient", (2, 2, 4, 3), 3, padding=1, topic="gradient"),
    ]


def _pool_problems(kind: str) -> list[Problem]:
    tiled = _pool(kind, "windows side by side", (2, 3, 6, 6), (2, 2), 2)
    overlapping = _pool(kind, "windows that overlap", (2, 3, 5, 5), (3, 3), 2)
    ties = _pool(kind, "equal maxima in a window", (2, 3, 4, 6), (2, 2), 2, topic="ties")
    return [
        tiled,
        tiled.but(name="numbers below 0", x=-1 - abs(tiled.x)),
        overlapping,
        _pool(kind, "stride 1", (3, 2, 5, 5), (2, 2), 1),
        _pool(kind, "gaps between windows", (2, 3, 5, 5), (2, 2), 3),
        _pool(kind, "wide image", (2, 3, 4, 8), (2, 2), 2),
        _pool(kind, "tall image, windows that overlap", (3, 2, 9, 5), (3, 3), 2),
        _pool(kind, "window that is not square", (2, 2, 4, 6), (2, 3), 1),
        _pool(kind, "two strides", (2, 3, 4, 6), (2, 2), (2, 1)),
        _pool(kind, "padding 1", (2, 3, 4, 6), (2, 2), 2, padding=1),
        _pool(kind, "stride 2 that does not fit", (2, 3, 5, 7), (2, 2), 2, topic="misfit"),
        _pool(kind, "stride 3 that does not fit", (2, 3, 7, 6), (2, 2), 3, topic="misfit"),
        *([ties.but(x=np.rint(ties.x))] if kind == "max_pool" else []),
        _in_float32(overlapping),
        _of_integers(overlapping),
        _pool(kind, "gradient", (1, 2, 5, 5), (3, 3), 2, topic="gradient"),
    ]


def _global_pool_problems(kind: str) -> list[Problem]:
    return [
        _pool(kind, "square image", (2, 3, 4, 4), (4, 4), 1),
        _pool(kind, "wide image", (3, 2, 3, 5), (3, 5), 1),
        _pool(kind, "gradient", (2, 3, 2, 3), (2, 3), 1, topic="gradient"),
    ]


def _single_step_problems() -> list[Problem]:
    return [
        _conv("one channel", (1, 1, 3, 3), 1),
        _conv("four channels", (1, 4, 3, 3), 1),
        _conv("larger window", (1, 3, 5, 5), 1, kernel=(5, 5)),
    ]


def _affine_problems() -> list[Problem]:
    images = _affine("images", (2, 3, 2, 2), 5)
    return [
        _affine("rows of numbers", (3, 4), 2),
        images,
        _affine("as many outputs as inputs", (2, 4), 4),
        _in_float32(images),
        _of_integers(images),
        _affine("gradient", (2, 3), 4, topic="gradient"),
    ]


def _relu_problems() -> list[Problem]:
    images, rows, small = (
        Problem("relu", name, _numbers(size=x), dy=_numbers(size=x))
        for name, x in (("images", (2, 3, 4, 5)), ("rows", (3, 4)), ("gradient", (2, 4)))
    )
    return [rows, images, _in_float32(images), small.but(topic="gradient")]


def _batch_norm_problems(*size: int) -> list[Problem]:
    images = _norm("batch_norm", "images", (6, 3, *size))
    running = _numbers(size=3), 1 + _numbers(size=3) ** 2
    return [
        images,
        _norm("batch_norm", "as many images as channels", (4, 4, *size)),
        images.but(name="second batch", running=running),
        images.but(name="mode test", topic="test", running=running),
        _in_float32(images),
        _norm("batch_norm", "gradient", (4, 2, *size), "gradient"),
    ]


def _group_norm_problems(one_group: bool) -> list[Problem]:
    size = () if one_group else (3, 4)
    images = _norm("group_norm", "images", (2, 6, *size), groups=1 if one_group else 2)
    more = images.but(name="other groups", groups=1 if one_group else 3)
    small = _norm("group_norm", "gradient", (2, 4, *size[:1], *size[:1]), "gradient")
    return [images, more, _in_float32(images), small.but(groups=1 if one_group else 2)]


def _loss_problems(kind: str) -> list[Problem]:
    return [
        _scores(kind, "few images", 3, 5),
        _scores(kind, "as many images as classes", 4, 4),
        _scores(kind, "large scores", 5, 3, scale=1000),
    ]


def _window_problems(kind: str) -> list[Problem]:
    dy = _numbers(size=())
    windows = [
        Problem(kind, f"{h}x{w}", _numbers(size=(1, 1, h, w)), kernel=(h, w), dy=dy)
        for h, w in ((2, 2), (3, 3), (2, 3))
    ]
    return windows


def _zero_pad_problems() -> list[Problem]:
    return [
        Problem("zero_pad", f"padding {size}", _numbers(size=x), padding=(size, size))
        for size, x in ((1, (2, 3, 4, 4)), (2, (3, 2, 3, 5)), (0, (2, 3, 2, 2)))
    ]


PROBLEMS: dict[str, list[Problem]] = {  # set: its problems, from easy to hard
    "conv": _conv_problems(),
    "max_pool": _pool_problems("max_pool"),
    "avg_pool": _pool_problems("avg_pool"),
    "global_max_pool": _global_pool_problems("max_pool"),
    "global_avg_pool": _global_pool_problems("avg_pool"),
    "single_step": _single_step_problems(),
    "affine": _affine_problems(),
    "relu": _relu_problems(),
    "batch_norm": _batch_norm_problems(),
    "spatial_batch_norm": _batch_norm_problems(3, 4),
    "layer_norm": _group_norm_problems(one_group=True),
    "group_norm": _group_norm_problems(one_group=False),
    "softmax_loss": _loss_problems("softmax_loss"),
    "svm_loss": _loss_problems("svm_loss"),
    "zero_pad": _zero_pad_problems(),
    "window_mask": _window_problems("window_mask"),
    "distribute": _window_problems("distribute"),
}
for _kind in ("conv", "max_pool"):
    PROBLEMS[f"one_image_{_kind}"] = [p.but(x=p.x[:1], dy=p.dy[:1]) for p in PROBLEMS[_kind]]
