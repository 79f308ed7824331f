"""Convolution with fewer multiplications: Winograd's minimal filtering, F(4x4, 3x3) and F(2x2, 5x5), as 36 products.

After Lavin and Gray, "Fast algorithms for convolutional neural networks", arXiv:1509.09308. Valid for kernels of 3x3
and 5x5 with stride 1, any padding, any size; with dilation d an image is d*d smaller ones, each with every d-th row and
column, its parts, which no window mixes. It rounds otherwise than the direct formula, and by a little more.

A tile of 4x4 outputs of a kernel of 3x3, or of 2x2 outputs of one of 5x5, sees 6x6 cells. With cells and weights
transformed (simd/winograd.h), it needs 36 multiplications in a channel where the formula has 144, or 100. Each of the
36 is summed over the channels: 36 products of matrices, tiles x channels by channels x filters. Tiles are numbered
through the parts of all images, so that small ones share a product. Vectors run over channels and over filters, which
NHWC has side by side; NCHW is turned around, there and back, a chunk at a time.

    turn and transform the cells of all chunks                        only if many filters need them, and they fit
    for filters whose transformed weights fit the memory
      transform the weights                                           in parallel: a panel of filters, some channels
      for chunk of tiles (and of filters, where tiles are few)        in parallel; depends on the problem only
        turn and transform the cells                                  fits the second cache, or nearly
        for panel of filters
          for number of 36: product                                   weights from the second or third cache
          transform the outputs and turn them back                    with bias and ReLU

The input gradient is the same with the weights flipped and transposed. The weight gradient, F(3x3, 4x4) or
F(5x5, 2x2), sums over the tiles:

    for filters whose sums fit the memory                             of one group
      for block of chunks of tiles
        for chunk: transform the cells of x and dy                    in parallel; x once if there is one block only
        for number of 36, some filters: add the product               in parallel; filters x tiles by tiles x channels
      transform the sums                                              in parallel: a filter

What is not finite spreads over a whole tile. If a chunk has such a result, the images with such chunks, and those
between them, are left to `tiled`, and so are filters with such a gradient.
"""

import numpy as np

from functools import lru_cache

from libc.string cimport memset

from cnnfast._engine cimport LINE, Memory, View, kernels_for, run, thread_count, up
from kernels cimport Cells, Kernels, Left, Places, Right, Target

from cnnfast import _tiled

cdef enum:
    SIDE = 6  # cells of a tile, each way
    POINTS = 36
    CHUNK_BYTES = 1048576  # of transformed cells and a panel of outputs: the second cache
    LEAST_TILES = 16  # of a chunk; fewer would read the weights too often
    MOST_TILES = 48  # more gain nothing
    FEW_CHUNKS = 8  # fewer chunks than this are cut further, by filters
    PACK_CHANNELS = 32  # of weights transformed at a time
    WEIGHT_BYTES = 16777216  # of transformed weights, or sums of their gradients, that there are at a time
    BLOCK_BYTES = 4194304  # of transformed x and dy that are multiplied at a time: the second caches of some threads
    MANY_SUMS_BYTES = 8388608  # are read and written less often, where blocks are longer
    LONG_BLOCK_BYTES = 12582912
    ONE_BLOCK_BYTES = 33554432  # of all of x and some of dy: sums are not read again
    ONE_BLOCK_SUMS_BYTES = 4194304
    BLOCK_FILTERS = 128  # of such a product
    KEPT_BYTES = 20971520  # of transformed cells, kept where several chunks, of other filters, need them
    KEPT_WEIGHT_BYTES = 8388608  # of transformed weights then: they stay in the third cache
    SCRATCH_BYTES = 25165824  # of all threads together; there may be more threads than this is for
    MOST_PARTS = 4096  # of a dilated image, whose tables are small then
    MOST_CHANNELS = 2048  # whose weights, a panel at least, fit WEIGHT_BYTES
    ABREAST_CELLS = 256  # of an image whose taps in the padding `tiled` leaves out, see abreast.pyx
    # In multiplications of a product, of one thread; fitted to 1469 problems of every size, type and layout
    TRANSFORM_COST = 325  # of transforming a tile in one channel or filter
    WEIGHT_COST = 75  # of a filter's weights of one channel: of transforming 36 numbers, beyond packing the weights
    CALL_COST = 20000  # of starting and ending, for each number of a cache line: it is a time

# -------------------------------------------------------------------------------------------------- tiles of an image

cdef struct Part:  # with dilation, every d-th row and column of an image; else all of it
    Py_ssize_t first, rows, columns  # where its first cell is
    Py_ssize_t before_h, before_w  # how far the first tile begins before it


cdef struct Image:  # images (N, C, H, W) in memory, and how tiles cover them
    char *data
    Places at  # the largest part of the first one
    Py_ssize_t N, C, item
    const Part *part  # all first parts of images are before all second ones
    bint in_place  # vectors of channels can be read and written where they are
    Py_ssize_t side  # a tile's cells each way
    Py_ssize_t band_row  # from cell to cell where they are turned: vectors of channels
    Py_ssize_t row, matrix  # of the points: from tile to tile, and from one of the 36 to the next
    const char *zeros


