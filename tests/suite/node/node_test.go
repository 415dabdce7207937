//go:build bazel

package node_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kiln-build/kiln/deploy/kubernetes/clientset"
	"github.com/kiln-build/kiln/tests/suite/node"
)

// childEnv makes the test binary a program that starts a node, says so and waits.
const childEnv = "KILN_NODE_TEST_CHILD"

func TestMain(m *testing.M) {
	node.IfChild()
	if os.Getenv(childEnv) != "" {
		fmt.Println(startAndWait())
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func startAndWait() error {
	o, err := node.FromRunfiles()
	if err != nil {
		return err
	}
	n, err := node.Start(context.Background(), o)
	if err != nil {
		return err
	}
	fmt.Println("ready", n.Root())
	select {}
}

func start(t *testing.T) *node.Node {
	t.Helper()
	o, err := node.FromRunfiles()
	require.NoError(t, err)
	o.Log = t.Output()
	n, err := node.Start(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	return n
}

func TestNode(t *testing.T) {
	own, err := os.Readlink("/proc/self/ns/net")
	require.NoError(t, err)
	n := start(t)
	ctx := t.Context()
	client, err := clientset.NewForConfig(n.REST())
	require.NoError(t, err)

	version, err := client.Discovery().ServerVersion()
	require.NoError(t, err)
	require.Equal(t, "v1.37.2", version.GitVersion)

	_, err = client.NodeV1().RuntimeClasses().Create(ctx, &nodev1.RuntimeClass{
		ObjectMeta: metav1.ObjectMeta{Name: "plain"}, Handler: "runc",
	}, metav1.CreateOptions{})
	require.NoError(t, err)

	// An image that only a registry in this process has.
	o, err := node.FromRunfiles()
	require.NoError(t, err)
	program, err := os.ReadFile(o.Pause)
	require.NoError(t, err)
	image, err := node.SingleFileImage("/probe", program)
	require.NoError(t, err)
	reference, err := n.Push(ctx, "kiln/probe", image)
	require.NoError(t, err)
	require.Contains(t, reference, "127.0.0.1:")
	require.Contains(t, reference, "@sha256:")

	class := "plain"
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "probe"},
		Spec: corev1.PodSpec{
			RuntimeClassName: &class,
			Containers: []corev1.Container{{
				Name: "probe", Image: reference, Args: []string{"hello", "from", "the", "pod"},
			}},
		},
	}
	_, err = client.CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{})
	require.NoError(t, err)
	first := running(t, n, client, "probe", 0)
	require.Equal(t, "hello from the pod\n", logs(t, client, "probe"))
	require.Contains(t, first.Status.ContainerStatuses[0].ImageID, strings.SplitAfter(reference, "@")[1])

	t.Run("a pod reaches the API by the service's address", func(t *testing.T) {
		// The pod has no client; what it would do is done in its network.
		out := run(t, n, "sh", "-c", fmt.Sprintf(
			`for ns in /var/run/netns/*; do nsenter --net=$ns ip -br address | grep -q %s && exec nsenter --net=$ns kubectl --server=https://10.96.0.1:443 get --raw /readyz; done`,
			first.Status.PodIP))
		require.Equal(t, "ok", out)
	})

	t.Run("a class without a handler does not run", func(t *testing.T) {
		_, err := client.NodeV1().RuntimeClasses().Create(ctx, &nodev1.RuntimeClass{
			ObjectMeta: metav1.ObjectMeta{Name: "missing"}, Handler: "missing",
		}, metav1.CreateOptions{})
		require.NoError(t, err)
		missing := "missing"
		pod := pod.DeepCopy()
		pod.Name, pod.Spec.RuntimeClassName = "stuck", &missing
		_, err = client.CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{})
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			events, err := client.CoreV1().Events("default").List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=stuck"})
			require.NoError(t, err)
			for _, e := range events.Items {
				if strings.Contains(e.Message, `no runtime for "missing" is configured`) {
					return true
				}
			}
			return false
		}, time.Minute, 100*time.Millisecond)
		now := int64(0)
		require.NoError(t, client.CoreV1().Pods("default").Delete(ctx, "stuck", metav1.DeleteOptions{GracePeriodSeconds: &now}))
	})

	t.Run("no thread stays in the node's network", func(t *testing.T) {
		for range 20 {
			client, err := clientset.NewForConfig(n.REST())
			require.NoError(t, err)
			_, err = client.Discovery().ServerVersion()
			require.NoError(t, err)
		}
		require.Eventually(t, func() bool {
			tasks, err := filepath.Glob("/proc/self/task/*/ns/net")
			require.NoError(t, err)
			for _, task := range tasks {
				if ns, err := os.Readlink(task); err == nil && ns != own {
					return false
				}
			}
			return true
		}, 5*time.Second, 10*time.Millisecond)
	})

	t.Run("commands", func(t *testing.T) {
		require.Equal(t, "node1\n", run(t, n, "kubectl", "get", "node", "--no-headers", "-o", "custom-columns=:metadata.name"))
		require.Contains(t, run(t, n, "helm", "version"), "v4.")
		var exit *exec.ExitError
		require.ErrorAs(t, n.Command(ctx, "sh", "-c", "exit 7").Run(), &exit)
		require.Equal(t, 7, exit.ExitCode())
		require.ErrorAs(t, n.Command(ctx, "no-such-program").Run(), &exit)
		require.Equal(t, 127, exit.ExitCode())

		short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		defer cancel()
		require.Error(t, n.Command(short, "sleep", "4242").Run())
		require.Eventually(t, func() bool {
			return !strings.Contains(run(t, n, "ps", "-e", "-o", "args"), "sleep 4242\n")
		}, 5*time.Second, 100*time.Millisecond, "a command must end with its context")
	})

	t.Run("the runtime restarts under its pods", func(t *testing.T) {
		before := run(t, n, "systemctl", "show", "--value", "--property=MainPID", node.UnitContainerd)
		require.NoError(t, n.RestartRuntime(ctx))
		require.NotEqual(t, before, run(t, n, "systemctl", "show", "--value", "--property=MainPID", node.UnitContainerd))
		again := running(t, n, client, "probe", 0)
		require.Equal(t, first.Status.ContainerStatuses[0].ContainerID, again.Status.ContainerStatuses[0].ContainerID)
	})

	t.Run("restart", func(t *testing.T) {
		require.NoError(t, os.MkdirAll(filepath.Join(n.Root(), "opt/kata"), 0o755))
		for _, file := range []string{"opt/kata/kept", "run/lost", "tmp/lost"} {
			require.NoError(t, os.WriteFile(filepath.Join(n.Root(), file), []byte("content"), 0o600))
		}
		root := n.Root()
		require.NoError(t, n.Restart(ctx))
		require.NotEqual(t, root, n.Root())
		content, err := os.ReadFile(filepath.Join(n.Root(), "opt/kata/kept"))
		require.NoError(t, err)
		require.Equal(t, "content", string(content))
		for _, file := range []string{"run/lost", "tmp/lost"} {
			require.NoFileExists(t, filepath.Join(n.Root(), file))
		}
		again := running(t, n, client, "probe", 1)
		require.Equal(t, first.UID, again.UID)
		require.NotEqual(t, first.Status.ContainerStatuses[0].ContainerID, again.Status.ContainerStatuses[0].ContainerID)
		require.Equal(t, "hello from the pod\n", logs(t, client, "probe"))
	})
}

