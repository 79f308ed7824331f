/* Pooling: the cells of a window taken together along rows, then rows along columns; part of template.h.

   What a region of outputs sees is copied into a scratch, with padding around it. A cell there is one number of a plane,
   or `width` neighbouring channels of a pixel: all vectors do not care. Cells that the same tap sees lie side by side,
   since with stride s the columns are cut into s phases. So a tap is an offset, rows follow each other without a gap,
   and a vector may reach from one into the next.

     for image, for block of channels, for band, for strip               regions, in parallel
       for some rows of cells                                            copied phase by phase, or in place
         for vector, for kw                                              one number for each row of each window
       for vector, for kh                                                outputs, which are then put where they belong

   Small windows of pixels with a vector of channels, or more, are taken at once.

   Rows go first, so that of equal cells the first in memory wins, down to the sign of a zero. Many taps that lie close
   are taken by doubling: windows of 2n cells from two of n. Nothing runs on from window to window, so that a sum does
   not drift and a NaN stays where it is seen. */

/* Whether `next`, which comes after `best`, takes its place: it is larger, or the first NaN. */
ALWAYS int NAME(is_later)(T best, T next) { return !(next <= best) && best == best; }

#if defined(PLAIN_C)
ALWAYS Mask NAME(later)(Vector best, Vector next) { return NAME(is_later)(best, next); }

ALWAYS Vector NAME(choose)(Mask yes, Vector a, Vector b) { return yes ? a : b; }

ALWAYS Mask NAME(choose_place)(Mask yes, Mask a, Mask b) { return yes ? a : b; }

ALWAYS Mask NAME(spread_place)(ptrdiff_t place) { return (INTEGER)place; }
#else
ALWAYS Mask NAME(later)(Vector best, Vector next) { return ~(next <= best) & (best == best); }

ALWAYS Vector NAME(choose)(Mask yes, Vector a, Vector b) { return (Vector)((yes & (Mask)a) | (~yes & (Mask)b)); }

ALWAYS Mask NAME(choose_place)(Mask yes, Mask a, Mask b) { return (yes & a) | (~yes & b); }

ALWAYS Mask NAME(spread_place)(ptrdiff_t place) { return (INTEGER)place - (Mask){0}; }
#endif

ALWAYS void NAME(take)(const int take, Vector *best, Mask *place, Vector next, Mask next_place)
{
    if (take == TAKE_SUM) {
        *best += next;
        return;
    }
    const Mask later = NAME(later)(*best, next);
    *best = NAME(choose)(later, next, *best);
    if (take == TAKE_PLACE)
        *place = NAME(choose_place)(later, next_place, *place);
}

#if !defined(PLAIN_C) && HAS_SHUFFLE
#if LANE_COUNT == 16
#define EVENS 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ODDS 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#define LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#define HALVES 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23
#elif LANE_COUNT == 8
#define EVENS 0, 2, 4, 6, 8, 10, 12, 14
#define ODDS 1, 3, 5, 7, 9, 11, 13, 15
#define LOW 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH 4, 12, 5, 13, 6, 14, 7, 15
#define HALVES 0, 1, 2, 3, 8, 9, 10, 11
#elif LANE_COUNT == 4
#define EVENS 0, 2, 4, 6
#define ODDS 1, 3, 5, 7
#define LOW 0, 4, 1, 5
#define HIGH 2, 6, 3, 7
#define HALVES 0, 1, 4, 5
#else
#define EVENS 0, 2
#define ODDS 1, 3
#define LOW 0, 2
#define HIGH 1, 3
#define HALVES 0, 2
#endif
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#endif

/* Of two vectors every second number, from the first on or from the one after it. */
ALWAYS Vector NAME(second_of)(const T *from, const T *next, const int odd)
{
#if defined(SHUFFLE)
    const Vector a = NAME(load)(from), b = NAME(load)(next);
    return odd ? SHUFFLE(a, b, ODDS) : SHUFFLE(a, b, EVENS);
#else
    T numbers[LANES];
    for (ptrdiff_t lane = 0; lane < LANES; lane++)
        numbers[lane] = 2 * lane < LANES ? from[2 * lane + odd] : next[2 * lane + odd - LANES];
    return NAME(load)(numbers);
#endif
}

ALWAYS Vector NAME(second)(const T *from, const int odd) { return NAME(second_of)(from, from + LANES, odd); }

/* Every second number; nothing after the last is read. */
ALWAYS void NAME(pick_second)(T *restrict to, const T *restrict from, ptrdiff_t count)
{
    ptrdiff_t i = 0;
    if (count > LANES) {
        for (; i < count - LANES; i += LANES)
            NAME(store)(to + i, NAME(second)(from + 2 * i, 0));
        i = count - LANES;
        NAME(store)(to + i, NAME(second)(from + 2 * i - 1, 1));
        return;
    }
    for (; i < count; i++)
        to[i] = from[2 * i];
}

/* The first or the last of a[0], b[0], a[1], b[1], ... */
ALWAYS Vector NAME(woven)(Vector a, Vector b, const int last)
{
#if defined(SHUFFLE)
    return last ? SHUFFLE(a, b, HIGH) : SHUFFLE(a, b, LOW);
#else
    T numbers[LANES];
    for (ptrdiff_t lane = 0; lane < LANES; lane++) {
        const ptrdiff_t i = (last ? LANES : 0) + lane;
        numbers[lane] = ((const T *)(i % 2 ? &b : &a))[i / 2];
    }
    return NAME(load)(numbers);
#endif
}

/* The first halves of two vectors. */
ALWAYS Vector NAME(first_halves)(const T *from, const T *next)
{
#if defined(SHUFFLE)
    const Vector a = NAME(load)(from), b = NAME(load)(next);
    return SHUFFLE(a, b, HALVES);
#else
    T numbers[LANES];
    for (ptrdiff_t lane = 0; lane < LANES; lane++)
        numbers[lane] = lane < LANES / 2 ? from[lane] : next[lane - LANES / 2];
    return NAME(load)(numbers);
#endif
}

/* to[0], to[1], ... = a[0], b[0], a[1], b[1], ... */
ALWAYS void NAME(weave)(T *restrict to, const T *restrict a, const T *restrict b, ptrdiff_t count)
{
    ptrdiff_t i = 0;
#if !defined(PLAIN_C)
    for (; 2 * (i + LANES) <= count; i += LANES) {
        const Vector evens = NAME(load)(a + i), odds = NAME(load)(b + i);
        NAME(store)(to + 2 * i, NAME(woven)(evens, odds, 0));
        NAME(store)(to + 2 * i + LANES, NAME(woven)(evens, odds, 1));
    }
#endif
    for (; 2 * i + 1 < count; i++) {
        to[2 * i] = a[i];
        to[2 * i + 1] = b[i];
    }
    if (2 * i < count)
        to[2 * i] = a[i];
}

/* The same there and back where it takes long to cross the middle of a vector: every second number of two vectors in the
   order that comes of it, others brought into it, and numbers in it woven. */
#if defined(SHUFFLE) && VECTOR_BYTES == 32
#if LANE_COUNT == 8
#define NEAR_EVENS 0, 2, 8, 10, 4, 6, 12, 14
#define NEAR_ODDS 1, 3, 9, 11, 5, 7, 13, 15
#define NEAR_ORDER 0, 1, 4, 5, 2, 3, 6, 7
#define NEAR_LOW 0, 8, 1, 9, 4, 12, 5, 13
#define NEAR_HIGH 2, 10, 3, 11, 6, 14, 7, 15
#else
#define NEAR_EVENS 0, 4, 2, 6
#define NEAR_ODDS 1, 5, 3, 7
#define NEAR_ORDER 0, 2, 1, 3
#define NEAR_LOW NEAR_EVENS
#define NEAR_HIGH NEAR_ODDS
#endif
ALWAYS Vector NAME(near_second_of)(const T *from, const T *next, const int odd)
{
    const Vector a = NAME(load)(from), b = NAME(load)(next);
    return odd ? SHUFFLE(a, b, NEAR_ODDS) : SHUFFLE(a, b, NEAR_EVENS);
}

ALWAYS Vector NAME(near_order)(Vector v) { return SHUFFLE(v, v, NEAR_ORDER); }

ALWAYS Vector NAME(near_woven)(Vector a, Vector b, const int last)
{
    return last ? SHUFFLE(a, b, NEAR_HIGH) : SHUFFLE(a, b, NEAR_LOW);
}
#undef NEAR_EVENS
#undef NEAR_ODDS
#undef NEAR_ORDER
#undef NEAR_LOW
#undef NEAR_HIGH
#else
ALWAYS Vector NAME(near_second_of)(const T *from, const T *next, const int odd)
{
    return NAME(second_of)(from, next, odd);
}

ALWAYS Vector NAME(near_order)(Vector v) { return v; }

ALWAYS Vector NAME(near_woven)(Vector a, Vector b, const int last) { return NAME(woven)(a, b, last); }
#endif

#undef SHUFFLE
#undef EVENS
#undef ODDS
#undef LOW
#undef HIGH
#undef HALVES

