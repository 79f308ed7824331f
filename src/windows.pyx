"""How outputs see the cells of an image: runs of outputs, and for each tap its place among padded rows.

The outputs of all images, in their order, are cut into runs, so that small images share one. What a run sees is copied
by simd/padded.h; a `Sight` holds the tables for that. Valid for any stride, dilation, padding and kernel.
"""

from itertools import groupby
from math import prod

import numpy as np

from kernels cimport MOST_OUTPUTS, Padded


cdef void cut_outputs(Cut *cut, shape, Py_ssize_t outputs):
    """Cut N, rows, columns of outputs into runs of so many; a row that is longer is cut by itself."""
    cut.N, cut.rows, cut.columns = shape
    cut.outputs, cut.runs_of_row = outputs, 0
    cut.runs = (cut.N * cut.rows * cut.columns + outputs - 1) // outputs
    if cut.columns > max(outputs, MOST_OUTPUTS):
        cut.runs_of_row = (cut.columns + outputs - 1) // outputs
        cut.runs = cut.N * cut.rows * cut.runs_of_row


cdef class Sight:
    """The windows of some outputs over an image.

    tap_h and tap_w list (kernel index, cell of the image that output 0 sees through it). Pixels of which all phases are
    seen need not be parted.
    """

    def __cinit__(self, shape, Py_ssize_t outputs, image, tuple tap_h, tuple tap_w, stride,
                  bint by_pixels=False):
        cdef Padded *g = &self.g
        cdef Cut cut
        cut_outputs(&cut, shape, outputs)
        g.rows = cut.rows
        g.H, g.W = image
        g.stride_h, g.stride_w = stride
        g.step_h = g.step_w = 1
        if by_pixels and len({(h % g.stride_h, w % g.stride_w) for _, h in tap_h for _, w in tap_w}) == prod(stride):
            g.step_h, g.step_w, g.stride_h, g.stride_w = g.stride_h, g.stride_w, 1, 1
        places = [(h % g.stride_h, w % g.stride_w, h // g.stride_h, w // g.stride_w)
                  for _, h in tap_h for _, w in tap_w]
        phases = sorted({place[:2] for place in places})
        g.low_h, g.low_w = min(place[2] for place in places), min(place[3] for place in places)
        g.span_h = max(place[2] for place in places) - g.low_h
        g.span_w = max(place[3] for place in places) - g.low_w
        g.phases, g.taps = len(phases), len(places)
        self.set_size(&cut)
        offsets = [phases.index((a, b)) * g.plane + (h - g.low_h) * g.width + w - g.low_w for a, b, h, w in places]
        self.table = np.array([a for a, _ in phases] + [b for _, b in phases] + offsets, np.intp)
        g.phase_h, g.phase_w, g.offset = &self.table[0], &self.table[g.phases], &self.table[2 * g.phases]
        self.taps = [(h, w) for h, _ in tap_h for w, _ in tap_w]
        self.padded = any(min(cells) < 0 or max(cells) + (count - 1) * step >= size for cells, count, step, size in (
            ([h for _, h in tap_h], cut.rows, stride[0], g.H), ([w for _, w in tap_w], cut.columns, stride[1], g.W)))
        self.one_to_one = (len(places) == 1 and not self.padded and tuple(stride) == (1, 1)
                           and (cut.rows, cut.columns) == (g.H, g.W))

    cdef void set_size(self, const Cut *cut):
        """Numbers of a padded row, and of a phase of the longest run."""
        cdef Py_ssize_t rows = 1, images = 1, columns = cut.outputs
        if not cut.runs_of_row:
            columns = cut.columns
            rows = min(cut.N * cut.rows, (cut.outputs + columns - 2) // columns + 1)
            images = min(cut.N, (rows + cut.rows - 2) // cut.rows + 1)
        self.g.width = (columns - 1) * self.g.step_w + 1 + self.g.span_w
        self.g.plane = ((rows - images) * self.g.step_h + images * (1 + self.g.span_h)) * self.g.width

    cdef Padded on(self, View x):
        """The same over the memory of x."""
        cdef Padded g = self.g
        g.image, g.channel, g.row, g.cell = x.step[0], x.step[1], x.step[2], x.step[3]
        return g


def forward_taps(axis):
    """Taps of an axis: (k, the cell of window 0 that it looks at)."""
    return tuple((k, k * axis.dilation - axis.pad_before) for k in range(axis.kernel))


def phase_taps(axis, phase):
    """Taps that reach cells phase, phase + stride, ...: (k, the window whose tap k is at the first of them)."""
    shifts = ((k, phase + axis.pad_before - k * axis.dilation) for k in reversed(range(axis.kernel)))
    return tuple((k, shift // axis.stride) for k, shift in shifts if shift % axis.stride == 0)


def alike(count, stride, taps, size):
    """Neighbouring outputs of an axis that see cells of the image through the same taps: pairs of them and the taps."""
    if min(taps) >= 0 and max(taps) + (count - 1) * stride < size:
        return [(range(count), tuple(range(len(taps))))]
    seen = [tuple(t for t, cell in enumerate(taps) if 0 <= i * stride + cell < size) for i in range(count)]
    groups = [(list(outputs), taps) for taps, outputs in groupby(range(count), seen.__getitem__)]
    return [(range(outputs[0], outputs[0] + len(outputs)), taps) for outputs, taps in groups]
