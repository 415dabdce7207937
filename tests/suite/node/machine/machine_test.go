//go:build bazel

package machine

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/bazelbuild/rules_go/go/runfiles"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/kiln-build/kiln/tools/exitcode"
)

func TestMain(m *testing.M) {
	IfChild()
	os.Exit(m.Run())
}

func options(t *testing.T) Options {
	t.Helper()
	archive, err := runfiles.Rlocation(os.Getenv("KILN_NODE_ROOT"))
	require.NoError(t, err)
	return Options{
		Archive:  archive,
		Hostname: "test",
		Address:  "192.0.2.1/24",
		// It waits for signals, and there is no init system to wait for.
		Init: []string{"/usr/bin/sleep", "infinity"},
		Env:  []string{"PATH=/usr/sbin:/usr/bin", "MARK=set"},
	}
}

func output(t *testing.T, m *Machine, name string, args ...string) string {
	t.Helper()
	out, err := m.Command(t.Context(), name, args...).CombinedOutput()
	require.NoError(t, err, string(out))
	return strings.TrimSpace(string(out))
}

func TestMachine(t *testing.T) {
	o := options(t)
	shown := filepath.Join(t.TempDir(), "shown")
	require.NoError(t, os.WriteFile(shown, []byte("of the test\n"), 0o600))
	o.Binds = map[string]string{"/usr/share/shown": shown}
	o.Files = []File{{Path: "/etc/made", Mode: 0o640, Content: []byte("made\n")}}
	o.Links = map[string]string{"/usr/bin/linked": "sleep"}
	o.Sysctls = map[string]string{"kernel/panic": "4242"}
	m, err := Start(t.Context(), o)
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()

	require.Equal(t, "of the test", output(t, m, "cat", "/usr/share/shown"))
	require.Error(t, m.Command(t.Context(), "sh", "-c", "echo x >/usr/share/shown").Run(), "binds are read-only")
	require.Equal(t, "640 made", output(t, m, "sh", "-c", "stat -c %a /etc/made | tr '\\n' ' '; cat /etc/made"))
	require.Equal(t, "sleep", output(t, m, "readlink", "/usr/bin/linked"))
	require.Equal(t, "set", output(t, m, "sh", "-c", "echo $MARK"))
	require.Equal(t, "4242", output(t, m, "cat", "/proc/sys/kernel/panic"))
	require.Error(t, m.Command(t.Context(), "sh", "-c", "echo 1 >/proc/sys/vm/swappiness").Run(), "the kernel is not the machine's")
	require.Equal(t, "1", output(t, m, "cat", "/proc/sys/net/ipv4/ip_forward"))
	require.Equal(t, "sleep", output(t, m, "cat", "/proc/1/comm"))
	require.Contains(t, output(t, m, "ip", "-br", "address"), "192.0.2.1/24")
	for line := range strings.Lines(output(t, m, "cat", "/proc/1/cgroup")) {
		require.Equal(t, "/", strings.TrimSpace(strings.SplitN(line, ":", 3)[2]))
	}

	listener, err := m.Listen(t.Context(), "192.0.2.1:0")
	require.NoError(t, err)
	defer func() { _ = listener.Close() }()
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			_, _ = conn.Write([]byte("answer"))
			_ = conn.Close()
		}
	}()
	conn, err := m.Dial(t.Context(), "tcp", listener.Addr().String())
	require.NoError(t, err)
	answer := make([]byte, 6)
	_, err = conn.Read(answer)
	require.NoError(t, err)
	require.Equal(t, "answer", string(answer))
	require.NoError(t, conn.Close())
	_, err = net.DialTimeout("tcp", listener.Addr().String(), 100*time.Millisecond)
	require.Error(t, err, "from outside there is no way")
	_, err = m.Dial(t.Context(), "tcp", "test:1")
	require.ErrorContains(t, err, "only numeric addresses")
}

func TestErrors(t *testing.T) {
	o := options(t)
	o.Archive = filepath.Join(t.TempDir(), "missing.tar")
	_, err := Start(t.Context(), o)
	require.ErrorContains(t, err, "making the root file system: open")
	require.Equal(t, exitcode.BadInput, exitcode.Of(err))

	o = options(t)
	o.Init = []string{"/usr/bin/missing"}
	_, err = Start(t.Context(), o)
	require.ErrorContains(t, err, "starting process 1: executing /usr/bin/missing: no such file or directory")

	o = options(t)
	o.Address = "nonsense"
	_, err = Start(t.Context(), o)
	require.ErrorContains(t, err, `rather than "nonsense"`)
}

