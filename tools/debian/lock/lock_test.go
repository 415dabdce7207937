package lock_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/debian/lock"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// cases gives the folders below testdata/<kind>.
func cases(t *testing.T, kind string) []string {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join("testdata", kind, "*"))
	require.NoError(t, err)
	require.NotEmpty(t, dirs)
	return dirs
}

func read(t *testing.T, elem ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(elem...))
	require.NoError(t, err)
	return data
}

func TestParseNamesFileAndLine(t *testing.T) {
	for _, dir := range cases(t, "bad") {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			_, err := lock.Parse("input.lock", bytes.NewReader(read(t, dir, "input.lock")))
			require.EqualError(t, err, strings.TrimSpace(string(read(t, dir, "want.txt"))))
			require.Equal(t, exitcode.BadInput, exitcode.Of(err))
		})
	}
}

func TestParseSetsNamesFileAndLine(t *testing.T) {
	for _, dir := range cases(t, "sets-bad") {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			_, err := lock.ParseSets("input.json", read(t, dir, "input.json"))
			require.EqualError(t, err, strings.TrimSpace(string(read(t, dir, "want.txt"))))
			require.Equal(t, exitcode.BadInput, exitcode.Of(err))
		})
	}
}

func TestMissingLockSaysHowToMakeOne(t *testing.T) {
	_, err := lock.Read(filepath.Join(t.TempDir(), "debian.lock"))
	require.ErrorContains(t, err, "bazel run //tools/debian:update")
	require.Equal(t, exitcode.BadInput, exitcode.Of(err))
}

func entry(name, version string, sets ...string) lock.Entry {
	return lock.Entry{
		Sets: sets, Suite: "trixie", Package: name, Version: version, Arch: "amd64", Source: name, SourceVersion: version,
		Size: 1, SHA256: strings.Repeat("a", 64), Path: "pool/main/x/" + name + "_" + version + "_amd64.deb",
	}
}

func TestWrittenLockIsReadBack(t *testing.T) {
	file := filepath.Join(t.TempDir(), "debian.lock")
	l := &lock.Lock{
		Header:    "first\n\nthird",
		Snapshots: map[string]string{"trixie": "20261121T141544Z", "forky": "20261030T130801Z"},
		Entries:   []lock.Entry{entry("zlib1g", "1:1.3-1", "guest", "buildroot"), entry("bash", "5.2-1", "guest")},
	}
	require.NoError(t, l.Write(file))
	require.Equal(t, strings.Join([]string{
		"# first",
		"#",
		"# third",
		"snapshot forky 20261030T130801Z",
		"snapshot trixie 20261121T141544Z",
		"guest trixie bash 5.2-1 amd64 bash 5.2-1 1 " + strings.Repeat("a", 64) + " pool/main/x/bash_5.2-1_amd64.deb",
		"buildroot,guest trixie zlib1g 1:1.3-1 amd64 zlib1g 1:1.3-1 1 " + strings.Repeat("a", 64) + " pool/main/x/zlib1g_1:1.3-1_amd64.deb",
		"",
	}, "\n"), string(read(t, file)))

	back, err := lock.Read(file)
	require.NoError(t, err)
	require.Equal(t, l.Header, back.Header)
	require.Equal(t, l.Snapshots, back.Snapshots)
	require.Equal(t, []int{6, 7}, []int{back.Entries[0].Line, back.Entries[1].Line})
	require.Equal(t, read(t, file), back.Format())
	require.Len(t, back.InSet("guest"), 2)
	require.Len(t, back.InSet("buildroot"), 1)
	require.Equal(t, []string{"trixie"}, back.Suites())
}

func TestWriteLeavesNothingBehindWhenItFails(t *testing.T) {
	dir := t.TempDir()
	// A folder of the lock's name cannot be replaced by a file.
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "debian.lock", "x"), 0o755))
	err := (&lock.Lock{}).Write(filepath.Join(dir, "debian.lock"))
	require.Error(t, err)
	require.Equal(t, exitcode.LocalIO, exitcode.Of(err))
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1)
}

