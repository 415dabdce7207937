// Package resolve turns a set of package names into the closed set of
// packages that satisfies all their dependencies.
//
// It makes the choices that apt makes for an empty system without
// recommended packages, but always the same ones: no choice depends on
// anything but the index, the set and the versions that are preferred.
package resolve

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"pault.ag/go/debian/dependency"
	"pault.ag/go/debian/version"

	"github.com/kiln-build/kiln/tools/debian/archive"
	"github.com/kiln-build/kiln/tools/debian/lock"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// Resolver resolves sets against the index of one suite.
type Resolver struct {
	suite *archive.Suite
	// provides maps a virtual package to who provides it.
	provides map[string][]provider
	keep     Keep
}

// Keep maps the name of a package to the version to take as long as the suite
// has it and nothing needs a newer one.
type Keep map[string]string

type provider struct {
	pkg *archive.Package
	// version is that of the virtual package, or "".
	version string
}

// New makes a resolver for one suite.
func New(suite *archive.Suite, keep Keep) (*Resolver, error) {
	r := &Resolver{suite: suite, provides: map[string][]provider{}, keep: keep}
	for _, name := range slices.Sorted(maps.Keys(suite.Binaries)) {
		for _, pkg := range suite.Binaries[name] {
			if pkg.Provides == "" {
				continue
			}
			relations, err := parse(pkg.Provides)
			if err != nil {
				return nil, unverified("package %s %s: provides: %w", pkg.Name, pkg.Version, err)
			}
			for _, relation := range relations {
				for _, p := range relation.Possibilities {
					v := ""
					if p.Version != nil {
						v = p.Version.Number
					}
					r.provides[p.Name] = append(r.provides[p.Name], provider{pkg, v})
				}
			}
		}
	}
	return r, nil
}

func unverified(format string, args ...any) error {
	return exitcode.With(exitcode.Unverified, fmt.Errorf(format, args...))
}

// parse reads a dependency field.
func parse(field string) ([]dependency.Relation, error) {
	d, err := dependency.Parse(strings.ReplaceAll(field, "\n", " "))
	if err != nil {
		return nil, fmt.Errorf("parsing %q: %w", field, err)
	}
	return d.Relations, nil
}

// Binary resolves a set of binary packages; the result is sorted by name.
func (r *Resolver) Binary(name string, set lock.Set) ([]*archive.Package, error) {
	// A kept version may turn out too old for a new dependency. It is then
	// given up, and everything is resolved once more, so that the result
	// does not depend on when this was found out.
	released := map[string]bool{}
	for {
		s := &solution{r: r, set: set, name: name, released: released, chosen: map[string]*archive.Package{}, because: map[string]string{}}
		again, err := s.solve()
		if err != nil {
			return nil, err
		}
		if !again {
			return slices.SortedFunc(maps.Values(s.chosen), func(x, y *archive.Package) int { return cmp.Compare(x.Name, y.Name) }), nil
		}
	}
}

// Source finds a set's source packages, sorted by name.
func (r *Resolver) Source(name string, set lock.Set) ([]*archive.SourcePackage, error) {
	var found []*archive.SourcePackage
	for _, asked := range slices.Sorted(slices.Values(set.Packages)) {
		p, atLeast := lock.Request(asked)
		want := minimum(atLeast)
		var pick *archive.SourcePackage
		for _, v := range r.suite.Sources[p] {
			if within(v.Version, want) && (pick == nil || v.Version.String() == r.keep[p]) {
				pick = v
			}
		}
		if pick == nil {
			return nil, r.missing(name, "source package "+asked, r.suite.Unserved[p])
		}
		found = append(found, pick)
	}
	return found, nil
}

func minimum(v string) *dependency.VersionRelation {
	if v == "" {
		return nil
	}
	return &dependency.VersionRelation{Operator: ">=", Number: v}
}

