// Package tests renders the chart that people install, from the files that they
// install it from.
package tests

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kiln-build/kiln/deploy/manifests/render"
	"github.com/kiln-build/kiln/tools/exitcode"
)

const (
	namespace = "kata"
	digest    = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
)

type values = map[string]any

// image is what has no default.
var image = values{"image": values{"reference": "registry.example/kata-deploy/tdx", "tag": "@" + digest}}

// rendered is what a chart installs.
type rendered struct {
	daemonSet *appsv1.DaemonSet
	classes   map[string]*nodev1.RuntimeClass
	all       []runtime.Object
}

// container gives the only container of the DaemonSet.
func (r *rendered) container() *corev1.Container {
	return &r.daemonSet.Spec.Template.Spec.Containers[0]
}

// env gives the variables with a value of their own.
func (r *rendered) env() map[string]string {
	found := map[string]string{}
	for _, e := range r.container().Env {
		if e.ValueFrom == nil {
			found[e.Name] = e.Value
		}
	}
	return found
}

// mounts gives where each path of the node is in the container.
func (r *rendered) mounts() map[string]string {
	paths := map[string]string{}
	for _, v := range r.daemonSet.Spec.Template.Spec.Volumes {
		paths[v.Name] = v.HostPath.Path
	}
	found := map[string]string{}
	for _, m := range r.container().VolumeMounts {
		found[paths[m.Name]] = m.MountPath
	}
	return found
}

// decode reads documents as an API server does that takes nothing it does not know.
func decode(t *testing.T, documents [][]byte) *rendered {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{appsv1.AddToScheme, batchv1.AddToScheme, corev1.AddToScheme, nodev1.AddToScheme, rbacv1.AddToScheme} {
		require.NoError(t, add(scheme))
	}
	strict := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true})
	r := &rendered{classes: map[string]*nodev1.RuntimeClass{}}
	for _, d := range documents {
		object, _, err := strict.Decode(d, nil, nil)
		require.NoError(t, err, string(d))
		r.all = append(r.all, object)
		switch object := object.(type) {
		case *appsv1.DaemonSet:
			require.Nil(t, r.daemonSet, "there are two DaemonSets")
			r.daemonSet = object
		case *nodev1.RuntimeClass:
			require.NotContains(t, r.classes, object.Name)
			r.classes[object.Name] = object
		}
	}
	return r
}

// checkout is the chart as a checkout has it.
var checkout = sync.OnceValues(func() (*render.Chart, error) { return render.Load("../../chart") })

func documents(t *testing.T, given ...values) ([][]byte, error) {
	t.Helper()
	c, err := checkout()
	require.NoError(t, err)
	return c.Documents(render.Release{Name: "kata-deploy", Namespace: namespace}, given...)
}

func rendering(t *testing.T, given ...values) *rendered {
	t.Helper()
	found, err := documents(t, append([]values{image}, given...)...)
	require.NoError(t, err)
	r := decode(t, found)
	require.NotNil(t, r.daemonSet)
	return r
}

// only enables these shims alone.
func only(shims ...string) values {
	v := values{"disableAll": true}
	for _, s := range shims {
		v[s] = values{"enabled": true}
	}
	return values{"shims": v}
}

func TestDefaults(t *testing.T) {
	r := rendering(t)
	require.Equal(t, "registry.example/kata-deploy/tdx@"+digest, r.container().Image)
	require.Equal(t, []string{"install"}, r.container().Args)
	require.Empty(t, r.container().Command, "the payload's entry point is the installer")
	require.Equal(t, map[string]string{
		"DAEMONSET_NAME": "kata-deploy", "DEBUG": "false", "HEALTH_PORT": "8090", "K8S_DISTRIBUTION": "k8s",
		"SHIMS_X86_64": "clh fc qemu qemu-coco-dev qemu-snp qemu-tdx remote", "SHIMS_AARCH64": "clh fc qemu",
		"SHIMS_S390X": "qemu qemu-coco-dev qemu-se remote", "SHIMS_PPC64LE": "qemu remote",
	}, r.env())
	require.Contains(t, r.container().Env, corev1.EnvVar{Name: "NODE_NAME", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "spec.nodeName"}}})
	require.Equal(t, map[string]string{
		"/etc/containerd": "/etc/containerd", "/run/containerd": "/run/containerd", "/opt/kata": "/opt/kata",
		"/run/systemd/private": "/run/systemd/private", "/run/lock": "/run/lock", "/etc/machine-id": "/etc/machine-id",
		"/etc/systemd/system": "/etc/systemd/system",
	}, r.mounts())
	require.Equal(t, []string{"kata-clh", "kata-fc", "kata-qemu", "kata-qemu-coco-dev", "kata-qemu-se", "kata-qemu-snp", "kata-qemu-tdx", "kata-remote"}, slices.Sorted(maps.Keys(r.classes)))
}

