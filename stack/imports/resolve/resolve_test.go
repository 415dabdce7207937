package resolve_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/stack/imports/importlock"
	"github.com/kiln-build/kiln/stack/imports/resolve"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func serve(t *testing.T, handler http.Handler) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func quietRegistry() http.Handler {
	return registry.New(registry.Logger(log.New(io.Discard, "", 0)))
}

func tarball(t *testing.T, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range names {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755, Size: 5}))
		_, err := w.Write([]byte("agent"))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

func zstandard(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	require.NoError(t, err)
	_, err = z.Write(data)
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return b.Bytes()
}

func gzipped(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write(data)
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return b.Bytes()
}

const (
	repository = "kata/agent"
	tag        = "4.1.0-x86_64"
)

// artefact makes an image as upstream's artefacts are: any files as layers.
func artefact(t *testing.T, annotations map[string]string, blobs ...[]byte) v1.Image {
	t.Helper()
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	for _, blob := range blobs {
		var err error
		img, err = mutate.AppendLayers(img, static.NewLayer(blob, "application/vnd.oci.image.layer.v1.tar"))
		require.NoError(t, err)
	}
	return mutate.Annotations(img, annotations).(v1.Image)
}

func push(t *testing.T, host string, annotations map[string]string, blobs ...[]byte) v1.Image {
	t.Helper()
	img := artefact(t, annotations, blobs...)
	ref, err := name.ParseReference(host + "/" + repository + ":" + tag)
	require.NoError(t, err)
	require.NoError(t, remote.Write(ref, img))
	return img
}

// attest attaches a statement to what has been pushed.
func attest(t *testing.T, host string, subject partial.Describable, artifactType, statement string) {
	t.Helper()
	desc, err := partial.Descriptor(subject)
	require.NoError(t, err)
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, types.MediaType(artifactType))
	img, err = mutate.AppendLayers(img, static.NewLayer([]byte(statement), types.MediaType(artifactType)))
	require.NoError(t, err)
	img = mutate.Subject(img, *desc).(v1.Image)
	digest, err := img.Digest()
	require.NoError(t, err)
	ref, err := name.NewDigest(host + "/" + repository + "@" + digest.String())
	require.NoError(t, err)
	require.NoError(t, remote.Write(ref, img))
}

func row() resolve.Row {
	return resolve.Row{
		Component: "agent", Arch: "amd64", Repository: repository, Tag: tag, Path: "usr/bin/kata-agent",
		License: "Apache-2.0", Source: "https://source.example/kata",
	}
}

// believer believes statements that begin with "true ". The signatures of real
// ones are verified by package provenance.
type believer struct{ asked []string }

func (b *believer) Verify(_ context.Context, bundle []byte, digest v1.Hash, source string) (*importlock.Provenance, error) {
	b.asked = append(b.asked, fmt.Sprintf("%s about %s of %s", bundle, digest, source))
	commit, ok := strings.CutPrefix(string(bundle), "true ")
	if !ok {
		return nil, errors.New("not to be believed")
	}
	return &importlock.Provenance{Source: source, Commit: commit, Workflow: "release"}, nil
}

func run(t *testing.T, host string, row resolve.Row) (*importlock.Import, error) {
	t.Helper()
	return (&resolve.Resolver{Registry: host, Verifier: &believer{}}).Resolve(t.Context(), row)
}

func TestResolve(t *testing.T) {
	agent := tarball(t, "./etc/other", "./usr/bin/kata-agent")
	for _, test := range []struct {
		name     string
		blob     []byte
		wantType string
	}{
		{"plain", agent, "tar"},
		{"gzip", gzipped(t, agent), "tar.gz"},
		{"zstd", zstandard(t, agent), "tar.zst"},
	} {
		t.Run(test.name, func(t *testing.T) {
			host := serve(t, quietRegistry())
			img := push(t, host, nil, []byte("a version file\n"), tarball(t, "usr/bin/another"), test.blob)
			want, err := img.Digest()
			require.NoError(t, err)
			layers, err := img.Layers()
			require.NoError(t, err)
			wantLayer, err := layers[2].Digest()
			require.NoError(t, err)

			got, err := run(t, host, row())
			require.NoError(t, err)
			require.Equal(t, &importlock.Import{
				Component:  "agent",
				Arch:       "amd64",
				Registry:   host,
				Repository: repository,
				Tag:        tag,
				Digest:     want.String(),
				Version:    tag,
				License:    "Apache-2.0",
				Layer:      importlock.Layer{Digest: wantLayer.String(), Size: int64(len(test.blob)), Type: test.wantType},
			}, got)
			require.NoError(t, got.Validate())
		})
	}
}

