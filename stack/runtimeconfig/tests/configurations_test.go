//go:build bazel

package rendered_test

import (
	"encoding/json"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/bazelbuild/rules_go/go/runfiles"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/stack/runtimeconfig/check"
)

// verity is what the kernel is told of the made-up image of root_hash_example.txt.
var verity = `dm-mod.create="dm-verity,,,ro,0 204800 verity 1 /dev/vda1 /dev/vda2 4096 4096 25600 0 sha256 ` +
	strings.Repeat("a1", 32) + " " + strings.Repeat("5e", 32) + `" root=/dev/dm-0`

// hypervisor is what the tests read of the one in a configuration.
type hypervisor struct {
	Path               string   `toml:"path"`
	ValidPaths         []string `toml:"valid_hypervisor_paths"`
	Jailer             string   `toml:"jailer_path"`
	ValidJailers       []string `toml:"valid_jailer_paths"`
	Kernel             string   `toml:"kernel"`
	Image              string   `toml:"image"`
	Initrd             string   `toml:"initrd"`
	Firmware           string   `toml:"firmware"`
	RootfsType         string   `toml:"rootfs_type"`
	KernelParams       string   `toml:"kernel_params"`
	SharedFS           string   `toml:"shared_fs"`
	Virtiofsd          string   `toml:"virtio_fs_daemon"`
	BlockDriver        string   `toml:"block_device_driver"`
	ConfidentialGuest  bool     `toml:"confidential_guest"`
	DisableImageNvdimm bool     `toml:"disable_image_nvdimm"`
}

type configuration struct {
	class, arch string
	text        []byte
	// kind is that of the hypervisor.
	kind string
	hypervisor
	static bool
}

func configurations(t *testing.T) []configuration {
	t.Helper()
	var all []configuration
	for _, entry := range strings.Fields(os.Getenv("KILN_CONFIGURATIONS")) {
		name, location, ok := strings.Cut(entry, "=")
		require.True(t, ok, entry)
		file, err := runfiles.Rlocation(location)
		require.NoError(t, err)
		c := configuration{}
		c.class, c.arch, _ = strings.Cut(name, "/")
		c.text, err = os.ReadFile(file)
		require.NoError(t, err)
		var document struct {
			Hypervisor map[string]hypervisor `toml:"hypervisor"`
			Runtime    struct {
				Static bool `toml:"static_sandbox_resource_mgmt"`
			} `toml:"runtime"`
		}
		_, err = toml.Decode(string(c.text), &document)
		require.NoError(t, err)
		require.Len(t, document.Hypervisor, 1, name)
		for c.kind, c.hypervisor = range document.Hypervisor {
		}
		c.static = document.Runtime.Static
		all = append(all, c)
	}
	require.NotEmpty(t, all)
	return all
}

var (
	// leftRE is a variable that nothing replaced.
	leftRE = regexp.MustCompile(`@[A-Za-z0-9_]+@`)
	rootRE = regexp.MustCompile(`(^| )root=(\S+)`)
)

// installs is which files each component installs of those that a configuration may
// name, below /opt/kata.
var installs = map[string][]string{
	"cloud-hypervisor":           {"bin/cloud-hypervisor"},
	"firecracker":                {"bin/firecracker", "bin/jailer"},
	"kernel":                     {"share/kata-containers/vmlinux.container", "share/kata-containers/vmlinuz.container"},
	"ovmf":                       {"share/aavmf/AAVMF_CODE.fd", "share/aavmf/AAVMF_VARS.fd"},
	"ovmf-sev":                   {"share/ovmf/AMDSEV.fd"},
	"ovmf-tdx":                   {"share/ovmf/OVMF.inteltdx.fd"},
	"qemu":                       {"bin/qemu-system-x86_64", "bin/qemu-system-aarch64", "bin/qemu-system-ppc64", "bin/qemu-system-s390x"},
	"rootfs-image":               {"share/kata-containers/kata-containers.img"},
	"rootfs-image-confidential":  {"share/kata-containers/kata-containers-confidential.img"},
	"rootfs-initrd":              {"share/kata-containers/kata-containers-initrd.img"},
	"rootfs-initrd-confidential": {"share/kata-containers/kata-containers-initrd-confidential.img"},
	"boot-image-se":              {"share/kata-containers/kata-containers-se.img"},
	"virtiofsd":                  {"libexec/virtiofsd"},
}

