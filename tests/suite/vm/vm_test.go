package vm_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tests/suite/vm"
)

// roleVariable makes this test's own program stand in for QEMU or for the
// vsock device.
const roleVariable = "KILN_VM_TEST_ROLE"

func TestMain(m *testing.M) {
	role := os.Getenv(roleVariable)
	switch {
	case role == "":
		os.Exit(m.Run())
	case strings.Contains(strings.Join(os.Args, " "), "--guest-cid"):
		fakeDevice()
	default:
		fakeQEMU(role)
	}
}

func fakeQEMU(role string) {
	fmt.Println("args", strings.Join(os.Args[1:], " "))
	switch role {
	case "boot":
		fmt.Print("guest is up\r\n")
		select {}
	case "panic":
		fmt.Print("Kernel panic - not syncing\r\n")
		fmt.Fprintln(os.Stderr, "qemu: bye")
	}
}

// fakeDevice serves one port as the real device does: a line each way, then an
// echo.
func fakeDevice() {
	listener, err := net.Listen("unix", argument("--uds-path"))
	if err != nil {
		panic(err)
	}
	device, err := net.Listen("unix", argument("--socket"))
	if err != nil {
		panic(err)
	}
	defer func() { _ = device.Close() }()
	for refused := 0; ; refused++ {
		conn, err := listener.Accept()
		if err != nil {
			panic(err)
		}
		// The guest does not listen at once: the device hangs up.
		if refused < 2 {
			_ = conn.Close()
			continue
		}
		reader := bufio.NewReader(conn)
		line, _ := reader.ReadString('\n')
		if line != "CONNECT 1024\n" {
			_, _ = io.WriteString(conn, "NO "+line)
			_ = conn.Close()
			continue
		}
		_, _ = io.WriteString(conn, "OK 5\nearly")
		_, _ = io.Copy(conn, reader)
	}
}

func argument(name string) string {
	i := slices.Index(os.Args, name)
	return os.Args[i+1]
}

func start(t *testing.T, role string, change func(*vm.Config)) *vm.VM {
	t.Helper()
	t.Setenv(roleVariable, role)
	self, err := os.Executable()
	require.NoError(t, err)
	config := vm.Config{
		QEMU: []string{self}, Machine: "q35", MemoryMiB: 64,
		Kernel: "/k", CommandLine: "console=ttyS0", Image: "/a,b",
	}
	if change != nil {
		change(&config)
	}
	machine, err := vm.Start(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(machine.Close)
	return machine
}

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestArguments(t *testing.T) {
	machine := start(t, "panic", func(c *vm.Config) { c.Firmware = "/fw" })
	line, err := machine.Console.WaitFor(deadline(t), "args ")
	require.NoError(t, err)
	for _, want := range []string{
		"-machine q35,accel=tcg,memory-backend=mem", "size=64M", "-bios /fw",
		"-kernel /k -append console=ttyS0", "readonly=on,file=/a,,b", "-no-reboot",
	} {
		require.Contains(t, line, want)
	}
	require.NotContains(t, line, "vsock")
}

func TestConsoleAndClose(t *testing.T) {
	machine := start(t, "boot", nil)
	line, err := machine.Console.WaitFor(deadline(t), "no such line", "is up")
	require.NoError(t, err)
	require.Equal(t, "guest is up", line)
	require.Contains(t, machine.Console.Text(), "args")
	require.Equal(t, "guest is up", machine.Console.Tail(1))
	require.False(t, machine.Exited())

	machine.Close()
	require.True(t, machine.Exited())
	machine.Close()
}

func TestGuestEnds(t *testing.T) {
	machine := start(t, "panic", nil)
	_, err := machine.Console.WaitFor(deadline(t), "is up")
	require.ErrorIs(t, err, vm.ErrConsoleEnded)
	require.NoError(t, machine.WaitExit(deadline(t)))
	require.Contains(t, machine.Console.Text(), "Kernel panic")
	require.Equal(t, "qemu: bye", machine.Errors())
}

func TestWaitsEndWithTheirContext(t *testing.T) {
	machine := start(t, "boot", nil)
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	_, err := machine.Console.WaitFor(ctx, "never")
	require.ErrorIs(t, err, cause)
	require.ErrorIs(t, machine.WaitExit(ctx), cause)
}

func TestMachineEndsWithItsContext(t *testing.T) {
	t.Setenv(roleVariable, "boot")
	self, err := os.Executable()
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	machine, err := vm.Start(ctx, vm.Config{QEMU: []string{self}, Machine: "q35", MemoryMiB: 64})
	require.NoError(t, err)
	t.Cleanup(machine.Close)
	cancel()
	require.NoError(t, machine.WaitExit(deadline(t)))
}

func TestVsock(t *testing.T) {
	machine := start(t, "boot", func(c *vm.Config) { c.VhostDeviceVsock = c.QEMU })
	line, err := machine.Console.WaitFor(deadline(t), "args ")
	require.NoError(t, err)
	require.Contains(t, line, "vhost-user-vsock-pci")

	conn, err := machine.DialVsock(deadline(t), 1024)
	require.NoError(t, err)
	_, err = io.WriteString(conn, "ping")
	require.NoError(t, err)
	got := make([]byte, len("earlyping"))
	_, err = io.ReadFull(conn, got)
	require.NoError(t, err)
	require.Equal(t, "earlyping", string(got))
	require.NoError(t, conn.Close())
}

func TestVsockRefused(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			_, _ = bufio.NewReader(conn).ReadString('\n')
			_, _ = io.WriteString(conn, "NO\n")
		}
	}()
	_, err = vm.DialHybrid(deadline(t), socket, 7)
	require.ErrorContains(t, err, `vsock port 7 of the guest: the device answered "NO"`)
}

func TestVsockDialEndsWithTheGuest(t *testing.T) {
	machine := start(t, "panic", func(c *vm.Config) { c.VhostDeviceVsock = c.QEMU })
	require.NoError(t, machine.WaitExit(deadline(t)))
	_, err := machine.DialVsock(deadline(t), 9999)
	require.ErrorContains(t, err, "the guest ended")
}

func TestProgramsThatDoNotStart(t *testing.T) {
	_, err := vm.Start(t.Context(), vm.Config{QEMU: []string{"/no/such/qemu"}})
	require.ErrorContains(t, err, "starting QEMU")
	_, err = vm.Start(t.Context(), vm.Config{QEMU: []string{"/bin/true"}, VhostDeviceVsock: []string{"/bin/false"}})
	require.ErrorContains(t, err, "the vsock device ended")
}
