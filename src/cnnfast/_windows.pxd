# The C face of cnnfast._windows, found by that name from the other compiled modules; windows.pyx says what it is.

from cnnfast._engine cimport View
from kernels cimport Padded, Run

cdef struct Cut:
    Py_ssize_t N, rows, columns  # images, and rows and columns of outputs in each
    Py_ssize_t outputs  # of a run, at most
    Py_ssize_t runs_of_row  # that a row is cut into; 0 where runs go on from row to row
    Py_ssize_t runs  # in all

cdef void cut_outputs(Cut *cut, shape, Py_ssize_t outputs)


cdef inline Run run_from(const Cut *cut, Py_ssize_t q, Py_ssize_t end) noexcept nogil:
    """The run that begins with output q, and ends before output `end` at the latest."""
    cdef Py_ssize_t row = q // cut.columns, column = q % cut.columns, count = min(cut.outputs, end - q)
    if cut.runs_of_row:
        count = min(count, cut.columns - column)
        return Run(row // cut.rows, row % cut.rows, column, count, column, count)
    return Run(row // cut.rows, row % cut.rows, column, count, 0, cut.columns)


cdef inline Run run_of(const Cut *cut, Py_ssize_t i) noexcept nogil:
    """Run i of all."""
    cdef Py_ssize_t q = i * cut.outputs
    if cut.runs_of_row:
        q = i // cut.runs_of_row * cut.columns + i % cut.runs_of_row * cut.outputs
    return run_from(cut, q, cut.N * cut.rows * cut.columns)


cdef inline Py_ssize_t first_of(const Cut *cut, const Run *run) noexcept nogil:
    """Number of a run's first output among all."""
    return (run.image * cut.rows + run.row) * cut.columns + run.column


cdef inline bint is_in_one_image(const Cut *cut, const Run *run) noexcept nogil:
    return run.row * cut.columns + run.column + run.count <= cut.rows * cut.columns


cdef inline void set_places(const Padded *g, const Run *run, Py_ssize_t size, Py_ssize_t *place) noexcept nogil:
    """Where each output of a run sees its cell through a tap at offset 0, in padded pixels of so many channels."""
    cdef Py_ssize_t j = run.column - run.first, i = 0, slot = 0, q
    for q in range(run.count):
        place[q] = (slot * g.width + j * g.step_w) * size
        j += 1
        if j == run.columns:
            j = 0
            i += 1
            slot += g.step_h if (run.row + i) % g.rows else 1 + g.span_h


cdef class Sight:
    cdef Padded g
    cdef bint one_to_one  # output q sees cell q and no other
    cdef bint padded  # some output sees something outside of the image
    cdef readonly list taps  # indices (kh, kw) of the taps, in the order of their offsets
    cdef Py_ssize_t[::1] table

    cdef void set_size(self, const Cut *cut)
    cdef Padded on(self, View x)
