//go:build bazel

// Package tests_test fetches packages with a nested Bazel, from a mirror on
// loopback that serves what it should, or not.
package tests_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bazelbuild/rules_go/go/runfiles"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/debian/archive"
	"github.com/kiln-build/kiln/tools/debian/archive/archivetest"
	"github.com/kiln-build/kiln/tools/debian/lock"
	"github.com/kiln-build/kiln/tools/debian/renew"
	"github.com/kiln-build/kiln/tools/nested"
)

const (
	sets     = `{"guest": {"suite": "trixie", "kind": "binary", "resolve": true, "packages": ["bash"]}}`
	packages = "Package: bash\nVersion: 5.2-1\nDepends: libc6\n\nPackage: libc6\nVersion: 2.41-1\nRepeat: 10000\n"
	date     = "Sat, 21 Nov 2026 09:15:44 UTC"
	repo     = "@debian_guest//:debs"
)

// workspace is a workspace with nothing but the module extension in it.
type workspace struct {
	mirror *archivetest.Mirror
	bazel  *nested.Bazel
	out    bytes.Buffer
	pinned []byte
}

func newWorkspace(t *testing.T) *workspace {
	t.Helper()
	w := &workspace{mirror: archivetest.New(t)}
	w.mirror.Publish("trixie", date, packages, "")
	parsed, err := lock.ParseSets("sets.json", []byte(sets))
	require.NoError(t, err)
	source := renew.Source{Reader: &archive.Reader{Client: archive.NewClient(), Mirrors: []string{w.mirror.URL}}}
	l, err := source.Update(t.Context(), parsed, &lock.Lock{})
	require.NoError(t, err)
	w.pinned = l.Format()

	dir := t.TempDir()
	module, err := runfiles.Rlocation("_main/MODULE.bazel")
	require.NoError(t, err)
	text, err := os.ReadFile(module)
	require.NoError(t, err)
	// The same modules as in Kiln itself: bazelw says for each where it is.
	content := "module(name = \"kiln\")\n"
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "bazel_dep(") {
			content += line
		}
	}
	content += `debian = use_extension("//tools/debian:extensions.bzl", "debian")
use_repo(debian, "debian_guest")
`
	w.bazel = &nested.Bazel{Workspace: filepath.Join(dir, "w"), OutputBase: filepath.Join(dir, "base"), Log: &w.out}
	w.write(t, "MODULE.bazel", content)
	w.write(t, "tools/debian/BUILD.bazel", "")
	w.write(t, "tools/debian/private/BUILD.bazel", "")
	w.write(t, "tools/debian/sets.json", sets)
	for _, name := range []string{"extensions.bzl", "private/debian_set.bzl", "private/lock.bzl", "private/mirrors.bzl"} {
		file, err := runfiles.Rlocation("_main/tools/debian/" + name)
		require.NoError(t, err)
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		w.write(t, "tools/debian/"+name, string(text))
	}
	t.Cleanup(func() {
		_ = w.bazel.Shutdown(context.Background())
		// Bazel makes what it fetched read-only.
		_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				_ = os.Chmod(path, 0o755)
			}
			return nil
		})
	})
	return w
}

