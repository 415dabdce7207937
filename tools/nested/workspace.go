package nested

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// CopyWorkspace copies the files that git tracks, and those it does not know yet
// and does not ignore, as they are in the working tree. Without git it copies
// everything but bazel's links.
func CopyWorkspace(ctx context.Context, from, to string) error {
	names, err := gitFiles(ctx, from)
	if err != nil {
		names, err = allFiles(from)
	}
	if err != nil {
		return fmt.Errorf("copying the workspace: %w", err)
	}
	for _, name := range names {
		source := filepath.Join(from, name)
		info, err := os.Lstat(source)
		if os.IsNotExist(err) {
			continue // Deleted, but not committed yet.
		} else if err != nil {
			return fmt.Errorf("copying the workspace: %w", err)
		}
		target := filepath.Join(to, name)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return fmt.Errorf("copying the workspace: %w", err)
		}
		content, err := os.ReadFile(source)
		if err != nil {
			return fmt.Errorf("copying the workspace: %w", err)
		}
		if err := os.WriteFile(target, content, info.Mode().Perm()); err != nil {
			return fmt.Errorf("copying the workspace: %w", err)
		}
	}
	return nil
}

func gitFiles(ctx context.Context, dir string) ([]string, error) {
	cmd := exec.CommandContext(ctx, "git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("asking git for the files of %s: %w", dir, err)
	}
	return strings.FieldsFunc(string(out), func(r rune) bool { return r == 0 }), nil
}

func allFiles(dir string) ([]string, error) {
	var names []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.Type().IsRegular() {
			name, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			names = append(names, name)
		}
		return nil
	})
	return names, err
}

// RemoveAll removes a folder of Bazel's, in which folders may not be writable.
func RemoveAll(dir string) error {
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			// What cannot be made writable cannot be removed, and that says so.
			_ = os.Chmod(path, 0o755)
		}
		return nil
	})
	return os.RemoveAll(dir)
}

// WorkDir makes a folder with a name of its own, for workspaces and output bases,
// in dir. Without one it is made in Kiln's cache directory: not below /tmp, of which
// Bazel's sandbox shows an action nothing.
func WorkDir(dir, pattern string) (string, error) {
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("finding the cache directory: %w", err)
		}
		dir = filepath.Join(cache, "kiln", "work")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("making a folder to work in: %w", err)
	}
	work, err := os.MkdirTemp(dir, pattern)
	if err != nil {
		return "", fmt.Errorf("making a folder to work in: %w", err)
	}
	return work, nil
}
