"""The table of bad calls: each must end in the right exception, with a message that helps.

A row puts something wrong for one or more arguments of a good call, and stands for every function
that has these arguments, in both dtypes and layouts. The whole table runs once, in a process of its
own (this file as a program), so that a crash is an outcome like others. Numbers are those of the
house's catalogue of bad inputs: 1-20 divisors, 21-32 padding, 33-45 giants, 46-54 empty arrays,
55-70 shapes and values, 71-78 types, 83-85 `out`.
"""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np
import pytest
from awkward import AWKWARD, frozen
from cases import DTYPES, LAYOUTS, Arrays, Variant, variants
from contract import forward

import cnnfast

TYPES = tuple(zip(DTYPES, LAYOUTS, strict=True))
SECONDS = 1.0  # within which every bad call must have been turned down
FUNCTIONS = (
    *(name for name in cnnfast.__all__ if name.endswith(("2d", "_forward", "_backward"))),
    *("group_norm", "linear", "im2col", "col2im", "set_num_threads", "num_threads"),
)

Arguments = dict[str, object]
Change = object  # a value, or a function of the good arguments that makes one


@dataclass(frozen=True)
class Row:
    label: str
    error: type[Exception]
    message: str  # a regular expression
    changes: Mapping[str, Change]
    functions: tuple[str, ...]


# A good call of every function.


def good_call(function: str, dtype: str, layout: str | None = None) -> Arguments:
    """Return arguments with which a function works; images are NCHW unless a cache knows better."""
    if function in ("set_num_threads", "num_threads"):
        return {"n": 1}
    if function == "plan_conv2d":
        return {"x_shape": (2, 4, 6, 5), "w_shape": (6, 4, 3, 3)}
    x = np.ones((2, 4, 6, 5), dtype)
    cols = np.zeros(4096, dtype)[:640].reshape(2, 16, 20)
    if function == "im2col":
        return {"x": x, "kernel_size": 2, "out": cols}
    if function == "col2im":
        return {"cols": cols, "output_size": (6, 5), "kernel_size": 2, "out": x}
    base = re.sub("_(forward|backward)$", "", function)
    variant = next(v for v in variants((base,), "plain") if v.layout in (None, layout or "NCHW"))
    variant = Variant(variant.case, dtype, variant.layout, None)
    inputs = variant.inputs()
    if function.endswith("_backward"):
        return {"dy": inputs["dy"], "cache": forward(cnnfast, variant, inputs)[1]}
    inputs["out"] = np.zeros(4096, dtype)[: inputs["dy"].size].reshape(inputs.pop("dy").shape)
    known = parameters(function)
    return {name: array for name, array in inputs.items() if name in known} | variant.case.options


def parameters(function: str) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(getattr(cnnfast, function)).parameters


def bad_call(row: Row, function: str, dtype: str, layout: str) -> Arguments:
    """Return a good call with the changes of a row, its images brought into the layout."""
    choose_layout = "layout" in parameters(function) and "layout" not in row.changes
    arguments = good_call(function, dtype, layout if function.endswith("_backward") else None)
    good = dict(arguments)
    for name, change in row.changes.items():
        arguments[name] = change(good) if inspect.isfunction(change) else change
    if "out" not in row.changes:
        arguments.pop("out", None)
    if choose_layout and layout == "NHWC":
        arguments = {name: channels_last(name, value) for name, value in arguments.items()}
        arguments["layout"] = layout
    return arguments


def channels_last(name: str, value: object) -> object:
    """Return an image, or the shape of one, as NHWC; anything else as it is."""
    if name in ("x", "out") and isinstance(value, np.ndarray) and value.ndim == 4:
        return np.moveaxis(value, 1, -1)
    if name == "x_shape" and isinstance(value, tuple) and len(value) == 4:
        return (value[0], *value[2:], value[1])
    return value


def applies(row: Row, function: str) -> bool:
    """Whether a function has all these arguments, the changed arrays among its required ones."""
    asked = not row.functions or function in row.functions
    return asked and row.changes.keys() <= parameters(function).keys()


# The table.


def rows() -> Iterator[Row]:
    """Yield all rows, those of equal labels numbered."""
    seen: Counter[str] = Counter()
    for part in (_numbers, _paddings, _giants, _empty, _shapes, _values, _types, _outs):
        for row in part():
            seen[row.label] += 1
            nth = seen[row.label]
            yield replace(row, label=f"{row.label}-{nth}") if nth > 1 else row


