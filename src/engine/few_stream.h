/* Few rows: what is asked of memory, and when. */
#ifndef TRIL_ENGINE_FEW_STREAM_H
#define TRIL_ENGINE_FEW_STREAM_H

#include "few_kinds.h"

/* Lines that are asked for before use where a step of all heads has less: memory takes 100 ns, in which a core
 * reads 50. In strands more than that are asked for, in an order of their own. */
#define FEW_LEAST_AHEAD 256
#ifdef TRIL_TELL_SOURCE
#define FEW_STRANDED_AHEAD 64 /* tests are short */
#else
#define FEW_STRANDED_AHEAD 1024
#endif

/* In vectors of a whole line P V of f32 takes a line of values in a third of the time that memory takes for one: asked
 * for at that rate, requests are dropped for want of room. Where keys and values come from memory, they are asked for
 * behind each head's arithmetic instead, one after the other. With more rows of a head than these there is arithmetic
 * enough. */
#define FEW_FAR_ROWS 14

static int few_keys_of(const struct tril_task *task, int64_t first)
{
    return task->keys - first < TRIL_KEY_BLOCK ? (int)(task->keys - first) : TRIL_KEY_BLOCK;
}

/* An Intel core reads on by itself through what is asked for in sequence, and memory gives more to several sequences at
 * once than to one. So keys and values are asked for by units, each in one piece of memory: a page of the host's, or as
 * much of what lies together as a step allows. A unit is FEW_STRANDS strands, which take turns:
 *
 *   combed       two lines of each strand, then two of each of another unit's, then the next two of the first one's ...
 *   otherwise    FEW_PIECE lines of one strand, then of the next one
 *
 * Narrow vectors are not combed: they ask for fewer lines at a time. */
#define FEW_STRANDS 4
#define FEW_PIECE   (2 * FEW_STRANDS)
#define FEW_COMBS   (V_LANES == PANEL)

/* What lies in one piece: tokens, 1 or 16, and lines. See few_run_of(). */
struct few_run {
    int tokens, lines;
};

/* The task's keys and values in the order of memory: block by block its keys, token by token the rows of all heads,
 * then its values. Memory is asked for in this order, as much ahead of use as a step of all heads takes, and evenly
 * between the arithmetic: a core has room for some 20 requests, and stands still when asked for more at once. */
struct few_stream {
    const char *p;    /* next line */
    const char *idle; /* lines in the cache, asked for where there are no others to ask for */
    int64_t step;     /* from two lines that lie together to the next two: of another strand, or those behind them */
    int left;         /* lines until few_turn() */
    int run;          /* from one to the next: a piece, or what a token's heads have in a row */
    int64_t gap;      /* bytes that are left out there */
    int budget;       /* lines that the work at hand may ask for */
    bool lower;       /* into the second level: see few_ask() */
    bool combed;      /* see above */
    /* Keys of f32: each line is asked for when the count of the one before is stored, three for every four that are
     * read, the rest behind the arithmetic and slower yet. Memory drops requests that come faster. */
    bool singly;
    bool far; /* values are not asked for between their arithmetic, but behind it: see FEW_FAR_ROWS */
    bool dry; /* no keys are asked for behind their arithmetic: the processor finds panels in a cache by itself */
    unsigned pauses; /* several tiles of rows take the same values: behind which of their steps none are asked for */
    struct few_run of_keys, of_values;
    int64_t ahead;       /* lines that are asked for before use: a step of all heads, or more */
    int64_t owed;        /* lines that the work at hand has been promised but that lie behind the window */
    int64_t window_left; /* lines of the units at hand, or of the block, behind the budget */
    int64_t block_left;  /* lines of this block's keys, or of its values, behind the budget */
    int64_t first;       /* the block's first key */
    bool values, over;
    int key_step, value_step; /* keys of one head, and values, before the next head's turn */
    int key_heads;            /* heads whose keys are taken side by side */
    /* Pages: runs until the next page, and of a whole one; where its number stands; what numbers count from. */
    int64_t runs, of_page;
    const int32_t *page;
    const char *base;
    int64_t page_stride;
    /* Units: lines of one, 0 for no strands; units until the next page, and of a whole one; where the next one is. */
    int64_t unit, units, units_of_page;
    const char *unit_next;
    const char *piece[FEW_STRANDS]; /* those that take turns; hop: from one to the next of the same strand or unit */
    int64_t hop;
    unsigned turn, turns; /* whose it is next; turns: the last one's number, which is all ones */
    bool memory;          /* SOURCE_FAR: keys and values come from memory */
};

