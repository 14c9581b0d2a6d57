/* 2^t for t <= 127 or NaN: t - rint(t) is exact, a polynomial of degree 6 whose constant term is exactly 1, then a
 * power of two. +0 below -126, so that no subnormal weight exists. NaN passes through.
 *
 * The coefficients are a relative minimax fit on [-1/2, 1/2] with f32 coefficients (Sollya's fpminimax): 3.7e-9, which
 * is 0.06 ulp; Horner in f32 makes it 1.02 ulp at worst. scalar.c has the same formula in its own words; the exhaustive
 * test compares the two. */
#ifndef TRIL_ENGINE_EXP2_H
#define TRIL_ENGINE_EXP2_H

#include "vec.h"

static ALWAYS_INLINE vf exp2_vec(vf t)
{
    const vf n = v_rint(t), r = v_sub(t, n);
    vf p = v_set1(0x1.3fa208p-13f);
    p = v_fma(p, r, v_set1(0x1.5f0b82p-10f));
    p = v_fma(p, r, v_set1(0x1.3b30a0p-7f));
    p = v_fma(p, r, v_set1(0x1.c6af76p-5f));
    p = v_fma(p, r, v_set1(0x1.ebfbd8p-3f));
    p = v_fma(p, r, v_set1(0x1.62e430p-1f));
    p = v_fma(p, r, v_set1(1.0f));
    return v_scale2(p, n, t);
}

static void exp2_array(float *to, const float *from, size_t n)
{
    for (; n >= V_LANES; n -= V_LANES, to += V_LANES, from += V_LANES)
        v_store(to, exp2_vec(v_load(from)));
    if (n > 0) v_store_part(to, (int)n, exp2_vec(v_load_part(from, (int)n)));
}

#endif
