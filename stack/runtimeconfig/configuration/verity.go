package configuration

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// Verity describes the dm-verity tree of a guest image: what the file
// root_hash_<variant>.txt beside the image says.
type Verity struct {
	RootHash      string
	Salt          string
	DataBlocks    uint64
	DataBlockSize uint64
	HashBlockSize uint64
}

// The partitions of every guest image, and the driver that the runtime attaches
// the image with when the guest is confidential: virtio-blk, as first disk.
const (
	dataDevice = "/dev/vda1"
	hashDevice = "/dev/vda2"
)

const sectorSize = 512

var (
	rootHashRE = regexp.MustCompile(`^[0-9a-f]{64}$`)
	saltRE     = regexp.MustCompile(`^([0-9a-f]{2})*$`)
)

// ParseVerity reads the one line that a root_hash_<variant>.txt holds. Name is
// what errors call it.
func ParseVerity(name, text string) (Verity, error) {
	fail := func(format string, args ...any) (Verity, error) {
		return Verity{}, exitcode.With(exitcode.BadInput, fmt.Errorf("%s:1: "+format, append([]any{name}, args...)...))
	}
	line := strings.TrimSuffix(text, "\n")
	if line == "" || strings.Contains(line, "\n") {
		return Verity{}, exitcode.With(exitcode.BadInput, fmt.Errorf("%s: want exactly one line with root_hash, salt, data_blocks, data_block_size and hash_block_size", name))
	}
	var v Verity
	numbers := map[string]*uint64{
		"data_blocks":     &v.DataBlocks,
		"data_block_size": &v.DataBlockSize,
		"hash_block_size": &v.HashBlockSize,
	}
	texts := map[string]*string{"root_hash": &v.RootHash, "salt": &v.Salt}
	seen := map[string]bool{}
	for _, field := range strings.Split(line, ",") {
		key, value, ok := strings.Cut(field, "=")
		if !ok {
			return fail("%q is not key=value", field)
		}
		if seen[key] {
			return fail("%s is there twice", key)
		}
		seen[key] = true
		if number, ok := numbers[key]; ok {
			n, err := strconv.ParseUint(value, 10, 63)
			if err != nil {
				return fail("%s=%s is not a number", key, value)
			}
			*number = n
		} else if text, ok := texts[key]; ok {
			*text = value
		} else {
			return fail("unknown key %q", key)
		}
	}
	for _, key := range []string{"root_hash", "salt", "data_blocks", "data_block_size", "hash_block_size"} {
		if !seen[key] {
			return fail("%s is missing", key)
		}
	}
	if err := v.check(); err != nil {
		return fail("%w", err)
	}
	return v, nil
}

func (v Verity) check() error {
	var errs []error
	if !rootHashRE.MatchString(v.RootHash) {
		errs = append(errs, fmt.Errorf("root_hash=%s is not 64 hex digits", v.RootHash))
	}
	if !saltRE.MatchString(v.Salt) {
		errs = append(errs, fmt.Errorf("salt=%s is not hex", v.Salt))
	}
	if v.DataBlocks == 0 {
		errs = append(errs, errors.New("data_blocks=0"))
	}
	for _, size := range []struct {
		key   string
		value uint64
	}{{"data_block_size", v.DataBlockSize}, {"hash_block_size", v.HashBlockSize}} {
		if size.value < sectorSize || size.value > 64<<10 || size.value&(size.value-1) != 0 {
			errs = append(errs, fmt.Errorf("%s=%d is not a power of two from 512 to 65536", size.key, size.value))
		}
	}
	return errors.Join(errs...)
}

// KernelParams gives the kernel parameters that make the guest mount its root
// through dm-verity, or stop. This version of the runtime knows nothing of
// verity, but it keeps a quoted parameter together and puts the configuration's
// parameters last, where root= overrides its own root=/dev/vda1.
func (v Verity) KernelParams() string {
	salt := v.Salt
	if salt == "" {
		salt = "-"
	}
	return fmt.Sprintf(`dm-mod.create="dm-verity,,,ro,0 %d verity 1 %s %s %d %d %d 0 sha256 %s %s" root=/dev/dm-0`,
		v.DataBlocks*(v.DataBlockSize/sectorSize), dataDevice, hashDevice,
		v.DataBlockSize, v.HashBlockSize, v.DataBlocks, v.RootHash, salt)
}
