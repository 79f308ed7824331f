"""Poisoned memory for all tests, and variants of the cases for those that ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from cases import variants
from hypothesis import settings

pytest.register_assert_rewrite("contract")
settings.register_profile("tests", deadline=None, database=None, derandomize=True)
settings.load_profile("tests")

CASES_OF = {  # argument of a test: names of the cases it takes, all where there is none
    "variant": (),
    "typical": ("typical", "typical-3x3", "pixel", "depthwise-all", "depthwise-all-32"),
    "widths": ("widths", "depthwise-widths"),
    "empty": ("empty-batch",),
    "special_case": (
        *("typical", "typical-3x3", "windows-in-padding", "same-strided"),
        *("depthwise", "depthwise-all", "depthwise-all-32", "depthwise-times-3"),
    ),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Hand out the variants of the functions that a test class names."""
    functions = getattr(metafunc.cls, "functions", ())
    for argument, names in CASES_OF.items():
        if functions and argument in metafunc.fixturenames:
            metafunc.parametrize(argument, variants(functions, *names), ids=str)


@pytest.fixture(scope="session", autouse=True)
def poisoned_memory() -> Iterator[None]:
    """Let arrays that NumPy leaves unset hold NaN, or the least integer."""

    def poisoned(allocate: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
        def allocate_poisoned(*args: object, **named: object) -> np.ndarray:
            array = allocate(*args, **named)
            if array.dtype.kind in "fi":
                array.fill(np.nan if array.dtype.kind == "f" else np.iinfo(array.dtype).min)
            return array

        return allocate_poisoned

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "empty", poisoned(np.empty))
        patch.setattr(np, "empty_like", poisoned(np.empty_like))
        yield
