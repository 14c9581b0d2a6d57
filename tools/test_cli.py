"""The command line, from outside: what it computes, and that every mistake ends in one line on stderr, exit status 2 and
no file. Standard library only. usage: test_cli.py TRIL DATA-DIRECTORY; meson names an emulator, where one is needed, in
MESON_EXE_WRAPPER."""

import ast
import math
import os
import random
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
import zlib

WRAPPER = shlex.split(os.environ.get("MESON_EXE_WRAPPER", ""))
TRIL = WRAPPER + [os.path.abspath(sys.argv[1])]
DATA = os.path.abspath(sys.argv[2])
SUPPRESSIONS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "lsan.supp")
os.environ.setdefault("LSAN_OPTIONS", "print_suppressions=0:suppressions=" + SUPPRESSIONS)
LETTER = {"<f2": "e", "<f4": "f", "<f8": "d", "|u1": "B", "|b1": "?"}


def npy(shape, values, descr="<f4", version=1, fortran=False):
    """The bytes of a .npy file."""
    header = "{'descr': '%s', 'fortran_order': %s, 'shape': %s, }" % (descr, fortran, tuple(shape))
    length_bytes = 2 if version == 1 else 4
    header += " " * (-(8 + length_bytes + len(header) + 1) % 64) + "\n"
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    body = struct.pack("<%d%s" % (len(values), LETTER[descr]), *values)
    return b"\x93NUMPY" + bytes([version, 0]) + length + header.encode() + body


def read_npy(path):
    with open(path, "rb") as file:
        data = file.read()
    assert data[:8] == b"\x93NUMPY\x01\x00", data[:8]
    begin = 10 + struct.unpack("<H", data[8:10])[0]
    assert begin % 64 == 0
    header = ast.literal_eval(data[10:begin].decode())
    assert header["descr"] in ("<f2", "<f4", "<f8") and header["fortran_order"] is False
    count = math.prod(header["shape"])
    return header["shape"], struct.unpack("<%d%s" % (count, LETTER[header["descr"]]), data[begin:])


def normal(shape, seed):
    draw = random.Random(seed)
    return [struct.unpack("<e", struct.pack("<e", draw.gauss(0, 1)))[0] for _ in range(math.prod(shape))]


def sees(i, j, tokens, keys, window=None, sink_tokens=0, prefix=0, tree=None):
    """Whether query i of the last `tokens` tokens of `keys` sees key j."""
    before = keys - tokens
    p = before + i
    if p < prefix and j < prefix:
        return True
    allowed = tree[i][j - before] if tree is not None and j >= before else j <= p
    return bool(allowed) and (window is None or j > p - window or j < sink_tokens)


