/* One block of keys against one group of rows: which of it each row sees, and the tiles over it. */
#ifndef TRIL_ENGINE_BLOCK_H
#define TRIL_ENGINE_BLOCK_H

#include "pairs.h"
#include "softmax.h"
#include "tile.h"

/* Whether the tiles multiply pairs of bf16; known at compile time where the tier has one math mode. */
static ALWAYS_INLINE bool in_pairs(const struct tril_job *job)
{
    return TIER_BF16 && (!TIER_F32 || job->call->math == TRIL_MATH_BF16);
}

struct block {
    const struct tile_b *panels; /* keys, panels of [qk_dim][16] */
    int vec;                     /* the vector of them that begins the block */
    int64_t first;               /* the position of its first key */
    int keys;                    /* that the task's last row sees in it */
    bool last;                   /* of the task */
    bool edge;                   /* whether rows may see it in part otherwise than up to an end */
    size_t first_row, last_row;  /* first_row ... last_row - 1 of the task may see some of it */
};

/* The block's keys that any row of the task sees, in whole panels: one stretch, or the sinks and another. */
struct stretch {
    int from, to;
};

static int stretch_end(int64_t end, int keys)
{
    return end < 0 ? 0 : end < keys ? (int)end : keys;
}

static int block_stretches(const struct tril_task *task, int64_t first, int keys, struct stretch s[2])
{
    const int64_t sink = (task->sink - first + PANEL - 1) / PANEL * PANEL;
    const int64_t begin = (task->begin - first) / PANEL * PANEL;
    const int to = stretch_end(sink, keys), from = stretch_end(begin, keys);
    int n = 0;
    if (to >= from) {
        s[n++] = (struct stretch){0, keys};
        return n;
    }
    if (to > 0) s[n++] = (struct stretch){0, to};
    if (from < keys) s[n++] = (struct stretch){from, keys};
    return n;
}

/* Reading a block of keys, once for all rows of a K/V head. tests/test_blocks.c compiles a tier that counts it. */
#ifdef TRIL_COUNT_BLOCKS
extern int64_t tril_blocks_read;
#define COUNT_BLOCKS(n) (tril_blocks_read += (n))
#else
#define COUNT_BLOCKS(n) ((void)0)
#endif

/* The number of queries of the task before the first one that sees a key at `first` or behind it. */
static int64_t queries_before(const struct tril_job *job, const struct tril_task *task, int64_t first)
{
    const bool ahead = job->call->tree != NULL || first < task->seq->prefix; /* keys behind a query's own */
    const int64_t before = (ahead ? 0 : first) - task->position;
    return before < 0 ? 0 : before < task->queries ? before : task->queries;
}

/* How many of its queries do not begin behind the block. */
static int64_t queries_until(const struct tril_job *job, const struct tril_task *task, int64_t first)
{
    int64_t n = task->queries;
    for (; job->call->window > 0 && n > 0; n--) {
        const struct tril_view view = tril_view_of(job->call, task->seq, task->query + n - 1);
        if (view.begin < first + TRIL_KEY_BLOCK || view.sink > first) break;
    }
    return n;
}

/* Without its panels. */
static struct block block_at(const struct tril_job *job, const struct tril_task *task, int64_t first)
{
    const int64_t left = task->keys - first, next = first + TRIL_KEY_BLOCK;
    return (struct block){
        .first = first,
        .keys = left < TRIL_KEY_BLOCK ? (int)left : TRIL_KEY_BLOCK,
        .last = left <= TRIL_KEY_BLOCK,
        .edge = job->call->window > 0 || tril_tree_begin(job->call, task->seq) < next,
        .first_row = (size_t)(queries_before(job, task, first) * job->plan->group),
        .last_row = (size_t)(queries_until(job, task, first) * job->plan->group),
    };
}

/* Whether the task has nothing behind this block that the row sees. */
static ALWAYS_INLINE bool block_is_last(const struct tril_task *task, const struct block *block,
                                        const struct tril_task_row *row)
{
    const int64_t next = block->first + TRIL_KEY_BLOCK;
    return block->last || row->view.end <= next || (row->view.begin >= task->keys && row->view.sink <= next);
}

