"""Two small networks, and the ways to compute their training step: one formula, several speeds.

CS231n's ThreeLayerConvNet and LeNet-5 (LeCun et al. 1998, here with ReLU and max pooling) are both

    [convolution - ReLU - 2x2 max pooling] x n  -  [affine - ReLU] x m  -  affine  -  softmax

A `Network` has the course's interface: `params` (W1, b1, W2, ...; affine weights are (D, M)), and
`loss(X, y)`, which gives loss and gradients, or without y the scores. What computes its layers is
one of the `WAYS`; `torch_step` is the same step in torch. A step is forward, backward without the
gradient of the images, and the update `w -= rate * dw`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import cs231n_manner
import numpy as np
from numpy.typing import NDArray

import cnnfast
from cnnfast.courses.cs231n.layers import softmax_loss

Array: TypeAlias = NDArray[np.floating]
Labels: TypeAlias = NDArray[np.integer]
Params: TypeAlias = dict[str, Array]
Step: TypeAlias = Callable[[], float]  # gives the loss

RATE = 1e-3  # of the step that is timed


class Conv(NamedTuple):
    """A convolution with its ReLU and its 2x2 max pooling."""

    filters: int
    size: int
    padding: int


class Plan(NamedTuple):
    """What a network is made of."""

    convs: tuple[Conv, ...]
    hidden: tuple[int, ...]  # outputs of the affine layers but the last
    classes: int = 10


THREE_LAYER = Plan((Conv(32, 7, 3),), (100,))
LENET = Plan((Conv(6, 5, 2), Conv(16, 5, 0)), (120, 84))


class Way(NamedTuple):
    """How to compute the two kinds of layers; the caches differ, so their type is open."""

    conv_relu_pool: Callable[[Array, Array, Array, int], tuple[Array, Any]]
    conv_relu_pool_backward: Callable[[Array, Any, bool], tuple[Array | None, Array, Array]]
    affine: Callable[[Array, Array, Array, bool], tuple[Array, Any]]
    affine_backward: Callable[[Array, Any], tuple[Array, Array, Array]]


# cnnfast. ReLU after the pooling, on a quarter of the numbers, gives the same ones.


def _fast_conv(x: Array, w: Array, b: Array, padding: int, *, algorithm: str) -> tuple[Array, Any]:
    convolved, conv = cnnfast.conv2d_forward(x, w, b, padding=padding, algorithm=algorithm)
    pooled, pool = cnnfast.max_pool2d_forward(convolved, 2, algorithm=algorithm)
    np.maximum(pooled, 0, out=pooled)
    return pooled, (pooled, pool, conv)


def _fast_conv_backward(dy: Array, cache: Any, needs_dx: bool) -> tuple[Array | None, Array, Array]:
    pooled, pool, conv = cache
    dconvolved = cnnfast.max_pool2d_backward(dy * (pooled > 0), pool)
    return cnnfast.conv2d_backward(dconvolved, conv, needs="xwb" if needs_dx else "wb")


def _fast_affine(x: Array, w: Array, b: Array, relu: bool) -> tuple[Array, Any]:
    rows = x.reshape(len(x), -1)
    y = cnnfast.linear(rows, w.T, b, activation="relu" if relu else None)
    return y, (x.shape, rows, w, y > 0 if relu else None)


def _fast_affine_backward(dy: Array, cache: Any) -> tuple[Array, Array, Array]:
    x_shape, rows, w, positive = cache
    dy = dy if positive is None else dy * positive
    return cnnfast.linear(dy, w).reshape(x_shape), cnnfast.linear(rows.T, dy.T), dy.sum(axis=0)


# NumPy in CS231n's manner.


def _manner_conv(x: Array, w: Array, b: Array, padding: int) -> tuple[Array, Any]:
    convolved, conv = cs231n_manner.conv_forward(x, w, b, padding=padding)
    rectified = np.maximum(convolved, 0)
    pooled, pool = cs231n_manner.max_pool_forward(rectified, 2)
    return pooled, (convolved, pool, conv)


def _manner_conv_backward(dy: Array, cache: Any, needs_dx: bool) -> tuple[Array, Array, Array]:
    convolved, pool, conv = cache  # as in the course, dx comes whether it is needed or not
    drectified = cs231n_manner.max_pool_backward(dy, pool)
    return cs231n_manner.conv_backward(drectified * (convolved > 0), conv)


def _manner_affine(x: Array, w: Array, b: Array, relu: bool) -> tuple[Array, Any]:
    y = x.reshape(len(x), -1) @ w + b
    return (np.maximum(y, 0) if relu else y), (x, w, y, relu)


def _manner_affine_backward(dy: Array, cache: Any) -> tuple[Array, Array, Array]:
    x, w, y, relu = cache
    dy = dy * (y > 0) if relu else dy
    return (dy @ w.T).reshape(x.shape), x.reshape(len(x), -1).T @ dy, dy.sum(axis=0)


def _cnnfast(algorithm: str) -> Way:
    forward = functools.partial(_fast_conv, algorithm=algorithm)
    return Way(forward, _fast_conv_backward, _fast_affine, _fast_affine_backward)


FAST, MANNER, NAIVE = "cnnfast", "CS231n's manner", "naive kernels"
WAYS = {
    FAST: _cnnfast("auto"),
    MANNER: Way(_manner_conv, _manner_conv_backward, _manner_affine, _manner_affine_backward),
    NAIVE: _cnnfast("naive"),
}


class Network:
    """A network by its plan, for images (C, H, W), with weights after He et al. 2015."""

    def __init__(
        self,
        plan: Plan,
        input_dim: tuple[int, int, int],
        rng: np.random.Generator,
        dtype: str = "float32",
        way: str = FAST,
    ) -> None:
        self.plan, self.way = plan, WAYS[way]
        C, H, W = input_dim
        shapes: list[tuple[int, ...]] = []
        for conv in plan.convs:
            shapes.append((conv.filters, C, conv.size, conv.size))
            C = conv.filters
            H, W = ((size + 2 * conv.padding - conv.size + 1) // 2 for size in (H, W))
        sizes = (C * H * W, *plan.hidden, plan.classes)
        shapes += itertools.pairwise(sizes)
        self.params: Params = {}
        for layer, shape in enumerate(shapes, 1):
            is_conv = len(shape) == 4
            inputs, outputs = (np.prod(shape[1:]), shape[0]) if is_conv else shape
            weights = rng.standard_normal(shape) * np.sqrt(2 / inputs)
            self.params[f"W{layer}"] = weights.astype(dtype)
            self.params[f"b{layer}"] = np.zeros(outputs, dtype)

    def loss(self, X: Array, y: Labels | None = None) -> Array | tuple[float, Params]:
        """Scores of X; with labels y, loss and gradients."""
        way, convs = self.way, self.plan.convs
        pairs = [(self.params[f"W{n}"], self.params[f"b{n}"]) for n in self.layers]
        values, caches = X, []
        for n, (w, b) in enumerate(pairs):
            if n < len(convs):
                values, cache = way.conv_relu_pool(values, w, b, convs[n].padding)
            else:
                values, cache = way.affine(values, w, b, n < len(pairs) - 1)
            caches.append(cache)
        if y is None:
            return values
        loss, slope = softmax_loss(values, y)
        grads: Params = {}
        for n in reversed(range(len(pairs))):
            if n < len(convs):
                slope, dw, db = way.conv_relu_pool_backward(slope, caches[n], n > 0)
            else:
                slope, dw, db = way.affine_backward(slope, caches[n])
            grads |= {f"W{n + 1}": dw, f"b{n + 1}": db}
        return loss, grads

    @property
    def layers(self) -> range:
        """The numbers of the layers, from 1."""
        return range(1, len(self.params) // 2 + 1)


class LeNet5(Network):
    """LeNet-5 for images of 28x28: 6 and 16 filters of 5x5, 120 and 84 hidden units."""

    def __init__(self, rng: np.random.Generator, dtype: str = "float32") -> None:
        super().__init__(LENET, (1, 28, 28), rng, dtype)


def save(path: Path, params: Mapping[str, Array]) -> None:
    """Write weights to a file .npz."""
    np.savez(path, **params)


def load(path: Path) -> Params:
    """The weights of a file that `save` wrote."""
    with np.load(path) as saved:
        return {name: saved[name] for name in saved.files}


def step(network: Any, X: Array, y: Labels) -> Step:
    """A training step of a network, the course's or ours."""

    def call() -> float:
        loss, grads = network.loss(X, y)
        for name, w in network.params.items():
            w -= RATE * grads[name]
        return float(loss)

    return call


