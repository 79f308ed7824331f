"""From what a function gave for its problems to what a teacher says about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .conventions import CACHE, Output
from .diagnose import Results, accepted, diagnose, is_broken, is_right
from .execute import Failure, Outcome
from .numerical import relative_error
from .problems import Array, Problem
from .tasks import Task

GENERAL = ("general", "gradient")  # topics that are judged together, and first
SPECIAL = ("misfit", "ties", "test", "float32", "integers")  # and then each by itself
ONLY_REMARKED = ("integers",)  # no course asks for it
AGREE = 1e-6  # relative error of a gradient against a numerical one

FOLLOWS_FORWARD = (
    "It is the right gradient of your own forward function; but that is wrong itself. Repair it"
    " first, and then this one."
)
IN_PLACE = (
    "It changes {} in place: whoever called still needs it. Work on a copy, or write into a new"
    " array."
)
FLOAT32_LOST = (
    "float32 comes back as float64, which takes twice the memory and time: np.zeros is float64"
    " unless it is given dtype=x.dtype."
)


@dataclass
class Fault:
    """Something that is wrong, or worth a remark."""

    mistake: str | None  # its key; None: not recognised
    sentence: str
    outputs: list[str] = field(default_factory=list)
    problem: str = ""  # the first one where it shows
    call: str = ""
    wrong: list[str] = field(default_factory=list)  # all of those
    right: list[str] = field(default_factory=list)
    asked: int = 0  # problems, with those that another fault is about
    failure: Failure | None = None
    index: tuple[int, ...] | None = None  # the number that is farthest off
    expected: float | None = None
    got: float | None = None
    differing: int = 0  # numbers that are off
    expected_shape: tuple[int, ...] = ()
    got_shape: tuple[int, ...] = ()


@dataclass
class Finding:
    """What there is to say about one function."""

    name: str
    course: str
    problems: int
    faults: list[Fault] = field(default_factory=list)
    remarks: list[Fault] = field(default_factory=list)
    gradient: dict[str, float] = field(default_factory=dict)  # relative errors

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


def judge(
    task: Task, outcomes: Sequence[Outcome], slopes: Mapping[str, Array] | None = None
) -> Finding:
    """Compare the outcomes of all problems of a function with what is right."""
    problems = task.layer.all_problems()
    results = list(zip(problems, outcomes, strict=False))
    finding = Finding(task.label, task.layer.course, len(results))
    for output in task.layer.outputs:
        follows = _follows_forward(task, output, results, slopes)
        general = [each for each in results if each[0].topic in GENERAL]
        faults = [follows] if follows else _faults(task, output, general)
        if faults:
            finding.faults += faults
            continue
        for topic in SPECIAL:
            alone = [each for each in results if each[0].topic == topic]
            fault = _fault(task, output, alone, topic)
            if fault is not None:
                harmless = topic in ONLY_REMARKED or fault.mistake == "misfit-asserted"
                (finding.remarks if harmless else finding.faults).append(fault)
    if finding.passed:  # else what is kept would only be wrong for the same reason
        trained = [each for each in results if each[0].topic in GENERAL]
        for output in task.layer.kept:
            finding.faults += _faults(task, output, trained)
    _share(finding.faults)
    finding.faults, finding.remarks = _merged(finding.faults), _merged(finding.remarks)
    _observe(task, results, finding)
    if slopes is not None:
        finding.gradient = _gradient_errors(task, results, slopes)
    return finding


# One answer.


def _faults(task: Task, output: Output, results: Results) -> list[Fault]:
    """Return what is wrong with one answer: a mistake, or two, of which one ends in errors."""
    fault = _fault(task, output, results)
    if fault is None or fault.mistake is not None:
        return [fault] if fault else []

    numbers = [(p, outcome) for p, outcome in results if not is_broken(output, outcome)]
    errors = [each for each in results if each not in numbers]
    rest_right = [(p, Outcome({output.answer: accepted(task, output, p)[0]})) for p, _ in numbers]
    apart = [_fault(task, output, numbers), _fault(task, output, errors + rest_right)]
    both = [each for each in apart if each is not None]
    for each in both:
        each.asked = len(results)
    return both if len(both) == 2 and any(each.mistake for each in both) else [fault]


def _fault(task: Task, output: Output, results: Results, topic: str = "general") -> Fault | None:
    """Return what is wrong with one answer of a group of problems, or None."""
    wrong = [each for each in results if not is_right(task, output, *each)]
    if not wrong:
        return None
    mistake, sentence = diagnose(task, output, results, wrong, topic)
    compared = [each for each in wrong if each[1].failure is None]
    p, outcome = (compared or wrong)[0]
    fault = Fault(
        mistake,
        sentence,
        [output.name],
        p.name,
        _call(task, p),
        wrong=[each.name for each, _ in wrong],
        right=[each.name for each, _ in results if each.name not in {q.name for q, _ in wrong}],
        asked=len(results),
        failure=next((each.failure for _, each in wrong if each.failure), None),
    )
    if compared:
        _locate(fault, accepted(task, output, p)[0], outcome.values[output.answer], p)
    return fault


def _locate(fault: Fault, expected: Array, got: Array, p: Problem) -> None:
    """Say where two arrays differ most."""
    fault.expected_shape, fault.got_shape = expected.shape, got.shape
    if expected.shape == got.shape:
        off = np.abs(expected * 1.0 - got)
        off = np.where(np.isnan(off), np.inf, off)
        scale = np.max(np.abs(expected), initial=0)
        fault.differing = int(np.sum(off > 1e-9 * (np.abs(expected) + scale)))
        index = np.unravel_index(np.argmax(off), off.shape)
        fault.index = tuple(map(int, index))
        fault.expected, fault.got = float(expected[index]), float(got[index])


def _call(task: Task, p: Problem) -> str:
    """Write the call down, arrays by their shapes."""
    written = []
    for name, value in zip(task.layer.names, task.layer.arguments(p), strict=False):
        if value is CACHE:
            written.append(name)
        elif isinstance(value, np.ndarray):
            written.append(f"{name} {'x'.join(map(str, value.shape)) or 'a number'}")
        elif name != "settings":
            written.append(f"{name} {value}")
    if task.layer.forward is not None:
        given = task.layer.forward.arguments(p)
        written += [f"{value}" for value in given if isinstance(value, dict)]
    return ", ".join(written)


# The function as a whole.


def _follows_forward(
    task: Task,
    output: Output,
    results: Results,
    slopes: Mapping[str, Array] | None,
) -> Fault | None:
    """Tell of a gradient that is wrong and yet the gradient of the student's own forward."""
    for p, outcome in results:
        if slopes and p.topic == "gradient" and output.answer in slopes and not outcome.failure:
            got = outcome.values[output.answer]
            same = got.shape == slopes[output.answer].shape
            wrong = not is_right(task, output, p, outcome)
            if wrong and same and relative_error(got, slopes[output.answer]) < AGREE:
                fault = _fault(task, output, [(p, outcome)])
                assert fault is not None
                fault.mistake, fault.sentence = "follows-wrong-forward", FOLLOWS_FORWARD
                return fault
    return None


