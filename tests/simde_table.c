/* The NEON tier through SIMDe, beside the scalar one. Its flags ask for AVX2 and FMA. */
#include "table.h"

const struct tril_tier tril_tiers[] = {
    {&tril_kernels_scalar, 0},
    {&tril_kernels_neon, TRIL_CPU_AVX2},
};
const int tril_tier_count = 2;
