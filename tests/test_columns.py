"""im2col and col2im: against the reference over the convolution cases, by hand, and awkward."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from awkward import AWKWARD, frozen, plain
from cases import CONVOLUTIONS, DTYPES, Arrays, Case, integers
from contract import assert_same_bits

import cnnfast
from cnnfast import reference

TYPES = pytest.mark.parametrize("dtype", DTYPES)
CASES = pytest.mark.parametrize("case", CONVOLUTIONS, ids=[case.name for case in CONVOLUTIONS])


def window(case: Case) -> dict[str, object]:
    """Return the options of a convolution that its columns have too."""
    options = {k: v for k, v in case.options.items() if k in ("stride", "padding", "dilation")}
    return {"kernel_size": case.shapes["w"][2:]} | options


def unfold_and_fold(library: ModuleType, case: Case, x: np.ndarray, columns: np.ndarray) -> Arrays:
    x, columns, size = frozen(x), frozen(columns), case.shapes["x"][2:]
    return {
        "columns": library.im2col(x, **window(case)),
        "image": library.col2im(columns, size, **window(case)),
    }


def data(case: Case, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    x = integers(random, case.shapes["x"], dtype)
    return x, integers(random, reference.im2col(x, **window(case)).shape, dtype)


@CASES
@TYPES
def test_agrees_with_reference(case: Case, dtype: str) -> None:
    arrays = data(case, dtype)
    got, want = (unfold_and_fold(library, case, *arrays) for library in (cnnfast, reference))
    assert_same_bits(got, want)


@TYPES
@pytest.mark.parametrize("memory", AWKWARD)
def test_awkward_input_gives_the_same_bits(memory: str, dtype: str) -> None:
    for case in CONVOLUTIONS[:4]:
        awkward = [AWKWARD[memory](array) for array in data(case, dtype)]
        want = unfold_and_fold(cnnfast, case, *map(plain, awkward))
        assert_same_bits(unfold_and_fold(cnnfast, case, *awkward), want)


@TYPES
def test_special_values_are_moved_untouched(dtype: str) -> None:
    x = np.array([np.nan, np.inf, -np.inf, -0.0], dtype).reshape(1, 1, 2, 2)
    columns = cnnfast.im2col(x, 2, padding=1)
    want = reference.im2col(x, 2, padding=1)
    assert_same_bits({"columns": columns}, {"columns": want})
    assert np.isnan(columns).sum() == 4
    folded = cnnfast.col2im(columns, (2, 2), 2, padding=1)
    np.testing.assert_array_equal(folded, 4 * x)


def test_numbers_by_hand() -> None:
    x = np.array([[[[1.0, 2, 3]], [[4, 5, 6]]]])
    columns = cnnfast.im2col(x, (1, 2), padding=(0, 1), stride=(1, 2))
    np.testing.assert_array_equal(columns, [[[0, 2], [1, 3], [0, 5], [4, 6]]])
    image = cnnfast.col2im(np.ones((1, 4, 2)), (1, 3), (1, 2), stride=(1, 1))
    np.testing.assert_array_equal(image, [[[[1, 2, 1]], [[1, 2, 1]]]])


def test_a_convolution_is_a_product_with_the_columns() -> None:
    random = np.random.default_rng(1)
    x, w = integers(random, (2, 3, 6, 5), "float64"), integers(random, (4, 3, 3, 2), "float64")
    product = w.reshape(4, -1) @ cnnfast.im2col(x, (3, 2), padding=1, stride=2)
    y = cnnfast.conv2d(x, w, padding=1, stride=2)
    np.testing.assert_array_equal(product.reshape(y.shape), y)
