package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/kiln-build/kiln/ci/buildbarn/config"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// readyWait is how long the processes may take to be ready. It takes two seconds
// on a machine that has nothing else to do.
const readyWait = 2 * time.Minute

// awaitReady waits until clients can be served and all workers are there.
func awaitReady(ctx context.Context, o Options) error {
	// A cause of its own tells the time limit from the end of the engine.
	late := exitcode.With(exitcode.Failed, fmt.Errorf("the engine is not ready after %v: see what its processes say in %s", readyWait, filepath.Join(o.State, "log")))
	ctx, cancel := context.WithTimeoutCause(ctx, readyWait, late)
	defer cancel()
	err := func() error {
		for _, port := range []int{o.Ports.Frontend, o.Ports.Client, o.Ports.Queue} {
			if err := awaitHealthy(ctx, config.Loopback(port)); err != nil {
				return err
			}
		}
		return awaitWorkers(ctx, "http://"+config.Loopback(o.Ports.Metrics)+"/metrics", o.Workers*o.Concurrency)
	}()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func awaitHealthy(ctx context.Context, address string) (err error) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("connecting to %s: %w", address, err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	client := grpc_health_v1.NewHealthClient(conn)
	for {
		_, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		if err == nil || !sleep(ctx, pollInterval) {
			return err
		}
		// gRPC itself waits longer and longer between its tries.
		conn.ResetConnectBackoff()
	}
}

const pollInterval = 50 * time.Millisecond

// awaitWorkers waits until the scheduler has heard of a number of worker threads.
func awaitWorkers(ctx context.Context, metrics string, wanted int) error {
	for {
		created, err := counter(ctx, metrics, workersCreated)
		if err == nil && created >= float64(wanted) {
			return nil
		}
		if !sleep(ctx, pollInterval) {
			return context.Cause(ctx)
		}
	}
}

const workersCreated = "buildbarn_builder_in_memory_build_queue_workers_created_total"

// counter gives the sum of a counter of all labels.
func counter(ctx context.Context, url, name string) (float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("GET %s: %s", url, response.Status)
	}
	return Sum(response.Body, name)
}

// Sum adds the values of a metric with all its labels in Prometheus' text format.
func Sum(r io.Reader, name string) (float64, error) {
	var sum float64
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), name)
		if !ok || rest == "" || (rest[0] != '{' && rest[0] != ' ') {
			continue
		}
		value, err := strconv.ParseFloat(rest[strings.LastIndex(rest, " ")+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("metric %s: %w", name, err)
		}
		sum += value
	}
	return sum, lines.Err()
}
