//go:build bazel

// The test of this package imports artefacts from a registry of its own, on a copy
// of the workspace: it pins them with the update, and builds with the lock that
// this writes.
package end2end_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bazelbuild/rules_go/go/runfiles"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/stack/imports/importlock"
	"github.com/kiln-build/kiln/tools/component/metadata"
	"github.com/kiln-build/kiln/tools/layer"
	"github.com/kiln-build/kiln/tools/nested"
	"github.com/kiln-build/kiln/tools/nested/nestedtest"
)

func TestImports(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	firecracker := push(t, host+"/kata-containers/cached-artefacts/firecracker:3.20.0-x86_64", map[string]string{
		"opt/kata/bin/firecracker": "a hypervisor",
		"opt/kata/bin/jailer":      "a jailer",
		"opt/kata/bin/surplus":     "what no table lists",
	})
	push(t, host+"/kata-containers/cached-artefacts/cloud-hypervisor:3.20.0-x86_64", map[string]string{"opt/kata/bin/cloud-hypervisor": "another"})
	push(t, host+"/kata-containers/cached-artefacts/agent:3.20.0-x86_64", map[string]string{"usr/bin/kata-agent": "the imported agent"})
	push(t, host+"/confidential-containers/guest-components/coco-extension:abc", map[string]string{
		"usr/local/bin/attestation-agent":     "the attestation agent",
		"usr/local/bin/confidential-data-hub": "the data hub",
		"usr/local/bin/api-server-rest":       "the API server",
		"pause_bundle/config.json":            "{}",
		"etc/ocicrypt_config.json":            "{}",
	})

	w := newWorkspace(t)
	w.must("run", "//stack:imports.update", "--", "--registry="+host, "--arch=amd64",
		"firecracker", "cloud-hypervisor", "agent", "coco-guest-components=abc")
	lock, err := importlock.Read(filepath.Join(w.bazel.Workspace, "stack/imports.lock"))
	require.NoError(t, err)
	require.Equal(t, firecracker, lock.Find("firecracker", "amd64").Digest)

	t.Run("a pinned component", func(t *testing.T) {
		files, about := w.component(t, "//stack/imports:firecracker")
		require.Equal(t, map[string]string{
			"opt/kata-artifacts/opt/kata/bin/firecracker": "0755 a hypervisor",
			"opt/kata-artifacts/opt/kata/bin/jailer":      "0755 a jailer",
		}, files)
		require.Equal(t, "3.20.0-x86_64", about.Version)
		require.Len(t, about.Sources, 1)
		require.Equal(t, strings.TrimPrefix(firecracker, "sha256:"), about.Sources[0].SHA256)
	})

	t.Run("the guest", func(t *testing.T) {
		const agent = "--//stack/agent:agent=//stack/agent:import"
		files, about := w.component(t, "//stack/rootfs:rootfs-initrd-confidential", agent)
		var sources []string
		for _, s := range about.Sources {
			sources = append(sources, s.Name)
		}
		require.Contains(t, sources, "agent")
		require.Contains(t, sources, "coco-guest-components")
		guest := initrd(t, files)
		for _, content := range []string{"the imported agent", "the attestation agent", "pause_bundle/config.json"} {
			require.True(t, bytes.Contains(guest, []byte(content)), "the guest does not have %q", content)
		}
		// What is not confidential has the agent, and nothing that attests.
		files, _ = w.component(t, "//stack/rootfs:rootfs-initrd", agent)
		guest = initrd(t, files)
		require.True(t, bytes.Contains(guest, []byte("the imported agent")))
		require.False(t, bytes.Contains(guest, []byte("the attestation agent")))
	})

	t.Run("a payload that it was missing for", func(t *testing.T) {
		_, err := w.build("//payload:fc", "//deploy/chart:fc")
		require.NoError(t, err)
	})

	t.Run("one that is not pinned fails, and nothing else", func(t *testing.T) {
		out, err := w.build("--keep_going", "//stack/imports:openvmm", "//stack/imports:firecracker")
		require.Error(t, err)
		require.Contains(t, out, "openvmm for amd64 is not pinned: stack/imports.lock has no digest of it")
		require.Contains(t, out, "//stack/imports:firecracker up-to-date")
	})

	server.Close()
	t.Run("one whose registry is away fails, and nothing else", func(t *testing.T) {
		out, err := w.build("--keep_going", "//payload:clh", "//payload:fc")
		require.Error(t, err)
		require.Contains(t, out, "http://"+host+"/v2/kata-containers/cached-artefacts/cloud-hypervisor/manifests/sha256:")
		require.Contains(t, out, "//payload:fc up-to-date")
	})
}

