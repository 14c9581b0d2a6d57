/* Masks and score options: the window, the first tokens behind it, the prefix, the tree, softcap, ALiBi, learned sinks.
 *
 * Against a reference in double that paints the matrix of who sees whom, for every tier and any options together; each
 * tier against the scalar one, to the bit; what each option alone must not change, or must equal; and the heads of
 * models that people run.
 *
 * The bound is the wide one of docs/contract.md, since one large term may lead:
 *
 *   |O - O*| <= u A (48 + (2 + 4 sqrt(D)) S + 20 C + n / 8192),   u = 2^-24, A = sum p |v|, n visible keys
 *
 * S is the largest |scale| sum |q k| + |slope (j - p)| of them: a slope is rounded once, and the fused step that adds
 * slope (j - p) rounds what it reaches; and at least |logit| of a sink, which is rounded once. C is the largest
 * |softcap tanh|. That tanh rises at most as fast as its argument, so the errors before it are those of S. It is itself
 * off by 4 ulp at the most, which is 8 u of it; softcap log2(e) and the product with it are rounded, by u each: 10 u C
 * for a score, and as much again for the sum of all. */
#include "codes.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define U     0x1p-24
#define LOG2E 1.4426950408889634
#define BLOCK TRIL_KEY_BLOCK

static void *room(int64_t n, size_t size)
{
    void *p = calloc((size_t)n + 1, size);
    if (p == NULL) abort();
    return p;
}

/* As scaled(), but so many at the least. */
static int cases_of(int count, int least)
{
    return scaled(count) < least ? least : scaled(count);
}

/* The reference */

/* Who sees whom: [q_len][kv_len], painted in the order of the header's sentences. */
static bool *matrix_of(const struct problem *p, const tril_seq *seq)
{
    const int64_t m = seq->q_len, n = seq->kv_len, before = n - m;
    bool *sees_key = room(m * n, sizeof *sees_key);
    for (int64_t i = 0; i < m; i++) {
        bool *row = sees_key + i * n;
        const int64_t position = before + i;
        for (int64_t j = 0; j <= position; j++)
            row[j] = true;
        for (int64_t t = 0; t < m && p->tree != NULL; t++)
            row[before + t] = (p->tree[(seq->q_first + i) * p->tree_words + t / 64] & UINT64_C(1) << t % 64) != 0;
        if (p->window > 0) {
            for (int64_t j = 0; j < n; j++)
                row[j] = row[j] && (position - j < p->window || j < p->sink_tokens);
        }
        for (int64_t j = 0; j < seq->prefix && position >= 0 && position < seq->prefix; j++)
            row[j] = true;
    }
    return sees_key;
}

static bool agrees(const struct problem *p, const tril_seq *seq, const bool *matrix)
{
    for (int64_t i = 0; i < seq->q_len; i++) {
        for (int64_t j = 0; j < seq->kv_len; j++) {
            if (sees(p, seq, i, j) != matrix[i * seq->kv_len + j])
                return broken("the tests' two ways to tell whether query %lld sees key %lld differ", (long long)i,
                              (long long)j);
        }
    }
    return true;
}

/* The real answer of one row. */
struct reference {
    double *weight;  /* [kv_len] */
    double max, lse; /* of the scores and the sink; -inf where there is neither */
    double S, C;
    int64_t seen;
    int dim;
};

static double factor(const struct reference *r)
{
    return 48.0 + (2.0 + 4.0 * sqrt(r->dim)) * r->S + 20.0 * r->C + (double)r->seen / 8192.0;
}

/* The score of a key, and what S and C must be at least. */
static double score(const struct problem *p, const tril_seq *seq, int64_t i, int64_t head, int64_t j,
                    struct reference *r)
{
    const double scale = p->scale == 0.0f ? 1.0 / sqrt(p->qk_dim) : (double)p->scale;
    const float *q = problem_q(p, seq->q_first + i, head);
    const float *k = problem_k(p, seq->kv_first + j, head / (p->q_heads / p->kv_heads));
    double x = 0.0, size = 0.0;
    for (int d = 0; d < p->qk_dim; d++) {
        const double product = (double)q[d] * (double)k[d];
        x += product;
        size += fabs(product);
    }
    x *= scale;
    size *= fabs(scale);
    if (p->softcap > 0.0f) {
        x = (double)p->softcap * tanh(x / (double)p->softcap);
        r->C = fmax(r->C, fabs(x));
    }
    if (p->alibi_slopes != NULL) {
        const double bias = (double)p->alibi_slopes[head] * (double)(j - (seq->kv_len - seq->q_len + i));
        x += bias;
        size += fabs(bias);
    }
    r->S = fmax(r->S, size);
    return x;
}

static struct reference reference_of(const struct problem *p, const tril_seq *seq, const bool *matrix, int64_t i,
                                     int64_t head)
{
    struct reference r = {.weight = room(seq->kv_len, sizeof(double)), .dim = p->qk_dim, .max = -INFINITY};
    const bool *row = matrix + i * seq->kv_len;
    const double sink = p->sink_logits == NULL ? -INFINITY : (double)p->sink_logits[head];
    if (sink > -INFINITY) {
        r.S = fabs(sink);
        r.max = sink;
    }
    for (int64_t j = 0; j < seq->kv_len; j++) {
        if (!row[j]) continue;
        r.weight[j] = score(p, seq, i, head, j, &r);
        r.max = fmax(r.max, r.weight[j]);
        r.seen++;
    }
    double sum = sink > -INFINITY ? exp(sink - r.max) : 0.0;
    for (int64_t j = 0; j < seq->kv_len; j++) {
        if (row[j]) sum += r.weight[j] = exp(r.weight[j] - r.max);
    }
    for (int64_t j = 0; j < seq->kv_len; j++) {
        if (row[j]) r.weight[j] /= sum;
    }
    r.lse = sum > 0.0 ? r.max + log(sum) : -INFINITY;
    return r;
}

/* The worst error seen, in units of the bound, of results that are not about as small as what exp2 flushes to 0. */
struct worst {
    double attend, weights, columns, statistics;
};

static bool report(const char *name, const struct worst *worst)
{
    printf("%s: worst error %.3f of the bound, weights %.3f, column sums %.3f, statistics %.3f\n", name, worst->attend,
           worst->weights, worst->columns, worst->statistics);
    return true;
}

