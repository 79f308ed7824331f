/* Image rows with the padding around them, and columns of the matrix copied from there; part of template.h.

   The cells that windows see at stride s are those of s*s smaller images, its phases, each seen at stride 1. Here the
   rows that a run of outputs needs are copied phase by phase, with zeros where the padding is. After that every tap is
   one step away from where the window begins, whatever the stride, the dilation and the padding, and so a column of the
   matrix is a plain copy. Pixels, which are not gathered in vectors, can also be copied as they are, as if they were
   one phase that outputs see at steps. Any problem. */

ALWAYS ptrdiff_t NAME(clip)(ptrdiff_t value, ptrdiff_t most) { return value < 0 ? 0 : value > most ? most : value; }

ALWAYS ptrdiff_t NAME(ceiling)(ptrdiff_t a, ptrdiff_t b) { return a > 0 ? (a - 1) / b + 1 : -(-a / b); }

ALWAYS void NAME(zero)(T *to, ptrdiff_t count)
{
    for (ptrdiff_t i = 0; i < count; i++)
        to[i] = 0;
}

/* One row of one phase in one channel (planes), or in all channels of each cell (pixels); `first` to `end` are inside. */
ALWAYS void NAME(pad_row)(const int pixels, const T *restrict from, ptrdiff_t step, ptrdiff_t channel,
                          ptrdiff_t channels, ptrdiff_t first, ptrdiff_t end, ptrdiff_t width, T *restrict to)
{
    const ptrdiff_t size = pixels ? channels : 1, inside = end - first;
    NAME(zero)(to, first * size);
    to += first * size;
    if (!pixels)
        NAME(copy_steps)(to, from, step, inside);
    else if (channel == 1 && step == channels)
        NAME(copy)(to, from, inside * channels);
    else if (step == 1)
        NAME(transpose)(from, channel, channels, inside, to, channels);
    else
        for (ptrdiff_t j = 0; j < inside; j++)
            NAME(copy_steps)(to + j * channels, from + j * step, channel, channels);
    NAME(zero)(to + inside * size, (width - end) * size);
}

/* for image of the run
     for phase                                                      a smaller image
       for row that a window of the run sees                        zeros, cells, zeros; or zeros alone
         for c in channels                                          a row of planes, turned if they lie side by side;
                                                                    of pixels, the channels of a cell side by side   */
ALWAYS void NAME(pad)(const int pixels, const Padded *g, const Run *run, const T *x, ptrdiff_t channels, T *to,
                      ptrdiff_t channel_step)
{
    const ptrdiff_t size = pixels ? channels : 1, width = (run->columns - 1) * g->step_w + 1 + g->span_w;
    const int turned = !pixels && g->channel == 1 && channels > 1;
    const ptrdiff_t end_row = run->row + (run->column - run->first + run->count - 1) / run->columns + 1;
    for (ptrdiff_t n = 0, i0 = run->row, slot = 0; n * g->rows < end_row; n++, i0 = 0) {
        const ptrdiff_t i1 = end_row - n * g->rows < g->rows ? end_row - n * g->rows : g->rows;
        const ptrdiff_t first_row = i0 * g->step_h, rows = (i1 - i0 - 1) * g->step_h + 1 + g->span_h;
        for (ptrdiff_t p = 0; p < g->phases; p++) {
            const ptrdiff_t w0 = (run->first * g->step_w + g->low_w) * g->stride_w + g->phase_w[p];
            const ptrdiff_t first = NAME(clip)(NAME(ceiling)(-w0, g->stride_w), width);
            const ptrdiff_t end = NAME(clip)(NAME(ceiling)(g->W - w0, g->stride_w), width);
            for (ptrdiff_t i = 0; i < rows; i++) {
                const ptrdiff_t h = (first_row + i + g->low_h) * g->stride_h + g->phase_h[p];
                const int inside = h >= 0 && h < g->H && first < end;
                const T *from = x + (run->image + n) * g->image + h * g->row + (w0 + first * g->stride_w) * g->cell;
                T *row = to + (p * g->plane + (slot + i) * g->width) * size;
                if (turned && inside) {
                    for (ptrdiff_t c = 0; c < channels; c++) {
                        NAME(zero)(row + c * channel_step, first);
                        NAME(zero)(row + c * channel_step + end, width - end);
                    }
                    NAME(transpose)(from, g->stride_w * g->cell, end - first, channels, row + first, channel_step);
                    continue;
                }
                for (ptrdiff_t c = 0; c < (pixels ? 1 : channels); c++)
                    if (inside)
                        NAME(pad_row)(pixels, from + c * g->channel, g->stride_w * g->cell, g->channel, channels,
                                      first, end, width, row + c * channel_step);
                    else
                        NAME(zero)(row + c * channel_step, width * size);
            }
        }
        slot += rows;
    }
}

static void NAME(pad_planes)(const Padded *g, const Run *run, const void *x, ptrdiff_t channels, void *planes,
                             ptrdiff_t channel_step)
{
    NAME(pad)(0, g, run, x, channels, planes, channel_step);
}

static void NAME(pad_pixels)(const Padded *g, const Run *run, const void *x, ptrdiff_t channels, void *cells)
{
    NAME(pad)(1, g, run, x, channels, cells, 0);
}

/* Columns of some outputs, one row of numbers for each tap of each channel.

     for c in channels
       for t in taps
         for part of the outputs that is in one row                 whole vectors; the next part, or the next row,
           for v in vectors of the part                             overwrites what the last of them has too much

   The parts are found once. Up to a vector is read past the planes, and written past the columns. */
static void NAME(columns)(const Padded *g, const Run *run, ptrdiff_t q, ptrdiff_t count, const void *planes,
                          ptrdiff_t channel_step, ptrdiff_t channels, ptrdiff_t t0, ptrdiff_t t1, void *columns,
                          ptrdiff_t row)
{
    ptrdiff_t from[2 * MOST_OUTPUTS], to[2 * MOST_OUTPUTS];
    int copies = 0;
    q += run->column - run->first;
    ptrdiff_t i = q / run->columns, j = q % run->columns;
    for (ptrdiff_t done = 0; done < count; i++, j = 0) {
        ptrdiff_t length = run->columns - j < count - done ? run->columns - j : count - done;
        ptrdiff_t slot = i + (run->row + i) / g->rows * g->span_h;
        for (ptrdiff_t o = 0; o < length; o += LANES, copies++)
            from[copies] = slot * g->width + j + o, to[copies] = done + o;
        done += length;
    }
    T *column = columns;
    for (ptrdiff_t c = 0; c < channels; c++)
        for (ptrdiff_t t = t0; t < t1; t++, column += row) {
            const T *cells = (const T *)planes + c * channel_step + g->offset[t];
            for (int k = 0; k < copies; k++)
                NAME(store)(column + to[k], NAME(load)(cells + from[k]));
        }
}
