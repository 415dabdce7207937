package command

import (
	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/payload/bundle"
)

func newInspect(program string) *cobra.Command {
	var path string
	var files bool
	output := textOutput
	cmd := &cobra.Command{
		Use:   "inspect --bundle=FILE",
		Short: "Show what is in a payload, without reading its layers",
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := bundle.Open(path)
			if err != nil {
				return err
			}
			s, err := summarize(b, program)
			if err != nil {
				return err
			}
			if files {
				s.addFiles(b)
			}
			return s.print(cmd.OutOrStdout(), output)
		},
	}
	cmd.Flags().StringVar(&path, "bundle", "", "the payload's bundle.json, absolute or a runfile")
	cmd.Flags().BoolVar(&files, "files", false, "list every path as well")
	cmd.Flags().Var(&output, "output", "how to print the result")
	if err := cmd.MarkFlagRequired("bundle"); err != nil {
		panic(err) // The flag is not defined above.
	}
	return cmd
}
