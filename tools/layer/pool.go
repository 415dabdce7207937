package layer

import (
	"os"
	"sync"
	"sync/atomic"
)

// pool runs functions on a few goroutines and remembers their first error.
type pool struct {
	work chan func() error
	wg   sync.WaitGroup
	mu   sync.Mutex
	err  error
}

func newPool(workers int) *pool {
	p := &pool{work: make(chan func() error, 2*workers)}
	for range workers {
		p.wg.Go(func() {
			for f := range p.work {
				if err := f(); err != nil {
					p.mu.Lock()
					if p.err == nil {
						p.err = err
					}
					p.mu.Unlock()
				}
			}
		})
	}
	return p
}

// run queues f, or gives the error of an earlier function. It always runs f,
// which may have something to release.
func (p *pool) run(f func() error) error {
	p.work <- f
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func (p *pool) wait() error {
	close(p.work)
	p.wg.Wait()
	return p.err
}

// sharedRoot is an open directory that is closed when its last user is done.
type sharedRoot struct {
	*os.Root
	users atomic.Int32
}

func newSharedRoot(r *os.Root) *sharedRoot {
	s := &sharedRoot{Root: r}
	s.hold()
	return s
}

func (s *sharedRoot) hold() { s.users.Add(1) }

func (s *sharedRoot) release() {
	if s.users.Add(-1) == 0 {
		s.Close()
	}
}