func TestThePodIsNotPrivileged(t *testing.T) {
	r := rendering(t)
	pod := r.daemonSet.Spec.Template.Spec
	require.False(t, pod.HostPID || pod.HostNetwork || pod.HostIPC)
	c := r.container().SecurityContext
	require.False(t, *c.Privileged)
	require.False(t, *c.AllowPrivilegeEscalation)
	require.True(t, *c.ReadOnlyRootFilesystem)
	require.Equal(t, &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"DAC_OVERRIDE"}}, c.Capabilities)
	require.Equal(t, int64(600), *pod.TerminationGracePeriodSeconds)
	for what, probe := range map[string]*corev1.Probe{
		"/healthz": r.container().LivenessProbe, "/readyz": r.container().ReadinessProbe,
	} {
		require.Equal(t, what, probe.HTTPGet.Path)
		require.Equal(t, intstr.FromString("health"), probe.HTTPGet.Port)
	}
	require.Equal(t, "/healthz", r.container().StartupProbe.HTTPGet.Path)
	require.Equal(t, int32(8090), r.container().Ports[0].ContainerPort)
	require.Equal(t, "health", r.container().Ports[0].Name)
	require.Equal(t, intstr.FromInt32(1), *r.daemonSet.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable)
}

// TestRights holds what the installer may do to what it does, and the objects to
// each other.
func TestRights(t *testing.T) {
	for _, suffix := range []string{"", "blue"} {
		r := rendering(t, values{"env": values{"multiInstallSuffix": suffix}})
		name := "kata-deploy"
		if suffix != "" {
			name += "-" + suffix
		}
		var rules []rbacv1.PolicyRule
		subject := rbacv1.Subject{Kind: "ServiceAccount", Name: name, Namespace: namespace}
		seen := map[string]bool{}
		for _, object := range r.all {
			seen[object.GetObjectKind().GroupVersionKind().Kind] = true
			switch o := object.(type) {
			case *corev1.ServiceAccount:
				require.Equal(t, name, o.Name)
			case *rbacv1.ClusterRole:
				require.Equal(t, name, o.Name)
				rules = append(rules, o.Rules...)
			case *rbacv1.Role:
				require.Equal(t, name, o.Name)
				require.Equal(t, namespace, o.Namespace)
				rules = append(rules, o.Rules...)
			case *rbacv1.ClusterRoleBinding:
				require.Equal(t, rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}, o.RoleRef)
				require.Equal(t, []rbacv1.Subject{subject}, o.Subjects)
			case *rbacv1.RoleBinding:
				require.Equal(t, rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name}, o.RoleRef)
				require.Equal(t, []rbacv1.Subject{subject}, o.Subjects)
			}
		}
		for _, kind := range []string{"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"} {
			require.True(t, seen[kind], kind)
		}
		require.Equal(t, []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"get", "patch"}},
			{APIGroups: []string{"apps"}, Resources: []string{"daemonsets"}, ResourceNames: []string{name}, Verbs: []string{"get"}},
		}, rules)
		require.Equal(t, name, r.daemonSet.Spec.Template.Spec.ServiceAccountName)
	}
}

