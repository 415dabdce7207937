package boot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
)

const (
	sectorSize = 512
	// erofsSuperblock is where a file system's superblock starts.
	erofsSuperblock = 1024
	erofsMagic      = 0xe0f5e1e2
)

// Partition is where a partition lies in a disk image, in bytes.
type Partition struct {
	Start, Size int64
}

// Partitions reads the GUID partition table of a disk image.
func Partitions(disk io.ReaderAt) ([]Partition, error) {
	header := make([]byte, 92)
	if _, err := disk.ReadAt(header, sectorSize); err != nil {
		return nil, fmt.Errorf("reading the partition table: %w", err)
	}
	if !bytes.HasPrefix(header, []byte("EFI PART")) {
		return nil, errors.New("reading the partition table: the disk has no GPT")
	}
	first := int64(binary.LittleEndian.Uint64(header[72:])) * sectorSize
	count := binary.LittleEndian.Uint32(header[80:])
	size := int64(binary.LittleEndian.Uint32(header[84:]))
	if count > 128 || size < 128 || size > 4096 {
		return nil, fmt.Errorf("reading the partition table: %d entries of %d bytes", count, size)
	}
	var list []Partition
	entry := make([]byte, size)
	for i := range int64(count) {
		if _, err := disk.ReadAt(entry, first+i*size); err != nil {
			return nil, fmt.Errorf("reading the partition table: %w", err)
		}
		// An entry without a type is not used.
		if bytes.Equal(entry[:16], make([]byte, 16)) {
			continue
		}
		start := int64(binary.LittleEndian.Uint64(entry[32:]))
		end := int64(binary.LittleEndian.Uint64(entry[40:])) + 1
		list = append(list, Partition{Start: start * sectorSize, Size: (end - start) * sectorSize})
	}
	return list, nil
}

// Place finds a byte of a guest image that a boot reads.
type Place func(disk *os.File) (offset int64, err error)

// Superblock is a byte of the root file system's superblock, the first block
// that a boot reads.
func Superblock(disk *os.File) (int64, error) {
	root, err := rootPartition(disk)
	if err != nil {
		return 0, err
	}
	super := make([]byte, 128)
	if _, err := disk.ReadAt(super, root.Start+erofsSuperblock); err != nil {
		return 0, fmt.Errorf("reading the superblock: %w", err)
	}
	if binary.LittleEndian.Uint32(super) != erofsMagic {
		return 0, errors.New("the first partition is not an erofs file system")
	}
	const label = 64
	return root.Start + erofsSuperblock + label, nil
}

// Text is a place inside of a text that the root file system contains, such
// as one of the agent's own.
func Text(text string) Place {
	return func(disk *os.File) (int64, error) {
		root, err := rootPartition(disk)
		if err != nil {
			return 0, err
		}
		data := make([]byte, root.Size)
		if _, err := disk.ReadAt(data, root.Start); err != nil {
			return 0, fmt.Errorf("reading the root file system: %w", err)
		}
		at := bytes.Index(data, []byte(text))
		if at < 0 {
			return 0, fmt.Errorf("the root file system does not contain %q", text)
		}
		return root.Start + int64(at), nil
	}
}

// HashTree is a byte of the hash tree's topmost block, which every read of
// the root file system depends on.
func HashTree(disk *os.File) (int64, error) {
	list, err := Partitions(disk)
	if err != nil {
		return 0, err
	}
	if len(list) != 2 {
		return 0, fmt.Errorf("the disk has %d partitions, want root and hash tree", len(list))
	}
	return list[1].Start, nil
}

func rootPartition(disk *os.File) (Partition, error) {
	list, err := Partitions(disk)
	if err != nil {
		return Partition{}, err
	}
	if len(list) != 2 {
		return Partition{}, fmt.Errorf("the disk has %d partitions, want root and hash tree", len(list))
	}
	return list[0], nil
}

// FlipByte copies a disk image and inverts one byte of the copy.
func FlipByte(image, copied string, place Place) error {
	fail := func(err error) error { return fmt.Errorf("making a faulty image: %w", err) }
	in, err := os.Open(image)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = in.Close() }()
	offset, err := place(in)
	if err != nil {
		return fail(err)
	}
	out, err := os.Create(copied)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = out.Close() }()
	if _, err := io.Copy(out, in); err != nil {
		return fail(err)
	}
	b := make([]byte, 1)
	if _, err := out.ReadAt(b, offset); err != nil {
		return fail(err)
	}
	b[0] ^= 0xff
	if _, err := out.WriteAt(b, offset); err != nil {
		return fail(err)
	}
	if err := out.Close(); err != nil {
		return fail(err)
	}
	return nil
}

var verityTable = regexp.MustCompile(`(sha256 )([0-9a-f]{64})( [0-9a-f]+")`)

// WrongRootHash gives the command line with another root hash in its verity
// table.
func WrongRootHash(commandLine string) (string, error) {
	at := verityTable.FindStringSubmatchIndex(commandLine)
	if at == nil {
		return "", fmt.Errorf("no verity table on the command line %q", commandLine)
	}
	digit := "0"
	if strings.HasPrefix(commandLine[at[4]:], digit) {
		digit = "1"
	}
	return commandLine[:at[4]] + digit + commandLine[at[4]+1:], nil
}

// RootHash gives the root hash of the command line's verity table.
func RootHash(commandLine string) (string, error) {
	found := verityTable.FindStringSubmatch(commandLine)
	if found == nil {
		return "", fmt.Errorf("no verity table on the command line %q", commandLine)
	}
	return found[2], nil
}
