package artifacts

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// InstallResult is what an installation did.
type InstallResult struct {
	Destination string `json:"destination"`
	// Installed files and symlinks are new or differ from what was there.
	Installed int   `json:"installed"`
	Unchanged int   `json:"unchanged"`
	Removed   int   `json:"removed"`
	Bytes     int64 `json:"bytes"`
}

// entry is one path of the artefacts.
type entry struct {
	name   string
	mode   fs.FileMode
	target string
}

// Install makes dest hold exactly the artefacts in source: it copies what is
// new, and removes what only an earlier installation brought. A file that no
// installation brought is never replaced.
func Install(ctx context.Context, source, dest string) (_ *InstallResult, err error) {
	entries, err := read(source, dest)
	if err != nil {
		return nil, err
	}
	i, err := open(ctx, dest, true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, i.Close()) }()
	old, err := i.read()
	if err != nil {
		return nil, err
	}
	if old == nil {
		old = &record{}
	}
	want := &record{Above: old.Above}
	for _, e := range entries {
		switch {
		case e.mode.IsDir():
			ours, err := i.mayMake(e, old)
			if err != nil {
				return nil, err
			}
			if ours {
				want.Directories = append(want.Directories, e.name)
			}
		case e.mode&fs.ModeSymlink != 0:
			if _, err := i.mayMake(e, old); err != nil {
				return nil, err
			}
			want.Symlinks = append(want.Symlinks, e.name)
		default:
			if _, err := i.mayMake(e, old); err != nil {
				return nil, err
			}
			want.Files = append(want.Files, e.name)
		}
	}
	// From here on the record covers all that may be there.
	if err := i.write(&record{
		Files:       slices.Concat(old.Files, want.Files),
		Symlinks:    slices.Concat(old.Symlinks, want.Symlinks),
		Directories: slices.Concat(old.Directories, want.Directories),
		Above:       old.Above,
	}); err != nil {
		return nil, err
	}

	res := &InstallResult{Destination: dest}
	changed := map[string]bool{}
	for _, e := range entries {
		if err := context.Cause(ctx); err != nil {
			return nil, fmt.Errorf("installing to %s: %w; run it again to go on from here", dest, err)
		}
		if err := i.put(source, e, res, changed); err != nil {
			return nil, fmt.Errorf("installing to %s: %w", dest, err)
		}
	}
	if err := i.removeStale(old, want, res, changed); err != nil {
		return nil, fmt.Errorf("removing an earlier version from %s: %w", dest, err)
	}
	for dir := range changed {
		// A directory of the earlier version may be gone.
		if err := i.sync(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return res, i.write(want)
}

// read lists the artefacts and refuses what must not reach a node.
func read(source, dest string) ([]entry, error) {
	var entries []entry
	err := filepath.WalkDir(source, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return localIO("reading the artefacts: %w", err)
		}
		name, err := filepath.Rel(source, p)
		if err != nil {
			return fmt.Errorf("reading the artefacts: %w", err)
		}
		info, err := d.Info()
		if err != nil {
			return localIO("reading the artefacts: %w", err)
		}
		e := entry{name: name, mode: info.Mode()}
		switch {
		case name == ".":
			if !info.IsDir() {
				return exitcode.With(exitcode.BadInput, fmt.Errorf("the artefacts in %s are no directory", source))
			}
			return nil
		case path.Base(name) == recordName || strings.HasPrefix(path.Base(name), partialPrefix):
			return exitcode.With(exitcode.Unverified, fmt.Errorf("artefact %s has a name that the installer needs", p))
		case e.mode&(fs.ModeSetuid|fs.ModeSetgid) != 0:
			return exitcode.With(exitcode.Unverified, fmt.Errorf("artefact %s has the setuid or setgid bit", p))
		case e.mode.IsDir(), e.mode.IsRegular():
		case e.mode&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return localIO("reading the artefacts: %w", err)
			}
			if e.target, err = retarget(name, target, dest); err != nil {
				return exitcode.With(exitcode.Unverified, fmt.Errorf("artefact %s: %w", p, err))
			}
		default:
			return exitcode.With(exitcode.Unverified, fmt.Errorf("artefact %s is neither a file, a directory nor a symlink", p))
		}
		entries = append(entries, e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(entries) == 0 {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("there are no artefacts in %s", source))
	}
	return entries, nil
}

// retarget gives a symlink's target on the node. An absolute one was made
// for /opt/kata and moves with the installation; none may lead out of it.
func retarget(name, target, dest string) (string, error) {
	if path.IsAbs(target) {
		below, ok := strings.CutPrefix(path.Clean(target), "/"+Below+"/")
		if !ok {
			return "", fmt.Errorf("symlink to %s leads out of /%s", target, Below)
		}
		return path.Join(dest, below), nil
	}
	if !filepath.IsLocal(path.Join(path.Dir(name), target)) {
		return "", fmt.Errorf("symlink to %s leads out of /%s", target, Below)
	}
	return target, nil
}

// mayMake tells whether the installation makes, or made, this path itself.
// It refuses to take over what somebody else put there; directories may be
// shared.
func (i *installation) mayMake(e entry, old *record) (ours bool, err error) {
	if slices.Contains(old.Files, e.name) || slices.Contains(old.Symlinks, e.name) || slices.Contains(old.Directories, e.name) {
		return true, nil
	}
	info, err := i.root.Lstat(e.name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		// A file on the way there was judged before this path.
		return true, nil
	} else if err != nil {
		return false, localIO("looking at %s: %w", filepath.Join(i.dir, e.name), err)
	}
	if e.mode.IsDir() && info.IsDir() {
		return false, nil
	}
	return false, exitcode.With(exitcode.BadInput, fmt.Errorf("%s is there already and was not installed by kata-deploy: move it away, or choose another prefix", filepath.Join(i.dir, e.name)))
}

