package configuration

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// machine is what the virtual machine of an architecture differs in.
type machine struct {
	qemu, kind, accelerators, cpuFeatures string
	// clhFixed tells whether a guest of Cloud Hypervisor keeps the size that it
	// starts with.
	clhFixed bool
	// firmware is the directory below share and the name of the firmware,
	// where guests are started by one, and volume the file of its variables.
	firmware, volume string
}

var machines = map[string]machine{
	"amd64": {qemu: "qemu-system-x86_64", kind: "q35", cpuFeatures: "pmu=off"},
	"arm64": {qemu: "qemu-system-aarch64", kind: "virt", cpuFeatures: "pmu=off", clhFixed: true, firmware: "aavmf/AAVMF_CODE.fd", volume: "aavmf/AAVMF_VARS.fd"},
	"ppc64le": {qemu: "qemu-system-ppc64", kind: "pseries",
		accelerators: "cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-large-decr=off,cap-ccf-assist=off"},
	"s390x": {qemu: "qemu-system-s390x", kind: "s390-ccw-virtio"},
}

// Architectures gives the names that Defaults knows, sorted.
func Architectures() []string { return slices.Sorted(maps.Keys(machines)) }

// Defaults gives the value of every variable of the templates, the ones that the
// runtime's own build would use with PREFIX=prefix for an architecture, which Go names. Values of list and string variables bring their
// TOML quotes with them where the templates have none.
func Defaults(prefix, arch string) (map[string]string, error) {
	machine, ok := machines[arch]
	if !ok {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("unknown architecture %q: it is one of %s", arch, strings.Join(Architectures(), ", ")))
	}
	share := path.Join(prefix, "share")
	assets := path.Join(share, "kata-containers")
	qemu := path.Join(prefix, "bin", machine.qemu)
	cloudHypervisor := path.Join(prefix, "bin", "cloud-hypervisor")
	firecracker := path.Join(prefix, "bin", "firecracker")
	jailer := path.Join(prefix, "bin", "jailer")
	virtiofsd := path.Join(prefix, "libexec", "virtiofsd")
	firmware, volume := "", ""
	if machine.firmware != "" {
		firmware, volume = path.Join(share, machine.firmware), path.Join(share, machine.volume)
	}
	const vhostUser = "/var/run/kata-containers/vhost-user"

	const baseParams = "cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1"
	const annotations = "enable_iommu virtio_fs_extra_args kernel_params"

	return map[string]string{
		"PROJECT_NAME": "Kata Containers",
		"PROJECT_TYPE": "kata",

		"CONFIG_CLH_IN":           "config/configuration-clh.toml.in",
		"CONFIG_FC_IN":            "config/configuration-fc.toml.in",
		"CONFIG_QEMU_IN":          "config/configuration-qemu.toml.in",
		"CONFIG_QEMU_COCO_DEV_IN": "config/configuration-qemu-coco-dev.toml.in",
		"CONFIG_QEMU_SE_IN":       "config/configuration-qemu-se.toml.in",
		"CONFIG_QEMU_SNP_IN":      "config/configuration-qemu-snp.toml.in",
		"CONFIG_REMOTE_IN":        "config/configuration-remote.toml.in",

		// What is started.
		"QEMUPATH":                    qemu,
		"QEMUTDXPATH":                 qemu,
		"QEMUVALIDHYPERVISORPATHS":    list(qemu),
		"QEMUTDXVALIDHYPERVISORPATHS": list(qemu),
		"CLHPATH":                     cloudHypervisor,
		"CLHVALIDHYPERVISORPATHS":     list(cloudHypervisor),
		"FCPATH":                      firecracker,
		"FCVALIDHYPERVISORPATHS":      list(firecracker),
		"FCJAILERPATH":                jailer,
		"FCVALIDJAILERPATHS":          list(jailer),
		"KERNELPATH_CLH":              path.Join(assets, "vmlinux.container"),
		"KERNELPATH_FC":               path.Join(assets, "vmlinux.container"),
		"KERNELPATH":                  path.Join(assets, "vmlinux.container"),
		// One kernel serves plain and confidential guests; only its
		// compressed form can be measured by the firmware.
		"KERNELSEPATH":           path.Join(assets, "kata-containers-se.img"),
		"KERNELCONFIDENTIALPATH": path.Join(assets, "vmlinuz.container"),
		"IMAGEPATH":              path.Join(assets, "kata-containers.img"),
		"IMAGECONFIDENTIALPATH":  path.Join(assets, "kata-containers-confidential.img"),
		"INITRDPATH":             path.Join(assets, "kata-containers-initrd.img"),
		"INITRDCONFIDENTIALPATH": path.Join(assets, "kata-containers-initrd-confidential.img"),
		"FIRMWAREPATH":           firmware,
		"FIRMWAREVOLUMEPATH":     volume,
		"FIRMWARETDVFVOLUMEPATH": "",
		"FIRMWAREPATH_NV":        path.Join(share, "ovmf", "OVMF.fd"),
		"FIRMWARESNPPATH":        path.Join(share, "ovmf", "AMDSEV.fd"),

		// The virtual machine.
		"MACHINETYPE":                             machine.kind,
		"MACHINEACCELERATORS":                     machine.accelerators,
		"CPUFEATURES":                             machine.cpuFeatures,
		"TDXCPUFEATURES":                          "pmu=off",
		"KERNELPARAMS":                            baseParams,
		"KERNELTDXPARAMS":                         baseParams,
		"KERNELQEMUCOCODEVPARAMS":                 "",
		"QEMUTDXQUOTEGENERATIONSERVICESOCKETPORT": "4050",
		"DEFVCPUS":                                "1",
		"DEFMAXVCPUS":                             "0",
		"DEFMEMSZ":                                "2048",
		"DEFMEMSLOTS":                             "10",
		"DEFMAXMEMSZ":                             "0",
		"DEFBRIDGES":                              "1",
		"DEFSECCOMPSANDBOXPARAM":                  "on,obsolete=deny,spawn=deny,resourcecontrol=deny",
		"DEFENTROPYSOURCE":                        "/dev/urandom",
		"DEFVALIDENTROPYSOURCES":                  `["/dev/urandom","/dev/random",""]`,
		"DEFFILEMEMBACKEND":                       "",
		"DEFVALIDFILEMEMBACKENDS":                 list(""),
		"DEFDISABLEIMAGENVDIMM":                   "false",
		"DEFROOTFSTYPE":                           `"ext4"`,

		// Devices and shared file systems.
		"DEFDISABLEBLOCK":                    "false",
		"DEFBLOCKSTORAGEDRIVER_QEMU":         "virtio-scsi",
		"DEFBLOCKDEVICEAIO_QEMU":             "io_uring",
		"DEFENABLEIOTHREADS":                 "false",
		"DEFBLOCKSTORAGEDRIVER_FC":           "virtio-mmio",
		"DEFSHAREDFS_CLH_VIRTIOFS":           "virtio-fs",
		"DEFSHAREDFS_QEMU_VIRTIOFS":          "virtio-fs",
		"DEFSHAREDFS_QEMU_COCO_DEV_VIRTIOFS": "none",
		"DEFSHAREDFS_QEMU_TDX_VIRTIOFS":      "none",
		"DEFSHAREDFS_QEMU_SEL_VIRTIOFS":      "none",
		"DEFSHAREDFS_QEMU_SNP_VIRTIOFS":      "none",
		"DEFVIRTIOFSDAEMON":                  virtiofsd,
		"DEFVALIDVIRTIOFSDAEMONPATHS":        list(virtiofsd),
		"DEFVIRTIOFSCACHESIZE":               "0",
		"DEFVIRTIOFSCACHE":                   "auto",
		"DEFVIRTIOFSQUEUESIZE":               "1024",
		"DEFVIRTIOFSEXTRAARGS":               `["--thread-pool-size=1", "--announce-submounts"]`,
		"DEFMSIZE9P":                         "8192",
		"DEFENABLEVHOSTUSERSTORE":            "false",
		"DEFVHOSTUSERSTOREPATH":              vhostUser,
		"DEFVALIDVHOSTUSERSTOREPATHS":        list(vhostUser),
		"DEFVFIOMODE":                        "guest-kernel",
		"DEFVFIOMODE_SE":                     "vfio",

		// What pods may ask for, and how they are run.
		"DEFENABLEANNOTATIONS":      list(strings.Fields(annotations)...),
		"DEFENABLEANNOTATIONS_COCO": list(strings.Fields(annotations + " default_vcpus default_memory cc_init_data")...),
		"DEFNETWORKMODEL_CLH":       "tcfilter",
		"DEFNETWORKMODEL_FC":        "tcfilter",
		"DEFNETWORKMODEL_QEMU":      "tcfilter",
		"DEFDISABLEGUESTSECCOMP":    "true",
		"DEFDISABLEGUESTEMPTYDIR":   "false",
		"DEFDISABLESELINUX":         "false",
		"DEFDISABLEGUESTSELINUX":    "true",
		"DEFGUESTSELINUXLABEL":      "system_u:system_r:container_t",
		"DEFSANDBOXCGROUPONLY":      "false",
		"DEFSTATICRESOURCEMGMT":     "false",
		"DEFSTATICRESOURCEMGMT_CLH": strconv.FormatBool(machine.clhFixed),
		"DEFSTATICRESOURCEMGMT_FC":  "true",
		"DEFSTATICRESOURCEMGMT_TEE": "true",
		"DEFBINDMOUNTS":             "[]",
		"DEFCREATECONTAINERTIMEOUT": "60",
		"DEFDANCONF":                "/run/kata-containers/dans",
		"DEFFORCEGUESTPULL":         "false",
		"DEFAULTEXPFEATURES":        "[]",
	}, nil
}

// list writes values as a TOML array of strings.
func list(values ...string) string {
	quoted := make([]string, len(values))
	for i, value := range values {
		quoted[i] = `"` + Quote(value) + `"`
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}
