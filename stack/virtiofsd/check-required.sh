#!/bin/bash
# check-required.sh REQUIRED VIRTIOFSD...: fails, naming every one, when the help of VIRTIOFSD (a
# command, with words before it such as an emulator's) lacks an option that REQUIRED lists.
set -euo pipefail
required=$1
shift
# An option begins its line, perhaps after a short one: "  -h, --help", "      --fd <FD>".
offered=$("$@" --help | sed -n -E 's/^ +(-[A-Za-z], )?(--[a-z-]+).*/\2/p' | sort -u)
wanted=$(awk '!/^[ \t]*(#|$)/ { print $1 }' "$required" | sort -u)
missing=$(comm -23 <(echo "$wanted") <(echo "$offered"))
if [ -n "$missing" ]; then
	echo "the built virtiofsd lacks options that the runtimes start it with:" >&2
	sed 's/^/  /' <<<"$missing" >&2
	exit 1
fi
