/* What must not change a bit: the future, the chunking, the batch, grouped heads, layout, the place of the output,
 * asking for statistics. Each holds within one tier, so a mistake that all tiers share is seen too. */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A property over one random problem and one tier: true, or broken(). */
typedef bool property(const struct problem *p, struct rng *rng, const char *tier);

/* Every other problem has options, of those that the property knows. */
static bool each_problem(const struct tiers *tiers, int count, double work, unsigned options, property *holds)
{
    static const enum values kinds[] = {NORMAL, NORMAL, PEAKED, ANY, RISING, FALLING, SPECIAL};
    struct rng rng;
    for (int i = 0; i < count; i++) {
        if (!case_begin(i, &rng)) continue;
        const enum values kind = kinds[i % COUNT(kinds)];
        struct problem *p = problem_random(&rng, work, kind);
        if (rng_one_in(&rng, 2)) problem_options_random(p, &rng, options);
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

/* Whether query i sees a key from position `cut` on. */
static bool sees_from(const struct problem *p, const tril_seq *seq, int64_t i, int64_t cut)
{
    for (int64_t j = cut; j < seq->kv_len; j++) {
        if (sees(p, seq, i, j)) return true;
    }
    return false;
}

/* Keys and values from position `cut` on become signalling NaN or inf: rows that see none of them must not notice. */
static bool future_is_invisible(const struct problem *p, struct rng *rng, const char *tier)
{
    const uint32_t poison[] = {SIGNALLING_NAN, 0x7fc00000, 0x7f800000, 0xff800000};
    struct problem *poisoned = problem_copy(p);
    int64_t cut[MAX_SEQS];
    for (int s = 0; s < p->n_seqs; s++) {
        const tril_seq *seq = &p->seqs[s];
        cut[s] = rng_below(rng, seq->kv_len + 1);
        for (int64_t j = cut[s]; seq->q_len > 0 && j < seq->kv_len; j++) {
            const uint32_t bits = rng_of(rng, poison);
            for (int64_t i = 0; i < (int64_t)p->kv_heads * p->qk_dim; i++)
                memcpy(problem_k(poisoned, seq->kv_first + j, 0) + i, &bits, sizeof bits);
            for (int64_t i = 0; i < (int64_t)p->kv_heads * p->v_dim; i++)
                memcpy(problem_v(poisoned, seq->kv_first + j, 0) + i, &bits, sizeof bits);
            problem_encode(poisoned, seq->kv_first + j, 1);
        }
    }
    bool ok = true;
    for (enum operation operation = ATTEND; operation <= DENSE && ok; operation++) {
        const struct placing placing = placing_random(rng);
        struct result *want = run(p, &contiguous, operation, tier), *got = run(poisoned, &placing, operation, tier);
        ok = want != NULL && got != NULL;
        for (int s = 0; s < p->n_seqs && ok; s++) {
            const tril_seq *seq = &p->seqs[s];
            for (int64_t i = 0; i < seq->q_len && ok; i++) {
                if (sees_from(p, seq, i, cut[s])) continue;
                ok = same_rows(got, seq->q_first + i, want, seq->q_first + i, 1, "poisoned future");
            }
        }
        result_free(want);
        result_free(got);
    }
    problem_free(poisoned);
    return ok;
}

static bool poisoned_future(const struct tiers *tiers)
{
    return each_problem(tiers, scaled(60) < 30 ? 30 : scaled(60), 6e5, EVERY_OPTION, future_is_invisible);
}

/* Numbers of rows of one K/V head around what a tile takes at once, and around what a tier takes for few. */
static const int few[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 15, 16, 17, 23, 24, 25, 47, 48, 49, 63, 64, 65};

/* Queries of a chunk: at most `most`, or, every other time, as many as give about such a number of rows. */
static int64_t chunk_of(const struct problem *p, struct rng *rng, int64_t most)
{
    const int64_t group = p->q_heads / p->kv_heads, n = (rng_of(rng, few) + rng_below(rng, group)) / group;
    return most == 1 || rng_one_in(rng, 2) ? 1 + rng_below(rng, most) : n < 1 ? 1 : n;
}

/* One shot = any chunking, however each chunk lies and whoever computes it. `most` is the largest chunk; 1: token by
 * token, after a prefix. */
static bool in_chunks(const struct problem *p, struct rng *rng, const char *tier, int64_t most)
{
    bool ok = true;
    for (enum operation operation = ATTEND; operation < COLUMNS && ok; operation++) {
        struct result *whole = run(p, &contiguous, operation, tier);
        ok = whole != NULL;
        for (int s = 0; s < p->n_seqs && ok; s++) {
            const tril_seq *seq = &p->seqs[s];
            for (int64_t first = 0, n; first < seq->q_len && ok; first += n) {
                n = chunk_of(p, rng, most);
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

static bool chunks_hold(const struct problem *p, struct rng *rng, const char *tier)
{
    return in_chunks(p, rng, tier, 1 + rng_below(rng, 300));
}

static bool chunks(const struct tiers *tiers)
{
    return each_problem(tiers, scaled(40), 4e5, CHUNK_OPTIONS, chunks_hold);
}

static bool tokens_hold(const struct problem *p, struct rng *rng, const char *tier)
{
    return in_chunks(p, rng, tier, 1);
}

static bool token_by_token(const struct tiers *tiers)
{
    return each_problem(tiers, scaled(20), 1e5, CHUNK_OPTIONS, tokens_hold);
}

/* Every number of query heads per K/V head with chunks of each size of `few`, in queries and in rows, at any place of a
 * cache that is long enough for so many rows to go the way of few; every other time with options. */
static bool few_rows(const struct tiers *tiers)
{
    struct rng rng;
    for (int group = 1; group <= 16; group++) {
        if (!short_table_case_begin(group, 16, 2, &rng)) continue;
        const int kv_heads = group % 3 == 0 ? 2 : 1, dim = 1 + (int)rng_below(&rng, 18);
        struct problem *p = problem_new(group * kv_heads, kv_heads, dim, group % 2 == 0 ? dim : 1 + dim / 2);
        problem_seq(p, 0, 66 + rng_below(&rng, 10), 0, group % 4 == 0 ? 540 + rng_below(&rng, 80) : 200);
        problem_fill(p, &rng, NORMAL);
        problem_options_random(p, &rng, group / 2 % 2 == 0 ? CHUNK_OPTIONS & ~PREFIX : 0);
        problem_store_random(p, &rng);
        const tril_seq *seq = &p->seqs[0];
        bool ok = true;
        for (int t = 0; t < tiers->n && ok; t++) {
            struct rng same = rng;
            for (enum operation operation = ATTEND; operation < COLUMNS && ok; operation++) {
                problem_describe(p, operation_name(operation));
                struct result *whole = run(p, &contiguous, operation, tiers->name[t]);
                ok = whole != NULL;
                for (int i = 0; i < 2 * COUNT(few) && ok; i++) {
                    const int64_t n = i < COUNT(few) ? few[i] : (few[i - COUNT(few)] + group - 1) / group;
                    const int64_t first = rng_below(&same, seq->q_len - n + 1);
                    struct problem *part = problem_part(p, seq, first, n);
                    struct placing placing = rng_one_in(&same, 2) ? contiguous : placing_random(&same);
                    char text[600], place[400];
                    placing_describe(&placing, place, sizeof place);
                    snprintf(text, sizeof text, "queries %d to %d, %s, %s", (int)first, (int)(first + n),
                             operation_name(operation), place);
                    problem_describe(p, text);
                    struct result *got = run(part, &placing, operation, tiers->name[t]);
                    ok = got != NULL && same_rows(got, 0, whole, seq->q_first + first, n, "few rows");
                    result_free(got);
                    problem_free(part);
                }
                result_free(whole);
            }
        }
        problem_free(p);
        if (!ok) return false;
    }
    return true;
}

/* Grouped heads = each K/V head written out once per query head. */
static bool groups_hold(const struct problem *p, struct rng *rng, const char *tier)
{
    struct problem *wide = problem_ungrouped(p);
    bool ok = true;
    for (enum operation operation = ATTEND; operation < OPERATIONS && ok; operation++) {
        const struct placing placing = placing_random(rng);
        struct result *want = run(wide, &contiguous, operation, tier), *got = run(p, &placing, operation, tier);
        ok = want != NULL && got != NULL && same_result(got, want, "grouped heads");
        result_free(want);
        result_free(got);
    }
    problem_free(wide);
    return ok;
}

static bool grouped_heads(const struct tiers *tiers)
{
    return each_problem(tiers, scaled(30), 6e5, EVERY_OPTION, groups_hold);
}

/* A batch = its sequences one by one = the batch in another order. Column sums have a row for each sequence, the others
 * for each query. */
static bool same_sequence(const struct result *got, const struct problem *p, int at, const struct result *want,
                          const struct problem *q, int from, enum operation operation, const char *what)
{
    if (operation == COLUMNS) return same_columns(got, at, want, from, what);
    return same_rows(got, p->seqs[at].q_first, want, q->seqs[from].q_first, q->seqs[from].q_len, what);
}

static bool batch_holds(const struct problem *p, struct rng *rng, const char *tier)
{
    struct problem *turned = problem_new(p->q_heads, p->kv_heads, p->qk_dim, p->v_dim);
    const int first = (int)rng_below(rng, p->n_seqs);
    turned->scale = p->scale;
    turned->math = p->math;
    for (int s = 0; s < p->n_seqs; s++) {
        const tril_seq *seq = &p->seqs[(first + p->n_seqs - s) % p->n_seqs];
        problem_seq(turned, rng_below(rng, 3), seq->q_len, rng_below(rng, 3), seq->kv_len);
        turned->seqs[s].prefix = seq->prefix;
    }
    problem_room(turned, p);
    problem_copy_options(turned, p);
    if (p->tree != NULL) problem_tree(turned);
    for (int s = 0; s < p->n_seqs; s++) {
        const tril_seq *from = &p->seqs[(first + p->n_seqs - s) % p->n_seqs], *to = &turned->seqs[s];
        if (from->q_len == 0) continue;
        if (p->tree != NULL) problem_copy_tree(turned, to, p, from);
        problem_copy_tokens(turned, OF_Q, to->q_first, p, from->q_first, from->q_len);
        problem_copy_tokens(turned, OF_K, to->kv_first, p, from->kv_first, from->kv_len);
        problem_copy_tokens(turned, OF_V, to->kv_first, p, from->kv_first, from->kv_len);
    }
    bool ok = true;
    for (enum operation operation = ATTEND; operation < OPERATIONS && ok; operation++) {
        struct result *whole = run(p, &contiguous, operation, tier);
        const struct placing placing = placing_random(rng);
        struct result *other = run(turned, &placing, operation, tier);
        ok = whole != NULL && other != NULL;
        for (int s = 0; s < p->n_seqs && ok; s++) {
            const int from = (first + p->n_seqs - s) % p->n_seqs;
            const tril_seq *seq = &p->seqs[from];
            if (seq->q_len == 0) continue;
            ok = same_sequence(other, turned, s, whole, p, from, operation, "permuted batch");
            struct problem *alone = problem_part(p, seq, 0, seq->q_len);
            struct result *got = ok ? run(alone, &contiguous, operation, tier) : NULL;
            ok = got != NULL && same_sequence(got, alone, 0, whole, p, from, operation, "single calls");
            result_free(got);
            problem_free(alone);
        }
        result_free(whole);
        result_free(other);
    }
    problem_free(turned);
    return ok;
}

static bool batches(const struct tiers *tiers)
{
    return each_problem(tiers, scaled(40), 4e5, EVERY_OPTION, batch_holds);
}

/* Strides, order, alignment, the workspace's place; the output in q's memory; statistics asked for or not. */
static bool layout_holds(const struct problem *p, struct rng *rng, const char *tier)
{
    bool ok = true;
    for (enum operation operation = ATTEND; operation < OPERATIONS && ok; operation++) {
        struct result *want = run(p, &contiguous, operation, tier);
        const struct placing placing = placing_random(rng);
        struct result *got = run(p, &placing, operation, tier);
        ok = want != NULL && got != NULL && same_result(got, want, "strides");
        result_free(got);
        for (int asked = 0; asked < 3 && ok; asked++) {
            struct placing quiet = placing_random(rng);
            quiet.no_max = asked != 1;
            quiet.no_sum = asked != 2;
            got = run(p, &quiet, operation, tier);
            ok = got != NULL;
            const size_t rows = (size_t)(p->q_tokens * p->q_heads) * sizeof(float);
            if (ok && quiet.no_max) memcpy(got->row_max, want->row_max, rows);
            if (ok && quiet.no_sum) memcpy(got->row_sum, want->row_sum, rows);
            ok = ok && same_result(got, want, "statistics not asked for");
            result_free(got);
        }
        if (ok && operation == ATTEND && p->qk_dim == p->v_dim) {
            struct placing in_place = placing_random(rng);
            in_place.in_place = true;
            got = run(p, &in_place, operation, tier);
            ok = got != NULL && same_result(got, want, "in place");
            result_free(got);
        }
        result_free(want);
    }
    return ok;
}

static bool layouts(const struct tiers *tiers)
{
    return each_problem(tiers, scaled(40), 4e5, EVERY_OPTION, layout_holds);
}

/* Dense = packed above nothing; column sums = the sums of its columns; the statistics of tril_attend = those of
 * tril_weights. */
static bool forms_hold(const struct problem *p, struct rng *rng, const char *tier)
{
    (void)rng;
    struct result *attend = run(p, &contiguous, ATTEND, tier), *dense = run(p, &contiguous, DENSE, tier);
    struct result *packed = run(p, &contiguous, PACKED, tier), *columns = run(p, &contiguous, COLUMNS, tier);
    bool ok = attend != NULL && dense != NULL && packed != NULL && columns != NULL;
    ok = ok && same_result(packed, dense, "packed") && columns_are_sums(p, columns, dense);
    if (ok) attend->width = 0; /* statistics only */
    ok = ok && same_rows(attend, 0, dense, 0, p->q_tokens, "statistics of attend");
    result_free(attend);
    result_free(dense);
    result_free(packed);
    result_free(columns);
    return ok;
}

static bool forms(const struct tiers *tiers)
{
    return each_problem(tiers, scaled(30), 4e5, EVERY_OPTION, forms_hold);
}

/* A scale of 0 means 1 / sqrt(qk_dim), and a scale of -x with -q is x with q. */
static bool scales(const struct tiers *tiers)
{
    static const struct {
        int dim;
        float scale;
    } roots[] = {{1, 1.0f},      {4, 0.5f},           {16, 0.25f},         {64, 0.125f},
                 {256, 0.0625f}, {2, 0x1.6a09e6p-1f}, {3, 0x1.279a74p-1f}, {128, 0x1.6a09e6p-4f}};
    struct rng rng;
    for (int i = 0; i < COUNT(roots); i++) {
        if (!case_begin(i, &rng)) continue;
        struct problem *p = problem_new(2, 1, roots[i].dim, 7);
        problem_seq(p, 0, 5, 0, 60);
        problem_fill(p, &rng, NORMAL);
        bool ok = true;
        for (int t = 0; t < tiers->n && ok; t++) {
            problem_describe(p, "scale");
            p->scale = 0.0f;
            struct result *want = run(p, &contiguous, ATTEND, tiers->name[t]);
            p->scale = roots[i].scale;
            struct result *got = run(p, &contiguous, ATTEND, tiers->name[t]);
            ok = want != NULL && got != NULL && same_result(got, want, "1 / sqrt(qk_dim)");
            result_free(got);
            struct problem *mirrored = problem_copy(p);
            mirrored->scale = -p->scale;
            for (int64_t j = 0; j < p->q_tokens * p->q_heads * p->qk_dim; j++)
                mirrored->q[j] = -p->q[j];
            got = ok ? run(mirrored, &contiguous, ATTEND, tiers->name[t]) : NULL;
            ok = got != NULL && same_result(got, want, "negative scale");
            result_free(got);
            result_free(want);
            problem_free(mirrored);
        }
        problem_free(p);
        if (!ok) return false;
    }
    return true;
}

/* A token stride of 0 serves one key and one value to every position. */
static bool zero_strides(const struct tiers *tiers)
{
    const int cases = scaled(10);
    struct rng rng;
    for (int i = 0; i < cases; i++) {
        if (!case_begin(i, &rng)) continue;
        const int dim = rng_one_in(&rng, 2) ? 64 : 1 + (int)rng_below(&rng, 40);
        struct problem *p = problem_new(4, 2, dim, i % 2 == 0 ? 32 : 1 + (int)rng_below(&rng, 40));
        problem_seq(p, 0, 4, 0, 4 + rng_below(&rng, 300));
        problem_fill(p, &rng, NORMAL);
        problem_store_random(p, &rng);
        for (int64_t token = 1; token < p->kv_tokens; token++) {
            problem_copy_tokens(p, OF_K, token, p, 0, 1);
            problem_copy_tokens(p, OF_V, token, p, 0, 1);
        }
        struct placing repeated = contiguous;
        repeated.repeat_keys = true;
        repeated.stored = true;
        bool ok = true;
        for (int t = 0; t < tiers->n && ok; t++) {
            problem_describe(p, "zero stride");
            struct result *want = run(p, &contiguous, ATTEND, tiers->name[t]);
            struct result *got = run(p, &repeated, ATTEND, tiers->name[t]);
            ok = want != NULL && got != NULL && same_result(got, want, "zero stride");
            result_free(want);
            result_free(got);
        }
        problem_free(p);
        if (!ok) return false;
    }
    return true;
}

static const struct check checks[] = {
    {"poisoned_future", poisoned_future},
    {"chunks", chunks},
    {"token_by_token", token_by_token},
    {"few_rows", few_rows},
    {"grouped_heads", grouped_heads},
    {"batches", batches},
    {"layouts", layouts},
    {"forms", forms},
    {"scales", scales},
    {"zero_strides", zero_strides},
};
const struct suite suite_properties = {"properties", checks, COUNT(checks)};
