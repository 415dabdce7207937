// Package resolve finds the agent in a registry and says how to pin it.
package resolve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/kiln-build/kiln/stack/agent/agentlayer"
	"github.com/kiln-build/kiln/stack/agent/importlock"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// Options are what a registry cannot tell.
type Options struct {
	// Version overrides the reference's tag.
	Version string
	// License is used when the image does not state one.
	License string
}

// ErrNoAgent means that an image has no agent in it.
var ErrNoAgent = errors.New("no layer holds " + importlock.AgentPath)

const (
	licenseAnnotation = "org.opencontainers.image.licenses"
	versionAnnotation = "org.opencontainers.image.version"
)

// Resolve reads the image that a reference names and gives the lock that pins
// the agent in it.
func Resolve(ctx context.Context, reference string, options Options) (*importlock.Lock, error) {
	ref, err := name.ParseReference(reference)
	if err != nil {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("reading the reference: %w", err))
	}
	fail := func(code int, err error) (*importlock.Lock, error) {
		return nil, exitcode.With(code, fmt.Errorf("pinning the agent of %s: %w", ref, err))
	}
	img, err := remote.Image(ref,
		remote.WithContext(ctx),
		remote.WithAuthFromKeychain(authn.DefaultKeychain),
		remote.WithPlatform(v1.Platform{OS: "linux", Architecture: "amd64"}))
	if err != nil {
		return fail(exitcode.Unreachable, err)
	}
	digest, err := img.Digest()
	if err != nil {
		return fail(exitcode.Unverified, err)
	}
	manifest, err := img.Manifest()
	if err != nil {
		return fail(exitcode.Unverified, err)
	}
	layer, err := findAgent(img)
	if err != nil {
		return fail(codeOf(err), err)
	}
	token, err := anonymousToken(ctx, ref.Context().Registry)
	if err != nil {
		return fail(exitcode.Unreachable, err)
	}
	version := options.Version
	if version == "" {
		version = manifest.Annotations[versionAnnotation]
	}
	if version == "" {
		version = ref.Identifier()
	}
	license := manifest.Annotations[licenseAnnotation]
	if license == "" {
		license = options.License
	}
	return &importlock.Lock{
		SchemaVersion: importlock.SchemaVersion,
		Registry:      ref.Context().RegistryStr(),
		Repository:    ref.Context().RepositoryStr(),
		Digest:        digest.String(),
		Version:       version,
		License:       license,
		Layer:         *layer,
		Token:         token,
	}, nil
}

// codeOf tells a registry that fails from one that gives the wrong bytes or an
// image without an agent.
func codeOf(err error) int {
	var answer *transport.Error
	var network net.Error
	if errors.As(err, &answer) || errors.As(err, &network) || errors.Is(err, io.ErrUnexpectedEOF) {
		return exitcode.Unreachable
	}
	return exitcode.Unverified
}

func findAgent(img v1.Image) (*importlock.Layer, error) {
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	for _, layer := range layers {
		found, err := search(layer)
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
	return nil, ErrNoAgent
}

// search looks for the agent in one layer. A layer may be anything: upstream's
// artefacts carry version files beside the archive. Only an error of the
// transfer is an error here.
func search(layer v1.Layer) (*importlock.Layer, error) {
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
	_, kind, findErr := agentlayer.Find(transfer, importlock.AgentPath)
	// The digest is verified at the end of the blob only.
	_, _ = io.Copy(io.Discard, transfer)
	if transfer.err != nil {
		return nil, fmt.Errorf("reading layer %s: %w", digest, transfer.err)
	}
	if findErr != nil {
		return nil, nil
	}
	return &importlock.Layer{Type: kind, Path: importlock.AgentPath}, nil
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
// no account, so that the pinned agent can be fetched without this program.
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
