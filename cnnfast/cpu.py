"""Instruction sets: which are known, which were built, which this machine runs, which is in use.

The fastest that was built and that this machine runs is in use from the start, unless the
environment variable CNNFAST_CPU names another.
"""

from __future__ import annotations

import os

from . import _engine
from .arrays import check_choice

KNOWN = ("avx512", "avx2", "neon", "baseline")  # fastest first

VARIABLE = "CNNFAST_CPU"


def available() -> tuple[str, ...]:
    """Return the instruction sets that were built and that this machine can run, fastest first.

    Returns
    -------
    tuple of str
        Ends with "baseline".

    Examples
    --------
    >>> import cnnfast
    >>> cnnfast.cpu.available()[-1]
    'baseline'
    """
    return tuple(name for name, runs_here in _built.items() if runs_here)


def current() -> str:
    """Return the instruction set in use.

    Returns
    -------
    str
        One of `available`.

    Examples
    --------
    >>> import cnnfast
    >>> cnnfast.cpu.current() in cnnfast.cpu.available()
    True
    """
    return _current


def use(name: str) -> None:
    """Use an instruction set from now on.

    Parameters
    ----------
    name : str
        One of `available`.

    Raises
    ------
    TypeError, ValueError
        For anything else; the message tells what is unknown, not built, or not of this machine.

    Examples
    --------
    >>> import cnnfast
    >>> cnnfast.cpu.use(cnnfast.cpu.current())
    """
    _use("name", name)


def _use(argument: str, name: str) -> None:
    global _current
    check_choice(argument, name, KNOWN)
    if name not in _built:
        raise ValueError(
            f"{argument}: this cnnfast was built without {name!r}, it has {available()}"
        )
    if not _built[name]:
        raise ValueError(f"{argument}: this machine cannot run {name!r}, it runs {available()}")
    _engine.use_set(name)
    _current = name


_built: dict[str, bool] = _engine.built_sets()
_current = ""
_use(VARIABLE, os.environ.get(VARIABLE) or available()[0])
