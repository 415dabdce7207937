package publish_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/payload/bundle"
	"github.com/kiln-build/kiln/payload/fakepayload"
	"github.com/kiln-build/kiln/payload/publish"
	"github.com/kiln-build/kiln/payload/receipt"
	"github.com/kiln-build/kiln/payload/registry"
	"github.com/kiln-build/kiln/tools/atomicfile"
	"github.com/kiln-build/kiln/tools/exitcode"
)

// faulty is a real registry on loopback behind a layer that breaks requests.
type faulty struct {
	dir     string
	address string

	mu       sync.Mutex
	requests []string
	// fault may answer a request itself, or break it, and then gives true.
	fault func(w http.ResponseWriter, req *http.Request) bool
}

func newFaulty(t *testing.T, opts ...registry.Option) *faulty {
	t.Helper()
	f := &faulty{dir: t.TempDir()}
	r, err := registry.Open(f.dir, opts...)
	require.NoError(t, err)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		f.mu.Lock()
		f.requests = append(f.requests, req.Method+" "+req.URL.Path)
		fault := f.fault
		f.mu.Unlock()
		if fault == nil || !fault(w, req) {
			r.ServeHTTP(w, req)
		}
	}))
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
		require.NoError(t, r.Close())
	})
	f.address = strings.TrimPrefix(s.URL, "http://")
	return f
}

func (f *faulty) breakWith(fault func(http.ResponseWriter, *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

// count counts requests so far whose method is one of methods and whose path
// contains part.
func (f *faulty) count(part string, methods ...string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, r := range f.requests {
		method, path, _ := strings.Cut(r, " ")
		for _, m := range methods {
			if m == method && strings.Contains(path, part) {
				n++
			}
		}
	}
	return n
}

func (f *faulty) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = nil
}

func options(t *testing.T, address string, b *bundle.Bundle) publish.Options {
	t.Helper()
	repo, err := b.Receipt.RepositoryAt(address)
	require.NoError(t, err)
	return publish.Options{
		Repository: repo,
		Transport:  publish.NewTransport(patience),
		Backoff:    remote.Backoff{Duration: time.Millisecond, Factor: 2, Steps: 4},
	}
}

// nothingDangles asserts that every name in the registry means something
// that is there.
func (f *faulty) nothingDangles(t *testing.T) {
	t.Helper()
	f.breakWith(nil)
	root := filepath.Join(f.dir, "repositories")
	require.NoError(t, filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(root, path)
		require.NoError(t, err)
		repo, err := name.NewRepository(f.address + "/" + filepath.Dir(filepath.Dir(rel)))
		require.NoError(t, err)
		var ref name.Reference
		if filepath.Base(filepath.Dir(rel)) == "_tags" {
			ref = repo.Tag(filepath.Base(rel))
		} else {
			ref = repo.Digest("sha256:" + filepath.Base(rel))
		}
		desc, err := remote.Get(ref)
		require.NoError(t, err)
		if desc.MediaType.IsIndex() {
			idx, err := desc.ImageIndex()
			require.NoError(t, err)
			require.NoError(t, validate.Index(idx, validate.Fast))
		}
		img, err := desc.Image()
		require.NoError(t, err)
		layers, err := img.Layers()
		require.NoError(t, err)
		for _, l := range layers {
			rc, err := l.Compressed()
			require.NoError(t, err)
			_, err = io.Copy(io.Discard, rc)
			require.NoError(t, err)
			require.NoError(t, rc.Close())
		}
		return nil
	}))
}

