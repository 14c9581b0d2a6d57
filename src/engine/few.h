/* Few query rows, above all a single new token: time goes into reading keys and values, so each is read once, in the
 * order in which memory holds them, and asked for ahead.
 *
 *   for each block of 256 keys
 *     for each FEW_STEP keys, for each K/V head:  few_scores   scores of the head's rows, keys across the lanes
 *     for each row:                               few_softmax
 *     for each FEW_STEP keys, for each K/V head:  few_values   goes on with the rows' chains, which lie in block_o
 *
 * The order of every operation is that of the block path, so the bits are the same. Up to TILE_ROWS rows a key is
 * transposed in registers on its way into the chains; more rows share a panel that is packed in the first-level cache.
 */
#ifndef TRIL_ENGINE_FEW_H
#define TRIL_ENGINE_FEW_H

#include "block.h"

#define FEW_ROW TRIL_FEW_SCORE_ROW

/* Keys that one head's rows meet before the next head's turn: fewer would load and store the chains of the values more
 * often, more would reach further ahead than the caches hold. */
#define FEW_STEP TRIL_FEW_STEP

/* And some floats more: 100 ns of latency at full bandwidth. */
#define FEW_AHEAD (16 * 1024)
_Static_assert(FEW_STEP % PANEL == 0, "steps are whole panels");

static int few_rows_of(const struct tril_job *job, const struct tril_task *task)
{
    return (int)(task->queries * job->plan->group); /* of one K/V head */
}

static void few_begin(const struct tril_job *job, const struct tril_task *task, float *ws)
{
    const int rows = (int)tril_task_rows(job, task), dims = job->call->qk_dim;
    block_begin((size_t)rows, ws + job->plan->row_max, ws + job->plan->row_sum);
    for (int r = 0; r < rows; r++) {
        const struct tril_task_row row = tril_task_row(job, task, r);
        memcpy(ws + job->plan->q + (size_t)r * (size_t)dims, tril_row(&job->call->q, row.token, row.head),
               (size_t)dims * sizeof(float));
    }
}

static int few_keys_of(const struct tril_task *task, int64_t first)
{
    return task->keys - first < TRIL_KEY_BLOCK ? (int)(task->keys - first) : TRIL_KEY_BLOCK;
}

/* The task's keys and values in the order of memory: block by block its keys, token by token the rows of all heads,
 * then its values. Memory is asked for in this order, as much ahead of use as a step of all heads takes, and evenly
 * between the arithmetic: a core has room for some 20 requests, and stands still when asked for more at once. */
struct few_stream {
    const char *p; /* next line */
    int left, run; /* lines until `gap` bytes are left out, and between two gaps: what a token's heads have in a row */
    int64_t gap;
    int budget;         /* lines that the work at hand may ask for */
    int64_t owed;       /* that it has been promised but that lie in the next block */
    int64_t block_left; /* lines of this block's keys, or of its values, behind the budget */
    int64_t first;      /* the block's first key */
    bool values, over;
};

#define LINE_BYTES (LINE_FLOATS * (int64_t)sizeof(float))

/* Tokens of a run, and its lines: the rows of all heads of one token, or of 16 in panels. */
static int few_run_tokens(const tril_tensor *x)
{
    return x->layout == TRIL_PANELS ? PANEL : 1;
}

static int64_t few_run_lines(const tril_tensor *x, int dims, int64_t heads)
{
    const int64_t bytes = (heads - 1) * x->head_stride + (int64_t)sizeof(float) * dims * few_run_tokens(x);
    return (bytes + LINE_BYTES - 1) / LINE_BYTES;
}

/* One head's share of the lines of n tokens. */
static int64_t few_share(const tril_tensor *x, int dims, const struct tril_task *task, int64_t head, int n)
{
    const int tokens = few_run_tokens(x);
    const int64_t lines = few_run_lines(x, dims, task->heads) * ((n + tokens - 1) / tokens);
    return lines * (head + 1) / task->heads - lines * head / task->heads;
}

/* The keys or the values of the block at s->first. */
static void few_stream_block(struct few_stream *s, const struct tril_job *job, const struct tril_task *task)
{
    const tril_tensor *x = s->values ? &job->call->v : &job->call->k;
    const int tokens = few_run_tokens(x);
    const int64_t lines = few_run_lines(x, s->values ? job->call->v_dim : job->call->qk_dim, task->heads);
    s->p = (const char *)tril_row(x, task->token + s->first, task->head);
    s->left = s->run = (int)lines;
    s->gap = tokens * x->token_stride - lines * LINE_BYTES;
    s->block_left = (few_keys_of(task, s->first) + tokens - 1) / tokens * lines;
}

