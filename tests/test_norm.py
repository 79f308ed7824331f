"""batch_norm2d and group_norm: the shared contract, running statistics, and hard data."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from awkward import ANY_STRIDES
from cases import DTYPES, LAYOUTS, Arrays, Case, Variant, norm
from contract import Contract, WithOut, assert_same_bits, largest, run

import cnnfast


class TestNorm(WithOut, Contract):
    functions = ("batch_norm2d", "group_norm")
    never_special = ("gamma",)  # Inf times a mean, or the mean of Infs: both are the formula of dx

    def bound(self, case: Case, inputs: Arrays, name: str, want: np.ndarray) -> float:
        """Return what the largest number may be wrong by; in float64 the reference errs too."""
        if name in ("dgamma", "dbeta"):
            terms = inputs["dy"].size // inputs["gamma"].size
            relative = 5e-6 if want.dtype == np.float32 else max(1e-14, 1e-17 * terms)
        else:
            relative = 6e-7 if want.dtype == np.float32 else 1e-14
        return relative * max(largest(want), largest(inputs["dy"]), largest(inputs["gamma"]))


def test_running_statistics_by_hand() -> None:
    x = np.array([1.0, 3, 5, 7]).reshape(2, 1, 1, 2)  # mean 4, biased variance 5, unbiased 20 / 3
    mean, variance = np.array([10.0]), np.array([3.0])
    y, _ = cnnfast.batch_norm2d_forward(x, np.ones(1), np.zeros(1), mean, variance, momentum=0.25)
    np.testing.assert_allclose(mean, [0.75 * 10 + 0.25 * 4], rtol=1e-15)
    np.testing.assert_allclose(variance, [0.75 * 3 + 0.25 * 20 / 3], rtol=1e-15)
    np.testing.assert_allclose(y.ravel(), np.array([-3, -1, 1, 3]) / np.sqrt(5 + 1e-5), rtol=1e-14)


def test_inference_by_hand() -> None:
    x = np.array([1.0, 3]).reshape(1, 2, 1, 1)
    vectors = ([2.0, 10], [0.0, 1], [0.0, 1], [4.0, 16])  # gamma, beta, mean, variance
    y = cnnfast.batch_norm2d(x, *map(np.array, vectors), eps=0.25)
    np.testing.assert_allclose(y.ravel(), [2 / np.sqrt(4.25), 20 / np.sqrt(16.25) + 1], rtol=1e-15)


def test_groups_by_hand() -> None:
    x = np.array([1.0, 3, 10, 30]).reshape(1, 4, 1, 1)
    y = cnnfast.group_norm(x, np.ones(4), np.arange(4.0), 2, eps=1e-12)
    np.testing.assert_allclose(y.ravel(), [-1, 2, 1, 4], rtol=1e-10)


@pytest.mark.parametrize("memory", ANY_STRIDES)
def test_running_statistics_of_any_strides_are_updated_in_place(memory: str) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (3, 4, 5, 6))
    plain = [np.zeros(4), np.ones(4)]
    awkward = [ANY_STRIDES[memory](array) for array in plain]
    for statistics in (plain, awkward):
        cnnfast.batch_norm2d_forward(x, np.ones(4), np.zeros(4), *statistics)
    np.testing.assert_array_equal(awkward, plain)
    assert plain[0].all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_empty_batch_passes_inference(dtype: str, layout: str) -> None:
    vectors = [np.ones(2, dtype)] * 4
    x = np.ones((0, 2, 2, 2), dtype)
    assert cnnfast.batch_norm2d(x, *vectors, layout=layout).shape == x.shape


def test_an_empty_batch_of_giant_images_takes_no_time() -> None:
    one = np.broadcast_to(np.ones(1), 2**31)
    x = np.broadcast_to(one[:, None, None], (0, 2**31, 4, 4))
    assert cnnfast.group_norm(x, one, one, 1).shape == x.shape
    assert cnnfast.batch_norm2d(x, one, one, one, one).shape == x.shape


def test_failing_leaves_running_statistics_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*arguments: object) -> None:
        raise MemoryError

    mean, variance, ones = np.zeros(4), np.ones(4), np.ones(4)
    monkeypatch.setattr("cnnfast._norm.forward", no_memory)
    with pytest.raises(MemoryError):
        cnnfast.batch_norm2d_forward(np.ones((2, 4, 3, 3)), ones, ones, mean, variance)
    assert not mean.any()
    assert (variance == 1).all()


def test_numbers_may_be_any_real() -> None:
    x, ones = np.arange(8.0).reshape(2, 1, 2, 2), np.ones(1)
    want = cnnfast.group_norm(x, ones, ones, 1, eps=0.5)
    for eps in (Fraction(1, 2), np.longdouble(0.5), np.float32(0.5)):
        np.testing.assert_array_equal(cnnfast.group_norm(x, ones, ones, 1, eps=eps), want)


@pytest.mark.parametrize("function", ["batch_norm2d_forward", "group_norm_forward"])
def test_hard_data(function: str) -> None:
    """A constant channel has variance 0; a variance of 1 must not drown in a mean of 1e8."""
    groups = (1,) if function == "group_norm_forward" else ()
    ones, zeros = np.ones(1, np.float32), np.zeros(1, np.float32)
    normalise = getattr(cnnfast, function)
    y, _ = normalise(np.full((2, 1, 3, 3), 7, np.float32), ones, zeros, *groups)
    np.testing.assert_array_equal(y, np.zeros_like(y))
    x = 1e8 + 8 * np.random.default_rng(0).integers(-2, 3, (1, 1, 16, 16))
    y, _ = normalise(x.astype(np.float32), ones, zeros, *groups)
    np.testing.assert_allclose(y, (x - x.mean()) / x.std(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_large_mean_costs_no_digits(dtype: str, layout: str) -> None:
    """Variance 1 and mean 1e8, in all numbers or in one that is far off."""
    random = np.random.default_rng(0)
    for x in (1e8 + random.standard_normal((3, 2, 40, 41)), random.standard_normal((3, 2, 40, 41))):
        x[1, :, 20, 20] += 1e4
        x = np.ascontiguousarray(x if layout == "NCHW" else x.transpose(0, 2, 3, 1)).astype(dtype)
        axes = (0, 2, 3) if layout == "NCHW" else (0, 1, 2)
        exact = x.astype(np.longdouble)
        want = exact - exact.mean(axes, keepdims=True)
        want /= np.sqrt((want * want).mean(axes, keepdims=True) + np.longdouble(1e-5))
        y, _ = cnnfast.batch_norm2d_forward(x, np.ones(2, dtype), np.zeros(2, dtype), layout=layout)
        bound = 4e-7 if dtype == "float32" else 2e-14 if abs(x).max() < 1e8 else 4e-8
        assert largest(y - want.astype(float)) < bound * largest(want)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_squares_of_large_numbers_do_not_overflow(dtype: str, layout: str) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 4)).astype(dtype)
    large = x * np.dtype(dtype).type(1e30 if dtype == "float32" else 1e140)
    ones, zeros = np.ones(4 if layout == "NHWC" else 3, dtype), np.zeros(1, dtype)
    zeros = zeros.repeat(len(ones))
    dy = x[::-1].copy()
    results = []
    for array in (x, large):
        y, cache = cnnfast.batch_norm2d_forward(array, ones, zeros, eps=1e-30, layout=layout)
        results.append((y, *cnnfast.batch_norm2d_backward(dy, cache)[1:]))
    for got, want in zip(*results[::-1], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


MANY = [  # more than one piece, in each of the ways to cut
    norm("batch_norm2d", "planes", (3, 5, 190, 190)),
    norm("batch_norm2d", "small-planes", (70, 37, 7, 7)),
    norm("batch_norm2d", "many-channels", (9, 530, 5, 5)),
    norm("batch_norm2d", "giant-plane", (1, 1, 300, 301)),
    norm("group_norm", "many", (5, 36, 40, 41), num_groups=4),
    norm("group_norm", "many-channels", (3, 600, 9, 9), num_groups=3),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", MANY, ids=lambda case: f"{case.function}-{case.name}")
def test_many_pieces(case: Case, layout: str, dtype: str) -> None:
    """Agree with the reference; bits depend neither on threads nor on strides."""
    variant = Variant(case, dtype, layout, None)
    inputs = variant.inputs("uniform")
    TestNorm().check(variant, inputs, exact=False)
    with cnnfast.num_threads(1):
        want = run(cnnfast, variant, inputs)
    for count in (2, 3, 8):
        with cnnfast.num_threads(count):
            assert_same_bits(run(cnnfast, variant, inputs), want)
    strided = {name: ANY_STRIDES["strided"](array) for name, array in inputs.items()}
    assert_same_bits(run(cnnfast, variant, strided), want)
    other = {name: ANY_STRIDES["other-layout"](array) for name, array in inputs.items()}
    assert_same_bits(run(cnnfast, variant, other), want)
