/* The template for float32 and float64. */
#include <math.h>

#if !defined(__GNUC__) && !defined(PLAIN_C)
#define PLAIN_C
#endif
#if defined(__has_builtin)
#define HAS_SHUFFLE __has_builtin(__builtin_shufflevector)
#else
#define HAS_SHUFFLE 0
#endif

#define T float
#define LANE_COUNT (VECTOR_BYTES / 4)
#define INTEGER int32_t
#define KIND float32
#include "template.h"
#undef T
#undef LANE_COUNT
#undef INTEGER
#undef KIND

#define T double
#define LANE_COUNT (VECTOR_BYTES / 8)
#define INTEGER int64_t
#define KIND float64
#include "template.h"
#undef T
#undef LANE_COUNT
#undef INTEGER
#undef KIND
