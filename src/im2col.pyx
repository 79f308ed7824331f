"""Convolution as a matrix product over explicit columns, the algorithm that students know.

After Chellapilla, Puri and Simard, "High performance convolutional neural networks for document processing", 2006.
Valid for every problem.

Each window becomes a column, each of its taps a row, and padding becomes zeros:

    x (N, C, H, W)  ->  cols (C*KH*KW, N*OH*OW)          cols[c,kh,kw | n,oh,ow] = x[n, c, ih, iw]

    forward          y    (F, N*OH*OW) = w (F, C*KH*KW) @ cols
    weight gradient  dw   (F, C*KH*KW) = dy (F, N*OH*OW) @ cols.T
    input gradient   dcols             = w.T @ dy, and col2im adds each column back to the cells it came from

Both gradients are made in one pass over dy, which is what they have in common.

The columns are up to KH*KW times larger than x, so no product sees all of them: each works on a block of windows,
several whole images where they are small, rows of one image where they are large. A block has the columns of a
problem with another padding, so the two kernels at the end need not know of blocks.

In y, other than in the product above, F lies between the windows of two images. So images with enough windows get a
product each, which reads dy and writes y in place; smaller ones share a product, copied from dy or to y.

The formula has no term for a tap in the padding, but the product has: 0 times the weight. Where that weight (or, for
the weight gradient, dy) is not finite this would be NaN, so such a block is left to the naive loops.

The products are NumPy's: how its BLAS orders a sum, and so the last bits, may depend on the number of its threads.
"""

from cpython.exc cimport PyErr_CheckSignals
from cython cimport floating
from libc.string cimport memcpy

from itertools import product
from typing import NamedTuple

import numpy as np

from cnnfast._engine cimport run
from geometry cimport Axis, Window, end_window, first_window, start_of, window_of

from cnnfast import _naive

BLOCK_BYTES = 512 * 2**10  # columns and product of a block: half of a second-level cache
BLOCK_WINDOWS = 256  # but not fewer in a product, or BLAS reads the weights more often than the columns
MOST_BYTES = 32 * 2**20  # and never more memory than this
WORKERS = 1  # that copy: those of the BLAS are awake beside it, and waiting for its next product
BUFFER_BYTES = 2**17  # of NumPy's own, through which it casts: 8192 numbers in both types


def forward(conv, x, w, b, bint relu, y):
    """Compute ``y = relu(x * w + b)``."""
    if _is_padded(conv.window) and not np.isfinite(w).all():
        return _naive.forward(conv, x, w, b, relu, y)
    w_gfk = _as_matrices(w, conv.groups)
    bias = b[:, None, None, None]
    with np.errstate(all="ignore"):  # what is not finite goes where the formula sends it, in silence
        for block in _blocks(conv, y):
            columns_of(block.window, x[block.images], block.cols, WORKERS)
            np.matmul(w_gfk, block.cols_pgkq, out=block.product_pgfq)
            np.add(block.product.swapaxes(0, 1), bias, out=block.y.swapaxes(0, 1))  # reads in order, whatever y's order
            if relu:
                _naive.rectify(block.y)
            PyErr_CheckSignals()


def input_gradient(conv, dy, w, b, bint relu, dx):
    """Compute ``dx = relu(what dy scatters through w + b)``."""
    with np.errstate(all="ignore"):
        gradients(conv, None, w, dy, dx, None, None)
        dx += b[:, None, None]
    if relu:
        _naive.rectify(dx)


