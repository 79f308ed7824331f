"""The roofline: how fast every layer runs by each algorithm, under the two roofs of the machine.

A layer stands at its intensity: the multiplications and additions of the direct formula for each
byte of x, w and y. Its height is its effective speed, which counts those of the direct formula
whatever the algorithm does. The roofs are the peak of the multiply-add units (cnnfast's product
kernel alone) and, for each intensity, the speed of a copy in memory. An algorithm that multiplies
less than the formula can pass the first, and one whose arrays are still in a cache the second.
torch in its better layout and onnxruntime are drawn where they are installed.

    python benchmarks/roofline.py [--layers PATTERN] [--dtype float64] [--direction backward]
                                  [--threads 2] [--out FILE]
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import layers
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import rivals
import terminal
import timing
from layers import Layer
from matplotlib.axes import Axes
from rich.console import Console
from rich.table import Table
from rivals import DIRECTIONS, DTYPES, LAYOUTS, ONNXRUNTIME, Rival, Setting
from timing import Rounds

import cnnfast
from cnnfast.algorithms import ALGORITHMS

matplotlib.use("Agg")  # draws into a file: needs no display
matplotlib.rcParams["svg.hashsalt"] = "roofline"  # the same picture has the same bytes

TORCH = "torch"
COPIED = 2**27  # bytes: no cache holds them
INK, LIGHT = "#444444", "#9a9a9a"
STYLES: dict[str, dict[str, Any]] = {  # from the back to the front
    ONNXRUNTIME: {"marker": "+", "s": 30, "color": LIGHT, "linewidth": 0.9},
    TORCH: {"marker": "x", "s": 20, "color": LIGHT, "linewidth": 0.9},
    "im2col": {"marker": "s", "s": 13, "color": "#d9b26f"},
    "tiled": {"marker": "o", "s": 20, "color": "#3c9d9b"},
    "depthwise": {"marker": "D", "s": 20, "color": "#6a5acd"},
    "winograd": {"marker": "o", "s": 30, "color": "#e4572e"},
}
NAMED = {  # some layers, and where their labels stand from their highest points: points, alignment
    "mobilenet-dw-7": ((8, -1), "left"),
    "digits-3x3": ((8, 2), "left"),
    "lenet-conv2": ((0, -10), "center"),
    "resnet50-2-3x3": ((-8, 2), "right"),
    "vgg16-3_2": ((0, 9), "center"),
    "resnet50-4-3x3": ((7, -10), "center"),
}


@dataclass(frozen=True)
class Point:
    """The effective FLOP/s of a layer by each algorithm of cnnfast, and by its rivals."""

    layer: Layer
    intensity: float  # FLOP a byte
    rates: dict[str, float]


def measure(layer: Layer, setting: Setting, rounds: Rounds) -> Point:
    """Check and time one layer, in NCHW; of torch, the better layout."""
    arrays = layers.make(layer, setting.dtype, np.random.default_rng(0))
    found = dict(algorithms(layer, arrays, setting))
    found |= rivals.rivals(layer, arrays, setting, ())
    rivals.check(layer, found, rivals.TOLERANCE[setting.dtype])
    seconds = timing.interleaved({name: rival.call for name, rival in found.items()}, rounds)
    both = [seconds.pop(name) for name in map(rivals.torch, LAYOUTS) if name in seconds]
    if both:
        seconds[TORCH] = min(both)
    plan = cnnfast.plan_conv2d(layer.x_shape, layer.w_shape, dtype=setting.dtype, **layer.options)
    passes = 2 if setting.direction == "backward" else 1
    rates = {name: passes * layer.flops / each for name, each in seconds.items()}
    return Point(layer, layer.flops / plan.bytes, rates)


def algorithms(
    layer: Layer, arrays: layers.Arrays, setting: Setting
) -> Iterator[tuple[str, Rival]]:
    """The algorithms that can do the layer, but for the slowest of the list."""
    for algorithm in ALGORITHMS[:-1]:
        name, layout = algorithm.name, LAYOUTS[0]
        with contextlib.suppress(ValueError):  # of one that cannot do it
            cnnfast.plan_conv2d(layer.x_shape, layer.w_shape, **layer.options, algorithm=name)
            yield name, rivals.cnnfast_rival(layer, arrays, setting.direction, layout, name)


def copy_rate() -> float:
    """Bytes a second, read and written, of a copy on one thread."""
    source = np.ones(COPIED // 2, np.uint8)
    target = np.empty_like(source)
    copy = {"copy": lambda: np.copyto(target, source)}
    return COPIED / timing.interleaved(copy, Rounds(least=5, seconds=0.5))["copy"]


def picture(points: Sequence[Point], peak: float, memory: float, caption: str, path: Path) -> None:
    """Speed over intensity, both on a log scale."""
    figure, axes = plt.subplots(figsize=(9, 5.6), layout="constrained")
    axes.set_xscale("log")
    axes.set_yscale("log")
    for point in points:
        ends = min(point.rates.values()) / 1e9, max(point.rates.values()) / 1e9
        axes.plot([point.intensity] * 2, ends, color="0.9", linewidth=0.8, zorder=0)
    for name, style in STYLES.items():
        drawn = [(p.intensity, p.rates[name] / 1e9) for p in points if name in p.rates]
        if drawn:
            axes.scatter(*zip(*drawn, strict=True), label=name, zorder=2, **style)
    roofs(axes, peak, memory)
    for point in points:
        if point.layer.name in NAMED:
            label(axes, point)
    axes.set_xlabel("intensity: FLOP of the direct formula for each byte of x, w and y")
    axes.set_ylabel("effective GFLOP/s")
    axes.set_title("Every layer under the roofs of the machine", loc="left", fontsize=13, pad=22)
    axes.text(0, 1.02, caption, transform=axes.transAxes, fontsize=9, color=INK)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(color="0.95")
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    handles, names = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], names[::-1], loc="lower right", frameon=False)
    figure.savefig(path, dpi=120, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def roofs(axes: Axes, peak: float, memory: float) -> None:
    """The two lines with their names, across what the points need."""
    left, right = axes.get_xlim()
    low, high = axes.get_ylim()
    peak, memory = peak / 1e9, memory / 1e9
    ridge = peak / memory
    axes.plot([left, ridge, right], [left * memory, peak, peak], color=INK, zorder=1)
    axes.fill_between([ridge, right], peak, high, color=STYLES["winograd"]["color"], alpha=0.06)
    style = {"color": INK, "fontsize": 9}
    axes.text(ridge, peak * 1.13, f"peak of the multiply-add units, {peak:.0f} GFLOP/s", **style)
    axes.text(ridge * 0.6, peak * 0.7, f"copy in memory, {memory:.0f} GB/s", ha="right", **style)
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)


def label(axes: Axes, point: Point) -> None:
    """The name of a layer beside its fastest point."""
    offset, side = NAMED[point.layer.name]
    place = point.intensity, max(point.rates.values()) / 1e9
    style = {"ha": side, "va": "center", "color": INK, "fontsize": 8.5}
    axes.annotate(point.layer.name, place, offset, textcoords="offset points", **style)


def table(points: Sequence[Point]) -> Table:
    """The numbers of the picture, the fastest algorithm of cnnfast in green."""
    ours = [algorithm.name for algorithm in ALGORITHMS]
    names = [name for name in reversed(STYLES) if any(name in p.rates for p in points)]
    grid = terminal.grid("effective GFLOP/s", "layer", "|", "FLOP/byte", *names)
    for point in points:
        best = max(rate for name, rate in point.rates.items() if name in ours)
        cells = []
        for name in names:
            rate = point.rates.get(name)
            text = "" if rate is None else f"{rate / 1e9:.1f}"
            cells.append(f"[green]{text}[/]" if rate == best else text)
        grid.add_row(point.layer.name, f"{point.intensity:.1f}", *cells)
    return grid


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, choices in (("dtype", DTYPES), ("direction", DIRECTIONS)):
        parser.add_argument(f"--{name}", choices=choices, default=choices[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--layers", metavar="PATTERN", help="regular expression of layer names")
    parser.add_argument("--seconds", type=float, default=0.4, help="a layer, about")
    results = Path(__file__).parent / "results"
    parser.add_argument("--out", type=Path, default=results / "roofline.svg", help="the picture")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    console = Console()
    chosen = layers.select(layers.CONVS, options.layers)
    if not chosen:
        raise SystemExit(f"no layer matches {options.layers!r}; the names stand in layers.py")
    setting = Setting(options.dtype, options.direction, options.threads)
    timing.settle_allocator()
    peak, memory = timing.peak_rate(options.dtype) * options.threads, copy_rate()
    points = []
    with rivals.threads(options.threads), terminal.progress(console) as progress:
        bar = progress.add_task("", total=len(chosen))
        for layer in chosen:
            progress.update(bar, description=layer.name)
            points.append(measure(layer, setting, Rounds(least=3, seconds=options.seconds)))
            progress.advance(bar)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    picture(points, peak, memory, f"{timing.processor()}; {setting}", options.out)
    console.print(table(points))
    console.print(f"peak {peak / 1e9:.0f} GFLOP/s, a copy {memory / 1e9:.0f} GB/s", highlight=False)
    console.print(f"picture: {options.out}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
