/* A team's bits are those of one thread: for any number of threads, whenever each of them comes and whether it comes at
 * all, call after call in a workspace that was zeroed once. The program runs every tier as it is and with pauses
 * between the tasks (yielding.c). */
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatch.h"

static const int counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 33};

/* In how many calls of this check the first thread at work waited for a second one, and in how many that came. */
static int waited, shared;

/* Before a call and after it. Every second one waits, and each until there was one that could. */
static void watch_workers(const struct team *team)
{
    workers_ask(waited == 0 || team->seed % 2 == 0);
}

static void count_workers(void)
{
    const struct crew crew = workers();
    waited += crew.waited;
    shared += crew.waited && crew.workers > 1;
}

static bool pauses(const char *tier)
{
    return strncmp(tier, "yielding_", 9) == 0;
}

/* Threads at once, each after a pause of its own. */
static struct team team_at_once(struct rng *rng, int threads)
{
    return (struct team){.threads = threads, .seed = rng_next(rng), .number = rng_below(rng, 3)};
}

static bool same_as(const struct problem *p, const struct placing *placing, enum operation operation, const char *more,
                    const char *tier, const struct result *want)
{
    char text[600], place[400];
    placing_describe(placing, place, sizeof place);
    snprintf(text, sizeof text, "%s, %s, %s", operation_name(operation), more, place);
    problem_describe(p, text);
    watch_workers(&placing->team);
    struct result *got = run(p, placing, operation, tier);
    count_workers();
    const bool ok = got != NULL && same_result(got, want, operation_name(operation));
    result_free(got);
    return ok;
}

/* One problem, every operation and tier, by teams of several sizes, `first` and more of the list. */
static bool by_teams(const struct problem *p, struct rng *rng, int first, int n, const char *more,
                     const struct tiers *tiers)
{
    bool ok = true;
    for (enum operation operation = ATTEND; operation < OPERATIONS && ok; operation++) {
        problem_describe(p, "oracle");
        struct result *want = run(p, &contiguous, operation, "scalar");
        ok = want != NULL;
        for (int t = 0; t < tiers->n && ok; t++) {
            struct rng same = *rng;
            for (int i = 0; i < n && ok; i++) {
                struct placing placing = placing_random(&same);
                placing.team = team_at_once(&same, counts[(first + i) % COUNT(counts)]);
                ok = same_as(p, &placing, operation, more, tiers->name[t], want);
                if (!ok || operation != ATTEND || p->qk_dim != p->v_dim) continue;
                placing.in_place = true;
                ok = same_as(p, &placing, operation, "in place", tiers->name[t], want);
            }
        }
        result_free(want);
    }
    return ok;
}

/* Where tiers pause, calls must have been shared, or the check has not seen a team. */
static bool were_shared(const struct tiers *tiers)
{
    bool expected = false;
    for (int t = 0; t < tiers->n; t++)
        expected = expected || pauses(tiers->name[t]);
    return !expected || (waited > 0 && shared == waited) ||
           broken("of %d calls in which a thread waited for another one only %d were shared", waited, shared);
}

static bool thread_counts(const struct tiers *tiers)
{
    const int cases = scaled(40) < 6 ? 6 : scaled(40);
    struct rng rng;
    waited = shared = 0;
    for (int i = 0; i < cases; i++) {
        if (!case_begin(i, &rng)) continue;
        const enum values kind = (enum values)(i % VALUES_COUNT);
        struct problem *p = problem_random(&rng, 3e5, kind);
        if (i % 2 == 1) problem_options_random(p, &rng, EVERY_OPTION);
        problem_store_random(p, &rng);
        const bool ok = by_teams(p, &rng, i * 3, 3, values_name(kind), tiers);
        problem_free(p);
        if (!ok) return false;
    }
    return were_shared(tiers);
}

/* Whether a team splits the keys of this call. */
static bool splits(const struct problem *p, int threads, const char *tier)
{
    struct tril_plan plan;
    struct placed *x = placed_new(p, &contiguous, ATTEND);
    const bool ok = use_tier(tier) &&
                    tril_plan_make(&plan, &x->call, NULL, &tril_kernels_in_use()->blocking, threads) &&
                    plan.areas > plan.states;
    placed_free(x);
    return ok || broken("%d threads do not split this call over keys: it tests nothing", threads);
}

/* Few tasks: one or two K/V heads, few queries, many keys. Then again with options, of which a row may see nothing of
 * some parts; a window may leave too few keys to split. */
