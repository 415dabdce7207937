// Package systemd starts and enables units of a node's systemd. It talks to systemd itself,
// by D-Bus over its private socket: no bus daemon and no program is needed.
package systemd

import (
	"context"
	"errors"
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
	return m.job(ctx, "starting "+unit+" again", unit, (*dbus.Conn).RestartUnitContext)
}

// Start starts a unit, if it does not run, and waits until systemd says that it is done.
func (m *Manager) Start(ctx context.Context, unit string) error {
	return m.job(ctx, "starting "+unit, unit, (*dbus.Conn).StartUnitContext)
}

// job has systemd do something with a unit, and waits for the end.
func (m *Manager) job(ctx context.Context, what, unit string,
	do func(*dbus.Conn, context.Context, string, string, chan<- string) (int, error)) error {
	conn, err := m.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	result := make(chan string, 1)
	if _, err := do(conn, ctx, unit, "replace", result); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	select {
	case how := <-result:
		if how != "done" {
			return fmt.Errorf("%s: systemd says %q; `journalctl -u %s` on the node tells why", what, how, unit)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s: waiting for systemd: %w", what, context.Cause(ctx))
	}
}

// Enable makes systemd read a unit that was written, and start it with the machine.
func (m *Manager) Enable(ctx context.Context, unit string) error {
	if err := m.Reload(ctx); err != nil {
		return err
	}
	conn, err := m.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, _, err := conn.EnableUnitFilesContext(ctx, []string{unit}, false, true); err != nil {
		return fmt.Errorf("enabling %s: %w", unit, err)
	}
	return nil
}

// Disable stops a unit, if it runs, and undoes Enable.
func (m *Manager) Disable(ctx context.Context, unit string) error {
	err := m.job(ctx, "stopping "+unit, unit, (*dbus.Conn).StopUnitContext)
	var unknown godbus.Error
	if err != nil && !(errors.As(err, &unknown) && unknown.Name == noSuchUnit) {
		return err
	}
	conn, err := m.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.DisableUnitFilesContext(ctx, []string{unit}, false); err != nil {
		return fmt.Errorf("disabling %s: %w", unit, err)
	}
	return nil
}

// noSuchUnit is what systemd calls it that it does not know a unit.
const noSuchUnit = "org.freedesktop.systemd1.NoSuchUnit"

// Reload makes systemd read its units again.
func (m *Manager) Reload(ctx context.Context) error {
	conn, err := m.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.ReloadContext(ctx); err != nil {
		return fmt.Errorf("making systemd read its units again: %w", err)
	}
	return nil
}
