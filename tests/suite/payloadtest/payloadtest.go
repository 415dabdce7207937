// Package payloadtest gives suites the payload that they test: not files of
// the build, but what was published, pulled by the receipt's digest.
package payloadtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/kiln-build/kiln/payload/bundle"
	"github.com/kiln-build/kiln/payload/image"
	"github.com/kiln-build/kiln/payload/publish"
	"github.com/kiln-build/kiln/payload/receipt"
	"github.com/kiln-build/kiln/payload/registry"
	"github.com/kiln-build/kiln/tools/component/metadata"
	"github.com/kiln-build/kiln/tools/exitcode"
	"github.com/kiln-build/kiln/tools/layer"
)

// BundleVariable names the payload's bundle.json, a runfile.
const BundleVariable = "KILN_PAYLOAD_BUNDLE"

// Payload is a payload as it was pulled.
type Payload struct {
	Receipt *receipt.Receipt
	// Components say what the build meant to ship, in the order of layers.
	Components []*metadata.Component
	Index      *v1.IndexManifest
	Manifest   *v1.Manifest
	Config     *v1.ConfigFile
	// Layers as pulled, in order. Reading one verifies it.
	Layers []v1.Layer
	// Root is the image's root directory, unpacked.
	Root string
	// Dir is what becomes /opt/kata on a node.
	Dir string
}

// Pull publishes the payload of the test to a registry of the test's own, or
// takes it from the registry that the receipt names, pulls it by digest and
// unpacks it. All of it goes away with the test.
func Pull(t testing.TB) *Payload {
	t.Helper()
	path := os.Getenv(BundleVariable)
	require.NotEmpty(t, path, "%s does not name a payload's bundle: run this by Bazel, see tests/def.bzl", BundleVariable)
	b, err := bundle.Open(path)
	require.NoError(t, err)
	ctx := t.Context()
	host := b.Receipt.Registry
	if host == receipt.Embedded {
		host = Publish(t, b)
	}
	p, err := PullFrom(ctx, b, host, t.TempDir())
	require.NoError(t, err)
	return p
}

// Publish starts an embedded registry for the test, publishes b to it as a
// user would, and gives the registry's address.
func Publish(t testing.TB, b *bundle.Bundle) string {
	t.Helper()
	r, err := registry.Open(t.TempDir())
	require.NoError(t, err)
	s, err := registry.Serve(r, "127.0.0.1:0")
	if err != nil {
		require.NoError(t, errors.Join(err, r.Close()))
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		require.NoError(t, s.Close(ctx))
	})
	repo, err := b.Receipt.RepositoryAt(s.Address())
	require.NoError(t, err)
	_, err = publish.Publish(t.Context(), b, publish.Options{Repository: repo})
	require.NoError(t, err)
	return s.Address()
}

// PullFrom pulls what b's receipt names from the registry at host and unpacks
// it into dir. Of b it takes nothing but the receipt and the metadata.
func PullFrom(ctx context.Context, b *bundle.Bundle, host, dir string) (*Payload, error) {
	repo, err := b.Receipt.RepositoryAt(host)
	if err != nil {
		return nil, err
	}
	ref := repo.Digest(b.Receipt.Digest)
	idx, err := remote.Index(ref,
		remote.WithContext(ctx),
		remote.WithTransport(publish.NewTransport(publish.DefaultIdle)),
		remote.WithAuthFromKeychain(authn.DefaultKeychain),
	)
	var te *transport.Error
	if errors.As(err, &te) && te.StatusCode == http.StatusNotFound {
		return nil, exitcode.With(exitcode.Unverified, fmt.Errorf("%s is not published: publish it with `bazel run --//payload:registry=%s //payload:%s.publish`", ref, b.Receipt.Registry, b.Receipt.Platform))
	} else if err != nil {
		return nil, exitcode.With(exitcode.Unreachable, fmt.Errorf("pulling %s: %w", ref, err))
	}
	p := &Payload{
		Receipt:    b.Receipt,
		Components: b.Components,
		Root:       dir,
		Dir:        filepath.Join(dir, image.ArtifactRoot, "opt", "kata"),
	}
	if p.Index, err = idx.IndexManifest(); err != nil {
		return nil, fmt.Errorf("reading the index: %w", err)
	}
	h, err := v1.NewHash(b.Receipt.Manifests[0].Digest)
	if err != nil {
		return nil, fmt.Errorf("reading the receipt: %w", err)
	}
	img, err := idx.Image(h)
	if err != nil {
		return nil, fmt.Errorf("pulling manifest %s: %w", h, err)
	}
	if p.Manifest, err = img.Manifest(); err != nil {
		return nil, fmt.Errorf("reading the manifest: %w", err)
	}
	if p.Config, err = img.ConfigFile(); err != nil {
		return nil, fmt.Errorf("reading the config: %w", err)
	}
	if p.Layers, err = img.Layers(); err != nil {
		return nil, fmt.Errorf("reading the layers: %w", err)
	}
	if len(p.Config.RootFS.DiffIDs) != len(p.Layers) {
		return nil, exitcode.With(exitcode.Unverified, fmt.Errorf("the config has %d diff IDs for %d layers", len(p.Config.RootFS.DiffIDs), len(p.Layers)))
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2)
	for i, l := range p.Layers {
		g.Go(func() error {
			if err := unpack(ctx, l, p.Config.RootFS.DiffIDs[i], dir); err != nil {
				return fmt.Errorf("unpacking layer %d, component %s: %w", i, b.Receipt.Components[i].Name, err)
			}
			return nil
		})
	}
	return p, g.Wait()
}

// unpack pulls a layer into dir and verifies both of its digests: that of
// what was transferred, which the library checks, and that of the tar.
func unpack(ctx context.Context, l v1.Layer, diffID v1.Hash, dir string) error {
	packed, err := l.Compressed()
	if err != nil {
		return err
	}
	defer packed.Close()
	plain, err := zstd.NewReader(packed, zstd.WithDecoderMaxWindow(128<<20))
	if err != nil {
		return fmt.Errorf("decompressing: %w", err)
	}
	defer plain.Close()
	sum := sha256.New()
	tar := io.TeeReader(plain, sum)
	if err := layer.Extract(ctx, tar, dir); err != nil {
		return err
	}
	// A tar may end before the stream does.
	if _, err := io.Copy(io.Discard, tar); err != nil {
		return fmt.Errorf("decompressing: %w", err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != diffID.Hex {
		return exitcode.With(exitcode.Unverified, fmt.Errorf("the tar has sha256:%s, the config says %s", got, diffID))
	}
	return nil
}
