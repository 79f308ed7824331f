/* The vector kernels for AVX-512 F, VL, DQ and BW. */
#if defined(__x86_64__) && !defined(PLAIN_C)
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,fma")
#include "kernels.h"

#include <stdint.h>
#include <string.h>

#define SET avx512
#define VECTOR_BYTES 64
#define MR 8 /* 24 + 3 of 32 registers; numbers of A are spread by the multiplication itself */
#define NV 3
#define REGISTERS 32
#define K_BY_FOURS 0
#include "both_types.h"

static int runs_here(void) { return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                                   __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"); }

const InstructionSet instruction_set_avx512 = {"avx512", runs_here, &kernels_avx512_float32, &kernels_avx512_float64};

#endif
