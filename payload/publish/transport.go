package publish

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/kiln-build/kiln/payload/receipt"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// NewTransport is how registries are talked to: every wait is bounded, and
// nothing goes out in plain text except to this machine.
//
// A layer may take as long as it takes, so there is no limit on a request as
// a whole. What is bounded is silence: a connection on which nothing moves
// for the idle time is cut, and so is a registry that does not begin to
// answer.
func NewTransport(idle time.Duration) http.RoundTripper {
	dialer := &net.Dialer{Timeout: idle, KeepAlive: 30 * time.Second}
	return plainOnlyToLoopback{&http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return newIdleConn(c, idle)
		},
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       idle / 2,
		TLSHandshakeTimeout:   idle,
		ResponseHeaderTimeout: idle,
		ExpectContinueTimeout: time.Second,
	}}
}

type plainOnlyToLoopback struct{ inner http.RoundTripper }

func (p plainOnlyToLoopback) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme == "http" && !receipt.Loopback(req.URL.Host) {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, exitcode.With(exitcode.Unreachable, fmt.Errorf("refusing to talk to %s without TLS: that is for loopback only", req.URL.Host))
	}
	return p.inner.RoundTrip(req)
}

// idleConn is a connection that ends when nothing moves for a while, in
// either direction: a registry may be silent while it receives.
type idleConn struct {
	net.Conn
	idle time.Duration

	mu   sync.Mutex
	last time.Time
}

func newIdleConn(c net.Conn, idle time.Duration) (net.Conn, error) {
	ic := &idleConn{Conn: c, idle: idle}
	return ic, ic.touch()
}

// touch moves the deadline of both directions, also of a call that is
// waiting, but not on every packet.
func (c *idleConn) touch() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if now.Sub(c.last) < c.idle/16 {
		return nil
	}
	c.last = now
	return c.SetDeadline(now.Add(c.idle))
}

func (c *idleConn) Read(p []byte) (int, error) {
	if err := c.touch(); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	if n > 0 {
		if terr := c.touch(); err == nil {
			err = terr
		}
	}
	return n, err
}

func (c *idleConn) Write(p []byte) (int, error) {
	// A large write blocks without moving the deadline, so it goes out in
	// pieces.
	const piece = 64 << 10
	written := 0
	for written < len(p) {
		if err := c.touch(); err != nil {
			return written, err
		}
		n, err := c.Conn.Write(p[written:min(written+piece, len(p))])
		written += n
		if err != nil {
			return written, err
		}
	}
	return written, nil
}
