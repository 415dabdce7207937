package machine

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// signalKill asks the process that entered a machine to kill the command there.
const signalKill = syscall.SIGUSR2

// enter runs a command in a machine: arguments are the number of its process 1, the
// command's name and its arguments.
func enter(args []string) (int, error) {
	// 127 is what a shell gives for a command that it cannot find.
	const notFound = 127
	runtime.LockOSThread()
	pid, err := strconv.Atoi(args[0])
	if err != nil {
		return 0, fmt.Errorf("entering a machine: %w", err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return 0, fmt.Errorf("entering a machine: process %d: %w", pid, err)
	}
	// A thread that shares its root directory with others cannot change it.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return 0, fmt.Errorf("entering a machine: %w", err)
	}
	const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP
	if err := unix.Setns(fd, namespaces); err != nil {
		return 0, fmt.Errorf("entering a machine: %w", err)
	}
	name, err := exec.LookPath(args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return notFound, nil
	}
	attributes := &syscall.SysProcAttr{}
	if _, err := unix.IoctlGetTermios(0, unix.TCGETS); err == nil {
		// A shell looks for its process group, which must be one of the machine.
		attributes.Setpgid, attributes.Foreground, attributes.Ctty = true, true, 0
	}
	process, err := os.StartProcess(name, args[1:], &os.ProcAttr{
		Env:   os.Environ(),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys:   attributes,
	})
	if err != nil {
		return 0, fmt.Errorf("starting %s in the machine: %w", name, err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, signalKill)
	go func() {
		for s := range signals {
			if s == signalKill {
				s = syscall.SIGKILL
			}
			_ = process.Signal(s)
		}
	}()
	state, err := process.Wait()
	if err != nil {
		return 0, err
	}
	if status := state.Sys().(syscall.WaitStatus); status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return state.ExitCode(), nil
}
