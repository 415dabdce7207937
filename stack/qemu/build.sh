#!/bin/bash
# Builds QEMU for guests of the host's architecture inside the build root (see tools/component:
# root_component).
#
#   /src/orig.tar.xz, /src/debian.tar.xz   Debian's source package of QEMU
#   /src/devices.mak                       the devices to build
#   /src/required.txt                      what the result must offer
#   /src/qemu-system-data.deb              firmware, for those that cannot do without
#   /src/sysroot.tar.zst                   libraries of another architecture, if it is for one
#   VERSION                                version of the package, as the lock pins it
#   TARGET                                 QEMU's name of the architecture
#   CROSS_COMPILE                          compiler for it, as a prefix; empty for that of the root
#   EMULATOR                               runs its programs here; empty where nothing has to
set -euo pipefail

step() { echo "kiln: step: $*"; }

prefix=/opt/kata
firmware=$DESTDIR$prefix/share/kata-qemu/qemu
program=qemu-system-$TARGET
emulator=()
[ -z "$EMULATOR" ] || emulator=("$EMULATOR")

step "unpack the source"
mkdir -p /build/qemu
tar --no-same-owner -xJf /src/orig.tar.xz -C /build/qemu --strip-components=1 --wildcards --exclude='*/roms/*/*'
tar --no-same-owner -xJf /src/debian.tar.xz -C /build/qemu
cd /build/qemu
upstream=$(cat VERSION)
case $VERSION in
*"$upstream"+*) ;;
*)
	echo "kiln: the source in orig.tar.xz is $upstream, but the lock calls the package $VERSION" >&2
	exit 1
	;;
esac

step "patch"
# Of Debian's series, what a source without firmware blobs needs, and what lets configure do
# without a module that only QEMU's functional tests import. The rest is about ROMs and user-mode
# emulators, which are not built here.
for patch in disable-pycotap skip-unpack-edk2-blobs skip-install-dtb; do
	patch -p1 -s <debian/patches/$patch.patch
done
cp /src/devices.mak "configs/devices/$TARGET-softmmu/kiln.mak"

options=()
if [ -n "$CROSS_COMPILE" ]; then
	step "unpack the libraries for ${CROSS_COMPILE%-}"
	mkdir /build/sysroot
	tar --no-same-owner -xf /src/sysroot.tar.zst -C /build/sysroot
	# The linker follows links as they are: one to /lib would leave the root.
	find /build/sysroot -type l -lname '/*' -printf '%p %l\n' | while read -r link target; do
		ln -sfn "/build/sysroot$target" "$link"
	done
	export PKG_CONFIG=pkg-config PKG_CONFIG_SYSROOT_DIR=/build/sysroot
	export PKG_CONFIG_LIBDIR=/build/sysroot/usr/lib/${CROSS_COMPILE%-}/pkgconfig:/build/sysroot/usr/share/pkgconfig
	options+=("--cross-prefix=$CROSS_COMPILE" "--cc=${CROSS_COMPILE}gcc --sysroot=/build/sysroot" --host-cc=gcc)
fi

step "configure $upstream"
# configure makes a Python environment. It can take pip from where it is; otherwise it installs it
# from these wheels, and pip's installation wants the certificates of a network that is not there.
mkdir /build/python /build/out
for wheel in /usr/share/python-wheels/{pip,setuptools}-*.whl; do
	python3 -m zipfile -e "$wheel" /build/python
done
export PYTHONPATH=/build/python PYTHONDONTWRITEBYTECODE=1
cd /build/out
if ! /build/qemu/configure "${options[@]}" \
	--target-list="$TARGET-softmmu" \
	--static \
	--prefix=$prefix \
	--datadir=$prefix/share/kata-qemu \
	--libexecdir=$prefix/libexec/kata-qemu \
	--sysconfdir=/etc \
	--localstatedir=/var \
	--with-suffix=qemu \
	--with-pkgversion=Kiln \
	--disable-download \
	--without-default-features \
	--without-default-devices \
	--with-devices-"$TARGET"=kiln \
	--enable-trace-backends=nop \
	--disable-debug-info \
	--disable-install-blobs \
	--disable-docs \
	--disable-werror \
	--enable-stack-protector \
	--enable-system \
	--enable-kvm \
	--enable-tcg \
	--enable-seccomp \
	--enable-linux-aio \
	--enable-linux-io-uring \
	--enable-malloc-trim \
	--enable-membarrier \
	--enable-numa \
	--enable-vhost-kernel \
	--enable-vhost-net \
	--enable-vhost-user \
	>configure.log 2>&1; then
	tail -40 configure.log >&2
	exit 1
fi

step "compile"
ninja -j"$KILN_JOBS" "$program"

step "check devices and objects"
bash /src/check-required.sh /src/required.txt "${emulator[@]}" "./$program"

step "install"
install -D -m 0755 "$program" "$DESTDIR$prefix/bin/$program"
"${CROSS_COMPILE}strip" "$DESTDIR$prefix/bin/$program"
install -d -m 0755 "$firmware"
# install_data installs firmware out of Debian's package of it.
install_data() {
	ar p /src/qemu-system-data.deb data.tar.xz | tar -xJO "./usr/share/qemu/$1" >"$firmware/$1"
	chmod 0644 "$firmware/$1"
}
machine=
case $TARGET in
# The machine virt starts a kernel, or the firmware that the configuration names.
aarch64) machine=virt ;;
ppc64)
	machine=pseries
	install_data slof.bin
	;;
s390x)
	machine=s390-ccw-virtio
	install_data s390-ccw.img
	;;
x86_64)
	machine=q35
	# configure wants a compiler that links 32-bit programs for these; they are 16-bit code and need none.
	cat >pc-bios/optionrom/config.mak <<'EOF'
TOPSRC_DIR = /build/qemu
CC = gcc
OBJCOPY = objcopy
PYTHON = python3
EOF
	make -s -C pc-bios/optionrom all
	# Direct kernel boot without firmware of one's own needs SeaBIOS and these option ROMs.
	install -m 0644 /usr/share/seabios/bios-256k.bin "$firmware/"
	for rom in kvmvapic linuxboot linuxboot_dma pvh; do
		install -m 0644 pc-bios/optionrom/$rom.bin "$firmware/"
	done
	;;
esac

step "check that the binary works where it is and elsewhere"
# A static binary asks nothing of the host, and QEMU finds its ROMs from where it was started.
if readelf -d "$DESTDIR$prefix/bin/$program" | grep -q NEEDED; then
	echo "kiln: $program needs shared libraries:" >&2
	readelf -d "$DESTDIR$prefix/bin/$program" | grep NEEDED >&2
	exit 1
fi
mkdir /tmp/elsewhere
cp -a "$DESTDIR$prefix/." /tmp/elsewhere/
# -S stops before the first instruction: the machine is complete, firmware loaded.
if ! echo quit | "${emulator[@]}" "/tmp/elsewhere/bin/$program" -machine "$machine,accel=tcg" -cpu max -m 256 -S \
	-nodefaults -display none -monitor stdio >/tmp/elsewhere.log 2>&1; then
	cat /tmp/elsewhere.log >&2
	exit 1
fi
