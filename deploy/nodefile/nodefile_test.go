package nodefile_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/deploy/nodefile"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func TestReplaceAndRemove(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	content, err := nodefile.Read(name)
	require.NoError(t, err)
	require.Nil(t, content)
	changed, err := nodefile.Replace(name, []byte("one"))
	require.NoError(t, err)
	require.True(t, changed)
	require.NoError(t, os.Chmod(name, 0o600))
	changed, err = nodefile.Replace(name, []byte("one"))
	require.NoError(t, err)
	require.False(t, changed)
	changed, err = nodefile.Replace(name, nil)
	require.NoError(t, err)
	require.True(t, changed)
	info, err := os.Stat(name)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
	content, err = nodefile.Read(name)
	require.NoError(t, err)
	require.Empty(t, content)
	require.NotNil(t, content, "an empty file is not an absent one")
	removed, err := nodefile.Remove(name)
	require.NoError(t, err)
	require.True(t, removed)
	removed, err = nodefile.Remove(name)
	require.NoError(t, err)
	require.False(t, removed)
}

func TestDirectories(t *testing.T) {
	above := t.TempDir()
	dir := filepath.Join(above, "a/b/c")
	require.NoError(t, nodefile.MakeDir(dir))
	require.NoError(t, nodefile.MakeDir(dir))
	theirs := filepath.Join(above, "a", "theirs")
	require.NoError(t, os.Mkdir(theirs, 0o755))
	require.NoError(t, nodefile.RemoveDir(dir))
	require.NoDirExists(t, filepath.Join(above, "a/b"))
	require.DirExists(t, theirs)
	require.NoError(t, nodefile.RemoveDir(theirs))
	require.DirExists(t, theirs, "this one was not made here")
	require.NoError(t, os.Remove(theirs))
	require.NoError(t, nodefile.RemoveDir(dir))
	require.NoDirExists(t, filepath.Join(above, "a"))
	require.DirExists(t, above)
}

// An installer that was killed as it made or removed a directory.
func TestDirectoryThatCameHalfway(t *testing.T) {
	above := t.TempDir()
	dir := filepath.Join(above, "a")
	require.NoError(t, os.Mkdir(filepath.Join(above, ".kata-deploy-partial-a"), 0o755))
	require.NoError(t, nodefile.MakeDir(dir))
	require.NoError(t, os.Mkdir(filepath.Join(above, ".kata-deploy-partial-a"), 0o755))
	require.NoError(t, nodefile.RemoveDir(dir))
	entries, err := os.ReadDir(above)
	require.NoError(t, err)
	require.Empty(t, entries)
}

func TestFailures(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := nodefile.Read(filepath.Dir(file))
	require.Equal(t, exitcode.LocalIO, exitcode.Of(err))
	require.Equal(t, exitcode.LocalIO, exitcode.Of(nodefile.MakeDir(filepath.Join(file, "below"))))
	_, err = nodefile.Replace(filepath.Join(file, "below"), nil)
	require.Equal(t, exitcode.LocalIO, exitcode.Of(err))
}
