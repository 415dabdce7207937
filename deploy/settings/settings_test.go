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
		"MULTI_INSTALL_SUFFIX", "blue-2", "DEBUG", "true", "K8S_DISTRIBUTION", "k3s", "DAEMONSET_NAME", "kata-deploy",
		"CONTAINER_RUNTIME_VERSION", "containerd://2.0.0", "SHIMS_X86_64", " qemu-tdx  qemu-snp\n", "SHIMS_S390X", "qemu-se",
		"SNAPSHOTTER_HANDLER_MAPPING_X86_64", "qemu-tdx:nydus, qemu-snp:erofs", "PULL_TYPE_MAPPING_X86_64", "qemu-tdx:guest-pull,qemu-snp:default",
		"EXPERIMENTAL_FORCE_GUEST_PULL_X86_64", "qemu-snp,", "DEFAULT_SHIM_X86_64", "qemu-tdx", "CONTAINERD_CONFIG_FILE_NAME", "mine.toml",
		"STARTUP_TAINTS", "kata/wait, other:NoSchedule", "HEALTH_PORT", "9000", "HELM_POST_DELETE_HOOK", "true", "NODE_MACHINE_ID", "abc",
		"ALLOWED_HYPERVISOR_ANNOTATIONS_X86_64", "default_vcpus qemu-tdx:kernel_params,machine_type",
		"AGENT_HTTPS_PROXY", "http://proxy:3128/?a=b", "AGENT_NO_PROXY", "qemu-tdx=.cluster.local,10.0.0.0/8;qemu-snp=localhost;qemu-se=z;",
		"DEVKIT", "false", "EROFS_DMVERITY", "false",
	), "amd64")
	require.NoError(t, err)
	require.Equal(t, &Settings{
		Suffix: "blue-2", Debug: true, Distribution: "k3s", RuntimeVersion: "containerd://2.0.0", DaemonSet: "kata-deploy",
		ConfigFile: "mine.toml", MachineID: "abc", StartupTaints: []string{"kata/wait", "other:NoSchedule"}, HealthPort: 9000, PostDeleteHook: true,
		Shims:          []string{"qemu-tdx", "qemu-snp"},
		DefaultShim:    "qemu-tdx",
		Snapshotters:   map[string]string{"qemu-tdx": "nydus", "qemu-snp": "erofs"},
		GuestPull:      map[string]bool{"qemu-tdx": true, "qemu-snp": false},
		ForceGuestPull: map[string]bool{"qemu-snp": true},
		annotations:    map[string][]string{"": {"default_vcpus"}, "qemu-tdx": {"kernel_params", "machine_type"}},
		httpsProxy:     map[string]string{"": "http://proxy:3128/?a=b"},
		noProxy:        map[string]string{"qemu-tdx": ".cluster.local,10.0.0.0/8", "qemu-snp": "localhost", "qemu-se": "z"},
		elsewhere:      map[string]bool{"qemu-tdx": true, "qemu-snp": true, "qemu-se": true},
	}, s)
	require.Equal(t, []string{"default_vcpus", "kernel_params", "machine_type"}, s.AnnotationsOf("qemu-tdx"))
	require.Equal(t, []string{"default_vcpus"}, s.AnnotationsOf("qemu-snp"))
	require.Equal(t, []string{"agent.https_proxy=http://proxy:3128/?a=b", "agent.no_proxy=localhost"}, s.KernelParameters("qemu-snp"))
	chosen, err := s.Choose([]string{"qemu-snp", "qemu-tdx"})
	require.NoError(t, err, "a proxy for a shim of another architecture")
	require.Equal(t, []string{"qemu-tdx", "qemu-snp"}, chosen)
	s, err = read(environment(), "s390x")
	require.NoError(t, err)
	require.Empty(t, s.Shims)
	require.Equal(t, 8090, s.HealthPort)
	require.Empty(t, s.KernelParameters("qemu-se"))
}

func TestReadRefuses(t *testing.T) {
	for want, pairs := range map[string][]string{
		"MULTI_INSTALL_SUFFIX=../x: must be lower-case":                           {"MULTI_INSTALL_SUFFIX", "../x"},
		"MULTI_INSTALL_SUFFIX=default: must be":                                   {"MULTI_INSTALL_SUFFIX", "default"},
		"MULTI_INSTALL_SUFFIX=debug: must not end with `debug`":                   {"MULTI_INSTALL_SUFFIX", "debug"},
		"MULTI_INSTALL_SUFFIX=blue-debug: must not end":                           {"MULTI_INSTALL_SUFFIX", "blue-debug"},
		"DEVKIT=true: this kata-deploy cannot do that":                            {"DEVKIT", "true"},
		"CUSTOM_RUNTIMES_ENABLED=true: this":                                      {"CUSTOM_RUNTIMES_ENABLED", "true"},
		"EXPERIMENTAL_SETUP_SNAPSHOTTER=erofs: erofs: kata-deploy sets up nydus":  {"EXPERIMENTAL_SETUP_SNAPSHOTTER", "erofs"},
		"HEALTH_PORT=0: must be a port":                                           {"HEALTH_PORT", "0"},
		"CONTAINERD_CONFIG_FILE_NAME=../a: must be a file's name":                 {"CONTAINERD_CONFIG_FILE_NAME", "../a"},
		`STARTUP_TAINTS=a b:Sometimes: "b:Sometimes" is neither`:                  {"STARTUP_TAINTS", "a b:Sometimes"},
		`DEFAULT_SHIM_X86_64=b: "b" is none of the shims: a`:                      {"SHIMS_X86_64", "a", "DEFAULT_SHIM_X86_64", "b"},
		`EXPERIMENTAL_FORCE_GUEST_PULL_X86_64=b: "b" is none of the shims: a`:     {"SHIMS_X86_64", "a", "EXPERIMENTAL_FORCE_GUEST_PULL_X86_64", "b"},
		`ALLOWED_HYPERVISOR_ANNOTATIONS_X86_64=b:x: "b" is none of the shims: a`:  {"SHIMS_X86_64", "a", "ALLOWED_HYPERVISOR_ANNOTATIONS_X86_64", "b:x"},
		`ALLOWED_HYPERVISOR_ANNOTATIONS_X86_64=a:: "" is no annotation`:           {"ALLOWED_HYPERVISOR_ANNOTATIONS_X86_64", "a:"},
		`AGENT_NO_PROXY=b=x: "b" is none of the shims: a`:                         {"SHIMS_X86_64", "a", "AGENT_NO_PROXY", "b=x"},
		`AGENT_HTTPS_PROXY=http://a init=/x: "http://a init=/x": must have neit`:  {"AGENT_HTTPS_PROXY", "http://a init=/x"},
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
	_, err = (&Settings{Shims: []string{"fc"}, Snapshotters: map[string]string{"clh": "nydus"}, GuestPull: map[string]bool{"dragonball": true}, DefaultShim: "stratovirt", annotations: map[string][]string{"": nil, "qemu": nil}}).Choose(has)
	require.ErrorContains(t, err, "the payload has no fc, only qemu-snp qemu-tdx")
	require.ErrorContains(t, err, "there is a snapshotter for clh, which is not installed")
	require.ErrorContains(t, err, "there is a pull type for dragonball, which is not installed")
	require.ErrorContains(t, err, "there is an annotation for qemu, which is not installed")
	require.ErrorContains(t, err, "the default is stratovirt, which is not installed")
	require.Equal(t, exitcode.BadInput, exitcode.Of(err))
}
