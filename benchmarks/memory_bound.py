"""cnnfast against torch where memory, not arithmetic, is the limit: pools, norms and columns.

One table for each function, dtype and number of threads: time, the speed of what must at least be
read and written, that speed beside ``np.copyto``'s in the same run on as many bytes, and torch's
time over cnnfast's (more than 1: cnnfast is faster), in NCHW and in NHWC (channels_last). Results
are compared before they are timed. At the end, a pool of a few hundred numbers, all overhead.

    python benchmarks/memory_bound.py [--threads 1 2] [--only FUNCTION ...] [--layers PATTERN]
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import comparison
import layers
import numpy as np
import rivals
import terminal
import timing
from layers import Layer, Pool
from rich.console import Console
from rich.table import Table
from rivals import DTYPES, LAYOUTS, Array, Rival
from timing import Rounds

import cnnfast

COPY = "np.copyto"
TINY = Pool("1x3x8x8", 1, 3, 8, 8, kernel=2, stride=2)
GROUPS = 8  # of group_norm; one that is not a multiple of it has a group for each channel
EPS, MOMENTUM = 1e-5, 0.1


class Contest(NamedTuple):
    """cnnfast and torch on one size."""

    ours: Rival
    torch: Callable[[], Rival]  # made only where torch is installed
    bytes: int  # of the arrays that must be read or written


class Function(NamedTuple):
    """What is compared: its sizes, and who computes it."""

    table: Sequence[Layer | Pool]
    layouts: Sequence[str]
    contest: Callable[[Any, str, str], Contest]  # size, dtype, layout


def tensors(layout: str, *arrays_nchw: Array) -> list[Any]:
    """Arrays as torch's tensors, in contiguous or channels_last memory."""
    import torch

    memory = torch.contiguous_format if layout == "NCHW" else torch.channels_last
    return [torch.from_numpy(a).contiguous(memory_format=memory) for a in arrays_nchw]


def arrays(pool: Pool, dtype: str, layout: str) -> tuple[Any, ...]:
    """x and dy in NCHW, and both in the layout."""
    x, dy = layers.make_pool(pool, dtype, np.random.default_rng(0))
    return x, dy, layers.as_layout(x, layout), layers.as_layout(dy, layout)


def ours(layout: str, call: Callable[[], Any]) -> Rival:
    """cnnfast, whose first result is an image in this layout."""
    order = (0, 1, 2, 3) if layout == "NCHW" else (0, 3, 1, 2)
    return Rival(call, lambda results: (_first(results).transpose(order),))


def torchs(call: Callable[[], Any]) -> Rival:
    """torch, of whose results the first is compared."""
    return Rival(call, lambda results: (_first(results).numpy(),))


def _first(results: Any) -> Any:
    return results[0] if isinstance(results, tuple) else results


def pool_forward(pool: Pool, dtype: str, layout: str) -> Contest:
    x, dy, x_ours, _ = arrays(pool, dtype, layout)
    function = {"max": cnnfast.max_pool2d, "avg": cnnfast.avg_pool2d}[pool.kind]
    options = {**pool.options, "layout": layout}

    def theirs() -> Rival:
        from torch.nn import functional

        (tensor,) = tensors(layout, x)
        pooling = getattr(functional, f"{pool.kind}_pool2d")
        return torchs(lambda: pooling(tensor, pool.kernel, **pool.options))

    call = ours(layout, lambda: function(x_ours, pool.kernel, **options))
    return Contest(call, theirs, x.nbytes + dy.nbytes)


