// Command fix formats every Go and Starlark file of the workspace.
//
// Usage: bazel run //tools/lint/fix
package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kiln-build/kiln/tools/lint"
)

func main() {
	root := os.Getenv("BUILD_WORKSPACE_DIRECTORY")
	if root == "" {
		root = "."
	}
	if err := fix(root); err != nil {
		fmt.Fprintln(os.Stderr, "fix:", err)
		os.Exit(1)
	}
}

func fix(root string) error {
	return filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name != root && lint.Skipped(entry.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		if !entry.Type().IsRegular() {
			return nil
		}
		formatter := lint.Formatter(name)
		if formatter == nil {
			return nil
		}
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		formatted, err := formatter(content)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if bytes.Equal(formatted, content) {
			return nil
		}
		fmt.Println("formatted", name)
		info, err := entry.Info()
		if err != nil {
			return err
		}
		temporary := name + ".fix"
		if err := os.WriteFile(temporary, formatted, info.Mode().Perm()); err != nil {
			return err
		}
		return os.Rename(temporary, name)
	})
}
