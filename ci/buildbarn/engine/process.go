package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/kiln-build/kiln/ci/buildbarn/config"
	"github.com/kiln-build/kiln/ci/buildbarn/confine"
	"github.com/kiln-build/kiln/tools/atomicfile"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// running is an engine that runs.
type running struct {
	options Options

	mu      sync.Mutex
	pids    map[string]int
	ready   bool
	changed chan struct{}
}

// process is one that is kept running.
type process struct {
	name string
	// essential ones end the engine when they end. Others are started again.
	essential bool
	// patience is how long it may take to end when it is asked to.
	patience time.Duration
	command  func(context.Context) *exec.Cmd
}

// ActionLog names the process that takes note of what was executed.
const ActionLog = "actions"

func (e *running) storage(lock *os.File) process {
	return process{name: config.Storage, essential: true, patience: flushWait, command: func(ctx context.Context) *exec.Cmd {
		cmd := command(ctx, e.options.Programs.Storage, e.configuration(config.Storage))
		// The state stays locked until the last one that writes to it is gone,
		// also when this process is killed.
		cmd.ExtraFiles = []*os.File{lock}
		return cmd
	}}
}

func (e *running) scheduler() process {
	return process{name: config.Scheduler, essential: true, patience: stopWait, command: func(ctx context.Context) *exec.Cmd {
		return command(ctx, e.options.Programs.Scheduler, e.configuration(config.Scheduler))
	}}
}

func (e *running) worker(n int) process {
	name := config.Worker(n)
	return process{name: name, patience: stopWait, command: func(ctx context.Context) *exec.Cmd {
		return command(ctx, e.options.Programs.Worker, e.configuration(name))
	}}
}

func (e *running) runner(n int) process {
	name := config.Runner(n)
	return process{name: name, patience: stopWait, command: func(ctx context.Context) *exec.Cmd {
		return confine.Command(ctx, e.options.Programs.Runner, e.configuration(name))
	}}
}

func (e *running) actionLog() process {
	return process{name: ActionLog, patience: stopWait, command: func(ctx context.Context) *exec.Cmd {
		return command(ctx, e.options.Programs.ActionLog, "--file="+config.Executed, "--socket="+config.ActionsSocket)
	}}
}

func (e *running) configuration(name string) string {
	return configuration(e.options.State, name)
}

func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		// An interrupt from the terminal is for this process alone, which ends
		// the others in their order.
		Setsid:    true,
		Pdeathsig: syscall.SIGKILL,
	}
	return cmd
}

// A process that ends is started again after firstPause, then after twice as long
// and so on up to lastPause. One that ran for steady is trusted anew.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
	steady     = 10 * time.Second
)

// firstTries is how often a process may end before the engine was ever ready. One
// that ends more often will not come up, and has said why.
const firstTries = 3

// keep runs a process until the context ends, and starts it again when it ends by
// itself and is not essential.
func (e *running) keep(ctx context.Context, p process) error {
	// The kernel ties Pdeathsig to the thread that starts the process, not to
	// this process: the thread must live until the child is gone.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	log, err := os.Create(filepath.Join(e.options.State, "log", p.name))
	if err != nil {
		return exitcode.With(exitcode.LocalIO, fmt.Errorf("writing the log of %s: %w", p.name, err))
	}
	defer log.Close()
	pause := firstPause
	for try := 1; ; try++ {
		started := time.Now()
		err := e.run(ctx, p, log)
		if ctx.Err() != nil {
			return nil
		}
		if p.essential || (try == firstTries && !e.isReady()) {
			return p.ended(err, lastLine(log.Name()))
		}
		if time.Since(started) > steady {
			pause = firstPause
		}
		e.logf("%s ended (%v) and is started again; it said: %s", p.name, reason(err), lastLine(log.Name()))
		e.options.Sleep(ctx, pause)
		if ctx.Err() != nil {
			return nil
		}
		pause = min(2*pause, lastPause)
	}
}

// run runs a process once.
func (e *running) run(ctx context.Context, p process, log *os.File) error {
	cmd := p.command(ctx)
	// Paths in configurations are relative to the state.
	cmd.Dir = e.options.State
	// Buildbarn offers each variable to its configuration, and an action must
	// see none of this process.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = p.patience
	if err := cmd.Start(); err != nil {
		return err
	}
	e.setPID(p.name, cmd.Process.Pid)
	defer e.setPID(p.name, 0)
	return cmd.Wait()
}

func reason(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

// ended says why an essential process is gone.
func (p process) ended(err error, said string) error {
	switch {
	case strings.Contains(said, syscall.EADDRINUSE.Error()):
		return exitcode.With(exitcode.BadInput, &portTakenError{process: p.name, output: said})
	case strings.Contains(said, syscall.ENOSPC.Error()):
		return exitcode.With(exitcode.LocalIO, fmt.Errorf("%s ended: the disk is full: %s", p.name, said))
	}
	return exitcode.With(exitcode.Failed, fmt.Errorf("%s ended by itself (%s): %s", p.name, reason(err), said))
}

// lastLine gives the end of a process's log, in which it says why it ended.
func lastLine(name string) string {
	text, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}

func (e *running) logf(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	fmt.Fprintf(e.options.Log, format+"\n", args...)
}

func (e *running) setPID(name string, pid int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if pid == 0 {
		delete(e.pids, name)
	} else {
		e.pids[name] = pid
	}
	select {
	case e.changed <- struct{}{}:
	default:
	}
}

func (e *running) isReady() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ready
}

func (e *running) setReady() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ready = true
}

func (e *running) processes() map[string]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.pids)
}

// announce says that clients can be served, and keeps the file with the endpoints
// as it must be until the context ends.
func (e *running) announce(ctx context.Context, endpoints Endpoints) error {
	name := filepath.Join(e.options.State, Information)
	defer os.Remove(name)
	for told := false; ; {
		endpoints.PIDs = e.processes()
		if err := writeJSON(name, endpoints); err != nil {
			return exitcode.With(exitcode.LocalIO, fmt.Errorf("saying where the engine is: %w", err))
		}
		if !told && e.options.Ready != nil {
			e.options.Ready(endpoints)
		}
		told = true
		select {
		case <-e.changed:
		case <-ctx.Done():
			return nil
		}
	}
}

func writeJSON(name string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(name, append(text, '\n'), 0o600)
}

// ReadEndpoints reads what the engine in a state directory last said of itself.
func ReadEndpoints(state string) (Endpoints, error) {
	var e Endpoints
	text, err := os.ReadFile(filepath.Join(state, Information))
	if errors.Is(err, os.ErrNotExist) {
		return e, fmt.Errorf("no engine runs in %s: %w", state, err)
	} else if err != nil {
		return e, fmt.Errorf("reading where the engine is: %w", err)
	}
	if err := json.Unmarshal(text, &e); err != nil {
		return e, fmt.Errorf("reading where the engine is: %w", err)
	}
	return e, nil
}
