/* Pack: brings what the host has stored, whatever its type, layout and pages, into one form. Behind it there are dense
 * f32 operands in the workspace: queries as rows, keys as panels [key/16][dim][16], values as panels [dim/16][key][16].
 * Reads nothing but the rows it is asked for; what pads a panel is 0. */
#ifndef TRIL_ENGINE_PACK_H
#define TRIL_ENGINE_PACK_H

#include "convert.h"
#include "kernels.h"
#include "tile.h"

#define LINE_BYTES 64 /* a cache line */

/* Whether the rows of the panel after this one are asked for, row by row, while this one's are packed. A tier says so
 * before inclusion. */
#ifndef PACK_ASKS
#define PACK_ASKS 0
#endif

/* Lines that are about to be read or written, asked for while something else computes. */
static ALWAYS_INLINE void ask_to_read(const char *p, int64_t bytes)
{
    for (int64_t i = 0; i < bytes; i += LINE_BYTES)
        __builtin_prefetch(p + i, 0, 3);
}

static ALWAYS_INLINE void ask_to_write(const void *p, int64_t bytes)
{
    for (int64_t i = 0; i < bytes; i += LINE_BYTES)
        __builtin_prefetch((const char *)p + i, 1, 3);
}

/* tril_rows_at() as a call, for where it is rare. */
static NOINLINE struct tril_rows rows_from(const struct tril_job *job, const struct tril_task *task,
                                           const tril_tensor *x, int64_t key, int64_t head)
{
    return tril_rows_at(job, task, x, key, head);
}

/* Rows r ... r+n-1 of a task of one K/V head: tril_task_row(), but with one division for all of them, since a group of
 * rows meets a block so often that divisions would take a hundredth of the time. */
static ALWAYS_INLINE void rows_at(const struct tril_job *job, const struct tril_task *task, size_t r, int n,
                                  struct tril_task_row *row)
{
    const uint32_t group = (uint32_t)job->plan->group;
    uint32_t g = (uint32_t)r % group;
    int64_t query = task->query + (uint32_t)r / group;
    struct tril_view view = tril_view_of(job->call, task->seq, query);
    for (int i = 0; i < n; i++) {
        row[i] =
            (struct tril_task_row){(int64_t)r + i, query, task->seq->q_first + query, task->head * group + g, view};
        if (++g < group) continue;
        g = 0;
        query++;
        view = tril_view_of(job->call, task->seq, query);
    }
}

static void pack_query(const struct tril_job *job, const struct tril_task_row *row, float *to)
{
    const tril_tensor *q = &job->call->q;
    const char *from = tril_row(q, row->token, row->head);
    if (q->dtype == TRIL_F32)
        decode_as(TRIL_F32, from, 0.0f, to, job->call->qk_dim);
    else
        convert_row(to, TRIL_F32, NULL, from, q->dtype, NULL, job->call->qk_dim);
}

/* Rows r ... r+n-1 of the task, n <= MAX_ROWS; the next n are asked for. */
static void pack_queries(const struct tril_job *job, const struct tril_task *task, size_t r, int n, size_t rows,
                         float *to)
{
    const tril_tensor *q = &job->call->q;
    const int dims = job->call->qk_dim;
    struct tril_task_row row[2 * MAX_ROWS];
    const int known = r + 2 * (size_t)n < rows ? 2 * n : (int)(rows - r);
    rows_at(job, task, r, known, row);
    for (int i = 0; i < n; i++)
        pack_query(job, &row[i], to + (r + (size_t)i) * (size_t)dims);
    for (int i = n; i < known; i++)
        ask_to_read(tril_row(q, row[i].token, row[i].head), tril_row_bytes(q->dtype, dims));
}

/* The rows that are asked for. */
struct pack_next {
    const char *data;
    int rows;
};

static const struct pack_next pack_no_next = {NULL, 0};

/* Those behind the panel at position `key`, from which on n keys or values are to be packed. Intel's cores, which ask
 * into the second level, are slower for it. */
