// Package installer is the sequence by which a payload comes to a node and leaves it.
package installer

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kiln-build/kiln/deploy/artifacts"
	"github.com/kiln-build/kiln/deploy/cri"
	"github.com/kiln-build/kiln/deploy/criclient"
	"github.com/kiln-build/kiln/deploy/kubernetes"
	"github.com/kiln-build/kiln/deploy/nodefile"
	"github.com/kiln-build/kiln/deploy/nydus"
	"github.com/kiln-build/kiln/deploy/settings"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// Cluster is what the installer says to the node's cluster, and asks. It is
// kubernetes.Node.
type Cluster interface {
	Info(ctx context.Context) (*kubernetes.Info, error)
	Claim(ctx context.Context) error
	Finish(ctx context.Context) error
	Release(ctx context.Context) error
	Leave(ctx context.Context, value string) error
	RemoveTaints(ctx context.Context, taints []string) (removed []string, err error)
	Wanted(ctx context.Context, namespace, name string) (bool, error)
}

// Services is the node's systemd. It is systemd.Manager.
type Services interface {
	nydus.Services
	Find(ctx context.Context, units []string) (string, error)
}

// Runtime tells what the node's container runtime serves. It is criclient.Client.
type Runtime interface {
	Wait(ctx context.Context) (*criclient.Status, error)
	// Version is NAME://VERSION.
	Version(ctx context.Context) (string, error)
}

// Installer is one installation on one node.
type Installer struct {
	// Node is how the installation is on the node's disk.
	Node *cri.Node
	// Payload is the directory of the artefacts.
	Payload string
	// Cluster and Services are nil where only files are changed.
	Cluster  Cluster
	Services Services
	// Connect gives the runtime that listens at a socket.
	Connect func(socket string) Runtime
	// Unit and Socket are those of the runtime; empty means what the distribution has.
	Unit, Socket string
	// UnitDirectory is where units of the node are that are not of its distribution.
	UnitDirectory string
	// MachineID is the file that has the machine's ID.
	MachineID string
	// Namespace is that of the DaemonSet.
	Namespace string
	// Lock is the file by which installations on the node wait for each other; empty
	// means that none is needed.
	Lock string
	// DoneLabel is the value of the shared label once cleaning up is done and no other
	// installation is on the node; empty means that the label goes.
	DoneLabel string
	// Timeout is how long the runtime may take to serve again.
	Timeout time.Duration
	// Grace is how long cleaning up may take when this is told to stop.
	Grace    time.Duration
	Progress io.Writer
	Now      func() time.Time
}

// unknownVersion is what a kubelet reports of a runtime that does not answer.
const unknownVersion = "Unknown"

// Result is what an installation did.
type Result struct {
	Artifacts *artifacts.InstallResult `json:"artifacts,omitempty"`
	Runtime   string                   `json:"runtime,omitempty"`
	// Handlers are those that the runtime serves.
	Handlers []string `json:"handlers,omitempty"`
	// Restarted says that the runtime was started again, Restart that somebody must.
	Restarted bool `json:"restarted"`
	Restart   bool `json:"restart"`
}

// CleanupResult is what cleaning up did.
type CleanupResult struct {
	// Wanted says that nothing was done, since the DaemonSet wants the node.
	Wanted    bool                     `json:"wanted"`
	Artifacts *artifacts.CleanupResult `json:"artifacts,omitempty"`
	Restarted bool                     `json:"restarted"`
	Restart   bool                     `json:"restart"`
}

// HostCheck finds out whether the node can be installed on, and changes nothing.
func (i *Installer) HostCheck(ctx context.Context) (*Result, error) {
	res := &Result{}
	return res, i.run(ctx, i.hostCheck(res))
}

// Artifacts brings the payload's files, after the node was claimed.
func (i *Installer) Artifacts(ctx context.Context) (*Result, error) {
	res := &Result{}
	return res, i.run(ctx, append(i.label("claim", Cluster.Claim, "pods stay away until it is ready"), i.artifacts(res))...)
}

