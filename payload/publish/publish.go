// Package publish puts a payload into a registry so that it is either there
// with all that it names, or not there under any name: blobs that the
// registry lacks, then the manifest and the index by digest, then a tag if
// one was asked for. Publishing again uploads nothing, and a broken
// publication goes on where it stopped.
package publish

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"

	"github.com/kiln-build/kiln/payload/bundle"
	"github.com/kiln-build/kiln/payload/receipt"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// DefaultIdle is how long a registry may be silent.
const DefaultIdle = time.Minute

// DefaultJobs is how many blobs are on their way at the same time.
const DefaultJobs = 4

// Options say where a payload goes and how.
type Options struct {
	// Repository in the registry; see receipt.RepositoryAt.
	Repository name.Repository
	// Tag is moved to the payload when all of it is there. Empty: none.
	Tag string
	// Transport defaults to NewTransport(DefaultIdle).
	Transport http.RoundTripper
	// Backoff between attempts; the zero value takes a default.
	Backoff remote.Backoff
	// Jobs defaults to DefaultJobs.
	Jobs int
	// Progress hears what happens while it happens. It may be nil and is
	// never called by two goroutines at once.
	Progress func(Event)
}

// Event is a step of a blob's way into the registry.
type Event struct {
	// Component is the component's name, or "config".
	Component string
	// Sent of Size bytes are on their way. A blob that the registry had
	// before has Reused set and nothing sent.
	Sent, Size int64
	Reused     bool
	Done       bool
}

// Result is what publishing did.
type Result struct {
	Components []Component `json:"components"`
	// UploadedBlobs and UploadedBytes count layers and the config.
	UploadedBlobs int   `json:"uploadedBlobs"`
	UploadedBytes int64 `json:"uploadedBytes"`
	// UploadedManifests counts the manifest and the index, without tags.
	UploadedManifests int `json:"uploadedManifests"`
}

// Component is what happened to one component's layer.
type Component struct {
	Name     string `json:"name"`
	Uploaded bool   `json:"uploaded"`
}

// Nothing tells whether all was there before.
func (r *Result) Nothing() bool { return r.UploadedBlobs == 0 && r.UploadedManifests == 0 }

// Channel is the kind of place that a payload is published for.
type Channel string

// The channels. Development takes everything; release refuses what nobody
// should run in production or could build again.
const (
	Development Channel = "development"
	Release     Channel = "release"
)

// unreleasable is what versions say of components that are not for production:
// a part of the version, and why it is refused.
var unreleasable = []struct{ part, reason string }{
	// //stack/kernel:profile.
	{"-tiny", "is for trying out what a change builds again and does not boot: build with --//stack/kernel:profile=full"},
	// //stack/bootimage:host_key_document.
	{"-testkey", "is for a host key that everybody has and no machine, so that none can start it: build with --//stack/bootimage:host_key_document=LABEL of the machines' documents"},
	// //stack/bootimage:verify.
	{"-unverified", "is for machines that nobody vouches for, whose owners can look into its guests: build with --//stack/bootimage:verify and --//stack/bootimage:host_key_certificates=LABEL"},
}

// CheckChannel refuses a payload that must not be published to a channel.
func CheckChannel(c Channel, r *receipt.Receipt) error {
	var errs []error
	switch c {
	case Development:
	case Release:
		if r.Agent == receipt.AgentBringup {
			errs = append(errs, fmt.Errorf("its guest image carries the %s agent, which runs no containers: build with --//stack/agent:agent=//stack/agent:import", r.Agent))
		}
		if r.Inputs != receipt.InputsPinned {
			errs = append(errs, fmt.Errorf("its inputs were %s on this machine, so nobody could build it again: commit a renewed lock, or build where the pinned packages are served", r.Inputs))
		}
		for _, component := range r.Components {
			for _, u := range unreleasable {
				// There may be several, in any order.
				if strings.Contains(component.Version+"-", u.part+"-") {
					errs = append(errs, fmt.Errorf("component %s %s %s", component.Name, component.Version, u.reason))
				}
			}
		}
	default:
		errs = append(errs, fmt.Errorf("channel %q is unknown: give %q or %q", c, Development, Release))
	}
	if err := errors.Join(errs...); err != nil {
		return exitcode.With(exitcode.BadInput, fmt.Errorf("payload %s may not be published to channel %s: %w", r.Platform, c, err))
	}
	return nil
}

// Publish puts the payload into the registry.
func Publish(ctx context.Context, b *bundle.Bundle, o Options) (*Result, error) {
	res, err := newPublisher(b, o).publish(ctx)
	if err != nil {
		return nil, explain(o.Repository, err)
	}
	return res, nil
}