// isThere asserts that the payload can be pulled by digest.
func isThere(t *testing.T, address string, b *bundle.Bundle) {
	t.Helper()
	repo, err := b.Receipt.RepositoryAt(address)
	require.NoError(t, err)
	idx, err := remote.Index(repo.Digest(b.Receipt.Digest))
	require.NoError(t, err)
	require.NoError(t, validate.Index(idx, validate.Fast))
	img, err := idx.Image(mustHash(t, b.Receipt.Manifests[0].Digest))
	require.NoError(t, err)
	layers, err := img.Layers()
	require.NoError(t, err)
	require.Len(t, layers, len(b.Components))
	for i, l := range layers {
		rc, err := l.Uncompressed()
		require.NoError(t, err)
		h, _, err := v1.SHA256(rc)
		require.NoError(t, err)
		require.NoError(t, rc.Close())
		require.Equal(t, b.Components[i].Layer.DiffID, h.String())
	}
}

func mustHash(t *testing.T, s string) v1.Hash {
	t.Helper()
	h, err := v1.NewHash(s)
	require.NoError(t, err)
	return h
}

func TestPublishOnceThenNothing(t *testing.T) {
	f := newFaulty(t)
	b := fakepayload.Open(t, t.TempDir())
	o := options(t, f.address, b)
	o.Tag = "latest"

	res, err := publish.Publish(context.Background(), b, o)
	require.NoError(t, err)
	require.Equal(t, 3, res.UploadedBlobs, "two layers and the config")
	require.Equal(t, 2, res.UploadedManifests)
	require.Equal(t, []publish.Component{{Name: "kernel", Uploaded: true}, {Name: "kata-deploy", Uploaded: true}}, res.Components)
	require.False(t, res.Nothing())
	isThere(t, f.address, b)
	require.Equal(t, 3, f.count("/blobs/uploads/", "PATCH"))

	f.forget()
	o.Tag = ""
	res, err = publish.Publish(context.Background(), b, o)
	require.NoError(t, err)
	require.True(t, res.Nothing())
	require.Zero(t, res.UploadedBytes)
	require.Zero(t, f.count("", "POST", "PATCH", "PUT"), "publishing again writes nothing")
}

func TestOneNewComponentUploadsOneLayer(t *testing.T) {
	f := newFaulty(t)
	dir := t.TempDir()
	first := fakepayload.Open(t, dir)
	_, err := publish.Publish(context.Background(), first, options(t, f.address, first))
	require.NoError(t, err)

	components := fakepayload.Components(t, dir)
	components[0] = fakepayload.Component(t, dir, "kernel", "6.13", map[string]string{"opt/kata-artifacts/opt/kata/vmlinuz": "new"})
	second, err := bundle.Open(fakepayload.Write(t, dir, fakepayload.Spec(components...)))
	require.NoError(t, err)
	f.forget()
	res, err := publish.Publish(context.Background(), second, options(t, f.address, second))
	require.NoError(t, err)
	require.Equal(t, []publish.Component{{Name: "kernel", Uploaded: true}, {Name: "kata-deploy"}}, res.Components)
	require.Equal(t, 2, res.UploadedBlobs, "the layer and the config")
	require.Equal(t, 2, f.count("/blobs/uploads/", "PATCH"))
	f.nothingDangles(t)
}

func TestATagMovesLast(t *testing.T) {
	f := newFaulty(t)
	b := fakepayload.Open(t, t.TempDir())
	o := options(t, f.address, b)
	o.Tag = "latest"
	_, err := publish.Publish(context.Background(), b, o)
	require.NoError(t, err)
	f.mu.Lock()
	defer f.mu.Unlock()
	var writes []string
	for _, r := range f.requests {
		if strings.HasPrefix(r, "PUT") {
			writes = append(writes, filepath.Base(r))
		}
	}
	require.Equal(t, []string{b.Receipt.Manifests[0].Digest, b.Receipt.Digest, "latest"}, writes[len(writes)-3:])
}

// times lets a fault happen for the first n requests that match.
func times(n int, match func(*http.Request) bool, fault func(http.ResponseWriter, *http.Request)) func(http.ResponseWriter, *http.Request) bool {
	var mu sync.Mutex
	return func(w http.ResponseWriter, req *http.Request) bool {
		if !match(req) {
			return false
		}
		mu.Lock()
		n--
		broken := n >= 0
		mu.Unlock()
		if broken {
			fault(w, req)
		}
		return broken
	}
}

