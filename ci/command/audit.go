package command

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/ci/audit"
	"github.com/kiln-build/kiln/tools/atomicfile"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// auditFlags are what `kiln audit` is told.
type auditFlags struct {
	mnemonics    []string
	expectCached []string
	clockSkew    time.Duration
	completed    string
	buildLogs    []string
	events       []string
	output       string
	junit        string
	summary      string
}

// allJobs is what --expect-cached without a value means.
const allJobs = "*"

func newAuditCommand() *cobra.Command {
	var f auditFlags
	cmd := &cobra.Command{
		Use:   "audit [NAME=]LOG ...",
		Short: "Say how often each component was executed, and fail if more than once",
		Long: `Says for each component action of a run how often, where and when it was
executed, how many requests joined an execution in flight, and how many were
served by a cache.

A LOG is what --execution_log_compact_file or --execution_log_json_file of Bazel
7.7 wrote, of one job; a folder stands for all logs in it.

Exit codes: 0 no component action was executed more than once; 1 one was; 4 the
workers' list (--completed) counts otherwise; 6 a job of --expect-cached
executed a component action; 2 and 5 as for all commands.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, logs []string) error {
			report, err := f.run(cmd, logs)
			if err != nil {
				return err
			}
			if err := f.write(cmd.OutOrStdout(), report); err != nil {
				return err
			}
			return report.Err()
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&f.mnemonics, "mnemonic", []string{audit.Mnemonic}, "mnemonic of the actions to look at (repeatable)")
	flags.StringArrayVar(&f.expectCached, "expect-cached", nil, "=JOB, a job that should have executed nothing (repeatable); without a value, all of them")
	flags.Lookup("expect-cached").NoOptDefVal = allJobs
	flags.DurationVar(&f.clockSkew, "clock-skew", audit.Skew, "how far apart the clocks of the jobs' machines may be")
	flags.StringVar(&f.completed, "completed", "", "the workers' own list of executions to count against, one JSON object each")
	flags.StringArrayVar(&f.buildLogs, "build-log", nil, "[NAME=]FILE, what Bazel printed to stderr in a job (repeatable)")
	flags.StringArrayVar(&f.events, "events", nil, "[NAME=]FILE, what --build_event_json_file wrote in a job (repeatable)")
	flags.StringVar(&f.output, "output", "text", "text or json")
	flags.StringVar(&f.junit, "junit", "", "file for the report as JUnit XML")
	flags.StringVar(&f.summary, "summary", "", "file to append the report to as Markdown, such as $GITHUB_STEP_SUMMARY")
	return cmd
}

func (f *auditFlags) run(cmd *cobra.Command, logs []string) (*audit.Report, error) {
	if f.output != "text" && f.output != "json" {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("--output=%s: must be text or json", f.output))
	}
	jobs, err := audit.Load(cmd.Context(), named(logs))
	if err != nil {
		return nil, err
	}
	if err := audit.AddEvidence(jobs, named(f.buildLogs), (*audit.Evidence).ReadBuildLog); err != nil {
		return nil, err
	}
	if err := audit.AddEvidence(jobs, named(f.events), (*audit.Evidence).ReadEvents); err != nil {
		return nil, err
	}
	o := audit.Options{Mnemonics: f.mnemonics, Skew: f.clockSkew}
	for _, name := range f.expectCached {
		if name != allJobs {
			o.ExpectCached = append(o.ExpectCached, name)
			continue
		}
		for _, j := range jobs {
			o.ExpectCached = append(o.ExpectCached, j.Name)
		}
	}
	if f.completed != "" {
		if o.Completed, err = audit.ReadCompleted(resolve(f.completed)); err != nil {
			return nil, err
		}
	}
	return audit.Run(jobs, o)
}

func named(args []string) []audit.Named {
	var out []audit.Named
	for _, arg := range args {
		out = append(out, audit.ParseNamed(arg, resolve))
	}
	return out
}

// write writes the report wherever it is wanted.
func (f *auditFlags) write(stdout io.Writer, report *audit.Report) error {
	if f.junit != "" {
		if err := rendered(report.JUnit, func(data []byte) error {
			return atomicfile.WriteFile(resolve(f.junit), data, 0o644)
		}); err != nil {
			return fmt.Errorf("writing the JUnit report: %w", err)
		}
	}
	if f.summary != "" {
		if err := rendered(report.Markdown, func(data []byte) error {
			return appendTo(resolve(f.summary), data)
		}); err != nil {
			return fmt.Errorf("appending to the summary: %w", err)
		}
	}
	print := report.Text
	if f.output == "json" {
		print = report.JSON
	}
	err := rendered(print, func(data []byte) error {
		_, err := stdout.Write(data)
		return err
	})
	if err != nil {
		return fmt.Errorf("printing the report: %w", err)
	}
	return nil
}

// rendered keeps a document whole: it is made before any of it is written.
func rendered(document func(io.Writer) error, write func([]byte) error) error {
	var data bytes.Buffer
	if err := document(&data); err != nil {
		return err
	}
	return exitcode.With(exitcode.LocalIO, write(data.Bytes()))
}

// appendTo adds to a file that others add to as well, in one step.
func appendTo(path string, data []byte) (err error) {
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		if closing := file.Close(); err == nil {
			err = closing
		}
	}()
	_, err = file.Write(data)
	return err
}
