package installer_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kiln-build/kiln/deploy/lock"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func TestInstallAndCleanup(t *testing.T) {
	m := newMachine(t)
	before := m.state()
	i, progress := m.installer(payload(t, "a", "qemu-tdx", "qemu-snp"), "STARTUP_TAINTS", "kata/wait")
	m.claimed = func() error {
		require.NoDirExists(t, m.path("opt"), "files came before pods were kept away")
		return nil
	}
	m.restart = func() error {
		require.Equal(t, map[string]string{"zone": "a", shared: "false", one: "false"}, m.labels())
		require.FileExists(t, m.path("opt/kata/bin/containerd-shim-kata-v2"))
		return nil
	}
	m.finished = func() error {
		require.Equal(t, []string{"kata-qemu-snp", "kata-qemu-tdx", "runc"}, m.serves)
		return nil
	}
	res, err := i.Install(t.Context())
	require.NoError(t, err)
	require.Equal(t, "containerd", res.Runtime)
	require.Equal(t, []string{"kata-qemu-snp", "kata-qemu-tdx"}, res.Handlers)
	require.True(t, res.Restarted)
	require.False(t, res.Restart)
	require.Equal(t, 4, res.Artifacts.Installed)
	require.Equal(t, map[string]string{"zone": "a", shared: "true", one: "true"}, m.labels())
	n, err := m.client.CoreV1().Nodes().Get(t.Context(), "n", metav1.GetOptions{})
	require.NoError(t, err)
	require.Empty(t, n.Spec.Taints)
	require.Equal(t, `host-check: containerd://2.2.1 can have kata-qemu-snp, kata-qemu-tdx (1.0s)
claim: pods stay away until it is ready (1.0s)
artifacts: installed to `+m.path("opt/kata")+`: 4 new, 0 unchanged, 0 removed, 0.0 MiB written (1.0s)
cri: containerd serves kata-qemu-snp, kata-qemu-tdx (1.0s)
label: pods may come (1.0s)
taints: removed kata/wait:NoSchedule (1.0s)
`, progress.String())

	installed := m.state()
	m.restart, m.claimed = nil, nil
	i, _ = m.installer(i.Payload)
	res, err = i.Install(t.Context())
	require.NoError(t, err)
	require.False(t, res.Restarted, "containerd was started again for nothing")
	require.Equal(t, installed, m.state())

	m.restart = func() error {
		require.NoDirExists(t, m.path("opt"), "the restart is to be last")
		require.Equal(t, map[string]string{"zone": "a"}, m.labels())
		return nil
	}
	cleaned, err := i.Cleanup(t.Context())
	require.NoError(t, err)
	require.True(t, cleaned.Restarted)
	require.Equal(t, 4, cleaned.Artifacts.Removed)
	require.Equal(t, before, m.state())
	require.Equal(t, []string{"containerd.service", "containerd.service"}, m.restarts)
	cleaned, err = i.Cleanup(t.Context())
	require.NoError(t, err)
	require.False(t, cleaned.Restarted, "containerd was started again for nothing")
	require.Equal(t, before, m.state())
}

// Stages do the same one by one.
func TestStages(t *testing.T) {
	whole := newMachine(t)
	p := payload(t, "a", "qemu-tdx")
	i, _ := whole.installer(p)
	_, err := i.Install(t.Context())
	require.NoError(t, err)

	m := newMachine(t)
	before := m.state()
	i, _ = m.installer(p)
	checked, err := i.HostCheck(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"kata-qemu-tdx"}, checked.Handlers)
	require.Equal(t, before, m.state())
	_, err = i.Artifacts(t.Context())
	require.NoError(t, err)
	require.Equal(t, "false", m.labels()[shared])
	// Each is a process of its own.
	i, _ = m.installer(p)
	_, err = i.CRI(t.Context())
	require.NoError(t, err)
	require.Equal(t, whole.state(), m.state())

	i, _ = m.installer(p)
	reverted, err := i.RevertCRI(t.Context())
	require.NoError(t, err)
	require.True(t, reverted.Restarted)
	require.Equal(t, []string{"runc"}, m.serves)
	require.Equal(t, "false", m.labels()[one], "who cleans up finds the node by its label until all is gone")
	i, _ = m.installer(p)
	_, err = i.RemoveArtifacts(t.Context())
	require.NoError(t, err)
	require.Equal(t, before, m.state())
}

