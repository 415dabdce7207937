// Package engine runs Buildbarn on this machine: storage, scheduler, and workers
// with their runners, as processes that live no longer than this one.
package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kiln-build/kiln/ci/buildbarn/config"
	"github.com/kiln-build/kiln/tools/exitcode"
	"github.com/kiln-build/kiln/tools/humanize"
)

// Programs are the paths of the executables.
type Programs struct {
	Storage, Scheduler, Worker, Runner, ActionLog string
}

// Options say what to run.
type Options struct {
	// State is the directory that everything is kept in.
	State    string
	Programs Programs
	// Size bounds what is stored, in bytes.
	Size int64
	// Workers is how many worker processes run, and Concurrency how many
	// actions each of them runs at the same time.
	Workers, Concurrency int
	// Ports are taken as they are, but for those that are 0, for which free
	// ones are chosen.
	Ports config.Ports
	// Log takes one line for each thing that happens.
	Log io.Writer
	// Ready is called once, when clients can be served.
	Ready func(Endpoints)
	// Sleep waits for a while, or until the context ends, before a process is
	// started again.
	Sleep func(context.Context, time.Duration)
}

// Endpoints say how an engine is reached, and where to look what it does.
type Endpoints struct {
	// Frontend is for clients, as --remote_executor and --remote_cache name it.
	Frontend string `json:"frontend"`
	// Scheduler and Queue are the scheduler's, for the frontend and for workers.
	Scheduler string `json:"scheduler"`
	Queue     string `json:"queue"`
	// Metrics are the scheduler's, for Prometheus.
	Metrics string `json:"metrics"`
	// State is the state directory.
	State string `json:"state"`
	// Executed is the file that has one JSON object a line for each action
	// that was executed.
	Executed string `json:"executed"`
	// PIDs are the processes by name: storage, scheduler, worker-N, runner-N
	// and actions. A process that was started again has a new one.
	PIDs map[string]int `json:"pids"`
}

// lockWait is how long the processes of an engine that was killed may take to be
// gone.
const lockWait = 3 * time.Second

// stopWait is how long a process may take to end when it is asked to: an action
// that runs is cut off then. flushWait is storage's, which writes to the disk what
// it has stored last.
const (
	stopWait  = 3 * time.Second
	flushWait = 20 * time.Second
)

// Run runs an engine until the context ends, which is no error, or until storage
// or scheduler end by themselves. When it returns, no process is left.
func Run(ctx context.Context, o Options) error {
	state, err := filepath.Abs(o.State)
	if err != nil {
		return exitcode.With(exitcode.LocalIO, fmt.Errorf("finding the state directory: %w", err))
	}
	o.State = state
	if err := o.check(); err != nil {
		return err
	}
	lock, err := lockState(ctx, state)
	if err != nil {
		return err
	}
	defer lock.Close()

	const tries = 5
	for try := 1; ; try++ {
		chosen := o
		if chosen.Ports, err = choosePorts(o.Ports); err != nil {
			return err
		}
		err := runOnce(ctx, chosen, lock)
		// A port that was free a moment ago may be somebody else's now.
		if taken := (&portTakenError{}); errors.As(err, &taken) && chosen.Ports != o.Ports && try < tries {
			continue
		}
		return err
	}
}

func (o Options) check() error {
	switch {
	case o.Size < config.MinimumSize:
		return exitcode.With(exitcode.BadInput, fmt.Errorf("a size of %d bytes is too small for a cache: at least %d are needed", o.Size, config.MinimumSize))
	case o.Workers < 0 || o.Concurrency < 1:
		return exitcode.With(exitcode.BadInput, fmt.Errorf("%d workers with %d actions each make no engine", o.Workers, o.Concurrency))
	}
	return nil
}

// lockState makes the state directory and takes it for this process and the
// storage process, which holds on to the file that is returned.
func lockState(ctx context.Context, state string) (*os.File, error) {
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("making the state directory: %w", err))
	}
	lock, err := os.OpenFile(filepath.Join(state, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("locking the state directory: %w", err))
	}
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	for {
		err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return lock, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.Join(exitcode.With(exitcode.LocalIO, fmt.Errorf("locking %s: %w", lock.Name(), err)), lock.Close())
		}
		if !sleep(ctx, 50*time.Millisecond) {
			err := fmt.Errorf("another engine runs in %s: stop it, or choose another directory with --state", state)
			return nil, errors.Join(exitcode.With(exitcode.BadInput, err), lock.Close())
		}
	}
}

// sleep waits, and says whether it waited to the end.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// choosePorts finds free ports for those that are 0, and makes sure that the others
// are free.
func choosePorts(p config.Ports) (config.Ports, error) {
	for _, port := range []struct {
		what string
		port *int
	}{{"clients", &p.Frontend}, {"the scheduler", &p.Client}, {"workers", &p.Queue}, {"metrics", &p.Metrics}} {
		l, err := net.Listen("tcp", config.Loopback(*port.port))
		if err != nil {
			return p, exitcode.With(exitcode.BadInput, fmt.Errorf("the port for %s cannot be had: %w: choose another one with --port", port.what, err))
		}
		// Held until all are chosen, so that no two are the same.
		defer l.Close()
		*port.port = l.Addr().(*net.TCPAddr).Port
	}
	return p, nil
}

