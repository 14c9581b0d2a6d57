/* What CONTRACT's special values give: no visible key, all scores -inf, a NaN or +inf score, NaN and inf in V. The
 * expectation comes from a model of its own, which only classifies a row; the bits are test_bits.c's business. */
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum row { BLIND, POISONED, NOTHING, ORDINARY }; /* no key; NaN or +inf score; all -inf; anything else */

/* The score of one key in the contract's own order, so that an overflow is seen where the library has it. */
static float score(const struct problem *p, int64_t q_token, int64_t q_head, int64_t k_token)
{
    const float *q = problem_q(p, q_token, q_head), *k = problem_k(p, k_token, q_head / (p->q_heads / p->kv_heads));
    const float scale = p->scale == 0.0f ? (float)(1.0 / sqrt(p->qk_dim)) : p->scale;
    float s = 0.0f;
    for (int d = 0; d < p->qk_dim; d++)
        s = fmaf(q[d], k[d], s);
    return s * (float)(scale * 1.4426950408889634);
}

static enum row classify(const struct problem *p, const tril_seq *seq, int64_t i, int64_t head, float *max)
{
    const int64_t n = visible_keys(seq, i);
    enum row row = n == 0 ? BLIND : NOTHING;
    *max = -INFINITY;
    for (int64_t j = 0; j < n; j++) {
        const float t = score(p, seq->q_first + i, head, seq->kv_first + j);
        if (t != t || t == INFINITY) row = POISONED;
        if (t > *max) *max = t;
        if (row != POISONED && t > -INFINITY) row = ORDINARY;
    }
    return row;
}

static bool plus_zero(float x)
{
    return bits_of(x) == 0;
}

static bool finite_float(float x)
{
    return x - x == 0.0f;
}

/* The visible values of one column: 0 finite, 1 with an inf, 2 with a NaN. */
static int column_kind(const struct problem *p, const tril_seq *seq, int64_t i, int64_t kv_head, int column)
{
    int kind = 0;
    for (int64_t j = 0; j < visible_keys(seq, i); j++) {
        const float v = problem_v(p, seq->kv_first + j, kv_head)[column];
        if (v != v) return 2;
        if (!finite_float(v)) kind = 1;
    }
    return kind;
}

static bool output_of(const struct problem *p, const tril_seq *seq, int64_t i, int64_t head, enum row row,
                      const float *o)
{
    static const char *const names[] = {"sees no key", "has a NaN or +inf score", "sees only -inf", "is ordinary"};
    for (int d = 0; d < p->v_dim; d++) {
        const int kind = row == BLIND ? 0 : column_kind(p, seq, i, head / (p->q_heads / p->kv_heads), d);
        bool ok;
        if (row == POISONED)
            ok = o[d] != o[d];
        else if (kind == 2 || (kind == 1 && row == NOTHING))
            ok = o[d] != o[d];
        else if (kind == 1)
            ok = !finite_float(o[d]);
        else
            ok = row == ORDINARY ? finite_float(o[d]) : plus_zero(o[d]);
        if (!ok)
            return broken("query %lld head %lld column %d is %a, and the row %s, the column %s", (long long)i,
                          (long long)head, d, (double)o[d], names[row],
                          kind == 2   ? "has a NaN"
                          : kind == 1 ? "has an inf"
                                      : "is finite");
    }
    return true;
}

static bool weights_of(const tril_seq *seq, int64_t i, int64_t head, enum row row, const float *a, tril_dtype type)
{
    /* In 16 bits each is rounded once more: relative to itself, or below the least normal F16 by 2^-25 at the most. */
    const double rounded = type == TRIL_F32 ? 0.0 : type == TRIL_F16 ? 0x1p-11 : 0x1p-8;
    const double off = 16.0 * 0x1p-24 + rounded + (rounded > 0.0 ? (double)seq->kv_len * 0x1p-25 : 0.0);
    double sum = 0.0;
    for (int64_t j = 0; j < seq->kv_len; j++) {
        const bool seen = j < visible_keys(seq, i);
        const bool ok = !seen || row == NOTHING ? plus_zero(a[j])
                        : row == POISONED       ? a[j] != a[j]
                                                : a[j] >= 0.0f && a[j] <= 1.0f;
        if (!ok)
            return broken("the weight of key %lld for query %lld head %lld is %a", (long long)j, (long long)i,
                          (long long)head, (double)a[j]);
        sum += (double)a[j];
    }
    return row != ORDINARY || fabs(sum - 1.0) <= off || broken("the weights' sum is 1 %+.3g", sum - 1.0);
}

