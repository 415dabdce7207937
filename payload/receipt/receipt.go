// Package receipt is the statement of what a payload is and where it is
// published. A receipt follows from the graph and the registry's name alone;
// publishing makes it true. Tests take a receipt, never a tag.
package receipt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/kiln-build/kiln/tools/atomicfile"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// SchemaVersion is the version of the document that this package writes.
const SchemaVersion = 1

// Embedded is the registry's name when a payload is published to the
// registry that Kiln starts itself.
const Embedded = "embedded"

// The kinds of agent that a guest image carries.
const (
	AgentBringup = "bringup"
	AgentImport  = "import"
	// AgentNone is of a payload without a guest.
	AgentNone = "none"
)

// Where a payload's inputs came from: the committed lock, or a lock that was
// renewed on this machine because the committed one is no longer served.
const (
	InputsPinned   = "pinned"
	InputsRelocked = "relocked"
)

// Receipt says what was, or will be, published.
type Receipt struct {
	SchemaVersion int    `json:"schemaVersion"`
	Platform      string `json:"platform"`
	// Registry is Embedded or host[:port].
	Registry   string `json:"registry"`
	Repository string `json:"repository"`
	// Digest is the digest of the image index.
	Digest     string      `json:"digest"`
	Manifests  []Manifest  `json:"manifests"`
	Components []Component `json:"components"`
	Agent      string      `json:"agent"`
	Inputs     string      `json:"inputs"`
}

// Manifest is the image for one architecture.
type Manifest struct {
	Arch   string `json:"arch"`
	Digest string `json:"digest"`
}

// Component is one layer of the image. Digest and Size are the layer's.
type Component struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Digest  string `json:"digest"`
	Size    int64  `json:"size"`
}

var (
	digestRE   = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	platformRE = regexp.MustCompile(`^[a-z0-9]+([._-][a-z0-9]+)*$`)
	hostRE     = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?$`)
	// repositoryRE is the distribution specification's <name>.
	repositoryRE = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
)

// Location splits the name that a user gave for a registry, host[:port] with
// an optional path, into the receipt's registry and the path under which
// repositories are put.
func Location(registry string) (host, path string, err error) {
	if registry == "" {
		return "", "", exitcode.With(exitcode.BadInput, errors.New(`the registry's name is empty: give "embedded" or host[:port][/path]`))
	}
	host, path, _ = strings.Cut(registry, "/")
	if host == Embedded {
		if path != "" {
			return "", "", exitcode.With(exitcode.BadInput, fmt.Errorf("registry %q: the embedded registry takes no path", registry))
		}
		return host, "", nil
	}
	if strings.Contains(registry, "://") {
		return "", "", exitcode.With(exitcode.BadInput, fmt.Errorf("registry %q: give host[:port][/path], without a scheme", registry))
	}
	if !hostRE.MatchString(host) {
		return "", "", exitcode.With(exitcode.BadInput, fmt.Errorf("registry %q: %q is not host[:port]", registry, host))
	}
	if path = strings.Trim(path, "/"); path != "" && !repositoryRE.MatchString(path) {
		return "", "", exitcode.With(exitcode.BadInput, fmt.Errorf("registry %q: %q is not a repository's path", registry, path))
	}
	return host, path, nil
}

// Loopback tells whether a registry's host is this machine. Only such a
// registry may be talked to without TLS.
func Loopback(host string) bool {
	h, _, err := net.SplitHostPort(host)
	if err != nil {
		h = host
	}
	if h == "localhost" {
		return true
	}
	ip := net.ParseIP(strings.Trim(h, "[]"))
	return ip != nil && ip.IsLoopback()
}

// RepositoryAt is the receipt's repository in the registry at host. The
// embedded registry has no address of its own, so its caller gives one.
func (r *Receipt) RepositoryAt(host string) (name.Repository, error) {
	opts := []name.Option{name.StrictValidation}
	if Loopback(host) {
		opts = append(opts, name.Insecure)
	}
	registry, err := name.NewRegistry(host, opts...)
	if err != nil {
		return name.Repository{}, exitcode.With(exitcode.BadInput, fmt.Errorf("registry %q: %w", host, err))
	}
	return registry.Repo(r.Repository), nil
}

