"""Run one function of a student on one problem, and say what came of it, whatever that is."""

from __future__ import annotations

import copy
import linecache
import sysconfig
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .conventions import CACHE, Layer
from .numerical import numerical_gradient
from .problems import Array, Problem
from .tasks import Task

FOREIGN = [  # folders whose code is not the student's
    str(Path(__file__).parent),
    str(Path(np.__file__).parent),
    sysconfig.get_paths()["stdlib"],
]
MAY_TAKE = 5.0  # seconds, that a numerical gradient may take


class Failure(NamedTuple):
    """Why there is no result: an error, with the student's own line of it, or something else."""

    kind: str  # "raised", "cell" (of a notebook) raised, "returned" something else, "hung", "died"
    message: str
    file: str | None = None
    line: int | None = None
    source: str | None = None


class Outcome(NamedTuple):
    """What a function gave for a problem: an array for each answer, or a failure."""

    values: Mapping[str, Array]
    failure: Failure | None = None
    changed: tuple[str, ...] = ()  # arguments that are not what they were


def failure_of(error: BaseException) -> Failure:
    """Say what was raised, and in which line of the student's."""
    message = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, SyntaxError):
        return Failure("raised", message, error.filename, error.lineno, (error.text or "").strip())
    frames = traceback.extract_tb(error.__traceback__)
    own = [each for each in frames if not each.filename.startswith(tuple(FOREIGN))]
    if not own:
        return Failure("raised", message)
    last = own[-1]
    source = last.line or linecache.getline(last.filename, last.lineno or 0).strip()
    return Failure("raised", message, last.filename, last.lineno, source)


def run(task: Task, p: Problem, namespace: Mapping[str, Any]) -> Outcome:
    """Call a function for a problem, with the cache of its forward function if it takes one."""
    layer, function = task.layer, namespace[task.name]
    with np.errstate(all="ignore"):
        try:
            arguments, watched = _fresh(layer.arguments(p), layer.names)
            if layer.forward is not None:
                cache, seen = _cache(task, p, namespace)
                arguments = [cache if each is CACHE else each for each in arguments]
                watched += seen
            before = [copy.deepcopy(array) for _, array in watched]
            values = _arrays(layer, layer.invoke(function, arguments))
            for key, answer, _ in layer.kept:
                values[answer] = _array(key, arguments[-1].get(key, ()))
        except _Unusable as error:
            return Outcome({}, Failure("returned", str(error)))
        except (Exception, SystemExit) as error:
            return Outcome({}, failure_of(error))
    changed = [
        name
        for (name, array), old in zip(watched, before, strict=True)
        if not np.array_equal(array, old, equal_nan=True)
    ]
    return Outcome(values, changed=tuple(dict.fromkeys(changed)))


def slopes(
    task: Task, forward: Task, p: Problem, namespace: Mapping[str, Any]
) -> Mapping[str, Array] | None:
    """Return the gradients of the student's own forward function, in the layout of `task`.

    None where it fails, gives another shape than dy has, or takes too long.
    """
    end = time.monotonic() + MAY_TAKE
    (_, _, layout), *_ = forward.layer.outputs
    dy = layout(p.dy, p) if p.dy.size else np.ones(())

    def moved(name: str) -> Callable[[Array], Array]:
        def f(value: Array) -> Array:
            if time.monotonic() > end:
                raise TimeoutError
            outcome = run(forward, p.but(**{name: value}), namespace)
            if outcome.failure or outcome.values["y"].shape != dy.shape:
                raise _Unusable
            return outcome.values["y"]

        return f

    try:
        return {
            answer: layout_of(numerical_gradient(moved(answer[1:]), getattr(p, answer[1:]), dy), p)
            for _, answer, layout_of in task.layer.outputs
            if answer.startswith("d")
        }
    except (_Unusable, TimeoutError):
        return None


class _Unusable(Exception):
    """The function returned, but not what the course's returns."""


def _fresh(
    arguments: Sequence[Any], names: Sequence[str]
) -> tuple[list[Any], list[tuple[str, Array]]]:
    """Return arguments of one's own, arrays in C order, and those that must stay as they are."""
    own = [
        np.array(each, order="C") if isinstance(each, np.ndarray) else copy.deepcopy(each)
        for each in arguments
    ]
    named = zip(names, own, strict=False)
    return own, [(name, each) for name, each in named if isinstance(each, np.ndarray)]


def _cache(
    task: Task, p: Problem, namespace: Mapping[str, Any]
) -> tuple[Any, list[tuple[str, Array]]]:
    """Return the cache of the student's forward function, or else the one that is documented."""
    layer = task.layer
    assert layer.forward is not None
    given, watched = _fresh(layer.forward.arguments(p), layer.forward.names)
    forward = namespace.get(layer.partner(task.name))
    if forward is not None:
        try:
            result = layer.forward.invoke(forward, given)
            if isinstance(result, tuple) and len(result) == layer.forward.count:
                return result[-1], watched
        except (Exception, SystemExit):  # it is checked by itself
            pass
    if layer.documented_cache is None:
        needed = layer.partner(task.name)
        raise _Unusable(f"takes the cache of {needed}, which is not here or fails")
    cache = layer.documented_cache(p)
    if isinstance(cache, np.ndarray):
        return cache.copy(), []
    return tuple(_fresh(cache, ())[0]), []


def _arrays(layer: Layer, result: Any) -> dict[str, Array]:
    """Take what was returned apart, and see that each part is an array of numbers."""
    parts = (result,) if layer.count == 1 else result
    if not isinstance(parts, tuple | list) or len(parts) != layer.count:
        raise _Unusable(f"returns {_describe(result)} where {layer.returns} is needed")
    named = zip(layer.outputs, parts, strict=False)
    return {answer: _array(name, part) for (name, answer, _), part in named}


def _array(name: str, part: Any) -> Array:
    """Take an answer for an array, and see that it is one of numbers."""
    try:
        array = np.array(part)
    except ValueError:  # rows of several lengths
        array = np.array(None)
    if array.dtype.kind not in "biuf":
        raise _Unusable(f"returns {_describe(part)} for {name}, where an array is needed")
    return array


def _describe(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, np.ndarray):
        return f"one array of shape {value.shape}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
