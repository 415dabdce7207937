#!/bin/bash
# trim.sh LIST FILE: prints FILE, an edk2 platform (.dsc) or flash (.fdf) description, without
# the modules that LIST names. Fails when FILE does not have one of them.
set -euo pipefail
awk '
	FNR == NR {
		if ($0 !~ /^[ \t]*(#|$)/) drop[$1] = 0
		next
	}
	# The descriptions come with the line ends of another system.
	{ sub(/\r$/, "") }
	inblock {
		if ($1 == "}") inblock = 0
		next
	}
	{
		module = $1 == "INF" ? $2 : $1
		if (module in drop) {
			drop[module]++
			inblock = /\{[ \t]*$/
			next
		}
		print
	}
	END {
		for (module in drop) {
			if (drop[module]) continue
			printf "%s does not have %s, which the list drops: take it off\n", FILENAME, module > "/dev/stderr"
			failed = 1
		}
		exit failed
	}
' "$1" "$2"
