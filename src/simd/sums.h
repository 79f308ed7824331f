/* Sums over outputs, and sums of several matrices put where they belong; part of template.h. */

enum {
    NAME(BLOCK) = 16,  /* rows and columns: both arrays are read and written in whole cache lines */
    NAME(ABREAST) = 4, /* vectors are added at once: the sum of one waits for its last addition */
    NAME(STEPS) = 8,   /* so many times at most, for each sum in T: */
    NAME(RUN) = NAME(STEPS) * NAME(ABREAST) * LANES, /* cells of a plane, */
    NAME(PIXELS) = 8,                                /* or pixels, that are summed in T */
};

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

/* The vector in double, in as many parts as that takes. */
ALWAYS Wide NAME(part)(Vector v, ptrdiff_t part) { return WIDEN(((const Half *)&v)[part]); }

/* The sum of both halves of a vector of floats, or the vector of doubles. */
ALWAYS Half NAME(halves)(Vector v)
{
    Half sum = *(const Half *)&v;
    if (LANES > WIDE_LANES)
        sum += ((const Half *)&v)[1];
    return sum;
}

/* The sum of all lanes of v[i], for each i a lane: of two vectors the lanes that are `by` apart are added. */
#if defined(PLAIN_C)
ALWAYS Half NAME(totals)(Half *v) { return v[0]; }
#elif HAS_SHUFFLE
#define LANES_OF(...) __VA_ARGS__
#define FOLD(by, low, high)                                                                                           \
    for (int i = 0; i < by; i++)                                                                                      \
        v[i] = __builtin_shufflevector(v[i], v[i + by], LANES_OF low) +                                               \
               __builtin_shufflevector(v[i], v[i + by], LANES_OF high);
ALWAYS Half NAME(totals)(Half *v)
{
#if VECTOR_BYTES == 64
    FOLD(4, (0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15))
    FOLD(2, (0, 1, 8, 9, 4, 5, 12, 13), (2, 3, 10, 11, 6, 7, 14, 15))
    FOLD(1, (0, 8, 2, 10, 4, 12, 6, 14), (1, 9, 3, 11, 5, 13, 7, 15))
#elif VECTOR_BYTES == 32
    FOLD(2, (0, 1, 4, 5), (2, 3, 6, 7))
    FOLD(1, (0, 4, 2, 6), (1, 5, 3, 7))
#else
    FOLD(1, (0, 2), (1, 3))
#endif
    return v[0];
}
#undef LANES_OF
#undef FOLD
#else
ALWAYS Half NAME(totals)(Half *v)
{
    Half totals;
    for (int i = 0; i < WIDE_LANES; i++) {
        for (int half = WIDE_LANES / 2; half; half /= 2)
            for (int lane = 0; lane < half; lane++)
                v[i][lane] += v[i][lane + half];
        totals[i] = v[i][0];
    }
    return totals;
}
#endif

/* The vector with zeros in all but the last `count` lanes. */
ALWAYS Vector NAME(last)(Vector v, ptrdiff_t count)
{
#if !defined(PLAIN_C)
    Mask lanes;
    for (int lane = 0; lane < LANES; lane++)
        lanes[lane] = lane;
    v = (Vector)((Mask)v & (Mask)(lanes >= (INTEGER)(LANES - count)));
#endif
    return v;
}

/* The last `count` numbers in the last lanes of a vector; those before are in the first lanes, or zeros. */
ALWAYS Vector NAME(load_last)(const T *from, ptrdiff_t all, ptrdiff_t count)
{
    if (all >= LANES)
        return NAME(load)(from + all - LANES);
    T few[LANES] = {0};
    for (ptrdiff_t i = 0; i < count; i++)
        few[LANES - count + i] = from[all - count + i];
    return NAME(load)(few);
}

