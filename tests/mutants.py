"""The mutants that the suites must kill: each is a tier with one small mistake.

A mutant is a file under src/, text that occurs there exactly once, and what takes its place. Every mutant becomes one
self-contained C file: the tier's source with the project's own headers inlined and the mistake made on the way, its
table renamed. A text that is not found any more makes a mutant without kernels, which test_mutants reports: bring the
list up to date with the source then.

To compile them is most of the cost, so each has no more than its mistake needs. A mutant of the engine computes one
math mode; the other one's calls go to the tier without mistakes, the way a tier may leave a mode to another one
(tril_kernels.instead). A mistake in what all tiers share is made in the scalar tier. One outside the tiers comes with a
copy of the scalar tier and of the whole library.

  mutants.py list ENGINE_TIER                                 the mutants' names, one per line
  mutants.py make SRC ENGINE_TIER ENGINE_SOURCE OUTDIR        mutant_<name>.c for all, and mutant_table.c
"""

import os
import re
import sys

# The engine's, made with the host's first tier that has one (avx2, neon), of math mode F32.
ENGINE = [
    ('control', 'engine/attend.h', '', ''),
    # the triangle
    ('sees_next_key', 'sight.h', 'position < 0 ? 0 : position + 1', 'position < -1 ? 0 : position + 2'),
    ('misses_itself', 'sight.h', 'position < 0 ? 0 : position + 1', 'position < 1 ? 0 : position'),
    ('block_offset', 'engine/block.h', '(ahead ? 0 : first) - task->position;',
     '(ahead ? 0 : first + (first > 0)) - task->position;'),
    ('group_rounding', 'engine/pack.h', 'if (++g < group) continue;', 'if (++g <= group) continue;'),
    ('first_row', 'engine/block.h', '(size_t)(queries_before(job, task, first) * job->plan->group)',
     '(size_t)(queries_before(job, task, first) * job->plan->group) + (first == 256)'),
    ('last_block_short', 'engine/block.h', 'left < TRIL_KEY_BLOCK ? (int)left :',
     'left < TRIL_KEY_BLOCK ? (int)left - (left == 17) :'),
    ('packed_step', 'engine/tile.h', 'TILE_PACKED ? PANEL : b.k_stride', 'TILE_PACKED ? 2 * PANEL : b.k_stride'),
    ('diagonal_of_tile', 'engine/tile.h', 'k = tile_run(pairs, r, vecs', 'k = tile_run(pairs, r > 3 ? r - 1 : r, vecs'),
    # whole blocks, scaled in the tile
    ('whole_for_all_rows', 'engine/block.h', 'end[0] == TRIL_KEY_BLOCK', 'end[n - 1] == TRIL_KEY_BLOCK'),
    ('scaled_not_begun', 'engine/block.h', 'v_store(best + i * V_LANES, v_set1(MINUS_INF));',
     'v_store(best + i * V_LANES, v_zero());'),
    ('scaled_forgets_a_tile', 'engine/tile.h', 'vf most = v_load(best);', 'vf most = v_set1(-__builtin_inff());'),
    # tails and padding
    ('score_tail', 'engine/block.h', '(end + V_LANES - 1) / V_LANES', '(end + V_LANES - 2) / V_LANES'),
    ('invisible_kept', 'engine/softmax.h', 'v_keep(v_mul(v_load(s + i), vc), lanes_of(n - i), MINUS_INF',
     'v_keep(v_mul(v_load(s + i), vc), lanes_of(n - i + 1), MINUS_INF'),
    ('finite_minus_inf', 'engine/softmax.h', '#define MINUS_INF (-__builtin_inff())', '#define MINUS_INF (-1e4f)'),
    ('key_past_the_last', 'engine/pack.h', 'r[i] = i >= n ? v_zero()',
     'row = (const void *)(from + i * stride); r[i] = i > n ? v_zero()'),
    ('value_tail_dropped', 'engine/pack.h', 'load_some(type, row, d + u, dims - d - u, s)',
     'load_some(type, row, d + u, dims - d - u - (dims == 17), s)'),
    ('value_read_past_row', 'engine/load.h',
     'n >= V_LANES ? load_vec(type, row, d, scale) : load_part(type, row, d, n < 0 ? 0 : n, scale)',
     'load_vec(type, row, d, scale)'),
    ('key_read_past_row', 'engine/pack.h', 'dims == V_LANES ? v_load(row) : v_load_part(row, dims)', 'v_load(row)'),
    ('output_past_v_dim', 'engine/load.h', 'v_store_part(f + d, dim - d,', 'v_store_part(f + d, V_LANES,'),
    ('weights_past_visible', 'engine/weights.h', 'v_store_part(to, n, v_div(', 'v_store_part(to, V_LANES, v_div('),
    ('aligned_past_the_end', 'engine/weights.h', 'return head < n ? head : n;', 'return head;'),
    ('run_boundary', 'engine/weights.h', 'row[i].view.end <= first + RUN_KEYS',
     'row[i].view.end < first + RUN_KEYS'),
    ('weights_not_zeroed', 'engine/weights.h', '(float *)(void *)to + from, next - from);',
     '(float *)(void *)to + from, next - from - 1);'),
    # where things lie
    ('query_head', 'engine/pack.h', 'task->head * group + g', 'task->head + g'),
    ('key_offset', 'engine/pack.h', 'rows_from(job, task, k, first + key, head)',
     'tril_rows_at(job, task, k, first + key - task->seq->kv_first, head)'),
    ('value_head', 'engine/pack.h', 'rows_from(job, task, v, first + key, task->head)',
     'tril_rows_at(job, task, v, first + key, 0)'),
    ('statistics_forgotten', 'engine/attend.h', 'tril_store_statistics(to, max, sum);', ';'),
    # special values
    ('nan_in_max', 'engine/softmax.h', 'const vf base = v_ninf_to_zero(v_set1(max));', 'const vf base = v_set1(max);'),
    ('nan_dropped_by_exp2', 'engine/exp2.h', 'n[u] = v_rint(x[u]);',
     'n[u] = v_rint(x[u] = v_max(x[u], v_set1(-200.0f)));'),
    ('fold_of_minus_inf', 'engine/softmax.h', 'base = v_ninf_to_zero(top)', 'base = top'),
    ('no_key_divides', 'engine/load.h', 'v_set1(sum != 0.0f ? sum : 1.0f)', 'v_set1(sum)'),
    ('minus_zero_max', 'engine/softmax.h', ') + 0.0f; /*', '); /*'),
    # stored types
    ('q4_halves_swapped', 'engine/load.h', 'd % TRIL_Q_BLOCK >= TRIL_Q_BLOCK / 2',
     'd % TRIL_Q_BLOCK < TRIL_Q_BLOCK / 2'),
    ('q8_scale_of_first_block', 'engine/load.h', 'v_mul(v_set1_f16(row), v_load_i8(',
     'v_mul(v_set1_f16(row - d / TRIL_Q_BLOCK * TRIL_Q8_BYTES), v_load_i8('),
    ('scale_of_first_row', 'kernels.h', 'rows->scales + i * rows->scale_stride', 'rows->scales'),
    ('stored_tail_short', 'engine/load.h', '(size_t)(n * unit)', '(size_t)((n - (n == 3)) * unit)'),
    ('stored_tail_past_row', 'engine/load.h', '(size_t)(n * unit)', '(size_t)(V_LANES * unit)'),
    ('half_output_past_row', 'engine/load.h', 'some, (size_t)(dim - d) * 2);', 'some, sizeof some);'),
    # order and rounding
    ('fold_swapped', 'engine/softmax.h', 'v_fma(v_load_part(row_sum + r, n), a, v_mul(v_load_part(sum + r, n), b))',
     'v_fma(v_load_part(sum + r, n), b, v_mul(v_load_part(row_sum + r, n), a))'),
    ('fold_split', 'engine/tile.h', 'v_fma(v_load(o), old, v_mul(acc, fresh))',
     'v_add(v_mul(v_load(o), old), v_mul(acc, fresh))'),
    ('running_max', 'engine/softmax.h', 'top = v_max(mb, m)', 'top = v_max(v_add(mb, v_set1(1.0f)), m)'),
    ('divide_by_reciprocal', 'engine/load.h', 'v_store(f + d, v_div(v_load(o + d), l))',
     'v_store(f + d, v_mul(v_load(o + d), v_div(v_set1(1.0f), l)))'),
    ('exp2_coefficient', 'engine/exp2.h', '0x1.c6af76p-5f', '0x1.c6af78p-5f'),
    ('never_closed', 'engine/block.h', 'row->view.end <= next ||', 'row->view.end < next ||'),
    ('exp2_fma_split', 'engine/exp2.h', 'v_fma(q[u], r[u], v_set1(c[i]))', 'v_add(v_mul(q[u], r[u]), v_set1(c[i]))'),
    ('sum_lanes', 'engine/softmax.h', 'sum[u % SUM_VECS] = v_add(sum[u % SUM_VECS], p[u]);',
     'sum[u % 1] = v_add(sum[u % 1], p[u]);'),
    # few rows
    ('few_row_end', 'engine/few_values.h',
     'return (size_t)row_end[i] < end ? (size_t)row_end[i] : end;', 'return end;'),
    ('few_last_key', 'engine/few.h', 'end < keys ? (int)end : keys;\n    return',
     'end < keys ? (int)end : keys - (keys == 17);\n    return'),
    ('few_position', 'engine/few.h', 'row[r] = tril_task_row(job, task, r);',
     'row[r] = tril_task_row(job, task, r); row[r].view.end -= r == 9;'),
    ('few_value_tail_dropped', 'engine/few_values.h', 'whole < dims ? to : NULL', 'whole + 1 < dims ? to : NULL'),
    ('few_value_tail_past_row', 'engine/few_values.h', 'stride + whole, dims - whole)', 'stride + whole, V_LANES)'),
    ('few_value_tail_place', 'engine/few_values.h', 'o + v.vecs * V_LANES, o_row, stream);',
     'o + (v.vecs - (v.vecs > 1)) * V_LANES, o_row, stream);'),
    ('few_last_dim', 'engine/few_dots.h', 'u < left; u++) {', 'u < left - (left == 3); u++) {'),
    ('few_last_rows', 'engine/few_dots.h', 'q += AT_ONCE * dims, s', 'q += r, s'),
    ('few_keys_past_the_extent', 'engine/few.h', 'done + V_LANES <= n; done += V_LANES',
     'done < n; done += V_LANES'),
    ('few_scores_of_third_head', 'engine/few.h', 'plan->s + (size_t)(head * rows) * FEW_ROW',
     'plan->s + (size_t)(head % 2 * rows) * FEW_ROW'),
    ('few_query_of_head', 'engine/few.h', 'plan->q + (size_t)(head * rows) * (size_t)dims', 'plan->q'),
    ('few_rows_of_chain', 'engine/few_values.h',
     'if (own > least)\n            few_chain(job, later', 'if (own > least && i < 5)\n            few_chain(job, later'),
    ('few_second_tile', 'engine/few.h', 'group, q + (size_t)r * (size_t)dims,', 'group, q,'),
    ('few_chains_not_begun', 'engine/few.h', '(size_t)(task->heads * rows * job->plan->v_row)',
     '(size_t)(rows * job->plan->v_row)'),
    ('few_fold_split', 'engine/attend.h', 'v_fma(v_load(o + d), v_set1(old), v_mul(v_load(block + d), v_set1(fresh)))',
     'v_add(v_mul(v_load(o + d), v_set1(old)), v_mul(v_load(block + d), v_set1(fresh)))'),
    ('few_weights', 'engine/weights.h', '(size_t)end[r] * sizeof(float));', '(size_t)(end[r] - (end[r] == 33)) * sizeof(float));'),
    # partial results
    ('raw_block_0', 'engine/attend.h', 'tril_begins_row(job, task, &row[i], block->first) ? 0.0f : -0.0f', '-0.0f'),
    ('raw_block_0_of_few', 'engine/attend.h', 'tril_begins_row(job, task, &row[r], first) && d < dims',
     'false && d < dims'),
    ('alone_keeps_the_maximum', 'engine/attend.h', 'fresh[i] = 1.0f;\n            row_max[i] = max[i];',
     'fresh[i] = 1.0f;\n            row_max[i] = row_max[i] > max[i] ? row_max[i] : max[i];'),
    ('fold_reversed', 'engine/softmax.h', 'for (int i = 0; i < n; i++) {\n        float old, fresh;',
     'for (int i = n - 1; i >= 0; i--) {\n        float old, fresh;'),
    ('fold_tail', 'engine/softmax.h', 'v_store_part(o + d, lanes, v_fma(',
     'v_store_part(o + d, V_LANES, v_fma('),
    ('weights_keep_end', 'engine/weights.h', 'if (row->view.end < end) end = row->view.end;', ''),
    ('weights_states_of_few', 'engine/weights.h',
     'if (tril_blockwise(job, task)) tril_store_statistics(&place, max[r], sum[r]);', ''),
    # panels
    ('panels_off_by_one', 'engine/pack.h', 'rows_from(job, task, k, first, head)',
     'tril_rows_at(job, task, k, first + (first > 0 ? PANEL : 0), head)'),
    ('panels_without_padding', 'engine/pack.h', '(size_t)k->token_stride * PANEL / sizeof(float)',
     'PANEL * (size_t)job->call->qk_dim'),
    ('panels_of_first_head', 'engine/few.h', 'panels_of(job, task, task->head + head,',
     'panels_of(job, task, task->head,'),
    ('panels_of_a_run', 'engine/weights.h', '[b].vec = b *',
     '[b].vec = (panels.panel_stride == PANEL * (size_t)job->call->qk_dim) * b *'),
    ('panels_of_any_type', 'engine/pack.h', 'k->layout == TRIL_PANELS && k->dtype == TRIL_F32 &&',
     'k->layout == TRIL_PANELS &&'),
    ('panels_in_place_across_pages', 'engine/pack.h', ' && tril_keys_together(job, key, n) == n', ''),
    ('panel_of_halves', 'engine/pack.h', 'load_vec(type, from.data, d * PANEL + u,',
     'load_vec(type, from.data, d * dims + u,'),
    ('panel_of_stored_dims', 'engine/few_stored.h', '.data + (int64_t)d * bytes,', '.data + (int64_t)(d - (d == 20)) * bytes,'),
    ('panel_scales', 'engine/few_stored.h', 'type == TRIL_I8 ? v_load(scales + j * V_LANES)',
     'type == TRIL_I8 ? v_load(scales + (j > 0 ? 1 : 0))'),
    ('values_across_pages', 'kernels.h', 'return left < n ? (int)left : n;', 'return n;'),
    # who sees whom, and what else scores become
    ('window_one_more', 'sight.h', 'position - call->window + 1;', 'position - call->window;'),
    ('sinks_forgotten', 'sight.h', 'view.sink = call->sink_tokens;', ''),
    ('prefix_one_less', 'sight.h', 'position < seq->prefix && position >= 0', 'position + 1 < seq->prefix && position >= 0'),
    ('tree_of_first_word', 'sight.h', '[token / 64]', '[0]'),
    ('edge_not_seen', 'engine/block.h', '(last->begin > block->first && last->sink < next)', '(last->begin > next)'),
    ('edge_few_not_seen', 'engine/few.h', '(row->view.begin > first && row->view.sink < next)',
     '(row->view.begin > next && row->view.sink < next)'),
    ('edge_hole_kept', 'engine/block.h', 's[key - first] = MINUS_INF;', 's[key - first] += key == from + 5 ? 0.0f : MINUS_INF;'),
    ('edge_panel_missed', 'engine/edge.h', 'k < to + PANEL && k < block->keys', 'k < to + PANEL - 1 && k < block->keys'),
    ('edge_empty_folded', 'engine/attend.h', '((any >> i & 1) != 0) {\n            if (alone)',
     '(true) {\n            if (alone)'),
    ('keys_behind_window_read', 'engine/block.h', 'begin = (task->begin - first) / PANEL * PANEL;', 'begin = 0;'),
    ('rows_behind_window', 'engine/block.h', 'if (view.begin < first + TRIL_KEY_BLOCK || view.sink > first) break;',
     'if (view.begin < first + TRIL_KEY_BLOCK - 1 || view.sink > first) break;'),
    ('queries_not_begun', 'engine/attend.h', 'const size_t from = begun < r ? r : begun;',
     'const size_t from = begun < r ? r : begun + (begun > 0);'),
    ('distance_of_block', 'engine/softmax.h', 'v_set1((float)(i / PANEL * PANEL))', 'v_set1((float)(i / PANEL))'),
    ('slope_of_first_head', 'engine/block.h', 'call->alibi_slopes[row->head]', 'call->alibi_slopes[0]'),
    ('tanh_sign', 'engine/exp2.h', 'return v_copysign(v_div(m, v_add(m, v_set1(2.0f))), x);',
     'return v_div(m, v_add(m, v_set1(2.0f)));'),
    ('tanh_of_large', 'engine/exp2.h', 'v_min(v_set1(30.0f), t)', 'v_min(v_set1(20.0f), t)'),
    ('sink_twice', 'engine/attend.h', 'fold_states(o, job->call->v_dim, &max, &sum, &sink, 1);',
     'fold_states(o, job->call->v_dim, &max, &sum, &sink, 1); sum += sink.sum * 0x1p-20f;'),
    ('sums_of_last_run', 'engine/weights.h', '&row[i], false, first, seen_to, s, max, sum);',
     '&row[i], false, first, seen_to - (seen_to == 300), s, max, sum);'),
    ('half_weights_tail', 'engine/weights.h', 'memcpy(to + i * 2, some, (size_t)(n - i) * 2);',
     'memcpy(to + i * 2, some, sizeof some);'),
    # convert
    ('convert_below_a_half', 'engine/convert.h', 'v_set1(0x1.fffffep-2f)', 'v_set1(0.5f)'),
    ('convert_first_of_equals', 'engine/convert.h', 'up < down ? -down : tril_peak(from, TRIL_Q_BLOCK)', '-down'),
    ('convert_nan_of_block', 'engine/convert.h', 'v_add(v_sub(up, down), v_set1(8.5f))', 'v_add(v, v_set1(8.5f))'),
    ('convert_end_short', 'engine/convert.h', '(size_t)(2 * (n - i))', '(size_t)(2 * (n - i - (n == 23)))'),
    ('convert_reads_past_row', 'engine/convert.h',
     'i + V_LANES <= n ? v_load(x + i) : v_load_part(x + i, (int)(n - i))', 'v_load(x + i)'),
]

