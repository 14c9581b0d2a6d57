/* AVX2 + FMA as the engine's vector operations. See engine/vec.h for what each one promises. */
#ifndef TRIL_X86_VEC_AVX2_H
#define TRIL_X86_VEC_AVX2_H

#include <immintrin.h>
#include "engine/vec.h"

#define V_LANES     8
#define V_REGS      16
#define A_STEP      1
#define A_REGS      1
#define V_HALF      0
#define V_LOWER     1
#define V_TURNS_F16 1
#define V_ROWS_F16  1

#define V_BEHIND(p, v) __asm__("" : "+r"(p), "+x"(v))
#define V_OPAQUE(x)    __asm__("" : "+r"(x))

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

static ALWAYS_INLINE vf v_load_f16(const void *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128(p));
}

static ALWAYS_INLINE vf v_load_bf16(const void *p)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(p)), 16));
}

static ALWAYS_INLINE vf v_load_i8(const void *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p)));
}

static ALWAYS_INLINE vf v_load_u4(const void *p, const bool high)
{
    const __m256i byte = _mm256_cvtepu8_epi32(_mm_loadl_epi64(p));
    const __m256i half = high ? _mm256_srli_epi32(byte, 4) : _mm256_and_si256(byte, _mm256_set1_epi32(15));
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(half, _mm256_set1_epi32(8)));
}

static ALWAYS_INLINE short v_u16(const void *p)
{
    short half;
    memcpy(&half, p, sizeof half);
    return half;
}

static ALWAYS_INLINE vf v_set1_f16(const void *p)
{
    return _mm256_cvtph_ps(_mm_set1_epi16(v_u16(p)));
}

/* Every row's address is counted from one of two. */
static ALWAYS_INLINE vf v_rows_f16(const char *p, int64_t stride)
{
    const int64_t thrice = 3 * stride;
    const char *fourth = p + thrice;
    V_OPAQUE(fourth);
    __m128i x = _mm_setzero_si128();
#define ROW(i, from) x = _mm_insert_epi16(x, v_u16(from), i)
    ROW(0, p);
    ROW(1, p + stride);
    ROW(2, p + 2 * stride);
    ROW(3, fourth);
    ROW(4, p + 4 * stride);
    ROW(5, fourth + 2 * stride);
    ROW(6, fourth + thrice);
    ROW(7, fourth + 4 * stride);
#undef ROW
    return _mm256_cvtph_ps(x);
}

static ALWAYS_INLINE vf v_scaled_u4(vf scale, const void *p, const bool high)
{
    return _mm256_mul_ps(scale, v_load_u4(p, high));
}

static ALWAYS_INLINE void v_halves_f16(vf x, vf r[2])
{
    const __m256i apart = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0, 1, 4, 5, 8, 9, 12,
                                           13, 2, 3, 6, 7, 10, 11, 14, 15);
    const __m256i h = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(_mm256_castps_si256(x), apart), 0xd8);
    r[0] = _mm256_cvtph_ps(_mm256_castsi256_si128(h));
    r[1] = _mm256_cvtph_ps(_mm256_extracti128_si256(h, 1));
}

/* Within lanes alone. To cross them takes a core of the Zen family as long as an fma does, here and where it widens
 * what is in a register; to widen from memory takes no unit that fma needs. */
static ALWAYS_INLINE void v_turn_f16(const char *p, int64_t stride, vf t[8])
{
    __m256i r[8], s[8];
    UNROLL
    for (int i = 0; i < 8; i++)
        r[i] = _mm256_loadu_si256((const void *)(p + i * stride));
    UNROLL
    for (int i = 0; i < 8; i += 2) {
        s[i] = _mm256_unpacklo_epi16(r[i], r[i + 1]);
        s[i + 1] = _mm256_unpackhi_epi16(r[i], r[i + 1]);
    }
    UNROLL
    for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_unpacklo_epi32(s[i], s[i + 2]);
        r[i + 1] = _mm256_unpackhi_epi32(s[i], s[i + 2]);
        r[i + 2] = _mm256_unpacklo_epi32(s[i + 1], s[i + 3]);
        r[i + 3] = _mm256_unpackhi_epi32(s[i + 1], s[i + 3]);
    }
    UNROLL
    for (int i = 0; i < 4; i++) {
        t[2 * i] = _mm256_castsi256_ps(_mm256_unpacklo_epi64(r[i], r[i + 4]));
        t[2 * i + 1] = _mm256_castsi256_ps(_mm256_unpackhi_epi64(r[i], r[i + 4]));
    }
    __asm__("" : "+m"(*(vf(*)[8])t)); /* in memory: see above */
}

