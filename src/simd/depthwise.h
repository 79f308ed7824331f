/* Depthwise convolution: a filter sees one channel, so there is no product of matrices, and what counts is how fast
   images are read and written; part of template.h.

   The cells that some outputs see are copied between zeros into a scratch, which stays in the first cache. Lanes of
   vectors are neighbours in a row of one plane; or, `by_channels`, the same cell of LANES channels, for NHWC and for
   images too small to fill vectors with a row. Two ways to copy, one to compute. Any kernel, stride and dilation; the
   usual kernels are compiled with their sizes. */

#define ROWS 7 /* outputs in registers, along the axis that is not the lanes': images often have a multiple of 7 */
#define PIXELS 4 /* outputs in registers, in place */
#define SUM_ROWS 4 /* outputs of the weight gradient, whose sums are in registers, too */
#define MOST_TAPS 25 /* of the kernels that are compiled with their sizes */

ALWAYS ptrdiff_t NAME(least)(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

ALWAYS ptrdiff_t NAME(most)(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }

/* Lanes from .. end - 1 of v, and 0 in the others. */
ALWAYS Vector NAME(lanes)(Vector v, ptrdiff_t from, ptrdiff_t end)
{
#if defined(PLAIN_C)
    return from <= 0 && end > 0 ? v : 0;
#else
    Mask lane;
    for (int i = 0; i < LANES; i++)
        lane[i] = i;
    return (Vector)((Mask)v & (lane >= (Mask){0} + (INTEGER)from) & (lane < (Mask){0} + (INTEGER)end));
#endif
}

/* Outputs to compute at once: rows and columns of each phase, from these on. */
typedef struct {
    ptrdiff_t row, rows, column, columns;
} NAME(Region);

ALWAYS NAME(Region) NAME(region)(const Depthwise *d, ptrdiff_t i)
{
    NAME(Region) r = {i / d->blocks * d->band, d->band, i % d->blocks * d->block, d->block};
    r.rows = NAME(least)(r.rows, d->taps->rows - r.row);
    r.columns = NAME(least)(r.columns, d->taps->columns - r.column);
    return r;
}

/* ---------------------------------------------------------------------------------------- copies, lanes in a row */

/* A strip of the scratch. A vector may write zeros beyond it, where only zeros are, or what is written next. */
ALWAYS void NAME(copy_strip)(T *to, const T *from, ptrdiff_t step, ptrdiff_t count, const T *end)
{
    ptrdiff_t i = 0;
    if (step == 1 && end - from >= count + LANES) {
        for (; i + LANES <= count; i += LANES)
            NAME(store)(to + i, NAME(load)(from + i));
        if (i < count)
            NAME(store)(to + i, NAME(lanes)(NAME(load)(from + i), 0, count - i));
    } else if (count > 0)
        NAME(copy_steps)(to, from, step, count);
}

/* Rows of a plane of x that a region sees. */
static void NAME(copy_rows)(const Depthwise *d, const T *plane, NAME(Region) r, T *scratch)
{
    ptrdiff_t top = r.row * d->stride_h + d->top, last = top + d->source_rows - (d->band - r.rows) * d->stride_h;
    for (ptrdiff_t h = NAME(most)(top, 0); h < NAME(least)(last, d->x.rows); h++)
        for (ptrdiff_t s = 0; s < d->strips; s++)
            NAME(copy_strip)(scratch + (h - top) * d->pitch + s * d->width + d->to[s],
                             plane + h * d->x.row + d->source[s] * d->x.cell, d->stride_w * d->x.cell, d->count[s],
                             d->x_end);
}

/* From the outputs of all phases to a plane of y. */
static void NAME(merge_phases)(const Depthwise *d, const T *out, T *y, NAME(Region) r)
{
    ptrdiff_t step = d->phases_w * d->y.cell, size = d->band * d->out_width;
    for (ptrdiff_t i = 0; i < r.rows * d->phases_h; i++) {
        const Taps *t = d->taps + i % d->phases_h * d->phases_w;
        const T *from = out + i % d->phases_h * d->phases_w * size + i / d->phases_h * d->out_width;
        T *to = y + (r.row * d->phases_h + i) * d->y.row;
        if (r.row + i / d->phases_h >= t->rows)
            continue;
        if (step == 1)
            NAME(copy)(to, from, t->columns);
        else if (step == 2 && d->phases_w == 2) { /* the loop below, in one run over memory */
            for (ptrdiff_t q = 0; q < t[1].columns; q++) {
                to[2 * q] = from[q];
                to[2 * q + 1] = from[size + q];
            }
            if (t[1].columns < t->columns)
                to[2 * t->columns - 2] = from[t->columns - 1];
        } else
            for (ptrdiff_t j = 0; j < d->phases_w; j++)
                for (ptrdiff_t q = 0; q < t[j].columns; q++)
                    to[q * step + j * d->y.cell] = from[j * size + q];
    }
}

/* -------------------------------------------------------------------------------------- copies, lanes of channels */

/* Lane i is at lane[i] in an image with these steps. */
typedef struct {
    Places image;
    ptrdiff_t lane[LANES], count;
    int adjacent, even; /* all lanes are there and lie side by side, or have one step */
} NAME(Channels);

/* Channels (first + i) * times + more, each of them `repeated`. */
ALWAYS NAME(Channels) NAME(channels)(const Places *image, ptrdiff_t end, ptrdiff_t first, ptrdiff_t times,
                                     ptrdiff_t more, ptrdiff_t repeated)
{
    NAME(Channels) c = {*image, {0}, NAME(least)(LANES, end - first), 0, 0};
    for (ptrdiff_t i = 0; i < c.count; i++)
        c.lane[i] = ((first + i) * times + more) / repeated * image->channel;
    c.even = c.count == LANES && repeated == 1;
    c.adjacent = c.even && times * image->channel == 1;
    return c;
}

/* Cells (h, w) to (h + rows - 1, w + columns - 1) of an image, those that exist, to or (back) from a scratch, whose rows
   are `pitch` apart and whose lanes lie side by side: whole vectors, blocks of 4 lanes by 4 cells, or single numbers. */
ALWAYS void NAME(move_cells)(const int back, const NAME(Channels) *c, T *image, ptrdiff_t h, ptrdiff_t rows,
                             ptrdiff_t w, ptrdiff_t columns, T *scratch, ptrdiff_t pitch)
{
    ptrdiff_t first = NAME(most)(0, -w), end = NAME(least)(columns, c->image.columns - w), cell = c->image.cell;
    for (ptrdiff_t i = NAME(most)(0, -h); i < NAME(least)(rows, c->image.rows - h); i++) {
        T *to = scratch + i * pitch, *from = image + (h + i) * c->image.row + w * cell;
        if (c->adjacent)
            for (ptrdiff_t j = first; j < end; j++) {
                T *there = from + j * cell + c->lane[0], *here = to + j * LANES;
                NAME(store)(back ? there : here, NAME(load)(back ? here : there));
            }
        else if (LANES % 4 == 0 && c->even && cell == 1 && end - first >= 4)
            for (ptrdiff_t q = first; q < end; q += 4) {
                ptrdiff_t j = NAME(least)(q, end - 4), step = c->lane[LANES > 1 ? 1 : 0] - c->lane[0];
#pragma GCC unroll 4
                for (ptrdiff_t lane = 0; lane < LANES; lane += 4) {
                    T *there = from + j + c->lane[lane], *here = to + j * LANES + lane;
                    if (back)
                        NAME(turn)(here, LANES, there, step);
                    else
                        NAME(turn)(there, step, here, LANES);
                }
            }
        else
            for (ptrdiff_t lane = 0; lane < c->count; lane++)
                for (ptrdiff_t j = first; j < end; j++) {
                    T *there = from + j * cell + c->lane[lane], *here = to + j * LANES + lane;
                    *(back ? there : here) = *(back ? here : there);
                }
    }
}

static void NAME(copy_cells)(const NAME(Channels) *c, const T *image, ptrdiff_t h, ptrdiff_t rows, ptrdiff_t w,
                             ptrdiff_t columns, T *scratch, ptrdiff_t pitch)
{
    NAME(move_cells)(0, c, (T *)image, h, rows, w, columns, scratch, pitch);
}

static void NAME(put_cells)(const NAME(Channels) *c, T *image, ptrdiff_t h, ptrdiff_t rows, ptrdiff_t w,
                            ptrdiff_t columns, const T *scratch, ptrdiff_t pitch)
{
    NAME(move_cells)(1, c, image, h, rows, w, columns, (T *)scratch, pitch);
}

/* ------------------------------------------------------------------------------------------------- the computation */

/* How outputs that follow each other, `step` apart, see the scratch: through tap (a, b) the number at
   (stride * output + a * dilation) * step + b's place. Lanes in a row: outputs of a column, a = kh, b = kw, and the place
   is given, or known to the compiler where the kernel has its size from it; by channels: outputs of a row, a = kw. */
typedef struct {
    ptrdiff_t A, B, stride, dilation, step, width;
    const ptrdiff_t *place;
} NAME(View);

#define PLACE(b)                                                                                                      \
    (by_channels ? (b) * x_view.width : x_view.place ? x_view.place[b]                                                \
                                                     : (b) % x_view.stride * x_view.width + (b) / x_view.stride)

#define TAP(a, b) (by_channels ? (b) * x_view.A + (a) : (a) * x_view.B + (b))

/* R outputs of a vector:

     for kh, kw in taps
       for r in outputs                                         numbers shared by several taps are loaded once       */
ALWAYS void NAME(outputs)(const int by_channels, const int R, NAME(View) x_view, const T *x, const T *w, const T *bias,
                          int relu, T *y, ptrdiff_t y_step, const T *y_end)
{
    Vector acc[ROWS];
    const ptrdiff_t KH = by_channels ? x_view.B : x_view.A, KW = by_channels ? x_view.A : x_view.B;
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
        acc[r] = !bias ? NAME(load)(y + r * y_step) : (by_channels ? NAME(load)(bias) : NAME(spread)(*bias));
#pragma GCC unroll 8
    for (ptrdiff_t kh = 0; kh < KH; kh++)
#pragma GCC unroll 8
        for (ptrdiff_t kw = 0; kw < KW; kw++) {
            ptrdiff_t a = by_channels ? kw : kh, b = by_channels ? kh : kw, tap = TAP(a, b);
            Vector weight = by_channels ? NAME(load)(w + tap * LANES) : NAME(spread)(w[tap]);
#pragma GCC unroll 8
            for (int r = 0; r < R; r++)
                acc[r] += weight * NAME(load)(x + (r * x_view.stride + a * x_view.dilation) * x_view.step + PLACE(b));
        }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
        T *to = y + r * y_step;
        Vector v = relu ? NAME(relu)(acc[r]) : acc[r];
        if (by_channels || !y_end || y_end - to >= LANES)
            NAME(store)(to, v);
        else { /* a short row, after which the next begins: the last of them may not write beyond the region */
            T buffer[LANES];
            NAME(store)(buffer, v);
            NAME(copy)(to, buffer, y_end - to);
        }
    }
}

