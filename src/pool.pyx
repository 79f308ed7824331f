"""Max, average and global pooling with vectors: windows are taken together along rows, then along columns.

Valid for every window that finds room in the scratch: all but those of hundreds of rows and columns.

A region of outputs is computed from a copy of the cells that it sees (simd/pool.h), whose lanes are columns of a plane,
or neighbouring channels where x has them side by side. A window as large as the image is a reduction of each plane.

For the backward pass of a maximum, forward leaves its place in the window, a byte an output (or, in windows of more than
256 cells, 8 bytes: its place in the plane), so that the gradient needs to read dy and these bytes, and not x again: it
is scattered to dx, or gathered by the cells of dx where windows are small and channels lie side by side, or windows of
planes are one cell apart (simd/overlaps.h). Windows of 2 x 2 cells side by side leave nothing: their maxima are found
again in x, in one pass that writes each cell of dx once. The gradient of an average is gathered, each cell of dx being
written once.

    for chunk of regions (or of planes)                                   in parallel; depends on the problem only
      for region                                                          copied: the first or second cache
        for vector, for tap of a row; for vector, for tap of a column     registers
"""

from functools import lru_cache
from itertools import accumulate

import numpy as np

from libc.stdint cimport int64_t
from libc.string cimport memset

from cnnfast._engine cimport Chunk, Memory, View, kernels_for, run, thread_count, up
from geometry cimport Axis, axis_of, taps_that_count
from kernels cimport MOST_BYTE, TAKE_MAX, TAKE_PLACE, TAKE_SUM, TIES_ALL, TIES_FIRST, TIES_SPLIT
from kernels cimport Kernels, Places, Pool, Slide

cdef enum:
    MANY_TAPS = 16  # in a row or column for each step of the stride: from here on doubling is faster
    FEW_TAPS = 9  # of a window that is taken at once: no slower than its rows first, where windows share them
    LONG_ROW = 64  # outputs side by side: a copy costs more than their ends, which see padding and are made one by one
    LINE_BYTES = 8192  # of the lines that are filled and taken together at a time
    PLANE_BYTES = 32768  # of a region's scratch: the first cache
    CHANNELS_BYTES = 131072  # of one with lanes of channels, of which it needs many cells: the second cache
    MOST_WIDTH = 64  # channels of a cell
    MANY_CHANNELS = 16  # of a pixel: numbers that are a vector, whatever the instruction set
    MOST_SCRATCH = 8388608  # bytes of the smallest region
    MOST_WORKSPACE = 50331648  # bytes of all threads' scratch, or else there are fewer threads
    CHUNK_BYTES = 262144  # read and written in a chunk: some ten microseconds
    SLICE = 1048576  # cells of a plane whose maximum or sum is one chunk's
    OUTPUTS_AT_ONCE = 4194304  # of a plane, scattered before Ctrl-C is looked at

MOST_PROBLEMS = 256  # whose geometry is kept


# ------------------------------------------------------------------------------------------------------- geometry

