"""CS231n's `gradient_check`: numerical gradients by central differences, nothing to install.

Swap it in: replace the contents of `cs231n/gradient_check.py` in the assignment by the one line
    from cnnfast.courses.cs231n.gradient_check import *
The course's file of 2016 to 2019 needs the package `future` (`No module named 'past'`); here only
NumPy is needed, in every year.

Each number of x is changed in place, by h up and by h down, and f called with the same array: f
may ignore its argument and read the array itself, as the notebooks' lambdas do.

Different from the course's file:
- x is whole again also after f has raised an error;
- where both gradients are 0, `grad_check_sparse` prints a relative error of 0 (there NaN).
"""

from __future__ import annotations, print_function

from builtins import range  # noqa: UP029 - exported, as print_function is: the course's file does
from collections.abc import Callable
from random import randrange
from typing import Any

import numpy as np

from .._promote import FloatArray

__all__ = [
    "eval_numerical_gradient",
    "eval_numerical_gradient_array",
    "eval_numerical_gradient_blobs",
    "eval_numerical_gradient_net",
    "grad_check_sparse",
    "np",
    "print_function",
    "randrange",
    "range",
]


def eval_numerical_gradient(
    f: Callable[[FloatArray], float], x: FloatArray, verbose: bool = True, h: float = 0.00001
) -> FloatArray:
    """Give the gradient of the number f(x), and print each component as it is found."""
    grad = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        above, below = _around(lambda: f(x), x, index, h)
        grad[index] = (above - below) / (2 * h)
        if verbose:
            print(index, grad[index])
    return grad


def eval_numerical_gradient_array(
    f: Callable[[FloatArray], FloatArray], x: FloatArray, df: FloatArray, h: float = 1e-5
) -> FloatArray:
    """Give the gradient of sum(f(x) * df), with df the gradient of the array f(x)."""
    grad = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        above, below = _around(lambda: np.copy(f(x)), x, index, h)
        grad[index] = np.sum((above - below) * df) / (2 * h)
    return grad


def eval_numerical_gradient_blobs(
    f: Callable[..., object], inputs: tuple[Any, ...], output: Any, h: float = 1e-5
) -> list[FloatArray]:
    """Give the gradient for each input of f(*inputs, output), which writes output.vals.

    A blob has `vals` and `diffs`: its numbers, and the gradient of the loss by each of them.
    """

    def values() -> FloatArray:
        f(*inputs, output)
        return np.copy(output.vals)

    gradients = []
    for blob in inputs:
        grad = np.zeros_like(blob.diffs)
        for index in np.ndindex(blob.vals.shape):
            above, below = _around(values, blob.vals, index, h)
            grad[index] = np.sum((above - below) * output.diffs) / (2 * h)
        gradients.append(grad)
    return gradients


def eval_numerical_gradient_net(
    net: Any, inputs: tuple[Any, ...], output: Any, h: float = 1e-5
) -> list[FloatArray]:
    """Give the gradient for each input blob of a network, whose `forward()` writes output."""
    return eval_numerical_gradient_blobs(lambda *_: net.forward(), inputs, output, h=h)


def grad_check_sparse(
    f: Callable[[FloatArray], float],
    x: FloatArray,
    analytic_grad: FloatArray,
    num_checks: int = 10,
    h: float = 1e-5,
) -> None:
    """Print numerical beside analytic gradient of f at a few random places."""
    for _ in range(num_checks):
        index = tuple(randrange(extent) for extent in x.shape)
        above, below = _around(lambda: f(x), x, index, h)
        numerical, analytic = (above - below) / (2 * h), analytic_grad[index]
        size = abs(numerical) + abs(analytic)
        error = abs(numerical - analytic) / size if size else 0.0
        print(f"numerical: {numerical:f} analytic: {analytic:f}, relative error: {error:e}")


def _around(
    evaluate: Callable[[], Any], x: FloatArray, index: tuple[int, ...], h: float
) -> tuple[Any, Any]:
    """Evaluate with h more, and with h less, at one place of x."""
    kept = x[index]
    try:
        x[index] = kept + h
        above = evaluate()
        x[index] = kept - h
        return above, evaluate()
    finally:
        x[index] = kept