def gradients(conv, x, w, dy, dx, dw, db):
    """Set dx and add to dw and db (those that are not None) what dy contributes."""
    if dx is not None:
        dx[...] = 0
    w_gkf = None if dx is None else _as_matrices(w, conv.groups).transpose(0, 2, 1)
    dw_gfk = None if dw is None else _as_matrices(dw, conv.groups)
    filters = _pieces(conv.F // conv.groups, _filters_at_once(conv))  # their sums of a block take little memory
    padded = _is_padded(conv.window)
    for block in _blocks(conv, dy):
        if block.product is not block.y:
            block.product[...] = block.y
        sums = _sums(block.product_pgfq)
        if db is not None:
            db += sums
        if dw is not None and padded and not np.isfinite(sums).all():
            of_block = conv._replace(window=block.window)
            _naive.add_weight_gradient(of_block, x[block.images], block.y, dw)
        elif dw is not None:
            columns_of(block.window, x[block.images], block.cols, WORKERS)
            for f in filters:
                for part in np.matmul(block.product_pgfq[:, :, f], block.cols_pgkq.swapaxes(2, 3)):
                    dw_gfk[:, f] += part
                PyErr_CheckSignals()
        if dx is not None:
            np.matmul(w_gkf, block.product_pgfq, out=block.cols_pgkq)
            add_columns(block.window, block.cols, dx[block.images], False, WORKERS)
        PyErr_CheckSignals()


def workspace_bytes(conv):
    """Bytes of a block, of the sums that the weight gradient adds at once, and of NumPy's buffers."""
    images, rows, columns = _block_size(conv, conv.N)
    group_filters = conv.F // conv.groups
    sums = min(_filters_at_once(conv), group_filters) * _filter_bytes(conv)
    return images * rows * columns * _window_bytes(conv) + _products(conv, images) * sums + BUFFER_BYTES


def columns_of(window, const floating[:, :, :, :] x, floating[:, :, :, :, :, :] cols, int workers):
    """Copy ``x[n, c]`` to ``cols[c, kh, kw, n, oh, ow]``, with zeros for the padding."""
    cdef Job job = _job(window, <char *>&x[0, 0, 0, 0], x.strides, x.shape, <char *>&cols[0, 0, 0, 0, 0, 0],
                        cols.strides, sizeof(floating))
    cdef Py_ssize_t taps = job.N * job.C * job.g.h.kernel * job.g.w.kernel
    job.together = max(1, CHUNK // (job.g.h.output * job.g.w.output))
    run(columns_chunk, &job, (taps + job.together - 1) // job.together, workers)


def add_columns(window, const floating[:, :, :, :, :, :] cols, floating[:, :, :, :] x, bint to_zero, int workers):
    """Add ``cols[c, kh, kw, n, oh, ow]`` to ``x[n, c]``, or to zeros; what lies in the padding is dropped."""
    cdef Job job = _job(window, <char *>&x[0, 0, 0, 0], x.strides, x.shape, <char *>&cols[0, 0, 0, 0, 0, 0],
                        cols.strides, sizeof(floating))
    cdef Py_ssize_t row = job.g.w.size * job.g.h.kernel * job.g.w.kernel
    job.to_zero = to_zero
    job.rows = min(job.g.h.size, max(1, MOST_ADDED // row))
    job.bands = (job.g.h.size + job.rows - 1) // job.rows
    job.together = max(1, CHUNK // (job.rows * row))
    run(add_chunk, &job, (job.N * job.C * job.bands + job.together - 1) // job.together, workers)


# --------------------------------------------------------------------------------------------------------- blocks

class _Block(NamedTuple):
    """A box of windows, the matrices of its products, and each of these seen as an array of windows."""

    window: object  # geometry of the box
    images: slice
    y: object  # its part of y or dy (images, F, rows, columns)
    cols_pgkq: object  # (products, groups, C/groups*KH*KW, windows of a product)
    cols: object  # (C, KH, KW, images, rows, columns)
    product_pgfq: object  # (products, groups, F/groups, windows of a product)
    product: object  # (images, F, rows, columns): y itself, or a copy where y has not the order of the products


def _blocks(conv, y):
    """Cut the windows of all images into blocks, which share their memory; y may as well be dy."""
    N, _, OH, OW = y.shape
    images, rows, columns = _block_size(conv, N)
    scratch = np.empty(images * rows * columns * _window_bytes(conv), np.uint8).view(conv.dtype)
    for oh, ow in product(_pieces(OH, rows), _pieces(OW, columns)):
        window = type(conv.window)(_part(conv.window.h, oh), _part(conv.window.w, ow))
        count = 0
        for n in _pieces(N, images):
            if n.stop - n.start != count:
                count = n.stop - n.start
                cols, copies = _arrays(conv, scratch, count, oh.stop - oh.start, ow.stop - ow.start)
            y_block = y[n, :, oh, ow]
            in_place = y_block.flags.c_contiguous and _products(conv, count) == count
            products = (y_block.reshape(copies[0].shape), y_block) if in_place else copies
            yield _Block(window, n, y_block, *cols, *products)


def _arrays(conv, scratch, images, rows, columns):
    """The columns of a block and its products, each as matrices and as an array of windows."""
    taps = conv.C * conv.window.h.kernel * conv.window.w.kernel
    products = _products(conv, images)
    together = images // products  # one of the two is 1, so that each reshape below is a view
    q = together * rows * columns
    cols, product = scratch[:products * taps * q], scratch[products * taps * q:products * (taps + conv.F) * q]
    by_tap = cols.reshape(products, conv.C, *conv.window.kernel, together, rows, columns)
    by_filter = product.reshape(products, conv.F, together, rows, columns)
    return (
        (
            cols.reshape(products, conv.groups, -1, q),
            by_tap.transpose(1, 2, 3, 0, 4, 5, 6).reshape(conv.C, *conv.window.kernel, images, rows, columns),
        ),
        (
            product.reshape(products, conv.groups, -1, q),
            by_filter.swapaxes(1, 2).reshape(images, conv.F, rows, columns),
        ),
    )


def _products(conv, images):
    """Products of a block: one for each image if it has windows enough, or else one for all."""
    OH, OW = conv.window.output
    return images if OH * OW >= BLOCK_WINDOWS else 1


def _pieces(extent, step):
    """Slices of at most step that cover the extent."""
    return [slice(start, min(start + step, extent)) for start in range(0, extent, step)]


def _part(axis, windows):
    """Some windows of an axis: an axis that begins further into the image."""
    pad_before = axis.pad_before - windows.start * axis.stride
    return axis._replace(output=windows.stop - windows.start, pad_before=pad_before)


def _block_size(conv, N):
    """Images, rows and columns of windows in a block: whole images, or else whole rows, or else part of a row."""
    windows = max(BLOCK_BYTES // _window_bytes(conv), BLOCK_WINDOWS)
    windows = max(1, min(windows, MOST_BYTES // _window_bytes(conv)))
    OH, OW = conv.window.output
    return min(max(1, N), max(1, windows // (OH * OW))), min(OH, max(1, windows // OW)), min(OW, windows)


def _window_bytes(conv):
    """Bytes of one window in both matrices of a block."""
    return (conv.C * conv.window.h.kernel * conv.window.w.kernel + conv.F) * conv.itemsize


def _filters_at_once(conv):
    """Filters of each group whose weight gradients fit a block's size."""
    return max(1, BLOCK_BYTES // _filter_bytes(conv))


def _filter_bytes(conv):
    """Bytes of the weights of one filter in every group."""
    return conv.C * conv.window.h.kernel * conv.window.w.kernel * conv.itemsize


def _as_matrices(w, groups):
    """Weights as (groups, F/groups, C/groups*KH*KW)."""
    return np.ascontiguousarray(w).reshape(groups, w.shape[0] // groups, -1)


def _sums(product_pgfq):
    """Sum over the windows of each filter; finite only if all its numbers are."""
    with np.errstate(all="ignore"):
        return product_pgfq.sum(axis=(0, 3), dtype=np.float64).reshape(-1)


def _is_padded(window):
    return any(axis.pad_before or axis.pad_after for axis in window)


# -------------------------------------------------------------------------------------------------------- kernels
#
# Columns, a task for each tap of each plane, and every row of windows that sees the image through it:
#
#   for n, c, kh, kw                          in parallel: one row of cols
#     for oh in rows of windows               one row of the plane, or of the padding
#       for ow in windows of the row          a run of copies between two runs of zeros
#
# Back, a task for each band of rows of each plane, which nobody else adds to:
#
#   for n, c, band                            in parallel: some rows of x, which stay in a cache
#     for kh, kw in taps
#       for oh, ow that see the band          a run of additions

cdef enum:
    CHUNK = 32768  # numbers copied or added at a time: some ten microseconds
    MOST_ADDED = 4194304  # to a band: milliseconds, after which Ctrl-C is looked at


cdef struct Job:
    Window g
    char *x
    char *cols
    Py_ssize_t itemsize, N, C
    Py_ssize_t x_n, x_c, x_h, x_w  # steps, in numbers
    Py_ssize_t cols_c, cols_kh, cols_kw, cols_n, cols_oh, cols_ow
    Py_ssize_t together  # tasks in a chunk
    Py_ssize_t rows, bands  # rows of x in a band, and bands of a plane
    bint to_zero


cdef Job _job(window, char *x, const Py_ssize_t *x_step, const Py_ssize_t *x_shape, char *cols,
              const Py_ssize_t *cols_step, Py_ssize_t itemsize):
    cdef Job job
    job.g, job.x, job.cols, job.itemsize, job.N, job.C = window_of(window), x, cols, itemsize, x_shape[0], x_shape[1]
    job.x_n, job.x_c, job.x_h, job.x_w = [step // itemsize for step in x_step[:4]]
    job.cols_c, job.cols_kh, job.cols_kw, job.cols_n, job.cols_oh, job.cols_ow = [
        step // itemsize for step in cols_step[:6]]
    return job


cdef void columns_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    cdef Job *job = <Job *>context
    cdef Py_ssize_t KH = job.g.h.kernel, KW = job.g.w.kernel, task, n, c, kh, kw, x, cols
    for task in range(i * job.together, min((i + 1) * job.together, job.N * job.C * KH * KW)):
        kw, kh = task % KW, task // KW % KH
        c, n = task // (KH * KW) % job.C, task // (KH * KW) // job.C
        x = n * job.x_n + c * job.x_c
        cols = c * job.cols_c + kh * job.cols_kh + kw * job.cols_kw + n * job.cols_n
        if job.itemsize == sizeof(float):
            _copy_tap(job, kh, kw, <const float *>job.x + x, <float *>job.cols + cols)
        else:
            _copy_tap(job, kh, kw, <const double *>job.x + x, <double *>job.cols + cols)


cdef void add_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    cdef Job *job = <Job *>context
    cdef Window g
    cdef Py_ssize_t task, n, c, h, x, cols
    for task in range(i * job.together, min((i + 1) * job.together, job.N * job.C * job.bands)):
        h = task % job.bands * job.rows
        c, n = task // job.bands % job.C, task // job.bands // job.C
        x = n * job.x_n + c * job.x_c + h * job.x_h
        cols = c * job.cols_c + n * job.cols_n
        g = job.g  # the band is an image of its own, with a larger padding
        g.h.pad_before += h
        g.h.size = min(job.rows, g.h.size - h)
        if job.itemsize == sizeof(float):
            _add_band(job, g, <const float *>job.cols + cols, <float *>job.x + x)
        else:
            _add_band(job, g, <const double *>job.cols + cols, <double *>job.x + x)


cdef void _copy_tap(const Job *job, Py_ssize_t kh, Py_ssize_t kw, const floating *x, floating *cols) noexcept nogil:
    cdef Axis h = job.g.h, w = job.g.w
    cdef Py_ssize_t first_row = first_window(h, kh), end_row = max(first_row, end_window(h, kh))
    cdef Py_ssize_t first = first_window(w, kw), end = max(first, end_window(w, kw)), oh
    cdef Py_ssize_t left = start_of(w, first) + kw * w.dilation
    for oh in range(h.output):
        if first_row <= oh < end_row and first < end:
            _zero(cols, job.cols_ow, first)
            _copy(x + (start_of(h, oh) + kh * h.dilation) * job.x_h + left * job.x_w, job.x_w * w.stride,
                  cols + first * job.cols_ow, job.cols_ow, end - first)
            _zero(cols + end * job.cols_ow, job.cols_ow, w.output - end)
        else:
            _zero(cols, job.cols_ow, w.output)
        cols += job.cols_oh


cdef void _add_band(const Job *job, Window g, const floating *cols, floating *x) noexcept nogil:
    cdef Py_ssize_t h, kh, kw, oh, first, end, left
    if job.to_zero:
        for h in range(g.h.size):
            _zero(x + h * job.x_h, job.x_w, g.w.size)
    for kh in range(g.h.kernel):
        for kw in range(g.w.kernel):
            first, end = first_window(g.w, kw), end_window(g.w, kw)
            left = start_of(g.w, first) + kw * g.w.dilation
            for oh in range(first_window(g.h, kh), end_window(g.h, kh) if first < end else 0):
                _add(cols + kh * job.cols_kh + kw * job.cols_kw + oh * job.cols_oh + first * job.cols_ow, job.cols_ow,
                     x + (start_of(g.h, oh) + kh * g.h.dilation) * job.x_h + left * job.x_w, job.x_w * g.w.stride,
                     end - first)


cdef inline void _zero(floating *target, Py_ssize_t step, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(count):
        target[i * step] = 0


cdef inline void _copy(const floating* source, Py_ssize_t source_step, floating* target, Py_ssize_t target_step,
                       Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t i
    if source_step == 1 and target_step == 1:
        memcpy(target, source, count * sizeof(floating))
    elif target_step == 1:  # the loop below, with a step the compiler knows
        for i in range(count):
            target[i] = source[i * source_step]
    else:
        for i in range(count):
            target[i * target_step] = source[i * source_step]


cdef inline void _add(const floating* source, Py_ssize_t source_step, floating* target, Py_ssize_t target_step,
                      Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t i
    if source_step == 1 and target_step == 1:  # the loop below, with steps the compiler knows
        for i in range(count):
            target[i] += source[i]
    elif source_step == 1:
        for i in range(count):
            target[i * target_step] += source[i]
    else:
        for i in range(count):
            target[i * target_step] += source[i * source_step]
