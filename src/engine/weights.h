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
#if TIER_F32
#include "few.h"
#endif

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

static float *weights_at(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row)
{
    return tril_weights_row(job->weights, task, row->query, row->head);
}

/* Columns of the row in all. */
static int64_t weights_columns(const struct tril_job *job, const struct tril_task *task,
                               const struct tril_task_row *row)
{
    return job->weights->form == TRIL_WEIGHTS_DENSE ? task->seq->kv_len : row->visible;
}

/* A row whose t lies in the result before column `first`, and in `t` from there on. */
static void weights_close(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row,
                          int64_t first, const float *t, float max, float sum)
{
    const int64_t visible = row->visible, columns = weights_columns(job, task, row);
    const bool stream = weights_stream(job, task);
    const struct tril_place place = tril_place_of(job, task, row, first);
    if (columns > 0) { /* else the result may have no memory at all */
        float *to = weights_at(job, task, row);
        weights_finish(false, to, to, first, max, sum);
        if (visible > 0) weights_finish(stream, to + first, t, visible - first, max, sum);
        weights_zero(stream, to + visible, columns - visible);
    }
    tril_store_statistics(&place, max, sum);
}

/* A row's t in the blocks of one part of a split unit, columns first ... end - 1: kept in the result, until the unit's
 * last part finishes the row. What the row does not see belongs to the first part. */
static void weights_keep(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row,
                         int64_t first, int64_t end, const float *t)
{
    float *to = weights_at(job, task, row);
    const int64_t columns = weights_columns(job, task, row);
    if (row->visible < end) end = row->visible;
    if (first < end) memcpy(to + first, t, (size_t)(end - first) * sizeof(float));
    if (task->part == 0 && first == 0 && row->visible < columns)
        memset(to + row->visible, 0, (size_t)(columns - row->visible) * sizeof(float));
}

/* t and the running statistics of rows r ... r+n-1 of the task against one packed block. */
static void weights_block(const struct tril_job *job, const struct tril_task *task, const struct block *block,
                          const struct tril_task_row *row, size_t r, int n, float *ws, float *s)
{
    size_t end[TILE_ROWS] = {0};
    float max[TILE_ROWS], sum[TILE_ROWS], old[TILE_ROWS], fresh[TILE_ROWS];

    block_ends(block, row, n, end);
    block_scores(job, block, r, n, end, ws, s);
    for (int i = 0; i < n; i++)
        max[i] = softmax_scale(s + i * TRIL_SCORE_ROW, (int)end[i], job->log2_scale);
    for (int i = 0; i < n; i++)
        sum[i] = softmax_exp(false, s + i * TRIL_SCORE_ROW, (int)end[i], max[i]);
    for (int i = 0; i < n && tril_blockwise(job, task); i++) {
        const struct tril_place place = tril_place_of(job, task, &row[i], block->first);
        tril_store_statistics(&place, max[i], sum[i]);
    }
    softmax_fold(n, ws + job->plan->row_max + r, ws + job->plan->row_sum + r, max, sum, old, fresh);
}

/* Rows r ... r+n-1 of the task against a packed run of blocks that begins at key `first`. */
static void weights_rows(const struct tril_job *job, const struct tril_task *task, int64_t first, struct tile_b panels,
                         size_t r, int n, float *ws)
{
    const struct tril_plan *plan = job->plan;
    float *s = ws + plan->s;
    struct tril_task_row row[TILE_ROWS];
    const bool stream = weights_stream(job, task), split = tril_in_states(job, task);
    const int64_t end = task->keys - first < RUN_KEYS ? task->keys : first + RUN_KEYS;

    rows_at(job, task, r, n, row);
    for (int i = 0; i < n; i++) {
        /* stores to lines that nobody asked for would stop the core */
        const int64_t here = row[i].visible - first;
        if (!stream || here > RUN_KEYS || split)
            ask_to_write(weights_at(job, task, &row[i]) + first,
                         (here < end - first ? here : end - first) * (int64_t)sizeof(float));
    }
    for (int b = 0; first + b * TRIL_KEY_BLOCK < end; b++) {
        const int64_t at = first + b * TRIL_KEY_BLOCK;
        int skip = 0; /* rows that see nothing of this block */
        while (skip < n && row[skip].visible <= at)
            skip++;
        if (skip == n) break;
        struct block block = block_at(job, task, at);
        block.panels = panels;
        block.panels.data += (size_t)(b * TRIL_KEY_BLOCK / PANEL) * panels.panel_stride;
        weights_block(job, task, &block, row + skip, r + (size_t)skip, n - skip, ws,
                      s + skip * TRIL_SCORE_ROW + b * TRIL_KEY_BLOCK);
    }
    for (int i = 0; i < n; i++, s += TRIL_SCORE_ROW) {
        const float max = ws[plan->row_max + r + (size_t)i], sum = ws[plan->row_sum + r + (size_t)i];
        if (split) {
            weights_keep(job, task, &row[i], first, end, s);
            const struct tril_place place = tril_place_of(job, task, &row[i], task->first);
            if (task->part == 0) tril_store_statistics(&place, max, sum);
        } else if (row[i].visible <= first + RUN_KEYS) {
            weights_close(job, task, &row[i], first, s, max, sum);
        } else {
            memcpy(weights_at(job, task, &row[i]) + first, s, RUN_KEYS * sizeof(float));
        }
    }
}

