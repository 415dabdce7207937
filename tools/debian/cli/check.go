package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/tools/debian/lock"
	"github.com/kiln-build/kiln/tools/exitcode"
)

type checkResult struct {
	Lock     string         `json:"lock"`
	Files    int            `json:"files"`
	Vanished []vanishedFile `json:"vanished"`
}

type vanishedFile struct {
	Suite   string `json:"suite"`
	Package string `json:"package"`
	Version string `json:"version"`
	Path    string `json:"path"`
	Line    int    `json:"line"`
}

func vanishedFiles(entries []lock.Entry) []vanishedFile {
	files := make([]vanishedFile, 0, len(entries))
	for _, e := range entries {
		files = append(files, vanishedFile{e.Suite, e.Package, e.Version, e.Path, e.Line})
	}
	return files
}

func newCheck(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Check that every file in the lock can still be had",
		Long: "Check that every file in the lock can still be had.\n\n" +
			"Exit code 0: all can. 3: a source is out of reach. 4: some cannot, and they are listed.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := lock.Read(o.lock)
			if err != nil {
				return err
			}
			vanished, err := o.source(cmd.ErrOrStderr()).Vanished(cmd.Context(), l)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if o.output == "json" {
				err = printJSON(out, checkResult{Lock: o.lock, Files: len(l.Entries), Vanished: vanishedFiles(vanished)})
			} else {
				for _, e := range vanished {
					fmt.Fprintf(out, "%s:%d: %s %s of %s: no source has %s any more\n", o.lock, e.Line, e.Package, e.Version, e.Suite, e.Path)
				}
				if len(vanished) == 0 {
					fmt.Fprintf(out, "%s: all %d files can be had\n", o.lock, len(l.Entries))
				}
			}
			if err == nil && len(vanished) > 0 {
				err = exitcode.With(exitcode.Unverified, fmt.Errorf(
					"%d of %d files in %s are gone from every source; renew it with `bazel run //tools/debian:update`",
					len(vanished), len(l.Entries), o.lock))
			}
			return err
		},
	}
}
