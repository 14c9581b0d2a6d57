"""Causal attention for NumPy arrays, by the shared library tril. One file, no dependency but NumPy; copy it anywhere.

    import numpy as np, tril
    out = tril.attend(q, k, v)          # q: [tokens, heads, dim], k and v: [tokens, kv_heads, dim]
    a = tril.weights(q, k)              # [heads, tokens, tokens], rows sum to 1

Arrays are [token, head, dim] of float32 or float16, each its own; other types are refused, since converting them is the
caller's choice. They are read where they lie, views and transposed arrays too, as long as the last dimension is
contiguous and no stride is negative; what is not is copied once. Queries that share memory (np.broadcast_to), and keys
or values that overlap in part, are refused. The library is found by the loader, or at $TRIL_LIBRARY.
"""
import ctypes
import ctypes.util
import operator
import os

import numpy as np

__all__ = ['Error', 'attend', 'isa', 'isas', 'version', 'weights']

_F32, _F16 = 0, 1
_DTYPES = {np.dtype(np.float32): _F32, np.dtype(np.float16): _F16}
_DENSE = 0


class Error(ValueError):
    """The library refused a call. `status` is the number of the tril_status, the message its text."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


class _Tensor(ctypes.Structure):
    _fields_ = [('data', ctypes.c_void_p), ('bytes', ctypes.c_int64), ('token_stride', ctypes.c_int64),
                ('head_stride', ctypes.c_int64), ('dtype', ctypes.c_int), ('layout', ctypes.c_int),
                ('block_stride', ctypes.c_int64), ('scales', ctypes.c_void_p), ('scales_bytes', ctypes.c_int64),
                ('scale_token_stride', ctypes.c_int64), ('scale_head_stride', ctypes.c_int64),
                ('scale_block_stride', ctypes.c_int64)]


class _Out(ctypes.Structure):
    _fields_ = [('data', ctypes.c_void_p), ('bytes', ctypes.c_int64), ('token_stride', ctypes.c_int64),
                ('head_stride', ctypes.c_int64), ('dtype', ctypes.c_int), ('reserved', ctypes.c_uint32)]


class _Seq(ctypes.Structure):
    _fields_ = [('q_first', ctypes.c_int64), ('q_len', ctypes.c_int64), ('kv_len', ctypes.c_int64),
                ('kv_first', ctypes.c_int64), ('key_begin', ctypes.c_int64), ('key_end', ctypes.c_int64),
                ('blocks', ctypes.c_void_p), ('prefix', ctypes.c_int64)]


class _Attention(ctypes.Structure):
    _fields_ = [('struct_size', ctypes.c_size_t), ('flags', ctypes.c_uint32), ('math', ctypes.c_int),
                ('q_heads', ctypes.c_int32), ('kv_heads', ctypes.c_int32), ('qk_dim', ctypes.c_int32),
                ('v_dim', ctypes.c_int32), ('q', _Tensor), ('k', _Tensor), ('v', _Tensor), ('out', _Out),
                ('row_max', ctypes.c_void_p), ('row_sum', ctypes.c_void_p), ('seqs', ctypes.POINTER(_Seq)),
                ('n_seqs', ctypes.c_int64), ('block_tokens', ctypes.c_int64), ('n_blocks', ctypes.c_int64),
                ('out_part_stride', ctypes.c_int64), ('statistics_part_stride', ctypes.c_int64),
                ('team_call', ctypes.c_int64), ('scale', ctypes.c_float), ('softcap', ctypes.c_float),
                ('window', ctypes.c_int64), ('sink_tokens', ctypes.c_int64), ('sink_logits', ctypes.c_void_p),
                ('alibi_slopes', ctypes.c_void_p), ('tree', ctypes.c_void_p), ('tree_row_stride', ctypes.c_int64),
                ('tree_bytes', ctypes.c_int64)]


class _WeightsOut(ctypes.Structure):
    _fields_ = [('struct_size', ctypes.c_size_t), ('data', ctypes.c_void_p), ('bytes', ctypes.c_int64),
                ('head_stride', ctypes.c_int64), ('row_stride', ctypes.c_int64), ('last_rows', ctypes.c_int64),
                ('form', ctypes.c_int), ('dtype', ctypes.c_int)]


def _load():
    named = os.environ.get('TRIL_LIBRARY')
    tried = []
    usual = ['libtril.so.0', 'libtril.dylib', 'libtril-0.dll', ctypes.util.find_library('tril')]
    for name in filter(None, [named] if named else usual):
        try:
            lib = ctypes.CDLL(name)
        except OSError as error:
            tried.append(str(error))
            continue
        call, size = ctypes.POINTER(_Attention), ctypes.POINTER(ctypes.c_size_t)
        lib.tril_workspace.argtypes = [call, ctypes.c_int, size]
        lib.tril_attend.argtypes = [call, ctypes.c_void_p, ctypes.c_size_t]
        lib.tril_weights.argtypes = [call, ctypes.POINTER(_WeightsOut), ctypes.c_void_p, ctypes.c_size_t]
        lib.tril_isa_list.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_int)]
        lib.tril_status_text.argtypes = [ctypes.c_int]
        for text in (lib.tril_isa, lib.tril_isa_list, lib.tril_status_text):
            text.restype = ctypes.c_char_p
        lib.tril_isa.argtypes = lib.tril_version.argtypes = []
        lib.tril_version.restype = ctypes.c_uint32
        return lib
    raise ImportError('tril: no shared library; install it, or set TRIL_LIBRARY to its path: ' + '; '.join(tried))


_lib = _load()


def version():
    """The library's version, as (major, minor, patch)."""
    number = _lib.tril_version()
    return number >> 16, number >> 8 & 255, number & 255


