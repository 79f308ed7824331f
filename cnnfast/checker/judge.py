"""From what a function gave for its problems to what a teacher says about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .conventions import CACHE, Output, Task
from .execute import Failure, Outcome
from .mistakes import MISTAKES, RELATIONS
from .numerical import relative_error
from .problems import Array, Problem, answers

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
REFUSES_MISFIT = "A stride that does not fit is refused, with an assertion. That is a way, too."


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
    _share(finding.faults)
    finding.faults, finding.remarks = _merged(finding.faults), _merged(finding.remarks)
    _observe(task, results, finding)
    if slopes is not None:
        finding.gradient = _gradient_errors(task, results, slopes)
    return finding


# One answer.


def is_right(task: Task, output: Output, p: Problem, outcome: Outcome) -> bool:
    """Tell whether an answer is one that the course takes for right."""
    return outcome.failure is None and any(
        _close(expected, outcome.values[output.answer], p)
        for expected in _accepted(task, output, p)
    )


def _accepted(task: Task, output: Output, p: Problem) -> list[Array]:
    """Return all answers that are right, the usual one first."""
    ties = task.layer.ties if p.topic == "ties" else ("first",)
    return [output.layout(answers(p, rule)[output.answer], p) for rule in ties]


def _close(expected: Array, got: Array, p: Problem) -> bool:
    """Tell whether two arrays are the same but for rounding; NaN is anything."""
    if expected.shape != got.shape:
        return False
    expected, got = expected * 1.0, got * 1.0  # from booleans and integers
    tolerance = 1e-4 if p.topic == "float32" else 1e-9
    scale = np.max(np.abs(expected), initial=0, where=~np.isnan(expected))
    unlike = np.abs(expected - got) > tolerance * (np.abs(expected) + scale)
    return not np.any(unlike | (np.isnan(got) & ~np.isnan(expected)))


def _faults(task: Task, output: Output, results: Sequence[tuple[Problem, Outcome]]) -> list[Fault]:
    """Return what is wrong with one answer: a mistake, or two, of which one ends in errors."""
    fault = _fault(task, output, results)
    if fault is None or fault.mistake is not None:
        return [fault] if fault else []

    def broken(outcome: Outcome) -> bool:
        return bool(outcome.failure) or outcome.values[output.answer].size == 0

    numbers = [(p, outcome) for p, outcome in results if not broken(outcome)]
    errors_alone = [
        (p, outcome if broken(outcome) else Outcome({output.answer: _accepted(task, output, p)[0]}))
        for p, outcome in results
    ]
    apart = [_fault(task, output, numbers), _fault(task, output, errors_alone)]
    both = [each for each in apart if each is not None]
    for each in both:
        each.asked = len(results)
    return both if len(both) == 2 and any(each.mistake for each in both) else [fault]


def _fault(
    task: Task, output: Output, results: Sequence[tuple[Problem, Outcome]], topic: str = "general"
) -> Fault | None:
    """Return what is wrong with one answer of a group of problems, or None."""
    wrong = [each for each in results if not is_right(task, output, *each)]
    if not wrong:
        return None
    mistake, sentence = _diagnose(task, output, results, wrong, topic)
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
        _locate(fault, _accepted(task, output, p)[0], outcome.values[output.answer], p)
    return fault


def _diagnose(
    task: Task,
    output: Output,
    results: Sequence[tuple[Problem, Outcome]],
    wrong: Sequence[tuple[Problem, Outcome]],
    topic: str,
) -> tuple[str | None, str]:
    """Return the key and the sentence of the mistake that explains every result, or neither."""
    failures = [outcome.failure for _, outcome in wrong]
    if topic == "misfit" and all(
        failure is not None and failure.message.startswith("AssertionError") for failure in failures
    ):
        return "misfit-asserted", REFUSES_MISFIT
    stopped = any(failure and failure.kind in ("hung", "died") for failure in failures)
    if stopped or (all(failures) and len(wrong) == len(results) and topic == "general"):
        return None, ""
    for row in MISTAKES:
        kind = results[0][0].kind
        if kind in row.kinds and output.answer in row.answers and row.topic == topic:
            for variant, predictions in enumerate(_by_variant(row, output, results)):
                if all(
                    _foretold(task, output, prediction, row.may_raise, *each)
                    for prediction, each in zip(predictions, results, strict=True)
                ) and _shown(predictions, results, wrong):
                    return row.key, row.say(variant)
    if not any(failures):
        pairs = [
            (_accepted(task, output, p)[0], outcome.values[output.answer]) for p, outcome in wrong
        ]
        for relation in RELATIONS:
            said = relation(pairs)
            if said:
                return said
    return None, ""


def _by_variant(row: Any, output: Output, results: Sequence[tuple[Problem, Outcome]]) -> Any:
    """Return, for each variant of a mistake, what it gives for each problem."""
    return zip(*(row.predictions(p, output.answer) for p, _ in results), strict=True)


def _foretold(
    task: Task, output: Output, prediction: Any, may_raise: bool, p: Problem, outcome: Outcome
) -> bool:
    """Tell whether a hypothesis says of a problem what came."""
    if prediction is None:
        return is_right(task, output, p, outcome)
    if isinstance(prediction, str):  # RAISES
        return bool(outcome.failure) or outcome.values[output.answer].size == 0
    if outcome.failure:
        return may_raise and not _close(prediction, answers(p)[output.answer], p)
    try:
        foretold = output.layout(prediction, p)
    except ValueError:  # a shape that the course has no layout for
        return False
    return _close(foretold, outcome.values[output.answer], p)


def _shown(
    predictions: Sequence[Any],
    results: Sequence[tuple[Problem, Outcome]],
    wrong: Sequence[tuple[Problem, Outcome]],
) -> bool:
    """Tell whether a hypothesis foretold something that is wrong, and not only allowed for it."""
    names = {p.name for p, _ in wrong}
    return any(
        p.name in names and (isinstance(prediction, str) or not outcome.failure)
        for prediction, (p, outcome) in zip(predictions, results, strict=True)
    )


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
    results: Sequence[tuple[Problem, Outcome]],
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


def _gradient_errors(
    task: Task, results: Sequence[tuple[Problem, Outcome]], slopes: Mapping[str, Array]
) -> dict[str, float]:
    """Return the relative error of each gradient against the numerical one."""
    errors = {}
    for p, outcome in results:
        if p.topic == "gradient" and outcome.failure is None:
            for name, answer, _ in task.layer.outputs:
                got, slope = outcome.values[answer], slopes.get(answer)
                if slope is not None and got.shape == slope.shape:
                    errors[name] = relative_error(got, slope)
    return errors


def _observe(task: Task, results: Sequence[tuple[Problem, Outcome]], finding: Finding) -> None:
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
