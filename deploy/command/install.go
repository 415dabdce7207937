package command

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/deploy/artifacts"
)

func newInstall(givenPrefix string) *cobra.Command {
	var source, prefix string
	output := textOutput
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Copy the payload's artefacts to the node",
		Long: `Copy the payload's artefacts to the node.

Every file appears whole and under a new inode, so running virtual machines
keep what they have open. What an earlier version brought and this one does
not is removed; what kata-deploy did not bring is never touched. Installing
again changes nothing.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dest, err := artifacts.Destination(prefix)
			if err != nil {
				return err
			}
			res, err := artifacts.Install(cmd.Context(), source, dest)
			if err != nil {
				return err
			}
			return output.print(cmd.OutOrStdout(), res, fmt.Sprintf("installed to %s: %d new, %d unchanged, %d removed, %.1f MiB written",
				res.Destination, res.Installed, res.Unchanged, res.Removed, float64(res.Bytes)/(1<<20)))
		},
	}
	cmd.Flags().StringVar(&source, "artifacts", artifacts.Source, "directory of the artefacts")
	cmd.Flags().Var(&output, "output", "how to print the result")
	prefixFlag(cmd, &prefix, givenPrefix)
	return cmd
}