/* What is taken together: of numbers from[offset[k] + i] over the taps k, for so many i and rows of them. What comes after
   `count` up to the end of a vector is written too, or (within) the last vector overlaps the one before. Places lie
   `twin` numbers after what they are the places of, and `apart` for each tap is added to them; those of cells (leaves)
   are all `first`. Sums are divided by counts[row] * divisors[i], unless there are none. */
typedef struct {
    ptrdiff_t taps;
    const ptrdiff_t *offset;
    ptrdiff_t first, apart, twin;
    int leaves, within;
    ptrdiff_t count, rows, from_row, to_row; /* rows of places follow each other */
    const double *counts;
    const T *divisors;
} NAME(Join);

ALWAYS void NAME(join_taps)(const int take, const int leaves, const ptrdiff_t taps, const NAME(Join) *join,
                            const T *from, T *to, T *places)
{
    const ptrdiff_t count = join->count, first = join->first, apart = join->apart, twin = join->twin;
    const ptrdiff_t *offset = join->offset, rows = join->rows, from_row = join->from_row, to_row = join->to_row;
    const T *divisors = join->divisors;
    const int within = join->within;
    for (ptrdiff_t row = 0; row < rows; row++, from += from_row, to += to_row, places += count)
        for (ptrdiff_t i = 0; i < count; i += LANES) {
            if (within && i > count - LANES)
                i = count - LANES;
            const T *tap = from + offset[0] + i;
            Vector best = NAME(load)(tap);
            Mask place = NAME(spread_place)(first);
            if (take == TAKE_PLACE && !leaves)
                place += *(const Mask *)(tap + twin);
            for (ptrdiff_t k = 1; k < taps; k++) {
                tap = from + offset[k] + i;
                Mask next = NAME(spread_place)(first + k * apart);
                if (take == TAKE_PLACE && !leaves)
                    next += *(const Mask *)(tap + twin);
                NAME(take)(take, &best, &place, NAME(load)(tap), next);
            }
            if (take == TAKE_SUM && divisors)
                best /= NAME(spread)((T)join->counts[row]) * NAME(load)(divisors + i);
            NAME(store)(to + i, best);
            if (take == TAKE_PLACE)
                *(Mask *)(places + i) = place;
        }
}

/* The same for windows two cells apart, through taps 0, 1, ... */
ALWAYS void NAME(join_pairs)(const int take, const ptrdiff_t taps, const T *from, T *to, T *places, ptrdiff_t count)
{
    for (ptrdiff_t i = 0; i < count; i += LANES) {
        if (i > count - LANES)
            i = count - LANES;
        Vector best = NAME(second)(from + 2 * i, 0);
        Mask place = NAME(spread_place)(0);
        for (ptrdiff_t k = 1; k < taps; k++)
            NAME(take)(take, &best, &place, NAME(second)(from + 2 * i + k / 2 * 2, k % 2), NAME(spread_place)(k));
        NAME(store)(to + i, best);
        if (take == TAKE_PLACE)
            *(Mask *)(places + i) = place;
    }
}

#define TWO_THREE_OR_MORE(taps, call)                                                                                 \
    if (taps == 2) {                                                                                                  \
        enum { TAPS = 2 };                                                                                            \
        call;                                                                                                         \
    } else if (taps == 3) {                                                                                           \
        enum { TAPS = 3 };                                                                                            \
        call;                                                                                                         \
    } else {                                                                                                          \
        const ptrdiff_t TAPS = taps;                                                                                  \
        call;                                                                                                         \
    }

/* Both compiled for what is taken, and for two and three taps. */
static void NAME(join)(int take, const NAME(Join) *join, const T *from, T *to, T *places)
{
#define JOIN_TAPS(take, leaves)                                                                                       \
    TWO_THREE_OR_MORE(join->taps, NAME(join_taps)(take, leaves, TAPS, join, from, to, places))
    if (take == TAKE_SUM) {
        JOIN_TAPS(TAKE_SUM, 1)
    } else if (take == TAKE_MAX) {
        JOIN_TAPS(TAKE_MAX, 1)
    } else if (join->leaves) {
        JOIN_TAPS(TAKE_PLACE, 1)
    } else {
        JOIN_TAPS(TAKE_PLACE, 0)
    }
#undef JOIN_TAPS
}

static void NAME(join_seconds)(int take, ptrdiff_t taps, const T *from, T *to, T *places, ptrdiff_t count)
{
    if (take == TAKE_SUM) {
        TWO_THREE_OR_MORE(taps, NAME(join_pairs)(TAKE_SUM, TAPS, from, to, places, count))
    } else if (take == TAKE_MAX) {
        TWO_THREE_OR_MORE(taps, NAME(join_pairs)(TAKE_MAX, TAPS, from, to, places, count))
    } else {
        TWO_THREE_OR_MORE(taps, NAME(join_pairs)(TAKE_PLACE, TAPS, from, to, places, count))
    }
}
#undef TWO_THREE_OR_MORE

/* total[i] = what is taken of from[i + k * step] over the taps k, for all i whose taps are among `size` numbers. A
   window of `taps` cells is made of windows of 1, 2, 4, ... cells, which replace `from`. */
static void NAME(join_by_doubling)(int take, ptrdiff_t taps, T *from, ptrdiff_t step, ptrdiff_t apart, ptrdiff_t twin,
                                   T *total, ptrdiff_t size)
{
    const ptrdiff_t outputs = size - (taps - 1) * step;
    ptrdiff_t done = 0;
    for (ptrdiff_t cells = 1;; cells *= 2) {
        if (taps & cells) {
            const ptrdiff_t both[2] = {done ? 0 : from - total, from - total + done * step};
            const NAME(Join) more = {.taps = done ? 2 : 1, .offset = both, .apart = done * apart, .twin = twin,
                                     .count = outputs, .rows = 1};
            NAME(join)(take, &more, total, total, total + twin);
            done += cells;
        }
        if (done == taps)
            return;
        const ptrdiff_t next[2] = {0, cells * step};
        const NAME(Join) twice = {.taps = 2, .offset = next, .apart = cells * apart, .twin = twin,
                                  .count = size - cells * step, .rows = 1};
        NAME(join)(take, &twice, from, from, from + twin);
    }
}

/* `count` cells of `width` numbers each, from steps to steps. */
static void NAME(lay_cells)(T *restrict to, ptrdiff_t to_cell, ptrdiff_t to_number, const T *restrict from,
                             ptrdiff_t from_cell, ptrdiff_t from_number, ptrdiff_t width, ptrdiff_t count)
{
    if (count <= 0)
        return;
    if (width == 1) {
        if (to_cell == 1 && from_cell == 1)
            NAME(copy)(to, from, count);
        else if (to_cell == 1 && from_cell == 2)
            NAME(pick_second)(to, from, count);
        else
            for (ptrdiff_t i = 0; i < count; i++)
                to[i * to_cell] = from[i * from_cell];
    } else if (to_number == 1 && from_number == 1) {
        if (to_cell == width && from_cell == width)
            NAME(copy)(to, from, count * width);
        else
            for (ptrdiff_t i = 0; i < count; i++)
                NAME(copy)(to + i * to_cell, from + i * from_cell, width);
    } else
        for (ptrdiff_t i = 0; i < count; i++)
            for (ptrdiff_t c = 0; c < width; c++)
                to[i * to_cell + c * to_number] = from[i * from_cell + c * from_number];
}

ALWAYS void NAME(fill)(T *to, T number, ptrdiff_t count)
{
    for (ptrdiff_t i = 0; i < count; i++)
        to[i] = number;
}

/* A region: of outputs, or of cells of the gradient; see kernels.h for where its parts lie. */
typedef struct {
    ptrdiff_t image, channel, channels; /* the first of so many channels */
    ptrdiff_t row, rows, column, columns;
} NAME(Area);

ALWAYS NAME(Area) NAME(area)(const Pool *p, ptrdiff_t i)
{
    NAME(Area) r;
    const ptrdiff_t strip = i % p->w.blocks, band = i / p->w.blocks % p->h.blocks;
    const ptrdiff_t block = i / (p->w.blocks * p->h.blocks);
    r.image = block / p->blocks;
    r.channel = block % p->blocks * p->width;
    r.channels = NAME(clip)(p->channels - r.channel, p->width);
    r.row = p->h.first + band * p->h.block;
    r.rows = NAME(clip)(p->h.first + p->h.all - r.row, p->h.block);
    r.column = p->w.first + strip * p->w.block;
    r.columns = NAME(clip)(p->w.first + p->w.all - r.column, p->w.block);
    return r;
}

/* The next region, where strips are as wide as the image. */
ALWAYS void NAME(next_band)(const Pool *p, NAME(Area) *r)
{
    r->row += p->h.block;
    if (r->row >= p->h.first + p->h.all) {
        r->row = p->h.first;
        r->channel += p->width;
        if (r->channel >= p->channels) {
            r->channel = 0;
            r->image++;
        }
        r->channels = NAME(clip)(p->channels - r->channel, p->width);
    }
    r->rows = NAME(clip)(p->h.first + p->h.all - r->row, p->h.block);
}

/* ------------------------------------------------------------------------------------------------------ forward */

