/* The stored formats, in plain C: what one element is worth, how a row is stored, and how large rows are. The oracle
 * reads and writes with this, the checks measure with it; the engine has vector code of its own for the same. */
#ifndef TRIL_FORMATS_H
#define TRIL_FORMATS_H

#include <stdint.h>
#include <string.h>

#include "tril.h"

#define TRIL_Q_BLOCK  32 /* values in a block of Q8_0 and Q4_0, behind an f16 scale */
#define TRIL_Q8_BYTES 34
#define TRIL_Q4_BYTES 18

static inline float tril_bits_to_float(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint32_t tril_float_to_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float tril_from_f16(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 0x3ff;
    if (exponent == 31) return tril_bits_to_float(sign | 0x7f800000 | fraction << 13 | (fraction != 0) << 22);
    if (exponent > 0) return tril_bits_to_float(sign | (exponent + 112) << 23 | fraction << 13);
    const float x = (float)fraction * 0x1p-24f;
    return sign != 0 ? -x : x;
}

static inline float tril_from_bf16(uint16_t h)
{
    return tril_bits_to_float((uint32_t)h << 16);
}

/* To the nearest, ties to even. */
static inline uint16_t tril_to_bf16(float x)
{
    const uint32_t bits = tril_float_to_bits(x);
    if (x != x) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline uint16_t tril_to_f16(float x)
{
    const uint32_t bits = tril_float_to_bits(x), magnitude = bits & 0x7fffffff;
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    if (magnitude > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x3ff));
    if (magnitude >= 0x477ff000) return sign | 0x7c00; /* 65520 and more round to infinity */
    if (magnitude >= 0x38800000)
        return (uint16_t)(sign | (((magnitude + 0xfff + (magnitude >> 13 & 1)) >> 13) - (112 << 10)));
    /* Below 2^-14 the step is 2^-24, which is the step of 0.5 ... 1. */
    const float aligned = tril_bits_to_float(magnitude) + 0.5f;
    return (uint16_t)(sign | (tril_float_to_bits(aligned) - 0x3f000000));
}

static inline uint16_t tril_load_u16(const void *p)
{
    uint16_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

static inline float tril_load_f32(const void *p)
{
    float x;
    memcpy(&x, p, sizeof x);
    return x;
}

static inline void tril_store_u16(void *p, uint16_t x)
{
    memcpy(p, &x, sizeof x);
}

/* Element i of a row, `step` elements apart (1 but in panels). scale: of I8, else anything. */
static inline float tril_element(tril_dtype type, const void *row, float scale, int64_t i, int64_t step)
{
    const unsigned char *p = row;
    switch (type) {
    case TRIL_F16: return tril_from_f16(tril_load_u16(p + i * step * 2));
    case TRIL_BF16: return tril_from_bf16(tril_load_u16(p + i * step * 2));
    case TRIL_I8: return scale * (float)(signed char)p[i * step];
    case TRIL_Q8_0:
        p += i / TRIL_Q_BLOCK * TRIL_Q8_BYTES;
        return tril_from_f16(tril_load_u16(p)) * (float)(signed char)p[2 + i % TRIL_Q_BLOCK];
    case TRIL_Q4_0: {
        p += i / TRIL_Q_BLOCK * TRIL_Q4_BYTES;
        const int place = (int)(i % TRIL_Q_BLOCK), half = TRIL_Q_BLOCK / 2, byte = p[2 + place % half];
        return tril_from_f16(tril_load_u16(p)) * (float)((place < half ? byte & 15 : byte >> 4) - 8);
    }
    default: return tril_load_f32(p + i * step * 4);
    }
}

/* How blocks are made of f32, by the letter of the formats' reference (ggml, quantize_row_*_ref), which leaves NaN and
 * what is out of range to undefined conversions. Here NaN becomes 0 and the rest the nearest value that there is. A
 * reciprocal is infinite where the scale is below 2^-128. */

/* The first of the largest |x|, +0 if none is above 0; NaN are left out. */
static inline float tril_peak(const float *x, int64_t n)
{
    float peak = 0.0f;
    for (int64_t i = 0; i < n; i++) {
        if (__builtin_fabsf(x[i]) > __builtin_fabsf(peak)) peak = x[i];
    }
    return peak;
}

static inline float tril_reciprocal(float scale)
{
    return scale == 0.0f ? 0.0f : 1.0f / scale;
}

/* To the nearest of -127 ... 127, ties away from 0. */
static inline int tril_to_i8(float x)
{
    if (x != x) return 0;
    if (x >= 127.0f) return 127;
    if (x <= -127.0f) return -127;
    const int whole = (int)x;
    const float rest = x - (float)whole;
    return rest >= 0.5f ? whole + 1 : rest <= -0.5f ? whole - 1 : whole;
}

/* -8 ... 7, plus 8: as Q4_0 stores it. */
static inline int tril_to_u4(float x)
{
    if (x != x) return 8;
    const float up = x + 8.5f;
    return up >= 15.0f ? 15 : up < 1.0f ? 0 : (int)up;
}

/* Writes n values, returns their scale. */
static inline float tril_store_i8(unsigned char *to, const float *x, int64_t n)
{
    const float scale = __builtin_fabsf(tril_peak(x, n)) / 127.0f, reciprocal = tril_reciprocal(scale);
    for (int64_t i = 0; i < n; i++)
        to[i] = (unsigned char)tril_to_i8(x[i] * reciprocal);
    return scale;
}

static inline void tril_store_q8_0(unsigned char *to, const float *x)
{
    tril_store_u16(to, tril_to_f16(tril_store_i8(to + 2, x, TRIL_Q_BLOCK)));
}

static inline void tril_store_q4_0(unsigned char *to, const float *x)
{
    const int half = TRIL_Q_BLOCK / 2;
    const float scale = tril_peak(x, TRIL_Q_BLOCK) / -8.0f, reciprocal = tril_reciprocal(scale);
    tril_store_u16(to, tril_to_f16(scale));
    for (int i = 0; i < half; i++)
        to[2 + i] = (unsigned char)(tril_to_u4(x[i] * reciprocal) | tril_to_u4(x[i + half] * reciprocal) << 4);
}

/* Bytes by which a stored row is aligned: an element's, or, in blocks, the scale's. */
static inline int64_t tril_unit_bytes(tril_dtype type)
{
    return type == TRIL_F32 ? 4 : type == TRIL_I8 ? 1 : 2;
}

/* Bytes of `dim` elements in a row; dim is whole blocks. */
static inline int64_t tril_row_bytes(tril_dtype type, int64_t dim)
{
    if (type == TRIL_Q8_0) return dim / TRIL_Q_BLOCK * TRIL_Q8_BYTES;
    if (type == TRIL_Q4_0) return dim / TRIL_Q_BLOCK * TRIL_Q4_BYTES;
    return dim * tril_unit_bytes(type);
}

#endif
