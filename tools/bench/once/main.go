// Once counts how often components are executed when several clients, each with
// nothing of its own, build the same revision at the same time: with an engine
// that merges identical actions in flight, and with a shared cache alone, side by
// side.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/bazelbuild/rules_go/go/runfiles"
	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/ci/audit"
	"github.com/kiln-build/kiln/tools/bench/once/client"
	"github.com/kiln-build/kiln/tools/bench/once/engine"
	"github.com/kiln-build/kiln/tools/bench/once/standin"
	"github.com/kiln-build/kiln/tools/exitcode"
	"github.com/kiln-build/kiln/tools/humanize"
	"github.com/kiln-build/kiln/tools/nested"
	"github.com/kiln-build/kiln/tools/repro"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := newCommand().ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: error: %v\n", err)
	}
	os.Exit(exitcode.Of(err))
}

// options are what the benchmark is told.
type options struct {
	clients []int
	real    bool
	modes   []string
	targets []string
	dir     string
	keep    bool
	output  string
}

func newCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "once",
		Short: "Count executions of concurrent clients, with an engine and with a cache alone",
		Long: `Count executions of concurrent clients, with an engine and with a cache alone.

Components are stand-ins that cost time and bytes, or with --real those of this
workspace, which takes as long as building them does.

It exits with 4 if the engine executed a component more than once, or if two
clients did not get the same.`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	flags := cmd.Flags()
	flags.IntSliceVar(&o.clients, "clients", []int{1, 2, 8}, "numbers of concurrent clients to try")
	flags.BoolVar(&o.real, "real", false, "build this workspace instead of stand-ins")
	flags.StringSliceVar(&o.modes, "modes", []string{string(client.Engine), string(client.Cache)}, "what to compare: engine, cache")
	flags.StringSliceVar(&o.targets, "targets", []string{"//payload:all"}, "what to build with --real")
	flags.StringVar(&o.dir, "dir", "", "where clients work and the engine stores (default: the cache directory)")
	flags.BoolVar(&o.keep, "keep", false, "keep what engines stored and what clients logged, and say where")
	flags.StringVar(&o.output, "output", "text", "text or json")
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exitcode.With(exitcode.BadInput, err) })
	return cmd
}

// row is what one round came to.
type row struct {
	Mode    client.Mode `json:"mode"`
	Clients int         `json:"clients"`
	// Later says that this is the client that came after the Clients of the row
	// before, to the same cache.
	Later bool `json:"later,omitempty"`
	// Actions are distinct component actions.
	Actions    int `json:"actions"`
	Executions int `json:"executions"`
	Merged     int `json:"merged"`
	Hits       int `json:"hits"`
	// Workers is what the engine's workers counted by themselves.
	Workers int `json:"workers"`
	// Seconds is the time of the slowest client.
	Seconds float64 `json:"seconds"`
	// Down are the bytes that each client received.
	Down []int64 `json:"down"`
	// Digests are what all clients got, by name.
	Digests map[string]string `json:"digests,omitempty"`

	// finding is what the audit has against a round with the engine.
	finding error
}

func (o *options) run(ctx context.Context, out io.Writer) (err error) {
	if o.output != "text" && o.output != "json" {
		return exitcode.With(exitcode.BadInput, fmt.Errorf("--output=%s: must be text or json", o.output))
	}
	for _, n := range o.clients {
		if n < 1 {
			return exitcode.With(exitcode.BadInput, fmt.Errorf("--clients=%d: there must be one at least", n))
		}
	}
	for _, mode := range o.modes {
		if mode != string(client.Engine) && mode != string(client.Cache) {
			return exitcode.With(exitcode.BadInput, fmt.Errorf("--modes=%s: must be engine or cache", mode))
		}
	}
	dir, err := nested.WorkDir(o.dir, "once-")
	if err != nil {
		return exitcode.With(exitcode.LocalIO, err)
	}
	if o.keep {
		fmt.Fprintf(os.Stderr, "bench: everything is kept in %s\n", dir)
	} else {
		defer func() { err = errors.Join(err, nested.RemoveAll(dir)) }()
	}
	workspace := filepath.Join(dir, "workspace")
	if err := o.workspace(ctx, workspace); err != nil {
		return err
	}
	var rows []row
	for _, n := range o.clients {
		for _, mode := range o.modes {
			fmt.Fprintf(os.Stderr, "bench: %d clients, %s\n", n, mode)
			round, err := o.round(ctx, filepath.Join(dir, fmt.Sprintf("%s-%d", mode, n)), workspace, client.Mode(mode), n)
			if err != nil {
				return fmt.Errorf("%d clients, %s: %w", n, mode, err)
			}
			rows = append(rows, round...)
		}
	}
	if err := print(out, rows, o.output == "json"); err != nil {
		return err
	}
	for _, r := range rows {
		if r.finding != nil {
			return exitcode.With(exitcode.Unverified, fmt.Errorf("%d clients: %w", r.Clients, r.finding))
		}
		// All rounds build the same, so one digest for each name.
		if diff := repro.Compare(rows[0].Digests, r.Digests); len(diff) > 0 {
			return exitcode.With(exitcode.Unverified, fmt.Errorf("%d clients, %s: %s", r.Clients, r.Mode, diff[0]))
		}
	}
	return nil
}

