"""One floating-point dtype for the arrays of a call, as course code has it from NumPy's promotion.

cnnfast itself refuses integers and mixtures of float32 and float64; the courses' functions take
both. Valid for real arrays: what is neither an integer nor a float of at most 64 bits passes as it
is, and cnnfast names it in its TypeError.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

RealArray: TypeAlias = npt.NDArray[np.floating | np.integer | np.bool_]
FloatArray: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float64]


def promote(*arrays: RealArray) -> Sequence[FloatArray]:
    """Give the arrays in their common dtype: float32 or float64, integers as float64."""
    for array in arrays:
        if isinstance(array, np.ma.MaskedArray):  # np.asarray would drop the mask silently
            raise TypeError("a masked array has no place in a layer: fill it first")
    given = [np.asarray(array) for array in arrays]
    dtype = np.result_type(*given)
    if dtype.kind in "biu":
        dtype = np.dtype(np.float64)
    elif dtype == np.float16:
        dtype = np.dtype(np.float32)
    return [array.astype(dtype, copy=False) for array in given]


def promote_like(result: FloatArray, gradient: RealArray) -> FloatArray:
    """Give a gradient in the dtype in which its layer has computed the result."""
    (slopes,) = promote(gradient)
    return slopes.astype(result.dtype, casting="same_kind", copy=False)
