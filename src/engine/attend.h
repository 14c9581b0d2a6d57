/* A task of tril_attend: its rows against every block of keys that they can see.
 *
 *   for each block of 256 keys: pack K and V once, then for each group of TILE_ROWS rows
 *     in the first block: pack the queries
 *     tile_scores -> softmax_scale, softmax_exp -> softmax_fold -> tile_fold
 *     in a row's last block: O / l, and the row statistics
 *
 * What comes from or goes to memory does so group by group, and is asked for a group or a block ahead, so that it
 * travels while the tiles compute. Tasks of few rows go the way of few.h.
 */
#ifndef TRIL_ENGINE_ATTEND_H
#define TRIL_ENGINE_ATTEND_H

#include "block.h"
#if TIER_F32 /* few rows in pairs go the way of many */
#include "few.h"
#endif

/* O of the row, or of the one block that begins at `key`, to where the caller or the fold of a split unit wants it. */
static void attend_close(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row,
                         int64_t key, const float *o, float max, float sum)
{
    const struct tril_place to = tril_place_of(job, task, row, key);
    store_row(to.o, to.type, o, job->call->v_dim, tril_divides(job, task) ? sum : 1.0f);
    tril_store_statistics(&to, max, sum);
}

/* What a block is folded onto. A block that stays alone is folded onto -0, which gives its own bits, but the first of
 * all onto +0, as in a row of one block. */
static void attend_blank(int64_t first, bool alone, float *o, size_t n)
{
    const vf zero = v_set1(alone && first > 0 ? -0.0f : 0.0f);
    for (size_t i = 0; i < n; i += V_LANES)
        v_store(o + i, zero);
}

/* Rows r ... r+n-1 of the task against one packed block; those that see no later block are closed. */
static void attend_rows(const struct tril_job *job, const struct tril_task *task, const struct block *block,
                        struct tile_b values, size_t r, int n, float *ws)
{
    const struct tril_plan *plan = job->plan;
    const tril_attention *call = job->call;
    const bool alone = tril_blockwise(job, task);
    float *s = ws + plan->s, *o = ws + plan->o + r * (size_t)plan->v_row;
    float *row_max = ws + plan->row_max + r, *row_sum = ws + plan->row_sum + r;
    struct tril_task_row row[TILE_ROWS];
    size_t end[TILE_ROWS] = {0};
    float max[TILE_ROWS], sum[TILE_ROWS], old[TILE_ROWS], fresh[TILE_ROWS];

    rows_at(job, task, r, n, row);
    block_ends(block, row, n, end);
    if (block->first == task->first || alone) attend_blank(block->first, alone, o, (size_t)n * (size_t)plan->v_row);
    for (int i = 0; i < n; i++) {
        if (alone || block_is_last(block, &row[i]))
            ask_to_write(tril_place_of(job, task, &row[i], block->first).o,
                         tril_row_bytes(call->out.dtype, call->v_dim));
    }
    block_scores(job, block, r, n, end, ws, s);
    for (int i = 0; i < n; i++)
        max[i] = softmax_scale(s + i * TRIL_SCORE_ROW, (int)end[i], job->log2_scale);
    for (int i = 0; i < n; i++)
        sum[i] = softmax_exp(true, s + i * TRIL_SCORE_ROW, (int)end[i], max[i]);
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
        if (alone || block_is_last(block, &row[i]))
            attend_close(job, task, &row[i], block->first, o + i * plan->v_row, row_max[i], row_sum[i]);
    }
}

static void attend_many(const struct tril_job *job, const struct tril_task *task, float *ws)
{
    const struct tril_plan *plan = job->plan;
    const size_t rows = (size_t)tril_task_rows(job, task);

    block_begin(rows, ws + plan->row_max, ws + plan->row_sum);
    for (int64_t first = task->first; first < task->keys; first += TRIL_KEY_BLOCK) {
        struct block block = block_at(job, task, first);
        block.panels = block_keys(job, task, first, block.keys, ws + plan->k);
        const struct tile_b values = block_values(job, task, first, block.keys, ws);
        for (size_t r = block.first_row; r < rows; r += TILE_ROWS) {
            const int n = rows - r < TILE_ROWS ? (int)(rows - r) : TILE_ROWS;
            if (first == task->first) block_queries(job, task, r, n, rows, ws + plan->q);
            attend_rows(job, task, &block, values, r, n, ws);
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
    few_begin(job, task, ws);
    few_open(&stream, job, task);
    memset(ws + plan->o, 0, (size_t)rows * (size_t)dims * sizeof(float));
    for (int64_t first = task->first; first < task->keys; first += TRIL_KEY_BLOCK) {
        float max[TRIL_FEW_ROWS_IN_ALL], sum[TRIL_FEW_ROWS_IN_ALL];
        int end[TRIL_FEW_ROWS_IN_ALL];
        few_scores(job, task, first, ws, &stream);
        few_softmax(job, task, first, true, ws, end, max, sum);
        few_values(job, task, first, end, ws, &stream);
        for (int r = 0; r < rows; r++) {
            float *o = ws + plan->o + r * dims, *block = ws + plan->block_o + r * dims, old, fresh;
            if (end[r] == 0) continue;
            const struct tril_task_row row = tril_task_row(job, task, r);
            if (alone) {
                for (int d = 0; first == 0 && d < dims; d += V_LANES)
                    v_store(block + d, v_add(v_load(block + d), v_zero()));
                attend_close(job, task, &row, first, block, max[r], sum[r]);
                continue;
            }
            softmax_fold(1, row_max + r, row_sum + r, max + r, sum + r, &old, &fresh);
            for (int d = 0; d < dims; d += V_LANES)
                v_store(o + d, v_fma(v_load(o + d), v_set1(old), v_mul(v_load(block + d), v_set1(fresh))));
        }
    }
    for (int r = 0; r < rows && !alone; r++) {
        const struct tril_task_row row = tril_task_row(job, task, r);
        if (row.visible > task->first)
            attend_close(job, task, &row, task->first, ws + plan->o + r * dims, row_max[r], row_sum[r]);
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
