/* Every operation of engine/vec.h against plain C, on every tier of this build that the machine can run. Memory
 * operands end at a page that faults, so a load or store of too much is seen. */
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "vec_ops_table.h"

#define MOST 16 /* lanes */

/* From meson's list: VEC(avx2) VEC(avx512) ... */
#define VEC(tier) extern const struct vec_ops vec_ops_##tier;
TRIL_VEC_TIERS
#undef VEC

static const struct {
    const char *name;
    const struct vec_ops *ops;
} all[] = {
#define VEC(tier) {#tier, &vec_ops_##tier},
    TRIL_VEC_TIERS
#undef VEC
    {NULL, NULL},
};

/* One operation: inputs a, b, c of 16 x 16 random floats each; false after broken(). */
typedef bool operation(const struct vec_ops *ops, struct rng *rng, const float *a, const float *b, const float *c);

static float odd_float(struct rng *rng)
{
    static const uint32_t odd[] = {0x00000000, 0x80000000, 0x7f800000, 0xff800000, 0x7fc00000, 0x00000001, 0x807fffff,
                                   0x7f7fffff, 0xff7fffff, 0x3f800000, 0xbf800000, 0x4b000000, 0x4b800001, 0xc2fc0000};
    if (rng_one_in(rng, 4)) return float_of(rng_of(rng, odd));
    return rng_one_in(rng, 2) ? rng_normal(rng) : float_of((uint32_t)rng_next(rng));
}

static bool each(const struct tiers *tiers, operation *holds, bool ordinary)
{
    static float x[3 * MOST * MOST];
    const int rounds = scaled(2000);
    struct rng rng;
    for (int i = 0; all[i].name != NULL; i++) {
        bool asked = false;
        for (int t = 0; t < tiers->n; t++)
            asked = asked || strcmp(tiers->name[t], all[i].name) == 0;
        if (!asked) continue;
        case_tier(all[i].name);
        for (int round = 0; round < rounds; round++) {
            if (!case_begin(round, &rng)) continue;
            for (int j = 0; j < 3 * MOST * MOST; j++)
                x[j] = ordinary ? rng_normal(&rng) : odd_float(&rng);
            if (!holds(all[i].ops, &rng, x, x + MOST * MOST, x + 2 * MOST * MOST)) return false;
        }
    }
    return true;
}

static bool lanes_are(const char *name, const float *got, const float *want, int n)
{
    for (int i = 0; i < n; i++) {
        if (!same_float(got[i], want[i]))
            return broken("%s: lane %d is %a, not %a", name, i, (double)got[i], (double)want[i]);
    }
    return true;
}

static bool arithmetic_holds(const struct vec_ops *ops, struct rng *rng, const float *a, const float *b, const float *c)
{
    float got[MOST], want[6][MOST];
    const int n = ops->lanes;
    (void)rng;
    for (int i = 0; i < n; i++) {
        want[0][i] = a[i] + b[i];
        want[1][i] = a[i] - b[i];
        want[2][i] = a[i] * b[i];
        want[3][i] = a[i] / b[i];
        want[4][i] = fmaf(a[i], b[i], c[i]);
        want[5][i] = a[0];
    }
    bool ok = (ops->add(got, a, b), lanes_are("v_add", got, want[0], n));
    ok = ok && (ops->sub(got, a, b), lanes_are("v_sub", got, want[1], n));
    ok = ok && (ops->mul(got, a, b), lanes_are("v_mul", got, want[2], n));
    ok = ok && (ops->div(got, a, b), lanes_are("v_div", got, want[3], n));
    ok = ok && (ops->fma(got, a, b, c), lanes_are("v_fma", got, want[4], n));
    ok = ok && (ops->set1(got, a), lanes_are("v_set1", got, want[5], n));
    memset(want, 0, sizeof want);
    return ok && (ops->zero(got), lanes_are("v_zero", got, want[0], n));
}

