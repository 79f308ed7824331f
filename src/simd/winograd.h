/* Winograd's F(4x4, 3x3), and F(3x3, 4x4) for the weight gradient: tiles of cells, weights, outputs and gradients into
   36 matrices and back; part of template.h.

   After Lavin and Gray, "Fast algorithms for convolutional neural networks", arXiv:1509.09308. In one dimension,

     y (4) = A' [(G w (3)) * (B' d (6))]            and, transposed,            dw (3) = G' [(A dy (4)) * (B' d (6))]

   where * multiplies number by number; in two dimensions each matrix works on columns, then on rows. The columns of
   A', and the rows of G and B', belong to the points 0, P, -P, Q, -Q and infinity, at which polynomials are multiplied.
   Vectors run over channels, or over filters: they lie side by side, and rows have room for whole vectors. */

/* Of the pairs with few binary digits these have about the least error, half of that of 1 and 2 (relative L2), and a
   fifth in the largest: see Barabasz et al., "Error analysis and improving the accuracy of Winograd convolution for deep
   neural networks", arXiv:1803.10986. */
#define P ((T)0.625)
#define Q ((T)1.5)
#define PP (P * P)
#define QQ (Q * Q)

/* One dimension: from[i * from_step] to to[i * to_step]. */

/* B': 6 cells to 6 points. */
ALWAYS void NAME(cells_to_points)(const Vector *d, const int from_step, Vector *to, const int to_step)
{
#define D(i) d[i * from_step]
    Vector even_p = D(4) - QQ * D(2), odd_p = P * (D(3) - QQ * D(1));
    Vector even_q = D(4) - PP * D(2), odd_q = Q * (D(3) - PP * D(1));
    to[0] = D(4) + PP * QQ * D(0) - (PP + QQ) * D(2);
    to[1 * to_step] = even_p + odd_p;
    to[2 * to_step] = even_p - odd_p;
    to[3 * to_step] = even_q + odd_q;
    to[4 * to_step] = even_q - odd_q;
    to[5 * to_step] = D(5) + PP * QQ * D(1) - (PP + QQ) * D(3);
#undef D
}

/* G: 3 weights to 6 points. */
ALWAYS void NAME(weights_to_points)(const Vector *w, const int from_step, Vector *to, const int to_step)
{
    const T zero = 1 / (PP * QQ), p = 1 / (2 * PP * (PP - QQ)), q = 1 / (2 * QQ * (QQ - PP));
    Vector w0 = w[0], w1 = w[from_step], w2 = w[2 * from_step];
    Vector even_p = p * w0 + p * PP * w2, odd_p = p * P * w1;
    Vector even_q = q * w0 + q * QQ * w2, odd_q = q * Q * w1;
    to[0] = zero * w0;
    to[1 * to_step] = even_p + odd_p;
    to[2 * to_step] = even_p - odd_p;
    to[3 * to_step] = even_q + odd_q;
    to[4 * to_step] = even_q - odd_q;
    to[5 * to_step] = w2;
}

/* A': 6 points to 4 outputs. */
ALWAYS void NAME(points_to_outputs)(const Vector *m, const int from_step, Vector *to, const int to_step)
{
    Vector even_p = m[1 * from_step] + m[2 * from_step], odd_p = P * (m[1 * from_step] - m[2 * from_step]);
    Vector even_q = m[3 * from_step] + m[4 * from_step], odd_q = Q * (m[3 * from_step] - m[4 * from_step]);
    to[0] = m[0] + even_p + even_q;
    to[1 * to_step] = odd_p + odd_q;
    to[2 * to_step] = PP * even_p + QQ * even_q;
    to[3 * to_step] = PP * odd_p + QQ * odd_q + m[5 * from_step];
}

/* A: 4 gradients of outputs to 6 points. */
ALWAYS void NAME(gradients_to_points)(const Vector *dy, const int from_step, Vector *to, const int to_step)
{
    Vector dy0 = dy[0], dy1 = dy[from_step], dy2 = dy[2 * from_step], dy3 = dy[3 * from_step];
    Vector even_p = dy0 + PP * dy2, odd_p = P * (dy1 + PP * dy3);
    Vector even_q = dy0 + QQ * dy2, odd_q = Q * (dy1 + QQ * dy3);
    to[0] = dy0;
    to[1 * to_step] = even_p + odd_p;
    to[2 * to_step] = even_p - odd_p;
    to[3 * to_step] = even_q + odd_q;
    to[4 * to_step] = even_q - odd_q;
    to[5 * to_step] = dy3;
}

