package config

import (
	"fmt"
	"net"
	"strconv"
)

// Local is the engine on one machine: everything on loopback, below one
// directory, in which all processes run.
type Local struct {
	// Directory is the state directory, absolute.
	Directory string
	// Size bounds what is stored, in bytes.
	Size int64
	// Workers is how many worker processes there are, and Concurrency how many
	// actions each of them runs at the same time.
	Workers, Concurrency int
	Ports                Ports
}

// Ports are on loopback.
type Ports struct {
	// Frontend is for clients.
	Frontend int
	// Client is the scheduler's for the frontend, and Queue its for workers.
	Client, Queue int
	// Metrics tells what the scheduler does, for Prometheus, by HTTP.
	Metrics int
}

// DefaultPorts are the ones that --config=remote names.
func DefaultPorts() Ports {
	return Ports{Frontend: 8980, Client: 8982, Queue: 8983, Metrics: 8984}
}

// Loopback gives the address of a port.
func Loopback(port int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

// Names of files and directories below Local.Directory. Paths in configurations
// are relative to it where Buildbarn permits, since the path of a UNIX socket may
// not be long.
const (
	// StorageDirectory holds the blobs.
	StorageDirectory = "storage"
	// ActionsSocket is where workers tell what they executed, and Executed is
	// the file in which it is noted.
	ActionsSocket = "actions.sock"
	Executed      = "executed.jsonl"
)

// Names of the processes, which are those of their configurations.
const (
	Storage   = "storage"
	Scheduler = "scheduler"
)

// Worker and Runner name the nth pair, from 0.
func Worker(n int) string { return fmt.Sprintf("worker-%d", n) }

// Runner is the one that runs commands for Worker(n).
func Runner(n int) string { return fmt.Sprintf("runner-%d", n) }

// RunnerSocket is where Runner(n) listens, relative to Local.Directory.
func RunnerSocket(n int) string { return Worker(n) + "/runner.sock" }

// Directories that the engine needs, relative to Local.Directory.
func (l Local) Directories() []string {
	dirs := []string{StorageDirectory + "/cas/state", StorageDirectory + "/ac/state"}
	for n := range l.Workers {
		dirs = append(dirs, Worker(n)+"/build", Worker(n)+"/cache")
	}
	return dirs
}

// Render gives the configuration of each process by its name.
func (l Local) Render(s Settings) (map[string][]byte, error) {
	nodes := store{directory: StorageDirectory, size: l.Size}
	through := grpcClient{Address: Loopback(l.Ports.Frontend)}
	all := map[string]any{
		Storage: s.frontend(
			s.server(Loopback(l.Ports.Frontend), anyone, nil),
			s.contents(nodes), s.results(nodes),
			access{read: allow, upload: allow, vouch: allow, execute: allow},
			grpcClient{Address: Loopback(l.Ports.Client)}, "",
		),
		Scheduler: s.queue(
			s.server(Loopback(l.Ports.Client), anyone, nil),
			s.server(Loopback(l.Ports.Queue), anyone, nil),
			blobAccess{GRPC: &through}, Loopback(l.Ports.Metrics),
		),
	}
	for n := range l.Workers {
		c := crew{
			directory:    Worker(n),
			runs:         l.Directory + "/" + Worker(n),
			workerSocket: "unix:" + RunnerSocket(n),
			runnerSocket: RunnerSocket(n),
			kind:         Plain,
			concurrency:  l.Concurrency,
			id:           strconv.Itoa(n),
		}
		loggers := []completedActionLogger{{Client: grpcClient{Address: "unix:" + ActionsSocket}, MaximumSendQueueSize: sendQueue}}
		all[Worker(n)] = s.worker(c, grpcClient{Address: Loopback(l.Ports.Queue)},
			blobAccess{GRPC: &through}, blobAccess{GRPC: &through}, loggers, "")
		all[Runner(n)] = s.runner(c, "")
	}
	rendered := map[string][]byte{}
	for name, configuration := range all {
		text, err := render(configuration)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		rendered[name] = text
	}
	return rendered, nil
}
