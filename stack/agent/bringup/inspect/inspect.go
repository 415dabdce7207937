// Package inspect looks at a guest through its /proc, /sys and /dev and says
// whether it is the guest that the payload promises: a read-only root under
// dm-verity, the TEE drivers in the kernel, and the devices a runtime adds.
package inspect

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/kiln-build/kiln/stack/agent/report"
)

// Prober answers what a file tree cannot: it asks the running kernel.
type Prober interface {
	// VerityStatus gives status and table of the device-mapper device with
	// that name, as the device-mapper reports them.
	VerityStatus(name string) (status, table string, err error)
}

// Guest is the guest that is looked at.
type Guest struct {
	// Root is the guest's root directory with /proc, /sys and /dev mounted.
	Root fs.FS
	// Prober asks the kernel.
	Prober Prober
	// Vsock is the state of the agent's own listener.
	Vsock report.Vsock
	// Agent names the reporter.
	Agent report.Agent
	// MountErrors are the mounts that failed, by target.
	MountErrors []error
}

// teeDrivers are the drivers by which a guest gets its evidence, with the
// device each makes on its own hardware.
var teeDrivers = []report.Driver{
	{Option: "CONFIG_TDX_GUEST_DRIVER", Device: "/dev/tdx_guest"},
	{Option: "CONFIG_SEV_GUEST", Device: "/dev/sev-guest"},
}

// virtioKinds names the device types of the virtio standard that a runtime
// plugs into a guest.
var virtioKinds = map[string]string{
	"0x0001": "net",
	"0x0002": "block",
	"0x0003": "console",
	"0x0004": "rng",
	"0x0005": "balloon",
	"0x0008": "scsi",
	"0x0009": "9p",
	"0x0013": "vsock",
	"0x0018": "mem",
	"0x001a": "fs",
}

// wantMounts are the file systems that workloads rely on.
var wantMounts = []string{"/proc", "/sys", "/dev", "/run", "/tmp", "/sys/fs/cgroup"}

// Inspect looks at the guest. It never fails: what cannot be read makes the
// check that needs it fail, with the reason as its detail.
func Inspect(g Guest) *report.Report {
	r := &report.Report{
		SchemaVersion: report.SchemaVersion,
		Agent:         g.Agent,
		Vsock:         g.Vsock,
		Virtio:        virtio(g.Root),
		Blocks:        names(g.Root, "sys/block"),
	}
	r.Kernel.Release = line(g.Root, "proc/sys/kernel/osrelease")
	r.Kernel.CommandLine = line(g.Root, "proc/cmdline")
	r.Boot.UptimeSeconds, _, _ = strings.Cut(line(g.Root, "proc/uptime"), " ")
	r.Boot.EFI = exists(g.Root, "sys/firmware/efi")

	ok := func(name, detail string) {
		r.Checks = append(r.Checks, report.Check{Name: name, OK: true, Detail: detail})
	}
	bad := func(name, format string, args ...any) {
		r.Checks = append(r.Checks, report.Check{Name: name, Detail: fmt.Sprintf(format, args...)})
	}
	checkMounts(g, r, ok, bad)
	checkRoot(g, r, ok, bad)
	checkTEE(g, r, ok, bad)
	checkDevices(r, ok, bad)

	r.OK = !slices.ContainsFunc(r.Checks, func(c report.Check) bool { return !c.OK })
	return r
}

type (
	okFunc  func(name, detail string)
	badFunc func(name, format string, args ...any)
)

func checkMounts(g Guest, r *report.Report, ok okFunc, bad badFunc) {
	table, err := g.Root.Open("proc/self/mountinfo")
	if err != nil {
		bad(report.CheckMounts, "reading the mount table: %v", err)
		return
	}
	defer func() { _ = table.Close() }()
	mounts, root, err := parseMounts(table)
	r.Mounts = mounts
	r.Root.Type = root.mount.Type
	r.Root.ReadOnly = root.mount.ReadOnly
	r.Root.Device = rootDevice(g.Root, root)
	if err != nil {
		bad(report.CheckMounts, "reading the mount table: %v", err)
		return
	}
	if len(g.MountErrors) > 0 {
		bad(report.CheckMounts, "%v", g.MountErrors[0])
		return
	}
	var missing []string
	for _, want := range wantMounts {
		if !slices.ContainsFunc(mounts, func(m report.Mount) bool { return m.Target == want }) {
			missing = append(missing, want)
		}
	}
	if len(missing) > 0 {
		bad(report.CheckMounts, "not mounted: %s", strings.Join(missing, ", "))
		return
	}
	ok(report.CheckMounts, strings.Join(wantMounts, " "))
}

