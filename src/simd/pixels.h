/* Depthwise convolution of NHWC where the arrays are; part of depthwise.h.

   Lanes of vectors are neighbouring channels of a pixel. A tile of outputs is kept in registers, and each cell that it
   sees is loaded once. Pixels that are far apart would push each other out of the first cache, and are copied before.
   The last vector ends with the last channel, and has some of those before it again. Cells outside of the image are
   skipped, so no number that is not finite could meet padding. Any kernel, stride and dilation; the usual kernels are
   compiled with their sizes. */

#define TILE_ROWS 2    /* with columns as long as images often have a multiple of: */
#define TILE_COLUMNS 7 /* half of the registers of AVX-512, beside the weights of a 3x3 kernel */
#define TILE (TILE_ROWS * TILE_COLUMNS)
#define MOST_SUMS 10 /* of the weight gradient of a kernel of a known size, and one of dy alone */

#define EACH(i, count) _Pragma("GCC unroll 32") for (ptrdiff_t i = 0; i < (count); i++)

/* Outputs of one phase, and the cells of x that they see through the taps: those in rows top .. bottom - 1 and columns
   left .. right - 1, counted from the first cell of the first output; the others are outside of the image. */
typedef struct {
    const T *x;
    T *y;
    ptrdiff_t x_row, x_cell, y_row, y_cell;
    ptrdiff_t rows, columns;
    ptrdiff_t top, bottom, left, right;
} NAME(Tile);

#define IN_ROWS(h) ((h) >= t->top && (h) < t->bottom)
#define IN_COLUMNS(w) ((w) >= t->left && (w) < t->right)
#define IN_Y(r, q) ((r) < t->rows && (q) < t->columns)
#define X_AT(h, w) (x + (h) * t->x_row + (w) * t->x_cell)
#define Y_AT(r, q) (y + (r) * t->y_row + (q) * t->y_cell)

/* The tile that begins with output (i, j) of a phase, where these are the cells of x and y. */
ALWAYS NAME(Tile) NAME(tile_at)(const Depthwise *d, const Cells *x, const Cells *y, NAME(Region) r, ptrdiff_t phase,
                                ptrdiff_t i, ptrdiff_t j)
{
    const Taps *t = d->taps + phase;
    ptrdiff_t h = i * d->stride_h + t->top, w = j * d->stride_w + t->left;
    ptrdiff_t row = i * d->phases_h + phase / d->phases_w, column = j * d->phases_w + phase % d->phases_w;
    NAME(Tile) tile = {
        .x = (const T *)x->data + (h - x->top) * x->row + (w - x->left) * x->cell,
        .y = (T *)y->data + (row - y->top) * y->row + (column - y->left) * y->cell,
        .x_row = x->row, .x_cell = x->cell, .y_row = d->phases_h * y->row, .y_cell = d->phases_w * y->cell,
        .rows = NAME(least)(TILE_ROWS, NAME(least)(r.row + r.rows, t->rows) - i),
        .columns = NAME(least)(TILE_COLUMNS, NAME(least)(r.column + r.columns, t->columns) - j),
        .top = NAME(most)(-h, 0), .left = NAME(most)(-w, 0),
    };
    tile.bottom = NAME(least)(d->x.rows - h, (tile.rows - 1) * d->stride_h + (t->KH - 1) * t->dilation_h + 1);
    tile.right = NAME(least)(d->x.columns - w, (tile.columns - 1) * d->stride_w + (t->KW - 1) * t->dilation_w + 1);
    return tile;
}

/* A vector of channels of a tile, for a kernel whose size is known:

     for h, w in cells of x                                      loaded once
       for r, q in outputs that see it                           registers                                            */
#define EACH_PRODUCT                                                                                                  \
    EACH(h, (TILE_ROWS - 1) * S + KH) {                                                                               \
        if (!IN_ROWS(h))                                                                                              \
            continue;                                                                                                 \
        EACH(w, (TILE_COLUMNS - 1) * S + KW) {                                                                        \
            if (!IN_COLUMNS(w))                                                                                       \
                continue;                                                                                             \
            Vector cell = NAME(load)(X_AT(h, w));                                                                     \
            EACH(r, TILE_ROWS)                                                                                        \
                EACH(q, TILE_COLUMNS)                                                                                 \
                    if (h - r * S >= 0 && h - r * S < KH && w - q * S >= 0 && w - q * S < KW)                         \
                        PRODUCT(r * TILE_COLUMNS + q, (h - r * S) * KW + w - q * S);                                  \
        }                                                                                                             \
    }

