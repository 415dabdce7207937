// Package engine starts the cache and execution service //ci/buildbarn for a
// benchmark.
package engine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/bazelbuild/rules_go/go/runfiles"

	"github.com/kiln-build/kiln/ci/buildbarn/launcher"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// Engine is one that runs.
type Engine struct{ *launcher.Process }

// Start starts an engine with all of its state in a folder, and waits until it is
// ready. Without workers it is a cache alone.
func Start(state string, workers int) (*Engine, error) {
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
	// An interrupt from the terminal is for the benchmark, which stops the engine
	// after its clients.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p, err := launcher.Start(cmd)
	if p == nil {
		return nil, err
	}
	e := &Engine{p}
	if err != nil {
		return nil, errors.Join(err, e.Stop())
	}
	return e, nil
}

// Address is where clients connect, host:port.
func (e *Engine) Address() string { return strings.TrimPrefix(e.Frontend, "grpc://") }

// Stop ends the engine as an interrupt does.
func (e *Engine) Stop() error {
	_ = e.Launcher.Signal(os.Interrupt) // it may have ended by itself, as its exit code says
	<-e.Ended()
	if e.ExitCode() != exitcode.OK {
		return fmt.Errorf("the engine ended with exit code %d: %s", e.ExitCode(), e.Said())
	}
	return nil
}
