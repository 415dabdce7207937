package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bazelbuild/rules_go/go/runfiles"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kiln-build/kiln/deploy/kubernetes/clientset"
	"github.com/kiln-build/kiln/payload/receipt"
	"github.com/kiln-build/kiln/tests/suite/install/look"
	"github.com/kiln-build/kiln/tests/suite/node"
)

const (
	// kubeconfigVariable names the cluster to test on, nodeVariable the node of it.
	kubeconfigVariable = "KUBECONFIG"
	nodeVariable       = "KILN_NODE"
	// lookVariable names the program look, a runfile.
	lookVariable = "KILN_LOOK"
	// ownClusterVariable asks for a throw-away node that is used as if it were somebody's.
	ownClusterVariable = "KILN_OWN_CLUSTER"
)

// GivenNamespace is where on a given cluster the test's own pods are. While it is there,
// no other test uses the cluster.
const GivenNamespace = "kiln-node-test"

// releases are the names of all releases that the suite makes.
var releases = []string{"kata-deploy", "kata-deploy-blue"}

// lookPatience is for pulling an image of a few megabytes and running it.
const lookPatience = 2 * time.Minute

// given is a node of a cluster that somebody has. It is reached by the API server alone.
type given struct {
	config     *rest.Config
	client     clientset.Interface
	kubeconfig string
	node       *corev1.Node
	// helm is a program that is Helm when it is called so, and dir is for its files.
	helm, dir string
	// looker and pause are images by digest.
	looker, pause string

	closing sync.Once
	closed  error
	// namespace and installing say what there is to take away.
	namespace, installing bool
}

// StartGiven prepares a node of the cluster that KUBECONFIG names, on which nothing but
// the test's own may be touched, or a throw-away node where there is no KUBECONFIG.
func StartGiven(t testing.TB) *Setup {
	t.Helper()
	if os.Getenv(ownClusterVariable) != "" {
		return StartOwnCluster(t).Given(t)
	}
	kubeconfig := os.Getenv(kubeconfigVariable)
	if kubeconfig == "" {
		return Start(t).Setup
	}
	s := setup(t)
	require.NoError(t, reachable(s.Bundle.Receipt))
	s.Pushed, s.Pulled = s.Bundle.Receipt.Registry, s.Bundle.Receipt.Registry
	startGiven(t, s, kubeconfig)
	return s
}

// reachable tells whether a cluster can pull from the registry of a receipt.
func reachable(r *receipt.Receipt) error {
	host := r.Registry
	if host != receipt.Embedded && !receipt.Loopback(host) {
		return nil
	}
	return fmt.Errorf("the payload's registry is %q, which the cluster of KUBECONFIG cannot reach: test with --//payload:registry=HOST/PATH, and publish it there before by `bazel run --//payload:registry=HOST/PATH //payload:%s.publish`", host, r.Platform)
}

