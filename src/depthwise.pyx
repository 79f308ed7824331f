"""Depthwise convolution: each filter sees one channel, so the work is to read and write, and nothing is packed.

Valid where groups = C, with any number of filters a channel, unless a row of the scratch would be very long.

The cells that a region of outputs sees are copied between zeros into a scratch, and computed there (simd/depthwise.h).
Lanes of vectors are columns of one plane; or the same cell of neighbouring channels, for planes so narrow that their
rows would not fill a vector, which are turned, and for NHWC, where channels lie side by side (`adjacent`). 3x3 kernels
of NHWC are computed where the arrays are (simd/pixels.h), except that pixels far apart are copied. Arrays may have any
strides.

The input gradient is the same computation over dy with the taps in reverse order: with stride s its outputs fall into
s*s phases, each with the taps that reach such a cell. The weight gradient keeps a vector of sums for each tap.

    for chunk of groups (planes, or channels of an image) and regions     in parallel; depends on the problem only
      for region, for group                                               copied, or NHWC in place: a cache
        for tile of outputs                                               registers

The formula has no term for a tap in the padding, but zeros around a copy have one: 0 times the weight. Where a weight
is not finite it would be NaN, so such a problem is left to the naive loops; and so is a weight gradient that comes out
not finite, since only then did some x or dy meet a zero it should not have met.
"""

from functools import lru_cache
from math import prod

import numpy as np

from libc.string cimport memset

from cnnfast._engine cimport LINE, Memory, View, kernels_for, run, thread_count, up
from kernels cimport Depthwise, Kernels, Places, Taps

from cnnfast import _naive

cdef enum:
    TILE = 7  # outputs in registers; in place, of each of so many rows, or fewer
    TILE_ROWS = 2
    PLANE_BYTES = 20480  # of a region's scratch: with what it is copied from, the first cache
    RING_BYTES = 131072  # of one by channels, which has the rows that an output sees: part of the second cache
    ADJACENT_BYTES = 1048576  # read and written in a region of those, whose first rows are copied twice
    TURNED_BYTES = 262144  # and where outputs are kept until they are turned: part of the second cache, too
    FAR_BYTES = 2048  # between pixels, where a tile's cells fall into few sets of the first cache and many pages
    RUN_BYTES = 512  # of neighbouring channels of pixels, copied or summed together: a few cache lines
    ROWS_BYTES = 524288  # of the rows that a tile sees in place, and those below it again: half of the second cache
    MOST_SCRATCH = 524288  # bytes of it, for the smallest region
    MOST_PHASES = 256  # each of which takes some time, even if no tap reaches it
    FEW_FILTERS = 8  # of one channel: fewer leave most of a vector of filters empty,
    FEW_ROWS = 4  # or of the rows of a tile (measured)
    MANY_WEIGHTS = 256  # of one channel: from here on both gradients together are faster as products (measured)
    FEW_COLUMNS = 16  # of outputs of a plane, of which a stride would make costly short strips
    CHUNK_BYTES = 262144  # read and written in a chunk: some ten microseconds
    SUMS_BYTES = 8388608  # of the weight gradient at a time
    COPIED_BYTES = 16777216  # of x and dy, if their channels do not lie side by side
    FEW_CHUNKS = 16  # a weight gradient of fewer chunks is cut further, by regions and images
    CHUNK_FLOPS = 500000000  # of a chunk of it at the most: a fraction of a second, after which Ctrl-C is looked at

MOST_PROBLEMS = 256  # whose geometry is kept


# ------------------------------------------------------------------------------------------------------- geometry

