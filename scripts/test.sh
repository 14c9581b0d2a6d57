#!/bin/sh
# The whole proof, from a fresh Debian 12 or 13:  sh scripts/test.sh [STAGE ...]
# Installs what is missing, then builds and tests with two compilers and five levels, under sanitizers and valgrind, by fuzzers,
# NEON on four models of Arm CPU, the fallbacks on six models of x86 CPU, AVX-512 on an emulated machine where this
# one does not have it, plain C on riscv64 and alone, and musl, 32-bit x86 and Windows as far as they go without
# Check. A stage that does not run, or does not run the tier that it is there for, fails. Builds and logs are in
# build-test/.
# Environment: TRIL_TEST_JOBS, stages at once (default: the number of cores).
set -eu
cd "$(dirname "$0")/.."
top=$PWD
work=$top/build-test
self=$top/scripts/test.sh

# Stages in the order in which they start, the longest first; those of the second list use what the first built.
first='gcc clang asan tsan arm64 clang-O0 gcc-O0 clang-O2 gcc-O2 riscv64 windows musl i386 no-tiers format'
second='arm64-cortex-a53 arm64-max arm64-neoverse-n1 arm64-cortex-a76 x86-Nehalem x86-Haswell valgrind
x86-IvyBridge x86-max,-fma x86-Haswell,-xsave x86-Haswell,-avx'

# How many of the random cases, and how few of those in tables: see tests/main.c. An emulated x86 is the slowest, and its
# tiers run natively too.
emulated=0.015 emulated_every=24
x86=0.006 x86_every=60
slow=0.1 slow_every=4

# What this machine must run, read from the kernel and not from the library.
native_isa() {
    has() {
        for flag in "$@"; do
            grep -m 1 '^flags' /proc/cpuinfo | grep -qw "$flag" || return 1
        done
    }
    if has avx2 fma f16c avx512f avx512bw avx512dq avx512vl avx512_bf16; then
        echo avx512bf16
    elif has avx2 fma f16c avx512f avx512bw avx512dq avx512vl; then
        echo avx512
    elif has avx2 fma f16c; then
        echo avx2
    else
        echo scalar
    fi
}

# The tiers up to the given one, as tests/host/bits prints them.
tiers_up_to() {
    case $1 in
    scalar) echo scalar ;;
    avx2) echo scalar avx2 ;;
    avx512) echo scalar avx2 avx512 ;;
    avx512bf16) echo scalar avx2 avx512 avx512bf16 ;;
    neon) echo scalar neon ;;
    esac
}

# say WORD ...: a line of the log, with a number of tests that passed or failed for the sum at the end.
passed() {
    echo "@ $1 0" && shift && echo "$*"
}
failed() {
    echo "@ 0 $1" && shift && echo "FAILED: $*"
}

# configure DIR OPTION ...
configure() {
    dir=$1 && shift
    rm -rf "${work:?}/$dir"
    meson setup "$work/$dir" --werror -Dtests=enabled "$@" || failed 1 "meson setup $dir"
}

# The tests of a build, a line each: its name, "executable" or "script", and the files that it needs.
tests_of() {
    { meson introspect --targets "$1" && meson introspect --tests "$1"; } | python3 -c '
import json, os, sys
targets, tests = (json.loads(line) for line in sys.stdin)
build = os.path.realpath(sys.argv[1])
files = {target["id"]: [os.path.relpath(os.path.realpath(path), build) for path in target["filename"]] for target in targets}
for test in tests:
    own = os.path.realpath(test["cmd"][0]).startswith(build + os.sep)
    needs = {path for target in test["depends"] for path in files[target]}
    print(test["name"], "executable" if own else "script", *sorted(needs))' "$1"
}

