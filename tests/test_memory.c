/* What is invisible is never touched: a page that faults directly behind, then directly before every tensor, the
 * sequences and the workspace; inputs that cannot be written; signalling NaN in every padding, every unused row and
 * token; and no byte changed but the results (run() sees to that in every suite). The bits stay those of the scalar
 * tier with its operands side by side. */
#include "support.h"

#include <stdio.h>

static bool guarded(const struct problem *p, struct placing placing, const char *more, const struct tiers *tiers)
{
    char text[500], place[300];
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
        if (!case_begin(i, &rng)) continue;
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
        if (!case_begin(n, &rng)) continue;
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
        const bool ok = guarded(p, placing_random(&rng), "random", tiers);
        problem_free(p);
        if (!ok) return false;
    }
    return true;
}

static const struct check checks[] = {
    {"every_head_size", every_head_size},
    {"every_tail", every_tail},
    {"random_placings", random_placings},
};
const struct suite suite_memory = {"memory", checks, COUNT(checks)};
