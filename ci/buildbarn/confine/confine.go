// Package confine starts a program that runs other people's commands: in a user,
// mount, process, network, ipc and uts namespace of its own, but with the machine's
// files. The commands have no network, cannot see to which machine they came, and
// end when the program ends, whatever they do. Bazel's sandbox on the client's
// machine holds actions to the same, and needs the same of the machine: a user
// who may make namespaces, and a /proc of which nothing is covered.
//
// The /proc in there is whole, too, so a command may make namespaces itself, as
// component actions do.
package confine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// childName is the program name by which a re-executed binary knows that it is to
// set up the namespaces.
const childName = "kiln-confine"

// Hostname is what confined commands see, which is what they see in Bazel's
// sandbox.
const Hostname = "localhost"

// Command gives the command that starts a program confined. The caller must keep
// the thread that starts it for as long as it runs (runtime.LockOSThread): the
// program is killed when that thread ends.
func Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = append([]string{childName, name}, args...)
	id := func(id int) []syscall.SysProcIDMap {
		return []syscall.SysProcIDMap{{ContainerID: id, HostID: id, Size: 1}}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID |
			syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		// Files belong to the same user on both sides.
		UidMappings: id(os.Geteuid()),
		GidMappings: id(os.Getegid()),
		// What the child needs to set the namespaces up, also when it is not root.
		AmbientCaps: []uintptr{unix.CAP_NET_ADMIN, unix.CAP_SYS_ADMIN, unix.CAP_SETPCAP},
		Setsid:      true,
		Pdeathsig:   syscall.SIGKILL,
	}
	return cmd
}

// IfChild takes over the process when it was started by Command, and does not
// return then. A program that uses Command calls it first thing in main.
func IfChild() {
	if os.Args[0] != childName || len(os.Args) < 2 {
		return
	}
	code, err := child(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "confine:", err)
		code = 1
	}
	os.Exit(code)
}

// child is process 1 of the namespace. It gives the exit code of the program, and
// with its own end ends everything else.
func child(argv []string) (int, error) {
	// Capabilities belong to a thread, and are passed on to what it starts.
	runtime.LockOSThread()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	if err := mountProc(); err != nil {
		return 0, fmt.Errorf("mounting /proc: %w (it must not be covered in part, as it is in most containers)", err)
	}
	if err := raiseLoopback(); err != nil {
		return 0, fmt.Errorf("starting the loopback network: %w", err)
	}
	if err := unix.Sethostname([]byte(Hostname)); err != nil {
		return 0, fmt.Errorf("setting the host name: %w", err)
	}
	if err := dropCapabilities(); err != nil {
		return 0, fmt.Errorf("giving up capabilities: %w", err)
	}
	program, err := os.StartProcess(argv[0], argv, &os.ProcAttr{
		Env:   os.Environ(),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return 0, fmt.Errorf("starting %s: %w", argv[0], err)
	}
	go func() {
		for s := range signals {
			_ = program.Signal(s)
		}
	}()
	return reap(program.Pid)
}

// reap waits for a process, and on the way for all that lost their parent and were
// given to this one.
func reap(program int) (int, error) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, fmt.Errorf("waiting for processes: %w", err)
		case pid != program:
			continue
		case status.Signaled():
			return 128 + int(status.Signal()), nil
		}
		return status.ExitStatus(), nil
	}
}

// dropCapabilities takes from root what would let a command write to a file that
// it may only read. An input is the worker's one copy of it, which later actions
// get as well.
func dropCapabilities() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return err
	}
	for _, c := range []uintptr{unix.CAP_DAC_OVERRIDE, unix.CAP_DAC_READ_SEARCH} {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
			return err
		}
	}
	return nil
}

// mountProc shows the processes of this namespace, by the numbers that they have
// in it.
func mountProc() error {
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	return unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
}

// raiseLoopback starts the namespace's one network interface: tests listen on it.
func raiseLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}
