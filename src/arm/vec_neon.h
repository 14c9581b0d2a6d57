/* NEON (AArch64) as the engine's vector operations. See engine/vec.h for what each one promises.
 *
 * With TRIL_SIMDE the same code runs on another machine through SIMDe. Its by-lane fma is a multiply and an add there,
 * so that one operation is spelled as dup + fma. */
#ifndef TRIL_ARM_VEC_NEON_H
#define TRIL_ARM_VEC_NEON_H

#ifdef TRIL_SIMDE
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/arm/neon.h>
#else
#include <arm_neon.h>
#endif
#include "engine/vec.h"

#define V_LANES 4
#define V_REGS  32
#define A_STEP  4
#define A_REGS  TILE_ROWS /* a tile row's register of A stays while its four values are used */

typedef float32x4_t vf;
typedef float32x4_t va; /* four values of A, used by lane */

static ALWAYS_INLINE vf v_zero(void)
{
    return vdupq_n_f32(0.0f);
}

static ALWAYS_INLINE vf v_set1(float x)
{
    return vdupq_n_f32(x);
}

static ALWAYS_INLINE vf v_load(const float *p)
{
    return vld1q_f32(p);
}

static ALWAYS_INLINE void v_store(float *p, vf v)
{
    vst1q_f32(p, v);
}

static ALWAYS_INLINE void v_stream(float *p, vf v)
{
    vst1q_f32(p, v);
}

static ALWAYS_INLINE void v_stream_end(void) {}

static ALWAYS_INLINE vf v_load_part(const float *p, int n)
{
    float t[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int i = 0; i < n; i++)
        t[i] = p[i];
    return vld1q_f32(t);
}

static ALWAYS_INLINE void v_store_part(float *p, int n, vf v)
{
    float t[4];
    vst1q_f32(t, v);
    for (int i = 0; i < n; i++)
        p[i] = t[i];
}

static ALWAYS_INLINE vf v_keep(vf v, int n, float fill)
{
    static const int32_t index[4] = {0, 1, 2, 3};
    return vbslq_f32(vcltq_s32(vld1q_s32(index), vdupq_n_s32(n)), v, vdupq_n_f32(fill));
}

static ALWAYS_INLINE vf v_add(vf a, vf b)
{
    return vaddq_f32(a, b);
}

static ALWAYS_INLINE vf v_sub(vf a, vf b)
{
    return vsubq_f32(a, b);
}

static ALWAYS_INLINE vf v_mul(vf a, vf b)
{
    return vmulq_f32(a, b);
}

static ALWAYS_INLINE vf v_div(vf a, vf b)
{
#ifdef TRIL_SIMDE
    return a / b; /* 0.7 has no vdivq_f32 */
#else
    return vdivq_f32(a, b);
#endif
}

static ALWAYS_INLINE vf v_fma(vf a, vf b, vf c)
{
    return vfmaq_f32(c, a, b);
}

/* A NaN x compares false, so `best` survives. */
static ALWAYS_INLINE vf v_max(vf x, vf best)
{
    return vbslq_f32(vcgtq_f32(x, best), x, best);
}

static ALWAYS_INLINE vf v_rint(vf v)
{
    return vrndnq_f32(v);
}

/* The exponent field of p takes n directly: p is near 1, so no carry leaves the field. A NaN n converts to 0, or to
 * 0x80000000, which the shift drops, so a NaN p stays. */
static ALWAYS_INLINE vf v_scale2(vf p, vf n, vf t)
{
    const int32x4_t e = vshlq_n_s32(vcvtq_s32_f32(n), 23);
    const uint32x4_t scaled = vreinterpretq_u32_s32(vaddq_s32(vreinterpretq_s32_f32(p), e));
    return vreinterpretq_f32_u32(vbicq_u32(scaled, vcltq_f32(t, vdupq_n_f32(-126.0f))));
}

static ALWAYS_INLINE vf v_ninf_to_zero(vf v)
{
    const uint32x4_t ninf = vceqq_f32(v, vdupq_n_f32(-__builtin_inff()));
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(v), ninf));
}

static ALWAYS_INLINE float v_max_across(vf v)
{
    return vmaxvq_f32(v);
}

static ALWAYS_INLINE float v_sum16(const vf s[16 / V_LANES])
{
    const vf quad = vaddq_f32(vaddq_f32(s[0], s[2]), vaddq_f32(s[1], s[3]));
    const float32x2_t pair = vadd_f32(vget_low_f32(quad), vget_high_f32(quad));
    return vget_lane_f32(pair, 0) + vget_lane_f32(pair, 1);
}

static ALWAYS_INLINE va a_load(const float *p)
{
    return vld1q_f32(p);
}

static ALWAYS_INLINE va a_load1(const float *p)
{
    return vld1q_dup_f32(p);
}

/* The lane of an fmla is part of the instruction; the switch folds away, its argument being a constant wherever it is
 * used. An instruction and not vfmaq_laneq_f32, because around the latter gcc 12 rotates the accumulators through four
 * or five moves per turn of the hot loop, which take the fma pipes and lengthen the chains: 0.73 to 0.94 of the fmla
 * limit in llvm-mca, against 1.00 (docs/performance.md). */
static ALWAYS_INLINE vf a_fma(va a, int lane, vf b, vf c)
{
#ifdef TRIL_SIMDE
    return vfmaq_f32(c, b, vdupq_n_f32(a[lane]));
#else
    switch (lane) {
    case 0: __asm__("fmla %0.4s, %1.4s, %2.s[0]" : "+w"(c) : "w"(b), "w"(a)); return c;
    case 1: __asm__("fmla %0.4s, %1.4s, %2.s[1]" : "+w"(c) : "w"(b), "w"(a)); return c;
    case 2: __asm__("fmla %0.4s, %1.4s, %2.s[2]" : "+w"(c) : "w"(b), "w"(a)); return c;
    default: __asm__("fmla %0.4s, %1.4s, %2.s[3]" : "+w"(c) : "w"(b), "w"(a)); return c;
    }
#endif
}

static ALWAYS_INLINE void v_transpose(vf r[V_LANES])
{
    const float32x4x2_t a = vtrnq_f32(r[0], r[1]), b = vtrnq_f32(r[2], r[3]);
    r[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
    r[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
    r[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
    r[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
}

#endif
