/* The stored types as vectors of floats, the one place of the engine that knows them. Behind it everything is f32.
 *
 * `type` is a constant wherever these are used, so that a function is one type's: BY_TYPE() calls the one that a tensor
 * needs. */
#ifndef TRIL_ENGINE_LOAD_H
#define TRIL_ENGINE_LOAD_H

#include "formats.h"
#include "vec.h"

/* function(type, ...) with the tensor's type as a constant. */
#define BY_TYPE(type, function, ...)                                                                                   \
    do {                                                                                                               \
        switch (type) {                                                                                                \
        case TRIL_F16: function(TRIL_F16, __VA_ARGS__); break;                                                         \
        case TRIL_BF16: function(TRIL_BF16, __VA_ARGS__); break;                                                       \
        case TRIL_I8: function(TRIL_I8, __VA_ARGS__); break;                                                           \
        case TRIL_Q8_0: function(TRIL_Q8_0, __VA_ARGS__); break;                                                       \
        case TRIL_Q4_0: function(TRIL_Q4_0, __VA_ARGS__); break;                                                       \
        default: function(TRIL_F32, __VA_ARGS__); break;                                                               \
        }                                                                                                              \
    } while (0)

/* Elements d ... d + V_LANES - 1 of a row, d a multiple of V_LANES, so that they lie in one block and, of Q4_0, in one
 * half of it. scale: of I8. */
static ALWAYS_INLINE vf load_vec(const tril_dtype type, const char *row, const int d, const vf scale)
{
    switch (type) {
    case TRIL_F16: return v_load_f16(row + d * 2);
    case TRIL_BF16: return v_load_bf16(row + d * 2);
    case TRIL_I8: return v_mul(scale, v_load_i8(row + d));
    case TRIL_Q8_0:
        row += d / TRIL_Q_BLOCK * TRIL_Q8_BYTES;
        return v_mul(v_set1_f16(row), v_load_i8(row + 2 + d % TRIL_Q_BLOCK));
    case TRIL_Q4_0:
        row += d / TRIL_Q_BLOCK * TRIL_Q4_BYTES;
        return v_scaled_u4(v_set1_f16(row), row + 2 + d % (TRIL_Q_BLOCK / 2), d % TRIL_Q_BLOCK >= TRIL_Q_BLOCK / 2);
    default: return v_load((const float *)(const void *)row + d);
    }
}

#ifndef V_ROWS_F16 /* a tier's own */
static ALWAYS_INLINE vf v_rows_f16(const char *p, int64_t stride)
{
    uint16_t half[V_LANES];
    UNROLL
    for (int i = 0; i < V_LANES; i++)
        half[i] = tril_load_u16(p + i * stride);
    return v_load_f16(half);
}
#endif

/* The first n of them, 0 <= n < V_LANES; the others are +0 and not looked at. */
static ALWAYS_INLINE vf load_part(const tril_dtype type, const char *row, const int d, const int n, const vf scale)
{
    if (type == TRIL_F32) return v_load_part((const float *)(const void *)row + d, n);
    char some[V_LANES * sizeof(uint16_t)] = {0}; /* no row in blocks has a part */
    const int64_t unit = tril_unit_bytes(type);
    memcpy(some, row + d * unit, (size_t)(n * unit));
    return v_keep(load_vec(type, some, 0, scale), n, 0.0f); /* +0 times a negative or infinite scale is not +0 */
}

/* The same for any n. */
static ALWAYS_INLINE vf load_some(const tril_dtype type, const char *row, const int d, const int n, const vf scale)
{
    return n >= V_LANES ? load_vec(type, row, d, scale) : load_part(type, row, d, n < 0 ? 0 : n, scale);
}

static ALWAYS_INLINE void store_half(const tril_dtype type, void *to, const vf x)
{
    if (type == TRIL_F16)
        v_store_f16(to, x);
    else
        v_store_bf16(to, x);
}

/* A result, o / l, in its type. */
static ALWAYS_INLINE void store_halves(const tril_dtype type, char *to, const float *o, const int dim, const vf l)
{
    int d = 0;
    for (; d + V_LANES <= dim; d += V_LANES)
        store_half(type, to + d * 2, v_div(v_load(o + d), l));
    if (d == dim) return;
    char some[V_LANES * sizeof(uint16_t)];
    store_half(type, some, v_div(v_load_part(o + d, dim - d), l));
    memcpy(to + d * 2, some, (size_t)(dim - d) * 2);
}

static void store_row(void *to, tril_dtype type, const float *o, int dim, float sum)
{
    const vf l = v_set1(sum != 0.0f ? sum : 1.0f); /* all scores -inf: O is 0 */
    if (type == TRIL_F16) {
        store_halves(TRIL_F16, to, o, dim, l);
    } else if (type == TRIL_BF16) {
        store_halves(TRIL_BF16, to, o, dim, l);
    } else {
        float *f = to;
        int d = 0;
        for (; d + V_LANES <= dim; d += V_LANES)
            v_store(f + d, v_div(v_load(o + d), l));
        if (d < dim) v_store_part(f + d, dim - d, v_div(v_load_part(o + d, dim - d), l));
    }
}

#endif
