// Package install drives the installer on a Kubernetes node as people do, by its
// chart, and looks at what becomes of the node.
package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kiln-build/kiln/deploy/kubernetes/clientset"
	"github.com/kiln-build/kiln/tests/suite/install/look"
)

// Namespace is where the installer is installed.
const Namespace = "kube-system"

// The labels by which the installer says what became of a node.
const (
	ReadyLabel = "katacontainers.io/kata-runtime"
	ClaimLabel = "kata-deploy.katacontainers.io/"
)

const pause = 100 * time.Millisecond

// Cluster is a cluster, of whose nodes only one is looked at.
type Cluster struct {
	Host
	Client clientset.Interface
	// chart is the chart's archive.
	chart string
}

// New gives the cluster of a node, on which the chart in an archive is to be installed.
func New(host Host, chart string) (*Cluster, error) {
	client, err := clientset.NewForConfig(host.REST())
	if err != nil {
		return nil, err
	}
	return &Cluster{Host: host, Client: client, chart: chart}, nil
}

// Release is one installation of the chart, by Helm.
type Release struct {
	cluster *Cluster
	// Name is that of the release.
	Name   string
	values []map[string]any
}

// Release describes an installation; nothing is installed yet. Of values, later ones
// win.
func (c *Cluster) Release(name string, values ...map[string]any) *Release {
	return &Release{cluster: c, Name: name, values: values}
}

// Apply installs the release, or upgrades it. The installer may not be done yet.
func (r *Release) Apply(ctx context.Context) error {
	content, err := os.ReadFile(r.cluster.chart)
	if err != nil {
		return fmt.Errorf("reading the chart: %w", err)
	}
	chart, err := r.cluster.Give("chart.tgz", content)
	if err != nil {
		return err
	}
	args := []string{"upgrade", "--install", r.Name, chart, "--namespace=" + Namespace}
	for i, values := range r.values {
		if len(values) == 0 {
			continue
		}
		// YAML has JSON in it.
		content, err := json.Marshal(values)
		if err != nil {
			return fmt.Errorf("encoding the values of %s: %w", r.Name, err)
		}
		file, err := r.cluster.Give(fmt.Sprintf("%s-%d.yaml", r.Name, i), content)
		if err != nil {
			return err
		}
		args = append(args, "--values="+file)
	}
	return r.cluster.Helm(ctx, args...)
}

// Delete uninstalls the release. When it returns, the installer has cleaned up, and
// nothing of the release is there.
func (r *Release) Delete(ctx context.Context) error {
	err := r.cluster.Helm(ctx, "uninstall", r.Name, "--namespace="+Namespace, "--wait", "--timeout="+Patience.String())
	if err != nil {
		return fmt.Errorf("%w%s", err, r.blame())
	}
	return nil
}

