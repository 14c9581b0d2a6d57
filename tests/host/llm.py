#!/usr/bin/env python3
"""examples/llm, from outside: the shipped model's scores and text, the same bits for every tier, chunk, page, team and
batch, a Llama in plain Python as the judge of others, and files that are wrong. Standard library only; meson names an
emulator, where one is needed, in MESON_EXE_WRAPPER: fewer cases then.

    llm.py LLM PROJECT-DIRECTORY
"""
import ast
import itertools
import math
import os
import random
import shlex
import struct
import subprocess
import sys
import tempfile
import unittest
import zipfile
import zlib

WRAPPER = shlex.split(os.environ.get('MESON_EXE_WRAPPER', ''))
LLM = WRAPPER + [os.path.abspath(sys.argv[1])]
ROOT = os.path.abspath(sys.argv[2])
MODEL = os.path.join(ROOT, 'data', 'model.gguf')
CONVERT = os.path.join(ROOT, 'examples', 'llm', 'convert.py')
PROMPT = 'In the beginning '
CACHES = ('f32', 'f16', 'bf16', 'i8', 'q8_0', 'q4_0')


def read(name):
    with open(os.path.join(ROOT, 'data', name), 'rb') as file:
        return file.read()


GREEDY = read('llm-greedy.txt').decode()
PASSAGE = read('tokens.txt').decode()  # 272 characters: more than a block of 256 keys


