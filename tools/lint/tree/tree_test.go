//go:build bazel

// The test of this package looks at the workspace that it was built from, not
// at declared inputs: it is tagged external, so that its result is never reused.
package tree_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bazelbuild/rules_go/go/runfiles"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/lint"
)

// workspace gives the folder that the runfile MODULE.bazel links to.
func workspace(t *testing.T) string {
	t.Helper()
	module, err := runfiles.Rlocation("_main/MODULE.bazel")
	require.NoError(t, err)
	module, err = filepath.EvalSymlinks(module)
	require.NoError(t, err)
	return filepath.Dir(module)
}

func TestFormat(t *testing.T) {
	root := workspace(t)
	findings, err := lint.Tree(os.DirFS(root))
	require.NoError(t, err)
	for _, f := range findings {
		t.Error(f)
	}
	_, err = os.Stat(filepath.Join(root, "tools/lint/lint.go"))
	require.NoError(t, err, "this is not the workspace")
}

// TestGoCommand asks the Go command for all packages and their tests, which it loads
// as it would to build them, but compiles nothing: Bazel has done so.
func TestGoCommand(t *testing.T) {
	out := runGo(t, "list", "-e", "-test", "-tags=bazel,payload", "-f", "{{with .Error}}{{.}}{{end}}{{range .DepsErrors}}{{println .}}{{end}}", "./...")
	require.Empty(t, strings.TrimSpace(out))
}

// runGo runs the pinned Go command on the workspace and gives what it prints.
func runGo(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(goroot(t), "bin/go"), args...)
	cmd.Dir = workspace(t)
	cmd.Env = append(os.Environ(), "GOROOT="+goroot(t), "GOTOOLCHAIN=local", "CGO_ENABLED=0", "GOFLAGS=-mod=readonly")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "go %s\n%s", strings.Join(args, " "), out)
	return string(out)
}

// goroot gives the pinned SDK.
func goroot(t *testing.T) string {
	t.Helper()
	version, err := runfiles.Rlocation(os.Getenv("GOROOT_FILE"))
	require.NoError(t, err)
	version, err = filepath.EvalSymlinks(version)
	require.NoError(t, err)
	return filepath.Dir(version)
}
