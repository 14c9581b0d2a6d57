/* Which tier serves: the choice as a pure function over every machine there could be, and the choice that was really
 * made in this process. Environment:
 *   TRIL_ISA          the ceiling that the library reads; meson runs this suite once under each
 *   TRIL_EXPECT_ISA   the tier that this machine must get without a ceiling; without it, the compiler's own CPU
 *                     detection says so
 */
#include <check.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/cpu.h"
#include "src/dispatch.h"

/* Called before the library's own constructor. */
static const char *isa_at_first;
static tril_status status_at_first = TRIL_STATUS_COUNT;
static float out_at_first;

static tril_status attend_one(float *out)
{
    static const float one = 1.0f, value = 0.625f;
    static char workspace[1 << 17];
    const tril_seq seq = {.q_len = 1, .kv_len = 1};
    const tril_tensor row = {.data = &one, .bytes = 4, .token_stride = 4, .head_stride = 4};
    tril_attention call = {.struct_size = sizeof(call), .q_heads = 1, .kv_heads = 1, .qk_dim = 1, .v_dim = 1};
    call.q = call.k = call.v = row;
    call.v.data = &value;
    call.out = (tril_out){.data = out, .bytes = 4, .token_stride = 4, .head_stride = 4};
    call.seqs = &seq;
    call.n_seqs = 1;
    return tril_attend(&call, workspace, sizeof(workspace));
}

__attribute__((constructor(101))) static void before_the_library(void)
{
    status_at_first = attend_one(&out_at_first);
    isa_at_first = tril_isa();
}

/* The predicate again, from the vendors' manuals: the bits that a tier needs, by number. */
enum { FMA = 12, OSXSAVE = 27, AVX = 28, F16C = 29 };                                   /* leaf 1, ecx */
enum { AVX2 = 5, AVX512F = 16, AVX512DQ = 17, AVX512BW = 30, AVX512VL = 31 };           /* leaf 7, ebx */
enum { AVX512_BF16 = 5 };                                                               /* leaf 7.1, eax */
enum { XMM_STATE = 1, YMM_STATE = 2, OPMASK = 5, ZMM_UPPER_HALVES = 6, ZMM_16_31 = 7 }; /* xcr0 */
static const int leaf1_bits[] = {FMA, OSXSAVE, AVX, F16C};
static const int leaf7_bits[] = {AVX2, AVX512F, AVX512DQ, AVX512BW, AVX512VL};
static const int xcr0_bits[] = {XMM_STATE, YMM_STATE, OPMASK, ZMM_UPPER_HALVES, ZMM_16_31};
#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))
enum { MACHINES = 1 << 15 };
enum { GENU = 'G' | 'e' << 8 | 'n' << 16 | 'u' << 24, AUTH = 'A' | 'u' << 8 | 't' << 16 | 'h' << 24 }; /* leaf 0, ebx */

enum { ON_INTEL = TRIL_CPU_ASKS_LOWER | TRIL_CPU_PACKS_FAR };

/* Machine number `n`: bit i of it switches the i-th of the bits above; all others as in `rest`. */
static struct tril_x86_state machine(int n, uint32_t max_leaf, uint32_t vendor, uint64_t rest)
{
    struct tril_x86_state x = {max_leaf, (uint32_t)rest, (uint32_t)rest, (uint32_t)rest, rest, vendor};
    for (int i = 0; i < COUNT(leaf1_bits); i++, n >>= 1)
        x.leaf1_ecx = (x.leaf1_ecx & ~(1u << leaf1_bits[i])) | (uint32_t)(n & 1) << leaf1_bits[i];
    for (int i = 0; i < COUNT(leaf7_bits); i++, n >>= 1)
        x.leaf7_ebx = (x.leaf7_ebx & ~(1u << leaf7_bits[i])) | (uint32_t)(n & 1) << leaf7_bits[i];
    for (int i = 0; i < COUNT(xcr0_bits); i++, n >>= 1)
        x.xcr0 = (x.xcr0 & ~(UINT64_C(1) << xcr0_bits[i])) | (uint64_t)(n & 1) << xcr0_bits[i];
    x.leaf7_1_eax = (x.leaf7_1_eax & ~(1u << AVX512_BF16)) | (uint32_t)(n & 1) << AVX512_BF16;
    return x;
}

