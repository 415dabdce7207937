package kubernetes

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kiln-build/kiln/deploy/kubernetes/clientset"
	"github.com/kiln-build/kiln/tools/exitcode"
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

// DeleteDaemonSet deletes a DaemonSet and waits until its pods have ended, which clean
// up their nodes as they do. One that is gone already is no error. patience is how
// long the API server may be out of reach, interval how long to wait between two
// questions.
func DeleteDaemonSet(ctx context.Context, client clientset.Interface, namespace, name string, patience, interval time.Duration) error {
	what := fmt.Sprintf("deleting DaemonSet %s/%s", namespace, name)
	daemonSets := client.AppsV1().DaemonSets(namespace)
	// In the foreground: it is there as long as any of its pods.
	foreground := metav1.DeletePropagationForeground
	err := retry(ctx, patience, interval, what, func() error {
		return daemonSets.Delete(ctx, name, metav1.DeleteOptions{PropagationPolicy: &foreground})
	})
	for err == nil {
		err = retry(ctx, patience, interval, what, func() error {
			_, err := daemonSets.Get(ctx, name, metav1.GetOptions{})
			return err
		})
		if err != nil {
			break
		}
		select {
		case <-ctx.Done():
			err = exitcode.With(exitcode.Failed, fmt.Errorf("%s: waiting until its pods have cleaned up: %w", what, context.Cause(ctx)))
		case <-time.After(interval):
		}
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
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
