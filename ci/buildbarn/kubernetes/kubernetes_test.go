package main_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/kiln-build/kiln/ci/buildbarn/config/kube"
)

func TestManifestsAreCurrent(t *testing.T) {
	rendered, err := kube.Default().Render()
	require.NoError(t, err)
	files, err := filepath.Glob("*.yaml")
	require.NoError(t, err)
	require.Len(t, files, len(rendered))
	for name, want := range rendered {
		got, err := os.ReadFile(name)
		require.NoError(t, err)
		require.Equal(t, string(want), string(got), "%s: bazel run //ci/buildbarn/kubernetes:update", name)
	}
}

// decode reads the manifests as the API server of the pinned version would: a field
// that it does not know, or one that is there twice, is an error.
func decode(t *testing.T) []runtime.Object {
	t.Helper()
	strict := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme.Scheme, scheme.Scheme, json.SerializerOptions{Yaml: true, Strict: true})
	files, err := filepath.Glob("*.yaml")
	require.NoError(t, err)
	var objects []runtime.Object
	for _, name := range files {
		if name == "kustomization.yaml" {
			continue // kustomize's own
		}
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
		for {
			document, err := documents.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			if strings.HasPrefix(string(document), "#") && !bytes.Contains(document, []byte("kind:")) {
				continue
			}
			object, _, err := strict.Decode(document, nil, nil)
			require.NoError(t, err, "%s: %s", name, document)
			objects = append(objects, object)
		}
	}
	require.Greater(t, len(objects), 20)
	return objects
}

func of[T any](objects []runtime.Object) []T {
	var all []T
	for _, object := range objects {
		if one, ok := object.(T); ok {
			all = append(all, one)
		}
	}
	return all
}

// workload is what makes pods.
type workload struct {
	kind, name string
	selector   *metav1.LabelSelector
	template   corev1.PodTemplateSpec
	replicas   *int32
	claims     []string
}

func workloads(objects []runtime.Object) []workload {
	var all []workload
	for _, d := range of[*appsv1.Deployment](objects) {
		all = append(all, workload{"Deployment", d.Name, d.Spec.Selector, d.Spec.Template, d.Spec.Replicas, nil})
	}
	for _, s := range of[*appsv1.StatefulSet](objects) {
		w := workload{"StatefulSet", s.Name, s.Spec.Selector, s.Spec.Template, s.Spec.Replicas, nil}
		for _, claim := range s.Spec.VolumeClaimTemplates {
			w.claims = append(w.claims, claim.Name)
		}
		all = append(all, w)
	}
	return all
}

// matching finds the workloads whose pods a selector means.
func matching(t *testing.T, all []workload, s *metav1.LabelSelector) []workload {
	t.Helper()
	selector, err := metav1.LabelSelectorAsSelector(s)
	require.NoError(t, err)
	var found []workload
	for _, w := range all {
		if selector.Matches(labels.Set(w.template.Labels)) {
			found = append(found, w)
		}
	}
	return found
}

func (w workload) containers() []corev1.Container {
	return slices.Concat(w.template.Spec.InitContainers, w.template.Spec.Containers)
}

// port finds the number of a port of the pods, by its number or name.
func (w workload) port(p intstr.IntOrString) (int32, bool) {
	for _, c := range w.containers() {
		for _, has := range c.Ports {
			if has.Name == p.StrVal && p.Type == intstr.String || has.ContainerPort == p.IntVal && p.Type == intstr.Int {
				return has.ContainerPort, true
			}
		}
	}
	return 0, false
}

func TestObjectsHaveNamesOfTheirOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, object := range decode(t) {
		meta := object.(metav1.Object)
		key := fmt.Sprintf("%T %s", object, meta.GetName())
		require.False(t, seen[key], key)
		seen[key] = true
		require.Empty(t, validation.IsDNS1123Label(meta.GetName()), key)
		if _, ok := object.(*corev1.Namespace); !ok {
			require.Equal(t, kube.Default().Namespace, meta.GetNamespace(), key)
		}
	}
}

