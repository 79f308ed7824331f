/* The table of vector kernels that each instruction set exports, once for float32 and once for float64.

   Sizes and steps are in elements, not bytes. Nothing here allocates, and nothing outside of the arrays is read. */
#ifndef CNNFAST_KERNELS_H
#define CNNFAST_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* A (M x K) of a product: element (m, k) is at data + m / MR * tile + m % MR * row + k * step. Either row or step is 1:
   packed tiles of MR rows, or a matrix in place. Or, where there are places, it is at data + place[m] + offset[k]. */
typedef struct {
    const void *data;
    ptrdiff_t tile, row, step;
    const ptrdiff_t *place, *offset;
} Left;

/* B (K x N): row k of panel j, NR numbers, is at data + j * panel + k * row; all NR can be read. Or, where there are
   places, row k is at data + j * panel + place[k]. Where A has places, B is packed: its rows are NR apart. */
typedef struct {
    const void *data;
    ptrdiff_t panel, row;
    const void *next; /* what comes after the last panel, to be fetched ahead; or NULL */
    const ptrdiff_t *place;
} Right;

/* B whose vectors lie anywhere: vector v of row k is at data + place[v] + offset[k], and goes to number to[v] of a row
   of C. Or, where there is a list of taps, K rows for each of them: of tap t at data + place[v] + offset[t] + k * row.
   A is packed, with the numbers of all taps side by side for each k. */
typedef struct {
    const void *data;
    ptrdiff_t row;
    const ptrdiff_t *place, *to;
    const ptrdiff_t *offset;
    ptrdiff_t taps;
    const ptrdiff_t *tap;
} Vectors;

