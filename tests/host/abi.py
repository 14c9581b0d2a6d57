#!/usr/bin/env python3
"""The library's binary interface, compared with that of a release by libabigail.

    abi.py check CC     today's library against tests/abi/tril-0.1.abi; then libraries with known mistakes, every one of
                        which must be found, and with changes that old callers survive, none of which may be
    abi.py freeze CC    writes tests/abi/tril-MAJOR.MINOR.abi and .h, to be done once, with a release

Types are read from debug information, so the library is built once more, without optimisation and without tiers, which
have no part in the interface. On x86_64 only: sizes and offsets are those of one machine.
"""
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BASE = os.path.join(TOP, 'tests', 'abi', 'tril-0.1.abi')

# What callers of 0.1 survive, in the words of abidiff: the two structs that carry their size grow at their end, and so do
# the enumerations, whose counts change with them. abidiff could be told to suppress such changes, but it then passes
# over others of the same struct; so it reports everything, and here is judged line by line.
SIZED = re.compile(r"^'struct (tril_attention|tril_weights_out)' changed:$")
ENUM = re.compile(r"^'enum \w+' changed:$")
GROWS = re.compile(r"^type size changed from (\d+) to \d+ \(in bits\)$")
APPENDED = re.compile(r"^'.*', at offset (\d+) \(in bits\)$")
HARMLESS = {
    SIZED: re.compile(r"^\d+ data member insertions?:$"),
    ENUM: re.compile(r"^(type size hasn't changed|\d+ enumerator (insertion|change)s?:|'\w+::\w+' value '\d+'|"
                     r"'\w+::TRIL_\w+_COUNT' from value .*)$"),
}

HEADER, MAP, PUBLIC = 'include/tril.h', 'src/tril.map', 'src/tril.c'
# What is changed, whether callers of 0.1 survive it, and how: (file, regular expression, replacement) ...
CHANGES = [
    ('a field at the end of tril_attention', True, (HEADER, r'\} tril_attention;', r'int64_t added; } tril_attention;')),
    ('a field at the end of tril_weights_out', True,
     (HEADER, r'\} tril_weights_out;', r'int64_t added; } tril_weights_out;')),
    ('one more status', True, (HEADER, r'TRIL_STATUS_COUNT ', r'TRIL_ERR_ADDED, TRIL_STATUS_COUNT ')),
    ('one more function', True, (PUBLIC, r'\Z', r'TRIL_API int tril_added(void); int tril_added(void) { return 0; }'),
     (MAP, r'\Z', 'TRIL_0.2 { global: tril_added; } TRIL_0.1;')),
    ('a field in the middle', False, (HEADER, r'float softcap;', r'float added; float softcap;')),
    ('a field at the end of a struct without a size', False,
     (HEADER, r'\} tril_tensor;', r'int64_t added; } tril_tensor;')),
    ('two fields that changed places', False, (HEADER, r'(int64_t q_len;[^\n]*\n)([^\n]*\n)', r'\2\1')),
    ('a wider field', False, (HEADER, r'int32_t v_dim;', r'int64_t v_dim;')),
    ('a field of another type of the same size', False, (HEADER, r'uint32_t flags; ', r'int32_t flags; ')),
    ('that, behind which a field is appended', False, (HEADER, r'uint32_t flags; ', r'int32_t flags; '),
     (HEADER, r'\} tril_attention;', r'int64_t added; } tril_attention;')),
    ('a status inserted', False, (HEADER, r'TRIL_ERR_SHAPE,', r'TRIL_ERR_ADDED, TRIL_ERR_SHAPE,')),
    ('a function that is gone', False, (MAP, r'tril_isa_list;', '')),
    ('a version that is another', False, (MAP, r'TRIL_0\.1', 'TRIL_0.2')),
    ('a wider parameter', False, (HEADER, r'(tril_workspace\(const tril_attention \*call,) int', r'\1 int64_t'),
     (PUBLIC, r'(tril_workspace\(const tril_attention \*call,) int', r'\1 int64_t')),
]


def build(cc, top, to):
    # Without warnings and assertions, which a changed library may well deserve.
    command = cc + ['-w', '-D_Static_assert(what,text)=', '-g', '-O0', '-fPIC', '-shared', '-std=c11', '-fvisibility=hidden', '-Wl,-soname,libtril.so.0',
                    '-Wl,--version-script=' + os.path.join(top, 'src', 'tril.map'), '-I', os.path.join(top, 'include'),
                    '-I', os.path.join(top, 'src'), '-o', to]
    sources = glob.glob(os.path.join(top, 'src', '*.c')) + [os.path.join(top, 'src', 'x86', 'cpu.c')]
    subprocess.run(command + sorted(sources), check=True)


