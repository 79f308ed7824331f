"""Convolution as a matrix product over columns that live only in a cache: tile by tile, with packed weights.

After Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008, with the columns of im2col made
a panel at a time: Zhang, Franchetti and Low, "High performance zero-memory overhead direct convolutions",
arXiv:1809.10170, and Dukhan, "The indirect convolution algorithm", arXiv:1907.02129. Valid for every problem.

One product kernel (simd/product.h) does all the arithmetic, C (M x N) += A (M x K) B (K x N), with K in blocks:

    layout     A, one number at a time             B, vectors                       C
    planes     weights, packed (O x K)             columns of a run (K x outputs)   y, channel by channel
    pixels     rows of a run, in place, through    weights, packed (K x O)          y, pixel by pixel
               tables of places and offsets

"pixels" is for NHWC, where channels lie side by side, "planes" for NCHW (and for few filters, or groups of few
channels, whose vectors would be nearly empty); both take any strides. Outputs are numbered through all images and cut
into runs, so that small images share a tile; K = C*KH*KW. What a run sees is copied once with the padding around it
(simd/padded.h), unless it is a 1x1 that can take it in place; with filters enough to use a copy often, a panel of that
is made, too, where vectors would straddle cache lines or push each other out of the first cache. Pixels of many
channels are not copied either: the outputs of a run fall into classes, each of which sees its own taps (nine for 3x3);
taps in the padding are left out. Few channels in planes do not pay for their columns, nor do few filters: of them,
vectors of neighbouring outputs are seen where the padded rows are, and the last vector of a row overlaps the one
before, or is not full. The input gradient is a forward pass over dy with the weights flipped and transposed; with
stride s it is s*s of them, one for each phase of the cells of x, each with the taps that reach such a cell. For few
channels it often is the product w.T dy, whose columns are added back to the cells they came from. The weight gradient
is in correlation.pyx, and what is better for many small images in abreast.pyx.

    for run of outputs (and some filters, where runs are few)         in parallel; depends on the problem only
      for block of K                                                  some channels, or some taps of one
        pad the rows of the run                                       with its weights they fit the second cache
        for panel of C                                                planes: its columns, in the first or second cache
          for tile of the panel                                       registers

The formula has no term for a tap in the padding, but the product has: 0 times the weight. Where that weight (or, for
the weight gradient, dy) is not finite this would be NaN, so such a problem is left to the naive loops.
"""

from cpython.exc cimport PyErr_CheckSignals

from functools import lru_cache
from math import prod

import numpy as np

from cnnfast._engine cimport LINE, SAME_SET, Memory, View, kernels_for, rows_to_pack, run, thread_count, up
from cnnfast._engine cimport push_each_other_out, waits_for_vectors
from cnnfast._windows cimport Cut, Sight, cut_outputs, first_of, is_in_one_image, run_from, run_of
from kernels cimport MOST_OUTPUTS, Kernels, Left, Padded, Places, Right, Run, Target, Vectors, Windows

from cnnfast import _abreast, _correlation, _naive
from cnnfast._correlation import add_bias_gradient, are_finite, weight_gradient
from cnnfast._windows import alike, forward_taps, phase_taps

cdef enum:
    K_BLOCK = 256  # of K: a tile of A (8 x 256 x 4 B) and a panel of B (48 x 256 x 4 B) fit the first cache, or nearly
    K_BLOCK_1X1 = 512  # in planes, where no panel is copied: a tile of C is fetched and put away half as often
    PADDED_BYTES = 98304  # of the rows of a chunk: with the weights of a block they fit the second cache
    PACKED_BYTES = 16777216  # of weights packed at a time
    FAR_BYTES = 1048576  # of y, more than the second cache holds
    TABLE_BYTES = 16  # of offsets for each number of K
    MOST_ORDERS = 8  # layouts of weights that a plan remembers
    MANY_FILTERS = 256  # to which a panel is worth its copy: so many rows of tiles share the cost (measured);
    SOME_FILTERS = 24  # and to which one whose vectors push each other out of the first cache
    FEW_CHANNELS = 8  # fewer than this waste most of a tile's rows, and multiply their columns too seldom
    MOST_IN_ROWS = 1536  # outputs of a run that is computed in rows, so that most vectors share a tile with others
    COLUMN_FILTERS = 8  # of an output, in the time of which its columns are copied (measured)
    FEW_FILTERS = 3  # up to which a tile has as many more vectors (simd/product.h: FEW_ROWS)
    SPREAD_CHANNELS = 4  # fewer than this, seen by
    SPREAD_FILTERS = 16  # as many or more, have a gradient that is faster by columns added back (measured)
    LONG_ROW = 512  # bytes of outputs, with which the copy of a row takes little time for each (measured)
    FILLED_BYTES = 67108864  # of images that are filled before Ctrl-C is looked at again
    CHUNK_FLOPS = 2000000000  # of a chunk at the most: a fraction of a second, after which Ctrl-C is looked at
    TILES_OF_CLASS = 4  # of rows of C that a class of a run should have on average: the last ones are not full
    MOST_SIDE = 8192  # outputs of an axis that are told apart one by one
    FEW_CHUNKS = 16  # fewer chunks than this are cut further, by outputs and then by filters
    FEW_OUTPUTS = 128  # pixels; for so few, weights are used too seldom to be packed (measured)
    MANY_CHANNELS = 512  # and with fewer than this, sums are too short
    MOST_CLASSES = 16  # of outputs that see the same taps
    MOST_FILTERS = 384  # filters of a chunk: a multiple of every tile's rows and columns, bounds the buffer of outputs
    BUFFER_BYTES = 1048576  # of planes, whose rows and columns are copied anew for each chunk of filters: more of them


# ------------------------------------------------------------------------------------ forward and input gradient

