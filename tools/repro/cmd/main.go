// Command repro builds targets twice, each time in a new folder and with nothing
// cached, and compares the digests of what comes out.
//
// Usage: bazel run //tools/repro/cmd -- [--dir DIR] [--output json] [TARGET ...]
//
// It exits with 4 when the two builds differ.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"sort"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/tools/exitcode"
	"github.com/kiln-build/kiln/tools/nested"
	"github.com/kiln-build/kiln/tools/repro"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "repro: error:", err)
	}
	os.Exit(exitcode.Of(err))
}

func command() *cobra.Command {
	var dir, output string
	cmd := &cobra.Command{
		Use:           "repro [TARGET ...]",
		Short:         "Build targets twice from nothing and compare the digests",
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, targets []string) error {
			if output != "text" && output != "json" {
				return exitcode.With(exitcode.BadInput, fmt.Errorf("--output=%s: must be text or json", output))
			}
			if len(targets) == 0 {
				targets = []string{"//payload:all", "//stack/..."}
			}
			return run(cmd.Context(), dir, targets, output == "json", cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "where to build; about 15 GB (default: the cache directory)")
	cmd.Flags().StringVar(&output, "output", "text", "text or json")
	return cmd
}

func run(ctx context.Context, dir string, targets []string, asJSON bool, out io.Writer) (err error) {
	workspace := os.Getenv("BUILD_WORKSPACE_DIRECTORY")
	if workspace == "" {
		return exitcode.With(exitcode.BadInput, errors.New("not started by `bazel run`: BUILD_WORKSPACE_DIRECTORY is not set"))
	}
	work, err := nested.WorkDir(dir, "repro-")
	if err != nil {
		return exitcode.With(exitcode.LocalIO, err)
	}
	defer func() { err = errors.Join(err, nested.RemoveAll(work)) }()
	var builds [2]repro.Digests
	for i, name := range []string{"first", "second/in/a/deeper/folder"} {
		fmt.Fprintf(os.Stderr, "repro: build %d of 2, in %s\n", i+1, filepath.Join(work, name))
		if builds[i], err = repro.Build(ctx, workspace, filepath.Join(work, name), repro.Everything(), targets, os.Stderr); err != nil {
			return err
		}
	}
	differences := repro.Compare(builds[0], builds[1])
	if err := print(out, builds[0], differences, asJSON); err != nil {
		return err
	}
	if len(differences) > 0 {
		return exitcode.With(exitcode.Unverified, fmt.Errorf("%d of %d digests differ between two builds", len(differences), len(builds[0])))
	}
	return nil
}

func print(out io.Writer, digests repro.Digests, differences []repro.Difference, asJSON bool) error {
	if asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(map[string]any{"digests": digests, "differences": differences})
	}
	different := map[string]repro.Difference{}
	for _, d := range differences {
		different[d.Name] = d
		digests[d.Name] = d.First
	}
	names := make([]string, 0, len(digests))
	for name := range digests {
		names = append(names, name)
	}
	sort.Strings(names)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, name := range names {
		if d, ok := different[name]; ok {
			fmt.Fprintf(table, "%s\tDIFFERS\t%s\t%s\n", name, d.First, d.Second)
		} else {
			fmt.Fprintf(table, "%s\tsame\t%s\n", name, digests[name])
		}
	}
	return table.Flush()
}