# The engine's in math mode BF16.
PAIRS = [
    ('pairs_control', 'engine/attend.h', '', ''),
    ('pair_last_key', 'engine/tile.h', 'bv[0] = v_first_of_pair(bv[0]);', ''),
    ('pair_key_past_head', 'engine/pairs.h', 'd + 1 < dims ? v_load(from + PANEL + u) : v_zero()',
     'v_load(from + PANEL + u)'),
    ('pair_value_of_next_page', 'engine/pairs.h', '(size_t)(run / 2) * PANEL', '(size_t)run * PANEL'),
    ('pair_weights_cut', 'engine/pairs.h', 'v_store_weights(to + i, v_load(p + i));',
     'for (int u = 0; u < V_LANES; u++) to[i + u] = (uint16_t)(tril_float_to_bits(p[i + u]) >> 16);'),
    ('pair_sum_of_rounded', 'engine/softmax.h', 'sum[u % SUM_VECS] = v_add(sum[u % SUM_VECS], p[u]);',
     'uint16_t half[V_LANES]; v_store_bf16(half, p[u]);\n'
     'sum[u % SUM_VECS] = v_add(sum[u % SUM_VECS], v_load_bf16(half));'),
    ('pair_sum_in_doubt', 'engine/tile.h', 'pairs && !V_DOT_EXACT && v_low_any(low)', 'false'),
    # the same chains without haste
    ('slow_last_key', 'engine/pairs.h', 'k + 1 < n ? UINT32_MAX : 0xffff;', 'UINT32_MAX;'),
    ('slow_keeps_subnormal', 'engine/pairs.h', 'return __builtin_copysignf(0.0f, t);\n    const float small',
     'return t;\n    const float small'),
    ('slow_boundary', 'engine/pairs.h', 'if (!(__builtin_fabsf(t) <= limit))', 'if (!(__builtin_fabsf(t) < limit))'),
    ('slow_order', 'engine/pairs.h',
     'a & 0xffff0000), tril_bits_to_float(b & 0xffff0000), c);\n'
     '    return flushed_fma(tril_bits_to_float(a << 16), tril_bits_to_float(b << 16), t);',
     'a << 16), tril_bits_to_float(b << 16), c);\n'
     '    return flushed_fma(tril_bits_to_float(a & 0xffff0000), tril_bits_to_float(b & 0xffff0000), t);'),
]