static ALWAYS_INLINE vf v_turned_f16(const vf t[8], int u)
{
    return v_load_f16((const char *)t + u % 8 * 32 + u / 8 * 16);
}

static ALWAYS_INLINE void v_halves_bf16(vf x, vf r[2])
{
    r[0] = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(x), 16));
    r[1] = _mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32((int)0xffff0000)));
}

/* Two rows side by side. */
static ALWAYS_INLINE __m256i v_words_of(const char *p, const char *q)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const void *)p)),
                                   _mm_loadu_si128((const void *)q), 1);
}

/* Rows i and 4 + i are, so that the lanes come out in order. All are found from two of them. */
static ALWAYS_INLINE void v_words(const char *p, int64_t stride, vf r[4])
{
    const int64_t thrice = 3 * stride;
    const char *fourth = p + thrice;
    V_OPAQUE(fourth);
    const __m256i x = v_words_of(p, p + 4 * stride), y = v_words_of(p + stride, fourth + 2 * stride);
    const __m256i z = v_words_of(p + 2 * stride, fourth + thrice), w = v_words_of(fourth, fourth + 4 * stride);
    const __m256i a = _mm256_unpacklo_epi32(x, y), b = _mm256_unpackhi_epi32(x, y);
    const __m256i c = _mm256_unpacklo_epi32(z, w), d = _mm256_unpackhi_epi32(z, w);
    r[0] = _mm256_castsi256_ps(_mm256_unpacklo_epi64(a, c));
    r[1] = _mm256_castsi256_ps(_mm256_unpackhi_epi64(a, c));
    r[2] = _mm256_castsi256_ps(_mm256_unpacklo_epi64(b, d));
    r[3] = _mm256_castsi256_ps(_mm256_unpackhi_epi64(b, d));
}

/* To the upper end and back, which extends the sign. */
static ALWAYS_INLINE vf v_word_i8(vf x, const int u)
{
    const __m256i bits = _mm256_castps_si256(x);
    return _mm256_cvtepi32_ps(_mm256_srai_epi32(u < 3 ? _mm256_slli_epi32(bits, 24 - 8 * u) : bits, 24));
}

/* To the upper end alone, with zeros behind it. */
static ALWAYS_INLINE vf v_word_top(vf x, const int u)
{
    const __m256i bits = _mm256_castps_si256(x), top = _mm256_set1_epi32(-0x1000000);
    if (u == 0) return _mm256_cvtepi32_ps(_mm256_slli_epi32(bits, 24));
    if (u == 3) return _mm256_cvtepi32_ps(_mm256_and_si256(bits, top));
    const __m128i from = _mm_setr_epi32(u << 24 | 0x808080, (4 + u) << 24 | 0x808080, (8 + u) << 24 | 0x808080,
                                        (12 + u) << 24 | 0x808080);
    return _mm256_cvtepi32_ps(_mm256_shuffle_epi8(bits, _mm256_broadcastsi128_si256(from)));
}

static ALWAYS_INLINE vf v_word_half(vf x, const bool high)
{
    const __m256i bits = _mm256_xor_si256(_mm256_castps_si256(x), _mm256_set1_epi32((int)0x88888888));
    return _mm256_castsi256_ps(
        _mm256_and_si256(high ? bits : _mm256_slli_epi32(bits, 4), _mm256_set1_epi32((int)0xf0f0f0f0)));
}

static ALWAYS_INLINE void v_store_f16(void *p, vf v)
{
    _mm_storeu_si128(p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

static ALWAYS_INLINE void v_store_bf16(void *p, vf v)
{
    const __m256i bits = _mm256_castps_si256(v), upper = _mm256_srli_epi32(bits, 16);
    const __m256i odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
    const __m256i near =
        _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd), 16);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m256i h = _mm256_blendv_epi8(near, _mm256_or_si256(upper, _mm256_set1_epi32(0x40)), nan);
    _mm_storeu_si128(p, _mm_packus_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1)));
}

