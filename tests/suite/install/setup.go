package install

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bazelbuild/rules_go/go/runfiles"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/deploy/manifests/render"
	"github.com/kiln-build/kiln/payload/bundle"
	"github.com/kiln-build/kiln/payload/image"
	"github.com/kiln-build/kiln/payload/publish"
	"github.com/kiln-build/kiln/payload/registry"
	"github.com/kiln-build/kiln/stack/runtimeconfig/check"
	"github.com/kiln-build/kiln/tests/suite/node"
	"github.com/kiln-build/kiln/tests/suite/payloadtest"
	"github.com/kiln-build/kiln/tools/component/metadata"
)

const (
	// chartVariable and valuesVariable name the chart's archive and the values of the
	// payload's platform, as runfiles.
	chartVariable  = "KILN_CHART"
	valuesVariable = "KILN_CHART_VALUES"
	// labelsVariable is what the runtime classes ask of a node beside the payload, as
	// LABEL=VALUE words.
	labelsVariable = "KILN_NODE_LABELS"
)

const (
	// Patience is for pulling, unpacking and starting containerd again.
	Patience = 3 * time.Minute
	// Installation is where a payload is on a node, if nobody says otherwise.
	Installation = "/opt/kata"
)

// trees are all that an installer may write to on a node.
var trees = []string{"/etc/containerd", "/etc/crio", "/etc/systemd/system", "/opt"}

// Setup is a node, and the payload that is to be installed on it.
type Setup struct {
	*Cluster
	Bundle *bundle.Bundle
	// Pushed is the address, from here, of the registry that the node pulls from, and
	// Pulled is that from the node.
	Pushed, Pulled string
	// Classes are the payload's runtime classes, by upstream's names.
	Classes []string
	values  map[string]any
}

// Start makes a node for a test, publishes the test's payload to a registry that the
// node can pull from, and gives the node the labels that the payload's runtime classes
// ask of it.
func Start(t testing.TB) *Setup {
	t.Helper()
	options, err := node.FromRunfiles()
	require.NoError(t, err)
	options.Log = testWriter{t}
	n, err := node.Start(t.Context(), options)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close()) })

	chart, err := runfiles.Rlocation(os.Getenv(chartVariable))
	require.NoError(t, err)
	s := &Setup{}
	s.Cluster, err = New(n, chart)
	require.NoError(t, err)
	s.Bundle, err = bundle.Open(os.Getenv(payloadtest.BundleVariable))
	require.NoError(t, err)
	values, err := runfiles.Rlocation(os.Getenv(valuesVariable))
	require.NoError(t, err)
	s.values, err = render.ReadValues(values)
	require.NoError(t, err)
	s.Classes = strings.Split(s.Bundle.Labels[image.LabelRuntimeClasses], ",")

	// One registry with two addresses: published to here, pulled from on the node.
	r, err := registry.Open(t.TempDir())
	require.NoError(t, err)
	here, err := registry.Serve(r, "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		require.NoError(t, here.Close(ctx))
	})
	s.Pushed = here.Address()
	s.Pulled, err = n.Serve(t.Context(), r)
	require.NoError(t, err)
	repository, err := s.Bundle.Receipt.RepositoryAt(s.Pushed)
	require.NoError(t, err)
	_, err = publish.Publish(t.Context(), s.Bundle, publish.Options{Repository: repository})
	require.NoError(t, err)

	for _, label := range strings.Fields(os.Getenv(labelsVariable)) {
		key, value, _ := strings.Cut(label, "=")
		require.NoError(t, s.SetLabel(t.Context(), key, value))
	}
	return s
}

// RestartAtWill makes systemd start containerd however often it is asked to. It gives up a
// unit that is started too often in a short time, which nobody but a test does.
func (s *Setup) RestartAtWill(t testing.TB) {
	t.Helper()
	_, err := s.Run(t.Context(), "sh", "-euc", "printf '[Unit]\\nStartLimitIntervalSec=0\\n' >/etc/systemd/system/containerd.service.d/often.conf; systemctl daemon-reload")
	require.NoError(t, err)
}

