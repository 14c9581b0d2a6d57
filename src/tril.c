/* The public calls: check, plan, run. No SIMD, no arithmetic but the scale. */
#include "check.h"
#include "cpu.h"
#include "dispatch.h"
#include "fold.h"
#include "scale.h"
#include "team.h"

#include <string.h>

static float *aligned(void *workspace)
{
    return (float *)(((uintptr_t)workspace + 63) & ~(uintptr_t)63);
}

/* Whether a task may have rows, or with TRIL_BLOCKWISE blocks of theirs, that see none of its sequence's range of keys.
 * Where all keys take part a query sees at least its own. */
static bool may_be_blank(const struct tril_job *job, const struct tril_task *task)
{
    const tril_attention *call = job->call;
    const int64_t begin = task->seq->key_begin, end = tril_key_end(task->seq);
    if ((call->flags & TRIL_BLOCKWISE) != 0 || call->tree != NULL) return true;
    if (call->window > 0 && (begin > 0 || end < task->seq->kv_len)) return true;
    return task->position < begin || end == begin;
}

/* What such rows get. */
static void blank(const struct tril_job *job, const struct tril_task *task)
{
    const tril_attention *call = job->call;
    const bool blockwise = (call->flags & TRIL_BLOCKWISE) != 0;
    const int64_t begin = task->seq->key_begin, end = tril_key_end(task->seq);
    const int64_t blocks = blockwise ? tril_seq_blocks(task->seq) : 1;
    /* Only tril_merge() tells an empty sum, -0, from one of zeros. */
    const float nothing = (call->flags & TRIL_UNNORMALISED) != 0 ? -0.0f : 0.0f;
    struct tril_task whole = *task;
    whole.part = 0;
    whole.parts = 1; /* its place is the caller's, not a state */
    for (int64_t i = 0; i < tril_task_rows(job, &whole); i++) {
        const struct tril_task_row row = tril_task_row(job, &whole, i);
        for (int64_t b = 0; b < blocks; b++) {
            const int64_t from = begin + b * TRIL_KEY_BLOCK, to = blockwise ? from + TRIL_KEY_BLOCK : end;
            if (tril_row_sees_any(job, &whole, &row, from, to < end ? to : end)) continue;
            const struct tril_place place = tril_place_of(job, &whole, &row, from);
            float max = -__builtin_inff(), sum = nothing;
            memset(place.o, 0, (size_t)tril_row_bytes(place.type, call->v_dim));
            if (tril_takes_sink(job, &whole)) {
                const struct tril_state sink = tril_sink_of(job, &row);
                if (sink.max > max) sum = sink.sum;
                max = sink.max;
            }
            tril_store_statistics(&place, max, sum);
        }
    }
}

/* Column sums: a sequence's queries one task after the other, in their order, whatever the team does. */
static void do_whole(const struct tril_job *job, const struct tril_task *whole, const struct tril_kernels *kernels,
                     float *area)
{
    const int64_t group = job->plan->group, end = whole->query + whole->queries;
    for (int64_t head = whole->head * group; head < (whole->head + whole->heads) * group; head++) {
        void *row = tril_weights_row(job, whole, whole->query, head);
        if (row != NULL) memset(row, 0, (size_t)whole->seq->kv_len * sizeof(float));
    }
    for (int64_t query = whole->query; query < end; query += job->plan->positions) {
        struct tril_task task;
        tril_part_of_whole(job->plan, job->call, whole, query, &task);
        kernels->weights(job, &task, area);
    }
}

static void do_task(const struct tril_job *job, const struct tril_task *task, const struct tril_kernels *kernels,
                    float *area)
{
    if (job->plan->whole) {
        do_whole(job, task, kernels, area);
        return;
    }
    if (job->weights != NULL) {
        kernels->weights(job, task, area);
        return;
    }
    if (task->part == 0 && !tril_in_states(job, task) && may_be_blank(job, task)) blank(job, task);
    if (task->first < task->keys) kernels->attend(job, task, area);
}

/* All tasks, on this thread alone. */
static void do_all(const struct tril_job *job, const struct tril_kernels *kernels, float *area)
{
    struct tril_walk walk = {.level = 0};
    struct tril_task task;
    while (tril_plan_next(job->plan, job->call, &walk, &task))
        do_task(job, &task, kernels, area);
}

