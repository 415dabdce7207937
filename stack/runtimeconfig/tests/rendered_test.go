//go:build bazel

package rendered_test

import (
	"os"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/bazelbuild/rules_go/go/runfiles"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/stack/runtimeconfig/check"
)

func rendered(t *testing.T) []byte {
	t.Helper()
	name, err := runfiles.Rlocation(os.Getenv("KILN_RENDERED"))
	require.NoError(t, err)
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	return text
}

// What the runtime reads must be what a TDX guest is to be started with.
func TestTemplateOfTheRuntime(t *testing.T) {
	var document struct {
		Hypervisor struct {
			QEMU struct {
				Path              string `toml:"path"`
				Kernel            string `toml:"kernel"`
				Image             string `toml:"image"`
				Initrd            string `toml:"initrd"`
				Firmware          string `toml:"firmware"`
				RootfsType        string `toml:"rootfs_type"`
				KernelParams      string `toml:"kernel_params"`
				SharedFS          string `toml:"shared_fs"`
				ConfidentialGuest bool   `toml:"confidential_guest"`
			} `toml:"qemu"`
		} `toml:"hypervisor"`
	}
	_, err := toml.Decode(string(rendered(t)), &document)
	require.NoError(t, err)
	qemu := document.Hypervisor.QEMU
	require.Equal(t, "/opt/kata/bin/qemu-system-x86_64", qemu.Path)
	require.Equal(t, "/opt/kata/share/kata-containers/vmlinuz.container", qemu.Kernel)
	require.Equal(t, "/opt/kata/share/kata-containers/kata-containers-confidential.img", qemu.Image)
	require.Empty(t, qemu.Initrd)
	require.Equal(t, "/opt/kata/share/ovmf/OVMF.inteltdx.fd", qemu.Firmware)
	require.Equal(t, "erofs", qemu.RootfsType)
	require.Equal(t, "none", qemu.SharedFS)
	require.True(t, qemu.ConfidentialGuest)
	require.Equal(t, `cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1 `+
		`dm-mod.create="dm-verity,,,ro,0 204800 verity 1 /dev/vda1 /dev/vda2 4096 4096 25600 0 sha256 `+
		strings.Repeat("a1", 32)+" "+strings.Repeat("5e", 32)+`" root=/dev/dm-0`, qemu.KernelParams)
}

// This configuration keeps the default virtiofsd, which no confidential payload
// has: the check must find it, and its line.
func TestCheckFindsWhatAPayloadLacks(t *testing.T) {
	text := rendered(t)
	err := check.Missing("configuration-qemu-tdx.toml", text, func(path string) bool {
		return path != "/opt/kata/libexec/virtiofsd"
	})
	require.ErrorContains(t, err, "hypervisor.qemu.virtio_fs_daemon names /opt/kata/libexec/virtiofsd, which no component of the payload installs")

	paths, err := check.Paths(text)
	require.NoError(t, err)
	lines := strings.Split(string(text), "\n")
	require.NotEmpty(t, paths)
	for _, p := range paths {
		require.Contains(t, lines[p.Line-1], p.Path)
	}
}
