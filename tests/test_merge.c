/* Partial results: a sequence's keys in ranges, computed apart and merged, give the bits of one call. And a cache that
 * tril_append() has filled is the cache laid out by hand. */
#include "codes.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ELEMENT ((int64_t)sizeof(float))
#define BLOCK   TRIL_KEY_BLOCK

static float *floats(int64_t n)
{
    float *x = malloc((size_t)(n + 1) * sizeof *x);
    if (x == NULL) abort();
    return x;
}

/* The same problem, of whose keys only those in blocks first ... end - 1 take part. It shares its numbers. */
static struct problem range_of(const struct problem *p, int64_t first, int64_t end)
{
    struct problem part = *p;
    for (int s = 0; s < p->n_seqs; s++) {
        tril_seq *seq = &part.seqs[s];
        seq->key_begin = first * BLOCK;
        seq->key_end = end * BLOCK < seq->kv_len ? end * BLOCK : seq->kv_len;
        if (first == 0 || seq->key_begin < seq->kv_len) continue;
        /* Nothing is left: an empty range, which a sequence of less than a block cannot have. It stays away. */
        seq->key_begin = seq->key_end = seq->kv_len / BLOCK * BLOCK;
        if (seq->kv_len < BLOCK) seq->q_len = 0;
    }
    return part;
}

static int64_t blocks_of(const struct problem *p)
{
    return (p->longest + BLOCK - 1) / BLOCK;
}

/* Whether a query sees any key of positions begin ... end - 1. */
static bool sees_any(const struct problem *p, const tril_seq *seq, int64_t i, int64_t begin, int64_t end)
{
    for (int64_t j = begin; j < end; j++) {
        if (sees(p, seq, i, j)) return true;
    }
    return false;
}

/* Rows that see none of a part's keys say so: -inf, -0, and zeros. A part is a block, or all of the range. */
static bool empty_rows(const struct problem *p, const struct result *part, int64_t block, bool blockwise)
{
    for (int s = 0; s < p->n_seqs; s++) {
        const tril_seq *seq = &p->seqs[s];
        const int64_t begin = seq->key_begin + block * BLOCK, block_end = begin + BLOCK;
        const int64_t end = blockwise && block_end < range_end(seq) ? block_end : range_end(seq);
        for (int64_t i = 0; i < seq->q_len; i++) {
            const bool some = sees_any(p, seq, i, begin, end);
            for (int64_t head = 0; head < p->q_heads; head++) {
                const int64_t row = (seq->q_first + i) * p->q_heads + head;
                const bool marked = bits_of(part->row_sum[row]) == 0x80000000u;
                if (marked == some)
                    return broken("part %lld: query %lld head %lld sees %s of it, and row_sum is %a", (long long)block,
                                  (long long)i, (long long)head, some ? "a key" : "nothing",
                                  (double)part->row_sum[row]);
                if (!marked) continue;
                bool zeros = part->row_max[row] == -INFINITY;
                for (int64_t d = 0; d < p->v_dim; d++)
                    zeros = zeros && bits_of(part->x[row * part->width + d]) == 0;
                if (!zeros)
                    return broken("part %lld: query %lld head %lld sees nothing of it, and is not empty",
                                  (long long)block, (long long)i, (long long)head);
            }
        }
    }
    return true;
}

/* Parts in order, each a whole result. */
struct parts {
    struct result *part[64];
    int n;
};

static void parts_drop(struct parts *parts)
{
    for (int i = 0; i < parts->n; i++)
        result_free(parts->part[i]);
    parts->n = 0;
}

/* Appends what a call over blocks first ... end - 1 gives: a part for each block, or a single one. */
static bool parts_add(struct parts *parts, const struct problem *p, int64_t first, int64_t end, uint32_t flags,
                      struct placing placing, const char *tier)
{
    const struct problem range = range_of(p, first, end);
    char text[600], place[400];
    int64_t n;
    placing.flags = flags;
    placing.out_type = TRIL_F32; /* what is merged */
    placing.guard = (enum guard)(p->q_tokens % 3);
    placing_describe(&placing, place, sizeof place);
    snprintf(text, sizeof text, "blocks %lld to %lld, flags %u, %s", (long long)first, (long long)end, flags, place);
    problem_describe(p, text);
    struct result **got = run_parts(&range, &placing, tier, &n);
    if (got == NULL) return false;
    bool ok = parts->n + n <= COUNT(parts->part);
    if (!ok) broken("too many parts");
    for (int64_t i = 0; i < n; i++) {
        ok = ok && ((flags & TRIL_UNNORMALISED) == 0 || empty_rows(&range, got[i], i, (flags & TRIL_BLOCKWISE) != 0));
        for (int s = 0; s < p->n_seqs; s++) { /* of a sequence that stayed away */
            const tril_seq *seq = &p->seqs[s];
            for (int64_t j = 0; range.seqs[s].q_len == 0 && j < seq->q_len * p->q_heads; j++) {
                got[i]->row_max[seq->q_first * p->q_heads + j] = -INFINITY;
                got[i]->row_sum[seq->q_first * p->q_heads + j] = -0.0f;
            }
        }
        if (parts->n < COUNT(parts->part))
            parts->part[parts->n++] = got[i];
        else
            result_free(got[i]);
    }
    free(got);
    return ok;
}

