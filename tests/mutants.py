"""The mutants that the suites must kill: each is a tier with one small mistake.

A mutant is a file under src/, text that occurs there exactly once, and what takes its place. Every mutant becomes one
self-contained C file: the tier's source with the project's own headers inlined and the mistake made on the way, its
table renamed. A text that is not found any more makes a mutant without kernels, which test_mutants reports: bring the
list up to date with the source then.

  mutants.py list ENGINE_TIER                                 the mutants' names, one per line
  mutants.py make SRC ENGINE_TIER ENGINE_SOURCE OUTDIR        mutant_<name>.c for all, and mutant_table.c
"""

import os
import re
import sys

# The engine's, made with the host's first tier that has one (avx2, neon).
ENGINE = [
    ('control', 'engine/attend.h', '', ''),
    # the triangle
    ('sees_next_key', 'plan.h', 'position < 0 ? 0 : position + 1', 'position < -1 ? 0 : position + 2'),
    ('misses_itself', 'plan.h', 'position < 0 ? 0 : position + 1', 'position < 1 ? 0 : position'),
    ('block_offset', 'engine/block.h', 'offset = task->position - first;',
     'offset = task->position - first - (first > 0);'),
    ('group_rounding', 'engine/block.h', '(int64_t)(r + (size_t)i) / job->plan->group',
     '(int64_t)(r + (size_t)i + 1) / job->plan->group'),
    ('first_row', 'engine/block.h', '(size_t)(-offset * job->plan->group)', '(size_t)(-offset * job->plan->group) + 1'),
    ('last_block_short', 'engine/block.h', 'left < TRIL_KEY_BLOCK ? (int)left :',
     'left < TRIL_KEY_BLOCK ? (int)left - (left == 17) :'),
    ('diagonal_of_tile', 'engine/tile.h', 'first <= r && r < rows', 'r < rows'),
    # tails and padding
    ('score_tail', 'engine/block.h', '((int)end[n - 1] + V_LANES - 1) / V_LANES', '((int)end[n - 1] + V_LANES - 2) / V_LANES'),
    ('invisible_kept', 'engine/softmax.h', 'lanes_of(n - i), MINUS_INF', 'lanes_of(n - i + 1), MINUS_INF'),
    ('finite_minus_inf', 'engine/softmax.h', '#define MINUS_INF (-__builtin_inff())', '#define MINUS_INF (-1e4f)'),
    ('key_past_the_last', 'engine/pack.h', 'r[i] = i >= n ? v_zero()', 'row = (const void *)(from + i * stride); r[i] = i > n ? v_zero()'),
    ('value_tail_dropped', 'engine/pack.h', 'const int left = dims - whole * PANEL - u;',
     'const int left = dims - whole * PANEL - u - (dims == 17);'),
    ('value_read_past_row', 'engine/pack.h', 'left < 0 ? 0 : left < V_LANES ? left : V_LANES',
     'left < 0 ? 0 : V_LANES'),
    ('key_read_past_row', 'engine/pack.h', 'dims == V_LANES ? v_load(row) : v_load_part(row, dims)', 'v_load(row)'),
    ('output_past_v_dim', 'engine/attend.h', 'v_store_part(to + d, call->v_dim - d,', 'v_store_part(to + d, V_LANES,'),
    ('weights_past_visible', 'engine/weights.h', 'v_store_part(to, n, v_div(', 'v_store_part(to, V_LANES, v_div('),
    ('aligned_past_the_end', 'engine/weights.h', 'return head < n ? head : n;', 'return head;'),
    ('run_boundary', 'engine/weights.h', 'visible[i] <= first + RUN_KEYS', 'visible[i] < first + RUN_KEYS'),
    ('weights_not_zeroed', 'engine/weights.h', 'to + visible, columns - visible);',
     'to + visible, columns - visible - (visible < columns));'),
    # where things lie
    ('query_head', 'engine/pack.h', 'task->head * job->plan->group + g', 'task->head + g'),
    ('output_head', 'engine/attend.h', 'tril_out_row(&call->out, row->token, row->head)', 'tril_out_row(&call->out, row->token, call->q_heads - 1 - row->head)'),
    ('key_offset', 'engine/pack.h', 'tril_row(k, task->seq->kv_first + first + key, task->head)',
     'tril_row(k, first + key, task->head)'),
    ('value_head', 'engine/pack.h', 'task->seq->kv_first + first + key, task->head);\n        float *at',
     'task->seq->kv_first + first + key, 0);\n        float *at'),
    ('packed_offset', 'kernels.h', 'tril_packed_offset(task->seq, query)', 'tril_packed_offset(task->seq, query + 1) - 1'),
    ('statistics_forgotten', 'engine/attend.h', 'tril_store_statistics(call, row->token, row->head, max, sum);', ';'),
    ('statistics_only_with_max', 'kernels.h', 'if (call->row_sum != NULL)', 'if (call->row_max != NULL)'),
    # special values
    ('nan_in_max', 'engine/softmax.h', 'const vf base = v_ninf_to_zero(v_set1(max));', 'const vf base = v_set1(max);'),
    ('nan_dropped_by_exp2', 'engine/exp2.h', 'n[u] = v_rint(x[u]);',
     'n[u] = v_rint(x[u] = v_max(x[u], v_set1(-200.0f)));'),
    ('fold_of_minus_inf', 'engine/softmax.h', 'base = v_ninf_to_zero(top)', 'base = top'),
    ('no_key_divides', 'engine/attend.h', 'sum == 0.0f ? 1.0f : sum', 'sum'),
    ('minus_zero_max', 'engine/softmax.h', ') + 0.0f; /*', '); /*'),
    # order and rounding
    ('fold_swapped', 'engine/softmax.h', 'v_fma(v_load_part(row_sum + r, n), a, v_mul(v_load_part(sum + r, n), b))',
     'v_fma(v_load_part(sum + r, n), b, v_mul(v_load_part(row_sum + r, n), a))'),
    ('fold_split', 'engine/tile.h', 'v_fma(v_load(o), old, v_mul(acc, fresh))',
     'v_add(v_mul(v_load(o), old), v_mul(acc, fresh))'),
    ('running_max', 'engine/softmax.h', 'top = v_max(mb, m)', 'top = v_max(v_add(mb, v_set1(1.0f)), m)'),
    ('divide_by_reciprocal', 'engine/attend.h', 'v_store(to + d, v_div(v_load(o + d), l))',
     'v_store(to + d, v_mul(v_load(o + d), v_div(v_set1(1.0f), l)))'),
    ('exp2_coefficient', 'engine/exp2.h', '0x1.c6af76p-5f', '0x1.c6af78p-5f'),
    ('never_closed', 'engine/block.h', 'tril_visible(block->offset + row->query) <= TRIL_KEY_BLOCK',
     'tril_visible(block->offset + row->query) < TRIL_KEY_BLOCK'),
    ('exp2_fma_split', 'engine/exp2.h', 'v_fma(p[u], r[u], v_set1(c[i]))', 'v_add(v_mul(p[u], r[u]), v_set1(c[i]))'),
    ('sum_lanes', 'engine/softmax.h', 'sum[u % SUM_VECS] = v_add(sum[u % SUM_VECS], p[u]);',
     'sum[u % 1] = v_add(sum[u % 1], p[u]);'),
]

