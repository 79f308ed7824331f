/* The table of vector kernels that each instruction set exports, once for float32 and once for float64.

   Sizes and steps are in elements, not bytes. Nothing here allocates, and nothing outside of the arrays is read. */
#ifndef CNNFAST_KERNELS_H
#define CNNFAST_KERNELS_H

#include <stddef.h>

/* A (M x K) of a product: element (m, k) is at data + m / MR * tile + m % MR * row + k * step. Either row or step is 1:
   packed tiles of MR rows, or a matrix in place. */
typedef struct {
    const void *data;
    ptrdiff_t tile, row, step;
} Left;

/* B (K x N): row k of panel j, NR numbers, is at data + j * panel + k * row; all NR can be read. */
typedef struct {
    const void *data;
    ptrdiff_t panel, row;
} Right;

/* What happens to C (M x N, rows `row` apart) around the sum of products. */
typedef struct {
    void *data;
    ptrdiff_t row;
    int add;              /* start from what is there */
    const void *row_bias; /* or from a number for each row, */
    const void *column_bias; /* or for each column, */
    int relu;             /* and end with ReLU, in which NaN stays NaN */
} Target;

/* How windows look at an image (n, c, h, w): output (i, j) sees through tap t the cell
   (i * stride_h + tap_h[t], j * stride_w + tap_w[t]), if it is inside. Outputs are numbered through all images. */
typedef struct {
    ptrdiff_t rows, columns; /* outputs of an image */
    ptrdiff_t stride_h, stride_w;
    ptrdiff_t H, W;
    ptrdiff_t image, channel, row, cell; /* steps of the image */
    ptrdiff_t channels, taps;
    const ptrdiff_t *tap_h, *tap_w;
    const ptrdiff_t *first, *end; /* of tap t, the columns of outputs that see a cell of the image through it */
    ptrdiff_t neighbours; /* taps in a row whose cells lie side by side, or 1 */
} Windows;

/* Where outputs are put: image n, channel c, row i, column j of the outputs, at data + the sum of these steps. */
typedef struct {
    ptrdiff_t rows, columns;
    ptrdiff_t image, channel, row, cell;
} Places;

/* Part of an image, rows `top` to `bottom` - 1 and columns `left` to `right` - 1 of cells whose channels lie side by
   side: cell (h, w) is at data + (h - top) * row + (w - left) * cell. */
typedef struct {
    void *data;
    ptrdiff_t top, bottom, left, right, row, cell;
} Cells;

typedef struct {
    int MR, NR; /* rows of a tile of C, and columns, in registers */
    /* C = or += A B, with bias and ReLU. */
    void (*multiply)(ptrdiff_t M, ptrdiff_t N, ptrdiff_t K, Left a, Right b, Target c);
    /* Panels of `width` rows of a matrix, side by side for each k: to[o / width * panel + k * width + o % width] =
       from[o * row + offset[k]]; the last panel is filled with 0. */
    void (*pack)(const void *from, ptrdiff_t row, const ptrdiff_t *offset, ptrdiff_t rows, ptrdiff_t K, void *to,
                 ptrdiff_t width, ptrdiff_t panel);
    /* Whether so many numbers are all finite. */
    int (*is_finite)(const void *numbers, ptrdiff_t count);
    /* columns[k][q] for outputs q0 to q0 + count - 1, in panels of NR outputs; k = c * taps + t from k0 to k1 - 1. */
    void (*gather_columns)(const Windows *g, const void *x, ptrdiff_t k0, ptrdiff_t k1, ptrdiff_t q0, ptrdiff_t count,
                           void *columns, ptrdiff_t panel, ptrdiff_t row);
    /* rows[q][k], with k = t * channels + c. */
    void (*gather_rows)(const Windows *g, const void *x, ptrdiff_t k0, ptrdiff_t k1, ptrdiff_t q0, ptrdiff_t count,
                        void *rows, ptrdiff_t row);
    /* Back again: add all of columns[k][q], or of rows[q][k], to the cells that they would have been gathered from. */
    void (*add_columns)(const Windows *g, void *x, ptrdiff_t q0, ptrdiff_t count, const void *columns, ptrdiff_t row);
    void (*add_rows)(const Windows *g, void *x, ptrdiff_t q0, ptrdiff_t count, const void *rows, ptrdiff_t row);
    /* y at places q0 to q0 + count - 1 of C channels from a buffer of channels and outputs with these steps. */
    void (*scatter)(const Places *p, void *y, ptrdiff_t q0, ptrdiff_t count, ptrdiff_t C, const void *buffer,
                    ptrdiff_t channel, ptrdiff_t output);
    /* to[r * to_row + c * to_column] = from[r * from_row + c * from_column]. */
    void (*copy_matrix)(ptrdiff_t rows, ptrdiff_t columns, const void *from, ptrdiff_t from_row,
                        ptrdiff_t from_column, void *to, ptrdiff_t to_row, ptrdiff_t to_column);
    /* Winograd's transforms. Matrix i of the 36 is at data + i * matrix, with a row for each tile, or for each channel
       of the weights. Neighbouring tiles begin at cells (h, w), (h, w + 4), ...; cells outside of those that there are
       count as `zeros`, and are written to `nowhere`: a row of channels. Channels come in whole vectors.
       Of tiles of `size` (6 for cells, 4 for gradients of outputs), */
    void (*winograd_tiles)(int size, const Cells *x, ptrdiff_t h, ptrdiff_t w, ptrdiff_t tiles, ptrdiff_t C,
                           const void *zeros, void *to, ptrdiff_t row, ptrdiff_t matrix);
    /* of weights [C][3][3][width], */
    void (*winograd_weights)(const void *w, ptrdiff_t C, ptrdiff_t width, void *to, ptrdiff_t matrix);
    /* back to tiles of outputs, telling whether all are finite, */
    int (*winograd_outputs)(const void *from, ptrdiff_t row, ptrdiff_t matrix, ptrdiff_t F, const void *bias, int relu,
                            const Cells *y, ptrdiff_t h, ptrdiff_t w, ptrdiff_t tiles, void *nowhere);
    /* and back to the gradient [C][3][3] of the weights of a filter. */
    void (*winograd_weight_gradient)(const void *from, ptrdiff_t matrix, ptrdiff_t C, void *to);
} Kernels;

typedef struct {
    const char *name;
    int (*runs_here)(void);
    const Kernels *float32, *float64;
} InstructionSet;

extern const InstructionSet *const instruction_sets[]; /* those that were built, fastest first, ended by NULL */

#endif
