package judge_test

import (
	"os"
	"os/exec"
	"path"
	"strings"
	"testing"

	"github.com/bazelbuild/rules_go/go/runfiles"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/lint/judge"
)

// TestVet compares what is judged by with what the SDK's own `go vet` has.
func TestVet(t *testing.T) {
	out, err := vet(t, "help").Output()
	require.NoError(t, err)
	_, list, ok := strings.Cut(string(out), "Registered analyzers:\n\n")
	require.True(t, ok, "go vet does not say which analyzers it has:\n%s", out)
	list, _, _ = strings.Cut(list, "\n\n")
	var want []string
	for line := range strings.Lines(list) {
		want = append(want, strings.Fields(line)[0])
	}
	var got []string
	for _, a := range judge.Vet() {
		got = append(got, a.Name)
	}
	require.ElementsMatch(t, want, got)
}

// vet gives the command vet of the SDK that Bazel pins, or of the one that runs the
// test without Bazel.
func vet(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	tools, ok := os.LookupEnv("SDK_TOOLS")
	if !ok {
		return exec.Command("go", append([]string{"tool", "vet"}, args...)...)
	}
	for tool := range strings.FieldsSeq(tools) {
		if path.Base(tool) == "vet" {
			name, err := runfiles.Rlocation(tool)
			require.NoError(t, err)
			return exec.Command(name, args...)
		}
	}
	require.Fail(t, "the SDK has no vet", tools)
	return nil
}

// TestStaticcheck holds the families that the command staticcheck has on by default.
func TestStaticcheck(t *testing.T) {
	families := map[string]int{}
	for _, a := range judge.Staticcheck() {
		families[strings.TrimRight(a.Name, "0123456789")]++
	}
	for _, family := range []string{"S", "SA", "ST", "U"} {
		require.NotZero(t, families[family], family)
	}
	require.Len(t, families, 4)
}