/* The last part of a problem with sink logits, as the header asks for it; that of a logit of -inf adds nothing. */
static void parts_add_sink(struct parts *parts, const struct problem *p)
{
    if (p->sink_logits == NULL) return;
    struct result *r = calloc(1, sizeof *r);
    if (r == NULL || parts->n == COUNT(parts->part)) abort();
    const int64_t rows = p->q_tokens * p->q_heads;
    *r = (struct result){.rows = p->q_tokens, .tokens = p->q_tokens, .heads = p->q_heads, .width = p->v_dim};
    r->x = floats(rows * p->v_dim);
    r->row_max = floats(rows);
    r->row_sum = floats(rows);
    memset(r->x, 0, (size_t)(rows * p->v_dim * ELEMENT));
    memset(r->row_max, 0, (size_t)(rows * ELEMENT));
    memset(r->row_sum, 0, (size_t)(rows * ELEMENT));
    for (int s = 0; s < p->n_seqs; s++) {
        for (int64_t i = 0; i < p->seqs[s].q_len * p->q_heads; i++) {
            const int64_t row = p->seqs[s].q_first * p->q_heads + i;
            const float logit = p->sink_logits[row % p->q_heads];
            r->row_max[row] = (float)((double)logit * 1.4426950408889634);
            r->row_sum[row] = logit == -INFINITY ? -0.0f : 1.0f;
        }
    }
    parts->part[parts->n++] = r;
}

/* Parts first ... first + n - 1 merged. Rows lie `pad` floats apart, with signalling NaN between, and in the rows of an
 * empty part, which are left out; where `in_place`, the result takes the first part's memory. */
static struct result *merged(const struct problem *p, const struct parts *parts, int first, int n, uint32_t flags,
                             int pad, bool in_place)
{
    const int64_t rows = p->q_tokens * p->q_heads, dim = p->v_dim, stride = dim + pad;
    tril_partial list[64];
    float *memory[64] = {NULL}, *max[64], *sum[64];
    for (int i = 0; i < n; i++) {
        const struct result *r = parts->part[first + i];
        memory[i] = floats(rows * stride);
        max[i] = floats(rows);
        sum[i] = floats(rows);
        for (int64_t j = 0; j < rows * stride; j++)
            memory[i][j] = float_of(SIGNALLING_NAN);
        for (int64_t j = 0; j < rows; j++) {
            if (bits_of(r->row_sum[j]) != 0x80000000u)
                memcpy(memory[i] + j * stride, r->x + j * r->width, (size_t)(dim * ELEMENT));
        }
        memcpy(max[i], r->row_max, (size_t)(rows * ELEMENT));
        memcpy(sum[i], r->row_sum, (size_t)(rows * ELEMENT));
        list[i] = (tril_partial){memory[i], max[i], sum[i], stride * ELEMENT};
    }
    const int64_t room = rows * stride;
    float *out = in_place ? memory[0] : floats(room), *out_max = in_place ? max[0] : floats(rows),
          *out_sum = in_place ? sum[0] : floats(rows);
    if (!in_place) {
        for (int64_t j = 0; j < room; j++)
            out[j] = float_of(SIGNALLING_NAN);
    }
    const tril_status status = tril_merge(list, n, rows, dim, flags, out, stride * ELEMENT, out_max, out_sum);
    struct result *r = calloc(1, sizeof *r);
    if (r == NULL) abort();
    *r = (struct result){.rows = p->q_tokens, .tokens = p->q_tokens, .heads = p->q_heads, .width = dim};
    r->x = floats(rows * dim);
    r->row_max = floats(rows);
    r->row_sum = floats(rows);
    bool ok = status == TRIL_OK || broken("tril_merge: %s", tril_status_text(status));
    for (int64_t j = 0; j < rows && ok; j++) {
        memcpy(r->x + j * dim, out + j * stride, (size_t)(dim * ELEMENT));
        for (int64_t d = dim; d < stride && ok; d++)
            ok = bits_of(out[j * stride + d]) == SIGNALLING_NAN || broken("tril_merge wrote between rows");
    }
    memcpy(r->row_max, out_max, (size_t)(rows * ELEMENT));
    memcpy(r->row_sum, out_sum, (size_t)(rows * ELEMENT));
    for (int i = 0; i < n && ok; i++) { /* the parts are inputs */
        const struct result *was = parts->part[first + i];
        if (in_place && i == 0) continue;
        for (int64_t j = 0; j < rows && ok; j++)
            ok = bits_of(was->row_sum[j]) == 0x80000000u ||
                 memcmp(memory[i] + j * stride, was->x + j * was->width, (size_t)(dim * ELEMENT)) == 0 ||
                 broken("tril_merge changed part %d", i);
        ok = ok && ((memcmp(max[i], was->row_max, (size_t)(rows * ELEMENT)) == 0 &&
                     memcmp(sum[i], was->row_sum, (size_t)(rows * ELEMENT)) == 0) ||
                    broken("tril_merge changed the statistics of part %d", i));
    }
    if (!in_place) {
        free(out);
        free(out_max);
        free(out_sum);
    }
    for (int i = 0; i < n; i++) {
        free(memory[i]);
        free(max[i]);
        free(sum[i]);
    }
    if (ok) return r;
    result_free(r);
    return NULL;
}