def bad(
    number: int, error: type[Exception], message: str, functions: str = "", **changes: Change
) -> Row:
    return Row(f"{number}-{'-'.join(changes)}", error, message, changes, tuple(functions.split()))


POOLS = "max_pool2d max_pool2d_forward avg_pool2d avg_pool2d_forward"
CONV = "conv2d conv2d_forward"
TRANSPOSED = "conv_transpose2d conv_transpose2d_forward"


def shown(name: str) -> str:
    """Return what messages call an argument; a lone `n` would say too little."""
    return "num_threads" if name == "n" else name


def got(value: object) -> str:
    return re.escape(f"got {value!r}")


def _numbers() -> Iterator[Row]:
    for number, name, values in (
        (1, "stride", (0,)),
        (2, "stride", ((0, 1), (1, 0))),
        (3, "stride", (-1, (-1, 1))),
        (4, "dilation", (0,)),
        (5, "dilation", (-2, (1, -2))),
        (6, "kernel_size", (0, (0, 2), (2, 0))),
        (7, "kernel_size", (-3,)),
        (11, "groups", (0,)),
        (12, "groups", (-1,)),
        (13, "groups", (-(2**63),)),
        (18, "num_groups", (0, -2)),
        (45, "n", (0, -1)),
    ):
        for value in values:
            message = f"{shown(name)} must be positive, {got(value)}$"
            yield bad(number, ValueError, message, **{name: value})
    for value in ([], ()):
        yield bad(8, ValueError, "kernel_size must have .*entries, got 0", kernel_size=value)
    for name in ("stride", "padding", "dilation", "kernel_size", "output_padding", "output_size"):
        yield bad(9, ValueError, f"{name} must have .*entries, got 3", **{name: (1, 1, 1)})
    no_rows = r"w must not be empty .*\(\d, \d, 0, 3\)"
    kernels = f"{CONV} {TRANSPOSED}"
    yield bad(10, ValueError, no_rows, kernels, w=lambda a: a["w"][:, :, :0])
    no_columns = r"w must not be empty .*\(\d, \d, 3, 0\)"
    yield bad(10, ValueError, no_columns, kernels, w=lambda a: a["w"][..., :0])
    yield bad(14, ValueError, "x has 4 channels.* groups 3", groups=3)
    w = {"w": lambda a: a["w"][:, :1]}
    yield bad(15, ValueError, "w has 6 filters.* groups 4", CONV, groups=4, **w)
    yield bad(16, ValueError, "groups 8", groups=8)
    yield bad(19, ValueError, "4 channels.* num_groups 3", num_groups=3)


def _paddings() -> Iterator[Row]:
    for value in (-1, (-1, 0), ((0, -1), (0, 0))):
        yield bad(21, ValueError, "padding must be non-negative, got .*-1", padding=value)
    yield bad(22, ValueError, "padding must be smaller than the effective kernel", POOLS, padding=2)
    kernel = "kernel.* exceeds the padded input"
    yield bad(23, ValueError, kernel, CONV, x=lambda a: a["x"][:, :, :2])
    yield bad(23, ValueError, kernel, CONV, x=lambda a: a["x"][..., :2])
    yield bad(24, ValueError, kernel, kernel_size=9)
    yield bad(25, ValueError, "padding is too large", padding=2**31)
    yield bad(26, ValueError, "padding must be 'valid', 'same' or ints, got 'foo'", padding="foo")
    yield bad(28, ValueError, "dilation is too large", padding="same", dilation=2**31)
    small = "output_padding must be smaller than stride or dilation"
    yield bad(29, ValueError, small, output_padding=1)
    yield bad(29, ValueError, small, output_padding=(0, 2), stride=2)
    yield bad(30, ValueError, "output_padding must be non-negative, got -1", output_padding=-1)
    yield bad(31, ValueError, "output height must be positive, got -10", TRANSPOSED, padding=9)
    both = "output_padding must be 0 with padding='same'"
    yield bad(31, ValueError, both, padding="same", stride=2, output_padding=1)


