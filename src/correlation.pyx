"""The weight gradient of a convolution as a matrix product that reduces over the outputs, a run of them at a time.

    dw[f, c, t] += sum over outputs q of dy[f, q] * x[c, the cell that q sees through tap t]

The product kernel (simd/product.h) spreads numbers of A and multiplies them by vectors of B; k runs over outputs:

    way        A, one number at a time                 B, vectors                         C, for
    pixels     dy, filter by filter        (M = F)     x, channels side by side (N = C)   each tap, whose cells are
                                                                                          found in a table of places
    columns    columns of x, as in im2col  (M = K)     dy, filters side by side (N = F)   all taps at once
    rows       dy, filter by filter        (M = F)     rows of windows of x     (N = K)   all taps at once

Columns and rows are for few channels, whose vectors would be nearly empty: rows (simd/rows.h) where filters are few as
well, or where in NCHW dy would be turned for columns, and has more to turn than the windows have to copy. Columns is as
well for 1x1 with fewer filters than channels in NCHW, where what becomes B is turned. What can be taken in place is:
rows of planes, or channels side by side. The sums of a 1x1 in one slice are dw itself. Groups of few channels in NHWC
share cache lines, so a slice of theirs is taken in rounds.

    for slice of the outputs, block of M and N            in parallel; each slice has sums of its own, added in order
      for run of the slice                                A of a run, and sums of a 1x1, fit the second cache
        for panel of N                                    B of a run, copied into the first cache or in place
          for tap                                         the product, added to the sums

Sums depend on the problem only. Where padding meets a dy that is not finite there would be NaN: see tiled.pyx.
"""

from functools import lru_cache

import numpy as np

from cnnfast._engine cimport SAME_SET, Memory, View, kernels_for, run, thread_count, up, waits_for_vectors
from cnnfast._windows cimport Cut, Sight, cut_outputs, first_of, is_in_one_image, run_from, set_places
from kernels cimport MOST_OUTPUTS, Kernels, Left, Padded, Places, Right, Run, Target, Unfolding

from cnnfast._windows import forward_taps

cdef enum:
    FEW_CHANNELS = 8  # fewer than this leave most of a vector empty
    N_BLOCK = 96  # of a chunk: two panels of the widest tile
    N_BLOCK_1X1 = 192  # twice as many where a number of A is used for one tap only
    SMALL_PLANE = 64  # outputs; an image of fewer is not worth a product of its own, and A is copied
    M_BLOCK = 256  # rows of C of a chunk, whose numbers of A stay in the second cache from tap to tap
    M_BLOCK_1X1 = 512  # and where there is but one tap
    FEW_CHUNKS = 16  # fewer chunks than this are cut further, by slices of the outputs
    SUMS_BYTES = 16777216  # of all slices
    CHUNK_FLOPS = 2000000000  # of a chunk at the most: a fraction of a second, after which Ctrl-C is looked at
    SHARED_BYTES = 786432  # of pixels that groups take their few channels from: in the second cache from group to group
    SLACK = 128  # bytes that may be read or written past copies
    MANY_ROWS = 128  # of C, to whose tiles a panel is worth a copy (measured)
    CELLS = 1024  # numbers of a line of cells that rows are copied from: a few of them stay in the first cache
    MOST_ROWS = 512  # of C by columns of several taps, which take memory in each thread: 1.6 MiB in float64

cdef struct Correlation:
    const Kernels *kernels
    Py_ssize_t itemsize
    bint by_columns, by_rows, x_in_place, x_side_by_side, dy_in_place, dy_side_by_side
    Padded x_sight, dy_sight
    Unfolding unfolding  # of x, by rows
    const Py_ssize_t *first_row  # of outputs that see a cell through tap t, but for its column,
    const Py_ssize_t *end_row  # and one past the last
    Cut cut
    const char *x
    const char *dy
    char *sums  # of slice, group, tap: M x N; or dw itself
    Py_ssize_t sums_row, sums_group
    bint in_dw
    Py_ssize_t x_group, dy_group, groups
    Py_ssize_t C, M, N, taps  # taps that C has a matrix for: all, or one
    Py_ssize_t m_block, n_block, blocks_of_m, blocks_of_n
    Py_ssize_t slice_outputs, slices, first_slice  # slices that have sums; the first of those that add to them now
    Py_ssize_t planes_step, columns_row
    char *scratch
    Py_ssize_t planes_bytes, columns_bytes, cells_bytes, scratch_bytes


