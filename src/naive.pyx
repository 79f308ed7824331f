"""Convolution and pooling as the formulas say: one plain loop per dimension.

To be read, and to compare the other algorithms with. Valid for every problem: any stride, padding, dilation,
groups, both dtypes and, since arrays come as strided views in the order N, C, H, W, any layout. A function that
starts with an underscore computes on one pair of planes and runs without the GIL; between two of them, and now and
then within a large one (`polled`), somebody looks for Ctrl-C.

    for n in images                          y[n, f] is one plane
      for f in filters                       and sees the channels of its group
        for oh, ow in windows                geometry.pxd: the cell under tap 0
          for c in channels of the group
            for kh, kw in taps inside the image

The forward pass gathers over the inner three loops, the input gradient scatters over them, and the weight gradient
sums over the windows.
"""

from cpython.exc cimport PyErr_CheckSignals
from cython cimport floating
from libc.math cimport isnan

import numpy as np

from geometry cimport Window, end_tap, first_tap, start_of, taps_that_count, window_of
from interrupt cimport STEPS, polled


# ---------------------------------------------------------------------------------------------------- convolution

def forward(conv, const floating[:, :, :, :] x, const floating[:, :, :, :] w, const floating[:] b, bint relu,
            floating[:, :, :, :] y):
    """Compute ``y = relu(x * w + b)``."""
    cdef Window g = window_of(conv.window)
    cdef Py_ssize_t channels = w.shape[1], group_filters = w.shape[0] // conv.groups, n, f, c
    for n in range(y.shape[0]):
        for f in range(y.shape[1]):
            c = f // group_filters * channels
            with nogil:
                _forward(x[n, c:c + channels], w[f], b[f], relu, y[n, f], g)
            PyErr_CheckSignals()


def input_gradient(conv, dy, w, b, bint relu, dx):
    """Compute ``dx = relu(what dy scatters through w + b)``."""
    fill(b, dx)
    add_input_gradient(conv, dy, w, dx)
    if relu:
        rectify(dx)


def gradients(conv, x, w, dy, dx, dw, db):
    """Set dx and add to dw and db (those that are not None) what dy contributes."""
    if dx is not None:
        fill(np.zeros(conv.C, conv.dtype), dx)
        add_input_gradient(conv, dy, w, dx)
    if dw is not None:
        add_weight_gradient(conv, x, dy, dw)
    if db is not None:
        add_bias_gradient(dy, db)


def add_input_gradient(conv, const floating[:, :, :, :] dy, const floating[:, :, :, :] w, floating[:, :, :, :] dx):
    """Add to each cell of dx the dy of all windows that saw it, times the weight it was seen with."""
    cdef Window g = window_of(conv.window)
    cdef Py_ssize_t channels = w.shape[1], group_filters = w.shape[0] // conv.groups, n, f, c
    for n in range(dy.shape[0]):
        for f in range(dy.shape[1]):
            c = f // group_filters * channels
            with nogil:
                _input_gradient(dy[n, f], w[f], dx[n, c:c + channels], g)
            PyErr_CheckSignals()


def add_weight_gradient(conv, const floating[:, :, :, :] x, const floating[:, :, :, :] dy, floating[:, :, :, :] dw):
    """Add to each weight of dw the dy of all windows, times the cell it saw there."""
    cdef Window g = window_of(conv.window)
    cdef Py_ssize_t channels = dw.shape[1], group_filters = dw.shape[0] // conv.groups, n, f, c
    for n in range(dy.shape[0]):
        for f in range(dy.shape[1]):
            c = f // group_filters * channels
            with nogil:
                _weight_gradient(x[n, c:c + channels], dy[n, f], dw[f], g)
            PyErr_CheckSignals()


def add_bias_gradient(const floating[:, :, :, :] dy, double[:] db):
    """Add to db the sum of each filter's planes."""
    cdef Py_ssize_t steps = 0, n, f, oh, ow
    cdef double row
    for n in range(dy.shape[0]):
        with nogil:
            for f in range(dy.shape[1]):
                for oh in range(dy.shape[2]):
                    row = 0  # sums of rows do not wait for each other
                    for ow in range(dy.shape[3]):
                        row += dy[n, f, oh, ow]
                    db[f] += row
                    steps = polled(steps + dy.shape[3])