def _giants() -> Iterator[Row]:
    large = "(kernel_size|padding|dilation|stride|output_size|output).*too large"
    huge = {"kernel_size": 8608480567731124087, "padding": 1250999896764}
    yield bad(33, ValueError, large, **huge, dilation=1250999896764)
    yield bad(34, ValueError, large, kernel_size=536870912, dilation=1879048192, ceil_mode=True)
    yield bad(35, ValueError, large, **huge, stride=1250999896764)
    giant = {"dilation": 1879048192, "padding": 1250999896764}
    yield bad(36, ValueError, large, output_size=(536870912, 536870912), **giant)
    yield bad(37, ValueError, large, "im2col col2im", padding=2**63 - 2, stride=2**63 - 1)
    for name in ("stride", "padding", "dilation", "kernel_size", "groups", "num_groups", "n"):
        message = f"{shown(name)} is too large: .*got 18446744073709551616"
        yield bad(38, ValueError, message, **{name: 2**64})
    yield bad(39, ValueError, "cols|output_size", output_size=(1879048192, 1879048192))
    negative = r"output_size must be positive, got \(6, -5\)"
    yield bad(40, ValueError, negative, output_size=(6, -5))
    wide = {"x": lambda a: np.broadcast_to(a["x"][:1, :1, :1, :1], (2**19, 4, 2**19, 2**19))}
    deep = {"w": lambda a: np.broadcast_to(a["w"][:1, :1], (64, 4, 3, 3)), "b": None}
    yield bad(42, ValueError, "too large", CONV, **wide, **deep)
    deep = {"w": lambda a: np.broadcast_to(a["w"][:1, :1], (4, 64, 3, 3)), "b": None}
    yield bad(42, ValueError, "too large", TRANSPOSED, **wide, **deep)
    yield bad(42, ValueError, "too large", "im2col", **wide | {"kernel_size": 3})
    nothing = {"x": lambda a: np.broadcast_to(a["x"][:1, :1, :0, :1], (12, 4, 0, 2**40))}
    yield bad(44, ValueError, r"x must not be empty.*\(12,.*0", f"{CONV} {POOLS}", **nothing)
    for name in ("stride", "padding", "kernel_size", "groups", "n"):
        message = f"{shown(name)} is too large: .*got something of type int that cannot be shown"
        yield bad(38, ValueError, message, **{name: 10**5000})
    for name in ("eps", "momentum"):
        yield bad(38, ValueError, f"{name} is too large: 1000", **{name: 10**400})
    giant_shape = {"x_shape": (2**31, 4, 2**31, 2**31)}
    yield bad(39, ValueError, "x_shape|too large", **giant_shape)


def _empty() -> Iterator[Row]:
    images = " ".join(name for name in FUNCTIONS if not name.startswith("linear"))
    none = {"x": lambda a: a["x"][:, :0], "w": lambda a: a["w"][:, :0]}
    yield bad(48, ValueError, "(x|w) must not be empty", **none)
    filters = {"w": lambda a: a["w"][:0], "b": lambda a: a["b"][:0]}
    yield bad(
        49, ValueError, r"w must not be empty.*\(0, 4", f"{CONV} linear linear_forward", **filters
    )
    yield bad(50, ValueError, "x must not be empty.*0", images, x=lambda a: a["x"][:, :, :0])
    yield bad(50, ValueError, "x must not be empty.*0", images, x=lambda a: a["x"][:, :, :, :0])
    yield bad(51, ValueError, r"dy must have shape \(2,.*got \(0,", dy=lambda a: a["dy"][:0])
    hollow = {"x": lambda a: np.ones((3, 0, 0, 2), a["x"].dtype), "padding": ((14, 15), (14, 15))}
    yield bad(52, ValueError, "x must not be empty", POOLS, **hollow)
    yield bad(53, ValueError, "at least one", "batch_norm2d_forward", x=lambda a: a["x"][:0])
    one = "batch_norm2d_forward", {"x": lambda a: a["x"][:1, :, :1, :1]}
    statistics = {
        name: lambda a: np.ones(4, a["x"].dtype) for name in ("running_mean", "running_var")
    }
    yield bad(53, ValueError, "running", one[0], **one[1], **statistics)
    for name in ("running_mean", "running_var"):
        change = {name: lambda a: np.ones(0, a["x"].dtype)}
        yield bad(54, ValueError, rf"{name} .*\(4,\).*\(0,\)", "batch_norm2d", **change)


