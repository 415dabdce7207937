// Package cri makes the container runtime of a node, whichever it is, know the
// runtime handlers of an installation, and forget them again.
package cri

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/kiln-build/kiln/deploy/containerd"
	"github.com/kiln-build/kiln/deploy/crio"
	"github.com/kiln-build/kiln/deploy/handler"
	"github.com/kiln-build/kiln/deploy/settings"
	"github.com/kiln-build/kiln/deploy/shims"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// Where the runtimes of a node have their configuration, if nothing else is said.
const (
	ContainerdDirectory = "/etc/containerd"
	CRIODirectory       = "/etc/crio"
)

// Node is an installation on a node.
type Node struct {
	Settings *settings.Settings
	// Installation is the directory of the artefacts.
	Installation string
	// The directories of the runtimes' configuration.
	ContainerdDirectory, CRIODirectory string
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
	install(ctx context.Context, handlers []handler.Handler) (changed bool, err error)
	remove(ctx context.Context) (changed bool, err error)
}

type containerdRuntime struct{ *containerd.Layout }

func (r containerdRuntime) install(ctx context.Context, handlers []handler.Handler) (bool, error) {
	return r.Install(ctx, handlers)
}
func (r containerdRuntime) remove(ctx context.Context) (bool, error) { return r.Remove(ctx) }

type crioRuntime struct{ directory, suffix string }

func (r crioRuntime) install(_ context.Context, handlers []handler.Handler) (bool, error) {
	return crio.Install(r.directory, r.suffix, handlers)
}

func (r crioRuntime) remove(context.Context) (bool, error) { return crio.Remove(r.directory, r.suffix) }

// find finds out what the node has. Nothing is changed.
func (n *Node) find() (name string, _ runtime, err error) {
	s := n.Settings
	name, _, _ = strings.Cut(s.RuntimeVersion, "://")
	switch name {
	case "containerd":
		l, err := containerd.Find(containerd.Node{
			Directory: n.ContainerdDirectory, Distribution: s.Distribution, RuntimeVersion: s.RuntimeVersion,
			Installation: n.Installation, Suffix: s.Suffix,
		})
		return name, containerdRuntime{l}, err
	case "cri-o":
		return name, crioRuntime{n.CRIODirectory, s.Suffix}, nil
	case "":
		err = errors.New(settings.RuntimeVersion + " is not set: it is what the node's status says of its runtime, such as containerd://2.2.1")
	default:
		err = fmt.Errorf("%s=%s: kata-deploy knows containerd and cri-o", settings.RuntimeVersion, s.RuntimeVersion)
	}
	return "", nil, exitcode.With(exitcode.BadInput, err)
}

// Install writes what each shim runs with, and then makes the runtime know them.
func (n *Node) Install(ctx context.Context) (*Result, error) {
	name, r, err := n.find()
	if err != nil {
		return nil, err
	}
	has, err := shims.Available(n.Installation)
	if err != nil {
		return nil, err
	}
	chosen, err := n.Settings.Choose(has)
	if err != nil {
		return nil, err
	}
	res := &Result{Runtime: name}
	var handlers []handler.Handler
	for _, shim := range chosen {
		if err := shims.Configure(n.Installation, shim, n.Settings.Debug); err != nil {
			return nil, err
		}
		h := handler.Handler{
			Name: "kata-" + shim, Shim: shims.Program(n.Installation), Config: shims.Path(n.Installation, shim),
			Snapshotter: n.Settings.Snapshotters[shim], GuestPull: n.Settings.GuestPull[shim],
		}
		if n.Settings.Suffix != "" {
			h.Name += "-" + n.Settings.Suffix
		}
		handlers = append(handlers, h)
		res.Handlers = append(res.Handlers, h.Name)
	}
	if res.Restart, err = r.install(ctx, handlers); err != nil {
		return nil, fmt.Errorf("making %s know the runtime handlers: %w", name, err)
	}
	return res, nil
}

// Remove makes the runtime forget the handlers, and then removes what the shims
// ran with.
func (n *Node) Remove(ctx context.Context) (*Result, error) {
	name, r, err := n.find()
	if err != nil {
		return nil, err
	}
	res := &Result{Runtime: name, Handlers: []string{}}
	if res.Restart, err = r.remove(ctx); err != nil {
		return nil, fmt.Errorf("making %s forget the runtime handlers: %w", name, err)
	}
	return res, shims.Remove(n.Installation)
}
