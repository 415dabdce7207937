package install

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bazelbuild/rules_go/go/runfiles"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kiln-build/kiln/deploy/manifests/render"
	"github.com/kiln-build/kiln/payload/bundle"
	"github.com/kiln-build/kiln/payload/image"
	"github.com/kiln-build/kiln/payload/publish"
	"github.com/kiln-build/kiln/payload/registry"
	"github.com/kiln-build/kiln/stack/runtimeconfig/check"
	"github.com/kiln-build/kiln/tests/suite/install/look"
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

// below is where an image has what becomes the installation.
const below = image.ArtifactRoot + "/opt/kata/"

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
	// NoHardware says that nothing on the node starts a sandbox, for certain.
	NoHardware bool
	values     map[string]any
	// published are what the test itself has put into the registry.
	published []name.Digest
}

// Own is a setup on a throw-away node, to which anything may be done.
type Own struct {
	*Setup
	Node *node.Node
}

// setup reads what the test is given: the payload, and its platform's values.
func setup(t testing.TB) *Setup {
	t.Helper()
	b, err := bundle.Open(os.Getenv(payloadtest.BundleVariable))
	require.NoError(t, err)
	values, err := runfiles.Rlocation(os.Getenv(valuesVariable))
	require.NoError(t, err)
	s := &Setup{Bundle: b, Classes: strings.Split(b.Labels[image.LabelRuntimeClasses], ",")}
	s.values, err = render.ReadValues(values)
	require.NoError(t, err)
	return s
}

// on makes the setup one of a node.
func (s *Setup) on(t testing.TB, host Host) {
	t.Helper()
	chart, err := runfiles.Rlocation(os.Getenv(chartVariable))
	require.NoError(t, err)
	s.Cluster, err = New(host, chart)
	require.NoError(t, err)
}

// Start makes a node for a test, publishes the test's payload to a registry that the
// node can pull from, and gives the node the labels that the payload's runtime classes
// ask of it. KUBECONFIG is nothing to it: what only a throw-away node can bear is done
// on what it starts.
func Start(t testing.TB) *Own {
	t.Helper()
	options, err := node.FromRunfiles()
	require.NoError(t, err)
	options.Log = testWriter{t}
	n, err := node.Start(t.Context(), options)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close()) })

	s := setup(t)
	s.NoHardware = true
	s.on(t, own{n})

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

	for key, value := range askedLabels() {
		require.NoError(t, s.SetLabel(t.Context(), key, value))
	}
	return &Own{Setup: s, Node: n}
}

// askedLabels are what the payload's runtime classes ask of a node beside the payload.
func askedLabels() map[string]string {
	labels := map[string]string{}
	for _, label := range strings.Fields(os.Getenv(labelsVariable)) {
		key, value, _ := strings.Cut(label, "=")
		labels[key] = value
	}
	return labels
}

// Path gives the path, from here, of a file of the node.
func (o *Own) Path(path string) string { return filepath.Join(o.Node.Root(), path) }

// Run runs a program on the node and gives what it printed, in which an error is.
func (o *Own) Run(ctx context.Context, name string, args ...string) (string, error) {
	return output(o.Node.Command(ctx, name, args...), name, args...)
}

// Pull makes the container runtime pull an image for pods of a handler, as a kubelet does.
func (o *Own) Pull(ctx context.Context, image, handler string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("pulling %s for %s: %w", image, handler, err)
		}
	}()
	conn, err := grpc.NewClient("unix://"+o.Path(runtimeSocket), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = cri.NewImageServiceClient(conn).PullImage(ctx, &cri.PullImageRequest{
		Image:         &cri.ImageSpec{Image: image, RuntimeHandler: handler},
		SandboxConfig: &cri.PodSandboxConfig{Annotations: map[string]string{"io.containerd.cri.runtime-handler": handler}},
	})
	return err
}

// Exists tells whether the node has a file.
func (o *Own) Exists(path string) bool {
	_, err := os.Lstat(o.Path(path))
	return err == nil
}

