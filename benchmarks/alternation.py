"""A convolution in turn with a matrix product, as in every training step, against both alone.

NumPy's OpenBLAS keeps its workers spinning after a product for 2**28 cycles, a tenth of a second,
on the cores of whoever comes next; the environment variable OPENBLAS_THREAD_TIMEOUT=10 lets them
sleep after 2**10, and ``cnnfast.linear`` needs no BLAS. OpenBLAS reads the variable when it is
loaded, so every measurement is a process of its own: this file, run as a program.

    python benchmarks/alternation.py THREADS SECONDS
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import layers
import numpy as np
import rivals
import timing
from layers import Layer
from rivals import ONNXRUNTIME, Setting
from timing import Call, Rounds

import cnnfast

LAYERS = ("cs231n-threelayer", "lenet-conv2")  # of 2 to 8 ms on two threads
SIZE = 512  # of the square matrices
TIMEOUT = "OPENBLAS_THREAD_TIMEOUT"
SAMPLE_SECONDS = 0.1  # of a sample: many turns, which begin with everybody asleep
MATMUL, LINEAR = "matmul", "linear"


def measure(threads: int, seconds: float, timeout: str | None) -> list[dict[str, str | float]]:
    """All pairs of all layers, in a process with this timeout, or without any."""
    environment = {name: value for name, value in os.environ.items() if name != TIMEOUT}
    if timeout is not None:
        environment[TIMEOUT] = timeout
    command = [sys.executable, Path(__file__), str(threads), str(seconds)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def time_pairs(layer: Layer, threads: int, seconds: float) -> list[dict[str, str | float]]:
    """All pairs of one layer, side by side in this process."""
    setting = Setting("float32", "forward", threads)
    rng = np.random.default_rng(0)
    found = rivals.rivals(layer, layers.make(layer, "float32", rng), setting, ["NCHW"])
    found.pop(ONNXRUNTIME, None)  # its workers stop with each run: it has nothing to show here
    a, b = (rng.standard_normal((SIZE, SIZE)).astype("float32") for _ in range(2))
    ours = rivals.ours("NCHW")
    convolutions = {name: rival.call for name, rival in found.items()}
    products = {MATMUL: lambda: np.matmul(a, b), LINEAR: lambda: cnnfast.linear(a, b)}
    pairs = {
        (convolution, product): in_turn(convolutions[convolution], products[product])
        for convolution in convolutions
        for product in (products if convolution == ours else (MATMUL,))
    }
    rounds = Rounds(least=5, seconds=seconds, sample=SAMPLE_SECONDS)
    calls = convolutions | products | pairs
    times = timing.interleaved(calls, rounds)
    return [
        {
            "layer": layer.name,
            "convolution": convolution,
            "product": product,
            "sum ms": (times[convolution] + times[product]) * 1e3,
            "pair ms": times[convolution, product] * 1e3,
            "pair / sum": times[convolution, product] / (times[convolution] + times[product]),
            "ratio": times[convolution, product] / times[ours, MATMUL],
        }
        for convolution, product in pairs
    ]


def in_turn(first: Call, second: Call) -> Call:
    """One call after the other."""
    return lambda: (first(), second())


def main(threads: str, seconds: str) -> None:
    timing.settle_allocator()
    with rivals.threads(int(threads)):
        table = [layer for layer in layers.CONVS if layer.name in LAYERS]
        rows = [row for layer in table for row in time_pairs(layer, int(threads), float(seconds))]
    print(json.dumps(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