/* A part of a split unit is made: folds what can be folded now. */
static void fold_made(const struct tril_job *job, const struct tril_task *task, const struct tril_kernels *kernels,
                      struct tril_team *team)
{
    tril_team_made(team, task->made, task->part);
    for (int64_t part; (part = tril_team_turn(team, task->unit, task->made)) >= 0;) {
        tril_fold_part(job, task, part, kernels);
        /* Not before: out may be q, whose rows the other parts read, those that see nothing too. */
        if (part + 1 == task->parts && job->weights == NULL && may_be_blank(job, task)) blank(job, task);
        tril_team_folded(team, task->unit, part + 1 < task->parts ? part + 1 : 0);
    }
}

/* The tasks that this thread of a team is the first to claim. The walk is the same on each of them. */
static void do_share(const struct tril_job *job, const struct tril_kernels *kernels, struct tril_team *team,
                     float *area, int thread, int threads)
{
    const int which = tril_team_join(team, (uint64_t)job->call->team_call, thread, threads);
    uint64_t mine = tril_team_claim(team, which);
    struct tril_walk walk = {.level = 0};
    struct tril_task task;
    for (uint64_t i = 0; tril_plan_next(job->plan, job->call, &walk, &task); i++) {
        if (i != mine) continue;
        do_task(job, &task, kernels, area);
        if (tril_in_states(job, &task)) fold_made(job, &task, kernels, team);
        mine = tril_team_claim(team, which);
    }
}

/* Who serves a call of that math mode. */
static const struct tril_kernels *kernels_for(tril_math math)
{
    const struct tril_kernels *kernels = tril_kernels_in_use();
    return kernels->instead[math] == NULL ? kernels : kernels->instead[math];
}

static tril_status run(const tril_attention *call, enum tril_operation operation, const tril_weights_out *to,
                       void *workspace, size_t bytes, int thread, int threads)
{
    struct tril_checked checked;
    struct tril_plan plan;
    tril_status status = tril_check_team(thread, threads);
    if (status == TRIL_OK) status = tril_check_call(call, operation, to, &checked);
    if (status != TRIL_OK || checked.query_tokens == 0) return status;
    const struct tril_kernels *kernels = kernels_for(checked.call.math);
    const tril_weights_out *weights = operation == TRIL_WEIGHING ? &checked.weights : NULL;
    if (!tril_plan_make(&plan, &checked.call, weights, &kernels->blocking, threads)) return TRIL_ERR_OVERFLOW;
    status = tril_check_workspace(&checked, workspace, bytes, plan.bytes);
    if (status != TRIL_OK) return status;

    float *start = aligned(workspace), *area = start + plan.areas + (size_t)thread * plan.area;
    struct tril_team *team = (struct tril_team *)(void *)start;
    if (threads > 1 && !tril_team_was_zeroed(team)) return TRIL_ERR_WORKSPACE;
    int32_t *pages = (int32_t *)(void *)(area + plan.pages);
    status = tril_check_pages(&checked.call, pages);
    if (status != TRIL_OK) return status;
    const float scale = tril_scale_or_default(checked.call.scale, checked.call.qk_dim);
    const struct tril_job job = {
        .call = &checked.call,
        .weights = weights,
        .plan = &plan,
        .states = start + plan.states,
        .pages = pages,
        .log2_scale = tril_log2(scale),
        .cap_scale = tril_cap_scale(scale, checked.call.softcap),
        .log2_cap = tril_log2(checked.call.softcap),
        .asks_lower = (tril_machine() & TRIL_CPU_ASKS_LOWER) != 0,
        .packs_far = (tril_machine() & TRIL_CPU_PACKS_FAR) != 0,
    };
    if (threads == 1)
        do_all(&job, kernels, area);
    else
        do_share(&job, kernels, team, area, thread, threads);
    return TRIL_OK;
}

tril_status tril_workspace(const tril_attention *call, int threads, size_t *bytes)
{
    struct tril_checked checked;
    struct tril_plan plan;
    if (bytes == NULL) return TRIL_ERR_NULL;
    tril_status status = tril_check_team(0, threads);
    if (status == TRIL_OK) status = tril_check_call(call, TRIL_SIZING, NULL, &checked);
    if (status != TRIL_OK) return status;
    const struct tril_blocking *blocking = &kernels_for(checked.call.math)->blocking;
    if (!tril_plan_make(&plan, &checked.call, NULL, blocking, threads)) return TRIL_ERR_OVERFLOW;
    size_t most = plan.bytes;
    const bool together = tril_heads_together(&checked.call);
    checked.call.v_dim = 0;
    if (threads > 1 && !together && tril_heads_together(&checked.call)) { /* V alone has them apart; weights do not */
        if (!tril_plan_make(&plan, &checked.call, NULL, blocking, threads)) return TRIL_ERR_OVERFLOW;
        if (plan.bytes > most) most = plan.bytes;
    }
    *bytes = most;
    return TRIL_OK;
}

