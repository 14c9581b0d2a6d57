/* The register tile: C[rows][vecs * V_LANES] = sum over k of A[rows][k] * B[k][vecs * V_LANES], in a chain of fma that
 * ascends in k from +0. It serves twice: scores = Q K^T, where k runs over the head size, and output = P V, where k
 * runs over keys.
 *
 *          B   k -> | panel 0: 16 columns per k | panel 1 | ...        A   row 0: a[0 * a_row + k]
 *                   | contiguous                |         |                row 1: a[1 * a_row + k]
 *                                                                          ...
 *
 * Parameters, set by the tier before inclusion:
 *   TILE_ROWS, TILE_VECS   the largest tile; it fills the register file
 *   TILE_STEPS             steps of k in a turn of a whole tile's loop, 1 or 4
 *   TILE_OPAQUE(x)         may be missing: V_OPAQUE(x) in that loop
 *   V_LANES, V_REGS        floats in a vector, vector registers of the instruction set (vec_*.h)
 *   A_STEP, A_REGS         values of k in one register of A, registers of A alive at once (vec_*.h)
 *
 * The tile is a triangle where the diagonal asks for it: row r takes part for k < end[r], with end ascending, so the
 * loop over k runs in sections, each with one row less, and the accumulators stay in registers from the first section
 * to the last. A tile of fewer rows is the last ones of a whole one: it enters at a later section, so that one function
 * serves every number of rows.
 */
#ifndef TRIL_ENGINE_TILE_H
#define TRIL_ENGINE_TILE_H

#include "vec.h"

#ifndef V_OPAQUE
#define V_OPAQUE(x) ((void)(x))
#endif

/* From which row on addresses are counted from another than row 0's: one register reaches three rows, itself and once
 * and twice the distance behind it, where TILE_OPAQUE keeps the compiler from sharing sums between more. */
#ifdef TILE_OPAQUE
#define TILE_OTHER_ROWS 3
#else
#define TILE_OTHER_ROWS MAX_ROWS
#define TILE_OPAQUE(x)  ((void)(x))
#endif

#define MAX_ROWS 8
#define MAX_VECS 4

/* Spells out a statement for every row that a tile can have; each says itself whether its row takes part. */
#define EACH_ROW(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7)

_Static_assert(TILE_ROWS *TILE_VECS + TILE_VECS + A_REGS <= V_REGS, "the tile does not fit the register file");
_Static_assert(TILE_ROWS <= MAX_ROWS && TILE_VECS <= MAX_VECS, "the tile is spelled out up to 8 x 4");
_Static_assert(TILE_STEPS == 1 || (TILE_STEPS == 4 && A_STEP == 1), "steps are spelled out");
_Static_assert(PANEL % V_LANES == 0 && (A_STEP == 1 || A_STEP == 4), "a vector lies in one panel");

/* Where the B operand lies: vector j of the tile at k is at  data + k * k_stride + offset of column j * V_LANES,  with
 * panel_stride floats from a panel of 16 columns to the next. It goes into a function of its own by address: three
 * words by value lie on the stack, where compilers put them by a vector that loads what two words have just stored. No
 * core forwards that, so the tile would wait until all stores before it have left, 50 cycles each time. */
struct tile_b {
    const float *data;
    size_t k_stride, panel_stride;
};

/* Vector j at the current k. */
static ALWAYS_INLINE const float *tile_b_at(const struct tile_b *b, const int j)
{
    return b->data + (size_t)(j * V_LANES / PANEL) * b->panel_stride + (size_t)(j * V_LANES % PANEL);
}

/* The accumulators: what rows and vecs do not reach is never touched, so no register stands for it. Indices are literal
 * throughout, not loop counters: compilers keep an array in registers only if every index is a constant early on, and
 * clang 14 does not see that through nested loops that it is yet to unroll. */
typedef vf tile_acc[MAX_ROWS][MAX_VECS];

static ALWAYS_INLINE bool tile_has(const int first, const int r)
{
    return first <= r && r < TILE_ROWS;
}

/* What is in front of a tile's first real row: where row 0 would be, or its entry in an array of one per row. It may
 * lie outside of what p points into and is not read. */
#define TILE_BEFORE(p, items) ((__typeof__(p))((uintptr_t)(p) - (size_t)(items) * sizeof *(p)))

static ALWAYS_INLINE void row_zero(const int vecs, vf acc[MAX_VECS])
{
    acc[0] = v_zero();
    if (vecs > 1) acc[1] = v_zero();
    if (vecs > 2) acc[2] = v_zero();
    if (vecs > 3) acc[3] = v_zero();
}

