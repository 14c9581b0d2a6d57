/* exp2 of every tier over every float of its domain, t <= 127 and every NaN: the bits of the scalar tier, +0 below
 * -126, never a subnormal, and the worst error in units in the last place. tanh likewise over every float: the bits of
 * the scalar tier, odd, between -1 and 1. An emulator that cannot afford 3.3 and 4.3 thousand million values sets
 * TRIL_TEST_SCALE below 1: then every so many-th is tried, and always the neighbourhoods where a formula may change.
 * Monotony is not promised. */
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "dispatch.h"

#define CHUNK 16384

struct range {
    uint32_t first, last;
    uint64_t step; /* one float in so many is tried, an odd number */
};

/* A function of the kernel table. */
struct function {
    const char *name;
    struct range ranges[6]; /* its domain */
    bool (*sound)(float from, float to);
    double (*exact)(double);
    double worst_ulp; /* what is promised */
};

static const struct tril_kernels *kernels_of(const char *name)
{
    for (int i = 0; i < tril_tier_count; i++) {
        if (strcmp(tril_tiers[i].kernels->name, name) == 0) return tril_tiers[i].kernels;
    }
    return NULL;
}

/* What the contract says of one value, whatever tier gave it. */
static bool sound_exp2(float t, float y)
{
    if (t != t) return y != y || broken("exp2(NaN %08x) is %a", bits_of(t), (double)y);
    if (t < -126.0f) return bits_of(y) == 0 || broken("exp2(%a) is %a, not +0", (double)t, (double)y);
    return (y >= 0x1p-126f && y <= 0x1p127f) || broken("exp2(%a) is %a", (double)t, (double)y);
}

static bool sound_tanh(float x, float y)
{
    if (x != x) return y != y || broken("tanh(NaN %08x) is %a", bits_of(x), (double)y);
    if (signbit(x) != signbit(y) || fabsf(y) > 1.0f || fabsf(y) > fabsf(x) * (1.0f + 0x1p-21f) + 0x1p-149f)
        return broken("tanh(%a) is %a", (double)x, (double)y);
    return fabsf(x) < INFINITY || fabsf(y) == 1.0f || broken("tanh(%a) is %a", (double)x, (double)y);
}

/* The worst error of exp2 seen is 0.7996 ulp. */
static const struct function exp2_function = {
    .name = "exp2",
    .ranges = {{0x00000000, 0x42fe0000, 1}, /* +0 ... 127 */
               {0x80000000, 0xff800000, 1}, /* -0 ... -inf */
               {0x7f800001, 0x7fffffff, 1}, /* NaN */
               {0xff800001, 0xffffffff, 1}},
    .sound = sound_exp2,
    .exact = exp2,
    .worst_ulp = 0.81,
};

/* Every float where two of them can differ in more than their exponent: below 2^-32 each binade repeats the one above
 * it, from 16 on all is 1, and the sign is copied (corners_of_tanh() has that to the bit). */
static const struct function tanh_function = {
    .name = "tanh",
    .ranges = {{0x00000000, 0x2f7fffff, 61},
               {0x2f800000, 0x417fffff, 1},
               {0x41800000, 0x7f800000, 61},
               {0x80000000, 0xff800000, 61},
               {0x7f800001, 0x7fffffff, 61},
               {0xff800001, 0xffffffff, 61}},
    .sound = sound_tanh,
    .exact = tanh,
    .worst_ulp = 4.0,
};

static void apply(const struct function *f, const char *tier, float *to, const float *from, size_t n)
{
    const struct tril_kernels *kernels = kernels_of(tier);
    (f == &exp2_function ? kernels->exp2 : kernels->tanh)(to, from, n);
}

static bool in_domain(const struct function *f, uint32_t bits)
{
    for (int i = 0; i < COUNT(f->ranges); i++) {
        const struct range *range = &f->ranges[i];
        if (range->step > 0 && bits >= range->first && bits <= range->last) return true;
    }
    return false;
}

static double error_ulp(const struct function *f, float t, float y)
{
    const double exact = f->exact((double)t);
    int exponent;
    frexp(exact, &exponent); /* exact in [2^(exponent - 1), 2^exponent) */
    return fabs((double)y - exact) / ldexp(1.0, exponent - 24 < -149 ? -149 : exponent - 24);
}

