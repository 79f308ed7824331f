# How a window slides over one image: the C twin of cnnfast/geometry.py, filled from its tuples.
#
# Tap k of window o looks at cell o*stride + k*dilation - pad_before of an axis. It may lie outside the image, in the
# padding; first_tap and end_tap are the taps that do not, so that no loop needs a test and no loop runs over padding.

cdef struct Axis:
    Py_ssize_t size, kernel, output, stride, pad_before, pad_after, dilation

cdef struct Window:
    Axis h
    Axis w


cdef inline Axis axis_of(axis):
    return Axis(axis.size, axis.kernel, axis.output, axis.stride, axis.pad_before, axis.pad_after, axis.dilation)


cdef inline Window window_of(window):
    return Window(axis_of(window.h), axis_of(window.w))


cdef inline Py_ssize_t start_of(Axis a, Py_ssize_t o) noexcept nogil:
    """Cell under the first tap of window o; negative in the padding."""
    return o * a.stride - a.pad_before


cdef inline Py_ssize_t first_tap(Axis a, Py_ssize_t start) noexcept nogil:
    """Smallest tap at or after cell 0."""
    return 0 if start >= 0 else (-start - 1) // a.dilation + 1


cdef inline Py_ssize_t end_tap(Axis a, Py_ssize_t start) noexcept nogil:
    """One past the last tap before the end of the image."""
    if start >= a.size:
        return 0
    return min(a.kernel, (a.size - 1 - start) // a.dilation + 1)


cdef inline Py_ssize_t taps_that_count(Axis a, Py_ssize_t o, bint with_padding) noexcept nogil:
    """How many taps of window o are in the image, or in it and its padding, but not beyond."""
    cdef Py_ssize_t start = start_of(a, o), room
    if not with_padding:
        return end_tap(a, start) - first_tap(a, start)
    room = a.size + a.pad_after - start
    return 0 if room <= 0 else min(a.kernel, (room - 1) // a.dilation + 1)


cdef inline Py_ssize_t first_window(Axis a, Py_ssize_t k) noexcept nogil:
    """Smallest window whose tap k is at or after cell 0."""
    cdef Py_ssize_t offset = k * a.dilation - a.pad_before
    return 0 if offset >= 0 else min(a.output, (-offset - 1) // a.stride + 1)


cdef inline Py_ssize_t end_window(Axis a, Py_ssize_t k) noexcept nogil:
    """One past the last window whose tap k is before the end of the image."""
    cdef Py_ssize_t offset = k * a.dilation - a.pad_before
    if offset >= a.size:
        return 0
    return min(a.output, (a.size - 1 - offset) // a.stride + 1)
