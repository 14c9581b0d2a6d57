#include "cpu.h"

/* CPUID 0, ebx: "Genu", of GenuineIntel */
#define INTEL 0x756e6547u
/* CPUID 1, ecx */
#define FMA     (1u << 12)
#define OSXSAVE (1u << 27)
#define AVX     (1u << 28)
#define F16C    (1u << 29)
/* CPUID 7.0, ebx */
#define AVX2     (1u << 5)
#define AVX512F  (1u << 16)
#define AVX512DQ (1u << 17)
#define AVX512BW (1u << 30)
#define AVX512VL (1u << 31)
/* CPUID 7.1, eax */
#define AVX512BF16 (1u << 5)
/* XCR0: state that the operating system saves */
#define XMM_YMM        0x06u
#define XMM_YMM_OP_ZMM 0xe6u

uint32_t tril_x86_features(const struct tril_x86_state *state)
{
    const uint32_t for_avx2 = OSXSAVE | AVX | FMA | F16C, for_avx512 = AVX512F | AVX512DQ | AVX512BW | AVX512VL;
    uint32_t features = 0;
    if (state->max_leaf < 7) return features;
    if ((state->leaf1_ecx & for_avx2) != for_avx2) return features;
    if ((state->xcr0 & XMM_YMM) != XMM_YMM) return features;
    if ((state->leaf7_ebx & AVX2) == 0) return features;
    features |= TRIL_CPU_AVX2;
    if (state->vendor == INTEL) features |= TRIL_CPU_ASKS_LOWER | TRIL_CPU_PACKS_FAR;
#ifndef __APPLE__ /* macOS switches zmm state on at first use, which XCR0 does not show */
    if ((state->xcr0 & XMM_YMM_OP_ZMM) != XMM_YMM_OP_ZMM) return features;
    if ((state->leaf7_ebx & for_avx512) != for_avx512) return features;
    features |= TRIL_CPU_AVX512;
    if ((state->leaf7_1_eax & AVX512BF16) != 0) features |= TRIL_CPU_AVX512_BF16;
#endif
    return features;
}

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#include <stddef.h>

void tril_x86_read(struct tril_x86_state *state)
{
    uint32_t a = 0, b = 0, c = 0, d = 0;
    *state = (struct tril_x86_state){.max_leaf = (uint32_t)__get_cpuid_max(0, NULL)};
    if (state->max_leaf < 1) return;
    __cpuid(0, a, b, c, d);
    state->vendor = b;
    __cpuid(1, a, b, c, d);
    state->leaf1_ecx = c;
    if (state->max_leaf >= 7) {
        __cpuid_count(7, 0, a, b, c, d);
        state->leaf7_ebx = b;
        if (a >= 1) { /* subleaves */
            __cpuid_count(7, 1, a, b, c, d);
            state->leaf7_1_eax = a;
        }
    }
    if (state->leaf1_ecx & OSXSAVE) { /* xgetbv would trap without it */
        uint32_t low, high;
        __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        state->xcr0 = (uint64_t)high << 32 | low;
    }
}

uint32_t tril_cpu_features(void)
{
    struct tril_x86_state state;
    tril_x86_read(&state);
    return tril_x86_features(&state);
}
#endif