# run_tests DIR all|executables|NAME,NAME,...|-NAME,NAME,... [ARGUMENT OF meson test ...]: builds what they need and runs
# them: all, those that are executables, these, or all but these
run_tests() {
    dir=$work/$1 what=$2 && shift 2
    names="" targets=""
    tests_of "$dir" >"$log.tests"
    while read -r name kind files; do
        # Of AVX-512 alone: without it they compile it once more and compare the oracle with itself.
        case $name,${TRIL_EXPECT_ISA-} in
        sources_*,avx512*) ;;
        sources_*) continue ;;
        esac
        case $what,$name,$kind in
        all,*) ;;
        -*) case ",${what#-}," in *",$name,"*) continue ;; esac ;;
        executables,mutants,*) continue ;; # they test the tests: once is enough
        executables,simde_*,*) [ "$build" = yes ] || continue ;; # NEON's code; an emulated x86 adds nothing to it
        executables,blocks,*) [ "$sanitized" = no ] || continue ;; # counts; a tier more takes a minute to compile
        executables,*,executable) ;;
        executables,*) continue ;;
        *) case ",$what," in *",$name,"*) ;; *) continue ;; esac ;;
        esac
        names="$names $name"
        targets="$targets $files"
    done <"$log.tests"
    case $what in
    all | -*) targets="" ;; # of ninja: everything
    *) [ -n "$names" ] || { failed 1 "no tests in $dir"; return; } ;;
    esac
    if [ "$build" = yes ] && { [ -n "$targets" ] || [ "$what" = all ] || [ "${what#-}" != "$what" ]; }; then
        # shellcheck disable=SC2086 # several words
        ninja -C "$dir" -j 1 $targets || { failed 1 "build $dir"; return; }
    fi
    # shellcheck disable=SC2086
    meson test -C "$dir" --no-rebuild --num-processes 1 --print-errorlogs "$@" $names >"$log.out" 2>&1 || :
    cat "$log.out"
    # Skipped is not passed.
    awk '/^(Ok|Expected Fail): / { ok += $NF }
         /^(Fail|Unexpected Pass|Skipped|Timeout): / { bad += $NF }
         END { if (ok + bad == 0) bad = 1; print "@", ok + 0, bad + 0 }' "$log.out"
}

# expect_tiers BITS TIER [EMULATOR ...]: exactly the tiers up to this one run, are told to be usable, and give the bits
# that the program `bits` knows, which is also the test same-bits
expect_tiers() {
    bits=$1 wanted=$(tiers_up_to "$2") && shift 2
    "$@" "$bits" >"$log.tiers" || echo FAILED >>"$log.tiers"
    got=$(awk '{ print $1 }' "$log.tiers" | xargs)
    if [ "$got" = "$wanted" ]; then
        passed 1 "tiers that ran: $got"
    else
        failed 1 "tiers that ran: $got; expected: $wanted"
    fi
}

native() {
    TRIL_EXPECT_ISA=$(native_isa)
    export TRIL_EXPECT_ISA
    # Those of the native machine, for stages of which AVX-512 would be a third and not run.
    tiers=avx2
    case $TRIL_EXPECT_ISA in avx512*) tiers=avx2,avx512 ;; esac
}

