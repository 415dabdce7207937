// Command cmd makes one stand-in: it is what the actions of the workspace of
// stand-ins run.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/tools/bench/once/standin"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func main() {
	err := command().ExecuteContext(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, "standin: error:", err)
	}
	os.Exit(exitcode.Of(err))
}

func command() *cobra.Command {
	var c standin.Component
	var from []string
	var out string
	var digests bool
	cmd := &cobra.Command{
		Use:           "standin",
		Short:         "Make a stand-in for a component",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if digests {
				return standin.Digests(from, out)
			}
			return standin.Make(cmd.Context(), c, from, out)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&c.Name, "name", "", "the component's name")
	flags.DurationVar(&c.Time, "time", 0, "how long it takes")
	flags.Int64Var(&c.Bytes, "bytes", 0, "size of the layer")
	flags.StringArrayVar(&from, "from", nil, "a file that it is made from (repeatable)")
	flags.BoolVar(&digests, "digests", false, "write the digests of --from: make a stand-in for a payload")
	flags.StringVar(&out, "out", "", "the file to write")
	return cmd
}