func everything(*http.Request) bool { return true }

func method(m, part string) func(*http.Request) bool {
	return func(req *http.Request) bool { return req.Method == m && strings.Contains(req.URL.Path, part) }
}

func status(code int) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "injected", code) }
}

// cut drops the connection, after a part of the body if there is one.
func cut(w http.ResponseWriter, req *http.Request) {
	_, _ = io.CopyN(io.Discard, req.Body, 40)
	c, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}
}

// hang does not answer until long after the client gave up, and reads no
// body.
func hang(http.ResponseWriter, *http.Request) { time.Sleep(5 * patience) }

const forever = 1 << 30

// patience is how long the tests' client waits for anything to move.
const patience = 300 * time.Millisecond

func TestABrokenPushLeavesNothingDanglingAndARetryCompletes(t *testing.T) {
	for name, tc := range map[string]struct {
		match func(*http.Request) bool
		fault func(http.ResponseWriter, *http.Request)
		code  int
		want  string
	}{
		"everything answers 500":         {everything, status(500), exitcode.Unreachable, "500"},
		"everything answers 429":         {everything, status(429), exitcode.Unreachable, "429"},
		"nothing answers":                {everything, hang, exitcode.Unreachable, "timeout"},
		"every connection is cut":        {everything, cut, exitcode.Unreachable, "publishing to"},
		"blobs are cut":                  {method("PATCH", "/blobs/"), cut, exitcode.Unreachable, "publishing to"},
		"blobs hang":                     {method("PATCH", "/blobs/"), hang, exitcode.Unreachable, "timeout"},
		"blobs cannot be committed":      {method("PUT", "/blobs/"), status(500), exitcode.Unreachable, "publishing to"},
		"the registry is full":           {method("PATCH", "/blobs/"), status(507), exitcode.LocalIO, "make room"},
		"nobody may write":               {method("POST", "/blobs/"), status(403), exitcode.Unreachable, "log in to"},
		"manifests are refused":          {method("PUT", "/manifests/"), status(400), exitcode.Unreachable, "putting manifest"},
		"manifests are cut":              {method("PUT", "/manifests/"), cut, exitcode.Unreachable, "putting manifest"},
		"only the tag is refused":        {method("PUT", "/manifests/latest"), status(500), exitcode.Unreachable, "moving tag latest"},
		"nobody knows what is there":     {method("HEAD", "/blobs/"), status(503), exitcode.Unreachable, "asking whether it is there"},
		"uploads end without a location": {method("POST", "/blobs/"), status(202), exitcode.Failed, "missing Location header"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFaulty(t)
			b := fakepayload.Open(t, t.TempDir())
			o := options(t, f.address, b)
			o.Tag = "latest"
			f.breakWith(times(forever, tc.match, tc.fault))

			start := time.Now()
			_, err := publish.Publish(context.Background(), b, o)
			require.ErrorContains(t, err, tc.want)
			require.NotContains(t, err.Error(), "\n", "one clear error")
			require.Equal(t, tc.code, exitcode.Of(err), "%v", err)
			require.Less(t, time.Since(start), 20*time.Second, "waiting is bounded")
			f.nothingDangles(t)
			require.NoFileExists(t, filepath.Join(f.dir, "repositories", "kata-deploy", "tdx", "_tags", "latest"))

			res, err := publish.Publish(context.Background(), b, o)
			require.NoError(t, err)
			require.LessOrEqual(t, res.UploadedBlobs, 3)
			isThere(t, f.address, b)
			f.nothingDangles(t)
			require.FileExists(t, filepath.Join(f.dir, "repositories", "kata-deploy", "tdx", "_tags", "latest"))
		})
	}
}

