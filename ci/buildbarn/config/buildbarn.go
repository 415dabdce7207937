package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// The types of this file are the parts that Kiln uses of Buildbarn's
// configuration messages, in the JSON form of protocol buffers. Buildbarn refuses
// a field that it does not know, and so shows when they drift apart.

// empty is google.protobuf.Empty, or a message of which no field is set.
type empty struct{}

// duration is a google.protobuf.Duration.
type duration time.Duration

func (d duration) MarshalJSON() ([]byte, error) {
	return json.Marshal(strconv.FormatFloat(time.Duration(d).Seconds(), 'f', -1, 64) + "s")
}

// expression is a value that Buildbarn finds out when it reads its configuration.
type expression string

func (e expression) MarshalJSON() ([]byte, error) { return json.Marshal(mark + string(e)) }

// contentOf is the content of a file.
func contentOf(file string) expression { return expression("importstr " + strconv.Quote(file)) }

// variable is a variable of Buildbarn's environment.
func variable(name string) expression {
	return expression("std.extVar(" + strconv.Quote(name) + ")")
}

// mark is what an expression begins with until the text around it is written.
const mark = "\u0001"

var markedRE = regexp.MustCompile(`"\\u0001(?:[^"\\]|\\.)*"`)

// render gives a configuration as Buildbarn reads it: Jsonnet, of which JSON is a
// part. Only expressions are not JSON.
func render(configuration any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(configuration); err != nil {
		return nil, fmt.Errorf("rendering Buildbarn's configuration: %w", err)
	}
	var failed error
	text := markedRE.ReplaceAllFunc(b.Bytes(), func(quoted []byte) []byte {
		var marked string
		failed = errors.Join(failed, json.Unmarshal(quoted, &marked))
		return []byte(strings.TrimPrefix(marked, mark))
	})
	return text, failed
}

type grpcServer struct {
	ListenAddresses                 []string              `json:"listenAddresses,omitempty"`
	ListenPaths                     []string              `json:"listenPaths,omitempty"`
	AuthenticationPolicy            authenticationPolicy  `json:"authenticationPolicy"`
	TLS                             *tlsServer            `json:"tls,omitempty"`
	MaximumReceivedMessageSizeBytes int64                 `json:"maximumReceivedMessageSizeBytes,omitempty"`
	KeepaliveEnforcementPolicy      *keepaliveEnforcement `json:"keepaliveEnforcementPolicy,omitempty"`
	StopGracefully                  bool                  `json:"stopGracefully,omitempty"`
}

// keepaliveEnforcement says how often clients may ask whether the connection
// still stands.
type keepaliveEnforcement struct {
	MinTime             duration `json:"minTime"`
	PermitWithoutStream bool     `json:"permitWithoutStream"`
}

type authenticationPolicy struct {
	Allow                *authenticationMetadata `json:"allow,omitempty"`
	Any                  *policies               `json:"any,omitempty"`
	TLSClientCertificate *tlsClientCertificate   `json:"tlsClientCertificate,omitempty"`
	JWT                  *jwtPolicy              `json:"jwt,omitempty"`
}

// jwtPolicy lets in who has a token that is signed with a known key.
type jwtPolicy struct {
	JwksFile                             string `json:"jwksFile"`
	MaximumCacheSize                     int    `json:"maximumCacheSize"`
	CacheReplacementPolicy               string `json:"cacheReplacementPolicy"`
	ClaimsValidationJmespathExpression   string `json:"claimsValidationJmespathExpression"`
	MetadataExtractionJmespathExpression string `json:"metadataExtractionJmespathExpression"`
}

type authenticationMetadata struct{}

type policies struct {
	Policies []authenticationPolicy `json:"policies"`
}

type tlsClientCertificate struct {
	ClientCertificateAuthorities         expression `json:"clientCertificateAuthorities"`
	ValidationJmespathExpression         string     `json:"validationJmespathExpression"`
	MetadataExtractionJmespathExpression string     `json:"metadataExtractionJmespathExpression"`
}

type tlsServer struct {
	ServerKeyPair keyPair `json:"serverKeyPair"`
}

type tlsClient struct {
	ServerCertificateAuthorities expression `json:"serverCertificateAuthorities"`
	ClientKeyPair                *keyPair   `json:"clientKeyPair,omitempty"`
}

type keyPair struct {
	Files keyPairFiles `json:"files"`
}

type keyPairFiles struct {
	CertificatePath string   `json:"certificatePath"`
	PrivateKeyPath  string   `json:"privateKeyPath"`
	RefreshInterval duration `json:"refreshInterval"`
}