// testWriter makes lines part of a test's log.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

// ReleaseOf renders the chart for the payload with a digest. Nothing is installed yet.
func (s *Setup) ReleaseOf(t testing.TB, name, digest string, more map[string]any) *Release {
	t.Helper()
	repository, err := s.Bundle.Receipt.RepositoryAt(s.Pulled)
	require.NoError(t, err)
	return s.Release(name, s.values, map[string]any{
		"image": map[string]any{"reference": repository.Name(), "tag": "@" + digest},
	}, more)
}

// Payload gives the release of the payload that is tested.
func (s *Setup) Payload(t testing.TB) *Release {
	t.Helper()
	return s.ReleaseOf(t, "kata-deploy", s.Bundle.Receipt.Digest, nil)
}

// Apply installs a release, and waits until the installer is done.
func Apply(t testing.TB, r *Release) {
	t.Helper()
	require.NoError(t, r.Apply(t.Context()))
	Ready(t, r)
}

// Ready waits until the installer of a release is done.
func Ready(t testing.TB, r *Release) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), Patience, fmt.Errorf("it took longer than %s", Patience))
	defer cancel()
	require.NoError(t, r.WaitReady(ctx))
}

// Remove takes a release away, and waits until the installer has cleaned up.
func Remove(t testing.TB, r *Release) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), Patience, fmt.Errorf("it took longer than %s", Patience))
	defer cancel()
	require.NoError(t, r.Delete(ctx))
}

// State is what an installation may change on a node and in the cluster.
type State struct {
	Files    Snapshot
	Labels   map[string]string
	Classes  map[string]string
	Handlers []string
}

// State looks at the node and the cluster.
func (s *Setup) State(t testing.TB) *State {
	t.Helper()
	now := &State{}
	var err error
	now.Files, err = s.Snapshot(trees...)
	require.NoError(t, err)
	// The kubelet makes it for a pod to mount, and nobody in the pod can remove what it
	// has mounted.
	now.Files.dropEmpty(Installation)
	now.Files.dropEmpty(Installation + "-blue")
	now.Labels, err = s.Labels(t.Context())
	require.NoError(t, err)
	now.Classes, err = s.RuntimeClasses(t.Context())
	require.NoError(t, err)
	now.Handlers, err = s.Handlers(t.Context())
	require.NoError(t, err)
	return now
}

// Names gives the RuntimeClasses of the payload's runtime classes.
func (s *Setup) Names(suffix string) []string {
	var names []string
	for _, class := range s.Classes {
		names = append(names, "kata-"+class+suffix)
	}
	return names
}

// RequireInstalled asserts that the payload is what is on the node.
func (s *Setup) RequireInstalled(t testing.TB, destination, suffix string) {
	t.Helper()
	s.RequireServed(t, suffix)
	s.RequireFiles(t, destination)
}

// RequireServed asserts that the node says that an installation of the payload's
// runtime classes is ready, and that containerd serves them.
func (s *Setup) RequireServed(t testing.TB, suffix string) {
	t.Helper()
	instance := "default"
	if suffix != "" {
		instance = suffix[1:]
	}
	now := s.State(t)
	require.Equal(t, "true", now.Labels[ReadyLabel])
	require.Equal(t, "true", now.Labels[ClaimLabel+instance])
	for _, name := range s.Names(suffix) {
		require.Equal(t, name, now.Classes[name], "there is no RuntimeClass")
		require.Contains(t, now.Handlers, name, "containerd does not know the handler")
	}
}

// own tells whether a path below an installation is the installer's, not the payload's:
// what it notes, and what it makes for this node.
func own(path string) bool {
	name := filepath.Base(path)
	if name == record || name == ".made-by-kata-deploy" {
		return true
	}
	for _, dir := range []string{"containerd/", "share/defaults/kata-containers/runtimes/"} {
		if strings.HasPrefix(path, dir) {
			return true
		}
	}
	return false
}

