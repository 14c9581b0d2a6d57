#!/usr/bin/env python3
"""Compiles the public header alone, with warnings as errors, and the same header twice in one file.

    header.py HEADER LANGUAGE STANDARD COMPILER [ARGUMENT ...]      such as: header.py tril.h c c99 cc
"""
import os
import subprocess
import sys

header, language, standard = sys.argv[1:4]
command = sys.argv[4:] + ['-x', language, '-std=' + standard, '-Wall', '-Wextra', '-Wpedantic', '-Werror',
                          '-Wconversion', '-Wshadow', '-I', os.path.dirname(os.path.abspath(header)),
                          '-fsyntax-only', '-']
source = '#include "%s"\n' % os.path.basename(header)
use = 'int use(void);\nint use(void) { tril_attention a; return (int)sizeof(a) + (int)TRIL_OK; }\n'
print(' '.join(command), flush=True)
sys.exit(subprocess.run(command, input=source + source + use, universal_newlines=True).returncode)
