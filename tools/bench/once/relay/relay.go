// Package relay passes TCP connections on and counts what goes through, so that
// one client of a server can be told from another.
package relay

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// Relay listens on loopback and passes all connections on to one server.
type Relay struct {
	listener net.Listener
	target   string
	up, down atomic.Int64

	mu     sync.Mutex
	open   map[net.Conn]bool
	closed bool
	wait   sync.WaitGroup
}

// Start starts a relay to target, host:port, on a free port.
func Start(target string) (*Relay, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting a relay to %s: %w", target, err)
	}
	r := &Relay{listener: listener, target: target, open: map[net.Conn]bool{}}
	r.wait.Go(r.accept)
	return r, nil
}

// Address is where the relay listens, host:port.
func (r *Relay) Address() string { return r.listener.Addr().String() }

// Up is how many bytes clients have sent to the server.
func (r *Relay) Up() int64 { return r.up.Load() }

// Down is how many bytes clients have received from the server.
func (r *Relay) Down() int64 { return r.down.Load() }

// Close ends all connections and waits until nothing of the relay runs.
func (r *Relay) Close() error {
	r.mu.Lock()
	r.closed = true
	err := r.listener.Close()
	for c := range r.open {
		c.Close()
	}
	r.mu.Unlock()
	r.wait.Wait()
	return err
}

func (r *Relay) accept() {
	for {
		client, err := r.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		} else if err != nil {
			continue // One connection that failed is that client's matter.
		}
		r.wait.Go(func() { r.pass(client) })
	}
}

// pass copies both ways until one side ends.
func (r *Relay) pass(client net.Conn) {
	if !r.track(client) {
		return
	}
	defer r.forget(client)
	server, err := net.Dial("tcp", r.target)
	if err != nil {
		return // The client sees its connection end, as it would at the server.
	}
	if !r.track(server) {
		return
	}
	defer r.forget(server)
	var both sync.WaitGroup
	copyTo := func(to, from net.Conn, count *atomic.Int64) {
		_, _ = io.Copy(to, counter{from, count})
		// Ends the other direction as well.
		to.Close()
		from.Close()
	}
	both.Go(func() { copyTo(server, client, &r.up) })
	both.Go(func() { copyTo(client, server, &r.down) })
	both.Wait()
}

// track remembers a connection so that Close can end it, unless it is too late.
func (r *Relay) track(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		c.Close()
		return false
	}
	r.open[c] = true
	return true
}

func (r *Relay) forget(c net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, c)
	c.Close()
}

// counter counts what is read.
type counter struct {
	from  io.Reader
	count *atomic.Int64
}

func (c counter) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.count.Add(int64(n))
	return n, err
}
