/* Every operation of engine/vec.h against plain C, on every tier of this build that the machine can run. Memory
 * operands end at a page that faults, so a load or store of too much is seen. The stored types: every half and every
 * byte there is; where f32 becomes halves, every float next to a border, and a sweep over all of them. */
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "codes.h"
#include "stored.h"
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

/* The next of all[], from *i on, that is among these tiers; null if there is none. */
static const struct vec_ops *next_of(const struct tiers *tiers, int *i)
{
    for (; all[*i].name != NULL; ++*i) {
        for (int t = 0; t < tiers->n; t++) {
            if (strcmp(tiers->name[t], all[*i].name) != 0) continue;
            case_tier(all[*i].name);
            return all[(*i)++].ops;
        }
    }
    return NULL;
}

static bool each(const struct tiers *tiers, operation *holds, bool ordinary)
{
    static float x[3 * MOST * MOST];
    const int rounds = scaled(2000);
    const struct vec_ops *ops;
    struct rng rng;
    for (int i = 0; (ops = next_of(tiers, &i)) != NULL;) {
        for (int round = 0; round < rounds; round++) {
            if (!case_begin(round, &rng)) continue;
            for (int j = 0; j < 3 * MOST * MOST; j++)
                x[j] = ordinary ? rng_normal(&rng) : odd_float(&rng);
            if (!holds(ops, &rng, x, x + MOST * MOST, x + 2 * MOST * MOST)) return false;
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

/* Halves of vectors, and nothing read or written behind them. */
static bool half_holds(const struct vec_ops *ops, struct rng *rng, const float *a, const float *b, const float *c)
{
    if (ops->half_load == NULL) return true;
    float got_all[MOST], want[4][MOST];
    const int all = ops->lanes, n = all / 2;
    struct area got = area_new((size_t)n * sizeof *a, GUARD_AFTER, 0),
                x = area_new((size_t)n * sizeof *a, GUARD_AFTER, 0);
    struct area y = area_new((size_t)n * sizeof *a, GUARD_AFTER, 0);
    float *to = (float *)(void *)got.data, *lower = (float *)(void *)x.data, *upper = (float *)(void *)y.data;
    (void)rng;
    memcpy(lower, a, x.bytes);
    memcpy(upper, b, y.bytes);
    for (int i = 0; i < all; i++) {
        want[0][i] = i < n ? a[i] : b[i - n];
        want[1][i] = a[i % n];
        want[2][i] = i < n ? a[i] : b[i];
        want[3][i] = i < n ? c[i] : fmaf(a[i], b[i], c[i]);
    }
    bool ok = (ops->half_load(got_all, lower, upper), lanes_are("h_load", got_all, want[0], all));
    ok = ok && (ops->half_twice(got_all, lower), lanes_are("h_twice", got_all, want[1], all));
    ok = ok && (ops->half_join(got_all, a, b), lanes_are("h_join", got_all, want[2], all));
    ok = ok && (ops->half_fma(got_all, a, b, c), lanes_are("h_fma_upper", got_all, want[3], all));
    ops->half_store(to, got_all, c);
    ok = ok && lanes_are("h_store", to, c, n) && lanes_are("h_store_upper", got_all, c + n, n);
    ops->half_store(got_all, to, c);
    ok = ok && lanes_are("h_store_upper", to, c + n, n) && lanes_are("h_store", got_all, c, n);
    area_free(&got);
    area_free(&x);
    area_free(&y);
    return ok;
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
        x[i] = fabsf(x[i]) < 0x1p22f ? x[i] : 3.0f * rng_normal(rng);
        want[i] = truncf(x[i]);
    }
    ops->trunc(got, x);
    ok = ok && lanes_are("v_trunc", got, want, ops->lanes);
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
    ops->min(got, a, best);
    for (int i = 0; i < ops->lanes; i++) {
        const float want = a[i] < best[i] ? a[i] : best[i];
        if (got[i] != want)
            return broken("v_min: of %a and %a it takes %a", (double)a[i], (double)best[i], (double)got[i]);
    }
    ops->min(got, a, b);
    for (int i = 0; i < ops->lanes; i++) {
        if (b[i] != b[i] && got[i] == got[i]) return broken("v_min: a NaN is lost");
    }
    ops->copysign(got, a, b);
    for (int i = 0; i < ops->lanes; i++) {
        const uint32_t want = (bits_of(a[i]) & 0x7fffffff) | (bits_of(b[i]) & 0x80000000);
        if (bits_of(got[i]) != want) return broken("v_copysign: of %a and %a", (double)a[i], (double)b[i]);
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

/* What is stored becomes f32, at a page's end. */
struct stored_load {
    const char *name;
    void (*run)(float *to, const void *p);
    tril_dtype type;
    int64_t values; /* how many different elements there are */
    bool one;       /* fills all lanes */
};

static bool every_element_loads(const struct vec_ops *ops, const struct stored_load *load)
{
    const int n = load->one ? 1 : ops->lanes;
    struct area edge = area_new((size_t)stored_bytes(load->type, n), GUARD_AFTER, 0);
    float got[MOST], want[MOST];
    bool ok = true;
    for (int64_t first = 0; first < load->values && ok; first++) {
        for (int i = 0; i < n; i++) {
            const uint16_t element = (uint16_t)((first + i * 257) % load->values); /* each lane has every one of them */
            memcpy(edge.data + stored_bytes(load->type, i), &element, load->type == TRIL_I8 ? 1 : sizeof element);
        }
        for (int i = 0; i < ops->lanes; i++)
            want[i] = stored_value(load->type, edge.data, 1.0f, n == 1 ? 0 : i);
        load->run(got, edge.data);
        ok = lanes_are(load->name, got, want, ops->lanes);
    }
    area_free(&edge);
    return ok;
}

/* Both halves of every byte. */
static bool every_u4_loads(const struct vec_ops *ops)
{
    struct area edge = area_new((size_t)ops->lanes, GUARD_AFTER, 0);
    float got[MOST], want[2][MOST];
    bool ok = true;
    for (int first = 0; first < 256 && ok; first++) {
        for (int i = 0; i < ops->lanes; i++) {
            edge.data[i] = (unsigned char)(first + i * 37);
            want[0][i] = (float)(edge.data[i] % 16 - 8);
            want[1][i] = (float)(edge.data[i] / 16 - 8);
        }
        ops->load_u4(got, edge.data, 0);
        ok = lanes_are("v_load_u4, low", got, want[0], ops->lanes);
        ops->load_u4(got, edge.data, 1);
        ok = ok && lanes_are("v_load_u4, high", got, want[1], ops->lanes);
    }
    area_free(&edge);
    return ok;
}

static bool stored_loads(const struct tiers *tiers)
{
    const struct vec_ops *ops;
    struct rng rng;
    if (!case_begin(0, &rng)) return true;
    for (int i = 0; (ops = next_of(tiers, &i)) != NULL;) {
        const struct stored_load loads[] = {
            {"v_load_f16", ops->load_f16, TRIL_F16, 65536, false},
            {"v_set1_f16", ops->set1_f16, TRIL_F16, 65536, true},
            {"v_load_bf16", ops->load_bf16, TRIL_BF16, 65536, false},
            {"v_load_i8", ops->load_i8, TRIL_I8, 256, false},
        };
        for (int j = 0; j < COUNT(loads); j++) {
            if (!every_element_loads(ops, &loads[j])) return false;
        }
        if (!every_u4_loads(ops)) return false;
    }
    return true;
}

/* f32 becomes halves. Floats are collected until there is a vector of them. */
struct half_store {
    const struct vec_ops *ops;
    tril_dtype type;
    struct area edge; /* bytes that must stay, then a vector of halves at a page's end */
    float x[MOST];
    int n;
};
#define STAYS 32

static bool stored_halves_are(struct half_store *s)
{
    uint16_t got[MOST];
    memset(s->edge.data, 0xc5, s->edge.bytes);
    if (s->type == TRIL_F16)
        s->ops->store_f16(s->edge.data + STAYS, s->x);
    else
        s->ops->store_bf16(s->edge.data + STAYS, s->x);
    memcpy(got, s->edge.data + STAYS, s->edge.bytes - STAYS);
    s->n = 0;
    for (int i = 0; i < s->ops->lanes; i++) {
        if (!half_is(s->type, got[i], s->x[i]))
            return broken("v_store_%s: lane %d: %a (%08x) becomes %04x", s->type == TRIL_F16 ? "f16" : "bf16", i,
                          (double)s->x[i], bits_of(s->x[i]), got[i]);
    }
    for (int i = 0; i < STAYS; i++) {
        if (s->edge.data[i] != 0xc5) return broken("a store of halves begins %d bytes too early", STAYS - i);
    }
    return true;
}

static bool half_stored(struct half_store *s, uint32_t bits)
{
    s->x[s->n++] = float_of(bits);
    return s->n < s->ops->lanes || stored_halves_are(s);
}

/* Every half itself and every middle of two, with their neighbours; every kind of NaN; one float in so many. */
static bool every_half_stored(struct half_store *s, struct rng *rng)
{
    static const uint32_t odd[] = {0x7f7fffff, 0x7f800000, 0x7f800001, 0x7fbfffff, 0x7fc00000, 0x7fffffff};
    const uint64_t stride = 1021 * support_stride();
    bool ok = true;
    for (uint32_t sign = 0; sign < 2; sign++) {
        for (uint16_t half = 0; half < half_infinity(s->type); half++) {
            const double here = half_place(s->type, half), next = half_place(s->type, (uint16_t)(half + 1));
            const uint32_t at = bits_of((float)here), middle = bits_of((float)(0.5 * (here + next)));
            for (int by = -2; by <= 2 && ok; by++)
                ok = half_stored(s, sign << 31 | (half > 0 || by > 0 ? at + by : 0)) &&
                     half_stored(s, sign << 31 | (middle + by));
        }
        for (int i = 0; i < COUNT(odd); i++)
            ok = ok && half_stored(s, sign << 31 | odd[i]);
    }
    for (uint64_t bits = rng_next(rng) % stride; bits <= UINT32_MAX && ok; bits += stride)
        ok = half_stored(s, (uint32_t)bits);
    while (ok && s->n > 0)
        ok = half_stored(s, 0);
    return ok;
}

static bool stored_halves(const struct tiers *tiers)
{
    static const tril_dtype types[] = {TRIL_F16, TRIL_BF16};
    struct half_store s = {.n = 0};
    struct rng rng;
    if (!case_begin(0, &rng)) return true;
    for (int i = 0; (s.ops = next_of(tiers, &i)) != NULL;) {
        for (int j = 0; j < COUNT(types); j++) {
            s.type = types[j];
            s.edge = area_new(STAYS + (size_t)s.ops->lanes * sizeof(uint16_t), GUARD_AFTER, 0);
            const bool ok = every_half_stored(&s, &rng);
            area_free(&s.edge);
            if (!ok) return false;
        }
    }
    return true;
}

static bool every_byte_stored(const struct vec_ops *ops)
{
    struct area edge = area_new(STAYS + (size_t)ops->lanes, GUARD_AFTER, 0);
    float x[MOST];
    bool ok = true;
    for (int first = -128; first < 256 && ok; first++) {
        memset(edge.data, 0xc5, edge.bytes);
        for (int i = 0; i < ops->lanes; i++)
            x[i] = (float)(first + i * 37 < 256 ? first + i * 37 : first);
        ops->store_bytes(edge.data + STAYS, x);
        for (int i = 0; i < ops->lanes && ok; i++)
            ok = edge.data[STAYS + i] == (unsigned char)(int)x[i] ||
                 broken("v_store_bytes: lane %d: %g becomes %02x", i, (double)x[i], edge.data[STAYS + i]);
        for (int i = 0; i < STAYS && ok; i++)
            ok = edge.data[i] == 0xc5 || broken("v_store_bytes begins %d bytes too early", STAYS - i);
    }
    area_free(&edge);
    return ok;
}

static bool stored_bytes_of_integers(const struct tiers *tiers)
{
    const struct vec_ops *ops;
    struct rng rng;
    if (!case_begin(0, &rng)) return true;
    for (int i = 0; (ops = next_of(tiers, &i)) != NULL;) {
        if (!every_byte_stored(ops)) return false;
    }
    return true;
}

static bool arithmetic(const struct tiers *tiers)
{
    return each(tiers, arithmetic_holds, false) && each(tiers, arithmetic_holds, true);
}

static bool broadcast(const struct tiers *tiers)
{
    return each(tiers, broadcast_holds, false) && each(tiers, broadcast_holds, true);
}

static bool half(const struct tiers *tiers)
{
    return each(tiers, half_holds, false) && each(tiers, half_holds, true);
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

/* The first words of n rows, transposed. */
static bool words_of_rows(void (*op)(float *to, const char *p, long stride), int n, int words,
                          const unsigned char *bytes, struct rng *rng)
{
    const int stride = 4 * words + (int)rng_below(rng, 40);
    float got[8 * MOST];
    struct area rows = area_new((size_t)((n - 1) * stride + 4 * words), GUARD_AFTER, 0);
    bool same = true;
    memcpy(rows.data, bytes, rows.bytes);
    op(got, (const char *)rows.data, stride);
    area_free(&rows);
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < words; j++)
            same = same && memcmp(got + j * n + i, bytes + i * stride + 4 * j, 4) == 0;
    }
    return same;
}

/* The first half of n rows, widened. */
static bool halves_of_rows(const struct vec_ops *ops, const unsigned char *bytes, struct rng *rng)
{
    const int n = ops->lanes, stride = 2 + (int)rng_below(rng, 78);
    float got[MOST], want[MOST];
    uint16_t halves[MOST];
    struct area rows = area_new((size_t)((n - 1) * stride + 2), GUARD_AFTER, 0);
    memcpy(rows.data, bytes, rows.bytes);
    ops->rows_f16(got, (const char *)rows.data, stride);
    area_free(&rows);
    for (int i = 0; i < n; i++)
        memcpy(&halves[i], bytes + i * stride, 2);
    ops->load_f16(want, halves);
    return memcmp(got, want, (size_t)n * sizeof(float)) == 0;
}

/* 16 halves of n rows, transposed and widened. */
static bool turned_halves(const struct vec_ops *ops, const unsigned char *bytes, struct rng *rng)
{
    const int n = ops->lanes, stride = 32 + 2 * (int)rng_below(rng, 20);
    float got[16 * MOST], want[MOST];
    uint16_t halves[MOST];
    struct area rows = area_new((size_t)((n - 1) * stride + 32), GUARD_AFTER, 0);
    bool same = true;
    memcpy(rows.data, bytes, rows.bytes);
    ops->turn_f16(got, (const char *)rows.data, stride);
    area_free(&rows);
    for (int u = 0; u < 16; u++) {
        for (int i = 0; i < n; i++)
            memcpy(&halves[i], bytes + i * stride + 2 * u, 2);
        ops->load_f16(want, halves);
        same = same && memcmp(got + u * n, want, (size_t)n * sizeof(float)) == 0;
    }
    return same;
}

/* What widens stored keys and values where rows are few. Signs of zeros count. */
static bool widening_holds(const struct vec_ops *ops, struct rng *rng, const float *a, const float *b, const float *c)
{
    const int n = ops->lanes;
    unsigned char bytes[MOST * 80];
    float got[2 * MOST], x[MOST], scale[MOST];
    for (int i = 0; i < MOST; i++)
        scale[i] = a[0];
    for (int i = 0; i < COUNT(bytes); i++)
        bytes[i] = (unsigned char)rng_next(rng);
    if (!words_of_rows(ops->words, n, 4, bytes, rng)) return broken("v_words");
    if (ops->half_lines != NULL && !words_of_rows(ops->half_lines, n, 8, bytes, rng)) return broken("v_half_lines");
    if (ops->turn_f16 != NULL && !turned_halves(ops, bytes, rng)) return broken("v_turn_f16");
    if (ops->rows_f16 != NULL && !halves_of_rows(ops, bytes, rng)) return broken("v_rows_f16");
    memcpy(x, bytes, sizeof x);
    for (int u = 0; u < 4; u++) {
        ops->word_i8(got, x, u);
        for (int i = 0; i < n; i++) {
            if (bits_of(got[i]) != bits_of((float)(signed char)bytes[4 * i + u]))
                return broken("v_word_i8: byte %d of lane %d: %d becomes %a", u, i, bytes[4 * i + u], (double)got[i]);
        }
        ops->word_top(got, x, u);
        for (int i = 0; i < n; i++) {
            if (bits_of(got[i]) != bits_of((float)(signed char)bytes[4 * i + u] * 0x1p24f))
                return broken("v_word_top: byte %d of lane %d: %d becomes %a", u, i, bytes[4 * i + u], (double)got[i]);
        }
        for (int high = 0; high < 2 && ops->word_u4 != NULL; high++) {
            ops->word_u4(got, x, u, high);
            for (int i = 0; i < n; i++) {
                const int half = (high ? bytes[4 * i + u] >> 4 : bytes[4 * i + u] & 15) - 8;
                if (bits_of(got[i]) != bits_of((float)half))
                    return broken("v_word_u4: byte %d of lane %d, half %d: %d becomes %a", u, i, high, half,
                                  (double)got[i]);
            }
        }
    }
    if ((ops->word_u4 == NULL) == (ops->word_half == NULL)) return broken("v_word_u4 or v_word_half: one of them");
    for (int high = 0; high < 2 && ops->word_half != NULL; high++) {
        signed char to[MOST * 4];
        ops->word_half(got, x, high);
        memcpy(to, got, sizeof to);
        for (int i = 0; i < 4 * n; i++) {
            const int half = (high ? bytes[i] >> 4 : bytes[i] & 15) - 8;
            if (to[i] != 16 * half) return broken("v_word_half: byte %d, half %d: %d becomes %d", i, high, half, to[i]);
        }
    }
    for (int high = 0; high < 2; high++) {
        ops->scaled_u4(got, scale, bytes, high);
        for (int i = 0; i < n; i++) {
            const float want = a[0] * (float)((high ? bytes[i] >> 4 : bytes[i] & 15) - 8);
            if (!same_float(got[i], want))
                return broken("v_scaled_u4: lane %d is %a, not %a", i, (double)got[i], (double)want);
        }
    }
    for (int f16 = 0; f16 < 2; f16++) {
        ops->halves(got, x, f16);
        for (int i = 0; i < 2 * n; i++) {
            float want;
            decode_row(f16 ? TRIL_F16 : TRIL_BF16, bytes + 4 * (i % n) + 2 * (i / n), 1.0f, 1, &want);
            if (!same_float(got[i], want))
                return broken("v_halves_%s: half %d of lane %d is %a, not %a", f16 ? "f16" : "bf16", i / n, i % n,
                              (double)got[i], (double)want);
        }
    }
    for (int i = 0; i < n; i++)
        x[i] = fmaf(a[0], b[i], c[i]);
    ops->a_fma_in(got, a, b, c);
    if (!lanes_are("a_fma_in", got, x, n)) return false;
    ops->a_fma_at(got, a, b, c);
    return lanes_are("a_fma_at", got, x, n);
}

static bool widening(const struct tiers *tiers)
{
    return each(tiers, widening_holds, true);
}

/* Math mode BF16 */

static float half_of(uint32_t pair, int i)
{
    return float_of(i == 0 ? pair << 16 : pair & 0xffff0000);
}

/* x rounded to bf16; a subnormal counts as 0. */
static uint32_t bf16_by_hand(float x)
{
    const float y = round_to(TRIL_BF16, x);
    return fabsf(y) < 0x1p-126f ? bits_of(y) & 0x80000000 : bits_of(y);
}

static bool same_half(uint32_t got, uint32_t want)
{
    return got == want || (isnan(float_of(got)) && isnan(float_of(want)));
}

static bool pairs_hold(const struct vec_ops *ops, struct rng *rng, const float *a, const float *b, const float *c)
{
    float x[MOST], y[MOST], got[MOST], first[MOST], second[MOST];
    uint16_t halves[MOST], weights[MOST];
    for (int i = 0; i < ops->lanes; i++) { /* also around the least normal number and the middles of two halves */
        const uint32_t near =
            (rng_one_in(rng, 2) ? 0x007f8000u : bits_of(a[i]) & 0xffff8000u) + (uint32_t)rng_below(rng, 3) - 1;
        x[i] = rng_one_in(rng, 3) ? float_of(near | (bits_of(b[i]) & 0x80000000)) : a[i];
        y[i] = rng_one_in(rng, 3) ? float_of(near) : b[i];
    }
    ops->pair(got, x, y);
    ops->first_of_pair(first, got);
    ops->second_of_pair(second, got);
    ops->store_pairs(halves, x);
    for (int i = 0; i < ops->lanes; i++) {
        const uint32_t pair = bits_of(got[i]);
        if (!same_half(pair << 16, bf16_by_hand(x[i])) || !same_half(pair & 0xffff0000, bf16_by_hand(y[i])))
            return broken("v_pair: lane %d: %a and %a become %08x", i, (double)x[i], (double)y[i], pair);
        if (bits_of(first[i]) != (pair & 0xffff)) return broken("v_first_of_pair: lane %d", i);
        if (bits_of(second[i]) != (pair & 0xffff0000)) return broken("v_second_of_pair: lane %d", i);
        if (!same_half((uint32_t)halves[i] << 16, bf16_by_hand(x[i])))
            return broken("v_store_pairs: lane %d: %a becomes %04x", i, (double)x[i], halves[i]);
        x[i] = isnan(c[i]) ? c[i] : fabsf(c[i]) < 0x1p-126f ? 0.0f : fminf(fabsf(c[i]), 1.0f);
    }
    if (!ops->has_dots) return true;
    ops->store_weights(weights, x);
    for (int i = 0; i < ops->lanes; i++) {
        if (!same_half((uint32_t)weights[i] << 16, bf16_by_hand(x[i])))
            return broken("v_store_weights: lane %d: %a becomes %04x", i, (double)x[i], weights[i]);
    }
    return true;
}

/* One sum as the contract says: rounded to 24 bits whatever the exponent, then 0 if it is below 2^-126. What is small
 * is brought up by 2^100 first, where nothing rounds twice. */
static float flushed_sum(float a, float b, float c)
{
    const float plain = fmaf(a, b, c);
    if (!(fabsf(plain) < 0x1p-100f)) return plain;
    const float up = fabsf(c) < 0x1p-20f && fabs((double)a * (double)b) < 0x1p-20
                         ? (float)((double)a * (double)b * 0x1p100 + (double)c * 0x1p100)
                         : plain * 0x1p100f;
    return fabsf(up) < 0x1p-26f ? copysignf(0.0f, plain) : plain;
}

/* A number that makes sums of every size, above all some that just become 0 and some that just do not. */
static uint32_t dot_half(struct rng *rng, bool low)
{
    const uint32_t sign = (uint32_t)rng_below(rng, 2) << 31, fraction = (uint32_t)rng_below(rng, 128) << 16;
    if (rng_one_in(rng, 8)) return sign;
    return sign | (uint32_t)(low ? 60 + rng_below(rng, 8) : 100 + rng_below(rng, 50)) << 23 | fraction;
}

static bool dots_hold(const struct vec_ops *ops, struct rng *rng, const float *a, const float *b, const float *c)
{
    const bool low = rng_one_in(rng, 2);
    float q[4], k[MOST], from[MOST], got[MOST];
    (void)a, (void)b;
    if (!ops->has_dots) return true;
    for (int i = 0; i < 4; i++)
        q[i] = float_of(dot_half(rng, low) | dot_half(rng, low) >> 16);
    for (int i = 0; i < ops->lanes; i++) {
        k[i] = float_of(dot_half(rng, low) | dot_half(rng, low) >> 16);
        from[i] = c[i] * (low ? 0x1p-126f : 1.0f);
        if (low && rng_one_in(rng, 4)) from[i] = copysignf(0x1p-126f, c[i]);
        if (fabsf(from[i]) < 0x1p-126f) from[i] = 0.0f;
    }
    for (int lane = 0; lane < ops->a_step; lane++) {
        int doubt;
        bool small = false;
        ops->a_dot(got, q, lane, k, from, &doubt);
        for (int i = 0; i < ops->lanes; i++) {
            const uint32_t x = bits_of(q[lane]), y = bits_of(k[i]);
            const float t = flushed_sum(half_of(x, 1), half_of(y, 1), from[i]);
            const float want = flushed_sum(half_of(x, 0), half_of(y, 0), t);
            const float plain = fmaf(half_of(x, 1), half_of(y, 1), from[i]),
                        end = fmaf(half_of(x, 0), half_of(y, 0), plain);
            small = small || (plain != 0.0f && fabsf(plain) <= 0x1p-126f) || (end != 0.0f && fabsf(end) <= 0x1p-126f);
            if (!doubt && !same_float(got[i], want))
                return broken("a_dot: lane %d: %08x . %08x + %a is %a, not %a", i, x, y, (double)from[i],
                              (double)got[i], (double)want);
        }
        if (doubt && (!small || ops->dot_exact)) return broken("a_dot is in doubt without need");
    }
    return true;
}

static bool pairs(const struct tiers *tiers)
{
    return each(tiers, pairs_hold, false);
}

static bool dots(const struct tiers *tiers)
{
    return each(tiers, dots_hold, true);
}

static const struct check checks[] = {
    {"arithmetic", arithmetic},
    {"broadcast", broadcast},
    {"half", half},
    {"memory", memory},
    {"transpose", transpose},
    {"rounding", rounding},
    {"scale2", scale2},
    {"maximum", maximum},
    {"sum", sum},
    {"stored_loads", stored_loads},
    {"stored_halves", stored_halves},
    {"stored_bytes", stored_bytes_of_integers},
    {"widening", widening},
    {"pairs", pairs},
    {"dots", dots},
};
const struct suite suite_vec = {"vec", checks, COUNT(checks)};
