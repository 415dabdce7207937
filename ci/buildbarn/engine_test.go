//go:build bazel

// These tests run the real engine: Buildbarn's programs, on free ports.
package main_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bazelbuild/remote-apis-sdks/go/pkg/digest"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/kiln-build/kiln/ci/buildbarn/enginetest"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// roleVariable makes this program an action's, or a part of one.
const roleVariable = "KILN_ENGINE_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "":
		os.Exit(m.Run())
	case "outside":
		exit(isolate())
	case "inside":
		exit(lookAround())
	}
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func TestActionsRunAsInBazelsSandbox(t *testing.T) {
	e := enginetest.Start(t, enginetest.Options{})
	c := e.Client(t)
	response := e.Run(t, enginetest.Action{
		Script: `
			cat input > out/copy
			uname -n > out/host
			sed 1,2d /proc/self/net/dev | cut -d: -f1 | tr -d ' ' > out/networks
			if (echo changed > input) 2>/dev/null; then echo writable; else echo read-only; fi > out/access
			case $TMPDIR in "$PWD"*) ;; */tmp) touch "$TMPDIR/file" && echo own > out/tmp ;; esac
			echo said; echo complained >&2
			exit 3`,
		Inputs:  map[string]string{"input": "content\n"},
		Outputs: []string{"out/copy", "out/host", "out/networks", "out/access", "out/tmp"},
	})
	require.Equal(t, int32(3), response.Result.ExitCode)
	for name, want := range map[string]string{
		"out/copy":     "content\n",
		"out/host":     "localhost\n",
		"out/networks": "lo\n",
		"out/access":   "read-only\n",
		"out/tmp":      "own\n",
	} {
		require.Equal(t, want, enginetest.Output(t, c, response.Result, name), name)
	}
	stdout, _, err := c.ReadBlob(t.Context(), digest.NewFromProtoUnvalidated(response.Result.StdoutDigest))
	require.NoError(t, err)
	require.Equal(t, "said\n", string(stdout))

	var noted []enginetest.Execution
	require.Eventually(t, func() bool {
		noted = e.Executions(t)
		return len(noted) == 1
	}, 10*time.Second, 20*time.Millisecond, "what ran is not noted")
	require.Equal(t, 3, noted[0].ExitCode)
	require.Contains(t, noted[0].Worker, `"worker":"0"`)
	require.WithinRange(t, noted[0].End, noted[0].Start, time.Now())
}

// Component actions make namespaces of their own.
func TestActionsMayMakeNamespaces(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	e := enginetest.Start(t, enginetest.Options{})
	response := e.Run(t, enginetest.Action{
		Script:   "mkdir root && " + roleVariable + "=outside ./program > saw",
		Programs: map[string]string{"program": self},
		Outputs:  []string{"saw"},
	})
	c := e.Client(t)
	if d := response.Result.StderrDigest; d != nil {
		stderr, _, err := c.ReadBlob(t.Context(), digest.NewFromProtoUnvalidated(d))
		require.NoError(t, err)
		require.Empty(t, string(stderr))
	}
	require.Zero(t, response.Result.ExitCode)
	require.Equal(t, "process 1 of user 0, with /proc\n", enginetest.Output(t, c, response.Result, "saw"))
}

// isolate does what the sandbox of component actions does.
func isolate() error {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{roleVariable + "=inside"}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID |
			syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	return cmd.Run()
}

func lookAround() error {
	if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keeping mounts private: %w", err)
	}
	if err := syscall.Mount("root", "root", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mounting a tmpfs: %w", err)
	}
	if err := os.Mkdir("root/proc", 0o755); err != nil {
		return err
	}
	err := syscall.Mount("proc", "root/proc", "proc", 0, "")
	if errors.Is(err, syscall.EPERM) {
		err = syscall.Mount("/proc", "root/proc", "", syscall.MS_BIND|syscall.MS_REC, "")
	}
	if err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	if err := syscall.Chroot("root"); err != nil {
		return fmt.Errorf("changing the root: %w", err)
	}
	if _, err := os.Readlink("/proc/self/exe"); err != nil {
		return err
	}
	fmt.Printf("process %d of user %d, with /proc\n", os.Getpid(), os.Getuid())
	return nil
}

func TestRequestsInFlightAreMerged(t *testing.T) {
	const clients = 8
	e := enginetest.Start(t, enginetest.Options{Workers: 2, Concurrency: 2})
	uploader := e.Client(t)
	// What it prints is different each time, so equal results are one result.
	action, err := enginetest.Upload(t.Context(), uploader, enginetest.Action{
		Script: "sleep 2; date +%s%N > out", Outputs: []string{"out"},
	})
	require.NoError(t, err)
	outputs := make([]string, clients)
	var group errgroup.Group
	for i := range clients {
		c := e.Client(t)
		group.Go(func() error {
			response, err := enginetest.Execute(t.Context(), c, action, false)
			if err != nil {
				return err
			}
			outputs[i] = response.Result.OutputFiles[0].Digest.Hash
			return nil
		})
	}
	require.NoError(t, group.Wait())
	for _, output := range outputs {
		require.Equal(t, outputs[0], output)
	}
	require.Equal(t, 1, e.Counted(t, action))
}

