// Package command is the command `manifests`, which the rules of deploy/manifests
// run.
package command

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/deploy/manifests/archive"
	"github.com/kiln-build/kiln/deploy/manifests/fill"
	"github.com/kiln-build/kiln/payload/receipt"
	"github.com/kiln-build/kiln/tools/atomicfile"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// Run runs the command and gives the exit code.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	err := run(ctx, args, stdout, stderr)
	if err != nil {
		fmt.Fprintf(stderr, "error: %v\n", err)
	}
	return exitcode.Of(err)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	root := &cobra.Command{
		Use:           "manifests",
		Short:         "Make what is given to a cluster",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	// An error before a command starts to run is one of usage.
	started := false
	for _, c := range []*cobra.Command{newFill(), newPack()} {
		inner := c.RunE
		c.RunE = func(cmd *cobra.Command, args []string) error {
			started = true
			return inner(cmd, args)
		}
		root.AddCommand(c)
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err != nil && !started {
		return exitcode.With(exitcode.BadInput, err)
	}
	return err
}

func newFill() *cobra.Command {
	var (
		from, template, out string
		shims               []string
	)
	cmd := &cobra.Command{
		Use:   "fill --receipt=FILE --template=FILE --shim=NAME=ARCH,ARCH... --out=FILE",
		Short: "Fill a template with what a payload's receipt says",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			r, err := receipt.ReadFile(from)
			if err != nil {
				return err
			}
			p, err := fill.Of(r, shims)
			if err != nil {
				return err
			}
			text, err := read(template)
			if err != nil {
				return err
			}
			filled, err := fill.Fill(string(text), p)
			if err != nil {
				return fmt.Errorf("%s: %w", template, err)
			}
			return write(out, filled)
		},
	}
	f := cmd.Flags()
	f.StringVar(&from, "receipt", "", "the payload's receipt")
	f.StringVar(&template, "template", "", "what to fill")
	f.StringArrayVar(&shims, "shim", nil, "a shim that the payload has, and the architectures that it is for")
	f.StringVar(&out, "out", "", "where to write what is filled")
	require(cmd, "receipt", "template", "shim", "out")
	return cmd
}

func newPack() *cobra.Command {
	var root, out string
	cmd := &cobra.Command{
		Use:   "pack --root=DIRECTORY --out=FILE FILE...",
		Short: "Pack the files of a Helm chart",
		RunE: func(_ *cobra.Command, names []string) error {
			files := map[string][]byte{}
			for _, name := range names {
				inside, err := filepath.Rel(root, name)
				if err != nil || !filepath.IsLocal(inside) {
					return exitcode.With(exitcode.BadInput, fmt.Errorf("%s is not below %s", name, root))
				}
				content, err := read(name)
				if err != nil {
					return err
				}
				files[filepath.ToSlash(inside)] = content
			}
			packed, err := archive.Pack(files)
			if err != nil {
				return err
			}
			return write(out, packed)
		},
	}
	cmd.Flags().StringVar(&root, "root", "", "the chart's directory")
	cmd.Flags().StringVar(&out, "out", "", "where to write the archive")
	require(cmd, "root", "out")
	return cmd
}

func require(cmd *cobra.Command, flags ...string) {
	for _, name := range flags {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // The flag is not defined.
		}
	}
}

func read(name string) ([]byte, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, exitcode.With(exitcode.LocalIO, err)
	}
	return data, nil
}

func write(name string, data []byte) error {
	if err := atomicfile.WriteFile(name, data, 0o644); err != nil {
		return exitcode.With(exitcode.LocalIO, err)
	}
	return nil
}