// CRI makes the runtime know the handlers, and then pods may come.
func (i *Installer) CRI(ctx context.Context) (*Result, error) {
	res := &Result{}
	return res, i.run(ctx, append([]step{i.cri(res)}, i.ready()...)...)
}

// Install does all of it.
func (i *Installer) Install(ctx context.Context) (*Result, error) {
	res := &Result{}
	steps := []step{i.hostCheck(res)}
	steps = append(steps, i.label("claim", Cluster.Claim, "pods stay away until it is ready")...)
	steps = append(steps, i.artifacts(res), i.cri(res))
	return res, i.run(ctx, append(steps, i.ready()...)...)
}

// RevertCRI makes the runtime forget the handlers. Before that no more pods come.
func (i *Installer) RevertCRI(ctx context.Context) (*CleanupResult, error) {
	res := &CleanupResult{}
	return res, i.run(ctx, append(i.label("claim", Cluster.Claim, "no more pods come"), i.revert(res), i.restart(res))...)
}

// RemoveArtifacts removes the payload's files, and then the node is nobody's.
func (i *Installer) RemoveArtifacts(ctx context.Context) (*CleanupResult, error) {
	res := &CleanupResult{}
	return res, i.run(ctx, append([]step{i.remove(res)}, i.label("release", Cluster.Release, "this installation is gone")...)...)
}

// Cleanup does all of it, and starts the runtime again last: on some distributions
// that ends the pod which this runs in. It does nothing if the DaemonSet wants the
// node.
func (i *Installer) Cleanup(ctx context.Context) (*CleanupResult, error) {
	res := &CleanupResult{}
	s := i.Node.Settings
	if i.Cluster != nil && s.DaemonSet != "" && !s.PostDeleteHook {
		wanted, err := i.Cluster.Wanted(ctx, i.Namespace, s.DaemonSet)
		if err != nil {
			return nil, fmt.Errorf("finding out whether this is the end, nothing is cleaned up: %w", err)
		}
		if wanted {
			i.say("cleanup: DaemonSet %s/%s is there and selects this node, so all stays", i.Namespace, s.DaemonSet)
			res.Wanted = true
			return res, nil
		}
	}
	steps := i.label("release", Cluster.Release, "no more pods come")
	steps = append(steps, i.revert(res), i.remove(res), i.restart(res))
	if i.DoneLabel != "" {
		leave := func(c Cluster, ctx context.Context) error { return c.Leave(ctx, i.DoneLabel) }
		steps = append(steps, i.label("leave", leave, "nothing is left on the node")...)
	}
	return res, i.run(ctx, steps...)
}

// Reset takes the labels away and starts runtime and kubelet again. Files stay.
func (i *Installer) Reset(ctx context.Context) (*CleanupResult, error) {
	res := &CleanupResult{}
	if i.Services == nil {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("there is nothing to reset where only files are changed"))
	}
	steps := i.label("release", Cluster.Release, "no more pods come")
	return res, i.run(ctx, append(steps,
		step{"restart", func(ctx context.Context) (string, error) {
			name, _, err := i.serve(ctx, true)
			if err != nil {
				return "", err
			}
			res.Restarted = true
			return name + " serves again", i.pending().clear()
		}},
		step{"kubelet", func(ctx context.Context) (string, error) {
			h, err := i.host(ctx)
			if err != nil {
				return "", err
			}
			if len(h.kubelet) == 0 {
				return "is the same unit", nil
			}
			unit, err := i.Services.Find(ctx, h.kubelet)
			if err != nil {
				return "", err
			}
			return unit + " was started again", i.Services.Restart(ctx, unit)
		}})...)
}

// Health is told whether the node is ready.
type Health interface{ SetReady(bool) }

// Serve installs, and stays until ctx ends: as a pod of a DaemonSet. Then it cleans up,
// whether it was ready or not.
func (i *Installer) Serve(ctx context.Context, health Health, installed func(*Result) error) error {
	res, err := i.Install(ctx)
	if err == nil {
		if err = installed(res); err != nil {
			return err
		}
		health.SetReady(true)
		i.say("ready: until this is told to stop")
		<-ctx.Done()
	}
	if ctx.Err() == nil {
		return err
	}
	health.SetReady(false)
	i.say("told to stop: cleaning up, if this is the end")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), i.Grace)
	defer cancel()
	_, err = i.Cleanup(ctx)
	return err
}

