/* AVX-512 (F, BW, DQ, VL) as the engine's vector operations. See engine/vec.h for what each one promises. */
#ifndef TRIL_X86_VEC_AVX512_H
#define TRIL_X86_VEC_AVX512_H

#include <immintrin.h>
#include "engine/vec.h"

#define V_LANES 16
#define V_REGS  32
#define A_STEP  1
#define A_REGS  1

typedef __m512 vf;
typedef __m512 va; /* one value of A in all lanes */

static ALWAYS_INLINE vf v_zero(void)
{
    return _mm512_setzero_ps();
}

static ALWAYS_INLINE vf v_set1(float x)
{
    return _mm512_set1_ps(x);
}

static ALWAYS_INLINE vf v_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

static ALWAYS_INLINE void v_store(float *p, vf v)
{
    _mm512_storeu_ps(p, v);
}

static ALWAYS_INLINE void v_stream(float *p, vf v)
{
    _mm512_stream_ps(p, v);
}

static ALWAYS_INLINE void v_stream_end(void)
{
    _mm_sfence();
}

static ALWAYS_INLINE __mmask16 v_first(int n)
{
    return (__mmask16)((1u << n) - 1u);
}

static ALWAYS_INLINE vf v_load_part(const float *p, int n)
{
    return _mm512_maskz_loadu_ps(v_first(n), p);
}

static ALWAYS_INLINE void v_store_part(float *p, int n, vf v)
{
    _mm512_mask_storeu_ps(p, v_first(n), v);
}

static ALWAYS_INLINE vf v_keep(vf v, int n, float fill)
{
    return _mm512_mask_mov_ps(_mm512_set1_ps(fill), v_first(n), v);
}

static ALWAYS_INLINE vf v_add(vf a, vf b)
{
    return _mm512_add_ps(a, b);
}

static ALWAYS_INLINE vf v_sub(vf a, vf b)
{
    return _mm512_sub_ps(a, b);
}

static ALWAYS_INLINE vf v_mul(vf a, vf b)
{
    return _mm512_mul_ps(a, b);
}

static ALWAYS_INLINE vf v_div(vf a, vf b)
{
    return _mm512_div_ps(a, b);
}

static ALWAYS_INLINE vf v_fma(vf a, vf b, vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}

/* vmaxps gives its second operand where one is NaN, so `best` survives. */
static ALWAYS_INLINE vf v_max(vf x, vf best)
{
    return _mm512_max_ps(x, best);
}

static ALWAYS_INLINE vf v_rint(vf v)
{
    return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static ALWAYS_INLINE vf v_scale2(vf p, vf n, vf t)
{
    const __mmask16 keep = _mm512_cmp_ps_mask(t, _mm512_set1_ps(-126.0f), _CMP_NLT_UQ);
    return _mm512_maskz_scalef_ps(keep, p, n);
}

static ALWAYS_INLINE vf v_ninf_to_zero(vf v)
{
    const __mmask16 keep = _mm512_cmp_ps_mask(v, _mm512_set1_ps(-__builtin_inff()), _CMP_NEQ_UQ);
    return _mm512_maskz_mov_ps(keep, v);
}

static ALWAYS_INLINE float v_max_across(vf v)
{
    const __m256 a = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    const __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 c = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}

static ALWAYS_INLINE float v_sum16(const vf s[16 / V_LANES])
{
    const __m256 a = _mm256_add_ps(_mm512_castps512_ps256(s[0]), _mm512_extractf32x8_ps(s[0], 1));
    const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

static ALWAYS_INLINE va a_load(const float *p)
{
    return _mm512_set1_ps(*p);
}

static ALWAYS_INLINE va a_load1(const float *p)
{
    return _mm512_set1_ps(*p);
}

static ALWAYS_INLINE vf a_fma(va a, int lane, vf b, vf c)
{
    (void)lane;
    return _mm512_fmadd_ps(a, b, c);
}

/* 16 x 16: pairs, then quads within 128-bit lanes, then the lanes. */
static ALWAYS_INLINE void v_transpose(vf r[V_LANES])
{
    vf t[16];
    UNROLL
    for (int i = 0; i < 16; i += 4) {
        const vf a = _mm512_unpacklo_ps(r[i], r[i + 1]), b = _mm512_unpackhi_ps(r[i], r[i + 1]);
        const vf c = _mm512_unpacklo_ps(r[i + 2], r[i + 3]), d = _mm512_unpackhi_ps(r[i + 2], r[i + 3]);
        t[i] = _mm512_shuffle_ps(a, c, 0x44);
        t[i + 1] = _mm512_shuffle_ps(a, c, 0xee);
        t[i + 2] = _mm512_shuffle_ps(b, d, 0x44);
        t[i + 3] = _mm512_shuffle_ps(b, d, 0xee);
    }
    UNROLL
    for (int i = 0; i < 4; i++) {
        const vf a = _mm512_shuffle_f32x4(t[i], t[i + 4], 0x88), b = _mm512_shuffle_f32x4(t[i], t[i + 4], 0xdd);
        const vf c = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0x88),
                 d = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0xdd);
        r[i] = _mm512_shuffle_f32x4(a, c, 0x88);
        r[i + 8] = _mm512_shuffle_f32x4(a, c, 0xdd);
        r[i + 4] = _mm512_shuffle_f32x4(b, d, 0x88);
        r[i + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
    }
}

#endif
