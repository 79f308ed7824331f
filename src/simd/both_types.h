/* The template for float32 and float64. */
#define T float
#define INTEGER int32_t
#define KIND float32
#include "template.h"
#undef T
#undef INTEGER
#undef KIND

#define T double
#define INTEGER int64_t
#define KIND float64
#include "template.h"
#undef T
#undef INTEGER
#undef KIND