/* Rows h to h + rows - 1 of the cells that the region sees, each phase by itself. */
static void NAME(pool_lines)(const Pool *p, const NAME(Area) *r, ptrdiff_t h, ptrdiff_t rows, T *lines)
{
    const Places *x = &p->x_at;
    const T *image = (const T *)p->x + r->image * x->image + r->channel * x->channel;
    const T padding = p->take == TAKE_SUM ? 0 : -(T)INFINITY;
    const ptrdiff_t stride = p->doubled_w ? 1 : p->w.stride, left = r->column * p->w.stride - p->w.before;
    for (ptrdiff_t phase = 0; phase < p->phases; phase++, lines += p->phase) {
        const ptrdiff_t w = left + p->residue[phase];
        const ptrdiff_t first = NAME(clip)(NAME(ceiling)(-w, stride), p->w.cells);
        const ptrdiff_t end = NAME(clip)(NAME(ceiling)(p->w.size - w, stride), p->w.cells);
        const T *from = image + h * x->row + w * x->cell;
        if (end - first == p->w.cells && x->row == end * stride * x->cell && h >= 0 && h + rows <= p->h.size) {
            NAME(lay_cells)(lines, p->width, 1, from, stride * x->cell, x->channel, r->channels, rows * end);
            continue;
        }
        for (ptrdiff_t i = 0; i < rows; i++, from += x->row) {
            T *line = lines + i * p->line;
            if (h + i < 0 || h + i >= p->h.size) {
                NAME(fill)(line, padding, p->line);
                continue;
            }
            NAME(fill)(line, padding, first * p->width);
            NAME(lay_cells)(line + first * p->width, p->width, 1, from + first * stride * x->cell, stride * x->cell,
                             x->channel, r->channels, end - first);
            NAME(fill)(line + end * p->width, padding, p->line - end * p->width);
        }
    }
}

/* What the windows of columns from `column` to `end` take of a row of a plane, of which they see cells outside of it. */
static void NAME(join_edge)(const Pool *p, const NAME(Area) *r, const T *row, ptrdiff_t column, ptrdiff_t end, T *to)
{
    for (; column < end; column++) {
        const ptrdiff_t left = (r->column + column) * p->w.stride - p->w.before;
        const ptrdiff_t first = NAME(clip)(NAME(ceiling)(-left, p->w.dilation), p->w.kernel);
        const ptrdiff_t taps = NAME(clip)(NAME(ceiling)(p->w.size - left, p->w.dilation), p->w.kernel) - first;
        const T *cell = row + left + first * p->w.dilation;
        T best = *cell;
        ptrdiff_t place = first;
        for (ptrdiff_t k = 1; k < taps; k++) {
            const T next = cell[k * p->w.dilation];
            if (p->take == TAKE_SUM)
                best += next;
            else if (NAME(is_later)(best, next)) {
                best = next;
                place = first + k;
            }
        }
        to[column] = p->take == TAKE_SUM ? best + 0 : best; /* + the padding */
        if (p->take == TAKE_PLACE)
            ((INTEGER *)(to + p->twin))[column] = (INTEGER)place;
    }
}

/* The same for all columns, row being where it is. */
static void NAME(join_in_place)(const Pool *p, const NAME(Area) *r, const T *row, T *to)
{
    const ptrdiff_t stride = p->w.stride, left = r->column * stride - p->w.before, reach = p->w.reach + (stride == 2);
    const ptrdiff_t first = NAME(clip)(NAME(ceiling)(-left, stride), r->columns);
    ptrdiff_t end = NAME(clip)((p->w.size - reach - left) / stride + 1, r->columns);
    if (left + reach > p->w.size || end - first < LANES)
        end = first;
    const T *from = row + left + first * stride;
    const NAME(Join) inner = {.taps = p->w.kernel, .offset = p->tap_w, .apart = 1, .leaves = 1, .within = 1,
                              .count = end - first, .rows = 1};
    NAME(join_edge)(p, r, row, 0, first, to);
    if (end > first && stride == 2)
        NAME(join_seconds)(p->take, p->w.kernel, from, to + first, to + first + p->twin, end - first);
    else if (end > first)
        NAME(join)(p->take, &inner, from, to + first, to + first + p->twin);
    NAME(join_edge)(p, r, row, end, r->columns, to);
}

/* What a window of rows x taps pixels takes of each of at least a vector of channels; `place` is that of its first cell.
   Sums end with `padding`: zeros that are seen change -0 to 0. */
ALWAYS void NAME(take_window)(const Pool *p, const int take, const ptrdiff_t rows, const ptrdiff_t taps, const T *from,
                              ptrdiff_t place, T padding, T divisor, ptrdiff_t channels, T *to, T *places)
{
    const ptrdiff_t row = p->h.dilation * p->x_at.row, cell = p->w.dilation * p->x_at.cell;
    for (ptrdiff_t c = 0; c < channels; c += LANES) {
        if (c > channels - LANES)
            c = channels - LANES;
        Vector best = NAME(spread)(0);
        Mask best_place = NAME(spread_place)(place);
        for (ptrdiff_t kh = 0; kh < rows; kh++) {
            const T *tap = from + kh * row + c;
            Vector of_row = NAME(load)(tap);
            Mask row_place = NAME(spread_place)(place + kh * p->w.kernel);
            for (ptrdiff_t kw = 1; kw < taps; kw++)
                NAME(take)(take, &of_row, &row_place, NAME(load)(tap + kw * cell),
                           NAME(spread_place)(place + kh * p->w.kernel + kw));
            if (kh == 0)
                best = of_row;
            else
                NAME(take)(take, &best, &best_place, of_row, row_place);
            if (kh == 0)
                best_place = row_place;
        }
        if (take == TAKE_SUM)
            best += NAME(spread)(padding);
        if (take == TAKE_SUM && divisor != 1)
            best /= NAME(spread)(divisor);
        NAME(store)(to + c, best);
        if (take == TAKE_PLACE)
            *(Mask *)(places + c) = best_place;
    }
}

enum {
    NAME(CACHE_LINE) = 64 / sizeof(T), /* numbers */
    NAME(FAR) = (1 << 20) / sizeof(T), /* of an image: more than a second cache holds */
};

/* Ask for the cells of the next window: the processor does not foresee them where pixels are long. */
ALWAYS void NAME(fetch_window)(const Pool *p, ptrdiff_t rows, ptrdiff_t taps, const T *from)
{
    for (ptrdiff_t kh = 0; kh < rows; kh++, from += p->h.dilation * p->x_at.row)
        for (ptrdiff_t i = 0; i < taps * p->x_at.cell; i += NAME(CACHE_LINE))
            PREFETCH(from + i);
}

/* The same for each column of a region, through `rows` rows of taps from row h of the image on, the kh-th of them; sums
   are divided by columns' counts times `count`, unless that is 0. */
ALWAYS void NAME(take_pixels)(const Pool *p, const int take, const NAME(Area) *r, ptrdiff_t h, ptrdiff_t kh,
                              ptrdiff_t rows, int clipped, T count, T *to, T *places)
{
    const T *row = (const T *)p->x + r->image * p->x_at.image + r->channel * p->x_at.channel + h * p->x_at.row;
    ptrdiff_t left = r->column * p->w.stride - p->w.before;
    const int long_pixels = p->w.reach == p->w.stride && p->x_at.cell >= 8 * NAME(CACHE_LINE);
    const int far = long_pixels && p->h.size * p->x_at.row > NAME(FAR);
    for (ptrdiff_t j = 0; j < r->columns; j++, left += p->w.stride, to += p->width, places += p->width) {
        ptrdiff_t kw = 0, taps = p->w.kernel;
        if (left < 0 || left + p->w.reach > p->w.size) {
            kw = left < 0 ? NAME(ceiling)(-left, p->w.dilation) : 0;
            taps = NAME(clip)(NAME(ceiling)(p->w.size - left, p->w.dilation), taps) - kw;
        }
        const T *from = row + (left + kw * p->w.dilation) * p->x_at.cell;
        const T padding = clipped || taps < p->w.kernel ? (T)0 : -(T)0;
        const T divisor = count != 0 ? count * (T)p->columns[r->column + j] : 1;
        const ptrdiff_t place = kh * p->w.kernel + kw;
        if (far)
            NAME(fetch_window)(p, rows, taps, from + p->w.stride * p->x_at.cell);
        if (rows == 2 && taps == 2)
            NAME(take_window)(p, take, 2, 2, from, place, padding, divisor, r->channels, to, places);
        else if (rows == 3 && taps == 3)
            NAME(take_window)(p, take, 3, 3, from, place, padding, divisor, r->channels, to, places);
        else
            NAME(take_window)(p, take, rows, taps, from, place, padding, divisor, r->channels, to, places);
    }
}

static void NAME(take_row)(const Pool *p, const NAME(Area) *r, ptrdiff_t h, ptrdiff_t kh, ptrdiff_t rows, int clipped,
                           T count, T *to, T *places)
{
    if (p->take == TAKE_SUM)
        NAME(take_pixels)(p, TAKE_SUM, r, h, kh, rows, clipped, count, to, places);
    else if (p->take == TAKE_MAX)
        NAME(take_pixels)(p, TAKE_MAX, r, h, kh, rows, clipped, count, to, places);
    else
        NAME(take_pixels)(p, TAKE_PLACE, r, h, kh, rows, clipped, count, to, places);
}

