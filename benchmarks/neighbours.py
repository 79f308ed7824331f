"""cnnfast beside its neighbours: what the table of layers in ``peers.py`` does not show.

- a convolution in turn with a matrix product (``alternation.py``)
- a tiny call, which is all overhead
- ``linear`` against ``np.matmul``
- the transposed convolution against the convolution of the same arithmetic
- the most memory of a large convolution (``memory.py``)

Ratios are above 1 where cnnfast is faster than the other, and the transposed convolution than the
convolution.

    python benchmarks/neighbours.py [--threads 1 2] [--only SECTION ...]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import alternation
import layers
import memory
import numpy as np
import rivals
import terminal
import timing
from layers import Layer
from rich.console import Console
from rich.table import Table
from rivals import DTYPES, LAYOUTS, Setting
from timing import Rounds

import cnnfast

Rows: TypeAlias = list[dict[str, str | float]]

TINY = Layer("tiny", 1, 3, 8, 8, 4, 3, 3)
LINEARS = ((64, 8192, 100), (256, 512, 512))  # N, D, F


def alternating(threads: Sequence[int], seconds: float) -> Rows:
    """Convolution in turn with a 512x512 product, float32, all threads"""
    return alternation.measure(max(threads), seconds, None)


def alternating_asleep(threads: Sequence[int], seconds: float) -> Rows:
    """The same with OPENBLAS_THREAD_TIMEOUT=10"""
    return alternation.measure(max(threads), seconds, "10")


def tiny_call(threads: Sequence[int], seconds: float) -> Rows:
    """Tiny call: 1x3x8x8 by 4x3x3x3, float32, one thread"""
    setting = Setting("float32", "forward", 1)
    arrays = layers.make(TINY, setting.dtype, np.random.default_rng(0))
    with rivals.threads(1):
        found = rivals.rivals(TINY, arrays, setting, LAYOUTS)
        rivals.check(TINY, found, rivals.TOLERANCE[setting.dtype])
        times = timing.interleaved({n: r.call for n, r in found.items()}, Rounds(5, seconds))
    first = times[rivals.ours("NCHW")]
    return [{"who": n, "us": t * 1e6, "ratio": t / first} for n, t in times.items()]


def linear(threads: Sequence[int], seconds: float) -> Rows:
    """linear against np.matmul"""
    rows: Rows = []
    rng = np.random.default_rng(0)
    for dtype in DTYPES:
        for N, D, F in LINEARS:
            x, w = (rng.standard_normal(shape).astype(dtype) for shape in ((N, D), (F, D)))
            calls = {
                "linear": lambda x=x, w=w: cnnfast.linear(x, w),
                "matmul": lambda x=x, w=w: np.matmul(x, w.T),
            }
            for count in threads:
                with timing.threads(count):
                    times = timing.interleaved(calls, Rounds(5, seconds))
                where = {"dtype": dtype, "size": f"{N}x{D} by {F}x{D}", "threads": str(count)}
                rows.append(where | versus("linear", "matmul", times))
    return rows


def transposed(threads: Sequence[int], seconds: float) -> Rows:
    """Transposed convolution against the convolution of the same arithmetic, float32, one thread"""
    rows: Rows = []
    for layer in layers.CORE:
        arrays = layers.make(layer, "float32", np.random.default_rng(0))
        for layout in LAYOUTS:
            x, dy = (layers.as_layout(a, layout) for a in (arrays.x, arrays.dy))
            options = layer.options | {"layout": layout}
            back = options | {"output_padding": rest_of_stride(layer)}
            calls = {
                "transposed": lambda: cnnfast.conv_transpose2d(dy, arrays.w, **back),  # noqa: B023
                "convolution": lambda: cnnfast.conv2d(x, arrays.w, **options),  # noqa: B023
            }
            if calls["transposed"]().shape != x.shape:
                raise SystemExit(f"{layer.name}: the transposed convolution is of another shape")
            with timing.threads(1):
                times = timing.interleaved(calls, Rounds(3, seconds))
            where = {"layer": layer.name, "cnnfast": layout}
            rows.append(where | versus("transposed", "convolution", times))
    return rows


def rest_of_stride(layer: Layer) -> tuple[int, int]:
    """The rows and columns of x that no window reaches, which the transpose must be told of."""
    sizes = zip((layer.H, layer.W), (layer.KH, layer.KW), strict=True)
    reach = layer.dilation
    return tuple((s + 2 * layer.padding - reach * (k - 1) - 1) % layer.stride for s, k in sizes)


def versus(ours: str, other: str, times: dict[str, float]) -> dict[str, float]:
    """Two times in ms, and their ratio."""
    return {f"{name} ms": times[name] * 1e3 for name in (ours, other)} | {
        "ratio": times[other] / times[ours]
    }


def peak_memory(threads: Sequence[int], seconds: float) -> Rows:
    """Most memory beyond inputs and outputs: 64x64x56x56 by 64x64x3x3, float32"""
    return memory.measure()


SECTIONS: dict[str, Callable[[Sequence[int], float], Rows]] = {
    "alternating": alternating,
    "alternating-asleep": alternating_asleep,
    "tiny": tiny_call,
    "linear": linear,
    "transposed": transposed,
    "memory": peak_memory,
}


def measure_all(
    threads: Sequence[int], seconds: float, console: Console, names: Sequence[str] = tuple(SECTIONS)
) -> dict[str, Rows]:
    """Measure these sections, and print a table of each."""
    timing.settle_allocator()
    record = {}
    for name in names:
        section = SECTIONS[name]
        with console.status(name):
            record[name] = section(threads, seconds)
        if record[name]:
            console.print(table(section.__doc__ or name, record[name]))
        else:
            console.print(f"{name}: cannot be measured on this system", highlight=False)
    return record


def table(title: str, rows: Rows) -> Table:
    """The rows as they are, words to the left and numbers to the right."""
    words = [key for key, value in rows[0].items() if isinstance(value, str)]
    numbers = [key for key in rows[0] if key not in words]
    grid = terminal.grid(title, *words, "|", *(key.replace(" ms", "\nms") for key in numbers))
    for row in rows:
        cells = (
            terminal.ratio(row[key]) if key == "ratio" else f"{row[key]:.3g}" for key in numbers
        )
        grid.add_row(*(row[key] for key in words), *cells)
    return grid


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", choices=SECTIONS, nargs="+", default=list(SECTIONS))
    parser.add_argument("--seconds", type=float, default=0.4, help="a measurement, about")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    console = Console()
    for sentence in rivals.absences():
        console.print(sentence, highlight=False)
    record = measure_all(options.threads, options.seconds, console, options.only)
    if options.json:
        record = {"machine": timing.machine(), "neighbours": record}
        options.json.write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
