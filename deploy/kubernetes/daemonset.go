package kubernetes

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Wanted tells whether a DaemonSet is there to stay and selects the node: then a pod
// of it that ends is replaced, as in an upgrade, and what it installed stays. Taints
// do not count: they keep pods away for a while.
func (n *Node) Wanted(ctx context.Context, namespace, name string) (bool, error) {
	var daemonSet *appsv1.DaemonSet
	err := n.retry(ctx, fmt.Sprintf("asking for DaemonSet %s/%s", namespace, name), func() (err error) {
		daemonSet, err = n.Client.AppsV1().DaemonSets(namespace).Get(ctx, name, metav1.GetOptions{})
		return err
	})
	if apierrors.IsNotFound(err) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	if daemonSet.DeletionTimestamp != nil {
		return false, nil
	}
	node, err := n.get(ctx)
	if err != nil {
		return false, err
	}
	return selects(&daemonSet.Spec.Template.Spec, node), nil
}

// selects tells whether pods may be on a node, by its labels and its name.
func selects(pod *corev1.PodSpec, node *corev1.Node) bool {
	if pod.NodeName != "" && pod.NodeName != node.Name {
		return false
	}
	if !labels.SelectorFromSet(pod.NodeSelector).Matches(labels.Set(node.Labels)) {
		return false
	}
	if pod.Affinity == nil || pod.Affinity.NodeAffinity == nil || pod.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return true
	}
	// One term is enough, of which all that it says must be true. One that says
	// nothing is true of no node.
	for _, term := range pod.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		if len(term.MatchExpressions)+len(term.MatchFields) == 0 {
			continue
		}
		matches := true
		for _, r := range term.MatchExpressions {
			value, ok := node.Labels[r.Key]
			matches = matches && satisfies(r, value, ok)
		}
		for _, r := range term.MatchFields {
			matches = matches && r.Key == "metadata.name" && satisfies(r, node.Name, true)
		}
		if matches {
			return true
		}
	}
	return false
}

func satisfies(r corev1.NodeSelectorRequirement, value string, ok bool) bool {
	switch r.Operator {
	case corev1.NodeSelectorOpIn:
		return ok && slices.Contains(r.Values, value)
	case corev1.NodeSelectorOpNotIn:
		return !ok || !slices.Contains(r.Values, value)
	case corev1.NodeSelectorOpExists:
		return ok
	case corev1.NodeSelectorOpDoesNotExist:
		return !ok
	case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
		if !ok || len(r.Values) != 1 {
			return false
		}
		have, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return false
		}
		bound, err := strconv.ParseInt(r.Values[0], 10, 64)
		if err != nil {
			return false
		}
		if r.Operator == corev1.NodeSelectorOpGt {
			return have > bound
		}
		return have < bound
	}
	return false
}