// push makes an artefact as upstream's are: a file with the version, and an archive.
func push(t *testing.T, reference string, files map[string]string) string {
	t.Helper()
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	require.NoError(t, err)
	w := tar.NewWriter(z)
	for path, content := range files {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: "./" + path, Typeflag: tar.TypeReg, Mode: 0o700, Size: int64(len(content))}))
		_, err := io.WriteString(w, content)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	require.NoError(t, z.Close())
	var img v1.Image = mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	for _, blob := range [][]byte{[]byte("3.20.0\n"), b.Bytes()} {
		img, err = mutate.AppendLayers(img, static.NewLayer(blob, "application/vnd.oci.image.layer.v1.tar"))
		require.NoError(t, err)
	}
	ref, err := name.ParseReference(reference)
	require.NoError(t, err)
	require.NoError(t, remote.Write(ref, img))
	digest, err := img.Digest()
	require.NoError(t, err)
	return digest.String()
}

type workspace struct {
	t     *testing.T
	bazel *nested.Bazel
}

// newWorkspace copies the workspace that this test was built from, and gives Bazel on
// the copy.
func newWorkspace(t *testing.T) *workspace {
	t.Helper()
	module, err := runfiles.Rlocation("_main/MODULE.bazel")
	require.NoError(t, err)
	root, err := nested.WorkspaceOf(module)
	require.NoError(t, err)
	dir := filepath.Join(nestedtest.TempDir(t), "workspace")
	require.NoError(t, nested.CopyWorkspace(t.Context(), root, dir))
	return &workspace{t: t, bazel: nestedtest.Bazel(t, dir)}
}

func (w *workspace) must(command string, args ...string) {
	w.t.Helper()
	require.NoError(w.t, w.bazel.Run(w.t.Context(), command, args...))
}

// build builds, and gives what Bazel printed.
func (w *workspace) build(args ...string) (string, error) {
	var out bytes.Buffer
	bazel := *w.bazel
	bazel.Log = io.MultiWriter(w.bazel.Log, &out)
	err := bazel.Run(w.t.Context(), "build", args...)
	return out.String(), err
}

// component builds a component, and gives its files, each as "mode content", and its
// description.
func (w *workspace) component(t *testing.T, label string, args ...string) (map[string]string, *metadata.Component) {
	t.Helper()
	events := filepath.Join(t.TempDir(), "events.json")
	w.must("build", append(args, "--remote_download_outputs=all", "--build_event_json_file="+events, label)...)
	outputs, err := nested.OutputFiles(events)
	require.NoError(t, err)
	output := func(suffix string) string {
		at := slices.IndexFunc(outputs, func(file string) bool { return strings.HasSuffix(file, suffix) })
		require.GreaterOrEqual(t, at, 0, "%s has no %s: %v", label, suffix, outputs)
		return outputs[at]
	}
	about, err := metadata.ReadFile(output(".component.json"))
	require.NoError(t, err)
	in, err := os.Open(output(".tar.zst"))
	require.NoError(t, err)
	defer func() { require.NoError(t, in.Close()) }()
	dir := t.TempDir()
	require.NoError(t, layer.Extract(t.Context(), in, dir))
	files := map[string]string{}
	for _, f := range about.Files {
		if f.Type != "file" {
			continue
		}
		content, err := os.ReadFile(filepath.Join(dir, f.Path))
		require.NoError(t, err)
		files[f.Path] = f.Mode + " " + string(content)
	}
	return files, about
}

// initrd gives the archive in an initrd, unpacked.
func initrd(t *testing.T, files map[string]string) []byte {
	t.Helper()
	for path, file := range files {
		if !strings.HasSuffix(path, ".initrd") {
			continue
		}
		_, content, _ := strings.Cut(file, " ")
		z, err := gzip.NewReader(strings.NewReader(content))
		require.NoError(t, err)
		out, err := io.ReadAll(z)
		require.NoError(t, err)
		return out
	}
	require.Fail(t, "no initrd")
	return nil
}
