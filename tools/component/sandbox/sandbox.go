// Package sandbox runs a command in a directory that is its whole world: new
// user, mount, pid, network, ipc and uts namespaces, with the directory as
// root. The command sees no file, no process and no network of the machine,
// and nothing of it outlives the call. An ordinary user can do this; being
// root changes nothing that the command could notice.
package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// Bind makes a file or directory of the machine appear, read-only, in the root.
type Bind struct {
	// Source is a path of the machine. Symlinks are followed.
	Source string
	// Target is a path in the root, which must exist there and be of the
	// same kind. What lies below it in the root is hidden.
	Target string
}

// Command is what to run, and where.
type Command struct {
	// Root is the directory that becomes "/". It must hold the directories
	// dev and proc.
	Root string
	// Binds are made in order.
	Binds []Bind
	// Hostname is the host name that the command sees.
	Hostname string
	// Argv starts with a path in the root.
	Argv []string
	// Env is all of the environment.
	Env []string
	// Dir is the working directory, a path in the root.
	Dir string
	// Output takes standard output and standard error.
	Output *os.File
}

// childName is the program name by which a re-executed binary knows that it
// is to set up a sandbox.
const childName = "kiln-sandbox-setup"

// The child's file descriptors beside the standard three.
const (
	configFD = 3
	statusFD = 4
)

// IfChild takes over the process when Run re-executed it, and does not return
// then. A program that calls Run calls it first thing in main.
func IfChild() {
	if len(os.Args) != 1 || os.Args[0] != childName {
		return
	}
	runtime.LockOSThread()
	status := os.NewFile(statusFD, "status")
	err := setup(os.NewFile(configFD, "config"))
	fmt.Fprint(status, err)
	os.Exit(1)
}

// Run runs a command and waits for it and everything it started to end. If
// ctx ends first, all of it is killed. An error of type *exec.ExitError is
// the command's own; any other means that it could not be run.
func Run(ctx context.Context, c Command) error {
	config, err := c.encode()
	if err != nil {
		return err
	}
	defer config.Close()
	statusR, statusW, err := os.Pipe()
	if err != nil {
		return exitcode.With(exitcode.LocalIO, fmt.Errorf("making a pipe: %w", err))
	}
	defer statusR.Close()

	// The kernel ties Pdeathsig to the thread that starts the process, not
	// to this process: the thread must live until the child is gone.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{childName}
	cmd.Env = []string{}
	cmd.Stdout, cmd.Stderr = c.Output, c.Output
	cmd.ExtraFiles = []*os.File{config, statusW}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID |
			syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		Setsid:      true,
		// The child is process 1 of its namespace: all others die with it.
		Pdeathsig: syscall.SIGKILL,
	}
	err = cmd.Start()
	statusW.Close()
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("making namespaces: %w (may this user make user namespaces? see the sysctls user.max_user_namespaces, "+
			"kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns)", err)
	}
	// Closed by the exec of the command, so that silence means success.
	status, rerr := io.ReadAll(statusR)
	err = cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case len(status) > 0:
		return fmt.Errorf("setting up the sandbox: %s", status)
	case rerr != nil:
		return fmt.Errorf("setting up the sandbox: %w", rerr)
	}
	return err
}

// encode writes the command to an unnamed file for the child to read: a pipe
// would block when the child dies early.
func (c Command) encode() (*os.File, error) {
	root, err := filepath.Abs(c.Root)
	if err == nil {
		root, err = filepath.EvalSymlinks(root)
	}
	if err != nil {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("finding the root: %w", err))
	}
	c.Root = root
	binds := make([]Bind, len(c.Binds))
	for i, b := range c.Binds {
		abs, err := filepath.Abs(b.Source)
		if err == nil {
			// Bazel gives inputs as symlinks into directories that the
			// command will not see.
			abs, err = filepath.EvalSymlinks(abs)
		}
		if err != nil {
			return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("finding %s: %w", b.Source, err))
		}
		if !filepath.IsAbs(b.Target) || filepath.Clean(b.Target) != b.Target {
			return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("%q is not a clean absolute path in the root", b.Target))
		}
		binds[i] = Bind{Source: abs, Target: b.Target}
	}
	c.Binds = binds
	c.Output = nil

	f, err := os.CreateTemp("", "kiln-sandbox-*")
	if err != nil {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("writing the sandbox's configuration: %w", err))
	}
	err = errors.Join(os.Remove(f.Name()), json.NewEncoder(f).Encode(c))
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("writing the sandbox's configuration: %w", err))
	}
	return f, nil
}

// setup runs in the new namespaces, as process 1, and ends in the command.
func setup(config *os.File) error {
	var c Command
	if err := json.NewDecoder(config).Decode(&c); err != nil {
		return fmt.Errorf("reading its configuration: %w", err)
	}
	if err := closeOnExec(); err != nil {
		return err
	}
	if err := c.mounts(); err != nil {
		return err
	}
	if err := pivot(c.Root); err != nil {
		return err
	}
	if err := syscall.Sethostname([]byte(c.Hostname)); err != nil {
		return fmt.Errorf("setting the host name: %w", err)
	}
	if err := os.Chdir(c.Dir); err != nil {
		return fmt.Errorf("entering the working directory: %w", err)
	}
	if err := noNewPrivileges(); err != nil {
		return err
	}
	syscall.Umask(0o022)
	if err := syscall.Exec(c.Argv[0], c.Argv, c.Env); err != nil {
		return fmt.Errorf("starting %s in the root: %w", strings.Join(c.Argv, " "), err)
	}
	return nil
}
