//go:build bazel

package checkedin_test

import (
	"os"
	"strings"
	"testing"

	"github.com/bazelbuild/rules_go/go/runfiles"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/checkedin"
)

// TestDrift compares the files in the source tree with what is made for them. The
// macro checked_in makes it a test of its own for each set of files.
func TestDrift(t *testing.T) {
	pairs := strings.Fields(os.Getenv("KILN_CHECKED_IN"))
	require.NotEmpty(t, pairs)
	var stale []string
	for _, pair := range pairs {
		there, made, ok := strings.Cut(pair, "=")
		require.True(t, ok, pair)
		f := checkedin.File{}
		var err error
		f.Name, err = runfiles.Rlocation(there)
		require.NoError(t, err)
		f.Made, err = runfiles.Rlocation(made)
		require.NoError(t, err)
		found, err := checkedin.Stale("", []checkedin.File{f})
		require.NoError(t, err)
		if len(found) > 0 {
			stale = append(stale, strings.TrimPrefix(there, "_main/"))
		}
	}
	require.Empty(t, stale, "not what is made for them: `bazel run %s` renews them", os.Getenv("KILN_RENEW"))
}
