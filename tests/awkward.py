"""Awkward arrays: to NumPy the same numbers, to a kernel strange memory.

Each generator takes an array and returns one of its shape and dtype. All but the two broadcast ones
hold its numbers; all but `frozen` and those two can be written to.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Generator = Callable[[np.ndarray], np.ndarray]


def plain(array: np.ndarray) -> np.ndarray:
    """Return the C-contiguous copy, native and aligned, that the awkward array must equal."""
    return np.array(array, array.dtype.newbyteorder("="), order="C", subok=False)


def frozen(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


def _strided(array: np.ndarray) -> np.ndarray:
    """Return every second cell of a larger array, NaN in between."""
    wide = np.full([2 * extent + 1 for extent in array.shape], np.nan, array.dtype)
    view = wide[tuple(slice(1, None, 2) for _ in array.shape)]
    view[...] = array
    return view


def _backwards(axis: int) -> Generator:
    def generate(array: np.ndarray) -> np.ndarray:
        return np.flip(np.flip(array, axis % array.ndim).copy(), axis % array.ndim)

    return generate


def _moved(source: int, target: int) -> Generator:
    """Return the array with an axis at another place in memory than in the shape."""

    def generate(array: np.ndarray) -> np.ndarray:
        axis = source % array.ndim
        return np.moveaxis(np.moveaxis(array, axis, target).copy(), target, axis)

    return generate


def _first_of(axis: int) -> Generator:
    """Return the first entry along an axis, repeated with stride 0."""

    def generate(array: np.ndarray) -> np.ndarray:
        first = np.take(array, [0], axis)
        return np.broadcast_to(first, array.shape)

    return generate


def _misaligned(array: np.ndarray) -> np.ndarray:
    view = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def _byte_swapped(array: np.ndarray) -> np.ndarray:
    return array.astype(array.dtype.newbyteorder())


def _field(array: np.ndarray) -> np.ndarray:
    """Return a field of a packed record: its stride is no multiple of its size."""
    records = np.zeros(array.shape, [("tag", "i1"), ("value", array.dtype)])
    records["value"] = array
    return records["value"]


def _odd_steps(array: np.ndarray) -> np.ndarray:
    """Return the array with nonsense strides on axes of extent 1, which nobody may follow."""
    steps = zip(array.strides, array.shape, strict=True)
    strides = [-stride - 3 if extent == 1 else stride for stride, extent in steps]
    return np.lib.stride_tricks.as_strided(array, strides=strides)


def _memory_map(array: np.ndarray) -> np.ndarray:
    """Return an array of the class, if not of the file, of a memory map."""
    return array.copy().view(np.memmap)


ANY_STRIDES: dict[str, Generator] = {
    "strided": _strided,
    "fortran": np.asfortranarray,
    "transposed": _moved(-1, 0),
    "other-layout": _moved(1, -1),
    **{f"backwards-axis-{axis}": _backwards(axis) for axis in range(4)},
    "odd-steps": _odd_steps,
}
AWKWARD: dict[str, Generator] = {
    **ANY_STRIDES,
    "read-only": frozen,
    "broadcast-first": _first_of(0),
    "broadcast-last": _first_of(-1),
    "misaligned": _misaligned,
    "byte-swapped": _byte_swapped,
    "structured-field": _field,
    "memory-map": _memory_map,
}
