// Command unpack takes the agent out of the layer that upstream publishes it
// in.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/stack/agent/agentlayer"
	"github.com/kiln-build/kiln/tools/atomicfile"
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
			if err := unpack(layer, path, output); err != nil {
				return fmt.Errorf("taking the agent out of %s: %w", layer, err)
			}
			return nil
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exitcode.With(exitcode.BadInput, err) })
	flags := cmd.Flags()
	flags.StringVar(&layer, "layer", "", "the layer")
	flags.StringVar(&path, "path", "", "where the agent is in it")
	flags.StringVar(&output, "output", "", "the agent")
	return cmd
}

func unpack(layer, path, output string) error {
	in, err := os.Open(layer)
	if err != nil {
		return exitcode.With(exitcode.LocalIO, err)
	}
	defer func() { _ = in.Close() }()
	content, _, err := agentlayer.Find(in, path)
	if err != nil {
		return exitcode.With(exitcode.Unverified, err)
	}
	out, err := atomicfile.Create(output, 0o755)
	if err != nil {
		return exitcode.With(exitcode.LocalIO, err)
	}
	defer out.Abort()
	if _, err := io.Copy(out, content); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return exitcode.With(exitcode.Unverified, err)
		}
		return exitcode.With(exitcode.LocalIO, err)
	}
	return out.Commit()
}