/* Several long sequences among short ones. */
static struct problem *long_problem(struct rng *rng, enum values kind, double work)
{
    static const int dims[] = {1, 2, 3, 5, 8, 13, 16, 17, 20, 32, 33};
    static const int groups[] = {1, 1, 2, 3, 4, 7, 8, 16};
    static const int lengths[] = {256, 257, 300, 511, 512, 513, 700, 768, 1000, 1024, 1025, 1300, 2000, 2560};
    for (;;) {
        const int kv_heads = 1 + (int)rng_below(rng, 2);
        const int qk_dim = rng_of(rng, dims), v_dim = rng_one_in(rng, 2) ? qk_dim : rng_of(rng, dims);
        struct problem *p = problem_new(kv_heads * rng_of(rng, groups), kv_heads, qk_dim, v_dim);
        const int n = 1 + (int)rng_below(rng, 3);
        p->scale = rng_one_in(rng, 2) ? 0.0f : 0.05f + 0.3f * fabsf(rng_normal(rng));
        for (int i = 0; i < n; i++) {
            const int64_t kv_len = i > 0 && rng_one_in(rng, 2) ? rng_below(rng, 300) : rng_of(rng, lengths);
            const int64_t q_len = rng_one_in(rng, 3)   ? 1 + rng_below(rng, 8)
                                  : rng_one_in(rng, 3) ? kv_len + rng_below(rng, 30)
                                                       : 1 + rng_below(rng, 400);
            problem_seq(p, rng_one_in(rng, 4) ? rng_below(rng, 4) : 0, q_len,
                        rng_one_in(rng, 4) ? rng_below(rng, 9) : 0, kv_len);
        }
        if (problem_work(p) <= work && blocks_of(p) >= 2) {
            problem_fill(p, rng, kind);
            problem_store_random(p, rng);
            problem_math_random(p, rng);
            return p;
        }
        problem_free(p);
    }
}

typedef bool property(const struct problem *p, const struct result *want, struct rng *rng, const char *tier);

/* Every other problem has options, where the property knows them. */
static bool each_problem(const struct tiers *tiers, int count, double work, const enum values *kinds, int n_kinds,
                         unsigned options, property *holds)
{
    struct rng rng;
    for (int i = 0; i < count; i++) {
        if (!case_begin(i, &rng)) continue;
        const enum values kind = kinds[i % n_kinds];
        struct problem *p = long_problem(&rng, kind, work);
        if (rng_one_in(&rng, 2)) problem_options_random(p, &rng, options);
        problem_describe(p, "one call, oracle");
        struct result *want = run(p, &contiguous, ATTEND, "scalar");
        bool ok = want != NULL;
        for (int t = 0; t < tiers->n && ok; t++) {
            struct rng same = rng;
            problem_describe(p, values_name(kind));
            ok = holds(p, want, &same, tiers->name[t]);
        }
        result_free(want);
        problem_free(p);
        if (!ok) return false;
    }
    return true;
}

static const enum values every_kind[] = {NORMAL, TINY, ANY, SPECIAL, PEAKED, VAST, TIES, RISING, FALLING};

/* Block by block, in one or several calls: the bits of one call, in one merge or in two. */
static bool blocks_hold(const struct problem *p, const struct result *want, struct rng *rng, const char *tier)
{
    const int64_t blocks = blocks_of(p);
    struct parts parts = {.n = 0};
    bool ok = true;
    for (int64_t first = 0, n; first < blocks && ok; first += n) {
        n = rng_one_in(rng, 3) ? blocks - first : 1 + rng_below(rng, blocks - first);
        /* The part that begins at key 0 may be of several blocks. */
        const bool folded = first == 0 && rng_one_in(rng, 3);
        ok = parts_add(&parts, p, first, first + n, TRIL_UNNORMALISED | (folded ? 0 : TRIL_BLOCKWISE),
                       placing_random(rng), tier);
    }
    if (ok) parts_add_sink(&parts, p);
    const int pad = rng_one_in(rng, 2) ? 0 : (int)rng_below(rng, 9);
    for (int in_place = 0; in_place < 2 && ok; in_place++) {
        struct result *got = merged(p, &parts, 0, parts.n, 0, pad, in_place != 0);
        ok = got != NULL && same_result(got, want, in_place ? "merged in place" : "merged");
        result_free(got);
    }
    if (ok && parts.n > 1) { /* some first, the others onto them */
        const int some = 1 + (int)rng_below(rng, parts.n - 1);
        struct parts two = {.n = 0};
        two.part[two.n] = merged(p, &parts, 0, some, TRIL_UNNORMALISED, pad, rng_one_in(rng, 2));
        ok = two.part[0] != NULL;
        struct result *const own = two.part[0];
        two.n = 1;
        for (int i = some; i < parts.n; i++)
            two.part[two.n++] = parts.part[i];
        struct result *got = ok ? merged(p, &two, 0, two.n, 0, pad, rng_one_in(rng, 2)) : NULL;
        ok = got != NULL && same_result(got, want, "merged in two steps");
        result_free(got);
        result_free(own);
    }
    parts_drop(&parts);
    return ok;
}

static bool blocks_merge(const struct tiers *tiers)
{
    return each_problem(tiers, scaled(270) < 36 ? 36 : scaled(270), 1.5e6, every_kind, COUNT(every_kind), EVERY_OPTION,
                        blocks_hold);
}

/* A block alone keeps the sign of a zero, which the first of a row loses: values so small that every product with a
 * weight below 1 is rounded to -0, and 0 where the weight is 1, at the first key of each block. With a window a row's
 * first block is a later one, and its first key the window's. */
