"""The most memory that a large convolution takes beyond its inputs and outputs.

The system counts the most pages that a process ever held, so every measurement is a process of its
own: this file, run as a program. Linux only.

    python benchmarks/memory.py ALGORITHM LAYOUT
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from layers import Layer
from numpy.typing import NDArray
from rivals import LAYOUTS

import cnnfast

LAYER = Layer("64 images", 64, 64, 56, 56, 64, 3, 3, padding=1)
FIRST = Layer("one cell", 1, 64, 1, 1, 64, 3, 3, padding=1)  # takes what is only taken once
STATUS = Path("/proc/self/status")
MIB = 2**20


def measure() -> list[dict[str, str | float]]:
    """The peaks of cnnfast's choice and of its im2col, and what all columns at once would take."""
    if not STATUS.exists():
        return []
    rows = []
    for layout in LAYOUTS:
        for algorithm in ("auto", "im2col"):
            command = [sys.executable, Path(__file__), algorithm, layout]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            rows.append({"algorithm": algorithm, "cnnfast": layout} | json.loads(done.stdout))
    columns = LAYER.flops / (2 * LAYER.F) * np.dtype("float32").itemsize / MIB
    whole = {"algorithm": "all columns at once", "cnnfast": "", "forward MiB": columns}
    return [*rows, whole | {"with backward MiB": columns}]


def most_resident() -> int:
    """The most bytes that this process ever held."""
    return int(STATUS.read_text().split("VmHWM:")[1].split()[0]) * 1024


def ones(shape_nchw: tuple[int, int, int, int], layout: str) -> NDArray[np.float32]:
    """An array without a temporary, which the system would count."""
    N, C, H, W = shape_nchw
    return np.ones((N, C, H, W) if layout == "NCHW" else (N, H, W, C), np.float32)


def peaks(layer: Layer, algorithm: str, layout: str) -> dict[str, float]:
    """What forward, and forward with backward, took beyond inputs and outputs."""
    x, dy = (ones(shape, layout) for shape in (layer.x_shape, layer.y_shape))
    w, b = np.ones(layer.w_shape, np.float32), np.ones(layer.F, np.float32)
    before = most_resident()
    options = layer.options | {"layout": layout, "algorithm": algorithm}
    y, cache = cnnfast.conv2d_forward(x, w, b, **options)
    forward = most_resident() - before - y.nbytes
    gradients = cnnfast.conv2d_backward(dy, cache)
    both = most_resident() - before - y.nbytes - sum(each.nbytes for each in gradients)
    return {"forward MiB": forward / MIB, "with backward MiB": both / MIB}


def main(algorithm: str, layout: str) -> None:
    peaks(FIRST, algorithm, layout)
    print(json.dumps(peaks(LAYER, algorithm, layout)))


if __name__ == "__main__":
    main(*sys.argv[1:])
