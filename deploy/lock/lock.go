// Package lock lets one kata-deploy at a time change a node: two installations
// change the same configuration and restart the same runtime.
package lock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// Path is where the lock of a node is, if nothing else is said. Upstream's is the
// same, so that both wait for each other.
const Path = "/run/lock/kata-deploy.lock"

const interval = 100 * time.Millisecond

// Lock is one that is held.
type Lock struct{ file *os.File }

// Acquire waits for the lock until ctx ends. waiting is called once, if somebody
// else has it. The file stays: whoever removed it would take it from those that
// wait.
func Acquire(ctx context.Context, path string, waiting func()) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("opening the node's lock: %w", err))
	}
	for told := false; ; told = true {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return &Lock{f}, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(exitcode.With(exitcode.LocalIO, fmt.Errorf("locking %s: %w", path, err)), f.Close())
		}
		if !told {
			waiting()
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("waiting for another kata-deploy to release %s: %w", path, context.Cause(ctx)), f.Close())
		case <-time.After(interval):
		}
	}
}

// Release gives the lock back.
func (l *Lock) Release() error {
	if err := l.file.Close(); err != nil {
		return exitcode.With(exitcode.LocalIO, fmt.Errorf("releasing the node's lock: %w", err))
	}
	return nil
}
