// Package plan finds out which platforms' tests have no verdict in the cache
// for the tree as it is. It executes nothing.
//
// Bazel is told to run the tests remotely, on a server that only reads from the
// cache and refuses to execute; see package cacheonly. A test that passes there
// has a verdict. What is refused first is what changed.
package plan

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/grpc"

	"github.com/kiln-build/kiln/ci/plan/cacheonly"
	"github.com/kiln-build/kiln/ci/plan/verdicts"
	"github.com/kiln-build/kiln/tools/exitcode"
	"github.com/kiln-build/kiln/tools/nested"
)

// Tag is the tag of the tests that a platform's verdict is made of.
const Tag = "platform"

// Targets is the pattern below which those tests are.
const Targets = "//tests/..."

// ComponentMnemonic is the mnemonic of the action that makes a component.
const ComponentMnemonic = "KataComponent"

// Options say what to plan.
type Options struct {
	// Bazel runs on the workspace to plan for. Its output base should be no
	// one else's: the options below discard what it holds in memory.
	Bazel nested.Bazel
	// BazelOptions are added to the command, for example the options with
	// which the tests will be run.
	BazelOptions []string
	// Cache is read beside the disk cache that Bazel's own options name.
	Cache cacheonly.Cache
}

// A Platform is one whose tests have no verdict, or not all of them.
type Platform struct {
	// Name is that of the platform: the folder below tests.
	Name string `json:"platform"`
	// Tests are the labels of the tests without a verdict.
	Tests []string `json:"tests"`
	// Why are the actions that the cache has no result of and that others
	// wait for, components first.
	Why []Cause `json:"why"`
}

// A Cause is one action that would have to be executed.
type Cause struct {
	Target   string `json:"target"`
	Mnemonic string `json:"mnemonic"`
	// Key is the action's digest: hash/size.
	Key string `json:"key"`
}

// Result is what was found.
type Result struct {
	// Platforms are those without a verdict, by name.
	Platforms []Platform `json:"platforms"`
	// Verdicts counts the tests that passed according to the cache.
	Verdicts int `json:"verdicts"`
	// Skipped are the tests that this machine could not run at all.
	Skipped []string `json:"skipped"`
}

// Make makes the plan.
func Make(ctx context.Context, o Options) (_ *Result, err error) {
	dir, err := os.MkdirTemp("", "kiln-plan-")
	if err != nil {
		return nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("making a folder for Bazel's events: %w", err))
	}
	defer func() {
		if rerr := os.RemoveAll(dir); err == nil && rerr != nil {
			err = exitcode.With(exitcode.LocalIO, fmt.Errorf("cleaning up: %w", rerr))
		}
	}()
	server := cacheonly.New(o.Cache)
	endpoint, stop, err := serve(server)
	if err != nil {
		return nil, err
	}
	defer stop()

	events := filepath.Join(dir, "events.json")
	args := slices.Concat(o.BazelOptions, []string{
		"--keep_going",
		"--build_tests_only",
		"--test_tag_filters=" + Tag,
		// That a verdict on the code is missing is no reason to run a test.
		"--norun_validations",
		"--build_event_json_file=" + events,
		"--nobuild_event_json_file_path_conversion",
		"--remote_executor=" + endpoint,
		"--remote_cache=",
		"--noremote_upload_local_results",
		"--remote_accept_cached",
		"--noremote_local_fallback",
		"--remote_retries=0",
		"--remote_download_outputs=minimal",
		"--spawn_strategy=remote",
		"--strategy=TestRunner=remote",
		// What this output base remembers of an earlier call may have left
		// the cache since.
		"--nouse_action_cache",
		"--cache_test_results=yes",
		Targets,
	})
	runErr := o.Bazel.Run(ctx, "test", args...)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err := server.Err(); err != nil {
		return nil, exitcode.With(exitcode.Unreachable, fmt.Errorf("asking the cache: %w", err))
	}
	found, err := verdicts.Read(events)
	if err != nil {
		return nil, errors.Join(err, runErr)
	}
	result := &Result{Platforms: []Platform{}, Verdicts: found.Passed, Skipped: found.Skipped}
	if len(found.Missing) == 0 {
		// Without a verdict for all, Bazel ends with an error of its own.
		if runErr != nil {
			return nil, fmt.Errorf("asking Bazel for the tests: %w", runErr)
		}
		return result, nil
	}
	refused := server.Refused()
	if len(refused) == 0 {
		// Not the cache's fault: a build file is broken, for example.
		return nil, fmt.Errorf("asking Bazel for the tests: it did not get as far as the cache: %w", runErr)
	}
	for _, name := range slices.Sorted(maps.Keys(found.Missing)) {
		causes, err := o.causes(ctx, found.Missing[name], refused)
		if err != nil {
			return nil, fmt.Errorf("finding out why platform %s has no verdict: %w", name, err)
		}
		result.Platforms = append(result.Platforms, Platform{Name: name, Tests: found.Missing[name], Why: causes})
	}
	return result, nil
}

// serve starts a server on a free port of the loopback interface.
func serve(s *cacheonly.Server) (endpoint string, stop func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, exitcode.With(exitcode.LocalIO, fmt.Errorf("listening for Bazel: %w", err))
	}
	server := grpc.NewServer()
	s.Register(server)
	go func() {
		// Ends with an error only if the listener does, and then Bazel says so.
		_ = server.Serve(listener)
	}()
	return "grpc://" + listener.Addr().String(), server.Stop, nil
}

// causes gives the refused actions that tests depend on.
func (o Options) causes(ctx context.Context, tests []string, refused []cacheonly.Action) ([]Cause, error) {
	bazel := o.Bazel
	var labels bytes.Buffer
	bazel.Output = &labels
	query := "deps(set(" + strings.Join(tests, " ") + "))"
	if err := bazel.Run(ctx, "cquery", slices.Concat(o.BazelOptions, []string{"--output=label", query})...); err != nil {
		return nil, err
	}
	needed := map[string]bool{}
	for line := range strings.Lines(labels.String()) {
		label, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		needed[label] = true
	}
	var components, others []Cause
	for _, action := range refused {
		if !needed[action.Target] {
			continue
		}
		cause := Cause{Target: action.Target, Mnemonic: action.Mnemonic, Key: action.Digest}
		if action.Mnemonic == ComponentMnemonic {
			components = append(components, cause)
		} else {
			others = append(others, cause)
		}
	}
	return append(components, others...), nil
}
