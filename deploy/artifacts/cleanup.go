package artifacts

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/kiln-build/kiln/deploy/nodefile"
)

// CleanupResult is what cleaning up did.
type CleanupResult struct {
	Destination string `json:"destination"`
	Removed     int    `json:"removed"`
	// Kept are directories that the installation made and that hold what
	// somebody else put there.
	Kept []string `json:"kept"`
}

// Cleanup removes exactly what was installed in dest. Without an
// installation it does nothing.
func Cleanup(ctx context.Context, dest string) (_ *CleanupResult, err error) {
	res := &CleanupResult{Destination: dest, Kept: []string{}}
	i, err := open(ctx, dest, false)
	if errors.Is(err, fs.ErrNotExist) {
		return res, removeAbove(dest)
	} else if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, i.Close()) }()
	r, err := i.read()
	if err != nil || r == nil {
		return res, err
	}
	for _, p := range slices.Concat(r.Files, r.Symlinks) {
		if err := context.Cause(ctx); err != nil {
			return nil, fmt.Errorf("cleaning %s up: %w; run it again to go on from here", dest, err)
		}
		removed, err := i.removeFile(p)
		if err != nil {
			return nil, fmt.Errorf("cleaning %s up: %w", dest, err)
		}
		if removed {
			res.Removed++
		}
	}
	for _, p := range slices.Backward(r.Directories) {
		kept, err := i.removeDir(p)
		if err != nil {
			return nil, fmt.Errorf("cleaning %s up: %w", dest, err)
		}
		if kept {
			res.Kept = append(res.Kept, filepath.Join(dest, p))
		}
	}
	// The record goes last: until then another call can go on.
	for _, p := range []string{partial(recordName), recordName} {
		if err := ignoreAbsent(i.root.Remove(p)); err != nil {
			return nil, localIO("removing the installation's record: %w", err)
		}
	}
	for _, p := range slices.Backward(r.Above) {
		if err := os.Remove(p); errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EBUSY) {
			res.Kept = append(res.Kept, p)
			break
		} else if ignoreAbsent(err) != nil {
			return nil, localIO("removing %s: %w", p, err)
		}
	}
	return res, removeAbove(dest)
}

// removeAbove removes what was made to lead to an installation, unless it leads to
// another one or somebody else's files are in it, and what an interrupted run left.
func removeAbove(dest string) error {
	// It is looked for first: where nothing can be written, removing what is not
	// there fails, too.
	if _, err := os.Lstat(partial(dest)); err == nil {
		if err := os.RemoveAll(partial(dest)); err != nil {
			return localIO("removing what was left of %s: %w", dest, err)
		}
	}
	return nodefile.RemoveDir(filepath.Dir(dest))
}

// removeFile removes a file or symlink, and what an interrupted run left
// beside it. A directory in its place is somebody else's.
func (i *installation) removeFile(p string) (removed bool, err error) {
	if err := ignoreAbsent(ignoreNotDir(i.root.Remove(partial(p)))); err != nil {
		return false, localIO("removing what was left of %s: %w", p, err)
	}
	info, err := i.root.Lstat(p)
	if ignoreAbsent(ignoreNotDir(err)) != nil {
		return false, localIO("looking at %s: %w", p, err)
	} else if err != nil || info.IsDir() {
		return false, nil
	}
	if err := i.root.Remove(p); err != nil {
		return false, localIO("removing %s: %w", p, err)
	}
	return true, nil
}

// removeDir removes a directory unless somebody else's files are in it.
func (i *installation) removeDir(p string) (kept bool, err error) {
	info, err := i.root.Lstat(p)
	if ignoreAbsent(ignoreNotDir(err)) != nil {
		return false, localIO("looking at %s: %w", p, err)
	} else if err != nil || !info.IsDir() {
		return false, nil
	}
	err = i.root.Remove(p)
	if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EBUSY) {
		return true, nil
	} else if err != nil {
		return false, localIO("removing directory %s: %w", p, err)
	}
	return false, nil
}

// ignoreNotDir takes a path through something that is no directory any more
// for absent.
func ignoreNotDir(err error) error {
	if errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	return err
}
