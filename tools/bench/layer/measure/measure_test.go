package measure_test

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/bench/layer/measure"
)

func runs(seconds ...int) []measure.Run {
	var out []measure.Run
	for i, s := range seconds {
		out = append(out, measure.Run{Wall: time.Duration(s) * time.Second, CPU: time.Duration(2*s) * time.Second, PeakBytes: int64(100 + i), Size: 7})
	}
	return out
}

func TestSummarize(t *testing.T) {
	for name, tc := range map[string]struct {
		runs []measure.Run
		want measure.Summary
	}{
		"odd":  {runs(9, 1, 2), measure.Summary{Name: "x", WallSeconds: 2, CPUSeconds: 4, PeakBytes: 102, Size: 7}},
		"even": {runs(9, 1, 2, 3), measure.Summary{Name: "x", WallSeconds: 2.5, CPUSeconds: 5, PeakBytes: 103, Size: 7}},
		"none": {nil, measure.Summary{Name: "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, tc.want, measure.Summarize("x", tc.runs))
		})
	}
}

func TestRatioComparesNeighbours(t *testing.T) {
	// The machine was busy during the second pair, which says nothing.
	require.InDelta(t, 0.5, measure.Ratio(runs(1, 50, 2), runs(2, 100, 4)), 1e-9)
}

func digest(t *testing.T, dir string) (string, int64) {
	t.Helper()
	h := sha256.New()
	var size int64
	require.NoError(t, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		_, _ = io.WriteString(h, filepath.Base(name))
		data, err := os.ReadFile(name)
		h.Write(data)
		size += int64(len(data))
		return err
	}))
	return hex.EncodeToString(h.Sum(nil)), size
}

func TestGenerateIsTheSameEverywhere(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	require.NoError(t, measure.Generate(a, 2<<20))
	require.NoError(t, measure.Generate(b, 2<<20))
	first, size := digest(t, a)
	second, _ := digest(t, b)
	require.Equal(t, first, second)
	require.InDelta(t, 2<<20, size, 1<<18)
}
