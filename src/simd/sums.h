/* Sums over outputs, and sums of several matrices put where they belong; part of template.h. */

enum { NAME(BLOCK) = 16 }; /* rows and columns: both arrays are read and written in whole cache lines */

/* for m, n in blocks of 16 x 16
     for t in taps
       for s in slices                                              in this order, whoever does it                   */
static void NAME(add_sums)(const void *sums, ptrdiff_t slices, ptrdiff_t slice, ptrdiff_t m0, ptrdiff_t m1,
                           ptrdiff_t M, ptrdiff_t N, ptrdiff_t taps, void *to, ptrdiff_t m_step, ptrdiff_t n_step,
                           ptrdiff_t t_step)
{
    const int lines_along_m = m_step < n_step;
    for (; m0 < m1; m0 += NAME(BLOCK))
        for (ptrdiff_t n = 0; n < N; n += NAME(BLOCK))
            for (ptrdiff_t t = 0; t < taps; t++) {
                const T *from = (const T *)sums + (t * M + m0) * N + n;
                T block[NAME(BLOCK)][NAME(BLOCK)], *numbers = (T *)to + m0 * m_step + n * n_step + t * t_step;
                const ptrdiff_t rows = NAME(clip)(m1 - m0, NAME(BLOCK)), columns = NAME(clip)(N - n, NAME(BLOCK));
                for (ptrdiff_t i = 0; i < rows; i++)
                    for (ptrdiff_t j = 0; j < columns; j++) {
                        block[i][j] = from[i * N + j];
                        for (ptrdiff_t s = 1; s < slices; s++)
                            block[i][j] += from[s * slice + i * N + j];
                    }
                if (lines_along_m)
                    for (ptrdiff_t j = 0; j < columns; j++)
                        for (ptrdiff_t i = 0; i < rows; i++)
                            numbers[i * m_step + j * n_step] += block[i][j];
                else
                    for (ptrdiff_t i = 0; i < rows; i++)
                        for (ptrdiff_t j = 0; j < columns; j++)
                            numbers[i * m_step + j * n_step] += block[i][j];
            }
}

#define Wide NAME(Wide)
#define Half NAME(Half)
#if defined(PLAIN_C)
#define WIDE_LANES 1
typedef double Wide;
typedef T Half;
#define WIDEN(half) ((double)(half))
#else
#define WIDE_LANES ((ptrdiff_t)(VECTOR_BYTES / sizeof(double)))
typedef double Wide __attribute__((vector_size(VECTOR_BYTES)));
typedef T Half __attribute__((vector_size(VECTOR_BYTES / sizeof(double) * sizeof(T)), aligned(sizeof(T)), may_alias));
#define WIDEN(half) __builtin_convertvector(half, Wide)
#endif

/* Sum of neighbours, in double: four vectors of sums, then one, then what is left. */
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
    Wide all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    double total = 0;
    for (int lane = 0; lane < WIDE_LANES; lane++)
        total += ((const double *)&all)[lane];
    for (; i < count; i++)
        total += from[i];
    return total;
}

/* for part of the outputs that is in one row, or image: for c in channels, for cells; the inner loop is over neighbours */
static void NAME(channel_sums)(const Places *p, const void *y, ptrdiff_t q0, ptrdiff_t count, ptrdiff_t C, double *sums)
{
    const ptrdiff_t columns = p->row == p->columns * p->cell ? p->rows * p->columns : p->columns;
    const ptrdiff_t rows = p->rows * p->columns / columns;
    ptrdiff_t image = q0 / (rows * columns), i = q0 / columns % rows, j = q0 % columns;
    while (count > 0) {
        const ptrdiff_t run = columns - j < count ? columns - j : count;
        const T *from = (const T *)y + image * p->image + i * p->row + j * p->cell;
        if (p->cell == 1)
            for (ptrdiff_t c = 0; c < C; c++)
                sums[c] += NAME(sum)(from + c * p->channel, run);
        else
            for (ptrdiff_t o = 0; o < run; o++)
                if (p->channel == 1)
                    for (ptrdiff_t c = 0; c < C; c++)
                        sums[c] += from[o * p->cell + c];
                else
                    for (ptrdiff_t c = 0; c < C; c++)
                        sums[c] += from[o * p->cell + c * p->channel];
        count -= run, j = 0;
        if (++i == rows)
            i = 0, image++;
    }
}

#undef Wide
#undef Half
#undef WIDE_LANES
#undef WIDEN
