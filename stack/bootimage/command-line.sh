#!/bin/bash
# command-line.sh FILE: prints the kernel's command line that FILE lists, one option a line; fails
# for one that a confidential guest must not have.
set -euo pipefail
options=$(sed -e '/^[ \t]*\(#\|$\)/d' -e 's/^[ \t]*//' -e 's/[ \t]*$//' "$1")
if [ -z "$options" ]; then
	echo "kiln: error: $1 lists no option for the guest's kernel: an image without them does not start containers" >&2
	exit 1
fi
# The host owns the console, so that a shell on it would open the guest to the host.
if grep -q '^agent[.]debug_console' <<<"$options"; then
	echo "kiln: error: $1 has agent.debug_console, which gives the host a shell in a guest that is to be protected from it: drop it" >&2
	exit 1
fi
paste -s -d ' ' <<<"$options"