/* What windows take of `rows` rows of the region's cells where they are, from row h of the image on. */
static void NAME(pool_rows_in_place)(const Pool *p, const NAME(Area) *r, ptrdiff_t h, ptrdiff_t rows, T *to)
{
    const T *row = (const T *)p->x + r->image * p->x_at.image + r->channel * p->x_at.channel + h * p->x_at.row;
    if (p->group > 1 && rows * r->columns >= LANES) {
        NAME(join_seconds)(p->take, p->w.kernel, row, to, to + p->twin, rows * r->columns);
        return;
    }
    for (; rows > 0; rows--, h++, row += p->x_at.row, to += p->held)
        if (h < 0 || h >= p->h.size)
            NAME(fill)(to, p->take == TAKE_SUM ? 0 : -(T)INFINITY, p->held);
        else if (p->width == 1)
            NAME(join_in_place)(p, r, row, to);
        else
            NAME(take_row)(p, r, h, 0, 1, 0, 0, to, to + p->twin);
}

/* For each row of the region's cells what each window takes of it. */
static void NAME(pool_rows)(const Pool *p, const NAME(Area) *r, T *lines, T *held)
{
    const ptrdiff_t all = (r->rows - 1) * p->h.stride + p->h.reach, top = r->row * p->h.stride - p->h.before;
    for (ptrdiff_t row = 0; row < all; row += p->group) {
        const ptrdiff_t rows = NAME(clip)(all - row, p->group);
        T *to = held + row * p->held;
        if (p->in_place) {
            NAME(pool_rows_in_place)(p, r, top + row, rows, to);
            continue;
        }
        NAME(pool_lines)(p, r, top + row, rows, lines);
        if (!p->doubled_w) {
            const NAME(Join) join = {.taps = p->w.kernel, .offset = p->tap_w, .apart = 1, .leaves = 1,
                                     .count = rows * p->line, .rows = 1};
            NAME(join)(p->take, &join, lines, to, to + p->twin);
            continue;
        }
        T *total = lines + p->phase;
        if (p->take == TAKE_PLACE)
            memset(lines + p->twin, 0, rows * p->line * sizeof(T));
        NAME(join_by_doubling)(p->take, p->w.kernel, lines, p->w.dilation * p->width, 1, p->twin, total,
                               rows * p->line);
        for (ptrdiff_t i = 0; i < rows; i++, to += p->held, total += p->line) {
            NAME(lay_cells)(to, p->width, 1, total, p->w.stride * p->width, 1, p->width, r->columns);
            if (p->take == TAKE_PLACE)
                NAME(lay_cells)(to + p->twin, p->width, 1, total + p->twin, p->w.stride * p->width, 1, p->width,
                                r->columns);
        }
    }
}

/* Where the maximum is -inf, all cells are, and its place is that of the window's first cell within the image. */
static void NAME(mend_places)(const Pool *p, const NAME(Area) *r, ptrdiff_t row, const T *out, INTEGER *place)
{
    const ptrdiff_t top = (r->row + row) * p->h.stride - p->h.before;
    const ptrdiff_t kh = top < 0 ? NAME(ceiling)(-top, p->h.dilation) : 0;
    for (ptrdiff_t j = 0; j < r->columns; j++) {
        const ptrdiff_t left = (r->column + j) * p->w.stride - p->w.before;
        const ptrdiff_t kw = left < 0 ? NAME(ceiling)(-left, p->w.dilation) : 0;
        if (kh == 0 && left >= 0)
            return;
        for (ptrdiff_t c = j * p->width; c < (j + 1) * p->width; c++)
            if (out[c] == -(T)INFINITY)
                place[c] = (INTEGER)(kh * p->w.kernel + kw);
    }
}

/* Places of one row of outputs, as bytes or as indices into the plane. */
static void NAME(put_places)(const Pool *p, const NAME(Area) *r, ptrdiff_t row, const INTEGER *place)
{
    const Places *at = &p->place_at;
    const ptrdiff_t first = r->image * at->image + r->channel * at->channel + (r->row + row) * at->row +
                            r->column * at->cell;
    if (p->bytes && at->cell == r->channels && p->width == r->channels) {
        unsigned char *to = p->bytes + first;
        for (ptrdiff_t i = 0; i < r->columns * p->width; i++)
            to[i] = (unsigned char)place[i];
        return;
    }
    const ptrdiff_t top = (r->row + row) * p->h.stride - p->h.before;
    for (ptrdiff_t j = 0; j < r->columns; j++) {
        const ptrdiff_t left = (r->column + j) * p->w.stride - p->w.before;
        for (ptrdiff_t c = 0; c < r->channels; c++) {
            const ptrdiff_t k = place[j * p->width + c], to = first + j * at->cell + c * at->channel;
            if (p->bytes)
                p->bytes[to] = (unsigned char)k;
            else
                p->indices[to] = top * p->w.size + left + p->index[k];
        }
    }
}

/* What each column of outputs is divided by, for each channel of a cell. */
static void NAME(pool_divisors)(const Pool *p, ptrdiff_t column, ptrdiff_t columns, T *divisors)
{
    if (p->take == TAKE_SUM)
        for (ptrdiff_t j = 0; j < columns; j++)
            NAME(fill)(divisors + j * p->width, (T)p->columns[column + j], p->width);
}

static void NAME(divide)(T *restrict numbers, T count, const T *restrict divisors, ptrdiff_t size)
{
    for (ptrdiff_t i = 0; i < size; i++)
        numbers[i] /= count * divisors[i];
}

/* One row of outputs from windows of pixels, without a detour. */
static void NAME(pool_pixels)(const Pool *p, const NAME(Area) *r, ptrdiff_t row, T *to, T *places)
{
    const ptrdiff_t top = row * p->h.stride - p->h.before;
    ptrdiff_t kh = 0, rows = p->h.kernel;
    if (top < 0 || top + p->h.reach > p->h.size) {
        kh = top < 0 ? NAME(ceiling)(-top, p->h.dilation) : 0;
        rows = NAME(clip)(NAME(ceiling)(p->h.size - top, p->h.dilation), rows) - kh;
    }
    NAME(take_row)(p, r, top + kh * p->h.dilation, kh, rows, rows < p->h.kernel,
                   p->take == TAKE_SUM ? (T)p->rows[row] : 0, to, places);
}

/* The region's rows of outputs: made where they belong if those are in one piece, else in the scratch. */
static void NAME(pool_region)(const Pool *p, const NAME(Area) *r, T *held, T *out, const T *divisors)
{
    const Places *at = &p->y_at;
    const ptrdiff_t size = r->columns * p->width;
    const int whole = at->cell == p->width && (p->width == 1 || (at->channel == 1 && r->channels == p->width));
    T *y = (T *)p->y + r->image * at->image + r->channel * at->channel + r->row * at->row + r->column * at->cell;
    T *to = whole && !p->doubled_h && size >= LANES ? y : out, *places = out + p->twin;
    const ptrdiff_t to_row = to == y ? at->row : p->doubled_h ? p->h.stride * p->held : size;
    const ptrdiff_t place_row = p->doubled_h ? to_row : size;
    const NAME(Join) join = {.taps = p->h.kernel, .offset = p->tap_h, .apart = p->w.kernel, .twin = p->twin,
                             .within = size >= LANES, .count = size, .rows = r->rows,
                             .from_row = p->h.stride * p->held, .to_row = to_row, .counts = p->rows + r->row,
                             .divisors = p->take == TAKE_SUM ? divisors : NULL};
    if (p->doubled_h)
        NAME(join_by_doubling)(p->take, p->h.kernel, held, p->h.dilation * p->held, p->w.kernel, p->twin, out,
                               ((r->rows - 1) * p->h.stride + p->h.reach) * p->held);
    else if (!p->direct)
        NAME(join)(p->take, &join, held, to, places);
    else
        for (ptrdiff_t i = 0; i < r->rows; i++)
            NAME(pool_pixels)(p, r, r->row + i, to + i * to_row, places + i * size);
    for (ptrdiff_t i = 0; p->doubled_h && p->take == TAKE_SUM && i < r->rows; i++)
        NAME(divide)(out + i * to_row, (T)p->rows[r->row + i], divisors, size);
    if (to == out && whole && to_row == size && at->row == size)
        NAME(copy)(y, out, r->rows * size);
    else
        for (ptrdiff_t i = 0; to == out && i < r->rows; i++)
            NAME(lay_cells)(y + i * at->row, at->cell, at->channel, out + i * to_row, p->width, 1, r->channels,
                            r->columns);
    for (ptrdiff_t i = 0; p->take == TAKE_PLACE && i < r->rows; i++) {
        NAME(mend_places)(p, r, i, to + i * to_row, (INTEGER *)(places + i * place_row));
        NAME(put_places)(p, r, i, (const INTEGER *)(places + i * place_row));
    }
}

static void NAME(pool)(const Pool *p, ptrdiff_t first, ptrdiff_t end, void *scratch)
{
    T *lines = scratch, *held = lines + p->held_at, *out = lines + p->out_at, *divisors = lines + p->divisors_at;
    for (; first < end; first++) {
        const NAME(Area) r = NAME(area)(p, first);
        if (!p->direct) {
            NAME(pool_rows)(p, &r, lines, held);
            NAME(pool_divisors)(p, r.column, r.columns, divisors);
        }
        NAME(pool_region)(p, &r, held, out, divisors);
    }
}

