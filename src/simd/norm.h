/* Sums over channels and scaling of channels: what batch and group normalisation are made of; part of template.h.

   Valid for images of any strides. Everything is said of t = (x - center) * unit, which is of the size of 1: a few such
   numbers, at most 66, are added up in T, and then in double. Lanes of vectors are neighbours in memory:

     planes    cells of one channel                                NCHW
     pixels    channels of a pixel, and of as many next ones as make a long line                NHWC

   What does not lie together is first copied into a box, and results come out of one, so that the order of a sum
   depends on the shape of the images only. */

enum {
    NAME(LINE) = 256 / sizeof(T), /* numbers at most: what belongs to them stays in registers, or in the first cache */
    NAME(LINES) = 32, /* that are added up in T, in registers */
    NAME(BOX) = NAME(LINES) * NAME(LINE),
    NAME(STREAMS) = 8, /* vectors are scaled at once */
};

/* What is read and written once goes by vectors of 32 bytes: of 64, stores make a Zen 4 a tenth to a third slower. */
#define Stream NAME(Stream)
#if defined(PLAIN_C)
#define STREAM_LANES LANES
typedef T Stream;
#else
#define STREAM_BYTES (VECTOR_BYTES < 32 ? VECTOR_BYTES : 32)
#define STREAM_LANES ((ptrdiff_t)(STREAM_BYTES / sizeof(T)))
typedef T Stream __attribute__((vector_size(STREAM_BYTES), aligned(sizeof(T)), may_alias));
#endif

ALWAYS T *NAME(cell)(const Images *a, ptrdiff_t q, ptrdiff_t c)
{
    const Places *p = &a->at;
    const ptrdiff_t row = q / p->columns;
    return (T *)a->data + row / p->rows * p->image + c * p->channel + row % p->rows * p->row + q % p->columns * p->cell;
}

/* Some channels of some pixels into a box, or back. */
static void NAME(exchange)(const Images *a, ptrdiff_t q, ptrdiff_t pixels, ptrdiff_t c, ptrdiff_t channels, T *box,
                           int back)
{
    for (const ptrdiff_t end = q + pixels; q < end;) {
        T *pixel = NAME(cell)(a, q, c);
        for (ptrdiff_t run = NAME(clip)(a->at.columns - q % a->at.columns, end - q); run > 0; run--, q++) {
            for (ptrdiff_t i = 0; i < channels; i++, box++)
                if (back)
                    pixel[i * a->at.channel] = *box;
                else
                    *box = pixel[i * a->at.channel];
            pixel += a->at.cell;
        }
    }
}

/* Some numbers of planes that follow each other, from the o-th on. */
static const T *NAME(planes)(const Images *a, ptrdiff_t q, ptrdiff_t c, ptrdiff_t o, ptrdiff_t count, T *box)
{
    const ptrdiff_t image = a->at.rows * a->at.columns;
    for (ptrdiff_t i = 0, run; i < count; i += run) {
        const ptrdiff_t cell = (o + i) % image;
        run = NAME(clip)(image - cell, count - i);
        NAME(exchange)(a, q + cell, run, c + (o + i) / image, 1, box + i, 0);
    }
    return box;
}

/* The same numbers where they lie together: at `place`, or in the box. */
ALWAYS const T *NAME(together)(const Images *a, const T *place, ptrdiff_t q, ptrdiff_t pixels, ptrdiff_t c,
                               ptrdiff_t channels, T *box)
{
    if (a->together)
        return place;
    NAME(exchange)(a, q, pixels, c, channels, box, 0);
    return box;
}

/* For numbers and for vectors: what each adds to the sums, and what it becomes, forward or backward. */
#define SUM(sum, product, t, dy)                                                                                      \
    do {                                                                                                              \
        if (backward)                                                                                                 \
            sum += dy, product += dy * t;                                                                             \
        else                                                                                                          \
            sum += t, product += t * t;                                                                               \
    } while (0)
#define SCALE(y, t, dy, factor, shift, dy_factor)                                                                     \
    do {                                                                                                              \
        if (backward)                                                                                                 \
            y = t * factor + shift + dy * dy_factor;                                                                  \
        else                                                                                                          \
            y = t + shift;                                                                                            \
    } while (0)

/* What belongs to a channel. */
typedef struct {
    T center, unit, factor, shift, dy_factor;
} NAME(Channel);

