package lock_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/deploy/lock"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func TestOneAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	never := func() { t.Error("nobody has it") }
	first, err := lock.Acquire(t.Context(), path, never)
	require.NoError(t, err)

	// The context of who waits ends it.
	stopped, stop := context.WithCancelCause(t.Context())
	waited := 0
	_, err = lock.Acquire(stopped, path, func() { waited++; stop(errors.New("told to stop")) })
	require.ErrorContains(t, err, "waiting for another kata-deploy")
	require.ErrorContains(t, err, "told to stop")
	require.Equal(t, 1, waited)

	waiting, done := make(chan struct{}), make(chan error)
	go func() {
		second, err := lock.Acquire(context.Background(), path, func() { close(waiting) })
		if err == nil {
			err = second.Release()
		}
		done <- err
	}()
	<-waiting
	select {
	case <-done:
		require.Fail(t, "two have the lock")
	case <-time.After(250 * time.Millisecond):
	}
	require.NoError(t, first.Release())
	require.NoError(t, <-done)
	third, err := lock.Acquire(t.Context(), path, never)
	require.NoError(t, err)
	require.NoError(t, third.Release())
}

func TestNoPlaceForIt(t *testing.T) {
	_, err := lock.Acquire(t.Context(), filepath.Join(t.TempDir(), "absent", "lock"), func() {})
	require.ErrorContains(t, err, "opening the node's lock")
	require.Equal(t, exitcode.LocalIO, exitcode.Of(err))
}
