// Package bundle opens a payload that lies in files: the documents that were
// built, and each component's layer where the build left it. Layers are read
// only when something needs their bytes.
package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"github.com/bazelbuild/rules_go/go/runfiles"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kiln-build/kiln/payload/receipt"
	"github.com/kiln-build/kiln/tools/component/metadata"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// Listing is the document, bundle.json, that says where a payload's files
// are. Paths are runfiles' or absolute.
type Listing struct {
	Index      string      `json:"index"`
	Manifest   string      `json:"manifest"`
	Config     string      `json:"config"`
	Receipt    string      `json:"receipt"`
	Components []Component `json:"components"`
}

// Component is where one component's files are.
type Component struct {
	Name     string `json:"name"`
	Metadata string `json:"metadata"`
	Layer    string `json:"layer"`
}

// Bundle is a payload whose documents are read and agree with each other.
type Bundle struct {
	Receipt *receipt.Receipt
	// Labels are the image's.
	Labels map[string]string
	// Components in the order of their layers.
	Components []*metadata.Component

	index, manifest, config []byte
	layers                  map[v1.Hash]*layer
	order                   []v1.Hash
}

// Open opens the bundle whose bundle.json is at path, which is absolute or
// names a runfile.
func Open(path string) (*Bundle, error) {
	listing, err := find(path)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(listing)
	if err != nil {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("opening the payload's bundle: %w", err))
	}
	var l Listing
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&l); err != nil {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("reading %s: %w", listing, err))
	}
	b := &Bundle{layers: map[v1.Hash]*layer{}}
	for _, doc := range []struct {
		name string
		path string
		to   *[]byte
	}{
		{"index", l.Index, &b.index},
		{"manifest", l.Manifest, &b.manifest},
		{"config", l.Config, &b.config},
	} {
		p, err := find(doc.path)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", listing, doc.name, err)
		}
		if *doc.to, err = os.ReadFile(p); err != nil {
			return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("reading the payload's %s: %w", doc.name, err))
		}
	}
	p, err := find(l.Receipt)
	if err != nil {
		return nil, fmt.Errorf("%s: receipt: %w", listing, err)
	}
	if b.Receipt, err = receipt.ReadFile(p); err != nil {
		return nil, fmt.Errorf("reading the payload's receipt: %w", err)
	}
	if err := b.readComponents(l.Components); err != nil {
		return nil, err
	}
	if err := b.agree(); err != nil {
		return nil, exitcode.With(exitcode.Unverified, fmt.Errorf("%s: %w", listing, err))
	}
	return b, nil
}

func find(path string) (string, error) {
	if filepath.IsAbs(path) {
		return path, nil
	}
	found, err := runfiles.Rlocation(path)
	if err != nil {
		return "", exitcode.With(exitcode.LocalIO, fmt.Errorf("finding runfile %q (is this run by Bazel?): %w", path, err))
	}
	return found, nil
}

func (b *Bundle) readComponents(components []Component) error {
	for _, c := range components {
		p, err := find(c.Metadata)
		if err != nil {
			return fmt.Errorf("component %s: %w", c.Name, err)
		}
		m, err := metadata.ReadFile(p)
		if err != nil {
			return fmt.Errorf("component %s: %w", c.Name, err)
		}
		if m.Name != c.Name {
			return exitcode.With(exitcode.Unverified, fmt.Errorf("component %s: %s describes %s", c.Name, p, m.Name))
		}
		h, err := v1.NewHash(m.Layer.Digest)
		if err != nil {
			return exitcode.With(exitcode.BadInput, fmt.Errorf("component %s: %w", c.Name, err))
		}
		b.Components = append(b.Components, m)
		b.layers[h] = &layer{component: m.Name, listed: c.Layer, digest: h, size: m.Layer.Size, mediaType: types.MediaType(m.Layer.MediaType)}
		b.order = append(b.order, h)
	}
	return nil
}

