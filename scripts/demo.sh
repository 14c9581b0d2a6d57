#!/bin/sh
# The main job on real input, from a fresh Debian 12 or 13:  sh scripts/demo.sh
# Installs what is missing, builds in build-demo/, and runs `tril demo` on data/; the picture lands in build-demo/. Then
# a small language model writes with the library's attention. Arguments go to `tril demo` (--help tells which); a relative path
# among them counts from the project's folder.
set -eu
cd "$(dirname "$0")/.."
sh scripts/install.sh build

build='build-demo'
log=$build/log.txt
mkdir -p $build
{
    [ -f $build/build.ninja ] || meson setup $build --buildtype=release -Dtool=enabled -Dtests=disabled -Dbench=disabled
    ninja -C $build tools/tril examples/llm/llm
} >$log 2>&1 || {
    tail -n 20 $log >&2
    echo "demo.sh: the build failed; log: $log" >&2
    exit 1
}
$build/tools/tril demo --data data --out $build "$@"
echo
echo 'A small language model, attention by tril (docs/llm.md):'
$build/examples/llm/llm -m data/model.gguf -p 'In the beginning ' --threads 2
