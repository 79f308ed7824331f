"""CS231n's `optim`: the update rules of the course, done.

Swap it in: replace the contents of `cs231n/optim.py` in the assignment by the one line
    from cnnfast.courses.cs231n.optim import *
and the course's Solver, which looks its rules up there, runs as it is. Each rule takes weights,
their gradient and a dictionary of settings, and gives new weights and the dictionary, in which it
keeps what it needs for the next step; what is not in the dictionary is put there.

As in the course, `sgd` changes w in place and the others do not, and `adam` counts t up before it
uses it.

Different from the course's file:
- the new weights keep the dtype of w (there a float64 gradient makes float64 weights);
- `adam` applies its bias corrections to the step and epsilon, which are numbers, and not to the two
  moments, which are arrays: the last bits may differ.

References: Hinton, lecture 6e of "Neural networks for machine learning", 2012 (rmsprop); Kingma
and Ba, arXiv:1412.6980 (adam).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from .._promote import FloatArray

__all__ = ["adam", "np", "rmsprop", "sgd", "sgd_momentum"]

Config: TypeAlias = dict[str, Any]


def sgd(w: FloatArray, dw: FloatArray, config: Config | None = None) -> tuple[FloatArray, Config]:
    """Go down the gradient: `w -= learning_rate * dw`."""
    config = _with_defaults(config, learning_rate=1e-2)
    w -= config["learning_rate"] * dw
    return w, config


def sgd_momentum(
    w: FloatArray, dw: FloatArray, config: Config | None = None
) -> tuple[FloatArray, Config]:
    """Keep going: `velocity = momentum * velocity - learning_rate * dw; w += velocity`."""
    config = _with_defaults(config, learning_rate=1e-2, momentum=0.9, velocity=np.zeros_like(w))
    step = config["learning_rate"] * dw
    config["velocity"] = _like(w, config["momentum"] * config["velocity"] - step)
    return w + config["velocity"], config


def rmsprop(
    w: FloatArray, dw: FloatArray, config: Config | None = None
) -> tuple[FloatArray, Config]:
    """Divide the gradient by the root of the running mean of its squares."""
    config = _with_defaults(
        config, learning_rate=1e-2, decay_rate=0.99, epsilon=1e-8, cache=np.zeros_like(w)
    )
    decay = config["decay_rate"]
    cache = config["cache"] = _like(w, decay * config["cache"] + (1 - decay) * (dw * dw))
    return w - _like(w, config["learning_rate"] * dw / (np.sqrt(cache) + config["epsilon"])), config


def adam(w: FloatArray, dw: FloatArray, config: Config | None = None) -> tuple[FloatArray, Config]:
    """Divide the running mean of the gradient by the root of that of its squares."""
    config = _with_defaults(config, learning_rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8, t=0)
    _with_defaults(config, m=np.zeros_like(w), v=np.zeros_like(w))
    beta1, beta2 = config["beta1"], config["beta2"]
    config["t"] += 1
    m = config["m"] = _like(w, beta1 * config["m"] + (1 - beta1) * dw)
    v = config["v"] = _like(w, beta2 * config["v"] + (1 - beta2) * (dw * dw))
    # m and v began at 0: so much of their true means they have seen.
    seen, seen_root = 1 - beta1 ** config["t"], (1 - beta2 ** config["t"]) ** 0.5
    scale = np.sqrt(v)
    scale += config["epsilon"] * seen_root
    step = m / scale
    step *= config["learning_rate"] * seen_root / seen
    return w - step, config


def _with_defaults(config: Config | None, **defaults: Any) -> Config:
    """Put into config what is missing there."""
    config = {} if config is None else config
    for name, value in defaults.items():
        config.setdefault(name, value)
    return config


def _like(w: FloatArray, values: FloatArray) -> FloatArray:
    """Values in the dtype of w."""
    return values.astype(w.dtype, copy=False)
