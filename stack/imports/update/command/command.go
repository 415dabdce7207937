// Package command is the command that renews the lock of what is imported.
package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/bazelbuild/rules_go/go/runfiles"
	"github.com/spf13/cobra"

	"github.com/kiln-build/kiln/stack/imports/importlock"
	"github.com/kiln-build/kiln/stack/imports/provenance"
	"github.com/kiln-build/kiln/stack/imports/resolve"
	"github.com/kiln-build/kiln/tools/exitcode"
)

const (
	// RegistryVariable names the registry where --registry does not.
	RegistryVariable = "KILN_IMPORTS_REGISTRY"
	// lockPath is the lock's place in the workspace.
	lockPath = "stack/imports.lock"
)

// Environment is what the command finds around it.
type Environment struct {
	// Workspace is the root of the Kiln workspace.
	Workspace string
	// Registry is the value of RegistryVariable.
	Registry string
}

// What became of a row.
const (
	pinned    = "pinned"
	unchanged = "unchanged"
	failed    = "failed"
)

// result is what became of a row, as --output=json has it.
type result struct {
	Component string `json:"component"`
	Arch      string `json:"arch"`
	// Result is pinned, unchanged or failed.
	Result     string                 `json:"result"`
	Reference  string                 `json:"reference,omitempty"`
	Provenance *importlock.Provenance `json:"provenance,omitempty"`
	Error      string                 `json:"error,omitempty"`
	err        error
}

type options struct {
	lock        string
	table       string
	registry    string
	trustedRoot string
	arches      []string
	output      string
}

// New makes the command.
func New(e Environment) *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use:   "imports.update [COMPONENT[=TAG]]...",
		Short: "Resolve the tags of what is imported to digests, and pin those",
		Long: `Resolve the tags of what is imported to digests, and pin those in stack/imports.lock.

Without arguments, all imports of the table are resolved. What the registry states of
how an artefact was built is verified; a statement that does not hold is an error.
What cannot be resolved stays as it was, and the others are pinned all the same.

Exit code 0: all could be resolved. 2: bad input. 3: the registry is out of reach or
does not have it. 4: it is not what it must be, or its provenance does not hold.`,
		Example: "  bazel run //stack:imports.update -- --registry=registry.example\n" +
			"  bazel run //stack:imports.update -- coco-guest-components=0123abc-ubuntu26.04",
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), args, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exitcode.With(exitcode.BadInput, err) })
	flags := cmd.Flags()
	flags.StringVar(&o.lock, "lock", filepath.Join(e.Workspace, lockPath), "the lock to renew")
	flags.StringVar(&o.table, "table", "", "the table of imports, JSON: a file or a runfile")
	flags.StringVar(&o.registry, "registry", e.Registry, "the registry that has upstream's artefacts (default: $"+RegistryVariable+", or where each was pinned before)")
	flags.StringVar(&o.trustedRoot, "trusted-root", "", "trusted_root.json with the keys that provenance is verified with (default: Sigstore's own, by TUF)")
	flags.StringSliceVar(&o.arches, "arch", nil, "only for these architectures, by Go's names")
	flags.StringVar(&o.output, "output", "text", "text or json")
	return cmd
}

func (o *options) run(ctx context.Context, args []string, stdout, progress io.Writer) error {
	if o.output != "text" && o.output != "json" {
		return exitcode.With(exitcode.BadInput, fmt.Errorf("--output=%s: want text or json", o.output))
	}
	table, err := readTable(o.table)
	if err != nil {
		return err
	}
	rows, err := choose(table, args, o.arches)
	if err != nil {
		return err
	}
	lock, err := importlock.Read(o.lock)
	if err != nil {
		return err
	}
	verifier := &provenance.Verifier{Root: provenance.FromFile(o.trustedRoot)}
	var results []result
	changed := false
	for _, row := range rows {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		fmt.Fprintf(progress, "imports.update: resolving %s for %s\n", row.Component, row.Arch)
		r := o.resolve(ctx, lock, row, verifier)
		changed = changed || r.Result == pinned
		results = append(results, r)
	}
	if changed {
		if err := importlock.Write(o.lock, lock); err != nil {
			return err
		}
	}
	if err := o.print(stdout, results); err != nil {
		return err
	}
	return summary(results)
}

