"""linear: the shared contract, numbers by hand, and its tie to conv2d."""

from __future__ import annotations

import numpy as np
import pytest
from contract import Products

import cnnfast
from cnnfast.conv import MASKED_BYTES


class TestLinear(Products):
    functions = ("linear",)


def test_numbers_by_hand() -> None:
    x, w = np.array([[1.0, 2, 3]]), np.array([[1.0, 0, -1], [10, 20, 30]])
    y, cache = cnnfast.linear_forward(x, w, np.array([5.0, 6]))
    np.testing.assert_array_equal(y, [[3, 146]])
    dx, dw, db = cnnfast.linear_backward(np.array([[1.0, 2]]), cache)
    np.testing.assert_array_equal(dx, [[21, 40, 59]])
    np.testing.assert_array_equal(dw, [[1, 2, 3], [2, 4, 6]])
    np.testing.assert_array_equal(db, [1, 2])


def test_a_large_batch_is_masked_in_parts() -> None:
    random = np.random.default_rng(0)
    x, w = (random.integers(-9, 9, shape).astype("f4") for shape in ((70_000, 2), (64, 2)))
    y, cache = cnnfast.linear_forward(x, w, activation="relu")
    assert y.nbytes > MASKED_BYTES
    dx, dw, _ = cnnfast.linear_backward(np.ones_like(y), cache)
    np.testing.assert_array_equal(dx, (y > 0) @ w)
    np.testing.assert_array_equal(dw, (y > 0).T @ x)


def test_it_is_a_1x1_convolution() -> None:
    random = np.random.default_rng(0)
    x, w = random.integers(-9, 9, (4, 5)) / 1, random.integers(-9, 9, (3, 5)) / 1
    y = cnnfast.conv2d(x[:, :, None, None], w[:, :, None, None])
    np.testing.assert_array_equal(cnnfast.linear(x, w), y[:, :, 0, 0])


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(("rows", "filters"), [(1, 3), (16, 33), (100, 7), (128, 130), (129, 5)])
def test_few_rows_of_many_features(rows: int, filters: int, dtype: str) -> None:
    random = np.random.default_rng(0)
    x = random.integers(-9, 9, (1700, rows)).astype(dtype).T  # rows lie across memory, or
    w = random.integers(-9, 9, (filters, 3400)).astype(dtype)[:, ::2]  # with gaps
    b = random.integers(-9, 9, filters).astype(dtype)
    wanted = np.maximum(x @ w.T + b, 0)
    out = np.empty((rows, 2 * filters), dtype)[:, ::-2]
    np.testing.assert_array_equal(cnnfast.linear(x, w, b, activation="relu", out=out), wanted)
    packed = cnnfast.linear(x.copy(), w.copy(), b, activation="relu")
    np.testing.assert_array_equal(packed, wanted)


@pytest.mark.parametrize("activation", [None, "relu"])
def test_few_rows_are_summed_in_one_order(activation: str | None) -> None:
    random = np.random.default_rng(0)
    x, w = random.standard_normal((64, 8192)), random.standard_normal((100, 8192))
    x[3, 5], w[4, 9] = np.inf, np.nan
    results = []
    for threads in (1, 2, 3):
        with cnnfast.num_threads(threads):
            results.append(cnnfast.linear(x, w, activation=activation))
    assert results[0].tobytes() == results[1].tobytes() == results[2].tobytes()
    wanted = cnnfast.reference.linear(x, w, activation=activation)
    np.testing.assert_allclose(results[0], wanted, rtol=1e-9, atol=1e-9)
