/* Math mode BF16: what pack.h brings, as pairs of bf16, two to a float's place, and the chains where a tile of pairs is
 * in doubt. Pairs are neighbours: of a head's elements for the scores, of positions for the output. */
#ifndef TRIL_ENGINE_PAIRS_H
#define TRIL_ENGINE_PAIRS_H

#include "pack.h"

static int pairs_of(int n)
{
    return (n + 1) / 2;
}

/* A packed query, in place: what is written has been read. */
static void pair_query(float *q, int dims)
{
    uint16_t *to = (uint16_t *)(void *)q, last[V_LANES];
    int d = 0;
    for (; d + V_LANES <= dims; d += V_LANES)
        v_store_pairs(to + d, v_load(q + d));
    v_store_pairs(last, v_load_part(q + d, dims - d));
    memcpy(to + d, last, (size_t)(2 * pairs_of(dims) - d) * sizeof last[0]);
}

/* n packed keys: panels of [dims][16] become [pairs][16], one behind the other. */
static void pair_keys(float *k, int n, int dims)
{
    float *to = k;
    for (int key = 0; key < n; key += PANEL) {
        for (int d = 0; d < dims; d += 2, to += PANEL) {
            const float *from = k + (size_t)(key / PANEL * dims + d) * PANEL;
            UNROLL
            for (int u = 0; u < PANEL; u += V_LANES)
                v_store(to + u, v_pair(v_load(from + u), d + 1 < dims ? v_load(from + PANEL + u) : v_zero()));
        }
    }
}

/* Rows i and i + 1 of values, n of them there; the second is null behind the last key. */
static void pair_value(const tril_dtype type, const struct tril_rows *from, int i, int n, int dims, size_t v_panel,
                       float *to)
{
    const char *row = from->data + i * from->stride;
    const bool both = i + 1 < n;
    float first[TRIL_MAX_HEAD_DIM], second[TRIL_MAX_HEAD_DIM];
    pack_value(type, row, dims, tril_scale_of(from, i), PANEL, first);
    if (both) pack_value(type, row + from->stride, dims, tril_scale_of(from, i + 1), PANEL, second);
    for (int d = 0; d < dims; d += PANEL, to += v_panel) {
        UNROLL
        for (int u = 0; u < PANEL; u += V_LANES)
            v_store(to + u, v_pair(v_load(first + d + u), both ? v_load(second + d + u) : v_zero()));
    }
}

/* Values of the task's keys, as pack_values(). */
static void pair_values(const struct tril_job *job, const struct tril_task *task, int64_t first, int n, float *to)
{
    const tril_tensor *v = &job->call->v;
    for (int key = 0, run; key < n; key += run, to += (size_t)(run / 2) * PANEL) {
        const struct tril_rows from = rows_from(job, task, v, first + key, task->head);
        run = tril_keys_together(job, first + key, n - key);
        for (int i = 0; i < run; i += 2)
            pair_value(v->dtype, &from, i, run, job->call->v_dim, job->plan->v_panel, to + i / 2 * PANEL);
    }
}

/* A row's weights, in place; whole panels, of which what is not seen is +0. */
static void pair_weights(float *p, int n)
{
    uint16_t *to = (uint16_t *)(void *)p;
    for (int i = 0; i < n; i += V_LANES)
        v_store_weights(to + i, v_load(p + i));
}

/* a * b + c as a_dot() promises it, without haste. Twice 2^64 away from where a float ends nothing overflows, since a
 * sum near 2^-126 has no operand above 2^-60. */
static float flushed_fma(float a, float b, float c)
{
    const float t = __builtin_fmaf(a, b, c), limit = 0x1p-126f;
    if (!(__builtin_fabsf(t) <= limit)) return t;
    if (__builtin_fabsf(t) < limit) return __builtin_copysignf(0.0f, t);
    const float small = __builtin_fabsf(a) < __builtin_fabsf(b) ? a : b, large = small == a ? b : a;
    const float far = __builtin_fmaf(small * 0x1p64f, large, c * 0x1p64f);
    return __builtin_fabsf(far) < 0x1p-62f ? __builtin_copysignf(0.0f, t) : t;
}

static float slow_dot(uint32_t a, uint32_t b, float c)
{
    const float t = flushed_fma(tril_bits_to_float(a & 0xffff0000), tril_bits_to_float(b & 0xffff0000), c);
    return flushed_fma(tril_bits_to_float(a << 16), tril_bits_to_float(b << 16), t);
}

/* One chain of n values, two to a pair: row a, column `column` of the tile. */
static float slow_chain(const float *a, const struct tile_b *b, int column, size_t n)
{
    const float *column_b = b->data + (size_t)(column / PANEL) * b->panel_stride + (size_t)(column % PANEL);
    float s = 0.0f;
    for (size_t k = 0; k < n; k += 2) {
        const uint32_t keep = k + 1 < n ? UINT32_MAX : 0xffff;
        s = slow_dot(tril_float_to_bits(a[k / 2]) & keep, tril_float_to_bits(column_b[k / 2 * b->k_stride]) & keep, s);
    }
    return s;
}

static NOINLINE void slow_scores(int rows, int vecs, const float *a, size_t a_row, const struct tile_b *b, size_t n,
                                 float *s, size_t s_row)
{
    for (int r = 0; r < rows; r++) {
        for (int j = 0; j < vecs * V_LANES; j++)
            s[(size_t)r * s_row + (size_t)j] = slow_chain(a + (size_t)r * a_row, b, j, 2 * n);
    }
}

static NOINLINE void slow_fold(int rows, int vecs, const float *a, size_t a_row, const struct tile_b *b,
                               const size_t *end, float *o, size_t o_row, const float *old, const float *fresh)
{
    for (int r = 0; r < rows; r++) {
        float *row = o + (size_t)r * o_row;
        for (int j = 0; j < vecs * V_LANES; j++) {
            const float chain = slow_chain(a + (size_t)r * a_row, b, j, end[r]);
            row[j] = __builtin_fmaf(row[j], old[r], chain * fresh[r]);
        }
    }
}

#endif