def workspace_bytes(conv):
    """Nothing beyond inputs and results."""
    return 0


def fill(const floating[:] b, floating[:, :, :, :] y):
    """Set each channel to its bias."""
    cdef Py_ssize_t steps = 0, n, c, h, w
    with nogil:
        for n in range(y.shape[0]):
            for c in range(y.shape[1]):
                for h in range(y.shape[2]):
                    for w in range(y.shape[3]):
                        y[n, c, h, w] = b[c]
                    steps = polled(steps + y.shape[3])


def rectify(floating[:, :, :, :] y):
    """Apply ReLU in place; NaN stays NaN."""
    cdef Py_ssize_t steps = 0, n, c, h, w
    with nogil:
        for n in range(y.shape[0]):
            for c in range(y.shape[1]):
                for h in range(y.shape[2]):
                    for w in range(y.shape[3]):
                        if y[n, c, h, w] <= 0:
                            y[n, c, h, w] = 0
                    steps = polled(steps + y.shape[3])


cdef int _forward(const floating[:, :, :] x, const floating[:, :, :] w, floating bias, bint relu,
                  floating[:, :] y, Window g) except -1 nogil:
    cdef Py_ssize_t steps = 0, oh, ow, c, kh, kw, top, left, first_kh, end_kh, first_kw, end_kw
    cdef floating total
    for oh in range(y.shape[0]):
        top = start_of(g.h, oh)
        first_kh, end_kh = first_tap(g.h, top), end_tap(g.h, top)
        for ow in range(y.shape[1]):
            left = start_of(g.w, ow)
            first_kw, end_kw = first_tap(g.w, left), end_tap(g.w, left)
            total = bias
            for c in range(w.shape[0]):
                for kh in range(first_kh, end_kh):
                    for kw in range(first_kw, end_kw):
                        total += w[c, kh, kw] * x[c, top + kh * g.h.dilation, left + kw * g.w.dilation]
            y[oh, ow] = 0 if relu and total <= 0 else total
            steps = polled(steps + w.shape[0] * g.h.kernel * g.w.kernel)


cdef int _input_gradient(const floating[:, :] dy, const floating[:, :, :] w, floating[:, :, :] dx,
                         Window g) except -1 nogil:
    cdef Py_ssize_t steps = 0, oh, ow, c, kh, kw, top, left, first_kh, end_kh, first_kw, end_kw
    for oh in range(dy.shape[0]):
        top = start_of(g.h, oh)
        first_kh, end_kh = first_tap(g.h, top), end_tap(g.h, top)
        for ow in range(dy.shape[1]):
            left = start_of(g.w, ow)
            first_kw, end_kw = first_tap(g.w, left), end_tap(g.w, left)
            for c in range(w.shape[0]):
                for kh in range(first_kh, end_kh):
                    for kw in range(first_kw, end_kw):
                        dx[c, top + kh * g.h.dilation, left + kw * g.w.dilation] += w[c, kh, kw] * dy[oh, ow]
            steps = polled(steps + w.shape[0] * g.h.kernel * g.w.kernel)


cdef int _weight_gradient(const floating[:, :, :] x, const floating[:, :] dy, floating[:, :, :] dw,
                          Window g) except -1 nogil:
    cdef Py_ssize_t steps = 0, oh, ow, c, kh, kw, top, left, first_kh, end_kh, first_kw, end_kw
    for oh in range(dy.shape[0]):
        top = start_of(g.h, oh)
        first_kh, end_kh = first_tap(g.h, top), end_tap(g.h, top)
        for ow in range(dy.shape[1]):
            left = start_of(g.w, ow)
            first_kw, end_kw = first_tap(g.w, left), end_tap(g.w, left)
            for c in range(dw.shape[0]):
                for kh in range(first_kh, end_kh):
                    for kw in range(first_kw, end_kw):
                        dw[c, kh, kw] += x[c, top + kh * g.h.dilation, left + kw * g.w.dilation] * dy[oh, ow]
            steps = polled(steps + dw.shape[0] * g.h.kernel * g.w.kernel)


# -------------------------------------------------------------------------------------------------------- pooling

