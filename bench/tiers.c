/* See tiers.h. */
#include "tiers.h"

#include <string.h>

#include "cpu.h"
#include "dispatch.h"

static const struct tril_tier *serving(const char *tier, tril_math math)
{
    const struct tril_kernels *kernels = NULL;
    for (int i = 0; i < tril_tier_count; i++)
        if (strcmp(tril_tiers[i].kernels->name, tier) == 0) kernels = tril_tiers[i].kernels;
    if (kernels != NULL && kernels->instead[math] != NULL) kernels = kernels->instead[math];
    for (int i = 0; i < tril_tier_count; i++)
        if (tril_tiers[i].kernels == kernels) return &tril_tiers[i];
    return NULL;
}

const char *tier_serving(const char *tier, tril_math math)
{
    const struct tril_tier *s = serving(tier, math);
    return s != NULL ? s->kernels->name : NULL;
}

bool tier_serves(const char *tier, tril_math math)
{
    const char *name = tier_serving(tier, math);
    return name != NULL && strcmp(name, tier) == 0;
}

bool tier_by_instruction(const char *tier, tril_math math)
{
    const struct tril_tier *s = serving(tier, math);
    if (s == NULL) return false;
    return math == TRIL_MATH_BF16 ? (s->needs & TRIL_CPU_AVX512_BF16) != 0 : s->needs != 0;
}
