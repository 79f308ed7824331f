"""Batch and group normalisation in two passes over the data: sums, and what follows from them for each number.

After Chan, Golub and LeVeque, "Algorithms for computing the sample variance: analysis and recommendations", 1983: sums
are taken of distances from a number near the mean, so that a large mean costs no digits. Images may have any strides.

A set is what shares a row of statistics: all images (batch), or each by itself (group). How a set is cut into pieces,
which are summed by themselves, depends on the shape only, and so do the bits of all results.

    in passes      for set, for piece of its pixels, for some channels        in parallel: simd/norm.h
    part by part   for set, for some groups of channels                       in parallel
                     for pass, for piece, for some channels                   in the second-level cache

The second is for sets of which each thread gets some. Both make the same sums.
"""

import numpy as np

from libc.math cimport isfinite, sqrt
from libc.string cimport memset

from cnnfast._engine cimport Memory, View, kernels_for, run, thread_count
from kernels cimport Images, Kernels, Norm, Places

cdef enum:
    PIECE_BYTES = 262144  # of x, computed at a time: some ten microseconds
    LINE_BYTES = 256  # of channels at a time, where they lie side by side (simd/norm.h: LINE)
    PART_BYTES = 262144  # of all arrays, in which a part is computed: beside others in a second-level cache
    MOST_PART_BYTES = 4194304  # where a group is larger: below a millisecond
    PARTS = 4  # at least for each thread, which then have about as much to do
    VECTORS = 5  # of numbers that belong to channels: center, unit, factor, shift, dy_factor
    SAMPLE = 9  # numbers, three times three, of which one is taken to be near the mean

cdef double[2] SMALL = [2.0**-70, 2.0**-520]  # times the largest float32 or float64: its square is not too large


cdef struct Job:
    const Kernels *kernels
    Norm g
    Py_ssize_t itemsize
    Py_ssize_t sets, pixels, pieces, piece  # pixels of a set, which is cut into so many pieces of so many
    Py_ssize_t blocks, together  # of channels, and how many are in one
    Py_ssize_t groups, of_group  # with statistics of their own in each set, and the channels of one
    Py_ssize_t parts, part  # of each set, and the channels of one; none: in passes
    double eps
    double *gamma  # (C,), and so is beta
    double *beta
    double *mean  # (sets, groups), and so are var and inverse_std
    double *var
    double *inverse_std
    double *totals  # (sets, 2, C): sums for dbeta and dgamma; NULL: forward
    double *rows  # one for each set, or part by part for each thread: VECTORS, and both sums of each piece
    Py_ssize_t row


cdef Images images_of(View a, bint by_pixels) noexcept:
    cdef bint rows = a.step[3] == 1 and (a.shape[2] == 1 or a.step[2] == a.shape[3])
    cdef bint pixels = a.step[1] == 1 and a.step[3] == a.shape[1] and a.is_regular()
    return Images(a.data, Places(a.shape[2], a.shape[3], a.step[0], a.step[1], a.step[2], a.step[3]),
                  pixels if by_pixels else rows)


