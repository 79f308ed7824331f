"""Naive against fast: what the layers of the well-known courses cost, written in every way.

For each course layer, on real images: Python loops as students write them, the NumPy reference,
NumPy in CS231n's manner, and each algorithm of cnnfast; forward (ready for training, with its
cache) and backward (dx, dw, db), each with its speed-up over the loops and its largest difference
from the reference. A way too slow for the whole batch runs on the first images of it, its time is
scaled up, and it is marked with a ``~``. Prints a table, and writes a picture and the numbers.

    python benchmarks/naive_vs_fast.py [--quick] [--layers PATTERN] [--dtype float32] [--threads 2]
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import cs231n_manner
import layers
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import python_loops
import timing
from layers import Layer, Pool
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from numpy.typing import NDArray
from real_images import images
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from timing import Rounds

import cnnfast
from cnnfast import algorithms, reference

matplotlib.use("Agg")  # draws into a file: needs no display

Array: TypeAlias = NDArray[np.floating]
Results: TypeAlias = tuple[Array, ...]

LOOPS = "Python loops"
REFERENCE = "reference"
MANNER = "CS231n's manner"
DIRECTIONS = ("forward", "backward")
RESULTS = Path(__file__).parent / "results"

# Colours of the picture, by what a way is made of.
GREY, SAND, TEAL, ORANGE, INK = "#8c8c8c", "#d9b26f", "#3c9d9b", "#e4572e", "#555555"
COLOURS = {LOOPS: GREY, REFERENCE: SAND, MANNER: SAND, "auto": ORANGE}
KEYS = {"NumPy": SAND, "cnnfast, algorithm by name": TEAL, "cnnfast's own choice": ORANGE}


class Way(NamedTuple):
    """One way to write a layer. The caches differ from way to way, so their type is open."""

    forward: Callable[..., tuple[Array, Any]]
    backward: Callable[[Array, Any], Array | Results]


@dataclass(frozen=True)
class Task:
    """A layer with its arrays, x first, and all the ways to run it."""

    layer: Layer | Pool
    inputs: Results
    dy: Array
    ways: dict[str, Way]

    def prepare(self, name: str, direction: str, count: int) -> Callable[[], Results]:
        """The call to time, on the first ``count`` images of the batch."""
        way = self.ways[name]
        inputs = (self.inputs[0][:count], *self.inputs[1:])
        if direction == "forward":
            return lambda: (way.forward(*inputs)[0],)
        dy, cache = self.dy[:count], way.forward(*inputs)[1]
        return lambda: _as_tuple(way.backward(dy, cache))


@dataclass(frozen=True)
class Measured:
    """What one way of one layer took in one direction."""

    layer: str
    direction: str
    way: str
    seconds: float  # of the whole batch, scaled up if only ``images`` of ``batch`` were run
    images: int
    batch: int
    speedup: float  # over the Python loops
    difference: float  # the largest from the reference, absolute

    @property
    def scaled(self) -> bool:
        return self.images < self.batch


def _as_tuple(results: Array | Results) -> Results:
    return results if isinstance(results, tuple) else (results,)


def conv_task(layer: Layer, dtype: str, rng: np.random.Generator) -> Task:
    """A convolution layer on real images."""
    arrays = layers.make(layer, dtype, rng)
    x = images(layer.x_shape, rng).astype(dtype)
    numpy_options = {"stride": layer.stride, "padding": layer.padding}
    ways = {
        LOOPS: Way(
            functools.partial(python_loops.conv_forward, **numpy_options),
            python_loops.conv_backward,
        ),
        REFERENCE: Way(
            functools.partial(reference.conv2d_forward, **layer.options),
            reference.conv2d_backward,
        ),
        MANNER: Way(
            functools.partial(cs231n_manner.conv_forward, **numpy_options),
            cs231n_manner.conv_backward,
        ),
    }
    for name in _names(algorithms.ALGORITHMS):
        forward = functools.partial(cnnfast.conv2d_forward, **layer.options, algorithm=name)
        ways[name] = Way(forward, cnnfast.conv2d_backward)
    return Task(layer, (x, arrays.w, arrays.b), arrays.dy, ways)


def pool_task(pool: Pool, dtype: str, rng: np.random.Generator) -> Task:
    """A max pooling layer on real images."""
    arrays = layers.make_pool(pool, dtype, rng)
    x = images(pool.x_shape, rng).astype(dtype)
    options = {"kernel_size": pool.kernel, **pool.options}
    ways = {
        LOOPS: Way(
            functools.partial(
                python_loops.max_pool_forward, kernel=pool.kernel, stride=pool.stride
            ),
            python_loops.max_pool_backward,
        ),
        REFERENCE: Way(
            functools.partial(reference.max_pool2d_forward, **options),
            reference.max_pool2d_backward,
        ),
    }
    for name in _names(algorithms.POOL_ALGORITHMS):
        forward = functools.partial(cnnfast.max_pool2d_forward, **options, algorithm=name)
        ways[name] = Way(forward, cnnfast.max_pool2d_backward)
    return Task(pool, (x,), arrays.dy, ways)


def _names(
    table: Sequence[algorithms.Algorithm] | Sequence[algorithms.PoolAlgorithm],
) -> list[str]:
    """The library's own list, slowest first, and its choice."""
    return [*(algorithm.name for algorithm in reversed(table)), "auto"]