cdef void correlation_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    """A block of C, over one slice of the outputs."""
    cdef Correlation *job = <Correlation *>context
    cdef Py_ssize_t n0 = i % job.blocks_of_n * job.n_block, m0 = i // job.blocks_of_n % job.blocks_of_m * job.m_block
    cdef Py_ssize_t group = i // job.blocks_of_n // job.blocks_of_m % job.groups
    cdef Py_ssize_t slice = i // job.blocks_of_n // job.blocks_of_m // job.groups
    cdef Py_ssize_t m = min(job.m_block, job.M - m0), n = min(job.n_block, job.N - n0)
    cdef Py_ssize_t item = job.itemsize, plane = job.cut.rows * job.cut.columns
    cdef Py_ssize_t q = (job.first_slice + slice) * job.slice_outputs
    cdef Py_ssize_t end = min(q + job.slice_outputs, job.cut.N * plane)
    cdef const char *x = job.x + group * job.x_group * item
    cdef const char *dy = job.dy + group * job.dy_group * item
    cdef char *scratch = job.scratch + thread * job.scratch_bytes
    cdef Target to
    to.data = job.sums + ((slice * job.groups + group) * job.sums_group + m0 * job.sums_row + n0) * item
    to.row, to.row_bias, to.column_bias, to.relu, to.far = job.sums_row, NULL, NULL, False, False
    to.add = job.in_dw or job.first_slice > 0
    cdef Run run
    cdef bint by_image = (job.x_in_place if job.by_columns else job.dy_in_place) and plane >= SMALL_PLANE
    while q < end:
        run = run_from(&job.cut, q, min(end, (q // plane + 1) * plane) if by_image else end)
        if job.by_rows:
            rows_run(job, &run, x, dy + m0 * job.dy_sight.channel * item, m, scratch, to)
        elif job.by_columns:
            columns_run(job, &run, x + m0 * job.x_sight.channel * item, dy + n0 * job.dy_sight.channel * item, m, n,
                        scratch, to)
        else:
            pixels_run(job, &run, x + n0 * job.x_sight.channel * item, dy + m0 * job.dy_sight.channel * item, n, m,
                       scratch, to)
        to.add = True
        q += run.count


cdef void pixels_run(const Correlation *job, const Run *run, const char *x, const char *dy, Py_ssize_t channels,
                     Py_ssize_t filters, char *scratch, Target to) noexcept nogil:
    """A product for each panel and tap."""
    cdef Py_ssize_t item = job.itemsize, c = 0, width
    cdef Left a = rows_of(job, &job.dy_sight, run, dy, filters, job.dy_in_place, job.dy_side_by_side, scratch)
    while c < channels:
        width = min(job.kernels.NR, channels - c)
        taps_of_panel(job, run, x + c * job.x_sight.channel * item, &a, width, filters, scratch, to)
        to.data = <char *>to.data + width * item
        c += width


cdef void taps_of_panel(const Correlation *job, const Run *run, const char *x, const Left *a, Py_ssize_t channels,
                        Py_ssize_t filters, char *scratch, Target to) noexcept nogil:
    """Each tap has places of its own in the pixels.

    In a run of one image, k is left out where the tap sees a row of padding.
    """
    cdef Py_ssize_t item = job.itemsize, t, k0 = 0, k1 = run.count, q = run.row * job.cut.columns + run.column
    cdef bint in_one_image = is_in_one_image(&job.cut, run)
    cdef Left part = a[0]
    cdef Py_ssize_t *place = <Py_ssize_t *>(scratch + job.planes_bytes)
    cdef char *cells = scratch + job.planes_bytes + job.columns_bytes
    cdef Right b = Right(x + first_of(&job.cut, run) * job.x_sight.cell * item, 0, job.x_sight.cell, NULL, NULL)
    if not job.x_side_by_side or not is_panel_in_place(job, filters, channels, job.x_sight.cell):
        job.kernels.pad_pixels(&job.x_sight, run, x, channels, cells)
        set_places(&job.x_sight, run, channels, place)
        b = Right(cells, 0, 0, NULL, place)
    for t in range(job.taps):
        if b.place != NULL:
            b.data = cells + job.x_sight.offset[t] * channels * item
            if in_one_image:
                k0 = min(max(job.first_row[t] * job.cut.columns - q, 0), run.count)
                k1 = max(min(job.end_row[t] * job.cut.columns - q, run.count), k0)
            part.data, b.place = <const char *>a.data + k0 * a.step * item, place + k0
        job.kernels.multiply(filters, channels, k1 - k0, &part, &b, &to)
        to.data = <char *>to.data + job.M * job.N * item


cdef bint is_panel_in_place(const Correlation *job, Py_ssize_t rows, Py_ssize_t columns,
                            Py_ssize_t step) noexcept nogil:
    """Whether a panel whose numbers of k are neighbours in memory, a step from those of the next k, stays there.

    Its vectors straddle cache lines, and are loaded for each tile: for few tiles, or wide ones, they are not copied,
    if they do not push each other out of the first cache.
    """
    return (columns % job.kernels.lanes == 0 and step * job.itemsize % SAME_SET != 0
            and (rows < MANY_ROWS or not waits_for_vectors(job.kernels, job.itemsize)))


cdef void columns_run(const Correlation *job, const Run *run, const char *x, const char *dy, Py_ssize_t rows,
                      Py_ssize_t filters, char *scratch, Target to) noexcept nogil:
    """A product for each panel; its rows are channels, or all channels and taps."""
    cdef Py_ssize_t item = job.itemsize, f = 0, width
    cdef char *columns = scratch + job.planes_bytes
    cdef char *cells = columns + job.columns_bytes
    cdef Left a
    cdef Right b
    if job.x_sight.taps == 1:
        a = rows_of(job, &job.x_sight, run, x, rows, job.x_in_place, job.x_side_by_side, scratch)
    else:
        job.kernels.pad_planes(&job.x_sight, run, x, job.C, scratch, job.planes_step)
        job.kernels.columns(&job.x_sight, run, 0, run.count, scratch, job.planes_step, job.C, 0, job.x_sight.taps,
                            columns, job.columns_row)
        a = Left(columns, job.columns_row * job.kernels.MR, job.columns_row, 1, NULL, NULL)
    while f < filters:
        width = min(job.kernels.NR, filters - f)
        if job.dy_side_by_side and is_panel_in_place(job, rows, width, job.dy_sight.cell):
            b = Right(dy + (first_of(&job.cut, run) * job.dy_sight.cell + f) * item, 0, job.dy_sight.cell, NULL, NULL)
        else:
            job.kernels.pad_pixels(&job.dy_sight, run, dy + f * job.dy_sight.channel * item, width, cells)
            b = Right(cells + (run.column - run.first) * width * item, 0, width, NULL, NULL)
        job.kernels.multiply(rows, width, run.count, &a, &b, &to)
        to.data = <char *>to.data + width * item
        f += width


cdef void rows_run(const Correlation *job, const Run *run, const char *x, const char *dy, Py_ssize_t filters,
                   char *scratch, Target to) noexcept nogil:
    """One product; its columns are all taps and channels."""
    cdef char *rows = scratch + job.planes_bytes
    cdef Left a = rows_of(job, &job.dy_sight, run, dy, filters, job.dy_in_place, job.dy_side_by_side, scratch)
    job.kernels.rows(&job.unfolding, x, first_of(&job.cut, run), run.count, rows + job.columns_bytes, rows, job.N)
    cdef Right b = Right(rows, job.kernels.NR, job.N, NULL, NULL)
    job.kernels.multiply(filters, job.N, run.count, &a, &b, &to)


cdef Left rows_of(const Correlation *job, const Padded *g, const Run *run, const char *array, Py_ssize_t rows,
                  bint in_place, bint side_by_side, char *planes) noexcept nogil:
    """A row of numbers for each channel: where they are, unless they push each other out, or a copy of their planes."""
    cdef Py_ssize_t MR = job.kernels.MR, item = job.itemsize
    if side_by_side and g.cell * item % SAME_SET != 0:
        return Left(array + first_of(&job.cut, run) * g.cell * item, MR, 1, g.cell, NULL, NULL)
    if in_place and is_in_one_image(&job.cut, run):
        return Left(array + (run.image * g.image + run.row * g.row + run.column) * item, MR * g.channel, g.channel, 1,
                    NULL, NULL)
    job.kernels.pad_planes(g, run, array, rows, planes, job.planes_step)
    return Left(planes + (run.column - run.first) * item, MR * job.planes_step, job.planes_step, 1, NULL, NULL)


cdef struct Adding:
    const Correlation *job
    char *dw
    Py_ssize_t tap, row, numbers, taps  # of sums: steps from tap to tap and from row to row, and numbers of a row
    Py_ssize_t m_step, n_step, t_step, group_step, slice


cdef void adding_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    """Add some rows of the sums of one group to dw."""
    cdef Adding *adding = <Adding *>context
    cdef const Correlation *job = adding.job
    cdef Py_ssize_t pieces = (job.M + 15) // 16, group = i // pieces, m = i % pieces * 16, item = job.itemsize
    job.kernels.add_sums(job.sums + group * job.taps * job.M * job.N * item, job.slices, adding.slice,
                         adding.tap, adding.row, m, min(m + 16, job.M), adding.numbers, adding.taps,
                         adding.dw + group * adding.group_step * item, adding.m_step, adding.n_step, adding.t_step)


cdef class _Plan:
    """A weight gradient, but for the arrays."""

    cdef Correlation job
    cdef Sight x_sight, dy_sight  # which own the tables,
    cdef object rows  # as does this

    def __cinit__(self, conv):
        cdef Correlation *job = &self.job
        h, v = conv.window
        shape = conv.N, h.output, v.output
        F = conv.F // conv.groups
        job.kernels, job.itemsize, job.groups = kernels_for(conv.dtype), conv.itemsize, conv.groups
        job.C = conv.C // conv.groups
        taps = h.kernel * v.kernel
        job.by_rows = job.C < FEW_CHANNELS and taps > 1 and v.dilation == 1 and (
            conv.layout == "NCHW" and taps * job.C <= 2 * F or F < FEW_CHANNELS and taps * job.C <= MOST_ROWS)
        job.by_columns = not job.by_rows and (job.C < FEW_CHANNELS and taps * job.C <= MOST_ROWS
                                              or taps == 1 and F < job.C and conv.layout == "NCHW")
        job.taps = 1 if job.by_columns or job.by_rows else taps
        job.M, job.N = (taps * job.C, F) if job.by_columns else (F, job.C)
        job.n_block, job.m_block = (N_BLOCK_1X1, M_BLOCK_1X1) if taps == 1 else (N_BLOCK, M_BLOCK)
        if job.by_columns and taps > 1:
            job.m_block = job.M
        if job.by_rows:
            job.n_block = job.N = up(taps * job.C, job.kernels.lanes)
        blocks = (job.N + job.n_block - 1) // job.n_block
        job.n_block = up((job.N + blocks - 1) // blocks, job.kernels.lanes)
        job.blocks_of_n = (job.N + job.n_block - 1) // job.n_block
        job.blocks_of_m = (job.M + job.m_block - 1) // job.m_block
        cut_outputs(&job.cut, shape, MOST_OUTPUTS)
        self.x_sight = Sight(shape, MOST_OUTPUTS, (h.size, v.size), forward_taps(h), forward_taps(v),
                             (h.stride, v.stride))
        self.dy_sight = Sight(shape, MOST_OUTPUTS, (h.output, v.output), ((0, 0),), ((0, 0),), (1, 1))
        cells = np.repeat([cell for _, cell in forward_taps(h)], v.kernel)
        cdef Py_ssize_t[:, ::1] rows = np.array([-(cells // h.stride), (h.size - 1 - cells) // h.stride + 1], np.intp)
        self.rows, job.first_row, job.end_row = rows, &rows[0, 0], &rows[1, 0]
        if job.by_rows:
            self.set_unfolding(h, v)
        self.set_slices()
        if conv.layout == "NHWC" and job.C < FEW_CHANNELS and job.groups > 1:
            pixel = (conv.C * h.stride * v.stride + conv.F) * job.itemsize  # x and dy for an output, all groups
            job.slice_outputs = min(job.slice_outputs, up(SHARED_BYTES // pixel, job.cut.outputs))
        self.set_memory()

    cdef set_unfolding(self, h, v):
        """Note how rows see x, but for its steps."""
        cdef Unfolding *g = &self.job.unfolding
        g.rows, g.KH, g.stride_h, g.dilation_h, g.top, g.H = (h.output, h.kernel, h.stride, h.dilation, h.pad_before,
                                                              h.size)
        g.columns, g.KW, g.stride_w, g.left, g.W = v.output, v.kernel, v.stride, v.pad_before, v.size
        g.channels = self.job.C
        g.most = min(g.columns, max(CELLS // g.channels - g.KW, 0) // g.stride_w + 1)
        g.line = up(((g.most - 1) * g.stride_w + g.KW) * g.channels + self.job.kernels.lanes, self.job.kernels.lanes)

    cdef set_slices(self):
        """Cut the outputs into slices with sums of their own, and the sums into rounds that do not take long."""
        cdef Correlation *job = &self.job
        cdef Py_ssize_t Q = job.cut.N * job.cut.rows * job.cut.columns, outputs = job.cut.outputs, slices
        slices = FEW_CHUNKS // (job.blocks_of_m * job.blocks_of_n * job.groups) + 1
        slices = min(slices, SUMS_BYTES // (job.groups * job.taps * job.M * job.N * job.itemsize), Q // (2 * outputs))
        job.slice_outputs = up((Q + max(1, slices) - 1) // max(1, slices), outputs)
        job.slices = (Q + job.slice_outputs - 1) // job.slice_outputs
        job.slice_outputs = min(job.slice_outputs,
                                up(CHUNK_FLOPS // (2 * job.m_block * job.n_block * job.taps), outputs))

    cdef set_memory(self):
        """Count the memory that a thread needs."""
        cdef Correlation *job = &self.job
        cdef const Padded *x = &self.x_sight.g
        cdef const Padded *dy = &self.dy_sight.g
        cdef Py_ssize_t line = 64 // job.itemsize, item = job.itemsize
        cdef const Padded *a = x if job.by_columns else dy
        cdef const Padded *b = dy if job.by_columns else x
        job.planes_step = up(a.phases * a.plane, line) | line
        job.columns_row = up(job.cut.outputs, line) | line
        planes = job.C if job.by_columns and x.taps > 1 else min(job.m_block, job.M)
        job.planes_bytes = up(job.planes_step * planes * item + SLACK, 64)
        job.columns_bytes = up(job.cut.outputs * sizeof(Py_ssize_t), 64)
        if job.by_columns and x.taps > 1:
            job.columns_bytes = up(job.columns_row * job.M * item + SLACK, 64)
        if job.by_rows:
            job.columns_bytes = up(job.cut.outputs * job.N * item + SLACK, 64)
            job.cells_bytes = job.unfolding.KH * job.unfolding.line * item
        else:
            job.cells_bytes = up(b.phases * b.plane * min(job.n_block, job.kernels.NR) * item + SLACK, 64)
        job.scratch_bytes = job.planes_bytes + job.columns_bytes + job.cells_bytes


@lru_cache(maxsize=512)
def _plan(conv, kernels_id):
    return _Plan(conv)


cdef _Plan plan_of(conv):
    return _plan(conv, <size_t>kernels_for(conv.dtype))


def weight_gradient(conv, x, dy, dw):
    """Add to dw the gradient of the weights."""
    if x.shape[0] != conv.N:
        conv = conv._replace(N=x.shape[0])
    for part, channels, filters in _parts(conv):
        _weight_gradient(part, x[:, channels], dy[:, filters], dw[filters])


def _parts(conv):
    """All of it, or parts of the filters of a group, whose sums fit the memory; with their channels and filters."""
    C, F = conv.C // conv.groups, conv.F // conv.groups
    filter_bytes = C * conv.window.h.kernel * conv.window.w.kernel * conv.itemsize
    if filter_bytes * conv.F <= SUMS_BYTES:
        return [(conv, slice(None), slice(None))]
    step = max(1, min(F, SUMS_BYTES // filter_bytes))
    return [(conv._replace(C=C, F=min(step, F - f), groups=1), slice(g * C, (g + 1) * C),
             slice(g * F + f, g * F + min(f + step, F))) for g in range(conv.groups) for f in range(0, F, step)]


def _weight_gradient(conv, x_nchw, dy_nchw, dw_fckk):
    cdef _Plan plan = plan_of(conv)
    cdef View x = View(x_nchw), dy = View(dy_nchw), dw = View(dw_fckk)
    cdef Correlation job = plan.job
    cdef Py_ssize_t F = conv.F // job.groups, whole = job.groups * job.taps * job.M * job.N
    cdef int workers = thread_count()
    job.x_sight, job.dy_sight = plan.x_sight.on(x), plan.dy_sight.on(dy)
    job.x, job.x_group = x.data, job.C * x.step[1]
    job.unfolding.image, job.unfolding.channel, job.unfolding.row, job.unfolding.cell = (x.step[0], x.step[1],
                                                                                         x.step[2], x.step[3])
    job.dy, job.dy_group = dy.data, F * dy.step[1]
    job.x_in_place, job.dy_in_place = plan.x_sight.one_to_one and has_plain_planes(x), has_plain_planes(dy)
    job.x_side_by_side = plan.x_sight.one_to_one and has_plain_pixels(x)
    job.dy_side_by_side = has_plain_pixels(dy)
    job.in_dw = job.slices == 1 and job.x_sight.taps == 1 and not job.by_columns and dw.step[1] == 1
    cdef Memory sums = Memory(0 if job.in_dw else job.slices * whole * job.itemsize)
    cdef Memory scratch = Memory(workers * job.scratch_bytes)
    job.scratch, job.first_slice = scratch.data, 0
    if job.in_dw:
        job.sums, job.sums_row, job.sums_group = dw.data, dw.step[0], F * dw.step[0]
    else:
        job.sums, job.sums_row, job.sums_group = sums.data, job.N, job.taps * job.M * job.N
    while job.first_slice * job.slice_outputs < job.cut.N * job.cut.rows * job.cut.columns:
        run(correlation_chunk, &job, job.slices * job.groups * job.blocks_of_m * job.blocks_of_n, workers)
        job.first_slice += job.slices
    if job.in_dw:
        return
    cdef Adding adding = Adding(&job, dw.data, job.M * job.N, job.N, job.N, job.taps, dw.step[0], dw.step[1],
                                dw.step[3], F * dw.step[0], whole)
    if job.by_rows:
        adding.tap = adding.numbers = job.C
        adding.taps = job.x_sight.taps
    elif job.by_columns:
        adding.m_step, adding.n_step, adding.t_step = dw.step[1 if job.x_sight.taps == 1 else 3], dw.step[0], 0
    run(adding_chunk, &adding, (job.M + 15) // 16 * job.groups, workers)


cdef bint has_plain_planes(View x):
    """Whether the numbers of a channel follow each other."""
    return x.step[3] == 1 and (x.shape[2] == 1 or x.step[2] == x.shape[3])


cdef bint has_plain_pixels(View x):
    """Whether the channels of a cell follow each other, and the cells of all images with one step."""
    return x.step[1] == 1 and x.is_regular()


# -------------------------------------------------------------------------------------------------- bias gradient

cdef struct Totals:
    const Kernels *kernels
    Places p
    const char *dy
    double *sums  # of piece and filter
    bint by_pixels
    Py_ssize_t F, Q, outputs


cdef void totals_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    cdef Totals *job = <Totals *>context
    job.kernels.channel_sums(&job.p, job.by_pixels, job.dy, i * job.outputs,
                             min(job.outputs, job.Q - i * job.outputs), job.F, job.sums + i * job.F)


def add_bias_gradient(conv, dy_nchw, db):
    """Put the sum of each filter into db, zeros in float64; it is not finite if dy is not.

    Their order suits the layout, and a few numbers are added up in the dtype of dy before they go to float64.
    """
    if 0 in dy_nchw.shape:
        return
    cdef View dy = View(dy_nchw)
    cdef Totals job
    job.kernels, job.dy, job.F, job.by_pixels = kernels_for(conv.dtype), dy.data, dy.shape[1], conv.layout == "NHWC"
    job.p = Places(dy.shape[2], dy.shape[3], dy.step[0], dy.step[1], dy.step[2], dy.step[3])
    job.Q = dy.shape[0] * dy.shape[2] * dy.shape[3]
    job.outputs = max((job.Q + FEW_CHUNKS - 1) // FEW_CHUNKS, MOST_OUTPUTS)
    pieces = (job.Q + job.outputs - 1) // job.outputs
    sums = db[None] if pieces == 1 else np.zeros((pieces, job.F))
    cdef double[:, ::1] places = sums
    job.sums = &places[0, 0]
    run(totals_chunk, &job, pieces, thread_count())
    if pieces > 1:
        db += np.add.reduce(sums, axis=0)


def are_finite(db):
    """Whether no sum is infinite or NaN."""
    cdef View sums = View(db)
    return kernels_for("float64").is_finite(sums.data, sums.shape[0])


def workspace_bytes(conv):
    """Bytes of sums and scratch."""
    cdef _Plan plan = plan_of(_parts(conv)[0][0])
    return (plan.job.slices * plan.job.groups * plan.job.taps * plan.job.M * plan.job.N * plan.job.itemsize
            + thread_count() * plan.job.scratch_bytes)
