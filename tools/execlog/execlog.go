// Package execlog reads Bazel's execution logs: which spawns ran or came from
// a cache, what they were given and what they made.
//
// Two formats of Bazel 7.7 are read, told apart by content: the compact one
// (--execution_log_compact_file) and the JSON one (--execution_log_json_file).
// Both are read as a stream. Inputs are expanded only for spawns that somebody
// asks about, since a compact log of half a megabyte holds some thirty of
// them once they are written out.
package execlog

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/kiln-build/kiln/tools/execlog/logpb"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// A Log is what one invocation of Bazel logged.
type Log struct {
	// Path is where the log was read from.
	Path string
	// Invocation identifies the run of Bazel; only compact logs say it.
	Invocation string
	// Compact tells the format.
	Compact bool
	Spawns  []*Spawn
	// Symlinks are the symlinks that Bazel made without a spawn; only
	// compact logs have them.
	Symlinks []Symlink
}

// A Digest is that of a file, or of an action. The zero Digest is that of an
// empty file, or of an action that has none.
type Digest struct {
	Hash string
	// Size is in bytes.
	Size int64
}

func (d Digest) String() string { return fmt.Sprintf("%s/%d", d.Hash, d.Size) }

// A File is an input or an output of a spawn.
type File struct {
	// Path is relative to the execution root.
	Path   string
	Digest Digest
	// Tool tells that an input is part of a program that the spawn runs.
	Tool bool
	// Target is where an unresolved symlink points to, and otherwise empty.
	Target string
}

// A Variable is a name with a value.
type Variable struct {
	Name, Value string
}

// A Spawn is one subprocess that Bazel ran, or whose result a cache had.
type Spawn struct {
	Mnemonic string
	// Target is the canonical label, without the @@ of the main repository.
	Target string
	// Digest is the key in the action cache. It is zero where neither a
	// disk cache, nor a remote cache, nor remote execution was in use.
	Digest Digest
	// Runner is "remote", "linux-sandbox", "disk cache hit" and so on.
	Runner   string
	CacheHit bool
	// Remotable, Cacheable and RemoteCacheable are what the action's tags
	// and Bazel's flags allow.
	Remotable, Cacheable, RemoteCacheable bool
	// Status is empty unless the spawn failed.
	Status   string
	ExitCode int
	Timeout  time.Duration
	Metrics  Metrics
	Args     []string
	// Environment and Platform are sorted by name.
	Environment, Platform []Variable
	// Outputs are the files that were made, sorted by path. A directory
	// stands for the files in it.
	Outputs []File
	// Declared are the outputs that were asked for, sorted. A directory
	// is one of them.
	Declared []string

	inputs func() []File
}

// Metrics say what a spawn took. Zero means that it was not measured. Bazel
// 7.7 writes milliseconds.
type Metrics struct {
	// Start is the client's clock when it began with the spawn, and Total
	// the time until it was through with it.
	Start time.Time
	Total time.Duration
	// Queue, Setup, Execution and Outputs are, for a spawn that ran
	// remotely, the worker's: waiting for a worker, fetching inputs,
	// running, and uploading outputs.
	Queue, Setup, Execution, Outputs time.Duration
	// Fetch and Upload are the client's: downloading outputs, and
	// uploading inputs.
	Fetch, Upload time.Duration
	InputBytes    int64
	InputFiles    int64
}

// A Symlink is an output that is a symlink to another file.
type Symlink struct {
	Path, Input, Target, Mnemonic string
}

func (s *Spawn) String() string { return s.Mnemonic + " " + s.Target }

// Inputs gives all inputs, sorted by path. It is made anew by each call.
func (s *Spawn) Inputs() []File { return s.inputs() }

// SetInputs gives a spawn that no log has its inputs, sorted by path.
func (s *Spawn) SetInputs(files []File) {
	s.inputs = func() []File { return slices.Clone(files) }
}

// Derived is a key made of what the log says that goes into the action:
// arguments, environment, platform, inputs and declared outputs. Two spawns
// with one action digest have one derived key. It stands in for the action's
// digest where a log does not have it.
func (s *Spawn) Derived() string {
	h := sha256.New()
	// Lengths keep neighbours apart.
	put := func(kind string, parts ...string) {
		fmt.Fprintf(h, "%s %d\n", kind, len(parts))
		for _, p := range parts {
			fmt.Fprintf(h, "%d:%s\n", len(p), p)
		}
	}
	put("args", s.Args...)
	for _, v := range s.Environment {
		put("env", v.Name, v.Value)
	}
	for _, v := range s.Platform {
		put("platform", v.Name, v.Value)
	}
	for _, f := range s.Inputs() {
		put("input", f.Path, f.Digest.String(), f.Target)
	}
	put("outputs", s.Declared...)
	put("timeout", s.Timeout.String())
	return hex.EncodeToString(h.Sum(nil))
}

