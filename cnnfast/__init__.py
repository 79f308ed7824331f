"""Convolution and pooling for NumPy arrays on the CPU: plain functions, forward and backward."""

from __future__ import annotations

from typing import TYPE_CHECKING

try:
    from . import _engine, _im2col, _naive, _norm, _tiled, _winograd  # noqa: F401
except ImportError as error:
    if not (error.name or "").startswith("cnnfast"):  # NumPy is what is missing
        raise
    raise ImportError(
        "cnnfast is not compiled here: run `python -m pip install .` in its source folder,"
        f" and import it from elsewhere ({error})"
    ) from None

from . import cpu
from .algorithms import Plan, plan_conv2d
from .columns import col2im, im2col
from .config import show_config
from .conv import (
    conv2d,
    conv2d_backward,
    conv2d_forward,
    conv_transpose2d,
    conv_transpose2d_backward,
    conv_transpose2d_forward,
)
from .linear import linear, linear_backward, linear_forward
from .norm import (
    batch_norm2d,
    batch_norm2d_backward,
    batch_norm2d_forward,
    group_norm,
    group_norm_backward,
    group_norm_forward,
)
from .pool import (
    avg_pool2d,
    avg_pool2d_backward,
    avg_pool2d_forward,
    global_avg_pool2d,
    global_avg_pool2d_backward,
    global_avg_pool2d_forward,
    global_max_pool2d,
    global_max_pool2d_backward,
    global_max_pool2d_forward,
    max_pool2d,
    max_pool2d_backward,
    max_pool2d_forward,
)
from .threads import get_num_threads, num_threads, set_num_threads

if TYPE_CHECKING:
    from types import ModuleType

    from . import reference

    __version__: str

__all__ = [
    "Plan",
    "__version__",
    "avg_pool2d",
    "avg_pool2d_backward",
    "avg_pool2d_forward",
    "batch_norm2d",
    "batch_norm2d_backward",
    "batch_norm2d_forward",
    "col2im",
    "conv2d",
    "conv2d_backward",
    "conv2d_forward",
    "conv_transpose2d",
    "conv_transpose2d_backward",
    "conv_transpose2d_forward",
    "cpu",
    "get_num_threads",
    "global_avg_pool2d",
    "global_avg_pool2d_backward",
    "global_avg_pool2d_forward",
    "global_max_pool2d",
    "global_max_pool2d_backward",
    "global_max_pool2d_forward",
    "group_norm",
    "group_norm_backward",
    "group_norm_forward",
    "im2col",
    "linear",
    "linear_backward",
    "linear_forward",
    "max_pool2d",
    "max_pool2d_backward",
    "max_pool2d_forward",
    "num_threads",
    "plan_conv2d",
    "reference",
    "set_num_threads",
    "show_config",
]


def __getattr__(name: str) -> ModuleType | str:
    """Get at first use what would make the import slow."""
    if name == "__version__":
        from .config import version

        return version()
    if name == "reference":
        from importlib import import_module

        return import_module(".reference", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