func (w *workspace) write(t *testing.T, name, content string) {
	t.Helper()
	file := filepath.Join(w.bazel.Workspace, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(t, os.WriteFile(file, []byte(content), 0o644))
}

// fetch makes Bazel fetch the set, and gives what it printed.
func (w *workspace) fetch(t *testing.T, lock string, flags ...string) (string, error) {
	t.Helper()
	w.write(t, "tools/debian/debian.lock", lock)
	w.out.Reset()
	err := w.bazel.Run(t.Context(), "build", append([]string{
		"--nobuild",
		"--repo_env=KILN_DEBIAN_MIRROR=" + w.mirror.URL,
		// Nothing may come from what another run has fetched.
		"--repository_cache=" + t.TempDir(),
		repo,
	}, flags...)...)
	return w.out.String(), err
}

func TestFetch(t *testing.T) {
	w := newWorkspace(t)
	pinned := string(w.pinned)
	bash := archivetest.Path("bash", "5.2-1")
	// line says in which line a word stands.
	line := func(l, word string) int {
		before, _, found := strings.Cut(l, word)
		require.True(t, found)
		return 1 + strings.Count(before, "\n")
	}
	sum := func(l, word string) string { return strings.Fields(strings.Split(l, "\n")[line(l, word)-1])[8] }

	t.Run("what is pinned", func(t *testing.T) {
		out, err := w.fetch(t, pinned)
		require.NoError(t, err, out)
		require.Contains(t, out, repo[len("@debian_guest"):])
		require.Equal(t, 1, w.mirror.Asked(bash)-1, "it is fetched once; the lock's own check asked once")
	})
	// Bazel itself handles large and small files differently.
	for _, word := range []string{" bash 5.2-1", " libc6 2.41-1"} {
		t.Run("a wrong checksum of"+word, func(t *testing.T) {
			wrong := strings.Repeat("0", 63) + "1"
			right := sum(pinned, word)
			out, err := w.fetch(t, strings.Replace(pinned, right, wrong, 1))
			require.Error(t, err)
			require.Contains(t, out, fmt.Sprintf("1 Debian package has a wrong checksum:\n"+
				" %s (tools/debian/debian.lock:%d)\n    expected sha256 %s\n    got             %s\n    from %s/pool/",
				word, line(pinned, word), wrong, right, w.mirror.URL))
		})
	}
	t.Run("a malformed line", func(t *testing.T) {
		out, err := w.fetch(t, strings.Replace(pinned, " bash ", " ", 1))
		require.Error(t, err)
		require.Contains(t, out, fmt.Sprintf("tools/debian/debian.lock:%d: want 10 fields", line(pinned, " bash ")))
	})
	t.Run("a set that is not locked", func(t *testing.T) {
		out, err := w.fetch(t, strings.ReplaceAll(pinned, "guest ", "other "))
		require.Error(t, err)
		require.Contains(t, out, "no package of the set guest is locked; renew the lock with `bazel run //tools/debian:update`")
	})
	t.Run("a package that is gone, and a local lock without it", func(t *testing.T) {
		// Another line for the same file, so that it is fetched anew.
		gone := strings.Replace(pinned, "bash 5.2-1", "bash 5.2-0", 1)
		w.mirror.Remove(bash)
		out, err := w.fetch(t, gone)
		require.Error(t, err)
		require.Contains(t, out, fmt.Sprintf("\n  bash 5.2-0 (tools/debian/debian.lock:%d)\n", line(gone, " bash ")))
		require.Contains(t, out, "1 pinned Debian package is gone from every source in reach ("+w.mirror.URL)
		require.Contains(t, out, "renew the lock with `bazel run //tools/debian:update`")

		w.mirror.Publish("trixie", date, strings.ReplaceAll(packages, "5.2-1", "5.3-1"), "")
		parsed, err := lock.ParseSets("sets.json", []byte(sets))
		require.NoError(t, err)
		source := renew.Source{Reader: &archive.Reader{Client: archive.NewClient(), Mirrors: []string{w.mirror.URL}}}
		l, err := lock.Parse("debian.lock", bytes.NewReader(w.pinned))
		require.NoError(t, err)
		local, _, err := source.Relock(t.Context(), l, parsed, "local")
		require.NoError(t, err)
		file := filepath.Join(w.bazel.Workspace, "debian.local.lock")
		require.NoError(t, local.Write(file))
		out, err = w.fetch(t, pinned, "--repo_env=KILN_DEBIAN_LOCK="+file)
		require.NoError(t, err, out)
		require.Equal(t, 2, w.mirror.Asked(archivetest.Path("bash", "5.3-1")), "the check of the new lock, and Bazel")
	})
}
