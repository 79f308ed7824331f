"""Shapes: what the courses' functions expect, count and pad, in errors that name their argument."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, SupportsIndex, TypeVar

import numpy as np
import numpy.typing as npt

AnyArray = TypeVar("AnyArray", bound="npt.NDArray[Any]")


def expect_shape(name: str, array: npt.ArrayLike, shape: tuple[int | str, ...]) -> None:
    """ValueError unless the array has exactly this shape, where a letter stands for any size."""
    got = np.shape(array)
    fits = len(got) == len(shape) and all(
        isinstance(size, str) or size == found for size, found in zip(shape, got, strict=True)
    )
    if not fits:
        wanted = str(shape).replace("'", "")
        raise ValueError(f"{name} must have shape {wanted}, got {got}")


def integer(name: str, value: SupportsIndex) -> int:
    """TypeError unless the value is an integer of some kind."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None


def pair(name: str, value: Sequence[int]) -> tuple[int, int]:
    """Unpack (height, width)."""
    try:
        height, width = value
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name} must be a pair (height, width), got {value!r}") from None
    return integer(name, height), integer(name, width)


def output_size(size: int, field: int, padding: int, stride: int) -> int:
    """Count the places of a field along one axis."""
    if stride < 1:
        raise ValueError(f"stride must be positive, got {stride}")
    if field > size + 2 * padding:
        raise ValueError(f"a field of {field} does not fit into {size} cells, padding {padding}")
    return (size + 2 * padding - field) // stride + 1


def zero_frame(array: AnyArray, padding: tuple[int, int], first: int) -> AnyArray:
    """Put zeros around the two axes from `first` on: rows above and below, columns beside."""
    if min(padding) < 0:
        raise ValueError(f"padding must not be negative, got {padding}")
    widths = [(0, 0)] * array.ndim
    widths[first : first + 2] = [(cells, cells) for cells in padding]
    framed: Any = np.pad(array, widths)
    return framed
