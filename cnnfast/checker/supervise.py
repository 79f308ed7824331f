"""Have a file checked in a process of its own, which is ended when it takes too long."""

from __future__ import annotations

import json
import os
import pickle
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from .child import Job
from .execute import Failure, Outcome
from .judge import judge
from .load import Target, locate
from .report import Report
from .tasks import Other, Task

TOTAL = 55.0  # seconds for everything: with starting and ending it stays below a minute
IMPORT = 20.0  # seconds that a file may take to define its functions
CALL = 5.0  # seconds that a function may take for a problem; right ones take some milliseconds

PROGRAM = """
import sys
sys.path.append(sys.argv.pop())
from cnnfast.checker.child import main
main()
"""

Progress = Callable[[float, str], None]  # told how much is done, from 0 to 1, and with what


def check_file(
    target: str,
    *,
    course: str | None = None,
    progress: Progress = lambda part, what: None,
    limits: tuple[float, float, float] = (TOTAL, IMPORT, CALL),
) -> Report:
    """Check what a file, a notebook or a module defines.

    `limits` are seconds for everything, for the import, and for a call. FileNotFoundError where
    there is no such file or module.
    """
    check = _Check(locate(target), course, progress, limits)
    check.run()
    return check.report(target)


class _Check:
    """One check: what is known so far, over all processes that were needed."""

    def __init__(
        self,
        target: Target,
        course: str | None,
        progress: Progress,
        limits: tuple[float, float, float],
    ) -> None:
        self.target, self.course, self.progress = target, course, progress
        total, self.import_limit, self.call_limit = limits
        self.end = time.monotonic() + total
        self.tasks: list[Task] = []
        self.others: list[Other] = []
        self.failures: list[Failure] = []
        self.outcomes: dict[int, list[Outcome]] = {}
        self.slopes: dict[int, Any] = {}
        self.done: set[int] = set()

    def run(self) -> None:
        """Start processes until every function is through, or the time is up."""
        while self._one_process():
            pass

    def report(self, target: str) -> Report:
        """Return what was found."""
        findings = [
            judge(task, self.outcomes[number], self.slopes.get(number))
            for number, task in enumerate(self.tasks)
            if self._complete(number)
        ]
        unchecked = [
            task.label for number, task in enumerate(self.tasks) if not self._complete(number)
        ]
        return Report(target, findings, self.others, self.failures, unchecked)

    def _complete(self, number: int) -> bool:
        """Tell whether a function was run on all its problems, or to where it hangs."""
        outcomes = self.outcomes.get(number, [])
        if outcomes and outcomes[-1].failure and outcomes[-1].failure.kind in ("hung", "died"):
            return True
        return len(outcomes) == len(self.tasks[number].layer.all_problems())

    def _one_process(self) -> bool:
        """Run one process to its end; tell whether another one is needed."""
        doing: tuple[int, Any] | None = None
        limit = self.import_limit
        with _process(self.target, self.course, sorted(self.done)) as messages:
            while True:
                left = self.end - time.monotonic()
                try:
                    message = messages.get(timeout=max(0, min(limit, left)))
                except queue.Empty:
                    return self._stopped(doing, "hung", min(limit, left), left <= limit)
                match message:
                    case ("loaded", failures, tasks, others):
                        self.failures, self.tasks, self.others = failures, tasks, others
                        limit = self.call_limit
                    case ("start", number, place):
                        doing = (number, place)
                        self._tell(number, place)
                        # a gradient looks at its time by itself, call by call
                        limit = self.call_limit * (2 if place == "gradient" else 1)
                    case ("outcome", number, _, outcome):
                        self.outcomes.setdefault(number, []).append(outcome)
                    case ("slopes", number, slopes):
                        self.slopes[number] = slopes
                    case ("end",):
                        return False
                    case ("died", status):
                        return self._stopped(doing, "died", status, False)

    def _stopped(self, doing: tuple[int, Any] | None, kind: str, value: float, last: bool) -> bool:
        """Note where a process hung or died, and tell whether to go on without that function."""
        why = (
            f"no result within {value:.0f} s"
            if kind == "hung"
            else f"the process ended (exit status {value:.0f})"
        )
        if doing is None:
            self.failures.append(Failure(kind, f"while the file was imported: {why}"))
            return False
        number, place = doing
        if place == "gradient":
            self.slopes[number] = None
        elif not last:
            self.outcomes.setdefault(number, []).append(Outcome({}, Failure(kind, why)))
        self.done |= set(range(number + 1))
        return not last and len(self.done) < len(self.tasks)

    def _tell(self, number: int, place: Any) -> None:
        task = self.tasks[number]
        problems = len(task.layer.all_problems())
        within = (problems if place == "gradient" else place) / (problems + 1)
        self.progress((number + within) / len(self.tasks), task.label)


@contextmanager
def _process(target: Target, course: str | None, done: list[int]) -> Iterator[queue.Queue[Any]]:
    """Start a child, give the queue of its messages, and kill it at the end."""
    folder = None if target.folder is None else str(target.folder)
    job = json.dumps(Job(str(target.file), target.module, folder, course, done))
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, job, str(Path(__file__).parents[2])],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"MPLBACKEND": "Agg"},  # plots open no windows
    )
    messages: queue.Queue[Any] = queue.Queue()
    assert child.stdout is not None
    threading.Thread(target=_forward, args=(child, child.stdout, messages), daemon=True).start()
    try:
        yield messages
    finally:
        child.kill()
        child.wait()


def _forward(child: subprocess.Popen[bytes], pipe: IO[bytes], messages: queue.Queue[Any]) -> None:
    """Put what comes through the pipe into the queue, and the exit status after it."""
    with pipe:
        for message in _unpickled(pipe):
            messages.put(message)
    messages.put(("died", child.wait()))


def _unpickled(pipe: IO[bytes]) -> Iterator[Any]:
    try:
        while True:
            yield pickle.load(pipe)
    except (EOFError, pickle.UnpicklingError):
        return