func asked(name string, least *dependency.VersionRelation) string {
	return relationString(dependency.Relation{Possibilities: []dependency.Possibility{{Name: name, Version: least}}})
}

// missing says that a suite lacks what was asked for, and whether that is
// since no mirror serves what the index lists.
func (r *Resolver) missing(set, what string, unserved []string) error {
	if len(unserved) > 0 {
		return exitcode.With(exitcode.Unverified, fmt.Errorf("set %s: %s: suite %s lists %s, but no source in reach has its files",
			set, what, r.suite.Name, strings.Join(unserved, ", ")))
	}
	return badSet("set %s: suite %s has no %s", set, r.suite.Name, what)
}

func badSet(format string, args ...any) error {
	return exitcode.With(exitcode.BadInput, fmt.Errorf(format, args...))
}

type solution struct {
	r        *Resolver
	set      lock.Set
	name     string
	released map[string]bool
	chosen   map[string]*archive.Package
	// because maps a chosen package to the one that first asked for it.
	because map[string]string
	queue   []*archive.Package
}

func (s *solution) solve() (again bool, err error) {
	var roots []string
	least := map[string]*dependency.VersionRelation{}
	for _, asked := range s.set.Packages {
		name, atLeast := lock.Request(asked)
		roots = append(roots, name)
		least[name] = minimum(atLeast)
	}
	if s.set.Essential {
		for name, versions := range s.r.suite.Binaries {
			if _, omitted := s.set.Omit[name]; versions[0].Essential && !omitted {
				roots = append(roots, name)
			}
		}
	}
	slices.Sort(roots)
	for _, name := range slices.Compact(roots) {
		pkg := s.candidate(name, least[name])
		if pkg == nil {
			return false, s.r.missing(s.name, "package "+asked(name, least[name]), s.r.suite.Unserved[name])
		}
		s.choose(pkg, "")
	}
	if !s.set.Resolve {
		return false, nil
	}
	for len(s.queue) > 0 {
		pkg := s.queue[0]
		s.queue = s.queue[1:]
		relations, err := parse(pkg.Depends)
		if err != nil {
			return false, unverified("package %s %s: depends: %w", pkg.Name, pkg.Version, err)
		}
		for _, relation := range relations {
			if again, err := s.satisfy(pkg, relation); again || err != nil {
				return again, err
			}
		}
	}
	return false, s.checkConflicts()
}

func (s *solution) choose(pkg *archive.Package, because string) {
	s.chosen[pkg.Name] = pkg
	s.because[pkg.Name] = because
	s.queue = append(s.queue, pkg)
}

// satisfy makes sure that one dependency of pkg is met.
func (s *solution) satisfy(pkg *archive.Package, relation dependency.Relation) (again bool, err error) {
	for _, p := range relation.Possibilities {
		if _, omitted := s.set.Omit[p.Name]; omitted || s.met(p) {
			return false, nil
		}
	}
	for _, p := range relation.Possibilities {
		if best := s.candidate(p.Name, p.Version); best != nil {
			if have := s.chosen[p.Name]; have != nil {
				// Only a kept version can be chosen while another
				// one would do.
				if s.released[p.Name] || have.Version.String() != s.r.keep[p.Name] {
					continue
				}
				s.released[p.Name] = true
				return true, nil
			}
			s.choose(best, pkg.Name)
			return false, nil
		}
		if best := s.providerOf(p); best != nil {
			s.choose(best, pkg.Name)
			return false, nil
		}
	}
	what := fmt.Sprintf("package %s, which %s needs (%s)", relationString(relation), pkg.Name, s.chain(pkg.Name))
	var unserved []string
	for _, p := range relation.Possibilities {
		unserved = append(unserved, s.r.suite.Unserved[p.Name]...)
	}
	return false, s.r.missing(s.name, what, unserved)
}

// chain says why a package is in the set.
func (s *solution) chain(name string) string {
	chain := name
	for s.because[name] != "" {
		name = s.because[name]
		chain = name + " -> " + chain
	}
	return chain
}

