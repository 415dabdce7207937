// Package command is the command `payload`: one file a sub-command.
package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// Run runs the command with a program's arguments, of which the first is the
// name under which it was started, and gives the exit code.
func Run(ctx context.Context, argv []string, stdout, stderr io.Writer) int {
	err := run(ctx, argv, stdout, stderr)
	if err != nil {
		fmt.Fprintf(stderr, "error: %v\n", err)
	}
	return exitcode.Of(err)
}

func run(ctx context.Context, argv []string, stdout, stderr io.Writer) error {
	given, err := givenArgs(argv[0])
	if err != nil {
		return err
	}
	root := &cobra.Command{
		Use:           "payload",
		Short:         "Build, publish and show payloads of the Kata Containers stack",
		SilenceErrors: true,
		SilenceUsage:  true,
		Long: `Build, publish and show payloads of the Kata Containers stack.

Exit codes: 0 ok; 1 failed; 2 bad usage or bad input; 3 a registry is out of
reach or refused; 4 something is not what it must be; 5 a local file could not
be read or written, most often because a disk is full.`,
	}
	// An error before a command starts to run is one of usage.
	started := false
	for _, c := range []*cobra.Command{newIndex(), newPublish(argv[0]), newInspect(argv[0]), newServe()} {
		inner := c.RunE
		c.Args = cobra.NoArgs
		c.RunE = func(cmd *cobra.Command, args []string) error {
			started = true
			return inner(cmd, args)
		}
		root.AddCommand(c)
	}
	root.SetArgs(append(given, argv[1:]...))
	root.SetOut(stdout)
	root.SetErr(stderr)
	err = root.ExecuteContext(ctx)
	if err != nil && !started {
		return exitcode.With(exitcode.BadInput, err)
	}
	return err
}

// givenArgs are the arguments that a rule put beside the name under which it
// made this program available, so that no script is needed to pass them.
func givenArgs(program string) ([]string, error) {
	// A program found by PATH has no rule's arguments beside it.
	if filepath.Base(program) == program {
		return nil, nil
	}
	file := program + ".args"
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("reading the rule's arguments: %w", err))
	}
	var args []string
	if err := json.Unmarshal(data, &args); err != nil {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("%s: %w", file, err))
	}
	return args, nil
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

// cacheDir is Kiln's directory for what may be made again.
func cacheDir(elem ...string) (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", exitcode.With(exitcode.BadInput, fmt.Errorf("finding the cache directory: %w: set XDG_CACHE_HOME or HOME", err))
	}
	return filepath.Join(append([]string{base, "kiln"}, elem...)...), nil
}
