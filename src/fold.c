#include "fold.h"

#include <string.h>

#define AT_ONCE 64 /* states that a tier folds in one call */

static TRIL_COLD bool sees_any(const struct tril_job *job, const struct tril_task *task,
                               const struct tril_task_row *row, int64_t from, int64_t to)
{
    return tril_row_sees_any(job, task, row, from, to);
}

/* Where the row has its result if its unit has so many parts, and it is made by this one of them. */
static TRIL_COLD struct tril_place place_of(const struct tril_job *job, const struct tril_task *task,
                                            const struct tril_task_row *row, int64_t part, int64_t parts, int64_t key)
{
    struct tril_task other = *task;
    other.part = part;
    other.parts = parts;
    return tril_place_of(job, &other, row, key);
}

/* A state of which the row sees nothing. */
static bool empty(float sum)
{
    return sum == 0.0f && __builtin_signbit(sum);
}

float tril_divide(float *o, int dim, float sum)
{
    for (int d = 0; d < dim && sum != 0.0f; d++)
        o[d] /= sum;
    return sum == 0.0f ? 0.0f : sum;
}

/* The first state is the row's as it is, the others are folded onto it. */
static void begin(float *o, int dim, float *max, float *sum, const struct tril_state *state)
{
    *max = state->max;
    *sum = state->sum;
    if (o != state->o) memmove(o, state->o, (size_t)dim * sizeof(float));
}

void tril_fold_parts(const tril_partial *parts, int64_t n, int64_t row, int dim, const struct tril_kernels *kernels,
                     float *o, float *max, float *sum)
{
    struct tril_state states[AT_ONCE];
    int held = 0;
    bool begun = false;
    for (int64_t i = 0; i < n; i++) {
        const tril_partial *part = &parts[i];
        const struct tril_state state = {
            (const float *)(const void *)((const char *)part->out + row * part->row_stride), part->row_max[row],
            part->row_sum[row]};
        if (empty(state.sum)) continue;
        if (!begun) {
            begin(o, dim, max, sum, &state);
            begun = true;
            continue;
        }
        states[held++] = state;
        if (held < AT_ONCE) continue;
        kernels->fold(o, dim, max, sum, states, held);
        held = 0;
    }
    if (begun) {
        kernels->fold(o, dim, max, sum, states, held);
        return;
    }
    memset(o, 0, (size_t)dim * sizeof(float));
    *max = -__builtin_inff();
    *sum = -0.0f;
}

/* The row's weights from its t: what it sees, and 0 elsewhere. */
static TRIL_COLD void end_weights(const struct tril_job *job, const struct tril_task *task,
                                  const struct tril_task_row *row, const struct tril_kernels *kernels, float max,
                                  float sum)
{
    const bool dense = job->weights->form == TRIL_WEIGHTS_DENSE;
    const int64_t columns = dense ? task->seq->kv_len : row->view.end;
    float *to = tril_weights_row(job, task, row->query, row->head);
    for (int64_t from = 0, end; from < columns; from = end) {
        end = tril_stretch(job->call, task->seq, row->query, &row->view, from, columns);
        if (sees_any(job, task, row, from, from + 1))
            kernels->weights_end(to + from, end - from, max, sum);
        else
            memset(to + from, 0, (size_t)(end - from) * sizeof(float));
    }
}

/* Folds a row's states of one part onto what the parts before it have become, which is at `to`. */
static TRIL_COLD void fold_row(const struct tril_job *job, const struct tril_task *task,
                               const struct tril_task_row *row, int64_t part, const struct tril_place *to,
                               const struct tril_kernels *kernels)
{
    const int dim = job->weights == NULL ? job->call->v_dim : 0;
    const int64_t ends = tril_part_begin(task, part + 1);
    struct tril_state states[AT_ONCE];
    float max = *to->max, sum = *to->sum;
    int held = 0;
    for (int64_t number = tril_part_begin(task, part); number < ends; number++) {
        const int64_t key = tril_unit_block(task, number);
        if (!sees_any(job, task, row, key, key + TRIL_KEY_BLOCK)) continue;
        const struct tril_place from = place_of(job, task, row, 1, task->parts, key);
        const struct tril_state state = {from.o, *from.max, *from.sum};
        if (empty(sum)) {
            begin(to->o, dim, &max, &sum, &state);
            continue;
        }
        states[held++] = state;
        if (held < AT_ONCE) continue;
        kernels->fold(to->o, dim, &max, &sum, states, held);
        held = 0;
    }
    kernels->fold(to->o, dim, &max, &sum, states, held);
    tril_store_statistics(to, max, sum);
}

/* A row that is folded, to the caller's place. */
static TRIL_COLD void end_row(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row,
                              const struct tril_place *from, const struct tril_kernels *kernels)
{
    const int dim = job->weights == NULL ? job->call->v_dim : 0;
    float max = *from->max, sum = *from->sum;
    struct tril_task whole = *task;
    whole.part = 0;
    whole.parts = 1;
    if (empty(sum)) {
        if (job->weights == NULL) return; /* the caller's place is blanked when the unit is done */
        sum = 0.0f;
    }
    if (tril_takes_sink(job, &whole)) {
        const struct tril_state sink = tril_sink_of(job, row);
        kernels->fold(from->o, dim, &max, &sum, &sink, 1);
    }
    const struct tril_place to = place_of(job, task, row, 0, 1, task->seq->key_begin);
    if (job->weights != NULL) end_weights(job, task, row, kernels, max, sum);
    if (dim > 0) kernels->store(to.o, to.type, from->o, dim, tril_divides(job, &whole) ? sum : 1.0f);
    tril_store_statistics(&to, max, sum);
}

void tril_fold_part(const struct tril_job *job, const struct tril_task *task, int64_t part,
                    const struct tril_kernels *kernels)
{
    const int64_t first_end = tril_unit_block(task, tril_part_begin(task, 1) - 1) + TRIL_KEY_BLOCK;
    for (int64_t i = 0; i < tril_task_rows(job, task); i++) {
        const struct tril_task_row row = tril_task_row(job, task, i);
        const struct tril_place folded = place_of(job, task, &row, 0, task->parts, task->unit_first);
        if (part > 0)
            fold_row(job, task, &row, part, &folded, kernels);
        else if (!sees_any(job, task, &row, task->unit_first, first_end))
            tril_store_statistics(&folded, -__builtin_inff(), -0.0f);
        if (part + 1 == task->parts) end_row(job, task, &row, &folded, kernels);
    }
}