func relationString(r dependency.Relation) string {
	var parts []string
	for _, p := range r.Possibilities {
		part := p.Name
		if p.Version != nil {
			part += " (" + p.Version.Operator + " " + strings.TrimSpace(p.Version.Number) + ")"
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, " | ")
}

// met says whether what is chosen already satisfies a possibility.
func (s *solution) met(p dependency.Possibility) bool {
	if pkg := s.chosen[p.Name]; pkg != nil && within(pkg.Version, p.Version) {
		return true
	}
	for _, provider := range s.r.provides[p.Name] {
		if s.chosen[provider.pkg.Name] == provider.pkg && provider.satisfies(p.Version) {
			return true
		}
	}
	return false
}

// candidate gives the version to take of a real package: the kept one if it
// fits, else the newest that fits.
func (s *solution) candidate(name string, want *dependency.VersionRelation) *archive.Package {
	var best *archive.Package
	for _, pkg := range s.r.suite.Binaries[name] {
		if !within(pkg.Version, want) {
			continue
		}
		if pkg.Version.String() == s.r.keep[name] && !s.released[name] {
			return pkg
		}
		if best == nil {
			best = pkg
		}
	}
	return best
}

// providerOf chooses who provides a virtual package: the one with the
// highest priority, and the first by name among equals.
func (s *solution) providerOf(p dependency.Possibility) *archive.Package {
	var best *archive.Package
	for _, provider := range s.r.provides[p.Name] {
		pkg := provider.pkg
		if !provider.satisfies(p.Version) || s.chosen[pkg.Name] != nil || s.candidate(pkg.Name, nil) != pkg {
			continue
		}
		if _, omitted := s.set.Omit[pkg.Name]; omitted {
			continue
		}
		if best == nil || rank(pkg.Priority) < rank(best.Priority) {
			best = pkg
		}
	}
	return best
}

func rank(priority string) int {
	ranks := []string{"required", "important", "standard", "optional"}
	if i := slices.Index(ranks, priority); i >= 0 {
		return i
	}
	return len(ranks)
}

func (p provider) satisfies(want *dependency.VersionRelation) bool {
	if want == nil {
		return true
	}
	// A virtual package without a version satisfies no versioned one.
	v, err := version.Parse(p.version)
	return p.version != "" && err == nil && within(v, want)
}

func within(v version.Version, want *dependency.VersionRelation) bool {
	return want == nil || want.SatisfiedBy(v)
}

// checkConflicts makes sure that everything chosen can be installed together.
func (s *solution) checkConflicts() error {
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(s.chosen)) {
		pkg := s.chosen[name]
		relations, err := parse(pkg.Conflicts)
		if err != nil {
			return unverified("package %s %s: conflicts: %w", pkg.Name, pkg.Version, err)
		}
		for _, relation := range relations {
			for _, p := range relation.Possibilities {
				if other := s.violates(pkg, p); other != nil {
					problems = append(problems, fmt.Errorf("%s %s conflicts with %s %s (%s; %s)", pkg.Name, pkg.Version,
						other.Name, other.Version, s.chain(pkg.Name), s.chain(other.Name)))
				}
			}
		}
	}
	if len(problems) > 0 {
		return badSet("set %s: %w", s.name, errors.Join(problems...))
	}
	return nil
}

func (s *solution) violates(pkg *archive.Package, p dependency.Possibility) *archive.Package {
	if other := s.chosen[p.Name]; other != nil && other != pkg && within(other.Version, p.Version) {
		return other
	}
	for _, provider := range s.r.provides[p.Name] {
		// A package may conflict with all others that provide what it
		// provides itself.
		if provider.pkg != pkg && s.chosen[provider.pkg.Name] == provider.pkg && provider.satisfies(p.Version) {
			return provider.pkg
		}
	}
	return nil
}
