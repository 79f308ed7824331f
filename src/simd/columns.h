/* Between images and matrices: columns or rows of the matrix gathered from windows of an image, added back to them, and
   results put where they belong; part of template.h. */

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
