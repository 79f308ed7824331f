/* Depthwise convolution of NHWC with 3x3 kernels, strides 1 and 2, where the arrays are; part of depthwise.h.

   Lanes of vectors are neighbouring channels of a pixel. A tile of outputs is kept in registers, and each cell that it
   sees is loaded once. Pixels that are far apart would push each other out of the first cache, and are copied before.
   The last vector ends with the last channel, and has some of those before it again. Cells outside of the image are
   skipped, so no number that is not finite could meet padding. */

/* Rows and columns of a tile: with columns as long as images often have a multiple of, half of 32 registers, beside the
   weights of a 3x3 kernel. Of 16 there are so many left by those; but with stride 1 the larger tile, whose cells are
   seen by more outputs of it, is faster there, too. */
#define TILE_ROWS(S) (REGISTERS >= 32 || (S) == 1 ? 2 : 1)
#define TILE_COLUMNS(S) (REGISTERS >= 32 || (S) == 1 ? 7 : 4)
#define TILE 14 /* outputs at the most */
#define MOST_SUMS 10 /* of the weight gradient, and one of dy alone */

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
        .rows = NAME(least)(TILE_ROWS(d->stride_h), NAME(least)(r.row + r.rows, t->rows) - i),
        .columns = NAME(least)(TILE_COLUMNS(d->stride_h), NAME(least)(r.column + r.columns, t->columns) - j),
        .top = NAME(most)(-h, 0), .left = NAME(most)(-w, 0),
    };
    tile.bottom = NAME(least)(d->x.rows - h, (tile.rows - 1) * d->stride_h + (t->KH - 1) * t->dilation_h + 1);
    tile.right = NAME(least)(d->x.columns - w, (tile.columns - 1) * d->stride_w + (t->KW - 1) * t->dilation_w + 1);
    return tile;
}

/* A vector of channels of a tile:

     for h, w in cells of x                                      loaded once
       for r, q in outputs that see it                           registers                                            */
#define EACH_PRODUCT                                                                                                  \
    EACH(h, (R - 1) * S + KH) {                                                                                       \
        if (!IN_ROWS(h))                                                                                              \
            continue;                                                                                                 \
        EACH(w, (Q - 1) * S + KW) {                                                                                   \
            if (!IN_COLUMNS(w))                                                                                       \
                continue;                                                                                             \
            Vector cell = NAME(load)(X_AT(h, w));                                                                     \
            EACH(r, R)                                                                                                \
                EACH(q, Q)                                                                                            \
                    if (h - r * S >= 0 && h - r * S < KH && w - q * S >= 0 && w - q * S < KW)                         \
                        PRODUCT(r * Q + q, (h - r * S) * KW + w - q * S);                                             \
        }                                                                                                             \
    }

ALWAYS void NAME(tile_outputs)(const int KH, const int KW, const int S, const NAME(Tile) *t, const T *x,
                               const T *weights, const T *bias, int relu, T *y)
{
    const ptrdiff_t R = TILE_ROWS(S), Q = TILE_COLUMNS(S);
    Vector acc[TILE], weight[MOST_SUMS];
    EACH(k, KH * KW)
        weight[k] = NAME(load)(weights + k * LANES);
    EACH(i, R * Q)
        acc[i] = NAME(load)(bias);
#define PRODUCT(output, tap) acc[output] += cell * weight[tap]
    EACH_PRODUCT
#undef PRODUCT
    EACH(r, R)
        EACH(q, Q)
            if (IN_Y(r, q)) {
                Vector v = acc[r * Q + q];
                NAME(store)(Y_AT(r, q), relu ? NAME(relu)(v) : v);
            }
}

/* sums[tap] += dy * x, and after the taps the sum of dy. */
ALWAYS void NAME(tile_sums)(const int KH, const int KW, const int S, const NAME(Tile) *t, const T *x, const T *y, T *to)
{
    const ptrdiff_t R = TILE_ROWS(S), Q = TILE_COLUMNS(S);
    Vector dy[TILE], sums[MOST_SUMS];
    EACH(k, KH * KW + 1)
        sums[k] = NAME(load)(to + k * LANES);
    EACH(r, R)
        EACH(q, Q) {
            dy[r * Q + q] = IN_Y(r, q) ? NAME(load)(Y_AT(r, q)) : NAME(spread)(0);
            sums[KH * KW] += dy[r * Q + q];
        }
#define PRODUCT(output, tap) sums[tap] += cell * dy[output]
    EACH_PRODUCT
#undef PRODUCT
    EACH(k, KH * KW + 1)
        NAME(store)(to + k * LANES, sums[k]);
}

