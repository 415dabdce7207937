// Package config renders the configuration of Buildbarn from one set of values:
// for the engine on this machine, and for a cluster. What both have in common is
// said once, in Settings and in the functions of this file, so the two cannot
// drift apart.
package config

import "time"

// Settings are what all Buildbarns of Kiln agree on, however many machines they
// run on.
type Settings struct {
	// MessageSize is how large one message may be, in bytes. Blobs larger
	// than that are streamed.
	MessageSize int64
	// TreeSize is how large the listing of an action's output directories may
	// be, in bytes, for the check that a result is complete.
	TreeSize int64
	// Timeout is how long an action may run that asks for nothing else, and
	// MaximumTimeout is what it may ask for.
	Timeout, MaximumTimeout time.Duration
	// NoWorkers is how long actions wait in a queue without any worker, before
	// the client is told to do without. A worker counts until it has not been
	// heard of for a minute.
	NoWorkers time.Duration
	// Epoch is how much of what was stored last may be lost when a storage
	// process is killed. It is found to be missing, and made again.
	Epoch time.Duration
	// ContentBlocks and ResultBlocks divide the storage of the CAS and of the
	// action cache.
	ContentBlocks, ResultBlocks Blocks
	// Transfers is how many files a worker transfers at the same time, in
	// each direction.
	Transfers int
	// InputFiles and InputSize bound the inputs that a worker keeps from one
	// action to the next.
	InputFiles int
	InputSize  int64
}

// PlatformProperty is the platform property (in Bazel: exec_properties) by which
// an action asks for a kind of worker. One without it, as all actions are that build
// components, goes to the kind Plain.
const PlatformProperty = "kiln-worker"

// Kinds of workers.
const (
	// Plain workers build.
	Plain = "plain"
	// KVM workers have /dev/kvm, for tests that boot guests.
	KVM = "kvm"
	// TDX workers are machines with Intel TDX.
	TDX = "tdx"
)

// Blocks says into how many blocks a store is divided. It is a ring: the oldest
// block is dropped to make room for a new one. A blob must fit into a block.
type Blocks struct {
	// Old ones are copied from when something in them is asked for, so that
	// what is in use never leaves the ring.
	Old int
	// Current ones are read from.
	Current int
	// New ones are written to.
	New int
	// Spare ones are still read by somebody when they are dropped.
	Spare int
}

func (b Blocks) total() int { return b.Old + b.Current + b.New + b.Spare }

// Default are the settings that Kiln uses.
func Default() Settings {
	return Settings{
		MessageSize: 16 << 20,
		TreeSize:    64 << 20,
		// A kernel on two cores that do other things as well takes an hour.
		Timeout:        2 * time.Hour,
		MaximumTimeout: 4 * time.Hour,
		NoWorkers:      3 * time.Minute,
		Epoch:          10 * time.Second,
		// Few and large blocks: a guest image of some hundred megabytes must
		// fit into one of them.
		ContentBlocks: Blocks{Old: 4, Current: 12, New: 3, Spare: 1},
		// More than one new block is possible only where a key always has the
		// same value.
		ResultBlocks: Blocks{Old: 4, Current: 12, New: 1, Spare: 1},
		Transfers:    16,
		InputFiles:   50_000,
		InputSize:    4 << 30,
	}
}

// store is where one node keeps blobs, in bytes of files.
type store struct {
	directory string
	size      int64
}

// Of a node's size, the action cache and the tables that say where a blob is take
// a small part. Entries of the tables have 66 bytes: this is one for each 5 KiB.
const (
	resultPart = 64
	keysPart   = 80
)

// MinimumSize is the least size of a store: blocks of 2 MiB.
const MinimumSize = 48 << 20

// LargestBlob gives the size of the largest blob that a store of a size can hold.
func (s Settings) LargestBlob(size int64) int64 {
	return s.contentSize(size) / int64(s.ContentBlocks.total())
}

