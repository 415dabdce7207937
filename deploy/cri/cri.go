// Package cri makes the container runtime of a node, whichever it is, know the
// runtime handlers of an installation, and forget them again.
package cri

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/kiln-build/kiln/deploy/containerd"
	"github.com/kiln-build/kiln/deploy/crio"
	"github.com/kiln-build/kiln/deploy/handler"
	"github.com/kiln-build/kiln/deploy/nodefile"
	"github.com/kiln-build/kiln/deploy/nydus"
	"github.com/kiln-build/kiln/deploy/settings"
	"github.com/kiln-build/kiln/deploy/shims"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// Where the runtimes of a node have their configuration, if nothing else is said.
const (
	ContainerdDirectory = "/etc/containerd"
	CRIODirectory       = "/etc/crio"
)

// maxName is how long the name of a RuntimeClass's handler may be: a DNS label.
const maxName = 63

// debugVariant is what ends the name of a shim's variant for finding out why something
// does not work. The shim itself stays what it is, so that its guests are measured as
// they always are.
const debugVariant = "debug"

// digestRE is what tells one payload from another well enough.
var digestRE = regexp.MustCompile(`^[0-9a-f]{6,32}$`)

// Node is an installation on a node.
type Node struct {
	Settings *settings.Settings
	// Installation is the directory of the artefacts.
	Installation string
	// The directories of the runtimes' configuration.
	ContainerdDirectory, CRIODirectory string
	// Digest is a prefix, in hexadecimal digits, of the payload's digest. With one
	// each handler has it at the end of its name, so that a RuntimeClass made for
	// one payload finds no handler where another one is installed.
	Digest string
}

// Result is what was done.
type Result struct {
	// Runtime is the node's.
	Runtime string `json:"runtime"`
	// Handlers are those that it was made to know.
	Handlers []string `json:"handlers"`
	// Restart says that the runtime must be started again.
	Restart bool `json:"restart"`
}

// runtime is what a node may have.
type runtime interface {
	install(ctx context.Context, handlers []handler.Handler, snapshotters map[string]string) (changed bool, err error)
	remove(ctx context.Context) (changed bool, err error)
	// files are those that are written.
	files() []string
}

type containerdRuntime struct{ *containerd.Layout }

func (r containerdRuntime) install(ctx context.Context, handlers []handler.Handler, snapshotters map[string]string) (bool, error) {
	return r.Install(ctx, handlers, snapshotters)
}
func (r containerdRuntime) remove(ctx context.Context) (bool, error) { return r.Remove(ctx) }

func (r containerdRuntime) files() []string {
	if r.Config == "" {
		return []string{r.DropIn}
	}
	return []string{r.DropIn, r.Config}
}

type crioRuntime struct{ directory, suffix string }

func (r crioRuntime) install(_ context.Context, handlers []handler.Handler, _ map[string]string) (bool, error) {
	return crio.Install(r.directory, r.suffix, handlers)
}

func (r crioRuntime) remove(context.Context) (bool, error) { return crio.Remove(r.directory, r.suffix) }
func (r crioRuntime) files() []string                      { return []string{crio.File(r.directory, r.suffix)} }

// find finds out what the node has. Nothing is changed.
func (n *Node) find() (name string, _ runtime, err error) {
	s := n.Settings
	name, _, _ = strings.Cut(s.RuntimeVersion, "://")
	switch name {
	case "containerd":
		l, err := containerd.Find(containerd.Node{
			Directory: n.ContainerdDirectory, Distribution: s.Distribution, RuntimeVersion: s.RuntimeVersion,
			Installation: n.Installation, Suffix: s.Suffix, ConfigFile: s.ConfigFile,
		})
		return name, containerdRuntime{l}, err
	case "cri-o":
		if s.Nydus {
			return "", nil, exitcode.With(exitcode.BadInput, fmt.Errorf("%s=%s: this node has CRI-O, which knows no snapshotters", settings.SetUp, nydus.Name))
		}
		return name, crioRuntime{n.CRIODirectory, s.Suffix}, nil
	case "":
		err = errors.New(settings.RuntimeVersion + " is not set: it is what the node's status says of its runtime, such as containerd://2.2.1")
	default:
		err = fmt.Errorf("%s=%s: kata-deploy knows containerd and cri-o", settings.RuntimeVersion, s.RuntimeVersion)
	}
	return "", nil, exitcode.With(exitcode.BadInput, err)
}

// served is a handler, and what it runs.
type served struct {
	handler.Handler
	shim string
	// variant is the handler's name without the digest if it is for a variant of the shim:
	// that of the directory which has its configuration, also for another payload.
	variant string
}