// Killed between any two steps and run again, it comes to the same end.
func TestKilledAnywhereItConverges(t *testing.T) {
	a, b := payload(t, "a", "qemu-tdx"), payload(t, "b", "qemu-tdx", "qemu-snp")
	whole := newMachine(t)
	before := whole.state()
	i, _ := whole.installer(b)
	_, err := i.Install(t.Context())
	require.NoError(t, err)
	installed := whole.state()

	kill := func(t *testing.T, budget int, upgrade, clean bool, first ...string) (killed bool) {
		m := newMachine(t)
		if upgrade || clean {
			i, _ := m.installer(a, first...)
			_, err := i.Install(t.Context())
			require.NoError(t, err)
		}
		m.budget = budget
		i, _ := m.installer(b)
		var err error
		if clean {
			_, err = i.Cleanup(m.context())
		} else {
			_, err = i.Install(m.context())
		}
		m.budget = -1
		if err != nil {
			require.ErrorIs(t, err, errKilled)
			if m.labels()[shared] == "true" && !clean && m.labels()[one] == "true" {
				require.Subset(t, m.serves, []string{"kata-qemu-tdx"}, "pods come to a node that cannot run them")
			}
		}
		i, _ = m.installer(b)
		if clean {
			_, err2 := i.Cleanup(t.Context())
			require.NoError(t, err2)
			require.Equal(t, before, m.state())
			return err != nil
		}
		_, err2 := i.Install(t.Context())
		require.NoError(t, err2)
		require.Equal(t, installed, m.state())
		i, _ = m.installer(b)
		_, err2 = i.Cleanup(t.Context())
		require.NoError(t, err2)
		require.Equal(t, before, m.state())
		return err != nil
	}
	for name, how := range map[string]struct {
		upgrade, clean bool
		// first is what the environment of the installation said that is there already.
		first []string
	}{
		"install": {}, "upgrade": {upgrade: true}, "cleanup": {clean: true},
		"upgrade without debug variants": {upgrade: true, first: []string{"DEBUG", "true"}},
		"cleanup of debug variants":      {clean: true, first: []string{"DEBUG", "true"}},
	} {
		t.Run(name, func(t *testing.T) {
			moments := 0
			for kill(t, moments, how.upgrade, how.clean, how.first...) {
				moments++
			}
			t.Logf("killed at %d moments", moments)
			require.GreaterOrEqual(t, moments, 10)
		})
	}
}

// What is installed halfway can be cleaned up, too.
func TestKilledAnywhereItCanBeCleanedUp(t *testing.T) {
	p := payload(t, "a", "qemu-tdx")
	for budget := 0; ; budget++ {
		m := newMachine(t)
		before := m.state()
		m.budget = budget
		i, _ := m.installer(p, "DEBUG", "true")
		_, err := i.Install(m.context())
		m.budget = -1
		i, _ = m.installer(p)
		_, err2 := i.Cleanup(t.Context())
		require.NoError(t, err2)
		require.Equal(t, before, m.state(), "killed after %d steps", budget)
		if err == nil {
			return
		}
	}
}

func TestUpgrade(t *testing.T) {
	m := newMachine(t)
	a, b := payload(t, "a", "qemu-tdx"), payload(t, "b", "qemu-tdx")
	i, _ := m.installer(a)
	_, err := i.Install(t.Context())
	require.NoError(t, err)
	// A virtual machine has this open.
	running, err := os.Open(m.path("opt/kata/bin/containerd-shim-kata-v2"))
	require.NoError(t, err)
	defer running.Close()

	i, _ = m.installer(b)
	res, err := i.Install(t.Context())
	require.NoError(t, err)
	require.False(t, res.Restarted, "containerd was told nothing new")
	content := make([]byte, 100)
	n, err := running.Read(content)
	require.NoError(t, err)
	require.Equal(t, "shim a", string(content[:n]))
	require.FileExists(t, m.path("opt/kata/bin/b"))
	require.NoFileExists(t, m.path("opt/kata/bin/a"))
	config, err := os.ReadFile(m.path("opt/kata/share/defaults/kata-containers/runtimes/qemu-tdx/configuration-qemu-tdx.toml"))
	require.NoError(t, err)
	require.Contains(t, string(config), "# b\n")
}