# The vector headers', in math mode F32.
VECTOR = {
    'avx2': [
        ('sum_tree', 'x86/vec_avx2.h', 'c = _mm_add_ps(b, _mm_movehl_ps(b, b));\n    return _mm_cvtss_f32(_mm_add_ss',
         'c = _mm_add_ps(b, _mm_shuffle_ps(b, b, 0xb1));\n    return _mm_cvtss_f32(_mm_add_ss'),
        ('exp2_threshold', 'x86/vec_avx2.h', '_mm256_set1_ps(-126.0f)', '_mm256_set1_ps(-125.0f)'),
        ('max_takes_nan', 'x86/vec_avx2.h', '_mm256_max_ps(x, best)', '_mm256_max_ps(best, x)'),
        ('fma_split', 'x86/vec_avx2.h', '(void)lane;\n    return _mm256_fmadd_ps(a, b, c);',
         '(void)lane;\n    return _mm256_add_ps(_mm256_mul_ps(a, b), c);'),
        ('lane_mask', 'x86/vec_avx2.h', '_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)',
     '_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 6)'),
        ('bf16_ties', 'x86/vec_avx2.h', '_mm256_set1_epi32(0x7fff)), odd), 16)',
         '_mm256_set1_epi32(0x8000)), odd), 16)'),
        ('f16_cut', 'x86/vec_avx2.h', '_mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT',
         '_mm256_cvtps_ph(v, _MM_FROUND_TO_ZERO'),
        # whole tiles in turns, keys in two vectors side by side, values four keys at a time
        ('turn_of_tile', 'engine/tile.h', 'vecs, false, at + 3, other', 'vecs, false, at + 2, other'),
        ('turn_of_other_rows', 'engine/tile.h', 'at + 3, other + 3, a_row', 'at + 3, other + 2, a_row'),
        ('turned_halves', 'x86/vec_avx2.h', 'r[i + 3] = _mm256_unpackhi_epi32(s[i + 1], s[i + 3]);',
         'r[i + 3] = _mm256_unpackhi_epi32(s[i + 1], s[i + 2]);'),
        ('second_side', 'engine/few_widen.h', 'acc[r][1] = a_fma_in(a, 0, keys[1], acc[r][1]);',
         'acc[r][1] = a_fma_in(a, 0, keys[0], acc[r][1]);'),
        ('turn_of_values', 'engine/few_stored.h', 'at + u, last_at + u, acc', 'at + u, last_at + u - (u == 3), acc'),
        # bytes in a loop over words, values as far as they lie one behind the other
        ('few_block_scale', 'engine/few_widen.h', '0x1p-24f : 0x1p-28f', '0x1p-24f : 0x1p-27f'),
        ('few_lower_half', 'x86/vec_avx2.h', 'high ? bits : _mm256_slli_epi32(bits, 4)', 'bits'),
        ('words_of_one_side', 'engine/few_widen.h', 'few_turn_block(type, &k[i], at, i,', 'few_turn_block(type, k, at, i,'),
        ('values_past_their_run', 'engine/few_stored.h', 'if (x->data + PANEL * x->stride != from[i].data) break;', ''),
        ('scales_past_their_run', 'engine/few_stored.h',
         'if (scaled && x->scales + PANEL * x->scale_stride != from[i].scales) break;', ''),
    ],
    'neon': [
        ('sum_tree', 'arm/vec_neon.h', 'vaddq_f32(vaddq_f32(s[0], s[2]), vaddq_f32(s[1], s[3]))',
         'vaddq_f32(vaddq_f32(s[0], s[1]), vaddq_f32(s[2], s[3]))'),
        ('exp2_threshold', 'arm/vec_neon.h', 'vdupq_n_f32(-126.0f)', 'vdupq_n_f32(-125.0f)'),
        ('max_takes_nan', 'arm/vec_neon.h', 'vbslq_f32(vcgtq_f32(x, best), x, best)', 'vmaxq_f32(x, best)'),
        ('lane_of_a', 'arm/vec_neon.h', '%2.s[1]', '%2.s[2]'),
        ('lane_mask', 'arm/vec_neon.h', '{0, 1, 2, 3}', '{0, 1, 2, 2}'),
        ('bf16_ties', 'arm/vec_neon.h', 'vdupq_n_u32(0x7fff)), odd), 16)', 'vdupq_n_u32(0x8000)), odd), 16)'),
        ('f16_cut', 'arm/vec_neon.h', 'vcvt_f16_f32(v)',
         'vcvt_f16_f32(vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(v), vdupq_n_u32(0xffffe000))))'),
        ('few_block_scale', 'engine/few_widen.h', 'v_set1(0x1p-24f)', 'v_set1(0x1p-23f)'),
        ('few_lower_half', 'engine/few_widen.h', 't[i][j] = v_word_upper(t[i][j]);', ';'),
    ],
}

