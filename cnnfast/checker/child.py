"""The process in which a student's code runs: it may print, exit, crash or hang there.

The parent, `supervise`, starts it with a job in JSON; it answers with pickled messages on what was
its standard output, each as soon as there is one, so that the parent knows where it hangs:

    ("loaded", failures, tasks, others)     what the file defines
    ("start", task, problem)                problem is a number, or "gradient"
    ("outcome", task, problem, outcome)
    ("slopes", task, gradients or None)
    ("end",)
"""

from __future__ import annotations

import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any, NamedTuple

from . import execute
from .load import Target, load
from .tasks import find, partner


class Job(NamedTuple):
    """What the parent asks for."""

    file: str
    module: str
    folder: str | None
    course: str | None
    done: list[int]  # tasks that need not be run, by number


def main() -> None:
    """Do the job on the command line."""
    job = Job(*json.loads(sys.argv[1]))
    messages = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # who asks gets nothing, what is printed goes nowhere
        os.dup2(nowhere, stream)
    sys.argv = [job.file]

    def send(*message: Any) -> None:
        pickle.dump(message, messages)
        messages.flush()

    folder = None if job.folder is None else Path(job.folder)
    namespace, module, failures = load(Target(Path(job.file), job.module, folder))
    tasks, others = find(namespace, module, job.course)
    send("loaded", failures, tasks, others)
    for number, task in enumerate(tasks):
        if number in job.done:
            continue
        problems = task.layer.all_problems()
        for place, p in enumerate(problems):
            send("start", number, place)
            send("outcome", number, place, execute.run(task, p, namespace))
        forward = partner(task, tasks)
        small = [p for p in problems if p.topic == "gradient"]
        if forward is not None and small:
            send("start", number, "gradient")
            send("slopes", number, execute.slopes(task, forward, small[0], namespace))
    send("end")
    os._exit(0)  # threads that the student's code left behind may not hold it up
