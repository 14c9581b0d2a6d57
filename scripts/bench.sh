#!/bin/sh
# Builds the harness and runs it with the caller's arguments, those of Google Benchmark:
#
#     sh scripts/bench.sh --benchmark_filter='attend/f32/.*q2048' --benchmark_format=json
#     sh scripts/bench.sh --benchmark_filter='compare/(attend|decode)/types'
#     sh scripts/bench.sh --benchmark_list_tests
#     TRIL_BENCH_OTHER=../before/build/libtril.so sh scripts/bench.sh --benchmark_filter='compare/other'
#
# Standard output is the benchmark's alone. TRIL_BENCH_SECONDS: the longest that one point may take (6). A pinned run
# (taskset -c 1 sh scripts/bench.sh ...) is steadier; points for two threads (/t2) exist where there are two cores to run
# on, and pin themselves. How to read it: docs/performance.md.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
build=$root/build-bench

have() {
    command -v meson && command -v ninja && command -v pkg-config && command -v c++ &&
        pkg-config --exists benchmark && pkg-config --exists openblas
} >/dev/null 2>&1

{
    if ! have && [ -f "$root/scripts/install.sh" ]; then
        sh "$root/scripts/install.sh" bench || echo "bench.sh: not everything is installed; trying with what there is"
    fi
    # A tool or a test that does not build must not stand in the way of a measurement.
    [ -f "$build/build.ninja" ] || meson setup "$build" "$root" --buildtype=release -Dbench=enabled -Dtests=disabled
    ninja -C "$build" bench/bench
} >&2

exec "$build/bench/bench" "$@"
