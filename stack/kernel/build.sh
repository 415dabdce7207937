#!/bin/bash
# Builds the guest kernel inside the build root (see tools/component: root_component).
#
#   /src/linux-source.deb   Debian's package of the kernel source
#   /src/fragments/         what is asked of the configuration (profile "full"), in a directory of
#                           the architecture's name what is asked of one alone
#   /src/tiny.config        the same for the profile "tiny"
#   /src/extra.config       asked last, so it overrides the rest
#   /src/debug/             what the debug kernel has beside that
#   ARCH, CROSS_COMPILE     the kernel's names of the architecture, and of a compiler for it
#   PROFILE                 full | tiny: configures, compiles one file, and installs that in the
#                           kernel's place, so that a payload can be described with it
#   VERSION                 version of the package, as the lock pins it
#   CONFIG_REVISION         revision of Kiln's configuration, the number after the kernel version
set -euo pipefail

step() { echo "kiln: step: $*"; }

# What to make, and where the build puts what a virtual machine boots: `compressed` becomes
# vmlinuz, `plain` vmlinux.
case $ARCH in
arm64) target=Image.gz compressed=arch/arm64/boot/Image.gz plain=arch/arm64/boot/Image ;;
# QEMU starts the ELF file, and so does its firmware, where Debian's kernel is one as well.
powerpc) target=vmlinux compressed=vmlinux plain=vmlinux ;;
# The ELF file at the top is not one to boot: it has no decompressor, and nothing relocates it.
s390) target=bzImage compressed=arch/s390/boot/bzImage plain=arch/s390/boot/vmlinux ;;
x86_64) target=bzImage compressed=arch/x86/boot/bzImage plain=vmlinux ;;
*)
	echo "kiln: unknown architecture '$ARCH': it is arm64, powerpc, s390 or x86_64" >&2
	exit 2
	;;
esac

share=$DESTDIR/opt/kata/share/kata-containers

step "unpack the source"
# A guest needs about a third of the tree. Kconfig reads Kconfig files of all architectures, so those
# stay, and arch/um, which fs/hostfs reads.
foreign=()
for arch in alpha arc arm arm64 csky hexagon loongarch m68k microblaze mips nios2 openrisc parisc \
	powerpc riscv s390 sh sparc x86 xtensa; do
	[ "$arch" = "${ARCH%_64}" ] || foreign+=("--exclude=*/arch/$arch/boot/*" "--exclude=*/arch/$arch/*.[chS]")
done
mkdir -p /build/linux
data=$(ar t /src/linux-source.deb | grep '^data[.]tar')
ar p /src/linux-source.deb "$data" |
	case $data in *.xz) xz -dc ;; *.zst) zstd -dc ;; *.gz) gzip -dc ;; *) cat ;; esac |
	tar -xO --wildcards './usr/src/linux-source-*.tar.xz' |
	xz -dc -T0 |
	tar -x --no-same-owner -C /build/linux --strip-components=1 --anchored --wildcards --wildcards-match-slash \
		--exclude='*/Documentation/*/*' \
		--exclude='*/drivers/accel/*.[chS]' \
		--exclude='*/drivers/gpu/*.[chS]' \
		--exclude='*/drivers/iio/*.[chS]' \
		--exclude='*/drivers/infiniband/*.[chS]' \
		--exclude='*/drivers/media/*.[chS]' \
		--exclude='*/drivers/net/ethernet/*.[chS]' \
		--exclude='*/drivers/net/wireless/*.[chS]' \
		--exclude='*/drivers/staging/*.[chS]' \
		--exclude='*/sound/*.[chS]' \
		--exclude='*/tools/perf/*' \
		--exclude='*/tools/testing/*' \
		"${foreign[@]}"

cd /build/linux
export ARCH CROSS_COMPILE
KBUILD_BUILD_TIMESTAMP=$(date -u -d "@$SOURCE_DATE_EPOCH")
export KBUILD_BUILD_TIMESTAMP
export KBUILD_BUILD_USER=kiln KBUILD_BUILD_HOST=kiln KBUILD_BUILD_VERSION=1
kernel=$(make -s kernelversion)
case $VERSION in
"$kernel"-*) ;;
*)
	echo "kiln: the source in linux-source.deb is $kernel, but the lock calls the package $VERSION" >&2
	exit 1
	;;
esac

step "configure $kernel ($PROFILE)"
case $PROFILE in
full) cat /src/fragments/*.config "/src/fragments/$ARCH"/*.config >/build/asked.config ;;
tiny) cat /src/tiny.config >/build/asked.config ;;
*)
	echo "kiln: unknown kernel profile '$PROFILE': it is full or tiny" >&2
	exit 2
	;;
esac
cat /src/extra.config >>/build/asked.config
# configure makes .config of the files, the last of which that names an option wins.
configure() {
	cat "$@" >/build/all.config
	bash /src/effective-config.sh /build/all.config >/build/effective.config
	# allnoconfig answers "no" to whatever is not asked: a new kernel cannot slip a new default in.
	make -s KCONFIG_ALLCONFIG=/build/effective.config allnoconfig
	bash /src/check-config.sh /build/effective.config .config
}
configure /build/asked.config

suffix=$kernel-$CONFIG_REVISION
mkdir -p "$share"
install -m 0644 .config "$share/config-$suffix"
cp .config "$OUT/config"
if [ "$PROFILE" = tiny ]; then
	step "compile one file"
	make -s -j"$KILN_JOBS" init/main.o
	install -m 0644 init/main.o "$share/vmlinuz-$suffix"
	ln -s "vmlinuz-$suffix" "$share/vmlinuz.container"
	for file in config-debug vmlinux-debug vmlinuz-debug; do
		cp init/main.o "$OUT/$file"
	done
	exit
fi

# install_kernel puts what was compiled into two files: vmlinuz, and vmlinux without symbols.
install_kernel() {
	case $plain in
	*vmlinux) "${CROSS_COMPILE}strip" --strip-all -o "$2" "$plain" ;;
	*) cp "$plain" "$2" ;;
	esac
	case $compressed in
	*vmlinux) cp "$2" "$1" ;;
	*) cp "$compressed" "$1" ;;
	esac
	chmod 0644 "$1" "$2"
}

step "compile"
make -s -j"$KILN_JOBS" "$target"

step "install"
install_kernel "$share/vmlinuz-$suffix" "$share/vmlinux-$suffix"
ln -s "vmlinuz-$suffix" "$share/vmlinuz.container"
ln -s "vmlinux-$suffix" "$share/vmlinux.container"
cp "$share/vmlinuz-$suffix" "$OUT/vmlinuz"

# Made after the other in the same tree: what debug/ does not touch is compiled once.
step "compile the debug kernel"
configure /build/asked.config /src/debug/*.config
touch /build/debug.stamp
make -s -j"$KILN_JOBS" "$target"
all=$(find . -name '*.o' | wc -l)
again=$(find . -name '*.o' -newer /build/debug.stamp | wc -l)
step "compiled $again of $all objects again"
if ((again * 4 > all)); then
	echo "kiln: an option in debug/ is read by $again of the kernel's $all objects, which doubles the build:" \
		"leave it out, or ask for it in fragments/ for both kernels" >&2
	exit 1
fi
cp .config "$OUT/config-debug"
install_kernel "$OUT/vmlinuz-debug" "$OUT/vmlinux-debug"
