/* The scalar tier: the oracle that every other tier is compared with by memcmp, and the fallback where no other runs.
 * Naive loops in the order of docs/contract.md; it shares no arithmetic with the engine. Compiled without any
 * instruction-set flag, and with -ffp-contract=off, as everything here. */
#include <string.h>

#include "kernels.h"

#define LANES     16
#define MINUS_INF (-__builtin_inff())

/* a * b + c, rounded once. Where the compiler has an instruction for it, that; otherwise in double: the product is
 * exact there, and the sum, rounded to double and then to float, is right unless the double lies exactly between two
 * floats, or the float would be subnormal. Then the sum is rounded to odd instead, which makes the second rounding
 * right (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums: proved algorithms using rounding to odd",
 * 2008). */
#ifdef __FP_FAST_FMAF
static float fma_once(float a, float b, float c)
{
    return __builtin_fmaf(a, b, c);
}
#else
static float round_to_odd(double p, double c, double s)
{
    const double back = s - p, error = (p - (s - back)) + (c - back); /* Knuth's two-sum: p + c == s + error */
    uint64_t bits;
    memcpy(&bits, &s, sizeof bits);
    if (error != 0.0 && (bits & 1) == 0 && error - error == 0.0) bits += (error > 0.0) == (s > 0.0) ? 1 : (uint64_t)-1;
    memcpy(&s, &bits, sizeof s);
    return (float)s;
}

static float fma_once(float a, float b, float c)
{
    const double p = (double)a * (double)b, s = p + (double)c;
    uint64_t bits;
    memcpy(&bits, &s, sizeof bits);
    const int between = (bits & 0x1fffffff) == 0x10000000;
    const int small = (bits & 0x7fffffffffffffff) < 0x3810000000000000; /* |s| < 2^-126 */
    return between || small ? round_to_odd(p, (double)c, s) : (float)s;
}
#endif

/* 2^t for t <= 127: +0 below -126, a NaN stays. The magic number's ulp is 1, so adding it rounds to an integer, ties to
 * even. */
static float exp2_once(float t)
{
    if (t < -126.0f) return 0.0f;
    if (t != t) return t;
    const float magic = 0x1.8p23f, n = (t + magic) - magic, r = t - n;
    float p = 0x1.3fa208p-13f;
    p = fma_once(p, r, 0x1.5f0b82p-10f);
    p = fma_once(p, r, 0x1.3b30a0p-7f);
    p = fma_once(p, r, 0x1.c6af76p-5f);
    p = fma_once(p, r, 0x1.ebfbd8p-3f);
    p = fma_once(p, r, 0x1.62e430p-1f);
    p = fma_once(p, r, 1.0f);
    int32_t bits;
    memcpy(&bits, &p, sizeof bits);
    bits += (int32_t)n * (1 << 23);
    memcpy(&p, &bits, sizeof p);
    return p;
}

static float larger(float x, float best)
{
    return x > best ? x : best; /* a NaN x leaves best */
}

/* exp2(t - max), where a maximum of -inf (nothing visible but -inf and NaN) counts as 0. */
static float exp2_from(float t, float max)
{
    return exp2_once(t - (max == MINUS_INF ? 0.0f : max));
}

/* Element (key, d) of a K/V head. */
static const float *key_at(const struct tril_job *job, const struct tril_task *task, int64_t key, int64_t head,
                           int *stride)
{
    const tril_tensor *k = &job->call->k;
    const int64_t token = task->token + key;
    if (k->layout == TRIL_PANELS) {
        *stride = TRIL_PANEL;
        return tril_row(k, token / TRIL_PANEL * TRIL_PANEL, head) + token % TRIL_PANEL;
    }
    *stride = 1;
    return tril_row(k, token, head);
}

/* t of n keys from `first` on; their maximum, and the sum of their p, 16 lanes by position and then a tree. */
static void block_softmax(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row,
                          int64_t first, int n, float *t, float *max, float *sum)
{
    const tril_attention *call = job->call;
    const float *q = tril_row(&call->q, row->token, row->head);
    float best = MINUS_INF, lane[LANES] = {0.0f};
    for (int j = 0; j < n; j++) {
        int stride;
        const float *k = key_at(job, task, first + j, row->head / job->plan->group, &stride);
        float s = 0.0f;
        for (int d = 0; d < call->qk_dim; d++)
            s = fma_once(q[d], k[(ptrdiff_t)d * stride], s);
        t[j] = s * job->log2_scale;
        best = larger(t[j], best);
    }
    for (int j = 0; j < n; j++)
        lane[j % LANES] += exp2_from(t[j], best);
    for (int half = LANES / 2; half > 0; half /= 2) {
        for (int j = 0; j < half; j++)
            lane[j] += lane[j + half];
    }
    *max = best + 0.0f; /* -0 becomes +0 */
    *sum = lane[0];
}

/* The running maximum and sum, and what the fold multiplies the old output and the block's by. */
static void fold(float *row_max, float *row_sum, float max, float sum, float *old, float *fresh)
{
    const float top = larger(max, *row_max);
    *old = exp2_from(*row_max, top);
    *fresh = exp2_from(max, top);
    *row_max = top;
    *row_sum = fma_once(*row_sum, *old, sum * *fresh);
}

/* How many of the block's keys a row of the task sees. */
static int block_keys(const struct tril_task *task, const struct tril_task_row *row, int64_t first)
{
    const int64_t end = row->visible < task->keys ? row->visible : task->keys;
    return end - first < TRIL_KEY_BLOCK ? (int)(end - first) : TRIL_KEY_BLOCK;
}

