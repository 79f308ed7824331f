"""Which mistake explains what came: the one that foretells every result of a group of problems."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np

from .answers import answers
from .conventions import Output
from .execute import Outcome
from .mistakes import MISTAKES, RELATIONS, Mistake, Prediction
from .problems import Array, Problem
from .tasks import Task

Results: TypeAlias = Sequence[tuple[Problem, Outcome]]
REFUSES_MISFIT = "A stride that does not fit is refused, with an assertion. That is a way, too."


def is_right(task: Task, output: Output, p: Problem, outcome: Outcome) -> bool:
    """Tell whether an answer is one that the course takes for right."""
    return outcome.failure is None and any(
        close(expected, outcome.values[output.answer], p) for expected in accepted(task, output, p)
    )


def accepted(task: Task, output: Output, p: Problem) -> list[Array]:
    """Return all answers that are right, the usual one first."""
    ties = task.layer.ties if p.topic == "ties" else ("first",)
    return [output.layout(answers(p, rule)[output.answer], p) for rule in ties]


def is_broken(output: Output, outcome: Outcome) -> bool:
    """Tell whether there is an error, or an empty result."""
    return outcome.failure is not None or outcome.values[output.answer].size == 0


def close(expected: Array, got: Array, p: Problem) -> bool:
    """Tell whether two arrays are the same but for rounding; NaN is anything."""
    if expected.shape != got.shape:
        return False
    expected, got = expected * 1.0, got * 1.0  # from booleans and integers
    tolerance = 1e-4 if p.topic == "float32" else 1e-9
    scale = np.max(np.abs(expected), initial=0, where=~np.isnan(expected))
    unlike = np.abs(expected - got) > tolerance * (np.abs(expected) + scale)
    return not np.any(unlike | (np.isnan(got) & ~np.isnan(expected)))


def diagnose(
    task: Task,
    output: Output,
    results: Results,
    wrong: Results,
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
            (accepted(task, output, p)[0], outcome.values[output.answer]) for p, outcome in wrong
        ]
        for relation in RELATIONS:
            said = relation(pairs)
            if said:
                return said
    return None, ""


def _by_variant(row: Mistake, output: Output, results: Results) -> Iterator[tuple[Prediction, ...]]:
    """Return, for each variant of a mistake, what it gives for each problem."""
    return zip(*(row.predictions(p, output.answer) for p, _ in results), strict=True)


def _foretold(
    task: Task,
    output: Output,
    prediction: Prediction,
    may_raise: bool,
    p: Problem,
    outcome: Outcome,
) -> bool:
    """Tell whether a hypothesis says of a problem what came."""
    if prediction is None:
        return is_right(task, output, p, outcome)
    if isinstance(prediction, str):  # RAISES
        return is_broken(output, outcome)
    if outcome.failure:
        return may_raise and not close(prediction, answers(p)[output.answer], p)
    try:
        foretold = output.layout(prediction, p)
    except ValueError:  # a shape that the course has no layout for
        return False
    return close(foretold, outcome.values[output.answer], p)


def _shown(
    predictions: Sequence[Prediction],
    results: Results,
    wrong: Results,
) -> bool:
    """Tell whether a hypothesis foretold something wrong, and not only allowed for it."""
    names = {p.name for p, _ in wrong}
    return any(
        p.name in names and (isinstance(prediction, str) or not outcome.failure)
        for prediction, (p, outcome) in zip(predictions, results, strict=True)
    )
