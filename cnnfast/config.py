"""What is installed and in use: the lines to put into a bug report."""

from __future__ import annotations

import platform

import numpy as np

from . import cpu
from .algorithms import ALGORITHMS
from .threads import get_num_threads


def version() -> str:
    """Return the version that is installed."""
    from importlib import metadata  # here, because it is slow to import and rarely asked for

    try:
        return metadata.version("cnnfast")
    except metadata.PackageNotFoundError:  # compiled in place, not installed
        return "unknown"


def config() -> dict[str, str]:
    """Return what is installed and in use, as names and values."""
    return {
        "cnnfast": version(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "numpy": np.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "instruction sets": ", ".join(cpu.available()),
        "in use": cpu.current(),
        "threads": str(get_num_threads()),
        "algorithms": ", ".join(algorithm.name for algorithm in ALGORITHMS),
    }


def show_config() -> None:
    """Print what is installed and in use: versions, instruction sets, threads, algorithms.

    Examples
    --------
    >>> import cnnfast
    >>> cnnfast.show_config()  # doctest: +ELLIPSIS
    cnnfast ...
    """
    lines = config()
    width = max(map(len, lines))
    for name, value in lines.items():
        print(f"{name:{width}}  {value}")