func (s Settings) contentSize(size int64) int64 {
	return size - size/resultPart - size/keysPart - size/resultPart/keysPart
}

func (s Settings) contents(at store) blobAccess {
	return s.local(at.directory+"/cas", s.ContentBlocks, s.contentSize(at.size), at.size/keysPart)
}

func (s Settings) results(at store) blobAccess {
	return s.local(at.directory+"/ac", s.ResultBlocks, at.size/resultPart, at.size/resultPart/keysPart)
}

func (s Settings) local(directory string, b Blocks, blocks, keys int64) blobAccess {
	return blobAccess{Local: &local{
		KeyLocationMapOnBlockDevice:      blockDevice{File: file{Path: directory + "/keys", SizeBytes: keys}},
		KeyLocationMapMaximumGetAttempts: 16,
		KeyLocationMapMaximumPutAttempts: 64,
		OldBlocks:                        b.Old,
		CurrentBlocks:                    b.Current,
		NewBlocks:                        b.New,
		BlocksOnBlockDevice: blocksOnBlockDevice{
			Source:      blockDevice{File: file{Path: directory + "/blocks", SizeBytes: blocks}},
			SpareBlocks: b.Spare,
		},
		Persistent: persistent{StateDirectoryPath: directory + "/state", MinimumEpochInterval: duration(s.Epoch)},
	}}
}

// complete makes a result of which a blob is missing look like no result.
func (s Settings) complete(results blobAccess) blobAccess {
	return blobAccess{CompletenessChecking: &completenessChecking{Backend: results, MaximumTotalTreeSizeBytes: s.TreeSize}}
}

// server takes connections of one kind.
func (s Settings) server(address string, policy authenticationPolicy, tls *tlsServer) grpcServer {
	return grpcServer{
		ListenAddresses:                 []string{address},
		AuthenticationPolicy:            policy,
		TLS:                             tls,
		MaximumReceivedMessageSizeBytes: s.MessageSize,
		// A client that waits for an action wants to notice that the other
		// end is gone, and asks. Without this it would be cut off for that.
		KeepaliveEnforcementPolicy: &keepaliveEnforcement{MinTime: duration(10 * time.Second), PermitWithoutStream: true},
	}
}

// access says who may do what: read everything, upload blobs, which are what their
// digests say, vouch for the result of an action, and have actions executed.
type access struct {
	read, upload, vouch, execute authorizer
}

var allow = authorizer{Allow: &empty{}}

// frontend is the storage that clients see: a cache whose results are complete,
// and the way to the scheduler.
func (s Settings) frontend(server grpcServer, contents, results blobAccess, who access, scheduler grpcClient, metrics string) storage {
	return storage{
		GRPCServers:             []grpcServer{server},
		MaximumMessageSizeBytes: s.MessageSize,
		Global:                  diagnosticsOn(metrics),
		ContentAddressableStorage: scannable{
			Backend:               contents,
			GetAuthorizer:         who.read,
			PutAuthorizer:         who.upload,
			FindMissingAuthorizer: who.read,
		},
		ActionCache: nonScannable{
			Backend:       s.complete(results),
			GetAuthorizer: who.read,
			PutAuthorizer: who.vouch,
		},
		Schedulers:        map[string]schedulerEndpoint{"": {Endpoint: scheduler}},
		ExecuteAuthorizer: &who.execute,
	}
}