// RestartAtWill makes systemd start containerd however often it is asked to. It gives up a
// unit that is started too often in a short time, which nobody but a test does.
func (o *Own) RestartAtWill(t testing.TB) {
	t.Helper()
	_, err := o.Run(t.Context(), "sh", "-euc", "printf '[Unit]\\nStartLimitIntervalSec=0\\n' >/etc/systemd/system/containerd.service.d/often.conf; systemctl daemon-reload")
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
	return s.Release(name, s.values, s.Values(), map[string]any{
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
	seen, err := s.Look(t.Context(), look.Question{Trees: trees, Socket: runtimeSocket})
	require.NoError(t, err)
	now.Files, now.Handlers = snapshot(seen), seen.Handlers
	// The kubelet makes it for a pod to mount, and nobody in the pod can remove what it
	// has mounted.
	now.Files.dropEmpty(Installation)
	now.Files.dropEmpty(Installation + "-blue")
	now.Labels, err = s.Labels(t.Context())
	require.NoError(t, err)
	now.Classes, err = s.RuntimeClasses(t.Context())
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
	labels, err := s.Labels(t.Context())
	require.NoError(t, err)
	require.Equal(t, "true", labels[ReadyLabel])
	require.Equal(t, "true", labels[ClaimLabel+instance])
	classes, err := s.RuntimeClasses(t.Context())
	require.NoError(t, err)
	handlers, err := s.Handlers(t.Context())
	require.NoError(t, err)
	for _, name := range s.Names(suffix) {
		require.Equal(t, name, classes[name], "there is no RuntimeClass")
		require.Contains(t, handlers, name, "containerd does not know the handler")
	}
}

// installers tells whether a path below an installation is the installer's, not the payload's:
// what it notes, and what it makes for this node.
func installers(path string) bool {
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
	config := func(class string) string {
		return filepath.Join(destination, "share/defaults/kata-containers/runtimes", class, "configuration-"+class+".toml")
	}
	q := look.Question{Trees: []string{destination}}
	for _, class := range s.Classes {
		q.Read = append(q.Read, config(class))
	}
	seen, err := s.Look(t.Context(), q)
	require.NoError(t, err)
	brought := map[string]bool{}
	for _, c := range s.Bundle.Components {
		for _, f := range c.Files {
			path, ours := strings.CutPrefix(f.Path, below)
			if !ours {
				continue
			}
			brought[path] = true
			is, there := seen.Entries[filepath.Join(destination, path)]
			switch f.Type {
			case metadata.TypeFile:
				if strings.HasPrefix(path, "share/defaults/kata-containers/configuration-") {
					continue // what is there is a link to the node's own copy
				}
				require.True(t, there, "%s of %s is not there", path, c.Name)
				require.Equal(t, f.SHA256, is.SHA256, "%s of %s", path, c.Name)
			case metadata.TypeSymlink:
				require.True(t, there, "%s of %s is not there", path, c.Name)
				require.Equal(t, f.Target, is.Target, path)
			}
		}
	}
	for path := range inodes(seen) {
		path, err := filepath.Rel(destination, path)
		require.NoError(t, err)
		require.True(t, brought[path] || installers(path), "%s is not the payload's", path)
	}
	named := map[string]string{}
	for _, class := range s.Classes {
		paths, err := check.Paths(seen.Contents[config(class)])
		require.NoError(t, err)
		for _, p := range paths {
			named[strings.Replace(p.Path, check.Prefix, destination, 1)] = fmt.Sprintf("%s:%d: %s", config(class), p.Line, p.Key)
		}
	}
	seen, err = s.Look(t.Context(), look.Question{Exist: slices.Collect(maps.Keys(named))})
	require.NoError(t, err)
	for _, path := range seen.Missing {
		require.Fail(t, "a file is missing", "%s names %s", named[path], path)
	}
}

// PublishOther publishes a payload in which one file is another one, or one more, and
// gives its digest. The file's path is below the installation.
func (s *Setup) PublishOther(t testing.TB, file string, content []byte) string {
	t.Helper()
	img, err := mutate.AppendLayers(s.image(t), static.NewLayer(archive(t, below+file, content), types.OCIUncompressedLayer))
	require.NoError(t, err)
	other := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), mutate.IndexAddendum{
		Add:        img,
		Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: s.Bundle.Receipt.Manifests[0].Arch}},
	})
	digest, err := other.Digest()
	require.NoError(t, err)
	ref := s.payload(t).Context().Digest(digest.String())
	require.NoError(t, remote.WriteIndex(ref, other, registryOptions(t.Context())...))
	s.published = append(s.published, ref)
	return digest.String()
}

// registryOptions are how the test talks to a registry, somebody's included.
func registryOptions(ctx context.Context) []remote.Option {
	return []remote.Option{
		remote.WithContext(ctx),
		remote.WithTransport(publish.NewTransport(publish.DefaultIdle)),
		remote.WithAuthFromKeychain(authn.DefaultKeychain),
	}
}

// payload gives what the payload is published as.
func (s *Setup) payload(t testing.TB) name.Digest {
	t.Helper()
	repository, err := s.Bundle.Receipt.RepositoryAt(s.Pushed)
	require.NoError(t, err)
	return repository.Digest(s.Bundle.Receipt.Digest)
}

// image gives the payload's image as it was published.
func (s *Setup) image(t testing.TB) v1.Image {
	t.Helper()
	index, err := remote.Index(s.payload(t), registryOptions(t.Context())...)
	require.NoError(t, err)
	hash, err := v1.NewHash(s.Bundle.Receipt.Manifests[0].Digest)
	require.NoError(t, err)
	img, err := index.Image(hash)
	require.NoError(t, err)
	return img
}

// PublishedFile gives a file of the payload as it was published, by its path below the
// installation.
func (s *Setup) PublishedFile(t testing.TB, file string) []byte {
	t.Helper()
	layers, err := s.image(t).Layers()
	require.NoError(t, err)
	for i, c := range s.Bundle.Components {
		at := slices.IndexFunc(c.Files, func(f metadata.File) bool { return f.Path == below+file })
		if at < 0 {
			continue
		}
		packed, err := layers[i].Compressed()
		require.NoError(t, err)
		defer packed.Close()
		plain, err := zstd.NewReader(packed, zstd.WithDecoderMaxWindow(128<<20))
		require.NoError(t, err)
		defer plain.Close()
		in := tar.NewReader(plain)
		for {
			header, err := in.Next()
			require.NoError(t, err, "the layer of %s has no %s", c.Name, file)
			if strings.TrimPrefix(header.Name, "./") != c.Files[at].Path {
				continue
			}
			content, err := io.ReadAll(in)
			require.NoError(t, err)
			require.Equal(t, c.Files[at].SHA256, Digest(content))
			return content
		}
	}
	require.Fail(t, "no component has the file", file)
	return nil
}

// Digest gives the digest of content, in hexadecimal digits.
func Digest(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
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
