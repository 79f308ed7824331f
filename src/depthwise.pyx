"""Depthwise convolution: each filter sees one channel, so the work is to read and write, and nothing is packed.

Valid where groups = C, with any number of filters a channel, unless a row of the scratch would be very long.

Two ways to lay it on vectors (simd/depthwise.h); both take any kernel, stride, dilation and padding:

    planes   vectors along the rows of a plane, which is copied between zeros into a scratch; any strides of the arrays
    pixels   vectors of channels, which lie side by side (NHWC, one filter a channel); nothing is copied

The input gradient is the same computation over dy with the taps in reverse order: with stride s its outputs fall into
s*s phases, each with the taps that reach such a cell. The weight gradient keeps a vector of sums for each tap.

    for chunk of planes and bands of rows, or of rows of an image     in parallel; depends on the problem only
      for band of rows                                                the first cache
        for tile of outputs                                           registers

The formula has no term for a tap in the padding, but planes have one: 0 times the weight. Where a weight is not finite
this would be NaN, so such a problem is left to the naive loops; and so is a weight gradient that comes out not finite,
since only then did some x or dy meet a zero it should not have met.
"""

from functools import lru_cache

import numpy as np

from cnnfast._engine cimport Memory, View, kernels_for, run, thread_count, up
from kernels cimport Depthwise, Kernels, Places, Taps

from cnnfast import _naive

cdef enum:
    BAND_BYTES = 20480  # of the scratch of a band of rows: with what it is copied from, the first cache
    MOST_SCRATCH = 524288  # bytes of it for a single row of outputs
    BAND_ROWS = 7  # of outputs: the register tile of planes
    CHUNK_BYTES = 262144  # read and written in a chunk: some ten microseconds
    SUMS_BYTES = 8388608  # of the weight gradient at a time
    BLOCK_BYTES = 1024  # of channels of a pixel whose sums stay in the first cache
    FEW_CHUNKS = 16  # a weight gradient of fewer chunks is cut further, by rows of its images
    CHUNK_FLOPS = 500000000  # of a chunk of it at the most: a fraction of a second, after which Ctrl-C is looked at
MOST_PROBLEMS = 256  # whose geometry is kept


# ------------------------------------------------------------------------------------------------------- geometry

def _forward_taps(axis):
    """The one phase of a convolution: its taps, the cells that output 0 sees through them, how many outputs there are."""
    cells = range(-axis.pad_before, axis.kernel * axis.dilation - axis.pad_before, axis.dilation)
    return [(slice(None), cells, axis.output)]


