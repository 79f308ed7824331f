"""linear: the shared contract, numbers by hand, and its tie to conv2d."""

from __future__ import annotations

import numpy as np
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
