package resolve_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
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
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/stack/agent/importlock"
	"github.com/kiln-build/kiln/stack/agent/pin/resolve"
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

// push makes an image as upstream's artefacts are: any files as layers.
func push(t *testing.T, host string, annotations map[string]string, blobs ...[]byte) v1.Image {
	t.Helper()
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	for _, blob := range blobs {
		var err error
		img, err = mutate.AppendLayers(img, static.NewLayer(blob, "application/vnd.oci.image.layer.v1.tar"))
		require.NoError(t, err)
	}
	img = mutate.Annotations(img, annotations).(v1.Image)
	ref, err := name.ParseReference(host + "/kata/agent:4.1.0-x86_64")
	require.NoError(t, err)
	require.NoError(t, remote.Write(ref, img))
	return img
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

			got, err := resolve.Resolve(t.Context(), host+"/kata/agent:4.1.0-x86_64", resolve.Options{License: "Apache-2.0"})
			require.NoError(t, err)
			require.Equal(t, &importlock.Lock{
				SchemaVersion: importlock.SchemaVersion,
				Registry:      host,
				Repository:    "kata/agent",
				Digest:        want.String(),
				Version:       "4.1.0-x86_64",
				License:       "Apache-2.0",
				Layer: importlock.Layer{
					Digest: wantLayer.String(), Size: int64(len(test.blob)), Type: test.wantType, Path: importlock.AgentPath,
				},
			}, got)
			require.NoError(t, got.Validate())
		})
	}
}

func TestAnnotationsAndOptions(t *testing.T) {
	host := serve(t, quietRegistry())
	push(t, host, map[string]string{
		"org.opencontainers.image.licenses": "Apache-2.0 AND MIT",
		"org.opencontainers.image.version":  "4.1.0",
	}, tarball(t, "usr/bin/kata-agent"))
	reference := host + "/kata/agent:4.1.0-x86_64"

	got, err := resolve.Resolve(t.Context(), reference, resolve.Options{License: "other"})
	require.NoError(t, err)
	require.Equal(t, "Apache-2.0 AND MIT", got.License)
	require.Equal(t, "4.1.0", got.Version)
	got, err = resolve.Resolve(t.Context(), reference, resolve.Options{Version: "mine"})
	require.NoError(t, err)
	require.Equal(t, "mine", got.Version)
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
	got, err := resolve.Resolve(t.Context(), host+"/kata/agent:4.1.0-x86_64", resolve.Options{License: "Apache-2.0"})
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
		name, reference, wantErr string
		wantCode                 int
	}{
		{"bad reference", "Not A Reference", "could not parse reference", exitcode.BadInput},
		{"no such tag", host + "/kata/agent:none", "pinning the agent of " + host + "/kata/agent:none", exitcode.Unreachable},
		{"nobody listens", "127.0.0.1:1/kata/agent:1", "connection refused", exitcode.Unreachable},
		{"no agent in it", host + "/kata/agent:4.1.0-x86_64", "no layer holds usr/bin/kata-agent", exitcode.Unverified},
		{"damaged blob", damaged + "/kata/agent:4.1.0-x86_64", "reading layer sha256:", exitcode.Unverified},
		{"cut blob", cut + "/kata/agent:4.1.0-x86_64", "reading layer sha256:", exitcode.Unreachable},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := resolve.Resolve(t.Context(), test.reference, resolve.Options{License: "Apache-2.0"})
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
