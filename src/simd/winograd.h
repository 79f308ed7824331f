/* Winograd's F(4x4, 3x3) and F(2x2, 5x5), and F(3x3, 4x4) and F(5x5, 2x2) for the weight gradient: tiles of cells,
   weights, outputs and gradients into 36 matrices and back; part of template.h.

   After Lavin and Gray, "Fast algorithms for convolutional neural networks", arXiv:1509.09308. Polynomials are
   multiplied by their values at 6 points. In one dimension, with R taps and a tile of M = 7 - R outputs,

     y (M) = E' [S (E w (R)) * (B' d (6))]          and, transposed,          dw (R) = E' S [(E dy (M)) * (B' d (6))]

   where * multiplies number by number; in two dimensions each matrix works on columns, then on rows. E takes
   coefficients to values at the points 0, P, -P, Q, -Q and infinity (the last coefficient), and S divides what B'
   multiplies too much. Vectors run over channels, or over filters: they lie side by side, and rows have room for whole
   vectors. */

/* Of the pairs with few binary digits these have about the least error, half of that of 1 and 2 (relative L2), and a
   fifth in the largest: see Barabasz et al., "Error analysis and improving the accuracy of Winograd convolution for deep
   neural networks", arXiv:1803.10986. */
#define P ((T)0.625)
#define Q ((T)1.5)
#define PP (P * P)
#define QQ (Q * Q)

/* S: at 0, at P and -P, at Q and -Q; it is 1 at infinity. */
#define S_0 (1 / (PP * QQ))
#define S_P (1 / (2 * PP * (PP - QQ)))
#define S_Q (1 / (2 * QQ * (QQ - PP)))

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

/* Every second coefficient from the first on, as a polynomial in the square of a point. */
ALWAYS Vector NAME(every_second)(const int first, const int n, const Vector *c, const int step, const T square)
{
    int i = n - 1 - (n - 1 - first) % 2;
    Vector sum = c[i * step];
#pragma GCC unroll 2
    for (i -= 2; i >= first; i -= 2)
        sum = c[i * step] + square * sum;
    return sum;
}

/* E, or S E: 2 to 5 numbers to 6 points. */
ALWAYS void NAME(numbers_to_points)(const int n, const int scaled, const Vector *c, const int from_step, Vector *to,
                                    const int to_step)
{
    const T zero = scaled ? S_0 : 1, p = scaled ? S_P : 1, q = scaled ? S_Q : 1;
    Vector even_p = p * NAME(every_second)(0, n, c, from_step, PP);
    Vector odd_p = p * P * NAME(every_second)(1, n, c, from_step, PP);
    Vector even_q = q * NAME(every_second)(0, n, c, from_step, QQ);
    Vector odd_q = q * Q * NAME(every_second)(1, n, c, from_step, QQ);
    to[0] = zero * c[0];
    to[1 * to_step] = even_p + odd_p;
    to[2 * to_step] = even_p - odd_p;
    to[3 * to_step] = even_q + odd_q;
    to[4 * to_step] = even_q - odd_q;
    to[5 * to_step] = c[(n - 1) * from_step];
}

/* E', or E' S: 6 points to 2 to 5 numbers. */
ALWAYS void NAME(points_to_numbers)(const int n, const int scaled, const Vector *m, const int from_step, Vector *to,
                                    const int to_step)
{
#define M(i) m[i * from_step]
    const T zero = scaled ? S_0 : 1, p = scaled ? S_P : 1, q = scaled ? S_Q : 1;
    Vector even_p = p * (M(1) + M(2)), odd_p = p * P * (M(1) - M(2));
    Vector even_q = q * (M(3) + M(4)), odd_q = q * Q * (M(3) - M(4));
    T pp = 1, qq = 1; /* even powers of the points */
#pragma GCC unroll 5
    for (int i = 0; i < n; i++) {
        to[i * to_step] = i % 2 ? pp * odd_p + qq * odd_q : pp * even_p + qq * even_q;
        if (i % 2)
            pp *= PP, qq *= QQ;
    }
    to[0] += zero * M(0);
    to[(n - 1) * to_step] += M(5);
#undef M
}

