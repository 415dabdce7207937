package install

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kiln-build/kiln/payload/receipt"
)

func TestTheNodeIsChosen(t *testing.T) {
	make := func(name string, change func(*corev1.Node)) corev1.Node {
		n := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name, "tee": "true"}}}
		n.Status.NodeInfo.Architecture = "amd64"
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		if change != nil {
			change(&n)
		}
		return n
	}
	a, b := make("a", nil), make("b", nil)
	tainted := make("control", func(n *corev1.Node) {
		n.Spec.Taints = []corev1.Taint{{Key: "control-plane", Effect: corev1.TaintEffectNoSchedule}}
	})
	for _, test := range []struct {
		name, named, want, problem string
		nodes                      []corev1.Node
	}{
		{name: "the only one", nodes: []corev1.Node{a}, want: "a"},
		{name: "the only one that can be it", nodes: []corev1.Node{tainted, a}, want: "a"},
		{name: "the named one", nodes: []corev1.Node{a, b}, named: "b", want: "b"},
		{name: "several", nodes: []corev1.Node{a, b}, problem: "2 nodes can be tested on, and the test is for one: name it with --test_env=KILN_NODE=NODE, one of a, b"},
		{name: "none", problem: "the cluster has no nodes"},
		{name: "another name", nodes: []corev1.Node{a}, named: "c", problem: `KILN_NODE is "c", and the cluster has no such node`},
		{name: "the named one cannot be it", nodes: []corev1.Node{a, tainted}, named: "control", problem: "no node can be tested on: control has the taint control-plane:NoSchedule"},
		{name: "not ready", nodes: []corev1.Node{make("a", func(n *corev1.Node) { n.Status.Conditions = nil })}, problem: "a is not ready"},
		{name: "cordoned", nodes: []corev1.Node{make("a", func(n *corev1.Node) { n.Spec.Unschedulable = true })}, problem: "a is cordoned"},
		{name: "architecture", nodes: []corev1.Node{make("a", func(n *corev1.Node) { n.Status.NodeInfo.Architecture = "arm64" })}, problem: "a is arm64, the payload amd64"},
		{name: "hardware", nodes: []corev1.Node{make("a", func(n *corev1.Node) { delete(n.Labels, "tee") })}, problem: "a has no label tee=true, which the runtime classes ask for"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := choose(test.nodes, test.named, "amd64", map[string]string{"tee": "true"})
			if test.problem != "" {
				require.ErrorContains(t, err, test.problem)
				return
			}
			require.NoError(t, err)
			require.Equal(t, test.want, got.Name)
		})
	}
}

func TestAClusterDoesNotReachLoopback(t *testing.T) {
	for _, registry := range []string{receipt.Embedded, "127.0.0.1:5000", "localhost"} {
		err := reachable(&receipt.Receipt{Platform: "tdx", Registry: registry})
		require.ErrorContains(t, err, "--//payload:registry=HOST/PATH", registry)
		require.ErrorContains(t, err, "//payload:tdx.publish", registry)
	}
	require.NoError(t, reachable(&receipt.Receipt{Platform: "tdx", Registry: "registry.invalid"}))
}
