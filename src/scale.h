/* The numbers that scores are multiplied by, rounded once each: the checks and the tiers share them. */
#ifndef TRIL_SCALE_H
#define TRIL_SCALE_H

/* x * log2 e: from the caller's powers of e to powers of two. */
static inline float tril_log2(float x)
{
    return (float)(x * 1.4426950408889634);
}

/* What a score is multiplied by before its soft-cap's tanh. */
static inline float tril_cap_scale(float scale, float softcap)
{
    return (float)((double)scale / softcap);
}

#endif
