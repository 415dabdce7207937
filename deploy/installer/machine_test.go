package installer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kiln-build/kiln/deploy/artifacts"
	"github.com/kiln-build/kiln/deploy/cri"
	"github.com/kiln-build/kiln/deploy/criclient"
	"github.com/kiln-build/kiln/deploy/installer"
	"github.com/kiln-build/kiln/deploy/kubernetes"
	"github.com/kiln-build/kiln/deploy/kubernetes/clientset/fake"
	"github.com/kiln-build/kiln/deploy/settings"
)

const (
	shared = "katacontainers.io/kata-runtime"
	one    = "kata-deploy.katacontainers.io/default"
	blue   = "kata-deploy.katacontainers.io/blue"
)

// machine is a node: a directory, an object of a cluster, and a containerd that reads
// its configuration when it is started, and only then.
type machine struct {
	t      *testing.T
	dir    string
	client *fake.Clientset

	mu sync.Mutex
	// serves are the handlers that containerd knows.
	serves   []string
	restarts []string
	// enabled are the units that start with the machine, runs is what each of those that
	// run was when it was started.
	enabled map[string]bool
	runs    map[string]string
	// deaf says that containerd does not take what it finds.
	deaf bool
	// restart, claimed and finished are called when that happens.
	restart, claimed, finished func() error
	// budget is after how many steps the installer is killed; negative is never.
	budget int
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, dir: t.TempDir(), budget: -1, serves: []string{"runc"}, enabled: map[string]bool{}, runs: map[string]string{}}
	require.NoError(t, os.MkdirAll(m.path(units), 0o755))
	for name, content := range map[string]string{
		"etc/containerd/config.toml": "# mine\nversion = 3\nimports = ['" + m.path("etc/containerd/conf.d/*.toml") + "']\n", "etc/machine-id": "abc\n",
		"run/lock/kata-deploy.lock": "",
	} {
		require.NoError(t, os.MkdirAll(filepath.Dir(m.path(name)), 0o755))
		require.NoError(t, os.WriteFile(m.path(name), []byte(content), 0o600))
	}
	m.client = fake.New(&corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{"zone": "a"}},
		Spec:       corev1.NodeSpec{Taints: []corev1.Taint{{Key: "kata/wait", Effect: "NoSchedule"}}},
		Status:     corev1.NodeStatus{NodeInfo: corev1.NodeSystemInfo{ContainerRuntimeVersion: "containerd://2.2.1", MachineID: "abc"}},
	})
	return m
}

func (m *machine) path(below string) string { return filepath.Join(m.dir, below) }

var errKilled = errors.New("killed")

func (m *machine) spend() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.budget == 0 {
		return errKilled
	}
	m.budget--
	return nil
}

// mortal is a context that ends when the machine's budget is spent: it is asked
// between any two files.
type mortal struct {
	context.Context
	m *machine
}

func (c mortal) Err() error {
	if err := c.Context.Err(); err != nil {
		return err
	}
	return c.m.spend()
}

func (m *machine) context() context.Context { return mortal{m.t.Context(), m} }

// around kills the installer before or after something.
func (m *machine) around(do func() error) error {
	if err := m.spend(); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return m.spend()
}

// cluster is the real one, from which the installer may be killed.
type cluster struct {
	*kubernetes.Node
	m *machine
}

func (c cluster) Claim(ctx context.Context) error {
	return c.m.around(func() error {
		if c.m.claimed != nil {
			if err := c.m.claimed(); err != nil {
				return err
			}
		}
		return c.Node.Claim(ctx)
	})
}

func (c cluster) Finish(ctx context.Context) error {
	return c.m.around(func() error {
		if c.m.finished != nil {
			if err := c.m.finished(); err != nil {
				return err
			}
		}
		return c.Node.Finish(ctx)
	})
}

func (c cluster) Release(ctx context.Context) error {
	return c.m.around(func() error { return c.Node.Release(ctx) })
}

func (c cluster) Leave(ctx context.Context, value string) error {
	return c.m.around(func() error { return c.Node.Leave(ctx, value) })
}

// units is where the machine has units of its own.
const units = "etc/systemd/system"

// Find and what follows are systemd's.
func (m *machine) Find(_ context.Context, units []string) (string, error) { return units[0], nil }

func (m *machine) Reload(context.Context) error { return m.around(func() error { return nil }) }

func (m *machine) Enable(_ context.Context, unit string) error {
	return m.around(func() error {
		if _, err := os.Stat(m.path(units + "/" + unit)); err != nil {
			return err
		}
		m.enabled[unit] = true
		return nil
	})
}

func (m *machine) Disable(_ context.Context, unit string) error {
	return m.around(func() error {
		delete(m.enabled, unit)
		delete(m.runs, unit)
		return nil
	})
}

func (m *machine) Start(_ context.Context, unit string) error {
	return m.around(func() error {
		if m.runs[unit] != "" {
			return nil
		}
		return m.startUnit(unit)
	})
}

func (m *machine) startUnit(unit string) error {
	content, err := os.ReadFile(m.path(units + "/" + unit))
	m.runs[unit] = strings.ReplaceAll(string(content), m.dir, "")
	return err
}