static bool long_rows(const struct tiers *tiers)
{
    static const struct {
        int group, kv_heads, qk_dim, v_dim, q_len, kv_len;
    } shapes[] = {
        {1, 1, 8, 8, 1, 5000},   {1, 1, 16, 17, 1, 4097}, {8, 1, 5, 5, 1, 3000},  {4, 1, 12, 20, 8, 2049},
        {2, 1, 33, 9, 3, 1025},  {1, 2, 7, 7, 5, 2500},   {3, 1, 16, 16, 8, 700}, {16, 1, 4, 4, 2, 1100},
        {1, 1, 3, 40, 30, 1500}, {5, 1, 6, 6, 20, 600},   {1, 1, 2, 2, 4, 257},   {2, 1, 8, 8, 40, 513},
    };
    static const enum values kinds[] = {NORMAL, PEAKED, RISING, FALLING, ANY, SPECIAL, TINY};
    struct rng rng;
    waited = shared = 0;
    for (int i = 0; i < COUNT(shapes); i++) {
        if (!short_table_case_begin(i, COUNT(shapes), 2, &rng)) continue;
        struct problem *p =
            problem_new(shapes[i].group * shapes[i].kv_heads, shapes[i].kv_heads, shapes[i].qk_dim, shapes[i].v_dim);
        problem_seq(p, 0, shapes[i].q_len, 0, shapes[i].kv_len);
        if (i % 3 == 0) problem_seq(p, 1, 2, 3, 300); /* fewer parts, and rows of its own */
        problem_fill(p, &rng, kinds[i % COUNT(kinds)]);
        problem_store_random(p, &rng);
        bool ok = true;
        for (int t = 0; t < tiers->n && ok; t++) {
            problem_describe(p, "split");
            ok = shapes[i].q_len > 8 || splits(p, 8, tiers->name[t]);
        }
        ok = ok && by_teams(p, &rng, 1 + i, scaled(4) < 2 ? 2 : 4, "long rows", tiers);
        problem_options_random(p, &rng, EVERY_OPTION);
        ok = ok && by_teams(p, &rng, 2 + i, 2, "long rows with options", tiers);
        problem_free(p);
        if (!ok) return false;
    }
    return were_shared(tiers);
}

/* Rows of a split unit that see nothing of its first part, or parts: while the queries go on, their window leaves a
 * block behind. A part is a block, or two. All scores are negative, so that a maximum of 0 would be none of them. */
static bool windows_between_parts(const struct tiers *tiers)
{
    static const struct {
        int group, q_len, kv_len, window;
    } shapes[] = {{1, 8, 3000, 2229}, {4, 3, 1100, 843}, {2, 20, 2600, 2079}, {1, 9, 9000, 8485}, {3, 30, 1300, 260}};
    struct rng rng;
    waited = shared = 0;
    for (int i = 0; i < COUNT(shapes); i++) {
        if (!short_table_case_begin(i, COUNT(shapes), 2, &rng)) continue;
        struct problem *p = problem_new(shapes[i].group, 1, 8, 8);
        const int64_t first = shapes[i].kv_len - shapes[i].q_len - shapes[i].window + 1, last = first + shapes[i].q_len;
        problem_seq(p, 0, shapes[i].q_len, 0, shapes[i].kv_len);
        p->window = shapes[i].window;
        problem_fill(p, &rng, NORMAL);
        for (int64_t j = 0; j < p->q_tokens * p->q_heads * p->qk_dim; j++)
            p->q[j] = fabsf(p->q[j]);
        for (int64_t j = 0; j < p->kv_tokens * p->kv_heads * p->qk_dim; j++)
            p->k[j] = -fabsf(p->k[j]);
        problem_describe(p, "windows between parts");
        bool ok = first / TRIL_KEY_BLOCK < (last - 1) / TRIL_KEY_BLOCK || broken("all rows see the first block");
        for (int t = 0; t < tiers->n && ok; t++)
            ok = splits(p, 8, tiers->name[t]);
        ok = ok && by_teams(p, &rng, 1 + i, 3, "windows between parts", tiers);
        problem_free(p);
        if (!ok) return false;
    }
    return were_shared(tiers);
}

/* The tasks of a batch of new tokens: none takes longer than half of what each thread has to do, what is short stays
 * whole, and the heads of a token stay together. */