cdef struct Tiling:  # tiles of all parts of images, cut into chunks
    Py_ssize_t taps, tile  # each way: of the kernel, and outputs of a tile
    Py_ssize_t N, rows, columns  # parts of images, and tiles in each
    Py_ssize_t chunk_rows, chunk_columns  # of tiles in a chunk, the rows counted through all of them
    Py_ssize_t chunks_of_rows, chunks_of_columns, chunks


cdef struct Chunk:  # rows top to bottom - 1 of tiles, through all parts, and some columns
    Py_ssize_t top, bottom, left, columns


cdef Py_ssize_t tile_of(Py_ssize_t taps) noexcept nogil:
    """How many outputs, each way, see no more cells than a tile has."""
    return SIDE + 1 - taps


cdef Tiling tiling_for(Py_ssize_t taps, Py_ssize_t N, Py_ssize_t OH, Py_ssize_t OW, Py_ssize_t tile_bytes):
    """Chunks of about equal size, whose tiles take so many bytes."""
    cdef Tiling all
    cdef Py_ssize_t tiles = max(LEAST_TILES, min(MOST_TILES, CHUNK_BYTES // tile_bytes))
    all.taps, all.tile, all.N = taps, tile_of(taps), N
    all.rows, all.columns = (OH + all.tile - 1) // all.tile, (OW + all.tile - 1) // all.tile
    all.chunks_of_columns = (all.columns + tiles - 1) // tiles
    all.chunk_columns = (all.columns + all.chunks_of_columns - 1) // all.chunks_of_columns
    all.chunk_rows = tiles // all.chunk_columns
    all.chunks_of_rows = (N * all.rows + all.chunk_rows - 1) // all.chunk_rows
    all.chunk_rows = (N * all.rows + all.chunks_of_rows - 1) // all.chunks_of_rows
    all.chunks_of_rows = (N * all.rows + all.chunk_rows - 1) // all.chunk_rows
    all.chunks = all.chunks_of_rows * all.chunks_of_columns
    return all


cdef Chunk chunk_of(const Tiling *all, Py_ssize_t i) noexcept nogil:
    cdef Py_ssize_t left = i % all.chunks_of_columns * all.chunk_columns
    cdef Py_ssize_t top = i // all.chunks_of_columns * all.chunk_rows
    return Chunk(top, min(top + all.chunk_rows, all.N * all.rows), left, min(all.chunk_columns, all.columns - left))


cdef Py_ssize_t band_bytes(const Tiling *all, const Image *x):
    """Bytes of the cells that the tiles of a chunk see in an image."""
    cdef Py_ssize_t more = x.side - all.tile
    return up((min(all.chunk_rows, all.rows) * all.tile + more) * min(x.at.columns, all.chunk_columns * all.tile + more)
              * x.band_row * x.item, LINE)


def _parts_of_axis(axis, seen, transposed):
    """Of each part that is seen, or that sees: the first cell, how many, and how far the first tile begins before it.

    Every d-th output, from one of d on, sees every d-th cell; and the other way round where this is transposed.
    """
    d = axis.dilation
    for first in range(d):
        before, cell = divmod(first - axis.pad_before, d)
        cells, outputs = (cell, len(range(cell, axis.size, d))), (first, len(range(first, axis.output, d)))
        if transposed:
            yield (*outputs, axis.kernel - 1 + before) if seen else (*cells, 0)
        else:
            yield (*cells, -before) if seen else (*outputs, 0)


@lru_cache(maxsize=64)
def _parts(window, seen, transposed, row, cell):
    """Parts of an image whose rows and cells are so far apart, as an array of Part; rows and columns of the largest."""
    h, v = (tuple(_parts_of_axis(axis, seen, transposed)) for axis in window)
    parts = np.array([(i * row + j * cell, rows, columns, top, left)
                      for i, rows, top in h for j, columns, left in v], np.intp)
    return parts, max(rows for _, rows, _ in h), max(columns for _, columns, _ in v)


cdef class Images:
    """The images x (N, C, H, W) that a convolution sees, or those that see them, in their parts."""

    cdef Image image
    cdef object parts  # which the image points into

    def __cinit__(self, conv, View x, bint seen, bint transposed):
        cdef Image *image = &self.image
        h, v = conv.window
        self.parts, rows, columns = _parts(conv.window, seen, transposed, x.step[2], x.step[3])
        image[0] = image_of((x.shape[1], rows, columns), conv.itemsize, SIDE if seen else tile_of(h.kernel))
        cdef Py_ssize_t[:, ::1] table = self.parts
        image.N, image.part = x.shape[0], <const Part *>&table[0, 0]
        image.at.image, image.at.channel = x.step[0], x.step[1]
        image.at.row, image.at.cell = x.step[2] * h.dilation, x.step[3] * v.dilation
        point_at(image, x)


cdef void point_at(Image *image, View x):
    """Take some channels of images, no more than it has room for."""
    image.data, image.C = x.data, x.shape[1]
    image.in_place = x.step[1] == 1 and image.C % (LINE // image.item) == 0


cdef Image image_of(shape, Py_ssize_t item, Py_ssize_t side):
    """What the shape (C, H, W) of an image says of it."""
    cdef Image image
    memset(&image, 0, sizeof(image))
    image.C, image.at.rows, image.at.columns = shape
    image.item, image.side = item, side
    set_rows(&image, image.C)
    return image


cdef void set_rows(Image *image, Py_ssize_t C):
    """Make room for so many channels."""
    cdef Py_ssize_t line = LINE // image.item
    image.band_row = up(C, line)
    image.row = image.band_row | line  # an odd number of cache lines, so that rows do not share a set


cdef void transform(const Kernels *kernels, const Image *x, const Tiling *all, Chunk tiles, char *points,
                    char *band) noexcept nogil:
    """Transform the cells of a chunk of tiles, part by part."""
    cdef const Part *part
    cdef Py_ssize_t row, rows, row_bytes = tiles.columns * x.row * x.item, top, left, i
    cdef Cells cells
    while tiles.top < tiles.bottom:
        row = tiles.top % all.rows
        rows = min(tiles.bottom - tiles.top, all.rows - row)
        part = &x.part[tiles.top // all.rows // x.N]
        top, left = all.tile * row - part.before_h, all.tile * tiles.left - part.before_w
        cells = turned(kernels, x, part, tiles.top // all.rows % x.N, top, all.tile * (rows - 1) + x.side,
                       left, all.tile * (tiles.columns - 1) + x.side, band)
        for i in range(rows):
            kernels.winograd_tiles(x.side, all.tile, &cells, top + all.tile * i, left, tiles.columns, x.C, x.zeros,
                                   points, x.row, x.matrix)
            points += row_bytes
        tiles.top += rows


cdef Cells turned(const Kernels *kernels, const Image *x, const Part *part, Py_ssize_t n, Py_ssize_t top,
                  Py_ssize_t height, Py_ssize_t left, Py_ssize_t width, char *band) noexcept nogil:
    """Those of height x width cells that are in part of image n, with their channels side by side."""
    cdef Cells cells
    cdef Py_ssize_t i
    cells.top, cells.bottom = max(0, top), min(part.rows, top + height)
    cells.left, cells.right = max(0, left), min(part.columns, left + width)
    height, width = max(0, cells.bottom - cells.top), max(0, cells.right - cells.left)
    cells.data = x.data + (n * x.at.image + part.first + cells.top * x.at.row + cells.left * x.at.cell) * x.item
    cells.row, cells.cell = x.at.row, x.at.cell
    if x.in_place:
        return cells
    cdef const char *data = <const char *>cells.data
    cells.data, cells.row, cells.cell = band, width * x.band_row, x.band_row
    if x.at.row == width * x.at.cell:  # the rows follow each other as cells do
        width, height = height * width, min(height, 1)
    for i in range(height):
        kernels.copy_matrix(width, x.C, data + i * x.at.row * x.item, x.at.cell, x.at.channel,
                            band + i * cells.row * x.item, x.band_row, 1)
    return cells


cdef bint transform_back(const Kernels *kernels, const char *points, const Image *y, const Tiling *all, Chunk tiles,
                         Py_ssize_t first, Py_ssize_t filters, const char *bias, bint relu,
                         char *band) noexcept nogil:
    """Transform the points of some filters to outputs, part by part; tell whether all are finite."""
    cdef const Part *part
    cdef Py_ssize_t row, rows, row_bytes = tiles.columns * y.row * y.item, height, width, i
    cdef Py_ssize_t whole = up(filters, LINE // y.item)  # as the points have them
    cdef char *nowhere = band
    cdef char *data
    cdef bint finite = True
    cdef Cells cells
    band += y.row * y.item
    while tiles.top < tiles.bottom:
        row = tiles.top % all.rows
        rows = min(tiles.bottom - tiles.top, all.rows - row)
        part = &y.part[tiles.top // all.rows // y.N]
        cells.top, cells.bottom = all.tile * row, min(part.rows, all.tile * (row + rows))
        cells.left, cells.right = all.tile * tiles.left, min(part.columns, all.tile * (tiles.left + tiles.columns))
        height, width = cells.bottom - cells.top, cells.right - cells.left
        data = y.data + (tiles.top // all.rows % y.N * y.at.image + part.first + first * y.at.channel
                         + cells.top * y.at.row + cells.left * y.at.cell) * y.item
        if y.in_place:
            cells.data, cells.row, cells.cell = data, y.at.row, y.at.cell
        else:
            cells.data, cells.row, cells.cell = band, width * y.band_row, y.band_row
        for i in range(rows):
            if not kernels.winograd_outputs(all.tile, points, y.row, y.matrix, min(whole, y.row), bias, relu, &cells,
                                            all.tile * (row + i), cells.left, tiles.columns, nowhere):
                finite = False
            points += row_bytes
        if not y.in_place:
            if y.at.row == width * y.at.cell:
                width, height = height * width, 1
            for i in range(height):
                kernels.copy_matrix(filters, width, band + i * cells.row * y.item, 1, y.band_row,
                                    data + i * y.at.row * y.item, y.at.channel, y.at.cell)
        tiles.top += rows
    return finite


# ------------------------------------------------------------------------------------ forward and input gradient

cdef struct Product:
    const Kernels *kernels
    bint relu
    Image x, y
    Tiling tiles
    const char *bias  # with room for whole panels
    char *weights
    Py_ssize_t width, panels, panel_bytes  # filters of a panel
    Py_ssize_t matrix  # of the weights: from one of the 36 to the next
    Py_ssize_t panels_at_once, panels_of_chunk, chunks_of_panels
    Py_ssize_t first_panel, panels_now  # of the weights that there are now
    char *scratch
    Py_ssize_t scratch_bytes, x_bytes, y_bytes, packed_bytes
    char *kept  # transformed cells of all chunks, each x_bytes; or NULL
    Py_ssize_t kept_bytes
    unsigned char *is_finite  # of each chunk
    const char *raw_weights
    Py_ssize_t weight_step[4]  # from filter to filter, channel, row and column
    bint flipped  # the last tap first
    Py_ssize_t packs


cdef void set_sizes(Product *job, Py_ssize_t taps, Py_ssize_t N):
    """Cut a product into chunks; x and y have sizes."""
    cdef Py_ssize_t item = job.x.item, line = LINE // item, NR = job.kernels.NR, C = job.x.C, F = job.y.C, pieces, tiles
    job.panels = (F + NR - 1) // NR
    job.width = min(NR, up((F + job.panels - 1) // job.panels, line))
    job.panels = (F + job.width - 1) // job.width
    job.matrix = C * job.width | line
    job.panel_bytes = POINTS * job.matrix * item
    job.panels_at_once = min(job.panels, max(1, WEIGHT_BYTES // job.panel_bytes))
    job.tiles = tiling_for(taps, N, job.y.at.rows, job.y.at.columns, POINTS * (job.x.row + job.width) * item)
    pieces = max(1, FEW_CHUNKS // job.tiles.chunks)
    job.packs = (C + PACK_CHANNELS - 1) // PACK_CHANNELS
    job.packed_bytes = up(min(PACK_CHANNELS, C) * taps * taps * job.width * item, LINE)
    tiles = job.tiles.chunk_rows * job.tiles.chunk_columns
    job.y.row = job.y.band_row = job.width
    job.x.matrix, job.y.matrix = tiles * job.x.row | line, tiles * job.y.row | line
    job.x_bytes, job.y_bytes = up(POINTS * job.x.matrix * item, LINE), up(POINTS * job.y.matrix * item, LINE)
    job.kept_bytes = job.tiles.chunks * job.x_bytes
    if job.panels_at_once == job.panels and min(pieces, job.panels) == 1 or job.kept_bytes > KEPT_BYTES:
        job.kept_bytes = 0
    else:
        job.panels_at_once = min(job.panels_at_once, max(1, KEPT_WEIGHT_BYTES // job.panel_bytes))
    job.panels_of_chunk = (job.panels_at_once + pieces - 1) // pieces
    job.scratch_bytes = job.y_bytes + (0 if job.kept_bytes else job.x_bytes) + max(
        job.packed_bytes, band_bytes(&job.tiles, &job.x), band_bytes(&job.tiles, &job.y) + up(job.width * item, LINE))


cdef void packing_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    """Transform the weights of a panel of filters and some channels."""
    cdef Product *job = <Product *>context
    cdef Py_ssize_t panel = i // job.packs, c = i % job.packs * PACK_CHANNELS, item = job.x.item
    cdef Py_ssize_t C = min(PACK_CHANNELS, job.x.C - c), first = (job.first_panel + panel) * job.width
    cdef char *packed = job.scratch + thread * job.scratch_bytes
    place_weights(job, first, min(job.width, job.y.C - first), c, C, packed)
    job.kernels.winograd_weights(job.tiles.taps, packed, C, job.width,
                                 job.weights + panel * job.panel_bytes + c * job.width * item, job.matrix)


cdef void place_weights(Product *job, Py_ssize_t first, Py_ssize_t filters, Py_ssize_t c, Py_ssize_t C,
                        char *packed) noexcept nogil:
    """Place weights as [channel][tap][filter], of flipped kernels the last tap first; 0 where there is no filter."""
    cdef Py_ssize_t *step = job.weight_step
    cdef Py_ssize_t taps = job.tiles.taps, item = job.x.item, all_taps = taps * taps, row = job.width
    cdef Py_ssize_t rows = taps, pieces = taps, i, k
    cdef const char *data = job.raw_weights + (first * step[0] + c * step[1]) * item
    if filters < job.width:
        memset(packed, 0, C * all_taps * job.width * item)
    if job.flipped:
        packed += (all_taps - 1) * job.width * item
        row = -row
    if step[2] == taps * step[3]:  # the rows of a kernel follow each other, and so may the kernels
        rows, pieces = all_taps, 1
        if step[1] == all_taps * step[3] and not job.flipped:
            rows, C = C * all_taps, 1
    for i in range(C):
        for k in range(pieces):
            job.kernels.copy_matrix(rows, filters, data + (i * step[1] + k * step[2]) * item, step[3], step[0],
                                    packed + (i * all_taps * job.width + k * taps * row) * item, row, 1)


cdef void kept_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    """Transform the cells of a chunk of tiles, to keep them."""
    cdef Product *job = <Product *>context
    transform(job.kernels, &job.x, &job.tiles, chunk_of(&job.tiles, i), job.kept + i * job.x_bytes,
              job.scratch + thread * job.scratch_bytes)


cdef void product_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    cdef Product *job = <Product *>context
    cdef Py_ssize_t place = i // job.chunks_of_panels, panel = i % job.chunks_of_panels * job.panels_of_chunk
    cdef Py_ssize_t last = min(panel + job.panels_of_chunk, job.panels_now), item = job.x.item, first, filters, k
    cdef Chunk tiles = chunk_of(&job.tiles, place)
    cdef char *m = job.scratch + thread * job.scratch_bytes
    cdef char *band = m + job.y_bytes
    cdef char *v = job.kept + place * job.x_bytes if job.kept else m + job.scratch_bytes - job.x_bytes
    cdef Left a = Left(NULL, job.x.row * job.kernels.MR, job.x.row, 1, NULL, NULL)
    cdef Right b = Right(NULL, 0, job.width, NULL, NULL)
    cdef Target c = Target(NULL, job.y.row, False, NULL, NULL, False, NULL, False)
    if not job.kept:
        transform(job.kernels, &job.x, &job.tiles, tiles, v, band)
    while panel < last:
        first = (job.first_panel + panel) * job.width
        filters = min(job.width, job.y.C - first)
        for k in range(POINTS):
            a.data = v + k * job.x.matrix * item
            b.data = job.weights + panel * job.panel_bytes + k * job.matrix * item
            c.data = m + k * job.y.matrix * item
            job.kernels.multiply((tiles.bottom - tiles.top) * tiles.columns, min(job.width, up(filters, LINE // item)),
                                 job.x.C, &a, &b, &c)
        if not transform_back(job.kernels, m, &job.y, &job.tiles, tiles, first, filters, job.bias + first * item,
                              job.relu, band):
            job.is_finite[place] = False  # only ever cleared, by whoever sees one
        panel += 1


cdef int workers_for(Py_ssize_t scratch_bytes):
    """How many threads may work, for whom there is memory."""
    return max(1, min(thread_count(), SCRATCH_BYTES // scratch_bytes))


def _product(conv, x_nchw, w_fckk, bint transposed, b, bint relu, y_nchw):
    """Compute y = relu(b + x * w), of one group; tell which images are finite."""
    cdef View x = View(x_nchw), y = View(y_nchw), weights = View(w_fckk)
    cdef Images seen = Images(conv, x, True, transposed), outputs = Images(conv, y, False, transposed)
    cdef Product job
    cdef Py_ssize_t item = x_nchw.itemsize, n
    job.kernels, job.relu = kernels_for(conv.dtype), relu
    job.x, job.y = seen.image, outputs.image
    set_sizes(&job, weights.shape[2], len(seen.parts) * x.shape[0])

    zeros = np.zeros(max(job.x.row, job.panels * job.width), conv.dtype)
    bias = zeros.copy()
    bias[:job.y.C] = b
    cdef View zeros_view = View(zeros), bias_view = View(bias)
    job.x.zeros, job.bias = zeros_view.data, bias_view.data
    finite = np.ones(job.tiles.chunks, np.uint8)
    cdef unsigned char[::1] flags = finite
    job.is_finite = &flags[0]
    job.raw_weights, job.weight_step, job.flipped = weights.data, weights.step, transposed

    cdef int workers = workers_for(job.scratch_bytes)
    cdef Py_ssize_t more = job.kernels.NR * item  # that a product may read beyond the last row
    cdef Memory scratch = Memory(workers * job.scratch_bytes)
    cdef Memory transformed = Memory(job.panels_at_once * job.panel_bytes + more)
    cdef Memory kept = Memory(job.kept_bytes)
    job.scratch, job.weights, job.kept = scratch.data, transformed.data, kept.data if job.kept_bytes else NULL
    if job.kept:
        run(kept_chunk, &job, job.tiles.chunks, workers)
    job.first_panel = 0
    while job.first_panel < job.panels:
        job.panels_now = min(job.panels_at_once, job.panels - job.first_panel)
        job.chunks_of_panels = (job.panels_now + job.panels_of_chunk - 1) // job.panels_of_chunk
        run(packing_chunk, &job, job.panels_now * job.packs, workers)
        run(product_chunk, &job, job.tiles.chunks * job.chunks_of_panels, workers)
        job.first_panel += job.panels_at_once
    images = np.ones(job.tiles.N, bool)
    for n in np.flatnonzero(finite == 0) // job.tiles.chunks_of_columns * job.tiles.chunk_rows:
        images[n // job.tiles.rows:(n + job.tiles.chunk_rows - 1) // job.tiles.rows + 1] = False
    return images.reshape(-1, x.shape[0]).all(0)


def _by_groups(conv, x, w_gfckk, transposed, b, relu, y, again):
    """Compute y = relu(b + x * w) group by group, and images that are not finite ``again``."""
    if 0 in y.shape:
        return
    finite = np.ones(len(x), bool)
    F, C = w_gfckk.shape[1:3]
    for g, w_fckk in enumerate(w_gfckk):
        f, c = slice(g * F, (g + 1) * F), slice(g * C, (g + 1) * C)
        finite &= _product(conv, x[:, c], w_fckk, transposed, b[f], relu, y[:, f])
    if not finite.all():
        n = np.flatnonzero(~finite)
        images = slice(n.min(), n.max() + 1)
        again(x[images], y[images])


def forward(conv, x, w, b, bint relu, y):
    """Compute ``y = relu(x * w + b)``."""
    _by_groups(conv, x, _grouped(conv, w), False, b, relu, y,
               lambda x, y: _tiled.forward(conv, x, w, b, relu, y))


def input_gradient(conv, dy, w, b, bint relu, dx):
    """Compute ``dx = relu(what dy scatters through w + b)``."""
    _by_groups(conv, dy, _grouped(conv, w).transpose(0, 2, 1, 3, 4), True, b, relu, dx,
               lambda dy, dx: _tiled.input_gradient(conv, dy, w, b, relu, dx))


def _grouped(conv, w):
    return w.reshape(conv.groups, conv.F // conv.groups, *w.shape[1:])


# ---------------------------------------------------------------------------------------------- weight gradient

cdef struct Correlation:
    const Kernels *kernels
    Image x, dy
    Tiling tiles
    Py_ssize_t filters  # at once
    Py_ssize_t chunk_tiles, tile_bytes, chunks_at_once  # of a block
    Py_ssize_t first_chunk, chunks_now
    bint x_is_there  # transformed for other filters before
    char *x_points  # of a block
    char *dy_points
    char *sums  # F x C for each of 36
    char *dw
    Py_ssize_t parts  # of the filters, in products
    Py_ssize_t sums_row, sums_matrix
    char *scratch
    Py_ssize_t scratch_bytes


cdef void block_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    """Transform a chunk of x and of dy, and fill it with tiles of 0."""
    cdef Correlation *job = <Correlation *>context
    cdef Chunk tiles = chunk_of(&job.tiles, job.first_chunk + i)
    cdef Py_ssize_t count = (tiles.bottom - tiles.top) * tiles.columns
    cdef char *band = job.scratch + thread * job.scratch_bytes
    if not job.x_is_there:
        place_points(job, &job.x, tiles, count, job.x_points + i * job.chunk_tiles * job.x.row * job.x.item, band)
    place_points(job, &job.dy, tiles, count, job.dy_points + i * job.chunk_tiles * job.dy.row * job.dy.item, band)


cdef void place_points(const Correlation *job, const Image *x, Chunk tiles, Py_ssize_t count, char *points,
                       char *band) noexcept nogil:
    cdef Py_ssize_t k
    transform(job.kernels, x, &job.tiles, tiles, points, band)
    if count < job.chunk_tiles:
        for k in range(POINTS):
            memset(points + (k * x.matrix + count * x.row) * x.item, 0, (job.chunk_tiles - count) * x.row * x.item)


cdef void correlation_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    """Add to the sums of one of 36 numbers, for some filters, what a block contributes."""
    cdef Correlation *job = <Correlation *>context
    cdef Py_ssize_t k = i // job.parts, f = i % job.parts * BLOCK_FILTERS, item = job.x.item
    cdef Left a = Left(job.dy_points + (k * job.dy.matrix + f) * item, job.kernels.MR, 1, job.dy.row, NULL, NULL)
    cdef Right b = Right(job.x_points + k * job.x.matrix * item, job.kernels.NR, job.x.row, NULL, NULL)
    cdef Target c = Target(job.sums + (k * job.sums_matrix + f * job.sums_row) * item, job.sums_row,
                           job.first_chunk > 0, NULL, NULL, False, NULL, False)
    job.kernels.multiply(min(BLOCK_FILTERS, job.dy.C - f), job.x.band_row, job.chunks_now * job.chunk_tiles, &a, &b, &c)


cdef void sums_chunk(void *context, Py_ssize_t i, int thread) noexcept nogil:
    """Transform the sums of a filter."""
    cdef Correlation *job = <Correlation *>context
    cdef Py_ssize_t taps = job.tiles.taps
    job.kernels.winograd_weight_gradient(taps, job.sums + i * job.sums_row * job.x.item, job.sums_matrix, job.x.C,
                                         job.dw + i * job.x.C * taps * taps * job.x.item)


cdef void set_weight_sizes(Correlation *job, Py_ssize_t taps, Py_ssize_t N):
    """Cut the weight gradient into filters at once, chunks and blocks; x and dy have sizes."""
    cdef Py_ssize_t item = job.x.item, line = LINE // item, block_bytes = BLOCK_BYTES
    if POINTS * job.dy.C * job.x.row * item > MANY_SUMS_BYTES:
        block_bytes = ONE_BLOCK_BYTES
        cut(job, taps, N, ONE_BLOCK_SUMS_BYTES)
        if job.tiles.chunks * job.chunk_tiles * job.tile_bytes > block_bytes:
            block_bytes = LONG_BLOCK_BYTES
    if block_bytes < ONE_BLOCK_BYTES:
        cut(job, taps, N, WEIGHT_BYTES)
    job.sums_row, job.sums_matrix = job.x.row, job.filters * job.x.row | line
    job.chunks_at_once = max(1, min(job.tiles.chunks, block_bytes // (job.chunk_tiles * job.tile_bytes)))
    job.x.matrix = job.chunks_at_once * job.chunk_tiles * job.x.row | line
    job.dy.matrix = job.chunks_at_once * job.chunk_tiles * job.dy.row | line
    job.scratch_bytes = max(band_bytes(&job.tiles, &job.x), band_bytes(&job.tiles, &job.dy))


cdef void cut(Correlation *job, Py_ssize_t taps, Py_ssize_t N, Py_ssize_t sums_bytes):
    """Take filters, about as many each time, whose sums fit so many bytes; and tiles in chunks."""
    cdef Py_ssize_t item = job.x.item, line = LINE // item, most, times
    most = max(line, sums_bytes // (POINTS * job.x.row * item) // line * line)
    times = (job.dy.C + most - 1) // most
    job.filters = min(job.dy.C, up((job.dy.C + times - 1) // times, line))
    set_rows(&job.dy, job.filters)
    job.tile_bytes = POINTS * (job.x.row + job.dy.row) * item
    job.tiles = tiling_for(taps, N, job.dy.at.rows, job.dy.at.columns, job.tile_bytes)
    job.chunk_tiles = job.tiles.chunk_rows * job.tiles.chunk_columns


def _correlate(conv, x_nchw, dy_nchw, dw_fckk):
    """Add the gradient of the weights of one group to dw."""
    cdef View x = View(x_nchw), dy, gradient
    cdef Correlation job
    cdef Py_ssize_t item = x_nchw.itemsize, taps = dw_fckk.shape[2], f
    cdef Images seen = Images(conv, x, True, False), outputs = Images(conv, View(dy_nchw), False, False)
    job.kernels = kernels_for(conv.dtype)
    job.x, job.dy = seen.image, outputs.image
    set_weight_sizes(&job, taps, len(seen.parts) * x.shape[0])
    zeros = np.zeros(max(job.x.row, job.dy.row), conv.dtype)
    cdef View zeros_view = View(zeros)
    job.x.zeros = job.dy.zeros = zeros_view.data
    cdef Py_ssize_t more = job.kernels.NR * item  # that a product may read beyond the last row
    cdef int workers = workers_for(job.scratch_bytes)
    cdef Memory scratch = Memory(workers * job.scratch_bytes), sums = Memory(POINTS * job.sums_matrix * item)
    cdef Memory x_points = Memory(POINTS * job.x.matrix * item + more), dy_points = Memory(POINTS * job.dy.matrix * item)
    job.scratch, job.sums, job.x_points, job.dy_points = scratch.data, sums.data, x_points.data, dy_points.data
    for f in range(0, len(dw_fckk), job.filters):
        some = slice(f, min(f + job.filters, len(dw_fckk)))
        numbers = np.empty(dw_fckk[some].shape, conv.dtype)
        dy, gradient = View(dy_nchw[:, some]), View(numbers)
        point_at(&job.dy, dy)
        job.dw = gradient.data
        job.x_is_there = f > 0 and job.chunks_at_once == job.tiles.chunks
        correlate(&job, workers)
        if job.kernels.is_finite(gradient.data, numbers.size):
            dw_fckk[some] += numbers
        else:
            part = conv._replace(C=job.x.C, F=job.dy.C, groups=1)
            _tiled.gradients(part, x_nchw, None, dy_nchw[:, some], None, dw_fckk[some], None)


cdef int correlate(Correlation *job, int workers) except -1:
    """Set the gradient of some filters."""
    cdef Py_ssize_t parts = (job.dy.C + BLOCK_FILTERS - 1) // BLOCK_FILTERS
    job.first_chunk, job.parts = 0, parts
    while job.first_chunk < job.tiles.chunks:
        job.chunks_now = min(job.chunks_at_once, job.tiles.chunks - job.first_chunk)
        run(block_chunk, job, job.chunks_now, workers)
        run(correlation_chunk, job, POINTS * parts, workers)
        job.first_chunk += job.chunks_at_once
    return run(sums_chunk, job, job.dy.C, workers)


def weight_gradient(conv, x, dy, dw):
    """Add to dw the gradient of the weights."""
    C, F = conv.C // conv.groups, conv.F // conv.groups
    for g in range(conv.groups):
        c, f = slice(g * C, (g + 1) * C), slice(g * F, (g + 1) * F)
        _correlate(conv, x[:, c], dy[:, f], dw[f])


def gradients(conv, x, w, dy, dx, dw, db):
    """Set dx and add to dw and db (those that are not None) what dy contributes."""
    if dx is not None:
        input_gradient(conv, dy, w, np.zeros(conv.C, conv.dtype), False, dx)
    if dw is not None and dy.shape[0]:
        weight_gradient(conv, x, dy, dw)
    if db is not None:
        _tiled.gradients(conv, None, None, dy, None, None, db)


# ------------------------------------------------------------------------------------ what it can do, and what it costs

def why_not(conv):
    """Return why it cannot do this problem, or None."""
    if conv.window.kernel not in ((3, 3), (5, 5)):
        return "its kernel is neither 3x3 nor 5x5"
    if any(axis.stride != 1 for axis in conv.window):
        return "its stride is not 1"
    if any(axis.dilation > min(axis.size, axis.output) for axis in conv.window):
        return "its dilation steps over the image"
    if conv.window[0].dilation * conv.window[1].dilation > MOST_PARTS:
        return f"its dilation parts the image into more than {MOST_PARTS}"
    if max(conv.C, conv.F) // conv.groups > MOST_CHANNELS:
        return f"a group has more than {MOST_CHANNELS} channels or filters"
    return None


def why_slower(conv):
    """Return why `tiled` is faster, or None: by forward, or by that and the input gradient; dw is like forward."""
    cdef bint many = conv.layout == "NCHW" and conv.groups == 1 and conv.N >= LINE // conv.itemsize
    conv = _undilated(conv)
    h, v = conv.window
    cdef Py_ssize_t line = LINE // conv.itemsize, outputs = h.output * v.output, cells = h.size * v.size
    cdef double forward, both, fixed, taps = h.kernel * v.kernel
    cdef bint abreast = many and max(cells, outputs) <= ABREAST_CELLS
    cdef double inside = _taps_inside(h) * _taps_inside(v)
    forward = _saved(conv, h.output, v.output, inside if abreast else taps * outputs)
    both = forward + _saved(conv, h.size, v.size, inside if abreast else taps * cells)
    if min(forward, both) <= 0:
        return "so few channels, filters or outputs gain less than transforming them costs"
    fixed = WEIGHT_COST * (conv.C // conv.groups) * (conv.F // conv.groups) + CALL_COST * line
    if forward <= fixed or both <= 2 * fixed:
        return "so few outputs gain less than transforming the weights costs"
    return None


def _undilated(conv):
    """A convolution of dilation 1, with all parts of the images for images."""
    h, v = conv.window
    window = (axis._replace(size=-(-axis.size // axis.dilation), output=-(-axis.output // axis.dilation),
                            pad_before=axis.pad_before // axis.dilation, dilation=1) for axis in (h, v))
    return conv._replace(N=conv.N * h.dilation * v.dilation, window=type(conv.window)(*window))


def _saved(conv, rows, columns, taps):
    """Multiplications of the taps of so many outputs that are saved, less what transforming cells and outputs costs."""
    cdef Py_ssize_t line = LINE // conv.itemsize, tile = tile_of(conv.window[0].kernel)
    cdef Py_ssize_t c = conv.C // conv.groups, f = conv.F // conv.groups
    cdef double tiles = ((rows + tile - 1) // tile) * ((columns + tile - 1) // tile)
    return conv.N * (c * f * (taps - POINTS * tiles) - tiles * TRANSFORM_COST * (up(c, line) + up(f, line)))


def _taps_inside(axis):
    """How many pairs of an output and a tap see a cell of the image."""
    return sum(max(0, min(axis.output, axis.size + axis.pad_before - k) - max(0, axis.pad_before - k))
               for k in range(axis.kernel))


def workspace_bytes(conv):
    """Bytes that the largest of the three passes takes beyond its inputs and results."""
    cdef Product job
    cdef Correlation weights
    cdef Py_ssize_t item = conv.itemsize, most = _tiled.workspace_bytes(conv), F, C, tiny
    conv = _undilated(conv)
    h, v = conv.window
    cdef Py_ssize_t taps = h.kernel
    C, F = conv.C // conv.groups, conv.F // conv.groups
    job.kernels = weights.kernels = kernels_for(conv.dtype)
    image = C, h.size, v.size
    output = F, h.output, v.output
    for x, y in ((image, output), (output, image)):
        job.x, job.y = image_of(x, item, SIDE), image_of(y, item, tile_of(taps))
        set_sizes(&job, taps, conv.N)
        tiny = job.tiles.chunks + conv.N
        most = max(most, workers_for(job.scratch_bytes) * job.scratch_bytes + job.panels_at_once * job.panel_bytes
                   + job.kept_bytes + tiny)
    weights.x, weights.dy = image_of(image, item, SIDE), image_of((F, h.output, v.output), item, tile_of(taps))
    set_weight_sizes(&weights, taps, conv.N)
    return max(most, workers_for(weights.scratch_bytes) * weights.scratch_bytes
               + POINTS * (weights.sums_matrix + weights.x.matrix + weights.dy.matrix) * item
               + weights.filters * C * taps * taps * item)
