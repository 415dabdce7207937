package registry_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/payload/registry"
	"github.com/kiln-build/kiln/tools/atomicfile"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// start serves dir until stop is called, which the end of the test does too.
func start(t *testing.T, dir string, opts ...registry.Option) (address string, stop func()) {
	t.Helper()
	r, err := registry.Open(dir, opts...)
	require.NoError(t, err)
	s, err := registry.Serve(r, "127.0.0.1:0")
	require.NoError(t, err)
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			require.NoError(t, s.Close(ctx))
		}
	}
	t.Cleanup(stop)
	return s.Address(), stop
}

func index(t *testing.T) v1.ImageIndex {
	t.Helper()
	img, err := random.Image(4096, 3)
	require.NoError(t, err)
	img = mutate.MediaType(img, types.OCIManifestSchema1)
	return mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), mutate.IndexAddendum{Add: img})
}

func digestRef(t *testing.T, address, repo string, i v1.ImageIndex) name.Digest {
	t.Helper()
	h, err := i.Digest()
	require.NoError(t, err)
	ref, err := name.NewDigest(fmt.Sprintf("%s/%s@%s", address, repo, h))
	require.NoError(t, err)
	return ref
}

func TestWhatIsPushedSurvivesTheProcess(t *testing.T) {
	dir := t.TempDir()
	address, stop := start(t, dir)
	idx := index(t)
	require.NoError(t, remote.WriteIndex(digestRef(t, address, "kata-deploy/tdx", idx), idx))
	tag, err := name.NewTag(address + "/kata-deploy/tdx:latest")
	require.NoError(t, err)
	require.NoError(t, remote.Tag(tag, idx))
	stop()

	address, _ = start(t, dir)
	got, err := remote.Index(digestRef(t, address, "kata-deploy/tdx", idx))
	require.NoError(t, err)
	require.NoError(t, validate.Index(got))
	tag, err = name.NewTag(address + "/kata-deploy/tdx:latest")
	require.NoError(t, err)
	desc, err := remote.Get(tag)
	require.NoError(t, err)
	want, err := idx.Digest()
	require.NoError(t, err)
	require.Equal(t, want, desc.Digest)
	tags, err := remote.List(tag.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"latest"}, tags)
}

func do(t *testing.T, method, url, contentType string, body []byte) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	require.NoError(t, err)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(data), resp.Header
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(s[:])
}

const (
	imageType = string(types.OCIManifestSchema1)
	indexType = string(types.OCIImageIndex)
)

func TestIncompleteManifestsAreRefused(t *testing.T) {
	dir := t.TempDir()
	address, _ := start(t, dir)
	base := "http://" + address + "/v2/kata-deploy/tdx"
	blob := []byte("a config")
	status, _, _ := do(t, "POST", base+"/blobs/uploads/?digest="+sum(blob), "", blob)
	require.Equal(t, 201, status)
	absent := "sha256:" + strings.Repeat("0", 64)

	manifest := func(size int, layer string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"x","digest":%q,"size":%d},"layers":[{"mediaType":"x","digest":%q,"size":%d}]}`,
			imageType, sum(blob), size, layer, size)
	}
	for name, tc := range map[string]struct {
		target, contentType, body string
		want                      string
	}{
		"a blob is missing":     {"latest", imageType, manifest(len(blob), absent), "names blob " + absent},
		"a blob's size differs": {"latest", imageType, manifest(7, sum(blob)), "has 7 bytes, it has 8"},
		"a child is missing":    {"latest", indexType, fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":1}]}`, imageType, absent), "names manifest " + absent},
		"not JSON":              {"latest", imageType, "{", "reading the manifest"},
		"unknown media type":    {"latest", "text/plain", "{}", "neither an image nor an index"},
		"another digest":        {absent, imageType, manifest(len(blob), sum(blob)), "not " + absent},
		"odd tag":               {"-x", imageType, manifest(len(blob), sum(blob)), "is not a tag"},
		"too large":             {"latest", imageType, strings.Repeat(" ", 5<<20), "too large"},
	} {
		t.Run(name, func(t *testing.T) {
			status, body, _ := do(t, "PUT", base+"/manifests/"+tc.target, tc.contentType, []byte(tc.body))
			require.Equal(t, 400, status)
			require.Contains(t, body, tc.want)
			status, _, _ = do(t, "GET", base+"/manifests/"+tc.target, "", nil)
			require.Equal(t, 404, status)
		})
	}
	require.NoDirExists(t, filepath.Join(dir, "repositories", "kata-deploy"))
	status, _, _ = do(t, "PUT", base+"/manifests/latest", imageType, []byte(manifest(len(blob), sum(blob))))
	require.Equal(t, 201, status)
}

