// Package node makes throw-away Kubernetes nodes for tests: a control plane, a
// kubelet, containerd and runc under a systemd of their own, in namespaces of their
// own, on a root file system in memory. Nothing of a node is left when the test ends,
// also when it is killed.
//
// It needs root. A program that uses it calls IfChild first thing in main, or in
// TestMain.
package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/bazelbuild/rules_go/go/runfiles"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/kiln-build/kiln/deploy/kubernetes/clientset"
	"github.com/kiln-build/kiln/tests/suite/node/machine"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// patience is how long a node may take to become ready. On an idle machine it takes a
// tenth of that.
const patience = 3 * time.Minute

// Options says what a node is made of.
type Options struct {
	// Root is the archive of its root file system, //tests/node:root.
	Root string
	// Kubernetes is the program //tests/node/kubernetes:bin.
	Kubernetes string
	// Pause is the program //tests/node/pause.
	Pause string
	// Log gets a line for each step of a start; nil for none.
	Log io.Writer
	// Now tells the time; time.Now if nil.
	Now func() time.Time
}

// FromRunfiles gives options with the files that Bazel built: those of
// //tests/node:files, which must be among the data of the test.
func FromRunfiles() (Options, error) {
	var o Options
	for path, file := range map[string]*string{
		"_main/tests/node/root.tar.zst":              &o.Root,
		"_main/tests/node/kubernetes/bin/kubernetes": &o.Kubernetes,
		"_main/tests/node/pause/pause_/pause":        &o.Pause,
	} {
		found, err := runfiles.Rlocation(path)
		if err == nil {
			_, err = os.Stat(found)
		}
		if err == nil {
			found, err = filepath.Abs(found)
		}
		if err != nil {
			return Options{}, exitcode.With(exitcode.BadInput, fmt.Errorf("finding the node's files: %w: run this with Bazel, and //tests/node:files in data", err))
		}
		*file = found
	}
	return o, nil
}

// Node is a node that runs.
type Node struct {
	machine     *machine.Machine
	options     Options
	credentials *credentials
	client      clientset.Interface

	mu      sync.Mutex
	servers []*http.Server

	registry     sync.Once
	registryHost string
	registryErr  error
}

// IfChild takes over the process when it was started by this package as a part of a
// node, and does not return then.
func IfChild() { machine.IfChild() }

// Start starts a node and waits until pods can run on it. Errors have the ends of the
// logs of what is to blame.
func Start(ctx context.Context, o Options) (_ *Node, err error) {
	fail := func(err error) (*Node, error) { return nil, fmt.Errorf("starting a node: %w", err) }
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	c, err := newCredentials(o.Now())
	if err != nil {
		return fail(err)
	}
	pause, err := pauseImage(o.Pause)
	if err != nil {
		return fail(exitcode.With(exitcode.BadInput, err))
	}
	sysctls, err := wanted(kubeletSysctls(), "/proc/sys")
	if err != nil {
		return fail(err)
	}
	n := &Node{options: o, credentials: c}
	started := o.Now()
	n.machine, err = machine.Start(ctx, machine.Options{
		Archive:  o.Root,
		Binds:    map[string]string{kubernetesFile: o.Kubernetes},
		Files:    files(c, pause),
		Links:    links(),
		Hostname: Name,
		Address:  Address + "/24",
		Services: []string{serviceAddress + "/32"},
		Sysctls:  sysctls,
		Init:     initCommand(),
		Env:      environment(),
	})
	if err != nil {
		return fail(err)
	}
	n.step(started, "systemd started")
	if n.client, err = clientset.NewForConfig(n.REST()); err == nil {
		err = n.wait(ctx, started)
	}
	if err != nil {
		return fail(errors.Join(err, n.Close()))
	}
	return n, nil
}

// initCommand is systemd's. The last word is for a systemd that would rather have
// control groups of version 2: in a container it reads its own command line as the
// kernel's.
func initCommand() []string {
	return []string{
		"/usr/lib/systemd/systemd", "--unit=" + unitTarget, "--log-target=console", "--show-status=no",
		"SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1",
	}
}

func environment() []string {
	return []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root",
		"KUBECONFIG=" + kubeconfigFile(admin),
		"TERM=" + os.Getenv("TERM"),
		// It is what systemd knows by that the kernel is not its own.
		"container=kiln",
	}
}

func links() map[string]string {
	// These two are base-files', whose maintainer script makes them.
	all := map[string]string{"/var/lock": "/run/lock", "/var/run": "/run"}
	for _, program := range []string{"etcd", "helm", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kubelet"} {
		all["/usr/bin/"+program] = kubernetesFile
	}
	return all
}

func (n *Node) step(started time.Time, what string) {
	fmt.Fprintf(n.options.Log, "node: %s after %.1f s\n", what, n.options.Now().Sub(started).Seconds())
}

// wait waits until the node is ready, counting from when it was started.
func (n *Node) wait(ctx context.Context, started time.Time) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("it took longer than %s", patience))
	defer cancel()
	for _, step := range []struct {
		what string
		done func(context.Context) (bool, error)
	}{
		{"the API server is ready", n.apiReady},
		{"pods can be made", n.serviceAccountReady},
		{"the node is ready", func(ctx context.Context) (bool, error) { return n.nodeReady(ctx, started) }},
	} {
		if err := n.until(ctx, step.done); err != nil {
			return fmt.Errorf("waiting until %s: %w%s", step.what, err, n.blame())
		}
		n.step(started, step.what)
	}
	return nil
}

