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

func TestDigests(t *testing.T) {
	dir := t.TempDir()
	layer, out := filepath.Join(dir, "kernel.layer"), filepath.Join(dir, "digests")
	require.NoError(t, os.WriteFile(layer, []byte("abc"), 0o600))
	require.NoError(t, standin.Digests([]string{layer}, out))
	got, err := standin.ReadDigests([]string{out})
	require.NoError(t, err)
	// The digest of "abc" in FIPS 180-2.
	require.Equal(t, map[string]string{"kernel.layer": "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}, got)
	_, err = standin.ReadDigests([]string{layer})
	require.ErrorContains(t, err, "not a digest and a name")
	_, err = standin.ReadDigests(nil)
	require.ErrorContains(t, err, "want one file")
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
	payload, err := os.ReadFile(filepath.Join(dir, "payload/BUILD.bazel"))
	require.NoError(t, err)
	for _, c := range standin.Components() {
		require.Contains(t, string(payload), `"//:`+c.Name+`",`)
	}
	info, err := os.Stat(filepath.Join(dir, "tool"))
	require.NoError(t, err)
	require.EqualValues(t, 0o755, info.Mode().Perm())
}
