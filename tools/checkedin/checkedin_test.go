package checkedin_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/checkedin"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func TestUpdate(t *testing.T) {
	root, made := t.TempDir(), filepath.Join(t.TempDir(), "made")
	require.NoError(t, os.WriteFile(made, []byte("new\n"), 0o400))
	for _, name := range []string{"old", "same"} {
		require.NoError(t, os.WriteFile(filepath.Join(root, name), []byte(map[string]string{"old": "old\n", "same": "new\n"}[name]), 0o644))
	}
	files := []checkedin.File{{Name: "old", Made: made}, {Name: "same", Made: made}, {Name: "absent", Made: made}}

	stale, err := checkedin.Stale(root, files)
	require.NoError(t, err)
	require.Equal(t, []string{"old", "absent"}, stale)
	changed, err := checkedin.Update(root, files)
	require.NoError(t, err)
	require.Equal(t, stale, changed)
	for _, f := range files {
		content, err := os.ReadFile(filepath.Join(root, f.Name))
		require.NoError(t, err)
		require.Equal(t, "new\n", string(content))
	}
	stale, err = checkedin.Stale(root, files)
	require.NoError(t, err)
	require.Empty(t, stale)
}

func TestFailures(t *testing.T) {
	here := func(path string) (string, error) { return path, nil }
	for _, text := range []string{"", "name", "name=", "../out=made", "/out=made"} {
		_, err := checkedin.Parse(text, here)
		require.Equal(t, exitcode.BadInput, exitcode.Of(err), text)
	}
	_, err := checkedin.Parse("name=made", func(string) (string, error) { return "", errors.New("nowhere") })
	require.ErrorContains(t, err, "finding what was made for name: nowhere")
	_, err = checkedin.Update(t.TempDir(), []checkedin.File{{Name: "name", Made: filepath.Join(t.TempDir(), "absent")}})
	require.Equal(t, exitcode.LocalIO, exitcode.Of(err))
}
