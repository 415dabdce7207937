// Package kubernetes is what an installer says to the cluster of its node, and asks:
// the labels by which pods with a guest come to nodes that have one, the taints that
// keep them away until then, and whether a DaemonSet still wants the node.
package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kiln-build/kiln/deploy/kubernetes/clientset"
	"github.com/kiln-build/kiln/tools/exitcode"
)

const (
	// SharedLabel is that of all installations on a node: RuntimeClasses select it.
	SharedLabel = "katacontainers.io/kata-runtime"
	// InstanceLabels begins the label of each installation.
	InstanceLabels = "kata-deploy.katacontainers.io/"
	// DefaultInstance is an installation without a suffix.
	DefaultInstance = "default"

	// Ready is the value of both labels when pods may come, Pending before.
	Ready   = "true"
	Pending = "false"
)

// NamespaceFile has the namespace of the pod that this runs in.
const NamespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// Node is a node, as one installation on it sees it. Whoever changes it holds the
// lock of the node.
type Node struct {
	Client clientset.Interface
	// Name is that of the node.
	Name string
	// Suffix tells installations apart; empty is the default one.
	Suffix string
	// Patience is how long an API server may be out of reach: where the runtime and
	// the API server are one program, starting the one again ends the other.
	Patience time.Duration
	// Interval is how long to wait between two attempts.
	Interval time.Duration
}

// Connect gives the cluster of a kubeconfig file, or without one that of the pod that
// this runs in.
func Connect(kubeconfig string) (clientset.Interface, error) {
	var config *rest.Config
	var err error
	if kubeconfig != "" {
		config, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	} else {
		config, err = rest.InClusterConfig()
	}
	if err != nil {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("finding the cluster: %w", err))
	}
	config.UserAgent = "kata-deploy"
	config.Timeout = 30 * time.Second
	client, err := clientset.NewForConfig(config)
	if err != nil {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("finding the cluster: %w", err))
	}
	return client, nil
}

// Namespace gives the namespace of the pod that this runs in, as its file says.
func Namespace(file string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", exitcode.With(exitcode.BadInput, fmt.Errorf("finding this pod's namespace, where its DaemonSet is: %w", err))
	}
	return strings.TrimSpace(string(data)), nil
}

func (n *Node) instanceLabel() string {
	if n.Suffix == "" {
		return InstanceLabels + DefaultInstance
	}
	return InstanceLabels + n.Suffix
}

// Info is what the cluster knows of a node.
type Info struct {
	// RuntimeVersion is the node's container runtime, such as containerd://2.2.1.
	RuntimeVersion string
	// MachineID is the content of the machine's /etc/machine-id.
	MachineID string
}

// Info asks for what the kubelet told of the node.
func (n *Node) Info(ctx context.Context) (*Info, error) {
	node, err := n.get(ctx)
	if err != nil {
		return nil, err
	}
	info := node.Status.NodeInfo
	return &Info{RuntimeVersion: info.ContainerRuntimeVersion, MachineID: info.MachineID}, nil
}

// Claim says that this installation changes the node, before it does: pods that
// need it stay away until Finish. Another one that is ready stays so.
func (n *Node) Claim(ctx context.Context) error {
	return n.change(ctx, func(labels map[string]string) map[string]any {
		shared := Pending
		if n.others(labels)[Ready] {
			shared = Ready
		}
		return map[string]any{n.instanceLabel(): Pending, SharedLabel: shared}
	})
}

// Finish says that pods may come.
func (n *Node) Finish(ctx context.Context) error {
	return n.change(ctx, func(map[string]string) map[string]any {
		return map[string]any{n.instanceLabel(): Ready, SharedLabel: Ready}
	})
}