/* The tile's products: of floats, or, in pairs, of two bf16 each. A whole tile fills the register file. */
static ALWAYS_INLINE vf tile_product(const bool pairs, const bool whole, const va a, const int lane, const vf b,
                                     const vf c, vf *low)
{
    return pairs ? a_dot(a, lane, b, c, low) : whole ? a_fma_in(a, lane, b, c) : a_fma(a, lane, b, c);
}

/* Whether a chain of pairs may have met a sum that should have become 0. */
static ALWAYS_INLINE bool tile_in_doubt(const bool pairs, const vf low)
{
    return pairs && !V_DOT_EXACT && v_low_any(low);
}

static ALWAYS_INLINE void row_step(const bool pairs, const bool whole, const int vecs, const va a, const int lane,
                                   const vf b[MAX_VECS], vf acc[MAX_VECS], vf *low)
{
    acc[0] = tile_product(pairs, whole, a, lane, b[0], acc[0], low);
    if (vecs > 1) acc[1] = tile_product(pairs, whole, a, lane, b[1], acc[1], low);
    if (vecs > 2) acc[2] = tile_product(pairs, whole, a, lane, b[2], acc[2], low);
    if (vecs > 3) acc[3] = tile_product(pairs, whole, a, lane, b[3], acc[3], low);
}

static ALWAYS_INLINE void row_load(const int vecs, vf acc[MAX_VECS], const float *from)
{
    acc[0] = v_load(from);
    if (vecs > 1) acc[1] = v_load(from + V_LANES);
    if (vecs > 2) acc[2] = v_load(from + 2 * V_LANES);
    if (vecs > 3) acc[3] = v_load(from + 3 * V_LANES);
}

static ALWAYS_INLINE void row_store(const int vecs, const vf acc[MAX_VECS], float *to)
{
    v_store(to, acc[0]);
    if (vecs > 1) v_store(to + V_LANES, acc[1]);
    if (vecs > 2) v_store(to + 2 * V_LANES, acc[2]);
    if (vecs > 3) v_store(to + 3 * V_LANES, acc[3]);
}

static ALWAYS_INLINE void vec_fold(const vf acc, float *o, const vf old, const vf fresh)
{
    v_store(o, v_fma(v_load(o), old, v_mul(acc, fresh)));
}

static ALWAYS_INLINE void row_fold(const int vecs, const vf acc[MAX_VECS], float *o, const float *old,
                                   const float *fresh)
{
    const vf vo = v_set1(*old), vn = v_set1(*fresh);
    vec_fold(acc[0], o, vo, vn);
    if (vecs > 1) vec_fold(acc[1], o + V_LANES, vo, vn);
    if (vecs > 2) vec_fold(acc[2], o + 2 * V_LANES, vo, vn);
    if (vecs > 3) vec_fold(acc[3], o + 3 * V_LANES, vo, vn);
}

static ALWAYS_INLINE void tile_zero(const int vecs, tile_acc acc)
{
#define DO(r)                                                                                                          \
    if (r < TILE_ROWS) row_zero(vecs, acc[r]);
    EACH_ROW(DO)
#undef DO
}

/* A's registers for a tile's rows: A_STEP values of k each, or one. */
static ALWAYS_INLINE va tile_a(const bool whole, const float *a)
{
    return whole ? a_load(a) : a_load1(a);
}

/* B at one k. */
static ALWAYS_INLINE void tile_columns(const int vecs, const struct tile_b *b, vf bv[MAX_VECS])
{
    bv[0] = v_load(tile_b_at(b, 0));
    if (vecs > 1) bv[1] = v_load(tile_b_at(b, 1));
    if (vecs > 2) bv[2] = v_load(tile_b_at(b, 2));
    if (vecs > 3) bv[3] = v_load(tile_b_at(b, 3));
}

/* Row r of A, whose rows begin at a; other is row TILE_OTHER_ROWS. */
static ALWAYS_INLINE const float *tile_row(const float *a, const float *other, const size_t a_row, const int r)
{
    return r < TILE_OTHER_ROWS ? a + r * a_row : other + (r - TILE_OTHER_ROWS) * a_row;
}

/* One k of the chain, for the rows from `first` on. Where A's registers hold one value each (A_STEP 1), a value is
 * loaded when its row's turn comes, so that one register serves all rows. */
