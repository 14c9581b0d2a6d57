/* The geometry of a call: which keys a query sees, how the work is cut into tasks, where things lie in the workspace.
 * Pure integer code: it knows no float and no instruction set. */
#ifndef TRIL_PLAN_H
#define TRIL_PLAN_H

#include "sight.h"

/* Of teams alone and seldom: compiled for size. */
#define TRIL_COLD __attribute__((cold))

/* How a tier likes its work cut; data in its kernel table. */
struct tril_blocking {
    int lanes;     /* floats in a vector: a packed row is a multiple of it */
    int tile_rows; /* query rows that the register tile takes at once */
    int task_rows; /* query rows of a task: all of them share one packing of a K/V block */
    int few_rows;  /* up to so many rows of one K/V head may go the way of engine/few.h, see below; 0: none */
};

/* tril_weights packs this many blocks of keys at once, so that rows up to that long are computed in the workspace and
 * written once. A row of the score buffer holds as many, and a step to the side, so that rows do not share cache sets.
 */
#define TRIL_RUN_BLOCKS 4
#define TRIL_SCORE_ROW  (TRIL_RUN_BLOCKS * TRIL_KEY_BLOCK + 16)

/* A few-row task walks over the K/V heads of a token before it goes on to the next, so that it reads memory in the
 * order in which it lies. It takes at most this many rows in all. */
#define TRIL_FEW_ROWS_IN_ALL 384

/* Up to so many rows of a K/V head always go that way; more of them, up to tril_blocking.few_rows, where they see at
 * least so many keys a row, so that it is keys that take the time. */
#define TRIL_FEW_ALWAYS     12
#define TRIL_FEW_KEYS_A_ROW 8
#define TRIL_FEW_SCORE_ROW  (TRIL_KEY_BLOCK + 16)
#define TRIL_FEW_STEP       32 /* the most keys or values of one head that it packs before the next head's turn */

/* Packed panels are 16 columns wide on every tier; a packed value row is padded to whole panels. */
#define TRIL_PANEL 16

#define TRIL_MAX_THREADS 256
/* How many tasks a team wants per thread, so that it does not matter when each of them comes. */
#define TRIL_TASKS_PER_THREAD 4
/* No more units are split over keys, nor into more parts in all; a team of that many threads wants half of it. */
#define TRIL_MAX_SPLIT_UNITS (TRIL_MAX_THREADS * TRIL_TASKS_PER_THREAD)
#define TRIL_MAX_PARTS       (2 * TRIL_MAX_SPLIT_UNITS)

struct tril_plan {
    int64_t group;     /* query heads per K/V head */
    int64_t positions; /* query positions in a task; its rows are positions * group, ordered [position][query head] */
    int64_t v_row;     /* v_dim rounded up to whole panels, in floats */
    int64_t few_rows;  /* of the tier's blocking */
    int64_t few_heads; /* K/V heads that a few-row task may take: more than 1 only where tril_heads_together() */
    int64_t parts;     /* the keys of a unit of many rows are split into so many tasks, as far as it has blocks */
    int64_t few_share; /* those of one of few rows into tasks of this size in the mean; 0: not at all */
    int64_t few_more;  /* added to its size before it is divided by that: what decides about a last part */
    bool splits;       /* whether they may be: not where the rows of the result have no room for t */
    bool whole;        /* column sums: a unit is all of a sequence's queries, of which the last_rows ones count */
    int64_t last_rows;
    int levels; /* passes of the walk, from the largest tasks to the smallest */
    int top;    /* log2 of the largest task's size */
    /* The workspace, from its 64-byte aligned start, in floats: the team's counters, the states of split units, and
     * `threads` areas of `area` floats. */
    size_t states, areas, area;
    size_t bytes; /* of the whole, with the room to align its start */
    /* One area: offsets from its start. "row": of the task's largest number of rows. */
    size_t q;                /* [row][qk_dim]: packed queries */
    size_t k;                /* [key/16][qk_dim][16]: a packed run of keys, and a panel more; tril_attend uses one
                              * block of it */
    size_t v, v_panel;       /* [v_row/16], v_panel floats apart, of [key][16]: one packed block of values */
    size_t s;                /* [tile_rows][TRIL_SCORE_ROW] or [row][TRIL_FEW_SCORE_ROW]: scores, then weights */
    size_t o;                /* [row][v_row]: the output before the division */
    size_t block_o;          /* [row][v_row]: one block's part of it, of few-row tasks and of one tile's rows */
    size_t row_max, row_sum; /* [row] */
    size_t pages;            /* paged K/V: the block tables, int32 */
};

/* What one thread computes in one piece: query positions of one sequence, the query heads of some K/V heads, a range of
 * keys. Tasks that differ in the keys alone are the parts of one unit. */
struct tril_task {
    const tril_seq *seq;
    int64_t head, heads;    /* K/V heads; more than one in a few-row task only */
    int64_t query, queries; /* first query of the sequence, how many */
    int64_t position;       /* where the first query stands; negative where it sees no key */
    int64_t first, keys;  /* positions first ... keys - 1: a multiple of TRIL_KEY_BLOCK, and what the last query sees */
    int64_t gap, gap_end; /* of them none sees these, whole blocks between sinks and windows; or both are 0 */
    int64_t sink, begin;  /* and none sees what lies between keys 0 ... sink - 1 and those from `begin` on */
    int64_t token;        /* the token of k and v that holds position 0 (before them, if key_begin is not 0) */
    int64_t packed;       /* TRIL_WEIGHTS_PACKED: element of the sequence's first row */
    int64_t pages;        /* paged K/V: where the sequence's table is in the job's, counted from position 0 */
    bool few;
    /* Of a split unit: */
    int64_t part, parts;           /* 1: it is not split */
    int64_t unit, made;            /* its number among the split units; how many parts those before it have */
    int64_t unit_first, unit_keys; /* what the unit sees: `first` of its first part, `keys` of its last one */
    int64_t states;                /* floats from plan.states on; see tril_place_of() */
};