// startGiven prepares a node of the cluster of a kubeconfig for a setup, which knows its
// registry. What the test makes goes away with it, also when it fails or is told to end.
func startGiven(t testing.TB, s *Setup, kubeconfig string) {
	t.Helper()
	_, err := remote.Head(s.payload(t), registryOptions(t.Context())...)
	var answer *transport.Error
	if errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound {
		err = fmt.Errorf("%w: publish it by `bazel run --//payload:registry=HOST/PATH //payload:%s.publish`, with what --//payload:registry is here", err, s.Bundle.Receipt.Platform)
	}
	require.NoError(t, err, "the payload is pulled by its digest, %s", s.Bundle.Receipt.Digest)

	g := &given{kubeconfig: kubeconfig}
	// Not t.TempDir, which has the test's name in it: to Helm a comma begins another file.
	g.dir, err = os.MkdirTemp("", "helm")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(g.dir)) })
	g.config, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	require.NoError(t, err, "reading %s", kubeconfig)
	// Waiting asks ten times a second.
	g.config.QPS, g.config.Burst = 20, 40
	g.client, err = clientset.NewForConfig(g.config)
	require.NoError(t, err)
	nodes, err := g.client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err, "listing the nodes of the cluster of %s", kubeconfig)
	g.node, err = choose(nodes.Items, os.Getenv(nodeVariable), s.Bundle.Receipt.Manifests[0].Arch, askedLabels())
	require.NoError(t, err)
	t.Logf("testing on the node %s of %s", g.Name(), g.config.Host)

	options, err := node.FromRunfiles()
	require.NoError(t, err)
	g.helm = options.Kubernetes
	looker, err := runfiles.Rlocation(os.Getenv(lookVariable))
	require.NoError(t, err)
	g.looker = s.publishProgram(t, "/look", looker)
	g.pause = s.publishProgram(t, "/pause", options.Pause)
	t.Cleanup(func() { s.unpublish(t) })

	s.on(t, g)
	g.closeWith(t)
	require.NoError(t, g.claim(t.Context()))
	require.NoError(t, s.Untouched(t.Context()), "nothing was changed on the cluster")
	g.installing = true
}

// publishProgram publishes an image of one program beside the payload, and gives what
// the node pulls it by.
func (s *Setup) publishProgram(t testing.TB, path, file string) string {
	t.Helper()
	program, err := os.ReadFile(file)
	require.NoError(t, err)
	img, err := node.SingleFileImage(path, program)
	require.NoError(t, err)
	digest, err := img.Digest()
	require.NoError(t, err)
	ref := s.payload(t).Context().Digest(digest.String())
	require.NoError(t, remote.Write(ref, img, registryOptions(t.Context())...))
	s.published = append(s.published, ref)
	pulled, err := s.Bundle.Receipt.RepositoryAt(s.Pulled)
	require.NoError(t, err)
	return pulled.Digest(digest.String()).String()
}

// unpublish takes what the test has published away again. Not every registry lets its
// users do that; what has no tag is then garbage for the registry's owner to collect.
func (s *Setup) unpublish(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, ref := range s.published {
		if err := remote.Delete(ref, registryOptions(ctx)...); err != nil {
			t.Logf("the registry keeps %s, which has no tag: %v", ref, err)
		}
	}
}

// choose finds the node to test on: the named one, or the only one that can be it.
func choose(nodes []corev1.Node, named, arch string, labels map[string]string) (*corev1.Node, error) {
	var fit []*corev1.Node
	var why []string
	for i := range nodes {
		n := &nodes[i]
		if named != "" && n.Name != named {
			continue
		}
		if problem := unfit(n, arch, labels); problem != "" {
			why = append(why, n.Name+" "+problem)
			continue
		}
		fit = append(fit, n)
	}
	switch {
	case len(fit) == 1:
		return fit[0], nil
	case len(fit) > 1:
		var names []string
		for _, n := range fit {
			names = append(names, n.Name)
		}
		return nil, fmt.Errorf("%d nodes can be tested on, and the test is for one: name it with --test_env=%s=NODE, one of %s", len(fit), nodeVariable, strings.Join(names, ", "))
	case len(why) > 0:
		return nil, fmt.Errorf("no node can be tested on: %s", strings.Join(why, "; "))
	case named != "":
		return nil, fmt.Errorf("%s is %q, and the cluster has no such node", nodeVariable, named)
	default:
		return nil, errors.New("the cluster has no nodes")
	}
}

