#include "cpu.h"

#define HWCAP_FP_BIT    (UINT64_C(1) << 0)
#define HWCAP_ASIMD_BIT (UINT64_C(1) << 1)

uint32_t tril_arm_features(uint64_t hwcap)
{
    const uint64_t needs = HWCAP_FP_BIT | HWCAP_ASIMD_BIT;
    return (hwcap & needs) == needs ? TRIL_CPU_NEON : 0;
}

#if defined(__aarch64__)
#ifdef __linux__
#include <sys/auxv.h>

uint32_t tril_cpu_features(void)
{
    return tril_arm_features(getauxval(AT_HWCAP));
}
#else
/* Outside Linux there are no hwcaps to ask, and every AArch64 system with a hard-float ABI has NEON. */
uint32_t tril_cpu_features(void)
{
    return tril_arm_features(HWCAP_FP_BIT | HWCAP_ASIMD_BIT);
}
#endif
#endif
