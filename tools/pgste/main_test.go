package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// program makes the headers of a program.
func program(t *testing.T, machine elf.Machine, types ...elf.ProgType) []byte {
	t.Helper()
	var b bytes.Buffer
	header := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT),
		Phoff: 64, Ehsize: 64, Phentsize: sizeOfHeader, Phnum: uint16(len(types)), Shentsize: 64,
	}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS], header.Ident[elf.EI_DATA], header.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2MSB), byte(elf.EV_CURRENT)
	require.NoError(t, binary.Write(&b, binary.BigEndian, header))
	for _, kind := range types {
		require.NoError(t, binary.Write(&b, binary.BigEndian, elf.Prog64{Type: uint32(kind), Off: 64, Vaddr: 0x10040, Filesz: 56, Memsz: 56}))
	}
	return b.Bytes()
}

func TestMark(t *testing.T) {
	marked := program(t, elf.EM_S390, elf.PT_NOTE, elf.PT_PHDR, elf.PT_LOAD)
	require.NoError(t, mark(marked))
	file, err := elf.NewFile(bytes.NewReader(marked))
	require.NoError(t, err)
	require.Equal(t, elf.ProgHeader{Type: ptS390PGSTE}, file.Progs[1].ProgHeader)
	require.Equal(t, elf.PT_NOTE, file.Progs[0].Type)
	require.Equal(t, elf.PT_LOAD, file.Progs[2].Type)
	require.EqualError(t, mark(marked), "it is marked already")

	for want, program := range map[string][]byte{
		"a program for EM_X86_64, not for s390x":                                program(t, elf.EM_X86_64, elf.PT_PHDR),
		"it has a dynamic linker: link it with --s390-pgste":                    program(t, elf.EM_S390, elf.PT_PHDR, elf.PT_INTERP),
		"it has no header PT_PHDR whose place could be taken":                   program(t, elf.EM_S390, elf.PT_LOAD),
		"not a program: bad magic number '[35 33 47 98]' in record at byte 0x0": []byte("#!/bin/sh is what a script begins with, and an archive with something else"),
	} {
		require.EqualError(t, mark(program), want)
	}
}

func TestCommand(t *testing.T) {
	dir := t.TempDir()
	input, output := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	run := func() error {
		cmd := newCommand()
		cmd.SetArgs([]string{"--input", input, "--output", output})
		return cmd.Execute()
	}
	require.Equal(t, exitcode.BadInput, exitcode.Of(run()))
	require.NoError(t, os.WriteFile(input, program(t, elf.EM_X86_64, elf.PT_PHDR), 0o644))
	require.ErrorContains(t, run(), input+": a program for EM_X86_64")
	require.NoFileExists(t, output)
	require.NoError(t, os.WriteFile(input, program(t, elf.EM_S390, elf.PT_PHDR), 0o644))
	require.NoError(t, run())
	info, err := os.Stat(output)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o755), info.Mode().Perm())
}