// unfit says why a node cannot be tested on.
func unfit(n *corev1.Node, arch string, labels map[string]string) string {
	ready := slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
	switch {
	case !ready:
		return "is not ready"
	case n.Spec.Unschedulable:
		return "is cordoned"
	case n.Status.NodeInfo.Architecture != arch:
		return fmt.Sprintf("is %s, the payload %s", n.Status.NodeInfo.Architecture, arch)
	case n.Labels[corev1.LabelHostname] == "":
		return "has no label " + corev1.LabelHostname
	}
	for _, taint := range n.Spec.Taints {
		if taint.Effect != corev1.TaintEffectPreferNoSchedule {
			return "has the taint " + taint.ToString()
		}
	}
	for key, value := range labels {
		// Whoever has the hardware is told so by node feature discovery. The test does
		// not say it of somebody's node.
		if n.Labels[key] != value {
			return fmt.Sprintf("has no label %s=%s, which the runtime classes ask for", key, value)
		}
	}
	return ""
}

// claim makes the namespace of the test.
func (g *given) claim(ctx context.Context) error {
	_, err := g.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: GivenNamespace,
		// Pods that mount a directory of the node are privileged to Kubernetes.
		Labels: map[string]string{"pod-security.kubernetes.io/enforce": "privileged"},
	}}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("the namespace %s is there: another test uses the cluster, or one was killed: if so, uninstall %s with Helm and delete the namespace: %w", GivenNamespace, strings.Join(releases, " and "), err)
	}
	if err != nil {
		return fmt.Errorf("making the namespace %s: %w", GivenNamespace, err)
	}
	g.namespace = true
	return g.accountReady(ctx)
}

// accountReady waits until pods can be made in the namespace.
func (g *given) accountReady(ctx context.Context) error {
	return Until(ctx, lookPatience, func() (bool, error) {
		_, err := g.client.CoreV1().ServiceAccounts(GivenNamespace).Get(ctx, "default", metav1.GetOptions{})
		return err == nil, err
	})
}

// Untouched fails if there is an installation on the node or in the cluster: the test
// would take somebody's away.
func (s *Setup) Untouched(ctx context.Context) error {
	var found []string
	labels, err := s.Labels(ctx)
	if err != nil {
		return err
	}
	for key := range labels {
		if key == ReadyLabel || strings.HasPrefix(key, ClaimLabel) {
			found = append(found, "the node's label "+key)
		}
	}
	classes, err := s.RuntimeClasses(ctx)
	if err != nil {
		return err
	}
	for _, name := range slices.Concat(s.Names(""), s.Names("-blue")) {
		if classes[name] != "" {
			found = append(found, "the RuntimeClass "+name)
		}
	}
	secrets, err := s.Client.CoreV1().Secrets(Namespace).List(ctx, metav1.ListOptions{
		LabelSelector: fmt.Sprintf("owner=helm,name in (%s)", strings.Join(releases, ",")),
	})
	if err != nil {
		return fmt.Errorf("looking for releases of Helm: %w", err)
	}
	for _, secret := range secrets.Items {
		found = append(found, "Helm's release "+secret.Labels["name"])
	}
	seen, err := s.Look(ctx, look.Question{Trees: []string{Installation, Installation + "-blue"}})
	if err != nil {
		return err
	}
	files := snapshot(seen)
	files.dropEmpty(Installation)
	files.dropEmpty(Installation + "-blue")
	if len(files) > 0 {
		found = append(found, "files in "+Installation)
	}
	if len(found) > 0 {
		slices.Sort(found)
		return fmt.Errorf("there is an installation already, which is somebody's: %s: uninstall it first", strings.Join(found, ", "))
	}
	return nil
}

// closeWith takes away what the test made when it ends, or is told to.
func (g *given) closeWith(t testing.TB) {
	t.Helper()
	signals := make(chan os.Signal, 1)
	done := make(chan struct{})
	// rules_go's own handler panics at once, with the cluster as it is.
	signal.Reset(syscall.SIGTERM)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		select {
		case s := <-signals:
			err := g.close()
			fmt.Fprintf(os.Stderr, "%s: the cluster was given back: %v\n", s, err)
			os.Exit(1)
		case <-done:
		}
	}()
	t.Cleanup(func() {
		signal.Stop(signals)
		close(done)
		require.NoError(t, g.close(), "something of the test is left on the cluster")
	})
}