/* Whether one of n rows sees the block otherwise than from its first key up to an end. */
static ALWAYS_INLINE bool rows_have_edge(const struct tril_job *job, const struct tril_task *task,
                                         const struct block *block, const struct tril_task_row *row, int n)
{
    const struct tril_view *last = &row[n - 1].view; /* begin never falls */
    const int64_t next = block->first + TRIL_KEY_BLOCK;
    return (last->begin > block->first && last->sink < next) || tril_tree_begin(job->call, task->seq) < next;
}

/* n keys of the task as the tile reads them, those that any of its rows sees; `first` begins a block. */
static struct tile_b block_keys(const struct tril_job *job, const struct tril_task *task, int64_t first, int n,
                                float *to)
{
    const int dims = job->call->qk_dim;
    const bool in_place = !in_pairs(job) && keys_in_place(job, first, n);
    for (int at = 0; at < n; at += TRIL_KEY_BLOCK) {
        struct stretch s[2];
        const int keys = n - at < TRIL_KEY_BLOCK ? n - at : TRIL_KEY_BLOCK;
        const int stretches = block_stretches(task, first + at, keys, s);
        COUNT_BLOCKS(stretches > 0);
        for (int i = 0; i < stretches && !in_place; i++)
            pack_keys(job, task, task->head, first + at + s[i].from, s[i].to - s[i].from,
                      to + (size_t)(at + s[i].from) * (size_t)dims);
    }
    if (in_place) return panels_in_place(job, task, task->head, first);
    if (!in_pairs(job)) return (struct tile_b){to, PANEL, PANEL * (size_t)dims};
    pair_keys(to, n, dims);
    return (struct tile_b){to, PANEL, PANEL * (size_t)pairs_of(dims)};
}

/* Queries of rows r ... r+n-1 of the task's `rows`, as the tile reads them, into rows q ... q+n-1 of `to`. */
static void block_queries(const struct tril_job *job, const struct tril_task *task, size_t r, int n, size_t rows,
                          size_t q, float *to)
{
    const size_t dims = (size_t)job->call->qk_dim, pairs = (size_t)pairs_of(job->call->qk_dim);
    pack_queries(job, task, r, n, rows, TILE_BEFORE(to, (r - q) * dims));
    for (size_t i = q; in_pairs(job) && i < q + (size_t)n; i++) {
        pair_query(to + i * dims, (int)dims);
        memmove(to + i * pairs, to + i * dims, pairs * sizeof(float));
    }
}

static void block_begin(size_t rows, float *row_max, float *row_sum)
{
    for (size_t r = 0; r < rows; r++) {
        row_max[r] = MINUS_INF;
        row_sum[r] = 0.0f;
    }
}

/* One function per tile width: what the disassembly test and a profile look for. */
#define SCORES_ARGS const int rows, const float *q, size_t dims, const struct tile_b *b, float *s, size_t s_row
#define FOLD_ARGS                                                                                                      \
    const int rows, const float *p, const struct tile_b *b, const size_t *end, float *o, size_t o_row,                 \
        const float *old, const float *fresh
#define WIDTH(pairs, prefix, vecs)                                                                                     \
    static NOINLINE void prefix##scores_v##vecs(SCORES_ARGS)                                                           \
    {                                                                                                                  \
        const bool sure = tile_scores(pairs, rows, vecs, q, dims, *b, dims, s, s_row);                                 \
        if (pairs && !sure) slow_scores(rows, vecs, q, dims, b, dims, s, s_row);                                       \
    }                                                                                                                  \
    static NOINLINE void prefix##fold_v##vecs(FOLD_ARGS)                                                               \
    {                                                                                                                  \
        const bool sure = tile_fold(pairs, rows, vecs, p, TRIL_SCORE_ROW, *b, end, o, o_row, old, fresh);              \
        if (pairs && !sure) slow_fold(rows, vecs, p, TRIL_SCORE_ROW, b, end, o, o_row, old, fresh);                    \
    }

#if TILE_VECS > 2
#define WIDTHS(pairs, prefix)                                                                                          \
    WIDTH(pairs, prefix, 1) WIDTH(pairs, prefix, 2) WIDTH(pairs, prefix, 3) WIDTH(pairs, prefix, 4)
#define BY_WIDTH(name) name##_v1, name##_v2, name##_v3, name##_v4
#else
#define WIDTHS(pairs, prefix) WIDTH(pairs, prefix, 1) WIDTH(pairs, prefix, 2)
#define BY_WIDTH(name)        name##_v1, name##_v2
#endif

