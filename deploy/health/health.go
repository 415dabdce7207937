// Package health tells the kubelet whether the installer lives and whether the
// node has been installed on.
package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// DefaultPort is upstream's.
const DefaultPort = 8090

// Server answers /healthz as long as it runs, and /readyz with 200 only while the
// node is ready, 503 otherwise.
type Server struct {
	ready    atomic.Bool
	listener net.Listener
	server   *http.Server
	done     chan error
}

// Serve starts to serve on an address, not yet ready.
func Serve(ctx context.Context, address string) (*Server, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("serving health on %s: %w", address, err))
	}
	s := &Server{listener: listener, done: make(chan error, 1)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !s.ready.Load() {
			http.Error(w, "not installed", http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	})
	s.server = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() { s.done <- s.server.Serve(listener) }()
	return s, nil
}

// Address is where it serves.
func (s *Server) Address() string { return s.listener.Addr().String() }

// SetReady says whether the node is ready.
func (s *Server) SetReady(ready bool) { s.ready.Store(ready) }

// Close ends it.
func (s *Server) Close() error {
	err := s.server.Close()
	if served := <-s.done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	if err != nil {
		return fmt.Errorf("ending to serve health: %w", err)
	}
	return nil
}
