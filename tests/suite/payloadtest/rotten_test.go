package payloadtest_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/payload/bundle"
	"github.com/kiln-build/kiln/payload/publish"
	"github.com/kiln-build/kiln/payload/registry"
)

// serveRotten serves a registry that holds b and flips a bit in the first
// layer whenever it is read.
func serveRotten(t *testing.T, dir string, b *bundle.Bundle) string {
	t.Helper()
	r, err := registry.Open(dir)
	require.NoError(t, err)
	bad := b.Components[0].Layer.Digest
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method != http.MethodGet || !strings.HasSuffix(req.URL.Path, bad) {
			r.ServeHTTP(w, req)
			return
		}
		rec := httptest.NewRecorder()
		r.ServeHTTP(rec, req)
		body := rec.Body.Bytes()
		body[len(body)/2] ^= 1
		_, err := io.Copy(w, strings.NewReader(string(body)))
		if err != nil {
			t.Logf("serving a rotten blob: %v", err)
		}
	}))
	t.Cleanup(func() {
		s.Close()
		require.NoError(t, r.Close())
	})
	address := strings.TrimPrefix(s.URL, "http://")
	repo, err := b.Receipt.RepositoryAt(address)
	require.NoError(t, err)
	_, err = publish.Publish(context.Background(), b, publish.Options{Repository: repo})
	require.NoError(t, err)
	return address
}
