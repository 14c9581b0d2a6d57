/* The host's first tier with an engine, compiled to count the blocks that it reads, beside the scalar one. */
#include "table.h"

int64_t tril_blocks_read;

const struct tril_tier tril_tiers[] = {
    {&tril_kernels_scalar, 0},
#ifdef __aarch64__
    {&tril_kernels_neon, TRIL_CPU_NEON},
#else
    {&tril_kernels_avx2, TRIL_CPU_AVX2},
#endif
};
const int tril_tier_count = 2;
