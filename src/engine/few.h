/* Few query rows, above all a single new token: time goes into reading keys and values, so each is read once, in the
 * order in which memory holds them, and asked for ahead.
 *
 *   for each block of 256 keys
 *     for each FEW_STEP keys, for each K/V head:  few_scores   scores of the head's rows, keys across the lanes
 *     for each row:                               few_softmax
 *     for each FEW_STEP keys, for each K/V head:  few_values   goes on with the rows' chains, which lie in block_o
 *
 * The order of every operation is that of the block path, so the bits are the same. Up to FEW_DOTS_ROWS rows a key is
 * transposed in registers on its way into the chains; more rows share a panel that is packed in the first-level cache.
 */
#ifndef TRIL_ENGINE_FEW_H
#define TRIL_ENGINE_FEW_H

#include "source.h"

#define FEW_ROW TRIL_FEW_SCORE_ROW

/* Keys that one head's rows meet before the next head's turn: fewer would load and store the chains of the values more
 * often, more would reach further ahead than the caches hold. */
#define FEW_STEP TRIL_FEW_STEP

/* The same of narrower rows than f32's. */
#define FEW_TYPED_STEP (2 * FEW_STEP)

/* Lines that are asked for before use where a step of all heads has less: memory takes 100 ns, in which a core
 * reads 50. */
#define FEW_LEAST_AHEAD 256
_Static_assert(FEW_STEP % PANEL == 0, "steps are whole panels");

/* In vectors of a whole line P V of f32 takes a line of values in a third of the time that memory takes for one: asked
 * for at that rate, requests are dropped for want of room. Where keys and values come from memory, they are asked for
 * behind each head's arithmetic instead, one after the other. With more rows of a head than these there is arithmetic
 * enough. */
#define FEW_FAR_ROWS 14

/* So many rows at most have a kernel for keys of f32 that are asked for one by one; see few_stream.singly. */
#define FEW_SINGLE_ROWS (V_LANES == PANEL ? 4 : 0)

/* Panels of n keys from position `first` on, which begins one: the host's own, or packed into `to`. */
static struct tile_b panels_of(const struct tril_job *job, const struct tril_task *task, int64_t head, int64_t first,
                               int n, float *to)
{
    if (keys_in_place(job, first, n)) return panels_in_place(job, task, head, first);
    pack_keys(job, task, head, first, n, to);
    return (struct tile_b){to, PANEL, PANEL * (size_t)job->call->qk_dim};
}

/* Keys from ... to - 1 that rows row ... row + rows - 1 all see, of which no neighbouring row sees any. */
struct patch {
    int from, to, row, rows;
};

/* The next one, begun with a zeroed patch; false at the end. Patches come in the order of their keys. */
static bool next_patch(const uint8_t *seen, int keys, int n, struct patch *p)
{
    int row = p->row + p->rows;
    for (int k = p->from; k < keys; k = p->to, row = 0) {
        int to = k + 1;
        while (to < keys && seen[to] == seen[k])
            to++;
        p->from = k;
        p->to = to;
        while (row < n && (seen[k] >> row & 1) == 0)
            row++;
        if (row == n) continue;
        p->row = row;
        for (p->rows = 0; row < n && (seen[k] >> row & 1) != 0; row++)
            p->rows++;
        return true;
    }
    return false;
}

static int few_rows_of(const struct tril_job *job, const struct tril_task *task)
{
    return (int)(task->queries * job->plan->group); /* of one K/V head */
}

/* Keys and values that are stored in another type than f32 are widened in registers, on their way into the chains, by
 * kernels of their own. These take whole blocks of 32 values, whole vectors of keys, and 2 or 4 rows, of keys in halves
 * 8 if they can: with 1 or 3 the last one takes part twice, which costs less than more kernels would in code. What does
 * not fit is widened into the first-level cache and goes the way of f32. */
#define FEW_TYPED_ROWS 4
#define FEW_HALF_ROWS  (V_LANES == PANEL ? 2 * FEW_TYPED_ROWS : FEW_TYPED_ROWS)

static ALWAYS_INLINE bool few_is_half(const tril_dtype type)
{
    return type == TRIL_F16 || type == TRIL_BF16;
}

/* Up to how many rows that is faster, though every kernel widens anew. */
static int few_typed_most(const tril_tensor *x)
{
    if (V_LANES < PANEL) return 2 * FEW_TYPED_ROWS;
    return few_is_half(x->dtype) ? 24 : x->layout == TRIL_PANELS ? 8 : 20;
}

static bool few_is_typed(const tril_tensor *x, int dims, int rows)
{
    return x->dtype != TRIL_F32 && x->layout == TRIL_ROWS && rows <= few_typed_most(x) && dims % TRIL_Q_BLOCK == 0;
}

/* Keys in panels of such a type, which need no transposition, have kernels as well: whole panels, any head size. */
static bool few_in_panels(const tril_tensor *x, int rows)
{
    return x->dtype != TRIL_F32 && x->layout == TRIL_PANELS && rows <= few_typed_most(x);
}

/* See FEW_STEP; narrow rows reach less far. */
static int few_step(const tril_tensor *x, int dims, int rows)
{
    return few_is_typed(x, dims, rows) || few_in_panels(x, rows) ? FEW_TYPED_STEP : FEW_STEP;
}

