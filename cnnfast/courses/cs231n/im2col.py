"""CS231n's `im2col`: the index arrays of the course's NumPy im2col and the functions around them.

Swap it in: replace the contents of `cs231n/im2col.py` in the assignment by the one line
    from cnnfast.courses.cs231n.im2col import *
and the course's `fast_layers.py`, which takes its names from there, runs as it is. Up to 2023 the
course's file fails on Python 3 (its `/` gives NumPy a float count), so there this is the repair.
Whoever swaps `fast_layers` need not swap this file: that module brings the names along.

Rows and columns are those of `im2col_cython`. All three functions assert that the stride fits.

Different from the course's file:
- a field that is not square is checked with its own width (there with its height);
- integers become float64 and float16 becomes float32 (there the dtype stays);
- results are C-contiguous arrays (there, with padding, a view of the padded image);
- cols of the wrong shape, and a field larger than the padded image, are a ValueError;
- the assertions have messages; `range` is exported in every year (there from 2020 on);
- the leftovers of 2025 (`get_num_fields`, `field_coords`, `im2col_naive`, `col2im`) are not here.
"""

from __future__ import annotations

from builtins import range  # noqa: UP029 - the course's file exports it

import numpy as np
import numpy.typing as npt

from .._promote import FloatArray, RealArray
from .im2col_cython import col2im_cython, im2col_cython, output_size

__all__ = ["col2im_indices", "get_im2col_indices", "im2col_indices", "np", "range"]


def get_im2col_indices(
    x_shape: tuple[int, int, int, int],
    field_height: int,
    field_width: int,
    padding: int = 1,
    stride: int = 1,
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Index the padded image: `x_padded[:, k, i, j]` is (N, C*fh*fw, oh*ow).

    k, the channel, has the shape (C*fh*fw, 1); i and j, row and column, have (C*fh*fw, oh*ow).
    """
    OH, OW = _fitting_sizes(x_shape, field_height, field_width, padding, stride)
    k, ii, jj = np.indices((x_shape[1], field_height, field_width)).reshape(3, -1, 1)
    oy, ox = np.indices((OH, OW)).reshape(2, 1, -1)
    return k, ii + stride * oy, jj + stride * ox


def im2col_indices(
    x: RealArray, field_height: int, field_width: int, padding: int = 1, stride: int = 1
) -> FloatArray:
    """Spread x (N, C, H, W) into columns (C*fh*fw, oh*ow*N), n fastest."""
    _fitting_sizes(np.shape(x), field_height, field_width, padding, stride)
    return im2col_cython(x, field_height, field_width, padding, stride)


def col2im_indices(
    cols: RealArray,
    x_shape: tuple[int, int, int, int],
    field_height: int = 3,
    field_width: int = 3,
    padding: int = 1,
    stride: int = 1,
) -> FloatArray:
    """Add the columns (C*fh*fw, oh*ow*N) up into an image of the shape x_shape (N, C, H, W)."""
    _fitting_sizes(x_shape, field_height, field_width, padding, stride)
    return col2im_cython(cols, *x_shape, field_height, field_width, padding, stride)


def _fitting_sizes(
    x_shape: tuple[int, ...], field_height: int, field_width: int, padding: int, stride: int
) -> tuple[int, int]:
    """Give (oh, ow); an AssertionError, as in the course, where the stride does not fit."""
    _, _, H, W = x_shape
    OH = output_size(H, field_height, padding, stride)
    OW = output_size(W, field_width, padding, stride)
    assert (OH - 1) * stride + field_height == H + 2 * padding, "height does not work"
    assert (OW - 1) * stride + field_width == W + 2 * padding, "width does not work"
    return OH, OW
