/* See probe.h. The chains are asm operands or named registers: no compiler can spill, merge or remove them. 12 chains
 * hide a latency of 4 on two ports, or vdpbf16ps's of 6, with room; Neoverse V1 has four ports, so NEON runs 24. The
 * values grow by 1e-6 a step from 0: neither subnormal nor infinite in a burst. */
#define _POSIX_C_SOURCE 199309L
#include "probe.h"

#include <string.h>
#include <time.h>

double probe_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* One unit: `steps` times `flops` operations. A step is one instruction for each chain. */
struct unit {
    const char *name;
    void (*run)(long steps);
    double flops;
};

#if defined(__x86_64__)
#include <immintrin.h>

/* 12 accumulators, twice per turn, so that the loop's own two instructions vanish. */
#define CHAINS_OF(x)                                                                                                   \
    "+x"(x[0]), "+x"(x[1]), "+x"(x[2]), "+x"(x[3]), "+x"(x[4]), "+x"(x[5]), "+x"(x[6]), "+x"(x[7]), "+x"(x[8]),        \
        "+x"(x[9]), "+x"(x[10]), "+x"(x[11])
#define STEP_OF(op) op("0") op("1") op("2") op("3") op("4") op("5") op("6") op("7") op("8") op("9") op("10") op("11")
#define FMA(n)      "vfmadd231ps %13, %13, %" n "\n\t"
#define PAIR(n)     "vdpbf16ps %13, %13, %" n "\n\t"
/* No fma on this machine: the peak is a multiply and an add at once. Six chains of each. */
#define MUL(n) "mulps %13, %" n "\n\t"
#define ADD(n) "addps %13, %" n "\n\t"

__attribute__((target("avx512f"))) static void run_avx512(long steps)
{
    __m512 x[12] = {0};
    __asm__ volatile("1:\n\t" STEP_OF(FMA) STEP_OF(FMA) "sub $2, %12\n\tjg 1b"
                     : CHAINS_OF(x), "+r"(steps)
                     : "x"(_mm512_set1_ps(1e-3f))
                     : "cc");
}

__attribute__((target("avx512f,avx512bf16"))) static void run_avx512bf16(long steps)
{
    __m512 x[12] = {0};
    __asm__ volatile("1:\n\t" STEP_OF(PAIR) STEP_OF(PAIR) "sub $2, %12\n\tjg 1b"
                     : CHAINS_OF(x), "+r"(steps)
                     : "x"(_mm512_set1_epi16(0x3a83)) /* about 1e-3 */
                     : "cc");
}

__attribute__((target("avx2,fma"))) static void run_avx2(long steps)
{
    __m256 x[12] = {0};
    __asm__ volatile("1:\n\t" STEP_OF(FMA) STEP_OF(FMA) "sub $2, %12\n\tjg 1b"
                     : CHAINS_OF(x), "+r"(steps)
                     : "x"(_mm256_set1_ps(1e-3f))
                     : "cc");
}

static void run_sse(long steps)
{
    __m128 x[12] = {{0}};
#define TURN                                                                                                           \
    MUL("0") ADD("1") MUL("2") ADD("3") MUL("4") ADD("5") MUL("6") ADD("7") MUL("8") ADD("9") MUL("10") ADD("11")
    __asm__ volatile("1:\n\t" TURN TURN "sub $2, %12\n\tjg 1b"
                     : CHAINS_OF(x), "+r"(steps)
                     : "x"(_mm_set1_ps(1.0f))
                     : "cc");
}

/* 512 bytes a turn into 8 registers; the asm at the end is a use that no compiler can see through. */
__attribute__((target("avx512f"))) static void read_avx512(const char *p, const char *end)
{
    __m512i x[8] = {0};
    for (; p < end; p += 512)
        for (int i = 0; i < 8; i++)
            x[i] = _mm512_xor_si512(x[i], _mm512_loadu_si512(p + 64 * i));
    for (int i = 0; i < 8; i++)
        __asm__ volatile("" : : "x"(x[i]));
}

__attribute__((target("avx2"))) static void read_avx2(const char *p, const char *end)
{
    __m256i x[8] = {0};
    for (; p < end; p += 256)
        for (int i = 0; i < 8; i++)
            x[i] = _mm256_xor_si256(x[i], _mm256_loadu_si256((const __m256i *)(const void *)(p + 32 * i)));
    for (int i = 0; i < 8; i++)
        __asm__ volatile("" : : "x"(x[i]));
}

