// Package build makes a component by running a script in a build root.
package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/kiln-build/kiln/tools/atomicfile"
	"github.com/kiln-build/kiln/tools/component/assemble"
	"github.com/kiln-build/kiln/tools/component/sandbox"
	"github.com/kiln-build/kiln/tools/exitcode"
	"github.com/kiln-build/kiln/tools/layer"
)

// What a script finds. Everything has a fixed place, so that no path of the
// machine can end up in what it builds.
const (
	hostname   = "kiln"
	scriptPath = "/build.sh"
	buildDir   = "/build"
	srcDir     = "/src"
	destDir    = "/dest"
	outDir     = "/out"

	// epoch is 2025-01-01, as all of Kiln's builds have.
	epoch = "1735689600"

	logLines = 60
)

// Job is one component to build.
type Job struct {
	assemble.Component
	// Root is the tar of the build root.
	Root string
	// Script is run by bash in it.
	Script string
	// Srcs are files and directories by their names below /src.
	Srcs map[string]string
	// Env is added to the script's environment.
	Env map[string]string
	// Outputs are destinations of files by their paths below $OUT.
	Outputs map[string]string
	// Jobs is how many jobs the script is told to run at once; 0 is the
	// number of CPUs.
	Jobs int
	// WorkDir is where the root is unpacked and removed again. It needs as
	// much room as the root and the build.
	WorkDir string
	// Log gets the end of what a failed script printed.
	Log io.Writer
}

// Run builds a component. On an error, no result appears. Whatever happens,
// nothing stays in the work directory.
func Run(ctx context.Context, j Job) (err error) {
	if err := j.check(); err != nil {
		return exitcode.With(exitcode.BadInput, err)
	}
	work, err := os.MkdirTemp(j.WorkDir, ".component-*")
	if err != nil {
		return exitcode.With(exitcode.LocalIO, fmt.Errorf("making a work directory: %w", err))
	}
	defer func() {
		if rerr := removeAll(work); rerr != nil {
			err = errors.Join(err, exitcode.With(exitcode.LocalIO, fmt.Errorf("cleaning up: %w", rerr)))
		}
	}()

	root := filepath.Join(work, "root")
	if err := j.unpack(ctx, root); err != nil {
		return fmt.Errorf("unpacking the build root %s: %w", j.Root, err)
	}
	if err := j.run(ctx, work, root); err != nil {
		return err
	}
	return j.collect(ctx, root)
}

func (j *Job) check() error {
	for name := range j.Srcs {
		if !fs.ValidPath(name) || name == "." {
			return fmt.Errorf("source name %q is not a clean path below /src", name)
		}
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if j.Srcs[dir] != "" {
				return fmt.Errorf("source %q (%s) lies below source %q (%s)", name, j.Srcs[name], dir, j.Srcs[dir])
			}
		}
	}
	for name := range j.Outputs {
		if !fs.ValidPath(name) || name == "." {
			return fmt.Errorf("output path %q is not a clean path below $OUT", name)
		}
	}
	fixed := j.environment()
	for name := range j.Env {
		if strings.Contains(name, "=") || name == "" {
			return fmt.Errorf("%q is not a variable's name", name)
		}
		if slices.ContainsFunc(fixed, func(v string) bool { return strings.HasPrefix(v, name+"=") }) {
			return fmt.Errorf("variable %s is the same for all components and cannot be set", name)
		}
	}
	return nil
}

// environment is what every script has.
func (j *Job) environment() []string {
	jobs := j.Jobs
	if jobs == 0 {
		jobs = runtime.NumCPU()
	}
	return []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + buildDir,
		"LC_ALL=C",
		"TZ=UTC",
		"SOURCE_DATE_EPOCH=" + epoch,
		"KILN_JOBS=" + strconv.Itoa(jobs),
		// nproc(1) and everything that asks it, or OpenMP, sees the same
		// number of CPUs on every machine.
		"OMP_NUM_THREADS=4",
		// One user exists in the root, so owners in an archive cannot be
		// restored.
		"TAR_OPTIONS=--no-same-owner",
		"DESTDIR=" + destDir,
		"OUT=" + outDir,
		"VERSION=" + j.Version,
	}
}

