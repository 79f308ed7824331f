/* Gradient of the maxima of windows one cell apart; part of template.h. For planes, windows of any size and dilation,
   where the first of equal maxima gets all.

   To scatter it waits: a sum in memory for the last one to the same cell, and that is most often the one before. Here
   each cell gathers what windows have it as their maximum, and by vectors, first through the rows of a window and then
   through its columns: of all windows in a column whose maximum is in a row, it is at the same place of that row.

     for region of cells of a plane                                    copied: the first cache
       for vector, for kh                                              columns of windows: of each row, and which kw
         for vector, for kw                                            cells

   Rows follow each other without padding: a tap that reaches from a row into another one, which is no shorter than the
   image, finds no maximum there that is at its place. */

/* Of the gradients under taps 0, 1, ..., which are `step` numbers before each other and end with `from`, the sum of those
   whose place, `twin` numbers further, is that tap's; and (of rows) which place in the row follows there. */
ALWAYS void NAME(gather_taps)(const int of_rows, const int vectors, ptrdiff_t taps, ptrdiff_t step, ptrdiff_t twin,
                              const T *from, T *to)
{
    const Vector nothing = NAME(spread)(0);
    const Mask no_place = NAME(spread_place)(0);
    Vector sum[NAME(ABREAST)];
    Mask place[NAME(ABREAST)];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++)
        sum[v] = nothing, place[v] = no_place;
    for (ptrdiff_t k = 0; k < taps; k++) {
        const T *tap = from + (taps - 1 - k) * step;
        const Mask number = NAME(spread_place)(k);
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++, tap += LANES) {
            const Mask here = *(const Mask *)(tap + twin) == number;
            sum[v] += NAME(choose)(here, NAME(load)(tap), nothing);
            if (of_rows)
                place[v] |= NAME(choose_place)(here, *(const Mask *)(tap + 2 * twin), no_place);
        }
    }
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
        NAME(store)(to + v * LANES, sum[v]);
        if (of_rows)
            *(Mask *)(to + twin + v * LANES) = place[v];
    }
}

/* For `count` cells; what comes after them is written only if they are less than a vector. */
ALWAYS void NAME(gather_cells)(const int of_rows, ptrdiff_t taps, ptrdiff_t step, ptrdiff_t twin, const T *from, T *to,
                               ptrdiff_t count)
{
    ptrdiff_t i = 0;
    for (; i + NAME(ABREAST) * LANES <= count; i += NAME(ABREAST) * LANES)
        NAME(gather_taps)(of_rows, NAME(ABREAST), taps, step, twin, from + i, to + i);
    for (; i < count; i += LANES) {
        const ptrdiff_t at = NAME(least)(i, NAME(most)(0, count - LANES));
        NAME(gather_taps)(of_rows, 1, taps, step, twin, from + at, to + at);
    }
}

/* Places in windows of so many columns: kh, and `twin` numbers further kw. */
static void NAME(part_places)(const unsigned char *place, ptrdiff_t step, ptrdiff_t count, ptrdiff_t columns,
                              ptrdiff_t twin, T *to)
{
    const int factor = 65536 / (int)columns + 1; /* of a byte, this divides */
    INTEGER *restrict kh = (INTEGER *)to, *restrict kw = kh + twin;
    if (step == 1)
        for (ptrdiff_t i = 0; i < count; i++) {
            const int row = place[i] * factor >> 16;
            kh[i] = row;
            kw[i] = place[i] - row * (int)columns;
        }
    else
        for (ptrdiff_t i = 0; i < count; i++) {
            kh[i] = place[i * step] / columns;
            kw[i] = place[i * step] % columns;
        }
}

/* Places where none is. */
ALWAYS void NAME(no_maxima)(T *kh, ptrdiff_t count) { memset(kh, -1, (size_t)count * sizeof(T)); }

/* The gradients of the windows that see a region, and their places. */
static void NAME(overlap_lines)(const Pool *p, const NAME(Area) *r, T *lines)
{
    const Places *y = &p->y_at, *at = &p->place_at;
    const ptrdiff_t line = p->line, twin = p->twin;
    const ptrdiff_t top = r->row + p->h.before - (p->h.reach - 1), rows = r->rows + p->h.reach - 1;
    const ptrdiff_t above = NAME(clip)(-top, rows), end = NAME(clip)(p->h.output - top, rows);
    const ptrdiff_t ahead = p->w.reach - 1, left = r->column + p->w.before - ahead, first = NAME(most)(left, 0);
    const ptrdiff_t count = NAME(clip)(NAME(least)(p->w.output, left + ahead + r->columns) - first, line);
    const ptrdiff_t dy = r->image * y->image + r->channel * y->channel + top * y->row + first * y->cell;
    const ptrdiff_t place = r->image * at->image + r->channel * at->channel + top * at->row + first * at->cell;
    const int follow = count == line && y->row == line * y->cell && at->row == line * at->cell;
    const ptrdiff_t together = follow ? NAME(most)(1, end - above) : 1; /* rows */
    NAME(no_maxima)(lines + twin, first - left + above * line);
    lines += first - left;
    for (ptrdiff_t i = above; i < end; i += together) {
        T *to = lines + i * line;
        NAME(lay_cells)(to, 1, 1, (const T *)p->y + dy + i * y->row, y->cell, 1, 1, together * count);
        NAME(part_places)(p->bytes + place + i * at->row, at->cell, together * count, p->w.kernel, twin, to + twin);
        NAME(no_maxima)(to + twin + together * count, together * (line - count));
    }
    NAME(no_maxima)(lines + twin + end * line, (rows - end) * line + ahead - (first - left));
}

static void NAME(pool_overlaps)(const Pool *p, ptrdiff_t first, ptrdiff_t end, void *scratch)
{
    const Places *x = &p->x_at;
    const ptrdiff_t line = p->line, twin = p->twin;
    T *lines = scratch, *columns = lines + p->held_at, *out = lines + p->out_at;
    for (; first < end; first++) {
        const NAME(Area) r = NAME(area)(p, first);
        const ptrdiff_t count = r.rows * line;
        const int in_place = line == p->w.size && r.columns == line && count >= LANES;
        T *dx = (T *)p->x + r.image * x->image + r.channel * x->channel + r.row * x->row + r.column;
        NAME(overlap_lines)(p, &r, lines);
        NAME(gather_cells)(1, p->h.kernel, p->h.dilation * line, twin, lines, columns, count + p->w.reach - 1);
        NAME(gather_cells)(0, p->w.kernel, p->w.dilation, twin, columns, in_place ? dx : out, count);
        for (ptrdiff_t i = 0; !in_place && i < r.rows; i++)
            NAME(copy)(dx + i * x->row, out + i * line, r.columns);
    }
}
