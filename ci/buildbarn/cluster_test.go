//go:build bazel

package main_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/bazelbuild/remote-apis-sdks/go/pkg/client"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/bazelbuild/rules_go/go/runfiles"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/kiln-build/kiln/ci/buildbarn/config"
	"github.com/kiln-build/kiln/ci/buildbarn/enginetest"
)

// place puts the parts of a cluster on loopback.
type place struct {
	dir   string
	ports map[string]int
	// pool is the worker's, of which only one is rendered at a time.
	pool string
}

func (p place) key(part config.Part, n int, port config.Port) string {
	if part == config.WorkerPart || part == config.RunnerPart {
		return fmt.Sprintf("worker-%s:%d", p.pool, port)
	}
	return fmt.Sprintf("%s-%d:%d", part, n, port)
}

func (p place) Listen(part config.Part, n int, port config.Port) string {
	return config.Loopback(p.ports[p.key(part, n, port)])
}

func (p place) Dial(part config.Part, n int, port config.Port) string {
	return p.Listen(part, n, port)
}
func (p place) Credentials(part config.Part) string { return filepath.Join(p.dir, string(part)) }
func (p place) Public() string                      { return filepath.Join(p.dir, "public") }
func (p place) Keys() string                        { return filepath.Join(p.dir, "jwks.json") }

func (p place) Files(part config.Part, n int) string {
	if part == config.WorkerPart {
		return filepath.Join(p.dir, "files-"+p.pool)
	}
	return filepath.Join(p.dir, fmt.Sprintf("files-%s-%d", part, n))
}

// cluster is one whose parts are all on this machine, each with the configuration
// that it has in Kubernetes.
type cluster struct {
	place
	t       *testing.T
	cluster config.Cluster
	roots   *x509.CertPool
	signer  ed25519.PrivateKey
	kill    map[string]context.CancelFunc
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	// The path of a socket must be short.
	dir, err := os.MkdirTemp("/tmp", "kiln-cluster-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	pool := func(kind string) config.Pool { return config.Pool{Kind: kind, Concurrency: 1} }
	c := &cluster{
		place:   place{dir: dir, ports: map[string]int{}},
		t:       t,
		cluster: config.Cluster{Settings: config.Default(), Shards: 2, NodeSize: 1 << 30, Pools: []config.Pool{pool(config.Plain), pool(config.KVM)}},
		kill:    map[string]context.CancelFunc{},
	}
	c.choosePorts()
	c.issue()

	sets := []config.Part{config.StorageA, config.StorageB}
	for _, set := range sets {
		for n := range c.cluster.Shards {
			c.mkdir(c.Files(set, n), "cas/state", "ac/state")
			text, err := c.cluster.RenderStorage(c, set, n)
			c.start(fmt.Sprintf("%s-%d", set, n), "bb_storage", text, err, nil, c.Listen(set, n, config.PortMetrics))
		}
	}
	text, err := c.cluster.RenderFrontend(c)
	c.start("frontend", "bb_storage", text, err, nil, c.Listen(config.FrontendPart, 0, config.PortMetrics))
	text, err = c.cluster.RenderScheduler(c)
	c.start("scheduler", "bb_scheduler", text, err, nil, c.Listen(config.SchedulerPart, 0, config.PortMetrics))
	for _, pool := range c.cluster.Pools {
		c.place.pool = pool.Kind
		c.mkdir(c.Files(config.WorkerPart, 0), "build", "cache")
		text, err := c.cluster.RenderRunner(c, pool)
		c.start("runner-"+pool.Kind, "bb_runner", text, err, nil, c.Listen(config.RunnerPart, 0, config.PortRunnerMetrics))
		text, err = c.cluster.RenderWorker(c, pool)
		c.start("worker-"+pool.Kind, "bb_worker", text, err, []string{config.WorkerVariable + "=" + pool.Kind}, c.Listen(config.WorkerPart, 0, config.PortMetrics))
	}
	return c
}

func (c *cluster) choosePorts() {
	take := func(part config.Part, n int, ports ...config.Port) {
		for _, port := range ports {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(c.t, err)
			defer l.Close()
			c.ports[c.key(part, n, port)] = l.Addr().(*net.TCPAddr).Port
		}
	}
	for n := range c.cluster.Shards {
		take(config.StorageA, n, config.PortStorage, config.PortMetrics)
		take(config.StorageB, n, config.PortStorage, config.PortMetrics)
	}
	take(config.FrontendPart, 0, config.PortClients, config.PortMetrics)
	take(config.SchedulerPart, 0, config.PortActions, config.PortQueue, config.PortMetrics)
	for _, pool := range c.cluster.Pools {
		c.place.pool = pool.Kind
		take(config.WorkerPart, 0, config.PortMetrics, config.PortRunnerMetrics)
	}
}

func (c *cluster) mkdir(dir string, names ...string) {
	for _, name := range names {
		require.NoError(c.t, os.MkdirAll(filepath.Join(dir, name), 0o700))
	}
}

// issue makes all credentials.
func (c *cluster) issue() {
	t := c.t
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kiln test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	root, err := x509.CreateCertificate(rand.Reader, authority, authority, public, private)
	require.NoError(t, err)
	c.roots = x509.NewCertPool()
	parsed, err := x509.ParseCertificate(root)
	require.NoError(t, err)
	c.roots.AddCert(parsed)
	write := func(dir, name, kind string, der []byte) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	}
	for i, name := range []string{"storage-a", "storage-b", "frontend", "scheduler", "worker", "public"} {
		dir := filepath.Join(c.dir, name)
		require.NoError(t, os.Mkdir(dir, 0o700))
		own, key, err := ed25519.GenerateKey(rand.Reader)
		require.NoError(t, err)
		certificate, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 2)), Subject: pkix.Name{CommonName: name},
			NotBefore: authority.NotBefore, NotAfter: authority.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		}, authority, own, private)
		require.NoError(t, err)
		pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
		require.NoError(t, err)
		write(dir, "tls.crt", "CERTIFICATE", certificate)
		write(dir, "tls.key", "PRIVATE KEY", pkcs8)
		write(dir, "ca.crt", "CERTIFICATE", root)
	}
	verifier, signer, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	c.signer = signer
	keys, err := json.Marshal(map[string]any{"keys": []any{map[string]string{
		"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "x": base64.RawURLEncoding.EncodeToString(verifier),
	}}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(c.Keys(), keys, 0o600))
}

