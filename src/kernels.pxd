# What Cython needs to know of simd/kernels.h and threads.h.

cdef extern from "simd/kernels.h" nogil:
    ctypedef struct Left:
        const void *data
        Py_ssize_t tile, row, step

    ctypedef struct Right:
        const void *data
        Py_ssize_t panel, row

    ctypedef struct Target:
        void *data
        Py_ssize_t row
        bint add
        const void *row_bias
        const void *column_bias
        bint relu

    ctypedef struct Windows:
        Py_ssize_t rows, columns, stride_h, stride_w, H, W, image, channel, row, cell, channels, taps
        const Py_ssize_t *tap_h
        const Py_ssize_t *tap_w
        const Py_ssize_t *first
        const Py_ssize_t *end
        Py_ssize_t neighbours

    ctypedef struct Places:
        Py_ssize_t rows, columns, image, channel, row, cell

    ctypedef struct Cells:
        void *data
        Py_ssize_t top, bottom, left, right, row, cell

    ctypedef struct Kernels:
        int MR, NR
        void (*multiply)(Py_ssize_t M, Py_ssize_t N, Py_ssize_t K, Left a, Right b, Target c) noexcept nogil
        void (*pack)(const void *source, Py_ssize_t row, const Py_ssize_t *offset, Py_ssize_t rows, Py_ssize_t K,
                     void *to, Py_ssize_t width, Py_ssize_t panel) noexcept nogil
        bint (*is_finite)(const void *numbers, Py_ssize_t count) noexcept nogil
        void (*gather_columns)(const Windows *g, const void *x, Py_ssize_t k0, Py_ssize_t k1, Py_ssize_t q0,
                               Py_ssize_t count, void *columns, Py_ssize_t panel, Py_ssize_t row) noexcept nogil
        void (*gather_rows)(const Windows *g, const void *x, Py_ssize_t k0, Py_ssize_t k1, Py_ssize_t q0,
                            Py_ssize_t count, void *rows, Py_ssize_t row) noexcept nogil
        void (*add_columns)(const Windows *g, void *x, Py_ssize_t q0, Py_ssize_t count, const void *columns,
                            Py_ssize_t row) noexcept nogil
        void (*add_rows)(const Windows *g, void *x, Py_ssize_t q0, Py_ssize_t count, const void *rows,
                         Py_ssize_t row) noexcept nogil
        void (*scatter)(const Places *p, void *y, Py_ssize_t q0, Py_ssize_t count, Py_ssize_t C, const void *buffer,
                        Py_ssize_t channel, Py_ssize_t output) noexcept nogil
        void (*copy_matrix)(Py_ssize_t rows, Py_ssize_t columns, const void *source, Py_ssize_t from_row,
                            Py_ssize_t from_column, void *to, Py_ssize_t to_row, Py_ssize_t to_column) noexcept nogil
        void (*winograd_tiles)(int size, const Cells *x, Py_ssize_t h, Py_ssize_t w, Py_ssize_t tiles,
                               Py_ssize_t C, const void *zeros, void *to, Py_ssize_t row, Py_ssize_t matrix) noexcept nogil
        void (*winograd_weights)(const void *w, Py_ssize_t C, Py_ssize_t width, void *to,
                                 Py_ssize_t matrix) noexcept nogil
        bint (*winograd_outputs)(const void *source, Py_ssize_t row, Py_ssize_t matrix, Py_ssize_t F, const void *bias,
                                 bint relu, const Cells *y, Py_ssize_t h, Py_ssize_t w, Py_ssize_t tiles,
                                 void *nowhere) noexcept nogil
        void (*winograd_weight_gradient)(const void *source, Py_ssize_t matrix, Py_ssize_t C, void *to) noexcept nogil

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
