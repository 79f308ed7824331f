/* Depthwise convolution: a filter sees one channel, so there is no product of matrices, and what counts is how fast
   images are read and written; part of template.h.

   The cells that some outputs see are copied between zeros into a scratch, which stays in the caches, and computed from
   there. Lanes of vectors are neighbours in a row of one plane; or, `by_channels`, the same cell of LANES channels, for
   NHWC and for images too small to fill vectors with a row. Two ways to copy, one to compute; 3x3 kernels of NHWC have
   their own (pixels.h). Any kernel, stride and dilation; the usual kernels are compiled with their sizes. */

#define ROWS 7 /* outputs in registers, along the axis that is not the lanes': images often have a multiple of 7 */
#define SUM_ROWS 4 /* outputs of the weight gradient, whose sums are in registers, too */
#define MOST_TAPS 25 /* of the kernels that are compiled with their sizes */
#define AT_ONCE(K) ((K) * (K) + 2 <= REGISTERS ? (K) : 1) /* rows of taps of these, whose sums are in registers */
#define FEW_TAPS 5 /* of a row of any kernel, whose sums are taken together */

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

/* Vectors of group g. */
ALWAYS ptrdiff_t NAME(vectors_of)(const Depthwise *d, ptrdiff_t g)
{
    return NAME(least)(d->vectors, (d->y_channels + LANES - 1) / LANES - g * d->vectors);
}

/* Where vector v of channels that lie side by side begins: the last one ends with the last channel, and has some of
   those before it again. */
ALWAYS ptrdiff_t NAME(start)(const Depthwise *d, ptrdiff_t v)
{
    return NAME(least)(v * LANES, d->y_channels - LANES);
}

#include "pixels.h"

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