def _forward_taps(axis):
    """The one phase of a convolution: its taps, the cells that output 0 sees through them, the number of outputs."""
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
    cdef Py_ssize_t itemsize, regions, scratch_bytes
    cdef bint transposed
    cdef list phases  # taps (KH, KW) of each
    cdef Memory taps
    cdef object strips

    def __cinit__(self, conv, bint transposed, bint adjacent):
        cdef Depthwise *d = &self.d
        cdef Py_ssize_t lanes
        h, v = conv.window
        self.transposed = transposed
        find = _transposed_taps if transposed else _forward_taps
        vertical, horizontal = find(h), find(v)
        self.kernels, self.itemsize = kernels_for(conv.dtype), conv.itemsize
        lanes = self.kernels.lanes
        d.stride_h, d.stride_w = (1, 1) if transposed else (h.stride, v.stride)
        d.phases_h, d.phases_w = len(vertical), len(horizontal)
        d.channels, d.filters = (conv.F // conv.C, 1) if transposed else (1, conv.F // conv.C)
        d.y_channels = conv.C if transposed else conv.F
        d.adjacent, d.in_place = adjacent, adjacent and is_usual(h) and is_usual(v) and h.stride == v.stride
        if conv.layout == "NHWC":
            d.by_channels = 2 * d.y_channels > lanes
        else:
            d.by_channels = d.y_channels >= lanes and (v.output < lanes or v.stride > 1 and v.output <= FEW_COLUMNS)
        d.groups, d.vectors = conv.groups, 1
        self.set_reach(vertical, horizontal)
        if d.by_channels:
            d.groups = (d.y_channels + lanes - 1) // lanes
        if d.in_place:
            self.set_pixels_regions(vertical, horizontal)
        elif d.by_channels:
            self.set_channels_regions(vertical, horizontal)
        else:
            self.set_planes_regions(vertical, horizontal, v.output if transposed else v.size)
        self.set_taps(vertical, horizontal)

    cdef int set_reach(self, list vertical, list horizontal) except -1:
        """Find where the cells that output 0 sees begin and end."""
        cells_h, cells_w = ([cell for _, cells, _ in axis for cell in cells] or [0] for axis in (vertical, horizontal))
        self.d.top, self.d.left = min(cells_h), min(cells_w)
        self.d.reach_h, self.d.reach_w = max(cells_h) - min(cells_h) + 1, max(cells_w) - min(cells_w) + 1
        return 0

    cdef int set_planes_regions(self, list vertical, list horizontal, Py_ssize_t width) except -1:
        """Cut the outputs of each phase into regions, whose cells and outputs fit the first cache."""
        cdef Depthwise *d = &self.d
        cdef Py_ssize_t[:, ::1] table
        cdef Py_ssize_t lanes = self.kernels.lanes, phases = d.phases_h * d.phases_w
        rows, columns = (max(outputs for _, _, outputs in axis) for axis in (vertical, horizontal))
        self.strips = _Strips(horizontal, d.stride_w, width, lanes)
        table = self.strips.table
        d.to, d.source, d.count = &table[0, 0], &table[1, 0], &table[2, 0]
        d.strips, d.width, d.out_width = table.shape[1], self.strips.width, self.strips.out_width
        d.pitch = d.strips * d.width
        d.block = columns
        d.band = tiles((PLANE_BYTES // self.itemsize - (d.reach_h - d.stride_h) * d.pitch)
                       // (d.pitch * d.stride_h + phases * d.out_width), rows)
        self.set_scratch(rows, columns, ((d.band - 1) * d.stride_h + d.reach_h) * d.pitch,
                         d.band * d.out_width * phases)
        return 0

    cdef int set_channels_regions(self, list vertical, list horizontal) except -1:
        """The same by channels: the rows that an output sees fit the second cache; so does a region to be turned."""
        cdef Depthwise *d = &self.d
        cdef Py_ssize_t phases = d.phases_h * d.phases_w, vector = self.kernels.lanes * self.itemsize, source_columns
        cdef Py_ssize_t slots, fit
        rows, columns = (max(outputs for _, _, outputs in axis) for axis in (vertical, horizontal))
        d.slots = 1
        while d.slots < d.reach_h:
            d.slots *= 2
        slots = d.slots + 1  # one of zeros
        if d.adjacent:
            fit = RING_BYTES // (slots * vector * ((min(columns, TILE) - 1) * d.stride_w + d.reach_w))
            self.set_groups(max(1, min(fit, RUN_BYTES // vector)))
        vector *= d.vectors
        d.block = tiles((RING_BYTES // (slots * vector) - d.reach_w) // d.stride_w + 1, columns)
        source_columns = (d.block - 1) * d.stride_w + d.reach_w
        fit = (ADJACENT_BYTES if d.adjacent else TURNED_BYTES) // vector - (d.reach_h - d.stride_h) * source_columns
        d.band = tiles(fit // (source_columns * d.stride_h + phases * d.block), rows)
        d.pitch = source_columns * self.kernels.lanes
        d.slot = d.vectors * d.pitch
        self.set_scratch(rows, columns, slots * d.slot,
                         0 if d.adjacent else d.band * d.block * phases * self.kernels.lanes)
        return 0

    cdef int set_groups(self, Py_ssize_t fit) except -1:
        """Take as many vectors together as fit, in groups of about one size."""
        cdef Py_ssize_t all = self.d.groups
        self.d.groups = (all + fit - 1) // fit
        self.d.vectors = (all + self.d.groups - 1) // self.d.groups
        return 0

    cdef int set_pixels_regions(self, list vertical, list horizontal) except -1:
        """The same of NHWC: of all channels in place or, where pixels are far apart, of a few that are copied."""
        cdef Depthwise *d = &self.d
        cdef Py_ssize_t phases = d.phases_h * d.phases_w, pixel, fit, columns_seen
        rows, columns = (max(outputs for _, _, outputs in axis) for axis in (vertical, horizontal))
        self.set_groups(RUN_BYTES // (self.kernels.lanes * self.itemsize))
        d.pitch = d.vectors * self.kernels.lanes
        d.far = d.y_channels * self.itemsize >= FAR_BYTES and d.y_channels % self.kernels.lanes == 0
        pixel = (d.pitch if d.far else d.y_channels) * self.itemsize
        fit = ROWS_BYTES // (pixel * ((TILE_ROWS - 1) * d.stride_h + d.reach_h))
        d.block = tiles((fit - d.reach_w) // d.stride_w + 1, columns)
        fit = CHUNK_BYTES // (d.block * (d.stride_h * d.stride_w + phases) * pixel)
        d.band = min(rows, max(1, fit // TILE_ROWS) * TILE_ROWS)
        columns_seen = (d.block - 1) * d.stride_w + d.reach_w
        self.set_scratch(rows, columns, ((d.band - 1) * d.stride_h + d.reach_h) * columns_seen * d.pitch,
                         d.band * d.block * d.pitch)
        if not d.far or self.scratch_bytes > MOST_SCRATCH:
            d.far, self.scratch_bytes = False, 0
        return 0

    cdef int set_scratch(self, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t source, Py_ssize_t out) except -1:
        """Count regions and lay out the scratch, whose parts begin on cache lines."""
        cdef Depthwise *d = &self.d
        cdef Py_ssize_t line = LINE // self.itemsize
        d.blocks = (columns + d.block - 1) // d.block
        self.regions = (rows + d.band - 1) // d.band * d.blocks
        d.source_size, d.out_size = up(source + self.kernels.lanes, line), up(out + self.kernels.lanes, line)
        self.scratch_bytes = (d.source_size + d.out_size) * self.itemsize + up(d.reach_h * sizeof(Py_ssize_t), LINE)
        return 0

    cdef int set_taps(self, list vertical, list horizontal) except -1:
        cdef Py_ssize_t[::1] column
        cdef Taps *t
        cdef Py_ssize_t i = 0
        places = [None] * len(horizontal) if self.d.by_channels else self.strips.columns
        self.phases = []
        self.taps = Memory(len(vertical) * len(horizontal) * sizeof(Taps))
        self.d.taps = <Taps *>self.taps.data
        for tap_h, cells_h, rows in vertical:
            for (tap_w, cells_w, columns), place in zip(horizontal, places):
                t = <Taps *>self.taps.data + i
                t.rows, t.columns, t.before = rows, columns, self.d.all_taps
                t.KH, t.KW = len(cells_h), len(cells_w)
                if t.KH == 0 or t.KW == 0:
                    t.KH = t.KW = 0
                t.top, t.dilation_h = _line(cells_h, self.d.top)
                t.left, t.dilation_w = _line(cells_w, self.d.left)
                t.column = NULL
                if t.KW and place is not None:
                    column = place
                    t.column = &column[0]
                self.phases.append((tap_h, tap_w))
                self.d.all_taps += t.KH * t.KW
                i += 1
        return 0

    cdef object weights(self, w):
        """(F, taps of all phases), or by channels (vectors, those that add up, taps, lanes)."""
        back = slice(None, None, -1 if self.transposed else 1)
        parts = [w[:, 0, tap_h, tap_w][:, back, back] for tap_h, tap_w in self.phases]
        parts = [part.reshape(len(w), part.shape[1] * part.shape[2]) for part in parts]
        w = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        if self.d.by_channels:
            w = self.to_lanes(w)
            vectors = w.shape[0] // (self.d.channels * self.kernels.lanes)
            w = w.reshape(vectors, self.kernels.lanes, self.d.channels, w.shape[1]).transpose(0, 2, 3, 1)
        return np.ascontiguousarray(w)

    cdef Py_ssize_t missing(self):
        """By channels: how many the last vector has less than lanes."""
        return up(self.d.y_channels, self.kernels.lanes) - self.d.y_channels if self.d.by_channels else 0

    cdef object to_lanes(self, array):
        """By channels: from each channel of y to each lane; missing ones are zero, or side by side a channel again."""
        cdef Py_ssize_t missing = self.missing()
        if not missing:
            return array
        if self.d.adjacent:
            last = self.d.y_channels - self.kernels.lanes
            return np.concatenate((array[:last + missing], array[last:]))
        missing = missing * array.shape[0] // self.d.y_channels
        return np.concatenate((array, np.zeros((missing, *array.shape[1:]), array.dtype)))

    cdef object from_lanes(self, array):
        """Back again."""
        cdef Py_ssize_t missing = self.missing(), again = self.d.y_channels // self.kernels.lanes * self.kernels.lanes
        if self.d.adjacent and missing:
            array = np.delete(array, slice(again, again + missing), axis=0)
        return array[:self.d.y_channels]

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


cdef Py_ssize_t tiles(Py_ssize_t fit, Py_ssize_t all) noexcept:
    """How many outputs to take of so many, if so many fit: whole tiles."""
    return min(all, max(1, fit // TILE * TILE if fit > TILE else fit))


cdef bint is_usual(axis) except -1:
    """Whether the kernels in place are compiled for such an axis."""
    return axis.kernel == 3 and axis.dilation == 1 and axis.stride <= 2


def _line(cells, otherwise):
    """First cell and the step from one to the next."""
    return (cells[0] if cells else otherwise), (cells[1] - cells[0] if len(cells) > 1 else 1)


@lru_cache(MOST_PROBLEMS)
def _problem(conv, transposed, adjacent, lanes):
    return Problem(conv, transposed, adjacent)


cdef Problem problem_of(conv, bint transposed, bint adjacent):
    """What is known of a problem, whatever the number of images, for the instruction set in use."""
    return _problem(conv._replace(N=0), transposed, adjacent, kernels_for(conv.dtype).lanes)


cdef bint can_be_adjacent(conv) except -1:
    """Whether vectors are filled by channels of x that are also those of y."""
    return conv.layout == "NHWC" and conv.F == conv.C >= kernels_for(conv.dtype).lanes


cdef bint is_adjacent(conv, View x, View y) except -1:
    return can_be_adjacent(conv) and x.step[1] == 1 == y.step[1]


def why_not(conv):
    """Return why this cannot do the convolution, or None."""
    if conv.groups != conv.C:
        return f"each filter sees {conv.C // conv.groups} channels (C / groups), not one"
    h, v = conv.window
    if min(h.stride, h.size) * min(v.stride, v.size) > MOST_PHASES:
        return "its input gradient has too many phases (stride * stride)"
    if _scratch_bytes(conv) > MOST_SCRATCH:
        return "the rows that a window sees are too long for its scratch"
    return None


def why_slower(conv):
    """Return why `tiled` is faster, or None: it multiplies the one channel of planes by many filters at once."""
    h, v = conv.window
    columns = max(v.size, v.output)
    if conv.C > 1 or conv.layout != "NCHW":
        return None
    if columns < LINE // conv.itemsize and columns <= conv.F:
        return "rows of one channel do not fill vectors, and as many filters fill tiles"
    if conv.F * h.kernel * v.kernel >= MANY_WEIGHTS:
        return "so many weights of one channel fill the tiles of products"
    return None


def why_slower_forward(conv):
    """Return why forward alone is slower than a product, or None."""
    if conv.C == 1 and conv.F >= (FEW_FILTERS if conv.layout == "NHWC" else FEW_ROWS):
        return "a product reads the cells of one channel once for many filters"
    return None


def _scratch_bytes(conv):
    return max((<Problem>problem_of(conv, transposed, adjacent)).scratch_bytes
               for transposed in (False, True) for adjacent in {False, can_be_adjacent(conv)})


# ------------------------------------------------------------------------------------ forward and input gradient

cdef struct Job:
    const Kernels *kernels
    const Depthwise *d
    Py_ssize_t groups, regions  # groups of all images
    Py_ssize_t groups_at_once, regions_at_once, chunks_of_regions
    char *scratch
    Py_ssize_t scratch_bytes


cdef void depthwise_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    cdef Job *job = <Job *>context
    cdef Py_ssize_t group = i // job.chunks_of_regions * job.groups_at_once
    cdef Py_ssize_t region = i % job.chunks_of_regions * job.regions_at_once
    job.kernels.depthwise(job.d, region, min(job.regions, region + job.regions_at_once), group,
                          min(job.groups, group + job.groups_at_once), job.scratch + thread * job.scratch_bytes)


cdef bint compute(conv, bint transposed, x_nchw, w, b, bint relu, y_nchw) except -1:
    """Compute y = relu(b + x * w), or dx from dy; False if a weight that is not finite would meet the padding."""
    cdef View x = View(x_nchw), y = View(y_nchw)
    cdef Problem problem = problem_of(conv, transposed, is_adjacent(conv, x, y))
    cdef Depthwise d = problem.on(x, y)
    ordered = problem.weights(w)
    cdef View weights = View(ordered), bias = View(np.ascontiguousarray(problem.to_lanes(b)))
    cdef Py_ssize_t share, chunks
    cdef int workers = thread_count()
    cdef Memory scratch = Memory(workers * problem.scratch_bytes)
    cdef Job job
    if d.in_place and not d.far:  # all channels of a pixel, one cache line after the other
        d.groups, d.vectors = 1, d.groups * d.vectors
    if not d.in_place and not problem.kernels.is_finite(weights.data, ordered.size):
        return False
    d.weights, d.bias, d.relu = weights.data, bias.data, relu
    job.kernels, job.d, job.scratch, job.scratch_bytes = problem.kernels, &d, scratch.data, problem.scratch_bytes
    job.groups, job.regions = d.images * d.groups, problem.regions
    share = (x_nchw.nbytes + y_nchw.nbytes) // (job.groups * job.regions) + 1
    job.regions_at_once = min(job.regions, max(1, CHUNK_BYTES // share))
    job.groups_at_once = min(job.groups, max(1, CHUNK_BYTES // (share * job.regions_at_once)))
    job.chunks_of_regions = (job.regions + job.regions_at_once - 1) // job.regions_at_once
    chunks = (job.groups + job.groups_at_once - 1) // job.groups_at_once * job.chunks_of_regions
    run(depthwise_chunk, &job, chunks, workers)
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
    Py_ssize_t groups, first_group  # of so many bytes of sums, from this one on
    Py_ssize_t units, slices  # regions of all images, cut into slices with sums of their own
    char *sums
    Py_ssize_t itemsize, sums_bytes  # of a group in a slice
    char *scratch
    Py_ssize_t scratch_bytes


cdef void sums_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    cdef Sums *job = <Sums *>context
    cdef Py_ssize_t group = i % job.groups, slice = i // job.groups
    job.kernels.depthwise_sums(
        job.d, job.first_group + group, job.first_group + group + 1, slice * job.units // job.slices,
        (slice + 1) * job.units // job.slices, job.sums + i * job.sums_bytes, job.sums_bytes // job.itemsize,
        job.scratch + thread * job.scratch_bytes)


cdef Sums sums_of(conv, Problem problem, Py_ssize_t images):
    """Cut the sums into slices, by the sizes of the problem only."""
    cdef Sums job
    cdef Py_ssize_t taps = conv.window.h.kernel * conv.window.w.kernel, flops
    cdef Py_ssize_t vectors = problem.d.vectors if problem.d.by_channels else problem.d.filters
    job.kernels, job.first_group, job.scratch_bytes = problem.kernels, 0, problem.scratch_bytes
    job.itemsize, job.units = conv.itemsize, problem.regions * images
    job.sums_bytes = (taps + 1) * vectors * job.kernels.lanes * job.itemsize
    flops = conv._replace(N=images).flops // problem.d.groups
    job.slices = min(max(FEW_CHUNKS // problem.d.groups, flops // CHUNK_FLOPS) + 1, SUMS_BYTES // job.sums_bytes)
    job.slices = max(1, min(job.slices, job.units))
    job.groups = min(problem.d.groups, max(1, SUMS_BYTES // (job.sums_bytes * job.slices)))
    return job


def _channels_together(array):
    """A copy where channels do not lie side by side: sums have one order, whatever the strides."""
    if array.strides[1] == array.itemsize:
        return array
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)


def _sums_of_adjacent(conv, x, dy, bint with_taps):
    """`filter_sums` of NHWC, of so many images at a time that there is memory for copies of them."""
    images = max(1, COPIED_BYTES // (conv.itemsize * (prod(conv.image_shape[1:]) + prod(conv.output_shape[1:]))))
    return sum(filter_sums(conv, _channels_together(x[n:n + images]), _channels_together(dy[n:n + images]), with_taps)
               for n in range(0, len(dy), images))


def filter_sums(conv, x, dy, bint with_taps):
    """Sums of dy * x for each tap, and of dy alone, which do not depend on the taps: (F, KH * KW + 1) or (F, 1)."""
    cdef Problem problem = problem_of(conv, False, can_be_adjacent(conv))
    cdef View x_view = View(x), dy_view = View(dy)
    cdef Sums job = sums_of(conv, problem, dy.shape[0])
    cdef Depthwise d = problem.on(x_view, dy_view)
    cdef Taps taps = problem.d.taps[0]
    cdef int workers = thread_count()
    cdef Memory scratch = Memory(workers * job.scratch_bytes), sums = Memory(job.slices * job.groups * job.sums_bytes)
    if not with_taps:
        taps.KH = taps.KW = d.all_taps = 0
    d.taps = &taps
    job.d, job.scratch, job.sums = &d, scratch.data, sums.data
    count, lanes = taps.KH * taps.KW + 1, job.kernels.lanes
    totals = []
    while job.first_group < problem.d.groups:
        job.groups = min(job.groups, problem.d.groups - job.first_group)
        memset(sums.data, 0, sums.size)
        run(sums_chunk, &job, job.slices * job.groups, workers)
        parts = sums.numbers(conv.dtype)[:job.slices * job.groups * job.sums_bytes // conv.itemsize]
        parts = parts.reshape(job.slices, job.groups, -1).sum(axis=0, dtype=np.float64)
        if problem.d.by_channels:
            parts = parts[:, :problem.d.vectors * count * lanes].reshape(-1, count, lanes).transpose(0, 2, 1)
        else:
            parts = parts[:, :problem.d.filters * count * lanes].reshape(-1, count, lanes).sum(axis=2)
        totals.append(parts.reshape(-1, count))
        job.first_group += job.groups
    return problem.from_lanes(np.concatenate(totals))


def gradients(conv, x, w, dy, dx, dw, db):
    """Set dx and add to dw and db (those that are not None) what dy contributes."""
    if dx is not None:
        input_gradient(conv, dy, w, np.zeros(conv.C, conv.dtype), False, dx)
    if not dy.shape[0] or dw is None and db is None:
        return
    sums_of_filters = _sums_of_adjacent if can_be_adjacent(conv) else filter_sums
    sums = sums_of_filters(conv, dy if dw is None else x, dy, dw is not None)
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
    cdef Sums job = sums_of(conv, problem_of(conv, False, can_be_adjacent(conv)), conv.N)
    weights = conv.F * conv.window.h.kernel * conv.window.w.kernel
    totals = (weights + conv.F) * 8
    reduced = job.slices * job.groups * job.sums_bytes
    return thread_count() * _scratch_bytes(conv) + max(weights * conv.itemsize, 3 * reduced + 2 * totals)
