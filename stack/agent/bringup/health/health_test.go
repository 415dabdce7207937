package health_test

import (
	"context"
	"net"
	"path/filepath"
	"testing"

	"github.com/containerd/ttrpc"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/kiln-build/kiln/stack/agent/bringup/health"
	"github.com/kiln-build/kiln/stack/agent/healthpb"
)

func serve(t *testing.T, service *health.Service) *ttrpc.Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "agent.sock")
	listener, err := net.Listen("unix", socket)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- health.Serve(ctx, listener, service) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	conn, err := net.Dial("unix", socket)
	require.NoError(t, err)
	client := ttrpc.NewClient(conn)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	return client
}

func TestCheck(t *testing.T) {
	for _, test := range []struct {
		name    string
		healthy bool
		want    healthpb.HealthCheckResponse_ServingStatus
	}{
		{"a sound guest serves", true, healthpb.HealthCheckResponse_SERVING},
		{"a guest that failed its checks does not", false, healthpb.HealthCheckResponse_NOT_SERVING},
	} {
		t.Run(test.name, func(t *testing.T) {
			client := healthpb.NewHealthClient(serve(t, &health.Service{Healthy: test.healthy}))
			answer, err := client.Check(t.Context(), &healthpb.CheckRequest{})
			require.NoError(t, err)
			require.Equal(t, test.want, answer.GetStatus())
		})
	}
}

func TestVersion(t *testing.T) {
	client := healthpb.NewHealthClient(serve(t, &health.Service{AgentVersion: "bringup-1"}))
	answer, err := client.Version(t.Context(), &healthpb.CheckRequest{})
	require.NoError(t, err)
	require.Equal(t, health.ProtocolVersion, answer.GetGrpcVersion())
	require.Equal(t, "bringup-1", answer.GetAgentVersion())
}

// The runtimes' side of the wire is fixed: the service and method names, and
// the bytes of the messages.
func TestWireContract(t *testing.T) {
	client := serve(t, &health.Service{AgentVersion: "v", Healthy: true})

	var check, version healthpb.CheckRequest
	require.NoError(t, client.Call(t.Context(), "grpc.Health", "Check", &check, &healthpb.HealthCheckResponse{}))
	require.NoError(t, client.Call(t.Context(), "grpc.Health", "Version", &version, &healthpb.VersionCheckResponse{}))
	require.Error(t, client.Call(t.Context(), "grpc.Health", "Nonsense", &check, &healthpb.HealthCheckResponse{}))

	wire := func(parts ...any) []byte {
		var b []byte
		for i, part := range parts {
			number := protowire.Number(i + 1)
			switch v := part.(type) {
			case int:
				b = protowire.AppendVarint(protowire.AppendTag(b, number, protowire.VarintType), uint64(v))
			case string:
				b = protowire.AppendString(protowire.AppendTag(b, number, protowire.BytesType), v)
			}
		}
		return b
	}
	for _, test := range []struct {
		message proto.Message
		want    []byte
	}{
		{&healthpb.CheckRequest{Service: "agent"}, wire("agent")},
		{&healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, wire(1)},
		{&healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_NOT_SERVING}, wire(2)},
		{&healthpb.VersionCheckResponse{GrpcVersion: "0.0.1", AgentVersion: "v"}, wire("0.0.1", "v")},
	} {
		got, err := proto.Marshal(test.message)
		require.NoError(t, err)
		require.Equal(t, test.want, got)
	}
}
