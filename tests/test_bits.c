/* Every tier gives the bits of the scalar tier: tril_attend, tril_weights in both forms, the row statistics. */
#include "support.h"

#include <stdio.h>

/* The oracle's operands lie side by side; each tier's lie as the case says. The scalar tier itself is compared too:
 * where its operands lie must not matter. */
static bool as_scalar(const struct problem *p, const struct placing *placing, const char *more,
                      const struct tiers *tiers)
{
    char text[500], place[300];
    for (enum operation operation = ATTEND; operation < OPERATIONS; operation++) {
        placing_describe(placing, place, sizeof place);
        snprintf(text, sizeof text, "%s, %s, %s", operation_name(operation), more, place);
        problem_describe(p, text);
        struct result *want = run(p, &contiguous, operation, "scalar");
        bool ok = want != NULL;
        for (int i = 0; i < tiers->n && ok; i++) {
            struct result *got = run(p, placing, operation, tiers->name[i]);
            ok = got != NULL && same_result(got, want, operation_name(operation));
            result_free(got);
        }
        result_free(want);
        if (!ok) return false;
    }
    return true;
}

static bool one_problem(struct problem *p, struct rng *rng, const char *more, const struct tiers *tiers)
{
    const struct placing placing = placing_random(rng);
    const bool ok = as_scalar(p, &placing, more, tiers);
    problem_free(p);
    return ok;
}

/* Head sizes: each one, and the pairs where values have another size. */
static const int dims[][2] = {{1, 1},     {2, 3},     {3, 2},     {4, 4},     {5, 5},     {7, 7},     {8, 8},
                              {9, 9},     {15, 15},   {16, 16},   {17, 17},   {31, 33},   {32, 32},   {33, 31},
                              {40, 40},   {47, 49},   {48, 48},   {63, 63},   {64, 64},   {65, 65},   {80, 80},
                              {96, 96},   {112, 112}, {127, 129}, {128, 128}, {160, 160}, {192, 128}, {255, 257},
                              {256, 256}, {320, 256}, {512, 512}, {575, 511}, {576, 512}, {576, 576}};

/* Around the lanes, the panels and the blocks. */
static const int lengths[] = {1,   2,   3,   5,   8,   15,  16,  17,   31,   33,  255,
                              256, 257, 272, 511, 512, 513, 769, 1023, 1024, 1025};

enum queries { TOKEN, CHUNK, PROMPT, SURPLUS, QUERIES };
static const char *const queries_name[QUERIES] = {"token", "chunk", "prompt", "more queries than keys"};

static int64_t queries_of(enum queries kind, int64_t kv_len, struct rng *rng)
{
    switch (kind) {
    case TOKEN: return 1;
    case CHUNK: return 1 + rng_below(rng, kv_len < 24 ? kv_len : 24);
    case PROMPT: return kv_len;
    default: return kv_len + 1 + rng_below(rng, 9);
    }
}

/* Every head size with every kind of call, the lengths in turn; whole prompts where they are cheap enough. */
static bool head_sizes(const struct tiers *tiers)
{
    static const int groups[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16};
    int index = 0;
    struct rng rng;
    for (int d = 0; d < COUNT(dims); d++) {
        for (int kind = TOKEN; kind < QUERIES; kind++, index++) {
            if (!case_begin(index, &rng)) continue;
            int64_t n = lengths[index % COUNT(lengths)];
            const int group = rng_of(&rng, groups);
            if (kind >= PROMPT && n * n * (dims[d][0] + dims[d][1]) * group > 4000000) n = n % 30 + 1;
            struct problem *p = problem_new(group, 1, dims[d][0], dims[d][1]);
            problem_seq(p, 0, queries_of((enum queries)kind, n, &rng), 0, n);
            problem_fill(p, &rng, NORMAL);
            if (!one_problem(p, &rng, queries_name[kind], tiers)) return false;
        }
    }
    return true;
}

