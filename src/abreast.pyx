"""Convolution of small images, as many abreast as a vector has lanes: lane l is the same cell of image l.

The product of tiled.pyx with images for the vectors of B. A vector of outputs then sees, through each tap, a vector of
cells that is there already: no columns are copied, and a tap that falls in the padding is left out, which in a small
image is a good part of them. Valid for groups = 1 and any kernel, stride, padding and dilation; pays where images are
small, and many enough to fill vectors.

    for vectors of images, as many as the memory allows
      for vector, channel                                     in parallel: cells [image, c, cell] to [cell, c, image]
      for vector, block of filters                            in parallel; depends on the problem only
        for block of K                                        some channels, all taps: their cells fit the second cache
          for panel of outputs                                of which each sees the same taps
            for tile of filters                               registers
        turn the outputs                                      [f, cell, image] to [image, f, cell]
"""

from libc.string cimport memset

from functools import lru_cache
from math import prod

import numpy as np

from cnnfast._engine cimport Memory, View, kernels_for, rows_to_pack, run, thread_count, up
from kernels cimport Kernels, Left, Target, Vectors

from cnnfast._windows import alike

cdef enum:
    K_BLOCK = 256  # of K: a tile of weights is 8 x 256 x 4 B; of the vectors that panels see, many are the same
    MOST_CELLS = 256  # of an image, or outputs
    OUTPUTS_BYTES = 262144  # of a chunk, which keep a quarter of the second cache: 16 filters of 256 vectors
    MOST_WEIGHTS = 33554432  # bytes, packed
    MOST_BYTES = 16777216  # of cells that are turned at a time
    FEW_CHUNKS = 16  # fewer chunks than this are cut further, by filters
    PADDING_SHARE = 16  # taps are spared where one in so many is in the padding, or the stride is not 1 (measured)
    MOST_EIGHTHS = 9  # of the images: lanes, those without an image included
    FEW_FILTERS = 16  # fewer than this leave rows of outputs that do not fill a vector slow: there this pays without
    MOST_EIGHTHS_OF_FEW = 14  # spared taps, or with more empty lanes (measured)
    CHUNK_FLOPS = 2000000000  # of a chunk at the most: a fraction of a second, after which Ctrl-C is looked at

cdef struct Panel:
    Py_ssize_t first, count  # of its outputs, in the order of the tables
    Py_ssize_t taps, first_tap  # that they see, and the first of them in a list

cdef struct Abreast:
    const Kernels *kernels
    Py_ssize_t itemsize, N, C, O, K, taps
    Py_ssize_t rows, columns, W, cells
    const Py_ssize_t *place  # of output q, where it sees its cell through a tap at offset 0
    const Py_ssize_t *to  # and where it is put
    const Py_ssize_t *offset  # of a tap
    const Py_ssize_t *tap  # list of taps
    const Panel *panel
    Py_ssize_t panels
    Py_ssize_t c_block, o_block, blocks_of_o, at_once
    Py_ssize_t pitch  # from cell to cell: of vectors of all channels, and one more
    const char *x
    char *y
    Py_ssize_t[4] x_step
    Py_ssize_t[4] y_step
    const char *weights
    Py_ssize_t weight_row, packed_rows
    const Py_ssize_t *order
    const char *bias
    bint relu
    char *packed
    char *cells_at_once
    char *scratch
    Py_ssize_t first  # vector of those that are turned now


cdef void pack_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    cdef Abreast *job = <Abreast *>context
    cdef Py_ssize_t MR = job.kernels.MR, item = job.itemsize, o = i * job.packed_rows
    job.kernels.pack(job.weights + o * job.weight_row * item, job.weight_row, job.order,
                     min(job.packed_rows, job.O - o), job.K, job.packed + o * job.K * item, MR, job.K * MR)