type grpcClient struct {
	Address   string     `json:"address"`
	TLS       *tlsClient `json:"tls,omitempty"`
	Keepalive *keepalive `json:"keepalive,omitempty"`
}

type keepalive struct {
	Time    duration `json:"time"`
	Timeout duration `json:"timeout"`
}

type authorizer struct {
	Allow              *empty `json:"allow,omitempty"`
	Deny               *empty `json:"deny,omitempty"`
	JmespathExpression string `json:"jmespathExpression,omitempty"`
}

type blobAccess struct {
	GRPC                 *grpcClient           `json:"grpc,omitempty"`
	Local                *local                `json:"local,omitempty"`
	Sharding             *sharding             `json:"sharding,omitempty"`
	Mirrored             *mirrored             `json:"mirrored,omitempty"`
	CompletenessChecking *completenessChecking `json:"completenessChecking,omitempty"`
}

type local struct {
	KeyLocationMapOnBlockDevice      blockDevice         `json:"keyLocationMapOnBlockDevice"`
	KeyLocationMapMaximumGetAttempts int                 `json:"keyLocationMapMaximumGetAttempts"`
	KeyLocationMapMaximumPutAttempts int                 `json:"keyLocationMapMaximumPutAttempts"`
	OldBlocks                        int                 `json:"oldBlocks"`
	CurrentBlocks                    int                 `json:"currentBlocks"`
	NewBlocks                        int                 `json:"newBlocks"`
	BlocksOnBlockDevice              blocksOnBlockDevice `json:"blocksOnBlockDevice"`
	Persistent                       persistent          `json:"persistent"`
}

type blockDevice struct {
	File file `json:"file"`
}

type file struct {
	Path      string `json:"path"`
	SizeBytes int64  `json:"sizeBytes"`
}

type blocksOnBlockDevice struct {
	Source      blockDevice `json:"source"`
	SpareBlocks int         `json:"spareBlocks"`
}

type persistent struct {
	StateDirectoryPath   string   `json:"stateDirectoryPath"`
	MinimumEpochInterval duration `json:"minimumEpochInterval"`
}

type sharding struct {
	HashInitialization uint64  `json:"hashInitialization"`
	Shards             []shard `json:"shards"`
}

type shard struct {
	Backend blobAccess `json:"backend"`
	Weight  uint32     `json:"weight"`
}

type mirrored struct {
	BackendA       blobAccess `json:"backendA"`
	BackendB       blobAccess `json:"backendB"`
	ReplicatorAToB replicator `json:"replicatorAToB"`
	ReplicatorBToA replicator `json:"replicatorBToA"`
}

type replicator struct {
	Local         *empty      `json:"local,omitempty"`
	Deduplicating *replicator `json:"deduplicating,omitempty"`
}

type completenessChecking struct {
	Backend                   blobAccess `json:"backend"`
	MaximumTotalTreeSizeBytes int64      `json:"maximumTotalTreeSizeBytes"`
}

type scannable struct {
	Backend               blobAccess `json:"backend"`
	GetAuthorizer         authorizer `json:"getAuthorizer"`
	PutAuthorizer         authorizer `json:"putAuthorizer"`
	FindMissingAuthorizer authorizer `json:"findMissingAuthorizer"`
}

type nonScannable struct {
	Backend       blobAccess `json:"backend"`
	GetAuthorizer authorizer `json:"getAuthorizer"`
	PutAuthorizer authorizer `json:"putAuthorizer"`
}

type global struct {
	DiagnosticsHTTPServer *diagnostics `json:"diagnosticsHttpServer,omitempty"`
}

type diagnostics struct {
	HTTPServers      []httpServer `json:"httpServers"`
	EnablePrometheus bool         `json:"enablePrometheus"`
}

type httpServer struct {
	ListenAddresses      []string             `json:"listenAddresses"`
	AuthenticationPolicy authenticationPolicy `json:"authenticationPolicy"`
}

// storage is bb_storage's configuration.
type storage struct {
	GRPCServers               []grpcServer                 `json:"grpcServers"`
	MaximumMessageSizeBytes   int64                        `json:"maximumMessageSizeBytes"`
	Global                    global                       `json:"global"`
	ContentAddressableStorage scannable                    `json:"contentAddressableStorage"`
	ActionCache               nonScannable                 `json:"actionCache"`
	Schedulers                map[string]schedulerEndpoint `json:"schedulers,omitempty"`
	ExecuteAuthorizer         *authorizer                  `json:"executeAuthorizer,omitempty"`
}