stage() {
    case $1 in
    gcc | clang)
        native
        # What tests the tests, or files and not code, takes minutes, and does not depend on the compiler.
        once=enabled
        [ "$1" = gcc ] || once=disabled
        CC=$1 configure "$1" -Dtool=enabled -Dbench=enabled -Dmpi=enabled \
            -Dneon_cross=$once -Dsimde=$once -Dintegration=$once -Dmutants=$once
        # Nor does what exp2 of a float is: all of them once, here one in 17. Of the other cases clang has a third.
        what=all
        if [ "$1" = clang ]; then
            what=-cli,exp2
            export TRIL_TEST_SCALE=0.3 TRIL_TEST_EVERY=3
        fi
        run_tests "$1" $what
        [ "$1" = gcc ] || TRIL_TEST_SCALE=0.06 run_tests "$1" exp2
        expect_tiers "$work/$1/tests/host/bits" "$TRIL_EXPECT_ISA" env
        ;;
    gcc-O* | clang-O*)
        native
        export TRIL_TEST_SCALE=$slow TRIL_TEST_EVERY=$slow_every
        # Without optimisation a tier is as slow as under an emulator.
        case $1 in *-O0) TRIL_TEST_SCALE=$emulated TRIL_TEST_EVERY=$emulated_every ;; esac
        # Once by a newer clang, which has its own mind about registers and the order of instructions; and with flags that
        # would change bits if the build did not take them back.
        compiler=${1%-O*} host= what=bits,same-bits,dispatch,refuse,special,convert
        case $1 in
        clang-O2) compiler=clang-19 host=-ffast-math what=$what,hot-loops-avx2,hot-loops-avx512 ;;
        gcc-O2) host='-ffast-math -flto' ;;
        esac
        CC=$compiler configure "$1" -Doptimization="${1#*-O}" "-Dc_args=$host" -Dtool=disabled -Dbench=disabled \
            -Dneon_cross=disabled
        run_tests "$1" $what
        expect_tiers "$work/$1/tests/host/bits" "$TRIL_EXPECT_ISA" env
        ;;
    asan)
        native
        sanitized=yes
        export TRIL_TEST_SCALE=$slow TRIL_TEST_EVERY=$slow_every
        # Without pointer-overflow: in the unrolled tiles its checks take clang 14 six minutes to compile. That a failed
        # check ends the program is said here and not to the compiler: each check would be one more exit from its loops,
        # and AVX2 take 280 s instead of 47.
        export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
        # With the machine's fma, if there is one, the scalar tier takes a third of the time; clang has the other way, too.
        fma=
        case $TRIL_EXPECT_ISA in avx*) fma=-mfma ;; esac
        CC=clang configure asan -Dtiers=$tiers -Db_sanitize=address,undefined -Db_lundef=false -Doptimization=1 -Ddebug=true \
            "-Dc_args=-fno-sanitize=pointer-overflow $fma" -Dmutants=disabled -Dtool=enabled -Dbench=disabled -Dneon_cross=disabled -Dsimde=disabled \
            -Dfuzz=enabled
        run_tests asan executables
        expect_tiers "$work/asan/tests/host/bits" "$TRIL_EXPECT_ISA" env
        for runtime in __asan_init __ubsan_handle_out_of_bounds; do
            if nm "$work/asan/tests/host/bits" | grep -q "$runtime"; then
                passed 1 "$runtime is there"
            else
                failed 1 "no $runtime: the sanitizer did not run"
            fi
        done
        echo 'int main(int argc, char **argv) { return (argc + 0x7fffffff) & (argv == 0); }' >"$work/overflow.c"
        if ! clang -fsanitize=undefined "$work/overflow.c" -o "$work/overflow"; then
            failed 1 'overflow.c does not compile'
        elif "$work/overflow" 2>"$work/overflow.err" || ! grep -q 'signed integer overflow' "$work/overflow.err"; then
            failed 1 'undefined behaviour does not end a program'
        else
            passed 1 'undefined behaviour ends a program'
        fi
        ;;
    tsan)
        native
        export TRIL_TEST_SCALE=$slow TRIL_TEST_EVERY=$slow_every
        CC=clang configure tsan -Dtiers=$tiers -Db_sanitize=thread -Db_lundef=false -Doptimization=1 -Ddebug=true -Dtool=disabled \
            -Dbench=disabled -Dneon_cross=disabled -Dsimde=disabled -Dmpi=disabled
        run_tests tsan team,merge,memory,same-bits,example-threads-3
        expect_tiers "$work/tsan/tests/host/bits" "$TRIL_EXPECT_ISA" env
        if nm "$work/tsan/tests/host/bits" | grep -q __tsan_init; then
            passed 1 '__tsan_init is there'
        else
            failed 1 'no __tsan_init: the sanitizer did not run'
        fi
        ;;
    arm64)
        sh scripts/cross.sh arm64 "$work/cross-arm64" || failed 1 'cross.sh arm64'
        configure arm64 --cross-file "$work/cross-arm64/cross.ini" -Dtool=disabled -Dbench=disabled -Dsimde=disabled
        tests_of "$work/arm64" | awk '$2 == "executable" && $1 != "mutants" { $1 = $2 = ""; print }' |
            xargs ninja -C "$work/arm64" -j 1 || failed 1 'build arm64'
        run_tests arm64 header-c99,header-c11,symbols-shared,symbols-static,symbols-neon,hot-loops-neon,hot-loops-self-test,installed
        ;;
    arm64-*)
        build=no # the stage arm64 has, and two of these may run at once
        export QEMU_CPU="${1#arm64-}" TRIL_EXPECT_ISA=neon TRIL_TEST_SCALE=$emulated TRIL_TEST_EVERY=$emulated_every
        # What their features decide on all four: conversions, operations, the choice of the tier. What is the same code on
        # each of them on the least, and the bits of whole calls on the greatest as well.
        what=dispatch,special,vec,convert,bound,memory,blocks
        case $1 in
        *-cortex-a53) what=executables ;;
        *-max) what=$what,bits ;;
        esac
        run_tests arm64 "$what" --logbase "$1" -t 4
        expect_tiers "$work/arm64/tests/host/bits" neon qemu-aarch64 -L /usr/aarch64-linux-gnu
        ;;
    x86-*)
        build=no model=${1#x86-} # the stage gcc has built it
        case $model in Haswell) isa=avx2 ;; *) isa=scalar ;; esac
        export TRIL_EXPECT_ISA=$isa TRIL_TEST_SCALE=$x86 TRIL_TEST_EVERY=$x86_every
        # One model without AVX2 and one with it run the numbers; the others are there for the choice of the tier. Not
        # memory, vec and convert: qemu 7.2 reads and writes whole vectors where a masked move has lanes switched off,
        # and so faults at a guard page where a CPU does not. Natively the AVX2 tier runs them, and what takes minutes of
        # emulated AVX2; nor what is about calls and not about numbers, properties, team, refuse and no-allocation: the
        # scalar tier is the same code here.
        what=dispatch
        case $model in Nehalem | Haswell) what=$what,special,bound ;; esac
        case $model in Nehalem) what=$what,masks,bits,exp2 ;; esac
        run_tests gcc $what --logbase "$1" -t 4 --wrapper "qemu-x86_64 -cpu $model"
        expect_tiers "$work/gcc/tests/host/bits" "$isa" qemu-x86_64 -cpu "$model"
        ;;
    riscv64)
        sh scripts/cross.sh riscv64 "$work/cross-riscv64" || failed 1 'cross.sh riscv64'
        configure riscv64 --cross-file "$work/cross-riscv64/cross.ini" -Dtests=auto -Dtool=disabled -Dbench=disabled \
            -Dsimde=disabled -Dneon_cross=disabled
        # Not the language model, which takes as long as all others, and threads once.
        TRIL_EXPECT_ISA=scalar run_tests riscv64 -same-bits,example-llm,example-threads-1,example-threads-2,example-threads-8 -t 4
        expect_tiers "$work/riscv64/tests/host/bits" scalar qemu-riscv64 -L /usr/riscv64-linux-gnu
        ;;
    musl)
        native
        CC=musl-gcc configure musl -Dtests=auto -Dtool=disabled -Dbench=disabled -Dsimde=disabled -Dneon_cross=disabled \
            -Dmutants=disabled -Dmpi=disabled -Dintegration=disabled -Dc_link_args=-static
        run_tests musl same-bits,no-allocation,example-threads-3
        expect_tiers "$work/musl/tests/host/bits" "$TRIL_EXPECT_ISA" env
        if nm "$work/musl/tests/host/bits" | grep -q ' __init_libc$' &&
            ! readelf -l "$work/musl/tests/host/bits" | grep -q INTERP; then
            passed 1 'musl, statically'
        else
            failed 1 'not musl, or not static'
        fi
        ;;
    i386)
        sh scripts/cross.sh i386 "$work/cross-i386" || failed 1 'cross.sh i386'
        configure i386 --cross-file "$work/cross-i386/cross.ini" -Dtests=auto -Dtool=disabled -Dbench=disabled \
            -Dsimde=disabled -Dneon_cross=disabled -Dmutants=disabled
        run_tests i386 same-bits,sizes,abi-callers,symbols-shared -t 4
        expect_tiers "$work/i386/tests/host/bits" avx2 qemu-i386 -cpu max -L /usr/i686-linux-gnu
        expect_tiers "$work/i386/tests/host/bits" scalar qemu-i386 -cpu Nehalem -L /usr/i686-linux-gnu
        ;;
    windows)
        native
        sh scripts/cross.sh windows "$work/cross-windows" || failed 1 'cross.sh windows'
        wine=$work/cross-windows/wine64
        configure windows --cross-file "$work/cross-windows/cross.ini" -Dtests=auto -Dtool=disabled -Dbench=disabled \
            -Dsimde=disabled -Dneon_cross=disabled -Dmutants=disabled
        run_tests windows same-bits,abi-callers,example-threads-3,example-threads-scalar,symbols-dll -t 4
        expect_tiers "$work/windows/tests/host/bits.exe" "$TRIL_EXPECT_ISA" "$wine"
        # Chosen when the program starts: the best there is, or what the environment allows.
        ninja -C "$work/windows" -j 1 examples/attend.exe || failed 1 'build windows'
        for ceiling in scalar "$TRIL_EXPECT_ISA"; do
            if TRIL_ISA=$ceiling "$wine" "$work/windows/examples/attend.exe" | grep -q "^$ceiling: token 5 .*2.5"; then
                passed 1 "attend.exe with TRIL_ISA=$ceiling"
            else
                failed 1 "attend.exe with TRIL_ISA=$ceiling"
            fi
        done
        WINEPREFIX=$work/cross-windows/wine /usr/lib/wine/wineserver64 -w
        rm -rf "$work/cross-windows/wine" # 700 MB
        ;;
    valgrind)
        memcheck='valgrind --quiet --error-exitcode=9 --leak-check=full'
        for test in bits test_refuse; do
            # shellcheck disable=SC2086
            if CK_FORK=no CK_VERBOSITY=minimal $memcheck "$work/gcc/tests/host/$test"; then
                passed 1 "valgrind $test"
            else
                failed 1 "valgrind $test"
            fi
        done
        ;;
    bochs)
        build=no # the stage gcc has
        # Bochs 2.7 rounds what lies between two f16 up, where the even one is to be taken. So the check of just that is
        # left out, as are suites that do nothing else, and the seed is one that meets no such value. Nor what takes longest
        # and is about the order of calls. LD_BIND_NOW: its xrstor may fault at what its xsavec has stored, which is what the
        # dynamic linker does where a function is looked up when it is first called.
        cat >"$work/bochs.txt" <<'END'
