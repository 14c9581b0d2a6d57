/* The tier is chosen once, by a plain constructor, when the library loads. The pointer is statically initialised to the
 * scalar tier and every entry goes through an idempotent getter, so a call from another library's earlier constructor
 * is served as well. Every public call needs this file, so a static link cannot drop the constructor. No ifunc: its
 * resolvers run before sanitizers and static-pie have set themselves up. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "cpu.h"
#include "dispatch.h"

#ifdef __linux__
#include <sys/auxv.h>
#endif

const struct tril_tier tril_tiers[] = {
    {&tril_kernels_scalar, 0},
#ifdef TRIL_HAVE_AVX2
    {&tril_kernels_avx2, TRIL_CPU_AVX2},
#endif
#ifdef TRIL_HAVE_AVX512
    {&tril_kernels_avx512, TRIL_CPU_AVX512},
#endif
#ifdef TRIL_HAVE_AVX512BF16
    {&tril_kernels_avx512bf16, TRIL_CPU_AVX512 | TRIL_CPU_AVX512_BF16},
#endif
#ifdef TRIL_HAVE_NEON
    {&tril_kernels_neon, TRIL_CPU_NEON},
#endif
};
const int tril_tier_count = (int)(sizeof(tril_tiers) / sizeof(tril_tiers[0]));

static _Atomic(const struct tril_kernels *) in_use = &tril_kernels_scalar;
static atomic_bool chosen;
static atomic_uint machine;

static int index_of(const char *name)
{
    for (int i = 0; name != NULL && i < tril_tier_count; i++) {
        if (strcmp(tril_tiers[i].kernels->name, name) == 0) return i;
    }
    return -1;
}

const struct tril_kernels *tril_choose(uint32_t features, const char *ceiling)
{
    const int top = index_of(ceiling);
    int i = top >= 0 ? top : tril_tier_count - 1;
    while ((tril_tiers[i].needs & features) != tril_tiers[i].needs)
        i--; /* the scalar tier needs nothing */
    return tril_tiers[i].kernels;
}

static uint32_t features(void)
{
#if defined(__x86_64__) || defined(__i386__) || defined(__aarch64__)
    const uint32_t found = tril_cpu_features();
    atomic_store_explicit(&machine, found, memory_order_relaxed);
    return found;
#else
    return 0;
#endif
}

static const char *ceiling_from_environment(void)
{
#ifdef __linux__
    if (getauxval(AT_SECURE) != 0) return NULL;
#endif
    return getenv("TRIL_ISA");
}

static void choose(void)
{
    atomic_store(&in_use, tril_choose(features(), ceiling_from_environment()));
    atomic_store(&chosen, true);
}

__attribute__((constructor)) static void at_load(void)
{
    if (!atomic_load(&chosen)) choose();
}

const struct tril_kernels *tril_kernels_in_use(void)
{
    if (!atomic_load_explicit(&chosen, memory_order_acquire)) choose();
    return atomic_load_explicit(&in_use, memory_order_acquire);
}

uint32_t tril_machine(void)
{
    return atomic_load_explicit(&machine, memory_order_relaxed);
}

const char *tril_isa(void)
{
    return tril_kernels_in_use()->name;
}

const char *tril_isa_list(int index, int *usable)
{
    if (index < 0 || index >= tril_tier_count) return NULL;
    const struct tril_tier *tier = &tril_tiers[index];
    if (usable != NULL) *usable = (tier->needs & features()) == tier->needs;
    return tier->kernels->name;
}

tril_status tril_force_isa(const char *name)
{
    if (name == NULL) {
        choose();
        return TRIL_OK;
    }
    const int i = index_of(name);
    if (i < 0 || (tril_tiers[i].needs & features()) != tril_tiers[i].needs) return TRIL_ERR_UNSUPPORTED;
    atomic_store(&in_use, tril_tiers[i].kernels);
    atomic_store(&chosen, true);
    return TRIL_OK;
}
