// Package clientset has client-go's typed clients of those API groups that Kiln speaks.
// client-go's own set of them links the clients of all groups and versions, which are
// most of a small program that asks for a node.
package clientset

import (
	"fmt"

	"k8s.io/client-go/discovery"
	appsv1 "k8s.io/client-go/kubernetes/typed/apps/v1"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	nodev1 "k8s.io/client-go/kubernetes/typed/node/v1"
	"k8s.io/client-go/rest"
)

// Interface is the part of client-go's kubernetes.Interface that Kiln uses, by the same
// names.
type Interface interface {
	AppsV1() appsv1.AppsV1Interface
	CoreV1() corev1.CoreV1Interface
	NodeV1() nodev1.NodeV1Interface
	Discovery() discovery.DiscoveryInterface
}

type clientset struct {
	apps      *appsv1.AppsV1Client
	core      *corev1.CoreV1Client
	node      *nodev1.NodeV1Client
	discovery *discovery.DiscoveryClient
}

func (c *clientset) AppsV1() appsv1.AppsV1Interface          { return c.apps }
func (c *clientset) CoreV1() corev1.CoreV1Interface          { return c.core }
func (c *clientset) NodeV1() nodev1.NodeV1Interface          { return c.node }
func (c *clientset) Discovery() discovery.DiscoveryInterface { return c.discovery }

// NewForConfig gives the clients of one cluster, which share connections. An error says
// what is wrong with the configuration; no server is asked.
func NewForConfig(config *rest.Config) (Interface, error) {
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("making a client of the cluster: %w", err)
	}
	c := &clientset{}
	for _, make := range []func() error{
		func() (err error) { c.apps, err = appsv1.NewForConfigAndClient(config, httpClient); return },
		func() (err error) { c.core, err = corev1.NewForConfigAndClient(config, httpClient); return },
		func() (err error) { c.node, err = nodev1.NewForConfigAndClient(config, httpClient); return },
		func() (err error) {
			c.discovery, err = discovery.NewDiscoveryClientForConfigAndClient(config, httpClient)
			return
		},
	} {
		if err := make(); err != nil {
			return nil, fmt.Errorf("making a client of the cluster: %w", err)
		}
	}
	return c, nil
}
