package contract_test

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tests/suite/contract"
)

// These were computed with veritysetup format --no-superblock --hash sha256
// over blocks of 4096 bytes, each filled with the number of the block.
func TestComputeHashTree(t *testing.T) {
	for name, tc := range map[string]struct {
		blocks int
		salt   string
		want   string
	}{
		"one level":              {blocks: 3, salt: "00ff", want: "a53818355a31639510be94f8393b0b961fdd8c52aa84b10ab591b3878d93cc9d"},
		"one full level":         {blocks: 128, salt: "", want: "eade1212c3a6dd9dd817bf456bf067c41cdb483af154c5d0890d32744b7e4f6b"},
		"two levels":             {blocks: 129, salt: "6b696c6e", want: "e40ea35344a1b0e7384ba247aadb67f49346c15e65a20618bfe2a5925f67fccb"},
		"two levels and no salt": {blocks: 300, salt: "", want: "761a5f4b2b77d95bcaf53e120a502390a949a42fc1d2daa90ceb3252aa87489b"},
	} {
		t.Run(name, func(t *testing.T) {
			var data bytes.Buffer
			for n := range tc.blocks {
				data.Write(bytes.Repeat([]byte{byte(n)}, 4096))
			}
			salt, err := hex.DecodeString(tc.salt)
			require.NoError(t, err)
			tree, err := contract.ComputeHashTree(&data, salt, uint64(tc.blocks), 4096, 4096)
			require.NoError(t, err)
			require.Equal(t, tc.want, tree.RootHash)
			levels := 1
			if tc.blocks > 128 {
				levels = 1 + (tc.blocks+127)/128
			}
			require.Len(t, tree.Blocks, levels*4096)
		})
	}
	_, err := contract.ComputeHashTree(strings.NewReader("short"), nil, 2, 4096, 4096)
	require.ErrorContains(t, err, "reading block 0 of 2")
	_, err = contract.ComputeHashTree(bytes.NewReader(make([]byte, 4096)), nil, 1, 4096, 4096)
	require.Error(t, err)
}

func write(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, data, 0o755))
	return path
}

