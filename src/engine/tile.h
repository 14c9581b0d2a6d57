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
 *   V_LANES, V_REGS        floats in a vector, vector registers of the instruction set (vec_*.h)
 *   A_STEP, A_REGS         values of k in one register of A, registers of A alive at once (vec_*.h)
 *
 * The tile is a triangle where the diagonal asks for it: row r takes part for k < end[r], with end ascending, so the
 * loop over k runs in sections, each with one row less, and the accumulators stay in registers from the first section
 * to the last.
 */
#ifndef TRIL_ENGINE_TILE_H
#define TRIL_ENGINE_TILE_H

#include "vec.h"

#define MAX_ROWS 8
#define MAX_VECS 4

_Static_assert(TILE_ROWS *TILE_VECS + TILE_VECS + A_REGS <= V_REGS, "the tile does not fit the register file");
_Static_assert(TILE_ROWS <= MAX_ROWS && TILE_VECS <= MAX_VECS, "the tile is spelled out up to 8 x 4");
_Static_assert(PANEL % V_LANES == 0 && (A_STEP == 1 || A_STEP == 4), "a vector lies in one panel");

/* Where the B operand lies: vector j of the tile at k is at  data + k * k_stride + offset of column j * V_LANES,  with
 * panel_stride floats from a panel of 16 columns to the next. */
struct tile_b {
    const float *data;
    size_t k_stride, panel_stride;
};

static ALWAYS_INLINE const float *tile_b_at(const struct tile_b *b, const int j)
{
    return b->data + (size_t)(j * V_LANES / PANEL) * b->panel_stride + (size_t)(j * V_LANES % PANEL);
}

/* The accumulators: what rows and vecs do not reach is never touched, so no register stands for it. Indices are literal
 * throughout, not loop counters: compilers keep an array in registers only if every index is a constant early on, and
 * clang 14 does not see that through nested loops that it is yet to unroll. */
typedef vf tile_acc[MAX_ROWS][MAX_VECS];

static ALWAYS_INLINE bool tile_has(const int first, const int rows, const int r)
{
    return first <= r && r < rows;
}

static ALWAYS_INLINE void row_zero(const int vecs, vf acc[MAX_VECS])
{
    acc[0] = v_zero();
    if (vecs > 1) acc[1] = v_zero();
    if (vecs > 2) acc[2] = v_zero();
    if (vecs > 3) acc[3] = v_zero();
}

