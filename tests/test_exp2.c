/* exp2 of every tier over every float of its domain, t <= 127 and every NaN: the bits of the scalar tier, +0 below
 * -126, never a subnormal, and the worst error in units in the last place. An emulator that cannot afford 3.3 thousand
 * million values sets TRIL_TEST_SCALE below 1: then every so many-th is tried, and always the neighbourhoods where the
 * formula changes. Monotony is not promised. */
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "dispatch.h"

#define CHUNK 16384

/* The worst error seen is 0.7996 ulp; this much is promised. */
#define WORST_ULP 0.81

static const struct {
    uint32_t first, last;
} ranges[] = {
    {0x00000000, 0x42fe0000}, /* +0 ... 127 */
    {0x80000000, 0xff800000}, /* -0 ... -inf */
    {0x7f800001, 0x7fffffff}, /* NaN */
    {0xff800001, 0xffffffff},
};

static const struct tril_kernels *kernels_of(const char *name)
{
    for (int i = 0; i < tril_tier_count; i++) {
        if (strcmp(tril_tiers[i].kernels->name, name) == 0) return tril_tiers[i].kernels;
    }
    return NULL;
}

static bool in_domain(uint32_t bits)
{
    for (int i = 0; i < COUNT(ranges); i++) {
        if (bits >= ranges[i].first && bits <= ranges[i].last) return true;
    }
    return false;
}

/* What the contract says of one value, whatever tier gave it. */
static bool sound(float t, float y)
{
    if (t != t) return y != y || broken("exp2(NaN %08x) is %a", bits_of(t), (double)y);
    if (t < -126.0f) return bits_of(y) == 0 || broken("exp2(%a) is %a, not +0", (double)t, (double)y);
    return (y >= 0x1p-126f && y <= 0x1p127f) || broken("exp2(%a) is %a", (double)t, (double)y);
}

static double error_ulp(float t, float y)
{
    const double exact = exp2((double)t);
    int exponent;
    frexp(exact, &exponent); /* exact in [2^(exponent - 1), 2^exponent) */
    return fabs((double)y - exact) / ldexp(1.0, exponent - 24);
}

/* n values: the scalar tier's against the contract, every other tier's against those. */
static bool compare(const struct tiers *tiers, const float *t, size_t n)
{
    static float want[CHUNK], got[CHUNK];
    case_tier("scalar");
    kernels_of("scalar")->exp2(want, t, n);
    for (size_t i = 0; i < n; i++) {
        if (!sound(t[i], want[i])) return false;
    }
    for (int j = 0; j < tiers->n; j++) {
        if (strcmp(tiers->name[j], "scalar") == 0) continue;
        case_tier(tiers->name[j]);
        memset(got, 0x55, sizeof got);
        kernels_of(tiers->name[j])->exp2(got, t, n);
        if (memcmp(got, want, n * sizeof *got) == 0) continue;
        for (size_t i = 0; i < n; i++) {
            if (!same_float(got[i], want[i]))
                return broken("exp2(%a, %08x) is %a, the scalar tier's %a", (double)t[i], bits_of(t[i]), (double)got[i],
                              (double)want[i]);
        }
    }
    return true;
}

static bool every_float(const struct tiers *tiers)
{
    static float t[CHUNK];
    struct rng rng;
    const uint64_t stride = support_stride();
    if (!case_begin(0, &rng)) return true;
    if (stride > 1) printf("exp2: every %llu-th float\n", (unsigned long long)stride);
    for (int i = 0; i < COUNT(ranges); i++) {
        uint64_t bits = ranges[i].first + (stride > 1 ? rng_next(&rng) % stride : 0);
        while (bits <= ranges[i].last) {
            size_t n = 0;
            const uint64_t first = bits;
            for (; n < CHUNK && bits <= ranges[i].last; bits += stride)
                t[n++] = float_of((uint32_t)bits);
            case_describe("floats from 0x%08llx on", (unsigned long long)first);
            if (!compare(tiers, t, n)) return false;
        }
    }
    return true;
}

/* Where rint, the threshold and the ends are; and arrays of every length up to three vectors of the widest tier. */
static bool corners(const struct tiers *tiers)
{
    static float t[CHUNK];
    struct rng rng;
    if (!case_begin(0, &rng)) return true;
    for (int half = -260; half <= 254; half++) {
        const uint32_t centre = bits_of(0.5f * (float)half);
        size_t n = 0;
        for (uint32_t bits = centre - 300; bits != centre + 300; bits++) {
            if (in_domain(bits)) t[n++] = float_of(bits);
        }
        case_describe("around %g", 0.5 * half);
        if (!compare(tiers, t, n)) return false;
    }
    for (size_t n = 0; n <= 48; n++) {
        for (size_t i = 0; i < n; i++)
            t[i] = 3.0f * rng_normal(&rng);
        case_describe("%d values", (int)n);
        if (!compare(tiers, t, n)) return false;
    }
    return true;
}

/* The error depends on t - rint(t) alone, so that every float up to 1/2 counts; beyond, one in 16. Those below 2^-27
 * are 1 to within a quarter of an ulp, and every_float() has compared them. */
static bool worst_error(const struct tiers *tiers)
{
    static float t[CHUNK], y[CHUNK];
    struct rng rng;
    double worst = 0.0;
    float at = 0.0f;
    const uint64_t stride = support_stride();
    if (!case_begin(0, &rng)) return true;
    for (int sign = 0; sign < 2; sign++) {
        uint64_t bits = 0x32000000 + (stride > 1 ? rng_next(&rng) % stride : 0);
        const uint64_t last = sign ? 0x42fc0000 : 0x42fe0000;
        while (bits <= last) {
            size_t n = 0;
            for (; n < CHUNK && bits <= last; bits += bits < 0x3f000000 ? stride : 16 * stride)
                t[n++] = float_of((uint32_t)bits | (sign ? 0x80000000 : 0));
            /* every tier has the same bits: any of them will do */
            case_tier(tiers->name[tiers->n - 1]);
            kernels_of(tiers->name[tiers->n - 1])->exp2(y, t, n);
            for (size_t i = 0; i < n; i++) {
                const double error = error_ulp(t[i], y[i]);
                if (!(error <= worst)) {
                    worst = error;
                    at = t[i];
                }
            }
        }
    }
    printf("exp2: worst error %.4f ulp, at %a\n", worst, (double)at);
    return worst < WORST_ULP ||
           broken("exp2: worst error %.4f ulp, at %a; promised is %.2f", worst, (double)at, WORST_ULP);
}

static const struct check checks[] = {
    {"exp2_corners", corners},
    {"exp2_every_float", every_float},
    {"exp2_worst_error", worst_error},
};
const struct suite suite_exp2 = {"exp2", checks, COUNT(checks)};
