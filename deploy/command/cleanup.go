package command

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/deploy/artifacts"
)

func newCleanup(givenPrefix string) *cobra.Command {
	var prefix string
	output := textOutput
	cmd := &cobra.Command{
		Use:   "cleanup",
		Short: "Remove what install brought, and nothing else",
		RunE: func(cmd *cobra.Command, _ []string) error {
			dest, err := artifacts.Destination(prefix)
			if err != nil {
				return err
			}
			res, err := artifacts.Cleanup(cmd.Context(), dest)
			if err != nil {
				return err
			}
			line := fmt.Sprintf("removed %d files from %s", res.Removed, res.Destination)
			if len(res.Kept) > 0 {
				line += "; kept, since others have files there: " + strings.Join(res.Kept, ", ")
			}
			return output.print(cmd.OutOrStdout(), res, line)
		},
	}
	cmd.Flags().Var(&output, "output", "how to print the result")
	prefixFlag(cmd, &prefix, givenPrefix)
	return cmd
}
