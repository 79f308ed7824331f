"""cnnfast against its peers, torch and onnxruntime, on the layers of ``layers.py``.

Every layer runs in one process, cnnfast and its rivals (``rivals.py``) in turn, with equal thread
counts; medians, and ratios above 1 where cnnfast is the faster. All results are compared before
they are timed. The per cent are of the peak of one thread, measured first with cnnfast's product
kernel alone, times the number of threads.

    python benchmarks/peers.py [--threads 1 2] [--dtype float64] [--layout NHWC]
                               [--direction backward] [--layers PATTERN]
    python benchmarks/peers.py --all

The second, in about half an hour, compares in every setting, and goes on to ``neighbours.py`` and
``memory_bound.py``.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import comparison
import layers
import memory_bound
import neighbours
import numpy as np
import rivals
import terminal
import timing
from comparison import Timed
from layers import Layer
from rich.console import Console
from rivals import DIRECTIONS, DTYPES, LAYOUTS, Setting
from timing import Rounds


def time_layer(
    layer: Layer, setting: Setting, layouts: Sequence[str], peak: float, rounds: Rounds
) -> Timed:
    """Check and time one layer."""
    arrays = layers.make(layer, setting.dtype, np.random.default_rng(0))
    found = rivals.rivals(layer, arrays, setting, layouts)
    rivals.check(layer, found, rivals.TOLERANCE[setting.dtype])
    calls = {name: rival.call for name, rival in found.items()}
    seconds = timing.interleaved(calls, rounds)
    return Timed(layer, setting, seconds, peak * setting.threads)


def time_layers(
    table: Sequence[Layer],
    settings: Sequence[Setting],
    layouts: Sequence[str],
    peaks: dict[str, float],
    seconds: float,
    console: Console,
) -> list[Timed]:
    """Time all layers in all settings under a progress bar, and print a table for each setting."""
    rounds = Rounds(least=3, seconds=seconds)
    timed = []
    with terminal.progress(console) as progress:
        bar = progress.add_task("", total=len(table) * len(settings))
        for setting in settings:
            group = []
            with rivals.threads(setting.threads):
                for layer in table:
                    progress.update(bar, description=layer.name)
                    group.append(time_layer(layer, setting, layouts, peaks[setting.dtype], rounds))
                    progress.advance(bar)
            console.print(*(comparison.layer_table(group, layout) for layout in layouts))
            timed += group
    return timed


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    for name, choices in (("dtype", DTYPES), ("layout", LAYOUTS), ("direction", DIRECTIONS)):
        parser.add_argument(f"--{name}", choices=choices, nargs="+", default=[choices[0]])
    parser.add_argument("--all", action="store_true", help="every setting and function")
    parser.add_argument("--layers", metavar="PATTERN", help="regular expression of layer names")
    parser.add_argument("--seconds", type=float, default=0.4, help="a layer and setting, about")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here")
    options = parser.parse_args()
    if options.all:
        options.threads, options.dtype = [1, 2], DTYPES
        options.layout, options.direction = LAYOUTS, DIRECTIONS
    return options


def main() -> None:
    options = arguments()
    console = Console()
    table = layers.select(layers.CONVS, options.layers)
    if not table:
        raise SystemExit(f"no layer matches {options.layers!r}; the names stand in layers.py")
    for sentence in rivals.absences():
        console.print(sentence, highlight=False)
    timing.settle_allocator()
    peaks = {dtype: timing.peak_rate(dtype) for dtype in options.dtype}
    for dtype, peak in peaks.items():
        console.print(f"peak (product kernel, one thread, {dtype}): {peak / 1e9:.0f} GFLOP/s")
    settings = list(
        itertools.starmap(
            Setting, itertools.product(options.dtype, options.direction, options.threads)
        )
    )
    timed = time_layers(table, settings, options.layout, peaks, options.seconds, console)
    record: dict[str, Any] = {
        "machine": timing.machine(),
        "peaks": peaks,
        "results": [t.record() for t in timed],
    }
    if options.all:
        record["neighbours"] = neighbours.measure_all(options.threads, options.seconds, console)
        record["memory-bound"] = memory_bound.measure_all(
            options.threads, options.seconds / 2, console, options.layers
        )
    console.print(comparison.summary(timed))
    if options.json:
        options.json.write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