export CK_FORK=no TRIL_TEST_TIER=avx512 TRIL_TEST_EXPECT=avx512 TRIL_TEST_SEED=1 TRIL_TEST_SCALE=0.006 TRIL_TEST_EVERY=60
export TRIL_TEST_NOT=long_rows,many_tasks,stored_halves LD_BIND_NOW=1
/attend
for test in special memory bits vec; do /test_$test && echo "passed $test"; done
END
        set --
        for test in special memory bits vec; do
            set -- "$@" "$work/gcc/tests/test_$test"
        done
        if sh scripts/bochs.sh "$work/bochs" "$work/bochs.txt" "$work/gcc/examples/attend" "$@" >"$log.out"; then
            cat "$log.out"
            for line in 'avx512: token 5 .*2\.5' 'passed special' 'passed memory' 'passed bits' 'passed vec'; do
                if grep -q "^$line" "$log.out"; then passed 1 "$line"; else failed 1 "$line"; fi
            done
        else
            failed 1 'bochs.sh'
        fi
        ;;
    no-tiers)
        configure no-tiers -Dtiers= -Dtool=disabled -Dbench=disabled -Dsimde=disabled -Dneon_cross=disabled -Dintegration=disabled
        TRIL_EXPECT_ISA=scalar run_tests no-tiers same-bits,dispatch,refuse,no-allocation,abi-callers,symbols-shared
        expect_tiers "$work/no-tiers/tests/host/bits" scalar env
        ;;
    format)
        if sh scripts/format.sh --check; then passed 1 'clang-format'; else failed 1 'clang-format: sh scripts/format.sh'; fi
        ;;
    *) failed 1 "no stage $1" ;;
    esac
}

