/* Query, key and value arrays as the library wants them. */
#ifndef OPERANDS_H
#define OPERANDS_H

#include "npy.h"
#include "tril.h"

struct operands {
    struct npy q, k, v; /* [token][head][dim]; v is empty where only weights are wanted */
    int32_t q_heads, kv_heads, qk_dim, v_dim;
    int64_t queries, keys; /* tokens; query i stands at position keys - queries + i */
};

/* Reads and checks them against each other, or dies. v_path may be null. */
struct operands operands_read(const char *q_path, const char *k_path, const char *v_path);
void operands_free(struct operands *x);

/* Contiguous floats, [token][head][dim]. */
tril_tensor tensor_of(const float *data, int64_t tokens, int64_t heads, int64_t dim);
tril_out out_of(float *data, int64_t tokens, int64_t heads, int64_t dim);

/* A call on all of it, without a sequence and an output yet. */
tril_attention call_of(const struct operands *x);

/* The workspace that the call needs, with malloc; *bytes its size. Dies where the library refuses the call. */
void *workspace_for(const tril_attention *call, size_t *bytes);

/* Dies unless TRIL_OK. */
void expect_ok(const char *what, tril_status status);

#endif