def _gradient_errors(task: Task, results: Results, slopes: Mapping[str, Array]) -> dict[str, float]:
    """Return the relative error of each gradient against the numerical one."""
    errors = {}
    for p, outcome in results:
        if p.topic == "gradient" and outcome.failure is None:
            for name, answer, _ in task.layer.outputs:
                got, slope = outcome.values[answer], slopes.get(answer)
                if slope is not None and got.shape == slope.shape:
                    errors[name] = relative_error(got, slope)
    return errors


def _observe(task: Task, results: Results, finding: Finding) -> None:
    """Add what shows in the arguments and dtypes: changed in place, float32 lost."""
    changed = {name: p for p, outcome in reversed(results) for name in outcome.changed}
    if changed:
        first = next(p for p, outcome in results if outcome.changed)
        names = " and ".join(sorted(changed))
        finding.faults.append(
            Fault("in-place", IN_PLACE.format(names), [], first.name, _call(task, first))
        )
    for p, outcome in results:
        lost = [
            output.name
            for output in task.layer.outputs
            if output.answer in outcome.values and outcome.values[output.answer].dtype == np.float64
        ]
        if p.topic == "float32" and lost and task.layer.keeps_dtype and finding.passed:
            fault = Fault("float32-lost", FLOAT32_LOST, lost, p.name, _call(task, p))
            finding.remarks.append(fault)


def _share(faults: Sequence[Fault]) -> None:
    """Where an error keeps all answers away, and one of them tells why, say that of the others."""
    told = {fault.failure: fault for fault in faults if fault.mistake and fault.failure}
    for fault in faults:
        if fault.mistake is None and fault.index is None and fault.failure in told:
            other = told[fault.failure]
            fault.mistake, fault.sentence = other.mistake, other.sentence


def _merged(faults: Sequence[Fault]) -> list[Fault]:
    """Say once what is the matter with several answers alike."""
    merged: dict[Any, Fault] = {}
    for fault in faults:
        numberless = fault.index is None and not fault.got_shape
        key = (fault.mistake, fault.sentence, fault.failure, fault.problem, numberless or id(fault))
        if key in merged:
            merged[key].outputs += fault.outputs
        else:
            merged[key] = fault
    return list(merged.values())