static bool minus_zeros(const struct tiers *tiers)
{
    static const struct {
        int group, q_len, kv_len, window;
    } shapes[] = {{1, 1, 200, 0}, {1, 3, 256, 0},   {2, 2, 700, 0},   {1, 60, 300, 0},   {4, 40, 900, 0},
                  {7, 5, 514, 0}, {1, 1, 700, 300}, {4, 3, 900, 200}, {2, 40, 1200, 500}};
    struct rng rng;
    for (int i = 0; i < COUNT(shapes); i++) {
        if (!case_begin(i, &rng)) continue;
        struct problem *p = problem_new(shapes[i].group, 1, 2, 3 + 8 * (i % 3));
        problem_seq(p, 0, shapes[i].q_len, 0, shapes[i].kv_len);
        problem_fill(p, &rng, NORMAL);
        p->scale = 1.0f;
        p->window = shapes[i].window;
        for (int64_t j = 0; j < p->q_tokens * p->q_heads * 2; j++)
            p->q[j] = j % 2 == 0 ? 1.0f : 0.0f;
        for (int64_t j = 0; j < p->kv_tokens; j++) {
            const bool leads = j % BLOCK == 0 || (p->window > 0 && j == p->kv_tokens - p->window);
            problem_k(p, j, 0)[0] = leads ? 0.0f : -2.0f - (float)(j % 3);
            for (int d = 0; d < p->v_dim; d++)
                problem_v(p, j, 0)[d] = leads ? 0.0f : d % 2 == 0 ? -0x1p-149f : 0x1p-149f;
        }
        problem_describe(p, "oracle");
        struct result *want = run(p, &contiguous, ATTEND, "scalar");
        bool ok = want != NULL;
        for (int t = 0; t < tiers->n && ok; t++) {
            struct parts parts = {.n = 0};
            struct rng same = rng;
            ok = parts_add(&parts, p, 0, blocks_of(p), TRIL_UNNORMALISED | TRIL_BLOCKWISE, placing_random(&same),
                           tiers->name[t]);
            for (int b = 0; b < parts.n && ok && p->window == 0; b++) {
                const int64_t last = (p->q_tokens - 1) * p->q_heads; /* sees two keys of each block, and more */
                const uint32_t bits = bits_of(parts.part[b]->x[last * p->v_dim]);
                ok = bits == (b == 0 ? 0 : 0x80000000u) || broken("block %d: a zero has the bits %08x", b, bits);
            }
            struct result *got = ok ? merged(p, &parts, 0, parts.n, 0, 1, false) : NULL;
            ok = got != NULL && same_result(got, want, "merged");
            result_free(got);
            parts_drop(&parts);
        }
        result_free(want);
        problem_free(p);
        if (!ok) return false;
    }
    return true;
}

/* More parts than are folded at once. */
static bool many_parts(const struct tiers *tiers)
{
    struct rng rng;
    for (int i = 0; i < 2; i++) {
        if (!case_begin(i, &rng)) continue;
        struct problem *p = problem_new(2, 1, 3, 5 + i);
        problem_seq(p, 0, 2, 0, 150 * BLOCK + 7);
        problem_fill(p, &rng, i == 0 ? NORMAL : PEAKED);
        problem_describe(p, "oracle");
        struct result *want = run(p, &contiguous, ATTEND, "scalar");
        bool ok = want != NULL;
        for (int t = 0; t < tiers->n && ok; t++) {
            struct placing placing = contiguous;
            int64_t n;
            placing.flags = TRIL_UNNORMALISED | TRIL_BLOCKWISE;
            problem_describe(p, "many parts");
            struct result **parts = run_parts(p, &placing, tiers->name[t], &n);
            ok = parts != NULL && (n == 151 || broken("%d parts", (int)n));
            const int64_t rows = p->q_tokens * p->q_heads;
            tril_partial list[151];
            for (int64_t j = 0; j < n && ok; j++)
                list[j] = (tril_partial){parts[j]->x, parts[j]->row_max, parts[j]->row_sum, p->v_dim * ELEMENT};
            if (ok) {
                const tril_status status = tril_merge(list, n, rows, p->v_dim, 0, parts[0]->x, p->v_dim * ELEMENT,
                                                      parts[0]->row_max, parts[0]->row_sum);
                ok = status == TRIL_OK || broken("tril_merge: %s", tril_status_text(status));
            }
            ok = ok && same_result(parts[0], want, "many parts");
            if (parts != NULL) parts_free(parts, n);
        }
        result_free(want);
        problem_free(p);
        if (!ok) return false;
    }
    return true;
}

/* u A (48 + (2 + 4 sqrt(D)) S + n/8192) of a row, in double: what the contract allows an output. */
static double bound_of(const struct problem *p, const tril_seq *seq, int64_t i, int64_t head, double *A)
{
    const int64_t n = visible_keys(seq, i), kv_head = head / (p->q_heads / p->kv_heads);
    const double scale = p->scale == 0.0f ? 1.0 / sqrt(p->qk_dim) : (double)p->scale;
    double S = 0.0, max = -INFINITY, sum = 0.0, *t = malloc((size_t)(n + 1) * sizeof *t);
    if (t == NULL) abort();
    for (int64_t j = 0; j < n; j++) {
        double size = 0.0;
        t[j] = 0.0;
        for (int d = 0; d < p->qk_dim; d++) {
            const double x = scale * (double)problem_q(p, seq->q_first + i, head)[d] *
                             (double)problem_k(p, seq->kv_first + j, kv_head)[d];
            t[j] += x;
            size += fabs(x);
        }
        S = fmax(S, size);
        max = fmax(max, t[j]);
    }
    for (int64_t j = 0; j < n; j++)
        sum += t[j] = exp(t[j] - max);
    for (int d = 0; d < p->v_dim; d++) {
        A[d] = 0.0;
        for (int64_t j = 0; j < n; j++)
            A[d] += t[j] / sum * fabs((double)problem_v(p, seq->kv_first + j, kv_head)[d]);
    }
    free(t);
    return 0x1p-24 * (48.0 + (2.0 + 4.0 * sqrt(p->qk_dim)) * S + (double)n / 8192.0);
}

