"""What can be told from expected and computed numbers alone, whatever the layer.

A relation looks at all results that are wrong, in the layout of the course, and says what is the
matter with every one of them, or nothing. They come after the mistakes that know the layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from typing import TypeAlias

import numpy as np

from ..problems import Array

Pairs: TypeAlias = Sequence[tuple[Array, Array]]  # expected and got
Said: TypeAlias = tuple[str, str] | None  # the key of a mistake, and the sentence


def not_finite(pairs: Pairs) -> Said:
    """Whether NaN or Inf came."""
    if all(not np.isfinite(got).all() for _, got in pairs):
        return "not-finite", (
            "There are NaN or Inf: a division by 0, a logarithm of 0, or exp of a large number"
            " (subtract the maximum first); or numbers of np.empty that nobody set."
        )
    return None


def all_zero(pairs: Pairs) -> Said:
    """Whether nothing was written."""
    if all(not got.any() and expected.shape == got.shape for expected, got in pairs):
        return "all-zero", "It is 0 all over: the array is made, and never filled."
    return None


def other_shape(pairs: Pairs) -> Said:
    """Whether the numbers are right and the shape is not."""
    if all(
        expected.shape != got.shape
        and expected.size == got.size
        and _same(expected.ravel(), got.ravel())
        for expected, got in pairs
    ):
        expected, got = pairs[0]
        return "wrong-shape", (
            f"The numbers are right, the shape is not: it is {got.shape} where {expected.shape}"
            " is needed. Use reshape, or keepdims."
        )
    return None


def other_order(pairs: Pairs) -> Said:
    """Whether the axes are in another order."""
    _, *others = permutations(range(pairs[0][0].ndim))
    for order in others:
        if all(
            expected.ndim == len(order)
            and expected.transpose(order).shape == got.shape
            and _same(expected.transpose(order), got)
            for expected, got in pairs
        ):
            return "axes-in-another-order", (
                f"The numbers are right and the axes in another order: transpose by"
                f" {tuple(int(axis) for axis in np.argsort(order))}."
            )
    return None


def few_digits(pairs: Pairs) -> Said:
    """Whether only the digits of float32 are right."""
    if all(
        expected.shape == got.shape and np.allclose(expected, got, rtol=1e-5, atol=1e-5)
        for expected, got in pairs
    ):
        return "float64-lost", (
            "It is right to some 7 digits only: somewhere float64 becomes float32. Gradient checks"
            " need float64 throughout."
        )
    return None


def _same(a: Array, b: Array) -> bool:
    return np.allclose(a, b, rtol=1e-9, atol=1e-9)


def times_a_constant(pairs: Pairs) -> Said:
    """Whether everything is the same number of times too large."""
    factors = []
    for expected, got in pairs:
        if expected.shape != got.shape or not np.any(expected):
            return None
        factor = (expected * got).sum() / (expected * expected).sum()
        if not np.allclose(got, factor * expected, rtol=1e-6, atol=1e-9):
            return None
        factors.append(factor)
    if not np.allclose(factors, factors[0]):
        return None
    if np.isclose(factors[0], -1):
        return "wrong-sign", "It has the wrong sign."
    return "constant-factor", f"It is {factors[0]:.6g} times what it should be."


RELATIONS: Sequence[Callable[[Pairs], Said]] = (
    not_finite,
    all_zero,
    other_shape,
    other_order,
    few_digits,
    times_a_constant,
)
