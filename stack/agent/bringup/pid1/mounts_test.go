package pid1_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/kiln-build/kiln/stack/agent/bringup/pid1"
)

func TestMountAll(t *testing.T) {
	root := t.TempDir()
	mounts := []pid1.Mount{
		{Source: "proc", Target: "/proc", Type: "proc"},
		{Source: "devtmpfs", Target: "/dev", Type: "devtmpfs"},
		{Source: "devpts", Target: "/dev/pts", Type: "devpts", Create: true},
		{Source: "configfs", Target: "/config", Type: "configfs"},
		{Source: "efivarfs", Target: "/efi", Type: "efivarfs", Optional: true},
		{Source: "tmpfs", Target: "/tmp", Type: "tmpfs", Data: "mode=1777"},
	}
	var mounted []string
	errs := pid1.MountAll(mounts, root, func(_, target, fstype string, _ uintptr, data string) error {
		switch fstype {
		case "devtmpfs": // the kernel mounts it by itself
			return unix.EBUSY
		case "efivarfs": // not booted by EFI
			return unix.ENOENT
		case "configfs": // not built in, and not optional
			return unix.ENODEV
		case "devpts":
			if _, err := os.Stat(target); err != nil {
				return err
			}
		case "tmpfs":
			require.Equal(t, "mode=1777", data)
		}
		mounted = append(mounted, target)
		return nil
	})
	require.Equal(t, []string{filepath.Join(root, "proc"), filepath.Join(root, "dev/pts"), filepath.Join(root, "tmp")}, mounted)
	require.Len(t, errs, 1)
	require.ErrorContains(t, errs[0], "mounting configfs on /config")
	require.ErrorIs(t, errs[0], unix.ENODEV)
}

func TestMountAllReportsTargetsItCannotMake(t *testing.T) {
	root := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(root, nil, 0o600))
	errs := pid1.MountAll([]pid1.Mount{{Target: "/dev/pts", Create: true}}, root, func(_, _, _ string, _ uintptr, _ string) error {
		return errors.New("must not be called")
	})
	require.Len(t, errs, 1)
	require.ErrorContains(t, errs[0], "making /dev/pts")
}
