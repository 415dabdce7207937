package sandbox_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/component/probe"
	"github.com/kiln-build/kiln/tools/component/sandbox"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func TestMain(m *testing.M) {
	sandbox.IfChild()
	probe.IfShell()
	os.Exit(m.Run())
}

// command prepares a root in which the probe runs a script.
func command(t *testing.T, script string) sandbox.Command {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"dev", "proc", "job", "etc"} {
		require.NoError(t, os.Mkdir(filepath.Join(root, dir), 0o755))
	}
	require.NoError(t, probe.Install(root))
	require.NoError(t, os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("of the root"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(root, "script"), []byte(script), 0o644))
	out, err := os.Create(filepath.Join(t.TempDir(), "output"))
	require.NoError(t, err)
	t.Cleanup(func() { out.Close() })
	return sandbox.Command{
		Root:     root,
		Hostname: "kiln",
		Argv:     []string{"/" + probe.Shell, "/script"},
		Env:      []string{"ONLY=this"},
		Dir:      "/job",
		Output:   out,
	}
}

func output(t *testing.T, c sandbox.Command) string {
	t.Helper()
	_, err := c.Output.Seek(0, io.SeekStart)
	require.NoError(t, err)
	text, err := io.ReadAll(c.Output)
	require.NoError(t, err)
	return string(text)
}

func run(t *testing.T, c sandbox.Command) string {
	t.Helper()
	err := sandbox.Run(context.Background(), c)
	text := output(t, c)
	require.NoError(t, err, text)
	return text
}

func TestWhatACommandSees(t *testing.T) {
	t.Setenv("SECRET", "of the machine")
	require.Equal(t, `ONLY=this
hostname kiln
directory /job
user 0 0
read /etc/passwd: of the root
append /job/new: done
others 0
`, run(t, command(t, `
environment
hostname
directory
user
read /etc/passwd
append /job/new x
others
`)))
}

func TestMachineIsOutOfReach(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(outside, []byte("secret"), 0o644))
	// An inherited directory would be a way out.
	dir, err := os.Open(filepath.Dir(outside))
	require.NoError(t, err)
	defer dir.Close()

	c := command(t, "read "+outside+"\nread /../../../../"+outside+"\ntree\n")
	text := run(t, c)
	require.Contains(t, text, "read "+outside+": error: no such file or directory")
	require.NotContains(t, text, "secret\n"+"secret")
	require.NotContains(t, text, ": secret")
	for line := range strings.Lines(text) {
		p, isPath := strings.CutPrefix(strings.TrimSpace(line), "path ")
		if !isPath || p == "/dev" || strings.HasPrefix(p, "/dev/") {
			continue
		}
		_, err := os.Lstat(filepath.Join(c.Root, p))
		require.NoError(t, err, "%s is seen, but not in the root", p)
	}
	require.Contains(t, text, "path /dev/null\n")
	require.Contains(t, text, "path /script\n")
}

func TestNetworkIsOutOfReach(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	address := l.Addr().String()

	// The listener does answer, to those who reach it.
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	require.NoError(t, err)
	conn.Close()

	text := run(t, command(t, "connect "+address+"\nconnect 192.0.2.1:80\nconnect [2001:db8::1]:80\ninterfaces\n"))
	require.Contains(t, text, "connect "+address+": error: network is unreachable")
	require.Contains(t, text, "connect 192.0.2.1:80: error: network is unreachable")
	require.NotContains(t, text, "connected")
	require.Equal(t, 1, strings.Count(text, "interface "), text)
	require.Contains(t, text, "interface lo loopback\n")
}

func TestBindsAreReadOnly(t *testing.T) {
	real := filepath.Join(t.TempDir(), "input")
	require.NoError(t, os.WriteFile(real, []byte("as declared"), 0o666))
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(real, link))
	c := command(t, "read /job/input\nappend /job/input x\n")
	require.NoError(t, os.WriteFile(filepath.Join(c.Root, "job/input"), nil, 0o644))
	c.Binds = []sandbox.Bind{{Source: link, Target: "/job/input"}}
	require.Equal(t, "read /job/input: as declared\nappend /job/input: error: read-only file system\n", run(t, c))
	text, err := os.ReadFile(real)
	require.NoError(t, err)
	require.Equal(t, "as declared", string(text))
}

