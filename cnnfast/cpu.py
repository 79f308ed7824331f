"""Instruction sets: which are known, which were built, which this machine runs, which is in use.

This version is built for the baseline of its platform alone.
"""

from __future__ import annotations

import os

from .arrays import check_choice

KNOWN = ("avx512", "avx2", "neon", "baseline")  # fastest first
BUILT = ("baseline",)

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
    return BUILT


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
        For anything else; the message tells an unknown name from one that was not built.

    Examples
    --------
    >>> import cnnfast
    >>> cnnfast.cpu.use("baseline")
    """
    global _current
    _current = _checked("name", name)


def _checked(argument: str, name: str) -> str:
    check_choice(argument, name, KNOWN)
    if name not in BUILT:
        raise ValueError(f"{argument}: this cnnfast was built without {name!r}, it has {BUILT}")
    return name


_current = _checked(VARIABLE, os.environ.get(VARIABLE, BUILT[0]))
