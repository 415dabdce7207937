//go:build payload

package snapshotter_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tests/suite/install"
	"github.com/kiln-build/kiln/tests/suite/install/look"
	"github.com/kiln-build/kiln/tests/suite/node"
)

const (
	// name is what containerd calls the snapshotter, and what a shim asks for it by.
	name = "nydus"
	unit = "nydus-for-kata-tee.service"
	// runs is where it listens while it runs.
	runs = "/run/nydus-for-kata-tee"
	// stores is where it keeps what it knows.
	stores = "/var/lib/nydus-for-kata-tee"
)

func TestMain(m *testing.M) {
	node.IfChild()
	os.Exit(m.Run())
}

// setUp gives the values by which the payload's snapshotter is set up, and all of the
// payload's shims use it.
func setUp(s *install.Own) map[string]any {
	shims := map[string]any{}
	for _, class := range s.Classes {
		shims[class] = map[string]any{"containerd": map[string]any{"snapshotter": name}}
	}
	return map[string]any{"snapshotter": map[string]any{"setup": []string{name}}, "shims": shims}
}

// run runs a program on the node and gives what it printed.
func run(t *testing.T, s *install.Own, program string, args ...string) string {
	t.Helper()
	out, err := s.Run(t.Context(), program, args...)
	require.NoError(t, err)
	return out
}

// property asks systemd for one of the unit's.
func property(t *testing.T, s *install.Own, property string) string {
	t.Helper()
	return strings.TrimSpace(run(t, s, "systemctl", "show", "--property="+property, "--value", unit))
}

// plugins gives what containerd says of each of its snapshotters.
func plugins(t *testing.T, s *install.Own) map[string]string {
	t.Helper()
	found := map[string]string{}
	for line := range strings.Lines(run(t, s, "ctr", "plugins", "ls")) {
		// TYPE ID PLATFORMS STATUS
		if fields := strings.Fields(line); len(fields) == 4 && fields[0] == "io.containerd.snapshotter.v1" {
			found[fields[1]] = fields[3]
		}
	}
	return found
}

// snapshotters gives the snapshotter of each handler, in the configuration that containerd
// makes of all its files.
func snapshotters(t *testing.T, s *install.Own) map[string]string {
	t.Helper()
	out, err := s.Node.Command(t.Context(), "containerd", "config", "dump").Output()
	require.NoError(t, err)
	var config struct {
		Plugins map[string]struct {
			Containerd struct {
				Runtimes map[string]struct {
					Snapshotter string `toml:"snapshotter"`
				} `toml:"runtimes"`
			} `toml:"containerd"`
		} `toml:"plugins"`
	}
	require.NoError(t, toml.Unmarshal(out, &config))
	found := map[string]string{}
	for handler, runtime := range config.Plugins["io.containerd.cri.v1.runtime"].Containerd.Runtimes {
		found[handler] = runtime.Snapshotter
	}
	return found
}

// requireRuns asserts that the snapshotter is a service of the node, that containerd knows
// it, and that the payload's handlers, and no others, use it.
func requireRuns(t *testing.T, s *install.Own) {
	t.Helper()
	s.RequireInstalled(t, install.Installation, "")
	require.Equal(t, "active", property(t, s, "ActiveState"))
	require.Equal(t, "enabled", property(t, s, "UnitFileState"), "it would not start with the node")
	require.Equal(t, "ok", plugins(t, s)[name])
	of := snapshotters(t, s)
	for _, class := range s.Names("") {
		require.Equal(t, name, of[class])
	}
	require.Empty(t, of["runc"])
}

// requireGone asserts that neither systemd nor containerd knows of it.
func requireGone(t *testing.T, s *install.Own) {
	t.Helper()
	require.Equal(t, "not-found", property(t, s, "LoadState"))
	require.Equal(t, "inactive", property(t, s, "ActiveState"))
	require.NotContains(t, plugins(t, s), name)
	require.False(t, s.Exists(runs), "%s is still there", runs)
}

// requireUsed pulls an image for the payload's handlers, and asserts that the snapshotter
// has it for them, but that nothing of its content came to the node: the guest pulls it.
func requireUsed(t *testing.T, s *install.Own, tag string) {
	t.Helper()
	image, err := node.SingleFileImage("/"+tag, []byte(tag))
	require.NoError(t, err)
	layers, err := image.Layers()
	require.NoError(t, err)
	require.Len(t, layers, 1)
	layer, err := layers[0].Digest()
	require.NoError(t, err)
	content, err := layers[0].DiffID()
	require.NoError(t, err)
	ref, err := s.Node.Push(t.Context(), tag, image)
	require.NoError(t, err)
	for _, handler := range s.Names("") {
		require.NoError(t, s.Pull(t.Context(), ref, handler))
	}
	// A chain of one layer has its name.
	require.Contains(t, run(t, s, "ctr", "--namespace=k8s.io", "snapshots", "--snapshotter="+name, "ls"), content.String())
	require.NotContains(t, run(t, s, "ctr", "--namespace=k8s.io", "content", "ls", "--quiet"), layer.String(), "the image's layer is on the node")
	seen, err := s.Look(t.Context(), look.Question{Trees: []string{stores}})
	require.NoError(t, err)
	require.NotEmpty(t, seen.Entries)
	for path := range seen.Entries {
		require.NotEqual(t, tag, filepath.Base(path), "the image's file is on the node")
	}

	// For runc, the same image comes to the node.
	require.NoError(t, s.Pull(t.Context(), ref, "runc"))
	require.Contains(t, run(t, s, "ctr", "--namespace=k8s.io", "content", "ls", "--quiet"), layer.String(), "this test would not have seen it")
}

// TestSnapshotter sets the payload's snapshotter up as people do, and takes it away again.
// Every step begins where the one before it ended.
func TestSnapshotter(t *testing.T) {
	s := install.Start(t)
	s.RestartAtWill(t)
	before := s.State(t)
	plain := s.Payload(t)
	release := s.ReleaseOf(t, plain.Name, s.Bundle.Receipt.Digest, setUp(s))

	step := func(name string, f func(t *testing.T)) {
		t.Helper()
		require.True(t, t.Run(name, f), "what follows would prove nothing")
	}
	step("set up", func(t *testing.T) {
		install.Apply(t, release)
		requireRuns(t, s)
		requireUsed(t, s, "first")
	})
	step("not set up any more", func(t *testing.T) {
		install.Apply(t, plain)
		s.RequireInstalled(t, install.Installation, "")
		requireGone(t, s)
	})
	step("set up again, on what it stored", func(t *testing.T) {
		install.Apply(t, release)
		requireRuns(t, s)
		requireUsed(t, s, "second")
	})
	step("killed", func(t *testing.T) {
		killed := property(t, s, "MainPID")
		run(t, s, "kill", "-9", killed)
		require.NoError(t, install.Until(t.Context(), install.Patience, func() (bool, error) {
			state, err := s.Node.Command(t.Context(), "systemctl", "show", "--property=MainPID,ActiveState", unit).Output()
			return err == nil && strings.Contains(string(state), "ActiveState=active") && !strings.Contains(string(state), "MainPID="+killed+"\n"), err
		}), "systemd did not start it again")
		requireUsed(t, s, "third")
	})
	step("uninstall", func(t *testing.T) {
		install.Remove(t, release)
		require.Equal(t, before, s.State(t))
		requireGone(t, s)
	})
}