// Index puts an index of images that are published already into the registry, and
// tells whether it was new there.
func Index(ctx context.Context, index []byte, o Options) (uploaded bool, err error) {
	p := newPublisher(nil, o)
	pusher, err := remote.NewPusher(p.remote...)
	if err != nil {
		return false, fmt.Errorf("preparing to push: %w", err)
	}
	if uploaded, err = p.manifest(ctx, pusher, document(index)); err == nil {
		err = p.tag(ctx, pusher, document(index))
	}
	if err != nil {
		return false, explain(o.Repository, err)
	}
	return uploaded, nil
}

// document is an index of which nobody need look for what it names.
type document []byte

func (d document) RawManifest() ([]byte, error)        { return d, nil }
func (d document) MediaType() (types.MediaType, error) { return types.OCIImageIndex, nil }

func newPublisher(b *bundle.Bundle, o Options) *publisher {
	p := &publisher{Options: o, bundle: b}
	if p.Transport == nil {
		p.Transport = NewTransport(DefaultIdle)
	}
	if p.Jobs == 0 {
		p.Jobs = DefaultJobs
	}
	if p.Backoff.Steps == 0 {
		p.Backoff = remote.Backoff{Duration: 500 * time.Millisecond, Factor: 2, Jitter: 0.1, Steps: 5}
	}
	if p.Progress == nil {
		p.Progress = func(Event) {}
	}
	p.remote = []remote.Option{
		remote.WithTransport(p.Transport),
		remote.WithAuthFromKeychain(authn.DefaultKeychain),
		remote.WithRetryBackoff(p.Backoff),
		remote.WithRetryPredicate(transient),
		remote.WithUserAgent("kiln"),
		remote.WithJobs(p.Jobs),
	}
	return p
}

type publisher struct {
	Options
	bundle *bundle.Bundle
	remote []remote.Option

	mu sync.Mutex
}

func (p *publisher) options(ctx context.Context) []remote.Option {
	return append([]remote.Option{remote.WithContext(ctx)}, p.remote...)
}

func (p *publisher) tell(e Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Progress(e)
}