/* G': 6 points to 3 gradients of weights. */
ALWAYS void NAME(points_to_weights)(const Vector *m, const int from_step, Vector *to, const int to_step)
{
    const T zero = 1 / (PP * QQ), p = 1 / (2 * PP * (PP - QQ)), q = 1 / (2 * QQ * (QQ - PP));
    Vector even_p = p * (m[1 * from_step] + m[2 * from_step]), odd_p = p * P * (m[1 * from_step] - m[2 * from_step]);
    Vector even_q = q * (m[3 * from_step] + m[4 * from_step]), odd_q = q * Q * (m[3 * from_step] - m[4 * from_step]);
    to[0] = zero * m[0] + even_p + even_q;
    to[1 * to_step] = odd_p + odd_q;
    to[2 * to_step] = PP * even_p + QQ * even_q + m[5 * from_step];
}

/* Two dimensions: `function` on the columns of rows x columns vectors, then on the rows of what they became. */
#define TWICE(function, rows, columns, points, from, to)                                                               \
    do {                                                                                                               \
        Vector half[points * columns];                                                                                 \
        _Pragma("GCC unroll 6") for (int j = 0; j < columns; j++)                                                      \
            NAME(function)(from + j, columns, half + j, columns);                                                      \
        _Pragma("GCC unroll 6") for (int i = 0; i < points; i++)                                                       \
            NAME(function)(half + i * columns, 1, to + i * points, 1);                                                 \
    } while (0)

/* Where the cells of a tile are; those outside of the image are all at `outside`. */
ALWAYS void NAME(tile_cells)(const Cells *x, ptrdiff_t h, ptrdiff_t w, const int size, T *outside, T **cells)
{
    for (int i = 0; i < size; i++)
        for (int j = 0; j < size; j++)
            cells[i * size + j] = h + i < x->top || h + i >= x->bottom || w + j < x->left || w + j >= x->right
                                      ? outside
                                      : (T *)x->data + (h + i - x->top) * x->row + (w + j - x->left) * x->cell;
}

/* for tile, for vector of channels: 6x6 cells, or 4x4 gradients of outputs, to 36 points */
ALWAYS void NAME(tiles_to_points)(const int size, const Cells *x, ptrdiff_t h, ptrdiff_t w, ptrdiff_t tiles,
                                  ptrdiff_t C, const void *zeros, void *to, ptrdiff_t row, ptrdiff_t matrix)
{
    for (ptrdiff_t t = 0; t < tiles; t++) {
        T *cells[36], *v = (T *)to + t * row;
        NAME(tile_cells)(x, h, w + 4 * t, size, (T *)zeros, cells);
        for (ptrdiff_t c = 0; c < C; c += LANES) {
            Vector d[36], points[36];
#pragma GCC unroll 36
            for (int i = 0; i < size * size; i++)
                d[i] = NAME(load)(cells[i] + c);
            if (size == 6)
                TWICE(cells_to_points, 6, 6, 6, d, points);
            else
                TWICE(gradients_to_points, 4, 4, 6, d, points);
#pragma GCC unroll 36
            for (int i = 0; i < 36; i++)
                NAME(store)(v + i * matrix + c, points[i]);
        }
    }
}

static void NAME(winograd_tiles)(int size, const Cells *x, ptrdiff_t h, ptrdiff_t w, ptrdiff_t tiles, ptrdiff_t C,
                                 const void *zeros, void *to, ptrdiff_t row, ptrdiff_t matrix)
{
    if (size == 6)
        NAME(tiles_to_points)(6, x, h, w, tiles, C, zeros, to, row, matrix);
    else
        NAME(tiles_to_points)(4, x, h, w, tiles, C, zeros, to, row, matrix);
}

