"""What a check found, as text for people and as data for programs."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .execute import Failure
from .judge import AGREE, Fault, Finding
from .tasks import Other

WIDTH = 96


@dataclass
class Report:
    """What there is to say about a file, or about some functions; printed, it is the text.

    Examples
    --------
    >>> from cnnfast.gradcheck import check
    >>> def relu_forward(x):
    ...     return abs(x), x
    >>> report = check(relu_forward)
    >>> report.passed
    False
    >>> [fault.mistake for finding in report.findings for fault in finding.faults]
    ['relu-absolute']
    """

    target: str
    findings: list[Finding]  # one for each function
    others: list[Other]  # functions with a course's name that cannot be called as there
    failures: list[Failure]  # of the import
    unchecked: list[str]  # functions for which no time was left

    @property
    def passed(self) -> bool:
        """Whether something was checked and nothing is wrong; cells of a notebook may fail."""
        whole = not self.unchecked and all(each.kind == "cell" for each in self.failures)
        return whole and bool(self.findings) and all(each.passed for each in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as dicts and lists; `python -m cnnfast check --help` lists the keys."""
        return {
            "target": self.target,
            "passed": self.passed,
            "functions": [
                {"passed": each.passed, **asdict(each)} | _failures_named(each)
                for each in self.findings
            ],
            "other_signature": [each._asdict() for each in self.others],
            "import_failures": [each._asdict() for each in self.failures],
            "unchecked": self.unchecked,
        }

    def to_json(self) -> str:
        """Return everything as JSON; NaN and Inf are strings there."""
        return json.dumps(_finite(self.as_dict()), indent=2, allow_nan=False)

    def __str__(self) -> str:
        """Return the text."""
        return "\n".join(self._lines())

    __repr__ = __str__

    def _lines(self) -> Iterator[str]:
        for failure in self.failures:
            yield from _wrap(f"{self.target} does not run to its end: {_because(failure)}")
            yield from _source(failure, "  ")
        width = max((len(each.name) for each in self.findings), default=0)
        for finding in self.findings:
            yield from _finding(finding, width)
        for other in self.others:
            yield from _wrap(
                f"{other.name} is not checked: {other.course} calls it with ({other.parameters})"
            )
        for name in self.unchecked:
            yield f"{name} is not checked: no time was left"
        if not self.findings:
            yield f"{self.target} has no function of a course to check"
        else:
            passed = sum(each.passed for each in self.findings)
            yield f"{passed} of {len(self.findings)} passed"


def _finding(finding: Finding, width: int) -> Iterator[str]:
    verdict = "passed" if finding.passed else "WRONG"
    notes = [f"{finding.problems} problem{'s' if finding.problems > 1 else ''}"]
    if finding.gradient:
        notes.append(_numerical(finding.gradient))
    yield f"{finding.name:{width}}  {verdict}  {finding.course}, {', '.join(notes)}"
    for fault in finding.faults:
        yield from _fault(fault)
    for remark in finding.remarks:
        yield from _wrap(f"Remark: {_of(remark)}{remark.sentence or _because(remark.failure)}", 2)


def _numerical(errors: dict[str, float]) -> str:
    """Say how far gradients are from the numerical ones of the student's own forward function."""
    apart = [f"{name} by {error:.0e}" for name, error in errors.items() if error >= AGREE]
    if apart:
        return f"numerical gradient differs: {_listed(apart)}"
    return f"numerical gradient agrees to {max(errors.values()):.0e}"


def _fault(fault: Fault) -> Iterator[str]:
    what = _listed(fault.outputs)
    if fault.wrong:
        verb = "are" if len(fault.outputs) > 1 else "is"
        where = f"{len(fault.wrong)} of {fault.asked} problems, first in"
        yield from _wrap(f'{what} {verb} wrong in {where} "{fault.problem}" ({fault.call}):', 2)
    if fault.index is not None:
        place = f"{what}[{', '.join(map(str, fault.index))}]" if fault.index else what
        yield (
            f"    {place} is {fault.got:.6g}, expected {fault.expected:.6g}"
            f" ({fault.differing} of {math.prod(fault.expected_shape)} numbers differ)"
        )
    elif fault.got_shape != fault.expected_shape:
        yield f"    its shape is {fault.got_shape}, expected {fault.expected_shape}"
    if fault.failure is not None:
        yield from _wrap(_because(fault.failure), 4)
        yield from _source(fault.failure, "      ")
    if fault.sentence:
        yield from _wrap(f"Likely mistake: {fault.sentence}", 4)
    elif fault.index is not None or fault.got_shape != fault.expected_shape:
        yield "    Which mistake it is was not recognised."
    if fault.right and not fault.sentence:
        yield from _wrap(f"wrong in: {'; '.join(fault.wrong)}", 4)
        yield from _wrap(f"right in: {'; '.join(fault.right)}", 4)


def _of(remark: Fault) -> str:
    return f"{_listed(remark.outputs)}: " if remark.outputs else ""


def _because(failure: Failure | None) -> str:
    if failure is None:
        return "differs"
    place = f" ({failure.file}, line {failure.line})" if failure.file else ""
    return f"{failure.message}{place}"


def _source(failure: Failure, indent: str) -> Iterator[str]:
    if failure.source:
        yield indent + failure.source


def _wrap(text: str, indent: int = 0) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=" " * indent, subsequent_indent=" " * (indent + 2)
    )


def _listed(names: Sequence[str]) -> str:
    *most, last = names or [""]
    return f"{', '.join(most)} and {last}" if most else last


def _failures_named(finding: Finding) -> dict[str, Any]:
    """Return faults and remarks with their failures as dicts, which asdict leaves tuples."""
    return {
        key: [
            asdict(fault) | {"failure": fault.failure and fault.failure._asdict()}
            for fault in getattr(finding, key)
        ]
        for key in ("faults", "remarks")
    }


def _finite(value: Any) -> Any:
    """Replace the floats that JSON does not have by their names."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return str(value)
    return value
