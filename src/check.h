/* Every refusal, before the first write. Behind these functions a call is known to be sound. */
#ifndef TRIL_CHECK_H
#define TRIL_CHECK_H

#include "plan.h"

enum tril_operation { TRIL_SIZING, TRIL_SIZING_WEIGHTS, TRIL_ATTENDING, TRIL_WEIGHING };

/* Bytes that a call touches. Where they recur with a period (rows with other tensors' data between them), only the
 * first `width` of every `period` bytes; else period is 0. */
struct tril_region {
    uintptr_t begin;
    uint64_t bytes;
    int64_t period, width;
    bool written;
};

struct tril_checked {
    tril_attention call; /* the caller's, brought to this version's size */
    tril_weights_out weights;
    int64_t query_tokens; /* rows of q, out and the statistics; 0: nothing to do */
    struct tril_region regions[16];
    int n_regions;
};

tril_status tril_check_call(const tril_attention *call, enum tril_operation operation, const tril_weights_out *to,
                            struct tril_checked *checked);
tril_status tril_check_team(int thread, int threads);
/* Paged K/V: checks the entries of the block tables that the call needs, and copies them one behind the other, so that
 * each is read once; an entry more at the end. */
tril_status tril_check_pages(const tril_attention *call, int32_t *to);
tril_status tril_check_convert(const void *to, tril_dtype to_dtype, const float *to_scale, const void *from,
                               tril_dtype from_dtype, const float *from_scale, int64_t n);
tril_status tril_check_merge(const tril_partial *parts, int64_t n, int64_t rows, int64_t dim, uint32_t flags,
                             const float *out, int64_t out_row_stride, const float *row_max, const float *row_sum);
tril_status tril_check_append(const tril_tensor *cache, int64_t at, const tril_tensor *from, int64_t from_token,
                              int64_t tokens, int32_t kv_heads, int32_t dim);
tril_status tril_check_workspace(const struct tril_checked *checked, const void *workspace, size_t bytes,
                                 size_t needed);

#endif