ALWAYS void NAME(tile_outputs)(const int KH, const int KW, const int S, const NAME(Tile) *t, const T *x,
                               const T *weights, const T *bias, int relu, T *y)
{
    Vector acc[TILE], weight[MOST_SUMS];
    EACH(k, KH * KW)
        weight[k] = NAME(load)(weights + k * LANES);
    EACH(i, TILE)
        acc[i] = NAME(load)(bias);
#define PRODUCT(output, tap) acc[output] += cell * weight[tap]
    EACH_PRODUCT
#undef PRODUCT
    EACH(r, TILE_ROWS)
        EACH(q, TILE_COLUMNS)
            if (IN_Y(r, q)) {
                Vector v = acc[r * TILE_COLUMNS + q];
                NAME(store)(Y_AT(r, q), relu ? NAME(relu)(v) : v);
            }
}

/* sums[tap] += dy * x, and after the taps the sum of dy. */
ALWAYS void NAME(tile_sums)(const int KH, const int KW, const int S, const NAME(Tile) *t, const T *x, const T *y, T *to)
{
    Vector dy[TILE], sums[MOST_SUMS];
    EACH(k, KH * KW + 1)
        sums[k] = NAME(load)(to + k * LANES);
    EACH(r, TILE_ROWS)
        EACH(q, TILE_COLUMNS) {
            dy[r * TILE_COLUMNS + q] = IN_Y(r, q) ? NAME(load)(Y_AT(r, q)) : NAME(spread)(0);
            sums[KH * KW] += dy[r * TILE_COLUMNS + q];
        }
#define PRODUCT(output, tap) sums[tap] += cell * dy[output]
    EACH_PRODUCT
#undef PRODUCT
    EACH(k, KH * KW + 1)
        NAME(store)(to + k * LANES, sums[k]);
}

/* The same for any kernel; `inside`: all cells are in the image. */
ALWAYS void NAME(tile_any_outputs)(const int inside, const Depthwise *d, const Taps *taps, const NAME(Tile) *t,
                                   const T *x, const T *weights, const T *bias, int relu, T *y)
{
    for (ptrdiff_t r = 0; r < t->rows; r++) {
        Vector acc[TILE_COLUMNS];
        EACH(q, TILE_COLUMNS)
            acc[q] = NAME(load)(bias);
        for (ptrdiff_t kh = 0; kh < taps->KH; kh++)
            for (ptrdiff_t kw = 0; kw < taps->KW; kw++) {
                ptrdiff_t h = r * d->stride_h + kh * taps->dilation_h;
                Vector weight = NAME(load)(weights + (kh * taps->KW + kw) * LANES);
                EACH(q, TILE_COLUMNS) {
                    ptrdiff_t w = q * d->stride_w + kw * taps->dilation_w;
                    if (inside || (IN_ROWS(h) && IN_COLUMNS(w)))
                        acc[q] += weight * NAME(load)(X_AT(h, w));
                }
            }
        EACH(q, TILE_COLUMNS)
            if (q < t->columns)
                NAME(store)(Y_AT(r, q), relu ? NAME(relu)(acc[q]) : acc[q]);
    }
}

ALWAYS void NAME(tile_any_sums)(const Depthwise *d, const Taps *taps, const NAME(Tile) *t, const T *x, const T *y,
                                T *to)
{
    for (ptrdiff_t k = 0; k <= taps->KH * taps->KW; k++) {
        Vector sum = NAME(load)(to + k * LANES);
        for (ptrdiff_t r = 0; r < t->rows; r++)
            for (ptrdiff_t q = 0; q < t->columns; q++) {
                Vector dy = NAME(load)(Y_AT(r, q));
                if (k == taps->KH * taps->KW) {
                    sum += dy;
                    continue;
                }
                ptrdiff_t h = r * d->stride_h + k / taps->KW * taps->dilation_h;
                ptrdiff_t w = q * d->stride_w + k % taps->KW * taps->dilation_w;
                if (IN_ROWS(h) && IN_COLUMNS(w))
                    sum += dy * NAME(load)(X_AT(h, w));
            }
        NAME(store)(to + k * LANES, sum);
    }
}

