package check_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/stack/runtimeconfig/check"
	"github.com/kiln-build/kiln/tools/exitcode"
)

const document = `# Project: [kata]
path = "/opt/kata/bin/top"
[hypervisor.qemu]
# kernel = "/opt/kata/commented/out"
kernel = "/opt/kata/share/vmlinuz"
#initrd = "/opt/kata/initrd"
image="/opt/kata/share/./kata.img" # the guest
  firmware = "/opt/katana/OVMF.fd"
valid_paths = ["/opt/kata/bin/qemu", "/usr/bin/qemu"]
more = [
  "/usr/bin/a",
  "/opt/kata/bin/b",
]
kernel_params = "root=/opt/kata/no/path"

[ agent.kata ] # the agent
kernel = "/opt/kata/agent"
`

func TestPaths(t *testing.T) {
	paths, err := check.Paths([]byte(document))
	require.NoError(t, err)
	require.Equal(t, []check.Path{
		{Path: "/opt/kata/bin/top", Key: "path", Line: 2},
		{Path: "/opt/kata/share/vmlinuz", Key: "hypervisor.qemu.kernel", Line: 5},
		{Path: "/opt/kata/share/kata.img", Key: "hypervisor.qemu.image", Line: 7},
		{Path: "/opt/kata/bin/qemu", Key: "hypervisor.qemu.valid_paths", Line: 9},
		{Path: "/opt/kata/bin/b", Key: "hypervisor.qemu.more", Line: 12},
		{Path: "/opt/kata/agent", Key: "agent.kata.kernel", Line: 17},
	}, paths)
}

func TestPathsRefusesWhatIsNotTOML(t *testing.T) {
	_, err := check.Paths([]byte("a = 1\nb = \n"))
	require.ErrorContains(t, err, "parsing configuration: line 2")
	require.Equal(t, exitcode.BadInput, exitcode.Of(err))
}

func TestMissing(t *testing.T) {
	has := map[string]bool{
		"/opt/kata/bin/top":        true,
		"/opt/kata/share/vmlinuz":  true,
		"/opt/kata/share/kata.img": true,
		"/opt/kata/bin/qemu":       true,
		"/opt/kata/bin/b":          true,
		"/opt/kata/agent":          true,
	}
	lookup := func(path string) bool { return has[path] }
	require.NoError(t, check.Missing("configuration-x.toml", []byte(document), lookup))

	delete(has, "/opt/kata/bin/qemu")
	err := check.Missing("configuration-x.toml", []byte(document), lookup)
	require.EqualError(t, err, "configuration-x.toml:9: hypervisor.qemu.valid_paths names /opt/kata/bin/qemu, which no component of the payload installs")
	require.Equal(t, exitcode.Unverified, exitcode.Of(err))
}
