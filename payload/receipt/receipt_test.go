package receipt_test

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/payload/receipt"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func digest(c string) string { return "sha256:" + strings.Repeat(c, 64) }

func valid() *receipt.Receipt {
	return &receipt.Receipt{
		SchemaVersion: 1,
		Platform:      "tdx",
		Registry:      receipt.Embedded,
		Repository:    "kata-deploy/tdx",
		Digest:        digest("a"),
		Manifests:     []receipt.Manifest{{Arch: "amd64", Digest: digest("b")}},
		Components:    []receipt.Component{{Name: "kernel", Version: "6.12", Digest: digest("c"), Size: 9}},
		Agent:         receipt.AgentBringup,
		Inputs:        receipt.InputsPinned,
	}
}

func TestRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tdx.json")
	require.NoError(t, receipt.WriteFile(path, valid()))
	got, err := receipt.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, valid(), got)
}

func TestMarshalGivesTheDocumentedForm(t *testing.T) {
	data, err := receipt.Marshal(valid())
	require.NoError(t, err)
	require.Equal(t, `{
  "schemaVersion": 1,
  "platform": "tdx",
  "registry": "embedded",
  "repository": "kata-deploy/tdx",
  "digest": "`+digest("a")+`",
  "manifests": [
    {
      "arch": "amd64",
      "digest": "`+digest("b")+`"
    }
  ],
  "components": [
    {
      "name": "kernel",
      "version": "6.12",
      "digest": "`+digest("c")+`",
      "size": 9
    }
  ],
  "agent": "bringup",
  "inputs": "pinned"
}
`, string(data))
}

func TestValidate(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*receipt.Receipt)
		want   string
	}{
		"newer schema":          {func(r *receipt.Receipt) { r.SchemaVersion = 2 }, "schemaVersion is 2"},
		"no platform":           {func(r *receipt.Receipt) { r.Platform = "" }, "is not a platform's name"},
		"registry with scheme":  {func(r *receipt.Receipt) { r.Registry = "https://ghcr.io" }, "without a scheme"},
		"registry with path":    {func(r *receipt.Receipt) { r.Registry = "ghcr.io/kiln" }, "belongs to the repository"},
		"repository upper case": {func(r *receipt.Receipt) { r.Repository = "Kata" }, `repository "Kata"`},
		"short digest":          {func(r *receipt.Receipt) { r.Digest = "sha256:ab" }, "is not a sha256 digest"},
		"no manifest":           {func(r *receipt.Receipt) { r.Manifests = nil }, "there is no manifest"},
		"arch twice":            {func(r *receipt.Receipt) { r.Manifests = append(r.Manifests, r.Manifests[0]) }, `arch "amd64" is there twice`},
		"no component":          {func(r *receipt.Receipt) { r.Components = nil }, "there is no component"},
		"component twice":       {func(r *receipt.Receipt) { r.Components = append(r.Components, r.Components[0]) }, `component "kernel" is there twice`},
		"component empty layer": {func(r *receipt.Receipt) { r.Components[0].Size = 0 }, "size is 0"},
		"unknown agent":         {func(r *receipt.Receipt) { r.Agent = "rust" }, `agent is "rust"`},
		"unknown inputs":        {func(r *receipt.Receipt) { r.Inputs = "" }, `inputs is ""`},
	} {
		t.Run(name, func(t *testing.T) {
			r := valid()
			tc.change(r)
			require.ErrorContains(t, r.Validate(), tc.want)
			_, err := receipt.Marshal(r)
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestReadRefuses(t *testing.T) {
	data, err := receipt.Marshal(valid())
	require.NoError(t, err)
	for name, tc := range map[string]struct{ doc, want string }{
		"nothing":       {"", "decoding a receipt"},
		"unknown field": {strings.Replace(string(data), `"platform"`, `"tag": "latest", "platform"`, 1), `unknown field "tag"`},
		"two documents": {string(data) + string(data), "something follows"},
		"half of it":    {string(data[:len(data)/2]), "decoding a receipt"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := receipt.Read(strings.NewReader(tc.doc))
			require.ErrorContains(t, err, tc.want)
			require.Equal(t, exitcode.BadInput, exitcode.Of(err))
		})
	}
	_, err = receipt.ReadFile(filepath.Join(t.TempDir(), "absent.json"))
	require.Equal(t, exitcode.LocalIO, exitcode.Of(err))
	_, err = receipt.Read(bytes.NewReader(data))
	require.NoError(t, err)
}

func TestLocation(t *testing.T) {
	for in, want := range map[string][2]string{
		"embedded":          {"embedded", ""},
		"ghcr.io":           {"ghcr.io", ""},
		"ghcr.io/a/b":       {"ghcr.io", "a/b"},
		"127.0.0.1:5000":    {"127.0.0.1:5000", ""},
		"localhost:5000/x/": {"localhost:5000", "x"},
	} {
		host, path, err := receipt.Location(in)
		require.NoError(t, err, in)
		require.Equal(t, want, [2]string{host, path}, in)
	}
	for _, in := range []string{"", "embedded/x", "https://ghcr.io", "ghcr.io:port:5"} {
		_, _, err := receipt.Location(in)
		require.Error(t, err, in)
		require.Equal(t, exitcode.BadInput, exitcode.Of(err), in)
	}
}

func TestOnlyLoopbackIsPlainHTTP(t *testing.T) {
	for host, scheme := range map[string]string{
		"127.0.0.1:5000": "http",
		"localhost:5000": "http",
		"[::1]:5000":     "http",
		"127.8.8.8:5000": "http",
		"ghcr.io":        "https",
		"localhost.evil": "https",
	} {
		repo, err := valid().RepositoryAt(host)
		require.NoError(t, err, host)
		require.Equal(t, scheme, repo.Scheme(), host)
		require.Equal(t, scheme == "http", receipt.Loopback(host), host)
	}
	// The library would talk plainly to a private address; the transport
	// that publishes refuses it because of this.
	require.False(t, receipt.Loopback("192.168.1.7:5000"))
}

func TestReference(t *testing.T) {
	require.Equal(t, "embedded/kata-deploy/tdx@"+digest("a"), valid().Reference())
}