ALWAYS NAME(Channel) NAME(channel)(const Norm *g, const int backward, const int scales, ptrdiff_t k)
{
    NAME(Channel) c = {.center = (T)g->center[k], .unit = (T)g->unit[k]};
    if (scales)
        c.shift = (T)g->shift[k];
    if (scales && backward)
        c.factor = (T)g->factor[k], c.dy_factor = (T)g->dy_factor[k];
    return c;
}

ALWAYS void NAME(scale_stream)(const T *x, const T *dy, const int backward, NAME(Channel) c, T *y)
{
    const Stream t = (*(const Stream *)x - c.center) * c.unit, d = *(const Stream *)dy;
    Stream scaled;
    SCALE(scaled, t, d, c.factor, c.shift, c.dy_factor);
    *(Stream *)y = scaled;
}

/* Runs that are summed, and of which channels: as many as Wide has lanes, before their lanes are added. */
typedef struct {
    Half sum[WIDE_LANES], product[WIDE_LANES];
    ptrdiff_t channel[WIDE_LANES], count;
} NAME(Runs);

static void NAME(add_runs)(NAME(Runs) *runs, double *sums, double *products)
{
    const Wide sum = WIDEN(NAME(totals)(runs->sum)), product = WIDEN(NAME(totals)(runs->product));
    for (ptrdiff_t i = 0; i < runs->count; i++) {
        sums[runs->channel[i]] += ((const double *)&sum)[i];
        products[runs->channel[i]] += ((const double *)&product)[i];
    }
    runs->count = 0;
}

/* A run of one channel, at most RUN numbers. */
ALWAYS void NAME(sum_run)(const T *x, const T *dy, const int backward, ptrdiff_t count, NAME(Channel) c, Half *sums,
                          Half *products)
{
    Vector sum[NAME(ABREAST)] = {0}, product[NAME(ABREAST)] = {0};
    ptrdiff_t i = 0;
#pragma GCC unroll 1
    for (; i + NAME(ABREAST) * LANES <= count; i += NAME(ABREAST) * LANES)
#pragma GCC unroll 4
        for (int v = 0; v < NAME(ABREAST); v++) {
            const Vector t = (NAME(load)(x + i + v * LANES) - c.center) * c.unit;
            const Vector d = NAME(load)(dy + i + v * LANES);
            SUM(sum[v], product[v], t, d);
        }
#pragma GCC unroll 1
    for (; i + LANES <= count; i += LANES) {
        const Vector t = (NAME(load)(x + i) - c.center) * c.unit, d = NAME(load)(dy + i);
        SUM(sum[0], product[0], t, d);
    }
    if (i < count) {
        const Vector t = NAME(last)((NAME(load_last)(x, count, count - i) - c.center) * c.unit, count - i);
        const Vector d = NAME(last)(NAME(load_last)(dy, count, count - i), count - i);
        SUM(sum[1], product[1], t, d);
    }
    *sums = NAME(halves)((sum[0] + sum[1]) + (sum[2] + sum[3]));
    *products = NAME(halves)((product[0] + product[1]) + (product[2] + product[3]));
}

/* A run of one channel. Stores begin where vectors of y do; numbers before them, and at the end those that do not fill a
   vector, are scaled by one that goes over the same numbers again. */
ALWAYS void NAME(scale_run)(const T *x, const T *dy, const int backward, ptrdiff_t count, NAME(Channel) c, T *y)
{
    ptrdiff_t i = 0;
    if (count >= STREAM_LANES) {
        const ptrdiff_t last = count - STREAM_LANES;
        NAME(scale_stream)(x, dy, backward, c, y);
        i = STREAM_LANES - (ptrdiff_t)((uintptr_t)y / sizeof(T)) % STREAM_LANES;
#pragma GCC unroll 4
        for (; i < last; i += STREAM_LANES)
            NAME(scale_stream)(x + i, dy + i, backward, c, y + i);
        NAME(scale_stream)(x + last, dy + last, backward, c, y + last);
        return;
    }
#pragma GCC unroll 1
    for (; i < count; i++) {
        const T t = (x[i] - c.center) * c.unit;
        SCALE(y[i], t, dy[i], c.factor, c.shift, c.dy_factor);
    }
}

/* for q in pixels, up to the end of an image
     for c in channels                    forward: in those that share their numbers, as if they were one
       for o in runs of their cells                                                                                  */
