#!/bin/sh
# Prepares a cross build:  sh scripts/cross.sh arm64|riscv64|i386|windows DIR
# Writes DIR/cross.ini for meson setup --cross-file. Needs the cross compiler and qemu-user, or Wine
# (scripts/packages.txt).
# For arm64 it fetches Debian's Check for that architecture, see debs.sh. The others are done without Check, so that the
# suites that need it are left out.
set -eu
if [ $# -ne 2 ]; then
    echo "usage: sh scripts/cross.sh arm64|riscv64|i386|windows DIR" >&2
    exit 2
fi
case $1 in
arm64) cpu=aarch64 family=aarch64 triple=aarch64-linux-gnu emulator=qemu-aarch64 ;;
riscv64) cpu=riscv64 family=riscv64 triple=riscv64-linux-gnu emulator=qemu-riscv64 ;;
i386) cpu=i686 family=x86 triple=i686-linux-gnu emulator=qemu-i386 ;;
windows) cpu=x86_64 family=x86_64 triple=x86_64-w64-mingw32 emulator=/usr/lib/wine/wine64 ;;
*)
    echo "cross.sh: unknown architecture $1; known: arm64, riscv64, i386, windows" >&2
    exit 2
    ;;
esac
mkdir -p "$2"
dir=$(cd "$2" && pwd)
for tool in "$triple-gcc" "$triple-objdump" "$emulator"; do
    command -v "$tool" >/dev/null || {
        echo "cross.sh: no $tool; sh scripts/install.sh test" >&2
        exit 1
    }
done

[ "$1" != arm64 ] || sh "$(dirname "$0")/debs.sh" arm64 "$dir" check libsubunit-dev libsubunit0

mkdir -p "$dir/sysroot/usr/lib/$triple/pkgconfig"
system=linux link_args=
if [ "$1" = windows ]; then
    # Wine with a home of its own, without windows, sounds and reports. The name is what meson knows Wine by.
    cat >"$dir/wine64" <<END
#!/bin/sh
WINEPREFIX='$dir/wine' WINEDEBUG=-all WINEDLLOVERRIDES='mscoree=;mshtml=;winemenubuilder.exe=' DISPLAY= \\
    exec $emulator "\$@"
END
    chmod +x "$dir/wine64"
    system=windows link_args="'-static'" # the compiler's own libraries, so that a program needs none of them beside it
    emulator="['$dir/wine64']"
else
    emulator="['$emulator', '-L', '/usr/$triple', '-E', 'LD_LIBRARY_PATH=$dir/sysroot/usr/lib/$triple']"
fi
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

[built-in options]
c_link_args = [$link_args]

[properties]
sys_root = '$dir/sysroot'
pkg_config_libdir = '$dir/sysroot/usr/lib/$triple/pkgconfig'
emulator = $emulator

[host_machine]
system = '$system'
cpu_family = '$family'
cpu = '$cpu'
endian = 'little'
END