// The digest in the handler's name tells one payload from another.
func TestHandlersOfAPayload(t *testing.T) {
	m := newMachine(t)
	p := payload(t, "a", "qemu-tdx")
	for _, digest := range []string{"012345", "abcdef"} {
		i, _ := m.installer(p)
		i.Node.Digest = digest
		res, err := i.Install(t.Context())
		require.NoError(t, err)
		require.True(t, res.Restarted)
		require.Equal(t, []string{"kata-qemu-tdx-" + digest, "runc"}, m.serves)
	}
	i, _ := m.installer(p, "MULTI_INSTALL_SUFFIX", "blue")
	i.Node.Digest = "abcdef"
	_, err := i.Install(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"kata-qemu-tdx-abcdef", "kata-qemu-tdx-blue-abcdef", "runc"}, m.serves)
}

// With DEBUG each shim has a variant, whose handler has the suffix and then the digest at
// the end. All of it goes when it is not wanted any more, and nothing of it is in the shim.
func TestDebugVariants(t *testing.T) {
	const directory = "opt/kata/share/defaults/kata-containers/"
	m := newMachine(t)
	before := m.state()
	p := payload(t, "a", "qemu-snp", "qemu-tdx")
	install := func(environment ...string) *installerResult {
		t.Helper()
		i, _ := m.installer(p, environment...)
		res, err := i.Install(t.Context())
		require.NoError(t, err)
		return res
	}
	install()
	plain := m.state()

	snapshotter := []string{"SNAPSHOTTER_HANDLER_MAPPING", "qemu-tdx:nydus"}
	debug := append([]string{"DEBUG", "true"}, snapshotter...)
	res := install(debug...)
	require.True(t, res.Restarted)
	require.Equal(t, []string{"kata-qemu-snp", "kata-qemu-snp-debug", "kata-qemu-tdx", "kata-qemu-tdx-debug"}, res.Handlers)
	require.Equal(t, []string{"kata-qemu-snp", "kata-qemu-snp-debug", "kata-qemu-tdx", "kata-qemu-tdx-debug", "runc"}, m.serves)
	debugged := m.state()
	for file, content := range plain {
		if strings.Contains(file, "/runtimes/") {
			require.Equal(t, content, debugged[file], "the shim itself says more")
		}
	}
	require.FileExists(t, m.path(directory+"custom-runtimes/kata-qemu-tdx-debug/configuration-qemu-tdx.toml"))
	require.FileExists(t, m.path(directory+"custom-runtimes/kata-qemu-tdx-debug/config.d/50-overrides.toml"))
	dropIn, err := os.ReadFile(m.path("etc/containerd/conf.d/kata-deploy.toml"))
	require.NoError(t, err)
	var config struct {
		Plugins map[string]struct {
			Containerd struct {
				Runtimes map[string]struct {
					Snapshotter string
					Options     struct{ ConfigPath string }
				}
			}
		}
	}
	require.NoError(t, toml.Unmarshal(dropIn, &config))
	runtime := config.Plugins["io.containerd.cri.v1.runtime"].Containerd.Runtimes["kata-qemu-tdx-debug"]
	require.Equal(t, m.path(directory+"custom-runtimes/kata-qemu-tdx-debug/configuration-qemu-tdx.toml"), runtime.Options.ConfigPath)
	require.Equal(t, "nydus", runtime.Snapshotter)
	require.False(t, install(debug...).Restarted, "containerd was started again for nothing")
	require.Equal(t, debugged, m.state())

	// One shim less, then without.
	install("DEBUG", "true", "SHIMS", "qemu-tdx")
	require.NoDirExists(t, m.path(directory+"custom-runtimes/kata-qemu-snp-debug"))
	require.DirExists(t, m.path(directory+"custom-runtimes/kata-qemu-tdx-debug"))
	install()
	require.Equal(t, plain, m.state())

	// Another digest is another handler with the same configuration.
	for _, digest := range []string{"012345", "abcdef"} {
		i, _ := m.installer(p, "DEBUG", "true", "MULTI_INSTALL_SUFFIX", "blue", "SHIMS", "qemu-tdx")
		i.Node.Digest = digest
		_, err := i.Install(t.Context())
		require.NoError(t, err)
		require.Subset(t, m.serves, []string{"kata-qemu-tdx-blue-" + digest, "kata-qemu-tdx-blue-debug-" + digest})
		entries, err := os.ReadDir(m.path("opt/kata-blue/share/defaults/kata-containers/custom-runtimes"))
		require.NoError(t, err)
		require.Len(t, entries, 2)
		require.Equal(t, "kata-qemu-tdx-blue-debug", entries[1].Name())
	}
	i, _ := m.installer(p, "MULTI_INSTALL_SUFFIX", "blue")
	_, err = i.Cleanup(t.Context())
	require.NoError(t, err)
	require.Equal(t, plain, m.state())
	install(debug...)
	i, _ = m.installer(p)
	_, err = i.Cleanup(t.Context())
	require.NoError(t, err)
	require.Equal(t, before, m.state())

	// On CRI-O, too.
	i, _ = m.installer(p, "DEBUG", "true", "CONTAINER_RUNTIME_VERSION", "cri-o://1.33.1", "PULL_TYPE_MAPPING", "qemu-tdx:guest-pull")
	i.Cluster, i.Services, i.Lock = nil, nil, ""
	_, err = i.Install(t.Context())
	require.NoError(t, err)
	dropIn, err = os.ReadFile(m.path("etc/crio/crio.conf.d/99-kata-deploy"))
	require.NoError(t, err)
	var crio struct {
		CRIO struct {
			Runtime struct {
				Runtimes map[string]struct {
					Config string `toml:"runtime_config_path"`
					Pull   bool   `toml:"runtime_pull_image"`
				}
			}
		}
	}
	require.NoError(t, toml.Unmarshal(dropIn, &crio))
	require.Len(t, crio.CRIO.Runtime.Runtimes, 4)
	variant := crio.CRIO.Runtime.Runtimes["kata-qemu-tdx-debug"]
	require.Equal(t, m.path(directory+"custom-runtimes/kata-qemu-tdx-debug/configuration-qemu-tdx.toml"), variant.Config)
	require.True(t, variant.Pull)
	_, err = i.Cleanup(t.Context())
	require.NoError(t, err)
	require.Equal(t, before, m.state())
}

