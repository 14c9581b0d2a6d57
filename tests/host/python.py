#!/usr/bin/env python3
"""python/tril.py against attention in NumPy's float64, and its structs against the header's.

    python.py TRIL.py LIBTRIL.so INCLUDE CC [ARGUMENT ...]
"""
import importlib.util
import math
import os
import subprocess
import sys
import tempfile
import unittest

import numpy as np

PATH, LIBRARY, INCLUDE = sys.argv[1:4]
CC = sys.argv[4:]
os.environ['TRIL_LIBRARY'] = LIBRARY
sys.dont_write_bytecode = True
spec = importlib.util.spec_from_file_location('tril', PATH)
tril = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tril)
random = np.random.default_rng(1)


def array(*shape, dtype=np.float32):
    return random.standard_normal(shape).astype(dtype)


def scores(q, k, scale=None, softcap=None, window=None, sink_tokens=0, alibi_slopes=None, tree=None, prefix=0):
    """[heads, tokens, keys], -inf where a query does not see a key. From the header's words, in float64."""
    q, k = q.astype(np.float64), k.astype(np.float64)
    tokens, heads, dim = q.shape
    keys, kv_heads, _ = k.shape
    k = np.repeat(k, heads // kv_heads, axis=1)
    x = np.einsum('thd,khd->htk', q, k) * (1 / math.sqrt(dim) if scale is None else scale)
    if softcap is not None:
        x = softcap * np.tanh(x / softcap)
    p, j = np.arange(keys - tokens, keys)[:, None], np.arange(keys)[None, :]
    if alibi_slopes is not None:
        x = x + np.asarray(alibi_slopes, np.float64)[:, None, None] * (j - p)
    sees = j <= p
    if tree is not None:
        sees = sees.copy()
        sees[:, keys - tokens:] = tree
    if window is not None:
        sees = sees & ((j > p - window) | (j < sink_tokens))
    sees = sees | ((p < prefix) & (j < prefix))
    return np.where(sees, x, -np.inf)


def reference(q, k, v, sink_logits=None, **options):
    x = scores(q, k, **options)
    top = x.max(axis=2, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    e = np.exp(x - top)
    total = e.sum(axis=2, keepdims=True)
    if sink_logits is not None:
        total = total + np.exp(np.asarray(sink_logits, np.float64)[:, None, None] - top)
    a = np.divide(e, total, out=np.zeros_like(e), where=total > 0)
    v = np.repeat(v.astype(np.float64), q.shape[1] // v.shape[1], axis=1)
    return a, np.einsum('htk,khd->thd', a, v)


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


class Numbers(unittest.TestCase):
    def close(self, q, k, v, **options):
        a, o = reference(q, k, v, **options)
        got = tril.attend(q, k, v, **options)
        np.testing.assert_allclose(got, o, atol=2e-5 if got.dtype == np.float32 else 4e-3)
        np.testing.assert_allclose(tril.weights(q, k, **options), a, atol=1e-5)

    def test_prompt(self):
        self.close(array(300, 4, 24), array(300, 4, 24), array(300, 4, 16))

    def test_grouped_queries(self):
        self.close(array(40, 8, 32), array(40, 2, 32), array(40, 2, 32))

    def test_chunk_and_new_token(self):
        k, v = array(500, 2, 16), array(500, 2, 8)
        self.close(array(30, 4, 16), k, v)
        self.close(array(1, 4, 16), k, v)

    def test_halves(self):
        q, k, v = array(50, 4, 16), array(50, 2, 16, dtype=np.float16), array(50, 2, 16, dtype=np.float16)
        self.close(q, k, v)
        self.assertTrue(same(tril.attend(q, k, v), tril.attend(q, k.astype(np.float32), v.astype(np.float32))))
        half = q.astype(np.float16)
        self.close(half, k, v)
        self.assertTrue(same(tril.attend(half, k, v), tril.attend(half.astype(np.float32), k, v).astype(np.float16)))
        self.assertTrue(same(tril.weights(q, k, dtype=np.float16), tril.weights(q, k).astype(np.float16)))

    def test_options(self):
        q, k, v = 3 * array(90, 4, 16), array(120, 2, 16), array(120, 2, 16)
        slopes, sinks = [0.5, 0.25, 0.125, 0], [0.5, -1, 2, -np.inf]
        tree = np.tril(random.random((90, 90)) < 0.7) | np.eye(90, dtype=bool)
        for options in (dict(scale=0.5), dict(scale=-1.0), dict(softcap=2.0), dict(window=20),
                        dict(window=7, sink_tokens=4), dict(alibi_slopes=slopes), dict(sink_logits=sinks),
                        dict(tree=tree), dict(prefix=50),
                        dict(softcap=5.0, window=33, sink_tokens=2, alibi_slopes=slopes, sink_logits=sinks, tree=tree,
                             prefix=40, scale=0.3)):
            with self.subTest(**options):
                self.close(q, k, v, **options)

    def test_statistics(self):
        q, k, v = array(20, 4, 16), array(30, 2, 16), array(30, 2, 16)
        out, top, total = tril.attend(q, k, v, statistics=True)
        self.assertTrue(same(out, tril.attend(q, k, v)))
        x = scores(q, k)
        with np.errstate(divide='ignore'):
            np.testing.assert_allclose(math.log(2) * (top + np.log2(total)), np.log(np.exp(x).sum(axis=2)).T, atol=1e-5)

    def test_nothing(self):
        self.assertEqual(tril.attend(array(0, 2, 8), array(5, 1, 8), array(5, 1, 8)).shape, (0, 2, 8))
        self.assertFalse(tril.attend(array(2, 2, 8), array(0, 1, 8), array(0, 1, 8)).any())


class Memory(unittest.TestCase):
    def test_no_copies(self):
        """Whatever has a contiguous last dimension is read where it lies."""
        for x in (array(9, 2, 8), array(2, 9, 8).transpose(1, 0, 2), array(9, 4, 8)[::3, 1:3], array(9, 2, 20)[..., 5:13],
                  np.broadcast_to(array(9, 1, 8), (9, 2, 8)), array(9, 2, 8, dtype=np.float16)[1:]):
            self.assertIs(tril._array('x', x), x)
        for x in (array(8, 2, 9).transpose(2, 1, 0), array(9, 2, 8)[::-1], array(9, 2, 16)[..., ::2]):
            copied = tril._array('x', x)
            self.assertTrue(np.array_equal(copied, x) and not np.shares_memory(copied, x))

    def test_views(self):
        q, k, v = array(4, 30, 16), array(30, 2, 40), array(16, 2, 30)
        views = q.transpose(1, 0, 2), k[..., 3:19], v.transpose(2, 1, 0)
        self.assertTrue(same(tril.attend(*views), tril.attend(*(x.copy() for x in views))))

    def test_out(self):
        q, k, v = array(10, 2, 8), array(10, 2, 8), array(10, 2, 8)
        expected, whole = tril.attend(q, k, v), np.full((2, 12, 9), 7, np.float32)
        out = whole.transpose(1, 0, 2)[1:11, :, :8]
        self.assertIs(tril.attend(q, k, v, out=out), out)
        self.assertTrue(np.array_equal(out, expected) and (whole[:, [0, 11]] == 7).all() and (whole[..., 8] == 7).all())
        copy = q.copy()
        self.assertTrue(same(tril.attend(copy, k, v, out=copy), expected))  # in place of the queries
        half = np.empty((10, 2, 8), np.float16)
        self.assertTrue(same(tril.attend(q, k, v, out=half), expected.astype(np.float16)))

    def test_structs(self):
        """Each struct's size and each field's place, as the compiler sees the header."""
        pairs = [('tril_tensor', tril._Tensor), ('tril_out', tril._Out), ('tril_seq', tril._Seq),
                 ('tril_attention', tril._Attention), ('tril_weights_out', tril._WeightsOut)]
        lines = ['#include <stdio.h>', '#include "tril.h"', 'int main(void) {']
        expected = []
        for name, struct in pairs:
            lines.append('printf("%%zu\\n", sizeof(%s));' % name)
            expected.append(struct)
            for field, _ in struct._fields_:
                lines.append('{ %s x; printf("%%zu %%zu\\n", offsetof(%s, %s), sizeof(x.%s)); }' % (name, name, field, field))
        with tempfile.TemporaryDirectory() as folder:
            source, exe = os.path.join(folder, 'structs.c'), os.path.join(folder, 'structs')
            with open(source, 'w') as f:
                f.write('\n'.join(lines + ['return 0; }\n']))
            subprocess.run(CC + ['-I', INCLUDE, source, '-o', exe], check=True)
            printed = subprocess.run([exe], check=True, stdout=subprocess.PIPE, universal_newlines=True).stdout.split('\n')
        here = []
        for name, struct in pairs:
            here.append(str(tril.ctypes.sizeof(struct)))
            for field, _ in struct._fields_:
                place = getattr(struct, field)
                here.append('%d %d' % (place.offset, place.size))
        self.assertEqual(printed[:-1], here)


class Refusals(unittest.TestCase):
    def refused(self, kind, words, function, *arguments, **options):
        with self.assertRaises(kind) as caught:
            function(*arguments, **options)
        self.assertIn(words, str(caught.exception))
        return caught.exception

    def test_the_librarys(self):
        q, k, v = array(5, 3, 8), array(5, 2, 8), array(5, 2, 8)
        error = self.refused(tril.Error, 'a head count, head size', tril.attend, q, k, v)
        self.assertEqual(error.status, 3)
        self.refused(tril.Error, 'a number is NaN', tril.attend, q[:, :2], k, v, softcap=-1.0)
        self.refused(tril.Error, 'a number is NaN', tril.attend, q[:, :2], k, v, scale=math.nan)
        self.refused(tril.Error, 'a number is NaN', tril.weights, q[:, :2], k, sink_logits=[math.nan, 0])
        self.refused(tril.Error, 'overlaps', tril.attend, q[:, :2], k, v, out=k)

    def test_its_own(self):
        q, k, v = array(5, 2, 8), array(5, 2, 8), array(5, 2, 8)
        self.refused(TypeError, 'float64', tril.attend, q.astype(np.float64), k, v)
        self.refused(TypeError, '2 dimensions', tril.attend, q[0], k, v)
        self.refused(TypeError, '8 elements, one of k 4', tril.attend, q, k[..., :4], v)
        self.refused(TypeError, 'v is [4, 2', tril.attend, q, k, v[1:])
        self.refused(TypeError, '(3,)', tril.attend, q, k, v, alibi_slopes=[1, 2, 3])
        self.refused(TypeError, 'tree', tril.attend, q, k, v, tree=np.ones((4, 4), bool))
        self.refused(TypeError, 'out', tril.attend, q, k, v, out=np.empty((5, 2, 9), np.float32))
        self.refused(TypeError, 'out', tril.attend, q, k, v, out=np.empty((5, 2, 8), np.float64))
        self.refused(TypeError, 'float64', tril.weights, q, k, dtype=np.float64)
        self.refused(ValueError, 'scale of 0', tril.attend, q, k, v, scale=0)
        self.refused(ValueError, 'as a float32', tril.attend, q, k, v, scale=1e-50)
        self.refused(ValueError, 'as a float32', tril.attend, q, k, v, softcap=1e-50)
        self.refused(ValueError, 'from 0 to', tril.attend, q, k, v, window=2**64)
        self.refused(ValueError, 'from 0 to', tril.attend, q, k, v, sink_tokens=-1)
        self.refused(TypeError, 'integer', tril.attend, q, k, v, prefix=0.5)


class Machine(unittest.TestCase):
    def test_names(self):
        self.assertIn(tril.isa(), tril.isas())
        self.assertTrue(tril.isas()['scalar'])
        self.assertEqual(len(tril.version()), 3)

    def test_no_library(self):
        done = subprocess.run([sys.executable, '-B', '-c', 'import tril'], stderr=subprocess.PIPE, universal_newlines=True,
                              env=dict(os.environ, TRIL_LIBRARY='/nowhere.so', PYTHONPATH=os.path.dirname(PATH)))
        self.assertIn('TRIL_LIBRARY', done.stderr)


if __name__ == '__main__':
    unittest.main(argv=sys.argv[:1], verbosity=2)