// portTakenError says that a process could not listen.
type portTakenError struct{ process, output string }

func (e *portTakenError) Error() string {
	return fmt.Sprintf("%s cannot listen on its port: %s", e.process, e.output)
}

func runOnce(ctx context.Context, o Options, lock *os.File) error {
	l := config.Local{Directory: o.State, Size: o.Size, Workers: o.Workers, Concurrency: o.Concurrency, Ports: o.Ports}
	if err := prepare(o, l); err != nil {
		return err
	}
	e := &running{options: o, pids: map[string]int{}, changed: make(chan struct{}, 1)}
	endpoints := Endpoints{
		Frontend:  "grpc://" + config.Loopback(o.Ports.Frontend),
		Scheduler: "grpc://" + config.Loopback(o.Ports.Client),
		Queue:     "grpc://" + config.Loopback(o.Ports.Queue),
		Metrics:   "http://" + config.Loopback(o.Ports.Metrics) + "/metrics",
		State:     o.State,
		Executed:  filepath.Join(o.State, config.Executed),
	}
	group, ctx := errgroup.WithContext(ctx)
	// Processes end in the reverse order of their start: a worker still tells
	// the scheduler that it goes, and storage is there until nobody writes.
	base, runners, workers := newStage(), newStage(), newStage()
	group.Go(func() error {
		<-ctx.Done()
		for _, s := range []*stage{workers, runners, base} {
			s.stop()
		}
		return nil
	})
	keep := func(s *stage, p process) {
		s.members.Add(1)
		group.Go(func() error {
			defer s.members.Done()
			return e.keep(s.ctx, p)
		})
	}
	keep(base, e.storage(lock))
	keep(base, e.scheduler())
	keep(base, e.actionLog())
	for n := range o.Workers {
		keep(runners, e.runner(n))
		keep(workers, e.worker(n))
	}
	group.Go(func() error {
		if err := awaitReady(ctx, o); err != nil {
			return err
		}
		e.setReady()
		return e.announce(ctx, endpoints)
	})
	err := group.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// stage is a set of processes that are stopped together.
type stage struct {
	ctx     context.Context
	cancel  context.CancelFunc
	members sync.WaitGroup
}

func newStage() *stage {
	ctx, cancel := context.WithCancel(context.Background())
	return &stage{ctx: ctx, cancel: cancel}
}

func (s *stage) stop() {
	s.cancel()
	s.members.Wait()
}

// Information is the file in the state directory that has the Endpoints of an
// engine as JSON. It follows the processes that are started again.
const Information = "engine.json"

// prepare writes what the processes read.
func prepare(o Options, l config.Local) error {
	dirs := append(l.Directories(), "config", "log")
	for _, dir := range dirs {
		if err := os.MkdirAll(filepath.Join(o.State, dir), 0o700); err != nil {
			return exitcode.With(exitcode.LocalIO, fmt.Errorf("making the state directory: %w", err))
		}
	}
	if err := checkSpace(o); err != nil {
		return err
	}
	rendered, err := l.Render(config.Default())
	if err != nil {
		return err
	}
	for name, text := range rendered {
		if err := os.WriteFile(configuration(o.State, name), text, 0o600); err != nil {
			return exitcode.With(exitcode.LocalIO, fmt.Errorf("writing the configuration: %w", err))
		}
	}
	return nil
}

func configuration(state, name string) string {
	return filepath.Join(state, "config", name+".json")
}

// checkSpace refuses a disk that cannot take even a block of what is to be stored,
// and warns of one that cannot take all of it. The files have holes, so they take
// space only as they are filled.
func checkSpace(o Options) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(o.State, &fs); err != nil {
		return exitcode.With(exitcode.LocalIO, fmt.Errorf("asking for the space on the disk of %s: %w", o.State, err))
	}
	free := int64(fs.Bavail) * fs.Bsize
	used, err := allocated(filepath.Join(o.State, config.StorageDirectory))
	if err != nil {
		return exitcode.With(exitcode.LocalIO, fmt.Errorf("measuring what is stored: %w", err))
	}
	missing := o.Size - used - free
	if missing <= 0 {
		return nil
	}
	if free < config.Default().LargestBlob(o.Size) && used < o.Size/2 {
		return exitcode.With(exitcode.LocalIO, fmt.Errorf("the disk of %s has no space for a cache: %s of %s are free: make room, or choose another directory with --state or a smaller --size",
			o.State, humanize.Bytes(free), humanize.Bytes(o.Size)))
	}
	fmt.Fprintf(o.Log, "warning: the disk has %s less than the cache may grow to (%s); writes fail when it is full\n", humanize.Bytes(missing), humanize.Bytes(o.Size))
	return nil
}

// allocated gives how many bytes the files below a directory take on the disk.
func allocated(dir string) (int64, error) {
	var total int64
	err := filepath.WalkDir(dir, func(_ string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && info.Mode().IsRegular() {
			total += st.Blocks * 512
		}
		return nil
	})
	return total, err
}