/* ---------------------------------------------------------------------------------------------------- backward */

/* The gradients of outputs that a region of cells was seen by, divided by their counts; 0 where there are none. */
static void NAME(gradient_lines)(const Pool *p, const NAME(Area) *r, T *lines, T *divisors)
{
    const Places *y = &p->y_at;
    const ptrdiff_t column = r->column - (p->w.cells - p->w.block);
    const ptrdiff_t first = NAME(clip)(-column, p->w.cells), end = NAME(clip)(p->w.output - column, p->w.cells);
    NAME(pool_divisors)(p, column + first, end - first, divisors + first * p->width);
    for (ptrdiff_t i = 0; i < r->rows + p->h.cells - p->h.block; i++, lines += p->line) {
        const ptrdiff_t row = r->row - (p->h.cells - p->h.block) + i;
        if (row < 0 || row >= p->h.output) {
            NAME(fill)(lines, 0, p->line);
            continue;
        }
        NAME(fill)(lines, 0, first * p->width);
        NAME(lay_cells)(lines + first * p->width, p->width, 1,
                         (const T *)p->y + r->image * y->image + r->channel * y->channel + row * y->row +
                             (column + first) * y->cell,
                         y->cell, y->channel, r->channels, end - first);
        NAME(fill)(lines + end * p->width, 0, p->line - end * p->width);
        NAME(divide)(lines + first * p->width, (T)p->rows[row], divisors + first * p->width, (end - first) * p->width);
    }
}

/* One row of cells from its phases. */
static void NAME(put_gradient)(const Pool *p, const NAME(Area) *r, ptrdiff_t h, const T *phases)
{
    const Places *x = &p->x_at;
    T *row = (T *)p->x + r->image * x->image + r->channel * x->channel + h * x->row;
    const ptrdiff_t left = r->column * p->w.stride - p->w.before; /* of phase 0 */
    if (p->w.stride == 2 && p->width == 1 && x->cell == 1) {
        const ptrdiff_t w = left < 0 ? 0 : left, end = NAME(clip)(left + 2 * r->columns, p->w.size), u = w - left;
        NAME(weave)(row + w, phases + u % 2 * p->phase + u / 2, phases + (u + 1) % 2 * p->phase + (u + 1) / 2, end - w);
        return;
    }
    for (ptrdiff_t phase = 0; phase < p->w.stride; phase++) {
        const ptrdiff_t w = left + phase, first = NAME(clip)(NAME(ceiling)(-w, p->w.stride), r->columns);
        const ptrdiff_t end = NAME(clip)(NAME(ceiling)(p->w.size - w, p->w.stride), r->columns);
        NAME(lay_cells)(row + (w + first * p->w.stride) * x->cell, p->w.stride * x->cell, x->channel,
                         phases + phase * p->phase + first * p->width, p->width, 1, r->channels, end - first);
    }
}

/* Of one phase of rows, all phases of columns. */
static void NAME(gradient_phases)(const Pool *p, const NAME(Area) *r, ptrdiff_t phase, const T *lines, T *columns,
                                  T *phases)
{
    const ptrdiff_t first = p->first_h[phase], taps = p->first_h[phase + 1] - first, count = r->rows * p->line;
    NAME(Join) join = {.taps = taps, .offset = p->tap_h + first, .count = count, .rows = 1};
    if (taps)
        NAME(join)(TAKE_SUM, &join, lines, columns, columns);
    for (ptrdiff_t other = 0; other < p->w.stride; other++, phases += p->phase) {
        const ptrdiff_t first_w = p->first_w[other], taps_w = p->first_w[other + 1] - first_w;
        join.taps = taps_w;
        join.offset = p->tap_w + first_w;
        if (taps * taps_w == 0)
            NAME(fill)(phases, 0, count);
        else
            NAME(join)(TAKE_SUM, &join, columns, phases, phases);
    }
}

/* dx of an average gathered from dy, so that each cell is written once.

     for region of cells
       for phase of rows, for phase of columns                           cells that are seen through the same taps
         for vector, for kh, kw                                                                                     */
static void NAME(pool_gradient)(const Pool *p, ptrdiff_t first, ptrdiff_t end, void *scratch)
{
    T *lines = scratch, *columns = lines + p->held_at, *phases = lines + p->out_at, *divisors = lines + p->divisors_at;
    for (; first < end; first++) {
        const NAME(Area) r = NAME(area)(p, first);
        NAME(gradient_lines)(p, &r, lines, divisors);
        for (ptrdiff_t phase = 0; phase < p->h.stride; phase++) {
            NAME(gradient_phases)(p, &r, phase, lines, columns, phases);
            for (ptrdiff_t i = 0; i < r.rows; i++) {
                const ptrdiff_t h = (r.row + i) * p->h.stride + phase - p->h.before;
                if (h >= 0 && h < p->h.size)
                    NAME(put_gradient)(p, &r, h, phases + i * p->line);
            }
        }
    }
}

/* Cells of a window of rows x columns taps, these far apart, that equal `best`. */
ALWAYS ptrdiff_t NAME(count_equal)(const T *window, ptrdiff_t rows, ptrdiff_t row, const ptrdiff_t columns,
                                   ptrdiff_t column, T best)
{
    ptrdiff_t equal = 0;
    for (ptrdiff_t kh = 0; kh < rows; kh++, window += row)
        for (ptrdiff_t kw = 0; kw < columns; kw++)
            equal += window[kw * column] == best;
    return equal;
}

/* Added to the region's cells that equal the maximum of a window, which is at (h, w): the whole gradient, or an equal
   share. As a rule one cell does, and then the others need not be looked at again. */
static void NAME(share_out)(const Pool *p, const NAME(Area) *r, const T *cells, ptrdiff_t top, ptrdiff_t left,
                            ptrdiff_t h, ptrdiff_t w, T gradient, T *dx)
{
    const Places *seen = &p->seen_at;
    const ptrdiff_t row = p->h.dilation * seen->row, column = p->w.dilation * seen->cell;
    const ptrdiff_t kh = top < 0 ? NAME(ceiling)(-top, p->h.dilation) : 0;
    const ptrdiff_t kw = left < 0 ? NAME(ceiling)(-left, p->w.dilation) : 0;
    ptrdiff_t rows = p->h.kernel - kh, columns = p->w.kernel - kw;
    if (top + p->h.reach > p->h.size)
        rows = NAME(ceiling)(p->h.size - top, p->h.dilation) - kh;
    if (left + p->w.reach > p->w.size)
        columns = NAME(ceiling)(p->w.size - left, p->w.dilation) - kw;
    top += kh * p->h.dilation;
    left += kw * p->w.dilation;
    const T *window = cells + top * seen->row + left * seen->cell, best = cells[h * seen->row + w * seen->cell];
    ptrdiff_t equal = columns == 2 ? NAME(count_equal)(window, rows, row, 2, column, best)
                                   : NAME(count_equal)(window, rows, row, columns, column, best);
    if (equal == 1) {
        if (h >= r->row && h < r->row + r->rows)
            dx[(h * p->w.size + w) * p->width] += gradient;
        return;
    }
    for (ptrdiff_t i = 0; best != best && i < rows; i++)
        for (ptrdiff_t j = 0; j < columns; j++)
            equal += window[i * row + j * column] != window[i * row + j * column];
    const T share = p->ties == TIES_SPLIT ? gradient / (T)equal : gradient;
    for (ptrdiff_t i = 0; i < rows; i++, top += p->h.dilation)
        for (ptrdiff_t j = 0; j < columns && top >= r->row && top < r->row + r->rows; j++) {
            const T cell = window[i * row + j * column];
            if (cell == best || (best != best && cell != cell))
                dx[(top * p->w.size + left + j * p->w.dilation) * p->width] += share;
        }
}

/* Shared out from one row of outputs. A place outside of the image, which no forward pass leaves, gets nothing. */
static void NAME(share_row)(const Pool *p, const NAME(Area) *r, ptrdiff_t row, ptrdiff_t place, const T *dy, T *dx)
{
    const Places *seen = &p->seen_at;
    const T *cells = (const T *)p->seen + r->image * seen->image + r->channel * seen->channel;
    const ptrdiff_t top = row * p->h.stride - p->h.before;
    ptrdiff_t left = -p->w.before;
    for (ptrdiff_t j = 0; j < p->w.output; j++, left += p->w.stride)
        for (ptrdiff_t c = 0; c < r->channels; c++) {
            const ptrdiff_t k = place + j * p->place_at.cell + c * p->place_at.channel;
            const ptrdiff_t h = p->bytes ? top + p->place_h[p->bytes[k]] : p->indices[k] / p->w.size;
            const ptrdiff_t w = p->bytes ? left + p->place_w[p->bytes[k]] : p->indices[k] % p->w.size;
            if (h >= 0 && h < p->h.size && w >= 0 && w < p->w.size)
                NAME(share_out)(p, r, cells + c * seen->channel, top, left, h, w,
                                dy[j * p->y_at.cell + c * p->y_at.channel], dx + c);
        }
}

