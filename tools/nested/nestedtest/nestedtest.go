// Package nestedtest runs Bazel from within a test that Bazel started.
package nestedtest

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/nested"
)

// Bazel gives Bazel on a workspace, for a test that is tagged "local" and
// "exclusive". What it prints is shown if the test fails, and its server ends
// with the test.
//
// The output base is kept between runs, beside the one of the Bazel that runs
// the test, and all such tests share it: fetching everything anew takes minutes.
func Bazel(t testing.TB, workspace string) *nested.Bazel {
	t.Helper()
	return newBazel(t, workspace, outputBase(t)+"-nested")
}

// Fresh gives Bazel with an output base of its own that is gone after the test, as
// a job of a CI has.
func Fresh(t testing.TB, workspace string) *nested.Bazel {
	t.Helper()
	return newBazel(t, workspace, filepath.Join(TempDir(t), "output_base"))
}

// TempDir gives a folder for workspaces and output bases that is gone after the
// test. It is not below /tmp, of which Bazel's sandbox shows an action nothing.
func TempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(filepath.Dir(outputBase(t)), "nested-")
	require.NoError(t, err)
	// Cleaned up last: servers must have ended by then.
	t.Cleanup(func() { require.NoError(t, nested.RemoveAll(dir)) })
	return dir
}

// outputBase is that of the Bazel which runs the test.
func outputBase(t testing.TB) string {
	t.Helper()
	// A test that is not sandboxed runs below OUTPUT_BASE/execroot.
	base, _, found := strings.Cut(os.Getenv("TEST_SRCDIR"), "/execroot/")
	require.True(t, found, "this test must run without a sandbox: tag it local")
	return base
}

func newBazel(t testing.TB, workspace, outputBase string) *nested.Bazel {
	t.Helper()
	// Not an undeclared output of the test: Bazel needs zip to keep those.
	log, err := os.Create(filepath.Join(t.TempDir(), "bazel.log"))
	require.NoError(t, err)
	bazel := &nested.Bazel{Workspace: workspace, OutputBase: outputBase, Log: log}
	t.Cleanup(func() {
		// The test's own context has ended.
		if err := bazel.Shutdown(context.Background()); err != nil {
			t.Log(err)
		}
		require.NoError(t, log.Close())
		if t.Failed() {
			content, err := os.ReadFile(log.Name())
			require.NoError(t, err)
			t.Logf("what Bazel printed:\n%s", bytes.TrimSpace(content))
		}
	})
	return bazel
}
