package command

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/ci/plan"
	"github.com/kiln-build/kiln/ci/plan/cacheonly"
	"github.com/kiln-build/kiln/ci/plan/remotecache"
	"github.com/kiln-build/kiln/tools/exitcode"
	"github.com/kiln-build/kiln/tools/nested"
)

// planFlags are what `kiln plan` is told.
type planFlags struct {
	cache      remotecache.Options
	why        bool
	output     string
	outputBase string
	verbose    bool
	summary    string
}

func newPlanCommand() *cobra.Command {
	var f planFlags
	cmd := &cobra.Command{
		Use:   "plan [-- BAZEL-OPTION ...]",
		Short: "Say which platforms' tests have no verdict in the cache",
		Long: `Says which platforms' tests have no verdict in the cache for the tree as it is.
It asks the cache and executes nothing.

The cache is the one of --cache, and the disk cache of Bazel's own options. What
follows -- are options that the tests will be run with.

--output=github writes "matrix=..." and "any=true|false", for $GITHUB_OUTPUT.`,
		RunE: func(cmd *cobra.Command, options []string) error {
			result, err := f.run(cmd.Context(), options, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if f.summary != "" {
				text := func(w io.Writer) error {
					fmt.Fprint(w, "```\n")
					if err := f.text(w, result); err != nil {
						return err
					}
					_, err := fmt.Fprint(w, "```\n")
					return err
				}
				if err := rendered(text, func(data []byte) error { return appendTo(resolve(f.summary), data) }); err != nil {
					return fmt.Errorf("appending to the summary: %w", err)
				}
			}
			return f.print(cmd.OutOrStdout(), result)
		},
	}
	flags := cmd.Flags()
	cacheFlags(cmd, &f.cache)
	flags.BoolVar(&f.why, "why", false, "name all that the cache lacks, not only the first component")
	flags.StringVar(&f.output, "output", "text", "text, json or github")
	flags.StringVar(&f.summary, "summary", "", "file to append the plan to as Markdown, such as $GITHUB_STEP_SUMMARY")
	flags.StringVar(&f.outputBase, "output-base", "", "output base of the Bazel that asks (default: one in the cache directory)")
	flags.BoolVar(&f.verbose, "verbose", false, "show what Bazel prints")
	return cmd
}

// cacheFlags are how a remote cache is reached.
func cacheFlags(cmd *cobra.Command, o *remotecache.Options) {
	flags := cmd.Flags()
	flags.StringVar(&o.Endpoint, "cache", "", "the remote cache, grpc://HOST:PORT or grpcs://HOST:PORT")
	flags.StringVar(&o.Instance, "cache-instance", "", "name of the cache's instance")
	flags.StringArrayVar(&o.Headers, "cache-header", nil, "NAME=VALUE to send with each call (repeatable)")
	flags.StringVar(&o.CertificateAuthority, "tls-certificate", "", "PEM file of the certificate authority to trust")
	flags.StringVar(&o.Certificate, "tls-client-certificate", "", "PEM file of this client's certificate")
	flags.StringVar(&o.Key, "tls-client-key", "", "PEM file of this client's key")
}

// run makes the plan for the workspace that this was started in.
func (f *planFlags) run(ctx context.Context, options []string, progress io.Writer) (*plan.Result, error) {
	if f.output != "text" && f.output != "json" && f.output != "github" {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("--output=%s: must be text, json or github", f.output))
	}
	workspace, err := workspaceDir()
	if err != nil {
		return nil, err
	}
	base := f.outputBase
	if base == "" {
		if base, err = defaultOutputBase(workspace); err != nil {
			return nil, err
		}
	}
	var cache cacheonly.Cache = cacheonly.Nothing{}
	if f.cache.Endpoint != "" {
		client, err := remotecache.Dial(ctx, f.cache)
		if err != nil {
			return nil, err
		}
		defer client.Close()
		cache = client
	}
	log := &tailWriter{}
	bazel := nested.Bazel{Workspace: workspace, OutputBase: base, Log: log}
	if f.verbose {
		bazel.Log = progress
	} else {
		fmt.Fprintf(progress, "plan: asking Bazel for the keys of %s and the cache for what it has (--verbose shows how far it is)\n", plan.Targets)
	}
	result, err := plan.Make(ctx, plan.Options{Bazel: bazel, BazelOptions: options, Cache: cache})
	if err != nil && !f.verbose {
		fmt.Fprintf(progress, "%s\n", log)
	}
	return result, err
}

// print shows a plan.
func (f *planFlags) print(w io.Writer, result *plan.Result) error {
	switch f.output {
	case "json":
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(result)
	case "github":
		type job struct {
			Platform string `json:"platform"`
		}
		jobs := []job{}
		for _, p := range result.Platforms {
			jobs = append(jobs, job{p.Name})
		}
		matrix, err := json.Marshal(map[string]any{"include": jobs})
		if err != nil {
			return fmt.Errorf("writing the matrix: %w", err)
		}
		_, err = fmt.Fprintf(w, "matrix=%s\nany=%t\n", matrix, len(jobs) > 0)
		return err
	}
	return f.text(w, result)
}

// text shows a plan to people.
func (f *planFlags) text(w io.Writer, result *plan.Result) error {
	if len(result.Platforms) == 0 {
		_, err := fmt.Fprintf(w, "every platform has its verdict: %d tests passed on what is in this tree\n", result.Verdicts)
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "PLATFORM\tTESTS\tFIRST CHANGED")
	for _, p := range result.Platforms {
		first := "nothing: the tests have not run yet"
		for i, cause := range p.Why {
			switch {
			case i == 0:
				first = describe(cause)
			case f.why:
				first += ", " + describe(cause)
			}
		}
		fmt.Fprintf(table, "%s\t%d\t%s\n", p.Name, len(p.Tests), first)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%d tests have their verdict\n", result.Verdicts)
	return err
}

// describe names a cause by its target, and by what is done for it unless that
// is to make a component.
func describe(c plan.Cause) string {
	if c.Mnemonic == plan.ComponentMnemonic {
		return c.Target
	}
	return c.Target + " (" + c.Mnemonic + ")"
}

// workspaceDir finds the workspace: the one that `bazel run` was called in, or
// the closest one above the current folder.
func workspaceDir() (string, error) {
	if dir := os.Getenv("BUILD_WORKSPACE_DIRECTORY"); dir != "" {
		return dir, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", exitcode.With(exitcode.LocalIO, err)
	}
	dir, err = nested.WorkspaceAbove(dir)
	return dir, exitcode.With(exitcode.BadInput, err)
}

// defaultOutputBase gives an output base of Kiln's own for a workspace.
func defaultOutputBase(workspace string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", exitcode.With(exitcode.BadInput, fmt.Errorf("finding the cache directory: %w", err))
	}
	key := sha256.Sum256([]byte(workspace))
	return filepath.Join(cache, "kiln", "plan", fmt.Sprintf("%x", key[:8])), nil
}

// tailWriter keeps the end of what is written to it.
type tailWriter struct{ kept []byte }

func (t *tailWriter) Write(p []byte) (int, error) {
	const longest = 8 << 10
	t.kept = append(t.kept, p...)
	if extra := len(t.kept) - longest; extra > 0 {
		t.kept = t.kept[extra:]
	}
	return len(p), nil
}

func (t *tailWriter) String() string { return strings.TrimSpace(string(t.kept)) }