static int has(uint64_t word, int bit)
{
    return (int)(word >> bit & 1);
}

static uint32_t features_by_the_book(const struct tril_x86_state *x)
{
    const int os_saves_ymm = has(x->leaf1_ecx, OSXSAVE) && has(x->xcr0, XMM_STATE) && has(x->xcr0, YMM_STATE);
    const int os_saves_zmm =
        os_saves_ymm && has(x->xcr0, OPMASK) && has(x->xcr0, ZMM_UPPER_HALVES) && has(x->xcr0, ZMM_16_31);
    const int avx2 = x->max_leaf >= 7 && os_saves_ymm && has(x->leaf1_ecx, AVX) && has(x->leaf1_ecx, FMA) &&
                     has(x->leaf1_ecx, F16C) && has(x->leaf7_ebx, AVX2);
    int avx512 = avx2 && os_saves_zmm && has(x->leaf7_ebx, AVX512F) && has(x->leaf7_ebx, AVX512BW) &&
                 has(x->leaf7_ebx, AVX512DQ) && has(x->leaf7_ebx, AVX512VL);
#ifdef __APPLE__
    avx512 = 0;
#endif
    return (avx2 ? TRIL_CPU_AVX2 : 0) | (avx512 ? TRIL_CPU_AVX512 : 0) | (avx2 && x->vendor == GENU ? ON_INTEL : 0) |
           (avx512 && has(x->leaf7_1_eax, AVX512_BF16) ? TRIL_CPU_AVX512_BF16 : 0);
}

START_TEST(every_x86_machine)
{
    static const uint32_t leaves[] = {0, 1, 2, 6, 7, 8, 13, 0x20, 0xffffffff};
    static const uint32_t vendors[] = {AUTH, GENU, 0};
    static const uint64_t rest[] = {0, ~UINT64_C(0)};
    int count[16] = {0};
    for (int i = 0; i < COUNT(vendors) * COUNT(rest); i++) {
        for (int l = 0; l < COUNT(leaves); l++) {
            for (int n = 0; n < MACHINES; n++) {
                const struct tril_x86_state x = machine(n, leaves[l], vendors[i / COUNT(rest)], rest[i % COUNT(rest)]);
                const uint32_t is = tril_x86_features(&x), wanted = features_by_the_book(&x);
                count[is & 15]++;
                if (is == wanted)
                    continue; /* an assertion takes a microsecond even if it holds, here two million times */
                ck_abort_msg("max leaf %u, leaf 1 ecx %08x, leaf 7 ebx %08x, xcr0 %llx: %u, not %u", x.max_leaf,
                             x.leaf1_ecx, x.leaf7_ebx, (unsigned long long)x.xcr0, is, wanted);
            }
        }
    }
    ck_assert_int_gt(count[0], 0);
    ck_assert_int_gt(count[TRIL_CPU_AVX2], 0);
    ck_assert_int_eq(count[TRIL_CPU_AVX512], 0); /* never without AVX2 */
#ifndef __APPLE__
    ck_assert_int_gt(count[TRIL_CPU_AVX2 | TRIL_CPU_AVX512], 0);
    ck_assert_int_gt(count[TRIL_CPU_AVX2 | TRIL_CPU_AVX512 | TRIL_CPU_AVX512_BF16], 0);
#endif
}
END_TEST

