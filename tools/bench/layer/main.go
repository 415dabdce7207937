// Layer compares how Kiln packs a layer with what anyone would do instead:
// tar piped into zstd -T0, at the same level on the same bytes.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/tools/bench/layer/measure"
	"github.com/kiln-build/kiln/tools/exitcode"
	"github.com/kiln-build/kiln/tools/layer"
)

// The levels of the zstd command to compare with: the one that the layer's
// level is named after, and those that make layers of about the same size.
var levels = []int{6, 5}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cmd := benchCommand()
	cmd.AddCommand(packCommand())
	err := cmd.ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
	}
	os.Exit(exitcode.Of(err))
}

// packCommand is the process that is measured.
func packCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "pack DIR OUT",
		Hidden: true,
		Args:   cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			layer.BoundMemory()
			entries, err := layer.Walk(args[0], "")
			if err != nil {
				return err
			}
			// Like zstd, without waiting for the disk.
			f, err := os.Create(args[1])
			if err != nil {
				return exitcode.With(exitcode.LocalIO, err)
			}
			defer f.Close()
			if _, err := layer.Write(cmd.Context(), f, entries); err != nil {
				return err
			}
			return f.Close()
		},
	}
}

func benchCommand() *cobra.Command {
	var (
		dir, output string
		megabytes   int64
		runs        int
	)
	cmd := &cobra.Command{
		Use:           "layer",
		Short:         "Compare packing a layer with tar | zstd -T0",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "text" && output != "json" {
				return exitcode.With(exitcode.BadInput, fmt.Errorf("--output is %q, want text or json", output))
			}
			if runs < 1 || megabytes < 1 {
				return exitcode.With(exitcode.BadInput, fmt.Errorf("--runs and --megabytes must be at least 1"))
			}
			for _, tool := range []string{"tar", "zstd"} {
				if _, err := exec.LookPath(tool); err != nil {
					return exitcode.With(exitcode.BadInput, fmt.Errorf("%s is not installed, and there is nothing to compare with: %w", tool, err))
				}
			}
			report, err := bench(cmd.Context(), dir, megabytes<<20, runs)
			if err != nil {
				return err
			}
			if output == "json" {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				err = enc.Encode(report)
			} else {
				err = print(cmd.OutOrStdout(), report)
			}
			if err != nil {
				return exitcode.With(exitcode.LocalIO, fmt.Errorf("printing the report: %w", err))
			}
			if !report.Held {
				return exitcode.With(exitcode.Failed, fmt.Errorf("the bar is not held: at most %.2f times the time, and %d MiB", measure.MaxRatio, measure.MaxBytes>>20))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "directory to pack instead of generated data")
	cmd.Flags().Int64Var(&megabytes, "megabytes", 300, "how much data to generate")
	cmd.Flags().IntVar(&runs, "runs", 5, "how often to run each")
	cmd.Flags().StringVar(&output, "output", "text", "text or json")
	return cmd
}

func bench(ctx context.Context, dir string, size int64, runs int) (*measure.Report, error) {
	work, err := os.MkdirTemp("", "kiln-bench-*")
	if err != nil {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("making a work directory: %w", err))
	}
	defer os.RemoveAll(work)
	if dir == "" {
		dir = filepath.Join(work, "data")
		if err := measure.Generate(dir, size); err != nil {
			return nil, err
		}
	}
	report := &measure.Report{CPUs: runtime.NumCPU(), Runs: runs}
	// Counts the data, and brings it into the page cache for all.
	err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		n, err := io.Copy(io.Discard, f)
		report.Bytes += n
		report.Files++
		return err
	})
	if err != nil {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("reading the data: %w", err))
	}

	out := filepath.Join(work, "out.tar.zst")
	var own []measure.Run
	others := make([][]measure.Run, len(levels))
	for range runs {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		r, err := measure.Self(ctx, out, "pack", dir, out)
		if err != nil {
			return nil, err
		}
		own = append(own, r)
		for i, level := range levels {
			r, err := measure.Pipe(ctx, dir, out, level)
			if err != nil {
				return nil, err
			}
			others[i] = append(others[i], r)
		}
	}
	report.Layer = measure.Summarize("layer", own)
	for i, level := range levels {
		report.References = append(report.References, measure.Summarize(fmt.Sprintf("tar | zstd -%d -T0", level), others[i]))
	}
	report.TimeRatio = measure.Ratio(own, others[0])
	report.Held = report.TimeRatio <= measure.MaxRatio && report.Layer.PeakBytes < measure.MaxBytes
	return report, nil
}

func print(w io.Writer, r *measure.Report) error {
	const mib = 1 << 20
	if _, err := fmt.Fprintf(w, "%d files, %.1f MiB, %d CPUs, %d runs each in turn\n\n%-20s %9s %9s %11s %11s\n",
		r.Files, float64(r.Bytes)/mib, r.CPUs, r.Runs, "", "time", "CPU", "peak memory", "size"); err != nil {
		return err
	}
	for _, s := range append([]measure.Summary{r.Layer}, r.References...) {
		if _, err := fmt.Fprintf(w, "%-20s %7.2f s %7.2f s %7.1f MiB %7.1f MiB\n",
			s.Name, s.WallSeconds, s.CPUSeconds, float64(s.PeakBytes)/mib, float64(s.Size)/mib); err != nil {
			return err
		}
	}
	verdict := "held"
	if !r.Held {
		verdict = "NOT held"
	}
	_, err := fmt.Fprintf(w, "\ntime by that of %s: %.2f (bar: %.2f), peak memory %.1f MiB (bar: %d): %s\n",
		r.References[0].Name, r.TimeRatio, measure.MaxRatio, float64(r.Layer.PeakBytes)/mib, measure.MaxBytes/mib, verdict)
	return err
}
