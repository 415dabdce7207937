// Package atomicfile writes files that are either wholly there or not there
// at all: content goes into a file beside the destination, is synced, and is
// then renamed over it. An interrupted writer leaves the old content in
// place, and a process that has the old file open keeps it.
package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// prefix marks files that are being written. Whoever owns a directory may
// remove such files when nobody writes to it.
const prefix = ".kiln-partial-"

// IsPartial tells whether a file name is that of a file that was being
// written, so that the owner of a directory can sweep up after a crash.
func IsPartial(name string) bool {
	return strings.HasPrefix(filepath.Base(name), prefix)
}

// File is a file that is being written. Exactly one of Commit and Abort
// ends it; Abort after Commit does nothing.
type File struct {
	f    *os.File
	path string
	done bool
}

// Create starts to write the file at path. Its directory must exist.
func Create(path string, mode os.FileMode) (*File, error) {
	f, err := os.CreateTemp(filepath.Dir(path), prefix+"*")
	if err != nil {
		return nil, fmt.Errorf("creating a file beside %s: %w", path, err)
	}
	// CreateTemp asks for 0600, and a umask must not decide about a mode
	// that was asked for.
	if err := f.Chmod(mode); err != nil {
		return nil, errors.Join(fmt.Errorf("setting the mode of %s: %w", f.Name(), err), f.Close(), os.Remove(f.Name()))
	}
	return &File{f: f, path: path}, nil
}

// Write appends to the file.
func (a *File) Write(p []byte) (int, error) { return a.f.Write(p) }

// ReadFrom lets io.Copy use the kernel to move bytes between files.
func (a *File) ReadFrom(r io.Reader) (int64, error) { return a.f.ReadFrom(r) }

// Commit makes what was written appear at the file's path.
func (a *File) Commit() error { return a.CommitAs(a.path) }

// CommitAs makes what was written appear at another path of the same file
// system, for content whose name is known only when it is complete.
func (a *File) CommitAs(path string) (err error) {
	if a.done {
		return fmt.Errorf("committing %s: it has ended already", path)
	}
	a.done = true
	defer func() {
		if err != nil {
			_ = os.Remove(a.f.Name())
		}
	}()
	if err := a.f.Sync(); err != nil {
		return errors.Join(fmt.Errorf("syncing %s: %w", a.f.Name(), err), a.f.Close())
	}
	if err := a.f.Close(); err != nil {
		return fmt.Errorf("closing %s: %w", a.f.Name(), err)
	}
	if err := os.Rename(a.f.Name(), path); err != nil {
		return fmt.Errorf("putting %s in place: %w", path, err)
	}
	return SyncDir(filepath.Dir(path))
}

// Abort throws away what was written.
func (a *File) Abort() {
	if a.done {
		return
	}
	a.done = true
	_ = a.f.Close()
	_ = os.Remove(a.f.Name())
}

// WriteFile writes data to the file at path in one step.
func WriteFile(path string, data []byte, mode os.FileMode) error {
	f, err := Create(path, mode)
	if err != nil {
		return err
	}
	defer f.Abort()
	if _, err := f.Write(data); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return f.Commit()
}

// SyncDir makes the names in a directory survive a crash of the machine.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("opening %s to sync it: %w", dir, err)
	}
	if err := d.Sync(); err != nil {
		return errors.Join(fmt.Errorf("syncing %s: %w", dir, err), d.Close())
	}
	return d.Close()
}