func TestUploads(t *testing.T) {
	dir := t.TempDir()
	address, _ := start(t, dir)
	host := "http://" + address
	base := host + "/v2/r"
	blob := []byte("twelve bytes")

	t.Run("in pieces", func(t *testing.T) {
		status, _, h := do(t, "POST", base+"/blobs/uploads/", "", nil)
		require.Equal(t, 202, status)
		status, _, h = do(t, "PATCH", host+h.Get("Location"), "", blob[:5])
		require.Equal(t, 202, status)
		require.Equal(t, "0-4", h.Get("Range"))
		location := h.Get("Location")
		status, _, h = do(t, "GET", host+location, "", nil)
		require.Equal(t, 204, status)
		require.Equal(t, "0-4", h.Get("Range"))
		status, _, _ = do(t, "PUT", host+location+"?digest="+sum(blob), "", blob[5:])
		require.Equal(t, 201, status)
		status, body, _ := do(t, "GET", base+"/blobs/"+sum(blob), "", nil)
		require.Equal(t, 200, status)
		require.Equal(t, string(blob), body)
		status, _, _ = do(t, "PUT", host+location+"?digest="+sum(blob), "", nil)
		require.Equal(t, 404, status, "an upload ends once")
	})
	t.Run("with a wrong digest", func(t *testing.T) {
		wrong := sum([]byte("something else"))
		status, body, _ := do(t, "POST", base+"/blobs/uploads/?digest="+wrong, "", blob)
		require.Equal(t, 400, status)
		require.Contains(t, body, "DIGEST_INVALID")
		status, _, _ = do(t, "HEAD", base+"/blobs/"+wrong, "", nil)
		require.Equal(t, 404, status)
	})
	t.Run("mounted", func(t *testing.T) {
		status, _, _ := do(t, "POST", host+"/v2/other/blobs/uploads/?from=r&mount="+sum(blob), "", nil)
		require.Equal(t, 201, status)
	})
	t.Run("with a name that climbs", func(t *testing.T) {
		status, _, _ := do(t, "POST", host+"/v2/a/%2e%2e/b/blobs/uploads/", "", nil)
		require.Equal(t, 400, status)
	})
	t.Run("deleting", func(t *testing.T) {
		status, _, _ := do(t, "DELETE", base+"/blobs/"+sum(blob), "", nil)
		require.Equal(t, 405, status)
	})
	require.Len(t, blobs(t, dir), 1, "nothing but the blob is left")
}

func blobs(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "blobs", "sha256"))
	require.NoError(t, err)
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestACutUploadLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	address, stop := start(t, dir)
	host := "http://" + address
	_, _, h := do(t, "POST", host+"/v2/r/blobs/uploads/", "", nil)
	req, err := http.NewRequest("PATCH", host+h.Get("Location"), io.MultiReader(strings.NewReader("half"), brokenReader{}))
	require.NoError(t, err)
	_, err = http.DefaultClient.Do(req)
	require.ErrorIs(t, err, errCut)
	require.Eventually(t, func() bool { return len(blobs(t, dir)) == 0 }, 10*time.Second, 10*time.Millisecond)

	// One that never ends is swept up when the registry closes.
	do(t, "POST", host+"/v2/r/blobs/uploads/", "", nil)
	require.Len(t, blobs(t, dir), 1)
	stop()
	require.Empty(t, blobs(t, dir))
}

var errCut = fmt.Errorf("cut")

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errCut }

func TestWhatACrashLeftIsSweptUp(t *testing.T) {
	dir := t.TempDir()
	_, stop := start(t, dir)
	stop()
	f, err := atomicfile.Create(filepath.Join(dir, "blobs", "sha256", "upload"), 0o644)
	require.NoError(t, err)
	_, err = f.Write([]byte("half"))
	require.NoError(t, err)
	require.Len(t, blobs(t, dir), 1)
	start(t, dir)
	require.Empty(t, blobs(t, dir))
}

func TestARottenBlobCountsAsAbsent(t *testing.T) {
	dir := t.TempDir()
	address, stop := start(t, dir)
	idx := index(t)
	require.NoError(t, remote.WriteIndex(digestRef(t, address, "r", idx), idx))
	manifest, err := idx.IndexManifest()
	require.NoError(t, err)
	img, err := idx.Image(manifest.Manifests[0].Digest)
	require.NoError(t, err)
	layers, err := img.Layers()
	require.NoError(t, err)
	h, err := layers[0].Digest()
	require.NoError(t, err)
	stop()
	path := filepath.Join(dir, "blobs", "sha256", h.Hex)
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	data[100] ^= 1
	require.NoError(t, os.WriteFile(path, data, 0o644))

	address, _ = start(t, dir)
	status, _, _ := do(t, "HEAD", "http://"+address+"/v2/r/blobs/"+h.String(), "", nil)
	require.Equal(t, 404, status)
	// A push heals it.
	repo, err := name.NewRepository(address + "/r")
	require.NoError(t, err)
	require.NoError(t, remote.WriteLayer(repo, layers[0]))
	got, err := remote.Index(digestRef(t, address, "r", idx))
	require.NoError(t, err)
	require.NoError(t, validate.Index(got))
}

