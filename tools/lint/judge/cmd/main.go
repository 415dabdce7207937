// Command cmd judges one Go package: it prints what is wrong with it, and ends with an
// error if that is anything. It is the tool of the aspect go_lint.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/tools/exitcode"
	"github.com/kiln-build/kiln/tools/lint/judge"
)

func main() {
	if err := newCommand(os.Stderr).Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "lint:", err)
		os.Exit(exitcode.Of(err))
	}
}

func newCommand(findings io.Writer) *cobra.Command {
	var u judge.Unit
	var imports []string
	var part, out string
	cmd := &cobra.Command{
		Use:           "lint --path=PACKAGE --std=DIR --out=FILE [--src=FILE...] [--generated=FILE...]",
		Short:         "Judge a Go package by go vet and staticcheck",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(*cobra.Command, []string) error {
			if u.Path == "" || u.Std == "" || out == "" || len(u.Judged) == 0 {
				return exitcode.With(exitcode.BadInput, errors.New("--path, --std, --out and --src are all needed"))
			}
			var err error
			if u.Part, err = parsePart(part); err != nil {
				return exitcode.With(exitcode.BadInput, err)
			}
			if u.Imports, err = parseImports(imports); err != nil {
				return exitcode.With(exitcode.BadInput, err)
			}
			return run(u, out, findings)
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return exitcode.With(exitcode.BadInput, err)
	})
	flags := cmd.Flags()
	flags.StringVar(&u.Path, "path", "", "path of the package")
	flags.StringVar(&u.Std, "std", "", "folder with the archives of the standard library")
	flags.StringVar(&u.GOOS, "goos", "", "operating system that the package is compiled for")
	flags.StringVar(&u.GOARCH, "goarch", "", "architecture that the package is compiled for")
	flags.StringVar(&part, "part", "whole", "what is judged of the files: whole, internal or external")
	flags.StringVar(&out, "out", "", "file for the facts about the package")
	flags.StringArrayVar(&u.Judged, "src", nil, "file to judge (repeatable)")
	flags.StringArrayVar(&u.Others, "generated", nil, "file of the package that is not judged (repeatable)")
	flags.StringArrayVar(&u.Tags, "tag", nil, "build tag (repeatable)")
	flags.StringArrayVar(&imports, "import", nil, "package to import, IMPORT=PATH=FILE (repeatable)")
	flags.StringArrayVar(&u.Facts, "facts", nil, "file of facts about an imported package (repeatable)")
	return cmd
}

func parsePart(name string) (judge.Part, error) {
	parts := map[string]judge.Part{"whole": judge.Whole, "internal": judge.Internal, "external": judge.External}
	part, ok := parts[name]
	if !ok {
		return 0, fmt.Errorf("--part=%s: want whole, internal or external", name)
	}
	return part, nil
}

func parseImports(args []string) (map[string]judge.Import, error) {
	imports := map[string]judge.Import{}
	for _, arg := range args {
		fields := strings.SplitN(arg, "=", 3)
		if len(fields) != 3 {
			return nil, fmt.Errorf("--import=%s: want IMPORT=PATH=FILE", arg)
		}
		imports[fields[0]] = judge.Import{Path: fields[1], File: fields[2]}
	}
	return imports, nil
}

func run(u judge.Unit, out string, findings io.Writer) error {
	verdict, err := judge.Judge(u)
	if err != nil {
		return err
	}
	for _, f := range verdict.Findings {
		if _, err := fmt.Fprintln(findings, f); err != nil {
			return exitcode.With(exitcode.LocalIO, fmt.Errorf("printing a finding: %w", err))
		}
	}
	if n := len(verdict.Findings); n > 0 {
		return fmt.Errorf("%s has %d findings", u.Path, n)
	}
	if err := os.WriteFile(out, verdict.Facts, 0o666); err != nil {
		return exitcode.With(exitcode.LocalIO, fmt.Errorf("writing facts: %w", err))
	}
	return nil
}