// daemonSet gives the release's DaemonSet.
func (r *Release) daemonSet(ctx context.Context) (*appsv1.DaemonSet, error) {
	list, err := r.cluster.Client.AppsV1().DaemonSets(Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/instance=" + r.Name})
	if err != nil {
		return nil, fmt.Errorf("looking for the DaemonSet of %s: %w", r.Name, err)
	}
	if len(list.Items) != 1 {
		return nil, fmt.Errorf("%s has %d DaemonSets", r.Name, len(list.Items))
	}
	return &list.Items[0], nil
}

// Pods gives the installer's pods.
func (r *Release) Pods(ctx context.Context) ([]corev1.Pod, error) {
	ds, err := r.daemonSet(ctx)
	if err != nil {
		return nil, err
	}
	list, err := r.cluster.Client.CoreV1().Pods(Namespace).List(ctx, metav1.ListOptions{LabelSelector: "name=" + ds.Name})
	if err != nil {
		return nil, fmt.Errorf("listing the installer's pods: %w", err)
	}
	return list.Items, nil
}

// WaitReady waits until the installer of this very release says that it is done. An
// error has what its pods say.
func (r *Release) WaitReady(ctx context.Context) error {
	err := until(ctx, func() (bool, error) {
		ds, err := r.daemonSet(ctx)
		if err != nil {
			return false, err
		}
		s := ds.Status
		return s.ObservedGeneration == ds.Generation && s.DesiredNumberScheduled == 1 && s.UpdatedNumberScheduled == 1 && s.NumberReady == 1 && s.NumberUnavailable == 0,
			fmt.Errorf("%d pods wanted, %d of this release, %d ready", s.DesiredNumberScheduled, s.UpdatedNumberScheduled, s.NumberReady)
	})
	if err != nil {
		return fmt.Errorf("waiting until %s is ready: %w%s", r.Name, err, r.blame())
	}
	return nil
}

// blame gives what the installer's pods, and Kubernetes about them, say.
func (r *Release) blame() string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	pods, err := r.Pods(ctx)
	if err != nil {
		return "\n" + err.Error()
	}
	var text strings.Builder
	for _, p := range pods {
		for _, previous := range []bool{true, false} {
			log, err := r.cluster.Client.CoreV1().Pods(Namespace).GetLogs(p.Name, &corev1.PodLogOptions{Previous: previous}).DoRaw(ctx)
			if err == nil {
				fmt.Fprintf(&text, "\n--- %s (previous: %v)\n%s", p.Name, previous, log)
			}
		}
		events, err := r.cluster.Events(ctx, Namespace, p.Name)
		if err == nil {
			fmt.Fprintf(&text, "\n--- events of %s\n%s", p.Name, strings.Join(events, "\n"))
		}
	}
	return text.String()
}

// Events gives what Kubernetes says of a pod, as REASON: MESSAGE.
func (c *Cluster) Events(ctx context.Context, namespace, pod string) ([]string, error) {
	list, err := c.Client.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + pod})
	if err != nil {
		return nil, fmt.Errorf("listing the events of %s: %w", pod, err)
	}
	var out []string
	for _, e := range list.Items {
		out = append(out, e.Reason+": "+e.Message)
	}
	return out, nil
}

// Labels gives the labels of the node.
func (c *Cluster) Labels(ctx context.Context) (map[string]string, error) {
	n, err := c.Client.CoreV1().Nodes().Get(ctx, c.Name(), metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("reading the node: %w", err)
	}
	return n.Labels, nil
}

// SetLabel gives the node a label, as node feature discovery does.
func (c *Cluster) SetLabel(ctx context.Context, key, value string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": map[string]string{key: value}}})
	if err != nil {
		return fmt.Errorf("encoding a label: %w", err)
	}
	if _, err := c.Client.CoreV1().Nodes().Patch(ctx, c.Name(), types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("labelling the node: %w", err)
	}
	return nil
}

// RuntimeClasses gives handlers by the names of RuntimeClasses.
func (c *Cluster) RuntimeClasses(ctx context.Context) (map[string]string, error) {
	list, err := c.Client.NodeV1().RuntimeClasses().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing RuntimeClasses: %w", err)
	}
	handlers := map[string]string{}
	for _, class := range list.Items {
		handlers[class.Name] = class.Handler
	}
	return handlers, nil
}

// Handlers asks the container runtime itself which handlers it knows.
func (c *Cluster) Handlers(ctx context.Context) ([]string, error) {
	seen, err := c.Look(ctx, look.Question{Socket: runtimeSocket})
	if err != nil {
		return nil, err
	}
	return seen.Handlers, nil
}

// until asks until something is so. An answer that cannot be had now may come later;
// the last one is part of the error.
func until(ctx context.Context, done func() (bool, error)) error {
	for {
		ok, err := done()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(pause):
		}
	}
}

// Until asks until something is so, or the time is over.
func Until(ctx context.Context, patience time.Duration, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("it took longer than %s", patience))
	defer cancel()
	return until(ctx, done)
}