/* Parts of several blocks each: both the merged result and one call's are within the bound of the real one. */
static bool folded_hold(const struct problem *p, const struct result *want, struct rng *rng, const char *tier)
{
    const int64_t blocks = blocks_of(p);
    struct parts parts = {.n = 0};
    bool ok = true;
    for (int64_t first = 0, n; first < blocks && ok; first += n) {
        n = 1 + rng_below(rng, blocks - first);
        ok = parts_add(&parts, p, first, first + n, TRIL_UNNORMALISED, placing_random(rng), tier);
    }
    struct result *got = ok ? merged(p, &parts, 0, parts.n, 0, 0, false) : NULL;
    ok = got != NULL;
    double *A = malloc((size_t)p->v_dim * sizeof *A);
    if (A == NULL) abort();
    for (int s = 0; s < p->n_seqs && ok; s++) {
        const tril_seq *seq = &p->seqs[s];
        for (int64_t i = 0; i < seq->q_len && ok; i++) {
            for (int64_t head = 0; head < p->q_heads && ok; head++) {
                const double bound = bound_of(p, seq, i, head, A);
                const int64_t row = (seq->q_first + i) * p->q_heads + head;
                ok = same_float(got->row_max[row], want->row_max[row]) || broken("row_max is another");
                const double off = fabs((double)got->row_sum[row] - (double)want->row_sum[row]);
                ok = ok && (off <= 2.0 * bound * (double)want->row_sum[row] || broken("row_sum is off by %g", off));
                for (int d = 0; d < p->v_dim && ok; d++) {
                    const double error = fabs((double)result_row(got, seq->q_first + i, head)[d] -
                                              (double)result_row(want, seq->q_first + i, head)[d]);
                    ok = error <= 2.0 * bound * A[d] + 0x1p-120 ||
                         broken("query %lld head %lld column %d is off by %g, twice the bound is %g", (long long)i,
                                (long long)head, d, error, 2.0 * bound * A[d]);
                }
            }
        }
    }
    free(A);
    result_free(got);
    parts_drop(&parts);
    return ok;
}

static bool folded_parts(const struct tiers *tiers)
{
    static const enum values kinds[] = {NORMAL, PEAKED, RISING, FALLING};
    return each_problem(tiers, scaled(60) < 4 ? 4 : scaled(60), 4e5, kinds, COUNT(kinds), 0, folded_hold);
}

/* The whole as one part, divided by the merge alone; and with TRIL_UNNORMALISED, its own first part. */
static bool one_part_holds(const struct problem *p, const struct result *want, struct rng *rng, const char *tier)
{
    struct parts parts = {.n = 0};
    bool ok = parts_add(&parts, p, 0, blocks_of(p), TRIL_UNNORMALISED, placing_random(rng), tier);
    if (ok) parts_add_sink(&parts, p);
    struct result *got = ok ? merged(p, &parts, 0, parts.n, 0, 3, rng_one_in(rng, 2)) : NULL;
    ok = got != NULL && same_result(got, want, "one part");
    result_free(got);
    got = ok ? merged(p, &parts, 0, 1, TRIL_UNNORMALISED, 0, rng_one_in(rng, 2)) : NULL;
    ok = got != NULL && same_result(got, parts.part[0], "one part, to be merged again");
    result_free(got);
    /* Without the flag, but with the range: the plain call. */
    struct parts plain = {.n = 0};
    ok = ok && parts_add(&plain, p, 0, blocks_of(p), 0, placing_random(rng), tier) &&
         same_result(plain.part[0], want, "a range of all keys");
    parts_drop(&plain);
    parts_drop(&parts);
    return ok;
}

static bool one_part(const struct tiers *tiers)
{
    return each_problem(tiers, scaled(90) < 9 ? 9 : scaled(90), 6e5, every_kind, COUNT(every_kind), EVERY_OPTION,
                        one_part_holds);
}

/* Every range of blocks, in one part and in one for each block, where windows and trees leave rows nothing of many:
 * those say so, also where others of the same task see something. */