static ALWAYS_INLINE void tile_lane(const bool pairs, const int first, const int vecs, const int lane,
                                    const va av[MAX_ROWS], const float *a, const float *other, const size_t a_row,
                                    const struct tile_b *b, tile_acc acc, vf *low)
{
    const bool whole = first == 0 && vecs == TILE_VECS;
    vf bv[MAX_VECS];
    tile_columns(vecs, b, bv);
#define DO(r)                                                                                                          \
    if (tile_has(first, r))                                                                                            \
        row_step(pairs, whole, vecs, A_STEP > 1 ? av[r] : a_load1(tile_row(a, other, a_row, r)), lane, bv, acc[r], low);
    EACH_ROW(DO)
#undef DO
}

/* A_STEP values of k (whole), or one. */
static ALWAYS_INLINE void tile_step(const bool pairs, const int first, const int vecs, const bool whole, const float *a,
                                    const float *other, const size_t a_row, struct tile_b *b, tile_acc acc, vf *low)
{
    /* Not used where A_STEP is 1, but compilers want it to have a value: one that is there, as a[0] may not be. */
    va av[MAX_ROWS] = {a_load1(b->data)};
#define DO(r)                                                                                                          \
    if (A_STEP > 1 && tile_has(first, r)) av[r] = tile_a(whole, tile_row(a, other, a_row, r));
    EACH_ROW(DO)
#undef DO
    tile_lane(pairs, first, vecs, 0, av, a, other, a_row, b, acc, low);
    b->data += b->k_stride;
    if (A_STEP > 1 && whole) {
        tile_lane(pairs, first, vecs, 1, av, a, other, a_row, b, acc, low);
        b->data += b->k_stride;
        tile_lane(pairs, first, vecs, 2, av, a, other, a_row, b, acc, low);
        b->data += b->k_stride;
        tile_lane(pairs, first, vecs, 3, av, a, other, a_row, b, acc, low);
        b->data += b->k_stride;
    }
}

/* The rows from `first` on, from k to `end`, in turns of A_STEP values of k; returns where it ended. */
static ALWAYS_INLINE size_t tile_each(const bool pairs, const int first, const int vecs, const float *a,
                                      const size_t a_row, struct tile_b *b, size_t k, const size_t end, tile_acc acc,
                                      vf *low)
{
    const float *other = a + TILE_OTHER_ROWS * a_row;
    for (; A_STEP > 1 && k + A_STEP <= end; k += A_STEP)
        tile_step(pairs, first, vecs, true, a + k, other + k, a_row, b, acc, low);
    for (; k < end; k++)
        tile_step(pairs, first, vecs, false, a + k, other + k, a_row, b, acc, low);
    return k;
}

/* The same, a whole tile of floats in turns of TILE_STEPS. */
static ALWAYS_INLINE size_t tile_run(const bool pairs, const int first, const int vecs, const float *a,
                                     const size_t a_row, struct tile_b *b, size_t k, const size_t end, tile_acc acc,
                                     vf *low)
{
    for (; TILE_STEPS > 1 && first == 0 && vecs == TILE_VECS && !pairs && k + TILE_STEPS <= end; k += TILE_STEPS) {
        const float *at = a + k, *other = at + TILE_OTHER_ROWS * a_row;
        TILE_OPAQUE(at);
        TILE_OPAQUE(other);
        TILE_OPAQUE(b->data);
        tile_step(false, 0, vecs, false, at, other, a_row, b, acc, low);
        tile_step(false, 0, vecs, false, at + 1, other + 1, a_row, b, acc, low);
        tile_step(false, 0, vecs, false, at + 2, other + 2, a_row, b, acc, low);
        tile_step(false, 0, vecs, false, at + 3, other + 3, a_row, b, acc, low);
    }
    return tile_each(pairs, first, vecs, a, a_row, b, k, end, acc, low);
}

/* What a task of many rows multiplies by. A tile narrower than four panels meets packed operands alone there, see
 * block_values(): then a step of k is a constant, and no instruction. */
#define TILE_PACKED (TILE_VECS * V_LANES < 4 * PANEL)
static ALWAYS_INLINE struct tile_b tile_operand(const struct tile_b b)
{
    return (struct tile_b){b.data, TILE_PACKED ? PANEL : b.k_stride, b.panel_stride};
}

