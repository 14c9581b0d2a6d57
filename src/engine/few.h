/* Few query rows, above all a single new token: time goes into reading keys and values, so each is read once, in the
 * order in which memory holds them, and asked for ahead.
 *
 *   for each block of 256 keys
 *     for each step of keys, for each K/V head:    few_scores   scores of the head's rows, keys across the lanes
 *     for each row:                                few_softmax
 *     for each step of values, for each K/V head:  few_values   goes on with the rows' chains, which lie in block_o
 *
 * The kernels are in few_dots.h, few_widen.h, few_stored.h and few_values.h; few_stream.h asks for memory. The order of
 * every operation is that of the block path, so the bits are the same. A key is transposed in registers on its way into
 * the chains of FEW_DOTS_ROWS rows; more rows share a panel in the first-level cache, which is made beside those chains
 * (FEW_KEEPS) or before them.
 */
#ifndef TRIL_ENGINE_FEW_H
#define TRIL_ENGINE_FEW_H

#include "few_values.h"

/* Panels of n keys from position `first` on, which begins one: the host's own, or packed into `to`. */
static struct tile_b panels_of(const struct tril_job *job, const struct tril_task *task, int64_t head, int64_t first,
                               int n, float *to)
{
    if (keys_in_place(job, first, n)) return panels_in_place(job, task, head, first);
    pack_keys(job, task, head, first, n, to);
    return (struct tile_b){to, PANEL, PANEL * (size_t)job->call->qk_dim};
}

/* Also finds all rows of the task, of which there are few. */
static void few_begin(const struct tril_job *job, const struct tril_task *task,
                      struct tril_task_row row[TRIL_FEW_ROWS_IN_ALL], float *ws)
{
    const int rows = (int)tril_task_rows(job, task), dims = job->call->qk_dim;
    block_begin((size_t)rows, ws + job->plan->row_max, ws + job->plan->row_sum);
    for (int r = 0; r < rows; r++) {
        row[r] = tril_task_row(job, task, r);
        pack_query(job, &row[r], ws + job->plan->q + (size_t)r * (size_t)dims);
    }
}

/* few_keys() of stored panels, as many of them as the n keys fill; how many keys those are. */
static int few_panel_keys(const struct tril_job *job, const struct tril_task *task, int64_t key, int n, int64_t head,
                          const float *q, float *s, struct few_stream *stream)
{
    const tril_tensor *x = &job->call->k;
    const int dims = job->call->qk_dim, rows = few_rows_of(job, task);
    int done = 0;
    for (int panels; done + PANEL <= n; done += panels * PANEL) {
        struct tril_rows k[FEW_PANELS];
        panels = n - done >= FEW_PANELS * PANEL ? FEW_PANELS : 1;
        for (int i = 0; i < FEW_PANELS; i++) /* one alone takes part twice, see few_keys() */
            k[i] = tril_rows_at(job, task, x, key + done + (i < panels ? i * PANEL : 0), task->head + head);
        for (int r = 0; r < rows; r += FEW_TYPED_ROWS)
            few_panels_by_type[x->dtype](few_rows_left(rows - r, FEW_TYPED_ROWS), q + r * dims, dims, k,
                                         s + r * FEW_ROW + done, stream);
    }
    return done;
}

/* few_keys() of two heads side by side, as many keys as fill vectors and panels; how many those are. */
static int few_two_heads(const struct tril_job *job, const struct tril_task *task, int64_t key, int n, int64_t head,
                         float *ws, struct few_stream *stream)
{
    const tril_tensor *x = &job->call->k;
    const int dims = job->call->qk_dim, rows = few_rows_of(job, task);
    const struct few_apart apart = {(size_t)rows * (size_t)dims, (size_t)rows * FEW_ROW};
    const float *q = ws + job->plan->q + (size_t)head * apart.q;
    float *s = ws + job->plan->s + (size_t)head * apart.s + (size_t)(key % TRIL_KEY_BLOCK);
    int done = 0;
    for (; done + PANEL <= n; done += PANEL) {
        struct tril_rows k[FEW_SIDES];
        for (int i = 0; i < FEW_SIDES; i++)
            k[i] = tril_rows_at(job, task, x, key + done, task->head + head + i);
        few_dots_by_type[x->dtype](FEW_SIDES, rows, q, dims, k, s + done, stream, apart);
    }
    return done;
}

