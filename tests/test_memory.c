/* What is invisible is never touched: a page that faults directly behind, then directly before every tensor, the
 * sequences, what options need and the workspace; inputs that cannot be written; signalling NaN in every padding, every
 * unused row and every token that no query sees; and no byte changed but the results (run() sees to that in every
 * suite). The bits stay those of the scalar tier with its operands side by side. */
#include "codes.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static bool guarded(const struct problem *p, struct placing placing, const char *more, const struct tiers *tiers)
{
    char text[600], place[400];
    for (enum operation operation = ATTEND; operation < OPERATIONS; operation++) {
        snprintf(text, sizeof text, "%s, %s, oracle", operation_name(operation), more);
        problem_describe(p, text);
        struct result *want = run(p, &contiguous, operation, "scalar");
        bool ok = want != NULL;
        for (int i = 0; i < tiers->n && ok; i++) {
            for (enum guard guard = GUARD_AFTER; guard <= GUARD_BEFORE && ok; guard++) {
                placing.guard = guard;
                placing_describe(&placing, place, sizeof place);
                snprintf(text, sizeof text, "%s, %s, page %s, %s", operation_name(operation), more,
                         guard == GUARD_AFTER ? "after" : "before", place);
                problem_describe(p, text);
                struct result *got = run(p, &placing, operation, tiers->name[i]);
                ok = got != NULL && same_result(got, want, operation_name(operation));
                result_free(got);
                if (!ok || operation != ATTEND || p->qk_dim != p->v_dim) continue;
                placing.in_place = true;
                got = run(p, &placing, operation, tiers->name[i]);
                ok = got != NULL && same_result(got, want, "in place");
                result_free(got);
                placing.in_place = false;
            }
        }
        result_free(want);
        if (!ok) return false;
    }
    return true;
}

/* Every head size up to four vectors of the widest tier and around larger multiples, with few keys and with a key block
 * and a bit; side by side, where a row's end is its head's end. */
static bool every_head_size(const struct tiers *tiers)
{
    static const int larger[] = {79, 80, 81, 95, 97, 127, 128, 129, 255, 257, 511, 577};
    struct rng rng;
    for (int i = 0; i < 66 + COUNT(larger); i++) {
        if (!table_case_begin(i, &rng)) continue;
        const int dim = i < 66 ? i + 1 : larger[i - 66];
        struct problem *p = problem_new(2, rng_one_in(&rng, 2) ? 1 : 2, dim, dim);
        const int64_t kv_len = i % 2 == 0 ? 1 + rng_below(&rng, 40) : 250 + rng_below(&rng, 30);
        problem_seq(p, 0, 1 + rng_below(&rng, kv_len < 9 ? kv_len : 9), 0, kv_len);
        problem_fill(p, &rng, NORMAL);
        struct placing placing = contiguous;
        placing.q.head_major = placing.k.head_major = placing.v.head_major = placing.out.head_major = i % 2 == 0;
        placing.panels = rng_one_in(&rng, 3);
        const bool ok = guarded(p, placing, "head size", tiers);
        problem_free(p);
        if (!ok) return false;
    }
    return true;
}

/* Every number of keys of the last vector and panel, the values' size different from the keys'. */
static bool every_tail(const struct tiers *tiers)
{
    struct rng rng;
    for (int n = 1; n <= 34; n++) {
        if (!table_case_begin(n, &rng)) continue;
        struct problem *p = problem_new(3, 1, 1 + (int)rng_below(&rng, 20), 1 + (int)rng_below(&rng, 36));
        problem_seq(p, 0, n, 0, n);
        problem_seq(p, 0, 1, 0, 256 + n);
        problem_fill(p, &rng, NORMAL);
        struct placing panels = contiguous;
        panels.panels = true;
        const bool ok = guarded(p, contiguous, "tail", tiers) && guarded(p, panels, "tail", tiers);
        problem_free(p);
        if (!ok) return false;
    }
    return true;
}

static bool random_placings(const struct tiers *tiers)
{
    const int cases = scaled(60);
    struct rng rng;
    for (int i = 0; i < cases; i++) {
        if (!case_begin(i, &rng)) continue;
        struct problem *p = problem_random(&rng, 3e5, i % 3 == 0 ? ANY : NORMAL);
        if (i % 2 == 0) problem_options_random(p, &rng, EVERY_OPTION);
        problem_store_random(p, &rng);
        problem_math_random(p, &rng);
        struct placing placing = placing_random(&rng);
        placing.poisoned = true;
        const bool ok = guarded(p, placing, "random", tiers);
        problem_free(p);
        if (!ok) return false;
    }
    return true;
}

