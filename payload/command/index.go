package command

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/payload/image"
	"github.com/kiln-build/kiln/payload/receipt"
	"github.com/kiln-build/kiln/tools/atomicfile"
	"github.com/kiln-build/kiln/tools/component/metadata"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func newIndex() *cobra.Command {
	var (
		spec                                  image.Spec
		components, configurations            []string
		configOut, manifestOut, indexOut, out string
	)
	cmd := &cobra.Command{
		Use:   "index --platform=NAME --component=FILE... --config=FILE --manifest=FILE --index=FILE --receipt=FILE",
		Short: "Make a payload's documents from its components' metadata",
		RunE: func(*cobra.Command, []string) error {
			for _, c := range components {
				m, err := metadata.ReadFile(c)
				if err != nil {
					return fmt.Errorf("reading a component: %w", err)
				}
				spec.Components = append(spec.Components, m)
			}
			for _, c := range configurations {
				content, err := os.ReadFile(c)
				if err != nil {
					return exitcode.With(exitcode.LocalIO, fmt.Errorf("reading a configuration: %w", err))
				}
				if !installed(content, spec.Components) {
					return exitcode.With(exitcode.BadInput, fmt.Errorf("configuration %s is in none of the components", filepath.Base(c)))
				}
				spec.Configurations = append(spec.Configurations, image.Configuration{Name: filepath.Base(c), Content: content})
			}
			p, err := image.Build(spec)
			if err != nil {
				return err
			}
			for path, data := range map[string][]byte{configOut: p.Config, manifestOut: p.Manifest, indexOut: p.Index} {
				if err := atomicfile.WriteFile(path, data, 0o644); err != nil {
					return err
				}
			}
			return receipt.WriteFile(out, p.Receipt)
		},
	}
	f := cmd.Flags()
	f.StringVar(&spec.Platform, "platform", "", "the payload's platform")
	f.StringVar(&spec.Arch, "arch", "amd64", "the payload's architecture")
	f.StringSliceVar(&spec.RuntimeClasses, "runtime-class", nil, "a runtime class that the payload serves")
	f.StringSliceVar(&spec.Lacks, "lacks", nil, "an optional component that the payload is made without")
	f.StringVar(&spec.Registry, "registry", receipt.Embedded, `where it is to be published: "embedded" or host[:port][/path]`)
	f.StringVar(&spec.Agent, "agent", "", "the kind of agent in the guest image")
	f.StringVar(&spec.Inputs, "inputs", receipt.InputsPinned, "where the inputs came from")
	f.StringVar(&spec.Revision, "revision", "", "the source revision; it makes every commit a new payload")
	f.StringArrayVar(&components, "component", nil, "a component's metadata, in the order of layers")
	f.StringArrayVar(&configurations, "configuration", nil, "a configuration of a runtime class, whose paths must be in the payload")
	f.StringVar(&configOut, "config", "", "where to write the image's config")
	f.StringVar(&manifestOut, "manifest", "", "where to write the image's manifest")
	f.StringVar(&indexOut, "index", "", "where to write the image's index")
	f.StringVar(&out, "receipt", "", "where to write the receipt")
	for _, required := range []string{"platform", "agent", "component", "config", "manifest", "index", "receipt"} {
		if err := cmd.MarkFlagRequired(required); err != nil {
			panic(err) // The flag is not defined above.
		}
	}
	return cmd
}

// installed tells whether a component brings exactly this configuration, so
// that what is checked is what is shipped.
func installed(content []byte, components []*metadata.Component) bool {
	sum := sha256.Sum256(content)
	want := hex.EncodeToString(sum[:])
	for _, c := range components {
		for _, f := range c.Files {
			if f.SHA256 == want {
				return true
			}
		}
	}
	return false
}
