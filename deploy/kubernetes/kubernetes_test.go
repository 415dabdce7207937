package kubernetes_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kiln-build/kiln/deploy/kubernetes"
	"github.com/kiln-build/kiln/deploy/kubernetes/clientset/fake"
	"github.com/kiln-build/kiln/tools/exitcode"
)

const (
	shared = "katacontainers.io/kata-runtime"
	one    = "kata-deploy.katacontainers.io/default"
	blue   = "kata-deploy.katacontainers.io/blue"
	zone   = "zone"
)

func node(labels map[string]string, objects ...apiruntime.Object) (*fake.Clientset, *kubernetes.Node) {
	client := fake.New(append(objects, &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: labels},
		Spec:       corev1.NodeSpec{Taints: []corev1.Taint{{Key: "kata/wait", Effect: "NoSchedule"}, {Key: "kata/wait", Effect: "NoExecute"}, {Key: "theirs", Effect: "NoSchedule"}}},
		Status:     corev1.NodeStatus{NodeInfo: corev1.NodeSystemInfo{ContainerRuntimeVersion: "containerd://2.2.1", MachineID: "abc"}},
	})...)
	return client, &kubernetes.Node{Client: client, Name: "n", Patience: 100 * time.Millisecond, Interval: time.Millisecond}
}

func labels(t *testing.T, client *fake.Clientset) map[string]string {
	t.Helper()
	n, err := client.CoreV1().Nodes().Get(t.Context(), "n", metav1.GetOptions{})
	require.NoError(t, err)
	return n.Labels
}

func TestLabels(t *testing.T) {
	for name, tc := range map[string]struct {
		before, claimed, finished, released map[string]string
	}{
		"alone": {
			map[string]string{zone: "a"},
			map[string]string{zone: "a", shared: "false", one: "false"},
			map[string]string{zone: "a", shared: "true", one: "true"},
			map[string]string{zone: "a"},
		},
		"again": {
			map[string]string{zone: "a", shared: "true", one: "true"},
			map[string]string{zone: "a", shared: "false", one: "false"},
			map[string]string{zone: "a", shared: "true", one: "true"},
			map[string]string{zone: "a"},
		},
		"beside one that is ready": {
			map[string]string{shared: "true", blue: "true"},
			map[string]string{shared: "true", blue: "true", one: "false"},
			map[string]string{shared: "true", blue: "true", one: "true"},
			map[string]string{shared: "true", blue: "true"},
		},
		"beside one that is not": {
			map[string]string{shared: "false", blue: "false"},
			map[string]string{shared: "false", blue: "false", one: "false"},
			map[string]string{shared: "true", blue: "false", one: "true"},
			map[string]string{shared: "false", blue: "false"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			client, n := node(tc.before)
			for _, step := range []struct {
				what   string
				change func() error
				want   map[string]string
			}{
				{"claim", func() error { return n.Claim(t.Context()) }, tc.claimed},
				{"finish", func() error { return n.Finish(t.Context()) }, tc.finished},
				{"release", func() error { return n.Release(t.Context()) }, tc.released},
			} {
				require.NoError(t, step.change(), step.what)
				require.Equal(t, step.want, labels(t, client), step.what)
				client.ClearActions()
				require.NoError(t, step.change(), step.what)
				require.Equal(t, step.want, labels(t, client), step.what)
				for _, action := range client.Actions() {
					require.Equal(t, "get", action.GetVerb(), "nothing is to be changed")
				}
			}
		})
	}
	client, n := node(nil)
	n.Suffix = "blue"
	require.NoError(t, n.Finish(t.Context()))
	require.Equal(t, map[string]string{shared: "true", blue: "true"}, labels(t, client))
}

func TestInfo(t *testing.T) {
	_, n := node(nil)
	info, err := n.Info(t.Context())
	require.NoError(t, err)
	require.Equal(t, &kubernetes.Info{RuntimeVersion: "containerd://2.2.1", MachineID: "abc"}, info)
}

func TestTaints(t *testing.T) {
	for name, tc := range map[string]struct{ taints, removed, left []string }{
		"by key":            {[]string{"kata/wait"}, []string{"kata/wait:NoSchedule", "kata/wait:NoExecute"}, []string{"theirs:NoSchedule"}},
		"by key and effect": {[]string{"kata/wait:NoExecute", "absent"}, []string{"kata/wait:NoExecute"}, []string{"kata/wait:NoSchedule", "theirs:NoSchedule"}},
		"none":              {[]string{"kata"}, nil, []string{"kata/wait:NoSchedule", "kata/wait:NoExecute", "theirs:NoSchedule"}},
	} {
		t.Run(name, func(t *testing.T) {
			client, n := node(nil)
			removed, err := n.RemoveTaints(t.Context(), tc.taints)
			require.NoError(t, err)
			require.Equal(t, tc.removed, removed)
			object, err := client.CoreV1().Nodes().Get(t.Context(), "n", metav1.GetOptions{})
			require.NoError(t, err)
			var left []string
			for _, taint := range object.Spec.Taints {
				left = append(left, taint.Key+":"+string(taint.Effect))
			}
			require.Equal(t, tc.left, left)
		})
	}
}

