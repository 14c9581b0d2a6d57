/* How exact: docs/contract.md's bound against the real result in double, for every tier.
 *
 *   |O - O*| <= u A (48 + 2 S + n / 8192),   u = 2^-24, A = sum p |v|, S = max |scale| sum |q k|, n visible keys
 *
 * That counts on the roundings of a score being as random as its terms. Where one large term leads every score, each of
 * the D roundings is as large as it: they walk some sqrt(D) of themselves away, and the bound has (2 + 4 sqrt(D)) S. So
 * has every row with S above 30, and the bound of a single weight, where nothing averages out. What exp2 flushes to 0
 * adds at most 2^-126 per key.
 *
 * In math mode BF16 a product q k is off by up to 2^-7 + 2^-16 of itself, a weight by the exponential of twice what
 * that makes of S (its own score's and the sum's), and p and v by 2^-8 each. */
#include "codes.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define U 0x1p-24

/* The real answer of one row. */
struct reference {
    double *weight; /* [visible] */
    double S;
    int64_t n;
    int dim;
};

static double factor(const struct reference *r)
{
    return 48.0 + 2.0 * r->S + (double)r->n / 8192.0;
}

static double walking_factor(const struct reference *r)
{
    return factor(r) + 4.0 * sqrt(r->dim) * r->S;
}

/* Of an output; `led`: its scores are led by one large term each. */
static double output_factor(const struct reference *r, bool led)
{
    return led || r->S > 30.0 ? walking_factor(r) : factor(r);
}

/* By what factor, less 1, math mode BF16 may change a weight, and p v. */
static double rounded_weight(const struct problem *p, const struct reference *r)
{
    return p->math == TRIL_MATH_BF16 ? expm1((0x1p-6 + 0x1p-15) * r->S) : 0.0;
}

static double rounded_product(const struct problem *p, const struct reference *r)
{
    return p->math == TRIL_MATH_BF16 ? (1.0 + rounded_weight(p, r)) * (1.0 + 0x1p-8) * (1.0 + 0x1p-8) - 1.0 : 0.0;
}

static struct reference reference_of(const struct problem *p, const tril_seq *seq, int64_t i, int64_t head)
{
    struct reference r = {.n = visible_keys(seq, i), .dim = p->qk_dim};
    const double scale = p->scale == 0.0f ? 1.0 / sqrt(p->qk_dim) : (double)p->scale;
    const float *q = problem_q(p, seq->q_first + i, head);
    double max = -INFINITY, sum = 0.0;
    r.weight = malloc((size_t)(r.n + 1) * sizeof *r.weight);
    if (r.weight == NULL) abort();
    for (int64_t j = 0; j < r.n; j++) {
        const float *k = problem_k(p, seq->kv_first + j, head / (p->q_heads / p->kv_heads));
        double s = 0.0, size = 0.0;
        for (int d = 0; d < p->qk_dim; d++) {
            const double x = (double)q[d] * (double)k[d];
            s += x;
            size += fabs(x);
        }
        r.weight[j] = scale * s;
        r.S = fmax(r.S, fabs(scale) * size);
        max = fmax(max, r.weight[j]);
    }
    for (int64_t j = 0; j < r.n; j++)
        sum += r.weight[j] = exp(r.weight[j] - max);
    for (int64_t j = 0; j < r.n; j++)
        r.weight[j] /= sum;
    return r;
}

/* The worst error seen, in units of the bound. */
struct worst {
    double attend, weights, sum;
};

static bool within(double got, double want, double bound, double *worst, const char *what, int64_t i, int64_t head,
                   int64_t column)
{
    const double error = fabs(got - want);
    if (bound > 0.0 && error / bound > *worst) *worst = error / bound;
    return error <= bound || broken("%s: query %lld head %lld column %lld is %a, the real result %a: %.2f of the bound",
                                    what, (long long)i, (long long)head, (long long)column, got, want, error / bound);
}

