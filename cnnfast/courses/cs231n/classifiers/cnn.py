"""CS231n's `classifiers.cnn`: ThreeLayerConvNet, done.

Swap it in: replace the contents of `cs231n/classifiers/cnn.py` in the assignment by the one line
    from cnnfast.courses.cs231n.classifiers.cnn import *
or, to compare with a network of your own, import it under another name. It trains with the
course's Solver or ours:

    >>> import numpy as np
    >>> from cnnfast.courses.cs231n.classifiers.cnn import ThreeLayerConvNet
    >>> from cnnfast.courses.cs231n.solver import Solver
    >>> np.random.seed(0)
    >>> X, y = np.random.randn(20, 3, 8, 8), np.arange(20) % 2
    >>> data = {"X_train": X, "y_train": y, "X_val": X, "y_val": y}
    >>> model = ThreeLayerConvNet((3, 8, 8), num_classes=2, weight_scale=0.05)
    >>> rule = {"update_rule": "adam", "optim_config": {"learning_rate": 1e-2}}
    >>> solver = Solver(model, data, batch_size=10, num_epochs=10, verbose=False, **rule)
    >>> solver.train()
    >>> solver.best_val_acc
    1.0

The parameters are drawn from NumPy's global generator, W1, W2 and W3 in this order, so that a seed
gives the course's own numbers. As there, images of another dtype than the weights are not cast:
float64 images make float64 of the computation, at twice the time of float32.

Different from the course's file:
- ReLU comes after the pooling, where it gives the same numbers for a quarter of the work;
- the first of equal maxima takes the gradient of its window (there they share it);
- the gradient of the images, which nobody asks for, is not computed;
- a star import brings ThreeLayerConvNet and np, no layers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

import cnnfast

from ..._promote import FloatArray, RealArray, promote
from ..layer_utils import affine_relu_backward, affine_relu_forward
from ..layers import affine_backward, affine_forward, relu_backward, softmax_loss

__all__ = ["ThreeLayerConvNet", "np"]


class ThreeLayerConvNet:
    """conv - relu - 2x2 max pool - affine - relu - affine - softmax, on images (N, C, H, W)."""

    def __init__(
        self,
        input_dim: tuple[int, int, int] = (3, 32, 32),
        num_filters: int = 32,
        filter_size: int = 7,
        hidden_dim: int = 100,
        num_classes: int = 10,
        weight_scale: float = 1e-3,
        reg: float = 0.0,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        """Draw weights of standard deviation weight_scale for images (C, H, W); biases are 0."""
        C, H, W = input_dim
        shapes = (
            (num_filters, C, filter_size, filter_size),
            (num_filters * (H // 2) * (W // 2), hidden_dim),
            (hidden_dim, num_classes),
        )
        self.reg = reg
        self.dtype = dtype
        self.params = {}
        for layer, shape in enumerate(shapes, 1):
            outputs = shape[0] if layer == 1 else shape[1]
            weights = weight_scale * np.random.randn(*shape)
            self.params[f"W{layer}"] = weights.astype(dtype)
            self.params[f"b{layer}"] = np.zeros(outputs, dtype)

    def loss(
        self, X: RealArray, y: RealArray | None = None
    ) -> FloatArray | tuple[float, dict[str, FloatArray]]:
        """Give the scores of X (N, C, H, W), or with labels y (N,) the loss and all gradients."""
        W1, b1, W2, b2, W3, b3 = (self.params[name + layer] for layer in "123" for name in "Wb")
        images, filters, bias = promote(X, W1, b1)
        pad = (W1.shape[2] - 1) // 2  # the size stays
        convolved, conv = cnnfast.conv2d_forward(images, filters, bias, padding=pad)
        pooled, pool = cnnfast.max_pool2d_forward(convolved, 2)
        np.maximum(pooled, 0, out=pooled)
        hidden, hidden_cache = affine_relu_forward(pooled, W2, b2)
        scores, scores_cache = affine_forward(hidden, W3, b3)
        if y is None:
            return scores

        loss, dscores = softmax_loss(scores, y)
        grads = {}
        dhidden, grads["W3"], grads["b3"] = affine_backward(dscores, scores_cache)
        dpooled, grads["W2"], grads["b2"] = affine_relu_backward(dhidden, hidden_cache)
        dconvolved = cnnfast.max_pool2d_backward(relu_backward(dpooled, pooled), pool)
        _, grads["W1"], grads["b1"] = cnnfast.conv2d_backward(dconvolved, conv, needs="wb")
        if self.reg:
            for name in ("W1", "W2", "W3"):
                weights = self.params[name]
                loss += 0.5 * self.reg * np.sum(weights * weights)
                grads[name] += self.reg * weights
        return loss, grads