static bool within(double got, double want, double bound, double *worst, const char *what, int64_t i, int64_t head,
                   int64_t column)
{
    const double error = fabs(got - want);
    if (fabs(want) > 0x1p-100 && error > *worst * bound) *worst = error / bound;
    return error <= bound || broken("%s: query %lld head %lld column %lld is %a, the real result %a: %.2f of the bound",
                                    what, (long long)i, (long long)head, (long long)column, got, want, error / bound);
}

static bool exactly(float got, float want, const char *what, int64_t i, int64_t head)
{
    return bits_of(got) == bits_of(want) || broken("%s of query %lld head %lld is %a, and must be %a", what,
                                                   (long long)i, (long long)head, (double)got, (double)want);
}

/* One row's statistics; max and sum of tril_attend(), with which tril_weights() agrees to the bit. */
static bool statistics_in_bound(const struct reference *r, float max, float sum, int64_t i, int64_t head,
                                struct worst *worst)
{
    const double bound = U * factor(r), lse = ((double)max + log2((double)sum)) / LOG2E;
    if (r->seen == 0) /* a sink alone is what it is */
        return exactly(max, (float)(r->max * LOG2E), "row_max", i, head) &&
               exactly(sum, r->max > -INFINITY ? 1.0f : 0.0f, "row_sum", i, head);
    return within((double)max / LOG2E, r->max, bound, &worst->statistics, "row_max", i, head, 0) &&
           within(lse, r->lse, bound, &worst->statistics, "row_max + log2 row_sum", i, head, 0);
}

static bool output_in_bound(const struct problem *p, const tril_seq *seq, const struct reference *r, const float *o,
                            int64_t i, int64_t head, struct worst *worst)
{
    const int64_t kv_head = head / (p->q_heads / p->kv_heads);
    bool ok = true;
    for (int d = 0; d < p->v_dim && ok; d++) {
        double want = 0.0, A = 0.0, flushed = 0.0;
        for (int64_t j = 0; j < seq->kv_len && r->seen > 0; j++) {
            const double v = (double)problem_v(p, seq->kv_first + j, kv_head)[d];
            want += r->weight[j] * v;
            A += r->weight[j] * fabs(v);
            flushed += 0x1p-126 * (1.0 + fabs(v));
        }
        ok = r->seen == 0
                 ? exactly(o[d], 0.0f, "output", i, head)
                 : within((double)o[d], want, A * U * factor(r) + flushed, &worst->attend, "output", i, head, d);
    }
    return ok;
}

static bool weights_in_bound(const struct problem *p, const tril_seq *seq, const struct reference *r, const bool *row,
                             const float *a, int64_t i, int64_t head, struct worst *worst)
{
    double sum = 0.0;
    for (int64_t j = 0; j < seq->kv_len; j++) {
        if (!row[j] && !exactly(a[j], 0.0f, "a weight of a key that is not seen", i, head)) return false;
        if (row[j] && !within((double)a[j], r->weight[j], r->weight[j] * U * factor(r) + 0x1p-126, &worst->weights,
                              "weight", i, head, j))
            return false;
        sum += (double)a[j];
    }
    return p->sink_logits != NULL || r->seen == 0 || fabs(sum - 1.0) <= 16.0 * U ||
           broken("the weights of query %lld head %lld have the sum 1 %+.3g", (long long)i, (long long)head, sum - 1.0);
}

/* What a tier gave. */
struct answers {
    struct result *attend, *dense, *columns;
};

static bool answers_of(const struct problem *p, const char *tier, struct answers *a)
{
    a->attend = run(p, &contiguous, ATTEND, tier);
    a->dense = run(p, &contiguous, DENSE, tier);
    a->columns = run(p, &contiguous, COLUMNS, tier);
    return a->attend != NULL && a->dense != NULL && a->columns != NULL;
}

static void answers_free(struct answers *a)
{
    result_free(a->attend);
    result_free(a->dense);
    result_free(a->columns);
}

/* The sums of a head's columns so far, and how far off they may be. */
struct sums {
    double *sum, *bound;
};

static bool head_in_bound(const struct problem *p, int s, const bool *matrix, int64_t head, const struct answers *a,
                          const struct tiers *tiers, struct worst *worst)
{
    const tril_seq *seq = &p->seqs[s];
    const struct sums sums = {room(seq->kv_len, sizeof(double)), room(seq->kv_len, sizeof(double))};
    bool ok = true;
    for (int64_t i = 0; i < seq->q_len && ok; i++) {
        struct reference r = reference_of(p, seq, matrix, i, head);
        const int64_t token = seq->q_first + i, row = token * p->q_heads + head;
        for (int t = 0; t < tiers->n && ok; t++) {
            case_tier(tiers->name[t]);
            ok = output_in_bound(p, seq, &r, result_row(a[t].attend, token, head), i, head, worst) &&
                 statistics_in_bound(&r, a[t].attend->row_max[row], a[t].attend->row_sum[row], i, head, worst) &&
                 weights_in_bound(p, seq, &r, matrix + i * seq->kv_len, result_row(a[t].dense, token, head), i, head,
                                  worst);
        }
        for (int64_t j = 0; j < seq->kv_len && i >= first_summed(p, seq); j++) {
            sums.sum[j] += r.weight[j];
            sums.bound[j] += r.weight[j] * U * factor(&r) + 0x1p-126;
        }
        free(r.weight);
    }
    for (int t = 0; t < tiers->n && ok; t++) {
        case_tier(tiers->name[t]);
        for (int64_t j = 0; j < seq->kv_len && ok; j++) /* and a rounding of what has been reached for each row */
            ok = within((double)result_row(a[t].columns, s, head)[j], sums.sum[j],
                        sums.bound[j] + U * (double)seq->q_len * sums.sum[j], &worst->columns, "column sum", -1, head,
                        j);
    }
    free(sums.sum);
    free(sums.bound);
    return ok;
}

/* Every tier's answers to `p` against the real ones to `real`, which is p unless they may be told apart by no more than
 * the bound. */
