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
 * 2008). The rare case is kept out of the loops: a tenth of the suites' time. */
#ifdef __FP_FAST_FMAF
static float fma_once(float a, float b, float c)
{
    return __builtin_fmaf(a, b, c);
}
#else
static __attribute__((noinline)) float round_to_odd(double p, double c, double s)
{
    const double back = s - p, error = (p - (s - back)) + (c - back); /* Knuth's two-sum: p + c == s + error */
    uint64_t bits;
    memcpy(&bits, &s, sizeof bits);
    if (error != 0.0 && (bits & 1) == 0 && error - error == 0.0) bits += (error > 0.0) == (s > 0.0) ? 1 : (uint64_t)-1;
    memcpy(&s, &bits, sizeof s);
    return (float)s;
}

static inline __attribute__((always_inline)) float fma_once(float a, float b, float c)
{
    const double p = (double)a * (double)b, s = p + (double)c;
    uint64_t bits;
    memcpy(&bits, &s, sizeof bits);
    const int between = (bits & 0x1fffffff) == 0x10000000;
    const int small = (bits & 0x7fffffffffffffff) < 0x3810000000000000; /* |s| < 2^-126 */
    return between || small ? round_to_odd(p, (double)c, s) : (float)s;
}
#endif

/* Math mode BF16. A value rounded to bf16, where a subnormal counts as 0. */
static float to_bf16(float x)
{
    const float y = tril_from_bf16(tril_to_bf16(x));
    return y - y == 0.0f && y < 0x1p-126f && y > -0x1p-126f ? y * 0.0f : y;
}

/* a * b + c rounded once to 24 bits whatever the exponent, and then 0 if it is below 2^-126. What is 2^-126 after it
 * was rounded to a subnormal's step is rounded again 64 binades higher; a, b and c are so small then that nothing
 * overflows. */
static float fma_flushed(float a, float b, float c)
{
    const float s = fma_once(a, b, c), limit = 0x1p-126f;
    if (!(s <= limit && s >= -limit)) return s;
    if (s != limit && s != -limit) return s * 0.0f;
    const bool a_smaller = (a < 0.0f ? -a : a) < (b < 0.0f ? -b : b);
    const float up = 0x1p64f, scaled = fma_once(a_smaller ? a * up : a, a_smaller ? b : b * up, c * up);
    return scaled < limit * up && scaled > -limit * up ? s * 0.0f : s;
}

/* One step of a chain: two products, the second one first. */
static float two_products(float a0, float b0, float a1, float b1, float c)
{
    return fma_flushed(a0, b0, fma_flushed(a1, b1, c));
}

/* (2^r - 1) / r for |r| <= 1/2: the polynomial without its constant term, which is 1. */
static float exp2_slope(float r)
{
    float q = 0x1.3fa208p-13f;
    q = fma_once(q, r, 0x1.5f0b82p-10f);
    q = fma_once(q, r, 0x1.3b30a0p-7f);
    q = fma_once(q, r, 0x1.c6af76p-5f);
    q = fma_once(q, r, 0x1.ebfbd8p-3f);
    return fma_once(q, r, 0x1.62e430p-1f);
}

/* 2^t for t <= 127: +0 below -126, a NaN stays. The magic number's ulp is 1, so adding it rounds to an integer, ties to
 * even. */
static float exp2_once(float t)
{
    if (t < -126.0f) return 0.0f;
    if (t != t) return t;
    const float magic = 0x1.8p23f, n = (t + magic) - magic, r = t - n;
    float p = fma_once(exp2_slope(r), r, 1.0f);
    int32_t bits;
    memcpy(&bits, &p, sizeof bits);
    bits += (int32_t)n * (1 << 23);
    memcpy(&p, &bits, sizeof p);
    return p;
}

/* tanh x = m / (m + 2) with m = e^(2 |x|) - 1, which is q 2^n + (2^n - 1) with q = 2^r - 1 from the polynomial above:
 * no digit is lost where x is small. From 30 powers of two on the quotient is 1. */
