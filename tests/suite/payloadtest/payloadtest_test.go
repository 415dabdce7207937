package payloadtest_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/payload/bundle"
	"github.com/kiln-build/kiln/payload/fakepayload"
	"github.com/kiln-build/kiln/payload/registry"
	"github.com/kiln-build/kiln/tests/suite/payloadtest"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func TestPullGivesWhatWasPublished(t *testing.T) {
	dir := t.TempDir()
	path := fakepayload.Write(t, dir, fakepayload.Spec(fakepayload.Components(t, dir)...))
	t.Setenv(payloadtest.BundleVariable, path)
	p := payloadtest.Pull(t)

	got, err := os.ReadFile(filepath.Join(p.Dir, "share/kata-containers/vmlinuz.container"))
	require.NoError(t, err)
	require.Equal(t, strings.Repeat("kernel", 5000), string(got))
	require.FileExists(t, filepath.Join(p.Root, "usr/bin/kata-deploy"))
	require.Equal(t, "tdx", p.Config.Config.Labels["kiln.platform"])
	require.Equal(t, p.Receipt.Manifests[0].Digest, p.Index.Manifests[0].Digest.String())
	require.Len(t, p.Layers, 2)
	require.Len(t, p.Manifest.Layers, 2)
}

func serve(t *testing.T, dir string) string {
	t.Helper()
	r, err := registry.Open(dir)
	require.NoError(t, err)
	s, err := registry.Serve(r, "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close(context.Background())) })
	return s.Address()
}

func TestWhatIsNotPublishedIsNotPassed(t *testing.T) {
	address := serve(t, t.TempDir())
	dir := t.TempDir()
	spec := fakepayload.Spec(fakepayload.Components(t, dir)...)
	spec.Registry = address
	b, err := bundle.Open(fakepayload.Write(t, dir, spec))
	require.NoError(t, err)
	out := t.TempDir()
	_, err = payloadtest.PullFrom(context.Background(), b, b.Receipt.Registry, out)
	require.ErrorContains(t, err, "is not published: publish it with `bazel run --//payload:registry="+address+" //payload:tdx.publish`")
	require.Equal(t, exitcode.Unverified, exitcode.Of(err))
	entries, err := os.ReadDir(out)
	require.NoError(t, err)
	require.Empty(t, entries)
}

func TestWhatRotsInTheRegistryIsFound(t *testing.T) {
	dir := t.TempDir()
	b := fakepayload.Open(t, dir)
	address := payloadtest.Publish(t, b)
	_, err := payloadtest.PullFrom(context.Background(), b, address, t.TempDir())
	require.NoError(t, err)

	// A registry that serves another layer under the same digest.
	store := t.TempDir()
	rotten := serveRotten(t, store, b)
	_, err = payloadtest.PullFrom(context.Background(), b, rotten, t.TempDir())
	require.ErrorContains(t, err, "component kernel")
}