def isa():
    """The name of the tier (instruction set) in use. The environment variable TRIL_ISA caps it."""
    return _lib.tril_isa().decode()


def isas():
    """Every tier of this library, as a dict: name -> whether this machine can run it."""
    found, usable = {}, ctypes.c_int()
    while True:
        name = _lib.tril_isa_list(len(found), ctypes.byref(usable))
        if name is None:
            return found
        found[name.decode()] = bool(usable.value)


def _check(status):
    if status != 0:
        raise Error(status, _lib.tril_status_text(status).decode())


def _array(name, x, dims=3):
    x = np.asarray(x)
    if x.ndim != dims:
        raise TypeError('%s has %d dimensions, not %d: [token, head, dim]' % (name, x.ndim, dims))
    if x.dtype not in _DTYPES:
        raise TypeError('%s is %s, not float32 or float16; %s.astype(np.float32) makes a copy that is' %
                        (name, x.dtype, name))
    if x.size and (x.shape[2] > 1 and x.strides[2] != x.itemsize or min(x.strides) < 0
                   or any(stride % x.itemsize for stride in x.strides) or x.ctypes.data % x.itemsize):
        x = x.copy()
    return x


def _span(x):
    """The bytes from the first element to behind the last."""
    return sum((n - 1) * stride for n, stride in zip(x.shape, x.strides)) + x.itemsize if x.size else 0


def _tensor(x):
    return _Tensor(data=x.ctypes.data, bytes=_span(x), token_stride=x.strides[0], head_stride=x.strides[1],
                   dtype=_DTYPES[x.dtype])


def _float(name, x):
    """The number as the library has it, a float; None is 0, which is the default."""
    value = ctypes.c_float(0 if x is None else x).value
    if value == 0 and x:
        raise ValueError('%s %r is 0 as a float32' % (name, x))
    return value


def _count(name, x):
    n = operator.index(x)
    if not 0 <= n < 2**63:
        raise ValueError('%s %r is not a number from 0 to 2**63 - 1' % (name, x))
    return n


def _vector(name, x, heads):
    if x is None:
        return None
    x = np.ascontiguousarray(x, np.float32)
    if x.shape != (heads,):
        raise TypeError('%s has the shape %s, not (%d,): one number for each query head' % (name, x.shape, heads))
    return x