func kernel() []byte {
	k := make([]byte, 4096)
	binary.LittleEndian.PutUint16(k[0x1fe:], 0xaa55)
	copy(k[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(k[0x206:], 0x20f)
	k[0x236] = 1
	return k
}

// vmlinux is an ELF file with two notes, of which the second is of a kind and of a
// program.
func vmlinux(kind uint32, program string) []byte {
	var notes []byte
	for _, note := range []struct {
		name string
		kind uint32
	}{{"Linux", 3}, {program, kind}} {
		name := append([]byte(note.name), 0)
		for _, field := range []uint32{uint32(len(name)), 4, note.kind} {
			notes = binary.LittleEndian.AppendUint32(notes, field)
		}
		notes = append(notes, name...)
		notes = append(notes, make([]byte, (4-len(name)%4)%4+4)...)
	}
	header := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS], header.Ident[elf.EI_DATA], header.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	var out []byte
	for _, part := range []any{header, elf.Prog64{Type: uint32(elf.PT_NOTE), Off: 120, Filesz: uint64(len(notes))}} {
		var err error
		if out, err = binary.Append(out, binary.LittleEndian, part); err != nil {
			panic(err) // The parts have a fixed size.
		}
	}
	return append(out, notes...)
}

func TestCheckKernel(t *testing.T) {
	require.NoError(t, contract.CheckKernel(write(t, kernel()), "amd64"))
	for want, spoil := range map[string]func([]byte){
		"no boot sector":      func(k []byte) { k[0x1fe] = 0 },
		"no setup header":     func(k []byte) { k[0x202] = 'h' },
		"is too old":          func(k []byte) { k[0x207] = 1 },
		"not a 64-bit kernel": func(k []byte) { k[0x236] = 0 },
	} {
		k := kernel()
		spoil(k)
		require.ErrorContains(t, contract.CheckKernel(write(t, k), "amd64"), want)
	}
	require.ErrorContains(t, contract.CheckKernel(write(t, []byte("\x7fELF")), "amd64"), "reading the setup header")
	require.NoError(t, contract.CheckKernel(write(t, vmlinux(18, "Xen")), "amd64"))
	require.ErrorContains(t, contract.CheckKernel(write(t, vmlinux(18, "GNU")), "amd64"), "without the note of the PVH entry")
	require.ErrorContains(t, contract.CheckKernel(write(t, vmlinux(17, "Xen")), "amd64"), "without the note of the PVH entry")
	foreign := vmlinux(18, "Xen")
	foreign[18] = byte(elf.EM_AARCH64)
	require.ErrorContains(t, contract.CheckKernel(write(t, foreign), "amd64"), "not a kernel for amd64")
	require.Error(t, contract.CheckKernel(filepath.Join(t.TempDir(), "absent"), "amd64"))
}

// metadataAt is where the metadata of the made-up firmware is, from its end.
const metadataAt = 3 << 10

// firmware is two MiB that end in a table of GUIDs with some entries, of which one
// is foreign.
func firmware(t *testing.T, entries map[string][]byte, metadata string) []byte {
	t.Helper()
	guid := func(s string) []byte {
		b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		require.NoError(t, err)
		return b
	}
	var table []byte
	add := func(data, id []byte) {
		table = append(table, data...)
		table = binary.LittleEndian.AppendUint16(table, uint16(len(data)+18))
		table = append(table, id...)
	}
	for _, id := range slices.Sorted(maps.Keys(entries)) {
		add(entries[id], guid(id))
	}
	add([]byte("other"), bytes.Repeat([]byte{7}, 16))
	table = binary.LittleEndian.AppendUint16(table, uint16(len(table)+18))
	table = append(table, guid("de82b596 b21f f745 baeaa366c55a082d")...)
	const size = 2 << 20
	f := make([]byte, size)
	copy(f[size-metadataAt:], metadata)
	copy(f[size-32-len(table):], table)
	return f
}

func offset() []byte { return binary.LittleEndian.AppendUint32(nil, metadataAt) }

// tdxFirmware has metadata that measures all of it.
func tdxFirmware(t *testing.T) []byte {
	t.Helper()
	f := firmware(t, map[string][]byte{
		"35657ae4 4a98 9847 865e4685a7bf8ec2": offset(),
		"61b32e4c 9b7d c34c 8081127c90d3d294": make([]byte, 8),
	}, "TDVF")
	at := f[len(f)-metadataAt:]
	binary.LittleEndian.PutUint32(at[12:], 1)
	binary.LittleEndian.PutUint32(at[16+4:], uint32(len(f)))
	binary.LittleEndian.PutUint32(at[16+28:], 1)
	return f
}

// sevFirmware has a page for secrets and one for CPUID, and memory for digests.
func sevFirmware(t *testing.T) []byte {
	t.Helper()
	f := firmware(t, map[string][]byte{
		"666588dc 4a98 9847 a75e5585a7bf67cc": offset(),
		"1f375572 3b3a 044b 927b1da6efa8d454": {0, 0x0c, 1, 0, 0, 4, 0, 0},
	}, "ASEV")
	at := f[len(f)-metadataAt:]
	binary.LittleEndian.PutUint32(at[12:], 2)
	for i, kind := range []uint32{2, 3} {
		section := at[16+12*i:]
		binary.LittleEndian.PutUint32(section[4:], 4096)
		binary.LittleEndian.PutUint32(section[8:], kind)
	}
	return f
}

func TestCheckFirmware(t *testing.T) {
	type spoil = func(f []byte) []byte
	replace := func(old, by []byte) spoil {
		return func(f []byte) []byte {
			require.Contains(t, string(f), string(old))
			return bytes.Replace(f, old, by, 1)
		}
	}
	set := func(fromEnd int, value byte) spoil {
		return func(f []byte) []byte { f[len(f)-fromEnd] = value; return f }
	}
	for _, kind := range []struct {
		name  string
		whole func(*testing.T) []byte
		cases map[string]spoil
	}{
		{contract.TDXFirmware, tdxFirmware, map[string]spoil{
			"are no firmware":                   func(f []byte) []byte { return f[:len(f)-1] },
			"no table of GUIDs":                 set(33, 0),
			"the table of GUIDs is broken":      set(32+18+18, 1),
			"not where the table says":          set(metadataAt, 'X'),
			"does not start a TD":               replace([]byte{0x35, 0x65, 0x7a, 0xe4}, make([]byte, 4)),
			"a part of the firmware is missing": func(f []byte) []byte { return f[4096:] },
			"no measured boot firmware volume":  set(metadataAt-16-28, 0),
			"more than fit in the file":         set(metadataAt-12, 200),
			"not the one for TDX":               replace([]byte{0, 26, 0, 0x61, 0xb3, 0x2e, 0x4c}, []byte{1, 26, 0, 0x61, 0xb3, 0x2e, 0x4c}),
		}},
		{contract.SEVFirmware, sevFirmware, map[string]spoil{
			"no table of GUIDs":                              set(33, 0),
			"not where the table says":                       set(metadataAt, 'X'),
			"does not start an SNP guest":                    replace([]byte{0x66, 0x65, 0x88, 0xdc}, make([]byte, 4)),
			"more than fit in the file":                      set(metadataAt-13, 200),
			"no page for secrets":                            set(metadataAt-16-8, 1),
			"no page for CPUID":                              set(metadataAt-16-12-5, 0),
			"sets no memory aside for the digests of kernel": replace([]byte{0, 0x0c, 1, 0, 0, 4}, []byte{0, 0, 0, 0, 0, 4}),
		}},
	} {
		require.NoError(t, contract.CheckFirmware(write(t, kind.whole(t)), kind.name))
		for want, spoil := range kind.cases {
			require.ErrorContains(t, contract.CheckFirmware(write(t, spoil(kind.whole(t))), kind.name), want)
		}
	}
	require.ErrorContains(t, contract.CheckFirmware(write(t, tdxFirmware(t)), contract.SEVFirmware), "does not start an SNP guest")
	require.ErrorContains(t, contract.CheckFirmware(write(t, sevFirmware(t)), contract.TDXFirmware), "does not start a TD")
	require.ErrorContains(t, contract.CheckFirmware(write(t, tdxFirmware(t)), "cca"), `nobody knows firmware of the kind "cca"`)
}

// program is the smallest ELF file with one program header.
func program(t *testing.T, segment uint32, content string) []byte {
	t.Helper()
	var b bytes.Buffer
	b.WriteString("\x7fELF\x02\x01\x01")
	b.Write(make([]byte, 9))
	for _, v := range []any{
		uint16(2), uint16(62), uint32(1), uint64(0), uint64(64), uint64(0), uint32(0),
		uint16(64), uint16(56), uint16(1), uint16(64), uint16(0), uint16(0),
		segment, uint32(4), uint64(120), uint64(0), uint64(0), uint64(len(content)), uint64(len(content)), uint64(1),
	} {
		require.NoError(t, binary.Write(&b, binary.LittleEndian, v))
	}
	b.WriteString(content)
	return b.Bytes()
}

// marked puts marks into a file of zeros.
func marked(size int, marks map[int]string) []byte {
	data := make([]byte, size)
	for at, mark := range marks {
		copy(data[at:], mark)
	}
	return data
}

func TestCheckKernelOfOtherArchitectures(t *testing.T) {
	packed := func(data []byte) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, err := z.Write(data)
		require.NoError(t, err)
		require.NoError(t, z.Close())
		return b.Bytes()
	}
	forMachine := func(machine elf.Machine) []byte {
		k := vmlinux(1, "GNU")
		k[18], k[19] = byte(machine), byte(machine>>8)
		return k
	}
	arm64 := marked(4096, map[int]string{0x38: "ARM\x64"})
	for _, tc := range []struct {
		arch string
		data []byte
		err  string
	}{
		{"arm64", arm64, ""},
		{"arm64", packed(arm64), ""},
		{"arm64", packed(marked(4096, nil)), "no Image for arm64"},
		{"arm64", forMachine(elf.EM_AARCH64), "QEMU starts an Image"},
		{"ppc64le", forMachine(elf.EM_PPC64), ""},
		{"ppc64le", forMachine(elf.EM_AARCH64), "not a kernel for ppc64le"},
		{"ppc64le", arm64, "no ELF file"},
		{"s390x", forMachine(elf.EM_S390), ""},
		{"s390x", marked(0x20000, map[int]string{0x10008: "S390EP"}), ""},
		{"s390x", marked(0x20000, map[int]string{0x14000: "IBMSecEx"}), ""},
		{"s390x", marked(0x20000, map[int]string{0x14001: "IBMSecEx"}), "neither a kernel for s390x"},
		// What is to be secret is not there in the clear.
		{"s390x", marked(0x20000, map[int]string{0x10008: "S390EP", 0x14001: "IBMSecEx"}), "neither a kernel for s390x"},
		{"s390x", nil, "neither a kernel for s390x"},
		{"riscv64", arm64, "nobody knows kernels"},
	} {
		err := contract.CheckKernel(write(t, tc.data), tc.arch)
		if tc.err == "" {
			require.NoError(t, err, tc.arch)
		} else {
			require.ErrorContains(t, err, tc.err, tc.arch)
		}
	}

	require.NoError(t, contract.CheckInitrd(write(t, packed([]byte("070701 and so on")))))
	require.ErrorContains(t, contract.CheckInitrd(write(t, packed([]byte("070707 and so on")))), "not as a cpio archive")
	require.ErrorContains(t, contract.CheckInitrd(write(t, []byte("070701 and so on"))), "no initrd")
	require.ErrorContains(t, contract.CheckInitrd(write(t, nil)), "no initrd")
}

