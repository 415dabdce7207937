package judge_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/tools/go/gcexportdata"
	"golang.org/x/tools/txtar"

	"github.com/kiln-build/kiln/tools/lint/judge"
)

// TestCases judges the package "x" of each file of testdata. Folders of other names
// are packages that it imports, in the order of the file. The ones of the standard
// library are no more than what the case needs. Lines of the file "want" are the
// findings, or the error; the file "part" says which of x's files are judged.
func TestCases(t *testing.T) {
	names, err := filepath.Glob("testdata/*.txtar")
	require.NoError(t, err)
	require.NotEmpty(t, names)
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(name)
			require.NoError(t, err)
			verdict, err := unpack(t, archive).judge()
			var got strings.Builder
			if err != nil {
				got.WriteString(err.Error() + "\n")
			} else {
				for _, f := range verdict.Findings {
					got.WriteString(f.String() + "\n")
				}
			}
			require.Equal(t, content(archive, "want"), got.String())
		})
	}
}

// A tree is a case's files, in the folder in which it is judged.
type tree struct {
	t       *testing.T
	std     string
	part    judge.Part
	files   map[string][]string
	order   []string
	imports map[string]judge.Import
	facts   []string
}

func content(archive *txtar.Archive, name string) string {
	for _, f := range archive.Files {
		if f.Name == name {
			return string(f.Data)
		}
	}
	return ""
}

func unpack(t *testing.T, archive *txtar.Archive) *tree {
	t.Helper()
	t.Chdir(t.TempDir())
	parts := map[string]judge.Part{"": judge.Whole, "internal\n": judge.Internal, "external\n": judge.External}
	part, ok := parts[content(archive, "part")]
	require.True(t, ok, "unknown part")
	tr := &tree{t: t, std: "std", part: part, files: map[string][]string{}, imports: map[string]judge.Import{}}
	for _, f := range archive.Files {
		dir := filepath.Dir(f.Name)
		if dir == "." {
			continue
		}
		require.NoError(t, os.MkdirAll(dir, 0o755))
		require.NoError(t, os.WriteFile(f.Name, f.Data, 0o644))
		if !slices.Contains(tr.order, dir) {
			tr.order = append(tr.order, dir)
		}
		tr.files[dir] = append(tr.files[dir], f.Name)
	}
	return tr
}

// judge compiles and judges one package after the other, and gives the last verdict.
func (tr *tree) judge() (*judge.Verdict, error) {
	t := tr.t
	t.Helper()
	for _, dir := range tr.order {
		unit := tr.unit(dir)
		if dir == "x" {
			return judge.Judge(unit)
		}
		if standard, ok := strings.CutPrefix(dir, "std/"); ok {
			tr.export(standard, filepath.Join("std", standard+".a"), unit.Judged)
			continue
		}
		tr.export(dir, dir+".x", unit.Judged)
		tr.imports[dir] = judge.Import{Path: dir, File: dir + ".x"}
		if strings.HasPrefix(dir, "foreign.") {
			continue // As the build has it: types, and no facts.
		}
		verdict, err := judge.Judge(unit)
		require.NoError(t, err)
		require.Empty(t, verdict.Findings, dir)
		again, err := judge.Judge(unit)
		require.NoError(t, err)
		require.Equal(t, verdict.Facts, again.Facts, "the same package gives other bytes")
		require.NoError(t, os.WriteFile(dir+".facts", verdict.Facts, 0o644))
		tr.facts = append(tr.facts, dir+".facts")
	}
	require.Fail(t, "the case has no package x")
	return nil, nil
}

func (tr *tree) unit(dir string) judge.Unit {
	u := judge.Unit{Path: dir, Std: tr.std, GOOS: "linux", GOARCH: "amd64", Imports: tr.imports, Facts: tr.facts}
	if dir == "x" {
		u.Part = tr.part
	}
	for _, name := range tr.files[dir] {
		if strings.Contains(name, "unwritten") {
			u.Others = append(u.Others, name)
		} else {
			u.Judged = append(u.Judged, name)
		}
	}
	return u
}

// export writes what a compiler would.
func (tr *tree) export(path, out string, names []string) {
	t := tr.t
	t.Helper()
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range names {
		file, err := parser.ParseFile(fset, name, nil, 0)
		require.NoError(t, err)
		files = append(files, file)
	}
	config := types.Config{Importer: importer{tr, fset}}
	pkg, err := config.Check(path, fset, files, nil)
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(filepath.Dir(out), 0o755))
	f, err := os.Create(out)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, gcexportdata.Write(f, fset, pkg))
}

// An importer reads what export wrote.
type importer struct {
	*tree
	fset *token.FileSet
}

func (i importer) Import(path string) (*types.Package, error) {
	dep, ok := i.imports[path]
	if !ok {
		dep.File = filepath.Join(i.std, path+".a")
	}
	f, err := os.Open(dep.File)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := gcexportdata.NewReader(f)
	if err != nil {
		return nil, err
	}
	return gcexportdata.Read(r, i.fset, map[string]*types.Package{}, path)
}
