// Package command is the command `kata-deploy`: one file a sub-command.
package command

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/deploy/settings"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// Run runs the command and gives the exit code.
func Run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	err := run(ctx, args, getenv, stdout, stderr)
	if err != nil {
		fmt.Fprintf(stderr, "error: %v\n", err)
	}
	return exitcode.Of(err)
}

func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	root := &cobra.Command{
		Use:           "kata-deploy",
		Short:         "Install Kata Containers on a node, and take it away again",
		SilenceErrors: true,
		SilenceUsage:  true,
		Long: `Install Kata Containers on a node, and take it away again.

Exit codes: 0 ok; 1 failed or interrupted; 2 bad usage, or something that is
not kata-deploy's is in the way; 4 the artefacts must not reach a node; 5 a file
could not be read or written, most often because the disk is full. After any
failure the same command goes on from where it stopped.`,
	}
	// An error before a command starts to run is one of usage.
	started := false
	prefix := getenv(settings.Prefix)
	for _, c := range []*cobra.Command{newInstall(prefix), newCleanup(prefix), newInstallCRI(getenv), newRevertCRI(getenv)} {
		inner := c.RunE
		c.Args = cobra.NoArgs
		c.RunE = func(cmd *cobra.Command, args []string) error {
			started = true
			return inner(cmd, args)
		}
		root.AddCommand(c)
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err != nil && !started {
		return exitcode.With(exitcode.BadInput, err)
	}
	return err
}

// outputFormat is the value of --output.
type outputFormat string

const (
	textOutput outputFormat = "text"
	jsonOutput outputFormat = "json"
)

func (o *outputFormat) String() string { return string(*o) }
func (o *outputFormat) Type() string   { return "text|json" }

func (o *outputFormat) Set(s string) error {
	switch outputFormat(s) {
	case textOutput, jsonOutput:
		*o = outputFormat(s)
		return nil
	}
	return fmt.Errorf("give %q or %q", textOutput, jsonOutput)
}

// print writes a result as JSON or as the given line.
func (o outputFormat) print(w io.Writer, result any, line string) error {
	data := []byte(line + "\n")
	if o == jsonOutput {
		var err error
		if data, err = json.MarshalIndent(result, "", "  "); err != nil {
			return fmt.Errorf("encoding the result: %w", err)
		}
		data = append(data, '\n')
	}
	if _, err := w.Write(data); err != nil {
		return exitcode.With(exitcode.LocalIO, fmt.Errorf("printing the result: %w", err))
	}
	return nil
}

func prefixFlag(cmd *cobra.Command, prefix *string, given string) {
	cmd.Flags().StringVar(prefix, "prefix", given, "install below this directory, in opt/kata (default /, or $"+settings.Prefix+")")
}