// close takes away what the test made. It does so once.
func (g *given) close() error {
	g.closing.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*Patience)
		defer cancel()
		if g.installing {
			for _, name := range releases {
				g.closed = errors.Join(g.closed, g.Helm(ctx, "uninstall", name, "--namespace="+Namespace, "--ignore-not-found", "--wait", "--timeout="+Patience.String()))
			}
		}
		if g.namespace {
			g.closed = errors.Join(g.closed, g.deleteNamespace(ctx))
		}
	})
	return g.closed
}

func (g *given) deleteNamespace(ctx context.Context) error {
	namespaces := g.client.CoreV1().Namespaces()
	if err := namespaces.Delete(ctx, GivenNamespace, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting the namespace %s: %w", GivenNamespace, err)
	}
	err := Until(ctx, Patience, func() (bool, error) {
		_, err := namespaces.Get(ctx, GivenNamespace, metav1.GetOptions{})
		return apierrors.IsNotFound(err), err
	})
	if err != nil {
		return fmt.Errorf("waiting until the namespace %s is gone: %w", GivenNamespace, err)
	}
	return nil
}

func (g *given) Name() string       { return g.node.Name }
func (g *given) REST() *rest.Config { return g.config }
func (*given) Namespace() string    { return GivenNamespace }

func (g *given) Values() map[string]any {
	return map[string]any{"nodeSelector": map[string]any{corev1.LabelHostname: g.node.Labels[corev1.LabelHostname]}}
}

func (g *given) Waiting() corev1.PodSpec {
	return corev1.PodSpec{
		NodeSelector: map[string]string{corev1.LabelHostname: g.node.Labels[corev1.LabelHostname]},
		Containers:   []corev1.Container{{Name: "pause", Image: g.pause}},
	}
}

func (g *given) Give(name string, content []byte) (string, error) {
	path := filepath.Join(g.dir, name)
	if err := os.WriteFile(path, content, 0o644); err != nil {
		return "", fmt.Errorf("giving Helm a file: %w", err)
	}
	return path, nil
}

func (g *given) Helm(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, g.helm)
	cmd.Args = append([]string{"helm"}, args...)
	cmd.Env = append(os.Environ(), kubeconfigVariable+"="+g.kubeconfig)
	for _, kind := range []string{"CACHE", "CONFIG", "DATA"} {
		cmd.Env = append(cmd.Env, "HELM_"+kind+"_HOME="+g.dir)
	}
	_, err := output(cmd, "helm", args...)
	return err
}

// mountedAt is where the node's directories are in a pod that looks at them.
const mountedAt = "/node"

// lookingPod is a pod that sees of the node the directories that an installer may write
// to, and the container runtime's socket. It can change none of it.
func (g *given) lookingPod(args ...string) *corev1.Pod {
	var (
		yes, no   = true, false
		root      = int64(0)
		directory = corev1.HostPathDirectory
		into      = corev1.MountPropagationHostToContainer
	)
	container := corev1.Container{
		Name: "look", Image: g.looker, Args: args,
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: &no,
			ReadOnlyRootFilesystem:   &yes,
			RunAsUser:                &root,
			// Some files are only for their owner.
			Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"DAC_READ_SEARCH"}},
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
	}
	spec := corev1.PodSpec{
		NodeSelector:                 g.Waiting().NodeSelector,
		RestartPolicy:                corev1.RestartPolicyNever,
		AutomountServiceAccountToken: &no,
	}
	// /etc as a whole, since a mount of what is not there would make it.
	for name, path := range map[string]string{"etc": "/etc", "opt": "/opt", "runtime": filepath.Dir(runtimeSocket)} {
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
			HostPath: &corev1.HostPathVolumeSource{Path: path, Type: &directory},
		}})
		container.VolumeMounts = append(container.VolumeMounts, corev1.VolumeMount{
			Name: name, MountPath: mountedAt + path, ReadOnly: true, MountPropagation: &into,
		})
	}
	spec.Containers = []corev1.Container{container}
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{GenerateName: "look-"}, Spec: spec}
}

