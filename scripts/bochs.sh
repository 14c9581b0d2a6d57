#!/bin/sh
# Runs programs on an emulated Skylake server, which has AVX-512:  sh scripts/bochs.sh DIR SCRIPT PROGRAM ...
# qemu has no AVX-512; Bochs has, but emulates a whole machine. So this one starts Debian's kernel, fetched into DIR and
# not installed, with the programs, the libraries that they need and SCRIPT, which a shell runs there (/PROGRAM by its
# last name). Prints what that says. Exit status 0 if the script came to its end, whatever it said; 1 if it did not.
# Needs bochs, isolinux, xorriso, cpio and busybox-static (scripts/packages.txt).
set -eu
if [ $# -lt 3 ]; then
    echo "usage: sh scripts/bochs.sh DIR SCRIPT PROGRAM ..." >&2
    exit 2
fi
mkdir -p "$1"
dir=$(cd "$1" && pwd)
script=$2
sh "$(dirname "$0")/debs.sh" amd64 "$dir" +linux-image-cloud-amd64
shift 2

end='bochs.sh: the end'
rm -rf "$dir/guest" "$dir/disc"
mkdir -p "$dir/guest/bin" "$dir/guest/dev" "$dir/guest/proc" "$dir/guest/tmp" "$dir/disc/isolinux"
cp /bin/busybox "$dir/guest/bin/"
cp "$script" "$dir/guest/script"
for program in "$@"; do
    cp "$program" "$dir/guest/"
    strip "$dir/guest/$(basename "$program")"
    ldd "$program" | grep -o '/[^ ]*' | while read -r library; do
        mkdir -p "$dir/guest$(dirname "$library")"
        cp -L "$library" "$dir/guest$library"
    done
done
cat >"$dir/guest/init" <<END
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox sh /script
echo '$end'
/bin/busybox sleep 1000
END
chmod +x "$dir/guest/init"
(cd "$dir/guest" && find . | cpio -o -H newc --quiet | gzip -1) >"$dir/disc/initrd.gz"
cp "$dir"/sysroot/boot/vmlinuz-* "$dir/disc/vmlinuz"
cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$dir/disc/isolinux/"
# Without what takes time to find, and without two things that Bochs 2.7 tells the kernel two ways: the compacted forms of
# saved registers (321, 323), and protection keys. Then the kernel would save none of the vector registers.
cat >"$dir/disc/isolinux/isolinux.cfg" <<'END'
DEFAULT tril
LABEL tril
    KERNEL /vmlinuz
    APPEND initrd=/initrd.gz console=ttyS0 quiet nosmp acpi=off pci=off tsc=reliable lpj=1000000 cryptomgr.notests=1 mitigations=off nopku clearcpuid=321,323
END
xorriso -as mkisofs -quiet -o "$dir/disc.iso" -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot \
    -boot-load-size 4 -boot-info-table "$dir/disc" 2>"$dir/xorriso.log"
cat >"$dir/bochsrc" <<END
display_library: term
megs: 512
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path=$dir/disc.iso, status=inserted
boot: cdrom
cpu: model=corei7_skylake_x, count=1, ips=50000000, reset_on_triple_fault=0
clock: sync=none, time0=946684800
com1: enabled=1, mode=file, dev=$dir/console.txt
log: $dir/bochs.log
panic: action=fatal
error: action=report
info: action=ignore
END
echo continue >"$dir/debugger" # Debian's Bochs has one, which waits for a word
rm -f "$dir/console.txt" "$dir/pid" # of an earlier run
# Its display wants a terminal. Nothing that this kernel can do switches the machine off, so that is done here; the
# debugger would ask whether a gentler signal is meant.
TERM=vt100 script -qec "ulimit -t 1500; echo \$\$ >'$dir/pid'; exec bochs -q -f '$dir/bochsrc' -rc '$dir/debugger'" /dev/null \
    >"$dir/display.log" 2>&1 </dev/null &
emulator=$!
trap 'if kill -0 $emulator 2>/dev/null; then kill -9 "$(cat "$dir/pid")" 2>/dev/null || :; fi' EXIT
trap 'exit 1' INT TERM
for second in $(seq 900); do
    sleep 1
    if ! kill -0 $emulator 2>/dev/null || grep -q "^$end" "$dir/console.txt" 2>/dev/null; then break; fi
done
[ ! -f "$dir/console.txt" ] || tr -d '\r' <"$dir/console.txt" | grep -v "^$end" || :
grep -qs "^$end" "$dir/console.txt" || {
    echo "bochs.sh: no end after $second s, see $dir/display.log" >&2
    exit 1
}
