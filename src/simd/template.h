/* The vector kernels, written once; each instruction set includes this file for float and for double.

   The product follows Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008: a tile of C
   stays in registers while k runs. Uses the vector extensions of GCC and Clang; for other compilers (PLAIN_C) a vector is
   one number. Defined by who includes it: SET (name of the instruction set), VECTOR_BYTES, MR (rows of a tile), NV
   (vectors in a row of a tile), T and INTEGER (a number, and an integer of its size), KIND (its name). */

#define JOIN(a, b, c) a##_##b##_##c
#define JOINED(a, b, c) JOIN(a, b, c)
#define NAME(function) JOINED(function, SET, KIND)
#if defined(PLAIN_C)
#define ALWAYS static inline
#define LANES ((ptrdiff_t)1)
#else
#define ALWAYS static inline __attribute__((always_inline))
#define LANES ((ptrdiff_t)(VECTOR_BYTES / sizeof(T)))
#endif

#define Vector NAME(Vector)
#define Mask NAME(Mask)
#define NR (NV * LANES)

#if defined(PLAIN_C)
typedef T Vector;
#else
typedef T Vector __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(T)), may_alias));
typedef INTEGER Mask __attribute__((vector_size(VECTOR_BYTES)));
#endif

ALWAYS Vector NAME(load)(const T *p) { return *(const Vector *)p; }

ALWAYS void NAME(store)(T *p, Vector v) { *(Vector *)p = v; }

#if defined(PLAIN_C)
ALWAYS Vector NAME(spread)(T a) { return a; }

ALWAYS Vector NAME(relu)(Vector v) { return v <= 0 ? 0 : v; }

ALWAYS T NAME(total)(Vector v) { return v; }
#else
ALWAYS Vector NAME(spread)(T a) { return a - (Vector){0}; }

ALWAYS Vector NAME(relu)(Vector v) { return (Vector)(~(Mask)(v <= (Vector){0}) & (Mask)v); }

ALWAYS T NAME(total)(Vector v)
{
    T sum = 0;
    for (int lane = 0; lane < LANES; lane++)
        sum += v[lane];
    return sum;
}
#endif

/* One tile of C in registers:

     for k                                       a row of B, NV vectors, from the first cache
       for m in rows of the tile                 a number of A, spread
         for v in vectors of the row             acc[m][v] += a[m][k] * b[k][v]                                     */
ALWAYS void NAME(tile)(const int mr, const int nv, const int packed, ptrdiff_t K, const T *a, Left left, const T *b,
                       ptrdiff_t b_row, T *c, Target to, const T *row_bias, const T *column_bias)
{
    Vector acc[MR][NV];
#pragma GCC unroll 16
    for (int m = 0; m < mr; m++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++)
            acc[m][v] = to.add        ? NAME(load)(c + m * to.row + v * LANES)
                        : row_bias    ? NAME(spread)(row_bias[m])
                        : column_bias ? NAME(load)(column_bias + v * LANES)
                                      : NAME(spread)(0);
    for (ptrdiff_t k = 0; k < K; k++) {
        Vector row[NV];
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++)
            row[v] = NAME(load)(b + k * b_row + v * LANES);
#pragma GCC unroll 16
        for (int m = 0; m < mr; m++) {
            Vector number = NAME(spread)(packed ? a[k * left.step + m] : a[m * left.row + k]);
#pragma GCC unroll 4
            for (int v = 0; v < nv; v++)
                acc[m][v] += number * row[v];
        }
    }
#pragma GCC unroll 16
    for (int m = 0; m < mr; m++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) {
            Vector y = acc[m][v];
            NAME(store)(c + m * to.row + v * LANES, to.relu ? NAME(relu)(y) : y);
        }
}