def measure(task: Task, direction: str, rounds: Rounds, limit: float) -> list[Measured]:
    """Time all ways of a layer side by side, none of them longer than ``limit`` seconds a call."""
    batch = task.layer.N
    counts = {
        name: count
        for name in task.ways
        if (count := count_in_time(task, name, direction, limit)) is not None
    }
    calls = {name: task.prepare(name, direction, count) for name, count in counts.items()}
    medians = timing.interleaved(calls, rounds)
    whole = {name: medians[name] * batch / counts[name] for name in calls}
    expected = functools.cache(lambda count: task.prepare(REFERENCE, direction, count)())
    return [
        Measured(
            layer=task.layer.name,
            direction=direction,
            way=name,
            seconds=whole[name],
            images=counts[name],
            batch=batch,
            speedup=whole[LOOPS] / whole[name],
            difference=largest_difference(call(), expected(counts[name])),
        )
        for name, call in calls.items()
    ]


def count_in_time(task: Task, name: str, direction: str, limit: float) -> int | None:
    """How many images a way can do in ``limit`` seconds, or None if it refuses the layer."""
    try:
        call = task.prepare(name, direction, 1)
        seconds = timing.once(call)
    except ValueError:  # an algorithm that cannot do the problem never falls back silently
        return None
    if seconds < limit < seconds * task.layer.N:  # perhaps only the first call was slow
        seconds = min(seconds, timing.once(call))
    return min(max(int(limit / seconds), 1), task.layer.N)


def largest_difference(results: Results, expected: Results) -> float:
    """The largest absolute difference in any of the arrays."""
    return max(float(np.max(np.abs(a - e))) for a, e in zip(results, expected, strict=True))


def as_time(seconds: float) -> str:
    """Seconds with three figures and a unit that suits them."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{figures(seconds / size)} {unit}"
    return f"{figures(seconds / 1e-6)} us"


def figures(value: float) -> str:
    """Three figures, without an exponent."""
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:,.{decimals}f}"


def table(task: Task, measured: Sequence[Measured]) -> Table:
    """One line a way, the fastest of each direction in green."""
    rows = [m for m in measured if m.layer == task.layer.name]
    best = {min((m for m in rows if m.direction == d), key=_seconds) for d in DIRECTIONS}
    grid = Table(
        title=f"[bold]{task.layer.name}[/]  {task.layer}",
        title_justify="left",
        title_style="default",
        header_style="dim",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    grid.add_column("", width=15)
    for direction in DIRECTIONS:
        grid.add_column(direction, justify="right", width=8)
        grid.add_column("speed-up", justify="right", width=8)
        grid.add_column("diff", justify="right", width=5)
    for way in task.ways:
        cells = [cell for m in rows if m.way == way for cell in _cells(m, m in best)]
        grid.add_row(way, *(cells or ["refused"]))
    return grid


def _seconds(m: Measured) -> float:
    return m.seconds


def _cells(m: Measured, best: bool) -> list[str]:
    style = "[bold green]" if best else "[default]"
    mark = "~" if m.scaled else ""
    difference = "" if m.way == REFERENCE else f"[dim]{m.difference:.0e}[/]"
    return [
        f"{style}{mark}{as_time(m.seconds)}[/]",
        f"{style}{figures(m.speedup)}x[/]",
        difference,
    ]


def picture(tasks: Sequence[Task], measured: Sequence[Measured], caption: str, path: Path) -> None:
    """Bars of the speed-up over the Python loops on a log scale, a row of panels for each layer."""
    heights = [len(task.ways) + 1.5 for task in tasks]
    figure, panels = plt.subplots(
        len(tasks),
        len(DIRECTIONS),
        figsize=(12, 0.25 * sum(heights) + 1.9),
        height_ratios=heights,
        sharex=True,
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for task, row in zip(tasks, panels, strict=True):
        for direction, panel in zip(DIRECTIONS, row, strict=True):
            chosen = {
                m.way: m
                for m in measured
                if m.layer == task.layer.name and m.direction == direction
            }
            draw(panel, list(task.ways), chosen)
        row[0].set_title(task.layer.name, loc="left", fontsize=11, fontweight="bold")
        row[1].set_title(str(task.layer), loc="left", fontsize=10, color=INK)
    for direction, top, bottom in zip(DIRECTIONS, panels[0], panels[-1], strict=True):
        top.set_title(direction, loc="right", fontsize=12)
        bottom.set_xlabel(f"{direction}: times as fast as Python loops", fontsize=11)
    figure.suptitle(f"Naive against fast\n{caption}", fontsize=13, linespacing=1.6)
    keys = [Patch(color=colour, label=label) for label, colour in KEYS.items()]
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys), frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw(panel: Axes, ways: Sequence[str], chosen: dict[str, Measured]) -> None:
    """One panel: a bar a way, with its speed-up and the time of the whole batch behind it."""
    for place, way in enumerate(ways):
        if way not in chosen:
            panel.text(1, place, " refused", va="center", color=GREY, fontsize=9)
            continue
        m = chosen[way]
        panel.barh(place, m.speedup - 1, left=1, height=0.8, color=COLOURS.get(way, TEAL))
        end = max(m.speedup, 1)
        label = f"  {figures(m.speedup)}x" if m.way != LOOPS else ""
        time = f"  {'~' if m.scaled else ''}{as_time(m.seconds)}"
        text = panel.annotate(label, (end, place), va="center", fontsize=9, fontweight="bold")
        panel.annotate(time, (1, 0.5), xycoords=text, va="center", fontsize=9, color=INK)
    panel.set_yticks(range(len(ways)), ways, fontsize=9)
    panel.set_ylim(len(ways) - 0.5, -0.5)
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:,g}x")
    panel.margins(x=0.3)  # room for the last label
    panel.tick_params(which="both", length=0)
    panel.grid(axis="x", color="0.9")
    panel.set_axisbelow(True)
    panel.spines[["top", "right", "bottom"]].set_visible(False)


def verdict(measured: Sequence[Measured]) -> str:
    """The sentence about CS231n's cell, if it was among the layers."""
    cell = {(m.way, m.direction): m for m in measured if m.layer == "cs231n-fast"}
    if not cell:
        return ""
    manner, naive = (
        [figures(cell[slow, d].seconds / cell[fast, d].seconds) for d in DIRECTIONS]
        for slow, fast in ((MANNER, "im2col"), (LOOPS, "naive"))
    )
    return (
        f"CS231n's cell: im2col is {manner[0]}x as fast as CS231n's manner forward and "
        f"{manner[1]}x backward; naive is {naive[0]}x and {naive[1]}x as fast as Python loops."
    )


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: under 30 s")
    parser.add_argument("--layers", metavar="PATTERN", help="regular expression of layer names")
    parser.add_argument("--dtype", choices=("float64", "float32"), default="float64")
    parser.add_argument("--threads", type=int, default=1, help="of cnnfast and of BLAS; default 1")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for picture and numbers")
    return parser.parse_args()


