package inspect_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/stack/agent/bringup/inspect"
	"github.com/kiln-build/kiln/stack/agent/report"
)

const (
	rootHash = "f211b9f1921ef726d57a72bf82be23a510076639fa8549ade10f85e214e0ddb4"
	salt     = "065c13dfb5b4e0af034685aa5442bddda47b17c182ee44ba55a373835d18a038"
	table    = "1 254:1 254:2 4096 4096 92041 0 sha256 " + rootHash + " " + salt
	mounts   = `1 1 0:2 / / rw - rootfs rootfs rw
21 1 253:0 / / ro,relatime shared:1 - erofs /dev/root ro,user_xattr
22 21 0:5 / /proc rw,nosuid - proc proc rw
23 21 0:6 / /sys rw,nosuid - sysfs sysfs rw
24 21 0:7 / /dev rw,nosuid - devtmpfs devtmpfs rw
25 21 0:8 / /run rw,nosuid - tmpfs tmpfs rw
26 21 0:9 / /tmp rw,nosuid - tmpfs tmpfs rw
27 23 0:10 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw
`
)

type prober struct {
	status, table string
	err           error
}

func (p prober) VerityStatus(string) (string, string, error) { return p.status, p.table, p.err }

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text), Mode: 0o444} }

func zipped(t *testing.T, text string) *fstest.MapFile {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write([]byte(text))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return &fstest.MapFile{Data: b.Bytes(), Mode: 0o444}
}

// soundGuest is a guest as the payload promises it, outside of a TEE.
func soundGuest(t *testing.T) (inspect.Guest, fstest.MapFS) {
	t.Helper()
	root := fstest.MapFS{
		"proc/sys/kernel/osrelease":             file("6.12.117\n"),
		"proc/cmdline":                          file(`console=ttyS0 dm-mod.create="dm-verity,,,ro,0 736328 verity 1 /dev/vda1 /dev/vda2 4096 4096 92041 0 sha256 ` + rootHash + " " + salt + "\" root=/dev/dm-0\n"),
		"proc/uptime":                           file("3.50 6.10\n"),
		"proc/cpuinfo":                          file("processor\t: 0\nflags\t\t: fpu sse2\n"),
		"proc/config.gz":                        zipped(t, "# CONFIG_MODULES is not set\nCONFIG_TDX_GUEST_DRIVER=y\nCONFIG_SEV_GUEST=y\n"),
		"proc/self/mountinfo":                   file(mounts),
		"sys/class/block/vda1/dev":              file("254:1\n"),
		"sys/block/vda/dev":                     file("254:0\n"),
		"sys/class/block/dm-0/dev":              file("253:0\n"),
		"sys/block/dm-0/dm/name":                file("dm-verity\n"),
		"sys/bus/virtio/devices/virtio0/device": file("0x0002\n"),
		"sys/bus/virtio/devices/virtio0/driver": {Data: []byte("../../drivers/virtio_blk"), Mode: fs.ModeSymlink},
		"sys/bus/virtio/devices/virtio1/device": file("0x0013\n"),
		"sys/kernel/config/tsm/report":          {Mode: fs.ModeDir | 0o755},
	}
	return inspect.Guest{
		Root:   root,
		Prober: prober{status: "V", table: table},
		Vsock:  report.Vsock{Port: 1024, ContextID: 3, Listening: true},
		Agent:  report.Agent{Kind: "bringup", Version: "1", PID: 1},
	}, root
}

func TestSoundGuest(t *testing.T) {
	guest, _ := soundGuest(t)
	r := inspect.Inspect(guest)

	for _, c := range r.Checks {
		require.True(t, c.OK, "%s: %s", c.Name, c.Detail)
	}
	require.True(t, r.OK)
	require.Len(t, r.Checks, 9)
	require.Equal(t, report.Root{
		Device: "/dev/dm-0", Type: "erofs", ReadOnly: true,
		Verity: &report.Verity{
			Name: "dm-verity", Status: "V", DataDevice: "254:1", HashDevice: "254:2", DataBlocks: "92041",
			Algorithm: "sha256", RootHash: rootHash, Salt: salt,
		},
	}, r.Root)
	require.Equal(t, "6.12.117", r.Kernel.Release)
	require.Equal(t, report.Boot{UptimeSeconds: "3.50"}, r.Boot)
	require.Equal(t, "none", r.TEE.Active)
	require.Equal(t, []report.Virtio{{Name: "virtio0", Kind: "block", Driver: "virtio_blk"}, {Name: "virtio1", Kind: "vsock"}}, r.Virtio)
	require.Equal(t, []string{"dm-0", "vda"}, r.Blocks)
}