func TestTheServerIsAway(t *testing.T) {
	nodes := schema.GroupResource{Resource: "nodes"}
	for name, tc := range map[string]struct {
		err   error
		times int
		code  int
	}{
		"for a moment":       {errors.New("connection refused"), 3, exitcode.OK},
		"somebody was first": {apierrors.NewConflict(nodes, "n", errors.New("changed")), 2, exitcode.OK},
		"for good":           {errors.New("connection refused"), 1 << 30, exitcode.Unreachable},
		"not allowed":        {apierrors.NewForbidden(nodes, "n", errors.New("no")), 1, exitcode.BadInput},
		"no such node":       {apierrors.NewNotFound(nodes, "n"), 1, exitcode.BadInput},
	} {
		t.Run(name, func(t *testing.T) {
			client, n := node(nil)
			asked := 0
			client.PrependReactor("patch", "nodes", func(clienttesting.Action) (bool, apiruntime.Object, error) {
				asked++
				return asked <= tc.times, nil, tc.err
			})
			err := n.Finish(t.Context())
			require.Equal(t, tc.code, exitcode.Of(err), "%v", err)
			if err != nil {
				require.ErrorContains(t, err, "changing node n: ")
			}
			if tc.code == exitcode.BadInput {
				require.Equal(t, 1, asked, "asking again is of no use")
			}
		})
	}
	_, n := node(nil)
	n.Name = "another"
	require.ErrorContains(t, n.Claim(t.Context()), "not found")
	require.NoError(t, n.Release(t.Context()), "a node that is gone has no labels")
}

func expression(key string, operator corev1.NodeSelectorOperator, values ...string) corev1.NodeSelectorRequirement {
	return corev1.NodeSelectorRequirement{Key: key, Operator: operator, Values: values}
}

func TestWanted(t *testing.T) {
	now := metav1.Now()
	affinity := func(terms ...corev1.NodeSelectorTerm) *corev1.Affinity {
		return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: terms}}}
	}
	term := func(expressions ...corev1.NodeSelectorRequirement) corev1.NodeSelectorTerm {
		return corev1.NodeSelectorTerm{MatchExpressions: expressions}
	}
	for name, tc := range map[string]struct {
		meta metav1.ObjectMeta
		pod  corev1.PodSpec
		want bool
	}{
		"all nodes":           {want: true},
		"goes":                {meta: metav1.ObjectMeta{DeletionTimestamp: &now, Finalizers: []string{"foregroundDeletion"}}},
		"selects it":          {pod: corev1.PodSpec{NodeSelector: map[string]string{zone: "a"}}, want: true},
		"selects others":      {pod: corev1.PodSpec{NodeSelector: map[string]string{zone: "b"}}},
		"this node":           {pod: corev1.PodSpec{NodeName: "n"}, want: true},
		"another node":        {pod: corev1.PodSpec{NodeName: "m"}},
		"In":                  {pod: corev1.PodSpec{Affinity: affinity(term(expression(zone, "In", "b", "a")))}, want: true},
		"In others":           {pod: corev1.PodSpec{Affinity: affinity(term(expression(zone, "In", "b")))}},
		"NotIn":               {pod: corev1.PodSpec{Affinity: affinity(term(expression(zone, "NotIn", "a")))}},
		"NotIn, absent":       {pod: corev1.PodSpec{Affinity: affinity(term(expression("x", "NotIn", "a")))}, want: true},
		"Exists":              {pod: corev1.PodSpec{Affinity: affinity(term(expression("x", "Exists")))}},
		"DoesNotExist":        {pod: corev1.PodSpec{Affinity: affinity(term(expression("x", "DoesNotExist")))}, want: true},
		"Gt":                  {pod: corev1.PodSpec{Affinity: affinity(term(expression("cpus", "Gt", "7")))}, want: true},
		"Lt":                  {pod: corev1.PodSpec{Affinity: affinity(term(expression("cpus", "Lt", "7")))}},
		"one term is enough":  {pod: corev1.PodSpec{Affinity: affinity(term(expression("x", "Exists")), term(expression(zone, "Exists")))}, want: true},
		"all of a term":       {pod: corev1.PodSpec{Affinity: affinity(term(expression("x", "Exists"), expression(zone, "Exists")))}},
		"an empty term":       {pod: corev1.PodSpec{Affinity: affinity(term())}},
		"a field":             {pod: corev1.PodSpec{Affinity: affinity(corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{expression("metadata.name", "In", "n")}})}, want: true},
		"a field of another":  {pod: corev1.PodSpec{Affinity: affinity(corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{expression("metadata.name", "In", "m")}})}},
		"selector and not it": {pod: corev1.PodSpec{NodeSelector: map[string]string{zone: "a"}, Affinity: affinity(term(expression("x", "Exists")))}},
	} {
		t.Run(name, func(t *testing.T) {
			tc.meta.Namespace, tc.meta.Name = "kube-system", "kata-deploy"
			_, n := node(map[string]string{zone: "a", "cpus": "8"}, &appsv1.DaemonSet{ObjectMeta: tc.meta, Spec: appsv1.DaemonSetSpec{Template: corev1.PodTemplateSpec{Spec: tc.pod}}})
			got, err := n.Wanted(t.Context(), "kube-system", "kata-deploy")
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
			got, err = n.Wanted(t.Context(), "kube-system", "kata-deploy-blue")
			require.NoError(t, err)
			require.False(t, got)
		})
	}
	// Who does not know does not clean up.
	client, n := node(nil)
	client.PrependReactor("get", "daemonsets", func(clienttesting.Action) (bool, apiruntime.Object, error) {
		return true, nil, errors.New("connection refused")
	})
	_, err := n.Wanted(t.Context(), "kube-system", "kata-deploy")
	require.ErrorContains(t, err, "asking for DaemonSet kube-system/kata-deploy: connection refused")
	require.Equal(t, exitcode.Unreachable, exitcode.Of(err))
}

