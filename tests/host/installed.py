#!/usr/bin/env python3
"""Installs the build into an empty folder and builds examples/attend.c against it, through pkg-config alone: once with
the shared library, once statically. Both must print what the example is known to print. With --cmake the same again by a
CMake project that knows find_package(tril) alone, after the folder has been moved.

    installed.py --meson MESON --build DIR --example FILE.c --cc CC [--cc CC-ARGUMENT ...] [--tool] [--run EMULATOR ...]
                 [--cmake CMAKE]
"""
import argparse
import os
import shlex
import subprocess
import sys
import tempfile


def run(command, **more):
    print('$ ' + ' '.join(shlex.quote(word) for word in command), flush=True)
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, universal_newlines=True, **more).stdout


def find(root, name):
    return [os.path.join(d, name) for d, _, files in os.walk(root) if name in files or
            os.path.islink(os.path.join(d, name))]


def check(kind, exe, emulator):
    out = run(emulator + [exe], env={k: v for k, v in os.environ.items() if k != 'LD_LIBRARY_PATH'})
    print(out, end='')
    if [line.split()[-1] for line in out.splitlines()] != ['0', '0.5', '1', '1.5', '2', '2.5']:
        sys.exit('installed.py: the %s example printed something else' % kind)
    linked = b'libtril.so.0' in open(exe, 'rb').read()
    if linked != (kind == 'shared'):
        sys.exit('installed.py: the %s example %s libtril.so.0' % (kind, 'uses' if linked else 'does not use'))


PROJECT = '''
cmake_minimum_required(VERSION 3.16)
project(guest C)
find_package(tril %s CONFIG REQUIRED)
add_executable(attend-shared "%s")
target_link_libraries(attend-shared tril::tril)
add_executable(attend-static "%s")
target_link_libraries(attend-static tril::static)
'''


def cmake(command, cc, example, prefix, folder):
    """Projects that ask for some version; those that ask for too much must be told so. Returns the folder of one that has
    been built."""
    for version, suits in (('1.0', False), ('0.99', False), ('0.1.0 EXACT', True), ('0.1', True), ('', True)):
        project = tempfile.mkdtemp(dir=folder)
        with open(os.path.join(project, 'CMakeLists.txt'), 'w') as f:
            f.write(PROJECT % (version, example, example))
        configure = [command, '-S', project, '-B', project, '-DCMAKE_PREFIX_PATH=' + prefix, '-DCMAKE_C_COMPILER=' + cc[0],
                     '-DCMAKE_C_FLAGS=' + ' '.join(cc[1:])]
        print('$ ' + ' '.join(shlex.quote(word) for word in configure), flush=True)
        done = subprocess.run(configure, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
        told = 'tril-config.cmake, version' in done.stdout
        if (done.returncode == 0) != suits or told == suits:
            sys.exit('installed.py: find_package(tril %s): %d\n%s' % (version, done.returncode, done.stdout))
    run([command, '--build', project])
    return project


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--meson', required=True)
    parser.add_argument('--build', required=True)
    parser.add_argument('--example', required=True)
    parser.add_argument('--cc', action='append', required=True)
    parser.add_argument('--run', action='append', default=[])
    parser.add_argument('--tool', action='store_true')
    parser.add_argument('--cmake')
    options = parser.parse_args()
    os.environ.setdefault('CMAKE_GENERATOR', 'Ninja')  # which is there where meson is

    with tempfile.TemporaryDirectory() as root:
        run(shlex.split(options.meson) + ['install', '--no-rebuild', '--quiet', '-C', options.build, '--destdir', root])
        wanted = ['tril.h', 'libtril.so', 'libtril.so.0', 'libtril.a', 'tril.pc', 'tril-config.cmake',
                  'tril-config-version.cmake']
        if options.tool:
            wanted += ['tril', 'tril.1']
        missing = [name for name in wanted if not find(root, name)]
        extra = [os.path.join(d, f) for d, _, files in os.walk(root) for f in files
                 if not (f.startswith('libtril.so') or f in wanted)]
        if missing or extra:
            sys.exit('installed.py: not installed: %s; installed as well: %s' % (missing, extra))

        pc = find(root, 'tril.pc')[0]
        environment = dict(os.environ, PKG_CONFIG_SYSROOT_DIR=root, PKG_CONFIG_LIBDIR=os.path.dirname(pc))
        for kind in ('shared', 'static'):
            asked = ['pkg-config', '--cflags', '--libs'] + (['--static'] if kind == 'static' else []) + ['tril']
            flags = run(asked, env=environment).split()
            exe = os.path.join(root, 'attend-' + kind)
            library = os.path.dirname(find(root, 'libtril.so.0')[0])
            how = ['-static'] if kind == 'static' else ['-Wl,-rpath,' + library]
            run(options.cc + how + ['-std=c11', '-O1', options.example, '-o', exe] + flags)
            check(kind, exe, options.run)

        if options.cmake:
            moved = os.path.join(root, 'moved')
            os.rename(os.path.dirname(os.path.dirname(find(root, 'tril.h')[0])), moved)
            built = cmake(options.cmake, options.cc, options.example, moved, root)
            for kind in ('shared', 'static'):
                check(kind, os.path.join(built, 'attend-' + kind), options.run)


if __name__ == '__main__':
    main()