func TestTransientFaultsAreRetried(t *testing.T) {
	for name, tc := range map[string]struct {
		match func(*http.Request) bool
		fault func(http.ResponseWriter, *http.Request)
	}{
		"first requests answer 500":    {everything, status(500)},
		"first requests answer 429":    {everything, status(429)},
		"first requests answer 503":    {everything, status(503)},
		"first uploads are cut":        {method("PATCH", "/blobs/"), cut},
		"first uploads hang":           {method("PATCH", "/blobs/"), hang},
		"first commits are cut":        {method("PUT", "/blobs/"), cut},
		"first manifests answer 502":   {method("PUT", "/manifests/"), status(502)},
		"first existence checks break": {method("HEAD", "/blobs/"), cut},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFaulty(t)
			b := fakepayload.Open(t, t.TempDir())
			f.breakWith(times(2, tc.match, tc.fault))
			res, err := publish.Publish(context.Background(), b, options(t, f.address, b))
			require.NoError(t, err)
			require.Equal(t, 3, res.UploadedBlobs)
			isThere(t, f.address, b)
			f.nothingDangles(t)
		})
	}
}

func TestABrokenPushGoesOnWhereItStopped(t *testing.T) {
	f := newFaulty(t)
	b := fakepayload.Open(t, t.TempDir())
	o := options(t, f.address, b)
	o.Jobs = 1
	// The first blob arrives, then the registry is gone.
	arrived := 0
	f.breakWith(func(w http.ResponseWriter, req *http.Request) bool {
		if req.Method == "POST" {
			arrived++
			if arrived > 1 {
				status(500)(w, req)
				return true
			}
		}
		return false
	})
	_, err := publish.Publish(context.Background(), b, o)
	require.Error(t, err)

	f.nothingDangles(t)
	f.forget()
	res, err := publish.Publish(context.Background(), b, o)
	require.NoError(t, err)
	require.Equal(t, 2, res.UploadedBlobs, "what arrived is not sent again")
	require.Equal(t, 2, f.count("/blobs/uploads/", "PATCH"))
	require.Equal(t, []publish.Component{{Name: "kernel"}, {Name: "kata-deploy", Uploaded: true}}, res.Components)
}

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := l.Addr().String()
	require.NoError(t, l.Close())
	b := fakepayload.Open(t, t.TempDir())
	_, err = publish.Publish(context.Background(), b, options(t, address, b))
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.ErrorContains(t, err, "is the registry up, and is its name right?")
	require.Equal(t, exitcode.Unreachable, exitcode.Of(err))
}

func TestSlowButMovingIsNotCut(t *testing.T) {
	f := newFaulty(t)
	b := fakepayload.Open(t, t.TempDir())
	// Every upload takes much longer than the transport's patience, but
	// bytes keep moving.
	f.breakWith(func(w http.ResponseWriter, req *http.Request) bool {
		if req.Method == "PATCH" {
			req.Body = io.NopCloser(&slow{r: req.Body, chunks: 10})
		}
		return false
	})
	o := options(t, f.address, b)
	o.Backoff = remote.Backoff{Duration: time.Millisecond, Factor: 1, Steps: 1}
	res, err := publish.Publish(context.Background(), b, o)
	require.NoError(t, err)
	require.Equal(t, 3, res.UploadedBlobs)
}

type slow struct {
	r      io.Reader
	chunks int
}

func (s *slow) Read(p []byte) (int, error) {
	if s.chunks > 0 {
		s.chunks--
		time.Sleep(20 * time.Millisecond)
	}
	return s.r.Read(p[:min(len(p), 16)])
}

