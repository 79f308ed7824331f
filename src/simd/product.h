/* The product C = A B of matrices, a tile of C in registers at a time; part of template.h.

   After Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008. Any M, N, K. */

enum { /* how the numbers of A are found, see Left */
    NAME(PACKED),
    NAME(IN_ROWS),
    NAME(PLACED),
};

enum { /* how the vectors of B are found, see Right and Vectors */
    NAME(EVEN),
    NAME(ROWS_PLACED),
    NAME(TAPS_PLACED),
    NAME(VECTORS_PLACED),
};

enum { /* a tile of few rows has more vectors, whose sums fill the registers, too */
    NAME(FEW_ROWS) = 3,
    NAME(WIDE) = MR * NV / NAME(FEW_ROWS) > NV ? MR * NV / NAME(FEW_ROWS) : NV,
};

/* Where vector v of a panel begins. The last may overlap the one before; not where rows of A take all registers. */
ALWAYS ptrdiff_t NAME(column)(const int a_is, const int nv, const int v, ptrdiff_t last)
{
    return a_is == NAME(IN_ROWS) || v == 0 || v < nv - 1 ? v * LANES : last;
}

#define EACH(i, count) _Pragma("GCC unroll 16") for (int i = 0; i < (count); i++)

/* One k of a tile. A number stays in use until its products are made: a compiler that puts a sum into its register has
   to move sums around, and finds too few registers. What there is less of is loaded first: the vectors of a row of B,
   or of few rows the numbers of A. */
#define ADD_PRODUCT(k)                                                                                                \
    {                                                                                                                 \
        const ptrdiff_t at = a_is == NAME(PACKED) ? (k) * step : a_is == NAME(PLACED) ? offset[k] : 0;                \
        const T *b_k = b_part + (rows_placed ? place[k] : (k) * b_row);                                               \
        if (a_is == NAME(PACKED) && b_is == NAME(EVEN))                                                               \
            PREFETCH(next + (k) * b_row);                                                                             \
        if (nv > NV) {                                                                                                \
            Vector numbers[MR];                                                                                       \
            EACH(m, mr)                                                                                               \
                numbers[m] = NAME(spread)(A_NUMBER(m));                                                               \
            EACH(v, nv) {                                                                                             \
                const Vector vector = NAME(load)(b_k + B_VECTOR(v));                                                  \
                EACH(m, mr)                                                                                           \
                    acc[m * nv + v] += numbers[m] * vector;                                                           \
            }                                                                                                         \
        } else {                                                                                                      \
            Vector vectors_of_k[NV];                                                                                  \
            EACH(v, nv)                                                                                               \
                vectors_of_k[v] = NAME(load)(b_k + B_VECTOR(v));                                                      \
            EACH(m, mr) {                                                                                             \
                const Vector number = NAME(spread)(A_NUMBER(m));                                                      \
                EACH(v, nv)                                                                                           \
                    acc[m * nv + v] += number * vectors_of_k[v];                                                      \
                IN_USE(number);                                                                                       \
            }                                                                                                         \
            EACH(v, nv)                                                                                               \
                IN_USE(vectors_of_k[v]);                                                                              \
        }                                                                                                             \
        if (a_is == NAME(IN_ROWS))                                                                                    \
            EACH(m, (mr + 3) / 4) { /* a register for four rows, not for each: there are too few */                   \
                rows[m * 4]++;                                                                                        \
                OPAQUE(rows[m * 4]);                                                                                  \
            }                                                                                                         \
    }

/* One tile of C in registers:

     for part of K                               one; or a tap, where those of vectors are placed
       for k                                     a row of B, NV vectors, from the first cache
         for m in rows of the tile               a number of A, spread
           for v in vectors of the row           acc[m][v] += a[m][k] * b[k][v]                                     */
