// Package vm starts virtual machines for tests: QEMU under emulation, with a
// serial console that is read here and a vsock that needs nothing from the
// host's kernel.
package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// guestContextID is the guest's address on its vsock. Every machine has a
// vsock device process of its own, so all may have the same.
const guestContextID = 3

// Config says what to start.
type Config struct {
	// QEMU is the emulator with leading arguments, if it needs any to run.
	QEMU []string
	// VhostDeviceVsock is the vsock device process, in the same way. Without
	// it the machine has no vsock.
	VhostDeviceVsock []string
	// Machine is the machine type, such as q35.
	Machine string
	// Firmware is the firmware image; empty means QEMU's own.
	Firmware string
	// Kernel and CommandLine are booted directly.
	Kernel, CommandLine string
	// Image is the guest's disk. It is never written.
	Image string
	// MemoryMiB is the guest's memory.
	MemoryMiB int
}

// VM is a running virtual machine.
type VM struct {
	Console *Console

	qemu        *exec.Cmd
	qemuErr     *tailBuffer
	device      *exec.Cmd
	deviceErr   *tailBuffer
	dir         string
	vsockSocket string
	exited      chan struct{}
	exitErr     error
	closeOnce   sync.Once
}

// Start starts a machine. It ends with ctx, by Close, or with this process.
func Start(ctx context.Context, c Config) (_ *VM, err error) {
	// Paths of unix sockets must be short, so not under the test's own
	// directory, which may be deep.
	dir, err := os.MkdirTemp("/tmp", "kiln-vm-")
	if err != nil {
		return nil, fmt.Errorf("making the machine's directory: %w", err)
	}
	v := &VM{dir: dir, exited: make(chan struct{}), qemuErr: &tailBuffer{}, deviceErr: &tailBuffer{}}
	defer func() {
		if err != nil {
			v.Close()
		}
	}()

	args := arguments(c)
	if len(c.VhostDeviceVsock) > 0 {
		device, err := v.startVsock(ctx, c.VhostDeviceVsock)
		if err != nil {
			return nil, err
		}
		args = append(args, "-chardev", "socket,id=vsock,path="+device, "-device", "vhost-user-vsock-pci,chardev=vsock")
	}

	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("making the console: %w", err)
	}
	v.qemu = command(c.QEMU, args)
	v.qemu.Stdout = write
	v.qemu.Stderr = v.qemuErr
	err = v.qemu.Start()
	_ = write.Close()
	if err != nil {
		_ = read.Close()
		v.qemu = nil
		return nil, fmt.Errorf("starting QEMU: %w", err)
	}
	v.Console = NewConsole(read)
	stop := context.AfterFunc(ctx, func() { kill(v.qemu) })
	go func() {
		defer stop()
		v.exitErr = v.qemu.Wait()
		close(v.exited)
	}()
	return v, nil
}

func arguments(c Config) []string {
	memory := strconv.Itoa(c.MemoryMiB) + "M"
	args := []string{
		"-machine", c.Machine + ",accel=tcg,memory-backend=mem",
		// The vsock device process maps the guest's memory.
		"-object", "memory-backend-memfd,id=mem,share=on,size=" + memory,
		"-m", memory, "-cpu", "max", "-smp", "1",
		"-nodefaults", "-no-user-config", "-display", "none",
		// A guest that panics resets itself, which then ends QEMU.
		"-no-reboot",
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
	}
	if c.Firmware != "" {
		args = append(args, "-bios", c.Firmware)
	}
	if c.Kernel != "" {
		args = append(args, "-kernel", c.Kernel, "-append", c.CommandLine)
	}
	if c.Image != "" {
		args = append(args,
			"-drive", "if=none,id=root,format=raw,readonly=on,file="+strings.ReplaceAll(c.Image, ",", ",,"),
			"-device", "virtio-blk-pci,drive=root")
	}
	return args
}

// startVsock starts the device process and gives the socket that QEMU joins.
func (v *VM) startVsock(ctx context.Context, program []string) (string, error) {
	socket := filepath.Join(v.dir, "device")
	v.vsockSocket = filepath.Join(v.dir, "vsock")
	v.device = command(program, []string{
		"--guest-cid", strconv.Itoa(guestContextID), "--socket", socket, "--uds-path", v.vsockSocket,
	})
	v.device.Stdout = v.deviceErr
	v.device.Stderr = v.deviceErr
	if err := v.device.Start(); err != nil {
		v.device = nil
		return "", fmt.Errorf("starting the vsock device: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- v.device.Wait() }()
	for {
		if _, err := os.Stat(socket); err == nil {
			return socket, nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("waiting for the vsock device: %w", context.Cause(ctx))
		case err := <-ended:
			return "", fmt.Errorf("the vsock device ended: %w: %s", err, v.deviceErr)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// WaitExit waits until the machine ends by itself.
func (v *VM) WaitExit(ctx context.Context) error {
	select {
	case <-v.exited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for the guest to end: %w", context.Cause(ctx))
	}
}

// Exited says whether the machine has ended.
func (v *VM) Exited() bool {
	select {
	case <-v.exited:
		return true
	default:
		return false
	}
}

// Errors gives what QEMU and the vsock device complained about.
func (v *VM) Errors() string {
	return strings.TrimSpace(v.qemuErr.String() + "\n" + v.deviceErr.String())
}

// Close ends the machine and removes its directory.
func (v *VM) Close() {
	v.closeOnce.Do(func() {
		if v.qemu != nil {
			kill(v.qemu)
			<-v.exited
		}
		if v.device != nil {
			kill(v.device)
		}
		_ = os.RemoveAll(v.dir)
	})
}

// command makes a child that cannot outlive this process and whose own
// children are killed with it.
func command(program, args []string) *exec.Cmd {
	cmd := exec.Command(program[0], append(program[1:len(program):len(program)], args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

func kill(cmd *exec.Cmd) {
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		_ = cmd.Process.Kill()
	}
}

// tailBuffer keeps the end of what a child complained about.
type tailBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

const tailSize = 16 << 10

// Write implements io.Writer.
func (b *tailBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text.Write(p)
	if extra := b.text.Len() - tailSize; extra > 0 {
		b.text.Next(extra)
	}
	return len(p), nil
}

// String gives what was kept.
func (b *tailBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