/* All rows of C in one panel of nv vectors, in tiles of MR rows, then 4, 2 and 1. */
ALWAYS void NAME(panel)(const int nv, const int packed, ptrdiff_t M, ptrdiff_t K, Left left, const T *b,
                        ptrdiff_t b_row, Target to, const T *column_bias)
{
    for (ptrdiff_t m = 0; m < M;) {
        const T *a = (const T *)left.data + m / MR * left.tile + m % MR * left.row;
        T *c = (T *)to.data + m * to.row;
        const T *row_bias = to.row_bias ? (const T *)to.row_bias + m : NULL;
        ptrdiff_t rest = M - m;
        if (rest >= MR) {
            NAME(tile)(MR, nv, packed, K, a, left, b, b_row, c, to, row_bias, column_bias);
            m += MR;
        } else if (rest >= 4) {
            NAME(tile)(4, nv, packed, K, a, left, b, b_row, c, to, row_bias, column_bias);
            m += 4;
        } else if (rest >= 2) {
            NAME(tile)(2, nv, packed, K, a, left, b, b_row, c, to, row_bias, column_bias);
            m += 2;
        } else {
            NAME(tile)(1, nv, packed, K, a, left, b, b_row, c, to, row_bias, column_bias);
            m += 1;
        }
    }
}

static void NAME(whole_panel)(int nv, ptrdiff_t M, ptrdiff_t K, Left left, const T *b, ptrdiff_t b_row, Target to,
                              const T *column_bias)
{
    int packed = left.row == 1;
#define PANEL(nv, packed) NAME(panel)(nv, packed, M, K, left, b, b_row, to, column_bias)
    if (nv == NV) {
        if (packed)
            PANEL(NV, 1);
        else
            PANEL(NV, 0);
    } else if (nv == 2) {
        if (packed)
            PANEL(2, 1);
        else
            PANEL(2, 0);
    } else {
        if (packed)
            PANEL(1, 1);
        else
            PANEL(1, 0);
    }
#undef PANEL
}

/* A panel whose last vector is not full: by way of a buffer, a tile of rows at a time. */
static void NAME(part_panel)(int nv, ptrdiff_t n, ptrdiff_t M, ptrdiff_t K, Left left, const T *b, ptrdiff_t b_row,
                             Target to, const T *column_bias)
{
    T buffer[MR * NR], bias[NR] = {0};
    if (column_bias)
        memcpy(bias, column_bias, n * sizeof(T));
    for (ptrdiff_t m = 0; m < M; m += MR) {
        ptrdiff_t rows = M - m < MR ? M - m : MR;
        T *c = (T *)to.data + m * to.row;
        if (to.add)
            for (ptrdiff_t i = 0; i < rows; i++)
                memcpy(buffer + i * NR, c + i * to.row, n * sizeof(T));
        Left part = {(const T *)left.data + m / MR * left.tile, left.tile, left.row, left.step};
        Target buffered = {buffer, NR, to.add, to.row_bias ? (const T *)to.row_bias + m : NULL, NULL, to.relu};
        NAME(whole_panel)(nv, rows, K, part, b, b_row, buffered, column_bias ? bias : NULL);
        for (ptrdiff_t i = 0; i < rows; i++)
            memcpy(c + i * to.row, buffer + i * NR, n * sizeof(T));
    }
}

static void NAME(multiply)(ptrdiff_t M, ptrdiff_t N, ptrdiff_t K, Left a, Right b, Target c)
{
    for (ptrdiff_t n = 0; n < N; n += NR) {
        ptrdiff_t rest = N - n < NR ? N - n : NR;
        int nv = (int)((rest + LANES - 1) / LANES);
        const T *b_panel = (const T *)b.data + n / NR * b.panel;
        const T *column_bias = c.column_bias ? (const T *)c.column_bias + n : NULL;
        Target to = {(T *)c.data + n, c.row, c.add, c.row_bias, NULL, c.relu};
        if (rest == nv * LANES)
            NAME(whole_panel)(nv, M, K, a, b_panel, b.row, to, column_bias);
        else
            NAME(part_panel)(nv, rest, M, K, a, b_panel, b.row, to, column_bias);
    }
}

