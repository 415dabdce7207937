package systemd_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/deploy/systemd"
	"github.com/kiln-build/kiln/tools/exitcode"
)

const (
	path      = godbus.ObjectPath("/org/freedesktop/systemd1")
	manager   = "org.freedesktop.systemd1.Manager"
	job       = godbus.ObjectPath("/org/freedesktop/systemd1/job/7")
	unitPath  = godbus.ObjectPath("/org/freedesktop/systemd1/unit/x")
	noSuchJob = godbus.ObjectPath("/")
)

// status is what systemd tells of a unit.
type status struct {
	Name, Description, LoadState, ActiveState, SubState, Followed string
	Path                                                          godbus.ObjectPath
	JobID                                                         uint32
	JobType                                                       string
	JobPath                                                       godbus.ObjectPath
}

// peer speaks D-Bus as systemd does on its private socket: without a bus, to each
// that connects.
type peer struct {
	units []status
	// result is how a job ends; empty means that it does not.
	result string

	mu        sync.Mutex
	conns     []*godbus.Conn
	restarted []string
	// told is all else that was asked for.
	told []string
}

// ListUnitsByNames and RestartUnit are systemd's.
func (p *peer) ListUnitsByNames(names []string) ([]status, *godbus.Error) {
	var found []status
	for _, name := range names {
		s := status{Name: name, LoadState: "not-found", ActiveState: "inactive", Path: unitPath, JobPath: noSuchJob}
		for _, unit := range p.units {
			if unit.Name == name {
				s.LoadState, s.ActiveState = unit.LoadState, unit.ActiveState
			}
		}
		found = append(found, s)
	}
	return found, nil
}

func (p *peer) tell(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = append(p.told, what)
}

func (p *peer) StartUnit(name, mode string) (godbus.ObjectPath, *godbus.Error) {
	p.tell("start " + name)
	return p.finish(name), nil
}

func (p *peer) StopUnit(name, mode string) (godbus.ObjectPath, *godbus.Error) {
	if name == "absent.service" {
		return "", godbus.NewError("org.freedesktop.systemd1.NoSuchUnit", []any{"Unit absent.service not loaded."})
	}
	p.tell("stop " + name)
	return p.finish(name), nil
}

func (p *peer) Reload() *godbus.Error {
	p.tell("reload")
	return nil
}

// change is one of a link that makes a unit start with the machine.
type change struct{ Type, Name, Destination string }

func (p *peer) EnableUnitFiles(names []string, runtime, force bool) (bool, []change, *godbus.Error) {
	p.tell(fmt.Sprint("enable ", names, runtime, force))
	return true, []change{{"symlink", "a", "b"}}, nil
}

func (p *peer) DisableUnitFiles(names []string, runtime bool) ([]change, *godbus.Error) {
	p.tell(fmt.Sprint("disable ", names, runtime))
	return nil, nil
}

func (p *peer) finish(name string) godbus.ObjectPath {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.conns {
		_ = conn.Emit(path, manager+".JobRemoved", uint32(7), job, name, p.result)
	}
	return job
}

func (p *peer) RestartUnit(name, mode string) (godbus.ObjectPath, *godbus.Error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if mode != "replace" {
		return "", godbus.MakeFailedError(errors.New("odd mode"))
	}
	if name == "absent.service" {
		return "", godbus.MakeFailedError(errors.New("Unit absent.service not found."))
	}
	p.restarted = append(p.restarted, name)
	if p.result != "" {
		for _, conn := range p.conns {
			_ = conn.Emit(path, manager+".JobRemoved", uint32(7), job, name, p.result)
		}
	}
	return job, nil
}

// handshake is the listening half of how a D-Bus connection begins.
func handshake(conn io.ReadWriter) (*bufio.Reader, error) {
	r := bufio.NewReader(conn)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return nil, err
		}
		answer := "ERROR\r\n"
		switch line = strings.Trim(line, "\x00\r\n"); {
		case line == "BEGIN":
			return r, nil
		case line == "AUTH EXTERNAL":
			answer = "DATA\r\n"
		case strings.HasPrefix(line, "AUTH EXTERNAL "), strings.HasPrefix(line, "DATA"):
			answer = "OK 0123456789abcdef0123456789abcdef\r\n"
		case line == "AUTH":
			answer = "REJECTED EXTERNAL\r\n"
		}
		if _, err := io.WriteString(conn, answer); err != nil {
			return nil, err
		}
	}
}

