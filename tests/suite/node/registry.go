package node

import (
	"context"
	"fmt"
	"net/http"
	"path"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Push puts an image where the node can pull it, and gives the reference by digest by
// which it does. The registry is in memory, and ends with the node.
func (n *Node) Push(ctx context.Context, repository string, image v1.Image) (string, error) {
	n.registry.Do(func() { n.registryHost, n.registryErr = n.Serve(ctx, registry.New(registry.Logger(nobody()))) })
	if n.registryErr != nil {
		return "", n.registryErr
	}
	repository = path.Join(n.registryHost, repository)
	fail := func(err error) (string, error) { return "", fmt.Errorf("pushing an image to %s: %w", repository, err) }
	digest, err := image.Digest()
	if err != nil {
		return fail(err)
	}
	reference, err := name.NewDigest(repository + "@" + digest.String())
	if err != nil {
		return fail(err)
	}
	if err := remote.Write(reference, image, remote.WithContext(ctx), remote.WithTransport(&http.Transport{DialContext: n.Dial})); err != nil {
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
