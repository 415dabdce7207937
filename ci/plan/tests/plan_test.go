//go:build bazel

// The test of this package plans for the real graph: it has the tests of all
// platforms judged, changes one source after the other in a copy of the
// workspace, and looks at which platforms lose their verdict. No change is
// ever built.
package plan_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bazelbuild/rules_go/go/runfiles"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/ci/plan"
	"github.com/kiln-build/kiln/ci/plan/cacheonly"
	"github.com/kiln-build/kiln/tools/nested"
	"github.com/kiln-build/kiln/tools/nested/nestedtest"
)

func TestPlan(t *testing.T) {
	module, err := runfiles.Rlocation("_main/MODULE.bazel")
	require.NoError(t, err)
	workspace, err := nested.WorkspaceOf(module)
	require.NoError(t, err)
	copied := filepath.Join(nestedtest.TempDir(t), "workspace")
	require.NoError(t, nested.CopyWorkspace(t.Context(), workspace, copied))
	bazel := nestedtest.Bazel(t, copied)

	// Whoever has the verdicts has them in the disk cache; else they come
	// into it now. Nothing but tests is executed: all they need is built.
	require.NoError(t, bazel.Run(t.Context(), "test", "--test_tag_filters="+plan.Tag, "--build_tests_only", plan.Targets))

	make := func(t *testing.T) *plan.Result {
		t.Helper()
		result, err := plan.Make(t.Context(), plan.Options{Bazel: *bazel, Cache: cacheonly.Nothing{}})
		require.NoError(t, err)
		return result
	}
	unchanged := make(t)
	require.Empty(t, unchanged.Platforms)
	require.NotZero(t, unchanged.Verdicts)
	// Of this platform some components are missing.
	require.ElementsMatch(t, []string{"//tests/clh:contract", "//tests/fc:contract", "//tests/se:boot", "//tests/se:contract"}, unchanged.Skipped)

	for _, tc := range []struct {
		name, file string
		// platforms are those that lose a verdict, each for the same cause.
		platforms []string
		cause     plan.Cause
	}{
		{"the SEV firmware", "stack/ovmf/trim/sev.txt", []string{"snp"}, plan.Cause{Target: "//stack/ovmf:ovmf-sev", Mnemonic: "KataComponent"}},
		{"the TDX firmware", "stack/ovmf/trim/tdx.txt", []string{"tdx"}, plan.Cause{Target: "//stack/ovmf:ovmf-tdx", Mnemonic: "KataComponent"}},
		{"virtiofsd", "stack/virtiofsd/required.txt", []string{"qemu"}, plan.Cause{Target: "//stack/virtiofsd:virtiofsd", Mnemonic: "KataComponent"}},
		{"the kernel", "stack/kernel/extra.config", []string{"coco-dev", "qemu", "snp", "tdx"}, plan.Cause{Target: "//stack/kernel:kernel", Mnemonic: "KataComponent"}},
		{"the installer", "deploy/artifacts/artifacts.go", []string{"coco-dev", "qemu", "remote", "snp", "tdx"}, plan.Cause{Target: "//deploy/artifacts:artifacts", Mnemonic: "GoCompilePkg"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			name := filepath.Join(copied, tc.file)
			content, err := os.ReadFile(name)
			require.NoError(t, err)
			comment := "\n# Changed.\n"
			if strings.HasSuffix(name, ".go") {
				comment = "\n// Changed.\n\nvar _ = 1\n"
			}
			require.NoError(t, os.WriteFile(name, append(content, comment...), 0o644))
			t.Cleanup(func() { require.NoError(t, os.WriteFile(name, content, 0o644)) })

			result := make(t)
			var platforms []string
			for _, p := range result.Platforms {
				platforms = append(platforms, p.Name)
				require.NotEmpty(t, p.Tests)
				require.NotEmpty(t, p.Why)
				first := p.Why[0]
				require.NotEmpty(t, first.Key)
				first.Key = ""
				require.Equal(t, tc.cause, first)
			}
			require.Equal(t, tc.platforms, platforms)
		})
	}
}