/* `count` outputs of `lanes` lanes. A short row may write into the next one before that is computed, but not beyond
   y_end (NULL: whole vectors may be written everywhere). Where a tile would not fit it begins earlier and computes some
   outputs again, but not where it adds to them. */
ALWAYS void NAME(all_outputs)(const int by_channels, NAME(View) x_view, const T *x, const T *w, const T *bias, int relu,
                              T *y, ptrdiff_t y_step, ptrdiff_t count, ptrdiff_t lanes, const T *y_end)
{
    for (ptrdiff_t i = 0, R; i < count; i += R) {
        R = count - i >= ROWS || (count >= ROWS && bias) ? ROWS : 1;
        ptrdiff_t r = NAME(least)(i, count - R);
        const T *first = x + r * x_view.stride * x_view.step;
        for (ptrdiff_t j = 0; j < lanes; j += LANES) {
            ptrdiff_t q = lanes < LANES ? 0 : NAME(least)(j, lanes - LANES);
            if (R == ROWS)
                NAME(outputs)(by_channels, ROWS, x_view, first + q, w, bias, relu, y + r * y_step + q, y_step, y_end);
            else
                NAME(outputs)(by_channels, 1, x_view, first + q, w, bias, relu, y + r * y_step + q, y_step, y_end);
        }
    }
}

