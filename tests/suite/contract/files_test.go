package contract_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
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

func TestCheckKernel(t *testing.T) {
	require.NoError(t, contract.CheckKernel(write(t, kernel())))
	for want, spoil := range map[string]func([]byte){
		"no boot sector":      func(k []byte) { k[0x1fe] = 0 },
		"no setup header":     func(k []byte) { k[0x202] = 'h' },
		"is too old":          func(k []byte) { k[0x207] = 1 },
		"not a 64-bit kernel": func(k []byte) { k[0x236] = 0 },
	} {
		k := kernel()
		spoil(k)
		require.ErrorContains(t, contract.CheckKernel(write(t, k)), want)
	}
	require.ErrorContains(t, contract.CheckKernel(write(t, []byte("\x7fELF"))), "reading the setup header")
	require.Error(t, contract.CheckKernel(filepath.Join(t.TempDir(), "absent")))
}

// firmware is two MiB whose table of GUIDs has one foreign entry, that of
// SEV's secrets, and the one that leads to the TDX metadata, which measures all
// of it.
func firmware(t *testing.T) []byte {
	t.Helper()
	guid := func(s string) []byte {
		b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		require.NoError(t, err)
		return b
	}
	entry := func(data []byte, id []byte) []byte {
		out := binary.LittleEndian.AppendUint16(data, uint16(len(data)+18))
		return append(out, id...)
	}
	const size, metadataAt = 2 << 20, 3 << 10
	f := make([]byte, size)
	copy(f[size-metadataAt:], "TDVF")
	binary.LittleEndian.PutUint32(f[size-metadataAt+12:], 1)
	section := f[size-metadataAt+16:]
	binary.LittleEndian.PutUint32(section[4:], size)
	binary.LittleEndian.PutUint32(section[28:], 1)
	table := entry(binary.LittleEndian.AppendUint32(nil, metadataAt), guid("35657ae4 4a98 9847 865e4685a7bf8ec2"))
	table = append(table, entry(make([]byte, 8), guid("61b32e4c 9b7d c34c 8081127c90d3d294"))...)
	table = append(table, entry([]byte("other"), bytes.Repeat([]byte{7}, 16))...)
	table = append(table, binary.LittleEndian.AppendUint16(nil, uint16(len(table)+18))...)
	table = append(table, guid("de82b596 b21f f745 baeaa366c55a082d")...)
	copy(f[size-32-len(table):], table)
	return f
}

func TestCheckFirmware(t *testing.T) {
	require.NoError(t, contract.CheckFirmware(write(t, firmware(t))))
	for want, spoil := range map[string]func([]byte) []byte{
		"are no firmware":                   func(f []byte) []byte { return f[:len(f)-1] },
		"no table of GUIDs":                 func(f []byte) []byte { f[len(f)-33]++; return f },
		"not where the table says":          func(f []byte) []byte { copy(f[len(f)-(3<<10):], "XXXX"); return f },
		"does not start a TD":               func(f []byte) []byte { return bytes.Replace(f, []byte{0x35, 0x65, 0x7a, 0xe4}, make([]byte, 4), 1) },
		"the table of GUIDs is broken":      func(f []byte) []byte { f[len(f)-32-18-18] = 1; return f },
		"a part of the firmware is missing": func(f []byte) []byte { return f[4096:] },
		"no measured boot firmware volume":  func(f []byte) []byte { f[len(f)-(3<<10)+16+28] = 0; return f },
		"more than fit in the file":         func(f []byte) []byte { f[len(f)-(3<<10)+12] = 200; return f },
		"not the one for TDX":               func(f []byte) []byte { at := bytes.Index(f, []byte{0x61, 0xb3, 0x2e, 0x4c}); f[at-10] = 1; return f },
	} {
		require.ErrorContains(t, contract.CheckFirmware(write(t, spoil(firmware(t)))), want)
	}
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

func TestCheckProgram(t *testing.T) {
	const load, interp = 1, 3
	isELF, err := contract.CheckProgram(write(t, program(t, load, "code")))
	require.NoError(t, err)
	require.True(t, isELF)

	_, err = contract.CheckProgram(write(t, program(t, interp, "/lib64/ld-linux-x86-64.so.2\x00")))
	require.ErrorContains(t, err, "needs the host's /lib64/ld-linux-x86-64.so.2")

	for _, content := range []string{"", "#!", "#!/bin/sh\n"} {
		isELF, err = contract.CheckProgram(write(t, []byte(content)))
		require.NoError(t, err)
		require.False(t, isELF)
	}
	_, err = contract.CheckProgram(write(t, []byte("\x7fELF torn")))
	require.Error(t, err)
}
