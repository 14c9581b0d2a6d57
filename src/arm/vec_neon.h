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
#include "formats.h"

#define V_LANES     4
#define V_REGS      32
#define V_HALF      0
#define V_LOWER     0
#define V_TURNS_F16 0
#define A_STEP      4
#define A_REGS      TILE_ROWS /* a tile row's register of A stays while its four values are used */

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

#ifdef TRIL_SIMDE /* has no halves: plain C */
static ALWAYS_INLINE vf v_load_f16(const void *p)
{
    const float t[4] = {tril_from_f16(tril_load_u16(p)), tril_from_f16(tril_load_u16((const char *)p + 2)),
                        tril_from_f16(tril_load_u16((const char *)p + 4)),
                        tril_from_f16(tril_load_u16((const char *)p + 6))};
    return vld1q_f32(t);
}

static ALWAYS_INLINE vf v_set1_f16(const void *p)
{
    return vdupq_n_f32(tril_from_f16(tril_load_u16(p)));
}

static ALWAYS_INLINE void v_store_f16(void *p, vf v)
{
    float t[4];
    uint16_t h[4];
    vst1q_f32(t, v);
    for (int i = 0; i < 4; i++)
        h[i] = tril_to_f16(t[i]);
    memcpy(p, h, sizeof h);
}
#else
static ALWAYS_INLINE vf v_load_f16(const void *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}

static ALWAYS_INLINE vf v_set1_f16(const void *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_dup_u16(p)));
}

static ALWAYS_INLINE void v_store_f16(void *p, vf v)
{
    vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(v)));
}
#endif

static ALWAYS_INLINE vf v_load_bf16(const void *p)
{
    return vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(vld1_u16(p)), 16));
}

static ALWAYS_INLINE vf v_load_i8(const void *p)
{
    int32_t four;
    memcpy(&four, p, sizeof four);
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four))))));
}

static ALWAYS_INLINE vf v_load_u4(const void *p, const bool high)
{
    uint32_t four;
    memcpy(&four, p, sizeof four);
    const uint8x8_t byte = vreinterpret_u8_u32(vdup_n_u32(four));
    const uint8x8_t half = high ? vshr_n_u8(byte, 4) : vand_u8(byte, vdup_n_u8(15));
    const int8x8_t value = vsub_s8(vreinterpret_s8_u8(half), vdup_n_s8(8));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(value))));
}

static ALWAYS_INLINE vf v_scaled_u4(vf scale, const void *p, const bool high)
{
    return vmulq_f32(scale, v_load_u4(p, high));
}

static ALWAYS_INLINE void v_halves_f16(vf x, vf r[2])
{
    uint16_t h[2][4];
    vst1_u16(h[0], vmovn_u32(vreinterpretq_u32_f32(x)));
    vst1_u16(h[1], vmovn_u32(vshrq_n_u32(vreinterpretq_u32_f32(x), 16)));
    r[0] = v_load_f16(h[0]);
    r[1] = v_load_f16(h[1]);
}

static ALWAYS_INLINE void v_halves_bf16(vf x, vf r[2])
{
    r[0] = vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(x), 16));
    r[1] = vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0xffff0000)));
}

static ALWAYS_INLINE vf v_word_i8(vf x, const int u)
{
    const int32x4_t bits = vreinterpretq_s32_f32(x);
    return vcvtq_f32_s32(vshrq_n_s32(vshlq_s32(bits, vdupq_n_s32(24 - 8 * u)), 24));
}

static ALWAYS_INLINE vf v_word_top(vf x, const int u)
{
    const int32x4_t bits = vreinterpretq_s32_f32(x);
    return vcvtq_f32_s32(vandq_s32(vshlq_s32(bits, vdupq_n_s32(24 - 8 * u)), vdupq_n_s32(-0x1000000)));
}

static ALWAYS_INLINE vf v_word_u4(vf x, const int u)
{
    const uint32x4_t bits = vreinterpretq_u32_f32(x);
    const uint32x4_t half = vshrq_n_u32(vshlq_u32(bits, vdupq_n_s32(28 - 8 * u)), 28);
    return vsubq_f32(vcvtq_f32_u32(half), vdupq_n_f32(8.0f));
}

static ALWAYS_INLINE vf v_word_upper(vf x)
{
    return vreinterpretq_f32_u32(vshrq_n_u32(vreinterpretq_u32_f32(x), 4));
}

static ALWAYS_INLINE void v_store_bf16(void *p, vf v)
{
    const uint32x4_t bits = vreinterpretq_u32_f32(v), upper = vshrq_n_u32(bits, 16);
    const uint32x4_t odd = vandq_u32(upper, vdupq_n_u32(1));
    const uint32x4_t near = vshrq_n_u32(vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd), 16);
    const uint32x4_t number = vceqq_f32(v, v), quiet = vorrq_u32(upper, vdupq_n_u32(0x40));
    vst1_u16(p, vmovn_u32(vbslq_u32(number, near, quiet)));
}

