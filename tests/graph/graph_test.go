//go:build bazel

// The tests of this package change one input of the payload and read from
// Bazel's execution log what was executed again. They run Bazel on the workspace
// that they were built from, with an output base of their own.
package graph_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/bazelbuild/rules_go/go/runfiles"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/execlog"
	"github.com/kiln-build/kiln/tools/nested"
	"github.com/kiln-build/kiln/tools/nested/nestedtest"
)

const (
	payload    = "//payload:tdx"
	otherAgent = "--//stack/agent:agent=//tests/graph:other_agent"
)

func TestWhatAChangeExecutesAgain(t *testing.T) {
	bazel := workspace(t)
	// Everything of this build may come from the cache: it is what the outer
	// Bazel has just built. It must all be here, for the builds without a cache.
	require.NoError(t, bazel.Run(t.Context(), "build", "--remote_download_outputs=all", payload))

	t.Run("nothing", func(t *testing.T) {
		require.Empty(t, executed(t, bazel))
	})
	t.Run("the agent", func(t *testing.T) {
		spawns := executed(t, bazel, otherAgent)
		requireOnce(t, spawns, "KataComponent //stack/rootfs:rootfs-image-confidential")
		requireOnly(t, spawns, []string{"//tests/graph/other:", "//tests/graph:", "//stack/agent:", "//stack/rootfs:", "//stack/runtimeconfig:", "//payload:"})
		requireComponents(t, spawns, "//stack/rootfs:rootfs-image-confidential", "//stack/runtimeconfig:tdx")
	})
	// On top of the other agent: going back to the first one would be a second
	// change. Last, since going back to the full kernel would build it.
	t.Run("the kernel's options", func(t *testing.T) {
		spawns := executed(t, bazel, otherAgent, "--//stack/kernel:profile=tiny")
		requireOnce(t, spawns, "KataComponent //stack/kernel:kernel")
		requireOnly(t, spawns, []string{"//stack/kernel:", "//payload:"})
		requireComponents(t, spawns, "//stack/kernel:kernel")
	})
}

// workspace gives Bazel on the workspace of the runfile MODULE.bazel.
func workspace(t *testing.T) *nested.Bazel {
	t.Helper()
	module, err := runfiles.Rlocation("_main/MODULE.bazel")
	require.NoError(t, err)
	root, err := nested.WorkspaceOf(module)
	require.NoError(t, err)
	return nestedtest.Bazel(t, root)
}

// executed builds the payload without any cache but what is in the output base
// already, and gives the actions that ran.
func executed(t *testing.T, bazel *nested.Bazel, args ...string) []*execlog.Spawn {
	t.Helper()
	log := filepath.Join(t.TempDir(), "execution.json")
	args = append(args, "--disk_cache=", "--remote_cache=", "--execution_log_json_file="+log, payload)
	require.NoError(t, bazel.Run(t.Context(), "build", args...))
	read, err := execlog.ReadFile(t.Context(), log)
	require.NoError(t, err)
	for _, s := range read.Spawns {
		require.False(t, s.CacheHit, "%s came from a cache (%s), though there should be none", s, s.Runner)
	}
	return read.Spawns
}

func requireOnce(t *testing.T, spawns []*execlog.Spawn, want string) {
	t.Helper()
	n := 0
	for _, s := range spawns {
		if s.String() == want {
			n++
		}
	}
	require.Equal(t, 1, n, "%s must have been executed once; executed were %v", want, spawns)
}

func requireOnly(t *testing.T, spawns []*execlog.Spawn, prefixes []string) {
	t.Helper()
	for _, s := range spawns {
		allowed := false
		for _, prefix := range prefixes {
			allowed = allowed || strings.HasPrefix(s.Target, prefix)
		}
		require.True(t, allowed, "%s was executed again, which the change is no reason for", s)
	}
}

func requireComponents(t *testing.T, spawns []*execlog.Spawn, want ...string) {
	t.Helper()
	var got []string
	for _, s := range spawns {
		if s.Mnemonic == "KataComponent" {
			got = append(got, s.Target)
		}
	}
	require.ElementsMatch(t, want, got)
}