// running waits until a pod runs, whose container was restarted so many times.
func running(t *testing.T, n *node.Node, client clientset.Interface, name string, restarts int32) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		var err error
		pod, err = client.CoreV1().Pods("default").Get(t.Context(), name, metav1.GetOptions{})
		require.NoError(t, err)
		statuses := pod.Status.ContainerStatuses
		if len(statuses) == 1 && statuses[0].State.Running != nil && statuses[0].RestartCount == restarts {
			return pod
		}
		if time.Now().After(deadline) {
			log, _ := n.Log(node.UnitKubelet)
			require.Fail(t, "the pod does not run", "%+v\n%s", pod.Status, log)
		}
	}
}

func logs(t *testing.T, client clientset.Interface, pod string) string {
	t.Helper()
	text, err := client.CoreV1().Pods("default").GetLogs(pod, &corev1.PodLogOptions{}).DoRaw(t.Context())
	require.NoError(t, err)
	return string(text)
}

func run(t *testing.T, n *node.Node, name string, args ...string) string {
	t.Helper()
	cmd := n.Command(t.Context(), name, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s %q: %s", name, args, stderr.String())
	return string(out)
}

// TestUnitThatFails breaks a unit, and wants its log in the error.
func TestUnitThatFails(t *testing.T) {
	o, err := node.FromRunfiles()
	require.NoError(t, err)
	o.Kubernetes = "/bin/false"
	_, err = node.Start(t.Context(), o)
	require.ErrorContains(t, err, "etcd.service did not stay up")
	require.ErrorContains(t, err, "--- etcd.service")
}

// TestKilled kills a program that has a node, and looks for what is left.
func TestKilled(t *testing.T) {
	before := lookAround(t, nil)
	temporary := t.TempDir()

	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"=1", "TMPDIR="+temporary)
	cmd.Dir = temporary
	cmd.Stderr = os.Stderr
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // when the test fails before it does that
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	fields := strings.Fields(line)
	require.Equal(t, "ready", fields[0], "the child says: %s", line)

	// All that there is of the node, found by its namespaces and relatives.
	one, err := strconv.Atoi(strings.Split(fields[1], "/")[2])
	require.NoError(t, err)
	traces := tracesOf(t, cmd.Process.Pid, one)
	during := lookAround(t, traces)
	require.GreaterOrEqual(t, len(during.processes), 10, "systemd, the daemons, keeper and watchdog: %q", during.processes)
	require.Greater(t, len(during.namespaces), 6, "%q", during.namespaces)
	require.NotEmpty(t, during.mounts)
	require.NotEmpty(t, during.cgroups)

	require.NoError(t, cmd.Process.Signal(syscall.SIGKILL))
	_, _ = io.Copy(io.Discard, stdout)
	_ = cmd.Wait()

	var after surroundings
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if after = lookAround(t, traces); len(after.processes)+len(after.cgroups) == 0 {
			break
		}
	}
	require.Empty(t, after.processes, "processes")
	require.Empty(t, after.namespaces, "namespaces")
	require.Empty(t, after.mounts, "mounts in any namespace")
	require.Empty(t, after.cgroups, "cgroups")
	require.Equal(t, before.ownMounts, after.ownMounts, "mounts here")
	require.Equal(t, before.otherCgroups, after.otherCgroups, "cgroups that are not named after a machine")
	require.Equal(t, before.interfaces, after.interfaces, "network interfaces")
	require.Equal(t, before.files, after.files, "files")
	require.Equal(t, before.settings, after.settings, "settings of the kernel")
	left, err := os.ReadDir(temporary)
	require.NoError(t, err)
	require.Empty(t, left, "files in the child's directories")
}

