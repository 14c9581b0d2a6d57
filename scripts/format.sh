#!/bin/sh
# Applies .clang-format to every C and C++ file of the project; with --check only tells what it would change.
set -eu
cd "$(dirname "$0")/.."
case ${1-} in
'') options=-i ;;
--check) options='--dry-run -Werror' ;;
*)
    echo "format.sh: unknown argument $1; known: --check" >&2
    exit 2
    ;;
esac
# shellcheck disable=SC2086 # several words
find . -type d -name 'build*' -prune -o -name .git -prune -o -name subprojects -prune -o \
    -type f \( -name '*.c' -o -name '*.h' -o -name '*.cc' -o -name '*.cpp' \) -print | sort | xargs clang-format $options