/* Rows of plane c of x that a region sees. */
static void NAME(copy_rows)(const Depthwise *d, ptrdiff_t n, ptrdiff_t c, NAME(Region) r, T *scratch)
{
    const T *plane = (const T *)d->x_data + n * d->x.image + c * d->x.channel;
    ptrdiff_t top = r.row * d->stride_h + d->top, last = top + (r.rows - 1) * d->stride_h + d->reach_h;
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

/* Lanes of the v-th vector that are channels of y. */
ALWAYS ptrdiff_t NAME(lanes_of)(const Depthwise *d, ptrdiff_t v)
{
    return NAME(least)(LANES, d->y_channels - v * LANES);
}

/* Where the lanes of a vector are in an image: lane i is channel (first + i * times) / repeated. */
typedef struct {
    Places image;
    ptrdiff_t first, times, repeated, lanes;
} NAME(Channels);

/* Rows from h on and columns from w on, to or (back) from vectors that lie side by side: rows are turned, all of them
   at once if they follow each other, vectors or else numbers are copied. */
ALWAYS void NAME(move_cells)(const int back, const NAME(Channels) *c, T *image, ptrdiff_t h, ptrdiff_t rows,
                             ptrdiff_t w, ptrdiff_t columns, T *to)
{
    const Places *p = &c->image;
    ptrdiff_t count = rows * columns, step = c->times * p->channel;
    ptrdiff_t run = p->cell == 1 && p->row == columns ? count : columns;
    for (ptrdiff_t q = 0; q < count; q += run) {
        T *there = image + (h + q / columns) * p->row + w * p->cell, *here = to + q * LANES;
        T *first = there + c->first * p->channel;
        if (c->repeated == 1 && p->cell == 1 && back)
            NAME(transpose)(here, LANES, run, c->lanes, first, step);
        else if (c->repeated == 1 && p->cell == 1)
            NAME(transpose)(first, step, c->lanes, run, here, LANES);
        else if (c->repeated == 1 && step == 1)
            for (ptrdiff_t j = 0; j < run; j++, first += p->cell, here += LANES)
                NAME(copy)(back ? first : here, back ? here : first, c->lanes);
        else
            for (ptrdiff_t i = 0; i < c->lanes; i++)
                for (ptrdiff_t j = 0; j < run; j++) {
                    T *one = there + (c->first + i * c->times) / c->repeated * p->channel + j * p->cell;
                    T *other = here + j * LANES + i;
                    *(back ? one : other) = *(back ? other : one);
                }
    }
}

/* ------------------------------------------------------------------------------------------------- the computation */

/* How outputs that follow each other, `step` apart, see the scratch: through tap (a, b) the number at
   (stride * output + a * dilation) * step + b's place, which is given or, lanes in a row, known to the compiler where
   the kernel has its size from it. Lanes in a row: outputs of a column, a = kh, b = kw; by channels: of a row, a = kw,
   b = kh. */
typedef struct {
    ptrdiff_t A, B, stride, dilation, step, width;
    const ptrdiff_t *place;
} NAME(View);

#define PLACE(b) (x_view.place ? x_view.place[b] : (b) % x_view.stride * x_view.width + (b) / x_view.stride)

#define TAP(a, b) (by_channels ? (b) * x_view.A + (a) : (a) * x_view.B + (b))

/* R outputs of a vector:

     for kw, kh in taps                                         in the order of pixels.h, so that bits are alike
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
    for (ptrdiff_t kw = 0; kw < KW; kw++)
#pragma GCC unroll 8
        for (ptrdiff_t kh = 0; kh < KH; kh++) {
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

/* Do `with(K, S)` for the kernel of a known size that this one is, or else what follows. */
#define KNOWN(with)                                                                                                   \
    int plain = x_view.A == x_view.B && x_view.dilation == 1 &&                                                       \
                (by_channels || (t->dilation_w == 1 && d->stride_h == d->stride_w));                                  \
    if (plain && x_view.A == 3 && x_view.stride == 1)                                                                 \
        with(3, 1);                                                                                                   \
    else if (plain && x_view.A == 3 && x_view.stride == 2)                                                            \
        with(3, 2);                                                                                                   \
    else if (plain && x_view.A == 5 && x_view.stride == 1)                                                            \
        with(5, 1);                                                                                                   \
    else if (plain && x_view.A == 5 && x_view.stride == 2)                                                            \
        with(5, 2);                                                                                                   \
    else

/* The view of a scratch, and the same with what the compiler knows. */
ALWAYS NAME(View) NAME(view)(const int by_channels, const Depthwise *d, const Taps *t, const ptrdiff_t *place)
{
    NAME(View) rows = {t->KH, t->KW, d->stride_h, t->dilation_h, d->pitch, d->width, place};
    NAME(View) columns = {t->KW, t->KH, d->stride_w, t->dilation_w, LANES, 0, place};
    return by_channels ? columns : rows;
}

#define KNOWN_VIEW(K, S)                                                                                              \
    (NAME(View)){K, K, S, 1, by_channels ? LANES : x_view.step, x_view.width, by_channels ? x_view.place : NULL}
#define KNOWN_X (by_channels ? x : x + *t->column)

/* The same of so many rows of taps, from kh on, where x begins at the first of them along a; */
ALWAYS NAME(View) NAME(rows_of)(const int by_channels, NAME(View) x_view, ptrdiff_t kh, const int rows)
{
    *(by_channels ? &x_view.B : &x_view.A) = rows;
    if (by_channels)
        x_view.place += kh;
    return x_view;
}

/* and of `taps` taps of row kh, from kw on, where x begins at the first of them along a. */
ALWAYS NAME(View) NAME(few)(const int by_channels, NAME(View) x_view, ptrdiff_t kh, ptrdiff_t kw, const int taps)
{
    NAME(View) row = {1, taps, x_view.stride, 1, x_view.step, 0, x_view.place + kw};
    NAME(View) column = {taps, 1, x_view.stride, x_view.dilation, x_view.step, 0, x_view.place + kh};
    return by_channels ? column : row;
}

ALWAYS void NAME(compute)(const int by_channels, const Depthwise *d, const Taps *t, const T *x,
                          const ptrdiff_t *place, const T *w, const T *bias, int relu, T *y, ptrdiff_t y_step,
                          ptrdiff_t count, ptrdiff_t lanes, const T *y_end)
{
    NAME(View) x_view = NAME(view)(by_channels, d, t, place);
#define OUTPUTS(K, S)                                                                                                 \
    NAME(all_outputs)(by_channels, KNOWN_VIEW(K, S), KNOWN_X, w, bias, relu, y, y_step, count, lanes, y_end)
    KNOWN(OUTPUTS)
    NAME(all_outputs)(by_channels, x_view, x, w, bias, relu, y, y_step, count, lanes, y_end);
#undef OUTPUTS
}

ALWAYS void NAME(compute_sums)(const int by_channels, const Depthwise *d, const T *x, const ptrdiff_t *place,
                               const T *dy, ptrdiff_t dy_step, ptrdiff_t count, ptrdiff_t lanes, T *to)
{
    const Taps *t = d->taps;
    NAME(View) x_view = NAME(view)(by_channels, d, t, place);
#define SUMS(K, S)                                                                                                    \
    for (ptrdiff_t kh = 0; kh < K; kh += AT_ONCE(K))                                                                  \
        NAME(all_sums)(by_channels, NAME(rows_of)(by_channels, KNOWN_VIEW(K, S), kh, AT_ONCE(K)),                     \
                       KNOWN_X + (by_channels ? 0 : kh * x_view.step), dy, dy_step, count, lanes, to + kh * K * LANES)
#define FEW(K)                                                                                                        \
    case K:                                                                                                           \
        NAME(all_sums)(by_channels, NAME(few)(by_channels, x_view, kh, kw, K), at, dy, dy_step, count, lanes, sums);  \
        break;
    KNOWN(SUMS)
        for (ptrdiff_t kh = 0; kh < t->KH; kh++)
            for (ptrdiff_t kw = 0, taps; kw < t->KW; kw += taps) {
                const T *at = x + (by_channels ? kw : kh) * x_view.dilation * x_view.step;
                T *sums = to + (kh * t->KW + kw) * LANES;
                taps = NAME(least)(t->KW - kw, FEW_TAPS);
                switch (taps) {
                    FEW(1) FEW(2) FEW(3) FEW(4) FEW(5)
                }
            }
#undef FEW
#undef SUMS
    T *total = to + t->KH * t->KW * LANES;
    Vector all = NAME(load)(total);
    for (ptrdiff_t j = 0; j < lanes; j += LANES) {
        ptrdiff_t q = lanes < LANES ? 0 : NAME(least)(j, lanes - LANES);
        for (ptrdiff_t i = 0; i < count; i++) {
            Vector v = NAME(load)(dy + i * dy_step + q);
            all += by_channels ? v : NAME(lanes)(v, j - q, NAME(least)(lanes, LANES));
        }
    }
    NAME(store)(total, all);
}

/* --------------------------------------------------------------------------------------------- lanes in a row */

/* A plane of x: all that see it, in y or (several phases, or several planes of x for one of y, or rows
   that may not be overwritten) in the scratch. A function of its own: beside the others it was a tenth slower. */
NEVER void NAME(planes_region)(const Depthwise *d, ptrdiff_t n, ptrdiff_t g, ptrdiff_t k, NAME(Region) r,
                                T *scratch, T *out)
{
    const Taps *first = d->taps;
    ptrdiff_t phases = d->phases_h * d->phases_w, last = k == d->channels - 1;
    int direct = phases == 1 && d->channels == 1 && d->y.cell == 1 &&
                 (first->columns >= LANES || d->y.row == first->columns);
    NAME(copy_rows)(d, n, g * d->channels + k, r, scratch);
    for (ptrdiff_t o = 0; o < d->filters; o++) {
        T *y = (T *)d->y_data + n * d->y.image + (g * d->filters + o) * d->y.channel;
        const T *bias = k ? NULL : (const T *)d->bias + g * d->filters + o;
        for (ptrdiff_t phase = 0; phase < phases; phase++) {
            const Taps *t = first + phase;
            const T *w = (const T *)d->weights + (g * d->channels * d->filters + k + o) * d->all_taps + t->before;
            const T *x = scratch + (t->top - d->top) * d->pitch;
            ptrdiff_t rows = NAME(least)(r.rows, t->rows - r.row), step = direct ? d->y.row : d->out_width;
            T *to = direct ? y + r.row * d->y.row : out + phase * d->band * d->out_width;
            NAME(compute)(0, d, t, x, t->column, w, bias, d->relu && last, to, step, rows,
                          direct ? t->columns : d->out_width,
                          direct && t->columns < LANES ? to + rows * t->columns : NULL);
        }
        if (!direct && last)
            NAME(merge_phases)(d, out, y, r);
    }
}

static void NAME(planes_sums)(const Depthwise *d, ptrdiff_t n, ptrdiff_t g, NAME(Region) r, T *scratch, T *out,
                              T *sums)
{
    ptrdiff_t columns = d->taps->columns, count = d->taps->KH * d->taps->KW + 1;
    if (count > 1)
        NAME(copy_rows)(d, n, g, r, scratch);
    for (ptrdiff_t o = 0; o < d->filters; o++) {
        const T *dy = (const T *)d->y_data + n * d->y.image + (g * d->filters + o) * d->y.channel + r.row * d->y.row;
        ptrdiff_t step = d->y.row;
        if (d->y.cell != 1 || columns < LANES) {
            for (ptrdiff_t i = 0; i < r.rows; i++)
                NAME(copy_steps)(out + i * d->out_width, dy + i * d->y.row, d->y.cell, columns);
            dy = out, step = d->out_width;
        }
        NAME(compute_sums)(0, d, scratch, d->taps->column, dy, step, r.rows, columns, sums + o * count * LANES);
    }
}

/* --------------------------------------------------------------------------------------------- lanes of channels */

/* Vectors first .. first + vectors - 1 of an image while a region of their outputs is computed. */
typedef struct {
    T *ring;          /* rows of x, row h in slot h % slots, and one more slot that stays zero */
    ptrdiff_t *place; /* of the rows that an output sees, from the ring on */
    T *room;          /* for outputs whose channels do not lie side by side */
    NAME(Channels) x; /* columns left .. right - 1 of the image are seen; `skipped` of the ring are before them */
    T *image;
    ptrdiff_t first, vectors, left, right, skipped, copied; /* rows up to this one */
} NAME(Work);

/* Of group g, the k-th channels that add up. */
ALWAYS void NAME(begin)(const Depthwise *d, NAME(Work) *work, ptrdiff_t n, ptrdiff_t g, ptrdiff_t k, NAME(Region) r)
{
    ptrdiff_t first = g * d->vectors;
    NAME(Channels) x = {d->x, first * LANES * d->channels + k, d->channels, d->filters, NAME(lanes_of)(d, first)};
    ptrdiff_t left = r.column * d->stride_w + d->left, right = left + (r.columns - 1) * d->stride_w + d->reach_w;
    work->x = x, work->image = (T *)d->x_data + n * d->x.image;
    work->first = first, work->vectors = NAME(vectors_of)(d, g);
    work->left = NAME(most)(left, 0), work->right = NAME(least)(right, d->x.columns);
    work->skipped = work->left - left, work->copied = 0;
}

/* What will be read or written next, while something is computed. */
ALWAYS void NAME(prefetch)(const T *numbers, ptrdiff_t step, ptrdiff_t count)
{
    for (ptrdiff_t j = 0; j < count; j++)
        PREFETCH(numbers + j * step);
}

/* A row of pixels, vector by vector: each has its own row of the slot. */
ALWAYS void NAME(copy_pixels)(const Depthwise *d, const NAME(Work) *work, ptrdiff_t h, T *to)
{
    const T *from = work->image + h * d->x.row + work->left * d->x.cell + work->x.first;
    ptrdiff_t last = work->vectors - 1, start = NAME(start)(d, work->first + last) - work->x.first;
    for (ptrdiff_t w = work->left; w < work->right; w++, from += d->x.cell, to += LANES) {
        for (ptrdiff_t v = 0; v < last; v++)
            NAME(store)(to + v * d->pitch, NAME(load)(from + v * LANES));
        NAME(store)(to + last * d->pitch, NAME(load)(from + start));
    }
}

/* The rows that outputs of row i see, copied into the ring. */
ALWAYS void NAME(advance)(const Depthwise *d, NAME(Work) *work, ptrdiff_t i)
{
    ptrdiff_t top = i * d->stride_h + d->top;
    for (ptrdiff_t h = NAME(most)(work->copied, top); h < NAME(least)(d->x.rows, top + d->reach_h); h++) {
        T *to = work->ring + (h & (d->slots - 1)) * d->slot + work->skipped * LANES;
        if (d->adjacent)
            NAME(copy_pixels)(d, work, h, to);
        else { /* and the same row of the channels after them is read next */
            NAME(prefetch)(work->image + (work->x.first + LANES * d->channels) * d->x.channel + h * d->x.row,
                           d->x.channel, LANES);
            NAME(move_cells)(0, &work->x, work->image, h, 1, work->left, work->right - work->left, to);
        }
        work->copied = h + 1;
    }
}

ALWAYS void NAME(find_rows)(const Depthwise *d, const Taps *t, NAME(Work) *work, ptrdiff_t i)
{
    for (ptrdiff_t kh = 0; kh < t->KH; kh++) {
        ptrdiff_t h = i * d->stride_h + t->top + kh * t->dilation_h;
        work->place[kh] = (h < 0 || h >= d->x.rows ? d->slots : h & (d->slots - 1)) * d->slot;
    }
}

/* Outputs of row i of a region in one phase; `y` of the first vector.

     for v in vectors
       for tile of outputs in the row                           registers                                            */
ALWAYS void NAME(phase_row)(const Depthwise *d, NAME(Work) *work, ptrdiff_t k, NAME(Region) r, ptrdiff_t phase,
                            ptrdiff_t i, T *y, ptrdiff_t y_row, ptrdiff_t y_cell)
{
    const Taps *t = d->taps + phase;
    ptrdiff_t columns = NAME(least)(r.columns, t->columns - r.column), step = d->phases_w * y_cell;
    int next = d->adjacent && i + 1 < r.row + r.rows;
    NAME(find_rows)(d, t, work, i);
    for (ptrdiff_t v = 0; v < work->vectors; v++) {
        ptrdiff_t vector = work->first + v, start = d->adjacent ? NAME(start)(d, vector) : 0;
        if (next && phase == 0)
            NAME(prefetch)(work->image + work->copied * d->x.row + work->left * d->x.cell + start, d->x.cell,
                           work->right - work->left);
        if (next)
            NAME(prefetch)(y + start + d->phases_h * y_row, step, columns);
        NAME(compute)(1, d, t, work->ring + v * d->pitch + (t->left - d->left) * LANES, work->place,
                      (const T *)d->weights + ((vector * d->channels + k) * d->all_taps + t->before) * LANES,
                      k ? NULL : (const T *)d->bias + vector * LANES, d->relu && k == d->channels - 1, y + start, step,
                      columns, LANES, NULL);
    }
}

static void NAME(channels_region)(const Depthwise *d, NAME(Work) *work, ptrdiff_t n, ptrdiff_t g, ptrdiff_t k,
                                  NAME(Region) r)
{
    NAME(Channels) c = {d->y, g * LANES, 1, 1, NAME(lanes_of)(d, g)};
    ptrdiff_t row = r.row * d->phases_h, rows = NAME(least)(r.rows * d->phases_h, d->y.rows - row);
    ptrdiff_t column = r.column * d->phases_w, columns = NAME(least)(r.columns * d->phases_w, d->y.columns - column);
    ptrdiff_t y_row = d->adjacent ? d->y.row : columns * LANES, y_cell = d->adjacent ? d->y.cell : LANES;
    T *image = (T *)d->y_data + n * d->y.image;
    T *y = d->adjacent ? image + row * d->y.row + column * d->y.cell : work->room;
    NAME(begin)(d, work, n, g, k, r);
    for (ptrdiff_t i = r.row; i < r.row + r.rows; i++, y += d->phases_h * y_row) {
        NAME(advance)(d, work, i);
        for (ptrdiff_t phase = 0; phase < d->phases_h * d->phases_w; phase++)
            if (i < d->taps[phase].rows)
                NAME(phase_row)(d, work, k, r, phase, i,
                                y + phase / d->phases_w * y_row + phase % d->phases_w * y_cell, y_row, y_cell);
    }
    if (!d->adjacent && k == d->channels - 1)
        NAME(move_cells)(1, &c, image, row, rows, column, columns, work->room);
}

static void NAME(channels_sums)(const Depthwise *d, NAME(Work) *work, ptrdiff_t n, ptrdiff_t g, NAME(Region) r, T *sums)
{
    NAME(Channels) c = {d->y, g * LANES, 1, 1, NAME(lanes_of)(d, g)};
    ptrdiff_t taps = d->taps->KH * d->taps->KW;
    ptrdiff_t dy_row = d->adjacent ? d->y.row : r.columns * LANES, dy_cell = d->adjacent ? d->y.cell : LANES;
    T *image = (T *)d->y_data + n * d->y.image;
    const T *dy = d->adjacent ? image + r.row * d->y.row + r.column * d->y.cell : work->room;
    if (!d->adjacent)
        NAME(move_cells)(0, &c, image, r.row, r.rows, r.column, r.columns, work->room);
    NAME(begin)(d, work, n, g, 0, r);
    for (ptrdiff_t i = r.row; i < r.row + r.rows; i++, dy += dy_row) {
        if (taps > 0)
            NAME(advance)(d, work, i);
        NAME(find_rows)(d, d->taps, work, i);
        for (ptrdiff_t v = 0; v < work->vectors; v++)
            NAME(compute_sums)(1, d, work->ring + v * d->pitch, work->place,
                               d->adjacent ? dy + NAME(start)(d, work->first + v) : dy, dy_cell, r.columns, LANES,
                               sums + v * (taps + 1) * LANES);
    }
}

/* ------------------------------------------------------------------------------------------------------- regions */

ALWAYS NAME(Work) NAME(work)(const Depthwise *d, void *memory)
{
    NAME(Work) work = {.ring = memory};
    work.room = work.ring + d->source_size;
    work.place = (ptrdiff_t *)(work.room + d->out_size);
    return work;
}

static void NAME(depthwise)(const Depthwise *d, ptrdiff_t first_region, ptrdiff_t end_region, ptrdiff_t first,
                            ptrdiff_t end, void *memory)
{
    NAME(Work) work = NAME(work)(d, memory);
    for (ptrdiff_t region = first_region; region < end_region; region++) {
        NAME(Region) r = NAME(region)(d, region);
        if (!d->in_place)
            memset(memory, 0, d->source_size * sizeof(T));
        for (ptrdiff_t p = first; p < end; p++) {
            ptrdiff_t n = p / d->groups, g = p % d->groups;
            for (ptrdiff_t k = 0; k < d->channels; k++)
                if (d->in_place)
                    NAME(pixels_region)(d, n, g, r, memory, NULL);
                else if (d->by_channels)
                    NAME(channels_region)(d, &work, n, g, k, r);
                else
                    NAME(planes_region)(d, n, g, k, r, memory, work.room);
        }
    }
}

static void NAME(depthwise_sums)(const Depthwise *d, ptrdiff_t first_group, ptrdiff_t end_group, ptrdiff_t first,
                                 ptrdiff_t end, void *sums, ptrdiff_t sums_of_group, void *memory)
{
    NAME(Work) work = NAME(work)(d, memory);
    for (ptrdiff_t unit = first; unit < end; unit++) {
        ptrdiff_t n = unit % d->images;
        NAME(Region) r = NAME(region)(d, unit / d->images);
        if (!d->in_place && (unit == first || n == 0))
            memset(memory, 0, d->source_size * sizeof(T));
        for (ptrdiff_t g = first_group; g < end_group; g++) {
            T *to = (T *)sums + (g - first_group) * sums_of_group;
            if (d->in_place)
                NAME(pixels_region)(d, n, g, r, memory, to);
            else if (d->by_channels)
                NAME(channels_sums)(d, &work, n, g, r, to);
            else
                NAME(planes_sums)(d, n, g, r, memory, work.room, to);
        }
    }
}

#undef PLACE
#undef TAP
#undef KNOWN
#undef KNOWN_VIEW
#undef KNOWN_X
#undef ROWS
#undef SUM_ROWS
#undef MOST_TAPS
#undef AT_ONCE
#undef FEW_TAPS