// traces are what a node can be known by from outside.
type traces struct {
	// cgroup is the beginning of its cgroups' names.
	cgroup string
	// namespaces are those that are not the test's.
	namespaces map[string]bool
	// device is the number of its root file system, as in mountinfo.
	device string
	// pids are its processes outside of its PID namespace.
	pids map[int]bool
}

func tracesOf(t *testing.T, child, one int) *traces {
	t.Helper()
	tr := &traces{cgroup: fmt.Sprintf("kiln-machine-%d-", child), namespaces: map[string]bool{}, pids: map[int]bool{child: true}}
	own := namespacesOf(os.Getpid())
	for _, pid := range pids(t) {
		// The keeper and the watchdog are children of the child.
		if pid == one || parent(pid) == child {
			if pid != one {
				tr.pids[pid] = true
			}
			for _, ns := range namespacesOf(pid) {
				tr.namespaces[ns] = true
			}
		}
	}
	for _, ns := range own {
		delete(tr.namespaces, ns)
	}
	info, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", one))
	require.NoError(t, err)
	for line := range strings.Lines(string(info)) {
		if fields := strings.Fields(line); fields[4] == "/" {
			tr.device = fields[2]
		}
	}
	require.NotEmpty(t, tr.device)
	return tr
}

type surroundings struct {
	// These four belong to a node.
	processes, namespaces, mounts, cgroups []string
	// These are here anyway.
	ownMounts, otherCgroups, interfaces, files []string
	settings                                   map[string]string
}

