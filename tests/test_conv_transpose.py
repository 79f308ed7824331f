"""conv_transpose2d: the shared contract, numbers by hand, and its tie to conv2d."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case, Variant, variants
from contract import Products

import cnnfast


class TestConvTranspose(Products):
    functions = ("conv_transpose2d",)

    def filters(self, case: Case) -> int:
        return case.shapes["w"][1] * int(case.options.get("groups", 1))


def test_numbers_by_hand() -> None:
    x = np.array([[[[1.0, 2], [3, 4]]]])
    w = np.array([[[[1.0, 10], [100, 1000]]]])
    y, cache = cnnfast.conv_transpose2d_forward(x, w, np.array([0.5]), output_padding=0)
    want = [[1, 12, 20], [103, 1234, 2040], [300, 3400, 4000]]
    np.testing.assert_array_equal(y[0, 0], np.array(want) + 0.5)
    dx, dw, db = cnnfast.conv_transpose2d_backward(np.ones((1, 1, 3, 3)), cache)
    np.testing.assert_array_equal(dx, np.full((1, 1, 2, 2), 1111))
    np.testing.assert_array_equal(dw, np.full((1, 1, 2, 2), 10))
    np.testing.assert_array_equal(db, [9])


def test_output_padding_adds_cells_at_the_end() -> None:
    x, w = np.ones((1, 1, 1, 2)), np.ones((1, 1, 1, 1))
    y = cnnfast.conv_transpose2d(x, w, np.array([5.0]), stride=(1, 3), output_padding=(0, 2))
    np.testing.assert_array_equal(y.ravel(), [6, 5, 5, 6, 5, 5])


@pytest.mark.parametrize("variant", variants(("conv2d",), "stride-2", "depthwise"), ids=str)
def test_it_is_the_input_gradient_of_conv2d(variant: Variant) -> None:
    x, w, b, dy = variant.inputs().values()
    _, cache = cnnfast.conv2d_forward(x, w, b, **variant.options)
    dx, _, _ = cnnfast.conv2d_backward(dy, cache, needs="x")
    np.testing.assert_array_equal(cnnfast.conv_transpose2d(dy, w, **variant.options), dx)
