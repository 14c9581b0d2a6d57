/* A block of keys that some of a tile's rows see in part: where windows begin, behind sinks, under a tree. The chains
 * of P V then lie in memory and go on patch by patch, a patch being keys that the same rows see; each row's order of
 * operations is the same as ever. What a row does not see takes part in nothing. */
#ifndef TRIL_ENGINE_EDGE_H
#define TRIL_ENGINE_EDGE_H

#include "block.h"
#if TIER_F32
#include "few_values.h"
#endif

#define EDGE_ROW TRIL_FEW_SCORE_ROW

/* Scores of the keys that any of the rows sees, whole panels of them. */
static void edge_scores(const struct tril_job *job, const struct block *block, size_t r, int n, const uint8_t *seen,
                        const float *ws, float *s, size_t s_row)
{
    for (int from = 0, to; from < block->keys; from = to) {
        bool any[2] = {false, false}; /* in the first panel, in the one at `to` */
        for (to = from; to < block->keys && any[0] == any[1]; to += any[0] == any[1] ? PANEL : 0) {
            any[1] = false;
            for (int k = to; k < to + PANEL && k < block->keys; k++)
                any[1] |= seen[k] != 0;
            if (to == from) any[0] = any[1];
        }
        if (any[0]) block_scores(job, block, r, n, from, to < block->keys ? to : block->keys, ws, s, s_row);
    }
}

#if TIER_F32
static void edge_chains(const struct tril_job *job, const uint8_t *seen, int keys, int n, const float *p,
                        const struct tile_b *values, float *o)
{
    const size_t o_row = (size_t)job->plan->v_row;
    const int vecs = (int)o_row / V_LANES;
    struct few_stream none = {.idle = (const char *)p};
    for (struct patch patch = {0}; next_patch(seen, keys, n, &patch);) {
        for (int j = 0, width; j < vecs; j += width) {
            width = tile_share(vecs - j, TILE_VECS);
            const struct tile_b b = {tile_b_at(values, j) + (size_t)patch.from * values->k_stride, values->k_stride,
                                     values->panel_stride};
            more_by_vecs[width - 1](patch.rows, p + patch.row * EDGE_ROW, &b, (size_t)patch.from, (size_t)patch.to,
                                    o + (size_t)patch.row * o_row + j * V_LANES, o_row, &none);
        }
    }
}
#endif

#if TIER_BF16
/* One row's chains over pairs of keys, in `vecs` vectors; false, and o as it was, where they may not be exact. */
static ALWAYS_INLINE bool edge_pair_chain(const int vecs, const uint8_t *seen, const int bit, const int keys,
                                          const float *p, struct tile_b b, float *o)
{
    vf acc[MAX_VECS], low = v_low_none();
    row_zero(vecs, acc);
    for (int k = 0; k < keys; k += 2, b.data += b.k_stride) {
        const bool first = (seen[k] >> bit & 1) != 0, second = k + 1 < keys && (seen[k + 1] >> bit & 1) != 0;
        vf bv[MAX_VECS];
        if (!first && !second) continue;
        tile_columns(vecs, &b, bv);
        UNROLL
        for (int j = 0; j < vecs; j++)
            bv[j] = first && second ? bv[j] : first ? v_first_of_pair(bv[j]) : v_second_of_pair(bv[j]);
        row_step(true, false, vecs, a_load1(p + k / 2), 0, bv, acc, &low);
    }
    if (tile_in_doubt(true, low)) return false;
    row_store(vecs, acc, o);
    return true;
}

/* The same without haste, one column after the other. */
static NOINLINE void edge_slow_chain(int vecs, const uint8_t *seen, int bit, int keys, const float *p,
                                     const struct tile_b *b, float *o)
{
    for (int j = 0; j < vecs * V_LANES; j++) {
        const float *column = b->data + (size_t)(j / PANEL) * b->panel_stride + (size_t)(j % PANEL);
        float s = 0.0f;
        for (int k = 0; k < keys; k += 2) {
            const uint32_t first = (seen[k] >> bit & 1) != 0 ? 0xffff : 0;
            const uint32_t second = k + 1 < keys && (seen[k + 1] >> bit & 1) != 0 ? 0xffff0000 : 0;
            const uint32_t keep = first | second;
            if (keep == 0) continue;
            s = slow_dot(tril_float_to_bits(p[k / 2]) & keep,
                         tril_float_to_bits(column[(size_t)(k / 2) * b->k_stride]) & keep, s);
        }
        o[j] = s;
    }
}

static NOINLINE void edge_pair_vec(const uint8_t *seen, int bit, int keys, const float *p, const struct tile_b *b,
                                   float *o)
{
    if (!edge_pair_chain(1, seen, bit, keys, p, *b, o)) edge_slow_chain(1, seen, bit, keys, p, b, o);
}

static NOINLINE void edge_pair_tile(const uint8_t *seen, int bit, int keys, const float *p, const struct tile_b *b,
                                    float *o)
{
    if (!edge_pair_chain(TILE_VECS, seen, bit, keys, p, *b, o)) edge_slow_chain(TILE_VECS, seen, bit, keys, p, b, o);
}

/* A row for itself: its few chains keep the unit for pairs as busy as those of a tile do. */
static void edge_pair_chains(const struct tril_job *job, const uint8_t *seen, int keys, int n, const float *p,
                             const struct tile_b *values, float *o)
{
    const int vecs = (int)job->plan->v_row / V_LANES;
    for (int i = 0; i < n; i++, p += EDGE_ROW, o += job->plan->v_row) {
        for (int j = 0; j < vecs;) {
            const struct tile_b b = {tile_b_at(values, j), values->k_stride, values->panel_stride};
            const bool tile = vecs - j >= TILE_VECS;
            (tile ? edge_pair_tile : edge_pair_vec)(seen, i, keys, p, &b, o + j * V_LANES);
            j += tile ? TILE_VECS : 1;
        }
    }
}
#endif

static void edge_outputs(const struct tril_job *job, const uint8_t *seen, int keys, int n, const float *p,
                         const struct tile_b *values, float *o)
{
    for (size_t i = 0; i < (size_t)n * (size_t)job->plan->v_row; i += V_LANES)
        v_store(o + i, v_zero());
#if TIER_BF16
    if (in_pairs(job)) {
        edge_pair_chains(job, seen, keys, n, p, values, o);
        return;
    }
#endif
#if TIER_F32
    edge_chains(job, seen, keys, n, p, values, o);
#endif
}

#endif