cdef struct Product:
    const Kernels *kernels
    Py_ssize_t itemsize
    bint by_pixels, x_in_place, x_one_to_one, y_regular, relu
    bint y_is_far
    bint in_rows  # planes: vectors of outputs see the padded rows themselves, not columns
    bint spread  # y is not the product: the product is added to all cells of y that `back` says
    Padded g
    Windows back
    Places p
    const char *x
    const char *weights
    const char *bias
    char *y
    Py_ssize_t x_group, y_group, weight_group  # steps from group to group
    Py_ssize_t class_count  # of outputs, by pixels: one, or one for each class of rows and of columns
    const Py_ssize_t *first_tap  # that a class sees, in a list of taps; those of the next class follow
    const Py_ssize_t *tap
    const Py_ssize_t *row_class  # the first of the classes of a row of outputs,
    const Py_ssize_t *column_end  # each of which ends at a column
    const Py_ssize_t *tap_h  # cells that output 0 sees
    const Py_ssize_t *tap_w
    bint sees_cells_only  # no output has a tap that it does not see
    Cut cut
    Py_ssize_t C, O, K
    Py_ssize_t c_block, t_block  # channels and taps of a block of K
    Py_ssize_t channel_step  # of padded planes
    Py_ssize_t width, filters_at_once, groups_at_once  # of the panels of weights; packed together
    Py_ssize_t o_block, chunks_of_o
    char *scratch
    Py_ssize_t buffer_row  # of planes: numbers of a filter
    Py_ssize_t padded_bytes, columns_bytes, buffer_bytes, scratch_bytes