def _tree(x, tokens):
    """[tokens, tokens] of bool -> rows of 64-bit words, the lowest bit first."""
    if x is None:
        return None
    x = np.asarray(x)
    if x.shape != (tokens, tokens) or x.dtype != np.bool_:
        raise TypeError('tree is not an array of bool of the shape (%d, %d)' % (tokens, tokens))
    packed = np.zeros((tokens, (tokens + 63) // 64 * 8), np.uint8)
    bits = np.packbits(x, axis=1, bitorder='little')
    packed[:, :bits.shape[1]] = bits
    return packed.view('<u8').astype(np.uint64)


class _Call:
    """The struct of one call, and all that it points to."""

    def __init__(self, q, k, v, scale, softcap, window, sink_tokens, sink_logits, alibi_slopes, tree, prefix):
        q, k = _array('q', q), _array('k', k)
        v = k if v is None else _array('v', v)
        if k.shape[2] != q.shape[2]:
            raise TypeError('a head of q has %d elements, one of k %d' % (q.shape[2], k.shape[2]))
        if v.shape[:2] != k.shape[:2]:
            raise TypeError('k is [%d, %d, ...], v is [%d, %d, ...]' % (k.shape[:2] + v.shape[:2]))
        tokens, heads, _ = q.shape
        if scale is not None and scale == 0:
            raise ValueError('a scale of 0 is not possible; None stands for 1 / sqrt(dim)')
        scale, softcap = _float('scale', scale), _float('softcap', softcap)
        window = 0 if window is None else _count('window', window)
        sink_tokens, prefix = _count('sink_tokens', sink_tokens), _count('prefix', prefix)
        if max(q.shape[1:] + k.shape[1:] + v.shape[1:]) >= 2**31:
            raise ValueError('more heads, or elements of one, than 2**31 - 1')
        sinks = _vector('sink_logits', sink_logits, heads)
        slopes = _vector('alibi_slopes', alibi_slopes, heads)
        tree = _tree(tree, tokens)
        self.seq = _Seq(q_len=tokens, kv_len=k.shape[0], prefix=prefix)
        self.keep = q, k, v, sinks, slopes, tree
        self.shape = tokens, heads, k.shape[0], v.shape[2]
        self.struct = _Attention(
            struct_size=ctypes.sizeof(_Attention), q_heads=heads, kv_heads=k.shape[1], qk_dim=q.shape[2],
            v_dim=v.shape[2], q=_tensor(q), k=_tensor(k), v=_tensor(v), seqs=ctypes.pointer(self.seq), n_seqs=1,
            scale=scale, softcap=softcap, window=window, sink_tokens=sink_tokens)
        if sinks is not None:
            self.struct.sink_logits = sinks.ctypes.data
        if slopes is not None:
            self.struct.alibi_slopes = slopes.ctypes.data
        if tree is not None:
            self.struct.tree, self.struct.tree_bytes = tree.ctypes.data, tree.nbytes
            self.struct.tree_row_stride = tree.strides[0]

    def statistics(self):
        tokens, heads = self.shape[:2]
        found = np.empty((tokens, heads), np.float32), np.empty((tokens, heads), np.float32)
        self.struct.row_max, self.struct.row_sum = found[0].ctypes.data, found[1].ctypes.data
        return found

    def run(self, function, *arguments):
        size = ctypes.c_size_t()
        _check(_lib.tril_workspace(self.struct, 1, size))
        workspace = np.empty(size.value, np.uint8)
        _check(function(self.struct, *arguments, workspace.ctypes.data, workspace.nbytes))


def attend(q, k, v, *, out=None, scale=None, softcap=None, window=None, sink_tokens=0, sink_logits=None,
           alibi_slopes=None, tree=None, prefix=0, statistics=False):
    """softmax(scale * q k^T + causal mask) v, an array [tokens, heads, dim of v] of q's dtype.

    q [tokens, heads, dim], k [keys, kv_heads, dim], v [keys, kv_heads, v_dim]; heads is a multiple of kv_heads, and query
    head h uses K/V head h // (heads // kv_heads). The queries are the last `tokens` of `keys` positions: a prompt, a
    chunk at the end of a cache, or one new token.

    out            where the result goes, float32 or float16, its last dimension contiguous; returned
    scale          None: 1 / sqrt(dim)
    softcap        x becomes softcap * tanh(x / softcap)
    window         a query sees its last `window` positions; and the first sink_tokens positions
    sink_logits    [heads]: one more key of value 0 with this score
    alibi_slopes   [heads]: slope * (key's position - query's position) is added to the score
    tree           bool [tokens, tokens]: [i, j] says whether query i sees the j-th of the last `tokens` tokens
    prefix         the first positions that see each other both ways
    statistics     also return the rows' maxima (base 2) and sums, both [tokens, heads]

    The GIL is released while the library works. Raises tril.Error for what the library refuses, TypeError for arrays that
    it cannot be given.
    """
    call = _Call(q, k, v, scale, softcap, window, sink_tokens, sink_logits, alibi_slopes, tree, prefix)
    tokens, heads, _, v_dim = call.shape
    if out is None:
        out = np.empty((tokens, heads, v_dim), call.keep[0].dtype)
    elif not isinstance(out, np.ndarray) or out.shape != (tokens, heads, v_dim):
        raise TypeError('out is not an array of the shape (%d, %d, %d)' % (tokens, heads, v_dim))
    elif out.dtype not in _DTYPES or not out.flags.writeable or (v_dim > 1 and out.strides[2] != out.itemsize):
        raise TypeError('out is not a writeable float32 or float16 array whose last dimension is contiguous')
    call.struct.out = _Out(data=out.ctypes.data, bytes=_span(out), token_stride=out.strides[0],
                           head_stride=out.strides[1], dtype=_DTYPES[out.dtype])
    found = call.statistics() if statistics else ()
    call.run(_lib.tril_attend)
    return (out,) + found if statistics else out


def weights(q, k, *, dtype=np.float32, scale=None, softcap=None, window=None, sink_tokens=0, sink_logits=None,
            alibi_slopes=None, tree=None, prefix=0):
    """The weights themselves, softmax(scale * q k^T + causal mask): [heads, tokens, keys], 0 where a query does not see
    a key. dtype: float32 or float16. Everything else as for attend()."""
    call = _Call(q, k, None, scale, softcap, window, sink_tokens, sink_logits, alibi_slopes, tree, prefix)
    tokens, heads, keys, _ = call.shape
    dtype = np.dtype(dtype)
    if dtype not in _DTYPES:
        raise TypeError('weights are float32 or float16, not %s' % dtype)
    found = np.empty((heads, tokens, keys), dtype)
    to = _WeightsOut(struct_size=ctypes.sizeof(_WeightsOut), data=found.ctypes.data, bytes=found.nbytes,
                     head_stride=found.strides[0], row_stride=found.strides[1], form=_DENSE, dtype=_DTYPES[dtype])
    call.run(_lib.tril_weights, ctypes.byref(to))
    return found
