package boot_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tests/suite/boot"
)

const (
	goodHash = "f211b9f1921ef726d57a72bf82be23a510076639fa8549ade10f85e214e0ddb4"
	verity   = `dm-mod.create="dm-verity,,,ro,0 8 verity 1 /dev/vda1 /dev/vda2 4096 4096 1 0 sha256 ` + goodHash + ` aabb" root=/dev/dm-0`
)

func writeConfiguration(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	defaults := filepath.Join(dir, "share/defaults/kata-containers")
	require.NoError(t, os.MkdirAll(defaults, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(defaults, "configuration-qemu-tdx.toml"), []byte(text), 0o600))
	return dir
}

func TestReadConfiguration(t *testing.T) {
	dir := writeConfiguration(t, `
[hypervisor.qemu]
path = "/opt/kata/bin/qemu-system-x86_64"
kernel = "/opt/kata/share/kata-containers/vmlinuz.container"
image = "/opt/kata/share/kata-containers/kata-containers-confidential.img"
firmware = "/opt/kata/share/ovmf/OVMF.inteltdx.fd"
machine_type = "q35"
rootfs_type = "erofs"
kernel_params = 'cgroup_no_v1=all `+verity+`'
[agent.kata]
debug = false
`)
	c, err := boot.ReadConfiguration(dir, "qemu-tdx")
	require.NoError(t, err)
	require.Equal(t, "/opt/kata/share/ovmf/OVMF.inteltdx.fd", c.Firmware)
	line := c.CommandLine()
	// The runtime's root comes first, so that verity's wins.
	require.Regexp(t, `root=/dev/vda1 rootflags=ro rootfstype=erofs .*cgroup_no_v1=all dm-mod.create=.* root=/dev/dm-0 console=ttyS0 panic=-1$`, line)
	hash, err := boot.RootHash(line)
	require.NoError(t, err)
	require.Equal(t, goodHash, hash)
}

func TestReadConfigurationFails(t *testing.T) {
	for _, test := range []struct {
		name, text, wantErr string
	}{
		{"not TOML", "[", "configuration-qemu-tdx.toml"},
		{"another hypervisor", "[hypervisor.clh]\n", "no [hypervisor.qemu]"},
		{"no kernel", "[hypervisor.qemu]\npath='p'\nimage='i'\nmachine_type='m'\nrootfs_type='r'\n", "hypervisor.qemu.kernel is empty"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := boot.ReadConfiguration(writeConfiguration(t, test.text), "qemu-tdx")
			require.ErrorContains(t, err, test.wantErr)
		})
	}
	_, err := boot.ReadConfiguration(t.TempDir(), "qemu-tdx")
	require.ErrorContains(t, err, "reading the configuration of qemu-tdx")
}

func TestLocate(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "bin"), 0o755))
	got, err := boot.Locate(dir, "/opt/kata/bin")
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "bin"), got)
	_, err = boot.Locate(dir, "/opt/kata/share")
	require.ErrorContains(t, err, "/opt/kata/share is not in the payload")
	_, err = boot.Locate(dir, "/opt/kata/../etc/passwd")
	require.ErrorContains(t, err, "outside of /opt/kata")
}

// writeDisk makes a disk with two partitions of 8 KiB: an erofs superblock
// and an agent in the first, a hash tree in the second.
func writeDisk(t *testing.T) string {
	t.Helper()
	disk := make([]byte, 64<<10)
	header := disk[512:]
	copy(header, "EFI PART")
	binary.LittleEndian.PutUint64(header[72:], 2)
	binary.LittleEndian.PutUint32(header[80:], 4)
	binary.LittleEndian.PutUint32(header[84:], 128)
	for i, start := range []uint64{16, 32} {
		entry := disk[1024+i*128:]
		entry[0] = 1
		binary.LittleEndian.PutUint64(entry[32:], start)
		binary.LittleEndian.PutUint64(entry[40:], start+15)
	}
	binary.LittleEndian.PutUint32(disk[8192+1024:], 0xe0f5e1e2)
	copy(disk[8192+6000:], "AGENT-TEXT")
	file := filepath.Join(t.TempDir(), "disk")
	require.NoError(t, os.WriteFile(file, disk, 0o600))
	return file
}

func TestFlipByte(t *testing.T) {
	for _, test := range []struct {
		name  string
		place boot.Place
		want  int
	}{
		{"superblock", boot.Superblock, 8192 + 1024 + 64},
		{"text", boot.Text("AGENT-TEXT"), 8192 + 6000},
		{"hash tree", boot.HashTree, 16384},
	} {
		t.Run(test.name, func(t *testing.T) {
			image := writeDisk(t)
			before, err := os.ReadFile(image)
			require.NoError(t, err)
			copied := filepath.Join(t.TempDir(), "copy")
			require.NoError(t, boot.FlipByte(image, copied, test.place))

			after, err := os.ReadFile(copied)
			require.NoError(t, err)
			want := bytes.Clone(before)
			want[test.want] ^= 0xff
			require.True(t, bytes.Equal(want, after))
			untouched, err := os.ReadFile(image)
			require.NoError(t, err)
			require.True(t, bytes.Equal(before, untouched))
		})
	}
}

func TestFlipByteFails(t *testing.T) {
	copied := filepath.Join(t.TempDir(), "copy")
	require.ErrorContains(t, boot.FlipByte(writeDisk(t), copied, boot.Text("not there")), `does not contain "not there"`)
	require.NoFileExists(t, copied)

	empty := filepath.Join(t.TempDir(), "empty")
	require.NoError(t, os.WriteFile(empty, make([]byte, 4096), 0o600))
	require.ErrorContains(t, boot.FlipByte(empty, copied, boot.Superblock), "no GPT")
}

func TestWrongRootHash(t *testing.T) {
	wrong, err := boot.WrongRootHash("quiet " + verity)
	require.NoError(t, err)
	hash, err := boot.RootHash(wrong)
	require.NoError(t, err)
	require.Equal(t, "0"+goodHash[1:], hash)
	again, err := boot.WrongRootHash(wrong)
	require.NoError(t, err)
	require.NotEqual(t, wrong, again)
	_, err = boot.WrongRootHash("root=/dev/vda1")
	require.ErrorContains(t, err, "no verity table")
}
