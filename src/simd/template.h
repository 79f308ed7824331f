/* The vector kernels, written once; each instruction set includes this file for float and for double.

   Here are vectors, and the table of what the files included below make of them. Uses the vector extensions of GCC and
   Clang; for other compilers (PLAIN_C) a vector is one number. Defined by who includes it: SET (name of the instruction
   set), VECTOR_BYTES, REGISTERS (how many), MR (rows of a tile), NV (vectors in a row of a tile), K_BY_FOURS (whether
   four steps of a tile are one turn of its loop), T and INTEGER (a number, and an integer of its size), LANE_COUNT
   (LANES for the preprocessor, unless PLAIN_C), KIND (its name). */

#define JOIN(a, b, c) a##_##b##_##c
#define JOINED(a, b, c) JOIN(a, b, c)
#define NAME(function) JOINED(function, SET, KIND)
#if defined(PLAIN_C)
#define ALWAYS static inline
#define NEVER static
#define LANES ((ptrdiff_t)1)
#define PREFETCH(address) (void)(address)
#define PREFETCH_TO_WRITE(address) (void)(address)
#define OPAQUE(number) (void)(number)
#define IN_USE(vector) (void)(vector)
#else
#define PREFETCH(address) __builtin_prefetch(address, 0, 2)
#define PREFETCH_TO_WRITE(address) __builtin_prefetch(address, 1, 3)
#define OPAQUE(number) __asm__("" : "+r"(number)) /* the compiler does not know what it is from here on */
#if K_BY_FOURS
#define IN_USE(vector) __asm__ volatile("" : : "x"(vector)) /* until here; "x" is a vector register of x86 */
#else
#define IN_USE(vector) (void)(vector)
#endif
#define ALWAYS static inline __attribute__((always_inline))
#define NEVER static __attribute__((noinline))
#define LANES ((ptrdiff_t)(VECTOR_BYTES / sizeof(T)))
#endif

#define Vector NAME(Vector)
#define Mask NAME(Mask)
#define NR (NV * LANES)

#if defined(PLAIN_C)
typedef T Vector;
typedef INTEGER Mask;
#else
typedef T Vector __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(T)), may_alias));
typedef INTEGER Mask __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(T)), may_alias));
#endif

/* Numbers in double, where sums are long: a vector of them, and as many of type T. */
#define Wide NAME(Wide)
#define Half NAME(Half)
#if defined(PLAIN_C)
#define WIDE_LANES 1
typedef double Wide;
typedef T Half;
#define WIDEN(half) ((double)(half))
#define NARROW(wide) ((T)(wide))
#else
#define WIDE_LANES ((ptrdiff_t)(VECTOR_BYTES / sizeof(double)))
typedef double Wide __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(double)), may_alias));
typedef T Half __attribute__((vector_size(VECTOR_BYTES / sizeof(double) * sizeof(T)), aligned(sizeof(T)), may_alias));
#define WIDEN(half) __builtin_convertvector(half, Wide)
#define NARROW(wide) __builtin_convertvector(wide, Half)
#endif

ALWAYS ptrdiff_t NAME(least)(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

ALWAYS ptrdiff_t NAME(most)(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }

ALWAYS Vector NAME(load)(const T *p) { return *(const Vector *)p; }

ALWAYS void NAME(store)(T *p, Vector v) { *(Vector *)p = v; }

#if defined(PLAIN_C)
ALWAYS Vector NAME(spread)(T a) { return a; }

ALWAYS Vector NAME(relu)(Vector v) { return v <= 0 ? 0 : v; }

ALWAYS T NAME(total)(Vector v) { return v; }
#else
ALWAYS Vector NAME(spread)(T a) { return a - (Vector){0}; }

ALWAYS Vector NAME(relu)(Vector v) { return (Vector)(~(Mask)(v <= (Vector){0}) & (Mask)v); }

ALWAYS T NAME(total)(Vector v)
{
    T sum = 0;
    for (int lane = 0; lane < LANES; lane++)
        sum += v[lane];
    return sum;
}
#endif

static int NAME(is_finite)(const void *data, ptrdiff_t count)
{
    const T *numbers = data;
    Vector zeros = NAME(spread)(0); /* a lane becomes NaN with its first number that is not finite */
    ptrdiff_t i = 0;
    for (; i + LANES <= count; i += LANES)
        zeros += NAME(load)(numbers + i) * 0;
    T zero = NAME(total)(zeros);
    for (; i < count; i++)
        zero += numbers[i] * 0;
    return zero == 0;
}

#include "transpose.h"

#include "columns.h"

#include "padded.h"

#include "depthwise.h"

#include "winograd.h"

#include "product.h"

#include "rows.h"

#include "sums.h"

#include "norm.h"

#include "pool.h"

#include "overlaps.h"

#define NAMED_TABLE NAME(kernels)
static const Kernels NAMED_TABLE = {
    MR,
    NR,
    LANES,
    NAME(multiply),
    NAME(multiply_vectors),
    NAME(pack),
    NAME(is_finite),
    NAME(pad_planes),
    NAME(pad_pixels),
    NAME(columns),
    NAME(rows),
    NAME(add_sums),
    NAME(channel_sums),
    NAME(add_columns),
    NAME(add_rows),
    NAME(scatter),
    NAME(depthwise),
    NAME(depthwise_sums),
    NAME(copy_matrix),
    NAME(winograd_tiles),
    NAME(winograd_weights),
    NAME(winograd_outputs),
    NAME(winograd_weight_gradient),
    NAME(norm_sums),
    NAME(norm_scale),
    NAME(pool),
    NAME(pool_gradient),
    NAME(pool_scatter),
    NAME(pool_tiles),
    NAME(pool_overlaps),
    NAME(channel_maxima),
    NAME(channel_fill),
    NAME(channel_means),
};

#undef NAMED_TABLE
#undef JOIN
#undef JOINED
#undef NAME
#undef ALWAYS
#undef NEVER
#undef Vector
#undef Mask
#undef Wide
#undef Half
#undef Stream
#undef STREAM_LANES
#undef STREAM_BYTES
#undef WIDE_LANES
#undef WIDEN
#undef NARROW
#undef LANES
#undef PREFETCH
#undef PREFETCH_TO_WRITE
#undef OPAQUE
#undef IN_USE
#undef NR