/* Bytes of one row, or, in panels, of 16. */
static int64_t few_row_bytes(const tril_tensor *x, int dims)
{
    return tril_row_bytes(x->dtype, dims) * (x->layout == TRIL_PANELS ? PANEL : 1);
}

/* The rows of all heads of one token, or of 16 in panels and where tokens follow each other without a gap. */
static struct few_run few_run_of(const tril_tensor *x, int dims, int64_t heads)
{
    const int64_t token = (heads - 1) * x->head_stride + few_row_bytes(x, dims);
    const int tokens = x->layout == TRIL_PANELS || x->token_stride - token < LINE_BYTES ? PANEL : 1;
    const int64_t bytes = token + (x->layout == TRIL_ROWS ? (tokens - 1) * x->token_stride : 0);
    return (struct few_run){tokens, (int)((bytes + LINE_BYTES - 1) / LINE_BYTES)};
}

/* The heads' share of the lines of n tokens. */
static ALWAYS_INLINE int64_t few_share(const struct few_run *run, const struct tril_task *task, int64_t head,
                                       int64_t n_heads, int n)
{
    const int runs = run->tokens == 1 ? n : (n + PANEL - 1) / PANEL;
    const unsigned heads = (unsigned)task->heads, lines = (unsigned)run->lines * (unsigned)runs;
    if (heads == 1) return lines;
    const int64_t more = (int64_t)(lines % heads) - head; /* this one's and the next ones' are one longer */
    return lines / heads * n_heads + (more < 0 ? 0 : more < n_heads ? more : n_heads);
}

/* Shorter units, strands of less than 4 KiB, are slower than all in sequence. */
#ifdef TRIL_TELL_SOURCE
#define FEW_LEAST_UNIT (FEW_STRANDS * FEW_PIECE)
#else
#define FEW_LEAST_UNIT 256
#endif

/* Whether kernels take two, four or eight lines at a time and never one or three. */
static bool few_combs(const struct tril_job *job)
{
    return FEW_COMBS && job->call->v_dim % (TILE_VECS * V_LANES) == 0;
}

/* What is asked for together, one unit or two, is no more than what is asked for before it is needed: it may come in
 * whatever order. page: lines of a page; at: how many of them are in front of the first. */
static void few_units(struct few_stream *s, int64_t page, int64_t at)
{
    const int64_t most = FEW_COMBS && s->combed ? s->ahead / 2 : s->ahead, unit = most < page ? most : page;
    if (unit < FEW_LEAST_UNIT || unit % (FEW_STRANDS * FEW_PIECE) != 0 || at % unit != 0) return;
    if (page < INT64_MAX && page % unit != 0) return;
    s->unit = unit;
    s->units_of_page = page / unit;
    s->units = s->units_of_page - at / unit;
    s->unit_next = s->p;
}

static const char *few_next_unit(struct few_stream *s)
{
    const char *at = s->unit_next;
    s->unit_next += s->unit * LINE_BYTES;
    if (--s->units > 0) return at;
    s->units = s->units_of_page;
    s->unit_next = s->base + *++s->page * s->page_stride;
    return at;
}

static ALWAYS_INLINE void few_next_piece(struct few_stream *s)
{
    s->p = s->piece[s->turn];
    s->piece[s->turn] += s->hop;
    s->turn = (s->turn + 1) & s->turns;
}