/* The A operand: any lane, from a load of a_step values; and a load of one. Both end at the page that faults. */
static bool broadcast_holds(const struct vec_ops *ops, struct rng *rng, const float *a, const float *b, const float *c)
{
    float got[MOST], want[MOST];
    struct area several = area_new((size_t)ops->a_step * sizeof *a, GUARD_AFTER, 0);
    struct area one = area_new(sizeof *a, GUARD_AFTER, 0);
    bool ok = true;
    (void)rng;
    memcpy(several.data, a, several.bytes);
    memcpy(one.data, a, one.bytes);
    for (int lane = 0; lane < ops->a_step && ok; lane++) {
        for (int i = 0; i < ops->lanes; i++)
            want[i] = fmaf(a[lane], b[i], c[i]);
        ops->a_fma(got, (const float *)(const void *)several.data, lane, b, c);
        ok = lanes_are("a_fma of a_load", got, want, ops->lanes);
    }
    for (int i = 0; i < ops->lanes; i++)
        want[i] = fmaf(a[0], b[i], c[i]);
    ops->a_fma1(got, (const float *)(const void *)one.data, b, c);
    ok = ok && lanes_are("a_fma of a_load1", got, want, ops->lanes);
    area_free(&several);
    area_free(&one);
    return ok;
}

/* Whole and partial loads and stores at a page's end, every number of lanes: the rest reads as +0 and is not written.
 */
static bool memory_holds(const struct vec_ops *ops, struct rng *rng, const float *a, const float *b, const float *c)
{
    float got[MOST], want[MOST];
    const float fill = rng_one_in(rng, 2) ? -INFINITY : c[0];
    bool ok = true;
    for (int n = 0; n <= ops->lanes && ok; n++) {
        struct area edge = area_new((size_t)n * sizeof *a, GUARD_AFTER, 0),
                    before = area_new((size_t)n * sizeof *a, GUARD_BEFORE, 0);
        float *to = (float *)(void *)edge.data;
        memcpy(to, a, edge.bytes);
        memcpy(before.data, a, edge.bytes);
        memset(want, 0, sizeof want);
        memcpy(want, a, edge.bytes);
        ops->load_part(got, to, n);
        ok = lanes_are("v_load_part", got, want, ops->lanes);
        ops->load_part(got, (const float *)(const void *)before.data, n);
        ok = ok && lanes_are("v_load_part", got, want, ops->lanes);
        ops->store_part(to, b, n);
        ok = ok && lanes_are("v_store_part", to, b, n);
        memcpy(got, c, sizeof got);
        memcpy(want, c, sizeof want);
        memcpy(want, b, edge.bytes);
        ops->store_part(got, b, n);
        ok = ok && lanes_are("v_store_part", got, want, MOST);
        for (int i = 0; i < ops->lanes; i++)
            want[i] = i < n ? a[i] : fill;
        ops->keep(got, a, n, fill);
        ok = ok && lanes_are("v_keep", got, want, ops->lanes);
        if (n == ops->lanes) {
            ops->load_store(to, c);
            ok = ok && lanes_are("v_store", to, c, n);
            ops->load_store(got, to);
            ok = ok && lanes_are("v_load", got, c, n);
            ops->stream(to, a); /* the page's end is aligned to any vector */
            ok = ok && lanes_are("v_stream", to, a, n);
        }
        area_free(&edge);
        area_free(&before);
    }
    return ok;
}

static bool transpose_holds(const struct vec_ops *ops, struct rng *rng, const float *a, const float *b, const float *c)
{
    float got[MOST * MOST], want[MOST * MOST];
    const int n = ops->lanes;
    (void)rng, (void)b, (void)c;
    for (int i = 0; i < n * n; i++)
        want[i] = a[i % n * n + i / n];
    ops->transpose(got, a);
    return lanes_are("v_transpose", got, want, n * n);
}

/* rint by definition, in double, where every float's neighbours are exact. */
static float rint_of(float x)
{
    const double low = floor((double)x), part = (double)x - low;
    if (!(fabs((double)x) < 0x1p24)) return x;
    const double nearest = part < 0.5 || (part == 0.5 && fmod(low, 2.0) == 0.0) ? low : low + 1.0;
    return nearest == 0.0 ? copysignf(0.0f, x) : (float)nearest;
}

static bool rounding_holds(const struct vec_ops *ops, struct rng *rng, const float *a, const float *b, const float *c)
{
    float x[MOST], got[MOST], want[MOST];
    (void)b, (void)c;
    for (int i = 0; i < ops->lanes; i++) {
        x[i] = rng_one_in(rng, 2) ? a[i] : 0.5f * (float)(rng_below(rng, 600) - 300);
        want[i] = rint_of(x[i]);
    }
    ops->rint(got, x);
    bool ok = lanes_are("v_rint", got, want, ops->lanes);
    for (int i = 0; i < ops->lanes; i++) {
        x[i] = rng_one_in(rng, 3) ? -INFINITY : a[i];
        want[i] = x[i] == -INFINITY ? 0.0f : x[i];
    }
    ops->ninf_to_zero(got, x);
    return ok && lanes_are("v_ninf_to_zero", got, want, ops->lanes);
}