func TestDamagedManifestsAreLeftOut(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, dir string, idx v1.Hash){
		"the index is gone": func(t *testing.T, dir string, idx v1.Hash) {
			require.NoError(t, os.Remove(filepath.Join(dir, "blobs", "sha256", idx.Hex)))
		},
		"the index rotted": func(t *testing.T, dir string, idx v1.Hash) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "blobs", "sha256", idx.Hex), []byte("{}"), 0o644))
		},
		"every blob but the index is gone": func(t *testing.T, dir string, idx v1.Hash) {
			for _, b := range blobs(t, dir) {
				if b != idx.Hex {
					require.NoError(t, os.Remove(filepath.Join(dir, "blobs", "sha256", b)))
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			address, stop := start(t, dir)
			idx := index(t)
			tag, err := name2tag(address)
			require.NoError(t, err)
			require.NoError(t, remote.WriteIndex(tag, idx))
			h, err := idx.Digest()
			require.NoError(t, err)
			stop()
			damage(t, dir, h)

			address, stop = start(t, dir)
			base := "http://" + address + "/v2/r/manifests/"
			for _, target := range []string{h.String(), "latest"} {
				status, _, _ := do(t, "GET", base+target, "", nil)
				require.Equal(t, 404, status, target)
			}
			tag, err = name2tag(address)
			require.NoError(t, err)
			require.NoError(t, remote.WriteIndex(tag, idx))
			stop()
			address, _ = start(t, dir)
			status, _, _ := do(t, "GET", "http://"+address+"/v2/r/manifests/latest", "", nil)
			require.Equal(t, 200, status)
		})
	}
}

func name2tag(address string) (name.Tag, error) { return name.NewTag(address + "/r:latest") }

func TestOneProcessOwnsADirectory(t *testing.T) {
	dir := t.TempDir()
	r, err := registry.Open(dir)
	require.NoError(t, err)
	_, err = registry.Open(dir)
	require.ErrorContains(t, err, "the registry in "+dir+" is in use by another process")

	require.NoError(t, r.Announce("127.0.0.1:5000"))
	_, err = registry.Open(dir)
	locked := &registry.LockedError{}
	require.ErrorAs(t, err, &locked)
	require.Equal(t, "127.0.0.1:5000", locked.Address)

	require.NoError(t, r.Close())
	require.NoFileExists(t, filepath.Join(dir, "address"))
	r, err = registry.Open(dir)
	require.NoError(t, err)
	require.NoError(t, r.Close())
}

func TestOpenWait(t *testing.T) {
	dir := t.TempDir()
	first, err := registry.Open(dir)
	require.NoError(t, err)

	// Closing from within the message proves that it waited.
	waits := 0
	second, err := registry.OpenWait(context.Background(), dir, func(*registry.LockedError) {
		waits++
		require.NoError(t, first.Close())
	})
	require.NoError(t, err)
	require.Equal(t, 1, waits)

	ctx, cancel := context.WithCancel(context.Background())
	_, err = registry.OpenWait(ctx, dir, func(*registry.LockedError) { cancel() })
	require.ErrorContains(t, err, "is in use by another process")
	require.Equal(t, exitcode.Unreachable, exitcode.Of(err))
	require.NoError(t, second.Close())
}

// full is a disk that has room for a number of bytes.
type full struct {
	registry.File
	room *int
}

func (f full) Write(p []byte) (int, error) {
	if *f.room -= len(p); *f.room < 0 {
		return 0, fmt.Errorf("write: %w", syscall.ENOSPC)
	}
	return f.File.Write(p)
}

func TestAFullDisk(t *testing.T) {
	dir := t.TempDir()
	room := 6000
	address, stop := start(t, dir, registry.WithCreate(func(path string, mode os.FileMode) (registry.File, error) {
		f, err := atomicfile.Create(path, mode)
		return full{f, &room}, err
	}))
	idx := index(t)
	err := remote.WriteIndex(digestRef(t, address, "r", idx), idx)
	require.ErrorContains(t, err, "no space left on device")
	require.ErrorContains(t, err, "INSUFFICIENT_STORAGE")
	stop()
	require.NoDirExists(t, filepath.Join(dir, "repositories", "r"))
	for _, b := range blobs(t, dir) {
		data, err := os.ReadFile(filepath.Join(dir, "blobs", "sha256", b))
		require.NoError(t, err)
		require.Equal(t, "sha256:"+b, sum(data), "what is there is whole")
	}

	address, _ = start(t, dir)
	require.NoError(t, remote.WriteIndex(digestRef(t, address, "r", idx), idx))
}

func TestServeIsForLoopback(t *testing.T) {
	r, err := registry.Open(t.TempDir())
	require.NoError(t, err)
	defer r.Close()
	for _, address := range []string{"0.0.0.0:0", "192.0.2.1:5000", ":5000", "localhost", "example.com:80"} {
		_, err := registry.Serve(r, address)
		require.Error(t, err, address)
		require.Equal(t, exitcode.BadInput, exitcode.Of(err), address)
	}
}