static bool row_in_bound(const struct problem *p, const tril_seq *seq, int64_t i, int64_t head, const float *o,
                         const float *a, bool led, struct worst *worst)
{
    const int64_t kv_head = head / (p->q_heads / p->kv_heads);
    struct reference r = reference_of(p, seq, i, head);
    bool ok = true;
    double sum = 0.0;
    for (int64_t j = 0; j < r.n && ok; j++) {
        const double bound = r.weight[j] * (U * walking_factor(&r) + rounded_weight(p, &r));
        ok = within((double)a[j], r.weight[j], bound + 0x1p-126, &worst->weights, "weight", i, head, j);
        sum += (double)a[j];
    }
    if (r.n > 0 && ok) ok = within(sum, 1.0, 16.0 * U, &worst->sum, "sum of weights", i, head, 0);
    for (int d = 0; d < p->v_dim && ok; d++) {
        double want = 0.0, A = 0.0, flushed = 0.0, low = INFINITY, high = -INFINITY;
        for (int64_t j = 0; j < r.n; j++) {
            const double v = (double)problem_v(p, seq->kv_first + j, kv_head)[d];
            want += r.weight[j] * v;
            A += r.weight[j] * fabs(v);
            flushed += 0x1p-126 * fabs(v);
            low = fmin(low, v);
            high = fmax(high, v);
        }
        const double bound = A * (U * output_factor(&r, led) + rounded_product(p, &r)) + flushed;
        ok = within((double)o[d], want, bound, &worst->attend, "output", i, head, d);
        if (ok && r.n > 0 && ((double)o[d] < low - bound || (double)o[d] > high + bound))
            ok = broken("query %lld head %lld column %d is %a, outside the values' hull %a ... %a", (long long)i,
                        (long long)head, d, (double)o[d], low, high);
        if (p->math == TRIL_MATH_BF16) low = (double)round_to(TRIL_BF16, (float)low);
        if (ok && r.n == 1 && (double)o[d] != low)
            ok = broken("query %lld head %lld column %d is %a, and its one visible value %a", (long long)i,
                        (long long)head, d, (double)o[d], low);
    }
    if (ok && r.n == 1 && a[0] != 1.0f) ok = broken("the weight of the only visible key is %a", (double)a[0]);
    free(r.weight);
    return ok;
}

static bool in_bound(const struct problem *p, const char *more, const struct tiers *tiers, bool led,
                     struct worst *worst)
{
    bool ok = true;
    for (int t = 0; t < tiers->n && ok; t++) {
        problem_describe(p, more);
        struct result *o = run(p, &contiguous, ATTEND, tiers->name[t]), *a = run(p, &contiguous, DENSE, tiers->name[t]);
        ok = o != NULL && a != NULL;
        for (int s = 0; s < p->n_seqs && ok; s++) {
            for (int64_t i = 0; i < p->seqs[s].q_len && ok; i++) {
                const int64_t token = p->seqs[s].q_first + i;
                for (int64_t head = 0; head < p->q_heads && ok; head++)
                    ok = row_in_bound(p, &p->seqs[s], i, head, result_row(o, token, head), result_row(a, token, head),
                                      led, worst);
            }
        }
        result_free(o);
        result_free(a);
    }
    return ok;
}

static bool report(bool ok, const char *name, const struct worst *worst)
{
    printf("%s: worst error %.3f of the bound, weights %.3f, their sum %.3f\n", name, worst->attend, worst->weights,
           worst->sum);
    return ok;
}

static bool random_in_bound(const struct tiers *tiers, tril_math math, const enum values *kinds, int n_kinds, int cases,
                            const char *name)
{
    struct worst worst = {0.0, 0.0, 0.0};
    struct rng rng;
    for (int i = 0; i < cases; i++) {
        if (!case_begin(i, &rng)) continue;
        const enum values kind = kinds[i % n_kinds];
        struct problem *p = problem_random(&rng, 4e5, kind);
        p->math = math;
        const bool led = math == TRIL_MATH_BF16 || kind == RISING || kind == FALLING;
        const bool ok = in_bound(p, values_name(kind), tiers, led, &worst);
        problem_free(p);
        if (!ok) return false;
    }
    return report(true, name, &worst);
}

static bool random_calls(const struct tiers *tiers)
{
    static const enum values kinds[] = {NORMAL, PEAKED, TIES, RISING, FALLING};
    return random_in_bound(tiers, TRIL_MATH_F32, kinds, COUNT(kinds), scaled(60), "random calls");
}

static bool random_pairs(const struct tiers *tiers)
{
    static const enum values kinds[] = {NORMAL, TIES, PEAKED};
    return random_in_bound(tiers, TRIL_MATH_BF16, kinds, COUNT(kinds), scaled(40), "math mode BF16");
}

