/* The softmax of one block of keys for one row, and the fold of a block into the rows' running state. */
#ifndef TRIL_ENGINE_SOFTMAX_H
#define TRIL_ENGINE_SOFTMAX_H

#include "exp2.h"
#include "kernels.h"

#define SUM_VECS  (PANEL / V_LANES)
#define MINUS_INF (-__builtin_inff())

_Static_assert(EXP2_VECS % SUM_VECS == 0, "a run of vectors is whole panels");

/* How many of the lanes from here on are among n. */
static ALWAYS_INLINE int lanes_of(int n)
{
    return n < 0 ? 0 : n < V_LANES ? n : V_LANES;
}

/* The largest of a row's lanes. */
static ALWAYS_INLINE float softmax_top(const vf best)
{
    return v_max_across(best) + 0.0f; /* a maximum of -0 is reported as +0 */
}

/* Scores become t = s * c, in place; what follows the n visible ones in the last panel becomes -inf. Returns the
 * largest visible t, -inf if there is none but NaN. */
static ALWAYS_INLINE float softmax_scale(float *s, const int n, const float c)
{
    const vf vc = v_set1(c);
    vf best[2] = {v_set1(MINUS_INF), v_set1(MINUS_INF)}; /* two chains hide the latency of max */
    int i = 0;
    for (; i + 2 * V_LANES <= n; i += 2 * V_LANES) {
        UNROLL
        for (int u = 0; u < 2; u++) {
            const vf t = v_mul(v_load(s + i + u * V_LANES), vc);
            v_store(s + i + u * V_LANES, t);
            best[u] = v_max(t, best[u]);
        }
    }
    for (const int end = (n + PANEL - 1) / PANEL * PANEL; i < end; i += V_LANES) {
        const vf t = v_keep(v_mul(v_load(s + i), vc), lanes_of(n - i), MINUS_INF);
        v_store(s + i, t);
        best[0] = v_max(t, best[0]);
    }
    return softmax_top(v_max(best[0], best[1]));
}

/* How scores become t where there is more to it than the scale; see struct tril_attention. */
struct logits {
    bool capped, sloped;
    float scale;           /* of the score, before tanh where it is capped */
    float cap;             /* behind tanh */
    float slope, distance; /* the distance of the block's first key from the query */
};

/* Scores become t, in place, for the first n keys of a block; what follows in the last panel becomes -inf. */
static NOINLINE void softmax_logits(const struct logits *l, float *s, const int n)
{
    static const float lanes[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const vf scale = v_set1(l->scale), cap = v_set1(l->cap), slope = v_set1(l->slope);
    const vf distance = v_set1(l->distance);
    for (int i = 0, end = (n + PANEL - 1) / PANEL * PANEL; i < end; i += V_LANES) {
        vf t = v_mul(v_load(s + i), scale);
        if (l->capped) t = v_mul(tanh_vec(t), cap);
        if (l->sloped) {
            const vf key = v_add(v_load(lanes + i % PANEL), v_set1((float)(i / PANEL * PANEL)));
            t = v_fma(slope, v_add(distance, key), t);
        }
        v_store(s + i, v_keep(t, lanes_of(n - i), MINUS_INF));
    }
}

/* The largest of n values of t, whole panels, -inf if there is none but NaN. */
static float softmax_max(const float *t, const int n)
{
    vf best = v_set1(MINUS_INF);
    for (int i = 0; i < n; i += V_LANES)
        best = v_max(v_load(t + i), best);
    return softmax_top(best);
}

/* The same for a number of vectors at once, a multiple of SUM_VECS. */
static ALWAYS_INLINE void softmax_exp_run(const int vecs, const bool store, float *s, const vf base, vf sum[SUM_VECS])
{
    vf p[EXP2_VECS];
    UNROLL
    for (int u = 0; u < vecs; u++)
        p[u] = v_sub(v_load(s + u * V_LANES), base);
    exp2_vecs(vecs, p);
    UNROLL
    for (int u = 0; u < vecs; u++) {
        if (store) v_store(s + u * V_LANES, p[u]);
        sum[u % SUM_VECS] = v_add(sum[u % SUM_VECS], p[u]);
    }
}

/* Weights of the block against its own maximum, p = exp2(t - max), in place of t where `store` asks for it. Returns
 * their sum: 16 lanes by position mod 16, ascending, then a tree. An invisible t is -inf, so its p is +0, which changes
 * no sum. */
static NOINLINE float softmax_exp(const bool store, float *s, const int n, const float max)
{
    const vf base = v_ninf_to_zero(v_set1(max));
    vf sum[SUM_VECS];
    UNROLL
    for (int u = 0; u < SUM_VECS; u++)
        sum[u] = v_zero();
    int i = 0;
    for (; i + EXP2_VECS * V_LANES <= n; i += EXP2_VECS * V_LANES)
        softmax_exp_run(EXP2_VECS, store, s + i, base, sum);
    for (; i < n; i += PANEL)
        softmax_exp_run(SUM_VECS, store, s + i, base, sum);
    return v_sum16(sum);
}

/* Folds a block's maximum and sum into `rows` rows' running max and sum, and says what the fold multiplies the old
 * output and the block's by. */
static ALWAYS_INLINE void softmax_fold(const int rows, float *row_max, float *row_sum, const float *max,
                                       const float *sum, float *old, float *fresh)
{
    for (int r = 0; r < rows; r += V_LANES) {
        const int n = lanes_of(rows - r);
        const vf m = v_load_part(row_max + r, n), mb = v_load_part(max + r, n);
        const vf top = v_max(mb, m), base = v_ninf_to_zero(top);
        const vf a = exp2_vec(v_sub(m, base)), b = exp2_vec(v_sub(mb, base));
        const vf l = v_fma(v_load_part(row_sum + r, n), a, v_mul(v_load_part(sum + r, n), b));
        v_store_part(row_max + r, n, top);
        v_store_part(row_sum + r, n, l);
        v_store_part(old + r, n, a);
        v_store_part(fresh + r, n, b);
    }
}

/* Folds states into a row's running o, maximum and sum. */
static void fold_states(float *o, int dim, float *max, float *sum, const struct tril_state *states, int n)
{
    for (int i = 0; i < n; i++) {
        float old, fresh;
        if (states[i].sum == 0.0f && __builtin_signbit(states[i].sum)) continue;
        softmax_fold(1, max, sum, &states[i].max, &states[i].sum, &old, &fresh);
        const vf a = v_set1(old), b = v_set1(fresh);
        for (int d = 0; d < dim; d += V_LANES) {
            const int lanes = lanes_of(dim - d);
            const vf from = states[i].o == NULL ? v_zero() : v_load_part(states[i].o + d, lanes);
            v_store_part(o + d, lanes, v_fma(v_load_part(o + d, lanes), a, v_mul(from, b)));
        }
    }
}

#endif