/* The sums of R outputs: sums[tap] += dy * x, in registers. */
ALWAYS void NAME(sums)(const int by_channels, const int R, NAME(View) x_view, const T *x, const T *dy, ptrdiff_t dy_step,
                       ptrdiff_t from, ptrdiff_t end, Vector *sums)
{
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
        Vector v = NAME(load)(dy + r * dy_step);
        if (!by_channels)
            v = NAME(lanes)(v, from, end);
#pragma GCC unroll 8
        for (ptrdiff_t a = 0; a < x_view.A; a++)
#pragma GCC unroll 8
            for (ptrdiff_t b = 0; b < x_view.B; b++)
                sums[TAP(a, b)] +=
                    v * NAME(load)(x + (r * x_view.stride + a * x_view.dilation) * x_view.step + PLACE(b));
    }
}

/* for outputs, for vector of lanes: the sums of all taps, for a kernel whose size is known */
ALWAYS void NAME(all_sums)(const int by_channels, NAME(View) x_view, const T *x, const T *dy, ptrdiff_t dy_step,
                           ptrdiff_t count, ptrdiff_t lanes, T *to)
{
    Vector sums[MOST_TAPS];
#pragma GCC unroll 32
    for (ptrdiff_t k = 0; k < x_view.A * x_view.B; k++)
        sums[k] = NAME(load)(to + k * LANES);
    for (ptrdiff_t i = 0, R; i < count; i += R) {
        R = count - i >= SUM_ROWS ? SUM_ROWS : 1;
        const T *first = x + i * x_view.stride * x_view.step;
        for (ptrdiff_t j = 0; j < lanes; j += LANES) {
            ptrdiff_t q = lanes < LANES ? 0 : NAME(least)(j, lanes - LANES);
            ptrdiff_t from = j - q, end = NAME(least)(lanes, LANES); /* lanes of the vector before do not count again */
            if (R == SUM_ROWS)
                NAME(sums)(by_channels, SUM_ROWS, x_view, first + q, dy + i * dy_step + q, dy_step, from, end, sums);
            else
                NAME(sums)(by_channels, 1, x_view, first + q, dy + i * dy_step + q, dy_step, from, end, sums);
        }
    }
#pragma GCC unroll 32
    for (ptrdiff_t k = 0; k < x_view.A * x_view.B; k++)
        NAME(store)(to + k * LANES, sums[k]);
}

