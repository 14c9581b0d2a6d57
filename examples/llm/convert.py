#!/usr/bin/env python3
"""Writes the weights of a small Llama model, which training left in a NumPy archive, as a GGUF file (version 3).

    convert.py [--type f16|f32|q8_0] MODEL.npz MODEL.gguf

The archive: e.weight [vocabulary][width], n.w [width], per layer b.LAYER.{n1,n2}.w [width] and
b.LAYER.{q,k,v,o,g,u,d}.weight [out][in], all float16, and vocab, an array of single characters. Standard library only.

Two things are done as GGUF files of the architecture llama have them. The rows of the query and key weights are
reordered: training rotated element i of a head against element i + size / 2, a runtime rotates 2 i against 2 i + 1.
And the vocabulary is of the kind "none", for which llama.cpp makes no tokenizer: it runs such a file on token numbers.
tokenizer.ggml.tokens has the characters that they stand for. --type is that of the matrices; norms are always f32.
"""
import argparse
import ast
import struct
import sys
import zipfile

U32, F32, STRING, ARRAY = 4, 6, 8, 9
TENSOR_TYPES = {'f32': 0, 'f16': 1, 'q8_0': 8}
ALIGNMENT = 32
NAMES = {'n1.w': 'attn_norm', 'q.weight': 'attn_q', 'k.weight': 'attn_k', 'v.weight': 'attn_v',
         'o.weight': 'attn_output', 'n2.w': 'ffn_norm', 'g.weight': 'ffn_gate', 'u.weight': 'ffn_up',
         'd.weight': 'ffn_down'}


def read_npy(data):
    """Shape and elements of a .npy file: numbers of '<f2', characters of '<U1'."""
    if data[:8] != b'\x93NUMPY\x01\x00':
        sys.exit('convert.py: not a .npy array of version 1')
    begin = 10 + struct.unpack_from('<H', data, 8)[0]
    header = ast.literal_eval(data[10:begin].decode())
    if header['fortran_order'] or header['descr'] not in ('<f2', '<U1'):
        sys.exit('convert.py: an array of %s; only <f2 and <U1 in C order are known' % header['descr'])
    body = data[begin:]
    if header['descr'] == '<U1':
        return header['shape'], body.decode('utf-32-le')
    return header['shape'], struct.unpack('<%de' % (len(body) // 2), body)


def as_pairs(rows, heads):
    """The rows of each head, i and i + half side by side."""
    size = len(rows) // heads
    return [rows[h * size + i // 2 + i % 2 * (size // 2)] for h in range(heads) for i in range(size)]


def q8_0(values):
    blocks = []
    for i in range(0, len(values), 32):
        block = values[i:i + 32]
        scale = max(abs(x) for x in block) / 127
        quants = [round(x / scale) if scale > 0 else 0 for x in block]
        blocks.append(struct.pack('<e32b', scale, *quants))
    return b''.join(blocks)


def encode(values, kind):
    if kind == 'q8_0':
        return q8_0(values)
    return struct.pack('<%d%s' % (len(values), {'f32': 'f', 'f16': 'e'}[kind]), *values)


def string(text):
    data = text.encode()
    return struct.pack('<Q', len(data)) + data


def entry(key, kind, value):
    if kind == STRING:
        data = string(value)
    elif kind == ARRAY:
        data = struct.pack('<IQ', STRING, len(value)) + b''.join(string(x) for x in value)
    else:
        data = struct.pack('<I' if kind == U32 else '<f', value)
    return string(key) + struct.pack('<I', kind) + data


def write_gguf(path, metadata, tensors):
    """tensors: (name, shape as NumPy has it, type, bytes). GGUF names the dimension first that changes fastest."""
    infos, offset = b'', 0
    for name, shape, kind, data in tensors:
        infos += string(name) + struct.pack('<I%dQIQ' % len(shape), len(shape), *reversed(shape), TENSOR_TYPES[kind],
                                            offset)
        offset += len(data) + -len(data) % ALIGNMENT
    head = struct.pack('<4sIQQ', b'GGUF', 3, len(tensors), len(metadata))
    head += b''.join(entry(*x) for x in metadata) + infos
    with open(path, 'wb') as file:
        file.write(head + bytes(-len(head) % ALIGNMENT))
        for _, _, _, data in tensors:
            file.write(data + bytes(-len(data) % ALIGNMENT))


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument('npz')
    parse.add_argument('gguf')
    parse.add_argument('--type', choices=TENSOR_TYPES, default='f16')
    parse.add_argument('--name', default='kjv-characters')
    # What the shapes do not tell.
    parse.add_argument('--heads', type=int, default=4)
    parse.add_argument('--kv-heads', type=int, default=2)
    parse.add_argument('--context', type=int, default=512)
    parse.add_argument('--rope-base', type=float, default=10000)
    parse.add_argument('--eps', type=float, default=1e-5)
    given = parse.parse_args()

    with zipfile.ZipFile(given.npz) as archive:
        arrays = {name[:-len('.npy')]: read_npy(archive.read(name)) for name in archive.namelist()}
    vocabulary = arrays.pop('vocab')[1]
    layers = 1 + max(int(name.split('.')[1]) for name in arrays if name.startswith('b.'))
    (_, width), (wide, _) = arrays['e.weight'][0], arrays['b.0.q.weight'][0]
    head = wide // given.heads
    metadata = [
        ('general.architecture', STRING, 'llama'),
        ('general.name', STRING, given.name),
        ('general.alignment', U32, ALIGNMENT),
        ('general.file_type', U32, {'f32': 0, 'f16': 1, 'q8_0': 7}[given.type]),
        ('llama.vocab_size', U32, len(vocabulary)),
        ('llama.context_length', U32, given.context),
        ('llama.embedding_length', U32, width),
        ('llama.block_count', U32, layers),
        ('llama.feed_forward_length', U32, arrays['b.0.g.weight'][0][0]),
        ('llama.attention.head_count', U32, given.heads),
        ('llama.attention.head_count_kv', U32, given.kv_heads),
        ('llama.attention.key_length', U32, head),
        ('llama.attention.value_length', U32, head),
        ('llama.attention.layer_norm_rms_epsilon', F32, given.eps),
        ('llama.rope.dimension_count', U32, head),
        ('llama.rope.freq_base', F32, given.rope_base),
        ('tokenizer.ggml.model', STRING, 'none'),
        ('tokenizer.ggml.tokens', ARRAY, vocabulary),
    ]
    tensors = []
    for name, (shape, values) in arrays.items():
        if name == 'e.weight':
            to = 'token_embd.weight'
        elif name == 'n.w':
            to = 'output_norm.weight'
        else:
            _, layer, part = name.split('.', 2)
            to = 'blk.%s.%s.weight' % (layer, NAMES[part])
            if part in ('q.weight', 'k.weight'):
                rows = [values[i:i + shape[1]] for i in range(0, len(values), shape[1])]
                rows = as_pairs(rows, given.heads if part == 'q.weight' else given.kv_heads)
                values = [x for row in rows for x in row]
        kind = given.type if len(shape) == 2 else 'f32'
        tensors.append((to, shape, kind, encode(values, kind)))
    write_gguf(given.gguf, metadata, tensors)


if __name__ == '__main__':
    main()
