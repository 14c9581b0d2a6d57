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
    struct tile_b panels; /* its keys, panels of [qk_dim][16] */
    int64_t first;        /* the position of its first key */
    int keys;             /* that the task's last row sees in it */
    bool last;            /* of the task */
    size_t first_row;     /* of the task that sees any of it */
    int64_t offset;       /* the position of the task's first query, counted from the block's first key */
};

/* Without its panels. */
static struct block block_at(const struct tril_job *job, const struct tril_task *task, int64_t first)
{
    const int64_t left = task->keys - first, offset = task->position - first;
    return (struct block){
        .first = first,
        .keys = left < TRIL_KEY_BLOCK ? (int)left : TRIL_KEY_BLOCK,
        .last = left <= TRIL_KEY_BLOCK,
        .first_row = offset < 0 ? (size_t)(-offset * job->plan->group) : 0,
        .offset = offset,
    };
}

/* Whether the task has nothing behind this block that the row sees. */
static ALWAYS_INLINE bool block_is_last(const struct block *block, const struct tril_task_row *row)
{
    return block->last || row->visible <= block->first + TRIL_KEY_BLOCK;
}

/* n keys of the task as the tile reads them. */
static struct tile_b block_keys(const struct tril_job *job, const struct tril_task *task, int64_t first, int n,
                                float *to)
{
    if (!in_pairs(job)) return panels_of(job, task, task->head, first, n, to);
    pack_keys(job, task, task->head, first, n, to);
    pair_keys(to, n, job->call->qk_dim);
    return (struct tile_b){to, PANEL, PANEL * (size_t)pairs_of(job->call->qk_dim)};
}

/* Queries of rows r ... r+n-1 as the tile reads them. */
static void block_queries(const struct tril_job *job, const struct tril_task *task, size_t r, int n, size_t rows,
                          float *to)
{
    const int dims = job->call->qk_dim;
    pack_queries(job, task, r, n, rows, to);
    for (size_t i = r; in_pairs(job) && i < r + (size_t)n; i++) {
        pair_query(to + i * (size_t)dims, dims);
        memmove(to + i * (size_t)pairs_of(dims), to + i * (size_t)dims, (size_t)pairs_of(dims) * sizeof(float));
    }
}

static void block_begin(size_t rows, float *row_max, float *row_sum)
{
    for (size_t r = 0; r < rows; r++) {
        row_max[r] = MINUS_INF;
        row_sum[r] = 0.0f;
    }
}

/* A tile for each number of rows, up to TILE_ROWS. The arguments but `rows` are constants or pass through, so every
 * case is its own unrolled kernel. */
static ALWAYS_INLINE void scores_of(const bool pairs, const int vecs, const int rows, const float *q, size_t dims,
                                    struct tile_b b, float *s, size_t s_row)
{
    bool sure = true;
#define DO(r)                                                                                                          \
    if (r < TILE_ROWS && rows == r + 1) sure = tile_scores(pairs, r + 1, vecs, q, dims, b, dims, s, s_row);
    EACH_ROW(DO)
#undef DO
    if (pairs && !sure) slow_scores(rows, vecs, q, dims, b, dims, s, s_row);
}

static ALWAYS_INLINE void fold_of(const bool pairs, const int vecs, const int rows, const float *p, struct tile_b b,
                                  const size_t *end, float *o, size_t o_row, const float *old, const float *fresh)
{
    bool sure = true;
#define DO(r)                                                                                                          \
    if (r < TILE_ROWS && rows == r + 1)                                                                                \
        sure = tile_fold(pairs, r + 1, vecs, p, TRIL_SCORE_ROW, b, end, o, o_row, old, fresh);
    EACH_ROW(DO)
#undef DO
    if (pairs && !sure) slow_fold(rows, vecs, p, TRIL_SCORE_ROW, b, end, o, o_row, old, fresh);
}

/* One function per tile width: what the disassembly test and a profile look for. */
#define SCORES_ARGS const int rows, const float *q, size_t dims, struct tile_b b, float *s, size_t s_row
#define FOLD_ARGS                                                                                                      \
    const int rows, const float *p, struct tile_b b, const size_t *end, float *o, size_t o_row, const float *old,      \
        const float *fresh
#define WIDTH(pairs, prefix, vecs)                                                                                     \
    static NOINLINE void prefix##scores_v##vecs(SCORES_ARGS)                                                           \
    {                                                                                                                  \
        scores_of(pairs, vecs, rows, q, dims, b, s, s_row);                                                            \
    }                                                                                                                  \
    static NOINLINE void prefix##fold_v##vecs(FOLD_ARGS)                                                               \
    {                                                                                                                  \
        fold_of(pairs, vecs, rows, p, b, end, o, o_row, old, fresh);                                                   \
    }

#if TILE_VECS > 2
#define WIDTHS(pairs, prefix)                                                                                          \
    WIDTH(pairs, prefix, 1) WIDTH(pairs, prefix, 2) WIDTH(pairs, prefix, 3) WIDTH(pairs, prefix, 4)
#define BY_WIDTH(name)                                                                                                 \
    {                                                                                                                  \
        name##_v1, name##_v2, name##_v3, name##_v4                                                                     \
    }
