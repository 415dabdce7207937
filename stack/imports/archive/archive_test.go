package archive_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/stack/imports/archive"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func plain(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: "./usr/bin/agent", Typeflag: tar.TypeSymlink, Linkname: "x"}))
	for _, name := range []string{"./etc/agent", "./usr/bin/agent"} {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Size: int64(len(name))}))
		_, err := io.WriteString(w, name)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

func packed(t *testing.T, kind string) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	switch kind {
	case archive.Plain:
		return plain(t)
	case archive.Gzip:
		w = gzip.NewWriter(&b)
	case archive.Zstd:
		z, err := zstd.NewWriter(&b)
		require.NoError(t, err)
		w = z
	}
	_, err := w.Write(plain(t))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

var kinds = []string{archive.Plain, archive.Gzip, archive.Zstd}

func TestKind(t *testing.T) {
	for _, want := range kinds {
		t.Run(want, func(t *testing.T) {
			got, err := archive.Kind(bytes.NewReader(packed(t, want)), "usr/bin/agent")
			require.NoError(t, err)
			require.Equal(t, want, got)

			_, err = archive.Kind(bytes.NewReader(packed(t, want)), "usr/bin/other")
			require.ErrorIs(t, err, archive.ErrNotFound)
			require.ErrorContains(t, err, "usr/bin/other is not in the archive")

			whole := packed(t, want)
			_, err = archive.Kind(bytes.NewReader(whole[:len(whole)/4]), "usr/bin/agent")
			require.ErrorContains(t, err, "reading the archive as "+want)
		})
	}
}

func TestKindOfNoArchive(t *testing.T) {
	for _, text := range []string{"a version file\n", "\x1f\x8b", "\x28\xb5\x2f\xfdnonsense"} {
		_, err := archive.Kind(bytes.NewReader([]byte(text)), "usr/bin/agent")
		require.ErrorContains(t, err, "reading the archive as")
	}
}

func TestUnpack(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			file, first, second := filepath.Join(dir, "archive"), filepath.Join(dir, "agent"), filepath.Join(dir, "settings")
			require.NoError(t, os.WriteFile(file, packed(t, kind), 0o600))
			require.NoError(t, archive.Unpack(file, map[string]string{"usr/bin/agent": first, "etc/agent": second}))
			for output, want := range map[string]string{first: "./usr/bin/agent", second: "./etc/agent"} {
				got, err := os.ReadFile(output)
				require.NoError(t, err)
				require.Equal(t, want, string(got))
				info, err := os.Stat(output)
				require.NoError(t, err)
				require.Equal(t, os.FileMode(0o755), info.Mode().Perm())
			}
		})
	}
}

func TestUnpackFails(t *testing.T) {
	dir := t.TempDir()
	whole, cut := filepath.Join(dir, "archive"), filepath.Join(dir, "cut")
	require.NoError(t, os.WriteFile(whole, packed(t, archive.Plain), 0o600))
	require.NoError(t, os.WriteFile(cut, plain(t)[:2000], 0o600))
	for _, test := range []struct {
		name, archive, file, output, wantErr string
		wantCode                             int
	}{
		{"no such archive", filepath.Join(dir, "none"), "usr/bin/agent", "agent", "no such file", exitcode.LocalIO},
		{"not in it", whole, "usr/bin/other", "agent", "unpacking " + whole + ": usr/bin/other: not in the archive", exitcode.Unverified},
		{"cut", cut, "usr/bin/agent", "agent", "reading the archive as tar: unexpected EOF", exitcode.Unverified},
		{"no place for it", whole, "usr/bin/agent", "no/such/dir", "no such file", exitcode.LocalIO},
	} {
		t.Run(test.name, func(t *testing.T) {
			output := filepath.Join(dir, test.output)
			err := archive.Unpack(test.archive, map[string]string{test.file: output})
			require.ErrorContains(t, err, test.wantErr)
			require.Equal(t, test.wantCode, exitcode.Of(err))
			require.NoFileExists(t, output)
		})
	}
}
