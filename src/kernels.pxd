# What Cython needs to know of simd/kernels.h and threads.h.

from libc.stdint cimport int64_t

cdef extern from "simd/kernels.h" nogil:
    enum: MOST_OUTPUTS

    ctypedef struct Left:
        const void *data
        Py_ssize_t tile, row, step
        const Py_ssize_t *place
        const Py_ssize_t *offset

    ctypedef struct Right:
        const void *data
        Py_ssize_t panel, row
        const void *next
        const Py_ssize_t *place

    ctypedef struct Vectors:
        const void *data
        Py_ssize_t row
        const Py_ssize_t *place
        const Py_ssize_t *to
        const Py_ssize_t *offset
        Py_ssize_t taps
        const Py_ssize_t *tap

    ctypedef struct Target:
        void *data
        Py_ssize_t row
        bint add
        const void *row_bias
        const void *column_bias
        bint relu
        const Py_ssize_t *place
        bint far

    ctypedef struct Windows:
        Py_ssize_t rows, columns, stride_h, stride_w, H, W, image, channel, row, cell, channels, taps
        const Py_ssize_t *tap_h
        const Py_ssize_t *tap_w
        const Py_ssize_t *first
        const Py_ssize_t *end
        Py_ssize_t neighbours

    ctypedef struct Run:
        Py_ssize_t image, row, column, count, first, columns

    ctypedef struct Padded:
        Py_ssize_t stride_h, stride_w, step_h, step_w, H, W, image, channel, row, cell, rows
        Py_ssize_t low_h, low_w, span_h, span_w, phases
        const Py_ssize_t *phase_h
        const Py_ssize_t *phase_w
        Py_ssize_t width, plane, taps
        const Py_ssize_t *offset

    ctypedef struct Unfolding:
        Py_ssize_t rows, columns, KH, KW, stride_h, stride_w, dilation_h, top, left, H, W, image, channel, row, cell
        Py_ssize_t channels, most, line

    ctypedef struct Places:
        Py_ssize_t rows, columns, image, channel, row, cell

    ctypedef struct Taps:
        Py_ssize_t KH, KW, top, left, dilation_h, dilation_w, rows, columns, before
        const Py_ssize_t *column

    ctypedef struct Depthwise:
        const void *x_data
        const void *x_end
        void *y_data
        Places x, y
        const void *weights
        const void *bias
        bint relu, by_channels, adjacent, in_place, far
        Py_ssize_t images, groups, vectors, channels, filters, y_channels
        Py_ssize_t stride_h, stride_w, phases_h, phases_w, all_taps
        const Taps *taps
        Py_ssize_t band, block, blocks
        Py_ssize_t top, left, reach_h, reach_w, pitch, slots, slot
        Py_ssize_t strips, width
        const Py_ssize_t *to
        const Py_ssize_t *source
        const Py_ssize_t *count
        Py_ssize_t out_width, source_size, out_size

    ctypedef struct Cells:
        void *data
        Py_ssize_t top, bottom, left, right, row, cell

    ctypedef struct Images:
        void *data
        Places at
        bint together

    ctypedef struct Norm:
        Images x, dy, y
        bint by_pixels
        Py_ssize_t channels, shared, image
        const double *center
        const double *unit
        const double *factor
        const double *shift
        const double *dy_factor

    enum: TAKE_MAX
    enum: TAKE_PLACE
    enum: TAKE_SUM
    enum: TIES_FIRST
    enum: TIES_ALL
    enum: TIES_SPLIT
    enum: MOST_BYTE

    ctypedef struct Slide:
        Py_ssize_t size, kernel, output, stride, before, dilation, reach, first, all, block, blocks, cells

    ctypedef struct Pool:
        int take
        bint doubled_h, doubled_w, in_place, direct
        Slide h, w
        Py_ssize_t channels, width, blocks
        void *x
        void *y
        Places x_at, y_at, place_at, seen_at
        unsigned char *bytes
        int64_t *indices
        const Py_ssize_t *index
        const Py_ssize_t *place_h
        const Py_ssize_t *place_w
        const void *seen
        Py_ssize_t row, end_row
        int ties, zero
        const double *rows
        const double *columns
        Py_ssize_t phases, group, line, phase, held, held_at, out_at, divisors_at, twin
        const Py_ssize_t *residue
        const Py_ssize_t *tap_h
        const Py_ssize_t *tap_w
        const Py_ssize_t *first_h
        const Py_ssize_t *first_w

    ctypedef struct Kernels:
        int MR, NR, lanes
        void (*multiply)(Py_ssize_t M, Py_ssize_t N, Py_ssize_t K, const Left *a, const Right *b,
                         const Target *c) noexcept nogil
        void (*multiply_vectors)(Py_ssize_t M, Py_ssize_t vectors, Py_ssize_t K, const Left *a, const Vectors *b,
                                 const Target *c) noexcept nogil
        void (*pack)(const void *source, Py_ssize_t row, const Py_ssize_t *offset, Py_ssize_t rows, Py_ssize_t K,
                     void *to, Py_ssize_t width, Py_ssize_t panel) noexcept nogil
        bint (*is_finite)(const void *numbers, Py_ssize_t count) noexcept nogil
        void (*pad_planes)(const Padded *g, const Run *run, const void *x, Py_ssize_t channels, void *planes,
                           Py_ssize_t channel_step) noexcept nogil
        void (*pad_pixels)(const Padded *g, const Run *run, const void *x, Py_ssize_t channels,
                           void *cells) noexcept nogil
        void (*columns)(const Padded *g, const Run *run, Py_ssize_t q, Py_ssize_t count, const void *planes,
                        Py_ssize_t channel_step, Py_ssize_t channels, Py_ssize_t t0, Py_ssize_t t1, void *columns,
                        Py_ssize_t row) noexcept nogil
        void (*rows)(const Unfolding *g, const void *x, Py_ssize_t q0, Py_ssize_t count, void *lines, void *rows,
                     Py_ssize_t row) noexcept nogil
        void (*add_sums)(const void *sums, Py_ssize_t slices, Py_ssize_t slice, Py_ssize_t tap, Py_ssize_t row,
                         Py_ssize_t m0, Py_ssize_t m1, Py_ssize_t N, Py_ssize_t taps, void *to, Py_ssize_t m_step,
                         Py_ssize_t n_step, Py_ssize_t t_step) noexcept nogil
        void (*channel_sums)(const Places *p, int by_pixels, const void *y, Py_ssize_t q0, Py_ssize_t count,
                             Py_ssize_t C, double *sums) noexcept nogil
        void (*add_columns)(const Windows *g, void *x, Py_ssize_t q0, Py_ssize_t count, const void *columns,
                            Py_ssize_t row) noexcept nogil
        void (*add_rows)(const Windows *g, void *x, Py_ssize_t q0, Py_ssize_t count, const void *rows,
                         Py_ssize_t row) noexcept nogil
        void (*scatter)(const Places *p, void *y, Py_ssize_t q0, Py_ssize_t count, Py_ssize_t C, const void *buffer,
                        Py_ssize_t channel, Py_ssize_t output) noexcept nogil
        void (*depthwise)(const Depthwise *d, Py_ssize_t first_region, Py_ssize_t end_region,
                          Py_ssize_t first_group, Py_ssize_t end_group, void *scratch) noexcept nogil
        void (*depthwise_sums)(const Depthwise *d, Py_ssize_t first_group, Py_ssize_t end_group, Py_ssize_t first,
                               Py_ssize_t end, void *sums, Py_ssize_t sums_of_group, void *scratch) noexcept nogil
        void (*copy_matrix)(Py_ssize_t rows, Py_ssize_t columns, const void *source, Py_ssize_t from_row,
                            Py_ssize_t from_column, void *to, Py_ssize_t to_row, Py_ssize_t to_column) noexcept nogil
        void (*winograd_tiles)(int size, Py_ssize_t tile, const Cells *x, Py_ssize_t h, Py_ssize_t w, Py_ssize_t tiles,
                               Py_ssize_t C, const void *zeros, void *to, Py_ssize_t row, Py_ssize_t matrix) noexcept nogil
        void (*winograd_weights)(int taps, const void *w, Py_ssize_t C, Py_ssize_t width, void *to,
                                 Py_ssize_t matrix) noexcept nogil
        bint (*winograd_outputs)(int tile, const void *source, Py_ssize_t row, Py_ssize_t matrix, Py_ssize_t F,
                                 const void *bias, bint relu, const Cells *y, Py_ssize_t h, Py_ssize_t w,
                                 Py_ssize_t tiles, void *nowhere) noexcept nogil
        void (*winograd_weight_gradient)(int taps, const void *source, Py_ssize_t matrix, Py_ssize_t C,
                                         void *to) noexcept nogil
        void (*norm_sums)(const Norm *g, Py_ssize_t q, Py_ssize_t end, Py_ssize_t c0, Py_ssize_t c1, double *sums,
                          double *products) noexcept nogil
        void (*norm_scale)(const Norm *g, Py_ssize_t q, Py_ssize_t end, Py_ssize_t c0, Py_ssize_t c1) noexcept nogil
        void (*pool)(const Pool *p, Py_ssize_t first, Py_ssize_t end, void *scratch) noexcept nogil
        void (*pool_gradient)(const Pool *p, Py_ssize_t first, Py_ssize_t end, void *scratch) noexcept nogil
        void (*pool_scatter)(const Pool *p, Py_ssize_t first, Py_ssize_t end, void *scratch) noexcept nogil
        void (*pool_tiles)(const Pool *p, Py_ssize_t first, Py_ssize_t end, void *scratch) noexcept nogil
        void (*pool_overlaps)(const Pool *p, Py_ssize_t first, Py_ssize_t end, void *scratch) noexcept nogil
        void (*channel_maxima)(const Places *p, const void *image, Py_ssize_t q0, Py_ssize_t count, Py_ssize_t C,
                               void *best, int64_t *place) noexcept nogil
        void (*channel_fill)(const Places *p, bint by_pixels, void *image, Py_ssize_t q0, Py_ssize_t count,
                             Py_ssize_t C, const void *numbers) noexcept nogil
        void (*channel_means)(const double *sums, Py_ssize_t count, Py_ssize_t cells, void *means,
                              Py_ssize_t step) noexcept nogil

    ctypedef struct InstructionSet:
        const char *name
        bint (*runs_here)() noexcept nogil
        const Kernels *float32
        const Kernels *float64

    const InstructionSet *instruction_sets[]

cdef extern from "threads.h" nogil:
    enum: MOST_THREADS
    int parallel_for(void (*chunk)(void *context, Py_ssize_t i, int thread) noexcept nogil, void *context,
                     Py_ssize_t count, int threads, int (*stop)() noexcept nogil)
