package contract

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// CheckKernel tells whether a file is a kernel that a boot loader for x86 can
// load by itself.
func CheckKernel(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	// The setup header of the x86 boot protocol.
	header := make([]byte, 0x264)
	if _, err := io.ReadFull(f, header); err != nil {
		return fmt.Errorf("%s: reading the setup header: %w", path, err)
	}
	switch {
	case binary.LittleEndian.Uint16(header[0x1fe:]) != 0xaa55:
		return fmt.Errorf("%s: no boot sector", path)
	case !bytes.Equal(header[0x202:0x206], []byte("HdrS")):
		return fmt.Errorf("%s: no setup header", path)
	case binary.LittleEndian.Uint16(header[0x206:]) < 0x20c:
		return fmt.Errorf("%s: boot protocol %#x is too old", path, binary.LittleEndian.Uint16(header[0x206:]))
	case header[0x236]&1 == 0:
		return fmt.Errorf("%s: not a 64-bit kernel", path)
	}
	return nil
}

// CheckFirmware tells whether a file can be a TDX virtual firmware: a whole
// number of pages that ends in the table of GUIDed entries, of which one
// leads to the TDX metadata.
func CheckFirmware(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	const page = 4096
	if len(data) < 1<<20 || len(data) > 16<<20 || len(data)%page != 0 {
		return fmt.Errorf("%s: %d bytes are no firmware", path, len(data))
	}
	// From its end, at 32 bytes before the reset vector's, the table is a
	// list of (data, 2 bytes of length, GUID), walked backwards.
	footer := guid(0x96b582de, 0x1fb2, 0x45f7, [8]byte{0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d})
	metadataOffset := guid(0xe47a6535, 0x984a, 0x4798, [8]byte{0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e, 0xc2})
	end := len(data) - 32
	if !bytes.Equal(data[end-16:end], footer) {
		return fmt.Errorf("%s: no table of GUIDs at its end", path)
	}
	total := int(binary.LittleEndian.Uint16(data[end-18:]))
	for at := end - 18; at > end-total; {
		size := int(binary.LittleEndian.Uint16(data[at-18:]))
		if size < 18 || at-size < 0 {
			return fmt.Errorf("%s: the table of GUIDs is broken", path)
		}
		if bytes.Equal(data[at-16:at], metadataOffset) {
			offset := int(binary.LittleEndian.Uint32(data[at-size:]))
			if offset <= 0 || offset > len(data) || !bytes.HasPrefix(data[len(data)-offset:], []byte("TDVF")) {
				return fmt.Errorf("%s: the TDX metadata is not where the table says", path)
			}
			return nil
		}
		at -= size
	}
	return fmt.Errorf("%s: no TDX metadata: this firmware does not start a TD", path)
}

func guid(a uint32, b, c uint16, rest [8]byte) []byte {
	out := binary.LittleEndian.AppendUint32(nil, a)
	out = binary.LittleEndian.AppendUint16(out, b)
	out = binary.LittleEndian.AppendUint16(out, c)
	return append(out, rest[:]...)
}

// CheckProgram looks at an ELF file and tells what it would need of the host:
// an interpreter or libraries. A file that is no ELF gives isELF false.
func CheckProgram(path string) (isELF bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	magic := make([]byte, 4)
	if _, err := io.ReadFull(f, magic); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	if string(magic) != elf.ELFMAG {
		return false, nil
	}
	e, err := elf.NewFile(f)
	if err != nil {
		return true, fmt.Errorf("%s: %w", path, err)
	}
	for _, p := range e.Progs {
		if p.Type == elf.PT_INTERP {
			interpreter := make([]byte, p.Filesz)
			if _, err := p.ReadAt(interpreter, 0); err != nil {
				return true, fmt.Errorf("%s: reading the interpreter's name: %w", path, err)
			}
			return true, fmt.Errorf("%s needs the host's %s", path, bytes.TrimRight(interpreter, "\x00"))
		}
	}
	libraries, err := e.ImportedLibraries()
	if err != nil {
		return true, fmt.Errorf("%s: reading its libraries: %w", path, err)
	}
	if len(libraries) > 0 {
		return true, fmt.Errorf("%s needs the host's %v", path, libraries)
	}
	return true, nil
}
