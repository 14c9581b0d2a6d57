/* The AVX-512 tier with TRIL_TELL_SOURCE: it is told where keys and values come from, which the library finds out by
 * the clock (src/engine/source.h), and what the processor is, in turn each of the answers, so that every way of asking
 * for memory has its results compared. And it asks the clock, of the few keys of a test too, if only to be seen reading
 * nothing that it may not. */
#include <stdatomic.h>

#include "table.h"

static atomic_uint calls;

int tril_told_source(void)
{
    return (int)(atomic_fetch_add(&calls, 1) % 5);
}

/* Asked behind the other: each answer with each of its. */
bool tril_told_lower(void)
{
    return atomic_load(&calls) / 5 % 2 != 0;
}

const struct tril_tier tril_tiers[] = {
    {&tril_kernels_scalar, 0},
    {&tril_kernels_avx512, TRIL_CPU_AVX512},
};
const int tril_tier_count = 2;
