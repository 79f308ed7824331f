/* Depthwise convolution: a filter sees one channel, so there is no product of matrices, and what counts is how fast
   images are read and written; part of template.h.

   "Planes" has vectors along the rows of one plane, which is copied between zeros into a scratch; "pixels" has vectors
   of channels that lie side by side, read where they are. Both add up the taps in the same order, so their results
   have the same bits. Any kernel, stride and dilation; usual kernels are compiled with their sizes. */

#define ROWS 7 /* outputs of a column in registers: most networks' images have a multiple of 7 rows */
#define SUM_ROWS 4 /* rows of dy in registers beside the sums */
#define MOST_TAPS 25 /* of the kernels that are compiled with their sizes */
#define PIXELS 4 /* outputs of a row in registers, which share each vector of weights */

ALWAYS ptrdiff_t NAME(up_to)(ptrdiff_t count, ptrdiff_t step) { return (count + step - 1) / step * step; }

#if defined(PLAIN_C)
ALWAYS Vector NAME(lanes)(Vector v, ptrdiff_t from, ptrdiff_t end) { return v; }
#else
/* Lanes from .. end - 1 of v, and 0 in the others. */
ALWAYS Vector NAME(lanes)(Vector v, ptrdiff_t from, ptrdiff_t end)
{
    Mask lane;
    for (int i = 0; i < LANES; i++)
        lane[i] = i;
    return (Vector)((Mask)v & (lane >= (Mask){0} + (INTEGER)from) & (lane < (Mask){0} + (INTEGER)end));
}
#endif

/* -------------------------------------------------------------------------------------------------------- planes */

/* A strip of the scratch. A vector may write zeros beyond it, where only zeros are, or what is written next. */
ALWAYS void NAME(copy_strip)(T *to, const T *from, ptrdiff_t step, ptrdiff_t count, const T *end)
{
    ptrdiff_t i = 0;
    if (step == 1 && end - from >= NAME(up_to)(count, LANES)) {
        for (; i + LANES <= count; i += LANES)
            NAME(store)(to + i, NAME(load)(from + i));
        if (i < count)
            NAME(store)(to + i, NAME(lanes)(NAME(load)(from + i), 0, count - i));
    } else if (count > 0)
        NAME(copy_steps)(to, from, step, count);
}

/* Rows of x that `rows` outputs from `row` on see. */
static void NAME(copy_band)(const Depthwise *d, const T *plane, ptrdiff_t row, ptrdiff_t rows, T *scratch)
{
    ptrdiff_t top = row * d->stride_h + d->top, last = top + d->source_rows - (d->band - rows) * d->stride_h;
    for (ptrdiff_t h = top < 0 ? 0 : top; h < last && h < d->x.rows; h++)
        for (ptrdiff_t s = 0; s < d->strips; s++)
            NAME(copy_strip)(scratch + ((h - top) * d->strips + s) * d->width + d->to[s],
                             plane + h * d->x.row + d->source[s] * d->x.cell, d->stride_w * d->x.cell, d->count[s],
                             d->x_end);
}

/* Rows of the scratch, and the strips in them. */
typedef struct {
    ptrdiff_t pitch, width;
} NAME(Rows);

/* Where output 0 sees its cell through tap kw: given, or known to the compiler where the kernel has its size from it. */

#define AT(kw) (column ? column[kw] : (kw) % stride * x_rows.width + (kw) / stride)

/* Outputs of R rows and a vector of columns:

     for kh, kw in taps
       for r in rows                                            cells shared by several taps are loaded once         */
ALWAYS void NAME(plane_tile)(const int R, ptrdiff_t KH, ptrdiff_t KW, ptrdiff_t stride, ptrdiff_t dilation, const T *x,
                             NAME(Rows) x_rows, const ptrdiff_t *column, const T *w, const T *bias, int relu, T *y,
                             ptrdiff_t y_row, const T *y_end)
{
    Vector acc[ROWS];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
        acc[r] = bias ? NAME(spread)(*bias + 0) : NAME(load)(y + r * y_row);
#pragma GCC unroll 8
    for (ptrdiff_t kh = 0; kh < KH; kh++)
#pragma GCC unroll 8
        for (ptrdiff_t kw = 0; kw < KW; kw++) {
            Vector weight = NAME(spread)(w[kh * KW + kw]);
#pragma GCC unroll 8
            for (int r = 0; r < R; r++)
                acc[r] += weight * NAME(load)(x + (r * stride + kh * dilation) * x_rows.pitch + AT(kw));
        }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
        T *to = y + r * y_row;
        Vector v = relu ? NAME(relu)(acc[r]) : acc[r];
        if (y_end - to >= LANES)
            NAME(store)(to, v);
        else { /* a short row, after which the next begins: the last of them may not write beyond the band */
            T buffer[LANES];
            NAME(store)(buffer, v);
            NAME(copy)(to, buffer, y_end - to);
        }
    }
}

