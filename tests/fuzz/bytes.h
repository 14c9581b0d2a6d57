/* A fuzzer's input as choices: what is made of it is small and legal more often than not. */
#ifndef TRIL_FUZZ_BYTES_H
#define TRIL_FUZZ_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct bytes {
    const uint8_t *p;
    size_t n;
};

/* The next n of them, or what there is, as an input of their own. */
static inline struct bytes take_some(struct bytes *from, size_t n)
{
    const struct bytes some = {from->p, n < from->n ? n : from->n};
    from->p += some.n;
    from->n -= some.n;
    return some;
}

/* 0 behind the end: the first choice of each list is the plain one. */
static inline uint8_t take_byte(struct bytes *from)
{
    if (from->n == 0) return 0;
    from->n--;
    return *from->p++;
}

static inline int64_t take_below(struct bytes *from, int64_t n)
{
    const int64_t low = take_byte(from);
    return (n <= 256 ? low : low | take_byte(from) << 8) % n;
}

static inline int64_t take_word(struct bytes *from)
{
    uint64_t x = 0;
    for (int i = 0; i < 8; i++)
        x = x << 8 | take_byte(from);
    return (int64_t)x;
}

/* A number that may take the place of `was`. */
static inline int64_t take_number(struct bytes *from, int64_t was)
{
    static const int64_t other[] = {0,    1,     -1,      2,         15,        16,         255,       256,
                                    1024, 65536, 1 << 30, INT32_MAX, INT32_MIN, UINT32_MAX, INT64_MAX, INT64_MIN};
    const uint64_t x = (uint64_t)was;
    const int64_t choice = take_below(from, 32);
    switch (choice) {
    case 16: return (int64_t)(x + 1);
    case 17: return (int64_t)(x - 1);
    case 18: return (int64_t)(x * 2);
    case 19: return (int64_t)(x / 2);
    case 20: return (int64_t)(0 - x);
    case 21: return (int64_t)(x + (uint64_t)take_byte(from) * 4);
    case 22: return (int64_t)(x - (uint64_t)take_byte(from) * 4);
    case 23: return INT64_C(1) << take_below(from, 63);
    case 24: return (INT64_C(1) << take_below(from, 63)) - 1;
    case 25: return (INT64_C(1) << take_below(from, 63)) + 16;
    case 26: return take_word(from);
    default: return choice < 16 ? other[choice] : take_byte(from);
    }
}

static inline float take_float(struct bytes *from)
{
    static const float other[] = {0.0f, 1.0f, -1.0f, 0.125f, 30.0f, -0.0f, 1e-40f, 1e-30f, 1e30f, 3.4e38f, -3.4e38f};
    const int64_t choice = take_below(from, 16);
    if (choice < (int64_t)(sizeof other / sizeof other[0])) return other[choice];
    const uint32_t bits = choice == 11   ? 0x7f800000
                          : choice == 12 ? 0xff800000
                          : choice == 13 ? 0x7fc00000
                                         : (uint32_t)take_word(from);
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

#endif
