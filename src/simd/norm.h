/* Sums over channels and scaling of channels: what batch and group normalisation are made of; part of template.h.

   Valid for images of any strides. Everything is said of t = (x - center) * unit, which is of the size of 1: a few such
   numbers, at most 32, are added up in T, and then in double. Lanes of vectors are neighbours in memory:

     planes    cells of one channel                                NCHW
     pixels    channels of a pixel, and of as many next ones as make a long line                NHWC

   What does not lie together is first copied into a box, and results come out of one, so that the order of a sum
   depends on the shape of the images only. */

enum {
    NAME(LINE) = 256,  /* channels of a line at most; what belongs to them stays in the first cache */
    NAME(SHORT) = 128, /* numbers, up to which a line is of several pixels */
    NAME(LINES) = 8,   /* whose sums are taken together, in registers */
    NAME(BOX) = NAME(LINES) * NAME(LINE),
    NAME(STEPS) = 8,   /* of four vectors, that are added up in T */
};

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
        y = t * factor + shift;                                                                                       \
        if (backward)                                                                                                 \
            y += dy * dy_factor;                                                                                      \
    } while (0)

/* What belongs to a channel. */
typedef struct {
    T center, unit, factor, shift, dy_factor;
} NAME(Channel);

/* What `times` t lacks because T rounded the center; nothing where a number is not finite. */
ALWAYS double NAME(lack)(const Norm *g, ptrdiff_t k, double times)
{
    const double lack = ((T)g->center[k] - g->center[k]) * g->unit[k] * times;
    return lack - lack == 0 ? lack : 0;
}

ALWAYS NAME(Channel) NAME(channel)(const Norm *g, const int backward, const int scales, ptrdiff_t k)
{
    NAME(Channel) c = {.center = (T)g->center[k], .unit = (T)g->unit[k]};
    if (scales) {
        c.factor = (T)g->factor[k];
        c.shift = (T)(g->shift[k] + NAME(lack)(g, k, g->factor[k]));
        c.dy_factor = backward ? (T)g->dy_factor[k] : 0;
    }
    return c;
}

/* The vector in double, in as many parts as that takes. */
ALWAYS Wide NAME(part)(Vector v, ptrdiff_t part) { return WIDEN(((const Half *)&v)[part]); }

ALWAYS Wide NAME(parts)(Vector v)
{
    Wide sum = NAME(part)(v, 0);
    for (ptrdiff_t part = 1; part < LANES / WIDE_LANES; part++)
        sum += NAME(part)(v, part);
    return sum;
}

ALWAYS void NAME(add_to)(const Norm *g, const int backward, ptrdiff_t k, double sum, double product, double *sums,
                         double *products)
{
    *sums += sum;
    *products += backward ? product + NAME(lack)(g, k, sum) : product;
}

ALWAYS double NAME(wide_total)(Wide v)
{
    double sums[WIDE_LANES];
    *(Wide *)sums = v;
    for (int half = WIDE_LANES / 2; half; half /= 2) /* a chain of few additions */
#pragma GCC unroll 8
        for (int lane = 0; lane < half; lane++)
            sums[lane] += sums[lane + half];
    return sums[0];
}

typedef struct {
    Wide sum, product;
    double sum_rest, product_rest;
} NAME(Sums);

/* A run of one channel. */
ALWAYS void NAME(sum_run)(const T *x, const T *dy, const int backward, ptrdiff_t count, NAME(Channel) c, NAME(Sums) *s)
{
    for (ptrdiff_t i = 0; i < count;) {
        Vector sum[4] = {0}, product[4] = {0};
        const ptrdiff_t end = i + NAME(clip)(count - i, NAME(STEPS) * 4 * LANES);
        for (; i + 4 * LANES <= end; i += 4 * LANES)
#pragma GCC unroll 4
            for (int v = 0; v < 4; v++) {
                const Vector t = (NAME(load)(x + i + v * LANES) - c.center) * c.unit;
                const Vector d = NAME(load)(dy + i + v * LANES);
                SUM(sum[v], product[v], t, d);
            }
        for (; i + LANES <= end; i += LANES) {
            const Vector t = (NAME(load)(x + i) - c.center) * c.unit, d = NAME(load)(dy + i);
            SUM(sum[0], product[0], t, d);
        }
        s->sum += NAME(parts)((sum[0] + sum[1]) + (sum[2] + sum[3]));
        s->product += NAME(parts)((product[0] + product[1]) + (product[2] + product[3]));
        for (; i < end; i++) {
            const T t = (x[i] - c.center) * c.unit;
            SUM(s->sum_rest, s->product_rest, t, dy[i]);
        }
    }
}

