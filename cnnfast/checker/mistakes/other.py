"""Mistakes in the other layers, and in gradients whatever the layer."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from ..answers import MOMENTUM, pad, running
from ..problems import Array, Problem
from .table import RAISES, Prediction, mistake, right

EVERY = "conv max_pool avg_pool affine relu batch_norm group_norm"
NORMS = "batch_norm group_norm"
LOSSES = "softmax_loss svm_loss"
EPS = 1e-5


# Gradients of any layer.


@mistake(
    *("divided-by-n", EVERY, "dx dw db"),
    "{0}",
    variants=[
        ("The gradient is divided by the number of images. Here it is not: the loss did that.", -1),
        ("The gradient is N times too large, N the number of images: divide by N here.", 1),
    ],
)
def _(p: Problem, answer: str, name: str, power: int) -> Prediction:
    return right(p, answer) * float(len(p.x)) ** power


@mistake(
    *("divided-by-n", LOSSES, "y dx"),
    "{0}",
    variants=[
        ("It is not divided by the number of images: a loss is their average.", 1),
        ("It is divided by the number of images twice.", -1),
    ],
)
def _(p: Problem, answer: str, name: str, power: int) -> Prediction:
    return right(p, answer) * float(len(p.x)) ** power


@mistake(
    *("averaged-gradient", "conv", "dw db"),
    "The gradient is averaged over {0}. Sum over them.",
    variants=[("windows", False), ("images and windows", True)],
)
def _(p: Problem, answer: str, name: str, images: bool) -> Prediction:
    return right(p, answer) / (np.prod(p.out) * (len(p.x) if images else 1))


@mistake(
    *("integer-division", EVERY, "dx dw db"),
    "The gradient has no fraction: // divides integers. Divide with /, and keep gradients in"
    " arrays of floats.",
    variants=[(np.floor,), (np.trunc,)],
)
def _(p: Problem, answer: str, whole: np.ufunc) -> Prediction:
    return whole(right(p, answer))


@mistake(
    *("integers-truncated", EVERY, "y dx dw db"),
    "With images of integers the result loses its fractions: np.zeros_like(x) has the integer type"
    " of x. Ask for floats: np.zeros(x.shape).",
    topic="integers",
)
def _(p: Problem, answer: str) -> Prediction:
    return np.trunc(right(p, answer))


@mistake(
    *("integers-refused", EVERY, "y dx dw db"),
    "Images of integers raise an error: np.zeros_like(x) has the integer type of x. Ask for"
    " floats: np.zeros(x.shape).",
    topic="integers",
)
def _(p: Problem, answer: str) -> Prediction:
    return RAISES


# Affine.


@mistake("bias-missing", "affine", "y", "The bias is not added.")
def _(p: Problem) -> Prediction:
    return right(p, "y") - p.b


@mistake(
    *("bias-per-element", "affine", "y"),
    "The bias is added once for every input. Add it once per output, after the sum.",
)
def _(p: Problem) -> Prediction:
    return right(p, "y") + (len(p.w) - 1) * p.b


@mistake(
    *("db-wrong-axes", "affine", "db"),
    "db is summed over {0}. Each bias is in every image: sum over the images, axis 0.",
    variants=[("the outputs", 1), ("images and outputs", (0, 1))],
)
def _(p: Problem, name: str, axes: int | tuple[int, int]) -> Prediction:
    return p.dy.sum(axes)


@mistake(
    *("images-do-not-flatten", "affine", "y dx dw db"),
    "Images with several axes fail. Make each a vector first: x.reshape(N, -1); and give dx the"
    " shape of x.",
)
def _(p: Problem, answer: str) -> Prediction:
    return RAISES if p.x.ndim > 2 else None


# ReLU.


@mistake("relu-absolute", "relu", "y", "Numbers below 0 lose their sign. They become 0.")
def _(p: Problem) -> Prediction:
    return np.abs(p.x)


@mistake(
    *("relu-leaky", "relu", "y dx"),
    "Below 0 it is {0} times as large: a leaky ReLU. Here it is 0.",
    variants=[(0.01,), (0.1,), (0.2,)],
)
def _(p: Problem, answer: str, slope: float) -> Prediction:
    whole = p.x if answer == "y" else p.dy
    return np.where(p.x > 0, whole, slope * whole)


@mistake(
    *("relu-mask", "relu", "dx"),
    "{0} The gradient passes where x, the input of forward, is above 0.",
    variants=[
        ("The gradient passes everywhere.", lambda p: p.dy),
        ("It passes where the gradient itself is above 0.", lambda p: np.maximum(p.dy, 0)),
        ("It passes where x is below 0.", lambda p: np.where(p.x < 0, p.dy, 0)),
        ("It is 1, not the gradient of the result.", lambda p: (p.x > 0) * 1.0),
        ("It is multiplied by x.", lambda p: np.maximum(p.x, 0) * p.dy),
    ],
)
def _(p: Problem, name: str, gradient: object) -> Prediction:
    assert callable(gradient)
    result: Array = gradient(p)
    return result


# Normalisation. Statistics are over these axes of x, or of x with its channels in groups.


def grouped(p: Problem, a: Array) -> Array:
    """Return an array shaped like x so that what has common statistics lies in axes 1 and up."""
    if p.kind == "batch_norm":
        return np.moveaxis(a, 1, 0).reshape(a.shape[1], -1)
    return a.reshape(len(a) * p.groups, -1)


def ungrouped(p: Problem, a: Array) -> Array:
    """Undo `grouped`."""
    if p.kind == "batch_norm":
        n, c, *size = p.x.shape
        return np.moveaxis(a.reshape(c, n, *size), 0, 1)
    return a.reshape(p.x.shape)


def channels(p: Problem, v: Array) -> Array:
    """Shape gamma or beta so that it broadcasts against x."""
    return v.reshape(-1, *[1] * (p.x.ndim - 2))


def normalised(p: Problem, ddof: int = 0, eps: float = EPS, root: bool = True) -> Array:
    """Return x less its mean, over its standard deviation."""
    rows = grouped(p, p.x)
    var = rows.var(1, keepdims=True, ddof=ddof)
    deviation = np.sqrt(var + eps) if root else var + eps
    return ungrouped(p, (rows - rows.mean(1, keepdims=True)) / deviation)


@mistake(
    *("norm-scale-missing", NORMS, "y"),
    "{0}",
    variants=[
        ("gamma and beta are not used.", 0, 0),
        ("gamma is not used.", 0, 1),
        ("beta is not used.", 1, 0),
    ],
)
def _(p: Problem, name: str, gamma: int, beta: int) -> Prediction:
    x_hat = (right(p, "y") - channels(p, p.b)) / channels(p, p.w)
    return x_hat * (channels(p, p.w) if gamma else 1) + beta * channels(p, p.b)


@mistake(
    *("norm-wrong-deviation", NORMS, "y"),
    "{0}",
    variants=[
        ("The variance is divided by n - 1. Divide by n (np.var does).", {"ddof": 1}),
        ("x is divided by its variance. Divide by the square root of it.", {"root": False}),
        ("eps is missing, or too small: sqrt(var + eps), with eps = 1e-5.", {"eps": 1e-8}),
    ],
)
def _(p: Problem, name: str, how: dict[str, int]) -> Prediction:
    if p.topic == "test":
        return None
    return normalised(p, **how) * channels(p, p.w) + channels(p, p.b)


@mistake(
    *("norm-wrong-deviation", NORMS, "y"),
    "eps stands outside the root. It is sqrt(var + eps).",
)
def _(p: Problem) -> Prediction:
    rows = grouped(p, p.x)
    x_hat = (rows - rows.mean(1, keepdims=True)) / (rows.std(1, keepdims=True) + EPS)
    return ungrouped(p, x_hat) * channels(p, p.w) + channels(p, p.b)


@mistake(
    *("norm-wrong-axes", NORMS, "y"),
    "Mean and variance are taken over {0}.",
    variants=[
        (f"axis {' and '.join(map(str, axes))} of x", axes)
        for count in (1, 2, 3, 4)
        for axes in combinations(range(4), count)
    ],
)
def _(p: Problem, name: str, axes: tuple[int, ...]) -> Prediction:
    if max(axes) >= p.x.ndim:
        return RAISES
    mean, var = p.x.mean(axes, keepdims=True), p.x.var(axes, keepdims=True)
    x_hat = (p.x - mean) / np.sqrt(var + EPS)
    return x_hat * channels(p, p.w) + channels(p, p.b)


@mistake(
    *("norm-test-uses-batch", "batch_norm", "y"),
    'With mode "test" the batch is normalised by its own mean and variance. Use the running ones.',
    topic="test",
)
def _(p: Problem) -> Prediction:
    return right(p.but(topic="general"), "y")


@mistake(
    *("norm-running-missing", "batch_norm", "running_mean running_var"),
    "Running mean and variance are not written back to bn_param, so they are lost with the call.",
)
def _(p: Problem, answer: str) -> Prediction:
    return RAISES if p.running is None else running(p, momentum=1)[answer]


@mistake(
    *("norm-running-wrong", "batch_norm", "running_mean running_var"),
    "{0}",
    variants=[
        (
            "The momentum is the other way round: it is the share of the old value, and"
            " 1 - momentum that of the batch's.",
            {"momentum": 1 - MOMENTUM},
        ),
        ("They are those of the last batch. Keep momentum of the old value.", {"momentum": 0}),
        (
            "The running variance is moved by a variance over n - 1. Here it is over n, that by"
            " which the batch is normalised.",
            {"momentum": MOMENTUM, "ddof": 1},
        ),
    ],
)
def _(p: Problem, answer: str, name: str, how: dict[str, float]) -> Prediction:
    return running(p, **how)[answer]


@mistake(
    *("norm-constant-statistics", NORMS, "dx"),
    "{0} as if {1} did not depend on x. Mean and variance move with x, and the gradient goes"
    " through them too.",
    variants=[
        ("The gradient is computed", "mean and variance", False),
        ("The gradient is computed", "the variance", True),
    ],
)
def _(p: Problem, name: str, what: str, mean_moves: bool) -> Prediction:
    dx_hat = grouped(p, p.dy * channels(p, p.w))
    if mean_moves:
        dx_hat = dx_hat - dx_hat.mean(1, keepdims=True)
    deviation = np.sqrt(grouped(p, p.x).var(1, keepdims=True) + EPS)
    return ungrouped(p, dx_hat / deviation)


@mistake(
    *("norm-gamma-forgotten", NORMS, "dx"), "gamma is missing: dx_hat is dout * gamma, not dout."
)
def _(p: Problem) -> Prediction:
    return right(p.but(w=np.ones(p.w.shape)), "dx")


@mistake(
    *("norm-gamma-of-x", NORMS, "dw"),
    "dgamma is summed from dout * x. It takes the normalised x.",
)
def _(p: Problem) -> Prediction:
    return (p.dy * p.x).sum((0, *range(2, p.x.ndim)))


# Losses.


@mistake(
    *("overflow", "softmax_loss", "y dx"),
    "Large scores go wrong: exp of them is infinite. Subtract each row's maximum first; the loss"
    " is the same.",
)
def _(p: Problem, answer: str) -> Prediction:
    overflows = p.x.max() > np.log(np.finfo(np.float64).max)
    return np.full(right(p, answer).shape, np.nan) if overflows else None


@mistake(
    *("loss-no-label", LOSSES, "dx"),
    "The right class is treated like the others: {0}.",
    variants=[("its part is missing", 0)],
)
def _(p: Problem, name: str, times: int) -> Prediction:
    n, hit = len(p.x), np.eye(p.x.shape[1])[p.labels]
    if p.kind == "softmax_loss":
        return right(p, "dx") + hit / n
    return np.where(hit > 0, 0, right(p, "dx"))


@mistake(
    *("loss-counts-label", "svm_loss", "y"),
    "The right class counts too, with its margin of 1. Leave it out of the sum.",
)
def _(p: Problem) -> Prediction:
    return right(p, "y") + 1


# The helpers of deeplearning.ai.


@mistake(
    *("padding-one-axis", "zero_pad", "y"),
    "The image is padded {0}. Pad height and width, on both sides, and nothing else.",
    variants=[
        ("at top and bottom only", ((0, 0), (0, 0), (1, 1), (0, 0))),
        ("at left and right only", ((0, 0), (0, 0), (0, 0), (1, 1))),
        ("in its channels as well", ((0, 0), (1, 1), (1, 1), (1, 1))),
        ("as a batch: there are new images", ((1, 1), (0, 0), (1, 1), (1, 1))),
        ("along every axis", ((1, 1), (1, 1), (1, 1), (1, 1))),
        ("in channels and width, not in height", ((0, 0), (1, 1), (0, 0), (1, 1))),
        ("in channels and height, not in width", ((0, 0), (1, 1), (1, 1), (0, 0))),
        ("at the bottom and the right only", ((0, 0), (0, 0), (0, 1), (0, 1))),
        ("at the top and the left only", ((0, 0), (0, 0), (1, 0), (1, 0))),
        ("twice as much", ((0, 0), (0, 0), (2, 2), (2, 2))),
    ],
)
def _(p: Problem, name: str, where: tuple[tuple[int, int], ...]) -> Prediction:
    return np.pad(p.x, p.padding[0] * np.array(where))


@mistake("padding-ignored", "zero_pad", "y", "The image is not padded.")
def _(p: Problem) -> Prediction:
    return p.x


@mistake(
    *("padding-values", "zero_pad", "y"),
    "The padding is not zeros but {0}.",
    variants=[("ones", {"constant_values": 1}), ("copies of the border", {"mode": "edge"})],
)
def _(p: Problem, name: str, how: dict[str, object]) -> Prediction:
    return pad(p, **how)


@mistake(
    *("average-wrong-count", "distribute", "y"),
    "The number is divided by {0}. Divide by the number of cells, height * width.",
    variants=[
        ("nothing", lambda h, w: 1),
        ("the height", lambda h, w: h),
        ("the width", lambda h, w: w),
        ("height + width", lambda h, w: h + w),
    ],
)
def _(p: Problem, name: str, count: object) -> Prediction:
    assert callable(count)
    return right(p, "y") * np.prod(p.kernel) / count(*p.kernel)


@mistake(
    *("integer-division", "distribute", "y"),
    "The division drops the fraction: // divides integers. Divide with /.",
)
def _(p: Problem) -> Prediction:
    return np.floor(right(p, "y"))


@mistake(
    *("mask-wrong", "window_mask", "y"),
    "{0} The mask is True where x is the maximum: x == np.max(x).",
    variants=[
        ("It is the other way round.", lambda x: x != x.max()),
        ("It marks the minimum.", lambda x: x == x.min()),
        ("It marks the maximum of every row.", lambda x: x == x.max(3, keepdims=True)),
        ("It marks the maximum of every column.", lambda x: x == x.max(2, keepdims=True)),
        ("It holds the maximum itself.", lambda x: np.where(x == x.max(), x, 0)),
    ],
)
def _(p: Problem, name: str, mask: object) -> Prediction:
    assert callable(mask)
    result: Array = mask(p.x)
    return result
