// Package install drives the installer on a Kubernetes node as people do, by its
// chart, and looks at what becomes of the node.
package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kiln-build/kiln/deploy/kubernetes/clientset"
	"github.com/kiln-build/kiln/deploy/manifests/render"
	"github.com/kiln-build/kiln/tests/suite/node"
)

// Namespace is where the installer is installed.
const Namespace = "kube-system"

// The labels by which the installer says what became of a node.
const (
	ReadyLabel = "katacontainers.io/kata-runtime"
	ClaimLabel = "kata-deploy.katacontainers.io/"
)

const (
	pause = 100 * time.Millisecond
	// owner is whose fields the objects of a release have.
	owner = "kiln-tests"
)

// Cluster is a cluster of one node.
type Cluster struct {
	Node    *node.Node
	Client  clientset.Interface
	dynamic dynamic.Interface
	mapper  *restmapper.DeferredDiscoveryRESTMapper
	chart   *render.Chart
}

// New gives the cluster of a node, on which the chart in a file is to be installed.
func New(n *node.Node, chart string) (*Cluster, error) {
	c := &Cluster{Node: n}
	var err error
	if c.Client, err = clientset.NewForConfig(n.REST()); err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	if c.dynamic, err = dynamic.NewForConfig(n.REST()); err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	c.mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(c.Client.Discovery()))
	if c.chart, err = render.Load(chart); err != nil {
		return nil, err
	}
	return c, nil
}

// Release is one installation of the chart.
type Release struct {
	cluster *Cluster
	// Name is that of the release.
	Name string
	// Objects are what the chart makes.
	Objects []*unstructured.Unstructured
}

// Release renders the chart; nothing is installed yet. Of values, later ones win.
func (c *Cluster) Release(name string, values ...map[string]any) (*Release, error) {
	objects, err := c.chart.Objects(render.Release{Name: name, Namespace: Namespace}, values...)
	if err != nil {
		return nil, err
	}
	return &Release{cluster: c, Name: name, Objects: objects}, nil
}

// resource finds where an object is to be sent.
func (c *Cluster) resource(o *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	mapping, err := c.mapper.RESTMapping(o.GroupVersionKind().GroupKind(), o.GroupVersionKind().Version)
	if err != nil {
		return nil, fmt.Errorf("finding the resource of %s %s: %w", o.GetKind(), o.GetName(), err)
	}
	if o.GetNamespace() != "" {
		return c.dynamic.Resource(mapping.Resource).Namespace(o.GetNamespace()), nil
	}
	return c.dynamic.Resource(mapping.Resource), nil
}

// Apply sends all objects of the release to the cluster.
func (r *Release) Apply(ctx context.Context) error {
	for _, o := range r.Objects {
		resource, err := r.cluster.resource(o)
		if err != nil {
			return err
		}
		data, err := json.Marshal(o)
		if err != nil {
			return fmt.Errorf("encoding %s %s: %w", o.GetKind(), o.GetName(), err)
		}
		force := true
		if _, err := resource.Patch(ctx, o.GetName(), types.ApplyPatchType, data, metav1.PatchOptions{FieldManager: owner, Force: &force}); err != nil {
			return fmt.Errorf("applying %s %s: %w", o.GetKind(), o.GetName(), err)
		}
	}
	return nil
}

// Delete takes the objects of the release away, in the order in which Helm does, and
// waits until they are gone. What they run may take its time to end.
func (r *Release) Delete(ctx context.Context) error {
	for _, o := range slices.Backward(r.Objects) {
		resource, err := r.cluster.resource(o)
		if err != nil {
			return err
		}
		policy := metav1.DeletePropagationForeground
		err = resource.Delete(ctx, o.GetName(), metav1.DeleteOptions{PropagationPolicy: &policy})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("deleting %s %s: %w", o.GetKind(), o.GetName(), err)
		}
		// The DaemonSet's pods need the account that is deleted next; and what is on its
		// way out cannot be installed again.
		err = until(ctx, func() (bool, error) {
			_, err := resource.Get(ctx, o.GetName(), metav1.GetOptions{})
			return apierrors.IsNotFound(err), err
		})
		if err != nil {
			return fmt.Errorf("waiting until %s %s is gone: %w", o.GetKind(), o.GetName(), err)
		}
	}
	return nil
}

// daemonSet gives the name of the release's DaemonSet.
func (r *Release) daemonSet() (string, error) {
	for _, o := range r.Objects {
		if o.GetKind() == "DaemonSet" {
			return o.GetName(), nil
		}
	}
	return "", errors.New("the chart makes no DaemonSet")
}

// Pods gives the installer's pods.
func (r *Release) Pods(ctx context.Context) ([]corev1.Pod, error) {
	name, err := r.daemonSet()
	if err != nil {
		return nil, err
	}
	list, err := r.cluster.Client.CoreV1().Pods(Namespace).List(ctx, metav1.ListOptions{LabelSelector: "name=" + name})
	if err != nil {
		return nil, fmt.Errorf("listing the installer's pods: %w", err)
	}
	return list.Items, nil
}

// WaitReady waits until the installer of this very release says that it is done. An
// error has what its pods say.
func (r *Release) WaitReady(ctx context.Context) error {
	name, err := r.daemonSet()
	if err != nil {
		return err
	}
	err = until(ctx, func() (bool, error) {
		ds, err := r.cluster.Client.AppsV1().DaemonSets(Namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		s := ds.Status
		return s.ObservedGeneration == ds.Generation && s.DesiredNumberScheduled == 1 && s.UpdatedNumberScheduled == 1 && s.NumberReady == 1 && s.NumberUnavailable == 0,
			fmt.Errorf("%d pods wanted, %d of this release, %d ready", s.DesiredNumberScheduled, s.UpdatedNumberScheduled, s.NumberReady)
	})
	if err != nil {
		return fmt.Errorf("waiting until %s is ready: %w%s", name, err, r.blame())
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
	n, err := c.Client.CoreV1().Nodes().Get(ctx, node.Name, metav1.GetOptions{})
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
	if _, err := c.Client.CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
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
	conn, err := grpc.NewClient("unix://"+filepath.Join(c.Node.Root(), "run/containerd/containerd.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("asking the container runtime: %w", err)
	}
	defer conn.Close()
	status, err := cri.NewRuntimeServiceClient(conn).Status(ctx, &cri.StatusRequest{})
	if err != nil {
		return nil, fmt.Errorf("asking the container runtime: %w", err)
	}
	var names []string
	for _, h := range status.GetRuntimeHandlers() {
		if h.GetName() != "" { // the default has no name
			names = append(names, h.GetName())
		}
	}
	slices.Sort(names)
	return names, nil
}

// Path gives the path, from here, of a file of the node.
func (c *Cluster) Path(path string) string { return filepath.Join(c.Node.Root(), path) }

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

// Run runs a program on the node and gives what it printed, in which an error is.
func (c *Cluster) Run(ctx context.Context, name string, args ...string) (string, error) {
	out, err := c.Node.Command(ctx, name, args...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("running %s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// Exists tells whether the node has a file.
func (c *Cluster) Exists(path string) bool {
	_, err := os.Lstat(c.Path(path))
	return err == nil
}
