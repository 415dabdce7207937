// Command pgste marks a program for s390x as one that makes virtual machines.
//
// Such a process needs page tables of 4 KiB, which the kernel gives it when its
// program has a header PT_S390_PGSTE (Linux, arch/s390/include/asm/elf.h). A linker
// writes one with --s390-pgste; Go's own does not know that flag. The header takes
// the place of the one that says where the headers are, which only a dynamic linker
// reads.
package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// ptS390PGSTE is PT_S390_PGSTE, of the range for processors.
const ptS390PGSTE = elf.PT_LOPROC

func main() {
	if err := newCommand().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "pgste:", err)
		os.Exit(exitcode.Of(err))
	}
}

func newCommand() *cobra.Command {
	var input, output string
	cmd := &cobra.Command{
		Use:           "pgste --input=FILE --output=FILE",
		Short:         "Mark a program for s390x as one that makes virtual machines",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(*cobra.Command, []string) error {
			program, err := os.ReadFile(input)
			if err != nil {
				return exitcode.With(exitcode.BadInput, fmt.Errorf("reading the program: %w", err))
			}
			if err := mark(program); err != nil {
				return exitcode.With(exitcode.BadInput, fmt.Errorf("%s: %w", input, err))
			}
			if err := os.WriteFile(output, program, 0o755); err != nil {
				return exitcode.With(exitcode.LocalIO, fmt.Errorf("writing the program: %w", err))
			}
			return nil
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exitcode.With(exitcode.BadInput, err) })
	cmd.Flags().StringVar(&input, "input", "", "the program, static and for s390x")
	cmd.Flags().StringVar(&output, "output", "", "the program to write")
	return cmd
}

// Of the header of a file, and of a program header, as ELF-64 lays them out.
const (
	offsetOfHeaders    = 32
	offsetOfHeaderSize = 54
	sizeOfHeader       = 56
)

// mark changes a program in place.
func mark(program []byte) error {
	file, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return fmt.Errorf("not a program: %w", err)
	}
	if file.Class != elf.ELFCLASS64 || file.Machine != elf.EM_S390 {
		return fmt.Errorf("a program for %s, not for s390x", file.Machine)
	}
	at := -1
	for i, header := range file.Progs {
		switch header.Type {
		case elf.PT_INTERP:
			return errors.New("it has a dynamic linker: link it with --s390-pgste")
		case ptS390PGSTE:
			return errors.New("it is marked already")
		case elf.PT_PHDR:
			at = i
		}
	}
	if at < 0 {
		return errors.New("it has no header PT_PHDR whose place could be taken")
	}
	order := binary.BigEndian
	start := order.Uint64(program[offsetOfHeaders:]) + uint64(at)*uint64(order.Uint16(program[offsetOfHeaderSize:]))
	header := program[start : start+sizeOfHeader]
	clear(header)
	order.PutUint32(header, uint32(ptS390PGSTE))
	return nil
}
