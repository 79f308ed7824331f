"""The cases: every list of shapes, options and data that the tests run over, each written once.

A `Case` is one problem, its shapes in NCHW. A `Variant` is a case in one dtype and layout, done by
one implementation of the library's own lists. `variants` multiplies them out.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass, field, replace

import numpy as np

from cnnfast import algorithms, geometry, reference

DTYPES = ("float32", "float64")
LAYOUTS = ("NCHW", "NHWC")
WIDTHS = range(1, 68)  # past four AVX-512 vectors of float32, and every tail on the way
CHANNELS = (1, 3, 5, 16, 33)

Shape = tuple[int, ...]
Options = dict[str, object]
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Case:
    """One problem: a function, the shapes of its arrays in NCHW, and its options."""

    function: str
    name: str
    shapes: dict[str, Shape]
    options: Options = field(default_factory=dict)
    inference_only: Options = field(default_factory=dict)
    backward_only: Options = field(default_factory=dict)
    exact: bool = True  # integers in, the very same bits out

    def shapes_in(self, layout: str | None) -> dict[str, Shape]:
        n, *image = self.shapes["x"]
        last = (*image[1:], image[0]) if layout == "NHWC" else image
        return self.shapes | {"x": (n, *last)}

    def with_width(self, width: int) -> Case:
        """Return the case with another last extent of x, and of the w that multiplies it."""
        resized = ("x", "w") if self.function == "linear" else ("x",)
        wide = {name: (*self.shapes[name][:-1], width) for name in resized}
        return replace(self, shapes=self.shapes | wide)


@dataclass(frozen=True)
class Variant:
    """A case in one dtype and layout by one implementation; None where there is no such choice."""

    case: Case
    dtype: str
    layout: str | None
    algorithm: str | None

    def __str__(self) -> str:
        choices = (self.case.function, self.case.name, self.algorithm, self.dtype, self.layout)
        return "-".join(choice for choice in choices if choice)

    @property
    def error(self) -> float:
        """Return the relative L2 error that the algorithm may have where a direct one has none."""
        return ROUNDING.get(self.algorithm, {}).get(self.dtype, 0.0)

    @property
    def options(self) -> Options:
        choices = {"layout": self.layout, "algorithm": self.algorithm}
        return self.case.options | {name: value for name, value in choices.items() if value}

    def inputs(self, fill: str = "integers") -> Arrays:
        """Return the arrays of the call by name, and dy for its result.

        Integers make sums of 0, on either side of which a ReLU does not do the same: an algorithm
        that rounds gets none.
        """
        if self.error and "activation" in self.case.options:
            fill = "uniform"
        shapes = self.case.shapes_in(self.layout) | {"dy": output_shape(self.case, self.layout)}
        random = np.random.default_rng(2)
        arrays = {name: FILLS[fill](random, shape, self.dtype) for name, shape in shapes.items()}
        if fill == "subnormal":
            arrays["x"] *= np.finfo(self.dtype).smallest_subnormal
        if "running_var" in arrays:
            arrays["running_var"] = abs(arrays["running_var"]) + arrays["x"].dtype.type(0.5)
        return arrays

    def refusal(self) -> str | None:
        """Return why the algorithm cannot do this problem, in its own words."""
        implementations = IMPLEMENTATIONS.get(self.case.function, ())
        chosen = [each for each in implementations if each.name == self.algorithm]
        return chosen[0].why_not(self._problem()) if chosen else None

    def _problem(self) -> object:
        """Return the problem as the library's own selection sees it."""
        make = PROBLEMS[self.case.function]
        shapes = self.case.shapes_in(self.layout)
        known = (
            defaults(self.case.function)
            | self.case.options
            | {"x_shape": shapes["x"], "w_shape": shapes.get("w"), "dtype": self.dtype}
            | {"image": self.case.shapes["x"][2:], "layout": self.layout}
        )
        return make(**{name: known[name] for name in inspect.signature(make).parameters})


