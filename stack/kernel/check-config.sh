#!/bin/bash
# check-config.sh ASKED CONFIG: fails, naming every one, when an option that ASKED asks for did
# not hold in CONFIG. Kconfig itself drops an option with an unmet dependency without a word.
set -euo pipefail
awk '
	function named(line) { return line ~ /^#/ ? substr(line, 3, index(line, " is not set") - 3) : substr(line, 1, index(line, "=") - 1) }
	/^CONFIG_[A-Za-z0-9_]+=/ || /^# CONFIG_[A-Za-z0-9_]+ is not set$/ {
		name = named($0)
		if (FNR == NR) {
			order[++n] = name
			asked[name] = $0
		} else {
			got[name] = $0
		}
	}
	END {
		for (i = 1; i <= n; i++) {
			name = order[i]
			off = asked[name] ~ /^#/ || asked[name] ~ /=n$/
			has = name in got ? got[name] : "# " name " is not set"
			if (off ? has ~ /^#/ : has == asked[name]) continue
			if (!failed++) print "kernel options that did not hold:" > "/dev/stderr"
			printf "  asked %s, got %s%s\n", asked[name], has, (name in got ? "" : " (no such option, or its dependencies are not met)") > "/dev/stderr"
		}
		if (failed) print "ask for what they depend on in stack/kernel/fragments, or drop them" > "/dev/stderr"
		exit failed > 0
	}
' "$1" "$2"
