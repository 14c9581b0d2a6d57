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

/* t of n keys from `first` on; their maximum, and the sum of their p, 16 lanes by position and then a tree. */
static void block_softmax(const struct tril_job *job, const struct tril_task *task, const float *q, int64_t first,
                          int n, float *t, float *max, float *sum)
{
    const tril_attention *call = job->call;
    float best = MINUS_INF, lane[LANES] = {0.0f};
    for (int j = 0; j < n; j++) {
        const float *k = tril_row(&call->k, task->seq->kv_first + first + j, task->head);
        float s = 0.0f;
        for (int d = 0; d < call->qk_dim; d++)
            s = fma_once(q[d], k[d], s);
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

static int block_keys(int64_t visible, int64_t first)
{
    return visible - first < TRIL_KEY_BLOCK ? (int)(visible - first) : TRIL_KEY_BLOCK;
}

static void attend_row(const struct tril_job *job, const struct tril_task *task, int64_t i, int64_t head, float *ws)
{
    const tril_attention *call = job->call;
    const int64_t visible = tril_visible(task->position + i), token = task->seq->q_first + task->query + i;
    const float *q = tril_row(&call->q, token, head);
    float *o = ws + job->plan->o, *block = ws + job->plan->v, *p = ws + job->plan->s;
    float row_max = MINUS_INF, row_sum = 0.0f;

    for (int d = 0; d < call->v_dim; d++)
        o[d] = 0.0f;
    for (int64_t first = 0; first < visible; first += TRIL_KEY_BLOCK) {
        const int n = block_keys(visible, first);
        float max, sum, old, fresh;
        block_softmax(job, task, q, first, n, p, &max, &sum);
        for (int d = 0; d < call->v_dim; d++)
            block[d] = 0.0f;
        for (int j = 0; j < n; j++) {
            const float *v = tril_row(&call->v, task->seq->kv_first + first + j, task->head);
            const float weight = exp2_from(p[j], max);
            for (int d = 0; d < call->v_dim; d++)
                block[d] = fma_once(weight, v[d], block[d]);
        }
        fold(&row_max, &row_sum, max, sum, &old, &fresh);
        for (int d = 0; d < call->v_dim; d++)
            o[d] = fma_once(o[d], old, block[d] * fresh);
    }
    float *out = tril_out_row(&call->out, token, head);
    for (int d = 0; d < call->v_dim; d++)
        out[d] = o[d] / (row_sum == 0.0f ? 1.0f : row_sum);
    tril_store_statistics(call, token, head, row_max, row_sum);
}

static void weights_row(const struct tril_job *job, const struct tril_task *task, int64_t i, int64_t head, float *ws)
{
    const tril_attention *call = job->call;
    const int64_t visible = tril_visible(task->position + i), token = task->seq->q_first + task->query + i;
    const float *q = tril_row(&call->q, token, head);
    const int64_t columns = job->weights->form == TRIL_WEIGHTS_DENSE ? task->seq->kv_len : visible;
    float *row = columns > 0 ? tril_weights_row(job->weights, task, task->query + i, head) : NULL;
    float *t = ws + job->plan->s;
    float row_max = MINUS_INF, row_sum = 0.0f;

    for (int64_t first = 0; first < visible; first += TRIL_KEY_BLOCK) {
        const int n = block_keys(visible, first);
        float max, sum, old, fresh;
        block_softmax(job, task, q, first, n, t, &max, &sum);
        memcpy(row + first, t, (size_t)n * sizeof(float));
        fold(&row_max, &row_sum, max, sum, &old, &fresh);
    }
    for (int64_t j = 0; j < visible; j++)
        row[j] = exp2_from(row[j], row_max) / (row_sum == 0.0f ? 1.0f : row_sum);
    for (int64_t j = visible; j < columns; j++)
        row[j] = 0.0f;
    tril_store_statistics(call, token, head, row_max, row_sum);
}

static void each_row(const struct tril_job *job, const struct tril_task *task, float *ws,
                     void (*row)(const struct tril_job *, const struct tril_task *, int64_t, int64_t, float *))
{
    for (int64_t i = 0; i < task->queries; i++) {
        for (int64_t g = 0; g < job->plan->group; g++)
            row(job, task, i, task->head * job->plan->group + g, ws);
    }
}

static void attend_task(const struct tril_job *job, const struct tril_task *task, float *ws)
{
    each_row(job, task, ws, attend_row);
}

static void weights_task(const struct tril_job *job, const struct tril_task *task, float *ws)
{
    each_row(job, task, ws, weights_row);
}

static void exp2_array(float *to, const float *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = exp2_once(from[i]);
}

const struct tril_kernels tril_kernels_scalar = {
    .name = "scalar",
    .blocking = {.lanes = 1, .tile_rows = 1, .task_rows = 1},
    .attend = attend_task,
    .weights = weights_task,
    .exp2 = exp2_array,
};