// queue makes one scheduler for all kinds of workers. It must be one: identical
// actions are merged in the scheduler that both come to. It has a queue for each
// kind of which there is a worker.
func (s Settings) queue(client, worker grpcServer, contents blobAccess, metrics string) scheduler {
	return scheduler{
		ClientGRPCServers:         []grpcServer{client},
		WorkerGRPCServers:         []grpcServer{worker},
		ContentAddressableStorage: contents,
		MaximumMessageSizeBytes:   s.MessageSize,
		Global:                    diagnosticsOn(metrics),
		ExecuteAuthorizer:         allow,
		ModifyDrainsAuthorizer:    authorizer{Deny: &empty{}},
		KillOperationsAuthorizer:  authorizer{Deny: &empty{}},
		ActionRouter: actionRouter{Simple: simpleRouter{
			PlatformKeyExtractor: platformKeyExtractor{Action: &empty{}},
			// Builds share the workers evenly.
			InvocationKeyExtractors: []invocationKeyExtractor{{ToolInvocationID: &empty{}}},
			InitialSizeClassAnalyzer: sizeClassAnalyzer{
				DefaultExecutionTimeout: duration(s.Timeout),
				MaximumExecutionTimeout: duration(s.MaximumTimeout),
			},
		}},
		PlatformQueueWithNoWorkersTimeout: duration(s.NoWorkers),
	}
}

func platformOf(kind string) platform {
	if kind == Plain {
		return platform{}
	}
	return platform{Properties: []property{{Name: PlatformProperty, Value: kind}}}
}

func diagnosticsOn(address string) global {
	if address == "" {
		return global{}
	}
	return global{DiagnosticsHTTPServer: &diagnostics{
		HTTPServers:      []httpServer{{ListenAddresses: []string{address}, AuthenticationPolicy: anyone}},
		EnablePrometheus: true,
	}}
}

// sendQueue is how many executions a worker keeps in memory that it could not yet
// tell of.
const sendQueue = 100_000

// anyone is let in, as nobody in particular.
var anyone = authenticationPolicy{Allow: &authenticationMetadata{}}

// crew is one worker and its runner, which share a directory.
type crew struct {
	// directory is the worker's, as it sees it; runs is the same as the
	// runner sees it, absolute.
	directory, runs string
	// socket is where the runner listens, as each of them sees it.
	workerSocket, runnerSocket string
	// kind is the queue that the worker takes actions from.
	kind        string
	concurrency int
	// id is the worker's name among all workers.
	id any
}

func (s Settings) worker(c crew, queue grpcClient, contents, results blobAccess, loggers []completedActionLogger, metrics string) worker {
	return worker{
		Blobstore:               blobstore{ContentAddressableStorage: contents, ActionCache: results},
		MaximumMessageSizeBytes: s.MessageSize,
		Scheduler:               queue,
		Global:                  diagnosticsOn(metrics),
		BuildDirectories: []buildDirectory{{
			Native: nativeDirectory{
				BuildDirectoryPath:     c.directory + "/build",
				CacheDirectoryPath:     c.directory + "/cache",
				MaximumCacheFileCount:  s.InputFiles,
				MaximumCacheSizeBytes:  s.InputSize,
				CacheReplacementPolicy: "LEAST_RECENTLY_USED",
			},
			Runners: []runnerClient{{
				Endpoint:    grpcClient{Address: c.workerSocket},
				Concurrency: c.concurrency,
				Platform:    platformOf(c.kind),
				WorkerID:    map[string]any{"worker": c.id},
			}},
		}},
		CompletedActionLoggers:   loggers,
		InputDownloadConcurrency: s.Transfers,
		OutputUploadConcurrency:  s.Transfers,
		DirectoryCache:           directoryCache{MaximumCount: 10_000, MaximumSizeBytes: 64 << 20, CacheReplacementPolicy: "LEAST_RECENTLY_USED"},
	}
}

func (s Settings) runner(c crew, metrics string) runner {
	return runner{
		Global:             diagnosticsOn(metrics),
		BuildDirectoryPath: c.runs + "/build",
		GRPCServers: []grpcServer{{
			ListenPaths:          []string{c.runnerSocket},
			AuthenticationPolicy: anyone,
			// An action that runs comes to its end when a machine is drained.
			StopGracefully: true,
		}},
		// What an action leaves in $TMPDIR goes with it.
		SetTmpdirEnvironmentVariable: true,
	}
}
