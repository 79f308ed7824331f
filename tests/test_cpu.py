"""Instruction sets: each that runs here computes the same, and only those can be asked for."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import test_conv
import test_conv_transpose
import test_linear
from cases import FILLS, Variant, accepts, variants

import cnnfast
from cnnfast import cpu

SETS = cpu.available()
OTHER = "neon" if "avx2" in SETS else "avx512"  # of another kind of machine
TIMEOUT = 60  # seconds, of a process that hangs

CONTRACTS = {
    "conv2d": test_conv.TestConv(),
    "conv_transpose2d": test_conv_transpose.TestConvTranspose(),
    "linear": test_linear.TestLinear(),
}
VECTORISED = ("winograd", "depthwise", "tiled", None)
NAMES = (
    *("typical", "typical-3x3", "widths", "1x1", "stem"),
    *("depthwise", "depthwise-all", "depthwise-all-32", "depthwise-times-3"),
    *("same-strided", "stride-2", "upsampling"),
)
VARIANTS = [
    variant
    for variant in variants(tuple(CONTRACTS), *NAMES, *(f"channels-{c}" for c in (3, 16, 33)))
    if variant.algorithm in VECTORISED
]


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = cpu.current()
    yield
    cpu.use(before)
    assert cpu.current() == before


def python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        env=os.environ | environment,
    )


# The same results.


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_every_set_agrees_with_reference(variant: Variant, fill: str, name: str) -> None:
    cpu.use(name)
    contract, exact = CONTRACTS[variant.case.function], variant.case.exact and fill != "uniform"
    contract.check(variant, variant.inputs(fill), exact)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("function", CONTRACTS)
def test_every_set_does_every_width(function: str, name: str) -> None:
    cpu.use(name)
    for variant in variants((function,), "widths", "depthwise-widths"):
        if variant.algorithm in VECTORISED:
            CONTRACTS[function].test_every_width(variant)


def test_all_passes_are_covered() -> None:
    for function in CONTRACTS:
        chosen = [each for each in VARIANTS if each.case.function == function]
        layouts = 2 if accepts(function, "layout") else 1
        assert len({(each.dtype, each.layout) for each in chosen}) == 2 * layouts


@pytest.mark.parametrize(("dtype", "step"), [("float32", 2**-13), ("float64", 2**-28)])
def test_the_set_in_use_is_the_one_that_computes(dtype: str, step: float) -> None:
    x, w, b = (np.array([number], dtype) for number in (1 + step, 1 - step, -1))
    y = {}
    for name in SETS:
        cpu.use(name)
        y[name] = cnnfast.linear(x[None], w[None], b).item()
    for name in set(SETS) & {"avx512", "avx2"}:
        assert y[name] == -(step**2), f"{name} rounds more than once"
    if platform.machine() in ("x86_64", "AMD64"):
        assert y["baseline"] == 0  # the product is rounded to 1


def test_the_set_may_change_during_a_call() -> None:
    program = """
import threading
import numpy as np
import cnnfast
x, w = np.ones((4, 3, 40, 40), np.float32), np.ones((64, 3, 3, 3), np.float32)
want, cache = cnnfast.conv2d_forward(x, w)
gradients = cnnfast.conv2d_backward(want, cache)
done = threading.Event()
def change():
    while not done.is_set():
        for name in cnnfast.cpu.available():
            cnnfast.cpu.use(name)
changer = threading.Thread(target=change)
changer.start()
try:
    for _ in range(30):
        assert np.array_equal(cnnfast.conv2d(x, w), want)
        for got, expected in zip(cnnfast.conv2d_backward(want, cache)[:2], gradients):
            assert np.array_equal(got, expected)
finally:
    done.set()
    changer.join()
"""
    result = python(program)
    assert result.returncode == 0, f"{result.returncode}: {result.stderr[-2000:]}"


# Which.


def test_available_names_each_known_set_once_fastest_first() -> None:
    assert SETS[-1] == "baseline"
    assert list(SETS) == sorted(set(SETS), key=cpu.KNOWN.index)


def test_current_is_the_one_in_use() -> None:
    for name in SETS:
        cpu.use(name)
        assert cpu.current() == name


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ("sse9", ValueError, "name must be one of .*'baseline'.* got 'sse9'"),
        ("", ValueError, "name must be one of .* got ''"),
        ("AVX2", ValueError, "name must be one of .* got 'AVX2'"),
        (OTHER, ValueError, f"name: this cnnfast was built without '{OTHER}', it has .*'baseline'"),
        (None, TypeError, "name must be one of .* got None"),
        (b"avx2", TypeError, "name must be one of .* got b'avx2'"),
        (0, TypeError, "name must be one of .* got 0"),
        (("baseline",), TypeError, "name must be one of"),
    ],
    ids=repr,
)
def test_what_is_refused(bad: object, error: type[Exception], message: str) -> None:
    before = cpu.current()
    with pytest.raises(error, match=message):
        cpu.use(bad)
    assert cpu.current() == before


def test_a_set_that_this_machine_cannot_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu.use("baseline")
    monkeypatch.setitem(cpu._built, "avx512", False)
    assert "avx512" not in cpu.available()
    with pytest.raises(ValueError, match="name: this machine cannot run 'avx512', it runs"):
        cpu.use("avx512")
    assert cpu.current() == "baseline"


# The environment.

ASK = "import cnnfast; print(cnnfast.cpu.current())"


@pytest.mark.parametrize("name", SETS)
def test_the_environment_names_the_set(name: str) -> None:
    assert python(ASK, CNNFAST_CPU=name).stdout == f"{name}\n"


def test_without_it_the_fastest_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CNNFAST_CPU", raising=False)
    assert python(ASK).stdout == python(ASK, CNNFAST_CPU="").stdout == f"{SETS[0]}\n"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("sse9", f"CNNFAST_CPU must be one of {cpu.KNOWN}, got 'sse9'"),
        (OTHER, f"CNNFAST_CPU: this cnnfast was built without '{OTHER}', it has {SETS}"),
    ],
)
def test_what_the_environment_may_not_say(bad: str, message: str) -> None:
    assert python(ASK, CNNFAST_CPU=bad).stderr.splitlines()[-1] == f"ValueError: {message}"
