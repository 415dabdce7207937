#!/bin/bash
# effective-config.sh FILE: prints each option that FILE asks for once, by its last line,
# in the order in which the options first appear. Fragments are joined before this, the extra
# one last, so that it can change what the others say.
set -euo pipefail
awk '
	/^CONFIG_[A-Za-z0-9_]+=/ { name = substr($0, 1, index($0, "=") - 1) }
	/^# CONFIG_[A-Za-z0-9_]+ is not set$/ { name = $2 }
	/^CONFIG_[A-Za-z0-9_]+=/ || /^# CONFIG_[A-Za-z0-9_]+ is not set$/ {
		if (!(name in value)) order[++n] = name
		value[name] = $0
		next
	}
	/^[ \t]*(#|$)/ { next }
	{
		printf "%s:%d: not a kernel option: %s\nwrite CONFIG_X=value or # CONFIG_X is not set\n", FILENAME, FNR, $0 > "/dev/stderr"
		bad = 1
		exit
	}
	END {
		if (bad) exit 2
		for (i = 1; i <= n; i++) print value[order[i]]
	}
' "$1"
