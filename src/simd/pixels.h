/* Depthwise convolution of NHWC with 3x3 kernels, strides 1 and 2, where the arrays are; part of depthwise.h.

   Lanes of vectors are neighbouring channels of a pixel. A tile of outputs is kept in registers, and each cell that it
   sees is loaded once. Pixels that are far apart would push each other out of the first cache, and are copied before.
   The last vector ends with the last channel, and has some of those before it again. Cells outside of the image are
   skipped, so no number that is not finite could meet padding. */

/* Rows and columns of a tile: columns as long as images often have a multiple of. Only outputs that see one column are
   in registers at a time, 6 beside the weights of a 3x3 kernel. With stride 2 there is little to compute, and short
   tiles read memory more nearly in its order: so it is with 16 registers, and not known with 32. */
#define TILE_ROWS 2
#define TILE_COLUMNS(S) (REGISTERS >= 32 || (S) == 1 ? 7 : 1)
#define STRIP 14 /* outputs of each phase side by side, before those of the next that see about the same cells */
#define AHEAD (64 / VECTOR_BYTES) /* vectors of a cache line, which is fetched ahead with the first */
#define TILE (TILE_ROWS * 7) /* outputs at the most */
#define MOST_SUMS 10 /* of the weight gradient, and one of dy alone */

#define EACH(i, count) _Pragma("GCC unroll 32") for (ptrdiff_t i = 0; i < (count); i++)

/* Outputs of one phase, from the first of a tile to the end of the strip, and the cells of x that they see through the
   taps: `left` is the column of the first. Of the rows and columns of cells that the tile sees, a bit for each that is
   in the image and seen by one of these outputs. */
typedef struct {
    const T *x;
    T *y;
    ptrdiff_t x_row, x_cell, y_row, y_cell;
    ptrdiff_t rows, columns, left;
    ptrdiff_t rows_seen, columns_seen;
} NAME(Tile);

/* Bits for cells from, from + 1, ..., as many as `outputs` see, of those that are 0 .. size - 1. */
ALWAYS ptrdiff_t NAME(seen)(ptrdiff_t from, ptrdiff_t outputs, ptrdiff_t stride, ptrdiff_t taps, ptrdiff_t size)
{
    const ptrdiff_t cells = (outputs - 1) * stride + taps, one = 1;
    return (one << NAME(clip)(size - from, cells)) - (one << NAME(clip)(-from, cells));
}

/* The first tile of a strip that begins with output (i, j) of a phase, where these are the cells of x and y. */
ALWAYS NAME(Tile) NAME(tile_at)(const Depthwise *d, const Cells *x, const Cells *y, NAME(Region) r, ptrdiff_t phase,
                                ptrdiff_t i, ptrdiff_t j, ptrdiff_t strip)
{
    const Taps *t = d->taps + phase;
    ptrdiff_t h = i * d->stride_h + t->top, w = j * d->stride_w + t->left;
    ptrdiff_t row = i * d->phases_h + phase / d->phases_w, column = j * d->phases_w + phase % d->phases_w;
    NAME(Tile) tile = {
        .x = (const T *)x->data + (h - x->top) * x->row + (w - x->left) * x->cell,
        .y = (T *)y->data + (row - y->top) * y->row + (column - y->left) * y->cell,
        .x_row = x->row, .x_cell = x->cell, .y_row = d->phases_h * y->row, .y_cell = d->phases_w * y->cell,
        .rows = NAME(least)(TILE_ROWS, NAME(least)(r.row + r.rows, t->rows) - i),
        .columns = NAME(least)(strip, NAME(least)(r.column + r.columns, t->columns) - j), .left = w,
    };
    if (tile.rows > 0)
        tile.rows_seen = NAME(seen)(h, tile.rows, d->stride_h, t->KH, d->x.rows);
    return tile;
}

/* A vector of channels of a tile, column by column, so that only the outputs which see a column are in registers:

     for w in columns of cells
       for r, q in outputs that see it first                     BEGIN
       for h in cells                                            loaded once
         for r, q in outputs that see it                         PRODUCT, in registers
       for r, q in outputs that see it last                      END

   Places are counted on from column to column: of many that are known before, each would take a register. */