ALWAYS NAME(View) NAME(view)(const int by_channels, const Depthwise *d, const Taps *t)
{
    NAME(View) rows = {t->KH, t->KW, d->stride_h, t->dilation_h, d->pitch, d->width, t->column};
    NAME(View) columns = {t->KW, t->KH, d->stride_w, t->dilation_w, LANES, d->pitch * t->dilation_h, NULL};
    return by_channels ? columns : rows;
}

/* Do `with(K, S)` for the kernel of a known size that this one is, or else what follows. */
#define KNOWN(with)                                                                                                   \
    int plain = x_view.A == x_view.B && t->dilation_h == 1 && t->dilation_w == 1 && d->stride_h == d->stride_w;       \
    if (plain && x_view.A == 3 && x_view.stride == 1)                                                                 \
        with(3, 1);                                                                                                   \
    else if (plain && x_view.A == 3 && x_view.stride == 2)                                                            \
        with(3, 2);                                                                                                   \
    else if (plain && x_view.A == 5 && x_view.stride == 1)                                                            \
        with(5, 1);                                                                                                   \
    else if (plain && x_view.A == 5 && x_view.stride == 2)                                                            \
        with(5, 2);                                                                                                   \
    else

ALWAYS void NAME(compute)(const int by_channels, const Depthwise *d, const Taps *t, const T *x, const T *w,
                          const T *bias, int relu, T *y, ptrdiff_t y_step, ptrdiff_t count, ptrdiff_t lanes,
                          const T *y_end)
{
    NAME(View) x_view = NAME(view)(by_channels, d, t);
#define OUTPUTS(K, S)                                                                                                 \
    NAME(all_outputs)(by_channels, (NAME(View)){K, K, S, 1, by_channels ? LANES : x_view.step, x_view.width, NULL},   \
                      by_channels ? x : x + *t->column, w, bias, relu, y, y_step, count, lanes, y_end)
    KNOWN(OUTPUTS)
    NAME(all_outputs)(by_channels, x_view, x, w, bias, relu, y, y_step, count, lanes, y_end);
#undef OUTPUTS
}

ALWAYS void NAME(compute_sums)(const int by_channels, const Depthwise *d, const T *x, const T *dy, ptrdiff_t dy_step,
                               ptrdiff_t count, ptrdiff_t lanes, T *to)
{
    const Taps *t = d->taps;
    NAME(View) x_view = NAME(view)(by_channels, d, t);
#define SUMS(K, S)                                                                                                    \
    NAME(all_sums)(by_channels, (NAME(View)){K, K, S, 1, by_channels ? LANES : x_view.step, x_view.width, NULL},      \
                   by_channels ? x : x + *t->column, dy, dy_step, count, lanes, to)
    KNOWN(SUMS)
        for (ptrdiff_t a = 0; a < x_view.A; a++)
            for (ptrdiff_t b = 0; b < x_view.B; b++) {
                NAME(View) one = {1, 1, x_view.stride, 1, x_view.step, 0, NULL};
                NAME(all_sums)(by_channels, one, x + a * x_view.dilation * x_view.step + PLACE(b), dy, dy_step, count,
                               lanes, to + TAP(a, b) * LANES);
            }
#undef SUMS
    T *total = to + t->KH * t->KW * LANES;
    Vector all = NAME(load)(total);
    for (ptrdiff_t j = 0; j < lanes; j += LANES) {
        ptrdiff_t q = lanes < LANES ? 0 : NAME(least)(j, lanes - LANES);
        for (ptrdiff_t i = 0; i < count; i++)
            all += NAME(lanes)(NAME(load)(dy + i * dy_step + q), j - q, NAME(least)(lanes, LANES));
    }
    NAME(store)(total, all);
}

