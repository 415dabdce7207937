package repro_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/repro"
)

func TestCompare(t *testing.T) {
	require.Empty(t, repro.Compare(repro.Digests{"kernel": "sha256:a"}, repro.Digests{"kernel": "sha256:a"}))
	require.Equal(t, []repro.Difference{
		{Name: "agent", First: "sha256:a", Second: ""},
		{Name: "kernel", First: "sha256:b", Second: "sha256:c"},
		{Name: "qemu", First: "", Second: "sha256:d"},
	}, repro.Compare(
		repro.Digests{"agent": "sha256:a", "kernel": "sha256:b"},
		repro.Digests{"kernel": "sha256:c", "qemu": "sha256:d"},
	))
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
		return path
	}
	component := write("kernel.component.json", `{"name": "kernel", "layer": {"digest": "sha256:a"}}`)
	receipt := write("tdx.receipt.json", `{"platform": "tdx", "digest": "sha256:b"}`)
	layer := write("kernel.tar.zst", "no JSON at all")
	empty := write("qemu.component.json", `{}`)

	digests, err := repro.Read([]string{component, receipt, layer})
	require.NoError(t, err)
	require.Equal(t, repro.Digests{"kernel": "sha256:a", "payload tdx": "sha256:b"}, digests)

	_, err = repro.Read([]string{empty})
	require.EqualError(t, err, empty+": it names no digest")
}
