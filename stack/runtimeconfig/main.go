// Command runtimeconfig renders one configuration file of the Kata runtime
// from the template that the runtime's module carries.
package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/stack/runtimeconfig/configuration"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func main() {
	if err := newCommand().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "runtimeconfig:", err)
		os.Exit(exitcode.Of(err))
	}
}

func newCommand() *cobra.Command {
	var template, name, prefix, arch, output, rootHash, paramsVariable, image, initrd string
	var set []string
	cmd := &cobra.Command{
		Use:           "runtimeconfig --template=FILE --output=FILE",
		Short:         "Render a configuration of the Kata runtime",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(*cobra.Command, []string) error {
			text, err := os.ReadFile(template)
			if err != nil {
				return exitcode.With(exitcode.BadInput, fmt.Errorf("reading the template: %w", err))
			}
			if name == "" {
				name = template
			}
			defaults, err := configuration.Defaults(prefix, arch)
			if err != nil {
				return err
			}
			spec := configuration.Spec{
				Name:     name,
				Template: string(text),
				Defaults: defaults,
				Set:      map[string]string{},
				Image:    image,
				Initrd:   initrd,
			}
			for _, s := range set {
				key, value, ok := strings.Cut(s, "=")
				if !ok || key == "" {
					return exitcode.With(exitcode.BadInput, fmt.Errorf("--set=%s: want NAME=VALUE", s))
				}
				spec.Set[key] = value
			}
			if rootHash != "" {
				if err := measureRoot(&spec, rootHash, paramsVariable); err != nil {
					return err
				}
			}
			rendered, err := configuration.Render(spec)
			if err != nil {
				return err
			}
			if err := os.WriteFile(output, []byte(rendered), 0o644); err != nil {
				return exitcode.With(exitcode.LocalIO, fmt.Errorf("writing the configuration: %w", err))
			}
			return nil
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return exitcode.With(exitcode.BadInput, err)
	})
	flags := cmd.Flags()
	flags.StringVar(&template, "template", "", "the template, with variables @NAME@")
	flags.StringVar(&name, "template-name", "", "what errors call the template")
	flags.StringVar(&prefix, "prefix", "/opt/kata", "where the payload is installed")
	flags.StringVar(&arch, "arch", "amd64", "architecture of the node, by Go's name")
	flags.StringVar(&output, "output", "", "the configuration to write")
	flags.StringArrayVar(&set, "set", nil, "value of a variable, NAME=VALUE (repeatable)")
	flags.StringVar(&image, "image", "", "guest image on the node, in place of the initrd that the template names")
	flags.StringVar(&initrd, "initrd", "", "guest initrd on the node, in place of the image that the template names")
	flags.StringVar(&rootHash, "root-hash", "", "root_hash_<variant>.txt of the guest image")
	flags.StringVar(&paramsVariable, "kernel-params-variable", "", "variable that holds the kernel parameters, to which those for dm-verity are added")
	return cmd
}

// measureRoot makes the kernel parameters ask for the verity tree that the
// file describes.
func measureRoot(spec *configuration.Spec, file, variable string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return exitcode.With(exitcode.BadInput, fmt.Errorf("reading the root hash: %w", err))
	}
	verity, err := configuration.ParseVerity(file, string(text))
	if err != nil {
		return err
	}
	base, ok := spec.Set[variable]
	if !ok {
		base = spec.Defaults[variable]
	}
	spec.Set[variable] = strings.TrimSpace(base + " " + configuration.Quote(verity.KernelParams()))
	return nil
}
