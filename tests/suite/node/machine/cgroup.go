package machine

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A machine has one directory in each hierarchy of cgroups, with one inside for the
// machine and one for the watchdog, which shows that the machine is somebody's.
const (
	cgroupPrefix   = "kiln-machine-"
	cgroupMachine  = "machine"
	cgroupWatchdog = "watchdog"
)

// watchdogReady is the line by which a watchdog says that the cgroups are there.
const watchdogReady = "ready\n"

// hierarchy is one tree of cgroups of the kernel.
type hierarchy struct {
	// controllers are those of version 1, such as "cpu,cpuacct" or
	// "name=systemd"; empty for version 2.
	controllers string
}

func (h hierarchy) unified() bool { return h.controllers == "" }

// directory is what the hierarchy is called below /sys/fs/cgroup, where there are
// several.
func (h hierarchy) directory() string {
	if h.unified() {
		return "unified"
	}
	return strings.TrimPrefix(h.controllers, "name=")
}

// mount mounts the hierarchy, as far as the caller's cgroup namespace reaches.
func (h hierarchy) mount(target string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	kind, options := "cgroup", h.controllers
	switch {
	case h.unified():
		kind = "cgroup2"
	case strings.HasPrefix(options, "name="):
		options = "none," + options
	}
	if err := unix.Mount(kind, target, kind, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, options); err != nil {
		return fmt.Errorf("mounting cgroups (%s): %w", h.directory(), err)
	}
	return nil
}

// hierarchies gives those that this machine uses. Controllers are either all in
// version 2, or all in version 1.
func hierarchies() ([]hierarchy, error) {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("reading which cgroups there are: %w", err)
	}
	return parseHierarchies(string(data))
}

func parseHierarchies(data string) ([]hierarchy, error) {
	var all []hierarchy
	for line := range strings.Lines(data) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 {
			return nil, fmt.Errorf("reading which cgroups there are: %q is not a hierarchy", line)
		}
		all = append(all, hierarchy{controllers: fields[1]})
	}
	if len(all) == 0 {
		return nil, errors.New("reading which cgroups there are: there are none")
	}
	return all, nil
}

// mountOuter mounts all hierarchies below a directory, as this machine sees them.
func mountOuter(dir string) ([]hierarchy, error) {
	all, err := hierarchies()
	if err != nil {
		return nil, err
	}
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("taking mounts apart from the machine's: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := unix.Mount("cgroups", dir, "tmpfs", 0, "mode=755"); err != nil {
		return nil, fmt.Errorf("mounting a place for cgroups: %w", err)
	}
	for _, h := range all {
		if err := h.mount(filepath.Join(dir, h.directory())); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// watchdog makes the cgroups of a machine, and removes them when standard input
// ends: then whoever started it has ended.
func watchdog(args []string) (int, error) {
	// The directory is covered in a mount namespace of this process alone.
	const dir = "/sys"
	name := cgroupPrefix + args[0]
	all, err := mountOuter(dir)
	if err != nil {
		return 0, err
	}
	if err := create(dir, all, name); err != nil {
		return 0, errors.Join(err, remove(dir, all, name, time.Minute))
	}
	fmt.Print(watchdogReady)
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := remove(dir, all, name, time.Minute); err != nil {
		fmt.Println(err) // the reader of it may be gone
	}
	return 0, nil
}

// create makes the cgroups, after those that nobody owns any more are removed.
func create(dir string, all []hierarchy, name string) error {
	// Between making a cgroup and putting a process into it, it looks like one
	// that nobody owns.
	lock, err := os.Open(filepath.Join(dir, all[0].directory()))
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("locking %s: %w", lock.Name(), err)
	}
	if err := sweep(dir, all); err != nil {
		return err
	}
	for _, h := range all {
		parent := filepath.Join(dir, h.directory())
		for _, path := range []string{name, filepath.Join(name, cgroupMachine), filepath.Join(name, cgroupWatchdog)} {
			if err := makeCgroup(h, filepath.Join(parent, path)); err != nil {
				return fmt.Errorf("making cgroup %s (%s): %w", path, h.directory(), err)
			}
		}
		if err := enterCgroup(filepath.Join(parent, name, cgroupWatchdog)); err != nil {
			return err
		}
	}
	return nil
}

func makeCgroup(h hierarchy, path string) error {
	parent := filepath.Dir(path)
	if h.unified() {
		available, err := os.ReadFile(filepath.Join(parent, "cgroup.controllers"))
		if err != nil {
			return err
		}
		for _, controller := range strings.Fields(string(available)) {
			if err := os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+"+controller), 0); err != nil {
				return fmt.Errorf("handing on controller %s: %w", controller, err)
			}
		}
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		return err
	}
	// A new cpuset of version 1 has no CPU, and no process can go there.
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(parent, file))
		if h.unified() || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(path, file), value, 0); err != nil {
			return err
		}
	}
	return nil
}

func enterCgroup(path string) error {
	if err := os.WriteFile(filepath.Join(path, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
		return fmt.Errorf("entering a cgroup: %w", err)
	}
	return nil
}

// sweep removes what was left by machines whose watchdog was killed.
func sweep(dir string, all []hierarchy) error {
	owned, seen := map[string]bool{}, map[string]bool{}
	for _, h := range all {
		found, err := filepath.Glob(filepath.Join(dir, h.directory(), cgroupPrefix+"*"))
		if err != nil {
			return err
		}
		for _, path := range found {
			pids, err := processes(path)
			if err != nil {
				return fmt.Errorf("looking for abandoned cgroups: %w", err)
			}
			seen[filepath.Base(path)] = true
			owned[filepath.Base(path)] = owned[filepath.Base(path)] || len(pids) > 0
		}
	}
	for name := range seen {
		if owned[name] {
			continue
		}
		if err := remove(dir, all, name, 0); err != nil {
			return fmt.Errorf("removing abandoned cgroups: %w", err)
		}
	}
	return nil
}

// remove removes all cgroups of a machine. Its processes are ending; those that do
// not in a few seconds are killed.
func remove(dir string, all []hierarchy, name string, patience time.Duration) error {
	const asking = 10 * time.Second
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		var failed error
		for _, h := range all {
			root := filepath.Join(dir, h.directory())
			path := filepath.Join(root, name)
			if pids, _ := processes(filepath.Join(path, cgroupWatchdog)); len(pids) > 0 {
				// It is this process, or removing fails below.
				_ = enterCgroup(root)
			}
			if waited := time.Since(start); waited > asking {
				pids, _ := processes(filepath.Join(path, cgroupMachine))
				for _, pid := range pids {
					if pid > 0 {
						_ = unix.Kill(pid, unix.SIGKILL)
					}
				}
			}
			failed = errors.Join(failed, removeTree(path))
		}
		if failed == nil || time.Since(start) >= patience {
			return failed
		}
	}
}

// removeTree removes a cgroup with all inside. Its files go with it.
func removeTree(path string) error {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeTree(filepath.Join(path, entry.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(path); err != nil && !errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("removing cgroup %s: %w", path, err)
	}
	return nil
}

// processes gives all processes in a cgroup and below.
func processes(path string) ([]int, error) {
	var pids []int
	err := filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(name, "cgroup.procs"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
			return nil
		}
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(data)) {
			pid, err := strconv.Atoi(strings.TrimSpace(line))
			if err != nil {
				return err
			}
			pids = append(pids, pid) // 0 for one of another PID namespace
		}
		return nil
	})
	return pids, err
}