/* What tiles below will read and write, while this one is computed. */
ALWAYS void NAME(look_below)(const int KH, const int KW, const int S, const NAME(Tile) *t, int of_x, const T *x,
                             const T *y)
{
    if (of_x)
        EACH(h, TILE_ROWS * S)
            EACH(w, TILE_COLUMNS * S)
                PREFETCH(X_AT((TILE_ROWS - 1) * S + KH + h, KW / 2 + w));
    EACH(r, TILE_ROWS)
        EACH(q, TILE_COLUMNS)
            PREFETCH(Y_AT(TILE_ROWS + r, q));
}

/* All vectors of a group for a tile: outputs or, with sums, the weight gradient; KH = 0: any kernel.

     for v in vectors                                            neighbours in memory
       tile                                                      registers                                            */
ALWAYS void NAME(pixels_vectors)(const int KH, const int KW, const int S, const Depthwise *d, const NAME(Tile) *t,
                                 ptrdiff_t phase, ptrdiff_t first, ptrdiff_t vectors, T *sums)
{
    const Taps *taps = d->taps + phase;
    ptrdiff_t count = taps->KH * taps->KW;
    int inside = t->top == 0 && t->left == 0 && t->rows == TILE_ROWS && t->columns == TILE_COLUMNS &&
                 t->bottom > (TILE_ROWS - 1) * d->stride_h + (taps->KH - 1) * taps->dilation_h &&
                 t->right > (TILE_COLUMNS - 1) * d->stride_w + (taps->KW - 1) * taps->dilation_w;
    for (ptrdiff_t v = first; v < first + vectors; v++) {
        ptrdiff_t start = NAME(least)(v * LANES, d->y_channels - LANES) - first * LANES;
        const T *x = t->x + start, *w = (const T *)d->weights + (v * d->all_taps + taps->before) * LANES;
        const T *bias = (const T *)d->bias + v * LANES;
        T *y = t->y + start, *to = sums + (v - first) * (count + 1) * LANES;
        if (KH)
            NAME(look_below)(KH, KW, S, t, phase == 0 && !d->far, x, y);
        if (sums && KH)
            NAME(tile_sums)(KH, KW, S, t, x, y, to);
        else if (sums)
            NAME(tile_any_sums)(d, taps, t, x, y, to);
        else if (KH)
            NAME(tile_outputs)(KH, KW, S, t, x, w, bias, d->relu, y);
        else if (inside)
            NAME(tile_any_outputs)(1, d, taps, t, x, w, bias, d->relu, y);
        else
            NAME(tile_any_outputs)(0, d, taps, t, x, w, bias, d->relu, y);
    }
}

/* Kernels that are compiled with their size: the usual one, and what phases of its input gradient have of it. */
#define SIZE(KH, KW, S) (((KH) * 8 + (KW)) * 8 + (S))
#define SIZES_OF_SUMS(with) with(3, 3, 1) with(3, 3, 2)
#define SIZES(with) with(1, 1, 1) with(1, 2, 1) with(2, 1, 1) with(2, 2, 1) SIZES_OF_SUMS(with)

ALWAYS int NAME(size)(const Depthwise *d, const Taps *t)
{
    int small = t->dilation_h == 1 && t->dilation_w == 1 && d->stride_h == d->stride_w && t->KH < 8 && t->KW < 8 &&
                d->stride_h < 8;
    return small ? SIZE(t->KH, t->KW, d->stride_h) : 0;
}

/* The tile is a copy of its own, which what is stored in y cannot change. */
static void NAME(outputs_tile)(const Depthwise *d, NAME(Tile) tile, ptrdiff_t phase, ptrdiff_t first, ptrdiff_t vectors)
{
#define CASE(KH, KW, S)                                                                                               \
    case SIZE(KH, KW, S):                                                                                             \
        NAME(pixels_vectors)(KH, KW, S, d, &tile, phase, first, vectors, NULL);                                       \
        return;
    switch (NAME(size)(d, d->taps + phase)) {
        SIZES(CASE)
    default:
        NAME(pixels_vectors)(0, 0, 0, d, &tile, phase, first, vectors, NULL);
    }
#undef CASE
}