cdef void turn_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    """One channel of a vector of images; lanes without an image are zero."""
    cdef Abreast *job = <Abreast *>context
    cdef Py_ssize_t lanes = job.kernels.lanes, item = job.itemsize, n = (job.first + i // job.C) * lanes, h
    cdef Py_ssize_t images = min(lanes, job.N - n), rows = job.cells // job.W, columns = job.W
    cdef const char *x = job.x + (n * job.x_step[0] + i % job.C * job.x_step[1]) * item
    cdef char *to = job.cells_at_once + (i // job.C * job.cells * job.pitch + i % job.C * lanes) * item
    if images < lanes:
        for h in range(job.cells):
            memset(to + h * job.pitch * item, 0, lanes * item)
    if rows == 1 or job.x_step[2] == columns * job.x_step[3]:
        rows, columns = 1, job.cells
    for h in range(rows):
        job.kernels.copy_matrix(columns, images, x + h * job.x_step[2] * item, job.x_step[3], job.x_step[0],
                                to + h * columns * job.pitch * item, job.pitch, 1)


cdef void product_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    cdef Abreast *job = <Abreast *>context
    cdef Py_ssize_t lanes = job.kernels.lanes, item = job.itemsize, vector = i // job.blocks_of_o, c = 0, p, channels
    cdef Py_ssize_t o = i % job.blocks_of_o * job.o_block, filters = min(job.o_block, job.O - o)
    cdef char *outputs = job.scratch + thread * job.o_block * job.rows * job.columns * lanes * item
    cdef Py_ssize_t MR = job.kernels.MR
    cdef Left a = Left(job.packed + o * job.K * item, job.K * MR, 1, job.taps * MR, NULL, NULL)
    cdef const Panel *panel
    cdef Vectors b
    cdef Target to = Target(outputs, job.rows * job.columns * lanes, False, job.bias + o * item, NULL, False, NULL,
                            False)
    b.data = job.cells_at_once + vector * job.cells * job.pitch * item
    b.row, b.offset = lanes, job.offset
    while c < job.C:
        channels = min(job.c_block, job.C - c)
        to.add, to.relu = c > 0, job.relu and c + channels == job.C
        for p in range(job.panels):
            panel = &job.panel[p]
            b.place, b.to, b.taps, b.tap = (&job.place[panel.first], &job.to[panel.first], panel.taps,
                                            &job.tap[panel.first_tap])
            job.kernels.multiply_vectors(filters, panel.count, channels, &a, &b, &to)
        b.data = <const char *>b.data + channels * lanes * item
        a.data = <const char *>a.data + channels * job.taps * MR * item
        c += channels
    put(job, (job.first + vector) * lanes, o, filters, outputs)


cdef void put(const Abreast *job, Py_ssize_t n, Py_ssize_t o, Py_ssize_t filters, const char *outputs) noexcept nogil:
    """Turn the outputs of a chunk, to where they belong."""
    cdef Py_ssize_t lanes = job.kernels.lanes, item = job.itemsize, rows = job.rows, columns = job.columns, f, i
    cdef char *y
    if rows == 1 or job.y_step[2] == columns * job.y_step[3]:
        rows, columns = 1, rows * columns
    for f in range(filters):
        y = job.y + (n * job.y_step[0] + (o + f) * job.y_step[1]) * item
        for i in range(rows):
            job.kernels.copy_matrix(min(lanes, job.N - n), columns, outputs, 1, lanes, y + i * job.y_step[2] * item,
                                    job.y_step[0], job.y_step[3])
            outputs += columns * lanes * item


def suits(conv, Py_ssize_t O, Py_ssize_t C, shape, image, tap_h, tap_w, stride):
    """Whether this is valid for a problem, and pays."""
    cdef const Kernels *kernels = kernels_for(conv.dtype)
    cdef Py_ssize_t lanes = kernels.lanes, cells = prod(image), outputs = shape[1] * shape[2]
    cdef Py_ssize_t taps = len(tap_h) * len(tap_w), K = C * taps, seen
    if (conv.layout != "NCHW" or conv.groups > 1 or max(cells, outputs) > MOST_CELLS
            or O * K * conv.itemsize > MOST_WEIGHTS or 2 * C * cells * lanes * conv.itemsize > MOST_BYTES
            or 2 * kernels.MR * K * lanes * outputs > CHUNK_FLOPS):
        return False
    seen = prod(sum(len(outputs) * len(taps) for outputs, taps in alike(*axis)) for axis in
                zip(shape[1:], stride, ([h for _, h in tap_h], [w for _, w in tap_w]), image))
    cdef bint spares_taps = stride != (1, 1) or PADDING_SHARE * (taps * outputs - seen) >= taps * outputs
    cdef bint is_full = 8 * up(shape[0], lanes) <= MOST_EIGHTHS * shape[0]
    if O >= FEW_FILTERS:
        return is_full and spares_taps
    return shape[2] < lanes and (is_full or spares_taps and 8 * up(shape[0], lanes) <= MOST_EIGHTHS_OF_FEW * shape[0])


cdef class Plan:
    """One product, but for the arrays: its sizes and tables."""

    cdef Abreast job
    cdef object tables  # which the job points into
    cdef tuple taps  # indices (kh, kw)

    def __cinit__(self, conv, Py_ssize_t O, Py_ssize_t C, shape, image, tuple tap_h, tuple tap_w, stride):
        """Of O filters over C channels; N, OH, OW outputs and H, W cells; taps (index, cell of output 0)."""
        cdef Abreast *job = &self.job
        job.kernels, job.itemsize = kernels_for(conv.dtype), conv.itemsize
        job.N, job.rows, job.columns = shape
        job.C, job.O, job.taps, job.W, job.cells = C, O, len(tap_h) * len(tap_w), image[1], prod(image)
        job.K = C * job.taps
        self.taps = tuple((h, w) for h, _ in tap_h for w, _ in tap_w)
        self.set_blocks()
        self.set_tables(image, [h for _, h in tap_h], [w for _, w in tap_w], stride)

    cdef set_tables(self, image, tap_h, tap_w, stride):
        """Cut the outputs into panels, of which each sees the same taps."""
        cdef Abreast *job = &self.job
        cdef Py_ssize_t lanes = job.kernels.lanes, most = job.kernels.NR // lanes
        place, to, seen, panels = [], [], [], []
        for rows, taps_of_row in alike(job.rows, stride[0], tap_h, image[0]):
            for columns, taps_of_column in alike(job.columns, stride[1], tap_w, image[1]):
                count = len(rows) * len(columns)
                pieces = (count + most - 1) // most
                edges = [len(to) + count * piece // pieces for piece in range(pieces + 1)]
                panels += [(a, b - a, len(taps_of_row) * len(taps_of_column), len(seen))
                           for a, b in zip(edges, edges[1:])]
                place += [(i * stride[0] * job.W + j * stride[1]) * job.pitch for i in rows for j in columns]
                to += [(i * job.columns + j) * lanes for i in rows for j in columns]
                seen += [a * len(tap_w) + b for a in taps_of_row for b in taps_of_column]
        offset = [(h * job.W + w) * job.pitch for h in tap_h for w in tap_w]
        job.panels = len(panels)
        cdef Py_ssize_t[::1] table = np.array(place + to + offset + [x for panel in panels for x in panel] + seen,
                                              np.intp)
        self.tables = table
        job.place, job.to, job.offset = &table[0], &table[len(place)], &table[2 * len(place)]
        job.panel = <const Panel *>(job.offset + job.taps)
        job.tap = <const Py_ssize_t *>(job.panel + job.panels)

    cdef set_blocks(self):
        """Cut K, images and filters, by the sizes of the problem only."""
        cdef Abreast *job = &self.job
        cdef Py_ssize_t MR = job.kernels.MR, lanes = job.kernels.lanes, vectors = (job.N + lanes - 1) // lanes
        cdef Py_ssize_t outputs = job.rows * job.columns * lanes, item = job.itemsize
        cdef Py_ssize_t pieces = min(job.C, (job.K + K_BLOCK - 1) // K_BLOCK)
        job.c_block = (job.C + pieces - 1) // pieces
        job.pitch = (job.C | 1) * lanes  # cells do not share their sets of a cache
        job.at_once = min(vectors, max(1, MOST_BYTES // (job.cells * job.pitch * item)))
        pieces = (FEW_CHUNKS + job.at_once - 1) // job.at_once
        job.o_block = up(min((job.O + pieces - 1) // pieces, max(1, OUTPUTS_BYTES // (outputs * item)),
                             CHUNK_FLOPS // (2 * outputs * job.K)), MR)
        job.blocks_of_o = (job.O + job.o_block - 1) // job.o_block

    @property
    def workspace_bytes(self):
        """Bytes beyond the arrays, with the threads of now."""
        cdef const Abreast *job = &self.job
        outputs = job.o_block * job.rows * job.columns * job.kernels.lanes
        return (up(job.O, job.kernels.MR) * job.K + job.at_once * job.cells * job.pitch
                + thread_count() * outputs) * job.itemsize

    def compute(self, x_nchw, w, y_nchw, b, bint relu, bint transposed):
        """Compute y = relu(b + a sum over taps), with filters (or, transposed, channels) of w as those of y."""
        cdef View x = View(x_nchw), y = View(y_nchw), weights = View(w), bias = View(b)
        cdef Abreast job = self.job
        cdef int rows = 1 if transposed else 0, workers = thread_count(), axis
        cdef Py_ssize_t lanes = job.kernels.lanes, vectors = (job.N + lanes - 1) // lanes, item = job.itemsize, count
        cdef Py_ssize_t[::1] order = _order(self, weights.step[1 - rows], weights.step[2], weights.step[3])
        cdef Memory packed = Memory(up(job.O, job.kernels.MR) * job.K * item)
        cdef Memory cells = Memory(job.at_once * job.cells * job.pitch * item)
        cdef Memory scratch = Memory(workers * job.o_block * job.rows * job.columns * lanes * item)
        job.x, job.y, job.weights, job.bias, job.relu = x.data, y.data, weights.data, bias.data, relu
        for axis in range(4):
            job.x_step[axis], job.y_step[axis] = x.step[axis], y.step[axis]
        job.weight_row, job.order = weights.step[rows], &order[0]
        job.packed, job.cells_at_once, job.scratch = packed.data, cells.data, scratch.data
        job.packed_rows = rows_to_pack(job.kernels.MR, weights.step[rows], weights.step[1 - rows])
        run(pack_chunk, &job, (job.O + job.packed_rows - 1) // job.packed_rows, workers)
        for first in range(0, vectors, job.at_once):
            job.first, count = first, min(job.at_once, vectors - first)
            run(turn_chunk, &job, count * job.C, workers)
            run(product_chunk, &job, count * job.blocks_of_o, workers)


@lru_cache(maxsize=64)
def _order(Plan plan, step_c, step_h, step_w):
    """Where each number of K is among the weights of a filter: channel by channel."""
    taps = np.array([h * step_h + w * step_w for h, w in plan.taps], np.intp)
    return np.add.outer(np.arange(plan.job.C, dtype=np.intp) * step_c, taps).reshape(-1)