static struct pack_next pack_next(const struct tril_job *job, const struct tril_task *task, const tril_tensor *x,
                                  int64_t key, int n, int64_t head)
{
    const int rows = n - PANEL < PANEL ? n - PANEL : PANEL;
    if (!PACK_ASKS || job->asks_lower || rows <= 0) return pack_no_next;
    return (struct pack_next){rows_from(job, task, x, key + PANEL, head).data, rows};
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

/* A panel of f32 rows, n of them real; the tile reads all of it. */
static NOINLINE void pack_rows(const char *from, const int64_t stride, int n, const int dims, struct pack_next next,
                               float *to)
{
    const int64_t step = n > V_LANES ? V_LANES * stride : 0; /* the stride of one row alone may be any number */
    for (int key = 0; key < PANEL; key += V_LANES, n -= V_LANES, to += V_LANES, from += step) {
        int d = 0;
        for (; n >= V_LANES && d + V_LANES <= dims; d += V_LANES) {
            for (int i = key; PACK_ASKS && d % PANEL == 0 && i < key + V_LANES && i < next.rows; i++)
                ask_to_read(next.data + i * stride + (size_t)d * sizeof(float), LINE_BYTES);
            pack_square(from + (size_t)d * sizeof(float), stride, V_LANES, V_LANES, to + (size_t)d * PANEL);
        }
        for (; n > 0 && d < dims; d += V_LANES)
            pack_square(from + (size_t)d * sizeof(float), stride, n < V_LANES ? n : V_LANES,
                        dims - d < V_LANES ? dims - d : V_LANES, to + (size_t)d * PANEL);
        for (; d < dims; d++)
            v_store(to + (size_t)d * PANEL, v_zero());
    }
}

/* n rows of another type become f32. */
static void widen_rows(const tril_dtype type, const struct tril_rows *from, int n, const int dims,
                       struct pack_next next, float *to)
{
    for (int i = 0; i < n; i++, to += dims) {
        if (PACK_ASKS && i < next.rows) ask_to_read(next.data + i * from->stride, tril_row_bytes(type, dims));
        const float scale = tril_scale_of(from, i);
        convert_row(to, TRIL_F32, NULL, from->data + i * from->stride, type, &scale, dims);
    }
}

/* Rows of another type become f32 first, where the next panel will lie: that keeps the transposition one, and costs a
 * pass over the first-level cache. */
static void pack_stored_rows(const tril_dtype type, const struct tril_rows *from, int n, const int dims,
                             struct pack_next next, float *to)
{
    float *rows = to + (size_t)PANEL * (size_t)dims;
    widen_rows(type, from, n, dims, next, rows);
    pack_rows((const char *)rows, dims * (int64_t)sizeof(float), n, dims, pack_no_next, to);
}

/* A panel that is one already, of another type or in pages. What stands there for keys past the n that are seen has no
 * influence; their scales are not read. */
static ALWAYS_INLINE void pack_panel_as(const tril_dtype type, const struct tril_rows from, const int n, const int dims,
                                        float *to)
{
    float scale[PANEL] = {0.0f};
    for (int i = 0; type == TRIL_I8 && i < n; i++)
        scale[i] = tril_scale_of(&from, i);
    for (int d = 0; d < dims; d++) {
        UNROLL
        for (int u = 0; u < PANEL; u += V_LANES)
            v_store(to + d * PANEL + u, load_vec(type, from.data, d * PANEL + u, v_load(scale + u)));
    }
}

static NOINLINE void pack_panel(const tril_dtype type, const struct tril_rows *from, const int n, const int dims,
                                float *to)
{
    BY_TYPE(type, pack_panel_as, *from, n, dims, to);
}

/* n keys of K/V head `head`, from position `first` on, which begins a panel. */
static void pack_keys(const struct tril_job *job, const struct tril_task *task, int64_t head, int64_t first, int n,
                      float *to)
{
    const tril_tensor *k = &job->call->k;
    const int dims = job->call->qk_dim;
    for (int key = 0; key < n; key += PANEL, to += (size_t)PANEL * (size_t)dims) {
        const struct tril_rows from = rows_from(job, task, k, first + key, head);
        const struct pack_next next = pack_next(job, task, k, first + key, n - key, head);
        const int keys = n - key < PANEL ? n - key : PANEL;
        if (k->layout == TRIL_PANELS)
            pack_panel(k->dtype, &from, keys, dims, to);
        else if (k->dtype == TRIL_F32)
            pack_rows(from.data, from.stride, keys, dims, next, to);
        else
            pack_stored_rows(k->dtype, &from, keys, dims, next, to);
    }
}

/* Whether n keys from position `key` on lie as the tile wants them: panels of f32, evenly spaced. */
static bool keys_in_place(const struct tril_job *job, int64_t key, int n)
{
    const tril_tensor *k = &job->call->k;
    return k->layout == TRIL_PANELS && k->dtype == TRIL_F32 && tril_keys_together(job, key, n) == n;
}

static struct tile_b panels_in_place(const struct tril_job *job, const struct tril_task *task, int64_t head,
                                     int64_t first)
{
    const tril_tensor *k = &job->call->k;
    return (struct tile_b){(const float *)(const void *)rows_from(job, task, k, first, head).data, PANEL,
                           (size_t)k->token_stride * PANEL / sizeof(float)};
}

/* One row of values, a panel's columns next to each other and panels `v_panel` floats apart. */
static ALWAYS_INLINE void pack_value_as(const tril_dtype type, const char *row, const int dims, const float scale,
                                        const size_t v_panel, float *to)
{
    const vf s = v_set1(scale);
    int d = 0;
    for (; d + PANEL <= dims; d += PANEL, to += v_panel) {
        UNROLL
        for (int u = 0; u < PANEL; u += V_LANES)
            v_store(to + u, load_vec(type, row, d + u, s));
    }
    for (int u = 0; d < dims && u < PANEL; u += V_LANES)
        v_store(to + u, load_some(type, row, d + u, dims - d - u, s));
}

static NOINLINE void pack_value(const tril_dtype type, const char *row, const int dims, const float scale,
                                const size_t v_panel, float *to)
{
    BY_TYPE(type, pack_value_as, row, dims, scale, v_panel, to);
}

/* Values of the task's keys, from position `first` on, n of them. */
static void pack_values(const struct tril_job *job, const struct tril_task *task, int64_t first, int n, float *to)
{
    const tril_tensor *v = &job->call->v;
    for (int key = 0, run; key < n; key += run, to += (size_t)run * PANEL) {
        const struct tril_rows from = rows_from(job, task, v, first + key, task->head);
        const struct pack_next next = pack_next(job, task, v, first + key, n - key, task->head);
        run = tril_keys_together(job, first + key, n - key);
        if (PACK_ASKS && run > PANEL) run = PANEL;
        for (int i = 0; i < run; i++) {
            if (PACK_ASKS && i < next.rows)
                ask_to_read(next.data + i * from.stride, tril_row_bytes(v->dtype, job->call->v_dim));
            pack_value(v->dtype, from.data + i * from.stride, job->call->v_dim, tril_scale_of(&from, i),
                       job->plan->v_panel, to + i * PANEL);
        }
    }
}

#endif
