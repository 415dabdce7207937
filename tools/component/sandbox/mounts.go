package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

func mount(source, target, kind string, flags uintptr, data string) error {
	if err := syscall.Mount(source, target, kind, flags, data); err != nil {
		return &os.PathError{Op: "mounting " + source + " on", Path: target, Err: err}
	}
	return nil
}

// mounts builds the root's tree of mounts. All of it is seen in this mount
// namespace only and goes with it.
func (c *Command) mounts() error {
	if err := mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	// pivot_root wants a mount point.
	if err := mount(c.Root, c.Root, "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil {
		return err
	}
	if err := mountProc(filepath.Join(c.Root, "proc")); err != nil {
		return err
	}
	if err := mountDev(filepath.Join(c.Root, "dev")); err != nil {
		return err
	}
	for _, b := range c.Binds {
		if err := bindReadOnly(b.Source, filepath.Join(c.Root, b.Target)); err != nil {
			return err
		}
	}
	return nil
}

// mountProc shows the processes of the new namespace only. Where parts of
// /proc are covered, as in most containers, the kernel refuses a new one to a
// user namespace: then the machine's is used. It lets nobody into other
// processes, since these belong to another user namespace.
func mountProc(target string) error {
	err := mount("proc", target, "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, "")
	if errors.Is(err, syscall.EPERM) {
		return mount("/proc", target, "", syscall.MS_BIND|syscall.MS_REC, "")
	}
	return err
}

func mountDev(target string) error {
	if err := mount("tmpfs", target, "tmpfs", syscall.MS_NOSUID|syscall.MS_NOEXEC, "mode=0755"); err != nil {
		return err
	}
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		device := filepath.Join(target, name)
		if err := os.WriteFile(device, nil, 0o666); err != nil {
			return err
		}
		if err := mount("/dev/"+name, device, "", syscall.MS_BIND, ""); err != nil {
			return err
		}
	}
	for link, to := range map[string]string{
		"fd":     "/proc/self/fd",
		"stdin":  "/proc/self/fd/0",
		"stdout": "/proc/self/fd/1",
		"stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(to, filepath.Join(target, link)); err != nil {
			return err
		}
	}
	shm := filepath.Join(target, "shm")
	if err := os.Mkdir(shm, 0o777); err != nil {
		return err
	}
	return os.Chmod(shm, 0o777|os.ModeSticky)
}

func bindReadOnly(source, target string) error {
	if err := mount(source, target, "", syscall.MS_BIND, ""); err != nil {
		return err
	}
	// A bind takes its flags in a second step, and a user namespace may only
	// add to those that the mount came with.
	var st syscall.Statfs_t
	if err := syscall.Statfs(target, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: target, Err: err}
	}
	return mount("none", target, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY|lockedFlags(st.Flags), "")
}

// lockedFlags translates the flags of statfs(2) into those of mount(2).
func lockedFlags(st int64) uintptr {
	// The two agree on these: nosuid, nodev, noexec, noatime, nodiratime.
	const same = syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC | syscall.MS_NOATIME | syscall.MS_NODIRATIME
	const stRelatime = 0x1000
	flags := uintptr(st) & same
	if st&stRelatime != 0 {
		flags |= syscall.MS_RELATIME
	}
	return flags
}

// pivot makes root the root, and lets go of the old one, so that nothing of
// it can be named any more.
func pivot(root string) error {
	if err := os.Chdir(root); err != nil {
		return fmt.Errorf("entering the root: %w", err)
	}
	// Puts the old root on top of the new one, at the same place, from where
	// it is taken away: no directory has to be made for it.
	if err := syscall.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("changing the root to %s: %w", root, err)
	}
	if err := syscall.Unmount(".", syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("leaving the old root: %w", err)
	}
	return os.Chdir("/")
}

// closeOnExec keeps every descriptor that this process inherited from the
// command: an open directory would be a way out.
func closeOnExec() error {
	const (
		sysCloseRange    = 436
		closeRangeOnExec = 4
	)
	_, _, no := syscall.Syscall(sysCloseRange, configFD, ^uintptr(0)>>32, closeRangeOnExec)
	if no != 0 {
		return fmt.Errorf("closing inherited files: %w (Linux 5.11 or later is needed)", no)
	}
	return nil
}

// noNewPrivileges makes setuid programs in the root ordinary ones.
func noNewPrivileges() error {
	const prSetNoNewPrivs = 38
	if _, _, no := syscall.Syscall6(syscall.SYS_PRCTL, prSetNoNewPrivs, 1, 0, 0, 0, 0); no != 0 {
		return fmt.Errorf("giving up new privileges: %w", no)
	}
	return nil
}
