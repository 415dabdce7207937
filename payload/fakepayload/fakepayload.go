// Package fakepayload makes small payloads in a directory, for tests of what
// handles payloads: real layers, real documents, made-up content.
package fakepayload

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/payload/bundle"
	"github.com/kiln-build/kiln/payload/image"
	"github.com/kiln-build/kiln/payload/receipt"
	"github.com/kiln-build/kiln/tools/component/metadata"
)

// Component makes a component whose files have the given contents and puts
// its layer into dir. Contents that start with "-> " are symlinks.
func Component(t testing.TB, dir, name, version string, files map[string]string) *metadata.Component {
	t.Helper()
	c := &metadata.Component{Name: name, Version: version, License: "Apache-2.0", Arch: "amd64"}
	all := map[string]bool{}
	for p := range files {
		for d := path.Dir(p); d != "."; d = path.Dir(d) {
			all[d] = true
		}
		all[p] = true
	}
	var paths []string
	for p := range all {
		paths = append(paths, p)
	}
	slices.Sort(paths)

	var plain bytes.Buffer
	w := tar.NewWriter(&plain)
	for _, p := range paths {
		content, isFile := files[p]
		target, isLink := strings.CutPrefix(content, "-> ")
		switch {
		case !isFile:
			c.Files = append(c.Files, metadata.File{Path: p, Type: metadata.TypeDir, Mode: "0755"})
			require.NoError(t, w.WriteHeader(&tar.Header{Name: p + "/", Typeflag: tar.TypeDir, Mode: 0o755}))
		case isLink:
			c.Files = append(c.Files, metadata.File{Path: p, Type: metadata.TypeSymlink, Mode: "0777", Target: target})
			require.NoError(t, w.WriteHeader(&tar.Header{Name: p, Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777}))
		default:
			c.Files = append(c.Files, metadata.File{Path: p, Type: metadata.TypeFile, Mode: "0644", Size: int64(len(content)), SHA256: hexOf([]byte(content))})
			require.NoError(t, w.WriteHeader(&tar.Header{Name: p, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))}))
			_, err := w.Write([]byte(content))
			require.NoError(t, err)
		}
	}
	require.NoError(t, w.Close())
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	require.NoError(t, err)
	packed := enc.EncodeAll(plain.Bytes(), nil)
	require.NoError(t, enc.Close())
	c.Layer = metadata.Layer{
		MediaType: metadata.MediaType,
		Digest:    "sha256:" + hexOf(packed),
		Size:      int64(len(packed)),
		DiffID:    "sha256:" + hexOf(plain.Bytes()),
	}
	require.NoError(t, os.WriteFile(LayerPath(dir, name), packed, 0o644))
	return c
}

// LayerPath is where Component puts a layer.
func LayerPath(dir, name string) string { return filepath.Join(dir, name+".tar.zst") }

// Components are two small components, one of which brings the entry point.
func Components(t testing.TB, dir string) []*metadata.Component {
	t.Helper()
	return []*metadata.Component{
		Component(t, dir, "kernel", "6.12", map[string]string{
			"opt/kata-artifacts/opt/kata/share/kata-containers/vmlinuz-6.12":      strings.Repeat("kernel", 5000),
			"opt/kata-artifacts/opt/kata/share/kata-containers/vmlinuz.container": "-> vmlinuz-6.12",
		}),
		Component(t, dir, "kata-deploy", "1", map[string]string{"usr/bin/kata-deploy": "#!"}),
	}
}

// Spec is a payload of the given components for the platform tdx.
func Spec(components ...*metadata.Component) image.Spec {
	return image.Spec{
		Platform: "tdx", Arch: "amd64", RuntimeClasses: []string{"qemu-tdx"},
		Registry: receipt.Embedded, Agent: receipt.AgentBringup, Inputs: receipt.InputsPinned,
		Components: components,
	}
}

// Write builds the payload and gives the path of its bundle.json. The layers
// must be where Component put them.
func Write(t testing.TB, dir string, s image.Spec) string {
	t.Helper()
	p, err := image.Build(s)
	require.NoError(t, err)
	listing := bundle.Listing{
		Index:    filepath.Join(dir, "index.json"),
		Manifest: filepath.Join(dir, "manifest.json"),
		Config:   filepath.Join(dir, "config.json"),
		Receipt:  filepath.Join(dir, "receipt.json"),
	}
	require.NoError(t, os.WriteFile(listing.Index, p.Index, 0o644))
	require.NoError(t, os.WriteFile(listing.Manifest, p.Manifest, 0o644))
	require.NoError(t, os.WriteFile(listing.Config, p.Config, 0o644))
	require.NoError(t, receipt.WriteFile(listing.Receipt, p.Receipt))
	for _, c := range s.Components {
		m := filepath.Join(dir, c.Name+".component.json")
		var buf bytes.Buffer
		require.NoError(t, metadata.Write(&buf, c))
		require.NoError(t, os.WriteFile(m, buf.Bytes(), 0o644))
		listing.Components = append(listing.Components, bundle.Component{Name: c.Name, Metadata: m, Layer: LayerPath(dir, c.Name)})
	}
	data, err := json.Marshal(listing)
	require.NoError(t, err)
	path := filepath.Join(dir, "bundle.json")
	require.NoError(t, os.WriteFile(path, data, 0o644))
	return path
}

// Open makes a payload of Components and opens it.
func Open(t testing.TB, dir string) *bundle.Bundle {
	t.Helper()
	b, err := bundle.Open(Write(t, dir, Spec(Components(t, dir)...)))
	require.NoError(t, err)
	return b
}

func hexOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