static ALWAYS_INLINE void row_step(const int vecs, const va a, const int lane, const vf b[MAX_VECS], vf acc[MAX_VECS])
{
    acc[0] = a_fma(a, lane, b[0], acc[0]);
    if (vecs > 1) acc[1] = a_fma(a, lane, b[1], acc[1]);
    if (vecs > 2) acc[2] = a_fma(a, lane, b[2], acc[2]);
    if (vecs > 3) acc[3] = a_fma(a, lane, b[3], acc[3]);
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

static ALWAYS_INLINE void tile_zero(const int rows, const int vecs, tile_acc acc)
{
    row_zero(vecs, acc[0]);
    if (rows > 1) row_zero(vecs, acc[1]);
    if (rows > 2) row_zero(vecs, acc[2]);
    if (rows > 3) row_zero(vecs, acc[3]);
    if (rows > 4) row_zero(vecs, acc[4]);
    if (rows > 5) row_zero(vecs, acc[5]);
    if (rows > 6) row_zero(vecs, acc[6]);
    if (rows > 7) row_zero(vecs, acc[7]);
}

/* A's registers for rows first ... rows-1: A_STEP values of k each, or one. */
static ALWAYS_INLINE va tile_a(const bool whole, const float *a)
{
    return whole ? a_load(a) : a_load1(a);
}

/* One k of the chain, for rows first ... rows-1. Where A's registers hold one value each (A_STEP 1), a value is loaded
 * when its row's turn comes, so that one register serves all rows. */
static ALWAYS_INLINE void tile_lane(const int first, const int rows, const int vecs, const int lane,
                                    const va av[MAX_ROWS], const float *a, const size_t a_row, const struct tile_b *b,
                                    tile_acc acc)
{
    vf bv[MAX_VECS];
    bv[0] = v_load(tile_b_at(b, 0));
    if (vecs > 1) bv[1] = v_load(tile_b_at(b, 1));
    if (vecs > 2) bv[2] = v_load(tile_b_at(b, 2));
    if (vecs > 3) bv[3] = v_load(tile_b_at(b, 3));
    const bool held = A_STEP > 1;
    if (tile_has(first, rows, 0)) row_step(vecs, held ? av[0] : a_load1(a), lane, bv, acc[0]);
    if (tile_has(first, rows, 1)) row_step(vecs, held ? av[1] : a_load1(a + a_row), lane, bv, acc[1]);
    if (tile_has(first, rows, 2)) row_step(vecs, held ? av[2] : a_load1(a + 2 * a_row), lane, bv, acc[2]);
    if (tile_has(first, rows, 3)) row_step(vecs, held ? av[3] : a_load1(a + 3 * a_row), lane, bv, acc[3]);
    if (tile_has(first, rows, 4)) row_step(vecs, held ? av[4] : a_load1(a + 4 * a_row), lane, bv, acc[4]);
    if (tile_has(first, rows, 5)) row_step(vecs, held ? av[5] : a_load1(a + 5 * a_row), lane, bv, acc[5]);
    if (tile_has(first, rows, 6)) row_step(vecs, held ? av[6] : a_load1(a + 6 * a_row), lane, bv, acc[6]);
    if (tile_has(first, rows, 7)) row_step(vecs, held ? av[7] : a_load1(a + 7 * a_row), lane, bv, acc[7]);
}

/* A_STEP values of k (whole), or one. */
static ALWAYS_INLINE void tile_step(const int first, const int rows, const int vecs, const bool whole, const float *a,
                                    const size_t a_row, struct tile_b *b, tile_acc acc)
{
    va av[MAX_ROWS];
    if (A_STEP > 1) {
        if (tile_has(first, rows, 0)) av[0] = tile_a(whole, a);
        if (tile_has(first, rows, 1)) av[1] = tile_a(whole, a + a_row);
        if (tile_has(first, rows, 2)) av[2] = tile_a(whole, a + 2 * a_row);
        if (tile_has(first, rows, 3)) av[3] = tile_a(whole, a + 3 * a_row);
        if (tile_has(first, rows, 4)) av[4] = tile_a(whole, a + 4 * a_row);
        if (tile_has(first, rows, 5)) av[5] = tile_a(whole, a + 5 * a_row);
        if (tile_has(first, rows, 6)) av[6] = tile_a(whole, a + 6 * a_row);
        if (tile_has(first, rows, 7)) av[7] = tile_a(whole, a + 7 * a_row);
    }
    tile_lane(first, rows, vecs, 0, av, a, a_row, b, acc);
    b->data += b->k_stride;
    if (A_STEP > 1 && whole) {
        tile_lane(first, rows, vecs, 1, av, a, a_row, b, acc);
        b->data += b->k_stride;
        tile_lane(first, rows, vecs, 2, av, a, a_row, b, acc);
        b->data += b->k_stride;
        tile_lane(first, rows, vecs, 3, av, a, a_row, b, acc);
        b->data += b->k_stride;
    }
}

/* Rows first ... rows-1 from k on to `end`; returns where it ended. */
static ALWAYS_INLINE size_t tile_section(const int first, const int rows, const int vecs, const float *a,
                                         const size_t a_row, struct tile_b *b, size_t k, const size_t end, tile_acc acc)
{
    for (; A_STEP > 1 && k + A_STEP <= end; k += A_STEP)
        tile_step(first, rows, vecs, true, a + k, a_row, b, acc);
    for (; k < end; k++)
        tile_step(first, rows, vecs, false, a + k, a_row, b, acc);
    return k;
}

/* s[r * s_row + column] = the chains over all of k < n. */
static ALWAYS_INLINE void tile_scores(const int rows, const int vecs, const float *a, const size_t a_row,
                                      struct tile_b b, const size_t n, float *s, const size_t s_row)
{
    tile_acc acc;
    tile_zero(rows, vecs, acc);
    tile_section(0, rows, vecs, a, a_row, &b, 0, n, acc);
    row_store(vecs, acc[0], s);
    if (rows > 1) row_store(vecs, acc[1], s + s_row);
    if (rows > 2) row_store(vecs, acc[2], s + 2 * s_row);
    if (rows > 3) row_store(vecs, acc[3], s + 3 * s_row);
    if (rows > 4) row_store(vecs, acc[4], s + 4 * s_row);
    if (rows > 5) row_store(vecs, acc[5], s + 5 * s_row);
    if (rows > 6) row_store(vecs, acc[6], s + 6 * s_row);
    if (rows > 7) row_store(vecs, acc[7], s + 7 * s_row);
}

/* O[r][column] = fma(O, old[r], chain * fresh[r]), the chain of row r over k < end[r], end ascending. */
static ALWAYS_INLINE void tile_fold(const int rows, const int vecs, const float *a, const size_t a_row, struct tile_b b,
                                    const size_t *end, float *o, const size_t o_row, const float *old,
                                    const float *fresh)
{
    tile_acc acc;
    tile_zero(rows, vecs, acc);
    size_t k = tile_section(0, rows, vecs, a, a_row, &b, 0, end[0], acc);
    if (rows > 1) k = tile_section(1, rows, vecs, a, a_row, &b, k, end[1], acc);
    if (rows > 2) k = tile_section(2, rows, vecs, a, a_row, &b, k, end[2], acc);
    if (rows > 3) k = tile_section(3, rows, vecs, a, a_row, &b, k, end[3], acc);
    if (rows > 4) k = tile_section(4, rows, vecs, a, a_row, &b, k, end[4], acc);
    if (rows > 5) k = tile_section(5, rows, vecs, a, a_row, &b, k, end[5], acc);
    if (rows > 6) k = tile_section(6, rows, vecs, a, a_row, &b, k, end[6], acc);
    if (rows > 7) k = tile_section(7, rows, vecs, a, a_row, &b, k, end[7], acc);
    row_fold(vecs, acc[0], o, old, fresh);
    if (rows > 1) row_fold(vecs, acc[1], o + o_row, old + 1, fresh + 1);
    if (rows > 2) row_fold(vecs, acc[2], o + 2 * o_row, old + 2, fresh + 2);
    if (rows > 3) row_fold(vecs, acc[3], o + 3 * o_row, old + 3, fresh + 3);
    if (rows > 4) row_fold(vecs, acc[4], o + 4 * o_row, old + 4, fresh + 4);
    if (rows > 5) row_fold(vecs, acc[5], o + 5 * o_row, old + 5, fresh + 5);
    if (rows > 6) row_fold(vecs, acc[6], o + 6 * o_row, old + 6, fresh + 6);
    if (rows > 7) row_fold(vecs, acc[7], o + 7 * o_row, old + 7, fresh + 7);
}

#endif