// label is a step for labels, where there is a node to have them.
func (i *Installer) label(name string, change func(Cluster, context.Context) error, what string) []step {
	if i.Cluster == nil {
		return nil
	}
	return []step{{name, func(ctx context.Context) (string, error) { return what, change(i.Cluster, ctx) }}}
}

func (i *Installer) ready() []step {
	if i.Cluster == nil {
		return nil
	}
	steps := i.label("label", Cluster.Finish, "pods may come")
	if taints := i.Node.Settings.StartupTaints; len(taints) > 0 {
		steps = append(steps, step{"taints", func(ctx context.Context) (string, error) {
			removed, err := i.Cluster.RemoveTaints(ctx, taints)
			if len(removed) == 0 {
				return "none of " + strings.Join(taints, ", ") + " is there", err
			}
			return "removed " + strings.Join(removed, ", "), err
		}})
	}
	return steps
}

func (i *Installer) hostCheck(res *Result) step {
	return step{"host-check", func(ctx context.Context) (string, error) {
		if err := i.checkMachine(ctx); err != nil {
			return "", err
		}
		if err := i.learn(ctx); err != nil {
			return "", err
		}
		checked, err := i.Node.Check(i.Payload)
		if err != nil {
			return "", err
		}
		if i.Node.Settings.Nydus {
			if err := i.checkSnapshotter(); err != nil {
				return "", err
			}
		}
		if i.Services != nil {
			// Both are needed later, when files have changed already.
			if _, err := i.unit(ctx); err != nil {
				return "", err
			}
			if _, _, err := i.serve(ctx, false); err != nil {
				return "", err
			}
		}
		res.Runtime, res.Handlers = checked.Runtime, checked.Handlers
		return fmt.Sprintf("%s can have %s", i.Node.Settings.RuntimeVersion, strings.Join(checked.Handlers, ", ")), nil
	}}
}

// learn asks the cluster for the node's runtime, if nobody said it.
func (i *Installer) learn(ctx context.Context) error {
	s := i.Node.Settings
	if s.RuntimeVersion != "" || i.Cluster == nil {
		return nil
	}
	info, err := i.Cluster.Info(ctx)
	if err != nil {
		return err
	}
	s.RuntimeVersion = info.RuntimeVersion
	name, version, _ := strings.Cut(info.RuntimeVersion, "://")
	if version != unknownVersion {
		return nil
	}
	// The kubelet asked when the runtime did not answer, and says so until it looks again.
	ctx, cancel := context.WithTimeout(ctx, i.Timeout)
	defer cancel()
	runtime := i.Connect(i.socket(hostOf(name, s.Distribution)))
	if _, err := runtime.Wait(ctx); err != nil {
		return err
	}
	s.RuntimeVersion, err = runtime.Version(ctx)
	return err
}

// checkMachine makes sure that the node's name is that of this machine.
func (i *Installer) checkMachine(ctx context.Context) error {
	if i.Cluster == nil {
		return nil
	}
	want := i.Node.Settings.MachineID
	if want == "" {
		info, err := i.Cluster.Info(ctx)
		if err != nil {
			return err
		}
		if want = info.MachineID; want == "" {
			return nil
		}
	}
	have, err := nodefile.Read(i.MachineID)
	if err != nil {
		return err
	}
	if have == nil {
		return exitcode.With(exitcode.BadInput, fmt.Errorf("%s is not there: mount the node's, so that another node is not changed by mistake", i.MachineID))
	}
	if id := strings.TrimSpace(string(have)); id != want {
		return exitcode.With(exitcode.BadInput, fmt.Errorf("this machine's ID is %s, the node's %s: the node's name is wrong", id, want))
	}
	return nil
}

func (i *Installer) artifacts(res *Result) step {
	return step{"artifacts", func(ctx context.Context) (string, error) {
		var err error
		if res.Artifacts, err = artifacts.Install(ctx, i.Payload, i.Node.Installation); err != nil {
			return "", err
		}
		return Describe(res.Artifacts), nil
	}}
}

