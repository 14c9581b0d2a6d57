#!/bin/sh
# Prepares a cross build:  sh scripts/cross.sh arm64|riscv64 DIR
# Writes DIR/cross.ini for meson setup --cross-file. Needs the cross compiler and qemu-user (scripts/packages.txt).
# For arm64 it fetches Debian's Check for that architecture: with apt's own configuration and keys, but lists, cache and
# a package state of its own in DIR, so that neither root nor a foreign architecture is needed and the machine stays as
# it is; unpacked, not installed. Debian 12 has no riscv64, so there the suites that need Check are left out.
set -eu
if [ $# -ne 2 ]; then
    echo "usage: sh scripts/cross.sh arm64|riscv64 DIR" >&2
    exit 2
fi
case $1 in
arm64) cpu=aarch64 ;;
riscv64) cpu=riscv64 ;;
*)
    echo "cross.sh: unknown architecture $1; known: arm64, riscv64" >&2
    exit 2
    ;;
esac
triple=$cpu-linux-gnu
mkdir -p "$2"
dir=$(cd "$2" && pwd)
for tool in "$triple-gcc" "$triple-objdump" "qemu-$cpu"; do
    command -v "$tool" >/dev/null || {
        echo "cross.sh: no $tool; sh scripts/install.sh test" >&2
        exit 1
    }
done

apt_arm64() {
    user=$(id -un)
    apt-get -q -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State="$dir/apt/state" \
        -o Dir::State::status="$dir/apt/status" -o Dir::State::lists="$dir/apt/lists" -o Dir::Cache="$dir/apt/cache" \
        -o APT::Sandbox::User="$user" -o Debug::NoLocking=1 "$@"
}

if [ "$1" = arm64 ] && [ ! -f "$dir/sysroot/complete" ]; then
    mkdir -p "$dir/apt/state" "$dir/apt/lists/partial" "$dir/apt/cache/archives/partial" "$dir/sysroot" "$dir/debs"
    : >"$dir/apt/status"
    apt_arm64 update
    (cd "$dir/debs" && apt_arm64 download check libsubunit-dev libsubunit0)
    for deb in "$dir"/debs/*.deb; do
        dpkg-deb -x "$deb" "$dir/sysroot"
    done
    rm -rf "$dir/apt"
    : >"$dir/sysroot/complete"
fi

mkdir -p "$dir/sysroot/usr/lib/$triple/pkgconfig"
emulator="['qemu-$cpu', '-L', '/usr/$triple', '-E', 'LD_LIBRARY_PATH=$dir/sysroot/usr/lib/$triple']"
cat >"$dir/cross.ini" <<END
[binaries]
c = '$triple-gcc'
ar = '$triple-ar'
nm = '$triple-nm'
objdump = '$triple-objdump'
readelf = '$triple-readelf'
strip = '$triple-strip'
pkgconfig = 'pkg-config'
exe_wrapper = $emulator

[properties]
sys_root = '$dir/sysroot'
pkg_config_libdir = '$dir/sysroot/usr/lib/$triple/pkgconfig'
emulator = $emulator

[host_machine]
system = 'linux'
cpu_family = '$cpu'
cpu = '$cpu'
endian = 'little'
END
