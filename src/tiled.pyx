"""Convolution as a matrix product over columns that live only in a cache: tile by tile, with packed weights.

After Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008, with the columns of im2col made
a panel at a time: Zhang, Franchetti and Low, "High performance zero-memory overhead direct convolutions",
arXiv:1809.10170, and Dukhan, "The indirect convolution algorithm", arXiv:1907.02129. Valid for every problem.

One product kernel (simd/template.h) does all the arithmetic, C (M x N) += A (M x K) B (K x N), with K in blocks:

    pass      layout       A, one number at a time       B, vectors                    C
    forward   planes       weights, packed (F x K)       columns, gathered (K x Q)     y, channel by channel
    forward   pixels       rows, gathered (Q x K)        weights, packed (K x F)       y, pixel by pixel
    weights   planes       columns, gathered (K x Q)     dy, packed (Q x F)            dw, transposed
    weights   pixels       dy, in place (F x Q)          rows, gathered (Q x K)        dw

"pixels" is for NHWC, where channels lie side by side, "planes" for NCHW (and for groups of few channels, whose vectors
would be nearly empty); both take any strides. Q counts the outputs through all images, so that small images share a
tile; K = C*KH*KW. The input gradient is a forward pass over dy with the weights flipped and transposed; with stride s it
is s*s of them, one for each phase of the cells of x, each with the taps that reach such a cell. For few channels it is
the product w.T dy, whose columns are added back to the cells they came from.

    for chunk of outputs (and of filters, where outputs are few)      in parallel; depends on the problem only
      for block of K                                                  its columns and weights fit the second cache
        gather the columns of the chunk                               where padding becomes zeros
        for panel of C                                                a panel of B, from the first or second cache
          for tile of the panel                                       registers

The formula has no term for a tap in the padding, but the product has: 0 times the weight. Where that weight (or, for the
weight gradient, dy) is not finite this would be NaN, so such a problem is left to the naive loops.
"""

import numpy as np

from cnnfast._engine cimport Memory, View, kernels_for, run, thread_count, up
from kernels cimport Kernels, Left, Places, Right, Target, Windows

from cnnfast import _naive

cdef enum:
    K_BLOCK = 256  # of K: a tile of A (8 x 256 x 4 B) and a panel of B (48 x 256 x 4 B) fit the first cache, or nearly
    CHUNK_BYTES = 98304  # of gathered columns or rows: with the weights of a block they fit the second cache
    PACKED_BYTES = 16777216  # of weights packed at a time
    TABLE_BYTES = 32  # of offsets and cells for each number of K
    FEW_CHANNELS = 8  # fewer than this waste most of a tile's rows
    CHUNK_FLOPS = 2000000000  # of a chunk at the most: a fraction of a second, after which Ctrl-C is looked at
    FEW_CHUNKS = 16  # fewer chunks than this are cut further, by filters
    WEIGHT_K_BLOCK = 144  # of K in the weight gradient: its columns and dy, for some hundred outputs, fit the cache
    MOST_FILTERS = 384  # filters of a chunk: a multiple of every tile's rows and columns, bounds the buffer of outputs

# ------------------------------------------------------------------------------------ forward and input gradient

cdef struct Product:
    const Kernels *kernels
    Py_ssize_t itemsize
    bint by_pixels, x_in_place, y_regular, relu
    bint spread  # y is not the product: the product is added to all cells of y that `back` says
    Windows g, back
    Places p
    const char *x
    const char *weights
    const char *bias
    char *y
    Py_ssize_t x_group, y_group, weight_group  # steps from group to group
    Py_ssize_t O, K, Q
    Py_ssize_t width, filters_at_once, groups_at_once  # of the panels of weights; packed together
    Py_ssize_t k_block, q_block, o_block, k_row  # k_row: from one gathered row to the next
    Py_ssize_t chunks_of_q, chunks_of_o
    char *scratch
    Py_ssize_t scratch_bytes, gathered_bytes


