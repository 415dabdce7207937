package vm

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"
)

// retryInterval is the pause between attempts to reach a guest that does not
// listen yet.
const retryInterval = 200 * time.Millisecond

// DialHybrid connects to a port of a guest through the unix socket of a
// vhost-user vsock device: one line asks for the port, one line answers, then
// the connection is the guest's. The first bytes of the caller may only follow
// the answer, since the device drops what comes before it.
func DialHybrid(ctx context.Context, socket string, port uint32) (net.Conn, error) {
	fail := func(err error) (net.Conn, error) {
		return nil, fmt.Errorf("connecting to vsock port %d of the guest: %w", port, err)
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return fail(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	answer, err := handshake(conn, port)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err == nil && !strings.HasPrefix(answer, "OK ") {
		err = fmt.Errorf("the device answered %q", answer)
	}
	if err != nil {
		_ = conn.Close()
		return fail(err)
	}
	return conn, nil
}

func handshake(conn net.Conn, port uint32) (string, error) {
	if _, err := fmt.Fprintf(conn, "CONNECT %d\n", port); err != nil {
		return "", err
	}
	// Byte by byte: what follows the line belongs to the caller.
	var answer strings.Builder
	for b := make([]byte, 1); answer.Len() < 64; {
		if _, err := conn.Read(b); err != nil {
			return "", err
		}
		if b[0] == '\n' {
			return answer.String(), nil
		}
		answer.WriteByte(b[0])
	}
	return answer.String(), nil
}

// DialVsock connects to a port of the guest, and tries again until the guest
// listens, the guest ends or ctx does.
func (v *VM) DialVsock(ctx context.Context, port uint32) (net.Conn, error) {
	for {
		conn, err := DialHybrid(ctx, v.vsockSocket, port)
		if err == nil {
			return conn, nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-v.exited:
			return nil, fmt.Errorf("%w (the guest ended)", err)
		case <-time.After(retryInterval):
		}
	}
}