func TestConnect(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: 'http://%s'}}]\ncontexts: [{name: c, context: {cluster: c}}]\ncurrent-context: c\n", "127.0.0.1:1"), 0o600))
	_, err := kubernetes.Connect(file)
	require.NoError(t, err)
	_, err = kubernetes.Connect(file + ".absent")
	require.Equal(t, exitcode.BadInput, exitcode.Of(err))
	require.NoError(t, os.WriteFile(file, []byte("kata\n"), 0o600))
	namespace, err := kubernetes.Namespace(file)
	require.NoError(t, err)
	require.Equal(t, "kata", namespace)
	_, err = kubernetes.Namespace(file + ".absent")
	require.ErrorContains(t, err, "finding this pod's namespace")
}

// TestDeleteDaemonSet lets a DaemonSet be there for a while after it was deleted, as
// one whose pods take their time.
func TestDeleteDaemonSet(t *testing.T) {
	const namespace, name = "kube-system", "kata-deploy"
	cluster := func() *fake.Clientset {
		return fake.New(&appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}})
	}
	remove := func(ctx context.Context, client *fake.Clientset) error {
		return kubernetes.DeleteDaemonSet(ctx, client, namespace, name, time.Second, time.Millisecond)
	}

	t.Run("until its pods are gone", func(t *testing.T) {
		client, asked := cluster(), 0
		client.PrependReactor("delete", "daemonsets", func(action clienttesting.Action) (bool, apiruntime.Object, error) {
			require.Equal(t, metav1.DeletePropagationForeground, *action.(clienttesting.DeleteActionImpl).DeleteOptions.PropagationPolicy)
			return true, nil, nil // it is only marked
		})
		client.PrependReactor("get", "daemonsets", func(clienttesting.Action) (bool, apiruntime.Object, error) {
			if asked++; asked < 3 {
				return false, nil, nil
			}
			return true, nil, apierrors.NewNotFound(schema.GroupResource{Group: "apps", Resource: "daemonsets"}, name)
		})
		require.NoError(t, remove(t.Context(), client))
		require.Equal(t, 3, asked)
	})
	t.Run("not for ever", func(t *testing.T) {
		client := cluster()
		client.PrependReactor("delete", "daemonsets", func(clienttesting.Action) (bool, apiruntime.Object, error) { return true, nil, nil })
		ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, errors.New("time is up"))
		defer cancel()
		err := remove(ctx, client)
		require.EqualError(t, err, "deleting DaemonSet kube-system/kata-deploy: waiting until its pods have cleaned up: time is up")
		require.Equal(t, exitcode.Failed, exitcode.Of(err))
	})
	t.Run("none", func(t *testing.T) {
		require.NoError(t, remove(t.Context(), fake.New()))
	})
	t.Run("not allowed", func(t *testing.T) {
		client := cluster()
		client.PrependReactor("delete", "daemonsets", func(clienttesting.Action) (bool, apiruntime.Object, error) {
			return true, nil, apierrors.NewForbidden(schema.GroupResource{Group: "apps", Resource: "daemonsets"}, name, errors.New("no"))
		})
		err := remove(t.Context(), client)
		require.ErrorContains(t, err, "deleting DaemonSet kube-system/kata-deploy: ")
		require.Equal(t, exitcode.BadInput, exitcode.Of(err))
	})
}
