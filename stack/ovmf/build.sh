#!/bin/bash
# Builds the Intel TDX firmware inside the build root (see tools/component: root_component).
#
#   /src/orig.tar.xz, /src/debian.tar.xz   Debian's source package of edk2
#   /src/trim.txt                          modules to leave out
#   VERSION                                version of the package, as the lock pins it
#
# Debian's own package of this firmware enrols keys and demands signed kernels; the guest kernel
# of a Kata payload is measured, not signed.
set -euo pipefail

step() { echo "kiln: step: $*"; }

step "unpack the source"
mkdir -p /build/edk2
tar --no-same-owner -xJf /src/orig.tar.xz -C /build/edk2 --strip-components=1 \
	--exclude='*/openssl/test/*' --exclude='*/openssl/doc/*' --exclude='*/openssl/demos/*' \
	--exclude='*/mbedtls/tests/*' --exclude='*/UefiPayloadPkg/*' --exclude='*/EmulatorPkg/*'
tar --no-same-owner -xJf /src/debian.tar.xz -C /build/edk2
cd /build/edk2
for patch in $(sed '/^[ \t]*\(#\|$\)/d' debian/patches/series); do
	patch -p1 -s <"debian/patches/$patch"
done

step "trim the platform"
platform=OvmfPkg/IntelTdx/IntelTdxX64
for description in $platform.dsc $platform.fdf; do
	bash /src/trim.sh /src/trim.txt $description >/build/trimmed
	cp /build/trimmed $description
done
# Hashes are all that this platform wants of a cryptographic library. mbed TLS has them in a tenth
# of OpenSSL's files; the libraries built on it still name OpenSSL as a dependency, without a use.
sed -i -E '
	s#\bCryptoPkg/Library/BaseCryptLib/#CryptoPkg/Library/BaseCryptLibMbedTls/#
	s#^( *)OpensslLib\|.*#\1MbedTlsLib|CryptoPkg/Library/MbedTlsLib/MbedTlsLib.inf\n\1OpensslLib|CryptoPkg/Library/MbedTlsLib/MbedTlsLib.inf#
' $platform.dsc
# Without link-time optimisation the compiler sees less and suspects more. Nothing reads debug
# information of a release build.
cat >>$platform.dsc <<'EOF'

[BuildOptions]
  GCC:*_*_*_CC_FLAGS = -g0 -Wno-maybe-uninitialized
EOF

step "build the tools"
export WORKSPACE=/build/edk2 EDK_TOOLS_PATH=/build/edk2/BaseTools CONF_PATH=/build/edk2/Conf
export PYTHON_COMMAND=python3 PYTHONDONTWRITEBYTECODE=1
export PATH=$EDK_TOOLS_PATH/BinWrappers/PosixLike:$PATH
for conf in build_rule tools_def target; do
	cp BaseTools/Conf/$conf.template Conf/$conf.txt
done
make -s -C BaseTools/Source/C -j"$KILN_JOBS" ARCH=X64 >/build/tools.log 2>&1 || {
	tail -40 /build/tools.log >&2
	exit 1
}

step "build the firmware"
build -n "$KILN_JOBS" -a X64 -t GCCNOLTO -b RELEASE -p $platform.dsc \
	-D BUILD_SHELL=FALSE -D SECURE_BOOT_ENABLE=FALSE -D FD_SIZE_4MB \
	--pcd PcdFirmwareVendor=L"Kiln\\0" \
	--pcd PcdFirmwareVersionString=L"$VERSION\\0" \
	--pcd PcdFirmwareReleaseDateString=L"$(date -u -d "@$SOURCE_DATE_EPOCH" +%m/%d/%Y)\\0" \
	>/build/firmware.log 2>&1 || {
	grep -E -A 6 'error|Error' /build/firmware.log | tail -50 >&2
	exit 1
}

step "check and install"
firmware=Build/IntelTdx/RELEASE_GCCNOLTO/FV/OVMF.fd
# QEMU finds the sections that it must measure by this GUID, in bytes as stored; without the
# TDX metadata it starts no trust domain.
if ! LC_ALL=C grep -q -a -F -f <(printf '\x35\x65\x7a\xe4\x4a\x98\x98\x47\x86\x5e\x46\x85\xa7\xbf\x8e\xc2') $firmware; then
	echo "kiln: $firmware has no TDX metadata" >&2
	exit 1
fi
install -D -m 0644 $firmware "$DESTDIR/opt/kata/share/ovmf/OVMF.inteltdx.fd"
cp $firmware "$OUT/OVMF.inteltdx.fd"
