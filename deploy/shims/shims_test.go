package shims_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/pelletier/go-toml/v2"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/deploy/shims"
	"github.com/kiln-build/kiln/tools/exitcode"
)

const configuration = `# A comment.
[hypervisor.qemu]
path = "/opt/kata/bin/qemu-system-x86_64"
kernel = "/opt/kata/share/kata-containers/vmlinuz.container"
machine_type = "q35"
valid_hypervisor_paths = ["/opt/kata/bin/qemu-system-x86_64", "/usr/bin/qemu"]
firmware = "/opt/katarina"
kernel_params = "quiet a=b"
enable_annotations = ["kernel_params", "default_vcpus"]
[agent.kata]
enable_debug = false
[runtime]
sandbox_bind_mounts = []
`

func installed(t *testing.T) string {
	t.Helper()
	installation := t.TempDir()
	defaults := filepath.Join(installation, "share/defaults/kata-containers")
	require.NoError(t, os.MkdirAll(defaults, 0o755))
	for name, content := range map[string]string{
		"configuration-qemu-tdx.toml": configuration, "configuration-remote.toml": "[hypervisor.remote]\n", "configuration-broken.toml": "[",
		"other.toml": "",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(defaults, name), []byte(content), 0o644))
	}
	require.NoError(t, os.Symlink("configuration-qemu-tdx.toml", filepath.Join(defaults, "configuration.toml")))
	return installation
}

func read(t *testing.T, name string) map[string]any {
	t.Helper()
	content, err := os.ReadFile(name)
	require.NoError(t, err)
	var document map[string]any
	require.NoError(t, toml.Unmarshal(content, &document))
	return document
}

func TestAvailable(t *testing.T) {
	got, err := shims.Available(installed(t))
	require.NoError(t, err)
	require.Equal(t, []string{"broken", "qemu-tdx", "remote"}, got)
	_, err = shims.Available(t.TempDir())
	require.Equal(t, exitcode.LocalIO, exitcode.Of(err))
}

func TestConfigure(t *testing.T) {
	installation := installed(t)
	require.NoError(t, shims.Configure(installation, "qemu-tdx", shims.Options{}))
	config := shims.Path(installation, "qemu-tdx", "")
	content, err := os.ReadFile(config)
	require.NoError(t, err)
	require.Equal(t, configuration, string(content))

	dropIns := filepath.Join(filepath.Dir(config), "config.d")
	qemu := installation + "/bin/qemu-system-x86_64"
	require.Equal(t, map[string]any{"hypervisor": map[string]any{"qemu": map[string]any{
		"path": qemu, "kernel": installation + "/share/kata-containers/vmlinuz.container", "valid_hypervisor_paths": []any{qemu, "/usr/bin/qemu"},
	}}}, read(t, filepath.Join(dropIns, "10-installation-prefix.toml")))

	// What its owner put there stays when another version is installed, but not what an
	// installer did that made the shim itself say more.
	owners := []string{filepath.Join(dropIns, "50-user-overrides.toml"), filepath.Join(dropIns, "50-overrides.toml")}
	former := filepath.Join(dropIns, "20-debug.toml")
	for _, file := range append(owners, former) {
		require.NoError(t, os.WriteFile(file, nil, 0o600))
	}
	require.NoError(t, shims.Configure(installation, "qemu-tdx", shims.Options{}))
	for _, file := range owners {
		require.FileExists(t, file)
	}
	require.NoFileExists(t, former)

	require.NoError(t, shims.Configure(installation, "remote", shims.Options{}))
	require.NoError(t, shims.Remove(installation))
	require.NoDirExists(t, filepath.Join(installation, "share/defaults/kata-containers/runtimes"))
	require.NoError(t, shims.Remove(installation))
	require.FileExists(t, filepath.Join(installation, "share/defaults/kata-containers/configuration-qemu-tdx.toml"))
}

func TestOptions(t *testing.T) {
	installation := installed(t)
	dropIns := filepath.Join(filepath.Dir(shims.Path(installation, "qemu-tdx", "")), "config.d")
	require.NoError(t, shims.Configure(installation, "qemu-tdx", shims.Options{
		KernelParameters: []string{"agent.https_proxy=http://p:1", "agent.no_proxy=x"}, Annotations: []string{"machine_type", "default_vcpus"}, ForceGuestPull: true,
	}))
	qemu := func(key string, value any) map[string]any {
		return map[string]any{"hypervisor": map[string]any{"qemu": map[string]any{key: value}}}
	}
	require.Equal(t, qemu("kernel_params", "quiet a=b agent.https_proxy=http://p:1 agent.no_proxy=x"), read(t, filepath.Join(dropIns, "30-kernel-params.toml")))
	require.Equal(t, qemu("enable_annotations", []any{"default_vcpus", "kernel_params", "machine_type"}), read(t, filepath.Join(dropIns, "40-annotations.toml")))
	require.Equal(t, map[string]any{"runtime": map[string]any{"experimental_force_guest_pull": true}}, read(t, filepath.Join(dropIns, "41-guest-pull.toml")))

	// A configuration that says nothing of its own.
	require.NoError(t, shims.Configure(installation, "remote", shims.Options{KernelParameters: []string{"a"}}))
	remote := filepath.Join(filepath.Dir(shims.Path(installation, "remote", "")), "config.d")
	require.Equal(t, map[string]any{"hypervisor": map[string]any{"remote": map[string]any{"kernel_params": "a"}}}, read(t, filepath.Join(remote, "30-kernel-params.toml")))

	// What is not said any more goes.
	require.NoError(t, shims.Configure(installation, "qemu-tdx", shims.Options{}))
	for _, name := range []string{"30-kernel-params.toml", "40-annotations.toml", "41-guest-pull.toml"} {
		require.NoFileExists(t, filepath.Join(dropIns, name))
	}
}