static bool shared_out(const struct tiers *tiers)
{
    enum { SHORT = MAX_SEQS - 1, HEADS = 8 };
    static const struct {
        int n_short, threads;
    } batches[] = {{0, 2}, {0, 8}, {0, 32}, {SHORT, 2}, {SHORT, 8}};
    struct rng rng = {0};
    for (int i = 0; i < COUNT(batches) * tiers->n; i++) {
        const int n_short = batches[i / tiers->n].n_short, threads = batches[i / tiers->n].threads;
        const char *tier = tiers->name[i % tiers->n];
        struct problem *p = problem_new(2 * HEADS, HEADS, 4, 4);
        problem_seq(p, 0, 1, 0, 40000);
        for (int j = 0; j < n_short; j++)
            problem_seq(p, 0, 1, 0, 300);
        problem_fill(p, &rng, NORMAL);
        problem_describe(p, "shared out");
        struct placed *x = placed_new(p, &contiguous, ATTEND);
        struct tril_plan plan;
        bool ok = use_tier(tier);
        const struct tril_blocking *blocking = &tril_kernels_in_use()->blocking;
        ok = ok && (tril_plan_make(&plan, &x->call, NULL, blocking, threads) || broken("no plan"));
        struct tril_walk walk = {.level = 0};
        struct tril_task task;
        int64_t all = 0, most = 0, parts = 0;
        while (ok && tril_plan_next(&plan, &x->call, &walk, &task)) {
            const int64_t size = (task.keys - task.first) * task.heads;
            all += size;
            if (size > most) most = size;
            if (task.seq == &x->call.seqs[0]) parts++;
            if (!task.few) continue;
            ok = task.heads == HEADS || broken("%d threads: a task of %d heads", threads, (int)task.heads);
            if (task.seq->kv_len == 300) ok = ok && (task.parts == 1 || broken("a short sequence is split"));
        }
        ok = ok && (all == HEADS * (40000 + 300 * (int64_t)(p->n_seqs - 1)) || broken("not all keys"));
        if (blocking->few_rows > 0)
            ok =
                ok && (2 * most * threads <= all || broken("%d threads: a task of %lld of %lld keys, one of %lld",
                                                           threads, (long long)most, (long long)all, (long long)parts));
        placed_free(x);
        problem_free(p);
        if (!ok) return false;
    }
    return true;
}

/* Calls of all shapes and operations, their answers known, that share a workspace. */
#define POOL 24
struct pool {
    struct problem *p[POOL];
    struct placed *x[POOL];
    struct result *want[POOL];
    int n;
    size_t bytes;
    int threads; /* the most of any team */
};

static bool pool_new(struct pool *pool, struct rng *rng, int threads)
{
    static const enum values kinds[] = {NORMAL, PEAKED, SPECIAL, ANY};
    memset(pool, 0, sizeof *pool);
    pool->threads = threads;
    for (int i = 0; i < POOL; i++) {
        struct problem *p;
        if (i % 4 == 3) {
            p = problem_new(1 + i / 4, 1, 8, 8);
            problem_seq(p, 0, 1 + i / 8, 0, 257 + rng_below(rng, 900));
            problem_fill(p, rng, NORMAL);
        } else {
            p = problem_random(rng, 5e4, kinds[i % COUNT(kinds)]);
        }
        if (rng_one_in(rng, 2)) problem_options_random(p, rng, EVERY_OPTION);
        problem_store_random(p, rng);
        problem_math_random(p, rng);
        const enum operation operation = (enum operation)((i + i / OPERATIONS) % OPERATIONS);
        struct placing placing = placing_random(rng);
        placing.in_place = operation == ATTEND && p->qk_dim == p->v_dim && rng_one_in(rng, 2);
        placing.team.number = 0;
        pool->p[i] = p;
        pool->x[i] = placed_new(p, &placing, operation);
        problem_describe(p, operation_name(operation));
        pool->want[i] = run(p, &contiguous, operation, "scalar");
        pool->n++;
        if (pool->want[i] == NULL) return false;
    }
    return true;
}

static void pool_free(struct pool *pool)
{
    for (int i = 0; i < pool->n; i++) {
        placed_free(pool->x[i]);
        problem_free(pool->p[i]);
        result_free(pool->want[i]);
    }
}

/* The workspace that serves all of them on this tier. */
static bool pool_measure(struct pool *pool)
{
    pool->bytes = 0;
    for (int i = 0; i < pool->n; i++) {
        for (int threads = 1; threads <= pool->threads; threads++) {
            size_t bytes = 0;
            const tril_status status = tril_workspace(&pool->x[i]->call, threads, &bytes);
            if (status != TRIL_OK) return broken("tril_workspace: %s", tril_status_text(status));
            if (bytes > pool->bytes) pool->bytes = bytes;
        }
    }
    return true;
}

