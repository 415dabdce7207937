package agentlayer

import (
	"fmt"
	"io"
	"os"

	"github.com/kiln-build/kiln/tools/atomicfile"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// Unpack takes one file out of the layer that is in a file, as a program.
func Unpack(layer, name, output string) (err error) {
	code := exitcode.LocalIO
	defer func() {
		if err != nil {
			err = exitcode.With(code, fmt.Errorf("taking %s out of %s: %w", name, layer, err))
		}
	}()
	in, err := os.Open(layer)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	content, _, err := Find(in, name)
	if err != nil {
		code = exitcode.Unverified
		return err
	}
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