func (j *Job) unpack(ctx context.Context, root string) error {
	if err := os.Mkdir(root, 0o755); err != nil {
		return exitcode.With(exitcode.LocalIO, err)
	}
	f, err := os.Open(j.Root)
	if err != nil {
		return exitcode.With(exitcode.LocalIO, err)
	}
	defer f.Close()
	if err := layer.Extract(ctx, f, root); err != nil {
		return err
	}
	// What a build finds here is its own, and empty.
	for _, dir := range []string{buildDir, srcDir, destDir, outDir, "/dev", "/proc", "/tmp"} {
		p := filepath.Join(root, dir)
		err := removeAll(p)
		if err == nil {
			err = os.Mkdir(p, 0o755)
		}
		if err == nil && dir == "/tmp" {
			err = os.Chmod(p, 0o777|os.ModeSticky)
		}
		if err != nil {
			return exitcode.With(exitcode.LocalIO, err)
		}
	}
	return nil
}

// run runs the script.
func (j *Job) run(ctx context.Context, work, root string) error {
	binds, err := j.sources(root)
	if err != nil {
		return fmt.Errorf("laying out the sources: %w", err)
	}
	env := j.environment()
	for name, value := range j.Env {
		env = append(env, name+"="+value)
	}
	slices.Sort(env)
	log, err := os.Create(filepath.Join(work, "log"))
	if err != nil {
		return exitcode.With(exitcode.LocalIO, fmt.Errorf("creating the log: %w", err))
	}
	defer log.Close()

	err = sandbox.Run(ctx, sandbox.Command{
		Root:     root,
		Binds:    binds,
		Hostname: hostname,
		Argv:     []string{"/bin/bash", "-euo", "pipefail", scriptPath},
		Env:      env,
		Dir:      buildDir,
		Output:   log,
	})
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		lines, lerr := tail(log, logLines)
		if lerr != nil {
			return exitcode.With(exitcode.LocalIO, fmt.Errorf("reading the log: %w", lerr))
		}
		fmt.Fprintf(j.Log, "--- end of what %s printed ---\n%s--- %s: %v ---\n", j.Script, lines, j.Script, exit)
		return exitcode.With(exitcode.Failed, fmt.Errorf("building component %s: script %s failed: %v", j.Name, j.Script, exit))
	}
	if err != nil {
		return fmt.Errorf("building component %s: %w", j.Name, err)
	}
	return nil
}

// sources makes places for the script and its sources in the root.
func (j *Job) sources(root string) ([]sandbox.Bind, error) {
	binds := []sandbox.Bind{{Source: j.Script, Target: scriptPath}}
	if err := touch(filepath.Join(root, scriptPath)); err != nil {
		return nil, err
	}
	// First as a whole, then file by file on top.
	binds = append(binds, sandbox.Bind{Source: filepath.Join(root, srcDir), Target: srcDir})
	for name, source := range j.Srcs {
		target := filepath.Join(root, srcDir, name)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return nil, exitcode.With(exitcode.LocalIO, err)
		}
		info, err := os.Stat(source)
		if err != nil {
			return nil, exitcode.With(exitcode.LocalIO, err)
		}
		if info.IsDir() {
			// In an action, the files of a directory are symlinks to
			// places that the script will not see.
			if err := copyTree(source, target); err != nil {
				return nil, err
			}
			continue
		}
		if err := touch(target); err != nil {
			return nil, err
		}
		binds = append(binds, sandbox.Bind{Source: source, Target: path.Join(srcDir, name)})
	}
	return binds, nil
}

func touch(name string) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o644)
	if err != nil {
		return exitcode.With(exitcode.LocalIO, err)
	}
	return f.Close()
}

