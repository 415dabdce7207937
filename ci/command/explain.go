package command

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/ci/audit"
	"github.com/kiln-build/kiln/ci/explain"
	"github.com/kiln-build/kiln/ci/explain/cached"
	"github.com/kiln-build/kiln/ci/plan/remotecache"
	"github.com/kiln-build/kiln/tools/execlog"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func newExplainCommand() *cobra.Command {
	var mnemonics, keys []string
	var all bool
	var cache remotecache.Options
	cmd := &cobra.Command{
		Use:   "explain A B | explain --cache=ENDPOINT --key=HASH/SIZE B",
		Short: "Say why B executed what A had not",
		Long: `Compares the execution logs of two builds. For each component action that has
another key in B than in A, or that B executed again, it names what differs,
and the path through the graph from there to the component.

A and B are what --execution_log_compact_file or --execution_log_json_file of
Bazel 7.7 wrote. The compact format says more: which files are symlinks.

With --cache, A is what the cache still knows of the actions of --key: all that
went into them, if they were executed through it.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if cache.Endpoint == "" {
				return cobra.ExactArgs(2)(cmd, args)
			}
			if len(keys) == 0 {
				return errors.New("--cache needs --key: the keys of the actions to compare with")
			}
			return cobra.ExactArgs(1)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var builds []*explain.Build
			for _, path := range args {
				log, err := execlog.ReadFile(cmd.Context(), resolve(path))
				if err != nil {
					return err
				}
				builds = append(builds, explain.NewBuild(log))
			}
			build := builds[len(builds)-1]
			var base explain.Baseline = builds[0]
			if cache.Endpoint != "" {
				client, err := remotecache.Dial(cmd.Context(), cache)
				if err != nil {
					return err
				}
				defer client.Close()
				if base, err = cached.Read(cmd.Context(), client, cache.Instance, keys); err != nil {
					return err
				}
			}
			wanted := func(s *execlog.Spawn) bool { return all || slices.Contains(mnemonics, s.Mnemonic) }
			explanations, same := explain.Explain(build, base, wanted)
			if len(explanations)+same == 0 {
				return exitcode.With(exitcode.BadInput, fmt.Errorf(
					"%s has no action to explain (mnemonic %s): was everything up to date?", args[len(args)-1], strings.Join(mnemonics, " or ")))
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
	cmd.Flags().StringArrayVar(&keys, "key", nil, "key of an action in the cache to compare with (repeatable)")
	cacheFlags(cmd, &cache)
	cmd.Flags().BoolVar(&all, "all", false, "explain all actions")
	return cmd
}
