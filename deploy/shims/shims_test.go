package shims_test

import (
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
machine_type = "q35"
valid_hypervisor_paths = ["/opt/kata/bin/qemu-system-x86_64", "/usr/bin/qemu"]
firmware = "/opt/katarina"
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
	require.NoError(t, shims.Configure(installation, "qemu-tdx", true))
	config := shims.Path(installation, "qemu-tdx")
	content, err := os.ReadFile(config)
	require.NoError(t, err)
	require.Equal(t, configuration, string(content))

	dropIns := filepath.Join(filepath.Dir(config), "config.d")
	qemu := installation + "/bin/qemu-system-x86_64"
	require.Equal(t, map[string]any{"hypervisor": map[string]any{"qemu": map[string]any{
		"path": qemu, "valid_hypervisor_paths": []any{qemu, "/usr/bin/qemu"},
	}}}, read(t, filepath.Join(dropIns, "10-installation-prefix.toml")))
	yes := map[string]any{"enable_debug": true}
	require.Equal(t, map[string]any{
		"hypervisor": map[string]any{"qemu": yes}, "agent": map[string]any{"kata": yes}, "runtime": yes,
	}, read(t, filepath.Join(dropIns, "20-debug.toml")))

	// What its owner put there stays when another version is installed.
	owners := filepath.Join(dropIns, "50-user-overrides.toml")
	require.NoError(t, os.WriteFile(owners, nil, 0o600))
	require.NoError(t, shims.Configure(installation, "qemu-tdx", false))
	require.FileExists(t, owners)
	require.NoFileExists(t, filepath.Join(dropIns, "20-debug.toml"))

	require.NoError(t, shims.Configure(installation, "remote", false))
	require.NoError(t, shims.Remove(installation))
	require.NoDirExists(t, filepath.Join(installation, "share/defaults/kata-containers/runtimes"))
	require.NoError(t, shims.Remove(installation))
	require.FileExists(t, filepath.Join(installation, "share/defaults/kata-containers/configuration-qemu-tdx.toml"))
}

func TestConfigureRefuses(t *testing.T) {
	installation := installed(t)
	err := shims.Configure(installation, "qemu-snp", false)
	require.ErrorContains(t, err, "the payload has no configuration of qemu-snp")
	require.Equal(t, exitcode.BadInput, exitcode.Of(err))
	err = shims.Configure(installation, "broken", false)
	require.ErrorContains(t, err, "configuration-broken.toml: ")
	require.NoDirExists(t, filepath.Join(installation, "share/defaults/kata-containers/runtimes"))
}
