#include "codes.h"

#include <math.h>
#include <string.h>

enum { IN_BLOCK = 32, HALF_BLOCK = IN_BLOCK / 2, SCALE_BYTES = 2 };

const char *type_name(tril_dtype type)
{
    static const char *const names[] = {"f32", "f16", "bf16", "i8", "q8_0", "q4_0"};
    _Static_assert(COUNT(names) == TRIL_DTYPE_COUNT, "a name for every type");
    return names[type];
}

static bool in_blocks(tril_dtype type)
{
    return type == TRIL_Q8_0 || type == TRIL_Q4_0;
}

bool type_fits(tril_dtype type, int64_t dim)
{
    return !in_blocks(type) || dim % IN_BLOCK == 0;
}

static int64_t block_bytes(tril_dtype type)
{
    return SCALE_BYTES + (type == TRIL_Q8_0 ? IN_BLOCK : HALF_BLOCK);
}

int64_t type_unit(tril_dtype type)
{
    return type == TRIL_F32 ? 4 : type == TRIL_I8 ? 1 : 2;
}

int64_t type_row_bytes(tril_dtype type, int64_t dim)
{
    return in_blocks(type) ? dim / IN_BLOCK * block_bytes(type) : dim * type_unit(type);
}

uint32_t type_filler(tril_dtype type)
{
    switch (type) {
    case TRIL_F32: return SIGNALLING_NAN;
    case TRIL_BF16: return 0x7fa07fa0;
    case TRIL_I8: return 0x7f7f7f7f;
    default: return 0x7d007d00;
    }
}

/* x to `digits` binary digits, or to multiples of the last digit of 2^lowest; more than `most` is infinite. */
static float nearest(float x, int digits, int lowest, double most)
{
    if (x == 0.0f || x - x != 0.0f) return x;
    const int exponent = ilogbf(x) < lowest ? lowest : ilogbf(x);
    const double y = ldexp(rint(ldexp((double)x, digits - 1 - exponent)), exponent - digits + 1);
    return fabs(y) > most ? copysignf(INFINITY, x) : (float)y;
}

float round_to(tril_dtype type, float x)
{
    return type == TRIL_F16 ? nearest(x, 11, -14, 65504.0) : type == TRIL_BF16 ? nearest(x, 8, -126, 0x1.fep127) : x;
}

static unsigned to_f16(float x)
{
    const float y = round_to(TRIL_F16, x);
    const uint32_t bits = bits_of(y);
    const unsigned sign = bits >> 16 & 0x8000;
    if (y != y) return sign | 0x7c00 | (bits >> 13 & 0x3ff) | ((bits >> 13 & 0x3ff) == 0); /* stays signalling */
    if (fabsf(y) < 0x1p-14f) return sign | (unsigned)(fabsf(y) * 0x1p24f);
    return sign | (y - y != 0.0f ? 0x7c00 : (bits >> 13 & 0x3ffff) - (112 << 10));
}

static float of_f16(unsigned code)
{
    const uint32_t sign = (code & 0x8000) << 16, fraction = code & 0x3ff;
    const int exponent = (int)(code >> 10 & 31);
    if (exponent == 31) return float_of(sign | 0x7f800000 | fraction << 13);
    const float x = exponent == 0 ? ldexpf((float)fraction, -24) : ldexpf((float)(fraction + 1024), exponent - 25);
    return sign != 0 ? -x : x;
}

static unsigned to_bf16(float x)
{
    const uint32_t bits = bits_of(round_to(TRIL_BF16, x));
    return bits >> 16 | (x != x && (bits >> 16 & 0x7f) == 0);
}

static float of_bf16(unsigned code)
{
    return float_of(code << 16);
}

static unsigned half_at(const unsigned char *p)
{
    uint16_t half;
    memcpy(&half, p, sizeof half);
    return half;
}

static void put_half(unsigned char *p, unsigned code)
{
    const uint16_t half = (uint16_t)code;
    memcpy(p, &half, sizeof half);
}

/* The element of largest size, with its sign; a NaN above all. */
static float extreme(const float *x, int64_t n)
{
    float most = 0.0f;
    for (int64_t i = 0; i < n; i++) {
        if (x[i] != x[i]) return x[i];
        if (fabsf(x[i]) > fabsf(most)) most = x[i];
    }
    return most;
}

/* x in units of scale. Of a scale that is no number only the sign is left. */
static int quantum(float x, float scale, int least, int most)
{
    if (scale == 0.0f) return 0;
    if (scale - scale != 0.0f) return (x < 0.0f) == (scale < 0.0f) ? 1 : -1;
    const float y = rintf(x / scale);
    return y > (float)most ? most : y < (float)least ? least : (int)y;
}

