// Package exitcode names the exit codes that every Kiln command shares, so
// that scripts can tell bad input from a registry that is out of reach.
package exitcode

import (
	"errors"
	"syscall"
)

const (
	// OK means that the command did what it was asked.
	OK = 0
	// Failed means that the work itself failed.
	Failed = 1
	// BadInput means wrong flags, a malformed lock or table, or inputs
	// that contradict each other.
	BadInput = 2
	// Unreachable means that a source or a registry refused, was cut off
	// or did not answer.
	Unreachable = 3
	// Unverified means that something was read but is not what it must
	// be: a wrong digest, a missing path, a stale receipt.
	Unverified = 4
	// LocalIO means that this machine could not store or read a file,
	// most often because a disk is full.
	LocalIO = 5
	// NotCached means that actions were executed whose results a cache
	// should have had. `kiln audit --expect-cached` ends with it.
	NotCached = 6
)

type coded struct {
	code int
	err  error
}

func (c *coded) Error() string { return c.err.Error() }
func (c *coded) Unwrap() error { return c.err }

// With attaches an exit code to an error. The innermost code wins, so the
// place that knows the cause decides. With(code, nil) is nil.
func With(code int, err error) error {
	if err == nil {
		return nil
	}
	var inner *coded
	if errors.As(err, &inner) {
		return err
	}
	return &coded{code: code, err: err}
}

// Of gives the exit code for an error: the attached one, LocalIO for a full
// disk or quota, and Failed for everything else.
func Of(err error) int {
	if err == nil {
		return OK
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EROFS) {
		return LocalIO
	}
	var c *coded
	if errors.As(err, &c) {
		return c.code
	}
	return Failed
}