/* Every length as a prompt, a chunk, a token, and with queries to spare, at a small head size. */
static bool sequence_lengths(const struct tiers *tiers)
{
    static const int small[] = {1, 3, 4, 8, 13, 16, 20};
    int index = 0;
    struct rng rng;
    for (int n = 0; n < COUNT(lengths); n++) {
        for (int kind = TOKEN; kind < QUERIES; kind++, index++) {
            if (!case_begin(index, &rng)) continue;
            const int heads = lengths[n] < 100 ? 6 : 1;
            struct problem *p =
                problem_new(heads, rng_one_in(&rng, 2) ? 1 : heads, rng_of(&rng, small), rng_of(&rng, small));
            problem_seq(p, 0, queries_of((enum queries)kind, lengths[n], &rng), 0, lengths[n]);
            problem_fill(p, &rng, NORMAL);
            if (!one_problem(p, &rng, queries_name[kind], tiers)) return false;
        }
    }
    return true;
}

/* 1 to 16 query heads per K/V head, which make rows of one tile see different numbers of keys. */
static bool heads(const struct tiers *tiers)
{
    struct rng rng;
    for (int group = 1; group <= 16; group++) {
        if (!case_begin(group, &rng)) continue;
        struct problem *p = problem_new(group * 2, 2, 24, 20);
        problem_seq(p, 0, 21, 0, 270);
        problem_seq(p, 1, 40, 2, 40);
        problem_fill(p, &rng, NORMAL);
        if (!one_problem(p, &rng, "grouped heads", tiers)) return false;
    }
    return true;
}

/* Long rows: many folds. A few queries at 4096 keys, and a head of the largest size. */
static bool long_rows(const struct tiers *tiers)
{
    static const struct {
        int group, qk_dim, v_dim, q_len, kv_len;
    } shapes[] = {{2, 16, 16, 3, 4095},   {1, 64, 64, 2, 4096},    {1, 17, 5, 5, 4097},   {3, 5, 6, 9, 2049},
                  {4, 128, 128, 1, 4100}, {1, 1024, 1024, 5, 300}, {3, 1023, 1009, 2, 40}};
    struct rng rng;
    for (int i = 0; i < COUNT(shapes); i++) {
        if (!case_begin(i, &rng)) continue;
        struct problem *p = problem_new(shapes[i].group, 1, shapes[i].qk_dim, shapes[i].v_dim);
        problem_seq(p, 0, shapes[i].q_len, 0, shapes[i].kv_len);
        problem_fill(p, &rng, i % 2 == 0 ? NORMAL : PEAKED);
        if (!one_problem(p, &rng, "long", tiers)) return false;
    }
    return true;
}

/* A task of more query rows than any tier takes at once, at both sides of a key block's end. */
static bool many_tasks(const struct tiers *tiers)
{
    struct rng rng;
    for (int i = 0; i < 3; i++) {
        if (!case_begin(i, &rng)) continue;
        struct problem *p = problem_new(i == 0 ? 1 : 8, i == 2 ? 2 : 1, 8, 12);
        problem_seq(p, 0, i == 0 ? 700 : 150, 0, i == 0 ? 700 : 290);
        problem_fill(p, &rng, NORMAL);
        if (!one_problem(p, &rng, "many tasks", tiers)) return false;
    }
    return true;
}

/* Weights of several megabytes, which a tier may store past the caches, at any alignment of a row. */
static bool large_weights(const struct tiers *tiers)
{
    struct rng rng;
    for (int i = 0; i < 3; i++) {
        if (!case_begin(i, &rng)) continue;
        struct problem *p = problem_new(4, i == 2 ? 4 : 1, 3, 2);
        problem_seq(p, 0, i == 1 ? 300 : 530 + i, 0, i == 1 ? 1100 : 530);
        problem_seq(p, 1, 5, 0, 18);
        problem_fill(p, &rng, NORMAL);
        if (!one_problem(p, &rng, "large weights", tiers)) return false;
    }
    return true;
}

/* Each kind of values in random calls of several sequences. */
static bool values(const struct tiers *tiers)
{
    const int each = scaled(14);
    struct rng rng;
    for (int i = 0; i < each * VALUES_COUNT; i++) {
        if (!case_begin(i, &rng)) continue;
        const enum values kind = (enum values)(i % VALUES_COUNT);
        struct problem *p = problem_random(&rng, 1.5e6, kind);
        if (!one_problem(p, &rng, values_name(kind), tiers)) return false;
    }
    return true;
}

static const struct check checks[] = {
    {"head_sizes", head_sizes}, {"sequence_lengths", sequence_lengths}, {"heads", heads},   {"long_rows", long_rows},
    {"many_tasks", many_tasks}, {"large_weights", large_weights},       {"values", values},
};
const struct suite suite_bits = {"bits", checks, COUNT(checks)};