#define CANARY 64

/* How the threads of a pool come. */
enum coming { COUNTED, COUNTED_SOME_NEVER, NUMBERED, FALLING_NUMBERS, BOTH, COMINGS };
static const char *const coming_name[COMINGS] = {"counted", "counted, some never come", "numbered, some do not come",
                                                 "numbered from the top down", "numbered and counted in turn"};

static struct team team_of(struct rng *rng, enum coming coming, uint64_t never, int threads, int64_t *number)
{
    struct team team = {.threads = 1 + (int)rng_below(rng, threads)};
    if (rng_one_in(rng, 6)) team.threads = 0;
    team.one_by_one = rng_one_in(rng, 3);
    team.seed = rng_next(rng);
    const bool numbered = coming == NUMBERED || coming == FALLING_NUMBERS || (coming == BOTH && rng_one_in(rng, 2));
    if (numbered && team.threads > 0) {
        /* One that no earlier call had: the next or any above it, or from the top down. */
        const int64_t last = *number;
        *number = coming == FALLING_NUMBERS ? (last == 0 ? INT64_C(1) << 62 : last - 1)
                  : rng_one_in(rng, 2)      ? last + 1
                  : rng_one_in(rng, 1000)   ? INT64_C(1) << 61
                                            : last + 1 + rng_below(rng, INT64_C(1) << 40);
        team.number = *number;
    }
    if (coming == COUNTED_SOME_NEVER) team.absent = never;
    if ((coming == NUMBERED || coming == FALLING_NUMBERS) && team.threads > 0 && rng_one_in(rng, 2))
        team.absent = rng_next(rng) & ~(UINT64_C(1) << rng_below(rng, team.threads));
    return team;
}

static bool in_one_workspace(struct pool *pool, struct rng *rng, enum coming coming, int n, const char *tier)
{
    if (!use_tier(tier) || !pool_measure(pool)) return false;
    struct area area =
        area_new(pool->bytes + (size_t)(2 * CANARY), GUARD_NONE, (size_t)rng_below(rng, 64)); /* at any alignment */
    unsigned char *const workspace = area.data + CANARY;
    memset(area.data, 0x5a, area.bytes);
    memset(workspace, 0, pool->bytes); /* once */
    /* The first thread comes, and one of the next three: otherwise there might be no team in all these calls. */
    const uint64_t never = rng_next(rng) & ~(UINT64_C(1) | UINT64_C(2) << rng_below(rng, 3));
    int64_t number = 0;
    bool ok = true;
    for (int i = 0; i < n && ok; i++) {
        const int at = (int)rng_below(rng, pool->n);
        const struct team team = team_of(rng, coming, never, pool->threads, &number);
        struct placing shown = pool->x[at]->placing;
        char text[600], place[400];
        shown.team = team;
        placing_describe(&shown, place, sizeof place);
        snprintf(text, sizeof text, "call %d in one workspace, %s, %s, %s", i, coming_name[coming],
                 operation_name(pool->x[at]->operation), place);
        problem_describe(pool->p[at], text);
        watch_workers(&team);
        ok = placed_run(pool->x[at], &team, workspace, pool->bytes);
        count_workers();
        if (!ok) break;
        struct result *got = placed_take_part(pool->x[at], 0);
        const size_t rows = (size_t)(got->tokens * got->heads) * sizeof(float);
        if (shown.no_max) memcpy(got->row_max, pool->want[at]->row_max, rows);
        if (shown.no_sum) memcpy(got->row_sum, pool->want[at]->row_sum, rows);
        ok = same_result(got, pool->want[at], coming_name[coming]) && placed_untouched(pool->x[at]);
        result_free(got);
        for (size_t j = 0; j < (size_t)CANARY && ok; j++) {
            if (area.data[j] != 0x5a || workspace[pool->bytes + j] != 0x5a)
                ok = broken("the call wrote past the workspace, at %s byte %zu",
                            area.data[j] != 0x5a ? "canary" : "end", j);
        }
    }
    area_free(&area);
    return ok;
}

/* In place, and some rows of a split unit see nothing of the range: they are blanked when no part reads them any more.
 * Here the first query is in the prefix and the second one's window lies behind the range. */