// RequireFiles asserts that a directory of the node has exactly the files of the
// payload, by digest, and that whatever a shim's configuration names is there.
func (s *Setup) RequireFiles(t testing.TB, destination string) {
	t.Helper()
	const below = image.ArtifactRoot + "/opt/kata/"
	brought := map[string]bool{}
	for _, c := range s.Bundle.Components {
		for _, f := range c.Files {
			path, ours := strings.CutPrefix(f.Path, below)
			if !ours {
				continue
			}
			brought[path] = true
			file := s.Path(filepath.Join(destination, path))
			switch f.Type {
			case metadata.TypeFile:
				if strings.HasPrefix(path, "share/defaults/kata-containers/configuration-") {
					continue // what is there is a link to the node's own copy
				}
				in, err := os.Open(file)
				require.NoError(t, err, "component %s", c.Name)
				sum := sha256.New()
				_, err = io.Copy(sum, in)
				require.NoError(t, in.Close())
				require.NoError(t, err)
				require.Equal(t, f.SHA256, hex.EncodeToString(sum.Sum(nil)), "%s of %s", path, c.Name)
			case metadata.TypeSymlink:
				target, err := os.Readlink(file)
				require.NoError(t, err, "component %s", c.Name)
				require.Equal(t, f.Target, target, path)
			}
		}
	}
	inodes, err := s.Inodes(destination)
	require.NoError(t, err)
	for path := range inodes {
		path, err := filepath.Rel(destination, path)
		require.NoError(t, err)
		require.True(t, brought[path] || own(path), "%s is not the payload's", path)
	}
	for _, class := range s.Classes {
		config := filepath.Join(destination, "share/defaults/kata-containers/runtimes", class, "configuration-"+class+".toml")
		content, err := os.ReadFile(s.Path(config))
		require.NoError(t, err)
		paths, err := check.Paths(content)
		require.NoError(t, err)
		for _, p := range paths {
			require.True(t, s.Exists(strings.Replace(p.Path, check.Prefix, destination, 1)), "%s:%d: %s names %s", config, p.Line, p.Key, p.Path)
		}
	}
}

// PublishOther publishes a payload in which one file is another one, or one more, and
// gives its digest. The file's path is below the installation.
func (s *Setup) PublishOther(t testing.TB, file string, content []byte) string {
	t.Helper()
	repository, err := s.Bundle.Receipt.RepositoryAt(s.Pushed)
	require.NoError(t, err)
	index, err := remote.Index(repository.Digest(s.Bundle.Receipt.Digest))
	require.NoError(t, err)
	hash, err := v1.NewHash(s.Bundle.Receipt.Manifests[0].Digest)
	require.NoError(t, err)
	img, err := index.Image(hash)
	require.NoError(t, err)
	img, err = mutate.AppendLayers(img, static.NewLayer(archive(t, image.ArtifactRoot+"/opt/kata/"+file, content), types.OCIUncompressedLayer))
	require.NoError(t, err)
	other := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), mutate.IndexAddendum{
		Add:        img,
		Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: s.Bundle.Receipt.Manifests[0].Arch}},
	})
	digest, err := other.Digest()
	require.NoError(t, err)
	ref, err := name.NewDigest(repository.Name() + "@" + digest.String())
	require.NoError(t, err)
	require.NoError(t, remote.WriteIndex(ref, other))
	return digest.String()
}

// archive gives a tar of one file and the directories above it.
func archive(t testing.TB, file string, content []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for i, c := range file {
		if c == '/' {
			require.NoError(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: file[:i+1], Mode: 0o755}))
		}
	}
	require.NoError(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: file, Mode: 0o755, Size: int64(len(content))}))
	_, err := w.Write(content)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return out.Bytes()
}
