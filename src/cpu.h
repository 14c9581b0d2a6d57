/* What a machine can run. The choice is a pure function of what CPUID and XCR0, or the kernel's hwcaps, say, so that a
 * test can feed it any machine; reading them is a separate step. */
#ifndef TRIL_CPU_H
#define TRIL_CPU_H

#include <stdint.h>

/* Feature bits: each stands for everything one tier needs, the operating system's part included. */
#define TRIL_CPU_AVX2        1u /* AVX, AVX2, FMA, F16C, and the OS saves ymm */
#define TRIL_CPU_AVX512      2u /* F, BW, DQ, VL on top of it, and the OS saves opmask and zmm */
#define TRIL_CPU_NEON        4u
#define TRIL_CPU_AVX512_BF16 8u /* on top of AVX512 */

/* No tier needs these, and no result hangs on them: what is fastest on the core. Where lines are asked for into a lower
 * level, a short call's first keys are not asked for at all. */
#define TRIL_CPU_ASKS_LOWER 16u /* lines asked for into the second level, not the first: engine/few_stream.h */
#define TRIL_CPU_PACKS_FAR  32u /* values packed where their rows lie far apart: engine/block.h */

struct tril_x86_state {
    uint32_t max_leaf;    /* CPUID 0: eax */
    uint32_t leaf1_ecx;   /* CPUID 1 */
    uint32_t leaf7_ebx;   /* CPUID 7, subleaf 0; 0 where max_leaf < 7 */
    uint32_t leaf7_1_eax; /* CPUID 7, subleaf 1; 0 where there is none */
    uint64_t xcr0;        /* XGETBV 0; 0 where CPUID 1 does not show OSXSAVE */
    uint32_t vendor;      /* CPUID 0: ebx, the first four letters of the vendor's name */
};

uint32_t tril_x86_features(const struct tril_x86_state *state);
uint32_t tril_arm_features(uint64_t hwcap);

/* Read from this machine. */
#if defined(__x86_64__) || defined(__i386__)
void tril_x86_read(struct tril_x86_state *state);
#endif
uint32_t tril_cpu_features(void);

#endif
