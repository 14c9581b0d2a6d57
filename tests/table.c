#include "table.h"

#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

static const struct tril_kernels *in_use = &tril_kernels_scalar;

static bool usable(const struct tril_tier *tier)
{
#if defined(__x86_64__) || defined(__i386__) || defined(__aarch64__)
    const uint32_t features = tril_cpu_features();
#else
    const uint32_t features = 0;
#endif
    return (tier->needs & features) == tier->needs;
}

const struct tril_kernels *tril_kernels_in_use(void)
{
    return in_use;
}

/* Every other call is told so, whatever the machine: no bit hangs on it. */
uint32_t tril_machine(void)
{
    static atomic_uint calls;
    const uint32_t told = atomic_fetch_add(&calls, 1) / 2; /* each call asks twice */
    return told % 2 != 0 ? TRIL_CPU_ASKS_LOWER | TRIL_CPU_PACKS_FAR : 0;
}

const char *tril_isa(void)
{
    return in_use->name;
}

const char *tril_isa_list(int index, int *yes)
{
    if (index < 0 || index >= tril_tier_count) return NULL;
    if (yes != NULL) *yes = usable(&tril_tiers[index]);
    return tril_tiers[index].kernels->name;
}

tril_status tril_force_isa(const char *name)
{
    for (int i = 0; i < tril_tier_count; i++) {
        if (strcmp(tril_tiers[i].kernels->name, name) != 0 || !usable(&tril_tiers[i])) continue;
        in_use = tril_tiers[i].kernels;
        return TRIL_OK;
    }
    return TRIL_ERR_UNSUPPORTED;
}
