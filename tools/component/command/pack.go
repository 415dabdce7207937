package command

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/tools/component/assemble"
	"github.com/kiln-build/kiln/tools/exitcode"
	"github.com/kiln-build/kiln/tools/layer"
)

func packCommand() *cobra.Command {
	var (
		component                    componentFlags
		prefix                       string
		files, symlinks, executables []string
	)
	cmd := &cobra.Command{
		Use:   "pack",
		Short: "Make a component of files that are there already",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := component.get()
			if err != nil {
				return err
			}
			entries, err := packEntries(prefix, files, symlinks, executables)
			if err != nil {
				return fmt.Errorf("component %s: %w", c.Name, err)
			}
			return assemble.Write(cmd.Context(), c, entries)
		},
	}
	component.register(cmd)
	cmd.Flags().StringVar(&prefix, "prefix", "", "directory of the layer that all paths are below")
	cmd.Flags().StringArrayVar(&files, "file", nil, "PATH=SOURCE: a file or directory to install")
	cmd.Flags().StringArrayVar(&symlinks, "symlink", nil, "PATH=TARGET: a symlink to make")
	cmd.Flags().StringArrayVar(&executables, "executable", nil, "PATH of a file that gets mode 0755")
	return cmd
}

func packEntries(prefix string, files, symlinks, executables []string) ([]layer.Entry, error) {
	isExecutable := make(map[string]bool, len(executables))
	for _, p := range executables {
		isExecutable[p] = true
	}
	var entries []layer.Entry
	for _, f := range files {
		dest, source, found := strings.Cut(f, "=")
		if !found {
			return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("--file %q is not of the form PATH=SOURCE", f))
		}
		if path.IsAbs(dest) || path.Clean(dest) != dest {
			return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("path %q of %s is not a clean path below the prefix", dest, source))
		}
		// Two files for one path are found where all paths meet.
		more, err := assemble.Files(path.Join(prefix, dest), source, isExecutable[dest])
		if err != nil {
			return nil, err
		}
		delete(isExecutable, dest)
		entries = append(entries, more...)
	}
	for _, p := range slices.Sorted(maps.Keys(isExecutable)) {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("%s is to be executable, but no file goes there", p))
	}
	links, err := pairs("symlink", symlinks)
	if err != nil {
		return nil, err
	}
	for at, target := range links {
		entries = append(entries, layer.Entry{Path: path.Join(prefix, at), Type: layer.Symlink, Target: target})
	}
	if strings.HasPrefix(prefix+"/", assemble.ArtifactsDir+assemble.InstallDir+"/") {
		if err := assemble.CheckLinks(entries); err != nil {
			return nil, err
		}
	}
	return entries, nil
}
