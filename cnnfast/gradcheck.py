"""Check layers of one's own: against the reference, and gradients against numerical ones.

`check` tells of a hand-written function of a course what is wrong, where, and which mistake it may
be; `python -m cnnfast check FILE` does so for a whole file. `numerical_gradient` and
`relative_error` are for everything else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .checker.execute import run, slopes
from .checker.judge import judge
from .checker.numerical import numerical_gradient, relative_error
from .checker.report import Report
from .checker.tasks import find, partner

__all__ = ["Report", "check", "numerical_gradient", "relative_error"]


def check(*functions: Callable[..., Any], course: str | None = None) -> Report:
    """Check hand-written layers, and tell what may be the mistake.

    Each function is called for some small problems, and its results are compared with those of
    `cnnfast.reference`, in the conventions of its course; a backward function is also compared
    with the numerical gradient of its forward function, if that is given too. It runs in this
    process and waits for whatever it calls; `python -m cnnfast check` ends what hangs.

    Parameters
    ----------
    *functions : callable
        Functions, or classes, with the names and parameters of a course: `conv_forward_naive` and
        its kind of CS231n, `conv_forward` and its kind of deeplearning.ai or of
        numpy_neuron_network, the hand-written `ConvLayer` and `MaxPoolingLayer`.
    course : str, optional
        "cs231n", "deeplearning.ai", "numpy_neuron_network" or "handwritten_cnn", where names leave
        it open.

    Returns
    -------
    Report
        Printed, it is the text; `.passed` is the verdict, and `.findings` has the details.

    Raises
    ------
    ValueError
        If none of the functions is one of a course.

    Examples
    --------
    >>> from cnnfast.gradcheck import check
    >>> from cnnfast.courses.cs231n.fast_layers import conv_forward_fast, conv_backward_fast
    >>> print(check(conv_forward_fast, conv_backward_fast))  # doctest: +ELLIPSIS
    conv_forward_fast   passed  cs231n, 16 problems
    conv_backward_fast  passed  cs231n, 16 problems, numerical gradient agrees to ...
    2 of 2 passed
    """
    namespace = {function.__name__: function for function in functions}
    tasks, others = find(namespace, course=course)
    if not tasks and not others:
        names = ", ".join(namespace) or "nothing"
        raise ValueError(f"none of the functions is one of a course: {names}")
    findings = []
    for task in tasks:
        problems = task.layer.all_problems()
        outcomes = [run(task, p, namespace) for p in problems]
        forward = partner(task, tasks)
        small = [p for p in problems if p.topic == "gradient"]
        gradients = slopes(task, forward, small[0], namespace) if forward and small else None
        findings.append(judge(task, outcomes, gradients))
    return Report(", ".join(namespace), findings, others, [], [])
