"""What holds for every function of the library, once; each family of functions subclasses it.

`functions` names the functions of a family, `bound` says how exact they are on random data. The
variants that the tests ask for (`variant`: every case, the others: few) come from `conftest.py`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import numpy as np
import pytest
from awkward import ANY_STRIDES, AWKWARD, frozen, plain
from cases import FILLS, WIDTHS, Arrays, Case, Variant, variants

import cnnfast
from cnnfast import reference

THREADS = 8
STEP = 1e-6  # of finite differences
SUBNORMALS = 1e5  # by which sums of rounded subnormal numbers may be off


def run(library: ModuleType, variant: Variant, inputs: Arrays) -> Arrays:
    """Call inference, forward and backward of a case on read-only inputs; all results by name."""
    before = {name: array.tobytes() for name, array in inputs.items()}
    inputs = {name: frozen(array) for name, array in inputs.items()}
    results = named(("y", "indices"), infer(library, variant, inputs))
    results["forward"], cache = forward(library, variant, inputs)
    results |= backward(library, variant, inputs["dy"], cache)
    assert before == {name: array.tobytes() for name, array in inputs.items()}, "input changed"
    return results


def infer(library: ModuleType, variant: Variant, inputs: Arrays, **more: object) -> object:
    arrays = [array for name, array in inputs.items() if name != "dy"]
    options = variant.options | variant.case.inference_only | more
    return getattr(library, variant.case.function)(*arrays, **options)


def forward(library: ModuleType, variant: Variant, inputs: Arrays) -> tuple[np.ndarray, object]:
    arrays = [a for name, a in inputs.items() if name != "dy" and not name.startswith("running")]
    return getattr(library, variant.case.function + "_forward")(*arrays, **variant.options)


def backward(library: ModuleType, variant: Variant, dy: np.ndarray, cache: object) -> Arrays:
    function = getattr(library, variant.case.function + "_backward")
    names = ("dx", *("d" + name for name in list(variant.case.shapes)[1:3]))
    return named(names, function(dy, cache, **variant.case.backward_only))


def named(names: tuple[str, ...], results: object) -> Arrays:
    results = results if isinstance(results, tuple) else (results,)
    return {name: array for name, array in zip(names, results, strict=False) if array is not None}


def finite_part(array: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(array), array, 0)


def largest(array: np.ndarray) -> float:
    return float(np.max(abs(array), initial=0))


def assert_same_bits(got: Arrays, want: Arrays) -> None:
    assert_close(got, want, dict.fromkeys(want, 0.0))
    for name, array in got.items():
        same = array.tobytes() == want[name].tobytes()
        assert same or np.isnan(array).any(), f"{name} differs in the sign of a zero"


def assert_close(got: Arrays, want: Arrays, bounds: dict[str, float]) -> None:
    """Check names, types, shapes, where NaN and Inf stand, and that no error exceeds its bound."""
    assert got.keys() == want.keys()
    for name, array in got.items():
        assert type(array) is np.ndarray, name
        assert (array.dtype, array.shape) == (want[name].dtype, want[name].shape), name
        np.testing.assert_allclose(array, want[name], rtol=0, atol=bounds[name], err_msg=name)


def length(array: np.ndarray) -> float:
    """Return the L2 norm of the finite part, of subnormal numbers too."""
    numbers = finite_part(array).astype(float)
    scale = largest(numbers) or 1.0
    with np.errstate(under="ignore"):
        return scale * float(np.linalg.norm(numbers / scale))


def assert_near(got: Arrays, want: Arrays, error: float) -> None:
    """Check names, types, shapes, where NaN and Inf stand, and the relative L2 error."""
    assert_close(got, want, {k: float(np.finfo(v.dtype).max) for k, v in want.items()})
    for name, array in got.items():
        least = SUBNORMALS * float(np.finfo(array.dtype).smallest_subnormal)
        off = length(finite_part(array).astype(float) - finite_part(want[name]))
        assert off <= error * length(want[name]) + least, name


class Contract:
    """The tests that all functions share."""

    functions: tuple[str, ...]
    never_special: tuple[str, ...] = ()  # inputs for which NaN and Inf may take several ways

    def bound(self, case: Case, inputs: Arrays, name: str, want: np.ndarray) -> float:
        """Return the largest error allowed in the result of this name; all numbers are finite.

        None, unless a family says how much and why.
        """
        return 0.0

    def check(self, variant: Variant, inputs: Arrays, exact: bool) -> None:
        """Compare the library with its reference; or a refusal with its reason."""
        if reason := variant.refusal():
            with pytest.raises(ValueError, match=re.escape(reason)):
                run(cnnfast, variant, inputs)
            return
        got, want = run(cnnfast, variant, inputs), run(reference, variant, inputs)
        if variant.error:
            assert_near(got, want, variant.error)
        elif exact:
            assert_same_bits(got, want)
        else:
            case, finite = variant.case, {k: finite_part(v) for k, v in inputs.items()}
            bounds = {k: self.bound(case, finite, k, finite_part(v)) for k, v in want.items()}
            assert_close(got, want, bounds)

    @pytest.mark.parametrize("fill", FILLS)
    def test_agrees_with_reference(self, variant: Variant, fill: str) -> None:
        exact = variant.case.exact and fill != "uniform"
        self.check(variant, variant.inputs(fill), exact)

    def test_every_width(self, widths: Variant) -> None:
        for width in WIDTHS:
            wide = dataclasses.replace(widths, case=widths.case.with_width(width))
            self.check(wide, wide.inputs(), wide.case.exact)

    @pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf], ids=["nan", "inf", "-inf"])
    def test_special_values_go_where_the_formula_sends_them(
        self, special_case: Variant, special: float
    ) -> None:
        inputs = special_case.inputs()
        for name in inputs.keys() - self.never_special:
            clean = inputs[name]
            for place in {0, clean.size // 2, clean.size - 1}:
                spoilt = clean.copy()
                spoilt.flat[place] = special
                with np.errstate(all="ignore"):
                    self.check(special_case, inputs | {name: spoilt}, special_case.case.exact)

    @pytest.mark.parametrize("memory", AWKWARD)
    def test_awkward_input_gives_the_same_bits(self, typical: Variant, memory: str) -> None:
        inputs = typical.inputs("uniform")
        awkward = {name: AWKWARD[memory](array) for name, array in inputs.items()}
        copies = {name: plain(array) for name, array in awkward.items()}
        want = run(cnnfast, typical, copies)
        for name, array in awkward.items():
            assert_same_bits(run(cnnfast, typical, copies | {name: array}), want)
        assert_same_bits(run(cnnfast, typical, awkward), want)

    def test_empty_batch_gives_zero_gradients(self, empty: Variant) -> None:
        for name, array in run(cnnfast, empty, empty.inputs()).items():
            if name in ("y", "forward", "indices", "dx"):
                assert array.shape[0] == 0, name
            else:
                assert array.size, name
                assert not array.any(), name

    def test_cache_is_immutable_and_copies_nothing(self, typical: Variant) -> None:
        inputs = typical.inputs()
        _, cache = forward(cnnfast, typical, inputs)
        fields = getattr(cache, "_fields", None) or [f.name for f in dataclasses.fields(cache)]
        for name in fields:
            value = getattr(cache, name)
            with pytest.raises(AttributeError):
                setattr(cache, name, value)
            with pytest.raises(AttributeError):
                setattr(cache, f"other_{name}", value)
            if name in inputs:
                assert np.shares_memory(value, inputs[name]), f"cache.{name} is a copy"
            elif isinstance(value, np.ndarray):
                assert not np.array_equal(value, inputs["x"]), f"cache.{name} is a copy of x"

    def test_reshaping_inputs_and_result_in_place_does_not_reach_the_cache(
        self, typical: Variant
    ) -> None:
        inputs = typical.inputs()
        y, cache = forward(cnnfast, typical, inputs)
        want = backward(cnnfast, typical, inputs["dy"], cache)
        for name, array in (inputs | {"y": y}).items():
            if name != "dy" and array.base is None:
                array.resize(array.size, refcheck=False)
        assert_same_bits(backward(cnnfast, typical, inputs["dy"], cache), want)

    def test_numpys_handling_of_floating_point_errors_does_not_matter(
        self, typical: Variant
    ) -> None:
        inputs = typical.inputs("uniform")
        tiny = float(np.finfo(typical.dtype).tiny) ** 0.75
        with np.errstate(all="ignore"):
            inputs = {name: array * array.dtype.type(tiny) for name, array in inputs.items()}
        with np.errstate(all="raise"):
            run(cnnfast, typical, inputs)

    def test_gradients_are_those_of_finite_differences(self) -> None:
        for variant in variants(self.functions, "typical", "depthwise-all"):
            if variant.dtype != "float64":
                continue
            inputs = variant.inputs("uniform")
            _, cache = forward(cnnfast, variant, inputs)
            for name, slope in backward(cnnfast, variant, inputs["dy"], cache).items():
                array = inputs[name[1:]]
                direction = np.random.default_rng(3).uniform(-1, 1, array.shape)
                ahead, behind = (
                    forward(cnnfast, variant, inputs | {name[1:]: array + step * direction})[0]
                    for step in (STEP, -STEP)
                )
                measured = np.sum(inputs["dy"] * (ahead - behind)) / (2 * STEP)
                np.testing.assert_allclose(np.sum(slope * direction), measured, 1e-3, 1e-5, name)

    def test_many_python_threads_get_the_bits_of_one(self) -> None:
        chosen = variants(self.functions, "typical", "depthwise-all")
        work = [(variant, variant.inputs("uniform")) for variant in chosen]
        serial = [run(cnnfast, *each) for each in work]
        with ThreadPoolExecutor(THREADS) as threads:
            parallel = list(threads.map(lambda each: run(cnnfast, *each), work * THREADS))
        for i, results in enumerate(parallel):
            assert_same_bits(results, serial[i % len(work)])

    def test_thread_count_does_not_change_bits(self, typical: Variant) -> None:
        inputs = typical.inputs("uniform")
        with cnnfast.num_threads(1):
            want = run(cnnfast, typical, inputs)
        with cnnfast.num_threads(3):
            assert_same_bits(run(cnnfast, typical, inputs), want)


class WithOut:
    """Functions that can write into an array of the caller."""

    @pytest.mark.parametrize("memory", ANY_STRIDES)
    def test_awkward_out_is_filled_and_returned(self, typical: Variant, memory: str) -> None:
        inputs = typical.inputs("uniform")
        out = ANY_STRIDES[memory](np.full_like(inputs["dy"], np.nan))
        got = named(("y", "indices"), infer(cnnfast, typical, inputs, out=out))
        assert got["y"] is out
        assert_same_bits(got, named(("y", "indices"), infer(cnnfast, typical, inputs)))

    def test_out_of_a_subclass_is_filled_as_plain_memory(self, typical: Variant) -> None:
        class Deceptive(np.ndarray):
            shape = (1, 1)

            def __getitem__(self, key: object) -> np.ndarray:
                return np.zeros(1)

            def reshape(self, *shape: int) -> np.ndarray:
                return np.zeros(shape)

            transpose = reshape

        inputs = typical.inputs("uniform")
        filled = np.full_like(inputs["dy"], np.nan)
        out = filled.view(Deceptive)
        want = named(("y", "indices"), infer(cnnfast, typical, inputs))["y"]
        assert named(("y", "indices"), infer(cnnfast, typical, inputs, out=out))["y"] is out
        np.testing.assert_array_equal(filled, want)


class Products(WithOut, Contract):
    """Functions that add up products of x (N, C, ...) and w, and a bias."""

    def filters(self, case: Case) -> int:
        return case.shapes["w"][0]

    def bound(self, case: Case, inputs: Arrays, name: str, want: np.ndarray) -> float:
        """Return 4 eps K max abs a max abs b, for the K products a * b that are added up."""
        pixels = inputs["dy"].size // self.filters(case)
        channels = case.shapes["x"][1]
        weights = inputs["w"].size
        factors, terms = {
            "dx": (("dy", "w"), weights // channels),
            "dw": (("dy", "x"), pixels),
            "db": (("dy",), pixels),
        }.get(name, (("x", "w"), weights // self.filters(case) + 1))
        product = math.prod(largest(inputs[each]) for each in factors)
        return 4 * float(np.finfo(want.dtype).eps) * terms * product

    @pytest.mark.parametrize("needs", ["", "x", "w", "b", "xw", "bx", "wb", "bwx"])
    def test_only_the_needed_gradients_are_computed(self, typical: Variant, needs: str) -> None:
        inputs = typical.inputs()
        _, cache = forward(cnnfast, typical, inputs)
        function = getattr(cnnfast, typical.case.function + "_backward")
        full = backward(cnnfast, typical, inputs["dy"], cache)
        needed = named(("dx", "dw", "db"), function(inputs["dy"], cache, needs=needs))
        assert_same_bits(needed, {k: v for k, v in full.items() if k[1] in needs})

    def test_without_bias_there_is_no_db(self, typical: Variant) -> None:
        inputs = typical.inputs()
        del inputs["b"]
        _, cache = forward(cnnfast, typical, inputs)
        function = getattr(cnnfast, typical.case.function + "_backward")
        assert function(inputs["dy"], cache)[2] is None