static ALWAYS_INLINE void v_store_bytes(void *p, vf v)
{
    const int16x4_t pair = vmovn_s32(vcvtq_s32_f32(v));
    const int8x8_t byte = vmovn_s16(vcombine_s16(pair, pair));
    const int32_t four = vget_lane_s32(vreinterpret_s32_s8(byte), 0);
    memcpy(p, &four, sizeof four);
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

static ALWAYS_INLINE vf v_min(vf x, vf best)
{
    return vbslq_f32(vcltq_f32(x, best), x, best);
}

static ALWAYS_INLINE vf v_copysign(vf v, vf sign)
{
    return vbslq_f32(vdupq_n_u32(INT32_MAX), v, sign);
}

static ALWAYS_INLINE vf v_trunc(vf v)
{
    return vrndq_f32(v);
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

static ALWAYS_INLINE vf a_fma_in(va a, int lane, vf b, vf c)
{
    return a_fma(a, lane, b, c);
}

static ALWAYS_INLINE vf a_fma_at(const float *p, vf b, vf c)
{
    return a_fma(a_load1(p), 0, b, c);
}

/* The upper halves of x, rounded. */
static ALWAYS_INLINE uint32x4_t v_bf16_bits(vf x)
{
    const uint32x4_t bits = vreinterpretq_u32_f32(x), odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t near = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
    const uint32x4_t number = vbslq_u32(vceqq_f32(x, x), near, vorrq_u32(bits, vdupq_n_u32(0x400000)));
    const uint32x4_t normal = vtstq_u32(number, vdupq_n_u32(0x7f800000));
    return vandq_u32(number, vorrq_u32(normal, vdupq_n_u32(0x80000000)));
}

static ALWAYS_INLINE vf v_pair(vf x, vf y)
{
    const uint32x4_t upper = vandq_u32(v_bf16_bits(y), vdupq_n_u32(0xffff0000));
    return vreinterpretq_f32_u32(vorrq_u32(vshrq_n_u32(v_bf16_bits(x), 16), upper));
}

static ALWAYS_INLINE void v_store_pairs(void *p, vf v)
{
    vst1_u16(p, vshrn_n_u32(v_bf16_bits(v), 16));
}

static ALWAYS_INLINE void v_store_weights(void *p, vf v)
{
    v_store_bf16(p, v);
}

static ALWAYS_INLINE vf v_first_of_pair(vf b)
{
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(b), vdupq_n_u32(0xffff)));
}

static ALWAYS_INLINE vf v_second_of_pair(vf b)
{
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(b), vdupq_n_u32(0xffff0000)));
}

#define V_DOT_EXACT 0

static ALWAYS_INLINE vf v_low_none(void)
{
    return vreinterpretq_f32_u32(vdupq_n_u32(UINT32_MAX));
}

/* `low` keeps the least magnitude, minus 1, so that a 0 counts as large. */
static ALWAYS_INLINE vf v_low_note(vf low, vf x)
{
    const uint32x4_t magnitude = vandq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(INT32_MAX));
    return vreinterpretq_f32_u32(vminq_u32(vreinterpretq_u32_f32(low), vsubq_u32(magnitude, vdupq_n_u32(1))));
}

static ALWAYS_INLINE bool v_low_any(vf low)
{
    return vminvq_u32(vreinterpretq_u32_f32(low)) < 0x00800000;
}

static ALWAYS_INLINE vf v_upper(vf pair)
{
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(pair), vdupq_n_u32(0xffff0000)));
}

static ALWAYS_INLINE vf v_lower(vf pair)
{
    return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(pair), 16));
}

/* BFDOT rounds differently, so it may not serve here. */
static ALWAYS_INLINE vf a_dot(va a, int lane, vf b, vf c, vf *low)
{
    const vf t = a_fma(v_upper(a), lane, v_upper(b), c), s = a_fma(v_lower(a), lane, v_lower(b), t);
    *low = v_low_note(v_low_note(*low, t), s);
    return s;
}

static ALWAYS_INLINE void v_transpose(vf r[V_LANES])
{
    const float32x4x2_t a = vtrnq_f32(r[0], r[1]), b = vtrnq_f32(r[2], r[3]);
    r[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
    r[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
    r[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
    r[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
}

static ALWAYS_INLINE void v_words(const char *p, int64_t stride, vf r[4])
{
    for (int i = 0; i < 4; i++)
        r[i] = vreinterpretq_f32_u8(vld1q_u8((const uint8_t *)p + i * stride));
    v_transpose(r);
}

#endif