/* Every type of K and V in rows and panels, without pages and with, side by side: an odd number of bytes where the type
 * allows it, the last page full and not, scales behind which nothing is. */
static bool stored_ends(const struct tiers *tiers)
{
    static const int pages[] = {0, 16, 64, 0, 256, 272}, odd[] = {1, 7, 13, 21, 33, 63, 65};
    int index = 0;
    struct rng rng;
    for (tril_dtype type = TRIL_F32; type < TRIL_DTYPE_COUNT; type++) {
        for (int i = 0; i < 12; i++, index++) {
            if (!table_case_begin(index, &rng)) continue;
            const int dim = type_fits(type, 1) ? rng_of(&rng, odd) : 32 * (1 + i % 3);
            struct problem *p = problem_new(2, i % 4 < 2 ? 1 : 2, dim, dim);
            const int64_t kv_len = 16 * (1 + rng_below(&rng, 20)) + (i % 3 == 0 ? 0 : rng_below(&rng, 16));
            problem_seq(p, 0, 1 + rng_below(&rng, 9), 0, kv_len);
            problem_seq(p, 0, i % 3, 0, 1 + rng_below(&rng, 30));
            problem_fill(p, &rng, NORMAL);
            problem_store(p, (tril_dtype)(i % 3), type, type);
            if (i % 4 == 3) problem_scramble(p, &rng, false);
            problem_math_random(p, &rng);
            struct placing placing = contiguous;
            placing.stored = true;
            placing.out_type = (tril_dtype)(i / 2 % 3);
            placing.k.head_major = placing.v.head_major = placing.scales.head_major = rng_one_in(&rng, 2);
            placing.panels = i % 2 == 1;
            placing.page = pages[i % COUNT(pages)];
            placing.page_seed = (uint32_t)rng_next(&rng);
            const bool ok = guarded(p, placing, "stored", tiers);
            problem_free(p);
            if (!ok) return false;
        }
    }
    return true;
}

static bool page_refused(struct placed *x, const char *tier)
{
    size_t bytes;
    if (!use_tier(tier)) return false;
    const tril_status sized = tril_workspace(&x->call, 1, &bytes);
    if (sized != TRIL_OK) return broken("tril_workspace: %s", tril_status_text(sized));
    struct area workspace = area_new(bytes, GUARD_AFTER, 0);
    const tril_status status = x->operation == ATTEND ? tril_attend(&x->call, workspace.data, bytes)
                                                      : tril_weights(&x->call, &x->weights, workspace.data, bytes);
    const bool ok =
        status == TRIL_ERR_BLOCK_TABLE || broken("one page less than its tables ask for: status %d", status);
    area_free(&workspace);
    return ok && placed_untouched(x);
}

/* Whichever sequence has the last of the pages: where there is one page less, nothing is computed. */
static bool no_such_page(const struct tiers *tiers)
{
    struct rng rng;
    for (int i = 0; i < 6; i++) {
        if (!case_begin(i, &rng)) continue;
        struct problem *p = problem_new(2, 1, 8, 8);
        problem_seq(p, 0, 1 + i, 0, 20 + 9 * i);
        problem_seq(p, 0, i % 2, 0, 40);
        problem_fill(p, &rng, NORMAL);
        struct placing placing = contiguous;
        placing.page = 16;
        placing.page_seed = (uint32_t)rng_next(&rng);
        bool ok = true;
        for (int t = 0; t < tiers->n && ok; t++) {
            struct placed *x = placed_new(p, &placing, (enum operation)(i % OPERATIONS));
            int32_t last = 0;
            for (int s = 0; s < p->n_seqs; s++) {
                const int32_t *table = x->call.seqs[s].blocks;
                for (int64_t j = 0; j < (int64_t)(x->pages.tables[s].bytes / sizeof *table); j++)
                    last = table[j] > last ? table[j] : last;
            }
            x->call.n_blocks = last;
            problem_describe(p, "a page too few");
            ok = page_refused(x, tiers->name[t]);
            placed_free(x);
        }
        problem_free(p);
        if (!ok) return false;
    }
    return true;
}

