package node

import (
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// takesPods says why a node does not take pods yet: the kubelet that was started then has
// to say that it is ready, and the node lifecycle controller, which hears it a moment
// later, has to take its taint away. After a restart, what the last kubelet said still
// stands.
func takesPods(node *corev1.Node, since time.Time) error {
	i := slices.IndexFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == corev1.NodeReady })
	if i < 0 {
		return errors.New("the kubelet has not registered it")
	}
	condition := node.Status.Conditions[i]
	if condition.Status != corev1.ConditionTrue {
		return errors.New(condition.Message)
	}
	// The API server keeps whole seconds.
	if !condition.LastHeartbeatTime.After(since.Truncate(time.Second)) {
		return errors.New("the kubelet has not said that it is ready since it was started")
	}
	for _, taint := range node.Spec.Taints {
		if taint.Key == corev1.TaintNodeNotReady || taint.Key == corev1.TaintNodeUnreachable {
			return fmt.Errorf("it still has the taint %s", taint.ToString())
		}
	}
	return nil
}