ALWAYS void NAME(sum_planes)(const Norm *g, const int backward, ptrdiff_t q, ptrdiff_t end, ptrdiff_t c0, ptrdiff_t c1,
                             double *sums, double *products)
{
    T boxes[2][NAME(RUN)];
    NAME(Runs) runs = {0};
    const ptrdiff_t image = g->x.at.rows * g->x.at.columns, planes = backward ? 1 : g->shared;
    const int in_place = g->x.together && (planes == 1 || g->x.at.channel == image);
    for (ptrdiff_t count; q < end; q += count) {
        const T *x_place = NAME(cell)(&g->x, q, 0), *dy_place = backward ? NAME(cell)(&g->dy, q, 0) : NULL;
        const ptrdiff_t first = q / image * g->image;
        count = NAME(clip)(image - q % image, end - q);
        for (ptrdiff_t c = c0; c < c1; c += planes) {
            const NAME(Channel) channel = NAME(channel)(g, backward, 0, first + c);
            for (ptrdiff_t o = 0, run; o < planes * count; o += run) {
                run = NAME(clip)(planes * count - o, NAME(RUN));
                const T *x = in_place ? x_place + c * g->x.at.channel + o : NAME(planes)(&g->x, q, c, o, run, boxes[0]);
                const T *dy = x;
                if (backward)
                    dy = NAME(together)(&g->dy, dy_place + c * g->dy.at.channel + o, q + o, run, c, 1, boxes[1]);
                NAME(sum_run)(x, dy, backward, run, channel, &runs.sum[runs.count], &runs.product[runs.count]);
                runs.channel[runs.count++] = c;
                if (runs.count == WIDE_LANES)
                    NAME(add_runs)(&runs, sums, products);
            }
        }
    }
    NAME(add_runs)(&runs, sums, products);
}

/* for q in pixels, up to the end of an image
     for c in channels
       for o in boxes of its cells                                  in place: in all of them                         */
ALWAYS void NAME(scale_planes)(const Norm *g, const int backward, ptrdiff_t q, ptrdiff_t end, ptrdiff_t c0,
                               ptrdiff_t c1)
{
    T boxes[3][NAME(BOX)];
    const ptrdiff_t image = g->x.at.rows * g->x.at.columns;
    const int in_place = g->x.together && (!backward || g->dy.together) && g->y.together;
    for (ptrdiff_t count; q < end; q += count) {
        const T *x_place = NAME(cell)(&g->x, q, 0), *dy_place = backward ? NAME(cell)(&g->dy, q, 0) : NULL;
        T *y_place = NAME(cell)(&g->y, q, 0);
        count = NAME(clip)(image - q % image, end - q);
        for (ptrdiff_t c = c0; c < c1; c++) {
            const NAME(Channel) channel = NAME(channel)(g, backward, 1, q / image * g->image + c);
            for (ptrdiff_t o = 0, run; o < count; o += run) {
                run = in_place ? count : NAME(clip)(count - o, NAME(BOX));
                const T *x = NAME(together)(&g->x, x_place + c * g->x.at.channel + o, q + o, run, c, 1, boxes[0]);
                const T *dy = x;
                if (backward)
                    dy = NAME(together)(&g->dy, dy_place + c * g->dy.at.channel + o, q + o, run, c, 1, boxes[1]);
                NAME(scale_run)(x, dy, backward, run, channel,
                                g->y.together ? y_place + c * g->y.at.channel + o : boxes[2]);
                if (!g->y.together)
                    NAME(exchange)(&g->y, q + o, run, c, 1, boxes[2], 1);
            }
        }
    }
}

/* What belongs to the numbers of a line, and their sums. */
typedef struct {
    T center[NAME(LINE)], unit[NAME(LINE)], factor[NAME(LINE)], shift[NAME(LINE)], dy_factor[NAME(LINE)];
    double sum[NAME(LINE)], product[NAME(LINE)];
} NAME(Line);

/* Lines below each other, in each array so far apart. */
typedef struct {
    const T *x, *dy;
    T *y;
    ptrdiff_t x_step, dy_step, y_step;
} NAME(Lines);

