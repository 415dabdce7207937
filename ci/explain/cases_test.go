package explain_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/ci/command"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// screen is how many lines a component may take.
const screen = 24

func TestCases(t *testing.T) {
	folders, err := filepath.Glob("testdata/*/README.md")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(folders), 10)
	for _, readme := range folders {
		dir := filepath.Dir(readme)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			want, err := os.ReadFile(filepath.Join(dir, "want.txt"))
			require.NoError(t, err)
			var stdout, stderr bytes.Buffer
			code := command.Run(t.Context(), []string{"explain", filepath.Join(dir, "a.json"), filepath.Join(dir, "b.json")}, &stdout, &stderr)
			require.Equal(t, exitcode.OK, code, stderr.String())
			require.Empty(t, stderr.String())
			require.Equal(t, string(want), stdout.String())
			for _, component := range strings.Split(stdout.String(), "\n\n") {
				require.LessOrEqual(t, strings.Count(component, "\n"), screen, component)
			}
		})
	}
}
