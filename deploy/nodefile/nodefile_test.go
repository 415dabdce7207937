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

// An installer that was killed as it wrote.
func TestWhatWasLeftOfAFileGoes(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, ".kiln-partial-123")
	for name, change := range map[string]func() error{
		"replacing": func() error { _, err := nodefile.Replace(filepath.Join(dir, "file"), []byte("one")); return err },
		"the same":  func() error { _, err := nodefile.Replace(filepath.Join(dir, "file"), []byte("one")); return err },
		"removing":  func() error { _, err := nodefile.Remove(filepath.Join(dir, "file")); return err },
		"again":     func() error { _, err := nodefile.Remove(filepath.Join(dir, "file")); return err },
	} {
		require.NoError(t, os.WriteFile(left, []byte("half"), 0o600))
		require.NoError(t, change(), name)
		require.NoFileExists(t, left, name)
	}
	made := filepath.Join(dir, "made")
	require.NoError(t, nodefile.MakeDir(made))
	require.NoError(t, os.WriteFile(filepath.Join(made, ".kiln-partial-123"), nil, 0o600))
	require.NoError(t, nodefile.RemoveDir(made))
	require.NoDirExists(t, made)
}

func TestWritable(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, nodefile.Writable(filepath.Join(dir, "a/b")))
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	err := nodefile.Writable(filepath.Join(file, "below"))
	require.ErrorContains(t, err, "cannot be written to")
	require.Equal(t, exitcode.LocalIO, exitcode.Of(err))
	// Nobody can write there, root neither.
	require.Error(t, nodefile.Writable("/proc/sys/kernel/osrelease/x"))
}
