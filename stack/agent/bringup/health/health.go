// Package health answers the agent's health service, by which a runtime finds
// out that a guest is up.
package health

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/containerd/ttrpc"

	"github.com/kiln-build/kiln/stack/agent/healthpb"
)

// ProtocolVersion is the version of the agent protocol that runtimes expect.
const ProtocolVersion = "0.0.1"

// Service answers for one agent.
type Service struct {
	// AgentVersion is what Version reports.
	AgentVersion string
	// Healthy is whether the guest passed the agent's checks.
	Healthy bool
}

// Check says SERVING only for a guest that passed its checks: an agent that
// answers from a guest without a verified root is not fit to serve.
func (s *Service) Check(context.Context, *healthpb.CheckRequest) (*healthpb.HealthCheckResponse, error) {
	status := healthpb.HealthCheckResponse_NOT_SERVING
	if s.Healthy {
		status = healthpb.HealthCheckResponse_SERVING
	}
	return &healthpb.HealthCheckResponse{Status: status}, nil
}

// Version names the protocol and the agent.
func (s *Service) Version(context.Context, *healthpb.CheckRequest) (*healthpb.VersionCheckResponse, error) {
	return &healthpb.VersionCheckResponse{GrpcVersion: ProtocolVersion, AgentVersion: s.AgentVersion}, nil
}

// Serve answers on the listener until ctx ends.
func Serve(ctx context.Context, listener net.Listener, service *Service) error {
	server, err := ttrpc.NewServer()
	if err != nil {
		return fmt.Errorf("making the ttrpc server: %w", err)
	}
	healthpb.RegisterHealthService(server, service)
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(ctx, listener); err != nil && !errors.Is(err, ttrpc.ErrServerClosed) && ctx.Err() == nil {
		return fmt.Errorf("serving ttrpc: %w", err)
	}
	return nil
}