/* s[r * s_row + column] = the chains over all of k < n. In pairs: false where they may not be exact. */
static ALWAYS_INLINE bool tile_scores(const bool pairs, const int rows, const int vecs, const float *a,
                                      const size_t a_row, struct tile_b b, const size_t n, float *s, const size_t s_row)
{
    const int first = TILE_ROWS - rows;
    tile_acc acc;
    vf low = v_low_none();
    b = tile_operand(b);
    a = TILE_BEFORE(a, (size_t)first * a_row);
    s = TILE_BEFORE(s, (size_t)first * s_row);
    tile_zero(vecs, acc);
#define DO(r)                                                                                                          \
    if (r < TILE_ROWS && r == first) tile_run(pairs, r, vecs, a, a_row, &b, 0, n, acc, &low);
    EACH_ROW(DO)
#undef DO
#define DO(r)                                                                                                          \
    if (tile_has(first, r)) row_store(vecs, acc[r], s + r * s_row);
    EACH_ROW(DO)
#undef DO
    return !tile_in_doubt(pairs, low);
}

static ALWAYS_INLINE void vec_scale(const vf acc, const vf scale, float *to, vf *best)
{
    const vf t = v_mul(acc, scale);
    v_store(to, t);
    *best = v_max(t, *best);
}

static ALWAYS_INLINE void row_scaled(const vf acc[MAX_VECS], const vf scale, float *to, float *best)
{
    vf most = v_load(best);
    vec_scale(acc[0], scale, to, &most);
    if (TILE_VECS > 1) vec_scale(acc[1], scale, to + V_LANES, &most);
    if (TILE_VECS > 2) vec_scale(acc[2], scale, to + 2 * V_LANES, &most);
    if (TILE_VECS > 3) vec_scale(acc[3], scale, to + 3 * V_LANES, &most);
    v_store(best, most);
}

/* tile_scores() of floats in a tile of full width: times c on their way to s, and row r's largest so far, lane by lane,
 * in best + r * V_LANES. Beside the stores, for which the tile waits anyway, both cost next to nothing. */
static ALWAYS_INLINE void tile_scaled(const int rows, const float *a, const size_t a_row, struct tile_b b,
                                      const size_t n, const float c, float *s, const size_t s_row, float *best)
{
    const int first = TILE_ROWS - rows;
    tile_acc acc;
    vf none = v_low_none();
    const vf scale = v_set1(c);
    b = tile_operand(b);
    a = TILE_BEFORE(a, (size_t)first * a_row);
    s = TILE_BEFORE(s, (size_t)first * s_row);
    best = TILE_BEFORE(best, first * V_LANES);
    tile_zero(TILE_VECS, acc);
#define DO(r)                                                                                                          \
    if (r < TILE_ROWS && r == first) tile_run(false, r, TILE_VECS, a, a_row, &b, 0, n, acc, &none);
    EACH_ROW(DO)
#undef DO
#define DO(r)                                                                                                          \
    if (tile_has(first, r)) row_scaled(acc[r], scale, s + r * s_row, best + r * V_LANES);
    EACH_ROW(DO)
#undef DO
}

/* One row's last pair, which has no second key: whatever stands in its place is not looked at. */
static ALWAYS_INLINE void tile_half_step(const int vecs, const float *a, const struct tile_b *b, vf acc[MAX_VECS],
                                         vf *low)
{
    vf bv[MAX_VECS];
    tile_columns(vecs, b, bv);
    bv[0] = v_first_of_pair(bv[0]);
    if (vecs > 1) bv[1] = v_first_of_pair(bv[1]);
    if (vecs > 2) bv[2] = v_first_of_pair(bv[2]);
    if (vecs > 3) bv[3] = v_first_of_pair(bv[3]);
    row_step(true, false, vecs, a_load1(a), 0, bv, acc, low);
}

/* O[r][column] = fma(O, old[r], chain * fresh[r]), the chain of row r over k < end[r], end ascending. In pairs end
 * counts keys, two to a k; false, and O as it was, where the chains may not be exact. */
static ALWAYS_INLINE bool tile_fold(const bool pairs, const int rows, const int vecs, const float *a,
                                    const size_t a_row, struct tile_b b, const size_t *end, float *o,
                                    const size_t o_row, const float *old, const float *fresh)
{
    const int first = TILE_ROWS - rows;
    size_t k = 0;
    tile_acc acc;
    vf low = v_low_none();
    b = tile_operand(b);
    a = TILE_BEFORE(a, (size_t)first * a_row);
    o = TILE_BEFORE(o, (size_t)first * o_row);
    end = TILE_BEFORE(end, first);
    old = TILE_BEFORE(old, first);
    fresh = TILE_BEFORE(fresh, first);
    tile_zero(vecs, acc);
#define DO(r)                                                                                                          \
    if (tile_has(first, r)) {                                                                                          \
        k = tile_run(pairs, r, vecs, a, a_row, &b, k, pairs ? end[r] / 2 : end[r], acc, &low);                         \
        if (pairs && end[r] % 2 != 0) tile_half_step(vecs, a + r * a_row + k, &b, acc[r], &low);                       \
    }
    EACH_ROW(DO)
#undef DO
    if (tile_in_doubt(pairs, low)) return false;
#define DO(r)                                                                                                          \
    if (tile_has(first, r)) row_fold(vecs, acc[r], o + r * o_row, old + r, fresh + r);
    EACH_ROW(DO)
#undef DO
    return true;
}

