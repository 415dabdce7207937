package layer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// Type is the kind of a path in a layer. There are no others: a component
// has no business shipping devices, sockets or hard links.
type Type int

// The types of paths.
const (
	Regular Type = iota
	Dir
	Symlink
)

// String gives the name used in component metadata.
func (t Type) String() string {
	switch t {
	case Dir:
		return "dir"
	case Symlink:
		return "symlink"
	default:
		return "file"
	}
}

// Modes that Walk and the parents of entries get. Ownership is always root,
// so nothing finer would mean anything.
const (
	ModeFile       fs.FileMode = 0o644
	ModeExecutable fs.FileMode = 0o755
	ModeDir        fs.FileMode = 0o755
	modeSymlink    fs.FileMode = 0o777
)

// Entry is one path that goes into a layer. Parents need no entry.
type Entry struct {
	// Path is relative to the layer's root, with slashes.
	Path string
	Type Type
	// Mode holds permission bits only. It is ignored for symlinks.
	Mode fs.FileMode
	// Source names the file with a regular file's content.
	Source string
	// Target is a symlink's.
	Target string
	// Xattrs are the extended attributes to record, none by default.
	Xattrs map[string]string
}

func (e *Entry) origin() string {
	switch e.Type {
	case Symlink:
		return "a symlink to " + e.Target
	case Dir:
		if e.Source == "" {
			return "a directory"
		}
		return "the directory " + e.Source
	default:
		return e.Source
	}
}

// plan checks entries, adds their parents and sorts them.
func plan(entries []Entry) ([]Entry, error) {
	byPath := make(map[string]*Entry, len(entries))
	var errs []error
	for i := range entries {
		e := entries[i]
		if err := checkPath(e.Path); err != nil {
			errs = append(errs, fmt.Errorf("%w (from %s)", err, e.origin()))
			continue
		}
		switch {
		case e.Type == Symlink && e.Target == "":
			errs = append(errs, fmt.Errorf("symlink %s has no target", e.Path))
		case e.Type == Symlink:
			e.Mode = modeSymlink
		case e.Mode&^fs.ModePerm != 0:
			errs = append(errs, fmt.Errorf("%s has mode %s: setuid, setgid and sticky bits have no place in a layer", e.Path, e.Mode))
		}
		if old := byPath[e.Path]; old != nil {
			// Two trees may share a directory, never a file.
			if old.Type == Dir && e.Type == Dir && old.Mode == e.Mode {
				continue
			}
			errs = append(errs, fmt.Errorf("%s comes from two sources: %s, and %s", e.Path, old.origin(), e.origin()))
			continue
		}
		byPath[e.Path] = &e
	}

	planned := make([]Entry, 0, len(byPath)+len(byPath)/4)
	parents := make(map[string]bool)
	for _, e := range byPath {
		for dir := path.Dir(e.Path); dir != "." && !parents[dir]; dir = path.Dir(dir) {
			switch at := byPath[dir]; {
			case at == nil:
				planned = append(planned, Entry{Path: dir, Type: Dir, Mode: ModeDir})
				parents[dir] = true
			case at.Type != Dir:
				// Not remembered as a parent, so that every path below is named.
				errs = append(errs, fmt.Errorf("%s (%s) lies below %s, which is %s and not a directory", e.Path, e.origin(), dir, at.origin()))
			default:
				parents[dir] = true
			}
		}
		planned = append(planned, *e)
	}
	if len(errs) > 0 {
		slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
		return nil, errors.Join(errs...)
	}
	slices.SortFunc(planned, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	return planned, nil
}

// checkPath refuses paths that would land outside of the directory that a
// layer is unpacked into, or that name one place in two ways.
func checkPath(p string) error {
	switch {
	case p == "" || p == ".":
		return errors.New("a path is empty")
	case path.IsAbs(p):
		return fmt.Errorf("path %q is absolute", p)
	case p == ".." || strings.HasPrefix(p, "../") || strings.HasPrefix(path.Clean(p), "../") || path.Clean(p) == "..":
		return fmt.Errorf("path %q leaves the layer", p)
	case path.Clean(p) != p:
		return fmt.Errorf("path %q is not clean: write %q", p, path.Clean(p))
	case strings.ContainsAny(p, "\x00\n"):
		return fmt.Errorf("path %q holds a newline or a zero byte", p)
	}
	return nil
}

// Walk lists a directory tree as entries below prefix. Modes become 0755
// for directories and for what anyone may execute, else 0644, so that the
// umask of whoever made the tree does not count. Symlinks are kept, not
// followed. Anything that a layer cannot hold is an error that names it.
func Walk(dir, prefix string) ([]Entry, error) {
	var entries []Entry
	var bad []error
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		e := Entry{Path: path.Join(prefix, filepath.ToSlash(rel)), Source: name}
		if e.Path == "." {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := info.Mode()
		if special := mode & (fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky); special != 0 {
			bad = append(bad, fmt.Errorf("%s has mode %s: setuid, setgid and sticky bits have no place in a layer", e.Path, mode))
			return nil
		}
		switch mode.Type() {
		case fs.ModeDir:
			e.Type, e.Mode = Dir, ModeDir
		case fs.ModeSymlink:
			e.Type = Symlink
			if e.Target, err = os.Readlink(name); err != nil {
				return err
			}
		case 0:
			e.Mode = ModeFile
			if mode&0o111 != 0 {
				e.Mode = ModeExecutable
			}
		default:
			bad = append(bad, fmt.Errorf("%s is neither a file, a directory nor a symlink (%s)", e.Path, mode.Type()))
			return nil
		}
		entries = append(entries, e)
		return nil
	})
	if err != nil {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("reading tree %s: %w", dir, err))
	}
	if len(bad) > 0 {
		return nil, exitcode.With(exitcode.BadInput, errors.Join(bad...))
	}
	return entries, nil
}