// collect packs what the script installed.
func (j *Job) collect(ctx context.Context, root string) (err error) {
	entries, err := j.installed(filepath.Join(root, destDir))
	if err != nil {
		return fmt.Errorf("component %s: what %s installed: %w", j.Name, j.Script, err)
	}

	var made []string
	defer func() {
		if err != nil {
			for _, name := range made {
				os.Remove(name)
			}
		}
	}()
	for name, dest := range j.Outputs {
		if err := j.output(filepath.Join(root, outDir), name, dest); err != nil {
			return err
		}
		made = append(made, dest)
	}
	return assemble.Write(ctx, j.Component, entries)
}

// installed lists DESTDIR as it goes into the layer.
func (j *Job) installed(dest string) ([]layer.Entry, error) {
	if err := makeReadable(dest); err != nil {
		return nil, exitcode.With(exitcode.LocalIO, err)
	}
	entries, err := layer.Walk(dest, assemble.ArtifactsDir)
	if err != nil {
		return nil, err
	}
	installed := assemble.ArtifactsDir + assemble.InstallDir
	var errs []error
	files := 0
	for _, e := range entries {
		switch {
		case e.Path == assemble.ArtifactsDir, e.Path == path.Dir(installed) && e.Type == layer.Dir:
		case e.Path == installed && e.Type == layer.Dir:
		case strings.HasPrefix(e.Path, installed+"/"):
			if e.Type != layer.Dir {
				files++
			}
		default:
			errs = append(errs, fmt.Errorf("%s is outside of $DESTDIR%s", strings.TrimPrefix(e.Path, assemble.ArtifactsDir), assemble.InstallDir))
		}
	}
	if len(errs) == 0 && files == 0 {
		errs = append(errs, fmt.Errorf("nothing: $DESTDIR%s holds no file", assemble.InstallDir))
	}
	if len(errs) > 0 {
		return nil, exitcode.With(exitcode.BadInput, errors.Join(errs...))
	}
	return entries, assemble.CheckLinks(entries)
}

// output copies one named output.
func (j *Job) output(dir, name, dest string) error {
	// A root of its own: a symlink that the script left must not lead to a
	// file of the machine.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return exitcode.With(exitcode.LocalIO, fmt.Errorf("reading outputs: %w", err))
	}
	defer root.Close()
	src, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return exitcode.With(exitcode.Failed, fmt.Errorf("component %s: script %s did not write its output $OUT/%s", j.Name, j.Script, name))
	}
	if err != nil {
		return exitcode.With(exitcode.Failed, fmt.Errorf("component %s: reading output $OUT/%s: %w", j.Name, name, err))
	}
	defer src.Close()
	if info, err := src.Stat(); err != nil || !info.Mode().IsRegular() {
		return exitcode.With(exitcode.Failed, fmt.Errorf("component %s: output $OUT/%s is not a regular file", j.Name, name))
	}
	out, err := atomicfile.Create(dest, 0o644)
	if err != nil {
		return exitcode.With(exitcode.LocalIO, err)
	}
	defer out.Abort()
	if _, err := io.Copy(out, src); err != nil {
		return exitcode.With(exitcode.LocalIO, fmt.Errorf("writing output %s: %w", dest, err))
	}
	return exitcode.With(exitcode.LocalIO, out.Commit())
}

// tail gives the last lines of a file.
func tail(f *os.File, lines int) ([]byte, error) {
	const longest = 64 << 10
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	start := max(0, size-longest)
	text, err := io.ReadAll(io.NewSectionReader(f, start, size-start))
	if err != nil {
		return nil, err
	}
	if start > 0 {
		if _, after, found := bytes.Cut(text, []byte("\n")); found {
			text = after
		}
	}
	text = bytes.TrimRight(text, "\n")
	if len(text) == 0 {
		return nil, nil
	}
	all := bytes.Split(text, []byte("\n"))
	return append(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")), '\n'), nil
}
