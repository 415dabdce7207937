package agentlayer_test

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

	"github.com/kiln-build/kiln/stack/agent/agentlayer"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func archive(t *testing.T) []byte {
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
	case agentlayer.Plain:
		return archive(t)
	case agentlayer.Gzip:
		w = gzip.NewWriter(&b)
	case agentlayer.Zstd:
		z, err := zstd.NewWriter(&b)
		require.NoError(t, err)
		w = z
	}
	_, err := w.Write(archive(t))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

func TestFind(t *testing.T) {
	for _, want := range []string{agentlayer.Plain, agentlayer.Gzip, agentlayer.Zstd} {
		t.Run(want, func(t *testing.T) {
			content, kind, err := agentlayer.Find(bytes.NewReader(packed(t, want)), "usr/bin/agent")
			require.NoError(t, err)
			require.Equal(t, want, kind)
			got, err := io.ReadAll(content)
			require.NoError(t, err)
			require.Equal(t, "./usr/bin/agent", string(got))

			_, _, err = agentlayer.Find(bytes.NewReader(packed(t, want)), "usr/bin/other")
			require.ErrorIs(t, err, agentlayer.ErrNotFound)
			require.ErrorContains(t, err, "usr/bin/other is not in the layer")

			whole := packed(t, want)
			_, _, err = agentlayer.Find(bytes.NewReader(whole[:len(whole)/4]), "usr/bin/agent")
			require.ErrorContains(t, err, "reading the layer as "+want)
		})
	}
}

func TestFindInNoArchive(t *testing.T) {
	for _, text := range []string{"a version file\n", "\x1f\x8b", "\x28\xb5\x2f\xfdnonsense"} {
		_, _, err := agentlayer.Find(bytes.NewReader([]byte(text)), "usr/bin/agent")
		require.ErrorContains(t, err, "reading the layer as")
	}
}

func TestUnpack(t *testing.T) {
	dir := t.TempDir()
	layer, output := filepath.Join(dir, "layer"), filepath.Join(dir, "agent")
	require.NoError(t, os.WriteFile(layer, packed(t, agentlayer.Zstd), 0o600))
	require.NoError(t, agentlayer.Unpack(layer, "usr/bin/agent", output))
	got, err := os.ReadFile(output)
	require.NoError(t, err)
	require.Equal(t, "./usr/bin/agent", string(got))
	info, err := os.Stat(output)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o755), info.Mode().Perm())
}

func TestUnpackFails(t *testing.T) {
	dir := t.TempDir()
	layer := filepath.Join(dir, "layer")
	require.NoError(t, os.WriteFile(layer, packed(t, agentlayer.Plain), 0o600))
	for _, test := range []struct {
		name, layer, file, output, wantErr string
		wantCode                           int
	}{
		{"no such layer", filepath.Join(dir, "none"), "usr/bin/agent", "agent", "no such file", exitcode.LocalIO},
		{"not in the layer", layer, "usr/bin/other", "agent", "taking usr/bin/other out of " + layer, exitcode.Unverified},
		{"no place for it", layer, "usr/bin/agent", "no/such/dir", "no such file", exitcode.LocalIO},
	} {
		t.Run(test.name, func(t *testing.T) {
			output := filepath.Join(dir, test.output)
			err := agentlayer.Unpack(test.layer, test.file, output)
			require.ErrorContains(t, err, test.wantErr)
			require.Equal(t, test.wantCode, exitcode.Of(err))
			require.NoFileExists(t, output)
		})
	}
}