def places(window, layout, channels):
    """Return None: forward leaves no places of maxima."""
    return None


def max_pool(window, x, y, places):
    """Take the largest cell of each window, a NaN being larger than any number; and its places, unless None."""
    take_largest(window, x, y)
    if places is not None:
        max_pool_indices(window, x, places)


def max_pool_gradient(window, x, dy, places, ties, dx):
    """Set dx to each window's gradient, at its first maximum, or at (or shared among) all cells equal to it."""
    dx.fill(0)
    add_max_pool_gradient(window, x, dy, ties != "first", ties == "split", dx)


def avg_pool_gradient(window, bint with_padding, dy, dx):
    """Set every cell of dx to its shares of the gradients of the windows that see it."""
    dx.fill(0)
    add_avg_pool_gradient(window, with_padding, dy, dx)


def take_largest(window, const floating[:, :, :, :] x, floating[:, :, :, :] y):
    """Take the largest cell of each window; a NaN is larger than any number."""
    cdef Window g = window_of(window)
    cdef Py_ssize_t n, c
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            with nogil:
                _max_pool(x[n, c], y[n, c], g)
            PyErr_CheckSignals()


def max_pool_indices(window, const floating[:, :, :, :] x, long long[:, :, :, :] indices):
    """Give the place ``ih * W + iw`` of each window's maximum, the first where several are equal."""
    cdef Window g = window_of(window)
    cdef Py_ssize_t n, c
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            with nogil:
                _max_pool_indices(x[n, c], indices[n, c], g)
            PyErr_CheckSignals()


def add_max_pool_gradient(window, const floating[:, :, :, :] x, const floating[:, :, :, :] dy, bint all_ties,
                          bint split, floating[:, :, :, :] dx):
    """Add to dx each window's gradient, at its first maximum, or at (or shared among) all cells equal to it."""
    cdef Window g = window_of(window)
    cdef Py_ssize_t n, c
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            with nogil:
                _max_pool_gradient(x[n, c], dy[n, c], all_ties, split, dx[n, c], g)
            PyErr_CheckSignals()


def avg_pool(window, bint with_padding, layout, const floating[:, :, :, :] x, floating[:, :, :, :] y):
    """Divide the sum of each window by the number of its taps that count."""
    cdef Window g = window_of(window)
    cdef Py_ssize_t n, c
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            with nogil:
                _avg_pool(x[n, c], with_padding, y[n, c], g)
            PyErr_CheckSignals()


def add_avg_pool_gradient(window, bint with_padding, const floating[:, :, :, :] dy, floating[:, :, :, :] dx):
    """Add to every cell of each window its share of the gradient."""
    cdef Window g = window_of(window)
    cdef Py_ssize_t n, c
    for n in range(dy.shape[0]):
        for c in range(dy.shape[1]):
            with nogil:
                _avg_pool_gradient(dy[n, c], with_padding, dx[n, c], g)
            PyErr_CheckSignals()


cdef inline bint _same(floating a, floating b) noexcept nogil:
    return a == b or (isnan(a) and isnan(b))


cdef Py_ssize_t _argmax(const floating[:, :] x, Py_ssize_t top, Py_ssize_t left, Window g) except -1 nogil:
    """Place of the window's first maximum, or of its first NaN."""
    cdef Py_ssize_t steps = 0, kh, kw, ih, iw
    cdef Py_ssize_t best_h = top + first_tap(g.h, top) * g.h.dilation
    cdef Py_ssize_t best_w = left + first_tap(g.w, left) * g.w.dilation
    cdef floating best = x[best_h, best_w]
    for kh in range(first_tap(g.h, top), end_tap(g.h, top)):
        ih = top + kh * g.h.dilation
        for kw in range(first_tap(g.w, left), end_tap(g.w, left)):
            iw = left + kw * g.w.dilation
            if x[ih, iw] > best or (isnan(x[ih, iw]) and not isnan(best)):
                best = x[ih, iw]
                best_h, best_w = ih, iw
        steps = polled(steps + g.w.kernel)
    return best_h * g.w.size + best_w


