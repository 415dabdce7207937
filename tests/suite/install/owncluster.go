package install

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// apiServer is where on a throw-away node the API server listens.
const apiServer = "127.0.0.1:443"

// OwnCluster is a throw-away node that is used as a node of somebody's cluster.
type OwnCluster struct {
	*Own
	// Kubeconfig is the path of a configuration by which any program reaches it.
	Kubeconfig string
}

// StartOwnCluster makes a throw-away node with a registry on it, to which the payload of
// the test is published, and lets programs outside of it reach its API server.
func StartOwnCluster(t testing.TB) *OwnCluster {
	t.Helper()
	c := &OwnCluster{Own: Start(t), Kubeconfig: filepath.Join(t.TempDir(), "kubeconfig")}
	config := c.REST()
	written := clientcmdapi.NewConfig()
	written.Clusters["node"] = &clientcmdapi.Cluster{Server: "https://" + c.forward(t, apiServer), CertificateAuthorityData: config.CAData}
	written.AuthInfos["admin"] = &clientcmdapi.AuthInfo{ClientCertificateData: config.CertData, ClientKeyData: config.KeyData}
	written.Contexts["node"] = &clientcmdapi.Context{Cluster: "node", AuthInfo: "admin"}
	written.CurrentContext = "node"
	require.NoError(t, clientcmd.WriteToFile(*written, c.Kubeconfig))
	return c
}

// forward listens here for connections to an address of the node.
func (c *OwnCluster) forward(t testing.TB, address string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var connections sync.WaitGroup
	connections.Go(func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return // it was closed
			}
			connections.Go(func() { c.connect(ctx, from, address) })
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = listener.Close()
		connections.Wait()
	})
	return listener.Addr().String()
}

// connect lets two ends talk until one of them stops. A node that does not answer is
// seen by the client, whose connection ends.
func (c *OwnCluster) connect(ctx context.Context, from net.Conn, address string) {
	defer from.Close()
	to, err := c.Node.Dial(ctx, "tcp", address)
	if err != nil {
		return
	}
	defer to.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		_ = from.Close()
		_ = to.Close()
	})()
	var both sync.WaitGroup
	for _, way := range []struct{ to, from net.Conn }{{to, from}, {from, to}} {
		both.Go(func() {
			defer cancel()
			_, _ = io.Copy(way.to, way.from)
		})
	}
	both.Wait()
}

// Given prepares the node as one of a given cluster, by the same way as for any other.
func (c *OwnCluster) Given(t testing.TB) *Setup {
	t.Helper()
	s := setup(t)
	s.Pushed, s.Pulled = c.Pushed, c.Pulled
	s.NoHardware = c.NoHardware
	startGiven(t, s, c.Kubeconfig)
	return s
}
