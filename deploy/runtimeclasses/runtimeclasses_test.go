//go:build bazel

package runtimeclasses_test

import (
	"bufio"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/bazelbuild/rules_go/go/runfiles"
	"github.com/stretchr/testify/require"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// classes reads the RuntimeClasses of a platform as the API server does that takes
// nothing it does not know.
func classes(t *testing.T, file string) []nodev1.RuntimeClass {
	t.Helper()
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	scheme := runtime.NewScheme()
	require.NoError(t, nodev1.AddToScheme(scheme))
	strict := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true})
	var all []nodev1.RuntimeClass
	for reader := yaml.NewYAMLReader(bufio.NewReader(f)); ; {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return all
		}
		require.NoError(t, err)
		var c nodev1.RuntimeClass
		_, _, err = strict.Decode(document, nil, &c)
		require.NoError(t, err)
		all = append(all, c)
	}
}

func TestRuntimeClasses(t *testing.T) {
	seen := map[string]bool{}
	for _, entry := range strings.Fields(os.Getenv("KILN_RUNTIME_CLASSES")) {
		platform, name, ok := strings.Cut(entry, "=")
		require.True(t, ok, entry)
		file, err := runfiles.Rlocation(name)
		require.NoError(t, err)
		found := classes(t, file)
		require.NotEmpty(t, found, platform)
		for _, c := range found {
			require.Equal(t, "RuntimeClass", c.Kind)
			require.Equal(t, nodev1.SchemeGroupVersion.String(), c.APIVersion)
			require.Equal(t, c.Name, c.Handler, "the handler is what kata-deploy calls it")
			require.True(t, strings.HasPrefix(c.Name, "kata-"), c.Name)
			require.False(t, seen[c.Name], "%s is there twice", c.Name)
			seen[c.Name] = true
			require.Equal(t, "true", c.Scheduling.NodeSelector["katacontainers.io/kata-runtime"])
			require.False(t, c.Overhead.PodFixed.Memory().IsZero())
			require.False(t, c.Overhead.PodFixed.Cpu().IsZero())
		}
	}
	require.True(t, seen["kata-qemu-tdx"])
}

func TestTDX(t *testing.T) {
	for _, entry := range strings.Fields(os.Getenv("KILN_RUNTIME_CLASSES")) {
		if name, ok := strings.CutPrefix(entry, "tdx="); ok {
			file, err := runfiles.Rlocation(name)
			require.NoError(t, err)
			found := classes(t, file)
			require.Len(t, found, 1)
			require.Equal(t, "true", found[0].Scheduling.NodeSelector["intel.feature.node.kubernetes.io/tdx"])
			require.Equal(t, int64(2048<<20), found[0].Overhead.PodFixed.Memory().Value())
			require.Equal(t, int64(1000), found[0].Overhead.PodFixed.Cpu().MilliValue())
			return
		}
	}
	require.Fail(t, "no RuntimeClass of tdx")
}