// TestUninstall holds what Helm runs before it deletes anything to what it is for: it
// may delete the DaemonSet and nothing else, and its pod is none of the DaemonSet's.
func TestUninstall(t *testing.T) {
	c, err := checkout()
	require.NoError(t, err)
	for suffix, name := range map[string]string{"": "kata-deploy", "blue": "kata-deploy-blue"} {
		given := []values{image, only("qemu-tdx"), {
			"env": values{"multiInstallSuffix": suffix}, "nodeSelector": values{"tier": "gold"},
			"imagePullSecrets": []any{values{"name": "mine"}}, "startupTaints": []any{"kata"},
		}}
		found, err := c.BeforeDelete(render.Release{Name: "kata-deploy", Namespace: namespace}, given...)
		require.NoError(t, err)
		installer := rendering(t, given...).daemonSet
		own := name + "-uninstall"
		subject := rbacv1.Subject{Kind: "ServiceAccount", Name: own, Namespace: namespace}
		var kinds []string
		for _, object := range decode(t, found).all {
			meta, ok := object.(metav1.Object)
			require.True(t, ok)
			require.Equal(t, own, meta.GetName())
			require.Equal(t, namespace, meta.GetNamespace())
			require.Equal(t, "pre-delete", meta.GetAnnotations()["helm.sh/hook"])
			require.Equal(t, "before-hook-creation,hook-succeeded", meta.GetAnnotations()["helm.sh/hook-delete-policy"])
			kinds = append(kinds, object.GetObjectKind().GroupVersionKind().Kind)
			switch o := object.(type) {
			case *rbacv1.Role:
				require.Equal(t, []rbacv1.PolicyRule{{APIGroups: []string{"apps"}, Resources: []string{"daemonsets"}, ResourceNames: []string{name}, Verbs: []string{"delete", "get"}}}, o.Rules)
			case *rbacv1.RoleBinding:
				require.Equal(t, rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: own}, o.RoleRef)
				require.Equal(t, []rbacv1.Subject{subject}, o.Subjects)
			case *batchv1.Job:
				pod := o.Spec.Template.Spec
				require.Equal(t, own, pod.ServiceAccountName)
				require.Len(t, pod.Containers, 1)
				require.Equal(t, installer.Spec.Template.Spec.Containers[0].Image, pod.Containers[0].Image)
				require.Equal(t, []string{"uninstall", "--daemonset=" + name}, pod.Containers[0].Args)
				require.Equal(t, installer.Spec.Template.Spec.NodeSelector, pod.NodeSelector)
				require.Equal(t, installer.Spec.Template.Spec.Affinity, pod.Affinity)
				require.Equal(t, installer.Spec.Template.Spec.Tolerations, pod.Tolerations)
				require.Equal(t, installer.Spec.Template.Spec.ImagePullSecrets, pod.ImagePullSecrets)
				require.Empty(t, pod.Volumes)
				require.True(t, *pod.Containers[0].SecurityContext.RunAsNonRoot)
				require.NotEqual(t, installer.Spec.Selector.MatchLabels["name"], o.Spec.Template.Labels["name"])
			}
		}
		require.Equal(t, "Job", kinds[len(kinds)-1], "it is run when the others are there")
		require.ElementsMatch(t, []string{"ServiceAccount", "Role", "RoleBinding", "Job"}, kinds)
	}
}

func TestSuffixAndDigest(t *testing.T) {
	r := rendering(t, only("qemu-tdx"), values{
		"env":            values{"multiInstallSuffix": "blue", "handlerDigest": "00112233", "installationPrefix": "/srv/"},
		"runtimeClasses": values{"createDefault": true, "defaultName": "kata-blue"},
	})
	require.Equal(t, "kata-deploy-blue", r.daemonSet.Name)
	require.Equal(t, "kata-deploy-blue", r.env()["DAEMONSET_NAME"])
	require.Equal(t, "blue", r.env()["MULTI_INSTALL_SUFFIX"])
	require.Equal(t, "00112233", r.env()["HANDLER_DIGEST"])
	require.Equal(t, "/srv/", r.env()["INSTALLATION_PREFIX"])
	require.Equal(t, "/srv/opt/kata-blue", r.mounts()["/srv/opt/kata-blue"])
	require.Equal(t, "kata-deploy-blue", r.daemonSet.Spec.Selector.MatchLabels["name"])
	require.Equal(t, "kata-deploy-blue", r.daemonSet.Spec.Template.Labels["name"])
	require.Equal(t, []string{"kata-blue", "kata-qemu-tdx-blue"}, slices.Sorted(maps.Keys(r.classes)))
	for _, c := range r.classes {
		require.Equal(t, "kata-qemu-tdx-blue-00112233", c.Handler, "what no other payload serves")
		require.Equal(t, map[string]string{
			"kata-deploy.katacontainers.io/blue": "true", "katacontainers.io/kata-runtime": "true", "intel.feature.node.kubernetes.io/tdx": "true",
		}, c.Scheduling.NodeSelector)
	}
}