/* Of some vectors of each line, from its i-th number on. */
ALWAYS void NAME(sum_vectors)(NAME(Lines) a, const int backward, const int vectors, ptrdiff_t lines, ptrdiff_t i,
                              NAME(Line) *k)
{
    Vector center[NAME(ABREAST)], unit[NAME(ABREAST)], sum[NAME(ABREAST)] = {0}, product[NAME(ABREAST)] = {0};
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++)
        center[v] = NAME(load)(k->center + i + v * LANES), unit[v] = NAME(load)(k->unit + i + v * LANES);
    for (ptrdiff_t l = 0; l < lines; l++) {
        const T *x = a.x + l * a.x_step + i, *dy = a.dy + l * a.dy_step + i;
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            const Vector t = (NAME(load)(x + v * LANES) - center[v]) * unit[v], d = NAME(load)(dy + v * LANES);
            PREFETCH(x + lines * a.x_step + v * LANES); /* the processor does not see that all lines are read */
            if (backward)
                PREFETCH(dy + lines * a.dy_step + v * LANES);
            SUM(sum[v], product[v], t, d);
        }
    }
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++)
#pragma GCC unroll 2
        for (ptrdiff_t part = 0; part < LANES / WIDE_LANES; part++) {
            *(Wide *)(k->sum + i + v * LANES + part * WIDE_LANES) += NAME(part)(sum[v], part);
            *(Wide *)(k->product + i + v * LANES + part * WIDE_LANES) += NAME(part)(product[v], part);
        }
}

ALWAYS void NAME(sum_lines)(NAME(Lines) a, const int backward, ptrdiff_t lines, ptrdiff_t width, NAME(Line) *k)
{
    ptrdiff_t i = 0;
    for (; i + NAME(ABREAST) * LANES <= width; i += NAME(ABREAST) * LANES)
        NAME(sum_vectors)(a, backward, NAME(ABREAST), lines, i, k);
    for (; i + LANES <= width; i += LANES)
        NAME(sum_vectors)(a, backward, 1, lines, i, k);
    for (; i < width; i++)
        for (ptrdiff_t l = 0; l < lines; l++) {
            const T t = (a.x[l * a.x_step + i] - k->center[i]) * k->unit[i];
            SUM(k->sum[i], k->product[i], t, a.dy[l * a.dy_step + i]);
        }
}

ALWAYS void NAME(scale_vectors)(NAME(Lines) a, const int backward, const int vectors, ptrdiff_t lines, ptrdiff_t i,
                                const NAME(Line) *k)
{
    Stream center[NAME(STREAMS)], unit[NAME(STREAMS)], shift[NAME(STREAMS)];
    Stream factor[NAME(STREAMS)] = {0}, dy_factor[NAME(STREAMS)] = {0};
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) {
        const ptrdiff_t j = i + v * STREAM_LANES;
        center[v] = *(const Stream *)(k->center + j), unit[v] = *(const Stream *)(k->unit + j);
        shift[v] = *(const Stream *)(k->shift + j);
        if (backward)
            factor[v] = *(const Stream *)(k->factor + j), dy_factor[v] = *(const Stream *)(k->dy_factor + j);
    }
    for (ptrdiff_t l = 0; l < lines; l++) {
        const T *x = a.x + l * a.x_step + i, *dy = a.dy + l * a.dy_step + i;
        T *y = a.y + l * a.y_step + i;
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) {
            const Stream t = (*(const Stream *)(x + v * STREAM_LANES) - center[v]) * unit[v];
            const Stream d = *(const Stream *)(dy + v * STREAM_LANES);
            Stream scaled;
            SCALE(scaled, t, d, factor[v], shift[v], dy_factor[v]);
            *(Stream *)(y + v * STREAM_LANES) = scaled;
        }
    }
}

ALWAYS void NAME(scale_lines)(NAME(Lines) a, const int backward, ptrdiff_t lines, ptrdiff_t width, const NAME(Line) *k)
{
    ptrdiff_t i = 0;
    for (; i + NAME(STREAMS) * STREAM_LANES <= width; i += NAME(STREAMS) * STREAM_LANES)
        NAME(scale_vectors)(a, backward, NAME(STREAMS), lines, i, k);
    for (; i + STREAM_LANES <= width; i += STREAM_LANES)
        NAME(scale_vectors)(a, backward, 1, lines, i, k);
    for (; i < width; i++)
        for (ptrdiff_t l = 0; l < lines; l++) {
            const T t = (a.x[l * a.x_step + i] - k->center[i]) * k->unit[i];
            SCALE(a.y[l * a.y_step + i], t, a.dy[l * a.dy_step + i], k->factor[i], k->shift[i], k->dy_factor[i]);
        }
}

/* The numbers of all channels of a line, and again for each of its next pixels. */
ALWAYS void NAME(spread_out)(T *line, ptrdiff_t width, const double *numbers, ptrdiff_t channels)
{
    for (ptrdiff_t c = 0; c < channels; c++)
        line[c] = (T)numbers[c];
    for (ptrdiff_t i = channels; i < width; i += channels)
        memcpy(line + i, line, channels * sizeof(T));
}