// until asks until something is so. An answer that cannot be had now may come later.
func (n *Node) until(ctx context.Context, done func(context.Context) (bool, error)) error {
	const pause = 50 * time.Millisecond
	for {
		ok, err := done(ctx)
		if ok {
			return nil
		}
		if failed := n.failedUnits(); len(failed) > 0 {
			return fmt.Errorf("%s did not stay up", strings.Join(failed, ", "))
		}
		select {
		case <-n.machine.Ended():
			return n.machine.Err()
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(pause):
		}
	}
}

func (n *Node) apiReady(ctx context.Context) (bool, error) {
	text, err := n.client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
	return err == nil && string(text) == "ok", err
}

func (n *Node) serviceAccountReady(ctx context.Context) (bool, error) {
	_, err := n.client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
	return err == nil, err
}

// nodeReady says whether the node takes pods since then.
func (n *Node) nodeReady(ctx context.Context, since time.Time) (bool, error) {
	node, err := n.client.CoreV1().Nodes().Get(ctx, Name, metav1.GetOptions{})
	if err != nil {
		return false, err
	}
	err = takesPods(node, since)
	return err == nil, err
}

// failedUnits names the units that systemd has given up.
func (n *Node) failedUnits() []string {
	entries, err := os.ReadDir(n.path(failedDir))
	if err != nil {
		return nil // nothing has failed
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// blame gives the ends of logs: of the units that failed, or of all.
func (n *Node) blame() string {
	const lines = 15
	suspects := n.failedUnits()
	if len(suspects) == 0 {
		suspects = Units()
	}
	var text strings.Builder
	for _, unit := range suspects {
		log, err := n.Log(unit)
		if err != nil {
			log = err.Error()
		}
		fmt.Fprintf(&text, "\n--- %s\n%s", unit, tail(log, lines))
	}
	console, err := os.ReadFile(n.path(machine.ConsoleLog))
	if err == nil {
		fmt.Fprintf(&text, "\n--- console\n%s", tail(string(console), lines))
	}
	return text.String()
}

// nobody reads what servers complain about: clients hear it, too.
func nobody() *log.Logger { return log.New(io.Discard, "", 0) }

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return strings.Join(all, "\n")
}

// path is a path of the node as seen from here.
func (n *Node) path(path string) string { return filepath.Join(n.Root(), path) }

// REST gives the configuration of a client that may do anything. Its connections
// begin inside of the node, so it works from here only.
func (n *Node) REST() *rest.Config {
	user := n.credentials.users[admin]
	return &rest.Config{
		Host: server,
		TLSClientConfig: rest.TLSClientConfig{
			CAData:   n.credentials.authority.Certificate,
			CertData: user.Certificate,
			KeyData:  user.Key,
		},
		Dial: n.machine.Dial,
		// The server is nobody else's.
		QPS: -1,
	}
}

// Kubeconfig is the path, inside of the node, of the same user's configuration.
// Commands find it in KUBECONFIG.
func (n *Node) Kubeconfig() string { return kubeconfigFile(admin) }

// Root is the node's root directory as seen from here. A restart changes it. Absolute
// symbolic links lead out of it.
func (n *Node) Root() string { return n.machine.Root() }

// Command gives a command that runs on the node as root, with kubectl and helm set up.
func (n *Node) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return n.machine.Command(ctx, name, args...)
}

// Listen listens on a TCP address of the node, such as 127.0.0.1:0. Whatever accepts
// runs here. containerd takes registries on 127.0.0.1 to speak plain HTTP.
func (n *Node) Listen(ctx context.Context, address string) (net.Listener, error) {
	return n.machine.Listen(ctx, address)
}

// Dial connects to a numeric TCP address of the node, or of a pod.
func (n *Node) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return n.machine.Dial(ctx, network, address)
}

// Log gives what a unit has logged since the node was made.
func (n *Node) Log(unit string) (string, error) {
	data, err := os.ReadFile(n.path(logFile(unit)))
	if err != nil {
		return "", fmt.Errorf("reading the log of %s: %w", unit, err)
	}
	return string(data), nil
}

// RestartRuntime restarts containerd as an administrator does, and waits until it
// serves.
func (n *Node) RestartRuntime(ctx context.Context) error {
	out, err := n.Command(ctx, "systemctl", "restart", UnitContainerd).CombinedOutput()
	if err != nil {
		return fmt.Errorf("restarting %s: %w: %s%s", UnitContainerd, err, out, n.blame())
	}
	return nil
}

// Restart does to the node what a power failure does, and waits until it is ready
// again. Files are as they were; /run, /tmp and all processes are new.
func (n *Node) Restart(ctx context.Context) error {
	started := n.options.Now()
	if err := n.machine.Restart(ctx); err != nil {
		return err
	}
	if err := n.wait(ctx, started); err != nil {
		return fmt.Errorf("restarting the node: %w", err)
	}
	return nil
}

// Close ends the node and waits until nothing of it is left.
func (n *Node) Close() error {
	n.mu.Lock()
	for _, server := range n.servers {
		_ = server.Close()
	}
	n.servers = nil
	n.mu.Unlock()
	if err := n.machine.Close(); err != nil {
		return fmt.Errorf("ending the node: %w", err)
	}
	return nil
}