def _shapes() -> Iterator[Row]:
    images = " ".join(name for name in FUNCTIONS if not name.startswith("linear"))
    for shape in ((), (2,), (2, 2), (2, 2, 2), (2, 2, 2, 2, 2)):
        other = {"x": lambda a, shape=shape: np.ones(shape, a["x"].dtype)}
        yield bad(
            55, ValueError, f"x must have 4 dimensions, .*{re.escape(str(shape))}", images, **other
        )
        if len(shape) != 2:
            only = "linear linear_forward"
            yield bad(55, ValueError, "x must have 2 dimensions", only, **other)
    for shape in ((6, 4), (6, 4, 3), (6, 4, 3, 3, 1)):
        other = {"w": lambda a, shape=shape: np.ones(shape, a["x"].dtype)}
        yield bad(56, ValueError, "w must have 4 dimensions", f"{CONV} {TRANSPOSED}", **other)
    few = r"w expects 3 input channels \(w\.shape\[1\] \* groups\), x has 4"
    yield bad(57, ValueError, few, CONV, w=lambda a: a["w"][:, :3])
    few = r"w expects 3 input channels \(w\.shape\[0\]\), x has 4"
    yield bad(57, ValueError, few, TRANSPOSED, w=lambda a: a["w"][:3])
    yield bad(
        57, ValueError, "w expects 3 .*x has 4", "linear linear_forward", w=lambda a: a["w"][:, :3]
    )
    turned = {"x": lambda a: np.moveaxis(a["x"], 1, -1)}
    yield bad(
        58, ValueError, "w expects 4 input channels.*layout", f"{CONV} {TRANSPOSED}", **turned
    )
    for shape in ((7,), (6, 1), ()):
        want = rf"b must have shape \(6,\), {got(shape)}"
        yield bad(59, ValueError, want, b=lambda a, shape=shape: np.ones(shape, a["x"].dtype))
    for axis in (0, 1, -2, -1):
        less = {"dy": lambda a, axis=axis: np.delete(a["dy"], 0, axis)}
        yield bad(60, ValueError, r"dy must have shape \(.*, got \(", **less)
    for columns in ((2, 15, 20), (2, 16, 19), (16, 20), (2, 16, 20, 1)):
        other = {"cols": lambda a, columns=columns: np.ones(columns, a["cols"].dtype)}
        yield bad(65, ValueError, f"cols .*{re.escape(str(columns))}", **other)
    for name in ("gamma", "beta", "running_mean", "running_var"):
        for shape in ((3,), (5,), (1, 4, 1, 1)):
            change = {name: lambda a, shape=shape: np.ones(shape, a["x"].dtype)}
            yield bad(66, ValueError, rf"{name} must have shape \(4,\), {got(shape)}", **change)
    alone = {"running_mean": lambda a: np.ones(4, a["x"].dtype), "running_var": None}
    yield bad(67, ValueError, "running_var", "batch_norm2d_forward", **alone)
    yield bad(49, ValueError, "w_shape must be positive, got 0", w_shape=(0, 4, 3, 3))
    for name in ("x", "w", "gamma"):
        other_shape = {"cache": lambda a, name=name: forged(a["cache"], name)}
        owners = [f for f in FUNCTIONS if f.endswith("_backward") and f != "linear_backward"]
        owners = [f for f in owners if hasattr(good_call(f, "float32")["cache"], name)]
        message = r"(cache\.\w+|dy) must "
        yield bad(60, ValueError, message, " ".join(owners), **other_shape)
    for value in ((2, 4, 6), (2, 4, 0, 5), (2, 4, -6, 5), (-1, 4, 6, 5)):
        yield bad(55, ValueError, "x_shape must", x_shape=value)


def _values() -> Iterator[Row]:
    for value in (0, 0.0, -1.0, float("nan"), float("inf")):
        yield bad(68, ValueError, rf"eps must be .*{re.escape(str(value))}", eps=value)
    for value in (float("nan"), -0.1, 1.5):
        yield bad(68, ValueError, rf"momentum must be .*{re.escape(str(value))}", momentum=value)
    for name, value in (
        ("layout", "nhwc "),
        ("layout", "CHWN"),
        ("activation", "tanh"),
        ("algorithm", "fastest"),
        ("ties", "last"),
    ):
        yield bad(70, ValueError, f"{name} must be .*{got(value)}", **{name: value})
        yield bad(70, TypeError, f"{name} must be .*got 3", **{name: 3})
    yield bad(70, TypeError, r"algorithm must be .*got \[1\]", algorithm=[1])
    for value in ("float16", "nonsense", None, np.dtype(">f4")):
        message = "dtype must be float32 or float64, got"
        yield bad(71, TypeError, message, "plan_conv2d", dtype=value)
    yield bad(70, ValueError, "needs .*'xq'", needs="xq")
    yield bad(70, TypeError, "needs must be .*got 3", needs=3)


