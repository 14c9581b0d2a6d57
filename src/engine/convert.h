/* tril_convert(), V_LANES values at a time; src/convert.c and formats.h say the same in plain C.
 *
 *   I8, Q8_0, Q4_0   one pass for the block's extremes, one that multiplies, rounds and stores; I8's block is the row
 *   F16, BF16        one pass; the end of a row goes through V_LANES elements on the stack, so that nothing is read or
 *                    written past it
 */
#ifndef TRIL_ENGINE_CONVERT_H
#define TRIL_ENGINE_CONVERT_H

#include "load.h"

static ALWAYS_INLINE void decode_as(const tril_dtype type, const char *from, const float scale, float *to,
                                    const int64_t n)
{
    const vf s = v_set1(scale);
    int64_t i = 0;
    for (; i + V_LANES <= n; i += V_LANES)
        v_store(to + i, load_vec(type, from, (int)i, s));
    if (i < n) v_store_part(to + i, (int)(n - i), load_part(type, from, (int)i, (int)(n - i), s));
}

static ALWAYS_INLINE void encode_halves(const tril_dtype type, char *to, const float *from, int64_t n)
{
    int64_t i = 0;
    for (; i + V_LANES <= n; i += V_LANES)
        store_half(type, to + 2 * i, v_load(from + i));
    if (i == n) return;
    char last[2 * V_LANES];
    store_half(type, last, v_load_part(from + i, (int)(n - i)));
    memcpy(to + 2 * i, last, (size_t)(2 * (n - i)));
}

/* The largest x and the largest -x, each at least 0; NaN are left out. */
static ALWAYS_INLINE void extremes(const float *x, const int64_t n, float *up, float *down)
{
    vf most = v_zero(), least = v_zero();
    for (int64_t i = 0; i < n; i += V_LANES) {
        const vf v = i + V_LANES <= n ? v_load(x + i) : v_load_part(x + i, (int)(n - i));
        most = v_max(v, most);
        least = v_max(v_sub(v_zero(), v), least);
    }
    *up = v_max_across(most);
    *down = v_max_across(least);
}

/* v as what is above and what is below 0, so that it is up - down; both are 0 where it is NaN. */
static ALWAYS_INLINE void split_sign(vf v, vf *up, vf *down)
{
    *up = v_max(v, v_zero());
    *down = v_max(v_sub(v_zero(), v), v_zero());
}

/* To the nearest, ties away from 0, by adding a half and cutting off. The float below a half serves better than a half:
 * with that the float below a half, and it alone, would become 1; and what is a half above an integer still comes out
 * as the next integer, since the sum is rounded up to it. */
static ALWAYS_INLINE vf to_i8_vec(vf v)
{
    const vf half = v_set1(0x1.fffffep-2f), limit = v_set1(127.0f);
    vf up, down;
    split_sign(v, &up, &down);
    return v_sub(v_trunc(v_add(v_min(up, limit), half)), v_trunc(v_add(v_min(down, limit), half)));
}

static ALWAYS_INLINE vf to_u4_vec(vf v)
{
    vf up, down;
    split_sign(v, &up, &down);
    const vf x = v_add(v_sub(up, down), v_set1(8.5f));
    return v_trunc(v_min(v_max(x, v_zero()), v_set1(15.0f)));
}

/* Writes n values, returns their scale. */
static ALWAYS_INLINE float encode_i8(char *to, const float *from, const int64_t n)
{
    float up, down;
    extremes(from, n, &up, &down);
    const float scale = (up > down ? up : down) / 127.0f + 0.0f; /* never -0 */
    const vf reciprocal = v_set1(tril_reciprocal(scale));
    int64_t i = 0;
    for (; i + V_LANES <= n; i += V_LANES)
        v_store_bytes(to + i, to_i8_vec(v_mul(v_load(from + i), reciprocal)));
    if (i == n) return scale;
    char last[V_LANES];
    v_store_bytes(last, to_i8_vec(v_mul(v_load_part(from + i, (int)(n - i)), reciprocal)));
    memcpy(to + i, last, (size_t)(n - i));
    return scale;
}

static void encode_q8_0(char *to, const float *from, int64_t n)
{
    for (; n > 0; n -= TRIL_Q_BLOCK, to += TRIL_Q8_BYTES, from += TRIL_Q_BLOCK)
        tril_store_u16(to, tril_to_f16(encode_i8(to + 2, from, TRIL_Q_BLOCK)));
}

static void encode_q4_0(char *to, const float *from, int64_t n)
{
    const int half = TRIL_Q_BLOCK / 2;
    for (; n > 0; n -= TRIL_Q_BLOCK, to += TRIL_Q4_BYTES, from += TRIL_Q_BLOCK) {
        float up, down;
        extremes(from, TRIL_Q_BLOCK, &up, &down);
        /* Which of two that are as large comes first is rarely asked. */
        const float peak = up > down ? up : up < down ? -down : tril_peak(from, TRIL_Q_BLOCK), scale = peak / -8.0f;
        const vf reciprocal = v_set1(tril_reciprocal(scale));
        tril_store_u16(to, tril_to_f16(scale));
        UNROLL
        for (int i = 0; i < half; i += V_LANES) {
            const vf lower = to_u4_vec(v_mul(v_load(from + i), reciprocal));
            const vf upper = to_u4_vec(v_mul(v_load(from + half + i), reciprocal));
            v_store_bytes(to + 2 + i, v_fma(upper, v_set1(16.0f), lower));
        }
    }
}

static void convert_row(void *to, tril_dtype to_dtype, float *to_scale, const void *from, tril_dtype from_dtype,
                        const float *from_scale, int64_t n)
{
    switch (to_dtype) {
    case TRIL_F16: encode_halves(TRIL_F16, to, from, n); return;
    case TRIL_BF16: encode_halves(TRIL_BF16, to, from, n); return;
    case TRIL_I8: *to_scale = encode_i8(to, from, n); return;
    case TRIL_Q8_0: encode_q8_0(to, from, n); return;
    case TRIL_Q4_0: encode_q4_0(to, from, n); return;
    default: break;
    }
    BY_TYPE(from_dtype, decode_as, from, from_dtype == TRIL_I8 ? *from_scale : 0.0f, to, n);
}

#endif