cdef void product_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    cdef Product *job = <Product *>context
    cdef Py_ssize_t item = job.itemsize
    cdef Py_ssize_t o = i % job.chunks_of_o * job.o_block, group = i // job.chunks_of_o % job.groups_at_once
    cdef Py_ssize_t filters = min(job.o_block, job.O - o)
    cdef Run run = run_of(&job.cut, i // job.chunks_of_o // job.groups_at_once)
    cdef const char *x = job.x + group * job.x_group * item
    cdef const char *weights = job.weights + (group * job.weight_group + o * job.K) * item
    cdef const char *bias = job.bias
    if bias != NULL:
        bias += (group * job.O + o) * item
    cdef char *y = job.y + (group * job.y_group + o * job.p.channel) * item
    chunk(job, &run, x, weights, bias, y, job.scratch + thread * job.scratch_bytes, filters)


cdef void spread_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    """One image, whose outputs all add to its cells."""
    cdef Product *job = <Product *>context
    cdef Py_ssize_t plane = job.cut.rows * job.cut.columns, group = i // job.cut.N, q = i % job.cut.N * plane
    cdef Py_ssize_t end = q + plane
    cdef const char *dy = job.x + group * job.x_group * job.itemsize
    cdef const char *weights = job.weights + group * job.weight_group * job.itemsize
    cdef char *dx = job.y + group * job.y_group * job.itemsize
    cdef Py_ssize_t rows = up(job.O, job.kernels.lanes) if job.by_pixels else job.O  # in whole vectors, if they are
    cdef Run run
    while q < end:
        run = run_from(&job.cut, q, end)
        chunk(job, &run, dy, weights, NULL, dx, job.scratch + thread * job.scratch_bytes, rows)
        q += run.count


cdef void chunk(const Product *job, const Run *run, const char *x, const char *weights, const char *bias, char *y,
                char *scratch, Py_ssize_t filters) noexcept nogil:
    """All blocks of K for one run of outputs and some filters, then what they add up to goes where it belongs."""
    cdef Py_ssize_t q = first_of(&job.cut, run), item = job.itemsize, c, t, depth
    cdef char *buffer = scratch + job.padded_bytes + job.columns_bytes
    cdef bint direct = is_direct(job, run)
    cdef Py_ssize_t row = job.o_block if job.by_pixels else job.buffer_row
    cdef Target to
    to.data, to.row = buffer, row
    if direct and job.by_pixels:
        to.data, to.row = y + q * job.p.cell * item, job.p.cell
    elif direct and job.in_rows:
        to.data, to.row = y + (run.image * job.p.image + run.column) * item, job.p.channel
    elif direct:
        to.data, to.row = y + (run.image * job.p.image + q % (job.cut.rows * job.cut.columns)) * item, job.p.channel
    to.far = direct and job.y_is_far
    to.row_bias = to.column_bias = to.place = NULL
    if job.by_pixels:
        to.column_bias = bias
    else:
        to.row_bias = bias
    c = t = 0
    while c < job.C:
        depth = min(job.c_block, job.C - c) * min(job.t_block, job.g.taps - t)
        to.add = c + t > 0
        to.relu = job.relu and c + job.c_block >= job.C and t + job.t_block >= job.g.taps
        if job.by_pixels:
            pixels_block(job, run, x + c * job.g.channel * item, weights, c, t, filters, scratch, to)
        else:
            planes_block(job, run, x + c * job.g.channel * item, weights, c, t, filters, scratch, to)
        weights += depth * job.width * item
        t += job.t_block
        if t >= job.g.taps:
            t = 0
            c += job.c_block
    if job.spread and job.by_pixels:
        job.kernels.add_rows(&job.back, y, q, run.count, buffer, row)
    elif job.spread:
        job.kernels.add_columns(&job.back, y, q, run.count, buffer, row)
    elif not direct and job.by_pixels:
        job.kernels.scatter(&job.p, y, q, run.count, filters, buffer, 1, row)
    elif not direct and job.in_rows:
        for c in range(run.count // run.columns):
            job.kernels.scatter(&job.p, y, q + c * run.columns, run.columns, filters,
                                buffer + c * up(run.columns, job.kernels.lanes) * item, row, 1)
    elif not direct:
        job.kernels.scatter(&job.p, y, q, run.count, filters, buffer, row, 1)


cdef bint is_direct(const Product *job, const Run *run) noexcept nogil:
    """Whether a run is computed where its outputs belong; in rows at once, if some are computed twice."""
    if job.in_rows:
        return job.p.cell == 1 and (job.cut.columns % job.kernels.lanes == 0
                                    or job.c_block == job.C and job.t_block == job.g.taps)
    return job.y_regular and (job.by_pixels or is_in_one_image(&job.cut, run))


cdef void planes_block(const Product *job, const Run *run, const char *x, const char *weights, Py_ssize_t c0,
                       Py_ssize_t t0, Py_ssize_t filters, char *scratch, Target to) noexcept nogil:
    cdef const Kernels *kernels = job.kernels
    cdef Py_ssize_t channels = min(job.c_block, job.C - c0), t1 = min(t0 + job.t_block, job.g.taps), q
    cdef Py_ssize_t depth = channels * (t1 - t0), item = job.itemsize, NR = kernels.NR
    cdef char *columns = scratch + job.padded_bytes
    cdef const char *cells
    cdef const char *after = NULL  # what is read after this block
    cdef Py_ssize_t row
    cdef Left a = Left(weights, job.K * kernels.MR, 1, kernels.MR, NULL, NULL)
    cdef Right b = Right(columns, NR, NR, NULL, NULL)
    if job.x_in_place and run.count % kernels.lanes == 0 and is_in_one_image(&job.cut, run):
        cells, row = x + (run.image * job.g.image + run.row * job.g.row + run.column) * item, job.g.channel
        after = cells + (channels * row if c0 + channels < job.C else run.count - c0 * row) * item
    else:
        kernels.pad_planes(&job.g, run, x, channels, scratch, job.channel_step)
        cells, row = scratch + (run.column - run.first) * item, job.channel_step
    if job.in_rows:
        rows_block(job, run, weights, channels, t0, t1, filters, scratch, to)
        return
    if job.g.taps == 1 and not is_copied(job, cells, row, depth):
        b = Right(cells, NR, row, after, NULL)
        kernels.multiply(filters, run.count, depth, &a, &b, &to)
        return
    q = 0
    while q < run.count:
        if job.g.taps == 1:
            kernels.copy_matrix(depth, min(NR, run.count - q), cells + q * item, row, 1, columns, NR, 1)
        else:
            kernels.columns(&job.g, run, q, min(NR, run.count - q), scratch, job.channel_step, channels, t0, t1,
                            columns, NR)
        kernels.multiply(filters, min(NR, run.count - q), depth, &a, &b, &to)
        to.data = <char *>to.data + NR * item
        q += NR


cdef bint is_copied(const Product *job, const char *cells, Py_ssize_t row, Py_ssize_t depth) noexcept nogil:
    """Whether panels of one tap are copied: vectors would come from the second cache, or straddle lines, many times.

    A row of a wide tile has more products for each vector that it loads, so that it does not wait for them.
    """
    cdef Py_ssize_t vector = job.kernels.lanes * job.itemsize
    if not waits_for_vectors(job.kernels, job.itemsize):
        return False
    if push_each_other_out(depth, row * job.itemsize):
        return job.O >= SOME_FILTERS
    return job.O >= MANY_FILTERS and (<Py_ssize_t>cells % vector != 0 or row * job.itemsize % vector != 0)


cdef void rows_block(const Product *job, const Run *run, const char *weights, Py_ssize_t channels, Py_ssize_t t0,
                     Py_ssize_t t1, Py_ssize_t filters, char *scratch, Target to) noexcept nogil:
    cdef const Kernels *kernels = job.kernels
    cdef Py_ssize_t *place = <Py_ssize_t *>(scratch + job.padded_bytes)
    cdef Py_ssize_t *put = place + vectors_of_run(job)
    cdef Py_ssize_t *offset = put + vectors_of_run(job)
    cdef Py_ssize_t vectors = set_vectors(job, run, place, put), c, t, k = 0
    cdef Left a = Left(weights, job.K * kernels.MR, 1, kernels.MR, NULL, NULL)
    for c in range(channels):
        for t in range(t0, t1):
            offset[k] = c * job.channel_step + job.g.offset[t]
            k += 1
    cdef Vectors b = Vectors(scratch, 0, place, put, offset, 0, NULL)
    kernels.multiply_vectors(filters, vectors, k, &a, &b, &to)


cdef Py_ssize_t set_vectors(const Product *job, const Run *run, Py_ssize_t *place, Py_ssize_t *put) noexcept nogil:
    """Where the vectors of a run see their cells through a tap at offset 0, and where they are put; how many.

    In the buffer a row has whole vectors, the last of which sees cells after the row, too.
    """
    cdef Py_ssize_t lanes = job.kernels.lanes, image = 0, i = run.row, slot = 0, q = 0, count = 0, j, column
    cdef bint direct = is_direct(job, run)
    while q < run.count:
        j = 0
        while j < run.columns:
            column = min(j, run.columns - lanes) if direct else j
            place[count] = slot * job.g.width + column
            put[count] = image * job.p.image + i * job.p.row + column if direct else count * lanes
            count += 1
            j += lanes
        q += run.columns
        i += 1
        slot += 1
        if i == job.g.rows:
            i = 0
            image += 1
            slot += job.g.span_h
    return count


cdef Py_ssize_t vectors_of_run(const Product *job) noexcept nogil:
    """How many vectors a run that is computed in rows has at most."""
    cdef Py_ssize_t columns = min(job.cut.columns, job.cut.outputs), lanes = job.kernels.lanes
    return job.cut.outputs // columns * ((columns + lanes - 1) // lanes)


cdef void pixels_block(const Product *job, const Run *run, const char *x, const char *weights, Py_ssize_t c0,
                       Py_ssize_t t0, Py_ssize_t filters, char *scratch, Target to) noexcept nogil:
    """A product for each class of outputs, which sees some of the taps: its pixels and rows of weights have places."""
    cdef Py_ssize_t channels = min(job.c_block, job.C - c0), t1 = min(t0 + job.t_block, job.g.taps), i, c, t, k
    cdef Py_ssize_t NR = job.kernels.NR, cell = job.g.cell if job.x_in_place else channels
    cdef Py_ssize_t[MOST_CLASSES] count
    cdef const char *pixels = x
    cdef Left a
    cdef Right b = Right(weights, job.K * NR, NR, NULL, NULL)
    cdef Py_ssize_t *place = <Py_ssize_t *>(scratch + job.padded_bytes)
    cdef Py_ssize_t *row = place + job.class_count * job.cut.outputs
    cdef Py_ssize_t *offset = row + job.class_count * job.cut.outputs
    cdef Py_ssize_t *weight = offset + job.c_block * job.t_block
    if job.x_one_to_one:
        a = Left(x + first_of(&job.cut, run) * job.g.cell * job.itemsize, job.g.cell * job.kernels.MR, job.g.cell, 1,
                 NULL, NULL)
        job.kernels.multiply(run.count, filters, channels, &a, &b, &to)
        return
    if not job.x_in_place:
        job.kernels.pad_pixels(&job.g, run, x, channels, scratch)
        pixels = scratch
    set_classes(job, run, cell, to.row, count, place, row)
    for i in range(job.class_count):
        k = 0
        for t in job.tap[job.first_tap[i]:job.first_tap[i + 1]]:
            if t0 <= t < t1:
                for c in range(channels):
                    offset[k] = c + (job.tap_h[t] * job.g.row + job.tap_w[t] * cell if job.x_in_place
                                     else job.g.offset[t] * cell)
                    weight[k] = ((t - t0) * channels + c) * NR
                    k += 1
        to.place = row + i * job.cut.outputs
        a = Left(pixels, 0, 0, 1, place + i * job.cut.outputs, offset)
        b.place = weight
        if k == (t1 - t0) * channels:
            b.place = NULL
        job.kernels.multiply(count[i], filters, k, &a, &b, &to)


cdef void set_classes(const Product *job, const Run *run, Py_ssize_t cell, Py_ssize_t step, Py_ssize_t *count,
                      Py_ssize_t *place, Py_ssize_t *row) noexcept nogil:
    """For each class of outputs: how many a run has, where each sees its cell through a tap at 0, and its row of C."""
    cdef Py_ssize_t image = run.image, i = run.row, j = run.column, slot = 0, q = 0, end, part, c, at, n, length
    cdef Py_ssize_t first, pixel = job.g.step_w * cell * (job.g.stride_w if job.x_in_place else 1)
    for c in range(job.class_count):
        count[c] = 0
    while q < run.count:
        end = min(run.first + run.columns, j + run.count - q)
        if job.x_in_place:
            first = image * job.g.image + i * job.g.step_h * job.g.stride_h * job.g.row
        else:
            first = slot * job.g.width * cell - run.first * pixel
        part = 0
        while j < end:
            c = job.row_class[i] + part
            length = max(min(end, job.column_end[part]) - j, 0)
            at = c * job.cut.outputs + count[c]
            for n in range(length):
                place[at + n] = first + (j + n) * pixel
                row[at + n] = (q + n) * step
            count[c] += length
            q += length
            j += length
            part += 1
        j = run.first
        i += 1
        slot += job.g.step_h
        if i == job.g.rows:
            i = 0
            image += 1
            slot += 1 + job.g.span_h - job.g.step_h


cdef struct Packing:
    const Kernels *kernels
    Py_ssize_t itemsize
    const char *weights
    char *packed
    const Py_ssize_t *offset
    Py_ssize_t group, row, packed_group, O, K, width, rows, chunks
    bint not_finite


cdef void packing_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    cdef Packing *job = <Packing *>context
    cdef Py_ssize_t group = i // job.chunks, first = i % job.chunks * job.rows, rows = min(job.rows, job.O - first)
    cdef char *packed = job.packed + (group * job.packed_group + first * job.K) * job.itemsize
    job.kernels.pack(job.weights + (group * job.group + first * job.row) * job.itemsize, job.row, job.offset,
                     rows, job.K, packed, job.width, job.K * job.width)
    if not job.kernels.is_finite(packed, job.K * up(rows, job.width)):
        job.not_finite = True  # only ever set, by whoever sees one


class _NotFinite(Exception):
    """A weight that is not finite would meet the zeros of the padding."""


cdef class _Order:
    """A table of offsets."""

    cdef Py_ssize_t[::1] table
    cdef const Py_ssize_t *offset

    def __cinit__(self, Py_ssize_t[::1] table):
        self.table, self.offset = table, &table[0]


cdef class _Plan:
    """One product, but for the arrays: its sizes, the tables it needs, and the order of its weights."""

    cdef Product job
    cdef Sight sight  # which owns the tables
    cdef object classes  # another table
    cdef dict orders  # of weights, by their steps

    def __cinit__(self, conv, int O, int C, shape, image, tuple tap_h, tuple tap_w, stride, bint spread=False):
        """Of O filters over C channels a group; N, OH, OW outputs and H, W cells; taps (index, cell of output 0)."""
        cdef Product *job = &self.job
        job.kernels, job.itemsize = kernels_for(conv.dtype), conv.itemsize
        job.C, job.O, job.K = C, O, C * len(tap_h) * len(tap_w)
        cdef bint in_rows = job.K > C and is_in_rows(job, shape[2])
        job.by_pixels = is_by_pixels(conv) and not (in_rows and O <= FEW_FILTERS)
        job.in_rows = in_rows and not job.by_pixels
        job.spread = spread
        job.y_is_far = prod(shape) * conv.groups * O * job.itemsize > FAR_BYTES
        set_blocks_of_k(job, len(tap_h) * len(tap_w))
        self.set_classes(conv.groups, shape, image, [h for _, h in tap_h], [w for _, w in tap_w], stride)
        cut_outputs(&job.cut, shape, outputs_of_run(job, prod(shape) * conv.groups, shape[2]))
        self.sight = Sight(shape, job.cut.outputs, image, tap_h, tap_w, stride, job.by_pixels)
        job.g = self.sight.g
        job.p.rows, job.p.columns = job.cut.rows, job.cut.columns
        set_memory(job, conv.groups)
        self.orders = {}

    cdef set_classes(self, groups, shape, image, tap_h, tap_w, stride):
        """Tell outputs apart by the taps that they see, if they are pixels of whole lines, and many of a class."""
        cdef Product *job = &self.job
        _, H, W = shape
        rows, columns = [(range(H), range(len(tap_h)))], [(range(W), range(len(tap_w)))]
        job.sees_cells_only = (job.by_pixels and job.c_block * job.itemsize >= LINE and max(H, W) <= MOST_SIDE
                               and stride[1] * job.C * groups * job.itemsize % SAME_SET != 0)
        if job.sees_cells_only:
            split = alike(H, stride[0], tap_h, image[0]), alike(W, stride[1], tap_w, image[1])
            count = len(split[0]) * len(split[1])
            least = TILES_OF_CLASS * job.kernels.MR * count
            job.sees_cells_only = count == 1 or count <= MOST_CLASSES and least <= min(MOST_OUTPUTS, prod(shape))
            if job.sees_cells_only:
                rows, columns = split
        job.class_count = len(rows) * len(columns)
        seen = [[a * len(tap_w) + b for a in row for b in column] for _, row in rows for _, column in columns]
        tables = [np.cumsum([0, *map(len, seen)]), np.concatenate(seen), np.repeat(tap_h, len(tap_w)),
                  np.tile(tap_w, len(tap_h)), np.repeat(np.arange(len(rows)) * len(columns), [len(r) for r, _ in rows]),
                  [outputs.stop for outputs, _ in columns]]
        cdef Py_ssize_t[::1] table = np.concatenate(tables).astype(np.intp)
        self.classes = table
        job.first_tap = &table[0]
        job.tap = job.first_tap + job.class_count + 1
        job.tap_h = job.tap + job.first_tap[job.class_count]
        job.tap_w = job.tap_h + <Py_ssize_t>(len(tap_h) * len(tap_w))
        job.row_class = job.tap_w + <Py_ssize_t>(len(tap_h) * len(tap_w))
        job.column_end = job.row_class + <Py_ssize_t>H

    @property
    def workspace_bytes(self):
        """Bytes beyond the arrays, with the threads of now."""
        packed = self.job.groups_at_once * self.job.weight_group * self.job.itemsize
        return packed + thread_count() * self.job.scratch_bytes + self.job.K * TABLE_BYTES

    cdef _Order order(self, Py_ssize_t step_c, Py_ssize_t step_h, Py_ssize_t step_w):
        """Where each number of K is among the weights of a filter; found once for each layout of weights."""
        steps = step_c, step_h, step_w
        found = self.orders.get(steps)
        if found is None:
            if len(self.orders) == MOST_ORDERS:
                self.orders.clear()
            found = self.orders[steps] = _Order(self.weight_offsets(step_c, step_h, step_w))
        return found

    def weight_offsets(self, Py_ssize_t step_c, Py_ssize_t step_h, Py_ssize_t step_w):
        """The same as a list, in the order of the blocks of K."""
        taps = np.array([h * step_h + w * step_w for h, w in self.sight.taps], np.intp)
        channels = np.arange(self.job.C, dtype=np.intp) * step_c
        order = []
        for c in range(0, self.job.C, self.job.c_block):
            for t in range(0, self.job.g.taps, self.job.t_block):
                block_c, block_t = channels[c:c + self.job.c_block], taps[t:t + self.job.t_block]
                order.append(np.add.outer(block_t, block_c) if self.job.by_pixels else np.add.outer(block_c, block_t))
        return np.concatenate([block.reshape(-1) for block in order])


cdef void set_blocks_of_k(Product *job, Py_ssize_t taps):
    """Cut K into blocks: some channels, or some taps of one."""
    cdef Py_ssize_t pieces = (taps + K_BLOCK - 1) // K_BLOCK
    cdef Py_ssize_t block = K_BLOCK_1X1 if taps == 1 and not job.by_pixels else K_BLOCK
    job.t_block, job.c_block = (taps + pieces - 1) // pieces, 1
    if pieces == 1:
        pieces = (job.K + block - 1) // block
        job.c_block = (job.C + pieces - 1) // pieces
        if job.by_pixels:
            job.c_block = min(job.C, up(job.c_block, LINE // job.itemsize))  # of the pixels, whole cache lines


cdef bint is_in_rows(const Product *job, Py_ssize_t columns):
    """Whether vectors of outputs of one row see their cells where they are: few channels, which are multiplied too
    seldom for copies of columns, or any for few filters. Some outputs are computed twice, in less time than a copy."""
    cdef Py_ssize_t lanes = job.kernels.lanes, outputs = up(columns, lanes)
    return ((job.C < FEW_CHANNELS or job.O <= FEW_FILTERS) and lanes <= columns <= MOST_IN_ROWS
            and (outputs - columns) * job.O <= outputs * COLUMN_FILTERS)


cdef Py_ssize_t outputs_of_run(const Product *job, Py_ssize_t Q, Py_ssize_t columns):
    """How many of the outputs (of all groups) a run has at most, by the sizes of the problem only."""
    cdef Py_ssize_t NR = job.kernels.NR
    if job.sees_cells_only and job.g.taps > 1:
        runs = (Q + MOST_OUTPUTS - 1) // MOST_OUTPUTS
        return up((Q + runs - 1) // runs, job.kernels.MR)
    most = MOST_IN_ROWS if job.in_rows else MOST_OUTPUTS
    outputs = min(most, PADDED_BYTES // (job.c_block * job.itemsize), Q // FEW_CHUNKS)
    if job.in_rows:
        return max(outputs // columns, 1) * columns
    return max(outputs // NR, 2) * NR


cdef void set_memory(Product *job, Py_ssize_t groups):
    """Cut the filters into blocks, by the sizes of the problem only, and count the memory that a thread needs."""
    cdef Py_ssize_t pieces, line = LINE // job.itemsize, slack = 128, filters = MOST_FILTERS
    job.width = job.kernels.NR if job.by_pixels else job.kernels.MR
    job.channel_step = up(job.g.phases * job.g.plane, line) | line  # an odd number of cache lines: sets are not shared
    if not job.by_pixels:
        filters = max(filters, BUFFER_BYTES // (job.cut.outputs * job.itemsize))
    job.o_block = min(up(job.O, job.width), filters // job.width * job.width)
    pieces = FEW_CHUNKS // max(1, job.cut.runs * groups)
    if pieces > 1 and not job.spread:
        job.o_block = min(job.o_block, up((job.O + pieces - 1) // pieces, job.width))
    if job.by_pixels:
        job.padded_bytes = up(job.g.phases * job.g.plane * job.c_block * job.itemsize + slack, LINE)
        job.columns_bytes = up(2 * (job.class_count * job.cut.outputs + job.c_block * job.t_block) * sizeof(Py_ssize_t),
                               LINE)
    else:
        job.padded_bytes = up(job.channel_step * job.c_block * job.itemsize + slack, LINE)
        if job.in_rows:
            job.columns_bytes = up((2 * vectors_of_run(job) + job.c_block * job.t_block) * sizeof(Py_ssize_t), LINE)
        else:
            job.columns_bytes = up(job.c_block * job.t_block * job.kernels.NR * job.itemsize + slack, LINE)
    job.buffer_row = vectors_of_run(job) * job.kernels.lanes if job.in_rows else job.cut.outputs
    job.buffer_bytes = up(job.buffer_row * job.o_block * job.itemsize, LINE)
    job.scratch_bytes = job.padded_bytes + job.columns_bytes + job.buffer_bytes
    job.filters_at_once = min(up(job.O, job.width),
                              max(1, PACKED_BYTES // (job.K * job.itemsize * job.width)) * job.width)
    job.groups_at_once = 1
    if job.filters_at_once >= job.O:
        job.groups_at_once = min(groups, max(1, PACKED_BYTES // (job.K * job.itemsize * job.filters_at_once)))
    job.weight_group = job.filters_at_once * job.K


cdef bint is_by_pixels(conv):
    """Whether vectors run over filters, which lie side by side, or else over the outputs."""
    return conv.layout == "NHWC" and (conv.groups == 1 or min(conv.C, conv.F) // conv.groups >= FEW_CHANNELS)


cdef bint is_in_place(const Product *job, View x):
    """Whether a 1x1 product can take x where it is."""
    if job.by_pixels:
        return x.step[1] == 1 and x.is_regular()
    return x.step[3] == 1 and (x.shape[2] == 1 or x.step[2] == x.shape[3])


@lru_cache(maxsize=512)
def _forward_plan(conv, kernels_id):
    h, v = conv.window
    return _plan(conv, conv.F // conv.groups, conv.C // conv.groups, (conv.N, h.output, v.output), (h.size, v.size),
                 forward_taps(h), forward_taps(v), (h.stride, v.stride))


@lru_cache(maxsize=512)
def _phase_plans(conv, kernels_id):
    """For each phase of the cells of x that some tap reaches: its rows, columns, plan; whether they are all cells."""
    h, v = conv.window
    phases = [(i, j) for i in _phases(h) for j in _phases(v)]
    plans = tuple((slice(i, None, h.stride), slice(j, None, v.stride), _phase_plan(conv, i, j)) for i, j in phases)
    return plans, len(phases) == min(h.stride, h.size) * min(v.stride, v.size)


def _phases(axis):
    """First cells of the phases of an axis that some tap reaches."""
    reached = {(k * axis.dilation - axis.pad_before) % axis.stride for k in range(axis.kernel)}
    return [i for i in sorted(reached) if i < axis.size]


def _phase_plan(conv, int i, int j):
    """Plan of the cells of dx that are multiples of the stride after (i, j)."""
    h, v = conv.window
    rows, columns = (h.size - i - 1) // h.stride + 1, (v.size - j - 1) // v.stride + 1
    return _plan(conv, conv.C // conv.groups, conv.F // conv.groups, (conv.N, rows, columns), (h.output, v.output),
                 phase_taps(h, i), phase_taps(v, j), (1, 1))


def _plan(conv, *problem):
    """A plan for one image after the other, or for images abreast."""
    return _abreast.Plan(conv, *problem) if _abreast.suits(conv, *problem) else _Plan(conv, *problem)


cdef object kernels_id(conv):
    """What tells plans of one instruction set from those of another."""
    return <size_t>kernels_for(conv.dtype)


def _compute(plan, x, w, y, b, groups, relu, transposed):
    """Compute y = relu(b + a sum over taps), with filters (or, transposed, channels) of w as those of y."""
    if isinstance(plan, _Plan):
        _product(plan, x, w, y, b, groups, relu, transposed)
    else:
        plan.compute(x, w, y, b, relu, transposed)


cdef int _product(_Plan plan, x_nchw, w, y_nchw, b, Py_ssize_t groups, bint relu, bint transposed) except -1:
    cdef View x = View(x_nchw), y = View(y_nchw), weights = View(w), bias = View(b)
    cdef Product job = plan.job, part
    cdef Packing packing
    cdef int rows = 1 if transposed else 0, workers = thread_count()
    cdef Py_ssize_t i = 0, j, at_once
    cdef _Order order = plan.order(weights.step[1 - rows], weights.step[2], weights.step[3])
    cdef Memory scratch = Memory(workers * job.scratch_bytes)
    cdef Memory packed = Memory(job.groups_at_once * job.weight_group * job.itemsize)
    place(&job, x, y)
    job.relu, job.scratch, job.weights = relu, scratch.data, packed.data
    job.x_one_to_one = plan.sight.one_to_one and is_in_place(&job, x)
    job.x_in_place = job.sees_cells_only and x.step[1] == 1 if job.by_pixels else job.x_one_to_one
    set_packing(&packing, &job, weights.step[rows], weights.step[1 - rows],
                weights.shape[0] // groups * weights.step[0], order)
    packing.packed = packed.data
    while i < groups:
        at_once = min(job.groups_at_once, groups - i)
        j = 0
        while j < job.O:
            part = job
            part.groups_at_once = at_once
            part.O = min(job.filters_at_once, job.O - j)
            part.chunks_of_o = (part.O + job.o_block - 1) // job.o_block
            part.x += i * job.x_group * job.itemsize
            part.y += (i * job.y_group + j * y.step[1]) * job.itemsize
            part.bias = bias.data + (i * job.O + j) * job.itemsize
            packing.weights = weights.data + (i * packing.group + j * packing.row) * job.itemsize
            packing.O, packing.chunks, packing.not_finite = part.O, (part.O + packing.rows - 1) // packing.rows, False
            run(packing_chunk, &packing, at_once * packing.chunks, workers)
            if packing.not_finite and plan.sight.padded:
                raise _NotFinite
            run(product_chunk, &part, at_once * job.cut.runs * part.chunks_of_o, workers)
            j += job.filters_at_once
        i += at_once
    return 0


cdef void place(Product *job, View x, View y):
    """Note where the arrays are."""
    job.x, job.x_group = x.data, job.C * x.step[1]
    job.g.image, job.g.channel, job.g.row, job.g.cell = x.step[0], x.step[1], x.step[2], x.step[3]
    job.y, job.y_group = y.data, job.O * y.step[1]
    job.p.image, job.p.channel, job.p.row, job.p.cell = y.step[0], y.step[1], y.step[2], y.step[3]
    job.y_regular = is_in_place(job, y)


cdef void set_packing(Packing *packing, const Product *job, Py_ssize_t row, Py_ssize_t channel, Py_ssize_t group,
                      _Order order):
    """Weights lie at filter * row + offset[k], channels and groups so far apart; the order must outlive the packing."""
    packing.kernels, packing.itemsize, packing.width, packing.K = job.kernels, job.itemsize, job.width, job.K
    packing.rows = rows_to_pack(job.width, row, channel)
    packing.row, packing.group, packing.packed_group, packing.offset = row, group, job.weight_group, order.offset


def forward(conv, x, w, b, bint relu, y):
    """Compute ``y = relu(x * w + b)``."""
    if 0 in y.shape:
        return
    conv = _of_images(conv, y)
    sums = _as_sums(conv) if x.shape[2] == 1 else None  # few calls ask
    if sums is not None:
        return _sum(sums, x, w, b, relu, y)
    conv, x, y = _as_rows(conv, x, y)
    try:
        _compute(_forward_plan(conv, kernels_id(conv)), x, w, y, np.ascontiguousarray(b), conv.groups, relu, False)
    except _NotFinite:
        _naive.forward(conv, x, w, b, relu, y)


@lru_cache(maxsize=512)
def _as_sums(conv):
    """A 1x1 convolution of few pixels, in one row as in `linear`, as the weight gradient that it is too; or None.

    Its outputs are the channels, over which there are many sums. The weights stay where they are and the pixels are
    turned, where else weights would be packed that are used for a few tiles only.
    """
    h, v = conv.window
    if (conv.layout != "NHWC" or conv.groups > 1 or conv.N > 1 or h.size > 1 or v.size > FEW_OUTPUTS
            or conv.C < MANY_CHANNELS or not all(_is_one_to_one(axis) for axis in conv.window)):
        return None
    return conv._replace(C=conv.F, F=v.size, layout="NCHW",
                         window=type(conv.window)(h, v._replace(size=conv.C, output=conv.C)))


def _sum(conv, x, w, b, bint relu, y):
    """Add to the bias the sums over channels."""
    _fill(b, False, y)
    weight_gradient(conv, w.transpose(2, 0, 3, 1), x.transpose(0, 3, 2, 1), y.transpose(3, 1, 0, 2))
    if relu:
        _naive.rectify(y.transpose(0, 2, 3, 1))


def _is_one_to_one(axis):
    """Whether each output sees the cell in its place, and no other."""
    return (axis.kernel, axis.stride, axis.pad_before, axis.pad_after) == (1, 1, 0, 0)


def input_gradient(conv, dy, w, b, bint relu, dx):
    """Compute ``dx = relu(what dy scatters through w + b)``, one phase of the cells of x at a time."""
    if 0 in dx.shape:
        return
    conv, dx, dy = _as_rows(_of_images(conv, dx), dx, dy)
    if _is_spread(conv):
        return _spread(conv, dy, w, b, relu, dx)
    b = np.ascontiguousarray(b)
    plans, are_all = _phase_plans(conv, kernels_id(conv))
    if not are_all:
        _fill(b, relu, dx)
    try:
        for rows, columns, plan in plans:
            _compute(plan, dy, w, dx[:, :, rows, columns], b, conv.groups, relu, True)
    except _NotFinite:
        _naive.input_gradient(conv, dy, w, b, relu, dx)


def _fill(b, bint relu, dx):
    """Set each channel to its bias: a row, an image, then all of them, each in long copies whatever the layout."""
    first, images = dx[0], max(1, FILLED_BYTES // dx[0].nbytes)
    first[:, 0] = (np.where(b <= 0, b.dtype.type(0), b) if relu else b)[:, None]
    first[:, 1:] = first[:, :1]
    for n in range(1, len(dx), images):
        PyErr_CheckSignals()
        dx[n:n + images] = first


def _of_images(conv, array):
    """Return the convolution of as many images as the array has."""
    return conv if array.shape[0] == conv.N else conv._replace(N=array.shape[0])


def _as_rows(conv, x, y):
    """Take the small images of a 1x1 convolution for one row each, which is copied at once; else change nothing."""
    h, v = conv.window
    rows = _of_rows(conv) if h.kernel == v.kernel == 1 else None  # few calls ask
    if rows is None or not (_has_plain_planes(x) and _has_plain_planes(y)):
        return conv, x, y
    return rows, x.reshape(*x.shape[:2], 1, -1), y.reshape(*y.shape[:2], 1, -1)


@lru_cache(maxsize=512)
def _of_rows(conv):
    """The convolution whose images have one row, if this is a 1x1 convolution of small images in NCHW."""
    cells = prod(conv.window.image)
    if (conv.layout != "NCHW" or cells > MOST_OUTPUTS or cells == 1
            or not all(_is_one_to_one(axis) for axis in conv.window)):
        return None
    h, v = conv.window
    return conv._replace(window=type(conv.window)(h._replace(size=1, output=1), v._replace(size=cells, output=cells)))


def _has_plain_planes(array):
    """Whether the numbers of a channel follow each other."""
    _, _, row, cell = array.strides
    return cell == array.itemsize and row == array.shape[3] * cell


@lru_cache(maxsize=512)
def _is_spread(conv):
    """Whether the channels are few, the filters are not, and the product fits a chunk of one image.

    With stride 1, two or three channels are the few filters of a pass over dy, whose rows are copied first. That is
    faster where adding columns takes more time than such copies: of many taps, or to long rows of planes (measured).
    """
    C, F = conv.C // conv.groups, conv.F // conv.groups
    h, v = conv.window
    rows = C * h.kernel * v.kernel
    is_long = conv.layout == "NCHW" and v.output * conv.itemsize >= LONG_ROW
    if C > 1 and h.stride == v.stride == 1 and (rows >= 2 * F or is_long):
        return False
    return (C < SPREAD_CHANNELS and F >= SPREAD_FILTERS and rows <= MOST_FILTERS
            and rows * conv.F * conv.itemsize <= PACKED_BYTES // 8
            and 2 * rows * F * h.output * v.output <= CHUNK_FLOPS)


@lru_cache(maxsize=512)
def _spread_plan(conv, kernels_id):
    """A 1x1 product over dy, with a row for each channel and tap."""
    h, v = conv.window
    rows = conv.C // conv.groups * h.kernel * v.kernel
    return _Plan(conv, rows, conv.F // conv.groups, (conv.N, h.output, v.output), (h.output, v.output), ((0, 0),),
                 ((0, 0),), (1, 1), True)


def _spread(conv, dy_nchw, w, b, bint relu, dx_nchw):
    """Input gradient for few channels: a row of the product for each tap, w.T dy as in im2col, added to dx at once.

    The filters of a tile would be the channels, and so few leave most of its registers empty.
    """
    cdef _Plan plan = _spread_plan(conv, kernels_id(conv))
    cdef View dy = View(dy_nchw), dx = View(dx_nchw)
    cdef Product job = plan.job
    cdef Packing packing
    cdef int workers = thread_count()
    h, v = conv.window
    groups, C, F, taps = conv.groups, conv.C // conv.groups, conv.F // conv.groups, h.kernel * v.kernel
    _fill(b, False, dx_nchw)
    place(&job, dy, dx)
    job.y_group, job.y_regular, job.relu = C * dx.step[1], False, False
    job.x_in_place = job.x_one_to_one = is_in_place(&job, dy)
    cells = _spread_cells(conv)
    job.back = windows_on(dx, C, dy.shape[2], dy.shape[3], (h.stride, v.stride), cells,
                          v.kernel if v.dilation == 1 else 1)

    by_tap = np.ascontiguousarray(w.transpose(0, 2, 3, 1) if job.by_pixels else w)
    cdef View weights = View(by_tap)
    cdef _Order order = plan.order(C * taps, 0, 0)
    set_packing(&packing, &job, 1, C * taps, F * C * taps, order)
    cdef Memory scratch = Memory(workers * job.scratch_bytes)
    cdef Memory packed = Memory(groups * job.weight_group * job.itemsize)
    job.scratch, job.weights = scratch.data, packed.data
    packing.weights, packing.packed = weights.data, packed.data
    packing.O, packing.chunks = job.O, (job.O + packing.rows - 1) // packing.rows
    run(packing_chunk, &packing, groups * packing.chunks, workers)
    run(spread_chunk, &job, groups * dy.shape[0], workers)
    if relu:
        _naive.rectify(dx_nchw)


@lru_cache(maxsize=512)
def _spread_cells(conv):
    """Cells (h, w) that output 0 sees through each tap; first output column inside the image, and one past the last."""
    h, v = conv.window
    cells = np.indices((h.kernel, v.kernel), np.intp).reshape(2, -1)
    cells = cells * [[h.dilation], [v.dilation]] - [[h.pad_before], [v.pad_before]]
    first = np.maximum(-(cells[1] // v.stride), 0)
    return np.vstack((cells, first, (v.size - 1 - cells[1]) // v.stride + 1))


cdef Windows windows_on(View x, Py_ssize_t C, Py_ssize_t rows, Py_ssize_t columns, stride,
                        Py_ssize_t[:, ::1] table, Py_ssize_t neighbours):
    """Windows over the cells of x, whose taps are those of the table; it must outlive them."""
    return Windows(rows, columns, stride[0], stride[1], x.shape[2], x.shape[3], x.step[0], x.step[1], x.step[2],
                   x.step[3], C, table.shape[1], &table[0, 0], &table[1, 0], &table[2, 0], &table[3, 0], neighbours)


def gradients(conv, x, w, dy, dx, dw, db):
    """Set dx and add to dw and db (those that are not None) what dy contributes."""
    if dx is not None:
        input_gradient(conv, dy, w, np.zeros(conv.C, w.dtype), False, dx)
    h, v = conv.window
    padded = h.pad_before > 0 or h.pad_after > 0 or v.pad_before > 0 or v.pad_after > 0
    if db is None and dw is not None and padded:
        db = np.zeros(conv.F)
    if db is not None:
        add_bias_gradient(conv, dy, db)
    if dw is not None and dy.shape[0]:
        if padded and not are_finite(db):
            _naive.add_weight_gradient(conv, x, dy, dw)
        else:
            weight_gradient(*_as_rows(_of_images(conv, x), x, dy), dw)


def workspace_bytes(conv):
    """Bytes that the largest of the three passes takes beyond its inputs and results."""
    kernels, plans = kernels_id(conv), [_forward_plan(conv, kernels_id(conv))]
    if _is_spread(conv):
        plans.append(_spread_plan(conv, kernels))
    else:
        plans += [plan for _, _, plan in _phase_plans(conv, kernels)[0]]
    sums = [_correlation.workspace_bytes(problem) for problem in (conv, _as_sums(conv)) if problem is not None]
    return max(*sums, *(plan.workspace_bytes for plan in plans))