#else
#define WIDTHS(pairs, prefix) WIDTH(pairs, prefix, 1) WIDTH(pairs, prefix, 2)
#define BY_WIDTH(name)                                                                                                 \
    {                                                                                                                  \
        name##_v1, name##_v2                                                                                           \
    }
#endif

/* Each math mode that the tier computes has its own functions; the other's stand in where none is ever called. */
#if TIER_F32
WIDTHS(false, )
static void (*const scores_by_vecs[])(SCORES_ARGS) = BY_WIDTH(scores);
static void (*const fold_by_vecs[])(FOLD_ARGS) = BY_WIDTH(fold);
#endif
#if TIER_BF16
WIDTHS(true, pair_)
static void (*const pair_scores_by_vecs[])(SCORES_ARGS) = BY_WIDTH(pair_scores);
static void (*const pair_fold_by_vecs[])(FOLD_ARGS) = BY_WIDTH(pair_fold);
#endif
#if !TIER_F32
#define scores_by_vecs pair_scores_by_vecs
#define fold_by_vecs   pair_fold_by_vecs
#elif !TIER_BF16
#define pair_scores_by_vecs scores_by_vecs
#define pair_fold_by_vecs   fold_by_vecs
#endif

_Static_assert(sizeof(scores_by_vecs) / sizeof(scores_by_vecs[0]) == TILE_VECS, "a function per tile width");

/* How many of `left` vectors or rows the next tile takes, `most` at once: as even as can be, since a narrow last tile
 * would starve the fma units. */
static int tile_share(int left, int most)
{
    const int tiles = (left + most - 1) / most;
    return (left + tiles - 1) / tiles;
}

/* How many keys of the block each of n rows sees. */
static ALWAYS_INLINE void block_ends(const struct block *block, const struct tril_task_row *row, int n, size_t *end)
{
    for (int i = 0; i < n; i++) {
        const int64_t visible = row[i].visible - block->first;
        end[i] = visible < TRIL_KEY_BLOCK ? (size_t)visible : TRIL_KEY_BLOCK;
    }
}

/* Scores of the same rows, up to the last row's last visible key, into rows of TRIL_SCORE_ROW. */
static void block_scores(const struct tril_job *job, const struct block *block, size_t r, int n, const size_t *end,
                         const float *ws, float *s)
{
    const bool pairs = in_pairs(job);
    const size_t dims = (size_t)(pairs ? pairs_of(job->call->qk_dim) : job->call->qk_dim);
    const struct tile_b keys = block->panels;
    const int vecs = ((int)end[n - 1] + V_LANES - 1) / V_LANES;
    for (int j = 0; j < vecs;) {
        const int width = tile_share(vecs - j, TILE_VECS);
        const struct tile_b b = {tile_b_at(&keys, j), keys.k_stride, keys.panel_stride};
        (pairs ? pair_scores_by_vecs : scores_by_vecs)[width - 1](n, ws + job->plan->q + r * dims, dims, b,
                                                                  s + j * V_LANES, TRIL_SCORE_ROW);
        j += width;
    }
}

/* The block's values, as the tile reads them. In place where that is f32 rows of whole panels and the tile is wide
 * enough to take several cache lines of a row at once: it saves the copy, 2 % of a prompt's time at head size 128. A
 * narrow tile would come back to each row, a token's stride from the next, once per 16 columns, and loses up to 8 %. */
static struct tile_b block_values(const struct tril_job *job, const struct tril_task *task, int64_t first, int keys,
                                  float *ws)
{
    const tril_tensor *v = &job->call->v;
    if (in_pairs(job)) {
        pair_values(job, task, first, keys, ws + job->plan->v);
        return (struct tile_b){ws + job->plan->v, PANEL, job->plan->v_panel};
    }
    const bool rows = v->dtype == TRIL_F32 && tril_keys_together(job, first, keys) == keys;
    if (TILE_VECS * V_LANES >= 4 * PANEL && job->call->v_dim % PANEL == 0 && rows)
        return (struct tile_b){(const float *)(const void *)tril_rows_at(job, task, v, first, task->head).data,
                               (size_t)v->token_stride / sizeof(float), PANEL};
    pack_values(job, task, first, keys, ws + job->plan->v);
    return (struct tile_b){ws + job->plan->v, PANEL, job->plan->v_panel};
}

/* Folds the block's weights times its values into n rows of the output. */
static void block_fold(const struct tril_job *job, int n, const float *ws, const size_t *end, struct tile_b values,
                       float *o, const float *old, const float *fresh)
{
    const struct tril_plan *plan = job->plan;
    const int vecs = (int)plan->v_row / V_LANES;
    for (int j = 0; j < vecs;) {
        const int width = tile_share(vecs - j, TILE_VECS);
        const struct tile_b b = {tile_b_at(&values, j), values.k_stride, values.panel_stride};
        (in_pairs(job) ? pair_fold_by_vecs : fold_by_vecs)[width - 1](n, ws + plan->s, b, end, o + j * V_LANES,
                                                                      (size_t)plan->v_row, old, fresh);
        j += width;
    }
}

#endif