def torch_step(plan: Plan, params: Mapping[str, Array], X: Array, y: Labels) -> Step:
    """The same step in torch, from copies of the same weights."""
    import torch

    modules: list[torch.nn.Module] = []
    names = [(params[f"W{n}"], params[f"b{n}"]) for n in range(1, len(params) // 2 + 1)]
    for n, (w, b) in enumerate(names):
        if n < len(plan.convs):
            filters, channels, size, _ = w.shape
            layer = torch.nn.Conv2d(channels, filters, size, padding=plan.convs[n].padding)
            rest = [torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
        else:
            layer, rest = torch.nn.Linear(*w.shape), [torch.nn.ReLU()]
        if n == len(plan.convs):
            modules.append(torch.nn.Flatten())
        layer.weight = torch.nn.Parameter(torch.tensor(w if w.ndim == 4 else w.T))
        layer.bias = torch.nn.Parameter(torch.tensor(b))
        modules += [layer, *(rest if n < len(names) - 1 else [])]
    network = torch.nn.Sequential(*modules)
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE)
    images, labels = torch.tensor(X), torch.tensor(y)

    def call() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return call


def check(steps: Mapping[str, Step], tolerance: float, count: int = 3) -> None:
    """Stop if the steps do not give the same losses, of which the second on show the gradients."""
    (first, expected), *others = (
        (name, [call() for _ in range(count)]) for name, call in steps.items()
    )
    for name, losses in others:
        if not np.allclose(losses, expected, rtol=tolerance, atol=0):
            raise SystemExit(f"{name} and {first} differ: losses {losses} and {expected}")


def copied(params: Mapping[str, Array]) -> Params:
    """Weights of one's own."""
    return {name: w.copy() for name, w in params.items()}
