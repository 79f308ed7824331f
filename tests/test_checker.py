"""The checker: right students pass, and every planted mistake is named, and no other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from planted import COURSES, PLANTED, Planted, source

from cnnfast.checker.mistakes import MISTAKES
from cnnfast.gradcheck import Report, check, numerical_gradient, relative_error


def checked(code: str, *names: str) -> Report:
    """Check the functions of a student's text, all or some of them."""
    namespace: dict[str, Any] = {"__name__": "student"}
    exec(compile(code, "student.py", "exec"), namespace)
    own = [value for value in namespace.values() if getattr(value, "__module__", "") == "student"]
    return check(*(each for each in own if not names or each.__name__ in names))


@pytest.mark.parametrize("course", COURSES)
def test_right_students_pass(course: str) -> None:
    report = checked(source(course))
    assert report.passed, report
    assert not [remark for finding in report.findings for remark in finding.remarks], report


@pytest.mark.parametrize("planted", PLANTED, ids=str)
def test_planted_mistakes_are_named(planted: Planted) -> None:
    name, _, method = planted.function.partition(".")
    forward = name.replace("backward", "forward")
    report = checked(planted.code(), name, forward)
    mode = "backward" if "backward" in planted.function else "forward"
    faults = [
        fault.mistake
        for finding in report.findings
        if finding.name.split(",")[0] == name and (not method or mode in finding.name)
        for fault in finding.faults
    ]
    assert set(faults) == {planted.mistake}, report


REMARKS = [
    (
        "conv_forward_naive",
        'x.dtype if x.dtype.kind == "f" else float',
        "x.dtype",
        "integers-truncated",
    ),
    (
        "conv_backward_naive",
        "np.zeros(x_pad.shape, dtype=dout.dtype)",
        "np.zeros_like(x_pad)",
        "integers-refused",
    ),
    ("conv_forward_naive", 'x.dtype if x.dtype.kind == "f" else float', "float", "float32-lost"),
    (
        "conv_forward_naive",
        "H_out =",
        "assert (H + 2 * pad - HH) % stride == 0; H_out =",
        "misfit-asserted",
    ),
]


@pytest.mark.parametrize(("function", "old", "new", "remark"), REMARKS)
def test_what_no_course_asks_for_is_a_remark(
    function: str, old: str, new: str, remark: str
) -> None:
    planted = Planted("cs231n", function, remark, old, new)
    report = checked(planted.code(), function, "conv_forward_naive")
    assert report.passed
    assert remark in {each.mistake for finding in report.findings for each in finding.remarks}


def test_every_mistake_of_the_table_is_planted() -> None:
    planted = {each.mistake for each in PLANTED} | {remark for *_, remark in REMARKS}
    assert {mistake.key for mistake in MISTAKES} <= planted


def test_a_gradient_of_a_wrong_forward_is_told_so() -> None:
    code = source("cs231n").replace(
        "np.sum(window * w[f]) + b[f]", "2 * np.sum(window * w[f]) + b[f]"
    )
    code = code.replace("w[f] * dout[n, f, i, j]", "2 * w[f] * dout[n, f, i, j]")
    forward, backward = checked(code, "conv_forward_naive", "conv_backward_naive").findings
    assert [fault.mistake for fault in backward.faults] == ["follows-wrong-forward"]
    assert backward.faults[0].outputs == ["dx"]
    assert forward.faults
    assert backward.gradient["dx"] < 1e-8 < 1e-2 < backward.gradient["dw"]


def test_where_it_differs_is_said() -> None:
    code = source("cs231n").replace(
        "return out, (x, w", "out[-1, -1, 0, 0] += 5; return out, (x, w"
    )
    report = checked(code, "conv_forward_naive")
    fault = report.findings[0].faults[0]
    assert fault.mistake is None
    assert (fault.index, fault.differing) == ((0, 0, 0, 0), 1)  # of the first problem, 1x1x2x2
    assert fault.got == pytest.approx(fault.expected + 5)
    assert "out[0, 0, 0, 0] is" in str(report)
    assert "not recognised" in str(report)


def test_errors_are_shown_with_the_line_of_the_student() -> None:
    code = source("cs231n").replace("return dout * (x > 0)", "return dout * (y > 0)")
    fault = checked(code, "relu_backward").findings[0].faults[0]
    assert fault.failure is not None
    assert fault.failure.message == "NameError: name 'y' is not defined"
    assert fault.failure.file == "student.py"
    assert code.splitlines()[fault.failure.line - 1] == "    return dout * (y > 0)"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("return out, x", "return out", "one array of shape (3, 4) where (out, cache)"),
        ("return out, x", "pass", "returns None where (out, cache)"),
        ("return out, x", "return None, x", "returns None for out"),
        ("return out, x", "return out, x, x", "a tuple of 3 where (out, cache)"),
    ],
)
def test_another_result_than_the_course_has(old: str, new: str, message: str) -> None:
    report = checked(source("cs231n").replace(old, new), "relu_forward")
    assert not report.passed
    assert message in str(report)


def test_the_course_is_found_by_what_else_there_is() -> None:
    def courses(*names: str) -> set[str]:
        return {each.course for each in checked(source("numpy_neuron_network"), *names).findings}

    assert courses("relu_forward", "fc_forward") == {"numpy_neuron_network"}
    assert courses("relu_forward") == {"cs231n"}  # nothing else tells


def test_check_refuses_what_is_no_course_s() -> None:
    with pytest.raises(ValueError, match="none of the functions is one of a course: checked"):
        check(checked)


def test_numerical_gradient_of_an_array_with_weights() -> None:
    x, dy = np.arange(6.0).reshape(2, 3), np.array([[1.0, 0, 2], [0, 3, 0]])
    assert relative_error(numerical_gradient(lambda v: v**3, x, dy), 3 * x**2 * dy) < 1e-8
    assert relative_error([0.0], [0.0]) == 0
    assert relative_error([1.0], [2.0]) == pytest.approx(1 / 3)