tril_status tril_attend(const tril_attention *call, void *workspace, size_t bytes)
{
    return run(call, TRIL_ATTENDING, NULL, workspace, bytes, 0, 1);
}

tril_status tril_weights(const tril_attention *call, const tril_weights_out *to, void *workspace, size_t bytes)
{
    return run(call, TRIL_WEIGHING, to, workspace, bytes, 0, 1);
}

tril_status tril_attend_team(const tril_attention *call, void *workspace, size_t bytes, int thread, int threads)
{
    return run(call, TRIL_ATTENDING, NULL, workspace, bytes, thread, threads);
}

tril_status tril_weights_team(const tril_attention *call, const tril_weights_out *to, void *workspace, size_t bytes,
                              int thread, int threads)
{
    return run(call, TRIL_WEIGHING, to, workspace, bytes, thread, threads);
}

tril_status tril_merge(const tril_partial *parts, int64_t n, int64_t rows, int64_t dim, uint32_t flags, float *out,
                       int64_t out_row_stride, float *row_max, float *row_sum)
{
    const tril_status status = tril_check_merge(parts, n, rows, dim, flags, out, out_row_stride, row_max, row_sum);
    if (status != TRIL_OK) return status;
    for (int64_t i = 0; i < rows; i++) {
        float max, sum, *o = (float *)(void *)((char *)out + i * out_row_stride);
        tril_fold_parts(parts, n, i, (int)dim, tril_kernels_in_use(), o, &max, &sum);
        if ((flags & TRIL_UNNORMALISED) == 0) sum = tril_divide(o, (int)dim, sum);
        if (row_max != NULL) row_max[i] = max;
        if (row_sum != NULL) row_sum[i] = sum;
    }
    return TRIL_OK;
}

/* One row into a cache, in its type and layout. */
static void append_row(const tril_tensor *cache, int64_t token, int64_t head, const char *from, int dim)
{
    const struct tril_kernels *kernels = tril_kernels_in_use();
    const bool panels = cache->layout == TRIL_PANELS;
    const size_t element = (size_t)tril_unit_bytes(cache->dtype);
    char row[TRIL_MAX_HEAD_DIM * sizeof(float)];
    char *to = (char *)(uintptr_t)tril_row(cache, panels ? token - token % TRIL_PANEL : token, head);
    float *scale = cache->scales == NULL
                       ? NULL
                       : (float *)((uintptr_t)cache->scales +
                                   (uintptr_t)(token * cache->scale_token_stride + head * cache->scale_head_stride));
    kernels->convert(panels ? row : to, cache->dtype, scale, from, TRIL_F32, NULL, dim);
    to += (size_t)(token % TRIL_PANEL) * element;
    for (int d = 0; panels && d < dim; d++)
        memcpy(to + (size_t)d * TRIL_PANEL * element, row + (size_t)d * element, element);
}

tril_status tril_append(const tril_tensor *cache, int64_t at, const tril_tensor *from, int64_t from_token,
                        int64_t tokens, int32_t kv_heads, int32_t dim)
{
    const tril_status status = tril_check_append(cache, at, from, from_token, tokens, kv_heads, dim);
    if (status != TRIL_OK || tokens == 0) return status;
    for (int64_t i = 0; i < tokens; i++) {
        for (int64_t head = 0; head < kv_heads; head++)
            append_row(cache, at + i, head, tril_row(from, from_token + i, head), dim);
    }
    return TRIL_OK;
}

tril_status tril_convert(void *to, tril_dtype to_dtype, float *to_scale, const void *from, tril_dtype from_dtype,
                         const float *from_scale, int64_t n)
{
    const tril_status status = tril_check_convert(to, to_dtype, to_scale, from, from_dtype, from_scale, n);
    if (status != TRIL_OK) return status;
    tril_kernels_in_use()->convert(to, to_dtype, to_scale, from, from_dtype, from_scale, n);
    return TRIL_OK;
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
        [TRIL_ERR_WORKSPACE] = "the workspace is null or too small, or a team's that was not zeroed",
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
