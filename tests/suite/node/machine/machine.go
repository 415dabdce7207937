// Package machine makes throw-away machines: a process tree with namespaces of its
// own, whose process 1 is the init system of a root file system that lives in memory.
// Files, mounts, network and processes end with the process that started it, however
// that ends; cgroups, which nothing holds, are removed by a watchdog of its own
// session.
//
// It needs root, and a program that uses it calls IfChild first thing in main (or
// TestMain): the processes that set a machine up are the program itself again.
//
//	the program ── watchdog   own session, cgroups; ends when the program has ended
//	     └──────── keeper     holds the root file system and the network
//	                 └────── init   process 1 of the machine; a restart replaces it
package machine

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// Options says what machine to make.
type Options struct {
	// Archive is the root file system: a tar, compressed with zstd or not.
	Archive string
	// Binds are files of this machine that the new one sees, read-only, by
	// their path there.
	Binds map[string]string
	// Files are what is written over the root file system before the start.
	Files []File
	// Links are symbolic links, by their path; what they point to is the value.
	Links map[string]string
	// Hostname is the machine's name.
	Hostname string
	// Address is that of a network interface, with the prefix's length
	// ("192.0.2.1/24"). The machine reaches only itself. Services are more
	// addresses of it, without a length.
	Address  string
	Services []string
	// Init is the command line of process 1, and Env its environment.
	Init []string
	Env  []string
	// Sysctls are settings of the kernel that the machine's processes shall
	// see, by path below /proc/sys. They are this kernel's for all machines,
	// so nothing is set: a file with the value covers the real one.
	Sysctls map[string]string
}

// File is a file to write.
type File struct {
	Path    string
	Mode    fs.FileMode
	Content []byte
}

// Machine is a machine that runs.
type Machine struct {
	id       string
	options  Options
	watchdog *child
	keeper   *child
	network  *os.File
	events   chan event
	ended    chan struct{}

	mu  sync.Mutex
	pid int
	why error

	close  sync.Once
	closed error
}

// event is what the keeper reports, one JSON object a line.
type event struct {
	// PID is process 1's, when it was started.
	PID int `json:"pid,omitempty"`
	// Ended says how process 1 ended, if nobody asked it to.
	Ended string `json:"ended,omitempty"`
	// Error is why the machine could not be made.
	Error string `json:"error,omitempty"`
	Code  int    `json:"code,omitempty"`
}

// orders of a keeper: its configuration first, then one for each restart.
type order struct {
	Options *Options `json:"options,omitempty"`
	ID      string   `json:"id,omitempty"`
	Restart bool     `json:"restart,omitempty"`
}

// Start makes a machine. When it returns, process 1 was executed.
func Start(ctx context.Context, o Options) (_ *Machine, err error) {
	if len(os.Args) > 0 && os.Args[0] == childName {
		return nil, errors.New("starting a machine: this program must call IfChild first thing in main")
	}
	if os.Geteuid() != 0 {
		return nil, exitcode.With(exitcode.BadInput, errors.New("starting a machine: only root may make its namespaces and mounts"))
	}
	m := &Machine{
		// Process numbers come again.
		id:      strconv.Itoa(os.Getpid()) + "-" + strings.ToLower(rand.Text()[:8]),
		options: o, events: make(chan event), ended: make(chan struct{}),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	if err := m.startWatchdog(); err != nil {
		return nil, fmt.Errorf("starting a machine: %w", err)
	}
	if err := m.startKeeper(ctx); err != nil {
		return nil, fmt.Errorf("starting a machine: %w", err)
	}
	return m, nil
}

func (m *Machine) startWatchdog() error {
	watchdog, err := startChild(roleWatchdog, []string{m.id}, &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS,
		Setsid:     true,
	})
	if err != nil {
		return fmt.Errorf("starting the watchdog: %w", err)
	}
	m.watchdog = watchdog
	line, err := watchdog.out.ReadString('\n')
	if err != nil || line != watchdogReady {
		rest, _ := io.ReadAll(watchdog.out)
		return fmt.Errorf("making cgroups: %s", strings.TrimSpace(line+string(rest)+watchdog.said.String()))
	}
	return nil
}

func (m *Machine) startKeeper(ctx context.Context) error {
	keeper, err := startChild(roleKeeper, nil, &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
		Setsid:     true,
		Pdeathsig:  syscall.SIGKILL,
	})
	if err != nil {
		return fmt.Errorf("starting its keeper: %w", err)
	}
	m.keeper = keeper
	go m.watch()
	if m.network, err = os.Open(fmt.Sprintf("/proc/%d/ns/net", keeper.process.Pid)); err != nil {
		return fmt.Errorf("opening its network: %w", err)
	}
	return m.order(ctx, order{Options: &m.options, ID: m.id})
}