cdef void spread_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    """One image, whose outputs all add to its cells."""
    cdef Product *job = <Product *>context
    cdef Py_ssize_t plane = job.p.rows * job.p.columns, image = i % (job.Q // plane), group = i // (job.Q // plane)
    cdef Py_ssize_t q = image * plane, item = job.itemsize, outputs
    cdef const char *dy = job.x + group * job.x_group * item
    cdef const char *weights = job.weights + group * job.weight_group * item
    cdef char *dx = job.y + group * job.y_group * item
    cdef char *gathered = job.scratch + thread * job.scratch_bytes
    while q < (image + 1) * plane:
        outputs = min(job.q_block, (image + 1) * plane - q)
        if job.by_pixels:
            pixels_chunk(job, dy, weights, NULL, dx, gathered, gathered + job.gathered_bytes, q, outputs, job.O)
        else:
            planes_chunk(job, dy, weights, NULL, dx, gathered, gathered + job.gathered_bytes, q, outputs, job.O)
        q += job.q_block


cdef void product_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    cdef Product *job = <Product *>context
    cdef Py_ssize_t o = i % job.chunks_of_o * job.o_block, q = i // job.chunks_of_o % job.chunks_of_q * job.q_block
    cdef Py_ssize_t group = i // job.chunks_of_o // job.chunks_of_q, item = job.itemsize
    cdef Py_ssize_t filters = min(job.o_block, job.O - o), outputs = min(job.q_block, job.Q - q)
    cdef const char *x = job.x + group * job.x_group * item
    cdef const char *weights = job.weights + (group * job.weight_group + o * job.K) * item
    cdef const char *bias = job.bias
    if bias != NULL:
        bias += (group * job.O + o) * item
    cdef char *y = job.y + (group * job.y_group + o * job.p.channel) * item
    cdef char *gathered = job.scratch + thread * job.scratch_bytes
    if job.by_pixels:
        pixels_chunk(job, x, weights, bias, y, gathered, gathered + job.gathered_bytes, q, outputs, filters)
    else:
        planes_chunk(job, x, weights, bias, y, gathered, gathered + job.gathered_bytes, q, outputs, filters)


cdef void planes_chunk(Product *job, const char *x, const char *weights, const char *bias, char *y, char *columns,
                       char *buffer, Py_ssize_t q, Py_ssize_t outputs, Py_ssize_t filters) noexcept nogil:
    cdef const Kernels *kernels = job.kernels
    cdef Py_ssize_t k, depth, plane = job.p.rows * job.p.columns, image = q // plane, item = job.itemsize
    cdef bint direct = job.y_regular and (q + outputs - 1) // plane == image
    cdef bint in_place = job.x_in_place and (q + outputs - 1) // plane == image and outputs % kernels.NR == 0
    cdef Left a
    cdef Right b
    cdef Target c
    c.data = y + (image * job.p.image + q % plane) * item if direct else buffer
    c.row = job.p.channel if direct else job.q_block
    c.column_bias = NULL
    a.tile, a.row, a.step = job.K * kernels.MR, 1, kernels.MR
    k = 0
    while k < job.K:
        depth = min(job.k_block, job.K - k)
        if in_place:
            b.data = x + (image * job.g.image + q % plane + k * job.g.channel) * item
            b.panel, b.row = kernels.NR, job.g.channel
        else:
            b.data, b.panel, b.row = columns, depth * kernels.NR, kernels.NR
            kernels.gather_columns(&job.g, x, k, k + depth, q, outputs, columns, b.panel, b.row)
        a.data = weights + k * kernels.MR * item
        c.add, c.relu = k > 0, job.relu and k + depth == job.K
        c.row_bias = bias
        kernels.multiply(filters, outputs, depth, a, b, c)
        k += job.k_block
    if job.spread:
        kernels.add_columns(&job.back, y, q, outputs, buffer, job.q_block)
    elif not direct:
        kernels.scatter(&job.p, y, q, outputs, filters, buffer, job.q_block, 1)


cdef void pixels_chunk(Product *job, const char *x, const char *weights, const char *bias, char *y, char *rows,
                       char *buffer, Py_ssize_t q, Py_ssize_t outputs, Py_ssize_t filters) noexcept nogil:
    cdef const Kernels *kernels = job.kernels
    cdef Py_ssize_t k, depth, item = job.itemsize
    cdef Left a
    cdef Right b
    cdef Target c
    c.data = y + q * job.p.cell * item if job.y_regular else buffer
    c.row = job.p.cell if job.y_regular else job.o_block
    c.row_bias = NULL
    b.panel, b.row = job.K * kernels.NR, kernels.NR
    k = 0
    while k < job.K:
        depth = min(job.k_block, job.K - k)
        if job.x_in_place:
            a.data, a.row = x + (q * job.g.cell + k) * item, job.g.cell
        else:
            a.data, a.row = rows, job.k_row
            kernels.gather_rows(&job.g, x, k, k + depth, q, outputs, rows, job.k_row)
        a.tile, a.step = a.row * kernels.MR, 1
        b.data = weights + k * kernels.NR * item
        c.add, c.relu = k > 0, job.relu and k + depth == job.K
        c.column_bias = bias
        kernels.multiply(outputs, filters, depth, a, b, c)
        k += job.k_block
    if job.spread:
        kernels.add_rows(&job.back, y, q, outputs, buffer, job.o_block)
    elif not job.y_regular:
        kernels.scatter(&job.p, y, q, outputs, filters, buffer, 1, job.o_block)


cdef struct Packing:
    const Kernels *kernels
    Py_ssize_t itemsize
    const char *weights
    char *packed
    const Py_ssize_t *offset
    Py_ssize_t group, row, packed_group, O, K, width, panels
    bint not_finite


cdef void packing_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    cdef Packing *job = <Packing *>context
    cdef Py_ssize_t group = i // job.panels, panel = i % job.panels, first = panel * job.width
    cdef char *packed = job.packed + (group * job.packed_group + first * job.K) * job.itemsize
    job.kernels.pack(job.weights + (group * job.group + first * job.row) * job.itemsize, job.row, job.offset,
                     min(job.width, job.O - first), job.K, packed, job.width, 0)
    if not job.kernels.is_finite(packed, job.K * job.width):
        job.not_finite = True  # only ever set, by whoever sees one


class _NotFinite(Exception):
    """A weight that is not finite would meet the zeros of the padding."""


def _product(conv, x_nchw, w, y_nchw, b, bint relu, bint transposed, tuple tap_h, tuple tap_w, stride):
    """Compute y = relu(b + a sum over taps), with filters (or, transposed, channels) of w as those of y.

    tap_h and tap_w list (kernel index, cell of x that output 0 sees through it), ascending in the cells.
    """
    cdef View x = View(x_nchw), y = View(y_nchw), weights = View(w)
    cdef Product job
    cdef Py_ssize_t groups = conv.groups, at_once, i, j
    cdef Py_ssize_t C = x.shape[1] // groups, taps = len(tap_h) * len(tap_w)
    job.spread = False
    set_sizes(&job, conv, y.shape[1] // groups, C * taps, y.shape[0] * y.shape[2] * y.shape[3])

    cells = _table([[h for _, h in tap_h for _ in tap_w], [w for _ in tap_h for _, w in tap_w]], stride[1], x.shape[3])
    job.g = windows_on(x, C, y.shape[2], y.shape[3], stride, cells, _neighbours([cell for _, cell in tap_w]))
    job.p = Places(y.shape[2], y.shape[3], y.step[0], y.step[1], y.step[2], y.step[3])
    job.x, job.y, job.relu = x.data, y.data, relu
    job.x_group, job.y_group = C * x.step[1], job.O * y.step[1]
    one_to_one = (taps == 1 and not cells[:2].any() and tuple(stride) == (1, 1)
                  and x.shape[2] == y.shape[2] and x.shape[3] == y.shape[3])
    job.x_in_place = one_to_one and is_in_place(&job, x)
    job.y_regular = is_in_place(&job, y)

    # Where a weight is: of filter o and number k, at o * row + offset[k].
    rows, channels = (1, 0) if transposed else (0, 1)
    tap_offset = np.array([h * weights.step[2] + w * weights.step[3] for h, _ in tap_h for w, _ in tap_w], np.intp)
    channel_offset = np.arange(C, dtype=np.intp) * weights.step[channels]
    offset = np.add.outer(tap_offset, channel_offset) if job.by_pixels else np.add.outer(channel_offset, tap_offset)
    cdef Packing packing
    set_packing(&packing, &job, weights.step[rows], weights.shape[0] // groups * weights.step[0], offset.reshape(-1))

    cdef int workers = thread_count()
    cdef Memory scratch = Memory(workers * job.scratch_bytes)
    cdef Memory packed = Memory(job.groups_at_once * job.weight_group * job.itemsize)
    job.scratch, job.weights, packing.packed = scratch.data, packed.data, packed.data
    cdef const char *x_data = x.data
    cdef char *y_data = y.data
    cdef View bias = View(b)
    cdef Product part
    padded = any(h < 0 or h + (y.shape[2] - 1) * stride[0] >= x.shape[2] for _, h in tap_h) or any(
        w < 0 or w + (y.shape[3] - 1) * stride[1] >= x.shape[3] for _, w in tap_w)
    i = 0
    while i < groups:
        at_once = min(job.groups_at_once, groups - i)
        j = 0
        while j < job.O:
            part = job
            part.O = min(job.filters_at_once, job.O - j)
            part.chunks_of_o = (part.O + job.o_block - 1) // job.o_block
            part.x = x_data + i * job.x_group * job.itemsize
            part.y = y_data + (i * job.y_group + j * y.step[1]) * job.itemsize
            part.bias = bias.data + (i * job.O + j) * job.itemsize
            packing.weights = weights.data + (i * packing.group + j * packing.row) * job.itemsize
            packing.O, packing.panels, packing.not_finite = part.O, (part.O + job.width - 1) // job.width, False
            run(packing_chunk, &packing, at_once * packing.panels, workers)
            if packing.not_finite and padded:
                raise _NotFinite
            run(product_chunk, &part, at_once * part.chunks_of_q * part.chunks_of_o, workers)
            j += job.filters_at_once
        i += at_once


def _table(cells, stride, width):
    """Cells (h, w) that output 0 sees through each tap; first output column inside the image, and one past the last."""
    cells = np.asarray(cells, np.intp).reshape(2, -1)
    first = np.maximum(-(cells[1] // stride), 0)
    return np.vstack((cells, first, (width - 1 - cells[1]) // stride + 1))


cdef Windows windows_on(View x, Py_ssize_t C, Py_ssize_t rows, Py_ssize_t columns, stride,
                        Py_ssize_t[:, ::1] table, Py_ssize_t neighbours):
    """Windows over the cells of x, whose taps are those of the table; it must outlive them."""
    return Windows(rows, columns, stride[0], stride[1], x.shape[2], x.shape[3], x.step[0], x.step[1], x.step[2],
                   x.step[3], C, table.shape[1], &table[0, 0], &table[1, 0], &table[2, 0], &table[3, 0], neighbours)


cdef void set_packing(Packing *packing, const Product *job, Py_ssize_t row, Py_ssize_t group,
                      Py_ssize_t[::1] offset):
    """Weights lie at filter * row + offset[k], and a group after the other; the table must outlive the packing."""
    packing.kernels, packing.itemsize, packing.width, packing.K = job.kernels, job.itemsize, job.width, job.K
    packing.row, packing.group, packing.packed_group, packing.offset = row, group, job.weight_group, &offset[0]


cdef bint is_by_pixels(conv):
    """Whether vectors run over filters, which lie side by side, or else over the outputs."""
    return conv.layout == "NHWC" and (conv.groups == 1 or min(conv.C, conv.F) // conv.groups >= FEW_CHANNELS)


cdef bint is_in_place(const Product *job, View x):
    """Whether a 1x1 product can take x where it is."""
    if job.by_pixels:
        return x.step[1] == 1 and x.is_regular()
    return x.step[3] == 1 and (x.shape[2] == 1 or x.step[2] == x.shape[3])


cdef void set_sizes(Product *job, conv, Py_ssize_t O, Py_ssize_t K, Py_ssize_t Q):
    """Cut a product of O filters, K numbers and Q outputs a group into chunks and blocks, by these sizes only."""
    cdef Py_ssize_t groups = conv.groups, step, pieces, blocks, line
    job.kernels, job.itemsize = kernels_for(conv.dtype), conv.itemsize
    job.by_pixels = is_by_pixels(conv)
    job.O, job.K, job.Q = O, K, Q
    step, job.width = job.kernels.NR, job.kernels.MR
    if job.by_pixels:
        step, job.width = job.width, step
    blocks, line = (K + K_BLOCK - 1) // K_BLOCK, 64 // job.itemsize
    job.k_block = (K + blocks - 1) // blocks
    job.k_row = up(job.k_block, line) | line  # an odd number of cache lines, so that rows do not share a set
    job.q_block = max(1, min(CHUNK_BYTES // (job.k_row * job.itemsize * step), 384 // step)) * step
    job.chunks_of_q = (Q + job.q_block - 1) // job.q_block
    job.o_block = min(up(O, job.width), MOST_FILTERS // job.width * job.width)
    pieces = FEW_CHUNKS // max(1, job.chunks_of_q * groups)
    if pieces > 1 and not job.spread:
        job.o_block = min(job.o_block, up((O + pieces - 1) // pieces, job.width))
    job.gathered_bytes = up(job.q_block * job.k_row * job.itemsize, 64)
    job.scratch_bytes = up(job.gathered_bytes + job.q_block * job.o_block * job.itemsize, 64)
    job.filters_at_once = min(up(O, job.width),
                              max(1, PACKED_BYTES // (K * job.itemsize * job.width)) * job.width)
    job.groups_at_once = 1
    if job.filters_at_once >= O:
        job.groups_at_once = min(groups, max(1, PACKED_BYTES // (K * job.itemsize * job.filters_at_once)))
    job.weight_group = job.filters_at_once * K


def forward(conv, x, w, b, bint relu, y):
    """Compute ``y = relu(x * w + b)``."""
    if 0 in y.shape:
        return
    h, v = conv.window
    taps = (tuple((k, k * axis.dilation - axis.pad_before) for k in range(axis.kernel)) for axis in (h, v))
    try:
        _product(conv, x, w, y, np.ascontiguousarray(b), relu, False, *taps, (h.stride, v.stride))
    except _NotFinite:
        _naive.forward(conv, x, w, b, relu, y)


def input_gradient(conv, dy, w, b, bint relu, dx):
    """Compute ``dx = relu(what dy scatters through w + b)``, one phase of the cells of x at a time."""
    if 0 in dx.shape:
        return
    h, v = conv.window
    if _is_spread(conv):
        return _spread(conv, dy, w, b, relu, dx)
    b = np.ascontiguousarray(b)
    try:
        for i in range(min(h.stride, h.size)):
            for j in range(min(v.stride, v.size)):
                tap_h, tap_w, part = _phase(h, i), _phase(v, j), dx[:, :, i::h.stride, j::v.stride]
                if tap_h and tap_w:
                    _product(conv, dy, w, part, b, relu, True, tap_h, tap_w, (1, 1))
                else:
                    _naive.fill(b, part)
                    if relu:
                        _naive.rectify(part)
    except _NotFinite:
        _naive.input_gradient(conv, dy, w, b, relu, dx)


def _is_spread(conv):
    """Whether the channels are few, and their product fits a chunk of one image."""
    C, F = conv.C // conv.groups, conv.F // conv.groups
    rows = C * conv.window.h.kernel * conv.window.w.kernel
    outputs = conv.window.h.output * conv.window.w.output
    return (C < FEW_CHANNELS and rows <= MOST_FILTERS and rows * conv.F * conv.itemsize <= PACKED_BYTES // 8
            and 2 * rows * F * outputs <= CHUNK_FLOPS)


def _spread(conv, dy_nchw, w, b, bint relu, dx_nchw):
    """Input gradient for few channels: a row of the product for each tap, w.T dy as in im2col, added to dx at once.

    The filters of a tile would be the channels, and so few leave most of its registers empty.
    """
    cdef View dy = View(dy_nchw), dx = View(dx_nchw)
    cdef Product job
    cdef Packing packing
    cdef int workers = thread_count()
    h, v = conv.window
    groups, C, F, taps = conv.groups, conv.C // conv.groups, conv.F // conv.groups, h.kernel * v.kernel
    _naive.fill(b, dx_nchw)
    job.spread = True
    set_sizes(&job, conv, C * taps, F, dy.shape[0] * dy.shape[2] * dy.shape[3])
    cells = _table(_cells(h, v), v.stride, v.size)
    own_cell = _table([0, 0], 1, v.output)
    job.back = windows_on(dx, C, dy.shape[2], dy.shape[3], (h.stride, v.stride), cells, _neighbours(cells[1, :v.kernel]))
    job.g = windows_on(dy, F, dy.shape[2], dy.shape[3], (1, 1), own_cell, 1)
    job.p = Places(dy.shape[2], dy.shape[3], 0, 0, 0, 0)
    job.x, job.y, job.relu, job.y_regular = dy.data, dx.data, False, False
    job.x_group, job.y_group = F * dy.step[1], C * dx.step[1]
    job.x_in_place = is_in_place(&job, dy)

    by_tap = np.ascontiguousarray(w.transpose(0, 2, 3, 1) if job.by_pixels else w)
    cdef View weights = View(by_tap)
    offset = np.arange(F, dtype=np.intp) * (C * taps)
    set_packing(&packing, &job, 1, F * C * taps, offset)
    cdef Memory scratch = Memory(workers * job.scratch_bytes)
    cdef Memory packed = Memory(groups * job.weight_group * job.itemsize)
    job.scratch, job.weights = scratch.data, packed.data
    packing.weights, packing.packed = weights.data, packed.data
    packing.O, packing.panels = job.O, (job.O + job.width - 1) // job.width
    run(packing_chunk, &packing, groups * packing.panels, workers)
    run(spread_chunk, &job, groups * dy.shape[0], workers)
    if relu:
        _naive.rectify(dx_nchw)


def _neighbours(cells):
    """Taps of a row whose cells lie side by side: all of them, or 1."""
    return len(cells) if np.all(np.diff(cells) == 1) else 1


def _cells(h, v):
    """Cells (h, w) that output 0 sees through each tap."""
    cells = np.indices((h.kernel, v.kernel), np.intp).reshape(2, -1)
    return cells * [[h.dilation], [v.dilation]] - [[h.pad_before], [v.pad_before]]


def _phase(axis, phase):
    """Taps that reach cells phase, phase + stride, ...: (k, the window whose tap k is at the first of them)."""
    shifts = ((k, phase + axis.pad_before - k * axis.dilation) for k in reversed(range(axis.kernel)))
    return tuple((k, shift // axis.stride) for k, shift in shifts if shift % axis.stride == 0)


# ---------------------------------------------------------------------------------------------- weight gradient

cdef struct Correlation:
    const Kernels *kernels
    Py_ssize_t itemsize
    bint by_pixels, dy_in_place
    Windows g
    Places p
    const char *x
    const char *dy
    char *sums  # of slice and group, K x F for planes and F x K for pixels
    Py_ssize_t x_group, dy_group
    Py_ssize_t F, K, Q
    Py_ssize_t k_block, q_block, q_slice, k_row, q_row, f_row
    Py_ssize_t chunks_of_k, groups
    Py_ssize_t slices, first_slice  # of Q, that have sums of their own; the first of those that add to them now
    char *scratch
    Py_ssize_t scratch_bytes, gathered_bytes, packed_bytes


cdef void correlation_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    cdef Correlation *job = <Correlation *>context
    cdef const Kernels *kernels = job.kernels
    cdef Py_ssize_t k = i % job.chunks_of_k * job.k_block, group = i // job.chunks_of_k % job.groups
    cdef Py_ssize_t slice = i // job.chunks_of_k // job.groups, item = job.itemsize
    cdef Py_ssize_t depth = min(job.k_block, job.K - k), start = (job.first_slice + slice) * job.q_slice, q, outputs
    cdef Py_ssize_t stop = min(job.Q, start + job.q_slice)
    cdef const char *x = job.x + group * job.x_group * item
    cdef const char *dy = job.dy + group * job.dy_group * item
    cdef char *sums = job.sums + (slice * job.groups + group) * job.K * job.F * item
    cdef char *gathered = job.scratch + thread * job.scratch_bytes
    cdef char *packed = gathered + job.gathered_bytes
    cdef Py_ssize_t *offset = <Py_ssize_t *>(packed + job.packed_bytes)
    cdef Left a
    cdef Right b
    cdef Target c
    c.row_bias = c.column_bias = NULL
    c.relu = False
    q = start
    while q < stop:
        outputs = min(job.q_block, stop - q)
        c.add = q > start or job.first_slice > 0
        if not job.dy_in_place:
            set_offsets(&job.p, q, outputs, offset)
            kernels.pack(dy, job.p.channel, offset, job.F, outputs, packed, job.f_row, job.q_block * job.f_row)
        if job.by_pixels:
            kernels.gather_rows(&job.g, x, k, k + depth, q, outputs, gathered, job.k_row)
            a.data = dy + q * job.p.cell * item if job.dy_in_place else packed
            a.tile, a.row, a.step = kernels.MR, 1, job.p.cell if job.dy_in_place else job.f_row
            b.data, b.panel, b.row = gathered, kernels.NR, job.k_row
            c.data, c.row = sums + k * item, job.K
            kernels.multiply(job.F, depth, outputs, a, b, c)
        else:
            kernels.gather_columns(&job.g, x, k, k + depth, q, outputs, gathered, kernels.NR, job.q_row)
            a.data, a.tile, a.row, a.step = gathered, kernels.MR * job.q_row, job.q_row, 1
            b.data, b.panel, b.row = packed, job.q_block * job.f_row, job.f_row
            c.data, c.row = sums + k * job.F * item, job.F
            kernels.multiply(depth, job.F, outputs, a, b, c)
        q += job.q_block


cdef void set_offsets(const Places *p, Py_ssize_t q, Py_ssize_t count, Py_ssize_t *offset) noexcept nogil:
    """Where outputs q, q + 1, ... are."""
    cdef Py_ssize_t j = q % p.columns, i = q // p.columns % p.rows, n = q // p.columns // p.rows, k
    for k in range(count):
        offset[k] = n * p.image + i * p.row + j * p.cell
        j += 1
        if j == p.columns:
            j = 0
            i += 1
            if i == p.rows:
                i = 0
                n += 1


cdef void set_weight_sizes(Correlation *job, conv):
    """Cut the weight gradient into chunks and blocks, by its sizes only."""
    cdef Py_ssize_t line, NR, blocks, slices
    job.kernels, job.itemsize, job.groups = kernels_for(conv.dtype), conv.itemsize, conv.groups
    job.by_pixels = is_by_pixels(conv)
    h, v = conv.window
    job.F, job.K = conv.F // job.groups, conv.C // job.groups * h.kernel * v.kernel
    job.Q = conv.N * h.output * v.output
    line, NR = 64 // job.itemsize, job.kernels.NR
    blocks = (job.K + WEIGHT_K_BLOCK - 1) // WEIGHT_K_BLOCK
    job.k_block = min(job.K, up((job.K + blocks - 1) // blocks, NR if job.by_pixels else job.kernels.MR))
    job.chunks_of_k = (job.K + job.k_block - 1) // job.k_block
    job.k_row = up(job.k_block, NR) | line
    job.f_row = up(job.F, line) | line if job.by_pixels else min(up(job.F, line), NR)  # of all filters, or of a panel
    job.q_block = max(1, min(8, 2 * CHUNK_BYTES // ((job.k_row + up(job.F, line)) * job.itemsize * NR))) * NR
    job.q_row = up(job.q_block, line) | line
    slices = FEW_CHUNKS // (job.chunks_of_k * job.groups) + 1
    slices = min(slices, PACKED_BYTES // (job.groups * job.K * job.F * job.itemsize), job.Q // (2 * job.q_block))
    job.q_slice = up((job.Q + max(1, slices) - 1) // max(1, slices), job.q_block)
    job.slices = (job.Q + job.q_slice - 1) // job.q_slice if job.Q else 0
    job.q_slice = min(job.q_slice, up(CHUNK_FLOPS // (2 * job.k_block * job.F), job.q_block))
    job.gathered_bytes = up(max(job.q_block * job.k_row, job.k_block * job.q_row) * job.itemsize, 64)
    job.packed_bytes = up(up(job.F, job.f_row) * job.q_block * job.itemsize, 64)
    job.scratch_bytes = up(job.gathered_bytes + job.packed_bytes + job.q_block * sizeof(Py_ssize_t), 64)


def weight_gradient(conv, x_nchw, dy_nchw, dw):
    """Add to dw the gradient of the weights."""
    cdef View x = View(x_nchw), dy = View(dy_nchw)
    cdef Correlation job
    h, v = conv.window
    set_weight_sizes(&job, conv._replace(N=x_nchw.shape[0]))
    cdef Py_ssize_t C = conv.C // job.groups
    cells = _table(_cells(h, v), v.stride, v.size)
    job.g = windows_on(x, C, dy.shape[2], dy.shape[3], (h.stride, v.stride), cells, _neighbours(cells[1, :v.kernel]))
    job.p = Places(dy.shape[2], dy.shape[3], dy.step[0], dy.step[1], dy.step[2], dy.step[3])
    job.x, job.dy = x.data, dy.data
    job.x_group, job.dy_group = C * x.step[1], job.F * dy.step[1]
    job.dy_in_place = job.by_pixels and dy.step[1] == 1 and dy.is_regular()
    cdef Memory sums = Memory(job.slices * job.groups * job.K * job.F * job.itemsize)
    cdef int workers = thread_count()
    cdef Memory scratch = Memory(workers * job.scratch_bytes)
    job.sums, job.scratch = sums.data, scratch.data
    job.first_slice = 0
    while job.first_slice * job.q_slice < job.Q:
        run(correlation_chunk, &job, job.slices * job.groups * job.chunks_of_k, workers)
        job.first_slice += job.slices
    slices = sums.numbers(conv.dtype).reshape(job.slices, -1)
    total = slices[0]
    for other in slices[1:]:
        total += other
    if job.by_pixels:
        dw += total.reshape(conv.F, h.kernel, v.kernel, C).transpose(0, 3, 1, 2)
    else:
        by_group = total.reshape(job.groups, C, h.kernel, v.kernel, job.F).transpose(0, 4, 1, 2, 3)
        dw.reshape(by_group.shape)[...] += by_group


def gradients(conv, x, w, dy, dx, dw, db):
    """Set dx and add to dw and db (those that are not None) what dy contributes."""
    if dx is not None:
        input_gradient(conv, dy, w, np.zeros(conv.C, conv.dtype), False, dx)
    sums = np.zeros(conv.F)
    padded = any(axis.pad_before or axis.pad_after for axis in conv.window)
    if db is not None or dw is not None and padded:
        _naive.add_bias_gradient(dy, sums)
    if db is not None:
        db += sums
    if dw is not None and dy.shape[0]:
        if padded and not np.isfinite(sums).all():
            _naive.add_weight_gradient(conv, x, dy, dw)
        else:
            weight_gradient(conv, x, dy, dw)


def workspace_bytes(conv):
    """Bytes that the largest of the three passes takes beyond its inputs and results."""
    cdef Product job
    cdef Correlation weights
    h, v = conv.window
    C, F, taps = conv.C // conv.groups, conv.F // conv.groups, h.kernel * v.kernel
    cells = -(-h.size // h.stride) * -(-v.size // v.stride)
    most = 0
    for O, K, Q in ((F, C * taps, h.output * v.output), (C, F * taps, cells)):
        job.spread = False
        set_sizes(&job, conv, O, K, conv.N * Q)
        packed = job.groups_at_once * job.weight_group * job.itemsize
        most = max(most, packed + thread_count() * job.scratch_bytes + K * TABLE_BYTES)
    set_weight_sizes(&weights, conv)
    sums = weights.slices * conv.groups * weights.K * weights.F * conv.itemsize
    return max(most, sums + thread_count() * weights.scratch_bytes)
