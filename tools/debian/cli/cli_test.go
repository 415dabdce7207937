package cli_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/debian/archive/archivetest"
	"github.com/kiln-build/kiln/tools/debian/cli"
	"github.com/kiln-build/kiln/tools/debian/lock"
	"github.com/kiln-build/kiln/tools/exitcode"
)

const (
	date  = "Sat, 21 Nov 2026 09:15:44 UTC"
	first = "Package: bash\nVersion: 5.2-1\nDepends: libc6\n\nPackage: libc6\nVersion: 2.41-1\n"
	sets  = `{"guest": {"suite": "sid", "kind": "binary", "resolve": true, "packages": ["bash"]}}`
)

// workspace makes a workspace with these sets, and the environment for it.
func workspace(t *testing.T, sets string, mirrors ...string) cli.Environment {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "tools/debian"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "tools/debian/sets.json"), []byte(sets), 0o644))
	return cli.Environment{Workspace: dir, Mirrors: mirrors}
}

func run(t *testing.T, e cli.Environment, args ...string) (string, error) {
	t.Helper()
	cmd := cli.New(e)
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&bytes.Buffer{})
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return strings.ReplaceAll(out.String(), e.Workspace, "WORKSPACE"), err
}

func read(t *testing.T, e cli.Environment, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(e.Workspace, name))
	require.NoError(t, err)
	return string(data)
}

func TestUpdateSaysWhatChanged(t *testing.T) {
	m := archivetest.New(t)
	m.Publish("sid", date, first, "")
	e := workspace(t, sets, m.URL)
	out, err := run(t, e, "update")
	require.NoError(t, err)
	require.Equal(t, "  + bash 5.2-1 in sid (guest)\n  + libc6 2.41-1 in sid (guest)\n"+
		"WORKSPACE/tools/debian/debian.lock: 2 files, 0 MB, packages changed: 2\n", out)
	require.Contains(t, read(t, e, "tools/debian/debian.lock"), "# Renew: bazel run //tools/debian:update\n")

	m.Publish("sid", date, strings.ReplaceAll(first, "5.2-1", "5.3-1"), "")
	out, err = run(t, e, "update", "--output=json")
	require.NoError(t, err)
	var result struct {
		Files   int
		Changes []lock.Change
	}
	require.NoError(t, json.Unmarshal([]byte(out), &result))
	require.Equal(t, 2, result.Files)
	require.Equal(t, []lock.Change{{Suite: "sid", Package: "bash", Arch: "amd64", Old: "5.2-1", New: "5.3-1", Sets: []string{"guest"}}}, result.Changes)
}

func TestUpdateKeepsTheLockWhenItFails(t *testing.T) {
	m := archivetest.New(t)
	m.Publish("sid", date, first, "")
	e := workspace(t, sets, m.URL)
	_, err := run(t, e, "update")
	require.NoError(t, err)
	before := read(t, e, "tools/debian/debian.lock")

	m.Publish("sid", date, "Package: bash\nVersion: 6\nDepends: gone\n", "")
	_, err = run(t, e, "update")
	require.EqualError(t, err, "set guest: suite sid has no package gone, which bash needs (bash)")
	require.Equal(t, exitcode.BadInput, exitcode.Of(err))
	require.Equal(t, before, read(t, e, "tools/debian/debian.lock"))
	left, err := os.ReadDir(filepath.Join(e.Workspace, "tools/debian"))
	require.NoError(t, err)
	require.Len(t, left, 2)
}

func TestCheckAndRelock(t *testing.T) {
	m := archivetest.New(t)
	m.Publish("sid", date, first, "")
	e := workspace(t, sets, m.URL)
	_, err := run(t, e, "update")
	require.NoError(t, err)
	pinned := read(t, e, "tools/debian/debian.lock")

	out, err := run(t, e, "check")
	require.NoError(t, err)
	require.Equal(t, "WORKSPACE/tools/debian/debian.lock: all 2 files can be had\n", out)
	out, err = run(t, e, "relock")
	require.NoError(t, err)
	require.Equal(t, "WORKSPACE/tools/debian/debian.lock: all 2 files can be had, no local lock is needed\n", out)
	require.NoFileExists(t, filepath.Join(e.Workspace, "debian.local.lock"))

	m.Remove(archivetest.Path("bash", "5.2-1"))
	m.Publish("sid", date, strings.ReplaceAll(first, "5.2-1", "5.3-1"), "")
	out, err = run(t, e, "check")
	require.Equal(t, exitcode.Unverified, exitcode.Of(err))
	require.ErrorContains(t, err, "1 of 2 files in ")
	require.ErrorContains(t, err, "bazel run //tools/debian:update")
	require.Contains(t, out, "WORKSPACE/tools/debian/debian.lock:5: bash 5.2-1 of sid: no source has pool/bash_5.2-1.deb any more\n")

	out, err = run(t, e, "relock")
	require.NoError(t, err)
	require.Contains(t, out, "WARNING: 1 of the 2 files pinned in WORKSPACE/tools/debian/debian.lock are gone")
	require.Contains(t, out, "  ~ bash 5.2-1 -> 5.3-1 in sid (guest)\n")
	require.Contains(t, out, "inputs=relocked")
	require.Equal(t, pinned, read(t, e, "tools/debian/debian.lock"), "the lock itself stays as it is")
	require.Contains(t, read(t, e, "debian.local.lock"), " bash 5.3-1 ")

	// The local lock is itself a lock that can be checked, and goes away
	// with its reason.
	_, err = run(t, e, "check", "--lock="+filepath.Join(e.Workspace, "debian.local.lock"))
	require.NoError(t, err)
	m.Put(archivetest.Path("bash", "5.2-1"), []byte("bash 5.2-1"))
	out, err = run(t, e, "relock", "--output=json")
	require.NoError(t, err)
	require.JSONEq(t, `{"relocked": false, "vanished": [], "changes": []}`, out)
	require.NoFileExists(t, filepath.Join(e.Workspace, "debian.local.lock"))
}

func TestExitCodes(t *testing.T) {
	m := archivetest.New(t)
	m.Publish("sid", date, first, "")
	good := workspace(t, sets, m.URL)
	_, err := run(t, good, "update")
	require.NoError(t, err)
	unreachable := good
	unreachable.Mirrors = []string{"http://127.0.0.1:1/debian"}
	for name, tc := range map[string]struct {
		environment cli.Environment
		args        []string
		code        int
		want        string
	}{
		"unknown flag":       {good, []string{"check", "--nope"}, exitcode.BadInput, "unknown flag: --nope"},
		"unknown output":     {good, []string{"check", "--output=xml"}, exitcode.BadInput, "--output=xml: want text or json"},
		"an argument":        {good, []string{"check", "bash"}, exitcode.BadInput, "check takes no arguments, only flags"},
		"no lock yet":        {workspace(t, sets, m.URL), []string{"check"}, exitcode.BadInput, "write it with `bazel run //tools/debian:update`"},
		"bad sets":           {workspace(t, "{", m.URL), []string{"update"}, exitcode.BadInput, "sets.json:1: unexpected EOF"},
		"mirror unreachable": {unreachable, []string{"update"}, exitcode.Unreachable, "127.0.0.1:1"},
		"check unreachable":  {unreachable, []string{"check"}, exitcode.Unreachable, "127.0.0.1:1"},
		"relock unreachable": {unreachable, []string{"relock"}, exitcode.Unreachable, "127.0.0.1:1"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := run(t, tc.environment, tc.args...)
			require.ErrorContains(t, err, tc.want)
			require.Equal(t, tc.code, exitcode.Of(err), "%v", err)
		})
	}
}
