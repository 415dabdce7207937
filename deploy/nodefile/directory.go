package nodefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

const (
	// marker is a file in every directory that was made. Installations share
	// directories: the last one that leaves takes them away.
	marker = ".made-by-kata-deploy"
	// partial begins the name of a directory that comes or goes.
	partial = ".kata-deploy-partial-"
)

func partialOf(dir string) string {
	return filepath.Join(filepath.Dir(dir), partial+filepath.Base(dir))
}

// MakeDir makes a directory and those that lead to it. Each appears together with
// its marker.
func MakeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return localIO("looking at a directory", err)
	}
	if err := MakeDir(filepath.Dir(dir)); err != nil {
		return err
	}
	coming := partialOf(dir)
	if err := os.Mkdir(coming, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return localIO("making a directory", err)
	}
	if _, err := Replace(filepath.Join(coming, marker), nil); err != nil {
		return err
	}
	if err := os.Rename(coming, dir); err != nil {
		return localIO("making a directory", err)
	}
	return nil
}

// RemoveDir removes a directory, and those that lead to it, as far as they were
// made here and nothing else is in them.
func RemoveDir(dir string) error {
	// What was interrupted as it came or went. It is looked for first: where nothing
	// can be written, as outside of the host's directories in a container, removing
	// what is not there fails, too.
	if _, err := os.Lstat(partialOf(dir)); err == nil {
		if err := os.RemoveAll(partialOf(dir)); err != nil {
			return localIO("removing a directory", err)
		}
	}
	if err := sweep(dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return RemoveDir(filepath.Dir(dir))
	} else if err != nil {
		return localIO("looking at a directory", err)
	}
	if len(entries) != 1 || entries[0].Name() != marker {
		return nil
	}
	going := partialOf(dir)
	if err := os.Rename(dir, going); errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.EXDEV) || errors.Is(err, syscall.EROFS) {
		// It is mounted here, and can only be emptied.
		_, err := Remove(filepath.Join(dir, marker))
		return err
	} else if err != nil {
		return localIO("removing a directory", err)
	}
	if err := os.RemoveAll(going); err != nil {
		return localIO("removing a directory", err)
	}
	return RemoveDir(filepath.Dir(dir))
}