#define EACH_PRODUCT                                                                                                  \
    ptrdiff_t columns_seen = t->columns_seen, rows_seen = t->rows_seen;                                               \
    OPAQUE(columns_seen);                                                                                             \
    OPAQUE(rows_seen);                                                                                                \
    EACH(w, (Q - 1) * S + (KW > 0 ? KW : 1)) {                                                                        \
        if (w % S == 0 && w / S < Q)                                                                                  \
            EACH(r, R)                                                                                                \
                BEGIN(r, w / S);                                                                                      \
        if (columns_seen >> w & 1)                                                                                    \
            EACH(h, (R - 1) * S + KH) {                                                                               \
                if (!(rows_seen >> h & 1))                                                                            \
                    continue;                                                                                         \
                Vector cell = NAME(load)(x + h * t->x_row);                                                           \
                EACH(r, R)                                                                                            \
                    EACH(q, Q)                                                                                        \
                        if (h - r * S >= 0 && h - r * S < KH && w - q * S >= 0 && w - q * S < KW)                     \
                            PRODUCT(r * Q + q, (h - r * S) * KW + w - q * S);                                         \
            }                                                                                                         \
        x += t->x_cell;                                                                                               \
        OPAQUE(x);                                                                                                    \
        if (w >= KW - 1 && (w - (KW - 1)) % S == 0)                                                                   \
            EACH(r, R)                                                                                                \
                END(r, (w - (KW - 1)) / S);                                                                           \
    }

ALWAYS void NAME(tile_outputs)(const int KH, const int KW, const int S, const NAME(Tile) *t, const T *x,
                               const T *weights, const T *bias, int relu, T *y)
{
    const ptrdiff_t R = TILE_ROWS, Q = TILE_COLUMNS(S);
    Vector acc[TILE], weight[MOST_SUMS];
    EACH(k, KH * KW)
        weight[k] = NAME(load)(weights + k * LANES);
#define BEGIN(r, q) acc[(r) * Q + (q)] = NAME(load)(bias)
#define PRODUCT(output, tap) acc[output] += cell * weight[tap]
#define END(r, q)                                                                                                     \
    {                                                                                                                 \
        Vector v = acc[(r) * Q + (q)];                                                                                \
        if ((r) < t->rows && (q) < t->columns)                                                                        \
            NAME(store)(y + (r) * t->y_row, relu ? NAME(relu)(v) : v);                                                \
        if ((r) == R - 1) {                                                                                           \
            y += t->y_cell;                                                                                           \
            OPAQUE(y);                                                                                                \
        }                                                                                                             \
    }
    EACH_PRODUCT
#undef BEGIN
#undef PRODUCT
#undef END
}

/* sums[tap] += dy * x, and after the taps the sum of dy. */
ALWAYS void NAME(tile_sums)(const int KH, const int KW, const int S, const NAME(Tile) *t, const T *x, const T *y, T *to)
{
    const ptrdiff_t R = TILE_ROWS, Q = TILE_COLUMNS(S);
    Vector dy[TILE], sums[MOST_SUMS];
    EACH(k, KH * KW + 1)
        sums[k] = NAME(load)(to + k * LANES);
#define BEGIN(r, q)                                                                                                   \
    {                                                                                                                 \
        Vector v = NAME(spread)(0);                                                                                   \
        if ((r) < t->rows && (q) < t->columns)                                                                        \
            v = NAME(load)(y + (r) * t->y_row);                                                                       \
        dy[(r) * Q + (q)] = v;                                                                                        \
        sums[KH * KW] += v;                                                                                           \
        if ((r) == R - 1) {                                                                                           \
            y += t->y_cell;                                                                                           \
            OPAQUE(y);                                                                                                \
        }                                                                                                             \
    }
#define PRODUCT(output, tap) sums[tap] += cell * dy[output]
#define END(r, q) (void)0
    EACH_PRODUCT
#undef BEGIN
#undef PRODUCT
#undef END
    EACH(k, KH * KW + 1)
        NAME(store)(to + k * LANES, sums[k]);
}

/* What tiles below will read and write, while this one is computed. */
ALWAYS void NAME(look_below)(const int KH, const int KW, const int S, const NAME(Tile) *t, int of_x, const T *x,
                             const T *y)
{
    const ptrdiff_t R = TILE_ROWS, Q = TILE_COLUMNS(S);
    x += ((R - 1) * S + KH) * t->x_row + KW / 2 * t->x_cell;
    if (of_x)
        EACH(w, Q * S) {
            EACH(h, R * S)
                PREFETCH(x + h * t->x_row);
            x += t->x_cell;
            OPAQUE(x);
        }
    y += R * t->y_row;
    EACH(q, Q) {
        EACH(r, R)
            PREFETCH(y + r * t->y_row);
        y += t->y_cell;
        OPAQUE(y);
    }
}

/* A strip of tiles, all vectors of a group: outputs or, summed, the weight gradient.

     for tile of outputs
       for v in vectors                                          neighbours in memory
         tile                                                    registers                                            */
