"""What the fuzzers of files begin with: small files that are right.

seeds.py DIRECTORY writes them and prints their paths, those of .npy files, a comma between two, then those of models.
"""
import pathlib
import struct
import sys


def npy(descr, shape, elements, version=1):
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b' ' * (-(10 + len(header) + 1) % 64) + b'\n'
    length = struct.pack('<H' if version == 1 else '<I', len(header))
    return b'\x93NUMPY' + bytes([version, 0]) + length + header + elements


def string(text):
    return struct.pack('<Q', len(text)) + text.encode()


def gguf(tied, kind):
    """A Llama model of one layer: 2 query heads, 1 K/V head, 5 tokens."""
    width, hidden, heads, dim, tokens = 32, 32, 2, 16, 'abcde'
    numbers = {'block_count': 1, 'embedding_length': width, 'feed_forward_length': hidden, 'context_length': 64,
               'attention.head_count': heads, 'attention.head_count_kv': 1, 'rope.dimension_count': dim}
    values = [string('general.architecture') + struct.pack('<I', 8) + string('llama')]
    values += [string('llama.' + key) + struct.pack('<II', 4, n) for key, n in numbers.items()]
    values += [string('llama.attention.layer_norm_rms_epsilon') + struct.pack('<If', 6, 1e-5)]
    values += [string('general.alignment') + struct.pack('<II', 4, 32)]
    values += [string('tokenizer.ggml.tokens') + struct.pack('<IIQ', 9, 8, len(tokens)) + b''.join(map(string, tokens))]
    shapes = {'blk.0.attn_norm': (1, width), 'blk.0.attn_q': (heads * dim, width), 'blk.0.attn_k': (dim, width),
              'blk.0.attn_v': (dim, width), 'blk.0.attn_output': (width, heads * dim), 'blk.0.ffn_norm': (1, width),
              'blk.0.ffn_gate': (hidden, width), 'blk.0.ffn_up': (hidden, width), 'blk.0.ffn_down': (width, hidden),
              'output_norm': (1, width), 'token_embd': (len(tokens), width)}
    if not tied:
        shapes['output'] = (len(tokens), width)
    row = {0: lambda n: 4 * n, 1: lambda n: 2 * n, 8: lambda n: n // 32 * 34}[kind]
    tensors, data = [], b''
    for name, (rows, cols) in shapes.items():
        sizes = [cols] if rows == 1 else [cols, rows]
        tensors.append(string(name + '.weight') + struct.pack('<I', len(sizes)) +
                       b''.join(struct.pack('<Q', n) for n in sizes) + struct.pack('<IQ', kind, len(data)))
        data += bytes(rows * row(cols))
        data += bytes(-len(data) % 32)
    head = b'GGUF' + struct.pack('<IQQ', 3, len(tensors), len(values)) + b''.join(values) + b''.join(tensors)
    return head + bytes(-len(head) % 32) + data


def main():
    top = pathlib.Path(sys.argv[1])
    files = {'npy': [b'\x4d' + npy('<f4', (2, 3, 1), bytes(24)), b'\x1e' + npy('<f2', (2, 2, 2), bytes(16), 2),
                     b'\x00' + npy('<f2', (3,), bytes(6), 3), b'\x12' + npy('<f8', (1, 2), bytes(16)),
                     b'\x07' + npy('|u1', (4,), bytes(4)), b'\xc0' + 'a \u00e4\u20ac\n'.encode(), b'\xc1one\ntwo\n'],
             'gguf': [gguf(tied, kind) for tied in (False, True) for kind in (0, 1, 8)]}
    top.mkdir(parents=True, exist_ok=True)
    for name, inputs in files.items():
        paths = [top / f'{name}-{i}' for i in range(len(inputs))]
        for path, data in zip(paths, inputs):
            path.write_bytes(data)
        print(','.join(map(str, paths)))


main()
