"""Convolution with fewer multiplications: Winograd's minimal filtering, F(4x4, 3x3), as 36 matrix products.

After Lavin and Gray, "Fast algorithms for convolutional neural networks", arXiv:1509.09308. Valid for kernels of 3x3 with
stride 1 and dilation 1, any padding, any size. It rounds otherwise than the direct formula, and by a little more.

A tile of 4x4 outputs sees 6x6 cells. With cells and weights transformed (simd/winograd.h), each of 36 numbers of the
outputs needs one product where the formula needs four, summed over the channels: 36 products of matrices, tiles x
channels by channels x filters. Tiles are numbered through all images, so that small images share a product. Vectors
run over channels and filters, which NHWC has side by side; NCHW is turned around, there and back, a chunk at a time.

    for filters whose transformed weights fit the memory
      transform the weights                                           in parallel, a panel of filters and some channels
      for chunk of tiles (and of filters, where tiles are few)        in parallel; depends on the problem only
        turn and transform the cells                                  fits the second cache, or nearly
        for panel of filters
          for number of 36: product                                   weights from the second or third cache
          transform the outputs and turn them back                    with bias and ReLU

The input gradient is the same with the weights flipped and transposed.

What is not finite spreads over the whole tile. A chunk with a result that is not finite is left to `tiled`, with the
other chunks of its images.
"""

import numpy as np

from cnnfast._engine cimport Memory, View, kernels_for, run, thread_count, up
from kernels cimport Cells, Kernels, Left, Places, Right, Target

from cnnfast import _tiled

cdef enum:
    TILE = 4  # outputs of a tile, each way
    SIDE = 6  # cells of a tile, each way
    POINTS = 36  # products
    TAPS = 9  # weights
    LINE = 64  # bytes of a cache line
    CHUNK_TILES = 32  # of a chunk: rows of a product
    PACKED_BYTES = 16777216  # of weights transformed at a time
    SCRATCH_BYTES = 33554432  # of all threads together: more threads than this is for do not work
    PACK_CHANNELS = 32  # of weights transformed by a thread at a time
    FEW_CHUNKS = 8  # fewer chunks than this are cut further, by filters


cdef struct Product:
    const Kernels *kernels
    Py_ssize_t itemsize
    bint relu, x_in_place, y_in_place
    const char *x
    char *y
    Places x_at, y_at
    Py_ssize_t C, O, N
    Py_ssize_t before_h, before_w  # padding, less than none where cells are cut off
    Py_ssize_t rows, columns  # of tiles: in an image
    Py_ssize_t chunk_rows, chunk_columns  # and in a chunk, there through all images
    Py_ssize_t chunks_of_rows, chunks_of_columns, chunks_of_panels
    const char *bias  # with room for whole panels
    const char *zeros
    char *weights
    Py_ssize_t width, panels, panel_bytes, panels_at_once, panels_of_chunk
    Py_ssize_t first_panel, panels_now  # of the weights that are there now
    Py_ssize_t c_row, v_row, v_matrix, m_matrix
    char *scratch
    Py_ssize_t scratch_bytes, v_bytes, m_bytes, band_bytes
    char *is_finite  # a flag for each chunk


