"""What a caller may pass as an array, and what comes back when it may not.

The kernels take float32 and float64 of the machine's byte order, aligned, with any strides. Here
everything that NumPy can read as such an array becomes one (a copy is made only of byte-swapped or
misaligned data), and everything else becomes a TypeError or ValueError that names the argument, the
value and what is needed.
"""

from __future__ import annotations

import math
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from .geometry import shown

FloatArray: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float64]
FloatDtype: TypeAlias = np.dtype[np.float32] | np.dtype[np.float64]

AnyArray = TypeVar("AnyArray", FloatArray, FloatArray | None, npt.NDArray[np.int64])

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
LAYOUTS = ("NCHW", "NHWC")
LINE = 64  # bytes of a cache line
LARGE = 16_384  # numbers: from here on aligning an array, about 1 us, is nothing beside filling it
OVERLAP_WORK = 10_000  # steps np.shares_memory may take before two arrays count as overlapping


def float_array(name: str, value: npt.ArrayLike, ndim: int) -> FloatArray:
    """``value`` as a float array of ``ndim`` dimensions, none of them empty but the first."""
    array = floats(name, value)
    if array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimensions, got shape {array.shape}")
    if array.size == 0 and 0 in array.shape[1:]:
        raise ValueError(
            f"{name} must not be empty in any dimension but the first, got {array.shape}"
        )
    return array


def parameter(
    name: str, value: npt.ArrayLike, shape: tuple[int, ...], like: FloatArray
) -> FloatArray:
    """A bias, scale or statistic: a float array of exactly this shape and the dtype of x."""
    array = floats(name, value)
    check_shape(name, array, shape)
    check_dtype("x", like.dtype, name, array)
    return array


def gradient(value: npt.ArrayLike, shape: tuple[int, ...], dtype: FloatDtype) -> FloatArray:
    """``dy`` for a result of this shape and dtype."""
    dy = floats("dy", value)
    check_shape("dy", dy, shape)
    check_dtype("the forward pass", dtype, "dy", dy)
    return dy


def floats(name: str, value: npt.ArrayLike) -> FloatArray:
    """``value`` as an ndarray of float32 or float64, of native byte order and alignment.

    It is a new object even where it is no copy: what the caller does to the shape of theirs later
    does not reach ours.
    """
    array = value.view() if type(value) is np.ndarray else _as_ndarray(name, value)
    if array.dtype in DTYPES and array.flags.aligned:
        return array
    dtype = array.dtype if array.dtype.isnative else array.dtype.newbyteorder("=")
    if dtype not in DTYPES:
        raise TypeError(
            f"{name} has dtype {dtype}; cnnfast computes in float32 and float64:"
            f" pass {name}.astype(np.float32)"
        )
    return array.astype(dtype)


def _as_ndarray(name: str, value: npt.ArrayLike) -> np.ndarray:
    """What NumPy makes of a list, of a subclass, or of whatever else may be an array."""
    check_unmasked(name, value)
    if value is None or isinstance(value, (str, bytes, dict)):
        raise TypeError(f"{name} must be an array, got {shown(value)}")
    try:
        return np.asarray(value).view()
    except ValueError as error:
        raise ValueError(f"{name} cannot be read as an array: {error}") from error


def check_dtype(first: str, dtype: FloatDtype, name: str, array: FloatArray) -> None:
    """TypeError unless the array has the dtype of the first."""
    if array.dtype != dtype:
        raise TypeError(
            f"{first} is {dtype} and {name} is {array.dtype}: pass {name}.astype(np.{dtype})"
        )