func checkRoot(g Guest, r *report.Report, ok okFunc, bad badFunc) {
	if r.Root.ReadOnly {
		ok(report.CheckRootRO, r.Root.Type)
	} else {
		bad(report.CheckRootRO, "/ is writable (%s)", r.Root.Type)
	}
	name := strings.TrimPrefix(r.Root.Device, "/dev/")
	dm := line(g.Root, path.Join("sys/block", name, "dm/name"))
	if !strings.HasPrefix(name, "dm-") || dm == "" {
		bad(report.CheckRootDevice, "/ is on %q, which is not a device-mapper device", r.Root.Device)
		bad(report.CheckVerity, "/ is not on dm-verity")
		bad(report.CheckRootHash, "/ is not on dm-verity")
		return
	}
	ok(report.CheckRootDevice, r.Root.Device+" ("+dm+")")

	status, table, err := g.Prober.VerityStatus(dm)
	if err != nil {
		bad(report.CheckVerity, "%v", err)
		bad(report.CheckRootHash, "%v", err)
		return
	}
	v, err := parseVerity(dm, status, table)
	if err != nil {
		bad(report.CheckVerity, "%v", err)
		bad(report.CheckRootHash, "%v", err)
		return
	}
	r.Root.Verity = v
	// V: every block read so far was what the hash tree says.
	if v.Status == "V" {
		ok(report.CheckVerity, "verified")
	} else {
		bad(report.CheckVerity, "dm-verity reports status %q", v.Status)
	}
	// The table in force must be the one that the measured command line
	// asked for.
	if len(v.RootHash) == 64 && strings.Contains(r.Kernel.CommandLine, v.RootHash) {
		ok(report.CheckRootHash, v.RootHash)
	} else {
		bad(report.CheckRootHash, "root hash %q is not on the kernel command line", v.RootHash)
	}
}

func checkTEE(g Guest, r *report.Report, ok okFunc, bad badFunc) {
	r.TEE.Active = "none"
	if slices.Contains(strings.Fields(cpuFlags(g.Root)), "tdx_guest") {
		r.TEE.Active = "tdx"
	}
	r.TEE.TSM = exists(g.Root, "sys/kernel/config/tsm/report")
	r.TEE.Drivers = slices.Clone(teeDrivers)
	options, err := kernelOptions(g.Root)
	var missing []string
	for i := range r.TEE.Drivers {
		d := &r.TEE.Drivers[i]
		d.Present = exists(g.Root, strings.TrimPrefix(d.Device, "/"))
		d.BuiltIn = options[d.Option]
		if !d.BuiltIn {
			missing = append(missing, d.Option)
		}
		if d.Option == "CONFIG_SEV_GUEST" && d.Present {
			r.TEE.Active = "snp"
		}
	}
	switch {
	case err != nil:
		bad(report.CheckTEEDrivers, "reading the kernel's configuration: %v", err)
	case len(missing) > 0:
		bad(report.CheckTEEDrivers, "not built into the kernel: %s", strings.Join(missing, ", "))
	default:
		ok(report.CheckTEEDrivers, "")
	}
	if r.TEE.TSM {
		ok(report.CheckTSM, "/sys/kernel/config/tsm/report")
	} else {
		bad(report.CheckTSM, "/sys/kernel/config/tsm/report is missing")
	}
}

func checkDevices(r *report.Report, ok okFunc, bad badFunc) {
	bound := func(kind string) bool {
		return slices.ContainsFunc(r.Virtio, func(v report.Virtio) bool { return v.Kind == kind && v.Driver != "" })
	}
	if bound("block") {
		ok(report.CheckBlock, strings.Join(r.Blocks, " "))
	} else {
		bad(report.CheckBlock, "no virtio block device with a driver")
	}
	switch {
	case r.Vsock.Error != "":
		bad(report.CheckVsock, "%s", r.Vsock.Error)
	case !r.Vsock.Listening:
		bad(report.CheckVsock, "not listening")
	default:
		ok(report.CheckVsock, fmt.Sprintf("port %d", r.Vsock.Port))
	}
}

type rootMount struct {
	mount  report.Mount
	number string
}

