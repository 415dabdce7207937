// Package criclient asks a node's container runtime, over the interface that the
// kubelet uses, what it really serves.
package criclient

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kiln-build/kiln/tools/exitcode"
)

const (
	interval = 250 * time.Millisecond
	// attempt is how long one question may take: a runtime that starts accepts
	// connections before it answers.
	attempt = 5 * time.Second
)

// Client asks the runtime at a socket.
type Client struct {
	// Socket is its path.
	Socket string
}

// Status is what a runtime says of itself.
type Status struct {
	// Ready says that it takes sandboxes; Problem says why not.
	Ready   bool
	Problem string
	// Handlers are the names that a RuntimeClass may have as its handler, sorted.
	Handlers []string
	// Told says that the runtime tells its handlers. Older ones do not.
	Told bool
}

// ask asks one question, of which the error says what it was for.
func ask[T any](ctx context.Context, c *Client, what string, question func(context.Context, cri.RuntimeServiceClient) (T, error)) (T, error) {
	conn, err := grpc.NewClient("unix://"+c.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		var none T
		return none, exitcode.With(exitcode.BadInput, fmt.Errorf("talking to the runtime at %s: %w", c.Socket, err))
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	answer, err := question(ctx, cri.NewRuntimeServiceClient(conn))
	if err != nil {
		err = exitcode.With(exitcode.Unreachable, fmt.Errorf("asking the runtime at %s for its %s: %w", c.Socket, what, err))
	}
	return answer, err
}

// Status asks once.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	response, err := ask(ctx, c, "status", func(ctx context.Context, client cri.RuntimeServiceClient) (*cri.StatusResponse, error) {
		return client.Status(ctx, &cri.StatusRequest{Verbose: true})
	})
	if err != nil {
		return nil, err
	}
	return read(response)
}

// Version says which runtime it is, as the status of a node says it: NAME://VERSION.
func (c *Client) Version(ctx context.Context) (string, error) {
	response, err := ask(ctx, c, "version", func(ctx context.Context, client cri.RuntimeServiceClient) (*cri.VersionResponse, error) {
		return client.Version(ctx, &cri.VersionRequest{})
	})
	if err != nil {
		return "", err
	}
	return response.GetRuntimeName() + "://" + response.GetRuntimeVersion(), nil
}

func read(response *cri.StatusResponse) (*Status, error) {
	s := &Status{Problem: "it does not say that it is ready"}
	for _, condition := range response.GetStatus().GetConditions() {
		if condition.GetType() == cri.RuntimeReady {
			s.Ready = condition.GetStatus()
			s.Problem = strings.TrimSpace(condition.GetReason() + ": " + condition.GetMessage())
		}
	}
	if s.Ready {
		s.Problem = ""
	}
	for _, handler := range response.GetRuntimeHandlers() {
		// The default handler is there a second time, without a name.
		if handler.GetName() != "" {
			s.Handlers = append(s.Handlers, handler.GetName())
		}
		s.Told = true
	}
	if !s.Told {
		// containerd before 2.0 says it only as part of its configuration.
		if text, ok := response.GetInfo()["config"]; ok && strings.HasPrefix(strings.TrimSpace(text), "{") {
			var config struct {
				Containerd struct {
					Runtimes map[string]json.RawMessage `json:"runtimes"`
				} `json:"containerd"`
			}
			if err := json.Unmarshal([]byte(text), &config); err != nil {
				return nil, fmt.Errorf("reading the configuration that the runtime reports: %w", err)
			}
			for name := range config.Containerd.Runtimes {
				s.Handlers = append(s.Handlers, name)
				s.Told = true
			}
		}
	}
	slices.Sort(s.Handlers)
	return s, nil
}

// Wait asks until the runtime is ready, or ctx ends.
func (c *Client) Wait(ctx context.Context) (*Status, error) {
	for {
		s, err := c.Status(ctx)
		if err == nil && s.Ready {
			return s, nil
		}
		select {
		case <-ctx.Done():
			if err == nil {
				err = exitcode.With(exitcode.Failed, fmt.Errorf("the runtime at %s is not ready: %s", c.Socket, s.Problem))
			}
			return nil, fmt.Errorf("waiting for the runtime: %w (%w)", err, context.Cause(ctx))
		case <-time.After(interval):
		}
	}
}
