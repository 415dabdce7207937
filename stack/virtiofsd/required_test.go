package virtiofsd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// help is in the format of virtiofsd: a text may name options, too.
const help = `#!/bin/bash
[ "$*" = --help ] && cat <<'EOF'
Launch a virtiofsd backend.

Usage: virtiofsd [OPTIONS]

Options:
      --shared-dir <SHARED_DIR>
          Shared directory path

      --posix-acl
          Enable support for posix ACLs (implies --xattr)

  -o <COMPAT_OPTIONS>
          Options in a format compatible with the legacy implementation [deprecated]

  -h, --help
          Print help (see a summary with '-h')
EOF
`

func TestCheckRequired(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "virtiofsd")
	require.NoError(t, os.WriteFile(program, []byte(help), 0o700))
	for required, missing := range map[string]string{
		"# why\n\n--shared-dir\n--help\n": "",
		"--help\n--fd\n--cache\n":         "  --cache\n  --fd\n",
		"--shared\n":                      "  --shared\n",
		"--xattr\n":                       "  --xattr\n",
	} {
		list := filepath.Join(dir, "required.txt")
		require.NoError(t, os.WriteFile(list, []byte(required), 0o600))
		out, err := exec.Command("bash", "check-required.sh", list, "env", "FOREIGN=1", program).CombinedOutput()
		if missing == "" {
			require.NoError(t, err, "%s", out)
			require.Empty(t, out)
			continue
		}
		require.Error(t, err, required)
		require.Equal(t, "the built virtiofsd lacks options that the runtimes start it with:\n"+missing, string(out))
	}
}
