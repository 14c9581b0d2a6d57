/* A task of tril_attend: its rows against every block of keys that they can see.
 *
 *   pack the queries; for each block of 256 keys: pack K and V once, then for each group of TILE_ROWS rows
 *     tile_scores -> softmax_scale, softmax_exp -> softmax_fold -> tile_fold
 *   O / l, and the row statistics
 */
#ifndef TRIL_ENGINE_ATTEND_H
#define TRIL_ENGINE_ATTEND_H

#include "block.h"

static void attend_store(const struct tril_job *job, const struct tril_task *task, const float *o, const float *row_max,
                         const float *row_sum)
{
    const tril_attention *call = job->call;
    for (int64_t i = 0; i < task->queries; i++) {
        const int64_t token = task->seq->q_first + task->query + i;
        for (int64_t g = 0; g < job->plan->group; g++, o += job->plan->v_row, row_max++, row_sum++) {
            const int64_t head = task->head * job->plan->group + g;
            float *to = tril_out_row(&call->out, token, head);
            const vf l = v_set1(*row_sum == 0.0f ? 1.0f : *row_sum); /* nothing to attend to: O is 0 */
            int d = 0;
            for (; d + V_LANES <= call->v_dim; d += V_LANES)
                v_store(to + d, v_div(v_load(o + d), l));
            if (d < call->v_dim) v_store_part(to + d, call->v_dim - d, v_div(v_load(o + d), l));
            tril_store_statistics(call, token, head, *row_max, *row_sum);
        }
    }
}

static void attend_task(const struct tril_job *job, const struct tril_task *task, float *ws)
{
    const struct tril_plan *plan = job->plan;
    const size_t rows = (size_t)(task->queries * plan->group);
    float *o = ws + plan->o, *row_max = ws + plan->row_max, *row_sum = ws + plan->row_sum;

    pack_queries(job, task, ws + plan->q);
    block_begin(rows, row_max, row_sum);
    memset(o, 0, rows * (size_t)plan->v_row * sizeof(float));

    for (int64_t first = 0; first < task->keys; first += TRIL_KEY_BLOCK) {
        const struct block block = block_at(job, task, first);
        pack_keys(job, task, first, block.keys, ws + plan->k);
        pack_values(job, task, first, block.keys, ws + plan->v);
        for (size_t r = block.first_row; r < rows; r += TILE_ROWS) {
            size_t end[TILE_ROWS];
            float max[TILE_ROWS], sum[TILE_ROWS], old[TILE_ROWS], fresh[TILE_ROWS];
            const int n = rows - r < TILE_ROWS ? (int)(rows - r) : TILE_ROWS;
            float *s = ws + plan->s;
            block_scores(job, &block, r, n, ws, end);
            for (int i = 0; i < n; i++, s += TRIL_SCORE_ROW) {
                max[i] = softmax_scale(s, (int)end[i], job->log2_scale);
                sum[i] = softmax_exp(true, s, (int)end[i], max[i]);
            }
            softmax_fold(n, row_max + r, row_sum + r, max, sum, old, fresh);
            block_fold(job, n, ws, end, o + r * (size_t)plan->v_row, old, fresh);
        }
    }
    attend_store(job, task, o, row_max, row_sum);
}

#endif