/* To the first maxima of one row of outputs, as far as they are in the region, which begins at `to`: so is nothing outside
   of it touched, whatever the places are. */
static void NAME(scatter_bytes)(const Pool *p, const NAME(Area) *r, ptrdiff_t row, const unsigned char *place,
                                const T *dy, T *to)
{
    const ptrdiff_t place_cell = p->place_at.cell, dy_cell = p->y_at.cell, *index = p->index;
    const ptrdiff_t step = p->w.stride * p->width, columns = p->w.output;
    const size_t size = (size_t)(r->rows * p->w.size * p->width);
    ptrdiff_t q = ((row * p->h.stride - p->h.before - r->row) * p->w.size - p->w.before) * p->width;
    if (p->width == 1)
        for (ptrdiff_t j = 0; j < columns; j++, q += step) {
            const size_t cell = (size_t)(q + index[place[j * place_cell]]);
            if (cell < size)
                to[cell] += dy[j * dy_cell];
        }
    else
        for (ptrdiff_t j = 0; j < columns; j++, q += step, place += place_cell, dy += dy_cell)
            for (ptrdiff_t c = 0; c < r->channels; c++) {
                const size_t cell = (size_t)(q + index[place[c * p->place_at.channel]]);
                if (cell < size)
                    to[cell + c] += dy[c * p->y_at.channel];
            }
}

enum {
    NAME(PLANES) = 2, /* scattered to in turn, */
    NAME(SHARED) = 8, /* where so many neighbours in a row may have one maximum, each sum of which waits for the last */
};

/* The same in some planes in turn. */
static void NAME(scatter_planes)(const Pool *p, const NAME(Area) *r, ptrdiff_t row, const unsigned char *place,
                                 const T *dy, T *to)
{
    const ptrdiff_t *index = p->index;
    const size_t size = (size_t)(r->rows * p->w.size);
    ptrdiff_t q = (row * p->h.stride - p->h.before - r->row) * p->w.size - p->w.before;
    for (ptrdiff_t j = 0; j < p->w.output; j++, q += p->w.stride, place += p->place_at.cell, dy += p->y_at.cell)
        for (ptrdiff_t c = 0; c < NAME(PLANES); c++) {
            const size_t cell = (size_t)(q + index[place[c * p->place_at.channel]]);
            if (cell < size)
                to[cell + c * p->x_at.channel] += dy[c * p->y_at.channel];
        }
}

static void NAME(scatter_indices)(const Pool *p, const NAME(Area) *r, const int64_t *place, const T *dy, T *to)
{
    const size_t first = (size_t)(r->row * p->w.size), size = (size_t)(r->rows * p->w.size);
    for (ptrdiff_t j = 0; j < p->w.output; j++)
        for (ptrdiff_t c = 0; c < r->channels; c++) {
            const size_t cell = (size_t)place[j * p->place_at.cell + c * p->place_at.channel] - first;
            if (cell < size)
                to[cell * p->width + c] += dy[j * p->y_at.cell + c * p->y_at.channel];
        }
}

/* Whether a cell of a pixel may gather, by vectors of 32 bytes: others take long to compare bytes. */
#if !defined(PLAIN_C) && HAS_SHUFFLE && VECTOR_BYTES >= 32
#define GATHERS 1
#define FOUR_OF(i) i, i, i, i
#define EIGHT_OF(i) FOUR_OF(i), FOUR_OF(i)
#if LANE_COUNT == VECTOR_BYTES / 4
#define OF_LANES                                                                                                      \
    FOUR_OF(0), FOUR_OF(1), FOUR_OF(2), FOUR_OF(3), FOUR_OF(20), FOUR_OF(21), FOUR_OF(22), FOUR_OF(23)
typedef int64_t NAME(Few);
#else
#define OF_LANES EIGHT_OF(0), EIGHT_OF(1), EIGHT_OF(18), EIGHT_OF(19)
typedef int32_t NAME(Few);
#endif
typedef NAME(Few) NAME(Fews) __attribute__((vector_size(32)));
typedef unsigned char NAME(Bytes) __attribute__((vector_size(32)));
typedef INTEGER NAME(Taps) __attribute__((vector_size(32)));

/* As many bytes as a Stream has lanes, each in all bytes of its lane; they are there in both halves of `bytes`. */
ALWAYS NAME(Taps) NAME(load_taps)(const unsigned char *from)
{
    NAME(Few) few;
    memcpy(&few, from, sizeof(few));
    const NAME(Bytes) bytes = (NAME(Bytes))(few - (NAME(Fews)){0});
    return (NAME(Taps))__builtin_shufflevector(bytes, bytes, OF_LANES);
}
#undef FOUR_OF
#undef EIGHT_OF
#undef OF_LANES

enum { NAME(TAPS) = 128 / sizeof(T) }; /* of a window at most: to scatter its gradient takes as long */

/* The windows that see a cell, in the order of outputs: their channels, and in all bytes of a number which tap it is. */
typedef struct {
    ptrdiff_t count;
    const T *dy[NAME(TAPS)];
    const unsigned char *place[NAME(TAPS)];
    INTEGER tap[NAME(TAPS)];
} NAME(Seers);

/* The first window along an axis that sees cell q, and the one after the last. */
ALWAYS ptrdiff_t NAME(first_seer)(const Slide *s, ptrdiff_t q)
{
    return NAME(most)(0, NAME(ceiling)(q + s->before - s->reach + 1, s->stride));
}

ALWAYS ptrdiff_t NAME(end_of_seers)(const Slide *s, ptrdiff_t q)
{
    return NAME(least)(s->output, (q + s->before) / s->stride + 1);
}

ALWAYS void NAME(gather_vectors)(const NAME(Seers) *seers, const int vectors, ptrdiff_t c, T *dx)
{
    Stream sum[NAME(ABREAST)] = {0};
    for (ptrdiff_t i = 0; i < seers->count; i++) {
        const NAME(Taps) tap = seers->tap[i] - (NAME(Taps)){0};
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            const ptrdiff_t at = c + v * STREAM_LANES;
            const NAME(Taps) here = NAME(load_taps)(seers->place[i] + at) == tap;
            sum[v] += (Stream)(here & (NAME(Taps))*(const Stream *)(seers->dy[i] + at));
        }
    }
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++)
        *(Stream *)(dx + c + v * STREAM_LANES) = sum[v];
}

/* Rows of cells with at least a vector of channels: each gathers the gradients of windows whose maximum it is. */
static void NAME(gather_pixels)(const Pool *p, const NAME(Area) *r, T *dx)
{
    const Places *y = &p->y_at, *at = &p->place_at;
    const T *dy = (const T *)p->y + r->image * y->image;
    const unsigned char *place = p->bytes + r->image * at->image;
    const ptrdiff_t C = p->width;
    NAME(Seers) seers;
    for (ptrdiff_t h = r->row; h < r->row + r->rows; h++)
        for (ptrdiff_t w = 0; w < p->w.size; w++, dx += C) {
            const ptrdiff_t end_i = NAME(end_of_seers)(&p->h, h), first_j = NAME(first_seer)(&p->w, w);
            const ptrdiff_t end_j = NAME(end_of_seers)(&p->w, w);
            seers.count = 0;
            for (ptrdiff_t i = NAME(first_seer)(&p->h, h); i < end_i; i++)
                for (ptrdiff_t j = first_j; j < end_j; j++, seers.count++) {
                    seers.dy[seers.count] = dy + i * y->row + j * y->cell;
                    seers.place[seers.count] = place + i * at->row + j * at->cell;
                    const ptrdiff_t kh = h + p->h.before - i * p->h.stride, kw = w + p->w.before - j * p->w.stride;
                    memset(&seers.tap[seers.count], (int)(kh * p->w.kernel + kw), sizeof(INTEGER));
                }
            ptrdiff_t c = 0;
            for (; c + NAME(ABREAST) * STREAM_LANES <= C; c += NAME(ABREAST) * STREAM_LANES)
                NAME(gather_vectors)(&seers, NAME(ABREAST), c, dx);
            for (; c < C; c += STREAM_LANES)
                NAME(gather_vectors)(&seers, 1, NAME(least)(c, C - STREAM_LANES), dx);
        }
}

#else
#define GATHERS 0
enum { NAME(TAPS) = 0 };

static void NAME(gather_pixels)(const Pool *p, const NAME(Area) *r, T *dx) { (void)p, (void)r, (void)dx; }
#endif

/* dx scattered to from rows of dy, to the places of maxima or to all cells equal to them. dx is contiguous, and regions
   follow each other in it; they are cleared first if they are to be (p->zero), while they come into the cache.

     for region: some rows of a plane, or of all channels
       for row of outputs that see it, for column, for channel             planes of large windows: two at once
       or for row of its cells, for column, for vector of channels         small windows of pixels: gathered          */