# And in math mode BF16.
VECTOR_PAIRS = {
    'avx2': [
        ('pair_ties', 'x86/vec_avx2.h', '_mm256_set1_epi32(0x7fff)), odd);', '_mm256_set1_epi32(0x8000)), odd);'),
        ('pair_subnormal', 'x86/vec_avx2.h',
         'return _mm256_andnot_si256(_mm256_and_si256(tiny, _mm256_set1_epi32(INT32_MAX)), number);', 'return number;'),
        ('pair_order', 'x86/vec_avx2.h',
         '_mm256_fmadd_ps(v_upper(a), v_upper(b), c), s = _mm256_fmadd_ps(v_lower(a), v_lower(b), t)',
         '_mm256_fmadd_ps(v_lower(a), v_lower(b), c), s = _mm256_fmadd_ps(v_upper(a), v_upper(b), t)'),
        ('pair_low_second', 'x86/vec_avx2.h', 'v_low_note(v_low_note(*low, t), s)', 'v_low_note(*low, s)'),
        ('pair_low_first', 'x86/vec_avx2.h', 'v_low_note(v_low_note(*low, t), s)', 'v_low_note(*low, t)'),
    ],
    'neon': [
        ('pair_ties', 'arm/vec_neon.h', 'vdupq_n_u32(0x7fff)), odd);', 'vdupq_n_u32(0x8000)), odd);'),
        ('pair_subnormal', 'arm/vec_neon.h', 'return vandq_u32(number, vorrq_u32(normal, vdupq_n_u32(0x80000000)));',
         'return number;'),
        ('pair_order', 'arm/vec_neon.h',
         'a_fma(v_upper(a), lane, v_upper(b), c), s = a_fma(v_lower(a), lane, v_lower(b), t)',
         'a_fma(v_lower(a), lane, v_lower(b), c), s = a_fma(v_upper(a), lane, v_upper(b), t)'),
        ('pair_low_second', 'arm/vec_neon.h', 'v_low_note(v_low_note(*low, t), s)', 'v_low_note(*low, s)'),
        ('pair_low_first', 'arm/vec_neon.h', 'v_low_note(v_low_note(*low, t), s)', 'v_low_note(*low, t)'),
    ],
}

