package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/tools/debian/lock"
)

type updateResult struct {
	Lock    string        `json:"lock"`
	Files   int           `json:"files"`
	Bytes   int64         `json:"bytes"`
	Changes []lock.Change `json:"changes"`
}

func newUpdate(o *options) *cobra.Command {
	keep := false
	cmd := &cobra.Command{
		Use:   "update",
		Short: "Renew debian.lock with the newest versions that the mirror has",
		Long: "Renew debian.lock with the newest versions that the mirror has. With --keep, what is locked already keeps its\n" +
			"version as long as a mirror has it, so that a new set changes nothing else.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			sets, err := lock.ReadSets(o.sets)
			if err != nil {
				return err
			}
			old := &lock.Lock{}
			if _, err := os.Stat(o.lock); !errors.Is(err, fs.ErrNotExist) {
				if old, err = lock.Read(o.lock); err != nil {
					return err
				}
			}
			kept := old
			if !keep {
				kept = &lock.Lock{}
			}
			fresh, err := o.source(cmd.ErrOrStderr()).Update(cmd.Context(), sets, kept)
			if err != nil {
				return err
			}
			if err := fresh.Write(o.lock); err != nil {
				return err
			}
			result := updateResult{Lock: o.lock, Files: len(fresh.Entries), Changes: lock.Diff(old, fresh)}
			for _, e := range fresh.Entries {
				result.Bytes += e.Size
			}
			if o.output == "json" {
				return printJSON(cmd.OutOrStdout(), result)
			}
			printChanges(cmd.OutOrStdout(), result.Changes)
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %d files, %.0f MB, packages changed: %d\n",
				o.lock, result.Files, float64(result.Bytes)/1e6, len(result.Changes))
			return nil
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "keep the versions that are locked already")
	return cmd
}

func printChanges(w io.Writer, changes []lock.Change) {
	for _, c := range changes {
		where := fmt.Sprintf("%s (%s)", c.Suite, strings.Join(c.Sets, ", "))
		name := c.Package
		if c.Arch != "amd64" && c.Arch != "all" {
			name += " (" + c.Arch + ")"
		}
		switch {
		case c.Old == "":
			fmt.Fprintf(w, "  + %s %s in %s\n", name, c.New, where)
		case c.New == "":
			fmt.Fprintf(w, "  - %s %s from %s\n", name, c.Old, where)
		case c.Old == c.New:
			fmt.Fprintf(w, "  ~ %s %s in %s: same version, other file or sets\n", name, c.New, where)
		default:
			fmt.Fprintf(w, "  ~ %s %s -> %s in %s\n", name, c.Old, c.New, where)
		}
	}
}