static bool in_bound(const struct problem *p, const struct problem *real, const char *more, const struct tiers *tiers,
                     struct worst *worst)
{
    struct answers a[COUNT(tiers->name)] = {{.attend = NULL}};
    bool ok = true;
    problem_describe(p, more);
    for (int t = 0; t < tiers->n && ok; t++)
        ok = answers_of(p, tiers->name[t], &a[t]);
    for (int s = 0; s < p->n_seqs && ok; s++) {
        if (p->seqs[s].q_len == 0) continue;
        bool *matrix = matrix_of(real, &p->seqs[s]);
        ok = agrees(real, &p->seqs[s], matrix);
        for (int64_t head = 0; head < p->q_heads && ok; head++)
            ok = head_in_bound(real, s, matrix, head, a, tiers, worst);
        free(matrix);
    }
    for (int t = 0; t < tiers->n; t++)
        answers_free(&a[t]);
    return ok;
}

/* Every operation of every tier, however its operands lie, against the scalar tier's. */
static bool as_scalar(const struct problem *p, struct rng *rng, const char *more, const struct tiers *tiers)
{
    char text[600], place[400];
    for (enum operation operation = ATTEND; operation < OPERATIONS; operation++) {
        const struct placing placing = placing_random(rng);
        placing_describe(&placing, place, sizeof place);
        snprintf(text, sizeof text, "%s, %s, %s", operation_name(operation), more, place);
        problem_describe(p, text);
        struct result *want = run(p, &contiguous, operation, "scalar");
        bool ok = want != NULL;
        for (int t = 0; t < tiers->n && ok; t++) {
            struct result *got = run(p, &placing, operation, tiers->name[t]);
            ok = got != NULL && same_result(got, want, operation_name(operation));
            result_free(got);
        }
        result_free(want);
        if (!ok) return false;
    }
    return true;
}

static const unsigned options[] = {SOFTCAP, WINDOW, WINDOW | SINK_TOKENS, SINK_LOGITS, ALIBI, TREE, PREFIX};

/* The options of a case: each on its own in turn, then any of them together. */
static unsigned options_of(int index, struct rng *rng, unsigned among)
{
    const unsigned any = (unsigned)rng_next(rng);
    return (index / COUNT(options) % 2 == 0 ? options[index % COUNT(options)] : any) & among;
}

/* Each option with each, all of them where the queries are: windows end, prefixes begin to matter, trees have bits. */
static bool pairs_of_options(const struct tiers *tiers)
{
    struct worst worst = {0.0, 0.0, 0.0, 0.0};
    struct rng rng;
    for (int i = 0; i < COUNT(options) * COUNT(options); i++) {
        const unsigned which = options[i / COUNT(options)] | options[i % COUNT(options)];
        if (!table_case_begin(i, &rng)) continue;
        const int kv_heads = 1 + (int)rng_below(&rng, 2);
        struct problem *p =
            problem_new(kv_heads * (1 + i % 3), kv_heads, 1 + (int)rng_below(&rng, 12), 1 + (int)rng_below(&rng, 12));
        problem_seq(p, 0, 50 + rng_below(&rng, 40), 0, 90 + rng_below(&rng, 20));
        problem_seq(p, 1, 20 + rng_below(&rng, 20), 2, 240 + rng_below(&rng, 60));
        if ((which & TREE) == 0) problem_seq(p, 0, 12, 0, 5 + rng_below(&rng, 5)); /* some before position 0 */
        problem_fill(p, &rng, NORMAL);
        problem_options(p, &rng, which);
        if (p->window > 0) p->window = 2 + rng_below(&rng, 30);
        if (p->sink_tokens > 0) p->sink_tokens = 1 + rng_below(&rng, 40);
        for (int s = 0; s < p->n_seqs && (which & PREFIX) != 0; s++) {
            const tril_seq *seq = &p->seqs[s];
            const int64_t queries = seq->q_len < seq->kv_len ? seq->q_len : seq->kv_len;
            p->seqs[s].prefix = seq->kv_len - 1 - rng_below(&rng, queries - 1);
        }
        const bool ok = in_bound(p, p, "two options", tiers, &worst) && as_scalar(p, &rng, "two options", tiers);
        problem_free(p);
        if (!ok) return false;
    }
    return report("pairs of options", &worst);
}

static bool random_options(const struct tiers *tiers)
{
    static const enum values kinds[] = {NORMAL, PEAKED, TIES, RISING, FALLING};
    const int cases = cases_of(84, 14);
    struct worst worst = {0.0, 0.0, 0.0, 0.0};
    struct rng rng;
    for (int i = 0; i < cases; i++) {
        if (!case_begin(i, &rng)) continue;
        const enum values kind = rng_of(&rng, kinds);
        struct problem *p = problem_random(&rng, 1e5, kind);
        problem_options(p, &rng, options_of(i, &rng, EVERY_OPTION));
        problem_store_random(p, &rng);
        const bool ok =
            in_bound(p, p, values_name(kind), tiers, &worst) && as_scalar(p, &rng, values_name(kind), tiers);
        problem_free(p);
        if (!ok) return false;
    }
    return report("random options", &worst);
}

/* Values of all kinds, options of odd sizes, both math modes: the bits alone. */
static bool odd_options(const struct tiers *tiers)
{
    const int cases = cases_of(70, 14);
    struct rng rng;
    for (int i = 0; i < cases; i++) {
        if (!case_begin(i, &rng)) continue;
        const enum values kind = (enum values)rng_below(&rng, VALUES_COUNT);
        struct problem *p = problem_random(&rng, 3e5, kind);
        problem_options(p, &rng, options_of(i, &rng, EVERY_OPTION));
        if (p->sink_logits != NULL && rng_one_in(&rng, 3)) p->sink_logits[rng_below(&rng, p->q_heads)] = -0.0f;
        problem_store_random(p, &rng);
        problem_math_random(p, &rng);
        const bool ok = as_scalar(p, &rng, values_name(kind), tiers);
        problem_free(p);
        if (!ok) return false;
    }
    return true;
}

/* Windows far shorter than the sequences, so that whole blocks of keys lie between the first tokens and the window: a
 * few queries, a chunk of several tasks, a prompt. */