/* for q in pixels                        as many as make 32 lines, and what is left of a line
     for i in numbers of a line           some vectors: what belongs to them, and their sums, stay in registers
       for l in lines                                                                                                */
ALWAYS void NAME(by_pixels)(const Norm *g, const int backward, const int scales, ptrdiff_t q, ptrdiff_t end,
                            ptrdiff_t c0, ptrdiff_t c1, double *sums, double *products)
{
    T boxes[3][NAME(BOX)];
    NAME(Line) k;
    const ptrdiff_t channels = c1 - c0, first = q / (g->x.at.rows * g->x.at.columns) * g->image + c0;
    ptrdiff_t of_line = 1;
    while (of_line * 2 * g->channels <= NAME(LINE))
        of_line *= 2;
    const ptrdiff_t width = of_line * channels, in_place = of_line * g->channels;
    NAME(Lines) a = {.x_step = g->x.together ? in_place : width, .y_step = g->y.together ? in_place : width};
    a.dy_step = !backward ? a.x_step : g->dy.together ? in_place : width;
    NAME(spread_out)(k.center, width, g->center + first, channels);
    NAME(spread_out)(k.unit, width, g->unit + first, channels);
    if (scales) {
        NAME(spread_out)(k.shift, width, g->shift + first, channels);
        if (backward) {
            NAME(spread_out)(k.factor, width, g->factor + first, channels);
            NAME(spread_out)(k.dy_factor, width, g->dy_factor + first, channels);
        }
    } else {
        memset(k.sum, 0, width * sizeof(double));
        memset(k.product, 0, width * sizeof(double));
    }
    for (ptrdiff_t count; q < end; q += count) {
        count = NAME(clip)(end - q, NAME(LINES) * of_line);
        const ptrdiff_t lines = count / of_line, rest = count % of_line * channels;
        a.x = NAME(together)(&g->x, NAME(cell)(&g->x, q, c0), q, count, c0, channels, boxes[0]);
        a.dy = backward ? NAME(together)(&g->dy, NAME(cell)(&g->dy, q, c0), q, count, c0, channels, boxes[1]) : a.x;
        a.y = scales && g->y.together ? NAME(cell)(&g->y, q, c0) : boxes[2];
        for (int part = 0; part < 2; part++) { /* whole lines, and the rest */
            if (scales)
                NAME(scale_lines)(a, backward, part ? rest > 0 : lines, part ? rest : width, &k);
            else
                NAME(sum_lines)(a, backward, part ? rest > 0 : lines, part ? rest : width, &k);
            a.x += lines * a.x_step, a.dy += lines * a.dy_step, a.y += lines * a.y_step;
        }
        if (scales && !g->y.together)
            NAME(exchange)(&g->y, q, count, c0, channels, boxes[2], 1);
    }
    if (!scales)
        for (ptrdiff_t i = 0; i < width; i += channels)
            for (ptrdiff_t c = 0; c < channels; c++)
                sums[c0 + c] += k.sum[i + c], products[c0 + c] += k.product[i + c];
}

ALWAYS void NAME(norm)(const Norm *g, const int backward, const int scales, ptrdiff_t q, ptrdiff_t end, ptrdiff_t c0,
                       ptrdiff_t c1, double *sums, double *products)
{
    if (g->by_pixels)
        NAME(by_pixels)(g, backward, scales, q, end, c0, c1, sums, products);
    else if (scales)
        NAME(scale_planes)(g, backward, q, end, c0, c1);
    else
        NAME(sum_planes)(g, backward, q, end, c0, c1, sums, products);
}

static void NAME(norm_sums)(const Norm *g, ptrdiff_t q, ptrdiff_t end, ptrdiff_t c0, ptrdiff_t c1, double *sums,
                            double *products)
{
    if (g->dy.data)
        NAME(norm)(g, 1, 0, q, end, c0, c1, sums, products);
    else
        NAME(norm)(g, 0, 0, q, end, c0, c1, sums, products);
}

static void NAME(norm_scale)(const Norm *g, ptrdiff_t q, ptrdiff_t end, ptrdiff_t c0, ptrdiff_t c1)
{
    if (g->dy.data)
        NAME(norm)(g, 1, 1, q, end, c0, c1, NULL, NULL);
    else
        NAME(norm)(g, 0, 1, q, end, c0, c1, NULL, NULL);
}

#undef SUM
#undef SCALE