def course_tasks(pattern: str | None, dtype: str) -> list[Task]:
    """The course layers whose name fits, with their arrays."""
    rng = np.random.default_rng(231)
    convs = [conv_task(layer, dtype, rng) for layer in layers.select(layers.COURSE, pattern)]
    pools = [pool_task(pool, dtype, rng) for pool in layers.select(layers.COURSE_POOLS, pattern)]
    if not convs + pools:
        names = ", ".join(layer.name for layer in (*layers.COURSE, *layers.COURSE_POOLS))
        raise SystemExit(f"no course layer matches {pattern!r}; there are {names}")
    return convs + pools


def measure_all(tasks: Sequence[Task], quick: bool, console: Console) -> list[Measured]:
    """Measure every layer in both directions under a progress bar."""
    rounds = Rounds(least=3, seconds=0.2) if quick else Rounds(least=5, seconds=4)
    limit = 0.02 if quick else 0.25  # seconds of one call: longer ones get part of the batch
    columns = (
        TextColumn("{task.description:32}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    measured = []
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=len(tasks) * len(DIRECTIONS))
        for task in tasks:
            for direction in DIRECTIONS:
                progress.update(bar, description=f"{task.layer.name} {direction}")
                measured += measure(task, direction, rounds, limit)
                progress.advance(bar)
    return measured


def main() -> None:
    options = arguments()
    console = Console()
    with console.status("cutting images from the photographs and reading the digits"):
        tasks = course_tasks(options.layers, options.dtype)
    timing.settle_allocator()
    with timing.threads(options.threads):
        measured = measure_all(tasks, options.quick, console)
        machine = timing.machine()
    caption = f"{machine['processor']}, NumPy {machine['numpy']}, {options.dtype}, "
    caption += f"{options.threads} thread{'s' if options.threads > 1 else ''}"

    options.out.mkdir(parents=True, exist_ok=True)
    numbers, image = (options.out / f"naive_vs_fast.{kind}" for kind in ("json", "png"))
    settings = {"quick": options.quick, "dtype": options.dtype, "threads": options.threads}
    record = {
        "machine": machine,
        "settings": settings,
        "results": [asdict(m) | {"scaled": m.scaled} for m in measured],
    }
    numbers.write_text(json.dumps(record, indent=1), encoding="utf-8")
    picture(tasks, measured, caption, image)

    console.print(*(table(task, measured) for task in tasks), sep="\n")
    console.print("~ timed on part of the batch, scaled up; diff: the largest from reference")
    console.print(*(f"[dim]{fact}[/] {value}" for fact, value in machine.items()), sep="; ")
    console.print(verdict(measured), style="bold", highlight=False)
    console.print(f"picture: {image}\nnumbers: {numbers}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