#define FULL_WIDTH_OF(prefix, vecs) prefix##vecs
#define FULL_WIDTH(prefix, vecs)    FULL_WIDTH_OF(prefix, vecs)
#define scaled_full                 FULL_WIDTH(scaled_v, TILE_VECS)

/* Each math mode that the tier computes has its own functions; the other's stand in where none is ever called. */
#if TIER_F32
WIDTHS(false, )
static void (*const scores_by_vecs[])(SCORES_ARGS) = {BY_WIDTH(scores)};
static void (*const fold_by_vecs[])(FOLD_ARGS) = {BY_WIDTH(fold)};
#endif
#if TIER_BF16
WIDTHS(true, pair_)
static void (*const pair_scores_by_vecs[])(SCORES_ARGS) = {BY_WIDTH(pair_scores)};
static void (*const pair_fold_by_vecs[])(FOLD_ARGS) = {BY_WIDTH(pair_fold)};
#endif
#if !TIER_F32
#define scores_by_vecs pair_scores_by_vecs
#define fold_by_vecs   pair_fold_by_vecs
#elif !TIER_BF16
#define pair_scores_by_vecs scores_by_vecs
#define pair_fold_by_vecs   fold_by_vecs
#endif

_Static_assert(sizeof(scores_by_vecs) / sizeof(scores_by_vecs[0]) == TILE_VECS, "a function per tile width");

#if TIER_F32
static NOINLINE void scaled_full(const int rows, const float *q, size_t dims, const struct tile_b *b, float c, float *s,
                                 size_t s_row, float *best)
{
    tile_scaled(rows, q, dims, *b, dims, c, s, s_row, best);
}
#endif

#if V_HALF && TIER_F32
/* By whole vectors; none is as wide as the tile, since it shares with its neighbours. */
static NOINLINE void half_fold_v1(FOLD_ARGS)
{
    tile_half_fold(rows, 1, p, TRIL_SCORE_ROW, *b, end, o, o_row, old, fresh);
}

static NOINLINE void half_fold_v2(FOLD_ARGS)
{
    tile_half_fold(rows, 2, p, TRIL_SCORE_ROW, *b, end, o, o_row, old, fresh);
}

static NOINLINE void half_fold_v3(FOLD_ARGS)
{
    tile_half_fold(rows, 3, p, TRIL_SCORE_ROW, *b, end, o, o_row, old, fresh);
}

static void (*const half_fold_by_vecs[])(FOLD_ARGS) = {half_fold_v1, half_fold_v2, half_fold_v3};

_Static_assert(sizeof(half_fold_by_vecs) / sizeof(half_fold_by_vecs[0]) == TILE_VECS - 1, "a function per width");
#endif

/* How many tiles of `most` at once n vectors or rows are. */
static int tile_count(int n, int most)
{
    return (n + most - 1) / most;
}

/* How many of `left` vectors or rows the next tile takes, `most` at once: as even as can be, since a narrow last tile
 * would starve the fma units. */
static int tile_share(int left, int most)
{
    const int tiles = tile_count(left, most);
    return (left + tiles - 1) / tiles;
}

/* How many keys of the block each of n rows sees. */
static ALWAYS_INLINE void block_ends(const struct block *block, const struct tril_task_row *row, int n, size_t *end)
{
    for (int i = 0; i < n; i++) {
        const int64_t end_here = row[i].view.end - block->first;
        end[i] = end_here < block->keys ? (size_t)end_here : (size_t)block->keys;
    }
}

/* Scores of n rows from r on, from key `from`, which begins a vector, to `end`, into rows of s_row. */
static ALWAYS_INLINE void block_scores(const struct tril_job *job, const struct block *block, size_t r, int n, int from,
                                       int end, const float *ws, float *s, size_t s_row)
{
    const bool pairs = in_pairs(job);
    const size_t dims = (size_t)(pairs ? pairs_of(job->call->qk_dim) : job->call->qk_dim);
    const struct tile_b *keys = block->panels;
    const int vecs = (end + V_LANES - 1) / V_LANES;
    for (int j = from / V_LANES; j < vecs;) {
        const int width = tile_share(vecs - j, TILE_VECS);
        const struct tile_b b = {tile_b_at(keys, block->vec + j), keys->k_stride, keys->panel_stride};
        (pairs ? pair_scores_by_vecs : scores_by_vecs)[width - 1](n, ws + job->plan->q + r * dims, dims, &b,
                                                                  s + j * V_LANES, s_row);
        j += width;
    }
}