/* --------------------------------------------------------------------------------------------- lanes in a row */

/* A plane of x has been copied: all that see it, in y or (several phases, or several planes of x for one of y, or rows
   that may not be overwritten) in the scratch. */
static void NAME(planes_region)(const Depthwise *d, ptrdiff_t n, ptrdiff_t g, ptrdiff_t k, NAME(Region) r,
                                const T *scratch, T *out)
{
    const Taps *first = d->taps;
    ptrdiff_t phases = d->phases_h * d->phases_w, last = k == d->channels - 1;
    int direct = phases == 1 && d->channels == 1 && d->y.cell == 1 &&
                 (first->columns >= LANES || d->y.row == first->columns);
    for (ptrdiff_t o = 0; o < d->filters; o++) {
        T *y = (T *)d->y_data + n * d->y.image + (g * d->filters + o) * d->y.channel;
        const T *bias = k ? NULL : (const T *)d->bias + g * d->filters + o;
        for (ptrdiff_t phase = 0; phase < phases; phase++) {
            const Taps *t = first + phase;
            const T *w = (const T *)d->weights + t->weights + (g * d->channels * d->filters + k + o) * t->KH * t->KW;
            const T *x = scratch + (t->top - d->top) * d->pitch;
            ptrdiff_t rows = NAME(least)(r.rows, t->rows - r.row), step = direct ? d->y.row : d->out_width;
            T *to = direct ? y + r.row * d->y.row : out + phase * d->band * d->out_width;
            NAME(compute)(0, d, t, x, w, bias, d->relu && last, to, step, rows,
                          direct ? t->columns : d->out_width,
                          direct && t->columns < LANES ? to + rows * t->columns : NULL);
        }
        if (!direct && last)
            NAME(merge_phases)(d, out, y, r);
    }
}

static void NAME(planes_sums)(const Depthwise *d, ptrdiff_t n, ptrdiff_t g, NAME(Region) r, const T *scratch, T *out,
                              T *sums)
{
    ptrdiff_t columns = d->taps->columns, count = d->taps->KH * d->taps->KW + 1;
    for (ptrdiff_t o = 0; o < d->filters; o++) {
        const T *dy = (const T *)d->y_data + n * d->y.image + (g * d->filters + o) * d->y.channel + r.row * d->y.row;
        ptrdiff_t step = d->y.row;
        if (d->y.cell != 1 || columns < LANES) {
            for (ptrdiff_t i = 0; i < r.rows; i++)
                NAME(copy_steps)(out + i * d->out_width, dy + i * d->y.row, d->y.cell, columns);
            dy = out, step = d->out_width;
        }
        NAME(compute_sums)(0, d, scratch, dy, step, r.rows, columns, sums + o * count * LANES);
    }
}

/* --------------------------------------------------------------------------------------------- lanes of channels */

static void NAME(channels_region)(const Depthwise *d, ptrdiff_t n, ptrdiff_t g, ptrdiff_t k, NAME(Region) r,
                                  const T *scratch, T *out)
{
    ptrdiff_t last = k == d->channels - 1, width = d->block * d->phases_w * LANES;
    NAME(Channels) c = NAME(channels)(&d->y, d->y_channels, g * LANES, 1, 0, 1);
    int direct = c.adjacent && d->channels == 1;
    ptrdiff_t row = r.row * d->phases_h, column = r.column * d->phases_w;
    T *image = (T *)d->y_data + n * d->y.image;
    T *y = direct ? image + row * d->y.row + column * d->y.cell + c.lane[0] : out;
    ptrdiff_t y_row = direct ? d->y.row : width, y_cell = direct ? d->y.cell : LANES;
    for (ptrdiff_t phase = 0; phase < d->phases_h * d->phases_w; phase++) {
        const Taps *t = d->taps + phase;
        const T *w = (const T *)d->weights + t->weights + (g * d->channels + k) * t->KH * t->KW * LANES;
        const T *bias = k ? NULL : (const T *)d->bias + g * LANES;
        const T *x = scratch + (t->top - d->top) * d->pitch + (t->left - d->left) * LANES;
        ptrdiff_t columns = NAME(least)(r.columns, t->columns - r.column);
        for (ptrdiff_t i = 0; i < NAME(least)(r.rows, t->rows - r.row); i++)
            NAME(compute)(1, d, t, x + i * d->stride_h * d->pitch, w, bias, d->relu && last,
                          y + (i * d->phases_h + phase / d->phases_w) * y_row + phase % d->phases_w * y_cell,
                          d->phases_w * y_cell, columns, LANES, NULL);
    }
    if (!direct && last)
        NAME(put_cells)(&c, image, row, r.rows * d->phases_h, column, r.columns * d->phases_w, out, width);
}

