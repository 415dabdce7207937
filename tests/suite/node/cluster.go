package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// Cluster is where a suite runs its pods: a Node, or the cluster of a kubeconfig.
type Cluster interface {
	// REST gives the configuration of a client that may do anything.
	REST() *rest.Config
	// Push puts an image where pods can pull it, and gives the reference by digest
	// by which they do.
	Push(ctx context.Context, repository string, image v1.Image) (string, error)
}

var (
	_ Cluster = (*Node)(nil)
	_ Cluster = (*External)(nil)
)

// External is a cluster that was there before.
type External struct {
	config   *rest.Config
	registry string
}

// FromKubeconfig takes the cluster that a kubeconfig names, whose pods can pull from a
// registry (HOST/PATH) to which this machine can push.
func FromKubeconfig(kubeconfig, registry string) (*External, error) {
	if registry == "" {
		return nil, exitcode.With(exitcode.BadInput, errors.New("using the cluster of KUBECONFIG: name a registry (HOST/PATH) that it pulls from and you can push to"))
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("using the cluster of %s: %w", kubeconfig, err))
	}
	return &External{config: config, registry: registry}, nil
}

// REST implements Cluster.
func (e *External) REST() *rest.Config { return rest.CopyConfig(e.config) }

// Push implements Cluster.
func (e *External) Push(ctx context.Context, repository string, image v1.Image) (string, error) {
	return push(ctx, path.Join(e.registry, repository), image)
}

// Push implements Cluster. The registry is in memory, and ends with the node.
func (n *Node) Push(ctx context.Context, repository string, image v1.Image) (string, error) {
	n.registry.Do(func() { n.registryHost, n.registryErr = n.Serve(ctx, registry.New(registry.Logger(nobody()))) })
	if n.registryErr != nil {
		return "", n.registryErr
	}
	return push(ctx, path.Join(n.registryHost, repository), image, remote.WithTransport(&http.Transport{DialContext: n.Dial}))
}

func push(ctx context.Context, repository string, image v1.Image, options ...remote.Option) (string, error) {
	fail := func(err error) (string, error) { return "", fmt.Errorf("pushing an image to %s: %w", repository, err) }
	digest, err := image.Digest()
	if err != nil {
		return fail(err)
	}
	reference, err := name.NewDigest(repository + "@" + digest.String())
	if err != nil {
		return fail(err)
	}
	if err := remote.Write(reference, image, append(options, remote.WithContext(ctx))...); err != nil {
		return fail(err)
	}
	return reference.String(), nil
}

// Serve serves HTTP on a free port of the node's loopback interface until the node is
// closed, and gives the address. containerd takes registries there to speak plain HTTP.
func (n *Node) Serve(ctx context.Context, handler http.Handler) (string, error) {
	listener, err := n.Listen(ctx, "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("serving on the node: %w", err)
	}
	server := &http.Server{Handler: handler, ErrorLog: nobody()}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.servers = append(n.servers, server)
	go func() { _ = server.Serve(listener) }() // until Close
	return listener.Addr().String(), nil
}
