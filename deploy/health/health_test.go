package health_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kiln-build/kiln/deploy/health"
	"github.com/kiln-build/kiln/tools/exitcode"
)

func TestServe(t *testing.T) {
	s, err := health.Serve(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	status := func(path string) int {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Address()+path, nil)
		require.NoError(t, err)
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		return response.StatusCode
	}
	require.Equal(t, http.StatusOK, status("/healthz"))
	require.Equal(t, http.StatusServiceUnavailable, status("/readyz"))
	s.SetReady(true)
	require.Equal(t, http.StatusOK, status("/readyz"))
	s.SetReady(false)
	require.Equal(t, http.StatusServiceUnavailable, status("/readyz"))
	require.Equal(t, http.StatusOK, status("/healthz"))
	require.Equal(t, http.StatusNotFound, status("/"))

	_, err = health.Serve(t.Context(), s.Address())
	require.ErrorContains(t, err, "address already in use")
	require.Equal(t, exitcode.BadInput, exitcode.Of(err))
	require.NoError(t, s.Close())
}