# The scalar tier against its own mutants: these run on any machine, and show that the oracle is not blind to itself.
# Their control is the library's, which is a copy of the scalar tier too.
SCALAR = [
    ('scalar_visible', 'sight.h', 'position < 0 ? 0 : position + 1', 'position < 0 ? 0 : position + (position != 20)'),
    ('scalar_max_nan', 'scalar.c', 'return x > best ? x : best;', 'return x < best ? best : x;'),
    ('scalar_lanes', 'scalar.c', '#define LANES     16', '#define LANES     8'),
    ('scalar_threshold', 'scalar.c', 't < -126.0f', 't <= -126.0f'),
    ('scalar_weights_past_row', 'scalar.c', '(int)(columns - first) : TRIL_KEY_BLOCK',
     '(int)(columns - first) + 1 : TRIL_KEY_BLOCK'),
    ('scalar_sum_not_fused', 'scalar.c', 'fma_once(*row_sum, *old, sum * *fresh)', '*row_sum * *old + sum * *fresh'),
    ('scalar_panel', 'scalar.c', 'rows.data + lane * tril_unit_bytes(k->dtype)',
     'rows.data + (lane + (key == 37)) * tril_unit_bytes(k->dtype)'),
    ('scalar_raw_block_0', 'scalar.c', 'tril_begins_row(job, task, row, first) && d < call->v_dim',
     'false && d < call->v_dim'),
    ('scalar_fold_reversed', 'scalar.c', 'for (int i = 0; i < n; i++) {\n        float old, fresh;',
     'for (int i = n - 1; i >= 0; i--) {\n        float old, fresh;'),
    # what it shares with every tier: where things lie
    ('query_head_of_few', 'kernels.h', '(task->head + head) * group', '(task->head + head)'),
    ('output_head', 'kernels.h', 'tril_out_row(&call->out, row->token, row->head)',
     'tril_out_row(&call->out, row->token, call->q_heads - 1 - row->head)'),
    ('packed_offset', 'kernels.h', 'tril_packed_offset(job->call, task->seq, query)',
     'tril_packed_offset(job->call, task->seq, query + 1) - 1'),
    ('statistics_only_with_max', 'kernels.h', 'if (to->sum != NULL)', 'if (to->max != NULL)'),
    ('slot_from_key_0', 'kernels.h', '(key - task->seq->key_begin) / TRIL_KEY_BLOCK : 0', 'key / TRIL_KEY_BLOCK : 0'),
    ('slot_off_by_one', 'kernels.h', 'number * rows + row->index;', 'number * (rows - 1) + row->index;'),
    ('sums_off_by_one', 'kernels.h', 'max + blocks * rows + at,', 'max + blocks * rows + at + 1,'),
    ('part_stride', 'kernels.h', 'block * call->out_part_stride;', 'block * (call->out_part_stride & ~(int64_t)63);'),
    ('statistics_part_stride', 'kernels.h', 'block * call->statistics_part_stride;',
     'block * (call->statistics_part_stride & ~(int64_t)3);'),
    ('divided_too_early', 'kernels.h', '!tril_in_states(job, task) && (job->call->flags & TRIL_UNNORMALISED) == 0',
     '(job->call->flags & TRIL_UNNORMALISED) == 0'),
    ('scale_of_first_head', 'kernels.h', ' + head * x->scale_head_stride', ''),
    ('scale_of_first_page', 'kernels.h', 'block * x->scale_block_stride', '0'),
    ('page_of_next_key', 'kernels.h', '(uint32_t)key / tokens]', '((uint32_t)key + 1) / tokens]'),
    ('pages_of_first_sequence', 'kernels.h', 'job->pages[task->pages + ', 'job->pages['),
]

