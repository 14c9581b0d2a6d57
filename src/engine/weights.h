/* A task of tril_weights: its rows of A, or what they add to the column sums. A weight needs the row's final maximum
 * and sum, so t is kept until they are known: in the score buffer for a run of blocks, and for longer rows, run by run,
 * in the row's place in the result. Then it becomes exp2(t - max) / sum. Where the result has no room for t, in 16 bits
 * or sums, such rows are computed twice: once for their statistics and once more for their weights.
 *
 * A matrix of weights is larger than any cache, and writing it costs as much as a good part of the arithmetic, so a row
 * that fits a run is written once, front to back.
 */
#ifndef TRIL_ENGINE_WEIGHTS_H
#define TRIL_ENGINE_WEIGHTS_H

#include <limits.h>

#include "block.h"
#include "edge.h"
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

/* Floats of a line. A line goes past the caches as a whole: part of it in a cache would have to leave first. */
#define LINE_FLOATS (LINE_BYTES / (int)sizeof(float))

/* How many floats, n at most, until `to` begins a line. */
static ALWAYS_INLINE int64_t until_line(const float *to, int64_t n)
{
    const int64_t head = (int64_t)((0 - (uintptr_t)to) / sizeof(float) % LINE_FLOATS);
    return head < n ? head : n;
}

/* Fewer than a line of them. */
static void weights_finish_some(float *to, const float *t, int n, const vf base, const vf sum)
{
    for (int i = 0; i < n; i += V_LANES)
        weights_finish_part(to + i, t + i, lanes_of(n - i), base, sum);
}

