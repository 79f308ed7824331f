"""Which functions of a course a namespace has, and which of them belong together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from .conventions import LAYERS, Layer


class Task(NamedTuple):
    """A function to check: its name in the namespace, and which row of `LAYERS` it is."""

    name: str
    row: int

    @property
    def layer(self) -> Layer:
        """Return that row."""
        return LAYERS[self.row]

    @property
    def label(self) -> str:
        """Return what to call it in a report."""
        return f"{self.name}, {self.layer.mode}" if self.layer.mode else self.name


class Other(NamedTuple):
    """A function that has a course's name and takes other arguments."""

    name: str
    course: str
    parameters: str


def find(
    namespace: Mapping[str, Any], module: str | None = None, course: str | None = None
) -> tuple[list[Task], list[Other]]:
    """Find a course's functions in a namespace: those to check, and those that look otherwise.

    With `module`, only what that module defines itself. Where several courses have a function of
    this name and these parameters, the one counts of which the namespace has more.
    """
    named: dict[str, list[Task]] = {}
    for name, value in namespace.items():
        if callable(value) and (module is None or getattr(value, "__module__", None) == module):
            rows_of_name = [
                Task(name, row)
                for row, each in enumerate(LAYERS)
                if re.fullmatch(each.pattern, name) and course in (None, each.course)
            ]
            if rows_of_name:
                named[name] = rows_of_name
    callable_as = {
        name: [task for task in tasks if task.layer.fits(namespace[name]) is not False]
        for name, tasks in named.items()
    }
    votes: dict[str, float] = {}
    for tasks in callable_as.values():
        for task in tasks:
            votes[task.layer.course] = votes.get(task.layer.course, 0) + 1 / len(tasks)
    found, others = [], []
    for name, tasks in callable_as.items():
        if tasks:
            winner = max((task.layer.course for task in tasks), key=votes.__getitem__)
            found += [task for task in tasks if task.layer.course == winner]
        else:
            near = named[name][0].layer
            others.append(Other(name, near.course, near.parameters))
    return found, others


def partner(task: Task, tasks: list[Task]) -> Task | None:
    """Return the forward function to which a function with gradients belongs, among all."""
    layer = task.layer
    if not any(answer.startswith("d") for _, answer, _ in layer.outputs):
        return None
    for each in tasks:
        same = each.layer.course == layer.course and each.layer.problems == layer.problems
        if same and each.name == layer.partner(task.name) and each.layer.outputs[0].answer == "y":
            return each
    return None
