/* A task of tril_attend: its rows against every block of keys that they can see.
 *
 *   for each block of 256 keys: pack K and V once, then for each group of TILE_ROWS rows
 *     in the first block: pack the queries
 *     tile_scores -> softmax_scale, softmax_exp -> softmax_fold -> tile_fold
 *     in a row's last block: O / l, and the row statistics
 *
 * What comes from or goes to memory does so group by group, and is asked for a group or a block ahead, so that it
 * travels while the tiles compute. Tasks of few rows go the way of few.h, but in pairs, where they go the way of many.
 */
#ifndef TRIL_ENGINE_ATTEND_H
#define TRIL_ENGINE_ATTEND_H

#include "block.h"
#include "edge.h"
#if TIER_F32
#include "few.h"
#endif

/* O of the row to where the caller or the fold of a split unit wants it. Under a tree a row may have seen nothing at
 * all: the caller has said so already. */
static void attend_close_to(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row,
                            const struct tril_place *to, float *o, float max, float sum)
{
    if (job->call->tree != NULL && !tril_row_sees_any(job, task, row, task->first, task->keys)) return;
    if (tril_takes_sink(job, task)) {
        const struct tril_state sink = tril_sink_of(job, row);
        fold_states(o, job->call->v_dim, &max, &sum, &sink, 1);
    }
    store_row(to->o, to->type, o, job->call->v_dim, tril_divides(job, task) ? sum : 1.0f);
    tril_store_statistics(to, max, sum);
}

/* The same, of all blocks or of the one that begins at `key`. */
static NOINLINE void attend_close(const struct tril_job *job, const struct tril_task *task,
                                  const struct tril_task_row *row, int64_t key, float *o, float max, float sum)
{
    const struct tril_place to = tril_place_of(job, task, row, key);
    attend_close_to(job, task, row, &to, o, max, sum);
}

/* What a block is folded onto. */
static void attend_blank(float zero, float *o, size_t n)
{
    for (size_t i = 0; i < n; i += V_LANES)
        v_store(o + i, v_set1(zero));
}

/* One row's fold of a block that lies in memory. */
static void attend_fold(const struct tril_plan *plan, float *o, const float *block, float old, float fresh)
{
    for (int64_t d = 0; d < plan->v_row; d += V_LANES)
        v_store(o + d, v_fma(v_load(o + d), v_set1(old), v_mul(v_load(block + d), v_set1(fresh))));
}

/* attend_rows() where rows see the block in part. */
static NOINLINE void attend_edge(const struct tril_job *job, const struct tril_task *task, const struct block *block,
                                 const struct tril_task_row *row, const struct tile_b *values, size_t r, int n,
                                 float *ws)
{
    const struct tril_plan *plan = job->plan;
    const bool alone = tril_blockwise(job, task);
    float *s = ws + plan->s, *o = ws + plan->o + r * (size_t)plan->v_row, *block_o = ws + plan->block_o;
    float *row_max = ws + plan->row_max + r, *row_sum = ws + plan->row_sum + r;
    float max[TILE_ROWS] = {0.0f}, sum[TILE_ROWS] = {0.0f};
    uint8_t seen[TRIL_KEY_BLOCK];

    const unsigned any = rows_seeing(job, task, row, n, block->first, block->keys, seen);
    edge_scores(job, block, r, n, seen, ws, s, EDGE_ROW);
    for (int i = 0; i < n; i++) {
        if ((any >> i & 1) == 0) continue;
        max[i] = row_scale_edge(job, task, &row[i], block->first, s + i * EDGE_ROW, block->keys);
        sum[i] = softmax_exp(true, s + i * EDGE_ROW, block->keys, max[i]);
        if (in_pairs(job)) pair_weights(s + i * EDGE_ROW, block->keys);
    }
    edge_outputs(job, seen, block->keys, n, s, values, block_o);
    for (int i = 0; i < n; i++, o += plan->v_row, block_o += plan->v_row) {
        float old = 0.0f, fresh = 1.0f;
        if ((any >> i & 1) != 0) {
            if (alone) {
                row_max[i] = max[i];
                row_sum[i] = sum[i];
            } else {
                softmax_fold(1, row_max + i, row_sum + i, max + i, sum + i, &old, &fresh);
            }
            attend_fold(plan, o, block_o, old, fresh);
        } else if (alone) {
            continue;
        }
        if (alone || block_is_last(task, block, &row[i]))
            attend_close(job, task, &row[i], block->first, o, row_max[i], row_sum[i]);
    }
}

