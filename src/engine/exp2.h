/* 2^t and tanh. 2^t is for t <= 127 or NaN: t - rint(t) is exact, a polynomial of degree 6 whose constant term is
 * exactly 1, then a power of two. +0 below -126, so that no result is subnormal. NaN passes through.
 *
 * The coefficients are a relative minimax fit on [-1/2, 1/2] with f32 coefficients (Sollya's fpminimax): 3.7e-9, which
 * is 0.06 ulp; Horner in f32 makes it 0.80 ulp at worst. scalar.c has the same formula in its own words; the exhaustive
 * test compares the two. */
#ifndef TRIL_ENGINE_EXP2_H
#define TRIL_ENGINE_EXP2_H

#include "vec.h"

/* Vectors that go through the polynomial side by side: one alone waits for its own chain of ten operations, and a
 * core's scheduler does not see far enough ahead to fill the gaps with the next. */
#define EXP2_VECS 4

/* (2^r - 1) / r for |r| <= 1/2, of `vecs` vectors: the polynomial without its constant term. */
static ALWAYS_INLINE void exp2_slopes(const int vecs, const vf r[EXP2_VECS], vf q[EXP2_VECS])
{
    static const float c[] = {0x1.5f0b82p-10f, 0x1.3b30a0p-7f, 0x1.c6af76p-5f, 0x1.ebfbd8p-3f, 0x1.62e430p-1f};
    UNROLL
    for (int u = 0; u < vecs; u++)
        q[u] = v_set1(0x1.3fa208p-13f);
    UNROLL
    for (int i = 0; i < 5; i++) {
        UNROLL
        for (int u = 0; u < vecs; u++)
            q[u] = v_fma(q[u], r[u], v_set1(c[i]));
    }
}

/* x[u] = 2^x[u] */
static ALWAYS_INLINE void exp2_vecs(const int vecs, vf x[EXP2_VECS])
{
    vf n[EXP2_VECS], r[EXP2_VECS], p[EXP2_VECS];
    UNROLL
    for (int u = 0; u < vecs; u++) {
        n[u] = v_rint(x[u]);
        r[u] = v_sub(x[u], n[u]);
    }
    exp2_slopes(vecs, r, p);
    UNROLL
    for (int u = 0; u < vecs; u++)
        p[u] = v_fma(p[u], r[u], v_set1(1.0f));
    UNROLL
    for (int u = 0; u < vecs; u++)
        x[u] = v_scale2(p[u], n[u], x[u]);
}

static ALWAYS_INLINE vf exp2_vec(vf x)
{
    vf one[EXP2_VECS] = {x};
    exp2_vecs(1, one);
    return one[0];
}

/* tanh x = m / (m + 2) with m = e^(2 |x|) - 1, which is q 2^n + (2^n - 1) with q = 2^r - 1 from the same polynomial: no
 * digit is lost where x is small. From 30 powers of two on the quotient is 1. */
static ALWAYS_INLINE vf tanh_vec(vf x)
{
    const vf one = v_set1(1.0f), t = v_mul(v_copysign(x, one), v_set1(0x1.715476p+1f));
    const vf u = v_min(v_set1(30.0f), t), n = v_rint(u);
    vf r[EXP2_VECS] = {v_sub(u, n)}, q[EXP2_VECS];
    exp2_slopes(1, r, q);
    const vf two_n = v_scale2(one, n, n), m = v_fma(two_n, v_mul(q[0], r[0]), v_sub(two_n, one));
    return v_copysign(v_div(m, v_add(m, v_set1(2.0f))), x);
}

static void tanh_array(float *to, const float *from, size_t n)
{
    for (; n >= V_LANES; n -= V_LANES, to += V_LANES, from += V_LANES)
        v_store(to, tanh_vec(v_load(from)));
    if (n > 0) v_store_part(to, (int)n, tanh_vec(v_load_part(from, (int)n)));
}

static void exp2_array(float *to, const float *from, size_t n)
{
    for (; n >= V_LANES; n -= V_LANES, to += V_LANES, from += V_LANES)
        v_store(to, exp2_vec(v_load(from)));
    if (n > 0) v_store_part(to, (int)n, exp2_vec(v_load_part(from, (int)n)));
}

#endif