// startLooking makes a pod that looks at the node. The caller stops it.
func (g *given) startLooking(ctx context.Context, args ...string) (name string, stop func() error, err error) {
	pods := g.client.CoreV1().Pods(GivenNamespace)
	pod, err := pods.Create(ctx, g.lookingPod(args...), metav1.CreateOptions{})
	if err != nil {
		return "", nil, fmt.Errorf("making a pod that looks at the node: %w", err)
	}
	return pod.Name, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		zero := int64(0)
		if err := pods.Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
			return fmt.Errorf("deleting the pod %s: %w", pod.Name, err)
		}
		return nil
	}, nil
}

// wait waits until a pod that looks has said so many lines, and has ended if it shall,
// and gives them.
func (g *given) wait(ctx context.Context, name string, lines int, ended bool) ([]string, error) {
	pods := g.client.CoreV1().Pods(GivenNamespace)
	var said []string
	err := Until(ctx, lookPatience, func() (bool, error) {
		pod, err := pods.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		phase := pod.Status.Phase
		over := phase == corev1.PodSucceeded || phase == corev1.PodFailed
		if phase == corev1.PodPending || ended && !over {
			return false, fmt.Errorf("it is %s: %+v", phase, pod.Status.ContainerStatuses)
		}
		log, err := pods.GetLogs(name, &corev1.PodLogOptions{}).DoRaw(ctx)
		if err != nil {
			return false, fmt.Errorf("reading its log: %w", err)
		}
		said = strings.Split(strings.TrimSuffix(string(log), "\n"), "\n")
		// Each answer is one line of JSON; a failure ends with another one.
		return phase == corev1.PodFailed || len(log) > 0 && strings.HasSuffix(string(log), "\n") && len(said) >= lines, fmt.Errorf("it said %.200q", log)
	})
	if err != nil {
		events, failed := (&Cluster{Client: g.client}).Events(ctx, GivenNamespace, name)
		return nil, fmt.Errorf("waiting for the pod %s: %w: its events are %q %w", name, err, events, failed)
	}
	if len(said) < lines || strings.HasPrefix(said[len(said)-1], "error: ") {
		return nil, fmt.Errorf("the pod %s on the node says: %s", name, strings.Join(said, "\n"))
	}
	return said, nil
}

func (g *given) Look(ctx context.Context, q look.Question) (answer *look.Answer, err error) {
	question, err := json.Marshal(q)
	if err != nil {
		return nil, fmt.Errorf("encoding a question: %w", err)
	}
	name, stop, err := g.startLooking(ctx, "ask", mountedAt, string(question))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	said, err := g.wait(ctx, name, 1, true)
	if err != nil {
		return nil, err
	}
	answer = &look.Answer{}
	if err := json.Unmarshal([]byte(said[0]), answer); err != nil {
		return nil, fmt.Errorf("reading the answer of the pod %s, which may be cut: %w", name, err)
	}
	return answer, nil
}

func (g *given) Hold(ctx context.Context, path string) (func(context.Context) (string, error), error) {
	name, stop, err := g.startLooking(ctx, "hold", mountedAt, path)
	if err != nil {
		return nil, err
	}
	if _, err := g.wait(ctx, name, 1, false); err != nil {
		return nil, errors.Join(err, stop())
	}
	return func(ctx context.Context) (digest string, err error) {
		defer func() { err = errors.Join(err, stop()) }()
		said, err := g.wait(ctx, name, 2, true)
		if err != nil {
			return "", err
		}
		if err := json.Unmarshal([]byte(said[1]), &digest); err != nil {
			return "", fmt.Errorf("reading the answer of the pod %s: %w", name, err)
		}
		return digest, nil
	}, nil
}