/* Many keys: 33 folds, where an error could pile up; and logits from flat to a few hundred. */
static bool long_rows(const struct tiers *tiers)
{
    struct worst worst = {0.0, 0.0, 0.0};
    struct rng rng;
    for (int i = 0; i < 8; i++) {
        if (!case_begin(i, &rng)) continue;
        struct problem *p = problem_new(1, 1, i % 2 == 0 ? 64 : 128, 16);
        problem_seq(p, 0, 1, 0, i < 4 ? 8300 : 1000);
        p->scale = i < 2 ? 0.0f : 0.01f * (float)(1 << (i % 4) * 2);
        problem_fill(p, &rng, NORMAL);
        const bool ok = in_bound(p, "long row", tiers, false, &worst);
        problem_free(p);
        if (!ok) return false;
    }
    return report(true, "long rows", &worst);
}

/* V = 1 gives 1, or -3 gives -3: the real result is known without a reference. */
static bool constant_values(const struct tiers *tiers)
{
    const int cases = scaled(20);
    struct worst worst = {0.0, 0.0, 0.0};
    struct rng rng;
    for (int i = 0; i < cases; i++) {
        if (!case_begin(i, &rng)) continue;
        struct problem *p = problem_random(&rng, 2e5, NORMAL);
        const float value = i % 2 == 0 ? 1.0f : -3.0f;
        for (int64_t j = 0; j < p->kv_tokens * p->kv_heads * p->v_dim; j++)
            p->v[j] = value;
        const bool ok = in_bound(p, "constant values", tiers, false, &worst);
        problem_free(p);
        if (!ok) return false;
    }
    return report(true, "constant values", &worst);
}

/* Keys (with their values) in another order: the real result of a query that sees them all is the same, so the
 * library's for the permuted keys lies within the bound of the reference for the original ones. */
static bool permuted_keys(const struct tiers *tiers)
{
    const int cases = scaled(12);
    struct worst worst = {0.0, 0.0, 0.0};
    struct rng rng;
    for (int i = 0; i < cases; i++) {
        if (!case_begin(i, &rng)) continue;
        struct problem *p = problem_new(2, 1, 1 + (int)rng_below(&rng, 70), 1 + (int)rng_below(&rng, 20));
        problem_seq(p, 0, 1, 0, 2 + rng_below(&rng, 600));
        problem_fill(p, &rng, i % 2 == 0 ? NORMAL : PEAKED);
        struct problem *turned = problem_new(2, 1, p->qk_dim, p->v_dim);
        problem_seq(turned, 0, 1, 0, p->kv_tokens);
        problem_fill(turned, &rng, NORMAL);
        memcpy(turned->q, p->q, 2 * (size_t)p->qk_dim * sizeof(float));
        const int64_t n = p->kv_tokens, first = rng_below(&rng, n);
        for (int64_t j = 0; j < n; j++) { /* turned about and mirrored: every key moves */
            const int64_t from = (2 * n - 1 - j + first) % n;
            memcpy(problem_k(turned, j, 0), problem_k(p, from, 0), (size_t)p->qk_dim * sizeof(float));
            memcpy(problem_v(turned, j, 0), problem_v(p, from, 0), (size_t)p->v_dim * sizeof(float));
        }
        bool ok = true;
        for (int t = 0; t < tiers->n && ok; t++) {
            problem_describe(p, "permuted keys");
            struct result *o = run(turned, &contiguous, ATTEND, tiers->name[t]);
            ok = o != NULL;
            for (int64_t head = 0; head < 2 && ok; head++) {
                struct reference r = reference_of(p, &p->seqs[0], 0, head);
                for (int d = 0; d < p->v_dim && ok; d++) {
                    double want = 0.0, A = 0.0;
                    for (int64_t j = 0; j < n; j++) {
                        want += r.weight[j] * (double)problem_v(p, j, 0)[d];
                        A += r.weight[j] * fabs((double)problem_v(p, j, 0)[d]);
                    }
                    ok = within((double)result_row(o, 0, head)[d], want, U * A * output_factor(&r, false) + 0x1p-100,
                                &worst.attend, "permuted", 0, head, d);
                }
                free(r.weight);
            }
            result_free(o);
        }
        problem_free(p);
        problem_free(turned);
        if (!ok) return false;
    }
    return report(true, "permuted keys", &worst);
}

static const struct check checks[] = {
    {"bound_random_calls", random_calls}, {"bound_random_pairs", random_pairs}, {"bound_long_rows", long_rows},
    {"constant_values", constant_values}, {"permuted_keys", permuted_keys},
};
const struct suite suite_bound = {"bound", checks, COUNT(checks)};