# The engine's again, made with a second tier whose vectors are whole panels: what only that one has.
WIDE_TIER = {'avx2': ('avx512', 'x86/avx512.c')}
WIDE = [
    ('wide_control', 'engine/attend.h', '', ''),
    ('wide_transpose', 'x86/vec_avx512.h', 'r[i + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);',
     'r[i + 12] = _mm512_shuffle_f32x4(b, d, 0x88);'),
    ('wide_words', 'x86/vec_avx512.h', 'v_words_of(p + 3 * stride, stride);', 'v_words_of(p + 2 * stride, stride);'),
    ('wide_second_half', 'x86/vec_avx512.h', '_mm512_extracti64x4_epi64(h, 1)', '_mm512_extracti64x4_epi64(h, 0)'),
    # keys in two vectors side by side
    ('half_lines_of_rows', 'x86/vec_avx512.h', 'r[4 + c] = _mm512_shuffle_f32x4(x, y, 0xdd);',
     'r[4 + c] = _mm512_shuffle_f32x4(x, y, 0x88);'),
    ('wide_block_scale', 'engine/few_widen.h', 'v_set1(0x1p-24f)', 'v_set1(0x1p-23f)'),
    ('wide_lower_half', 'engine/few_widen.h', 't[i][j] = v_word_upper(t[i][j]);', ';'),
    ('half_lines_of_one_side', 'engine/few_widen.h', 'v_half_lines(p, k[i].stride, t[i])',
     'v_half_lines(k->data + at, k->stride, t[i])'),
    ('second_of_pair', 'engine/few_widen.h', 'keys[1][i] = h[1];', 'keys[1][i] = h[i == 0];'),
    ('two_sides_past_the_end', 'engine/few.h', 'n - done >= FEW_SIDES * V_LANES ? most_sides : 1', 'most_sides'),
    ('two_panels_past_the_end', 'engine/few.h', 'n - done >= FEW_PANELS * PANEL ? FEW_PANELS : 1', 'FEW_PANELS'),
    # kernels of more rows
    ('rows_of_halves', 'engine/few_stored.h', 'few_typed_dots(type, FEW_HALF_ROWS, rows, 1,',
     'few_typed_dots(type, FEW_HALF_ROWS, rows - (rows == 7), 1,'),
    # what the first rows leave in the first-level cache for the others
    ('kept_keys', 'engine/few_dots.h', 'panel += V_LANES * V_LANES;', 'panel += V_LANES * V_LANES - V_LANES;'),
    ('kept_last_dims', 'engine/few_dots.h', 'keep ? panel : NULL', 'NULL'),
    ('rows_of_kept_keys', 'engine/few.h', 'few_tiles(FEW_DOTS_ROWS, rows', 'few_tiles(FEW_DOTS_ROWS + 1, rows'),
    ('kept_values', 'engine/few_values.h', 'if (keep) kept += o_row;', 'if (keep) kept += o_row + V_LANES;'),
    ('kept_past_a_rows_end', 'engine/few_values.h', 'end - k <= FEW_STEP && end <= row_end', 'end - k <= FEW_STEP'),
    # two rows' last columns in one vector
    ('half_columns', 'engine/tile.h', 'o += vecs * V_LANES;', 'o += (vecs - (vecs > 2)) * V_LANES;'),
    ('half_of_missing_row', 'engine/tile.h', 'pair_fold(2 * i >= first,', 'pair_fold(true,'),
    ('half_of_upper_row', 'x86/vec_avx512.h', 'mask3_fmadd_ps(a, b, c, 0xff00)', 'mask3_fmadd_ps(a, b, c, 0xfe00)'),
]

