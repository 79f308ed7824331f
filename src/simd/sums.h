/* Sums over outputs, and sums of several matrices put where they belong; part of template.h. */

enum { NAME(BLOCK) = 16 }; /* rows and columns: both arrays are read and written in whole cache lines */

/* for m, n in blocks of 16 x 16; or of 1 x 256 where lines of both arrays run along n
     for t in taps
       for s in slices                                              in this order, whoever does it                   */
static void NAME(add_sums)(const void *sums, ptrdiff_t slices, ptrdiff_t slice, ptrdiff_t tap, ptrdiff_t row,
                           ptrdiff_t m0, ptrdiff_t m1, ptrdiff_t N, ptrdiff_t taps, void *to, ptrdiff_t m_step,
                           ptrdiff_t n_step, ptrdiff_t t_step)
{
    const int lines_along_m = m_step < n_step;
    const ptrdiff_t height = lines_along_m ? NAME(BLOCK) : 1, width = NAME(BLOCK) * NAME(BLOCK) / height;
    for (; m0 < m1; m0 += height)
        for (ptrdiff_t n = 0; n < N; n += width)
            for (ptrdiff_t t = 0; t < taps; t++) {
                const T *from = (const T *)sums + t * tap + m0 * row + n;
                T block[NAME(BLOCK) * NAME(BLOCK)], *numbers = (T *)to + m0 * m_step + n * n_step + t * t_step;
                const ptrdiff_t rows = NAME(clip)(m1 - m0, height), columns = NAME(clip)(N - n, width);
                for (ptrdiff_t i = 0; i < rows; i++) {
                    NAME(copy)(block + i * width, from + i * row, columns);
                    for (ptrdiff_t s = 1; s < slices; s++)
                        NAME(add)(block + i * width, from + s * slice + i * row, columns);
                }
                if (lines_along_m)
                    for (ptrdiff_t j = 0; j < columns; j++)
                        for (ptrdiff_t i = 0; i < rows; i++)
                            numbers[i * m_step + j * n_step] += block[i * width + j];
                else
                    for (ptrdiff_t i = 0; i < rows; i++)
                        for (ptrdiff_t j = 0; j < columns; j++)
                            numbers[i * m_step + j * n_step] += block[i * width + j];
            }
}

/* Sum of neighbours, in double: four vectors of sums, then one, whose halves are added as long as it has any, then what
   is left. */
ALWAYS double NAME(sum)(const T *from, ptrdiff_t count)
{
    Wide sums[4] = {0};
    ptrdiff_t i = 0;
    for (; i + 4 * WIDE_LANES <= count; i += 4 * WIDE_LANES)
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++)
            sums[v] += WIDEN(*(const Half *)(from + i + v * WIDE_LANES));
    for (; i + WIDE_LANES <= count; i += WIDE_LANES)
        sums[0] += WIDEN(*(const Half *)(from + i));
    double lanes[WIDE_LANES];
    *(Wide *)lanes = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    for (int half = WIDE_LANES / 2; half > 0; half /= 2)
        for (int lane = 0; lane < half; lane++)
            lanes[lane] += lanes[lane + half];
    for (; i < count; i++)
        lanes[0] += from[i];
    return lanes[0];
}

/* Some outputs of one channel in one image, copied together. */
ALWAYS void NAME(collect)(const Places *p, const T *image, ptrdiff_t q, ptrdiff_t count, T *to)
{
    for (ptrdiff_t o = 0; o < count; o++, q++)
        to[o] = image[q / p->columns * p->row + q % p->columns * p->cell];
}

/* The order of a sum depends on the numbers of outputs only, not on where they are.

     planes    for run in one image, for c in channels
                 for part of the run                               a vector at a time; what is scattered is copied first
     pixels    for part of a row, for q in outputs                  one after the other
                 for c in channels                                                                                   */
static void NAME(channel_sums)(const Places *p, int by_pixels, const void *y, ptrdiff_t q0, ptrdiff_t count,
                               ptrdiff_t C, double *sums)
{
    T copy[32 * NAME(BLOCK)];
    const ptrdiff_t whole = by_pixels ? p->columns : p->rows * p->columns, most = 32 * NAME(BLOCK);
    const int together = p->cell == 1 && (p->row == p->columns || p->rows == 1);
    for (const ptrdiff_t end = q0 + count; q0 < end;) {
        const ptrdiff_t run = NAME(clip)(whole - q0 % whole, end - q0);
        const ptrdiff_t q = q0 % (p->rows * p->columns);
        const T *image = (const T *)y + q0 / (p->rows * p->columns) * p->image;
        const T *first = image + q / p->columns * p->row + q % p->columns * p->cell;
        if (by_pixels)
            for (ptrdiff_t o = 0; o < run; o++, first += p->cell)
                if (p->channel == 1)
                    for (ptrdiff_t c = 0; c < C; c++)
                        sums[c] += first[c];
                else
                    for (ptrdiff_t c = 0; c < C; c++)
                        sums[c] += first[c * p->channel];
        else
            for (ptrdiff_t c = 0; c < C; c++)
                for (ptrdiff_t o = 0; o < run; o += most) {
                    const ptrdiff_t part = NAME(clip)(run - o, most);
                    if (!together)
                        NAME(collect)(p, image + c * p->channel, q + o, part, copy);
                    sums[c] += NAME(sum)(together ? first + c * p->channel + o : copy, part);
                }
        q0 += run;
    }
}
