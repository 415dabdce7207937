#!/bin/bash
# check-required.sh REQUIRED QEMU...: fails, naming every one, when QEMU (a command, with words
# before it such as an emulator's) lacks something that REQUIRED lists as "<kind> <name>".
set -euo pipefail
required=$1
shift
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
kinds=$(awk '!/^[ \t]*(#|$)/ { print $1 }' "$required" | sort -u)
for kind in $kinds; do
	# Help differs by kind: 'name "x", bus…', 'x  description', '  x'. Some end with status 1.
	# Some kinds of help want a machine to be named.
	machine=()
	[ "$kind" = machine ] || machine=(-machine none)
	"$@" -"$kind" help "${machine[@]}" 2>&1 |
		sed -n -E 's/^[ \t]*(name ")?([A-Za-z0-9._-]+).*/\2/p' |
		sed "s/^/$kind /" || true
done | sort -u >"$scratch/offered"
awk '!/^[ \t]*(#|$)/ { print $1 " " $2 }' "$required" | sort -u >"$scratch/wanted"
missing=$(comm -23 "$scratch/wanted" "$scratch/offered")
if [ -n "$missing" ]; then
	echo "the built QEMU lacks what the configurations need:" >&2
	sed 's/^/  /' <<<"$missing" >&2
	echo "ask for it in stack/qemu/devices or in the configure flags of stack/qemu/build.sh" >&2
	exit 1
fi
