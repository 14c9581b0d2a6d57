/* Which tier serves: chosen when the library loads, see dispatch.c. */
#ifndef TRIL_DISPATCH_H
#define TRIL_DISPATCH_H

#include "kernels.h"

struct tril_tier {
    const struct tril_kernels *kernels;
    uint32_t needs; /* feature bits of cpu.h; 0: any machine */
};

/* The only list of instruction sets: those of this build, from the least to the best. */
extern const struct tril_tier tril_tiers[];
extern const int tril_tier_count;

/* The best tier whose needs are among `features`, not above the tier named by `ceiling` (null or unknown: no ceiling).
 * Pure: a test feeds it any machine. */
const struct tril_kernels *tril_choose(uint32_t features, const char *ceiling);

/* The tier in use. */
const struct tril_kernels *tril_kernels_in_use(void);

/* The machine's feature bits of cpu.h, as they were read last: known from tril_kernels_in_use() on. Reading them anew
 * may take a hypervisor's help and far more time than a call. */
uint32_t tril_machine(void);

#endif
