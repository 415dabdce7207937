package node

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestTakesPods(t *testing.T) {
	started := time.Date(2026, time.May, 1, 12, 0, 0, 500, time.UTC)
	said := func(status corev1.ConditionStatus, at time.Time) []corev1.NodeCondition {
		return []corev1.NodeCondition{
			{Type: corev1.NodeDiskPressure, Status: corev1.ConditionFalse},
			{Type: corev1.NodeReady, Status: status, Message: "the runtime is down", LastHeartbeatTime: metav1.NewTime(at)},
		}
	}
	ready := said(corev1.ConditionTrue, started.Add(time.Second))
	for _, test := range []struct {
		name       string
		conditions []corev1.NodeCondition
		taints     []corev1.Taint
		problem    string
	}{
		{name: "ready", conditions: ready},
		{name: "not registered", problem: "not registered"},
		{name: "not ready", conditions: said(corev1.ConditionFalse, started.Add(time.Second)), problem: "the runtime is down"},
		{name: "what the last kubelet said", conditions: said(corev1.ConditionTrue, started.Add(-time.Second)), problem: "since it was started"},
		{
			name: "before the controller heard it", conditions: ready,
			taints:  []corev1.Taint{{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}},
			problem: "it still has the taint node.kubernetes.io/not-ready:NoSchedule",
		},
		{
			name: "a taint that says something else", conditions: ready,
			taints: []corev1.Taint{{Key: corev1.TaintNodeDiskPressure, Effect: corev1.TaintEffectNoSchedule}},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := takesPods(&corev1.Node{
				Spec:   corev1.NodeSpec{Taints: test.taints},
				Status: corev1.NodeStatus{Conditions: test.conditions},
			}, started)
			if test.problem == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, test.problem)
		})
	}
}
