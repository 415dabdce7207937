// Package nodefile changes files of a node so that, whenever it is interrupted, each
// is as it was or as it is to be, and takes away again what it made.
package nodefile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/kiln-build/kiln/tools/atomicfile"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// Read gives nil for a file that is not there, and only then.
func Read(name string) ([]byte, error) {
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, localIO("reading a file", err)
	}
	if data == nil {
		data = []byte{}
	}
	return data, nil
}

// Replace gives a file another content in one step, unless it has that already.
// Its mode stays. What was left beside it by an installer that was killed goes:
// nobody else writes there, since the node is locked.
func Replace(name string, content []byte) (changed bool, err error) {
	mode := fs.FileMode(0o644)
	// A link stays one.
	if real, err := filepath.EvalSymlinks(name); err == nil {
		name = real
	}
	if err := sweep(filepath.Dir(name)); err != nil {
		return false, err
	}
	if info, err := os.Stat(name); err == nil {
		mode = info.Mode().Perm()
		current, err := Read(name)
		if err != nil {
			return false, err
		}
		if bytes.Equal(current, content) {
			return false, nil
		}
	}
	if err := atomicfile.WriteFile(name, content, mode); err != nil {
		return false, exitcode.With(exitcode.LocalIO, err)
	}
	return true, nil
}

// Remove removes a file, if it is there, and what was left beside it.
func Remove(name string) (removed bool, err error) {
	if err := sweep(filepath.Dir(name)); err != nil {
		return false, err
	}
	// Where nothing can be written, removing what is not there fails, too.
	if _, err := os.Lstat(name); errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return false, nil
	}
	if err := os.Remove(name); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, localIO("removing a file", err)
	}
	return true, nil
}

// Writable tells whether a file or a directory could be made at a path, as far as that
// can be told without making it.
func Writable(path string) error {
	for above := path; ; above = filepath.Dir(above) {
		err := syscall.Access(above, accessWrite)
		if err == nil {
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) || above == filepath.Dir(above) {
			return exitcode.With(exitcode.LocalIO, fmt.Errorf("%s cannot be written to: %w", above, err))
		}
	}
}

// accessWrite is W_OK of access(2).
const accessWrite = 2

// sweep removes files that were being written when an installer was killed. Some
// runtimes read every file of a directory.
func sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	} else if err != nil {
		return localIO("looking at a directory", err)
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || !atomicfile.IsPartial(e.Name()) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return localIO("removing what was left of a file", err)
		}
	}
	return nil
}

func localIO(what string, err error) error {
	return exitcode.With(exitcode.LocalIO, fmt.Errorf("%s: %w", what, err))
}
