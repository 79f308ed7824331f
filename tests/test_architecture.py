"""The house plan: which module may import which, and what the public face looks like."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest

import cnnfast
from cnnfast import reference

PACKAGE = Path(cnnfast.__file__).parent
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
MAY_IMPORT = {  # module: the modules of the package that it may import
    "conv": {"algorithms", "geometry", "arrays", "_naive"},
    "pool": {"algorithms", "geometry", "arrays"},
    "norm": {"geometry", "arrays", "_norm"},
    "columns": {"geometry", "arrays", "threads", "_im2col"},
    "linear": {"conv", "algorithms", "geometry", "arrays"},
    "algorithms": {
        *("geometry", "arrays", "_naive", "_im2col", "_tiled", "_depthwise", "_winograd", "_pool"),
    },
    "arrays": {"geometry"},
    "geometry": set(),
    "reference": set(),
    "cpu": {"arrays", "_engine"},
    "threads": {"geometry", "_engine"},
    "config": {"algorithms", "cpu", "threads"},
    "gradcheck": {"checker"},
    "__main__": {"checker", "courses"},
}
OPERATIONS = (
    *("conv2d", "conv_transpose2d", "linear", "max_pool2d", "avg_pool2d"),
    *("global_max_pool2d", "global_avg_pool2d", "batch_norm2d", "group_norm"),
)
TWINS = (
    *(name + suffix for name in OPERATIONS for suffix in ("", "_forward", "_backward")),
    *("im2col", "col2im"),
)
OTHERS = (
    *("plan_conv2d", "get_num_threads", "set_num_threads", "num_threads"),
    *("cpu", "show_config", "reference"),
)


def imports(module: Path) -> set[str]:
    """Return the absolute names of everything a module of the package imports, wherever it does."""
    package = ["cnnfast", *module.parent.parts]
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            source = ".".join([*base, node.module] if node.module else base)
            found |= {f"{source}.{alias.name}" for alias in node.names}
    return found


def of_package(module: Path) -> set[str]:
    """Return the modules, or names, right below cnnfast that a module imports."""
    return {name.split(".")[1] for name in imports(module) if name.startswith("cnnfast.")}


def test_every_module_has_its_arrows() -> None:
    assert {path.stem for path in MODULES if len(path.parts) == 1} == MAY_IMPORT.keys() | {
        "__init__"
    }


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_arrows(name: str) -> None:
    assert of_package(Path(f"{name}.py")) <= MAY_IMPORT[name]


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_modules_import_numpy_and_the_standard_library_alone(module: Path) -> None:
    foreign = {name.split(".")[0] for name in imports(module)} - {"numpy", "cnnfast"}
    assert foreign <= sys.stdlib_module_names


@pytest.mark.parametrize("module", [m for m in MODULES if m.parts[0] == "courses"], ids=str)
def test_courses_use_public_names_only(module: Path) -> None:
    assert of_package(module) <= set(cnnfast.__all__) | {"courses"}


@pytest.mark.parametrize("module", [m for m in MODULES if m.parts[0] == "checker"], ids=str)
def test_the_checker_uses_the_reference_only(module: Path) -> None:
    assert of_package(module) <= {"checker", "reference"}


def test_import_loads_numpy_and_the_standard_library_alone() -> None:
    program = (
        "import numpy, sys; before = set(sys.modules); import cnnfast;"
        "print(*set(sys.modules) - before)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    loaded = {name.split(".")[0] for name in result.stdout.split()}
    assert "cnnfast" in loaded
    assert not {"cnnfast.reference", "importlib.metadata"} & set(result.stdout.split())
    cython = {name for name in loaded if name.startswith(("_cython", "cython_runtime"))}
    assert loaded - cython - sys.stdlib_module_names <= {"cnnfast", "numpy"}


def test_import_without_numpy_names_numpy() -> None:
    program = "import sys; sys.modules['numpy'] = None; import cnnfast"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "ModuleNotFoundError: import of numpy" in result.stderr
    assert "compiled" not in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("variable", ["CNNFAST_NUM_THREADS", "CNNFAST_CPU"])
def test_an_empty_variable_counts_as_unset(variable: str) -> None:
    subprocess.run(
        [sys.executable, "-c", "import cnnfast"], check=True, env=os.environ | {variable: ""}
    )


def test_numpy_is_the_only_dependency() -> None:
    needed = [line for line in requires("cnnfast") or () if "extra ==" not in line]
    assert [line.split(">")[0] for line in needed] == ["numpy"]


@pytest.mark.parametrize("name", TWINS)
def test_signatures_are_those_of_the_reference(name: str) -> None:
    shown, twin = (
        [(each.name, each.kind, each.default) for each in inspect.signature(f).parameters.values()]
        for f in (getattr(cnnfast, name), getattr(reference, name))
    )
    assert shown == twin


def test_public_names() -> None:
    assert set(cnnfast.__all__) >= {*TWINS, *OTHERS}
    assert len(set(cnnfast.__all__)) == len(cnnfast.__all__)
    assert set(reference.__all__) == set(TWINS)
    for name in cnnfast.__all__:
        assert getattr(cnnfast, name).__doc__, name