def variants(functions: tuple[str, ...], *names: str) -> list[Variant]:
    """Multiply cases, all or those of these names, by dtype, layout and implementation.

    Of cases that are named, only what the implementation can do; a refusal is among all of them.
    """
    return [
        variant
        for case in CASES
        if case.function in functions and (not names or case.name in names)
        for dtype in DTYPES
        for layout in (LAYOUTS if accepts(case.function, "layout") else (None,))
        for algorithm in algorithms_of(case.function)
        for variant in (Variant(case, dtype, layout, algorithm),)
        if not (names and variant.refusal())
    ]


def algorithms_of(function: str) -> tuple[str | None, ...]:
    """Return the names of the implementations of a function; None where it offers no choice."""
    return tuple(each.name for each in IMPLEMENTATIONS.get(function, ())) or (None,)


def accepts(function: str, argument: str) -> bool:
    return argument in inspect.signature(getattr(reference, function)).parameters


def defaults(function: str) -> Options:
    parameters = inspect.signature(getattr(reference, function)).parameters.values()
    return {each.name: each.default for each in parameters}


@functools.cache
def output_shape(case: Case, layout: str | None) -> Shape:
    arrays = [np.ones(shape) for shape in case.shapes_in(layout).values()]
    options = case.options | ({"layout": layout} if layout else {})
    return getattr(reference, case.function)(*arrays, **options).shape


IMPLEMENTATIONS = {
    "conv2d": algorithms.ALGORITHMS,
    "conv_transpose2d": algorithms.ALGORITHMS,
    "max_pool2d": algorithms.POOL_ALGORITHMS,
    "avg_pool2d": algorithms.POOL_ALGORITHMS,
}
ROUNDING = {"winograd": {"float32": 2e-5, "float64": 4e-14}}
PROBLEMS = {
    "conv2d": geometry.convolution,
    "conv_transpose2d": geometry.transposed_convolution,
    "max_pool2d": geometry.pool,
    "avg_pool2d": geometry.pool,
}


# Data.


def integers(random: np.random.Generator, shape: Shape, dtype: str) -> np.ndarray:
    """Return small integers, zero among them: sums of products are exact, and ties abound."""
    return random.integers(-8, 9, shape).astype(dtype)


def uniform(random: np.random.Generator, shape: Shape, dtype: str) -> np.ndarray:
    return random.uniform(-1, 1, shape).astype(dtype)


FILLS = {"integers": integers, "uniform": uniform, "subnormal": integers}


# The list. "plain" takes no options, "typical" takes all
# ("typical-3x3" all that every algorithm can do), "widths" fits every width.


def conv(name: str, x: Shape, w: Shape, *, bias: bool = True, **options: object) -> Case:
    return Case("conv2d", name, {"x": x, "w": w} | ({"b": w[:1]} if bias else {}), options)


def transposed(name: str, x: Shape, w: Shape, *, bias: bool = True, **options: object) -> Case:
    filters = (w[1] * int(options.get("groups", 1)),)
    shapes = {"x": x, "w": w} | ({"b": filters} if bias else {})
    return Case("conv_transpose2d", name, shapes, options)


def linear(name: str, x: Shape, filters: int, *, bias: bool = True, **options: object) -> Case:
    shapes = {"x": x, "w": (filters, x[1])} | ({"b": (filters,)} if bias else {})
    return Case("linear", name, shapes, options)


def max_pool(name: str, x: Shape, ties: str = "first", **options: object) -> Case:
    indices, exact = {"return_indices": True}, ties != "split"
    return Case("max_pool2d", name, {"x": x}, options, indices, {"ties": ties}, exact)


def avg_pool(name: str, x: Shape, **options: object) -> Case:
    return Case("avg_pool2d", name, {"x": x}, options, exact=False)


