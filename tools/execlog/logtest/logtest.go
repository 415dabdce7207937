// Package logtest writes execution logs for tests.
package logtest

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/kiln-build/kiln/tools/execlog/logpb"
)

// JSON writes a log in the JSON format to a new file and gives its path.
func JSON(t *testing.T, spawns ...*logpb.SpawnExec) string {
	t.Helper()
	var out bytes.Buffer
	for _, s := range spawns {
		data, err := protojson.MarshalOptions{Multiline: true, EmitUnpopulated: true}.Marshal(s)
		require.NoError(t, err)
		out.Write(data)
	}
	path := filepath.Join(t.TempDir(), "log.json")
	require.NoError(t, os.WriteFile(path, out.Bytes(), 0o644))
	return path
}

// Compact gives a log in the compact format.
func Compact(t *testing.T, entries ...*logpb.ExecLogEntry) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out)
	require.NoError(t, err)
	for _, e := range entries {
		_, err := protodelim.MarshalTo(w, e)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return out.Bytes()
}

// Component gives the spawn of a component that a runner made, with a key, one
// output of 1000 bytes, and what it took: in the queue, to set up, to execute
// and to store the outputs. It began at start.
func Component(target, key, runner string, start time.Time, took ...time.Duration) *logpb.SpawnExec {
	var m [4]*durationpb.Duration
	total := 100 * time.Millisecond
	for i, d := range took {
		m[i] = durationpb.New(d)
		total += d
	}
	s := &logpb.SpawnExec{
		Mnemonic:        "KataComponent",
		TargetLabel:     target,
		CommandArgs:     []string{"tools/component", "build"},
		ListedOutputs:   []string{"bazel-out/" + target + ".tar.zst"},
		ActualOutputs:   []*logpb.SpawnExec_File{{Path: "bazel-out/" + target + ".tar.zst", Digest: &logpb.Digest{Hash: "0f", SizeBytes: 1000}}},
		Runner:          runner,
		CacheHit:        runner == "disk cache hit" || runner == "remote cache hit",
		Remotable:       true,
		Cacheable:       true,
		RemoteCacheable: true,
		Metrics: &logpb.SpawnMetrics{
			StartTime: timestamppb.New(start),
			TotalTime: durationpb.New(total),
			QueueTime: m[0], SetupTime: m[1], ExecutionWallTime: m[2], ProcessOutputsTime: m[3],
		},
	}
	if key != "" {
		s.Digest = &logpb.Digest{Hash: key, SizeBytes: 148}
	}
	return s
}
