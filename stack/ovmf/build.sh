#!/bin/bash
# Builds a firmware inside the build root (see tools/component: root_component).
#
#   /src/orig.tar.xz, /src/debian.tar.xz   Debian's source package of edk2
#   /src/trim/                             lists of modules to leave out
#   FIRMWARE                               tdx | sev | aavmf, which is for arm64
#   CROSS_COMPILE                          compiler for its architecture, as a prefix; empty for
#                                          that of the root
#   VERSION                                version of the package, as the lock pins it
#
# Debian's own package of the TDX firmware enrols keys and demands signed kernels; the guest kernel
# of a Kata payload is measured, not signed.
set -euo pipefail

step() { echo "kiln: step: $*"; }

# The GUIDs, in bytes as stored, are those of entries in the table at the end of the firmware.
case $FIRMWARE in
tdx)
	arch=X64
	platform=OvmfPkg/IntelTdx/IntelTdxX64
	descriptions=("$platform.dsc" "$platform.fdf")
	options=(-D FD_SIZE_4MB)
	built=Build/IntelTdx
	installed=OVMF.inteltdx.fd
	# Without the TDX metadata QEMU starts no trust domain.
	required=('\x35\x65\x7a\xe4\x4a\x98\x98\x47\x86\x5e\x46\x85\xa7\xbf\x8e\xc2')
	;;
sev)
	arch=X64
	platform=OvmfPkg/AmdSev/AmdSevX64
	descriptions=("$platform.dsc" "$platform.fdf")
	options=(-D FD_SIZE_4MB)
	built=Build/AmdSev
	installed=AMDSEV.fd
	# The SEV metadata, which SNP needs, and the place where QEMU puts the digests of kernel,
	# initrd and command line, so that they are measured.
	required=(
		'\x66\x65\x88\xdc\x4a\x98\x98\x47\xa7\x5e\x55\x85\xa7\xbf\x67\xcc'
		'\x1f\x37\x55\x72\x3b\x3a\x04\x4b\x92\x7b\x1d\xa6\xef\xa8\xd4\x54'
	)
	;;
aavmf)
	arch=AARCH64
	platform=ArmVirtPkg/ArmVirtQemu
	# What the volume holds is described in a part of the flash description.
	descriptions=("$platform.dsc" "${platform}FvMain.fdf.inc")
	options=(-D NETWORK_ENABLE=FALSE)
	built=Build/ArmVirtQemu-AARCH64
	;;
*)
	echo "kiln: unknown firmware '$FIRMWARE': it is tdx, sev or aavmf" >&2
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
cat /src/trim/* >/build/trim.txt
for description in "${descriptions[@]}"; do
	bash /src/trim.sh /build/trim.txt "$description" >/build/trimmed
	cp /build/trimmed "$description"
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
export "GCCNOLTO_${arch}_PREFIX=$CROSS_COMPILE"
build -n "$KILN_JOBS" -a $arch -t GCCNOLTO -b RELEASE -p $platform.dsc \
	-D BUILD_SHELL=FALSE -D SECURE_BOOT_ENABLE=FALSE "${options[@]}" \
	--pcd PcdFirmwareVendor=L"Kiln\\0" \
	--pcd PcdFirmwareVersionString=L"$VERSION\\0" \
	--pcd PcdFirmwareReleaseDateString=L"$(date -u -d "@$SOURCE_DATE_EPOCH" +%m/%d/%Y)\\0" \
	>/build/firmware.log 2>&1 || {
	grep -E -A 6 'error|Error' /build/firmware.log | tail -50 >&2
	exit 1
}

step "check and install"
if [ "$FIRMWARE" = aavmf ]; then
	share=$DESTDIR/opt/kata/share/aavmf
	mkdir -p "$share"
	for part in EFI:CODE VARS:VARS; do
		file=$share/AAVMF_${part#*:}.fd
		cp "$built/RELEASE_GCCNOLTO/FV/QEMU_${part%:*}.fd" "$file"
		# The machine virt has two flash chips of this size.
		truncate -s 64M "$file"
		chmod 0644 "$file"
	done
	exit
fi
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