func TestResolveOneArchitectureOfAnIndex(t *testing.T) {
	host := serve(t, quietRegistry())
	var index v1.ImageIndex = empty.Index
	want := map[string]string{}
	for _, arch := range []string{"amd64", "arm64"} {
		img := artefact(t, map[string]string{"for": arch}, tarball(t, "usr/bin/kata-agent"))
		digest, err := img.Digest()
		require.NoError(t, err)
		want[arch] = digest.String()
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	ref, err := name.ParseReference(host + "/" + repository + ":" + tag)
	require.NoError(t, err)
	require.NoError(t, remote.WriteIndex(ref, index))
	attest(t, host, index, "application/vnd.dev.sigstore.bundle.v0.3+json", "true abc")

	for _, arch := range []string{"amd64", "arm64"} {
		r := row()
		r.Arch = arch
		got, err := run(t, host, r)
		require.NoError(t, err)
		require.Equal(t, want[arch], got.Digest)
		// The statement is about the index, which holds both.
		require.Equal(t, "abc", got.Provenance.Commit)
	}
	r := row()
	r.Arch = "s390x"
	_, err = run(t, host, r)
	require.ErrorContains(t, err, "s390x")
}

func TestAnnotations(t *testing.T) {
	host := serve(t, quietRegistry())
	push(t, host, map[string]string{
		"org.opencontainers.image.licenses": "Apache-2.0 AND MIT",
		"org.opencontainers.image.version":  "4.1.0",
	}, tarball(t, "usr/bin/kata-agent"))
	got, err := run(t, host, row())
	require.NoError(t, err)
	require.Equal(t, "Apache-2.0 AND MIT", got.License)
	require.Equal(t, "4.1.0", got.Version)
}

func TestProvenance(t *testing.T) {
	const sigstore = "application/vnd.dev.sigstore.bundle.v0.3+json"
	for _, test := range []struct {
		name       string
		statements map[string]string
		wantCommit string
		wantErr    string
	}{
		{"none", nil, "", ""},
		{"one that holds", map[string]string{"true abc": sigstore}, "abc", ""},
		{"one that does not", map[string]string{"false": sigstore}, "", "not to be believed"},
		{"one of two holds", map[string]string{"false": sigstore, "true abc": sigstore}, "abc", ""},
		{"something else is attached", map[string]string{"an SBOM": "application/spdx+json"}, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(true))
			asked := 0
			host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/referrers/") {
					asked++
				}
				inner.ServeHTTP(w, r)
			}))
			img := push(t, host, nil, tarball(t, "usr/bin/kata-agent"))
			for statement, artifactType := range test.statements {
				attest(t, host, img, artifactType, statement)
			}
			b := &believer{}
			asked = 0
			got, err := (&resolve.Resolver{Registry: host, Verifier: b}).Resolve(t.Context(), row())
			require.Equal(t, 1, asked, "an image that is of no index has one list of statements")
			if test.wantErr != "" {
				require.ErrorContains(t, err, test.wantErr)
				require.Equal(t, exitcode.Unverified, exitcode.Of(err))
				return
			}
			require.NoError(t, err)
			if test.wantCommit == "" {
				require.Nil(t, got.Provenance)
				require.Empty(t, b.asked)
				return
			}
			require.Equal(t, &importlock.Provenance{Source: row().Source, Commit: test.wantCommit, Workflow: "release"}, got.Provenance)
			require.Contains(t, b.asked, "true abc about "+got.Digest+" of "+row().Source)
		})
	}
}

func TestRegistryThatAsksForTokens(t *testing.T) {
	inner := quietRegistry()
	var host string
	host = serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			_, _ = io.WriteString(w, `{"token": "anonymous"}`)
		case r.Header.Get("Authorization") != "Bearer anonymous":
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="the-service"`, host))
			w.WriteHeader(http.StatusUnauthorized)
		default:
			inner.ServeHTTP(w, r)
		}
	}))
	push(t, host, nil, tarball(t, "usr/bin/kata-agent"))
	got, err := run(t, host, row())
	require.NoError(t, err)
	require.Equal(t, &importlock.Token{Realm: "http://" + host + "/token", Service: "the-service"}, got.Token)
}

func TestResolveFails(t *testing.T) {
	host := serve(t, quietRegistry())
	push(t, host, nil, tarball(t, "usr/bin/other"), []byte("not an archive"))
	damaged := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			proxy(w, r, host)
			return
		}
		_, _ = w.Write([]byte("another blob"))
	}))
	cut := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			proxy(w, r, host)
			return
		}
		w.Header().Set("Content-Length", "2048")
		_, _ = w.Write([]byte("the beginning"))
	}))
	for _, test := range []struct {
		name, host, tag, wantErr string
		wantCode                 int
	}{
		{"bad reference", host, "Not A Tag", "could not parse reference", exitcode.BadInput},
		{"no such tag", host, "none", "resolving " + host + "/kata/agent:none", exitcode.Unreachable},
		{"nobody listens", "127.0.0.1:1", tag, "connection refused", exitcode.Unreachable},
		{"no agent in it", host, tag, "no layer has usr/bin/kata-agent", exitcode.Unverified},
		{"damaged blob", damaged, tag, "reading layer sha256:", exitcode.Unverified},
		{"cut blob", cut, tag, "reading layer sha256:", exitcode.Unreachable},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := row()
			r.Tag = test.tag
			_, err := run(t, test.host, r)
			require.ErrorContains(t, err, test.wantErr)
			require.Equal(t, test.wantCode, exitcode.Of(err), "%v", err)
		})
	}
}

func proxy(w http.ResponseWriter, r *http.Request, host string) {
	answer, err := http.Get("http://" + host + r.URL.Path)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer func() { _ = answer.Body.Close() }()
	w.Header().Set("Content-Type", answer.Header.Get("Content-Type"))
	w.WriteHeader(answer.StatusCode)
	_, _ = io.Copy(w, answer.Body)
}
