package main

import (
	"bytes"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// runOn runs the command on one file, and gives what it printed and whether it left
// the file that Bazel waits for.
func runOn(t *testing.T, content string, args ...string) (findings string, out bool, err error) {
	t.Helper()
	t.Chdir(t.TempDir())
	require.NoError(t, os.MkdirAll("a/b", 0o755))
	require.NoError(t, os.WriteFile("a/b/b.go", []byte(content), 0o644))
	var printed bytes.Buffer
	cmd := newCommand(&printed)
	cmd.SetArgs(append([]string{
		"--path=example.com/a/b", "--goos=linux", "--goarch=amd64", "--std=std", "--src=a/b/b.go", "--out=facts",
	}, args...))
	err = cmd.Execute()
	_, statErr := os.Stat("facts")
	return printed.String(), statErr == nil, err
}

const good = `// Package b is judged.
package b

// F is true.
func F(b bool) bool { return b }
`

const bad = `// Package b is judged.
package b

// F is true.
func F(b bool) bool { return b == true }
`

func TestNoFinding(t *testing.T) {
	findings, out, err := runOn(t, good)
	require.NoError(t, err)
	require.Empty(t, findings)
	require.True(t, out)
}

func TestAFindingFails(t *testing.T) {
	findings, out, err := runOn(t, bad)
	require.EqualError(t, err, "example.com/a/b has 1 findings")
	require.Equal(t, exitcode.Failed, exitcode.Of(err))
	require.Equal(t, "a/b/b.go:5:30: should omit comparison to bool constant, can be simplified to b (S1002)\n", findings)
	require.False(t, out, "Bazel must not find what it waits for")
}

func TestBadInput(t *testing.T) {
	for arg, want := range map[string]string{
		"--part=some":  "--part=some: want whole, internal or external",
		"--import=a=b": "--import=a=b: want IMPORT=PATH=FILE",
		"--path=":      "--path, --std, --out and --src are all needed",
		"--what":       "unknown flag: --what",
	} {
		t.Run(arg, func(t *testing.T) {
			_, out, err := runOn(t, good, arg)
			require.EqualError(t, err, want)
			require.Equal(t, exitcode.BadInput, exitcode.Of(err))
			require.False(t, out)
		})
	}
}

func TestFactsOfAnImport(t *testing.T) {
	_, _, err := runOn(t, good, "--facts=nowhere")
	require.ErrorContains(t, err, "reading facts: open nowhere")
}