static bool statistics_of(enum row row, float expected_max, float max, float sum)
{
    bool ok;
    if (row == POISONED)
        ok = sum != sum && bits_of(max) == bits_of(expected_max + 0.0f);
    else if (row == ORDINARY)
        ok = bits_of(max) == bits_of(expected_max + 0.0f) && sum >= 1.0f && finite_float(sum);
    else
        ok = max == -INFINITY && plus_zero(sum);
    return ok ||
           broken("row_max is %a and row_sum %a; the largest t is %a", (double)max, (double)sum, (double)expected_max);
}

static bool as_classified(const struct problem *p, const struct result *r, bool weights)
{
    for (int s = 0; s < p->n_seqs; s++) {
        const tril_seq *seq = &p->seqs[s];
        for (int64_t i = 0; i < seq->q_len; i++) {
            for (int64_t head = 0; head < p->q_heads; head++) {
                const int64_t token = seq->q_first + i;
                float max;
                const enum row row = classify(p, seq, i, head, &max);
                const float *x = result_row(r, token, head);
                if (!(weights ? weights_of(seq, i, head, row, x, r->type) : output_of(p, seq, i, head, row, x)) ||
                    !statistics_of(row, max, r->row_max[token * r->heads + head], r->row_sum[token * r->heads + head]))
                    return false;
            }
        }
    }
    return true;
}

static bool classified(const struct problem *p, struct rng *rng, const char *more, const struct tiers *tiers)
{
    for (int i = 0; i < tiers->n; i++) {
        for (enum operation operation = ATTEND; operation <= DENSE; operation++) {
            const struct placing placing = placing_random(rng);
            char text[600], place[400];
            placing_describe(&placing, place, sizeof place);
            snprintf(text, sizeof text, "%s, %s, %s", operation_name(operation), more, place);
            problem_describe(p, text);
            struct result *r = run(p, &placing, operation, tiers->name[i]);
            const bool ok = r != NULL && as_classified(p, r, operation == DENSE);
            result_free(r);
            if (!ok) return false;
        }
    }
    return true;
}

/* What is planted, over ordinary values. `at` is the key or query it lies at. */
enum plant {
    Q_NAN,
    Q_INF,
    K_NAN,
    K_SIGNALLING,
    K_PLUS_INF,
    K_MINUS_INF,
    K_ALL_MINUS_INF,         /* every key */
    K_BLOCK_MINUS_INF,       /* every key of the key's block */
    K_ALL_MINUS_INF_BUT_NAN, /* a NaN where the maximum stays -inf: no early way out may hide it */
    K_ALL_MINUS_INF_BUT_ONE, /* ... and one ordinary score */
    V_NAN,
    V_SIGNALLING,
    V_INF,
    V_MINUS_INF,
    V_NAN_WEIGHTLESS, /* at a key whose score is -inf: weight 0 */
    V_INF_WEIGHTLESS,
    V_NAN_ALL_MINUS_INF, /* nothing has weight */
    PLANTS
};
static const char *const plant_name[] = {
    "NaN in q",
    "inf in q",
    "NaN in k",
    "signalling NaN in k",
    "+inf score",
    "-inf score",
    "all -inf",
    "a block of -inf",
    "all -inf but one NaN",
    "all -inf but one",
    "NaN in v",
    "signalling NaN in v",
    "inf in v",
    "-inf in v",
    "NaN in v at weight 0",
    "inf in v at weight 0",
    "NaN in v where all is -inf",
};
_Static_assert(COUNT(plant_name) == PLANTS, "a name for every plant");

static void k_score(struct problem *p, int64_t token, float x)
{
    for (int head = 0; head < p->kv_heads; head++)
        problem_k(p, token, head)[0] = x;
}

