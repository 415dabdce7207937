// Package launcher starts the program //ci/buildbarn for another program, which it
// does not outlive.
package launcher

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"github.com/kiln-build/kiln/ci/buildbarn/engine"
	"github.com/kiln-build/kiln/tools/syncbuffer"
)

// A Process is a launcher that was started, and with it an engine.
type Process struct {
	// Endpoints are those of the time when the engine was ready.
	engine.Endpoints
	// Launcher is the process that holds the others.
	Launcher *os.Process

	ended chan struct{}
	code  int
	said  syncbuffer.Buffer
}

// Start starts a launcher that was told --output=json, and waits until the engine
// is ready. If it does not become ready, the process is given beside the error:
// it may still have to be stopped.
func Start(cmd *exec.Cmd) (*Process, error) {
	p := &Process{ended: make(chan struct{})}
	cmd.Stderr = &p.said
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
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
		lines := bufio.NewReader(stdout)
		line, _ := lines.ReadBytes('\n') // that it is missing shows below
		ready <- line
		_, _ = io.Copy(io.Discard, lines)
		_ = cmd.Wait() // the exit code says it
		p.code = cmd.ProcessState.ExitCode()
		close(p.ended)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting the engine: %w", err)
	}
	p.Launcher = cmd.Process
	line := <-ready
	if len(line) == 0 {
		// It is ending, and says why until it has ended.
		<-p.ended
	}
	if err := json.Unmarshal(line, &p.Endpoints); err != nil {
		return p, fmt.Errorf("the engine did not become ready: %s", p.Said())
	}
	return p, nil
}

// Ended is closed when the launcher has ended, and with it everything.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// ExitCode is the launcher's, once it has ended.
func (p *Process) ExitCode() int { return p.code }

// Said is what the launcher has written to standard error.
func (p *Process) Said() string { return p.said.String() }
