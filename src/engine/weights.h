/* A task of tril_weights: its rows of A. Two walks over a row, because a weight needs the final maximum and sum: first
 * t goes to the row's place in the result, block by block, then it becomes exp2(t - max) / sum there. */
#ifndef TRIL_ENGINE_WEIGHTS_H
#define TRIL_ENGINE_WEIGHTS_H

#include "block.h"

/* `vecs` vectors of a row, of which the first n lanes are real. */
static ALWAYS_INLINE void weights_finish_run(const int vecs, float *row, const int n, const vf base, const vf sum)
{
    const bool whole = n == vecs * V_LANES;
    vf w[EXP2_VECS];
    UNROLL
    for (int u = 0; u < vecs; u++)
        w[u] = v_sub(whole ? v_load(row + u * V_LANES) : v_load_part(row, n), base);
    exp2_vecs(vecs, w);
    UNROLL
    for (int u = 0; u < vecs; u++)
        w[u] = v_div(w[u], sum);
    UNROLL
    for (int u = 0; u < vecs; u++) {
        if (whole)
            v_store(row + u * V_LANES, w[u]);
        else
            v_store_part(row, n, w[u]);
    }
}

static void weights_finish(float *row, const int64_t visible, const int64_t columns, const float max, const float sum)
{
    const vf base = v_ninf_to_zero(v_set1(max)), l = v_set1(sum == 0.0f ? 1.0f : sum);
    int64_t i = 0;
    for (; i + EXP2_VECS * V_LANES <= visible; i += EXP2_VECS * V_LANES)
        weights_finish_run(EXP2_VECS, row + i, EXP2_VECS * V_LANES, base, l);
    for (; i + V_LANES <= visible; i += V_LANES)
        weights_finish_run(1, row + i, V_LANES, base, l);
    if (i < visible) weights_finish_run(1, row + i, (int)(visible - i), base, l);
    if (visible < columns) memset(row + visible, 0, (size_t)(columns - visible) * sizeof(float));
}

/* Stores the n values of t that a row sees of a block. */
static void weights_keep(float *to, const float *t, const int n)
{
    int i = 0;
    for (; i + V_LANES <= n; i += V_LANES)
        v_store(to + i, v_load(t + i));
    if (i < n) v_store_part(to + i, n - i, v_load(t + i));
}

static float *weights_at(const struct tril_job *job, const struct tril_task *task, const struct row_place *row)
{
    return tril_weights_row(job->weights, task, task->query + row->query, row->head);
}

static void weights_close(const struct tril_job *job, const struct tril_task *task, const struct row_place *row,
                          float max, float sum)
{
    const int64_t visible = tril_visible(task->position + row->query);
    const int64_t columns = job->weights->form == TRIL_WEIGHTS_DENSE ? task->seq->kv_len : visible;
    weights_finish(weights_at(job, task, row), visible, columns, max, sum);
    tril_store_statistics(job->call, row->token, row->head, max, sum);
}

/* Rows r ... r+n-1 of the task against one packed block; those that see no later block are closed. */
static void weights_rows(const struct tril_job *job, const struct tril_task *task, const struct block *block, size_t r,
                         int n, float *ws)
{
    const int64_t first = task->position - block->offset;
    float *s = ws + job->plan->s, *row_max = ws + job->plan->row_max + r, *row_sum = ws + job->plan->row_sum + r;
    size_t end[TILE_ROWS] = {0};
    float *to[TILE_ROWS], max[TILE_ROWS], sum[TILE_ROWS], old[TILE_ROWS], fresh[TILE_ROWS];

    block_ends(job, block, r, n, end);
    for (int i = 0; i < n; i++) {
        const struct row_place row = row_at(job, task, r + (size_t)i);
        to[i] = weights_at(job, task, &row) + first;
        ask_to_write(to[i], (int64_t)end[i]); /* a burst of stores to lines far away would stop the core */
    }
    block_scores(job, r, n, end, ws);
    for (int i = 0; i < n; i++)
        max[i] = softmax_scale(s + i * TRIL_SCORE_ROW, (int)end[i], job->log2_scale);
    for (int i = 0; i < n; i++) {
        sum[i] = softmax_exp(false, s + i * TRIL_SCORE_ROW, (int)end[i], max[i]);
        weights_keep(to[i], s + i * TRIL_SCORE_ROW, (int)end[i]);
    }
    softmax_fold(n, row_max, row_sum, max, sum, old, fresh);
    for (int i = 0; i < n; i++) {
        const struct row_place row = row_at(job, task, r + (size_t)i);
        if (block_is_last(block, &row)) weights_close(job, task, &row, row_max[i], row_sum[i]);
    }
}

static void weights_task(const struct tril_job *job, const struct tril_task *task, float *ws)
{
    const struct tril_plan *plan = job->plan;
    const size_t rows = (size_t)(task->queries * plan->group), seeing = block_at(job, task, 0).first_row;

    block_begin(rows, ws + plan->row_max, ws + plan->row_sum);
    for (size_t r = 0; r < rows && r < seeing; r++) { /* these rows see no key at all */
        const struct row_place row = row_at(job, task, r);
        weights_close(job, task, &row, MINUS_INF, 0.0f);
    }
    for (int64_t first = 0; first < task->keys; first += TRIL_KEY_BLOCK) {
        const struct block block = block_at(job, task, first);
        pack_keys(job, task, first, block.keys, ws + plan->k);
        for (size_t r = block.first_row; r < rows; r += TILE_ROWS) {
            const int n = rows - r < TILE_ROWS ? (int)(rows - r) : TILE_ROWS;
            if (first == 0) pack_queries(job, task, r, n, rows, ws + plan->q);
            weights_rows(job, task, &block, r, n, ws);
        }
    }
}

#endif
