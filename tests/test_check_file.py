"""Checking files: whatever a student's file does, there is a report, within the time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from planted import COURSES, STUDENTS, source

import cnnfast
from cnnfast.__main__ import COURSES as OFFERED
from cnnfast.__main__ import main
from cnnfast.checker.conventions import LAYERS
from cnnfast.checker.supervise import check_file

RELU = """
import numpy as np


def relu_forward(x):
    return np.maximum(0, x), x


def relu_backward(dout, cache):
    return dout * (cache > 0)
"""
ENDLESS = """
def affine_forward(x, w, b):
    while True:
        pass
"""
QUICK = (50.0, 20.0, 0.7)  # seconds: in all, for the import, for a call


def written(folder: Path, code: str, name: str = "student.py") -> str:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(code, encoding="utf-8")
    return str(file)


@pytest.mark.parametrize("course", COURSES)
def test_right_students_pass(course: str) -> None:
    assert check_file(str(STUDENTS / f"{course}.py")).passed


def test_our_own_drop_ins_pass() -> None:
    report = check_file("cnnfast.courses.cs231n.fast_layers")
    assert report.passed
    assert len(report.findings) == 12


def test_what_is_printed_plotted_and_asked_for_does_not_matter(tmp_path: Path) -> None:
    code = "import os; print('a'); os.system('echo b'); assert os.environ['MPLBACKEND'] == 'Agg'\n"
    assert check_file(written(tmp_path, code + RELU)).passed
    asks = check_file(written(tmp_path, RELU + "\ninput()"))
    assert not asks.passed
    assert [each.message for each in asks.failures] == ["EOFError: EOF when reading a line"]


@pytest.mark.parametrize(
    ("end", "message", "line"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero", "1 / 0"),
        (
            "import sys; sys.exit('no data')",
            "SystemExit: no data",
            "import sys; sys.exit('no data')",
        ),
    ],
)
def test_an_import_that_fails_is_told_and_the_rest_checked(
    tmp_path: Path, end: str, message: str, line: str
) -> None:
    report = check_file(written(tmp_path, f"{RELU}\n{end}\n"))
    (failure,) = report.failures
    assert (failure.message, failure.source) == (message, line)
    assert [each.passed for each in report.findings] == [True, True]
    assert not report.passed


def test_an_exit_without_an_error_is_the_end(tmp_path: Path) -> None:
    assert check_file(written(tmp_path, RELU + "\nraise SystemExit\n")).passed


def test_a_syntax_error_is_shown_with_its_line(tmp_path: Path) -> None:
    report = check_file(written(tmp_path, RELU + "\ndef f(:\n"))
    assert "def f(:" in str(report)
    assert report.failures[0].line == RELU.count("\n") + 2


def test_what_hangs_is_ended_and_named_and_the_rest_checked(tmp_path: Path) -> None:
    report = check_file(written(tmp_path, ENDLESS + RELU), limits=QUICK)
    hung, *others = report.findings
    (fault,) = hung.faults
    assert (hung.name, fault.problem) == ("affine_forward", "rows of numbers")
    assert fault.failure is not None
    assert fault.failure.kind == "hung"
    assert [each.passed for each in others] == [True, True]


def test_the_time_for_everything_is_kept(tmp_path: Path) -> None:
    start = time.monotonic()
    code = ENDLESS + ENDLESS.replace("affine_forward(x, w, b)", "softmax_loss(x, y)") + RELU
    report = check_file(written(tmp_path, code), limits=(2.0, 20.0, 60.0))
    assert time.monotonic() - start < 10
    assert not report.passed
    assert report.unchecked == ["affine_forward", "softmax_loss", "relu_forward", "relu_backward"]


def test_an_endless_import_is_ended(tmp_path: Path) -> None:
    report = check_file(written(tmp_path, "while True: pass"), limits=(50.0, 0.7, 5.0))
    assert not report.passed
    assert "while the file was imported: no result within 1 s" in str(report)


def test_a_process_that_dies_is_told_and_the_rest_checked(tmp_path: Path) -> None:
    dies = "import os\n\n\ndef affine_forward(x, w, b):\n    os._exit(7)\n"
    died, *others = check_file(written(tmp_path, dies + RELU)).findings
    assert died.faults[0].failure is not None
    assert died.faults[0].failure.message == "the process ended (exit status 7)"
    assert [each.passed for each in others] == [True, True]


@pytest.mark.parametrize("manner", ["cs231n", ""], ids=["absolute", "relative"])
def test_a_file_of_a_package_imports_its_neighbours(tmp_path: Path, manner: str) -> None:
    written(tmp_path, "", "cs231n/__init__.py")
    written(tmp_path, "def double(x):\n    return 2 * x\n", "cs231n/helpers.py")
    code = f"from {manner}.helpers import double\n{RELU}".replace("dout *", "double(dout) / 2 *")
    assert check_file(written(tmp_path, code, "cs231n/layers.py")).passed


def test_a_file_may_have_the_name_of_a_module(tmp_path: Path) -> None:
    assert check_file(written(tmp_path, RELU, "copy.py")).passed
    assert check_file(written(tmp_path, RELU, "my layers, 2.py")).passed


def test_only_what_the_file_itself_defines_is_checked(tmp_path: Path) -> None:
    written(tmp_path, source("cs231n"), "solution.py")
    report = check_file(written(tmp_path, "from solution import *\n" + RELU))
    assert [each.name for each in report.findings] == ["relu_forward", "relu_backward"]


def test_a_notebook_is_checked_cell_by_cell(tmp_path: Path) -> None:
    cells = [
        ("markdown", "# Layers"),
        ("code", "%load_ext autoreload\n!pip list\nimport numpy as np"),
        ("code", "%%bash\nls"),
        ("code", "data = load_data()"),
        ("code", RELU.replace("import numpy as np\n", "")),
    ]
    notebook = {"cells": [{"cell_type": kind, "source": [text]} for kind, text in cells]}
    report = check_file(written(tmp_path, json.dumps(notebook), "layers.ipynb"))
    assert report.passed  # a cell may lack its data
    assert len(report.findings) == 2
    assert "layers.ipynb, cell 4, line 1" in str(report)


# The command line.


def test_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = RELU.replace("dout *", "2 * dout *")
    assert main(["check", written(tmp_path, RELU)]) == 0
    assert main(["check", written(tmp_path, wrong)]) == 1
    assert main(["check", written(tmp_path, "def f(): pass")]) == 2
    assert "no function of a course" in capsys.readouterr().out
    assert main(["check", str(tmp_path / "nowhere.py")]) == 2
    assert main(["check", str(tmp_path)]) == 2
    assert "is a folder: name a file in it" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["check"])
    assert stopped.value.code == 2


def test_one_course_may_be_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert {each.course for each in LAYERS} == set(OFFERED)
    assert main(["check", written(tmp_path, RELU), "--course", "numpy_neuron_network"]) == 1
    assert "numpy_neuron_network" in capsys.readouterr().out


def test_json_has_the_keys_that_help_lists(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = RELU.replace("dout *", "2 * dout *") + "\n1 / 0\n\n\ndef affine_forward(x): pass\n"
    main(["check", written(tmp_path, wrong), "--json"])
    found = json.loads(capsys.readouterr().out)
    with pytest.raises(SystemExit):
        main(["check", "--help"])
    documented = capsys.readouterr().out
    function = found["functions"][1]
    fault = function["faults"][0]
    assert (fault["mistake"], fault["outputs"]) == ("constant-factor", ["dx"])
    assert found["import_failures"][0]["line"] == wrong.splitlines().index("1 / 0") + 1
    for key in (*found, *function, *fault, *found["import_failures"][0]):
        assert key in documented, key


def test_a_function_with_other_parameters_is_named(tmp_path: Path) -> None:
    report = check_file(written(tmp_path, RELU + "\n\ndef affine_forward(x): pass\n"))
    assert "affine_forward is not checked: cs231n calls it with (x, w, b)" in str(report)


def test_the_command_runs_from_elsewhere(tmp_path: Path) -> None:
    written(tmp_path, RELU)
    done = subprocess.run(
        [sys.executable, "-m", "cnnfast", "check", "student"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(cnnfast.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith("2 of 2 passed\n")
    assert done.stderr == ""  # no bar where nobody looks


def test_a_terminal_sees_a_bar_and_then_no_bar(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    main(["check", written(tmp_path, RELU)])
    shown = capsys.readouterr().err.split("\r")
    assert any("50% relu_backward" in line for line in shown)
    assert shown[-2].isspace()


def test_the_sample_in_the_readme_is_what_is_printed(tmp_path: Path) -> None:
    code = source("cs231n")
    for function, old, new in (
        ("conv_backward_naive", "+= w[f] *", "= w[f] *"),
        ("conv_backward_naive", "pad : pad + H, pad : pad + W", "pad:-pad, pad:-pad"),
        ("max_pool_forward_naive", "window.max(axis=(2, 3))", "window.max()"),
    ):
        start = code.index(f"def {function}")
        code = code[:start] + code[start:].replace(old, new, 1)
    layers = code[code.index("def conv_forward_naive") : code.index("def max_pool_backward_naive")]
    report = check_file(written(tmp_path, "import numpy as np\n\n\n" + layers))
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    assert f"```\n{report}\n```" in readme
