#!/bin/sh
# Installs the packages of scripts/packages.txt that are missing:  sh scripts/install.sh build|test|bench ...
# (test and bench bring build along). As root or through sudo; touches nothing where nothing is missing.
set -eu
here=$(cd "$(dirname "$0")" && pwd)

for use in "$@"; do
    case $use in build | test | bench) ;; *)
        echo "install.sh: unknown use $use; known: build, test, bench" >&2
        exit 2
        ;;
    esac
done
missing=
for use in build "$@"; do
    # shellcheck disable=SC2013 # a word is a line here
    for package in $(awk -v use="$use" '$1 !~ /^#/ && ("," $2 ",") ~ ("," use ",") { print $1 }' "$here/packages.txt"); do
        # A line for each architecture that has it.
        dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed && continue
        case "$missing " in *" $package "*) ;; *) missing="$missing $package" ;; esac
    done
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "install.sh: no apt-get here; needed are$missing (or what your system calls them)" >&2
    exit 1
fi
as_root=
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "install.sh: not root and no sudo; as root: apt-get install$missing" >&2
        exit 1
    fi
    as_root=sudo
fi
echo "installing$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086 # several words
if ! { $as_root apt-get -q update &&
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install $missing; } \
    >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    echo "install.sh: apt-get could not install$missing" >&2
    exit 1
fi