# The vector headers'.
VECTOR = {
    'avx2': [
        ('sum_tree', 'x86/vec_avx2.h', 'c = _mm_add_ps(b, _mm_movehl_ps(b, b));\n    return _mm_cvtss_f32(_mm_add_ss',
         'c = _mm_add_ps(b, _mm_shuffle_ps(b, b, 0xb1));\n    return _mm_cvtss_f32(_mm_add_ss'),
        ('exp2_threshold', 'x86/vec_avx2.h', '_mm256_set1_ps(-126.0f)', '_mm256_set1_ps(-125.0f)'),
        ('max_takes_nan', 'x86/vec_avx2.h', '_mm256_max_ps(x, best)', '_mm256_max_ps(best, x)'),
        ('fma_split', 'x86/vec_avx2.h', '(void)lane;\n    return _mm256_fmadd_ps(a, b, c);',
         '(void)lane;\n    return _mm256_add_ps(_mm256_mul_ps(a, b), c);'),
        ('lane_mask', 'x86/vec_avx2.h', '_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)', '_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 6)'),
    ],
    'neon': [
        ('sum_tree', 'arm/vec_neon.h', 'vaddq_f32(vaddq_f32(s[0], s[2]), vaddq_f32(s[1], s[3]))',
         'vaddq_f32(vaddq_f32(s[0], s[1]), vaddq_f32(s[2], s[3]))'),
        ('exp2_threshold', 'arm/vec_neon.h', 'vdupq_n_f32(-126.0f)', 'vdupq_n_f32(-125.0f)'),
        ('max_takes_nan', 'arm/vec_neon.h', 'vbslq_f32(vcgtq_f32(x, best), x, best)', 'vmaxq_f32(x, best)'),
        ('lane_of_a', 'arm/vec_neon.h', '%2.s[1]', '%2.s[2]'),
        ('lane_mask', 'arm/vec_neon.h', '{0, 1, 2, 3}', '{0, 1, 2, 2}'),
    ],
}

