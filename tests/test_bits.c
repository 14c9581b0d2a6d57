/* Every tier gives the bits of the scalar tier: tril_attend, tril_weights in all forms, the row statistics. */
#include "codes.h"

#include <stdio.h>

/* The oracle's operands lie side by side, as floats; each tier's lie as the case says, and are stored so. The scalar
 * tier itself is compared too: where its operands lie, and as what, must not matter. */
static bool as_scalar(const struct problem *p, const struct placing *placing, const char *more,
                      const struct tiers *tiers)
{
    char text[600], place[400];
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

/* As floats, then stored, in one of three cases with options. */
static bool one_problem(struct problem *p, struct rng *rng, const char *more, const struct tiers *tiers)
{
    struct placing placing = placing_random(rng);
    bool ok = as_scalar(p, &placing, more, tiers);
    placing = placing_random(rng);
    placing.stored = true;
    if (rng_one_in(rng, 3)) problem_options_random(p, rng, EVERY_OPTION);
    problem_store_random(p, rng);
    problem_math_random(p, rng);
    ok = ok && as_scalar(p, &placing, more, tiers);
    problem_free(p);
    return ok;
}

/* Head sizes: each one, and the pairs where values have another size. */
static const int dims[][2] = {
    {1, 1},     {2, 3},     {3, 2},     {4, 4},     {5, 5},     {7, 7},     {8, 8},     {9, 9},     {15, 15},
    {16, 16},   {17, 17},   {31, 33},   {32, 32},   {33, 31},   {40, 40},   {47, 49},   {48, 48},   {56, 56},
    {63, 63},   {64, 64},   {65, 65},   {72, 72},   {80, 80},   {96, 96},   {112, 112}, {127, 129}, {128, 128},
    {160, 160}, {192, 128}, {255, 257}, {256, 256}, {320, 256}, {512, 512}, {575, 511}, {576, 512}, {576, 576}};

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
            if (!table_case_begin(index, &rng)) continue;
            int64_t n = lengths[index % COUNT(lengths)];
            const int group = rng_of(&rng, groups);
            if (kind >= PROMPT && n * n * (dims[d][0] + dims[d][1]) * group > 4000000) n = n % 30 + 1;
            if (kind >= PROMPT && n * group <= 12) n += 12 / group + 1; /* not the way of few rows */
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
            if (!table_case_begin(index, &rng)) continue;
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
        if (!table_case_begin(group, &rng)) continue;
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
        if (!short_table_case_begin(i, COUNT(shapes), 2, &rng)) continue;
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
        if (!short_table_case_begin(i, 3, 1, &rng)) continue;
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
        if (!table_case_begin(i, &rng)) continue;
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

static void fill_from(struct rng *rng, const float *from, int n, float *to, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        to[i] = from[rng_below(rng, n)] * (rng_one_in(rng, 2) ? -1.0f : 1.0f);
}

/* Math mode BF16 where sums end around 2^-126, below which they become 0: just below it, on it, and on it only because
 * a subnormal's step is coarse, such as 2^-126 - 2^-150. A large scale makes them count. So few sums in every other
 * case that one of them may be the only one of a tile. Values that not all rows see are infinite. */
static bool least_sums(const struct tiers *tiers)
{
    static const float factors[] = {0x1p-63f, 0x1p-63f, 0x1p-62f, 0x1p-64f, 0x1.02p-63f, 0x1p-75f, 0x1p-80f, 0.0f};
    static const float least[] = {0x1p-126f, 0x1p-125f, 0x1.02p-126f, 0x1.fep-126f, 0x1p-127f, 0x1p-133f, 0.0f, 1.0f};
    struct rng rng;
    for (int i = 0; i < 80; i++) {
        if (!short_table_case_begin(i, 80, 8, &rng)) continue;
        const bool small = i % 2 == 1;
        const int most = small ? 3 : 20, heads = small ? 1 : 3, kinds = COUNT(least) - i / 2 % 2;
        struct problem *p =
            problem_new(heads, i % 4 == 0 ? 1 : heads, 1 + (int)rng_below(&rng, most), 1 + (int)rng_below(&rng, most));
        p->math = TRIL_MATH_BF16;
        p->scale = i % 3 == 0 ? 0x1p122f : 0x1p126f;
        problem_seq(p, 0, 1 + rng_below(&rng, most), 0, 1 + rng_below(&rng, small ? 3 : 300));
        problem_seq(p, 0, 1 + rng_below(&rng, most), 0, 1 + rng_below(&rng, most));
        problem_fill(p, &rng, NORMAL);
        fill_from(&rng, factors, COUNT(factors), p->q, p->q_tokens * p->q_heads * p->qk_dim);
        fill_from(&rng, factors, COUNT(factors), p->k, p->kv_tokens * p->kv_heads * p->qk_dim);
        fill_from(&rng, least, kinds, p->v, p->kv_tokens * p->kv_heads * p->v_dim);
        const int64_t unseen = p->seqs[0].kv_len - 1 - rng_below(&rng, p->seqs[0].q_len);
        for (int j = 0; i % 4 < 2 && unseen >= 0 && j < p->kv_heads * p->v_dim; j++)
            problem_v(p, p->seqs[0].kv_first + unseen, 0)[j] = __builtin_inff();
        const struct placing placing = placing_random(&rng);
        const bool ok = as_scalar(p, &placing, "least sums", tiers);
        problem_free(p);
        if (!ok) return false;
    }
    return true;
}

/* Every type of keys with every type of values in every kind of call; the queries' and the output's types in turn. */
static bool stored_types(const struct tiers *tiers)
{
    static const int sizes[][2] = {{64, 128}, {96, 32}, {128, 64}, {32, 96}};
    int index = 0;
    struct rng rng;
    for (tril_dtype k = TRIL_F32; k < TRIL_DTYPE_COUNT; k++) {
        for (tril_dtype v = TRIL_F32; v < TRIL_DTYPE_COUNT; v++) {
            for (enum queries kind = TOKEN; kind <= PROMPT; kind++, index++) {
                if (!table_case_begin(index, &rng)) continue;
                const int64_t n = kind == PROMPT ? 20 + rng_below(&rng, 60) : rng_of(&rng, lengths);
                const int turn = index + (int)k + (int)v, kv_heads = 1 + (int)rng_below(&rng, 2);
                struct problem *p = problem_new(kv_heads * (1 + (int)rng_below(&rng, 8)), kv_heads,
                                                sizes[turn % COUNT(sizes)][0], sizes[turn % COUNT(sizes)][1]);
                problem_seq(p, 0, queries_of(kind, n, &rng), rng_below(&rng, 5), n);
                problem_fill(p, &rng, NORMAL);
                problem_store(p, (tril_dtype)(turn % 3), k, v);
                if (rng_one_in(&rng, 2)) problem_scramble(p, &rng, false);
                struct placing placing = placing_random(&rng);
                placing.stored = true;
                placing.out_type = (tril_dtype)((turn / 3 + (int)kind) % 3);
                const bool ok = as_scalar(p, &placing, queries_name[kind], tiers);
                problem_free(p);
                if (!ok) return false;
            }
        }
    }
    return true;
}

/* One sequence, or several whose lengths and kinds of calls differ. */
static struct problem *one_or_ragged(struct rng *rng, enum queries kind, int64_t n, bool ragged)
{
    const int kv_heads = 1 + (int)rng_below(rng, 2), dim = rng_one_in(rng, 2) ? 32 : 1 + (int)rng_below(rng, 40);
    struct problem *p = problem_new(kv_heads * (1 + (int)rng_below(rng, 5)), kv_heads, dim,
                                    rng_one_in(rng, 2) ? dim : 1 + (int)rng_below(rng, 40));
    problem_seq(p, 0, queries_of(kind, n, rng), 0, n);
    const int others = ragged ? 4 + (int)rng_below(rng, MAX_SEQS - 4) : 0;
    for (int i = 0; i < others; i++) {
        const int64_t other = i == 0 ? n / 2 + 1 : 1 + rng_of(rng, lengths) % 300;
        problem_seq(p, rng_below(rng, 3), queries_of((enum queries)rng_below(rng, QUERIES), other, rng), 0, other);
    }
    problem_fill(p, rng, NORMAL);
    return p;
}

static bool pages(const struct tiers *tiers)
{
    static const int sizes[] = {16, 32, 64, 256};
    int index = 0;
    struct rng rng;
    for (int size = 0; size < COUNT(sizes); size++) {
        for (enum queries kind = TOKEN; kind <= PROMPT; kind++) {
            for (int ragged = 0; ragged < 2; ragged++, index++) {
                if (!table_case_begin(index, &rng)) continue;
                const int64_t n = kind == PROMPT ? sizes[size] + rng_below(&rng, 40) : rng_of(&rng, lengths);
                struct problem *p = one_or_ragged(&rng, kind, n, ragged != 0);
                if (rng_one_in(&rng, 2)) problem_store_random(p, &rng);
                if (rng_one_in(&rng, 3)) problem_options_random(p, &rng, EVERY_OPTION);
                struct placing placing = placing_random(&rng);
                placing.stored = true;
                placing.page = sizes[size];
                const bool ok = as_scalar(p, &placing, ragged != 0 ? "ragged" : queries_name[kind], tiers);
                problem_free(p);
                if (!ok) return false;
            }
        }
    }
    return true;
}

/* The same page twice in a table, and in the tables of two sequences. */
static bool shared_pages(const struct tiers *tiers)
{
    static const int sizes[] = {16, 48, 64, 256};
    struct rng rng;
    for (int i = 0; i < 2 * COUNT(sizes); i++) {
        if (!table_case_begin(i, &rng)) continue;
        const int page = sizes[i % COUNT(sizes)];
        struct problem *p = problem_new(4, 2, i % 3 == 0 ? 32 : 21, i % 3 == 1 ? 64 : 10);
        problem_seq(p, 0, 3 + rng_below(&rng, 2 * page), 0, 2 * page + rng_below(&rng, 40));
        problem_seq(p, 1, 1, 3, page + 1 + rng_below(&rng, 2 * page));
        problem_fill(p, &rng, NORMAL);
        problem_store_random(p, &rng);
        for (int s = 0; s < p->n_seqs; s++) {
            const tril_seq *seq = &p->seqs[s];
            for (int64_t j = 0; j < seq->kv_len && j < 2 * page; j++) {
                problem_copy_tokens(p, OF_K, seq->kv_first + j, p, p->seqs[0].kv_first + j % page, 1);
                problem_copy_tokens(p, OF_V, seq->kv_first + j, p, p->seqs[0].kv_first + j % page, 1);
            }
        }
        struct placing placing = placing_random(&rng);
        placing.stored = true;
        placing.page = page;
        placing.shared_pages = 2;
        const bool ok = as_scalar(p, &placing, "shared pages", tiers);
        problem_free(p);
        if (!ok) return false;
    }
    return true;
}

/* Pages one behind the other: what they hold lies as without pages, or not quite, and scales lie apart from it. */
static bool adjacent_pages(const struct tiers *tiers)
{
    static const tril_dtype types[] = {TRIL_F32, TRIL_F16, TRIL_I8, TRIL_I8, TRIL_Q8_0, TRIL_Q4_0};
    struct rng rng;
    for (int i = 0; i < 4 * COUNT(types); i++) {
        if (!table_case_begin(i, &rng)) continue;
        struct problem *p = problem_new(4, 2, 32, 32 * (1 + (int)rng_below(&rng, 3)));
        problem_seq(p, 0, 1 + rng_below(&rng, 3), 0, 40 + rng_below(&rng, 300));
        problem_fill(p, &rng, NORMAL);
        problem_store(p, TRIL_F32, types[i % COUNT(types)], types[i % COUNT(types)]);
        struct placing placing = placing_random(&rng);
        placing.stored = true;
        placing.panels = false;
        placing.page = rng_one_in(&rng, 2) ? 16 : 32;
        placing.page_by_page = true;
        placing.k = placing.v = placing.scales = (struct place){.offset = 0};
        if (i / COUNT(types) % 2 == 1) placing.v.block_pad = 1 + (int)rng_below(&rng, 3);
        if (i / COUNT(types) / 2 == 1) placing.scales.block_pad = 1 + (int)rng_below(&rng, 3);
        const bool ok = as_scalar(p, &placing, "adjacent pages", tiers);
        problem_free(p);
        if (!ok) return false;
    }
    return true;
}

/* Few rows of halves whose tokens lie a multiple of 2 KiB apart: with up to four rows of a head, heads go two by two.
 */
static bool crowded_halves(const struct tiers *tiers)
{
    static const int kv_heads[] = {2, 3, 5, 8}, counts[] = {1, 15, 16, 17, 31, 48, 70, 256, 300, 530},
                     sizes[] = {32, 64, 96};
    struct rng rng;
    for (int i = 0; i < 2 * 4 * COUNT(kv_heads); i++) {
        if (!table_case_begin(i, &rng)) continue;
        const int heads = kv_heads[i / 8], rows = 1 + i / 2 % 4, qk_dim = rng_of(&rng, sizes);
        const int queries = rows % 2 == 0 && rng_one_in(&rng, 2) ? 2 : 1;
        struct problem *p = problem_new(heads * rows / queries, heads, qk_dim, rng_of(&rng, sizes));
        problem_seq(p, rng_below(&rng, 3), queries, 0, queries + rng_of(&rng, counts));
        problem_fill(p, &rng, NORMAL);
        problem_store(p, TRIL_F32, i % 2 == 0 ? TRIL_F16 : TRIL_BF16, TRIL_F16);
        struct placing placing = placing_random(&rng);
        placing.stored = true;
        placing.panels = false;
        placing.k.head_major = false;
        placing.k.crowded = true;
        const bool ok = as_scalar(p, &placing, "crowded", tiers);
        problem_free(p);
        if (!ok) return false;
    }
    return true;
}

static const struct check checks[] = {
    {"least_sums", least_sums},
    {"head_sizes", head_sizes},
    {"sequence_lengths", sequence_lengths},
    {"heads", heads},
    {"long_rows", long_rows},
    {"many_tasks", many_tasks},
    {"large_weights", large_weights},
    {"values", values},
    {"stored_types", stored_types},
    {"pages", pages},
    {"shared_pages", shared_pages},
    {"adjacent_pages", adjacent_pages},
    {"crowded_halves", crowded_halves},
};
const struct suite suite_bits = {"bits", checks, COUNT(checks)};
