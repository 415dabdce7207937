package command

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/tools/component/assemble"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// componentFlags are what both commands know of a component.
type componentFlags struct {
	component assemble.Component
	sources   []string
	files     []string
	packages  []string
}

func (f *componentFlags) register(cmd *cobra.Command) {
	c := &f.component
	cmd.Flags().StringVar(&c.Name, "name", "", "the component's name")
	cmd.Flags().StringVar(&c.Version, "component-version", "", "version of what it is made from")
	cmd.Flags().StringVar(&c.License, "license", "", "SPDX licence expression")
	cmd.Flags().StringVar(&c.Arch, "arch", "", "architecture")
	cmd.Flags().StringVar(&c.LayerPath, "layer", "", "where the layer goes")
	cmd.Flags().StringVar(&c.MetadataPath, "metadata", "", "where the description goes")
	cmd.Flags().StringArrayVar(&f.sources, "source", nil, "a source for the SBOM, as JSON")
	cmd.Flags().StringArrayVar(&f.files, "source-list", nil, "a JSON list of sources for the SBOM")
	cmd.Flags().StringArrayVar(&f.packages, "packages", nil, "a JSON list of Debian packages for the SBOM")
}

// get gives the component, whose description must be complete before any work
// is done.
func (f *componentFlags) get() (assemble.Component, error) {
	c := f.component
	err := require(map[string]string{
		"name":              c.Name,
		"component-version": c.Version,
		"license":           c.License,
		"arch":              c.Arch,
		"layer":             c.LayerPath,
		"metadata":          c.MetadataPath,
	})
	if err != nil {
		return c, err
	}
	for _, s := range f.sources {
		source, err := assemble.ParseSource(s)
		if err != nil {
			return c, err
		}
		c.Sources = append(c.Sources, source)
	}
	for _, name := range f.files {
		sources, err := assemble.ReadSources(name)
		if err != nil {
			return c, err
		}
		c.Sources = append(c.Sources, sources...)
	}
	for _, name := range f.packages {
		sources, err := assemble.ReadPackages(name)
		if err != nil {
			return c, err
		}
		c.Sources = append(c.Sources, sources...)
	}
	assemble.SortSources(c.Sources)
	// One package may be in several lists.
	c.Sources = slices.Compact(c.Sources)
	return c, nil
}

// require refuses flags that were not given.
func require(flags map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		if flags[name] == "" {
			return exitcode.With(exitcode.BadInput, fmt.Errorf("--%s is missing", name))
		}
	}
	return nil
}

// pairs reads flags of the form NAME=VALUE. No name may come twice.
func pairs(flag string, values []string) (map[string]string, error) {
	out := make(map[string]string, len(values))
	for _, v := range values {
		name, value, found := strings.Cut(v, "=")
		if !found || name == "" {
			return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("--%s %q is not of the form NAME=VALUE", flag, v))
		}
		if old, there := out[name]; there {
			return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("--%s gives %s two values: %s, and %s", flag, name, old, value))
		}
		out[name] = value
	}
	return out, nil
}
