//go:build bazel

package tests_test

import (
	"os"
	"strings"
	"testing"

	"github.com/bazelbuild/rules_go/go/runfiles"
	"github.com/stretchr/testify/require"
)

// Without the flag, nothing is judged and nothing fails.
func TestBazelTestJudges(t *testing.T) {
	name, err := runfiles.Rlocation(os.Getenv("FLAGS"))
	require.NoError(t, err)
	flags, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Contains(t, strings.Split(string(flags), "\n"), "test --aspects=//tools/lint:def.bzl%go_lint")
}
