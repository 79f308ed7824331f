"""The table of compiled modules: `src/<name>.pyx` becomes `cnnfast._<name>`."""

import sys
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

MODULES = {  # name: its sources in C; the one that takes longest to compile begins
    "engine": [
        "threads",
        *(f"simd/{name}" for name in ("sets", "baseline", "avx2", "avx512", "neon")),
    ],
    "abreast": [],
    "correlation": [],
    "depthwise": [],
    "im2col": [],
    "naive": [],
    "norm": [],
    "pool": [],
    "tiled": [],
    "windows": [],
    "winograd": [],
}

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,  # every size is checked in Python before a kernel runs
    "wraparound": False,
    "initializedcheck": False,
    "cdivision": True,
    "freethreading_compatible": True,
}

# -g0: debug information would be nine tenths of the package
# -falign-loops: a loop of the product that begins amid a cache line is up to 8 % slower
COMPILE_ARGS = ["-O3", "-g0", "-funroll-loops", "-falign-loops=64"]
if sys.platform == "win32":
    COMPILE_ARGS = ["/O2", "/std:c11"]

setup(
    ext_modules=cythonize(
        [
            Extension(
                f"cnnfast._{name}",
                [f"src/{name}.pyx", *(f"src/{source}.c" for source in sources)],
                include_dirs=["src"],
                depends=glob("src/**/*.h", recursive=True),
                extra_compile_args=COMPILE_ARGS,
            )
            for name, sources in MODULES.items()
        ],
        build_dir="build/cython",
        include_path=["src"],
        compiler_directives=DIRECTIVES,
    ),
    options={"build_ext": {"parallel": True}},  # as many modules at once as there are processors
)