/* Also finds all rows of the task, of which there are few. */
static void few_begin(const struct tril_job *job, const struct tril_task *task,
                      struct tril_task_row row[TRIL_FEW_ROWS_IN_ALL], float *ws)
{
    const int rows = (int)tril_task_rows(job, task), dims = job->call->qk_dim;
    block_begin((size_t)rows, ws + job->plan->row_max, ws + job->plan->row_sum);
    for (int r = 0; r < rows; r++) {
        row[r] = tril_task_row(job, task, r);
        pack_query(job, &row[r], ws + job->plan->q + (size_t)r * (size_t)dims);
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
    /* Keys of f32: each line is asked for when the count of the one before is stored, three for every four that are
     * read, the rest behind the arithmetic and slower yet. Memory drops requests that come faster. */
    bool singly;
    bool far; /* values are not asked for between their arithmetic, but behind it: see FEW_FAR_ROWS */
    bool dry; /* no keys are asked for behind their arithmetic: the processor finds panels in a cache by itself */
    unsigned pauses;  /* several tiles of rows take the same values: behind which of their steps none are asked for */
    const char *idle; /* lines in the cache, asked for where there are no others to ask for */
    /* Pages: runs until the next page, and of a whole one; where its number stands; what numbers count from. */
    int64_t runs, of_page;
    const int32_t *page;
    const char *base;
    int64_t page_stride;
};

/* Bytes of one row, or, in panels, of 16. */
static int64_t few_row_bytes(const tril_tensor *x, int dims)
{
    return tril_row_bytes(x->dtype, dims) * (x->layout == TRIL_PANELS ? PANEL : 1);
}

/* Tokens of a run: one, or 16 in panels and where tokens follow each other without a gap. */
static int few_run_tokens(const tril_tensor *x, int dims, int64_t heads)
{
    const int64_t token = (heads - 1) * x->head_stride + few_row_bytes(x, dims);
    return x->layout == TRIL_PANELS || x->token_stride - token < LINE_BYTES ? PANEL : 1;
}

/* Its lines: the rows of all heads. */
static int few_run_lines(const tril_tensor *x, int dims, int64_t heads)
{
    int64_t bytes = (heads - 1) * x->head_stride + few_row_bytes(x, dims);
    if (x->layout == TRIL_ROWS) bytes += (few_run_tokens(x, dims, heads) - 1) * x->token_stride;
    return (int)((bytes + LINE_BYTES - 1) / LINE_BYTES);
}

/* One head's share of the lines of n tokens. */
static int64_t few_share(const tril_tensor *x, int dims, const struct tril_task *task, int64_t head, int n)
{
    const int tokens = few_run_tokens(x, dims, task->heads);
    const int64_t lines = (int64_t)few_run_lines(x, dims, task->heads) * ((n + tokens - 1) / tokens);
    return lines * (head + 1) / task->heads - lines * head / task->heads;
}

/* The keys or the values of the block at s->first. */
static void few_stream_block(struct few_stream *s, const struct tril_job *job, const struct tril_task *task)
{
    const tril_tensor *x = s->values ? &job->call->v : &job->call->k;
    const int dims = s->values ? job->call->v_dim : job->call->qk_dim;
    struct stretch part[2];
    const int parts = block_stretches(task, s->first, few_keys_of(task, s->first), part);
    const int64_t first = s->first + (parts > 0 ? part[0].from : 0);
    int keys = 0;
    for (int i = 0; i < parts; i++)
        keys += part[i].to - part[i].from;
    const int tokens = few_run_tokens(x, dims, task->heads), lines = few_run_lines(x, dims, task->heads);
    const int64_t page = job->call->block_tokens;
    s->p = rows_from(job, task, x, first, task->head).data;
    s->left = s->run = lines;
    s->gap = tokens * x->token_stride - lines * LINE_BYTES;
    s->block_left = (int64_t)(keys + tokens - 1) / tokens * lines;
    if (s->gap == 0 && page == 0) s->left = s->run = (int)s->block_left; /* no gap at all */
    s->runs = s->of_page = INT64_MAX;
    if (page == 0) return;
    const int64_t at = first / page;
    s->page = job->pages + task->pages + at;
    s->base = tril_row(x, 0, task->head);
    s->page_stride = x->block_stride;
    s->of_page = page / tokens;
    s->runs = s->of_page - (first - at * page) / tokens;
}

/* Behind a run's end: the next one's first line. What was asked for past the end does not count. */
static ALWAYS_INLINE void few_turn(struct few_stream *s)
{
    s->budget -= s->left;
    s->p += s->gap + (int64_t)s->left * LINE_BYTES;
    s->left = s->run;
    if (--s->runs > 0) return;
    s->p = s->base + *++s->page * s->page_stride;
    s->runs = s->of_page;
}

/* Into the first level, although that keeps only what comes soon: a core drops what is asked for into a lower one when
 * it has no room for the request (Zen 5), and the arithmetic then waits for memory. */
#define FEW_ASK(p) __builtin_prefetch(p, 0, 3)

/* n lines, or none where fewer are allowed. Called with few of them and often: a burst finds no room either. */
static ALWAYS_INLINE void few_pull(struct few_stream *s, const int n)
{
    __asm__("" : "+m"(*s)); /* in memory: registers are for the arithmetic */
    if (s->budget < n) return;
    s->budget -= n;
    UNROLL
    for (int i = 0; i < n; i++)
        FEW_ASK(s->p + i * LINE_BYTES);
    s->p += n * LINE_BYTES;
    s->left -= n;
    if (__builtin_expect(s->left <= 0, 0)) few_turn(s);
}

/* n lines without asking for them. */
static void few_pass(struct few_stream *s, int n)
{
    s->budget -= n;
    s->p += n * LINE_BYTES;
    s->left -= n;
    if (s->left <= 0) few_turn(s);
}

/* Asks for what is left of the work before, and allows so many lines to what comes now. */
static void few_budget(struct few_stream *s, const struct tril_job *job, const struct tril_task *task, int64_t lines)
{
    int one = 1;
    __asm__("" : "+r"(one));
    while (s->singly && s->budget > 0) {
        few_pull(s, 1);
        s->budget *= one; /* for the time that it takes */
    }
    while (s->dry && s->budget > 0)
        few_pass(s, s->budget < s->left ? s->budget : s->left);
    while (s->budget > 0)
        few_pull(s, 1);
    lines += s->owed;
    if (s->block_left == 0 && !s->over) {
        if (s->values || job->weights != NULL) s->first = tril_next_block(task, s->first);
        s->values = !s->values && job->weights == NULL;
        s->over = s->first >= task->keys;
        if (!s->over) few_stream_block(s, job, task);
    }
    s->budget = (int)(s->over ? 0 : lines < s->block_left ? lines : s->block_left);
    s->block_left -= s->budget;
    s->owed = s->over ? 0 : lines - s->budget;
}

/* Lines that a transposition in registers takes: V_LANES keys x V_LANES floats or pairs of halves. Bytes take less. */
#define SQUARE_LINES (V_LANES * V_LANES * (int)sizeof(float) / LINE_BYTES)

/* idle: SQUARE_LINES lines that will be in the cache. */
static void few_open(struct few_stream *s, const struct tril_job *job, const struct tril_task *task, const float *idle)
{
    const tril_tensor *k = &job->call->k;
    const int dims = job->call->qk_dim, rows = few_rows_of(job, task), step = few_step(k, dims, rows);
    const enum source source =
        k->dtype == TRIL_F32 || job->call->v.dtype == TRIL_F32 ? source_of(job, task) : SOURCE_UNKNOWN;
    *s = (struct few_stream){.first = task->first};
    s->far = source >= SOURCE_BOTH && job->call->v.dtype == TRIL_F32 && rows <= FEW_FAR_ROWS;
    s->singly =
        s->far && source == SOURCE_MEMORY && k->dtype == TRIL_F32 && k->layout == TRIL_ROWS && rows <= FEW_SINGLE_ROWS;
    s->dry = source == SOURCE_CACHE && k->dtype == TRIL_F32 && k->layout == TRIL_PANELS;
    s->idle = (const char *)idle;
    while ((int)(s->pauses + 1) * TILE_ROWS < rows)
        s->pauses = 2 * s->pauses + 1;
    few_stream_block(s, job, task);
    const int64_t ahead = (int64_t)few_run_lines(k, dims, task->heads) * (step / few_run_tokens(k, dims, task->heads));
    few_budget(s, job, task, ahead > FEW_LEAST_AHEAD ? ahead : FEW_LEAST_AHEAD);
    few_budget(s, job, task, 0);
}

/* Spells out a statement for every lane that a vector can have; see EACH_ROW. */
#define EACH_LANE(DO)                                                                                                  \
    DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11) DO(12) DO(13) DO(14) DO(15)

/* Where a token's rows are fewer lines than a kernel takes at once: what one of n calls may ask for, before it. */
static void few_pull_short(struct few_stream *s, int n)
{
    if (s->run >= SQUARE_LINES) return;
    for (int left = s->budget / n; left > 0; left--)
        few_pull(s, 1);
}

/* n lines that a transposition will ask for between its lanes, SQUARE_LINES at most. */
static ALWAYS_INLINE const char *few_take(struct few_stream *s, const int n)
{
    __asm__("" : "+m"(*s));
    const char *taken = s->idle;
    if (s->budget >= n && s->run >= SQUARE_LINES) {
        taken = s->p;
        s->budget -= n;
        s->p += n * LINE_BYTES;
        s->left -= n;
        if (__builtin_expect(s->left <= 0, 0)) few_turn(s);
    }
    return taken;
}

/* Behind lane u of n: its share of the lines. */
static ALWAYS_INLINE void few_ask_share(const char *taken, const int lines, const int u, const int n)
{
    UNROLL
    for (int i = lines * u / n; i < lines * (u + 1) / n; i++)
        FEW_ASK(taken + i * LINE_BYTES);
}

/* The most rows of a kernel that turns keys of f32 over: beside a vector for each lane there are registers for so many.
 */
#define FEW_DOTS_ROWS (V_LANES == PANEL ? 14 : TILE_ROWS)
#define FEW_MAX_ROWS  14
_Static_assert(FEW_DOTS_ROWS <= FEW_MAX_ROWS, "rows of few_dots()");

/* See EACH_ROW. */
#define EACH_FEW_ROW(DO) EACH_ROW(DO) DO(8) DO(9) DO(10) DO(11) DO(12) DO(13)

/* Where `rows` rows of a kernel begin, row floats apart, of which `real` are there, and more than rows - step: the last
 * of them takes the places of the others, too. */
static ALWAYS_INLINE void few_places(const int rows, const int step, const int real, const size_t row,
                                     size_t at[FEW_MAX_ROWS])
{
    UNROLL
    for (int r = 0; r < rows; r++)
        at[r] = (size_t)(r <= rows - step || r < real ? r : real - 1) * row;
}