func TestRuntimes(t *testing.T) {
	shims := values{"shims": values{
		"qemu-tdx": values{"containerd": values{"snapshotter": "nydus", "forceGuestPull": true}, "crio": values{"guestPull": true}},
		"qemu-se":  values{"containerd": values{"snapshotter": "overlayfs"}},
	}}
	r := rendering(t, shims)
	require.Equal(t, "qemu-tdx:nydus", r.env()["SNAPSHOTTER_HANDLER_MAPPING_X86_64"])
	require.Equal(t, "qemu-se:overlayfs", r.env()["SNAPSHOTTER_HANDLER_MAPPING_S390X"])
	require.Equal(t, "qemu-tdx", r.env()["EXPERIMENTAL_FORCE_GUEST_PULL_X86_64"])
	require.NotContains(t, r.env(), "EXPERIMENTAL_FORCE_GUEST_PULL_S390X")
	require.NotContains(t, r.env(), "PULL_TYPE_MAPPING_X86_64")

	r = rendering(t, shims, values{"containerRuntime": "crio"})
	require.Equal(t, "qemu-tdx:guest-pull", r.env()["PULL_TYPE_MAPPING_X86_64"])
	require.NotContains(t, r.env(), "SNAPSHOTTER_HANDLER_MAPPING_X86_64")
	require.Equal(t, "/etc/crio", r.mounts()["/etc/crio"])
	require.Equal(t, "/run/crio", r.mounts()["/run/crio"])
	require.NotContains(t, r.mounts(), "/etc/containerd", "nothing of a runtime that is not there is made")
	require.NotContains(t, r.mounts(), "/etc/systemd/system", "it has no snapshotter to take away")
}

func TestSnapshotter(t *testing.T) {
	r := rendering(t, only("qemu-tdx", "qemu-snp"), values{
		"snapshotter": values{"setup": []any{"nydus"}},
		"shims":       values{"qemu-tdx": values{"containerd": values{"snapshotter": "nydus"}}},
	})
	require.Equal(t, "nydus", r.env()["EXPERIMENTAL_SETUP_SNAPSHOTTER"])
	require.Equal(t, "qemu-tdx:nydus", r.env()["SNAPSHOTTER_HANDLER_MAPPING_X86_64"], "only what asks for it uses it")

	// It is not set up unless somebody asks for it; its unit's place is there, so that the
	// one that an earlier release set up can go.
	r = rendering(t, only("qemu-tdx"))
	require.NotContains(t, r.env(), "EXPERIMENTAL_SETUP_SNAPSHOTTER")
	require.Equal(t, "/etc/systemd/system", r.mounts()["/etc/systemd/system"])
}