// workspace makes what is built.
func (o *options) workspace(ctx context.Context, dir string) error {
	from := os.Getenv("BUILD_WORKSPACE_DIRECTORY")
	if from == "" {
		return exitcode.With(exitcode.BadInput, errors.New("not started by `bazel run`: BUILD_WORKSPACE_DIRECTORY is not set"))
	}
	if o.real {
		return nested.CopyWorkspace(ctx, from, dir)
	}
	tool, err := runfiles.Rlocation("_main/tools/bench/once/standin/cmd/cmd_/cmd")
	if err != nil {
		return exitcode.With(exitcode.BadInput, fmt.Errorf("finding the program of stand-ins: %w: start this with `bazel run //tools/bench:once`", err))
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return exitcode.With(exitcode.LocalIO, fmt.Errorf("making the workspace: %w", err))
	}
	o.targets = []string{standin.Payload}
	return standin.Write(dir, tool, filepath.Join(from, "MODULE.bazel"), standin.Components())
}

// round runs clients against an engine of their own, and then one more, which
// finds everything made.
func (o *options) round(ctx context.Context, dir, workspace string, mode client.Mode, clients int) (_ []row, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, exitcode.With(exitcode.LocalIO, err)
	}
	workers := 1
	if mode == client.Cache {
		workers = 0
	}
	state := filepath.Join(dir, "engine")
	e, err := engine.Start(state, workers)
	if err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, e.Stop())
		if !o.keep {
			err = errors.Join(err, nested.RemoveAll(state))
		}
	}()
	run := client.Run{
		Mode: mode, Clients: clients, Workspace: workspace, Targets: o.targets, Endpoint: e.Address(), Dir: dir,
		Name: "client", Read: o.digests,
	}
	results, err := run.Do(ctx)
	if err != nil {
		return nil, err
	}
	first, err := count(ctx, e, mode, results)
	if err != nil {
		return nil, err
	}
	run.Clients, run.Name = 1, "later"
	results, err = run.Do(ctx)
	if err != nil {
		return nil, fmt.Errorf("a later client: %w", err)
	}
	later, err := count(ctx, nil, mode, results)
	if err != nil {
		return nil, fmt.Errorf("a later client: %w", err)
	}
	later.Clients, later.Later = clients, true
	return []row{*first, *later}, nil
}

// count makes a row of what clients did. If there is an engine that did nothing but
// this, its workers' own count is held against it.
func count(ctx context.Context, e *engine.Engine, mode client.Mode, results []client.Result) (*row, error) {
	r := &row{Mode: mode, Clients: len(results)}
	var logs []audit.Named
	for i, result := range results {
		logs = append(logs, audit.Named{Name: fmt.Sprintf("client-%d", i+1), Path: result.Log})
		r.Seconds = max(r.Seconds, result.Time.Seconds())
		r.Down = append(r.Down, result.Down)
		if i == 0 {
			r.Digests = result.Digests
		} else if diff := repro.Compare(r.Digests, result.Digests); len(diff) > 0 {
			return nil, exitcode.With(exitcode.Unverified, fmt.Errorf("clients 1 and %d did not get the same: %s", i+1, diff[0]))
		}
	}
	jobs, err := audit.Load(ctx, logs)
	if err != nil {
		return nil, err
	}
	options := audit.Options{Mnemonics: []string{audit.Mnemonic}, Skew: audit.Skew}
	if mode == client.Engine && e != nil {
		// Proof by those who did it.
		if options.Completed, err = audit.ReadCompleted(e.Executed); err != nil {
			return nil, err
		}
	}
	report, err := audit.Run(jobs, options)
	if err != nil {
		return nil, err
	}
	if mode == client.Engine {
		r.finding = report.Err()
	}
	t := report.Totals
	r.Workers = t.WorkerExecutions
	r.Actions, r.Executions, r.Merged, r.Hits = t.Actions, t.Executions, t.Merged, t.FromDiskCache+t.FromRemoteCache
	return r, nil
}

// digests names what a client got, as payloads describe it: layers of stand-ins, or
// the components and payloads of this workspace.
func (o *options) digests(files []string) (map[string]string, error) {
	if o.real {
		return repro.Read(files)
	}
	return standin.ReadDigests(files)
}

func print(out io.Writer, rows []row, asJSON bool) error {
	if asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(rows)
	}
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "clients\tshared\tactions\texecuted\tmerged\thits\tredundant\twall\tdown per client\t")
	for _, r := range rows {
		clients := strconv.Itoa(r.Clients)
		if r.Later {
			clients = "+1"
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t\n", clients, r.Mode, r.Actions, r.Executions, r.Merged, r.Hits,
			max(0, r.Executions-r.Actions), time.Duration(r.Seconds*float64(time.Second)).Round(100*time.Millisecond), span(r.Down))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out, "\n+1 is one more client, when all is in the cache.")
	fmt.Fprintln(out, "\nWhat all clients got:")
	for _, name := range slices.Sorted(maps.Keys(rows[0].Digests)) {
		fmt.Fprintf(out, "%s  %s\n", rows[0].Digests[name], name)
	}
	return nil
}

// span writes the least and the most of some sizes.
func span(bytes []int64) string {
	least, most := humanize.Bytes(slices.Min(bytes)), humanize.Bytes(slices.Max(bytes))
	if least == most {
		return most
	}
	return least + " to " + most
}
