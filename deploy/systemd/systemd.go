// Package systemd starts units of a node's systemd again. It talks to systemd itself,
// by D-Bus over its private socket: no bus daemon and no program is needed.
package systemd

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// Socket is where systemd listens.
const Socket = "/run/systemd/private"

// Manager is the systemd of a node.
type Manager struct {
	// Socket is the path of its socket.
	Socket string
}

func (m *Manager) connect(ctx context.Context) (*dbus.Conn, error) {
	conn, err := dbus.NewConnection(func() (*godbus.Conn, error) {
		conn, err := godbus.Dial("unix:path="+m.Socket, godbus.WithContext(ctx))
		if err != nil {
			return nil, err
		}
		// By number: a name would have to be looked up.
		if err := conn.Auth([]godbus.Auth{godbus.AuthExternal(strconv.Itoa(os.Getuid()))}); err != nil {
			_ = conn.Close()
			return nil, err
		}
		return conn, nil
	})
	if err != nil {
		return nil, exitcode.With(exitcode.Unreachable, fmt.Errorf("talking to systemd at %s: %w", m.Socket, err))
	}
	return conn, nil
}

// Find gives the first of some units that systemd has and that is not stopped.
func (m *Manager) Find(ctx context.Context, units []string) (string, error) {
	conn, err := m.connect(ctx)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	found, err := conn.ListUnitsByNamesContext(ctx, units)
	if err != nil {
		return "", exitcode.With(exitcode.Unreachable, fmt.Errorf("asking systemd for %s: %w", strings.Join(units, ", "), err))
	}
	for _, name := range units {
		for _, unit := range found {
			// One that failed is to be started again.
			if unit.Name == name && unit.LoadState == "loaded" && unit.ActiveState != "inactive" {
				return name, nil
			}
		}
	}
	return "", exitcode.With(exitcode.BadInput, fmt.Errorf("none of %s runs on this node: name the runtime's unit", strings.Join(units, ", ")))
}

// Restart starts a unit again and waits until systemd says that it is done.
func (m *Manager) Restart(ctx context.Context, unit string) error {
	conn, err := m.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	result := make(chan string, 1)
	if _, err := conn.RestartUnitContext(ctx, unit, "replace", result); err != nil {
		return fmt.Errorf("starting %s again: %w", unit, err)
	}
	select {
	case how := <-result:
		if how != "done" {
			return fmt.Errorf("starting %s again: systemd says %q; `journalctl -u %s` on the node tells why", unit, how, unit)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for %s to start again: %w", unit, context.Cause(ctx))
	}
}
