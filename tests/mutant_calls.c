/* The public calls in a program of mutants: they go to the copy of the library that belongs to the tier in use, in the
 * place of libtril.a's tril.c, which is then not linked at all. */
#include "table.h"

static const struct mutant_library *library(void)
{
    const struct tril_kernels *kernels = tril_kernels_in_use();
    for (int i = 0; i < mutant_library_count; i++) {
        if (mutant_libraries[i].kernels == kernels) return &mutant_libraries[i];
    }
    return &mutant_libraries[0];
}

tril_status tril_workspace(const tril_attention *call, int threads, size_t *bytes)
{
    return library()->workspace(call, threads, bytes);
}

tril_status tril_attend(const tril_attention *call, void *workspace, size_t bytes)
{
    return library()->attend(call, workspace, bytes);
}

tril_status tril_weights(const tril_attention *call, const tril_weights_out *to, void *workspace, size_t bytes)
{
    return library()->weights(call, to, workspace, bytes);
}

tril_status tril_attend_team(const tril_attention *call, void *workspace, size_t bytes, int thread, int threads)
{
    return library()->attend_team(call, workspace, bytes, thread, threads);
}

tril_status tril_weights_team(const tril_attention *call, const tril_weights_out *to, void *workspace, size_t bytes,
                              int thread, int threads)
{
    return library()->weights_team(call, to, workspace, bytes, thread, threads);
}

tril_status tril_merge(const tril_partial *parts, int64_t n, int64_t rows, int64_t dim, uint32_t flags, float *out,
                       int64_t out_row_stride, float *row_max, float *row_sum)
{
    return library()->merge(parts, n, rows, dim, flags, out, out_row_stride, row_max, row_sum);
}

tril_status tril_append(const tril_tensor *cache, int64_t at, const tril_tensor *from, int64_t from_token,
                        int64_t tokens, int32_t kv_heads, int32_t dim)
{
    return library()->append(cache, at, from, from_token, tokens, kv_heads, dim);
}

tril_status tril_convert(void *to, tril_dtype to_dtype, float *to_scale, const void *from, tril_dtype from_dtype,
                         const float *from_scale, int64_t n)
{
    return library()->convert(to, to_dtype, to_scale, from, from_dtype, from_scale, n);
}

const char *tril_status_text(tril_status status)
{
    return status == TRIL_OK ? "ok" : "an error";
}
