package judge

import (
	"bytes"
	"cmp"
	"encoding/gob"
	"fmt"
	"go/types"
	"os"
	"reflect"
	"slices"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/types/objectpath"
)

// A factKey is what an analyzer knows something about: an object, or a package
// where the object is nil. Each type of fact is known once.
type factKey struct {
	pkg  *types.Package
	obj  types.Object
	fact reflect.Type
}

// facts are what analyzers know of a package and of those that it imports.
type facts map[factKey]analysis.Fact

// storedFact is a fact in a file.
type storedFact struct {
	// Object is empty for a fact about the package itself.
	Object objectpath.Path
	Fact   analysis.Fact
}

// storedFacts is the content of a file: what is known of one package.
type storedFacts struct {
	Package string
	Facts   []storedFact
}

// register tells gob of all types of facts.
func register(analyzers []*analysis.Analyzer) {
	for _, a := range analyzers {
		for _, fact := range a.FactTypes {
			gob.Register(fact)
		}
		register(a.Requires)
	}
}

// readFacts reads files. Of a package that is not among packages nothing is
// imported, so that nobody can ask for its facts.
func readFacts(names []string, packages map[string]*types.Package) (facts, error) {
	known := facts{}
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("reading facts: %w", err)
		}
		var stored storedFacts
		if err := gob.NewDecoder(bytes.NewReader(content)).Decode(&stored); err != nil {
			return nil, fmt.Errorf("reading facts from %s: %w", name, err)
		}
		pkg := packages[stored.Package]
		if pkg == nil {
			continue
		}
		for _, f := range stored.Facts {
			key := factKey{pkg: pkg, fact: reflect.TypeOf(f.Fact)}
			if f.Object != "" {
				// Export data leaves out what its package keeps to itself.
				if key.obj, err = objectpath.Object(pkg, f.Object); err != nil {
					continue
				}
			}
			known[key] = f.Fact
		}
	}
	return known, nil
}

// encode gives the content of a file: the facts of one package alone. The same
// facts are the same bytes.
func (f facts) encode(pkg *types.Package) ([]byte, error) {
	stored := storedFacts{Package: pkg.Path()}
	var encoder objectpath.Encoder
	for key, fact := range f {
		if key.pkg != pkg {
			continue
		}
		var object objectpath.Path
		if key.obj != nil {
			var err error
			if object, err = encoder.For(key.obj); err != nil {
				continue // Other packages cannot get at it.
			}
		}
		stored.Facts = append(stored.Facts, storedFact{Object: object, Fact: fact})
	}
	slices.SortFunc(stored.Facts, func(a, b storedFact) int {
		return cmp.Or(
			cmp.Compare(a.Object, b.Object),
			cmp.Compare(reflect.TypeOf(a.Fact).String(), reflect.TypeOf(b.Fact).String()),
		)
	})
	var content bytes.Buffer
	if err := gob.NewEncoder(&content).Encode(stored); err != nil {
		return nil, fmt.Errorf("encoding facts: %w", err)
	}
	return content.Bytes(), nil
}

// get copies a fact to where fact points, if there is one.
func (f facts) get(pkg *types.Package, obj types.Object, fact analysis.Fact) bool {
	known, ok := f[factKey{pkg, obj, reflect.TypeOf(fact)}]
	if ok {
		reflect.ValueOf(fact).Elem().Set(reflect.ValueOf(known).Elem())
	}
	return ok
}

// offer gives a pass the facts.
func (f facts) offer(pass *analysis.Pass) {
	pass.ImportObjectFact = func(obj types.Object, fact analysis.Fact) bool {
		return f.get(obj.Pkg(), obj, fact)
	}
	pass.ExportObjectFact = func(obj types.Object, fact analysis.Fact) {
		f[factKey{obj.Pkg(), obj, reflect.TypeOf(fact)}] = fact
	}
	pass.ImportPackageFact = func(pkg *types.Package, fact analysis.Fact) bool {
		return f.get(pkg, nil, fact)
	}
	pass.ExportPackageFact = func(fact analysis.Fact) {
		f[factKey{pass.Pkg, nil, reflect.TypeOf(fact)}] = fact
	}
	pass.AllObjectFacts = func() []analysis.ObjectFact {
		var all []analysis.ObjectFact
		for key, fact := range f.of(pass.Analyzer) {
			if key.obj != nil {
				all = append(all, analysis.ObjectFact{Object: key.obj, Fact: fact})
			}
		}
		return all
	}
	pass.AllPackageFacts = func() []analysis.PackageFact {
		var all []analysis.PackageFact
		for key, fact := range f.of(pass.Analyzer) {
			if key.obj == nil {
				all = append(all, analysis.PackageFact{Package: key.pkg, Fact: fact})
			}
		}
		return all
	}
}

// of gives the facts of an analyzer's own types.
func (f facts) of(a *analysis.Analyzer) facts {
	own := facts{}
	for key, fact := range f {
		if slices.ContainsFunc(a.FactTypes, func(t analysis.Fact) bool { return reflect.TypeOf(t) == key.fact }) {
			own[key] = fact
		}
	}
	return own
}
