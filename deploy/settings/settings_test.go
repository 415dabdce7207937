package settings

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/exitcode"
)

func environment(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestRead(t *testing.T) {
	s, err := read(environment(
		"MULTI_INSTALL_SUFFIX", "blue-2", "DEBUG", "true", "K8S_DISTRIBUTION", "k3s",
		"CONTAINER_RUNTIME_VERSION", "containerd://2.0.0", "SHIMS_X86_64", " qemu-tdx  qemu-snp\n", "SHIMS_S390X", "qemu-se",
		"SNAPSHOTTER_HANDLER_MAPPING_X86_64", "qemu-tdx:nydus, qemu-snp:erofs", "PULL_TYPE_MAPPING_X86_64", "qemu-tdx:guest-pull,qemu-snp:default",
	), "amd64")
	require.NoError(t, err)
	require.Equal(t, &Settings{
		Suffix: "blue-2", Debug: true, Distribution: "k3s", RuntimeVersion: "containerd://2.0.0",
		Shims:        []string{"qemu-tdx", "qemu-snp"},
		Snapshotters: map[string]string{"qemu-tdx": "nydus", "qemu-snp": "erofs"},
		GuestPull:    map[string]bool{"qemu-tdx": true, "qemu-snp": false},
	}, s)
	s, err = read(environment(), "s390x")
	require.NoError(t, err)
	require.Empty(t, s.Shims)
}

func TestReadRefuses(t *testing.T) {
	for want, pairs := range map[string][]string{
		"MULTI_INSTALL_SUFFIX=../x: must be lower-case":                           {"MULTI_INSTALL_SUFFIX", "../x"},
		"DEBUG=perhaps: must be true or false":                                    {"DEBUG", "perhaps"},
		"SHIMS_X86_64=a b a: a is there twice":                                    {"SHIMS_X86_64", "a b a"},
		`SNAPSHOTTER_HANDLER_MAPPING_X86_64=a: "a" is not SHIM:VALUE`:             {"SNAPSHOTTER_HANDLER_MAPPING_X86_64", "a"},
		`SNAPSHOTTER_HANDLER_MAPPING_X86_64=b:x: "b" is none of the shims: a`:     {"SHIMS_X86_64", "a", "SNAPSHOTTER_HANDLER_MAPPING_X86_64", "b:x"},
		"PULL_TYPE_MAPPING_X86_64=a:sometimes: sometimes: must be default or gue": {"PULL_TYPE_MAPPING_X86_64", "a:sometimes"},
	} {
		_, err := read(environment(pairs...), "amd64")
		require.ErrorContains(t, err, want)
		require.Equal(t, exitcode.BadInput, exitcode.Of(err))
	}
	_, err := read(environment(), "riscv64")
	require.ErrorContains(t, err, "no payload for riscv64")
}

func TestChoose(t *testing.T) {
	has := []string{"qemu-snp", "qemu-tdx"}
	got, err := (&Settings{}).Choose(has)
	require.NoError(t, err)
	require.Equal(t, has, got)
	got, err = (&Settings{Shims: []string{"qemu-tdx"}}).Choose(has)
	require.NoError(t, err)
	require.Equal(t, []string{"qemu-tdx"}, got)
	_, err = (&Settings{Shims: []string{"fc"}, Snapshotters: map[string]string{"clh": "nydus"}, GuestPull: map[string]bool{"dragonball": true}}).Choose(has)
	require.ErrorContains(t, err, "the payload has no fc, only qemu-snp qemu-tdx")
	require.ErrorContains(t, err, "there is a snapshotter for clh, which is not installed")
	require.ErrorContains(t, err, "there is a pull type for dragonball, which is not installed")
	require.Equal(t, exitcode.BadInput, exitcode.Of(err))
}
