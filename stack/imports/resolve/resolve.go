// Package resolve finds artefacts of upstream's in a registry and says how to
// pin them.
package resolve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/kiln-build/kiln/stack/imports/archive"
	"github.com/kiln-build/kiln/stack/imports/importlock"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// Row is an import that can be pinned: a row of the table of imports.
type Row struct {
	Component string `json:"component"`
	// Arch is Go's name of the architecture.
	Arch string `json:"arch"`
	// Repository is where the artefact is, without the registry.
	Repository string `json:"repository"`
	// Tag is what upstream calls the artefact; empty where it has to be given.
	Tag string `json:"tag"`
	// Path is of a file that the archive among the artefact's layers has.
	Path string `json:"path"`
	// License is an SPDX expression, for an artefact that states none.
	License string `json:"license"`
	// Source is the URI of the repository that provenance must name.
	Source string `json:"source"`
}

// A Verifier says whether a statement of provenance is to be believed.
type Verifier interface {
	// Verify checks that bundle, a Sigstore bundle as JSON, is a statement of how
	// what has the digest was built, made by a workflow of the source's own.
	Verify(ctx context.Context, bundle []byte, digest v1.Hash, source string) (*importlock.Provenance, error)
}

// Resolver resolves rows in one registry.
type Resolver struct {
	Registry string
	Verifier Verifier
}

const (
	licenseAnnotation = "org.opencontainers.image.licenses"
	versionAnnotation = "org.opencontainers.image.version"
	// bundleType begins the artifact types of Sigstore bundles, which attestations
	// in registries are.
	bundleType = "application/vnd.dev.sigstore.bundle"
)

// Resolve reads the artefact that a row names and gives what pins it. Where the
// registry has provenance of it, that is verified: what does not hold is an
// error.
func (r *Resolver) Resolve(ctx context.Context, row Row) (*importlock.Import, error) {
	ref, err := name.ParseReference(r.Registry + "/" + row.Repository + ":" + row.Tag)
	if err != nil {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("reading the reference: %w", err))
	}
	fail := func(err error) (*importlock.Import, error) {
		return nil, exitcode.With(codeOf(err), fmt.Errorf("resolving %s: %w", ref, err))
	}
	options := []remote.Option{
		remote.WithContext(ctx),
		remote.WithAuthFromKeychain(authn.DefaultKeychain),
		remote.WithPlatform(v1.Platform{OS: "linux", Architecture: row.Arch}),
	}
	named, err := remote.Get(ref, options...)
	if err != nil {
		return fail(err)
	}
	img, err := named.Image()
	if err != nil {
		return fail(err)
	}
	digest, err := img.Digest()
	if err != nil {
		return fail(err)
	}
	manifest, err := img.Manifest()
	if err != nil {
		return fail(err)
	}
	// Who builds for several architectures may attest the index of all.
	var provenance *importlock.Provenance
	for _, subject := range slices.Compact([]v1.Hash{digest, named.Digest}) {
		if provenance != nil {
			break
		}
		if provenance, err = r.provenance(ctx, ref.Context().Digest(subject.String()), subject, row.Source, options); err != nil {
			return fail(fmt.Errorf("its provenance: %w", err))
		}
	}
	layer, err := findArchive(img, row.Path)
	if err != nil {
		return fail(err)
	}
	token, err := anonymousToken(ctx, ref.Context().Registry)
	if err != nil {
		return fail(err)
	}
	return &importlock.Import{
		Component:  row.Component,
		Arch:       row.Arch,
		Registry:   ref.Context().RegistryStr(),
		Repository: ref.Context().RepositoryStr(),
		Tag:        row.Tag,
		Digest:     digest.String(),
		Version:    cmp.Or(manifest.Annotations[versionAnnotation], row.Tag),
		License:    cmp.Or(manifest.Annotations[licenseAnnotation], row.License),
		Layer:      *layer,
		Token:      token,
		Provenance: provenance,
	}, nil
}

// codeOf tells a registry that fails from one that gives the wrong bytes or
// another artefact.
func codeOf(err error) int {
	var answer *transport.Error
	var network net.Error
	if errors.As(err, &answer) || errors.As(err, &network) || errors.Is(err, io.ErrUnexpectedEOF) {
		return exitcode.Unreachable
	}
	return exitcode.Unverified
}