static bool blank_rows_in_place(const struct tiers *tiers)
{
    struct rng rng;
    waited = shared = 0;
    for (int i = 0; i < 4; i++) {
        if (!case_begin(i, &rng)) continue;
        struct problem *p = problem_new(6, 1, 16, 16);
        problem_seq(p, 0, 2, 0, 4097);
        p->seqs[0].key_end = 3840;
        p->seqs[0].prefix = 4096;
        p->window = 100;
        problem_fill(p, &rng, NORMAL);
        problem_describe(p, "oracle");
        struct result *want = run(p, &contiguous, ATTEND, "scalar");
        bool ok = want != NULL;
        for (int t = 0; t < tiers->n && ok; t++) {
            ok = splits(p, 2, tiers->name[t]);
            for (int j = 0; j < 5 && ok; j++) {
                struct placing placing = placing_random(&rng);
                placing.team = team_at_once(&rng, 2 + j);
                placing.in_place = true;
                ok = same_as(p, &placing, ATTEND, "blank rows in place", tiers->name[t], want);
            }
        }
        result_free(want);
        problem_free(p);
        if (!ok) return false;
    }
    return were_shared(tiers);
}

/* Where V has heads in another order than K, tasks are of one head: memory is asked for from a token's first head to
 * its last. */
static bool heads_apart(const struct tiers *tiers)
{
    enum { HEADS = 4, TOKENS = 500, DIM = 32 };
    struct rng rng = {0};
    for (int i = 0; i < 3 * tiers->n; i++) {
        struct problem *p = problem_new(HEADS, HEADS, DIM, DIM);
        problem_seq(p, 0, 1, 0, TOKENS);
        problem_fill(p, &rng, NORMAL);
        problem_describe(p, "heads apart");
        struct placed *x = placed_new(p, &contiguous, ATTEND);
        tril_tensor *v = i % 3 == 1 ? &x->call.v : &x->call.k;
        if (i % 3 > 0) {
            v->head_stride = (int64_t)TOKENS * DIM * 4;
            v->token_stride = (int64_t)DIM * 4;
        }
        struct tril_plan plan;
        bool ok = use_tier(tiers->name[i / 3]);
        const struct tril_blocking *blocking = &tril_kernels_in_use()->blocking;
        ok = ok && (tril_plan_make(&plan, &x->call, NULL, blocking, 1) || broken("no plan"));
        ok = ok && (plan.few_heads == (i % 3 == 0 ? HEADS : 1) || broken("tasks of %d heads", (int)plan.few_heads));
        placed_free(x);
        problem_free(p);
        if (!ok) return false;
    }
    return true;
}

static bool one_workspace(const struct tiers *tiers, enum coming coming, int n)
{
    struct rng rng;
    waited = shared = 0;
    for (int t = 0; t < tiers->n; t++) {
        if (!case_begin(t, &rng)) continue;
        struct pool pool;
        bool ok = pool_new(&pool, &rng, 8);
        ok = ok && in_one_workspace(&pool, &rng, coming, n, tiers->name[t]);
        pool_free(&pool);
        if (!ok) return false;
    }
    return were_shared(tiers);
}

static bool counted(const struct tiers *tiers)
{
    return one_workspace(tiers, COUNTED, scaled(1000) < 60 ? 60 : scaled(1000));
}

static bool some_never_come(const struct tiers *tiers)
{
    return one_workspace(tiers, COUNTED_SOME_NEVER, scaled(300) < 40 ? 40 : scaled(300));
}

static bool numbered(const struct tiers *tiers)
{
    return one_workspace(tiers, NUMBERED, scaled(1000) < 60 ? 60 : scaled(1000));
}

static bool numbered_down(const struct tiers *tiers)
{
    return one_workspace(tiers, FALLING_NUMBERS, scaled(300) < 60 ? 60 : scaled(300));
}

/* Every thread comes to every call, so 0 is allowed whatever the call before had. */
static bool numbered_and_counted(const struct tiers *tiers)
{
    return one_workspace(tiers, BOTH, scaled(200) < 40 ? 40 : scaled(200));
}

static const struct check checks[] = {
    {"thread_counts", thread_counts},
    {"long_rows", long_rows},
    {"windows_between_parts", windows_between_parts},
    {"blank_rows_in_place", blank_rows_in_place},
    {"shared_out", shared_out},
    {"heads_apart", heads_apart},
    {"counted", counted},
    {"some_never_come", some_never_come},
    {"numbered", numbered},
    {"numbered_down", numbered_down},
    {"numbered_and_counted", numbered_and_counted},
};
const struct suite suite_team = {"team", checks, COUNT(checks)};
