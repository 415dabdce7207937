// Package nested runs Bazel on a workspace from within a test or a tool that
// Bazel itself started.
package nested

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// CommandVariable is the environment variable in which bazelw says how Bazel is
// called: its path and startup options, separated by newlines.
const CommandVariable = "KILN_NESTED_BAZEL"

// A Bazel runs commands on one workspace.
type Bazel struct {
	// Workspace is the folder that holds MODULE.bazel.
	Workspace string
	// OutputBase is where Bazel keeps what it fetched and built for this
	// workspace. Two users of the same one wait for each other.
	OutputBase string
	// Startup are further startup options.
	Startup []string
	// Log receives what Bazel prints.
	Log io.Writer
	// Output, if it is not nil, receives the results of queries in place of
	// Log.
	Output io.Writer
}

// Command gives the command line of Bazel up to and including its startup
// options.
func Command() ([]string, error) {
	if value := os.Getenv(CommandVariable); value != "" {
		return strings.Split(value, "\n"), nil
	}
	for _, name := range []string{"bazelisk", "bazel"} {
		if found, err := exec.LookPath(name); err == nil {
			return []string{found}, nil
		}
	}
	return nil, fmt.Errorf("no Bazel to run: neither bazelisk nor bazel is on the PATH, and %s is not set; start this with ./bazelw", CommandVariable)
}

// Run runs one command, such as ("build", "//payload:tdx"). When the context
// ends Bazel is interrupted, so that it keeps what it has built so far.
func (b *Bazel) Run(ctx context.Context, command string, args ...string) error {
	line, err := Command()
	if err != nil {
		return err
	}
	line = append(line, "--output_base="+b.OutputBase, "--max_idle_secs=60")
	line = append(append(line, b.Startup...), command)
	if command != "shutdown" {
		// The caller's bazel-bin links stay as they are.
		line = append(line, "--symlink_prefix=/", "--color=no", "--curses=no", "--show_progress_rate_limit=30")
	}
	line = append(line, args...)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Dir = b.Workspace
	cmd.Stdout, cmd.Stderr = b.Log, b.Log
	if b.Output != nil {
		cmd.Stdout = b.Output
	}
	cmd.Env = environment(os.Environ())
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = 30 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("running bazel %s %s in %s: %w", command, strings.Join(args, " "), b.Workspace, err)
	}
	return nil
}

// environment leaves out what a test runner set for the test alone: a nested
// Bazel takes some of it for its own.
func environment(all []string) []string {
	var kept []string
	for _, entry := range all {
		name, _, _ := strings.Cut(entry, "=")
		switch {
		case strings.HasPrefix(name, "TEST_"), strings.HasPrefix(name, "RUNFILES_"), strings.HasPrefix(name, "JAVA_RUNFILES"),
			name == "BAZEL_TEST", name == "XML_OUTPUT_FILE", name == "PYTHON_RUNFILES":
		default:
			kept = append(kept, entry)
		}
	}
	return kept
}

// Shutdown ends the server that Run started, if there is one.
func (b *Bazel) Shutdown(ctx context.Context) error { return b.Run(ctx, "shutdown") }

// WorkspaceOf gives the workspace that a file of it, seen through the links of a
// runfiles tree, lies in: the closest folder above with a MODULE.bazel.
func WorkspaceOf(runfile string) (string, error) {
	real, err := filepath.EvalSymlinks(runfile)
	if err != nil {
		return "", fmt.Errorf("finding the workspace: %w", err)
	}
	return WorkspaceAbove(filepath.Dir(real))
}

// WorkspaceAbove gives the workspace that a folder lies in: the closest one, from
// the folder itself upwards, with a MODULE.bazel.
func WorkspaceAbove(folder string) (string, error) {
	for dir := folder; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "MODULE.bazel")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("finding the workspace: no MODULE.bazel in or above %s", folder)
		}
	}
}