/* Rows r ... r+n-1 of the task against one packed block; those that see no later block are closed. */
static void attend_rows(const struct tril_job *job, const struct tril_task *task, const struct block *block,
                        const struct tile_b *values, size_t r, int n, float *ws)
{
    const struct tril_plan *plan = job->plan;
    const tril_attention *call = job->call;
    const bool alone = tril_blockwise(job, task);
    float *s = ws + plan->s, *o = ws + plan->o + r * (size_t)plan->v_row;
    float *row_max = ws + plan->row_max + r, *row_sum = ws + plan->row_sum + r;
    struct tril_task_row row[TILE_ROWS];
    size_t end[TILE_ROWS] = {0};
    float max[TILE_ROWS], sum[TILE_ROWS], old[TILE_ROWS], fresh[TILE_ROWS];
    struct tril_place place[TILE_ROWS] = {{0}};

    rows_at(job, task, r, n, row);
    block_ends(block, row, n, end);
    /* A block that stays alone is folded onto -0, which gives its own bits. */
    for (int i = 0; i < n && alone; i++)
        attend_blank(tril_begins_row(job, task, &row[i], block->first) ? 0.0f : -0.0f, o + i * plan->v_row,
                     (size_t)plan->v_row);
    if (block->edge && rows_have_edge(job, task, block, row, n)) {
        attend_edge(job, task, block, row, values, r, n, ws);
        return;
    }
    block_logits(job, task, block, row, r, n, end, ws, s, max);
    for (int i = 0; i < n; i++) {
        sum[i] = softmax_exp(true, s + i * TRIL_SCORE_ROW, (int)end[i], max[i]);
        if (!alone && !block_is_last(task, block, &row[i])) continue;
        place[i] = tril_place_of(job, task, &row[i], block->first);
        /* Though it is written: requests to write are slower, and this core is the only one that has the line. */
        ask_to_read(place[i].o, tril_row_bytes(call->out.dtype, call->v_dim));
    }
    for (int i = 0; i < n && in_pairs(job); i++)
        pair_weights(s + i * TRIL_SCORE_ROW, (int)end[i]);
    if (alone) {
        for (int i = 0; i < n; i++) {
            old[i] = 0.0f;
            fresh[i] = 1.0f;
            row_max[i] = max[i];
            row_sum[i] = sum[i];
        }
    } else {
        softmax_fold(n, row_max, row_sum, max, sum, old, fresh);
    }
    block_fold(job, n, ws, end, values, o, old, fresh);
    for (int i = 0; i < n; i++) {
        if (alone || block_is_last(task, block, &row[i]))
            attend_close_to(job, task, &row[i], &place[i], o + i * plan->v_row, row_max[i], row_sum[i]);
    }
}

static void attend_many(const struct tril_job *job, const struct tril_task *task, float *ws)
{
    const struct tril_plan *plan = job->plan;
    const size_t rows = (size_t)tril_task_rows(job, task);

    block_begin(rows, ws + plan->row_max, ws + plan->row_sum);
    size_t begun = 0; /* rows before it have met a block */
    for (int64_t first = task->first; first < task->keys; first = tril_next_block(task, first)) {
        struct block block = block_at(job, task, first);
        const struct tile_b panels = block_keys(job, task, first, block.keys, ws + plan->k);
        block.panels = &panels;
        const struct tile_b values = block_values(job, task, first, block.keys, ws);
        for (size_t r = block.first_row; r < block.last_row; r += TILE_ROWS) {
            const int n = block.last_row - r < TILE_ROWS ? (int)(block.last_row - r) : TILE_ROWS;
            if (begun < r + (size_t)n) {
                const size_t from = begun < r ? r : begun;
                begun = r + (size_t)n;
                block_queries(job, task, from, (int)(begun - from), rows, from, ws + plan->q);
                attend_blank(0.0f, ws + plan->o + from * (size_t)plan->v_row, (begun - from) * (size_t)plan->v_row);
            }
            attend_rows(job, task, &block, &values, r, n, ws);
        }
    }
}

#if TIER_F32
/* Few rows: all heads' rows against a block at a time. */
static void attend_few(const struct tril_job *job, const struct tril_task *task, float *ws)
{
    const struct tril_plan *plan = job->plan;
    const bool alone = tril_blockwise(job, task);
    const int dims = (int)plan->v_row, rows = (int)tril_task_rows(job, task);
    float *row_max = ws + plan->row_max, *row_sum = ws + plan->row_sum;

    struct few_stream stream;
    struct tril_task_row row[TRIL_FEW_ROWS_IN_ALL];
    few_begin(job, task, row, ws);
    few_open(&stream, job, task, ws + job->plan->s);
    memset(ws + plan->o, 0, (size_t)rows * (size_t)dims * sizeof(float));
    for (int64_t first = task->first; first < task->keys; first = tril_next_block(task, first)) {
        float max[TRIL_FEW_ROWS_IN_ALL], sum[TRIL_FEW_ROWS_IN_ALL];
        int end[TRIL_FEW_ROWS_IN_ALL];
        few_scores(job, task, first, ws, &stream);
        few_softmax(job, task, row, first, true, ws, end, max, sum);
        few_values(job, task, row, first, end, ws, &stream);
        for (int r = 0; r < rows; r++) {
            float *o = ws + plan->o + r * dims, *block = ws + plan->block_o + r * dims, old, fresh;
            if (end[r] == 0) continue;
            if (alone) {
                for (int d = 0; tril_begins_row(job, task, &row[r], first) && d < dims; d += V_LANES)
                    v_store(block + d, v_add(v_load(block + d), v_zero()));
                attend_close(job, task, &row[r], first, block, max[r], sum[r]);
                continue;
            }
            softmax_fold(1, row_max + r, row_sum + r, max + r, sum + r, &old, &fresh);
            attend_fold(plan, o, block, old, fresh);
        }
    }
    for (int r = 0; r < rows && !alone; r++) {
        if (tril_row_sees_any(job, task, &row[r], task->first, task->keys))
            attend_close(job, task, &row[r], task->first, ws + plan->o + r * dims, row_max[r], row_sum[r]);
    }
}

#endif

static void attend_task(const struct tril_job *job, const struct tril_task *task, float *ws)
{
#if TIER_F32
    if (task->few) {
        attend_few(job, task, ws);
        return;
    }
#endif
    attend_many(job, task, ws);
}

#endif
