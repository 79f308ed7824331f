"""A course's folder linked, and a running course activated, with each year's manner of importing.

The folders here imitate the handouts in what matters: which file imports which name from where, and
what happens where the extension is missing.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cnnfast import courses
from cnnfast.__main__ import main
from cnnfast.courses.cs231n import fast_layers, im2col_cython
from cnnfast.courses.linking import LINE, LinkError, link, unlink

OWN = "def {0}(*arguments):\n    return 'the course', '{0}'\n"
IMPORT = (
    "try:\n    from {0}.im2col_cython import col2im_6d_cython, im2col_cython\n"
    "except ImportError:\n    {1}\n"
)
MANNERS = {  # how a year's files import each other, and what they do without the extension
    "2016-2019": ("cs231n", "print('run setup.py build_ext --inplace')"),
    "2020-2024": ("", "print('the extension is missing')"),
    "2025-2026": ("", "pass"),
}


def make_course(folder: Path, manner: str) -> Path:
    """Write a small course, and return its folder cs231n."""
    package, otherwise = MANNERS[manner]
    course = folder / "assignment2" / "cs231n"
    (course / "classifiers").mkdir(parents=True)
    above = f"{package}" if package else "."
    files = {
        "__init__.py": "",
        "im2col.py": OWN.format("im2col_indices"),
        "layers.py": OWN.format("conv_forward_naive") + OWN.format("relu_forward"),
        "fast_layers.py": "import numpy as np\n"
        + IMPORT.format(package, otherwise)
        + f"from {package}.im2col import *\n"
        + OWN.format("conv_forward_strides")
        + OWN.format("max_pool_forward_fast")
        + "conv_forward_fast = conv_forward_strides\n",
        "layer_utils.py": f"from {package}.layers import *\nfrom {package}.fast_layers import *\n",
        "classifiers/__init__.py": "",
        "classifiers/cnn.py": f"from {above}.layers import *\nfrom {above}.fast_layers import *\n"
        f"from {above}.layer_utils import *\n",
    }
    for name, text in files.items():
        (course / name).write_text(text, encoding="utf-8")
    return course


@pytest.fixture(params=MANNERS)
def course(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return make_course(tmp_path, request.param)


# A folder.


@pytest.mark.parametrize("level", [0, 1, 2], ids=["cs231n", "assignment2", "its parent"])
def test_a_linked_course_imports_the_drop_in(course: Path, level: int) -> None:
    folder = [course, *course.parents][level]
    assert main(["link", str(folder)]) == 0
    program = (
        "from cs231n.classifiers.cnn import *\nfrom cs231n import fast_layers\n"
        "print(fast_layers.im2col_cython.__module__, conv_forward_fast.__module__)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=course.parent, capture_output=True, text=True
    )
    assert run.stdout == "cnnfast.courses.cs231n.im2col_cython cs231n.fast_layers\n", run.stderr


def test_without_the_link_the_extension_is_missing(course: Path) -> None:
    program = "from cs231n.fast_layers import *\nim2col_cython"
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=course.parent, capture_output=True, text=True
    )
    assert "NameError: name 'im2col_cython'" in run.stderr


def test_linking_writes_one_line_once_and_remove_takes_it_away(course: Path) -> None:
    before = {path: path.read_text() for path in course.rglob("*.py")}
    assert link(course).startswith(f"wrote {course / 'im2col_cython.py'}")
    assert (course / "im2col_cython.py").read_text().count("\n") == 1
    assert "is there already" in link(course)
    assert unlink(course) == f"removed {course / 'im2col_cython.py'}"
    assert "nothing to remove" in unlink(course)
    assert {path: path.read_text() for path in course.rglob("*.py")} == before


def test_another_s_file_stays(course: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = course / "im2col_cython.py"
    file.write_text("mine = True\n")
    assert main(["link", str(course)]) == 1
    assert "not written by `python -m cnnfast link`: move it away" in capsys.readouterr().err
    assert main(["link", "--remove", str(course)]) == 1
    assert "and stays" in capsys.readouterr().err
    assert file.read_text() == "mine = True\n"


def test_a_dangling_link_is_not_written_through(course: Path, tmp_path: Path) -> None:
    (course / "im2col_cython.py").symlink_to(tmp_path / "elsewhere.py")
    with pytest.raises(LinkError, match="move it away"):
        link(course)
    assert not (tmp_path / "elsewhere.py").exists()


def test_a_compiled_extension_of_this_python_is_told_to_win(course: Path) -> None:
    compiled = course / f"im2col_cython{EXTENSION_SUFFIXES[0]}"
    compiled.touch()
    with pytest.raises(LinkError, match=f"this Python prefers {compiled.name}.*delete that file"):
        link(course)
    finder = importlib.machinery.FileFinder(
        str(course),
        (importlib.machinery.ExtensionFileLoader, EXTENSION_SUFFIXES),
        (importlib.machinery.SourceFileLoader, [".py"]),
    )
    found = finder.find_spec("im2col_cython")
    assert found is not None
    assert found.origin == str(compiled)
    compiled.unlink()
    assert "is there already" in link(course)


def test_a_compiled_extension_of_another_python_does_not_matter(course: Path) -> None:
    (course / "im2col_cython.cpython-25-x86_64-linux-gnu.so").touch()
    assert "is for another Python" in link(course)


def test_wrong_folders_are_told(course: Path, tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="there is no folder"):
        link(tmp_path / "nowhere")
    with pytest.raises(LinkError, match="is a file: name its folder"):
        link(course / "layers.py")
    (tmp_path / "empty").mkdir()
    with pytest.raises(LinkError, match="no course that is known here"):
        link(tmp_path / "empty")
    make_course(tmp_path / "more", "2020-2024")
    (tmp_path / "more" / "assignment2").rename(tmp_path / "again")
    with pytest.raises(LinkError, match="has several"):
        link(tmp_path)
    (course / "fast_layers.py").unlink()
    with pytest.raises(LinkError, match="only assignment 2 has one"):
        link(course)


def test_a_folder_that_cannot_be_written_is_told(
    course: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_open = Path.open

    def refuse(path: Path, mode: str = "r", **more: Any) -> Any:
        if mode == "r":
            return really_open(path, mode, **more)
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(LinkError, match=r"cannot write .*: Permission denied"):
        link(course)
    monkeypatch.undo()
    link(course)
    monkeypatch.setattr(Path, "unlink", lambda path: refuse(path, "x"))
    with pytest.raises(LinkError, match=r"cannot remove .*: Permission denied"):
        unlink(course)


def test_the_line_is_what_the_drop_in_s_docstring_says() -> None:
    assert LINE.split("  #")[0] == "from cnnfast.courses.cs231n.im2col_cython import *"
    assert LINE.split("  #")[0] in (im2col_cython.__doc__ or "")


# A running Python.


@pytest.fixture
def running(course: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have the course on the path, and forget it afterwards."""
    monkeypatch.syspath_prepend(str(course.parent))
    yield
    courses.deactivate("cs231n")
    for name in [name for name in sys.modules if name.split(".")[0] == "cs231n"]:
        del sys.modules[name]


