//go:build bazel

package tests_test

import (
	"os"
	"strings"
	"testing"

	"github.com/bazelbuild/rules_go/go/runfiles"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/payload/receipt"
)

// perPlatform are the components that differ between platforms.
var perPlatform = map[string]bool{"runtimeconfig": true}

// A registry stores, and a node pulls, each component once: payloads that have the
// same component have the same layer.
func TestPayloadsShareLayers(t *testing.T) {
	names := strings.Fields(os.Getenv("KILN_RECEIPTS"))
	require.Greater(t, len(names), 1, "one payload shares nothing")
	// The digests of each component.
	layers := map[string]map[string]bool{}
	distinct := map[string]bool{}
	total := 0
	for _, name := range names {
		file, err := runfiles.Rlocation(name)
		require.NoError(t, err)
		r, err := receipt.ReadFile(file)
		require.NoError(t, err)
		for _, c := range r.Components {
			if layers[c.Name] == nil {
				layers[c.Name] = map[string]bool{}
			}
			layers[c.Name][c.Digest] = true
			distinct[c.Digest] = true
			total++
		}
	}
	want := 0
	for name, digests := range layers {
		if perPlatform[name] {
			require.Len(t, digests, len(names), "%s of two platforms are the same", name)
			want += len(names)
			continue
		}
		require.Len(t, digests, 1, "%s is not one layer that payloads share", name)
		want++
	}
	require.Len(t, distinct, want)
	require.Less(t, want, total)
	t.Logf("%d payloads have %d components in %d layers", len(names), total, want)
}
