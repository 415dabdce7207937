package bootimage_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func commandLine(file string) (string, error) {
	out, err := exec.Command("bash", "command-line.sh", file).CombinedOutput()
	return string(out), err
}

func TestCommandLine(t *testing.T) {
	out, err := commandLine("command-line.txt")
	require.NoError(t, err, out)
	require.Equal(t, "panic=1 scsi_mod.scan=none swiotlb=262144\n", out)
}

func TestCommandLineRefuses(t *testing.T) {
	const shell = "has agent.debug_console, which gives the host a shell"
	for name, tt := range map[string]struct{ list, err string }{
		"a console with a shell": {"panic=1\nagent.debug_console\n", shell},
		"one with a port":        {"  agent.debug_console_vport=1026\n", shell},
		"one that is switched":   {"agent.debug_console=true\n", shell},
		"no option":              {"# why\n\n", "lists no option"},
	} {
		t.Run(name, func(t *testing.T) {
			list := filepath.Join(t.TempDir(), "command-line.txt")
			require.NoError(t, os.WriteFile(list, []byte(tt.list), 0o600))
			out, err := commandLine(list)
			require.Error(t, err)
			require.Contains(t, out, "kiln: error: "+list)
			require.Contains(t, out, tt.err)
		})
	}
}
