//go:build linux

package pid1

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The device-mapper's control interface: struct dm_ioctl, then data, in one
// buffer. Numbers and offsets are those of linux/dm-ioctl.h.
const (
	dmControl        = "/dev/mapper/control"
	dmHeaderSize     = 312
	dmDataSizeOffset = 12
	dmDataOffset     = 16
	dmTargetCount    = 20
	dmFlagsOffset    = 28
	dmNameOffset     = 48
	dmNameSize       = 128
	dmBufferSize     = 16 << 10
	dmSpecSize       = 40
	dmSpecTypeOffset = 24
	dmSpecTypeSize   = 16
	// dmTableStatus is _IOWR(0xfd, 12, struct dm_ioctl).
	dmTableStatus = 0xc138fd0c
	// dmStatusTable asks for the table instead of the status.
	dmStatusTable = 1 << 4
	// dmBufferFull says that the answer did not fit.
	dmBufferFull = 1 << 8
)

var errNotOneTarget = errors.New("want exactly one verity target")

// ControlFunc sends one request to the device-mapper, which answers in the
// request's own buffer.
type ControlFunc func(request []byte) error

// DeviceMapper asks a device-mapper about its devices. It is the guest's
// prober.
type DeviceMapper struct {
	Control ControlFunc
}

// VerityStatus gives the status and the table of a device that has one verity
// target.
func (d DeviceMapper) VerityStatus(name string) (status, table string, err error) {
	ask := func(flags uint32) (string, error) {
		request := dmRequest(name, flags)
		if err := d.Control(request); err != nil {
			return "", fmt.Errorf("asking the device-mapper about %s: %w", name, err)
		}
		answer, err := dmAnswer(request)
		if err != nil {
			return "", fmt.Errorf("device-mapper device %s: %w", name, err)
		}
		return answer, nil
	}
	if status, err = ask(0); err != nil {
		return "", "", err
	}
	if table, err = ask(dmStatusTable); err != nil {
		return "", "", err
	}
	return status, table, nil
}

// KernelTableStatus asks the running kernel's device-mapper for the status of
// a table.
func KernelTableStatus(request []byte) error {
	control, err := os.OpenFile(dmControl, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = control.Close() }()
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, control.Fd(), dmTableStatus, uintptr(unsafe.Pointer(&request[0])))
	runtime.KeepAlive(request)
	if errno != 0 {
		return errno
	}
	return nil
}

func dmRequest(name string, flags uint32) []byte {
	b := make([]byte, dmBufferSize)
	// Version 4.0.0 is the interface's first stable one.
	binary.NativeEndian.PutUint32(b[0:], 4)
	binary.NativeEndian.PutUint32(b[dmDataSizeOffset:], dmBufferSize)
	binary.NativeEndian.PutUint32(b[dmDataOffset:], dmHeaderSize)
	binary.NativeEndian.PutUint32(b[dmFlagsOffset:], flags)
	copy(b[dmNameOffset:dmNameOffset+dmNameSize-1], name)
	return b
}

func dmAnswer(b []byte) (string, error) {
	if binary.NativeEndian.Uint32(b[dmFlagsOffset:])&dmBufferFull != 0 {
		return "", errors.New("answer is too long")
	}
	start := int(binary.NativeEndian.Uint32(b[dmDataOffset:]))
	if n := binary.NativeEndian.Uint32(b[dmTargetCount:]); n != 1 {
		return "", fmt.Errorf("%w: it has %d targets", errNotOneTarget, n)
	}
	if start < dmHeaderSize || start+dmSpecSize > len(b) {
		return "", errors.New("answer is malformed")
	}
	spec := b[start:]
	if kind := cString(spec[dmSpecTypeOffset : dmSpecTypeOffset+dmSpecTypeSize]); kind != "verity" {
		return "", fmt.Errorf("%w: its target is %q", errNotOneTarget, kind)
	}
	return cString(spec[dmSpecSize:]), nil
}

func cString(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}
