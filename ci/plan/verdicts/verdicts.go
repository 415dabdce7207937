// Package verdicts reads from Bazel's build events which tests passed and which
// ended without a result.
package verdicts

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// Verdicts is what became of the tests of one call of Bazel.
type Verdicts struct {
	// Passed counts the tests that passed.
	Passed int
	// Missing are the labels of the tests without a result, by platform:
	// the name of the folder that the test is in. Labels are sorted.
	Missing map[string][]string
	// Skipped are the labels of the tests that this machine cannot run,
	// sorted.
	Skipped []string
}

// event is what is of interest in one event; see build_event_stream.proto.
type event struct {
	ID struct {
		TargetConfigured struct{ Label string }
		TargetCompleted  struct{ Label string }
		TestSummary      struct{ Label string }
	}
	Aborted     struct{ Reason string }
	Configured  struct{ TestSize string }
	TestSummary struct{ OverallStatus string }
	Finished    *struct{ ExitCode struct{ Code int } }
}

// Read reads the build event protocol as Bazel writes it as JSON, one event
// after the other.
func Read(name string) (*Verdicts, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("reading Bazel's events: %w", err))
	}
	defer f.Close()
	ended := false
	tests, passed, skipped := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for decoder := json.NewDecoder(f); ; {
		var e event
		if err := decoder.Decode(&e); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, exitcode.With(exitcode.BadInput, fmt.Errorf("reading Bazel's events from %s: %w", name, err))
		}
		switch {
		case e.Finished != nil:
			// 0 to 4: what was asked for passed, did not build, or did not
			// pass. 34: the remote service refused. Anything else is trouble
			// of Bazel's own.
			code := e.Finished.ExitCode.Code
			ended = code <= 4 || code == 34
		case e.ID.TargetConfigured.Label != "" && e.Configured.TestSize != "":
			tests[e.ID.TargetConfigured.Label] = true
		case e.ID.TargetCompleted.Label != "" && e.Aborted.Reason == "SKIPPED":
			skipped[e.ID.TargetCompleted.Label] = true
		case e.ID.TestSummary.Label != "" && e.TestSummary.OverallStatus == "PASSED":
			passed[e.ID.TestSummary.Label] = true
		}
	}
	if !ended {
		return nil, exitcode.With(exitcode.Failed, fmt.Errorf("reading Bazel's events from %s: Bazel did not get to the end", name))
	}
	v := &Verdicts{Missing: map[string][]string{}, Skipped: []string{}}
	for label := range tests {
		switch {
		case skipped[label]:
			v.Skipped = append(v.Skipped, label)
		case passed[label]:
			v.Passed++
		default:
			platform := platformOf(label)
			v.Missing[platform] = append(v.Missing[platform], label)
		}
	}
	slices.Sort(v.Skipped)
	for _, labels := range v.Missing {
		slices.Sort(labels)
	}
	return v, nil
}

// platformOf gives the name of a test's folder.
func platformOf(label string) string {
	folder, _, _ := strings.Cut(label, ":")
	return path.Base(folder)
}