func TestTwoInstallations(t *testing.T) {
	m := newMachine(t)
	before := m.state()
	p := payload(t, "a", "qemu-tdx")
	first, _ := m.installer(p)
	_, err := first.Install(t.Context())
	require.NoError(t, err)
	alone := m.state()
	second, _ := m.installer(p, "MULTI_INSTALL_SUFFIX", "blue")
	m.claimed = func() error { return nil }
	_, err = second.Install(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"kata-qemu-tdx", "kata-qemu-tdx-blue", "runc"}, m.serves)
	require.FileExists(t, m.path("opt/kata-blue/bin/containerd-shim-kata-v2"))
	require.Equal(t, map[string]string{"zone": "a", shared: "true", one: "true", blue: "true"}, m.labels())
	_, err = second.Cleanup(t.Context())
	require.NoError(t, err)
	require.Equal(t, alone, m.state())
	_, err = second.Install(t.Context())
	require.NoError(t, err)
	_, err = first.Cleanup(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[string]string{"zone": "a", shared: "true", blue: "true"}, m.labels())
	require.Equal(t, []string{"kata-qemu-tdx-blue", "runc"}, m.serves)
	_, err = second.Cleanup(t.Context())
	require.NoError(t, err)
	require.Equal(t, before, m.state())
}