def pool_backward(pool: Pool, dtype: str, layout: str) -> Contest:
    x, dy, x_ours, dy_ours = arrays(pool, dtype, layout)
    name = f"{pool.kind}_pool2d"
    options = {**pool.options, "layout": layout}
    _, cache = getattr(cnnfast, f"{name}_forward")(x_ours, pool.kernel, **options)
    function = getattr(cnnfast, f"{name}_backward")

    def theirs() -> Rival:
        import torch

        tx, tdy = tensors(layout, x, dy)
        kernel, stride, padding = ([n] * 2 for n in (pool.kernel, pool.stride, pool.padding))
        if pool.kind == "avg":
            back = torch.ops.aten.avg_pool2d_backward
            rest = (kernel, stride, padding, pool.ceil_mode, True, None)
            return torchs(lambda: back(tdy, tx, *rest))
        rest = (kernel, stride, padding, [1, 1], pool.ceil_mode)
        _, indices = torch.ops.aten.max_pool2d_with_indices(tx, *rest)
        back = torch.ops.aten.max_pool2d_with_indices_backward
        return torchs(lambda: back(tdy, tx, *rest, indices))

    needed = x.nbytes * (2 if pool.kind == "max" else 1) + dy.nbytes
    return Contest(ours(layout, lambda: function(dy_ours, cache)), theirs, needed)


class Norm(NamedTuple):
    """The arrays of a norm behind a layer: x and dy in NCHW, both in the layout, and vectors."""

    x: Array
    dy: Array
    x_ours: Array
    dy_ours: Array
    gamma: Array
    beta: Array
    mean: Array
    var: Array
    groups: int


def norm(layer: Layer, dtype: str, layout: str) -> Norm:
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal(layer.y_shape).astype(dtype) for _ in range(2))
    vectors = (rng.uniform(0.5, 1.5, layer.F).astype(dtype) for _ in range(4))
    as_layout = (layers.as_layout(a, layout) for a in (x, dy))
    return Norm(x, dy, *as_layout, *vectors, layer.F if layer.F % GROUPS else GROUPS)


def batch_norm(direction: str) -> Callable[[Layer, str, str], Contest]:
    """The contest of inference, forward (in training) or backward."""

    def contest(layer: Layer, dtype: str, layout: str) -> Contest:
        a = norm(layer, dtype, layout)
        vectors = a.gamma, a.beta, a.mean.copy(), a.var.copy()

        def theirs() -> Rival:
            import torch

            x, dy = tensors(layout, a.x, a.dy)
            gamma, beta, mean, var = map(torch.from_numpy, (a.gamma, a.beta, a.mean, a.var))
            rest = (gamma, beta, mean, var, direction != "inference", MOMENTUM, EPS)
            if direction != "backward":
                return torchs(lambda: torch.native_batch_norm(x, *rest))
            _, *saved = torch.native_batch_norm(x, *rest)
            back = torch.ops.aten.native_batch_norm_backward
            rest = (gamma, mean, var, *saved, True, EPS, (True, True, True))
            return torchs(lambda: back(dy, x, *rest))

        _, cache = cnnfast.batch_norm2d_forward(a.x_ours, a.gamma, a.beta, layout=layout)
        call = {
            "inference": lambda: cnnfast.batch_norm2d(a.x_ours, *vectors, layout=layout),
            "forward": lambda: cnnfast.batch_norm2d_forward(a.x_ours, *vectors, layout=layout),
            "backward": lambda: cnnfast.batch_norm2d_backward(a.dy_ours, cache),
        }[direction]
        moved = a.x.nbytes * (3 if direction == "backward" else 2)
        return Contest(ours(layout, call), theirs, moved)

    return contest


