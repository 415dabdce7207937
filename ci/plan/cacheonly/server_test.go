package cacheonly_test

import (
	"context"
	"net"
	"testing"

	"github.com/bazelbuild/remote-apis-sdks/go/pkg/client"
	"github.com/bazelbuild/remote-apis-sdks/go/pkg/digest"
	"github.com/bazelbuild/remote-apis-sdks/go/pkg/fakes"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/kiln-build/kiln/ci/plan/cacheonly"
)

// start serves a cache and gives a client of the server.
func start(t *testing.T, cache cacheonly.Cache) (*cacheonly.Server, *client.Client) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := cacheonly.New(cache)
	server := grpc.NewServer()
	s.Register(server)
	done := make(chan error)
	go func() { done <- server.Serve(listener) }()
	c, err := client.NewClient(t.Context(), "instance", client.DialParams{Service: listener.Addr().String(), NoSecurity: true}, client.StartupCapabilities(true))
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, c.Close())
		server.Stop()
		require.NoError(t, <-done)
	})
	return s, c
}

func execute(ctx context.Context, c *client.Client, d *repb.Digest, of *repb.RequestMetadata) error {
	header, err := proto.Marshal(of)
	if err != nil {
		return err
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "build.bazel.remote.execution.v2.requestmetadata-bin", string(header))
	stream, err := repb.NewExecutionClient(c.Connection()).Execute(ctx, &repb.ExecuteRequest{ActionDigest: d})
	if err != nil {
		return err
	}
	_, err = stream.Recv()
	return err
}

func TestReadsFromTheCache(t *testing.T) {
	backend, stop := fakes.NewTestEnv(t)
	defer stop()
	key := digest.NewFromBlob([]byte("an action"))
	blob := backend.Server.CAS.Put([]byte("an output"))
	backend.Server.ActionCache.Put(key, &repb.ActionResult{OutputFiles: []*repb.OutputFile{{Path: "out", Digest: blob.ToProto()}}})

	s, c := start(t, backend.Client.GrpcClient)
	result, err := c.GetActionResult(t.Context(), &repb.GetActionResultRequest{ActionDigest: key.ToProto()})
	require.NoError(t, err)
	require.Equal(t, "out", result.GetOutputFiles()[0].GetPath())
	content, _, err := c.ReadBlob(t.Context(), blob)
	require.NoError(t, err)
	require.Equal(t, "an output", string(content))

	// Nothing is ever uploaded: all is said to be there.
	missing, err := c.MissingBlobs(t.Context(), []digest.Digest{digest.NewFromBlob([]byte("nowhere"))})
	require.NoError(t, err)
	require.Empty(t, missing)
	_, err = c.UpdateActionResult(t.Context(), &repb.UpdateActionResultRequest{ActionDigest: key.ToProto(), ActionResult: result})
	require.Equal(t, codes.Unimplemented, status.Code(err))

	_, err = c.GetActionResult(t.Context(), &repb.GetActionResultRequest{ActionDigest: digest.NewFromBlob([]byte("another")).ToProto()})
	require.Equal(t, codes.NotFound, status.Code(err))
	require.NoError(t, s.Err(), "that something is not there is an answer")
}

func TestRefusesToExecuteAndRemembers(t *testing.T) {
	s, c := start(t, cacheonly.Nothing{})
	_, err := c.GetActionResult(t.Context(), &repb.GetActionResultRequest{ActionDigest: digest.Empty.ToProto()})
	require.Equal(t, codes.NotFound, status.Code(err))

	kernel := &repb.RequestMetadata{TargetId: "//stack/kernel:kernel", ActionMnemonic: "KataComponent"}
	boot := &repb.RequestMetadata{TargetId: "//tests/tdx:boot", ActionMnemonic: "TestRunner"}
	d := &repb.Digest{Hash: digest.Empty.Hash, SizeBytes: 7}
	for _, of := range []*repb.RequestMetadata{kernel, boot, kernel} {
		require.Equal(t, codes.PermissionDenied, status.Code(execute(t.Context(), c, d, of)))
	}
	require.Equal(t, []cacheonly.Action{
		{Target: "//stack/kernel:kernel", Mnemonic: "KataComponent", Digest: digest.Empty.Hash + "/7"},
		{Target: "//tests/tdx:boot", Mnemonic: "TestRunner", Digest: digest.Empty.Hash + "/7"},
	}, s.Refused())
	require.NoError(t, s.Err())
}

// away is a cache that cannot be reached.
type away struct{ cacheonly.Nothing }

func (away) GetActionResult(context.Context, *repb.GetActionResultRequest) (*repb.ActionResult, error) {
	return nil, status.Error(codes.Unavailable, "connection refused")
}

func TestTellsABrokenCacheFromAMiss(t *testing.T) {
	s, c := start(t, away{})
	_, err := c.GetActionResult(t.Context(), &repb.GetActionResultRequest{ActionDigest: digest.Empty.ToProto()})
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.ErrorContains(t, s.Err(), "connection refused")
}