func TestDistributions(t *testing.T) {
	for name, tc := range map[string]struct{ config, socket string }{
		"k8s":      {"/etc/containerd", "/run/containerd"},
		"k3s":      {"/var/lib/rancher/k3s/agent/etc/containerd", "/run/k3s/containerd"},
		"rke2":     {"/var/lib/rancher/rke2/agent/etc/containerd", "/run/k3s/containerd"},
		"k0s":      {"/etc/k0s", "/run/k0s"},
		"microk8s": {"/var/snap/microk8s/current/args", "/var/snap/microk8s/common/run"},
	} {
		r := rendering(t, values{"k8sDistribution": name})
		require.Equal(t, name, r.env()["K8S_DISTRIBUTION"])
		require.Equal(t, "/etc/containerd", r.mounts()[tc.config], name)
		require.Equal(t, tc.socket, r.mounts()[tc.socket], name)

		r = rendering(t, values{"k8sDistribution": name, "containerd": values{
			"configDir": "/srv/containerd", "configFileName": "mine.toml", "runtimeSocket": "/srv/run/my.sock",
		}})
		require.Equal(t, "/etc/containerd", r.mounts()["/srv/containerd"])
		require.Equal(t, "/srv/run", r.mounts()["/srv/run"])
		require.NotContains(t, r.mounts(), tc.socket)
		require.Equal(t, "mine.toml", r.env()["CONTAINERD_CONFIG_FILE_NAME"])
		require.Equal(t, []string{"install", "--cri-socket=/srv/run/my.sock"}, r.container().Args)
	}
}

func TestSettingsOfShims(t *testing.T) {
	r := rendering(t, only("qemu-tdx", "qemu-snp"), values{"debug": true, "shims": values{
		"qemu-tdx": values{
			"allowedHypervisorAnnotations": []any{"default_vcpus", "default_memory"},
			"agent":                        values{"httpsProxy": "http://proxy.example:3128", "noProxy": ".example,10.0.0.0/8"},
			"runtimeClass":                 values{"nodeSelector": values{"tier": "gold"}, "overhead": values{"memory": "1Gi"}},
		},
		"qemu-snp": values{"agent": values{"noProxy": "localhost"}, "runtimeClass": values{"overheadEnabled": false}},
	}})
	require.Equal(t, "true", r.env()["DEBUG"])
	require.Equal(t, "qemu-tdx:default_vcpus,default_memory", r.env()["ALLOWED_HYPERVISOR_ANNOTATIONS_X86_64"])
	require.Equal(t, "qemu-tdx=http://proxy.example:3128", r.env()["AGENT_HTTPS_PROXY"])
	require.Equal(t, "qemu-snp=localhost;qemu-tdx=.example,10.0.0.0/8", r.env()["AGENT_NO_PROXY"])
	tdx := r.classes["kata-qemu-tdx"]
	require.Equal(t, "gold", tdx.Scheduling.NodeSelector["tier"])
	require.Equal(t, int64(1<<30), tdx.Overhead.PodFixed.Memory().Value())
	require.Equal(t, int64(1000), tdx.Overhead.PodFixed.Cpu().MilliValue(), "what is not said stays")
	require.Nil(t, r.classes["kata-qemu-snp"].Overhead)

	r = rendering(t, values{"runtimeClasses": values{"overheadEnabled": false}, "shims": values{"remote": values{"runtimeClass": values{"overheadEnabled": true}}}})
	require.Nil(t, r.classes["kata-qemu"].Overhead)
	require.NotNil(t, r.classes["kata-remote"].Overhead)
	require.Empty(t, rendering(t, values{"runtimeClasses": values{"enabled": false}}).classes)
}

// TestDebugVariants holds a shim's variant to its shim: it is for the same nodes and takes
// as much of them. Of the shims themselves nothing differs.
func TestDebugVariants(t *testing.T) {
	for _, suffix := range []string{"", "blue"} {
		given := []values{only("qemu-tdx", "qemu-snp"), {
			"env":            values{"multiInstallSuffix": suffix, "handlerDigest": "00112233"},
			"defaultShim":    values{"amd64": "qemu-tdx"},
			"runtimeClasses": values{"createDefault": true, "defaultName": "kata-mine"},
			"shims":          values{"qemu-tdx": values{"runtimeClass": values{"nodeSelector": values{"tier": "gold"}, "overhead": values{"memory": "1Gi"}}}},
		}}
		without, with := rendering(t, given...), rendering(t, append(given, values{"debug": true})...)
		require.Equal(t, "true", with.env()["DEBUG"])
		require.Len(t, with.classes, 5)
		for name, class := range without.classes {
			require.Equal(t, class, with.classes[name])
			if name == "kata-mine" {
				continue
			}
			// kata-deploy.Node.handlers has the same order.
			variant := class.DeepCopy()
			variant.Name += "-debug"
			variant.Handler = variant.Name + "-00112233"
			require.Equal(t, variant, with.classes[variant.Name])
		}
		require.NotContains(t, with.classes, "kata-mine-debug")
	}
}

