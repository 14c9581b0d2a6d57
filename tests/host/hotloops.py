#!/usr/bin/env python3
"""The hot loops of a tier, read from its disassembly, contain no store.

    hotloops.py --objdump OBJDUMP --tier FILE.c OBJECT             the object or archive of a tier
    hotloops.py --objdump OBJDUMP --tier FILE.c --compile CC ARG ...    compiles FILE.c with CC first
    hotloops.py --objdump OBJDUMP --self-test CC ARG ...           a loop with a store must be found, one without not

The hot functions are scores_v<N>, scaled_v<N> and fold_v<N> of src/engine/block.h, N being the tier's TILE_VECS, and,
where there is an instruction for pairs (emulated, they spill), pair_scores_v<N> and pair_fold_v<N>: a section for each
number of rows. An innermost loop is a cycle of the control flow without a smaller one in it; it is hot if it
holds an fma. The largest kernel has TILE_ROWS * N fma per k: a loop with exactly that number (NEON by lane takes four k
at a time), or a multiple of it where the compiler unrolled, must be there.
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile

FMA = re.compile(r'^(vf(n?m)(add|sub)\d+ps|vdpbf16ps|fml[as]|fn?m(add|sub))$')
# Instructions whose last operand may be memory without being written (AT&T order: the destination is last).
READS_ONLY = re.compile(r'^(cmp|test|bt[bwlq]?$|prefetch|nop|ud[012]|v?u?comis|vptest|vtestp|j|data16|cs|clflush)')


class Instruction:
    def __init__(self, address, text):
        self.address = address
        self.text = text
        words = text.split(None, 1)
        while len(words) > 1 and words[0] in ('rep', 'repz', 'repnz', 'lock', 'bnd', 'notrack', '{evex}', '{vex}'):
            words = words[1].split(None, 1)
        self.name = words[0]
        self.operands = words[1] if len(words) > 1 else ''

    def is_fma(self):
        return bool(FMA.match(self.name))

    def is_store(self, arm):
        if arm:
            return bool(re.match(r'^(st|dc$|cas|swp|ld(add|clr|eor|set|[su]m(ax|in)))', self.name))
        if re.match(r'^(push|call|stos|xsave|fxsave|enter)', self.name):
            return True
        if READS_ONLY.match(self.name):
            return False
        last = re.sub(r'\{[^}]*\}', '', re.sub(r'<[^>]*>', '', self.operands)).strip()
        return last.endswith(')')  # ...(%base,%index,scale): the destination is memory

    def target(self):
        """The address that it may jump to, or None."""
        if not re.match(r'^(j\w+|b|b\.\w+|bc\.\w+|cbn?z|tbn?z)$', self.name):
            return None
        found = re.search(r'(?:^|,\s*)([0-9a-f]+)\s+<', self.operands)
        return int(found.group(1), 16) if found else None

    def falls_through(self):
        return not re.match(r'^(jmp[ql]?|b|br|ret[ql]?|ud2|udf|brk)$', self.name)


def disassemble(objdump, path):
    """Function name -> its instructions."""
    text = subprocess.run([objdump, '-d', '--no-show-raw-insn', path], check=True, stdout=subprocess.PIPE,
                          universal_newlines=True).stdout
    functions, current = {}, None
    for line in text.splitlines():
        head = re.match(r'^[0-9a-f]+ <(.+)>:$', line)
        if head:
            current = functions.setdefault(head.group(1), [])
            continue
        body = re.match(r'^\s*([0-9a-f]+):\s+(\S.*)$', line)
        if body and current is not None:
            comment = re.split(r'\s+(?:#|//)\s', body.group(2))[0].strip()
            current.append(Instruction(int(body.group(1), 16), comment))
    return functions


def cycles(nodes, edges):
    """The strongly connected components of `nodes` that hold a cycle (Tarjan, without recursion)."""
    index, low, on_stack, stack, found = {}, {}, set(), [], []
    for root in nodes:
        if root in index:
            continue
        work = [(root, iter(edges.get(root, ())))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, successors = work[-1]
            for successor in successors:
                if successor not in nodes:
                    continue
                if successor not in index:
                    index[successor] = low[successor] = len(index)
                    stack.append(successor)
                    on_stack.add(successor)
                    work.append((successor, iter(edges.get(successor, ()))))
                    break
                if successor in on_stack:
                    low[node] = min(low[node], index[successor])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    component = set()
                    while node not in component:
                        component.add(stack.pop())
                    on_stack -= component
                    if len(component) > 1 or node in edges.get(node, ()):
                        found.append(component)
    return found


def innermost(nodes, edges, before):
    """The innermost loops: cycles that no longer are one without the instructions where they are entered."""
    loops = []
    for loop in cycles(nodes, edges):
        entries = {n for n in loop if any(p in nodes and p not in loop for p in before[n])} or {min(loop)}
        inner = innermost(loop - entries, edges, before)
        loops += inner if inner else [loop]
    return loops


def hot_loops(instructions):
    by_address = {i.address: i for i in instructions}
    edges = {}
    for here, following in zip(instructions, instructions[1:] + [None]):
        to = set()
        if following is not None and here.falls_through():
            to.add(following.address)
        if here.target() in by_address:
            to.add(here.target())
        edges[here.address] = to
    before = {address: [] for address in by_address}
    for address, to in edges.items():
        for successor in to:
            before[successor].append(address)
    loops = [[by_address[a] for a in sorted(loop)] for loop in innermost(set(by_address), edges, before)]
    return [loop for loop in loops if any(i.is_fma() for i in loop)]


def is_arm(functions):
    return any(i.name in ('fmla', 'ldr', 'ldp', 'stp') for f in functions.values() for i in f)


def check(functions, vecs, rows, verbose=False):
    """What is wrong, as a list of lines."""
    arm, wrong = is_arm(functions), []
    uses = ['scores', 'scaled', 'fold']
    if any(i.name == 'vdpbf16ps' for f in functions.values() for i in f):
        uses += ['pair_scores', 'pair_fold']
    for use in uses:
        name = '%s_v%d' % (use, vecs)
        names = [f for f in functions if f == name or f.startswith(name + '.')]
        if not names:
            wrong.append('%s: no such function' % name)
        counts = []
        for f in names:
            for loop in hot_loops(functions[f]):
                counts.append(sum(i.is_fma() for i in loop))
                for i in loop:
                    if i.is_store(arm):
                        wrong.append('%s: a store in the loop at %x, of %d fma: %x: %s' %
                                     (f, loop[0].address, counts[-1], i.address, i.text))
        tile = rows * vecs
        whole = [c for c in counts if c >= tile and c % tile == 0 and (not arm or c % (4 * tile) == 0)]
        if names and not whole:
            wrong.append('%s: no loop of a multiple of %d fma; there are %s' % (name, tile * (4 if arm else 1), counts))
        if verbose:
            print('%s: %d hot loops, of %s fma' % (name, len(counts), ' '.join(map(str, counts))))
    return wrong


def parameter(path, name):
    with open(path) as f:
        found = re.search(r'^#define\s+%s\s+(\d+)' % name, f.read(), re.M)
    if not found:
        sys.exit('hotloops.py: %s: no #define %s' % (path, name))
    return int(found.group(1))


SELF_TEST_HEAD = r'''
#include <stddef.h>
#ifdef __aarch64__
#include <arm_neon.h>
typedef float32x4_t vf;
#define LOAD(p) vld1q_f32(p)
#define STORE(p, x) vst1q_f32(p, x)
#define FMA(a, b, c) vfmaq_laneq_f32(c, a, b, 0)
#define STEP(a, b) x = FMA(a, b, x), y = FMA(b, a, y), x = FMA(b, b, x), y = FMA(a, a, y)
#define FMAS STEP(a, b), STEP(b, a)
#else
#include <immintrin.h>
typedef __m256 vf;
#define LOAD(p) _mm256_loadu_ps(p)
#define STORE(p, x) _mm256_storeu_ps(p, x)
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define FMAS x = FMA(a, b, x), y = FMA(b, a, y)
#endif
'''

SELF_TEST_FUNCTION = r'''
void NAME(const float *p, float *to, size_t n)
{
    vf x = LOAD(p), y = LOAD(p + 8);
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++) {
            vf a = LOAD(p), b = LOAD(p + 8);
            FMAS;
            INNER;
            p += STEP_BY;
        }
        OUTER;
    }
    STORE(to, x);
    STORE(to + 8, y);
}
'''


def compile_to(directory, command, source):
    to = os.path.join(directory, 'object.o')
    subprocess.run(command + ['-c', source, '-o', to], check=True)
    return to


def self_test(objdump, command):
    failed = False
    # (where the store stands, whether it must be found)
    for inner, outer, bad in (('(void)0', '(void)0', False), ('(void)0', 'STORE(to, x)', False),
                              ('STORE(to, x)', '(void)0', True), ('*(volatile float *)to = 0', '(void)0', True),
                              ('if (to[n + j]) ((volatile char *)to)[j] += 1', '(void)0', True)):
        with tempfile.TemporaryDirectory() as directory:
            source = os.path.join(directory, 'loop.c')
            with open(source, 'w') as f:
                f.write(SELF_TEST_HEAD)
                for name, step in (('scores_v2', '16'), ('scaled_v2', '32'), ('fold_v2', '24')):  # equal functions would be merged
                    function = SELF_TEST_FUNCTION.replace('NAME', name).replace('STEP_BY', step)
                    f.write(function.replace('INNER', inner).replace('OUTER', outer))
            found = check(disassemble(objdump, compile_to(directory, command, source)), 2, 1)
        stores = [line for line in found if 'a store' in line]
        print('inner "%s", outer "%s": %d stores found' % (inner, outer, len(stores)))
        if bool(stores) != bad or len(stores) != len(found):
            print('  expected %s; got %s' % ('some' if bad else 'none', found))
            failed = True
    return failed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--objdump', required=True)
    parser.add_argument('--tier')
    parser.add_argument('--self-test', action='store_true')
    parser.add_argument('--compile', action='store_true')
    parser.add_argument('rest', nargs=argparse.REMAINDER)
    options = parser.parse_args()
    rest = options.rest[1:] if options.rest[:1] == ['--'] else options.rest  # arguments of CC may look like ours
    if options.self_test:
        sys.exit(self_test(options.objdump, rest))
    rows, vecs = parameter(options.tier, 'TILE_ROWS'), parameter(options.tier, 'TILE_VECS')
    with tempfile.TemporaryDirectory() as directory:
        path = compile_to(directory, rest, options.tier) if options.compile else rest[0]
        wrong = check(disassemble(options.objdump, path), vecs, rows, verbose=True)
    for line in wrong:
        print(line)
    sys.exit(bool(wrong))


if __name__ == '__main__':
    main()