static void NAME(channels_sums)(const Depthwise *d, ptrdiff_t n, ptrdiff_t g, NAME(Region) r, const T *scratch, T *out,
                                T *sums)
{
    NAME(Channels) c = NAME(channels)(&d->y, d->y_channels, g * LANES, 1, 0, 1);
    const T *dy = (const T *)d->y_data + n * d->y.image;
    ptrdiff_t row = d->block * LANES, cell = LANES;
    if (c.adjacent)
        dy += r.row * d->y.row + r.column * d->y.cell + c.lane[0], row = d->y.row, cell = d->y.cell;
    else {
        NAME(copy_cells)(&c, dy, r.row, r.rows, r.column, r.columns, out, row);
        dy = out;
    }
    for (ptrdiff_t i = 0; i < r.rows; i++)
        NAME(compute_sums)(1, d, scratch + i * d->stride_h * d->pitch, dy + i * row, cell, r.columns, LANES, sums);
}

/* -------------------------------------------------------------------------------- lanes of channels, in place */

/* P outputs of a row, all channels, in the order in which they lie in memory; taps kh0 .. kh1 - 1, kw0 .. kw1 - 1 are
   those inside the image:

     for c in channels
       for kh, kw in taps                                       a vector of weights
         for p in outputs                                       cells shared by several taps are loaded once         */
ALWAYS void NAME(pixels)(const int P, ptrdiff_t kh0, ptrdiff_t kh1, ptrdiff_t kw0, ptrdiff_t kw1, ptrdiff_t KW,
                         ptrdiff_t stride, ptrdiff_t dilation, const Depthwise *d, const Taps *t, const T *x, T *y,
                         ptrdiff_t y_cell)
{
    ptrdiff_t cell = d->x.cell, row = t->dilation_h * d->x.row;
    const T *w = (const T *)d->weights + t->weights, *bias = d->bias;
    for (ptrdiff_t c = 0; c < d->y_channels; c += LANES, w += t->KH * KW * LANES) {
        Vector acc[PIXELS];
#pragma GCC unroll 8
        for (int p = 0; p < P; p++)
            acc[p] = NAME(load)(bias + c);
        for (ptrdiff_t kh = kh0; kh < kh1; kh++)
#pragma GCC unroll 8
            for (ptrdiff_t kw = kw0; kw < kw1; kw++) {
                Vector weight = NAME(load)(w + (kh * KW + kw) * LANES);
#pragma GCC unroll 8
                for (int p = 0; p < P; p++)
                    acc[p] += weight * NAME(load)(x + kh * row + (p * stride + kw * dilation) * cell + c);
            }
#pragma GCC unroll 8
        for (int p = 0; p < P; p++)
            NAME(store)(y + p * y_cell + c, d->relu ? NAME(relu)(acc[p]) : acc[p]);
    }
}

/* The same for the weight gradient of C channels: sums[group][tap][lane] += dy * x. */
ALWAYS void NAME(pixels_sums)(const int P, ptrdiff_t kh0, ptrdiff_t kh1, ptrdiff_t kw0, ptrdiff_t kw1, ptrdiff_t KW,
                              ptrdiff_t stride, ptrdiff_t dilation, const Depthwise *d, const Taps *t, const T *x,
                              const T *dy, ptrdiff_t dy_cell, ptrdiff_t C, T *sums, ptrdiff_t sums_of_group)
{
    ptrdiff_t cell = d->x.cell, row = t->dilation_h * d->x.row;
    for (ptrdiff_t c = 0; c < C; c += LANES, sums += sums_of_group) {
        T *total = sums + t->KH * KW * LANES;
        Vector v[PIXELS], all = NAME(load)(total);
#pragma GCC unroll 8
        for (int p = 0; p < P; p++)
            all += v[p] = NAME(load)(dy + p * dy_cell + c);
        NAME(store)(total, all);
        for (ptrdiff_t kh = kh0; kh < kh1; kh++)
#pragma GCC unroll 8
            for (ptrdiff_t kw = kw0; kw < kw1; kw++) {
                T *sum = sums + (kh * KW + kw) * LANES;
                Vector acc = NAME(load)(sum);
#pragma GCC unroll 8
                for (int p = 0; p < P; p++)
                    acc += v[p] * NAME(load)(x + kh * row + (p * stride + kw * dilation) * cell + c);
                NAME(store)(sum, acc);
            }
    }
}