/* One value of the rows' queries, times a vector of keys. */
static ALWAYS_INLINE void few_lane(const int rows, const int lane, const va av[FEW_MAX_ROWS], const float *q,
                                   const size_t at[FEW_MAX_ROWS], const vf keys, vf acc[FEW_MAX_ROWS])
{
#define DO(r)                                                                                                          \
    if (r < rows) acc[r] = a_fma(A_STEP > 1 ? av[r] : a_load1(q + at[r]), lane, keys, acc[r]);
    EACH_FEW_ROW(DO)
#undef DO
}

/* V_LANES values of the rows' queries, times t. */
static ALWAYS_INLINE void few_lanes(const bool singly, const int rows, const float *q, const size_t at[FEW_MAX_ROWS],
                                    const vf t[V_LANES], vf acc[FEW_MAX_ROWS], struct few_stream *stream)
{
    const char *taken = singly ? NULL : few_take(stream, SQUARE_LINES);
    va av[FEW_MAX_ROWS] = {a_load1(q)}; /* not used where A_STEP is 1, but compilers want it to have a value */
    _Static_assert(A_STEP == 1 || A_STEP == V_LANES, "a register of A holds the values of one transposition");
#define DO(r)                                                                                                          \
    if (A_STEP > 1 && r < rows) av[r] = a_load(q + at[r]);
    EACH_FEW_ROW(DO)
#undef DO
#define DO(u)                                                                                                          \
    if (u < V_LANES) {                                                                                                 \
        few_lane(rows, A_STEP > 1 ? u % 4 : 0, av, q + u, at, t[u % V_LANES], acc);                                    \
        if (!singly) few_ask_share(taken, SQUARE_LINES, u, V_LANES);                                                   \
        if (singly && u % 4 < 3) few_pull(stream, 1);                                                                  \
    }
    EACH_LANE(DO)
#undef DO
}

/* V_LANES keys x V_LANES dims (dims of them real), transposed in registers. */
static ALWAYS_INLINE void few_square(const char *k, const int64_t stride, const int dims, vf t[V_LANES])
{
    UNROLL
    for (int i = 0; i < V_LANES; i++) {
        const float *row = (const float *)(const void *)(k + i * stride);
        t[i] = dims >= V_LANES ? v_load(row) : v_load_part(row, dims);
    }
    v_transpose(t);
}

/* Up to so many rows of f32 keys are turned over again for every FEW_DOTS_ROWS of them; more share packed panels. */
#define FEW_TURNED_ROWS (V_LANES == PANEL ? 3 * FEW_DOTS_ROWS : FEW_DOTS_ROWS)

/* Numbers of rows for which there is a kernel are multiples of it, and FEW_DOTS_ROWS. Of others the last row takes part
 * more than once, which costs less than more kernels would in code: in vectors of a whole line, four chains of fma take
 * no longer than one. */
#define FEW_DOTS_STEP (V_LANES == PANEL ? 4 : 2)

/* Goes on with the chains in s over the last dims, `left` of them, one by one, so that no row is read past its end. */
static NOINLINE void few_last_dots(const int rows, const int left, const float *q, const int dims, const char *k,
                                   const int64_t stride, float *s)
{
    enum { AT_ONCE = 4 };
    float lanes[V_LANES * V_LANES];
    vf t[V_LANES];
    few_square(k, stride, left, t);
    UNROLL
    for (int u = 0; u < V_LANES; u++)
        v_store(lanes + u * V_LANES, t[u]);
    for (int r = 0; r < rows; r += AT_ONCE, q += AT_ONCE * dims, s += AT_ONCE * FEW_ROW) {
        size_t at[FEW_MAX_ROWS], s_at[FEW_MAX_ROWS];
        vf acc[FEW_MAX_ROWS];
        few_places(AT_ONCE, AT_ONCE, rows - r, (size_t)dims, at);
        few_places(AT_ONCE, AT_ONCE, rows - r, FEW_ROW, s_at);
#define DO(i)                                                                                                          \
    if (i < AT_ONCE) acc[i] = v_load(s + s_at[i]);
        EACH_FEW_ROW(DO)
#undef DO
        NO_UNROLL
        for (int u = 0; u < left; u++) {
            va av[FEW_MAX_ROWS] = {a_load1(q)};
#define DO(i)                                                                                                          \
    if (A_STEP > 1 && i < AT_ONCE) av[i] = a_load1(q + at[i] + u);
            EACH_FEW_ROW(DO)
#undef DO
            few_lane(AT_ONCE, 0, av, q + u, at, v_load(lanes + u * V_LANES), acc);
        }
#define DO(i)                                                                                                          \
    if (i < AT_ONCE) v_store(s + s_at[i], acc[i]);
        EACH_FEW_ROW(DO)
#undef DO
    }
}

/* s[r][0 ... V_LANES - 1] = the scores of `rows` rows and V_LANES keys. */
static ALWAYS_INLINE void few_dots(const bool singly, const int rows, const int real, const float *q, const int dims,
                                   const char *k, const int64_t stride, float *s, struct few_stream *stream)
{
    size_t at[FEW_MAX_ROWS], s_at[FEW_MAX_ROWS];
    few_places(rows, FEW_DOTS_STEP, real, (size_t)dims, at);
    few_places(rows, FEW_DOTS_STEP, real, FEW_ROW, s_at);
    vf acc[FEW_MAX_ROWS];
    int left = dims;
#define DO(r)                                                                                                          \
    if (r < rows) acc[r] = v_zero();
    EACH_FEW_ROW(DO)
#undef DO
    for (; left >= V_LANES; left -= V_LANES, q += V_LANES, k += V_LANES * sizeof(float)) {
        const char *rows_at = k;
        vf t[V_LANES];
        __asm__("" : "+r"(rows_at)); /* gcc 12 keeps a pointer to each of the rows otherwise, and spills them and t */
        few_square(rows_at, stride, V_LANES, t);
        few_lanes(singly, rows, q, at, t, acc, stream);
    }
#define DO(r)                                                                                                          \
    if (r < rows) v_store(s + s_at[r], acc[r]);
    EACH_FEW_ROW(DO)
#undef DO
    if (left > 0) few_last_dots(real, left, q, dims, k, stride, s);
}

#define DOTS_ARGS                                                                                                      \
    const int rows, const float *q, const int dims, const char *k, const int64_t stride, float *s,                     \
        struct few_stream *stream
#define DOTS(name, singly, most)                                                                                       \
    static NOINLINE void name(DOTS_ARGS)                                                                               \
    {                                                                                                                  \
        few_dots(singly, most, rows, q, dims, k, stride, s, stream);                                                   \
    }
DOTS(few_dots_1, false, FEW_DOTS_STEP)
DOTS(few_dots_2, false, 2 * FEW_DOTS_STEP)
DOTS(few_dots_3, false, 3 * FEW_DOTS_STEP)
#if FEW_DOTS_ROWS > 3 * FEW_DOTS_STEP
DOTS(few_dots_4, false, FEW_DOTS_ROWS)
#endif
#if FEW_SINGLE_ROWS > 0
DOTS(few_singly, true, FEW_SINGLE_ROWS)
#endif
#undef DOTS

static void (*const few_dots_by_rows[])(DOTS_ARGS) = {
    few_dots_1,
    few_dots_2,
    few_dots_3,
#if FEW_DOTS_ROWS > 3 * FEW_DOTS_STEP
    few_dots_4,
#endif
};

_Static_assert(sizeof(few_dots_by_rows) / sizeof(few_dots_by_rows[0]) ==
                   (FEW_DOTS_ROWS + FEW_DOTS_STEP - 1) / FEW_DOTS_STEP,
               "a function for each step of rows");

/* How many of the rows that are left a kernel of at most `most` takes. */
static int few_rows_left(int left, int most)
{
    return left < most ? left : most;
}

/* How many of the rows that are left the next kernel takes: as even a share as kernels allow. */
static int few_dots_share(int left)
{
    const int steps = (tile_share(left, FEW_DOTS_ROWS) + FEW_DOTS_STEP - 1) / FEW_DOTS_STEP;
    return few_rows_left(few_rows_left(left, steps * FEW_DOTS_STEP), FEW_DOTS_ROWS);
}