// A configuration names only what the components of its runtime class install, and
// nothing of a template is left in it.
func TestEachNamesWhatItsComponentsInstall(t *testing.T) {
	var classes map[string]map[string][]string
	require.NoError(t, json.Unmarshal([]byte(os.Getenv("KILN_RUNTIME_CLASSES")), &classes))
	for _, c := range configurations(t) {
		t.Run(c.class+" on "+c.arch, func(t *testing.T) {
			require.Empty(t, leftRE.FindAllString(string(c.text), -1))
			components := classes[c.class][c.arch]
			require.NotEmpty(t, components)
			require.NoError(t, check.Missing(c.class, c.text, func(name string) bool {
				below := strings.TrimPrefix(name, check.Prefix+"/")
				return slices.ContainsFunc(components, func(component string) bool { return slices.Contains(installs[component], below) })
			}))
		})
	}
}

// Whoever has an image has it measured: it is a disk, of the file system that it has,
// and the last root= is the tree that the kernel checks.
func TestEachImageIsMeasured(t *testing.T) {
	measured := map[string]bool{}
	for _, c := range configurations(t) {
		t.Run(c.class+" on "+c.arch, func(t *testing.T) {
			if c.Image == "" {
				require.NotContains(t, c.KernelParams, "verity")
				return
			}
			measured[c.class] = true
			require.Empty(t, c.Initrd)
			require.Equal(t, "erofs", c.RootfsType)
			require.Contains(t, c.KernelParams, verity)
			roots := rootRE.FindAllStringSubmatch(c.KernelParams, -1)
			require.Equal(t, "/dev/dm-0", roots[len(roots)-1][2])
			// Firecracker knows disks only.
			require.True(t, c.DisableImageNvdimm || c.ConfidentialGuest || c.kind == "firecracker", "the image is a nvdimm, and no /dev/vda")
		})
	}
	require.Equal(t, map[string]bool{"clh": true, "fc": true, "qemu": true, "qemu-coco-dev": true, "qemu-snp": true, "qemu-tdx": true}, measured)
}

// What the runtime's own build makes of the two that run without QEMU.
func TestHypervisorsWithoutQEMU(t *testing.T) {
	const assets = "/opt/kata/share/kata-containers"
	params := "cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1 " + verity
	seen := 0
	for _, c := range configurations(t) {
		var want configuration
		switch c.class {
		case "clh":
			want = configuration{kind: "clh", static: c.arch == "arm64", hypervisor: hypervisor{
				Path: "/opt/kata/bin/cloud-hypervisor", SharedFS: "virtio-fs", Virtiofsd: "/opt/kata/libexec/virtiofsd",
				BlockDriver: "virtio-blk", DisableImageNvdimm: true,
			}}
		case "fc":
			want = configuration{kind: "firecracker", static: true, hypervisor: hypervisor{
				Path: "/opt/kata/bin/firecracker", Jailer: "/opt/kata/bin/jailer", ValidJailers: []string{"/opt/kata/bin/jailer"},
				BlockDriver: "virtio-mmio",
			}}
		default:
			continue
		}
		seen++
		want.class, want.arch, want.text = c.class, c.arch, c.text
		want.ValidPaths, want.RootfsType, want.KernelParams = []string{want.Path}, "erofs", params
		want.Kernel, want.Image = path.Join(assets, "vmlinux.container"), path.Join(assets, "kata-containers.img")
		require.Equal(t, want, c)
	}
	require.Equal(t, 4, seen, "two runtime classes on two architectures")
}