def _evenly(all, most):
    """Size of the blocks that so many are cut into, none larger than `most`."""
    return -(-all // -(-all // max(1, most)))


cdef Slide slide_of(axis):
    """One axis. The stride of a single window means nothing, and is taken to be no longer than the image."""
    stride = axis.stride if axis.output > 1 else min(axis.stride, axis.size + axis.pad_before)
    return Slide(axis.size, axis.kernel, axis.output, stride, axis.pad_before, axis.dilation, axis.reach,
                 0, axis.output, 1, 1, 0)


cdef Places places_of(View v) noexcept:
    return Places(v.shape[2], v.shape[3], v.step[0], v.step[1], v.step[2], v.step[3])


cdef class Problem:
    """A pool of planes, or of C channels side by side, before it sees its arrays."""

    cdef const Kernels *kernels
    cdef Pool p  # without the arrays
    cdef Py_ssize_t itemsize, regions, region_bytes, scratch_bytes
    cdef bint adjacent, dense  # cells of a row of x lie side by side; and rows
    cdef list tables  # memory that p points to

    def __init__(self, window, Py_ssize_t itemsize, Py_ssize_t channels, int take, bint adjacent,
                 bint dense):
        cdef Pool *p = &self.p
        self.kernels, self.itemsize, self.tables = kernels_for("float32" if itemsize == 4 else "float64"), itemsize, []
        p.take, p.h, p.w, p.channels = take, slide_of(window.h), slide_of(window.w), channels
        p.width, self.adjacent, self.dense = _evenly(channels, MOST_WIDTH), adjacent, dense
        self.begin()
        self.cut()
        if self.scratch_bytes > MOST_SCRATCH:
            p.width = 1
            self.begin()
            self.cut()
        p.blocks = (channels + p.width - 1) // p.width
        p.h.blocks = (p.h.all + p.h.block - 1) // p.h.block
        p.w.blocks = (p.w.all + p.w.block - 1) // p.w.block
        self.regions = p.blocks * p.h.blocks * p.w.blocks
        self.region_bytes = itemsize * p.width * p.h.block * p.w.block * (1 + p.h.stride * p.w.stride)

    def set_tables(self, window, bint with_padding):
        """Set what p points to, which `why_not` can do without."""
        self.set_taps()
        if self.p.take == TAKE_SUM:
            self.p.rows, self.p.columns = self.counts(window.h, with_padding), self.counts(window.w, with_padding)
        return self

    cdef int begin(self) except -1:
        """Set what does not depend on the size of regions."""
        raise NotImplementedError

    cdef Py_ssize_t place(self) except -1:
        """Put the parts of the scratch one after the other; return the bytes of all."""
        raise NotImplementedError

    cdef int set_taps(self) except -1:
        """Set where the taps lie in the scratch."""
        raise NotImplementedError

    cdef int cut(self) except -1:
        """Take as many columns and then rows as there is room for, but enough rows that few are looked at twice."""
        cdef Pool *p = &self.p
        cdef Py_ssize_t budget = PLANE_BYTES if p.width == 1 else CHANNELS_BYTES, one, least
        p.h.block, p.w.block = 1, p.w.all
        while self.place() > budget and p.w.block > 1 and p.line * self.itemsize > LINE_BYTES:
            p.w.block = (p.w.block + 1) // 2
        one = self.place()
        p.h.block = 2
        least = (p.h.reach + p.h.stride - 1) // p.h.stride
        p.h.block = _evenly(p.h.all, max(least, (budget - one) // max(1, self.place() - one) + 1))
        if self.place() > MOST_SCRATCH:
            p.h.block = 1
        while self.place() > MOST_SCRATCH and p.w.block > 1:
            p.w.block = (p.w.block + 1) // 2
        self.scratch_bytes = up(self.place(), 64)
        return 0

    cdef const Py_ssize_t *table(self, numbers) except NULL:
        cdef Py_ssize_t[::1] view = np.array([*numbers, 0], np.intp)
        self.tables.append(view)
        return &view[0]

    cdef const double *counts(self, axis, bint with_padding) except NULL:
        """How many taps of each window along an axis count."""
        cdef Axis a = axis_of(axis)
        cdef double[::1] view = np.array([taps_that_count(a, o, with_padding) for o in range(a.output)], np.float64)
        self.tables.append(view)
        return &view[0]


cdef class Forward(Problem):
    """What computes outputs."""

    cdef list residues
    cdef bint tiled  # rows of a plane by their windows, two cells apart, so that all rows are one

    cdef int begin(self) except -1:
        cdef Pool *p = &self.p
        p.doubled_h, p.doubled_w = p.h.kernel > MANY_TAPS * p.h.stride, p.w.kernel > MANY_TAPS * p.w.stride
        self.tiled = p.width == 1 and self.dense and p.w.stride == 2 and p.w.size == 2 * p.w.output and (
            p.w.kernel <= 2 and p.w.dilation == 1 and p.w.before == p.h.before == 0
            and (p.h.output - 1) * p.h.stride + p.h.reach <= p.h.size)
        p.in_place = not p.doubled_w and (self.tiled or self.fills_vectors())
        p.direct = p.in_place and p.width > 1 and (p.h.reach <= p.h.stride or p.h.kernel * p.w.kernel <= FEW_TAPS)
        if p.direct:
            p.width = p.channels
        self.residues = sorted({k * p.w.dilation % p.w.stride for k in range(p.w.kernel)})
        if p.doubled_w:
            self.residues = [0]
        p.phases = len(self.residues)
        return 0

    cdef bint fills_vectors(self) noexcept:
        """Whether rows of x are vectors as they are, and no short ones."""
        cdef Pool *p = &self.p
        cdef Py_ssize_t lanes = self.kernels.lanes
        if p.width == 1:
            return self.adjacent and (p.w.stride == 1 and p.w.output >= LONG_ROW
                                      or p.w.stride == 2 and p.w.dilation == 1 and p.w.output >= 2 * lanes)
        return (p.channels - 1) % p.width + 1 >= lanes

    cdef Py_ssize_t place(self) except -1:
        cdef Pool *p = &self.p
        cdef Py_ssize_t lanes = self.kernels.lanes, divisors = p.w.block * p.width if p.take == TAKE_SUM else 0
        p.h.cells = (p.h.block - 1) * p.h.stride + p.h.reach
        p.w.cells = p.w.block + (p.w.kernel - 1) * p.w.dilation // p.w.stride
        if p.doubled_w:
            p.w.cells = (p.w.block - 1) * p.w.stride + p.w.reach
        p.line = p.w.cells * p.width
        p.group = max(1, min(p.h.cells, LINE_BYTES // (p.line * p.phases * self.itemsize)))
        if p.in_place:
            p.group = p.h.cells if self.tiled and p.w.block == p.w.output else 1
        p.phase = 0 if p.in_place else (p.group + 1) * p.line + lanes
        p.held = p.w.block * p.width if p.doubled_w or p.in_place else p.line
        p.held_at = (p.phases + p.doubled_w) * p.phase
        p.out_at = p.held_at + (0 if p.direct else p.h.cells * p.held) + lanes
        p.divisors_at = p.out_at + (p.h.cells if p.doubled_h else p.h.block) * p.held + lanes
        p.twin = up(p.divisors_at + divisors, lanes)
        return p.twin * self.itemsize * (2 if p.take == TAKE_PLACE else 1)

    cdef int set_taps(self) except -1:
        cdef Pool *p = &self.p
        columns = [k * p.w.dilation for k in range(p.w.kernel)]
        p.residue = self.table(self.residues)
        p.tap_h = self.table(k * p.h.dilation * p.held for k in range(p.h.kernel))
        if p.in_place:
            p.tap_w = self.table(columns)
        elif not p.doubled_w:
            p.tap_w = self.table(self.residues.index(w % p.w.stride) * p.phase + w // p.w.stride * p.width
                                 for w in columns)
        if p.take == TAKE_PLACE:
            p.index = self.table(k * p.h.dilation * p.w.size + w for k in range(p.h.kernel) for w in columns)
        return 0


cdef class Gradient(Problem):
    """What gathers an average's gradient of cells, which are counted in strides and cut into phases."""

    cdef int begin(self) except -1:
        count_strides(&self.p.h)
        count_strides(&self.p.w)
        return 0

    cdef Py_ssize_t place(self) except -1:
        cdef Pool *p = &self.p
        cdef Py_ssize_t lanes = self.kernels.lanes
        p.h.cells = p.h.block + (p.h.kernel - 1) * p.h.dilation // p.h.stride
        p.w.cells = p.w.block + (p.w.kernel - 1) * p.w.dilation // p.w.stride
        p.line = p.w.cells * p.width
        p.phase = up((p.h.block + 1) * p.line + lanes, lanes)
        p.held_at = up((p.h.cells + 1) * p.line + lanes, lanes)
        p.out_at = p.held_at + p.phase
        p.divisors_at = p.out_at + p.w.stride * p.phase
        return (p.divisors_at + p.line) * self.itemsize

    cdef int set_taps(self) except -1:
        cdef Pool *p = &self.p
        self.set_phases(&p.h, p.line, &p.first_h, &p.tap_h)
        self.set_phases(&p.w, p.width, &p.first_w, &p.tap_w)
        return 0

    cdef int set_phases(self, const Slide *s, Py_ssize_t step, const Py_ssize_t **first,
                        const Py_ssize_t **tap) except -1:
        phases = [[] for _ in range(s.stride)]
        for k in range(s.kernel):
            phases[k * s.dilation % s.stride].append(k)
        order = [k for taps in phases for k in taps]
        first[0] = self.table([0, *accumulate(len(taps) for taps in phases)])
        tap[0] = self.table([((s.kernel - 1) * s.dilation // s.stride - k * s.dilation // s.stride) * step
                             for k in order])
        return 0


cdef void count_strides(Slide *s) noexcept:
    """Let regions be cut from the strides that hold cells of the image."""
    s.first = s.before // s.stride
    s.all = (s.before + s.size - 1) // s.stride - s.first + 1


cdef class Scatter(Problem):
    """What scatters the gradient of outputs to rows of cells, of a plane or of all channels; without scratch."""

    def __init__(self, window, Py_ssize_t itemsize, Py_ssize_t channels, int take, bint adjacent,
                 bint dense):
        Problem.__init__(self, window, itemsize, channels, take, adjacent, dense)
        self.region_bytes = itemsize * self.p.width * self.p.h.block * self.p.w.size

    cdef int begin(self) except -1:
        self.p.width, self.p.h.all = self.p.channels, self.p.h.size
        return 0

    cdef int cut(self) except -1:
        cdef Pool *p = &self.p
        p.w.block = p.w.all
        p.h.block = _evenly(p.h.all, max(2 * p.h.reach, CHUNK_BYTES // (p.w.size * p.width * self.itemsize)))
        self.scratch_bytes = 64
        return 0

    cdef int set_taps(self) except -1:
        cdef Pool *p = &self.p
        taps = min(MOST_BYTE, p.h.kernel * p.w.kernel)
        more = [0] * (MOST_BYTE - taps)  # bytes that no forward pass leaves
        p.place_h = self.table([k // p.w.kernel * p.h.dilation for k in range(taps)] + more)
        p.place_w = self.table([k % p.w.kernel * p.w.dilation for k in range(taps)] + more)
        p.index = self.table((p.place_h[k] * p.w.size + p.place_w[k]) * p.width for k in range(MOST_BYTE))
        return 0


cdef class Overlaps(Problem):
    """What gathers the gradient of maxima of windows one cell apart, by planes."""

    cdef int begin(self) except -1:
        self.p.h.all, self.p.w.all = self.p.h.size, self.p.w.size
        return 0

    cdef Py_ssize_t place(self) except -1:
        cdef Pool *p = &self.p
        cdef Py_ssize_t ahead = p.w.reach - 1, rest = ahead + self.kernels.lanes
        p.h.cells = p.h.block + p.h.reach - 1
        p.line = max(p.w.size, p.w.output) if p.w.block == p.w.size else p.w.block + ahead
        p.twin = p.h.cells * p.line + rest
        p.held_at = 3 * p.twin  # of gradients, and their kh and kw
        p.out_at = p.held_at + p.twin + p.h.block * p.line + rest  # of gradients, and their kw
        return (p.out_at + p.h.block * p.line + self.kernels.lanes) * self.itemsize

    cdef int set_taps(self) except -1:
        return 0


cdef class Tiles(Problem):
    """What finds the maxima of 2 x 2 windows again, by pairs of rows of a plane or of all channels; without scratch."""

    cdef int begin(self) except -1:
        self.p.width, self.p.h.all = self.p.channels, (self.p.h.size + 1) // 2
        return 0

    cdef int cut(self) except -1:
        cdef Pool *p = &self.p
        p.w.block = p.w.all
        p.h.block = _evenly(p.h.all, CHUNK_BYTES // (4 * p.w.size * p.width * self.itemsize))
        self.scratch_bytes = 64
        return 0

    cdef int set_taps(self) except -1:
        return 0


@lru_cache(MOST_PROBLEMS)
def _problem(kind, window, itemsize, channels, take, adjacent, dense, with_padding, lanes):
    return kind(window, itemsize, channels, take, adjacent, dense).set_tables(window, with_padding)


cdef Problem problem_of(kind, window, View x, int take, bint with_padding):
    """What is known of a problem, whatever the number of images, for the instruction set in use."""
    cdef Py_ssize_t channels = x.shape[1] if x.step[1] == 1 else 1
    cdef bint adjacent = x.step[3] == 1, dense = adjacent and x.step[2] == x.shape[3]
    return _problem(kind, window, x.buffer.itemsize, channels, take, adjacent, dense, with_padding,
                    kernels_for("float32").lanes)


def why_not(window):
    """Return why this cannot do the pool, or None."""
    cdef Problem forward, gradient
    if is_whole(window):
        return None
    forward, gradient = Forward(window, 8, 1, TAKE_PLACE, 0, 0), Gradient(window, 8, 1, TAKE_SUM, 0, 0)
    if max(forward.scratch_bytes, gradient.scratch_bytes) > MOST_SCRATCH:
        return "the rows that a window sees are too many or too long for the scratch"
    return None


cdef bint is_whole(window) except -1:
    """Whether there is one window, and it is the image."""
    h, w = window
    return (h.output == w.output == 1 and h.pad_before == w.pad_before == 0
            and h.reach == h.kernel == h.size and w.reach == w.kernel == w.size)


cdef bint tiles(window, bint by_pixels, Py_ssize_t channels) except -1:
    """Whether maxima are found again by the backward pass: in windows of 2 x 2 cells side by side, with full vectors."""
    for axis in window:
        if not (axis.kernel == axis.stride == 2 and axis.dilation == 1 and axis.pad_before == 0
                and 2 * axis.output <= axis.size):
            return False
    return not by_pixels or channels >= MANY_CHANNELS


cdef bint overlaps(window, Py_ssize_t lanes) except -1:
    """Whether cells of planes gather the gradient of maxima: windows are one cell apart, and so small that vectors of
    their taps take less time than sums that wait for each other."""
    return (window.h.stride == window.w.stride == 1 and 2 * (window.h.kernel + window.w.kernel) < 3 * lanes
            and not is_whole(window))


def places(window, layout, Py_ssize_t channels):
    """Return the dtype of the places of maxima that forward leaves for the backward pass, or None."""
    if tiles(window, layout == "NHWC", channels) and not is_whole(window):
        return None
    return np.int64 if is_whole(window) or window.h.kernel * window.w.kernel > MOST_BYTE else np.uint8


# -------------------------------------------------------------------------------------------------------- regions

ctypedef void (*Regions)(const Pool *p, Py_ssize_t first, Py_ssize_t end, void *scratch) noexcept nogil

cdef struct Job:
    Regions compute
    Pool p
    Py_ssize_t regions, at_once
    char *scratch
    Py_ssize_t scratch_bytes


cdef void regions_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    cdef Job *job = <Job *>context
    job.compute(&job.p, i * job.at_once, min(job.regions, (i + 1) * job.at_once),
                job.scratch + thread * job.scratch_bytes)


cdef int set_places(Pool *p, View v) except -1:
    """Let p have these places, bytes or indices."""
    p.place_at = places_of(v)
    if v.buffer.itemsize == 1:
        p.bytes = <unsigned char *>v.data
    else:
        p.indices = <int64_t *>v.data
    return 0


cdef int compute(Problem problem, Regions kernel, const Pool *p, View x, View y, View where) except -1:
    """Compute all regions of outputs y, or of cells x."""
    cdef Job job
    cdef int workers = min(thread_count(), max(1, MOST_WORKSPACE // problem.scratch_bytes))
    cdef Memory scratch
    job.compute, job.p = kernel, p[0]
    job.p.x, job.p.y, job.p.x_at, job.p.y_at = x.data, y.data, places_of(x), places_of(y)
    job.p.blocks = (x.shape[1] + p.width - 1) // p.width
    job.p.channels = x.shape[1]
    if where is not None:
        set_places(&job.p, where)
    job.regions = x.shape[0] * job.p.blocks * p.h.blocks * p.w.blocks
    job.at_once = max(1, CHUNK_BYTES // problem.region_bytes)
    workers = min(workers, (job.regions + job.at_once - 1) // job.at_once)
    scratch = Memory(workers * problem.scratch_bytes)
    job.scratch, job.scratch_bytes = scratch.data, problem.scratch_bytes
    return run(regions_chunk, &job, (job.regions + job.at_once - 1) // job.at_once, workers)


def max_pool(window, x_nchw, y_nchw, places_nchw):
    """Take the largest cell of each window, and unless None its places."""
    cdef View x = View(x_nchw), y = View(y_nchw), where = None if places_nchw is None else View(places_nchw)
    cdef Problem problem
    if is_whole(window):
        whole_max(x, y_nchw, places_nchw)
        return
    problem = problem_of(Forward, window, x, TAKE_MAX if where is None else TAKE_PLACE, False)
    compute(problem, problem.kernels.pool, &problem.p, x, y, where)


def avg_pool(window, bint with_padding, layout, x_nchw, y_nchw):
    """Divide the sum of each window by the number of its taps that count, in the same order whatever the strides."""
    cdef View x = View(x_nchw), y = View(y_nchw)
    cdef Problem problem
    if is_whole(window):
        whole_mean(x, layout == "NHWC", y_nchw)
        return
    problem = problem_of(Forward, window, x, TAKE_SUM, with_padding)
    compute(problem, problem.kernels.pool, &problem.p, x, y, None)


def avg_pool_gradient(window, bint with_padding, dy_nchw, dx_nchw):
    """Set every cell of dx to its shares of the gradients of the windows that see it."""
    cdef View dx = View(dx_nchw), dy
    cdef Problem problem
    if is_whole(window):
        whole_mean_gradient(dx, dy_nchw)
        return
    dy = View(dy_nchw)
    problem = problem_of(Gradient, window, dx, TAKE_SUM, with_padding)
    compute(problem, problem.kernels.pool_gradient, &problem.p, dx, dy, None)


TIES = {"first": TIES_FIRST, "all": TIES_ALL, "split": TIES_SPLIT}


def max_pool_gradient(window, x_nchw, dy_nchw, places_nchw, ties, dx_nchw):
    """Set dx, which is contiguous, to each window's gradient, at its first maximum or all cells equal to it."""
    cdef View x = View(x_nchw), dy = View(dy_nchw), dx = View(dx_nchw)
    cdef bint again = tiles(window, dx.step[1] == 1, dx.shape[1]) and not is_whole(window)
    cdef Problem problem = problem_of(Tiles if again else Scatter, window, dx, TAKE_PLACE, False)
    cdef Pool p = problem.p
    cdef Py_ssize_t rows
    p.seen, p.seen_at, p.ties = x.data, places_of(x), TIES[ties]
    if again:
        compute(problem, problem.kernels.pool_tiles, &p, dx, dy, None)
        return
    if p.ties == TIES_FIRST and p.channels == 1 and overlaps(window, problem.kernels.lanes):
        problem = problem_of(Overlaps, window, dx, TAKE_PLACE, False)
        compute(problem, problem.kernels.pool_overlaps, &problem.p, dx, dy, View(places_nchw))
        return
    rows = max(1, OUTPUTS_AT_ONCE // (dy.shape[3] * p.width * (1 if p.ties == TIES_FIRST else window.h.kernel)))
    for first in range(0, dy.shape[2], rows):
        p.row, p.end_row, p.zero = first, min(dy.shape[2], first + rows), first == 0
        compute(problem, problem.kernels.pool_scatter, &p, dx, dy, View(places_nchw))


# --------------------------------------------------------------------------------------------------- whole images

cdef enum:
    MAXIMA
    SUMS
    PIXEL_SUMS
    FILL

cdef struct Whole:
    const Kernels *kernels
    int task
    char *x
    Places at
    Py_ssize_t itemsize, images, channels, together, blocks, cells
    char *values  # of each slice, image and channel: its maximum
    int64_t *places  # and where that is
    double *sums  # or its sum; or of each image and channel the number that it is filled with


cdef void whole_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    """Some channels of an image, over a slice of its cells."""
    cdef Whole *job = <Whole *>context
    cdef Py_ssize_t channel = i % job.blocks * job.together, n = i // job.blocks % job.images
    cdef Py_ssize_t slice = i // job.blocks // job.images, q = slice * SLICE, count = min(SLICE, job.cells - q)
    cdef Py_ssize_t channels = min(job.together, job.channels - channel)
    cdef Py_ssize_t at = (slice * job.images + n) * job.channels + channel
    cdef char *image = job.x + (n * job.at.image + channel * job.at.channel) * job.itemsize
    if job.task == MAXIMA:
        job.kernels.channel_maxima(&job.at, image, q, count, channels, job.values + at * job.itemsize, job.places + at)
    elif job.task != FILL:
        memset(job.sums + at, 0, channels * sizeof(double))
        job.kernels.channel_sums(&job.at, job.task == PIXEL_SUMS, image, q, count, channels, job.sums + at)
    else:
        at = n * job.channels + channel
        job.kernels.channel_fill(&job.at, job.at.channel == 1 and job.channels > 1, image, q, count, channels,
                                 job.values + at * job.itemsize)


cdef Py_ssize_t slices_of(View x) noexcept:
    return (x.shape[2] * x.shape[3] + SLICE - 1) // SLICE


cdef int over_planes(int task, View x, char *values, int64_t *places, double *sums) except -1:
    cdef Whole job
    job.kernels, job.itemsize = kernels_for("float32" if x.buffer.itemsize == 4 else "float64"), x.buffer.itemsize
    job.task, job.x, job.at, job.images, job.channels = task, x.data, places_of(x), x.shape[0], x.shape[1]
    job.cells, job.values, job.places, job.sums = x.shape[2] * x.shape[3], values, places, sums
    job.together = max(1, min(job.channels, CHUNK_BYTES // (min(SLICE, job.cells) * job.itemsize)))
    job.blocks = (job.channels + job.together - 1) // job.together
    return run(whole_chunk, &job, slices_of(x) * job.images * job.blocks, thread_count())


cdef int whole_max(View x, y_nchw, places_nchw) except -1:
    """Take the maximum of each plane, and unless None its place."""
    shape = slices_of(x), x.shape[0], x.shape[1]
    values, where = np.empty(shape, y_nchw.dtype), np.empty(shape, np.int64)
    cdef View value_view = View(values), place_view = View(where)
    over_planes(MAXIMA, x, value_view.data, <int64_t *>place_view.data, NULL)
    best, place = values[0], where[0]
    for value, at in zip(values[1:], where[1:]):
        later = ~(value <= best) & (best == best)
        best, place = np.where(later, value, best), np.where(later, at, place)
    y_nchw[:, :, 0, 0] = best
    if places_nchw is not None:
        places_nchw[:, :, 0, 0] = place
    return 0


cdef int whole_mean(View x, bint by_pixels, y_nchw) except -1:
    """Take the mean of each plane."""
    cdef Py_ssize_t slices = slices_of(x), C = x.shape[1], planes = x.shape[0] * C, i
    cdef Memory memory = Memory(slices * planes * sizeof(double))
    cdef double *sums = <double *>memory.data
    cdef View y = View(y_nchw)
    cdef const Kernels *kernels = kernels_for("float32" if y.buffer.itemsize == 4 else "float64")
    over_planes(PIXEL_SUMS if by_pixels else SUMS, x, NULL, NULL, sums)
    for i in range(planes, slices * planes):
        sums[i % planes] += sums[i]
    for i in range(x.shape[0]):
        kernels.channel_means(sums + i * C, C, x.shape[2] * x.shape[3],
                              y.data + i * y.step[0] * y.buffer.itemsize, y.step[1])
    return 0


cdef int whole_mean_gradient(View dx, dy_nchw) except -1:
    """Fill each plane of dx with its share."""
    shares = np.ascontiguousarray(dy_nchw[:, :, 0, 0] / (dx.shape[2] * dx.shape[3]))
    cdef View view = View(shares)
    return over_planes(FILL, dx, view.data, NULL, NULL)
