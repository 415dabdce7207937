// Command gomod builds programs of a foreign Go module from its vendored
// source tree. It is the tool of the rule go_module_binary.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/tools/exitcode"
	"github.com/kiln-build/kiln/tools/gomod/gobuild"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := newCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "gomod:", err)
		os.Exit(exitcode.Of(err))
	}
}

func newCommand() *cobra.Command {
	o := gobuild.Options{Variables: map[string]string{}}
	var programs, variables []string
	cmd := &cobra.Command{
		Use:           "gomod --sdk=DIR --archive=TAR --program=PACKAGE=FILE...",
		Short:         "Build programs of a vendored Go module",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.SDK == "" || o.Archive == "" || len(programs) == 0 {
				return exitcode.With(exitcode.BadInput, errors.New("--sdk, --archive and --program are all needed"))
			}
			for _, p := range programs {
				pkg, out, ok := strings.Cut(p, "=")
				if !ok || pkg == "" || out == "" {
					return exitcode.With(exitcode.BadInput, fmt.Errorf("--program=%s: want PACKAGE=FILE", p))
				}
				o.Programs = append(o.Programs, gobuild.Program{Package: pkg, Output: out})
			}
			for _, v := range variables {
				name, value, ok := strings.Cut(v, "=")
				if !ok || name == "" {
					return exitcode.With(exitcode.BadInput, fmt.Errorf("--variable=%s: want NAME=VALUE", v))
				}
				o.Variables[name] = value
			}
			o.Env = os.Environ()
			return gobuild.Build(cmd.Context(), o)
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return exitcode.With(exitcode.BadInput, err)
	})
	flags := cmd.Flags()
	flags.StringVar(&o.SDK, "sdk", "", "root of the Go SDK")
	flags.StringVar(&o.Archive, "archive", "", "tar of the module's tree with its vendor directory")
	flags.StringVar(&o.Sources, "sources", "", "file for the list of modules that the programs are made of (JSON)")
	flags.StringArrayVar(&programs, "program", nil, "main package to build and the file it becomes, PACKAGE=FILE (repeatable)")
	flags.StringArrayVar(&variables, "variable", nil, "string variable that the linker sets, NAME=VALUE (repeatable)")
	flags.StringArrayVar(&o.Tags, "tag", nil, "build tag (repeatable)")
	return cmd
}