// provenance verifies what the registry has of it; nil if it has none. Of several
// statements one must hold: others may be of other builders.
func (r *Resolver) provenance(ctx context.Context, ref name.Digest, digest v1.Hash, source string, options []remote.Option) (*importlock.Provenance, error) {
	index, err := remote.Referrers(ref, options...)
	if err != nil {
		return nil, fmt.Errorf("listing the statements about it: %w", err)
	}
	referrers, err := index.IndexManifest()
	if err != nil {
		return nil, fmt.Errorf("listing the statements about it: %w", err)
	}
	var errs []error
	for _, d := range referrers.Manifests {
		if !strings.HasPrefix(d.ArtifactType, bundleType) {
			continue
		}
		bundle, err := readBundle(ref.Context().Digest(d.Digest.String()), options)
		if err != nil {
			return nil, err
		}
		provenance, err := r.Verifier.Verify(ctx, bundle, digest, source)
		if err == nil {
			return provenance, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", d.Digest, err))
	}
	return nil, errors.Join(errs...)
}

// maxBundle is more than any statement has, in bytes.
const maxBundle = 4 << 20

func readBundle(ref name.Digest, options []remote.Option) ([]byte, error) {
	fail := func(err error) ([]byte, error) { return nil, fmt.Errorf("reading the statement %s: %w", ref, err) }
	img, err := remote.Image(ref, options...)
	if err != nil {
		return fail(err)
	}
	layers, err := img.Layers()
	if err != nil {
		return fail(err)
	}
	if len(layers) != 1 {
		return fail(fmt.Errorf("it has %d layers, not one", len(layers)))
	}
	blob, err := layers[0].Compressed()
	if err != nil {
		return fail(err)
	}
	defer func() { _ = blob.Close() }()
	bundle, err := io.ReadAll(io.LimitReader(blob, maxBundle+1))
	if err != nil {
		return fail(err)
	}
	if len(bundle) > maxBundle {
		return fail(fmt.Errorf("it is larger than %d bytes", maxBundle))
	}
	return bundle, nil
}

func findArchive(img v1.Image, path string) (*importlock.Layer, error) {
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	for _, layer := range layers {
		found, err := search(layer, path)
		if err != nil {
			return nil, err
		}
		if found == nil {
			continue
		}
		digest, err := layer.Digest()
		if err != nil {
			return nil, err
		}
		if found.Size, err = layer.Size(); err != nil {
			return nil, err
		}
		found.Digest = digest.String()
		return found, nil
	}
	return nil, fmt.Errorf("no layer has %s", path)
}

// search looks for a path in one layer. A layer may be anything: upstream's
// artefacts carry version files beside the archive. Only an error of the
// transfer is an error here.
func search(layer v1.Layer, path string) (*importlock.Layer, error) {
	digest, err := layer.Digest()
	if err != nil {
		return nil, err
	}
	blob, err := layer.Compressed()
	if err != nil {
		return nil, fmt.Errorf("reading layer %s: %w", digest, err)
	}
	defer func() { _ = blob.Close() }()
	transfer := &errorKeeper{r: blob}
	kind, findErr := archive.Kind(transfer, path)
	// The digest is verified at the end of the blob only.
	_, _ = io.Copy(io.Discard, transfer)
	if transfer.err != nil {
		return nil, fmt.Errorf("reading layer %s: %w", digest, transfer.err)
	}
	if findErr != nil {
		return nil, nil
	}
	return &importlock.Layer{Type: kind}, nil
}

// errorKeeper tells errors of the transfer from those of what is transferred.
type errorKeeper struct {
	r   io.Reader
	err error
}

// Read implements io.Reader.
func (k *errorKeeper) Read(p []byte) (int, error) {
	n, err := k.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		k.err = err
	}
	return n, err
}

// anonymousToken finds out where a registry hands out tokens to those who have
// no account, so that what is pinned can be fetched without this program.
func anonymousToken(ctx context.Context, registry name.Registry) (*importlock.Token, error) {
	challenge, err := transport.Ping(ctx, registry, http.DefaultTransport)
	if err != nil {
		return nil, err
	}
	if !strings.EqualFold(challenge.Scheme, "bearer") {
		return nil, nil
	}
	return &importlock.Token{Realm: challenge.Parameters["realm"], Service: challenge.Parameters["service"]}, nil
}