/* Scores of rows r ... rows - 1 of a head against n keys in panels. */
static void few_tiles(int r, int rows, const float *q, int dims, const struct tile_b *panels, int n, float *s)
{
    for (int group; r < rows; r += group) {
        group = tile_share(rows - r, TILE_ROWS);
        for (int j = 0, width; j * V_LANES < n; j += width) {
            width = tile_share((n + V_LANES - 1) / V_LANES - j, TILE_VECS);
            const struct tile_b b = {tile_b_at(panels, j), panels->k_stride, panels->panel_stride};
            scores_by_vecs[width - 1](group, q + (size_t)r * (size_t)dims, (size_t)dims, &b,
                                      s + (size_t)r * FEW_ROW + j * V_LANES, FEW_ROW);
        }
    }
}

/* few_keys() of stored rows, from the `done`-th key on as many as fill vectors; how many those are. */
static int few_typed_keys(const struct tril_job *job, const struct tril_task *task, int64_t key, int n, int64_t head,
                          int done, const float *q, float *s, struct few_stream *stream)
{
    const tril_tensor *x = &job->call->k;
    const int dims = job->call->qk_dim, rows = few_rows_of(job, task);
    const int most = few_is_half(x->dtype) ? FEW_HALF_ROWS : FEW_TYPED_ROWS, most_sides = few_sides(x, rows);
    const struct few_apart apart = {0, V_LANES};
    for (int sides; done + V_LANES <= n; done += sides * V_LANES) {
        struct tril_rows k[FEW_SIDES];
        sides = n - done >= FEW_SIDES * V_LANES ? most_sides : 1;
        few_pull_short(stream, (n - done) / (sides * V_LANES));
        for (int i = 0; i < FEW_SIDES; i++) /* one alone takes part twice; what comes next overwrites that */
            k[i] = tril_rows_at(job, task, x, key + done + (i < sides ? i * V_LANES : 0), task->head + head);
        for (int r = 0; r < rows; r += most)
            few_dots_by_type[x->dtype](sides, few_rows_left(rows - r, most), q + r * dims, dims, k,
                                       s + r * FEW_ROW + done, stream, apart);
    }
    return done;
}

/* Whether keys are transposed in registers. */
static bool few_is_turned(const tril_tensor *x, int dims, int rows)
{
    return x->layout == TRIL_ROWS && dims >= V_LANES && (FEW_KEEPS || (x->dtype == TRIL_F32 && rows <= FEW_DOTS_ROWS));
}

/* few_keys() of those, as many as fill vectors; how many those are. */
static int few_turned_keys(const struct tril_job *job, const struct tril_task *task, int64_t key, int n, int64_t head,
                           const float *q, float *s, float *panel, struct few_stream *stream)
{
    const tril_tensor *x = &job->call->k;
    const int dims = job->call->qk_dim, rows = few_rows_of(job, task);
    int done = 0;
    for (; done + V_LANES <= n; done += V_LANES) {
        struct tril_rows k = tril_rows_at(job, task, x, key + done, task->head + head);
        few_pull_short(stream, (n - done) / V_LANES);
        if (FEW_KEEPS && x->dtype != TRIL_F32) {
            float *wide = panel + FEW_STEP * dims; /* behind the panels */
            widen_rows(x->dtype, &k, V_LANES, dims, pack_no_next, wide);
            k = (struct tril_rows){.data = (const char *)wide, .stride = dims * (int64_t)sizeof(float)};
        }
        if (FEW_KEEPS && rows > FEW_DOTS_ROWS)
            few_dots_keeping(q, dims, k.data, k.stride, s + done, panel + done * dims, stream);
        else
            few_dots_of(rows, q, dims, k.data, k.stride, s + done, stream);
    }
    if (FEW_KEEPS && rows > FEW_DOTS_ROWS)
        few_tiles(FEW_DOTS_ROWS, rows, q, dims, &(struct tile_b){panel, PANEL, (size_t)(PANEL * dims)}, done, s);
    return done;
}

