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

#ifdef __FAST_MATH__ /* in a host's own build of these files */
#error "the library's bits need -fno-fast-math, and -ffp-contract=off"
#endif

#include "formats.h"
#include "plan.h"
#include "scale.h"

struct tril_job {
    const tril_attention *call;
    const tril_weights_out *weights; /* null in an attend call */
    const struct tril_plan *plan;
    float *states;             /* of the split units, in the workspace */
    const int32_t *pages;      /* paged K/V: the sequences' block tables, checked, one behind the other */
    float log2_scale;          /* c = round(scale * log2 e): t = round(s * c) */
    float cap_scale, log2_cap; /* with a soft-cap t = tanh(s * cap_scale) * log2_cap instead */
    bool asks_lower;           /* TRIL_CPU_ASKS_LOWER of cpu.h */
    bool packs_far;            /* TRIL_CPU_PACKS_FAR */
};

/* A partial result of one row, to be folded. */
struct tril_state {
    const float *o; /* null: +0 throughout */
    float max, sum;
};

struct tril_kernels {
    const char *name;
    struct tril_blocking blocking;
    const struct tril_kernels *instead[TRIL_MATH_COUNT]; /* who serves a call of this math mode; null: this table */
    /* The task's rows that see any of its keys; for the others the caller has written what "nothing" is. */
    void (*attend)(const struct tril_job *, const struct tril_task *, float *workspace);
    /* All of the task's rows; the parts of a split unit write t where the weights will be, and states. */
    void (*weights)(const struct tril_job *, const struct tril_task *, float *workspace);
    /* Turns a stretch of a row's t into weights, once its statistics are known: n of them, in place. */
    void (*weights_end)(float *row, int64_t n, float max, float sum);
    /* Folds n states into a row's running o, *max and *sum, ascending. Leaves out those with a sum of -0. */
    void (*fold)(float *o, int dim, float *max, float *sum, const struct tril_state *states, int n);
    /* o / sum, or o where sum is 0, to where the result lies, in its type. */
    void (*store)(void *to, tril_dtype type, const float *o, int dim, float sum);
    /* The tier's exp2 on an array, for the exhaustive test: t <= 127 or NaN. */
    void (*exp2)(float *to, const float *from, size_t n);
    /* Its tanh likewise: any t. */
    void (*tanh)(float *to, const float *from, size_t n);
    /* tril_convert(), once it is checked. */
    void (*convert)(void *to, tril_dtype to_dtype, float *to_scale, const void *from, tril_dtype from_dtype,
                    const float *from_scale, int64_t n);
};

extern const struct tril_kernels tril_kernels_scalar, tril_kernels_avx2, tril_kernels_avx512, tril_kernels_avx512bf16,
    tril_kernels_neon;

/* The scalar tier's, in convert.c. */
void tril_convert_row(void *to, tril_dtype to_dtype, float *to_scale, const void *from, tril_dtype from_dtype,
                      const float *from_scale, int64_t n);

/* Where things lie; shared by every tier, the oracle too, since they are the interface and not arithmetic. */
/* (token, head): its row, or, in panels, the panel that begins with the token, a multiple of 16. */
static inline const char *tril_row(const tril_tensor *x, int64_t token, int64_t head)
{
    return (const char *)x->data + token * x->token_stride + head * x->head_stride;
}

static inline void *tril_out_row(const tril_out *x, int64_t token, int64_t head)
{
    return (char *)x->data + token * x->token_stride + head * x->head_stride;
}

/* Stored rows a stride apart: keys or values of one head. */
struct tril_rows {
    const char *data;
    int64_t stride;
    const char *scales; /* of I8 */
    int64_t scale_stride;
};

/* How many keys from position `key` on, n at most, lie in one page, or, without pages, one behind the other. */
static inline int tril_keys_together(const struct tril_job *job, int64_t key, int n)
{
    const int64_t tokens = job->call->block_tokens;
    if (tokens == 0) return n;
    const int64_t left = tokens - (int64_t)((uint32_t)key % (uint32_t)tokens);
    return left < n ? (int)left : n;
}

/* The rows of k or v from position `key` on, as far as they lie together; in panels, whose stride is a token's too,
 * `key` begins a panel. */
static inline struct tril_rows tril_rows_at(const struct tril_job *job, const struct tril_task *task,
                                            const tril_tensor *x, int64_t key, int64_t head)
{
    int64_t token = task->token + key, block = 0;
    if (job->call->block_tokens > 0) {
        const uint32_t tokens = (uint32_t)job->call->block_tokens;
        block = job->pages[task->pages + (uint32_t)key / tokens];
        token = (uint32_t)key % tokens;
    }
    struct tril_rows rows = {tril_row(x, token, head) + block * x->block_stride, x->token_stride, NULL, 0};
    if (x->dtype != TRIL_I8) return rows;
    rows.scales = (const char *)x->scales + token * x->scale_token_stride + head * x->scale_head_stride +
                  block * x->scale_block_stride;
    rows.scale_stride = x->scale_token_stride;
    return rows;
}

/* The scale of row i; of a type that has none, any number. */
static inline float tril_scale_of(const struct tril_rows *rows, int i)
{
    return rows->scales == NULL ? 1.0f : tril_load_f32(rows->scales + i * rows->scale_stride);
}

