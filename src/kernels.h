/* What a tier must provide.
 *
 *     struct tril_job: one checked call            struct tril_task: a part of it
 *        q [token][q_heads][qk_dim]                   heads x queries x group rows, in this order
 *        k [token][kv_heads][qk_dim]     ---->        keys first ... keys-1 of one sequence and `heads` K/V heads
 *        v [token][kv_heads][v_dim]
 *
 *                      keys ->   block 0          block 1       (256 keys each, at absolute positions)
 *     rows   task.position       xxxxxxxxxxxxxxxx|xxxxx            x: visible. attend() writes the task's rows of
 *      |     task.position + 1   xxxxxxxxxxxxxxxx|xxxxxx           out, weights() their rows of A, both the row
 *      v     ...                 xxxxxxxxxxxxxxxx|xxxxxxx          statistics where asked for. Nothing else.
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
    float *states;    /* of the split units, in the workspace */
    float log2_scale; /* c = round(scale * log2 e): t = round(s * c) */
};

/* A partial result of one row, to be folded. */
struct tril_state {
    const float *o;
    float max, sum;
};

struct tril_kernels {
    const char *name;
    struct tril_blocking blocking;
    /* The task's rows that see any of its keys; for the others the caller has written what "nothing" is. */
    void (*attend)(const struct tril_job *, const struct tril_task *, float *workspace);
    /* All of the task's rows; the parts of a split unit write t where the weights will be, and states. */
    void (*weights)(const struct tril_job *, const struct tril_task *, float *workspace);
    /* Turns a row's t into weights, once its statistics are known: n of them, in place. */
    void (*weights_end)(float *row, int64_t n, float max, float sum);
    /* Folds n states into a row's running o, *max and *sum, ascending. Leaves out those with a sum of -0. */
    void (*fold)(float *o, int dim, float *max, float *sum, const struct tril_state *states, int n);
    /* The tier's exp2 on an array, for the exhaustive test: t <= 127 or NaN. */
    void (*exp2)(float *to, const float *from, size_t n);
};

extern const struct tril_kernels tril_kernels_scalar, tril_kernels_avx2, tril_kernels_avx512, tril_kernels_neon;

/* Where things lie; shared by every tier, the oracle too, since they are the interface and not arithmetic. */
/* (token, head): its row, or, in panels, the panel that begins with the token, a multiple of 16. */
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

/* A row of a task. */
struct tril_task_row {
    int64_t index;              /* among the task's rows */
    int64_t query, token, head; /* its query, counted in the sequence; its token of q and out; its query head */
    int64_t visible;            /* keys of the sequence that it sees */
};

static inline struct tril_task_row tril_task_row(const struct tril_job *job, const struct tril_task *task,
                                                 int64_t index)
{
    const int64_t group = job->plan->group, of_head = task->queries * group;
    const int64_t head = index / of_head, in_head = index % of_head, query = in_head / group;
    return (struct tril_task_row){index, task->query + query, task->seq->q_first + task->query + query,
                                  (task->head + head) * group + in_head % group, tril_visible(task->position + query)};
}

static inline int64_t tril_task_rows(const struct tril_job *job, const struct tril_task *task)
{
    return task->heads * task->queries * job->plan->group;
}

/* Whether each block of the task's keys leaves a result of its own: because the caller asks for that, or in any part of
 * a split unit but the first, which can fold as it goes. */
static inline bool tril_blockwise(const struct tril_job *job, const struct tril_task *task)
{
    return (job->call->flags & TRIL_BLOCKWISE) != 0 || task->part > 0;
}

/* Whether a split unit's results have to be folded at its end. */
static inline bool tril_in_states(const struct tril_job *job, const struct tril_task *task)
{
    return task->parts > 1 && (job->call->flags & TRIL_BLOCKWISE) == 0;
}

/* Where the result of a row lies; a pointer to a statistic may be null. `key` is the first position of the block whose
 * result it is, or, where blocks are folded, anything in the first. */
struct tril_place {
    float *o, *max, *sum;
};

static inline struct tril_place tril_place_of(const struct tril_job *job, const struct tril_task *task,
                                              const struct tril_task_row *row, int64_t key)
{
    const tril_attention *call = job->call;
    const int64_t block = tril_blockwise(job, task) ? (key - task->seq->key_begin) / TRIL_KEY_BLOCK : 0;
    if (tril_in_states(job, task)) {
        /* of a unit: [block][row][v_row], then [block][row] maxima, then sums */
        const int64_t rows = tril_task_rows(job, task), v_row = job->plan->v_row;
        const int64_t blocks = (task->unit_keys - task->seq->key_begin + TRIL_KEY_BLOCK - 1) / TRIL_KEY_BLOCK;
        const int64_t at = block * rows + row->index;
        float *o = job->states + task->states, *max = o + blocks * rows * v_row;
        return (struct tril_place){o + at * v_row, max + at, max + blocks * rows + at};
    }
    const int64_t statistic = row->token * call->q_heads + row->head + block * call->statistics_part_stride;
    struct tril_place to = {NULL, call->row_max == NULL ? NULL : call->row_max + statistic,
                            call->row_sum == NULL ? NULL : call->row_sum + statistic};
    if (job->weights == NULL)
        to.o =
            (float *)(void *)((char *)tril_out_row(&call->out, row->token, row->head) + block * call->out_part_stride);
    return to;
}

/* Whether O is divided by the row's sum when it is stored. */
static inline bool tril_divides(const struct tril_job *job, const struct tril_task *task)
{
    return !tril_in_states(job, task) && (job->call->flags & TRIL_UNNORMALISED) == 0;
}

/* One row's statistics, where asked for. */
static inline void tril_store_statistics(const struct tril_place *to, float max, float sum)
{
    if (to->max != NULL) *to->max = max;
    if (to->sum != NULL) *to->sum = sum;
}

#endif
