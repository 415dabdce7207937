#!/bin/bash
# check-required.sh VIRTIOFSD REQUIRED: fails, naming every one, when the help of VIRTIOFSD lacks
# an option that REQUIRED lists.
set -euo pipefail
virtiofsd=$1 required=$2
# An option begins its line, perhaps after a short one: "  -h, --help", "      --fd <FD>".
offered=$("$virtiofsd" --help | sed -n -E 's/^ +(-[A-Za-z], )?(--[a-z-]+).*/\2/p' | sort -u)
wanted=$(awk '!/^[ \t]*(#|$)/ { print $1 }' "$required" | sort -u)
missing=$(comm -23 <(echo "$wanted") <(echo "$offered"))
if [ -n "$missing" ]; then
	echo "the built virtiofsd lacks options that the runtimes start it with:" >&2
	sed 's/^/  /' <<<"$missing" >&2
	exit 1
fi
