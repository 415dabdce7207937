package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/kiln-build/kiln/tools/exitcode"
	"github.com/kiln-build/kiln/tools/layer"
)

// keeperRoot is where the keeper has the root file system. Every machine has this
// directory, and the keeper no use for what it covers.
const keeperRoot = "/sys"

// ConsoleLog is the file of a machine that has what its process 1 says.
const ConsoleLog = "/var/log/console.log"

// keeper holds what outlives a restart of a machine: its files and its network.
func keeper([]string) (int, error) {
	orders, reports := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	var first order
	if err := orders.Decode(&first); err != nil {
		return 0, fmt.Errorf("reading the machine's description: %w", err)
	}
	k := &keeping{id: first.ID, options: first.Options}
	fail := func(err error) (int, error) {
		return 1, reports.Encode(event{Error: err.Error(), Code: exitcode.Of(err)})
	}
	if err := k.makeRoot(); err != nil {
		return fail(fmt.Errorf("making the root file system: %w", err))
	}
	if err := k.makeNetwork(); err != nil {
		return fail(fmt.Errorf("making the network: %w", err))
	}
	next := make(chan order)
	go func() {
		defer close(next)
		for {
			var o order
			if err := orders.Decode(&o); err != nil {
				return // standard input has ended, and so does the machine
			}
			next <- o
		}
	}()
	for {
		init, err := k.start()
		if err != nil {
			return fail(fmt.Errorf("starting process 1: %w", err))
		}
		if err := reports.Encode(event{PID: init.process.Pid}); err != nil {
			return 0, err
		}
		select {
		case <-init.ended:
			return 0, reports.Encode(event{Ended: init.end})
		case _, more := <-next:
			_ = init.process.Kill()
			<-init.ended
			if !more {
				return 0, nil
			}
		}
	}
}

type keeping struct {
	id      string
	options *Options
}

func (k *keeping) makeRoot() error {
	// Files of this machine are opened before anything is covered.
	archive, err := os.Open(k.options.Archive)
	if err != nil {
		return exitcode.With(exitcode.BadInput, err)
	}
	defer func() { _ = archive.Close() }()
	binds := map[string]*os.File{}
	for path, source := range k.options.Binds {
		f, err := os.Open(source)
		if err != nil {
			return exitcode.With(exitcode.BadInput, err)
		}
		defer func() { _ = f.Close() }()
		binds[path] = f
	}

	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("taking mounts apart from the machine's: %w", err)
	}
	// Pages of memory are used as files are written. What is not used is not taken.
	if err := unix.Mount("kiln", keeperRoot, "tmpfs", 0, "mode=755,size=75%"); err != nil {
		return fmt.Errorf("mounting a file system in memory: %w", err)
	}
	if err := layer.Extract(context.Background(), archive, keeperRoot); err != nil {
		return fmt.Errorf("unpacking %s: %w", k.options.Archive, err)
	}
	for _, dir := range []string{"/proc", "/sys", "/dev", "/run", "/tmp", "/opt", "/root", "/var/log", "/var/tmp", hidden} {
		if err := os.MkdirAll(hostPath(keeperRoot, dir), 0o755); err != nil {
			return err
		}
	}
	for _, file := range k.options.Files {
		path := hostPath(keeperRoot, file.Path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, file.Content, file.Mode); err != nil {
			return err
		}
	}
	for path, target := range k.options.Links {
		path = hostPath(keeperRoot, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := os.Symlink(target, path); err != nil {
			return err
		}
	}
	for path, source := range binds {
		if err := bindFile(fmt.Sprintf("/proc/self/fd/%d", source.Fd()), hostPath(keeperRoot, path)); err != nil {
			return fmt.Errorf("showing %s: %w", path, err)
		}
	}
	return nil
}

// bindFile shows a file at another place, read-only.
func bindFile(source, target string) error {
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(target, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return err
	}
	_ = f.Close()
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return unix.Mount("none", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
}

// makeNetwork gives the machine its addresses. A pair of virtual interfaces, both
// ends here, since there is not always a kind that has one end.
func (k *keeping) makeNetwork() error {
	if k.options.Address == "" {
		return nil
	}
	var commands strings.Builder
	fmt.Fprintln(&commands, "link set lo up")
	fmt.Fprintln(&commands, "link add eth0 type veth peer name eth0peer")
	for _, address := range append([]string{k.options.Address}, k.options.Services...) {
		fmt.Fprintf(&commands, "address add %s dev eth0\n", address)
	}
	fmt.Fprintln(&commands, "link set eth0 up")
	fmt.Fprintln(&commands, "link set eth0peer up")
	program := rooted("/sbin/ip", "-batch", "-")
	program.Stdin = strings.NewReader(commands.String())
	if out, err := program.CombinedOutput(); err != nil {
		return fmt.Errorf("ip of the root file system: %w: %s", err, out)
	}
	return nil
}

// running is a process 1.
type running struct {
	process *os.Process
	ended   chan struct{}
	end     string // how it ended
}

// start starts process 1. This process is locked to its thread, which lives as long
// as it does.
func (k *keeping) start() (*running, error) {
	console, terminal, err := openTerminal()
	if err != nil {
		return nil, fmt.Errorf("making its console: %w", err)
	}
	log, err := os.OpenFile(hostPath(keeperRoot, ConsoleLog), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	description, progress, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	problem, told, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	process, err := os.StartProcess("/proc/self/exe", []string{childName, roleInit, k.id}, &os.ProcAttr{
		Env: []string{"PATH=" + os.Getenv("PATH")},
		// It executes process 1, which gets the terminal only.
		Files: []*os.File{terminal, terminal, terminal, description, told},
		Sys: &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
			Setsid:     true,
			Pdeathsig:  syscall.SIGKILL,
		},
	})
	_ = description.Close()
	_ = told.Close()
	if err != nil {
		_ = terminal.Close()
		return nil, err
	}
	go func() {
		// Who reads errors may read it after the files are gone.
		_, _ = io.Copy(io.MultiWriter(log, os.Stderr), console) // until nobody has it open
		_ = log.Close()
		_ = console.Close()
	}()
	err = json.NewEncoder(progress).Encode(k.options)
	_ = progress.Close()
	// The pipe closes when process 1 is executed.
	text, _ := io.ReadAll(problem)
	_ = problem.Close()
	r := &running{process: process, ended: make(chan struct{})}
	go func() {
		state, err := process.Wait()
		// A terminal that nobody has open is gone, and init systems close and
		// open it as they like.
		_ = terminal.Close()
		if r.end = fmt.Sprint(err); err == nil {
			r.end = state.String()
		}
		close(r.ended)
	}()
	if err == nil && len(text) > 0 {
		err = errors.New(string(text))
	}
	if err != nil {
		_ = process.Kill()
		<-r.ended
		return nil, err
	}
	return r, nil
}

// openTerminal makes a terminal. What is written to the second is read from the first.
func openTerminal() (*os.File, *os.File, error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	fail := func(err error) (*os.File, *os.File, error) { return nil, nil, errors.Join(err, master.Close()) }
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return fail(fmt.Errorf("unlocking a terminal: %w", err))
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		return fail(fmt.Errorf("naming a terminal: %w", err))
	}
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return fail(err)
	}
	return master, slave, nil
}
