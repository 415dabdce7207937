package cli

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/tools/debian/lock"
	"github.com/kiln-build/kiln/tools/exitcode"
)

type relockResult struct {
	Relocked bool           `json:"relocked"`
	Lock     string         `json:"lock,omitempty"`
	Vanished []vanishedFile `json:"vanished"`
	Changes  []lock.Change  `json:"changes"`
}

func newRelock(o *options) *cobra.Command {
	local := ""
	cmd := &cobra.Command{
		Use:   "relock",
		Short: "Replace what no source has any more, in a local lock",
		Long: "Replace what no source has any more by the newest version in the same suite, together with whatever\n" +
			"that needs, in a lock of this machine alone. When nothing is gone, a local lock from before is removed.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if local == "" {
				local = filepath.Join(o.workspace, "debian.local.lock")
			}
			sets, err := lock.ReadSets(o.sets)
			if err != nil {
				return err
			}
			l, err := lock.Read(o.lock)
			if err != nil {
				return err
			}
			header := fmt.Sprintf("Made by `relock` for this machine alone from a debian.lock with sha256 %x,\n"+
				"since some of its files are gone from every source in reach. Payloads built from it say inputs=relocked.",
				sha256.Sum256(l.Format()))
			fresh, vanished, err := o.source(cmd.ErrOrStderr()).Relock(cmd.Context(), l, sets, header)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if fresh == nil {
				if err := os.Remove(local); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return exitcode.With(exitcode.LocalIO, fmt.Errorf("removing the stale local lock: %w", err))
				}
				if o.output == "json" {
					return printJSON(out, relockResult{Vanished: []vanishedFile{}, Changes: []lock.Change{}})
				}
				fmt.Fprintf(out, "%s: all %d files can be had, no local lock is needed\n", o.lock, len(l.Entries))
				return nil
			}
			if err := fresh.Write(local); err != nil {
				return err
			}
			changes := lock.Diff(l, fresh)
			if o.output == "json" {
				return printJSON(out, relockResult{Relocked: true, Lock: local, Vanished: vanishedFiles(vanished), Changes: changes})
			}
			fmt.Fprintf(out, "WARNING: %d of the %d files pinned in %s are gone from every source in reach.\n",
				len(vanished), len(l.Entries), o.lock)
			fmt.Fprintf(out, "These packages were resolved anew into %s:\n", local)
			printChanges(out, changes)
			fmt.Fprintln(out, "What is built from it is NOT the pinned build: payloads say inputs=relocked, and a release channel refuses them.")
			fmt.Fprintln(out, "Renew the lock itself with `bazel run //tools/debian:update`.")
			return nil
		},
	}
	cmd.Flags().StringVar(&local, "local-lock", "", "where the local lock is written (default: debian.local.lock at the root of the workspace)")
	return cmd
}