# The rest of the library, with the scalar tier: how a call is cut up, shared, folded, merged.
LIBRARY = [
    ('library_control', 'tril.c', '', ''),
    # the team
    ('team_drops_a_task', 'tril.c', 'if (i != mine) continue;', 'if (i != mine || i == 7) continue;'),
    ('team_does_a_task_twice', 'tril.c', 'do_task(job, &task, kernels, area);\n        if (tril_in_states',
     'do_task(job, &task, kernels, area);\n        do_task(job, &task, kernels, area);\n        if (tril_in_states'),
    ('team_area', 'tril.c', 'areas + (size_t)thread * plan.area', 'areas + (size_t)(thread + 1) * plan.area'),
    ('team_claims_not_reset', 'team.c',
     'atomic_store_explicit(&team->claim[turn % 2].next, 0, memory_order_relaxed);', ''),
    ('team_parts_not_reset', 'tril.c', 'part + 1 < task->parts ? part + 1 : 0', 'part + 1 < task->parts ? part + 1 : -1'),
    ('team_marks_not_reset', 'team.c', 'atomic_store(&team->made[made + next], 0);',
     'atomic_store(&team->made[made + next], next == 3);'),
    ('team_folds_too_early', 'tril.c', 'tril_team_made(team, task->made, task->part);',
     'for (int64_t part = 0; part <= task->part; part++) tril_team_made(team, task->made, part);'),
    ('team_folds_one_part', 'tril.c', 'for (int64_t part; (part = tril_team_turn(team, task->unit, task->made)) >= 0;) {',
     'int64_t part = tril_team_turn(team, task->unit, task->made);\n    if (part >= 0) {'),
    ('team_marks_overlap', 'plan.c', 'walk->made += walk->parts;', ''),
    ('team_late_ones_begin_anew', 'team.c', 'while (turn / 2 != number) {',
     'for (bool again = true; again; again = false) {'),
    # units and parts
    ('first_state_missed', 'fold.c', 'const int64_t key = tril_unit_block(task, number);',
     'if (number + 1 == ends) continue; const int64_t key = tril_unit_block(task, number);'),
    ('gap_of_parts', 'plan.h', 'first >= unit->gap ?', 'first > unit->gap ?'),
    ('page_behind_window', 'plan.h', 'to > tril_view_of(call, seq, 0).begin;',
     'to > tril_view_of(call, seq, 0).begin - call->block_tokens;'),
    ('prefix_of_packed', 'plan.c', 'inside * (seq->prefix - position - 1) - triangle(inside);',
     'inside * (seq->prefix - position - 1);'),
    ('sums_not_begun', 'tril.c', 'if (row != NULL) memset(row, 0,', 'if (row == NULL) memset(row, 0,'),
    ('sink_of_nothing', 'tril.c', 'if (sink.max > max) sum = sink.sum;', ''),
    ('first_state_not_taken', 'fold.c', 'if (o != state->o) memmove(', 'if (o == state->o) memmove('),
    ('block_between_parts', 'plan.c', 'tril_unit_block(task, tril_part_begin(task, task->part));',
     'tril_unit_block(task, tril_part_begin(task, task->part) + (task->part == 2));'),
    ('rows_not_divided', 'fold.c', 'tril_divides(job, &whole) ? sum', 'tril_divides(job, &whole) && dim > 3 ? sum'),
    ('states_passed_by', 'plan.c', 'if (last_only && !walk.unit.few) {', 'if (!walk.unit.few) {'),
    ('states_overlap', 'plan.c', 'walk->states += unit_states(plan, &walk->unit);', ''),
    ('range_token', 'plan.c', 'unit->token = seq->kv_first - seq->key_begin;', 'unit->token = seq->kv_first;'),
    ('range_end', 'plan.c', 'min_of(tril_key_end(seq), tril_view_of(call, seq, last).end)',
     'tril_view_of(call, seq, last).end'),
    ('pages_of_range', 'plan.c', 'walk->pages - tril_first_page(call, seq)', 'walk->pages'),
    ('page_that_is_not_there', 'check.c', 'block >= call->n_blocks', 'block > call->n_blocks'),
    ('page_table_past_end', 'check.c', 'page < pages; page++', 'page <= pages; page++'),
    ('packed_of_batch', 'plan.c', 'walk->packed += tril_packed_offset', 'walk->packed = tril_packed_offset'),
    # what sees nothing
    ('blank_without_mark', 'tril.c', '!= 0 ? -0.0f : 0.0f;', '!= 0 ? 0.0f : 0.0f;'),
    ('blank_block_missed', 'tril.c', 'for (int64_t b = 0; b < blocks; b++)',
     'for (int64_t b = 0; b < blocks - (blocks > 1); b++)'),
    ('blank_past_row', 'tril.c', 'tril_row_bytes(place.type, call->v_dim))',
     'tril_row_bytes(place.type, call->v_dim) + tril_unit_bytes(place.type))'),
    # merge and append
    ('merge_reversed', 'fold.c', 'const tril_partial *part = &parts[i];',
     'const tril_partial *part = &parts[n - 1 - i];'),
    ('merge_ignores_the_mark', 'fold.c', 'if (empty(state.sum)) continue;', ''),
    ('merge_takes_zero_for_empty', 'fold.c', 'return sum == 0.0f && __builtin_signbit(sum);', 'return sum == 0.0f;'),
    ('merge_sum_of_nothing', 'fold.c', 'return sum == 0.0f ? 0.0f : sum;', 'return sum;'),
    ('merge_divides_always', 'tril.c', 'if ((flags & TRIL_UNNORMALISED) == 0) sum =', 'sum ='),
    ('merge_of_many', 'fold.c', 'if (held < AT_ONCE) continue;\n        kernels->fold(o, dim, max, sum, states, held);',
     'if (held < AT_ONCE) continue;\n        kernels->fold(o, dim, max, sum, states, held - 1);'),
    ('append_panel', 'tril.c', '(token % TRIL_PANEL) * element', '(token % TRIL_PANEL)'),
    ('append_scale', 'tril.c', ' + head * cache->scale_head_stride', ''),
    ('append_from', 'tril.c', 'tril_row(from, from_token + i, head)', 'tril_row(from, i, head)'),
    # convert
    ('convert_by_stored_scale', 'formats.h', '0.0f : 1.0f / scale;', '0.0f : 1.0f / tril_from_f16(tril_to_f16(scale));'),
    ('convert_ties', 'formats.h', 'rest <= -0.5f', 'rest < -0.5f'),
    ('convert_last_of_equals', 'formats.h', '> __builtin_fabsf(peak)', '>= __builtin_fabsf(peak)'),
]
LIBRARY_SOURCES = ['check.c', 'plan.c', 'team.c', 'fold.c', 'convert.c', 'tril.c']
# What they define, and so has another name in every copy. table.c says which copy serves a call.
PUBLIC = ['tril_workspace', 'tril_attend', 'tril_weights', 'tril_attend_team', 'tril_weights_team', 'tril_merge',
          'tril_append', 'tril_convert']


# How each kind is made: what the tier's text begins with, and which math mode its calls leave to the true tier.
KINDS = {
    'engine': ('#define TIER_BF16 0\n', 'TRIL_MATH_BF16'),
    'pairs': ('#define TIER_F32 0\n', 'TRIL_MATH_F32'),
    'wide': ('#define TIER_BF16 0\n', None),
    'scalar': ('', None),
    'library': ('', None),
}


# Checks that catch what the order of the suites would leave for late, tried first: it saves minutes. If one does not
# catch it any more, the others still have their turn.
FIRST = {
    'values_past_their_run': 'adjacent_pages',
    'scales_past_their_run': 'adjacent_pages',
    'sums_of_last_run': 'sequence_lengths',
    'weights_keep_end': 'head_sizes',
    'sink_of_nothing': 'pairs_of_options',
    'prefix_of_packed': 'pairs_of_options',
    'slow_keeps_subnormal': 'least_sums',
    'pair_subnormal': 'least_sums',
    'slow_last_key': 'least_sums',
    'pair_sum_in_doubt': 'least_sums',
    'pair_low_second': 'least_sums',
    'pair_low_first': 'least_sums',
    'slow_boundary': 'least_sums',
    'scalar_threshold': 'exp2_corners',
    'run_boundary': 'long_windows',
    'aligned_past_the_end': 'long_windows',
    'page_that_is_not_there': 'no_such_page',
    'fold_split': 'few_rows',
    'rows_behind_window': 'pairs_of_options',
    'minus_zero_max': 'zero_scores',
    'panels_of_a_run': 'few_rows',
    'pair_last_key': 'poisoned_future',
    'value_head': 'few_rows',
    'convert_ties': 'convert_known',
    'packed_of_batch': 'numbered_and_counted',
    'statistics_only_with_max': 'layouts',
    'team_marks_not_reset': 'some_never_come',
    'convert_nan_of_block': 'convert_rows',
    'convert_first_of_equals': 'convert_known',
    'bf16_ties': 'counted',
    'page_behind_window': 'long_windows',
    'edge_not_seen': 'pairs_of_options',
    'last_block_short': 'every_tail',
    'convert_last_of_equals': 'convert_known',
    'convert_by_stored_scale': 'convert_rows',
    'team_parts_not_reset': 'counted',
    'team_claims_not_reset': 'counted',
    'rows_not_divided': 'long_rows',
    'few_weights': 'every_head_size',
    'convert_below_a_half': 'convert_rounding',
    'convert_end_short': 'convert_rows',
    'divided_too_early': 'long_rows',
    'query_head': 'numbered',
    'sink_twice': 'counted',
    'half_of_missing_row': 'sequence_lengths',
    'half_columns': 'head_sizes',
    'prefix_one_less': 'pairs_of_options',
    'rows_of_halves': 'planted',
    'turned_halves': 'planted',
    'turn_of_values': 'long_rows',
    'panel_of_stored_dims': 'stored_ends',
    'few_last_key': 'every_head_size',
    'half_lines_of_rows': 'planted',
    'half_lines_of_one_side': 'planted',
    'wide_second_half': 'planted',
    'second_of_pair': 'planted',
}