static float tanh_once(float x)
{
    const float t = (x < 0.0f ? -x : x) * 0x1.715476p+1f;
    if (t != t) return t;
    const float u = t < 30.0f ? t : 30.0f, magic = 0x1.8p23f, n = (u + magic) - magic, r = u - n;
    const float q = exp2_slope(r) * r;
    const float two_n = (float)(1 << (int)n), m = fma_once(two_n, q, two_n - 1.0f), y = m / (m + 2.0f);
    return __builtin_copysignf(y, x);
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

/* A stored row as floats: in `to`, or where it lies if that is what it is. */
static const float *as_floats(tril_dtype type, const char *row, float scale, int dim, int step, float *to)
{
    if (type == TRIL_F32 && step == 1) return (const float *)(const void *)row;
    for (int d = 0; d < dim; d++)
        to[d] = tril_element(type, row, scale, d, step);
    return to;
}

static const float *query_row(const struct tril_job *job, const struct tril_task_row *row, float *to)
{
    const tril_tensor *q = &job->call->q;
    return as_floats(q->dtype, tril_row(q, row->token, row->head), 1.0f, job->call->qk_dim, 1, to);
}

static const float *key_row(const struct tril_job *job, const struct tril_task *task, int64_t key, int64_t head,
                            float *to)
{
    const tril_tensor *k = &job->call->k;
    const int dim = job->call->qk_dim, lane = k->layout == TRIL_PANELS ? (int)((task->token + key) % TRIL_PANEL) : 0;
    const struct tril_rows rows = tril_rows_at(job, task, k, key - lane, head);
    const char *row = rows.data + lane * tril_unit_bytes(k->dtype);
    return as_floats(k->dtype, row, tril_scale_of(&rows, lane), dim, k->layout == TRIL_PANELS ? TRIL_PANEL : 1, to);
}

static const float *value_row(const struct tril_job *job, const struct tril_task *task, int64_t key, int64_t head,
                              float *to)
{
    const tril_tensor *v = &job->call->v;
    const struct tril_rows rows = tril_rows_at(job, task, v, key, head);
    return as_floats(v->dtype, rows.data, tril_scale_of(&rows, 0), job->call->v_dim, 1, to);
}

/* q.k of a few keys: for each one chain over the head, element by element or by pairs, of which the last may lack its
 * second. Side by side, since a chain alone waits most of the time; this tier is also what the tests wait for. */
#define SIDE_BY_SIDE 4

static void scores(const struct tril_job *job, const float *q, const float *const k[SIDE_BY_SIDE],
                   float s[SIDE_BY_SIDE])
{
    const int dim = job->call->qk_dim;
    for (int i = 0; i < SIDE_BY_SIDE; i++)
        s[i] = 0.0f;
    if (job->call->math == TRIL_MATH_F32) {
        for (int d = 0; d < dim; d++) {
            for (int i = 0; i < SIDE_BY_SIDE; i++)
                s[i] = fma_once(q[d], k[i][d], s[i]);
        }
        return;
    }
    for (int d = 0; d < dim; d += 2) {
        const bool both = d + 1 < dim;
        const float q0 = to_bf16(q[d]), q1 = both ? to_bf16(q[d + 1]) : 0.0f;
        for (int i = 0; i < SIDE_BY_SIDE; i++)
            s[i] = two_products(q0, to_bf16(k[i][d]), q1, both ? to_bf16(k[i][d + 1]) : 0.0f, s[i]);
    }
}

/* t of the key: its score scaled, or capped, and its distance's share. The distance is exact up to 2^24; beyond that it
 * is rounded from the block's first key on. */
static float logit(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row,
                   int64_t key, float s)
{
    const tril_attention *call = job->call;
    float t = call->softcap > 0.0f ? tanh_once(s * job->cap_scale) * job->log2_cap : s * job->log2_scale;
    if (call->alibi_slopes == NULL) return t;
    const int64_t first = key - key % TRIL_KEY_BLOCK;
    const float distance = (float)(first - tril_position(task->seq, row->query)) + (float)(key - first);
    return fma_once(tril_log2(call->alibi_slopes[row->head]), distance, t);
}

/* t of n keys from `first` on, of those that the row sees; their maximum, and the sum of their p, 16 lanes by position
 * and then a tree. */
static void block_softmax(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row,
                          int64_t first, int n, float *ws, float *t, float *max, float *sum)
{
    const float *q = query_row(job, row, ws + job->plan->q);
    float best = MINUS_INF, lane[LANES] = {0.0f};
    for (int j = 0; j < n;) {
        int at[SIDE_BY_SIDE], keys = 0;
        const float *k[SIDE_BY_SIDE] = {NULL};
        float s[SIDE_BY_SIDE];
        for (; j < n && keys < SIDE_BY_SIDE; j++) {
            if (!tril_row_sees(job, task, row, first + j)) continue;
            float *room = ws + job->plan->k + keys * job->call->qk_dim;
            k[keys] = key_row(job, task, first + j, row->head / job->plan->group, room);
            at[keys++] = j;
        }
        for (int i = keys; i < SIDE_BY_SIDE; i++)
            k[i] = k[0];
        if (keys > 0) scores(job, q, k, s);
        for (int i = 0; i < keys; i++) {
            t[at[i]] = logit(job, task, row, first + at[i], s[i]);
            best = larger(t[at[i]], best);
        }
    }
    for (int j = 0; j < n; j++) {
        if (tril_row_sees(job, task, row, first + j)) lane[j % LANES] += exp2_from(t[j], best);
    }
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

/* How many of the block's keys lie before the end of what a row of the task sees. */
static int block_keys(const struct tril_task *task, const struct tril_task_row *row, int64_t first)
{
    const int64_t end = row->view.end < task->keys ? row->view.end : task->keys;
    return end - first < TRIL_KEY_BLOCK ? (int)(end - first) : TRIL_KEY_BLOCK;
}

/* One block's O before any division, and its maximum and sum. */
static void attend_block(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row,
                         int64_t first, float *ws, float *o, float *max, float *sum)
{
    const tril_attention *call = job->call;
    const int n = block_keys(task, row, first);
    float *p = ws + job->plan->s;
    block_softmax(job, task, row, first, n, ws, p, max, sum);
    for (int d = 0; d < call->v_dim; d++)
        o[d] = 0.0f;
    const bool pairs = call->math == TRIL_MATH_BF16;
    const int64_t head = row->head / job->plan->group;
    float *room = o + job->plan->v_row; /* of a faster tier's panels: two rows more */
    for (int j = 0; j < n && !pairs; j++) {
        if (!tril_row_sees(job, task, row, first + j)) continue;
        const float *v = value_row(job, task, first + j, head, room), weight = exp2_from(p[j], *max);
        for (int d = 0; d < call->v_dim; d++)
            o[d] = fma_once(weight, v[d], o[d]);
    }
    for (int j = 0; j < n && pairs; j += 2) {
        bool seen[2];
        const float *v[2];
        float weight[2];
        for (int i = 0; i < 2; i++) {
            seen[i] = j + i < n && tril_row_sees(job, task, row, first + j + i);
            v[i] = seen[i] ? value_row(job, task, first + j + i, head, room + i * job->plan->v_row) : NULL;
            weight[i] = seen[i] ? to_bf16(exp2_from(p[j + i], *max)) : 0.0f;
        }
        for (int d = 0; d < call->v_dim && (seen[0] || seen[1]); d++)
            o[d] = two_products(weight[0], seen[0] ? to_bf16(v[0][d]) : 0.0f, weight[1],
                                seen[1] ? to_bf16(v[1][d]) : 0.0f, o[d]);
    }
}

static void store(void *to, tril_dtype type, const float *o, int dim, float sum)
{
    unsigned char *p = to;
    for (int d = 0; d < dim; d++) {
        const float x = o[d] / (sum == 0.0f ? 1.0f : sum);
        const uint16_t half = type == TRIL_F16 ? tril_to_f16(x) : tril_to_bf16(x);
        if (type == TRIL_F32)
            memcpy(p + 4 * d, &x, sizeof x);
        else
            memcpy(p + 2 * d, &half, sizeof half);
    }
}

/* A learned sink closes the row. */
static void fold_sink(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row,
                      float *o, int dim, float *row_max, float *row_sum)
{
    if (!tril_takes_sink(job, task)) return;
    const struct tril_state sink = tril_sink_of(job, row);
    float old, fresh;
    fold(row_max, row_sum, sink.max, sink.sum, &old, &fresh);
    for (int d = 0; d < dim; d++)
        o[d] = fma_once(o[d], old, 0.0f * fresh);
}

static void attend_row(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row,
                       float *ws)
{
    const tril_attention *call = job->call;
    float *o = ws + job->plan->o, *block = ws + job->plan->v;
    float row_max = MINUS_INF, row_sum = 0.0f;

    if (!tril_row_sees_any(job, task, row, task->first, task->keys)) return;
    for (int d = 0; d < call->v_dim; d++)
        o[d] = 0.0f;
    for (int64_t first = task->first; first < task->keys; first = tril_next_block(task, first)) {
        float max, sum, old, fresh;
        if (!tril_row_sees_any(job, task, row, first, first + TRIL_KEY_BLOCK)) continue;
        attend_block(job, task, row, first, ws, block, &max, &sum);
        if (tril_blockwise(job, task)) {
            const struct tril_place to = tril_place_of(job, task, row, first);
            for (int d = 0; tril_begins_row(job, task, row, first) && d < call->v_dim; d++)
                block[d] += 0.0f;
            store(to.o, to.type, block, call->v_dim, 1.0f);
            tril_store_statistics(&to, max, sum);
            continue;
        }
        fold(&row_max, &row_sum, max, sum, &old, &fresh);
        for (int d = 0; d < call->v_dim; d++)
            o[d] = fma_once(o[d], old, block[d] * fresh);
    }
    if (tril_blockwise(job, task)) return;
    fold_sink(job, task, row, o, call->v_dim, &row_max, &row_sum);
    const struct tril_place to = tril_place_of(job, task, row, task->first);
    store(to.o, to.type, o, call->v_dim, tril_divides(job, task) ? row_sum : 1.0f);
    tril_store_statistics(&to, row_max, row_sum);
}

static float weight_of(float t, float max, float sum)
{
    return exp2_from(t, max) / (sum == 0.0f ? 1.0f : sum);
}

static void weights_end(float *row, int64_t n, float max, float sum)
{
    for (int64_t j = 0; j < n; j++)
        row[j] = weight_of(row[j], max, sum);
}

/* A weight, or 0, to its place in the row, in its type; column sums are added up. */
static void put_weight(const struct tril_job *job, char *row, int64_t column, float w)
{
    const tril_weights_out *to = job->weights;
    char *p = row + column * tril_unit_bytes(to->dtype);
    const uint16_t half = to->dtype == TRIL_F16 ? tril_to_f16(w) : tril_to_bf16(w);
    if (to->form == TRIL_WEIGHTS_COLUMN_SUMS) w = tril_load_f32(p) + w;
    if (to->dtype == TRIL_F32)
        memcpy(p, &w, sizeof w);
    else
        memcpy(p, &half, sizeof half);
}

/* The row's statistics over the task's keys, and, where there is room for it, its t in the places of the weights. */
static void weights_statistics(const struct tril_job *job, const struct tril_task *task,
                               const struct tril_task_row *row, float *ws, float *to, float *row_max, float *row_sum)
{
    float *t = ws + job->plan->s;
    for (int64_t first = task->first; first < task->keys; first = tril_next_block(task, first)) {
        float max, sum, old, fresh;
        if (!tril_row_sees_any(job, task, row, first, first + TRIL_KEY_BLOCK)) continue;
        const int n = block_keys(task, row, first);
        block_softmax(job, task, row, first, n, ws, t, &max, &sum);
        if (to != NULL) memcpy(to + first, t, (size_t)n * sizeof(float));
        if (tril_blockwise(job, task)) {
            const struct tril_place state = tril_place_of(job, task, row, first);
            tril_store_statistics(&state, max, sum);
        }
        fold(row_max, row_sum, max, sum, &old, &fresh);
    }
}

/* A part of a split unit: t, until the row's statistics are known. */
static void weights_part(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row,
                         float *ws)
{
    float row_max = MINUS_INF, row_sum = 0.0f, *to = tril_weights_row(job, task, row->query, row->head);
    weights_statistics(job, task, row, ws, to, &row_max, &row_sum);
    if (tril_blockwise(job, task) || !tril_row_sees_any(job, task, row, task->first, task->keys)) return;
    const struct tril_place state = tril_place_of(job, task, row, task->first);
    tril_store_statistics(&state, row_max, row_sum);
}

static void weights_row(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row,
                        float *ws)
{
    const bool sums = job->weights->form == TRIL_WEIGHTS_COLUMN_SUMS;
    const int64_t columns = job->weights->form == TRIL_WEIGHTS_PACKED ? row->view.end : task->seq->kv_len;
    float row_max = MINUS_INF, row_sum = 0.0f, max, sum, *t = ws + job->plan->s;

    if (tril_in_states(job, task)) {
        weights_part(job, task, row, ws);
        return;
    }
    weights_statistics(job, task, row, ws, NULL, &row_max, &row_sum);
    fold_sink(job, task, row, NULL, 0, &row_max, &row_sum);
    const struct tril_place state = tril_place_of(job, task, row, task->first);
    tril_store_statistics(&state, row_max, row_sum);
    char *to = columns > 0 ? tril_weights_row(job, task, row->query, row->head) : NULL;
    for (int64_t first = 0; first < columns; first += TRIL_KEY_BLOCK) {
        const int n = columns - first < TRIL_KEY_BLOCK ? (int)(columns - first) : TRIL_KEY_BLOCK;
        const bool some = tril_row_sees_any(job, task, row, first, first + n);
        if (some) block_softmax(job, task, row, first, block_keys(task, row, first), ws, t, &max, &sum);
        for (int j = 0; j < n; j++) {
            const bool seen = some && tril_row_sees(job, task, row, first + j);
            if (seen || !sums) put_weight(job, to, first + j, seen ? weight_of(t[j], row_max, row_sum) : 0.0f);
        }
    }
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

static void attend_task(const struct tril_job *job, const struct tril_task *task, float *ws)
{
    each_row(job, task, ws, attend_row);
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
            o[d] = fma_once(o[d], old, (states[i].o == NULL ? 0.0f : states[i].o[d]) * fresh);
    }
}

static void exp2_array(float *to, const float *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = exp2_once(from[i]);
}

static void tanh_array(float *to, const float *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = tanh_once(from[i]);
}

const struct tril_kernels tril_kernels_scalar = {
    .name = "scalar",
    .blocking = {.lanes = 1, .tile_rows = 1, .task_rows = 1, .few_rows = 0},
    .attend = attend_task,
    .weights = weights_task,
    .weights_end = weights_end,
    .fold = fold_states,
    .store = store,
    .exp2 = exp2_array,
    .tanh = tanh_array,
    .convert = tril_convert_row,
};
