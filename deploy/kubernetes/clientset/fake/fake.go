// Package fake is a clientset for tests: it keeps objects in memory and notes what was
// asked. It does not validate, default or admit.
package fake

import (
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/discovery"
	discoveryfake "k8s.io/client-go/discovery/fake"
	"k8s.io/client-go/kubernetes/scheme"
	appsv1 "k8s.io/client-go/kubernetes/typed/apps/v1"
	appsv1fake "k8s.io/client-go/kubernetes/typed/apps/v1/fake"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	corev1fake "k8s.io/client-go/kubernetes/typed/core/v1/fake"
	nodev1 "k8s.io/client-go/kubernetes/typed/node/v1"
	nodev1fake "k8s.io/client-go/kubernetes/typed/node/v1/fake"
	"k8s.io/client-go/testing"

	"github.com/kiln-build/kiln/deploy/kubernetes/clientset"
)

// Clientset is a clientset.Interface, whose reactors and actions are those of client-go's
// testing.Fake.
type Clientset struct{ testing.Fake }

var _ clientset.Interface = (*Clientset)(nil)

// New gives a cluster that has objects. It panics on one that no API has.
func New(objects ...runtime.Object) *Clientset {
	tracker := testing.NewObjectTracker(scheme.Scheme, scheme.Codecs.UniversalDecoder())
	for _, object := range objects {
		if err := tracker.Add(object); err != nil {
			panic(err)
		}
	}
	c := &Clientset{}
	c.AddReactor("*", "*", testing.ObjectReaction(tracker))
	return c
}

// AppsV1 gives workloads.
func (c *Clientset) AppsV1() appsv1.AppsV1Interface { return &appsv1fake.FakeAppsV1{Fake: &c.Fake} }

// CoreV1 gives nodes, pods and what they need.
func (c *Clientset) CoreV1() corev1.CoreV1Interface { return &corev1fake.FakeCoreV1{Fake: &c.Fake} }

// NodeV1 gives RuntimeClasses.
func (c *Clientset) NodeV1() nodev1.NodeV1Interface { return &nodev1fake.FakeNodeV1{Fake: &c.Fake} }

// Discovery says what APIs there are: what the caller put into the fake's resources.
func (c *Clientset) Discovery() discovery.DiscoveryInterface {
	return &discoveryfake.FakeDiscovery{Fake: &c.Fake}
}
