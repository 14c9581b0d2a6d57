/* AVX-512 (F, BW, DQ, VL, and for pairs BF16) as the engine's vector operations. See engine/vec.h for what each one
 * promises. */
#ifndef TRIL_X86_VEC_AVX512_H
#define TRIL_X86_VEC_AVX512_H

#include <immintrin.h>
#include "engine/vec.h"

#define V_LANES     16
#define V_REGS      32
#define A_STEP      1
#define A_REGS      1
#define V_HALF      1
#define V_LOWER     1
#define V_TURNS_F16 0

/* The processor's clock, read when all before is done and before anything behind begins: see engine/source.h. */
static ALWAYS_INLINE uint64_t v_ticks(void)
{
    _mm_lfence();
    const uint64_t now = __builtin_ia32_rdtsc();
    _mm_lfence();
    return now;
}
#define V_TICKS v_ticks

#define V_BEHIND(p, v) __asm__("" : "+r"(p), "+v"(v))
#define V_HERE(v)      __asm__ volatile("" : "+v"(v))

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

static ALWAYS_INLINE vf v_load_f16(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256(p));
}

static ALWAYS_INLINE vf v_load_bf16(const void *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p)), 16));
}

static ALWAYS_INLINE vf v_load_i8(const void *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p)));
}

static ALWAYS_INLINE vf v_load_u4(const void *p, const bool high)
{
    const __m512i byte = _mm512_cvtepu8_epi32(_mm_loadu_si128(p));
    const __m512i half = high ? _mm512_srli_epi32(byte, 4) : _mm512_and_si512(byte, _mm512_set1_epi32(15));
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(half, _mm512_set1_epi32(8)));
}

static ALWAYS_INLINE vf v_set1_f16(const void *p)
{
    uint16_t half;
    memcpy(&half, p, sizeof half);
    return _mm512_set1_ps(_cvtsh_ss(half));
}

/* A table of the sixteen products, looked up: one multiplication for both halves of the bytes. */
static ALWAYS_INLINE vf v_scaled_u4(vf scale, const void *p, const bool high)
{
    const vf value = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
    const __m512i byte = _mm512_cvtepu8_epi32(_mm_loadu_si128(p));
    return _mm512_permutexvar_ps(high ? _mm512_srli_epi32(byte, 4) : byte, _mm512_mul_ps(scale, value));
}

static ALWAYS_INLINE void v_halves_f16(vf x, vf r[2])
{
    const __m512i apart = _mm512_setr_epi32(0x20000, 0x60004, 0xa0008, 0xe000c, 0x120010, 0x160014, 0x1a0018, 0x1e001c,
                                            0x30001, 0x70005, 0xb0009, 0xf000d, 0x130011, 0x170015, 0x1b0019, 0x1f001d);
    const __m512i h = _mm512_permutexvar_epi16(apart, _mm512_castps_si512(x));
    r[0] = _mm512_cvtph_ps(_mm512_castsi512_si256(h));
    r[1] = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(h, 1));
}

static ALWAYS_INLINE void v_halves_bf16(vf x, vf r[2])
{
    r[0] = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(x), 16));
    r[1] = _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32((int)0xffff0000)));
}

/* Transposes the words of x, y, z, w, four by four. */
static ALWAYS_INLINE void v_turn4(__m512i x, __m512i y, __m512i z, __m512i w, vf r[4])
{
    const __m512i a = _mm512_unpacklo_epi32(x, y), b = _mm512_unpackhi_epi32(x, y);
    const __m512i c = _mm512_unpacklo_epi32(z, w), d = _mm512_unpackhi_epi32(z, w);
    r[0] = _mm512_castsi512_ps(_mm512_unpacklo_epi64(a, c));
    r[1] = _mm512_castsi512_ps(_mm512_unpackhi_epi64(a, c));
    r[2] = _mm512_castsi512_ps(_mm512_unpacklo_epi64(b, d));
    r[3] = _mm512_castsi512_ps(_mm512_unpackhi_epi64(b, d));
}

/* Rows i, 4 + i, 8 + i, 12 + i side by side, so that the lanes come out in order. */
static ALWAYS_INLINE __m512i v_words_of(const char *p, int64_t stride)
{
    const __m256i a = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const void *)p)),
                                              _mm_loadu_si128((const void *)(p + 4 * stride)), 1);
    p += 8 * stride;
    const __m256i b = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const void *)p)),
                                              _mm_loadu_si128((const void *)(p + 4 * stride)), 1);
    return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
}