ALWAYS void NAME(tile)(const int mr, const int nv, const int a_is, const int b_is, ptrdiff_t K, const Left *left,
                       ptrdiff_t m0, const T *b, const Right *right, const Vectors *vectors, const T *next,
                       const Target *to, const T *column_bias, const ptrdiff_t last)
{
#define A_NUMBER(m)                                                                                                   \
    (a_is == NAME(PACKED)   ? a_part[at + m]                                                                          \
     : a_is == NAME(PLACED) ? rows[m][at]                                                                             \
                            : rows[m / 4 * 4][m % 4 * row])
#define B_VECTOR(v) (vectors ? vectors->place[v] : NAME(column)(a_is, nv, v, last))
#define C_VECTOR(v) (vectors ? vectors->to[v] : NAME(column)(a_is, nv, v, last))
#define C_ROW(m) (a_is == NAME(PLACED) ? c_place[m0 + m] : m * c_row)
    const int rows_placed = b_is == NAME(ROWS_PLACED) || b_is == NAME(VECTORS_PLACED);
    const ptrdiff_t parts = b_is == NAME(TAPS_PLACED) ? vectors->taps : 1;
    const ptrdiff_t *c_place = to->place, c_row = to->row;
    const int add = to->add, relu = to->relu;
    T *c = (T *)to->data + (a_is == NAME(PLACED) ? 0 : m0 * c_row);
    const T *row_bias = to->row_bias ? (const T *)to->row_bias + m0 : NULL;
    const T *a = (const T *)left->data + (a_is == NAME(PLACED) ? 0 : m0 / MR * left->tile + m0 % MR * left->row);
    const ptrdiff_t *offset = left->offset, row = left->row, step = left->step;
    const ptrdiff_t *place = right->place, b_row = a_is == NAME(PLACED) ? NR : right->row; /* known: a register less */
    const T *rows[MR];
    Vector acc[MR * NV];
    EACH(m, mr) {
        rows[m] = a_is == NAME(PACKED) ? a + m : a_is == NAME(PLACED) ? a + left->place[m0 + m] : a + m * row;
        EACH(v, nv)
            acc[m * nv + v] = add           ? NAME(load)(c + C_ROW(m) + C_VECTOR(v))
                              : row_bias    ? NAME(spread)(row_bias[m])
                              : column_bias ? NAME(load)(column_bias + B_VECTOR(v))
                                            : NAME(spread)(0);
    }
    for (ptrdiff_t part = 0; part < parts; part++) {
        const T *a_part = a, *b_part = b;
        ptrdiff_t k = 0;
        if (b_is == NAME(TAPS_PLACED))
            a_part += vectors->tap[part] * MR, b_part += vectors->offset[vectors->tap[part]];
        if (K_BY_FOURS && mr == MR)
            for (; k + 4 <= K; k += 4) {
                ADD_PRODUCT(k)
                ADD_PRODUCT(k + 1)
                ADD_PRODUCT(k + 2)
                ADD_PRODUCT(k + 3)
            }
        for (; k < K; k++)
            ADD_PRODUCT(k)
    }
    EACH(m, mr)
        EACH(v, nv) {
            Vector y = acc[m * nv + v];
            NAME(store)(c + C_ROW(m) + C_VECTOR(v), relu ? NAME(relu)(y) : y);
        }
#undef A_NUMBER
#undef B_VECTOR
#undef C_VECTOR
#undef C_ROW
}
#undef ADD_PRODUCT
#undef EACH

/* Fetch a tile of C that is far away, while its sums are made. */
ALWAYS void NAME(fetch_tile)(ptrdiff_t m, ptrdiff_t end, int nv, const int placed, const Vectors *vectors,
                             const Target *to)
{
    for (; m < end; m++)
        for (int v = 0; v < nv; v++)
            PREFETCH_TO_WRITE((const T *)to->data + (placed ? to->place[m] : m * to->row) +
                              (vectors ? vectors->to[v] : v * LANES));
}

/* All rows of C in one panel of nv vectors, in tiles of MR rows, then 4, 2 and 1. The last vector begins at column
   `last`: where it would not be full, it overlaps the one before. */
ALWAYS void NAME(panel)(const int nv, const int a_is, const int b_is, ptrdiff_t M, ptrdiff_t K, const Left *left,
                        const T *b, const Right *right, const Vectors *vectors, const T *next, const Target *to,
                        const T *column_bias, const ptrdiff_t last)
{
    const ptrdiff_t line = 64 / sizeof(T);
    for (ptrdiff_t m = 0; m < M;) {
        const T *ahead = next + m / MR % (NR / line + 1) * line;
        ptrdiff_t rest = M - m;
        if (to->far)
            NAME(fetch_tile)(m, rest < MR ? M : m + MR, nv, a_is == NAME(PLACED), vectors, to);
        if (rest >= MR) {
            NAME(tile)(MR, nv, a_is, b_is, K, left, m, b, right, vectors, ahead, to, column_bias, last);
            m += MR;
        } else if (rest >= 4) {
            NAME(tile)(4, nv, a_is, b_is, K, left, m, b, right, vectors, ahead, to, column_bias, last);
            m += 4;
        } else if (rest >= 2) {
            NAME(tile)(2, nv, a_is, b_is, K, left, m, b, right, vectors, ahead, to, column_bias, last);
            m += 2;
        } else {
            NAME(tile)(1, nv, a_is, b_is, K, left, m, b, right, vectors, ahead, to, column_bias, last);
            m += 1;
        }
    }
}