func TestAStaleLayerIsNotPublished(t *testing.T) {
	f := newFaulty(t)
	dir := t.TempDir()
	b := fakepayload.Open(t, dir)
	path := fakepayload.LayerPath(dir, "kernel")
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	data[len(data)-1] ^= 1
	require.NoError(t, os.WriteFile(path, data, 0o644))

	_, err = publish.Publish(context.Background(), b, options(t, f.address, b))
	require.ErrorIs(t, err, bundle.ErrStale)
	require.ErrorContains(t, err, "component kernel")
	require.ErrorContains(t, err, path)
	require.Equal(t, exitcode.Unverified, exitcode.Of(err))
	f.nothingDangles(t)
	require.NoFileExists(t, filepath.Join(f.dir, "blobs", "sha256", strings.TrimPrefix(b.Components[0].Layer.Digest, "sha256:")))
	require.LessOrEqual(t, f.count("/blobs/uploads/", "PATCH"), 3, "it is not tried again")
}

func TestAMissingLayerIsALocalError(t *testing.T) {
	f := newFaulty(t)
	dir := t.TempDir()
	b := fakepayload.Open(t, dir)
	require.NoError(t, os.Remove(fakepayload.LayerPath(dir, "kernel")))
	_, err := publish.Publish(context.Background(), b, options(t, f.address, b))
	require.ErrorIs(t, err, os.ErrNotExist)
	require.Equal(t, exitcode.LocalIO, exitcode.Of(err))
}

type fullFile struct {
	registry.File
}

func (fullFile) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestAFullDiskBehindTheRegistry(t *testing.T) {
	f := newFaulty(t, registry.WithCreate(func(path string, mode os.FileMode) (registry.File, error) {
		file, err := atomicfile.Create(path, mode)
		return fullFile{file}, err
	}))
	b := fakepayload.Open(t, t.TempDir())
	_, err := publish.Publish(context.Background(), b, options(t, f.address, b))
	require.ErrorContains(t, err, "no space left on device")
	require.ErrorContains(t, err, "make room")
	require.Equal(t, exitcode.LocalIO, exitcode.Of(err))
	f.nothingDangles(t)
}

func TestCancelling(t *testing.T) {
	f := newFaulty(t)
	b := fakepayload.Open(t, t.TempDir())
	ctx, cancel := context.WithCancel(context.Background())
	f.breakWith(func(_ http.ResponseWriter, req *http.Request) bool {
		if req.Method == "PATCH" {
			cancel()
		}
		return false
	})
	_, err := publish.Publish(ctx, b, options(t, f.address, b))
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "run it again to go on from here")
	f.nothingDangles(t)
}

func TestPlainTextIsForLoopbackOnly(t *testing.T) {
	// A proxy would make any host reachable; the transport must refuse
	// before it gets that far.
	reached := false
	proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(*httputil.ProxyRequest) { reached = true }})
	defer proxy.Close()
	u, err := url.Parse(proxy.URL)
	require.NoError(t, err)
	t.Setenv("HTTP_PROXY", u.String())
	_, err = publish.NewTransport(time.Second).RoundTrip(httptest.NewRequest("GET", "http://192.0.2.1:5000/v2/", nil))
	require.ErrorContains(t, err, "refusing to talk to 192.0.2.1:5000 without TLS")
	require.Equal(t, exitcode.Unreachable, exitcode.Of(err))
	require.False(t, reached)
}

func TestProgressAddsUp(t *testing.T) {
	f := newFaulty(t)
	b := fakepayload.Open(t, t.TempDir())
	o := options(t, f.address, b)
	sent, done := map[string]int64{}, map[string]bool{}
	o.Progress = func(e publish.Event) {
		sent[e.Component] = e.Sent
		done[e.Component] = e.Done
		require.LessOrEqual(t, e.Sent, e.Size)
	}
	_, err := publish.Publish(context.Background(), b, o)
	require.NoError(t, err)
	require.Equal(t, b.Components[0].Layer.Size, sent["kernel"])
	require.Equal(t, map[string]bool{"kernel": true, "kata-deploy": true, "config": true}, done)
}

