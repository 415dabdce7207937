package archive

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/kiln-build/kiln/tools/atomicfile"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// Unpack takes files out of the archive that is in a file: outputs says where
// each goes, by its path in the archive. All of them are made executable, since
// who installs them decides on modes.
func Unpack(archive string, outputs map[string]string) (err error) {
	code := exitcode.LocalIO
	defer func() {
		if err != nil {
			err = exitcode.With(code, fmt.Errorf("unpacking %s: %w", archive, err))
		}
	}()
	in, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	r, err := NewReader(in)
	if err != nil {
		code = exitcode.Unverified
		return err
	}
	defer r.Close()
	left := maps.Clone(outputs)
	for len(left) > 0 {
		name, err := r.Next()
		if errors.Is(err, io.EOF) {
			code = exitcode.Unverified
			return fmt.Errorf("%s: %w", strings.Join(slices.Sorted(maps.Keys(left)), ", "), ErrNotFound)
		}
		if err != nil {
			code = exitcode.Unverified
			return err
		}
		output, wanted := left[name]
		if !wanted {
			continue
		}
		delete(left, name)
		if err := write(output, r); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func write(output string, content io.Reader) error {
	out, err := atomicfile.Create(output, 0o755)
	if err != nil {
		return err
	}
	defer out.Abort()
	if _, err := io.Copy(out, content); err != nil {
		return err
	}
	return out.Commit()
}
