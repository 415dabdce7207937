package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// hidden is a directory of the machine in which things are mounted that are gone
// before process 1 starts.
const hidden = "/mnt"

// devices are those of this machine that there are in a machine too, if there are
// any: what every system has, and what guests need.
var devices = []string{
	"null", "zero", "full", "random", "urandom", "tty", "kmsg", "fuse",
	"kvm", "net/tun", "vhost-net", "vhost-vsock", "vsock", "sev", "sgx_enclave", "sgx_provision", "tdx_guest",
}

// initMachine becomes process 1 of a machine.
func initMachine(args []string) (int, error) {
	description, problem := os.NewFile(3, "description"), os.NewFile(4, "problem")
	unix.CloseOnExec(3)
	unix.CloseOnExec(4)
	err := becomeInit(args[0], description)
	// The keeper reads it; process 1 was not executed.
	_, _ = fmt.Fprint(problem, err)
	return 1, nil
}

func becomeInit(id string, description *os.File) error {
	var o Options
	if err := json.NewDecoder(description).Decode(&o); err != nil {
		return fmt.Errorf("reading the machine's description: %w", err)
	}
	all, err := enterCgroups(id)
	if err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(o.Hostname)); err != nil {
		return fmt.Errorf("setting the host name: %w", err)
	}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"/proc", func() error { return mountProc(o.Sysctls) }},
		{"/sys", func() error { return mountSys(all) }},
		{"/dev", mountDev},
		{"/run and /tmp", mountScratch},
		{"the root file system", pivot},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("mounting %s: %w", step.what, err)
		}
	}
	return fmt.Errorf("executing %s: %w", o.Init[0], syscall.Exec(o.Init[0], o.Init, o.Env))
}

// enterCgroups puts this process into the machine's cgroups, which are the roots of
// all that it will see from then on.
func enterCgroups(id string) ([]hierarchy, error) {
	place := filepath.Join(keeperRoot, hidden)
	all, err := mountOuter(place)
	if err != nil {
		return nil, err
	}
	for _, h := range all {
		if err := enterCgroup(filepath.Join(place, h.directory(), cgroupPrefix+id, cgroupMachine)); err != nil {
			return nil, err
		}
		if err := unix.Unmount(filepath.Join(place, h.directory()), 0); err != nil {
			return nil, err
		}
	}
	if err := unix.Unmount(place, 0); err != nil {
		return nil, err
	}
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return nil, fmt.Errorf("making a cgroup namespace: %w", err)
	}
	return all, nil
}

// mountProc mounts /proc, in which settings of the kernel cannot be changed, but for
// those of the network, which is the machine's own.
func mountProc(sysctls map[string]string) error {
	proc := filepath.Join(keeperRoot, "proc")
	if err := unix.Mount("proc", proc, "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(proc, "sys/net/ipv4/ip_forward"), []byte("1"), 0); err != nil {
		return err
	}
	settings, network := filepath.Join(proc, "sys"), filepath.Join(proc, "sys/net")
	for _, dir := range []string{network, settings} {
		if err := unix.Mount(dir, dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return err
		}
	}
	if err := unix.Mount("none", settings, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return err
	}
	scratch := filepath.Join(keeperRoot, hidden)
	if err := unix.Mount("sysctl", scratch, "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	for name, value := range sysctls {
		file := filepath.Join(scratch, filepath.Base(name))
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		if err := unix.Mount(file, filepath.Join(settings, name), "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("covering %s: %w", name, err)
		}
	}
	return unix.Unmount(scratch, unix.MNT_DETACH)
}

func mountSys(all []hierarchy) error {
	sys := filepath.Join(keeperRoot, "sys")
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("sysfs", sys, "sysfs", flags, ""); err != nil {
		return err
	}
	cgroups := filepath.Join(sys, "fs/cgroup")
	if len(all) == 1 && all[0].unified() {
		return all[0].mount(cgroups)
	}
	if err := unix.Mount("cgroups", cgroups, "tmpfs", flags, "mode=755"); err != nil {
		return err
	}
	for _, h := range all {
		if err := h.mount(filepath.Join(cgroups, h.directory())); err != nil {
			return err
		}
	}
	return nil
}

func mountDev() error {
	dev := filepath.Join(keeperRoot, "dev")
	if err := unix.Mount("dev", dev, "tmpfs", unix.MS_NOSUID, "mode=755"); err != nil {
		return err
	}
	for _, name := range devices {
		var stat unix.Stat_t
		err := unix.Stat(filepath.Join("/dev", name), &stat)
		if errors.Is(err, syscall.ENOENT) || err == nil && stat.Mode&unix.S_IFMT != unix.S_IFCHR {
			continue
		}
		if err != nil {
			return err
		}
		path := filepath.Join(dev, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := unix.Mknod(path, stat.Mode, int(stat.Rdev)); err != nil {
			return fmt.Errorf("making %s: %w", name, err)
		}
		if err := os.Chmod(path, fs.FileMode(stat.Mode&0o777)); err != nil {
			return err
		}
	}
	for _, dir := range []string{"pts", "shm", "mqueue"} {
		if err := os.Mkdir(filepath.Join(dev, dir), 0o755); err != nil {
			return err
		}
	}
	for name, target := range map[string]string{
		"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, filepath.Join(dev, name)); err != nil {
			return err
		}
	}
	terminal, err := os.Readlink("/proc/self/fd/0")
	if err != nil {
		return err
	}
	console := filepath.Join(dev, "console")
	if err := os.WriteFile(console, nil, 0o600); err != nil {
		return err
	}
	if err := unix.Mount(terminal, console, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("making a console of %s: %w", terminal, err)
	}
	if err := unix.Mount("shm", filepath.Join(dev, "shm"), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"); err != nil {
		return err
	}
	if err := unix.Mount("mqueue", filepath.Join(dev, "mqueue"), "mqueue", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	return unix.Mount("devpts", filepath.Join(dev, "pts"), "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620,gid=5")
}

func mountScratch() error {
	for dir, mode := range map[string]string{"run": "mode=755", "tmp": "mode=1777"} {
		if err := unix.Mount(dir, filepath.Join(keeperRoot, dir), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, mode); err != nil {
			return err
		}
	}
	// A system that boots has it; whoever locks something relies on that.
	return os.Mkdir(filepath.Join(keeperRoot, "run/lock"), 0o755)
}

// pivot makes the machine's root the root, with mounts that containers share.
func pivot() error {
	if err := os.Chdir(keeperRoot); err != nil {
		return err
	}
	// The old root is mounted over the new one for a moment.
	if err := unix.PivotRoot(".", "."); err != nil {
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return err
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	return unix.Mount("none", "/", "", unix.MS_REC|unix.MS_SHARED, "")
}

// rooted gives a command that sees the keeper's root file system as its root.
func rooted(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: keeperRoot}
	// It is looked for here, and may not be here.
	cmd.Path, cmd.Err = name, nil
	return cmd
}
