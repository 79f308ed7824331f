"""Put drop-ins under a course's module names in a running Python, and take them away again.

CS231n's notebook, `layer_utils.py` and `classifiers/cnn.py` take the fast layers from
`cs231n.fast_layers` by star import, so that a name has to be replaced wherever it has arrived:

    not imported yet    the drop-in becomes the module of that name, and later imports find it
    imported already    in the module itself, each name of the drop-in is set, also one that is
                        missing, as the extension's are where it was not compiled; and in every
                        other module of the course, and in the notebook, each name that is still
                        the course's own object

What a name stands for is told by identity, so that a function of the student's is never replaced.
Valid for CS231n, assignment 2, of 2016 to 2026. The drop-ins of the other courses are single
modules, and a star import from them is all it takes.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

FILES = ("im2col_cython", "im2col", "fast_layers")


class _Change(NamedTuple):
    """One name of one module, and what it stood for before and after."""

    module: ModuleType
    name: str
    before: Any
    after: Any


_MISSING = object()
_changes: list[_Change] = []
_registered: dict[str, ModuleType] = {}


def activate(course: str = "cs231n") -> None:
    """Have a course's own imports find cnnfast, in a notebook before or after they ran.

    Parameters
    ----------
    course : {"cs231n"}
        The course. Its modules `im2col_cython`, `im2col` and `fast_layers` are replaced, or, where
        they are imported already, the names in them that cnnfast has too. A `fast_layers.py` with
        functions of one's own must be imported before.

    Raises
    ------
    ValueError
        If it is another course.

    See Also
    --------
    deactivate : the way back.

    Examples
    --------
    In the first cell of the notebook, instead of compiling the extension:

    >>> import cnnfast.courses
    >>> cnnfast.courses.activate("cs231n")
    >>> from cs231n.fast_layers import conv_forward_fast
    >>> conv_forward_fast.__module__
    'cnnfast.courses.cs231n.fast_layers'
    >>> cnnfast.courses.deactivate("cs231n")
    """
    _check(course)
    for file in FILES:
        name, drop_in = f"{course}.{file}", import_module(f"{__package__}.{course}.{file}")
        present = sys.modules.get(name)
        if present is None:
            sys.modules[name] = _registered[name] = drop_in
        elif present is not drop_in:
            _replace(course, present, drop_in)


def deactivate(course: str = "cs231n") -> None:
    """Undo `activate`; names that were imported in the meantime stay what they are.

    Raises
    ------
    ValueError
        If it is another course.
    """
    _check(course)
    while _changes:
        module, name, before, after = _changes.pop()
        if vars(module).get(name) is after:
            if before is _MISSING:
                delattr(module, name)
            else:
                setattr(module, name, before)
    for name, drop_in in _registered.items():
        if sys.modules.get(name) is drop_in:
            del sys.modules[name]
    _registered.clear()


def _check(course: str) -> None:
    if course != "cs231n":
        raise ValueError(
            f"course must be 'cs231n', got {course!r}: import the names of any other from"
            " cnnfast.courses"
        )


def _replace(course: str, present: ModuleType, drop_in: ModuleType) -> None:
    """Set the names of a drop-in in the course's module, and wherever they went from there."""
    for name in drop_in.__all__:
        after, before = getattr(drop_in, name), vars(present).get(name, _MISSING)
        if not getattr(after, "__module__", "").startswith("cnnfast.") or before is after:
            continue  # np and range are in the star import too
        _set(present, name, after)
        for module in _modules(course):
            if vars(module).get(name) is before:
                _set(module, name, after)


def _set(module: ModuleType, name: str, after: Any) -> None:
    _changes.append(_Change(module, name, vars(module).get(name, _MISSING), after))
    setattr(module, name, after)


def _modules(course: str) -> list[ModuleType]:
    """Return the modules of the course that are imported, and the notebook or program itself."""
    return [
        module
        for name, module in list(sys.modules.items())
        if isinstance(module, ModuleType) and (name == "__main__" or name.startswith(f"{course}."))
    ]