static bool long_windows(const struct tiers *tiers)
{
    const int cases = cases_of(24, 12);
    struct worst worst = {0.0, 0.0, 0.0, 0.0};
    struct rng rng;
    for (int i = 0; i < cases; i++) {
        if (!short_table_case_begin(i, cases, 2, &rng)) continue;
        const int group = 1 + (int)rng_below(&rng, i % 3 == 0 ? 8 : 2);
        struct problem *p = problem_new(group, 1, 1 + (int)rng_below(&rng, 20), 1 + (int)rng_below(&rng, 20));
        const int64_t kv_len = i % 3 == 2 ? 700 + rng_below(&rng, 400) : 1500 + rng_below(&rng, 2500);
        const int64_t chunk = 1 + rng_below(&rng, i % 3 == 0 ? 5 : 200);
        problem_seq(p, 0, i % 3 == 2 ? kv_len : chunk, 0, kv_len);
        problem_fill(p, &rng, NORMAL);
        problem_options_random(p, &rng, EVERY_OPTION & ~(WINDOW | SINK_TOKENS));
        p->window = 1 + rng_below(&rng, rng_one_in(&rng, 2) ? 40 : 400);
        p->sink_tokens = rng_one_in(&rng, 3) ? 0 : rng_below(&rng, rng_one_in(&rng, 2) ? 9 : 400);
        p->last_rows = rng_below(&rng, 30);
        const bool ok = (i % 3 != 0 || in_bound(p, p, "a long window", tiers, &worst)) &&
                        as_scalar(p, &rng, "a long window", tiers);
        problem_free(p);
        if (!ok) return false;
    }
    return report("long windows", &worst);
}

/* A softcap that no score comes near is none, but for what tanh rounds. */
static bool large_softcap(const struct tiers *tiers)
{
    struct worst worst = {0.0, 0.0, 0.0, 0.0};
    struct rng rng;
    for (int i = 0; i < cases_of(10, 4); i++) {
        if (!case_begin(i, &rng)) continue;
        struct problem *p = problem_random(&rng, 1e5, NORMAL);
        problem_options(p, &rng, i % 2 == 0 ? 0 : (unsigned)rng_next(&rng) & (EVERY_OPTION & ~SOFTCAP));
        struct problem *capped = problem_copy(p);
        capped->softcap = 0x1p20f;
        const bool ok = in_bound(capped, p, "a large softcap", tiers, &worst);
        problem_free(capped);
        problem_free(p);
        if (!ok) return false;
    }
    return report("a large softcap", &worst);
}

/* Models, by the heads of one layer. Windows are scaled down with the lengths. */
static const struct model {
    const char *name;
    int q_heads, kv_heads, qk_dim, v_dim;
    float scale, softcap;
    int window, sink_tokens;
    unsigned more; /* SINK_LOGITS, ALIBI as BLOOM has it, TREE, PREFIX */
} models[] = {
    {"Llama 2 7B", 32, 32, 128, 128, 0.0f, 0.0f, 0, 0, 0},
    {"Llama 3 8B", 32, 8, 128, 128, 0.0f, 0.0f, 0, 0, 0},
    {"Llama 3 8B, a tree of drafts", 32, 8, 128, 128, 0.0f, 0.0f, 0, 0, TREE},
    {"Llama 2 7B streaming, 4 sinks", 32, 32, 128, 128, 0.0f, 0.0f, 60, 4, 0},
    {"Mistral 7B, window 4096", 32, 8, 128, 128, 0.0f, 0.0f, 64, 0, 0},
    {"Gemma 2 9B, softcap 50, window 4096", 16, 8, 256, 256, 0.0625f, 50.0f, 64, 0, 0},
    {"Gemma 2 27B, softcap 50", 32, 16, 128, 128, 0x1.5555555p-4f, 50.0f, 0, 0, 0},
    {"Gemma 3 4B, window 1024, an image as prefix", 8, 4, 256, 256, 0.0625f, 0.0f, 32, 0, PREFIX},
    {"Phi-2", 32, 32, 80, 80, 0.0f, 0.0f, 0, 0, 0},
    {"Phi-3 mini, window 2047", 32, 32, 96, 96, 0.0f, 0.0f, 31, 0, 0},
    {"Qwen 2.5 7B", 28, 4, 128, 128, 0.0f, 0.0f, 0, 0, 0},
    {"Falcon 7B", 71, 1, 64, 64, 0.0f, 0.0f, 0, 0, 0},
    {"BLOOM 7B", 32, 32, 128, 128, 0.0f, 0.0f, 0, 0, ALIBI},
    {"GPT-OSS 20B, window 128", 64, 8, 64, 64, 0.0f, 0.0f, 128, 0, SINK_LOGITS},
    {"GPT-OSS 20B, all keys", 64, 8, 64, 64, 0.0f, 0.0f, 0, 0, SINK_LOGITS},
    {"DeepSeek V2 Lite", 16, 16, 192, 128, 0.0f, 0.0f, 0, 0, 0},
    {"DeepSeek V2 Lite, absorbed", 16, 1, 576, 512, 0x1.279a74p-4f, 0.0f, 0, 0, 0},
};

/* A prompt, a chunk that reaches into a second block of keys, and one new token. */
static struct problem *problem_of(const struct model *model, struct rng *rng)
{
    struct problem *p = problem_new(model->q_heads, model->kv_heads, model->qk_dim, model->v_dim);
    problem_seq(p, 0, 14 + rng_below(rng, 6), 0, 0);
    p->seqs[0].kv_len = p->longest = p->kv_tokens = p->seqs[0].q_len;
    problem_seq(p, 0, 3, 0, 257 + rng_below(rng, 10));
    problem_seq(p, 0, 1, 0, 70 + rng_below(rng, 200));
    problem_fill(p, rng, NORMAL);
    problem_options(p, rng, model->more & (SINK_LOGITS | ALIBI | TREE | PREFIX));
    p->scale = model->scale;
    p->softcap = model->softcap;
    p->window = model->window;
    p->sink_tokens = model->sink_tokens;
    for (int head = 0; head < p->q_heads && p->alibi_slopes != NULL; head++)
        p->alibi_slopes[head] = exp2f(-8.0f * (float)(head + 1) / (float)p->q_heads);
    return p;
}

