// Command action_log takes note of every action that Buildbarn's workers
// executed. It is the receiver of their completed actions: one JSON object a
// line, written before the worker hears that it was received. Answers from a
// cache and requests that were merged with one in flight are not executions, so
// what is in this file is what really ran.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	remoteexecution "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/buildbarn/bb-remote-execution/pkg/proto/completedactionlogger"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

func main() {
	file := flag.String("file", "", "file to append to, or - for standard output")
	socket := flag.String("socket", "", "UNIX socket to listen on")
	limit := flag.Int64("limit", 64<<20, "bytes from which on a file is put aside at the start, with .1 behind its name")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *file, *socket, *limit); err != nil {
		fmt.Fprintln(os.Stderr, "action_log:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, file, socket string, limit int64) (err error) {
	l, err := openLog(file, limit)
	if err != nil {
		return fmt.Errorf("opening the log of actions: %w", err)
	}
	defer func() { err = errors.Join(err, l.file.Close()) }()

	// What a predecessor that was killed left behind.
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("making way for the socket: %w", err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(16 << 20))
	completedactionlogger.RegisterCompletedActionLoggerServer(server, l)
	defer context.AfterFunc(ctx, server.Stop)()
	if err := server.Serve(listener); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serving: %w", err)
	}
	return nil
}

// record is one execution.
type record struct {
	// UUID is the execution's own. A worker that lost the connection sends
	// again what it does not know to have been received.
	UUID string `json:"uuid"`
	// Digest is the action's, as hash/size.
	Digest   string `json:"digest"`
	Instance string `json:"instance"`
	// Worker is the thread's name, as the worker gives it.
	Worker string `json:"worker"`
	// Start and End are when the worker took the action and when it had
	// stored the outputs.
	Start time.Time `json:"start"`
	End   time.Time `json:"end"`
	// ExitCode is the command's.
	ExitCode int32 `json:"exit_code"`
	// Error is why the command did not come to an end, if it did not.
	Error string `json:"error,omitempty"`
	// Target, Mnemonic and Invocation are what the client said it is for.
	// Clients whose requests were merged with its are not named.
	Target     string `json:"target,omitempty"`
	Mnemonic   string `json:"mnemonic,omitempty"`
	Invocation string `json:"invocation,omitempty"`
}

func newRecord(action *completedactionlogger.CompletedAction) record {
	h := action.GetHistoricalExecuteResponse()
	metadata := h.GetExecuteResponse().GetResult().GetExecutionMetadata()
	r := record{
		UUID:     action.GetUuid(),
		Digest:   fmt.Sprintf("%s/%d", h.GetActionDigest().GetHash(), h.GetActionDigest().GetSizeBytes()),
		Instance: action.GetInstanceName(),
		Worker:   metadata.GetWorker(),
		Start:    metadata.GetWorkerStartTimestamp().AsTime(),
		End:      metadata.GetWorkerCompletedTimestamp().AsTime(),
		ExitCode: h.GetExecuteResponse().GetResult().GetExitCode(),
	}
	if err := status.ErrorProto(h.GetExecuteResponse().GetStatus()); err != nil {
		r.Error = err.Error()
	}
	for _, any := range metadata.GetAuxiliaryMetadata() {
		var request remoteexecution.RequestMetadata
		if any.MessageIs(&request) && any.UnmarshalTo(&request) == nil {
			r.Target = request.TargetId
			r.Mnemonic = request.ActionMnemonic
			r.Invocation = request.ToolInvocationId
		}
	}
	return r
}

// actionLog appends records to a file.
type actionLog struct {
	mu   sync.Mutex
	file *os.File
	seen map[string]bool
}

// openLog opens a log, of which a large one is put aside first, so that it
// takes no more than twice the limit.
func openLog(name string, limit int64) (*actionLog, error) {
	if name == "-" {
		return &actionLog{file: os.Stdout, seen: map[string]bool{}}, nil
	}
	if info, err := os.Stat(name); err == nil && info.Size() > limit {
		if err := os.Rename(name, name+".1"); err != nil {
			return nil, err
		}
	}
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	l := &actionLog{file: file, seen: map[string]bool{}}
	if err := l.recover(); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return l, nil
}

// recover reads which executions the file has already, and cuts off a line that
// a predecessor could not finish: it was not acknowledged, and comes again.
func (l *actionLog) recover() error {
	reader := bufio.NewReader(l.file)
	var complete int64
	for {
		line, err := reader.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return l.file.Truncate(complete)
		} else if err != nil {
			return err
		}
		complete += int64(len(line))
		var r record
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("%s: a line is not JSON: %w", l.file.Name(), err)
		}
		l.seen[r.UUID] = true
	}
}

func (l *actionLog) append(r record) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen[r.UUID] {
		return nil
	}
	// One write, so that nobody sees half a line. What a full disk leaves of
	// one is taken back.
	info, err := l.file.Stat()
	if err != nil {
		return err
	}
	if _, err := l.file.Write(append(line, '\n')); err != nil {
		if info.Mode().IsRegular() {
			err = errors.Join(err, l.file.Truncate(info.Size()))
		}
		return err
	}
	l.seen[r.UUID] = true
	return nil
}

// LogCompletedActions implements the service.
func (l *actionLog) LogCompletedActions(stream completedactionlogger.CompletedActionLogger_LogCompletedActionsServer) error {
	for {
		action, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := l.append(newRecord(action)); err != nil {
			return status.Errorf(codes.Unavailable, "Failed to append to the log of actions: %s", err)
		}
		if err := stream.Send(&emptypb.Empty{}); err != nil {
			return err
		}
	}
}
