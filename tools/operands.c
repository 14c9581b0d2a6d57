#include "operands.h"

#include <inttypes.h>
#include <stdlib.h>

#include "tool.h"

#define AXES "[token][head][dim]"

static void check_size(const struct npy *x)
{
    static const char *const what[] = {"tokens", "heads", "elements per head"};
    static const int64_t most[] = {INT32_MAX, 65536, TRIL_MAX_HEAD_DIM};
    for (int i = 0; i < 3; i++) {
        const int64_t least = i == 0 ? 0 : 1;
        if (x->shape[i] < least || x->shape[i] > most[i])
            die("%s: %" PRId64 " %s; give %" PRId64 " to %" PRId64 ", as " AXES, x->path, x->shape[i], what[i], least,
                most[i]);
    }
}

static struct npy read_operand(const char *path)
{
    const struct npy x = npy_read(path, NPY_F4 | NPY_F2, 3, AXES);
    check_size(&x);
    return x;
}

struct operands operands_read(const char *q_path, const char *k_path, const char *v_path)
{
    struct operands x = {.q = read_operand(q_path), .k = read_operand(k_path)};
    x.queries = x.q.shape[0];
    x.keys = x.k.shape[0];
    x.q_heads = (int32_t)x.q.shape[1];
    x.kv_heads = (int32_t)x.k.shape[1];
    x.qk_dim = (int32_t)x.q.shape[2];
    if (x.k.shape[2] != x.qk_dim)
        die("%s: heads of size %" PRId64 ", but %s has %d; give the same size", k_path, x.k.shape[2], q_path, x.qk_dim);
    if (x.q_heads % x.kv_heads != 0)
        die("%s: %d heads do not share the %d heads of %s evenly; give a multiple of %d", q_path, x.q_heads, x.kv_heads,
            k_path, x.kv_heads);
    if (x.queries > x.keys)
        die("%s: %" PRId64 " tokens, but %s has only %" PRId64 "; give at most as many queries as keys", q_path,
            x.queries, k_path, x.keys);
    if (v_path == NULL) return x;

    x.v = read_operand(v_path);
    x.v_dim = (int32_t)x.v.shape[2];
    if (x.v.shape[0] != x.keys)
        die("%s: %" PRId64 " tokens, but %s has %" PRId64 "; give the same number", v_path, x.v.shape[0], k_path,
            x.keys);
    if (x.v.shape[1] != x.kv_heads)
        die("%s: %" PRId64 " heads, but %s has %d; give the same number", v_path, x.v.shape[1], k_path, x.kv_heads);
    return x;
}

void operands_free(struct operands *x)
{
    npy_free(&x->q);
    npy_free(&x->k);
    npy_free(&x->v);
}

tril_tensor tensor_of(const float *data, int64_t tokens, int64_t heads, int64_t dim)
{
    const int64_t row = dim * (int64_t)sizeof(float);
    return (tril_tensor){.data = data,
                         .bytes = tokens * heads * row,
                         .token_stride = heads * row,
                         .head_stride = row,
                         .dtype = TRIL_F32};
}

tril_out out_of(float *data, int64_t tokens, int64_t heads, int64_t dim)
{
    const int64_t row = dim * (int64_t)sizeof(float);
    return (tril_out){.data = data,
                      .bytes = tokens * heads * row,
                      .token_stride = heads * row,
                      .head_stride = row,
                      .dtype = TRIL_F32};
}

tril_attention call_of(const struct operands *x)
{
    return (tril_attention){
        .struct_size = sizeof(tril_attention),
        .q_heads = x->q_heads,
        .kv_heads = x->kv_heads,
        .qk_dim = x->qk_dim,
        .v_dim = x->v_dim,
        .q = tensor_of(x->q.f32, x->queries, x->q_heads, x->qk_dim),
        .k = tensor_of(x->k.f32, x->keys, x->kv_heads, x->qk_dim),
        .v = tensor_of(x->v.f32, x->keys, x->kv_heads, x->v_dim),
    };
}

void *workspace_for(const tril_attention *call, size_t *bytes)
{
    expect_ok("the workspace", tril_workspace(call, 1, bytes));
    return need(*bytes, 1);
}

void expect_ok(const char *what, tril_status status)
{
    if (status != TRIL_OK) die("%s: the library refuses: %s", what, tril_status_text(status));
}
