package testtools_test

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tests/suite/testtools"
)

func TestUnpack(t *testing.T) {
	var archive bytes.Buffer
	z, err := zstd.NewWriter(&archive)
	require.NoError(t, err)
	w := tar.NewWriter(z)
	for _, h := range []tar.Header{
		{Name: "./usr/", Typeflag: tar.TypeDir},
		{Name: "./usr/bin/", Typeflag: tar.TypeDir},
		{Name: "./usr/bin/tool", Typeflag: tar.TypeReg, Mode: 0o755},
		{Name: "./usr/bin/same", Typeflag: tar.TypeLink, Linkname: "./usr/bin/tool"},
		{Name: "./usr/lib/x86_64-linux-gnu/", Typeflag: tar.TypeDir},
		{Name: "./usr/lib/x86_64-linux-gnu/ld-1.so", Typeflag: tar.TypeReg, Mode: 0o755},
		{Name: "./usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", Typeflag: tar.TypeSymlink, Linkname: "ld-1.so"},
	} {
		require.NoError(t, w.WriteHeader(&h))
	}
	require.NoError(t, w.Close())
	require.NoError(t, z.Close())
	file := filepath.Join(t.TempDir(), "root.tar.zst")
	require.NoError(t, os.WriteFile(file, archive.Bytes(), 0o600))

	dir := t.TempDir()
	tools, err := testtools.Unpack(file, dir)
	require.NoError(t, err)
	command, err := tools.Command("usr/bin/same")
	require.NoError(t, err)
	libraries := filepath.Join(dir, "usr/lib/x86_64-linux-gnu")
	require.Equal(t, []string{filepath.Join(libraries, "ld-linux-x86-64.so.2"), "--library-path", libraries, filepath.Join(dir, "usr/bin/same")}, command)
	_, err = tools.Command("usr/bin/other")
	require.ErrorContains(t, err, "the test tools lack usr/bin/other")
}
