package kube

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kiln-build/kiln/ci/buildbarn/config"
)

// componentLabel tells the parts from each other, and poolLabel workers.
const (
	componentLabel = "app.kubernetes.io/component"
	poolLabel      = "kiln.build/pool"
)

func component(part config.Part) map[string]string {
	labels := map[string]string{"app.kubernetes.io/name": "buildbarn", componentLabel: string(part)}
	if part == config.StorageA || part == config.StorageB {
		labels["app.kubernetes.io/part-of"] = "storage"
	}
	return labels
}

func (e Engine) meta(name string, labels map[string]string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Namespace: e.Namespace, Labels: labels}
}

func (e Engine) namespace() runtime.Object {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: e.Namespace}}
}

func (e Engine) configMap(name string, labels map[string]string, files map[string][]byte) *corev1.ConfigMap {
	c := &corev1.ConfigMap{ObjectMeta: e.meta(name, labels), Data: map[string]string{}}
	for file, text := range files {
		c.Data[file] = string(text)
	}
	return c
}

func selector(labels map[string]string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: labels}
}

// portNames are at most 15 letters.
var portNames = map[config.Port]string{
	config.PortClients:       "clients",
	config.PortStorage:       "storage",
	config.PortActions:       "actions",
	config.PortQueue:         "queue",
	config.PortMetrics:       "metrics",
	config.PortRunnerMetrics: "runner-metrics",
}

func containerPorts(ports ...config.Port) []corev1.ContainerPort {
	var all []corev1.ContainerPort
	for _, p := range ports {
		all = append(all, corev1.ContainerPort{Name: portNames[p], ContainerPort: int32(p)})
	}
	return all
}

func (e Engine) service(part config.Part, headless bool, ports ...config.Port) *corev1.Service {
	s := &corev1.Service{ObjectMeta: e.meta(string(part), component(part)), Spec: corev1.ServiceSpec{Selector: component(part)}}
	if headless {
		s.Spec.ClusterIP = corev1.ClusterIPNone
	}
	for _, p := range ports {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: portNames[p], Port: int32(p), TargetPort: intstr.FromString(portNames[p])})
	}
	return s
}

// user is who everything runs as.
const user = 10001

func podSecurity() *corev1.PodSecurityContext {
	return &corev1.PodSecurityContext{
		RunAsNonRoot:   new(true),
		RunAsUser:      new(int64(user)),
		RunAsGroup:     new(int64(user)),
		FSGroup:        new(int64(user)),
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

func containerSecurity() *corev1.SecurityContext {
	return &corev1.SecurityContext{
		AllowPrivilegeEscalation: new(false),
		ReadOnlyRootFilesystem:   new(true),
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
}

func health(port config.Port) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:     corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/-/healthy", Port: intstr.FromString(portNames[port])}},
		PeriodSeconds:    10,
		FailureThreshold: 6,
	}
}

func resources(cpu, memory string, more map[string]string) corev1.ResourceRequirements {
	list := func() corev1.ResourceList {
		all := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
		for name, quantity := range more {
			all[corev1.ResourceName(name)] = resource.MustParse(quantity)
		}
		return all
	}
	return corev1.ResourceRequirements{Requests: list(), Limits: list()}
}

// container runs one of Buildbarn's programs with a configuration of its own.
func (e Engine) container(name, program, file string, metrics config.Port, limits corev1.ResourceRequirements, mounts []corev1.VolumeMount, ports ...config.Port) corev1.Container {
	return corev1.Container{
		Name:            name,
		Image:           e.Image,
		Command:         []string{"/usr/local/bin/" + program, configDirectory + "/" + file},
		Ports:           containerPorts(append(ports, metrics)...),
		Resources:       limits,
		VolumeMounts:    append([]corev1.VolumeMount{{Name: "config", MountPath: configDirectory, ReadOnly: true}}, mounts...),
		ReadinessProbe:  health(metrics),
		LivenessProbe:   health(metrics),
		SecurityContext: containerSecurity(),
	}
}

// directories makes directories, which Buildbarn wants to find.
func (e Engine) directories(mount corev1.VolumeMount, names ...string) corev1.Container {
	command := []string{"/bin/mkdir", "-p"}
	for _, name := range names {
		command = append(command, filesDirectory+"/"+name)
	}
	return corev1.Container{
		Name: "directories", Image: e.Image, Command: command,
		Resources:    resources("100m", "64Mi", nil),
		VolumeMounts: []corev1.VolumeMount{mount}, SecurityContext: containerSecurity(),
	}
}

func secretVolume(name, secret string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: secret, DefaultMode: new(int32(0o440))}}}
}

func configVolume(name string) corev1.Volume {
	return corev1.Volume{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}}}}
}

