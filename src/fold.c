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

void tril_fold_unit(const struct tril_job *job, const struct tril_task *task, const struct tril_kernels *kernels)
{
    const int dim = job->weights == NULL ? job->call->v_dim : 0;
    const int64_t begin_key = task->seq->key_begin;
    const int64_t blocks = (task->unit_keys - begin_key + TRIL_KEY_BLOCK - 1) / TRIL_KEY_BLOCK;
    const int64_t folded = blocks / task->parts; /* by the first part, as it went */
    struct tril_task first = *task, later = *task, whole = *task;
    first.part = 0;
    later.part = 1;
    whole.part = 0;
    whole.parts = 1;
    for (int64_t i = 0; i < tril_task_rows(job, task); i++) {
        const struct tril_task_row row = tril_task_row(job, task, i);
        const int64_t end = row.visible < task->unit_keys ? row.visible : task->unit_keys;
        const struct tril_place to = tril_place_of(job, &whole, &row, begin_key);
        struct tril_place from = tril_place_of(job, &first, &row, begin_key);
        float none, max = -__builtin_inff(), sum = 0.0f;
        float *o = dim > 0 ? (float *)from.o : &none; /* the first state's memory is the row's from now on */
        if (end > begin_key) {
            struct tril_state states[AT_ONCE] = {{from.o, *from.max, *from.sum}};
            int held = 0;
            begin(o, dim, &max, &sum, &states[0]);
            for (int64_t key = begin_key + folded * TRIL_KEY_BLOCK; key < end; key += TRIL_KEY_BLOCK) {
                from = tril_place_of(job, &later, &row, key);
                states[held++] = (struct tril_state){from.o, *from.max, *from.sum};
                if (held < AT_ONCE && key + TRIL_KEY_BLOCK < end) continue;
                kernels->fold(o, dim, &max, &sum, states, held);
                held = 0;
            }
        } else if (job->weights == NULL) {
            continue; /* the caller's place has been blanked */
        }
        if (job->weights != NULL && row.visible > 0)
            kernels->weights_end(tril_weights_row(job->weights, task, row.query, row.head), row.visible, max, sum);
        if (dim > 0) kernels->store(to.o, to.type, o, dim, tril_divides(job, &whole) ? sum : 1.0f);
        tril_store_statistics(&to, max, sum);
    }
}
