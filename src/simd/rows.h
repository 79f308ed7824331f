/* Rows of the matrix of windows: for each output the cells that it sees, tap by tap, with the channels of a cell side
   by side; part of template.h. For taps that are neighbours in a row. */

/* to[j * C + c] = from[c * row + j] for two or three rows of J numbers, four or more. Three numbers or four are written
   for each j: the next overwrites what is too much, and up to two are written past the end. */
ALWAYS void NAME(interleave)(const T *from, ptrdiff_t row, ptrdiff_t C, ptrdiff_t J, T *to)
{
    const T *second = from + row, *third = from + (C - 1) * row;
#if !defined(PLAIN_C) && HAS_SHUFFLE
    typedef NAME(Four) Four;
    for (ptrdiff_t j0 = 0; j0 < J; j0 += 4) {
        const ptrdiff_t j = NAME(least)(j0, J - 4);
        const Four a = *(const Four *)(from + j), b = *(const Four *)(second + j), c = *(const Four *)(third + j);
        const Four low = __builtin_shufflevector(a, b, 0, 4, 1, 5), high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
        *(Four *)(to + j * C) = __builtin_shufflevector(low, c, 0, 1, 4, 4);
        *(Four *)(to + (j + 1) * C) = __builtin_shufflevector(low, c, 2, 3, 5, 5);
        *(Four *)(to + (j + 2) * C) = __builtin_shufflevector(high, c, 0, 1, 6, 6);
        *(Four *)(to + (j + 3) * C) = __builtin_shufflevector(high, c, 2, 3, 7, 7);
    }
#else
    for (ptrdiff_t j = 0; j < J; j++)
        to[j * C] = from[j], to[j * C + 1] = second[j], to[j * C + 2] = third[j];
#endif
}

/* Cells w0 to w0 + width - 1 of a row of the image, with zeros where the padding is. */
ALWAYS void NAME(fill_line)(const Unfolding *g, const T *row, ptrdiff_t w0, ptrdiff_t width, T *restrict line)
{
    const ptrdiff_t C = g->channels, first = NAME(clip)(-w0, width), end = NAME(clip)(g->W - w0, width);
    if (end <= first) {
        NAME(zero)(line, width * C);
        return;
    }
    NAME(zero)(line, first * C);
    if (C == 1 && g->cell == 1)
        NAME(copy)(line + first, row + w0 + first, end - first);
    else if (C < 4 && g->cell == 1 && end - first >= 4)
        NAME(interleave)(row + w0 + first, g->channel, C, end - first, line + first * C);
    else if (g->channel == 1)
        for (ptrdiff_t w = first; w < end; w++)
            NAME(copy)(line + w * C, row + (w0 + w) * g->cell, C);
    else
        for (ptrdiff_t c = 0; c < C; c++)
            for (ptrdiff_t w = first; w < end; w++)
                line[w * C + c] = row[c * g->channel + (w0 + w) * g->cell];
    NAME(zero)(line + end * C, (width - end) * C);
}

/* As many numbers as there are, and up to a vector more. (They do not overlap: `restrict` would say so, and make a call
   of the C library of what is a vector or two.) */
ALWAYS void NAME(copy_over)(T *to, const T *from, ptrdiff_t count)
{
    const ptrdiff_t vectors = count / LANES, rest = count % LANES;
    for (ptrdiff_t v = 0; v < vectors; v++)
        NAME(store)(to + v * LANES, NAME(load)(from + v * LANES));
    to += vectors * LANES, from += vectors * LANES;
    if (rest > 4)
        NAME(store)(to, NAME(load)(from));
    else if (rest > 1)
        memcpy(to, from, 4 * sizeof(T));
    else if (rest)
        *to = *from;
}

/* for part of a row of outputs                                     whose cells fit the lines
     for kh                                                         a line of cells; which the row before may have seen
     for o in outputs of the part
       for kh                                                       KW cells; what they have too much is overwritten by
                                                                    the next, and by the next row

   What is left behind each row may be anything. */
static void NAME(rows)(const Unfolding *g, const void *x, ptrdiff_t q0, ptrdiff_t count, void *lines, void *rows,
                       ptrdiff_t row)
{
    const ptrdiff_t C = g->channels, size = g->KW * C, first = q0;
    const ptrdiff_t ahead = g->stride_h % g->dilation_h ? g->KH : g->stride_h / g->dilation_h;
    T *to = rows;
    for (const ptrdiff_t end = q0 + count; q0 < end;) {
        const ptrdiff_t i = q0 / g->columns % g->rows, j = q0 % g->columns;
        const ptrdiff_t part = NAME(least)(NAME(least)(g->columns - j, end - q0), g->most);
        const T *image = (const T *)x + q0 / (g->rows * g->columns) * g->image;
        const int follows = i > 0 && part == g->columns && q0 - first >= part; /* the whole row before it */
        for (ptrdiff_t kh = 0; kh < g->KH; kh++) {
            const ptrdiff_t h = i * g->stride_h + kh * g->dilation_h - g->top;
            const ptrdiff_t width = (part - 1) * g->stride_w + g->KW;
            const int inside = h >= 0 && h < g->H;
            T *line = (T *)lines + kh * g->line;
            if (follows && kh + ahead < g->KH)
                NAME(copy)(line, line + ahead * g->line, width * C);
            else
                NAME(fill_line)(g, image + (inside ? h : 0) * g->row, inside ? j * g->stride_w - g->left : g->W, width,
                                line);
        }
        for (ptrdiff_t o = 0; o < part; o++, to += row)
            for (ptrdiff_t kh = 0; kh < g->KH; kh++)
                NAME(copy_over)(to + kh * size, (const T *)lines + kh * g->line + o * g->stride_w * C, size);
        q0 += part;
    }
}