func (p *publisher) publish(ctx context.Context) (*Result, error) {
	img, err := p.bundle.Image()
	if err != nil {
		return nil, fmt.Errorf("opening the payload: %w", err)
	}
	layers, err := img.Layers()
	if err != nil {
		return nil, fmt.Errorf("opening the payload's layers: %w", err)
	}
	config, err := partial.ConfigLayer(img)
	if err != nil {
		return nil, fmt.Errorf("opening the payload's config: %w", err)
	}
	pusher, err := remote.NewPusher(p.remote...)
	if err != nil {
		return nil, fmt.Errorf("preparing to push: %w", err)
	}

	res := &Result{Components: make([]Component, len(layers))}
	count := func(uploaded bool, size int64) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if uploaded {
			res.UploadedBlobs++
			res.UploadedBytes += size
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(p.Jobs)
	for i, c := range p.bundle.Components {
		g.Go(func() error {
			uploaded, err := p.blob(gctx, pusher, c.Name, layers[i], c.Layer.Size)
			if err != nil {
				return fmt.Errorf("component %s (%s): %w", c.Name, c.Layer.Digest, err)
			}
			res.Components[i] = Component{Name: c.Name, Uploaded: uploaded}
			count(uploaded, c.Layer.Size)
			return nil
		})
	}
	g.Go(func() error {
		size, err := config.Size()
		if err != nil {
			return fmt.Errorf("config: %w", err)
		}
		uploaded, err := p.blob(gctx, pusher, "config", config, size)
		if err != nil {
			return fmt.Errorf("config: %w", err)
		}
		count(uploaded, size)
		return nil
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}

	// All blobs are there. Each of these makes the one before it findable.
	index := p.bundle.Index()
	manifests := []remote.Taggable{img, index}
	for _, m := range manifests {
		uploaded, err := p.manifest(ctx, pusher, m)
		if err != nil {
			return nil, err
		}
		if uploaded {
			res.UploadedManifests++
		}
	}
	return res, p.tag(ctx, pusher, index)
}

// tag moves the tag, if one was asked for.
func (p *publisher) tag(ctx context.Context, pusher *remote.Pusher, index remote.Taggable) error {
	if p.Tag == "" {
		return nil
	}
	if err := pusher.Put(ctx, p.Repository.Tag(p.Tag), index); err != nil {
		return fmt.Errorf("moving tag %s: %w", p.Tag, err)
	}
	return nil
}

// blob uploads a layer unless the registry has it.
func (p *publisher) blob(ctx context.Context, pusher *remote.Pusher, component string, l v1.Layer, size int64) (uploaded bool, err error) {
	h, err := l.Digest()
	if err != nil {
		return false, err
	}
	there, err := remote.Layer(p.Repository.Digest(h.String()), p.options(ctx)...)
	if err != nil {
		return false, fmt.Errorf("asking whether it is there: %w", err)
	}
	if got, err := there.Size(); err == nil {
		if got != size {
			return false, exitcode.With(exitcode.Unverified, fmt.Errorf("the registry has it with %d bytes, it has %d", got, size))
		}
		p.tell(Event{Component: component, Size: size, Reused: true, Done: true})
		return false, nil
	} else if !notFound(err) {
		return false, fmt.Errorf("asking whether it is there: %w", err)
	}

	counted := &countedLayer{Layer: l, read: func(sent int64) {
		p.tell(Event{Component: component, Sent: sent, Size: size})
	}}
	p.tell(Event{Component: component, Size: size})
	if err := pusher.Upload(ctx, p.Repository, counted); err != nil {
		return false, fmt.Errorf("uploading it: %w", err)
	}
	p.tell(Event{Component: component, Sent: size, Size: size, Done: true})
	return true, nil
}

// manifest puts a manifest under its digest unless the registry has it.
func (p *publisher) manifest(ctx context.Context, pusher *remote.Pusher, m remote.Taggable) (uploaded bool, err error) {
	raw, err := m.RawManifest()
	if err != nil {
		return false, fmt.Errorf("reading a manifest: %w", err)
	}
	h, _, err := v1.SHA256(bytes.NewReader(raw))
	if err != nil {
		return false, fmt.Errorf("hashing a manifest: %w", err)
	}
	ref := p.Repository.Digest(h.String())
	// Only a whole and unchanged document counts as there.
	desc, err := remote.Get(ref, p.options(ctx)...)
	if err == nil && bytes.Equal(desc.Manifest, raw) {
		return false, nil
	} else if err != nil && !notFound(err) {
		return false, fmt.Errorf("asking for manifest %s: %w", h, err)
	}
	if err := pusher.Put(ctx, ref, m); err != nil {
		return false, fmt.Errorf("putting manifest %s: %w", h, err)
	}
	return true, nil
}

// countedLayer tells how much of a layer was read.
type countedLayer struct {
	v1.Layer
	read func(int64)
}

func (c *countedLayer) Compressed() (io.ReadCloser, error) {
	rc, err := c.Layer.Compressed()
	if err != nil {
		return nil, err
	}
	return &countedReader{ReadCloser: rc, read: c.read}, nil
}

type countedReader struct {
	io.ReadCloser
	n    int64
	read func(int64)
}

func (c *countedReader) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if n > 0 {
		c.n += int64(n)
		c.read(c.n)
	}
	return n, err
}

func notFound(err error) bool {
	var te *transport.Error
	return errors.As(err, &te) && te.StatusCode == http.StatusNotFound
}

// transient tells whether it is worth to try again: the registry is busy or
// the connection broke. What it refused it will refuse again.
func transient(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, bundle.ErrStale) {
		return false
	}
	var te *transport.Error
	if errors.As(err, &te) {
		switch te.StatusCode {
		case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
			http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return true
		}
		return false
	}
	// Something local, such as a layer that cannot be read.
	if exitcode.Of(err) != exitcode.Failed {
		return false
	}
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		return true
	}
	for _, broken := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, net.ErrClosed, os.ErrDeadlineExceeded} {
		if errors.Is(err, broken) {
			return true
		}
	}
	return false
}

// oneLine is an error whose message has no line breaks: registries put their
// answers, which may be pages, into errors.
type oneLine struct{ error }

func (o oneLine) Error() string { return strings.Join(strings.Fields(o.error.Error()), " ") }
func (o oneLine) Unwrap() error { return o.error }

// explain turns the error into one that says what to do, with the exit code
// that belongs to it.
func explain(repo name.Repository, err error) error {
	err = fmt.Errorf("publishing to %s: %w", repo, oneLine{err})
	var te *transport.Error
	var ne net.Error
	switch {
	case errors.Is(err, context.Canceled):
		return exitcode.With(exitcode.Failed, fmt.Errorf("%w; run it again to go on from here", err))
	case exitcode.Of(err) != exitcode.Failed:
		return err
	case errors.As(err, &te):
		switch te.StatusCode {
		case http.StatusInsufficientStorage:
			return exitcode.With(exitcode.LocalIO, fmt.Errorf("%w; make room where the registry stores blobs, then run it again", err))
		case http.StatusUnauthorized, http.StatusForbidden:
			return exitcode.With(exitcode.Unreachable, fmt.Errorf("%w; log in to %s with a tool that writes a docker config.json (docker, podman, crane)", err, repo.RegistryStr()))
		}
		return exitcode.With(exitcode.Unreachable, fmt.Errorf("%w; run it again to go on from here", err))
	case errors.Is(err, syscall.ECONNREFUSED):
		return exitcode.With(exitcode.Unreachable, fmt.Errorf("%w; is the registry up, and is its name right?", err))
	case errors.As(err, &ne), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return exitcode.With(exitcode.Unreachable, fmt.Errorf("%w; run it again to go on from here", err))
	}
	return err
}
