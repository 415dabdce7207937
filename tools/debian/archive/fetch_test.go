package archive_test

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/tools/debian/archive"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func sum(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

func TestClient(t *testing.T) {
	var busy atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/file":
			_, _ = w.Write([]byte("hello"))
		case "/busy-once":
			if busy.Add(1) == 1 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			_, _ = w.Write([]byte("hello"))
		case "/always-busy":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/forbidden":
			w.WriteHeader(http.StatusForbidden)
		case "/cut":
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("hel"))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer server.Close()
	client := archive.NewClient(0, 0)
	ctx := t.Context()

	data, err := client.GetVerified(ctx, server.URL+"/file", sum("hello"), 5)
	require.NoError(t, err)
	require.Equal(t, "hello", string(data))

	data, err = client.Get(ctx, server.URL+"/busy-once", 5)
	require.NoError(t, err, "a busy mirror is asked again")
	require.Equal(t, "hello", string(data))

	_, err = client.GetVerified(ctx, server.URL+"/file", sum("other"), 5)
	var mismatch *archive.MismatchError
	require.ErrorAs(t, err, &mismatch)
	require.Equal(t, sum("hello"), mismatch.Got)
	require.Equal(t, exitcode.Unverified, exitcode.Of(err))

	_, err = client.Get(ctx, server.URL+"/file", 4)
	require.EqualError(t, err, server.URL+"/file: more than the 4 bytes that were announced")
	require.Equal(t, exitcode.Unverified, exitcode.Of(err))

	_, err = client.Get(ctx, server.URL+"/none", 5)
	require.ErrorIs(t, err, archive.ErrNotFound)

	for _, path := range []string{"/always-busy", "/forbidden", "/cut"} {
		_, err = client.Get(ctx, server.URL+path, 100)
		require.Error(t, err, path)
		require.Equal(t, exitcode.Unreachable, exitcode.Of(err), "%s: %v", path, err)
	}

	has, err := client.Has(ctx, server.URL+"/file", 5)
	require.NoError(t, err)
	require.True(t, has)
	has, err = client.Has(ctx, server.URL+"/none", 5)
	require.NoError(t, err)
	require.False(t, has)

	url := server.URL
	server.Close()
	_, err = client.Get(ctx, url+"/file", 5)
	require.Equal(t, exitcode.Unreachable, exitcode.Of(err), "%v", err)
	_, err = client.Has(ctx, url+"/file", 5)
	require.Equal(t, exitcode.Unreachable, exitcode.Of(err), "%v", err)
}