type schedulerEndpoint struct {
	Endpoint grpcClient `json:"endpoint"`
}

// scheduler is bb_scheduler's configuration.
type scheduler struct {
	ClientGRPCServers                 []grpcServer `json:"clientGrpcServers"`
	WorkerGRPCServers                 []grpcServer `json:"workerGrpcServers"`
	ContentAddressableStorage         blobAccess   `json:"contentAddressableStorage"`
	MaximumMessageSizeBytes           int64        `json:"maximumMessageSizeBytes"`
	Global                            global       `json:"global"`
	ExecuteAuthorizer                 authorizer   `json:"executeAuthorizer"`
	ModifyDrainsAuthorizer            authorizer   `json:"modifyDrainsAuthorizer"`
	KillOperationsAuthorizer          authorizer   `json:"killOperationsAuthorizer"`
	ActionRouter                      actionRouter `json:"actionRouter"`
	PlatformQueueWithNoWorkersTimeout duration     `json:"platformQueueWithNoWorkersTimeout"`
}

type actionRouter struct {
	Simple simpleRouter `json:"simple"`
}

type simpleRouter struct {
	PlatformKeyExtractor     platformKeyExtractor     `json:"platformKeyExtractor"`
	InvocationKeyExtractors  []invocationKeyExtractor `json:"invocationKeyExtractors"`
	InitialSizeClassAnalyzer sizeClassAnalyzer        `json:"initialSizeClassAnalyzer"`
}

type platformKeyExtractor struct {
	Action *empty `json:"action,omitempty"`
}

type invocationKeyExtractor struct {
	ToolInvocationID *empty `json:"toolInvocationId,omitempty"`
}

type sizeClassAnalyzer struct {
	DefaultExecutionTimeout duration `json:"defaultExecutionTimeout"`
	MaximumExecutionTimeout duration `json:"maximumExecutionTimeout"`
}

type platform struct {
	Properties []property `json:"properties,omitempty"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// worker is bb_worker's configuration.
type worker struct {
	Blobstore                blobstore               `json:"blobstore"`
	MaximumMessageSizeBytes  int64                   `json:"maximumMessageSizeBytes"`
	Scheduler                grpcClient              `json:"scheduler"`
	Global                   global                  `json:"global"`
	BuildDirectories         []buildDirectory        `json:"buildDirectories"`
	CompletedActionLoggers   []completedActionLogger `json:"completedActionLoggers,omitempty"`
	InputDownloadConcurrency int                     `json:"inputDownloadConcurrency"`
	OutputUploadConcurrency  int                     `json:"outputUploadConcurrency"`
	DirectoryCache           directoryCache          `json:"directoryCache"`
}

type blobstore struct {
	ContentAddressableStorage blobAccess `json:"contentAddressableStorage"`
	ActionCache               blobAccess `json:"actionCache"`
}

type buildDirectory struct {
	Native  nativeDirectory `json:"native"`
	Runners []runnerClient  `json:"runners"`
}

type nativeDirectory struct {
	BuildDirectoryPath     string `json:"buildDirectoryPath"`
	CacheDirectoryPath     string `json:"cacheDirectoryPath"`
	MaximumCacheFileCount  int    `json:"maximumCacheFileCount"`
	MaximumCacheSizeBytes  int64  `json:"maximumCacheSizeBytes"`
	CacheReplacementPolicy string `json:"cacheReplacementPolicy"`
}

type runnerClient struct {
	Endpoint    grpcClient     `json:"endpoint"`
	Concurrency int            `json:"concurrency"`
	Platform    platform       `json:"platform"`
	WorkerID    map[string]any `json:"workerId"`
}

type completedActionLogger struct {
	Client               grpcClient `json:"client"`
	MaximumSendQueueSize int        `json:"maximumSendQueueSize"`
}

type directoryCache struct {
	MaximumCount           int    `json:"maximumCount"`
	MaximumSizeBytes       int64  `json:"maximumSizeBytes"`
	CacheReplacementPolicy string `json:"cacheReplacementPolicy"`
}

// runner is bb_runner's configuration.
type runner struct {
	BuildDirectoryPath           string       `json:"buildDirectoryPath"`
	GRPCServers                  []grpcServer `json:"grpcServers"`
	Global                       global       `json:"global"`
	SetTmpdirEnvironmentVariable bool         `json:"setTmpdirEnvironmentVariable"`
}
