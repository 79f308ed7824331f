"""CS231n's `im2col_cython`: the three functions of the course's extension, nothing to compile.

Swap it in: put a file `cs231n/im2col_cython.py` into the assignment that holds the one line
    from cnnfast.courses.cs231n.im2col_cython import *
and skip the cell that runs `setup.py build_ext`; the course's own fast_layers.py runs as it is.
Delete a compiled `cs231n/im2col_cython.*.so` or `.pyd` if there is one: Python would prefer it.
Or, with no new file: `sys.modules["cs231n.im2col_cython"] = this module` before importing cs231n.

Rows of cols are (c, ii, jj), jj fastest, as in `w.reshape(F, -1)`; columns are (oy, ox, n), n
fastest. 6-d columns are (c, ii, jj, n, oy, ox). Sizes floor where the stride does not fit.

Different from the course's extension:
- filters that are not square come out right (there rows collide or memory is overrun);
- integers are accepted, as float64, and float16, as float32 (there a TypeError);
- results are C-contiguous arrays (there, with padding, a view of the padded image);
- cols of the wrong shape, and a field larger than the padded image, are a ValueError;
- a star import does not bring in `np`.
"""

from __future__ import annotations

import cnnfast

from .._promote import FloatArray, RealArray, promote
from .._shapes import expect_shape, output_size

__all__ = ["col2im_6d_cython", "col2im_cython", "im2col_cython"]


def im2col_cython(
    x: RealArray, field_height: int, field_width: int, padding: int, stride: int
) -> FloatArray:
    """Spread x (N, C, H, W) into columns (C*fh*fw, oh*ow*N), n fastest."""
    (x_nchw,) = promote(x)
    cols = cnnfast.im2col(x_nchw, (field_height, field_width), stride=stride, padding=padding)
    N, rows, places = cols.shape
    return cols.transpose(1, 2, 0).reshape(rows, places * N)


def col2im_cython(
    cols: RealArray,
    N: int,
    C: int,
    H: int,
    W: int,
    field_height: int,
    field_width: int,
    padding: int,
    stride: int,
) -> FloatArray:
    """Add the columns (C*fh*fw, oh*ow*N) of `im2col_cython` up into an image (N, C, H, W)."""
    (columns,) = promote(cols)
    rows = C * field_height * field_width
    OH = output_size(H, field_height, padding, stride)
    OW = output_size(W, field_width, padding, stride)
    expect_shape("cols", columns, (rows, OH * OW * N))
    per_image = columns.reshape(rows, OH * OW, N).transpose(2, 0, 1)
    return cnnfast.col2im(
        per_image, (H, W), (field_height, field_width), stride=stride, padding=padding
    )


def col2im_6d_cython(
    cols: RealArray,
    N: int,
    C: int,
    H: int,
    W: int,
    HH: int,
    WW: int,
    pad: int,
    stride: int,
) -> FloatArray:
    """Add columns (C, HH, WW, N, oh, ow) up into an image (N, C, H, W)."""
    (columns,) = promote(cols)
    OH, OW = output_size(H, HH, pad, stride), output_size(W, WW, pad, stride)
    expect_shape("cols", columns, (C, HH, WW, N, OH, OW))
    per_image = columns.transpose(3, 0, 1, 2, 4, 5).reshape(N, C * HH * WW, OH * OW)
    return cnnfast.col2im(per_image, (H, W), (HH, WW), stride=stride, padding=pad)
