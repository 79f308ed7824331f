"""The command line: `python -m cnnfast link` and `python -m cnnfast check`."""

from __future__ import annotations

import argparse
import shutil
import sys

COURSES = ("cs231n", "deeplearning.ai", "numpy_neuron_network", "handwritten_cnn")
JSON_KEYS = """\
exit status: 0 everything passed, 1 something is wrong, 2 nothing to check

--json prints one object:
  target, passed     what was checked; whether all of it passed
  functions          a list: name, course, passed, problems (their number),
                     gradient (relative error of each gradient against the numerical one of the
                     file's own forward function), faults and remarks (lists)
  a fault, a remark  mistake (its key, or null if not recognised), sentence, outputs (which
                     results), problem and call (the first problem where it shows), wrong and right
                     (all their names), asked (how many problems there were), index, expected, got
                     (the number that is farthest off), differing (how many are off),
                     expected_shape, got_shape, failure
  failure            kind (raised, cell, returned, hung, died), message, file, line, source
  other_signature    functions with a course's name that take other arguments: name, course,
                     parameters
  import_failures    failures of the file itself
  unchecked          functions for which no time was left
"""


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says, and return the exit status."""
    options = _parser().parse_args(arguments)
    status: int = options.do(options)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cnnfast", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    link = commands.add_parser(
        "link",
        help="have a course's folder use cnnfast instead of compiling its extension",
        description="Write im2col_cython.py, one line, beside fast_layers.py of CS231n's assignment"
        " 2, whatever its year; no other file is touched, and none is overwritten. Exit status 1,"
        " with the reason, where that is not possible or has no effect.",
    )
    link.add_argument("folder", help="the assignment's folder, or the folder cs231n in it")
    link.add_argument("--remove", action="store_true", help="take that file away again")
    link.set_defaults(do=_link)
    check = commands.add_parser(
        "check",
        help="tell what is wrong with hand-written layers, and the likely mistake",
        description="Find the functions of CS231n, deeplearning.ai, numpy_neuron_network and the"
        " hand-written ConvLayer that a file defines, run them on small problems in a process of"
        " their own, and compare with the reference. It takes less than a minute.",
        epilog=JSON_KEYS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument("target", help="a .py file, a notebook, or a module by its dotted name")
    check.add_argument("--json", action="store_true", help="print the result as JSON")
    check.add_argument(
        "--course", choices=COURSES, help="look for the functions of one course only"
    )
    check.set_defaults(do=_check)
    return parser


def _link(options: argparse.Namespace) -> int:
    from .courses.linking import LinkError, link, unlink

    try:
        print(unlink(options.folder) if options.remove else link(options.folder))
    except LinkError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _check(options: argparse.Namespace) -> int:
    from .checker.supervise import check_file

    try:
        report = check_file(options.target, course=options.course, progress=_progress)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    _progress(None, "")
    print(report.to_json() if options.json else report)
    if report.passed:
        return 0
    return 1 if report.findings or report.failures or report.unchecked else 2


def _progress(part: float | None, what: str) -> None:
    """Draw a bar on the terminal, if there is one, or with None wipe it away."""
    if not sys.stderr.isatty():
        return
    width = shutil.get_terminal_size().columns - 1
    line = "" if part is None else f"[{'#' * round(30 * part):30}] {part:4.0%} {what}"
    print(f"\r{line[:width]:{width}}\r", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
