"""CS231n's assignment 2: the notebook's speed cells, and a training step of ThreeLayerConvNet.

- the cells in float64 on one thread: cnnfast.courses.cs231n against NumPy in CS231n's manner
- a training step on 64 images of 3x32x32, with the course's default network, float32 and float64:
  cnnfast.courses.cs231n against the manner, and against torch where it is installed

A ratio is the other's time to ours: above 1 where cnnfast is faster.

    python benchmarks/courses_speed.py [--threads 1 2] [--seconds 2]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import cs231n_manner
import networks
import numpy as np
import rivals
import terminal
import timing
from networks import FAST, MANNER, THREE_LAYER, Network
from rich.console import Console
from rich.table import Table
from timing import Call, Rounds

from cnnfast.courses.cs231n import fast_layers
from cnnfast.courses.cs231n.classifiers.cnn import ThreeLayerConvNet

TORCH = "torch"
BATCH = (64, 3, 32, 32)
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}  # of the losses of some steps
ROW_OF_STEPS = 0.1  # seconds: a training is many steps in a row, the first of which is the slowest
Rows = list[dict[str, str | float]]


def cells() -> dict[str, dict[str, Call]]:
    """The four timed cells of the notebook, each in both ways, on its seeded arrays."""
    rng = np.random.RandomState(231)
    x, w, b = rng.randn(100, 3, 31, 31), rng.randn(25, 3, 3, 3), rng.randn(25)
    dout, param = rng.randn(100, 25, 16, 16), {"stride": 2, "pad": 1}
    _, conv = fast_layers.conv_forward_fast(x, w, b, param)
    _, conv_manner = cs231n_manner.conv_forward(x, w, b, 2, 1)
    rng = np.random.RandomState(231)
    images, dpool = rng.randn(100, 3, 32, 32), rng.randn(100, 3, 16, 16)
    pool_param = {"pool_height": 2, "pool_width": 2, "stride": 2}
    _, pool = fast_layers.max_pool_forward_fast(images, pool_param)
    _, pool_manner = cs231n_manner.max_pool_forward(images, 2)
    return {
        "conv_forward_fast": {
            FAST: lambda: fast_layers.conv_forward_fast(x, w, b, param),
            MANNER: lambda: cs231n_manner.conv_forward(x, w, b, 2, 1),
        },
        "conv_backward_fast": {
            FAST: lambda: fast_layers.conv_backward_fast(dout, conv),
            MANNER: lambda: cs231n_manner.conv_backward(dout, conv_manner),
        },
        "max_pool_forward_fast": {
            FAST: lambda: fast_layers.max_pool_forward_fast(images, pool_param),
            MANNER: lambda: cs231n_manner.max_pool_forward(images, 2),
        },
        "max_pool_backward_fast": {
            FAST: lambda: fast_layers.max_pool_backward_fast(dpool, pool),
            MANNER: lambda: cs231n_manner.max_pool_backward(dpool, pool_manner),
        },
    }


def steps(dtype: str) -> dict[str, networks.Step]:
    """The training step in all ways, from the same weights."""
    rng = np.random.default_rng(231)
    X = rng.standard_normal(BATCH).astype(dtype)
    y = rng.integers(THREE_LAYER.classes, size=len(X))
    course = ThreeLayerConvNet(dtype=dtype)
    manner = Network(THREE_LAYER, BATCH[1:], rng, dtype, MANNER)
    course.params = networks.copied(manner.params)  # larger than the course's: losses that differ
    found = {
        FAST: networks.step(course, X, y),
        MANNER: networks.step(manner, X, y),
    }
    if rivals.has(TORCH):
        found[TORCH] = networks.torch_step(THREE_LAYER, manner.params, X, y)
    networks.check(found, TOLERANCE[dtype])
    return found


def measure_cells(seconds: float) -> Rows:
    """Float64, one thread."""
    with rivals.threads(1, inference=False):
        return [
            {"cell": name} | versus(timing.interleaved(calls, Rounds(5, seconds)))
            for name, calls in cells().items()
        ]


def measure_steps(threads: Sequence[int], seconds: float) -> Rows:
    """Both dtypes, on each number of threads."""
    rows: Rows = []
    for dtype in TOLERANCE:
        for count in threads:
            with rivals.threads(count, inference=False):
                times = timing.interleaved(steps(dtype), Rounds(5, seconds, sample=ROW_OF_STEPS))
            rows.append({"step": dtype, "threads": str(count)} | versus(times))
    return rows


def versus(times: dict[str, float]) -> dict[str, str | float]:
    """Milliseconds of everybody, and the ratios of the others to cnnfast."""
    milliseconds = {f"{name} ms": t * 1e3 for name, t in times.items()}
    ratios = {f"{name} / {FAST}": t / times[FAST] for name, t in times.items() if name != FAST}
    return milliseconds | ratios


def table(title: str, rows: Rows) -> Table:
    """The rows as they are, ratios in colour."""
    words = [name for name, value in rows[0].items() if isinstance(value, str)]
    numbers = [name for name in rows[0] if name not in words]
    grid = terminal.grid(title, *words, "|", *(name.replace(" / ", "\n/ ") for name in numbers))
    for row in rows:
        figures = (
            terminal.ratio(row[name]) if "/" in name else f"{row[name]:.2f}" for name in numbers
        )
        grid.add_row(*(row[name] for name in words), *figures)
    return grid


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of the steps")
    parser.add_argument("--seconds", type=float, default=2, help="for each row; default 2")
    parser.add_argument("--json", type=Path, help="where to put the numbers")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    console = Console()
    timing.settle_allocator()
    with console.status("the cells of the notebook"):
        record = {"cells": measure_cells(options.seconds)}
    console.print(table("CS231n's cells, float64, one thread", record["cells"]))
    with console.status("training steps"):
        record["steps"] = measure_steps(options.threads, options.seconds)
    console.print(table("Training step of ThreeLayerConvNet, 64x3x32x32", record["steps"]))
    if not rivals.has(TORCH):
        console.print("torch is not installed, so its columns are missing: pip install torch")
    if options.json:
        record["machine"] = timing.machine()
        options.json.write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