seconds() {
    echo $(($(date +%s) - TRIL_TEST_BEGIN))
}

# One stage in a process of its own: its log in build-test/log, one line here.
if [ "${1-}" = --stage ]; then
    log=$work/log/$2 build=yes sanitized=no
    begin=$(seconds)
    (
        set +e
        stage "$2"
    ) >"$log.txt" 2>&1 </dev/null || echo '@ 0 1' >>"$log.txt"
    times >>"$log.txt" # the second line: user and system time of what the stage ran
    awk '$1 == "@" { ok += $2; bad += $3 } END { if (ok + bad == 0) bad = 1; print ok + 0, bad + 0 }' "$log.txt" \
        >"$work/result/$2"
    read -r ok bad <"$work/result/$2"
    printf '%5d s  %-20s %4d passed, %d failed, in %d s\n' "$(seconds)" "$2" "$ok" "$bad" $(($(seconds) - begin))
    if [ "$bad" -ne 0 ]; then
        grep -E 'FAILED|: error:|ERROR:|[0-9]+/[0-9]+ .*(FAIL|TIMEOUT|SKIP)|:[FE]:' "$log.txt" | head -n 20 | sed 's/^/         /'
        echo "         log: build-test/log/$2.txt"
    fi
    exit 0
fi

TRIL_TEST_BEGIN=$(date +%s)
export TRIL_TEST_BEGIN
unset TRIL_ISA TRIL_EXPECT_ISA TRIL_TEST_SCALE TRIL_TEST_EVERY QEMU_CPU CC CFLAGS LDFLAGS DESTDIR PKG_CONFIG_PATH || :
[ "$(uname -m)" = x86_64 ] || {
    echo "test.sh: this is for an x86_64 machine, which emulates the others; here run: meson test" >&2
    exit 1
}
sh scripts/install.sh build test
mkdir -p "$work/log" "$work/result"
rm -f "$work"/log/* "$work"/result/*
jobs=${TRIL_TEST_JOBS:-$(nproc)}

case $(native_isa) in avx512*) ;; *) second="bochs $second" ;; esac
if [ $# -gt 0 ]; then
    first=$* second=
fi
echo "$(seconds) s  $jobs stages at once, natively $(native_isa)"
for list in "$first" "$second"; do
    # shellcheck disable=SC2086
    [ -z "$list" ] || printf '%s\n' $list | xargs -P "$jobs" -I STAGE sh "$self" --stage STAGE
done

ok=0 bad=0
for name in $first $second; do
    o=0 b=1 # no result: the stage died
    [ ! -f "$work/result/$name" ] || read -r o b <"$work/result/$name"
    ok=$((ok + o)) bad=$((bad + b))
done
echo "$ok passed, $bad failed"
[ "$bad" -eq 0 ]