/* p * 2^n within the operation's promise: n = rint(t), t <= 127, 0.7 <= p < 1.5 where r = t - n allows it, or all NaN;
 * below -126, where n may be anything down to -inf, the result is +0. */
static bool scale2_holds(const struct vec_ops *ops, struct rng *rng, const float *a, const float *b, const float *c)
{
    float p[MOST], n[MOST], t[MOST], got[MOST], want[MOST];
    (void)a, (void)b, (void)c;
    for (int i = 0; i < ops->lanes; i++) {
        const int64_t kind = rng_below(rng, 8);
        t[i] = kind == 0   ? NAN
               : kind == 1 ? -INFINITY
               : kind == 2 ? -126.0f - fabsf(rng_normal(rng)) * 1e3f
               : kind == 3 ? (float)(rng_below(rng, 254) - 126)
                           : -126.0f + 253.0f * (float)(rng_next(rng) >> 40) * 0x1p-24f;
        n[i] = rint_of(t[i]);
        p[i] = t[i] != t[i] || t[i] - n[i] != t[i] - n[i] ? NAN : (float)exp2((double)(t[i] - n[i]));
        want[i] = t[i] < -126.0f ? 0.0f : t[i] != t[i] ? NAN : ldexpf(p[i], (int)n[i]);
    }
    ops->scale2(got, p, n, t);
    return lanes_are("v_scale2", got, want, ops->lanes);
}

/* `best` where x is NaN; of +0 and -0 either may be the larger. */
static bool maximum_holds(const struct vec_ops *ops, struct rng *rng, const float *a, const float *b, const float *c)
{
    float best[MOST], got[MOST], top = -INFINITY;
    (void)rng, (void)c;
    for (int i = 0; i < ops->lanes; i++)
        best[i] = b[i] == b[i] ? b[i] : -INFINITY;
    ops->max(got, a, best);
    for (int i = 0; i < ops->lanes; i++) {
        const float want = a[i] > best[i] ? a[i] : best[i];
        if (got[i] != want)
            return broken("v_max: of %a and %a it takes %a", (double)a[i], (double)best[i], (double)got[i]);
        if (best[i] > top) top = best[i];
    }
    ops->max_across(got, best);
    return got[0] == top || broken("v_max_across: %a, not %a", (double)got[0], (double)top);
}

static bool sum_holds(const struct vec_ops *ops, struct rng *rng, const float *a, const float *b, const float *c)
{
    float tree[16], got[1];
    (void)rng, (void)b, (void)c;
    memcpy(tree, a, sizeof tree);
    for (int half = 8; half > 0; half /= 2) {
        for (int i = 0; i < half; i++)
            tree[i] += tree[i + half];
    }
    ops->sum16(got, a);
    return lanes_are("v_sum16", got, tree, 1);
}

static bool arithmetic(const struct tiers *tiers)
{
    return each(tiers, arithmetic_holds, false) && each(tiers, arithmetic_holds, true);
}

static bool broadcast(const struct tiers *tiers)
{
    return each(tiers, broadcast_holds, false) && each(tiers, broadcast_holds, true);
}

static bool memory(const struct tiers *tiers)
{
    return each(tiers, memory_holds, false);
}

static bool transpose(const struct tiers *tiers)
{
    return each(tiers, transpose_holds, true);
}

static bool rounding(const struct tiers *tiers)
{
    return each(tiers, rounding_holds, false);
}

static bool scale2(const struct tiers *tiers)
{
    return each(tiers, scale2_holds, true);
}

static bool maximum(const struct tiers *tiers)
{
    return each(tiers, maximum_holds, false) && each(tiers, maximum_holds, true);
}

static bool sum(const struct tiers *tiers)
{
    return each(tiers, sum_holds, false) && each(tiers, sum_holds, true);
}

static const struct check checks[] = {
    {"arithmetic", arithmetic}, {"broadcast", broadcast}, {"memory", memory},   {"transpose", transpose},
    {"rounding", rounding},     {"scale2", scale2},       {"maximum", maximum}, {"sum", sum},
};
const struct suite suite_vec = {"vec", checks, COUNT(checks)};