/* All outputs of a band, from top to bottom: a short row may write into the next one before that is computed. Where a
   tile would not fit it begins earlier and computes some outputs again. */
ALWAYS void NAME(plane_band)(ptrdiff_t KH, ptrdiff_t KW, ptrdiff_t stride, ptrdiff_t dilation, const T *x,
                             NAME(Rows) x_rows, const ptrdiff_t *column, const T *w, const T *bias, int relu, T *y,
                             ptrdiff_t y_row, ptrdiff_t rows, ptrdiff_t columns, const T *y_end)
{
    for (ptrdiff_t i = 0, step; i < rows; i += step) {
        step = rows - i >= ROWS || (rows >= ROWS && bias) ? ROWS : 1;
        ptrdiff_t r = i + step <= rows ? i : rows - step;
        const T *row = x + r * stride * x_rows.pitch;
        for (ptrdiff_t j = 0; j < columns; j += LANES) {
            ptrdiff_t q = j + LANES <= columns || columns < LANES ? j : columns - LANES;
            if (step == ROWS)
                NAME(plane_tile)(ROWS, KH, KW, stride, dilation, row + q, x_rows, column, w, bias, relu,
                                 y + r * y_row + q, y_row, y_end);
            else
                NAME(plane_tile)(1, KH, KW, stride, dilation, row + q, x_rows, column, w, bias, relu,
                                 y + r * y_row + q, y_row, y_end);
        }
    }
}

static void NAME(plane_taps)(const Depthwise *d, const Taps *t, const T *x, const T *w, const T *bias, int relu, T *y,
                             ptrdiff_t y_row, ptrdiff_t rows, ptrdiff_t columns, const T *y_end)
{
    ptrdiff_t stride = d->stride_h, dilation = t->dilation_h;
    NAME(Rows) x_rows = {d->strips * d->width, d->width};
    x += (t->top - d->top) * x_rows.pitch;
    int plain = bias && t->KH == t->KW && dilation == 1 && t->dilation_w == 1 && stride == d->stride_w;
#define KERNEL(K, S)                                                                                                  \
    if (plain && t->KW == K && stride == S)                                                                           \
        NAME(plane_band)(K, K, S, 1, x + t->column[0], x_rows, NULL, w, bias, relu, y, y_row, rows, columns, y_end);  \
    else
    KERNEL(3, 1)
    KERNEL(3, 2)
    KERNEL(5, 1)
    KERNEL(5, 2)
#undef KERNEL
    NAME(plane_band)(t->KH, t->KW, stride, dilation, x, x_rows, t->column, w, bias, relu, y, y_row, rows, columns, y_end);
}

