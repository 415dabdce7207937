// Command unpack takes files out of an archive in which upstream publishes what
// it builds.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/stack/imports/archive"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func main() {
	if err := newCommand().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "unpack:", err)
		os.Exit(exitcode.Of(err))
	}
}

func newCommand() *cobra.Command {
	var from string
	var files []string
	cmd := &cobra.Command{
		Use:           "unpack --archive=FILE --file=PATH=OUTPUT...",
		Short:         "Take files out of an archive",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(*cobra.Command, []string) error {
			outputs := make(map[string]string, len(files))
			for _, file := range files {
				path, output, _ := strings.Cut(file, "=")
				if path == "" || output == "" || outputs[path] != "" {
					return exitcode.With(exitcode.BadInput, fmt.Errorf("--file=%s: want PATH=OUTPUT, each path once", file))
				}
				outputs[path] = output
			}
			if len(outputs) == 0 {
				return exitcode.With(exitcode.BadInput, errors.New("no --file is given"))
			}
			return archive.Unpack(from, outputs)
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exitcode.With(exitcode.BadInput, err) })
	flags := cmd.Flags()
	flags.StringVar(&from, "archive", "", "the archive")
	flags.StringArrayVar(&files, "file", nil, "path of a file in it, and where it goes")
	return cmd
}