ALWAYS void NAME(strip)(const int KH, const int KW, const int S, const int summed, const Depthwise *d, NAME(Tile) t,
                        ptrdiff_t phase, ptrdiff_t first, ptrdiff_t vectors, T *sums)
{
    const ptrdiff_t Q = TILE_COLUMNS(S), last = NAME(start)(d, first + vectors - 1) - first * LANES;
    const T *weights = (const T *)d->weights + (first * d->all_taps + d->taps[phase].before) * LANES;
    const T *bias = (const T *)d->bias + first * LANES;
    for (; t.columns > 0; t.columns -= Q, t.left += Q * S, t.x += Q * S * t.x_cell, t.y += Q * t.y_cell) {
        t.columns_seen = NAME(seen)(t.left, NAME(least)(t.columns, Q), S, KW, d->x.columns);
        for (ptrdiff_t v = 0; v < vectors; v++) {
            const T *x = t.x + NAME(least)(v * LANES, last), *w = weights + v * d->all_taps * LANES;
            T *y = t.y + NAME(least)(v * LANES, last);
            if (v % AHEAD == 0)
                NAME(look_below)(KH, KW, S, &t, phase == 0 && !d->far, x, y);
            if (summed)
                NAME(tile_sums)(KH, KW, S, &t, x, y, sums + v * (KH * KW + 1) * LANES);
            else
                NAME(tile_outputs)(KH, KW, S, &t, x, w, bias + v * LANES, d->relu, y);
        }
    }
}

/* The kernels, each compiled with its size: 3x3, what phases of its input gradient have of it, and sums of dy alone. */
#define SIZE(KH, KW, S) (((KH) * 4 + (KW)) * 4 + (S))
#define SIZES(with) with(1, 1, 1) with(1, 2, 1) with(2, 1, 1) with(2, 2, 1) with(3, 3, 1) with(3, 3, 2)
#define SIZES_OF_SUMS(with) with(0, 0, 1) with(0, 0, 2) with(3, 3, 1) with(3, 3, 2)

static void NAME(outputs_strip)(const Depthwise *d, NAME(Tile) t, ptrdiff_t phase, ptrdiff_t first, ptrdiff_t vectors)
{
#define CASE(KH, KW, S)                                                                                               \
    case SIZE(KH, KW, S):                                                                                             \
        NAME(strip)(KH, KW, S, 0, d, t, phase, first, vectors, NULL);                                                 \
        break;
    switch (SIZE(d->taps[phase].KH, d->taps[phase].KW, d->stride_h)) {
        SIZES(CASE)
    }
#undef CASE
}

static void NAME(sums_strip)(const Depthwise *d, NAME(Tile) t, ptrdiff_t first, ptrdiff_t vectors, T *sums)
{
#define CASE(KH, KW, S)                                                                                               \
    case SIZE(KH, KW, S):                                                                                             \
        NAME(strip)(KH, KW, S, 1, d, t, 0, first, vectors, sums);                                                     \
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

     for strip of rows                                           as long as they are, if there is one phase
       for phase                                                 they see about the same cells
         for tile of outputs, for v in vectors of group g                                                             */
static void NAME(pixels_region)(const Depthwise *d, ptrdiff_t n, ptrdiff_t g, NAME(Region) r, T *room, T *sums)
{
    ptrdiff_t first = g * d->vectors, vectors = NAME(vectors_of)(d, g);
    Cells x = NAME(pixels)(d, &d->x, (T *)d->x_data + n * d->x.image + first * LANES, r.row * d->stride_h + d->top,
                           (r.rows - 1) * d->stride_h + d->reach_h, r.column * d->stride_w + d->left,
                           (r.columns - 1) * d->stride_w + d->reach_w, vectors * LANES,
                           d->far && d->all_taps ? room : NULL);
    Cells y = NAME(pixels)(d, &d->y, (T *)d->y_data + n * d->y.image + first * LANES, r.row, r.rows, r.column,
                           r.columns, vectors * LANES, d->far && sums ? room + d->source_size : NULL);
    const ptrdiff_t phases = d->phases_h * d->phases_w, strip = phases == 1 ? r.columns : STRIP;
    for (ptrdiff_t i = r.row; i < r.row + r.rows; i += TILE_ROWS)
        for (ptrdiff_t j = r.column; j < r.column + r.columns; j += strip)
            for (ptrdiff_t phase = 0; phase < phases; phase++) {
                NAME(Tile) tile = NAME(tile_at)(d, &x, &y, r, phase, i, j, strip);
                if (tile.rows <= 0)
                    continue;
                if (sums)
                    NAME(sums_strip)(d, tile, first, vectors, sums);
                else
                    NAME(outputs_strip)(d, tile, phase, first, vectors);
            }
}

#undef TILE_ROWS
#undef TILE_COLUMNS
#undef TILE
#undef STRIP
#undef AHEAD
#undef MOST_SUMS
#undef EACH
#undef EACH_PRODUCT
#undef SIZE
#undef SIZES
#undef SIZES_OF_SUMS