func TestWhichShims(t *testing.T) {
	off := values{"enabled": false}
	r := rendering(t, values{"shims": values{"clh": off, "fc": off, "qemu": off, "qemu-coco-dev": values{"supportedArches": []any{"s390x"}}}})
	require.Equal(t, "qemu-snp qemu-tdx remote", r.env()["SHIMS_X86_64"])
	require.NotContains(t, r.env(), "SHIMS_AARCH64", "nothing is left for it")
	require.NotContains(t, r.classes, "kata-qemu")
	require.Equal(t, "qemu", rendering(t, only("qemu")).env()["DEFAULT_SHIM_AARCH64"], "the only one")

	r = rendering(t, only("qemu-tdx", "qemu-snp"), values{
		"defaultShim":    values{"amd64": "qemu-snp"},
		"runtimeClasses": values{"createDefault": true},
	})
	require.Equal(t, "qemu-snp qemu-tdx", r.env()["SHIMS_X86_64"])
	require.Equal(t, "qemu-snp", r.env()["DEFAULT_SHIM_X86_64"])
	require.Equal(t, "kata-qemu-snp", r.classes["kata"].Handler)
	require.Equal(t, r.classes["kata-qemu-snp"].Overhead, r.classes["kata"].Overhead)
}

func TestWhichNodes(t *testing.T) {
	terms := func(r *rendered) []corev1.NodeSelectorTerm {
		return r.daemonSet.Spec.Template.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	}
	amd64 := corev1.NodeSelectorRequirement{Key: "kubernetes.io/arch", Operator: corev1.NodeSelectorOpIn, Values: []string{"amd64"}}
	r := rendering(t, only("qemu-tdx"))
	require.Equal(t, []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{amd64}}}, terms(r))
	require.Empty(t, r.daemonSet.Spec.Template.Spec.Tolerations)

	r = rendering(t, only("qemu-tdx"), values{
		"nodeSelector":  values{"tier": "gold"},
		"tolerations":   []any{values{"key": "mine", "operator": "Exists"}},
		"startupTaints": []any{"kata", "tee:NoSchedule"},
		"affinity": values{"nodeAffinity": values{"requiredDuringSchedulingIgnoredDuringExecution": values{"nodeSelectorTerms": []any{
			values{"matchExpressions": []any{values{"key": "zone", "operator": "Exists"}}},
			values{"matchFields": []any{values{"key": "metadata.name", "operator": "In", "values": []any{"one"}}}},
		}}}},
	})
	zone := corev1.NodeSelectorRequirement{Key: "zone", Operator: corev1.NodeSelectorOpExists}
	name := corev1.NodeSelectorRequirement{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{"one"}}
	require.Equal(t, []corev1.NodeSelectorTerm{
		{MatchExpressions: []corev1.NodeSelectorRequirement{zone, amd64}},
		{MatchExpressions: []corev1.NodeSelectorRequirement{amd64}, MatchFields: []corev1.NodeSelectorRequirement{name}},
	}, terms(r))
	require.Equal(t, map[string]string{"tier": "gold"}, r.daemonSet.Spec.Template.Spec.NodeSelector)
	require.Equal(t, []corev1.Toleration{
		{Key: "kata", Operator: corev1.TolerationOpExists},
		{Key: "tee", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
		{Key: "mine", Operator: corev1.TolerationOpExists},
	}, r.daemonSet.Spec.Template.Spec.Tolerations)
	require.Equal(t, "kata,tee:NoSchedule", r.env()["STARTUP_TAINTS"])
}

