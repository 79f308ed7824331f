"""CS231n's `layers`: every layer that the student writes, done, under the course's names.

Swap it in: replace the contents of `cs231n/layers.py` in the assignment by the one line
    from cnnfast.courses.cs231n.layers import *
or, to check a layer of your own, import this module beside yours and compare the results:
    from cnnfast.courses.cs231n import layers as right
A star import after your own functions replaces them, for all names are the student's here.

The conv and max pooling pairs run the loops of cnnfast's algorithm `naive`: compiled, but one loop
a dimension as the formula says; `fast_layers` has the fast ones. The affine pair runs on
`cnnfast.linear`, the norms on `cnnfast.batch_norm2d` and `cnnfast.group_norm`.

The conventions are the course's: affine weights are (D, M); `p` of dropout is the probability of
keeping; running statistics keep `momentum` of the old value, have the biased variance, and are put
into bn_param; the first of equal maxima takes the gradient. Where the handout leaves the cache to
the student (norms), it is cnnfast's own; elsewhere it is the handout's tuple.

Different from the course's file:
- it is complete, with the losses of assignment 1, and both batchnorm backwards are one function;
- integers become float64 and float16 becomes float32; a gradient has the common dtype of all
  arrays of its call, that of a norm the dtype of its forward pass;
- gamma and beta of spatial_groupnorm are (C,) or (1, C, 1, 1), and so are their gradients;
- batch normalisation refuses to train on one value a feature (there the result is beta);
- `p` is the probability of keeping in every year (in 2016 and 2017 it was that of dropping).
"""

from __future__ import annotations

import math
from builtins import range  # noqa: UP029 - the course's file exports it
from typing import Any, TypeAlias

import numpy as np

import cnnfast

from .._promote import FloatArray, RealArray, promote
from .fast_layers import (
    Param,
    convolution_gradients,
    convolve,
    max_pool,
    max_pool_gradient,
    window_of,
)

__all__ = [
    "affine_backward",
    "affine_forward",
    "batchnorm_backward",
    "batchnorm_backward_alt",
    "batchnorm_forward",
    "conv_backward_naive",
    "conv_forward_naive",
    "dropout_backward",
    "dropout_forward",
    "layernorm_backward",
    "layernorm_forward",
    "max_pool_backward_naive",
    "max_pool_forward_naive",
    "np",
    "range",
    "relu_backward",
    "relu_forward",
    "softmax_loss",
    "spatial_batchnorm_backward",
    "spatial_batchnorm_forward",
    "spatial_groupnorm_backward",
    "spatial_groupnorm_forward",
    "svm_loss",
]

AffineCache: TypeAlias = tuple[RealArray, RealArray, RealArray]
NaiveConvCache: TypeAlias = tuple[RealArray, RealArray, RealArray, Param]
Settings: TypeAlias = dict[str, Any]  # bn_param and its like: numbers, a mode, running arrays
Gradients: TypeAlias = tuple[FloatArray, FloatArray, FloatArray]


def affine_forward(x: RealArray, w: RealArray, b: RealArray) -> tuple[FloatArray, AffineCache]:
    """Multiply images x (N, d_1, ..., d_k), each as one row of D numbers, by w (D, M); add b."""
    return affine(x, w, b), (x, w, b)


def affine_backward(dout: RealArray, cache: AffineCache) -> Gradients:
    """Give (dx, dw, db), dx in the shape of x."""
    x, w, _ = cache
    dy, images, weights = promote(dout, x, w)
    dx = cnnfast.linear(dy, weights).reshape(images.shape)
    dw = cnnfast.linear(_rows(images).T, dy.T)
    return dx, dw, dy.sum(axis=0)


def relu_forward(x: RealArray) -> tuple[FloatArray, RealArray]:
    """Cut off what is below 0; the cache is x."""
    (given,) = promote(x)
    return np.maximum(given, 0), x


def relu_backward(dout: RealArray, cache: RealArray) -> FloatArray:
    """Let dout through where x is above 0."""
    (dy,) = promote(dout)
    return dy * (np.asarray(cache) > 0)


def softmax_loss(x: RealArray, y: RealArray) -> tuple[float, FloatArray]:
    """Give the mean cross entropy of scores x (N, C) against labels y (N,), and its gradient."""
    (scores,) = promote(x)
    rows = np.arange(len(scores))
    shifted = scores - scores.max(axis=1, keepdims=True)
    odds = np.exp(shifted)
    total = odds.sum(axis=1, keepdims=True)
    loss = np.mean(np.log(total[:, 0]) - shifted[rows, y])
    dx = odds / total
    dx[rows, y] -= 1
    return loss, dx / len(scores)


