// Package private_test runs the Starlark of this folder on the cases of the
// Go packages that do the same: a repository rule cannot run those, so both
// exist, and here they are held to one behaviour.
package private_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
	"go.starlark.net/syntax"

	"github.com/kiln-build/kiln/tools/debian/lock"
)

// load evaluates a .bzl file that loads no other, and gives what it defines.
func load(t *testing.T, file string) starlark.StringDict {
	t.Helper()
	globals, err := starlark.ExecFileOptions(&syntax.FileOptions{}, &starlark.Thread{Name: file}, file, nil,
		starlark.StringDict{"struct": starlark.NewBuiltin("struct", starlarkstruct.Make)})
	require.NoError(t, err)
	return globals
}

func call(t *testing.T, f starlark.Value, args ...starlark.Value) starlark.Value {
	t.Helper()
	v, err := starlark.Call(&starlark.Thread{Name: t.Name()}, f, args, nil)
	require.NoError(t, err)
	return v
}

func list(t *testing.T, v starlark.Value) []string {
	t.Helper()
	items := []string{}
	for item := range starlark.Elements(v.(starlark.Iterable)) {
		s, ok := starlark.AsString(item)
		require.True(t, ok)
		items = append(items, s)
	}
	return items
}

func cases(t *testing.T, pattern string) []string {
	t.Helper()
	dirs, err := filepath.Glob(pattern)
	require.NoError(t, err)
	require.NotEmpty(t, dirs)
	return dirs
}

func TestMirrors(t *testing.T) {
	find := load(t, "mirrors.bzl")["find_mirrors"]
	for _, dir := range cases(t, "../archive/testdata/apt/*") {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			root := filepath.Join(dir, "root")
			read := starlark.NewBuiltin("read", func(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
				name, _ := starlark.AsString(args[0])
				data, err := os.ReadFile(filepath.Join(root, name))
				if err != nil {
					return starlark.None, nil
				}
				return starlark.String(data), nil
			})
			listDir := starlark.NewBuiltin("list_dir", func(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
				name, _ := starlark.AsString(args[0])
				var found []starlark.Value
				files, err := os.ReadDir(filepath.Join(root, name))
				for _, f := range files {
					found = append(found, starlark.String(name+"/"+f.Name()))
				}
				if err != nil {
					found = nil
				}
				return starlark.NewList(found), nil
			})
			variable, err := os.ReadFile(filepath.Join(dir, "variable.txt"))
			if err != nil {
				require.ErrorIs(t, err, os.ErrNotExist)
			}
			want, err := os.ReadFile(filepath.Join(dir, "want.txt"))
			require.NoError(t, err)
			require.Equal(t, strings.Fields(string(want)), list(t, call(t, find, starlark.String(variable), read, listDir)))
		})
	}
}

func TestLockErrors(t *testing.T) {
	parse := load(t, "lock.bzl")["parse_lock"]
	for _, dir := range cases(t, "../lock/testdata/bad/*") {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(dir, "input.lock"))
			require.NoError(t, err)
			want, err := os.ReadFile(filepath.Join(dir, "want.txt"))
			require.NoError(t, err)
			result := call(t, parse, starlark.String(text), starlark.String("input.lock")).(starlark.Tuple)
			got, ok := starlark.AsString(result[1])
			require.True(t, ok, "no error")
			require.Equal(t, strings.TrimSpace(string(want)), got)
		})
	}
}

func TestLock(t *testing.T) {
	globals := load(t, "lock.bzl")
	text, err := os.ReadFile("../debian.lock")
	require.NoError(t, err)
	want, err := lock.Read("../debian.lock")
	require.NoError(t, err)

	result := call(t, globals["parse_lock"], starlark.String(text), starlark.String("debian.lock")).(starlark.Tuple)
	require.Equal(t, starlark.None, result[1])
	got := result[0].(*starlarkstruct.Struct)
	attr := func(v starlark.Value, name string) starlark.Value {
		a, err := v.(starlark.HasAttrs).Attr(name)
		require.NoError(t, err)
		return a
	}
	text1 := func(v starlark.Value, name string) string {
		s, ok := starlark.AsString(attr(v, name))
		require.True(t, ok, name)
		return s
	}
	snapshots := attr(got, "snapshots").(*starlark.Dict)
	require.Equal(t, len(want.Snapshots), snapshots.Len())
	i := 0
	for e := range starlark.Elements(attr(got, "entries").(starlark.Iterable)) {
		w := want.Entries[i]
		size, err := starlark.AsInt32(attr(e, "size"))
		require.NoError(t, err)
		require.Equal(t, w, lock.Entry{
			Sets: list(t, attr(e, "sets")), Suite: text1(e, "suite"), Package: text1(e, "package"), Version: text1(e, "version"),
			Arch: text1(e, "arch"), Source: text1(e, "source"), SourceVersion: text1(e, "source_version"), Size: int64(size),
			SHA256: text1(e, "sha256"), Path: text1(e, "path"), Line: w.Line,
		})
		if w.Arch == lock.ArchSource {
			role, _ := starlark.AsString(call(t, globals["source_role"], starlark.String(w.Path)))
			require.Equal(t, lock.Role(w.Path), role)
		}
		i++
	}
	require.Len(t, want.Entries, i)
}
