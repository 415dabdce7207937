// Command unpack takes the agent out of the layer that upstream publishes it
// in.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/stack/agent/agentlayer"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func main() {
	if err := newCommand().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "unpack:", err)
		os.Exit(exitcode.Of(err))
	}
}

func newCommand() *cobra.Command {
	var layer, path, output string
	cmd := &cobra.Command{
		Use:           "unpack --layer=FILE --path=PATH --output=FILE",
		Short:         "Take the agent out of a layer",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(*cobra.Command, []string) error {
			return agentlayer.Unpack(layer, path, output)
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exitcode.With(exitcode.BadInput, err) })
	flags := cmd.Flags()
	flags.StringVar(&layer, "layer", "", "the layer")
	flags.StringVar(&path, "path", "", "where the agent is in it")
	flags.StringVar(&output, "output", "", "the agent")
	return cmd
}