static ALWAYS_INLINE void v_words(const char *p, int64_t stride, vf r[4])
{
    const __m512i x = v_words_of(p, stride), y = v_words_of(p + stride, stride);
    const __m512i z = v_words_of(p + 2 * stride, stride), w = v_words_of(p + 3 * stride, stride);
    v_turn4(x, y, z, w, r);
}

/* Rows i, 4 + i side by side. */
static ALWAYS_INLINE __m512i v_half_lines_of(const char *p, int64_t stride)
{
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const void *)p)),
                              _mm256_loadu_si256((const void *)(p + 4 * stride)), 1);
}

/* Of eight rows, words c and 4 + c in turns of four lanes. */
static ALWAYS_INLINE void v_half_lines_of8(const char *p, int64_t stride, vf r[4])
{
    const __m512i x = v_half_lines_of(p, stride), y = v_half_lines_of(p + stride, stride);
    const __m512i z = v_half_lines_of(p + 2 * stride, stride), w = v_half_lines_of(p + 3 * stride, stride);
    v_turn4(x, y, z, w, r);
}

static ALWAYS_INLINE void v_half_lines(const char *p, int64_t stride, vf r[8])
{
    v_half_lines_of8(p, stride, r);
    v_half_lines_of8(p + 8 * stride, stride, r + 4);
    UNROLL
    for (int c = 0; c < 4; c++) {
        const vf x = r[c], y = r[4 + c];
        r[c] = _mm512_shuffle_f32x4(x, y, 0x88);
        r[4 + c] = _mm512_shuffle_f32x4(x, y, 0xdd);
    }
}

/* To the upper end and back, which extends the sign. */
static ALWAYS_INLINE vf v_word_i8(vf x, const int u)
{
    const __m512i bits = _mm512_castps_si512(x);
    return _mm512_cvtepi32_ps(_mm512_srai_epi32(u < 3 ? _mm512_slli_epi32(bits, 24 - 8 * u) : bits, 24));
}

/* To the upper end alone, with zeros behind it. */
static ALWAYS_INLINE vf v_word_top(vf x, const int u)
{
    const __m512i bits = _mm512_castps_si512(x), top = _mm512_set1_epi32(-0x1000000);
    if (u == 0) return _mm512_cvtepi32_ps(_mm512_slli_epi32(bits, 24));
    if (u == 3) return _mm512_cvtepi32_ps(_mm512_and_si512(bits, top));
    const __m512i from = _mm512_set4_epi32((12 + u) << 24 | 0x808080, (8 + u) << 24 | 0x808080,
                                           (4 + u) << 24 | 0x808080, u << 24 | 0x808080);
    return _mm512_cvtepi32_ps(_mm512_shuffle_epi8(bits, from));
}

/* The half becomes the fraction of a float 2^(23 - at) + half: exact, and no conversion. */
static ALWAYS_INLINE vf v_word_u4(vf x, const int u)
{
    const __m512i bits = _mm512_castps_si512(x);
    const int bit = 8 * u, at = bit <= 16 ? bit : bit - 12;
    const __m512i half = _mm512_and_si512(bit <= 16 ? bits : _mm512_srli_epi32(bits, 12), _mm512_set1_epi32(15 << at));
    return _mm512_sub_ps(_mm512_castsi512_ps(_mm512_or_si512(half, _mm512_set1_epi32((150 - at) << 23))),
                         _mm512_set1_ps((float)((1 << (23 - at)) + 8)));
}

static ALWAYS_INLINE vf v_word_upper(vf x)
{
    return _mm512_castsi512_ps(_mm512_srli_epi32(_mm512_castps_si512(x), 4));
}

static ALWAYS_INLINE void v_store_f16(void *p, vf v)
{
    _mm256_storeu_si256(p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

static ALWAYS_INLINE void v_store_bf16(void *p, vf v)
{
    const __m512i bits = _mm512_castps_si512(v), upper = _mm512_srli_epi32(bits, 16);
    const __m512i odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
    const __m512i near = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    const __m512i quiet = _mm512_or_si512(upper, _mm512_set1_epi32(0x40));
    _mm256_storeu_si256(p, _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(_mm512_srli_epi32(near, 16), nan, quiet)));
}

static ALWAYS_INLINE void v_store_bytes(void *p, vf v)
{
    _mm_storeu_si128(p, _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(v)));
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

/* vmaxps and vminps give their second operand where one is NaN, so `best` survives. */
static ALWAYS_INLINE vf v_max(vf x, vf best)
{
    return _mm512_max_ps(x, best);
}

static ALWAYS_INLINE vf v_min(vf x, vf best)
{
    return _mm512_min_ps(x, best);
}

static ALWAYS_INLINE vf v_copysign(vf v, vf sign)
{
    return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_set1_epi32(INT32_MAX), _mm512_castps_si512(v),
                                                         _mm512_castps_si512(sign), 0xca));
}