/* Machines by name: what their vendors say. */
START_TEST(known_x86_machines)
{
    static const struct {
        const char *name;
        struct tril_x86_state state;
        uint32_t features;
    } known[] = {
        {"Nehalem", {11, 0x0098e3bd, 0, 0, 0, GENU}, 0},
        {"Sandy Bridge", {13, 0x1fbae3ff, 0, 0, 7, GENU}, 0},
        {"Ivy Bridge", {13, 0x7fbae3ff, 0x281, 0, 7, GENU}, 0},
        {"Haswell", {13, 0x7ffafbff, 0x27ab, 0, 7, GENU}, TRIL_CPU_AVX2 | ON_INTEL},
        {"Haswell, OS without XSAVE", {13, 0x77fafbff, 0x27ab, 0, 0, GENU}, 0},
        {"Haswell, OS saves xmm only", {13, 0x7ffafbff, 0x27ab, 0, 3, GENU}, 0},
        {"Skylake server", {22, 0x7ffefbff, 0xd39ffffb, 0, 0xe7, GENU}, TRIL_CPU_AVX2 | TRIL_CPU_AVX512 | ON_INTEL},
        {"Skylake server, OS saves ymm only", {22, 0x7ffefbff, 0xd39ffffb, 0, 7, GENU}, TRIL_CPU_AVX2 | ON_INTEL},
        {"Knights Landing",
         {13, 0x7ff8f3bf, 0x1c0d23ab, 0, 0xe7, GENU},
         TRIL_CPU_AVX2 | ON_INTEL}, /* F, CD, ER, PF only */
        {"Zen 4",
         {16, 0x7ef8320b, 0xf1bf97a9, 0x20, 0xe7, AUTH},
         TRIL_CPU_AVX2 | TRIL_CPU_AVX512 | TRIL_CPU_AVX512_BF16},
    };
    for (int i = 0; i < COUNT(known); i++) {
        uint32_t wanted = known[i].features;
#ifdef __APPLE__
        wanted &= ~(TRIL_CPU_AVX512 | TRIL_CPU_AVX512_BF16);
#endif
        ck_assert_msg(tril_x86_features(&known[i].state) == wanted, "%s", known[i].name);
    }
}
END_TEST

START_TEST(every_arm_machine)
{
    for (int i = 0; i < 64; i++) {
        for (int j = 0; j < 64; j++) {
            const uint64_t some = UINT64_C(1) << i | UINT64_C(1) << j;
            const int fp = some & 1, asimd = some >> 1 & 1; /* HWCAP_FP, HWCAP_ASIMD */
            ck_assert_uint_eq(tril_arm_features(some), fp && asimd ? TRIL_CPU_NEON : 0);
            ck_assert_uint_eq(tril_arm_features(some | 3), TRIL_CPU_NEON);
            ck_assert_uint_eq(tril_arm_features(~some), i > 1 && j > 1 ? TRIL_CPU_NEON : 0);
        }
    }
    ck_assert_uint_eq(tril_arm_features(0), 0);
}
END_TEST

static int index_of(const char *name)
{
    for (int i = 0; name != NULL && i < tril_tier_count; i++) {
        if (strcmp(tril_tiers[i].kernels->name, name) == 0) return i;
    }
    return -1;
}

START_TEST(the_table)
{
    ck_assert_int_ge(tril_tier_count, 1);
    ck_assert_str_eq(tril_tiers[0].kernels->name, "scalar");
    ck_assert_uint_eq(tril_tiers[0].needs, 0);
    for (int i = 0; i < tril_tier_count; i++) {
        ck_assert_int_eq(index_of(tril_tiers[i].kernels->name), i); /* no name twice */
        ck_assert_str_eq(tril_isa_list(i, NULL), tril_tiers[i].kernels->name);
        if (i > 0) ck_assert_uint_ne(tril_tiers[i].needs, 0);
    }
    ck_assert_ptr_null(tril_isa_list(-1, NULL));
    ck_assert_ptr_null(tril_isa_list(tril_tier_count, NULL));
    int usable = 7;
    ck_assert_ptr_null(tril_isa_list(tril_tier_count, &usable));
    ck_assert_str_eq(tril_isa_list(0, &usable), "scalar");
    ck_assert_int_eq(usable, 1);
}
END_TEST

START_TEST(every_choice)
{
    static const char *const unknown[] = {NULL, "", "AVX2", "avx", "avx5123", "sse2", "scalar ", "best", "*"};
    const char *names[64];
    int n_names = 0;
    for (int i = 0; i < COUNT(unknown); i++)
        names[n_names++] = unknown[i];
    for (int i = 0; i < tril_tier_count; i++)
        names[n_names++] = tril_tiers[i].kernels->name;
    for (uint32_t features = 0; features < 16; features++) {
        for (int c = 0; c < n_names; c++) {
            const int top = index_of(names[c]);
            const struct tril_kernels *wanted = NULL;
            for (int i = 0; i < tril_tier_count; i++) {
                const int runs = (tril_tiers[i].needs & ~features) == 0, allowed = top < 0 || i <= top;
                if (runs && allowed) wanted = tril_tiers[i].kernels;
            }
            const struct tril_kernels *is = tril_choose(features, names[c]);
            ck_assert_msg(is == wanted, "features %u, ceiling %s: %s, not %s", features,
                          names[c] == NULL ? "none" : names[c], is->name, wanted->name);
        }
    }
}
END_TEST

