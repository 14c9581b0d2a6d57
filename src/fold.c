#include "fold.h"

#include <string.h>

#define AT_ONCE 64 /* states that a tier folds in one call */

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
static void end_weights(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row,
                        const struct tril_kernels *kernels, float max, float sum)
{
    const bool dense = job->weights->form == TRIL_WEIGHTS_DENSE;
    const int64_t columns = dense ? task->seq->kv_len : row->view.end;
    float *to = tril_weights_row(job, task, row->query, row->head);
    for (int64_t from = 0, end; from < columns; from = end) {
        end = tril_stretch(job->call, task->seq, row->query, &row->view, from, columns);
        if (tril_row_sees(job, task, row, from))
            kernels->weights_end(to + from, end - from, max, sum);
        else
            memset(to + from, 0, (size_t)(end - from) * sizeof(float));
    }
}

void tril_fold_unit(const struct tril_job *job, const struct tril_task *task, const struct tril_kernels *kernels)
{
    const int dim = job->weights == NULL ? job->call->v_dim : 0;
    const int64_t blocks = tril_unit_blocks(task), folded = blocks / task->parts; /* by the first part, as it went */
    const int64_t first_end = tril_unit_block(task, folded - 1) + TRIL_KEY_BLOCK;
    struct tril_task first = *task, later = *task, whole = *task;
    first.part = 0;
    later.part = 1;
    whole.part = 0;
    whole.parts = 1;
    for (int64_t i = 0; i < tril_task_rows(job, task); i++) {
        const struct tril_task_row row = tril_task_row(job, task, i);
        const struct tril_place to = tril_place_of(job, &whole, &row, task->seq->key_begin);
        struct tril_state states[AT_ONCE];
        float none = 0.0f, max = -__builtin_inff(), sum = 0.0f, *o = NULL;
        int held = 0;
        for (int64_t number = folded - 1; number < blocks; number++) {
            const int64_t key = tril_unit_block(task, number);
            const bool together = number < folded;
            if (!tril_row_sees_any(job, task, &row, together ? task->unit_first : key,
                                   together ? first_end : key + TRIL_KEY_BLOCK))
                continue;
            const struct tril_place from = tril_place_of(job, together ? &first : &later, &row, key);
            const struct tril_state state = {from.o, *from.max, *from.sum};
            if (o == NULL) {
                o = dim > 0 ? (float *)from.o : &none; /* the first state's memory is the row's from now on */
                begin(o, dim, &max, &sum, &state);
                continue;
            }
            states[held++] = state;
            if (held < AT_ONCE) continue;
            kernels->fold(o, dim, &max, &sum, states, held);
            held = 0;
        }
        if (o != NULL) kernels->fold(o, dim, &max, &sum, states, held);
        if (o == NULL && job->weights == NULL) continue; /* the caller's place has been blanked */
        if (tril_takes_sink(job, &whole)) {
            const struct tril_state sink = tril_sink_of(job, &row);
            kernels->fold(o, dim, &max, &sum, &sink, 1);
        }
        if (job->weights != NULL) end_weights(job, task, &row, kernels, max, sum);
        if (dim > 0) kernels->store(to.o, to.type, o, dim, tril_divides(job, &whole) ? sum : 1.0f);
        tril_store_statistics(&to, max, sum);
    }
}