/* Each number of vectors is compiled for itself. */
ALWAYS void NAME(panel_of)(int nv, const int a_is, const int b_is, ptrdiff_t M, ptrdiff_t K, const Left *left,
                           const T *b, const Right *right, const Vectors *vectors, const T *next, const Target *to,
                           const T *column_bias, ptrdiff_t last)
{
    if (nv == NV)
        NAME(panel)(NV, a_is, b_is, M, K, left, b, right, vectors, next, to, column_bias, last);
    else if (nv == 2)
        NAME(panel)(2, a_is, b_is, M, K, left, b, right, vectors, next, to, column_bias, last);
    else
        NAME(panel)(1, a_is, b_is, M, K, left, b, right, vectors, next, to, column_bias, last);
}

/* So is each kind, in a function of its own: in a larger one compilers find too few registers for a tile. */
#define PANELS(a_is, b_is)                                                                                            \
    NEVER void NAME(panel_##a_is##_##b_is)(int nv, ptrdiff_t M, ptrdiff_t K, const Left *left, const T *b,            \
                                           const Right *right, const T *next, const Target *to,                       \
                                           const T *column_bias, ptrdiff_t last)                                      \
    {                                                                                                                 \
        NAME(panel_of)(nv, NAME(a_is), NAME(b_is), M, K, left, b, right, NULL, next, to, column_bias, last);          \
    }
PANELS(PACKED, EVEN)
PANELS(PACKED, ROWS_PLACED)
PANELS(IN_ROWS, EVEN)
PANELS(IN_ROWS, ROWS_PLACED)
PANELS(PLACED, EVEN)
PANELS(PLACED, ROWS_PLACED)
#undef PANELS

