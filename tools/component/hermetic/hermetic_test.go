//go:build bazel

// These tests read what actions of the build saw: there is nothing to read
// outside of it.

package hermetic_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bazelbuild/rules_go/go/runfiles"
	"github.com/stretchr/testify/require"
)

// report reads what a probe wrote in an action.
func report(t *testing.T, variable string) []string {
	t.Helper()
	name, err := runfiles.Rlocation(os.Getenv(variable))
	require.NoError(t, err)
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

func startingWith(lines []string, prefix string) []string {
	var out []string
	for _, l := range lines {
		if rest, found := strings.CutPrefix(l, prefix); found {
			out = append(out, rest)
		}
	}
	return out
}

func TestComponentActionSeesItsInputsOnly(t *testing.T) {
	lines := report(t, "COMPONENT_REPORT")
	require.Equal(t, []string{
		"/src/declared.txt: an input that is declared",
		"/etc/passwd: root:x:0:0:of the build root:/build:/bin/bash",
		"tools/component/hermetic/undeclared.txt: error: no such file or directory",
	}, startingWith(lines, "read "))
	require.Equal(t, []string{"0"}, startingWith(lines, "others "), "another process can be looked into")
	require.Equal(t, []string{"kiln"}, startingWith(lines, "hostname "))
	// Every path there is. Anything more than this would be a way to depend
	// on the machine.
	require.Equal(t, []string{
		"/",
		"/bin", "/bin/bash",
		"/build",
		"/build.sh",
		"/dest",
		"/dev", "/dev/fd", "/dev/full", "/dev/null", "/dev/random", "/dev/shm", "/dev/stderr", "/dev/stdin", "/dev/stdout", "/dev/tty", "/dev/urandom", "/dev/zero",
		"/etc", "/etc/passwd",
		"/out", "/out/report",
		"/proc",
		"/src", "/src/declared.txt",
		"/tmp",
	}, startingWith(lines, "path "))
}

func TestComponentActionHasNoNetwork(t *testing.T) {
	lines := report(t, "COMPONENT_REPORT")
	require.Equal(t, []string{"lo loopback"}, startingWith(lines, "interface "))
	// With a network, the first would be refused, and the second time out.
	require.Equal(t, []string{
		"127.0.0.1:1: error: network is unreachable",
		"192.0.2.1:80: error: network is unreachable",
	}, startingWith(lines, "connect "))
}

func TestOrdinaryActionIsSandboxed(t *testing.T) {
	lines := report(t, "ACTION_REPORT")
	require.Equal(t, []string{"tools/component/hermetic/undeclared.txt: error: no such file or directory"}, startingWith(lines, "read "))
	require.Equal(t, []string{"192.0.2.1:80: error: network is unreachable"}, startingWith(lines, "connect "))
	for _, i := range startingWith(lines, "interface ") {
		require.True(t, strings.HasPrefix(i, "lo "), "an action sees the interface %s", i)
	}
}

func TestTestsAreSandboxed(t *testing.T) {
	declared, err := runfiles.Rlocation(os.Getenv("DECLARED"))
	require.NoError(t, err)
	require.FileExists(t, declared)
	require.NoFileExists(t, filepath.Join(filepath.Dir(declared), "undeclared.txt"))

	interfaces, err := net.Interfaces()
	require.NoError(t, err)
	for _, i := range interfaces {
		require.NotZero(t, i.Flags&net.FlagLoopback, "a test sees the interface %s", i.Name)
	}
	_, err = net.Dial("tcp", "192.0.2.1:80")
	require.ErrorContains(t, err, "network is unreachable")
}