/* Turn a block of 4 x 4 numbers: to[k][o] = from[o][k]. */
ALWAYS void NAME(turn)(const T *from, ptrdiff_t row, T *to, ptrdiff_t width)
{
#if !defined(PLAIN_C) && HAS_SHUFFLE
    typedef T Four __attribute__((vector_size(4 * sizeof(T)), aligned(sizeof(T)), may_alias));
    Four a = *(const Four *)from, b = *(const Four *)(from + row);
    Four c = *(const Four *)(from + 2 * row), d = *(const Four *)(from + 3 * row);
    Four ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    Four cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    *(Four *)to = __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5);
    *(Four *)(to + width) = __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7);
    *(Four *)(to + 2 * width) = __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5);
    *(Four *)(to + 3 * width) = __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7);
#else
    for (int o = 0; o < 4; o++)
        for (int k = 0; k < 4; k++)
            to[k * width + o] = from[o * row + k];
#endif
}

/* for a panel, for a block of k that stays in the first cache, for o in rows of the panel: blocks of 4 x 4 where
   neighbours in k are neighbours in memory, single numbers elsewhere */
static void NAME(pack)(const void *from, ptrdiff_t row, const ptrdiff_t *offset, ptrdiff_t rows, ptrdiff_t K, void *to,
                       ptrdiff_t width, ptrdiff_t panel)
{
    for (ptrdiff_t first = 0; first < rows; first += width)
        for (ptrdiff_t k0 = 0; k0 < K; k0 += 64) {
            ptrdiff_t k1 = K - k0 < 64 ? K : k0 + 64, o = 0;
            const T *numbers = (const T *)from + first * row;
            T *block = (T *)to + first / width * panel;
            for (; o + 4 <= width && first + o + 4 <= rows; o += 4)
                for (ptrdiff_t k = k0; k < k1;)
                    if (k + 4 <= k1 && offset[k + 3] == offset[k] + 3) {
                        NAME(turn)(numbers + o * row + offset[k], row, block + k * width + o, width);
                        k += 4;
                    } else {
                        for (ptrdiff_t i = o; i < o + 4; i++)
                            block[k * width + i] = numbers[i * row + offset[k]];
                        k++;
                    }
            for (; o < width; o++)
                for (ptrdiff_t k = k0; k < k1; k++)
                    block[k * width + o] = first + o < rows ? numbers[o * row + offset[k]] : 0;
        }
}

static int NAME(is_finite)(const void *data, ptrdiff_t count)
{
    const T *numbers = data;
    Vector zeros = NAME(spread)(0); /* a lane becomes NaN with its first number that is not finite */
    ptrdiff_t i = 0;
    for (; i + LANES <= count; i += LANES)
        zeros += NAME(load)(numbers + i) * 0;
    T zero = NAME(total)(zeros);
    for (; i < count; i++)
        zero += numbers[i] * 0;
    return zero == 0;
}

/* Copy a short run of neighbours: whole vectors, and a last one that overlaps the one before. */
ALWAYS void NAME(copy)(T *restrict to, const T *restrict from, ptrdiff_t count)
{
    if (count >= LANES) {
        for (ptrdiff_t i = 0; i < count - LANES; i += LANES)
            NAME(store)(to + i, NAME(load)(from + i));
        NAME(store)(to + count - LANES, NAME(load)(from + count - LANES));
        return;
    }
#define COPY_TWO(n)                                                                                                   \
    if (count >= n) {                                                                                                 \
        memcpy(to, from, n * sizeof(T));                                                                              \
        memcpy(to + count - n, from + count - n, n * sizeof(T));                                                      \
        return;                                                                                                       \
    }
    COPY_TWO(8)
    COPY_TWO(4)
    COPY_TWO(2)
#undef COPY_TWO
    *to = *from;
}