/* One block's O before any division, and its maximum and sum. */
static void attend_block(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row,
                         int64_t first, float *p, float *o, float *max, float *sum)
{
    const tril_attention *call = job->call;
    const int n = block_keys(task, row, first);
    block_softmax(job, task, row, first, n, p, max, sum);
    for (int d = 0; d < call->v_dim; d++)
        o[d] = 0.0f;
    for (int j = 0; j < n; j++) {
        const float *v = tril_row(&call->v, task->token + first + j, row->head / job->plan->group);
        const float weight = exp2_from(p[j], *max);
        for (int d = 0; d < call->v_dim; d++)
            o[d] = fma_once(weight, v[d], o[d]);
    }
}

static void attend_row(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row,
                       float *ws)
{
    const tril_attention *call = job->call;
    float *o = ws + job->plan->o, *block = ws + job->plan->v, *p = ws + job->plan->s;
    float row_max = MINUS_INF, row_sum = 0.0f;

    for (int d = 0; d < call->v_dim; d++)
        o[d] = 0.0f;
    for (int64_t first = task->first; first < task->keys && first < row->visible; first += TRIL_KEY_BLOCK) {
        float max, sum, old, fresh;
        attend_block(job, task, row, first, p, block, &max, &sum);
        if (tril_blockwise(job, task)) {
            const struct tril_place to = tril_place_of(job, task, row, first);
            for (int d = 0; d < call->v_dim; d++) /* the first block of all is folded onto +0 */
                to.o[d] = first == 0 ? block[d] + 0.0f : block[d];
            tril_store_statistics(&to, max, sum);
            continue;
        }
        fold(&row_max, &row_sum, max, sum, &old, &fresh);
        for (int d = 0; d < call->v_dim; d++)
            o[d] = fma_once(o[d], old, block[d] * fresh);
    }
    if (tril_blockwise(job, task)) return;
    const struct tril_place to = tril_place_of(job, task, row, task->first);
    const float l = tril_divides(job, task) && row_sum != 0.0f ? row_sum : 1.0f;
    for (int d = 0; d < call->v_dim; d++)
        to.o[d] = o[d] / l;
    tril_store_statistics(&to, row_max, row_sum);
}

static void weights_end(float *row, int64_t n, float max, float sum)
{
    for (int64_t j = 0; j < n; j++)
        row[j] = exp2_from(row[j], max) / (sum == 0.0f ? 1.0f : sum);
}

static void weights_row(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row,
                        float *ws)
{
    const int64_t columns = job->weights->form == TRIL_WEIGHTS_DENSE ? task->seq->kv_len : row->visible;
    float *to = columns > 0 ? tril_weights_row(job->weights, task, row->query, row->head) : NULL;
    float *t = ws + job->plan->s;
    float row_max = MINUS_INF, row_sum = 0.0f;

    for (int64_t first = task->first; first < task->keys && first < row->visible; first += TRIL_KEY_BLOCK) {
        const int n = block_keys(task, row, first);
        float max, sum, old, fresh;
        block_softmax(job, task, row, first, n, t, &max, &sum);
        memcpy(to + first, t, (size_t)n * sizeof(float));
        if (tril_blockwise(job, task)) {
            const struct tril_place state = tril_place_of(job, task, row, first);
            tril_store_statistics(&state, max, sum);
        }
        fold(&row_max, &row_sum, max, sum, &old, &fresh);
    }
    if (!tril_blockwise(job, task)) {
        const struct tril_place state = tril_place_of(job, task, row, task->first);
        tril_store_statistics(&state, row_max, row_sum);
    }
    if (!tril_in_states(job, task)) weights_end(to, row->visible, row_max, row_sum);
    if (task->part > 0) return;
    for (int64_t j = row->visible; j < columns; j++)
        to[j] = 0.0f;
}

static void each_row(const struct tril_job *job, const struct tril_task *task, float *ws,
                     void (*of)(const struct tril_job *, const struct tril_task *, const struct tril_task_row *,
                                float *))
{
    for (int64_t i = 0; i < tril_task_rows(job, task); i++) {
        const struct tril_task_row row = tril_task_row(job, task, i);
        of(job, task, &row, ws);
    }
}

static void attend_seeing_row(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row,
                              float *ws)
{
    if (row->visible > task->first) attend_row(job, task, row, ws);
}

static void attend_task(const struct tril_job *job, const struct tril_task *task, float *ws)
{
    each_row(job, task, ws, attend_seeing_row);
}

static void weights_task(const struct tril_job *job, const struct tril_task *task, float *ws)
{
    each_row(job, task, ws, weights_row);
}

static void fold_states(float *o, int dim, float *max, float *sum, const struct tril_state *states, int n)
{
    for (int i = 0; i < n; i++) {
        float old, fresh;
        if (states[i].sum == 0.0f && __builtin_signbit(states[i].sum)) continue;
        fold(max, sum, states[i].max, states[i].sum, &old, &fresh);
        for (int d = 0; d < dim; d++)
            o[d] = fma_once(o[d], old, states[i].o[d] * fresh);
    }
}

static void exp2_array(float *to, const float *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = exp2_once(from[i]);
}

const struct tril_kernels tril_kernels_scalar = {
    .name = "scalar",
    .blocking = {.lanes = 1, .tile_rows = 1, .task_rows = 1, .few_rows = 0},
    .attend = attend_task,
    .weights = weights_task,
    .weights_end = weights_end,
    .fold = fold_states,
    .exp2 = exp2_array,
};