func TestACompletedActionIsNotExecutedAgain(t *testing.T) {
	e := enginetest.Start(t, enginetest.Options{})
	c := e.Client(t)
	action, err := enginetest.Upload(t.Context(), c, enginetest.Action{Script: "date +%s%N > out", Outputs: []string{"out"}})
	require.NoError(t, err)

	first, err := enginetest.Execute(t.Context(), c, action, false)
	require.NoError(t, err)
	require.False(t, first.CachedResult)
	second, err := enginetest.Execute(t.Context(), c, action, false)
	require.NoError(t, err)
	require.True(t, second.CachedResult, "without a lookup of the client's own")
	require.Equal(t, first.Result.OutputFiles[0].Digest.Hash, second.Result.OutputFiles[0].Digest.Hash)
	require.Equal(t, 1, e.Counted(t, action))

	third, err := enginetest.Execute(t.Context(), c, action, true)
	require.NoError(t, err)
	require.False(t, third.CachedResult, "a client that asks for it has the action executed")
	require.NotEqual(t, first.Result.OutputFiles[0].Digest.Hash, third.Result.OutputFiles[0].Digest.Hash)
	require.Equal(t, 2, e.Counted(t, action))

	failing, err := enginetest.Upload(t.Context(), c, enginetest.Action{Script: "exit 1"})
	require.NoError(t, err)
	for range 2 {
		response, err := enginetest.Execute(t.Context(), c, failing, false)
		require.NoError(t, err)
		require.False(t, response.CachedResult, "a failure is no result")
	}
	require.Equal(t, 2, e.Counted(t, failing))
}

// Requests that come while an identical one is about to complete are neither
// merged too late nor looked up too early.
func TestNoMomentLeadsToASecondExecution(t *testing.T) {
	const (
		actions = 25
		clients = 4
	)
	e := enginetest.Start(t, enginetest.Options{Workers: 2, Concurrency: 2})
	uploader := e.Client(t)
	random := rand.New(rand.NewPCG(1, 2))
	var all []*repb.Digest
	for n := range actions {
		action, err := enginetest.Upload(t.Context(), uploader, enginetest.Action{
			Script: fmt.Sprintf(": %d; date +%%s%%N > out", n), Outputs: []string{"out"},
		})
		require.NoError(t, err)
		all = append(all, action)
	}
	// The first answer takes about as long as this scatters the requests.
	started := time.Now()
	_, err := enginetest.Execute(t.Context(), uploader, all[0], false)
	require.NoError(t, err)
	scatter := 2 * time.Since(started)
	for _, action := range all[1:] {
		var group errgroup.Group
		for range clients {
			pause := time.Duration(random.Int64N(int64(scatter)))
			group.Go(func() error {
				time.Sleep(pause)
				_, err := enginetest.Execute(t.Context(), uploader, action, false)
				return err
			})
		}
		require.NoError(t, group.Wait())
	}
	counts := e.Counts(t)
	for _, action := range all {
		require.Equal(t, 1, counts[action.Hash])
	}
}

func TestTheCacheSurvives(t *testing.T) {
	state := t.TempDir()
	action := enginetest.Action{Script: "date +%s%N > out", Outputs: []string{"out"}}
	e := enginetest.Start(t, enginetest.Options{State: state})
	first := e.Run(t, action)
	require.Len(t, e.Counts(t), 2, "this and the one that counts")
	require.Equal(t, exitcode.OK, e.Stop(t), e.Said())

	e = enginetest.Start(t, enginetest.Options{State: state})
	second := e.Run(t, action)
	require.True(t, second.CachedResult)
	require.Equal(t, enginetest.Output(t, e.Client(t), first.Result, "out"), enginetest.Output(t, e.Client(t), second.Result, "out"))
	require.Len(t, e.Counts(t), 3, "what was executed before is still known")

	// A kill loses what was stored in the last moments, and nothing else.
	e.Kill(t)
	e = enginetest.Start(t, enginetest.Options{State: state})
	require.True(t, e.Run(t, action).CachedResult)
}

