// Package gobuild compiles the programs of a foreign Go module, whose vendored
// source tree comes as one tar, without network and without leaving a trace of
// where it was built.
package gobuild

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/buildinfo"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"sort"
	"strings"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// Options says what to build and with what.
type Options struct {
	// SDK is the root of the Go SDK.
	SDK string
	// Archive is a tar of a module's tree: go.mod, go.sum and vendor/.
	Archive string
	// Programs are the main packages to build.
	Programs []Program
	// Variables are string variables that the linker sets, by their full
	// name (import path, dot, name).
	Variables map[string]string
	// Tags are build tags.
	Tags []string
	// Sources, if set, is where the list of the modules that ended up in
	// the programs goes, as JSON that an SBOM is made of.
	Sources string
	// Env is the environment that the go command starts from.
	Env []string
	// TempDir is where the scratch directory is made; os.TempDir if empty.
	TempDir string
}

// Program is one main package and the file it becomes.
type Program struct {
	Package string
	Output  string
}

// Source is a module that is part of a program.
type Source struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	PURL    string `json:"purl"`
}

// Build compiles all programs of o in one run of the go command, so that they
// share the packages that they have in common.
func Build(ctx context.Context, o Options) (err error) {
	names, err := binaryNames(o.Programs)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp(o.TempDir, "gomod-")
	if err != nil {
		return fmt.Errorf("making a scratch directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()

	src := filepath.Join(work, "src")
	if err := unpackFile(o.Archive, src); err != nil {
		return err
	}
	bin := filepath.Join(work, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		return fmt.Errorf("making a scratch directory: %w", err)
	}
	args := []string{"build", "-trimpath", "-buildvcs=false", gcflags, "-ldflags=" + ldflags(o.Variables), "-o", bin + "/"}
	if len(o.Tags) > 0 {
		args = append(args, "-tags="+strings.Join(o.Tags, ","))
	}
	for _, p := range o.Programs {
		args = append(args, p.Package)
	}
	if err := runGo(ctx, o, work, src, args); err != nil {
		return err
	}

	sources := map[string]Source{}
	for i, p := range o.Programs {
		built := filepath.Join(bin, names[i])
		if err := checkStatic(built); err != nil {
			return fmt.Errorf("checking %s: %w", p.Package, err)
		}
		if err := collectSources(built, sources); err != nil {
			return fmt.Errorf("reading the modules of %s: %w", p.Package, err)
		}
		if err := install(built, p.Output); err != nil {
			return fmt.Errorf("installing %s: %w", p.Output, err)
		}
	}
	if o.Sources == "" {
		return nil
	}
	if err := writeSources(o.Sources, sources); err != nil {
		return fmt.Errorf("writing the list of modules: %w", err)
	}
	return nil
}

func runGo(ctx context.Context, o Options, work, src string, args []string) error {
	sdk, err := filepath.Abs(o.SDK)
	if err != nil {
		return fmt.Errorf("finding the Go SDK: %w", err)
	}
	goTool := filepath.Join(sdk, "bin", "go")
	cmd := exec.CommandContext(ctx, goTool, args...)
	cmd.Dir = src
	cmd.Env = append(append([]string{}, o.Env...),
		"GOROOT="+sdk,
		"GOCACHE="+filepath.Join(work, "cache"),
		"GOPATH="+filepath.Join(work, "path"),
		"GOENV=off",
		"GOWORK=off",
		"HOME="+work,
		"PATH="+filepath.Join(sdk, "bin"),
		// In a sandbox the SDK's files are symbolic links, the embedded
		// tables of the standard library's crypto packages too.
		"GODEBUG=embedfollowsymlinks=1",
	)
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	text := strings.TrimSpace(strings.ReplaceAll(string(out), src+"/", ""))
	code := exitcode.Failed
	if strings.Contains(text, "no space left on device") {
		code = exitcode.LocalIO
	}
	return exitcode.With(code, fmt.Errorf("running go build for %s: %w\n%s", packageList(o.Programs), err, text))
}

func packageList(programs []Program) string {
	names := make([]string, len(programs))
	for i, p := range programs {
		names[i] = p.Package
	}
	return strings.Join(names, ", ")
}

var majorRE = regexp.MustCompile(`^v[0-9]+$`)

// binaryNames predicts what the go command calls each program when it writes
// several into a directory.
func binaryNames(programs []Program) ([]string, error) {
	if len(programs) == 0 {
		return nil, exitcode.With(exitcode.BadInput, errors.New("no package to build"))
	}
	seen := map[string]string{}
	names := make([]string, len(programs))
	for i, p := range programs {
		name := path.Base(p.Package)
		if majorRE.MatchString(name) && path.Dir(p.Package) != "." {
			name = path.Base(path.Dir(p.Package))
		}
		if other, ok := seen[name]; ok {
			return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("packages %s and %s both become %q: build them by two targets", other, p.Package, name))
		}
		seen[name] = p.Package
		names[i] = name
	}
	return names, nil
}

// gcflags makes no DWARF, which ldflags would drop: a seventh of a compiler's time.
const gcflags = "-gcflags=all=-dwarf=false"

// ldflags drops symbol table and DWARF, which nobody looks at in a payload,
// and sets variables in a fixed order.
func ldflags(variables map[string]string) string {
	flags := []string{"-s", "-w"}
	for _, name := range sortedKeys(variables) {
		flags = append(flags, "-X", quote(name+"="+variables[name]))
	}
	return strings.Join(flags, " ")
}

// quote makes s one field for the go command, which knows both quotes but no
// escapes.
func quote(s string) string {
	switch {
	case !strings.ContainsAny(s, " \t\n\r'\""):
		return s
	case !strings.Contains(s, "'"):
		return "'" + s + "'"
	default:
		return `"` + s + `"`
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// checkStatic refuses a program that asks for a dynamic loader: it would run
// on some hosts only.
func checkStatic(name string) error {
	f, err := elf.Open(name)
	if err != nil {
		var format *elf.FormatError
		if errors.As(err, &format) {
			return nil // not for an ELF system: nothing to say about it
		}
		return err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("it is linked dynamically, so cgo came in in spite of CGO_ENABLED=0")
		}
	}
	return nil
}

// collectSources adds the modules that the linker really put into a program,
// which are fewer than those that are vendored.
func collectSources(name string, into map[string]Source) error {
	info, err := buildinfo.ReadFile(name)
	if err != nil {
		return err
	}
	add := func(module, version string) {
		into[module] = Source{Name: module, Version: version, PURL: "pkg:golang/" + module + "@" + purlEscape(version)}
	}
	add("std", strings.TrimPrefix(strings.Fields(info.GoVersion)[0], "go"))
	// The main package's own module counts, unless it is the tree's, which has
	// no version.
	modules := info.Deps
	if info.Main.Version != "" && info.Main.Version != "(devel)" {
		modules = append([]*debug.Module{&info.Main}, modules...)
	}
	for _, dep := range modules {
		if dep.Replace != nil {
			dep = dep.Replace
		}
		if strings.HasPrefix(dep.Path, "./") || strings.HasPrefix(dep.Path, "../") {
			continue // a directory of the tree itself has no name elsewhere
		}
		add(dep.Path, dep.Version)
	}
	return nil
}

// purlEscape escapes what versions may hold and package URLs reserve.
func purlEscape(version string) string {
	return strings.ReplaceAll(version, "+", "%2B")
}

func writeSources(name string, sources map[string]Source) error {
	list := make([]Source, 0, len(sources))
	for _, key := range sortedKeys(sources) {
		list = append(list, sources[key])
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(list); err != nil {
		return err
	}
	return os.WriteFile(name, buf.Bytes(), 0o644)
}

func install(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return errors.Join(err, out.Close())
	}
	return out.Close()
}

func unpackFile(name, dir string) error {
	f, err := os.Open(name)
	if err != nil {
		return exitcode.With(exitcode.BadInput, fmt.Errorf("opening the module's archive: %w", err))
	}
	defer f.Close()
	if err := unpack(f, dir); err != nil {
		return fmt.Errorf("unpacking %s: %w", name, err)
	}
	return nil
}

// unpack writes the regular files of a tar under dir. Modules hold nothing
// else, so anything else is an error.
func unpack(r io.Reader, dir string) error {
	tr := tar.NewReader(r)
	made := map[string]bool{}
	files := 0
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return exitcode.With(exitcode.BadInput, err)
		}
		name := path.Clean(h.Name)
		if !filepath.IsLocal(name) {
			return exitcode.With(exitcode.BadInput, fmt.Errorf("%q leads out of the archive", h.Name))
		}
		switch h.Typeflag {
		case tar.TypeDir:
			continue
		case tar.TypeReg:
		default:
			return exitcode.With(exitcode.BadInput, fmt.Errorf("%q is neither a file nor a directory", h.Name))
		}
		to := filepath.Join(dir, name)
		if parent := filepath.Dir(to); !made[parent] {
			if err := os.MkdirAll(parent, 0o755); err != nil {
				return err
			}
			made[parent] = true
		}
		if err := writeFile(to, tr); err != nil {
			return err
		}
		files++
	}
	if files == 0 {
		return exitcode.With(exitcode.BadInput, errors.New("there is no file in it"))
	}
	return nil
}

func writeFile(name string, r io.Reader) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, r); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}