/* What happens to C (M x N, rows `row` apart) around the sum of products. */
typedef struct {
    void *data;
    ptrdiff_t row;
    int add;              /* start from what is there */
    const void *row_bias; /* or from a number for each row, */
    const void *column_bias; /* or for each column, */
    int relu;             /* and end with ReLU, in which NaN stays NaN */
    const ptrdiff_t *place; /* of rows of C, where those of A have places too, instead of `row` */
    int far;              /* whether C lies beyond the near caches: it is fetched while the sums are made */
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

enum { MOST_OUTPUTS = 384 }; /* of a run; a multiple of every tile's columns */

/* A run of `count` outputs, in the order of all outputs, from (image, row, column) on. Of their rows, the columns
   `first` to first + columns - 1 are of interest: all of them, or else the run is part of one row. */
typedef struct {
    ptrdiff_t image, row, column, count;
    ptrdiff_t first, columns;
} Run;

/* How outputs see an image (n, c, h, w) of which the rows are copied phase by phase, see padded.h. Output (i, j) sees
   through tap t the number at offset[t] + slot * width + (j - first) * step_w, where slot grows by step_h from row to
   row of outputs, and by span_h + 1 where an image begins. Cell (slot, w) of phase p is that of the image at
   ((i * step_h + low_h) * stride_h + phase_h[p], (first * step_w + w + low_w) * stride_w + phase_w[p]). */
typedef struct {
    ptrdiff_t stride_h, stride_w; /* of a phase */
    ptrdiff_t step_h, step_w; /* from output to output in a phase: 1, or the stride of the outputs if that is all */
    ptrdiff_t H, W;
    ptrdiff_t image, channel, row, cell; /* steps of the image */
    ptrdiff_t rows; /* of outputs in an image */
    ptrdiff_t low_h, low_w, span_h, span_w; /* where the first tap is, and from there to the last */
    ptrdiff_t phases;
    const ptrdiff_t *phase_h, *phase_w;
    ptrdiff_t width, plane; /* from row to row, and from phase to phase; of pixels, times the channels */
    ptrdiff_t taps;
    const ptrdiff_t *offset;
} Padded;

/* How outputs see the cells of an image whose rows are copied for each output, see rows.h. Output (i, j) sees through
   tap (kh, kw) the cell (i * stride_h + kh * dilation_h - top, j * stride_w + kw - left). */
typedef struct {
    ptrdiff_t rows, columns; /* outputs of an image */
    ptrdiff_t KH, KW, stride_h, stride_w, dilation_h, top, left;
    ptrdiff_t H, W;
    ptrdiff_t image, channel, row, cell; /* steps of the image */
    ptrdiff_t channels;
    ptrdiff_t most, line; /* outputs in a row, whose cells fit lines of the scratch that are so far apart */
} Unfolding;

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

/* Taps of a depthwise convolution and the outputs that have them: all outputs or, where a transposed convolution has a
   stride, those of one phase. Output (i, j) sees through tap (kh, kw) the cell
   (i * stride_h + top + kh * dilation_h, j * stride_w + left + kw * dilation_w) of its channel, if it is inside. */
typedef struct {
    ptrdiff_t KH, KW, top, left, dilation_h, dilation_w;
    ptrdiff_t rows, columns;   /* outputs */
    ptrdiff_t before;          /* taps of the phases before */
    const ptrdiff_t *column;   /* planes: where in a row of the scratch output 0 sees its cell, for each kw */
} Taps;

/* A depthwise convolution of x to y. Lanes of vectors are columns of a plane, or the same cell of channels. */
typedef struct {
    const void *x_data, *x_end; /* of planes: nothing is read from x_end on */
    void *y_data;
    Places x, y;
    const void *weights, *bias; /* (channel, all taps), or of vectors (vector, those that add up, all taps, lane) */
    int relu;
    int by_channels, adjacent, in_place; /* lanes are channels, which lie side by side in x and y, and are not copied */
    int far; /* in place: the pixels of x, so that they are copied, and so are those of dy; one has `pitch` numbers */
    ptrdiff_t images, groups, vectors; /* of planes; by channels: of so many vectors of channels of y */
    ptrdiff_t channels, filters; /* of x that add up to one channel of y, of y that see one channel of x: one is 1 */
    ptrdiff_t y_channels;
    ptrdiff_t stride_h, stride_w;
    ptrdiff_t phases_h, phases_w;
    ptrdiff_t all_taps;
    const Taps *taps; /* of output (i * phases_h + p, j * phases_w + q) at p * phases_w + q */
    ptrdiff_t band, block, blocks; /* rows and columns of outputs of each phase in a region; regions side by side */
    ptrdiff_t top, left; /* what output 0 sees begins there, */
    ptrdiff_t reach_h, reach_w; /* and has so many rows and columns */
    ptrdiff_t pitch; /* of a row of the scratch, */
    ptrdiff_t slots, slot; /* by channels: rows of x that are kept, a power of two; numbers of one, of all vectors */
    /* Of planes: a row is cut into strips of `width` numbers. Strip s has every stride_w-th cell, `count` of them, from
       cell `source` on and beginning at `to`; all else is zero. */
    ptrdiff_t strips, width;
    const ptrdiff_t *to, *source, *count;
    ptrdiff_t out_width; /* of a row of outputs */
    ptrdiff_t source_size, out_size; /* numbers of the scratch: what is seen, and then outputs */
} Depthwise;

/* Images (n, c, row, column) that are normalised, and whether what lies in one vector of them is together in memory. */
typedef struct {
    void *data;
    Places at;
    int together;
} Images;

/* What normalises x to y, or dy to dx (here called y): the numbers of channel c of image n are at [n * image + c].
   Pixels are counted through all images. Vectors are cells of a plane, or channels of pixels. */
typedef struct {
    Images x, dy, y; /* forward there is no dy: its data is NULL */
    int by_pixels;
    ptrdiff_t channels, shared, image; /* shared: neighbouring channels, by planes, whose numbers x is summed with, as
                                          one; image: 0 where all images share their numbers */
    const double *center, *unit, *factor, *shift, *dy_factor;
} Norm;

/* What a pool takes of the numbers in a window: the largest (NaN above all), that and its place, or the sum; and which of
   equal maxima get the gradient. */
enum { TAKE_MAX, TAKE_PLACE, TAKE_SUM };
enum { TIES_FIRST, TIES_ALL, TIES_SPLIT };

/* How windows slide along one axis. Regions are cut, `block` by `block` into `blocks`, from the `all` outputs; or for the
   gradient from the `all` strides of cells that begin with number `first`, of which there are `cells` in the scratch. */
typedef struct {
    ptrdiff_t size, kernel, output, stride, before, dilation, reach;
    ptrdiff_t first, all, block, blocks, cells;
} Slide;

enum { MOST_BYTE = 256 }; /* places that a byte tells apart */

typedef struct {
    int take, doubled_h, doubled_w; /* many taps are taken by doubling, and columns not cut into phases then */
    int in_place; /* rows are joined where they are: they fill vectors, and have a stride of 1 or 2 or cells that do, */
    int direct; /* and these the whole window at once */
    Slide h, w;
    ptrdiff_t channels, width, blocks; /* C, in so many blocks of `width` (the last may be less) that make one cell */
    void *x, *y; /* or dx and dy */
    Places x_at, y_at;
    unsigned char *bytes; /* of each maximum kh * KW + kw, or NULL; or else */
    int64_t *indices; /* ih * W + iw */
    Places place_at;
    const ptrdiff_t *index; /* of the cell under tap kh * KW + kw */
    const ptrdiff_t *place_h, *place_w; /* and its row and column; 256 of them */
    /* Gradient of a maximum: x, for ties; the rows of outputs that count; whether dx is to be cleared before. */
    const void *seen;
    Places seen_at;
    ptrdiff_t row, end_row;
    int ties, zero;
    const double *rows, *columns; /* outputs of an average are divided by the product of their two */
    /* Scratch, in numbers: `phases` times `group` lines of so many numbers, from phase to phase `phase`; columns of phase
       i are those from residue[i] on. At held_at rows `held` numbers long, of which tap kh is tap_h[kh] further, as tap
       kw is tap_w[kw] further in the lines; outputs, divisors; and the places of all these `twin` after them. */
    ptrdiff_t phases, group, line, phase, held, held_at, out_at, divisors_at, twin;
    const ptrdiff_t *residue, *tap_h, *tap_w;
    /* Gradient of an average: the taps of phase i, first_h[i] to first_h[i + 1] - 1 of tap_h. */
    const ptrdiff_t *first_h, *first_w;
} Pool;

typedef struct {
    int MR, NR, lanes; /* rows of a tile of C, and columns, in registers; numbers of a vector */
    /* C = or += A B, with bias and ReLU. */
    void (*multiply)(ptrdiff_t M, ptrdiff_t N, ptrdiff_t K, const Left *a, const Right *b, const Target *c);
    /* The same for vectors that need not be neighbours. */
    void (*multiply_vectors)(ptrdiff_t M, ptrdiff_t vectors, ptrdiff_t K, const Left *a, const Vectors *b,
                             const Target *c);
    /* Panels of `width` rows of a matrix, side by side for each k: to[o / width * panel + k * width + o % width] =
       from[o * row + offset[k]]; the last panel is filled with 0. */
    void (*pack)(const void *from, ptrdiff_t row, const ptrdiff_t *offset, ptrdiff_t rows, ptrdiff_t K, void *to,
                 ptrdiff_t width, ptrdiff_t panel);
    /* Whether so many numbers are all finite. */
    int (*is_finite)(const void *numbers, ptrdiff_t count);
    /* The rows that a run of outputs sees, as planes of some channels, or with the channels of a cell side by side. */
    void (*pad_planes)(const Padded *g, const Run *run, const void *x, ptrdiff_t channels, void *planes,
                       ptrdiff_t channel_step);
    void (*pad_pixels)(const Padded *g, const Run *run, const void *x, ptrdiff_t channels, void *cells);
    /* From planes, columns[(c * (t1 - t0) + t) * row] for `count` of the outputs, from the q-th of the run on. */
    void (*columns)(const Padded *g, const Run *run, ptrdiff_t q, ptrdiff_t count, const void *planes,
                    ptrdiff_t channel_step, ptrdiff_t channels, ptrdiff_t t0, ptrdiff_t t1, void *columns,
                    ptrdiff_t row);
    /* rows[q][(kh * KW + kw) * channels + c] for `count` outputs from q0 on; their cells pass through KH lines. Up to a
       vector is written past the rows, and read past the lines. */
    void (*rows)(const Unfolding *g, const void *x, ptrdiff_t q0, ptrdiff_t count, void *lines, void *rows,
                 ptrdiff_t row);
    /* Add a box of sums to numbers elsewhere: to[m * m_step + n * n_step + t * t_step] += the sum over s of
       sums[s * slice + t * tap + m * row + n]. */
    void (*add_sums)(const void *sums, ptrdiff_t slices, ptrdiff_t slice, ptrdiff_t tap, ptrdiff_t row, ptrdiff_t m0,
                     ptrdiff_t m1, ptrdiff_t N, ptrdiff_t taps, void *to, ptrdiff_t m_step, ptrdiff_t n_step,
                     ptrdiff_t t_step);
    /* sums[c], 0 before, = the sum of C channels of y over places q0 to q0 + count - 1; a few are added up in T. */
    void (*channel_sums)(const Places *p, int by_pixels, const void *y, ptrdiff_t q0, ptrdiff_t count, ptrdiff_t C,
                         double *sums);
    /* Add columns[c * taps + t][q], or rows[q][t * channels + c], to the cells that outputs q0 to q0 + count - 1 see. */
    void (*add_columns)(const Windows *g, void *x, ptrdiff_t q0, ptrdiff_t count, const void *columns, ptrdiff_t row);
    void (*add_rows)(const Windows *g, void *x, ptrdiff_t q0, ptrdiff_t count, const void *rows, ptrdiff_t row);
    /* y at places q0 to q0 + count - 1 of C channels from a buffer of channels and outputs with these steps. */
    void (*scatter)(const Places *p, void *y, ptrdiff_t q0, ptrdiff_t count, ptrdiff_t C, const void *buffer,
                    ptrdiff_t channel, ptrdiff_t output);
    /* Depthwise: some regions of some groups, counted through all images. */
    void (*depthwise)(const Depthwise *d, ptrdiff_t first_region, ptrdiff_t end_region, ptrdiff_t first_group,
                      ptrdiff_t end_group, void *scratch);
    /* Weight gradient, y being dy, of some groups: add to sums[group][filter][tap][lane], of this size for a group, what
       region * images + image, from first to end - 1, contribute, and after the taps the sum of dy. By channels or
       in place: sums[group][vector][tap][lane]. */
    void (*depthwise_sums)(const Depthwise *d, ptrdiff_t first_group, ptrdiff_t end_group, ptrdiff_t first,
                           ptrdiff_t end, void *sums, ptrdiff_t sums_of_group, void *scratch);
    /* to[r * to_row + c * to_column] = from[r * from_row + c * from_column]. */
    void (*copy_matrix)(ptrdiff_t rows, ptrdiff_t columns, const void *from, ptrdiff_t from_row,
                        ptrdiff_t from_column, void *to, ptrdiff_t to_row, ptrdiff_t to_column);
    /* Winograd's transforms. Matrix i of the 36 is at data + i * matrix, with a row for each tile, or for each channel
       of the weights. Tiles have tile x tile outputs, and neighbours begin at cells (h, w), (h, w + tile), ...; cells
       outside of those that there are count as `zeros`, and are written to `nowhere`: a row of channels. Channels come
       in whole vectors. Of size x size cells, 6 for those that a tile sees, or `tile` for gradients of its outputs, */
    void (*winograd_tiles)(int size, ptrdiff_t tile, const Cells *x, ptrdiff_t h, ptrdiff_t w, ptrdiff_t tiles,
                           ptrdiff_t C, const void *zeros, void *to, ptrdiff_t row, ptrdiff_t matrix);
    /* of weights [C][taps][taps][width], */
    void (*winograd_weights)(int taps, const void *w, ptrdiff_t C, ptrdiff_t width, void *to, ptrdiff_t matrix);
    /* back to tiles of outputs, telling whether all are finite, */
    int (*winograd_outputs)(int tile, const void *from, ptrdiff_t row, ptrdiff_t matrix, ptrdiff_t F, const void *bias,
                            int relu, const Cells *y, ptrdiff_t h, ptrdiff_t w, ptrdiff_t tiles, void *nowhere);
    /* and back to the gradient [C][taps][taps] of the weights of a filter. */
    void (*winograd_weight_gradient)(int taps, const void *from, ptrdiff_t matrix, ptrdiff_t C, void *to);
    /* With t = (x - center) * unit, of pixels q to end - 1 and channels c0 to c1 - 1; with numbers for each image, the
       pixels are of one. Add to sums[c] and products[c]: t and t * t, backward dy and dy * t. */
    void (*norm_sums)(const Norm *g, ptrdiff_t q, ptrdiff_t end, ptrdiff_t c0, ptrdiff_t c1, double *sums,
                      double *products);
    /* y = t + shift, backward t * factor + shift + dy * dy_factor. */
    void (*norm_scale)(const Norm *g, ptrdiff_t q, ptrdiff_t end, ptrdiff_t c0, ptrdiff_t c1);
    /* Pools. Of some regions, counted through all images: outputs, or the gradient of cells: of averages, gathered; of
       maxima, scattered (or gathered to pixels), for windows of 2 x 2 found again, for those of planes one cell apart
       gathered; */
    void (*pool)(const Pool *p, ptrdiff_t first, ptrdiff_t end, void *scratch);
    void (*pool_gradient)(const Pool *p, ptrdiff_t first, ptrdiff_t end, void *scratch);
    void (*pool_scatter)(const Pool *p, ptrdiff_t first, ptrdiff_t end, void *scratch);
    void (*pool_tiles)(const Pool *p, ptrdiff_t first, ptrdiff_t end, void *scratch);
    void (*pool_overlaps)(const Pool *p, ptrdiff_t first, ptrdiff_t end, void *scratch);
    /* and for places q0 to q0 + count - 1 of each of C channels of an image the first maximum, or a number to be put
       there, the image being contiguous. */
    void (*channel_maxima)(const Places *p, const void *image, ptrdiff_t q0, ptrdiff_t count, ptrdiff_t C, void *best,
                           int64_t *place);
    void (*channel_fill)(const Places *p, int by_pixels, void *image, ptrdiff_t q0, ptrdiff_t count, ptrdiff_t C,
                         const void *numbers);
    /* Means of `count` channels, so far apart, from sums over so many cells. */
    void (*channel_means)(const double *sums, ptrdiff_t count, ptrdiff_t cells, void *means, ptrdiff_t step);
} Kernels;

typedef struct {
    const char *name;
    int (*runs_here)(void);
    const Kernels *float32, *float64;
} InstructionSet;

extern const InstructionSet *const instruction_sets[]; /* those that were built, fastest first, ended by NULL */

#endif