/* The row of A of query `query` (counted in its sequence) and query head `head`; of column sums, the sequence's. */
static inline void *tril_weights_row(const struct tril_job *job, const struct tril_task *task, int64_t query,
                                     int64_t head)
{
    const tril_weights_out *to = job->weights;
    if (to->data == NULL) return NULL; /* no row has a column */
    char *p = (char *)to->data + head * to->head_stride;
    if (to->form == TRIL_WEIGHTS_COLUMN_SUMS) return p + (task->seq - job->call->seqs) * to->row_stride;
    if (to->form == TRIL_WEIGHTS_DENSE) return p + (task->seq->q_first + query) * to->row_stride;
    return p + (task->packed + tril_packed_offset(job->call, task->seq, query)) * tril_unit_bytes(to->dtype);
}

/* A row of a task. */
struct tril_task_row {
    int64_t index;              /* among the task's rows */
    int64_t query, token, head; /* its query, counted in the sequence; its token of q and out; its query head */
    struct tril_view view;      /* keys of the sequence that it sees */
};

static inline struct tril_task_row tril_task_row(const struct tril_job *job, const struct tril_task *task,
                                                 int64_t index)
{
    const int64_t group = job->plan->group, of_head = task->queries * group;
    const int64_t head = index / of_head, in_head = index % of_head, query = in_head / group;
    return (struct tril_task_row){index, task->query + query, task->seq->q_first + task->query + query,
                                  (task->head + head) * group + in_head % group,
                                  tril_view_of(job->call, task->seq, task->query + query)};
}

/* Whether the row sees the key; whether any of from ... to - 1. */
static inline bool tril_row_sees(const struct tril_job *job, const struct tril_task *task,
                                 const struct tril_task_row *row, int64_t key)
{
    return tril_sees(job->call, task->seq, row->query, &row->view, key);
}

static inline bool tril_row_sees_any(const struct tril_job *job, const struct tril_task *task,
                                     const struct tril_task_row *row, int64_t from, int64_t to)
{
    return tril_sees_any(job->call, task->seq, row->query, &row->view, from, to);
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

/* Whether the task's results go to states, which are folded when the parts before it are. */
static inline bool tril_in_states(const struct tril_job *job, const struct tril_task *task)
{
    return task->parts > 1 && (job->call->flags & TRIL_BLOCKWISE) == 0;
}

/* Where the result of a row lies, and in which type; a pointer to a statistic may be null. `key` is the first position
 * of the block whose result it is, or, where blocks are folded, anything in the first. */
struct tril_place {
    void *o;
    float *max, *sum;
    tril_dtype type;
};

static inline struct tril_place tril_place_of(const struct tril_job *job, const struct tril_task *task,
                                              const struct tril_task_row *row, int64_t key)
{
    const tril_attention *call = job->call;
    if (tril_in_states(job, task)) {
        /* of a unit: [block][row][v_row], then [block][row] maxima, then sums */
        const int64_t rows = tril_task_rows(job, task), v_row = job->plan->v_row, blocks = tril_unit_blocks(task);
        const int64_t number = tril_blockwise(job, task) ? tril_unit_block_number(task, key) : 0;
        const int64_t at = number * rows + row->index;
        float *o = job->states + task->states, *max = o + blocks * rows * v_row;
        return (struct tril_place){o + at * v_row, max + at, max + blocks * rows + at, TRIL_F32};
    }
    const int64_t block = tril_blockwise(job, task) ? (key - task->seq->key_begin) / TRIL_KEY_BLOCK : 0;
    const int64_t statistic = row->token * call->q_heads + row->head + block * call->statistics_part_stride;
    struct tril_place to = {NULL, call->row_max == NULL ? NULL : call->row_max + statistic,
                            call->row_sum == NULL ? NULL : call->row_sum + statistic, call->out.dtype};
    if (job->weights == NULL)
        to.o = (char *)tril_out_row(&call->out, row->token, row->head) + block * call->out_part_stride;
    return to;
}

/* Whether O is divided by the row's sum when it is stored. */
static inline bool tril_divides(const struct tril_job *job, const struct tril_task *task)
{
    return !tril_in_states(job, task) && (job->call->flags & TRIL_UNNORMALISED) == 0;
}

/* Whether a row's result is the whole of it, so that a learned sink belongs to its sum. A sink is folded last, as a
 * block with this maximum, a sum of 1, and an output of +0. */
static inline bool tril_takes_sink(const struct tril_job *job, const struct tril_task *task)
{
    return job->call->sink_logits != NULL && tril_divides(job, task);
}

static inline struct tril_state tril_sink_of(const struct tril_job *job, const struct tril_task_row *row)
{
    return (struct tril_state){NULL, tril_log2(job->call->sink_logits[row->head]), 1.0f};
}

/* Whether the row sees nothing before the block at `first`. Folding begins at +0, so there a block that stays alone
 * becomes what it would be folded onto it: a -0 of its output a +0. */
static inline bool tril_begins_row(const struct tril_job *job, const struct tril_task *task,
                                   const struct tril_task_row *row, int64_t first)
{
    return !tril_row_sees_any(job, task, row, 0, first);
}

/* One row's statistics, where asked for. */
static inline void tril_store_statistics(const struct tril_place *to, float max, float sum)
{
    if (to->max != NULL) *to->max = max;
    if (to->sum != NULL) *to->sum = sum;
}

#endif
