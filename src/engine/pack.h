/* Pack: the one place that knows how the host stores its rows. Behind it there are dense f32 operands in the workspace:
 * queries as rows, keys as panels [key/16][dim][16], values as panels [dim/16][key][16]. Reads nothing but the rows it
 * is asked for; what pads a panel is 0. */
#ifndef TRIL_ENGINE_PACK_H
#define TRIL_ENGINE_PACK_H

#include "kernels.h"
#include "tile.h"

#define LINE_FLOATS 16 /* a cache line */

/* Lines that are about to be read or written, asked for while something else computes. */
static ALWAYS_INLINE void ask_to_read(const float *p, int64_t n)
{
    for (int64_t i = 0; i < n; i += LINE_FLOATS)
        __builtin_prefetch(p + i, 0, 2);
}

static ALWAYS_INLINE void ask_to_write(const float *p, int64_t n)
{
    for (int64_t i = 0; i < n; i += LINE_FLOATS)
        __builtin_prefetch(p + i, 1, 3);
}

/* Rows r ... r+n-1 of a task of one K/V head: tril_task_row(), but with one division for all of them, since a group of
 * rows meets a block so often that divisions would take a hundredth of the time. */
static ALWAYS_INLINE void rows_at(const struct tril_job *job, const struct tril_task *task, size_t r, int n,
                                  struct tril_task_row *row)
{
    const uint32_t group = (uint32_t)job->plan->group;
    uint32_t query = (uint32_t)r / group, g = (uint32_t)r % group;
    for (int i = 0; i < n; i++) {
        row[i] = (struct tril_task_row){(int64_t)r + i, task->query + query, task->seq->q_first + task->query + query,
                                        task->head * group + g, tril_visible(task->position + query)};
        if (++g < group) continue;
        g = 0;
        query++;
    }
}

/* Rows r ... r+n-1 of the task, n <= MAX_ROWS; the next n are asked for. */
static void pack_queries(const struct tril_job *job, const struct tril_task *task, size_t r, int n, size_t rows,
                         float *to)
{
    const tril_tensor *q = &job->call->q;
    const int64_t dims = job->call->qk_dim;
    struct tril_task_row row[2 * MAX_ROWS];
    const int known = r + 2 * (size_t)n < rows ? 2 * n : (int)(rows - r);
    rows_at(job, task, r, known, row);
    for (int i = 0; i < n; i++)
        memcpy(to + (r + (size_t)i) * (size_t)dims, tril_row(q, row[i].token, row[i].head),
               (size_t)dims * sizeof(float));
    for (int i = n; i < known; i++)
        ask_to_read(tril_row(q, row[i].token, row[i].head), dims);
}

/* V_LANES keys x V_LANES dims (n and dims of them real), transposed. */
static ALWAYS_INLINE void pack_square(const char *from, const int64_t stride, const int n, const int dims, float *to)
{
    vf r[V_LANES];
    UNROLL
    for (int i = 0; i < V_LANES; i++) {
        const float *row = (const float *)(const void *)(from + (i < n ? i : 0) * stride);
        r[i] = i >= n ? v_zero() : dims == V_LANES ? v_load(row) : v_load_part(row, dims);
    }
    v_transpose(r);
    UNROLL
    for (int i = 0; i < V_LANES; i++) {
        if (i < dims) v_store(to + (size_t)i * PANEL, r[i]);
    }
}

/* n keys of rows, from `first` on, of K/V head `head`. */
static void pack_keys(const struct tril_job *job, const struct tril_task *task, int64_t head, int64_t first, int n,
                      float *to)
{
    const tril_tensor *k = &job->call->k;
    const int dims = job->call->qk_dim;
    for (int key = 0; key < n; key += V_LANES) {
        const char *from = (const char *)tril_row(k, task->token + first + key, head);
        float *panel = to + (size_t)(key / PANEL) * PANEL * (size_t)dims + (size_t)(key % PANEL);
        const int keys = n - key < V_LANES ? n - key : V_LANES;
        int d = 0;
        if (keys == V_LANES) {
            for (; d + V_LANES <= dims; d += V_LANES)
                pack_square(from + (size_t)d * sizeof(float), k->token_stride, V_LANES, V_LANES,
                            panel + (size_t)d * PANEL);
        }
        for (; d < dims; d += V_LANES)
            pack_square(from + (size_t)d * sizeof(float), k->token_stride, keys,
                        dims - d < V_LANES ? dims - d : V_LANES, panel + (size_t)d * PANEL);
    }
    /* A tile reads whole panels: the vectors that no key reached. */
    const int reached = (n + V_LANES - 1) / V_LANES * V_LANES, end = (n + PANEL - 1) / PANEL * PANEL;
    for (int key = reached; key < end; key += V_LANES) {
        float *panel = to + (size_t)(key / PANEL) * PANEL * (size_t)dims + (size_t)(key % PANEL);
        for (int d = 0; d < dims; d++)
            v_store(panel + (size_t)d * PANEL, v_zero());
    }
}

/* Values of the same keys. */
static void pack_values(const struct tril_job *job, const struct tril_task *task, int64_t first, int n, float *to)
{
    const tril_tensor *v = &job->call->v;
    const int dims = job->call->v_dim, whole = dims / PANEL;
    for (int key = 0; key < n; key++) {
        const float *row = tril_row(v, task->token + first + key, task->head);
        float *at = to + (size_t)key * PANEL;
        for (int panel = 0; panel < whole; panel++, at += job->plan->v_panel, row += PANEL) {
            UNROLL
            for (int u = 0; u < PANEL; u += V_LANES)
                v_store(at + u, v_load(row + u));
        }
        for (int u = 0; whole * PANEL < dims && u < PANEL; u += V_LANES) {
            const int left = dims - whole * PANEL - u;
            v_store(at + u, v_load_part(left > 0 ? row + u : row, left < 0 ? 0 : left < V_LANES ? left : V_LANES));
        }
    }
}

#endif