var (
	credentialsMount = corev1.VolumeMount{Name: "credentials", MountPath: credentialsDirectory, ReadOnly: true}
	filesMount       = corev1.VolumeMount{Name: "files", MountPath: filesDirectory}
)

// apart spreads pods over nodes.
func apart(labels map[string]string, how corev1.UnsatisfiableConstraintAction) []corev1.TopologySpreadConstraint {
	return []corev1.TopologySpreadConstraint{{
		MaxSkew: 1, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: how, LabelSelector: selector(labels),
	}}
}

// template makes a pod that is replaced when its configuration changes.
func template(labels map[string]string, configuration []byte, spec corev1.PodSpec) corev1.PodTemplateSpec {
	spec.AutomountServiceAccountToken = new(false)
	spec.EnableServiceLinks = new(false)
	if spec.SecurityContext == nil {
		spec.SecurityContext = podSecurity()
	}
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: map[string]string{"kiln.build/configuration": digest(configuration)}},
		Spec:       spec,
	}
}

func (e Engine) budget(name string, labels map[string]string, unavailable intstr.IntOrString) runtime.Object {
	return &policyv1.PodDisruptionBudget{
		ObjectMeta: e.meta(name, labels),
		Spec:       policyv1.PodDisruptionBudgetSpec{MaxUnavailable: &unavailable, Selector: selector(labels)},
	}
}

func (e Engine) autoscaler(name string, labels map[string]string, r Range, cpu int32, patience int32) runtime.Object {
	return &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: e.meta(name, labels),
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: name},
			MinReplicas:    &r.Minimum,
			MaxReplicas:    r.Maximum,
			Metrics: []autoscalingv2.MetricSpec{{
				Type: autoscalingv2.ResourceMetricSourceType,
				Resource: &autoscalingv2.ResourceMetricSource{
					Name:   corev1.ResourceCPU,
					Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &cpu},
				},
			}},
			Behavior: &autoscalingv2.HorizontalPodAutoscalerBehavior{
				ScaleDown: &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: &patience},
			},
		},
	}
}

// storage makes two sets of nodes, of which each shard has one of each.
func (e Engine) storage(p pods) (string, []runtime.Object, error) {
	both := map[string]string{"app.kubernetes.io/name": "buildbarn", "app.kubernetes.io/part-of": "storage"}
	// Never one of each set at the same time.
	objects := []runtime.Object{e.budget("storage", both, intstr.FromInt32(1))}
	for _, set := range []config.Part{config.StorageA, config.StorageB} {
		text, err := e.RenderStorage(p, set, 0)
		if err != nil {
			return "", nil, err
		}
		labels := component(set)
		objects = append(objects,
			e.configMap(string(set), labels, map[string][]byte{"storage.jsonnet": text}),
			e.service(set, true, config.PortStorage),
			&appsv1.StatefulSet{
				ObjectMeta: e.meta(string(set), labels),
				Spec: appsv1.StatefulSetSpec{
					ServiceName: string(set),
					Replicas:    new(int32(e.Shards)),
					Selector:    selector(labels),
					// Nodes do not know of each other.
					PodManagementPolicy: appsv1.ParallelPodManagement,
					Template: template(labels, text, corev1.PodSpec{
						TerminationGracePeriodSeconds: new(int64(120)),
						TopologySpreadConstraints:     apart(both, corev1.DoNotSchedule),
						InitContainers:                []corev1.Container{e.directories(filesMount, "cas/state", "ac/state")},
						Containers: []corev1.Container{e.container("storage", "bb_storage", "storage.jsonnet", config.PortMetrics,
							resources("2", "4Gi", nil), []corev1.VolumeMount{credentialsMount, filesMount}, config.PortStorage)},
						Volumes: []corev1.Volume{configVolume(string(set)), secretVolume("credentials", credentials(set))},
					}),
					VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{
						ObjectMeta: metav1.ObjectMeta{Name: "files", Labels: labels},
						Spec: corev1.PersistentVolumeClaimSpec{
							AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
							Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(e.Volume)}},
						},
					}},
				},
			})
	}
	return "storage.yaml", objects, nil
}

