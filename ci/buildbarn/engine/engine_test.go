package engine_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/ci/buildbarn/engine"
)

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "17": 17, "17B": 17, "64KiB": 64 << 10, "3MiB": 3 << 20, "20GiB": 20 << 30, "2TiB": 2 << 40,
	} {
		var s engine.Size
		require.NoError(t, s.Set(text), text)
		require.Equal(t, want, int64(s), text)
	}
	for _, text := range []string{"", "GiB", "-1", "1.5GiB", "20GB", "20gib", "20 GiB", "1GiBGiB", "9000000TiB"} {
		var s engine.Size
		require.ErrorContains(t, s.Set(text), "is not a size like 20GiB", text)
	}
	for size, want := range map[engine.Size]string{0: "0B", 1023: "1023B", 20 << 30: "20GiB", 1536: "1536B", 3000 << 40: "3000TiB"} {
		require.Equal(t, want, size.String())
	}
}

func TestSum(t *testing.T) {
	const metrics = `# HELP tasks_total How many.
# TYPE tasks_total counter
tasks_total{kind="a b"} 2
tasks_total{kind="c"} 40
tasks_total_of_others 7
tasks 1e3
`
	for name, want := range map[string]float64{"tasks_total": 42, "tasks": 1000, "absent": 0} {
		sum, err := engine.Sum(strings.NewReader(metrics), name)
		require.NoError(t, err)
		require.Equal(t, want, sum, name)
	}
	_, err := engine.Sum(strings.NewReader("tasks many\n"), "tasks")
	require.ErrorContains(t, err, "metric tasks")
}

func TestThereIsNoEngineToFind(t *testing.T) {
	dir := t.TempDir()
	_, err := engine.ReadEndpoints(dir)
	require.ErrorContains(t, err, "no engine runs in "+dir)
}