def modules() -> list[ModuleType]:
    return [
        importlib.import_module(f"cs231n.{name}")
        for name in ("fast_layers", "layer_utils", "classifiers.cnn")
    ]


def assert_ours(module: ModuleType) -> None:
    for name in ("conv_forward_fast", "conv_forward_strides", "max_pool_forward_fast"):
        assert getattr(module, name) is getattr(fast_layers, name)
    assert module.im2col_indices is fast_layers.im2col_indices


def assert_students_own(module: ModuleType) -> None:
    assert module.conv_forward_naive() == ("the course", "conv_forward_naive")
    assert module.relu_forward() == ("the course", "relu_forward")


@pytest.mark.usefixtures("running")
def test_activated_before_the_course_is_imported() -> None:
    courses.activate("cs231n")
    for module in modules():
        assert_ours(module)
    for module in modules()[1:]:
        assert_students_own(module)


@pytest.mark.usefixtures("running")
def test_activated_after_the_course_was_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = sys.modules["__main__"]
    before = modules()
    monkeypatch.setattr(notebook, "conv_forward_fast", before[0].conv_forward_fast, raising=False)
    monkeypatch.setattr(notebook, "max_pool_forward_fast", "the student's own", raising=False)
    assert not hasattr(before[0], "im2col_cython")
    courses.activate("cs231n")
    assert modules() == before  # the modules are the same, and what they hold is not
    for module in before:
        assert_ours(module)
    for module in before[1:]:
        assert_students_own(module)
    assert before[0].im2col_cython is im2col_cython.im2col_cython
    assert notebook.conv_forward_fast is fast_layers.conv_forward_fast
    assert notebook.max_pool_forward_fast == "the student's own"


@pytest.mark.usefixtures("running")
def test_a_student_s_function_of_a_fast_name_stays() -> None:
    *_, cnn = modules()
    cnn.conv_forward_fast = mine = object()
    courses.activate("cs231n")
    assert cnn.conv_forward_fast is mine
    assert_ours(modules()[0])


@pytest.mark.usefixtures("running")
def test_deactivated_everything_is_as_before() -> None:
    before = [(module, dict(vars(module))) for module in modules()]
    courses.activate("cs231n")
    courses.activate("cs231n")  # once more changes nothing
    courses.deactivate("cs231n")
    for module, names in before:
        assert vars(module) == names
    assert "cs231n.im2col_cython" not in sys.modules


@pytest.mark.usefixtures("running")
def test_deactivated_before_an_import_the_course_is_itself() -> None:
    courses.activate("cs231n")
    courses.deactivate("cs231n")
    module = importlib.import_module("cs231n.fast_layers")
    assert module.conv_forward_fast() == ("the course", "conv_forward_strides")


def test_another_course_needs_no_activation() -> None:
    for function in (courses.activate, courses.deactivate):
        with pytest.raises(ValueError, match="course must be 'cs231n', got 'paddle'"):
            function("paddle")