func (e Engine) frontend(p pods) (string, []runtime.Object, error) {
	text, err := e.RenderFrontend(p)
	if err != nil {
		return "", nil, err
	}
	part := config.FrontendPart
	name, labels := string(part), component(part)
	return "frontend.yaml", []runtime.Object{
		e.configMap(name, labels, map[string][]byte{"frontend.jsonnet": text}),
		e.service(part, false, config.PortClients),
		&appsv1.Deployment{
			ObjectMeta: e.meta(name, labels),
			Spec: appsv1.DeploymentSpec{
				Selector: selector(labels),
				Template: template(labels, text, corev1.PodSpec{
					TopologySpreadConstraints: apart(labels, corev1.ScheduleAnyway),
					Containers: []corev1.Container{e.container("frontend", "bb_storage", "frontend.jsonnet", config.PortMetrics,
						resources("2", "2Gi", nil), []corev1.VolumeMount{
							credentialsMount,
							{Name: "public", MountPath: publicDirectory, ReadOnly: true},
							{Name: "keys", MountPath: keysDirectory, ReadOnly: true},
						}, config.PortClients)},
					Volumes: []corev1.Volume{
						configVolume(name), secretVolume("credentials", credentials(part)),
						secretVolume("public", publicSecret), secretVolume("keys", keysSecret),
					},
				}),
			},
		},
		e.autoscaler(name, labels, e.Frontends, 70, 300),
		e.budget(name, labels, intstr.FromInt32(1)),
	}, nil
}

func (e Engine) scheduler(p pods) (string, []runtime.Object, error) {
	text, err := e.RenderScheduler(p)
	if err != nil {
		return "", nil, err
	}
	part := config.SchedulerPart
	name, labels := string(part), component(part)
	return "scheduler.yaml", []runtime.Object{
		e.configMap(name, labels, map[string][]byte{"scheduler.jsonnet": text}),
		e.service(part, false, config.PortActions, config.PortQueue),
		&appsv1.Deployment{
			ObjectMeta: e.meta(name, labels),
			Spec: appsv1.DeploymentSpec{
				// Two would not know of each other's actions, and execute one twice.
				Replicas: new(int32(1)),
				Strategy: appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType},
				Selector: selector(labels),
				Template: template(labels, text, corev1.PodSpec{
					Containers: []corev1.Container{e.container("scheduler", "bb_scheduler", "scheduler.jsonnet", config.PortMetrics,
						resources("2", "4Gi", nil), []corev1.VolumeMount{credentialsMount}, config.PortActions, config.PortQueue)},
					Volumes: []corev1.Volume{configVolume(name), secretVolume("credentials", credentials(part))},
				}),
			},
		},
	}, nil
}

func (e Engine) workers(p pods) (string, []runtime.Object, error) {
	var objects []runtime.Object
	for _, pool := range e.Pools {
		of, err := e.pool(p, pool)
		if err != nil {
			return "", nil, fmt.Errorf("workers of kind %s: %w", pool.Kind, err)
		}
		objects = append(objects, of...)
	}
	return "workers.yaml", objects, nil
}

func (e Engine) pool(p pods, pool config.Pool) ([]runtime.Object, error) {
	worker, err := e.RenderWorker(p, pool)
	if err != nil {
		return nil, err
	}
	runner, err := e.RenderRunner(p, pool)
	if err != nil {
		return nil, err
	}
	part := config.WorkerPart
	name, labels := string(part)+"-"+pool.Kind, component(part)
	labels[poolLabel] = pool.Kind

	work := e.container("worker", "bb_worker", "worker.jsonnet", config.PortMetrics,
		resources("1", "2Gi", nil), []corev1.VolumeMount{credentialsMount, filesMount})
	work.Env = []corev1.EnvVar{{Name: config.WorkerVariable, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}
	// Actions have no credentials of the engine. What they may do beyond others is
	// to make namespaces within their own, as component actions do.
	run := e.container("runner", "bb_runner", "runner.jsonnet", config.PortRunnerMetrics,
		resources(pool.CPU, pool.Memory, pool.Resources), []corev1.VolumeMount{filesMount, {Name: "tmp", MountPath: "/tmp"}})
	run.SecurityContext.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined}
	run.SecurityContext.AppArmorProfile = &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeUnconfined}
	run.SecurityContext.ProcMount = new(corev1.UnmaskedProcMount)
	log := corev1.Container{
		Name: "actions", Image: e.Image,
		Command:         []string{"/usr/local/bin/action_log", "--file=-", "--socket=" + filesDirectory + "/" + config.ActionsSocket},
		Resources:       resources("100m", "128Mi", nil),
		VolumeMounts:    []corev1.VolumeMount{filesMount},
		RestartPolicy:   new(corev1.ContainerRestartPolicyAlways),
		SecurityContext: containerSecurity(),
	}
	disk := resource.MustParse(pool.Disk)
	return []runtime.Object{
		e.configMap(name, labels, map[string][]byte{"worker.jsonnet": worker, "runner.jsonnet": runner}),
		&appsv1.Deployment{
			ObjectMeta: e.meta(name, labels),
			Spec: appsv1.DeploymentSpec{
				Selector: selector(labels),
				Template: template(labels, slices.Concat(worker, runner), corev1.PodSpec{
					// A user of its own on the node, whatever it is called inside.
					HostUsers:    new(false),
					NodeSelector: pool.Nodes,
					// An action that runs comes to its end.
					TerminationGracePeriodSeconds: new(int64(e.MaximumTimeout.Seconds()) + 60),
					InitContainers:                []corev1.Container{e.directories(filesMount, "build", "cache"), log},
					Containers:                    []corev1.Container{work, run},
					Volumes: []corev1.Volume{
						configVolume(name), secretVolume("credentials", credentials(part)),
						{Name: "files", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &disk}}},
						{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &disk}}},
					},
				}),
			},
		},
		e.autoscaler(name, labels, Range{Minimum: pool.Minimum, Maximum: pool.Maximum}, 60, 900),
		e.budget(name, labels, intstr.FromString("20%")),
	}, nil
}