static void few_dots_of(DOTS_ARGS)
{
#if FEW_SINGLE_ROWS > 0
    if (stream->singly) {
        few_singly(rows, q, dims, k, stride, s, stream);
        return;
    }
#endif
    few_dots_by_rows[(rows - 1) / FEW_DOTS_STEP](rows, q, dims, k, stride, s, stream);
}

/* Calls kernel(..., rows rounded up to even as a constant, ...). */
#define BY_ROWS(kernel, type, rows, ...)                                                                               \
    do {                                                                                                               \
        if (rows <= 2)                                                                                                 \
            kernel(type, 2, rows, __VA_ARGS__);                                                                        \
        else                                                                                                           \
            kernel(type, FEW_TYPED_ROWS, rows, __VA_ARGS__);                                                           \
    } while (0)

/* How many vectors of keys a kernel takes side by side: few rows are few chains, and a core with two fma units needs
 * eight. Two of halves have registers for half a line of each key, and come back for the other. */
#define FEW_SIDES (V_LANES == PANEL ? 2 : 1)
typedef vf few_acc[MAX_ROWS][FEW_SIDES];

/* Keys a multiple of this apart share so few sets of the first-level cache that no line of theirs is there when it is
 * come back to. */
#define FEW_CROWDED_STRIDE 2048

static int few_sides(const tril_tensor *x, int rows)
{
    if (x->dtype == TRIL_F32) return 1;
    if (!few_is_half(x->dtype)) return FEW_SIDES;
    return rows <= (x->token_stride % FEW_CROWDED_STRIDE == 0 ? 2 : FEW_TYPED_ROWS) ? FEW_SIDES : 1;
}

/* One value of the rows' queries, times a vector of keys on each side. at: of each row, from q. */
static ALWAYS_INLINE void few_typed_lane(const int sides, const int rows, const float *q, const size_t at[MAX_ROWS],
                                         const vf *keys, few_acc acc)
{
#define DO(r)                                                                                                          \
    if (r < rows && sides == 1) acc[r][0] = a_fma_at(q + at[r], keys[0], acc[r][0]);                                   \
    if (r < rows && sides > 1) {                                                                                       \
        const va a = a_load1(q + at[r]);                                                                               \
        acc[r][0] = a_fma(a, 0, keys[0], acc[r][0]);                                                                   \
        acc[r][FEW_SIDES - 1] = a_fma(a, 0, keys[FEW_SIDES - 1], acc[r][FEW_SIDES - 1]);                               \
    }
    EACH_ROW(DO)
#undef DO
}

/* Pairs of halves of a key that few_halves() takes. */
static ALWAYS_INLINE int few_pairs(const int sides)
{
    return sides > 1 ? 8 : V_LANES;
}

/* Halves: V_LANES keys on each side x 2 * few_pairs() dims, transposed in pairs. */
static ALWAYS_INLINE void few_halves(const tril_dtype type, const int sides, const int rows, const float *q,
                                     const size_t q_at[MAX_ROWS], const struct tril_rows *k, const int64_t at,
                                     few_acc acc, struct few_stream *stream)
{
    const int pairs = few_pairs(sides);
    const char *taken = few_take(stream, SQUARE_LINES);
    vf t[FEW_SIDES][V_LANES], h[2], keys[2][FEW_SIDES];
    if (sides == 1) few_square(k->data + at, k->stride, V_LANES, t[0]);
#if V_LANES == PANEL
    UNROLL
    for (int i = 0; i < FEW_SIDES; i++) {
        if (sides > 1) v_half_lines(k[i].data + at, k[i].stride, t[i]);
    }
#endif
#define DO(u)                                                                                                          \
    if (u < pairs) {                                                                                                   \
        UNROLL                                                                                                         \
        for (int i = 0; i < sides; i++) {                                                                              \
            if (type == TRIL_F16)                                                                                      \
                v_halves_f16(t[i][u % V_LANES], h);                                                                    \
            else                                                                                                       \
                v_halves_bf16(t[i][u % V_LANES], h);                                                                   \
            keys[0][i] = h[0];                                                                                         \
            keys[1][i] = h[1];                                                                                         \
        }                                                                                                              \
        few_typed_lane(sides, rows, q + 2 * u, q_at, keys[0], acc);                                                    \
        few_typed_lane(sides, rows, q + 2 * u + 1, q_at, keys[1], acc);                                                \
        few_ask_share(taken, SQUARE_LINES, u, pairs);                                                                  \
    }
    EACH_LANE(DO)
#undef DO
}

/* Byte u of 16, or, of Q4_0, its lower half, of V_LANES keys on each side. */
static ALWAYS_INLINE void few_byte(const tril_dtype type, vf t[FEW_SIDES][4], const int u, const vf scale[FEW_SIDES],
                                   vf keys[FEW_SIDES])
{
    UNROLL
    for (int i = 0; i < FEW_SIDES; i++)
        keys[i] = v_mul(scale[i], type == TRIL_Q4_0   ? v_word_u4(t[i][u / 4], u % 4)
                                  : type == TRIL_Q8_0 ? v_word_top(t[i][u / 4], u % 4)
                                                      : v_word_i8(t[i][u / 4], u % 4));
}

/* The bytes `at` ... at + 15 of the rows: 16 values, or, where they are halves of bytes, 32. */
static ALWAYS_INLINE void few_bytes(const tril_dtype type, const int rows, const float *q, const size_t q_at[MAX_ROWS],
                                    const struct tril_rows *k, const int64_t at, const vf scale[FEW_SIDES], few_acc acc,
                                    struct few_stream *stream)
{
    const int all_lines = FEW_SIDES * (V_LANES * 16 + LINE_BYTES) / LINE_BYTES;
    const int lines = type == TRIL_Q4_0 ? (all_lines + 2) / 4 * 2 : all_lines;
    vf t[FEW_SIDES][4], keys[FEW_SIDES];
    UNROLL
    for (int i = 0; i < FEW_SIDES; i++)
        v_words(k[i].data + at, k[i].stride, t[i]);
    for (int left = type == TRIL_Q4_0; left >= 0; left--, q += 16) {
        const char *taken = few_take(stream, lines);
#define DO(u)                                                                                                          \
    few_byte(type, t, u, scale, keys);                                                                                 \
    few_typed_lane(FEW_SIDES, rows, q + u, q_at, keys, acc);                                                           \
    few_ask_share(taken, lines, u, 16);
        EACH_LANE(DO)
#undef DO
        if (left == 0) return;
        UNROLL
        for (int i = 0; i < FEW_SIDES; i++) {
            UNROLL
            for (int j = 0; j < 4; j++)
                t[i][j] = v_word_upper(t[i][j]);
        }
    }
}

/* Their scales: of I8 floats, of blocks the halves in front. */
static ALWAYS_INLINE vf few_scales(const struct tril_rows *from)
{
    float scale[V_LANES];
    for (int i = 0; i < V_LANES; i++)
        scale[i] = tril_scale_of(from, i);
    return v_load(scale);
}

/* A byte of Q8_0 is left where it is cheapest, 2^24 times too large. The scale makes up for that: an f16's exponent has
 * room, so both are exact and the product is the same. */
static ALWAYS_INLINE vf few_block_scales(const tril_dtype type, const char *k, const int64_t stride)
{
    uint16_t scale[V_LANES];
    UNROLL
    for (int i = 0; i < V_LANES; i++)
        scale[i] = tril_load_u16(k + i * stride);
    return type == TRIL_Q8_0 ? v_mul(v_load_f16(scale), v_set1(0x1p-24f)) : v_load_f16(scale);
}