// agree checks that every document names the ones below it.
func (b *Bundle) agree() error {
	if got := digestOf(b.index).String(); got != b.Receipt.Digest {
		return fmt.Errorf("the receipt is for %s, the index is %s", b.Receipt.Digest, got)
	}
	index, err := v1.ParseIndexManifest(bytes.NewReader(b.index))
	if err != nil {
		return fmt.Errorf("reading the index: %w", err)
	}
	if len(index.Manifests) != 1 || len(b.Receipt.Manifests) != 1 {
		return fmt.Errorf("the index has %d manifests and the receipt %d, want one each", len(index.Manifests), len(b.Receipt.Manifests))
	}
	if got := digestOf(b.manifest); got != index.Manifests[0].Digest || got.String() != b.Receipt.Manifests[0].Digest {
		return fmt.Errorf("the manifest is %s, the index names %s and the receipt %s", got, index.Manifests[0].Digest, b.Receipt.Manifests[0].Digest)
	}
	manifest, err := v1.ParseManifest(bytes.NewReader(b.manifest))
	if err != nil {
		return fmt.Errorf("reading the manifest: %w", err)
	}
	if got := digestOf(b.config); got != manifest.Config.Digest {
		return fmt.Errorf("the config is %s, the manifest names %s", got, manifest.Config.Digest)
	}
	config, err := v1.ParseConfigFile(bytes.NewReader(b.config))
	if err != nil {
		return fmt.Errorf("reading the config: %w", err)
	}
	b.Labels = config.Config.Labels
	if len(manifest.Layers) != len(b.Components) || len(b.Receipt.Components) != len(b.Components) || len(config.RootFS.DiffIDs) != len(b.Components) {
		return fmt.Errorf("there are %d components, but %d layers, %d diff IDs and %d components in the receipt",
			len(b.Components), len(manifest.Layers), len(config.RootFS.DiffIDs), len(b.Receipt.Components))
	}
	for i, c := range b.Components {
		l, rc := manifest.Layers[i], b.Receipt.Components[i]
		if l.Digest.String() != c.Layer.Digest || l.Size != c.Layer.Size || config.RootFS.DiffIDs[i].String() != c.Layer.DiffID {
			return fmt.Errorf("layer %d of the manifest is not that of component %s", i, c.Name)
		}
		if want := (receipt.Component{Name: c.Name, Version: c.Version, Digest: c.Layer.Digest, Size: c.Layer.Size}); rc != want {
			return fmt.Errorf("component %d of the receipt is %+v, the payload has %+v", i, rc, want)
		}
	}
	return nil
}

// LayerPath is the file of a component's layer.
func (b *Bundle) LayerPath(c *metadata.Component) (string, error) {
	h, err := v1.NewHash(c.Layer.Digest)
	if err != nil {
		return "", fmt.Errorf("component %s: %w", c.Name, err)
	}
	l, ok := b.layers[h]
	if !ok {
		return "", fmt.Errorf("component %s is not in the bundle", c.Name)
	}
	return l.find()
}

// Index is the payload as go-containerregistry sees it.
func (b *Bundle) Index() v1.ImageIndex { return index{b} }

// Image is the payload's one image.
func (b *Bundle) Image() (v1.Image, error) {
	return partial.CompressedToImage(image{b})
}

func digestOf(data []byte) v1.Hash {
	sum := sha256.Sum256(data)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}

type index struct{ b *Bundle }

func (i index) MediaType() (types.MediaType, error) { return types.OCIImageIndex, nil }
func (i index) Digest() (v1.Hash, error)            { return digestOf(i.b.index), nil }
func (i index) Size() (int64, error)                { return int64(len(i.b.index)), nil }
func (i index) RawManifest() ([]byte, error)        { return bytes.Clone(i.b.index), nil }

func (i index) IndexManifest() (*v1.IndexManifest, error) {
	return v1.ParseIndexManifest(bytes.NewReader(i.b.index))
}

func (i index) Image(h v1.Hash) (v1.Image, error) {
	if h != digestOf(i.b.manifest) {
		return nil, fmt.Errorf("the payload has no manifest %s", h)
	}
	return i.b.Image()
}

