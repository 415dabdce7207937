package installer_test

import (
	"os"
	"testing"

	"github.com/pelletier/go-toml/v2"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// nydusSetUp is what the environment says where the payload's snapshotter is used.
var nydusSetUp = []string{"EXPERIMENTAL_SETUP_SNAPSHOTTER", "nydus", "SNAPSHOTTER_HANDLER_MAPPING", "qemu-tdx:nydus"}

const nydusUnit = "nydus-for-kata-tee.service"

func TestSnapshotter(t *testing.T) {
	m := newMachine(t)
	before := m.state()
	m.restart = func() error {
		require.True(t, m.enabled[nydusUnit])
		require.Contains(t, m.runs[nydusUnit], "ExecStart=/opt/kata/nydus-snapshotter/containerd-nydus-grpc --config /opt/kata/nydus-snapshotter/config-guest-pulling.toml"+
			" --nydus-overlayfs-path /opt/kata/nydus-snapshotter/nydus-overlayfs --root /var/lib/nydus-for-kata-tee --address /run/nydus-for-kata-tee/containerd-nydus-grpc.sock\n", "containerd was started before its snapshotter")
		return nil
	}
	i, progress := m.installer(withSnapshotter(t, payload(t, "a", "qemu-tdx", "qemu-snp"), "a"), nydusSetUp...)
	_, err := i.Install(t.Context())
	require.NoError(t, err)
	require.Contains(t, progress.String(), "cri: nydus runs as "+nydusUnit)
	dropIn, err := os.ReadFile(m.path("etc/containerd/conf.d/kata-deploy.toml"))
	require.NoError(t, err)
	var config struct {
		Proxies map[string]struct{ Type, Address string } `toml:"proxy_plugins"`
		Plugins map[string]struct {
			Annotations *bool `toml:"disable_snapshot_annotations"`
			Containerd  struct {
				Runtimes map[string]struct{ Snapshotter string }
			}
		}
	}
	require.NoError(t, toml.Unmarshal(dropIn, &config))
	require.Equal(t, map[string]struct{ Type, Address string }{
		"nydus": {"snapshot", "/run/nydus-for-kata-tee/containerd-nydus-grpc.sock"},
	}, config.Proxies)
	require.False(t, *config.Plugins["io.containerd.cri.v1.images"].Annotations)
	require.Equal(t, "nydus", config.Plugins["io.containerd.cri.v1.runtime"].Containerd.Runtimes["kata-qemu-tdx"].Snapshotter)
	require.Empty(t, config.Plugins["io.containerd.cri.v1.runtime"].Containerd.Runtimes["kata-qemu-snp"].Snapshotter)

	// Again, nothing changes; another one is started in its place.
	installed, running := m.state(), m.runs[nydusUnit]
	i, _ = m.installer(i.Payload, nydusSetUp...)
	res, err := i.Install(t.Context())
	require.NoError(t, err)
	require.False(t, res.Restarted)
	require.Equal(t, installed, m.state())
	i, _ = m.installer(withSnapshotter(t, payload(t, "b", "qemu-tdx"), "b"), nydusSetUp...)
	_, err = i.Install(t.Context())
	require.NoError(t, err)
	require.NotEqual(t, running, m.runs[nydusUnit])

	// Not asked for any more, it goes, and so it does with the installation.
	m.restart = nil
	p := i.Payload
	i, _ = m.installer(p)
	_, err = i.Install(t.Context())
	require.NoError(t, err)
	require.Empty(t, m.runs)
	require.NoFileExists(t, m.path(units+"/"+nydusUnit))
	i, _ = m.installer(p, nydusSetUp...)
	_, err = i.Install(t.Context())
	require.NoError(t, err)
	require.NotEmpty(t, m.runs)
	i, _ = m.installer(p, nydusSetUp...)
	_, err = i.Cleanup(t.Context())
	require.NoError(t, err)
	require.Equal(t, before, m.state())
}

// Each installation has one of its own.
func TestTwoSnapshotters(t *testing.T) {
	m := newMachine(t)
	before := m.state()
	p := withSnapshotter(t, payload(t, "a", "qemu-tdx"), "a")
	blue := append([]string{"MULTI_INSTALL_SUFFIX", "blue"}, nydusSetUp...)
	i, _ := m.installer(p, nydusSetUp...)
	_, err := i.Install(t.Context())
	require.NoError(t, err)
	one := m.state()
	i, _ = m.installer(p, blue...)
	_, err = i.Install(t.Context())
	require.NoError(t, err)
	require.Contains(t, m.runs["nydus-for-kata-tee-blue.service"], "--address /run/nydus-for-kata-tee-blue/")
	dropIn, err := os.ReadFile(m.path("etc/containerd/conf.d/kata-deploy-blue.toml"))
	require.NoError(t, err)
	require.Contains(t, string(dropIn), "[proxy_plugins.nydus-blue]")
	require.Contains(t, string(dropIn), "snapshotter = 'nydus-blue'")
	i, _ = m.installer(p, blue...)
	_, err = i.Cleanup(t.Context())
	require.NoError(t, err)
	require.Equal(t, one, m.state())
	i, _ = m.installer(p)
	_, err = i.Cleanup(t.Context())
	require.NoError(t, err)
	require.Equal(t, before, m.state())
}

// Killed at any moment and run again, the one of the new payload runs; killed at any
// moment and cleaned up, nothing does.
func TestKilledWhileASnapshotterComes(t *testing.T) {
	a := withSnapshotter(t, payload(t, "a", "qemu-tdx"), "a")
	b := withSnapshotter(t, payload(t, "b", "qemu-tdx"), "b")
	whole := newMachine(t)
	before := whole.state()
	i, _ := whole.installer(b, nydusSetUp...)
	_, err := i.Install(t.Context())
	require.NoError(t, err)
	installed := whole.state()

	for budget := 0; ; budget++ {
		m := newMachine(t)
		i, _ := m.installer(a, nydusSetUp...)
		_, err := i.Install(t.Context())
		require.NoError(t, err)
		m.budget = budget
		i, _ = m.installer(b, nydusSetUp...)
		_, killed := i.Install(m.context())
		m.budget = -1
		i, _ = m.installer(b, nydusSetUp...)
		_, err = i.Install(t.Context())
		require.NoError(t, err)
		require.Equal(t, installed, m.state(), "killed after %d steps", budget)

		m.budget = budget
		i, _ = m.installer(b, nydusSetUp...)
		_, killedAtCleanup := i.Cleanup(m.context())
		m.budget = -1
		i, _ = m.installer(b, nydusSetUp...)
		_, err = i.Cleanup(t.Context())
		require.NoError(t, err)
		require.Equal(t, before, m.state(), "killed after %d steps", budget)
		if killed == nil && killedAtCleanup == nil {
			require.GreaterOrEqual(t, budget, 10)
			return
		}
	}
}

func TestSnapshotterThatCannotBeSetUp(t *testing.T) {
	m := newMachine(t)
	before := m.state()
	i, _ := m.installer(payload(t, "a", "qemu-tdx"), nydusSetUp...)
	_, err := i.Install(t.Context())
	require.ErrorContains(t, err, "EXPERIMENTAL_SETUP_SNAPSHOTTER=nydus: this payload has no nydus snapshotter")
	require.Equal(t, exitcode.BadInput, exitcode.Of(err))
	require.Equal(t, before, m.state())

	i, _ = m.installer(withSnapshotter(t, payload(t, "a", "qemu-tdx"), "a"), nydusSetUp...)
	i.Cluster, i.Services = nil, nil
	i.Node.Settings.RuntimeVersion = "containerd://2.2.1"
	_, err = i.Install(t.Context())
	require.ErrorContains(t, err, "that starts a service, which is not done where only files are changed")
	require.Equal(t, before, m.state())

	i.Node.Settings.RuntimeVersion = "cri-o://1.34.0"
	_, err = i.Install(t.Context())
	require.ErrorContains(t, err, "this node has CRI-O, which knows no snapshotters")
	require.Equal(t, before, m.state())
}