/* Keys and values that have left every window: each token has a page of memory to itself, and where no query sees any
 * of 16 of them their pages may not be read. */
#define LEFT_KEYS 700
#define LEFT_ROWS 40
#define LEFT_DIM  8

static bool left_behind_by(const struct tiers *tiers, int64_t queries, int64_t window, int64_t sinks, float *k,
                           float *v, int64_t page)
{
    const int64_t row = LEFT_DIM * (int64_t)sizeof(float), begin = LEFT_KEYS - queries - window + 1;
    static float q[LEFT_ROWS * LEFT_DIM], out[LEFT_ROWS * LEFT_DIM], a[LEFT_ROWS * LEFT_KEYS];
    const tril_seq seq = {.q_len = queries, .kv_len = LEFT_KEYS};
    tril_tensor in = {.bytes = LEFT_KEYS * page, .token_stride = page, .head_stride = row};
    tril_attention call = {.struct_size = sizeof call,
                           .q_heads = 1,
                           .kv_heads = 1,
                           .qk_dim = LEFT_DIM,
                           .v_dim = LEFT_DIM,
                           .seqs = &seq,
                           .n_seqs = 1,
                           .window = window,
                           .sink_tokens = sinks};
    call.q = (tril_tensor){.data = q, .bytes = sizeof q, .token_stride = row, .head_stride = row};
    call.out = (tril_out){.data = out, .bytes = sizeof out, .token_stride = row, .head_stride = row};
    call.k = call.v = in;
    call.k.data = k;
    call.v.data = v;
    const tril_weights_out to = {.struct_size = sizeof to,
                                 .data = a,
                                 .bytes = sizeof a,
                                 .head_stride = sizeof a,
                                 .row_stride = LEFT_KEYS * (int64_t)sizeof(float)};
    for (int64_t first = 0; first < LEFT_KEYS; first += 16) {
        const int64_t n = LEFT_KEYS - first < 16 ? LEFT_KEYS - first : 16;
        const bool seen = first < sinks || first + n > begin;
        for (int i = 0; i < 2; i++) {
            if (mprotect((char *)(i == 0 ? k : v) + first * page, (size_t)(n * page), seen ? PROT_READ : PROT_NONE) !=
                0)
                return broken("cannot protect the keys");
        }
    }
    for (int t = 0; t < tiers->n; t++) {
        size_t bytes;
        case_describe("%d queries, window %d, sinks %d", (int)queries, (int)window, (int)sinks);
        case_tier(tiers->name[t]);
        if (!use_tier(tiers->name[t])) return false;
        if (tril_workspace(&call, 1, &bytes) != TRIL_OK) return broken("no workspace");
        void *workspace = malloc(bytes);
        const bool ok =
            tril_attend(&call, workspace, bytes) == TRIL_OK && tril_weights(&call, &to, workspace, bytes) == TRIL_OK;
        free(workspace);
        if (!ok) return broken("refused");
    }
    return true;
}

static bool left_behind(const struct tiers *tiers)
{
    static const struct {
        int64_t queries, window, sinks;
    } cases[] = {{1, 20, 0}, {1, 300, 5}, {1, 1, 40}, {LEFT_ROWS, 20, 0}, {LEFT_ROWS, 300, 5}, {LEFT_ROWS, 200, 290}};
    const int64_t page = sysconf(_SC_PAGESIZE);
    const size_t bytes = (size_t)(LEFT_KEYS * page);
    float *cache[2];
    struct rng rng;
    bool ok = case_begin(0, &rng);
    if (!ok) return true;
    for (int i = 0; i < 2; i++) {
        cache[i] = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (cache[i] == MAP_FAILED) return broken("no memory");
    }
    for (int i = 0; i < COUNT(cases) && ok; i++)
        ok = left_behind_by(tiers, cases[i].queries, cases[i].window, cases[i].sinks, cache[0], cache[1], page);
    munmap(cache[0], bytes);
    munmap(cache[1], bytes);
    return ok;
}

static const struct check checks[] = {
    {"left_behind", left_behind}, {"every_head_size", every_head_size}, {"every_tail", every_tail},
    {"stored_ends", stored_ends}, {"no_such_page", no_such_page},       {"random_placings", random_placings},
};
const struct suite suite_memory = {"memory", checks, COUNT(checks)};