// TestAnOperatorIsTold says that nothing is left when that is so, and not before: the
// operator goes on then.
func TestAnOperatorIsTold(t *testing.T) {
	m := newMachine(t)
	p := payload(t, "a", "qemu-tdx")
	first, _ := m.installer(p)
	second, _ := m.installer(p, "MULTI_INSTALL_SUFFIX", "blue")
	first.DoneLabel, second.DoneLabel = "cleanup", "cleanup"
	_, err := first.Install(t.Context())
	require.NoError(t, err)
	_, err = second.Install(t.Context())
	require.NoError(t, err)
	_, err = first.Cleanup(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[string]string{"zone": "a", shared: "true", blue: "true"}, m.labels(), "another one is there")
	m.restart = func() error {
		require.Equal(t, map[string]string{"zone": "a"}, m.labels(), "it is not done")
		return nil
	}
	for range 2 {
		_, err = second.Cleanup(t.Context())
		require.NoError(t, err)
		require.Equal(t, map[string]string{"zone": "a", shared: "cleanup"}, m.labels())
	}
	_, err = second.Reset(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[string]string{"zone": "a"}, m.labels())
}

func TestWhatIsRefusedTouchesNothing(t *testing.T) {
	for name, tc := range map[string]struct {
		prepare     func(m *machine)
		environment []string
		want        string
		code        int
	}{
		"broken configuration": {
			func(m *machine) {
				require.NoError(t, os.WriteFile(m.path("etc/containerd/config.toml"), []byte("version = 3\n[plugins\n"), 0o600))
			}, nil, "config.toml:2:", exitcode.BadInput,
		},
		"another machine": {
			func(m *machine) { require.NoError(t, os.WriteFile(m.path("etc/machine-id"), []byte("def\n"), 0o600)) },
			nil, "this machine's ID is def, the node's abc: the node's name is wrong", exitcode.BadInput,
		},
		"no machine ID": {
			func(m *machine) { require.NoError(t, os.Remove(m.path("etc/machine-id"))) },
			nil, "machine-id is not there: mount the node's", exitcode.BadInput,
		},
		"a machine that was named": {func(*machine) {}, []string{"NODE_MACHINE_ID", "def"}, "this machine's ID is abc, the node's def", exitcode.BadInput},
		"a shim that is not there": {func(*machine) {}, []string{"SHIMS", "fc"}, "the payload has no fc, only qemu-tdx", exitcode.BadInput},
		"a file in the way": {
			func(m *machine) { require.NoError(t, os.WriteFile(m.path("opt"), nil, 0o600)) }, nil, "cannot be written to", exitcode.LocalIO,
		},
		"no such node": {
			func(m *machine) {
				require.NoError(t, m.client.CoreV1().Nodes().Delete(t.Context(), "n", metav1.DeleteOptions{}))
				_, err := m.client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}, metav1.CreateOptions{})
				require.NoError(t, err)
			}, nil, "CONTAINER_RUNTIME_VERSION is not set", exitcode.BadInput,
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			tc.prepare(m)
			before := m.state()
			i, _ := m.installer(payload(t, "a", "qemu-tdx"), tc.environment...)
			_, err := i.Install(t.Context())
			require.ErrorContains(t, err, "host-check: ")
			require.ErrorContains(t, err, tc.want)
			require.Equal(t, tc.code, exitcode.Of(err))
			require.Equal(t, before, m.state())
			require.Empty(t, m.restarts)
		})
	}
	m := newMachine(t)
	i, _ := m.installer(payload(t, "a", "qemu-tdx"), "MULTI_INSTALL_SUFFIX", strings.Repeat("b", 32))
	i.Node.Digest = strings.Repeat("0", 32)
	_, err := i.Install(t.Context())
	require.ErrorContains(t, err, "Kubernetes takes 63: choose a shorter suffix or digest")
	i.Node.Digest = "latest"
	_, err = i.Install(t.Context())
	require.ErrorContains(t, err, `"latest" is no prefix of a digest`)
}

