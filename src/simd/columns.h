/* From matrices to images: columns or rows added to the cells that they belong to, and results put into their places;
   part of template.h. */

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

/* Every second number of a short run, in the same way. Nothing is read past the last one. */
ALWAYS void NAME(copy_every_second)(T *restrict to, const T *restrict from, ptrdiff_t count)
{
#if !defined(PLAIN_C) && HAS_SHUFFLE
#define COPY_SECOND(n, ...)                                                                                           \
    if (n <= LANES && count >= n) {                                                                                   \
        typedef T Part __attribute__((vector_size(n * sizeof(T)), aligned(sizeof(T)), may_alias));                    \
        for (ptrdiff_t i = 0;; i = i + 2 * n < count ? i + n : count - n) {                                           \
            Part low = *(const Part *)(from + 2 * i), high = *(const Part *)(from + 2 * i + n - 1);                   \
            *(Part *)(to + i) = __builtin_shufflevector(low, high, __VA_ARGS__);                                      \
            if (i == count - n)                                                                                       \
                return;                                                                                               \
        }                                                                                                             \
    }
    COPY_SECOND(16, 0, 2, 4, 6, 8, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29, 31)
    COPY_SECOND(8, 0, 2, 4, 6, 9, 11, 13, 15)
    COPY_SECOND(4, 0, 2, 5, 7)
#undef COPY_SECOND
#endif
    for (ptrdiff_t i = 0; i < count; i++)
        to[i] = from[i * 2];
}

ALWAYS void NAME(copy_steps)(T *restrict to, const T *restrict from, ptrdiff_t step, ptrdiff_t count)
{
    if (step == 1)
        NAME(copy)(to, from, count);
    else if (step == 2)
        NAME(copy_every_second)(to, from, count);
    else
        for (ptrdiff_t i = 0; i < count; i++)
            to[i] = from[i * step];
}

/* Add a short run to neighbours, as wide as may be. */
ALWAYS void NAME(add)(T *to, const T *from, ptrdiff_t count)
{
    ptrdiff_t i = 0;
    for (; i + LANES <= count; i += LANES)
        NAME(store)(to + i, NAME(load)(to + i) + NAME(load)(from + i));
#if !defined(PLAIN_C)
#define ADD_PART(n)                                                                                                   \
    if (n < LANES && i + n <= count) {                                                                                \
        typedef T Part __attribute__((vector_size(n * sizeof(T)), aligned(sizeof(T)), may_alias));                    \
        *(Part *)(to + i) += *(const Part *)(from + i);                                                               \
        i += n;                                                                                                       \
    }
    ADD_PART(8)
    ADD_PART(4)
    ADD_PART(2)
#undef ADD_PART
#endif
    for (; i < count; i++)
        to[i] += from[i];
}

/* Add a run to every second number: the numbers between get zeros. Nothing is touched past the last one. */
ALWAYS void NAME(add_every_second)(T *to, const T *from, ptrdiff_t count)
{
    ptrdiff_t i = 0;
#if !defined(PLAIN_C) && HAS_SHUFFLE
#define ADD_SECOND(n, spaced)                                                                                         \
    for (; n <= LANES && i + n < count; i += n) {                                                                     \
        typedef T Part __attribute__((vector_size(n * sizeof(T)), aligned(sizeof(T)), may_alias));                    \
        Part part = *(const Part *)(from + i), *cells = (Part *)(to + 2 * i);                                         \
        cells[0] += __builtin_shufflevector(part, (Part){0}, spaced(0, n));                                           \
        cells[1] += __builtin_shufflevector(part, (Part){0}, spaced(n / 2, n));                                       \
    }
#define SPACED_4(i, n) i, n, i + 1, n
#define SPACED_8(i, n) SPACED_4(i, n), SPACED_4(i + 2, n)
#define SPACED_16(i, n) SPACED_8(i, n), SPACED_8(i + 4, n)
    ADD_SECOND(16, SPACED_16)
    ADD_SECOND(8, SPACED_8)
    ADD_SECOND(4, SPACED_4)
#undef SPACED_4
#undef SPACED_8
#undef SPACED_16
#undef ADD_SECOND
#endif
    for (; i < count; i++)
        to[2 * i] += from[i];
}