func TestTheImage(t *testing.T) {
	for want, given := range map[string]values{
		"registry.example/tdx@" + digest:  {"reference": "registry.example/tdx", "tag": digest},
		"registry.example/tdx2@" + digest: {"reference": "registry.example/tdx2@" + digest, "tag": ""},
		"registry.example:5000/tdx:v1":    {"reference": "registry.example:5000/tdx", "tag": "v1"},
	} {
		r := rendering(t, values{"image": given, "imagePullPolicy": "IfNotPresent", "imagePullSecrets": []any{values{"name": "mine"}}})
		require.Equal(t, want, r.container().Image)
		require.Equal(t, corev1.PullIfNotPresent, r.container().ImagePullPolicy)
		require.Equal(t, []corev1.LocalObjectReference{{Name: "mine"}}, r.daemonSet.Spec.Template.Spec.ImagePullSecrets)
	}
}

// TestUpstreamsValues gives what people may have in their values for upstream's
// chart, and asks for nothing that this one does not do.
func TestUpstreamsValues(t *testing.T) {
	rendering(t, values{
		"deploymentMode": "daemonset", "devkit": false, "logLevel": "info", "job": values{}, "monitor": values{"enabled": false},
		"customRuntimes": values{"enabled": false, "runtimes": values{}}, "snapshotter": values{"setup": []any{}, "erofsMergeMode": ""},
		"verification": values{"pod": "", "timeout": 180}, "nodeFeatureRules": values{"create": "auto"},
		"node-feature-discovery": values{"enabled": false}, "env": values{"hostOS": ""}, "containerd": values{"userDropIn": ""},
	})
}

func TestRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		given values
		want  []string
	}{
		"no image":         {values{"image": values{"reference": ""}}, []string{"image.reference is not set"}},
		"no tag":           {values{"image": values{"tag": ""}}, []string{`image.tag="" must be the payload's digest`}},
		"short digest":     {values{"image": values{"tag": "@sha256:0011"}}, []string{`image.tag="@sha256:0011" must be`}},
		"two digests":      {values{"image": values{"reference": "registry.example/tdx@" + digest}}, []string{"image.reference has a digest already"}},
		"job":              {values{"deploymentMode": "job"}, []string{`deploymentMode="job" is not supported: leave it out, or give "daemonset"`}},
		"several":          {values{"devkit": true, "logLevel": "trace"}, []string{"devkit=true", `logLevel="trace"`}},
		"snapshotter":      {values{"snapshotter": values{"setup": []any{"erofs"}}}, []string{`snapshotter.setup=["erofs"] is not supported: leave it out, or give [] or ["nydus"]`}},
		"for CRI-O":        {values{"containerRuntime": "crio", "snapshotter": values{"setup": []any{"nydus"}}}, []string{`snapshotter.setup=["nydus"]: CRI-O knows no snapshotters`}},
		"custom":           {values{"customRuntimes": values{"enabled": true}}, []string{"customRuntimes.enabled=true is not supported"}},
		"monitor":          {values{"monitor": values{"enabled": true, "port": 1}}, []string{"monitor.enabled=true", "monitor.port is not supported"}},
		"NFD":              {values{"node-feature-discovery": values{"enabled": true}}, []string{"node-feature-discovery.enabled=true"}},
		"rules":            {values{"nodeFeatureRules": values{"create": true}}, []string{"nodeFeatureRules.create=true"}},
		"verification":     {values{"verification": values{"pod": "apiVersion: v1"}}, []string{"verification.pod="}},
		"a group as text":  {values{"monitor": "on"}, []string{`monitor="on" is not supported`}},
		"host OS":          {values{"env": values{"hostOS": "cbl-mariner"}}, []string{`env.hostOS="cbl-mariner"`}},
		"user drop-in":     {values{"containerd": values{"userDropIn": "a = 1"}}, []string{"containerd.userDropIn="}},
		"typo":             {values{"runtimeClass": values{}}, []string{"runtimeClass", "not allowed"}},
		"typo in a shim":   {values{"shims": values{"qemu-tdx": values{"enable": true}}}, []string{"/shims/qemu-tdx", "enable"}},
		"unknown shim":     {values{"shims": values{"dragonball": values{"enabled": true}}}, []string{"invalid propertyName 'dragonball'", "'qemu-tdx'"}},
		"bad architecture": {values{"shims": values{"qemu": values{"supportedArches": []any{"x86_64"}}}}, []string{"/shims/qemu/supportedArches"}},
		"distribution":     {values{"k8sDistribution": "openshift"}, []string{"/k8sDistribution"}},
		"relative prefix":  {values{"env": values{"installationPrefix": "srv"}}, []string{"/env/installationPrefix"}},
		"odd suffix":       {values{"env": values{"multiInstallSuffix": "Blue"}}, []string{"/env/multiInstallSuffix"}},
		"suffix default":   {values{"env": values{"multiInstallSuffix": "default"}}, []string{"/env/multiInstallSuffix"}},
		"suffix debug":     {values{"env": values{"multiInstallSuffix": "debug"}}, []string{"/env/multiInstallSuffix"}},
		"suffix of debug":  {values{"env": values{"multiInstallSuffix": "blue-debug"}}, []string{"/env/multiInstallSuffix"}},
		"digest, whole":    {values{"env": values{"handlerDigest": digest}}, []string{"/env/handlerDigest"}},
		"debug as text":    {values{"debug": "yes"}, []string{"/debug"}},
		"taint":            {values{"startupTaints": []any{"kata=true:NoSchedule"}}, []string{"/startupTaints/0"}},
		"overhead":         {values{"shims": values{"qemu": values{"runtimeClass": values{"overhead": values{"memory": "lots"}}}}}, []string{"/shims/qemu/runtimeClass/overhead/memory"}},
		"nothing enabled":  {only(), []string{"no shim is enabled"}},
		"long handler":     {values{"env": values{"multiInstallSuffix": strings.Repeat("b", 32), "handlerDigest": strings.Repeat("0", 32)}}, []string{"kata-qemu-tdx-" + strings.Repeat("b", 32), "Kubernetes takes 63"}},
		"long variant": {values{"debug": true, "env": values{"multiInstallSuffix": strings.Repeat("b", 32), "handlerDigest": strings.Repeat("0", 12)}}, []string{
			"the handler kata-qemu-tdx-" + strings.Repeat("b", 32) + "-debug-" + strings.Repeat("0", 12) + " has 65 characters, Kubernetes takes 63",
		}},
		"no such default": {values{"defaultShim": values{"amd64": "qemu-runtime-rs"}}, []string{"defaultShim.amd64=qemu-runtime-rs is not enabled for amd64; enabled are: clh, fc, qemu, "}},
		"default is off":  {values{"defaultShim": values{"arm64": "qemu"}, "shims": only("qemu-tdx")["shims"]}, []string{"defaultShim.arm64=qemu is not enabled for arm64; enabled are: none"}},
		"which default":   {values{"runtimeClasses": values{"createDefault": true}}, []string{"defaultShim.amd64 is not set", "clh, fc, qemu, qemu-coco-dev"}},
		"two defaults": {values{"runtimeClasses": values{"createDefault": true}, "defaultShim": values{"amd64": "qemu-tdx", "arm64": "qemu", "ppc64le": "remote", "s390x": "qemu-se"}}, []string{
			"a RuntimeClass has one handler", "qemu, qemu-se, qemu-tdx, remote",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := documents(t, image, tc.given)
			require.Error(t, err)
			require.Equal(t, exitcode.BadInput, exitcode.Of(err))
			for _, want := range tc.want {
				require.ErrorContains(t, err, want)
			}
		})
	}
}

// TestNamespaces holds everything that is in a namespace to the release's.
func TestNamespaces(t *testing.T) {
	for _, object := range rendering(t).all {
		o, ok := object.(metav1.Object)
		require.True(t, ok)
		switch object.(type) {
		case *nodev1.RuntimeClass, *rbacv1.ClusterRole, *rbacv1.ClusterRoleBinding:
			require.Empty(t, o.GetNamespace())
		default:
			require.Equal(t, namespace, o.GetNamespace())
		}
		require.Equal(t, "kata-deploy", o.GetLabels()["app.kubernetes.io/name"])
	}
}