static bool empty_parts(const struct tiers *tiers)
{
    struct rng rng;
    for (int i = 0; i < 8; i++) {
        if (!case_begin(i, &rng)) continue;
        const int64_t queries = 3 + rng_below(&rng, i % 2 == 0 ? 3 : 300);
        struct problem *p = problem_new(2 + i % 2, 1, 1 + (int)rng_below(&rng, 20), 1 + (int)rng_below(&rng, 20));
        problem_seq(p, 0, queries, 0, i % 4 < 2 ? queries : queries + 400 + rng_below(&rng, 400));
        problem_fill(p, &rng, NORMAL);
        problem_options(p, &rng, TREE | (i % 3 == 0 ? SINK_LOGITS : 0));
        memset(problem_tree_row(p, 1), 0, (size_t)p->tree_words * sizeof *p->tree);
        p->window = i % 4 < 2 ? 0 : 1 + rng_below(&rng, 100);
        p->sink_tokens = rng_one_in(&rng, 2) ? 0 : rng_below(&rng, 300);
        bool ok = true;
        for (int t = 0; t < tiers->n && ok; t++) {
            struct rng same = rng;
            for (int64_t first = 0; first < blocks_of(p) && ok; first++) {
                struct parts parts = {.n = 0};
                for (int64_t end = first + 1; end <= blocks_of(p) && ok; end++)
                    ok = parts_add(&parts, p, first, end, TRIL_UNNORMALISED, placing_random(&same), tiers->name[t]);
                ok = ok && parts_add(&parts, p, first, blocks_of(p), TRIL_UNNORMALISED | TRIL_BLOCKWISE,
                                     placing_random(&same), tiers->name[t]);
                parts_drop(&parts);
            }
        }
        problem_free(p);
        if (!ok) return false;
    }
    return true;
}

/* A cache that is filled by tril_append(): the bytes, and what attention makes of them. */

enum { PANEL = 16, MOST_DIM = 96 };

struct cache {
    struct area area, scales;
    tril_tensor tensor;
};

static struct area filled_with(uint32_t word, int64_t bytes)
{
    struct area a = area_new((size_t)bytes, GUARD_AFTER, 0);
    for (int64_t i = 0; i < bytes; i++)
        a.data[i] = (unsigned char)(word >> i % ELEMENT * 8);
    return a;
}

static struct cache cache_new(struct rng *rng, tril_dtype type, bool panels, int64_t tokens, int64_t heads, int64_t dim)
{
    const int64_t together = panels ? PANEL : 1, units = (tokens + together - 1) / together;
    const int64_t unit = together * type_unit(type), width = together * type_row_bytes(type, dim);
    const bool head_major = rng_one_in(rng, 2);
    const int64_t pad = rng_one_in(rng, 2) ? 0 : unit * rng_below(rng, 5),
                  outer = rng_one_in(rng, 2) ? 0 : unit * rng_below(rng, 7);
    const int64_t row = width + pad, by_unit = head_major ? row : heads * row + outer;
    const int64_t by_head = head_major ? units * row + outer : row;
    const int64_t bytes = (units - 1) * by_unit + (heads - 1) * by_head + width;
    struct cache c = {.area = filled_with(type_filler(type), bytes)};
    c.tensor = (tril_tensor){.data = c.area.data,
                             .bytes = bytes,
                             .token_stride = by_unit / together,
                             .head_stride = by_head,
                             .dtype = type,
                             .layout = panels ? TRIL_PANELS : TRIL_ROWS};
    if (type != TRIL_I8) return c;
    c.tensor.scale_token_stride = ELEMENT * (head_major ? 1 : heads + rng_below(rng, 3));
    c.tensor.scale_head_stride = ELEMENT * (head_major ? tokens + rng_below(rng, 3) : 1);
    c.tensor.scales_bytes =
        (tokens - 1) * c.tensor.scale_token_stride + (heads - 1) * c.tensor.scale_head_stride + ELEMENT;
    c.scales = filled_with(SIGNALLING_NAN, c.tensor.scales_bytes);
    c.tensor.scales = (const float *)(const void *)c.scales.data;
    return c;
}

static struct cache cache_copy(const struct cache *from)
{
    struct cache c = *from;
    c.area = area_new(from->area.bytes, GUARD_BEFORE, 0);
    c.scales = area_new(from->scales.bytes, GUARD_BEFORE, 0);
    memcpy(c.area.data, from->area.data, c.area.bytes);
    if (c.scales.bytes > 0) memcpy(c.scales.data, from->scales.data, c.scales.bytes);
    c.tensor.data = c.area.data;
    if (from->tensor.scales != NULL) c.tensor.scales = (const float *)(const void *)c.scales.data;
    return c;
}

static void cache_free(struct cache *c)
{
    area_free(&c->area);
    if (c->tensor.scales != NULL) area_free(&c->scales);
}

/* A row where the header's formulas say that it lies. */
static void cache_put(const struct cache *c, int64_t token, int64_t head, const unsigned char *row, int64_t dim,
                      float scale)
{
    const tril_tensor *x = &c->tensor;
    const int64_t unit = type_unit(x->dtype), first = x->layout == TRIL_PANELS ? token / PANEL * PANEL : token;
    unsigned char *to = c->area.data + first * x->token_stride + head * x->head_stride;
    if (x->scales != NULL)
        memcpy(c->scales.data + token * x->scale_token_stride + head * x->scale_head_stride, &scale, sizeof scale);
    if (x->layout == TRIL_ROWS) {
        memcpy(to, row, (size_t)type_row_bytes(x->dtype, dim));
        return;
    }
    for (int64_t i = 0; i < dim; i++)
        memcpy(to + (i * PANEL + token - first) * unit, row + i * unit, (size_t)unit);
}

static bool same_cache(const struct cache *got, const struct cache *want)
{
    return (memcmp(got->area.data, want->area.data, want->area.bytes) == 0 ||
            broken("other bytes than the tokens' have changed, or wrong ones")) &&
           (want->scales.bytes == 0 || memcmp(got->scales.data, want->scales.data, want->scales.bytes) == 0 ||
            broken("other scales than the tokens' have changed, or wrong ones"));
}