func TestSelectorsMeanSomething(t *testing.T) {
	objects := decode(t)
	all := workloads(objects)
	require.NotEmpty(t, all)
	for _, w := range all {
		require.Len(t, matching(t, all, w.selector), 1, "%s %s selects its own pods only", w.kind, w.name)
		require.Equal(t, w.name, matching(t, all, w.selector)[0].name)
		for _, c := range w.template.Spec.TopologySpreadConstraints {
			require.NotEmpty(t, matching(t, all, c.LabelSelector), w.name)
		}
	}
	for _, s := range of[*corev1.Service](objects) {
		found := matching(t, all, metav1.SetAsLabelSelector(s.Spec.Selector))
		require.Len(t, found, 1, s.Name)
		for _, p := range s.Spec.Ports {
			number, ok := found[0].port(p.TargetPort)
			require.True(t, ok, "service %s: no port %s in the pods of %s", s.Name, p.TargetPort.String(), found[0].name)
			require.Equal(t, p.Port, number, "service %s", s.Name)
		}
	}
	for _, b := range of[*policyv1.PodDisruptionBudget](objects) {
		require.NotEmpty(t, matching(t, all, b.Spec.Selector), b.Name)
	}
	for _, n := range of[*networkingv1.NetworkPolicy](objects) {
		subject := matching(t, all, &n.Spec.PodSelector)
		require.NotEmpty(t, subject, n.Name)
		for _, in := range n.Spec.Ingress {
			requirePeers(t, all, n.Name, in.From)
			requirePorts(t, n.Name, subject, in.Ports)
		}
		for _, out := range n.Spec.Egress {
			requirePeers(t, all, n.Name, out.To)
			for _, peer := range out.To {
				if peer.PodSelector != nil {
					requirePorts(t, n.Name, matching(t, all, peer.PodSelector), out.Ports)
				}
			}
		}
	}
	for _, s := range of[*appsv1.StatefulSet](objects) {
		require.True(t, slices.ContainsFunc(of[*corev1.Service](objects), func(o *corev1.Service) bool {
			return o.Name == s.Spec.ServiceName && o.Spec.ClusterIP == corev1.ClusterIPNone
		}), "StatefulSet %s has no headless service", s.Name)
	}
}

func requirePeers(t *testing.T, all []workload, policy string, peers []networkingv1.NetworkPolicyPeer) {
	t.Helper()
	for _, peer := range peers {
		if peer.PodSelector != nil {
			require.NotEmpty(t, matching(t, all, peer.PodSelector), "policy %s", policy)
		}
	}
}

func requirePorts(t *testing.T, policy string, subjects []workload, ports []networkingv1.NetworkPolicyPort) {
	t.Helper()
	for _, p := range ports {
		require.True(t, slices.ContainsFunc(subjects, func(w workload) bool {
			_, ok := w.port(*p.Port)
			return ok
		}), "policy %s: nobody listens on %s", policy, p.Port.String())
	}
}

func TestReferencesExist(t *testing.T) {
	objects := decode(t)
	maps := map[string]*corev1.ConfigMap{}
	for _, m := range of[*corev1.ConfigMap](objects) {
		maps[m.Name] = m
	}
	secrets := kube.Secrets()
	used := map[string]bool{}
	for _, w := range workloads(objects) {
		volumes := slices.Clone(w.claims)
		for _, v := range w.template.Spec.Volumes {
			volumes = append(volumes, v.Name)
			if v.ConfigMap != nil {
				require.Contains(t, maps, v.ConfigMap.Name, w.name)
				used[v.ConfigMap.Name] = true
			}
			if v.Secret != nil {
				require.Contains(t, secrets, v.Secret.SecretName, w.name)
				used[v.Secret.SecretName] = true
			}
		}
		for _, c := range w.containers() {
			mounted := map[string]string{}
			for _, m := range c.VolumeMounts {
				require.Contains(t, volumes, m.Name, "%s: container %s", w.name, c.Name)
				mounted[m.MountPath] = m.Name
			}
			require.NotEmpty(t, c.Resources.Limits.Cpu().String(), c.Name)
			require.False(t, c.Resources.Limits.Memory().IsZero(), "%s: container %s has no memory limit", w.name, c.Name)
			for _, probe := range []*corev1.Probe{c.ReadinessProbe, c.LivenessProbe} {
				if probe == nil {
					continue
				}
				require.True(t, slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == probe.HTTPGet.Port.StrVal }))
			}
			// The configuration is there, and so is every file that it names.
			if file, ok := strings.CutPrefix(c.Command[len(c.Command)-1], "/config/"); ok {
				text := configuration(t, maps, w, file)
				for _, path := range paths(text) {
					require.True(t, provided(path, mounted, secrets, w.template.Spec.Volumes), "%s: %s names %s, which is not mounted", w.name, file, path)
				}
			}
		}
	}
	for name := range maps {
		require.True(t, used[name], "nothing uses the ConfigMap %s", name)
	}
	for name := range secrets {
		require.True(t, used[name], "nothing uses the Secret %s", name)
	}
}