// lookAround lists what there is on this machine. Without traces, what belongs to a
// node is not looked for.
func lookAround(t *testing.T, tr *traces) surroundings {
	t.Helper()
	s := surroundings{settings: map[string]string{}}
	if tr != nil {
		for _, pid := range pids(t) {
			belongs := tr.pids[pid]
			for _, ns := range namespacesOf(pid) {
				if tr.namespaces[ns] {
					belongs = true
					s.namespaces = append(s.namespaces, ns)
				}
			}
			if belongs {
				name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
				s.processes = append(s.processes, fmt.Sprintf("%d %s", pid, strings.TrimSpace(string(name))))
			}
			info, _ := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid)) // it may have ended
			for line := range strings.Lines(string(info)) {
				fields := strings.Fields(line)
				pinned := false
				for ns := range tr.namespaces {
					pinned = pinned || strings.Contains(line, ns)
				}
				// Device numbers come again, for any other file system.
				if fields[2] == tr.device && strings.Contains(line, " - tmpfs kiln ") || pinned {
					s.mounts = append(s.mounts, line)
				}
			}
		}
		sort.Strings(s.namespaces)
		s.namespaces = uniq(s.namespaces)
	}
	info, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	s.ownMounts = strings.Split(string(info), "\n")

	hierarchies, err := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	require.NoError(t, err)
	hierarchies = append(hierarchies, "/sys/fs/cgroup/cgroup.procs")
	for _, h := range hierarchies {
		entries, err := os.ReadDir(filepath.Dir(h))
		require.NoError(t, err)
		for _, e := range entries {
			path := filepath.Join(filepath.Dir(h), e.Name())
			switch {
			case !e.IsDir():
			case tr != nil && strings.HasPrefix(e.Name(), tr.cgroup):
				s.cgroups = append(s.cgroups, path)
			case !strings.HasPrefix(e.Name(), "kiln-machine-"):
				s.otherCgroups = append(s.otherCgroups, path)
			}
		}
	}

	interfaces, err := net.Interfaces()
	require.NoError(t, err)
	for _, i := range interfaces {
		s.interfaces = append(s.interfaces, i.Name)
	}
	for _, dir := range []string{
		"/dev/net", "/dev/shm", "/etc/cni", "/etc/containerd", "/etc/kubernetes", "/etc/systemd/system", "/mnt", "/opt", "/run/containerd", "/run/kiln-failed",
		"/run/netns", "/run/systemd", "/usr/lib/kiln", "/var/lib/cni", "/var/lib/containerd", "/var/lib/etcd", "/var/lib/kubelet", "/var/log/pods",
	} {
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err == nil {
				s.files = append(s.files, path)
			}
			return nil
		})
		require.NoError(t, err)
	}
	for _, name := range []string{"kernel/panic", "kernel/panic_on_oops", "vm/overcommit_memory", "vm/panic_on_oom", "fs/file-max", "fs/nr_open", "net/ipv4/ip_forward"} {
		value, err := os.ReadFile("/proc/sys/" + name)
		require.NoError(t, err)
		s.settings[name] = string(value)
	}
	return s
}

func uniq(sorted []string) []string {
	var out []string
	for i, s := range sorted {
		if i == 0 || s != sorted[i-1] {
			out = append(out, s)
		}
	}
	return out
}

func pids(t *testing.T) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	require.NoError(t, err)
	var all []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			all = append(all, pid)
		}
	}
	return all
}

func parent(pid int) int {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // it may have ended
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "PPid:"); ok {
			ppid, _ := strconv.Atoi(strings.TrimSpace(value))
			return ppid
		}
	}
	return 0
}

// namespacesOf gives the namespaces of a process, such as "net:[4026531840]".
func namespacesOf(pid int) []string {
	var all []string
	for _, kind := range []string{"cgroup", "ipc", "mnt", "net", "pid", "uts"} {
		if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind)); err == nil {
			all = append(all, ns)
		}
	}
	return all
}