def weights_of(q, k, q_shape, k_shape, scale=None, softcap=None, slopes=None, sinks=None, **mask):
    """A as the definition says, [head][query][key]."""
    (tokens, heads, dim), (keys, kv_heads, _) = q_shape, k_shape
    scale = 1 / math.sqrt(dim) if scale is None else scale
    result = []
    for h in range(heads):
        matrix = []
        for i in range(tokens):
            row_q = q[(i * heads + h) * dim:][:dim]
            scores = {}
            for j in range(keys):
                if not sees(i, j, tokens, keys, **mask):
                    continue
                row_k = k[(j * kv_heads + h // (heads // kv_heads)) * dim:][:dim]
                score = scale * sum(x * y for x, y in zip(row_q, row_k))
                if softcap is not None:
                    score = softcap * math.tanh(score / softcap)
                scores[j] = score + (slopes[h] * (j - (keys - tokens + i)) if slopes else 0)
            whole = sum(math.exp(s) for s in scores.values()) + (math.exp(sinks[h]) if sinks else 0)
            matrix.append([math.exp(scores[j]) / whole if j in scores else 0.0 for j in range(keys)])
        result.append(matrix)
    return result


def coloured(png):
    """How many pixels of an RGB picture are not grey."""
    at, data = 8, b""
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at:at + 8])
        if kind == b"IHDR":
            width, height, depth, colours = struct.unpack(">IIBB", png[at + 8:at + 18])
            assert (depth, colours) == (8, 2)
        if kind == b"IDAT":
            data += png[at + 8:at + 8 + length]
        at += 12 + length
    data, above, count = zlib.decompress(data), bytearray(3 * width), 0
    for y in range(height):
        filtering, row = data[y * (3 * width + 1)], bytearray(data[y * (3 * width + 1) + 1:][:3 * width])
        for x in range(3 * width):
            left, up, corner = (row[x - 3], above[x], above[x - 3]) if x >= 3 else (0, above[x], 0)
            paeth = min((left, up, corner), key=lambda p: abs(left + up - corner - p))
            row[x] = row[x] + (0, left, up, (left + up) // 2, paeth)[filtering] & 255
        count += sum(row[x] != row[x + 1] or row[x] != row[x + 2] for x in range(0, 3 * width, 3))
        above = row
    return count


TREE = [[1, 0, 0, 1], [1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 1]]  # of four tokens; the first sees the last
TREE_OF_SIX = [[int(t == i or (t < i and (i + t) % 3 != 0)) for t in range(6)] for i in range(6)]


class Tool(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp()
        self.q_shape, self.k_shape, self.v_shape = (6, 4, 8), (6, 2, 8), (6, 2, 5)
        self.q, self.k, self.v = normal(self.q_shape, 1), normal(self.k_shape, 2), normal(self.v_shape, 3)
        self.write("q.npy", npy(self.q_shape, self.q))
        self.write("k.npy", npy(self.k_shape, self.k))
        self.write("v.npy", npy(self.v_shape, self.v))

    def tearDown(self):
        shutil.rmtree(self.dir)

    def write(self, name, data):
        with open(os.path.join(self.dir, name), "wb") as file:
            file.write(data)

    def read(self, name):
        with open(os.path.join(self.dir, name), "rb") as file:
            return file.read()

    def run_tool(self, *args, env=None, stdout=subprocess.PIPE):
        return subprocess.run(TRIL + list(args), cwd=self.dir, stdout=stdout, stderr=subprocess.PIPE,
                              env=dict(os.environ, **(env or {})), text=True)

    def good(self, *args, env=None):
        done = self.run_tool(*args, env=env)
        self.assertEqual((done.returncode, done.stderr), (0, ""), args)
        return done.stdout

    def bad(self, *args, says):
        """Status 2, one line that says so, and no file that was not there before."""
        before = sorted(os.listdir(self.dir))
        done = self.run_tool(*args)
        self.assertEqual(done.returncode, 2, (args, done.stderr))
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertTrue(done.stderr.startswith("tril: ") and done.stderr.endswith("\n"), done.stderr)
        for word in [says] if isinstance(says, str) else says:
            self.assertIn(word, done.stderr)
        self.assertEqual(sorted(os.listdir(self.dir)), before, args)

    def near(self, got, wanted, bound=1e-5):
        self.assertEqual(len(got), len(wanted))
        worst = max((abs(a - b) for a, b in zip(got, wanted)), default=0)
        self.assertLess(worst, bound)

    ATTEND = ("attend", "-q", "q.npy", "-k", "k.npy", "-v", "v.npy", "-o", "o.npy")
    WEIGHTS = ("weights", "-q", "q.npy", "-k", "k.npy")

    def out_of(self, weights):
        heads, tokens, dim = len(weights), len(weights[0]), self.v_shape[2]
        return [sum(weights[h][i][j] * self.v[(j * 2 + h // 2) * dim + d] for j in range(len(weights[h][i])))
                for i in range(tokens) for h in range(heads) for d in range(dim)]


class Works(Tool):
    def test_attend(self):
        self.assertEqual(self.good(*self.ATTEND), "")
        shape, got = read_npy(os.path.join(self.dir, "o.npy"))
        self.assertEqual(shape, (6, 4, 5))
        self.near(got, self.out_of(weights_of(self.q, self.k, self.q_shape, self.k_shape)))
        self.assertEqual(sorted(os.listdir(self.dir)), ["k.npy", "o.npy", "q.npy", "v.npy"])

    def test_scale(self):
        self.good(*self.ATTEND, "--scale", "-0.75")
        _, got = read_npy(os.path.join(self.dir, "o.npy"))
        self.near(got, self.out_of(weights_of(self.q, self.k, self.q_shape, self.k_shape, -0.75)))

    SLOPES, SINKS = [0.5, 0.25, -0.125, 0.0], [1.0, -2.0, -math.inf, 0.5]

    def write_options(self):
        self.write("slopes.npy", npy((4,), self.SLOPES))
        self.write("sinks.npy", npy((4,), self.SINKS, "<f2"))
        self.write("tree.npy", npy((6, 6), sum(TREE_OF_SIX, []), "|u1"))

    OPTIONS = [
        (["--window", "2"], dict(window=2)),
        (["--window", "1"], dict(window=1)),
        (["--window", "2147483647"], dict(window=2147483647)),
        (["--window", "2", "--sink-tokens", "2"], dict(window=2, sink_tokens=2)),
        (["--softcap", "0.75"], dict(softcap=0.75)),
        (["--softcap", "0.75", "--scale", "-2"], dict(softcap=0.75, scale=-2)),
        (["--alibi", "slopes.npy"], dict(slopes=SLOPES)),
        (["--alibi", "auto"], dict(slopes=[2 ** -2, 2 ** -4, 2 ** -6, 2 ** -8])),
        (["--sink-logits", "sinks.npy"], dict(sinks=SINKS)),
        (["--prefix", "4"], dict(prefix=4)),
        (["--prefix", "6"], dict(prefix=6)),
        (["--tree", "tree.npy"], dict(tree=TREE_OF_SIX)),
        (["--window", "2", "--sink-tokens", "1", "--softcap", "3", "--alibi", "slopes.npy", "--sink-logits",
          "sinks.npy", "--prefix", "3", "--tree", "tree.npy"],
         dict(window=2, sink_tokens=1, softcap=3, slopes=SLOPES, sinks=SINKS, prefix=3, tree=TREE_OF_SIX)),
    ]

    def test_masks_and_score_options(self):
        self.write_options()
        for options, wanted in self.OPTIONS:
            with self.subTest(options=options):
                a = weights_of(self.q, self.k, self.q_shape, self.k_shape, **wanted)
                self.good(*self.WEIGHTS, "-o", "a.npy", *options)
                shape, got = read_npy(os.path.join(self.dir, "a.npy"))
                self.assertEqual(shape, (4, 6, 6))
                self.near(got, [x for matrix in a for row in matrix for x in row])
                mask = {name: wanted[name] for name in ("window", "sink_tokens", "prefix", "tree") if name in wanted}
                for at, x in enumerate(got):  # +0 to the bit, and nowhere else
                    self.assertEqual(x == 0 and math.copysign(1, x) > 0, not sees(at // 6 % 6, at % 6, 6, 6, **mask))
                self.good(*self.ATTEND, *options)
                self.near(read_npy(os.path.join(self.dir, "o.npy"))[1], self.out_of(a))

    def test_masks_with_fewer_queries_than_keys(self):
        self.write("q.npy", npy((4, 4, 8), self.q[2 * 4 * 8:]))
        for descr in ("|u1", "|b1", "<f4"):
            self.write("tree.npy", npy((4, 4), sum(TREE, []), descr))
            for options, wanted in ((["--tree", "tree.npy"], dict(tree=TREE)),
                                    (["--tree", "tree.npy", "--window", "3", "--prefix", "4"],
                                     dict(tree=TREE, window=3, prefix=4)),
                                    (["--prefix", "5"], dict(prefix=5)), (["--alibi", "auto"], dict(slopes=[
                                        2 ** -2, 2 ** -4, 2 ** -6, 2 ** -8]))):
                a = weights_of(self.q[2 * 4 * 8:], self.k, (4, 4, 8), self.k_shape, **wanted)
                self.good(*self.WEIGHTS, "-o", "a.npy", *options)
                self.near(read_npy(os.path.join(self.dir, "a.npy"))[1], [x for m in a for row in m for x in row])
                self.good(*self.ATTEND, *options)
                self.near(read_npy(os.path.join(self.dir, "o.npy"))[1], self.out_of(a))

    def test_alibi_of_heads_that_are_no_power_of_two(self):
        """Through a row of two keys with equal scores: the ratio of its weights is e^slope."""
        for heads in (1, 3, 6, 12, 112):
            self.write("q.npy", npy((1, heads, 1), [0.0] * heads))
            self.write("k.npy", npy((2, heads, 1), [0.0] * 2 * heads))
            power = 2 ** (heads.bit_length() - 1)
            slopes = [2 ** (-8 * (h + 1) / power) for h in range(power)]
            slopes += [2 ** (-8 * h / (2 * power)) for h in range(1, 2 * power, 2)][:heads - power]
            self.good(*self.WEIGHTS, "-o", "a.npy", "--alibi", "auto")
            _, a = read_npy(os.path.join(self.dir, "a.npy"))
            self.near([math.log(a[2 * h + 1] / a[2 * h]) for h in range(heads)], slopes, 1e-6)

    def test_packed_and_masked(self):
        """A row has columns up to the last key that it may see: its own, the prefix' last, or with a tree the last."""
        self.write_options()
        for options, columns in ((["--window", "2"], [1, 2, 3, 4, 5, 6]), (["--prefix", "4"], [4, 4, 4, 4, 5, 6]),
                                 (["--tree", "tree.npy"], [6] * 6), (["--tree", "tree.npy", "--prefix", "2"], [6] * 6)):
            self.good(*self.WEIGHTS, "-o", "a.npy", *options)
            self.good(*self.WEIGHTS, "-o", "p.npy", "--packed", *options)
            _, dense = read_npy(os.path.join(self.dir, "a.npy"))
            shape, packed = read_npy(os.path.join(self.dir, "p.npy"))
            self.assertEqual(shape, (4, sum(columns)))
            self.assertEqual(packed, tuple(dense[(h * 6 + i) * 6 + j] for h in range(4) for i in range(6)
                                           for j in range(columns[i])))

    def test_many_pieces_with_a_prefix(self):
        """A prefix longer than a piece stays in one, and what comes after it does not notice."""
        n, prefix = 450, 300
        q, k, v = normal((n, 1, 4), 4), normal((n, 1, 4), 5), normal((n, 1, 3), 6)
        for name, shape, values in (("q", (n, 1, 4), q), ("k", (n, 1, 4), k), ("v", (n, 1, 3), v)):
            self.write(name + ".npy", npy(shape, values))
        options = ["--prefix", str(prefix), "--window", "100", "--sink-tokens", "3"]
        self.good(*self.ATTEND, *options)
        _, o = read_npy(os.path.join(self.dir, "o.npy"))
        self.good(*self.WEIGHTS, "-o", "a.npy", *options)
        _, a = read_npy(os.path.join(self.dir, "a.npy"))
        self.good(*self.WEIGHTS, "-o", "p.npy", "--packed", *options)
        _, packed = read_npy(os.path.join(self.dir, "p.npy"))
        at = 0
        for i in range(n):
            row, columns = a[i * n:][:n], max(prefix, i + 1) if i < prefix else i + 1
            self.assertEqual([x > 0 for x in row], [sees(i, j, n, n, 100, 3, prefix) for j in range(n)])
            self.assertEqual(packed[at:at + columns], row[:columns])
            at += columns
            self.near(o[i * 3:][:3], [sum(x * y for x, y in zip(row, v[d::3])) for d in range(3)])

    def test_column_sums(self):
        self.write_options()
        for options in ([], ["--window", "2", "--sink-logits", "sinks.npy"], ["--tree", "tree.npy"]):
            self.good(*self.WEIGHTS, "-o", "a.npy", *options)
            _, a = read_npy(os.path.join(self.dir, "a.npy"))
            for last in (None, 1, 2, 5, 6, 7):
                rows = range(6 - min(last or 6, 6), 6)
                self.good(*self.WEIGHTS, "-o", "s.npy", "--column-sums", *options,
                          *(["--last-rows", str(last)] if last else []))
                shape, sums = read_npy(os.path.join(self.dir, "s.npy"))
                self.assertEqual(shape, (4, 6))
                self.near(sums, [sum(a[(h * 6 + i) * 6 + j] for i in rows) for h in range(4) for j in range(6)], 1e-6)
        self.write("q.npy", npy((0, 4, 8), []))
        self.good(*self.WEIGHTS, "-o", "s.npy", "--column-sums")
        self.assertEqual(read_npy(os.path.join(self.dir, "s.npy")), ((4, 6), (0.0,) * 24))

    def test_weights_in_float16(self):
        for more in ([], ["--packed"], ["--window", "3"]):
            self.good(*self.WEIGHTS, "-o", "a.npy", *more)
            self.good(*self.WEIGHTS, "-o", "h.npy", "--dtype", "f16", *more)
            shape, wide = read_npy(os.path.join(self.dir, "a.npy"))
            self.assertIn(b"'<f2'", self.read("h.npy"))
            self.assertEqual(read_npy(os.path.join(self.dir, "h.npy")),
                             (shape, tuple(struct.unpack("<e", struct.pack("<e", x))[0] for x in wide)))
            self.good(*self.WEIGHTS, "-o", "f.npy", "--dtype", "f32", *more)
            self.assertEqual(self.read("f.npy"), self.read("a.npy"))

    def test_float16_is_converted_exactly(self):
        self.good(*self.ATTEND)
        wanted = self.read("o.npy")
        for name in "qkv":
            self.write(name + ".npy", npy(getattr(self, name + "_shape"), getattr(self, name), "<f2"))
        self.good(*self.ATTEND)
        self.assertEqual(self.read("o.npy"), wanted)

    def test_every_float16(self):
        """Through V: with one key, O is V."""
        values = [struct.unpack("<e", struct.pack("<H", h))[0] for h in range(65536) if h >> 10 & 31 != 31]
        heads = len(values) // 1024
        self.assertEqual(len(values), heads * 1024)
        self.write("q.npy", npy((1, heads, 1), [1.0] * heads))
        self.write("k.npy", npy((1, heads, 1), [1.0] * heads))
        self.write("v.npy", npy((1, heads, 1024), values, "<f2"))
        self.good(*self.ATTEND)
        self.assertEqual(list(read_npy(os.path.join(self.dir, "o.npy"))[1]), values)

    def test_versions_of_the_format(self):
        self.good(*self.ATTEND)
        wanted = self.read("o.npy")
        for version in (2, 3):
            self.write("q.npy", npy(self.q_shape, self.q, version=version))
            self.good(*self.ATTEND)
            self.assertEqual(self.read("o.npy"), wanted)

    def test_a_chunk_is_the_end_of_the_whole(self):
        self.good(*self.ATTEND)
        _, whole = read_npy(os.path.join(self.dir, "o.npy"))
        self.write("q.npy", npy((2, 4, 8), self.q[4 * 4 * 8:]))
        self.good(*self.ATTEND)
        shape, got = read_npy(os.path.join(self.dir, "o.npy"))
        self.assertEqual((shape, got), ((2, 4, 5), whole[4 * 4 * 5:]))
        self.good(*self.WEIGHTS, "-o", "a.npy")
        self.assertEqual(read_npy(os.path.join(self.dir, "a.npy"))[0], (4, 2, 6))

    def test_many_pieces(self):
        """More queries than the tool works on at a time: pieces leave no seam."""
        n = 450
        q, k, v = normal((n, 2, 4), 4), normal((n, 1, 4), 5), normal((n, 1, 3), 6)
        for name, shape, values in (("q", (n, 2, 4), q), ("k", (n, 1, 4), k), ("v", (n, 1, 3), v)):
            self.write(name + ".npy", npy(shape, values))
        self.good(*self.ATTEND)
        _, o = read_npy(os.path.join(self.dir, "o.npy"))
        self.good(*self.WEIGHTS, "-o", "a.npy")
        _, a = read_npy(os.path.join(self.dir, "a.npy"))
        self.good(*self.WEIGHTS, "-o", "p.npy", "--packed")
        shape, packed = read_npy(os.path.join(self.dir, "p.npy"))
        self.assertEqual(shape, (2, n * (n + 1) // 2))
        for i in (0, 191, 192, 255, 256, 383, 384, n - 1):
            for h in range(2):
                row = a[(h * n + i) * n:][:n]
                self.assertEqual(row[i + 1:], (0.0,) * (n - 1 - i))
                self.assertEqual(packed[h * (n * (n + 1) // 2) + i * (i + 1) // 2:][:i + 1], row[:i + 1])
                self.assertAlmostEqual(sum(row), 1, places=5)
                wanted = [sum(row[j] * v[j * 3 + d] for j in range(i + 1)) for d in range(3)]
                self.near(o[(i * 2 + h) * 3:][:3], wanted)

    def test_weights(self):
        self.good(*self.WEIGHTS, "-o", "a.npy")
        shape, got = read_npy(os.path.join(self.dir, "a.npy"))
        wanted = weights_of(self.q, self.k, self.q_shape, self.k_shape)
        self.assertEqual(shape, (4, 6, 6))
        self.near(got, [x for matrix in wanted for row in matrix for x in row])

    def test_packed_is_dense_without_its_zeros(self):
        self.good(*self.WEIGHTS, "-o", "a.npy")
        self.good(*self.WEIGHTS, "-o", "p.npy", "--packed")
        _, dense = read_npy(os.path.join(self.dir, "a.npy"))
        shape, packed = read_npy(os.path.join(self.dir, "p.npy"))
        self.assertEqual(shape, (4, 21))
        self.assertEqual(packed, tuple(dense[(h * 6 + i) * 6 + j] for h in range(4) for i in range(6)
                                       for j in range(i + 1)))

    def test_no_queries(self):
        self.write("q.npy", npy((0, 4, 8), []))
        self.good(*self.ATTEND)
        self.assertEqual(read_npy(os.path.join(self.dir, "o.npy")), ((0, 4, 5), ()))
        self.good(*self.WEIGHTS, "-o", "a.npy")
        self.assertEqual(read_npy(os.path.join(self.dir, "a.npy")), ((4, 0, 6), ()))

    def test_an_output_may_be_an_input(self):
        self.good(*self.ATTEND)
        wanted = self.read("o.npy")
        self.good(*self.ATTEND[:-1], "q.npy")
        self.assertEqual(self.read("q.npy"), wanted)

    def test_an_output_through_a_link(self):
        os.symlink("real.npy", os.path.join(self.dir, "o.npy"))
        self.write("real.npy", b"old")
        self.good(*self.ATTEND)
        self.assertTrue(os.path.islink(os.path.join(self.dir, "o.npy")))
        self.assertEqual(read_npy(os.path.join(self.dir, "real.npy"))[0], (6, 4, 5))
        os.remove(os.path.join(self.dir, "real.npy"))
        self.bad(*self.ATTEND, says=["o.npy", "link to what does not exist"])

    def test_an_output_into_a_pipe(self):
        self.good(*self.ATTEND)
        done = subprocess.run(TRIL + list(self.ATTEND[:-1]) + ["/dev/stdout"], cwd=self.dir, capture_output=True)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, self.read("o.npy"), b""))

    def test_an_output_keeps_its_mode(self):
        self.write("o.npy", b"old")
        os.chmod(os.path.join(self.dir, "o.npy"), 0o662)
        self.good(*self.ATTEND)
        self.assertEqual(os.stat(os.path.join(self.dir, "o.npy")).st_mode & 0o777, 0o662)

    def test_places_of_outputs(self):
        self.bad(*self.ATTEND[:-1], "", says="give one to write")
        self.bad(*self.ATTEND[:-1], "here/", says="here/: is a directory")
        self.bad(*self.WEIGHTS, "-o", "a", "--png", "./a", says=["./a", "is given for two outputs"])

    def png_size(self, name):
        data = self.read(name)
        self.assertEqual(data[:8], b"\x89PNG\r\n\x1a\n")
        return struct.unpack(">II", data[16:24])

    def test_pictures(self):
        self.write("text", "a b\n\u00e9\u4e2d".encode())
        self.write("lines", b"In\n the\n beginning\n God\n created\nthe\n")
        for more in ([], ["--head", "3"], ["--text", "text"], ["--text", "lines", "--by-line"], ["--range", "2:5"],
                     ["--isa", "scalar"]):
            self.good(*self.WEIGHTS, "--png", "p.png", *more)
            width, height = self.png_size("p.png")
            self.assertTrue(300 < width < 2000 and 200 < height < 2000, (width, height))
            os.remove(os.path.join(self.dir, "p.png"))
        # A mark at the beginning is no token, nor is the carriage return of a line; what is no character has a sign.
        self.good(*self.WEIGHTS, "--png", "p.png", "--text", "text")
        plain = self.read("p.png")
        self.write("text", b"\xef\xbb\xbf" + "a b\n\u00e9\u4e2d".encode())
        self.good(*self.WEIGHTS, "--png", "p.png", "--text", "text")
        self.assertEqual(self.read("p.png"), plain)
        self.write("lines", b"In\r\n the\r\n beginning\n God\n created\r\nthe\n")
        self.good(*self.WEIGHTS, "--png", "p.png", "--text", "lines", "--by-line")
        crs = self.read("p.png")
        self.write("lines", b"In\n the\n beginning\n God\n created\nthe\n")
        self.good(*self.WEIGHTS, "--png", "p.png", "--text", "lines", "--by-line")
        self.assertEqual(self.read("p.png"), crs)
        for no_character in ("\uffff", "\ufdd0", "\U0010fffe", "\u200b"):
            self.write("text", ("a" + no_character + "b\n\u00e9\u4e2d").encode())
            self.good(*self.WEIGHTS, "--png", "p.png", "--text", "text")
            last = self.read("p.png")
            self.write("text", "a\x01b\n\u00e9\u4e2d".encode())
            self.good(*self.WEIGHTS, "--png", "p.png", "--text", "text")
            self.assertEqual(self.read("p.png"), last)
        self.write("q.npy", npy((1, 4, 8), self.q[5 * 4 * 8:]))
        self.good(*self.WEIGHTS, "--png", "p.png", "-o", "a.npy")
        self.png_size("p.png")
        self.assertEqual(read_npy(os.path.join(self.dir, "a.npy"))[0], (4, 1, 6))

    def test_pictures_of_masks(self):
        self.write_options()
        plain, seen, cells = None, set(), None
        for more in ([], ["--window", "2"], ["--window", "2", "--sink-tokens", "1"], ["--prefix", "3"],
                     ["--tree", "tree.npy"], ["--prefix", "6", "--range", "0:4"],
                     ["--tree", "tree.npy", "--range", "1:4"], ["--column-sums", "-o", "s.npy"]):
            self.good(*self.WEIGHTS, "--png", "p.png", *more)
            self.png_size("p.png")
            seen.add(self.read("p.png"))
            plain = plain or self.read("p.png")
        for more in ([], ["--window", "1"], ["--window", "2", "--sink-tokens", "1"], ["--prefix", "4"],
                     ["--tree", "tree.npy"]):  # a cell has colour where it is seen, and nowhere else
            self.good(*self.WEIGHTS, "--png", "c.png", "-o", "a.npy", *more)
            now = sum(x > 0 for x in read_npy(os.path.join(self.dir, "a.npy"))[1][:36]), coloured(self.read("c.png"))
            cells = cells or now
            self.assertEqual(now[1] - cells[1], 26 * 26 * (now[0] - cells[0]), more)
        self.assertEqual(len(seen), 7)
        self.assertEqual(self.read("p.png"), plain)  # column sums leave the picture alone
        self.write("q.npy", npy((4, 4, 8), self.q[2 * 4 * 8:]))
        self.write("tree.npy", npy((4, 4), sum(TREE, []), "|b1"))
        self.good(*self.WEIGHTS, "--png", "p.png", "--tree", "tree.npy", "--prefix", "5", "--sink-logits", "sinks.npy",
                  "--alibi", "auto", "--softcap", "20")

    def test_every_tier_gives_the_same_file(self):
        tiers = [line.split()[-2] for line in self.good("info").splitlines() if line.endswith(" usable")]
        self.assertIn("scalar", tiers)
        results = set()
        for tier in tiers:
            self.good(*self.ATTEND, "--isa", tier)
            results.add(self.read("o.npy"))
        self.assertEqual(len(results), 1)

    def test_info(self):
        text = self.good("info", env={"TRIL_ISA": "scalar"})
        for word in ("version", "processor", "caches", "features", "OS state", "TRIL_ISA=scalar", "built by"):
            self.assertIn(word, text)
        self.assertRegex(text, r"(?m)^in use +scalar,")
        self.assertRegex(text, r"(?m)^math F32 +in portable C$")
        self.assertRegex(text, r"(?m)^math BF16 +in portable C$")
        fma = "by the fma instruction"
        for tier, f32, bf16 in (("avx2", fma, "emulated"), ("neon", fma, "emulated"),
                                ("avx512", fma, "emulated, left to the tier avx2"),
                                ("avx512bf16", fma + ", left to the tier avx512",
                                 "by an instruction for pairs of bf16")):
            text = self.good("info", env={"TRIL_ISA": tier})
            if re.search(r"(?m)^in use +%s," % tier, text):
                self.assertRegex(text, r"(?m)^math F32 +%s\nmath BF16 +%s$" % (f32, bf16))
        self.assertIn("'nonsense' is ignored", self.good("info", env={"TRIL_ISA": "nonsense"}))

    STORED = [(name, name) for name in ("F16", "BF16", "I8", "Q8_0", "Q4_0")]

    def forms_of(self, text):
        """The tables' lines for K, V, Q and out: how many cases, and the last line's two errors."""
        forms = {}
        for line in text.splitlines():
            fields = line.split()
            if len(fields) < 11 or fields[0] not in ("F32", "F16", "BF16", "I8", "Q8_0", "Q4_0"):
                continue
            counts = fields[4:-2]
            panels = "-" if fields[0] in ("Q8_0", "Q4_0") else counts[0]
            self.assertEqual(counts, [counts[0], counts[0], panels] + [counts[0]] * (len(counts) - 3), line)
            forms[tuple(fields[:4])] = int(counts[0]), tuple(map(float, fields[-2:]))
        return forms

    MIXTURES = ("window, sink tokens", "softcap, ALiBi", "sink logits", "prefix", "tree", "all of them", "some of them",
                "none of them")

    def mixtures_of(self, text):
        """The table's lines for masks and score options: how many cases, and the worst error."""
        mixtures = {}
        for line in text[text.index("Masks and score options"):].splitlines():
            name, fields = line[:21].rstrip(), line[21:].split()
            if name not in self.MIXTURES:
                continue
            *counts, usual, wide = fields
            n = counts[0]
            panels = counts[2].split("/")
            self.assertEqual(panels[0], panels[-1], line)
            self.assertEqual((counts[:2], counts[3:], usual), ([n, n], [n] * (len(counts) - 3), "-"), line)
            mixtures[name] = int(n), float(wide)
        return mixtures

    def test_verify(self):
        few = ("verify", "--seed", "7", "--cases", "2")
        self.assertEqual(self.good(*few), self.good(*few))
        text = self.good("verify", "--seed", "7", "--cases", "13")  # one of every form
        self.assertIn("seed 7", text)
        self.assertRegex(text, r"(?m)^tier +cases +rows +panels +pages +within bound +usual +wide$")
        self.assertRegex(text, r"(?m)^scalar +13 +13 +13 +13 +13 +0\.\d{3} +0\.\d{3}$")
        self.assertNotIn("activations", text)
        f32, bf16 = re.split(r"\n\n", text[text.index("F32, by tier"):])[:2]
        self.assertTrue(bf16.startswith("Math mode BF16, by tier\n"), bf16)
        self.assertNotIn("avx512bf16", f32)
        self.assertNotRegex(bf16, r"(?m)^avx512 ")
        self.assertRegex(bf16, r"(?m)^scalar +13 +13 +13 +13 +13 +0\.\d{3} +0\.\d{3}$")
        forms = self.forms_of(text)
        self.assertEqual(sum(cases for cases, _ in forms.values()), 13)
        for stored in self.STORED:
            self.assertIn(stored, [name[:2] for name in forms])
        self.assertIn(("F32", "F32", "F16", "F16"), forms)
        self.assertIn(("BF16", "BF16", "BF16", "BF16"), forms)
        mixtures = self.mixtures_of(text)
        self.assertEqual(tuple(mixtures), self.MIXTURES)
        self.assertEqual([cases for cases, _ in mixtures.values()], [2, 2, 2, 2, 2, 1, 1, 1])
        self.assertTrue(0 < max(wide for _, wide in mixtures.values()) < 1)
        self.assertIn("scalar", self.good("verify", "--seed", "7", "--first", "3", "--cases", "2", "--isa", "scalar"))

    def test_verify_by_a_team(self):
        text = self.good("verify", "--seed", "7", "--cases", "6", "--threads", "4")
        self.assertIn("by 4 threads", text)
        self.assertRegex(text, r"(?m)^tier +cases +rows +panels +pages +team +within bound +usual +wide$")
        self.assertRegex(text, r"(?m)^scalar +6 +6 +6 +6 +6 +6 +0\.\d{3} +0\.\d{3}$")
        self.assertEqual(sum(cases for cases, _ in self.forms_of(text).values()), 6)
        self.assertEqual(sum(cases for cases, _ in self.mixtures_of(text).values()), 6)
        self.assertEqual(self.good("verify", "--seed", "7", "--cases", "3"),
                         self.good("verify", "--seed", "7", "--cases", "3", "--threads", "1"))
        self.good("verify", "--seed", "7", "--cases", "1", "--threads", "256", "--isa", "scalar")

    def test_verify_on_the_data_that_comes_along(self):
        """In every type; with a team, whose column has no gap."""
        text = self.good("verify", "--seed", "7", "--cases", "1", "--threads", "2", "--data", DATA)
        forms = self.forms_of(text[text.index("Real activations"):])
        for stored in [("F32", "F32")] + self.STORED:
            self.assertIn(stored + ("F32", "F32"), forms)
        for form, (cases, (usual, wide)) in forms.items():
            self.assertEqual(cases, 2)
            self.assertTrue(0 < wide < 1 and 0 < usual < 2, (form, usual, wide))
        self.assertLess(forms["F32", "F32", "F32", "F32"][1][0], 1)

    def test_help(self):
        text = self.good("--help")
        for command in ("info", "attend", "weights", "verify", "demo"):
            self.assertIn(command, text)
            self.assertIn("usage: tril " + command, self.good(command, "--help"))
            self.assertEqual(self.good(command, "-h"), self.good(command, "--help"))
        self.assertRegex(self.good("--version"), r"^tril \d+\.\d+\.\d+\n$")

    def test_the_data_that_comes_along(self):
        """The reference weights, from an independent implementation in float64."""
        self.good("weights", "-q", os.path.join(DATA, "layer2_q.npy"), "-k", os.path.join(DATA, "layer2_k.npy"), "-o",
                  "a.npy")
        (_, n, _), got = read_npy(os.path.join(self.dir, "a.npy"))
        (rows, columns), wanted = read_npy(os.path.join(DATA, "layer2_a_head0.npy"))
        self.near([x for i in range(rows) for x in got[i * n:][:columns]], wanted)

    def test_progress_only_on_a_terminal(self):
        if WRAPPER:
            self.skipTest("a terminal under an emulator")
        try:
            import pty
        except ImportError:
            self.skipTest("no pseudo-terminals here")
        try:
            main, terminal = pty.openpty()
        except OSError as reason:  # a container without /dev/pts
            self.skipTest("no pseudo-terminals here: %s" % reason)
        done = subprocess.Popen(TRIL + ["verify", "--seed", "1", "--cases", "3"], stdout=subprocess.DEVNULL,
                                stderr=terminal)
        os.close(terminal)
        shown = b""
        try:
            while True:
                piece = os.read(main, 4096)
                if not piece:
                    break
                shown += piece
        except OSError:  # how Linux tells that the other side has gone
            pass
        os.close(main)
        self.assertEqual(done.wait(), 0)
        self.assertIn(b"verify", shown)
        self.assertTrue(shown.endswith(b"\r\x1b[K"), shown)


class Refuses(Tool):
    def test_commands_and_options(self):
        self.bad(says="no command")
        self.bad("frobnicate", says=["unknown command 'frobnicate'", "attend"])
        self.bad("--frobnicate", says="unknown option '--frobnicate'")
        for command in ("info", "attend", "weights", "verify", "demo"):
            self.bad(command, "--frobnicate", says="unknown option '--frobnicate'")
            self.bad(command, "-x", says="unknown option '-x'")
            self.bad(command, "stray", says="unexpected argument 'stray'")
        self.bad("attend", "-q", says="'-q' needs an argument")
        self.bad(*self.ATTEND, "--scale", says="'--scale' needs an argument")
        self.bad("info", "--help=x", says="no argument is taken by option '--help=x'")
        self.bad("attend", "--s", says="several begin like option '--s'")
        self.bad("attend", "stray", "-xy", says="unknown option '-x'")
        self.bad("info", "--threads", "2", says="unknown option '--threads'")

    def test_missing_options(self):
        for i in (1, 3, 5, 7):
            self.bad(*self.ATTEND[:i], *self.ATTEND[i + 2:], says="%s is missing" % self.ATTEND[i])
        self.bad("weights", "-k", "k.npy", "-o", "a.npy", says="-q is missing")
        self.bad("weights", "-q", "q.npy", "-o", "a.npy", says="-k is missing")
        self.bad(*self.WEIGHTS, says="no output")
        self.bad(*self.WEIGHTS, "--png", "p.png", "--packed", says="--packed")
        for option in (["--head", "0"], ["--range", "0:2"], ["--text", "q.npy"]):
            self.bad(*self.WEIGHTS, "-o", "a.npy", *option, says=[option[0], "give --png"])
        self.bad(*self.WEIGHTS, "--png", "p.png", "--by-line", says="--by-line")

    def test_numbers(self):
        for scale in ("nan", "inf", "-inf", "0", "x", "1x", "", "1e99"):
            self.bad(*self.ATTEND, "--scale", scale, says=["--scale", "finite"])
        for isa in ("", "avx1024", "AVX2"):
            self.bad(*self.ATTEND, "--isa", isa, says=["--isa", "scalar"])
        for cases in ("0", "-1", "x", "99999999999999999999"):
            self.bad("verify", "--cases", cases, says="--cases")
        self.bad("verify", "--seed", "-1", says="--seed")
        for threads in ("0", "-1", "257", "x", "", "2x"):
            self.bad("verify", "--threads", threads, says="--threads")

    def test_masks_and_score_options(self):
        weights = self.WEIGHTS + ("-o", "a.npy", "--png", "p.png")
        for option in ("--window", "--sink-tokens", "--prefix"):
            for number in ("0", "-1", "x", "", "2x", "1.5", "2147483648"):
                for command in (self.ATTEND, weights):
                    self.bad(*command, option, number, says=[option, "1 to 2147483647"])
        for cap in ("0", "-1", "nan", "inf", "x", "", "1e99"):
            self.bad(*weights, "--softcap", cap, says=["--softcap", "finite number above 0"])
        self.bad(*weights, "--softcap", "3e38", says=["--softcap 3e+38", "too large"])
        self.bad(*weights, "--softcap", "1e-39", "--scale", "2", says=["--softcap 1e-39", "too small for a scale of 2"])
        self.bad(*self.ATTEND, "--scale", "3e38", says=["--scale 3e+38", "2.3e38"])
        self.bad(*self.ATTEND, "--sink-tokens", "2", says=["--sink-tokens", "give --window"])
        self.bad(*self.ATTEND, "--prefix", "7", says=["--prefix 7", "k.npy has 6 tokens"])
        for option in ("--window", "--sink-tokens", "--softcap", "--alibi", "--sink-logits", "--prefix", "--tree"):
            self.bad(*weights, option, says="'%s' needs an argument" % option)
            self.bad("verify", option, "1", says="unknown option '%s'" % option)
        self.write("tree.npy", npy((6, 6), sum(TREE_OF_SIX, []), "|u1"))
        self.bad(*self.ATTEND[:-1], os.path.join("nowhere", "o.npy"), "--tree", "tree.npy", says="nowhere/o.npy")

    def test_files_of_heads(self):
        for option in ("--alibi", "--sink-logits"):
            self.bad(*self.ATTEND, option, "nowhere.npy", says=["nowhere.npy", "No such file"])
            for shape in ((), (2, 2), (4, 1)):
                self.write("h.npy", npy(shape, [1.0] * math.prod(shape)))
                self.bad(*self.ATTEND, option, "h.npy", says=["h.npy: shape", "give 1: [query head]"])
            for n in (0, 2, 3, 5):
                self.write("h.npy", npy((n,), [1.0] * n))
                self.bad(*self.ATTEND, option, "h.npy", says=["h.npy: %d elements" % n, "q.npy has 4 heads"])
            self.write("h.npy", npy((4,), [1] * 4, "|u1"))
            self.bad(*self.ATTEND, option, "h.npy", says=["h.npy: dtype '|u1'", "give '<f4' or '<f2'"])
            for x in (math.nan, math.inf, 3e38, -3e38):
                self.write("h.npy", npy((4,), [1.0, 2.0, x, 3.0]))
                self.bad(*self.WEIGHTS, "-o", "a.npy", option, "h.npy", says=["h.npy: element 2 is", "2.3e38"])
        self.write("h.npy", npy((4,), [-math.inf] * 4))
        self.bad(*self.ATTEND, "--alibi", "h.npy", says=["h.npy: element 0 is -inf", "2.3e38"])
        self.good(*self.ATTEND, "--sink-logits", "h.npy")

    def test_trees(self):
        tree = self.ATTEND + ("--tree", "tree.npy")
        self.bad(*tree, says=["tree.npy", "No such file"])
        self.write("tree.npy", npy((36,), [1] * 36, "|u1"))
        self.bad(*tree, says=["tree.npy: shape (36,)", "[query][query]"])
        for shape in ((5, 5), (6, 5), (5, 6), (7, 7), (0, 6)):
            self.write("tree.npy", npy(shape, [1] * math.prod(shape), "|u1"))
            self.bad(*tree, says=["tree.npy: shape (%d, %d)" % shape, "q.npy has 6 tokens", "give (6, 6)"])
        for descr in ("<f2", "<f8", "<i4", "|i1"):
            self.write("tree.npy", npy((6, 6), [1] * 36, "|u1").replace(b"|u1", descr.encode()))
            self.bad(*tree, says=["tree.npy: dtype '%s'" % descr, "'|b1', '|u1' or '<f4'"])
        for x, descr, shown in ((2, "|u1", "2"), (255, "|u1", "255"), (0.5, "<f4", "0.5"), (math.nan, "<f4", "nan"),
                                (-1.0, "<f4", "-1")):
            self.write("tree.npy", npy((6, 6), [1] * 15 + [x] + [0] * 20, descr))
            self.bad(*tree, says=["tree.npy: element (2, 3) is %s;" % shown, "give 0 or 1"])
        self.write("q.npy", npy(self.q_shape, [1] * 192, "|u1"))
        self.bad(*self.ATTEND, says=["q.npy: dtype '|u1' is not supported; give '<f4' or '<f2'"])

    def test_forms_of_weights(self):
        file, picture = self.WEIGHTS + ("-o", "a.npy"), self.WEIGHTS + ("--png", "p.png")
        self.bad(*file, "--dtype", "bf16", says=["--dtype bf16", "no such type", "f32 or f16"])
        for name in ("", "F16", "f64", "i8"):
            self.bad(*file, "--dtype", name, says=["--dtype '%s'" % name, "give f32 or f16"])
        self.bad(*picture, "--dtype", "f16", says=["--dtype", "give -o"])
        self.bad(*picture, "--column-sums", says=["--column-sums", "give -o"])
        self.bad(*file, "--column-sums", "--packed", says=["--packed", "leave it out"])
        self.bad(*file, "--column-sums", "--dtype", "f16", says=["--dtype f16", "column sums are f32"])
        self.bad(*file, "--last-rows", "2", says=["--last-rows", "give --column-sums"])
        for number in ("0", "-1", "x", "1.5"):
            self.bad(*file, "--column-sums", "--last-rows", number, says=["--last-rows", "1 to 2147483647"])
        self.bad(*self.ATTEND, "--dtype", "f16", says="unknown option '--dtype'")
        self.bad(*self.ATTEND, "--column-sums", says="unknown option '--column-sums'")

    def test_missing_files(self):
        for name in ("q", "k", "v"):
            os.rename(os.path.join(self.dir, name + ".npy"), os.path.join(self.dir, "away"))
            self.bad(*self.ATTEND, says=[name + ".npy", "No such file"])
            os.rename(os.path.join(self.dir, "away"), os.path.join(self.dir, name + ".npy"))
        self.bad("attend", "-q", ".", *self.ATTEND[3:], says=".: ")
        self.bad("demo", "--data", "nowhere", says=["--data nowhere", "No such file"])
        self.bad("demo", "--data", ".", says="./layer0_q.npy")
        self.bad("verify", "--data", "nowhere", says=["nowhere/layer0_q.npy", "No such file"])
        self.bad("verify", "--data", ".", says="./layer0_q.npy")
        for i in (0, 2):
            for name in "qkv":
                self.write("layer%d_%s.npy" % (i, name), self.read(name + ".npy"))
        self.bad("verify", "--data", ".", says=["./layer0_q.npy: heads of size 8, and of values 5", "multiples of 32"])

    def test_files_cut_anywhere(self):
        whole = npy(self.q_shape, self.q)
        for n in [0, 1, 5, 6, 7, 8, 9, 10, 11, 40, 127, 128, 129, len(whole) - 4, len(whole) - 1]:
            self.write("q.npy", whole[:n])
            self.bad(*self.ATTEND, says="q.npy: ")
        self.write("q.npy", whole + b"\0")
        self.bad(*self.ATTEND, says=["q.npy: holds 769 bytes", "(6, 4, 8)", "exactly 768"])

    def test_headers(self):
        def header(text, version=1):
            data = text.encode()
            length = struct.pack("<H" if version == 1 else "<I", len(data))
            return b"\x93NUMPY" + bytes([version, 0]) + length + data + b"\0" * 768

        for text in ("", "{", "{}", "{'descr': '<f4'}", "[]", "{'descr': '<f4', 'fortran_order': False}\n",
                     "{'descr': '<f4', 'fortran_order': 0, 'shape': (6, 4, 8)}",
                     "{'descr': '<f4', 'fortran_order': False, 'shape': (6, -4, 8)}",
                     "{'descr': '<f4', 'fortran_order': False, 'shape': 6}",
                     "{'descr': '<f4', 'fortran_order': False, 'shape': (6, 4, 8), 'x': 1}",
                     "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 4, 8)}",
                     "{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1)}",
                     "{'descr': '<f4', 'fortran_order': False, 'shape': (6, 4, 8)} x", "{'descr': '" + "f" * 99 + "'}"):
            self.write("q.npy", header(text))
            self.bad(*self.ATTEND, says=["q.npy: ", "numpy.save"])
        self.write("q.npy", header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (6,)}"))
        self.bad(*self.ATTEND, says=["q.npy", "structure"])
        self.write("q.npy", b"\x93NUMPY\x04\x00" + b"\0" * 100)
        self.bad(*self.ATTEND, says=["version 4.0", "1.0"])
        self.write("q.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b"\0" * 100)
        self.bad(*self.ATTEND, says=["4294967295 bytes"])
        self.write("q.npy", b"PK\x03\x04 and so on: a .npz")
        self.bad(*self.ATTEND, says=["q.npy: is not a .npy file"])
        big = 2 ** 40
        self.write("q.npy", header("{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d, 8)}" % (big, big)))
        self.bad(*self.ATTEND, says=["q.npy", "elements"])
        self.write("q.npy", header("{'descr': '<f4', 'fortran_order': False, 'shape': (%d, 4, 8)}" % big))
        self.bad(*self.ATTEND, says=["q.npy: holds 768 bytes"])  # and no attempt to allocate them

    def test_dtypes_and_order(self):
        self.write("q.npy", npy(self.q_shape, self.q, "<f8"))
        self.bad(*self.ATTEND, says="q.npy: dtype '<f8' is not supported; give '<f4' or '<f2'")
        for dtype in (">f4", "<i4", "|u1", "<c8"):
            self.write("q.npy", npy(self.q_shape, self.q).replace(b"<f4", dtype.encode()))
            self.bad(*self.ATTEND, says=["q.npy: dtype '%s'" % dtype, "'<f4'"])
        self.write("q.npy", npy(self.q_shape, self.q, fortran=True))
        self.bad(*self.ATTEND, says=["q.npy", "Fortran", "C order"])

    def test_shapes(self):
        for shape in ((), (192,), (24, 8), (6, 4, 4, 2)):
            self.write("q.npy", npy(shape, self.q[:math.prod(shape)]))
            self.bad(*self.ATTEND, says=["q.npy: shape", "[token][head][dim]"])
        for shape in ((6, 0, 8), (6, 4, 0)):
            self.write("q.npy", npy(shape, []))
            self.bad(*self.ATTEND, says=["q.npy: 0 ", "give 1 to"])
        self.write("q.npy", npy((1, 4, 1025), [0.0] * 4100))
        self.bad(*self.ATTEND, says=["q.npy: 1025", "1 to 1024"])
        self.write("q.npy", npy((6, 3, 8), self.q[:144]))
        self.bad(*self.ATTEND, says=["q.npy: 3 heads", "k.npy", "multiple of 2"])
        self.write("q.npy", npy((6, 4, 7), self.q[:168]))
        self.bad(*self.ATTEND, says=["k.npy: heads of size 8", "q.npy has 7"])
        self.write("q.npy", npy((7, 4, 8), self.q + self.q[:32]))
        self.bad(*self.ATTEND, says=["q.npy: 7 tokens", "k.npy has only 6"])
        self.bad(*self.WEIGHTS, "-o", "a.npy", says=["q.npy: 7 tokens"])
        self.write("q.npy", npy(self.q_shape, self.q))
        self.write("v.npy", npy((5, 2, 5), self.v[:50]))
        self.bad(*self.ATTEND, says=["v.npy: 5 tokens", "k.npy has 6"])
        self.write("v.npy", npy((6, 1, 5), self.v[:30]))
        self.bad(*self.ATTEND, says=["v.npy: 1 heads", "k.npy has 2"])

    def test_pictures(self):
        png = self.WEIGHTS + ("--png", "p.png", "-o", "a.npy")
        self.bad(*png, "--head", "4", says=["--head 4", "0 to 3"])
        self.bad(*png, "--head", "-1", says="--head")
        for text in ("5", "5:", ":5", "3:3", "4:2", "a:b", "-1:3", "0:2x"):
            self.bad(*png, "--range", text, says=["--range", "A:B"])
        self.bad(*png, "--range", "2:7", says=["--range 2:7", "6 tokens"])
        self.bad(*png, "--range", "6:9", says="--range 6:9")
        self.bad(*png, "--text", "nowhere", says="nowhere: ")
        self.write("text", b"abcde")
        self.bad(*png, "--text", "text", says=["text: 5 tokens", "at least 6"])
        self.bad(*png, "--text", "text", "--by-line", says=["text: 1 tokens"])
        self.write("text", b"")
        self.bad(*png, "--text", "text", says=["text: is empty"])
        for junk in (b"abc\xff123", b"abc\xc3", b"abc\xc0\x80xyz", b"abc\xed\xa0\x80xyz"):
            self.write("text", junk)
            self.bad(*png, "--text", "text", says=["text: byte 3", "UTF-8"])
        self.write("q.npy", npy((2, 4, 8), self.q[:64]))
        self.bad(*png, "--range", "0:3", says=["--range 0:3", "begin at token 4"])
        n = 300
        self.write("q.npy", npy((n, 1, 1), [1.0] * n))
        self.write("k.npy", npy((n, 1, 1), [1.0] * n))
        self.bad(*png, "--range", "0:300", says=["legible", "256"])

    def test_outputs_that_cannot_be_written(self):
        base = self.ATTEND[:-1]
        self.bad(*base, os.path.join("nowhere", "o.npy"), says=["nowhere/o.npy", "cannot write"])
        self.bad(*base, ".", says=[".: is a directory"])
        self.bad(*self.WEIGHTS, "-o", "x", "--png", "x", says=["x: is given for two outputs"])
        self.bad(*self.WEIGHTS, "-o", "x", "--png", os.path.join("nowhere", "p"), says=["nowhere/p"])
        if os.path.exists("/dev/full"):
            self.bad(*base, "/dev/full", says=["/dev/full: cannot write", "No space"])
            self.bad(*self.WEIGHTS, "--png", "/dev/full", says=["/dev/full: cannot write"])
            with open("/dev/full", "w") as full:
                done = self.run_tool("info", stdout=full)
            self.assertEqual((done.returncode, done.stderr.count("\n")), (2, 1), done.stderr)
        if os.geteuid() != 0:
            os.mkdir(os.path.join(self.dir, "locked"), 0o500)
            self.bad(*base, os.path.join("locked", "o.npy"), says=["locked/o.npy: cannot write"])

    def test_what_was_there_stays(self):
        self.write("o.npy", b"precious")
        self.write("q.npy", b"junk")
        self.bad(*self.ATTEND, says="q.npy")
        self.assertEqual(self.read("o.npy"), b"precious")

    def test_a_line_is_one_line(self):
        self.bad("attend", "-q", "a\nb", *self.ATTEND[3:], says="a?b")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=1)