/* These rows see no key at all. */
static void weights_blind(const struct tril_job *job, const struct tril_task *task, size_t rows)
{
    for (size_t r = 0; r < rows && task->part == 0; r++) {
        const struct tril_task_row row = tril_task_row(job, task, (int64_t)r);
        if (row.visible > 0) continue;
        if (tril_in_states(job, task))
            weights_keep(job, task, &row, 0, 0, NULL);
        else
            weights_close(job, task, &row, 0, NULL, MINUS_INF, 0.0f);
    }
}

static void weights_many(const struct tril_job *job, const struct tril_task *task, float *ws)
{
    const struct tril_plan *plan = job->plan;
    const size_t rows = (size_t)tril_task_rows(job, task);

    block_begin(rows, ws + plan->row_max, ws + plan->row_sum);
    for (int64_t first = task->first; first < task->keys; first += RUN_KEYS) {
        const int64_t left = task->keys - first;
        const struct tile_b panels = block_keys(job, task, first, left < RUN_KEYS ? (int)left : RUN_KEYS, ws + plan->k);
        for (size_t r = block_at(job, task, first).first_row; r < rows; r += TILE_ROWS) {
            const int n = rows - r < TILE_ROWS ? (int)(rows - r) : TILE_ROWS;
            if (first == task->first) block_queries(job, task, r, n, rows, ws + plan->q);
            weights_rows(job, task, first, panels, r, n, ws);
        }
    }
    if (weights_stream(job, task)) v_stream_end();
}

#if TIER_F32
static void weights_few(const struct tril_job *job, const struct tril_task *task, float *ws)
{
    const struct tril_plan *plan = job->plan;
    const int rows = (int)tril_task_rows(job, task);
    const bool split = tril_in_states(job, task);
    float *row_max = ws + plan->row_max, *row_sum = ws + plan->row_sum;

    struct few_stream stream;
    few_begin(job, task, ws);
    few_open(&stream, job, task);
    for (int64_t first = task->first; first < task->keys; first += TRIL_KEY_BLOCK) {
        float max[TRIL_FEW_ROWS_IN_ALL], sum[TRIL_FEW_ROWS_IN_ALL];
        int end[TRIL_FEW_ROWS_IN_ALL];
        few_scores(job, task, first, ws, &stream);
        few_softmax(job, task, first, false, ws, end, max, sum);
        for (int r = 0; r < rows; r++) {
            float old, fresh;
            if (end[r] == 0) continue;
            const struct tril_task_row row = tril_task_row(job, task, r);
            const struct tril_place place = tril_place_of(job, task, &row, first);
            if (tril_blockwise(job, task)) tril_store_statistics(&place, max[r], sum[r]);
            softmax_fold(1, row_max + r, row_sum + r, max + r, sum + r, &old, &fresh);
            memcpy(weights_at(job, task, &row) + first, ws + plan->s + (size_t)r * FEW_ROW,
                   (size_t)end[r] * sizeof(float));
        }
    }
    for (int r = 0; r < rows; r++) {
        const struct tril_task_row row = tril_task_row(job, task, r);
        if (row.visible <= task->first) continue;
        if (split) {
            const struct tril_place place = tril_place_of(job, task, &row, task->first);
            weights_keep(job, task, &row, 0, 0, NULL);
            if (task->part == 0) tril_store_statistics(&place, row_max[r], row_sum[r]);
        } else {
            weights_close(job, task, &row, row.visible, NULL, row_max[r], row_sum[r]);
        }
    }
    if (weights_stream(job, task)) v_stream_end();
}

#endif

static void weights_task(const struct tril_job *job, const struct tril_task *task, float *ws)
{
    weights_blind(job, task, (size_t)tril_task_rows(job, task));
    if (task->first >= task->keys) return; /* there may be no key in memory at all */
#if TIER_F32
    if (task->few) {
        weights_few(job, task, ws);
        return;
    }
#endif
    weights_many(job, task, ws);
}

static void weights_end(float *row, int64_t n, float max, float sum)
{
    weights_finish(false, row, row, n, max, sum);
}

#endif
