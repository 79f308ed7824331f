/* Matrices turned in registers; part of template.h.

   Four rows of a register hold 4 x 4 blocks side by side, each of which is turned by two rounds of interleaving. So as
   many rows as a vector has lanes are read, by fours of columns, and whole vectors are written. */

#define SIDE 4 /* of a block */

#if !defined(PLAIN_C) && HAS_SHUFFLE
typedef T NAME(Four) __attribute__((vector_size(SIDE * sizeof(T)), aligned(sizeof(T)), may_alias));

/* Lanes of a pair of vectors of n: of a block that begins at lane i, or of all their blocks. */
#define LOW(i, n) i, i + n, i + 1, i + n + 1
#define HIGH(i, n) LOW(i + 2, n)
#define LOW_PAIRS(i, n) i, i + 1, i + n, i + n + 1
#define HIGH_PAIRS(i, n) LOW_PAIRS(i + 2, n)
#define BLOCKS_4(lanes) lanes(0, 4)
#define BLOCKS_8(lanes) lanes(0, 8), lanes(4, 8)
#define BLOCKS_16(lanes) lanes(0, 16), lanes(4, 16), lanes(8, 16), lanes(12, 16)
#define EVERY(i, n) i, i + 1, i + 2, i + 3
#define JOINED_VECTORS(a, b, blocks) __builtin_shufflevector(a, b, blocks(EVERY))

/* to[k][o] = from[o][k] for n rows o and 4 columns k; FOURS(i) is row i, then row i + 4, i + 8, .. in one vector. */
#define TURN(name, V, FOURS, blocks)                                                                                  \
    ALWAYS void NAME(name)(const T *from, ptrdiff_t row, T *to, ptrdiff_t width)                                      \
    {                                                                                                                 \
        V a = FOURS(from), b = FOURS(from + row), c = FOURS(from + 2 * row), d = FOURS(from + 3 * row);               \
        V ab_low = __builtin_shufflevector(a, b, blocks(LOW)), ab_high = __builtin_shufflevector(a, b, blocks(HIGH)); \
        V cd_low = __builtin_shufflevector(c, d, blocks(LOW)), cd_high = __builtin_shufflevector(c, d, blocks(HIGH)); \
        *(V *)to = __builtin_shufflevector(ab_low, cd_low, blocks(LOW_PAIRS));                                        \
        *(V *)(to + width) = __builtin_shufflevector(ab_low, cd_low, blocks(HIGH_PAIRS));                             \
        *(V *)(to + 2 * width) = __builtin_shufflevector(ab_high, cd_high, blocks(LOW_PAIRS));                        \
        *(V *)(to + 3 * width) = __builtin_shufflevector(ab_high, cd_high, blocks(HIGH_PAIRS));                       \
    }
#define ONE_FOUR(from) (*(const NAME(Four) *)(from))
#define TWO_FOURS(from) JOINED_VECTORS(ONE_FOUR(from), ONE_FOUR(from + 4 * row), BLOCKS_8)
#define FOUR_FOURS(from) JOINED_VECTORS(TWO_FOURS(from), TWO_FOURS(from + 8 * row), BLOCKS_16)

TURN(turn, NAME(Four), ONE_FOUR, BLOCKS_4)
#if LANE_COUNT == 16
TURN(turn_vectors, Vector, FOUR_FOURS, BLOCKS_16)
#elif LANE_COUNT == 8
TURN(turn_vectors, Vector, TWO_FOURS, BLOCKS_8)
#endif
#undef LOW
#undef HIGH
#undef LOW_PAIRS
#undef HIGH_PAIRS
#undef BLOCKS_4
#undef BLOCKS_8
#undef BLOCKS_16
#undef EVERY
#undef JOINED_VECTORS
#undef TURN
#undef ONE_FOUR
#undef TWO_FOURS
#undef FOUR_FOURS
#else
/* to[k][o] = from[o][k] for a block. */
ALWAYS void NAME(turn)(const T *from, ptrdiff_t row, T *to, ptrdiff_t width)
{
    for (int o = 0; o < SIDE; o++)
        for (int k = 0; k < SIDE; k++)
            to[k * width + o] = from[o * row + k];
}
#endif

/* Row c0 of a band of so many rows, the last of which may begin earlier; so may the last columns:

     for c in bands of C
       for j in fours of J                                                                                          */
#define BANDS(height, turn)                                                                                           \
    for (ptrdiff_t c0 = 0; c0 < C; c0 += height)                                                                      \
        for (ptrdiff_t j0 = 0; j0 < J; j0 += SIDE) {                                                                  \
            ptrdiff_t c = NAME(least)(c0, C - height), j = NAME(least)(j0, J - SIDE);                                 \
            NAME(turn)(from + c * row + j, row, to + j * to_row + c, to_row);                                         \
        }

/* to[j][c] = from[c][j]. */
ALWAYS void NAME(transpose)(const T *restrict from, ptrdiff_t row, ptrdiff_t C, ptrdiff_t J, T *restrict to,
                            ptrdiff_t to_row)
{
#if !defined(PLAIN_C) && HAS_SHUFFLE && LANE_COUNT > SIDE
    if (C >= LANES && J >= SIDE)
        BANDS(LANES, turn_vectors)
    else
#endif
    if (C >= SIDE && J >= SIDE)
        BANDS(SIDE, turn)
    else
        for (ptrdiff_t j = 0; j < J; j++)
            for (ptrdiff_t c = 0; c < C; c++)
                to[j * to_row + c] = from[c * row + j];
}

#undef BANDS
#undef SIDE
