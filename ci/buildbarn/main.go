// Command buildbarn runs Kiln's cache and execution service on this machine, until
// it is interrupted.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/bazelbuild/rules_go/go/runfiles"
	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/ci/buildbarn/config"
	"github.com/kiln-build/kiln/ci/buildbarn/confine"
	"github.com/kiln-build/kiln/ci/buildbarn/engine"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func main() {
	confine.IfChild()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := newCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "buildbarn: error:", err)
		os.Exit(exitcode.Of(err))
	}
}

const defaultSize = engine.Size(20 << 30)

func newCommand() *cobra.Command {
	var (
		state, programs, output string
		port                    int
		size                    = defaultSize
		workers, concurrency    int
	)
	cmd := &cobra.Command{
		Use:           "buildbarn",
		Short:         "Run a cache and execution service on this machine until interrupted",
		SilenceUsage:  true,
		SilenceErrors: true,
		Long: `Run a cache and execution service on this machine until interrupted.

Exit codes: 0 interrupted; 1 storage or scheduler ended by itself, or something
did not start; 2 bad usage, or the state directory or a port is in use; 5 the
state directory cannot be written, most often because the disk is full.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "text" && output != "json" {
				return exitcode.With(exitcode.BadInput, fmt.Errorf(`--output=%s: give "text" or "json"`, output))
			}
			found, err := findPrograms(programs)
			if err != nil {
				return err
			}
			if state == "" {
				cache, err := os.UserCacheDir()
				if err != nil {
					return exitcode.With(exitcode.BadInput, fmt.Errorf("finding the cache directory: %w: give --state", err))
				}
				state = filepath.Join(cache, "kiln", "buildbarn")
			}
			return engine.Run(cmd.Context(), engine.Options{
				State:       state,
				Programs:    found,
				Size:        int64(size),
				Workers:     workers,
				Concurrency: concurrency,
				Ports:       ports(port),
				Log:         prefixed{cmd.ErrOrStderr()},
				Ready:       func(e engine.Endpoints) { announce(cmd.OutOrStdout(), output, e, size, workers) },
				Sleep: func(ctx context.Context, d time.Duration) {
					select {
					case <-time.After(d):
					case <-ctx.Done():
					}
				},
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&state, "state", "", "directory that everything is kept in (default ${XDG_CACHE_HOME:-~/.cache}/kiln/buildbarn)")
	flags.StringVar(&programs, "programs", "", "directory of Buildbarn's programs, instead of those built by Bazel")
	flags.StringVar(&output, "output", "text", "text, or json: one line with all endpoints when ready")
	flags.IntVar(&port, "port", config.DefaultPorts().Frontend, "loopback port for clients, of which the next ones are used too; 0 takes free ones")
	flags.Var(&size, "size", "bound of what is stored; the disk is used as it fills")
	flags.IntVar(&workers, "workers", 1, "worker processes; 0 for a cache alone")
	flags.IntVar(&concurrency, "concurrency", runtime.NumCPU(), "actions that a worker runs at the same time")

	// Errors before the command starts to run are of usage.
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return exitcode.With(exitcode.BadInput, err)
	})
	cmd.Args = func(_ *cobra.Command, args []string) error {
		if len(args) > 0 {
			return exitcode.With(exitcode.BadInput, fmt.Errorf("%q: only flags are taken", args[0]))
		}
		return nil
	}
	return cmd
}

// ports keeps the distances of the default ports.
func ports(frontend int) config.Ports {
	if frontend == 0 {
		return config.Ports{}
	}
	p := config.DefaultPorts()
	by := frontend - p.Frontend
	return config.Ports{Frontend: p.Frontend + by, Client: p.Client + by, Queue: p.Queue + by, Metrics: p.Metrics + by}
}

func announce(w io.Writer, output string, e engine.Endpoints, size engine.Size, workers int) {
	if output == "json" {
		text, err := json.Marshal(e)
		if err != nil {
			panic(err) // strings and numbers only
		}
		fmt.Fprintf(w, "%s\n", text)
		return
	}
	fmt.Fprintf(w, "storage    %s (--config=remote, --config=cache), up to %s in %s\n", e.Frontend, size, e.State)
	fmt.Fprintf(w, "scheduler  %s for storage, %s for workers, %s\n", e.Scheduler, e.Queue, e.Metrics)
	for n := range workers {
		fmt.Fprintf(w, "%-10s asks %s for actions; process %d\n", config.Worker(n), e.Queue, e.PIDs[config.Worker(n)])
		fmt.Fprintf(w, "%-10s unix:%s; process %d\n", config.Runner(n), filepath.Join(e.State, config.RunnerSocket(n)), e.PIDs[config.Runner(n)])
	}
	fmt.Fprintf(w, "%-10s unix:%s, what ran is noted in %s\n", engine.ActionLog, filepath.Join(e.State, config.ActionsSocket), e.Executed)
}

// findPrograms finds Buildbarn's programs in a directory, or among the files that
// Bazel built.
func findPrograms(dir string) (engine.Programs, error) {
	var first error
	find := func(name string) string {
		path, err := findProgram(dir, name)
		if first == nil {
			first = err
		}
		return path
	}
	p := engine.Programs{
		Storage:   find("bb_storage"),
		Scheduler: find("bb_scheduler"),
		Worker:    find("bb_worker"),
		Runner:    find("bb_runner"),
		ActionLog: find("action_log"),
	}
	if first != nil {
		return p, exitcode.With(exitcode.BadInput, fmt.Errorf("finding Buildbarn's programs: %w: start this with `bazel run //ci/buildbarn`, or name their directory in --programs", first))
	}
	return p, nil
}

func findProgram(dir, name string) (string, error) {
	path := filepath.Join(dir, name)
	if dir == "" {
		found, err := runfiles.Rlocation("_main/ci/buildbarn/programs/bin/" + name)
		if err != nil {
			return "", err
		}
		path = found
	}
	// They run in another directory.
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	_, err = os.Stat(path)
	return path, err
}

// prefixed writes lines for people.
type prefixed struct{ w io.Writer }

func (p prefixed) Write(line []byte) (int, error) {
	if _, err := fmt.Fprintf(p.w, "buildbarn: %s", line); err != nil {
		return 0, err
	}
	return len(line), nil
}