def svm_loss(x: RealArray, y: RealArray) -> tuple[float, FloatArray]:
    """Give the mean multiclass hinge loss, of margin 1, of scores x (N, C), and its gradient."""
    (scores,) = promote(x)
    rows = np.arange(len(scores))
    margins = np.maximum(scores - scores[rows, y][:, None] + 1, 0)
    margins[rows, y] = 0
    dx = (margins > 0).astype(scores.dtype)
    dx[rows, y] = -dx.sum(axis=1)
    return margins.sum() / len(scores), dx / len(scores)


def dropout_forward(
    x: RealArray, dropout_param: Settings
) -> tuple[FloatArray, tuple[Settings, FloatArray | None]]:
    """Keep each number with the probability p, and divide it by p; the cache is (param, mask)."""
    (given,) = promote(x)
    p, mode = dropout_param["p"], dropout_param["mode"]
    if "seed" in dropout_param:
        np.random.seed(dropout_param["seed"])
    if mode == "test":
        return given, (dropout_param, None)
    if mode != "train":
        raise ValueError(f'Invalid dropout mode "{mode}"')
    mask = (np.random.rand(*given.shape) < p).astype(given.dtype) / p
    return given * mask, (dropout_param, mask)


def dropout_backward(dout: RealArray, cache: tuple[Settings, FloatArray | None]) -> FloatArray:
    """Let dout through the mask, or whole where there is none."""
    (dy,) = promote(dout)
    _, mask = cache
    return dy if mask is None else dy * mask


def batchnorm_forward(
    x: RealArray, gamma: RealArray, beta: RealArray, bn_param: Settings
) -> tuple[FloatArray, Any]:
    """Normalise the features of x (N, D) over the batch, or in test mode by running statistics.

    bn_param is {"mode", "eps", "momentum", "running_mean", "running_var"}; the last two are made
    in the first call, and new ones put there by each call in training mode.
    """
    (rows,) = promote(x)
    out, cache = _batchnorm(rows[None, None], gamma, beta, bn_param, "NHWC")
    return out[0, 0], cache


def batchnorm_backward(dout: RealArray, cache: Any) -> Gradients:
    """Give (dx, dgamma, dbeta)."""
    (dy,) = promote(dout)
    dx, dgamma, dbeta = spatial_batchnorm_backward(dy[None, None], cache)
    return dx[0, 0], dgamma, dbeta


batchnorm_backward_alt = batchnorm_backward


def spatial_batchnorm_forward(
    x: RealArray, gamma: RealArray, beta: RealArray, bn_param: Settings
) -> tuple[FloatArray, Any]:
    """Normalise the channels of x (N, C, H, W) over N, H and W, as `batchnorm_forward` features."""
    return _batchnorm(x, gamma, beta, bn_param, "NCHW")


def spatial_batchnorm_backward(dout: RealArray, cache: Any) -> Gradients:
    """Give (dx, dgamma, dbeta)."""
    return cnnfast.batch_norm2d_backward(_as_forward(dout, cache.x), cache)


def layernorm_forward(
    x: RealArray, gamma: RealArray, beta: RealArray, ln_param: Settings
) -> tuple[FloatArray, Any]:
    """Normalise each row of x (N, D); ln_param is {"eps"}."""
    rows, scale, shift = promote(x, gamma, beta)
    ones = np.ones(len(rows), rows.dtype)
    # The rows are the channels of one image: batch normalisation over it is theirs one by one.
    image, eps = rows[None, :, None, :], ln_param.get("eps", 1e-5)
    normal, cache = cnnfast.batch_norm2d_forward(image, ones, 0 * ones, eps=eps)
    x_hat = normal[0, :, 0, :]
    return scale * x_hat + shift, (x_hat, scale, cache)


def layernorm_backward(dout: RealArray, cache: Any) -> Gradients:
    """Give (dx, dgamma, dbeta)."""
    x_hat, gamma, norm = cache
    dy = _as_forward(dout, x_hat)
    dx, _, _ = cnnfast.batch_norm2d_backward((dy * gamma)[None, :, None, :], norm)
    return dx[0, :, 0, :], (dy * x_hat).sum(axis=0), dy.sum(axis=0)