static void NAME(whole_panel)(int nv, ptrdiff_t M, ptrdiff_t K, const Left *left, const T *b, const Right *right,
                              const T *next, const Target *to, const T *column_bias, ptrdiff_t last)
{
#define PANELS(a_is)                                                                                                  \
    (right->place ? NAME(panel_##a_is##_ROWS_PLACED) : NAME(panel_##a_is##_EVEN))                                     \
    (nv, M, K, left, b, right, next, to, column_bias, last)
    if (left->place)
        PANELS(PLACED);
    else if (left->row == 1)
        PANELS(PACKED);
    else
        PANELS(IN_ROWS);
#undef PANELS
}

/* A panel of n columns whose vectors are not full: by way of a buffer, a tile of rows at a time. */
static void NAME(part_panel)(int nv, ptrdiff_t n, ptrdiff_t M, ptrdiff_t K, const Left *left, const T *b,
                             const Right *right, const Target *to, const T *column_bias)
{
#define C_ROW(m) ((T *)to->data + (left->place ? to->place[m] : (m) * to->row))
    T buffer[MR * NR], bias[NR] = {0};
    ptrdiff_t places[MR];
    for (int i = 0; i < MR; i++)
        places[i] = i * NR;
    if (column_bias)
        NAME(copy)(bias, column_bias, n);
    for (ptrdiff_t m = 0; m < M; m += MR) {
        ptrdiff_t rows = M - m < MR ? M - m : MR;
        if (to->add)
            for (ptrdiff_t i = 0; i < rows; i++)
                NAME(copy)(buffer + places[i], C_ROW(m + i), n);
        Left part = *left;
        if (part.place)
            part.place += m;
        else
            part.data = (const T *)part.data + m / MR * part.tile;
        const T *row_bias = to->row_bias ? (const T *)to->row_bias + m : NULL;
        Target buffered = {buffer, NR, to->add, row_bias, NULL, to->relu, places, 0};
        NAME(whole_panel)(nv, rows, K, &part, b, right, b, &buffered, column_bias ? bias : NULL, (nv - 1) * LANES);
        for (ptrdiff_t i = 0; i < rows; i++)
            NAME(copy)(C_ROW(m + i), buffer + places[i], n);
    }
#undef C_ROW
}

static void NAME(multiply)(ptrdiff_t M, ptrdiff_t N, ptrdiff_t K, const Left *a, const Right *b,
                           const Target *c)
{
    for (ptrdiff_t n = 0; n < N; n += NR) {
        ptrdiff_t rest = N - n < NR ? N - n : NR;
        int nv = (int)((rest + LANES - 1) / LANES);
        const T *b_panel = (const T *)b->data + n / NR * b->panel;
        const T *column_bias = c->column_bias ? (const T *)c->column_bias + n : NULL;
        Target to = {(T *)c->data + n, c->row, c->add, c->row_bias, NULL, c->relu, c->place, c->far};
        const T *next = N - n > NR ? b_panel + b->panel : b->next ? b->next : b_panel;
        if (rest == nv * LANES || (rest > LANES && (a->place || a->row == 1)))
            NAME(whole_panel)(nv, M, K, a, b_panel, b, next, &to, column_bias, rest - LANES);
        else
            NAME(part_panel)(nv, rest, M, K, a, b_panel, b, &to, column_bias);
    }
}

/* Up to NV vectors that lie anywhere. */
static void NAME(vectors_panel)(int nv, ptrdiff_t M, ptrdiff_t K, const Left *a, const Right *right,
                                const Vectors *vectors, const Target *c)
{
#define PANELS(b_is)                                                                                                  \
    NAME(panel_of)(nv, NAME(PACKED), NAME(b_is), M, K, a, right->data, right, vectors, right->data, c, NULL, 0)
    if (vectors->tap)
        PANELS(TAPS_PLACED);
    else
        PANELS(VECTORS_PLACED);
#undef PANELS
}

/* WIDE vectors that lie anywhere; each number of rows is compiled for itself. */
static void NAME(few_rows)(ptrdiff_t M, ptrdiff_t K, const Left *a, const Right *right, const Vectors *vectors,
                           const Target *c)
{
#define ROWS(mr)                                                                                                      \
    NAME(tile)                                                                                                        \
    (mr, NAME(WIDE), NAME(PACKED), NAME(VECTORS_PLACED), K, a, 0, right->data, right, vectors, NULL, c, NULL, 0)
    if (M == 3)
        ROWS(3);
    else if (M == 2)
        ROWS(2);
    else
        ROWS(1);
#undef ROWS
}

/* For vectors that lie anywhere: NV at a time, or of few rows of C as many as fill the registers. */
static void NAME(multiply_vectors)(ptrdiff_t M, ptrdiff_t count, ptrdiff_t K, const Left *a, const Vectors *vectors,
                                   const Target *c)
{
    const Right right = {.data = vectors->data, .row = vectors->row, .place = vectors->offset};
    const int few = M <= NAME(FEW_ROWS) && !vectors->tap;
    Vectors part = *vectors;
    for (ptrdiff_t nv; count; count -= nv, part.place += nv, part.to += nv)
        if (few && count >= NAME(WIDE)) {
            nv = NAME(WIDE);
            NAME(few_rows)(M, K, a, &right, &part, c);
        } else {
            nv = NAME(clip)(count, NV);
            NAME(vectors_panel)((int)nv, M, K, a, &right, &part, c);
        }
}

/* for a block of k that stays in the first cache, for a panel, for o in rows of the panel: whole rows of the result
   where neighbours in o are neighbours in memory, blocks of 4 x 4 where those in k are, single numbers elsewhere */
static void NAME(pack)(const void *from, ptrdiff_t row, const ptrdiff_t *offset, ptrdiff_t rows, ptrdiff_t K, void *to,
                       ptrdiff_t width, ptrdiff_t panel)
{
    for (ptrdiff_t k0 = 0; k0 < K; k0 += 64)
        for (ptrdiff_t first = 0; first < rows; first += width) {
            ptrdiff_t k1 = K - k0 < 64 ? K : k0 + 64, o = 0;
            const T *restrict numbers = (const T *)from + first * row;
            T *restrict block = (T *)to + first / width * panel;
            if (row == 1 && rows - first >= width) {
                for (ptrdiff_t k = k0; k < k1; k++)
                    for (o = 0; o < width; o++)
                        block[k * width + o] = numbers[offset[k] + o];
                continue;
            }
            for (; o + 4 <= width && first + o + 4 <= rows; o += 4)
                for (ptrdiff_t k = k0; k < k1;)
                    if (k + 4 <= k1 && offset[k + 1] == offset[k] + 1 && offset[k + 2] == offset[k] + 2 &&
                        offset[k + 3] == offset[k] + 3) {
                        NAME(turn)(numbers + o * row + offset[k], row, block + k * width + o, width);
                        k += 4;
                    } else {
                        for (ptrdiff_t i = o; i < o + 4; i++)
                            block[k * width + i] = numbers[i * row + offset[k]];
                        k++;
                    }
            for (; o < width; o++)
                for (ptrdiff_t k = k0; k < k1; k++)
                    block[k * width + o] = first + o < rows ? numbers[o * row + offset[k]] : 0;
        }
}
