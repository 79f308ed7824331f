"""cnnfast against its peers: torch and onnxruntime, on the layers of ``layers.py``.

Every layer runs in one process, cnnfast and its rivals in turn, with equal thread counts; medians,
and ratios above 1 where cnnfast is the faster. Each rival runs at its best:

- torch NCHW, and torch NHWC (channels_last): ``torch.conv2d`` in inference mode; backward through
  ``aten::convolution_backward`` itself, so that no autograd is counted; input, weights and gradient
  are put in channels_last outside the timing.
- onnxruntime (float32, forward): a model of one node with constant weights, which it may pack
  beforehand; input and output bound, so that nothing is copied; its workers stop with each run.

All results are compared before they are timed. The per cent are of the peak of one thread, measured
first with cnnfast's product kernel alone, times the number of threads.

    python benchmarks/peers.py [--threads 1 2] [--dtype float64] [--layout NHWC] [--backward]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import layers
import numpy as np
import timing
from layers import Arrays, Layer
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from timing import Rounds

import cnnfast

if TYPE_CHECKING:
    import onnxruntime

Array: TypeAlias = NDArray[np.floating]

OURS = "cnnfast"
TORCH_LAYOUTS = {"torch NCHW": "NCHW", "torch NHWC": "NHWC"}
ONNXRUNTIME = "onnxruntime"
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}  # of the relative L2 difference: same formula


class Setting(NamedTuple):
    """What is compared, beside the layer."""

    dtype: str
    layout: str  # of cnnfast's arrays
    backward: bool
    threads: int


class Rival(NamedTuple):
    """Something that runs a layer."""

    call: timing.Call
    results: Callable[[Any], tuple[Array, ...]]  # of the call, as arrays in NCHW, for the check


@dataclass(frozen=True)
class Compared:
    """The times of one layer."""

    layer: str
    threads: int
    seconds: dict[str, float]  # by rival
    ratios: dict[str, float]  # of a rival's time to ours
    gflops: float  # ours, in GFLOP/s of the direct formula
    percent: float  # of the peak


def has(module: str) -> bool:
    """Whether a module is installed; importing it is put off until it is used."""
    return importlib.util.find_spec(module) is not None


def our_rival(layer: Layer, arrays: Arrays, setting: Setting) -> Rival:
    """cnnfast in the layout asked for, algorithm "auto"."""
    x, dy = (layers.as_layout(a, setting.layout) for a in (arrays.x, arrays.dy))
    options = {**layer.options, "layout": setting.layout}
    order = (0, 1, 2, 3) if setting.layout == "NCHW" else (0, 3, 1, 2)
    if not setting.backward:
        return Rival(
            lambda: cnnfast.conv2d(x, arrays.w, arrays.b, **options),
            lambda y: (y.transpose(order),),
        )
    _, cache = cnnfast.conv2d_forward(x, arrays.w, arrays.b, **options)
    return Rival(
        lambda: cnnfast.conv2d_backward(dy, cache),
        lambda grads: (grads[0].transpose(order), *grads[1:]),
    )


def torch_rival(layer: Layer, arrays: Arrays, backward: bool, layout: str) -> Rival:
    """torch, its tensors in NCHW or channels_last."""
    import torch

    memory = torch.contiguous_format if layout == "NCHW" else torch.channels_last
    x, w, dy = (
        torch.from_numpy(a).contiguous(memory_format=memory)
        for a in (arrays.x, arrays.w, arrays.dy)
    )
    b = torch.from_numpy(arrays.b)
    stride, padding, dilation = ([n] * 2 for n in (layer.stride, layer.padding, layer.dilation))
    if not backward:
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


def rivals(layer: Layer, arrays: Arrays, setting: Setting) -> dict[str, Rival]:
    """cnnfast, and those that are installed and can do it."""
    found = {OURS: our_rival(layer, arrays, setting)}
    if has("torch"):
        for name, layout in TORCH_LAYOUTS.items():
            found[name] = torch_rival(layer, arrays, setting.backward, layout)
    if setting.dtype == "float32" and not setting.backward and has_onnx():
        found[ONNXRUNTIME] = onnx_rival(layer, arrays, setting.threads)
    return found


def has_onnx() -> bool:
    return has("onnxruntime") and has("onnx")


def absences(setting: Setting) -> Iterator[str]:
    """A sentence for every rival that is not there."""
    for module in ("torch", "onnxruntime"):
        if not has(module):
            yield f"{module} is not installed, so its columns are missing: pip install {module}"
    if has("onnxruntime") and not has("onnx"):
        yield "onnxruntime needs onnx to be given a model, so it is left out: pip install onnx"
    if setting.dtype != "float32" or setting.backward:
        yield "onnxruntime computes float32 forward only, so it is left out"


def check(layer: Layer, found: dict[str, Rival], tolerance: float) -> None:
    """Stop if a rival computes something else than cnnfast."""
    ours = found[OURS].results(found[OURS].call())
    for name, rival in found.items():
        for a, e in zip(rival.results(rival.call()), ours, strict=True):
            difference = np.linalg.norm(a - e) / np.linalg.norm(e)
            if not difference < tolerance:
                raise SystemExit(
                    f"{layer.name}: {name} and cnnfast differ by {difference:.1e} (relative L2)"
                )


def compare(layer: Layer, setting: Setting, peak: float, rounds: Rounds) -> Compared:
    """Check and time one layer."""
    arrays = layers.make(layer, setting.dtype, np.random.default_rng(0))
    found = rivals(layer, arrays, setting)
    check(layer, found, TOLERANCE[setting.dtype])
    calls = {name: rival.call for name, rival in found.items()}
    seconds = timing.interleaved(calls, rounds, timing.pause_for(setting.threads))
    rate = layer.flops * (2 if setting.backward else 1) / seconds[OURS]
    return Compared(
        layer=layer.name,
        threads=setting.threads,
        seconds=seconds,
        ratios={name: s / seconds[OURS] for name, s in seconds.items() if name != OURS},
        gflops=rate / 1e9,
        percent=100 * rate / (peak * setting.threads),
    )


def compare_all(
    table: Sequence[Layer], setting: Setting, peak: float, rounds: Rounds, console: Console
) -> list[Compared]:
    """Compare the layers one after the other under a progress bar."""
    columns = (
        TextColumn("{task.description:24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    compared = []
    with Progress(*columns, console=console, transient=True) as progress, threads(setting.threads):
        bar = progress.add_task("", total=len(table))
        for layer in table:
            progress.update(bar, description=layer.name)
            compared.append(compare(layer, setting, peak, rounds))
            progress.advance(bar)
    return compared


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Equal thread counts, and torch in the mode in which it spends least on bookkeeping."""
    if not has("torch"):
        with timing.threads(count):
            yield
        return
    import torch

    torch.set_num_threads(count)
    with timing.threads(count), torch.inference_mode():
        yield


