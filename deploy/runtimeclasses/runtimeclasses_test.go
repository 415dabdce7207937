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

// platforms gives the RuntimeClasses of each platform that a variable names the files of.
func platforms(t *testing.T, variable string) map[string][]nodev1.RuntimeClass {
	t.Helper()
	all := map[string][]nodev1.RuntimeClass{}
	for _, entry := range strings.Fields(os.Getenv(variable)) {
		platform, name, ok := strings.Cut(entry, "=")
		require.True(t, ok, entry)
		file, err := runfiles.Rlocation(name)
		require.NoError(t, err)
		all[platform] = classes(t, file)
		require.NotEmpty(t, all[platform], platform)
	}
	require.NotEmpty(t, all, variable)
	return all
}

func TestRuntimeClasses(t *testing.T) {
	seen := map[string]bool{}
	for _, variable := range []string{"KILN_RUNTIME_CLASSES", "KILN_DEBUG_RUNTIME_CLASSES"} {
		for _, found := range platforms(t, variable) {
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
	}
	require.True(t, seen["kata-qemu-tdx"])
	require.True(t, seen["kata-qemu-tdx-debug"])
}

// A debug variant differs by its name alone: it runs on the same nodes, and takes as much
// of them.
func TestDebugVariants(t *testing.T) {
	variants := platforms(t, "KILN_DEBUG_RUNTIME_CLASSES")
	for platform, found := range platforms(t, "KILN_RUNTIME_CLASSES") {
		for i := range found {
			found[i].Name += "-debug"
			found[i].Handler += "-debug"
		}
		require.Equal(t, found, variants[platform])
	}
}

func TestTDX(t *testing.T) {
	found := platforms(t, "KILN_RUNTIME_CLASSES")["tdx"]
	require.Len(t, found, 1)
	require.Equal(t, "true", found[0].Scheduling.NodeSelector["intel.feature.node.kubernetes.io/tdx"])
	require.Equal(t, int64(2048<<20), found[0].Overhead.PodFixed.Memory().Value())
	require.Equal(t, int64(1000), found[0].Overhead.PodFixed.Cpu().MilliValue())
}