class Broken:
    """Raises from every protocol by which it could be read."""

    def __index__(self) -> int:
        raise RuntimeError("broken index")

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        raise RuntimeError("broken array")


ARRAYS = ("x", "w", "b", "dy", "gamma", "beta", "running_mean", "running_var", "cols")
INTEGERS = (
    *("stride", "padding", "dilation", "kernel_size", "output_size"),
    *("output_padding", "groups", "num_groups", "n"),
)
DTYPES_REFUSED = (
    *("int64", "uint8", "bool", "complex64", "float16", "longdouble", "object", "U3", "M8[s]"),
    "i4,f4",
)


def _types() -> Iterator[Row]:
    for name in ARRAYS:
        images = " ".join(f for f in FUNCTIONS if name != "x" or not f.startswith("linear"))
        for dtype in DTYPES_REFUSED:
            cast = {name: lambda a, name=name, dtype=dtype: np.zeros(a[name].shape, dtype)}
            message = rf"{name} has dtype .*float32 and float64: pass {name}\.astype"
            yield bad(71, TypeError, message, images, **cast)
        if name not in ("x", "cols"):
            mixed = {name: lambda a, name=name: a[name].astype(other(a[name].dtype))}
            message = rf"float(32|64).* {name} is float(32|64): pass {name}\.astype\(np\.float"
            yield bad(72, TypeError, message, **mixed)
        for value in (None, b"abc", "abc", {"a": 1}):
            optional = value is None and name in ("b", "running_mean", "running_var")
            if not optional:
                yield bad(73, TypeError, f"{name} .*{got(value)}", **{name: value})
        yield bad(73, ValueError, name, **{name: [[1.0], [1.0, 2.0]]})
        yield bad(75, RuntimeError, "broken array", **{name: Broken()})
        masked = {name: lambda a, name=name: np.ma.masked_array(a[name])}
        yield bad(76, TypeError, f"{name} .*masked.*fill", **masked)
    for name in ("running_mean", "running_var"):
        yield bad(73, TypeError, f"{name} .*got None", "batch_norm2d", **{name: None})
    for name in INTEGERS:
        optional = {"stride": f"{CONV} {TRANSPOSED} im2col col2im plan_conv2d"}
        for value in (1.0, "2", None, True, np.float64(2), (1, 2.0)):
            if name == "padding" and isinstance(value, str):
                continue
            functions = optional.get(name, "") if value is None else ""
            yield bad(74, TypeError, f"{shown(name)} must be", functions, **{name: value})
        yield bad(75, RuntimeError, "broken index", **{name: Broken()})
    matrix = {"x": lambda a: np.ones((2, 2), a["x"].dtype).view(np.matrix)}
    yield bad(76, ValueError, "x must have 4 dimensions", f"{CONV} {POOLS}", **matrix)
    for name in ("eps", "momentum"):
        for value in ("1", None, True):
            yield bad(74, TypeError, f"{name} must be", **{name: value})
    for name in ("ceil_mode", "count_include_pad", "return_indices"):
        yield bad(74, TypeError, f"{name} must be .*{got('no')}", **{name: "no"})
    for value in (3, "abc", None, (2, 4, 6.0, 5)):
        yield bad(74, TypeError, "x_shape must be", x_shape=value)
    for value in (None, 3, (1, 2)):
        yield bad(73, TypeError, f"cache .*{re.escape(type(value).__name__)}", cache=value)
    foreign = {"cache": lambda a: good_call("group_norm_backward", "float32")["cache"]}
    others = " ".join(name for name in FUNCTIONS if "norm" not in name)
    yield bad(73, TypeError, "cache .*", others, **foreign)


def forged(cache: object, name: str) -> object:
    """Return a cache in which the array of this name has an extent too many."""
    return replace(cache, **{name: np.repeat(getattr(cache, name), 2, axis=-1)})


def other(dtype: np.dtype) -> str:
    return "float64" if dtype == np.float32 else "float32"


