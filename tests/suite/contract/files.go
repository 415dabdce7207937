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

// CheckFirmware tells whether a file is the TDX virtual firmware: a whole
// number of pages that ends in the table of GUIDed entries, of which one leads
// to the TDX metadata, whose measured parts the file holds. The general
// firmware, which has that metadata as well, sets memory aside for SEV.
//
// The table is that of OVMF's reset vector, the metadata that of the "TDX
// Virtual Firmware Design Guide", section 11.
func CheckFirmware(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	const page = 4096
	if len(data) < 1<<20 || len(data) > 16<<20 || len(data)%page != 0 {
		return fmt.Errorf("%s: %d bytes are no firmware", path, len(data))
	}
	table, err := guidTable(data)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	offset := table[guid(0xe47a6535, 0x984a, 0x4798, [8]byte{0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e, 0xc2})]
	if len(offset) != 4 {
		return fmt.Errorf("%s: no TDX metadata: this firmware does not start a TD", path)
	}
	if err := checkTDXMetadata(data, int64(binary.LittleEndian.Uint32(offset))); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	secrets := table[guid(0x4c2eb361, 0x7d9b, 0x4cc3, [8]byte{0x80, 0x81, 0x12, 0x7c, 0x90, 0xd3, 0xd2, 0x94})]
	if len(bytes.Trim(secrets, "\x00")) > 0 {
		return fmt.Errorf("%s: it sets memory aside for secrets of SEV: this is the general firmware, not the one for TDX", path)
	}
	return nil
}

// guidTable reads the table of GUIDed entries. From its end, at 32 bytes
// before that of the file, it is a list of (data, 2 bytes of length, GUID),
// walked backwards.
func guidTable(data []byte) (map[string][]byte, error) {
	const header = 2 + 16
	footer := guid(0x96b582de, 0x1fb2, 0x45f7, [8]byte{0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d})
	end := len(data) - 32
	if string(data[end-16:end]) != footer {
		return nil, errors.New("no table of GUIDs at its end")
	}
	table := map[string][]byte{}
	start := end - int(binary.LittleEndian.Uint16(data[end-header:]))
	for at := end - header; at > start; {
		size := int(binary.LittleEndian.Uint16(data[at-header:]))
		if size < header || at-size < start {
			return nil, errors.New("the table of GUIDs is broken")
		}
		table[string(data[at-16:at])] = data[at-size : at-header]
		at -= size
	}
	return table, nil
}

// checkTDXMetadata checks the metadata at an offset from the end of the file.
func checkTDXMetadata(data []byte, offset int64) error {
	const (
		header, section = 16, 32
		bootFirmware    = 0
		extendMR        = 1
	)
	at := int64(len(data)) - offset
	if offset < header || at < 0 || !bytes.HasPrefix(data[at:], []byte("TDVF")) {
		return errors.New("the TDX metadata is not where the table says")
	}
	sections := int64(binary.LittleEndian.Uint32(data[at+12:]))
	if sections > (offset-header)/section {
		return fmt.Errorf("the TDX metadata names %d sections, more than fit in the file", sections)
	}
	measured := false
	for i := range sections {
		s := data[at+header+i*section:]
		from, size := int64(binary.LittleEndian.Uint32(s)), int64(binary.LittleEndian.Uint32(s[4:]))
		if from+size > int64(len(data)) {
			return fmt.Errorf("section %d of the TDX metadata, %d bytes at %d, is not in this file of %d: a part of the firmware is missing", i, size, from, len(data))
		}
		if binary.LittleEndian.Uint32(s[24:]) == bootFirmware && binary.LittleEndian.Uint32(s[28:])&extendMR != 0 {
			measured = true
		}
	}
	if !measured {
		return errors.New("the TDX metadata has no measured boot firmware volume")
	}
	return nil
}

// guid gives a GUID as it is stored.
func guid(a uint32, b, c uint16, rest [8]byte) string {
	out := binary.LittleEndian.AppendUint32(nil, a)
	out = binary.LittleEndian.AppendUint16(out, b)
	out = binary.LittleEndian.AppendUint16(out, c)
	return string(append(out, rest[:]...))
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