/* From the outputs of all phases to y. */
static void NAME(merge_phases)(const Depthwise *d, const T *out, T *y, ptrdiff_t row, ptrdiff_t rows)
{
    ptrdiff_t step = d->phases_w * d->y.cell, size = d->band * d->out_width;
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t i = 0; i < d->phases_h; i++) {
            const Taps *t = d->taps + i * d->phases_w;
            if (row + r >= t->rows)
                continue;
            const T *from = out + i * d->phases_w * size + r * d->out_width;
            T *to = y + ((row + r) * d->phases_h + i) * d->y.row;
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

/* for band, for plane of x: its rows between zeros
     for plane of y that sees it, for phase: outputs, in y or in the scratch                                          */
static void NAME(depthwise_planes)(const Depthwise *d, ptrdiff_t band0, ptrdiff_t band1, ptrdiff_t plane0,
                                   ptrdiff_t plane1, void *memory)
{
    const Taps *first = d->taps;
    ptrdiff_t source = d->source_rows * d->strips * d->width, phases = d->phases_h * d->phases_w;
    T *scratch = memory, *out = scratch + source + LANES;
    int direct = phases == 1 && d->channels == 1 && d->y.cell == 1 &&
                 (first->columns >= LANES || d->y.row == first->columns);
    for (ptrdiff_t band = band0; band < band1; band++) {
        ptrdiff_t row = band * d->band, rows = first->rows - row < d->band ? first->rows - row : d->band;
        memset(scratch, 0, (source + LANES) * sizeof(T));
        for (ptrdiff_t p = plane0; p < plane1; p++)
            for (ptrdiff_t k = 0; k < d->channels; k++) {
                ptrdiff_t n = p / d->groups, g = p % d->groups;
                NAME(copy_band)(d, (const T *)d->x_data + n * d->x.image + (g * d->channels + k) * d->x.channel, row,
                                rows, scratch);
                for (ptrdiff_t o = 0; o < d->filters; o++) {
                    T *y = (T *)d->y_data + n * d->y.image + (g * d->filters + o) * d->y.channel;
                    const T *bias = k ? NULL : (const T *)d->bias + g * d->filters + o;
                    int relu = d->relu && k == d->channels - 1;
                    for (ptrdiff_t phase = 0; phase < phases; phase++) {
                        const Taps *t = first + phase;
                        const T *w = (const T *)d->weights + t->weights +
                                     (g * d->channels * d->filters + k + o) * t->KH * t->KW;
                        ptrdiff_t own = t->rows - row < rows ? t->rows - row : rows;
                        if (direct) {
                            T *to = y + row * d->y.row;
                            NAME(plane_taps)(d, t, scratch, w, bias, relu, to, d->y.row, own, t->columns,
                                             to + (own - 1) * d->y.row + t->columns);
                        } else {
                            T *to = out + phase * d->band * d->out_width;
                            NAME(plane_taps)(d, t, scratch, w, bias, relu, to, d->out_width, own,
                                             NAME(up_to)(t->columns, LANES), to + d->band * d->out_width);
                        }
                    }
                    if (!direct && k == d->channels - 1)
                        NAME(merge_phases)(d, out, y, row, rows);
                }
            }
    }
}

/* The weight gradient of R rows and a vector of columns: sums[tap] += dy * x, in registers. */
ALWAYS void NAME(row_sums)(const int R, const int KH, const int KW, ptrdiff_t stride, ptrdiff_t dilation, const T *x,
                           NAME(Rows) x_rows, const ptrdiff_t *column, const T *dy, ptrdiff_t dy_row, ptrdiff_t from,
                           ptrdiff_t end, Vector *sums)
{
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
        Vector v = NAME(lanes)(NAME(load)(dy + r * dy_row), from, end);
#pragma GCC unroll 8
        for (int kh = 0; kh < KH; kh++)
#pragma GCC unroll 8
            for (int kw = 0; kw < KW; kw++)
                sums[kh * KW + kw] += v * NAME(load)(x + (r * stride + kh * dilation) * x_rows.pitch + AT(kw));
    }
}

/* for rows of a band, SUM_ROWS at a time: their cells, shared by several taps, are loaded once */
ALWAYS void NAME(column_sums)(const int KH, const int KW, ptrdiff_t stride, ptrdiff_t dilation, const T *x,
                              NAME(Rows) x_rows, const ptrdiff_t *column, const T *dy, ptrdiff_t dy_row, ptrdiff_t rows,
                              ptrdiff_t from, ptrdiff_t end, T *to)
{
    Vector sums[MOST_TAPS];
#pragma GCC unroll 32
    for (int k = 0; k < KH * KW; k++)
        sums[k] = NAME(load)(to + k * LANES);
    ptrdiff_t i = 0;
    for (; i + SUM_ROWS <= rows; i += SUM_ROWS)
        NAME(row_sums)(SUM_ROWS, KH, KW, stride, dilation, x + i * stride * x_rows.pitch, x_rows, column, dy + i * dy_row,
                       dy_row, from, end, sums);
    for (; i < rows; i++)
        NAME(row_sums)(1, KH, KW, stride, dilation, x + i * stride * x_rows.pitch, x_rows, column, dy + i * dy_row, dy_row,
                       from, end, sums);
#pragma GCC unroll 32
    for (int k = 0; k < KH * KW; k++)
        NAME(store)(to + k * LANES, sums[k]);
}