ALWAYS void NAME(add_steps)(T *restrict to, ptrdiff_t step, const T *restrict from, ptrdiff_t count)
{
    for (ptrdiff_t i = 0; i < count; i++)
        to[i * step] += from[i];
}

/* Each column added to the cells that its outputs see.

     for run of outputs in one row of an image
       for t in taps                                                which cells of the run lie in the image
         for c in channels                                                                                           */
static void NAME(add_columns)(const Windows *g, void *x, ptrdiff_t q0, ptrdiff_t count, const void *columns,
                              ptrdiff_t row)
{
    ptrdiff_t image = q0 / (g->rows * g->columns), i = q0 / g->columns % g->rows, j = q0 % g->columns;
    const T *column = columns;
    while (count > 0) {
        ptrdiff_t run = g->columns - j < count ? g->columns - j : count;
        for (ptrdiff_t t = 0; t < g->taps; t++) {
            ptrdiff_t h = i * g->stride_h + g->tap_h[t];
            ptrdiff_t from = g->first[t] > j ? g->first[t] - j : 0, until = g->end[t] - j < run ? g->end[t] - j : run;
            if (h < 0 || h >= g->H || from >= until)
                continue;
            T *cells = (T *)x + image * g->image + h * g->row + ((j + from) * g->stride_w + g->tap_w[t]) * g->cell;
            for (ptrdiff_t c = 0; c < g->channels; c++) {
                const T *numbers = column + (c * g->taps + t) * row + from;
                if (g->cell == 1 && g->stride_w == 1)
                    NAME(add)(cells + c * g->channel, numbers, until - from);
                else if (g->cell == 1 && g->stride_w == 2)
                    NAME(add_every_second)(cells + c * g->channel, numbers, until - from);
                else
                    NAME(add_steps)(cells + c * g->channel, g->stride_w * g->cell, numbers, until - from);
            }
        }
        column += run, count -= run, j = 0;
        if (++i == g->rows)
            i = 0, image++;
    }
}

/* Each row added to the cells that its output sees.

     for q in outputs
       for t in taps                                                one cell, and its neighbours if they are next taps
         for c in channels                                                                                           */
static void NAME(add_rows)(const Windows *g, void *x, ptrdiff_t q0, ptrdiff_t count, const void *rows, ptrdiff_t row)
{
    ptrdiff_t image = q0 / (g->rows * g->columns), i = q0 / g->columns % g->rows, j = q0 % g->columns;
    ptrdiff_t together = g->channel == 1 && g->cell == g->channels ? g->neighbours : 1;
    for (ptrdiff_t q = 0; q < count; q++) {
        const T *from = (const T *)rows + q * row;
        for (ptrdiff_t t = 0, u = 0, n = 1; t < g->taps; t += n) {
            ptrdiff_t h = i * g->stride_h + g->tap_h[t], w = j * g->stride_w + g->tap_w[t];
            int inside = h >= 0 && h < g->H && w >= 0 && w < g->W;
            n = !inside ? 1 : together - u < g->W - w ? together - u : g->W - w;
            u = u + n == together ? 0 : u + n;
            T *cells = (T *)x + image * g->image + h * g->row + w * g->cell;
            if (inside && g->channel == 1)
                NAME(add)(cells, from, n * g->channels);
            else if (inside)
                NAME(add_steps)(cells, g->channel, from, g->channels);
            from += n * g->channels;
        }
        if (++j == g->columns) {
            j = 0;
            if (++i == g->rows)
                i = 0, image++;
        }
    }
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
        if (p->channel == 1 && output == 1)
            NAME(transpose)(from, channel, C, run, to, p->cell);
        else if (p->channel == 1 && channel == 1)
            for (ptrdiff_t o = 0; o < run; o++)
                NAME(copy)(to + o * p->cell, from + o * output, C);
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
