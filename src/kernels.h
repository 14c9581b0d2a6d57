/* What a tier must provide.
 *
 *     struct tril_job: one checked call            struct tril_task: a part of it
 *        q [token][q_heads][qk_dim]                   queries x group rows, ordered [query][query head of the K/V head]
 *        k [token][kv_heads][qk_dim]     ---->        keys 0 ... keys-1 of one sequence and one K/V head
 *        v [token][kv_heads][v_dim]
 *
 *                      keys ->   block 0          block 1       (256 keys each, at absolute positions)
 *     rows   task.position       xxxxxxxxxxxxxxxx|xxxx            x: visible. attend() writes the task's rows of
 *      |     task.position + 1   xxxxxxxxxxxxxxxx|xxxxx           out, weights() their rows of A, both the row
 *      v     ...                 xxxxxxxxxxxxxxxx|xxxxxx          statistics where asked for. Nothing else.
 *
 * A tier may read q, k and v only where the task's visible keys and queries lie, and may write only its task's results
 * and its workspace, which is 64-byte aligned and laid out by plan.h. Its bits are those of scalar.c
 * (docs/contract.md). No function of a tier may be called on a machine that cannot run it.
 */
#ifndef TRIL_KERNELS_H
#define TRIL_KERNELS_H

#include "plan.h"

struct tril_job {
    const tril_attention *call;
    const tril_weights_out *weights; /* null in an attend call */
    const struct tril_plan *plan;
    float log2_scale; /* c = round(scale * log2 e): t = round(s * c) */
};

struct tril_kernels {
    const char *name;
    struct tril_blocking blocking;
    void (*attend)(const struct tril_job *, const struct tril_task *, float *workspace);
    void (*weights)(const struct tril_job *, const struct tril_task *, float *workspace);
    /* The tier's exp2 on an array, for the exhaustive test: t <= 127 or NaN. */
    void (*exp2)(float *to, const float *from, size_t n);
};

extern const struct tril_kernels tril_kernels_scalar, tril_kernels_avx2, tril_kernels_avx512, tril_kernels_neon;

/* Where things lie; shared by every tier, the oracle too, since they are the interface and not arithmetic. */
static inline const float *tril_row(const tril_tensor *x, int64_t token, int64_t head)
{
    return (const float *)(const void *)((const char *)x->data + token * x->token_stride + head * x->head_stride);
}

static inline float *tril_out_row(const tril_out *x, int64_t token, int64_t head)
{
    return (float *)(void *)((char *)x->data + token * x->token_stride + head * x->head_stride);
}

/* The row of A of query `query` (counted in its sequence) and query head `head`. */
static inline float *tril_weights_row(const tril_weights_out *to, const struct tril_task *task, int64_t query,
                                      int64_t head)
{
    if (to->data == NULL) return NULL; /* no row has a column */
    char *p = (char *)to->data + head * to->head_stride;
    if (to->form == TRIL_WEIGHTS_DENSE) return (float *)(void *)(p + (task->seq->q_first + query) * to->row_stride);
    return (float *)(void *)p + task->packed + tril_packed_offset(task->seq, query);
}

/* One row's statistics, where asked for. */
static inline void tril_store_statistics(const tril_attention *call, int64_t token, int64_t head, float max, float sum)
{
    if (call->row_max != NULL) call->row_max[token * call->q_heads + head] = max;
    if (call->row_sum != NULL) call->row_sum[token * call->q_heads + head] = sum;
}

#endif