def spatial_groupnorm_forward(
    x: RealArray, gamma: RealArray, beta: RealArray, G: int, gn_param: Settings
) -> tuple[FloatArray, Any]:
    """Normalise G groups of the channels of each image of x (N, C, H, W); gn_param is {"eps"}."""
    images, scale, shift = promote(x, gamma, beta)
    eps = gn_param.get("eps", 1e-5)
    out, cache = cnnfast.group_norm_forward(
        images, scale.reshape(-1), shift.reshape(-1), G, eps=eps
    )
    return out, (scale.shape, shift.shape, cache)


def spatial_groupnorm_backward(dout: RealArray, cache: Any) -> Gradients:
    """Give (dx, dgamma, dbeta), the last two in the shapes of gamma and beta."""
    gamma_shape, beta_shape, norm = cache
    dx, dgamma, dbeta = cnnfast.group_norm_backward(_as_forward(dout, norm.x), norm)
    return dx, dgamma.reshape(gamma_shape), dbeta.reshape(beta_shape)


def conv_forward_naive(
    x: RealArray, w: RealArray, b: RealArray, conv_param: Param
) -> tuple[FloatArray, NaiveConvCache]:
    """Convolve x (N, C, H, W) with w (F, C, HH, WW) and add b (F,), loop by loop."""
    return convolve(x, w, b, conv_param, algorithm="naive"), (x, w, b, conv_param)


def conv_backward_naive(dout: RealArray, cache: NaiveConvCache) -> Gradients:
    """Give (dx, dw, db), loop by loop."""
    x, w, _, conv_param = cache
    return convolution_gradients(dout, x, w, conv_param, algorithm="naive")


def max_pool_forward_naive(
    x: RealArray, pool_param: Param
) -> tuple[FloatArray, tuple[RealArray, Param]]:
    """Pool x, loop by loop."""
    return max_pool(x, pool_param, algorithm="naive"), (x, pool_param)


def max_pool_backward_naive(dout: RealArray, cache: tuple[RealArray, Param]) -> FloatArray:
    """Give dx, loop by loop; the first of equal maxima takes the gradient."""
    x, pool_param = cache
    return max_pool_gradient(dout, x, *window_of(pool_param), "first", algorithm="naive")


def affine(x: RealArray, w: RealArray, b: RealArray, activation: str | None = None) -> FloatArray:
    """Multiply images, each as one row, by weights (D, M)."""
    images, weights, bias = promote(x, w, b)
    return cnnfast.linear(_rows(images), weights.T, bias.reshape(-1), activation=activation)


def _rows(images: FloatArray) -> FloatArray:
    return images.reshape(len(images), math.prod(images.shape[1:]))


def _as_forward(dout: RealArray, x: FloatArray) -> FloatArray:
    """Cast dout to the dtype that the forward pass computed in."""
    (dy,) = promote(dout)
    return dy.astype(x.dtype, copy=False)


def _batchnorm(
    x: RealArray, gamma: RealArray, beta: RealArray, bn_param: Settings, layout: str
) -> tuple[FloatArray, Any]:
    images, scale, shift = promote(x, gamma, beta)
    mode, eps, momentum = bn_param["mode"], bn_param.get("eps", 1e-5), bn_param.get("momentum", 0.9)
    nothing = np.zeros(scale.shape, images.dtype)
    mean, var = bn_param.get("running_mean", nothing), bn_param.get("running_var", nothing)
    if mode == "train":
        new_mean, new_var = nothing.copy(), nothing.copy()
        out, cache = cnnfast.batch_norm2d_forward(
            images, scale, shift, new_mean, new_var, momentum=1.0, eps=eps, layout=layout
        )
        count = images.size // scale.size
        biased = new_var * ((count - 1) / count)
        mean = momentum * mean + (1 - momentum) * new_mean
        var = momentum * var + (1 - momentum) * biased
    elif mode == "test":
        known = (np.asarray(each, images.dtype) for each in (mean, var))
        out, cache = (
            cnnfast.batch_norm2d(images, scale, shift, *known, eps=eps, layout=layout),
            None,
        )
    else:
        raise ValueError(f'Invalid forward batchnorm mode "{mode}"')
    bn_param["running_mean"], bn_param["running_var"] = mean, var
    return out, cache