def check_shape(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    """ValueError unless the shape is exactly this one."""
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")


def new_array(shape: tuple[int, ...], dtype: FloatDtype) -> FloatArray:
    """An array for a result, not filled; it begins on a cache line if it is large.

    Vectors stored across two lines cost a layer that is bound by memory some 5 %.
    """
    numbers = math.prod(shape)
    if numbers < LARGE:
        return np.empty(shape, dtype)
    room = np.empty(numbers + LINE // dtype.itemsize, dtype)
    first = -room.__array_interface__["data"][0] % LINE // dtype.itemsize
    return room[first : first + numbers].reshape(shape)


def result(
    out: FloatArray, shape: tuple[int, ...], dtype: FloatDtype, **inputs: FloatArray | None
) -> FloatArray:
    """``out`` as an ndarray, once it is known to be fit for the result."""
    y = writable("out", out, shape, dtype)
    check_apart("out", y, **inputs)
    return y


def writable(name: str, value: FloatArray, shape: tuple[int, ...], dtype: FloatDtype) -> FloatArray:
    """Return the caller's array, whatever its subclass, as an ndarray that the kernels may fill."""
    check_unmasked(name, value)
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name} must be an ndarray, got {type(value).__name__}")
    array = np.asarray(value).view()
    if array.dtype != dtype or not array.dtype.isnative:
        raise TypeError(f"{name} must have dtype {dtype}, got {array.dtype.str}")
    check_shape(name, array, shape)
    if not array.flags.writeable:
        raise ValueError(f"{name} is read-only: pass a writeable array")
    if not array.flags.aligned:
        raise ValueError(f"{name} is misaligned: its data must begin at a multiple of its itemsize")
    if _overlaps_itself(array):
        raise ValueError(f"{name} overlaps itself (strides {array.strides}): pass a plain array")
    return array


def check_apart(name: str, array: FloatArray, **others: FloatArray | None) -> None:
    """ValueError if an array that is written to shares a number with another."""
    for other_name, other in others.items():
        if other is not None and _overlap(array, other):
            raise ValueError(f"{name} must not overlap {other_name}: pass another array")


def check_unmasked(name: str, value: object) -> None:
    """TypeError for a masked array, whose mask the kernels would not see."""
    # NumPy loads np.ma when it is first named, which takes longer than many calls.
    if type(value) is not np.ndarray and isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array: fill it first, for example {name}.filled(0)")


def check_cache(cache: object, kind: type, source: str) -> None:
    """TypeError unless the cache is one that the forward pass called ``source`` returns."""
    if not isinstance(cache, kind):
        raise TypeError(f"cache must come from {source}, got {type(cache).__name__}")


def check_cached(dtype: FloatDtype, **arrays: tuple[np.ndarray, tuple[int, ...]]) -> None:
    """ValueError unless the arrays of a cache, each given with its shape, are as forward left them.

    They are handed to kernels that trust them, and a cache can be forged.
    """
    for name, (array, shape) in arrays.items():
        plain = type(array) is np.ndarray and array.flags.aligned
        if not (plain and array.shape == shape and array.dtype == dtype):
            raise ValueError(f"cache.{name} must be an array of shape {shape} and dtype {dtype}")


def _overlap(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays share a number; True also where that is too hard to tell."""
    try:
        return np.shares_memory(a, b, max_work=OVERLAP_WORK)
    except np.exceptions.TooHardError:
        return True


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """TypeError unless ``value`` is a string, ValueError unless it is one of the choices."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {choices}, got {shown(value)}")
    if value not in choices:
        raise ValueError(f"{name} must be one of {choices}, got {shown(value)}")


def check_needs(needs: str) -> None:
    """TypeError unless ``needs`` is a string, ValueError unless of the letters x, w, b."""
    if not isinstance(needs, str):
        raise TypeError(f"needs must be a string of the letters x, w and b, got {shown(needs)}")
    if not set(needs) <= set("xwb"):
        raise ValueError(f"needs must consist of the letters x, w and b, got {shown(needs)}")


def nchw(array: AnyArray, layout: str) -> AnyArray:
    """Return the array (or None) seen as (N, C, H, W), whatever its layout; no copy."""
    return array.transpose(0, 3, 1, 2) if array is not None and layout == "NHWC" else array


def _overlaps_itself(array: np.ndarray) -> bool:
    """Whether two indices may name the same bytes: a stride does not step over all below it."""
    if array.flags.c_contiguous or array.size == 0:
        return False
    covered = array.itemsize
    for stride, extent in sorted(
        (abs(stride), extent) for stride, extent in zip(array.strides, array.shape, strict=True)
    ):
        if extent > 1:
            if stride < covered:
                return True
            covered += (extent - 1) * stride
    return False
