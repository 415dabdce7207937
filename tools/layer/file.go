package layer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"github.com/kiln-build/kiln/tools/atomicfile"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// WriteFile writes a layer of the given entries to the path name. The file
// appears when it is complete and on the disk; an error or a cancelled
// context leaves nothing behind.
func WriteFile(ctx context.Context, name string, entries []Entry) (*Result, error) {
	res, err := writeFile(ctx, name, entries)
	if err != nil {
		return nil, fmt.Errorf("packing layer %s: %w", filepath.Base(name), ioError(err))
	}
	return res, nil
}

func writeFile(ctx context.Context, name string, entries []Entry) (*Result, error) {
	f, err := atomicfile.Create(name, 0o644)
	if err != nil {
		return nil, exitcode.With(exitcode.LocalIO, err)
	}
	defer f.Abort()
	res, err := Write(ctx, f, entries)
	if err != nil {
		return nil, err
	}
	return res, exitcode.With(exitcode.LocalIO, f.Commit())
}

// ioError gives system errors met while writing the code for local trouble.
func ioError(err error) error {
	var p *fs.PathError
	var no syscall.Errno
	if errors.As(err, &p) || errors.As(err, &no) {
		return exitcode.With(exitcode.LocalIO, err)
	}
	return err
}

// BoundMemory makes the garbage collector keep the process close to what is
// alive, which the default does not: it lets the heap double. For the main
// function of a command that packs layers.
func BoundMemory() {
	debug.SetGCPercent(10)
}
