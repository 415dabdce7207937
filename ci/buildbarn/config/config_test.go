package config_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/ci/buildbarn/config"
)

func local() config.Local {
	return config.Local{Directory: "/state", Size: 20 << 30, Workers: 2, Concurrency: 3, Ports: config.DefaultPorts()}
}

func render(t *testing.T, l config.Local) map[string]map[string]any {
	t.Helper()
	rendered, err := l.Render(config.Default())
	require.NoError(t, err)
	decoded := map[string]map[string]any{}
	for name, text := range rendered {
		var one map[string]any
		require.NoError(t, json.Unmarshal(text, &one), "%s", text)
		decoded[name] = one
	}
	return decoded
}

// sizes adds up what the files of a configuration may take.
func sizes(value any) int64 {
	var sum int64
	switch v := value.(type) {
	case map[string]any:
		for key, inner := range v {
			if n, ok := inner.(float64); ok && key == "sizeBytes" {
				sum += int64(n)
			}
			sum += sizes(inner)
		}
	case []any:
		for _, inner := range v {
			sum += sizes(inner)
		}
	}
	return sum
}

func TestTheSizeIsABound(t *testing.T) {
	for _, size := range []int64{config.MinimumSize, 1 << 30, 20 << 30} {
		l := local()
		l.Size = size
		total := sizes(render(t, l)[config.Storage])
		require.LessOrEqual(t, total, size)
		require.Greater(t, total, size-size/50, "most of it is used")
		require.Greater(t, config.Default().LargestBlob(size), size/25)
	}
}

func TestEveryProcessHasAConfiguration(t *testing.T) {
	rendered := render(t, local())
	var names []string
	for name := range rendered {
		names = append(names, name)
	}
	require.ElementsMatch(t, []string{"storage", "scheduler", "worker-0", "runner-0", "worker-1", "runner-1"}, names)
}

var addressRE = regexp.MustCompile(`"([^":/]*):[0-9]+"`)

func TestEverythingIsOnLoopback(t *testing.T) {
	rendered, err := local().Render(config.Default())
	require.NoError(t, err)
	found := map[string]bool{}
	for name, text := range rendered {
		for _, address := range addressRE.FindAllStringSubmatch(string(text), -1) {
			require.Equal(t, "127.0.0.1", address[1], name)
			found[address[0]] = true
		}
	}
	require.Equal(t, map[string]bool{
		`"127.0.0.1:8980"`: true, `"127.0.0.1:8982"`: true, `"127.0.0.1:8983"`: true, `"127.0.0.1:8984"`: true,
	}, found)
}

// The path of a socket may have 108 bytes, and a state directory any length.
func TestSocketsHaveShortPaths(t *testing.T) {
	l := local()
	l.Directory = "/" + strings.Repeat("x", 200)
	rendered, err := l.Render(config.Default())
	require.NoError(t, err)
	for name, text := range rendered {
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, ".sock") {
				require.NotContains(t, line, "xxx", name)
			}
		}
	}
}

func TestOnlyCIsVouchForResults(t *testing.T) {
	text, err := config.Cluster{Settings: config.Default(), Shards: 1, NodeSize: 1 << 30}.RenderFrontend(places{})
	require.NoError(t, err)
	var frontend struct {
		ActionCache, ContentAddressableStorage struct {
			PutAuthorizer struct{ JmespathExpression string }
		}
		ExecuteAuthorizer struct{ JmespathExpression string }
	}
	readable := strings.ReplaceAll(strings.ReplaceAll(string(text), `importstr "`, `"`), `std.extVar`, ``)
	require.NoError(t, json.Unmarshal([]byte(readable), &frontend))
	role := func(name string) string { return "authenticationMetadata.private.role == '" + name + "'" }
	require.Equal(t, role(config.Landed), frontend.ActionCache.PutAuthorizer.JmespathExpression)
	require.Equal(t, role(config.Trusted)+" || "+role(config.Landed), frontend.ContentAddressableStorage.PutAuthorizer.JmespathExpression)
	require.Equal(t, role(config.Trusted)+" || "+role(config.Landed), frontend.ExecuteAuthorizer.JmespathExpression)
	require.Contains(t, string(text), `"serverCertificateAuthorities": importstr "/frontend/ca.crt"`)
}

type places struct{}

func (places) Listen(config.Part, int, config.Port) string        { return ":1" }
func (places) Dial(part config.Part, _ int, _ config.Port) string { return string(part) + ":1" }
func (places) Credentials(part config.Part) string                { return "/" + string(part) }
func (places) Public() string                                     { return "/public" }
func (places) Keys() string                                       { return "/keys" }
func (places) Files(config.Part, int) string                      { return "/files" }