/* A window: the next unit, or two, or, in sequence, what the block has left. */
static void few_next_window(struct few_stream *s)
{
    const int64_t strand = s->unit / FEW_STRANDS * LINE_BYTES;
    const bool combed = FEW_COMBS && s->combed, both = combed && s->block_left >= 2 * s->unit;
    s->step = 2 * LINE_BYTES;
    if (s->block_left < s->unit) {
        s->unit = 0;
        s->window_left = s->block_left;
        s->run = (int)s->block_left;
        s->p = s->unit_next;
        return;
    }
    s->window_left = both ? 2 * s->unit : s->unit;
    s->run = FEW_PIECE;
    s->turn = 0;
    s->piece[0] = few_next_unit(s);
    if (combed) {
        if (both) s->piece[1] = few_next_unit(s);
        s->step = strand;
        s->hop = 2 * LINE_BYTES;
        s->turns = both;
    } else {
        for (int i = 1; i < FEW_STRANDS; i++)
            s->piece[i] = s->piece[i - 1] + strand;
        s->hop = FEW_PIECE * LINE_BYTES;
        s->turns = FEW_STRANDS - 1;
    }
    few_next_piece(s);
}

/* The keys or the values of the block at s->first. */
static void few_stream_block(struct few_stream *s, const struct tril_job *job, const struct tril_task *task)
{
    const tril_tensor *x = s->values ? &job->call->v : &job->call->k;
    struct stretch part[2];
    const int parts = block_stretches(task, s->first, few_keys_of(task, s->first), part);
    const int64_t first = s->first + (parts > 0 ? part[0].from : 0);
    int keys = 0;
    for (int i = 0; i < parts; i++)
        keys += part[i].to - part[i].from;
    const struct few_run *run = s->values ? &s->of_values : &s->of_keys;
    const int tokens = run->tokens, lines = run->lines;
    const int64_t page = job->call->block_tokens;
    s->p = rows_from(job, task, x, first, task->head).data;
    s->left = s->run = lines;
    s->gap = tokens * x->token_stride - lines * LINE_BYTES;
    s->unit = 0;
    s->step = 2 * LINE_BYTES;
    s->block_left = (int64_t)(tokens == 1 ? keys : (keys + PANEL - 1) / PANEL) * lines;
    if (s->gap == 0 && page == 0) s->left = s->run = (int)s->block_left; /* no gap at all */
    s->window_left = s->block_left;
    s->runs = s->of_page = INT64_MAX;
    int64_t page_lines = INT64_MAX, before = 0;
    if (page > 0) {
        const int64_t at = first / page;
        s->page = job->pages + task->pages + at;
        s->base = tril_row(x, 0, task->head);
        s->page_stride = x->block_stride;
        s->of_page = page / tokens;
        before = (first - at * page) / tokens;
        s->runs = s->of_page - before;
        page_lines = s->of_page * lines;
    }
    if (s->gap != 0 || !s->lower) return;
    if (page == 0 && !s->memory) return;
    few_units(s, page_lines, before * lines);
    if (s->unit > 0) s->window_left = 0;
}

/* Called between arithmetic, but seldom. gcc knows that vectors survive such a call (-fipa-ra), clang does not. */
#if defined __OPTIMIZE__ && !defined __clang__ && (defined __x86_64__ || defined __i386__)
#define FEW_ASIDE NOINLINE
#else
#define FEW_ASIDE ALWAYS_INLINE
#endif

/* Behind a run's end: the next one's first line. What was asked for past the end does not count. */
static FEW_ASIDE void few_turn(struct few_stream *s)
{
    s->budget -= s->left;
    if (s->unit > 0) {
        s->left = s->run;
        few_next_piece(s);
        return;
    }
    s->p += s->gap + (int64_t)s->left * LINE_BYTES;
    s->left = s->run;
    if (--s->runs > 0) return;
    s->p = s->base + *++s->page * s->page_stride;
    s->runs = s->of_page;
}

/* Into the first level, although that keeps only what comes soon: a core drops what is asked for into a lower one when
 * it has no room for the request (Zen 5), and the arithmetic then waits for memory. But Intel's cores have 16 places
 * for what the first level has missed, each taken until the line is there, and 48 behind the second, into which lines
 * come 1.05 to 1.2 times as fast. */
static ALWAYS_INLINE void few_ask(const bool lower, const char *p)
{
    if (__builtin_expect(lower, 0))
        __builtin_prefetch(p, 0, 2);
    else
        __builtin_prefetch(p, 0, 3);
}

/* n lines, or none where fewer are allowed. Called with few of them and often: a burst finds no room either. wide: not
 * bytes, which are never asked for into a lower level. */
