package nested_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/nested"
)

func TestEvents(t *testing.T) {
	events := filepath.Join(t.TempDir(), "events.json")
	require.NoError(t, os.WriteFile(events, []byte(`{"id":{"started":{}},"started":{"uuid":"x","startTimeMillis":"1790258400000","startTime":"2026-09-24T14:00:00.250Z"}}
{"id":{"namedSet":{"id":"0"}},"namedSetOfFiles":{"files":[{"name":"a","uri":"file:///out/a"},{"name":"b","uri":"file:///out/b"}]}}
`), 0o600))
	files, err := nested.OutputFiles(events)
	require.NoError(t, err)
	require.Equal(t, []string{"/out/a", "/out/b"}, files)
	started, err := nested.Started(events)
	require.NoError(t, err)
	require.True(t, started.Equal(time.Date(2026, 9, 24, 14, 0, 0, 250e6, time.UTC)), started)
}

func TestEventsOfABuildThatDidNotStart(t *testing.T) {
	events := filepath.Join(t.TempDir(), "events.json")
	require.NoError(t, os.WriteFile(events, nil, 0o600))
	_, err := nested.Started(events)
	require.ErrorContains(t, err, "none says when it started")
	require.NoError(t, os.WriteFile(events, []byte(`{"id":`), 0o600))
	_, err = nested.OutputFiles(events)
	require.ErrorContains(t, err, "reading the events of a build: unexpected EOF")
}