// A runtime that does not take its configuration leaves the node not ready.
func TestARuntimeThatDoesNotListen(t *testing.T) {
	m := newMachine(t)
	m.deaf = true
	i, _ := m.installer(payload(t, "a", "qemu-tdx"))
	_, err := i.Install(t.Context())
	require.ErrorContains(t, err, "cri: containerd was started again and does not know kata-qemu-tdx, only runc")
	require.Equal(t, map[string]string{"zone": "a", shared: "false", one: "false"}, m.labels())
	m.deaf = false
	res, err := i.Install(t.Context())
	require.NoError(t, err)
	require.True(t, res.Restarted)
	require.Equal(t, "true", m.labels()[shared])

	// One that lost what it knew.
	m.serves = []string{"runc"}
	res, err = i.Install(t.Context())
	require.NoError(t, err)
	require.True(t, res.Restarted)
}

// What was written before the runtime could be started again is not forgotten.
func TestARestartThatFails(t *testing.T) {
	m := newMachine(t)
	p := payload(t, "a", "qemu-tdx")
	i, _ := m.installer(p)
	_, err := i.Install(t.Context())
	require.NoError(t, err)
	// The same handlers with another snapshotter: only a start tells them apart.
	i, _ = m.installer(p, "SNAPSHOTTER_HANDLER_MAPPING", "qemu-tdx:nydus")
	m.restart = func() error { return errors.New("job failed") }
	_, err = i.Install(t.Context())
	require.ErrorContains(t, err, "cri: job failed")
	m.restart = nil
	restarts := len(m.restarts)
	res, err := i.Install(t.Context())
	require.NoError(t, err)
	require.True(t, res.Restarted)
	require.Len(t, m.restarts, restarts+1)

	m.restart = func() error { return errors.New("job failed") }
	_, err = i.Cleanup(t.Context())
	require.ErrorContains(t, err, "restart: job failed")
	m.restart = nil
	cleaned, err := i.Cleanup(t.Context())
	require.NoError(t, err)
	require.True(t, cleaned.Restarted)
	require.Equal(t, []string{"runc"}, m.serves)
}

// TestAVersionThatTheKubeletDoesNotKnow installs right after the runtime was started
// again: the kubelet did not reach it then, and says so for a while.
func TestAVersionThatTheKubeletDoesNotKnow(t *testing.T) {
	m := newMachine(t)
	n, err := m.client.CoreV1().Nodes().Get(t.Context(), "n", metav1.GetOptions{})
	require.NoError(t, err)
	n.Status.NodeInfo.ContainerRuntimeVersion = "containerd://Unknown"
	_, err = m.client.CoreV1().Nodes().UpdateStatus(t.Context(), n, metav1.UpdateOptions{})
	require.NoError(t, err)
	i, progress := m.installer(payload(t, "a", "qemu-tdx"))
	res, err := i.Install(t.Context())
	require.NoError(t, err)
	require.Equal(t, "containerd", res.Runtime)
	require.Contains(t, progress.String(), "host-check: containerd://2.1.9 can have kata-qemu-tdx")
}

func TestReset(t *testing.T) {
	m := newMachine(t)
	i, _ := m.installer(payload(t, "a", "qemu-tdx"))
	_, err := i.Install(t.Context())
	require.NoError(t, err)
	m.restarts = nil
	res, err := i.Reset(t.Context())
	require.NoError(t, err)
	require.True(t, res.Restarted)
	require.Equal(t, []string{"containerd.service", "kubelet.service"}, m.restarts)
	require.Equal(t, map[string]string{"zone": "a"}, m.labels())
	require.FileExists(t, m.path("opt/kata/bin/a"))
}