/* n lines, or none where fewer are allowed. */
static ALWAYS_INLINE void few_pull(struct few_stream *s, const int n)
{
    if (s->budget < n) return;
    s->budget -= n;
    if (s->left > n) {
        UNROLL
        for (int i = 0; i < n; i++)
            __builtin_prefetch(s->p + i * LINE_BYTES, 0, 2);
        s->p += n * LINE_BYTES;
        s->left -= n;
        return;
    }
    for (int i = 0; i < n; i++) {
        __builtin_prefetch(s->p, 0, 2);
        s->p += LINE_BYTES;
        if (--s->left > 0) continue;
        s->p += s->gap;
        s->left = s->run;
    }
}

/* Asks for what is left of the work before, and allows so many lines to what comes now. */
static void few_budget(struct few_stream *s, const struct tril_job *job, const struct tril_task *task, int64_t lines)
{
    while (s->budget > 0)
        few_pull(s, 1);
    lines += s->owed;
    if (s->block_left == 0 && !s->over) {
        if (s->values || job->weights != NULL) s->first += TRIL_KEY_BLOCK;
        s->values = !s->values && job->weights == NULL;
        s->over = s->first >= task->keys;
        if (!s->over) few_stream_block(s, job, task);
    }
    s->budget = (int)(s->over ? 0 : lines < s->block_left ? lines : s->block_left);
    s->block_left -= s->budget;
    s->owed = s->over ? 0 : lines - s->budget;
}

static void few_open(struct few_stream *s, const struct tril_job *job, const struct tril_task *task)
{
    const tril_tensor *k = &job->call->k;
    *s = (struct few_stream){.first = task->first};
    few_stream_block(s, job, task);
    few_budget(s, job, task,
               few_run_lines(k, job->call->qk_dim, task->heads) * (FEW_STEP / few_run_tokens(k)) +
                   FEW_AHEAD / LINE_FLOATS);
    few_budget(s, job, task, 0);
}

/* Spells out a statement for every lane that a vector can have; see EACH_ROW. */
#define EACH_LANE(DO)                                                                                                  \
    DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11) DO(12) DO(13) DO(14) DO(15)

/* One value of the rows' queries, times a vector of keys. */
static ALWAYS_INLINE void few_lane(const int rows, const int lane, const va av[MAX_ROWS], const float *q,
                                   const size_t q_row, const vf keys, vf acc[MAX_ROWS])
{
#define DO(r)                                                                                                          \
    if (r < rows) acc[r] = a_fma(A_STEP > 1 ? av[r] : a_load1(q + r * q_row), lane, keys, acc[r]);
    EACH_ROW(DO)
#undef DO
}

/* V_LANES values of the rows' queries, times t. */
static ALWAYS_INLINE void few_lanes(const int rows, const float *q, const size_t q_row, const vf t[V_LANES],
                                    vf acc[MAX_ROWS])
{
    va av[MAX_ROWS] = {a_load1(q)}; /* not used where A_STEP is 1, but compilers want it to have a value */
    _Static_assert(A_STEP == 1 || A_STEP == V_LANES, "a register of A holds the values of one transposition");
#define DO(r)                                                                                                          \
    if (A_STEP > 1 && r < rows) av[r] = a_load(q + r * q_row);
    EACH_ROW(DO)
#undef DO
#define DO(u)                                                                                                          \
    if (u < V_LANES) few_lane(rows, A_STEP > 1 ? u % 4 : 0, av, q + u, q_row, t[u % V_LANES], acc);
    EACH_LANE(DO)
#undef DO
}

/* The last values, `left` of them: one by one, so that no row is read past its end. */
static ALWAYS_INLINE void few_last_lanes(const int rows, const int left, const float *q, const size_t q_row,
                                         const vf t[V_LANES], vf acc[MAX_ROWS])
{
    va av[MAX_ROWS] = {a_load1(q)};
#define ROW(r)                                                                                                         \
    if (A_STEP > 1 && r < rows) av[r] = a_load1(q + u + r * q_row);
#define DO(lane)                                                                                                       \
    if (lane < V_LANES && lane < left) {                                                                               \
        const int u = lane;                                                                                            \
        EACH_ROW(ROW)                                                                                                  \
        few_lane(rows, 0, av, q + u, q_row, t[lane % V_LANES], acc);                                                   \
    }
    EACH_LANE(DO)
#undef DO
#undef ROW
}