func TestCheckChannel(t *testing.T) {
	for name, tc := range map[string]struct {
		channel       publish.Channel
		agent, inputs string
		want          []string
	}{
		"development takes all":             {publish.Development, receipt.AgentBringup, receipt.InputsRelocked, nil},
		"release takes the real thing":      {publish.Release, receipt.AgentImport, receipt.InputsPinned, nil},
		"release refuses the bringup agent": {publish.Release, receipt.AgentBringup, receipt.InputsPinned, []string{"may not be published to channel release", "bringup agent", "--//stack/agent:agent=//stack/agent:import"}},
		"release refuses relocked inputs":   {publish.Release, receipt.AgentImport, receipt.InputsRelocked, []string{"relocked"}},
		"release takes what has no guest":   {publish.Release, receipt.AgentNone, receipt.InputsPinned, nil},
		"release names both reasons":        {publish.Release, receipt.AgentBringup, receipt.InputsRelocked, []string{"bringup", "relocked"}},
		"unknown channel":                   {"nightly", receipt.AgentImport, receipt.InputsPinned, []string{`channel "nightly" is unknown`}},
	} {
		t.Run(name, func(t *testing.T) {
			err := publish.CheckChannel(tc.channel, &receipt.Receipt{Platform: "tdx", Agent: tc.agent, Inputs: tc.inputs})
			if tc.want == nil {
				require.NoError(t, err)
				return
			}
			for _, w := range tc.want {
				require.ErrorContains(t, err, w)
			}
			require.Equal(t, exitcode.BadInput, exitcode.Of(err))
		})
	}
}

func TestReleaseRefusesATinyKernel(t *testing.T) {
	r := &receipt.Receipt{Platform: "tdx", Agent: receipt.AgentImport, Inputs: receipt.InputsPinned, Components: []receipt.Component{
		{Name: "qemu", Version: "1:10.2.2+ds-1"}, {Name: "kernel", Version: "6.12.117-1-tiny"},
	}}
	require.NoError(t, publish.CheckChannel(publish.Development, r))
	err := publish.CheckChannel(publish.Release, r)
	require.ErrorContains(t, err, "component kernel 6.12.117-1-tiny")
	require.ErrorContains(t, err, "--//stack/kernel:profile=full")
	require.NotContains(t, err.Error(), "qemu")
	require.Equal(t, exitcode.BadInput, exitcode.Of(err))
}

func TestReleaseRefusesAnImageForNoMachine(t *testing.T) {
	for version, want := range map[string][]string{
		"6.12.117-1":                     nil,
		"6.12.117-1-testkey":             {"component boot-image-se 6.12.117-1-testkey is for a host key that everybody has", "--//stack/bootimage:host_key_document=LABEL"},
		"6.12.117-1-unverified":          {"component boot-image-se 6.12.117-1-unverified is for machines that nobody vouches for", "--//stack/bootimage:host_key_certificates=LABEL"},
		"6.12.117-1-testkey-unverified":  {"a host key that everybody has", "nobody vouches for"},
		"6.12.117-1-testkeys~unverified": nil,
	} {
		r := &receipt.Receipt{Platform: "se", Agent: receipt.AgentImport, Inputs: receipt.InputsPinned, Components: []receipt.Component{
			{Name: "kernel", Version: "6.12.117-1"}, {Name: "boot-image-se", Version: version},
		}}
		require.NoError(t, publish.CheckChannel(publish.Development, r))
		err := publish.CheckChannel(publish.Release, r)
		if want == nil {
			require.NoError(t, err, version)
			continue
		}
		for _, w := range want {
			require.ErrorContains(t, err, w)
		}
		require.Equal(t, exitcode.BadInput, exitcode.Of(err))
	}
}

func ExampleCheckChannel() {
	err := publish.CheckChannel(publish.Release, &receipt.Receipt{Platform: "tdx", Agent: receipt.AgentBringup, Inputs: receipt.InputsPinned})
	fmt.Println(exitcode.Of(err))
	// Output: 2
}
