"""How each course names, calls and lays out its layers: the translation of problems into calls.

A `Layer` is one function (or class) of a course: the names it goes by, the arguments it is called
with for a problem, and where in what it returns each answer lies. `LAYERS` is the table of them
all.

Sources: the handouts of Stanford CS231n, assignment 2, of 2016 to 2026; deeplearning.ai, course 4,
week 1; yizt/numpy_neuron_network; the hand-written ConvLayer of hanbt/learn_dl. What a course
decides otherwise than most (the order of axes, a gradient divided by N, what equal maxima get) is
told here and nowhere else, so that a mistake has to be described once for all of them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from .problems import PROBLEMS, Array, Problem

Layout: TypeAlias = Callable[[Array, Problem], Array]
Ties: TypeAlias = tuple[str, ...]

CACHE = "the cache of the forward function"  # stands among arguments in its place
SUBGRADIENTS = ("first", "split", "last")  # all that equal maxima may get, in sum the window's dy


class Output(NamedTuple):
    """One answer: what the course calls it, which it is, and how the course lays it out."""

    name: str
    answer: str
    layout: Layout


@dataclass(frozen=True, eq=False, kw_only=True)
class Layer:
    """One function of a course."""

    course: str
    pattern: str  # the names it goes by, as a regular expression
    parameters: str  # as the course writes them
    returns: str  # as well
    problems: str  # which set of them
    arguments: Callable[[Problem], Sequence[Any]]
    outputs: tuple[Output, ...]
    kept: tuple[Output, ...] = ()  # answers that it leaves in its last argument, a dict
    accepts: Callable[[Problem], bool] = lambda p: True
    invoke: Callable[[Any, Sequence[Any]], Any] = lambda function, arguments: function(*arguments)
    forward: Layer | None = None  # whose cache it takes
    documented_cache: Callable[[Problem], Any] | None = None  # of that forward function
    ties: Ties = SUBGRADIENTS
    keeps_dtype: bool = True
    mode: str = ""
    argument_names: tuple[str, ...] = ()  # where they are not the parameters

    def all_problems(self) -> list[Problem]:
        """Return the problems it is asked, in their order."""
        return [p for p in PROBLEMS[self.problems] if self.accepts(p)]

    def fits(self, function: Any) -> bool | None:
        """Tell whether a function can be called as the course calls this one; None: who knows."""
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            return None
        places = [q for q in parameters if q.kind in (q.POSITIONAL_ONLY, q.POSITIONAL_OR_KEYWORD)]
        needed = sum(q.default is q.empty for q in places)
        any_number = any(q.kind is q.VAR_POSITIONAL for q in parameters)
        given = len(self.parameters.split(","))
        return needed <= given and (any_number or given <= len(places))

    @property
    def count(self) -> int:
        """How many values it returns, those that nobody checks included."""
        return self.returns.count(",") + 1 if self.returns.startswith("(") else len(self.outputs)

    @property
    def names(self) -> Sequence[str]:
        """What its arguments are called."""
        return self.argument_names or self.parameters.split(", ")

    def partner(self, name: str) -> str:
        """Return the name of the forward function beside a backward function of this name."""
        return re.sub("_alt$", "", name).replace("backward", "forward")


# Layouts: from NCHW, FCHW and vectors to what a course has.


def same(a: Array, p: Problem) -> Array:
    """As it is."""
    return a


def nhwc(a: Array, p: Problem) -> Array:
    """Channels last."""
    return a.transpose(0, 2, 3, 1) if a.ndim == 4 else a


def hwcf(a: Array, p: Problem) -> Array:
    """Weights with the filters last."""
    return a.transpose(2, 3, 1, 0) if a.ndim == 4 else a


def last_of_four(a: Array, p: Problem) -> Array:
    """A vector as (1, 1, 1, F)."""
    return a.reshape(1, 1, 1, -1)


def rows(a: Array, p: Problem) -> Array:
    """Each image as a vector; a weight or a bias as it is."""
    return a.reshape(len(a), -1) if a.ndim == 4 else a


def first_image(a: Array, p: Problem) -> Array:
    """The one image, without the axis of images."""
    return a[0] if a.ndim == 4 else a


def per_channel(a: Array, p: Problem) -> Array:
    """A vector as (1, C, 1, 1)."""
    return a.reshape(1, -1, 1, 1)


# The table grows by these two.

LAYERS: list[Layer] = []


def layer(course: str, pattern: str, parameters: str, returns: str, **more: Any) -> Layer:
    """Add a function to the table."""
    found = Layer(course=course, pattern=pattern, parameters=parameters, returns=returns, **more)
    LAYERS.append(found)
    return found


def outputs(layouts: Mapping[str, Layout] | Layout, **answers: str) -> tuple[Output, ...]:
    """Say which answers a function returns, by the course's names and in the course's order."""
    if not isinstance(layouts, Mapping):
        layouts = dict.fromkeys(("y", "dx", "dw", "db"), layouts)
    return tuple(Output(name, answer, layouts[answer]) for name, answer in answers.items())


# Stanford CS231n: NCHW, parameters in a dictionary, (out, cache).

CS231N = "cs231n"
GRADIENTS = {"dx": "dx", "dw": "dw", "db": "db"}


def _cs231n_conv(p: Problem) -> Sequence[Any]:
    return p.x, p.w, p.b, {"stride": p.stride[0], "pad": p.padding[0]}


def _cs231n_pool(p: Problem) -> Sequence[Any]:
    height, width = p.kernel
    return p.x, {"pool_height": height, "pool_width": width, "stride": p.stride[0]}


def _cs231n_norm(p: Problem, extra: str, gamma: Layout) -> Sequence[Any]:
    param: dict[str, Any] = {}
    if extra == "bn":
        param["mode"] = "train" if _training(p) else "test"
    if p.running is not None:
        param["running_mean"], param["running_var"] = p.running
    groups = [p.groups] if extra == "gn" and p.x.ndim == 4 else []
    return p.x, gamma(p.w, p), gamma(p.b, p), *groups, param


def _fits(p: Problem) -> bool:
    return p.topic != "misfit"


def _uniform(p: Problem) -> bool:
    return p.uniform


def _unpadded(p: Problem) -> bool:
    return p.uniform and p.padding == (0, 0)


def _tiles(p: Problem) -> bool:
    return _unpadded(p) and p.square and p.kernel == p.stride and _fits(p)


def _training(p: Problem) -> bool:
    return p.topic != "test"


def _cs231n_pair(
    pattern: str, parameters: str, problems: str, arguments: Callable[[Problem], Any], **more: Any
) -> None:
    """Add a forward function that returns (out, cache) and the backward one that takes it."""
    gradients = more.pop("gradients", GRADIENTS)
    layouts = more.pop("layouts", same)
    kept = tuple(Output(name, name, same) for name in more.pop("kept", ()))
    cache = more.pop("cache", arguments)
    backward_pattern = pattern.replace("forward", "backward")
    about: dict[str, Any] = {"problems": problems, **more}
    forward = layer(
        *(CS231N, pattern, parameters, "(out, cache)"),
        arguments=arguments,
        outputs=outputs(same, out="y"),
        kept=kept,
        **about,
    )
    accepts = about.pop("accepts", _training)
    names = ", ".join(gradients)
    layer(
        *(CS231N, backward_pattern, "dout, cache", f"({names})" if len(gradients) > 1 else names),
        arguments=lambda p: (p.dy, CACHE),
        outputs=outputs(layouts, **gradients),
        forward=forward,
        documented_cache=cache,
        accepts=lambda p: accepts(p) and _training(p),
        **about,
    )


for kinds, accepted in (
    ("naive|fast|strides", _uniform),
    ("im2col", lambda p: p.uniform and p.square and _fits(p)),
):
    _cs231n_pair(
        f"conv_forward_({kinds})", "x, w, b, conv_param", "conv", _cs231n_conv, accepts=accepted
    )
for kinds, accepted in (
    ("naive|fast", _unpadded),
    ("im2col", lambda p: _unpadded(p) and _fits(p)),
    ("reshape", _tiles),
):
    _cs231n_pair(
        *(f"max_pool_forward_({kinds})", "x, pool_param", "max_pool", _cs231n_pool),
        accepts=accepted,
        gradients={"dx": "dx"},
    )
_cs231n_pair("affine_forward", "x, w, b", "affine", lambda p: (p.x, p.w, p.b))
_cs231n_pair(
    *("relu_forward", "x", "relu", lambda p: (p.x,)),
    cache=lambda p: p.x,
    gradients={"dx": "dx"},
)
RUNNING = "running_mean", "running_var"
GAMMA_BETA = {"dx": "dx", "dgamma": "dw", "dbeta": "db"}
CHANNELS_SECOND = {"dx": same, "dw": per_channel, "db": per_channel}
for name, parameters, problems, short in (
    ("batchnorm_forward(_alt)?", "x, gamma, beta, bn_param", "batch_norm", "bn"),
    ("layernorm_forward", "x, gamma, beta, ln_param", "layer_norm", "ln"),
    ("spatial_batchnorm_forward", "x, gamma, beta, bn_param", "spatial_batch_norm", "bn"),
    ("spatial_groupnorm_forward", "x, gamma, beta, G, gn_param", "group_norm", "gn"),
):
    per_image = short == "gn"
    _cs231n_pair(
        *(name, parameters, problems),
        partial(_cs231n_norm, extra=short, gamma=per_channel if per_image else same),
        cache=None,
        gradients=GAMMA_BETA,
        layouts=CHANNELS_SECOND if per_image else same,
        kept=RUNNING if short == "bn" else (),
    )
for name in ("softmax_loss", "svm_loss"):
    layer(
        *(CS231N, name, "x, y", "(loss, dx)"),
        problems=name,
        arguments=lambda p: (p.x, p.labels),
        outputs=outputs(same, loss="y", dx="dx"),
    )


# yizt/numpy_neuron_network: NCHW, weights (C, D, k1, k2), no cache; dK and db are divided by N.

yizt = partial(layer, "numpy_neuron_network", keeps_dtype=False)


def _over_n(layout: Layout) -> Layout:
    return lambda a, p: layout(a, p) / len(p.x)


def _channels_first(a: Array, p: Problem) -> Array:
    return a.swapaxes(0, 1) if a.ndim == 4 else a


YIZT_GRADIENTS = {
    "dx": same,
    "dw": _over_n(_channels_first),
    "db": _over_n(same),
}

yizt(
    *("conv_forward", "z, K, b, padding, strides", "z of the next layer"),
    problems="conv",
    arguments=lambda p: (p.x, _channels_first(p.w, p), p.b, p.padding, p.stride),
    outputs=outputs(same, result="y"),
    accepts=_fits,
)
yizt(
    *("conv_backward", "next_dz, K, z, padding, strides", "(dK, db, dz)"),
    problems="conv",
    arguments=lambda p: (p.dy, _channels_first(p.w, p), p.x, p.padding, p.stride),
    outputs=outputs(YIZT_GRADIENTS, dK="dw", db="db", dz="dx"),
    accepts=_fits,
)
for short, kind in (("max", "max_pool"), ("avg", "avg_pool")):
    yizt(
        *(f"{short}_pooling_forward(_bak)?", "z, pooling, strides, padding", "the result"),
        problems=kind,
        arguments=lambda p: (p.x, p.kernel, p.stride, p.padding),
        outputs=outputs(same, result="y"),
    )
    yizt(
        *(f"{short}_pooling_backward(_bak)?", "next_dz, z, pooling, strides, padding", "dz"),
        problems=kind,
        arguments=lambda p: (p.dy, p.x, p.kernel, p.stride, p.padding),
        outputs=outputs(same, dz="dx"),
    )
    yizt(
        *(f"global_{short}_pooling_forward", "z", "the result"),
        problems=f"global_{kind}",
        arguments=lambda p: (p.x,),
        outputs=outputs(lambda a, p: a.reshape(a.shape[:2]), result="y"),
    )
    yizt(
        *(f"global_{short}_pooling_backward", "next_dz, z", "dz"),
        problems=f"global_{kind}",
        arguments=lambda p: (p.dy[:, :, 0, 0], p.x),
        outputs=outputs(same, dz="dx"),
    )
yizt(
    *("relu_forward", "z", "the result"),
    problems="relu",
    arguments=lambda p: (p.x,),
    outputs=outputs(same, result="y"),
)
yizt(
    *("relu_backward", "next_dz, z", "dz"),
    problems="relu",
    arguments=lambda p: (p.dy, p.x),
    outputs=outputs(same, dz="dx"),
)
yizt(
    *("fc_forward", "z, W, b", "the result"),
    problems="affine",
    arguments=lambda p: (rows(p.x, p), p.w, p.b),
    outputs=outputs(same, result="y"),
)
yizt(
    *("fc_backward", "next_dz, W, z", "(dw, db, dz)"),
    problems="affine",
    arguments=lambda p: (p.dy, p.w, rows(p.x, p)),
    outputs=outputs(
        {"dw": _over_n(same), "db": _over_n(same), "dx": rows}, dw="dw", db="db", dz="dx"
    ),
)


# deeplearning.ai: NHWC, weights (f, f, C, F), square windows, results always float64.

deeplearning = partial(layer, "deeplearning.ai", keeps_dtype=False)
EVERY_TIED = ("all", *SUBGRADIENTS)  # its create_mask_from_window marks every maximum
CHANNELS_LAST = {"y": nhwc, "dx": nhwc, "dw": hwcf, "db": last_of_four}


def _square(p: Problem) -> bool:
    return p.square and p.uniform


def _hparameters(p: Problem) -> dict[str, int]:
    return {"stride": p.stride[0], "pad": p.padding[0]}


def _nhwc_conv(p: Problem) -> Sequence[Any]:
    return nhwc(p.x, p), hwcf(p.w, p), last_of_four(p.b, p), _hparameters(p)


def _nhwc_pool(p: Problem) -> Sequence[Any]:
    return nhwc(p.x, p), {"f": p.kernel[0], "stride": p.stride[0]}


deeplearning(
    *("zero_pad", "X, pad", "X_pad"),
    problems="zero_pad",
    arguments=lambda p: (nhwc(p.x, p), p.padding[0]),
    outputs=outputs(nhwc, X_pad="y"),
)
deeplearning(
    *("conv_single_step", "a_slice_prev, W, b", "Z"),
    problems="single_step",
    arguments=lambda p: (nhwc(p.x, p)[0], hwcf(p.w, p)[..., 0], p.b.reshape(1, 1, 1)),
    outputs=outputs(lambda a, p: a.reshape(()) if a.size == 1 else a, Z="y"),
)
conv_forward = deeplearning(
    *("conv_forward", "A_prev, W, b, hparameters", "(Z, cache)"),
    problems="conv",
    arguments=_nhwc_conv,
    outputs=outputs(CHANNELS_LAST, Z="y"),
    accepts=_square,
)
deeplearning(
    *("conv_backward", "dZ, cache", "(dA_prev, dW, db)"),
    problems="conv",
    arguments=lambda p: (nhwc(p.dy, p), CACHE),
    outputs=outputs(CHANNELS_LAST, dA_prev="dx", dW="dw", db="db"),
    forward=conv_forward,
    documented_cache=_nhwc_conv,
    accepts=_square,
)
for mode, kind in (("max", "max_pool"), ("average", "avg_pool")):
    pool_forward = deeplearning(
        *("pool_forward", "A_prev, hparameters, mode", "(A, cache)"),
        problems=kind,
        arguments=lambda p, mode=mode: (*_nhwc_pool(p), mode),
        outputs=outputs(CHANNELS_LAST, A="y"),
        accepts=lambda p: _unpadded(p) and p.square,
        mode=mode,
    )
    deeplearning(
        *("pool_backward", "dA, cache, mode", "dA_prev"),
        problems=kind,
        arguments=lambda p, mode=mode: (nhwc(p.dy, p), CACHE, mode),
        outputs=outputs(CHANNELS_LAST, dA_prev="dx"),
        forward=pool_forward,
        documented_cache=_nhwc_pool,
        accepts=lambda p: _unpadded(p) and p.square,
        ties=EVERY_TIED,
        mode=mode,
    )
deeplearning(
    *("create_mask_from_window", "x", "mask"),
    problems="window_mask",
    arguments=lambda p: (p.x[0, 0],),
    outputs=outputs(lambda a, p: a.reshape(p.kernel), mask="y"),
)
deeplearning(
    *("distribute_value", "dz, shape", "a"),
    problems="distribute",
    arguments=lambda p: (float(p.dy), p.kernel),
    outputs=outputs(lambda a, p: a.reshape(p.kernel), a="y"),
)


# The hand-written classes: one image (C, H, W), width before height, results in attributes.

handwritten = partial(layer, "handwritten_cnn", keeps_dtype=False)


class _Identity:
    """The activator that changes nothing."""

    def forward(self, weighted_input: Any) -> Any:
        return weighted_input

    def backward(self, output: Any) -> Any:
        return 1


def _sizes(p: Problem) -> tuple[int, ...]:
    (channels, height, width), (kernel_height, kernel_width) = p.x.shape[1:], p.kernel
    return width, height, channels, kernel_width, kernel_height


def _conv_layer(p: Problem) -> Sequence[Any]:
    settings = (*_sizes(p), len(p.w), p.padding[0], p.stride[0], _Identity(), 0.001)
    return settings, p.x[0], p.w, p.b, p.dy[0]


def _pool_layer(p: Problem) -> Sequence[Any]:
    return (*_sizes(p), p.stride[0]), p.x[0], p.dy[0]


def _conv_layer_after(steps: str, cls: Any, given: Sequence[Any]) -> Any:
    """Build a ConvLayer, give it weights, and return it after forward, or after both."""
    settings, x, w, b, dy = given
    built = cls(*settings)
    for filter_, weights, bias in zip(built.filters, w, b, strict=True):
        filter_.weights, filter_.bias = weights, bias
    built.forward(x)
    if steps == "forward":
        return built.output_array
    built.backward(x, dy, _Identity())
    weights_grad = np.array([filter_.weights_grad for filter_ in built.filters])
    bias_grad = np.array([filter_.bias_grad for filter_ in built.filters])
    return built.delta_array, weights_grad, bias_grad


def _pool_layer_after(steps: str, cls: Any, given: Sequence[Any]) -> Any:
    """Build a MaxPoolingLayer, and return its result after forward, or after both."""
    settings, x, dy = given
    built = cls(*settings)
    built.forward(x)
    if steps == "forward":
        return built.output_array
    built.backward(x, dy)
    return built.delta_array


CONV_LAYER = (
    "input_width, input_height, channel_number, filter_width, filter_height, filter_number,"
    " zero_padding, stride, activator, learning_rate"
)
POOL_LAYER = "input_width, input_height, channel_number, filter_width, filter_height, stride"
ONE_IMAGE: dict[str, Layout] = {"y": first_image, "dx": first_image, "dw": same, "db": same}

for steps, found in (
    ("forward", {"output_array": "y"}),
    ("backward", {"delta_array": "dx", "weights_grad": "dw", "bias_grad": "db"}),
):
    handwritten(
        *("ConvLayer", CONV_LAYER, f"attributes {', '.join(found)}"),
        problems="one_image_conv",
        arguments=_conv_layer,
        argument_names=("settings", "input_array", "weights", "bias", "sensitivity_array"),
        outputs=outputs(ONE_IMAGE, **found),
        accepts=_uniform,
        invoke=partial(_conv_layer_after, steps),
        mode=steps,
    )
for steps, found in (("forward", {"output_array": "y"}), ("backward", {"delta_array": "dx"})):
    handwritten(
        *("MaxPoolingLayer", POOL_LAYER, f"attribute {', '.join(found)}"),
        problems="one_image_max_pool",
        arguments=_pool_layer,
        argument_names=("settings", "input_array", "sensitivity_array"),
        outputs=outputs(ONE_IMAGE, **found),
        accepts=_unpadded,
        invoke=partial(_pool_layer_after, steps),
        mode=steps,
    )