/* Two dimensions: `transform` on the columns of n x n vectors, then on the rows of what they became: m x m. */
#define TWICE(transform, n, m, from, to)                                                                               \
    do {                                                                                                               \
        Vector half[(m) * (n)];                                                                                        \
        _Pragma("GCC unroll 6") for (int j = 0; j < n; j++)                                                            \
            transform((from) + j, n, half + j, n);                                                                     \
        _Pragma("GCC unroll 6") for (int i = 0; i < m; i++)                                                            \
            transform(half + i * (n), 1, (to) + i * (m), 1);                                                           \
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

/* for tile, for vector of channels: 6x6 cells, or as many gradients as a tile has outputs, to 36 points */
ALWAYS void NAME(tiles_to_points)(const int size, ptrdiff_t tile, const Cells *x, ptrdiff_t h, ptrdiff_t w,
                                  ptrdiff_t tiles, ptrdiff_t C, const void *zeros, void *to, ptrdiff_t row,
                                  ptrdiff_t matrix)
{
#define GRADIENTS(...) NAME(numbers_to_points)(size, 0, __VA_ARGS__)
    for (ptrdiff_t t = 0; t < tiles; t++) {
        T *cells[36], *v = (T *)to + t * row;
        NAME(tile_cells)(x, h, w + tile * t, size, (T *)zeros, cells);
        for (ptrdiff_t c = 0; c < C; c += LANES) {
            Vector d[36], points[36];
#pragma GCC unroll 36
            for (int i = 0; i < size * size; i++)
                d[i] = NAME(load)(cells[i] + c);
            if (size == 6)
                TWICE(NAME(cells_to_points), 6, 6, d, points);
            else
                TWICE(GRADIENTS, size, 6, d, points);
#pragma GCC unroll 36
            for (int i = 0; i < 36; i++)
                NAME(store)(v + i * matrix + c, points[i]);
        }
    }
#undef GRADIENTS
}

static void NAME(winograd_tiles)(int size, ptrdiff_t tile, const Cells *x, ptrdiff_t h, ptrdiff_t w, ptrdiff_t tiles,
                                 ptrdiff_t C, const void *zeros, void *to, ptrdiff_t row, ptrdiff_t matrix)
{
    if (size == 6)
        NAME(tiles_to_points)(6, tile, x, h, w, tiles, C, zeros, to, row, matrix);
    else if (size == 4)
        NAME(tiles_to_points)(4, tile, x, h, w, tiles, C, zeros, to, row, matrix);
    else
        NAME(tiles_to_points)(2, tile, x, h, w, tiles, C, zeros, to, row, matrix);
}

/* for channel, for vector of filters: the weights to 36 points; w is [C][taps][taps][width], each matrix [C][width] */
ALWAYS void NAME(weights_to_points)(const int taps, const T *w, ptrdiff_t C, ptrdiff_t width, T *to, ptrdiff_t matrix)
{
#define WEIGHTS(...) NAME(numbers_to_points)(taps, 1, __VA_ARGS__)
    for (ptrdiff_t c = 0; c < C; c++)
        for (ptrdiff_t f = 0; f < width; f += LANES) {
            Vector weights[25], points[36];
            T *u = to + c * width + f;
#pragma GCC unroll 25
            for (int i = 0; i < taps * taps; i++)
                weights[i] = NAME(load)(w + (c * taps * taps + i) * width + f);
            TWICE(WEIGHTS, taps, 6, weights, points);
#pragma GCC unroll 36
            for (int i = 0; i < 36; i++)
                NAME(store)(u + i * matrix, points[i]);
        }
#undef WEIGHTS
}

static void NAME(winograd_weights)(int taps, const void *w, ptrdiff_t C, ptrdiff_t width, void *to, ptrdiff_t matrix)
{
    if (taps == 3)
        NAME(weights_to_points)(3, w, C, width, to, matrix);
    else
        NAME(weights_to_points)(5, w, C, width, to, matrix);
}

/* for tile, for vector of filters: 36 points to the outputs; tells whether all of them are finite */
ALWAYS int NAME(points_to_outputs)(const int tile, const void *from, ptrdiff_t row, ptrdiff_t matrix, ptrdiff_t F,
                                   const void *bias, int relu, const Cells *y, ptrdiff_t h, ptrdiff_t w,
                                   ptrdiff_t tiles, void *nowhere)
{
#define OUTPUTS(...) NAME(points_to_numbers)(tile, 0, __VA_ARGS__)
    Vector zeros = NAME(spread)(0); /* a lane becomes NaN with its first number that is not finite */
    for (ptrdiff_t t = 0; t < tiles; t++) {
        T *cells[16];
        const T *m = (const T *)from + t * row;
        NAME(tile_cells)(y, h, w + tile * t, tile, nowhere, cells);
        for (ptrdiff_t f = 0; f < F; f += LANES) {
            Vector points[36], outputs[16], first = NAME(load)((const T *)bias + f);
#pragma GCC unroll 36
            for (int i = 0; i < 36; i++)
                points[i] = NAME(load)(m + i * matrix + f);
            TWICE(OUTPUTS, 6, tile, points, outputs);
#pragma GCC unroll 16
            for (int i = 0; i < tile * tile; i++) {
                Vector output = outputs[i] + first;
                zeros += output * 0;
                NAME(store)(cells[i] + f, relu ? NAME(relu)(output) : output);
            }
        }
    }
    return NAME(total)(zeros) == 0;
#undef OUTPUTS
}

static int NAME(winograd_outputs)(int tile, const void *from, ptrdiff_t row, ptrdiff_t matrix, ptrdiff_t F,
                                  const void *bias, int relu, const Cells *y, ptrdiff_t h, ptrdiff_t w,
                                  ptrdiff_t tiles, void *nowhere)
{
    if (tile == 4)
        return NAME(points_to_outputs)(4, from, row, matrix, F, bias, relu, y, h, w, tiles, nowhere);
    return NAME(points_to_outputs)(2, from, row, matrix, F, bias, relu, y, h, w, tiles, nowhere);
}

/* for vector of channels: 36 points to the gradients of the weights, side by side for each channel */
ALWAYS void NAME(points_to_weights)(const int taps, const T *from, ptrdiff_t matrix, ptrdiff_t C, T *dw)
{
#define WEIGHTS(...) NAME(points_to_numbers)(taps, 1, __VA_ARGS__)
    for (ptrdiff_t c = 0; c < C; c += LANES) {
        Vector points[36], weights[25];
        T numbers[25][LANES];
#pragma GCC unroll 36
        for (int i = 0; i < 36; i++)
            points[i] = NAME(load)(from + i * matrix + c);
        TWICE(WEIGHTS, 6, taps, points, weights);
        for (int i = 0; i < taps * taps; i++)
            NAME(store)(numbers[i], weights[i]);
        for (ptrdiff_t lane = 0; lane < LANES && c + lane < C; lane++)
            for (int i = 0; i < taps * taps; i++)
                *dw++ = numbers[i][lane];
    }
#undef WEIGHTS
}

static void NAME(winograd_weight_gradient)(int taps, const void *from, ptrdiff_t matrix, ptrdiff_t C, void *to)
{
    if (taps == 3)
        NAME(points_to_weights)(3, from, matrix, C, to);
    else
        NAME(points_to_weights)(5, from, matrix, C, to);
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
    /* The longest steps are the fewest: rows that lie far apart are read, or written, few at a time and to the end. */
    const int columns_first = from_column > to_row;
    const ptrdiff_t outer = columns_first ? columns : rows, inner = columns_first ? rows : columns;
    for (ptrdiff_t i = 0; i < outer; i += BLOCK)
        for (ptrdiff_t j = 0; j < inner; j += BLOCK) {
            ptrdiff_t r0 = columns_first ? j : i, c0 = columns_first ? i : j;
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
#undef S_0
#undef S_P
#undef S_Q
#undef TWICE
