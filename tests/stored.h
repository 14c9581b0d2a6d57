/* The stored types by their definition: what a row's elements are worth, in double, where all of it is exact, and how
 * f32 is stored. None of it is the library's arithmetic. */
#ifndef TRIL_TESTS_STORED_H
#define TRIL_TESTS_STORED_H

#include <math.h>
#include <string.h>

#include "support.h"

#define BLOCK_VALUES 32 /* of Q8_0 and Q4_0 */

static inline uint16_t u16_at(const unsigned char *p)
{
    uint16_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

/* F16 and BF16: a sign, an exponent, `fraction` bits; the least normal number is 2^(1 - bias). Infinity's place is
 * taken for the number that would stand there if the exponents went on. */
static inline double half_place(tril_dtype type, uint16_t bits)
{
    const int fraction = type == TRIL_F16 ? 10 : 7, bias = type == TRIL_F16 ? 15 : 127;
    const int exponent = (bits & 0x7fff) >> fraction, rest = bits & ((1 << fraction) - 1);
    const double magnitude =
        exponent == 0 ? ldexp(rest, 1 - bias - fraction) : ldexp(rest + (1 << fraction), exponent - bias - fraction);
    return bits >> 15 ? -magnitude : magnitude;
}

static inline uint16_t half_infinity(tril_dtype type)
{
    return type == TRIL_F16 ? 0x7c00 : 0x7f80;
}

static inline double half_value(tril_dtype type, uint16_t bits)
{
    if ((bits & 0x7fff) > half_infinity(type)) return NAN;
    if ((bits & 0x7fff) == half_infinity(type)) return bits >> 15 ? -INFINITY : INFINITY;
    return half_place(type, bits);
}

/* To the nearest, ties to even; x is no NaN. By search: of two neighbours, the one on whose side of their middle x is.
 */
static inline uint16_t half_nearest(tril_dtype type, float x)
{
    const double magnitude = fabs((double)x);
    uint16_t low = 0, high = half_infinity(type);
    while (high - low > 1) {
        const uint16_t middle = (uint16_t)((low + high) / 2);
        if (half_place(type, middle) <= magnitude)
            low = middle;
        else
            high = middle;
    }
    const double middle = 0.5 * (half_place(type, low) + half_place(type, high));
    const bool up = magnitude > middle || (magnitude == middle && low % 2 == 1);
    return (uint16_t)((up ? high : low) | (signbit(x) ? 0x8000 : 0));
}

/* Whether `got` is what x is stored as: any NaN for a NaN. */
static inline bool half_is(tril_dtype type, uint16_t got, float x)
{
    return x != x ? (got & 0x7fff) > half_infinity(type) : got == half_nearest(type, x);
}

static inline bool in_blocks(tril_dtype type)
{
    return type == TRIL_Q8_0 || type == TRIL_Q4_0;
}

static inline int64_t stored_bytes(tril_dtype type, int64_t n)
{
    switch (type) {
    case TRIL_F32: return 4 * n;
    case TRIL_I8: return n;
    case TRIL_Q8_0: return n / BLOCK_VALUES * 34;
    case TRIL_Q4_0: return n / BLOCK_VALUES * 18;
    default: return 2 * n;
    }
}

static inline const char *dtype_name(tril_dtype type)
{
    static const char *const names[] = {"F32", "F16", "BF16", "I8", "Q8_0", "Q4_0"};
    return names[type];
}

/* Value i of a block, or of a row of I8, before it is scaled. */
static inline int stored_integer(tril_dtype type, const unsigned char *block, int64_t i)
{
    const unsigned char byte = type == TRIL_I8 ? block[i] : type == TRIL_Q8_0 ? block[2 + i] : block[2 + i % 16];
    if (type == TRIL_Q4_0) return (i < 16 ? byte % 16 : byte / 16) - 8;
    return byte < 128 ? byte : byte - 256;
}

/* Element i of a row that is no F32. scale: of I8. */
static inline float stored_value(tril_dtype type, const unsigned char *row, float scale, int64_t i)
{
    const int64_t in_block = i % BLOCK_VALUES;
    const unsigned char *const block = row + stored_bytes(type, i - in_block);
    if (type == TRIL_I8) return (float)((double)scale * stored_integer(type, row, i));
    if (in_blocks(type)) return (float)(half_value(TRIL_F16, u16_at(block)) * stored_integer(type, block, in_block));
    return (float)half_value(type, u16_at(row + 2 * i));
}

#endif
