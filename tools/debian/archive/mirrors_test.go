package archive_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/debian/archive"
)

// TestMirrors reads the apt configurations below testdata/apt. The same
// folders are read by the test of mirrors.bzl, which must find the same.
func TestMirrors(t *testing.T) {
	dirs, err := filepath.Glob("testdata/apt/*")
	require.NoError(t, err)
	require.NotEmpty(t, dirs)
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			variable, err := os.ReadFile(filepath.Join(dir, "variable.txt"))
			if err != nil {
				require.ErrorIs(t, err, os.ErrNotExist)
			}
			want, err := os.ReadFile(filepath.Join(dir, "want.txt"))
			require.NoError(t, err)
			require.Equal(t, strings.Fields(string(want)),
				append([]string{}, archive.Mirrors(string(variable), filepath.Join(dir, "root"))...))
		})
	}
}

func TestScannerKeepsWhatIsAskedFor(t *testing.T) {
	s := archive.NewScanner(strings.NewReader("\n# a comment\nPackage: a\nDescription: long\n more\nDepends: b,\n c\n\n\nPACKAGE: d\n"), "Package", "Depends")
	require.True(t, s.Scan())
	require.Equal(t, "a", s.Stanza().Get("package"))
	require.Equal(t, "b,\nc", s.Stanza().Get("Depends"))
	require.Empty(t, s.Stanza().Get("Description"))
	require.True(t, s.Scan())
	require.Equal(t, "d", s.Stanza().Get("Package"))
	require.False(t, s.Scan())
	require.NoError(t, s.Err())
}