// order gives an order to the keeper, and waits until it has started process 1, which
// takes seconds. Half of it would leave nobody who knows process 1.
func (m *Machine) order(ctx context.Context, o order) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := json.NewEncoder(m.keeper.in).Encode(o); err != nil {
		return fmt.Errorf("asking its keeper: %w: %s", err, m.keeper.said.String())
	}
	select {
	case e := <-m.events:
		if e.Error != "" {
			return exitcode.With(e.Code, errors.New(e.Error))
		}
		m.mu.Lock()
		m.pid = e.PID
		m.mu.Unlock()
		return nil
	case <-m.ended:
		return m.Err()
	}
}

// watch reads what the keeper reports.
func (m *Machine) watch() {
	defer close(m.ended)
	end := func(why string) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.why = errors.New(why)
	}
	for lines := json.NewDecoder(m.keeper.out); ; {
		var e event
		if err := lines.Decode(&e); err != nil {
			end("the machine's keeper ended: " + strings.TrimSpace(m.keeper.said.String()))
			return
		}
		if e.Ended != "" {
			end("process 1 of the machine ended: " + e.Ended + "\n" + m.keeper.said.String())
			return
		}
		m.events <- e
	}
}

// Ended is closed when the machine has ended by itself, or was closed.
func (m *Machine) Ended() <-chan struct{} { return m.ended }

// Err says why the machine ended.
func (m *Machine) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.why
}

// PID is process 1 of the machine, by its number here.
func (m *Machine) PID() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pid
}

// Root is the machine's root directory as seen from here, with all that is mounted
// in it. A restart changes it. Absolute symbolic links lead out of it.
func (m *Machine) Root() string { return fmt.Sprintf("/proc/%d/root", m.PID()) }

// Command gives a command that runs in the machine, as root in its root directory,
// found by the machine's PATH. It ends with the machine at the latest, and it has the
// environment that process 1 got; more can be added to Env.
func (m *Machine) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = append([]string{childName, roleEnter, strconv.Itoa(m.PID()), name}, args...)
	cmd.Env = append([]string{}, m.options.Env...)
	// Killed, the process here would leave the one in the machine alone.
	cmd.Cancel = func() error { return cmd.Process.Signal(signalKill) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Restart is what a power failure and the return of power are to a machine: all
// processes are killed, mounts, /run and /tmp are gone, and process 1 starts again on
// the same files.
func (m *Machine) Restart(ctx context.Context) error {
	if err := m.order(ctx, order{Restart: true}); err != nil {
		return fmt.Errorf("restarting the machine: %w", err)
	}
	return nil
}

// Listen listens on a TCP address of the machine, such as 127.0.0.1:0. Who accepts
// stays here, and restarts do not end it.
func (m *Machine) Listen(ctx context.Context, address string) (listener net.Listener, err error) {
	err = m.inNetwork(func() (err error) {
		listener, err = new(net.ListenConfig).Listen(ctx, "tcp", address)
		return err
	})
	return listener, err
}

// Dial connects to a TCP address of the machine, which must be numeric.
func (m *Machine) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil || net.ParseIP(host) == nil {
		return nil, fmt.Errorf("dialing %s in the machine: only numeric addresses are known there", address)
	}
	err = m.inNetwork(func() (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// inNetwork runs a function whose sockets are the machine's.
func (m *Machine) inNetwork(f func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("entering the machine's network: %w", err)
	}
	defer func() { _ = home.Close() }()
	if err := unix.Setns(int(m.network.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("entering the machine's network: %w", err)
	}
	err = f()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		// The thread stays locked, so that it is used for nothing else.
		return errors.Join(err, fmt.Errorf("leaving the machine's network: %w", back))
	}
	runtime.UnlockOSThread()
	return err
}

// Close ends the machine and waits until nothing of it is left.
func (m *Machine) Close() error {
	m.close.Do(func() {
		if m.keeper != nil {
			_ = m.keeper.process.Kill()
			go func() { // what nobody waits for any more
				for range m.events {
				}
			}()
			<-m.ended
			close(m.events)
			m.keeper.wait()
		}
		if m.network != nil {
			_ = m.network.Close()
		}
		if m.watchdog != nil {
			_ = m.watchdog.in.Close()
			complaints, _ := io.ReadAll(m.watchdog.out)
			m.watchdog.wait()
			if len(complaints) > 0 {
				m.closed = fmt.Errorf("removing the machine's cgroups: %s", bytes.TrimSpace(complaints))
			}
		}
	})
	return m.closed
}

// hostPath is a path of the machine below a directory of this one.
func hostPath(root, path string) string { return filepath.Join(root, filepath.Join("/", path)) }