// TestTheFileSystemIsReadOnly takes either word for it: the mount's, or its file system's.
func TestTheFileSystemIsReadOnly(t *testing.T) {
	for _, lax := range [][2]string{{"/ / ro,relatime", "/ / rw,relatime"}, {"/dev/root ro", "/dev/root rw"}} {
		guest, root := soundGuest(t)
		root["proc/self/mountinfo"] = file(strings.Replace(mounts, lax[0], lax[1], 1))
		r := inspect.Inspect(guest)
		require.True(t, r.OK)
		require.True(t, r.Root.ReadOnly)
	}
}

func TestFaultyGuests(t *testing.T) {
	for _, test := range []struct {
		name  string
		fault func(*inspect.Guest, fstest.MapFS)
		check string
		want  string
	}{
		{"root is the bare disk", func(_ *inspect.Guest, root fstest.MapFS) {
			root["proc/self/mountinfo"] = file(strings.Replace(mounts, "253:0", "254:1", 1))
		}, report.CheckRootDevice, `"/dev/vda1", which is not a device-mapper`},
		{"root is writable", func(_ *inspect.Guest, root fstest.MapFS) {
			root["proc/self/mountinfo"] = file(strings.NewReplacer("/ / ro,relatime", "/ / rw,relatime", "/dev/root ro", "/dev/root rw").Replace(mounts))
		}, report.CheckRootRO, "writable"},
		{"corruption was seen", func(g *inspect.Guest, _ fstest.MapFS) {
			g.Prober = prober{status: "C -", table: table}
		}, report.CheckVerity, `status "C"`},
		{"device-mapper does not answer", func(g *inspect.Guest, _ fstest.MapFS) {
			g.Prober = prober{err: errors.New("no control device")}
		}, report.CheckVerity, "no control device"},
		{"table is no verity table", func(g *inspect.Guest, _ fstest.MapFS) {
			g.Prober = prober{status: "V", table: "254:1 0"}
		}, report.CheckVerity, "no verity table"},
		{"another root hash is in force", func(g *inspect.Guest, _ fstest.MapFS) {
			g.Prober = prober{status: "V", table: strings.Replace(table, rootHash, strings.Repeat("0", 64), 1)}
		}, report.CheckRootHash, "not on the kernel command line"},
		{"a TEE driver is missing", func(_ *inspect.Guest, root fstest.MapFS) {
			root["proc/config.gz"] = zipped(t, "CONFIG_SEV_GUEST=y\n")
		}, report.CheckTEEDrivers, "CONFIG_TDX_GUEST_DRIVER"},
		{"the kernel hides its configuration", func(_ *inspect.Guest, root fstest.MapFS) {
			delete(root, "proc/config.gz")
		}, report.CheckTEEDrivers, "config.gz"},
		{"no TSM reports", func(_ *inspect.Guest, root fstest.MapFS) {
			delete(root, "sys/kernel/config/tsm/report")
		}, report.CheckTSM, "missing"},
		{"no block driver", func(_ *inspect.Guest, root fstest.MapFS) {
			delete(root, "sys/bus/virtio/devices/virtio0/driver")
		}, report.CheckBlock, "no virtio block"},
		{"no vsock", func(g *inspect.Guest, _ fstest.MapFS) {
			g.Vsock = report.Vsock{Error: "address family not supported"}
		}, report.CheckVsock, "not supported"},
		{"a mount failed", func(g *inspect.Guest, _ fstest.MapFS) {
			g.MountErrors = []error{errors.New("mounting cgroup2 on /sys/fs/cgroup: no such device")}
		}, report.CheckMounts, "mounting cgroup2"},
		{"a mount is missing", func(_ *inspect.Guest, root fstest.MapFS) {
			root["proc/self/mountinfo"] = file(strings.Replace(mounts, " /tmp ", " /elsewhere ", 1))
		}, report.CheckMounts, "not mounted: /tmp"},
		{"the mount table is malformed", func(_ *inspect.Guest, root fstest.MapFS) {
			root["proc/self/mountinfo"] = file("nonsense\n")
		}, report.CheckMounts, "malformed line"},
	} {
		t.Run(test.name, func(t *testing.T) {
			guest, root := soundGuest(t)
			test.fault(&guest, root)
			r := inspect.Inspect(guest)
			require.False(t, r.OK)
			check, found := r.Check(test.check)
			require.True(t, found)
			require.False(t, check.OK)
			require.Contains(t, check.Detail, test.want)
		})
	}
}

func TestActiveTEE(t *testing.T) {
	for _, test := range []struct {
		name, file, text, want string
	}{
		{"tdx", "proc/cpuinfo", "flags\t: fpu tdx_guest\n", "tdx"},
		{"snp", "dev/sev-guest", "", "snp"},
	} {
		t.Run(test.name, func(t *testing.T) {
			guest, root := soundGuest(t)
			root[test.file] = file(test.text)
			require.Equal(t, test.want, inspect.Inspect(guest).TEE.Active)
		})
	}
}

func TestEFI(t *testing.T) {
	guest, root := soundGuest(t)
	root["sys/firmware/efi/fw_platform_size"] = file("64\n")
	require.True(t, inspect.Inspect(guest).Boot.EFI)
}
