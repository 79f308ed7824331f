"""Read a student's file, module or notebook, and go on with what it has defined if it fails."""

from __future__ import annotations

import importlib
import importlib.util
import json
import linecache
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from .execute import Failure, failure_of


class Target(NamedTuple):
    """What to check: a file and the name it has as a module."""

    file: Path
    module: str
    folder: Path | None  # that has to be on Python's path for it


class Loaded(NamedTuple):
    """What a file defines, and the errors that it ended in."""

    namespace: dict[str, Any]
    module: str
    failures: list[Failure]


def locate(target: str) -> Target:
    """Find a file by its path, or a module by its dotted name; FileNotFoundError if there is none.

    A file of a package, in a folder with `__init__.py`, is a module of it, so that its relative
    imports work.
    """
    path = Path(target)
    if path.is_file():
        path = path.resolve()
        if path.suffix not in (".py", ".ipynb"):
            raise FileNotFoundError(f"{target} is neither a .py file nor a notebook")
        folder, module = path.parent, path.stem
        while path.suffix == ".py" and (folder / "__init__.py").is_file():
            folder, module = folder.parent, f"{folder.name}.{module}"
        return Target(path, module, folder)
    if path.is_dir():
        raise FileNotFoundError(f"{target} is a folder: name a file in it")
    try:
        sys.path.insert(0, "")
        spec = importlib.util.find_spec(target)
    except (ImportError, ValueError):
        spec = None
    finally:
        sys.path.pop(0)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise FileNotFoundError(f"{target} is neither a file here nor a module written in Python")
    return Target(Path(spec.origin), target, None)


def load(target: Target) -> Loaded:
    """Run the file as a module."""
    name = target.module
    while "." not in name and name in sys.modules:  # a file called copy.py must not be that module
        name += "_"
    module = ModuleType(name)
    module.__file__ = str(target.file)
    module.__package__ = name.rpartition(".")[0]
    failures: list[Failure] = []
    sys.path.insert(0, str(target.folder or ""))
    try:
        if module.__package__:
            importlib.import_module(module.__package__)
    except BaseException as error:  # sys.exit() too
        failures.append(failure_of(error))
    sys.modules[name] = module
    for part, source in _parts(target.file):
        try:
            exec(compile(source, part, "exec", dont_inherit=True), module.__dict__)
        except BaseException as error:  # sys.exit() too; what is defined by now can be checked
            if isinstance(error, SystemExit) and not error.code:
                break
            kind = "cell" if target.file.suffix == ".ipynb" else "raised"
            failures.append(failure_of(error)._replace(kind=kind))
    return Loaded(module.__dict__, name, failures)


def _parts(file: Path) -> list[tuple[str, str]]:
    """Return the pieces of code of a file, each with its name: the whole file, or its cells."""
    if file.suffix == ".py":
        return [(str(file), file.read_text(encoding="utf-8"))]
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    parts = []
    for number, cell in enumerate(cells, 1):
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and not source.startswith("%%"):
            name = f"{file.name}, cell {number}"
            code = "\n".join(_without_magic(line) for line in source.split("\n"))
            linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
            parts.append((name, code))
    return parts


def _without_magic(line: str) -> str:
    """Put `pass` in the place of what is a command to the notebook."""
    stripped = line.lstrip()
    if stripped.startswith(("%", "!", "?")) or stripped.endswith("?"):
        return line[: len(line) - len(stripped)] + "pass"
    return line