def norm(function: str, name: str, x: Shape, **options: object) -> Case:
    names = ["gamma", "beta"]
    names += ["running_mean", "running_var"] if function == "batch_norm2d" else []
    return Case(function, name, {"x": x} | dict.fromkeys(names, x[1:2]), options, exact=False)


TYPICAL = {"stride": (2, 1), "padding": ((1, 0), (2, 1)), "dilation": (1, 2), "groups": 2}
TYPICAL_3X3 = {"padding": ((1, 0), (2, 1)), "groups": 2}  # with no stride and dilation
X = (2, 4, 6, 5)

CONVOLUTIONS = [
    conv("plain", X, (6, 4, 3, 3)),
    conv("typical", (2, 4, 7, 6), (6, 2, 3, 2), **TYPICAL, activation="relu"),
    conv("typical-3x3", (2, 6, 11, 9), (4, 3, 3, 3), **TYPICAL_3X3, activation="relu"),
    conv("widths", (2, 3, 3, 1), (5, 3, 3, 3), padding=1),
    conv("pixel", (1, 1, 1, 1), (1, 1, 1, 1)),
    conv("1x1", (2, 5, 4, 3), (3, 5, 1, 1)),
    conv("no-bias", X, (6, 4, 3, 3), bias=False, activation="relu"),
    conv("same", (2, 3, 7, 6), (4, 3, 4, 3), padding="same"),
    conv("same-strided", (2, 3, 7, 8), (4, 3, 4, 2), padding="same", stride=(2, 3)),
    conv("valid", (2, 3, 7, 6), (4, 3, 4, 3), padding="valid"),
    conv("stride-2", (2, 3, 9, 9), (4, 3, 3, 3), stride=2, padding=1),
    conv("stem", (1, 3, 20, 20), (8, 3, 7, 7), stride=2, padding=3),
    conv("few-channels", (3, 3, 11, 40), (20, 3, 3, 3), stride=2, padding=1),
    conv("all-uneven", (2, 3, 9, 8), (4, 3, 2, 4), stride=(2, 3), padding=(1, 2), dilation=(3, 2)),
    conv("windows-in-padding", (2, 2, 4, 5), (3, 2, 3, 3), padding=4),
    conv("padding-on-one-side", (2, 2, 4, 5), (3, 2, 3, 3), padding=((0, 3), (4, 0))),
    conv("gaps-between-windows", (2, 3, 8, 9), (4, 3, 2, 2), stride=4),
    conv("cells-left-over", (2, 3, 8, 7), (4, 3, 2, 2), stride=3),
    conv("kernel-is-image", (2, 3, 5, 4), (4, 3, 5, 4)),
    conv("kernel-above-image", (2, 3, 3, 2), (4, 3, 5, 4), padding=(1, 2)),
    conv("dilated-past-image", (2, 3, 3, 3), (4, 3, 3, 3), dilation=4, padding=4),
    conv("images-abreast", (15, 5, 5, 6), (17, 5, 3, 4), padding=(1, 2), activation="relu"),
    conv(
        "images-abreast-strided", (15, 17, 7, 6), (18, 17, 3, 3), stride=2, padding=((1, 0), (2, 1))
    ),
    conv("depthwise", (2, 5, 6, 7), (5, 1, 3, 3), padding=1, groups=5),
    conv("depthwise-multiplied", (2, 3, 6, 7), (6, 1, 3, 3), stride=2, padding=1, groups=3),
    *(
        conv(f"depthwise-{k}x{k}-stride-{stride}", (2, 35, 17, 39), (35, 1, k, k), **options)
        for k in (3, 5)
        for stride in (1, 2, 3)
        for options in ({"stride": stride, "padding": k // 2, "groups": 35},)
    ),
    conv("depthwise-widths", (2, 3, 3, 1), (6, 1, 3, 3), padding=1, groups=3),
    conv("depthwise-of-vectors", (3, 32, 11, 9), (32, 1, 3, 3), padding=1, groups=32),
    conv(
        "depthwise-all", (2, 5, 9, 8), (10, 1, 3, 2), **TYPICAL | {"groups": 5}, activation="relu"
    ),
    conv("depthwise-all-32", (2, 32, 9, 8), (32, 1, 3, 2), **TYPICAL | {"groups": 32}),
    conv("depthwise-of-one", (2, 1, 20, 37), (18, 1, 3, 3), padding=1),
    conv("depthwise-times-3", (2, 17, 8, 8), (51, 1, 3, 3), stride=2, padding=1, groups=17),
    conv("depthwise-dilated", (2, 4, 15, 34), (4, 1, 3, 3), padding=2, dilation=2, groups=4),
    conv("depthwise-above-image", (2, 3, 3, 2), (3, 1, 7, 5), padding=3, groups=3),
    conv("depthwise-rows", (1, 2, 61, 70), (2, 1, 3, 3), padding=((1, 0), (0, 2)), groups=2),
    conv("empty-batch", (0, 4, 6, 5), (6, 4, 3, 3)),
    *(conv(f"channels-{c}", (2, c, 9, 10), (34 - c, c, 3, 3), padding=1) for c in CHANNELS),
]

TRANSPOSED = [
    transposed("plain", X, (4, 6, 3, 3)),
    transposed("typical", X, (4, 3, 3, 2), **TYPICAL, output_padding=(0, 1), activation="relu"),
    transposed("typical-3x3", (2, 4, 11, 9), (4, 3, 3, 3), **TYPICAL_3X3, activation="relu"),
    transposed("widths", (2, 3, 3, 1), (3, 5, 3, 3), padding=1),
    transposed("pixel", (1, 1, 1, 1), (1, 1, 1, 1)),
    transposed("no-bias", X, (4, 6, 3, 3), bias=False),
    transposed("upsampling", (2, 3, 4, 5), (3, 4, 2, 2), stride=2),
    transposed("output-padded", (2, 3, 4, 5), (3, 4, 3, 3), stride=3, output_padding=(2, 1)),
    transposed("same", (2, 3, 4, 5), (3, 4, 4, 3), padding="same"),
    transposed("same-strided", (2, 3, 4, 5), (3, 4, 4, 3), padding="same", stride=(2, 3)),
    transposed("same-gaps", (2, 3, 4, 5), (3, 4, 1, 2), padding="same", stride=(2, 3)),
    transposed("valid", (2, 3, 4, 5), (3, 4, 2, 2), padding="valid"),
    transposed("gaps-between-windows", (2, 3, 3, 4), (3, 4, 2, 2), stride=4),
    transposed("dilated", (2, 3, 4, 5), (3, 4, 3, 2), dilation=(2, 3), padding=(1, 0)),
    transposed("depthwise", (2, 5, 4, 3), (5, 1, 3, 3), stride=2, groups=5),
    transposed("depthwise-gaps", (2, 32, 7, 6), (32, 1, 2, 3), stride=(3, 4), groups=32),
    transposed("depthwise-times-2", (2, 34, 5, 17), (34, 2, 3, 3), stride=2, padding=1, groups=34),
    transposed("empty-batch", (0, 4, 6, 5), (4, 6, 3, 3)),
    *(transposed(f"channels-{c}", (2, c, 5, 6), (c, 34 - c, 3, 3), padding=1) for c in CHANNELS),
    transposed(
        "images-abreast", (15, 18, 4, 3), (18, 17, 3, 3), stride=2, padding=1, activation="relu"
    ),
]

LINEAR = [
    linear("plain", (2, 4), 6),
    linear("typical", (7, 5), 3, activation="relu"),
    linear("widths", (3, 1), 5),
    linear("pixel", (1, 1), 1),
    linear("no-bias", (7, 5), 3, bias=False),
    linear("features", (5, 600), 9, activation="relu"),
    linear("empty-batch", (0, 5), 3),
    *(linear(f"channels-{c}", (9, c), 34 - c) for c in CHANNELS),
]

POOLS: dict[str, tuple[Shape, Options]] = {
    "plain": (X, {"kernel_size": 2}),
    "typical": (
        (2, 3, 8, 9),
        {"kernel_size": (3, 2), "stride": (2, 3), "padding": ((1, 0), (0, 1)), "dilation": (2, 1)}
        | {"ceil_mode": True},
    ),
    "widths": ((2, 3, 3, 1), {"kernel_size": 3, "stride": 1, "padding": 1}),
    "pixel": ((1, 1, 1, 1), {"kernel_size": 1}),
    "overlapping": ((2, 3, 7, 8), {"kernel_size": 3, "stride": 1}),
    "overlapping-padded": ((2, 3, 7, 8), {"kernel_size": 3, "stride": 2, "padding": 1}),
    "gaps-between-windows": ((2, 3, 7, 8), {"kernel_size": 2, "stride": 3}),
    "same": ((2, 3, 7, 8), {"kernel_size": (3, 2), "padding": "same"}),
    "valid": ((2, 3, 7, 8), {"kernel_size": (3, 2), "padding": "valid"}),
    "dilated": ((2, 3, 7, 8), {"kernel_size": 2, "stride": 1, "dilation": (3, 2)}),
    "ceil": ((2, 3, 7, 8), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    "ceil-padded": ((2, 3, 6, 6), {"kernel_size": 3, "padding": 1, "ceil_mode": True}),
    "ceil-drops-a-window": (
        (2, 3, 4, 4),
        {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True},
    ),
    "whole-image": ((2, 3, 5, 4), {"kernel_size": (5, 4)}),
    "empty-batch": ((0, 4, 6, 5), {"kernel_size": 2}),
    **{f"channels-{c}": ((2, c, 5, 6), {"kernel_size": 2}) for c in CHANNELS},
}

MAX_POOLS = [
    *(max_pool(name, x, **options) for name, (x, options) in POOLS.items()),
    *(
        max_pool(f"ties-{ties}", (2, 3, 6, 7), ties, kernel_size=3, stride=1, padding=1)
        for ties in ("all", "split")
    ),
]

AVG_POOLS = [
    *(avg_pool(name, x, **options) for name, (x, options) in POOLS.items()),
    *(
        avg_pool(f"{name}-without-padding", POOLS[name][0], **POOLS[name][1] | without)
        for name in ("typical", "overlapping-padded", "same", "ceil-padded")
        for without in ({"count_include_pad": False},)
    ),
]

GLOBAL_POOLS = [
    Case(function, name, {"x": x}, exact=function == "global_max_pool2d")
    for function in ("global_max_pool2d", "global_avg_pool2d")
    for name, x in {
        "plain": X,
        "typical": (2, 3, 5, 4),
        "widths": (2, 3, 2, 1),
        "pixel": (1, 1, 1, 1),
        "empty-batch": (0, 4, 6, 5),
    }.items()
]

NORMS = [
    norm("batch_norm2d", "plain", X),
    norm("batch_norm2d", "typical", (3, 4, 5, 6), eps=1e-3),
    norm("batch_norm2d", "widths", (2, 3, 3, 1)),
    *(norm("batch_norm2d", f"channels-{c}", (2, c, 5, 6)) for c in CHANNELS),
    norm("group_norm", "plain", X, num_groups=2),
    norm("group_norm", "typical", (3, 6, 5, 4), num_groups=3, eps=1e-3),
    norm("group_norm", "widths", (2, 4, 3, 1), num_groups=2),
    norm("group_norm", "one-group", (2, 6, 5, 4), num_groups=1),
    norm("group_norm", "group-per-channel", (2, 6, 5, 4), num_groups=6),
    norm("group_norm", "empty-batch", (0, 4, 6, 5), num_groups=2),
]

CASES = [*CONVOLUTIONS, *TRANSPOSED, *LINEAR, *MAX_POOLS, *AVG_POOLS, *GLOBAL_POOLS, *NORMS]
