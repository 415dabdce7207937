// Package checkedin keeps files that are made from others, but are in the source
// tree all the same since people use them without Bazel.
package checkedin

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/kiln-build/kiln/tools/atomicfile"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// File is one such file.
type File struct {
	// Name is its path in the source tree.
	Name string
	// Made is the path of what was made for it.
	Made string
}

// Parse reads NAME=MADE. The function find gives the path of what was made.
func Parse(text string, find func(string) (string, error)) (File, error) {
	name, made, ok := strings.Cut(text, "=")
	if !ok || !filepath.IsLocal(name) || made == "" {
		return File{}, exitcode.With(exitcode.BadInput, fmt.Errorf("%q is not NAME=MADE, with a name in the source tree", text))
	}
	path, err := find(made)
	if err != nil {
		return File{}, exitcode.With(exitcode.BadInput, fmt.Errorf("finding what was made for %s: %w", name, err))
	}
	return File{Name: name, Made: path}, nil
}

// Stale gives the names of the files in the tree at root that are not what was
// made.
func Stale(root string, files []File) ([]string, error) {
	var stale []string
	for _, f := range files {
		made, err := os.ReadFile(f.Made)
		if err != nil {
			return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("reading what was made for %s: %w", f.Name, err))
		}
		there, err := os.ReadFile(filepath.Join(root, f.Name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("reading a file of the source tree: %w", err))
		}
		if err != nil || !bytes.Equal(made, there) {
			stale = append(stale, f.Name)
		}
	}
	return stale, nil
}

// Update replaces the files in the tree at root that are not what was made, and
// gives their names.
func Update(root string, files []File) ([]string, error) {
	stale, err := Stale(root, files)
	if err != nil {
		return nil, err
	}
	made := map[string]string{}
	for _, f := range files {
		made[f.Name] = f.Made
	}
	for i, name := range stale {
		content, err := os.ReadFile(made[name])
		if err != nil {
			return stale[:i], exitcode.With(exitcode.LocalIO, fmt.Errorf("reading what was made for %s: %w", name, err))
		}
		if err := atomicfile.WriteFile(filepath.Join(root, name), content, 0o644); err != nil {
			return stale[:i], exitcode.With(exitcode.LocalIO, err)
		}
	}
	return stale, nil
}