func configuration(t *testing.T, maps map[string]*corev1.ConfigMap, w workload, file string) string {
	t.Helper()
	for _, v := range w.template.Spec.Volumes {
		if v.Name == "config" {
			require.Contains(t, maps[v.ConfigMap.Name].Data, file, w.name)
			return maps[v.ConfigMap.Name].Data[file]
		}
	}
	require.Fail(t, "no configuration", w.name)
	return ""
}

// paths finds the absolute paths in a configuration.
func paths(text string) []string {
	var found []string
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return r == '"' || r == '\n' }) {
		word = strings.TrimPrefix(word, "unix://")
		if strings.HasPrefix(word, "/") {
			found = append(found, word)
		}
	}
	return found
}

// provided says whether a file is in a volume that is mounted, and in its secret.
func provided(path string, mounted map[string]string, secrets map[string][]string, volumes []corev1.Volume) bool {
	dir := "/" + strings.SplitN(path[1:], "/", 2)[0]
	volume, ok := mounted[dir]
	if !ok {
		return false
	}
	for _, v := range volumes {
		if v.Name == volume && v.Secret != nil {
			return slices.Contains(secrets[v.Secret.SecretName], filepath.Base(path))
		}
	}
	return true
}

func TestAutoscalersScaleSomething(t *testing.T) {
	objects := decode(t)
	all := workloads(objects)
	scaled := map[string]bool{}
	for _, a := range of[*autoscalingv2.HorizontalPodAutoscaler](objects) {
		target := a.Spec.ScaleTargetRef
		i := slices.IndexFunc(all, func(w workload) bool { return w.kind == target.Kind && w.name == target.Name })
		require.GreaterOrEqual(t, i, 0, a.Name)
		require.Nil(t, all[i].replicas, "%s: the number of replicas is the autoscaler's, and applying the manifest must not reset it", a.Name)
		require.LessOrEqual(t, *a.Spec.MinReplicas, a.Spec.MaxReplicas)
		scaled[target.Name] = true
	}
	for _, w := range all {
		require.True(t, scaled[w.name] || w.replicas != nil, "%s has no number of replicas", w.name)
	}
}

// What runs other people's commands has no way to vouch for a result.
func TestRunnersHaveNoCredentials(t *testing.T) {
	runners := 0
	for _, w := range workloads(decode(t)) {
		require.False(t, *w.template.Spec.AutomountServiceAccountToken, w.name)
		require.True(t, *w.template.Spec.SecurityContext.RunAsNonRoot, w.name)
		for _, c := range w.containers() {
			require.False(t, *c.SecurityContext.AllowPrivilegeEscalation, w.name)
			require.Equal(t, []corev1.Capability{"ALL"}, c.SecurityContext.Capabilities.Drop, w.name)
			if c.Name == "runner" {
				runners++
				for _, m := range c.VolumeMounts {
					require.NotContains(t, []string{"credentials", "public", "keys"}, m.Name, w.name)
				}
			}
		}
	}
	require.Equal(t, len(kube.Default().Pools), runners)
}