/* n values: the scalar tier's against the contract, every other tier's against those. */
static bool compare(const struct function *f, const struct tiers *tiers, const float *t, size_t n)
{
    static float want[CHUNK], got[CHUNK];
    case_tier("scalar");
    apply(f, "scalar", want, t, n);
    for (size_t i = 0; i < n; i++) {
        if (!f->sound(t[i], want[i])) return false;
    }
    for (int j = 0; j < tiers->n; j++) {
        if (strcmp(tiers->name[j], "scalar") == 0) continue;
        case_tier(tiers->name[j]);
        memset(got, 0x55, sizeof got);
        apply(f, tiers->name[j], got, t, n);
        if (memcmp(got, want, n * sizeof *got) == 0) continue;
        for (size_t i = 0; i < n; i++) {
            if (!same_float(got[i], want[i]))
                return broken("%s(%a, %08x) is %a, the scalar tier's %a", f->name, (double)t[i], bits_of(t[i]),
                              (double)got[i], (double)want[i]);
        }
    }
    return true;
}

static bool every_float(const struct function *f, const struct tiers *tiers)
{
    static float t[CHUNK];
    struct rng rng;
    const uint64_t stride = support_stride();
    if (!case_begin(0, &rng)) return true;
    if (stride > 1) printf("%s: every %llu-th float\n", f->name, (unsigned long long)stride);
    for (int i = 0; i < COUNT(f->ranges); i++) {
        if (f->ranges[i].step == 0) continue; /* it has fewer ranges */
        const uint64_t step = f->ranges[i].step * stride;
        uint64_t bits = f->ranges[i].first + rng_next(&rng) % step;
        while (bits <= f->ranges[i].last) {
            size_t n = 0;
            const uint64_t first = bits;
            for (; n < CHUNK && bits <= f->ranges[i].last; bits += step)
                t[n++] = float_of((uint32_t)bits);
            case_describe("floats from 0x%08llx on", (unsigned long long)first);
            if (!compare(f, tiers, t, n)) return false;
        }
    }
    return true;
}

static bool every_exp2(const struct tiers *tiers)
{
    return every_float(&exp2_function, tiers);
}

static bool every_tanh(const struct tiers *tiers)
{
    return every_float(&tanh_function, tiers);
}

/* The floats around one, as far as they are in the domain. */
static bool around(const struct function *f, const struct tiers *tiers, float centre)
{
    static float t[CHUNK];
    size_t n = 0;
    for (uint32_t bits = bits_of(centre) - 300; bits != bits_of(centre) + 300; bits++) {
        if (in_domain(f, bits)) t[n++] = float_of(bits);
    }
    case_describe("around %a", (double)centre);
    return compare(f, tiers, t, n);
}

/* Arrays of every length up to three vectors of the widest tier. */
static bool every_length(const struct function *f, const struct tiers *tiers, struct rng *rng)
{
    static float t[CHUNK];
    for (size_t n = 0; n <= 48; n++) {
        for (size_t i = 0; i < n; i++)
            t[i] = 3.0f * rng_normal(rng);
        case_describe("%d values", (int)n);
        if (!compare(f, tiers, t, n)) return false;
    }
    return true;
}

/* Where rint, the threshold and the ends are. */
static bool corners_of_exp2(const struct tiers *tiers)
{
    struct rng rng;
    if (!case_begin(0, &rng)) return true;
    for (int half = -260; half <= 254; half++) {
        if (!around(&exp2_function, tiers, 0.5f * (float)half)) return false;
    }
    return every_length(&exp2_function, tiers, &rng);
}

