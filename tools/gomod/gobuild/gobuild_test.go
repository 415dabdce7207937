package gobuild_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/tools/txtar"

	"github.com/kiln-build/kiln/tools/exitcode"
	"github.com/kiln-build/kiln/tools/gomod/gobuild"
)

// sdk finds a Go SDK: the one that Bazel names, else the one that runs the
// test.
func sdk(t *testing.T) string {
	t.Helper()
	if root := os.Getenv("KILN_TEST_GO_SDK_ROOT"); root != "" {
		return filepath.Dir(filepath.Join(os.Getenv("TEST_SRCDIR"), root))
	}
	out, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	require.NoError(t, err)
	return strings.TrimSpace(string(out))
}

func environment() []string {
	return []string{"CGO_ENABLED=0", "GOFLAGS=-mod=vendor", "GOOS=" + runtime.GOOS, "GOARCH=" + runtime.GOARCH, "GOPROXY=off", "GOTOOLCHAIN=local"}
}

// archive makes a module's tar of the files of testdata/NAME.txtar.
func archive(t *testing.T, name string) string {
	t.Helper()
	tree, err := txtar.ParseFile(filepath.Join("testdata", name+".txtar"))
	require.NoError(t, err)
	var entries []*tar.Header
	contents := map[string][]byte{}
	for _, f := range tree.Files {
		entries = append(entries, &tar.Header{Name: "./" + f.Name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(f.Data))})
		contents["./"+f.Name] = f.Data
	}
	return writeTar(t, entries, contents)
}

func writeTar(t *testing.T, entries []*tar.Header, contents map[string][]byte) string {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range entries {
		require.NoError(t, w.WriteHeader(h))
		_, err := w.Write(contents[h.Name])
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	name := filepath.Join(t.TempDir(), "source.tar")
	require.NoError(t, os.WriteFile(name, buf.Bytes(), 0o644))
	return name
}

func TestBuild(t *testing.T) {
	build := func(dir string) (one, two, sources string) {
		require.NoError(t, os.MkdirAll(dir, 0o755))
		one, two, sources = filepath.Join(dir, "uno"), filepath.Join(dir, "due"), filepath.Join(dir, "sources.json")
		require.NoError(t, gobuild.Build(t.Context(), gobuild.Options{
			SDK:     sdk(t),
			Archive: archive(t, "builds"),
			Programs: []gobuild.Program{
				{Package: "example.com/dep/cmd/one", Output: one},
				{Package: "example.com/dep/cmd/two/v2", Output: two},
			},
			Variables: map[string]string{"example.com/dep.Version": "it's 3.0"},
			Sources:   sources,
			Env:       environment(),
			TempDir:   dir,
		}))
		return one, two, sources
	}
	one, two, sources := build(filepath.Join(t.TempDir(), "a"))

	out, err := exec.CommandContext(t.Context(), one).CombinedOutput()
	require.NoError(t, err)
	require.Equal(t, "one it's 3.0\n", string(out))
	out, err = exec.CommandContext(t.Context(), two).CombinedOutput()
	require.NoError(t, err)
	require.Equal(t, "two it's 3.0\n", string(out))

	text, err := os.ReadFile(sources)
	require.NoError(t, err)
	var list []gobuild.Source
	require.NoError(t, json.Unmarshal(text, &list))
	require.Len(t, list, 2)
	require.Equal(t, gobuild.Source{Name: "example.com/dep", Version: "v1.2.3+incompatible", PURL: "pkg:golang/example.com/dep@v1.2.3%2Bincompatible"}, list[0])
	require.Equal(t, "std", list[1].Name)
	require.Regexp(t, `^pkg:golang/std@1\.\d+`, list[1].PURL)

	left, err := os.ReadDir(filepath.Dir(one))
	require.NoError(t, err)
	require.Len(t, left, 3, "the scratch directory must be gone")

	// Another directory must not show in a single byte.
	again, _, _ := build(filepath.Join(t.TempDir(), "elsewhere", "b"))
	want, err := os.ReadFile(one)
	require.NoError(t, err)
	got, err := os.ReadFile(again)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got), "two builds differ")
}

func TestBuildReportsCompilerErrors(t *testing.T) {
	err := gobuild.Build(t.Context(), gobuild.Options{
		SDK:      sdk(t),
		Archive:  archive(t, "broken"),
		Programs: []gobuild.Program{{Package: "example.com/dep/cmd/one", Output: filepath.Join(t.TempDir(), "one")}},
		Env:      environment(),
	})
	require.ErrorContains(t, err, "running go build for example.com/dep/cmd/one: ")
	require.ErrorContains(t, err, "\nvendor/example.com/dep/cmd/one/main.go:3:15: undefined: undefined")
	require.Equal(t, exitcode.Failed, exitcode.Of(err))
}

func TestBuildRefuses(t *testing.T) {
	file := func(name string) *tar.Header {
		return &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}
	}
	one := []gobuild.Program{{Package: "example.com/one", Output: "one"}}
	for name, test := range map[string]struct {
		programs []gobuild.Program
		entries  []*tar.Header
		want     string
	}{
		"no program":          {nil, nil, "no package to build"},
		"equal names":         {append(one, gobuild.Program{Package: "example.com/other/one/v3"}), nil, `packages example.com/one and example.com/other/one/v3 both become "one": build them by two targets`},
		"empty archive":       {one, nil, "there is no file in it"},
		"file outside":        {one, []*tar.Header{file("a"), file("../b")}, `"../b" leads out of the archive`},
		"absolute name":       {one, []*tar.Header{file("/etc/passwd")}, `"/etc/passwd" leads out of the archive`},
		"symbolic link":       {one, []*tar.Header{{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "/etc"}}, `"a" is neither a file nor a directory`},
		"file in a directory": {one, []*tar.Header{file("a"), file("a/../../b")}, `"a/../../b" leads out of the archive`},
	} {
		t.Run(name, func(t *testing.T) {
			err := gobuild.Build(context.Background(), gobuild.Options{
				SDK:      t.TempDir(),
				Archive:  writeTar(t, test.entries, nil),
				Programs: test.programs,
				TempDir:  t.TempDir(),
			})
			require.ErrorContains(t, err, test.want)
			require.Equal(t, exitcode.BadInput, exitcode.Of(err))
		})
	}
}