// Describe says in one line what was installed.
func Describe(r *artifacts.InstallResult) string {
	return fmt.Sprintf("installed to %s: %d new, %d unchanged, %d removed, %.1f MiB written",
		r.Destination, r.Installed, r.Unchanged, r.Removed, float64(r.Bytes)/(1<<20))
}

func (i *Installer) cri(res *Result) step {
	return step{"cri", func(ctx context.Context) (string, error) {
		if err := i.learn(ctx); err != nil {
			return "", err
		}
		// Once something is written, only the runtime's start makes it so: also when
		// this is interrupted in between and finds all written the next time.
		pending := i.pending()
		restart, err := pending.set()
		if err != nil {
			return "", err
		}
		// Before the runtime hears of it.
		if err := i.snapshotter(ctx, restart); err != nil {
			return "", err
		}
		done, err := i.Node.Install(ctx)
		if err != nil {
			return "", err
		}
		res.Runtime, res.Handlers = done.Runtime, done.Handlers
		if i.Services == nil {
			res.Restart = done.Restart
			if !done.Restart {
				return "nothing is new to " + done.Runtime, nil
			}
			return done.Runtime + " will serve " + strings.Join(done.Handlers, ", ") + " when it is started again", nil
		}
		restart = restart || done.Restart
		_, status, err := i.serve(ctx, restart)
		if err != nil {
			return "", err
		}
		if !restart && len(missing(status, done.Handlers)) > 0 {
			restart = true
			if _, status, err = i.serve(ctx, true); err != nil {
				return "", err
			}
		}
		if absent := missing(status, done.Handlers); len(absent) > 0 {
			return "", fmt.Errorf("%s was started again and does not know %s, only %s: its log says why it did not take its configuration",
				done.Runtime, strings.Join(absent, ", "), strings.Join(status.Handlers, ", "))
		}
		res.Restarted = restart
		what := done.Runtime + " serves " + strings.Join(done.Handlers, ", ")
		if !status.Told {
			what = done.Runtime + " serves again; it is too old to tell which handlers"
		}
		return what, pending.clear()
	}}
}

// checkSnapshotter finds out whether the snapshotter can be set up, which takes systemd
// and a payload that has it.
func (i *Installer) checkSnapshotter() error {
	if i.Services == nil {
		return exitcode.With(exitcode.BadInput, fmt.Errorf("%s=%s: that starts a service, which is not done where only files are changed", settings.SetUp, nydus.Name))
	}
	if err := nydus.Check(i.Payload); err != nil {
		return fmt.Errorf("%s=%s: %w", settings.SetUp, nydus.Name, err)
	}
	return nodefile.Writable(i.UnitDirectory)
}

// snapshotter sets the snapshotter up, or takes away what an earlier call set up and this
// one is not to.
func (i *Installer) snapshotter(ctx context.Context, restart bool) error {
	s := i.nydus()
	switch {
	case i.Node.Settings.Nydus:
		if err := i.checkSnapshotter(); err != nil {
			return err
		}
		changed, err := s.Install(ctx, restart)
		if err != nil {
			return fmt.Errorf("setting up the nydus snapshotter: %w", err)
		}
		if changed {
			i.say("cri: %s runs as %s", nydus.Plugin(s.Suffix), s.Unit())
		}
		return nil
	case i.Services == nil:
		return nil
	default:
		_, err := s.Remove(ctx)
		return err
	}
}

func (i *Installer) nydus() *nydus.Snapshotter {
	return &nydus.Snapshotter{
		Installation: i.Node.Installation, Suffix: i.Node.Settings.Suffix, UnitDirectory: i.UnitDirectory, Services: i.Services,
	}
}

// missing gives the handlers that a runtime does not know, if it tells.
func missing(status *criclient.Status, handlers []string) []string {
	var absent []string
	for _, h := range handlers {
		if status.Told && !slices.Contains(status.Handlers, h) {
			absent = append(absent, h)
		}
	}
	return absent
}