static ALWAYS_INLINE vf v_trunc(vf v)
{
    return _mm512_roundscale_ps(v, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
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

/* The instruction, because around _mm512_fmadd_ps gcc 12 puts sums where a factor was and moves them back; one of 24 is
 * stored then. */
static ALWAYS_INLINE vf a_fma_in(va a, int lane, vf b, vf c)
{
    (void)lane;
    __asm__("vfmadd231ps %2, %1, %0" : "+v"(c) : "v"(b), "v"(a));
    return c;
}

/* The instruction, because compilers load a value once for several fma. That is right beside nothing but fma; where
 * other vector instructions run as well, one with a memory operand leaves them a register port: 4.0 against 4.4 cycles
 * for four fma and the widening of a vector on Zen 4. */
static ALWAYS_INLINE vf a_fma_at(const float *p, vf b, vf c)
{
    __asm__("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(c) : "v"(b), "m"(*p));
    return c;
}

static ALWAYS_INLINE vf h_load(const float *p, const float *q)
{
    const __m256d lower = _mm256_castps_pd(_mm256_loadu_ps(p)), upper = _mm256_castps_pd(_mm256_loadu_ps(q));
    return _mm512_castpd_ps(_mm512_insertf64x4(_mm512_castpd256_pd512(lower), upper, 1));
}

static ALWAYS_INLINE vf h_twice(const float *p)
{
    return _mm512_broadcast_f32x8(_mm256_loadu_ps(p));
}

static ALWAYS_INLINE void h_store(float *p, vf v)
{
    _mm256_storeu_ps(p, _mm512_castps512_ps256(v));
}

static ALWAYS_INLINE void h_store_upper(float *p, vf v)
{
    _mm256_storeu_ps(p, _mm512_extractf32x8_ps(v, 1));
}

static ALWAYS_INLINE vf h_join(vf a, vf b)
{
    return _mm512_mask_blend_ps(0xff00, a, b);
}

static ALWAYS_INLINE vf h_fma_upper(vf a, vf b, vf c)
{
    return _mm512_mask3_fmadd_ps(a, b, c, 0xff00);
}

/* The upper halves of x, rounded. */
static ALWAYS_INLINE __m512i v_bf16_bits(vf x)
{
    const __m512i bits = _mm512_castps_si512(x),
                  odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i near = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    const __m512i number = _mm512_mask_or_epi32(near, nan, bits, _mm512_set1_epi32(0x400000));
    const __mmask16 tiny = _mm512_testn_epi32_mask(number, _mm512_set1_epi32(0x7f800000));
    return _mm512_mask_and_epi32(number, tiny, number, _mm512_set1_epi32(INT32_MIN));
}

static ALWAYS_INLINE vf v_pair(vf x, vf y)
{
    const __m512i upper = _mm512_and_si512(v_bf16_bits(y), _mm512_set1_epi32(-0x10000));
    return _mm512_castsi512_ps(_mm512_or_si512(_mm512_srli_epi32(v_bf16_bits(x), 16), upper));
}

static ALWAYS_INLINE void v_store_pairs(void *p, vf v)
{
    _mm256_storeu_si256(p, _mm512_cvtepi32_epi16(_mm512_srli_epi32(v_bf16_bits(v), 16)));
}

static ALWAYS_INLINE vf v_first_of_pair(vf b)
{
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(b), _mm512_set1_epi32(0xffff)));
}

static ALWAYS_INLINE vf v_second_of_pair(vf b)
{
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(b), _mm512_set1_epi32(-0x10000)));
}

/* The instructions for pairs, which not every AVX-512 machine has. The compiler is not told of them, so they stand here
 * and nowhere else: only the functions of math mode BF16 ask for that machine. */
static ALWAYS_INLINE void v_store_weights(void *p, vf v)
{
    __m256i halves;
    __asm__("vcvtneps2bf16 {%1, %0|%0, %1}" : "=v"(halves) : "v"(v));
    _mm256_storeu_si256(p, halves);
}

#define V_DOT_EXACT 1

static ALWAYS_INLINE vf v_low_none(void)
{
    return v_zero();
}

static ALWAYS_INLINE bool v_low_any(vf low)
{
    (void)low;
    return false;
}

static ALWAYS_INLINE vf a_dot(va a, int lane, vf b, vf c, vf *low)
{
    (void)lane, (void)low;
    __asm__("vdpbf16ps {%1, %2, %0|%0, %2, %1}" : "+v"(c) : "v"(b), "v"(a));
    return c;
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
