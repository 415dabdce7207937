package install

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/kiln-build/kiln/tests/suite/install/look"
	"github.com/kiln-build/kiln/tests/suite/node"
)

// runtimeSocket is where containerd listens on a node.
const runtimeSocket = "/run/containerd/containerd.sock"

// Host is a node of a Kubernetes cluster, as far as the suite needs one: own is a
// throw-away node of the test's, given one of a cluster that somebody has.
type Host interface {
	// Name is the node's, as Kubernetes knows it.
	Name() string
	// REST says how its cluster is reached.
	REST() *rest.Config
	// Give brings a file to where Helm runs, and gives its path there.
	Give(name string, content []byte) (string, error)
	// Helm runs Helm for the cluster. An error has what it printed.
	Helm(ctx context.Context, args ...string) error
	// Look looks at the node.
	Look(ctx context.Context, q look.Question) (*look.Answer, error)
	// Hold holds a file of the node open, and gives what tells the digest of what was
	// held once the path is another file's.
	Hold(ctx context.Context, path string) (digest func(context.Context) (string, error), err error)
	// Namespace is where the test may make pods.
	Namespace() string
	// Waiting is a pod on this node that waits until it is deleted.
	Waiting() corev1.PodSpec
	// Values are those of the chart by which it installs on this node alone.
	Values() map[string]any
}

// own is a throw-away node.
type own struct{ node *node.Node }

func (own) Name() string         { return node.Name }
func (o own) REST() *rest.Config { return o.node.REST() }
func (own) Namespace() string    { return metav1.NamespaceDefault }

// Values are none: the cluster has no other node.
func (own) Values() map[string]any { return nil }

func (own) Waiting() corev1.PodSpec {
	return corev1.PodSpec{Containers: []corev1.Container{{Name: "pause", Image: node.PauseImage, ImagePullPolicy: corev1.PullNever}}}
}

// helmFiles is where on the node Helm finds what it is given.
const helmFiles = "/var/lib/helm"

func (o own) Give(name string, content []byte) (string, error) {
	dir := filepath.Join(o.node.Root(), helmFiles)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("giving Helm a file: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
		return "", fmt.Errorf("giving Helm a file: %w", err)
	}
	return filepath.Join(helmFiles, name), nil
}

func (o own) Helm(ctx context.Context, args ...string) error {
	_, err := output(o.node.Command(ctx, "helm", args...), "helm", args...)
	return err
}

func (o own) Look(ctx context.Context, q look.Question) (*look.Answer, error) {
	return look.Ask(ctx, o.node.Root(), q)
}

func (o own) Hold(_ context.Context, path string) (func(context.Context) (string, error), error) {
	held, err := look.Hold(o.node.Root(), path)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (string, error) {
		if err := held.WaitReplaced(ctx); err != nil {
			return "", err
		}
		return held.SHA256()
	}, nil
}

// output runs a command and gives what it printed, in which an error is.
func output(cmd *exec.Cmd, name string, args ...string) (string, error) {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("running %s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out), nil
}
