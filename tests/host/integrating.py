#!/usr/bin/env python3
"""Extracts the programs, project files and commands of docs/integrating.md, and runs them as a reader would, against an
installed library and, as a subproject and by CMake, the sources. What CMake makes of these must have all files and
tiers, and the bits.

    integrating.py --meson MESON --build DIR --document FILE.md --python PYTHON --cc CC [ARGUMENT ...]

A fenced block is taken if the line before it is one of these comments:

    <!-- test: file NAME -->   the block is written into NAME
    <!-- test: run -->         it is a shell script, which must succeed
    <!-- test: output -->      what the script before printed to standard output, at its end; the first such block, which
                               stands before any script, is for all scripts that follow up to the next one
"""
import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BLOCK = re.compile(r'^<!-- test: (file (?P<name>[\w./-]+)|run|output) -->\n```\w*\n(?P<text>.*?)^```$', re.M | re.S)


def install(meson, build, to):
    """The prefix of an installed copy."""
    subprocess.run(shlex.split(meson) + ['install', '--no-rebuild', '--quiet', '-C', build, '--destdir', to], check=True)
    for folder, _, files in os.walk(to):
        if 'tril.h' in files:
            return os.path.dirname(folder)
    sys.exit('integrating.py: nothing was installed')


def find(root, name):
    return next(folder for folder, _, files in os.walk(root) if name in files)


def run(text, folder, environment):
    print(''.join('$ %s\n' % line for line in text.splitlines()), end='', flush=True)
    done = subprocess.run(['sh', '-e', '-c', text], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, universal_newlines=True)
    print(done.stdout, end='', flush=True)
    if done.returncode != 0:
        sys.exit('integrating.py: it failed with %d' % done.returncode)
    return done.stdout


def from_sources(text):
    """What tril.cmake leaves out: of the C files, and of the tiers that may be built in."""
    paths = [os.path.relpath(os.path.join(folder, name), TOP) for folder, _, names in os.walk(os.path.join(TOP, 'src'))
             for name in names if name.endswith('.c')]
    with open(os.path.join(TOP, 'src', 'dispatch.c')) as f:
        tiers = re.findall(r'^#ifdef (TRIL_HAVE_\w+)$', f.read(), re.M)
    words = set(re.findall(r'\w[\w./-]*', text.replace('${TRIL}/', '')))
    return [word for word in paths + tiers if word not in words]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--meson', required=True)
    parser.add_argument('--build', required=True)
    parser.add_argument('--document', required=True)
    parser.add_argument('--python', required=True)
    parser.add_argument('--cc', nargs='+', required=True)
    options = parser.parse_args()
    with open(options.document) as f:
        document = f.read()
    blocks = list(BLOCK.finditer(document))
    if len(blocks) != document.count('<!-- test:') or len(blocks) < 20:
        sys.exit('integrating.py: %d blocks for %d marks' % (len(blocks), document.count('<!-- test:')))

    with tempfile.TemporaryDirectory() as root:
        prefix = install(options.meson, options.build, os.path.join(root, 'installed'))
        folder = os.path.join(root, 'guest')
        programs = os.path.join(root, 'bin')
        sources = os.path.join(folder, 'subprojects', 'tril')
        os.makedirs(sources)
        os.makedirs(programs)
        for name in ('include', 'src', 'meson.build', 'meson_options.txt'):
            path = os.path.join(TOP, name)
            (shutil.copytree if os.path.isdir(path) else shutil.copy)(path, os.path.join(sources, name))
        # What the document calls cc is the compiler that is tested, by its path, since its name may be cc too; python3 is
        # one that has NumPy.
        options.cc[0] = shutil.which(options.cc[0])
        for name, command in (('cc', options.cc), ('python3', [options.python])):
            with open(os.path.join(programs, name), 'w') as f:
                f.write('#!/bin/sh\nexec %s "$@"\n' % ' '.join(map(shlex.quote, command)))
            os.chmod(os.path.join(programs, name), 0o755)
        pc, library = find(prefix, 'tril.pc'), find(prefix, 'libtril.so.0')
        root_of_pc = os.path.join(root, 'installed')
        shutil.copy(os.path.join(TOP, 'python', 'tril.py'), folder)
        environment = dict(os.environ, CC=' '.join(options.cc), PREFIX=prefix, LD_LIBRARY_PATH=library,
                           PKG_CONFIG_LIBDIR=pc, PKG_CONFIG_SYSROOT_DIR=root_of_pc, CMAKE_GENERATOR='Ninja',
                           PATH=os.pathsep.join([programs, os.path.join(prefix, 'bin'), os.environ['PATH']]))
        general, printed, scripts = None, None, 0
        for block in blocks:
            text = block.group('text')
            if block.group('name'):
                os.makedirs(os.path.dirname(os.path.join(folder, block.group('name'))), exist_ok=True)
                with open(os.path.join(folder, block.group('name')), 'w') as f:
                    f.write(text)
                if block.group('name') == 'tril.cmake' and from_sources(text):
                    sys.exit('integrating.py: not in tril.cmake: ' + ' '.join(from_sources(text)))
            elif block.group(1) == 'run':
                printed = run(text, folder, environment)
                scripts += 1
                if general is not None and 'guest' in text and not printed.endswith(general):
                    sys.exit('integrating.py: it should have printed\n' + general)
            elif printed is None:
                general = text
            elif printed != text:
                sys.exit('integrating.py: it should have printed\n' + text)
        run('cc -I%s %s build-sources/libtril.a -o bits && ./bits' %
            (os.path.join(TOP, 'include'), os.path.join(TOP, 'tests', 'host', 'bits.c')), folder, environment)
        print('%d scripts ran' % scripts)


if __name__ == '__main__':
    main()