def mutants(tier):
    found = [('library', m) for m in LIBRARY] + [('scalar', m) for m in SCALAR]
    if tier:
        found += [('engine', m) for m in ENGINE + VECTOR.get(tier, [])]
        found += [('pairs', m) for m in PAIRS + VECTOR_PAIRS.get(tier, [])]
    if tier in WIDE_TIER:
        found += [('wide', m) for m in WIDE]
    return found


def of_scalar(kind):
    return kind in ('scalar', 'library')


def flatten(src, path, mutant, seen):
    """The text of src/path with the project's headers inlined, and the mutation made where it belongs."""
    _, target, old, new = mutant
    with open(os.path.join(src, path), encoding='utf-8') as file:
        text = file.read()
    if path == target and path not in seen:
        if old and text.count(old) != 1:
            raise LookupError('%s: %d times in src/%s: %s' % (mutant[0], text.count(old), target, old))
        text = text.replace(old, new) if old else text
        mutant_made.add(mutant[0])
    seen.add(path)

    def include(match):
        for folder in (os.path.dirname(path), ''):
            inner = os.path.normpath(os.path.join(folder, match.group(1)))
            if os.path.exists(os.path.join(src, inner)):
                return '' if inner in seen else flatten(src, inner, mutant, seen)
        return match.group(0)

    return re.sub(r'^#include "([^"]+)"$', include, text, flags=re.M)


def needs(kind, tier):
    """The feature of the machine that it takes."""
    return '0' if of_scalar(kind) else 'TRIL_CPU_' + (WIDE_TIER[tier][0] if kind == 'wide' else tier).upper()


mutant_made = set()


def rename_tables(text, name):
    """The one table of a tier that makes several of them by a macro."""
    tables = re.findall(r'^[A-Z0-9]+\((?:\w+), TRIL_MATH_\w+, (?:\w+)\)\n', text, flags=re.M)
    if not tables:
        raise LookupError('%s: no tables made by a macro' % name)
    for table in tables[1:]:
        text = text.replace(table, '')
    return text.replace(tables[0], re.sub(r'\(\w+', '(' + name, tables[0]))


def rename_table(text, tier, symbol, name, other_mode):
    """The tier's table under another name, that leaves a math mode to the tier itself."""
    old = 'tril_kernels_%s = {\n    .name = "%s",' % (tier, tier)
    if text.count(old) != 1:
        raise LookupError('%s: no table of the tier %s' % (name, tier))
    instead = ' .instead = {[%s] = &tril_kernels_%s},' % (other_mode, tier) if other_mode else ''
    return text.replace(old, '%s = {\n    .name = "%s",%s' % (symbol, name, instead))


def make(src, tier, source, outdir):
    table, libraries = [], []
    for kind, mutant in mutants(tier):
        symbol, reason = 'tril_kernels_' + mutant[0], ''
        before, other_mode = KINDS[kind]
        try:
            seen, names = set(), []
            path = 'scalar.c' if of_scalar(kind) else WIDE_TIER[tier][1] if kind == 'wide' else source
            text = before + flatten(src, path, mutant, seen)
            if kind == 'library':
                for path in LIBRARY_SOURCES:
                    text += flatten(src, path, mutant, seen)
                names = sorted(set(re.findall(r'^\w[\w *]*?\b(tril_\w+)\([^;]*?\)\n\{', text, flags=re.M)))
                libraries.append(mutant[0])
            if mutant[0] not in mutant_made:
                raise LookupError('%s: src/%s is not part of the tier' % (mutant[0], mutant[1]))
            if kind == 'wide':
                text = rename_tables(text, mutant[0])
            else:
                text = rename_table(text, 'scalar' if of_scalar(kind) else tier, symbol, mutant[0], other_mode)
            text = ''.join('#define %s %s_%s\n' % (name, name, mutant[0]) for name in names) + text
        except LookupError as error:
            reason = str(error).replace('\\', '\\\\').replace('"', '\\"').replace('\n', ' ')
            text = '#include "kernels.h"\nextern const struct tril_kernels %s;\n' % symbol
            text += 'const struct tril_kernels %s = {.name = "%s", .blocking = {1, 1, 1}};\n' % (symbol, mutant[0])
        table.append((symbol, kind, reason))
        write(os.path.join(outdir, 'mutant_%s.c' % mutant[0]), text)

    text = '#include "table.h"\n\n'
    text += ''.join('extern const struct tril_kernels %s;\n' % symbol for symbol, _, _ in table)
    text += '\nconst struct tril_tier tril_tiers[] = {\n    {&tril_kernels_scalar, 0},\n'
    text += ''.join('    {&%s, %s},\n' % (symbol, needs(kind, tier)) for symbol, kind, _ in table)
    text += '};\nconst int tril_tier_count = %d;\n\n' % (len(table) + 1)
    text += 'const char *const mutant_stale[] = {\n    "",\n'
    text += ''.join('    "%s",\n' % reason for _, _, reason in table) + '};\n'
    text += 'const char *const mutant_first[] = {\n    "",\n'
    text += ''.join('    "%s",\n' % FIRST.get(mutant[0], '') for _, mutant in mutants(tier)) + '};\n'
    # The library's copies; the first is the control, which serves all tiers that have none of their own.
    for library in libraries:
        text += ''.join('extern __typeof__(%s) %s_%s;\n' % (name, name, library) for name in PUBLIC)
    text += 'const struct mutant_library mutant_libraries[] = {\n'
    text += ''.join('    {&tril_kernels_%s, %s},\n' % (library, ', '.join(name + '_' + library for name in PUBLIC))
                    for library in libraries)
    text += '};\nconst int mutant_library_count = %d;\n' % len(libraries)
    write(os.path.join(outdir, 'mutant_table.c'), text)


def write(path, text):
    """A file that stays as it was is not compiled again."""
    if os.path.exists(path):
        with open(path, encoding='utf-8') as file:
            if file.read() == text:
                return
    with open(path, 'w', encoding='utf-8') as file:
        file.write(text)


if sys.argv[1] == 'list':
    for kind, mutant in mutants(sys.argv[2]):
        print('scalar' if of_scalar(kind) else 'wide' if kind == 'wide' else 'engine', mutant[0])
else:
    make(*sys.argv[2:])
