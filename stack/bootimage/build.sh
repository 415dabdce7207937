#!/bin/bash
# Makes the boot image for IBM Secure Execution (see tools/component: root_component).
#
#   /src/seimage            makes images
#   /src/s390-tools.deb     Debian's package for s390x with the loaders of such images
#   /src/kernel             the guest kernel, a bzImage for s390x
#   /src/initrd.tar.zst     the layer with the guest's initrd
#   /src/command-line.txt   the kernel's options, one a line
#   /src/host-keys/         the host key documents of the machines that may start the image
#   /src/certificates/      what the documents are verified with, if anything
#   VERIFY                  yes | no: whether documents of machines must be verified
#   TEST_KEY                true | false: whether the image's version says that it is for the test key
#
# The keys in an image for machines are random, and made and forgotten here: nobody can make such an
# image twice, and nobody can look into it but those machines.
set -euo pipefail

step() { echo "kiln: step: $*"; }
die() {
	echo "kiln: error: $*" >&2
	exit 1
}

# files_in prints the files below a directory, sorted, one a line; none if there is no directory.
files_in() { [ ! -d "$1" ] || find "$1" -type f | LC_ALL=C sort; }

# repeat reads the array $1 of file names from stdin, with the option $2 before each.
repeat() {
	local -n list=$1
	local name
	list=()
	while read -r name; do
		list+=("$2" "$name")
	done
}

readonly IMAGE=$DESTDIR/opt/kata/share/kata-containers/kata-containers-se.img

step "find the host keys"
repeat documents --host-key-document < <(files_in /src/host-keys)
repeat certificates --cert < <(files_in /src/certificates)
[ ${#documents[@]} -gt 0 ] || die "//stack/bootimage:host_key_document stands for no file: no machine could start the image"
verify=()
case $VERIFY in
yes)
	[ "$TEST_KEY" = true ] || [ ${#certificates[@]} -gt 0 ] ||
		die "nothing vouches for the host key documents: name the certificates and revocation lists to verify them with as //stack/bootimage:host_key_certificates, or say --no//stack/bootimage:verify"
	;;
no) verify=(--no-verify) ;;
*) die "VERIFY is '$VERIFY': it is yes or no" ;;
esac

step "unpack the loaders"
mkdir /build/loaders
data=$(ar t /src/s390-tools.deb | grep '^data[.]tar')
ar p /src/s390-tools.deb "$data" | tar -x --xz -C /build/loaders --strip-components=5 ./usr/share/s390-tools/pvimg

step "unpack the initrd"
tar -x --zstd -f /src/initrd.tar.zst -C /build --strip-components=6 --wildcards '*/share/kata-containers/*.initrd'
initrd=$(find /build -maxdepth 1 -name '*.initrd')
[ -f "$initrd" ] || die "the layer of the initrd holds not one file *.initrd: '$initrd'"

step "write the command line"
bash /src/command-line.sh /src/command-line.txt >/build/command-line

step "make the image"
mkdir -p "${IMAGE%/*}"
/src/seimage create --image /src/kernel --ramdisk "$initrd" --parmfile /build/command-line \
	--stage3a /build/loaders/stage3a.bin --stage3b /build/loaders/stage3b_reloc.bin \
	"${documents[@]}" "${certificates[@]}" "${verify[@]}" \
	--output "$IMAGE" --header "$OUT/header"

step "check the image"
/src/seimage inspect "$IMAGE" "${documents[@]}" >/build/inspected
grep -q "^  \"testKey\": $TEST_KEY\$" /build/inspected ||
	die "whether everybody can open the image and what its version says of that differ: name the documents of machines, or //stack/bootimage:test_document itself"
size=$(stat -c %s "$IMAGE")
least=$(($(stat -c %s /src/kernel) + $(stat -c %s "$initrd")))
[ "$size" -gt "$least" ] || die "the image has $size bytes, but kernel and initrd have $least"
chmod 0644 "$IMAGE"