static void NAME(pool_scatter)(const Pool *p, ptrdiff_t first, ptrdiff_t end, void *scratch)
{
    const Places *x = &p->x_at, *y = &p->y_at, *at = &p->place_at;
    const ptrdiff_t line = p->w.size * p->width;
    const int shared = p->width == 1 && p->h.blocks == 1 && p->bytes && p->ties == TIES_FIRST &&
                       p->w.kernel >= NAME(SHARED) * p->w.stride;
    const int vectors = GATHERS && p->width >= STREAM_LANES && y->channel == 1 && at->channel == 1;
    const int gathers = vectors && p->bytes && p->ties == TIES_FIRST && p->h.dilation == 1 && p->w.dilation == 1 &&
                        p->h.kernel * p->w.kernel <= NAME(TAPS) && p->zero && p->end_row == p->h.output;
    NAME(Area) r = NAME(area)(p, first);
    (void)scratch;
    if (p->zero && !gathers) {
        const NAME(Area) last = NAME(area)(p, end - 1);
        T *from = (T *)p->x + r.image * x->image + r.channel * x->channel + r.row * line;
        T *to = (T *)p->x + last.image * x->image + last.channel * x->channel + (last.row + last.rows) * line;
        memset(from, 0, (size_t)(to - from) * sizeof(T));
    }
    while (first < end) {
        T *dx = (T *)p->x + r.image * x->image + r.channel * x->channel;
        ptrdiff_t row = r.row + p->h.before - p->h.reach, end_row = p->end_row, planes = 1;
        row = row < 0 ? 0 : row / p->h.stride + 1;
        if (row < p->row)
            row = p->row;
        if ((end_row - 1) * p->h.stride >= r.row + r.rows + p->h.before)
            end_row = NAME(ceiling)(r.row + r.rows + p->h.before, p->h.stride);
        if (shared && NAME(least)(end - first, p->channels - r.channel) >= NAME(PLANES))
            planes = NAME(PLANES);
        if (gathers)
            NAME(gather_pixels)(p, &r, dx + r.row * line);
        for (; row < end_row && !gathers; row++) {
            const T *dy = (const T *)p->y + r.image * y->image + r.channel * y->channel + row * y->row;
            const ptrdiff_t place = r.image * at->image + r.channel * at->channel + row * at->row;
            if (p->ties != TIES_FIRST)
                NAME(share_row)(p, &r, row, place, dy, dx);
            else if (planes > 1)
                NAME(scatter_planes)(p, &r, row, p->bytes + place, dy, dx);
            else if (p->bytes)
                NAME(scatter_bytes)(p, &r, row, p->bytes + place, dy, dx + r.row * line);
            else
                NAME(scatter_indices)(p, &r, p->indices + place, dy, dx + r.row * line);
        }
        for (first += planes; planes > 0; planes--)
            NAME(next_band)(p, &r);
    }
}

/* The gradients of the four cells of windows, of which `cell` were the numbers. */
ALWAYS void NAME(share_tile)(const int ties, Vector *cell, Vector gradient)
{
    const Vector nothing = NAME(spread)(0);
    const Mask right[2] = {NAME(later)(cell[0], cell[1]), NAME(later)(cell[2], cell[3])};
    const Vector top = NAME(choose)(right[0], cell[1], cell[0]), bottom = NAME(choose)(right[1], cell[3], cell[2]);
    const Mask below = NAME(later)(top, bottom);
    if (ties == TIES_FIRST) {
        const Vector of_row[2] = {NAME(choose)(below, nothing, gradient), NAME(choose)(below, gradient, nothing)};
        for (int k = 0; k < 4; k++)
            cell[k] = k % 2 ? NAME(choose)(right[k / 2], of_row[k / 2], nothing)
                            : NAME(choose)(right[k / 2], nothing, of_row[k / 2]);
        return;
    }
    const Vector best = NAME(choose)(below, bottom, top);
    Vector equal = nothing;
    Mask same[4];
    for (int k = 0; k < 4; k++) {
        same[k] = (cell[k] == best) | ((cell[k] != cell[k]) & (best != best));
        equal += NAME(choose)(same[k], NAME(spread)(1), nothing);
    }
    if (ties == TIES_SPLIT)
        gradient /= equal;
    for (int k = 0; k < 4; k++)
        cell[k] = NAME(choose)(same[k], gradient, nothing);
}

enum { NAME(COPIED) = 256 }; /* windows at a time: ten times so many numbers fit the first cache */

/* One row of windows from strides of any kind: cells under the same tap are copied together. Nothing is read or written
   besides what belongs to the row. */
static void NAME(tiles_by_copies)(const Pool *p, const T *x, const T *dy, T *dx)
{
    const ptrdiff_t width = NAME(clip)(p->width, NAME(COPIED)), block = NAME(COPIED) / width, line = p->w.size * p->width;
    T cells[5][NAME(COPIED) + LANES] = {{0}};
    for (ptrdiff_t c = 0; c < p->width; c += width)
        for (ptrdiff_t j = 0; j < p->w.output; j += block) {
            const ptrdiff_t channels = NAME(clip)(p->width - c, width), columns = NAME(clip)(p->w.output - j, block);
            const T *from = x + 2 * j * p->seen_at.cell + c * p->seen_at.channel;
            T *to = dx + 2 * j * p->width + c;
            NAME(lay_cells)(cells[4], channels, 1, dy + j * p->y_at.cell + c * p->y_at.channel, p->y_at.cell,
                            p->y_at.channel, channels, columns);
            for (int k = 0; k < 4; k++)
                NAME(lay_cells)(cells[k], channels, 1, from + k / 2 * p->seen_at.row + k % 2 * p->seen_at.cell,
                                2 * p->seen_at.cell, p->seen_at.channel, channels, columns);
            for (ptrdiff_t i = 0; i < columns * channels; i += LANES) {
                Vector cell[4];
                for (int k = 0; k < 4; k++)
                    cell[k] = NAME(load)(cells[k] + i);
                NAME(share_tile)(p->ties, cell, NAME(load)(cells[4] + i));
                for (int k = 0; k < 4; k++)
                    NAME(store)(cells[k] + i, cell[k]);
            }
            for (int k = 0; k < 4; k++)
                NAME(lay_cells)(to + k / 2 * line + k % 2 * p->width, 2 * p->width, 1, cells[k], channels, 1, channels,
                                columns);
        }
}

/* Rows of windows in planes, two at a time where one fills no more than half a vector. With less than a vector in a row,
   what comes after the rows is read and written too. */
ALWAYS void NAME(tiles_of_planes)(const Pool *p, const int ties, int two, ptrdiff_t rows, const T *x, const T *dy, T *dx)
{
    const ptrdiff_t line = p->w.size, bottom = p->seen_at.row, dy_row = p->y_at.row, columns = p->w.output;
    const ptrdiff_t next = two ? 2 * bottom : LANES, step = 1 + two;
    const int far = columns > 2 * LANES; /* rows so long that the processor does not foresee the next pair */
    for (ptrdiff_t i = 0; i < rows; i += step, x += step * 2 * bottom, dy += step * dy_row, dx += step * 2 * line)
        for (ptrdiff_t j = 0; j < columns; j += LANES) {
            if (columns >= LANES && j > columns - LANES)
                j = columns - LANES;
            T *to = dx + 2 * j;
            Vector cell[4];
            for (int k = 0; k < 4; k++) {
                const T *from = x + k / 2 * bottom + 2 * j;
                cell[k] = NAME(near_second_of)(from, from + next, k % 2);
                if (far)
                    PREFETCH(from + 2 * bottom + k % 2 * LANES);
            }
            const Vector gradient = two ? NAME(first_halves)(dy + j, dy + j + dy_row) : NAME(load)(dy + j);
            NAME(share_tile)(ties, cell, NAME(near_order)(gradient));
            const Vector after = NAME(near_woven)(cell[0], cell[1], 1);
            NAME(store)(to, NAME(near_woven)(cell[0], cell[1], 0));
            if (!two)
                NAME(store)(to + LANES, after);
            NAME(store)(to + line, NAME(near_woven)(cell[2], cell[3], 0));
            if (two)
                NAME(store)(to + 2 * line, after);
            NAME(store)(to + line + (two ? 2 * line : LANES), NAME(near_woven)(cell[2], cell[3], 1));
        }
}

/* The same where lanes are channels, a vector of them at least. */
ALWAYS void NAME(tiles_of_pixels)(const Pool *p, const int ties, ptrdiff_t rows, const T *x, const T *dy, T *dx)
{
    const ptrdiff_t C = p->width, line = p->w.size * C, row = p->seen_at.row, cell = p->seen_at.cell;
    for (ptrdiff_t i = 0; i < rows; i++, x += 2 * row, dy += p->y_at.row, dx += 2 * line)
        for (ptrdiff_t j = 0; j < p->w.output; j++)
            for (ptrdiff_t c = 0; c < C; c += LANES) {
                if (c > C - LANES)
                    c = C - LANES;
                Vector cells[4];
                for (int k = 0; k < 4; k++)
                    cells[k] = NAME(load)(x + k / 2 * row + (2 * j + k % 2) * cell + c);
                NAME(share_tile)(ties, cells, NAME(load)(dy + j * p->y_at.cell + c));
                for (int k = 0; k < 4; k++)
                    NAME(store)(dx + k / 2 * line + (2 * j + k % 2) * C + c, cells[k]);
            }
}

