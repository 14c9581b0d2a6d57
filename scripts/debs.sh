#!/bin/sh
# Fetches Debian's packages of an architecture and unpacks them:  sh scripts/debs.sh ARCHITECTURE DIR PACKAGE ...
# With apt's own configuration and keys, but lists, cache and a package state of its own in DIR, so that neither root nor
# a foreign architecture is needed and the machine stays as it is; into DIR/sysroot, not installed. +PACKAGE stands for
# what the package depends on, where it is only a name for that. Once for a DIR.
set -eu
if [ $# -lt 3 ]; then
    echo "usage: sh scripts/debs.sh ARCHITECTURE DIR PACKAGE ..." >&2
    exit 2
fi
arch=$1
mkdir -p "$2"
dir=$(cd "$2" && pwd)
shift 2
[ ! -f "$dir/sysroot/complete" ] || exit 0

apt_own() {
    tool=$1 && shift
    "$tool" -q -o APT::Architecture="$arch" -o APT::Architectures="$arch" -o Dir::State="$dir/apt/state" \
        -o Dir::State::status="$dir/apt/status" -o Dir::State::lists="$dir/apt/lists" -o Dir::Cache="$dir/apt/cache" \
        -o APT::Sandbox::User="$(id -un)" -o Debug::NoLocking=1 "$@"
}

rm -rf "$dir/apt" "$dir/debs" "$dir/sysroot" # of a try that did not come to its end
mkdir -p "$dir/apt/state" "$dir/apt/lists/partial" "$dir/apt/cache/archives/partial" "$dir/sysroot" "$dir/debs"
: >"$dir/apt/status"
apt_own apt-get update
for package in "$@"; do
    case $package in
    +*) apt_own apt-cache depends --important "${package#+}" | awk '$1 == "Depends:" { print $2 }' ;;
    *) echo "$package" ;;
    esac
done >"$dir/apt/packages"
# shellcheck disable=SC2046 # several words
(cd "$dir/debs" && apt_own apt-get download $(cat "$dir/apt/packages"))
for deb in "$dir"/debs/*.deb; do
    dpkg-deb -x "$deb" "$dir/sysroot"
done
rm -rf "$dir/apt"
: >"$dir/sysroot/complete"