static void NAME(plane_sums)(const Depthwise *d, const T *x, const T *dy, ptrdiff_t dy_row, ptrdiff_t rows, T *sums)
{
    const Taps *t = d->taps;
    ptrdiff_t stride = d->stride_h, dilation = t->dilation_h, columns = t->columns;
    int plain = t->KH == t->KW && dilation == 1 && t->dilation_w == 1 && stride == d->stride_w;
    NAME(Rows) x_rows = {d->strips * d->width, d->width};
    x += (t->top - d->top) * x_rows.pitch;
    for (ptrdiff_t j = 0; j < columns; j += LANES) {
        ptrdiff_t q = j + LANES <= columns || columns < LANES ? j : columns - LANES;
        ptrdiff_t from = j - q, end = columns < LANES ? columns : LANES; /* lanes of other vectors do not count again */
#define SUMS(kernel, S, D, cells, column, tap)                                                                        \
    NAME(column_sums)(kernel, kernel, S, D, (cells) + q, x_rows, column, dy + q, dy_row, rows, from, end,             \
                      sums + (tap) * LANES)
#define KERNEL(K, S)                                                                                                  \
    if (plain && t->KW == K && stride == S)                                                                           \
        SUMS(K, S, 1, x + t->column[0], NULL, 0);                                                                     \
    else
        KERNEL(3, 1)
        KERNEL(3, 2)
        KERNEL(5, 1)
        KERNEL(5, 2)
            for (ptrdiff_t tap = 0; tap < t->KH * t->KW; tap++)
                SUMS(1, stride, dilation, x + tap / t->KW * dilation * x_rows.pitch, t->column + tap % t->KW, tap);
#undef KERNEL
#undef SUMS
        T *total = sums + t->KH * t->KW * LANES;
        Vector v = NAME(load)(total);
        for (ptrdiff_t i = 0; i < rows; i++)
            v += NAME(lanes)(NAME(load)(dy + i * dy_row + q), from, end);
        NAME(store)(total, v);
    }
}

/* for band, for image: the rows of x between zeros
     for filter that sees it: its dy, where it is or in rows of the scratch                                           */
static void NAME(depthwise_planes_sums)(const Depthwise *d, ptrdiff_t g, ptrdiff_t first, ptrdiff_t end, void *to,
                                           void *memory)
{
    const Taps *t = d->taps;
    ptrdiff_t source = d->source_rows * d->strips * d->width, band = -1;
    T *scratch = memory, *rows_of_dy = scratch + source + LANES;
    for (ptrdiff_t unit = first; unit < end; unit++) {
        ptrdiff_t n = unit % d->images;
        if (unit / d->images != band) {
            band = unit / d->images;
            memset(scratch, 0, (source + LANES + d->band * d->out_width) * sizeof(T));
        }
        ptrdiff_t row = band * d->band, rows = t->rows - row < d->band ? t->rows - row : d->band;
        if (t->KH > 0)
            NAME(copy_band)(d, (const T *)d->x_data + n * d->x.image + g * d->x.channel, row, rows, scratch);
        for (ptrdiff_t o = 0; o < d->filters; o++) {
            const T *dy = (const T *)d->y_data + n * d->y.image + (g * d->filters + o) * d->y.channel + row * d->y.row;
            ptrdiff_t dy_row = d->y.row;
            if (d->y.cell != 1 || t->columns < LANES) {
                for (ptrdiff_t i = 0; i < rows; i++)
                    NAME(copy_steps)(rows_of_dy + i * d->out_width, dy + i * d->y.row, d->y.cell, t->columns);
                dy = rows_of_dy, dy_row = d->out_width;
            }
            NAME(plane_sums)(d, scratch, dy, dy_row, rows, (T *)to + o * (t->KH * t->KW + 1) * LANES);
        }
    }
}

/* -------------------------------------------------------------------------------------------------------- pixels */

/* P outputs of a row, all channels:

     for c in channels
       for kh, kw in taps                                       those inside the image; a vector of weights
         for p in pixels                                        cells shared by several taps are loaded once         */