// policies let through what the configurations connect, and nothing else.
func (e Engine) policies() []runtime.Object {
	tcp := corev1.ProtocolTCP
	ports := func(all ...config.Port) []networkingv1.NetworkPolicyPort {
		var out []networkingv1.NetworkPolicyPort
		for _, p := range all {
			out = append(out, networkingv1.NetworkPolicyPort{Protocol: &tcp, Port: new(intstr.FromInt32(int32(p)))})
		}
		return out
	}
	pods := func(labels ...map[string]string) []networkingv1.NetworkPolicyPeer {
		var out []networkingv1.NetworkPolicyPeer
		for _, l := range labels {
			out = append(out, networkingv1.NetworkPolicyPeer{PodSelector: selector(l)})
		}
		return out
	}
	namespace := func(name string) []networkingv1.NetworkPolicyPeer {
		return []networkingv1.NetworkPolicyPeer{{NamespaceSelector: selector(map[string]string{corev1.LabelMetadataName: name})}}
	}
	storage := map[string]string{"app.kubernetes.io/part-of": "storage"}
	is := func(part config.Part) map[string]string { return map[string]string{componentLabel: string(part)} }
	policy := func(name string, of map[string]string, in []networkingv1.NetworkPolicyIngressRule, out []networkingv1.NetworkPolicyEgressRule) runtime.Object {
		return &networkingv1.NetworkPolicy{
			ObjectMeta: e.meta(name, nil),
			Spec: networkingv1.NetworkPolicySpec{
				PodSelector: *selector(of),
				PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
				Ingress:     in,
				Egress:      out,
			},
		}
	}
	udp := corev1.ProtocolUDP
	dns := intstr.FromInt32(53)
	toStorage := networkingv1.NetworkPolicyEgressRule{To: pods(storage), Ports: ports(config.PortStorage)}
	return []runtime.Object{
		policy("all", nil,
			[]networkingv1.NetworkPolicyIngressRule{{From: namespace("monitoring"), Ports: ports(config.PortMetrics, config.PortRunnerMetrics)}},
			[]networkingv1.NetworkPolicyEgressRule{{
				To:    namespace("kube-system"),
				Ports: []networkingv1.NetworkPolicyPort{{Protocol: &udp, Port: &dns}, {Protocol: &tcp, Port: &dns}},
			}}),
		policy("storage", storage,
			[]networkingv1.NetworkPolicyIngressRule{{
				From:  pods(is(config.FrontendPart), is(config.SchedulerPart), is(config.WorkerPart)),
				Ports: ports(config.PortStorage),
			}}, nil),
		policy("frontend", is(config.FrontendPart),
			[]networkingv1.NetworkPolicyIngressRule{{Ports: ports(config.PortClients)}},
			[]networkingv1.NetworkPolicyEgressRule{toStorage, {To: pods(is(config.SchedulerPart)), Ports: ports(config.PortActions)}}),
		policy("scheduler", is(config.SchedulerPart),
			[]networkingv1.NetworkPolicyIngressRule{
				{From: pods(is(config.FrontendPart)), Ports: ports(config.PortActions)},
				{From: pods(is(config.WorkerPart)), Ports: ports(config.PortQueue)},
			},
			[]networkingv1.NetworkPolicyEgressRule{toStorage}),
		policy("worker", is(config.WorkerPart), nil,
			[]networkingv1.NetworkPolicyEgressRule{toStorage, {To: pods(is(config.SchedulerPart)), Ports: ports(config.PortQueue)}}),
	}
}

// kustomization lists the manifests, and is where an image is named.
func (e Engine) kustomization(manifests map[string][]byte) []byte {
	var b strings.Builder
	b.WriteString(header)
	b.WriteString("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n")
	for _, name := range slices.Sorted(maps.Keys(manifests)) {
		fmt.Fprintf(&b, "- %s\n", name)
	}
	fmt.Fprintf(&b, "# Where the image is: kustomize edit set image %[1]s=REPOSITORY@DIGEST\nimages:\n- name: %[1]s\n", e.Image)
	return []byte(b.String())
}
