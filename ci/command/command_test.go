package command_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/ci/command"
	"github.com/kiln-build/kiln/tools/execlog/logpb"
	"github.com/kiln-build/kiln/tools/execlog/logtest"
	"github.com/kiln-build/kiln/tools/exitcode"
)

const key = "4d7357a0aeb7804c550b916c52178ec31d5373ec9f6cae51d7e207c40b698f54"

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// kiln runs the command in process.
func kiln(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = command.Run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

func kernel(t *testing.T, runner string, start time.Time) string {
	t.Helper()
	return logtest.JSON(t, logtest.Component("//stack/kernel:kernel", key, runner, start, time.Second, time.Second, time.Minute, time.Second))
}

func TestAuditExitCodes(t *testing.T) {
	first, merged := kernel(t, "remote", noon), kernel(t, "remote", noon.Add(time.Second))
	local := kernel(t, "linux-sandbox", noon.Add(time.Hour))
	hit := logtest.JSON(t, logtest.Component("//stack/kernel:kernel", key, "remote cache hit", noon.Add(time.Hour)))
	completed := filepath.Join(t.TempDir(), "completed.jsonl")
	require.NoError(t, os.WriteFile(completed, nil, 0o644))
	buildLog := filepath.Join(t.TempDir(), "build.log")
	require.NoError(t, os.WriteFile(buildLog, []byte("WARNING: Remote Cache: UNAVAILABLE: io exception\n"), 0o644))
	for name, tc := range map[string]struct {
		args []string
		code int
		want string
	}{
		"once":               {[]string{"a=" + first, "b=" + merged, "c=" + hit}, exitcode.OK, ""},
		"as go run calls it": {[]string{"--", "audit", first}, exitcode.OK, ""},
		"twice":              {[]string{"a=" + first, "b=" + local}, exitcode.Failed, "executed more than once: 1 of 1 component actions"},
		"one was served":     {[]string{"a=" + first, "b=" + hit, "--expect-cached=b"}, exitcode.OK, ""},
		"not served":         {[]string{"a=" + first, "b=" + local, "--expect-cached=b"}, exitcode.NotCached, "in job b: cache write-protected: "},
		"none served":        {[]string{"a=" + local, "--expect-cached", "--build-log=" + buildLog}, exitcode.NotCached, "in job a: cache unreachable: Bazel said: WARNING: Remote Cache: UNAVAILABLE: io exception"},
		"workers disagree":   {[]string{"a=" + first, "--completed=" + completed}, exitcode.Unverified, "(" + key + "): 1 remote executions in the logs, 0 by the workers"},
		"no log":             {[]string{"a=" + first + ".absent"}, exitcode.BadInput, "looking for execution logs"},
		"no argument":        {nil, exitcode.BadInput, "requires at least 1 arg(s)"},
		"unknown flag":       {[]string{first, "--nope"}, exitcode.BadInput, "unknown flag: --nope"},
		"unknown output":     {[]string{first, "--output=yaml"}, exitcode.BadInput, "--output=yaml: must be text or json"},
		"no place for JUnit": {[]string{first, "--junit=" + filepath.Join(first, "junit.xml")}, exitcode.LocalIO, "writing the JUnit report"},
	} {
		t.Run(name, func(t *testing.T) {
			args := tc.args
			if len(args) == 0 || args[0] != "--" {
				args = append([]string{"audit"}, args...)
			}
			code, stdout, stderr := kiln(t, args...)
			require.Equal(t, tc.code, code, stderr)
			if tc.want == "" {
				require.Empty(t, stderr)
				require.Contains(t, stdout, "//stack/kernel:kernel  4d7357a0aeb7  1 ")
			} else {
				require.Contains(t, stderr, "kiln: error: ")
				require.Contains(t, stderr, tc.want)
			}
		})
	}
}

func TestAuditWritesItsReports(t *testing.T) {
	dir := t.TempDir()
	// Paths are those of the user's folder, wherever Bazel starts a program.
	t.Setenv("BUILD_WORKING_DIRECTORY", dir)
	for _, name := range []string{"a", "b"} {
		data, err := os.ReadFile(kernel(t, "linux-sandbox", noon))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name+".json"), data, 0o644))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "summary.md"), []byte("## Before\n"), 0o644))

	code, stdout, _ := kiln(t, "audit", "a.json", "b.json", "--output=json", "--junit=junit.xml", "--summary=summary.md")
	require.Equal(t, exitcode.Failed, code)
	var report struct {
		Jobs       []string
		Components []struct {
			Target, Key string
			Executions  []struct{ Job, Runner string }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &report))
	require.Equal(t, []string{"a", "b"}, report.Jobs)
	require.Len(t, report.Components, 1)
	require.Equal(t, key, report.Components[0].Key)
	require.Len(t, report.Components[0].Executions, 2)
	// A report is there although the audit failed: that is when it is read.
	junit, err := os.ReadFile(filepath.Join(dir, "junit.xml"))
	require.NoError(t, err)
	require.Contains(t, string(junit), `<testsuite name="kiln audit" tests="1" failures="1">`)
	summary, err := os.ReadFile(filepath.Join(dir, "summary.md"))
	require.NoError(t, err)
	require.Regexp(t, `^## Before\n### Executions: not as it must be\n`, string(summary))
}

func TestAuditOtherMnemonics(t *testing.T) {
	link := &logpb.SpawnExec{Mnemonic: "GoLink", TargetLabel: "//ci/cmd/kiln:kiln", Runner: "linux-sandbox"}
	code, stdout, stderr := kiln(t, "audit", "--mnemonic=GoLink", logtest.JSON(t, link))
	require.Equal(t, exitcode.OK, code, stderr)
	require.Contains(t, stdout, "//ci/cmd/kiln:kiln")
}
