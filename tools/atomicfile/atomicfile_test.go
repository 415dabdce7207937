package atomicfile_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/atomicfile"
)

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestWriteFileReplaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "receipt.json")
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o600))
	old, err := os.Open(path)
	require.NoError(t, err)
	defer old.Close()

	require.NoError(t, atomicfile.WriteFile(path, []byte("new"), 0o644))

	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "new", string(got))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o644), info.Mode())
	// Whoever had the file open keeps what was in it.
	got, err = io.ReadAll(old)
	require.NoError(t, err)
	require.Equal(t, "old", string(got))
	require.Equal(t, []string{"receipt.json"}, names(t, filepath.Dir(path)))
}

func TestAbortLeavesTheOldContent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "receipt.json")
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o644))

	f, err := atomicfile.Create(path, 0o644)
	require.NoError(t, err)
	_, err = io.Copy(f, strings.NewReader("half"))
	require.NoError(t, err)
	require.Len(t, names(t, filepath.Dir(path)), 2)
	for _, n := range names(t, filepath.Dir(path)) {
		require.Equal(t, n != "receipt.json", atomicfile.IsPartial(n))
	}
	f.Abort()

	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "old", string(got))
	require.Equal(t, []string{"receipt.json"}, names(t, filepath.Dir(path)))
	require.ErrorContains(t, f.Commit(), "ended already")
}

func TestCommitAs(t *testing.T) {
	dir := t.TempDir()
	f, err := atomicfile.Create(filepath.Join(dir, "upload"), 0o644)
	require.NoError(t, err)
	_, err = f.Write([]byte("blob"))
	require.NoError(t, err)
	require.NoError(t, f.CommitAs(filepath.Join(dir, "sha256-0123")))
	require.Equal(t, []string{"sha256-0123"}, names(t, dir))
}

func TestCommitOverADirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "taken")
	require.NoError(t, os.MkdirAll(filepath.Join(path, "child"), 0o755))
	err := atomicfile.WriteFile(path, []byte("new"), 0o644)
	require.ErrorContains(t, err, "putting "+path+" in place")
	require.Equal(t, []string{"taken"}, names(t, filepath.Dir(path)))
}

func TestCreateWithoutDirectory(t *testing.T) {
	_, err := atomicfile.Create(filepath.Join(t.TempDir(), "absent", "f"), 0o644)
	require.True(t, errors.Is(err, os.ErrNotExist), "%v", err)
}