// Reference is the payload by digest, as other tools write it.
func (r *Receipt) Reference() string {
	return fmt.Sprintf("%s/%s@%s", r.Registry, r.Repository, r.Digest)
}

// Validate reports every way in which r is not a receipt.
func (r *Receipt) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if r.SchemaVersion != SchemaVersion {
		bad("schemaVersion is %d, this Kiln reads %d", r.SchemaVersion, SchemaVersion)
	}
	if !platformRE.MatchString(r.Platform) {
		bad("platform %q is not a platform's name", r.Platform)
	}
	if _, path, err := Location(r.Registry); err != nil {
		errs = append(errs, err)
	} else if path != "" {
		bad("registry %q has a path: that belongs to the repository", r.Registry)
	}
	if !repositoryRE.MatchString(r.Repository) {
		bad("repository %q is not a repository's name", r.Repository)
	}
	if !digestRE.MatchString(r.Digest) {
		bad("digest %q is not a sha256 digest", r.Digest)
	}
	if len(r.Manifests) == 0 {
		bad("there is no manifest")
	}
	arches := map[string]bool{}
	for _, m := range r.Manifests {
		if m.Arch == "" {
			bad("a manifest has no arch")
		}
		if arches[m.Arch] {
			bad("arch %q is there twice", m.Arch)
		}
		arches[m.Arch] = true
		if !digestRE.MatchString(m.Digest) {
			bad("manifest for %s: digest %q is not a sha256 digest", m.Arch, m.Digest)
		}
	}
	if len(r.Components) == 0 {
		bad("there is no component")
	}
	names := map[string]bool{}
	for _, c := range r.Components {
		if c.Name == "" || c.Version == "" {
			bad("component %q has no name or no version", c.Name)
		}
		if names[c.Name] {
			bad("component %q is there twice", c.Name)
		}
		names[c.Name] = true
		if !digestRE.MatchString(c.Digest) {
			bad("component %q: digest %q is not a sha256 digest", c.Name, c.Digest)
		}
		if c.Size <= 0 {
			bad("component %q: size is %d", c.Name, c.Size)
		}
	}
	if r.Agent != AgentBringup && r.Agent != AgentImport && r.Agent != AgentNone {
		bad("agent is %q, want %q, %q or %q", r.Agent, AgentBringup, AgentImport, AgentNone)
	}
	if r.Inputs != InputsPinned && r.Inputs != InputsRelocked {
		bad("inputs is %q, want %q or %q", r.Inputs, InputsPinned, InputsRelocked)
	}
	return errors.Join(errs...)
}

// Marshal gives the receipt's bytes. Equal receipts have equal bytes.
func Marshal(r *Receipt) ([]byte, error) {
	if err := r.Validate(); err != nil {
		return nil, fmt.Errorf("writing a receipt: %w", err)
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(r); err != nil {
		return nil, fmt.Errorf("encoding a receipt: %w", err)
	}
	return buf.Bytes(), nil
}

// WriteFile puts the receipt at the path name in one step.
func WriteFile(path string, r *Receipt) error {
	data, err := Marshal(r)
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(path, data, 0o644)
}

// Read reads and validates a receipt. An unknown field is an error: it would
// mean something that this Kiln does not check.
func Read(rd io.Reader) (*Receipt, error) {
	dec := json.NewDecoder(rd)
	dec.DisallowUnknownFields()
	r := new(Receipt)
	if err := dec.Decode(r); err != nil {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("decoding a receipt: %w", err))
	}
	if dec.More() {
		return nil, exitcode.With(exitcode.BadInput, errors.New("decoding a receipt: something follows the JSON document"))
	}
	if err := r.Validate(); err != nil {
		return nil, exitcode.With(exitcode.BadInput, err)
	}
	return r, nil
}

// ReadFile reads the receipt at the path name.
func ReadFile(path string) (*Receipt, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("opening a receipt: %w", err))
	}
	defer f.Close()
	r, err := Read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}
