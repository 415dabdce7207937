//go:build payload

package faults_test

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/payload/image"
	"github.com/kiln-build/kiln/tests/suite/install"
	"github.com/kiln-build/kiln/tests/suite/node"
	"github.com/kiln-build/kiln/tests/suite/payloadtest"
	"github.com/kiln-build/kiln/tools/exitcode"
)

const (
	// onNode is where the payload's image is unpacked on the node, so that its
	// installer can be started, and killed, at will.
	onNode = "/var/lib/payload"
	// rounds is how often the installer is killed twice: as it installs, and as it
	// cleans up.
	rounds = 10
)

func TestMain(m *testing.M) {
	node.IfChild()
	os.Exit(m.Run())
}

// faults is a node on which the installer is run by hand.
type faults struct{ *install.Own }

// command gives the installer of the payload, to be run on the node.
func (f *faults) command(ctx context.Context, action string) *exec.Cmd {
	args := []string{
		action, "--node=" + node.Name, "--kubeconfig=" + f.Node.Kubeconfig(),
		"--artifacts=" + filepath.Join(onNode, image.ArtifactRoot, "opt/kata"),
	}
	if action == "install" {
		args = append(args, "--once")
	}
	return f.Node.Command(ctx, filepath.Join(onNode, image.Entrypoint), args...)
}

// run lets the installer end by itself, and gives its exit code and what it said.
func (f *faults) run(t *testing.T, action string) (code int, said string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), install.Patience)
	defer cancel()
	out, err := f.command(ctx, action).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), string(out)
	}
	require.NoError(t, err)
	return 0, string(out)
}

// must runs the installer, which must succeed.
func (f *faults) must(t *testing.T, action string) {
	t.Helper()
	code, said := f.run(t, action)
	require.Zero(t, code, said)
}

// refuses runs the installer, which must fail with a code, and one error that says
// what is wrong.
func (f *faults) refuses(t *testing.T, action string, code int, want string) {
	t.Helper()
	got, said := f.run(t, action)
	require.Equal(t, code, got, said)
	require.Equal(t, 1, strings.Count(said, "error: "), said)
	require.Contains(t, said[strings.Index(said, "error: "):], want)
}

// shell runs a command line on the node.
func (f *faults) shell(t *testing.T, line string) {
	t.Helper()
	_, err := f.Run(t.Context(), "sh", "-euc", line)
	require.NoError(t, err)
}

