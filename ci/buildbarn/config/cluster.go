package config

import "time"

// Cluster is the engine on many machines. Storage is in shards, each of which is
// kept by two nodes of different sets. Frontends are what clients see. One
// scheduler has a queue for each kind of worker.
type Cluster struct {
	Settings
	// Shards is how many parts the blobs are divided into. A change moves most of
	// them, which is to say that it empties the cache.
	Shards int
	// NodeSize bounds what a storage node stores, in bytes.
	NodeSize int64
	// Pools are the workers.
	Pools []Pool
}

// Pool is a set of workers of one kind.
type Pool struct {
	// Kind is the queue that they take actions from.
	Kind string
	// Concurrency is how many actions each of them runs at the same time.
	Concurrency int
	// Minimum and Maximum are how many there are.
	Minimum, Maximum int32
	// CPU and Memory are what a worker's actions may use, and Disk is the room for
	// their files, as Kubernetes writes quantities.
	CPU, Memory, Disk string
	// Resources are others that it needs, such as a device, by name.
	Resources map[string]string
	// Nodes are labels of the nodes that it may run on.
	Nodes map[string]string
}

// A Part is a kind of process of a cluster.
type Part string

// Parts of a cluster. Each of them has a certificate of that name.
const (
	StorageA      Part = "storage-a"
	StorageB      Part = "storage-b"
	FrontendPart  Part = "frontend"
	SchedulerPart Part = "scheduler"
	WorkerPart    Part = "worker"
	RunnerPart    Part = "runner"
)

// A Port is what a part listens on.
type Port int

// Ports of a cluster.
const (
	// PortClients is the frontend's.
	PortClients Port = 8980
	// PortStorage is a storage node's.
	PortStorage Port = 8981
	// PortActions is the scheduler's for frontends, and PortQueue its for workers.
	PortActions Port = 8982
	PortQueue   Port = 8983
	// PortMetrics is where every part says by HTTP how it is, and
	// PortRunnerMetrics the runner, which shares the worker's address.
	PortMetrics       Port = 9980
	PortRunnerMetrics Port = 9981
)

// Places say where the parts of a cluster are.
type Places interface {
	// Listen is the address on which a part listens, and Dial the one by which
	// others reach it; n counts the nodes of a set from 0.
	Listen(part Part, n int, port Port) string
	Dial(part Part, n int, port Port) string
	// Credentials is the directory of a part's own certificate tls.crt, its key
	// tls.key, and ca.crt, by which it knows other parts.
	Credentials(part Part) string
	// Public is the directory of the certificate that clients see, and Keys the
	// file of the keys (a JSON Web Key Set) that clients' tokens are signed with.
	Public() string
	Keys() string
	// Files is the directory of a part's files.
	Files(part Part, n int) string
}

// Roles that a client's token may give it, in the claim RoleClaim. A client without
// a token may read.
const (
	RoleClaim = "kiln_role"
	// Trusted may have actions executed. The results are what workers make of
	// them.
	Trusted = "trusted"
	// Landed may also store results of its own. It is the role of a CI that
	// builds what has landed, and of nobody else.
	Landed = "landed"
)

// roleIs lets in who has one of some roles.
func roleIs(roles ...string) authorizer {
	expression := ""
	for i, role := range roles {
		if i > 0 {
			expression += " || "
		}
		expression += "authenticationMetadata.private.role == '" + role + "'"
	}
	return authorizer{JmespathExpression: expression}
}

// renewal is how often a certificate is read again, since it may be a new one.
const renewal = time.Hour

func pair(directory string) keyPair {
	return keyPair{Files: keyPairFiles{
		CertificatePath: directory + "/tls.crt",
		PrivateKeyPath:  directory + "/tls.key",
		RefreshInterval: duration(renewal),
	}}
}

// parts lets in only other parts of the cluster.
func parts(p Places, self Part) authenticationPolicy {
	return authenticationPolicy{TLSClientCertificate: &tlsClientCertificate{
		ClientCertificateAuthorities:         contentOf(p.Credentials(self) + "/ca.crt"),
		ValidationJmespathExpression:         "`true`",
		MetadataExtractionJmespathExpression: "`{}`",
	}}
}

// clients lets in everybody, and knows those that have a token.
func clients(p Places) authenticationPolicy {
	return authenticationPolicy{Any: &policies{Policies: []authenticationPolicy{
		{JWT: &jwtPolicy{
			JwksFile:                             p.Keys(),
			MaximumCacheSize:                     1000,
			CacheReplacementPolicy:               "LEAST_RECENTLY_USED",
			ClaimsValidationJmespathExpression:   "`true`",
			MetadataExtractionJmespathExpression: "{public: {name: sub}, private: {role: " + RoleClaim + "}}",
		}},
		anyone,
	}}}
}

func (c Cluster) within(p Places, self Part, n int, port Port) grpcServer {
	return c.server(p.Listen(self, n, port), parts(p, self), &tlsServer{ServerKeyPair: pair(p.Credentials(self))})
}