static bool model_heads(const struct tiers *tiers)
{
    struct worst worst = {0.0, 0.0, 0.0, 0.0};
    struct rng rng;
    for (int i = 0; i < COUNT(models); i++) {
        if (!table_case_begin(i, &rng)) continue;
        struct problem *p = problem_of(&models[i], &rng);
        bool ok = in_bound(p, p, models[i].name, tiers, &worst);
        if (rng_one_in(&rng, 2)) problem_store_random(p, &rng);
        ok = ok && as_scalar(p, &rng, models[i].name, tiers);
        problem_free(p);
        if (!ok) return false;
    }
    return report("heads of models", &worst);
}

/* What must not change a bit */

/* A property over one random problem and one tier: true, or broken(). */
typedef bool property(const struct problem *p, struct rng *rng, const char *tier);

/* Problems with these options, each alone and together, or with none of them where `among` is 0. */
static bool each_problem(const struct tiers *tiers, int count, unsigned among, const enum values *kinds, int n_kinds,
                         property *holds)
{
    struct rng rng;
    for (int i = 0; i < count; i++) {
        if (!case_begin(i, &rng)) continue;
        const enum values kind = kinds[rng_below(&rng, n_kinds)];
        struct problem *p = problem_random(&rng, 6e4, kind);
        problem_options(p, &rng, options_of(i, &rng, among));
        problem_store_random(p, &rng);
        problem_math_random(p, &rng);
        bool ok = true;
        for (int t = 0; t < tiers->n && ok; t++) {
            struct rng same = rng; /* every tier meets the same choices */
            problem_describe(p, values_name(kind));
            ok = holds(p, &same, tiers->name[t]);
        }
        problem_free(p);
        if (!ok) return false;
    }
    return true;
}

static const enum values usual_kinds[] = {NORMAL, PEAKED, ANY, TIES, SPECIAL};

/* Every operation gives the same for both, the second placed at random. */
static bool equal(const struct problem *p, const struct problem *other, struct rng *rng, const char *tier,
                  const char *what)
{
    bool ok = true;
    for (enum operation operation = ATTEND; operation < OPERATIONS && ok; operation++) {
        const struct placing placing = placing_random(rng);
        struct result *want = run(p, &contiguous, operation, tier), *got = run(other, &placing, operation, tier);
        ok = want != NULL && got != NULL && same_result(got, want, what);
        result_free(want);
        result_free(got);
    }
    return ok;
}

static void poison(struct problem *p, const tril_seq *seq, int64_t key, uint32_t bits)
{
    for (int64_t i = 0; i < (int64_t)p->kv_heads * p->qk_dim; i++)
        memcpy(problem_k(p, seq->kv_first + key, 0) + i, &bits, sizeof bits);
    for (int64_t i = 0; i < (int64_t)p->kv_heads * p->v_dim; i++)
        memcpy(problem_v(p, seq->kv_first + key, 0) + i, &bits, sizeof bits);
    problem_encode(p, seq->kv_first + key, 1);
}

/* Whether a query sees any of the marked keys. */
static bool sees_marked(const struct problem *p, const tril_seq *seq, int64_t i, const bool *marked)
{
    for (int64_t j = 0; j < seq->kv_len; j++) {
        if (marked[j] && sees(p, seq, i, j)) return true;
    }
    return false;
}

/* Most of what one query does not see becomes NaN or infinite: neither it nor any other that sees none of that may
 * notice, and the weights of what is not seen stay +0. */
static bool unseen_does_not_matter(const struct problem *p, struct rng *rng, const char *tier)
{
    static const uint32_t odd[] = {SIGNALLING_NAN, 0x7fc00000, 0x7f800000, 0xff800000};
    struct problem *poisoned = problem_copy(p);
    bool *marked[MAX_SEQS], ok = true;
    for (int s = 0; s < p->n_seqs; s++) {
        const tril_seq *seq = &p->seqs[s];
        const int64_t one = seq->q_len > 0 ? rng_below(rng, seq->q_len) : 0;
        marked[s] = room(seq->kv_len, sizeof(bool));
        for (int64_t j = 0; j < seq->kv_len && seq->q_len > 0; j++) {
            marked[s][j] = !sees(p, seq, one, j) && !rng_one_in(rng, 4);
            if (marked[s][j]) poison(poisoned, seq, j, rng_of(rng, odd));
        }
    }
    for (enum operation operation = ATTEND; operation <= DENSE && ok; operation++) {
        const struct placing placing = placing_random(rng);
        struct result *want = run(p, &contiguous, operation, tier), *got = run(poisoned, &placing, operation, tier);
        ok = want != NULL && got != NULL;
        for (int s = 0; s < p->n_seqs && ok; s++) {
            const tril_seq *seq = &p->seqs[s];
            for (int64_t i = 0; i < seq->q_len && ok; i++)
                ok = sees_marked(p, seq, i, marked[s]) ||
                     same_rows(got, seq->q_first + i, want, seq->q_first + i, 1, "what is not seen");
        }
        result_free(want);
        result_free(got);
    }
    for (int s = 0; s < p->n_seqs; s++)
        free(marked[s]);
    problem_free(poisoned);
    return ok;
}

static bool unseen(const struct tiers *tiers)
{
    return each_problem(tiers, cases_of(56, 14), EVERY_OPTION, usual_kinds, COUNT(usual_kinds), unseen_does_not_matter);
}

/* Rows whose query is NaN: NaN where they see a key, +0 where not. */
static bool nan_rows_hold(const struct problem *p, struct rng *rng, const char *tier)
{
    struct problem *odd = problem_copy(p);
    problem_store(odd, TRIL_F32, TRIL_F32, TRIL_F32);
    for (int64_t i = 0; i < p->q_tokens * p->q_heads; i++)
        odd->q[i * p->qk_dim + rng_below(rng, p->qk_dim)] = NAN;
    const struct placing placing = placing_random(rng);
    struct result *o = run(odd, &placing, ATTEND, tier), *a = run(odd, &placing, DENSE, tier);
    bool ok = o != NULL && a != NULL;
    for (int s = 0; s < p->n_seqs && ok; s++) {
        const tril_seq *seq = &p->seqs[s];
        for (int64_t row = 0; row < seq->q_len * p->q_heads && ok; row++) {
            const int64_t i = row / p->q_heads, head = row % p->q_heads, token = seq->q_first + i;
            bool some = false;
            for (int64_t j = 0; j < seq->kv_len && ok; j++) {
                const bool seen = sees(p, seq, i, j);
                const float x = result_row(a, token, head)[j];
                some = some || seen;
                ok = (seen ? x != x : bits_of(x) == 0) ||
                     broken("query %lld head %lld is NaN and %s key %lld, whose weight is %a", (long long)i,
                            (long long)head, seen ? "sees" : "does not see", (long long)j, (double)x);
            }
            for (int d = 0; d < p->v_dim && ok; d++) {
                const float x = result_row(o, token, head)[d];
                ok = (some ? x != x : bits_of(x) == 0) ||
                     broken("query %lld head %lld is NaN, and its output %a", (long long)i, (long long)head, (double)x);
            }
        }
    }
    result_free(o);
    result_free(a);
    problem_free(odd);
    return ok;
}

