/* Matrices turned in blocks of 4 x 4; part of template.h. */

/* Turn a block of 4 x 4 numbers: to[k][o] = from[o][k]. */
ALWAYS void NAME(turn)(const T *from, ptrdiff_t row, T *to, ptrdiff_t width)
{
#if !defined(PLAIN_C) && HAS_SHUFFLE
    typedef T Four __attribute__((vector_size(4 * sizeof(T)), aligned(sizeof(T)), may_alias));
    Four a = *(const Four *)from, b = *(const Four *)(from + row);
    Four c = *(const Four *)(from + 2 * row), d = *(const Four *)(from + 3 * row);
    Four ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    Four cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    *(Four *)to = __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5);
    *(Four *)(to + width) = __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7);
    *(Four *)(to + 2 * width) = __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5);
    *(Four *)(to + 3 * width) = __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7);
#else
    for (int o = 0; o < 4; o++)
        for (int k = 0; k < 4; k++)
            to[k * width + o] = from[o * row + k];
#endif
}

/* to[j][c] = from[c][j], in blocks of 4 x 4. */
ALWAYS void NAME(transpose)(const T *restrict from, ptrdiff_t row, ptrdiff_t C, ptrdiff_t J, T *restrict to,
                            ptrdiff_t to_row)
{
    ptrdiff_t c = 0;
    for (; c + 4 <= C; c += 4) {
        ptrdiff_t j = 0;
        for (; j + 4 <= J; j += 4)
            NAME(turn)(from + c * row + j, row, to + j * to_row + c, to_row);
        for (; j < J; j++)
            for (ptrdiff_t i = c; i < c + 4; i++)
                to[j * to_row + i] = from[i * row + j];
    }
    for (; c < C; c++)
        for (ptrdiff_t j = 0; j < J; j++)
            to[j * to_row + c] = from[c * row + j];
}
