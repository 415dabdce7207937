// Package lint checks the form of a source tree: Go files against gofmt,
// Starlark files against buildifier. What Go code means is checked elsewhere; see
// package judge.
package lint

import (
	"bytes"
	"fmt"
	"go/format"
	"io/fs"
	"path"
	"slices"
	"sort"
	"strings"

	"github.com/bazelbuild/buildtools/build"
	"github.com/bazelbuild/buildtools/warn"
)

// A Finding is one thing that is wrong with one file.
type Finding struct {
	// Path is relative to the root of the tree.
	Path string
	// Line counts from 1; 0 where the whole file is meant.
	Line int
	// Message says what is wrong and what to do.
	Message string
}

func (f Finding) String() string {
	if f.Line == 0 {
		return fmt.Sprintf("%s: %s", f.Path, f.Message)
	}
	return fmt.Sprintf("%s:%d: %s", f.Path, f.Line, f.Message)
}

// Skipped says that a folder of this name holds no source of the project.
func Skipped(name string) bool {
	return name == ".git" || name == "testdata" || strings.HasPrefix(name, "bazel-")
}

// Tree checks every Go and Starlark file below the root of tree. The findings
// are sorted by path. An error means that the tree could not be read.
func Tree(tree fs.FS) ([]Finding, error) {
	var findings []Finding
	err := fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name != "." && Skipped(entry.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		if !entry.Type().IsRegular() || Formatter(name) == nil {
			return nil
		}
		content, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		findings = append(findings, check(name, content)...)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the source tree: %w", err)
	}
	sort.SliceStable(findings, func(i, j int) bool { return findings[i].Path < findings[j].Path })
	return findings, nil
}

// Formatter gives the function that formats the named file, or nil for a file
// that is not a source or is generated.
func Formatter(name string) func(content []byte) ([]byte, error) {
	switch base := path.Base(name); {
	case strings.HasSuffix(base, ".pb.go"):
		return nil
	case strings.HasSuffix(base, ".go"):
		return format.Source
	case isStarlark(base):
		return func(content []byte) ([]byte, error) {
			file, err := build.Parse(name, content)
			if err != nil {
				return nil, err
			}
			return build.Format(file), nil
		}
	}
	return nil
}

func isStarlark(base string) bool {
	return strings.HasSuffix(base, ".bzl") || base == "BUILD.bazel" || base == "MODULE.bazel" || base == "WORKSPACE"
}

func check(name string, content []byte) []Finding {
	formatter := Formatter(name)
	if formatter == nil {
		return nil
	}
	formatted, err := formatter(content)
	if err != nil {
		return []Finding{{Path: name, Message: err.Error()}}
	}
	var findings []Finding
	if isStarlark(path.Base(name)) {
		findings = starlarkWarnings(name, content)
	}
	if !bytes.Equal(formatted, content) {
		findings = append(findings, Finding{
			Path:    name,
			Line:    firstDifference(formatted, content),
			Message: "not formatted; run bazel run //tools/lint/fix",
		})
	}
	return findings
}

// warnings are those that buildifier has on by default, but for one: Kiln's own
// repository rules and their tests write canonical names of repositories, which
// buildifier warns of wherever they stand in a string.
func warnings() []string {
	return slices.DeleteFunc(slices.Clone(warn.DefaultWarnings), func(name string) bool {
		return name == "canonical-repository"
	})
}

func starlarkWarnings(name string, content []byte) []Finding {
	file, err := build.Parse(name, content)
	if err != nil {
		return nil // Formatting it has said so already.
	}
	file.Path = path.Base(name)
	file.Pkg = strings.TrimPrefix(path.Dir(name), ".")
	var findings []Finding
	for _, w := range warn.FileWarnings(file, warnings(), nil, warn.ModeWarn, nil) {
		findings = append(findings, Finding{
			Path:    name,
			Line:    w.Start.Line,
			Message: fmt.Sprintf("%s (%s)", w.Message, w.Category),
		})
	}
	return findings
}

// firstDifference gives the number of the first line of got that differs.
func firstDifference(want, got []byte) int {
	wanted := bytes.Split(want, []byte("\n"))
	for i, line := range bytes.Split(got, []byte("\n")) {
		if i >= len(wanted) || !bytes.Equal(wanted[i], line) {
			return i + 1
		}
	}
	return len(bytes.Split(got, []byte("\n")))
}