static ALWAYS_INLINE void few_pull_as(const bool wide, struct few_stream *s, const int n)
{
    __asm__("" : "+m"(*s)); /* in memory: registers are for the arithmetic */
    if (s->budget < n) return;
    s->budget -= n;
    if (wide && __builtin_expect(s->lower, 0)) {
        UNROLL
        for (int i = 0; i < n; i++)
            few_ask(true, s->p + i * LINE_BYTES);
    } else {
        UNROLL
        for (int i = 0; i < n; i++)
            few_ask(false, s->p + i * LINE_BYTES);
    }
    s->p += !FEW_COMBS || !wide || n > 1 ? n * LINE_BYTES : s->left % 2 == 0 ? LINE_BYTES : s->step - LINE_BYTES;
    s->left -= n;
    if (__builtin_expect(s->left <= 0, 0)) few_turn(s);
}

static ALWAYS_INLINE void few_pull(struct few_stream *s, const int n)
{
    few_pull_as(true, s, n);
}

/* Narrow vectors, whose requests are not one by one enough for an Intel core to read on by itself: each of its pages is
 * touched, by its first line, this far in front of the requests. Otherwise it finds out where a page is when that line
 * is asked for, and whatever comes behind waits for it. */
#define FEW_TOUCHES     (V_LANES < PANEL)
#define FEW_TOUCH_AHEAD 8192
#define FEW_PAGE_BYTES  4096

/* For what the work at hand may ask for. */
static void few_touch(const struct few_stream *s)
{
    const uintptr_t begin = (uintptr_t)s->p + FEW_TOUCH_AHEAD, end = begin + (uintptr_t)s->budget * LINE_BYTES;
    for (uintptr_t at = (begin + FEW_PAGE_BYTES - 1) / FEW_PAGE_BYTES * FEW_PAGE_BYTES; at < end; at += FEW_PAGE_BYTES)
        few_ask(true, (const char *)at);
}

/* n lines without asking for them, where all are in sequence. */
static void few_pass(struct few_stream *s, int n)
{
    s->budget -= n;
    s->p += n * LINE_BYTES;
    s->left -= n;
    if (s->left <= 0) few_turn(s);
}

/* The same of all that are left. */
static void few_leave(struct few_stream *s)
{
    while (s->budget > 0)
        few_pass(s, s->budget < s->left ? s->budget : s->left);
}

/* Asks for what is left. */
static void few_settle(struct few_stream *s)
{
    int one = 1;
    __asm__("" : "+r"(one));
    while (s->singly && s->budget > 0) {
        few_pull(s, 1);
        s->budget *= one; /* for the time that it takes */
    }
    if (s->dry) few_leave(s);
    while (!s->lower && s->budget > 0) /* what a short call spends its time on */
        few_pull_as(false, s, 1);
    while (s->budget > 0)
        few_pull(s, 1);
}

/* Allows so many lines to what comes now. */
static NOINLINE void few_allow(struct few_stream *s, const struct tril_job *job, const struct tril_task *task,
                               int64_t lines)
{
    lines += s->owed;
    if (s->block_left == 0 && !s->over) {
        if (s->values || job->weights != NULL) s->first = tril_next_block(task, s->first);
        s->values = !s->values && job->weights == NULL;
        s->over = s->first >= task->keys;
        if (!s->over) few_stream_block(s, job, task);
    }
    if (s->window_left == 0 && s->block_left > 0) {
        few_next_window(s);
        s->left = s->run;
    }
    s->budget = (int)(s->over ? 0 : lines < s->window_left ? lines : s->window_left);
    s->window_left -= s->budget;
    s->block_left -= s->budget;
    s->owed = s->over ? 0 : lines - s->budget;
    if (FEW_TOUCHES && s->lower && s->gap == 0 && s->unit == 0) few_touch(s);
}

/* Asks for what is left of the work before, and allows as much to n keys or values of the heads as they are themselves.
 */
static void few_budget(struct few_stream *s, const struct tril_job *job, const struct tril_task *task, int64_t head,
                       int64_t heads, const struct few_run *run, int n)
{
    few_settle(s);
    if (!s->over) few_allow(s, job, task, few_share(run, task, head, heads, n));
}

/* What is in a cache the processor finds by itself. Of more bytes than these some may be elsewhere, which a look at a
 * few keys does not tell: then they are asked for all the same, but for keys in panels. */