// start starts a part and waits until it says that it is well.
func (c *cluster) start(name, program string, configuration []byte, rendering error, env []string, metrics string) {
	t := c.t
	require.NoError(t, rendering)
	file := filepath.Join(c.dir, name+".jsonnet")
	require.NoError(t, os.WriteFile(file, configuration, 0o600))
	path := filepath.Join(os.Getenv(enginetest.ProgramsVariable), program)
	if !filepath.IsAbs(path) {
		found, err := runfiles.Rlocation("_main/ci/buildbarn/programs/bin/" + program)
		require.NoError(t, err)
		path = found
	}
	log, err := os.Create(filepath.Join(c.dir, name+".log"))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	started, ended := make(chan error), make(chan struct{})
	go func() {
		// The process is killed when the thread that starts it ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(ended)
		cmd := exec.CommandContext(ctx, path, file)
		cmd.Env = append([]string{"PATH=/usr/bin:/bin"}, env...)
		cmd.Stdout, cmd.Stderr = log, log
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // it is killed
		}
	}()
	require.NoError(t, <-started)
	c.kill[name] = func() {
		cancel()
		<-ended
	}
	t.Cleanup(func() {
		c.kill[name]()
		log.Close()
		if t.Failed() {
			text, err := os.ReadFile(log.Name())
			require.NoError(t, err)
			t.Logf("%s:\n%s", name, text[max(0, len(text)-3000):])
		}
	})
	late := time.After(time.Minute)
	for !healthy("http://" + metrics + "/-/healthy") {
		select {
		case <-ended:
			require.Fail(t, "a part ended", "%s does not take its configuration", name)
		case <-late:
			require.Fail(t, "a part is not well", "%s does not come up", name)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func healthy(url string) bool {
	response, err := http.Get(url)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// token signs what a client is.
func (c *cluster) token(signer ed25519.PrivateKey, role string) string {
	encode := func(value any) string {
		text, err := json.Marshal(value)
		require.NoError(c.t, err)
		return base64.RawURLEncoding.EncodeToString(text)
	}
	body := encode(map[string]string{"alg": "EdDSA", "typ": "JWT"}) + "." +
		encode(map[string]any{"sub": "test", config.RoleClaim: role, "exp": time.Now().Add(time.Hour).Unix()})
	return body + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(signer, []byte(body)))
}

// client connects with a token, or with none.
func (c *cluster) client(token string) *client.Client {
	add := func(ctx context.Context) context.Context {
		if token == "" {
			return ctx
		}
		return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	conn, err := grpc.NewClient(c.Dial(config.FrontendPart, 0, config.PortClients),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: c.roots, MinVersion: tls.VersionTLS12})),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, o ...grpc.CallOption) error {
			return invoke(add(ctx), method, req, reply, cc, o...)
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, d *grpc.StreamDesc, cc *grpc.ClientConn, method string, stream grpc.Streamer, o ...grpc.CallOption) (grpc.ClientStream, error) {
			return stream(add(ctx), d, cc, method, o...)
		}))
	require.NoError(c.t, err)
	made, err := client.NewClientFromConnection(c.t.Context(), "", conn, conn)
	require.NoError(c.t, err)
	c.t.Cleanup(func() { _ = made.Close() })
	return made
}

