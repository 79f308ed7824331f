"""What the times of many layers come to: ratios, per cent of the peak, and tables of them.

A ratio is a rival's time to ours, so above 1 where cnnfast is the faster. "Best" is the faster of
two rivals, on each layer anew: of torch and onnxruntime in NCHW, or of torch's two layouts.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import terminal
from layers import Layer
from rich.table import Table
from rivals import LAYOUTS, ONNXRUNTIME, Setting, ours, torch

LEGEND = (
    "ratios: a rival's time / cnnfast's time\n"
    "best NCHW: of torch and onnxruntime; best torch: of its layouts"
)
LONG_SECONDS = 5e-3  # of one thread: layers above this are expected to gain from a second


class Comparison(NamedTuple):
    """cnnfast in one layout against the fastest of some rivals."""

    layout: str
    rivals: tuple[str, ...]
    name: str

    def fits(self, seconds: dict[str, float]) -> bool:
        """Whether everybody was timed."""
        return {ours(self.layout), *self.rivals} <= seconds.keys()

    def ratio(self, seconds: dict[str, float]) -> float:
        return min(seconds[rival] for rival in self.rivals) / seconds[ours(self.layout)]


BOTH = (torch("NCHW"), torch("NHWC"))
COMPARISONS = (
    Comparison("NCHW", (torch("NCHW"),), "torch NCHW"),
    Comparison("NCHW", (torch("NCHW"), ONNXRUNTIME), "best NCHW"),
    Comparison("NCHW", BOTH, "best torch"),
    Comparison("NHWC", (torch("NHWC"),), "torch NHWC"),
    Comparison("NHWC", BOTH, "best torch"),
)


@dataclass(frozen=True)
class Timed:
    """The times of one layer in one setting."""

    layer: Layer
    setting: Setting
    seconds: dict[str, float]  # by rival
    peak: float  # FLOP/s of all threads

    @property
    def flops(self) -> int:
        return self.layer.flops * (2 if self.setting.direction == "backward" else 1)

    @property
    def comparisons(self) -> list[Comparison]:
        """Those in which everybody was timed."""
        return [comparison for comparison in COMPARISONS if comparison.fits(self.seconds)]

    def gflops(self, layout: str) -> float:
        """Our speed, in GFLOP/s of the direct formula."""
        return self.flops / self.seconds[ours(layout)] / 1e9

    def percent(self, layout: str) -> float:
        """Our speed in per cent of the peak."""
        return 100 * self.gflops(layout) * 1e9 / self.peak

    def record(self) -> dict[str, Any]:
        """All of this as plain numbers and names."""
        return {
            "layer": self.layer.name,
            **self.setting._asdict(),
            "seconds": self.seconds,
            "ratios": {f"{c.layout} / {c.name}": c.ratio(self.seconds) for c in self.comparisons},
            "percent": {layout: self.percent(layout) for layout in self.layouts},
        }

    @property
    def layouts(self) -> list[str]:
        """Those in which cnnfast was timed."""
        return [layout for layout in LAYOUTS if ours(layout) in self.seconds]


class Lowest(NamedTuple):
    """Numbers of many layers: their geometric mean, the lowest, and where that is."""

    mean: float
    value: float
    layer: str


def lowest(values: dict[str, float]) -> Lowest:
    """Sum up the number of each layer."""
    layer = min(values, key=values.__getitem__)
    return Lowest(statistics.geometric_mean(values.values()), values[layer], layer)


def layer_table(timed: Sequence[Timed], layout: str) -> Table:
    """One line a layer, all of one setting; below them the mean and the lowest of each ratio."""
    comparisons = [c for c in timed[0].comparisons if c.layout == layout]
    names = [c.name.replace(" ", "\n") for c in comparisons]
    headings = "layer", "|", "ms", "GFLOP/s", "%\npeak", *names
    title = f"{timed[0].setting}, cnnfast in {layout}\n{LEGEND}"
    grid = terminal.grid(title, *headings)
    for t in timed:
        speed = f"{t.gflops(layout):.1f}", f"{t.percent(layout):.0f}"
        ratios = (terminal.ratio(c.ratio(t.seconds)) for c in comparisons)
        grid.add_row(t.layer.name, f"{t.seconds[ours(layout)] * 1e3:.3f}", *speed, *ratios)
    grid.add_section()
    sums = [lowest(ratios_of(c, timed)) for c in comparisons]
    means = (terminal.ratio(s.mean) for s in sums)
    grid.add_row("geometric mean", "", "", "", *means, style="bold")
    grid.add_row("lowest", "", "", "", *(terminal.ratio(s.value) for s in sums))
    return grid


def ratios_of(comparison: Comparison, timed: Sequence[Timed]) -> dict[str, float]:
    """The ratio of each layer."""
    return {t.layer.name: comparison.ratio(t.seconds) for t in timed}


def summary(timed: Sequence[Timed]) -> Table:
    """The ratios, the per cent of the peak, and what a second thread brings, of each setting."""
    long = f"above {LONG_SECONDS * 1e3:.0f} ms"
    title = f"{LEGEND}\n% of peak: compute-bound layers; one thread: layers {long}"
    grid = terminal.grid(title, "", "|", "geometric\nmean", "lowest", "at")
    groups = by_setting(timed)
    for setting, group in groups.items():
        grid.add_row(str(setting), style="bold")
        for c in group[0].comparisons:
            mean, value, layer = lowest(ratios_of(c, group))
            figures = terminal.ratio(mean), terminal.ratio(value)
            grid.add_row(f"  {c.layout} / {c.name}", *figures, layer)
        for layout in group[0].layouts:
            percent = {t.layer.name: t.percent(layout) for t in group if is_compute_bound(t.layer)}
            if percent:
                mean, value, layer = lowest(percent)
                grid.add_row(f"  {layout}, % of peak", f"{mean:.0f}", f"{value:.0f}", layer)
            gains = gains_of_threads(groups.get(setting._replace(threads=1), []), group, layout)
            if gains and setting.threads > 1:
                mean, value, layer = lowest(gains)
                label = f"  {layout} / one thread"
                grid.add_row(label, f"{mean:.2f}", f"{value:.2f}", layer)
        grid.add_section()
    return grid


def by_setting(timed: Sequence[Timed]) -> dict[Setting, list[Timed]]:
    """The layers of each setting, in order."""
    groups: dict[Setting, list[Timed]] = {}
    for t in timed:
        groups.setdefault(t.setting, []).append(t)
    return groups


def is_compute_bound(layer: Layer) -> bool:
    """Whether arithmetic, not memory, should bound a layer: 3x3 or 1x1, of many channels."""
    kernel = layer.KH == layer.KW in (1, 3)
    return kernel and layer.groups == 1 and min(layer.C, layer.F) >= 64


def gains_of_threads(
    one: Sequence[Timed], several: Sequence[Timed], layout: str
) -> dict[str, float]:
    """How much faster several threads are than one, on layers that are long for one."""
    name = ours(layout)
    pairs = zip(one, several, strict=False)  # none where one thread was not timed
    return {
        a.layer.name: a.seconds[name] / b.seconds[name]
        for a, b in pairs
        if a.seconds[name] > LONG_SECONDS
    }
