package criclient_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kiln-build/kiln/deploy/criclient"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// server answers as a runtime does.
type server struct {
	cri.UnimplementedRuntimeServiceServer
	status func() (*cri.StatusResponse, error)
}

func (s *server) Status(_ context.Context, request *cri.StatusRequest) (*cri.StatusResponse, error) {
	if !request.GetVerbose() {
		return nil, errors.New("only the verbose answer has all")
	}
	return s.status()
}

func (s *server) Version(context.Context, *cri.VersionRequest) (*cri.VersionResponse, error) {
	return &cri.VersionResponse{RuntimeName: "containerd", RuntimeVersion: "2.1.9"}, nil
}

func TestVersion(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "socket")
	c := &criclient.Client{Socket: socket}
	_, err := c.Version(t.Context())
	require.Equal(t, exitcode.Unreachable, exitcode.Of(err))
	serve(t, socket, nil)
	version, err := c.Version(t.Context())
	require.NoError(t, err)
	require.Equal(t, "containerd://2.1.9", version)
}

func serve(t *testing.T, socket string, status func() (*cri.StatusResponse, error)) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	require.NoError(t, err)
	s := grpc.NewServer()
	cri.RegisterRuntimeServiceServer(s, &server{status: status})
	done := make(chan error, 1)
	go func() { done <- s.Serve(listener) }()
	t.Cleanup(func() {
		s.Stop()
		require.NoError(t, <-done)
	})
}

func ready(is bool) *cri.RuntimeStatus {
	return &cri.RuntimeStatus{Conditions: []*cri.RuntimeCondition{
		{Type: "RuntimeReady", Status: is, Reason: "Starting", Message: "one moment"}, {Type: "NetworkReady", Status: false},
	}}
}

func TestStatus(t *testing.T) {
	for name, tc := range map[string]struct {
		response *cri.StatusResponse
		want     criclient.Status
	}{
		"it tells": {
			&cri.StatusResponse{Status: ready(true), RuntimeHandlers: []*cri.RuntimeHandler{{Name: ""}, {Name: "runc"}, {Name: "kata-qemu-tdx"}}},
			criclient.Status{Ready: true, Told: true, Handlers: []string{"kata-qemu-tdx", "runc"}},
		},
		"its configuration tells": {
			&cri.StatusResponse{Status: ready(true), Info: map[string]string{"config": `{"containerd":{"runtimes":{"runc":{},"kata-qemu":{}}},"x":1}`}},
			criclient.Status{Ready: true, Told: true, Handlers: []string{"kata-qemu", "runc"}},
		},
		"it does not tell": {
			&cri.StatusResponse{Status: ready(true), Info: map[string]string{"config": "[crio]\n"}},
			criclient.Status{Ready: true},
		},
		"not ready": {
			&cri.StatusResponse{Status: ready(false)}, criclient.Status{Problem: "Starting: one moment"},
		},
		"nothing": {
			&cri.StatusResponse{}, criclient.Status{Problem: "it does not say that it is ready"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "s")
			serve(t, socket, func() (*cri.StatusResponse, error) { return tc.response, nil })
			got, err := (&criclient.Client{Socket: socket}).Status(t.Context())
			require.NoError(t, err)
			require.Equal(t, &tc.want, got)
		})
	}
	socket := filepath.Join(t.TempDir(), "s")
	serve(t, socket, func() (*cri.StatusResponse, error) {
		return &cri.StatusResponse{Info: map[string]string{"config": "{"}}, nil
	})
	_, err := (&criclient.Client{Socket: socket}).Status(t.Context())
	require.ErrorContains(t, err, "reading the configuration that the runtime reports")
}

// A runtime that starts: first nobody listens, then it has an error, then it is not
// ready.
func TestWait(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	c := &criclient.Client{Socket: socket}
	_, err := c.Status(t.Context())
	require.Equal(t, exitcode.Unreachable, exitcode.Of(err))

	got := make(chan *criclient.Status, 1)
	failed := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() {
		s, err := c.Wait(ctx)
		got <- s
		failed <- err
	}()
	time.Sleep(50 * time.Millisecond)
	var asked atomic.Int32
	serve(t, socket, func() (*cri.StatusResponse, error) {
		switch asked.Add(1) {
		case 1:
			return nil, errors.New("server is not initialized yet")
		case 2:
			return &cri.StatusResponse{Status: ready(false)}, nil
		}
		return &cri.StatusResponse{Status: ready(true), RuntimeHandlers: []*cri.RuntimeHandler{{Name: "runc"}}}, nil
	})
	require.Equal(t, []string{"runc"}, (<-got).Handlers)
	require.NoError(t, <-failed)
	require.EqualValues(t, 3, asked.Load())
}

func TestWaitEnds(t *testing.T) {
	ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, errors.New("that took too long"))
	defer cancel()
	socket := filepath.Join(t.TempDir(), "s")
	_, err := (&criclient.Client{Socket: socket}).Wait(ctx)
	require.ErrorContains(t, err, "waiting for the runtime: asking the runtime at "+socket)
	require.ErrorContains(t, err, "that took too long")
	require.Equal(t, exitcode.Unreachable, exitcode.Of(err))

	serve(t, socket, func() (*cri.StatusResponse, error) { return &cri.StatusResponse{Status: ready(false)}, nil })
	again, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = (&criclient.Client{Socket: socket}).Wait(again)
	require.ErrorContains(t, err, "is not ready: Starting: one moment")
}
