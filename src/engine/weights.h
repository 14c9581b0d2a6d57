/* A task of tril_weights: its rows of A. A weight needs the row's final maximum and sum, so t is kept until they are
 * known: in the score buffer for a run of blocks, and for longer rows, run by run, in the row's place in the result.
 * Then it becomes exp2(t - max) / sum.
 *
 * A matrix of weights is larger than any cache, and writing it costs as much as a good part of the arithmetic, so a row
 * that fits a run is written once, front to back.
 */
#ifndef TRIL_ENGINE_WEIGHTS_H
#define TRIL_ENGINE_WEIGHTS_H

#include "block.h"

#define RUN_KEYS (TRIL_RUN_BLOCKS * TRIL_KEY_BLOCK)

/* Results of this size and more go past the caches: they would not stay there, and a line that is written whole need
 * not be read first. */
#define STREAM_BYTES (4 << 20)

static ALWAYS_INLINE void weights_store(const bool stream, float *to, const vf w)
{
    if (stream)
        v_stream(to, w);
    else
        v_store(to, w);
}

/* The weights of `vecs` vectors of t; `to` may be `t`. */
static ALWAYS_INLINE void weights_finish_vecs(const int vecs, const bool stream, float *to, const float *t,
                                              const vf base, const vf sum)
{
    vf w[EXP2_VECS];
    UNROLL
    for (int u = 0; u < vecs; u++)
        w[u] = v_sub(v_load(t + u * V_LANES), base);
    exp2_vecs(vecs, w);
    UNROLL
    for (int u = 0; u < vecs; u++)
        weights_store(stream, to + u * V_LANES, v_div(w[u], sum));
}

static ALWAYS_INLINE void weights_finish_part(float *to, const float *t, int n, const vf base, const vf sum)
{
    v_store_part(to, n, v_div(exp2_vec(v_sub(v_load_part(t, n), base)), sum));
}

/* How many floats, n at most, until `to` is aligned to a vector. */
static ALWAYS_INLINE int64_t until_aligned(const float *to, int64_t n)
{
    const int64_t head = (int64_t)((0 - (uintptr_t)to) / sizeof(float) % V_LANES);
    return head < n ? head : n;
}

static ALWAYS_INLINE void weights_finish_as(const bool stream, float *to, const float *t, const int64_t n,
                                            const vf base, const vf sum)
{
    int64_t i = stream ? until_aligned(to, n) : 0;
    if (i > 0) weights_finish_part(to, t, (int)i, base, sum);
    for (; i + EXP2_VECS * V_LANES <= n; i += EXP2_VECS * V_LANES)
        weights_finish_vecs(EXP2_VECS, stream, to + i, t + i, base, sum);
    for (; i + V_LANES <= n; i += V_LANES)
        weights_finish_vecs(1, stream, to + i, t + i, base, sum);
    if (i < n) weights_finish_part(to + i, t + i, (int)(n - i), base, sum);
}

/* The weights of n values of t; `to` may be `t`. */
static void weights_finish(bool stream, float *to, const float *t, int64_t n, float max, float sum)
{
    const vf base = v_ninf_to_zero(v_set1(max)), l = v_set1(sum == 0.0f ? 1.0f : sum);
    if (stream)
        weights_finish_as(true, to, t, n, base, l);
    else
        weights_finish_as(false, to, t, n, base, l);
}

static void weights_zero(bool stream, float *to, int64_t n)
{
    if (!stream) {
        memset(to, 0, (size_t)n * sizeof(float));
        return;
    }
    int64_t i = until_aligned(to, n);
    v_store_part(to, (int)i, v_zero());
    for (; i + V_LANES <= n; i += V_LANES)
        v_stream(to + i, v_zero());
    v_store_part(to + i, (int)(n - i), v_zero());
}

/* Whether the sequence's weights are too many for the caches. */
static bool weights_stream(const struct tril_job *job, const struct tril_task *task)
{
    return job->call->q_heads * task->seq->q_len >= STREAM_BYTES / (int64_t)sizeof(float) / (task->seq->kv_len + 1);
}

static float *weights_at(const struct tril_job *job, const struct tril_task *task, const struct row_place *row)
{
    return tril_weights_row(job->weights, task, task->query + row->query, row->head);
}