/* V_LANES keys x V_LANES dims (dims of them real), transposed in registers. */
static ALWAYS_INLINE void few_square(const char *k, const int64_t stride, const int dims, vf t[V_LANES])
{
    UNROLL
    for (int i = 0; i < V_LANES; i++) {
        const float *row = (const float *)(const void *)(k + i * stride);
        t[i] = dims == V_LANES ? v_load(row) : v_load_part(row, dims);
    }
    v_transpose(t);
}

/* s[r][0 ... V_LANES - 1] = the scores of `rows` rows and V_LANES keys. */
static ALWAYS_INLINE void few_dots(const int rows, const float *q, const int dims, const char *k, const int64_t stride,
                                   float *s, struct few_stream *stream)
{
    struct few_stream local = *stream; /* in registers */
    const size_t q_row = (size_t)dims;
    vf acc[MAX_ROWS], t[V_LANES];
    int d = 0;
#define DO(r)                                                                                                          \
    if (r < rows) acc[r] = v_zero();
    EACH_ROW(DO)
#undef DO
    for (; d + V_LANES <= dims; d += V_LANES) {
        few_square(k + (size_t)d * sizeof(float), stride, V_LANES, t);
        few_lanes(rows, q + d, q_row, t, acc);
        few_pull(&local, V_LANES * V_LANES / LINE_FLOATS);
    }
    if (d < dims) {
        few_square(k + (size_t)d * sizeof(float), stride, dims - d, t);
        few_last_lanes(rows, dims - d, q + d, q_row, t, acc);
    }
#define DO(r)                                                                                                          \
    if (r < rows) v_store(s + r * FEW_ROW, acc[r]);
    EACH_ROW(DO)
#undef DO
    *stream = local;
}

/* A function per number of rows. */
#define DOTS_ARGS                                                                                                      \
    const float *q, const int dims, const char *k, const int64_t stride, float *s, struct few_stream *stream
#define DOTS(rows)                                                                                                     \
    static NOINLINE void few_dots_r##rows(DOTS_ARGS)                                                                   \
    {                                                                                                                  \
        few_dots(rows, q, dims, k, stride, s, stream);                                                                 \
    }
DOTS(1)
DOTS(2)
DOTS(3)
DOTS(4)
DOTS(5)
DOTS(6)
#if TILE_ROWS > 6
DOTS(7)
DOTS(8)
#endif
#undef DOTS

static void (*const few_dots_by_rows[])(DOTS_ARGS) = {
    few_dots_r1, few_dots_r2, few_dots_r3, few_dots_r4, few_dots_r5, few_dots_r6,
#if TILE_ROWS > 6
    few_dots_r7, few_dots_r8,
#endif
};

_Static_assert(sizeof(few_dots_by_rows) / sizeof(few_dots_by_rows[0]) == TILE_ROWS, "a function per number of rows");

/* Scores of n keys of one step, from position `key` on, for all rows of K/V head task->head + head. */
static void few_keys(const struct tril_job *job, const struct tril_task *task, int64_t key, int n, int64_t head,
                     float *ws, struct few_stream *stream)
{
    const tril_tensor *x = &job->call->k;
    const int dims = job->call->qk_dim, rows = few_rows_of(job, task);
    const float *q = ws + job->plan->q + (size_t)(head * rows) * (size_t)dims;
    float *s = ws + job->plan->s + (size_t)(head * rows) * FEW_ROW + (size_t)(key % TRIL_KEY_BLOCK);
    few_budget(stream, job, task, few_share(x, dims, task, head, n));
    int done = 0;
    if (x->layout == TRIL_ROWS && rows <= TILE_ROWS) {
        for (; done + V_LANES <= n; done += V_LANES)
            few_dots_by_rows[rows - 1](q, dims, (const char *)tril_row(x, task->token + key + done, task->head + head),
                                       x->token_stride, s + done, stream);
        if (done == n) return;
    }
    struct tile_b panels = {ws + job->plan->k, PANEL, PANEL * (size_t)dims};
    if (x->layout == TRIL_PANELS) {
        panels.data = tril_row(x, task->token + key, task->head + head);
        panels.panel_stride = (size_t)x->token_stride * PANEL / sizeof(float);
    } else {
        pack_keys(job, task, task->head + head, key + done, n - done, ws + job->plan->k);
    }
    for (int r = 0, group; r < rows; r += group) {
        group = tile_share(rows - r, TILE_ROWS);
        for (int j = 0, width; done + j * V_LANES < n; j += width) {
            width = tile_share((n - done + V_LANES - 1) / V_LANES - j, TILE_VECS);
            const struct tile_b b = {tile_b_at(&panels, j), panels.k_stride, panels.panel_stride};
            scores_by_vecs[width - 1](group, q + (size_t)r * (size_t)dims, (size_t)dims, b,
                                      s + (size_t)r * FEW_ROW + done + j * V_LANES, FEW_ROW);
        }
    }
}