/* Both compiled for what becomes of ties. */
static void NAME(tiles_in_place)(const Pool *p, int two, ptrdiff_t rows, const T *x, const T *dy, T *dx)
{
#define TILES(ties)                                                                                                   \
    if (p->width == 1)                                                                                                \
        NAME(tiles_of_planes)(p, ties, two, rows, x, dy, dx);                                                         \
    else                                                                                                              \
        NAME(tiles_of_pixels)(p, ties, rows, x, dy, dx);
    if (p->ties == TIES_FIRST) {
        TILES(TIES_FIRST)
    } else if (p->ties == TIES_ALL) {
        TILES(TIES_ALL)
    } else {
        TILES(TIES_SPLIT)
    }
#undef TILES
}

/* Some rows of windows; x as long as dx, which may be read and written up to their ends, and dy. */
static void NAME(tile_rows)(const Pool *p, ptrdiff_t rows, const T *x, const T *dy, const T *dy_end, T *dx, T *dx_end)
{
    const ptrdiff_t line = p->w.size * p->width, rest = line - 2 * p->w.output * p->width;
    const int planes = p->width == 1 && p->seen_at.cell == 1 && p->y_at.cell == 1;
    const int pixels = p->width >= LANES && p->width > 1 && p->seen_at.channel == 1 && p->y_at.channel == 1;
    const int two = planes && 2 * p->w.output <= LANES;
    ptrdiff_t in_place = planes || pixels ? rows : 0;
    if (planes && p->w.output < LANES) {
        while (in_place && (dx_end - dx < (2 * in_place - 1) * line + 2 * LANES ||
                            dy_end - dy < (in_place - 1) * p->y_at.row + LANES))
            in_place--;
        in_place -= two && in_place % 2;
    }
    NAME(tiles_in_place)(p, two, in_place, x, dy, dx);
    for (ptrdiff_t i = in_place; i < rows; i++)
        NAME(tiles_by_copies)(p, x + 2 * i * p->seen_at.row, dy + i * p->y_at.row, dx + 2 * i * line);
    for (ptrdiff_t i = 1; rest && i <= 2 * rows; i++)
        NAME(fill)(dx + i * line - rest, 0, rest);
}

/* dx where windows of 2 x 2 cells tile the image from its first cell on, but for a last row or column. The maximum is
   found again in x, which is read once as dy is, and each cell of dx is written once. dx is contiguous, and regions
   follow each other in it.

     for region: some pairs of rows of a plane, or of all channels                          all as one where they can
       for pair of rows, for vector of windows                                                                       */
static void NAME(pool_tiles)(const Pool *p, ptrdiff_t first, ptrdiff_t end, void *scratch)
{
    const Places *x = &p->seen_at, *y = &p->y_at, *to = &p->x_at;
    const ptrdiff_t line = p->w.size * p->width, dy_line = p->w.output * p->width;
    const int rows_follow = x->cell == to->cell && x->row == to->row && y->row == dy_line;
    const int all_follow = rows_follow && p->h.size == 2 * p->h.output && x->channel == to->channel &&
                           x->image == to->image && y->image == p->h.output * p->w.output * p->channels &&
                           (p->channels == p->width || y->channel == p->h.output * dy_line);
    const NAME(Area) last = NAME(area)(p, end - 1);
    T *dx_end = (T *)p->x + last.image * to->image + last.channel * to->channel +
                NAME(least)(2 * (last.row + last.rows), p->h.size) * line;
    (void)scratch;
    for (; first < end; first++) {
        const NAME(Area) r = NAME(area)(p, first);
        T *dx = (T *)p->x + r.image * to->image + r.channel * to->channel + 2 * r.row * line;
        const T *seen = (const T *)p->seen + r.image * x->image + r.channel * x->channel + 2 * r.row * x->row;
        const T *dy = (const T *)p->y + r.image * y->image + r.channel * y->channel + r.row * y->row;
        if (all_follow) {
            const ptrdiff_t rows = (dx_end - dx) / (2 * line);
            NAME(tile_rows)(p, rows, seen, dy, dy + rows * dy_line, dx, dx_end);
            return;
        }
        const ptrdiff_t rows = NAME(least)(r.row + r.rows, p->h.output) - r.row, ours = rows_follow ? rows : 0;
        const ptrdiff_t odd = NAME(least)(2 * (r.row + r.rows), p->h.size) - 2 * (r.row + rows);
        NAME(tile_rows)(p, rows, seen, dy, dy + ours * dy_line, dx, dx + 2 * ours * line);
        NAME(fill)(dx + 2 * rows * line, 0, odd * line);
    }
}

/* ------------------------------------------------------------------------------------------------- whole images */

/* The first largest of `count` neighbours, whose places begin with q, if it is larger than `best`. */
ALWAYS void NAME(maximum)(const T *from, ptrdiff_t count, ptrdiff_t q, T *best, int64_t *place)
{
    ptrdiff_t i = 0;
    if (count >= LANES) {
        Vector values = NAME(load)(from);
        Mask vectors = NAME(spread_place)(0);
        for (i = LANES; i + LANES <= count; i += LANES)
            NAME(take)(TAKE_PLACE, &values, &vectors, NAME(load)(from + i), NAME(spread_place)(i / LANES));
        const T *lanes = (const T *)&values;
        const INTEGER *vector = (const INTEGER *)&vectors;
        ptrdiff_t first = 0;
        for (ptrdiff_t lane = 1; lane < LANES; lane++) {
            const int equal = lanes[lane] == lanes[first] || (lanes[lane] != lanes[lane] && lanes[first] != lanes[first]);
            if (NAME(is_later)(lanes[first], lanes[lane]) || (equal && vector[lane] < vector[first]))
                first = lane;
        }
        if (NAME(is_later)(*best, lanes[first])) {
            *best = lanes[first];
            *place = q + vector[first] * LANES + first;
        }
    }
    for (; i < count; i++)
        if (NAME(is_later)(*best, from[i])) {
            *best = from[i];
            *place = q + i;
        }
}

/* The same of a vector of channels. */
ALWAYS void NAME(maximum_of_pixels)(const Places *p, const T *image, ptrdiff_t q0, ptrdiff_t count, T *best,
                                    int64_t *place)
{
    Vector values = NAME(spread)(-(T)INFINITY);
    Mask places = NAME(spread_place)(0);
    for (ptrdiff_t done = 0; done < count;) {
        const ptrdiff_t q = q0 + done, end = done + NAME(clip)(p->columns - q % p->columns, count - done);
        const T *pixel = image + q / p->columns * p->row + q % p->columns * p->cell;
        for (; done < end; done++, pixel += p->cell)
            NAME(take)(TAKE_PLACE, &values, &places, NAME(load)(pixel), NAME(spread_place)(done));
    }
    NAME(store)(best, values);
    for (ptrdiff_t lane = 0; lane < LANES; lane++)
        place[lane] = q0 + ((const INTEGER *)&places)[lane];
}

/* Maximum of each of C channels of an image over places q0 to q0 + count - 1, and where it first is. Lanes are channels
   where these are neighbours, else columns. */
static void NAME(channel_maxima)(const Places *p, const void *image, ptrdiff_t q0, ptrdiff_t count, ptrdiff_t C,
                                 void *best, int64_t *place)
{
    const int together = p->cell == 1 && (p->row == p->columns || p->rows == 1);
    T copy[32 * NAME(BLOCK)], *values = best;
    if (p->channel == 1 && C >= LANES)
        for (ptrdiff_t c = 0; c < C; c += LANES) {
            const ptrdiff_t lane = c + LANES > C ? C - LANES : c;
            NAME(maximum_of_pixels)(p, (const T *)image + lane, q0, count, values + lane, place + lane);
        }
    else
        for (ptrdiff_t c = 0; c < C; c++) {
            const T *plane = (const T *)image + c * p->channel;
            values[c] = -(T)INFINITY;
            place[c] = q0;
            if (together)
                NAME(maximum)(plane + q0, count, q0, values + c, place + c);
            else
                for (ptrdiff_t q = q0, run; q < q0 + count; q += run) {
                    const ptrdiff_t rest = NAME(clip)(p->columns - q % p->columns, q0 + count - q);
                    run = NAME(clip)(rest, 32 * NAME(BLOCK));
                    NAME(collect)(p, plane, q, run, copy);
                    NAME(maximum)(copy, run, q, values + c, place + c);
                }
        }
}

/* Places q0 to q0 + count - 1 of each of C channels of a contiguous image set to one number a channel. */
static void NAME(channel_fill)(const Places *p, int by_pixels, void *image, ptrdiff_t q0, ptrdiff_t count,
                               ptrdiff_t C, const void *numbers)
{
    if (by_pixels)
        for (ptrdiff_t q = q0; q < q0 + count; q++)
            NAME(copy)((T *)image + q / p->columns * p->row + q % p->columns * p->cell, numbers, C);
    else
        for (ptrdiff_t c = 0; c < C; c++)
            NAME(fill)((T *)image + c * p->channel + q0, ((const T *)numbers)[c], count);
}

/* Means of `count` channels, so far apart, from sums over so many cells. */
static void NAME(channel_means)(const double *sums, ptrdiff_t count, ptrdiff_t cells, void *means, ptrdiff_t step)
{
    for (ptrdiff_t c = 0; c < count; c++)
        ((T *)means)[c * step] = (T)(sums[c] / (double)cells);
}

#undef GATHERS