def group_norm(direction: str) -> Callable[[Layer, str, str], Contest]:
    """The contest of forward or backward."""

    def contest(layer: Layer, dtype: str, layout: str) -> Contest:
        a = norm(layer, dtype, layout)
        options = {"num_groups": a.groups, "layout": layout}

        def theirs() -> Rival:
            import torch

            x, dy = tensors(layout, a.x, a.dy)
            gamma, beta = map(torch.from_numpy, (a.gamma, a.beta))
            N, F, OH, OW = layer.y_shape
            sizes = (N, F, OH * OW, a.groups)
            if direction == "forward":
                return torchs(lambda: torch.native_group_norm(x, gamma, beta, *sizes, EPS))
            _, *saved = torch.native_group_norm(x, gamma, beta, *sizes, EPS)
            back = torch.ops.aten.native_group_norm_backward
            return torchs(lambda: back(dy, x, *saved, gamma, *sizes, (True, True, True)))

        _, cache = cnnfast.group_norm_forward(a.x_ours, a.gamma, a.beta, **options)
        call = {
            "forward": lambda: cnnfast.group_norm_forward(a.x_ours, a.gamma, a.beta, **options),
            "backward": lambda: cnnfast.group_norm_backward(a.dy_ours, cache),
        }[direction]
        moved = a.x.nbytes * (3 if direction == "backward" else 2)
        return Contest(ours(layout, call), theirs, moved)

    return contest


def columns(direction: str) -> Callable[[Layer, str, str], Contest]:
    """The contest of im2col with unfold, or of col2im with fold."""

    def contest(layer: Layer, dtype: str, layout: str) -> Contest:
        x = np.random.default_rng(0).standard_normal(layer.x_shape).astype(dtype)
        size, kernel = layer.x_shape[2:], (layer.KH, layer.KW)
        options = {name: layer.options[name] for name in ("stride", "padding", "dilation")}
        cols = cnnfast.im2col(x, kernel, **options)

        def theirs() -> Rival:
            import torch
            from torch.nn import functional

            image, windows = torch.from_numpy(x), torch.from_numpy(cols)
            if direction == "im2col":
                return torchs(lambda: functional.unfold(image, kernel, **options))
            return torchs(lambda: functional.fold(windows, size, kernel, **options))

        call = {
            "im2col": lambda: cnnfast.im2col(x, kernel, **options),
            "col2im": lambda: cnnfast.col2im(cols, size, kernel, **options),
        }[direction]
        return Contest(Rival(call, lambda result: (result,)), theirs, x.nbytes + cols.nbytes)

    return contest


FUNCTIONS = {
    "pool-forward": Function(layers.POOLS, LAYOUTS, pool_forward),
    "pool-backward": Function(layers.POOLS, LAYOUTS, pool_backward),
    **{
        f"batch_norm2d-{direction}": Function(layers.NORMED, LAYOUTS, batch_norm(direction))
        for direction in ("inference", "forward", "backward")
    },
    **{
        f"group_norm-{direction}": Function(layers.NORMED, LAYOUTS, group_norm(direction))
        for direction in ("forward", "backward")
    },
    **{
        name: Function(layers.UNFOLDED, LAYOUTS[:1], columns(name)) for name in ("im2col", "col2im")
    },
}