static ALWAYS_INLINE void weights_finish_as(const bool stream, float *to, const float *t, const int64_t n,
                                            const vf base, const vf sum)
{
    int64_t i = stream ? until_line(to, n) : 0;
    weights_finish_some(to, t, (int)i, base, sum);
    for (; i + EXP2_VECS * V_LANES <= n; i += EXP2_VECS * V_LANES)
        weights_finish_vecs(EXP2_VECS, stream, to + i, t + i, base, sum);
    for (; i + LINE_FLOATS <= n; i += LINE_FLOATS)
        weights_finish_vecs(LINE_FLOATS / V_LANES, stream, to + i, t + i, base, sum);
    weights_finish_some(to + i, t + i, (int)(n - i), base, sum);
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

/* The same, each rounded to 16 bits. */
static void weights_finish_half(tril_dtype type, char *to, const float *t, int64_t n, const vf base, const vf sum)
{
    int64_t i = 0;
    for (; i + EXP2_VECS * V_LANES <= n; i += EXP2_VECS * V_LANES) {
        vf w[EXP2_VECS];
        UNROLL
        for (int u = 0; u < EXP2_VECS; u++)
            w[u] = v_sub(v_load(t + i + u * V_LANES), base);
        exp2_vecs(EXP2_VECS, w);
        UNROLL
        for (int u = 0; u < EXP2_VECS; u++)
            store_half(type, to + (i + u * V_LANES) * 2, v_div(w[u], sum));
    }
    for (; i + V_LANES <= n; i += V_LANES)
        store_half(type, to + i * 2, v_div(exp2_vec(v_sub(v_load(t + i), base)), sum));
    if (i == n) return;
    char some[V_LANES * sizeof(uint16_t)];
    store_half(type, some, v_div(exp2_vec(v_sub(v_load_part(t + i, (int)(n - i)), base)), sum));
    memcpy(to + i * 2, some, (size_t)(n - i) * 2);
}

/* The same, added to what is there. */
static void weights_add(float *to, const float *t, int64_t n, float max, float sum)
{
    const vf base = v_ninf_to_zero(v_set1(max)), l = v_set1(sum == 0.0f ? 1.0f : sum);
    int64_t i = 0;
    for (; i + V_LANES <= n; i += V_LANES)
        v_store(to + i, v_add(v_load(to + i), v_div(exp2_vec(v_sub(v_load(t + i), base)), l)));
    if (i == n) return;
    const int left = (int)(n - i);
    v_store_part(to + i, left,
                 v_add(v_load_part(to + i, left), v_div(exp2_vec(v_sub(v_load_part(t + i, left), base)), l)));
}

static void weights_zero(bool stream, float *to, int64_t n)
{
    if (!stream) {
        memset(to, 0, (size_t)n * sizeof(float));
        return;
    }
    /* No store of no lanes: it would bring in a line that nobody needs. */
    const int64_t head = until_line(to, n), tail = (n - head) % LINE_FLOATS;
    for (int64_t i = 0; i < head; i += V_LANES)
        v_store_part(to + i, lanes_of((int)(head - i)), v_zero());
    for (int64_t i = head; i < n - tail; i += V_LANES)
        v_stream(to + i, v_zero());
    for (int64_t i = n - tail; i < n; i += V_LANES)
        v_store_part(to + i, lanes_of((int)(n - i)), v_zero());
}

/* Whether the sequence's weights are too many for the caches. */
static bool weights_stream(const struct tril_job *job, const struct tril_task *task)
{
    return job->call->q_heads * task->seq->q_len >= STREAM_BYTES / (int64_t)sizeof(float) / (task->seq->kv_len + 1);
}

/* Whether the result adds up rows. */
static bool weights_sums(const struct tril_job *job)
{
    return job->weights->form == TRIL_WEIGHTS_COLUMN_SUMS;
}

/* Whether a row's place in the result can hold its t. */
static bool weights_hold(const struct tril_job *job)
{
    return !weights_sums(job) && job->weights->dtype == TRIL_F32;
}

static char *weights_at(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row)
{
    return tril_weights_row(job, task, row->query, row->head);
}

/* Columns of the row in all. */
static int64_t weights_columns(const struct tril_job *job, const struct tril_task *task,
                               const struct tril_task_row *row)
{
    return job->weights->form == TRIL_WEIGHTS_PACKED ? row->view.end : task->seq->kv_len;
}

/* Columns from ... to - 1 of the row, of which it sees all; their t. */
static void weights_put(const struct tril_job *job, bool stream, char *row, int64_t from, int64_t to, const float *t,
                        float max, float sum)
{
    const tril_dtype type = job->weights->dtype;
    const vf base = v_ninf_to_zero(v_set1(max)), l = v_set1(sum == 0.0f ? 1.0f : sum);
    if (weights_sums(job))
        weights_add((float *)(void *)row + from, t, to - from, max, sum);
    else if (type != TRIL_F32)
        weights_finish_half(type, row + from * 2, t, to - from, base, l);
    else
        weights_finish(stream, (float *)(void *)row + from, t, to - from, max, sum);
}

/* Columns `from` ... end - 1 of the row: its weights, or 0 where it sees no key. t: of column `from`. */
static void weights_write(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row,
                          bool stream, int64_t from, int64_t end, const float *t, float max, float sum)
{
    const int64_t begin = from;
    char *to = weights_at(job, task, row);
    for (int64_t next; from < end; from = next) {
        next = tril_stretch(job->call, task->seq, row->query, &row->view, from, end);
        if (tril_row_sees(job, task, row, from))
            weights_put(job, stream, to, from, next, t + (from - begin), max, sum);
        else if (!weights_sums(job) && job->weights->dtype != TRIL_F32)
            memset(to + from * 2, 0, (size_t)(next - from) * 2);
        else if (!weights_sums(job))
            weights_zero(stream, (float *)(void *)to + from, next - from);
    }
}

/* The row's statistics are complete but for a learned sink. */
static void weights_know(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row,
                         float *max, float *sum)
{
    const struct tril_place place = tril_place_of(job, task, row, task->first);
    if (tril_takes_sink(job, task)) {
        const struct tril_state sink = tril_sink_of(job, row);
        fold_states(NULL, 0, max, sum, &sink, 1);
    }
    tril_store_statistics(&place, *max, *sum);
}

/* A row whose t lies in the result before column `first`, and in `t` from there on. */
static void weights_close(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row,
                          int64_t first, const float *t, float max, float sum)
{
    const int64_t columns = weights_columns(job, task, row);
    weights_know(job, task, row, &max, &sum);
    if (columns == 0) return; /* the result may have no memory at all */
    if (first > 0)
        weights_write(job, task, row, false, 0, first, (float *)(void *)weights_at(job, task, row), max, sum);
    weights_write(job, task, row, weights_stream(job, task), first, columns, t, max, sum);
}

/* A row's t in the blocks of one part of a split unit, columns first ... end - 1: kept in the result, until the unit's
 * last part finishes the row. */
static void weights_keep(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row,
                         int64_t first, int64_t end, const float *t)
{
    if (row->view.end < end) end = row->view.end;
    if (first < end)
        memcpy((float *)(void *)weights_at(job, task, row) + first, t, (size_t)(end - first) * sizeof(float));
}

/* t of rows r ... r+n-1 of the task, with queries from row q on, against one packed block, and, where `count` asks for
 * them, their running statistics. */
static void weights_block(const struct tril_job *job, const struct tril_task *task, const struct block *block,
                          const struct tril_task_row *row, size_t r, size_t q, int n, bool count, float *ws, float *s)
{
    size_t end[TILE_ROWS] = {0};
    float max[TILE_ROWS], sum[TILE_ROWS], old[TILE_ROWS], fresh[TILE_ROWS];
    const bool edge = block->edge && rows_have_edge(job, task, block, row, n);
    unsigned any = UINT_MAX;

    block_ends(block, row, n, end);
    if (edge) {
        uint8_t seen[TRIL_KEY_BLOCK];
        any = rows_seeing(job, task, row, n, block->first, block->keys, seen);
        edge_scores(job, block, q, n, seen, ws, s, TRIL_SCORE_ROW);
        for (int i = 0; i < n; i++)
            max[i] = row_scale_edge(job, task, &row[i], block->first, s + i * TRIL_SCORE_ROW, (int)end[i]);
    } else {
        block_logits(job, task, block, row, q, n, end, ws, s, max);
    }
    if (!count) return;
    for (int i = 0; i < n; i++)
        sum[i] = softmax_exp(false, s + i * TRIL_SCORE_ROW, (int)end[i], max[i]);
    for (int i = 0; i < n && tril_blockwise(job, task); i++) {
        const struct tril_place place = tril_place_of(job, task, &row[i], block->first);
        tril_store_statistics(&place, max[i], sum[i]);
    }
    float *row_max = ws + job->plan->row_max + r, *row_sum = ws + job->plan->row_sum + r;
    if ((any | ~0u << n) == UINT_MAX) {
        softmax_fold(n, row_max, row_sum, max, sum, old, fresh);
        return;
    }
    for (int i = 0; i < n; i++) { /* what a row does not see is not folded */
        if ((any >> i & 1) != 0) softmax_fold(1, row_max + i, row_sum + i, max + i, sum + i, old, fresh);
    }
}

/* What a pass over the keys is for. */
struct weights_pass {
    bool count; /* the rows' statistics */
    bool write; /* their weights: at once, or, if it also counts, as soon as a row's statistics are known */
};

/* Asks for the lines of the row that a run of keys, first ... end - 1, stores to: otherwise they would stop the core.
 * Of one that this run closes past the caches that is the line where its weights end. */
static void weights_ask(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row,
                        int64_t first, int64_t end, bool past, bool write)
{
    const int64_t seen_to = row->view.end < end ? row->view.end : end;
    const bool closes = row->view.end <= first + RUN_KEYS;
    if (weights_sums(job) || seen_to == 0) return;
    const char *to = weights_at(job, task, row);
    if (!weights_hold(job)) {
        const int64_t until = closes ? weights_columns(job, task, row) : end;
        if (write) ask_to_write(to + first * 2, (until - first) * 2);
    } else if (past && closes) {
        ask_to_write((const float *)(const void *)to + seen_to - 1, (int64_t)sizeof(float));
    } else {
        ask_to_write((const float *)(const void *)to + first, (seen_to - first) * (int64_t)sizeof(float));
    }
}

/* t of rows r ... r+n-1 of the task, whose queries are packed as row q and those behind it, against a packed run of
 * blocks, and what follows. */
static void weights_rows(const struct tril_job *job, const struct tril_task *task, const struct block *blocks,
                         const struct weights_pass pass, size_t r, size_t q, int n, float *ws)
{
    const struct tril_plan *plan = job->plan;
    float *s = ws + plan->s;
    struct tril_task_row row[TILE_ROWS];
    const bool stream = weights_stream(job, task), split = tril_in_states(job, task);
    const int64_t first = blocks->first, end = task->keys - first < RUN_KEYS ? task->keys : first + RUN_KEYS;

    rows_at(job, task, r, n, row);
    for (int i = 0; i < n && pass.count; i++)
        weights_ask(job, task, &row[i], first, end, stream && !split, pass.write);
    for (int b = 0; first + b * TRIL_KEY_BLOCK < end; b++) {
        const struct block *block = &blocks[b];
        /* rows that see something of this block */
        const size_t from = block->first_row > r ? block->first_row - r : 0;
        const size_t to = block->last_row < r + (size_t)n ? (block->last_row > r ? block->last_row - r : 0) : (size_t)n;
        if (from >= to) continue;
        weights_block(job, task, block, row + from, r + from, q + from, (int)(to - from), pass.count, ws,
                      s + from * TRIL_SCORE_ROW + b * TRIL_KEY_BLOCK);
    }
    for (int i = 0; i < n; i++, s += TRIL_SCORE_ROW) {
        const float max = ws[plan->row_max + r + (size_t)i], sum = ws[plan->row_sum + r + (size_t)i];
        const int64_t seen_to = row[i].view.end < end ? row[i].view.end : end;
        if (split) {
            weights_keep(job, task, &row[i], first, end, s);
            const struct tril_place place = tril_place_of(job, task, &row[i], task->first);
            if (task->part == 0) tril_store_statistics(&place, max, sum);
        } else if (!pass.count) {
            weights_write(job, task, &row[i], false, first, seen_to, s, max, sum);
        } else if (!pass.write) {
            continue;
        } else if (row[i].view.end <= first + RUN_KEYS) {
            weights_close(job, task, &row[i], first, s, max, sum);
        } else {
            memcpy((float *)(void *)weights_at(job, task, &row[i]) + first, s, RUN_KEYS * sizeof(float));
        }
    }
}

/* These rows see no key at all. */
static void weights_blind(const struct tril_job *job, const struct tril_task *task, size_t rows)
{
    for (size_t r = 0; r < rows && !tril_in_states(job, task); r++) {
        const struct tril_task_row row = tril_task_row(job, task, (int64_t)r);
        if (row.view.end > 0) continue;
        weights_close(job, task, &row, 0, NULL, MINUS_INF, 0.0f);
    }
}

static void weights_walk(const struct tril_job *job, const struct tril_task *task, const struct weights_pass pass,
                         float *ws)
{
    const size_t rows = (size_t)tril_task_rows(job, task);
    /* Then queries need no more room than a group of rows has, and leave the caches to keys. */
    const bool once = pass.count && pass.write && task->keys - task->first <= RUN_KEYS;
    for (int64_t first = task->first; first < task->keys; first += RUN_KEYS) {
        if (first >= task->gap && first < task->gap_end) first = task->gap_end;
        const int64_t left = task->keys - first;
        const struct tile_b panels =
            block_keys(job, task, first, left < RUN_KEYS ? (int)left : RUN_KEYS, ws + job->plan->k);
        struct block blocks[TRIL_RUN_BLOCKS];
        for (int b = 0; b < TRIL_RUN_BLOCKS && first + b * TRIL_KEY_BLOCK < task->keys; b++) {
            blocks[b] = block_at(job, task, first + b * TRIL_KEY_BLOCK);
            blocks[b].panels = &panels;
            blocks[b].vec = b * TRIL_KEY_BLOCK / V_LANES;
        }
        for (size_t r = blocks[0].first_row; r < rows; r += TILE_ROWS) {
            const int n = rows - r < TILE_ROWS ? (int)(rows - r) : TILE_ROWS;
            const size_t q = once ? 0 : r;
            if (first == task->first && pass.count) block_queries(job, task, r, n, rows, q, ws + job->plan->q);
            weights_rows(job, task, blocks, pass, r, q, n, ws);
        }
    }
}

/* Between two passes: the rows' statistics as they are, and 0 for the keys that they do not see. */
static void weights_between(const struct tril_job *job, const struct tril_task *task, float *ws)
{
    for (int64_t r = 0; r < tril_task_rows(job, task); r++) {
        const struct tril_task_row row = tril_task_row(job, task, r);
        if (row.view.end == 0) continue; /* weights_blind() */
        const int64_t columns = weights_sums(job) ? 0 : weights_columns(job, task, &row);
        weights_know(job, task, &row, ws + job->plan->row_max + r, ws + job->plan->row_sum + r);
        for (int64_t from = 0, to; from < columns; from = to) {
            to = tril_stretch(job->call, task->seq, row.query, &row.view, from, columns);
            if (!tril_row_sees(job, task, &row, from))
                weights_write(job, task, &row, false, from, to, NULL, 0.0f, 0.0f);
        }
    }
}

static void weights_many(const struct tril_job *job, const struct tril_task *task, float *ws)
{
    const bool twice = weights_sums(job) || (!weights_hold(job) && task->keys - task->first > RUN_KEYS);
    block_begin((size_t)tril_task_rows(job, task), ws + job->plan->row_max, ws + job->plan->row_sum);
    weights_walk(job, task, (struct weights_pass){.count = true, .write = !twice}, ws);
    if (twice) {
        weights_between(job, task, ws);
        weights_walk(job, task, (struct weights_pass){.write = true}, ws);
    }
    if (weights_stream(job, task)) v_stream_end();
}

#if TIER_F32
static void weights_few(const struct tril_job *job, const struct tril_task *task, float *ws)
{
    const struct tril_plan *plan = job->plan;
    const int rows = (int)tril_task_rows(job, task);
    const bool split = tril_in_states(job, task), hold = weights_hold(job);
    float *row_max = ws + plan->row_max, *row_sum = ws + plan->row_sum;
    float max[TRIL_FEW_ROWS_IN_ALL], sum[TRIL_FEW_ROWS_IN_ALL];
    int end[TRIL_FEW_ROWS_IN_ALL];

    struct few_stream stream;
    struct tril_task_row row[TRIL_FEW_ROWS_IN_ALL];
    few_begin(job, task, row, ws);
    few_open(&stream, job, task, ws + job->plan->s);
    for (int64_t first = task->first; first < task->keys; first = tril_next_block(task, first)) {
        few_scores(job, task, first, ws, &stream);
        few_softmax(job, task, row, first, false, ws, end, max, sum);
        for (int r = 0; r < rows; r++) {
            float old, fresh;
            if (end[r] == 0) continue;
            const struct tril_place place = tril_place_of(job, task, &row[r], first);
            if (tril_blockwise(job, task)) tril_store_statistics(&place, max[r], sum[r]);
            softmax_fold(1, row_max + r, row_sum + r, max + r, sum + r, &old, &fresh);
            if (hold)
                memcpy((float *)(void *)weights_at(job, task, &row[r]) + first, ws + plan->s + (size_t)r * FEW_ROW,
                       (size_t)end[r] * sizeof(float));
        }
    }
    for (int r = 0; r < rows && hold; r++) {
        if (split) {
            const struct tril_place place = tril_place_of(job, task, &row[r], task->first);
            if (task->part == 0) tril_store_statistics(&place, row_max[r], row_sum[r]);
        } else if (row[r].view.end > 0) {
            weights_close(job, task, &row[r], row[r].view.end, NULL, row_max[r], row_sum[r]);
        }
    }
    if (!hold) {
        weights_between(job, task, ws);
        few_open(&stream, job, task, ws + job->plan->s);
        for (int64_t first = task->first; first < task->keys; first = tril_next_block(task, first)) {
            few_scores(job, task, first, ws, &stream);
            few_softmax(job, task, row, first, false, ws, end, max, sum);
            for (int r = 0; r < rows; r++) {
                if (end[r] > 0)
                    weights_write(job, task, &row[r], false, first, first + end[r], ws + plan->s + (size_t)r * FEW_ROW,
                                  row_max[r], row_sum[r]);
            }
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