func (m *machine) Restart(_ context.Context, unit string) error {
	return m.around(func() error {
		if strings.HasPrefix(unit, "nydus-") {
			return m.startUnit(unit)
		}
		m.mu.Lock()
		m.restarts = append(m.restarts, unit)
		m.mu.Unlock()
		if m.restart != nil {
			if err := m.restart(); err != nil {
				return err
			}
		}
		return m.start()
	})
}

// start makes containerd read its configuration.
func (m *machine) start() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.serves = []string{"runc"}
	if m.deaf {
		return nil
	}
	files, err := filepath.Glob(m.path("etc/containerd/conf.d/*.toml"))
	if err != nil {
		return err
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var config struct {
			Plugins map[string]struct {
				Containerd struct {
					Runtimes map[string]struct {
						Path string `toml:"runtime_path"`
					}
				}
			}
		}
		if err := toml.Unmarshal(content, &config); err != nil {
			return err
		}
		for name, r := range config.Plugins["io.containerd.cri.v1.runtime"].Containerd.Runtimes {
			if _, err := os.Stat(r.Path); err != nil {
				return fmt.Errorf("a handler without its shim: %w", err)
			}
			m.serves = append(m.serves, name)
		}
	}
	slices.Sort(m.serves)
	return nil
}

// Version is what the runtime itself says.
func (m *machine) Version(context.Context) (string, error) { return "containerd://2.1.9", nil }

func (m *machine) Wait(context.Context) (*criclient.Status, error) {
	if err := m.spend(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return &criclient.Status{Ready: true, Told: true, Handlers: m.serves}, nil
}

// installer gives one for a payload, with a version for its content, and what the
// environment says beside.
func (m *machine) installer(payload string, environment ...string) (*installer.Installer, *bytes.Buffer) {
	m.t.Helper()
	arch := map[string]string{"amd64": "X86_64", "arm64": "AARCH64"}[runtime.GOARCH]
	s, err := settings.Read(func(name string) string {
		name = strings.ReplaceAll(name, "_"+arch, "")
		for i := 0; i < len(environment); i += 2 {
			if environment[i] == name {
				return environment[i+1]
			}
		}
		return ""
	})
	require.NoError(m.t, err)
	destination, err := artifacts.Destination(m.dir, s.Suffix)
	require.NoError(m.t, err)
	var progress bytes.Buffer
	now := time.Unix(0, 0)
	return &installer.Installer{
		Node: &cri.Node{
			Settings: s, Installation: destination,
			ContainerdDirectory: m.path("etc/containerd"), CRIODirectory: m.path("etc/crio"),
		},
		Payload:  payload,
		Cluster:  cluster{&kubernetes.Node{Client: m.client, Name: "n", Suffix: s.Suffix, Patience: time.Second, Interval: time.Millisecond}, m},
		Services: m, Connect: func(string) installer.Runtime { return m },
		UnitDirectory: m.path(units),
		MachineID:     m.path("etc/machine-id"), Namespace: "kata", Lock: m.path("run/lock/kata-deploy.lock"),
		Timeout: time.Minute, Grace: time.Minute, Progress: &progress,
		Now: func() time.Time { now = now.Add(time.Second); return now },
	}, &progress
}

// payload makes artefacts of a version.
func payload(t *testing.T, version string, shims ...string) string {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{"bin/containerd-shim-kata-v2": "shim " + version, "bin/" + version: version}
	for _, shim := range shims {
		files["share/defaults/kata-containers/configuration-"+shim+".toml"] = "# " + version + "\n[hypervisor.qemu]\npath = '/opt/kata/bin/qemu'\n"
	}
	for name, content := range files {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755))
	}
	return dir
}

// withSnapshotter adds the nydus snapshotter to artefacts.
func withSnapshotter(t *testing.T, payload, version string) string {
	t.Helper()
	for _, name := range []string{"containerd-nydus-grpc", "nydus-overlayfs", "config-guest-pulling.toml"} {
		file := filepath.Join(payload, "nydus-snapshotter", name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(name+" "+version), 0o755))
	}
	return payload
}

func (m *machine) labels() map[string]string {
	m.t.Helper()
	n, err := m.client.CoreV1().Nodes().Get(m.t.Context(), "n", metav1.GetOptions{})
	require.NoError(m.t, err)
	return n.Labels
}

// state is all that there is: files with mode and content, labels, and what containerd
// serves.
func (m *machine) state() map[string]string {
	m.t.Helper()
	all := map[string]string{"serves": strings.Join(m.serves, " "), "enabled": fmt.Sprint(m.enabled), "runs": fmt.Sprint(m.runs)}
	require.NoError(m.t, filepath.WalkDir(m.dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		value := info.Mode().String()
		if info.Mode().IsRegular() {
			content, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			value += " " + string(content)
		}
		all[strings.TrimPrefix(name, m.dir)] = strings.ReplaceAll(value, m.dir, "")
		return nil
	}))
	for label, value := range m.labels() {
		all["label "+label] = value
	}
	return all
}

// daemonSet makes the DaemonSet appear.
func (m *machine) daemonSet() {
	m.t.Helper()
	_, err := m.client.AppsV1().DaemonSets("kata").Create(m.t.Context(), &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: "kata", Name: "kata-deploy"}}, metav1.CreateOptions{})
	require.NoError(m.t, err)
}

type installerResult = installer.Result