func TestExitStatus(t *testing.T) {
	c := command(t, "print before\nexit 7\nprint after\n")
	err := sandbox.Run(context.Background(), c)
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 7, exit.ExitCode())
	require.Equal(t, "before\n", output(t, c))
}

func TestCancelledBeforeItStarts(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	cause := errors.New("enough")
	cancel(cause)
	c := command(t, "print never\n")
	require.Equal(t, cause, sandbox.Run(ctx, c))
	require.Empty(t, output(t, c))
}

func TestNothingOutlivesIt(t *testing.T) {
	for name, script := range map[string]string{
		"a cancelled command": "background sleep\nprint ready\nsleep\n",
		"a finished command":  "background sleep\nprint ready\n",
	} {
		t.Run(name, func(t *testing.T) {
			c := command(t, script)
			ctx, cancel := context.WithCancelCause(context.Background())
			defer cancel(nil)
			cause := errors.New("enough")
			if strings.HasSuffix(script, "sleep\n") {
				go func() {
					for ctx.Err() == nil {
						if text, err := os.ReadFile(c.Output.Name()); err == nil && strings.Contains(string(text), "ready") {
							cancel(cause)
						}
						time.Sleep(5 * time.Millisecond)
					}
				}()
				require.ErrorIs(t, sandbox.Run(ctx, c), cause)
			} else {
				require.NoError(t, sandbox.Run(ctx, c))
			}
			// Any process that is left has the root's shell as its program.
			shell, err := os.Stat(filepath.Join(c.Root, probe.Shell))
			require.NoError(t, err)
			programs, err := filepath.Glob("/proc/[0-9]*/exe")
			require.NoError(t, err)
			for _, p := range programs {
				if info, err := os.Stat(p); err == nil {
					require.False(t, os.SameFile(shell, info), "%s is still running", p)
				}
			}
		})
	}
}

func TestCannotBeSetUp(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*sandbox.Command)
		want   string
	}{
		"no such program":        {func(c *sandbox.Command) { c.Argv[0] = "/bin/nothing" }, "starting /bin/nothing /script in the root: no such file or directory"},
		"no working directory":   {func(c *sandbox.Command) { c.Dir = "/nowhere" }, "entering the working directory"},
		"no place for a bind":    {func(c *sandbox.Command) { c.Binds = []sandbox.Bind{{Source: "/dev/null", Target: "/nowhere"}} }, "/nowhere: no such file or directory"},
		"no source of a bind":    {func(c *sandbox.Command) { c.Binds = []sandbox.Bind{{Source: "/nowhere/x", Target: "/job"}} }, "finding /nowhere/x"},
		"a target that climbs":   {func(c *sandbox.Command) { c.Binds = []sandbox.Bind{{Source: "/dev/null", Target: "/../x"}} }, `"/../x" is not a clean absolute path`},
		"no root":                {func(c *sandbox.Command) { c.Root = "/nowhere" }, "finding the root"},
		"a root without /proc":   {func(c *sandbox.Command) { os.Remove(filepath.Join(c.Root, "proc")) }, "/proc: no such file or directory"},
		"a root without devices": {func(c *sandbox.Command) { os.Remove(filepath.Join(c.Root, "dev")) }, "/dev: no such file or directory"},
	} {
		t.Run(name, func(t *testing.T) {
			c := command(t, "print never\n")
			tc.change(&c)
			err := sandbox.Run(context.Background(), c)
			require.ErrorContains(t, err, tc.want)
			require.NotEqual(t, exitcode.OK, exitcode.Of(err))
			require.Empty(t, output(t, c))
		})
	}
}
