package installer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kiln-build/kiln/deploy/lock"
)

// step is one of a sequence. Each can be done again at any time, so that a sequence
// which was interrupted anywhere is simply run again from its beginning.
type step struct {
	name string
	// do tells in a few words what was done.
	do func(ctx context.Context) (what string, err error)
}

// run does steps one after the other, while this has the lock of the node. It says of
// each what it did and how long that took.
func (i *Installer) run(ctx context.Context, steps ...step) (err error) {
	if i.Lock != "" {
		l, err := lock.Acquire(ctx, i.Lock, func() { i.say("waiting for another kata-deploy on this node, which has %s", i.Lock) })
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, l.Release()) }()
	}
	for _, s := range steps {
		if err := context.Cause(ctx); err != nil {
			return fmt.Errorf("interrupted before %s: %w; run it again to go on from here", s.name, err)
		}
		begin := i.Now()
		what, err := s.do(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		i.say("%s: %s (%.1fs)", s.name, what, i.Now().Sub(begin).Round(100*time.Millisecond).Seconds())
	}
	return nil
}

func (i *Installer) say(format string, args ...any) {
	_, _ = fmt.Fprintf(i.Progress, format+"\n", args...)
}