// A variant says more, and the shim that it is of stays what it was.
func TestVariants(t *testing.T) {
	installation := installed(t)
	own := filepath.Dir(shims.Path(installation, "qemu-tdx", ""))
	require.NoError(t, shims.Configure(installation, "qemu-tdx", shims.Options{KernelParameters: []string{"agent.no_proxy=x"}}))
	before := tree(t, own)

	const handler = "kata-qemu-tdx-debug"
	configure := func() {
		t.Helper()
		require.NoError(t, shims.Configure(installation, "qemu-tdx", shims.Options{
			Variant: handler, KernelParameters: []string{"agent.no_proxy=x"}, Annotations: []string{"machine_type"}, ForceGuestPull: true,
		}))
	}
	configure()
	require.Equal(t, before, tree(t, own))
	dir := filepath.Join(installation, "share/defaults/kata-containers/custom-runtimes", handler)
	require.Equal(t, filepath.Join(dir, "configuration-qemu-tdx.toml"), shims.Path(installation, "qemu-tdx", handler))
	var files []string
	for file := range tree(t, dir) {
		files = append(files, file)
	}
	require.ElementsMatch(t, []string{
		".made-by-kata-deploy", "configuration-qemu-tdx.toml", "config.d/.made-by-kata-deploy", "config.d/10-installation-prefix.toml",
		"config.d/30-kernel-params.toml", "config.d/40-annotations.toml", "config.d/41-guest-pull.toml", "config.d/50-overrides.toml",
	}, files)
	require.Equal(t, configuration, tree(t, dir)["configuration-qemu-tdx.toml"])
	overrides := func() map[string]any { return read(t, filepath.Join(dir, "config.d/50-overrides.toml")) }
	qemu := map[string]any{"enable_debug": true, "kernel_params": "quiet a=b agent.no_proxy=x agent.log=debug initcall_debug"}
	want := map[string]any{
		"hypervisor": map[string]any{"qemu": qemu},
		"agent":      map[string]any{"kata": map[string]any{"enable_debug": true, "debug_console_enabled": true}},
		"runtime":    map[string]any{"enable_debug": true},
	}
	require.Equal(t, want, overrides())

	// A payload with a kernel for it, of the same kind.
	kernel := filepath.Join(installation, "share/kata-containers/vmlinuz-debug.container")
	require.NoError(t, os.MkdirAll(filepath.Dir(kernel), 0o755))
	require.NoError(t, os.WriteFile(kernel, nil, 0o644))
	configure()
	qemu["kernel"] = kernel
	require.Equal(t, want, overrides())

	// Of a guest elsewhere the node's part alone says more.
	require.NoError(t, shims.Configure(installation, "remote", shims.Options{Variant: "kata-remote-debug"}))
	require.Equal(t, map[string]any{
		"hypervisor": map[string]any{"remote": map[string]any{"enable_debug": true}},
		"agent":      map[string]any{}, "runtime": map[string]any{"enable_debug": true},
	}, read(t, filepath.Join(filepath.Dir(shims.Path(installation, "remote", "kata-remote-debug")), "config.d/50-overrides.toml")))

	require.NoError(t, shims.KeepVariants(installation, []string{handler}))
	require.DirExists(t, dir)
	require.NoDirExists(t, filepath.Join(filepath.Dir(dir), "kata-remote-debug"))
	require.NoError(t, shims.KeepVariants(installation, nil))
	require.NoDirExists(t, filepath.Dir(dir))
	require.Equal(t, before, tree(t, own))
	configure()
	require.NoError(t, shims.Remove(installation))
	require.NoDirExists(t, filepath.Dir(dir))
	require.NoDirExists(t, filepath.Dir(own))
}

// tree gives the content of all files below a directory.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := fs.ReadFile(os.DirFS(dir), name)
		all[name] = string(content)
		return err
	}))
	return all
}

// An installer that was killed as it made the directory of all configurations.
func TestRemoveWhatCameHalfway(t *testing.T) {
	installation := installed(t)
	halfway := filepath.Join(installation, "share/defaults/kata-containers/.kata-deploy-partial-runtimes")
	require.NoError(t, os.Mkdir(halfway, 0o755))
	require.NoError(t, shims.Remove(installation))
	require.NoDirExists(t, halfway)
}

func TestConfigureRefuses(t *testing.T) {
	installation := installed(t)
	err := shims.Configure(installation, "qemu-snp", shims.Options{})
	require.ErrorContains(t, err, "the payload has no configuration of qemu-snp")
	require.Equal(t, exitcode.BadInput, exitcode.Of(err))
	err = shims.Configure(installation, "broken", shims.Options{})
	require.ErrorContains(t, err, "configuration-broken.toml: ")
	require.NoDirExists(t, filepath.Join(installation, "share/defaults/kata-containers/runtimes"))
}