/* Scores of all rows against the block at `first`. */
static void few_scores(const struct tril_job *job, const struct tril_task *task, int64_t first, float *ws,
                       struct few_stream *stream)
{
    const int keys = few_keys_of(task, first);
    for (int i = 0; i < keys; i += FEW_STEP) {
        for (int64_t head = 0; head < task->heads; head++)
            few_keys(job, task, first + i, keys - i < FEW_STEP ? keys - i : FEW_STEP, head, ws, stream);
    }
}

/* How many of the block's keys each row sees, the rows' maxima and sums; scores become t, or p where `store` asks. */
static void few_softmax(const struct tril_job *job, const struct tril_task *task, int64_t first, bool store, float *ws,
                        int *end, float *max, float *sum)
{
    const int rows = (int)tril_task_rows(job, task), of_head = few_rows_of(job, task);
    const int keys = few_keys_of(task, first), group = (int)job->plan->group;
    float *s = ws + job->plan->s;
    for (int r = 0; r < rows; r++, s += FEW_ROW) {
        const int64_t visible = tril_visible(task->position + r % of_head / group) - first;
        end[r] = visible < 0 ? 0 : visible < keys ? (int)visible : keys;
        if (end[r] == 0) continue;
        max[r] = softmax_scale(s, end[r], job->log2_scale);
        sum[r] = store ? softmax_exp(true, s, end[r], max[r]) : softmax_exp(false, s, end[r], max[r]);
    }
}

/* Goes on with chains that lie in o, over keys k ... end - 1; b begins at k. */
static ALWAYS_INLINE void few_more(const int rows, const int vecs, const float *p, struct tile_b b, size_t k,
                                   const size_t end, float *o, const size_t o_row, struct few_stream *stream)
{
    struct few_stream local = *stream;
    tile_acc acc;
#define DO(r)                                                                                                          \
    if (r < rows) row_load(vecs, acc[r], o + r * o_row);
    EACH_ROW(DO)
#undef DO
    for (size_t to; k < end; k = to) {
        to = end - k < 4 ? end : k + 4;
        tile_section(0, rows, vecs, p, FEW_ROW, &b, k, to, acc);
        few_pull(&local, 4 * vecs * V_LANES / LINE_FLOATS);
    }
    *stream = local;
#define DO(r)                                                                                                          \
    if (r < rows) row_store(vecs, acc[r], o + r * o_row);
    EACH_ROW(DO)
#undef DO
}

#define MORE_ARGS                                                                                                      \
    const int rows, const float *p, struct tile_b b, size_t k, size_t end, float *o, size_t o_row,                     \
        struct few_stream *stream

static ALWAYS_INLINE void more_of(const int vecs, MORE_ARGS)
{
#define DO(r)                                                                                                          \
    if (r < TILE_ROWS && rows == r + 1) few_more(r + 1, vecs, p, b, k, end, o, o_row, stream);
    EACH_ROW(DO)
#undef DO
}

static NOINLINE void more_v1(MORE_ARGS)
{
    more_of(1, rows, p, b, k, end, o, o_row, stream);
}

static NOINLINE void more_v2(MORE_ARGS)
{
    more_of(2, rows, p, b, k, end, o, o_row, stream);
}

#if TILE_VECS > 2
static NOINLINE void more_v3(MORE_ARGS)
{
    more_of(3, rows, p, b, k, end, o, o_row, stream);
}

static NOINLINE void more_v4(MORE_ARGS)
{
    more_of(4, rows, p, b, k, end, o, o_row, stream);
}
#endif

static void (*const more_by_vecs[])(MORE_ARGS) = {
    more_v1,
    more_v2,
#if TILE_VECS > 2
    more_v3,
    more_v4,
#endif
};

/* The chains of n rows of one head over keys k ... end - 1 of the block. v: the row of key k; tail: its last columns
 * and the next keys', or null. */
