#!/usr/bin/env python3
"""Runs doxygen with docs/Doxyfile, in which a warning is an error, and looks whether the header's words have arrived. A
header with something to warn of must fail.

    reference.py DOXYGEN
"""
import glob
import html
import os
import re
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# One before its subject, one behind it, one of several lines, one with signs that HTML has for itself.
WORDS = ['The largest qk_dim and v_dim. The smallest is 1', 'the workspace is null or smaller than tril_workspace() says',
         'query heads, 1 ... 65536, a multiple of kv_heads', 'TRIL_ISA=<tier> is a ceiling for that choice']


def generate(doxygen, folder, more):
    with open(os.path.join(TOP, 'docs', 'Doxyfile')) as f:
        settings = f.read() + 'OUTPUT_DIRECTORY = "%s"\n%s' % (folder, more)
    return subprocess.run([doxygen, '-'], input=settings, cwd=os.path.join(TOP, 'docs'), universal_newlines=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def text(path):
    with open(path, encoding='utf-8') as f:
        return ' '.join(html.unescape(re.sub(r'<[^>]*>', '', f.read())).split())


def main():
    with open(os.path.join(TOP, 'include', 'tril.h')) as f:
        header = f.read()
    functions = re.findall(r'^TRIL_API\b[^;()]*?\b(\w+)\(', header, re.M)
    with tempfile.TemporaryDirectory() as folder:
        done = generate(sys.argv[1], folder, '')
        print(done.stdout, end='')
        if done.returncode != 0:
            sys.exit('reference.py: doxygen warns')
        pages = ' '.join(text(page) for page in glob.glob(os.path.join(folder, 'html', '*.html'))
                         if not page.endswith('source.html'))
        missing = [word for word in functions + WORDS if word not in pages]
        print('%d functions' % len(functions))
        if missing or not functions:
            sys.exit('reference.py: not in the pages: %s' % missing)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'wrong.h')
        with open(path, 'w') as f:
            f.write('/* \\file */\n/* What it does. \\param there is no such parameter */\nvoid f(int x);\n')
        done = generate(sys.argv[1], folder, 'INPUT = "%s"\n' % path)
        if done.returncode == 0:
            sys.exit('reference.py: doxygen did not mind a wrong comment: ' + done.stdout)
        print('a wrong comment: %s' % done.stdout.strip())


if __name__ == '__main__':
    main()