ALWAYS void NAME(pixel_tile)(const int P, ptrdiff_t kh0, ptrdiff_t kh1, ptrdiff_t kw0, ptrdiff_t kw1, ptrdiff_t KW,
                             ptrdiff_t stride, ptrdiff_t dilation, ptrdiff_t dilated_row, ptrdiff_t cell, const T *x,
                             ptrdiff_t C, const T *w, const T *bias, int relu, T *y, ptrdiff_t y_cell)
{
    for (ptrdiff_t first = 0; first < C; first += LANES) {
        ptrdiff_t c = first + LANES <= C ? first : C - LANES;
        Vector acc[PIXELS];
#pragma GCC unroll 8
        for (int p = 0; p < P; p++)
            acc[p] = NAME(load)(bias + c) + 0;
        for (ptrdiff_t kh = kh0; kh < kh1; kh++) {
            const T *row = x + kh * dilated_row + c;
#pragma GCC unroll 8
            for (ptrdiff_t kw = kw0; kw < kw1; kw++) {
                Vector weight = NAME(load)(w + (kh * KW + kw) * C + c);
#pragma GCC unroll 8
                for (int p = 0; p < P; p++)
                    acc[p] += weight * NAME(load)(row + (p * stride + kw * dilation) * cell);
            }
        }
#pragma GCC unroll 8
        for (int p = 0; p < P; p++)
            NAME(store)(y + p * y_cell + c, relu ? NAME(relu)(acc[p]) : acc[p]);
    }
}

/* The weight gradient of P outputs: sums[tap] += dy * x. The last vector begins earlier, but its sums are apart. */
ALWAYS void NAME(pixel_sums)(const int P, ptrdiff_t kh0, ptrdiff_t kh1, ptrdiff_t kw0, ptrdiff_t kw1, ptrdiff_t KW,
                             ptrdiff_t stride, ptrdiff_t dilation, ptrdiff_t dilated_row, ptrdiff_t cell, const T *x,
                             ptrdiff_t C, const T *dy, ptrdiff_t dy_cell, T *sums, T *total)
{
    ptrdiff_t size = NAME(up_to)(C, LANES);
    for (ptrdiff_t first = 0; first < C; first += LANES) {
        ptrdiff_t c = first + LANES <= C ? first : C - LANES;
        Vector v[PIXELS], all = NAME(load)(total + first);
#pragma GCC unroll 8
        for (int p = 0; p < P; p++) {
            v[p] = NAME(load)(dy + p * dy_cell + c);
            all += v[p];
        }
        NAME(store)(total + first, all);
        for (ptrdiff_t kh = kh0; kh < kh1; kh++) {
            const T *row = x + kh * dilated_row + c;
#pragma GCC unroll 8
            for (ptrdiff_t kw = kw0; kw < kw1; kw++) {
                T *sum = sums + (kh * KW + kw) * size + first;
                Vector acc = NAME(load)(sum);
#pragma GCC unroll 8
                for (int p = 0; p < P; p++)
                    acc += v[p] * NAME(load)(row + (p * stride + kw * dilation) * cell);
                NAME(store)(sum, acc);
            }
        }
    }
}

/* Outputs begin .. end - 1 of a row, which all have the taps kh0 .. kh1 - 1, kw0 .. kw1 - 1: y, or what dy adds to sums. */
ALWAYS void NAME(pixel_run)(const int gradient, const Depthwise *d, const Taps *t, ptrdiff_t C, const T *x, T *y,
                            ptrdiff_t begin, ptrdiff_t end, ptrdiff_t kh0, ptrdiff_t kh1, ptrdiff_t kw0, ptrdiff_t kw1,
                            T *sums)
{
    ptrdiff_t row = t->dilation_h * d->x.row, step = d->stride_w * d->x.cell, y_cell = d->phases_w * d->y.cell;
    T *total = gradient ? sums + t->KH * t->KW * NAME(up_to)(C, LANES) : NULL;
    const T *weights = gradient ? NULL : (const T *)d->weights + t->weights;
    ptrdiff_t K = kw0 == 0 && kw1 == t->KW && t->dilation_w == 1 ? t->KW : 0, S = d->stride_w, j = begin;
#define TILE(P, from, until, kernel, S, D)                                                                            \
    (gradient ? NAME(pixel_sums)(P, kh0, kh1, from, until, kernel, S, D, row, d->x.cell, x + q * step, C,             \
                                 y + q * y_cell, y_cell, sums, total)                                                 \
              : NAME(pixel_tile)(P, kh0, kh1, from, until, kernel, S, D, row, d->x.cell, x + q * step, C, weights,   \
                                 d->bias, d->relu, y + q * y_cell, y_cell))
    if (end - begin >= PIXELS)
        for (; gradient ? j + PIXELS <= end : j < end; j += PIXELS) {
            ptrdiff_t q = j + PIXELS <= end ? j : end - PIXELS;
            if (K == 3 && S == 1)
                TILE(PIXELS, 0, 3, 3, 1, 1);
            else if (K == 3 && S == 2)
                TILE(PIXELS, 0, 3, 3, 2, 1);
            else if (K == 5 && S == 1)
                TILE(PIXELS, 0, 5, 5, 1, 1);
            else if (K == 5 && S == 2)
                TILE(PIXELS, 0, 5, 5, 2, 1);
            else
                TILE(PIXELS, kw0, kw1, t->KW, S, t->dilation_w);
        }
    for (; j < end; j++) {
        ptrdiff_t q = j;
        TILE(1, kw0, kw1, t->KW, S, t->dilation_w);
    }
#undef TILE
}

