/* AVX2 + FMA as the engine's vector operations. See engine/vec.h for what each one promises. */
#ifndef TRIL_X86_VEC_AVX2_H
#define TRIL_X86_VEC_AVX2_H

#include <immintrin.h>
#include "engine/vec.h"

#define V_LANES 8
#define V_REGS  16
#define A_STEP  1
#define A_REGS  1

typedef __m256 vf;
typedef __m256 va; /* one value of A in all lanes */

static ALWAYS_INLINE vf v_zero(void)
{
    return _mm256_setzero_ps();
}

static ALWAYS_INLINE vf v_set1(float x)
{
    return _mm256_set1_ps(x);
}

static ALWAYS_INLINE vf v_load(const float *p)
{
    return _mm256_loadu_ps(p);
}

static ALWAYS_INLINE void v_store(float *p, vf v)
{
    _mm256_storeu_ps(p, v);
}

static ALWAYS_INLINE void v_stream(float *p, vf v)
{
    _mm256_stream_ps(p, v);
}

static ALWAYS_INLINE void v_stream_end(void)
{
    _mm_sfence();
}

static ALWAYS_INLINE __m256i v_first(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static ALWAYS_INLINE vf v_load_part(const float *p, int n)
{
    return _mm256_maskload_ps(p, v_first(n));
}

static ALWAYS_INLINE void v_store_part(float *p, int n, vf v)
{
    _mm256_maskstore_ps(p, v_first(n), v);
}

static ALWAYS_INLINE vf v_keep(vf v, int n, float fill)
{
    return _mm256_blendv_ps(_mm256_set1_ps(fill), v, _mm256_castsi256_ps(v_first(n)));
}

static ALWAYS_INLINE vf v_add(vf a, vf b)
{
    return _mm256_add_ps(a, b);
}

static ALWAYS_INLINE vf v_sub(vf a, vf b)
{
    return _mm256_sub_ps(a, b);
}

static ALWAYS_INLINE vf v_mul(vf a, vf b)
{
    return _mm256_mul_ps(a, b);
}

static ALWAYS_INLINE vf v_div(vf a, vf b)
{
    return _mm256_div_ps(a, b);
}

static ALWAYS_INLINE vf v_fma(vf a, vf b, vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}

/* vmaxps gives its second operand where one is NaN, so `best` survives. */
static ALWAYS_INLINE vf v_max(vf x, vf best)
{
    return _mm256_max_ps(x, best);
}

static ALWAYS_INLINE vf v_rint(vf v)
{
    return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* The exponent field of p takes n directly: p is near 1, so no carry leaves the field. A NaN n converts to 0x80000000,
 * which the shift drops, so a NaN p stays. */
static ALWAYS_INLINE vf v_scale2(vf p, vf n, vf t)
{
    const __m256i e = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    const vf scaled = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), e));
    return _mm256_and_ps(scaled, _mm256_cmp_ps(t, _mm256_set1_ps(-126.0f), _CMP_NLT_UQ));
}

static ALWAYS_INLINE vf v_ninf_to_zero(vf v)
{
    return _mm256_and_ps(v, _mm256_cmp_ps(v, _mm256_set1_ps(-__builtin_inff()), _CMP_NEQ_UQ));
}

static ALWAYS_INLINE float v_max_across(vf v)
{
    const __m128 b = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 c = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}

static ALWAYS_INLINE float v_sum16(const vf s[16 / V_LANES])
{
    const __m256 a = _mm256_add_ps(s[0], s[1]);
    const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

static ALWAYS_INLINE va a_load(const float *p)
{
    return _mm256_broadcast_ss(p);
}

static ALWAYS_INLINE va a_load1(const float *p)
{
    return _mm256_broadcast_ss(p);
}

static ALWAYS_INLINE vf a_fma(va a, int lane, vf b, vf c)
{
    (void)lane;
    return _mm256_fmadd_ps(a, b, c);
}

/* 8 x 8: pairs, then quads within 128-bit lanes, then the lanes. */
static ALWAYS_INLINE void v_transpose(vf r[V_LANES])
{
    vf t[8];
    UNROLL
    for (int i = 0; i < 8; i += 4) {
        const vf a = _mm256_unpacklo_ps(r[i], r[i + 1]), b = _mm256_unpackhi_ps(r[i], r[i + 1]);
        const vf c = _mm256_unpacklo_ps(r[i + 2], r[i + 3]), d = _mm256_unpackhi_ps(r[i + 2], r[i + 3]);
        t[i] = _mm256_shuffle_ps(a, c, 0x44);
        t[i + 1] = _mm256_shuffle_ps(a, c, 0xee);
        t[i + 2] = _mm256_shuffle_ps(b, d, 0x44);
        t[i + 3] = _mm256_shuffle_ps(b, d, 0xee);
    }
    UNROLL
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x31);
    }
}

#endif
