#!/bin/bash
# check-required.sh QEMU REQUIRED: fails, naming every one, when QEMU lacks something that
# REQUIRED lists as "<kind> <name>".
set -euo pipefail
qemu=$1 required=$2
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
kinds=$(awk '!/^[ \t]*(#|$)/ { print $1 }' "$required" | sort -u)
for kind in $kinds; do
	# Help differs by kind: 'name "x", bus…', 'x  description', '  x'. Some end with status 1.
	# Some kinds of help want a machine to be named.
	machine=()
	[ "$kind" = machine ] || machine=(-machine none)
	"$qemu" -"$kind" help "${machine[@]}" 2>&1 |
		sed -n -E 's/^[ \t]*(name ")?([A-Za-z0-9._-]+).*/\2/p' |
		sed "s/^/$kind /" || true
done | sort -u >"$scratch/offered"
awk '!/^[ \t]*(#|$)/ { print $1 " " $2 }' "$required" | sort -u >"$scratch/wanted"
missing=$(comm -23 "$scratch/wanted" "$scratch/offered")
if [ -n "$missing" ]; then
	echo "the built QEMU lacks what the configurations need:" >&2
	sed 's/^/  /' <<<"$missing" >&2
	echo "ask for it in stack/qemu/devices.mak or in the configure flags of stack/qemu/build.sh" >&2
	exit 1
fi
