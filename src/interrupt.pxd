# Ctrl-C within loops that run without the GIL: how the kernels stay interruptible, however large one plane is.

from cpython.exc cimport PyErr_CheckSignals

cdef enum:
    STEPS = 1 << 22  # between two looks: some milliseconds


cdef inline Py_ssize_t polled(Py_ssize_t steps) except -1 nogil:
    """Look for Ctrl-C once in so many steps; what is returned counts on from there: `steps = polled(steps + 1)`."""
    if 0 <= steps < STEPS:
        return steps
    with gil:
        PyErr_CheckSignals()
    return 0