func TestCheckProgram(t *testing.T) {
	const load, interp = 1, 3
	isELF, err := contract.CheckProgram(write(t, program(t, load, "code")), "amd64")
	require.NoError(t, err)
	require.True(t, isELF)

	_, err = contract.CheckProgram(write(t, program(t, interp, "/lib64/ld-linux-x86-64.so.2\x00")), "amd64")
	require.ErrorContains(t, err, "needs the host's /lib64/ld-linux-x86-64.so.2")

	for _, content := range []string{"", "#!", "#!/bin/sh\n"} {
		isELF, err = contract.CheckProgram(write(t, []byte(content)), "amd64")
		require.NoError(t, err)
		require.False(t, isELF)
	}
	_, err = contract.CheckProgram(write(t, []byte("\x7fELF torn")), "amd64")
	require.Error(t, err)
}

func TestCheckFirmwareForARM64(t *testing.T) {
	volume := map[int]string{0x1028: "_FVH"}
	require.NoError(t, contract.CheckFirmware(write(t, marked(64<<20, volume)), contract.AAVMFFirmware))
	require.ErrorContains(t, contract.CheckFirmware(write(t, marked(2<<20, volume)), contract.AAVMFFirmware), "do not fill a flash chip")
	require.ErrorContains(t, contract.CheckFirmware(write(t, marked(64<<20, nil)), contract.AAVMFFirmware), "no firmware volume")
}
