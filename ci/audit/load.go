package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kiln-build/kiln/tools/execlog"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// A Named is a file that may have been given a job's name.
type Named struct {
	// Name is empty where none was given.
	Name, Path string
}

// ParseNamed reads NAME=PATH, or PATH alone. A path that is there is a path,
// whatever is in it. resolve makes a path absolute, or leaves it.
func ParseNamed(arg string, resolve func(string) string) Named {
	if _, err := os.Stat(resolve(arg)); err == nil {
		return Named{Path: resolve(arg)}
	}
	if name, path, ok := strings.Cut(arg, "="); ok && name != "" && !strings.Contains(name, "/") {
		return Named{Name: name, Path: resolve(path)}
	}
	return Named{Path: resolve(arg)}
}

// Load reads the logs. A directory stands for all files in it and below, each
// of which must be a log: one that was left out would be one not counted.
func Load(ctx context.Context, logs []Named) ([]Job, error) {
	var jobs []Job
	byName, byInvocation := map[string]string{}, map[string]string{}
	for _, l := range logs {
		files, err := expand(l)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			log, err := execlog.ReadFile(ctx, f.Path)
			if err != nil {
				return nil, err
			}
			switch other := byInvocation[log.Invocation]; {
			case !log.Compact && len(log.Spawns) == 0:
				return nil, exitcode.With(exitcode.BadInput, fmt.Errorf(
					"%s is empty: it may be the log of a build in which nothing ran, or one that was never written; --execution_log_compact_file can tell", f.Path))
			case log.Invocation != "" && other != "":
				return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("%s and %s are logs of the same invocation %s", other, f.Path, log.Invocation))
			case byName[f.Name] != "":
				return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("%s and %s are both job %q: give NAME=PATH", byName[f.Name], f.Path, f.Name))
			}
			byName[f.Name] = f.Path
			byInvocation[log.Invocation] = f.Path
			jobs = append(jobs, Job{Name: f.Name, Log: log})
		}
	}
	return jobs, nil
}

// expand gives the files of a directory, and every file a name.
func expand(l Named) ([]Named, error) {
	info, err := os.Stat(l.Path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("looking for execution logs: %w", err))
	case err != nil:
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("looking for execution logs: %w", err))
	case !info.IsDir():
		if l.Name == "" {
			l.Name = trimExtensions(filepath.Base(l.Path))
		}
		return []Named{l}, nil
	}
	var files []Named
	err = filepath.WalkDir(l.Path, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		relative, err := filepath.Rel(l.Path, path)
		if err != nil {
			return err
		}
		name := filepath.Join(filepath.Dir(relative), trimExtensions(filepath.Base(relative)))
		files = append(files, Named{Name: filepath.Join(l.Name, name), Path: path})
		return nil
	})
	if err != nil {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("looking for execution logs: %w", err))
	}
	if len(files) == 0 {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("there is no execution log in %s", l.Path))
	}
	return files, nil
}

func trimExtensions(name string) string {
	for _, extension := range []string{".zst", ".bin", ".json", ".log"} {
		name = strings.TrimSuffix(name, extension)
	}
	return name
}

// AddEvidence reads what Bazel said in a job with read. A file without a job's
// name is that of the only job.
func AddEvidence(jobs []Job, files []Named, read func(*Evidence, string) error) error {
	for _, f := range files {
		i := slices.IndexFunc(jobs, func(j Job) bool { return j.Name == f.Name })
		switch {
		case f.Name == "" && len(jobs) == 1:
			i = 0
		case f.Name == "":
			return exitcode.With(exitcode.BadInput, fmt.Errorf("%s: there are %d jobs, give NAME=PATH", f.Path, len(jobs)))
		case i < 0:
			return exitcode.With(exitcode.BadInput, fmt.Errorf("%s: no log is that of a job %q", f.Path, f.Name))
		}
		if err := read(&jobs[i].Evidence, f.Path); err != nil {
			return err
		}
	}
	return nil
}