cdef void cut(Job *job, View x, View dy, View y, bint by_pixels, Py_ssize_t sets, Py_ssize_t groups) except *:
    cdef Py_ssize_t C = x.shape[1], image = x.shape[2] * x.shape[3], most = PIECE_BYTES // x.buffer.itemsize, group
    job.kernels = kernels_for("float32" if x.buffer.itemsize == 4 else "float64")
    job.g.x, job.g.y, job.g.by_pixels, job.g.channels = images_of(x, by_pixels), images_of(y, by_pixels), by_pixels, C
    job.itemsize = x.buffer.itemsize
    job.g.dy.data, job.g.shared = NULL, 1
    if dy is not None:
        job.g.dy = images_of(dy, by_pixels)
    job.sets, job.pixels, job.groups, job.of_group = sets, x.shape[0] * image // sets, groups, C // groups
    if by_pixels:
        job.together = min(C, LINE_BYTES // x.buffer.itemsize)
        job.piece = min(job.pixels, most // job.together)
    else:  # in the order of memory: cells, channels, and then images if all channels of an image are in one piece
        job.piece = min(image, most)
        job.together = min(C, most // job.piece)
        if job.together == C and job.piece == image:
            job.piece = min(job.pixels, max(1, most // (C * image)) * image)
        if job.together >= job.of_group and job.piece >= image:  # their planes are summed as one
            job.together -= job.together % job.of_group
            job.g.shared = job.of_group
    job.pieces = (job.pixels + job.piece - 1) // job.piece
    job.blocks = (C + job.together - 1) // job.together
    group = job.pixels * job.of_group * x.buffer.itemsize * (2 if dy is None else 3)
    job.part = C if by_pixels or job.pixels > image else min(groups, max(1, PART_BYTES // group)) * job.of_group
    job.parts = (C + job.part - 1) // job.part
    if job.part // job.of_group * group > MOST_PART_BYTES or (
            sets * job.parts < PARTS * thread_count() > PARTS and job.pieces * job.blocks * sets > 1):
        job.parts = 0


cdef inline double number_at(const void *data, Py_ssize_t itemsize, Py_ssize_t i) noexcept nogil:
    return (<const float *>data)[i] if itemsize == sizeof(float) else (<const double *>data)[i]


cdef void in_double(View vector, double *numbers) noexcept:
    cdef Py_ssize_t i
    for i in range(vector.shape[0]):
        numbers[i] = number_at(vector.data, vector.buffer.itemsize, i * vector.step[0])


cdef double near(const Job *job, Py_ssize_t n, Py_ssize_t c) noexcept nogil:
    """The median of medians of neighbours in the middle of a plane: one far off does not make all distances long."""
    cdef Places p = job.g.x.at
    cdef Py_ssize_t count = min(SAMPLE, p.columns), i, j = 0
    cdef Py_ssize_t at = (n * p.image + c * p.channel + p.rows // 2 * p.row + (p.columns - count) // 2 * p.cell)
    cdef double[SAMPLE] found
    cdef double number
    for i in range(SAMPLE):
        found[i] = number_at(job.g.x.data, job.itemsize, at + j * p.cell)
        j = j + 1 if j + 1 < count else 0
    number = median(median(found[0], found[1], found[2]), median(found[3], found[4], found[5]),
                    median(found[6], found[7], found[8]))
    return number if isfinite(number) else 0


cdef inline double median(double a, double b, double c) noexcept nogil:
    return max(min(a, b), min(max(a, b), c))


cdef double lack(const Job *job, double center) noexcept nogil:
    """What ``x - center`` lacks because float32 rounds the center."""
    return (<float>center if job.itemsize == sizeof(float) else center) - center


cdef inline double or_nothing(double number) noexcept nogil:
    return number if number - number == 0 else 0  # it is finite


cdef Memory memory_for(Job *job):
    """Room for rows, gamma and beta, and the numbers of this job that lie there."""
    cdef Py_ssize_t C = job.g.channels, rows = thread_count() if job.parts else job.sets
    job.row = (VECTORS + 2 * job.pieces) * C
    cdef Memory memory = Memory((rows * job.row + 2 * C) * sizeof(double))
    job.gamma = <double *>memory.data
    job.beta, job.rows = job.gamma + C, job.gamma + 2 * C
    job.g = with_row(job, job.rows)
    job.g.image = job.row if job.sets > 1 else 0
    return memory


cdef Norm with_row(const Job *job, const double *row) noexcept nogil:
    """What the kernels need, with the numbers of a row."""
    cdef Norm g = job.g
    cdef Py_ssize_t C = g.channels
    g.image = 0
    g.center, g.unit, g.factor, g.shift, g.dy_factor = row, row + C, row + 2 * C, row + 3 * C, row + 4 * C
    return g


cdef void prepare(const Job *job, Py_ssize_t s, Py_ssize_t c0, Py_ssize_t c1, double *row) noexcept nogil:
    """Of what distances are taken in the sums of some groups, and how long they count."""
    cdef Py_ssize_t C = job.g.channels, group, k
    cdef double center, unit
    for group in range(c0 // job.of_group, c1 // job.of_group):
        if job.totals:
            center, unit = job.mean[s * job.groups + group], job.inverse_std[s * job.groups + group]
        else:
            center, unit = near(job, s, group * job.of_group), 1
        for k in range(group * job.of_group, (group + 1) * job.of_group):
            row[k], row[C + k] = center, unit
    clear(job, c0, c1, row)


cdef void clear(const Job *job, Py_ssize_t c0, Py_ssize_t c1, double *row) noexcept nogil:
    cdef Py_ssize_t C = job.g.channels, i
    for i in range(VECTORS, VECTORS + 2 * job.pieces):
        memset(row + i * C + c0, 0, (c1 - c0) * sizeof(double))


cdef void gather(const Job *job, Py_ssize_t c0, Py_ssize_t c1, double *row) noexcept nogil:
    """Add the sums of all pieces to those of the first."""
    cdef Py_ssize_t C = job.g.channels, piece, c
    cdef double *sums = row + VECTORS * C
    for piece in range(1, job.pieces):
        for c in range(c0, c1):
            sums[c] += sums[2 * piece * C + c]
            sums[C + c] += sums[(2 * piece + 1) * C + c]


cdef bint overflows(const Job *job, Py_ssize_t c0, Py_ssize_t c1, double *row) noexcept nogil:
    """Whether a square was too large, in which case the distances of its group count less from now on."""
    cdef Py_ssize_t C = job.g.channels, group, k
    cdef double *sums = row + VECTORS * C
    cdef bint finite, found = False
    if job.totals:
        return False
    for group in range(c0 // job.of_group, c1 // job.of_group):
        finite = True
        for k in range(group * job.of_group, (group + 1) * job.of_group):
            finite &= isfinite(sums[k]) and isfinite(sums[C + k])
        if not finite:
            found = True
            for k in range(group * job.of_group, (group + 1) * job.of_group):
                row[C + k] = SMALL[job.itemsize == sizeof(double)]
    return found


cdef void conclude(const Job *job, Py_ssize_t s, Py_ssize_t c0, Py_ssize_t c1, double *row) noexcept nogil:
    """What follows from the sums of some groups: statistics or totals, and the numbers for the second pass."""
    cdef Py_ssize_t C = job.g.channels, group, c, k, i
    cdef const double *gamma = job.gamma
    cdef double *centers = row
    cdef double *units = row + C
    cdef double *shifts = row + 3 * C
    cdef double *sums = row + VECTORS * C
    cdef double *products = sums + C
    cdef double count = <double>job.pixels * job.of_group, sum, product, center, unit, factor, shift, lacking
    for group in range(c0 // job.of_group, c1 // job.of_group):
        i, c = s * job.groups + group, group * job.of_group
        sum = product = 0
        center, unit = centers[c], units[c]
        if job.totals:
            lacking = lack(job, center)
            for k in range(c, c + job.of_group):
                products[k] += or_nothing(lacking * unit * sums[k])
                sum += gamma[k] * sums[k]
                product += gamma[k] * products[k]
            factor = -unit * product / count
            shift = or_nothing(lacking * unit * factor) - unit * sum / count
            for k in range(c, c + job.of_group):
                job.totals[2 * s * C + k], job.totals[(2 * s + 1) * C + k] = sums[k], products[k]
                row[2 * C + k], shifts[k], row[4 * C + k] = factor, shift, unit * gamma[k]
        else:
            for k in range(c, c + job.of_group):
                sum += sums[k]
                product += products[k]
            sum /= count
            product = product / count - sum * sum
            job.mean[i] = center = center + sum / unit
            job.var[i] = (product if not product < 0 else 0) / unit / unit
            job.inverse_std[i] = factor = 1 / sqrt(job.var[i] + job.eps)
            lacking = lack(job, center)
            for k in range(c, c + job.of_group):
                unit = factor * gamma[k]
                centers[k], units[k], shifts[k] = center, unit, job.beta[k] + or_nothing(lacking * unit)


cdef void sums_of(const Job *job, const Norm *g, Py_ssize_t s, Py_ssize_t piece, Py_ssize_t c0, Py_ssize_t c1,
                  double *row) noexcept nogil:
    cdef double *sums = row + (VECTORS + 2 * piece) * g.channels
    cdef Py_ssize_t first = s * job.pixels, q = piece * job.piece
    job.kernels.norm_sums(g, first + q, first + min(job.pixels, q + job.piece), c0, c1, sums, sums + g.channels)


cdef void scale(const Job *job, const Norm *g, Py_ssize_t s, Py_ssize_t piece, Py_ssize_t c0,
                Py_ssize_t c1) noexcept nogil:
    cdef Py_ssize_t first = s * job.pixels, q = piece * job.piece
    job.kernels.norm_scale(g, first + q, first + min(job.pixels, q + job.piece), c0, c1)


cdef void sums_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    cdef Job *job = <Job *>context
    cdef Py_ssize_t piece = i // job.blocks, c = i % job.blocks * job.together, s = piece // job.pieces
    sums_of(job, &job.g, s, piece % job.pieces, c, min(job.g.channels, c + job.together), job.rows + s * job.row)


cdef void scale_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    """The last chunk first, which the sums have left in a cache."""
    cdef Job *job = <Job *>context
    cdef Py_ssize_t last = job.sets * job.pieces * job.blocks - 1
    cdef Py_ssize_t piece = (last - i) // job.blocks, c = (last - i) % job.blocks * job.together
    scale(job, &job.g, piece // job.pieces, piece % job.pieces, c, min(job.g.channels, c + job.together))


cdef void all_sums(const Job *job, const Norm *g, Py_ssize_t s, Py_ssize_t c0, Py_ssize_t c1,
                   double *row) noexcept nogil:
    cdef Py_ssize_t piece, c
    for piece in range(job.pieces):
        c = c0
        while c < c1:
            sums_of(job, g, s, piece, c, min(c1, c + job.together), row)
            c += job.together
    gather(job, c0, c1, row)


cdef void part_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    cdef Job *job = <Job *>context
    cdef Py_ssize_t s = i // job.parts, c0 = i % job.parts * job.part, c1 = min(job.g.channels, c0 + job.part), piece, c
    cdef double *row = job.rows + thread * job.row
    cdef Norm g = with_row(job, row)
    prepare(job, s, c0, c1, row)
    all_sums(job, &g, s, c0, c1, row)
    if overflows(job, c0, c1, row):
        clear(job, c0, c1, row)
        all_sums(job, &g, s, c0, c1, row)
    conclude(job, s, c0, c1, row)
    for piece in range(job.pieces):
        c = c0
        while c < c1:
            scale(job, &g, s, piece, c, min(c1, c + job.together))
            c += job.together


cdef void in_passes(Job *job) except *:
    cdef Py_ssize_t C = job.g.channels, chunks = job.sets * job.pieces * job.blocks, s
    cdef bint again = False
    for s in range(job.sets):
        prepare(job, s, 0, C, job.rows + s * job.row)
    run(sums_chunk, job, chunks, thread_count())
    for s in range(job.sets):
        gather(job, 0, C, job.rows + s * job.row)
        again |= overflows(job, 0, C, job.rows + s * job.row)
    if again:
        for s in range(job.sets):
            clear(job, 0, C, job.rows + s * job.row)
        run(sums_chunk, job, chunks, thread_count())
        for s in range(job.sets):
            gather(job, 0, C, job.rows + s * job.row)
    for s in range(job.sets):
        conclude(job, s, 0, C, job.rows + s * job.row)
    run(scale_chunk, job, chunks, thread_count())


cdef void do(Job *job) except *:
    if job.parts:
        run(part_chunk, job, job.sets * job.parts, thread_count())
    else:
        in_passes(job)


def inference(x, bint by_pixels, gamma, beta, mean, var, double eps, y):
    """Compute ``y = gamma * (x - mean) / sqrt(var + eps) + beta``."""
    cdef View x_view = View(x), y_view = View(y)
    cdef Py_ssize_t C = x_view.shape[1], c
    cdef Job job
    cut(&job, x_view, None, y_view, by_pixels, 1, C)
    cdef Memory memory = memory_for(&job)
    in_double(View(gamma), job.gamma)
    in_double(View(mean), job.rows)
    in_double(View(var), job.rows + C)
    in_double(View(beta), job.rows + 3 * C)
    for c in range(C):
        job.rows[C + c] = job.gamma[c] / sqrt(job.rows[C + c] + eps)
    run(scale_chunk, &job, job.pieces * job.blocks, thread_count())


def forward(x, bint by_pixels, Py_ssize_t groups, gamma, beta, double eps, y):
    """Compute y; return mean, biased variance and ``1 / sqrt(variance + eps)`` of what is normalised together.

    They are of the batch, each (1, C), or of so many groups of each image, each (N, groups).
    """
    cdef View x_view = View(x), y_view = View(y)
    cdef Py_ssize_t sets = x_view.shape[0] if groups else 1
    cdef Job job
    cut(&job, x_view, None, y_view, by_pixels, sets, groups or x_view.shape[1])
    cdef Memory memory = memory_for(&job)
    in_double(View(gamma), job.gamma)
    in_double(View(beta), job.beta)
    found = np.empty((3, sets, job.groups))
    cdef View numbers = View(found)
    job.eps, job.totals, job.mean = eps, NULL, <double *>numbers.data
    job.var, job.inverse_std = job.mean + sets * job.groups, job.mean + 2 * sets * job.groups
    do(&job)
    return found[0], found[1], found[2]


def gradients(dy, x, bint by_pixels, const double[:, ::1] mean, const double[:, ::1] inverse_std, gamma, dx, dgamma,
              dbeta):
    """Fill dx, dgamma and dbeta.

    ``dx = inverse_std * (gamma * dy - mean(gamma * dy) - x_hat * mean(gamma * dy * x_hat))``
    """
    cdef View x_view = View(x), dy_view = View(dy), dx_view = View(dx), sums = View(dbeta), products = View(dgamma)
    cdef Py_ssize_t sets = mean.shape[0], C = x_view.shape[1], s, i
    cdef Job job
    cut(&job, x_view, dy_view, dx_view, by_pixels, sets, mean.shape[1])
    cdef Memory memory = memory_for(&job), totals = Memory(2 * sets * C * sizeof(double))
    in_double(View(gamma), job.gamma)
    job.totals, job.mean, job.inverse_std = <double *>totals.data, <double *>&mean[0, 0], <double *>&inverse_std[0, 0]
    do(&job)
    for s in range(1, sets):
        for i in range(2 * C):
            job.totals[i] += job.totals[2 * s * C + i]
    for i in range(C):
        put(sums, i, job.totals[i])
        put(products, i, job.totals[C + i])


def update(running, new, double momentum, double factor):
    """Compute ``running += momentum * (factor * new - running)``."""
    cdef View old = View(running), numbers = View(new)
    cdef Py_ssize_t i
    cdef double number
    for i in range(old.shape[0]):
        number = number_at(old.data, old.buffer.itemsize, i * old.step[0])
        put(old, i, number + momentum * (factor * (<double *>numbers.data)[i * numbers.step[0]] - number))


cdef inline void put(View vector, Py_ssize_t i, double number) noexcept:
    if vector.buffer.itemsize == sizeof(float):
        (<float *>vector.data)[i * vector.step[0]] = <float>number
    else:
        (<double *>vector.data)[i * vector.step[0]] = number
