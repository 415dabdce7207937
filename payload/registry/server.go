package registry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// Server serves a registry on a loopback address.
type Server struct {
	registry *Registry
	http     *http.Server
	listener net.Listener
	served   chan error
}

// Serve starts to serve r on address, host:port, where port 0 takes a free
// one. Plain HTTP is for loopback only, so other hosts are refused.
func Serve(r *Registry, address string) (*Server, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("address %q: %w", address, err))
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("address %q: the embedded registry serves on a loopback address only, e.g. 127.0.0.1:5000", address))
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, exitcode.With(exitcode.Failed, fmt.Errorf("starting the embedded registry: %w", err))
	}
	s := &Server{
		registry: r,
		listener: l,
		http:     &http.Server{Handler: r, ReadHeaderTimeout: 30 * time.Second},
		served:   make(chan error, 1),
	}
	go func() { s.served <- s.http.Serve(l) }()
	return s, nil
}

// Address is host:port.
func (s *Server) Address() string { return s.listener.Addr().String() }

// Close stops to accept, lets requests finish until ctx ends, and then gives
// the directory back.
func (s *Server) Close(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		// Somebody is still talking; cut them off before the files go.
		err = errors.Join(fmt.Errorf("shutting the embedded registry down: %w", err), s.http.Close())
	}
	if serveErr := <-s.served; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("serving the embedded registry: %w", serveErr))
	}
	return errors.Join(err, s.registry.Close())
}

// OpenWait is Open, except that it waits for a process that has the
// directory for itself, which a publishing one does for a moment. One that
// serves for others is not waited for: the *LockedError tells its address.
// Waiting is called once, before the first wait.
func OpenWait(ctx context.Context, dir string, waiting func(*LockedError), opts ...Option) (*Registry, error) {
	for first := true; ; first = false {
		r, err := Open(dir, opts...)
		locked := &LockedError{}
		if err == nil || !errors.As(err, &locked) || locked.Address != "" {
			return r, err
		}
		if first {
			waiting(locked)
		}
		select {
		case <-ctx.Done():
			return nil, exitcode.With(exitcode.Unreachable, fmt.Errorf("%w (%w)", locked, ctx.Err()))
		case <-time.After(100 * time.Millisecond):
		}
	}
}
