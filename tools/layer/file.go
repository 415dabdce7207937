package layer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// Atomically lets fill write a file that appears at the path name only when
// it is complete and on the disk. If anything fails, what was written goes
// away, and what was at name before stays.
func Atomically(name string, fill func(*os.File) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return exitcode.With(exitcode.LocalIO, fmt.Errorf("creating %s: %w", name, err))
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := fill(f); err != nil {
		return ioError(err)
	}
	if err := f.Chmod(0o644); err != nil {
		return exitcode.With(exitcode.LocalIO, fmt.Errorf("finishing %s: %w", name, err))
	}
	if err := f.Sync(); err != nil {
		return exitcode.With(exitcode.LocalIO, fmt.Errorf("finishing %s: %w", name, err))
	}
	if err := f.Close(); err != nil {
		return exitcode.With(exitcode.LocalIO, fmt.Errorf("finishing %s: %w", name, err))
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return exitcode.With(exitcode.LocalIO, fmt.Errorf("finishing %s: %w", name, err))
	}
	return nil
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

// flusher writes to a file and asks the kernel to start writing to the disk
// at once, so that the sync at the end has little left to wait for.
type flusher struct {
	f  *os.File
	at int64
}

func (w *flusher) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	if n > 0 {
		const writeOut = 2 // SYNC_FILE_RANGE_WRITE
		// A file system without it loses the head start, nothing else.
		_ = syscall.SyncFileRange(int(w.f.Fd()), w.at, int64(n), writeOut)
		w.at += int64(n)
	}
	return n, err
}

// BoundMemory makes the garbage collector keep the process close to what is
// alive, which the default does not: it lets the heap double. For the main
// function of a command that packs layers.
func BoundMemory() {
	debug.SetGCPercent(10)
}