func TestAKilledLauncherLeavesNothing(t *testing.T) {
	e := enginetest.Start(t, enginetest.Options{})
	c := e.Client(t)
	// Found in the arguments of all processes of the action.
	mark := "kiln-mark-" + filepath.Base(filepath.Dir(e.State)) + fmt.Sprint(os.Getpid())
	action, err := enginetest.Upload(t.Context(), c, enginetest.Action{
		Script: fmt.Sprintf("setsid sh -c 'sleep 600; : %[1]s' & sleep 600; : %[1]s", mark),
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = enginetest.Execute(ctx, c, action, false) // cut off
	}()
	require.Eventually(t, func() bool { return len(processes(t, mark)) >= 2 }, 20*time.Second, 20*time.Millisecond, "the action does not run")
	var children []string
	for name := range e.PIDs {
		children = append(children, fmt.Sprintf("/proc/%d", e.PID(t, name)))
	}
	require.Len(t, children, 5)

	e.Kill(t)
	require.Eventually(t, func() bool { return len(processes(t, mark)) == 0 }, 10*time.Second, 20*time.Millisecond, "processes of the action are left")
	for _, dir := range children {
		require.Eventually(t, func() bool { return gone(dir) }, 10*time.Second, 20*time.Millisecond, "%s is left", dir)
	}
	cancel()
	<-done
	// Nobody holds the directory or the ports.
	enginetest.Start(t, enginetest.Options{State: e.State, Port: 0})
}

// processes finds those whose arguments contain a text.
func processes(t *testing.T, text string) []string {
	t.Helper()
	var found []string
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, name := range files {
		line, err := os.ReadFile(name)
		if err == nil && strings.Contains(string(line), text) {
			found = append(found, name)
		}
	}
	return found
}

// gone says whether a process has ended, though its parent may not know yet.
func gone(dir string) bool {
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(rest, "Z") || strings.HasPrefix(rest, "X")
}

func TestProcessesAreMissed(t *testing.T) {
	e := enginetest.Start(t, enginetest.Options{})
	for _, name := range []string{"worker-0", "runner-0", "actions"} {
		e.KillProcess(t, name)
		e.PID(t, name)
		require.Contains(t, e.Said(), "buildbarn: "+name+" ended (signal: killed) and is started again")
	}
	require.Zero(t, e.Run(t, enginetest.Action{Script: "true"}).Result.ExitCode)

	e.KillProcess(t, "storage")
	require.Equal(t, exitcode.Failed, e.Wait(t))
	require.Contains(t, e.Said(), "buildbarn: error: storage ended by itself (signal: killed)")
}

// A worker that dies takes its action with it to the next one.
func TestAWorkerDiesInAnAction(t *testing.T) {
	e := enginetest.Start(t, enginetest.Options{})
	c := e.Client(t)
	action, err := enginetest.Upload(t.Context(), c, enginetest.Action{Script: "sleep 3; echo survived > out", Outputs: []string{"out"}})
	require.NoError(t, err)
	responses := make(chan *repb.ExecuteResponse, 1)
	errs := make(chan error, 1)
	go func() {
		response, err := enginetest.Execute(t.Context(), c, action, false)
		responses <- response
		errs <- err
	}()
	build := filepath.Join(e.State, "worker-0", "build")
	require.Eventually(t, func() bool {
		entries, err := os.ReadDir(build)
		return err == nil && len(entries) > 0
	}, 20*time.Second, 20*time.Millisecond, "the action does not start")
	e.KillProcess(t, "worker-0")
	require.NoError(t, <-errs)
	require.Equal(t, "survived\n", enginetest.Output(t, c, (<-responses).Result, "out"))
}

func TestWhatIsInTheWay(t *testing.T) {
	e := enginetest.Start(t, enginetest.Options{})
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for name, tc := range map[string]struct {
		options enginetest.Options
		args    []string
		code    int
		says    string
	}{
		"an engine":   {enginetest.Options{State: e.State}, nil, exitcode.BadInput, "another engine runs in " + e.State + ": stop it, or choose another directory with --state"},
		"a port":      {enginetest.Options{Port: taken.Addr().(*net.TCPAddr).Port}, nil, exitcode.BadInput, "the port for clients cannot be had: listen tcp " + taken.Addr().String() + ": bind: address already in use: choose another one with --port"},
		"a file":      {enginetest.Options{State: filepath.Join(file, "state")}, nil, exitcode.LocalIO, "making the state directory: mkdir " + file + ": not a directory"},
		"the disk":    {enginetest.Options{Size: 1 << 60}, nil, exitcode.LocalIO, "has no space for a cache"},
		"a size":      {enginetest.Options{Size: 1 << 20}, nil, exitcode.BadInput, "is too small for a cache"},
		"a wish":      {enginetest.Options{}, []string{"--colour=red"}, exitcode.BadInput, "unknown flag: --colour"},
		"a word":      {enginetest.Options{}, []string{"please"}, exitcode.BadInput, `"please": only flags are taken`},
		"an unknown":  {enginetest.Options{}, []string{"--output=yaml"}, exitcode.BadInput, `--output=yaml: give "text" or "json"`},
		"no programs": {enginetest.Options{}, []string{"--programs=" + t.TempDir()}, exitcode.BadInput, "finding Buildbarn's programs"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := enginetest.Launch(t, tc.options, tc.args...).CombinedOutput()
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit, "%s", out)
			require.Equal(t, tc.code, exit.ExitCode(), "%s", out)
			require.Contains(t, string(out), "buildbarn: error: ")
			require.Contains(t, string(out), tc.says)
			require.Equal(t, 1, strings.Count(string(out), "\n"), "one line: %s", out)
		})
	}
	require.Zero(t, e.Run(t, enginetest.Action{Script: "true"}).Result.ExitCode, "the first engine is as it was")
}
