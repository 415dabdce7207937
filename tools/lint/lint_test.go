package lint_test

import (
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/lint"
)

func TestTree(t *testing.T) {
	for name, tc := range map[string]struct {
		path, content string
		want          []string
	}{
		"formatted Go": {"a/a.go", "package a\n\nvar x = 1\n", nil},
		"unformatted Go": {"a/a.go", "package a\n\nvar  x = 1\n", []string{
			"a/a.go:3: not formatted; run bazel run //tools/lint/fix",
		}},
		"broken Go": {"a/a.go", "package\n", []string{"a/a.go: 1:9: expected 'IDENT', found 'EOF'"}},
		"unformatted BUILD": {"b/BUILD.bazel", "filegroup(name='x')\n", []string{
			"b/BUILD.bazel:1: not formatted; run bazel run //tools/lint/fix",
		}},
		"unused load": {"b/BUILD.bazel", "load(\":x.bzl\", \"y\")\n", []string{
			"b/BUILD.bazel:1: Loaded symbol \"y\" is unused. Please remove it.\nTo disable the warning, add '@unused' in a comment. (load)",
		}},
		"no docstring": {"b/x.bzl", "x = 1\n", []string{
			"b/x.bzl:1: The file has no module docstring.\nA module docstring is a string literal (not a comment) which should be the first statement of a file (it may follow comment lines). (module-docstring)",
		}},
		"generated Go":        {"a/a.pb.go", "package  a\n", nil},
		"somebody's data":     {"a/testdata/a.go", "package  a\n", nil},
		"not a source at all": {"a/README", "hello", nil},
	} {
		t.Run(name, func(t *testing.T) {
			findings, err := lint.Tree(fstest.MapFS{tc.path: {Data: []byte(tc.content)}})
			require.NoError(t, err)
			var got []string
			for _, f := range findings {
				got = append(got, f.String())
			}
			require.Equal(t, tc.want, got)
		})
	}
}