static bool nan_rows(const struct tiers *tiers)
{
    static const enum values kinds[] = {NORMAL};
    return each_problem(tiers, cases_of(28, 7), EVERY_OPTION, kinds, COUNT(kinds), nan_rows_hold);
}

/* A window no shorter than the sequences, one behind which all stays visible, and first tokens without a window. */
static bool wide_windows_hold(const struct problem *p, struct rng *rng, const char *tier)
{
    const int64_t n = p->longest == 0 ? 1 : p->longest;
    const struct {
        int64_t window, sink_tokens;
    } wide[] = {{n, 0}, {n + 1, rng_below(rng, 9)}, {INT64_MAX, INT64_MAX}, {1 + rng_below(rng, n), n}, {0, 5}};
    struct problem *copy = problem_copy(p);
    bool ok = true;
    for (int i = 0; i < COUNT(wide) && ok; i++) {
        copy->window = wide[i].window;
        copy->sink_tokens = wide[i].sink_tokens;
        ok = equal(p, copy, rng, tier, "a window that hides nothing");
    }
    problem_free(copy);
    return ok;
}

static bool wide_windows(const struct tiers *tiers)
{
    return each_problem(tiers, cases_of(14, 7), EVERY_OPTION & ~(WINDOW | SINK_TOKENS), usual_kinds, COUNT(usual_kinds),
                        wide_windows_hold);
}

/* A window of one: the query's own value, whatever its score. */
static bool narrow_windows(const struct tiers *tiers)
{
    struct rng rng;
    for (int i = 0; i < cases_of(12, 4); i++) {
        if (!case_begin(i, &rng)) continue;
        struct problem *p = problem_random(&rng, 6e4, NORMAL);
        problem_options(p, &rng, (unsigned)rng_next(&rng) & (SOFTCAP | ALIBI));
        p->window = 1;
        bool ok = true;
        for (int t = 0; t < tiers->n && ok; t++) {
            struct rng same = rng;
            const struct placing placing = placing_random(&same);
            problem_describe(p, "a window of one");
            struct result *o = run(p, &placing, ATTEND, tiers->name[t]), *a = run(p, &placing, DENSE, tiers->name[t]);
            ok = o != NULL && a != NULL;
            for (int s = 0; s < p->n_seqs && ok; s++) {
                const tril_seq *seq = &p->seqs[s];
                for (int64_t row = 0; row < seq->q_len * p->q_heads && ok; row++) {
                    const int64_t query = row / p->q_heads, head = row % p->q_heads, token = seq->q_first + query;
                    const int64_t position = seq->kv_len - seq->q_len + query;
                    if (position < 0) continue;
                    const float *v = problem_v(p, seq->kv_first + position, head / (p->q_heads / p->kv_heads));
                    for (int d = 0; d < p->v_dim && ok; d++)
                        ok = exactly(result_row(o, token, head)[d], round_to(o->type, v[d] + 0.0f), "output", query,
                                     head);
                    ok = ok && exactly(result_row(a, token, head)[position], 1.0f, "own weight", query, head) &&
                         exactly(o->row_sum[token * p->q_heads + head], 1.0f, "row_sum", query, head);
                }
            }
            result_free(o);
            result_free(a);
        }
        problem_free(p);
        if (!ok) return false;
    }
    return true;
}

/* A window of one query that begins with a block of keys, without first tokens: the range of keys from there on. */
static bool windows_of_blocks(const struct tiers *tiers)
{
    struct rng rng;
    for (int i = 0; i < cases_of(12, 4); i++) {
        if (!case_begin(i, &rng)) continue;
        const int64_t blocks = 1 + rng_below(&rng, 4), kv_len = blocks * BLOCK + 1 + rng_below(&rng, 300);
        struct problem *p = problem_new(6, 1 + i % 2, 1 + (int)rng_below(&rng, 40), 1 + (int)rng_below(&rng, 40));
        problem_seq(p, 0, 1, rng_below(&rng, 3), kv_len);
        problem_fill(p, &rng, i % 3 == 0 ? ANY : NORMAL);
        problem_options_random(p, &rng, SOFTCAP | SINK_LOGITS | ALIBI);
        struct problem *windowed = problem_copy(p);
        windowed->window = kv_len - blocks * BLOCK;
        p->seqs[0].key_begin = blocks * BLOCK;
        bool ok = true;
        for (int t = 0; t < tiers->n && ok; t++) {
            struct rng same = rng;
            const struct placing placing = placing_random(&same);
            problem_describe(windowed, "a window from a block on");
            struct result *want = run(p, &contiguous, ATTEND, tiers->name[t]);
            struct result *got = run(windowed, &placing, ATTEND, tiers->name[t]);
            ok = want != NULL && got != NULL && same_result(got, want, "a window from a block on");
            result_free(want);
            result_free(got);
        }
        problem_free(p);
        problem_free(windowed);
        if (!ok) return false;
    }
    return true;
}

/* The first token alone sees itself anyway. */
static bool short_prefixes_hold(const struct problem *p, struct rng *rng, const char *tier)
{
    struct problem *copy = problem_copy(p);
    for (int s = 0; s < p->n_seqs; s++)
        copy->seqs[s].prefix = p->seqs[s].kv_len > 0;
    const bool ok = equal(p, copy, rng, tier, "a prefix of one");
    problem_free(copy);
    return ok;
}

/* With a tree, which may hide a token from itself, it would not be so. */
static bool short_prefixes(const struct tiers *tiers)
{
    return each_problem(tiers, cases_of(14, 7), EVERY_OPTION & ~(PREFIX | TREE), usual_kinds, COUNT(usual_kinds),
                        short_prefixes_hold);
}