func TestProcess1Ends(t *testing.T) {
	o := options(t)
	o.Init = []string{"/usr/bin/sh", "-c", "echo last words; exit 3"}
	m, err := Start(t.Context(), o)
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	select {
	case <-m.Ended():
	case <-time.After(10 * time.Second):
		require.Fail(t, "nobody noticed")
	}
	require.ErrorContains(t, m.Err(), "process 1 of the machine ended: exit status 3")
	require.ErrorContains(t, m.Err(), "last words")
	require.Error(t, m.Restart(t.Context()))
}

// cgroupsOf gives what there is of a machine, and the processes in it, seen from a
// mount of the test's own.
func cgroupsOf(t *testing.T, name string) map[string][]int {
	t.Helper()
	found := map[string][]int{}
	result := make(chan error)
	go func() {
		// Mounts are the thread's alone, which ends with this.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			result <- err
			return
		}
		all, err := mountOuter("/sys")
		for _, h := range all {
			paths, _ := filepath.Glob(filepath.Join("/sys", h.directory(), name))
			for _, path := range paths {
				pids, e := processes(path)
				found[path] = pids
				err = errors.Join(err, e)
			}
		}
		result <- err
	}()
	require.NoError(t, <-result)
	return found
}

// TestSweep kills a machine's watchdog, so that the cgroups stay, and wants them
// removed by the next machine, but not those of a machine that runs.
func TestSweep(t *testing.T) {
	running, err := Start(t.Context(), options(t))
	require.NoError(t, err)
	defer func() { require.NoError(t, running.Close()) }()

	abandoned, err := Start(t.Context(), options(t))
	require.NoError(t, err)
	require.NoError(t, abandoned.watchdog.process.Kill())
	abandoned.watchdog.wait()
	require.NoError(t, abandoned.Close())
	require.NotEmpty(t, cgroupsOf(t, cgroupPrefix+abandoned.id))
	// Without a watchdog nobody waits for the machine's processes to be gone.
	require.Eventually(t, func() bool {
		for _, pids := range cgroupsOf(t, cgroupPrefix+abandoned.id) {
			if len(pids) > 0 {
				return false
			}
		}
		return true
	}, time.Minute, 20*time.Millisecond)

	next, err := Start(t.Context(), options(t))
	require.NoError(t, err)
	require.Empty(t, cgroupsOf(t, cgroupPrefix+abandoned.id))
	require.NotEmpty(t, cgroupsOf(t, cgroupPrefix+running.id))
	require.NotEmpty(t, cgroupsOf(t, cgroupPrefix+next.id))
	require.NoError(t, next.Close())
	require.Empty(t, cgroupsOf(t, cgroupPrefix+next.id))
	require.Equal(t, "test", output(t, running, "cat", "/proc/sys/kernel/hostname"))
}

func TestRestart(t *testing.T) {
	m, err := Start(t.Context(), options(t))
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	listener, err := m.Listen(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = listener.Close() }()
	require.Equal(t, "", output(t, m, "sh", "-c", "touch /opt/kept /run/lost /run/lock/lost /tmp/lost; (sleep 4242 >/dev/null 2>&1 &)"))
	first := m.PID()
	require.NoError(t, m.Restart(t.Context()))
	require.NotEqual(t, first, m.PID())
	require.Equal(t, "/opt/kept\n/run/lock", output(t, m, "sh", "-c", "ls -d /opt/* /run/* /run/lock/* /tmp/* 2>/dev/null || true"))
	require.NotContains(t, output(t, m, "ps", "-e", "-o", "args"), "4242")
	conn, err := m.Dial(t.Context(), "tcp", listener.Addr().String())
	require.NoError(t, err, "the network is the same")
	require.NoError(t, conn.Close())

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, m.Restart(ctx), context.Canceled)
}

func TestParseHierarchies(t *testing.T) {
	for _, c := range []struct {
		text string
		want []hierarchy
		err  string
	}{
		{"0::/user.slice\n", []hierarchy{{""}}, ""},
		{"4:cpu,cpuacct:/a:b\n1:name=systemd:/\n0::/\n", []hierarchy{{"cpu,cpuacct"}, {"name=systemd"}, {""}}, ""},
		{"", nil, "there are none"},
		{"nonsense\n", nil, `"nonsense\n" is not a hierarchy`},
	} {
		got, err := parseHierarchies(c.text)
		if c.err != "" {
			require.ErrorContains(t, err, c.err)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, c.want, got)
	}
	require.Equal(t, "systemd", hierarchy{"name=systemd"}.directory())
	require.Equal(t, "cpu,cpuacct", hierarchy{"cpu,cpuacct"}.directory())
	require.Equal(t, "unified", hierarchy{""}.directory())
}