/* Taps first .. last - 1 of `taps` whose cells, from `start` on, are among `size`. */
ALWAYS ptrdiff_t NAME(first_tap)(ptrdiff_t start, ptrdiff_t dilation)
{
    return start >= 0 ? 0 : (-start - 1) / dilation + 1;
}

ALWAYS ptrdiff_t NAME(end_tap)(ptrdiff_t start, ptrdiff_t dilation, ptrdiff_t taps, ptrdiff_t size)
{
    ptrdiff_t end = start >= size ? 0 : (size - 1 - start) / dilation + 1;
    return end < taps ? end : taps;
}

/* Row i of a phase of an image, in runs of outputs that have the same taps. */
ALWAYS void NAME(pixel_row)(const int gradient, const Depthwise *d, ptrdiff_t phase, ptrdiff_t C, const T *x, T *y,
                            ptrdiff_t i, T *sums)
{
    const Taps *t = d->taps + phase;
    ptrdiff_t h = i * d->stride_h + t->top;
    ptrdiff_t kh0 = NAME(first_tap)(h, t->dilation_h), kh1 = NAME(end_tap)(h, t->dilation_h, t->KH, d->x.rows);
    x += h * d->x.row + t->left * d->x.cell;
    y += (i * d->phases_h + phase / d->phases_w) * d->y.row + phase % d->phases_w * d->y.cell;
    for (ptrdiff_t j = 0; j < t->columns;) {
        ptrdiff_t w = j * d->stride_w + t->left, end = j + 1;
        ptrdiff_t kw0 = NAME(first_tap)(w, t->dilation_w), kw1 = NAME(end_tap)(w, t->dilation_w, t->KW, d->x.columns);
        if (t->KW == 0)
            end = t->columns;
        else if (kw0 == 0 && kw1 == t->KW) { /* and so have all up to the right border */
            end += (d->x.columns - 1 - w - (t->KW - 1) * t->dilation_w) / d->stride_w;
            end = end < t->columns ? end : t->columns;
        }
        NAME(pixel_run)(gradient, d, t, C, x, y, j, end, kh0, kh1, kw0, kw1, sums);
        j = end;
    }
}

static void NAME(depthwise_pixels)(const Depthwise *d, ptrdiff_t image, ptrdiff_t first, ptrdiff_t end)
{
    const T *x = (const T *)d->x_data + image * d->x.image;
    T *y = (T *)d->y_data + image * d->y.image;
    for (ptrdiff_t i = first; i < end; i++)
        for (ptrdiff_t phase = 0; phase < d->phases_h * d->phases_w; phase++)
            if (i < d->taps[phase].rows)
                NAME(pixel_row)(0, d, phase, d->groups, x, y, i, NULL);
}

static void NAME(depthwise_pixels_sums)(const Depthwise *d, ptrdiff_t c, ptrdiff_t C, ptrdiff_t first, ptrdiff_t end,
                                        void *sums)
{
    for (ptrdiff_t unit = first; unit < end; unit++) {
        ptrdiff_t image = unit / d->taps->rows, i = unit % d->taps->rows;
        NAME(pixel_row)(1, d, 0, C, (const T *)d->x_data + image * d->x.image + c,
                        (T *)d->y_data + image * d->y.image + c, i, sums);
    }
}

#undef AT
#undef ROWS
#undef SUM_ROWS
#undef PIXELS
#undef MOST_TAPS
