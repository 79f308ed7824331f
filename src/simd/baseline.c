/* The vector kernels for what every machine of the platform has (SSE2 on x86-64). */
#include "kernels.h"

#include <stdint.h>
#include <string.h>

#define SET baseline
#define VECTOR_BYTES 16
#define MR 4 /* 8 + 2 + 1 of 16 registers */
#define NV 2
#define REGISTERS 16
#define K_BY_FOURS 0
#include "both_types.h"

static int runs_here(void) { return 1; }

const InstructionSet instruction_set_baseline = {"baseline", runs_here, &kernels_baseline_float32, &kernels_baseline_float64};