static void few_chain(const struct tril_job *job, const float *v, size_t v_stride, const float *tail, size_t k,
                      size_t end, int n, const float *p, float *o, struct few_stream *stream)
{
    const size_t o_row = (size_t)job->plan->v_row;
    const int vecs = job->call->v_dim / V_LANES;
    for (int j = 0, width; j < vecs; j += width) {
        width = tile_share(vecs - j, TILE_VECS);
        const struct tile_b b = {v + j * V_LANES, v_stride, PANEL}; /* a row's panels follow each other */
        more_by_vecs[width - 1](n, p, b, k, end, o + j * V_LANES, o_row, stream);
    }
    if (tail != NULL) {
        const struct tile_b b = {tail, PANEL, PANEL};
        more_v1(n, p, b, k, end, o + vecs * V_LANES, o_row, stream);
    }
}

/* The same where rows see different numbers of keys, row_end ascending: first what all of them see. */
static void few_triangle(const struct tril_job *job, const float *v, size_t v_stride, const float *tail, size_t k,
                         size_t end, const int *row_end, int n, const float *p, float *o, struct few_stream *stream)
{
    const size_t least = (size_t)row_end[0] < k ? k : (size_t)row_end[0] < end ? (size_t)row_end[0] : end;
    if (least > k) few_chain(job, v, v_stride, tail, k, least, n, p, o, stream);
    for (int i = 1; i < n; i++) {
        const size_t own = (size_t)row_end[i] < end ? (size_t)row_end[i] : end;
        if (own > least)
            few_chain(job, v + (least - k) * v_stride, v_stride, tail == NULL ? NULL : tail + (least - k) * PANEL,
                      least, own, 1, p + (size_t)i * FEW_ROW, o + i * job->plan->v_row, stream);
    }
}

/* block_o = the chains of the block's weights times its values. */
static void few_values(const struct tril_job *job, const struct tril_task *task, int64_t first, const int *row_end,
                       float *ws, struct few_stream *stream)
{
    const struct tril_plan *plan = job->plan;
    const tril_tensor *x = &job->call->v;
    const int keys = few_keys_of(task, first), rows = few_rows_of(job, task);
    const int dims = job->call->v_dim, whole = dims / V_LANES * V_LANES;
    float *o = ws + plan->block_o, *packed = ws + plan->v;
    memset(o, 0, (size_t)(task->heads * rows * plan->v_row) * sizeof(float));
    for (int k = 0; k < keys; k += FEW_STEP) {
        const int n = keys - k < FEW_STEP ? keys - k : FEW_STEP;
        for (int64_t head = 0; head < task->heads; head++) {
            const float *v = tril_row(x, task->token + first + k, task->head + head);
            few_budget(stream, job, task, few_share(x, dims, task, head, n));
            if (whole < dims) { /* the last columns, so that nothing past a row's end is read */
                for (int i = 0; i < n; i++)
                    v_store(packed + i * PANEL,
                            v_load_part((const float *)(const void *)((const char *)v + i * x->token_stride) + whole,
                                        dims - whole));
            }
            for (int r = 0, group; r < rows; r += group) {
                const size_t row = (size_t)(head * rows + r);
                group = tile_share(rows - r, TILE_ROWS);
                few_triangle(job, v, (size_t)x->token_stride / sizeof(float), whole < dims ? packed : NULL, (size_t)k,
                             (size_t)(k + n), row_end + row, group, ws + plan->s + row * FEW_ROW,
                             o + row * (size_t)plan->v_row, stream);
            }
        }
    }
}

/* Folds states into a row's running o, maximum and sum. */
static void fold_states(float *o, int dim, float *max, float *sum, const struct tril_state *states, int n)
{
    for (int i = 0; i < n; i++) {
        float old, fresh;
        if (states[i].sum == 0.0f && __builtin_signbit(states[i].sum)) continue;
        softmax_fold(1, max, sum, &states[i].max, &states[i].sum, &old, &fresh);
        const vf a = v_set1(old), b = v_set1(fresh);
        int d = 0;
        for (; d + V_LANES <= dim; d += V_LANES)
            v_store(o + d, v_fma(v_load(o + d), a, v_mul(v_load(states[i].o + d), b)));
        if (d < dim)
            v_store_part(o + d, dim - d,
                         v_fma(v_load_part(o + d, dim - d), a, v_mul(v_load_part(states[i].o + d, dim - d), b)));
    }
}

#endif