func (i *installation) put(source string, e entry, res *InstallResult, changed map[string]bool) error {
	info, err := i.root.Lstat(e.name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return localIO("looking at %s: %w", e.name, err)
	}
	exists := err == nil
	if exists && info.IsDir() != e.mode.IsDir() {
		// The path was a directory in an earlier version and is a file
		// now, or the other way round.
		if err := i.removeTree(e.name, info); err != nil {
			return err
		}
		exists = false
	}
	dir := path.Dir(e.name)
	switch {
	case e.mode.IsDir():
		if exists {
			return nil
		}
		if err := i.root.Mkdir(e.name, 0o700); err != nil {
			return localIO("making directory %s: %w", e.name, err)
		}
		if err := i.root.Chmod(e.name, e.mode.Perm()); err != nil {
			return localIO("making directory %s: %w", e.name, err)
		}
		changed[dir] = true
		return nil
	case e.mode&fs.ModeSymlink != 0:
		if exists {
			if have, err := i.root.Readlink(e.name); err == nil && have == e.target {
				res.Unchanged++
				return nil
			}
		}
		tmp := partial(e.name)
		if err := ignoreAbsent(i.root.Remove(tmp)); err != nil {
			return localIO("removing what was left of %s: %w", e.name, err)
		}
		if err := i.root.Symlink(e.target, tmp); err != nil {
			return localIO("making symlink %s: %w", e.name, err)
		}
		if err := i.root.Rename(tmp, e.name); err != nil {
			return localIO("putting %s in place: %w", e.name, err)
		}
		res.Installed++
		changed[dir] = true
		return nil
	}

	from, err := os.Open(filepath.Join(source, e.name))
	if err != nil {
		return localIO("reading the artefacts: %w", err)
	}
	defer from.Close()
	if exists && info.Mode() == e.mode {
		same, err := i.same(from, e.name)
		if err != nil {
			return err
		}
		if same {
			res.Unchanged++
			return nil
		}
		if _, err := from.Seek(0, io.SeekStart); err != nil {
			return localIO("reading the artefacts: %w", err)
		}
	}
	if err := i.replace(e.name, e.mode.Perm(), func(f *os.File) error {
		n, err := f.ReadFrom(from)
		res.Bytes += n
		return err
	}); err != nil {
		return err
	}
	res.Installed++
	changed[dir] = true
	return nil
}

// same tells whether the file on the node has the artefact's content.
func (i *installation) same(from *os.File, name string) (bool, error) {
	have, err := i.root.Open(name)
	if err != nil {
		return false, localIO("reading %s: %w", name, err)
	}
	defer have.Close()
	a, b := bufio.NewReaderSize(from, 1<<20), bufio.NewReaderSize(have, 1<<20)
	for {
		x, errX := a.Peek(1 << 20)
		y, errY := b.Peek(1 << 20)
		if !bytes.Equal(x, y) {
			return false, nil
		}
		if errors.Is(errX, io.EOF) && errors.Is(errY, io.EOF) {
			return true, nil
		}
		for _, err := range []error{errX, errY} {
			if err != nil && !errors.Is(err, io.EOF) {
				return false, localIO("comparing %s: %w", name, err)
			}
		}
		for _, r := range []*bufio.Reader{a, b} {
			if _, err := r.Discard(len(x)); err != nil {
				return false, localIO("comparing %s: %w", name, err)
			}
		}
	}
}

// removeTree makes room for a path whose type changed. Only what the record
// covers can be there, or the directory is not empty and this fails.
func (i *installation) removeTree(name string, info fs.FileInfo) error {
	if info.IsDir() {
		old, err := i.read()
		if err != nil {
			return err
		}
		for _, p := range slices.Concat(old.Files, old.Symlinks) {
			if strings.HasPrefix(p, name+"/") {
				if err := ignoreAbsent(i.root.Remove(p)); err != nil {
					return localIO("removing %s: %w", p, err)
				}
			}
		}
		for _, p := range slices.Backward(old.Directories) {
			if strings.HasPrefix(p, name+"/") {
				if err := ignoreAbsent(i.root.Remove(p)); err != nil {
					return localIO("removing %s: %w", p, err)
				}
			}
		}
	}
	if err := i.root.Remove(name); err != nil {
		return localIO("removing %s: %w", name, err)
	}
	return nil
}

// removeStale removes what only the earlier version had.
func (i *installation) removeStale(old, want *record, res *InstallResult, changed map[string]bool) error {
	keep := map[string]bool{}
	for _, p := range slices.Concat(want.Files, want.Symlinks, want.Directories) {
		keep[p] = true
	}
	for _, p := range slices.Concat(old.Files, old.Symlinks) {
		if keep[p] {
			continue
		}
		removed, err := i.removeFile(p)
		if err != nil {
			return err
		}
		if removed {
			res.Removed++
			changed[path.Dir(p)] = true
		}
	}
	for _, p := range slices.Backward(old.Directories) {
		if keep[p] {
			continue
		}
		if kept, err := i.removeDir(p); err != nil {
			return err
		} else if kept {
			// Somebody else uses it. It stays ours, for the day when
			// it is empty.
			want.Directories = append(want.Directories, p)
		}
		changed[path.Dir(p)] = true
	}
	return nil
}
