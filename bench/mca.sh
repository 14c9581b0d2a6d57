#!/bin/sh
# How near the NEON tier's hot loops come to the FMLA limit of Arm's server cores, by the models of llvm-mca 19: there is
# no Arm hardware here. Prints a table; exits 1 if a loop stays below 0.95 of the limit.
#
#   limit    cycles that the loop's fmla alone need, by the same model (from a loop of independent fmla)
#   cycles   of one turn of the whole loop: loads, addresses, branch and all, everything in L1
#
# usage: sh bench/mca.sh        CC: the compiler (aarch64-linux-gnu-gcc); MCA: the analyser (llvm-mca-19)
#                               CPUS: models ("neoverse-n1 neoverse-n2 neoverse-v1"); SRC: another tree's src/
set -eu

bar=0.95
here=$(cd "$(dirname "$0")" && pwd)
src=${SRC:-$here/../src}
cc=${CC:-aarch64-linux-gnu-gcc}
mca=${MCA:-llvm-mca-19}
command -v "${cc%% *}" >/dev/null || { echo "mca.sh: no ${cc%% *}: install gcc-aarch64-linux-gnu, or set CC" >&2; exit 2; }
command -v "$mca" >/dev/null || { echo "mca.sh: no $mca: install llvm-19, or set MCA" >&2; exit 2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 2' INT TERM

# As meson builds the release: the tiers' level and common_args of meson.build.
# shellcheck disable=SC2086 # CC may carry arguments
$cc -std=c11 -O2 -ffp-contract=off -fno-math-errno -fPIC -fvisibility=hidden -I"$here/../include" -I"$src" \
    -S "$src/arm/neon.c" -o "$work/neon.s"

# Cycles of one turn of the loop in file $2 on core $1.
cycles() {
    "$mca" -mtriple=aarch64 -mcpu="$1" -iterations=1000 "$2" 2>"$work/log" |
        awk '/^Total Cycles:/ { printf "%.3f", $3 / 1000; found = 1 } END { exit !found }' ||
        { cat "$work/log" >&2; exit 2; }
}

# 24 independent chains, more than any of these cores needs.
for n in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23; do
    echo "fmla v$n.4s, v24.4s, v25.s[0]"
done >"$work/limit.s"

failed=0
printf '%-12s %-10s %5s %6s %6s %10s %8s %8s %6s\n' core loop fmla loads moves 'fmla/cycle' limit cycles ratio
for cpu in ${CPUS:-neoverse-n1 neoverse-n2 neoverse-v1}; do
    rate=$(cycles "$cpu" "$work/limit.s")
    for function in scores_v2 scaled_v2 fold_v2; do
        loop=$work/$function.s
        python3 "$here/hotloop.py" "$work/neon.s" "$function" >"$loop"
        turn=$(cycles "$cpu" "$loop")
        awk -v cpu="$cpu" -v loop="$function" -v rate="$rate" -v turn="$turn" -v bar=$bar '
            /fmla/ { fmla++ }
            $1 ~ /^ld/ { loads++ }
            $1 == "mov" && $2 ~ /^v/ { moves++ }
            $1 ~ /^st/ { stores++ }
            END {
                limit = fmla * rate / 24
                printf "%-12s %-10s %5d %6d %6d %10.2f %8.2f %8.2f %6.3f\n", cpu, loop, fmla, loads, moves, 24 / rate,
                    limit, turn, limit / turn
                if (stores) { print loop ": a store in the hot loop" > "/dev/stderr"; exit 1 }
                exit limit / turn < bar
            }' "$loop" || failed=1
    done
done
exit $failed