/* A prefix that is all of the sequence: each query sees every key, and so does one with a tree that shows all. */
static bool whole_prefixes_hold(const struct problem *p, struct rng *rng, const char *tier)
{
    struct problem *prefix = problem_copy(p), *tree = problem_copy(p);
    problem_tree(tree);
    memset(tree->tree, 0xff, (size_t)(tree->q_tokens * tree->tree_words) * sizeof *tree->tree);
    bool surplus = false;
    for (int s = 0; s < p->n_seqs; s++) {
        prefix->seqs[s].prefix = p->seqs[s].kv_len;
        surplus = surplus || p->seqs[s].q_len > p->seqs[s].kv_len;
    }
    const bool ok = surplus || equal(prefix, tree, rng, tier, "a prefix of all, a tree of all");
    problem_free(prefix);
    problem_free(tree);
    return ok;
}

static bool whole_prefixes(const struct tiers *tiers)
{
    return each_problem(tiers, cases_of(14, 7), SOFTCAP | SINK_LOGITS | ALIBI, usual_kinds, COUNT(usual_kinds),
                        whole_prefixes_hold);
}

/* A tree that is the triangle. */
static bool triangles_hold(const struct problem *p, struct rng *rng, const char *tier)
{
    struct problem *copy = problem_copy(p);
    problem_tree(copy);
    bool surplus = false;
    for (int s = 0; s < p->n_seqs; s++) {
        const tril_seq *seq = &p->seqs[s];
        surplus = surplus || seq->q_len > seq->kv_len;
        for (int64_t i = 0; i < seq->q_len; i++) {
            for (int64_t t = 0; t <= i; t++)
                problem_tree_row(copy, seq->q_first + i)[t / 64] |= UINT64_C(1) << t % 64;
        }
    }
    const bool ok = surplus || equal(p, copy, rng, tier, "a triangular tree");
    problem_free(copy);
    return ok;
}

static bool triangles(const struct tiers *tiers)
{
    return each_problem(tiers, cases_of(14, 7), EVERY_OPTION & ~TREE, usual_kinds, COUNT(usual_kinds), triangles_hold);
}

/* Rows without a bit, and without keys before the tree that a window lets them see: nothing, or a sink alone. */
static bool blind_rows(const struct tiers *tiers)
{
    struct rng rng;
    for (int i = 0; i < cases_of(12, 6); i++) {
        if (!case_begin(i, &rng)) continue;
        struct problem *p = problem_new(4, 1 + i % 2, 1 + (int)rng_below(&rng, 20), 1 + (int)rng_below(&rng, 20));
        const int64_t q_len = 1 + rng_below(&rng, 300), more = i % 2 == 0 ? 0 : rng_below(&rng, 300);
        problem_seq(p, 0, q_len, 2, q_len + more);
        problem_fill(p, &rng, i % 3 == 0 ? SPECIAL : NORMAL);
        problem_options(p, &rng, (i % 3 == 1 ? SINK_LOGITS : 0) | ((unsigned)rng_next(&rng) & (SOFTCAP | ALIBI)));
        problem_tree(p);
        p->window = more > 0;
        for (int64_t j = 0; j < q_len; j += 3) /* some see the first of the tree's tokens */
            problem_tree_row(p, j)[0] = 1;
        bool ok = true;
        for (int t = 0; t < tiers->n && ok; t++) {
            struct rng same = rng;
            problem_describe(p, "rows that see nothing");
            const struct placing placing = placing_random(&same);
            struct result *o = run(p, &placing, ATTEND, tiers->name[t]), *a = run(p, &placing, DENSE, tiers->name[t]);
            ok = o != NULL && a != NULL;
            for (int64_t row = 0; row < q_len * 4 && ok; row++) {
                const int64_t query = row / 4, head = row % 4;
                const float logit = p->sink_logits == NULL ? -INFINITY : p->sink_logits[head];
                if (sees(p, &p->seqs[0], query, more)) continue;
                for (int d = 0; d < p->v_dim && ok; d++)
                    ok = exactly(result_row(o, query, head)[d], 0.0f, "output", query, head);
                for (int64_t j = 0; j < q_len + more && ok; j++)
                    ok = exactly(result_row(a, query, head)[j], 0.0f, "weight", query, head);
                ok = ok && exactly(o->row_max[row], (float)((double)logit * LOG2E), "row_max", query, head) &&
                     exactly(o->row_sum[row], logit > -INFINITY ? 1.0f : 0.0f, "row_sum", query, head);
            }
            result_free(o);
            result_free(a);
        }
        problem_free(p);
        if (!ok) return false;
    }
    return true;
}

/* A sink of weight 0 is none; but the fold with it makes a -0 of the output into +0. */
static bool empty_sinks_hold(const struct problem *p, struct rng *rng, const char *tier)
{
    struct problem *copy = problem_copy(p);
    copy->sink_logits = room(p->q_heads, sizeof(float));
    for (int head = 0; head < p->q_heads; head++)
        copy->sink_logits[head] = -INFINITY;
    bool ok = true;
    for (enum operation operation = ATTEND; operation < OPERATIONS && ok; operation++) {
        const struct placing placing = placing_random(rng);
        struct result *want = run(p, &contiguous, operation, tier), *got = run(copy, &placing, operation, tier);
        ok = want != NULL && got != NULL;
        for (int64_t i = 0; ok && i < want->rows * want->heads * want->width; i++)
            want->x[i] += 0.0f;
        ok = ok && same_result(got, want, "a sink of weight 0");
        result_free(want);
        result_free(got);
    }
    problem_free(copy);
    return ok;
}

static bool empty_sinks(const struct tiers *tiers)
{
    return each_problem(tiers, cases_of(21, 7), EVERY_OPTION & ~SINK_LOGITS, usual_kinds, COUNT(usual_kinds),
                        empty_sinks_hold);
}