def _outs() -> Iterator[Row]:
    yield bad(69, ValueError, "out must have shape", out=lambda a: a["out"][:1])
    wrong = {"out": lambda a: a["out"].astype(other(a["out"].dtype))}
    yield bad(69, TypeError, "out must have dtype float", **wrong)
    yield bad(69, TypeError, "out must be an ndarray, got list", out=lambda a: a["out"].tolist())
    masked = {"out": lambda a: np.ma.masked_array(a["out"])}
    yield bad(76, TypeError, "out is a masked array: fill it", **masked)
    for name in ("gamma", "beta"):
        shared = {
            "running_mean": lambda a, name=name: a[name],
            "running_var": lambda a: np.ones(4, a["x"].dtype),
        }
        message = f"running_mean must not overlap {name}"
        only = "batch_norm2d_forward"
        yield bad(84, ValueError, message, only, **shared, **{name: lambda a, n=name: a[n]})
    yield bad(83, ValueError, "out is read-only", out=lambda a: frozen(a["out"]))
    for name in ("x", "w", "b"):
        overlap = {name: lambda a, name=name: overlapping(a, name), "out": lambda a: a["out"]}
        yield bad(84, ValueError, f"out must not overlap {name}", **overlap)
    itself = {"out": lambda a: a["x"], "w": lambda a: a["w"][:4, :4], "b": lambda a: a["b"][:4]}
    for functions in (CONV, TRANSPOSED):
        yield bad(84, ValueError, "out must not overlap x", functions, padding="same", **itself)
    yield bad(84, ValueError, "out must not overlap x", POOLS, out=lambda a: a["x"], kernel_size=1)
    yield bad(85, ValueError, "out overlaps itself", out=lambda a: repeating(a["out"]))
    swapped, misaligned = AWKWARD["byte-swapped"], AWKWARD["misaligned"]
    yield bad(69, TypeError, "out must have dtype float", out=lambda a: swapped(a["out"]))
    yield bad(85, ValueError, "out is misaligned", out=lambda a: misaligned(a["out"]))


def overlapping(arguments: Arrays, name: str) -> np.ndarray:
    """Return an array like the one of this name that begins on the last cell of `out`."""
    array, out = arguments[name], arguments["out"]
    return out.base[out.size - 1 : out.size - 1 + array.size].reshape(array.shape)


def repeating(array: np.ndarray) -> np.ndarray:
    return np.lib.stride_tricks.as_strided(array, strides=(0, *array.strides[1:]))


TABLE = list(rows())
CALLS = [(row, function) for row in TABLE for function in FUNCTIONS if applies(row, function)]


# Running it.


def main() -> None:
    """Make every bad call; print a line before and an outcome after each."""
    for row, function in CALLS:
        for dtype, layout in TYPES:
            arguments = bad_call(row, function, dtype, layout)
            print(json.dumps([f"{row.label}-{function}", dtype, *_outcome(function, arguments)]))
            sys.stdout.flush()
    print("the end")


def call(function: str, arguments: Arguments) -> None:
    result = getattr(cnnfast, function)(**arguments)
    if isinstance(result, AbstractContextManager):
        with result:
            pass


def _outcome(function: str, arguments: Arguments) -> tuple[str, str, float]:
    start = time.perf_counter()
    try:
        call(function, arguments)
    except BaseException as error:  # whatever it is, it is the outcome
        return type(error).__name__, str(error), time.perf_counter() - start
    return "no error", "", time.perf_counter() - start


@pytest.fixture(scope="module")
def table() -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-W", "ignore", "-X", "faulthandler", __file__]
    return subprocess.run(program, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def outcomes(table: subprocess.CompletedProcess[str]) -> dict[str, list[tuple[str, str, float]]]:
    found: dict[str, list[tuple[str, str, float]]] = {}
    for line in table.stdout.splitlines():
        if line.startswith("["):
            label, _, *outcome = json.loads(line)
            found.setdefault(label, []).append(tuple(outcome))
    return found


def test_the_whole_table_runs_without_a_crash(table: subprocess.CompletedProcess[str]) -> None:
    assert table.returncode == 0, table.stderr
    assert table.stdout.splitlines()[-1] == "the end"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_good_calls_work(function: str, dtype: str) -> None:
    call(function, good_call(function, dtype))


@pytest.mark.parametrize(
    ("row", "function"), CALLS, ids=[f"{row.label}-{function}" for row, function in CALLS]
)
def test_bad_calls(row: Row, function: str, outcomes: dict) -> None:
    label = f"{row.label}-{function}"
    assert len(outcomes.get(label, ())) == len(TYPES), "the process ended here or before"
    for error, message, seconds in outcomes[label]:
        assert error == row.error.__name__, message
        assert re.search(row.message, message), message
        assert seconds < SECONDS


def test_every_row_applies_somewhere() -> None:
    assert {row.label for row in TABLE} == {row.label for row, _ in CALLS}


if __name__ == "__main__":
    main()