static struct unit widest(void)
{
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) return (struct unit){"avx512", run_avx512, 12 * 16 * 2};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return (struct unit){"avx2", run_avx2, 12 * 8 * 2};
    return (struct unit){"sse", run_sse, 12 * 4};
}

static struct unit of_pairs(void)
{
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512bf16")) return (struct unit){"avx512bf16", run_avx512bf16, 12 * 16 * 4};
    return (struct unit){0};
}

#elif defined(__aarch64__)

static void run_neon(long steps)
{
    __asm__ volatile("movi v24.4s, #0x38, lsl #24\n\t" /* about 3e-5 */
                     ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23\n\t"
                     "movi v\\n\\().4s, #0\n\t"
                     ".endr\n"
                     "1:\n\t"
                     ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23\n\t"
                     "fmla v\\n\\().4s, v24.4s, v24.4s\n\t"
                     ".endr\n\t"
                     "subs %0, %0, #1\n\t"
                     "b.gt 1b"
                     : "+r"(steps)
                     :
                     : "cc", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13",
                       "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24");
}

static struct unit widest(void)
{
    return (struct unit){"neon", run_neon, 24 * 4 * 2};
}

/* bfdot rounds otherwise than vdpbf16ps: no tier uses it. */
static struct unit of_pairs(void)
{
    return (struct unit){0};
}

#else

/* What the compiler makes of it for its base machine; a figure to compare with, not a peak. */
static void run_c(long steps)
{
    static volatile float sink;
    const float y = 0.999f + 0.0f * sink, z = 1e-3f;
    float x[16] = {0};
    for (; steps > 0; steps--)
        for (int i = 0; i < 16; i++)
            x[i] = x[i] * y + z;
    float sum = 0.0f;
    for (int i = 0; i < 16; i++)
        sum += x[i];
    sink = sum;
}

static struct unit widest(void)
{
    return (struct unit){"c", run_c, 16 * 2};
}

static struct unit of_pairs(void)
{
    return (struct unit){0};
}

#endif

/* The compiler's own vectors: 16 bytes wide everywhere, as they are on SSE and NEON. */
static void read_base(const char *p, const char *end)
{
    typedef unsigned vec __attribute__((vector_size(16), may_alias, aligned(4)));
    vec x[8] = {0};
    for (; p < end; p += 128)
        for (int i = 0; i < 8; i++)
            x[i] ^= *(const vec *)(const void *)(p + 16 * i);
    for (int i = 0; i < 8; i++)
        __asm__ volatile("" : : "m"(x[i]));
}

void probe_read(const void *data, size_t bytes)
{
    const char *p = data, *end = p + bytes / 512 * 512;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) {
        read_avx512(p, end);
        return;
    }
    if (__builtin_cpu_supports("avx2")) {
        read_avx2(p, end);
        return;
    }
#endif
    read_base(p, end);
}

static struct unit unit_of(enum probe_kind kind)
{
    return kind == PROBE_BF16 ? of_pairs() : widest();
}

/* Only x86 has tiers that are narrower than the machine. */
static struct unit of_tier(const char *tier)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (strcmp(tier, "avx2") == 0 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return (struct unit){"avx2", run_avx2, 12 * 8 * 2};
#endif
    (void)tier;
    return widest();
}

static double burst(const struct unit unit)
{
    enum { STEPS = 1536 }; /* some 5 to 10 us: the clock between two runs costs half a per cent */
    double flops = 0.0;
    const double begin = probe_seconds();
    double now = begin;
    do {
        unit.run(STEPS);
        flops += unit.flops * (double)STEPS;
        now = probe_seconds();
    } while (now - begin < 1e-4);
    return 1e-9 * flops / (now - begin);
}

double probe_gflops(enum probe_kind kind)
{
    const struct unit unit = unit_of(kind);
    return unit.run == NULL ? 0.0 : burst(unit);
}

double probe_share(const char *tier)
{
    const struct unit own = of_tier(tier), all = widest();
    double best[2] = {0.0, 0.0};
    if (own.run == all.run) return 1.0;
    for (int i = 0; i < 30; i++) {
        const double gflops = burst(i % 2 == 0 ? own : all);
        if (gflops > best[i % 2]) best[i % 2] = gflops;
    }
    return best[0] / best[1];
}

const char *probe_name(enum probe_kind kind)
{
    return unit_of(kind).name;
}
