package nested_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/nested"
)

func TestRunPassesStartupOptionsFirst(t *testing.T) {
	dir := t.TempDir()
	fake := filepath.Join(dir, "bazel")
	require.NoError(t, os.WriteFile(fake, []byte("#!/bin/sh\nprintf '%s\\n' \"$@\" \"TEST_TMPDIR=$TEST_TMPDIR\" \"$PWD\"\n"), 0o755))
	t.Setenv(nested.CommandVariable, fake+"\n--bazelrc=a b")
	t.Setenv("TEST_TMPDIR", "/nowhere")
	var out bytes.Buffer
	bazel := nested.Bazel{Workspace: dir, OutputBase: "/base", Startup: []string{"--batch"}, Log: &out}
	require.NoError(t, bazel.Run(context.Background(), "build", "//x"))
	require.Equal(t, "--bazelrc=a b\n--output_base=/base\n--max_idle_secs=60\n--batch\nbuild\n--symlink_prefix=/\n"+
		"--color=no\n--curses=no\n--show_progress_rate_limit=30\n//x\nTEST_TMPDIR=\n"+dir+"\n", out.String())
}

func TestWorkspaceOf(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "w/a/b"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "w/MODULE.bazel"), nil, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "w/a/b/f"), nil, 0o644))
	require.NoError(t, os.Symlink(filepath.Join(dir, "w/a/b/f"), filepath.Join(dir, "link")))
	got, err := nested.WorkspaceOf(filepath.Join(dir, "link"))
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "w"), got)
}
