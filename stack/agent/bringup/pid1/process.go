//go:build linux

package pid1

import (
	"context"
	"errors"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// Reap collects orphaned processes until ctx ends: without a first process
// that waits for them they would stay as zombies for the guest's life.
func Reap(ctx context.Context) {
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	defer signal.Stop(children)
	for {
		reapAll()
		select {
		case <-ctx.Done():
			return
		case <-children:
		}
	}
}

func reapAll() {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if pid <= 0 || err != nil {
			return
		}
	}
}

// MuteKernel keeps the kernel's messages off the console until unmute is
// called, so that none lands inside a line of ours.
func MuteKernel() (unmute func()) {
	const consoleOff, consoleOn = 6, 7
	if _, err := unix.Klogctl(consoleOff, nil); err != nil {
		return func() {}
	}
	return func() { _, _ = unix.Klogctl(consoleOn, nil) }
}

// PowerOff ends the guest.
func PowerOff() error {
	unix.Sync()
	return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}
