/* The vector kernels for NEON, which every 64-bit ARM has. */
#if defined(__aarch64__) && !defined(PLAIN_C)
#include "kernels.h"

#include <stdint.h>
#include <string.h>

#define SET neon
#define VECTOR_BYTES 16
#define MR 8 /* 24 + 3 + 2 of 32 registers */
#define NV 3
#define REGISTERS 32
#define K_BY_FOURS 0
#include "both_types.h"

static int runs_here(void) { return 1; }

const InstructionSet instruction_set_neon = {"neon", runs_here, &kernels_neon_float32, &kernels_neon_float64};

#endif
