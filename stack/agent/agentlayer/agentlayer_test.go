package agentlayer_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/stack/agent/agentlayer"
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