def run(*arguments):
    return subprocess.run(LLM + list(arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE)


def usable_tiers():
    """Those that --isa takes, as its refusal of another says."""
    said = run('--isa', 'none of them').stderr.decode()
    return said.rsplit('give one of ', 1)[1].strip().split(', ')


def floats(npy):
    begin = 10 + struct.unpack_from('<H', npy, 8)[0]
    shape = ast.literal_eval(npy[10:begin].decode())['shape']
    return shape, struct.unpack('<%df' % math.prod(shape), npy[begin:])


# --- a Llama in plain Python, in double, its weights named and ordered as training left them --------------------------

class Shape:
    layers, width, hidden, heads, kv_heads, head, base, eps = 2, 32, 48, 4, 2, 16, 100.0, 1e-3
    vocabulary = 'abc d\u00e9'


def half(x):
    return struct.unpack('<e', struct.pack('<e', x))[0]


def tiny_weights(seed):
    draw, s = random.Random(seed), Shape
    shapes = {'e.weight': (len(s.vocabulary), s.width), 'n.w': (s.width,)}
    for i in range(s.layers):
        for name, rows, cols in (('q', s.heads * s.head, s.width), ('k', s.kv_heads * s.head, s.width),
                                 ('v', s.kv_heads * s.head, s.width), ('o', s.width, s.heads * s.head),
                                 ('g', s.hidden, s.width), ('u', s.hidden, s.width), ('d', s.width, s.hidden)):
            shapes['b.%d.%s.weight' % (i, name)] = (rows, cols)
        shapes['b.%d.n1.w' % i] = shapes['b.%d.n2.w' % i] = (s.width,)
    spread = {1: 0.3, 2: 0.25}
    return {name: (shape, [half(draw.gauss(len(shape) == 1, spread[len(shape)])) for _ in range(math.prod(shape))])
            for name, shape in shapes.items()}


def times(weight, x):
    (rows, cols), w = weight
    return [sum(a * b for a, b in zip(w[r * cols:(r + 1) * cols], x)) for r in range(rows)]


def norm(x, weight):
    scale = 1 / math.sqrt(sum(a * a for a in x) / len(x) + Shape.eps)
    return [a * scale * b for a, b in zip(x, weight[1])]


def rope(x, position):
    result = []
    for h in range(0, len(x), Shape.head):
        a, b = x[h:h + Shape.head // 2], x[h + Shape.head // 2:h + Shape.head]
        angles = [position * Shape.base ** (-2 * i / Shape.head) for i in range(len(a))]
        result += [p * math.cos(t) - q * math.sin(t) for p, q, t in zip(a, b, angles)]
        result += [p * math.sin(t) + q * math.cos(t) for p, q, t in zip(a, b, angles)]
    return result


def scores_of(w, text, output='e.weight'):
    """After the last character."""
    s, keys, values = Shape, [[] for _ in range(Shape.layers)], [[] for _ in range(Shape.layers)]
    for position, character in enumerate(text):
        token = s.vocabulary.index(character)
        x = list(w['e.weight'][1][token * s.width:(token + 1) * s.width])
        for i in range(s.layers):
            y, part = norm(x, w['b.%d.n1.w' % i]), lambda name: w['b.%d.%s.weight' % (i, name)]
            q, out = rope(times(part('q'), y), position), []
            keys[i].append(rope(times(part('k'), y), position))
            values[i].append(times(part('v'), y))
            for h in range(s.heads):
                own, theirs = slice(h * s.head, (h + 1) * s.head), h // (s.heads // s.kv_heads) * s.head
                t = [sum(a * b for a, b in zip(q[own], k[theirs:])) / math.sqrt(s.head) for k in keys[i]]
                e = [math.exp(a - max(t)) for a in t]
                out += [sum(a * v[theirs + j] for a, v in zip(e, values[i])) / sum(e) for j in range(s.head)]
            x = [a + b for a, b in zip(x, times(part('o'), out))]
            y = norm(x, w['b.%d.n2.w' % i])
            y = [g / (1 + math.exp(-g)) * u for g, u in zip(times(part('g'), y), times(part('u'), y))]
            x = [a + b for a, b in zip(x, times(part('d'), y))]
    return times(w[output], norm(x, w['n.w']))


# --- GGUF files, also wrong ones --------------------------------------------------------------------------------------

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
LETTERS = {U8: 'B', I8: 'b', U16: 'H', I16: 'h', U32: 'I', I32: 'i', F32: 'f', BOOL: '?', U64: 'Q', I64: 'q', F64: 'd'}
NAMES = {'n1.w': 'attn_norm', 'q.weight': 'attn_q', 'k.weight': 'attn_k', 'v.weight': 'attn_v',
         'o.weight': 'attn_output', 'n2.w': 'ffn_norm', 'g.weight': 'ffn_gate', 'u.weight': 'ffn_up',
         'd.weight': 'ffn_down'}


def string(text):
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack('<Q', len(data)) + data


def value(kind, x):
    """An array is (kind of its elements, [elements])."""
    if kind == STRING:
        return string(x)
    if kind == ARRAY:
        return struct.pack('<IQ', x[0], len(x[1])) + b''.join(value(x[0], y) for y in x[1])
    return struct.pack('<' + LETTERS[kind], x)


def quantised(x):
    """The bytes in q8_0, and what they are worth."""
    data, worth = b'', []
    for i in range(0, len(x), 32):
        scale = half(max(abs(a) for a in x[i:i + 32]) / 127)
        bytes_of = [max(-127, min(127, round(a / scale))) for a in x[i:i + 32]]
        data += struct.pack('<e32b', scale, *bytes_of)
        worth += [scale * a for a in bytes_of]
    return data, worth


class File:
    """The tiny model; a test changes what it wants to have otherwise."""

    def __init__(self, weights, kind='f32'):
        s = Shape
        self.magic, self.version, self.counts, self.alignment, self.offsets = b'GGUF', 3, (None, None), 32, {}
        self.metadata = {
            'general.architecture': (STRING, 'llama'), 'llama.context_length': (U32, 64),
            'llama.embedding_length': (U32, s.width), 'llama.block_count': (U32, s.layers),
            'llama.feed_forward_length': (U32, s.hidden), 'llama.attention.head_count': (U32, s.heads),
            'llama.attention.head_count_kv': (U32, s.kv_heads), 'llama.attention.key_length': (U32, s.head),
            'llama.attention.value_length': (U32, s.head), 'llama.rope.freq_base': (F32, s.base),
            'llama.attention.layer_norm_rms_epsilon': (F32, s.eps), 'tokenizer.ggml.model': (STRING, 'none'),
            'tokenizer.ggml.tokens': (ARRAY, (STRING, list(s.vocabulary)))}
        self.tensors = {}  # name: [dimensions, type, bytes]
        for name, (shape, x) in weights.items():
            if name == 'e.weight':
                to = 'token_embd.weight'
            elif name == 'n.w':
                to = 'output_norm.weight'
            elif name == 'output':
                to = 'output.weight'
            else:
                to = 'blk.%s.%s.weight' % (name.split('.')[1], NAMES[name.split('.', 2)[2]])
            if to.endswith(('attn_q.weight', 'attn_k.weight')):
                x = self.pairs(shape, x)
            self.tensors[to] = [list(reversed(shape)), 0, struct.pack('<%df' % len(x), *x)]
            if kind == 'q8_0' and shape[-1] % 32 == 0:
                self.tensors[to][1:] = 8, quantised(x)[0]
            elif kind == 'worth' and shape[-1] % 32 == 0:
                self.tensors[to][2] = struct.pack('<%df' % len(x), *quantised(x)[1])

    @staticmethod
    def pairs(shape, x):
        rows, half_head = [x[i:i + shape[1]] for i in range(0, len(x), shape[1])], Shape.head // 2
        order = [h + i + j * half_head for h in range(0, shape[0], Shape.head) for i in range(half_head) for j in (0, 1)]
        return [a for r in order for a in rows[r]]

    def bytes(self):
        infos = body = b''
        for name, (dims, kind, data) in self.tensors.items():
            offset = self.offsets.get(name, len(body))
            infos += string(name) + struct.pack('<I%dQIQ' % len(dims), len(dims), *dims, kind, offset)
            body += data + bytes(-len(data) % self.alignment)
        counts = [n if n is not None else m for n, m in zip(self.counts, (len(self.tensors), len(self.metadata)))]
        head = self.magic + struct.pack('<IQQ', self.version, *counts)
        for key, (kind, x) in self.metadata.items():
            head += string(key) + struct.pack('<I', kind) + (x if isinstance(x, bytes) else value(kind, x))
        head += infos
        return head + bytes(-len(head) % self.alignment) + body


class Runtime(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def content(self, name):
        with open(self.path(name), 'rb') as file:
            return file.read()

    def write(self, data):
        with open(self.path('m.gguf'), 'wb') as file:
            file.write(data)
        return self.path('m.gguf')

    def good(self, *arguments, model=MODEL):
        done = run('-m', model, *arguments)
        self.assertEqual(done.returncode, 0, (arguments, done.stderr))
        return done.stdout.decode()

    def bad(self, *arguments, says='', model=MODEL):
        done = run('-m', model, *arguments)
        said = done.stderr.decode(errors='replace')
        self.assertEqual((done.returncode, done.stdout), (2, b''), (arguments, said))
        self.assertEqual((said.count('\n'), said[:5]), (1, 'llm: '), said)
        self.assertIn(says, said)

    def traced(self, *arguments, model=MODEL):
        """The text, and the trace's lines."""
        text = self.good('--trace', self.path('trace'), *arguments, model=model)
        return text, self.content('trace').decode().splitlines()

    def same(self, runs, *arguments):
        """All runs give one text and one trace: the first run's."""
        first = None
        for options in runs:
            now = self.traced(*arguments, *options)
            first = first or now
            self.assertTrue(now == first, ('other bits', arguments, options))
        return first


class Shipped(Runtime):
    def test_scores(self):
        shape, wanted = floats(read('llm-logits.npy'))
        for cache, tolerance in (('f32', 1e-4), ('f16', 1e-2)):
            self.good('-p', PROMPT, '-n', '0', '--cache', cache, '--logits', self.path('l.npy'))
            got_shape, got = floats(self.content('l.npy'))
            self.assertEqual(got_shape, shape)
            for a, b in zip(got, wanted):
                self.assertLessEqual(abs(a - b), tolerance * max(1, abs(b)))

    def test_greedy_on_every_way(self):
        ways = itertools.product(usable_tiers(), ('1', '2', '5'), ('1', '7', '64'))
        ways = [('--isa', i, '--threads', t, '--chunk', c, '--page', str(16 * (1 + n % 3)))
                for n, (i, t, c) in enumerate(ways)]
        for cache in ('f32', 'f16'):
            text, trace = self.same(ways[::7] if WRAPPER else ways, '-p', PROMPT, '--cache', cache)
            self.assertEqual(text, GREEDY + '\n')
            self.assertEqual(len(trace), (len(GREEDY) - 1) * 4)
            self.assertEqual(trace[-1].split()[:3], ['0', str(len(GREEDY) - 2), '3'])

    def test_every_type_of_cache(self):
        traces = set()
        for cache in CACHES[:2] if WRAPPER else CACHES:
            ways = [('--isa', i, '--threads', t, '--chunk', c) for i, t, c in zip(usable_tiers() * 2, '12212111', '59' * 4)]
            traces.add(tuple(self.same(ways, '-p', PROMPT, '-n', '20', '--cache', cache)[1]))
        self.assertEqual(len(traces), 2 if WRAPPER else len(CACHES))  # each is really used

    def test_more_than_a_block_of_keys(self):
        ways = [('--isa', i, '--threads', t, '--chunk', c) for i in usable_tiers() for t, c in (('1', '300'), ('3', '50'))]
        for cache in ('f32',) if WRAPPER else ('f32', 'f16', 'q8_0'):
            self.same(ways, '-p', PASSAGE, '-n', '6', '--cache', cache)

    def test_batches(self):
        prompts = [PROMPT, 'A', 'And the LORD said unto ', PASSAGE[:70], 'Then', 'A'][:3 if WRAPPER else 6]
        alone = [self.traced('-p', prompt, '-n', '30') for prompt in prompts]
        together = ''.join('--- %d\n%s' % (i, text) for i, (text, _) in enumerate(alone))
        lines = ['%d%s' % (i, line[1:]) for i, (_, trace) in enumerate(alone) for line in trace]
        several = [x for prompt in prompts for x in ('-p', prompt)]
        for options in ((), ('--batch', '2', '--chunk', '9'), ('--batch', '3', '--threads', '3', '--page', '32'),
                        ('--batch', '4', '--chunk', '1')):
            text, trace = self.traced(*several, '-n', '30', *options)
            self.assertEqual(text, together)
            self.assertTrue(trace == lines, options)

    def test_drawing(self):
        hot = ('-p', PROMPT, '-n', '40', '--temperature', '0.8')
        text = self.good(*hot)
        self.assertNotEqual(text, GREEDY[:len(text) - 1] + '\n')
        self.assertEqual(text, self.good(*hot, '--seed', '1', '--threads', '2', '--chunk', '3'))
        self.assertNotEqual(text, self.good(*hot, '--seed', '2'))
        self.assertEqual(self.good('-p', 'The ', *hot).split('--- 1\n')[1], text)
        self.assertEqual(self.good(*hot[:-1], '0.0001'), GREEDY[:len(text) - 1] + '\n')  # cold: as good as greedy

    def test_picture(self):
        options = ('-p', PROMPT, '-n', '0', '--heatmap', '2.3', '-o', self.path('h.png'))
        if b'without cairo' in run('--heatmap', '0.0').stderr:
            self.bad(*options, says='built without cairo')
            return
        pictures = set()
        for way in ((), ('--chunk', '5', '--threads', '2', '--isa', 'scalar'), ('--page', '32', '-p', 'And')):
            self.good(*options, *way)
            pictures.add(self.content('h.png'))
        self.assertEqual(len(pictures), 1)
        cells = [self.cells(pictures.pop())]
        for other in ('2.0', '2.1', '2.2', '1.3'):
            self.good(*options[:5], other, *options[6:])
            cells.append(self.cells(self.content('h.png')))
        self.assertEqual(len(set(cells)), 5)

    def cells(self, png):
        """What is below the title and the subtitle, as PNG filters it."""
        self.assertEqual(png[:8], b'\x89PNG\r\n\x1a\n')
        width, at, data = struct.unpack_from('>I', png, 16)[0], 8, b''
        while at < len(png):
            length, kind = struct.unpack_from('>I4s', png, at)
            data += png[at + 8:at + 8 + length] if kind == b'IDAT' else b''
            at += length + 12
        return zlib.decompress(data)[80 * (1 + 3 * width):]

    def test_wrong_options(self):
        done = run('--help')
        self.assertEqual((done.returncode, done.stderr), (0, b''))
        for option in ('--chunk', '--cache', '--threads', '--isa', '--trace', '--heatmap', '--temperature', '--logits'):
            self.assertIn(option.encode(), done.stdout)
        for arguments, says in (
                (('-p', ''), 'give at least one character'), ((), 'no prompt'), (('-p', 'a', 'b'), "argument 'b'"),
                (('-p', 'a#b'), "'#b' begins with what is not in the model's vocabulary; give text of '"),
                (('-p',), 'needs an argument'), (('-p', 'a', '--wat'), "unknown option '--wat'"),
                (('-p', 'a', '--cache', 'f64'), 'give f32, f16, bf16, i8, q8_0 or q4_0'),
                (('-p', 'a', '--page', '24'), 'multiple of 16'), (('-p', 'a', '--threads', '0'), 'from 1 to 256'),
                (('-p', 'a', '--chunk', '0'), 'from 1 to'), (('-p', 'a', '-n', 'x'), 'whole number'),
                (('-p', 'a', '--temperature', '-1'), 'from 0 to'), (('-p', 'a', '-n', '900'), '--context 901'),
                (('-p', 'a', '--heatmap', '1'), 'LAYER.HEAD'), (('-p', 'a', '--trace', '/no/such/place'), 'cannot write')):
            self.bad(*arguments, says=says)


class Tiny(Runtime):
    """Models that only a test has, against plain Python."""

    def compare(self, model, wanted, text, *options):
        self.good('-p', text, '-n', '0', '--logits', self.path('l.npy'), *options, model=model)
        for a, b in zip(floats(self.content('l.npy'))[1], wanted):
            self.assertLess(abs(a - b), 2e-5 * max(1, abs(b)))

    def test_converted(self):
        weights, text = tiny_weights(1), 'ab d\u00e9 cabbada'
        with zipfile.ZipFile(self.path('m.npz'), 'w') as archive:
            for name, (shape, x) in weights.items():
                archive.writestr(name + '.npy', self.npy('<f2', shape, struct.pack('<%de' % len(x), *x)))
            characters = Shape.vocabulary.encode('utf-32-le')
            archive.writestr('vocab.npy', self.npy('<U1', (len(Shape.vocabulary),), characters))
        for kind in ('f16', 'f32'):
            done = subprocess.run([sys.executable, CONVERT, '--type', kind, '--heads', '4', '--kv-heads', '2', '--eps',
                                   str(Shape.eps), '--rope-base', str(Shape.base), self.path('m.npz'),
                                   self.path('m.gguf')])
            self.assertEqual(done.returncode, 0)
            self.compare(self.path('m.gguf'), scores_of(weights, text), text, '--chunk', '5')

    @staticmethod
    def npy(descr, shape, body):
        head = repr({'descr': descr, 'fortran_order': False, 'shape': shape}).encode()
        head += b' ' * (-(len(head) + 11) % 64) + b'\n'
        return b'\x93NUMPY\x01\x00' + struct.pack('<H', len(head)) + head + body

    def test_output_of_its_own_and_other_metadata(self):
        weights = tiny_weights(2)
        weights['output'] = ((len(Shape.vocabulary), Shape.width), tiny_weights(3)['e.weight'][1])
        file = File(weights)
        file.alignment = 128
        everything = [(kind, [x] * n) for n, (kind, x) in enumerate([
            (U8, 1), (I8, -1), (U16, 1), (I16, -1), (U32, 1), (I32, -1), (F32, 1), (BOOL, True), (STRING, 'x'), (U64, 1),
            (I64, -1), (F64, 1), (ARRAY, (ARRAY, [(U8, [1])]))])]
        others = {'x.%d' % i: (ARRAY, x) for i, x in enumerate(everything)}
        others.update({'y.%d' % i: (x[0], x[1][0]) for i, x in enumerate(everything) if x[1] and x[0] != ARRAY})
        file.metadata = {**others, **file.metadata, 'general.alignment': (U64, 128), 'llama.block_count': (I8, 2),
                         'llama.embedding_length': (I64, Shape.width), 'llama.rope.freq_base': (F64, Shape.base),
                         'llama.attention.head_count': (U16, 4)}
        self.compare(self.write(file.bytes()), scores_of(weights, 'abc dab', 'output'), 'abc dab')

    def test_quantised_weights(self):
        weights = tiny_weights(4)
        traces = [self.traced('-p', 'abc dab', '-n', '9', model=self.write(File(weights, kind).bytes()))
                  for kind in ('q8_0', 'worth', 'f32')]
        self.assertEqual(traces[0], traces[1])
        self.assertNotEqual(traces[0], traces[2])

    def test_end_of_a_text(self):
        file = File(tiny_weights(5))
        path = self.write(file.bytes())
        text = self.good('-p', 'ab', '-n', '30', model=path)[2:-1]
        end = text[3]
        file.metadata['tokenizer.ggml.eos_token_id'] = (U32, Shape.vocabulary.index(end))
        path = self.write(file.bytes())
        self.assertEqual(self.good('-p', 'ab', '-n', '30', model=path), 'ab' + text[:text.index(end) + 1] + '\n')

    def wrong(self, says, change):
        file = File(tiny_weights(6))
        change(file)
        self.bad('-p', 'a', '-n', '1', says=says, model=self.write(file.bytes()))

    def test_wrong_files(self):
        def metadata(key, kind, x):
            return lambda file: file.metadata.update({key: (kind, x)})

        def tensor(name, place, x):
            return lambda file: file.tensors[name].__setitem__(place, x)
        deep = struct.pack('<IQ', ARRAY, 1) * 9000
        norm_name, q = 'output_norm.weight', 'blk.1.attn_q.weight'
        for says, change in (
                ("begin with 'GGUF'", lambda file: setattr(file, 'magic', b'GGML')),
                ('version 3', lambda file: setattr(file, 'version', 2)),
                ('version 3', lambda file: setattr(file, 'version', 3 << 24)),
                ('65536', lambda file: setattr(file, 'counts', (1 << 63, None))),
                ('65536', lambda file: setattr(file, 'counts', (None, (1 << 64) - 1))),
                ('', lambda file: setattr(file, 'counts', (None, 60000))),
                ('', lambda file: setattr(file, 'counts', (60000, None))),
                ('not in a plain Llama model', lambda file: file.tensors.update(x=[[1], 0, bytes(4)])),
                ('offset', lambda file: file.offsets.update({q: 36})),
                ('file', lambda file: file.offsets.update({q: 1 << 40})),
                ('file', lambda file: file.offsets.update({q: (1 << 64) - 32})),
                ('no tensor ' + q, lambda file: file.tensors.pop(q)),
                ('no tensor ' + norm_name, lambda file: file.tensors.pop(norm_name)),
                ('rows of', tensor(norm_name, 0, [16])), ('rows of', tensor(q, 0, [32, 63])),
                ('shape', tensor(q, 0, [32, 0])), ('shape', tensor(q, 0, [1 << 63, 2])),
                ('shape', tensor(q, 0, [(1 << 31) - 1, (1 << 31) - 1, 4])),
                ('file', tensor(q, 0, [(1 << 31) - 1, (1 << 31) - 1])),
                ('dimensions', tensor(q, 0, [])), ('dimensions', tensor(q, 0, [32, 64, 1, 1, 1])),
                ('type', tensor(q, 1, 2)), ('type', tensor(q, 1, 9999)),
                ('multiples of 32', lambda file: file.tensors.update({'blk.0.ffn_down.weight': [[48, 32], 8, bytes(1632)]})),
                ('64 bytes', lambda file: file.tensors.update({'x' * 65: [[1], 0, bytes(4)]})),
                ('12', metadata('x', 13, b'')), ('12', metadata('x', ARRAY, struct.pack('<IQ', 13, 1))),
                ('file', metadata('x', ARRAY, struct.pack('<IQ', U8, 1 << 62))),
                ('file', metadata('x', ARRAY, struct.pack('<IQ', F64, (1 << 61) + 1))),
                ('file', metadata('x', STRING, struct.pack('<Q', (1 << 64) - 1))),
                ('arrays', metadata('x', ARRAY, deep)),
                ('power of two', metadata('general.alignment', U32, 24)),
                ('general.alignment', metadata('general.alignment', U32, 0)),
                ("'llama' is read", metadata('general.architecture', STRING, 'falcon')),
                ("'llama' is read", metadata('general.architecture', U32, 1)),
                ('general.architecture', lambda file: file.metadata.pop('general.architecture')),
                ('block_count', metadata('llama.block_count', U32, (1 << 32) - 1)),
                ('block_count', metadata('llama.block_count', F32, 2)),
                ('no tensor blk.2.', metadata('llama.block_count', U32, 3)),
                ('blk.1.', metadata('llama.block_count', U32, 1)),
                ('head_count', metadata('llama.attention.head_count', U32, 0)),
                ('multiple', metadata('llama.attention.head_count_kv', U32, 3)),
                ('head_count_kv', metadata('llama.attention.head_count_kv', I32, -2)),
                ('epsilon', metadata('llama.attention.layer_norm_rms_epsilon', F32, math.nan)),
                ('even', metadata('llama.rope.dimension_count', U32, 7)),
                ("'none' is read", metadata('llama.rope.scaling.type', STRING, 'linear')),
                ("'none' is read", metadata('tokenizer.ggml.model', STRING, 'gpt2')),
                ('array of strings', metadata('tokenizer.ggml.tokens', ARRAY, (STRING, []))),
                ('array of strings', metadata('tokenizer.ggml.tokens', ARRAY, (U32, [1, 2, 3, 4, 5, 6]))),
                ('rows of', metadata('tokenizer.ggml.tokens', ARRAY, (STRING, ['a', 'b']))),
                ('vocabulary', metadata('tokenizer.ggml.tokens', ARRAY, (STRING, [''] * 6))),
                ('eos_token_id', metadata('tokenizer.ggml.eos_token_id', U32, 6))):
            self.wrong(says, change)

    def test_damaged_files(self):
        whole, draw = File(tiny_weights(7)).bytes(), random.Random(7)
        head = whole.index(b'token_embd.weight') + 2500
        ends = [0, 1, 3, 4, 7, 8, 16, 23, 24, 30, len(whole) - 200] + draw.sample(range(head), 5 if WRAPPER else 60)
        for end in ends:
            self.bad('-p', 'a', '-n', '1', model=self.write(whole[:end]))
        for _ in range(10 if WRAPPER else 250):
            data = bytearray(whole)
            at = draw.randrange(head)
            data[at:at + 1] = [draw.choice((0, 1, 0x7f, 0x80, 0xff, data[at] ^ 1 << draw.randrange(8)))]
            done = run('-m', self.write(bytes(data)), '-p', 'a', '-n', '1')
            self.assertIn(done.returncode, (0, 2), (at, done.stderr))
            self.assertTrue(done.returncode == 0 or done.stderr.count(b'\n') == 1, done.stderr)
        for path, says in ((self.folder.name, 'give a GGUF file'), (self.path('none'), 'cannot read')):
            self.bad('-p', 'a', says=says, model=path)


if __name__ == '__main__':
    unittest.main(argv=sys.argv[:1] + sys.argv[3:])
