"""Batch and group normalisation in two passes over the data: sums, and what follows from them for each number.

After Chan, Golub and LeVeque, "Algorithms for computing the sample variance: analysis and recommendations", 1983: sums
are taken of distances from a number near the mean, so that a large mean costs no digits. Images may have any strides.

A set is what shares a row of statistics: all images (batch), or each by itself (group). How a set is cut into pieces,
which are summed by themselves, depends on the shape only, and so do the bits of all results.

    for set, for piece of its pixels, for some channels                 in parallel: simd/norm.h
"""

import numpy as np

from libc.math cimport isfinite, sqrt

from cnnfast._engine cimport View, kernels_for, run, thread_count
from kernels cimport Images, Kernels, Norm, Places

cdef enum:
    PIECE_BYTES = 262144  # of x, computed at a time: some ten microseconds
    MOST_CHANNELS = 256  # at a time, where they lie side by side (simd/norm.h: LINE)
    SAMPLE = 9  # numbers, of which the median is taken to be near the mean

cdef double[2] SMALL = [2.0**-70, 2.0**-520]  # times the largest float32 or float64: its square is not too large


cdef struct Job:
    const Kernels *kernels
    Norm g
    Py_ssize_t sets, pixels, pieces, piece  # pixels of a set, which is cut into so many pieces of so many
    Py_ssize_t blocks, together  # of channels, and how many are in one
    double *sums  # (sets, pieces, channels)
    double *products


cdef Images images_of(View a, bint by_pixels) noexcept:
    cdef bint rows = a.step[3] == 1 and (a.shape[2] == 1 or a.step[2] == a.shape[3])
    cdef bint pixels = a.step[1] == 1 and a.step[3] == a.shape[1] and a.is_regular()
    return Images(a.data, Places(a.shape[2], a.shape[3], a.step[0], a.step[1], a.step[2], a.step[3]),
                  pixels if by_pixels else rows)


