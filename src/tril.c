/* The public calls: check, plan, run. No SIMD, no arithmetic but the scale. */
#include "check.h"
#include "dispatch.h"

/* 1 / sqrt(n), rounded to float from double. Newton's iteration from above falls until it stands, in IEEE arithmetic
 * the same on every machine; the library thereby needs no libm. */
static float one_over_root(int n)
{
    double x = n, next = 0.5 * (x + 1.0);
    while (next < x) {
        x = next;
        next = 0.5 * (x + n / x);
    }
    return (float)(1.0 / x);
}

static float log2_scale(const tril_attention *call)
{
    const float scale = call->scale == 0.0f ? one_over_root(call->qk_dim) : call->scale;
    return tril_log2_scale(scale);
}

static float *aligned(void *workspace)
{
    return (float *)(((uintptr_t)workspace + 63) & ~(uintptr_t)63);
}

static tril_status run(const tril_attention *call, enum tril_operation operation, const tril_weights_out *to,
                       void *workspace, size_t bytes)
{
    struct tril_checked checked;
    struct tril_plan plan;
    const struct tril_kernels *kernels = tril_kernels_in_use();
    tril_status status = tril_check_call(call, operation, to, &checked);
    if (status != TRIL_OK || checked.query_tokens == 0) return status;
    tril_plan_make(&plan, &checked.call, &kernels->blocking);
    status = tril_check_workspace(&checked, workspace, bytes, plan.bytes);
    if (status != TRIL_OK) return status;

    const struct tril_job job = {
        .call = &checked.call,
        .weights = operation == TRIL_WEIGHING ? &checked.weights : NULL,
        .plan = &plan,
        .log2_scale = log2_scale(&checked.call),
    };
    struct tril_walk walk = {0};
    struct tril_task task;
    while (tril_plan_next(&plan, &checked.call, &walk, &task))
        (operation == TRIL_WEIGHING ? kernels->weights : kernels->attend)(&job, &task, aligned(workspace));
    return TRIL_OK;
}

tril_status tril_workspace(const tril_attention *call, int threads, size_t *bytes)
{
    struct tril_checked checked;
    struct tril_plan plan;
    if (bytes == NULL) return TRIL_ERR_NULL;
    tril_status status = tril_check_team(0, threads);
    if (status != TRIL_OK) return status;
    status = tril_check_call(call, TRIL_SIZING, NULL, &checked);
    if (status != TRIL_OK) return status;
    tril_plan_make(&plan, &checked.call, &tril_kernels_in_use()->blocking);
    *bytes = plan.bytes;
    return TRIL_OK;
}

tril_status tril_attend(const tril_attention *call, void *workspace, size_t bytes)
{
    return run(call, TRIL_ATTENDING, NULL, workspace, bytes);
}

tril_status tril_weights(const tril_attention *call, const tril_weights_out *to, void *workspace, size_t bytes)
{
    return run(call, TRIL_WEIGHING, to, workspace, bytes);
}

tril_status tril_attend_team(const tril_attention *call, void *workspace, size_t bytes, int thread, int threads)
{
    const tril_status status = tril_check_team(thread, threads);
    return status != TRIL_OK ? status : tril_attend(call, workspace, bytes);
}

tril_status tril_weights_team(const tril_attention *call, const tril_weights_out *to, void *workspace, size_t bytes,
                              int thread, int threads)
{
    const tril_status status = tril_check_team(thread, threads);
    return status != TRIL_OK ? status : tril_weights(call, to, workspace, bytes);
}

/* Declared so that hosts can be written against them; see the header. */
tril_status tril_merge(const tril_partial *parts, int64_t n, int64_t rows, int64_t dim, float *out,
                       int64_t out_row_stride, float *row_max, float *row_sum)
{
    (void)parts, (void)n, (void)rows, (void)dim, (void)out, (void)out_row_stride, (void)row_max, (void)row_sum;
    return TRIL_ERR_UNSUPPORTED;
}

tril_status tril_append(const tril_out *cache, tril_layout layout, int64_t at, const float *rows, int64_t tokens,
                        int32_t kv_heads, int32_t dim)
{
    (void)cache, (void)layout, (void)at, (void)rows, (void)tokens, (void)kv_heads, (void)dim;
    return TRIL_ERR_UNSUPPORTED;
}

tril_status tril_convert(void *to, tril_dtype to_dtype, const void *from, tril_dtype from_dtype, int64_t n)
{
    (void)to, (void)to_dtype, (void)from, (void)from_dtype, (void)n;
    return TRIL_ERR_UNSUPPORTED;
}

const char *tril_status_text(tril_status status)
{
    static const char *const text[] = {
        [TRIL_OK] = "ok",
        [TRIL_ERR_NULL] = "a pointer is null where its extent is not 0",
        [TRIL_ERR_STRUCT] = "struct_size, a flag or a reserved field is not of a known version",
        [TRIL_ERR_SHAPE] = "a head count, head size, length, row or thread number is out of its range",
        [TRIL_ERR_OVERFLOW] = "a product of sizes and strides does not fit in 63 bits",
        [TRIL_ERR_STRIDE] = "a stride is negative, or makes two elements share memory",
        [TRIL_ERR_EXTENT] = "a tensor's extent in bytes ends before its last element",
        [TRIL_ERR_ALIGN] = "a pointer or stride is not a multiple of the element's size",
        [TRIL_ERR_ALIAS] = "an output or the workspace overlaps an input, another output or each other",
        [TRIL_ERR_DTYPE] = "a dtype, layout, math mode or form is unknown or not allowed for its operand",
        [TRIL_ERR_PARAM] = "a number is NaN, infinite or out of its range",
        [TRIL_ERR_WORKSPACE] = "the workspace is null or too small",
        [TRIL_ERR_BLOCK_TABLE] = "a block number is negative or not below the number of blocks",
        [TRIL_ERR_UNSUPPORTED] = "not built yet, or not possible on this machine",
    };
    _Static_assert(sizeof(text) / sizeof(text[0]) == TRIL_STATUS_COUNT, "a text for every status");
    return (unsigned)status < TRIL_STATUS_COUNT ? text[status] : "unknown status";
}

uint32_t tril_version(void)
{
    return TRIL_VERSION;
}