/* A block's scale as it is stored: no number becomes infinite. */
static unsigned scale_code(float scale)
{
    return to_f16(scale - scale != 0.0f ? scale : fmaxf(-65504.0f, fminf(scale, 65504.0f)));
}

static void encode_block(tril_dtype type, const float *from, unsigned char *block)
{
    unsigned char *const codes = block + SCALE_BYTES;
    const float most = extreme(from, IN_BLOCK);
    put_half(block, scale_code(type == TRIL_Q8_0 ? fabsf(most) / 127.0f : most / -8.0f));
    const float scale = of_f16(half_at(block));
    for (int i = 0; i < (type == TRIL_Q8_0 ? IN_BLOCK : HALF_BLOCK); i++) {
        if (type == TRIL_Q8_0)
            codes[i] = (unsigned char)quantum(from[i], scale, -128, 127);
        else
            codes[i] = (unsigned char)((quantum(from[i], scale, -8, 7) + 8) |
                                       (quantum(from[i + HALF_BLOCK], scale, -8, 7) + 8) << 4);
    }
}

static void decode_block(tril_dtype type, const unsigned char *block, float *to)
{
    const unsigned char *const codes = block + SCALE_BYTES;
    const float scale = of_f16(half_at(block));
    for (int i = 0; i < IN_BLOCK; i++) {
        if (type == TRIL_Q8_0)
            to[i] = scale * (float)(codes[i] < 128 ? codes[i] : codes[i] - 256);
        else
            to[i] = scale * (float)((i < HALF_BLOCK ? codes[i] % 16 : codes[i - HALF_BLOCK] / 16) - 8);
    }
}

void encode_row(tril_dtype type, const float *from, int64_t dim, unsigned char *row, float *scale)
{
    if (type == TRIL_I8) *scale = fabsf(extreme(from, dim)) / 127.0f;
    for (int64_t i = 0; i < dim; i++) {
        switch (type) {
        case TRIL_F32: memcpy(row + i * 4, from + i, 4); break;
        case TRIL_F16: put_half(row + i * 2, to_f16(from[i])); break;
        case TRIL_BF16: put_half(row + i * 2, to_bf16(from[i])); break;
        case TRIL_I8: row[i] = (unsigned char)quantum(from[i], *scale, -128, 127); break;
        default:
            if (i % IN_BLOCK == 0) encode_block(type, from + i, row + i / IN_BLOCK * block_bytes(type));
        }
    }
}

void decode_row(tril_dtype type, const unsigned char *row, float scale, int64_t dim, float *to)
{
    for (int64_t i = 0; i < dim; i++) {
        switch (type) {
        case TRIL_F32: memcpy(to + i, row + i * 4, 4); break;
        case TRIL_F16: to[i] = of_f16(half_at(row + i * 2)); break;
        case TRIL_BF16: to[i] = of_bf16(half_at(row + i * 2)); break;
        case TRIL_I8: to[i] = scale * (float)(row[i] < 128 ? row[i] : row[i] - 256); break;
        default:
            if (i % IN_BLOCK == 0) decode_block(type, row + i / IN_BLOCK * block_bytes(type), to + i);
        }
    }
}

/* Any 16 bits, but for the exponent of NaN and infinity. */
static unsigned random_half(struct rng *rng, unsigned exponent)
{
    const unsigned code = (unsigned)(rng_next(rng) & 0xffff);
    return (code & exponent) == exponent ? code ^ exponent : code;
}

static unsigned random_f16(struct rng *rng, bool wild)
{
    return wild ? random_half(rng, 0x7c00) : (unsigned)(rng_next(rng) & 0xbfff); /* below 2 */
}

static float random_scale(struct rng *rng, bool wild)
{
    const uint32_t high = random_half(rng, 0x7f80), low = (uint32_t)(rng_next(rng) & 0xffff);
    return wild ? float_of(high << 16 | low) : 0.02f * rng_normal(rng);
}

void random_row(tril_dtype type, struct rng *rng, bool wild, int64_t dim, unsigned char *row, float *scale)
{
    const int64_t bytes = type_row_bytes(type, dim);
    if (type == TRIL_I8) *scale = random_scale(rng, wild);
    if (type == TRIL_F16 || (type == TRIL_BF16 && wild)) {
        for (int64_t i = 0; i < bytes; i += 2)
            put_half(row + i, type == TRIL_F16 ? random_f16(rng, wild) : random_half(rng, 0x7f80));
        return;
    }
    if (type <= TRIL_BF16) return;
    for (int64_t i = 0; i < bytes; i++)
        row[i] = (unsigned char)rng_next(rng);
    for (int64_t i = 0; in_blocks(type) && i < bytes; i += block_bytes(type))
        put_half(row + i, wild ? random_f16(rng, true) : to_f16(0.02f * rng_normal(rng)));
}