#define FEW_FOUND_BYTES ((int64_t)12 << 20)

/* The first keys of so few are read at once. Asking for them takes a fifth of such a call, and saves it 3 to 5 % if
 * they come from memory. Seen on Intel's cores alone. */
#define FEW_BRIEF_BYTES ((int64_t)16 << 10)

/* Lines that a transposition in registers takes: V_LANES keys x V_LANES floats or pairs of halves. Bytes take less. */
#define SQUARE_LINES (V_LANES * V_LANES * (int)sizeof(float) / LINE_BYTES)

/* How many of them are taken at once. */
#define FEW_TAKE_LINES (SQUARE_LINES < FEW_PIECE ? SQUARE_LINES : FEW_PIECE)
#define FEW_TAKES      (SQUARE_LINES / FEW_TAKE_LINES)

/* Whether a step should be one page if pages come from memory: to take one head through several of them before the
 * others have had their turn in the first costs a fifth of the memory's speed, whatever is asked for. */
static bool few_by_page(const struct tril_job *job)
{
    return job->call->block_tokens > 0 && few_is_wide(&job->call->v);
}

/* Whether so many bytes may come from memory, where nobody asks. Steps of a page gain 3 to 13 % then, and lose 3 % from
 * the shared cache (AVX2 on Zen 3). */
#define FEW_BLIND_BYTES ((int64_t)1 << 20)

static bool few_blind(const struct few_stream *s, enum source source, int64_t bytes)
{
    return FEW_HALF_LINES && source == SOURCE_UNKNOWN && !s->lower && bytes >= FEW_BLIND_BYTES;
}

static void few_step_shorter(struct few_stream *s, int most, int at_once)
{
    const int keys = most < at_once ? at_once : most;
    if (keys < s->key_step) s->key_step = keys;
    if (most < s->value_step) s->value_step = most;
}

/* Longer steps spare the values' chains loads and stores, but heads take turns over so many bytes: from more a
 * processor has to look up its pages again for each of them. */
#define FEW_TURN_BYTES ((int64_t)128 << 10)

static void few_step_longer(struct few_stream *s, int64_t token_stride)
{
    const int64_t fit = token_stride > 0 ? FEW_TURN_BYTES / token_stride / PANEL * PANEL : 0; /* 0: one key */
    if (fit > s->value_step) s->value_step = fit < TRIL_KEY_BLOCK ? (int)fit : TRIL_KEY_BLOCK;
}

/* idle: SQUARE_LINES lines that will be in the cache. */
static void few_open(struct few_stream *s, const struct tril_job *job, const struct tril_task *task, const float *idle)
{
    const tril_tensor *k = &job->call->k, *v = &job->call->v;
    const int dims = job->call->qk_dim, rows = few_rows_of(job, task);
    const bool panels = k->layout == TRIL_PANELS;
    const enum source source = source_of(job, task);
    *s = (struct few_stream){.first = task->first};
    s->key_heads = few_by_two(k, dims, rows, source) ? 2 : 1;
    s->key_step = few_step(k, dims, rows);
    s->value_step = few_step(v, job->call->v_dim, rows);
    const int64_t bytes = (task->keys - task->first) * task->heads * source_row_bytes(job);
    s->lower = few_is_wide(k) && (job->weights != NULL || few_is_wide(v)) && asks_lower(job, bytes);
    s->combed = s->lower && few_combs(job);
    s->memory = source == SOURCE_FAR;
    if ((source >= SOURCE_BOTH || few_blind(s, source, bytes)) && few_by_page(job) && !s->combed)
        few_step_shorter(s, (int)job->call->block_tokens, few_at_once(k, dims, rows));
    if (s->lower && !FEW_TOUCHES) few_step_shorter(s, FEW_STEP, few_at_once(k, dims, rows)); /* 64 KiB, not 128 */
    s->far = !s->lower && source >= SOURCE_BOTH && v->dtype == TRIL_F32 && rows <= FEW_FAR_ROWS;
    s->singly = s->far && source >= SOURCE_MEMORY && k->dtype == TRIL_F32 && !panels && rows <= FEW_SINGLE_ROWS;
    s->dry = source == SOURCE_CACHE && panels && !s->lower;
    s->idle = (const char *)idle;
    if (source == SOURCE_CACHE && bytes < FEW_FOUND_BYTES) {
        s->over = true;
        if (few_reads_values(v, job->call->v_dim, rows)) few_step_longer(s, v->token_stride);
        return;
    }
    while (2 * (int)(s->pauses + 1) <= tile_count(rows, TILE_ROWS))
        s->pauses = 2 * s->pauses + 1;
    s->of_keys = few_run_of(k, dims, task->heads);
    if (job->weights == NULL) s->of_values = few_run_of(v, job->call->v_dim, task->heads);
    s->ahead = s->lower && s->memory ? FEW_STRANDED_AHEAD : FEW_LEAST_AHEAD;
    const int64_t of_step = (int64_t)s->of_keys.lines * (s->of_keys.tokens == 1 ? s->key_step : s->key_step / PANEL);
    if (of_step > s->ahead) s->ahead = of_step;
    few_stream_block(s, job, task);
    few_allow(s, job, task, s->ahead);
    if (job->asks_lower && bytes <= FEW_BRIEF_BYTES) few_leave(s);
    few_settle(s);
}