func (i index) ImageIndex(h v1.Hash) (v1.ImageIndex, error) {
	return nil, fmt.Errorf("the payload has no index %s within its index", h)
}

type image struct{ b *Bundle }

func (i image) RawConfigFile() ([]byte, error)      { return bytes.Clone(i.b.config), nil }
func (i image) RawManifest() ([]byte, error)        { return bytes.Clone(i.b.manifest), nil }
func (i image) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

func (i image) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	if h == digestOf(i.b.config) {
		return partial.CompressedLayer(configLayer{i.b.config}), nil
	}
	l, ok := i.b.layers[h]
	if !ok {
		return nil, fmt.Errorf("the payload has no layer %s", h)
	}
	return l, nil
}

// configLayer is the config, which registries store like a layer.
type configLayer struct{ data []byte }

func (c configLayer) Digest() (v1.Hash, error)            { return digestOf(c.data), nil }
func (c configLayer) Size() (int64, error)                { return int64(len(c.data)), nil }
func (c configLayer) MediaType() (types.MediaType, error) { return types.OCIConfigJSON, nil }
func (c configLayer) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(c.data)), nil
}

// layer is a component's layer in a file.
type layer struct {
	component string
	// listed is where the bundle says that the file is. Whoever needs no
	// layer need not have any, so nobody looks for it before it is read.
	listed    string
	digest    v1.Hash
	size      int64
	mediaType types.MediaType
}

func (l *layer) Digest() (v1.Hash, error)            { return l.digest, nil }
func (l *layer) Size() (int64, error)                { return l.size, nil }
func (l *layer) MediaType() (types.MediaType, error) { return l.mediaType, nil }

func (l *layer) find() (string, error) {
	path, err := find(l.listed)
	if err != nil {
		return "", fmt.Errorf("component %s: %w", l.component, err)
	}
	return path, nil
}

// ErrStale says that a layer's file is not what its metadata describes.
var ErrStale = errors.New("the layer's file is not the one that the component's metadata describes")

// Compressed reads the layer's file and fails, before the last byte is
// handed out, when the content is not what the metadata promised.
func (l *layer) Compressed() (io.ReadCloser, error) {
	path, err := l.find()
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("component %s: opening its layer: %w", l.component, err))
	}
	info, err := f.Stat()
	if err != nil {
		return nil, exitcode.With(exitcode.LocalIO, errors.Join(fmt.Errorf("component %s: looking at its layer: %w", l.component, err), f.Close()))
	}
	if info.Size() != l.size {
		return nil, errors.Join(l.stale(fmt.Sprintf("it has %d bytes, not %d", info.Size(), l.size)), f.Close())
	}
	return &verified{layer: l, f: f, sum: sha256.New(), left: l.size}, nil
}

func (l *layer) stale(how string) error {
	return exitcode.With(exitcode.Unverified, fmt.Errorf("component %s: %w: %s: %s; build it again", l.component, ErrStale, l.listed, how))
}

// verified is a layer's file being read. It holds the last byte back until
// the digest is known to be right, so that a wrong layer is never complete
// anywhere.
type verified struct {
	layer *layer
	f     *os.File
	sum   hash.Hash
	left  int64
}

func (v *verified) Read(p []byte) (int, error) {
	if v.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > v.left {
		p = p[:v.left]
	}
	n, err := v.f.Read(p)
	v.sum.Write(p[:n])
	v.left -= int64(n)
	if v.left == 0 && n > 0 {
		if got := hex.EncodeToString(v.sum.Sum(nil)); got != v.layer.digest.Hex {
			return n - 1, v.layer.stale(fmt.Sprintf("it has sha256:%s, not %s", got, v.layer.digest))
		}
		return n, nil
	}
	if errors.Is(err, io.EOF) {
		return n, v.layer.stale(fmt.Sprintf("it ended %d bytes early", v.left))
	}
	if err != nil {
		return n, exitcode.With(exitcode.LocalIO, fmt.Errorf("component %s: reading its layer: %w", v.layer.component, err))
	}
	return n, nil
}

func (v *verified) Close() error { return v.f.Close() }
