"""Who is compared: cnnfast, and torch and onnxruntime where they are installed, each at its best.

- torch NCHW, and torch NHWC (channels_last): ``torch.conv2d`` in inference mode; backward through
  ``aten::convolution_backward`` itself, so that no autograd is counted; input, weights and gradient
  are put in channels_last outside the timing.
- onnxruntime (float32, forward): a model of one node with constant weights, which it may pack
  beforehand; input and output bound, so that nothing is copied; its workers stop with each run.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import layers
import numpy as np
import timing
from layers import Arrays, Layer
from numpy.typing import NDArray

import cnnfast

if TYPE_CHECKING:
    import onnxruntime

Array: TypeAlias = NDArray[np.floating]

LAYOUTS = ("NCHW", "NHWC")
DTYPES = ("float32", "float64")
DIRECTIONS = ("forward", "backward")
ONNXRUNTIME = "onnxruntime"
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}  # of the relative L2 difference: same formula


def ours(layout: str) -> str:
    """The name of cnnfast on arrays in this layout."""
    return f"cnnfast {layout}"


def torch(layout: str) -> str:
    """The name of torch on tensors in this layout."""
    return f"torch {layout}"


class Setting(NamedTuple):
    """What is compared, beside the layer."""

    dtype: str
    direction: str  # backward: dx, dw, db
    threads: int

    def __str__(self) -> str:
        return f"{self.direction}, {self.dtype}, threads: {self.threads}"


class Rival(NamedTuple):
    """Something that runs a layer."""

    call: timing.Call
    results: Callable[[Any], tuple[Array, ...]]  # of the call, as arrays in NCHW, for the check


def cnnfast_rival(
    layer: Layer, arrays: Arrays, direction: str, layout: str, algorithm: str = "auto"
) -> Rival:
    """cnnfast in the layout asked for."""
    x, dy = (layers.as_layout(a, layout) for a in (arrays.x, arrays.dy))
    options = {**layer.options, "layout": layout, "algorithm": algorithm}
    order = (0, 1, 2, 3) if layout == "NCHW" else (0, 3, 1, 2)
    if direction == "forward":
        return Rival(
            lambda: cnnfast.conv2d(x, arrays.w, arrays.b, **options),
            lambda y: (y.transpose(order),),
        )
    _, cache = cnnfast.conv2d_forward(x, arrays.w, arrays.b, **options)
    return Rival(
        lambda: cnnfast.conv2d_backward(dy, cache),
        lambda grads: (grads[0].transpose(order), *grads[1:]),
    )


def torch_rival(layer: Layer, arrays: Arrays, direction: str, layout: str) -> Rival:
    """torch, its tensors in NCHW or channels_last."""
    import torch

    memory = torch.contiguous_format if layout == "NCHW" else torch.channels_last
    x, w, dy = (
        torch.from_numpy(a).contiguous(memory_format=memory)
        for a in (arrays.x, arrays.w, arrays.dy)
    )
    b = torch.from_numpy(arrays.b)
    stride, padding, dilation = ([n] * 2 for n in (layer.stride, layer.padding, layer.dilation))
    if direction == "forward":
        return Rival(
            lambda: torch.conv2d(x, w, b, stride, padding, dilation, layer.groups),
            lambda y: (y.numpy(),),
        )
    gradients = torch.ops.aten.convolution_backward
    rest = ([layer.F], stride, padding, dilation, False, [0, 0], layer.groups, (True, True, True))
    return Rival(
        lambda: gradients(dy, x, w, *rest),
        lambda grads: tuple(grad.numpy() for grad in grads),
    )


def onnx_rival(layer: Layer, arrays: Arrays, threads: int) -> Rival:
    """onnxruntime with input and output bound."""
    binding = (session := onnx_session(layer, arrays, threads)).io_binding()
    binding.bind_cpu_input("x", arrays.x)
    binding.bind_output("y")
    return Rival(
        lambda: session.run_with_iobinding(binding),
        lambda _: tuple(binding.copy_outputs_to_cpu()),
    )


def onnx_session(layer: Layer, arrays: Arrays, threads: int) -> onnxruntime.InferenceSession:
    """A model of one convolution, made in memory."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    node = helper.make_node(
        "Conv",
        ["x", "w", "b"],
        ["y"],
        strides=[layer.stride] * 2,
        pads=[layer.padding] * 4,
        dilations=[layer.dilation] * 2,
        group=layer.groups,
    )
    graph = helper.make_graph(
        [node],
        layer.name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, layer.x_shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, layer.y_shape)],
        [numpy_helper.from_array(arrays.w, "w"), numpy_helper.from_array(arrays.b, "b")],
    )
    # Versions that every onnxruntime of the last years reads, whatever onnx writes by default.
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def rivals(
    layer: Layer, arrays: Arrays, setting: Setting, layouts: Sequence[str]
) -> dict[str, Rival]:
    """cnnfast in these layouts, and those others that are installed and can do it."""
    rest = layer, arrays, setting.direction
    found = {ours(layout): cnnfast_rival(*rest, layout) for layout in layouts}
    if has("torch"):
        found |= {torch(layout): torch_rival(*rest, layout) for layout in LAYOUTS}
    if setting.dtype == "float32" and setting.direction == "forward" and has_onnx():
        found[ONNXRUNTIME] = onnx_rival(layer, arrays, setting.threads)
    return found


def has(module: str) -> bool:
    """Whether a module is installed; importing it is put off until it is used."""
    return importlib.util.find_spec(module) is not None


def has_onnx() -> bool:
    return has(ONNXRUNTIME) and has("onnx")


def absences() -> Iterator[str]:
    """A sentence for every rival that is not there."""
    for module in ("torch", ONNXRUNTIME):
        if not has(module):
            yield f"{module} is not installed, so its columns are missing: pip install {module}"
    if has(ONNXRUNTIME) and not has("onnx"):
        yield "onnxruntime needs onnx to be given a model, so it is left out: pip install onnx"


def check(layer: Layer, found: dict[str, Rival], tolerance: float) -> None:
    """Stop if a rival computes something else than the first of them."""
    (first, rival), *others = found.items()
    expected = rival.results(rival.call())
    for name, rival in others:
        for a, e in zip(rival.results(rival.call()), expected, strict=True):
            difference = np.linalg.norm(a - e) / np.linalg.norm(e)
            if not difference < tolerance:
                raise SystemExit(
                    f"{layer.name}: {name} and {first} differ by {difference:.1e} (relative L2)"
                )


@contextlib.contextmanager
def threads(count: int, inference: bool = True) -> Iterator[None]:
    """Equal thread counts, and torch, unless it is to learn, in the mode with least bookkeeping."""
    if not has("torch"):
        with timing.threads(count):
            yield
        return
    import torch

    torch.set_num_threads(count)
    with timing.threads(count), torch.inference_mode(inference):
        yield
