package qemu_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// fakeQEMU answers the help requests in QEMU's own formats, which differ by kind.
const fakeQEMU = `#!/bin/bash
case "$1" in
-device) printf 'Storage devices:\nname "virtio-blk-pci", bus PCI, alias "virtio-blk"\n\nMisc devices:\nname "vhost-vsock-pci", bus PCI\n' ;;
-object) printf 'List of user creatable objects:\n  tdx-guest\n  rng-random\n' ;;
-machine) printf 'Supported machines are:\nnone                 empty machine\npc-q35-10.2          Standard PC\nq35                  Standard PC (alias of pc-q35-10.2)\n'; exit 1 ;;
esac
`

func TestCheckRequired(t *testing.T) {
	qemu := filepath.Join(t.TempDir(), "qemu")
	require.NoError(t, os.WriteFile(qemu, []byte(fakeQEMU), 0o700))
	for _, tt := range []struct {
		name, required string
		missing        []string
	}{
		{name: "all there", required: "# why\ndevice virtio-blk-pci\ndevice vhost-vsock-pci\nobject tdx-guest\nmachine q35\n"},
		{name: "a device", required: "device virtio-blk-pci\ndevice vfio-pci\n", missing: []string{"  device vfio-pci\n"}},
		{name: "a part of a name is not the name", required: "device virtio-blk\nobject tdx\n", missing: []string{"  device virtio-blk\n", "  object tdx\n"}},
		{name: "the right name under the wrong kind", required: "device tdx-guest\n", missing: []string{"  device tdx-guest\n"}},
		{name: "a kind with no help", required: "accel kvm\n", missing: []string{"  accel kvm\n"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			required := filepath.Join(t.TempDir(), "required.txt")
			require.NoError(t, os.WriteFile(required, []byte(tt.required), 0o600))
			var stderr bytes.Buffer
			cmd := exec.Command("bash", "check-required.sh", required, "env", "FOREIGN=1", qemu)
			cmd.Stderr = &stderr
			err := cmd.Run()
			if len(tt.missing) == 0 {
				require.NoError(t, err, stderr.String())
				return
			}
			require.Error(t, err)
			for _, missing := range tt.missing {
				require.Contains(t, stderr.String(), missing)
			}
		})
	}
}
