package crio_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/pelletier/go-toml/v2"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/deploy/crio"
	"github.com/kiln-build/kiln/deploy/handler"
)

func handlers() []handler.Handler {
	return []handler.Handler{
		{Name: "kata-qemu-tdx", Shim: "/opt/kata/bin/containerd-shim-kata-v2", Config: "/opt/kata/tdx.toml", GuestPull: true},
		{Name: "kata-qemu-snp", Shim: "/opt/kata/bin/containerd-shim-kata-v2", Config: "/opt/kata/snp.toml"},
	}
}

func TestDropIn(t *testing.T) {
	got, err := crio.DropIn(handlers())
	require.NoError(t, err)
	want, err := os.ReadFile("testdata/drop-in.toml")
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
	require.NoError(t, toml.Unmarshal(got, &map[string]any{}))
}

func TestInstallAndRemove(t *testing.T) {
	for _, existing := range []bool{false, true} {
		directory := filepath.Join(t.TempDir(), "crio")
		theirs := filepath.Join(directory, "crio.conf.d", "10-theirs.conf")
		if existing {
			require.NoError(t, os.MkdirAll(filepath.Dir(theirs), 0o755))
			require.NoError(t, os.WriteFile(theirs, []byte("[crio]\n"), 0o600))
		}
		for _, suffix := range []string{"", "blue"} {
			changed, err := crio.Install(directory, suffix, handlers())
			require.NoError(t, err)
			require.True(t, changed)
			changed, err = crio.Install(directory, suffix, handlers())
			require.NoError(t, err)
			require.False(t, changed, "CRI-O would be started again for nothing")
		}
		require.FileExists(t, filepath.Join(directory, "crio.conf.d", "99-kata-deploy"))
		for _, suffix := range []string{"", "blue"} {
			require.FileExists(t, filepath.Join(directory, "crio.conf.d", "99-kata-deploy-blue"))
			changed, err := crio.Remove(directory, suffix)
			require.NoError(t, err)
			require.True(t, changed)
			changed, err = crio.Remove(directory, suffix)
			require.NoError(t, err)
			require.False(t, changed)
		}
		if existing {
			content, err := os.ReadFile(theirs)
			require.NoError(t, err)
			require.Equal(t, "[crio]\n", string(content))
			entries, err := os.ReadDir(filepath.Dir(theirs))
			require.NoError(t, err)
			require.Len(t, entries, 1)
		} else {
			require.NoDirExists(t, directory)
		}
	}
}