static void plant(struct problem *p, enum plant what, int64_t q_at, int64_t k_at, int column)
{
    const tril_seq *seq = &p->seqs[0];
    const int64_t first = seq->kv_first, token = first + k_at;
    const bool all = what == K_ALL_MINUS_INF || what == K_ALL_MINUS_INF_BUT_NAN || what == K_ALL_MINUS_INF_BUT_ONE ||
                     what == V_NAN_ALL_MINUS_INF;
    const float keep = problem_k(p, token, 0)[0];
    for (int64_t t = 0; t < p->q_tokens; t++) { /* so that an infinite key gives a score of its own sign */
        for (int head = 0; head < p->q_heads; head++)
            problem_q(p, t, head)[0] = 0.5f;
    }
    for (int64_t j = 0; all && j < seq->kv_len; j++)
        k_score(p, first + j, -INFINITY);
    for (int64_t j = k_at / 256 * 256; what == K_BLOCK_MINUS_INF && j < seq->kv_len && j < k_at / 256 * 256 + 256; j++)
        k_score(p, first + j, -INFINITY);
    float *q = problem_q(p, seq->q_first + q_at, 0), *v = problem_v(p, token, 0);
    switch (what) {
    case Q_NAN: q[p->qk_dim - 1] = NAN; break;
    case Q_INF: q[p->qk_dim - 1] = INFINITY; break;
    case K_NAN:
    case K_ALL_MINUS_INF_BUT_NAN: k_score(p, token, NAN); break;
    case K_SIGNALLING: { /* by its bits: a float argument could quiet it */
        const uint32_t bits = SIGNALLING_NAN;
        memcpy(problem_k(p, token, 0) + p->qk_dim - 1, &bits, sizeof bits);
        break;
    }
    case K_PLUS_INF: k_score(p, token, INFINITY); break;
    case K_MINUS_INF: k_score(p, token, -INFINITY); break;
    case K_ALL_MINUS_INF_BUT_ONE: k_score(p, token, keep); break;
    case V_NAN:
    case V_NAN_ALL_MINUS_INF: v[column] = NAN; break;
    case V_SIGNALLING: {
        const uint32_t bits = SIGNALLING_NAN;
        memcpy(v + column, &bits, sizeof bits);
        break;
    }
    case V_INF: v[column] = INFINITY; break;
    case V_MINUS_INF: v[column] = -INFINITY; break;
    case V_NAN_WEIGHTLESS:
    case V_INF_WEIGHTLESS:
        k_score(p, token, -INFINITY);
        v[column] = what == V_NAN_WEIGHTLESS ? NAN : INFINITY;
        break;
    default: break;
    }
}

/* Keys in every role: the first, one within a lane group, the last of a block, the first of the next, the last. */
static bool planted(const struct tiers *tiers)
{
    static const int lengths[] = {1, 2, 17, 40, 256, 257, 290, 530};
    static const int64_t places[] = {0, 1, 15, 16, 37, 255, 256, 300, 529};
    int index = 0;
    struct rng rng;
    for (int what = 0; what < PLANTS; what++) {
        for (int n = 0; n < COUNT(lengths); n++) {
            for (int at = 0; at <= COUNT(places); at++, index++) {
                const int64_t kv_len = lengths[n];
                const int64_t key = at < COUNT(places) ? places[at] : kv_len - 1;
                if (key >= kv_len || !table_case_begin(index, &rng)) continue;
                const bool blocks = rng_one_in(&rng, 4); /* such as Q8_0 has */
                struct problem *p =
                    problem_new(3, rng_one_in(&rng, 2) ? 1 : 3, blocks ? 32 : 1 + (int)rng_below(&rng, 9),
                                blocks ? 32 : 1 + (int)rng_below(&rng, 20));
                const int64_t q_len = 1 + rng_below(&rng, kv_len < 9 ? kv_len : 9);
                problem_seq(p, 0, q_len, 0, kv_len);
                problem_fill(p, &rng, NORMAL);
                plant(p, (enum plant)what, rng_below(&rng, q_len), key, (int)rng_below(&rng, p->v_dim));
                if (at % 2 == 1) problem_store_random(p, &rng);
                const bool ok = classified(p, &rng, plant_name[what], tiers);
                problem_free(p);
                if (!ok) return false;
            }
        }
    }
    return true;
}

/* Rows that see nothing: no key at all, queries before position 0, empty sequences between others. */
static bool nothing_visible(const struct tiers *tiers)
{
    struct rng rng;
    for (int i = 0; i < 12; i++) {
        if (!case_begin(i, &rng)) continue;
        struct problem *p = problem_new(2 + i, i % 2 == 0 ? 1 : 2 + i, 5, 19);
        problem_seq(p, 0, 3, 0, 0);
        problem_seq(p, 1, 12 + i * 20, 0, 4);
        problem_seq(p, 0, 0, 0, 7);
        problem_seq(p, 0, 2, 3, 2);
        problem_seq(p, 0, 300, 0, 1);
        problem_fill(p, &rng, NORMAL);
        problem_store_random(p, &rng);
        const bool ok = classified(p, &rng, "nothing visible", tiers);
        problem_free(p);
        if (!ok) return false;
    }
    return true;
}