/* Around each power of two and every quarter up to where all is 1, of both signs; and oddness, to the bit. */
static bool corners_of_tanh(const struct tiers *tiers)
{
    struct rng rng;
    if (!case_begin(0, &rng)) return true;
    for (int sign = -1; sign <= 1; sign += 2) {
        for (int exponent = -149; exponent <= 128; exponent++) {
            if (!around(&tanh_function, tiers, (float)sign * ldexpf(1.0f, exponent))) return false;
        }
        for (int quarter = 0; quarter <= 400; quarter++) {
            if (!around(&tanh_function, tiers, (float)sign * 0.25f * (float)quarter)) return false;
        }
    }
    static float x[CHUNK], y[CHUNK], minus_x[CHUNK], z[CHUNK];
    for (int i = 0; i < CHUNK; i++) {
        const uint32_t bits = (uint32_t)rng_next(&rng) & 0x7fffffff;
        x[i] = float_of(bits > 0x7f800000 ? bits & 0x7f7fffff : bits);
        minus_x[i] = -x[i];
    }
    for (int t = 0; t < tiers->n; t++) {
        case_tier(tiers->name[t]);
        apply(&tanh_function, tiers->name[t], y, x, CHUNK);
        apply(&tanh_function, tiers->name[t], z, minus_x, CHUNK);
        for (int i = 0; i < CHUNK; i++) {
            if (bits_of(z[i]) != (bits_of(y[i]) ^ 0x80000000u))
                return broken("tanh(%a) is %a, of the negative %a", (double)x[i], (double)y[i], (double)z[i]);
        }
    }
    return every_length(&tanh_function, tiers, &rng);
}

/* Floats from first to last, some of them: `step` times the stride. */
struct sweep {
    uint32_t first, last;
    uint64_t step;
};

static bool worst_error(const struct function *f, const struct tiers *tiers, const struct sweep *sweeps, int n_sweeps)
{
    static float t[CHUNK], y[CHUNK];
    struct rng rng;
    double worst = 0.0;
    float at = 0.0f;
    const uint64_t stride = support_stride();
    if (!case_begin(0, &rng)) return true;
    for (int i = 0; i < n_sweeps; i++) {
        uint64_t bits = sweeps[i].first + (stride > 1 ? rng_next(&rng) % stride : 0);
        while (bits <= sweeps[i].last) {
            size_t n = 0;
            for (; n < CHUNK && bits <= sweeps[i].last; bits += sweeps[i].step * stride)
                t[n++] = float_of((uint32_t)bits);
            /* every tier has the same bits: any of them will do */
            case_tier(tiers->name[tiers->n - 1]);
            apply(f, tiers->name[tiers->n - 1], y, t, n);
            for (size_t j = 0; j < n; j++) {
                const double error = error_ulp(f, t[j], y[j]);
                if (!(error <= worst)) {
                    worst = error;
                    at = t[j];
                }
            }
        }
    }
    printf("%s: worst error %.4f ulp, at %a\n", f->name, worst, (double)at);
    return worst < f->worst_ulp ||
           broken("%s: worst error %.4f ulp, at %a; promised is %.2f", f->name, worst, (double)at, f->worst_ulp);
}

/* The error depends on t - rint(t) alone, so that every float up to 1/2 counts; beyond, one in 16. Those below 2^-27
 * are 1 to within a quarter of an ulp, and every_exp2() has compared them. */
static bool worst_exp2(const struct tiers *tiers)
{
    static const struct sweep sweeps[] = {{0x32000000, 0x3effffff, 1},
                                          {0x3f000000, 0x42fe0000, 16},
                                          {0xb2000000, 0xbeffffff, 1},
                                          {0xbf000000, 0xc2fc0000, 16}};
    return worst_error(&exp2_function, tiers, sweeps, COUNT(sweeps));
}

/* It is odd: positive numbers will do. Up to 2^-13 it is x but for less than half an ulp, from 9.02 on 1: one in 64. */
static bool worst_tanh(const struct tiers *tiers)
{
    static const struct sweep sweeps[] = {
        {0x00000001, 0x00ffffff, 64}, /* subnormals, and the least that are none */
        {0x01000000, 0x38ffffff, 64},
        {0x39000000, 0x411fffff, 1}, /* up to 10 */
        {0x41200000, 0x7f7fffff, 64},
    };
    return worst_error(&tanh_function, tiers, sweeps, COUNT(sweeps));
}

static const struct check checks[] = {
    {"exp2_corners", corners_of_exp2}, {"tanh_corners", corners_of_tanh}, {"exp2_every_float", every_exp2},
    {"tanh_every_float", every_tanh},  {"exp2_worst_error", worst_exp2},  {"tanh_worst_error", worst_tanh},
};
const struct suite suite_exp2 = {"exp2", checks, COUNT(checks)};
