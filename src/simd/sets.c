/* The instruction sets that were built, fastest first. A compiler that cannot build one builds the others. */
#include "kernels.h"

#include <stddef.h>

#if defined(__x86_64__) && !defined(PLAIN_C)
extern const InstructionSet instruction_set_avx512, instruction_set_avx2;
#endif
#if defined(__aarch64__) && !defined(PLAIN_C)
extern const InstructionSet instruction_set_neon;
#endif
extern const InstructionSet instruction_set_baseline;

const InstructionSet *const instruction_sets[] = {
#if defined(__x86_64__) && !defined(PLAIN_C)
    &instruction_set_avx512,
    &instruction_set_avx2,
#endif
#if defined(__aarch64__) && !defined(PLAIN_C)
    &instruction_set_neon,
#endif
    &instruction_set_baseline,
    NULL,
};