/* Scores of +0 and -0, by q, by a negative scale, by underflow: row_max is +0, whatever the sign of the largest t. */
static bool zero_scores(const struct tiers *tiers)
{
    static const float factors[] = {0.0f, -0.0f, 0x1p-100f, -0x1p-100f};
    static const float scales[] = {0.5f, -0.5f};
    struct rng rng;
    for (int i = 0; i < COUNT(factors) * COUNT(scales) * 6; i++) {
        if (!case_begin(i, &rng)) continue;
        struct problem *p = problem_new(2, 1, 1 + (int)rng_below(&rng, 9), 1 + (int)rng_below(&rng, 9));
        p->scale = scales[i % 2];
        problem_seq(p, 0, 1 + rng_below(&rng, 3), 0, 3 + rng_below(&rng, 300));
        problem_fill(p, &rng, NORMAL);
        for (int64_t j = 0; j < p->q_tokens * p->q_heads * p->qk_dim; j++)
            p->q[j] = factors[i / 2 % 4];
        for (int64_t j = 0; j < p->kv_tokens * p->kv_heads * p->qk_dim; j++)
            p->k[j] *= 0x1p-100f;
        problem_store_random(p, &rng);
        const bool ok = classified(p, &rng, "zero scores", tiers);
        problem_free(p);
        if (!ok) return false;
    }
    return true;
}

/* NaN and inf in one column of V leave the bits of the others alone. */
static bool other_columns(const struct tiers *tiers)
{
    static const uint32_t odd[] = {0x7fc00000, SIGNALLING_NAN, 0x7f800000, 0xff800000};
    const int cases = scaled(24);
    struct rng rng;
    for (int i = 0; i < cases; i++) {
        if (!case_begin(i, &rng)) continue;
        struct problem *p = problem_new(4, 2, 6, 1 + (int)rng_below(&rng, 40));
        const int64_t kv_len = 1 + rng_below(&rng, 400);
        problem_seq(p, 0, 1 + rng_below(&rng, kv_len < 20 ? kv_len : 20), 0, kv_len);
        problem_fill(p, &rng, NORMAL);
        problem_store(p, TRIL_F32, TRIL_F32, (tril_dtype)(i % 3)); /* where an element is alone */
        const int column = (int)rng_below(&rng, p->v_dim);
        const int64_t key = rng_below(&rng, kv_len);
        const uint32_t bits = rng_of(&rng, odd);
        struct placing stored = contiguous;
        stored.stored = true;
        bool ok = true;
        for (int t = 0; t < tiers->n && ok; t++) {
            problem_describe(p, "one odd column of v");
            for (int head = 0; head < 2; head++)
                problem_v(p, key, head)[column] = 1.0f;
            problem_encode(p, key, 1);
            struct result *want = run(p, &stored, ATTEND, tiers->name[t]);
            for (int head = 0; head < 2; head++)
                memcpy(problem_v(p, key, head) + column, &bits, sizeof bits);
            problem_encode(p, key, 1);
            struct result *got = run(p, &stored, ATTEND, tiers->name[t]);
            ok = got != NULL && want != NULL;
            for (int64_t j = 0; ok && j < want->rows * want->heads * want->width; j++) {
                const bool seen = key < visible_keys(&p->seqs[0], j / (want->heads * want->width));
                if (j % want->width == column && seen)
                    ok = !finite_float(got->x[j]) ||
                         broken("column %d hides the %08x of key %lld", column, bits, (long long)key);
                else
                    ok = same_float(got->x[j], want->x[j]) ||
                         broken("element %lld is %a, not %a: a value of column %d reached it", (long long)j,
                                (double)got->x[j], (double)want->x[j], column);
            }
            result_free(got);
            result_free(want);
        }
        problem_free(p);
        if (!ok) return false;
    }
    return true;
}

/* Scores that overflow on their own, and random sprinkles: whatever the model says of each row. */
static bool sprinkled(const struct tiers *tiers)
{
    const int cases = scaled(60);
    struct rng rng;
    for (int i = 0; i < cases; i++) {
        if (!case_begin(i, &rng)) continue;
        struct problem *p = problem_new(2, 1, 3 + (int)rng_below(&rng, 6), 1 + (int)rng_below(&rng, 18));
        problem_seq(p, 0, 1 + rng_below(&rng, 12), 0, 1 + rng_below(&rng, 300));
        p->scale = rng_one_in(&rng, 2) ? 0.0f : -0.3f;
        const enum values kind = i % 2 == 0 ? SPECIAL : VAST;
        problem_fill(p, &rng, kind);
        for (int64_t j = 0; j < p->kv_tokens * p->v_dim; j++) { /* or a finite column could overflow */
            if (finite_float(p->v[j])) p->v[j] = rng_normal(&rng);
        }
        problem_store_random(p, &rng);
        const bool ok = classified(p, &rng, values_name(kind), tiers);
        problem_free(p);
        if (!ok) return false;
    }
    return true;
}

static const struct check checks[] = {
    {"planted", planted},         {"nothing_visible", nothing_visible},
    {"zero_scores", zero_scores}, {"other_columns", other_columns},
    {"sprinkled", sprinkled},
};
const struct suite suite_special = {"special", checks, COUNT(checks)};