/* Slopes of 0 add 0 to a score, which may make a -0 of it into +0: no result tells one from the other. */
static bool flat_slopes_hold(const struct problem *p, struct rng *rng, const char *tier)
{
    struct problem *copy = problem_copy(p);
    copy->alibi_slopes = room(p->q_heads, sizeof(float));
    for (int head = 0; head < p->q_heads; head++)
        copy->alibi_slopes[head] = head % 2 == 0 ? 0.0f : -0.0f;
    const bool ok = equal(p, copy, rng, tier, "slopes of 0");
    problem_free(copy);
    return ok;
}

static bool flat_slopes(const struct tiers *tiers)
{
    return each_problem(tiers, cases_of(21, 7), EVERY_OPTION & ~ALIBI, usual_kinds, COUNT(usual_kinds),
                        flat_slopes_hold);
}

/* In one shot, in chunks, and token by token: positions are absolute. */
static bool chunks_hold(const struct problem *p, struct rng *rng, const char *tier)
{
    const int64_t most = rng_one_in(rng, 3) ? 1 : 1 + rng_below(rng, 200);
    bool ok = true;
    for (enum operation operation = ATTEND; operation < COLUMNS && ok; operation++) {
        struct result *whole = run(p, &contiguous, operation, tier);
        ok = whole != NULL;
        for (int s = 0; s < p->n_seqs && ok; s++) {
            const tril_seq *seq = &p->seqs[s];
            for (int64_t first = 0, n; first < seq->q_len && ok; first += n) {
                n = 1 + rng_below(rng, most);
                if (n < chunk_reaches(seq, first)) n = chunk_reaches(seq, first);
                if (n > seq->q_len - first) n = seq->q_len - first;
                struct problem *part = problem_part(p, seq, first, n);
                const struct placing placing = placing_random(rng);
                struct result *got = run(part, &placing, operation, tier);
                ok = got != NULL && same_rows(got, 0, whole, seq->q_first + first, n, operation_name(operation));
                result_free(got);
                problem_free(part);
            }
        }
        result_free(whole);
    }
    return ok;
}

static bool chunks(const struct tiers *tiers)
{
    return each_problem(tiers, cases_of(28, 14), CHUNK_OPTIONS, usual_kinds, COUNT(usual_kinds), chunks_hold);
}

static bool teams_hold(const struct problem *p, struct rng *rng, const char *tier)
{
    bool ok = true;
    for (enum operation operation = ATTEND; operation < OPERATIONS && ok; operation++) {
        struct placing placing = placing_random(rng);
        placing.team.threads = 2 + (int)rng_below(rng, 7);
        placing.team.absent = 0;
        struct result *want = run(p, &contiguous, operation, tier), *got = run(p, &placing, operation, tier);
        ok = want != NULL && got != NULL && same_result(got, want, "a team");
        result_free(want);
        result_free(got);
    }
    return ok;
}

static bool teams(const struct tiers *tiers)
{
    return each_problem(tiers, cases_of(28, 14), EVERY_OPTION, usual_kinds, COUNT(usual_kinds), teams_hold);
}

/* In pages, of which those that nobody sees have no number, and keys that nobody sees are NaN. */
static bool pages_hold(const struct problem *p, struct rng *rng, const char *tier)
{
    static const int sizes[] = {16, 16, 48, 256};
    bool ok = true;
    for (enum operation operation = ATTEND; operation < OPERATIONS && ok; operation++) {
        struct placing placing = placing_random(rng);
        placing.page = rng_of(rng, sizes);
        placing.poisoned = true;
        struct result *want = run(p, &contiguous, operation, tier), *got = run(p, &placing, operation, tier);
        ok = want != NULL && got != NULL && same_result(got, want, "pages");
        result_free(want);
        result_free(got);
    }
    return ok;
}

static bool pages(const struct tiers *tiers)
{
    return each_problem(tiers, cases_of(42, 14), EVERY_OPTION, usual_kinds, COUNT(usual_kinds), pages_hold);
}

static bool groups_hold(const struct problem *p, struct rng *rng, const char *tier)
{
    struct problem *wide = problem_ungrouped(p);
    const bool ok = equal(wide, p, rng, tier, "grouped heads");
    problem_free(wide);
    return ok;
}

static bool groups(const struct tiers *tiers)
{
    return each_problem(tiers, cases_of(28, 14), EVERY_OPTION, usual_kinds, COUNT(usual_kinds), groups_hold);
}

/* All three forms of weights are one; column sums for each number of rows around the ends. */
static bool forms_hold(const struct problem *p, struct rng *rng, const char *tier)
{
    const int64_t last[] = {0, 1, 2, 1 + rng_below(rng, 300), INT64_MAX};
    struct result *dense = run(p, &contiguous, DENSE, tier), *packed = run(p, &contiguous, PACKED, tier);
    struct problem *copy = problem_copy(p);
    bool ok = dense != NULL && packed != NULL && same_result(packed, dense, "packed");
    for (int i = 0; i < COUNT(last) && ok; i++) {
        struct placing placing = placing_random(rng);
        placing.no_max = placing.no_sum = false;
        copy->last_rows = last[i];
        struct result *columns = run(copy, &placing, COLUMNS, tier);
        ok = columns != NULL && columns_are_sums(copy, columns, dense);
        result_free(columns);
    }
    result_free(dense);
    result_free(packed);
    problem_free(copy);
    return ok;
}

static bool forms(const struct tiers *tiers)
{
    return each_problem(tiers, cases_of(28, 14), EVERY_OPTION, usual_kinds, COUNT(usual_kinds), forms_hold);
}

static const struct check checks[] = {
    {"pairs_of_options", pairs_of_options},
    {"random_options", random_options},
    {"odd_options", odd_options},
    {"long_windows", long_windows},
    {"large_softcap", large_softcap},
    {"model_heads", model_heads},
    {"unseen", unseen},
    {"nan_rows", nan_rows},
    {"wide_windows", wide_windows},
    {"narrow_windows", narrow_windows},
    {"windows_of_blocks", windows_of_blocks},
    {"short_prefixes", short_prefixes},
    {"whole_prefixes", whole_prefixes},
    {"triangles", triangles},
    {"blind_rows", blind_rows},
    {"empty_sinks", empty_sinks},
    {"flat_slopes", flat_slopes},
    {"mask_chunks", chunks},
    {"mask_teams", teams},
    {"mask_pages", pages},
    {"mask_groups", groups},
    {"mask_forms", forms},
};
const struct suite suite_masks = {"masks", checks, COUNT(checks)};