/* Attention from the cache in the place of the problem's keys. */
static bool attends_alike(const struct problem *p, const struct cache *cache, const char *tier)
{
    struct result *want = run(p, &contiguous, ATTEND, tier), *got = NULL;
    struct placed *x = placed_new(p, &contiguous, ATTEND);
    x->call.k = cache->tensor;
    size_t bytes = 0;
    bool ok = want != NULL && (tril_workspace(&x->call, 1, &bytes) == TRIL_OK || broken("tril_workspace"));
    void *workspace = malloc(bytes + 1);
    if (workspace == NULL) abort();
    ok = ok && placed_run(x, &(struct team){.threads = 0}, workspace, bytes);
    if (ok) got = placed_take_part(x, 0);
    ok = ok && same_result(got, want, "attention from the filled cache");
    free(workspace);
    result_free(got);
    result_free(want);
    placed_free(x);
    return ok;
}

static bool appends(struct rng *rng, tril_dtype type, bool panels, const char *tier)
{
    const int64_t heads = 1 + rng_below(rng, 3), tokens = 1 + rng_below(rng, 70);
    const int64_t dim = type_fits(type, 1) ? 1 + rng_below(rng, 40) : 32 * (1 + rng_below(rng, 3));
    const int64_t begin = panels ? rng_below(rng, 3) * PANEL : rng_below(rng, 40), room = begin + tokens;
    struct cache by_hand = cache_new(rng, type, panels, room, heads, dim), filled = cache_copy(&by_hand);
    struct problem *p = problem_new((int)heads * (1 + (int)rng_below(rng, 3)), (int)heads, (int)dim, (int)dim);
    problem_seq(p, 0, 1 + rng_below(rng, tokens), begin, tokens);
    problem_fill(p, rng, NORMAL);
    char text[60];
    snprintf(text, sizeof text, "append to %s of %s", panels ? "panels" : "rows", type_name(type));
    problem_describe(p, text);
    bool ok = use_tier(tier);

    /* What is appended: rows with padding, after some others. */
    const int64_t before = rng_below(rng, 4), from_row = dim + rng_below(rng, 3), from_token = heads * from_row;
    float *from = floats((before + tokens) * from_token);
    for (int64_t i = 0; i < (before + tokens) * from_token; i++)
        from[i] = float_of(SIGNALLING_NAN);
    for (int64_t t = 0; t < tokens; t++) {
        for (int64_t h = 0; h < heads; h++)
            memcpy(from + (before + t) * from_token + h * from_row, problem_k(p, begin + t, h),
                   (size_t)(dim * ELEMENT));
    }
    const tril_tensor source = {.data = from,
                                .bytes = (before + tokens) * from_token * ELEMENT,
                                .token_stride = from_token * ELEMENT,
                                .head_stride = from_row * ELEMENT};
    const int64_t most = rng_one_in(rng, 3) ? 1 : rng_one_in(rng, 2) ? tokens : 1 + rng_below(rng, tokens);
    for (int64_t t = 0, n; t < tokens && ok; t += n) {
        n = 1 + rng_below(rng, most);
        if (most == tokens || n > tokens - t) n = tokens - t;
        /* By hand, as tril_convert() stores it; the problem's keys become what that is worth. */
        for (int64_t j = t * heads; j < (t + n) * heads; j++) {
            unsigned char row[MOST_DIM * ELEMENT];
            float *k = problem_k(p, begin + j / heads, j % heads), scale = 0.0f;
            const tril_status status = tril_convert(row, type, type == TRIL_I8 ? &scale : NULL, k, TRIL_F32, NULL, dim);
            if (status != TRIL_OK) ok = broken("tril_convert: %s", tril_status_text(status));
            cache_put(&by_hand, begin + j / heads, j % heads, row, dim, scale);
            decode_row(type, row, scale, dim, k);
        }
        const tril_status status =
            tril_append(&filled.tensor, begin + t, &source, before + t, n, (int32_t)heads, (int32_t)dim);
        if (status != TRIL_OK) ok = broken("tril_append: %s", tril_status_text(status));
        ok = ok && same_cache(&filled, &by_hand);
    }
    ok = ok && attends_alike(p, &filled, tier);
    problem_free(p);
    free(from);
    cache_free(&filled);
    cache_free(&by_hand);
    return ok;
}

static bool append(const struct tiers *tiers)
{
    static const struct {
        tril_dtype type;
        bool panels;
    } forms[] = {{TRIL_F32, false}, {TRIL_F32, true}, {TRIL_F16, false}, {TRIL_F16, true},   {TRIL_BF16, false},
                 {TRIL_BF16, true}, {TRIL_I8, false}, {TRIL_I8, true},   {TRIL_Q8_0, false}, {TRIL_Q4_0, false}};
    const int cases = scaled(600) < 4 * COUNT(forms) ? 4 * COUNT(forms) : scaled(600);
    struct rng rng;
    for (int i = 0; i < cases; i++) {
        if (!case_begin(i, &rng)) continue;
        for (int t = 0; t < tiers->n; t++) {
            struct rng same = rng;
            if (!appends(&same, forms[i % COUNT(forms)].type, forms[i % COUNT(forms)].panels, tiers->name[t]))
                return false;
        }
    }
    return true;
}

/* A cache of any type, filled by tril_append(): every row as tril_convert() makes it, element by element where the
 * header says that it lies, and no other byte changed. */
