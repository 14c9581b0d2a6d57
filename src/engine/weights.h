/* A task of tril_weights: its rows of A. Two walks over a row, because a weight needs the final maximum and sum: first
 * t goes to the row's place in the result, block by block, then it becomes exp2(t - max) / sum there. */
#ifndef TRIL_ENGINE_WEIGHTS_H
#define TRIL_ENGINE_WEIGHTS_H

#include "block.h"

static void weights_finish(float *row, const int64_t visible, const int64_t columns, const float max, const float sum)
{
    const vf base = v_ninf_to_zero(v_set1(max)), l = v_set1(sum == 0.0f ? 1.0f : sum);
    int64_t i = 0;
    for (; i + V_LANES <= visible; i += V_LANES)
        v_store(row + i, v_div(exp2_vec(v_sub(v_load(row + i), base)), l));
    if (i < visible) {
        const int n = (int)(visible - i);
        v_store_part(row + i, n, v_div(exp2_vec(v_sub(v_load_part(row + i, n), base)), l));
    }
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

static void weights_task(const struct tril_job *job, const struct tril_task *task, float *ws)
{
    const struct tril_plan *plan = job->plan;
    const tril_weights_out *to = job->weights;
    const int64_t group = plan->group;
    const size_t rows = (size_t)(task->queries * group);
    float *row_max = ws + plan->row_max, *row_sum = ws + plan->row_sum;

    pack_queries(job, task, ws + plan->q);
    block_begin(rows, row_max, row_sum);

    for (int64_t first = 0; first < task->keys; first += TRIL_KEY_BLOCK) {
        const struct block block = block_at(job, task, first);
        pack_keys(job, task, first, block.keys, ws + plan->k);
        for (size_t r = block.first_row; r < rows; r += TILE_ROWS) {
            size_t end[TILE_ROWS];
            float max[TILE_ROWS], sum[TILE_ROWS], old[TILE_ROWS], fresh[TILE_ROWS];
            const int n = rows - r < TILE_ROWS ? (int)(rows - r) : TILE_ROWS;
            float *s = ws + plan->s;
            block_scores(job, &block, r, n, ws, end);
            for (int i = 0; i < n; i++, s += TRIL_SCORE_ROW) {
                const int64_t row = (int64_t)r + i;
                max[i] = softmax_scale(s, (int)end[i], job->log2_scale);
                sum[i] = softmax_exp(false, s, (int)end[i], max[i]);
                weights_keep(tril_weights_row(to, task, task->query + row / group, task->head * group + row % group) +
                                 first,
                             s, (int)end[i]);
            }
            softmax_fold(n, row_max + r, row_sum + r, max, sum, old, fresh);
        }
    }

    for (size_t r = 0; r < rows; r++) {
        const int64_t i = (int64_t)r / group, head = task->head * group + (int64_t)r % group;
        const int64_t visible = tril_visible(task->position + i);
        const int64_t columns = to->form == TRIL_WEIGHTS_DENSE ? task->seq->kv_len : visible;
        weights_finish(tril_weights_row(to, task, task->query + i, head), visible, columns, row_max[r], row_sum[r]);
        tril_store_statistics(job->call, task->seq->q_first + task->query + i, head, row_max[r], row_sum[r]);
    }
}

#endif
