#!/usr/bin/env python3
"""What the library's files export, import and contain, read from the files themselves.

    symbols.py shared HEADER LIB.so [MAP]   exports exactly the header's TRIL_API functions, each with the version that
                                        the map gives it, if there is one; imports only what is listed below; needs
                                        only libc; its SONAME is libtril.so.0; stripped it is smaller than 400 kB, on
                                        64-bit machines, 500 kB of other compilers than gcc 12
    symbols.py dll HEADER LIB.dll       exports the same; needs only Windows; no aligned move of more than 16 bytes
    symbols.py tier ARCHIVE TIER ...    defines exactly one global symbol a tier, tril_kernels_<TIER>
    symbols.py static HEADER ARCHIVE    every global symbol begins with tril_, the header's functions are all there
    symbols.py base ARCHIVE             the objects compiled for the base machine hold no AVX instruction

The tools come from the environment: NM, OBJDUMP, READELF, STRIP.
"""
import os
import re
import subprocess
import sys
import tempfile

# All that the library may ask of its host: memory to memory, the environment, the kernel's hwcaps. No allocation, no
# output, no thread, no libm.
IMPORTS = {'memcpy', 'memset', 'memmove', 'memcmp', 'strcmp', 'getenv', 'getauxval'}
# What compilers and linkers add: weak references of start-up code, checks of a hardened build.
TOOLCHAIN = {'__cxa_finalize', '__gmon_start__', '_ITM_deregisterTMCloneTable', '_ITM_registerTMCloneTable',
             '__stack_chk_fail', '__memcpy_chk', '__memset_chk', '__memmove_chk', '__deregister_frame_info',
             '__register_frame_info', '_Jv_RegisterClasses', '__stack_chk_guard'}
# Bytes, stripped; compilers differ in how much they inline, gcc 12 is Debian's. A hardened build adds its checks.
LARGEST, LARGEST_OF_GCC_12 = 500 * 1000, 400 * 1000


def run(tool, default, *arguments):
    return subprocess.run([os.environ.get(tool, default)] + list(arguments), check=True, stdout=subprocess.PIPE,
                          universal_newlines=True).stdout


def symbols(path, *options):
    """(name, type) of every global symbol."""
    found = set()
    for line in run('NM', 'nm', '-g', '-P', *options, path).splitlines():
        words = line.split()
        if len(words) >= 2 and not words[0].endswith(':'):
            found.add((words[0].split('@')[0], words[1]))
    return found


def promised(header):
    with open(header) as f:
        text = re.sub(r'/\*.*?\*/', ' ', f.read(), flags=re.S)
    functions = set(re.findall(r'^TRIL_API\b[^;()]*?\b(\w+)\(', text, re.M))
    if len(functions) < 10 or not all(name.startswith('tril_') for name in functions):
        sys.exit('symbols.py: cannot read %s: %s' % (header, sorted(functions)))
    return functions


def differ(what, is_set, wanted):
    lines = ['%s: %s' % (what, name) for name in sorted(is_set - wanted)]
    return lines + ['%s: %s is missing' % (what, name) for name in sorted(wanted - is_set)]


def versions(path):
    """Function -> version, as a linker's version script has them."""
    with open(path) as f:
        text = re.sub(r'/\*.*?\*/', ' ', f.read(), flags=re.S)
    nodes = re.findall(r'(\w[\w.]*)\s*\{\s*global:(.*?)(?:local:.*?)?\}', text, re.S)
    return {name: node for node, body in nodes for name in re.findall(r'\w+', body)}


def shared(header, path, version_script=None):
    defined = {name for name, kind in symbols(path, '-D', '--defined-only') if kind != 'A'}
    wrong = differ('exported', defined, promised(header))
    if version_script is not None:
        exported = run('NM', 'nm', '-D', '-P', '--defined-only', path).split('\n')
        exported = {line.split()[0] for line in exported if '@' in line}
        wrong += differ('versioned', exported, {'%s@@%s' % pair for pair in versions(version_script).items()})
    dynamic = run('READELF', 'readelf', '-d', path)
    wrong += ['soname: %s' % name for name in re.findall(r'\(SONAME\).*\[(.*)\]', dynamic) if name != 'libtril.so.0']
    undefined = {name for name, _ in symbols(path, '-D', '--undefined-only')}
    wrong += ['imported: %s' % name for name in sorted(undefined - IMPORTS - TOOLCHAIN)]
    needed = re.findall(r'\(NEEDED\).*\[(.*)\]', dynamic)
    wrong += ['needed: %s' % name for name in needed if not re.match(r'^libc\.so(\.\d+)?$', name)]
    with tempfile.TemporaryDirectory() as directory:
        stripped = os.path.join(directory, 'stripped')
        run('STRIP', 'strip', '-o', stripped, path)
        size = os.path.getsize(stripped)
    print('%d functions exported, %d imported, needs %s, %d bytes stripped' %
          (len(defined), len(undefined), ' '.join(needed), size))
    compilers = set(re.findall(r'GCC: .*? (\d+)\.\d|(clang) version', run('READELF', 'readelf', '-p', '.comment', path)))
    hardened = '__stack_chk_fail' in undefined
    largest = LARGEST_OF_GCC_12 if compilers == {('12', '')} and not hardened else LARGEST
    if size >= largest and 'ELF64' in run('READELF', 'readelf', '-h', path):  # with 8 registers code is longer
        wrong.append('stripped it has %d bytes, not less than %d' % (size, largest))
    return wrong