static bool appends_stored(struct rng *rng, tril_dtype type, bool panels)
{
    const int64_t unit = type_unit(type), heads = 1 + rng_below(rng, 3), tokens = 1 + rng_below(rng, 40);
    const int64_t dim = type_fits(type, 1) ? 1 + rng_below(rng, 70) : 32 * (1 + rng_below(rng, 3));
    const int64_t row = type_row_bytes(type, dim), first = rng_below(rng, 20), at_once = 1 + rng_below(rng, tokens);
    const bool between = type == TRIL_I8 && !panels && rng_one_in(rng, 2); /* each scale behind its row */
    const int64_t behind = (row + ELEMENT - 1) / ELEMENT * ELEMENT;
    const int64_t width = panels ? row * PANEL : row;
    const int64_t head_stride = between ? behind + ELEMENT * (1 + rng_below(rng, 2)) : width + unit * rng_below(rng, 5);
    const int64_t step = heads * head_stride + unit * PANEL * rng_below(rng, 3);
    const int64_t groups = panels ? (first + tokens + PANEL - 1) / PANEL : first + tokens;
    const int64_t all = groups * ((step + PANEL * unit - 1) / (PANEL * unit)) * PANEL * unit;
    struct area codes = area_new((size_t)all, GUARD_AFTER, 0);
    struct area scales = area_new((size_t)((first + tokens) * heads) * sizeof(float), GUARD_AFTER, 0);
    unsigned char *want = malloc(codes.bytes + scales.bytes);
    float *from = floats(tokens * heads * dim);
    if (want == NULL) abort();
    for (int64_t i = 0; i < tokens * heads * dim; i++)
        from[i] = rng_normal(rng);
    memset(codes.data, 0xa5, codes.bytes);
    memset(scales.data, 0xa5, scales.bytes);
    memset(want, 0xa5, codes.bytes + scales.bytes);
    tril_tensor cache = {.data = codes.data,
                         .bytes = (int64_t)codes.bytes,
                         .token_stride = panels ? all / groups / PANEL : all / groups,
                         .head_stride = head_stride,
                         .dtype = type,
                         .layout = panels ? TRIL_PANELS : TRIL_ROWS};
    if (type == TRIL_I8) {
        cache.scales = (const float *)(const void *)scales.data;
        cache.scales_bytes = (int64_t)scales.bytes;
        cache.scale_token_stride = heads * ELEMENT;
        cache.scale_head_stride = ELEMENT;
    }
    if (between) {
        cache.scales = (const float *)(const void *)(codes.data + behind);
        cache.scales_bytes = cache.bytes - behind;
        cache.scale_token_stride = cache.token_stride;
        cache.scale_head_stride = cache.head_stride;
    }
    const tril_tensor source = {.data = from,
                                .bytes = tokens * heads * dim * ELEMENT,
                                .token_stride = heads * dim * ELEMENT,
                                .head_stride = dim * ELEMENT};
    bool ok = true;
    for (int64_t t = 0; t < tokens && ok; t += at_once) {
        const int64_t n = tokens - t < at_once ? tokens - t : at_once;
        const tril_status status = tril_append(&cache, first + t, &source, t, n, (int32_t)heads, (int32_t)dim);
        ok = status == TRIL_OK || broken("tril_append: %s", tril_status_text(status));
    }
    for (int64_t t = first; t < first + tokens && ok; t++) {
        for (int64_t head = 0; head < heads; head++) {
            unsigned char code[4 * 128];
            float scale = 0.0f;
            ok = tril_convert(code, type, &scale, from + ((t - first) * heads + head) * dim, TRIL_F32, NULL, dim) ==
                 TRIL_OK;
            unsigned char *to = want + (panels ? t / PANEL * PANEL : t) * cache.token_stride + head * head_stride;
            for (int64_t i = 0; panels && i < dim; i++)
                memcpy(to + (i * PANEL + t % PANEL) * unit, code + i * unit, (size_t)unit);
            if (!panels) memcpy(to, code, (size_t)row);
            if (type == TRIL_I8)
                memcpy(between ? to + behind : want + codes.bytes + (size_t)((t * heads + head) * ELEMENT), &scale,
                       sizeof scale);
        }
    }
    ok = ok &&
         ((memcmp(want, codes.data, codes.bytes) == 0 && memcmp(want + codes.bytes, scales.data, scales.bytes) == 0) ||
          broken("the cache of %s is not the one laid out by hand", type_name(type)));
    free(want);
    free(from);
    area_free(&codes);
    area_free(&scales);
    return ok;
}

static bool append_stored(const struct tiers *tiers)
{
    const int cases = scaled(300) < 24 ? 24 : scaled(300);
    struct rng rng;
    for (int i = 0; i < cases; i++) {
        const tril_dtype type = (tril_dtype)(i % TRIL_DTYPE_COUNT);
        if (!case_begin(i, &rng)) continue;
        case_describe("append to a cache of %s", type_name(type));
        for (int t = 0; t < tiers->n; t++) {
            struct rng same = rng;
            if (!use_tier(tiers->name[t]) || !appends_stored(&same, type, type_fits(type, 1) && i / 6 % 2 == 0))
                return false;
        }
    }
    return true;
}

static const struct check checks[] = {
    {"blocks_merge", blocks_merge},
    {"minus_zeros", minus_zeros},
    {"many_parts", many_parts},
    {"folded_parts", folded_parts},
    {"one_part", one_part},
    {"empty_parts", empty_parts},
    {"append", append},
    {"append_stored", append_stored},
};
const struct suite suite_merge = {"merge", checks, COUNT(checks)};