static bool has_logits(const struct tril_job *job)
{
    return job->call->softcap > 0.0f || job->call->alibi_slopes != NULL;
}

/* t of a row's first n keys of the block at `first`, see softmax_logits(). */
static NOINLINE void row_logits(const struct tril_job *job, const struct tril_task *task,
                                const struct tril_task_row *row, int64_t first, float *s, int n)
{
    const tril_attention *call = job->call;
    const bool capped = call->softcap > 0.0f, sloped = call->alibi_slopes != NULL;
    const struct logits l = {
        .capped = capped,
        .sloped = sloped,
        .scale = capped ? job->cap_scale : job->log2_scale,
        .cap = job->log2_cap,
        .slope = sloped ? tril_log2(call->alibi_slopes[row->head]) : 0.0f,
        .distance = (float)(first - tril_position(task->seq, row->query)),
    };
    softmax_logits(&l, s, n);
}

/* Scores become t, up to key n of the block; the largest. */
static ALWAYS_INLINE float row_scale(const struct tril_job *job, const struct tril_task *task,
                                     const struct tril_task_row *row, int64_t first, float *s, int n)
{
    if (!has_logits(job)) return softmax_scale(s, n, job->log2_scale);
    row_logits(job, task, row, first, s, n);
    return softmax_max(s, (n + PANEL - 1) / PANEL * PANEL);
}

#if TIER_F32
/* t of n rows from r on that see a whole block, in f32 and with no more to it than the scale; each one's largest. */
static ALWAYS_INLINE void block_scaled(const struct tril_job *job, const struct block *block, size_t r, int n,
                                       const float *ws, float *s, float *max)
{
    const size_t dims = (size_t)job->call->qk_dim;
    const struct tile_b *keys = block->panels;
    float best[TILE_ROWS * V_LANES];
    for (int i = 0; i < n; i++)
        v_store(best + i * V_LANES, v_set1(MINUS_INF));
    for (int j = 0; j < TRIL_KEY_BLOCK / V_LANES; j += TILE_VECS) {
        const struct tile_b b = {tile_b_at(keys, block->vec + j), keys->k_stride, keys->panel_stride};
        scaled_full(n, ws + job->plan->q + r * dims, dims, &b, job->log2_scale, s + j * V_LANES, TRIL_SCORE_ROW, best);
    }
    for (int i = 0; i < n; i++)
        max[i] = softmax_top(v_load(best + i * V_LANES));
}

_Static_assert(TRIL_KEY_BLOCK % (TILE_VECS * V_LANES) == 0, "a block is whole tiles");
#endif

/* t of n rows from r on that each see the block from its first key up to an end; each one's largest. */
static ALWAYS_INLINE void block_logits(const struct tril_job *job, const struct tril_task *task,
                                       const struct block *block, const struct tril_task_row *row, size_t r, int n,
                                       const size_t *end, const float *ws, float *s, float *max)
{
#if TIER_F32
    if (end[0] == TRIL_KEY_BLOCK && !in_pairs(job) && !has_logits(job)) {
        block_scaled(job, block, r, n, ws, s, max);
        return;
    }
#endif
    block_scores(job, block, r, n, 0, (int)end[n - 1], ws, s, TRIL_SCORE_ROW);
    for (int i = 0; i < n; i++)
        max[i] = row_scale(job, task, &row[i], block->first, s + i * TRIL_SCORE_ROW, (int)end[i]);
}

/* The same where the row does not see all of them: -inf elsewhere, whatever stands there. */
static NOINLINE float row_scale_edge(const struct tril_job *job, const struct tril_task *task,
                                     const struct tril_task_row *row, int64_t first, float *s, int n)
{
    if (has_logits(job))
        row_logits(job, task, row, first, s, n);
    else
        softmax_scale(s, n, job->log2_scale);
    for (int64_t from = first, to; from < first + n; from = to) {
        to = tril_stretch(job->call, task->seq, row->query, &row->view, from, first + n);
        if (tril_row_sees(job, task, row, from)) continue;
        for (int64_t key = from; key < to; key++)
            s[key - first] = MINUS_INF;
    }
    return softmax_max(s, (n + PANEL - 1) / PANEL * PANEL);
}