/* Where a token's rows are fewer lines than a kernel takes at once: what one of n calls may ask for, before it. */
static void few_pull_short(struct few_stream *s, int n)
{
    if (s->run >= FEW_TAKE_LINES) return;
    for (int left = s->budget / n; left > 0; left--)
        few_pull(s, 1);
}

/* Lines that are asked for one by one between arithmetic: into the first level from `near`, into the second from `far`.
 * One of the two are idle lines, which costs less than a branch at every request. A call returns both in registers. */
struct few_two {
    const char *near, *far;
};

struct few_lines {
    struct few_two at;
    int64_t step; /* from two far ones to the next two */
};

/* n lines, SQUARE_LINES at most, for the arithmetic at hand to ask for; idle ones where fewer are allowed. */
static ALWAYS_INLINE struct few_lines few_take(struct few_stream *s, const int n)
{
    __asm__("" : "+m"(*s));
    const char *taken = s->idle;
    int64_t step = 0;
    if (s->budget >= n && s->run >= n) {
        taken = s->p;
        step = s->step;
        s->budget -= n;
        s->p += FEW_COMBS && n % 2 == 0 ? n / 2 * step : n * LINE_BYTES;
        s->left -= n;
        if (__builtin_expect(s->left <= 0, 0)) few_turn(s);
    }
    return s->lower ? (struct few_lines){{s->idle, taken}, step} : (struct few_lines){{taken, s->idle}, 0};
}

static FEW_ASIDE struct few_two few_take_two(struct few_stream *s)
{
    return few_take(s, FEW_TAKE_LINES).at;
}

/* As many as a transposition takes at once. */
static ALWAYS_INLINE struct few_lines few_take_more(struct few_stream *s)
{
    const struct few_two at = few_take_two(s);
    return (struct few_lines){at, at.far == s->idle ? 0 : s->step};
}

static ALWAYS_INLINE struct few_lines few_idle(const struct few_stream *s)
{
    return (struct few_lines){{s->idle, s->idle}, 0};
}

/* gcc 12 puts all requests of a transposition in front of the arithmetic between which they belong. */
#ifndef V_BEHIND
#define V_BEHIND(p, v) ((void)(v))
#endif
#ifndef V_HERE
#define V_HERE(v) ((void)(v))
#endif

/* Behind part u of n of the arithmetic: its share of the lines. An Intel core sees a sequence, and reads on by itself,
 * if requests come one at a time. wide: see few_pull_as(). */
static ALWAYS_INLINE void few_ask_share(const bool wide, struct few_lines *taken, vf *behind, const int lines,
                                        const int u, const int n)
{
    V_BEHIND(taken->at.near, *behind);
    if (wide && V_LOWER) V_BEHIND(taken->at.far, *behind);
    UNROLL
    for (int i = lines * u / n; i < lines * (u + 1) / n; i++) {
        few_ask(false, taken->at.near + i * LINE_BYTES);
        if (!wide || !V_LOWER) continue;
        few_ask(true, taken->at.far + (FEW_COMBS ? i % 2 : i) * LINE_BYTES);
        if (FEW_COMBS && i % 2 != 0) taken->at.far += taken->step;
    }
}

#endif
