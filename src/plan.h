/* The geometry of a call: which keys a query sees, how the work is cut into tasks, where things lie in the workspace.
 * Pure integer code: it knows no float and no instruction set. */
#ifndef TRIL_PLAN_H
#define TRIL_PLAN_H

#include <stdbool.h>
#include "tril.h"

/* How a tier likes its work cut; data in its kernel table. */
struct tril_blocking {
    int lanes;     /* floats in a vector: a packed row is a multiple of it */
    int tile_rows; /* query rows that the register tile takes at once */
    int task_rows; /* query rows of a task: all of them share one packing of a K/V block */
};

/* tril_weights packs this many blocks of keys at once, so that rows up to that long are computed in the workspace and
 * written once. A row of the score buffer holds as many, and a step to the side, so that rows do not share cache sets.
 */
#define TRIL_RUN_BLOCKS 4
#define TRIL_SCORE_ROW  (TRIL_RUN_BLOCKS * TRIL_KEY_BLOCK + 16)

/* Packed panels are 16 columns wide on every tier; a packed value row is padded to whole panels. */
#define TRIL_PANEL 16

struct tril_plan {
    int64_t group;     /* query heads per K/V head */
    int64_t positions; /* query positions in a task; its rows are positions * group, ordered [position][query head] */
    int64_t v_row;     /* v_dim rounded up to whole panels, in floats */
    /* The workspace of one thread: offsets in floats from its 64-byte aligned start. */
    size_t q;                /* [row][qk_dim]: packed queries */
    size_t k;                /* [key/16][qk_dim][16]: a packed run of keys; tril_attend uses one block of it */
    size_t v, v_panel;       /* [v_row/16], v_panel floats apart, of [key][16]: one packed block of values */
    size_t s;                /* [tile_rows][TRIL_SCORE_ROW]: scores, then weights */
    size_t o;                /* [row][v_row]: the output before the division */
    size_t row_max, row_sum; /* [row] */
    size_t bytes;            /* of the whole, with the room to align its start */
};

/* Query positions of one sequence, and the query heads that share one K/V head. */
struct tril_task {
    const tril_seq *seq;
    int64_t head;           /* K/V head */
    int64_t query, queries; /* first query of the sequence, how many */
    int64_t position;       /* where the first query stands; negative where it sees no key */
    int64_t keys;           /* visible to the last query */
    int64_t packed;         /* TRIL_WEIGHTS_PACKED: element of the sequence's first row */
};

/* Walks the tasks of a call: start with a zeroed one. */
struct tril_walk {
    int64_t seq, query, head, packed;
};

/* How many keys the query at `position` sees. */
static inline int64_t tril_visible(int64_t position)
{
    return position < 0 ? 0 : position + 1;
}

/* TRIL_WEIGHTS_PACKED: where row i begins, in elements from the sequence's first row; i == q_len gives the size. */
int64_t tril_packed_offset(const tril_seq *seq, int64_t i);

void tril_plan_make(struct tril_plan *plan, const tril_attention *call, const struct tril_blocking *blocking);
bool tril_plan_next(const struct tril_plan *plan, const tril_attention *call, struct tril_walk *walk,
                    struct tril_task *task);

#endif
