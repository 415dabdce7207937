// Package enginetest starts a real engine (see package engine) from a test, and
// does to it what may happen to one: processes that are killed, files that are
// damaged. The engine listens on free ports of loopback, keeps everything in a
// temporary directory, and is gone when the test is, also when that is killed.
package enginetest

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bazelbuild/rules_go/go/runfiles"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/ci/buildbarn/config"
	"github.com/kiln-build/kiln/ci/buildbarn/engine"
	"github.com/kiln-build/kiln/ci/buildbarn/launcher"
)

const (
	// LauncherVariable names the program //ci/buildbarn, as a runfile or an
	// absolute path. A test has it in its data.
	LauncherVariable = "KILN_BUILDBARN"
	// ProgramsVariable may name the directory of Buildbarn's programs, for a
	// launcher that was built without Bazel.
	ProgramsVariable = "KILN_BUILDBARN_PROGRAMS"
)

// Options change what an engine is started with. What is not set gets a value that
// suits a small test.
type Options struct {
	// State is the state directory; by default one that goes with the test.
	// Its engine.Endpoints say where what is.
	State string
	// Size is the bound of what is stored, in bytes.
	Size int64
	// Workers and Concurrency are numbers of worker processes and of actions
	// that each of them runs at the same time.
	Workers, Concurrency int
	// Port is the one for clients; by default a free one. A test that stops an
	// engine and wants clients to find the next one gives it the first one's.
	Port int
	// Prepare, if it is not nil, changes the command that starts the launcher,
	// for example to run it somewhere else.
	Prepare func(*exec.Cmd)
}

// An Engine is one that runs.
type Engine struct{ *launcher.Process }

// Launch gives the command that starts an engine, for tests that expect it to fail.
func Launch(t testing.TB, o Options, args ...string) *exec.Cmd {
	t.Helper()
	program := os.Getenv(LauncherVariable)
	if !filepath.IsAbs(program) {
		var err error
		program, err = runfiles.Rlocation(program)
		require.NoError(t, err, "the test's BUILD file must name the launcher in %s", LauncherVariable)
	}
	if o.State == "" {
		o.State = t.TempDir()
	}
	if o.Size == 0 {
		o.Size = 1 << 30
	}
	if o.Workers == 0 {
		o.Workers = 1
	}
	if o.Concurrency == 0 {
		o.Concurrency = 2
	}
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	line := []string{
		"--output=json", "--state=" + o.State, "--size=" + number(o.Size), "--port=" + number(int64(o.Port)),
		"--workers=" + number(int64(o.Workers)), "--concurrency=" + number(int64(o.Concurrency)),
	}
	if programs := os.Getenv(ProgramsVariable); programs != "" {
		line = append(line, "--programs="+programs)
	}
	cmd := exec.Command(program, append(line, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if o.Prepare != nil {
		o.Prepare(cmd)
	}
	return cmd
}

// Start starts an engine and waits until it is ready. It ends with the test.
func Start(t testing.TB, o Options, args ...string) *Engine {
	t.Helper()
	p, err := launcher.Start(Launch(t, o, args...))
	require.NotNil(t, p, "%v", err)
	e := &Engine{p}
	t.Cleanup(func() {
		e.Stop(t)
		if t.Failed() {
			t.Logf("what the engine said:\n%s", e.Said())
			e.logs(t)
		}
	})
	require.NoError(t, err)
	return e
}

// Address is what the frontend listens on, as host:port.
func (e *Engine) Address() string { return strings.TrimPrefix(e.Frontend, "grpc://") }

// Port is the frontend's.
func (e *Engine) Port(t testing.TB) int {
	t.Helper()
	_, port, err := net.SplitHostPort(e.Address())
	require.NoError(t, err)
	n, err := strconv.Atoi(port)
	require.NoError(t, err)
	return n
}

// Stop ends the engine as Ctrl-C does, if it still runs, and gives the launcher's
// exit code.
func (e *Engine) Stop(t testing.TB) int {
	t.Helper()
	select {
	case <-e.Ended():
	default:
		_ = e.Launcher.Signal(syscall.SIGTERM) // it may just have ended
	}
	return e.Wait(t)
}

// Wait waits for the launcher to end, and gives its exit code.
func (e *Engine) Wait(t testing.TB) int {
	t.Helper()
	select {
	case <-e.Ended():
	case <-time.After(time.Minute):
		_ = e.Launcher.Kill()
		<-e.Ended()
		t.Errorf("the engine did not end: %s", e.Said())
	}
	return e.ExitCode()
}

// Kill kills the launcher, and with it everything.
func (e *Engine) Kill(t testing.TB) {
	t.Helper()
	require.NoError(t, e.Launcher.Kill())
	e.Wait(t)
}

// PID is the process that has a name now (see engine.Endpoints), which it may have
// only in a moment.
func (e *Engine) PID(t testing.TB, name string) int {
	t.Helper()
	var pid int
	require.Eventually(t, func() bool {
		now, err := engine.ReadEndpoints(e.State)
		pid = now.PIDs[name]
		return err == nil && pid != 0
	}, 30*time.Second, 20*time.Millisecond, "there is no process %s: %s", name, e.Said())
	return pid
}

// KillProcess kills the process of a name, and waits until the engine knows.
func (e *Engine) KillProcess(t testing.TB, name string) {
	t.Helper()
	pid := e.PID(t, name)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	require.Eventually(t, func() bool {
		now, err := engine.ReadEndpoints(e.State)
		return err != nil || now.PIDs[name] != pid
	}, 30*time.Second, 10*time.Millisecond, "%s was not missed", name)
}

// Blocks are the files in which storage keeps the blobs and the results of actions,
// for tests that damage them.
func (e *Engine) Blocks() (contents, results string) {
	dir := filepath.Join(e.State, config.StorageDirectory)
	return filepath.Join(dir, "cas", "blocks"), filepath.Join(dir, "ac", "blocks")
}

// logs shows the end of what the processes wrote.
func (e *Engine) logs(t testing.TB) {
	files, err := filepath.Glob(filepath.Join(e.State, "log", "*"))
	require.NoError(t, err)
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err == nil && len(text) > 0 {
			t.Logf("%s:\n%s", filepath.Base(name), text[max(0, len(text)-4000):])
		}
	}
}
