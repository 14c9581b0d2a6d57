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

WRAPPER = shlex.split(os.environ.get("MESON_EXE_WRAPPER", ""))
TRIL = WRAPPER + [os.path.abspath(sys.argv[1])]
DATA = os.path.abspath(sys.argv[2])
SUPPRESSIONS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "lsan.supp")
os.environ.setdefault("LSAN_OPTIONS", "print_suppressions=0:suppressions=" + SUPPRESSIONS)
LETTER = {"<f2": "e", "<f4": "f", "<f8": "d"}


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
    assert header["descr"] in ("<f4", "<f8") and header["fortran_order"] is False
    count = math.prod(header["shape"])
    return header["shape"], struct.unpack("<%d%s" % (count, LETTER[header["descr"]]), data[begin:])


def normal(shape, seed):
    draw = random.Random(seed)
    return [struct.unpack("<e", struct.pack("<e", draw.gauss(0, 1)))[0] for _ in range(math.prod(shape))]


def weights_of(q, k, q_shape, k_shape, scale=None):
    """A as the definition says, [head][query][key]."""
    (tokens, heads, dim), (keys, kv_heads, _) = q_shape, k_shape
    scale = 1 / math.sqrt(dim) if scale is None else scale
    result = []
    for h in range(heads):
        matrix = []
        for i in range(tokens):
            row_q = q[(i * heads + h) * dim:][:dim]
            scores = []
            for j in range(keys - tokens + i + 1):
                row_k = k[(j * kv_heads + h // (heads // kv_heads)) * dim:][:dim]
                scores.append(scale * sum(x * y for x, y in zip(row_q, row_k)))
            e = [math.exp(s - max(scores)) for s in scores]
            matrix.append([x / sum(e) for x in e] + [0.0] * (tokens - 1 - i))
        result.append(matrix)
    return result


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
        self.write("q.npy", npy((1, 4, 8), self.q[5 * 4 * 8:]))
        self.good(*self.WEIGHTS, "--png", "p.png", "-o", "a.npy")
        self.png_size("p.png")
        self.assertEqual(read_npy(os.path.join(self.dir, "a.npy"))[0], (4, 1, 6))

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

    def test_verify(self):
        text = self.good("verify", "--seed", "7", "--cases", "20")
        self.assertEqual(text, self.good("verify", "--seed", "7", "--cases", "20"))
        self.assertIn("seed 7", text)
        self.assertRegex(text, r"(?m)^tier +cases +rows +panels +pages +within bound +usual +wide$")
        self.assertRegex(text, r"(?m)^scalar +20 +20 +20 +20 +20 +0\.\d{3} +0\.\d{3}$")
        self.assertNotIn("activations", text)
        f32, bf16 = re.split(r"\n\n", text[text.index("F32, by tier"):])[:2]
        self.assertTrue(bf16.startswith("Math mode BF16, by tier\n"), bf16)
        self.assertNotIn("avx512bf16", f32)
        self.assertNotRegex(bf16, r"(?m)^avx512 ")
        self.assertRegex(bf16, r"(?m)^scalar +20 +20 +20 +20 +20 +0\.\d{3} +0\.\d{3}$")
        forms = self.forms_of(text)
        self.assertEqual(sum(cases for cases, _ in forms.values()), 20)
        for stored in self.STORED:
            self.assertIn(stored, [name[:2] for name in forms])
        self.assertIn(("F32", "F32", "F16", "F16"), forms)
        self.assertIn(("BF16", "BF16", "BF16", "BF16"), forms)
        self.assertIn("scalar", self.good("verify", "--seed", "7", "--first", "3", "--cases", "2", "--isa", "scalar"))

    def test_verify_by_a_team(self):
        text = self.good("verify", "--seed", "7", "--cases", "12", "--threads", "4")
        self.assertIn("by 4 threads", text)
        self.assertRegex(text, r"(?m)^tier +cases +rows +panels +pages +team +within bound +usual +wide$")
        self.assertRegex(text, r"(?m)^scalar +12 +12 +12 +12 +12 +12 +0\.\d{3} +0\.\d{3}$")
        self.assertEqual(sum(cases for cases, _ in self.forms_of(text).values()), 12)
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
        self.bad("info", "--help=x", says="option")
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
