//go:build bazel

// The test of this package builds components a second time: elsewhere, with
// programs of the outer Bazel but none of its results, and compares them with what
// that one built. It takes the components that are made in a minute; all others,
// with nothing cached at all, are compared by //tools/repro/cmd.
package cheap_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bazelbuild/rules_go/go/runfiles"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/nested"
	"github.com/kiln-build/kiln/tools/nested/nestedtest"
	"github.com/kiln-build/kiln/tools/repro"
)

func TestSameBytesElsewhere(t *testing.T) {
	var files []string
	for _, name := range strings.Fields(os.Getenv("METADATA")) {
		file, err := runfiles.Rlocation(name)
		require.NoError(t, err)
		files = append(files, file)
	}
	first, err := repro.Read(files)
	require.NoError(t, err)
	require.NotEmpty(t, first)

	module, err := runfiles.Rlocation("_main/MODULE.bazel")
	require.NoError(t, err)
	workspace, err := nested.WorkspaceOf(module)
	require.NoError(t, err)
	dir := nestedtest.TempDir(t)
	second, err := repro.Build(t.Context(), workspace, filepath.Join(dir, "elsewhere"), repro.Components(), strings.Fields(os.Getenv("TARGETS")), os.Stderr)
	require.NoError(t, err)
	require.Empty(t, repro.Compare(first, second))
}
