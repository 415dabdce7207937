#!/bin/bash
# Builds QEMU for x86_64 guests inside the build root (see tools/component: root_component).
#
#   /src/orig.tar.xz, /src/debian.tar.xz   Debian's source package of QEMU
#   /src/devices.mak                       the devices to build
#   /src/required.txt                      what the result must offer
#   VERSION                                version of the package, as the lock pins it
set -euo pipefail

step() { echo "kiln: step: $*"; }

prefix=/opt/kata
firmware=$DESTDIR$prefix/share/kata-qemu/qemu

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
cp /src/devices.mak configs/devices/x86_64-softmmu/kiln.mak

step "configure $upstream"
# configure makes a Python environment. It can take pip from where it is; otherwise it installs it
# from these wheels, and pip's installation wants the certificates of a network that is not there.
mkdir /build/python /build/out
for wheel in /usr/share/python-wheels/{pip,setuptools}-*.whl; do
	python3 -m zipfile -e "$wheel" /build/python
done
export PYTHONPATH=/build/python PYTHONDONTWRITEBYTECODE=1
cd /build/out
if ! /build/qemu/configure \
	--target-list=x86_64-softmmu \
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
	--with-devices-x86_64=kiln \
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
ninja -j"$KILN_JOBS" qemu-system-x86_64
# configure wants a compiler that links 32-bit programs for these; they are 16-bit code and need none.
cat >pc-bios/optionrom/config.mak <<'EOF'
TOPSRC_DIR = /build/qemu
CC = gcc
OBJCOPY = objcopy
PYTHON = python3
EOF
make -s -C pc-bios/optionrom all

step "check devices and objects"
bash /src/check-required.sh ./qemu-system-x86_64 /src/required.txt

step "install"
install -D -m 0755 -s qemu-system-x86_64 "$DESTDIR$prefix/bin/qemu-system-x86_64"
# Direct kernel boot without firmware of one's own needs SeaBIOS and these option ROMs.
install -d -m 0755 "$firmware"
install -m 0644 /usr/share/seabios/bios-256k.bin "$firmware/"
for rom in kvmvapic linuxboot linuxboot_dma pvh; do
	install -m 0644 pc-bios/optionrom/$rom.bin "$firmware/"
done

step "check that the binary works where it is and elsewhere"
# A static binary asks nothing of the host, and QEMU finds its ROMs from where it was started.
if readelf -d "$DESTDIR$prefix/bin/qemu-system-x86_64" | grep -q NEEDED; then
	echo "kiln: qemu-system-x86_64 needs shared libraries:" >&2
	readelf -d "$DESTDIR$prefix/bin/qemu-system-x86_64" | grep NEEDED >&2
	exit 1
fi
mkdir /tmp/elsewhere
cp -a "$DESTDIR$prefix/." /tmp/elsewhere/
# -S stops before the first instruction: the machine is complete, firmware loaded.
if ! echo quit | /tmp/elsewhere/bin/qemu-system-x86_64 -machine q35,accel=tcg -cpu max -m 128 -S \
	-nodefaults -display none -monitor stdio >/tmp/elsewhere.log 2>&1; then
	cat /tmp/elsewhere.log >&2
	exit 1
fi