// handlers gives what the runtime must know, for the shims that are installed in a
// directory, or are to be: with DEBUG, for a variant of each as well.
func (n *Node) handlers(payload string) ([]served, error) {
	has, err := shims.Available(payload)
	if err != nil {
		return nil, err
	}
	chosen, err := n.Settings.Choose(has)
	if err != nil {
		return nil, err
	}
	if n.Digest != "" && !digestRE.MatchString(n.Digest) {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("%q is no prefix of a digest: give 6 to 32 hexadecimal digits", n.Digest))
	}
	suffixes := []string{""}
	if n.Settings.Debug {
		suffixes = append(suffixes, debugVariant)
	}
	var all []served
	for _, shim := range chosen {
		for _, suffix := range suffixes {
			s := served{shim: shim}
			s.Name = join("kata", shim, n.Settings.Suffix, suffix)
			if suffix != "" {
				s.variant = s.Name
			}
			s.Name = join(s.Name, n.Digest)
			if len(s.Name) > maxName {
				return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("the handler %s has %d characters, Kubernetes takes %d: choose a shorter suffix or digest", s.Name, len(s.Name), maxName))
			}
			s.Shim, s.Config = shims.Program(n.Installation), shims.Path(n.Installation, shim, s.variant)
			s.Snapshotter, s.GuestPull = n.Settings.Snapshotters[shim], n.Settings.GuestPull[shim]
			if n.Settings.Nydus && s.Snapshotter == nydus.Name {
				// That of this installation.
				s.Snapshotter = nydus.Plugin(n.Settings.Suffix)
			}
			all = append(all, s)
		}
	}
	return all, nil
}

// join makes a handler's name of the parts that are there.
func join(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(part string) bool { return part == "" }), "-")
}

func result(runtime string, handlers []served) *Result {
	res := &Result{Runtime: runtime, Handlers: []string{}}
	for _, h := range handlers {
		res.Handlers = append(res.Handlers, h.Name)
	}
	return res
}

// Check finds out whether Install can work with the artefacts of a payload, before
// anything is changed.
func (n *Node) Check(payload string) (*Result, error) {
	name, r, err := n.find()
	if err != nil {
		return nil, err
	}
	handlers, err := n.handlers(payload)
	if err != nil {
		return nil, err
	}
	for _, file := range append(r.files(), filepath.Join(n.Installation, "any")) {
		if err := nodefile.Writable(filepath.Dir(file)); err != nil {
			return nil, fmt.Errorf("%w: mount it from the node so that it can be", err)
		}
	}
	return result(name, handlers), nil
}

// Install writes what each shim runs with, and then makes the runtime know them.
func (n *Node) Install(ctx context.Context) (*Result, error) {
	name, r, err := n.find()
	if err != nil {
		return nil, err
	}
	all, err := n.handlers(n.Installation)
	if err != nil {
		return nil, err
	}
	var known []handler.Handler
	var variants []string
	for _, s := range all {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		if err := shims.Configure(n.Installation, s.shim, shims.Options{
			Variant: s.variant, KernelParameters: n.Settings.KernelParameters(s.shim),
			Annotations: n.Settings.AnnotationsOf(s.shim), ForceGuestPull: n.Settings.ForceGuestPull[s.shim],
		}); err != nil {
			return nil, err
		}
		known = append(known, s.Handler)
		if s.variant != "" {
			variants = append(variants, s.variant)
		}
	}
	res := result(name, all)
	if res.Restart, err = r.install(ctx, known, n.snapshotters()); err != nil {
		return nil, fmt.Errorf("making %s know the runtime handlers: %w", name, err)
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	// What the runtime knew before and does not any more.
	if err := shims.KeepVariants(n.Installation, variants); err != nil {
		return nil, err
	}
	return res, nil
}

// snapshotters are the sockets of those that the installation sets up, by name.
func (n *Node) snapshotters() map[string]string {
	if !n.Settings.Nydus {
		return nil
	}
	return map[string]string{nydus.Plugin(n.Settings.Suffix): nydus.Socket(n.Settings.Suffix)}
}

// Remove makes the runtime forget the handlers, and then removes what the shims
// ran with.
func (n *Node) Remove(ctx context.Context) (*Result, error) {
	name, r, err := n.find()
	if err != nil {
		return nil, err
	}
	res := result(name, nil)
	if res.Restart, err = r.remove(ctx); err != nil {
		return nil, fmt.Errorf("making %s forget the runtime handlers: %w", name, err)
	}
	return res, shims.Remove(n.Installation)
}
