//go:build linux

// Package pid1 does what the first process of a guest owes it: mount the
// kernel's file systems, reap orphans, ask the device-mapper, power off.
package pid1

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Mount is one file system to mount.
type Mount struct {
	Source, Target, Type string
	Flags                uintptr
	Data                 string
	// Optional mounts need something that a guest may lack, such as EFI.
	Optional bool
	// Create says that the target lies on a file system that is writable
	// by then. All others must be directories of the read-only image.
	Create bool
}

const hardened = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// Mounts are the file systems of a guest, in mount order.
var Mounts = []Mount{
	{Source: "proc", Target: "/proc", Type: "proc", Flags: hardened},
	{Source: "sysfs", Target: "/sys", Type: "sysfs", Flags: hardened},
	{Source: "devtmpfs", Target: "/dev", Type: "devtmpfs", Flags: unix.MS_NOSUID, Data: "mode=0755"},
	{Source: "devpts", Target: "/dev/pts", Type: "devpts", Flags: unix.MS_NOSUID | unix.MS_NOEXEC, Data: "mode=0620,ptmxmode=0666", Create: true},
	{Source: "tmpfs", Target: "/dev/shm", Type: "tmpfs", Flags: unix.MS_NOSUID | unix.MS_NODEV, Data: "mode=1777", Create: true},
	{Source: "tmpfs", Target: "/run", Type: "tmpfs", Flags: unix.MS_NOSUID | unix.MS_NODEV, Data: "mode=0755"},
	{Source: "tmpfs", Target: "/tmp", Type: "tmpfs", Flags: unix.MS_NOSUID | unix.MS_NODEV, Data: "mode=1777"},
	{Source: "cgroup2", Target: "/sys/fs/cgroup", Type: "cgroup2", Flags: hardened, Data: "nsdelegate"},
	{Source: "configfs", Target: "/sys/kernel/config", Type: "configfs", Flags: hardened},
	{Source: "efivarfs", Target: "/sys/firmware/efi/efivars", Type: "efivarfs", Flags: hardened, Optional: true},
}

// MountFunc mounts as unix.Mount does.
type MountFunc func(source, target, fstype string, flags uintptr, data string) error

// MountAll mounts every file system and gives the errors of those that
// failed, so that one missing file system still leaves an agent that can say
// so. A target that the kernel has mounted already is fine.
func MountAll(mounts []Mount, root string, mount MountFunc) []error {
	var errs []error
	for _, m := range mounts {
		target := filepath.Join(root, m.Target)
		if m.Create {
			if err := os.MkdirAll(target, 0o755); err != nil {
				errs = append(errs, fmt.Errorf("making %s: %w", m.Target, err))
				continue
			}
		}
		err := mount(m.Source, target, m.Type, m.Flags, m.Data)
		switch {
		case err == nil, errors.Is(err, unix.EBUSY):
		case m.Optional && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EOPNOTSUPP)):
		default:
			errs = append(errs, fmt.Errorf("mounting %s on %s: %w", m.Type, m.Target, err))
		}
	}
	return errs
}