// Release says that this installation leaves the node. The shared label stays while
// another one holds it. A node that is gone has no labels.
func (n *Node) Release(ctx context.Context) error {
	err := n.change(ctx, func(labels map[string]string) map[string]any {
		var shared any
		if others := n.others(labels); others[Ready] {
			shared = Ready
		} else if len(others) > 0 {
			shared = Pending
		}
		return map[string]any{n.instanceLabel(): nil, SharedLabel: shared}
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// Leave says by the shared label that nothing is left on the node, if no other
// installation holds it. It is for who waits for that value.
func (n *Node) Leave(ctx context.Context, value string) error {
	return n.change(ctx, func(labels map[string]string) map[string]any {
		if len(n.others(labels)) > 0 {
			return nil
		}
		return map[string]any{SharedLabel: value}
	})
}

// others gives the values of other installations' labels.
func (n *Node) others(labels map[string]string) map[string]bool {
	values := map[string]bool{}
	for label, value := range labels {
		if strings.HasPrefix(label, InstanceLabels) && label != n.instanceLabel() {
			values[value] = true
		}
	}
	return values
}

// change sets labels; nil removes one. It does nothing if that is so already.
func (n *Node) change(ctx context.Context, decide func(labels map[string]string) map[string]any) error {
	return n.patch(ctx, func(node *corev1.Node) map[string]any {
		labels := decide(node.Labels)
		for label, value := range labels {
			if have, ok := node.Labels[label]; value == nil && !ok || ok && value == have {
				delete(labels, label)
			}
		}
		if len(labels) == 0 {
			return nil
		}
		return map[string]any{"metadata": map[string]any{"labels": labels}}
	})
}

// RemoveTaints removes taints from the node, by KEY or KEY:EFFECT. It gives those that
// were there.
func (n *Node) RemoveTaints(ctx context.Context, taints []string) (removed []string, err error) {
	err = n.patch(ctx, func(node *corev1.Node) map[string]any {
		removed = nil
		stay := []corev1.Taint{}
		for _, taint := range node.Spec.Taints {
			full := taint.Key + ":" + string(taint.Effect)
			if slices.Contains(taints, taint.Key) || slices.Contains(taints, full) {
				removed = append(removed, full)
				continue
			}
			stay = append(stay, taint)
		}
		if len(removed) == 0 {
			return nil
		}
		// The list is replaced as a whole: not if somebody changed it meanwhile.
		return map[string]any{
			"metadata": map[string]any{"resourceVersion": node.ResourceVersion},
			"spec":     map[string]any{"taints": stay},
		}
	})
	return removed, err
}

// patch changes the node by a merge patch that is made from how the node is; nil
// changes nothing.
func (n *Node) patch(ctx context.Context, decide func(*corev1.Node) map[string]any) error {
	return n.retry(ctx, fmt.Sprintf("changing node %s", n.Name), func() error {
		node, err := n.Client.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		change := decide(node)
		if change == nil {
			return nil
		}
		data, err := json.Marshal(change)
		if err != nil {
			return err
		}
		_, err = n.Client.CoreV1().Nodes().Patch(ctx, n.Name, types.MergePatchType, data, metav1.PatchOptions{FieldManager: "kata-deploy"})
		return err
	})
}

func (n *Node) get(ctx context.Context) (*corev1.Node, error) {
	var node *corev1.Node
	err := n.retry(ctx, fmt.Sprintf("asking for node %s", n.Name), func() (err error) {
		node, err = n.Client.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
		return err
	})
	return node, err
}

// retry asks again as long as the API server is out of reach.
func (n *Node) retry(ctx context.Context, what string, ask func() error) error {
	return retry(ctx, n.Patience, n.Interval, what, ask)
}

func retry(ctx context.Context, patience, interval time.Duration, what string, ask func() error) error {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		what := fmt.Errorf("%s: %w", what, err)
		if final(err) {
			code := exitcode.Failed
			if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
				code = exitcode.BadInput
			}
			return exitcode.With(code, what)
		}
		select {
		case <-ctx.Done():
			return exitcode.With(exitcode.Unreachable, errors.Join(what, context.Cause(ctx)))
		case <-deadline.C:
			return exitcode.With(exitcode.Unreachable, what)
		case <-time.After(interval):
		}
	}
}

// final tells whether asking again is of no use.
func final(err error) bool {
	return apierrors.IsNotFound(err) || apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) ||
		apierrors.IsInvalid(err) || apierrors.IsBadRequest(err)
}