def time_size(size: Layer | Pool, contest: Contest, dtype: str, rounds: Rounds) -> dict[str, float]:
    """Check and time one size: ms and GB/s, and the ratios to a copy and to torch."""
    found = {"cnnfast": contest.ours}
    if rivals.has("torch"):
        found["torch"] = contest.torch()
    rivals.check(size, found, rivals.TOLERANCE[dtype])
    source, target = (np.zeros(contest.bytes // 2, np.uint8) for _ in range(2))
    calls = {name: rival.call for name, rival in found.items()}
    seconds = timing.interleaved(calls | {COPY: lambda: np.copyto(target, source)}, rounds)
    own = seconds["cnnfast"]
    ratios = {"torch": seconds["torch"] / own} if "torch" in seconds else {}
    speed = contest.bytes / own / 1e9
    return {"ms": own * 1e3, "GB/s": speed, "copy": seconds[COPY] / own} | ratios


def time_function(
    name: str, function: Function, dtype: str, threads: int, rounds: Rounds
) -> list[dict[str, Any]]:
    """The figures of every size in every layout."""
    rows = []
    with rivals.threads(threads):
        for size, layout in itertools.product(function.table, function.layouts):
            contest = function.contest(size, dtype, layout)
            where = {"function": name, "dtype": dtype, "threads": threads, "layout": layout}
            figures = time_size(size, contest, dtype, rounds)
            rows.append(where | {"layer": size.name} | figures)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """One line a size, its layouts side by side; below them mean and lowest of the ratios."""
    first = rows[0]
    layouts = [layout for layout in LAYOUTS if layout in {row["layout"] for row in rows}]
    figures = [name for name in ("ms", "GB/s", "copy", "torch") if name in first]
    headings = (f"{layout}\n{name}" for layout in layouts for name in figures)
    title = f"{first['function']}, {first['dtype']}, threads: {first['threads']}"
    grid = terminal.grid(f"{title}\nratios: {COPY}'s or torch's time / ours", "", "|", *headings)
    by_layer: dict[str, list[str]] = {}
    ratios: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        for name in figures:
            is_ratio = name in ("copy", "torch")
            shown = terminal.ratio(row[name]) if is_ratio else f"{row[name]:.3g}"
            by_layer.setdefault(row["layer"], []).append(shown)
            if is_ratio:
                ratios.setdefault((row["layout"], name), {})[row["layer"]] = row[name]
    for layer, cells in by_layer.items():
        grid.add_row(layer, *cells)
    grid.add_section()
    sums = {key: comparison.lowest(values) for key, values in ratios.items()}
    for label, part in (("geometric mean", "mean"), ("lowest", "value")):
        keys = ((layout, name) for layout in layouts for name in figures)
        grid.add_row(
            label, *(terminal.ratio(getattr(sums[k], part)) if k in sums else "" for k in keys)
        )
    return grid


def tiny_call(rounds: Rounds) -> dict[str, float]:
    """Microseconds of a pool that is all overhead, float32, one thread."""
    contest = pool_forward(TINY, "float32", "NCHW")
    calls = {"cnnfast": contest.ours.call}
    with rivals.threads(1):
        if rivals.has("torch"):
            calls["torch"] = contest.torch().call
        times = timing.interleaved(calls, rounds)
    return {name: seconds * 1e6 for name, seconds in times.items()}


def measure_all(
    threads: Sequence[int],
    seconds: float,
    console: Console,
    pattern: str | None = None,
    names: Sequence[str] = tuple(FUNCTIONS),
    dtypes: Sequence[str] = DTYPES,
) -> dict[str, Any]:
    """Measure these functions on the sizes of this pattern, and print a table of each."""
    timing.settle_allocator()
    rounds = Rounds(least=3, seconds=seconds)
    record: list[dict[str, Any]] = []
    for name, dtype, count in itertools.product(names, dtypes, threads):
        function = FUNCTIONS[name]
        function = function._replace(table=layers.select(function.table, pattern))
        if not function.table:
            continue
        with console.status(f"{name}, {dtype}, threads: {count}"):
            rows = time_function(name, function, dtype, count, rounds)
        console.print(table(rows))
        record += rows
    tiny = tiny_call(Rounds(5, seconds))
    console.print(f"2x2 max pool of {TINY.name}, us:", tiny, highlight=False)
    return {"tables": record, "tiny": tiny}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--dtype", choices=DTYPES, nargs="+", default=DTYPES)
    parser.add_argument("--only", choices=FUNCTIONS, nargs="+", default=list(FUNCTIONS))
    parser.add_argument("--layers", metavar="PATTERN", help="regular expression of layer names")
    parser.add_argument("--seconds", type=float, default=0.2, help="a measurement, about")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    console = Console()
    if not rivals.has("torch"):
        console.print(next(rivals.absences()), highlight=False)
    record = measure_all(
        options.threads, options.seconds, console, options.layers, options.only, options.dtype
    )
    if options.json:
        record = {"machine": timing.machine(), "memory-bound": record}
        options.json.write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