func requireCode(t *testing.T, want codes.Code, err error) {
	t.Helper()
	require.Error(t, err)
	for inner := err; inner != nil; {
		if s, ok := status.FromError(inner); ok {
			require.Equal(t, want, s.Code(), "%v", err)
			return
		}
		unwrapper, ok := inner.(interface{ Unwrap() error })
		require.True(t, ok, "%v has no code", err)
		inner = unwrapper.Unwrap()
	}
}

func TestACluster(t *testing.T) {
	c := startCluster(t)
	landed, trusted, stranger := c.client(c.token(c.signer, config.Landed)), c.client(c.token(c.signer, config.Trusted)), c.client("")
	_, other, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	forger := c.client(c.token(other, config.Landed))

	script := enginetest.Action{Script: "date +%s%N > out", Outputs: []string{"out"}}
	action, err := enginetest.Upload(t.Context(), trusted, script)
	require.NoError(t, err)
	response, err := enginetest.Execute(t.Context(), trusted, action, false)
	require.NoError(t, err)
	require.Zero(t, response.Result.ExitCode)
	want := enginetest.Output(t, trusted, response.Result, "out")

	t.Run("everybody reads", func(t *testing.T) {
		for name, reader := range map[string]*client.Client{"landed": landed, "trusted": trusted, "stranger": stranger, "forger": forger} {
			result, err := reader.GetActionResult(t.Context(), &repb.GetActionResultRequest{ActionDigest: action})
			require.NoError(t, err, name)
			require.Equal(t, want, enginetest.Output(t, reader, result, "out"), name)
		}
	})
	t.Run("strangers do nothing else", func(t *testing.T) {
		for name, writer := range map[string]*client.Client{"stranger": stranger, "forger": forger} {
			_, err := enginetest.Upload(t.Context(), writer, enginetest.Action{Script: ": " + name})
			requireCode(t, codes.PermissionDenied, err)
			_, err = enginetest.Execute(t.Context(), writer, action, false)
			requireCode(t, codes.PermissionDenied, err)
		}
	})
	t.Run("only what has landed vouches", func(t *testing.T) {
		unexecuted, err := enginetest.Upload(t.Context(), trusted, enginetest.Action{Script: ": nobody executes this"})
		require.NoError(t, err)
		for name, writer := range map[string]*client.Client{"trusted": trusted, "stranger": stranger, "forger": forger} {
			_, err := writer.UpdateActionResult(t.Context(), &repb.UpdateActionResultRequest{ActionDigest: unexecuted, ActionResult: response.Result})
			requireCode(t, codes.PermissionDenied, err)
			_, err = stranger.GetActionResult(t.Context(), &repb.GetActionResultRequest{ActionDigest: unexecuted})
			require.Equal(t, codes.NotFound, status.Code(err), name)
		}
		_, err = landed.UpdateActionResult(t.Context(), &repb.UpdateActionResultRequest{ActionDigest: unexecuted, ActionResult: response.Result})
		require.NoError(t, err)
		_, err = stranger.GetActionResult(t.Context(), &repb.GetActionResultRequest{ActionDigest: unexecuted})
		require.NoError(t, err)
	})
	t.Run("a result without its blobs is none", func(t *testing.T) {
		lost, err := enginetest.Upload(t.Context(), trusted, enginetest.Action{Script: ": its output is lost"})
		require.NoError(t, err)
		_, err = landed.UpdateActionResult(t.Context(), &repb.UpdateActionResultRequest{ActionDigest: lost, ActionResult: &repb.ActionResult{
			OutputFiles: []*repb.OutputFile{{Path: "out", Digest: &repb.Digest{Hash: action.Hash[32:] + action.Hash[:32], SizeBytes: 7}}},
		}})
		require.NoError(t, err)
		_, err = stranger.GetActionResult(t.Context(), &repb.GetActionResultRequest{ActionDigest: lost})
		require.Equal(t, codes.NotFound, status.Code(err))
	})
	t.Run("storage knows only parts", func(t *testing.T) {
		conn, err := grpc.NewClient(c.Dial(config.StorageA, 0, config.PortStorage),
			grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: c.roots, MinVersion: tls.VersionTLS12})))
		require.NoError(t, err)
		defer conn.Close()
		_, err = repb.NewContentAddressableStorageClient(conn).FindMissingBlobs(t.Context(), &repb.FindMissingBlobsRequest{BlobDigests: []*repb.Digest{action}})
		require.Equal(t, codes.Unauthenticated, status.Code(err), "%v", err)
	})
	t.Run("kinds of workers", func(t *testing.T) {
		for _, kind := range []string{config.Plain, config.KVM} {
			a := enginetest.Action{Script: ": for " + kind}
			if kind != config.Plain {
				a.Platform = map[string]string{config.PlatformProperty: kind}
			}
			d, err := enginetest.Upload(t.Context(), trusted, a)
			require.NoError(t, err)
			response, err := enginetest.Execute(t.Context(), trusted, d, false)
			require.NoError(t, err)
			require.Contains(t, response.Result.ExecutionMetadata.Worker, `"worker":"`+kind+`"`)
		}
		d, err := enginetest.Upload(t.Context(), trusted, enginetest.Action{Script: ":", Platform: map[string]string{config.PlatformProperty: config.TDX}})
		require.NoError(t, err)
		_, err = enginetest.Execute(t.Context(), trusted, d, false)
		require.ErrorContains(t, err, "No workers exist")
	})
	t.Run("one node of each shard is enough", func(t *testing.T) {
		c.kill["storage-a-0"]()
		c.kill["storage-b-1"]()
		// One comes back empty, the other as it was when it was killed.
		require.NoError(t, os.RemoveAll(c.Files(config.StorageA, 0)))
		c.mkdir(c.Files(config.StorageA, 0), "cas/state", "ac/state")
		for _, node := range []struct {
			set config.Part
			n   int
		}{{config.StorageA, 0}, {config.StorageB, 1}} {
			text, err := c.cluster.RenderStorage(c, node.set, node.n)
			c.start(fmt.Sprintf("%s-%d", node.set, node.n), "bb_storage", text, err, nil, c.Listen(node.set, node.n, config.PortMetrics))
		}
		require.Eventually(t, func() bool {
			result, err := stranger.GetActionResult(t.Context(), &repb.GetActionResultRequest{ActionDigest: action})
			return err == nil && enginetest.Output(t, stranger, result, "out") == want
		}, time.Minute, 100*time.Millisecond, "an emptied node is not filled from the other one")
	})
}