/* Sum of at most RUN neighbours, whose lanes are yet to be added. */
ALWAYS Half NAME(sum_of_run)(const T *from, ptrdiff_t count)
{
    Vector sum[NAME(ABREAST)] = {0};
    ptrdiff_t i = 0;
    for (; i + NAME(ABREAST) * LANES <= count; i += NAME(ABREAST) * LANES)
#pragma GCC unroll 4
        for (int v = 0; v < NAME(ABREAST); v++)
            sum[v] += NAME(load)(from + i + v * LANES);
#pragma GCC unroll 1
    for (; i + LANES <= count; i += LANES)
        sum[0] += NAME(load)(from + i);
    if (i < count)
        sum[1] += NAME(last)(NAME(load_last)(from, count, count - i), count - i);
    return NAME(halves)((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

/* Some outputs of one channel in one image, copied together. */
ALWAYS void NAME(collect)(const Places *p, const T *image, ptrdiff_t q, ptrdiff_t count, T *to)
{
    for (ptrdiff_t o = 0; o < count; o++, q++)
        to[o] = image[q / p->columns * p->row + q % p->columns * p->cell];
}

/* The channels of planes, cells q to q + count - 1 of an image; the lanes of some channels are added at once. */
ALWAYS void NAME(sums_of_planes)(const Places *p, const T *image, ptrdiff_t q, ptrdiff_t count, ptrdiff_t C,
                                 double *sums)
{
    T copy[NAME(RUN)];
    const int together = p->cell == 1 && p->rows == 1;
    for (ptrdiff_t c = 0; c < C; c += WIDE_LANES)
        for (ptrdiff_t o = 0; o < count; o += NAME(RUN)) {
            const ptrdiff_t run = NAME(clip)(count - o, NAME(RUN)), channels = NAME(clip)(C - c, WIDE_LANES);
            Half lanes[WIDE_LANES] = {0};
            for (ptrdiff_t i = 0; i < channels; i++) {
                const T *channel = image + (c + i) * p->channel;
                if (!together)
                    NAME(collect)(p, channel, q + o, run, copy);
                lanes[i] = NAME(sum_of_run)(together ? channel + q + o : copy, run);
            }
            const Wide totals = WIDEN(NAME(totals)(lanes));
            for (ptrdiff_t i = 0; i < channels; i++)
                sums[c + i] += ((const double *)&totals)[i];
        }
}

/* The channels of so many pixels, which begin there. */
ALWAYS void NAME(sums_of_pixels)(const T **pixel, const ptrdiff_t count, ptrdiff_t step, ptrdiff_t C, double *sums)
{
    ptrdiff_t c = 0;
    for (; step == 1 && c + LANES <= C; c += LANES) {
        Vector sum = NAME(load)(pixel[0] + c);
        for (ptrdiff_t q = 1; q < count; q++)
            sum += NAME(load)(pixel[q] + c);
        for (ptrdiff_t part = 0; part < LANES / WIDE_LANES; part++)
            *(Wide *)(sums + c + part * WIDE_LANES) += NAME(part)(sum, part);
    }
    for (; c < C; c++) {
        T sum = pixel[0][c * step];
        for (ptrdiff_t q = 1; q < count; q++)
            sum += pixel[q][c * step];
        sums[c] += sum;
    }
}

/* The sum of one channel where its parts may lie beyond the range of T. */
static double NAME(sum_in_double)(const Places *p, const T *y, ptrdiff_t q, ptrdiff_t end)
{
    const ptrdiff_t size = p->rows * p->columns;
    double sum = 0;
    for (; q < end; q++)
        sum += y[q / size * p->image + q % size / p->columns * p->row + q % p->columns * p->cell];
    return sum;
}

/* A few numbers are added up in T, then in double; all of a channel's in double where such a sum is not finite. The
   order of a sum depends on the numbers of outputs only, not on where they are.

     planes    for image, for c in channels
                 for run of its cells                               a vector at a time; what is scattered is copied first
     pixels    for image, for some of its pixels
                 for vector of channels, for q in pixels                                                             */
static void NAME(channel_sums)(const Places *p, int by_pixels, const void *y, ptrdiff_t q0, ptrdiff_t count,
                               ptrdiff_t C, double *sums)
{
    const T *pixel[NAME(PIXELS)];
    Places at = *p;
    const ptrdiff_t size = p->rows * p->columns, end = q0 + count;
    if (p->rows == 1 || p->row == p->columns * p->cell)
        at.rows = 1, at.columns = size;
    for (ptrdiff_t run; q0 < end; q0 += run) {
        const ptrdiff_t q = q0 % size;
        const T *image = (const T *)y + q0 / size * p->image;
        run = NAME(least)(size - q, end - q0);
        if (!by_pixels) {
            NAME(sums_of_planes)(&at, image, q, run, C, sums);
            continue;
        }
        run = NAME(least)(run, NAME(PIXELS));
        for (ptrdiff_t i = 0; i < run; i++)
            pixel[i] = image + (q + i) / at.columns * at.row + (q + i) % at.columns * at.cell;
        if (run == NAME(PIXELS))
            NAME(sums_of_pixels)(pixel, NAME(PIXELS), at.channel, C, sums);
        else
            NAME(sums_of_pixels)(pixel, run, at.channel, C, sums);
    }
    for (ptrdiff_t c = 0; c < C; c++)
        if (sums[c] - sums[c] != 0)
            sums[c] = NAME(sum_in_double)(p, (const T *)y + c * p->channel, end - count, end);
}