static ALWAYS_INLINE void v_store_bytes(void *p, vf v)
{
    const __m256i byte = _mm256_and_si256(_mm256_cvttps_epi32(v), _mm256_set1_epi32(255));
    const __m128i pair = _mm_packus_epi32(_mm256_castsi256_si128(byte), _mm256_extracti128_si256(byte, 1));
    _mm_storel_epi64(p, _mm_packus_epi16(pair, pair));
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

/* vmaxps and vminps give their second operand where one is NaN, so `best` survives. */
static ALWAYS_INLINE vf v_max(vf x, vf best)
{
    return _mm256_max_ps(x, best);
}

static ALWAYS_INLINE vf v_min(vf x, vf best)
{
    return _mm256_min_ps(x, best);
}

static ALWAYS_INLINE vf v_copysign(vf v, vf sign)
{
    const vf mask = _mm256_set1_ps(-0.0f);
    return _mm256_or_ps(_mm256_and_ps(mask, sign), _mm256_andnot_ps(mask, v));
}

static ALWAYS_INLINE vf v_trunc(vf v)
{
    return _mm256_round_ps(v, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
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

/* The instruction, see vec_avx512.h. */
static ALWAYS_INLINE vf a_fma_in(va a, int lane, vf b, vf c)
{
    (void)lane;
    __asm__("vfmadd231ps %2, %1, %0" : "+x"(c) : "x"(b), "x"(a));
    return c;
}

static ALWAYS_INLINE vf a_fma_at(const float *p, vf b, vf c)
{
    return a_fma(a_load1(p), 0, b, c);
}

/* The upper halves of x, rounded. */
static ALWAYS_INLINE __m256i v_bf16_bits(vf x)
{
    const __m256i bits = _mm256_castps_si256(x),
                  odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i near = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    const __m256i number = _mm256_blendv_epi8(near, _mm256_or_si256(bits, _mm256_set1_epi32(0x400000)), nan);
    const __m256i exponent = _mm256_and_si256(number, _mm256_set1_epi32(0x7f800000));
    const __m256i tiny = _mm256_cmpeq_epi32(exponent, _mm256_setzero_si256());
    return _mm256_andnot_si256(_mm256_and_si256(tiny, _mm256_set1_epi32(INT32_MAX)), number);
}

static ALWAYS_INLINE vf v_pair(vf x, vf y)
{
    return _mm256_castsi256_ps(_mm256_blend_epi16(_mm256_srli_epi32(v_bf16_bits(x), 16), v_bf16_bits(y), 0xaa));
}

static ALWAYS_INLINE void v_store_pairs(void *p, vf v)
{
    const __m256i h = _mm256_srli_epi32(v_bf16_bits(v), 16);
    _mm_storeu_si128(p, _mm_packus_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1)));
}

static ALWAYS_INLINE void v_store_weights(void *p, vf v)
{
    v_store_bf16(p, v);
}

static ALWAYS_INLINE vf v_first_of_pair(vf b)
{
    return _mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(b), _mm256_set1_epi32(0xffff)));
}

static ALWAYS_INLINE vf v_second_of_pair(vf b)
{
    return _mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(b), _mm256_set1_epi32(-0x10000)));
}

#define V_DOT_EXACT 0

static ALWAYS_INLINE vf v_low_none(void)
{
    return _mm256_castsi256_ps(_mm256_set1_epi32(-1));
}

/* `low` keeps the least magnitude, minus 1, so that a 0 counts as large. */
static ALWAYS_INLINE vf v_low_note(vf low, vf x)
{
    const __m256i magnitude = _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(INT32_MAX));
    const __m256i rank = _mm256_add_epi32(magnitude, _mm256_set1_epi32(-1));
    return _mm256_castsi256_ps(_mm256_min_epu32(_mm256_castps_si256(low), rank));
}

static ALWAYS_INLINE bool v_low_any(vf low)
{
    const __m256i least = _mm256_set1_epi32(0x00800000 - 1), bits = _mm256_castps_si256(low);
    return !_mm256_testz_si256(_mm256_cmpeq_epi32(_mm256_min_epu32(bits, least), bits), _mm256_set1_epi32(-1));
}

static ALWAYS_INLINE vf v_upper(vf pair)
{
    return _mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(pair), _mm256_set1_epi32(-0x10000)));
}

static ALWAYS_INLINE vf v_lower(vf pair)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(pair), 16));
}

static ALWAYS_INLINE vf a_dot(va a, int lane, vf b, vf c, vf *low)
{
    (void)lane;
    const vf t = _mm256_fmadd_ps(v_upper(a), v_upper(b), c), s = _mm256_fmadd_ps(v_lower(a), v_lower(b), t);
    *low = v_low_note(v_low_note(*low, t), s);
    return s;
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