/* Outputs j .. end - 1 of a row that all have these taps: y, or with sums what dy adds to them. */
ALWAYS void NAME(pixels_run)(const int summed, const Depthwise *d, const Taps *t, ptrdiff_t C, const T *x, T *y,
                             ptrdiff_t j, ptrdiff_t end, ptrdiff_t kh0, ptrdiff_t kh1, ptrdiff_t kw0, ptrdiff_t kw1,
                             T *sums, ptrdiff_t sums_of_group)
{
    ptrdiff_t step = d->stride_w * d->x.cell, y_cell = d->phases_w * d->y.cell, S = d->stride_w, again = end - PIXELS;
    ptrdiff_t K = kw0 == 0 && kw1 == t->KW && t->dilation_w == 1 ? t->KW : 0;
#define PIXELS_FROM(q, P, from, until, KW, S, D)                                                                      \
    (summed ? NAME(pixels_sums)(P, kh0, kh1, from, until, KW, S, D, d, t, x + (q) * step, y + (q) * y_cell, y_cell,   \
                                C, sums, sums_of_group)                                                                       \
            : NAME(pixels)(P, kh0, kh1, from, until, KW, S, D, d, t, x + (q) * step, y + (q) * y_cell, y_cell))
    if (end - j >= PIXELS)
        for (; summed ? j <= again : j < end; j += PIXELS) {
            ptrdiff_t q = NAME(least)(j, again);
            if (K == 3 && S == 1)
                PIXELS_FROM(q, PIXELS, 0, 3, 3, 1, 1);
            else if (K == 3 && S == 2)
                PIXELS_FROM(q, PIXELS, 0, 3, 3, 2, 1);
            else if (K == 5 && S == 1)
                PIXELS_FROM(q, PIXELS, 0, 5, 5, 1, 1);
            else if (K == 5 && S == 2)
                PIXELS_FROM(q, PIXELS, 0, 5, 5, 2, 1);
            else
                PIXELS_FROM(q, PIXELS, kw0, kw1, t->KW, S, t->dilation_w);
        }
    for (; j < end; j++)
        PIXELS_FROM(j, 1, kw0, kw1, t->KW, S, t->dilation_w);
#undef PIXELS_FROM
}

/* The first of `taps` that is inside, from cell `start` on, and one past the last. */
ALWAYS ptrdiff_t NAME(first_tap)(ptrdiff_t start, ptrdiff_t dilation)
{
    return start >= 0 ? 0 : (-start - 1) / dilation + 1;
}

ALWAYS ptrdiff_t NAME(end_tap)(ptrdiff_t start, ptrdiff_t dilation, ptrdiff_t taps, ptrdiff_t size)
{
    return start >= size ? 0 : NAME(least)(taps, (size - 1 - start) / dilation + 1);
}

/* Row i of a phase, in runs of outputs that have the same taps. */
ALWAYS void NAME(pixels_row)(const int summed, const Depthwise *d, ptrdiff_t phase, ptrdiff_t C, const T *x, T *y,
                             ptrdiff_t i, T *sums, ptrdiff_t sums_of_group)
{
    const Taps *t = d->taps + phase;
    ptrdiff_t h = i * d->stride_h + t->top;
    ptrdiff_t kh0 = NAME(first_tap)(h, t->dilation_h), kh1 = NAME(end_tap)(h, t->dilation_h, t->KH, d->x.rows);
    x += h * d->x.row + t->left * d->x.cell;
    y += (i * d->phases_h + phase / d->phases_w) * d->y.row + phase % d->phases_w * d->y.cell;
    for (ptrdiff_t j = 0, end; j < t->columns; j = end) {
        ptrdiff_t w = j * d->stride_w + t->left;
        ptrdiff_t kw0 = NAME(first_tap)(w, t->dilation_w), kw1 = NAME(end_tap)(w, t->dilation_w, t->KW, d->x.columns);
        end = j + 1;
        if (t->KW == 0)
            end = t->columns;
        else if (kw0 == 0 && kw1 == t->KW) /* and so have all up to the right border */
            end += (d->x.columns - 1 - w - (t->KW - 1) * t->dilation_w) / d->stride_w;
        end = NAME(least)(end, t->columns);
        NAME(pixels_run)(summed, d, t, C, x, y, j, end, kh0, kh1, kw0, kw1, sums, sums_of_group);
    }
}

