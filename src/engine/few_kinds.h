/* Few rows: which keys and values have kernels of their own, of how many rows, and in what steps they are taken. */
#ifndef TRIL_ENGINE_FEW_KINDS_H
#define TRIL_ENGINE_FEW_KINDS_H

#include "source.h"

#define FEW_ROW TRIL_FEW_SCORE_ROW

/* Keys that one head's rows meet before the next head's turn: fewer would load and store the chains of the values more
 * often, more would reach further ahead than the caches hold. */
#define FEW_STEP TRIL_FEW_STEP

/* The same of narrower rows than f32's. */
#define FEW_TYPED_STEP (2 * FEW_STEP)

_Static_assert(FEW_STEP % PANEL == 0, "steps are whole panels");

/* So many rows at most have a kernel for keys of f32 that are asked for one by one; see few_stream.singly. */
#define FEW_SINGLE_ROWS (V_LANES == PANEL ? 4 : 0)

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

/* Bytes are bound by their arithmetic. */
static bool few_is_wide(const tril_tensor *x)
{
    return x->dtype == TRIL_F32 || few_is_half(x->dtype);
}

/* Up to how many rows that is faster, though every kernel widens anew; for more of them a value is widened once. */
static int few_typed_most(const tril_tensor *x)
{
    if (V_LANES < PANEL) return 2 * FEW_TYPED_ROWS;
    return x->layout == TRIL_ROWS ? 12 : few_is_half(x->dtype) ? 16 : 8;
}

static bool few_is_typed(const tril_tensor *x, int dims, int rows)
{
    return x->dtype != TRIL_F32 && x->layout == TRIL_ROWS && rows <= few_typed_most(x) && dims % TRIL_Q_BLOCK == 0;
}

/* Keys in panels, which need no transposition, have kernels as well: whole panels, any head size. Of f32 in vectors of
 * a whole line alone, and for as many rows as one of them takes. */
static bool few_in_panels(const tril_tensor *x, int rows)
{
    if (x->layout != TRIL_PANELS) return false;
    return x->dtype == TRIL_F32 ? V_LANES == PANEL && rows <= FEW_TYPED_ROWS : rows <= few_typed_most(x);
}

/* Vectors of half a cache line. */
#define FEW_HALF_LINES (V_LANES == PANEL / 2)

/* How many vectors of stored keys a kernel takes side by side: few rows are few chains, and a core with two fma units
 * needs eight. Two of halves have registers for half a line of each key, and come back for the other. Vectors of half a
 * line are always two of one head, or one of them twice. */
#define FEW_SIDES (V_LANES == PANEL || FEW_HALF_LINES ? 2 : 1)

/* Keys a multiple of this apart share so few sets of the first-level cache that no line of theirs is there when it is
 * come back to. */
#define FEW_CROWDED_STRIDE 2048

static bool few_is_crowded(const tril_tensor *x)
{
    return x->token_stride % FEW_CROWDED_STRIDE == 0;
}

static int few_sides(const tril_tensor *x, int rows)
{
    if (x->dtype == TRIL_F32) return 1;
    if (!few_is_half(x->dtype) || V_LANES < PANEL) return FEW_SIDES;
    return rows <= (few_is_crowded(x) ? 2 : FEW_TYPED_ROWS) ? FEW_SIDES : 1;
}

/* Whether two heads of one vector of such keys are better taken side by side: their lines lie in other sets. Of one or
 * two rows from a cache alone: from memory they are asked for too fast then. */
static bool few_by_two(const tril_tensor *x, int dims, int rows, enum source source)
{
    return V_LANES == PANEL && few_is_half(x->dtype) && few_is_typed(x, dims, rows) && few_is_crowded(x) &&
           rows <= FEW_TYPED_ROWS && (rows > 2 || source == SOURCE_CACHE);
}

/* How many panels. */
#define FEW_PANELS (V_LANES == PANEL ? 2 : 1)

/* See FEW_STEP; narrow rows reach less far. */
static int few_step(const tril_tensor *x, int dims, int rows)
{
    const bool narrow = x->dtype != TRIL_F32 && (few_is_typed(x, dims, rows) || few_in_panels(x, rows));
    return narrow ? FEW_TYPED_STEP : FEW_STEP;
}

/* Whether values go into the chains from where they lie: there is no place for more than FEW_STEP of others. */
static bool few_reads_values(const tril_tensor *v, int dims, int rows)
{
    return v->dtype == TRIL_F32 ? dims % V_LANES == 0 : few_is_typed(v, dims, rows);
}

/* Keys that a kernel takes at once. */
static int few_at_once(const tril_tensor *k, int dims, int rows)
{
    if (few_in_panels(k, rows)) return FEW_PANELS * PANEL;
    return few_is_typed(k, dims, rows) ? few_sides(k, rows) * V_LANES : PANEL;
}

#endif
