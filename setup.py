"""The table of compiled modules: `src/<name>.pyx` becomes `cnnfast._<name>`."""

import sys

from Cython.Build import cythonize
from setuptools import Extension, setup

MODULES = ["im2col", "naive", "norm"]

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,  # every size is checked in Python before a kernel runs
    "wraparound": False,
    "initializedcheck": False,
    "cdivision": True,
    "freethreading_compatible": True,
}

# -g0: debug information would be nine tenths of the package
COMPILE_ARGS = ["/O2"] if sys.platform == "win32" else ["-O3", "-g0", "-funroll-loops"]

setup(
    ext_modules=cythonize(
        [
            Extension(
                f"cnnfast._{name}",
                [f"src/{name}.pyx"],
                extra_compile_args=COMPILE_ARGS,
            )
            for name in MODULES
        ],
        build_dir="build/cython",
        include_path=["src"],
        compiler_directives=DIRECTIVES,
    )
)
