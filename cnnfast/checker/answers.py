"""What is right: what a right layer of each kind makes of a problem, by `cnnfast.reference`.

An answer has a name: "y" is the result, and "dx", "dw", "db" are the gradients; "running_mean" and
"running_var" are what batch normalisation keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from .. import reference
from .problems import Array, Problem

Answers: TypeAlias = dict[str, Array]

MOMENTUM = 0.9  # share of the old value in running statistics, unless a course is told another


@cache
def answers(p: Problem, ties: str = "first") -> Answers:
    """Return what a right layer gives: "y", and each gradient that it has."""
    return RIGHT[p.kind](p) if p.kind != "max_pool" else max_pool(p, ties)


def pad(p: Problem, **how: Any) -> Array:
    """Return x with its padding around it."""
    (top, left) = p.padding
    return np.pad(p.x, ((0, 0), (0, 0), (top, top), (left, left)), **how)


def crop(p: Problem, padded: Array) -> Array:
    """Return the part of a padded image that is the image."""
    (top, left), (height, width) = p.padding, p.x.shape[2:]
    return padded[:, :, top : top + height, left : left + width]


def conv(p: Problem) -> Answers:
    """Convolve."""
    y, kept = reference.conv2d_forward(p.x * 1.0, p.w, p.b, stride=p.stride, padding=p.padding)
    dx, dw, db = reference.conv2d_backward(p.dy, kept)
    return {"y": y, "dx": dx, "dw": dw, "db": db}


def max_pool(p: Problem, ties: str = "first") -> Answers:
    """Take the largest cell of each window; cells of padding are zeros, as courses have it."""
    y, kept = reference.max_pool2d_forward(pad(p) * 1.0, p.kernel, stride=p.stride)
    if ties == "last":  # the first one, for who comes from the other end
        y, kept = reference.max_pool2d_forward(
            pad(p)[..., ::-1, ::-1] * 1.0, p.kernel, stride=p.stride
        )
        dx = reference.max_pool2d_backward(p.dy[..., ::-1, ::-1], kept)
        return {"y": y[..., ::-1, ::-1], "dx": crop(p, dx[..., ::-1, ::-1])}
    return {"y": y, "dx": crop(p, reference.max_pool2d_backward(p.dy, kept, ties=ties))}


def avg_pool(p: Problem) -> Answers:
    """Average each window; cells of padding count."""
    y, kept = reference.avg_pool2d_forward(pad(p) * 1.0, p.kernel, stride=p.stride)
    return {"y": y, "dx": crop(p, reference.avg_pool2d_backward(p.dy, kept))}


def affine(p: Problem) -> Answers:
    """Multiply each image, as a vector, by w (D, M), and add b."""
    rows = p.x.reshape(len(p.x), -1) * 1.0
    y, kept = reference.linear_forward(rows, p.w.T, p.b)
    dx, dw, db = reference.linear_backward(p.dy, kept)
    return {"y": y, "dx": np.reshape(dx, p.x.shape), "dw": np.transpose(dw), "db": db}


def relu(p: Problem) -> Answers:
    """Replace what is below 0 by 0."""
    return {"y": np.maximum(p.x, 0), "dx": np.where(p.x > 0, p.dy, 0)}


def batch_norm(p: Problem) -> Answers:
    """Normalise each channel over images and cells, or by the running mean and variance."""
    if p.topic == "test":
        assert p.running is not None
        return {"y": reference.batch_norm2d(_image(p.x), p.w, p.b, *p.running).reshape(p.x.shape)}
    y, kept = reference.batch_norm2d_forward(_image(p.x), p.w, p.b)
    right = _norm_gradients(p, y, *reference.batch_norm2d_backward(_image(p.dy), kept))
    return right | running(p, MOMENTUM)


def running(p: Problem, momentum: float, ddof: int = 0) -> Answers:
    """Move the running mean and variance, 0 if there are none, by the share 1 - momentum."""
    axes = (0, *range(2, p.x.ndim))
    mean, var = p.running or (0, 0)
    return {
        "running_mean": momentum * mean + (1 - momentum) * p.x.mean(axes),
        "running_var": momentum * var + (1 - momentum) * p.x.var(axes, ddof=ddof),
    }


def group_norm(p: Problem) -> Answers:
    """Normalise each image's groups of channels."""
    y, kept = reference.group_norm_forward(_image(p.x), p.w, p.b, p.groups)
    return _norm_gradients(p, y, *reference.group_norm_backward(_image(p.dy), kept))


def _image(rows: Array) -> Array:
    """Take rows (N, D) for images of one cell."""
    return rows.reshape(*rows.shape, 1, 1) if rows.ndim == 2 else rows


def _norm_gradients(p: Problem, y: Array, dx: Array, dw: Array, db: Array) -> Answers:
    return {"y": y.reshape(p.x.shape), "dx": dx.reshape(p.x.shape), "dw": dw, "db": db}


def softmax_loss(p: Problem) -> Answers:
    """Average the cross entropy of scores x (N, C) over the images."""
    n = len(p.x)
    shifted = p.x - p.x.max(1, keepdims=True)
    log = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    hit = np.eye(p.x.shape[1])[p.labels]
    return {"y": np.asarray(-(log * hit).sum() / n), "dx": (np.exp(log) - hit) / n}


def svm_loss(p: Problem) -> Answers:
    """Average the hinge loss with margin 1 of scores x (N, C) over the images."""
    n = len(p.x)
    hit = np.eye(p.x.shape[1])[p.labels]
    margin = np.maximum(0, p.x - (p.x * hit).sum(1, keepdims=True) + 1) * (1 - hit)
    over = (margin > 0).astype(float)
    return {"y": np.asarray(margin.sum() / n), "dx": (over - over.sum(1, keepdims=True) * hit) / n}


def zero_pad(p: Problem) -> Answers:
    """Put zeros around each image."""
    return {"y": pad(p)}


def window_mask(p: Problem) -> Answers:
    """Say where a window (1, 1, H, W) has its maximum."""
    return {"y": p.x == p.x.max()}


def distribute(p: Problem) -> Answers:
    """Share one number dy out equally over a window."""
    return {"y": np.full((1, 1, *p.kernel), p.dy / np.prod(p.kernel))}


RIGHT: dict[str, Callable[[Problem], Answers]] = {
    "conv": conv,
    "max_pool": max_pool,
    "avg_pool": avg_pool,
    "affine": affine,
    "relu": relu,
    "batch_norm": batch_norm,
    "group_norm": group_norm,
    "softmax_loss": softmax_loss,
    "svm_loss": svm_loss,
    "zero_pad": zero_pad,
    "window_mask": window_mask,
    "distribute": distribute,
}