/* Scores of n keys of one step, from position `key` on, for all rows of K/V head task->head + head; the first `done` of
 * them have theirs. */
static void few_keys(const struct tril_job *job, const struct tril_task *task, int64_t key, int n, int64_t head,
                     int done, float *ws, struct few_stream *stream)
{
    const tril_tensor *x = &job->call->k;
    const int dims = job->call->qk_dim, rows = few_rows_of(job, task);
    const float *q = ws + job->plan->q + (size_t)(head * rows) * (size_t)dims;
    float *s = ws + job->plan->s + (size_t)(head * rows) * FEW_ROW + (size_t)(key % TRIL_KEY_BLOCK);
    float *panel = ws + job->plan->k;
    if (few_is_typed(x, dims, rows))
        done = few_typed_keys(job, task, key, n, head, done, q, s, stream);
    else if (few_is_turned(x, dims, rows))
        done = few_turned_keys(job, task, key, n, head, q, s, panel, stream);
    if (done < n) done = done / PANEL * PANEL; /* where a panel begins */
    if (few_in_panels(x, rows)) done = few_panel_keys(job, task, key, n, head, q, s, stream);
    if (done == n) return;
    const struct tile_b panels = panels_of(job, task, task->head + head, key + done, n - done, panel);
    few_tiles(0, rows, q, dims, &panels, n - done, s + done);
}

/* Scores of all rows against the block at `first`. */
static void few_scores(const struct tril_job *job, const struct tril_task *task, int64_t first, float *ws,
                       struct few_stream *stream)
{
    const int step = stream->key_step, most = stream->key_heads;
    struct stretch part[2];
    const int parts = block_stretches(task, first, few_keys_of(task, first), part);
    COUNT_BLOCKS(parts > 0 ? task->heads : 0);
    for (int j = 0; j < parts; j++) {
        for (int i = part[j].from, end = part[j].to; i < end; i += step) {
            const int n = end - i < step ? end - i : step;
            for (int64_t head = 0, heads; head < task->heads; head += heads) {
                heads = task->heads - head < most ? 1 : most;
                few_budget(stream, job, task, head, heads, &stream->of_keys, n);
                const int done = heads > 1 ? few_two_heads(job, task, first + i, n, head, ws, stream) : 0;
                for (int64_t h = head; h < head + heads && done < n; h++)
                    few_keys(job, task, first + i, n, h, done, ws, stream);
            }
        }
    }
}

/* Up to which of the block's keys a row sees any, 0 for none. */
static int few_sees(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row,
                    int64_t first, int keys)
{
    const int64_t end = row->view.end - first;
    const int n = end < 0 ? 0 : end < keys ? (int)end : keys;
    return tril_row_sees_any(job, task, row, first, first + n) ? n : 0;
}

/* Whether a row sees the block otherwise than from its first key up to an end. */
static bool few_is_edge(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row,
                        int64_t first)
{
    const int64_t next = first + TRIL_KEY_BLOCK;
    return (row->view.begin > first && row->view.sink < next) || tril_tree_begin(job->call, task->seq) < next;
}

/* Up to which of the block's keys each row sees any, the rows' maxima and sums; scores become t, or p where `store`
 * asks. */
static void few_softmax(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row,
                        int64_t first, bool store, float *ws, int *end, float *max, float *sum)
{
    const int rows = (int)tril_task_rows(job, task), keys = few_keys_of(task, first);
    float *s = ws + job->plan->s;
    for (int r = 0; r < rows; r++, s += FEW_ROW) {
        end[r] = few_sees(job, task, &row[r], first, keys);
        if (end[r] == 0) continue;
        max[r] = few_is_edge(job, task, &row[r], first) ? row_scale_edge(job, task, &row[r], first, s, end[r])
                                                        : row_scale(job, task, &row[r], first, s, end[r]);
        sum[r] = store ? softmax_exp(true, s, end[r], max[r]) : softmax_exp(false, s, end[r], max[r]);
    }
}