def dll(header, path):
    text = run('OBJDUMP', 'objdump', '-p', path)
    names = text.split('[Ordinal/Name Pointer] Table', 1)[1].split('\n\n', 1)[0]
    line = r'^\s*\[\s*\d+\](?:\s+\+base\[\s*\d+\]\s+[0-9a-f]+)?\s+(\w+)$'  # binutils 2.40 and 2.44
    wrong = differ('exported', set(re.findall(line, names, re.M)), promised(header))
    needed = set(re.findall(r'DLL Name: (\S+)', text))
    wrong += ['needed: %s' % name for name in sorted(needed) if name.lower() not in ('kernel32.dll', 'msvcrt.dll')]
    moves = 0
    for line in run('OBJDUMP', 'objdump', '-d', '--no-show-raw-insn', path).splitlines():
        move = re.search(r'\svmov(aps|apd|dqa(?:32|64)?|ups)\s(?=.*\()(?=.*%[yz]mm)', line)
        if move:
            moves += 1
            if move.group(1) != 'ups':
                wrong.append('aligned: %s' % line.strip())
    print('%d functions exported, needs %s, %d vector moves' % (len(promised(header)), ' '.join(sorted(needed)), moves))
    return wrong + ([] if moves > 0 else ['no vector move in %s' % path])


def tier(path, *names):
    return differ('exported', {n for n, _ in symbols(path, '--defined-only')}, {'tril_kernels_' + n for n in names})


def static(header, path):
    defined = {name for name, _ in symbols(path, '--defined-only')}
    wrong = ['defined: %s' % name for name in sorted(defined) if not name.startswith('tril_')]
    return wrong + ['%s is missing' % name for name in sorted(promised(header) - defined)]


def base(path):
    """Every object but the tiers' own, whose symbols tell them: a VEX or EVEX instruction is a v-name or has a y or z
    register, a mask, or a BMI name."""
    wrong, member, tiers, seen = [], None, set(), set()
    for line in run('NM', 'nm', '-A', '-P', '-g', '--defined-only', path).splitlines():
        found = re.match(r'^.*\[(.*)\]: tril_kernels_(?!scalar|in_use)\w+ ', line)
        if found:
            tiers.add(found.group(1))
    for line in run('OBJDUMP', 'objdump', '-d', '--no-show-raw-insn', path).splitlines():
        head = re.match(r'^(\S+):\s+file format', line)
        if head:
            member = head.group(1)
            seen.add(member)
            continue
        body = re.match(r'^\s*[0-9a-f]+:\s+(\S+)\s*(.*)$', line)
        if not body or member in tiers:
            continue
        name, operands = body.groups()
        vector = re.match(r'^v(?!err|erw|m[a-z]+$)\w', name) or re.search(r'%[yz]mm\d|%k[0-7]\b', operands)
        if vector or re.match(r'^(andn|bextr|bls(i|r|msk)|[sr](ar|hl|hr|or)x|mulx|pdep|pext)[lq]?$', name):
            wrong.append('%s: %s' % (member, line.strip()))
    checked = seen - tiers
    print('checked %s; left out as tiers: %s' % (' '.join(sorted(checked)), ' '.join(sorted(tiers))))
    for part in ('tril', 'check', 'plan', 'dispatch', 'scalar', 'cpu'):
        if not any(part + '.c' in m for m in checked):
            wrong.append('no object of %s.c in %s' % (part, path))
    return wrong


def main():
    what = {'shared': shared, 'dll': dll, 'tier': tier, 'static': static, 'base': base}.get(sys.argv[1] if sys.argv[1:] else '')
    if what is None:
        sys.exit(__doc__)
    wrong = what(*sys.argv[2:])
    for line in wrong[:50]:
        print(line)
    sys.exit(bool(wrong))


if __name__ == '__main__':
    main()
