//go:build payload

package install_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kiln-build/kiln/tests/suite/install"
	"github.com/kiln-build/kiln/tests/suite/install/look"
	"github.com/kiln-build/kiln/tests/suite/node"
)

// refusalVariable is a regular expression for what the shim says where there is nothing
// to start a sandbox with.
const refusalVariable = "KILN_SHIM_REFUSAL"

func TestMain(m *testing.M) {
	node.IfChild()
	os.Exit(m.Run())
}

// requireShimReached runs a pod of a RuntimeClass as far as the node can: to the
// payload's own shim, which says what it lacks, or starts a sandbox where somebody's node
// lacks nothing.
func requireShimReached(t *testing.T, s *install.Setup, class string) {
	t.Helper()
	refusal := regexp.MustCompile(os.Getenv(refusalVariable))
	pods := s.Client.CoreV1().Pods(s.Namespace())
	spec := s.Waiting()
	spec.RuntimeClassName = &class
	pod, err := pods.Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "sandbox-"},
		Spec:       spec,
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		zero := int64(0)
		require.NoError(t, pods.Delete(context.Background(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero}))
	})
	var events []string
	ran := false
	err = install.Until(t.Context(), time.Minute, func() (bool, error) {
		if !s.NoHardware {
			now, err := pods.Get(t.Context(), pod.Name, metav1.GetOptions{})
			if err != nil || now.Status.Phase == corev1.PodRunning {
				ran = err == nil
				return ran, err
			}
		}
		if events, err = s.Events(t.Context(), s.Namespace(), pod.Name); err != nil {
			return false, err
		}
		return slices.ContainsFunc(events, func(e string) bool { return strings.HasPrefix(e, "FailedCreatePodSandBox: ") }), fmt.Errorf("its events are %q", events)
	})
	require.NoError(t, err, "the pod did not come as far as a sandbox")
	if ran {
		t.Logf("the shim of %s has started a sandbox: this node has the hardware", class)
		return
	}
	require.Regexp(t, refusal, strings.Join(events, "\n"), "this is not what the shim says where it has no hardware")
}

// TestInstall installs the payload on a node as people do, and takes it away again.
// Every step begins where the one before it ended.
func TestInstall(t *testing.T) {
	s := install.StartGiven(t)
	before := s.State(t)
	release := s.Payload(t)

	step := func(name string, f func(t *testing.T)) {
		t.Helper()
		require.True(t, t.Run(name, f), "what follows would prove nothing")
	}
	step("install", func(t *testing.T) {
		install.Apply(t, release)
		s.RequireInstalled(t, install.Installation, "")
	})
	for _, class := range s.Names("") {
		step("a pod reaches the shim of "+class, func(t *testing.T) { requireShimReached(t, s, class) })
	}
	step("install again", func(t *testing.T) {
		installed := s.State(t)
		inodes, err := s.Inodes(t.Context(), "/opt")
		require.NoError(t, err)
		replacePod(t, s, release)
		require.Equal(t, installed, s.State(t))
		again, err := s.Inodes(t.Context(), "/opt")
		require.NoError(t, err)
		require.Equal(t, inodes, again, "files were written again")
	})
	step("upgrade while pods of the old one exist", func(t *testing.T) { upgrade(t, s, release) })
	step("a second installation beside it", func(t *testing.T) { second(t, s) })
	step("uninstall", func(t *testing.T) {
		install.Remove(t, release)
		require.Equal(t, before, s.State(t))
	})
}

// replacePod makes the DaemonSet start the installer anew.
func replacePod(t *testing.T, s *install.Setup, r *install.Release) {
	t.Helper()
	pods, err := r.Pods(t.Context())
	require.NoError(t, err)
	require.Len(t, pods, 1)
	require.NoError(t, s.Client.CoreV1().Pods(install.Namespace).Delete(t.Context(), pods[0].Name, metav1.DeleteOptions{}))
	require.NoError(t, install.Until(t.Context(), install.Patience, func() (bool, error) {
		now, err := r.Pods(t.Context())
		return err == nil && len(now) == 1 && now[0].UID != pods[0].UID, err
	}))
	install.Ready(t, r)
}

// upgrade installs another payload over the one that is there, and comes back.
func upgrade(t *testing.T, s *install.Setup, first *install.Release) {
	class := s.Names("")[0]
	zero := int64(0)
	pods := s.Client.CoreV1().Pods(s.Namespace())
	spec := s.Waiting()
	spec.RuntimeClassName = &class
	pod, err := pods.Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "of-the-old"},
		Spec:       spec,
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	defer func() {
		require.NoError(t, pods.Delete(context.Background(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero}))
	}()

	// The other payload has another shim, and a sandbox that runs has the old one open.
	const program = "bin/containerd-shim-kata-v2"
	shim := filepath.Join(install.Installation, program)
	old := s.PublishedFile(t, program)
	newer := append(slices.Clone(old), 0)
	other := s.PublishOther(t, program, newer)
	installed := s.State(t)
	held, err := s.Hold(t.Context(), shim)
	require.NoError(t, err)

	install.Apply(t, s.ReleaseOf(t, "kata-deploy", other, nil))
	s.RequireServed(t, "")
	seen, err := s.Look(t.Context(), look.Question{Trees: []string{shim}})
	require.NoError(t, err)
	require.Equal(t, install.Digest(newer), seen.Entries[shim].SHA256, "the other payload is not installed")
	still, err := pods.Get(t.Context(), pod.Name, metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, pod.UID, still.UID, "the pod of the old payload is gone")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	digest, err := held(ctx)
	require.NoError(t, err)
	require.Equal(t, install.Digest(old), digest, "a file that a sandbox has open was changed")

	install.Apply(t, first)
	require.Equal(t, installed, s.State(t))
}

// second installs the payload once more, with a suffix, and takes that away.
func second(t *testing.T, s *install.Setup) {
	installed := s.State(t)
	blue := s.ReleaseOf(t, "kata-deploy-blue", s.Bundle.Receipt.Digest, map[string]any{"env": map[string]any{"multiInstallSuffix": "blue"}})
	install.Apply(t, blue)
	s.RequireInstalled(t, install.Installation+"-blue", "-blue")
	s.RequireInstalled(t, install.Installation, "")
	for _, class := range s.Names("-blue") {
		requireShimReached(t, s, class)
	}
	install.Remove(t, blue)
	require.Equal(t, installed, s.State(t))
}
