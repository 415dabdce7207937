// Package judge runs the analyzers of `go vet` and `staticcheck` on one Go package,
// from its sources and from what the compiler exported of the packages that it
// imports. It needs neither the go command nor the sources of other packages.
//
// What analyzers must know of imported packages comes as files of facts, which
// judging those packages made. Of a package without such a file nothing is known but
// its types: not that it deprecates a function, for example, or that one formats.
// What the analyzers know of the standard library by themselves, they know.
package judge

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"os"
	"slices"
	"strings"

	"golang.org/x/tools/go/analysis"
	"honnef.co/go/tools/unused"
)

// A Part is what is judged of files that may be of a package and of its external
// test.
type Part int

const (
	// Whole is all files: none is of an external test, or all are.
	Whole Part = iota
	// Internal is all but those of the external test.
	Internal
	// External is the external test: the files whose package ends with _test.
	External
)

// An Import says where an imported package is.
type Import struct {
	// Path is the package's own path, which may differ from the one that
	// imports name.
	Path string
	// File is what the compiler exported of it.
	File string
}

// A Unit is a package to judge.
type Unit struct {
	// Path is the package's path.
	Path string
	// Judged are its files, and findings are in them alone.
	Judged []string
	// Others are the files that belong to it, but that nobody wrote.
	Others []string
	// Part is what is judged of all those files.
	Part Part
	// GOOS, GOARCH and Tags are those of the build. That they leave out a file
	// is an error.
	GOOS, GOARCH string
	Tags         []string
	// Imports are the packages to import, by the path that imports name.
	Imports map[string]Import
	// Std is the folder with the archives of the standard library, which is
	// asked for what Imports does not have.
	Std string
	// Facts are files of facts about imported packages. Of two that are about
	// the same package the later one counts.
	Facts []string
}

// A Finding is one thing that is wrong.
type Finding struct {
	// Position is where, in a file as the unit names it.
	Position token.Position
	// Message says what is wrong.
	Message string
	// Analyzer is the name of who says so.
	Analyzer string
}

func (f Finding) String() string {
	return fmt.Sprintf("%s: %s (%s)", f.Position, f.Message, f.Analyzer)
}

// A Verdict is what judging made.
type Verdict struct {
	// Findings are sorted by position.
	Findings []Finding
	// Facts is the content of the file of facts about the package.
	Facts []byte
}

// Judge runs the analyzers. An error means that they could not run.
func Judge(u Unit) (*Verdict, error) {
	analyzers := slices.Concat(Vet(), Staticcheck())
	if err := analysis.Validate(analyzers); err != nil {
		return nil, fmt.Errorf("the analyzers do not fit together: %w", err)
	}
	register(analyzers)
	l, err := u.load()
	if err != nil {
		return nil, fmt.Errorf("loading %s: %w", u.Path, err)
	}
	if l == nil {
		// One of a test's two parts.
		none, err := facts{}.encode(types.NewPackage(u.Path, ""))
		return &Verdict{Facts: none}, err
	}
	known, err := readFacts(u.Facts, l.packages)
	if err != nil {
		return nil, err
	}
	known.knowStandard(l.packages)
	r := &runner{loaded: l, facts: known, done: map[*analysis.Analyzer]any{}}
	for _, a := range analyzers {
		if _, err := r.run(a); err != nil {
			return nil, fmt.Errorf("judging %s: %w", u.Path, err)
		}
	}
	r.findUnused()
	encoded, err := known.encode(l.pkg)
	if err != nil {
		return nil, err
	}
	findings := u.ofWriters(l, r.findings)
	findings = ignored(l, findings, analyzers)
	slices.SortFunc(findings, func(a, b Finding) int {
		return cmp.Or(
			cmp.Compare(a.Position.Filename, b.Position.Filename),
			cmp.Compare(a.Position.Offset, b.Position.Offset),
			cmp.Compare(a.Analyzer, b.Analyzer),
			cmp.Compare(a.Message, b.Message),
		)
	})
	return &Verdict{Findings: slices.Compact(findings), Facts: encoded}, nil
}

// A runner runs analyzers on one package, each once and after those that it needs.
type runner struct {
	*loaded
	facts    facts
	done     map[*analysis.Analyzer]any
	findings []Finding
}

func (r *runner) run(a *analysis.Analyzer) (any, error) {
	if result, ok := r.done[a]; ok {
		return result, nil
	}
	needed := map[*analysis.Analyzer]any{}
	for _, n := range a.Requires {
		result, err := r.run(n)
		if err != nil {
			return nil, err
		}
		needed[n] = result
	}
	pass := &analysis.Pass{
		Analyzer:   a,
		Fset:       r.fset,
		Files:      r.files,
		Pkg:        r.pkg,
		TypesInfo:  r.info,
		TypesSizes: r.sizes,
		ResultOf:   needed,
		ReadFile:   os.ReadFile,
		Report: func(d analysis.Diagnostic) {
			r.findings = append(r.findings, Finding{Position: r.fset.PositionFor(d.Pos, false), Message: strings.TrimSpace(d.Message), Analyzer: a.Name})
		},
	}
	r.facts.offer(pass)
	result, err := a.Run(pass)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.Name, err)
	}
	r.done[a] = result
	return result, nil
}

// findUnused makes findings of what staticcheck's U1000 only gives as a result, since
// the command waits for all variants of a package before it believes that. Here each
// is judged by itself: what a package has for its internal test alone is unused.
func (r *runner) findUnused() {
	for _, object := range r.done[unused.Analyzer.Analyzer].(unused.Result).Unused {
		r.findings = append(r.findings, Finding{
			Position: object.Position,
			Message:  fmt.Sprintf("%s %s is unused", object.Kind, object.Name),
			Analyzer: unused.Analyzer.Analyzer.Name,
		})
	}
}

// ofWriters gives the findings in files that somebody wrote.
func (u *Unit) ofWriters(l *loaded, findings []Finding) []Finding {
	written := map[string]bool{}
	for _, name := range u.Judged {
		written[name] = true
	}
	for _, file := range l.files {
		if ast.IsGenerated(file) {
			delete(written, l.fset.File(file.FileStart).Name())
		}
	}
	return slices.DeleteFunc(findings, func(f Finding) bool { return !written[f.Position.Filename] })
}
