"""Link a course's folder on disk: one line in a new file, in the place of what it would compile.

CS231n's `fast_layers.py` imports `im2col_cython`, an extension that the course has its students
compile. Python finds `im2col_cython.py` beside it as well, and this module writes it. Valid for
assignment 2 of the years 2016 to 2026, by their files: up to 2019 they import it as
`cs231n.im2col_cython`, later as `.im2col_cython`, which is the same module.

Python prefers a compiled extension to a file of the same name; the files `fast_layers.py` and
`layers.py` are never touched.
"""

from __future__ import annotations

from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

NAME = "im2col_cython"
LINE = (
    f"from cnnfast.courses.cs231n.{NAME} import *"
    "  # written by `python -m cnnfast link`, which takes it away with --remove\n"
)


class LinkError(Exception):
    """Why a folder could not be linked, or is without effect, for a person to read."""


def link(path: str | Path) -> str:
    """Write the line into the course at, or just below, a folder; return what was done.

    Raises
    ------
    LinkError
        If there is no such course, a file is in the way, or a compiled extension is preferred.

    Examples
    --------
    >>> from cnnfast.courses.linking import link
    >>> link("no/such/folder")
    Traceback (most recent call last):
    cnnfast.courses.linking.LinkError: there is no folder no/such/folder
    """
    folder = find_cs231n(Path(path))
    file = folder / f"{NAME}.py"
    if _is_ours(file):
        done = f"{file} is there already"
    else:
        _write(file)
        done = f"wrote {file}: CS231n runs on cnnfast, and there is nothing to compile"
    used, unused = _compiled(folder)
    if used:
        raise LinkError(
            f"{done}\nbut this Python prefers {used[0].name}, which is compiled: delete that file"
        )
    if unused:
        done += f"\n{unused[0].name} is for another Python, and this one ignores it"
    return f"{done}\nrestart the notebook if it has imported cs231n by now"


def unlink(path: str | Path) -> str:
    """Take the line away again; return what was done.

    Raises
    ------
    LinkError
        If there is no such course, or the file is another's.
    """
    file = find_cs231n(Path(path)) / f"{NAME}.py"
    if not file.exists():
        return f"there is no {file}: nothing to remove"
    if not _is_ours(file):
        raise LinkError(f"{file} was not written by `python -m cnnfast link`, and stays")
    try:
        file.unlink()
    except OSError as error:
        raise LinkError(f"cannot remove {file}: {error.strerror}") from None
    return f"removed {file}"


def find_cs231n(path: Path) -> Path:
    """Return the folder with `fast_layers.py`: the one given, or one or two levels below it."""
    if not path.is_dir():
        if path.exists():
            raise LinkError(f"{path} is a file: name its folder")
        raise LinkError(f"there is no folder {path}")
    for level in ([path], [path / "cs231n"], sorted(path.glob("*/cs231n"))):
        found = [folder for folder in level if _is_cs231n(folder)]
        if len(found) > 1:
            names = ", ".join(map(str, found))
            raise LinkError(f"{path} has several: {names}. Name one of them")
        if found:
            return found[0]
    if path.resolve().name == "cs231n" or (path / "cs231n").is_dir():
        raise LinkError(
            f"{path} is a CS231n assignment without a fast_layers.py that imports {NAME}: only"
            " assignment 2 has one"
        )
    raise LinkError(
        f"{path} is no course that is known here: name the folder of CS231n's assignment 2, or the"
        " folder cs231n in it"
    )


def _is_cs231n(folder: Path) -> bool:
    """Tell assignment 2 by its files: im2col.py, and fast_layers.py that imports the extension."""
    file = folder / "fast_layers.py"
    if not (file.is_file() and (folder / "im2col.py").is_file()):
        return False
    return NAME in file.read_text(encoding="utf-8", errors="replace")


def _is_ours(file: Path) -> bool:
    """Tell by its content whether this module wrote a file."""
    return file.is_file() and file.read_text(encoding="utf-8", errors="replace") == LINE


def _write(file: Path) -> None:
    """Make the file, and never over another."""
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(LINE)
    except FileExistsError:
        raise LinkError(
            f"{file} is there, and not written by `python -m cnnfast link`: move it away first"
        ) from None
    except OSError as error:
        raise LinkError(f"cannot write {file}: {error.strerror}") from None


def _compiled(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the compiled extensions in a folder: those of this Python, and those of others."""
    files = sorted({*folder.glob(f"{NAME}*.so"), *folder.glob(f"{NAME}*.pyd")})
    own = [file for file in files if file.name.removeprefix(NAME) in EXTENSION_SUFFIXES]
    return own, [file for file in files if file not in own]
