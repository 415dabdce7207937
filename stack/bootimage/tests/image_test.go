//go:build bazel

package tests_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/bazelbuild/rules_go/go/runfiles"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/stack/bootimage/seimage"
	"github.com/kiln-build/kiln/stack/bootimage/testkey"
	"github.com/kiln-build/kiln/tools/layer"
)

const installed = "opt/kata-artifacts/opt/kata/share/kata-containers"

// input gives the path of a file that the test is handed.
func input(t *testing.T, variable string) string {
	t.Helper()
	path, err := runfiles.Rlocation(os.Getenv(variable))
	require.NoError(t, err, variable)
	return path
}

// unpack unpacks a layer, and gives the directory of what belongs to guests.
func unpack(t *testing.T, variable string) string {
	t.Helper()
	f, err := os.Open(input(t, variable))
	require.NoError(t, err)
	defer f.Close()
	dir := filepath.Join(t.TempDir(), "root")
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, layer.Extract(t.Context(), f, dir))
	return filepath.Join(dir, installed)
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return b
}

// The image holds the kernel and the initrd that the payload has beside it, and
// what a host and its ultravisor check holds.
func TestImage(t *testing.T) {
	img := read(t, filepath.Join(unpack(t, "KILN_LAYER"), "kata-containers-se.img"))
	kernel := read(t, input(t, "KILN_KERNEL"))
	initrds, err := filepath.Glob(filepath.Join(unpack(t, "KILN_INITRD"), "*.initrd"))
	require.NoError(t, err)
	require.Len(t, initrds, 1)
	initrd := read(t, initrds[0])
	require.Greater(t, len(img), len(kernel)+len(initrd))

	key, err := testkey.Key()
	require.NoError(t, err)
	parts, err := seimage.Open(img, key)
	require.NoError(t, err)
	require.True(t, bytes.Equal(kernel, parts.Kernel), "another kernel")
	require.True(t, bytes.Equal(initrd, parts.Initrd), "another initrd")
	require.Contains(t, parts.CommandLine, "swiotlb=262144")
	require.NotContains(t, parts.CommandLine, "debug_console")

	header, err := seimage.ReadHeader(img)
	require.NoError(t, err)
	require.Equal(t, []seimage.KeyHash{seimage.HashOf(key.PublicKey())}, header.Hosts)
	require.Equal(t, "IBMSecEx", string(header.Raw[:8]))
	require.Equal(t, read(t, input(t, "KILN_HEADER")), header.Raw)
}