ALWAYS void NAME(copy_steps)(T *restrict to, const T *restrict from, ptrdiff_t step, ptrdiff_t count)
{
    if (step == 1)
        NAME(copy)(to, from, count);
    else if (step == 2) /* the loop below, with a step the compiler knows */
        for (ptrdiff_t i = 0; i < count; i++)
            to[i] = from[i * 2];
    else
        for (ptrdiff_t i = 0; i < count; i++)
            to[i] = from[i * step];
}

ALWAYS void NAME(add_steps)(T *restrict to, ptrdiff_t step, const T *restrict from, ptrdiff_t count)
{
    if (step == 1)
        for (ptrdiff_t i = 0; i < count; i++)
            to[i] += from[i];
    else
        for (ptrdiff_t i = 0; i < count; i++)
            to[i * step] += from[i];
}

/* The columns of a panel, copied from x or (back) added to it.

     for run of outputs in one row of an image
       for t in taps                                                which cells of the run lie in the image
         for c in channels                                          zeros, cells, zeros                             */
ALWAYS void NAME(panel_columns)(const int back, const Windows *g, T *x, ptrdiff_t k0, ptrdiff_t k1, ptrdiff_t q,
                                ptrdiff_t count, T *columns, ptrdiff_t row)
{
    ptrdiff_t image = q / (g->rows * g->columns), i = q / g->columns % g->rows, j = q % g->columns;
    ptrdiff_t c0 = k0 / g->taps, t0 = k0 % g->taps, step = g->stride_w * g->cell;
    while (count > 0) {
        ptrdiff_t run = g->columns - j < count ? g->columns - j : count;
        for (ptrdiff_t t = 0; t < g->taps; t++) {
            ptrdiff_t h = i * g->stride_h + g->tap_h[t];
            ptrdiff_t from = g->first[t] > j ? g->first[t] - j : 0, until = g->end[t] - j < run ? g->end[t] - j : run;
            if (h < 0 || h >= g->H || from >= until)
                from = until = run;
            T *cells = x + image * g->image + h * g->row + ((j + from) * g->stride_w + g->tap_w[t]) * g->cell;
            for (ptrdiff_t c = t < t0 ? c0 + 1 : c0, k = c * g->taps + t; k < k1; c++, k += g->taps) {
                T *to = columns + (k - k0) * row;
                if (back) {
                    NAME(add_steps)(cells + c * g->channel, step, to + from, until - from);
                    continue;
                }
                for (ptrdiff_t o = 0; o < from; o++)
                    to[o] = 0;
                if (from < until)
                    NAME(copy_steps)(to + from, cells + c * g->channel, step, until - from);
                for (ptrdiff_t o = until; o < run; o++)
                    to[o] = 0;
            }
        }
        columns += run, count -= run, j = 0;
        if (++i == g->rows)
            i = 0, image++;
    }
}

static void NAME(gather_columns)(const Windows *g, const void *x, ptrdiff_t k0, ptrdiff_t k1, ptrdiff_t q0,
                                 ptrdiff_t count, void *columns, ptrdiff_t panel, ptrdiff_t row)
{
    for (ptrdiff_t q = 0; q < count; q += NR)
        NAME(panel_columns)(0, g, (T *)x, k0, k1, q0 + q, count - q < NR ? count - q : NR,
                            (T *)columns + q / NR * panel, row);
}

static void NAME(add_columns)(const Windows *g, void *x, ptrdiff_t q0, ptrdiff_t count, const void *columns,
                              ptrdiff_t row)
{
    NAME(panel_columns)(1, g, x, 0, g->channels * g->taps, q0, count, (T *)columns, row);
}

/* The rows of some outputs, copied from x or (back) added to it.

     for q in outputs
       for t in taps                                                one cell, and its neighbours if they are next taps
         for c in channels                                                                                           */