/* A row whose t lies in the result before column `first`, and in `t` from there on. */
static void weights_close(const struct tril_job *job, const struct tril_task *task, const struct row_place *row,
                          int64_t first, const float *t, float max, float sum)
{
    const int64_t visible = tril_visible(task->position + row->query);
    const bool stream = weights_stream(job, task), dense = job->weights->form == TRIL_WEIGHTS_DENSE;
    const int64_t columns = dense ? task->seq->kv_len : visible;
    if (columns > 0) { /* else the result may have no memory at all */
        float *to = weights_at(job, task, row);
        weights_finish(false, to, to, first, max, sum);
        if (visible > 0) weights_finish(stream, to + first, t, visible - first, max, sum);
        weights_zero(stream, to + visible, columns - visible);
    }
    tril_store_statistics(job->call, row->token, row->head, max, sum);
}

/* t and the running statistics of rows r ... r+n-1 of the task against one packed block. */
static void weights_block(const struct tril_job *job, const struct block *block, size_t r, int n, float *ws, float *s)
{
    size_t end[TILE_ROWS] = {0};
    float max[TILE_ROWS], sum[TILE_ROWS], old[TILE_ROWS], fresh[TILE_ROWS];

    block_ends(job, block, r, n, end);
    block_scores(job, block, r, n, end, ws, s);
    for (int i = 0; i < n; i++)
        max[i] = softmax_scale(s + i * TRIL_SCORE_ROW, (int)end[i], job->log2_scale);
    for (int i = 0; i < n; i++)
        sum[i] = softmax_exp(false, s + i * TRIL_SCORE_ROW, (int)end[i], max[i]);
    softmax_fold(n, ws + job->plan->row_max + r, ws + job->plan->row_sum + r, max, sum, old, fresh);
}

/* Rows r ... r+n-1 of the task against a packed run of blocks that begins at key `first`. */
static void weights_rows(const struct tril_job *job, const struct tril_task *task, int64_t first, size_t r, int n,
                         float *ws)
{
    const struct tril_plan *plan = job->plan;
    float *s = ws + plan->s;
    struct row_place row[TILE_ROWS];
    int64_t visible[TILE_ROWS] = {0};
    const bool stream = weights_stream(job, task);

    for (int i = 0; i < n; i++) {
        row[i] = row_at(job, task, r + (size_t)i);
        visible[i] = tril_visible(task->position + row[i].query);
        /* stores to lines that nobody asked for would stop the core */
        const int64_t here = visible[i] - first;
        if (!stream || here > RUN_KEYS)
            ask_to_write(weights_at(job, task, &row[i]) + first, here < RUN_KEYS ? here : RUN_KEYS);
    }
    for (int b = 0; b < TRIL_RUN_BLOCKS; b++) {
        const int64_t at = first + b * TRIL_KEY_BLOCK;
        int skip = 0; /* rows that see nothing of this block */
        while (skip < n && visible[skip] <= at)
            skip++;
        if (skip == n) break;
        const struct block block =
            block_at(job, task, at, ws + plan->k + (size_t)(b * TRIL_KEY_BLOCK) * (size_t)job->call->qk_dim);
        weights_block(job, &block, r + (size_t)skip, n - skip, ws, s + skip * TRIL_SCORE_ROW + b * TRIL_KEY_BLOCK);
    }
    for (int i = 0; i < n; i++, s += TRIL_SCORE_ROW) {
        const float max = ws[plan->row_max + r + (size_t)i], sum = ws[plan->row_sum + r + (size_t)i];
        if (visible[i] <= first + RUN_KEYS)
            weights_close(job, task, &row[i], first, s, max, sum);
        else
            memcpy(weights_at(job, task, &row[i]) + first, s, RUN_KEYS * sizeof(float));
    }
}

static void weights_task(const struct tril_job *job, const struct tril_task *task, float *ws)
{
    const struct tril_plan *plan = job->plan;
    const size_t rows = (size_t)(task->queries * plan->group), seeing = block_at(job, task, 0, NULL).first_row;

    block_begin(rows, ws + plan->row_max, ws + plan->row_sum);
    for (size_t r = 0; r < rows && r < seeing; r++) { /* these rows see no key at all */
        const struct row_place row = row_at(job, task, r);
        weights_close(job, task, &row, 0, NULL, MINUS_INF, 0.0f);
    }
    for (int64_t first = 0; first < task->keys; first += RUN_KEYS) {
        const int64_t left = task->keys - first;
        pack_keys(job, task, first, left < RUN_KEYS ? (int)left : RUN_KEYS, ws + plan->k);
        for (size_t r = block_at(job, task, first, NULL).first_row; r < rows; r += TILE_ROWS) {
            const int n = rows - r < TILE_ROWS ? (int)(rows - r) : TILE_ROWS;
            if (first == 0) pack_queries(job, task, r, n, rows, ws + plan->q);
            weights_rows(job, task, first, r, n, ws);
        }
    }
    if (weights_stream(job, task)) v_stream_end();
}

#endif
