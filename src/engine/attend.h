/* A task of tril_attend: its rows against every block of keys that they can see.
 *
 *   for each block of 256 keys: pack K and V once, then for each group of TILE_ROWS rows
 *     in the first block: pack the queries
 *     tile_scores -> softmax_scale, softmax_exp -> softmax_fold -> tile_fold
 *     in a row's last block: O / l, and the row statistics
 *
 * What comes from or goes to memory does so group by group, and is asked for a group or a block ahead, so that it
 * travels while the tiles compute.
 */
#ifndef TRIL_ENGINE_ATTEND_H
#define TRIL_ENGINE_ATTEND_H

#include "block.h"

static void attend_close(const struct tril_job *job, const struct row_place *row, const float *o, float max, float sum)
{
    const tril_attention *call = job->call;
    float *to = tril_out_row(&call->out, row->token, row->head);
    const vf l = v_set1(sum == 0.0f ? 1.0f : sum); /* nothing to attend to: O is 0 */
    int d = 0;
    for (; d + V_LANES <= call->v_dim; d += V_LANES)
        v_store(to + d, v_div(v_load(o + d), l));
    if (d < call->v_dim) v_store_part(to + d, call->v_dim - d, v_div(v_load(o + d), l));
    tril_store_statistics(call, row->token, row->head, max, sum);
}

/* Rows r ... r+n-1 of the task against one packed block; those that see no later block are closed. */
static void attend_rows(const struct tril_job *job, const struct tril_task *task, const struct block *block,
                        struct tile_b values, size_t r, int n, float *ws)
{
    const struct tril_plan *plan = job->plan;
    const tril_attention *call = job->call;
    const int64_t first = task->position - block->offset;
    float *s = ws + plan->s, *o = ws + plan->o + r * (size_t)plan->v_row;
    float *row_max = ws + plan->row_max + r, *row_sum = ws + plan->row_sum + r;
    size_t end[TILE_ROWS] = {0};
    float max[TILE_ROWS], sum[TILE_ROWS], old[TILE_ROWS], fresh[TILE_ROWS];

    block_ends(job, block, r, n, end);
    if (first == 0) memset(o, 0, (size_t)n * (size_t)plan->v_row * sizeof(float));
    for (int i = 0; i < n; i++) {
        const struct row_place row = row_at(job, task, r + (size_t)i);
        if (block_is_last(block, &row)) ask_to_write(tril_out_row(&call->out, row.token, row.head), call->v_dim);
    }
    block_scores(job, block, r, n, end, ws, s);
    for (int i = 0; i < n; i++)
        max[i] = softmax_scale(s + i * TRIL_SCORE_ROW, (int)end[i], job->log2_scale);
    for (int i = 0; i < n; i++)
        sum[i] = softmax_exp(true, s + i * TRIL_SCORE_ROW, (int)end[i], max[i]);
    softmax_fold(n, row_max, row_sum, max, sum, old, fresh);
    block_fold(job, n, ws, end, values, o, old, fresh);
    for (int i = 0; i < n; i++) {
        const struct row_place row = row_at(job, task, r + (size_t)i);
        if (block_is_last(block, &row)) attend_close(job, &row, o + i * plan->v_row, row_max[i], row_sum[i]);
    }
}

static void attend_task(const struct tril_job *job, const struct tril_task *task, float *ws)
{
    const struct tril_plan *plan = job->plan;
    const size_t rows = (size_t)(task->queries * plan->group), seeing = block_at(job, task, 0, NULL).first_row;

    block_begin(rows, ws + plan->row_max, ws + plan->row_sum);
    memset(ws + plan->o, 0, (size_t)plan->v_row * sizeof(float));
    for (size_t r = 0; r < rows && r < seeing; r++) { /* these rows see no key at all */
        const struct row_place row = row_at(job, task, r);
        attend_close(job, &row, ws + plan->o, MINUS_INF, 0.0f);
    }
    for (int64_t first = 0; first < task->keys; first += TRIL_KEY_BLOCK) {
        const struct block block = block_at(job, task, first, ws + plan->k);
        pack_keys(job, task, first, block.keys, ws + plan->k);
        const struct tile_b values = block_values(job, task, first, block.keys, ws);
        for (size_t r = block.first_row; r < rows; r += TILE_ROWS) {
            const int n = rows - r < TILE_ROWS ? (int)(rows - r) : TILE_ROWS;
            if (first == 0) pack_queries(job, task, r, n, rows, ws + plan->q);
            attend_rows(job, task, &block, values, r, n, ws);
        }
    }
}

#endif
