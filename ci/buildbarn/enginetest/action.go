package enginetest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bazelbuild/remote-apis-sdks/go/pkg/client"
	"github.com/bazelbuild/remote-apis-sdks/go/pkg/digest"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/status"
)

// Client gives a client of the engine, closed with the test.
func (e *Engine) Client(t testing.TB) *client.Client {
	t.Helper()
	c, err := client.NewClient(t.Context(), "", client.DialParams{Service: e.Address(), NoSecurity: true})
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Action is a shell script to be executed.
type Action struct {
	Script string
	// Inputs are files by name, in the directory that the script starts in.
	Inputs map[string]string
	// Programs are executable files of this machine, by the name that they get
	// beside the inputs.
	Programs map[string]string
	// Outputs are the files that it makes.
	Outputs []string
	// Platform are the properties that a worker must have.
	Platform map[string]string
	// DoNotCache keeps the result out of the action cache, and requests from
	// being merged.
	DoNotCache bool
}

// Upload stores an action and all it needs, and gives its digest.
func Upload(ctx context.Context, c *client.Client, a Action) (*repb.Digest, error) {
	files := map[string][]byte{}
	for name, content := range a.Inputs {
		files[name] = []byte(content)
	}
	for name, program := range a.Programs {
		content, err := os.ReadFile(program)
		if err != nil {
			return nil, fmt.Errorf("reading a program: %w", err)
		}
		files[name] = content
	}
	root := &repb.Directory{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		content, err := c.WriteBlob(ctx, files[name])
		if err != nil {
			return nil, fmt.Errorf("uploading %s: %w", name, err)
		}
		_, executable := a.Programs[name]
		root.Files = append(root.Files, &repb.FileNode{Name: name, Digest: content.ToProto(), IsExecutable: executable})
	}
	command := &repb.Command{
		Arguments:   []string{"/bin/sh", "-c", a.Script},
		OutputPaths: slices.Sorted(slices.Values(a.Outputs)),
		EnvironmentVariables: []*repb.Command_EnvironmentVariable{
			{Name: "PATH", Value: "/usr/bin:/bin"},
		},
	}
	action := &repb.Action{DoNotCache: a.DoNotCache}
	if len(a.Platform) > 0 {
		action.Platform = &repb.Platform{}
		for _, name := range slices.Sorted(maps.Keys(a.Platform)) {
			action.Platform.Properties = append(action.Platform.Properties, &repb.Platform_Property{Name: name, Value: a.Platform[name]})
		}
	}
	rootDigest, err := c.WriteProto(ctx, root)
	if err != nil {
		return nil, fmt.Errorf("uploading the input root: %w", err)
	}
	commandDigest, err := c.WriteProto(ctx, command)
	if err != nil {
		return nil, fmt.Errorf("uploading the command: %w", err)
	}
	action.InputRootDigest, action.CommandDigest = rootDigest.ToProto(), commandDigest.ToProto()
	actionDigest, err := c.WriteProto(ctx, action)
	if err != nil {
		return nil, fmt.Errorf("uploading the action: %w", err)
	}
	return actionDigest.ToProto(), nil
}

// Execute asks for an action to be executed and waits for it. With skip, a result
// in the cache does not count. An error has the code of the failure; that a
// command ended with an exit code is none.
func Execute(ctx context.Context, c *client.Client, action *repb.Digest, skip bool) (*repb.ExecuteResponse, error) {
	operation, err := c.ExecuteAndWait(ctx, &repb.ExecuteRequest{ActionDigest: action, SkipCacheLookup: skip})
	if err != nil {
		return nil, fmt.Errorf("executing %s: %w", action.Hash, err)
	}
	response := &repb.ExecuteResponse{}
	if err := operation.GetResponse().UnmarshalTo(response); err != nil {
		return nil, fmt.Errorf("executing %s: %w", action.Hash, err)
	}
	if err := status.ErrorProto(response.Status); err != nil {
		return nil, fmt.Errorf("executing %s: %w", action.Hash, err)
	}
	return response, nil
}

// Run uploads an action and executes it.
func (e *Engine) Run(t testing.TB, a Action) *repb.ExecuteResponse {
	t.Helper()
	c := e.Client(t)
	action, err := Upload(t.Context(), c, a)
	require.NoError(t, err)
	response, err := Execute(t.Context(), c, action, false)
	require.NoError(t, err)
	return response
}

// Output gives the content of a file that an action made.
func Output(t testing.TB, c *client.Client, result *repb.ActionResult, name string) string {
	t.Helper()
	for _, f := range result.OutputFiles {
		if f.Path == name {
			content, _, err := c.ReadBlob(t.Context(), digest.NewFromProtoUnvalidated(f.Digest))
			require.NoError(t, err)
			return string(content)
		}
	}
	require.Failf(t, "no output", "%s is not in %v", name, result)
	return ""
}

// Execution is one that a worker did, as engine.Endpoints.Executed has it.
type Execution struct {
	UUID     string    `json:"uuid"`
	Digest   string    `json:"digest"`
	Worker   string    `json:"worker"`
	Start    time.Time `json:"start"`
	End      time.Time `json:"end"`
	ExitCode int       `json:"exit_code"`
	Error    string    `json:"error"`
	Mnemonic string    `json:"mnemonic"`
	Target   string    `json:"target"`
}

// Executions reads what has been executed so far. A client may have its answer a
// moment before the execution is noted.
func (e *Engine) Executions(t testing.TB) []Execution {
	t.Helper()
	f, err := os.Open(e.Executed)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	require.NoError(t, err)
	defer f.Close()
	var all []Execution
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var one Execution
		require.NoError(t, json.Unmarshal(lines.Bytes(), &one))
		all = append(all, one)
	}
	require.NoError(t, lines.Err())
	return all
}

// Counted waits until everything that was executed is noted, and gives how often
// an action was executed.
func (e *Engine) Counted(t testing.TB, action *repb.Digest) int {
	t.Helper()
	return e.Counts(t)[action.Hash]
}

// Counts waits until everything that was executed is noted, and gives by the hash
// of an action how often it was executed. To know that it executes one of its own.
func (e *Engine) Counts(t testing.TB) map[string]int {
	t.Helper()
	c := e.Client(t)
	marker, err := Upload(t.Context(), c, Action{Script: fmt.Sprintf(": %d", time.Now().UnixNano()), DoNotCache: true})
	require.NoError(t, err)
	_, err = Execute(t.Context(), c, marker, false)
	require.NoError(t, err)
	counts := func() map[string]int {
		all := map[string]int{}
		for _, x := range e.Executions(t) {
			hash, _, _ := strings.Cut(x.Digest, "/")
			all[hash]++
		}
		return all
	}
	require.Eventually(t, func() bool { return counts()[marker.Hash] > 0 },
		10*time.Second, 20*time.Millisecond, "the workers do not tell what they execute")
	// One worker tells in order. Another one has had as long to tell.
	time.Sleep(100 * time.Millisecond)
	return counts()
}