/* Which of n rows see each of `keys` keys from position `first` on, a bit for a row. Returns those that see any. */
static unsigned rows_seeing(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row,
                            int n, int64_t first, int keys, uint8_t *seen)
{
    unsigned any = 0;
    memset(seen, 0, (size_t)keys);
    for (int i = 0; i < n; i++) {
        for (int64_t from = first, to; from < first + keys; from = to) {
            to = tril_stretch(job->call, task->seq, row[i].query, &row[i].view, from, first + keys);
            if (!tril_row_sees(job, task, &row[i], from)) continue;
            any |= 1u << i;
            for (int64_t key = from; key < to; key++)
                seen[key - first] |= (uint8_t)(1u << i);
        }
    }
    return any;
}

/* How far apart values are packed, and for how many rows at least, where job->packs_far. */
#define FAR_TOKEN_BYTES 2048
#define FAR_LEAST_ROWS  64

/* The block's values, as the tile reads them. In place where that is f32 rows of whole panels and the tile is wide
 * enough to take several cache lines of a row at once: it saves the copy, 2 % of a prompt's time at head size 128. A
 * narrow tile would come back to each row, a token's stride from the next, once per 16 columns, and loses up to 8 %.
 * Intel's cores do not look ahead from one page to the next: rows 4 KiB apart cost a prompt 7 to 13 %, 2 KiB 2 %. */
static struct tile_b block_values(const struct tril_job *job, const struct tril_task *task, int64_t first, int keys,
                                  float *ws)
{
    const tril_tensor *v = &job->call->v;
    const bool pairs = in_pairs(job);
    const bool rows = v->dtype == TRIL_F32 && tril_keys_together(job, first, keys) == keys;
    if (!TILE_PACKED && job->call->v_dim % PANEL == 0 && rows && !pairs &&
        !(job->packs_far && v->token_stride >= FAR_TOKEN_BYTES && tril_task_rows(job, task) >= FAR_LEAST_ROWS))
        return (struct tile_b){(const float *)(const void *)rows_from(job, task, v, first, task->head).data,
                               (size_t)v->token_stride / sizeof(float), PANEL};
    struct stretch s[2];
    for (int i = 0, n = block_stretches(task, first, keys, s); i < n; i++) {
        float *to = ws + job->plan->v + (size_t)(pairs ? s[i].from / 2 : s[i].from) * PANEL;
        if (pairs)
            pair_values(job, task, first + s[i].from, s[i].to - s[i].from, to);
        else
            pack_values(job, task, first + s[i].from, s[i].to - s[i].from, to);
    }
    return (struct tile_b){ws + job->plan->v, PANEL, job->plan->v_panel};
}

/* Folds the block's weights times its values into n rows of the output. Rows in the workspace are whole panels, of
 * which what no column of the head reaches is left as it is. */
static void block_fold(const struct tril_job *job, int n, const float *ws, const size_t *end,
                       const struct tile_b *values, float *o, const float *old, const float *fresh)
{
    const struct tril_plan *plan = job->plan;
    const size_t o_row = (size_t)plan->v_row;
    const int vecs = (job->call->v_dim + V_LANES - 1) / V_LANES;
    for (int j = 0; j < vecs;) {
        const int width = tile_share(vecs - j, TILE_VECS);
        const struct tile_b b = {tile_b_at(values, j), values->k_stride, values->panel_stride};
#if V_HALF && TIER_F32
        const int left = job->call->v_dim - (j + width - 1) * V_LANES; /* in the tile's last vector */
        if (left <= V_LANES / 2 && width > 1 && !in_pairs(job)) {
            half_fold_by_vecs[width - 2](n, ws + plan->s, &b, end, o + j * V_LANES, o_row, old, fresh);
            return;
        }
#endif
        (in_pairs(job) ? pair_fold_by_vecs : fold_by_vecs)[width - 1](n, ws + plan->s, &b, end, o + j * V_LANES, o_row,
                                                                      old, fresh);
        j += width;
    }
}

#endif
