// Package engine starts the cache and execution service //ci/buildbarn for a
// benchmark, as a process that does not outlive it.
package engine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"github.com/bazelbuild/rules_go/go/runfiles"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// Engine is one that runs.
type Engine struct {
	// Address is where clients connect, host:port.
	Address string
	// Executed is the file in which its workers note what they execute.
	Executed string

	process *os.Process
	ended   chan error
	said    *bytes.Buffer
}

// Start starts an engine with all of its state in a folder, and waits until it is
// ready. Without workers it is a cache alone.
func Start(ctx context.Context, state string, workers int) (*Engine, error) {
	program, err := runfiles.Rlocation("_main/ci/buildbarn/buildbarn_/buildbarn")
	if err != nil {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("finding the engine: %w: start this with `bazel run`", err))
	}
	variables, err := runfiles.Env()
	if err != nil {
		return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("finding the engine's files: %w", err))
	}
	cmd := exec.Command(program, "--state="+state, "--port=0", "--output=json", fmt.Sprintf("--workers=%d", workers))
	cmd.Env = append(os.Environ(), variables...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	e := &Engine{ended: make(chan error, 1), said: &bytes.Buffer{}}
	cmd.Stderr = e.said
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("starting the engine: %w", err)
	}
	started, ready := make(chan error), make(chan []byte, 1)
	go func() {
		// The process is killed when the thread that starts it ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		line, _ := bufio.NewReader(stdout).ReadBytes('\n') // what is missing shows below
		ready <- line
		_, _ = io.Copy(io.Discard, stdout)
		e.ended <- cmd.Wait()
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting the engine: %w", err)
	}
	e.process = cmd.Process
	select {
	case <-ctx.Done():
		return nil, errors.Join(context.Cause(ctx), e.Stop())
	case line := <-ready:
		var at struct{ Frontend, Executed string }
		if err := json.Unmarshal(line, &at); err != nil {
			return nil, errors.Join(fmt.Errorf("the engine did not become ready: %s", e.said), e.Stop())
		}
		e.Address, e.Executed = strings.TrimPrefix(at.Frontend, "grpc://"), at.Executed
	}
	return e, nil
}

// Stop ends the engine as an interrupt does.
func (e *Engine) Stop() error {
	_ = e.process.Signal(os.Interrupt) // it may have ended by itself, which Wait says
	if err := <-e.ended; err != nil {
		return fmt.Errorf("the engine: %w: %s", err, e.said)
	}
	return nil
}