cdef int _max_pool(const floating[:, :] x, floating[:, :] y, Window g) except -1 nogil:
    cdef Py_ssize_t steps = 0, oh, ow, place
    for oh in range(y.shape[0]):
        for ow in range(y.shape[1]):
            place = _argmax(x, start_of(g.h, oh), start_of(g.w, ow), g)
            y[oh, ow] = x[place // g.w.size, place % g.w.size]
            steps = polled(steps + g.h.kernel * g.w.kernel)


cdef int _max_pool_indices(const floating[:, :] x, long long[:, :] indices, Window g) except -1 nogil:
    cdef Py_ssize_t steps = 0, oh, ow
    for oh in range(indices.shape[0]):
        for ow in range(indices.shape[1]):
            indices[oh, ow] = _argmax(x, start_of(g.h, oh), start_of(g.w, ow), g)
            steps = polled(steps + g.h.kernel * g.w.kernel)


cdef int _max_pool_gradient(const floating[:, :] x, const floating[:, :] dy, bint all_ties, bint split,
                            floating[:, :] dx, Window g) except -1 nogil:
    cdef Py_ssize_t steps = 0, oh, ow, kh, kw, top, left, place, ties
    cdef floating best
    for oh in range(dy.shape[0]):
        top = start_of(g.h, oh)
        for ow in range(dy.shape[1]):
            left = start_of(g.w, ow)
            place = _argmax(x, top, left, g)
            steps = polled(steps + g.h.kernel * g.w.kernel)
            if not all_ties:
                dx[place // g.w.size, place % g.w.size] += dy[oh, ow]
                continue
            best = x[place // g.w.size, place % g.w.size]
            ties = 0
            for kh in range(first_tap(g.h, top), end_tap(g.h, top)):
                for kw in range(first_tap(g.w, left), end_tap(g.w, left)):
                    ties += _same(x[top + kh * g.h.dilation, left + kw * g.w.dilation], best)
                steps = polled(steps + g.w.kernel)
            for kh in range(first_tap(g.h, top), end_tap(g.h, top)):
                for kw in range(first_tap(g.w, left), end_tap(g.w, left)):
                    if _same(x[top + kh * g.h.dilation, left + kw * g.w.dilation], best):
                        dx[top + kh * g.h.dilation, left + kw * g.w.dilation] += dy[oh, ow] / (ties if split else 1)
                steps = polled(steps + g.w.kernel)


cdef int _avg_pool(const floating[:, :] x, bint with_padding, floating[:, :] y, Window g) except -1 nogil:
    cdef Py_ssize_t steps = 0, cells = g.h.kernel * g.w.kernel, oh, ow, kh, kw, top, left
    cdef double rows, total
    for oh in range(y.shape[0]):
        top = start_of(g.h, oh)
        rows = taps_that_count(g.h, oh, with_padding)
        for ow in range(y.shape[1]):
            left = start_of(g.w, ow)
            total = 0
            for kh in range(first_tap(g.h, top), end_tap(g.h, top)):
                for kw in range(first_tap(g.w, left), end_tap(g.w, left)):
                    total += x[top + kh * g.h.dilation, left + kw * g.w.dilation]
                if cells > STEPS:
                    steps = polled(steps + g.w.kernel)
            y[oh, ow] = <floating>(total / (rows * taps_that_count(g.w, ow, with_padding)))
            steps = polled(steps + cells)


cdef int _avg_pool_gradient(const floating[:, :] dy, bint with_padding, floating[:, :] dx,
                            Window g) except -1 nogil:
    cdef Py_ssize_t steps = 0, cells = g.h.kernel * g.w.kernel, oh, ow, kh, kw, top, left
    cdef double rows
    cdef floating share
    for oh in range(dy.shape[0]):
        top = start_of(g.h, oh)
        rows = taps_that_count(g.h, oh, with_padding)
        for ow in range(dy.shape[1]):
            left = start_of(g.w, ow)
            share = <floating>(dy[oh, ow] / (rows * taps_that_count(g.w, ow, with_padding)))
            for kh in range(first_tap(g.h, top), end_tap(g.h, top)):
                for kw in range(first_tap(g.w, left), end_tap(g.w, left)):
                    dx[top + kh * g.h.dilation, left + kw * g.w.dilation] += share
                if cells > STEPS:
                    steps = polled(steps + g.w.kernel)
            steps = polled(steps + cells)