/* few_dots() on stored keys, V_LANES of each of `sides` rows `from`. */
static ALWAYS_INLINE void few_typed_dots(const tril_dtype type, const int rows, const int real, const int sides,
                                         const float *q, const int dims, const struct tril_rows *from, float *s,
                                         struct few_stream *stream)
{
    int64_t at = 0;
    vf scale[FEW_SIDES];
    few_acc acc;
    size_t q_at[MAX_ROWS];
#define DO(r)                                                                                                          \
    if (r < rows) q_at[r] = (size_t)(r < real ? r : real - 1) * (size_t)dims;
    EACH_ROW(DO)
#undef DO
#define DO(r)                                                                                                          \
    if (r < rows) acc[r][0] = v_zero();                                                                                \
    if (r < rows) acc[r][FEW_SIDES - 1] = v_zero();
    EACH_ROW(DO)
#undef DO
    UNROLL
    for (int i = 0; i < FEW_SIDES; i++)
        scale[i] = type == TRIL_I8 ? few_scales(&from[i]) : v_zero();
    const int step = few_is_half(type) ? 2 * few_pairs(sides) : type == TRIL_I8 ? 16 : TRIL_Q_BLOCK;
    for (int d = 0; d < dims; d += step, q += step, at += tril_row_bytes(type, step)) {
        if (few_is_half(type)) {
            few_halves(type, sides, rows, q, q_at, from, at, acc, stream);
        } else if (type == TRIL_I8) {
            few_bytes(type, rows, q, q_at, from, at, scale, acc, stream);
        } else {
            UNROLL
            for (int i = 0; i < FEW_SIDES; i++)
                scale[i] = few_block_scales(type, from[i].data + at, from[i].stride);
            for (int i = 0; i < (type == TRIL_Q8_0 ? TRIL_Q_BLOCK : 16); i += 16)
                few_bytes(type, rows, q + i, q_at, from, at + 2 + i, scale, acc, stream);
        }
    }
#define DO(r)                                                                                                          \
    if (r < rows) v_store(s + (r < real ? r : real - 1) * FEW_ROW, acc[r][0]);                                         \
    if (r < rows && sides > 1) v_store(s + (r < real ? r : real - 1) * FEW_ROW + V_LANES, acc[r][FEW_SIDES - 1]);
    EACH_ROW(DO)
#undef DO
}

#define TYPED_DOTS_ARGS                                                                                                \
    const int rows, const float *q, const int dims, const struct tril_rows *from, float *s, struct few_stream *stream
#define TYPED_DOTS(name, type)                                                                                         \
    static NOINLINE void few_dots_##name(const int sides, TYPED_DOTS_ARGS)                                             \
    {                                                                                                                  \
        if (FEW_SIDES == 1 || !few_is_half(type) || sides > 1)                                                         \
            BY_ROWS(few_typed_dots, type, rows, FEW_SIDES, q, dims, from, s, stream);                                  \
        else if (rows > FEW_TYPED_ROWS)                                                                                \
            few_typed_dots(type, FEW_HALF_ROWS, rows, 1, q, dims, from, s, stream);                                    \
        else                                                                                                           \
            few_typed_dots(type, FEW_TYPED_ROWS, rows, 1, q, dims, from, s, stream);                                   \
    }
TYPED_DOTS(f16, TRIL_F16)
TYPED_DOTS(bf16, TRIL_BF16)
TYPED_DOTS(i8, TRIL_I8)
TYPED_DOTS(q8_0, TRIL_Q8_0)
TYPED_DOTS(q4_0, TRIL_Q4_0)
#undef TYPED_DOTS

static void (*const few_dots_by_type[TRIL_DTYPE_COUNT])(const int sides, TYPED_DOTS_ARGS) = {
    [TRIL_F16] = few_dots_f16,   [TRIL_BF16] = few_dots_bf16, [TRIL_I8] = few_dots_i8,
    [TRIL_Q8_0] = few_dots_q8_0, [TRIL_Q4_0] = few_dots_q4_0,
};

/* Row r of a kernel of `rows` rows, the last of which may be one of the others once more. */
static ALWAYS_INLINE const float *few_row(const int r, const int rows, const float *q, const size_t q_row,
                                          const float *last)
{
    return r == rows - 1 ? last : q + r * q_row;
}

/* Row r of a kernel of `rows` rows, `real` of them there. */
static ALWAYS_INLINE size_t few_twice(const int r, const int rows, const int real)
{
    return (size_t)(r == rows - 1 ? real - 1 : r);
}

/* Panels that a kernel takes side by side, and the vectors in them: eight chains for four rows, or more. */
#define FEW_PANELS     (V_LANES == PANEL ? 2 : 1)
#define FEW_PANEL_VECS (FEW_PANELS * PANEL / V_LANES)
_Static_assert(FEW_PANEL_VECS == 2 || FEW_PANEL_VECS == 4, "the chains are spelled out");

static ALWAYS_INLINE void few_panel_fma(const float *q, const vf b[FEW_PANEL_VECS], vf acc[FEW_PANEL_VECS])
{
    const va a = a_load1(q);
    acc[0] = a_fma(a, 0, b[0], acc[0]);
    acc[1] = a_fma(a, 0, b[1], acc[1]);
    if (FEW_PANEL_VECS > 2) acc[FEW_PANEL_VECS - 2] = a_fma(a, 0, b[FEW_PANEL_VECS - 2], acc[FEW_PANEL_VECS - 2]);
    if (FEW_PANEL_VECS > 2) acc[FEW_PANEL_VECS - 1] = a_fma(a, 0, b[FEW_PANEL_VECS - 1], acc[FEW_PANEL_VECS - 1]);
}

/* few_dots() on stored panels: the keys of the FEW_PANELS that begin at `from`. */
static ALWAYS_INLINE void few_panel_dots(const tril_dtype type, const int rows, const int real, const float *q,
                                         const int dims, const struct tril_rows *from, float *s,
                                         struct few_stream *stream)
{
    const size_t q_row = (size_t)dims;
    const float *last = q + (size_t)(real - 1) * q_row;
    const int bytes = PANEL * (int)tril_unit_bytes(type),
              lines = 4 * FEW_PANELS * bytes / LINE_BYTES; /* of four dims */
    vf acc[MAX_ROWS][FEW_PANEL_VECS], scale[FEW_PANEL_VECS];
    float scales[FEW_PANELS * PANEL];
    for (int i = 0; type == TRIL_I8 && i < FEW_PANELS * PANEL; i++)
        scales[i] = tril_scale_of(&from[i / PANEL], i % PANEL);
    UNROLL
    for (int j = 0; j < FEW_PANEL_VECS; j++)
        scale[j] = type == TRIL_I8 ? v_load(scales + j * V_LANES) : v_zero();
#define DO(r)                                                                                                          \
    if (r < rows) {                                                                                                    \
        UNROLL                                                                                                         \
        for (int j = 0; j < FEW_PANEL_VECS; j++)                                                                       \
            acc[r][j] = v_zero();                                                                                      \
    }
    EACH_ROW(DO)
#undef DO
    for (int d = 0; d < dims; d++, q++, last++) {
        vf b[FEW_PANEL_VECS];
        UNROLL
        for (int j = 0; j < FEW_PANEL_VECS; j++)
            b[j] = load_vec(type, from[j * V_LANES / PANEL].data + (int64_t)d * bytes, j * V_LANES % PANEL, scale[j]);
#define DO(r)                                                                                                          \
    if (r < rows) few_panel_fma(few_row(r, rows, q, q_row, last), b, acc[r]);
        EACH_ROW(DO)
#undef DO
        if (lines < 4 ? d % 4 == 3 : d % 2 == 1) few_pull(stream, lines < 4 ? lines : lines / 2);
    }
#define DO(r)                                                                                                          \
    if (r < rows) {                                                                                                    \
        UNROLL                                                                                                         \
        for (int j = 0; j < FEW_PANEL_VECS; j++)                                                                       \
            v_store(s + few_twice(r, rows, real) * FEW_ROW + j * V_LANES, acc[r][j]);                                  \
    }
    EACH_ROW(DO)
#undef DO
}

#define PANEL_DOTS(name, type)                                                                                         \
    static NOINLINE void few_panels_##name(TYPED_DOTS_ARGS)                                                            \
    {                                                                                                                  \
        BY_ROWS(few_panel_dots, type, rows, q, dims, from, s, stream);                                                 \
    }