// to makes a client of another part.
func (c Cluster) to(p Places, self, other Part, n int, port Port) grpcClient {
	own := pair(p.Credentials(self))
	return grpcClient{
		Address: p.Dial(other, n, port),
		TLS: &tlsClient{
			ServerCertificateAuthorities: contentOf(p.Credentials(self) + "/ca.crt"),
			ClientKeyPair:                &own,
		},
		// A node that is gone without a word is noticed, and the other one of its
		// shard asked.
		Keepalive: &keepalive{Time: duration(30 * time.Second), Timeout: duration(20 * time.Second)},
	}
}

// What one node of a shard has lost is copied from the other one when somebody asks
// for it. A blob is copied once for all who ask at that time; for results Buildbarn
// cannot do that, and they are small.
var (
	copyResults = replicator{Local: &empty{}}
	copyBlobs   = replicator{Deduplicating: &copyResults}
)

// sharded is the storage of the whole cluster, as one of its parts uses it.
func (c Cluster) sharded(p Places, self Part, copies replicator) blobAccess {
	var shards []shard
	for n := range c.Shards {
		node := func(set Part) blobAccess {
			there := c.to(p, self, set, n, PortStorage)
			return blobAccess{GRPC: &there}
		}
		shards = append(shards, shard{Weight: 1, Backend: blobAccess{Mirrored: &mirrored{
			BackendA:       node(StorageA),
			BackendB:       node(StorageB),
			ReplicatorAToB: copies,
			ReplicatorBToA: copies,
		}}})
	}
	return blobAccess{Sharding: &sharding{HashInitialization: 0x6b696c6e, Shards: shards}}
}

// RenderStorage gives the configuration of a node of a set.
func (c Cluster) RenderStorage(p Places, set Part, n int) ([]byte, error) {
	nodes := store{directory: p.Files(set, n), size: c.NodeSize}
	return render(storage{
		GRPCServers:             []grpcServer{c.within(p, set, n, PortStorage)},
		MaximumMessageSizeBytes: c.MessageSize,
		Global:                  diagnosticsOn(p.Listen(set, n, PortMetrics)),
		ContentAddressableStorage: scannable{
			Backend:               c.contents(nodes),
			GetAuthorizer:         allow,
			PutAuthorizer:         allow,
			FindMissingAuthorizer: allow,
		},
		// Whether a result is complete is found out by who asks: the blobs are
		// on other nodes.
		ActionCache: nonScannable{Backend: c.results(nodes), GetAuthorizer: allow, PutAuthorizer: allow},
	})
}

// RenderFrontend gives the configuration of what clients see.
func (c Cluster) RenderFrontend(p Places) ([]byte, error) {
	return render(c.frontend(
		c.server(p.Listen(FrontendPart, 0, PortClients), clients(p), &tlsServer{ServerKeyPair: pair(p.Public())}),
		c.sharded(p, FrontendPart, copyBlobs), c.sharded(p, FrontendPart, copyResults),
		access{read: allow, upload: roleIs(Trusted, Landed), vouch: roleIs(Landed), execute: roleIs(Trusted, Landed)},
		c.to(p, FrontendPart, SchedulerPart, 0, PortActions),
		p.Listen(FrontendPart, 0, PortMetrics),
	))
}

// RenderScheduler gives the configuration of the scheduler.
func (c Cluster) RenderScheduler(p Places) ([]byte, error) {
	return render(c.queue(
		c.within(p, SchedulerPart, 0, PortActions),
		c.within(p, SchedulerPart, 0, PortQueue),
		c.sharded(p, SchedulerPart, copyBlobs),
		p.Listen(SchedulerPart, 0, PortMetrics),
	))
}

// crewOf is a worker of a pool, with its runner, in a directory that they share.
func (c Cluster) crewOf(p Places, pool Pool) crew {
	files := p.Files(WorkerPart, 0)
	return crew{
		directory:    files,
		runs:         files,
		workerSocket: "unix://" + files + "/runner.sock",
		runnerSocket: files + "/runner.sock",
		kind:         pool.Kind,
		concurrency:  pool.Concurrency,
	}
}

// WorkerVariable is the environment variable that names a worker.
const WorkerVariable = "WORKER"

// RenderWorker gives the configuration of a worker of a pool.
func (c Cluster) RenderWorker(p Places, pool Pool) ([]byte, error) {
	w := c.crewOf(p, pool)
	w.id = variable(WorkerVariable)
	return render(c.worker(w, c.to(p, WorkerPart, SchedulerPart, 0, PortQueue),
		c.sharded(p, WorkerPart, copyBlobs), c.complete(c.sharded(p, WorkerPart, copyResults)),
		[]completedActionLogger{{
			Client:               grpcClient{Address: "unix://" + p.Files(WorkerPart, 0) + "/" + ActionsSocket},
			MaximumSendQueueSize: sendQueue,
		}},
		p.Listen(WorkerPart, 0, PortMetrics)))
}

// RenderRunner gives the configuration of the runner of such a worker.
func (c Cluster) RenderRunner(p Places, pool Pool) ([]byte, error) {
	return render(c.runner(c.crewOf(p, pool), p.Listen(RunnerPart, 0, PortRunnerMetrics)))
}