/* Walks the tasks of a call, the largest first where there is a team: start with a zeroed one. */
struct tril_walk {
    struct tril_task unit; /* of which some parts are still to come, if part < parts */
    int64_t part, parts;
    int level;
    int64_t seq, chunk, head; /* the unit after it: chunks count down from the sequence's last */
    bool in_seq;
    int64_t packed, pages, units, made, states; /* sums over the units before it */
};

/* One past the last position of the sequence's range of keys. */
static inline int64_t tril_key_end(const tril_seq *seq)
{
    return seq->key_end == 0 ? seq->kv_len : seq->key_end;
}

/* The block of the task's keys after the one at `first`. */
static inline int64_t tril_next_block(const struct tril_task *task, int64_t first)
{
    first += TRIL_KEY_BLOCK;
    return first == task->gap ? task->gap_end : first;
}

/* The unit's blocks that are not in its gap, by number: where it begins, and the other way about. */
static inline int64_t tril_unit_block(const struct tril_task *unit, int64_t number)
{
    const int64_t first = unit->unit_first + number * TRIL_KEY_BLOCK;
    return unit->gap < unit->gap_end && first >= unit->gap ? first + (unit->gap_end - unit->gap) : first;
}

static inline int64_t tril_unit_block_number(const struct tril_task *unit, int64_t first)
{
    const int64_t before = first < unit->gap_end ? 0 : unit->gap_end - unit->gap;
    return (first - before - unit->unit_first) / TRIL_KEY_BLOCK;
}

/* How many there are. */
static inline int64_t tril_unit_blocks(const struct tril_task *unit)
{
    const int64_t keys = unit->unit_keys - unit->unit_first - (unit->gap_end - unit->gap);
    return (keys + TRIL_KEY_BLOCK - 1) / TRIL_KEY_BLOCK;
}

/* The number of the block with which part `part` of the unit begins. Each part is shorter than the one before, down to
 * a block: the first is folded as it goes, and what is left to do when the others have gone is short. Beside a block
 * for each, what all parts before have is 1 - (1 - part / parts)^2 of the rest. */
static inline int64_t tril_part_begin(const struct tril_task *unit, int64_t part)
{
    const int64_t parts = unit->parts, rest = tril_unit_blocks(unit) - parts, square = parts * parts;
    const int64_t before = square - (parts - part) * (parts - part);
    return part + rest / square * before + rest % square * before / square;
}

/* TRIL_BLOCKWISE: the parts of a sequence. */
static inline int64_t tril_seq_blocks(const tril_seq *seq)
{
    return (tril_key_end(seq) - seq->key_begin + TRIL_KEY_BLOCK - 1) / TRIL_KEY_BLOCK;
}

/* Paged K/V: the entries of a sequence's table for its range of keys, from the first one on. */
static inline int64_t tril_first_page(const tril_attention *call, const tril_seq *seq)
{
    return seq->key_begin / call->block_tokens;
}

static inline int64_t tril_pages(const tril_attention *call, const tril_seq *seq)
{
    const int64_t end = tril_key_end(seq);
    if (call->block_tokens == 0 || seq->q_len == 0 || end == seq->key_begin) return 0;
    return (end - 1) / call->block_tokens + 1 - tril_first_page(call, seq);
}

/* Whether any query sees a key of the page that is in the sequence's range. */
static inline bool tril_page_is_seen(const tril_attention *call, const tril_seq *seq, int64_t page)
{
    const int64_t begins = page * call->block_tokens, ends = begins + call->block_tokens, end = tril_key_end(seq);
    const int64_t from = begins > seq->key_begin ? begins : seq->key_begin, to = ends < end ? ends : end;
    if (call->tree == NULL) /* what the first query sees from its window on, the next ones see on and on */
        return from < tril_view_of(call, seq, seq->q_len - 1).sink || to > tril_view_of(call, seq, 0).begin;
    for (int64_t query = 0; query < seq->q_len; query++) {
        const struct tril_view view = tril_view_of(call, seq, query);
        if (tril_sees_any(call, seq, query, &view, from, to)) return true;
    }
    return false;
}

/* TRIL_WEIGHTS_PACKED: where row i begins, in elements from the sequence's first row; i == q_len gives the size. */
int64_t tril_packed_offset(const tril_attention *call, const tril_seq *seq, int64_t i);

/* Whether a few-row task takes several heads. */
bool tril_heads_together(const tril_attention *call);
/* False where a size does not fit. */
bool tril_plan_make(struct tril_plan *plan, const tril_attention *call, const tril_weights_out *weights,
                    const struct tril_blocking *blocking, int threads);
/* tril_plan.whole: the unit's queries from `query` on, as many as a task takes. */
void tril_part_of_whole(const struct tril_plan *plan, const tril_attention *call, const struct tril_task *whole,
                        int64_t query, struct tril_task *task);
bool tril_plan_next(const struct tril_plan *plan, const tril_attention *call, struct tril_walk *walk,
                    struct tril_task *task);

#endif
