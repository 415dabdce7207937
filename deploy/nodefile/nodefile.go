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
// Its mode stays.
func Replace(name string, content []byte) (changed bool, err error) {
	mode := fs.FileMode(0o644)
	// A link stays one.
	if real, err := filepath.EvalSymlinks(name); err == nil {
		name = real
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

// Remove removes a file, if it is there.
func Remove(name string) (removed bool, err error) {
	if err := os.Remove(name); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, localIO("removing a file", err)
	}
	return true, nil
}

func localIO(what string, err error) error {
	return exitcode.With(exitcode.LocalIO, fmt.Errorf("%s: %w", what, err))
}