/* What tiles below will read and write, while this one is computed. */
ALWAYS void NAME(look_below)(const int KH, const int KW, const int S, const NAME(Tile) *t, int of_x, const T *x,
                             const T *y)
{
    const ptrdiff_t R = TILE_ROWS(S), Q = TILE_COLUMNS(S);
    if (of_x)
        EACH(h, R * S)
            EACH(w, Q * S)
                PREFETCH(X_AT((R - 1) * S + KH + h, KW / 2 + w));
    EACH(r, R)
        EACH(q, Q)
            PREFETCH(Y_AT(R + r, q));
}

/* All vectors of a group for a tile: outputs or, with sums, the weight gradient.

     for v in vectors                                            neighbours in memory
       tile                                                      registers                                            */
ALWAYS void NAME(pixels_vectors)(const int KH, const int KW, const int S, const Depthwise *d, const NAME(Tile) *t,
                                 ptrdiff_t phase, ptrdiff_t first, ptrdiff_t vectors, T *sums)
{
    for (ptrdiff_t v = first; v < first + vectors; v++) {
        ptrdiff_t start = NAME(start)(d, v) - first * LANES;
        const T *x = t->x + start, *w = (const T *)d->weights + (v * d->all_taps + d->taps[phase].before) * LANES;
        T *y = t->y + start;
        NAME(look_below)(KH, KW, S, t, phase == 0 && !d->far, x, y);
        if (sums)
            NAME(tile_sums)(KH, KW, S, t, x, y, sums + (v - first) * (KH * KW + 1) * LANES);
        else
            NAME(tile_outputs)(KH, KW, S, t, x, w, (const T *)d->bias + v * LANES, d->relu, y);
    }
}

/* The kernels, each compiled with its size: 3x3, what phases of its input gradient have of it, and sums of dy alone. */
#define SIZE(KH, KW, S) (((KH) * 4 + (KW)) * 4 + (S))
#define SIZES(with) with(1, 1, 1) with(1, 2, 1) with(2, 1, 1) with(2, 2, 1) with(3, 3, 1) with(3, 3, 2)
#define SIZES_OF_SUMS(with) with(0, 0, 1) with(0, 0, 2) with(3, 3, 1) with(3, 3, 2)

/* The tile is a copy of its own, which what is stored in y cannot change. */
static void NAME(outputs_tile)(const Depthwise *d, NAME(Tile) tile, ptrdiff_t phase, ptrdiff_t first, ptrdiff_t vectors)
{
#define CASE(KH, KW, S)                                                                                               \
    case SIZE(KH, KW, S):                                                                                             \
        NAME(pixels_vectors)(KH, KW, S, d, &tile, phase, first, vectors, NULL);                                       \
        break;
    switch (SIZE(d->taps[phase].KH, d->taps[phase].KW, d->stride_h)) {
        SIZES(CASE)
    }
#undef CASE
}

static void NAME(sums_tile)(const Depthwise *d, NAME(Tile) tile, ptrdiff_t first, ptrdiff_t vectors, T *sums)
{
#define CASE(KH, KW, S)                                                                                               \
    case SIZE(KH, KW, S):                                                                                             \
        NAME(pixels_vectors)(KH, KW, S, d, &tile, 0, first, vectors, sums);                                           \
        break;
    switch (SIZE(d->taps->KH, d->taps->KW, d->stride_h)) {
        SIZES_OF_SUMS(CASE)
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
    ptrdiff_t first = g * d->vectors, vectors = NAME(vectors_of)(d, g);
    Cells x = NAME(pixels)(d, &d->x, (T *)d->x_data + n * d->x.image + first * LANES, r.row * d->stride_h + d->top,
                           (r.rows - 1) * d->stride_h + d->reach_h, r.column * d->stride_w + d->left,
                           (r.columns - 1) * d->stride_w + d->reach_w, vectors * LANES,
                           d->far && d->all_taps ? room : NULL);
    Cells y = NAME(pixels)(d, &d->y, (T *)d->y_data + n * d->y.image + first * LANES, r.row, r.rows, r.column,
                           r.columns, vectors * LANES, d->far && sums ? room + d->source_size : NULL);
    for (ptrdiff_t i = r.row; i < r.row + r.rows; i += TILE_ROWS(d->stride_h))
        for (ptrdiff_t j = r.column; j < r.column + r.columns; j += TILE_COLUMNS(d->stride_h))
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