ALWAYS void NAME(cell_rows)(const int back, const Windows *g, T *x, ptrdiff_t k0, ptrdiff_t k1, ptrdiff_t q0,
                            ptrdiff_t count, T *rows, ptrdiff_t row)
{
    ptrdiff_t image = q0 / (g->rows * g->columns), i = q0 / g->columns % g->rows, j = q0 % g->columns;
    ptrdiff_t t0 = k0 / g->channels, c0 = k0 % g->channels;
    ptrdiff_t together = g->channel == 1 && g->cell == g->channels ? g->neighbours : 1;
    for (ptrdiff_t q = 0; q < count; q++) {
        T *to = rows + q * row, *end = to + k1 - k0;
        for (ptrdiff_t t = t0, u = t0 % together, c = c0, n = 1; to < end; t += n, c = 0) {
            ptrdiff_t h = i * g->stride_h + g->tap_h[t], w = j * g->stride_w + g->tap_w[t];
            T *cell = x + image * g->image + h * g->row + w * g->cell + c * g->channel;
            int inside = h >= 0 && h < g->H && w >= 0 && w < g->W;
            n = !inside ? 1 : together - u < g->W - w ? together - u : g->W - w;
            u = u + n == together ? 0 : u + n;
            ptrdiff_t run = n * g->channels - c < end - to ? n * g->channels - c : end - to;
            if (back && inside)
                NAME(add_steps)(cell, g->channel, to, run);
            else if (inside)
                NAME(copy_steps)(to, cell, g->channel, run);
            else if (!back)
                for (ptrdiff_t o = 0; o < run; o++)
                    to[o] = 0;
            to += run;
        }
        if (++j == g->columns) {
            j = 0;
            if (++i == g->rows)
                i = 0, image++;
        }
    }
}

static void NAME(gather_rows)(const Windows *g, const void *x, ptrdiff_t k0, ptrdiff_t k1, ptrdiff_t q0,
                              ptrdiff_t count, void *rows, ptrdiff_t row)
{
    NAME(cell_rows)(0, g, (T *)x, k0, k1, q0, count, rows, row);
}

static void NAME(add_rows)(const Windows *g, void *x, ptrdiff_t q0, ptrdiff_t count, const void *rows, ptrdiff_t row)
{
    NAME(cell_rows)(1, g, x, 0, g->channels * g->taps, q0, count, (T *)rows, row);
}

/* for a run of outputs in one row of an image, for c in channels: a run of cells; the inner loop is the one that
   writes neighbours. */
static void NAME(scatter)(const Places *p, void *y, ptrdiff_t q0, ptrdiff_t count, ptrdiff_t C, const void *buffer,
                          ptrdiff_t channel, ptrdiff_t output)
{
    ptrdiff_t image = q0 / (p->rows * p->columns), i = q0 / p->columns % p->rows, j = q0 % p->columns;
    const T *from = buffer;
    while (count > 0) {
        ptrdiff_t run = p->columns - j < count ? p->columns - j : count;
        T *to = (T *)y + image * p->image + i * p->row + j * p->cell;
        if (p->channel == 1)
            for (ptrdiff_t o = 0; o < run; o++)
                for (ptrdiff_t c = 0; c < C; c++)
                    to[o * p->cell + c] = from[o * output + c * channel];
        else if (p->cell == 1 && output == 1)
            for (ptrdiff_t c = 0; c < C; c++)
                NAME(copy)(to + c * p->channel, from + c * channel, run);
        else
            for (ptrdiff_t c = 0; c < C; c++)
                for (ptrdiff_t o = 0; o < run; o++)
                    to[c * p->channel + o * p->cell] = from[c * channel + o * output];
        from += run * output, count -= run, j = 0;
        if (++i == p->rows)
            i = 0, image++;
    }
}

#define NAMED_TABLE NAME(kernels)
static const Kernels NAMED_TABLE = {
    MR,
    NR,
    NAME(multiply),
    NAME(pack),
    NAME(is_finite),
    NAME(gather_columns),
    NAME(gather_rows),
    NAME(add_columns),
    NAME(add_rows),
    NAME(scatter),
};

#undef NAMED_TABLE
#undef JOIN
#undef JOINED
#undef NAME
#undef ALWAYS
#undef Vector
#undef Mask
#undef LANES
#undef NR
