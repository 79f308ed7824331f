/* The vector kernels for AVX2 and FMA. */
#if defined(__x86_64__) && !defined(PLAIN_C)
#pragma GCC target("avx2,fma")
#include "kernels.h"

#include <stdint.h>
#include <string.h>

#define SET avx2
#define VECTOR_BYTES 32
#define MR 6 /* 12 + 2 + 1 of 16 registers */
#define NV 2
#define REGISTERS 16
#define K_BY_FOURS 1 /* a step of so few products has many instructions besides, which can be the bottleneck */
#include "both_types.h"

static int runs_here(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

const InstructionSet instruction_set_avx2 = {"avx2", runs_here, &kernels_avx2_float32, &kernels_avx2_float64};

#endif
