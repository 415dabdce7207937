package remotecache_test

import (
	"context"
	"net"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/kiln-build/kiln/ci/plan/cacheonly"
	"github.com/kiln-build/kiln/ci/plan/remotecache"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// serve serves an empty cache to whoever has the header.
func serve(t *testing.T, header string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		if got := md.Get(header); len(got) != 1 || got[0] != "let=me=in" {
			return nil, status.Error(codes.Unauthenticated, "who are you?")
		}
		return handle(ctx, req)
	}))
	cacheonly.New(cacheonly.Nothing{}).Register(server)
	done := make(chan error)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		require.NoError(t, <-done)
	})
	return "grpc://" + listener.Addr().String()
}

func TestDial(t *testing.T) {
	endpoint := serve(t, "x-key")
	c, err := remotecache.Dial(t.Context(), remotecache.Options{Endpoint: endpoint, Headers: []string{"x-key=let=me=in"}})
	require.NoError(t, err)
	defer c.Close()
	_, err = c.GetActionResult(t.Context(), &repb.GetActionResultRequest{ActionDigest: &repb.Digest{}})
	require.Equal(t, codes.NotFound, status.Code(err))

	_, err = remotecache.Dial(t.Context(), remotecache.Options{Endpoint: endpoint})
	require.ErrorContains(t, err, "who are you?")
	require.Equal(t, exitcode.Unreachable, exitcode.Of(err))
}

func TestDialRefuses(t *testing.T) {
	for want, o := range map[string]remotecache.Options{
		`"" is not where a cache is`:           {},
		`"cache:8980" is not where a cache is`: {Endpoint: "cache:8980"},
		"http is not supported":                {Endpoint: "http://cache"},
		"takes no certificate":                 {Endpoint: "grpc://cache:1", Certificate: "me.pem"},
		"a header is not of the form":          {Endpoint: "grpc://cache:1", Headers: []string{"secret"}},
		"grpc://cache/path\" is not where":     {Endpoint: "grpc://cache/path"},
	} {
		_, err := remotecache.Dial(t.Context(), o)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "secret")
		require.Equal(t, exitcode.BadInput, exitcode.Of(err))
	}
}
