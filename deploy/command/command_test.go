package command_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/deploy/command"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func run(t *testing.T, prefix string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	getenv := func(name string) string {
		if name == "INSTALLATION_PREFIX" {
			return prefix
		}
		return ""
	}
	code = command.Run(context.Background(), args, getenv, &out, &errs)
	return code, out.String(), errs.String()
}

func source(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "bin"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "bin", "qemu"), []byte("qemu"), 0o755))
	return dir
}

func TestThePrefixOfTheEnvironment(t *testing.T) {
	prefix, src := t.TempDir(), source(t)
	code, stdout, stderr := run(t, prefix, "install", "--artifacts="+src)
	require.Equal(t, 0, code, stderr)
	require.Equal(t, "installed to "+prefix+"/opt/kata: 1 new, 0 unchanged, 0 removed, 0.0 MiB written\n", stdout)
	require.FileExists(t, filepath.Join(prefix, "opt/kata/bin/qemu"))
	code, stdout, stderr = run(t, prefix, "cleanup")
	require.Equal(t, 0, code, stderr)
	require.Equal(t, "removed 1 files from "+prefix+"/opt/kata\n", stdout)
	require.NoDirExists(t, filepath.Join(prefix, "opt"))
}

func TestAFlagBeatsTheEnvironment(t *testing.T) {
	prefix, src := t.TempDir(), source(t)
	code, stdout, stderr := run(t, "/absent", "install", "--artifacts="+src, "--prefix="+prefix, "--output=json")
	require.Equal(t, 0, code, stderr)
	var result struct {
		Destination string
		Installed   int
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &result))
	require.Equal(t, filepath.Join(prefix, "opt/kata"), result.Destination)
	require.Equal(t, 1, result.Installed)

	require.NoError(t, os.WriteFile(filepath.Join(prefix, "opt/kata/bin/mine"), nil, 0o644))
	code, stdout, _ = run(t, "", "cleanup", "--prefix="+prefix, "--output=json")
	require.Equal(t, 0, code)
	var cleaned struct{ Kept []string }
	require.NoError(t, json.Unmarshal([]byte(stdout), &cleaned))
	require.Contains(t, cleaned.Kept, filepath.Join(prefix, "opt/kata/bin"))
}

func TestFailures(t *testing.T) {
	taken := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(taken, "opt/kata/bin"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(taken, "opt/kata/bin/qemu"), []byte("mine"), 0o644))
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	for name, tc := range map[string]struct {
		prefix string
		args   []string
		code   int
		want   string
	}{
		"no such command":      {"", []string{"reset"}, exitcode.BadInput, `unknown command "reset"`},
		"an argument":          {"", []string{"install", "now"}, exitcode.BadInput, `unknown command "now"`},
		"unknown flag":         {"", []string{"cleanup", "--force"}, exitcode.BadInput, "unknown flag: --force"},
		"odd output":           {"", []string{"cleanup", "--output=xml"}, exitcode.BadInput, `give "text" or "json"`},
		"relative prefix":      {"srv", []string{"install"}, exitcode.BadInput, `prefix "srv" is not an absolute path`},
		"no artefacts":         {t.TempDir(), []string{"install", "--artifacts=/absent"}, exitcode.LocalIO, "/absent"},
		"something in the way": {taken, []string{"install", "--artifacts=" + source(t)}, exitcode.BadInput, "was not installed by kata-deploy"},
		"the prefix is a file": {file, []string{"install", "--artifacts=" + source(t)}, exitcode.LocalIO, "not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := run(t, tc.prefix, tc.args...)
			require.Equal(t, tc.code, code, stderr)
			require.Empty(t, stdout)
			require.Contains(t, stderr, tc.want)
			require.Equal(t, 1, strings.Count(stderr, "error: "))
		})
	}
}