PANEL_DOTS(f16, TRIL_F16)
PANEL_DOTS(bf16, TRIL_BF16)
PANEL_DOTS(i8, TRIL_I8)
#undef PANEL_DOTS

static void (*const few_panels_by_type[TRIL_DTYPE_COUNT])(TYPED_DOTS_ARGS) = {
    [TRIL_F16] = few_panels_f16, [TRIL_BF16] = few_panels_bf16, [TRIL_I8] = few_panels_i8};

/* The same for as many of n keys as fill panels; how many those are. */
static int few_panel_keys(const struct tril_job *job, const struct tril_task *task, int64_t key, int n, int64_t head,
                          const float *q, float *s, struct few_stream *stream)
{
    const tril_tensor *x = &job->call->k;
    const int dims = job->call->qk_dim, rows = few_rows_of(job, task);
    int done = 0;
    for (int panels; done + PANEL <= n; done += panels * PANEL) {
        struct tril_rows k[FEW_PANELS];
        panels = n - done >= FEW_PANELS * PANEL ? FEW_PANELS : 1;
        for (int i = 0; i < FEW_PANELS; i++) /* one alone takes part twice, see few_keys() */
            k[i] = tril_rows_at(job, task, x, key + done + (i < panels ? i * PANEL : 0), task->head + head);
        for (int r = 0; r < rows; r += FEW_TYPED_ROWS)
            few_panels_by_type[x->dtype](few_rows_left(rows - r, FEW_TYPED_ROWS), q + r * dims, dims, k,
                                         s + r * FEW_ROW + done, stream);
    }
    return done;
}

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
    const bool typed = few_is_typed(x, dims, rows);
    const int most = few_is_half(x->dtype) ? FEW_HALF_ROWS : FEW_TYPED_ROWS, most_sides = few_sides(x, rows);
    if (typed || (x->layout == TRIL_ROWS && x->dtype == TRIL_F32 && rows <= FEW_TURNED_ROWS)) {
        for (int sides; done + V_LANES <= n; done += sides * V_LANES) {
            struct tril_rows k[FEW_SIDES];
            sides = n - done >= FEW_SIDES * V_LANES ? most_sides : 1;
            few_pull_short(stream, (n - done) / (sides * V_LANES));
            for (int i = 0; i < FEW_SIDES; i++) /* one alone takes part twice; what comes next overwrites that */
                k[i] = tril_rows_at(job, task, x, key + done + (i < sides ? i * V_LANES : 0), task->head + head);
            for (int r = 0, group; r < rows; r += group) {
                group = typed ? few_rows_left(rows - r, most) : few_dots_share(rows - r);
                if (typed)
                    few_dots_by_type[x->dtype](sides, group, q + r * dims, dims, k, s + r * FEW_ROW + done, stream);
                else
                    few_dots_of(group, q + r * dims, dims, k[0].data, k[0].stride, s + r * FEW_ROW + done, stream);
            }
        }
        if (done < n) done = done / PANEL * PANEL; /* where a panel begins */
    }
    if (few_in_panels(x, rows)) done = few_panel_keys(job, task, key, n, head, q, s, stream);
    if (done == n) return;
    const struct tile_b panels = panels_of(job, task, task->head + head, key + done, n - done, ws + job->plan->k);
    for (int r = 0, group; r < rows; r += group) {
        group = tile_share(rows - r, TILE_ROWS);
        for (int j = 0, width; done + j * V_LANES < n; j += width) {
            width = tile_share((n - done + V_LANES - 1) / V_LANES - j, TILE_VECS);
            const struct tile_b b = {tile_b_at(&panels, j), panels.k_stride, panels.panel_stride};
            scores_by_vecs[width - 1](group, q + (size_t)r * (size_t)dims, (size_t)dims, &b,
                                      s + (size_t)r * FEW_ROW + done + j * V_LANES, FEW_ROW);
        }
    }
}

/* Scores of all rows against the block at `first`. */
static void few_scores(const struct tril_job *job, const struct tril_task *task, int64_t first, float *ws,
                       struct few_stream *stream)
{
    const int step = few_step(&job->call->k, job->call->qk_dim, few_rows_of(job, task));
    struct stretch part[2];
    const int parts = block_stretches(task, first, few_keys_of(task, first), part);
    COUNT_BLOCKS(parts > 0 ? task->heads : 0);
    for (int j = 0; j < parts; j++) {
        for (int i = part[j].from, end = part[j].to; i < end; i += step) {
            for (int64_t head = 0; head < task->heads; head++)
                few_keys(job, task, first + i, end - i < step ? end - i : step, head, ws, stream);
        }
    }
}

/* Up to which of the block's keys a row sees any, 0 for none. */
static int few_sees(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row,
                    int64_t first, int keys)
{
    const int64_t end = row->view.end - first;
    const int n = end < 0 ? 0 : end < keys ? (int)end : keys;
    return tril_row_sees_any(job, task, row, first, first + n) ? n : 0;
}

/* Whether a row sees the block otherwise than from its first key up to an end. */
static bool few_is_edge(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row,
                        int64_t first)
{
    const int64_t next = first + TRIL_KEY_BLOCK;
    return (row->view.begin > first && row->view.sink < next) || tril_tree_begin(job->call, task->seq) < next;
}

/* Up to which of the block's keys each row sees any, the rows' maxima and sums; scores become t, or p where `store`
 * asks. */
static void few_softmax(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row,
                        int64_t first, bool store, float *ws, int *end, float *max, float *sum)
{
    const int rows = (int)tril_task_rows(job, task), keys = few_keys_of(task, first);
    float *s = ws + job->plan->s;
    for (int r = 0; r < rows; r++, s += FEW_ROW) {
        end[r] = few_sees(job, task, &row[r], first, keys);
        if (end[r] == 0) continue;
        max[r] = few_is_edge(job, task, &row[r], first) ? row_scale_edge(job, task, &row[r], first, s, end[r])
                                                        : row_scale(job, task, &row[r], first, s, end[r]);
        sum[r] = store ? softmax_exp(true, s, end[r], max[r]) : softmax_exp(false, s, end[r], max[r]);
    }
}

#define MORE_ARGS                                                                                                      \
    const int rows, const float *p, const struct tile_b *b, size_t k, size_t end, float *o, size_t o_row,              \
        struct few_stream *stream

/* The rows of a tile from `first` on, over keys k ... end - 1. */
static ALWAYS_INLINE void few_run(const int first, const int vecs, const float *p, struct tile_b *b, size_t k,
                                  const size_t end, tile_acc acc, struct few_stream *stream)
{
    const int bytes = vecs * V_LANES * (int)sizeof(float); /* of a key */
    const size_t step = A_STEP > 1 || bytes < LINE_BYTES ? 4 : 1;
    for (size_t to; k < end; k = to) {
        to = end - k < step ? end : k + step;
        tile_section(first, vecs, p, FEW_ROW, b, k, to, acc);
        if ((k / step & stream->pauses) == 0) few_pull(stream, (int)step * bytes / LINE_BYTES);
    }
}

/* Goes on with chains that lie in o, over keys k ... end - 1; b begins at k. */
static ALWAYS_INLINE void few_more(const int vecs, MORE_ARGS)
{
    const int first = TILE_ROWS - rows;
    struct tile_b at = *b;
    tile_acc acc;
    p = TILE_BEFORE(p, (size_t)first * FEW_ROW);
    o = TILE_BEFORE(o, (size_t)first * o_row);
    tile_zero(vecs, acc);
#define DO(r)                                                                                                          \
    if (tile_has(first, r)) row_load(vecs, acc[r], o + r * o_row);
    EACH_ROW(DO)
#undef DO
#define DO(r)                                                                                                          \
    if (r < TILE_ROWS && r == first) few_run(r, vecs, p, &at, k, end, acc, stream);
    EACH_ROW(DO)
#undef DO
#define DO(r)                                                                                                          \
    if (tile_has(first, r)) row_store(vecs, acc[r], o + r * o_row);
    EACH_ROW(DO)
#undef DO
}

