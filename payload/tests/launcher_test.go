//go:build payload

package tests_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/bazelbuild/rules_go/go/runfiles"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/payload/receipt"
	"github.com/kiln-build/kiln/tests/suite/payloadtest"
)

func rlocation(t *testing.T, variable string) string {
	t.Helper()
	path, err := runfiles.Rlocation(os.Getenv(variable))
	require.NoError(t, err)
	return path
}

// run runs what `bazel run` would.
func run(t *testing.T, cache, variable string, args ...string) (stdout string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), rlocation(t, variable), args...)
	env, err := runfiles.Env()
	require.NoError(t, err)
	cmd.Env = append(append(os.Environ(), env...), "XDG_CACHE_HOME="+cache)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	t.Logf("%s", errs.Bytes())
	if exit := (&exec.ExitError{}); err != nil {
		require.ErrorAs(t, err, &exit)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

func TestWhatBazelRunsPublishes(t *testing.T) {
	cache := t.TempDir()
	stdout, code := run(t, cache, "KILN_PUBLISH", "--output=json")
	require.Equal(t, 0, code)
	var result struct {
		ReceiptPath string
		Components  []struct{ Name, Registry string }
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &result))
	require.Len(t, result.Components, 3)
	require.Equal(t, "uploaded", result.Components[0].Registry)
	require.Equal(t, filepath.Join(cache, "kiln", "receipts", "fake.json"), result.ReceiptPath)

	// The receipt that publishing writes is the one of the graph.
	want, err := os.ReadFile(rlocation(t, "KILN_RECEIPT"))
	require.NoError(t, err)
	got, err := os.ReadFile(result.ReceiptPath)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))

	stdout, code = run(t, cache, "KILN_PUBLISH")
	require.Equal(t, 0, code)
	require.Contains(t, stdout, "nothing: the registry has all of it")

	_, code = run(t, cache, "KILN_PUBLISH", "--channel=release")
	require.Equal(t, 2, code, "it carries the bringup agent")
}

func TestWhatBazelRunsInspects(t *testing.T) {
	stdout, code := run(t, t.TempDir(), "KILN_INSPECT", "--files")
	require.Equal(t, 0, code)
	require.Contains(t, stdout, "/opt/kata-artifacts/opt/kata/share/kata-containers/vmlinuz.container")
}

func TestASuiteGetsTheBundle(t *testing.T) {
	p := payloadtest.Pull(t)
	require.FileExists(t, filepath.Join(p.Dir, "share/kata-containers/vmlinuz.container"))
	r, err := receipt.ReadFile(rlocation(t, "KILN_RECEIPT"))
	require.NoError(t, err)
	require.Equal(t, r, p.Receipt)
}
