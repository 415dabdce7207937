// Package boot boots what a payload ships: its hypervisor, firmware, kernel
// and guest image, with the kernel command line that its configuration makes.
package boot

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"
)

// Prefix is where a payload is installed on a node.
const Prefix = "/opt/kata"

// Configuration is what one of a payload's runtime configurations says about
// the guest. Paths are those of the node.
type Configuration struct {
	Path         string `toml:"path"`
	Kernel       string `toml:"kernel"`
	Image        string `toml:"image"`
	Firmware     string `toml:"firmware"`
	MachineType  string `toml:"machine_type"`
	RootfsType   string `toml:"rootfs_type"`
	KernelParams string `toml:"kernel_params"`
}

// ReadConfiguration reads the configuration of a runtime class from a payload
// that lies in dir.
func ReadConfiguration(dir, class string) (*Configuration, error) {
	file := filepath.Join(dir, "share/defaults/kata-containers", "configuration-"+class+".toml")
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration of %s: %w", class, err)
	}
	var document struct {
		Hypervisor struct {
			QEMU *Configuration `toml:"qemu"`
		} `toml:"hypervisor"`
	}
	if _, err := toml.Decode(string(text), &document); err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	c := document.Hypervisor.QEMU
	if c == nil {
		return nil, fmt.Errorf("reading %s: no [hypervisor.qemu]", file)
	}
	for key, value := range map[string]string{
		"path": c.Path, "kernel": c.Kernel, "image": c.Image, "machine_type": c.MachineType, "rootfs_type": c.RootfsType,
	} {
		if value == "" {
			return nil, fmt.Errorf("reading %s: hypervisor.qemu.%s is empty", file, key)
		}
	}
	return c, nil
}

// Locate gives the place, in a payload that lies in dir, of a path of the
// node.
func Locate(dir, onNode string) (string, error) {
	below, ok := strings.CutPrefix(path.Clean(onNode), Prefix+"/")
	if !ok {
		return "", fmt.Errorf("%s is outside of %s", onNode, Prefix)
	}
	file := filepath.Join(dir, filepath.FromSlash(below))
	if _, err := os.Stat(file); err != nil {
		return "", fmt.Errorf("%s is not in the payload: %w", onNode, errors.Unwrap(err))
	}
	return file, nil
}

// runtimeParams are the kernel parameters that the runtime sets by itself,
// before those of the configuration, which therefore win.
func runtimeParams(rootfsType string) []string {
	return []string{
		"tsc=reliable", "no_timer_check", "rcupdate.rcu_expedited=1",
		"i8042.direct=1", "i8042.dumbkbd=1", "i8042.nopnp=1", "i8042.noaux=1",
		"noreplace-smp", "reboot=k", "cryptomgr.notests", "net.ifnames=0", "pci=lastbus=0",
		"root=/dev/vda1", "rootflags=ro", "rootfstype=" + rootfsType,
		"panic=1", "nr_cpus=1", "selinux=0",
	}
}

// testParams show the console, and end the machine at once when the guest
// panics.
var testParams = []string{"console=ttyS0", "panic=-1"}

// CommandLine gives the kernel command line as the runtime puts it together.
func (c *Configuration) CommandLine() string {
	params := append(runtimeParams(c.RootfsType), c.KernelParams)
	return strings.Join(append(params, testParams...), " ")
}