// ReadFile reads the log at path. Its errors name the file and the entry, and
// carry exitcode.BadInput where the file is not a whole log.
func ReadFile(ctx context.Context, path string) (*Log, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("opening an execution log: %w", err))
	} else if err != nil {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("opening an execution log: %w", err))
	}
	defer f.Close()
	return Read(ctx, path, f)
}

var zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}

// Read reads a log from r; path is its name. A log without any content is one
// without spawns: that is what the JSON format comes to when nothing ran.
func Read(ctx context.Context, path string, r io.Reader) (*Log, error) {
	log := &Log{Path: path}
	in := bufio.NewReaderSize(canceling{ctx, r}, 1<<16)
	start, err := in.Peek(len(zstdMagic))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("reading the execution log %s: %w", path, err))
	}
	switch {
	case len(start) == 0:
		return log, nil
	case slices.Equal(start, zstdMagic):
		log.Compact = true
		err = readCompact(log, in)
	case start[0] == '{':
		err = readJSON(log, in)
	default:
		err = &entryError{1, errors.New("it starts like neither format of a log")}
	}
	var bad *entryError
	switch {
	case err == nil:
		return log, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("reading the execution log %s: %w", path, ctx.Err())
	case errors.As(err, &bad) && errors.Is(bad.err, io.ErrUnexpectedEOF):
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf(
			"execution log %s, entry %d: it ends in the middle: take it after Bazel has exited, and copy all of it", path, bad.entry))
	case errors.As(err, &bad):
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf(
			"execution log %s, entry %d: %w: give what --execution_log_compact_file or --execution_log_json_file of Bazel 7.7 wrote", path, bad.entry, bad.err))
	}
	return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("reading the execution log %s: %w", path, err))
}

// An entryError says that an entry, counted from 1, is not what it must be.
type entryError struct {
	entry int
	err   error
}

func (e *entryError) Error() string { return fmt.Sprintf("entry %d: %v", e.entry, e.err) }
func (e *entryError) Unwrap() error { return e.err }

// canceling ends a stream when a context does.
type canceling struct {
	ctx context.Context
	r   io.Reader
}

func (c canceling) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// digest reads a digest. An empty file has none in one format and that of no
// bytes in the other; both become the zero Digest.
func digest(d *logpb.Digest) Digest {
	if d.GetSizeBytes() == 0 {
		return Digest{}
	}
	return Digest{Hash: d.GetHash(), Size: d.GetSizeBytes()}
}

// fields are what both formats say about a spawn in the same words.
type fields interface {
	GetMnemonic() string
	GetTargetLabel() string
	GetDigest() *logpb.Digest
	GetRunner() string
	GetCacheHit() bool
	GetRemotable() bool
	GetCacheable() bool
	GetRemoteCacheable() bool
	GetStatus() string
	GetExitCode() int32
	GetTimeoutMillis() int64
	GetMetrics() *logpb.SpawnMetrics
	GetPlatform() *logpb.Platform
}

func newSpawn(f fields, args []string, environment []*logpb.EnvironmentVariable) *Spawn {
	m := f.GetMetrics()
	s := &Spawn{
		Mnemonic:        f.GetMnemonic(),
		Target:          f.GetTargetLabel(),
		Digest:          digest(f.GetDigest()),
		Runner:          f.GetRunner(),
		CacheHit:        f.GetCacheHit(),
		Remotable:       f.GetRemotable(),
		Cacheable:       f.GetCacheable(),
		RemoteCacheable: f.GetRemoteCacheable(),
		Status:          f.GetStatus(),
		ExitCode:        int(f.GetExitCode()),
		Timeout:         time.Duration(f.GetTimeoutMillis()) * time.Millisecond,
		Metrics: Metrics{
			Total:      m.GetTotalTime().AsDuration(),
			Queue:      m.GetQueueTime().AsDuration(),
			Setup:      m.GetSetupTime().AsDuration(),
			Execution:  m.GetExecutionWallTime().AsDuration(),
			Outputs:    m.GetProcessOutputsTime().AsDuration(),
			Fetch:      m.GetFetchTime().AsDuration(),
			Upload:     m.GetUploadTime().AsDuration(),
			InputBytes: m.GetInputBytes(),
			InputFiles: m.GetInputFiles(),
		},
		Args: args,
	}
	if strings.HasPrefix(s.Target, "@@//") {
		s.Target = strings.TrimPrefix(s.Target, "@@")
	}
	if m.GetStartTime() != nil {
		s.Metrics.Start = m.GetStartTime().AsTime()
	}
	for _, v := range environment {
		s.Environment = append(s.Environment, Variable{v.GetName(), v.GetValue()})
	}
	for _, p := range f.GetPlatform().GetProperties() {
		s.Platform = append(s.Platform, Variable{p.GetName(), p.GetValue()})
	}
	sortVariables(s.Environment)
	sortVariables(s.Platform)
	return s
}

func sortVariables(vs []Variable) {
	sort.SliceStable(vs, func(i, j int) bool { return vs[i].Name < vs[j].Name })
}

func sortFiles(files []File) {
	sort.SliceStable(files, func(i, j int) bool { return files[i].Path < files[j].Path })
}
