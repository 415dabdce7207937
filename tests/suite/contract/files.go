package contract

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// machines maps Go's name of an architecture to that of programs for it.
var machines = map[string]elf.Machine{
	"amd64":   elf.EM_X86_64,
	"arm64":   elf.EM_AARCH64,
	"ppc64le": elf.EM_PPC64,
	"s390x":   elf.EM_S390,
}

// CheckKernel tells whether a file is a kernel for an architecture that QEMU can load
// by itself:
//
//	amd64    of the x86 boot protocol, or an ELF file with a PVH entry
//	arm64    an Image (Linux, Documentation/arch/arm64/booting.rst), perhaps compressed
//	ppc64le  an ELF file
//	s390x    an image with the mark of its entry, an ELF file, or one encrypted for
//	         Secure Execution
func CheckKernel(path, arch string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	machine, ok := machines[arch]
	if !ok {
		return fmt.Errorf("nobody knows kernels for %q", arch)
	}
	if program, err := elf.NewFile(f); err == nil {
		if program.Machine != machine || program.Class != elf.ELFCLASS64 {
			return fmt.Errorf("%s: not a kernel for %s, but %s %s", path, arch, program.Class, program.Machine)
		}
		switch arch {
		case "amd64":
			return checkPVH(path, program)
		case "arm64":
			return fmt.Errorf("%s: an ELF file: QEMU starts an Image", path)
		default:
			return nil
		}
	}
	switch arch {
	case "amd64":
		err = checkSetupHeader(f)
	case "arm64":
		err = checkImage(f)
	case "s390x":
		err = checkS390Image(f)
	default:
		err = errors.New("no ELF file")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// checkSetupHeader checks the setup header of the x86 boot protocol.
func checkSetupHeader(f io.Reader) error {
	header := make([]byte, 0x264)
	if _, err := io.ReadFull(f, header); err != nil {
		return fmt.Errorf("reading the setup header: %w", err)
	}
	switch {
	case binary.LittleEndian.Uint16(header[0x1fe:]) != 0xaa55:
		return errors.New("no boot sector")
	case !bytes.Equal(header[0x202:0x206], []byte("HdrS")):
		return errors.New("no setup header")
	case binary.LittleEndian.Uint16(header[0x206:]) < 0x20c:
		return fmt.Errorf("boot protocol %#x is too old", binary.LittleEndian.Uint16(header[0x206:]))
	case header[0x236]&1 == 0:
		return errors.New("not a 64-bit kernel")
	}
	return nil
}

// checkImage checks the header of an Image for arm64.
func checkImage(f io.ReadSeeker) error {
	var in io.Reader = f
	if unpacked, err := gzip.NewReader(f); err == nil {
		in = unpacked
	} else if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	header := make([]byte, 64)
	if _, err := io.ReadFull(in, header); err != nil {
		return fmt.Errorf("reading the header of an Image: %w", err)
	}
	if string(header[0x38:0x3c]) != "ARM\x64" {
		return errors.New("no Image for arm64")
	}
	return nil
}

// secureHeader begins what describes an image for Secure Execution to the machine: see
// the header of genprotimg's images (s390-tools, pv_hdr_def.h).
const secureHeader = "IBMSecEx"

// checkS390Image checks that the entry of a kernel is marked as the firmware wants it
// (Linux, arch/s390/boot/head.S), or that the image is one for Secure Execution.
func checkS390Image(f io.Reader) error {
	const entry, mark = 0x10008, "S390EP"
	data, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	if len(data) > entry+len(mark) && string(data[entry:entry+len(mark)]) == mark && !bytes.Contains(data, []byte(secureHeader)) {
		return nil
	}
	if at := bytes.Index(data, []byte(secureHeader)); at >= 0 && at%4096 == 0 {
		return nil
	}
	return errors.New("neither a kernel for s390x nor an image for Secure Execution")
}

// CheckInitrd tells whether a file is what the guest kernel can unpack: a compressed
// cpio archive of the format newc.
func CheckInitrd(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	unpacked, err := gzip.NewReader(f)
	if err != nil {
		return fmt.Errorf("%s: no initrd: %w", path, err)
	}
	magic := make([]byte, 6)
	if _, err := io.ReadFull(unpacked, magic); err != nil {
		return fmt.Errorf("%s: no initrd: %w", path, err)
	}
	if string(magic) != "070701" {
		return fmt.Errorf("%s: no initrd: it begins with %q, not as a cpio archive of the format newc", path, magic)
	}
	return nil
}

// physEntryNote is the type of the note by which a kernel says where it is entered
// without a boot loader: XEN_ELFNOTE_PHYS32_ENTRY of the PVH boot protocol.
const physEntryNote = 18

// checkPVH tells whether an ELF file is a 64-bit kernel that QEMU starts as it is.
func checkPVH(path string, program *elf.File) error {
	for _, segment := range program.Progs {
		if segment.Type != elf.PT_NOTE {
			continue
		}
		notes, err := io.ReadAll(segment.Open())
		if err != nil {
			return fmt.Errorf("%s: reading the notes: %w", path, err)
		}
		// A note is the sizes of name and content, its type, and both, each padded to four bytes.
		for pad := func(n uint32) int { return (int(n) + 3) &^ 3 }; len(notes) >= 12; {
			name, content, kind := program.ByteOrder.Uint32(notes), program.ByteOrder.Uint32(notes[4:]), program.ByteOrder.Uint32(notes[8:])
			end := 12 + pad(name) + pad(content)
			if end > len(notes) {
				return fmt.Errorf("%s: a note is cut off", path)
			}
			if kind == physEntryNote && bytes.HasPrefix(notes[12:], []byte("Xen\x00")) {
				return nil
			}
			notes = notes[end:]
		}
	}
	return fmt.Errorf("%s: an ELF file without the note of the PVH entry: QEMU does not start it", path)
}

// Kinds of firmware, by the TEE whose guests it starts.
const (
	TDXFirmware   = "tdx"
	SEVFirmware   = "sev"
	AAVMFFirmware = "aavmf"
)

// Entries of the table of GUIDs at the end of OVMF.
var (
	tdxMetadataEntry = guid(0xe47a6535, 0x984a, 0x4798, [8]byte{0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e, 0xc2})
	sevMetadataEntry = guid(0xdc886566, 0x984a, 0x4798, [8]byte{0xa7, 0x5e, 0x55, 0x85, 0xa7, 0xbf, 0x67, 0xcc})
	sevSecretsEntry  = guid(0x4c2eb361, 0x7d9b, 0x4cc3, [8]byte{0x80, 0x81, 0x12, 0x7c, 0x90, 0xd3, 0xd2, 0x94})
	sevHashesEntry   = guid(0x7255371f, 0x3a3b, 0x4b04, [8]byte{0x92, 0x7b, 0x1d, 0xa6, 0xef, 0xa8, 0xd4, 0x54})
)

// CheckFirmware tells whether a file is the firmware of a kind: a whole number of
// pages that ends in the table of GUIDed entries, of which some lead to what the
// TEE needs. The general firmware has the metadata of both TEEs; it sets memory
// aside for the secrets of SEV, which that for TDX does not, and none for the
// digests of what it is to start, which that for SEV does.
//
// The table is that of OVMF's reset vector.
func CheckFirmware(path, kind string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if kind == AAVMFFirmware {
		if err := checkAAVMF(data); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return nil
	}
	const page = 4096
	if len(data) < 1<<20 || len(data) > 16<<20 || len(data)%page != 0 {
		return fmt.Errorf("%s: %d bytes are no firmware", path, len(data))
	}
	table, err := guidTable(data)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	switch kind {
	case TDXFirmware:
		err = checkTDXFirmware(data, table)
	case SEVFirmware:
		err = checkSEVFirmware(data, table)
	default:
		err = fmt.Errorf("nobody knows firmware of the kind %q", kind)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// checkAAVMF checks that the firmware for arm64 fills a flash chip of the machine virt,
// which has it run from its first byte, and that a firmware volume begins behind the
// jump there (UEFI Platform Initialization specification, volume 3, section 3.2.1).
func checkAAVMF(data []byte) error {
	const chip, volume, signature = 64 << 20, 0x1000, 40
	if len(data) != chip {
		return fmt.Errorf("%d bytes do not fill a flash chip of %d", len(data), chip)
	}
	if string(data[volume+signature:volume+signature+4]) != "_FVH" {
		return errors.New("no firmware volume where the firmware for arm64 has it")
	}
	return nil
}

func checkTDXFirmware(data []byte, table map[string][]byte) error {
	offset := table[tdxMetadataEntry]
	if len(offset) != 4 {
		return errors.New("no TDX metadata: this firmware does not start a TD")
	}
	if err := checkTDXMetadata(data, int64(binary.LittleEndian.Uint32(offset))); err != nil {
		return err
	}
	if len(bytes.Trim(table[sevSecretsEntry], "\x00")) > 0 {
		return errors.New("it sets memory aside for secrets of SEV: this is the general firmware, not the one for TDX")
	}
	return nil
}

func checkSEVFirmware(data []byte, table map[string][]byte) error {
	offset := table[sevMetadataEntry]
	if len(offset) != 4 {
		return errors.New("no SEV metadata: this firmware does not start an SNP guest")
	}
	if err := checkSEVMetadata(data, int64(binary.LittleEndian.Uint32(offset))); err != nil {
		return err
	}
	// Address and size. Without memory for them QEMU refuses to measure a kernel.
	hashes := table[sevHashesEntry]
	if len(hashes) != 8 || binary.LittleEndian.Uint32(hashes) == 0 || binary.LittleEndian.Uint32(hashes[4:]) == 0 {
		return errors.New("it sets no memory aside for the digests of kernel, initrd and command line: this is not the firmware for SEV")
	}
	return nil
}

// checkSEVMetadata checks the metadata at an offset from the end of the file: it
// must name the pages that the processor fills when an SNP guest is launched. The
// format is that of OVMF's reset vector, which QEMU reads.
func checkSEVMetadata(data []byte, offset int64) error {
	const (
		header, section = 16, 12
		secrets, cpuid  = 2, 3
	)
	at := int64(len(data)) - offset
	if offset < header || at < 0 || !bytes.HasPrefix(data[at:], []byte("ASEV")) {
		return errors.New("the SEV metadata is not where the table says")
	}
	sections := int64(binary.LittleEndian.Uint32(data[at+12:]))
	if sections > (offset-header)/section {
		return fmt.Errorf("the SEV metadata names %d sections, more than fit in the file", sections)
	}
	found := map[uint32]bool{}
	for i := range sections {
		s := data[at+header+i*section:]
		if binary.LittleEndian.Uint32(s[4:]) > 0 {
			found[binary.LittleEndian.Uint32(s[8:])] = true
		}
	}
	for _, page := range []struct {
		kind uint32
		name string
	}{{secrets, "secrets"}, {cpuid, "CPUID"}} {
		if !found[page.kind] {
			return fmt.Errorf("the SEV metadata has no page for %s, which an SNP guest needs", page.name)
		}
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

// checkTDXMetadata checks the metadata at an offset from the end of the file, of
// which a part must be measured. The format is that of the "TDX Virtual Firmware
// Design Guide", section 11.
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
func CheckProgram(path, arch string) (isELF bool, err error) {
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
	if e.Machine != machines[arch] {
		return true, fmt.Errorf("%s is a program for %s, not for %s", path, e.Machine, arch)
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