cdef void cut(Job *job, View x, View dy, bint by_pixels, Py_ssize_t sets) except *:
    cdef Py_ssize_t C = x.shape[1], image = x.shape[2] * x.shape[3], most = PIECE_BYTES // x.buffer.itemsize
    job.kernels = kernels_for("float32" if x.buffer.itemsize == 4 else "float64")
    job.g.x, job.g.by_pixels, job.g.channels = images_of(x, by_pixels), by_pixels, C
    job.g.dy.data = NULL
    if dy is not None:
        job.g.dy = images_of(dy, by_pixels)
    job.g.image = C if sets > 1 else 0
    job.sets, job.pixels = sets, x.shape[0] * image // sets
    if by_pixels:
        job.together = min(C, MOST_CHANNELS)
        job.piece = min(job.pixels, most // job.together)
    else:  # in the order of memory: cells, channels, and then images if all channels of an image are in one piece
        job.piece = min(image, most)
        job.together = min(C, most // job.piece)
        if job.together == C and job.piece == image:
            job.piece = min(job.pixels, max(1, most // (C * image)) * image)
    job.pieces = (job.pixels + job.piece - 1) // job.piece
    job.blocks = (C + job.together - 1) // job.together


cdef void sums_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    cdef Job *job = <Job *>context
    cdef Py_ssize_t piece = i // job.blocks, c = i % job.blocks * job.together, C = job.g.channels
    cdef Py_ssize_t first = piece // job.pieces * job.pixels, q = piece % job.pieces * job.piece
    job.kernels.norm_sums(&job.g, first + q, first + min(job.pixels, q + job.piece), c, min(C, c + job.together),
                          job.sums + piece * C, job.products + piece * C)


cdef void scale_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    cdef Job *job = <Job *>context
    cdef Py_ssize_t piece = i // job.blocks, c = i % job.blocks * job.together
    cdef Py_ssize_t first = piece // job.pieces * job.pixels, q = piece % job.pieces * job.piece
    job.kernels.norm_scale(&job.g, first + q, first + min(job.pixels, q + job.piece), c,
                           min(job.g.channels, c + job.together))


cdef object sums_of(Job *job):
    """Both sums of each set and channel: (2, sets, channels)."""
    cdef double[:, :, :, ::1] totals
    both = np.zeros((2, job.sets, job.pieces, job.g.channels))
    totals = both
    job.sums, job.products = &totals[0, 0, 0, 0], &totals[1, 0, 0, 0]
    run(sums_chunk, job, job.sets * job.pieces * job.blocks, thread_count())
    return both[:, :, 0] if job.pieces == 1 else both.sum(axis=2)


cdef double near(View x, Py_ssize_t n, Py_ssize_t c) noexcept:
    """The median of some neighbours in the middle of a plane: one that is far off does not make all distances long."""
    cdef Py_ssize_t count = min(SAMPLE, x.shape[3]), i, j
    cdef Py_ssize_t at = (n * x.step[0] + c * x.step[1] + x.shape[2] // 2 * x.step[2]
                          + (x.shape[3] - count) // 2 * x.step[3])
    cdef double[SAMPLE] found
    cdef double number
    for i in range(count):
        number = (<float *>x.data)[at + i * x.step[3]] if x.buffer.itemsize == 4 else (
            <double *>x.data)[at + i * x.step[3]]
        j = i
        while j > 0 and found[j - 1] > number:
            found[j] = found[j - 1]
            j -= 1
        found[j] = number
    return found[count // 2] if isfinite(found[count // 2]) else 0


def statistics(x, bint by_pixels, Py_ssize_t groups, double eps):
    """Mean, biased variance and ``1 / sqrt(variance + eps)`` of the batch, each (1, C); of so many groups, each (N, C)."""
    cdef View view = View(x)
    cdef Py_ssize_t C = view.shape[1], sets = view.shape[0] if groups else 1, of_group = C // groups if groups else 1
    cdef Py_ssize_t s, c, k
    cdef Job job
    cdef double count, sum, product
    found = np.empty((4, sets, C))
    cdef double[:, :, ::1] numbers = found
    cdef double[:, ::1] center = numbers[0], var = numbers[1], inverse_std = numbers[2], unit = numbers[3]
    cdef double[:, :, ::1] totals
    cut(&job, view, None, by_pixels, sets)
    for s in range(sets):
        for c in range(C):
            center[s, c] = center[s, c - 1] if c % of_group else near(view, s, c)
    job.g.center, job.g.unit = &center[0, 0], &unit[0, 0]
    unit[...] = 1
    both = sums_of(&job)
    finite = np.isfinite(both)
    if not finite.all():  # a square may be too large
        finite = finite.all(axis=0).reshape(sets, -1, of_group).all(axis=2).repeat(of_group, axis=1)
        found[3, ~finite] = SMALL[view.buffer.itemsize == 8]
        both = sums_of(&job)
    totals = both
    count = job.pixels * of_group
    for s in range(sets):
        for c in range(0, C, of_group):
            sum = product = 0
            for k in range(c, c + of_group):
                sum += totals[0, s, k]
                product += totals[1, s, k]
            sum /= count
            product = product / count - sum * sum
            if product < 0:
                product = 0
            for k in range(c, c + of_group):
                center[s, k] += sum / unit[s, k]
                var[s, k] = product / unit[s, k] / unit[s, k]
                inverse_std[s, k] = 1 / sqrt(var[s, k] + eps)
    return found[0], found[1], found[2]


def scale(x, bint by_pixels, const double[:, ::1] mean, const double[:, ::1] inverse_std, const double[::1] gamma,
          const double[::1] beta, y):
    """Compute ``y = (x - mean) * inverse_std * gamma + beta``."""
    cdef View x_view = View(x), y_view = View(y)
    cdef double[:, :, ::1] numbers = np.empty((2, mean.shape[0], mean.shape[1]))
    cdef Job job
    cut(&job, x_view, None, by_pixels, mean.shape[0])
    numbers[0], numbers[1] = gamma, beta
    job.g.y, job.g.center, job.g.unit = images_of(y_view, by_pixels), &mean[0, 0], &inverse_std[0, 0]
    job.g.factor, job.g.shift = &numbers[0, 0, 0], &numbers[1, 0, 0]
    run(scale_chunk, &job, job.sets * job.pieces * job.blocks, thread_count())


def gradients(dy, x, bint by_pixels, Py_ssize_t groups, const double[:, ::1] mean, const double[:, ::1] inverse_std,
              const double[::1] gamma, dx):
    """Fill dx; return dgamma and dbeta, in double.

    ``dx = inverse_std * (gamma * dy - mean(gamma * dy) - x_hat * mean(gamma * dy * x_hat))``
    """
    cdef View x_view = View(x), dy_view = View(dy), dx_view = View(dx)
    cdef Py_ssize_t sets = mean.shape[0], C = mean.shape[1], of_group = C // groups if groups else 1, s, c, k
    cdef double[:, :, ::1] numbers = np.empty((3, sets, C)), totals
    cdef double[:, ::1] factor = numbers[0], shift = numbers[1], dy_factor = numbers[2]
    cdef double count, sum, product
    cdef Job job
    cut(&job, x_view, dy_view, by_pixels, sets)
    job.g.center, job.g.unit = &mean[0, 0], &inverse_std[0, 0]
    both = sums_of(&job)
    totals = both
    count = job.pixels * of_group
    for s in range(sets):
        for c in range(0, C, of_group):
            sum = product = 0
            for k in range(c, c + of_group):
                sum += gamma[k] * totals[0, s, k]
                product += gamma[k] * totals[1, s, k]
            for k in range(c, c + of_group):
                factor[s, k] = -inverse_std[s, k] * product / count
                shift[s, k] = -inverse_std[s, k] * sum / count
                dy_factor[s, k] = inverse_std[s, k] * gamma[k]
    job.g.y = images_of(dx_view, by_pixels)
    job.g.factor, job.g.shift, job.g.dy_factor = &factor[0, 0], &shift[0, 0], &dy_factor[0, 0]
    run(scale_chunk, &job, job.sets * job.pieces * job.blocks, thread_count())
    both = both.sum(axis=1)
    return both[1], both[0]
