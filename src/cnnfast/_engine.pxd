# The C face of cnnfast._engine, found by that name from the other compiled modules; engine.pyx says what it is.

from kernels cimport Kernels

cdef enum:
    LINE = 64  # bytes of a cache line
    SAME_SET = 4096  # bytes: what lies so far apart shares a set of the first cache,
    WAYS = 8  # which holds so many lines

ctypedef void (*Chunk)(void *context, Py_ssize_t i, int thread) noexcept nogil

cdef const Kernels *kernels_for(dtype) except NULL
cdef int thread_count() noexcept
cdef int run(Chunk chunk, void *job, Py_ssize_t count, int workers) except -1

cdef inline Py_ssize_t up(Py_ssize_t n, Py_ssize_t step) noexcept nogil:
    """n rounded up to a multiple of step."""
    return (n + step - 1) // step * step

cdef inline Py_ssize_t rows_to_pack(Py_ssize_t width, Py_ssize_t row, Py_ssize_t column) noexcept nogil:
    """Rows of weights that are packed together: a panel; 64 where rows are closer than columns, to read whole lines."""
    return max(64 // width, 1) * width if row < column else width

cdef inline bint waits_for_vectors(const Kernels *kernels, Py_ssize_t item) noexcept nogil:
    """Whether a tile is a line wide: its rows have too few products to hide loads of vectors that straddle lines."""
    return kernels.NR * item <= LINE

cdef inline bint push_each_other_out(Py_ssize_t count, Py_ssize_t step) noexcept nogil:
    """Whether so many vectors, so many bytes apart, share a few sets of the first cache, which hold half of them."""
    cdef Py_ssize_t apart = min(step & -step, SAME_SET)  # as far as sets can tell
    return apart >= SAME_SET // 4 and count * apart >= 2 * WAYS * SAME_SET

cdef class View:
    cdef Py_buffer buffer
    cdef char *data
    cdef Py_ssize_t[4] shape
    cdef Py_ssize_t[4] step

    cdef bint is_regular(self)

cdef class Memory:
    cdef void *block
    cdef char *data
    cdef Py_ssize_t size

    cdef object numbers(self, dtype)
