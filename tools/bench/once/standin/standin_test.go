package standin_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/bench/once/standin"
)

func TestMake(t *testing.T) {
	dir := t.TempDir()
	make := func(name string, from ...string) []byte {
		out := filepath.Join(dir, "out")
		require.NoError(t, standin.Make(t.Context(), standin.Component{Name: name, Bytes: 10_000}, from, out))
		content, err := os.ReadFile(out)
		require.NoError(t, err)
		require.Len(t, content, 10_000)
		return content
	}
	dep := filepath.Join(dir, "dep")
	require.NoError(t, os.WriteFile(dep, []byte("one"), 0o600))
	kernel := make("kernel")
	require.Equal(t, kernel, make("kernel"))
	require.NotEqual(t, kernel, make("qemu"))
	config := make("config", dep)
	require.NoError(t, os.WriteFile(dep, []byte("two"), 0o600))
	require.NotEqual(t, config, make("config", dep), "a dependency's content makes no difference")
}

func TestWrite(t *testing.T) {
	dir, tool := t.TempDir(), filepath.Join(t.TempDir(), "tool")
	require.NoError(t, os.WriteFile(tool, []byte("a program"), 0o600))
	module := filepath.Join(t.TempDir(), "MODULE.bazel")
	require.NoError(t, os.WriteFile(module, []byte("module(name = \"kiln\")\n\nbazel_dep(name = \"rules_go\", version = \"1\")\nuse_repo(x)\n"), 0o600))
	require.NoError(t, standin.Write(dir, tool, module, standin.Components()))
	written, err := os.ReadFile(filepath.Join(dir, "MODULE.bazel"))
	require.NoError(t, err)
	require.Equal(t, "module(name = \"standin\")\n\nbazel_dep(name = \"rules_go\", version = \"1\")\n", string(written))
	build, err := os.ReadFile(filepath.Join(dir, "BUILD.bazel"))
	require.NoError(t, err)
	require.Contains(t, string(build), `
stand_in(
    name = "runtimeconfig",
    bytes = 10240,
    time = "1s",
    deps = [
        ":rootfs-image-confidential",
    ],
)
`)
	info, err := os.Stat(filepath.Join(dir, "tool"))
	require.NoError(t, err)
	require.EqualValues(t, 0o755, info.Mode().Perm())
}
