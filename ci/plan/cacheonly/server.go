// Package cacheonly serves the remote execution API (REAPI v2) to a Bazel that
// must not build anything: it reads from a cache, writes nothing, refuses to
// execute, and remembers what it was asked to.
//
// Bazel itself computes the keys, so what it asks to execute is exactly what
// the cache lacks; an action that needs the result of a refused one is not even
// asked for.
package cacheonly

import (
	"context"
	"errors"
	"io"
	"strconv"
	"sync"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/bazelbuild/remote-apis/build/bazel/semver"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Cache is what is read from: a client of remote-apis-sdks, or Nothing.
type Cache interface {
	GetActionResult(ctx context.Context, req *repb.GetActionResultRequest) (*repb.ActionResult, error)
	BatchReadBlobs(ctx context.Context, req *repb.BatchReadBlobsRequest) (*repb.BatchReadBlobsResponse, error)
	Read(ctx context.Context, req *bspb.ReadRequest) (bspb.ByteStream_ReadClient, error)
}

// Nothing is a cache in which nothing is.
type Nothing struct{}

// GetActionResult never finds a result.
func (Nothing) GetActionResult(context.Context, *repb.GetActionResultRequest) (*repb.ActionResult, error) {
	return nil, status.Error(codes.NotFound, "there is no cache")
}

// BatchReadBlobs finds none of the blobs.
func (Nothing) BatchReadBlobs(_ context.Context, req *repb.BatchReadBlobsRequest) (*repb.BatchReadBlobsResponse, error) {
	response := new(repb.BatchReadBlobsResponse)
	for _, digest := range req.GetDigests() {
		response.Responses = append(response.Responses, &repb.BatchReadBlobsResponse_Response{
			Digest: digest,
			Status: status.New(codes.NotFound, "there is no cache").Proto(),
		})
	}
	return response, nil
}

// Read finds no blob.
func (Nothing) Read(context.Context, *bspb.ReadRequest) (bspb.ByteStream_ReadClient, error) {
	return nil, status.Error(codes.NotFound, "there is no cache")
}

// An Action is one that the cache has no result of.
type Action struct {
	// Target is the label of the target that the action belongs to.
	Target string
	// Mnemonic is the kind of the action, such as KataComponent.
	Mnemonic string
	// Digest is the action's key: hash/size.
	Digest string
}

// Server answers Bazel. It is safe for concurrent use.
type Server struct {
	repb.UnimplementedActionCacheServer
	repb.UnimplementedCapabilitiesServer
	repb.UnimplementedContentAddressableStorageServer
	repb.UnimplementedExecutionServer
	bspb.UnimplementedByteStreamServer

	cache Cache

	mu      sync.Mutex
	refused []Action
	failure error
}

// New gives a server that reads from a cache.
func New(cache Cache) *Server { return &Server{cache: cache} }

// Register registers all services.
func (s *Server) Register(registrar *grpc.Server) {
	repb.RegisterActionCacheServer(registrar, s)
	repb.RegisterCapabilitiesServer(registrar, s)
	repb.RegisterContentAddressableStorageServer(registrar, s)
	repb.RegisterExecutionServer(registrar, s)
	bspb.RegisterByteStreamServer(registrar, s)
}

// Refused gives the actions that had to be executed, in the order in which
// Bazel came to them, each once.
func (s *Server) Refused() []Action {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Action(nil), s.refused...)
}

// Err gives the first error of the cache that does not just say that something
// is not there: with such an error, Refused means nothing.
func (s *Server) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure
}

// note keeps an error of the cache, unless it is an answer.
func (s *Server) note(ctx context.Context, err error) {
	if err == nil || status.Code(err) == codes.NotFound || ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure == nil {
		s.failure = err
	}
}

// GetCapabilities offers execution, so that Bazel sends what it would execute.
func (s *Server) GetCapabilities(context.Context, *repb.GetCapabilitiesRequest) (*repb.ServerCapabilities, error) {
	sha256 := []repb.DigestFunction_Value{repb.DigestFunction_SHA256}
	return &repb.ServerCapabilities{
		CacheCapabilities: &repb.CacheCapabilities{
			DigestFunctions:               sha256,
			ActionCacheUpdateCapabilities: &repb.ActionCacheUpdateCapabilities{},
			SymlinkAbsolutePathStrategy:   repb.SymlinkAbsolutePathStrategy_ALLOWED,
		},
		ExecutionCapabilities: &repb.ExecutionCapabilities{
			DigestFunction: repb.DigestFunction_SHA256,
			ExecEnabled:    true,
		},
		LowApiVersion:  &semver.SemVer{Major: 2},
		HighApiVersion: &semver.SemVer{Major: 2},
	}, nil
}

// GetActionResult asks the cache.
func (s *Server) GetActionResult(ctx context.Context, req *repb.GetActionResultRequest) (*repb.ActionResult, error) {
	result, err := s.cache.GetActionResult(ctx, req)
	s.note(ctx, err)
	return result, err
}

// FindMissingBlobs says that all is there, so that nothing is uploaded.
func (s *Server) FindMissingBlobs(context.Context, *repb.FindMissingBlobsRequest) (*repb.FindMissingBlobsResponse, error) {
	return &repb.FindMissingBlobsResponse{}, nil
}

// BatchReadBlobs asks the cache.
func (s *Server) BatchReadBlobs(ctx context.Context, req *repb.BatchReadBlobsRequest) (*repb.BatchReadBlobsResponse, error) {
	response, err := s.cache.BatchReadBlobs(ctx, req)
	s.note(ctx, err)
	return response, err
}

// Read asks the cache.
func (s *Server) Read(req *bspb.ReadRequest, to bspb.ByteStream_ReadServer) error {
	from, err := s.cache.Read(to.Context(), req)
	for err == nil {
		var part *bspb.ReadResponse
		if part, err = from.Recv(); err == nil {
			err = to.Send(part)
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	s.note(to.Context(), err)
	return err
}

// metadataHeader carries a RequestMetadata; see remote_execution.proto.
const metadataHeader = "build.bazel.remote.execution.v2.requestmetadata-bin"

// Execute remembers the action and refuses it.
func (s *Server) Execute(req *repb.ExecuteRequest, stream repb.Execution_ExecuteServer) error {
	var of repb.RequestMetadata
	headers, _ := metadata.FromIncomingContext(stream.Context())
	for _, value := range headers.Get(metadataHeader) {
		if err := proto.Unmarshal([]byte(value), &of); err != nil {
			return status.Errorf(codes.InvalidArgument, "reading the request's metadata: %v", err)
		}
	}
	action := Action{Target: of.GetTargetId(), Mnemonic: of.GetActionMnemonic(), Digest: digestString(req.GetActionDigest())}
	s.mu.Lock()
	known := false
	for _, other := range s.refused {
		known = known || other == action
	}
	if !known {
		s.refused = append(s.refused, action)
	}
	s.mu.Unlock()
	return status.Errorf(codes.PermissionDenied, "the cache has no result of %s %s, and nothing is executed here", action.Mnemonic, action.Target)
}

// digestString writes a digest as logs and tools do.
func digestString(d *repb.Digest) string {
	return d.GetHash() + "/" + strconv.FormatInt(d.GetSizeBytes(), 10)
}
