"""im2col and col2im: against the reference over the convolution cases, by hand, and awkward."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from awkward import ANY_STRIDES, AWKWARD, frozen, plain
from cases import CONVOLUTIONS, DTYPES, Arrays, Case, conv, integers, uniform
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


MANY = [  # more than one task and chunk
    conv("planes", (3, 5, 60, 61), (1, 5, 3, 3), padding=1),
    conv("small-planes", (40, 7, 7, 6), (1, 7, 5, 3), padding=2, stride=(1, 2)),
    conv("bands", (1, 1, 700, 650), (1, 1, 9, 7), padding=3, dilation=(2, 1)),
    conv("gaps", (2, 2, 300, 200), (1, 2, 2, 2), stride=3),
]


@TYPES
@pytest.mark.parametrize("case", MANY, ids=[case.name for case in MANY])
def test_many_tasks(case: Case, dtype: str) -> None:
    """Agree with the reference; bits do not depend on the number of threads."""
    x, columns = data(case, dtype)
    assert_same_bits(*(unfold_and_fold(each, case, x, columns) for each in (cnnfast, reference)))
    columns = uniform(np.random.default_rng(2), columns.shape, dtype)
    with cnnfast.num_threads(1):
        want = unfold_and_fold(cnnfast, case, x, columns)
    for count in (2, 3, 8):
        with cnnfast.num_threads(count):
            assert_same_bits(unfold_and_fold(cnnfast, case, x, columns), want)


@TYPES
@pytest.mark.parametrize("memory", ANY_STRIDES)
def test_awkward_out_is_filled_and_returned(memory: str, dtype: str) -> None:
    for case in CONVOLUTIONS[:4]:
        x, columns = data(case, dtype)
        want = unfold_and_fold(cnnfast, case, x, columns)
        outs = {name: ANY_STRIDES[memory](np.full_like(a, np.nan)) for name, a in want.items()}
        size, options = case.shapes["x"][2:], window(case)
        assert cnnfast.im2col(x, **options, out=outs["columns"]) is outs["columns"]
        assert cnnfast.col2im(columns, size, **options, out=outs["image"]) is outs["image"]
        assert_same_bits(outs, want)


def test_out_must_fit() -> None:
    x = np.ones((1, 2, 4, 4))
    columns = cnnfast.im2col(x, 2)
    for out, error, message in (
        (columns[:, :-1], ValueError, "out must have shape"),
        (columns.astype("float32"), TypeError, "out must have dtype"),
        (frozen(columns), ValueError, "read-only"),
    ):
        with pytest.raises(error, match=message):
            cnnfast.im2col(x, 2, out=out)
    with pytest.raises(ValueError, match="out must not overlap cols"):
        cnnfast.col2im(columns, (4, 4), 2, out=columns.reshape(-1)[:32].reshape(x.shape))