// TestFaults puts the installer into trouble. However it went, running it again brings
// what it would have brought at once, and removing it gives the node back as it was.
func TestFaults(t *testing.T) {
	f := &faults{install.Start(t)}
	require.NoError(t, os.Mkdir(f.Path(onNode), 0o755))
	_, err := payloadtest.PullFrom(t.Context(), f.Bundle, f.Pushed, f.Path(onNode))
	require.NoError(t, err)
	f.RestartAtWill(t)
	before := f.State(t)

	began := time.Now()
	f.must(t, "install")
	installing := time.Since(began)
	installed := f.State(t)
	require.NotEqual(t, before, installed)
	began = time.Now()
	f.must(t, "cleanup")
	cleaning := time.Since(began)
	require.Equal(t, before, f.State(t))
	t.Logf("alone it installs in %.1f s, and cleans up in %.1f s", installing.Seconds(), cleaning.Seconds())

	t.Run("killed at random moments", func(t *testing.T) {
		seed := uint64(time.Now().UnixNano())
		t.Logf("seed %d", seed)
		random := rand.New(rand.NewPCG(seed, 0))
		killed := 0
		for round := range rounds {
			for _, step := range []struct {
				action string
				takes  time.Duration
				want   *install.State
			}{{"install", installing, installed}, {"cleanup", cleaning, before}} {
				after := time.Duration(random.Int64N(int64(step.takes)))
				if f.kill(t, step.action, after) {
					killed++
				}
				f.must(t, step.action)
				require.Equal(t, step.want, f.State(t), "round %d: %s was killed after %s", round, step.action, after)
			}
		}
		t.Logf("%d of %d were killed before they were done", killed, 2*rounds)
		require.Greater(t, killed, rounds, "too many were done before they were killed")
	})

	t.Run("the disk is full", func(t *testing.T) {
		f.shell(t, "mount -t tmpfs -o size=8m,mode=755 tmpfs /opt")
		defer f.shell(t, "umount /opt")
		// An empty file system instead of what was there: only that may differ.
		empty := f.State(t)
		f.refuses(t, "install", exitcode.LocalIO, "no space left on device")
		f.shell(t, "mount -o remount,size=2g /opt")
		f.must(t, "install")
		f.RequireFiles(t, install.Installation)
		require.Equal(t, installed.Handlers, f.State(t).Handlers)
		f.must(t, "cleanup")
		// containerd makes directories of its own below the empty /opt.
		require.False(t, f.Exists(install.Installation))
		now := f.State(t)
		require.Equal(t, empty.Labels, now.Labels)
		require.Equal(t, empty.Handlers, now.Handlers)
	})

	t.Run("a host path is read-only", func(t *testing.T) {
		f.shell(t, "mount --bind /etc/containerd /etc/containerd; mount -o remount,bind,ro /etc/containerd")
		code, said := f.run(t, "install")
		f.shell(t, "umount /etc/containerd")
		require.Equal(t, exitcode.LocalIO, code, said)
		require.Contains(t, said, "read-only file system")
		f.must(t, "install")
		require.Equal(t, installed, f.State(t))
		f.must(t, "cleanup")
		require.Equal(t, before, f.State(t))
	})

	t.Run("containerd's configuration is broken", func(t *testing.T) {
		config := f.Path("/etc/containerd/config.toml")
		sound, err := os.ReadFile(config)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(config, append([]byte("[broken\n"), sound...), 0o644))
		broken := f.State(t)
		// Also after a failure: containerd would not start again with it.
		defer func() {
			require.NoError(t, os.WriteFile(config, sound, 0o644))
			require.Equal(t, before, f.State(t))
		}()
		f.refuses(t, "install", exitcode.BadInput, "/etc/containerd/config.toml:1")
		require.Equal(t, broken, f.State(t), "something was touched")
	})

	t.Run("the node is restarted in the middle", func(t *testing.T) {
		release := f.Payload(t)
		require.NoError(t, release.Apply(t.Context()))
		require.NoError(t, install.Until(t.Context(), install.Patience, func() (bool, error) {
			labels, err := f.Labels(t.Context())
			if err == nil && labels[install.ReadyLabel] != "false" {
				err = errors.New("the installer has not begun")
			}
			return labels[install.ReadyLabel] == "false", err
		}))
		require.NoError(t, f.Node.Restart(t.Context()))
		install.Ready(t, release)
		f.RequireInstalled(t, install.Installation, "")
		install.Remove(t, release)
		require.Equal(t, before, f.State(t))
	})
}

// kill starts the installer on the node and kills it after a time. It tells whether
// that came before the end.
func (f *faults) kill(t *testing.T, action string, after time.Duration) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), after)
	defer cancel()
	err := f.command(ctx, action).Run()
	return err != nil && ctx.Err() != nil
}

// TestAStaleInstallationDoesNotPass installs another payload than the one that the
// test is for. With handlers that carry the payload's digest nothing of it passes for
// this one.
func TestAStaleInstallationDoesNotPass(t *testing.T) {
	s := install.Start(t)
	other := s.PublishOther(t, "share/kiln/stale", []byte("of another payload\n"))
	digest := func(of string) map[string]any {
		return map[string]any{"env": map[string]any{"handlerDigest": prefix(of)}}
	}
	stale := s.ReleaseOf(t, "kata-deploy", other, digest(other))
	install.Apply(t, stale)
	handlers, err := s.Handlers(t.Context())
	require.NoError(t, err)
	for _, class := range s.Names("") {
		require.Contains(t, handlers, class+"-"+prefix(other))
		require.NotContains(t, handlers, class+"-"+prefix(s.Bundle.Receipt.Digest), "the other payload passes for this one")
	}
	install.Remove(t, stale)

	fresh := s.ReleaseOf(t, "kata-deploy", s.Bundle.Receipt.Digest, digest(s.Bundle.Receipt.Digest))
	install.Apply(t, fresh)
	handlers, err = s.Handlers(t.Context())
	require.NoError(t, err)
	classes, err := s.RuntimeClasses(t.Context())
	require.NoError(t, err)
	for _, class := range s.Names("") {
		want := class + "-" + prefix(s.Bundle.Receipt.Digest)
		require.Contains(t, handlers, want)
		require.Contains(t, slices.Collect(maps.Values(classes)), want)
	}
	install.Remove(t, fresh)
}

// prefix gives what a handler's name has of a payload's digest.
func prefix(digest string) string { return strings.TrimPrefix(digest, "sha256:")[:12] }