/* for channel, for vector of filters: 9 weights to 36 points; w is [C][3][3][width], and each matrix [C][width] */
static void NAME(winograd_weights)(const void *w, ptrdiff_t C, ptrdiff_t width, void *to, ptrdiff_t matrix)
{
    for (ptrdiff_t c = 0; c < C; c++)
        for (ptrdiff_t f = 0; f < width; f += LANES) {
            Vector weights[9], points[36];
            T *u = (T *)to + c * width + f;
#pragma GCC unroll 9
            for (int i = 0; i < 9; i++)
                weights[i] = NAME(load)((const T *)w + (c * 9 + i) * width + f);
            TWICE(weights_to_points, 3, 3, 6, weights, points);
#pragma GCC unroll 36
            for (int i = 0; i < 36; i++)
                NAME(store)(u + i * matrix, points[i]);
        }
}

/* for tile, for vector of filters: 36 points to 16 outputs; tells whether all of them are finite */
static int NAME(winograd_outputs)(const void *from, ptrdiff_t row, ptrdiff_t matrix, ptrdiff_t F, const void *bias,
                                  int relu, const Cells *y, ptrdiff_t h, ptrdiff_t w, ptrdiff_t tiles, void *nowhere)
{
    Vector zeros = NAME(spread)(0); /* a lane becomes NaN with its first number that is not finite */
    for (ptrdiff_t t = 0; t < tiles; t++) {
        T *cells[16];
        const T *m = (const T *)from + t * row;
        NAME(tile_cells)(y, h, w + 4 * t, 4, nowhere, cells);
        for (ptrdiff_t f = 0; f < F; f += LANES) {
            Vector points[36], outputs[16], first = NAME(load)((const T *)bias + f);
#pragma GCC unroll 36
            for (int i = 0; i < 36; i++)
                points[i] = NAME(load)(m + i * matrix + f);
            TWICE(points_to_outputs, 6, 6, 4, points, outputs);
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++) {
                Vector output = outputs[i] + first;
                zeros += output * 0;
                NAME(store)(cells[i] + f, relu ? NAME(relu)(output) : output);
            }
        }
    }
    return NAME(total)(zeros) == 0;
}

/* for vector of channels: 36 points to 9 gradients of weights, side by side for each channel */
static void NAME(winograd_weight_gradient)(const void *from, ptrdiff_t matrix, ptrdiff_t C, void *to)
{
    T *dw = to;
    for (ptrdiff_t c = 0; c < C; c += LANES) {
        Vector points[36], weights[9];
        T numbers[9][LANES];
#pragma GCC unroll 36
        for (int i = 0; i < 36; i++)
            points[i] = NAME(load)((const T *)from + i * matrix + c);
        TWICE(points_to_weights, 6, 6, 3, points, weights);
        for (int i = 0; i < 9; i++)
            NAME(store)(numbers[i], weights[i]);
        for (ptrdiff_t lane = 0; lane < LANES && c + lane < C; lane++)
            for (int i = 0; i < 9; i++)
                dw[(c + lane) * 9 + i] = numbers[i][lane];
    }
}

/* Copy a matrix: to[r * to_row + c * to_column] = from[r * from_row + c * from_column]. */
static void NAME(copy_matrix)(ptrdiff_t rows, ptrdiff_t columns, const void *from, ptrdiff_t from_row,
                              ptrdiff_t from_column, void *to, ptrdiff_t to_row, ptrdiff_t to_column)
{
    enum { BLOCK = 64 / sizeof(T) }; /* numbers in a cache line: a block reads and writes whole ones */
    const T *source = from;
    T *target = to;
    if (to_column == 1 && from_column == 1) {
        for (ptrdiff_t r = 0; r < rows; r++)
            NAME(copy)(target + r * to_row, source + r * from_row, columns);
        return;
    }
    for (ptrdiff_t r0 = 0; r0 < rows; r0 += BLOCK)
        for (ptrdiff_t c0 = 0; c0 < columns; c0 += BLOCK) {
            ptrdiff_t height = NAME(least)(BLOCK, rows - r0), width = NAME(least)(BLOCK, columns - c0);
            const T *block = source + r0 * from_row + c0 * from_column;
            T *to_block = target + r0 * to_row + c0 * to_column;
            if (from_row == 1 && to_column == 1)
                NAME(transpose)(block, from_column, width, height, to_block, to_row);
            else
                for (ptrdiff_t c = 0; c < width; c++)
                    for (ptrdiff_t r = 0; r < height; r++)
                        to_block[r * to_row + c * to_column] = block[r * from_row + c * from_column];
        }
}

#undef P
#undef Q
#undef PP
#undef QQ
#undef TWICE
