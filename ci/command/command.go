// Package command is the command `kiln`: one file a sub-command.
package command

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// Run runs the command with arguments, without the program's name, and gives
// the exit code.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	// `go run` hands on the -- that `bazel run` takes for itself.
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	// An error before a command starts to run is one of usage.
	started := false
	root := New(func() { started = true })
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err != nil && !started {
		err = exitcode.With(exitcode.BadInput, err)
	}
	if err != nil {
		fmt.Fprintf(stderr, "kiln: error: %v\n", err)
	}
	return exitcode.Of(err)
}

// New makes the command. started is called when a sub-command was understood
// and begins.
func New(started func()) *cobra.Command {
	root := &cobra.Command{
		Use:           "kiln",
		Short:         "Say what CI must do, and what it did",
		SilenceErrors: true,
		SilenceUsage:  true,
		Long: `Say what CI must do, and what it did.

Exit codes: 0 ok; 1 failed; 2 bad usage or bad input; 3 something is out of
reach; 4 something is not what it must be; 5 a local file could not be read or
written; 6 actions were executed that a cache should have served.`,
	}
	for _, c := range []*cobra.Command{
		newAuditCommand(),
		newExplainCommand(),
		newPlanCommand(),
	} {
		inner := c.RunE
		c.RunE = func(cmd *cobra.Command, args []string) error {
			started()
			return inner(cmd, args)
		}
		root.AddCommand(c)
	}
	return root
}

// resolve makes a path that was given on the command line one of the folder
// that the user is in: `bazel run` starts programs elsewhere.
func resolve(path string) string {
	if dir := os.Getenv("BUILD_WORKING_DIRECTORY"); dir != "" && !filepath.IsAbs(path) {
		return filepath.Join(dir, path)
	}
	return path
}