ALWAYS void NAME(scale_run)(const T *x, const T *dy, const int backward, ptrdiff_t count, NAME(Channel) c, T *y)
{
    ptrdiff_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        const Vector t = (NAME(load)(x + i) - c.center) * c.unit, d = NAME(load)(dy + i);
        Vector scaled;
        SCALE(scaled, t, d, c.factor, c.shift, c.dy_factor);
        NAME(store)(y + i, scaled);
    }
    for (; i < count; i++) {
        const T t = (x[i] - c.center) * c.unit;
        SCALE(y[i], t, dy[i], c.factor, c.shift, c.dy_factor);
    }
}

/* for q in pixels, up to the end of an image
     for c in channels                      sums forward: in those that share their numbers, as if they were one
       for o in boxes of their cells                                in place: in all of them                         */
ALWAYS void NAME(by_planes)(const Norm *g, const int backward, const int scales, ptrdiff_t q, ptrdiff_t end,
                            ptrdiff_t c0, ptrdiff_t c1, double *sums, double *products)
{
    T boxes[3][NAME(BOX)];
    const ptrdiff_t image = g->x.at.rows * g->x.at.columns;
    const ptrdiff_t planes = backward || scales ? 1 : g->shared;
    const int in_place = g->x.together && (planes == 1 || g->x.at.channel == image) &&
                         (!backward || g->dy.together) && (!scales || g->y.together);
    for (ptrdiff_t count; q < end; q += count) {
        const ptrdiff_t first = q / image * g->image;
        const T *x_place = NAME(cell)(&g->x, q, 0), *dy_place = backward ? NAME(cell)(&g->dy, q, 0) : NULL;
        T *y_place = scales ? NAME(cell)(&g->y, q, 0) : NULL;
        count = NAME(clip)(image - q % image, end - q);
        for (ptrdiff_t c = c0; c < c1; c += planes) {
            const NAME(Channel) channel = NAME(channel)(g, backward, scales, first + c);
            NAME(Sums) s = {.sum_rest = 0};
            for (ptrdiff_t o = 0, run; o < planes * count; o += run) {
                run = in_place ? planes * count : NAME(clip)(planes * count - o, NAME(BOX));
                const T *x = in_place || (g->x.together && planes == 1)
                                 ? x_place + c * g->x.at.channel + o
                                 : NAME(planes)(&g->x, q, c, o, run, boxes[0]);
                const T *dy = x;
                if (backward)
                    dy = NAME(together)(&g->dy, dy_place + c * g->dy.at.channel + o, q + o, run, c, 1, boxes[1]);
                if (scales) {
                    NAME(scale_run)(x, dy, backward, run, channel,
                                    g->y.together ? y_place + c * g->y.at.channel + o : boxes[2]);
                    if (!g->y.together)
                        NAME(exchange)(&g->y, q + o, run, c, 1, boxes[2], 1);
                } else {
                    NAME(sum_run)(x, dy, backward, run, channel, &s);
                }
            }
            if (!scales)
                NAME(add_to)(g, backward, first + c, NAME(wide_total)(s.sum) + s.sum_rest,
                             NAME(wide_total)(s.product) + s.product_rest, sums + c, products + c);
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

ALWAYS void NAME(sum_lines)(NAME(Lines) a, const int backward, const ptrdiff_t lines, ptrdiff_t width, NAME(Line) *k)
{
    ptrdiff_t i = 0;
    for (; i + LANES <= width; i += LANES) {
        const Vector center = NAME(load)(k->center + i), unit = NAME(load)(k->unit + i);
        Vector sum = NAME(spread)(0), product = NAME(spread)(0);
        for (ptrdiff_t l = 0; l < lines; l++) {
            const Vector t = (NAME(load)(a.x + l * a.x_step + i) - center) * unit;
            const Vector dy = NAME(load)(a.dy + l * a.dy_step + i);
            PREFETCH(a.x + (lines + l) * a.x_step + i); /* the processor does not see that all lines are read */
            if (backward)
                PREFETCH(a.dy + (lines + l) * a.dy_step + i);
            SUM(sum, product, t, dy);
        }
        for (ptrdiff_t part = 0; part < LANES / WIDE_LANES; part++) {
            *(Wide *)(k->sum + i + part * WIDE_LANES) += NAME(part)(sum, part);
            *(Wide *)(k->product + i + part * WIDE_LANES) += NAME(part)(product, part);
        }
    }
    for (; i < width; i++)
        for (ptrdiff_t l = 0; l < lines; l++) {
            const T t = (a.x[l * a.x_step + i] - k->center[i]) * k->unit[i];
            SUM(k->sum[i], k->product[i], t, a.dy[l * a.dy_step + i]);
        }
}

ALWAYS void NAME(scale_line)(const T *x, const T *dy, const int backward, ptrdiff_t width, const NAME(Line) *k, T *y)
{
    ptrdiff_t i = 0;
    for (; i + LANES <= width; i += LANES) {
        const Vector t = (NAME(load)(x + i) - NAME(load)(k->center + i)) * NAME(load)(k->unit + i);
        Vector scaled;
        SCALE(scaled, t, NAME(load)(dy + i), NAME(load)(k->factor + i), NAME(load)(k->shift + i),
              NAME(load)(k->dy_factor + i));
        NAME(store)(y + i, scaled);
    }
    for (; i < width; i++) {
        const T t = (x[i] - k->center[i]) * k->unit[i];
        SCALE(y[i], t, dy[i], k->factor[i], k->shift[i], k->dy_factor[i]);
    }
}

ALWAYS void NAME(lines)(NAME(Lines) a, const int backward, const int scales, const ptrdiff_t lines, ptrdiff_t width,
                        NAME(Line) *k)
{
    if (scales)
        for (ptrdiff_t l = 0; l < lines; l++)
            NAME(scale_line)(a.x + l * a.x_step, a.dy + l * a.dy_step, backward, width, k, a.y + l * a.y_step);
    else
        NAME(sum_lines)(a, backward, lines, width, k);
}

/* for q in pixels                        as many as make 8 lines, and what is left of a line
     sums:   for i in numbers of a line   a vector: what belongs to it, and its sums, stay in registers
               for l in lines
     scale:  for l in lines
               for i in numbers                                                                                      */
ALWAYS void NAME(by_pixels)(const Norm *g, const int backward, const int scales, ptrdiff_t q, ptrdiff_t end,
                            ptrdiff_t c0, ptrdiff_t c1, double *sums, double *products)
{
    T boxes[3][NAME(BOX)];
    NAME(Line) k = {.sum = {0}};
    const ptrdiff_t channels = c1 - c0, first = q / (g->x.at.rows * g->x.at.columns) * g->image;
    ptrdiff_t of_line = 1;
    while (of_line * 2 * g->channels <= NAME(SHORT))
        of_line *= 2;
    const ptrdiff_t width = of_line * channels, in_place = of_line * g->channels;
    NAME(Lines) a = {.x_step = g->x.together ? in_place : width, .y_step = g->y.together ? in_place : width};
    a.dy_step = !backward ? a.x_step : g->dy.together ? in_place : width;
    for (ptrdiff_t i = 0; i < width;)
        for (ptrdiff_t j = first + c0; j < first + c1; j++, i++) {
            const NAME(Channel) c = NAME(channel)(g, backward, scales, j);
            k.center[i] = c.center, k.unit[i] = c.unit;
            if (scales)
                k.factor[i] = c.factor, k.shift[i] = c.shift, k.dy_factor[i] = c.dy_factor;
        }
    for (ptrdiff_t count; q < end; q += count) {
        count = NAME(clip)(end - q, NAME(LINES) * of_line);
        const ptrdiff_t lines = count / of_line, rest = count % of_line * channels;
        a.x = NAME(together)(&g->x, NAME(cell)(&g->x, q, c0), q, count, c0, channels, boxes[0]);
        a.dy = backward ? NAME(together)(&g->dy, NAME(cell)(&g->dy, q, c0), q, count, c0, channels, boxes[1]) : a.x;
        a.y = scales && g->y.together ? NAME(cell)(&g->y, q, c0) : boxes[2];
        if (lines == NAME(LINES)) /* a number that the compiler knows */
            NAME(lines)(a, backward, scales, NAME(LINES), width, &k);
        else
            NAME(lines)(a, backward, scales, lines, width, &k);
        a.x += lines * a.x_step, a.dy += lines * a.dy_step, a.y += lines * a.y_step;
        if (rest)
            NAME(lines)(a, backward, scales, 1, rest, &k);
        if (scales && !g->y.together)
            NAME(exchange)(&g->y, q, count, c0, channels, boxes[2], 1);
    }
    if (!scales)
        for (ptrdiff_t i = 0; i < width;)
            for (ptrdiff_t c = c0; c < c1; c++, i++)
                NAME(add_to)(g, backward, first + c, k.sum[i], k.product[i], sums + c, products + c);
}

ALWAYS void NAME(norm)(const Norm *g, const int backward, const int scales, ptrdiff_t q, ptrdiff_t end, ptrdiff_t c0,
                       ptrdiff_t c1, double *sums, double *products)
{
    if (g->by_pixels)
        NAME(by_pixels)(g, backward, scales, q, end, c0, c1, sums, products);
    else
        NAME(by_planes)(g, backward, scales, q, end, c0, c1, sums, products);
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
