package judge

import (
	"errors"
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"go/types"
	"go/version"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/tools/go/gcexportdata"
)

// loaded is a package with its types.
type loaded struct {
	fset  *token.FileSet
	files []*ast.File
	pkg   *types.Package
	info  *types.Info
	sizes types.Sizes
	// packages are those that the package or its imports refer to, by path.
	packages map[string]*types.Package
}

// load parses and type-checks. It gives nil where the unit has no file.
func (u *Unit) load() (*loaded, error) {
	l := &loaded{fset: token.NewFileSet(), packages: map[string]*types.Package{}, sizes: types.SizesFor("gc", u.GOARCH)}
	if l.sizes == nil {
		return nil, fmt.Errorf("the architecture %q is not known", u.GOARCH)
	}
	for _, name := range slices.Concat(u.Judged, u.Others) {
		if err := u.matches(name); err != nil {
			return nil, err
		}
		file, err := parser.ParseFile(l.fset, name, nil, parser.ParseComments)
		if err != nil {
			return nil, fmt.Errorf("parsing: %w", err)
		}
		if u.Part == Whole || strings.HasSuffix(file.Name.Name, "_test") == (u.Part == External) {
			l.files = append(l.files, file)
		}
	}
	if len(l.files) == 0 {
		return nil, nil
	}
	l.info = &types.Info{
		Types:        map[ast.Expr]types.TypeAndValue{},
		Defs:         map[*ast.Ident]types.Object{},
		Uses:         map[*ast.Ident]types.Object{},
		Implicits:    map[ast.Node]types.Object{},
		Instances:    map[*ast.Ident]types.Instance{},
		Scopes:       map[ast.Node]*types.Scope{},
		Selections:   map[*ast.SelectorExpr]*types.Selection{},
		FileVersions: map[*ast.File]string{},
	}
	config := types.Config{
		Importer: importer(func(name string) (*types.Package, error) { return u.importPackage(l, name) }),
		Sizes:    l.sizes,
		// The language of the SDK that built this tool, which is that of the
		// compiler, too.
		GoVersion: version.Lang(runtime.Version()),
	}
	var err error
	if l.pkg, err = config.Check(u.Path, l.fset, l.files, l.info); err != nil {
		return nil, fmt.Errorf("checking types: %w", err)
	}
	return l, nil
}

// matches says with an error that the build leaves a file out. It would be judged
// by nobody, and nobody would notice.
func (u *Unit) matches(name string) error {
	c := build.Default
	c.GOOS, c.GOARCH, c.BuildTags, c.CgoEnabled = u.GOOS, u.GOARCH, u.Tags, false
	match, err := c.MatchFile(filepath.Dir(name), filepath.Base(name))
	if err != nil {
		return fmt.Errorf("reading the build constraints of %s: %w", name, err)
	}
	if !match {
		return fmt.Errorf("%s: its build constraints leave it out of its own target, so that nothing would judge it", name)
	}
	return nil
}

type importer func(string) (*types.Package, error)

func (i importer) Import(name string) (*types.Package, error) { return i(name) }

func (u *Unit) importPackage(l *loaded, name string) (*types.Package, error) {
	if name == "unsafe" {
		return types.Unsafe, nil
	}
	dep, ok := u.Imports[name]
	if !ok {
		dep = Import{Path: name, File: filepath.Join(u.Std, filepath.FromSlash(name)+".a")}
	}
	if pkg := l.packages[dep.Path]; pkg != nil && pkg.Complete() {
		return pkg, nil
	}
	f, err := os.Open(dep.File)
	if errors.Is(err, os.ErrNotExist) && !ok {
		return nil, fmt.Errorf("it is neither among the dependencies nor in the standard library")
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := gcexportdata.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dep.File, err)
	}
	pkg, err := gcexportdata.Read(r, l.fset, l.packages, dep.Path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dep.File, err)
	}
	return pkg, nil
}