def report(compared: Sequence[Compared], setting: Setting) -> Table:
    """One line a layer; below them the geometric mean and the lowest of each ratio."""
    direction = "backward (dx, dw, db)" if setting.backward else "forward"
    grid = Table(
        title=f"{direction}, {setting.dtype}, cnnfast in {setting.layout}, threads: "
        f"{setting.threads}\nratios: a rival's time / cnnfast's time",
        title_style="default",
        header_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    grid.add_column("layer", no_wrap=True)
    for heading in ("ms", "GFLOP/s", "% peak", *compared[0].ratios):
        grid.add_column(heading.replace(" ", "\n"), justify="right")
    for c in compared:
        rate = f"{c.gflops:.1f}", f"{c.percent:.0f}"
        grid.add_row(c.layer, f"{c.seconds[OURS] * 1e3:.3f}", *rate, *map(ratio, c.ratios.values()))
    grid.add_section()
    columns = [[c.ratios[name] for c in compared] for name in compared[0].ratios]
    means = [statistics.geometric_mean(column) for column in columns]
    grid.add_row("geometric mean", "", "", "", *map(ratio, means), style="bold")
    grid.add_row("lowest", "", "", "", *map(ratio, map(min, columns)))
    return grid


def ratio(value: float) -> str:
    """A ratio, red where cnnfast is behind."""
    return f"[{'red' if value < 1 else 'green'}]{value:.2f}[/]"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="one table for each")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--layout", choices=("NCHW", "NHWC"), default="NCHW", help="of cnnfast")
    parser.add_argument("--backward", action="store_true", help="backward instead of forward")
    parser.add_argument("--layers", metavar="PATTERN", help="regular expression of layer names")
    parser.add_argument("--seconds", type=float, default=1, help="for each layer, about")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    console = Console()
    table = layers.select(layers.CONVS, options.layers)
    if not table:
        raise SystemExit(f"no layer matches {options.layers!r}; the names stand in layers.py")
    settings = [
        Setting(options.dtype, options.layout, options.backward, n) for n in options.threads
    ]
    for sentence in absences(settings[0]):
        console.print(sentence, highlight=False)
    timing.settle_allocator()
    peak = timing.peak_rate(options.dtype)
    console.print(f"peak (product kernel, one thread, {options.dtype}): {peak / 1e9:.0f} GFLOP/s")
    rounds = Rounds(least=5, seconds=options.seconds)
    record = {"machine": timing.machine(), "peak": peak, "results": []}
    for setting in settings:
        compared = compare_all(table, setting, peak, rounds, console)
        console.print(report(compared, setting))
        record["results"] += [asdict(c) | setting._asdict() for c in compared]
    if options.json:
        options.json.write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
