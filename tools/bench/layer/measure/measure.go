// Package measure compares packing a layer with piping tar into zstd.
package measure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// Run is one way to pack the data, once.
type Run struct {
	Wall time.Duration
	// CPU is user and system time of all processes.
	CPU time.Duration
	// PeakBytes is the largest resident size, summed over the processes.
	PeakBytes int64
	Size      int64
}

// Summary is what several runs of one way come to.
type Summary struct {
	Name string `json:"name"`
	// WallSeconds and CPUSeconds are medians.
	WallSeconds float64 `json:"wallSeconds"`
	CPUSeconds  float64 `json:"cpuSeconds"`
	// PeakBytes is the largest of all runs.
	PeakBytes int64 `json:"peakBytes"`
	Size      int64 `json:"size"`
}

// Report is the comparison.
type Report struct {
	Bytes int64 `json:"bytes"`
	Files int   `json:"files"`
	CPUs  int   `json:"cpus"`
	Runs  int   `json:"runs"`
	// Layer is Kiln's packing, References are tar piped into zstd, the
	// first at the level that the layer's is named after.
	Layer      Summary   `json:"layer"`
	References []Summary `json:"references"`
	// TimeRatio is the layer's time by that of the first reference: the
	// median of the ratios of runs that followed on each other.
	TimeRatio float64 `json:"timeRatio"`
	Held      bool    `json:"held"`
}

// The bar.
const (
	MaxRatio = 1.10
	MaxBytes = 64 << 20
)

// Pipe packs dir with tar and zstd into the file out.
func Pipe(ctx context.Context, dir, out string, level int) (Run, error) {
	// The order, owners and times that the layer's tar has as well.
	tar := exec.CommandContext(ctx, "tar", "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0", "-C", dir, "-cf", "-", ".")
	zstd := exec.CommandContext(ctx, "zstd", "-q", "-f", "-"+strconv.Itoa(level), "-T0", "-o", out)
	r, w, err := os.Pipe()
	if err != nil {
		return Run{}, exitcode.With(exitcode.LocalIO, fmt.Errorf("making a pipe: %w", err))
	}
	tar.Stdout, zstd.Stdin = w, r
	return timed(out, []*exec.Cmd{tar, zstd}, func() { r.Close(); w.Close() })
}

// Self packs dir into the file out with this very program, started anew with
// the given arguments, so that its memory counts from zero.
func Self(ctx context.Context, out string, args ...string) (Run, error) {
	self, err := os.Executable()
	if err != nil {
		return Run{}, exitcode.With(exitcode.LocalIO, fmt.Errorf("finding this program: %w", err))
	}
	return timed(out, []*exec.Cmd{exec.CommandContext(ctx, self, args...)}, func() {})
}

func timed(out string, cmds []*exec.Cmd, started func()) (Run, error) {
	start := time.Now()
	var errs []error
	for _, c := range cmds {
		c.Stderr = os.Stderr
		if err := c.Start(); err != nil {
			errs = append(errs, fmt.Errorf("starting %s: %w", c.Path, err))
		}
	}
	started()
	for _, c := range cmds {
		if c.Process == nil {
			continue
		}
		if err := c.Wait(); err != nil {
			errs = append(errs, fmt.Errorf("running %s: %w", filepath.Base(c.Path), err))
		}
	}
	run := Run{Wall: time.Since(start)}
	if err := errors.Join(errs...); err != nil {
		return Run{}, exitcode.With(exitcode.Failed, err)
	}
	for _, c := range cmds {
		run.CPU += c.ProcessState.UserTime() + c.ProcessState.SystemTime()
		if usage, ok := c.ProcessState.SysUsage().(*syscall.Rusage); ok {
			run.PeakBytes += usage.Maxrss << 10
		}
	}
	info, err := os.Stat(out)
	if err != nil {
		return Run{}, exitcode.With(exitcode.LocalIO, fmt.Errorf("reading the result: %w", err))
	}
	run.Size = info.Size()
	return run, nil
}

// Summarize gives the medians and the largest peak.
func Summarize(name string, runs []Run) Summary {
	s := Summary{Name: name}
	var wall, cpu []float64
	for _, r := range runs {
		wall = append(wall, r.Wall.Seconds())
		cpu = append(cpu, r.CPU.Seconds())
		s.PeakBytes = max(s.PeakBytes, r.PeakBytes)
		s.Size = r.Size
	}
	s.WallSeconds, s.CPUSeconds = median(wall), median(cpu)
	return s
}

// Ratio is the median of the ratios of runs in the same place of both lists.
// They ran one after the other, so that what else the machine did is in both.
func Ratio(a, b []Run) float64 {
	ratios := make([]float64, 0, len(a))
	for i := range min(len(a), len(b)) {
		ratios = append(ratios, a[i].Wall.Seconds()/b[i].Wall.Seconds())
	}
	return median(ratios)
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}
