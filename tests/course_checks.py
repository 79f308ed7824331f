"""What every course's functions must stand: numerical gradients, any memory and any dtype."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from awkward import AWKWARD

SAME_NUMBERS = {name: make for name, make in AWKWARD.items() if not name.startswith("broadcast")}

Function = Callable[..., Any]


def numbers(seed: int, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    """Return normal random arrays."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


def numerical_gradient(f: Callable[[], Any], x: np.ndarray, dy: Any, h: float = 1e-5) -> np.ndarray:
    """Central differences of sum(f() * dy), for f that reads x, which is changed and put back."""
    gradient = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        kept, sums = x[index], []
        for value in (kept + h, kept - h):
            x[index] = value
            sums.append(np.sum(f() * dy))
        x[index] = kept
        gradient[index] = (sums[0] - sums[1]) / (2 * h)
    return gradient


def results(value: Any) -> list[np.ndarray]:
    """Return the arrays of a result, caches left out."""
    values = value if isinstance(value, tuple) else (value,)
    return [each for each in values if isinstance(each, np.ndarray | np.generic)]


def assert_same(actual: Any, expected: Any) -> None:
    """Hold two results to the same dtypes and numbers, but for the order of NumPy's own sums."""
    pairs = list(zip(results(actual), results(expected), strict=True))
    assert pairs
    for one, other in pairs:
        assert one.dtype.newbyteorder("=") == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-13, atol=1e-13)


def check_memory(function: Function, arrays: Sequence[np.ndarray]) -> None:
    """Hold a function to the same result for any memory of its arrays, which it leaves alone."""
    expected = function(*arrays)
    for name, make in SAME_NUMBERS.items():
        awkward = [make(array.copy()) for array in arrays]
        assert_same(function(*awkward), expected)
        for array, original in zip(awkward, arrays, strict=True):
            np.testing.assert_array_equal(array, original, err_msg=name)


def check_dtypes(function: Function, arrays: Sequence[np.ndarray]) -> None:
    """Hold a function to NumPy's promotion: integers as float64, mixtures as float64."""
    whole = [np.round(array) for array in arrays]
    assert_same(function(*(array.astype(np.int64) for array in whole)), function(*whole))
    single = [array.astype(np.float32) for array in arrays]
    for result in results(function(*single)):
        assert result.dtype == np.float32
    for place in range(len(arrays)):
        mixed = list(single)
        mixed[place] = single[place].astype(np.float64)
        wide = [array.astype(np.float64) for array in single]
        if len(arrays) > 1:
            assert_same(function(*mixed), function(*wide))


def refused(*cases: tuple[Function, type[Exception], str]) -> pytest.MarkDecorator:
    """Parametrize a test with calls, the errors they must raise, and what these must say."""
    return pytest.mark.parametrize(("call", "error", "message"), cases)


def star_names(module: str, own: Sequence[str]) -> set[str]:
    """Return what a star import brings in, beside a student's own names, which must stay."""
    namespace = dict.fromkeys(own, "the student's")
    exec(f"from {module} import *", namespace)
    assert {name: namespace[name] for name in own} == dict.fromkeys(own, "the student's")
    return set(namespace) - set(own) - {"__builtins__"}