# The scalar tier against its own mutants: these run on any machine, and show that the oracle is not blind to itself.
SCALAR = [
    ('scalar_control', 'scalar.c', '', ''),
    ('scalar_visible', 'plan.h', 'position < 0 ? 0 : position + 1', 'position < 0 ? 0 : position + (position != 20)'),
    ('scalar_max_nan', 'scalar.c', 'return x > best ? x : best;', 'return x < best ? best : x;'),
    ('scalar_lanes', 'scalar.c', '#define LANES     16', '#define LANES     8'),
    ('scalar_threshold', 'scalar.c', 't < -126.0f', 't <= -126.0f'),
    ('scalar_weights_past_row', 'scalar.c', 'j < columns; j++)', 'j <= columns; j++)'),
    ('scalar_sum_not_fused', 'scalar.c', 'fma_once(*row_sum, *old, sum * *fresh)', '*row_sum * *old + sum * *fresh'),
]


def mutants(tier):
    found = [('scalar', m) for m in SCALAR]
    if tier:
        found += [(tier, m) for m in ENGINE + VECTOR.get(tier, [])]
    return found


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


mutant_made = set()


def make(src, tier, source, outdir):
    table = []
    for number, (base, mutant) in enumerate(mutants(tier)):
        symbol, reason = 'tril_kernels_mutant_%d' % number, ''
        try:
            text = flatten(src, source if base != 'scalar' else 'scalar.c', mutant, set())
            if mutant[0] not in mutant_made:
                raise LookupError('%s: src/%s is not part of the tier' % (mutant[0], mutant[1]))
            text = text.replace('.name = "%s"' % base, '.name = "%s"' % mutant[0])
            text = '#define tril_kernels_%s %s\n' % (base, symbol) + text
        except LookupError as error:
            reason = str(error).replace('\\', '\\\\').replace('"', '\\"').replace('\n', ' ')
            text = '#include "kernels.h"\nextern const struct tril_kernels %s;\n' % symbol
            text += 'const struct tril_kernels %s = {.name = "%s", .blocking = {1, 1, 1}};\n' % (symbol, mutant[0])
        table.append((symbol, base, reason))
        write(os.path.join(outdir, 'mutant_%s.c' % mutant[0]), text)

    text = '#include "table.h"\n\n'
    text += ''.join('extern const struct tril_kernels %s;\n' % symbol for symbol, _, _ in table)
    text += '\nconst struct tril_tier tril_tiers[] = {\n    {&tril_kernels_scalar, 0},\n'
    text += ''.join('    {&%s, %s},\n' % (symbol, {'scalar': '0'}.get(base, 'TRIL_CPU_' + base.upper()))
                    for symbol, base, _ in table)
    text += '};\nconst int tril_tier_count = %d;\n\n' % (len(table) + 1)
    text += 'const char *const mutant_stale[] = {\n    "",\n'
    text += ''.join('    "%s",\n' % reason for _, _, reason in table) + '};\n'
    write(os.path.join(outdir, 'mutant_table.c'), text)


def write(path, text):
    with open(path, 'w', encoding='utf-8') as file:
        file.write(text)


if sys.argv[1] == 'list':
    for base, mutant in mutants(sys.argv[2]):
        print(base if base == 'scalar' else 'engine', mutant[0])
else:
    make(*sys.argv[2:])