func TestRole(t *testing.T) {
	for file, want := range map[string]string{
		"pool/main/q/qemu/qemu_11.1.3+ds-1.dsc":                   "dsc",
		"pool/main/q/qemu/qemu_11.1.3+ds.orig.tar.xz":             "orig",
		"pool/main/q/qemu/qemu_11.1.3+ds.orig-roms.tar.gz":        "orig-roms",
		"pool/main/q/qemu/qemu_11.1.3+ds.orig.tar.xz.asc":         "orig.asc",
		"pool/main/q/qemu/qemu_11.1.3+ds-1~bpo13+1.debian.tar.xz": "debian",
		"pool/main/n/native/native_1.2.tar.xz":                    "orig",
		"pool/main/o/old/old_1.2-1.diff.gz":                       "diff",
	} {
		require.Equal(t, want, lock.Role(file), file)
	}
}

func TestDiff(t *testing.T) {
	source := func(version string) []lock.Entry {
		var files []lock.Entry
		for _, ext := range []string{".dsc", ".orig.tar.xz", ".debian.tar.xz"} {
			e := entry("qemu", version, "qemu")
			e.Arch, e.Path = lock.ArchSource, "pool/main/q/qemu/qemu_"+version+ext
			files = append(files, e)
		}
		return files
	}
	rebuilt := entry("sed", "4.9-2", "guest")
	rebuilt.SHA256 = strings.Repeat("b", 64)
	from := &lock.Lock{Entries: append(source("1-1"), entry("bash", "5.2-1", "guest"), entry("gone", "1", "guest"), entry("sed", "4.9-2", "guest"), entry("same", "1", "guest"))}
	to := &lock.Lock{Entries: append(source("1-2"), entry("bash", "5.2-2", "guest"), entry("added", "1", "buildroot"), rebuilt, entry("same", "1", "guest"))}
	require.Equal(t, []lock.Change{
		{Suite: "trixie", Package: "added", Arch: "amd64", New: "1", Sets: []string{"buildroot"}},
		{Suite: "trixie", Package: "bash", Arch: "amd64", Old: "5.2-1", New: "5.2-2", Sets: []string{"guest"}},
		{Suite: "trixie", Package: "gone", Arch: "amd64", Old: "1", Sets: []string{"guest"}},
		{Suite: "trixie", Package: "qemu", Arch: "source", Old: "1-1", New: "1-2", Sets: []string{"qemu"}},
		{Suite: "trixie", Package: "sed", Arch: "amd64", Old: "4.9-2", New: "4.9-2", Sets: []string{"guest"}},
	}, lock.Diff(from, to))
	require.Empty(t, lock.Diff(from, from))
}

// TestCommittedLock checks what is committed, so that a bad merge is found
// before anything is built.
func TestCommittedLock(t *testing.T) {
	sets, err := lock.ReadSets("../sets.json")
	require.NoError(t, err)
	l, err := lock.Read("../debian.lock")
	require.NoError(t, err)
	require.Equal(t, string(l.Format()), string(read(t, "../debian.lock")), "debian.lock is not as `update` writes it")
	for _, name := range sets.Names() {
		have := map[string]bool{}
		for _, e := range l.InSet(name) {
			have[e.Package] = true
			require.Equal(t, sets[name].Suite, e.Suite, "%s in %s", e.Package, name)
		}
		for _, asked := range sets[name].Packages {
			p, _ := lock.Request(asked)
			require.True(t, have[p], "set %s: package %s is not locked: run `bazel run //tools/debian:update`", name, p)
		}
		for p := range sets[name].Omit {
			require.False(t, have[p], "set %s: package %s is omitted and locked", name, p)
		}
	}
	for _, e := range l.Entries {
		require.Contains(t, l.Snapshots, e.Suite)
		for _, set := range e.Sets {
			require.Contains(t, sets, set)
		}
	}
}