static void NAME(in_place)(const Depthwise *d, ptrdiff_t n, ptrdiff_t first, ptrdiff_t end)
{
    for (ptrdiff_t i = first; i < end; i++)
        for (ptrdiff_t phase = 0; phase < d->phases_h * d->phases_w; phase++)
            if (i < d->taps[phase].rows)
                NAME(pixels_row)(0, d, phase, 0, (const T *)d->x_data + n * d->x.image,
                                 (T *)d->y_data + n * d->y.image, i, NULL, 0);
}

static void NAME(in_place_sums)(const Depthwise *d, ptrdiff_t g, ptrdiff_t end_group, ptrdiff_t first, ptrdiff_t end,
                                T *sums, ptrdiff_t sums_of_group)
{
    for (ptrdiff_t unit = first; unit < end; unit++) {
        ptrdiff_t n = unit / d->taps->rows, c = g * LANES;
        NAME(pixels_row)(1, d, 0, (end_group - g) * LANES, (const T *)d->x_data + n * d->x.image + c,
                         (T *)d->y_data + n * d->y.image + c, unit % d->taps->rows, sums, sums_of_group);
    }
}

/* ------------------------------------------------------------------------------------------------------- regions */

/* What a region sees in plane g, or in the g-th channels, of image n. */
ALWAYS void NAME(copy_source)(const Depthwise *d, ptrdiff_t n, ptrdiff_t g, ptrdiff_t k, NAME(Region) r, T *scratch)
{
    const T *image = (const T *)d->x_data + n * d->x.image;
    if (!d->by_channels) {
        NAME(copy_rows)(d, image + (g * d->channels + k) * d->x.channel, r, scratch);
        return;
    }
    NAME(Channels) c = NAME(channels)(&d->x, d->y_channels, g * LANES, d->channels, k, d->filters);
    NAME(copy_cells)(&c, image, r.row * d->stride_h + d->top, d->source_rows - (d->band - r.rows) * d->stride_h,
                     r.column * d->stride_w + d->left, d->source_columns - (d->block - r.columns) * d->stride_w,
                     scratch, d->pitch);
}

static void NAME(depthwise)(const Depthwise *d, ptrdiff_t first_region, ptrdiff_t end_region, ptrdiff_t first,
                            ptrdiff_t end, void *memory)
{
    T *scratch = memory, *out = scratch + d->source_size;
    if (d->in_place) {
        ptrdiff_t rows = d->taps->rows, regions = (rows + d->band - 1) / d->band * d->blocks;
        for (ptrdiff_t n = first / d->groups; n < end / d->groups; n++)
            NAME(in_place)(d, n, first_region * rows / regions, end_region * rows / regions);
        return;
    }
    for (ptrdiff_t region = first_region; region < end_region; region++) {
        NAME(Region) r = NAME(region)(d, region);
        memset(scratch, 0, d->source_size * sizeof(T));
        for (ptrdiff_t p = first; p < end; p++)
            for (ptrdiff_t k = 0; k < d->channels; k++) {
                NAME(copy_source)(d, p / d->groups, p % d->groups, k, r, scratch);
                if (d->by_channels)
                    NAME(channels_region)(d, p / d->groups, p % d->groups, k, r, scratch, out);
                else
                    NAME(planes_region)(d, p / d->groups, p % d->groups, k, r, scratch, out);
            }
    }
}

static void NAME(depthwise_sums)(const Depthwise *d, ptrdiff_t first_group, ptrdiff_t end_group, ptrdiff_t first,
                                 ptrdiff_t end, void *sums, ptrdiff_t sums_of_group, void *memory)
{
    T *scratch = memory, *out = scratch + d->source_size;
    if (d->in_place)
        NAME(in_place_sums)(d, first_group, end_group, first, end, sums, sums_of_group);
    else
        for (ptrdiff_t unit = first; unit < end; unit++) {
            ptrdiff_t n = unit % d->images;
            NAME(Region) r = NAME(region)(d, unit / d->images);
            if (unit == first || n == 0)
                memset(scratch, 0, d->source_size * sizeof(T));
            for (ptrdiff_t g = first_group; g < end_group; g++) {
                T *to = (T *)sums + (g - first_group) * sums_of_group;
                if (d->taps->KH > 0)
                    NAME(copy_source)(d, n, g, 0, r, scratch);
                if (d->by_channels)
                    NAME(channels_sums)(d, n, g, r, scratch, out, to);
                else
                    NAME(planes_sums)(d, n, g, r, scratch, out, to);
            }
        }
}

#undef PLACE
#undef TAP
#undef KNOWN
#undef ROWS
#undef PIXELS
#undef SUM_ROWS
#undef MOST_TAPS