func TestFilesOnly(t *testing.T) {
	m := newMachine(t)
	before := m.state()
	i, _ := m.installer(payload(t, "a", "qemu-tdx"), "CONTAINER_RUNTIME_VERSION", "containerd://2.2.1")
	i.Cluster, i.Services, i.Lock = nil, nil, ""
	res, err := i.Install(t.Context())
	require.NoError(t, err)
	require.True(t, res.Restart)
	require.Empty(t, m.restarts)
	require.NotEqual(t, before, m.state())
	cleaned, err := i.Cleanup(t.Context())
	require.NoError(t, err)
	require.True(t, cleaned.Restart)
	require.Equal(t, before, m.state())
	_, err = i.Reset(t.Context())
	require.ErrorContains(t, err, "nothing to reset")
}

func TestTheLock(t *testing.T) {
	m := newMachine(t)
	i, progress := m.installer(payload(t, "a", "qemu-tdx"))
	other, err := lock.Acquire(t.Context(), i.Lock, func() {})
	require.NoError(t, err)
	before := m.state()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, errors.New("told to stop"))
	defer cancel()
	_, err = i.Install(ctx)
	require.ErrorContains(t, err, "waiting for another kata-deploy")
	require.Equal(t, "waiting for another kata-deploy on this node, which has "+i.Lock+"\n", progress.String())
	require.Equal(t, before, m.state())
	require.NoError(t, other.Release())
	_, err = i.Install(t.Context())
	require.NoError(t, err)
}

// readiness is a server of health.
type readiness struct{ said []bool }

func (r *readiness) SetReady(ready bool) { r.said = append(r.said, ready) }

func TestServe(t *testing.T) {
	for name, tc := range map[string]struct {
		daemonSet, hook, stays bool
	}{
		"uninstalled":                  {},
		"one pod of an upgrade":        {daemonSet: true, stays: true},
		"Helm has deleted it, for now": {daemonSet: true, hook: true},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			before := m.state()
			environment := []string{"DAEMONSET_NAME", "kata-deploy"}
			if tc.hook {
				environment = append(environment, "HELM_POST_DELETE_HOOK", "true")
			}
			if tc.daemonSet {
				m.daemonSet()
			}
			i, progress := m.installer(payload(t, "a", "qemu-tdx"), environment...)
			health := &readiness{}
			ctx, terminate := context.WithCancel(t.Context())
			var installed map[string]string
			m.finished = func() error {
				require.Empty(t, health.said, "it was ready before pods may come")
				return nil
			}
			err := i.Serve(ctx, health, func(res *installerResult) error {
				require.Equal(t, []string{"kata-qemu-tdx"}, res.Handlers)
				installed = m.state()
				time.AfterFunc(50*time.Millisecond, terminate)
				return nil
			})
			require.NoError(t, err)
			require.Equal(t, []bool{true, false}, health.said)
			if tc.stays {
				require.Equal(t, installed, m.state())
				require.Contains(t, progress.String(), "cleanup: DaemonSet kata/kata-deploy is there and selects this node, so all stays\n")
			} else {
				require.Equal(t, before, m.state())
			}
		})
	}
}

// SIGTERM means cleanup also while it installs.
func TestStoppedWhileItInstalls(t *testing.T) {
	m := newMachine(t)
	before := m.state()
	i, _ := m.installer(payload(t, "a", "qemu-tdx"))
	ctx, terminate := context.WithCancel(t.Context())
	m.claimed = func() error { terminate(); return nil }
	health := &readiness{}
	require.NoError(t, i.Serve(ctx, health, func(*installerResult) error { require.Fail(t, "it was stopped"); return nil }))
	require.Equal(t, before, m.state())
	require.Equal(t, []bool{false}, health.said)
}

func TestServeFails(t *testing.T) {
	m := newMachine(t)
	m.deaf = true
	i, _ := m.installer(payload(t, "a", "qemu-tdx"))
	health := &readiness{}
	err := i.Serve(t.Context(), health, func(*installerResult) error { return nil })
	require.ErrorContains(t, err, "does not know kata-qemu-tdx")
	require.Empty(t, health.said)
	require.FileExists(t, filepath.Join(m.dir, "opt/kata/bin/a"), "the next attempt goes on from here")
}