cdef void product_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    cdef Product *job = <Product *>context
    cdef Py_ssize_t part = i % job.chunks_of_panels, place = i // job.chunks_of_panels
    cdef Py_ssize_t left = place % job.chunks_of_columns * job.chunk_columns
    cdef Py_ssize_t top = place // job.chunks_of_columns * job.chunk_rows
    cdef Py_ssize_t columns = min(job.chunk_columns, job.columns - left)
    cdef Py_ssize_t bottom = min(top + job.chunk_rows, job.N * job.rows)
    cdef Py_ssize_t panel = part * job.panels_of_chunk, filters, k, item = job.itemsize
    cdef Py_ssize_t last = min(panel + job.panels_of_chunk, job.panels_now)
    cdef char *v = job.scratch + thread * job.scratch_bytes
    cdef char *m = v + job.v_bytes
    cdef char *band = m + job.m_bytes
    cdef bint finite = True
    each_image(job, top, bottom, left, columns, 0, 0, v, band, &finite)
    cdef Left a = Left(NULL, job.v_row * job.kernels.MR, job.v_row, 1)
    cdef Right b = Right(NULL, 0, job.width)
    cdef Target c = Target(NULL, job.width, False, NULL, NULL, False)
    while panel < last:
        filters = min(job.width, up(job.O - (job.first_panel + panel) * job.width, LINE // item))
        for k in range(POINTS):
            a.data = v + k * job.v_matrix * item
            b.data = job.weights + panel * job.panel_bytes + k * job.C * job.width * item
            c.data = m + k * job.m_matrix * item
            job.kernels.multiply((bottom - top) * columns, filters, job.C, a, b, c)
        each_image(job, top, bottom, left, columns, (job.first_panel + panel) * job.width, filters, m, band, &finite)
        panel += 1
    if not finite:
        job.is_finite[place] = False  # only ever cleared, by whoever sees one


cdef void each_image(const Product *job, Py_ssize_t top, Py_ssize_t bottom, Py_ssize_t left, Py_ssize_t columns,
                     Py_ssize_t first, Py_ssize_t filters, char *points, char *band, bint *finite) noexcept nogil:
    """Transform the cells of a chunk of tiles, or the outputs of some filters; image by image."""
    cdef Py_ssize_t image, row, rows
    while top < bottom:
        image, row = top // job.rows, top % job.rows
        rows = min(bottom - top, job.rows - row)
        if filters == 0:
            read_cells(job, image, row, rows, left, columns, points, band)
            points += rows * columns * job.v_row * job.itemsize
        else:
            if not write_outputs(job, image, row, rows, left, columns, first, filters, points, band):
                finite[0] = False
            points += rows * columns * job.width * job.itemsize
        top += rows


cdef void read_cells(const Product *job, Py_ssize_t image, Py_ssize_t row, Py_ssize_t rows, Py_ssize_t left,
                     Py_ssize_t columns, char *v, char *band) noexcept nogil:
    """Transform the cells of some rows of tiles, first turned so that their channels lie side by side."""
    cdef Py_ssize_t h = TILE * row - job.before_h, w = TILE * left - job.before_w, i, item = job.itemsize
    cdef Py_ssize_t height, width
    cdef Cells cells
    cells.top, cells.bottom = max(0, h), min(job.x_at.rows, h + TILE * (rows - 1) + SIDE)
    cells.left, cells.right = max(0, w), min(job.x_at.columns, w + TILE * (columns - 1) + SIDE)
    height, width = max(0, cells.bottom - cells.top), max(0, cells.right - cells.left)
    cdef const char *x = job.x + (image * job.x_at.image + cells.top * job.x_at.row + cells.left * job.x_at.cell) * item
    if job.x_in_place:
        cells.data, cells.row, cells.cell = <void *>x, job.x_at.row, job.x_at.cell
    else:
        cells.data, cells.row, cells.cell = band, width * job.c_row, job.c_row
        if job.x_at.row == width * job.x_at.cell:  # the rows follow each other as cells do
            width, height = height * width, min(height, 1)
        for i in range(height):
            job.kernels.copy_matrix(width, job.C, x + i * job.x_at.row * item, job.x_at.cell, job.x_at.channel,
                                    band + i * cells.row * item, job.c_row, 1)
    for i in range(rows):
        job.kernels.winograd_tiles(&cells, h + TILE * i, w, columns, job.C, job.zeros,
                                   v + i * columns * job.v_row * item, job.v_row, job.v_matrix)


cdef bint write_outputs(const Product *job, Py_ssize_t image, Py_ssize_t row, Py_ssize_t rows, Py_ssize_t left,
                        Py_ssize_t columns, Py_ssize_t first, Py_ssize_t filters, const char *m,
                        char *band) noexcept nogil:
    """Transform the outputs of some rows of tiles, and turn them back; tell whether all are finite."""
    cdef Py_ssize_t i, height, width, item = job.itemsize
    cdef bint finite = True
    cdef Cells cells
    cells.top, cells.bottom = TILE * row, min(job.y_at.rows, TILE * (row + rows))
    cells.left, cells.right = TILE * left, min(job.y_at.columns, TILE * (left + columns))
    height, width = cells.bottom - cells.top, cells.right - cells.left
    cdef char *y = job.y + (image * job.y_at.image + first * job.y_at.channel + cells.top * job.y_at.row
                            + cells.left * job.y_at.cell) * item
    if job.y_in_place:
        cells.data, cells.row, cells.cell = y, job.y_at.row, job.y_at.cell
    else:
        cells.data, cells.row, cells.cell = band, width * job.width, job.width
    for i in range(rows):
        if not job.kernels.winograd_outputs(m + i * columns * job.width * item, job.width, job.m_matrix, filters,
                                            job.bias + first * item, job.relu, &cells, TILE * (row + i), TILE * left,
                                            columns, band + job.band_bytes - job.width * item):
            finite = False
    if not job.y_in_place:
        filters = min(filters, job.O - first)
        if job.y_at.row == width * job.y_at.cell:
            width, height = height * width, 1
        for i in range(height):
            job.kernels.copy_matrix(filters, width, band + i * cells.row * item, 1, job.width,
                                    y + i * job.y_at.row * item, job.y_at.channel, job.y_at.cell)
    return finite


cdef struct Packing:
    Product *job
    const char *weights
    const Py_ssize_t *offset
    Py_ssize_t row, parts  # of the channels
    char *packed  # scratch memory
    Py_ssize_t packed_bytes


cdef void packing_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    """Transform the weights of a panel of filters and some channels."""
    cdef Packing *packing = <Packing *>context
    cdef Product *job = packing.job
    cdef Py_ssize_t panel = i // packing.parts, c = i % packing.parts * PACK_CHANNELS, item = job.itemsize
    cdef Py_ssize_t C = min(PACK_CHANNELS, job.C - c), first = (job.first_panel + panel) * job.width
    cdef char *packed = packing.packed + thread * packing.packed_bytes
    job.kernels.pack(packing.weights + first * packing.row * item, packing.row, packing.offset + c * TAPS,
                     min(job.width, job.O - first), C * TAPS, packed, job.width, 0)
    job.kernels.winograd_weights(packed, C, job.width,
                                 job.weights + panel * job.panel_bytes + c * job.width * item, job.C * job.width)


cdef void set_sizes(Product *job, conv, Py_ssize_t N, Py_ssize_t C, Py_ssize_t O, Py_ssize_t H, Py_ssize_t W,
                    Py_ssize_t OH, Py_ssize_t OW):
    """Cut a product of C channels and O filters into chunks, by these sizes only."""
    cdef Py_ssize_t line, pieces, tiles, band_h, band_w
    job.kernels, job.itemsize = kernels_for(conv.dtype), conv.itemsize
    job.N, job.C, job.O = N, C, O
    line = LINE // job.itemsize
    job.rows, job.columns = (OH + TILE - 1) // TILE, (OW + TILE - 1) // TILE
    pieces = (job.columns + CHUNK_TILES - 1) // CHUNK_TILES
    job.chunk_columns = (job.columns + pieces - 1) // pieces
    job.chunk_rows = min(CHUNK_TILES // job.chunk_columns, N * job.rows)
    job.chunks_of_columns = (job.columns + job.chunk_columns - 1) // job.chunk_columns
    job.chunks_of_rows = (N * job.rows + job.chunk_rows - 1) // job.chunk_rows
    tiles = job.chunk_rows * job.chunk_columns

    job.panels = (O + job.kernels.NR - 1) // job.kernels.NR
    job.width = min(job.kernels.NR, up((O + job.panels - 1) // job.panels, line))
    job.panels = (O + job.width - 1) // job.width
    job.panel_bytes = POINTS * C * job.width * job.itemsize
    job.panels_at_once = min(job.panels, max(1, PACKED_BYTES // job.panel_bytes))
    pieces = max(1, FEW_CHUNKS // (job.chunks_of_rows * job.chunks_of_columns))
    job.panels_of_chunk = (job.panels_at_once + pieces - 1) // pieces

    job.c_row = up(C, line)
    job.v_row = up(C, line) | line  # an odd number of cache lines, so that rows do not share a set
    job.v_matrix, job.m_matrix = tiles * job.v_row, tiles * job.width
    job.v_bytes, job.m_bytes = POINTS * job.v_matrix * job.itemsize, up(POINTS * job.m_matrix * job.itemsize, LINE)
    band_h = min(job.chunk_rows, job.rows) * TILE + SIDE - TILE
    band_w = min(max(W, OW), job.chunk_columns * TILE + SIDE - TILE)
    job.band_bytes = up((band_h * band_w * max(job.c_row, job.width) + job.width) * job.itemsize, LINE)
    job.scratch_bytes = job.v_bytes + job.m_bytes + job.band_bytes


cdef int workers_for(const Product *job):
    """How many threads may work, for whom there is memory."""
    return max(1, min(thread_count(), SCRATCH_BYTES // job.scratch_bytes))


def _product(conv, x_nchw, w_ockk, b, bint relu, y_nchw, before):
    """Compute y = relu(b + x * w) where window (0, 0) begins ``before`` cells before x; tell which images are finite."""
    cdef View x = View(x_nchw), y = View(y_nchw), weights = View(w_ockk)
    cdef Product job
    cdef Packing packing
    cdef Py_ssize_t line = LINE // conv.itemsize
    set_sizes(&job, conv, x.shape[0], x.shape[1], y.shape[1], x.shape[2], x.shape[3], y.shape[2], y.shape[3])
    job.x, job.y, job.relu = x.data, y.data, relu
    job.x_at = Places(x.shape[2], x.shape[3], x.step[0], x.step[1], x.step[2], x.step[3])
    job.y_at = Places(y.shape[2], y.shape[3], y.step[0], y.step[1], y.step[2], y.step[3])
    job.before_h, job.before_w = before
    job.x_in_place = x.step[1] == 1 and job.C % line == 0
    job.y_in_place = y.step[1] == 1 and job.O % line == 0

    cdef int workers = workers_for(&job)
    cdef Memory scratch = Memory(workers * job.scratch_bytes), transformed = Memory(job.panels_at_once * job.panel_bytes)
    job.scratch, job.weights = scratch.data, transformed.data
    zeros = np.zeros(max(job.c_row, job.panels * job.width), conv.dtype)
    bias = zeros.copy()
    bias[:job.O] = b
    cdef View zeros_view = View(zeros), bias_view = View(bias)
    job.zeros, job.bias = zeros_view.data, bias_view.data
    finite = np.ones(job.chunks_of_rows * job.chunks_of_columns, np.uint8)
    cdef unsigned char[::1] flags = finite
    job.is_finite = <char *>&flags[0]

    taps = [i * weights.step[2] + j * weights.step[3] for i in range(3) for j in range(3)]
    cdef Py_ssize_t[::1] offset = np.add.outer(np.arange(job.C) * weights.step[1], taps).astype(np.intp).reshape(-1)
    packing.job, packing.weights, packing.offset, packing.row = &job, weights.data, &offset[0], weights.step[0]
    packing.parts = (job.C + PACK_CHANNELS - 1) // PACK_CHANNELS
    packing.packed_bytes = up(min(PACK_CHANNELS, job.C) * TAPS * job.width * job.itemsize, LINE)
    cdef Memory packed = Memory(workers * packing.packed_bytes)
    packing.packed = packed.data

    job.first_panel = 0
    while job.first_panel < job.panels:
        job.panels_now = min(job.panels_at_once, job.panels - job.first_panel)
        job.chunks_of_panels = (job.panels_now + job.panels_of_chunk - 1) // job.panels_of_chunk
        run(packing_chunk, &packing, job.panels_now * packing.parts, workers)
        run(product_chunk, &job, job.chunks_of_rows * job.chunks_of_columns * job.chunks_of_panels, workers)
        job.first_panel += job.panels_at_once
    return finite.reshape(job.chunks_of_rows, job.chunks_of_columns).all(1), job.chunk_rows, job.rows


def forward(conv, x, w, b, bint relu, y):
    """Compute ``y = relu(x * w + b)``."""
    if 0 in y.shape:
        return
    h, v = conv.window
    _product(conv, x, w, b, relu, y, (h.pad_before, v.pad_before))


def input_gradient(conv, dy, w, b, bint relu, dx):
    if 0 in dx.shape:
        return
    h, v = conv.window
    _product(conv, dy, w.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1], b, relu, dx, (2 - h.pad_before, 2 - v.pad_before))
