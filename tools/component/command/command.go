// Package command is the command line of the component tool.
package command

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// Run runs the tool with the given arguments. What a failed build printed
// goes to stderr.
func Run(ctx context.Context, args []string, stderr io.Writer) error {
	args, err := expand(args)
	if err != nil {
		return err
	}
	cmd := &cobra.Command{
		Use:           "component",
		Short:         "Make a component's layer and its description",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return exitcode.With(exitcode.BadInput, err)
	})
	cmd.AddCommand(packCommand(), buildCommand())
	cmd.SetArgs(args)
	cmd.SetErr(stderr)
	if _, _, err := cmd.Find(args); err != nil {
		return exitcode.With(exitcode.BadInput, err)
	}
	return cmd.ExecuteContext(ctx)
}

func noArgs(cmd *cobra.Command, args []string) error {
	return exitcode.With(exitcode.BadInput, cobra.NoArgs(cmd, args))
}

// expand replaces each argument @FILE by the lines of the file: an action may
// have more arguments than a command line holds.
func expand(args []string) ([]string, error) {
	var out []string
	for _, arg := range args {
		name, isFile := strings.CutPrefix(arg, "@")
		if !isFile {
			out = append(out, arg)
			continue
		}
		f, err := os.Open(name)
		if err != nil {
			return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("reading arguments: %w", err))
		}
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			out = append(out, lines.Text())
		}
		err = lines.Err()
		f.Close()
		if err != nil {
			return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("reading arguments from %s: %w", name, err))
		}
	}
	return out, nil
}
