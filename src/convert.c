/* tril_convert() in plain C: the scalar tier's, and what the tiers' engine/convert.h is compared with. */
#include "formats.h"
#include "kernels.h"

static void decode(float *to, const void *from, tril_dtype type, float scale, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = tril_element(type, from, scale, i, 1);
}

static void encode(unsigned char *to, tril_dtype type, float *to_scale, const float *from, int64_t n)
{
    switch (type) {
    case TRIL_F16:
        for (int64_t i = 0; i < n; i++)
            tril_store_u16(to + 2 * i, tril_to_f16(from[i]));
        break;
    case TRIL_BF16:
        for (int64_t i = 0; i < n; i++)
            tril_store_u16(to + 2 * i, tril_to_bf16(from[i]));
        break;
    case TRIL_I8: *to_scale = tril_store_i8(to, from, n); break;
    case TRIL_Q8_0:
        for (int64_t i = 0; i < n / TRIL_Q_BLOCK; i++)
            tril_store_q8_0(to + i * TRIL_Q8_BYTES, from + i * TRIL_Q_BLOCK);
        break;
    default:
        for (int64_t i = 0; i < n / TRIL_Q_BLOCK; i++)
            tril_store_q4_0(to + i * TRIL_Q4_BYTES, from + i * TRIL_Q_BLOCK);
        break;
    }
}

void tril_convert_row(void *to, tril_dtype to_dtype, float *to_scale, const void *from, tril_dtype from_dtype,
                      const float *from_scale, int64_t n)
{
    if (to_dtype == TRIL_F32)
        decode(to, from, from_dtype, from_dtype == TRIL_I8 ? *from_scale : 0.0f, n);
    else
        encode(to, to_dtype, to_scale, from, n);
}
