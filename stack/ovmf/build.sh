#!/bin/bash
# Builds the firmware of one TEE inside the build root (see tools/component: root_component).
#
#   /src/orig.tar.xz, /src/debian.tar.xz   Debian's source package of edk2
#   /src/trim.txt, /src/trim-own.txt       modules to leave out
#   FIRMWARE                               tdx | sev
#   VERSION                                version of the package, as the lock pins it
#
# Debian's own package of the TDX firmware enrols keys and demands signed kernels; the guest kernel
# of a Kata payload is measured, not signed.
set -euo pipefail

step() { echo "kiln: step: $*"; }

# The GUIDs, in bytes as stored, are those of entries in the table at the end of the firmware.
case $FIRMWARE in
tdx)
	platform=OvmfPkg/IntelTdx/IntelTdxX64
	built=Build/IntelTdx
	installed=OVMF.inteltdx.fd
	# Without the TDX metadata QEMU starts no trust domain.
	required=('\x35\x65\x7a\xe4\x4a\x98\x98\x47\x86\x5e\x46\x85\xa7\xbf\x8e\xc2')
	;;
sev)
	platform=OvmfPkg/AmdSev/AmdSevX64
	built=Build/AmdSev
	installed=AMDSEV.fd
	# The SEV metadata, which SNP needs, and the place where QEMU puts the digests of kernel,
	# initrd and command line, so that they are measured.
	required=(
		'\x66\x65\x88\xdc\x4a\x98\x98\x47\xa7\x5e\x55\x85\xa7\xbf\x67\xcc'
		'\x1f\x37\x55\x72\x3b\x3a\x04\x4b\x92\x7b\x1d\xa6\xef\xa8\xd4\x54'
	)
	;;
*)
	echo "kiln: unknown firmware '$FIRMWARE': it is tdx or sev" >&2
	exit 2
	;;
esac

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
cat /src/trim.txt /src/trim-own.txt >/build/trim.txt
for description in $platform.dsc $platform.fdf; do
	bash /src/trim.sh /build/trim.txt $description >/build/trimmed
	cp /build/trimmed $description
done
# What runs before a build of the SEV firmware is there to make GRUB.
sed -i '/^ *PREBUILD\b/d' $platform.dsc
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
firmware=$built/RELEASE_GCCNOLTO/FV/OVMF.fd
for guid in "${required[@]}"; do
	# shellcheck disable=SC2059
	if ! LC_ALL=C grep -q -a -F -f <(printf "$guid") "$firmware"; then
		echo "kiln: $firmware has no entry $guid: it is not a firmware for $FIRMWARE" >&2
		exit 1
	fi
done
install -D -m 0644 "$firmware" "$DESTDIR/opt/kata/share/ovmf/$installed"
cp "$firmware" "$OUT/$installed"
