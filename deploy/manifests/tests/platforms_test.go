//go:build bazel

package tests

import (
	"bufio"
	"errors"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/bazelbuild/rules_go/go/runfiles"
	"github.com/stretchr/testify/require"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/kiln-build/kiln/deploy/manifests/render"
	"github.com/kiln-build/kiln/payload/receipt"
)

// given gives the files that a variable names, by their names without what is
// behind the first dot.
func given(t *testing.T, variable string) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, name := range strings.Fields(os.Getenv(variable)) {
		file, err := runfiles.Rlocation(name)
		require.NoError(t, err)
		platform, _, _ := strings.Cut(path.Base(name), ".")
		files[platform] = file
	}
	require.NotEmpty(t, files, variable)
	return files
}

// split reads the documents of a file.
func split(t *testing.T, name string) [][]byte {
	t.Helper()
	f, err := os.Open(name)
	require.NoError(t, err)
	defer f.Close()
	var all [][]byte
	for reader := yaml.NewYAMLReader(bufio.NewReader(f)); ; {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return all
		}
		require.NoError(t, err)
		all = append(all, slices.Clone(document))
	}
}

// tables gives the RuntimeClasses of each platform, as the table has them; variable names
// their files.
func tables(t *testing.T, variable string) map[string]map[string]*nodev1.RuntimeClass {
	t.Helper()
	classes := map[string]map[string]*nodev1.RuntimeClass{}
	for platform, file := range given(t, variable) {
		classes[platform] = decode(t, split(t, file)).classes
		require.NotEmpty(t, classes[platform], platform)
	}
	return classes
}

// requireSame compares RuntimeClasses, but for the labels that Helm needs.
func requireSame(t *testing.T, want, have map[string]*nodev1.RuntimeClass) {
	t.Helper()
	require.Equal(t, slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(have)))
	for name, h := range have {
		own := h.DeepCopy()
		own.Labels = nil
		require.Equal(t, want[name], own)
	}
}

func archive(t *testing.T) *render.Chart {
	t.Helper()
	c, err := render.Load(given(t, "KILN_CHART")["kata-deploy"])
	require.NoError(t, err)
	return c
}

func TestRuntimeClassesAreTheTables(t *testing.T) {
	variants := tables(t, "KILN_DEBUG_RUNTIME_CLASSES")
	for platform, want := range tables(t, "KILN_RUNTIME_CLASSES") {
		t.Run(platform, func(t *testing.T) {
			var shims []string
			for name := range want {
				shims = append(shims, strings.TrimPrefix(name, "kata-"))
			}
			requireSame(t, want, rendering(t, only(shims...)).classes)
			maps.Copy(want, variants[platform])
			requireSame(t, want, rendering(t, only(shims...), values{"debug": true}).classes)
		})
	}
}

// TestThePayloadOfThePlatform takes the chart and the values as people do who have
// built them.
func TestThePayloadOfThePlatform(t *testing.T) {
	classes, receipts := tables(t, "KILN_RUNTIME_CLASSES"), given(t, "KILN_RECEIPTS")
	for platform, file := range given(t, "KILN_VALUES") {
		t.Run(platform, func(t *testing.T) {
			r, err := receipt.ReadFile(receipts[platform])
			require.NoError(t, err)
			made, err := render.ReadValues(file)
			require.NoError(t, err)
			release := render.Release{Name: "kata-deploy", Namespace: namespace}

			repository := r.Registry + "/" + r.Repository
			var where values
			if r.Registry == receipt.Embedded {
				_, err := archive(t).Documents(release, made)
				require.ErrorContains(t, err, "image.reference is not set", "no node finds the embedded registry by its name")
				repository = "127.0.0.1:5000/" + r.Repository
				where = values{"image": values{"reference": repository}}
			}
			found, err := archive(t).Documents(release, made, where)
			require.NoError(t, err)
			rendered := decode(t, found)
			require.Equal(t, repository+"@"+r.Digest, rendered.container().Image)
			requireSame(t, classes[platform], rendered.classes)
			require.Len(t, rendered.all, len(found))

			var arches []string
			for _, m := range r.Manifests {
				arches = append(arches, m.Arch)
			}
			term := rendered.daemonSet.Spec.Template.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0]
			require.ElementsMatch(t, arches, term.MatchExpressions[0].Values, "only where the payload has an image")
		})
	}
}

func TestTheArchiveIsTheCheckout(t *testing.T) {
	want, err := documents(t, image)
	require.NoError(t, err)
	have, err := archive(t).Documents(render.Release{Name: "kata-deploy", Namespace: namespace}, image)
	require.NoError(t, err)
	require.Equal(t, want, have)
}