static NOINLINE void more_v1(MORE_ARGS)
{
    few_more(1, rows, p, b, k, end, o, o_row, stream);
}

static NOINLINE void more_v2(MORE_ARGS)
{
    few_more(2, rows, p, b, k, end, o, o_row, stream);
}

#if TILE_VECS > 2
static NOINLINE void more_v3(MORE_ARGS)
{
    few_more(3, rows, p, b, k, end, o, o_row, stream);
}

static NOINLINE void more_v4(MORE_ARGS)
{
    few_more(4, rows, p, b, k, end, o, o_row, stream);
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

/* Values as the chains read them: f32 rows, and their last columns, fewer than a vector, where a row of the host's
 * would be read past its end. */
struct few_rows {
    const float *v, *tail; /* tail: or null */
    size_t stride;         /* of v, in floats; of the tail PANEL */
    int vecs;              /* of v */
};

/* n rows of values: in place if they are f32, but for the tail; or in `to`. */
static struct few_rows few_rows(const struct tril_job *job, const struct tril_rows *from, int n, float *to)
{
    const tril_tensor *x = &job->call->v;
    const int dims = job->call->v_dim, whole = dims / V_LANES * V_LANES;
    const size_t v_row = (size_t)job->plan->v_row;
    if (x->dtype != TRIL_F32) {
        for (int i = 0; i < n; i++)
            pack_value(x->dtype, from->data + i * from->stride, dims, tril_scale_of(from, i), PANEL,
                       to + (size_t)i * v_row);
        return (struct few_rows){to, NULL, v_row, (int)v_row / V_LANES};
    }
    const float *v = (const float *)(const void *)from->data;
    const size_t stride = (size_t)from->stride / sizeof(float);
    for (int i = 0; i < n && whole < dims; i++)
        v_store(to + i * PANEL, v_load_part(v + (size_t)i * stride + whole, dims - whole));
    return (struct few_rows){v, whole < dims ? to : NULL, stride, whole / V_LANES};
}

/* The chains of n rows of one head over keys k ... end - 1 of the block, of which v begins with the first. */
static void few_chain(const struct tril_job *job, const struct few_rows v, size_t k, size_t end, int n, const float *p,
                      float *o, struct few_stream *stream)
{
    const size_t o_row = (size_t)job->plan->v_row;
    for (int j = 0, width; j < v.vecs; j += width) {
        width = tile_share(v.vecs - j, TILE_VECS);
        const struct tile_b b = {v.v + j * V_LANES, v.stride, PANEL}; /* a row's panels follow each other */
        more_by_vecs[width - 1](n, p, &b, k, end, o + j * V_LANES, o_row, stream);
    }
    if (v.tail != NULL) {
        const struct tile_b b = {v.tail, PANEL, PANEL};
        more_v1(n, p, &b, k, end, o + v.vecs * V_LANES, o_row, stream);
    }
}

/* The same values from the n-th row on. */
static struct few_rows few_rows_from(const struct few_rows v, size_t n)
{
    return (struct few_rows){v.v + n * v.stride, v.tail == NULL ? NULL : v.tail + n * PANEL, v.stride, v.vecs};
}

/* Where row i's chain ends, of those that go on to `end`. */
static size_t few_end(const int *row_end, int i, size_t end)
{
    return (size_t)row_end[i] < end ? (size_t)row_end[i] : end;
}

/* The same where rows see different numbers of keys, row_end ascending: first what all of them see. */
static void few_triangle(const struct tril_job *job, const struct few_rows v, size_t k, size_t end, const int *row_end,
                         int n, const float *p, float *o, struct few_stream *stream)
{
    const size_t least = (size_t)row_end[0] < k ? k : (size_t)row_end[0] < end ? (size_t)row_end[0] : end;
    if (least > k) few_chain(job, v, k, least, n, p, o, stream);
    const struct few_rows later = few_rows_from(v, least - k);
    for (int i = 1; i < n; i++) {
        const size_t own = few_end(row_end, i, end);
        if (own > least)
            few_chain(job, later, least, own, 1, p + (size_t)i * FEW_ROW, o + i * job->plan->v_row, stream);
    }
}

/* Every other row's value is loaded once: a core that does two fma a cycle (Zen 5) has not the loads for each of them
 * to read it anew, one that does one (Zen 4) is the better for it; see a_fma_at(). */
static ALWAYS_INLINE vf few_typed_fma(const bool once, const float *p, const va a, const vf b, const vf acc)
{
    return once ? a_fma(a, 0, b, acc) : a_fma_at(p, b, acc);
}

static ALWAYS_INLINE void few_typed_step(const bool once, const int vecs, const float *p, const vf b[MAX_VECS],
                                         vf acc[MAX_VECS])
{
    const va a = a_load1(p);
    acc[0] = few_typed_fma(once, p, a, b[0], acc[0]);
    if (vecs > 1) acc[1] = few_typed_fma(once, p, a, b[1], acc[1]);
    if (vecs > 2) acc[2] = few_typed_fma(once, p, a, b[2], acc[2]);
    if (vecs > 3) acc[3] = few_typed_fma(once, p, a, b[3], acc[3]);
}

/* few_more() on stored values: keys k ... end - 1 of the block, those from 16 * u on in from[u]; columns d ... of a
 * row, counted from the block of 32 that they lie in, as are the rows. */
static ALWAYS_INLINE void few_typed_more(const tril_dtype type, const int rows, const int real, const int vecs,
                                         const int d, const float *p, const struct tril_rows *from, const int64_t skip,
                                         size_t k, const size_t end, float *o, const size_t o_row,
                                         struct few_stream *stream)
{
    const float *last = p + (size_t)(real - 1) * FEW_ROW;
    const int bytes = 4 * (int)tril_row_bytes(type, TRIL_Q_BLOCK) * vecs * V_LANES / TRIL_Q_BLOCK; /* of four keys */
    const int lines = (bytes + LINE_BYTES - 1) / LINE_BYTES;
    tile_acc acc;
#define DO(r)                                                                                                          \
    if (r < rows) row_load(vecs, acc[r], o + few_twice(r, rows, real) * o_row);
    EACH_ROW(DO)
#undef DO
    while (k < end) {
        const struct tril_rows *x = &from[k / PANEL];
        const char *row = x->data + (int64_t)(k % PANEL) * x->stride + skip;
        const char *scales = type == TRIL_I8 ? x->scales + (int64_t)(k % PANEL) * x->scale_stride : NULL;
        const size_t whole = (k / PANEL + 1) * PANEL, stop = whole < end ? whole : end;
        for (; k < stop; k++, row += x->stride) {
            vf b[MAX_VECS];
            const vf scale = type == TRIL_I8 ? v_set1(tril_load_f32(scales)) : v_zero();
            if (type == TRIL_I8) scales += x->scale_stride;
            b[0] = load_vec(type, row, d, scale);
            if (vecs > 1) b[1] = load_vec(type, row, d + V_LANES, scale);
            if (vecs > 2) b[2] = load_vec(type, row, d + 2 * V_LANES, scale);
            if (vecs > 3) b[3] = load_vec(type, row, d + 3 * V_LANES, scale);
#define DO(r)                                                                                                          \
    if (r < rows) few_typed_step(r % 2 == 0, vecs, r == rows - 1 ? last + k : p + r * FEW_ROW + k, b, acc[r]);
            EACH_ROW(DO)
#undef DO
            if (lines % 4 == 0)
                few_pull(stream, lines / 4);
            else if (k % 4 == 3)
                few_pull(stream, lines);
        }
    }
#define DO(r)                                                                                                          \
    if (r < rows) row_store(vecs, acc[r], o + few_twice(r, rows, real) * o_row);
    EACH_ROW(DO)
#undef DO
}

#define TYPED_MORE_ARGS                                                                                                \
    const int rows, const int vecs, const int d, const float *p, const struct tril_rows *from, const int64_t skip,     \
        const size_t k, const size_t end, float *o, const size_t o_row, struct few_stream *stream
#define TYPED_MORE(name, type)                                                                                         \
    static NOINLINE void few_more_##name(TYPED_MORE_ARGS)                                                              \
    {                                                                                                                  \
        if (TILE_VECS * V_LANES == 64 && vecs == 2)                                                                    \
            BY_ROWS(few_typed_more, type, rows, 2, 0, p, from, skip, k, end, o, o_row, stream);                        \
        else if (TILE_VECS * V_LANES >= TRIL_Q_BLOCK || (type != TRIL_Q8_0 && type != TRIL_Q4_0) || d == 0)            \
            BY_ROWS(few_typed_more, type, rows, TILE_VECS, 0, p, from, skip, k, end, o, o_row, stream);                \
        else                                                                                                           \
            BY_ROWS(few_typed_more, type, rows, TILE_VECS, TILE_VECS *V_LANES == 16 ? 16 : d, p, from, skip, k, end,   \
                    o, o_row, stream);                                                                                 \
    }
TYPED_MORE(f16, TRIL_F16)
TYPED_MORE(bf16, TRIL_BF16)
TYPED_MORE(i8, TRIL_I8)
TYPED_MORE(q8_0, TRIL_Q8_0)
TYPED_MORE(q4_0, TRIL_Q4_0)
#undef TYPED_MORE

static void (*const few_more_by_type[TRIL_DTYPE_COUNT])(TYPED_MORE_ARGS) = {
    [TRIL_F16] = few_more_f16,   [TRIL_BF16] = few_more_bf16, [TRIL_I8] = few_more_i8,
    [TRIL_Q8_0] = few_more_q8_0, [TRIL_Q4_0] = few_more_q4_0,
};

/* few_chain() on stored values, whole blocks of columns. */
static void few_typed_chain(const struct tril_job *job, const struct tril_rows *from, size_t k, size_t end, int n,
                            const float *p, float *o, struct few_stream *stream)
{
    const tril_dtype type = job->call->v.dtype;
    const int dims = job->call->v_dim, block = type == TRIL_Q8_0 || type == TRIL_Q4_0 ? TRIL_Q_BLOCK : 1;
    for (int c = 0, vecs; c < dims; c += vecs * V_LANES) {
        vecs = dims - c >= TILE_VECS * V_LANES ? TILE_VECS : (dims - c) / V_LANES;
        few_more_by_type[type](n, vecs, c % block, p, from, tril_row_bytes(type, c - c % block), k, end, o + c,
                               (size_t)job->plan->v_row, stream);
    }
}

static void few_typed_triangle(const struct tril_job *job, const struct tril_rows *from, size_t k, size_t end,
                               const int *row_end, int n, const float *p, float *o, struct few_stream *stream)
{
    const size_t least = (size_t)row_end[0] < k ? k : (size_t)row_end[0] < end ? (size_t)row_end[0] : end;
    if (least > k) few_typed_chain(job, from, k, least, n, p, o, stream);
    for (int i = 1; i < n; i++) {
        const size_t own = few_end(row_end, i, end);
        if (own > least)
            few_typed_chain(job, from, least, own, 1, p + (size_t)i * FEW_ROW, o + i * job->plan->v_row, stream);
    }
}

/* The chains of rows that see the block in part, over n keys from position `key` on: of stored values, or, where those
 * are null, of v. */
static NOINLINE void few_patches(const struct tril_job *job, const struct tril_task *task,
                                 const struct tril_task_row *row, int rows, int64_t key, int n,
                                 const struct tril_rows *stored, const struct few_rows *v, const float *p, float *o,
                                 struct few_stream *stream)
{
    const size_t at = (size_t)(key % TRIL_KEY_BLOCK);
    uint8_t seen[TRIL_KEY_BLOCK];
    rows_seeing(job, task, row, rows, key, n, seen);
    for (struct patch patch = {0}; next_patch(seen, n, rows, &patch);) {
        const size_t from = (size_t)patch.from, to = (size_t)patch.to;
        const float *patch_p = p + (size_t)patch.row * FEW_ROW;
        float *patch_o = o + patch.row * job->plan->v_row;
        if (stored != NULL)
            few_typed_chain(job, stored, at + from, at + to, patch.rows, patch_p, patch_o, stream);
        else
            few_chain(job, few_rows_from(*v, from), at + from, at + to, patch.rows, patch_p, patch_o, stream);
    }
}

/* n keys from position `key` on, of one head, on all its rows. */
static void few_typed_values(const struct tril_job *job, const struct tril_task *task,
                             const struct tril_task_row *rows_of, int64_t key, int n, int64_t head, const int *row_end,
                             bool edge, float *ws, struct few_stream *stream)
{
    const int rows = few_rows_of(job, task), at = (int)(key % TRIL_KEY_BLOCK);
    const size_t row = (size_t)(head * rows);
    struct tril_rows from[TRIL_KEY_BLOCK / PANEL];
    for (int i = 0; i < n; i += PANEL)
        from[(at + i) / PANEL] = tril_rows_at(job, task, &job->call->v, key + i, task->head + head);
    for (int r = 0; r < rows; r += FEW_TYPED_ROWS) {
        const float *p = ws + job->plan->s + (row + (size_t)r) * FEW_ROW;
        float *o = ws + job->plan->block_o + (row + (size_t)r) * (size_t)job->plan->v_row;
        const int group = few_rows_left(rows - r, FEW_TYPED_ROWS);
        if (edge)
            few_patches(job, task, rows_of + row + r, group, key, n, from, NULL, p, o, stream);
        else
            few_typed_triangle(job, from, (size_t)at, (size_t)(at + n), row_end + row + r, group, p, o, stream);
    }
}

/* One head's values, n of them from position `key` on, all rows. */
static void few_head_values(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row,
                            int64_t key, int n, int64_t head, const int *row_end, bool edge, float *ws,
                            struct few_stream *stream)
{
    const int rows = few_rows_of(job, task);
    for (int i = 0, run; i < n; i += run) {
        const struct tril_rows from = tril_rows_at(job, task, &job->call->v, key + i, task->head + head);
        run = tril_keys_together(job, key + i, n - i);
        const struct few_rows v = few_rows(job, &from, run, ws + job->plan->v);
        const size_t k = (size_t)((key + i) % TRIL_KEY_BLOCK);
        for (int r = 0, group; r < rows; r += group) {
            const size_t at = (size_t)(head * rows + r);
            const float *p = ws + job->plan->s + at * FEW_ROW;
            float *o = ws + job->plan->block_o + at * (size_t)job->plan->v_row;
            group = tile_share(rows - r, TILE_ROWS);
            if (edge)
                few_patches(job, task, row + at, group, key + i, run, NULL, &v, p, o, stream);
            else
                few_triangle(job, v, k, k + (size_t)run, row_end + at, group, p, o, stream);
        }
    }
}

/* block_o = the chains of the block's weights times its values. */
static void few_values(const struct tril_job *job, const struct tril_task *task, const struct tril_task_row *row,
                       int64_t first, const int *row_end, float *ws, struct few_stream *stream)
{
    const tril_tensor *x = &job->call->v;
    const int rows = few_rows_of(job, task), step = few_step(x, job->call->v_dim, rows);
    const bool typed = few_is_typed(x, job->call->v_dim, rows);
    struct few_stream none = {.budget = 0};
    bool edge = false;
    for (int r = 0; r < rows; r++)
        edge |= few_is_edge(job, task, &row[r], first);
    memset(ws + job->plan->block_o, 0, (size_t)(task->heads * rows * job->plan->v_row) * sizeof(float));
    struct stretch part[2];
    for (int j = 0, parts = block_stretches(task, first, few_keys_of(task, first), part); j < parts; j++) {
        for (int k = part[j].from; k < part[j].to; k += step) {
            const int n = part[j].to - k < step ? part[j].to - k : step;
            for (int64_t head = 0; head < task->heads; head++) {
                few_budget(stream, job, task, few_share(x, job->call->v_dim, task, head, n));
                if (typed)
                    few_typed_values(job, task, row, first + k, n, head, row_end, edge, ws, stream);
                else
                    few_head_values(job, task, row, first + k, n, head, row_end, edge, ws,
                                    stream->far ? &none : stream);
            }
        }
    }
}

#endif