def _transposed_taps(axis):
    """The same for each phase of what is put out, cells phase, phase + stride, ..., with the taps that reach them."""
    phases = []
    for phase in range(min(axis.stride, axis.size)):
        shifts = [phase + axis.pad_before - k * axis.dilation for k in range(axis.kernel)]
        hits = [k for k in range(axis.kernel) if shifts[k] % axis.stride == 0]
        taps = slice(hits[0], None, hits[1] - hits[0] if len(hits) > 1 else axis.kernel) if hits else slice(0, 0)
        cells = [shifts[k] // axis.stride for k in reversed(hits)]
        phases.append((taps, cells, -(-(axis.size - phase) // axis.stride)))
    return phases


class _Strips:
    """A row of the scratch: every stride-th cell in one strip, with a strip for each place that taps take between."""

    def __init__(self, phases, stride, size, lanes):
        every = [cell for _, cells, _ in phases for cell in cells] or [0]
        left = min(every)
        places = sorted({(cell - left) % stride for cell in every})
        self.out_width = -(-max(outputs for _, _, outputs in phases) // lanes) * lanes
        self.width = self.out_width + (max(every) - left) // stride
        self.columns = [
            np.array([places.index((cell - left) % stride) * self.width + (cell - left) // stride for cell in cells],
                     np.intp)
            for _, cells, _ in phases
        ]
        starts = left + np.array(places, np.intp)
        to = np.maximum(0, -(starts // stride))
        end = np.minimum(self.width, (size - 1 - starts) // stride + 1)
        self.table = np.vstack((to, starts + to * stride, np.maximum(end - to, 0)))


cdef class Problem:
    """What a depthwise convolution of x to y, or transposed of dy to dx, needs to know before it sees its arrays."""

    cdef const Kernels *kernels
    cdef Depthwise d  # without the arrays
    cdef Py_ssize_t itemsize, rows, bands, scratch_bytes
    cdef bint transposed
    cdef bint has_pixels  # there may be vectors of channels: they lie side by side, and one of x gives one of y
    cdef list phases  # taps (KH, KW) of each
    cdef Memory taps
    cdef object strips

    def __cinit__(self, conv, bint transposed):
        cdef Py_ssize_t[:, ::1] table
        cdef Py_ssize_t lanes, row, reach, out_row, band
        cdef Depthwise *d = &self.d
        self.transposed = transposed
        h, v = conv.window
        find = _transposed_taps if transposed else _forward_taps
        vertical, horizontal = find(h), find(v)
        self.kernels, self.itemsize = kernels_for(conv.dtype), conv.itemsize
        lanes = self.kernels.lanes
        self.has_pixels = conv.layout == "NHWC" and conv.F == conv.C and conv.C >= lanes
        d.stride_h, d.stride_w = (1, 1) if transposed else (h.stride, v.stride)
        d.phases_h, d.phases_w = len(vertical), len(horizontal)
        d.groups = conv.groups
        d.channels, d.filters = (conv.F // conv.C, 1) if transposed else (1, conv.F // conv.C)

        self.strips = _Strips(horizontal, d.stride_w, v.output if transposed else v.size, lanes)
        table = self.strips.table
        d.to, d.source, d.count = &table[0, 0], &table[1, 0], &table[2, 0]
        d.strips, d.width, d.out_width = table.shape[1], self.strips.width, self.strips.out_width

        cells = [cell for _, cells, _ in vertical for cell in cells] or [0]
        d.top, reach = min(cells), max(cells) - min(cells) + 1
        self.rows = max(outputs for _, _, outputs in vertical)
        row, out_row = d.strips * d.width, d.phases_h * d.phases_w * d.out_width
        band = (BAND_BYTES // self.itemsize - reach * row) // (d.stride_h * row + out_row)
        d.band = min(self.rows, max(1, band // BAND_ROWS * BAND_ROWS if band > BAND_ROWS else band))
        d.source_rows = (d.band - 1) * d.stride_h + reach
        self.bands = (self.rows + d.band - 1) // d.band
        self.scratch_bytes = up((d.source_rows * row + lanes + d.band * out_row) * self.itemsize, 64)
        self.set_taps(conv.F, vertical, horizontal)

    cdef void set_taps(self, Py_ssize_t F, list vertical, list horizontal):
        cdef Py_ssize_t[::1] column
        cdef Taps *t
        cdef Py_ssize_t i = 0, weights = 0
        self.phases = []
        self.taps = Memory(len(vertical) * len(horizontal) * sizeof(Taps))
        self.d.taps = <Taps *>self.taps.data
        for tap_h, cells_h, rows in vertical:
            for (tap_w, cells_w, columns), place in zip(horizontal, self.strips.columns):
                t = <Taps *>self.taps.data + i
                t.rows, t.columns, t.weights = rows, columns, weights
                t.KH, t.KW = len(cells_h), len(cells_w)
                if t.KH == 0 or t.KW == 0:
                    t.KH = t.KW = 0
                t.top, t.dilation_h = _line(cells_h)
                t.left, t.dilation_w = _line(cells_w)
                t.column = NULL
                if t.KW:
                    column = place
                    t.column = &column[0]
                self.phases.append((tap_h, tap_w))
                weights += F * t.KH * t.KW
                i += 1

    cdef object weights(self, w, bint by_pixels):
        """Weights of all phases one after the other: (F, KH, KW), or for pixels (KH, KW, F)."""
        order, back = (1, 2, 0) if by_pixels else (0, 1, 2), slice(None, None, -1 if self.transposed else 1)
        parts = [w[:, 0, tap_h, tap_w][:, back, back].transpose(order) for tap_h, tap_w in self.phases]
        return np.ascontiguousarray(parts[0]) if len(parts) == 1 else np.concatenate([p.reshape(-1) for p in parts])

    cdef Depthwise on(self, View x, View y):
        """The convolution of these arrays."""
        cdef Depthwise d = self.d
        cdef Py_ssize_t last = 1, i
        for i in range(4):
            last += max(0, (x.shape[i] - 1) * x.step[i])
        d.x_data, d.y_data, d.x_end = x.data, y.data, x.data + last * self.itemsize
        d.x = Places(x.shape[2], x.shape[3], x.step[0], x.step[1], x.step[2], x.step[3])
        d.y = Places(y.shape[2], y.shape[3], y.step[0], y.step[1], y.step[2], y.step[3])
        d.images = x.shape[0]
        return d


def _line(cells):
    """First cell and the step from one to the next."""
    return (cells[0] if cells else 0), (cells[1] - cells[0] if len(cells) > 1 else 1)


@lru_cache(MOST_PROBLEMS)
def _problem(conv, transposed, lanes):
    return Problem(conv, transposed)


cdef Problem problem_of(conv, bint transposed):
    """What is known of a problem, whatever the number of images, for the instruction set in use."""
    return _problem(conv._replace(N=0), transposed, kernels_for(conv.dtype).lanes)


def why_not(conv):
    """Return why this cannot do the convolution, or None."""
    if conv.groups != conv.C:
        return f"each filter sees {conv.C // conv.groups} channels (C / groups), not one"
    if _scratch_bytes(conv) > MOST_SCRATCH:
        return "the rows that a window sees are too long for its scratch"
    return None


def _scratch_bytes(conv):
    return max(problem_of(conv, False).scratch_bytes, problem_of(conv, True).scratch_bytes)


# ------------------------------------------------------------------------------------ forward and input gradient

cdef struct Job:
    const Kernels *kernels
    const Depthwise *d
    Py_ssize_t planes, rows  # planes: of the images, and bands of a plane; pixels: images, and rows of a phase
    Py_ssize_t planes_at_once, rows_at_once, chunks_of_rows
    char *scratch
    Py_ssize_t scratch_bytes


cdef void planes_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    cdef Job *job = <Job *>context
    cdef Py_ssize_t plane = i // job.chunks_of_rows * job.planes_at_once, row = i % job.chunks_of_rows * job.rows_at_once
    job.kernels.depthwise_planes(job.d, row, min(job.rows, row + job.rows_at_once), plane,
                                 min(job.planes, plane + job.planes_at_once), job.scratch + thread * job.scratch_bytes)


cdef void pixels_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    cdef Job *job = <Job *>context
    cdef Py_ssize_t row = i % job.chunks_of_rows * job.rows_at_once
    job.kernels.depthwise_pixels(job.d, i // job.chunks_of_rows, row, min(job.rows, row + job.rows_at_once))


cdef bint compute(conv, bint transposed, x_nchw, w, b, bint relu, y_nchw) except -1:
    """Compute y = relu(b + x * w), or dx from dy; False if a weight that is not finite would meet the padding."""
    cdef View x = View(x_nchw), y = View(y_nchw), bias = View(np.ascontiguousarray(b)), weights
    cdef Problem problem = problem_of(conv, transposed)
    cdef bint by_pixels = problem.has_pixels and x.step[1] == 1 and y.step[1] == 1
    cdef Depthwise d = problem.on(x, y)
    cdef Py_ssize_t row_bytes, chunks
    cdef int workers = thread_count()
    cdef Memory scratch = Memory(0 if by_pixels else workers * problem.scratch_bytes)
    cdef Job job
    ordered = problem.weights(w, by_pixels)
    weights = View(ordered)
    if not by_pixels and not problem.kernels.is_finite(weights.data, ordered.size):
        return False
    d.weights, d.bias, d.relu = weights.data, bias.data, relu
    job.kernels, job.d, job.scratch, job.scratch_bytes = problem.kernels, &d, scratch.data, problem.scratch_bytes
    job.planes, job.rows = x.shape[0] * conv.groups, problem.bands
    if by_pixels:
        job.planes, job.rows = x.shape[0], problem.rows
    row_bytes = (x_nchw.nbytes + y_nchw.nbytes) // (job.planes * job.rows) + 1
    job.rows_at_once = min(job.rows, max(1, CHUNK_BYTES // row_bytes))
    job.planes_at_once = 1 if by_pixels else max(1, CHUNK_BYTES // (row_bytes * job.rows))
    job.chunks_of_rows = (job.rows + job.rows_at_once - 1) // job.rows_at_once
    chunks = (job.planes + job.planes_at_once - 1) // job.planes_at_once * job.chunks_of_rows
    run(pixels_chunk if by_pixels else planes_chunk, &job, chunks, workers)
    return True


def forward(conv, x, w, b, bint relu, y):
    """Compute ``y = relu(x * w + b)``."""
    if 0 not in y.shape and not compute(conv, False, x, w, b, relu, y):
        _naive.forward(conv, x, w, b, relu, y)


def input_gradient(conv, dy, w, b, bint relu, dx):
    """Compute ``dx = relu(what dy scatters through w + b)``."""
    if 0 not in dx.shape and not compute(conv, True, dy, w, b, relu, dx):
        _naive.input_gradient(conv, dy, w, b, relu, dx)


# ------------------------------------------------------------------------------------- weight and bias gradients

cdef struct Sums:
    const Kernels *kernels
    const Depthwise *d
    bint by_pixels
    Py_ssize_t C, block, blocks, first_block  # channels, those that share a chunk, and the blocks of them to do at once
    Py_ssize_t units, slices  # rows, or bands, of all images; cut into slices, each with its own sums
    Py_ssize_t first, end  # units to do now
    char *sums
    Py_ssize_t sums_bytes  # of a block in a slice
    char *scratch
    Py_ssize_t scratch_bytes


cdef void sums_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    cdef Sums *job = <Sums *>context
    cdef Py_ssize_t slice = i // job.blocks, c = first_channel(job, i % job.blocks)
    cdef Py_ssize_t first = max(job.first, slice * job.units // job.slices)
    cdef Py_ssize_t end = min(job.end, (slice + 1) * job.units // job.slices)
    cdef char *sums = job.sums + i * job.sums_bytes
    if job.by_pixels:
        job.kernels.depthwise_pixels_sums(job.d, c, job.block, first, end, sums)
    else:
        job.kernels.depthwise_planes_sums(job.d, c, first, end, sums, job.scratch + thread * job.scratch_bytes)


cdef Py_ssize_t first_channel(const Sums *job, Py_ssize_t block) noexcept nogil:
    """The last block begins earlier where it would not fit, and does some channels again."""
    return min((job.first_block + block) * job.block, job.C - job.block)


cdef Sums sums_of(conv, Problem problem, Py_ssize_t images):
    """Cut the sums into blocks and slices, by the sizes of the problem only."""
    cdef Sums job
    cdef Py_ssize_t taps = conv.window.h.kernel * conv.window.w.kernel, lanes = problem.kernels.lanes, flops
    job.kernels, job.by_pixels, job.C, job.first_block = problem.kernels, problem.has_pixels, conv.C, 0
    job.scratch_bytes = 0 if job.by_pixels else problem.scratch_bytes
    job.block = min(conv.C, BLOCK_BYTES // conv.itemsize) if job.by_pixels else 1
    job.blocks = (conv.C + job.block - 1) // job.block
    job.units = (problem.rows if job.by_pixels else problem.bands) * images
    job.sums_bytes = (taps + 1) * problem.d.filters * up(job.block, lanes) * conv.itemsize
    flops = conv._replace(N=images).flops // job.blocks
    job.slices = min(max(FEW_CHUNKS // job.blocks, flops // CHUNK_FLOPS) + 1, SUMS_BYTES // job.sums_bytes, job.units)
    job.slices = max(1, job.slices)
    job.blocks = min(job.blocks, max(1, SUMS_BYTES // (job.sums_bytes * job.slices)))
    return job


def filter_sums(conv, x, dy, bint with_taps):
    """Sums of dy * x for each tap, and of dy alone, which do not depend on the taps: (F, KH * KW + 1) or (F, 1)."""
    cdef Problem problem = problem_of(conv, False)
    cdef Sums job = sums_of(conv, problem, dy.shape[0])
    cdef Depthwise d
    cdef Taps taps = problem.d.taps[0]
    cdef int workers = thread_count()
    cdef Memory scratch = Memory(workers * job.scratch_bytes), sums = Memory(job.slices * job.blocks * job.sums_bytes)
    cdef Py_ssize_t blocks = (job.C + job.block - 1) // job.block, filters = problem.d.filters, c, i
    cdef View x_view, dy_view
    if not with_taps:
        taps.KH = taps.KW = 0
    count = taps.KH * taps.KW + 1
    lane = np.arange(problem.kernels.lanes)
    if job.by_pixels:  # the last vector of a block begins earlier, too
        lane = np.minimum(np.arange(0, job.block, lane.size), job.block - lane.size)[:, None] + lane
    job.d, job.scratch, job.sums = &d, scratch.data, sums.data
    totals = np.empty((conv.F, count))
    while job.first_block < blocks:
        job.blocks = min(job.blocks, blocks - job.first_block)
        sums.array[:] = 0
        for n, x_part, dy_part in _adjacent(x, dy) if job.by_pixels else ((None, x, dy),):
            x_view, dy_view = View(x_part), View(dy_part)
            d = problem.on(x_view, dy_view)
            d.taps, job.first, job.end = &taps, 0, job.units
            if n is not None:
                job.first, job.end, d.x.image, d.y.image = n * problem.rows, (n + 1) * problem.rows, 0, 0
            run(sums_chunk, &job, job.slices * job.blocks, workers)
        by_block = sums.numbers(conv.dtype).reshape(-1, job.sums_bytes // conv.itemsize)[:job.slices * job.blocks]
        by_block = by_block[:, :count * filters * lane.size].reshape(job.slices, job.blocks, filters, count, lane.size)
        by_block = by_block.sum(axis=0, dtype=np.float64)
        for i in range(job.blocks):
            c = first_channel(&job, i)
            if job.by_pixels:
                totals[c + lane.reshape(-1)] = by_block[i, 0].T
            else:
                totals[c * filters:(c + 1) * filters] = by_block[i].sum(axis=-1)
        job.first_block += job.blocks
    return totals


def _adjacent(x, dy):
    """All images of x and dy, or, where their channels do not lie side by side, copies of one image after the other."""
    if x.strides[1] == dy.strides[1] == x.itemsize:
        return ((None, x, dy),)
    return ((n, *(np.ascontiguousarray(a[n:n + 1].transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) for a in (x, dy)))
            for n in range(dy.shape[0]))


def gradients(conv, x, w, dy, dx, dw, db):
    """Set dx and add to dw and db (those that are not None) what dy contributes."""
    if dx is not None:
        input_gradient(conv, dy, w, np.zeros(conv.C, conv.dtype), False, dx)
    if not dy.shape[0] or dw is None and db is None:
        return
    sums = filter_sums(conv, dy if dw is None else x, dy, dw is not None)
    if db is not None:
        db += sums[:, -1]
    if dw is None:
        return
    if np.isfinite(sums).all():
        dw += sums[:, :-1].reshape(dw.shape)
    else:
        _naive.add_weight_gradient(conv, x, dy, dw)


def workspace_bytes(conv):
    """Bytes that the largest of the three passes takes beyond its inputs and results."""
    cdef Sums job = sums_of(conv, problem_of(conv, False), conv.N)
    weights = conv.F * conv.window.h.kernel * conv.window.w.kernel
    totals = (weights + conv.F) * 8
    reduced = job.slices * job.blocks * job.sums_bytes
    return thread_count() * _scratch_bytes(conv) + max(weights * conv.itemsize, 3 * reduced + 2 * totals)