def dump(library, headers, to):
    subprocess.run(['abidw', '--no-corpus-path', '--no-comp-dir-path', '--no-show-locs', '--no-write-default-sizes',
                    '--exported-interfaces-only', '--drop-private-types', '--headers-dir', headers, '--out-file', to,
                    library], check=True)


def harms(report):
    """The lines of a report that are a harm to old callers."""
    found, kind, size = [], None, 0
    for line in report.splitlines():
        text = line.strip()
        if not text or re.match(r'^(Leaf changes|Changed leaf types|Removed/Changed/Added \w+) summary:', text):
            continue
        if text == line:
            kind, size = next((k for k in HARMLESS if k.match(text)), None), 0
            if kind is not None:
                continue
        grows, appended = GROWS.match(text), APPENDED.match(text)
        if kind is SIZED and grows:
            size = int(grows.group(1))
        elif not (kind is SIZED and appended and 0 < size <= int(appended.group(1))) and \
                not (kind is not None and HARMLESS[kind].match(text)):
            found.append(line)
    return found


def compare(base, today):
    """(whether callers of `base` can use `today`, the report)"""
    done = subprocess.run(['abidiff', '--harmless', '--leaf-changes-only', '--no-added-syms', base, today],
                          stdout=subprocess.PIPE, universal_newlines=True)
    # Bits: 1 an error, 2 wrong usage, 4 a change, 8 an incompatible one for sure.
    if done.returncode & 3 or (done.returncode != 0 and 'changed:' not in done.stdout and not harms(done.stdout)):
        sys.exit('abi.py: abidiff failed with %d: %s' % (done.returncode, done.stdout))
    return done.returncode & 8 == 0 and not harms(done.stdout), done.stdout


def edit(path, pattern, replacement):
    with open(path) as f:
        before = f.read()
    after = re.sub(pattern, replacement, before)
    if after == before:
        sys.exit('abi.py: nothing in %s that matches %s' % (path, pattern))
    with open(path, 'w') as f:
        f.write(after)


def check(cc):
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        library = os.path.join(folder, 'libtril.so.0')
        today = os.path.join(folder, 'today.abi')
        build(cc, TOP, library)
        dump(library, os.path.join(TOP, 'include'), today)
        fits, report = compare(BASE, today)
        print('today: %s' % ('fits' if fits else 'DOES NOT FIT\n' + report))
        failed = not fits
        for what, allowed, *edits in CHANGES:
            copy = os.path.join(folder, 'copy')
            shutil.rmtree(copy, ignore_errors=True)
            for part in ('include', 'src'):
                shutil.copytree(os.path.join(TOP, part), os.path.join(copy, part))
            for name, pattern, replacement in edits:
                edit(os.path.join(copy, name), pattern, replacement)
            build(cc, copy, library)
            changed = os.path.join(folder, 'changed.abi')
            dump(library, os.path.join(copy, 'include'), changed)
            fits, report = compare(today, changed)
            print('%s: %s' % (what, 'fits' if fits else 'does not fit'))
            if fits != allowed:
                print('  WRONG\n' + report)
                failed = True
    return failed


def freeze(cc):
    header = os.path.join(TOP, 'include', 'tril.h')
    with open(header) as f:
        version = '.'.join(re.findall(r'#define TRIL_VERSION_(?:MAJOR|MINOR) (\d+)', f.read()))
    to = os.path.join(TOP, 'tests', 'abi', 'tril-' + version)
    with tempfile.TemporaryDirectory() as folder:
        library = os.path.join(folder, 'libtril.so.0')
        build(cc, TOP, library)
        dump(library, os.path.dirname(header), to + '.abi')
    with open(to + '.abi') as f:
        text = f.read()
    with open(to + '.abi', 'w') as f:  # the same wherever it is made
        f.write(text.replace("path='" + TOP + '/', "path='"))
    shutil.copyfile(header, to + '.h')
    return False


def main():
    what = {'check': check, 'freeze': freeze}.get(sys.argv[1] if len(sys.argv) > 2 else '')
    if what is None:
        sys.exit(__doc__)
    sys.exit(what(sys.argv[2:]))


if __name__ == '__main__':
    main()
