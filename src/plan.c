#include "plan.h"

#include <string.h>

#include "formats.h"
#include "team.h"

/* Tasks of a team are cut down to this many rows before their keys are split: below it packing a block of keys would
 * cost more than a tenth of the work on it. */
#define MIN_ROWS 48
/* How many classes of task sizes a team's walk tells apart, each half of the one before. */
#define LEVELS 4
/* How much longer few rows take for a key than as many of a whole tile: they wait for memory. Four rows a head took 4
 * (f16) and 7 (f32) times as long on an Intel core: a prompt of 2048, a new token over 32768 keys. */
#define FEW_COST 4

static int64_t min_of(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t max_of(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* n >= 0. Without a division where one will do: a call of one token has seen nine of them. */
static int64_t ceil_div(int64_t n, int64_t by)
{
    return n <= by ? n > 0 : (n - 1) / by + 1;
}

static int64_t round_up(int64_t n, int64_t to)
{
    return ceil_div(n, to) * to;
}

/* sum + a * b, or all that there is: then tasks are large. */
static int64_t add_product(int64_t sum, int64_t a, int64_t b)
{
    int64_t product;
    return __builtin_mul_overflow(a, b, &product) || __builtin_add_overflow(sum, product, &sum) ? INT64_MAX : sum;
}

static int log2_of(int64_t n)
{
    int log = 0;
    while ((n >>= 1) > 0)
        log++;
    return log;
}

static int gcd(int a, int b)
{
    while (b != 0) {
        const int r = a % b;
        a = b;
        b = r;
    }
    return a;
}

/* The sum of 0 ... n - 1, without overflow where the result fits. */
static int64_t triangle(int64_t n)
{
    return n % 2 == 0 ? n / 2 * (n - 1) : (n - 1) / 2 * n;
}

int64_t tril_packed_offset(const tril_attention *call, const tril_seq *seq, int64_t i)
{
    if (call->tree != NULL) return i * seq->kv_len;
    const int64_t before = seq->kv_len - seq->q_len; /* keys before the first query */
    const int64_t blind = before < 0 ? -before : 0;  /* queries that see no key */
    if (i <= blind) return 0;
    const int64_t rows = i - blind, position = before + blind; /* of the first of them */
    int64_t columns = rows * (position + 1) + triangle(rows);
    const int64_t inside = min_of(rows, seq->prefix - position); /* rows in the prefix, which have all of it */
    if (inside > 0) columns += inside * (seq->prefix - position - 1) - triangle(inside);
    return columns;
}

/* Which of the unit's blocks none of its queries sees: the first ones, or a gap behind the sinks. */
static void leave_out(const tril_attention *call, struct tril_task *unit)
{
    const int64_t last = unit->query + unit->queries - 1, begin = unit->unit_first;
    unit->sink = tril_view_of(call, unit->seq, last).sink;
    unit->begin = tril_view_of(call, unit->seq, unit->query).begin;
    const int64_t gap_end = min_of(unit->begin / TRIL_KEY_BLOCK * TRIL_KEY_BLOCK,
                                   begin + round_up(unit->unit_keys - begin, TRIL_KEY_BLOCK));
    const int64_t gap = max_of(round_up(unit->sink, TRIL_KEY_BLOCK), begin);
    if (gap >= gap_end) return;
    if (gap == begin) {
        unit->unit_first = gap_end;
        unit->unit_keys = max_of(unit->unit_keys, gap_end);
    } else if (gap_end >= unit->unit_keys) {
        unit->unit_keys = gap;
    } else {
        unit->gap = gap;
        unit->gap_end = gap_end;
    }
}

/* The keys that the unit's queries see. */
static void look(const tril_attention *call, struct tril_task *unit)
{
    const tril_seq *seq = unit->seq;
    const int64_t last = unit->query + unit->queries - 1;
    unit->position = tril_position(seq, unit->query);
    unit->gap = unit->gap_end = unit->sink = unit->begin = 0;
    unit->unit_first = seq->key_begin;
    unit->unit_keys = max_of(seq->key_begin, min_of(tril_key_end(seq), tril_view_of(call, seq, last).end));
    if (call->window > 0) leave_out(call, unit);
    unit->first = unit->unit_first;
    unit->keys = unit->unit_keys;
}

/* Chunk `chunk` of a sequence's queries, all K/V heads; the walk narrows it down. */
static void unit_of(const struct tril_plan *plan, const tril_attention *call, const tril_seq *seq, int64_t chunk,
                    int64_t head, struct tril_task *unit)
{
    const int64_t query = plan->whole ? max_of(seq->q_len - plan->last_rows, 0) : chunk * plan->positions;
    memset(unit, 0, sizeof *unit);
    unit->seq = seq;
    unit->query = query;
    unit->queries = plan->whole ? seq->q_len - query : min_of(plan->positions, seq->q_len - query);
    look(call, unit);
    unit->token = seq->kv_first - seq->key_begin;
    const int64_t rows = unit->queries * plan->group, keys = unit->unit_keys - unit->unit_first;
    unit->few = rows <= min_of(plan->few_rows, max_of(TRIL_FEW_ALWAYS, keys / TRIL_FEW_KEYS_A_ROW));
    unit->head = head;
    unit->heads = 1;
    if (unit->few) {
        const int64_t fit = TRIL_FEW_ROWS_IN_ALL / (int)rows;
        const int64_t most = min_of(plan->few_heads, max_of(fit, 1));
        const int64_t even = ceil_div(call->kv_heads, ceil_div(call->kv_heads, most)); /* all units alike */
        unit->heads = min_of(even, call->kv_heads - head);
    }
}

void tril_part_of_whole(const struct tril_plan *plan, const tril_attention *call, const struct tril_task *whole,
                        int64_t query, struct tril_task *task)
{
    *task = *whole;
    task->query = query;
    task->queries = min_of(plan->positions, whole->query + whole->queries - query);
    look(call, task);
}

static int64_t chunks_of(const struct tril_plan *plan, const tril_seq *seq)
{
    return plan->whole ? seq->q_len > 0 : ceil_div(seq->q_len, plan->positions);
}

static int64_t task_size(const struct tril_plan *plan, const struct tril_task *task)
{
    const bool across = task->first < task->gap && task->keys > task->gap_end;
    const int64_t keys = task->keys - task->first - (across ? task->gap_end - task->gap : 0);
    const int64_t rows = task->heads * task->queries * plan->group;
    return add_product(0, rows, keys + 1); /* of a whole sequence it may not fit */
}

/* Into how many parts the walk's unit is split. There may be no room to keep track of more: then it is not. */
static int64_t unit_parts(const struct tril_plan *plan, const struct tril_walk *walk)
{
    const struct tril_task *unit = &walk->unit;
    int64_t parts = plan->parts;
    if (unit->few && plan->few_share > 0) parts = (task_size(plan, unit) + plan->few_more) / plan->few_share;
    parts = max_of(1, min_of(parts, tril_unit_blocks(unit)));
    return walk->units < TRIL_MAX_SPLIT_UNITS && walk->made + parts <= TRIL_MAX_PARTS ? parts : 1;
}

/* A state of each row for each block. */
static int64_t unit_states(const struct tril_plan *plan, const struct tril_task *unit)
{
    return tril_unit_blocks(unit) * unit->heads * unit->queries * plan->group * (plan->v_row + 2);
}

/* Makes the next unit of the pass the walk's; false at its end. */
static bool next_unit(const struct tril_plan *plan, const tril_attention *call, struct tril_walk *walk)
{
    if (walk->parts > 1) {
        walk->units++;
        walk->made += walk->parts;
        walk->states += unit_states(plan, &walk->unit);
    }
    walk->part = walk->parts = 0;
    for (; walk->seq < call->n_seqs; walk->seq++, walk->in_seq = false) {
        const tril_seq *seq = &call->seqs[walk->seq];
        if (!walk->in_seq) {
            walk->in_seq = true;
            walk->chunk = chunks_of(plan, seq);
            walk->head = call->kv_heads;
        }
        if (walk->head >= call->kv_heads) {
            walk->chunk--;
            walk->head = 0;
        }
        if (walk->chunk >= 0) {
            unit_of(plan, call, seq, walk->chunk, walk->head, &walk->unit);
            walk->unit.packed = walk->packed;
            if (call->block_tokens > 0) walk->unit.pages = walk->pages - tril_first_page(call, seq);
            walk->unit.unit = walk->units;
            walk->unit.made = walk->made;
            walk->unit.states = walk->states;
            walk->head += walk->unit.heads;
            walk->parts = unit_parts(plan, walk);
            return true;
        }
        walk->packed += tril_packed_offset(call, seq, seq->q_len);
        walk->pages += tril_pages(call, seq);
    }
    return false;
}

static void next_part(struct tril_walk *walk, struct tril_task *task)
{
    *task = walk->unit;
    task->part = walk->part++;
    task->parts = walk->parts;
    if (task->parts == 1) return;
    task->first = tril_unit_block(task, tril_part_begin(task, task->part));
    task->keys = min_of(task->keys, tril_unit_block(task, tril_part_begin(task, task->part + 1) - 1) + TRIL_KEY_BLOCK);
}

/* 0 for the tasks of the largest class, levels - 1 for all the small ones. */
static int level_of(const struct tril_plan *plan, const struct tril_task *task)
{
    return (int)min_of(max_of(plan->top - log2_of(task_size(plan, task)), 0), plan->levels - 1);
}

bool tril_plan_next(const struct tril_plan *plan, const tril_attention *call, struct tril_walk *walk,
                    struct tril_task *task)
{
    for (; walk->level < plan->levels; *walk = (struct tril_walk){.level = walk->level + 1}) {
        while (walk->part < walk->parts || next_unit(plan, call, walk)) {
            next_part(walk, task);
            if (plan->levels == 1 || level_of(plan, task) == walk->level) return true;
        }
    }
    return false;
}

/* What a team has to share out: units of many rows and of few. */
struct work {
    int64_t units, largest;                     /* of many rows; the size of the largest */
    int64_t few_units, few_largest, few_pieces; /* of few rows, and how many tasks they could be cut into */
    int64_t cost;
};

static TRIL_COLD struct work work_of(const struct tril_plan *plan, const tril_attention *call)
{
    struct work work = {.cost = 1};
    for (int64_t i = 0; i < call->n_seqs; i++) {
        const tril_seq *seq = &call->seqs[i];
        const int64_t chunks = chunks_of(plan, seq);
        /* All chunks but the last are taken to be alike, though they see more and more. */
        for (int64_t chunk = max_of(chunks - 2, 0); chunk < chunks; chunk++) {
            struct tril_task unit;
            unit_of(plan, call, seq, chunk, 0, &unit);
            const int64_t size = task_size(plan, &unit), times = chunk == chunks - 1 ? 1 : chunks - 1;
            const int64_t units = ceil_div(call->kv_heads, unit.heads) * times;
            if (unit.few) {
                work.few_units += units;
                work.few_largest = max_of(work.few_largest, size);
                work.few_pieces = add_product(work.few_pieces, plan->splits ? tril_unit_blocks(&unit) : 1, units);
                work.cost = add_product(work.cost, FEW_COST * size, units);
            } else {
                work.largest = max_of(work.largest, size);
                work.units += units;
                work.cost = add_product(work.cost, times > 1 ? size / 2 : size, units);
            }
        }
    }
    return work;
}

/* Enough tasks for a team: fewer rows in each, then fewer keys. Heads of few rows are kept together as far as there are
 * blocks for all threads: memory is read in its order then, which is worth up to twice the speed. */
static TRIL_COLD void cut_for_team(struct tril_plan *plan, const tril_attention *call, int64_t step, int threads)
{
    const int64_t want = (int64_t)threads * TRIL_TASKS_PER_THREAD;
    int64_t queries = 0;
    for (int64_t i = 0; i < call->n_seqs; i++)
        queries += call->seqs[i].q_len;
    const int64_t least = round_up(ceil_div(MIN_ROWS, plan->group), step);
    const int64_t even = max_of(queries / ceil_div(want, call->kv_heads) / step * step, least);
    if (!plan->whole) plan->positions = min_of(plan->positions, even);
    struct work work = work_of(plan, call);
    if (work.few_pieces > 0 && work.few_pieces < threads) {
        plan->few_heads = min_of(plan->few_heads, ceil_div(call->kv_heads, ceil_div(threads, work.few_pieces)));
        work = work_of(plan, call);
    }
    const int64_t share = ceil_div(ceil_div(work.cost, want), FEW_COST);
    if (plan->splits) {
        /* Of fewer units than wanted what is over is a part as well; otherwise less than two shares stay whole. */
        plan->few_more = work.units + work.few_units < want ? share - 1 : 0;
        plan->few_share = share;
        if (work.units > 0 && work.units < want) plan->parts = ceil_div(want, work.units);
    }
    plan->levels = LEVELS;
    plan->top = log2_of(max_of(work.largest / plan->parts, plan->splits ? share : max_of(work.few_largest, 1)));
}

/* Every region starts on a cache line. Sums are of 64 bits on every machine: whether they fit is asked at the end. */
static size_t place(uint64_t *at, int64_t floats)
{
    const uint64_t here = *at;
    *at += (uint64_t)round_up(floats, 16);
    return (size_t)here;
}

/* One thread's area; how many floats it has. That depends on the heads and on whether there are any tasks but of
 * TRIL_FEW_ALWAYS rows, nothing else. */
static uint64_t lay_out_area(struct tril_plan *plan, const tril_attention *call, const struct tril_blocking *blocking,
                             int64_t task_rows, bool all_few)
{
    const int64_t few = plan->few_rows > 0 ? min_of(TRIL_FEW_ROWS_IN_ALL, plan->few_rows * call->kv_heads) : 0;
    const int64_t rows = all_few ? few : max_of(task_rows, few);
    const int64_t keys = all_few ? TRIL_FEW_STEP : (int64_t)TRIL_RUN_BLOCKS * TRIL_KEY_BLOCK;
    uint64_t at = 0;
    plan->v_panel = TRIL_KEY_BLOCK * TRIL_PANEL + 16;
    plan->q = place(&at, rows * call->qk_dim);
    plan->k = place(&at, (keys + TRIL_PANEL) * call->qk_dim); /* and room for rows that become the last panel */
    plan->v = place(&at, all_few ? TRIL_FEW_STEP * plan->v_row : plan->v_row / TRIL_PANEL * (int64_t)plan->v_panel);
    plan->s = place(&at, max_of((int64_t)blocking->tile_rows * TRIL_SCORE_ROW, few * TRIL_FEW_SCORE_ROW));
    plan->o = place(&at, rows * plan->v_row);
    plan->block_o = place(&at, max_of(blocking->tile_rows, few) * plan->v_row);
    plan->row_max = place(&at, rows);
    plan->row_sum = place(&at, rows);
    int64_t pages = 0;
    for (int64_t i = 0; i < call->n_seqs && call->block_tokens > 0; i++)
        pages += tril_pages(call, &call->seqs[i]);
    plan->pages = place(&at, pages + 1); /* few rows ask for memory a page ahead, past the last one too */
    plan->area = (size_t)at;
    return at;
}

/* Floats of all states of a team's split units; negative if there can be no room for them. Where units of many rows
 * stay whole, only a sequence's last chunk, which the walk comes to first, can be of few rows: the others, of which
 * there may be billions, are passed by. */
static int64_t all_states(const struct tril_plan *plan, const tril_attention *call)
{
    const bool last_only = plan->parts == 1 && plan->positions * plan->group > plan->few_rows;
    struct tril_walk walk = {0};
    while (next_unit(plan, call, &walk)) {
        if (walk.states > INT64_MAX / 64) return -1;
        if (last_only && !walk.unit.few) {
            walk.chunk = 0;
            walk.head = call->kv_heads;
        }
    }
    return walk.states;
}

/* Whether a token's heads lie together: memory is asked for from the first of them to the last. */
static bool lie_together(const tril_tensor *x, int dim)
{
    const int64_t apart = x->head_stride / (x->layout == TRIL_PANELS ? TRIL_PANEL : 1);
    return apart <= x->token_stride && apart <= 2 * tril_row_bytes(x->dtype, dim);
}

bool tril_heads_together(const tril_attention *call)
{
    return lie_together(&call->k, call->qk_dim) && (call->v_dim == 0 || lie_together(&call->v, call->v_dim));
}

bool tril_plan_make(struct tril_plan *plan, const tril_attention *call, const tril_weights_out *weights,
                    const struct tril_blocking *blocking, int threads)
{
    plan->whole = weights != NULL && weights->form == TRIL_WEIGHTS_COLUMN_SUMS;
    plan->splits = weights == NULL || (!plan->whole && weights->dtype == TRIL_F32);
    plan->last_rows = plan->whole && weights->last_rows > 0 ? weights->last_rows : INT64_MAX;
    const int group = call->q_heads / call->kv_heads;
    plan->group = group;
    /* Whole tiles: the smallest number of positions whose rows are a multiple of the tile's, as often as it fits. */
    const int step = blocking->tile_rows / gcd(blocking->tile_rows, group);
    const int64_t steps = blocking->task_rows / (step * group);
    plan->positions = steps > 0 ? steps * step : 1;
    plan->v_row = round_up(call->v_dim, TRIL_PANEL);
    plan->few_rows = call->math == TRIL_MATH_F32 ? blocking->few_rows : 0;
    plan->few_heads = tril_heads_together(call) ? call->kv_heads : 1;
    plan->parts = 1;
    plan->few_share = plan->few_more = 0;
    plan->levels = 1;
    plan->top = 0;

    bool all_few = true;
    for (int64_t i = 0; i < call->n_seqs; i++)
        all_few = all_few && call->seqs[i].q_len * plan->group <= min_of(plan->few_rows, TRIL_FEW_ALWAYS);
    const uint64_t area = lay_out_area(plan, call, blocking, plan->positions * plan->group, all_few);

    if (threads > 1) cut_for_team(plan, call, step, threads);
    const int64_t states = threads > 1 && plan->splits ? all_states(plan, call) : 0;
    if (states < 0) return false;
    uint64_t at = sizeof(struct tril_team) / sizeof(float);
    plan->states = place(&at, states);
    plan->areas = (size_t)at;
    uint64_t bytes;
    if (__builtin_mul_overflow(area, (uint64_t)threads * sizeof(float), &bytes) ||
        __builtin_add_overflow(bytes, at * sizeof(float) + 63, &bytes) || bytes > SIZE_MAX / 2)
        return false;
    plan->bytes = (size_t)bytes;
    return true;
}
