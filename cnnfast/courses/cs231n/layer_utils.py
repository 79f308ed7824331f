"""CS231n's `layer_utils`: the sandwich layers, with ReLU inside the layer before it.

Swap it in: replace the contents of `cs231n/layer_utils.py` in the assignment by the one line
    from cnnfast.courses.cs231n.layer_utils import *
and `fc_net.py` and `cnn.py`, which take their sandwich layers from there, run on cnnfast; your own
layers in `layers.py` stay yours, and stay out of it.

ReLU costs nothing in `affine_relu` and `conv_relu`: it is applied as each result is stored. In
`conv_relu_pool` it comes after the pooling, on a quarter of the numbers, which changes none of
them: ReLU never lowers one number below another, so that it commutes with the maximum.

Different from the course's file:
- the sandwiches are cnnfast's `fast_layers` and `layers` throughout, not the student's;
- relu_cache is the result of ReLU, which is positive where its input is: it must not be changed
  before the backward pass;
- a star import brings the eight sandwich layers, and none of `layers` and `fast_layers` (the
  course's file passes on all names of both).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._promote import FloatArray, RealArray
from .fast_layers import (
    Param,
    conv_backward_fast,
    conv_forward_fast,
    convolve,
    max_pool_backward_fast,
    max_pool_forward_fast,
)
from .layers import (
    Gradients,
    Settings,
    affine,
    affine_backward,
    relu_backward,
    spatial_batchnorm_backward,
    spatial_batchnorm_forward,
)

__all__ = [
    "affine_relu_backward",
    "affine_relu_forward",
    "conv_bn_relu_backward",
    "conv_bn_relu_forward",
    "conv_relu_backward",
    "conv_relu_forward",
    "conv_relu_pool_backward",
    "conv_relu_pool_forward",
]


def affine_relu_forward(x: RealArray, w: RealArray, b: RealArray) -> tuple[FloatArray, Any]:
    """Multiply by w, add b, cut off below 0; the cache is (fc_cache, relu_cache)."""
    out = affine(x, w, b, activation="relu")
    return out, ((x, w, b), out)


def affine_relu_backward(dout: RealArray, cache: Any) -> Gradients:
    """Give (dx, dw, db)."""
    fc_cache, relu_cache = cache
    return affine_backward(relu_backward(dout, relu_cache), fc_cache)


def conv_relu_forward(
    x: RealArray, w: RealArray, b: RealArray, conv_param: Param
) -> tuple[FloatArray, Any]:
    """Convolve, cut off below 0; the cache is (conv_cache, relu_cache)."""
    out = convolve(x, w, b, conv_param, activation="relu")
    return out, ((x, w, b, conv_param, None), out)


def conv_relu_backward(dout: RealArray, cache: Any) -> Gradients:
    """Give (dx, dw, db)."""
    conv_cache, relu_cache = cache
    return conv_backward_fast(relu_backward(dout, relu_cache), conv_cache)


def conv_bn_relu_forward(
    x: RealArray,
    w: RealArray,
    b: RealArray,
    gamma: RealArray,
    beta: RealArray,
    conv_param: Param,
    bn_param: Settings,
) -> tuple[FloatArray, Any]:
    """Convolve, normalise, cut off below 0; the cache is (conv_cache, bn_cache, relu_cache)."""
    convolved, conv_cache = conv_forward_fast(x, w, b, conv_param)
    out, bn_cache = spatial_batchnorm_forward(convolved, gamma, beta, bn_param)
    np.maximum(out, 0, out=out)
    return out, (conv_cache, bn_cache, out)


def conv_bn_relu_backward(
    dout: RealArray, cache: Any
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """Give (dx, dw, db, dgamma, dbeta)."""
    conv_cache, bn_cache, relu_cache = cache
    dnormal = relu_backward(dout, relu_cache)
    dconvolved, dgamma, dbeta = spatial_batchnorm_backward(dnormal, bn_cache)
    return *conv_backward_fast(dconvolved, conv_cache), dgamma, dbeta


def conv_relu_pool_forward(
    x: RealArray, w: RealArray, b: RealArray, conv_param: Param, pool_param: Param
) -> tuple[FloatArray, Any]:
    """Convolve, cut off below 0, pool; the cache is (conv_cache, relu_cache, pool_cache)."""
    convolved, conv_cache = conv_forward_fast(x, w, b, conv_param)
    out, pool_cache = max_pool_forward_fast(convolved, pool_param)
    np.maximum(out, 0, out=out)
    return out, (conv_cache, out, pool_cache)


def conv_relu_pool_backward(dout: RealArray, cache: Any) -> Gradients:
    """Give (dx, dw, db)."""
    conv_cache, relu_cache, pool_cache = cache
    dconvolved = max_pool_backward_fast(relu_backward(dout, relu_cache), pool_cache)
    return conv_backward_fast(dconvolved, conv_cache)
