"""The table of compiled modules: `src/<name>.pyx` becomes `cnnfast._<name>`."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from itertools import chain

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

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
# Those whose own time counts; the others are made small.
COMPUTING = ("depthwise", "engine", "im2col", "naive", "pool", "tiled")

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,  # every size is checked in Python before a kernel runs
    "wraparound": False,
    "initializedcheck": False,
    "cdivision": True,
    "freethreading_compatible": True,
}

# -g0, -s: debug information would be nine tenths of the package, names of functions a twentieth
# -funroll-loops: sums of few numbers are up to a fifth faster
# -falign-loops: a loop of the product that begins amid a cache line is up to 8 % slower
FAST = ["-O3", "-g0", "-funroll-loops", "-falign-loops=64"]
SMALL = ["-Os", "-g0"]
LINK_ARGS = ["-s"] if sys.platform == "linux" else []
if sys.platform == "win32":
    FAST, SMALL = ["/O2", "/std:c11"], ["/O1", "/std:c11"]


def extension(name: str, *sources: str) -> Extension:
    """Return the module `cnnfast._<name>` of these sources."""
    return Extension(
        f"cnnfast._{name}",
        [f"src/{source}" for source in sources],
        include_dirs=["src"],
        depends=glob("src/**/*.h", recursive=True),
        extra_compile_args=FAST if name in COMPUTING else SMALL,
        extra_link_args=LINK_ARGS,
    )


class SideBySide(build_ext):
    """Sources of one module are compiled at once, too, as many as there are processors."""

    def build_extensions(self) -> None:
        """Let a pool of threads call the compiler."""
        compile_in_turn = self.compiler.compile
        with ThreadPoolExecutor(os.cpu_count()) as pool:

            def side_by_side(sources: list[str], **options: object) -> list[str]:
                found = pool.map(lambda source: compile_in_turn([source], **options), sources)
                return list(chain.from_iterable(found))

            self.compiler.compile = side_by_side
            super().build_extensions()


setup(
    cmdclass={"build_ext": SideBySide},
    ext_modules=cythonize(
        [
            *(
                extension(name, f"{name}.pyx", *(f"{source}.c" for source in sources))
                for name, sources in MODULES.items()
            ),
            extension("cython_views", "_cython_views.c"),  # views of arrays, once for all modules
        ],
        build_dir="build/cython",
        include_path=["src"],
        compiler_directives=DIRECTIVES,
        shared_utility_qualified_name="cnnfast._cython_views",
    ),
    options={"build_ext": {"parallel": True}},
)
