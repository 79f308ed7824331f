"""Sums over planes and scaling of planes: what batch and group normalisation are made of.

A plane is one channel of one image, x[n, c]. Statistics of a batch, a channel or a group are put together from those of
its planes by cnnfast/norm.py, after Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing
sample variances", 1979: a plane's squares are taken around its own mean, so that a large mean costs no digits. All sums
are in double; arrays are strided views in the order N, C, H, W.
"""

from cpython.exc cimport PyErr_CheckSignals
from cython cimport floating

from interrupt cimport polled


def moments(const floating[:, :, :, :] x, double[:, :] mean, double[:, :] squares):
    """Mean of each plane, and the sum of the squared distances from it."""
    cdef Py_ssize_t n, c
    for n in range(x.shape[0]):
        with nogil:
            for c in range(x.shape[1]):
                _moments(x[n, c], &mean[n, c], &squares[n, c])
        PyErr_CheckSignals()


def scale(const floating[:, :, :, :] x, const double[:, :] center, const double[:, :] factor,
          const double[:, :] shift, floating[:, :, :, :] y):
    """Compute ``y = (x - center) * factor + shift``, with the three numbers of each plane."""
    cdef Py_ssize_t steps = 0, n, c, h, w
    for n in range(x.shape[0]):
        with nogil:
            for c in range(x.shape[1]):
                for h in range(x.shape[2]):
                    for w in range(x.shape[3]):
                        y[n, c, h, w] = <floating>((x[n, c, h, w] - center[n, c]) * factor[n, c] + shift[n, c])
                    steps = polled(steps + x.shape[3])
        PyErr_CheckSignals()


def gradient_sums(const floating[:, :, :, :] dy, const floating[:, :, :, :] x, const double[:, :] center,
                  double[:, :] sums, double[:, :] products):
    """Sum of dy over each plane, and of ``dy * (x - center)``."""
    cdef Py_ssize_t n, c
    for n in range(x.shape[0]):
        with nogil:
            for c in range(x.shape[1]):
                _gradient_sums(dy[n, c], x[n, c], center[n, c], &sums[n, c], &products[n, c])
        PyErr_CheckSignals()


def scale_gradient(const floating[:, :, :, :] dy, const floating[:, :, :, :] x, const double[:, :] center,
                   const double[:, :] dy_factor, const double[:, :] x_factor, const double[:, :] shift,
                   floating[:, :, :, :] dx):
    """Compute ``dx = dy * dy_factor + (x - center) * x_factor + shift``, with the four numbers of each plane."""
    cdef Py_ssize_t steps = 0, n, c, h, w
    for n in range(x.shape[0]):
        with nogil:
            for c in range(x.shape[1]):
                for h in range(x.shape[2]):
                    for w in range(x.shape[3]):
                        dx[n, c, h, w] = <floating>(dy[n, c, h, w] * dy_factor[n, c]
                                                    + (x[n, c, h, w] - center[n, c]) * x_factor[n, c] + shift[n, c])
                    steps = polled(steps + x.shape[3])
        PyErr_CheckSignals()


cdef int _moments(const floating[:, :] x, double* mean, double* squares) except -1 nogil:
    cdef Py_ssize_t steps = 0, h, w
    cdef double total = 0, distance
    for h in range(x.shape[0]):
        for w in range(x.shape[1]):
            total += x[h, w]
        steps = polled(steps + x.shape[1])
    mean[0] = total / (x.shape[0] * x.shape[1])
    total = 0
    for h in range(x.shape[0]):
        for w in range(x.shape[1]):
            distance = x[h, w] - mean[0]
            total += distance * distance
        steps = polled(steps + x.shape[1])
    squares[0] = total


cdef int _gradient_sums(const floating[:, :] dy, const floating[:, :] x, double center, double* total,
                        double* product) except -1 nogil:
    cdef Py_ssize_t steps = 0, h, w
    total[0] = 0
    product[0] = 0
    for h in range(x.shape[0]):
        for w in range(x.shape[1]):
            total[0] += dy[h, w]
            product[0] += dy[h, w] * (x[h, w] - center)
        steps = polled(steps + x.shape[1])