// resolve resolves one row, and pins it in the lock.
func (o *options) resolve(ctx context.Context, lock *importlock.Lock, row resolve.Row, verifier resolve.Verifier) result {
	r := result{Component: row.Component, Arch: row.Arch}
	fail := func(err error) result {
		r.Result, r.Error, r.err = failed, err.Error(), err
		return r
	}
	old := lock.Find(row.Component, row.Arch)
	registry := o.registry
	if registry == "" && old != nil {
		registry = old.Registry
	}
	if registry == "" {
		return fail(exitcode.With(exitcode.BadInput, errors.New("no registry is known: give --registry=HOST, or set "+RegistryVariable)))
	}
	if row.Tag == "" && old != nil {
		row.Tag = old.Tag
	}
	if row.Tag == "" {
		return fail(exitcode.With(exitcode.BadInput, fmt.Errorf("upstream names it by commits alone: give %s=TAG", row.Component)))
	}
	found, err := (&resolve.Resolver{Registry: registry, Verifier: verifier}).Resolve(ctx, row)
	if err != nil {
		return fail(err)
	}
	r.Result = pinned
	if old != nil && old.Digest == found.Digest {
		r.Result = unchanged
	}
	r.Reference = fmt.Sprintf("%s/%s@%s", found.Registry, found.Repository, found.Digest)
	r.Provenance = found.Provenance
	lock.Set(*found)
	return r
}

func readTable(file string) ([]resolve.Row, error) {
	fail := func(err error) ([]resolve.Row, error) {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("reading the table of imports %q: %w", file, err))
	}
	if _, err := os.Stat(file); err != nil {
		if file, err = runfiles.Rlocation(file); err != nil {
			return fail(err)
		}
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return fail(err)
	}
	var rows []resolve.Row
	if err := json.Unmarshal(data, &rows); err != nil {
		return fail(err)
	}
	return rows, nil
}

// choose gives the rows that the arguments name: all without arguments.
func choose(table []resolve.Row, args, arches []string) ([]resolve.Row, error) {
	bad := func(kind, name string, of func(resolve.Row) string) error {
		var known []string
		for _, row := range table {
			known = append(known, of(row))
		}
		slices.Sort(known)
		return exitcode.With(exitcode.BadInput, fmt.Errorf("unknown %s %q; there are: %s", kind, name, strings.Join(slices.Compact(known), ", ")))
	}
	component := func(row resolve.Row) string { return row.Component }
	arch := func(row resolve.Row) string { return row.Arch }
	tags := make(map[string]string, len(args))
	for _, arg := range args {
		name, tag, _ := strings.Cut(arg, "=")
		if !slices.ContainsFunc(table, func(row resolve.Row) bool { return row.Component == name }) {
			return nil, bad("import", name, component)
		}
		tags[name] = tag
	}
	for _, name := range arches {
		if !slices.ContainsFunc(table, func(row resolve.Row) bool { return row.Arch == name }) {
			return nil, bad("architecture", name, arch)
		}
	}
	var rows []resolve.Row
	for _, row := range table {
		tag, named := tags[row.Component]
		if len(args) > 0 && !named || len(arches) > 0 && !slices.Contains(arches, row.Arch) {
			continue
		}
		if tag != "" {
			row.Tag = tag
		}
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("%s: there is none for %s", strings.Join(args, " "), strings.Join(arches, ", ")))
	}
	return rows, nil
}

func (o *options) print(w io.Writer, results []result) error {
	if o.output == "json" {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(map[string]any{"lock": o.lock, "imports": results})
	}
	columns := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(columns, "IMPORT\tFOR\tRESULT\tPROVENANCE\t")
	for _, r := range results {
		what, built := r.Reference, "none"
		if r.err != nil {
			what, built = r.Error, ""
		} else if r.Provenance != nil {
			built = fmt.Sprintf("%s at %.12s", r.Provenance.Source, r.Provenance.Commit)
		}
		fmt.Fprintf(columns, "%s\t%s\t%s\t%s\t%s\n", r.Component, r.Arch, r.Result, built, what)
	}
	return columns.Flush()
}

// summary is the error of those that failed, with the code of the first.
func summary(results []result) error {
	var first *result
	n := 0
	for i := range results {
		if results[i].err == nil {
			continue
		}
		if first == nil {
			first = &results[i]
		}
		n++
	}
	if first == nil {
		return nil
	}
	return exitcode.With(exitcode.Of(first.err), fmt.Errorf("%d of %d imports could not be resolved and stay as they were; the first is %s for %s: %w",
		n, len(results), first.Component, first.Arch, first.err))
}
