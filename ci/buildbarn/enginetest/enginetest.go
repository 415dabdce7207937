// Package enginetest starts a real engine (see package engine) from a test, and
// does to it what may happen to one: processes that are killed, files that are
// damaged. The engine listens on free ports of loopback, keeps everything in a
// temporary directory, and is gone when the test is, also when that is killed.
package enginetest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bazelbuild/rules_go/go/runfiles"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/ci/buildbarn/config"
	"github.com/kiln-build/kiln/ci/buildbarn/engine"
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
type Engine struct {
	// Endpoints are those of the time when it was ready.
	engine.Endpoints
	// Launcher is the process that holds the others.
	Launcher *os.Process

	ended  chan struct{}
	code   int
	stderr *buffer
}

// Launch gives the command that starts an engine, for tests that expect it to fail.
func Launch(t testing.TB, o Options, args ...string) *exec.Cmd {
	t.Helper()
	launcher := os.Getenv(LauncherVariable)
	if !filepath.IsAbs(launcher) {
		var err error
		launcher, err = runfiles.Rlocation(launcher)
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
	cmd := exec.Command(launcher, append(line, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if o.Prepare != nil {
		o.Prepare(cmd)
	}
	return cmd
}

// Start starts an engine and waits until it is ready. It ends with the test.
func Start(t testing.TB, o Options, args ...string) *Engine {
	t.Helper()
	cmd := Launch(t, o, args...)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	e := &Engine{ended: make(chan struct{}), stderr: &buffer{}}
	cmd.Stderr = e.stderr

	started := make(chan error)
	ready := make(chan []byte, 1)
	go func() {
		// The launcher is killed when the thread that starts it ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		line, _ := bufio.NewReader(stdout).ReadBytes('\n')
		ready <- line
		_ = cmd.Wait() // the exit code says it
		e.code = cmd.ProcessState.ExitCode()
		close(e.ended)
	}()
	require.NoError(t, <-started)
	e.Launcher = cmd.Process
	t.Cleanup(func() {
		e.Stop(t)
		if t.Failed() {
			t.Logf("what the engine said:\n%s", e.stderr)
			e.logs(t)
		}
	})
	line := <-ready
	require.NotEmpty(t, line, "the engine did not become ready: %s", e.stderr)
	require.NoError(t, json.Unmarshal(line, &e.Endpoints))
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
	case <-e.ended:
	default:
		_ = e.Launcher.Signal(syscall.SIGTERM) // it may just have ended
	}
	return e.Wait(t)
}

// Wait waits for the launcher to end, and gives its exit code.
func (e *Engine) Wait(t testing.TB) int {
	t.Helper()
	select {
	case <-e.ended:
	case <-time.After(time.Minute):
		_ = e.Launcher.Kill()
		<-e.ended
		t.Errorf("the engine did not end: %s", e.stderr)
	}
	return e.code
}

// Said is what the launcher has written to standard error.
func (e *Engine) Said() string { return e.stderr.String() }

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
	}, 30*time.Second, 20*time.Millisecond, "there is no process %s: %s", name, e.stderr)
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

// buffer may be read while it is written to.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