/* What this machine must run of the tiers that were to be built, from another source than the library. */
static const char *expected_without_ceiling(void)
{
    const char *told = getenv("TRIL_EXPECT_ISA");
    if (told != NULL) return told;
#if defined(__x86_64__) || defined(__i386__)
    __builtin_cpu_init();
    const int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                       __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#ifdef TRIL_HAVE_AVX512
    if (avx512) return __builtin_cpu_supports("avx512bf16") ? "avx512bf16" : "avx512";
#endif
#ifdef TRIL_HAVE_AVX2
    if (avx2) return "avx2";
#endif
    (void)avx512;
    return "scalar";
#elif defined(TRIL_HAVE_NEON)
    return "neon";
#else
    return "scalar";
#endif
}

static const char *expected(void)
{
    const char *best = expected_without_ceiling();
    const int top = index_of(getenv("TRIL_ISA"));
    ck_assert_msg(index_of(best) >= 0, "this build has no tier %s", best);
    return top >= 0 && top < index_of(best) ? tril_tiers[top].kernels->name : best;
}

START_TEST(the_choice_made)
{
    ck_assert_str_eq(tril_isa(), expected());
    ck_assert_ptr_eq(tril_kernels_in_use()->name, tril_isa());
    ck_assert_str_eq(isa_at_first, expected());
    ck_assert_int_eq(status_at_first, TRIL_OK);
    ck_assert(out_at_first == 0.625f);
}
END_TEST

START_TEST(what_is_usable)
{
    const int best = index_of(expected_without_ceiling());
    for (int i = 0; i < tril_tier_count; i++) {
        int usable = 7;
        ck_assert_str_eq(tril_isa_list(i, &usable), tril_tiers[i].kernels->name);
        ck_assert_msg(usable == (i <= best), "%s", tril_isa_list(i, NULL)); /* so far every tier implies those below */
    }
}
END_TEST

START_TEST(force)
{
    static const char *const others[] = {"",       "avx",        "AVX2", "sse2", "avx2",
                                         "avx512", "avx512bf16", "neon", "sve",  "rvv"};
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < tril_tier_count; i++) {
            int usable;
            float out = 0.0f;
            const char *name = tril_isa_list(i, &usable), *was = tril_isa();
            ck_assert_int_eq(tril_force_isa(name), usable ? TRIL_OK : TRIL_ERR_UNSUPPORTED);
            ck_assert_str_eq(tril_isa(), usable ? name : was);
            ck_assert_int_eq(attend_one(&out), TRIL_OK); /* it really runs here */
            ck_assert(out == 0.625f);
            for (int j = 0; j < COUNT(others); j++) {
                if (index_of(others[j]) >= 0) continue;
                ck_assert_int_eq(tril_force_isa(others[j]), TRIL_ERR_UNSUPPORTED);
                ck_assert_str_eq(tril_isa(), usable ? name : was);
            }
        }
        ck_assert_int_eq(tril_force_isa(NULL), TRIL_OK);
        ck_assert_str_eq(tril_isa(), expected());
    }
}
END_TEST

/* A name may lie anywhere. */
START_TEST(force_by_content)
{
    char name[] = "?scalar";
    memcpy(name, "scalar", sizeof("scalar"));
    ck_assert_int_eq(tril_force_isa(name), TRIL_OK);
    memset(name, 'x', sizeof(name) - 1);
    ck_assert_str_eq(tril_isa(), "scalar");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("dispatch");
    TCase *tcase = tcase_create("dispatch");
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, every_x86_machine);
    tcase_add_test(tcase, known_x86_machines);
    tcase_add_test(tcase, every_arm_machine);
    tcase_add_test(tcase, the_table);
    tcase_add_test(tcase, every_choice);
    tcase_add_test(tcase, the_choice_made);
    tcase_add_test(tcase, what_is_usable);
    tcase_add_test(tcase, force);
    tcase_add_test(tcase, force_by_content);
    suite_add_tcase(suite, tcase);
    printf("tier in use: %s\n", tril_isa());
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
