package bundle_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/payload/bundle"
	"github.com/kiln-build/kiln/payload/fakepayload"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func TestABundleIsAValidIndex(t *testing.T) {
	b := fakepayload.Open(t, t.TempDir())
	require.NoError(t, validate.Index(b.Index(), validate.Fast))
	// The validator cannot read zstd, so the layers are compared here.
	img, err := b.Image()
	require.NoError(t, err)
	config, err := img.ConfigFile()
	require.NoError(t, err)
	layers, err := img.Layers()
	require.NoError(t, err)
	for i, l := range layers {
		rc, err := l.Uncompressed()
		require.NoError(t, err)
		got, _, err := v1.SHA256(rc)
		require.NoError(t, err)
		require.NoError(t, rc.Close())
		require.Equal(t, config.RootFS.DiffIDs[i], got)
	}
	require.Equal(t, "tdx", b.Labels["kiln.platform"])
	require.Len(t, b.Components, 2)
}

func TestOpeningReadsNoLayer(t *testing.T) {
	dir := t.TempDir()
	path := fakepayload.Write(t, dir, fakepayload.Spec(fakepayload.Components(t, dir)...))
	require.NoError(t, os.Remove(fakepayload.LayerPath(dir, "kernel")))
	b, err := bundle.Open(path)
	require.NoError(t, err)
	img, err := b.Image()
	require.NoError(t, err)
	layers, err := img.Layers()
	require.NoError(t, err)
	_, err = layers[0].Compressed()
	require.ErrorContains(t, err, "component kernel: opening its layer")
	require.Equal(t, exitcode.LocalIO, exitcode.Of(err))
}

func TestAWrongLayerIsNeverComplete(t *testing.T) {
	for name, change := range map[string]func([]byte) []byte{
		"flipped": func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"shorter": func(b []byte) []byte { return b[:len(b)-1] },
		"longer":  func(b []byte) []byte { return append(b, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			b := fakepayload.Open(t, dir)
			path := fakepayload.LayerPath(dir, "kernel")
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			size := len(data)
			require.NoError(t, os.WriteFile(path, change(data), 0o644))

			img, err := b.Image()
			require.NoError(t, err)
			layers, err := img.Layers()
			require.NoError(t, err)
			var read int64
			rc, err := layers[0].Compressed()
			if err == nil {
				read, err = io.Copy(io.Discard, rc)
				require.NoError(t, rc.Close())
			}
			require.ErrorIs(t, err, bundle.ErrStale)
			require.ErrorContains(t, err, "component kernel")
			require.ErrorContains(t, err, path)
			require.Equal(t, exitcode.Unverified, exitcode.Of(err))
			require.Less(t, read, int64(size))
		})
	}
}

func TestReadingInSmallSteps(t *testing.T) {
	dir := t.TempDir()
	b := fakepayload.Open(t, dir)
	img, err := b.Image()
	require.NoError(t, err)
	layers, err := img.Layers()
	require.NoError(t, err)
	rc, err := layers[0].Compressed()
	require.NoError(t, err)
	defer rc.Close()
	var got bytes.Buffer
	_, err = io.CopyBuffer(&got, struct{ io.Reader }{rc}, make([]byte, 7))
	require.NoError(t, err)
	want, err := os.ReadFile(fakepayload.LayerPath(dir, "kernel"))
	require.NoError(t, err)
	require.Equal(t, want, got.Bytes())
}

func TestDocumentsThatDisagree(t *testing.T) {
	for name, tc := range map[string]struct {
		file, old, new string
		want           string
		code           int
	}{
		"index":                 {"index.json", `"kiln.platform":"tdx"`, `"kiln.platform":"snp"`, "the receipt is for sha256:", exitcode.Unverified},
		"manifest":              {"manifest.json", `"6.12"`, `"6.13"`, "the manifest is sha256:", exitcode.Unverified},
		"config":                {"config.json", `"6.12"`, `"6.13"`, "the config is sha256:", exitcode.Unverified},
		"receipt":               {"receipt.json", `"6.12"`, `"6.13"`, "component 0 of the receipt", exitcode.Unverified},
		"metadata":              {"kernel.component.json", `"6.12"`, `"6.13"`, "component 0 of the receipt", exitcode.Unverified},
		"metadata of another":   {"kernel.component.json", `"kernel"`, `"qemu"`, "describes qemu", exitcode.Unverified},
		"listing of less":       {"bundle.json", `,{"name":"kata-deploy"`, `],"x":[{"name":"kata-deploy"`, `unknown field "x"`, exitcode.BadInput},
		"listing out of order":  {"bundle.json", `{"name":"kernel"`, `{"name":"kata-deploy"`, "describes kernel", exitcode.Unverified},
		"receipt is not one":    {"receipt.json", `"schemaVersion": 1`, `"schemaVersion": 9`, "schemaVersion is 9", exitcode.BadInput},
		"a document is missing": {"bundle.json", `/index.json`, `/absent.json`, "reading the payload's index", exitcode.LocalIO},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := fakepayload.Write(t, dir, fakepayload.Spec(fakepayload.Components(t, dir)...))
			file := filepath.Join(dir, tc.file)
			data, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Contains(t, string(data), tc.old)
			require.NoError(t, os.WriteFile(file, []byte(strings.ReplaceAll(string(data), tc.old, tc.new)), 0o644))
			_, err = bundle.Open(path)
			require.ErrorContains(t, err, tc.want)
			require.Equal(t, tc.code, exitcode.Of(err))
		})
	}
}

func TestARunfileThatIsNotThere(t *testing.T) {
	t.Setenv("RUNFILES_DIR", t.TempDir())
	_, err := bundle.Open("_main/payload/absent.json")
	require.Error(t, err)
	require.Equal(t, exitcode.LocalIO, exitcode.Of(err))
	require.False(t, errors.Is(err, bundle.ErrStale))
}
