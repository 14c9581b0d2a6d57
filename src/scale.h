/* The numbers that scores are multiplied by, rounded once each: the checks and the tiers share them. */
#ifndef TRIL_SCALE_H
#define TRIL_SCALE_H

/* x * log2 e: from the caller's powers of e to powers of two. */
static inline float tril_log2(float x)
{
    return (float)(x * 1.4426950408889634);
}

/* 1 / sqrt(n), rounded to float from double: the scale where the caller has given none. Newton's iteration from above,
 * where a power of two begins it, falls until it stands, in IEEE arithmetic the same on every machine; the library
 * thereby needs no libm. */
static inline float tril_one_over_root(int n)
{
    int above = 1;
    while (above * above < n)
        above *= 2;
    double x = above, next = 0.5 * (x + n / x);
    while (next < x) {
        x = next;
        next = 0.5 * (x + n / x);
    }
    return (float)(1.0 / x);
}

static inline float tril_scale_or_default(float scale, int dim)
{
    return scale == 0.0f ? tril_one_over_root(dim) : scale;
}

/* What a score is multiplied by before its soft-cap's tanh. */
static inline float tril_cap_scale(float scale, float softcap)
{
    return (float)((double)scale / softcap);
}

#endif