// accept joins who connects with a connection of the library's, which can only call:
// so each is let in on its own, and then their bytes are exchanged.
func (p *peer) accept(t *testing.T, client net.Conn) {
	ours, theirs := net.Pipe()
	t.Cleanup(func() { _, _ = client.Close(), theirs.Close() })
	conn, err := godbus.NewConn(ours)
	if err != nil {
		t.Errorf("making a connection: %v", err)
		return
	}
	auth := make(chan error, 1)
	go func() { auth <- conn.Auth([]godbus.Auth{godbus.AuthExternal("0")}) }()
	fromPeer, err := handshake(theirs)
	if err == nil {
		err = <-auth
	}
	if err == nil {
		err = conn.Export(p, path, manager)
	}
	if err != nil {
		t.Errorf("starting to speak: %v", err)
		return
	}
	p.mu.Lock()
	p.conns = append(p.conns, conn)
	p.mu.Unlock()
	fromClient, err := handshake(client)
	if err != nil {
		return // it went away
	}
	go func() { _, _ = io.Copy(client, fromPeer) }()
	_, _ = io.Copy(theirs, fromClient)
	// It went away: who still tells it something must not wait for it.
	_ = theirs.Close()
}

func (p *peer) listen(t *testing.T) *systemd.Manager {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go p.accept(t, client)
		}
	}()
	return &systemd.Manager{Socket: socket}
}

func TestFind(t *testing.T) {
	m := (&peer{units: []status{
		{Name: "k3s.service", LoadState: "loaded", ActiveState: "inactive"},
		{Name: "k3s-agent.service", LoadState: "loaded", ActiveState: "active"},
		{Name: "containerd.service", LoadState: "loaded", ActiveState: "failed"},
	}}).listen(t)
	got, err := m.Find(t.Context(), []string{"k3s.service", "k3s-agent.service"})
	require.NoError(t, err)
	require.Equal(t, "k3s-agent.service", got)
	got, err = m.Find(t.Context(), []string{"containerd.service"})
	require.NoError(t, err)
	require.Equal(t, "containerd.service", got)
	_, err = m.Find(t.Context(), []string{"crio.service", "k3s.service"})
	require.ErrorContains(t, err, "none of crio.service, k3s.service runs on this node")
	require.Equal(t, exitcode.BadInput, exitcode.Of(err))
}

func TestRestart(t *testing.T) {
	p := &peer{result: "done"}
	require.NoError(t, p.listen(t).Restart(t.Context(), "containerd.service"))
	require.Equal(t, []string{"containerd.service"}, p.restarted)
	require.ErrorContains(t, p.listen(t).Restart(t.Context(), "absent.service"), "starting absent.service again: Unit absent.service not found.")

	err := (&peer{result: "failed"}).listen(t).Restart(t.Context(), "containerd.service")
	require.ErrorContains(t, err, `systemd says "failed"; `+"`journalctl -u containerd.service`")

	ctx, cancel := context.WithTimeoutCause(t.Context(), 500*time.Millisecond, errors.New("too long"))
	defer cancel()
	err = (&peer{}).listen(t).Restart(ctx, "containerd.service")
	require.ErrorContains(t, err, "too long")
}

func TestUnitsComeAndGo(t *testing.T) {
	p := &peer{result: "done"}
	m := p.listen(t)
	require.NoError(t, m.Enable(t.Context(), "new.service"))
	require.NoError(t, m.Start(t.Context(), "new.service"))
	require.NoError(t, m.Disable(t.Context(), "new.service"))
	require.Equal(t, []string{
		"reload", "enable [new.service] false true", "start new.service", "stop new.service", "disable [new.service] false",
	}, p.told)
	// One that systemd does not know runs no more, but may still be enabled.
	p.told = nil
	require.NoError(t, m.Disable(t.Context(), "absent.service"))
	require.Equal(t, []string{"disable [absent.service] false"}, p.told)

	err := (&peer{result: "failed"}).listen(t).Start(t.Context(), "new.service")
	require.ErrorContains(t, err, `starting new.service: systemd says "failed"; `+"`journalctl -u new.service`")
}

func TestNobodyListens(t *testing.T) {
	err := (&systemd.Manager{Socket: filepath.Join(t.TempDir(), "s")}).Restart(t.Context(), "containerd.service")
	require.ErrorContains(t, err, "talking to systemd at ")
	require.Equal(t, exitcode.Unreachable, exitcode.Of(err))
}