// parseMounts reads a mountinfo table. Fields: id, parent, major:minor, root,
// target, options, optional fields up to "-", type, source, super options.
func parseMounts(table io.Reader) ([]report.Mount, rootMount, error) {
	var mounts []report.Mount
	var root rootMount
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		left, right, found := strings.Cut(lines.Text(), " - ")
		head, tail := strings.Fields(left), strings.Fields(right)
		if !found || len(head) < 6 || len(tail) < 2 {
			return mounts, root, fmt.Errorf("malformed line %q", lines.Text())
		}
		m := report.Mount{
			Target: head[4],
			Type:   tail[0],
			Source: tail[1],
			// A kernel that is entered by PVH has no flag of a loader that the root is to
			// be mounted read-only: then the file system alone says that it is.
			ReadOnly: readOnly(head[5]) || len(tail) > 2 && readOnly(tail[2]),
		}
		mounts = append(mounts, m)
		// A later mount on the same target hides the earlier one.
		if m.Target == "/" && m.Type != "rootfs" {
			root = rootMount{mount: m, number: head[2]}
		}
	}
	if err := lines.Err(); err != nil {
		return mounts, root, err
	}
	if root.number == "" {
		return mounts, root, fmt.Errorf("/ is not in it")
	}
	return mounts, root, nil
}

func readOnly(options string) bool { return slices.Contains(strings.Split(options, ","), "ro") }

// rootDevice finds the block device by its number: the mount table's source
// is only the name under which the kernel found it, often /dev/root.
func rootDevice(root fs.FS, m rootMount) string {
	for _, name := range names(root, "sys/class/block") {
		if m.number != "" && line(root, path.Join("sys/class/block", name, "dev")) == m.number {
			return "/dev/" + name
		}
	}
	return m.mount.Source
}

// parseVerity reads a verity table: version, data device, hash device, block
// sizes, data blocks, hash start block, algorithm, root hash, salt.
func parseVerity(name, status, table string) (*report.Verity, error) {
	f := strings.Fields(table)
	if len(f) < 10 {
		return nil, fmt.Errorf("device %s has no verity table: %q", name, table)
	}
	return &report.Verity{
		Name:       name,
		Status:     firstField(status),
		DataDevice: f[1],
		HashDevice: f[2],
		DataBlocks: f[5],
		Algorithm:  f[7],
		RootHash:   f[8],
		Salt:       f[9],
	}, nil
}

// kernelOptions gives the options that are built into the running kernel.
func kernelOptions(root fs.FS) (map[string]bool, error) {
	f, err := root.Open("proc/config.gz")
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("/proc/config.gz: %w", err)
	}
	options := map[string]bool{}
	lines := bufio.NewScanner(z)
	for lines.Scan() {
		if name, isOn := strings.CutSuffix(lines.Text(), "=y"); isOn {
			options[name] = true
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("/proc/config.gz: %w", err)
	}
	return options, nil
}

func cpuFlags(root fs.FS) string {
	data, err := fs.ReadFile(root, "proc/cpuinfo")
	if err != nil {
		return ""
	}
	for l := range strings.Lines(string(data)) {
		if name, value, found := strings.Cut(l, ":"); found && strings.TrimSpace(name) == "flags" {
			return value
		}
	}
	return ""
}

func virtio(root fs.FS) []report.Virtio {
	var devices []report.Virtio
	for _, name := range names(root, "sys/bus/virtio/devices") {
		dir := path.Join("sys/bus/virtio/devices", name)
		id := line(root, path.Join(dir, "device"))
		kind, known := virtioKinds[id]
		if !known {
			kind = id
		}
		d := report.Virtio{Name: name, Kind: kind}
		if target, err := fs.ReadLink(root, path.Join(dir, "driver")); err == nil {
			d.Driver = path.Base(target)
		}
		devices = append(devices, d)
	}
	return devices
}

// names lists a directory, sorted; what cannot be read is empty.
func names(root fs.FS, dir string) []string {
	entries, err := fs.ReadDir(root, dir)
	if err != nil {
		return nil
	}
	list := make([]string, 0, len(entries))
	for _, e := range entries {
		list = append(list, e.Name())
	}
	slices.Sort(list)
	return list
}

func line(root fs.FS, name string) string {
	data, err := fs.ReadFile(root, name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

func exists(root fs.FS, name string) bool {
	_, err := fs.Stat(root, name)
	return err == nil
}

// firstField drops what newer kernels add to a verity status, such as counts
// of corrected blocks.
func firstField(s string) string {
	first, _, _ := strings.Cut(strings.TrimSpace(s), " ")
	return first
}
