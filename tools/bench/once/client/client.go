// Package client runs builds the way that jobs of a CI do: at the same time,
// each with nothing of its own, all at the same revision.
package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/kiln-build/kiln/tools/bench/once/relay"
	"github.com/kiln-build/kiln/tools/nested"
)

// Mode is how clients use what they share.
type Mode string

// The modes.
const (
	// Engine is a cache, and execution on a scheduler that merges identical
	// actions in flight.
	Engine Mode = "engine"
	// Cache is a cache alone: each client executes for itself.
	Cache Mode = "cache"
)

// Run is one round of concurrent clients.
type Run struct {
	Mode Mode
	// Clients is how many there are.
	Clients int
	// Workspace is what they build in, Targets what they build.
	Workspace string
	Targets   []string
	// Options are given to all of them.
	Options []string
	// Endpoint is where the cache and the scheduler are, host:port.
	Endpoint string
	// Read makes digests of output files.
	Read func(files []string) (map[string]string, error)
	// Dir is where each client has its output base. It is emptied of them.
	Dir string
	// Name begins the names of clients, which tells those of one round from
	// those of another in the same folder.
	Name string
}

// Result is what one client did.
type Result struct {
	// Log is its execution log.
	Log string
	// Down and Up are bytes from and to the endpoint.
	Down, Up int64
	// Time is how long the build took, without starting Bazel and fetching
	// what the build needs.
	Time time.Duration
	// Digests are those of what it got: r.Read makes them of the outputs of
	// the targets.
	Digests map[string]string
}

// Do runs the clients. Each first fetches and analyses, and builds when all of
// them are ready: it is their builds that are to meet.
func (r Run) Do(ctx context.Context) (results []Result, err error) {
	results = make([]Result, r.Clients)
	errs := make([]error, r.Clients)
	var ready, done sync.WaitGroup
	ready.Add(r.Clients)
	start := make(chan struct{})
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for i := range r.Clients {
		done.Go(func() {
			results[i], errs[i] = r.one(ctx, i, sync.OnceFunc(ready.Done), start)
			if errs[i] != nil {
				// The others would wait for ever.
				cancel(fmt.Errorf("client %d: %w", i+1, errs[i]))
			}
		})
	}
	ready.Wait()
	close(start)
	done.Wait()
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return nil, context.Cause(ctx)
	}
	return results, nil
}

func (r Run) one(ctx context.Context, i int, ready func(), start <-chan struct{}) (_ Result, err error) {
	// Whatever happens, the others must not wait.
	defer ready()
	dir := filepath.Join(r.Dir, fmt.Sprintf("%s-%d", r.Name, i+1))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Result{}, fmt.Errorf("making a client's folder: %w", err)
	}
	passed, err := relay.Start(r.Endpoint)
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, passed.Close()) }()
	log, err := os.Create(filepath.Join(dir, "bazel.log"))
	if err != nil {
		return Result{}, fmt.Errorf("making a client's log: %w", err)
	}
	defer log.Close()
	base := filepath.Join(dir, "output_base")
	bazel := &nested.Bazel{Workspace: r.Workspace, OutputBase: base, Log: log}
	defer func() {
		err = errors.Join(err, bazel.Shutdown(context.WithoutCancel(ctx)), nested.RemoveAll(base))
	}()

	options := slices.Concat(r.Options, r.options(passed.Address()))
	if err := bazel.Run(ctx, "build", slices.Concat(options, []string{"--nobuild"}, r.Targets)...); err != nil {
		return Result{}, withTail(err, log.Name())
	}
	result := Result{Log: filepath.Join(dir, "execution.log.json")}
	events := filepath.Join(dir, "events.json")
	ready()
	select {
	case <-start:
	case <-ctx.Done():
		return Result{}, context.Cause(ctx)
	}
	began := time.Now()
	args := slices.Concat(options, []string{"--execution_log_json_file=" + result.Log, "--build_event_json_file=" + events,
		// Where files are here, not where they are in the cache.
		"--nobuild_event_json_file_path_conversion"}, r.Targets)
	if err := bazel.Run(ctx, "build", args...); err != nil {
		return Result{}, withTail(err, log.Name())
	}
	result.Time = time.Since(began)
	result.Down, result.Up = passed.Down(), passed.Up()
	files, err := nested.OutputFiles(events)
	if err != nil {
		return Result{}, err
	}
	// Before the output base goes.
	result.Digests, err = r.Read(files)
	return result, err
}

// options are those that the mode makes.
func (r Run) options(address string) []string {
	options := []string{
		"--disk_cache=",
		"--remote_cache=grpc://" + address,
		"--remote_download_outputs=toplevel",
		"--noremote_local_fallback",
	}
	switch r.Mode {
	case Engine:
		return append(options, "--remote_executor=grpc://"+address, "--spawn_strategy=remote,sandboxed")
	default:
		return append(options, "--remote_executor=", "--remote_upload_local_results", "--spawn_strategy=sandboxed")
	}
}

// withTail adds the end of what Bazel printed to an error.
func withTail(err error, log string) error {
	const longest = 4 << 10
	text, rerr := os.ReadFile(log)
	if rerr != nil {
		return errors.Join(err, rerr)
	}
	return fmt.Errorf("%w\n%s", err, text[max(0, len(text)-longest):])
}
