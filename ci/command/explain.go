package command

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/ci/audit"
	"github.com/kiln-build/kiln/ci/explain"
	"github.com/kiln-build/kiln/tools/execlog"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func newExplainCommand() *cobra.Command {
	var mnemonics []string
	var all bool
	cmd := &cobra.Command{
		Use:   "explain A B",
		Short: "Say why B executed what A had not",
		Long: `Compares the execution logs of two builds. For each component action that has
another key in B than in A, or that B executed again, it names what differs,
and the path through the graph from there to the component.

A and B are what --execution_log_compact_file or --execution_log_json_file of
Bazel 7.7 wrote. The compact format says more: which files are symlinks.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var builds [2]*explain.Build
			for i, path := range args {
				log, err := execlog.ReadFile(cmd.Context(), resolve(path))
				if err != nil {
					return err
				}
				builds[i] = explain.NewBuild(log)
			}
			wanted := func(s *execlog.Spawn) bool { return all || slices.Contains(mnemonics, s.Mnemonic) }
			explanations, same := explain.Explain(builds[1], builds[0], wanted)
			if len(explanations)+same == 0 {
				return exitcode.With(exitcode.BadInput, fmt.Errorf(
					"%s has no action to explain (mnemonic %s): was everything up to date?", args[1], strings.Join(mnemonics, " or ")))
			}
			var out bytes.Buffer
			for _, e := range explanations {
				if err := e.Text(&out); err != nil {
					return fmt.Errorf("writing an explanation: %w", err)
				}
				out.WriteByte('\n')
			}
			fmt.Fprintf(&out, "explained: %d; with the same key in A, and from a cache: %d\n", len(explanations), same)
			if _, err := cmd.OutOrStdout().Write(out.Bytes()); err != nil {
				return exitcode.With(exitcode.LocalIO, fmt.Errorf("printing the explanations: %w", err))
			}
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&mnemonics, "mnemonic", []string{audit.Mnemonic}, "mnemonic of the actions to explain (repeatable)")
	cmd.Flags().BoolVar(&all, "all", false, "explain all actions")
	return cmd
}
