/* One block of keys against one group of rows: which of it each row sees, and the tiles over it. */
#ifndef TRIL_ENGINE_BLOCK_H
#define TRIL_ENGINE_BLOCK_H

#include "pack.h"
#include "softmax.h"
#include "tile.h"

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

/* Panels of keys from `first` on, `keys` of them: the host's own, or packed into `to`. */
static struct tile_b block_panels(const struct tril_job *job, const struct tril_task *task, int64_t first, int keys,
                                  float *to)
{
    const tril_tensor *k = &job->call->k;
    if (k->layout == TRIL_PANELS)
        return (struct tile_b){tril_row(k, task->token + first, task->head), PANEL,
                               (size_t)k->token_stride * PANEL / sizeof(float)};
    pack_keys(job, task, task->head, first, keys, to);
    return (struct tile_b){to, PANEL, PANEL * (size_t)job->call->qk_dim};
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
static ALWAYS_INLINE void scores_of(const int vecs, const int rows, const float *q, size_t dims, struct tile_b b,
                                    float *s, size_t s_row)
{
#define DO(r)                                                                                                          \
    if (r < TILE_ROWS && rows == r + 1) tile_scores(r + 1, vecs, q, dims, b, dims, s, s_row);
    EACH_ROW(DO)
#undef DO
}

static ALWAYS_INLINE void fold_of(const int vecs, const int rows, const float *p, struct tile_b b, const size_t *end,
                                  float *o, size_t o_row, const float *old, const float *fresh)
{
#define DO(r)                                                                                                          \
    if (r < TILE_ROWS && rows == r + 1) tile_fold(r + 1, vecs, p, TRIL_SCORE_ROW, b, end, o, o_row, old, fresh);
    EACH_ROW(DO)
#undef DO
}

/* One function per tile width: what the disassembly test and a profile look for. */
#define SCORES_ARGS const int rows, const float *q, size_t dims, struct tile_b b, float *s, size_t s_row
#define FOLD_ARGS                                                                                                      \
    const int rows, const float *p, struct tile_b b, const size_t *end, float *o, size_t o_row, const float *old,      \
        const float *fresh

static NOINLINE void scores_v1(SCORES_ARGS)
{
    scores_of(1, rows, q, dims, b, s, s_row);
}

static NOINLINE void scores_v2(SCORES_ARGS)
{
    scores_of(2, rows, q, dims, b, s, s_row);
}

static NOINLINE void fold_v1(FOLD_ARGS)
{
    fold_of(1, rows, p, b, end, o, o_row, old, fresh);
}

static NOINLINE void fold_v2(FOLD_ARGS)
{
    fold_of(2, rows, p, b, end, o, o_row, old, fresh);
}

#if TILE_VECS > 2
static NOINLINE void scores_v3(SCORES_ARGS)
{
    scores_of(3, rows, q, dims, b, s, s_row);
}

static NOINLINE void scores_v4(SCORES_ARGS)
{
    scores_of(4, rows, q, dims, b, s, s_row);
}

static NOINLINE void fold_v3(FOLD_ARGS)
{
    fold_of(3, rows, p, b, end, o, o_row, old, fresh);
}

static NOINLINE void fold_v4(FOLD_ARGS)
{
    fold_of(4, rows, p, b, end, o, o_row, old, fresh);
}
#endif

static void (*const scores_by_vecs[])(SCORES_ARGS) = {
    scores_v1,
    scores_v2,
#if TILE_VECS > 2
    scores_v3,
    scores_v4,
#endif
};

static void (*const fold_by_vecs[])(FOLD_ARGS) = {
    fold_v1,
    fold_v2,
#if TILE_VECS > 2
    fold_v3,
    fold_v4,
#endif
};

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
    const size_t dims = (size_t)job->call->qk_dim;
    const struct tile_b keys = block->panels;
    const int vecs = ((int)end[n - 1] + V_LANES - 1) / V_LANES;
    for (int j = 0; j < vecs;) {
        const int width = tile_share(vecs - j, TILE_VECS);
        const struct tile_b b = {tile_b_at(&keys, j), keys.k_stride, keys.panel_stride};
        scores_by_vecs[width - 1](n, ws + job->plan->q + r * dims, dims, b, s + j * V_LANES, TRIL_SCORE_ROW);
        j += width;
    }
}

/* The block's values, as the tile reads them. In place where that is rows of whole panels and the tile is wide enough
 * to take several cache lines of a row at once: it saves the copy, 2 % of a prompt's time at head size 128. A narrow
 * tile would come back to each row, a token's stride from the next, once per 16 columns, and loses up to 8 %. */
static struct tile_b block_values(const struct tril_job *job, const struct tril_task *task, int64_t first, int keys,
                                  float *ws)
{
    const tril_tensor *v = &job->call->v;
    if (TILE_VECS * V_LANES >= 4 * PANEL && job->call->v_dim % PANEL == 0)
        return (struct tile_b){tril_row(v, task->token + first, task->head), (size_t)v->token_stride / sizeof(float),
                               PANEL};
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
        fold_by_vecs[width - 1](n, ws + plan->s, b, end, o + j * V_LANES, (size_t)plan->v_row, old, fresh);
        j += width;
    }
}

#endif