static void NAME(sums_tile)(const Depthwise *d, NAME(Tile) tile, ptrdiff_t first, ptrdiff_t vectors, T *sums)
{
#define CASE(KH, KW, S)                                                                                               \
    case SIZE(KH, KW, S):                                                                                             \
        NAME(pixels_vectors)(KH, KW, S, d, &tile, 0, first, vectors, sums);                                           \
        return;
    switch (NAME(size)(d, d->taps)) {
        SIZES_OF_SUMS(CASE)
    default:
        NAME(pixels_vectors)(0, 0, 0, d, &tile, 0, first, vectors, sums);
    }
#undef CASE
}

/* So many channels of these cells of an image, where they are or copied. */
ALWAYS Cells NAME(pixels)(const Depthwise *d, const Places *p, T *image, ptrdiff_t top, ptrdiff_t rows, ptrdiff_t left,
                          ptrdiff_t columns, ptrdiff_t channels, T *room)
{
    if (!room)
        return (Cells){image, 0, p->rows, 0, p->columns, p->row, p->cell};
    Cells c = {room, NAME(most)(top, 0), NAME(least)(top + rows, p->rows), NAME(most)(left, 0),
               NAME(least)(left + columns, p->columns), 0, d->pitch};
    c.row = (c.right - c.left) * d->pitch;
    for (ptrdiff_t h = c.top; h < c.bottom; h++)
        for (ptrdiff_t w = c.left; w < c.right; w++, room += d->pitch)
            for (ptrdiff_t i = 0; i < channels; i += LANES)
                NAME(store)(room + i, NAME(load)(image + h * p->row + w * p->cell + i));
    return c;
}

/* Outputs of a region, or with sums the weight gradient of it:

     for tile of outputs
       for phase                                                 they see about the same cells
         for v in vectors of group g                                                                                  */
static void NAME(pixels_region)(const Depthwise *d, ptrdiff_t n, ptrdiff_t g, NAME(Region) r, T *room, T *sums)
{
    ptrdiff_t first = g * d->vectors, vectors = NAME(least)(d->vectors, (d->y_channels + LANES - 1) / LANES - first);
    Cells x = NAME(pixels)(d, &d->x, (T *)d->x_data + n * d->x.image + first * LANES, r.row * d->stride_h + d->top,
                           (r.rows - 1) * d->stride_h + d->reach_h, r.column * d->stride_w + d->left,
                           (r.columns - 1) * d->stride_w + d->reach_w, vectors * LANES,
                           d->far && d->all_taps ? room : NULL);
    Cells y = NAME(pixels)(d, &d->y, (T *)d->y_data + n * d->y.image + first * LANES, r.row, r.rows, r.column,
                           r.columns, vectors * LANES, d->far && sums ? room + d->source_size : NULL);
    for (ptrdiff_t i = r.row; i < r.row + r.rows; i += TILE_ROWS)
        for (ptrdiff_t j = r.column; j < r.column + r.columns; j += TILE_COLUMNS)
            for (ptrdiff_t phase = 0; phase < d->phases_h * d->phases_w; phase++) {
                NAME(Tile) tile = NAME(tile_at)(d, &x, &y, r, phase, i, j);
                if (tile.rows <= 0 || tile.columns <= 0)
                    continue;
                if (sums)
                    NAME(sums_tile)(d, tile, first, vectors, sums);
                else
                    NAME(outputs_tile)(d, tile, phase, first, vectors);
            }
}

#undef TILE_ROWS
#undef TILE_COLUMNS
#undef TILE
#undef MOST_SUMS
#undef EACH
#undef IN_ROWS
#undef IN_COLUMNS
#undef IN_Y
#undef X_AT
#undef Y_AT
#undef EACH_PRODUCT
#undef SIZE
#undef SIZES
#undef SIZES_OF_SUMS