#if V_HALF
/* Spells out a statement for every two rows of a tile: row 2 i and the next. */
#define EACH_PAIR(DO) DO(0) DO(1) DO(2) DO(3)

_Static_assert(TILE_ROWS % 2 == 0, "rows share registers two by two");

/* The last half of a vector of columns, of rows r and r + 1 in one register. Where the first is not among the rows from
 * `first` on, its half stays as it is. */
static ALWAYS_INLINE void pair_step(const int first, const int r, const va av[MAX_ROWS], const vf columns, vf *acc)
{
    *acc = first > r ? h_fma_upper(av[r + 1], columns, *acc) : v_fma(h_join(av[r], av[r + 1]), columns, *acc);
}

/* `vecs` vectors of columns and half a one behind them, from k to `end`: see tile_run(). */
static ALWAYS_INLINE size_t tile_half_run(const int first, const int vecs, const float *a, const size_t a_row,
                                          struct tile_b *b, size_t k, const size_t end, tile_acc acc,
                                          vf half[MAX_ROWS / 2])
{
    vf none = v_low_none(), bv[MAX_VECS];
    va av[MAX_ROWS];
    for (; k < end; k++, b->data += b->k_stride) {
        const vf columns = h_twice(tile_b_at(b, vecs));
        tile_columns(vecs, b, bv);
#define DO(r)                                                                                                          \
    if (tile_has(first, r)) {                                                                                          \
        av[r] = a_load1(a + r * a_row + k);                                                                            \
        row_step(false, false, vecs, av[r], 0, bv, acc[r], &none);                                                     \
        if (r % 2 == 1) pair_step(first, r - 1, av, columns, &half[r / 2]);                                            \
    }
        EACH_ROW(DO)
#undef DO
    }
    return k;
}

/* Of rows 2 i and 2 i + 1, or of the second alone. */
static ALWAYS_INLINE void pair_fold(const bool both, const vf acc, float *o, const size_t o_row, const float *old,
                                    const float *fresh)
{
    const int i = !both;
    const vf before = h_load(o + i * o_row, o + o_row), was = h_join(v_set1(old[i]), v_set1(old[1]));
    const vf sum = v_fma(before, was, v_mul(acc, h_join(v_set1(fresh[i]), v_set1(fresh[1]))));
    h_store_upper(o + o_row, sum);
    if (both) h_store(o, sum);
}

/* tile_fold() of floats on them. */
static ALWAYS_INLINE void tile_half_fold(const int rows, const int vecs, const float *a, const size_t a_row,
                                         struct tile_b b, const size_t *end, float *o, const size_t o_row,
                                         const float *old, const float *fresh)
{
    const int first = TILE_ROWS - rows;
    size_t k = 0;
    tile_acc acc;
    vf half[MAX_ROWS / 2];
    a = TILE_BEFORE(a, (size_t)first * a_row);
    o = TILE_BEFORE(o, (size_t)first * o_row);
    end = TILE_BEFORE(end, first);
    old = TILE_BEFORE(old, first);
    fresh = TILE_BEFORE(fresh, first);
    tile_zero(vecs, acc);
#define DO(i)                                                                                                          \
    if (2 * i < TILE_ROWS) half[i] = v_zero();
    EACH_PAIR(DO)
#undef DO
#define DO(r)                                                                                                          \
    if (tile_has(first, r)) k = tile_half_run(r, vecs, a, a_row, &b, k, end[r], acc, half);
    EACH_ROW(DO)
#undef DO
#define DO(r)                                                                                                          \
    if (tile_has(first, r)) row_fold(vecs, acc[r], o + r * o_row, old + r, fresh + r);
    EACH_ROW(DO)
#undef DO
    o += vecs * V_LANES;
#define DO(i)                                                                                                          \
    if (tile_has(first, 2 * i + 1))                                                                                    \
        pair_fold(2 * i >= first, half[i], o + 2 * i * o_row, o_row, old + 2 * i, fresh + 2 * i);
    EACH_PAIR(DO)
#undef DO
}
#endif

#endif