func (i *Installer) revert(res *CleanupResult) step {
	return step{"revert-cri", func(ctx context.Context) (string, error) {
		if err := i.learn(ctx); err != nil {
			return "", err
		}
		pending := i.pending()
		restart, err := pending.set()
		if err != nil {
			return "", err
		}
		done, err := i.Node.Remove(ctx)
		if err != nil {
			return "", err
		}
		if i.Services != nil {
			if _, err := i.nydus().Remove(ctx); err != nil {
				return "", err
			}
		}
		res.Restart = restart || done.Restart
		if !res.Restart {
			return done.Runtime + " knew nothing of this installation", pending.clear()
		}
		return done.Runtime + "'s configuration is as it was", nil
	}}
}

func (i *Installer) remove(res *CleanupResult) step {
	return step{"remove-artifacts", func(ctx context.Context) (string, error) {
		var err error
		if res.Artifacts, err = artifacts.Cleanup(ctx, i.Node.Installation); err != nil {
			return "", err
		}
		what := fmt.Sprintf("removed %d files from %s", res.Artifacts.Removed, res.Artifacts.Destination)
		if len(res.Artifacts.Kept) > 0 {
			what += "; kept, since others have files there or it is mounted: " + strings.Join(res.Artifacts.Kept, ", ")
		}
		return what, nil
	}}
}

func (i *Installer) restart(res *CleanupResult) step {
	return step{"restart", func(ctx context.Context) (string, error) {
		if i.Services == nil || !res.Restart {
			return "not needed here", nil
		}
		name, _, err := i.serve(ctx, true)
		if err != nil {
			return "", err
		}
		res.Restart, res.Restarted = false, true
		return name + " serves again", i.pending().clear()
	}}
}

func (i *Installer) host(ctx context.Context) (host, error) {
	if err := i.learn(ctx); err != nil {
		return host{}, err
	}
	runtime, _, _ := strings.Cut(i.Node.Settings.RuntimeVersion, "://")
	return hostOf(runtime, i.Node.Settings.Distribution), nil
}

func (i *Installer) unit(ctx context.Context) (string, error) {
	h, err := i.host(ctx)
	if err != nil {
		return "", err
	}
	if i.Unit != "" {
		h.runtime = []string{i.Unit}
	}
	return i.Services.Find(ctx, h.runtime)
}

// serve waits until the runtime serves, after it was started again if that is asked.
// It gives the name of its unit.
func (i *Installer) serve(ctx context.Context, restart bool) (unit string, _ *criclient.Status, err error) {
	ctx, cancel := context.WithTimeout(ctx, i.Timeout)
	defer cancel()
	h, err := i.host(ctx)
	if err != nil {
		return "", nil, err
	}
	if restart {
		if unit, err = i.unit(ctx); err != nil {
			return "", nil, err
		}
		if err := i.Services.Restart(ctx, unit); err != nil {
			return "", nil, err
		}
	}
	status, err := i.Connect(i.socket(h)).Wait(ctx)
	return unit, status, err
}

// pending is a file that is there while the runtime must be started again. It is
// beside the lock, below /run: a machine that starts has started its runtime.
type pending string

func (i *Installer) pending() pending {
	if i.Services == nil || i.Lock == "" {
		return ""
	}
	instance := kubernetes.DefaultInstance
	if i.Node.Settings.Suffix != "" {
		instance = i.Node.Settings.Suffix
	}
	return pending(filepath.Join(filepath.Dir(i.Lock), "kata-deploy-"+instance+".restart"))
}

// set tells whether it was set already.
func (p pending) set() (bool, error) {
	if p == "" {
		return false, nil
	}
	_, err := os.Stat(string(p))
	if err == nil {
		return true, nil
	}
	_, err = nodefile.Replace(string(p), nil)
	return false, err
}

func (p pending) clear() error {
	if p == "" {
		return nil
	}
	_, err := nodefile.Remove(string(p))
	return err
}

// socket is where the runtime of a host listens.
func (i *Installer) socket(h host) string {
	if i.Socket != "" {
		return i.Socket
	}
	return h.socket
}