/* n keys from position `key` on, of one head, on all its rows. */
static void few_typed_values(const struct tril_job *job, const struct tril_task *task,
                             const struct tril_task_row *rows_of, int64_t key, int n, int64_t head, const int *row_end,
                             bool edge, float *ws, struct few_stream *stream)
{
    const int rows = few_rows_of(job, task), at = (int)(key % TRIL_KEY_BLOCK);
    const size_t row = (size_t)(head * rows);
    struct tril_rows from[TRIL_KEY_BLOCK / PANEL];
    for (int i = 0; i < n; i += PANEL)
        from[(at + i) / PANEL] = tril_rows_at(job, task, &job->call->v, key + i, task->head + head);
    for (int r = 0; r < rows; r += FEW_TYPED_ROWS) {
        const float *p = ws + job->plan->s + (row + (size_t)r) * FEW_ROW;
        float *o = ws + job->plan->block_o + (row + (size_t)r) * (size_t)job->plan->v_row;
        const int group = few_rows_left(rows - r, FEW_TYPED_ROWS);
        if (edge)
            few_patches(job, task, rows_of + row + r, group, key, n, from, NULL, p, o, stream);
        else
            few_typed_triangle(job, from, (size_t)at, (size_t)(at + n), row_end + row + r, group, p, o, stream);
    }
}

/* One head's values, n of them from position `key` on, all rows. */
static void few_head_values(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row,
                            int64_t key, int n, int64_t head, const int *row_end, bool edge, float *ws,
                            struct few_stream *stream)
{
    const int rows = few_rows_of(job, task);
    for (int i = 0, run; i < n; i += run) {
        const struct tril_rows from = tril_rows_at(job, task, &job->call->v, key + i, task->head + head);
        run = tril_keys_together(job, key + i, n - i);
        float *here = ws + job->plan->v;
        struct few_rows v = few_rows(job, &from, run, here);
        const size_t k = (size_t)((key + i) % TRIL_KEY_BLOCK);
        const bool keep = !edge && few_keeps(&v, rows, k, k + (size_t)run, (size_t)row_end[head * rows]);
        for (int r = 0, group; r < rows; r += group) {
            const size_t at = (size_t)(head * rows + r);
            const float *p = ws + job->plan->s + at * FEW_ROW;
            float *o = ws + job->plan->block_o + at * (size_t)job->plan->v_row;
            group = more_share(rows - r);
            if (keep && r == 0) {
                group = TILE_ROWS;
                few_chain(job, v, k, k + (size_t)run, group, p, o, here, stream);
                v = (struct few_rows){here, NULL, (size_t)job->plan->v_row, v.vecs, false};
            } else if (edge)
                few_patches(job, task, row + at, group, key + i, run, NULL, &v, p, o, stream);
            else
                few_triangle(job, v, k, k + (size_t)run, row_end + at, group, p, o, stream);
        }
    }
}

/* block_o = the chains of the block's weights times its values. */
static void few_values(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row,
                       int64_t first, const int *row_end, float *ws, struct few_stream *stream)
{
    const tril_tensor *x = &job->call->v;
    const int rows = few_rows_of(job, task), step = stream->value_step;
    const bool typed = few_is_typed(x, job->call->v_dim, rows);
    struct few_stream none = {.idle = stream->idle};
    bool edge = false;
    for (int r = 0; r < rows; r++)
        edge |= few_is_edge(job, task, &row[r], first);
    memset(ws + job->plan->block_o, 0, (size_t)(task->heads * rows * job->plan->v_row) * sizeof(float));
    struct stretch part[2];
    for (int j = 0, parts = block_stretches(task, first, few_keys_of(task, first), part); j < parts; j++) {
        for (int k = part[j].from; k < part[j].to; k += step) {
            const int n = part[j].to - k < step ? part[j].to - k : step;
            for (int64_t head = 0; head < task->heads; head++) {
                few_budget(stream, job, task, head, 1, &stream->of_values, n);
                if (typed)
                    few_typed_values(job, task, row, first + k, n, head, row_end, edge, ws, stream);
                else
                    few_head_values(job, task, row, first + k, n, head, row_end, edge, ws,
                                    stream->far ? &none : stream);
            }
        }
    }
}

#endif
